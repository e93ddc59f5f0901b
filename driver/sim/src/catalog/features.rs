// SPDX-License-Identifier: Apache-2.0
//! What follows from the architecture and the form of a board.

use super::{Architecture, Form, Model};

impl Model {
    /// Damaged rows of the memory are replaced by spare ones; earlier GPUs retire pages.
    pub fn has_row_remapping(&self) -> bool {
        self.architecture != Architecture::Turing
    }

    /// Persistence mode is on as soon as the driver is loaded, as by `nvidia-persistenced`.
    pub fn persists_after_boot(&self) -> bool {
        self.observed.as_ref().is_some_and(|observed| observed.persistence)
    }

    /// NVLinks of the board (NVIDIA's white papers of the architectures); cards are not bridged here.
    pub fn nvlinks(&self) -> u32 {
        match (self.form, self.architecture) {
            (Form::Sxm, Architecture::Ampere) => 12,
            (Form::Sxm, Architecture::Hopper | Architecture::Blackwell) => 18,
            (Form::Sxm, Architecture::Turing | Architecture::Ada) | (Form::Pcie, _) => 0,
        }
    }

    /// The GPU registers with the NVLink fabric of its baseboard.
    pub fn has_fabric(&self) -> bool {
        self.form == Form::Sxm && matches!(self.architecture, Architecture::Hopper | Architecture::Blackwell)
    }
}
