// SPDX-License-Identifier: Apache-2.0
//! The standard output of a daemon. It is a file and no pipe, because the daemon outlives this process and would end by
//! SIGPIPE without a reader.
//!
//! A file that has grown is truncated. The daemon appends, so it continues at the new end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dra_mps::{Event, event, printable};

/// Size at which a file is truncated.
const MAX_BYTES: u64 = 1 << 20;

/// Bytes at the end of the file that stay when it is truncated.
const RETAINED_BYTES: u64 = 64 << 10;

/// Bytes at the end of the file that are shown in messages.
const EXCERPT_BYTES: u64 = 512;

/// A log file and the position up to which it was read.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    position: u64,
}

/// Creates the log file of a start, empty.
pub fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_len(0)?;
    Ok(file)
}

/// The end of the file in one line.
pub fn excerpt(path: &Path) -> String {
    let (_, text) = read_from(path, |length| length.saturating_sub(EXCERPT_BYTES)).unwrap_or_default();
    printable(&String::from_utf8_lossy(&text))
}

/// Whether each of these servers started after the last limit was set, and so has it.
pub fn have_limits(path: &Path, servers: &[u32]) -> bool {
    let events = LogFile::whole(path.to_owned()).new_events().unwrap_or_default();
    let Some(last) = events.iter().rposition(|event| *event == Event::LimitSet) else { return false };
    let later = || events.iter().skip(last);
    let is_later =
        |server: &u32| later().any(|event| matches!(event, Event::ServerStarts { pid, .. } if pid == server));
    servers.iter().all(is_later)
}

impl LogFile {
    /// Reads the file from its beginning.
    pub fn whole(path: PathBuf) -> Self {
        Self { path, position: 0 }
    }

    /// Reads what is appended from now on.
    pub fn from_now(path: PathBuf) -> Self {
        let position = std::fs::metadata(&path).map_or(0, |found| found.len());
        Self { path, position }
    }

    /// The events since the last call. An incomplete line is read again when it is complete.
    pub fn new_events(&mut self) -> io::Result<Vec<Event>> {
        let (from, bytes) = read_from(&self.path, |length| if length < self.position { 0 } else { self.position })?;
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = bytes.get(..complete).map(String::from_utf8_lossy).unwrap_or_default();
        self.position = from + u64::try_from(complete).unwrap_or_default();
        let events = lines.lines().filter_map(event).collect();
        self.truncate()?;
        Ok(events)
    }

    /// Decides by the length of the file and not by the position, because a line may have no end.
    fn truncate(&mut self) -> io::Result<()> {
        let length = std::fs::metadata(&self.path)?.len();
        if length < MAX_BYTES {
            return Ok(());
        }
        let (from, end) = read_from(&self.path, |length| length.saturating_sub(RETAINED_BYTES))?;
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        file.set_len(0)?;
        file.write_all(&end)?;
        self.position = self.position.saturating_sub(from);
        Ok(())
    }
}

/// Reads from a position that depends on the length of the file, and returns that position. Reads at most the size that
/// a file can reach.
fn read_from(path: &Path, start: impl FnOnce(u64) -> u64) -> io::Result<(u64, Vec<u8>)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = file.seek(SeekFrom::Start(start(length).max(length.saturating_sub(2 * MAX_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(2 * MAX_BYTES).read_to_end(&mut bytes)?;
    Ok((from, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTS: &str = "[2026-11-22 09:52:46.873 Control 1] Starting new server 5 for user 0\n";
    const ENDS: &str = "[2026-11-22 09:52:46.888 Control 1] Server 5 exited with status 1\n";

    #[test]
    fn events_are_returned_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = create(&path).unwrap();
        file.write_all(ENDS.as_bytes()).unwrap();
        let mut log = LogFile::from_now(path.clone());
        assert_eq!(log.new_events().unwrap(), []);
        let (begin, rest) = ENDS.split_at(20);
        file.write_all(format!("{STARTS}nothing\n{begin}").as_bytes()).unwrap();
        assert_eq!(log.new_events().unwrap(), [Event::ServerStarts { pid: 5, user: 0 }]);
        file.write_all(rest.as_bytes()).unwrap();
        assert_eq!(log.new_events().unwrap(), [Event::ServerExited { pid: 5, status: 1 }]);
        assert!(excerpt(&path).ends_with("Server 5 exited with status 1"));
    }

    #[test]
    fn it_stays_short_while_the_daemon_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = create(&path).unwrap();
        let mut log = LogFile::from_now(path.clone());
        for _ in 0..40 {
            file.write_all("x".repeat(100_000).as_bytes()).unwrap();
            file.write_all(format!("\n{STARTS}").as_bytes()).unwrap();
            assert_eq!(log.new_events().unwrap().len(), 1);
            assert!(path.metadata().unwrap().len() <= MAX_BYTES + 100_100);
        }
    }

    #[test]
    fn a_line_without_an_end_does_not_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = create(&path).unwrap();
        let mut log = LogFile::from_now(path.clone());
        for _ in 0..40 {
            file.write_all("x".repeat(100_000).as_bytes()).unwrap();
            assert_eq!(log.new_events().unwrap(), []);
            assert!(path.metadata().unwrap().len() <= MAX_BYTES + 100_000);
        }
        file.write_all(format!("\n{STARTS}").as_bytes()).unwrap();
        assert_eq!(log.new_events().unwrap(), [Event::ServerStarts { pid: 5, user: 0 }]);
        assert_eq!(log.new_events().unwrap(), []);
    }

    #[test]
    fn a_server_has_the_limits_that_were_set_before_it_was_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let limit = "[2026-11-22 09:52:46.873 Control 1] Cmd:set_default_active_thread_percentage 9\n";
        for (lines, servers, expect) in [
            ([STARTS, limit], &[5][..], false),
            ([limit, STARTS], &[5], true),
            ([limit, STARTS], &[5, 6], false),
            ([limit, ENDS], &[5], false),
            (["", STARTS], &[5], false),
            (["", limit], &[], true),
        ] {
            std::fs::write(&path, lines.concat()).unwrap();
            assert_eq!(have_limits(&path, servers), expect, "{lines:?}");
        }
    }
}
