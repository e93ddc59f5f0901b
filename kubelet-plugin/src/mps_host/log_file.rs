// SPDX-License-Identifier: Apache-2.0
//! What a daemon says: a file and not a pipe, since it outlives this process and would die of a pipe that nobody reads.
//!
//! The file is cut when it has grown, which a daemon that appends does not notice.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dra_mps::{Event, event};

/// A file that has grown beyond this is cut.
const LONGEST: u64 = 1 << 20;

/// This much of its end is kept.
const KEPT: u64 = 64 << 10;

/// This much of its end is shown to people.
const SHOWN: u64 = 512;

/// A log that is being followed.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    read: u64,
}

/// The file for a daemon that is about to start, empty.
pub fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_len(0)?;
    Ok(file)
}

/// The end of it, in one line.
pub fn end_of(path: &Path) -> String {
    let text = read_from(path, |length| length.saturating_sub(SHOWN)).unwrap_or_default();
    String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ")
}

impl LogFile {
    /// Follows a file from its end on.
    pub fn follow(path: PathBuf) -> Self {
        let mut log = Self { path, read: 0 };
        log.skip();
        log
    }

    /// Takes everything that was said up to now for known.
    pub fn skip(&mut self) {
        self.read = std::fs::metadata(&self.path).map_or(0, |found| found.len());
    }

    /// What was said since the last look and matters. A line that is not complete yet counts when it is.
    pub fn news(&mut self) -> io::Result<Vec<Event>> {
        let bytes = read_from(&self.path, |length| if length < self.read { 0 } else { self.read })?;
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = bytes.get(..complete).map(String::from_utf8_lossy).unwrap_or_default();
        self.read += u64::try_from(complete).unwrap_or_default();
        let events = lines.lines().filter_map(event).collect();
        self.cut()?;
        Ok(events)
    }

    fn cut(&mut self) -> io::Result<()> {
        if self.read < LONGEST {
            return Ok(());
        }
        let end = read_from(&self.path, |length| length.saturating_sub(KEPT))?;
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        file.set_len(0)?;
        file.write_all(&end)?;
        self.skip();
        Ok(())
    }
}

/// The file from a place on, which its length tells; never more than a whole file may have.
fn read_from(path: &Path, place: impl FnOnce(u64) -> u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(place(length).max(length.saturating_sub(2 * LONGEST))))?;
    let mut bytes = Vec::new();
    file.take(2 * LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTS: &str = "[2026-11-22 09:52:46.873 Control 1] Starting new server 5 for user 0\n";
    const ENDS: &str = "[2026-11-22 09:52:46.888 Control 1] Server 5 exited with status 1\n";

    #[test]
    fn what_matters_is_told_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = create(&path).unwrap();
        file.write_all(ENDS.as_bytes()).unwrap();
        let mut log = LogFile::follow(path.clone());
        assert_eq!(log.news().unwrap(), []);
        let (begin, rest) = ENDS.split_at(20);
        file.write_all(format!("{STARTS}nothing\n{begin}").as_bytes()).unwrap();
        assert_eq!(log.news().unwrap(), [Event::ServerStarts { pid: 5, user: 0 }]);
        file.write_all(rest.as_bytes()).unwrap();
        assert_eq!(log.news().unwrap(), [Event::ServerEnded { pid: 5, status: 1 }]);
        assert!(end_of(&path).ends_with("Server 5 exited with status 1"));
    }

    #[test]
    fn it_stays_short_while_the_daemon_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = create(&path).unwrap();
        let mut log = LogFile::follow(path.clone());
        for _ in 0..40 {
            file.write_all("x".repeat(100_000).as_bytes()).unwrap();
            file.write_all(format!("\n{STARTS}").as_bytes()).unwrap();
            assert_eq!(log.news().unwrap().len(), 1);
            assert!(path.metadata().unwrap().len() <= LONGEST + 100_100);
        }
    }
}
