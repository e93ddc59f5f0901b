// SPDX-License-Identifier: Apache-2.0
//! The programs that a piece of shell starts, with the arguments that bash gives them. No program runs.
//!
//! bash finds no program in its `PATH`, so that it calls the handler for unknown commands, which writes down the words. Loops, pipes,
//! variables and redirections work as at a user's prompt; files are written to a directory that has the repository's in it. What is
//! asked prints a word, so that variables are not empty; `make env` prints what a shell runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dra_tests::source::root_dir;

use crate::markdown::Block;

/// A program that would have been started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) words: Vec<String>,
    /// What it would have read, if one of its words is `-`.
    pub(crate) input: String,
}

/// Each invocation is a file, in the order of time: the input, then the words. Several are written at once in a pipe.
const RECORDER: &str = r#"
record() {
    local input='' word
    for word; do [ "$word" != - ] || IFS= read -r -d '' input; done
    printf '%s\0' "$input" "$@" >"$RECORD/$EPOCHREALTIME-$BASHPID"
    case "$*" in
    make*) ;;
    *configmap*mig-parted*) echo '{"version": "v1", "mig-configs": {"all-1g.10gb": [{"devices": "all", "mig-enabled": true}]}}' ;;
    *) echo some ;;
    esac
}
command_not_found_handle() { record "$@"; }
target/image/gpu-import() { record target/image/gpu-import "$@"; }
cat() { local text; IFS= read -r -d '' text; printf '%s' "$text"; }
PATH=/nonexistent
"#;

/// A directory in which the shell of one document runs.
pub(crate) struct Workspace {
    dir: tempfile::TempDir,
}

impl Workspace {
    /// With the files of the repository, and those that documents have as a block that begins with `# NAME`.
    pub(crate) fn new<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(root_dir()).unwrap().flatten() {
            if entry.file_name() != "target" {
                symlink(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
        }
        for block in blocks.into_iter().filter(|block| block.language == "yaml") {
            let name = block.text.lines().next().and_then(|line| line.strip_prefix("# "));
            if let Some(name) = name.filter(|name| name.strip_suffix(".yaml").is_some() && !name.contains(['/', ' '])) {
                fs::write(dir.path().join(name), &block.text).unwrap();
            }
        }
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What a piece of shell would start after another one, whose variables it has; an error if it is no shell.
    pub(crate) fn invocations(&self, before: &str, shell: &str) -> Result<Vec<Invocation>, String> {
        let (record, ignored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bash = |arguments: &[&str]| {
            let mut command = Command::new("/bin/bash");
            command
                .args(["--noprofile", "--norc"])
                .args(arguments)
                .env("RECORD", ignored.path())
                .env("FOUND", record.path())
                .env("BASH_ENV", "");
            command.current_dir(self.path()).stdin(Stdio::null()).output().unwrap()
        };
        let checked = bash(&["-n", "-c", shell]);
        if !checked.status.success() {
            return Err(String::from_utf8_lossy(&checked.stderr).into_owned());
        }
        bash(&["-c", &format!("{RECORDER}\n{before}\nRECORD=$FOUND\n{shell}")]);
        let mut paths: Vec<PathBuf> = fs::read_dir(record.path()).unwrap().flatten().map(|file| file.path()).collect();
        paths.sort();
        Ok(paths.iter().map(|path| invocation(&fs::read_to_string(path).unwrap())).collect())
    }
}

fn invocation(record: &str) -> Invocation {
    let mut parts = record.split_terminator('\0').map(str::to_owned);
    Invocation { input: parts.next().unwrap_or_default(), words: parts.collect() }
}

#[test]
fn the_shell_is_read_as_bash_reads_it() {
    let workspace = Workspace::new(&[]);
    let shell = "A='b c'\nx \"$A\" $(y 1) # no\nfor i in 1 2; do z $i | w; done\ncat >f <<'E'\n$A\nE\nx - <f";
    let found = workspace.invocations("A=1\nv w", shell).unwrap();
    let mut words: Vec<String> = found.iter().map(|one| one.words.join("|")).collect();
    words.sort();
    assert_eq!(words, ["w", "w", "x|-", "x|b c|some", "y|1", "z|1", "z|2"]);
    assert_eq!(found.last().unwrap().input, "$A\n");
    assert!(workspace.invocations("", "x 'y").is_err());
}
