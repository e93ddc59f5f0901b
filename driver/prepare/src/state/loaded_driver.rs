// SPDX-License-Identifier: Apache-2.0
//! The loaded driver, read anew for each call, but once for calls that arrive together: eight pods that start at once need the
//! same forty files.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dra_cdi::RenderedSpec;
use dra_model::DriverFiles;
use parking_lot::Mutex;

/// The age up to which a reading is used: a call may have waited for the lock of its claim since it arrived.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The loaded driver, as containers get it.
#[derive(Debug)]
pub(crate) struct LoadedDriver {
    pub(crate) files: DriverFiles,
    pub(crate) spec: RenderedSpec,
}

/// The last reading and when it began.
#[derive(Debug, Default)]
pub(crate) struct LastReading(Mutex<Option<(Instant, Arc<LoadedDriver>)>>);

impl LastReading {
    /// The driver of a reading that began after a call arrived.
    pub(crate) fn after<E>(
        &self,
        arrival: Instant,
        read: impl FnOnce() -> Result<LoadedDriver, E>,
    ) -> Result<Arc<LoadedDriver>, E> {
        let mut last = self.0.lock();
        let is_current = |began: Instant| began >= arrival && began.elapsed() < MAX_AGE;
        if let Some((_, driver)) = last.as_ref().filter(|(began, _)| is_current(*began)) {
            return Ok(Arc::clone(driver));
        }
        let began = Instant::now();
        let driver = Arc::new(read()?);
        *last = Some((began, Arc::clone(&driver)));
        Ok(driver)
    }
}

#[cfg(test)]
mod tests {
    use dra_cdi::Kind;

    use super::*;

    fn driver(version: &str) -> LoadedDriver {
        let (version, libraries) = (version.to_owned(), Vec::new());
        let files = DriverFiles { version, libraries, programs: Vec::new(), others: Vec::new() };
        let spec = RenderedSpec { kind: Kind::Base(files.version.clone()), bytes: Vec::new() };
        LoadedDriver { files, spec }
    }

    #[test]
    fn a_reading_is_used_by_the_calls_that_came_before_it_and_a_failed_one_by_none() {
        let last = LastReading::default();
        let read = |arrival: Instant, found: Result<&str, ()>| {
            last.after(arrival, || found.map(driver)).map(|driver| driver.files.version.clone())
        };
        let [first, second] = [(); 2].map(|()| Instant::now());
        assert_eq!(read(first, Err(())), Err(()));
        assert_eq!(read(first, Ok("1")), Ok("1".to_owned()));
        assert_eq!(read(second, Err(())), Ok("1".to_owned()), "it came before the reading");
        let later = Instant::now();
        assert_eq!(read(later, Err(())), Err(()));
        assert_eq!(read(later, Ok("2")), Ok("2".to_owned()));
        let too_old = Instant::now().checked_sub(MAX_AGE).unwrap();
        *last.0.lock() = Some((too_old, Arc::new(driver("2"))));
        assert_eq!(read(too_old, Ok("3")), Ok("3".to_owned()), "the call waited for long");
    }
}
