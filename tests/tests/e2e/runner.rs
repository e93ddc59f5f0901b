// SPDX-License-Identifier: Apache-2.0
//! Runs lists of cases side by side, each in order on a cluster of its own, and prints what cargo's own runner prints.

use crate::{arena::Arena, case::Case};
use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, set_hook},
    process::ExitCode,
    sync::{Mutex, PoisonError, RwLock},
    thread,
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
pub(crate) fn run(lists: &[Vec<Case>]) -> ExitCode {
    let choice = Choice::of_arguments();
    let chosen = |list: &Vec<Case>| list.iter().filter(|case| choice.takes(case)).copied().collect();
    let lists_chosen: Vec<Vec<Case>> = lists.iter().map(chosen).collect();
    let all = lists_chosen.concat();
    if choice.list {
        for case in &all {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", all.len());
    let begun = Instant::now();
    // Where a case stopped says enough; the stack of this runner says nothing.
    set_hook(Box::new(|panic| eprintln!("\n{panic}")));
    let failed = side_by_side(&lists_chosen);
    let left_out = lists.iter().map(Vec::len).sum::<usize>() - all.len();
    conclude(&failed, all.len() - failed.len(), left_out, begun);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The names of the cases that failed. All of a list fail if their cluster does not start.
fn side_by_side(lists: &[Vec<Case>]) -> Vec<&'static str> {
    let machine = Machine::default();
    thread::scope(|scope| {
        let with_cases = lists.iter().filter(|list| !list.is_empty());
        let running: Vec<_> = with_cases.map(|list| (list, scope.spawn(|| in_order(list, &machine)))).collect();
        let failed = running
            .into_iter()
            .flat_map(|(list, run)| run.join().unwrap_or_else(|_panic| list.iter().map(|case| case.name).collect()));
        failed.collect()
    })
}

/// What the clusters share.
#[derive(Default)]
struct Machine {
    /// Clusters start one after the other: each start needs all cores.
    start: Mutex<()>,
    /// Written by a case that measures time, read by the others.
    rest: RwLock<()>,
}

fn in_order(cases: &[Case], machine: &Machine) -> Vec<&'static str> {
    let arena = {
        let _start = machine.start.lock().unwrap_or_else(PoisonError::into_inner);
        let _no_rest = machine.rest.read().unwrap_or_else(PoisonError::into_inner);
        Arena::set_up()
    };
    let failed = cases.iter().filter(|case| !passes(case, &arena, machine)).map(|case| case.name).collect();
    arena.tear_down();
    failed
}

fn passes(case: &Case, arena: &Arena, machine: &Machine) -> bool {
    let run = || {
        let begun = Instant::now();
        (catch_unwind(AssertUnwindSafe(|| (case.run)(arena))).is_ok(), begun.elapsed())
    };
    let (passed, took) = if case.measures {
        let _rest = machine.rest.write().unwrap_or_else(PoisonError::into_inner);
        run()
    } else {
        let _no_rest = machine.rest.read().unwrap_or_else(PoisonError::into_inner);
        run()
    };
    println!("test {} ... {} ({:.1} s)", case.name, if passed { "ok" } else { "FAILED" }, took.as_secs_f32());
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
