// SPDX-License-Identifier: Apache-2.0
//! The default limits of a daemon, set and read as in NVIDIA's program, with its oddities.
//!
//! Pure. Each command has an answer and lines for the log.

use std::collections::BTreeMap;

/// The limits in force.
#[derive(Debug)]
pub(crate) struct Limits {
    threads: f64,
    /// MiB by the index of the device.
    memory: BTreeMap<u64, u64>,
}

impl Limits {
    pub(crate) const fn new() -> Self {
        Self { threads: 100.0, memory: BTreeMap::new() }
    }

    /// Answer and log lines of a command about limits. `None` for another command. With `ignored` a setting is answered and
    /// not applied.
    pub(crate) fn answer(&mut self, words: &[&str], ignored: bool) -> Option<(String, Vec<String>)> {
        match *words {
            ["get_default_active_thread_percentage", ..] => Some(self.threads(Vec::new())),
            ["set_default_active_thread_percentage", ref wanted @ ..] => {
                let wanted = wanted.first().and_then(|text| text.parse::<f64>().ok());
                match wanted.filter(|percent| *percent > 0.0 && *percent <= 100.0) {
                    Some(percent) if !ignored => self.threads = percent,
                    Some(_) => {}
                    None => return Some(self.threads(vec![BAD_PERCENTAGE.to_owned()])),
                }
                Some(self.threads(Vec::new()))
            }
            ["get_default_device_pinned_mem_limit", ref device @ ..] => {
                let limit = self.memory.get(&index(device));
                Some(limit.map_or_else(
                    || (String::new(), vec![NO_LIMIT.to_owned()]),
                    |mib| answer_and_log(format_limit(*mib)),
                ))
            }
            ["set_default_device_pinned_mem_limit", ref rest @ ..] => {
                if !ignored {
                    let value = rest.get(1).filter(|_| is_index(rest)).and_then(|value| mib(value));
                    match value.filter(|mib| *mib > 0) {
                        Some(mib) => self.memory.insert(index(rest), mib),
                        None => self.memory.remove(&index(rest)),
                    };
                }
                Some((String::new(), Vec::new()))
            }
            _ => None,
        }
    }

    fn threads(&self, mut log: Vec<String>) -> (String, Vec<String>) {
        let (answer, lines) = answer_and_log(format!("{:.1}", self.threads));
        log.extend(lines);
        (answer, log)
    }
}

const BAD_PERCENTAGE: &str = "Invalid percentage, expected between (0.0, 100.0]";
const NO_LIMIT: &str = "No default pinned memory limit set for the device!";

fn answer_and_log(text: String) -> (String, Vec<String>) {
    (format!("{text}\n"), vec![text])
}

/// A limit of anything else, such as a UUID, removes that of index 0, or of the number at its start.
fn is_index(words: &[&str]) -> bool {
    words.first().is_some_and(|device| device.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The index of a device. Text without a number is 0.
fn index(words: &[&str]) -> u64 {
    words.first().map_or(0, |device| number(device).0)
}

/// A number with the unit `G`, or any other unit, which counts as `M`. 0 is no limit.
fn mib(text: &str) -> Option<u64> {
    let (number, unit) = number(text);
    if unit.starts_with('G') { number.checked_mul(1024) } else { Some(number) }
}

/// The number at the start, 0 without one, and the rest.
fn number(text: &str) -> (u64, &str) {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    (number.parse().unwrap_or(0), rest)
}

/// From 1 GiB on whole GiB, rounded down.
fn format_limit(mib: u64) -> String {
    if mib >= 1024 { format!("{}G", mib / 1024) } else { format!("{mib}M") }
}
