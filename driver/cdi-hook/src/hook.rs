// SPDX-License-Identifier: Apache-2.0
//! The order of the work, and which failure fails the container.
//!
//! Everything that the image decides is done by a second thread, and the first one waits for it with a limit: a filesystem that
//! does not answer delays the start of a container by no more, unless the kernel itself cannot end the wait.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::arguments::{ArgumentError, Arguments};
use crate::container::{self, ContainerError};
use crate::libraries::{self, FoundLibraries};
use crate::resolve::ContainerRoot;
use crate::restrict::{self, RestrictError};
use crate::system_calls::Phase;
use crate::{cache_file, params, symlinks};

/// The work takes about a millisecond.
const WORK_TIMEOUT: Duration = Duration::from_millis(500);

/// Bytes of the stack of the second thread. Stated, because the standard library asks the environment otherwise.
const STACK_BYTES: usize = 1024 * 1024;

/// Nothing, or nothing more, was done.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error("the root filesystem of the container is unchanged, because the command line of the hook is invalid")]
    Arguments {
        #[source]
        source: ArgumentError,
    },
    #[error("the root filesystem of the container is unchanged, because the hook has too many privileges")]
    Restrict {
        #[source]
        source: RestrictError,
    },
    #[error("the root filesystem of the container is unchanged, because its root directory was not found")]
    Container {
        #[source]
        source: ContainerError,
    },
}

/// What the second thread did.
#[derive(Debug, Default)]
struct Outcome {
    messages: Vec<String>,
    /// The only reason to fail a container.
    has_no_library: bool,
}

/// Does the work. Writes a line to standard error for each part that was not done.
///
/// The exit code is 1 if none of the libraries of the command line is in the container, so that no program can use a GPU;
/// otherwise it is 0, because the libraries are mounted where the loaders of most images search without a cache.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let outcome = prepare(arguments).map_or_else(
        |error| Outcome { messages: vec![chain(&error)], has_no_library: false },
        |(root, arguments, messages)| {
            let mut outcome = within(WORK_TIMEOUT, move || change(&root, &arguments));
            outcome.messages.splice(0..0, messages);
            outcome
        },
    );
    for message in outcome.messages {
        // A runtime that has closed standard error does not read it.
        writeln!(std::io::stderr(), "gpu-cdi-hook: {message}").ok();
    }
    if outcome.has_no_library { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Everything before the image is touched: limits, the root directory, and the mount on a procfs that the runtime has mounted.
/// What mounts need is kept only if there is something to mount.
fn prepare(arguments: impl Iterator<Item = OsString>) -> Result<(ContainerRoot, Arguments, Vec<String>), HookError> {
    let arguments = Arguments::parse(arguments).map_err(|source| HookError::Arguments { source })?;
    let limit = |phase| restrict::limit(phase).map_err(|source| HookError::Restrict { source });
    let open = || container::root().map_err(|source| HookError::Container { source });
    let mut messages = Vec::new();
    let Some(path) = &arguments.params else {
        limit(Phase::Files)?;
        return Ok((open()?, arguments, messages));
    };
    limit(Phase::Mounts)?;
    let root = open()?;
    if let Err(error) = params::mask(&root, path) {
        messages.push(format!("programs of the container may create nodes of other GPUs: {}", chain(&error)));
    }
    limit(Phase::Files)?;
    Ok((root, arguments, messages))
}

/// Does the work in a thread, and waits for its outcome no longer than the timeout. The end of the process ends the thread.
fn within(timeout: Duration, work: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    let (sender, receiver) = mpsc::sync_channel(1);
    // Nothing receives an outcome after the timeout.
    let started = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || sender.send(work()).ok());
    let failed = |message: String| Outcome { messages: vec![message], has_no_library: false };
    if let Err(error) = started {
        return failed(format!(
            "the root filesystem of the container is unchanged, because no thread could start: {error}"
        ));
    }
    receiver.recv_timeout(timeout).unwrap_or_else(|error| {
        let limit = timeout.as_millis();
        failed(match error {
            RecvTimeoutError::Timeout => {
                format!("gave up, because the root filesystem of the container did not answer within {limit} ms")
            }
            RecvTimeoutError::Disconnected => "gave up after a fault of the hook; report it with the image".to_owned(),
        })
    })
}

/// Changes the root filesystem.
fn change(root: &ContainerRoot, arguments: &Arguments) -> Outcome {
    let Arguments { library_dirs, libraries, symlinks, params: _ } = arguments;
    let mut outcome = Outcome::default();
    let FoundLibraries { libraries: found, missing, is_uncertain } = libraries::find(root, library_dirs, libraries);
    if let Some(example) = missing.first() {
        outcome.has_no_library = found.is_empty() && !is_uncertain;
        outcome.messages.push(format!(
            "the container lacks {} of {} libraries that its CDI spec mounts, such as {}; check the NVIDIA driver of the node",
            missing.len(),
            libraries.len(),
            example.display()
        ));
    }
    if outcome.has_no_library {
        return outcome;
    }
    let failed = symlinks.iter().filter_map(|symlink| symlinks::ensure(root, symlink).err());
    outcome.messages.extend(failed.map(|error| chain(&error)));
    if !found.is_empty()
        && let Err(error) = cache_file::update(root, &found)
    {
        outcome.messages.push(format!("the libraries of the driver are not in the loader's cache: {}", chain(&error)));
    }
    outcome
}

/// An error with all its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        write!(text, ": {cause}").ok();
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_without_an_answer_or_with_a_fault_does_not_fail_the_container() {
        let (_sender, never) = mpsc::channel::<Outcome>();
        let waiting = within(Duration::from_millis(1), move || never.recv().unwrap_or_default());
        let expected = ["gave up, because the root filesystem of the container did not answer within 1 ms"];
        assert!(waiting.messages == expected && !waiting.has_no_library);
        let faulty = within(Duration::from_secs(10), || panic!("a fault"));
        assert!(faulty.messages == ["gave up after a fault of the hook; report it with the image"]);
        assert!(!faulty.has_no_library);
    }
}
