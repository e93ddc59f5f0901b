// SPDX-License-Identifier: Apache-2.0
//! Measured values: samples become figures, figures become a table and `bench.json`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// What a value is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "MiB")]
    Mib,
    #[serde(rename = "x")]
    Ratio,
    #[serde(rename = "%")]
    Percent,
    #[serde(rename = "count")]
    Count,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Mib => "MiB",
            Self::Ratio => "x",
            Self::Percent => "%",
            Self::Count => "",
        }
    }
}

/// One line of the answer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: Unit,
    /// The most it may be; absent where nothing is promised.
    target: Option<f64>,
    holds: Option<bool>,
}

impl Figure {
    /// A value that is promised to be at most `target`.
    pub(crate) fn promised(name: &str, value: f64, unit: Unit, target: f64) -> Self {
        let value = rounded(value);
        Self { name: name.to_owned(), value, unit, target: Some(target), holds: Some(value <= target) }
    }

    /// A value that helps to understand the others.
    pub(crate) fn measured(name: &str, value: f64, unit: Unit) -> Self {
        Self { name: name.to_owned(), value: rounded(value), unit, target: None, holds: None }
    }
}

/// Three digits behind the point are more than any of these measurements is good for.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Durations of the same thing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn p50(&self) -> Duration {
        self.percentile(50)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    pub(crate) fn longest(&self) -> Duration {
        self.percentile(100)
    }

    /// The nearest rank: the smallest sample that so many of a hundred do not exceed.
    fn percentile(&self, of_hundred: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * of_hundred).div_ceil(100).max(1);
        sorted[rank - 1]
    }
}

pub(crate) fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

/// Of things that there are not many of.
pub(crate) fn count(things: usize) -> f64 {
    f64::from(u32::try_from(things).expect("nothing here is that many"))
}

/// Shows the figures to a person, the promises first, and says whether all of those are kept.
pub(crate) fn print(figures: &[Figure]) -> bool {
    let promised = figures.iter().filter(|figure| figure.target.is_some());
    let measured = figures.iter().filter(|figure| figure.target.is_none());
    let width = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
    println!();
    for figure in promised.clone().chain(measured) {
        println!("{}", row(figure, width).trim_end());
    }
    println!();
    let missed: Vec<&str> = promised.filter(|figure| figure.holds != Some(true)).map(|it| it.name.as_str()).collect();
    if missed.is_empty() {
        println!("every promise is kept");
    } else {
        println!("NOT KEPT: {}", missed.join("; "));
    }
    missed.is_empty()
}

fn row(figure: &Figure, width: usize) -> String {
    let Figure { name, value, unit, target, holds } = figure;
    let verdict = match holds {
        None => "",
        Some(true) => "kept",
        Some(false) => "NOT KEPT",
    };
    let target = target.map(|target| format!("<= {target} {}", unit.name())).unwrap_or_default();
    format!("{name:width$}  {value:10.3} {:3}  {target:10}  {verdict}", unit.name())
}

/// Leaves the figures for programs, and says where.
pub(crate) fn write(figures: &[Figure], target_dir: &Path) -> PathBuf {
    let path = target_dir.join("bench.json");
    let text = serde_json::to_string_pretty(figures).expect("figures are plain values");
    fs::write(&path, text + "\n").expect("cargo's target directory is writable");
    path
}
