// SPDX-License-Identifier: Apache-2.0
//! The default limits of a daemon, set and told as NVIDIA's program does it, its oddities included.
//!
//! Pure. Each command has an answer for who asks and lines for the log.

use std::collections::BTreeMap;

/// What is in force.
#[derive(Debug)]
pub(crate) struct Limits {
    threads: f64,
    /// MiB by the place of a device.
    memory: BTreeMap<u64, u64>,
}

impl Limits {
    pub(crate) const fn new() -> Self {
        Self { threads: 100.0, memory: BTreeMap::new() }
    }

    /// Answer and log of a command about limits; nothing for another one. What is set `ignored` is answered and not taken.
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
                let limit = self.memory.get(&place(device));
                Some(limit.map_or_else(|| (String::new(), vec![NO_LIMIT.to_owned()]), |mib| said(shown(*mib))))
            }
            ["set_default_device_pinned_mem_limit", ref rest @ ..] => {
                if !ignored {
                    let value = rest.get(1).filter(|_| is_place(rest)).and_then(|value| mib(value));
                    match value.filter(|mib| *mib > 0) {
                        Some(mib) => self.memory.insert(place(rest), mib),
                        None => self.memory.remove(&place(rest)),
                    };
                }
                Some((String::new(), Vec::new()))
            }
            _ => None,
        }
    }

    fn threads(&self, mut log: Vec<String>) -> (String, Vec<String>) {
        let (answer, shown) = said(format!("{:.1}", self.threads));
        log.extend(shown);
        (answer, log)
    }
}

const BAD_PERCENTAGE: &str = "Invalid percentage, expected between (0.0, 100.0]";
const NO_LIMIT: &str = "No default pinned memory limit set for the device!";

fn said(text: String) -> (String, Vec<String>) {
    (format!("{text}\n"), vec![text])
}

/// A limit of anything else, as of a UUID, takes away the one of place 0, or of the number in front.
fn is_place(words: &[&str]) -> bool {
    words.first().is_some_and(|device| device.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The place of a device; whatever is no number is 0.
fn place(words: &[&str]) -> u64 {
    words.first().map_or(0, |device| number(device).0)
}

/// A number and `G`, or any other unit, which is `M`; 0 is no limit.
fn mib(text: &str) -> Option<u64> {
    let (number, unit) = number(text);
    if unit.starts_with('G') { number.checked_mul(1024) } else { Some(number) }
}

/// The number in front, 0 without one, and what follows it.
fn number(text: &str) -> (u64, &str) {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    (number.parse().unwrap_or(0), rest)
}

/// From 1 GiB on whole GiB, the rest cut off.
fn shown(mib: u64) -> String {
    if mib >= 1024 { format!("{}G", mib / 1024) } else { format!("{mib}M") }
}
