// SPDX-License-Identifier: Apache-2.0
//! Why a spec cannot be rendered, and the check of its paths.

use std::path::{Path, PathBuf};

/// What cannot be written into a spec.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A version that would not be a file or device name.
    #[error("the driver version `{0}` has characters other than letters, digits and dots: check the installed driver")]
    Version(String),
    /// A path that is relative or not text.
    #[error("`{}` is not an absolute path in UTF-8: check the driver root and the MPS root", .0.display())]
    Path(PathBuf),
    /// A file name that would leave its folder.
    #[error("`{0}` is not a plain file name: check the installed driver")]
    FileName(String),
    /// A spec without content, which would be refused or useless.
    #[error("{0} has nothing in it: check that the driver is completely installed")]
    Empty(String),
    #[error("failed to encode a CDI spec")]
    Encode {
        #[source]
        source: serde_json::Error,
    },
}

pub(crate) fn absolute(path: &Path) -> Result<String, RenderError> {
    let text = path.to_str().filter(|_| path.is_absolute());
    text.map(str::to_owned).ok_or_else(|| RenderError::Path(path.to_owned()))
}
