// SPDX-License-Identifier: Apache-2.0
//! One round: the pods that wait, the cluster if one of them is due, and the Events.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dra_explain::access::Access;
use dra_explain::brief::brief;
use dra_explain::cluster::Cluster;
use dra_explain::pending::{PendingPod, pending_pods};
use dra_explain::reading;
use dra_explain::request::ReadError;
use dra_explain::subject_reading::of_pod;
use dra_model::Advice;
use dra_resource::DriverName;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::election::Election;
use crate::event::events;
use crate::reported::Reported;

/// Between two readings of the cluster, which are large.
const READ_INTERVAL: Duration = Duration::from_secs(30);

/// Of the request for one Event.
const EVENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A round ended without an answer for some pods.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    #[error("failed to read the cluster")]
    Read(#[source] ReadError),
    #[error("failed to read or write the Lease by which one process explains")]
    Lease(#[source] kube::Error),
}

impl Advice for RoundError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Read(source) => source.advice(),
            Self::Lease(_) => Some("`helm upgrade` creates it and the right to write it".into()),
        }
    }
}

pub(crate) struct Explainer {
    pub(crate) election: Election,
    pub(crate) client: Client,
    pub(crate) driver: DriverName,
    pub(crate) identity: String,
    /// How long a pod waits before it is explained.
    pub(crate) after: Duration,
    pub(crate) reported: Reported,
    /// The time of the last reading of the cluster.
    pub(crate) read: Option<Instant>,
}

impl Explainer {
    pub(crate) async fn round(&mut self) -> Result<(), RoundError> {
        let pods = pending_pods(&self.client).await.map_err(RoundError::Read)?;
        let oldest = Timestamp::now() - SignedDuration::try_from(self.after).unwrap_or(SignedDuration::MAX);
        let is_old = |pod: &&PendingPod| pod.since.parse().is_ok_and(|since: Timestamp| since <= oldest);
        let pods: BTreeMap<&str, &PendingPod> = pods.iter().filter(is_old).map(|pod| (pod.uid.as_str(), pod)).collect();
        let waiting: BTreeSet<&str> = pods.keys().copied().collect();
        let due = self.reported.due(&waiting, Instant::now());
        let is_early = self.read.is_some_and(|read| read.elapsed() < READ_INTERVAL);
        if due.is_empty() || is_early || !self.election.is_won().await.map_err(RoundError::Lease)? {
            return Ok(());
        }
        let due: Vec<&PendingPod> = due.iter().filter_map(|uid| pods.get(uid).copied()).collect();
        self.explain(&due).await.map_err(RoundError::Read)
    }

    async fn explain(&mut self, due: &[&PendingPod]) -> Result<(), ReadError> {
        self.read = Some(Instant::now());
        let client = self.client.clone();
        let access = |namespace: &str| Access { client: client.clone(), namespace: namespace.to_owned() };
        let classes = reading::classes(&self.client).await?;
        let cluster = Cluster::read(&access("default")).await?;
        for pod in due {
            let read = of_pod(&access(&pod.namespace), &pod.name, &pod.object, &classes).await;
            // The pod or a claim of it is gone, or of a form that only the scheduler understands.
            let Ok((subject, _)) = read else {
                self.reported.checked(&pod.uid, None, Instant::now());
                continue;
            };
            let concerns = cluster.concerns(self.driver.as_str(), &classes, &subject);
            let why = concerns.then(|| cluster.why(&classes, &subject, Vec::new()));
            let text = why.as_ref().and_then(|why| brief(why, &pod.namespace));
            let is_due = self.reported.checked(&pod.uid, text.as_deref(), Instant::now());
            if let (true, Some(text), Some(why)) = (is_due, text, why) {
                let events = events(&self.driver, &self.identity, pod, &subject, why.verdict, &text);
                self.record(pod, &text, &events).await;
            }
        }
        Ok(())
    }

    /// Events that are not recorded are tried again at the next check.
    async fn record(&mut self, pod: &PendingPod, text: &str, events: &[Event]) {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &pod.namespace);
        let (namespace, name) = (pod.namespace.as_str(), pod.name.as_str());
        for event in events {
            let recorded = timeout(EVENT_TIMEOUT, api.create(&PostParams::default(), event)).await;
            let failed = match recorded {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => dra_model::chain(&error).to_string(),
                Err(_elapsed) => format!("no answer within {} s", EVENT_TIMEOUT.as_secs()),
            };
            warn!(namespace, pod = name, error = failed, "failed to record an Event; will try again in minutes");
            return;
        }
        self.reported.recorded(&pod.uid, text, Instant::now());
        info!(namespace, pod = name, text, "explained why a pod waits");
    }
}
