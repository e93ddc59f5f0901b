// SPDX-License-Identifier: Apache-2.0
//! One process of the cluster writes the Events: the holder of a Lease, which is written only when there is something to explain. As in
//! the leader election of Kubernetes no clocks of nodes are compared: a Lease is free when it was seen unchanged for [`FREE_AFTER`].

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;

/// Longer than a round of the holder, which writes the Lease in each.
const FREE_AFTER: Duration = Duration::from_mins(2);

pub(crate) struct Election {
    leases: Api<Lease>,
    name: String,
    view: View,
}

/// The Lease as this process sees it.
#[derive(Debug)]
struct View {
    identity: String,
    /// The version that was seen last, and since when.
    seen: Option<(String, Instant)>,
}

impl View {
    /// Whether this process may write itself as the holder.
    fn may_hold(&mut self, holder: &str, version: &str, now: Instant) -> bool {
        let since = match &self.seen {
            Some((seen, since)) if seen == version => *since,
            Some(_) | None => now,
        };
        self.seen = Some((version.to_owned(), since));
        holder.is_empty() || holder == self.identity || now >= since + FREE_AFTER
    }
}

impl Election {
    pub(crate) fn new(leases: Api<Lease>, name: String, identity: String) -> Self {
        Self { leases, name, view: View { identity, seen: None } }
    }

    /// Whether this process is the holder, after an attempt to become or stay it.
    pub(crate) async fn is_won(&mut self) -> kube::Result<bool> {
        let lease = self.leases.get(&self.name).await?;
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if !self.view.may_hold(&holder, &version, Instant::now()) {
            return Ok(false);
        }
        let identity = self.view.identity.clone();
        self.write(lease, identity).await
    }

    /// Leaves the Lease to the next process, if this one holds it.
    pub(crate) async fn release(&self) -> kube::Result<()> {
        let lease = self.leases.get(&self.name).await?;
        if lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.view.identity) {
            self.write(lease, String::new()).await?;
        }
        Ok(())
    }

    /// False if another process was faster: the Lease has the version that was read.
    async fn write(&self, lease: Lease, holder: String) -> kube::Result<bool> {
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.clone().unwrap_or_default();
        let is_same = before.holder_identity.as_ref() == Some(&holder);
        let spec = LeaseSpec {
            holder_identity: Some(holder),
            lease_duration_seconds: i32::try_from(FREE_AFTER.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| is_same).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        let lease = Lease { spec: Some(spec), ..lease };
        match self.leases.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Election").field("name", &self.name).field("view", &self.view).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_its_holder_stopped_to_renew_it() {
        let mut view = View { identity: "me".to_owned(), seen: None };
        let start = Instant::now();
        let mut may_hold = |holder, version, after| view.may_hold(holder, version, start + after);
        assert!(may_hold("", "1", Duration::ZERO), "free");
        assert!(may_hold("me", "2", Duration::ZERO), "own");
        assert!(!may_hold("other", "3", FREE_AFTER * 9), "seen for the first time");
        assert!(!may_hold("other", "4", FREE_AFTER * 10), "renewed");
        assert!(!may_hold("other", "4", FREE_AFTER * 10 + FREE_AFTER / 2));
        assert!(may_hold("other", "4", FREE_AFTER * 11), "abandoned");
    }
}
