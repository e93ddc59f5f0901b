// SPDX-License-Identifier: Apache-2.0
//! What a failure means for whoever retries.

/// Every error that can reach the kubelet has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Retrying the same thing gives the same answer; someone has to change the claim, the class or the node.
    Permanent,
    /// Something else holds what is needed; it will be free later.
    Busy,
    /// The environment failed (API server, disk, driver); a retry may well succeed.
    Transient,
}
