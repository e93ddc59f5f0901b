// SPDX-License-Identifier: Apache-2.0
//! The token of a service account, in a file that the kubelet replaces before the token expires.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;
use tracing::warn;

/// The file is read again after this time. The kubelet renews a token after 80 percent of its lifetime of an hour or more (Kubernetes
/// documentation, "Bound service account tokens").
const MAX_TOKEN_AGE: Duration = Duration::from_mins(1);

/// The token is unusable.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("failed to read the file")]
    Read(#[source] std::io::Error),
    #[error("the file contains no valid token")]
    Malformed(#[source] http::header::InvalidHeaderValue),
}

#[derive(Debug)]
pub(super) struct Token {
    path: PathBuf,
    max_age: Duration,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    header: HeaderValue,
    read: Instant,
}

impl Token {
    pub(super) fn read(path: PathBuf) -> Result<Self, TokenError> {
        Self::with_max_age(path, MAX_TOKEN_AGE)
    }

    fn with_max_age(path: PathBuf, max_age: Duration) -> Result<Self, TokenError> {
        let last = Last { header: header(&path)?, read: Instant::now() };
        Ok(Self { path, max_age, last: Mutex::new(last) })
    }

    /// The value of `Authorization`. While the file cannot be read, the last token is used.
    pub(super) fn header(&self) -> HeaderValue {
        let mut last = self.last.lock();
        if last.read.elapsed() >= self.max_age {
            last.read = Instant::now();
            match header(&self.path) {
                Ok(header) => last.header = header,
                Err(error) => {
                    warn!(path = %self.path.display(), error = %dra_model::chain(&error), "failed to read the token; using the last one");
                }
            }
        }
        last.header.clone()
    }
}

fn header(path: &std::path::Path) -> Result<HeaderValue, TokenError> {
    let token = std::fs::read_to_string(path).map_err(TokenError::Read)?;
    let mut header = HeaderValue::try_from(format!("Bearer {}", token.trim_ascii())).map_err(TokenError::Malformed)?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_token_is_used_and_the_last_one_after_its_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let token = Token::with_max_age(path.clone(), Duration::ZERO).unwrap();
        let cached = Token::read(path.clone()).unwrap();
        assert_eq!(token.header(), "Bearer one");
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!((token.header(), cached.header()), ("Bearer two".parse().unwrap(), "Bearer one".parse().unwrap()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(token.header(), "Bearer two");
        assert!(token.header().is_sensitive(), "it is not printed");
        assert!(matches!(Token::read(path), Err(TokenError::Read(_))));
    }
}
