// SPDX-License-Identifier: Apache-2.0
//! What can follow the words of a command line that is typed.
//!
//! kubectl completes a plugin by a program `kubectl_complete-NAME`, which is called with the words after `kubectl NAME`, the last of them
//! unfinished, and answers as `__complete` of Cobra does: a line for each suggestion with a tabulator before its description, then a
//! line with the number of a directive (Kubernetes documentation, "Extend kubectl with plugins"). A link with that name to this program
//! does it.

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command, ValueHint};

/// The name that makes this program answer to kubectl.
pub const PROGRAM: &str = "kubectl_complete-gpu";

/// Directives of Cobra.
const FILES: &str = ":0";
const NO_FILES: &str = ":4";

/// The answer to kubectl.
pub fn complete(command: &Command, words: &[String]) -> String {
    let (unfinished, before) = words.split_last().map_or(("", &[][..]), |(last, rest)| (last.as_str(), rest));
    let subcommand = before.iter().find_map(|word| command.find_subcommand(word));
    let scope = subcommand.unwrap_or(command);
    let flags = || command.get_arguments().chain(scope.get_arguments()).filter(|arg| !arg.is_positional());
    let open = before.last().and_then(|word| flags().find(|flag| takes_value(flag) && names(flag).contains(word)));
    let found: Vec<(String, String)> = match open {
        Some(flag) if is_file(flag) => return format!("{FILES}\n"),
        Some(flag) => values(flag),
        None if unfinished.starts_with('-') => {
            flags().flat_map(|flag| names(flag).into_iter().map(move |name| (name, help(flag)))).collect()
        }
        None if subcommand.is_none() => {
            let subcommands = command.get_subcommands();
            subcommands.map(|found| (found.get_name().to_owned(), line(found.get_about()))).collect()
        }
        None => scope.get_positionals().flat_map(values).collect(),
    };
    let matching = found.iter().filter(|(name, _)| name.starts_with(unfinished));
    let lines = matching.map(|(name, about)| format!("{name}\t{about}\n"));
    lines.collect::<String>() + NO_FILES + "\n"
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn is_file(arg: &Arg) -> bool {
    arg.get_value_hint() == ValueHint::FilePath
}

/// `--long` and `-s`.
fn names(arg: &Arg) -> Vec<String> {
    let long = arg.get_long().map(|long| format!("--{long}"));
    long.into_iter().chain(arg.get_short().map(|short| format!("-{short}"))).collect()
}

fn values(arg: &Arg) -> Vec<(String, String)> {
    let about = |value: &PossibleValue| line(value.get_help());
    arg.get_possible_values().iter().map(|value| (value.get_name().to_owned(), about(value))).collect()
}

fn help(arg: &Arg) -> String {
    line(arg.get_help())
}

/// The first line of a text.
fn line(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Args;

    /// The suggestions without their descriptions, and the directive.
    fn suggested(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let answer = complete(&Args::command(), &words);
        answer.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_word_that_is_typed_is_completed() {
        for (words, expect) in [
            (&["st"][..], &["status", ":4"][..]),
            (&["why", "--kube"], &["--kubeconfig", ":4"]),
            (&["status", "--all"], &["--all-namespaces", ":4"]),
            (&["status", "-o", ""], &["table", "wide", "json", "yaml", ":4"]),
            (&["-n", "status", "-o", "y"], &["yaml", ":4"]),
            (&["completion", "z"], &["zsh", ":4"]),
            (&["fit", "-f", ""], &[":0"]),
            (&["status", "node"], &[":4"]),
        ] {
            assert_eq!(suggested(words), expect, "{words:?}");
        }
        assert!(suggested(&[""]).starts_with(&["status".to_owned(), "why".to_owned(), "fit".to_owned()]));
    }
}
