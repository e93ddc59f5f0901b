// SPDX-License-Identifier: Apache-2.0
//! What is known of the node at this moment, as the latest value of a watch channel.

use std::sync::Arc;

use dra_model::Inventory;
use tokio::sync::watch;

/// What is known of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeReport {
    /// Nobody tells. What was published stays, and nothing is written.
    Unavailable {
        /// Why, for people.
        reason: String,
    },
    /// The kubelet plugin, or a file, tells.
    Received {
        /// Whether the kubelet knows the plugin.
        registered: bool,
        /// Grows when the kubelet restarts.
        registrations: u64,
        /// What the node has; absent until the hardware was read.
        inventory: Option<Arc<Inventory>>,
    },
}

impl NodeReport {
    /// A view before anything was heard.
    pub fn channel() -> (watch::Sender<Self>, watch::Receiver<Self>) {
        watch::channel(Self::Unavailable { reason: "no inventory was received yet".to_owned() })
    }

    /// What to publish, or why nothing may be written.
    pub fn publishable(&self) -> Result<Arc<Inventory>, String> {
        match self {
            Self::Unavailable { reason } => Err(reason.clone()),
            Self::Received { registered: false, .. } => Err("the plugin is not registered with the kubelet".to_owned()),
            Self::Received { inventory: None, .. } => Err("the plugin has not read the hardware yet".to_owned()),
            Self::Received { inventory: Some(inventory), .. } => Ok(Arc::clone(inventory)),
        }
    }

    /// What the node has, even if it may not be published.
    pub fn inventory(&self) -> Option<Arc<Inventory>> {
        match self {
            Self::Unavailable { .. } => None,
            Self::Received { inventory, .. } => inventory.clone(),
        }
    }
}

/// Tells the receivers, unless they know already.
pub(crate) fn send_if_changed<T: PartialEq>(sender: &watch::Sender<T>, latest: T) {
    sender.send_if_modified(|current| {
        let changed = *current != latest;
        if changed {
            *current = latest;
        }
        changed
    });
}
