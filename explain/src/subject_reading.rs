// SPDX-License-Identifier: Apache-2.0
//! Reads the pod or claim that a user names, the claims and templates that it refers to, and its Events.

use std::borrow::Cow;

use dra_allocation::Classes;
use dra_model::Advice;
use serde_json::Value;

use crate::access::Access;
use crate::reading::json;
use crate::request::{List, ReadError, Resource, Right, pages};
use crate::subject::{self, Claim, ClaimError, ClaimState, Pod, PodClaim, Subject};

/// The subject cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    #[error("failed to read {what}")]
    Read { what: String, source: ReadError },
    #[error("failed to parse {what}")]
    Json { what: String, source: serde_json::Error },
    #[error("failed to understand {what}")]
    Claim { what: String, source: ClaimError },
    #[error("namespace {namespace} has neither a pod nor a claim with the name {name}")]
    NotFound { namespace: String, name: String },
    #[error("pod {pod} has no claims and no extended resource of a DeviceClass")]
    NoClaims { pod: String },
}

impl Advice for SubjectError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Read { source, .. } => source.advice(),
            Self::NotFound { .. } => Some("name another namespace with -n".into()),
            Self::NoClaims { .. } => Some("`kubectl describe pod` shows what it waits for".into()),
            Self::Json { .. } | Self::Claim { .. } => None,
        }
    }
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name<'a> {
    Pod(&'a str),
    Claim(&'a str),
    Either(&'a str),
}

/// `pod/NAME`, `claim/NAME`, or a name, as of kubectl.
pub fn name(text: &str) -> Name<'_> {
    match text.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => Name::Pod(name),
        Some(("claim" | "resourceclaim" | "resourceclaims", name)) => Name::Claim(name),
        Some((_, name)) => Name::Either(name),
        None => Name::Either(text),
    }
}

/// The subject, and the rights that would have shown more of it.
pub async fn subject(access: &Access, text: &str, classes: &Classes) -> Result<(Subject, Vec<Right>), SubjectError> {
    let namespace = &access.namespace;
    let (as_pod, as_claim, plain) = match name(text) {
        Name::Pod(name) => (true, false, name),
        Name::Claim(name) => (false, true, name),
        Name::Either(name) => (true, true, name),
    };
    if as_pod && let Some(object) = read(access, "pods", plain).await? {
        return of_pod(access, plain, &object, classes).await;
    }
    if as_claim && let Some(object) = read(access, "resourceclaims", plain).await? {
        let label = format!("{namespace}/{plain}");
        let what = format!("claim {label}");
        let claim = subject::claim(&label, &object);
        let claim = claim.map_err(|source| SubjectError::Claim { what: what.clone(), source })?;
        let (events, missing) = events(access, "ResourceClaim", plain).await?;
        return Ok((Subject { what, pod: None, claims: vec![claim], events }, missing));
    }
    Err(SubjectError::NotFound { namespace: namespace.clone(), name: plain.to_owned() })
}

async fn read(access: &Access, plural: &'static str, name: &str) -> Result<Option<Value>, SubjectError> {
    let namespace = Some(access.namespace.as_str());
    let resource = if plural == "pods" { Resource::core(plural, namespace) } else { Resource::dra(plural, namespace) };
    let found = json(&access.client, &resource, name).await;
    found.map_err(|source| SubjectError::Read { what: format!("{plural}/{name}"), source })
}

/// A pod that was read already.
pub async fn of_pod(
    access: &Access,
    name: &str,
    object: &Value,
    classes: &Classes,
) -> Result<(Subject, Vec<Right>), SubjectError> {
    let label = format!("{}/{name}", access.namespace);
    let what = format!("pod {label}");
    let pod = subject::pod(object).map_err(|source| SubjectError::Json { what: what.clone(), source })?;
    let mut claims = Vec::new();
    for claim in &pod.claims {
        claims.push(of_pod_claim(access, claim).await?);
    }
    claims.extend(of_resources(&label, &pod, classes));
    if claims.is_empty() {
        return Err(SubjectError::NoClaims { pod: label });
    }
    let (events, missing) = events(access, "Pod", name).await?;
    Ok((Subject { what, pod: Some(pod), claims, events }, missing))
}

/// The claim that the scheduler makes for extended resources when it has found a node.
fn of_resources(pod: &str, found: &Pod, classes: &Classes) -> Option<Claim> {
    let label = format!("{pod} (extended resources)");
    let spec = classes.claim_of_resources(&label, &found.resources).filter(|_| found.node.is_none())?;
    Some(Claim { label, uid: None, state: ClaimState::Unallocated(spec) })
}

async fn of_pod_claim(access: &Access, claim: &PodClaim) -> Result<Claim, SubjectError> {
    let label = |name: &str| format!("{}/{name}", access.namespace);
    let failed = |name: &str, source| SubjectError::Claim { what: format!("claim {}", label(name)), source };
    if let Some(name) = &claim.claim
        && let Some(object) = read(access, "resourceclaims", name).await?
    {
        return subject::claim(&label(name), &object).map_err(|source| failed(name, source));
    }
    let template = match &claim.template {
        Some(name) => read(access, "resourceclaimtemplates", name).await?,
        None => None,
    };
    let missing = claim.claim.as_ref().map_or_else(|| label(&claim.name), |name| label(name));
    let spec = template.map(|object| subject::template_spec(&missing, &object)).transpose();
    let spec = spec.map_err(|source| failed(&claim.name, source))?;
    Ok(Claim { label: missing, uid: None, state: ClaimState::Missing { template: claim.template.clone(), spec } })
}

/// Without the right to list Events there are none.
async fn events(access: &Access, kind: &str, name: &str) -> Result<(Vec<subject::Event>, Vec<Right>), SubjectError> {
    let fields = Some(format!("involvedObject.kind={kind},involvedObject.name={name}"));
    let list = List { fields, ..List::all(Resource::core("events", Some(&access.namespace))) };
    let mut found = Vec::new();
    let what = format!("events of {name}");
    let add = |page: &[u8]| {
        let events = subject::events(page);
        let (events, next) = events.map_err(|source| ReadError::Json { what: what.clone(), source })?;
        found.extend(events);
        Ok(next)
    };
    match pages(&access.client, &list, add).await {
        Ok(()) => {
            found.sort_by(|one: &subject::Event, other| one.time.cmp(&other.time));
            Ok((found, Vec::new()))
        }
        Err(ReadError::Forbidden(right)) => Ok((Vec::new(), vec![right])),
        Err(source) => Err(SubjectError::Read { what: what.clone(), source }),
    }
}
