// SPDX-License-Identifier: Apache-2.0
//! The changes of DeviceTaintRules at the API server, and the dry run of Kubernetes, which is a rule that does nothing.

use std::fmt::Write as _;
use std::time::Duration;

use dra_allocation::node::Effect;
use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio::time::Instant;

use crate::drain::{Change, Drain};
use crate::rules::{self, Rule, Selector};
use crate::service_reading::resource;
use dra_explain::request::{ReadError, Resource, answered, object};

/// How long Kubernetes may take to count the pods of a rule. It counts when it sees the rule.
const COUNT_TIMEOUT: Duration = Duration::from_secs(5);
const COUNT_INTERVAL: Duration = Duration::from_millis(200);

/// Lets Kubernetes count the pods that each rule would evict: a rule with the effect `None` is made for that, and removed.
pub(super) async fn dry_run(client: &Client, version: &'static str, drain: &Drain) -> Result<String, ReadError> {
    let selectors = drain.selectors_in_use();
    if selectors.is_empty() {
        return Ok(String::new());
    }
    let counts = selectors.iter().map(|selector| counted(client, version, selector, drain));
    let mut text = "\nDry run of Kubernetes:\n".to_owned();
    for (selector, count) in selectors.iter().zip(futures::future::join_all(counts).await) {
        let subject = selector.device.as_deref().unwrap_or("all devices of the node");
        let count =
            count?.unwrap_or_else(|| "not counted, the device taint eviction controller does not answer".to_owned());
        // The rest of the message is about the rule, which is removed.
        let count = count.split(" This information").next().unwrap_or_default();
        writeln!(text, "  {subject}: {count}").ok();
    }
    Ok(text)
}

async fn counted(
    client: &Client,
    version: &'static str,
    selector: &Selector,
    drain: &Drain,
) -> Result<Option<String>, ReadError> {
    let taint = dra_allocation::device::Taint { effect: Effect::None, ..drain.taint.clone() };
    let rule = create(client, version, &rules::manifest(version, selector, &taint, None)).await?;
    let counted = count_of(client, &resource(version), &rule).await;
    delete(client, version, &rule.name).await?;
    counted
}

/// What Kubernetes wrote into the status of a rule; nothing if it does not in time.
async fn count_of(client: &Client, resource: &Resource, rule: &Rule) -> Result<Option<String>, ReadError> {
    let deadline = Instant::now() + COUNT_TIMEOUT;
    let mut interval = tokio::time::interval(COUNT_INTERVAL);
    while Instant::now() < deadline {
        interval.tick().await;
        let Some(body) = object(client, resource, &rule.name).await? else { return Ok(None) };
        if let Some(counted) = parsed(&body, resource)?.counted {
            return Ok(Some(counted));
        }
    }
    Ok(None)
}

/// A change that failed, after as many that succeeded.
pub(super) struct Interrupted {
    pub(super) done: usize,
    pub(super) source: ReadError,
}

/// Makes and changes the rules.
pub(super) async fn apply(
    client: &Client,
    version: &'static str,
    drain: &Drain,
    reason: Option<&str>,
) -> Result<(), Interrupted> {
    for (done, change) in drain.changes.iter().enumerate() {
        let result = match change {
            Change::Create(selector) => {
                let manifest = rules::manifest(version, selector, &drain.taint, reason);
                create(client, version, &manifest).await.map(|_created| ())
            }
            Change::Replace { rule, .. } => {
                patch(client, version, rule, &rules::patch(drain.taint.effect, reason)).await
            }
        };
        result.map_err(|source| Interrupted { done, source })?;
    }
    Ok(())
}

/// Removes rules; one that is gone is removed.
pub(super) async fn remove(client: &Client, version: &'static str, removed: &[Rule]) -> Result<(), Interrupted> {
    for (done, rule) in removed.iter().enumerate() {
        let result = delete(client, version, &rule.name).await;
        result.map_err(|source| Interrupted { done, source })?;
    }
    Ok(())
}

async fn create(client: &Client, version: &'static str, manifest: &Value) -> Result<Rule, ReadError> {
    let resource = resource(version);
    let request = Request::post(resource.path()).header("content-type", "application/json");
    let body =
        answered(client, request.body(Body::from(manifest.to_string().into_bytes())), &resource, "create").await?;
    parsed(&body, &resource)
}

async fn patch(client: &Client, version: &'static str, name: &str, patch: &Value) -> Result<(), ReadError> {
    let resource = resource(version);
    let request = Request::patch(resource.path_of(name)).header("content-type", "application/merge-patch+json");
    answered(client, request.body(Body::from(patch.to_string().into_bytes())), &resource, "patch").await?;
    Ok(())
}

async fn delete(client: &Client, version: &'static str, name: &str) -> Result<(), ReadError> {
    let resource = resource(version);
    let request = Request::builder().method(Method::DELETE).uri(resource.path_of(name));
    match answered(client, request.body(Body::empty()), &resource, "delete").await {
        Ok(_) | Err(ReadError::NotServed { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn parsed(body: &[u8], resource: &Resource) -> Result<Rule, ReadError> {
    rules::read(body).map_err(|source| ReadError::Json { what: resource.what(), source })
}
