// SPDX-License-Identifier: Apache-2.0
//! The last report about the node, as the value of a watch channel.

use std::sync::Arc;

use dra_model::Inventory;
use tokio::sync::watch;

/// The state of the node as its source reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeReport {
    /// The source is not connected. Published slices remain, and nothing is written.
    Unavailable { reason: String },
    Received {
        /// Whether the plugin is registered with the kubelet.
        registered: bool,
        /// Number of registrations; increases when the kubelet restarts.
        registrations: u64,
        /// Absent until the plugin has read the hardware.
        inventory: Option<Arc<Inventory>>,
    },
}

impl NodeReport {
    /// A channel whose value before the first report is `Unavailable`.
    pub fn channel() -> (watch::Sender<Self>, watch::Receiver<Self>) {
        watch::channel(Self::Unavailable { reason: "no inventory was received yet".to_owned() })
    }

    /// The inventory to publish, or the reason why nothing may be written.
    pub fn publishable(&self) -> Result<Arc<Inventory>, String> {
        match self {
            Self::Unavailable { reason } => Err(reason.clone()),
            Self::Received { registered: false, .. } => Err("the plugin is not registered with the kubelet".to_owned()),
            Self::Received { inventory: None, .. } => Err("the plugin has not read the hardware yet".to_owned()),
            Self::Received { inventory: Some(inventory), .. } => Ok(Arc::clone(inventory)),
        }
    }

    /// The inventory, also if it may not be published.
    pub fn inventory(&self) -> Option<Arc<Inventory>> {
        match self {
            Self::Unavailable { .. } => None,
            Self::Received { inventory, .. } => inventory.clone(),
        }
    }
}

/// Notifies the receivers only if the value changed.
pub(crate) fn send_if_changed<T: PartialEq>(sender: &watch::Sender<T>, latest: T) {
    sender.send_if_modified(|current| {
        let changed = *current != latest;
        if changed {
            *current = latest;
        }
        changed
    });
}
