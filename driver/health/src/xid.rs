// SPDX-License-Identifier: Apache-2.0
//! What NVIDIA's XID catalogue recommends immediately after each XID (edition of 2025-10-29).

/// The immediate action for an XID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XidAction {
    /// A fault of the application (`RESTART_APP`), or nothing to do (`IGNORE`): the GPU is well.
    Application,
    /// `RESET_GPU`, or one of the errors of memory and NVLink that end in a reset in most cases.
    Reset,
    /// Uncontained memory error: a reset, and every process may have wrong data.
    Uncontained,
    /// The GPU fell off the bus.
    Lost,
    /// Not in the catalogue, or without an action of its own.
    Unlisted,
}

/// The action for an XID.
pub fn action(xid: u64) -> XidAction {
    match xid {
        79 => XidAction::Lost,
        95 => XidAction::Uncontained,
        144..=150 => XidAction::Reset,
        _ if RESET.contains(&xid) => XidAction::Reset,
        _ if RESTART_APP.contains(&xid) || IGNORE.contains(&xid) => XidAction::Application,
        _ => XidAction::Unlisted,
    }
}

/// `RESET_GPU`, and those with a workflow that ends in a reset: 48, which 171 or 172 qualify, and 74. So do 144 to 150, by sub-codes.
const RESET: [u64; 15] = [46, 48, 62, 64, 74, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158];

const RESTART_APP: [u64; 48] = [
    8, 11, 13, 25, 31, 32, 39, 40, 41, 60, 68, 69, 70, 71, 72, 75, 76, 77, 80, 82, 83, 84, 85, 86, 88, 89, 94, 96, 97,
    98, 99, 100, 101, 102, 103, 104, 105, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135, 139,
];

/// `IGNORE`, and 45, which follows another XID of the process that it ends.
const IGNORE: [u64; 20] = [37, 38, 43, 44, 45, 63, 66, 67, 92, 93, 106, 107, 121, 137, 141, 152, 153, 157, 160, 161];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_applications_are_no_faults_of_the_gpu() {
        for xid in [13, 31, 43, 45, 94] {
            assert_eq!(action(xid), XidAction::Application, "{xid}");
        }
        for (xid, expect) in
            [(48, XidAction::Reset), (79, XidAction::Lost), (95, XidAction::Uncontained), (999, XidAction::Unlisted)]
        {
            assert_eq!(action(xid), expect, "{xid}");
        }
    }
}
