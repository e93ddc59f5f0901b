// SPDX-License-Identifier: Apache-2.0
//! The ids of daemons that this driver makes.

use dra_model::DaemonId;

/// Whether this is the id of a daemon of a GPU or of a claim. There are no others.
pub fn is_ours(id: &DaemonId) -> bool {
    let group = || id.as_str().rsplit_once('-')?.1.parse().ok();
    let of_claim = || Some(DaemonId::of_claim(&id.claim()?, group()?));
    id.gpu().map(|gpu| DaemonId::of_gpu(&gpu)).or_else(of_claim).as_ref() == Some(id)
}
