// SPDX-License-Identifier: Apache-2.0
//! What a daemon says on its standard output: the lines somebody should act on.
//!
//! A line is `[2026-11-22 09:48:12.363 Control  6398] Starting new server 6562 for user 1000` (seen). The sentences are in
//! the program itself; one that a later driver words differently is not understood and does no harm.

/// Something that happened to a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A server for the clients of a user is being started.
    ServerStarts {
        /// Process.
        pid: u32,
        /// Whose.
        user: u32,
    },
    /// A server ended.
    ServerEnded {
        /// Process.
        pid: u32,
        /// Exit code.
        status: i32,
    },
    /// A client waits, because its user's turn has not come or the server is not ready yet.
    ClientWaits {
        /// Process.
        pid: u32,
        /// Whose.
        user: u32,
    },
    /// A client met a server that is there.
    ClientServed {
        /// Process.
        pid: u32,
        /// Whose.
        user: u32,
    },
    /// A server met a fault that ends all its clients.
    Fault,
    /// Somebody sets a limit: this driver, or anyone else who reaches the socket.
    LimitSet,
}

/// Nobody reads more of what a program said.
const LONGEST_LINE: usize = 512;

/// The event of a line, if it is one.
pub fn event(line: &str) -> Option<Event> {
    let (_, said) = line.strip_prefix('[')?.split_once("] ")?;
    let said = said.trim_end();
    let words: Vec<&str> = said.split_whitespace().collect();
    match *words.as_slice() {
        ["Starting", "new", "server", pid, "for", "user", user] => {
            Some(Event::ServerStarts { pid: pid.parse().ok()?, user: user.parse().ok()? })
        }
        ["Server", pid, "exited", "with", "status", status] => {
            Some(Event::ServerEnded { pid: pid.parse().ok()?, status: status.parse().ok()? })
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

/// What a program said as one line for people: clients have a say in it, and what they write must not look like anything
/// else.
pub fn printable(said: &str) -> String {
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = |letter: char| if letter.is_ascii_graphic() || letter == ' ' { letter } else { '?' };
    words.chars().map(plain).take(LONGEST_LINE).collect()
}

/// A number with a colon behind it.
fn number(word: &str) -> Option<u32> {
    word.strip_suffix(':')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_matter_are_understood() {
        for (said, expect) in [
            ("Starting new server 11175 for user 0", Some(Event::ServerStarts { pid: 11175, user: 0 })),
            ("Server 11175 exited with status 1", Some(Event::ServerEnded { pid: 11175, status: 1 })),
            ("Server 11175 exited with status -9", Some(Event::ServerEnded { pid: 11175, status: -9 })),
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
            let line = format!("[2026-11-22 09:52:46.873 Control 11130] {said}\n");
            assert_eq!(event(&line), expect, "{said}");
        }
    }

    #[test]
    fn what_is_shown_is_one_plain_line() {
        for (said, expect) in [
            ("a\n\tb \r\n", "a b"),
            ("red \u{1b}[31m \u{202e}x \u{0}", "red ?[31m ?x ?"),
            (&*"x".repeat(9999), &*"x".repeat(LONGEST_LINE)),
            ("", ""),
        ] {
            assert_eq!(printable(said), expect);
        }
    }

    #[test]
    fn text_of_others_is_no_event() {
        for line in
            ["Server 1 exited with status 1", "[", "[x]", "[x] ", "] Server 1 exited with status 1", "\u{0}\u{fffd}"]
        {
            assert_eq!(event(line), None, "{line:?}");
        }
    }
}
