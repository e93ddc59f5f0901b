// SPDX-License-Identifier: Apache-2.0
//! The bar of a GPU: what is used of it, read at a glance.

use std::fmt;

/// Characters of a bar. Eight memory slices, and all powers of two, divide it.
pub const WIDTH: usize = 16;

/// A part of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Free,
    /// A claim has it alone.
    Used,
    /// Claims share it by MPS.
    Mps,
    /// Claims share it by time-slicing.
    TimeSliced,
    /// No claim can get it now.
    Unusable,
}

impl Part {
    const fn character(self) -> char {
        match self {
            Self::Free => '░',
            Self::Used => '█',
            Self::Mps => '▓',
            Self::TimeSliced => '▒',
            Self::Unusable => '×',
        }
    }
}

/// What the characters mean, for below a table.
pub const LEGEND: &str = "█ used alone  ▓ shared by MPS  ▒ shared by time-slicing  ░ free  × not for new claims";

/// Parts of equal size, from the first memory slice to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar(Vec<Part>);

impl Bar {
    pub fn of_parts(parts: Vec<Part>) -> Self {
        Self(parts)
    }

    /// The first `per_mille` thousandths of the GPU are `part`. Less than a character is one, and all but less than one is not all.
    pub fn of_share(per_mille: u32, part: Part) -> Self {
        let width = u32::try_from(WIDTH).unwrap_or_default();
        let filled = (per_mille.min(1000) * width).div_ceil(1000);
        let filled = if per_mille < 1000 { filled.min(width - 1) } else { filled };
        Self((0..width).map(|at| if at < filled { part } else { Part::Free }).collect())
    }

    /// The free parts of a GPU that new claims cannot have.
    pub fn without_free(self) -> Self {
        let unusable = |part| if part == Part::Free { Part::Unusable } else { part };
        Self(self.0.into_iter().map(unusable).collect())
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.0.len().max(1);
        let at = |character: usize| self.0.get(character * parts / WIDTH);
        (0..WIDTH).try_for_each(|character| {
            let part = at(character).copied().unwrap_or(Part::Free);
            write!(f, "{}", part.character())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_the_place_of_each_slice() {
        use Part::{Free, Used};
        let bar = Bar::of_parts(vec![Used, Free, Free, Used, Free, Free, Free, Free]);
        assert_eq!(bar.to_string(), "██░░░░██░░░░░░░░");
        assert_eq!(bar.without_free().to_string(), "██××××██××××××××");
        assert_eq!(Bar::of_parts(vec![Used]).to_string(), "████████████████");
        assert_eq!(Bar::of_parts(Vec::new()).to_string(), "░░░░░░░░░░░░░░░░");
    }

    #[test]
    fn little_is_seen_and_almost_all_is_not_all() {
        for (per_mille, expect) in [
            (0, "░░░░░░░░░░░░░░░░"),
            (1, "▓░░░░░░░░░░░░░░░"),
            (500, "▓▓▓▓▓▓▓▓░░░░░░░░"),
            (999, "▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓░"),
            (1000, "▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓"),
        ] {
            assert_eq!(Bar::of_share(per_mille, Part::Mps).to_string(), expect, "{per_mille}");
        }
    }
}
