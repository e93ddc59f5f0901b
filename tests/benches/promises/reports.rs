// SPDX-License-Identifier: Apache-2.0
//! The claims with a status, followed by one watch: repeated requests would keep the API server busy
//! right before the next measurement.

use std::collections::BTreeSet;
use std::pin::pin;

use dra_proto::dra_v1::Claim;
use dra_tests::wait::within;
use futures::StreamExt as _;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::namespace::NAMESPACE;

/// The names of the claims whose `status.devices` is written.
#[derive(Debug)]
pub(crate) struct Reports {
    names: watch::Receiver<BTreeSet<String>>,
}

impl Reports {
    /// Follows from now on, and knows what was there before.
    pub(crate) fn follow(client: Client) -> Self {
        let (sender, names) = watch::channel(BTreeSet::new());
        let claims: Api<ResourceClaim> = Api::namespaced(client, NAMESPACE);
        tokio::spawn(async move {
            let changed = watcher(claims, Config::default()).default_backoff().applied_objects();
            let mut changed = pin!(changed);
            while let Some(claim) = changed.next().await {
                let claim = claim.expect("the API server lets claims be watched");
                let devices = claim.status.and_then(|status| status.devices);
                let name = claim.metadata.name.filter(|_| devices.is_some_and(|devices| !devices.is_empty()));
                sender.send_if_modified(|names| name.is_some_and(|name| names.insert(name)));
            }
        });
        Self { names }
    }

    /// Waits until the driver has written the status of the claim, which is its last work for the claim.
    pub(crate) async fn until_reported(&self, claim: &Claim) {
        let mut names = self.names.clone();
        let reported = names.wait_for(|names| names.contains(&claim.name));
        let reported = within(&format!("status.devices of {} is written", claim.name), reported).await;
        assert!(reported.is_ok(), "the watch of the claims ended");
    }
}
