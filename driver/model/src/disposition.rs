// SPDX-License-Identifier: Apache-2.0
//! Whether retrying a failed call can help.

/// The disposition of an error that can reach the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// A retry fails in the same way until a user changes the claim or an administrator changes the class or the node.
    Permanent,
    /// Another claim or call uses the device; it will be free later.
    Busy,
    /// The environment failed (API server, disk, driver); a retry may succeed.
    Transient,
}
