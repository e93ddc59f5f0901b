// SPDX-License-Identifier: Apache-2.0
//! Runs cases in order on one cluster and prints what cargo's own runner prints.

use crate::{arena::Arena, case::Case};
use std::{
    env,
    io::{Write, stdout},
    panic::{AssertUnwindSafe, catch_unwind, set_hook},
    process::ExitCode,
    time::Instant,
};

/// The supported arguments of cargo's test runner; others are ignored.
struct Choice {
    words: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    list: bool,
}

impl Choice {
    fn of_arguments() -> Self {
        let mut choice = Self { words: Vec::new(), skipped: Vec::new(), exact: false, list: false };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => choice.exact = true,
                "--list" => choice.list = true,
                "--skip" => choice.skipped.extend(arguments.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" => drop(arguments.next()),
                flag if flag.starts_with('-') => {}
                word => choice.words.push(word.to_owned()),
            }
        }
        choice
    }

    fn takes(&self, case: &Case) -> bool {
        let fits = |word: &String| if self.exact { case.name == word } else { case.name.contains(word.as_str()) };
        (self.words.is_empty() || self.words.iter().any(fits)) && !self.skipped.iter().any(fits)
    }
}

/// Runs what was chosen; the answer is the process's.
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    let choice = Choice::of_arguments();
    let chosen: Vec<_> = cases.iter().filter(|case| choice.takes(case)).collect();
    if choice.list {
        for case in &chosen {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    if chosen.is_empty() {
        conclude(&[], 0, cases.len(), Instant::now());
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    // Where a case stopped says enough; the stack of this runner says nothing.
    set_hook(Box::new(|panic| eprintln!("\n{panic}")));
    let arena = Arena::set_up();
    let failed: Vec<_> = chosen.iter().filter(|case| !passes(case, &arena)).map(|case| case.name).collect();
    arena.tear_down();
    conclude(&failed, chosen.len() - failed.len(), cases.len() - chosen.len(), begun);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(case: &Case, arena: &Arena) -> bool {
    print!("test {} ... ", case.name);
    stdout().flush().unwrap();
    let begun = Instant::now();
    let passed = catch_unwind(AssertUnwindSafe(|| (case.run)(arena))).is_ok();
    println!("{} ({:.1} s)", if passed { "ok" } else { "FAILED" }, begun.elapsed().as_secs_f32());
    if !passed {
        arena.keep_logs(case.name);
        arena.clean_up();
    }
    passed
}

fn conclude(failed: &[&str], passed: usize, filtered: usize, begun: Instant) {
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len(),
        begun.elapsed().as_secs_f32()
    );
}
