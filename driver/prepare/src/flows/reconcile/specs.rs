// SPDX-License-Identifier: Apache-2.0
//! Removes CDI specs that no record needs, not even a quarantined one. The base spec of the loaded driver stays for the next
//! claim.

use dra_cdi::Kind;
use dra_cdi::store::SpecListing;
use dra_checkpoint::Listing;
use dra_model::{Device, DeviceName};

use crate::flows::report::{Problem, Reconciliation};
use crate::state::call::Call;
use crate::state::node::Node;

pub(super) fn reconcile(node: &Node, listing: SpecListing, call: &Call<'_>, report: &mut Reconciliation) {
    report.foreign.extend(listing.foreign);
    for unfinished in listing.unfinished {
        let removed = node.if_idle(&unfinished.writer, || node.specs.remove_unfinished(&unfinished));
        report.done_if_idle(removed, |source| Problem::Specs { source });
    }
    let found = node.records.list().and_then(|listing| Ok((listing, node.records.quarantined()?)));
    let (records, quarantined) = match found {
        Ok((Listing { records, quarantined, .. }, before)) => (records, [before, quarantined].concat()),
        Err(source) => return report.problems.push(Problem::Records { source }),
    };
    let loaded = node.host.driver_files().map(|files| files.version);
    for kind in listing.specs {
        let unused = match &kind {
            Kind::Claim(uid) => {
                records.iter().all(|record| record.claim.uid != *uid)
                    && quarantined.iter().all(|one| !one.is_about(uid))
            }
            Kind::Base(version) => {
                // A quarantined record does not tell which base spec it uses.
                let used = !quarantined.is_empty() || records.iter().any(|record| record.base == *version);
                !used && loaded.as_ref().is_ok_and(|loaded| loaded != version)
            }
        };
        if unused {
            remove(node, &kind, call, report);
        }
    }
    if let Err(source) = loaded {
        report.problems.push(Problem::DriverFiles { source });
    }
}

fn remove(node: &Node, kind: &Kind, call: &Call<'_>, report: &mut Reconciliation) {
    let mig_devices = mig_devices_of(node, kind, call);
    let remove = || node.specs.remove(kind).map(|()| true);
    let removed = match kind {
        Kind::Base(_) => Ok(Some(remove())),
        Kind::Claim(uid) => node.if_idle(uid, || {
            // The claim may have been prepared since.
            let is_unused = matches!(node.load(uid), Ok(None)) && !node.is_quarantined(uid);
            if is_unused { remove() } else { Ok(false) }
        }),
    };
    if report.done_if_idle(removed, |source| Problem::Specs { source }) == Some(true) {
        report.removed.push(node.specs.path(kind));
        report.without_record.extend(mig_devices);
    }
}

/// The MIG devices of a spec that exist. An unprepare removes the spec before the record, so only a lost record leaves a spec.
fn mig_devices_of(node: &Node, kind: &Kind, call: &Call<'_>) -> Vec<DeviceName> {
    let Kind::Claim(uid) = kind else { return Vec::new() };
    let Ok(inventory) = call.host().refresh() else { return Vec::new() };
    let devices = inventory.devices_by_name();
    let exists = |name: &DeviceName| matches!(devices.get(name), Some(Device::Mig(..)));
    node.specs.devices_of(uid).unwrap_or_default().into_iter().filter(exists).collect()
}
