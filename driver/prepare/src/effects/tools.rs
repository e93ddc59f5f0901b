// SPDX-License-Identifier: Apache-2.0
//! What the effects work with, and which other claims rely on them.

use dra_cdi::SpecStore;
use dra_checkpoint::LedgerStore;
use dra_hardware::BoundedHost;

use crate::state::call::Call;
use crate::state::counters::Counters;
use crate::state::mig_changes::MigChanges;
use crate::state::node::Node;
use crate::state::other_claims::OtherClaims;
use crate::state::references::{Caller, References};

/// The machine and the stores, for one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tools<'a> {
    pub(crate) specs: &'a SpecStore,
    pub(crate) host: BoundedHost<'a>,
    pub(crate) ledgers: &'a LedgerStore,
    pub(crate) daemons: &'a Call<'a>,
    pub(crate) references: References<'a>,
    pub(crate) counters: &'a Counters,
    pub(crate) mig_changes: &'a MigChanges,
}

impl<'a> Tools<'a> {
    /// `boot_id` is absent where it cannot be read.
    pub(crate) fn new(
        node: &'a Node,
        caller: Caller<'a>,
        others: &'a OtherClaims,
        boot_id: Option<&'a str>,
        call: &'a Call<'_>,
    ) -> Self {
        let references = References { caller, records: &others.records, quarantined: &others.quarantined, boot_id };
        Tools {
            specs: &node.specs,
            host: call.host(),
            ledgers: &node.ledgers,
            daemons: call,
            references,
            counters: &node.counters,
            mig_changes: &node.mig_changes,
        }
    }
}

/// Who has an effect verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The kubelet, which prepares the claim again.
    Kubelet,
    Reconciliation,
}
