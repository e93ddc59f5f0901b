// SPDX-License-Identifier: Apache-2.0
//! The answer of `verify` as text. Pure.

use std::fmt::Write as _;

use super::{Mark, Verification, VerifiedClaim, VerifiedDevice};
use crate::table::{Cell, Colours, Style, lines, painted, wrapped};

/// Lines are as wide as a UUID and a name need.
const WIDTH: usize = 96;

/// One line for each device, and one sentence for each difference.
pub fn table(answer: &Verification, colours: Colours) -> String {
    let devices: usize = answer.claims.iter().map(|claim| claim.devices.len()).sum();
    let devices = if devices == 1 { "1 device".to_owned() } else { format!("{devices} devices") };
    let (verdict, style) = if answer.agrees {
        ("claim, status, record, CDI spec and NVML agree", Style::Good)
    } else {
        ("claim, status, record, CDI spec and NVML do not agree", Style::Bad)
    };
    let mut text = format!("{}: {} about {devices}\n", answer.subject, painted(verdict, style, colours));
    for claim in &answer.claims {
        writeln!(text, "\nclaim {} on node {}", claim.claim, claim.node).ok();
        text += &rows(claim, colours);
    }
    let differences = answer.claims.iter().flat_map(|claim| &claim.differences);
    for (number, difference) in (1..).zip(differences) {
        let sentence = wrapped(&format!("{}; {}", difference.what, difference.next_step), WIDTH - 5);
        let heading = if number == 1 { "\nWhat differs, and the next step:\n" } else { "" };
        writeln!(text, "{heading}  {number}. {}", sentence.replace('\n', "\n     ")).ok();
    }
    text
}

fn rows(claim: &VerifiedClaim, colours: Colours) -> String {
    let headings = ["DEVICE", "REQUEST", "UUID", "STATUS", "RECORD", "CDI SPEC", "NVML"];
    let headings = headings.map(|name| Cell::new(name, Style::Heading)).to_vec();
    let rows: Vec<Vec<Cell>> = [headings].into_iter().chain(claim.devices.iter().map(row)).collect();
    lines(&rows, 2, colours)
}

fn row(device: &VerifiedDevice) -> Vec<Cell> {
    let mark = |mark: Mark| {
        Cell::new(
            mark.name(),
            match mark {
                Mark::Agrees => Style::Good,
                Mark::Differs | Mark::Missing => Style::Bad,
            },
        )
    };
    vec![
        device.device.clone().into(),
        device.request.clone().into(),
        device.uuid.clone().unwrap_or_else(|| "-".to_owned()).into(),
        mark(device.status),
        mark(device.record),
        mark(device.cdi_spec),
        mark(device.nvml),
    ]
}
