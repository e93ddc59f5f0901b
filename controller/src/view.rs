// SPDX-License-Identifier: Apache-2.0
//! What is known of the node at this moment, as the latest value of a watch channel.

use std::sync::Arc;

use dra_model::Inventory;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::Source;

pub mod file;

pub mod stream;

/// What is known of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeView {
    /// Nobody tells. What was published stays, and nothing is written.
    Silent {
        /// Why, for people.
        reason: String,
    },
    /// The kubelet plugin, or a file, tells.
    Known {
        /// Whether the kubelet knows the plugin.
        registered: bool,
        /// Grows when the kubelet restarts.
        registrations: u64,
        /// What the node has; absent until the hardware was read.
        inventory: Option<Arc<Inventory>>,
    },
}

impl NodeView {
    /// A view before anything was heard.
    pub fn channel() -> (watch::Sender<Self>, watch::Receiver<Self>) {
        watch::channel(Self::Silent { reason: "no inventory was received yet".to_owned() })
    }

    /// What to publish, or why nothing may be written.
    pub fn publishable(&self) -> Result<Arc<Inventory>, String> {
        match self {
            Self::Silent { reason } => Err(reason.clone()),
            Self::Known { registered: false, .. } => Err("the plugin is not registered with the kubelet".to_owned()),
            Self::Known { inventory: None, .. } => Err("the plugin has not read the hardware yet".to_owned()),
            Self::Known { inventory: Some(inventory), .. } => Ok(Arc::clone(inventory)),
        }
    }

    /// What the node has, even if it may not be published.
    pub fn inventory(&self) -> Option<Arc<Inventory>> {
        match self {
            Self::Silent { .. } => None,
            Self::Known { inventory, .. } => inventory.clone(),
        }
    }
}

/// Keeps the view as the source tells it, until `stop`.
pub async fn follow(source: Source, view: watch::Sender<NodeView>, stop: CancellationToken) {
    match source {
        Source::Socket(socket) => stream::follow(socket, view, stop).await,
        Source::File(path) => file::follow(path, view, stop).await,
    }
}

/// Tells the receivers, unless they know already.
pub(crate) fn tell<T: PartialEq>(sender: &watch::Sender<T>, latest: T) {
    sender.send_if_modified(|current| {
        let changed = *current != latest;
        if changed {
            *current = latest;
        }
        changed
    });
}
