// SPDX-License-Identifier: Apache-2.0
//! The log of a daemon on its standard output: the lines that are events.
//!
//! A line is `[2026-11-22 09:48:12.363 Control  6398] Starting new server 6562 for user 1000` (seen). The sentences are those
//! of the program; a sentence that a later driver words differently is no event and does no harm.

/// An event of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A server for the clients of a user starts.
    ServerStarts { pid: u32, user: u32 },
    /// A server exited.
    ServerExited {
        pid: u32,
        /// Exit code, or the negative number of a signal.
        status: i32,
    },
    /// A client waits for the clients of another user, or for a server that starts.
    ClientWaits { pid: u32, user: u32 },
    /// A client connects to a running server.
    ClientServed { pid: u32, user: u32 },
    /// A fault in a server ends all its clients.
    Fault,
    /// A limit is set, by this driver or by another process that can open the socket.
    LimitSet,
}

/// Characters of the longest text in a message.
const MAX_LINE: usize = 512;

/// The event of a line.
pub fn event(line: &str) -> Option<Event> {
    let (_, text) = line.strip_prefix('[')?.split_once("] ")?;
    let text = text.trim_end();
    let words: Vec<&str> = text.split_whitespace().collect();
    match *words.as_slice() {
        ["Starting", "new", "server", pid, "for", "user", user] => {
            Some(Event::ServerStarts { pid: pid.parse().ok()?, user: user.parse().ok()? })
        }
        ["Server", pid, "exited", "with", "status", status] => {
            Some(Event::ServerExited { pid: pid.parse().ok()?, status: status.parse().ok()? })
        }
        ["NEW", "CLIENT", pid, "from", "user", user, "Server", "is", "not", "ready,", ..] => {
            Some(Event::ClientWaits { pid: pid.parse().ok()?, user: number(user)? })
        }
        ["NEW", "CLIENT", pid, "from", "user", user, "Server", "already", "exists"] => {
            Some(Event::ClientServed { pid: pid.parse().ok()?, user: number(user)? })
        }
        ["Server", "encountered", "a", "fatal", "exception.", ..] => Some(Event::Fault),
        [command, ..] if command.starts_with("Cmd:set_default_") => Some(Event::LimitSet),
        _ => None,
    }
}

/// Output of a program as one plain line. Clients can put text into it, which must not pass for another message.
pub fn printable(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = |letter: char| if letter.is_ascii_graphic() || letter == ' ' { letter } else { '?' };
    words.chars().map(plain).take(MAX_LINE).collect()
}

/// A number with a colon after it.
fn number(word: &str) -> Option<u32> {
    word.strip_suffix(':')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_parsed() {
        for (text, expect) in [
            ("Starting new server 11175 for user 0", Some(Event::ServerStarts { pid: 11175, user: 0 })),
            ("Server 11175 exited with status 1", Some(Event::ServerExited { pid: 11175, status: 1 })),
            ("Server 11175 exited with status -9", Some(Event::ServerExited { pid: 11175, status: -9 })),
            (
                "NEW CLIENT 77 from user 1001: Server is not ready, push client to pending list",
                Some(Event::ClientWaits { pid: 77, user: 1001 }),
            ),
            ("NEW CLIENT 77 from user 1001: Server already exists", Some(Event::ClientServed { pid: 77, user: 1001 })),
            ("Server encountered a fatal exception. Shutting down", Some(Event::Fault)),
            ("Cmd:set_default_active_thread_percentage 99", Some(Event::LimitSet)),
            ("Cmd:get_default_active_thread_percentage", None),
            ("Starting new server x for user 0", None),
            ("Accepting connection...", None),
            ("", None),
        ] {
            let line = format!("[2026-11-22 09:52:46.873 Control 11130] {text}\n");
            assert_eq!(event(&line), expect, "{text}");
        }
    }

    #[test]
    fn printable_text_is_one_plain_line() {
        for (text, expect) in [
            ("a\n\tb \r\n", "a b"),
            ("red \u{1b}[31m \u{202e}x \u{0}", "red ?[31m ?x ?"),
            (&*"x".repeat(9999), &*"x".repeat(MAX_LINE)),
            ("", ""),
        ] {
            assert_eq!(printable(text), expect);
        }
    }

    #[test]
    fn other_text_is_no_event() {
        for line in
            ["Server 1 exited with status 1", "[", "[x]", "[x] ", "] Server 1 exited with status 1", "\u{0}\u{fffd}"]
        {
            assert_eq!(event(line), None, "{line:?}");
        }
    }
}
