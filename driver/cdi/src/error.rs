// SPDX-License-Identifier: Apache-2.0
//! Why a spec cannot be rendered, and the check of its paths.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use dra_model::Advice;

/// A CDI spec cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The version becomes a part of file and device names.
    #[error("the driver version `{0}` has characters other than letters, digits and dots")]
    Version(String),
    #[error("`{}` is not an absolute path in UTF-8", .0.display())]
    Path(PathBuf),
    /// A file name with a slash would leave its directory.
    #[error("`{0}` is not a plain file name")]
    FileName(String),
    /// Container runtimes refuse a spec without edits.
    #[error("{0} would be empty")]
    Empty(String),
    #[error("failed to encode a CDI spec")]
    Encode {
        #[source]
        source: serde_json::Error,
    },
}

impl Advice for RenderError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Version(_) | Self::FileName(_) => Some("check the installed NVIDIA driver".into()),
            Self::Path(_) => Some("check the driver root and the MPS root".into()),
            Self::Empty(_) => Some("check that the NVIDIA driver is completely installed".into()),
            Self::Encode { .. } => None,
        }
    }
}

pub(crate) fn absolute(path: &Path) -> Result<String, RenderError> {
    let text = path.to_str().filter(|_| path.is_absolute());
    text.map(str::to_owned).ok_or_else(|| RenderError::Path(path.to_owned()))
}
