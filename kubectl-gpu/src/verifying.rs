// SPDX-License-Identifier: Apache-2.0
//! `verify`: reads the claims of a pod, asks the plugin of their node, and prints whether all agree.

use std::borrow::Cow;
use std::collections::BTreeSet;

use dra_model::Advice;
use dra_model::claim_report::ClaimReport;
use serde_json::Value;

use crate::access::{AccessError, connect};
use crate::args::{Connection, Form, node};
use crate::driver_pods::{self, DriverPodError, Found, driver_pods};
use crate::exec::{self, ExecError};
use crate::output::{self, OutputError};
use crate::verify::{self, SeenClaim, Verification, compare};
use dra_explain::access::Access;
use dra_explain::reading::json;
use dra_explain::request::{ReadError, Resource};
use dra_explain::subject;
use dra_explain::subject_reading::{Name, name};

/// What a claim has is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("failed to connect to the cluster")]
    Access(#[source] AccessError),
    #[error("failed to read {what}")]
    Read { what: String, source: ReadError },
    #[error("failed to parse {what}")]
    Parse { what: String, source: serde_json::Error },
    #[error("namespace {namespace} has neither a pod nor a claim with the name {name}")]
    NotFound { namespace: String, name: String },
    #[error("{subject} has no claim that is allocated a device of the driver {driver}")]
    NoDevices { subject: String, driver: String },
    #[error("failed to ask the driver of the node")]
    Pod(#[source] DriverPodError),
    #[error("failed to read what the node has for claim {claim}")]
    Exec { claim: String, source: ExecError },
    #[error("failed to parse what the node has for claim {claim}")]
    Report { claim: String, source: serde_json::Error },
    #[error("failed to print the answer")]
    Output(#[source] OutputError),
}

impl Advice for VerifyError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Access(source) => source.advice(),
            Self::Read { source, .. } => source.advice(),
            Self::Pod(source) => source.advice(),
            Self::Exec { source, .. } => source.advice(),
            Self::NotFound { .. } => Some("name another namespace with -n".into()),
            Self::NoDevices { .. } => Some("`kubectl gpu why` names what it waits for".into()),
            Self::Report { .. } => Some("upgrade the driver or this program to the version of the other".into()),
            Self::Parse { .. } | Self::Output(_) => None,
        }
    }
}

/// Prints whether claim, status, record, CDI spec and NVML agree.
pub(crate) async fn verify(connection: &Connection, args: &node::Verify) -> Result<bool, VerifyError> {
    let access = connect(connection).await.map_err(VerifyError::Access)?;
    let driver = connection.driver_name.as_str();
    let (subject, claims) = read(&access, &args.name, driver).await?;
    let nodes = |claim: &SeenClaim| claim.results.iter().map(|key| key.pool.clone()).collect::<BTreeSet<String>>();
    if claims.iter().all(|claim| claim.results.is_empty()) {
        return Err(VerifyError::NoDevices { subject, driver: driver.to_owned() });
    }
    let pods = driver_pods(&access, driver, &args.driver.driver_namespace).await.map_err(DriverPodError::Read);
    let pods = pods.map_err(VerifyError::Pod)?;
    let mut verified = Vec::new();
    for claim in &claims {
        for node in nodes(claim) {
            let report = report(&access, &pods, driver, &node, claim).await?;
            verified.push(compare(claim, &node, &report));
        }
    }
    let agrees = verified.iter().all(|claim| claim.differences.is_empty());
    let answer = Verification { subject, agrees, claims: verified };
    let text = match args.output {
        Form::Table | Form::Wide => Ok(verify::table(&answer, output::colours())),
        Form::Json => output::json(&answer),
        Form::Yaml => output::yaml(&answer),
    };
    output::print(&text.map_err(VerifyError::Output)?).map_err(VerifyError::Output)?;
    Ok(agrees)
}

async fn report(
    access: &Access,
    pods: &Found,
    driver: &str,
    node: &str,
    claim: &SeenClaim,
) -> Result<ClaimReport, VerifyError> {
    let pod = driver_pods::of_node(pods, driver, node).map_err(VerifyError::Pod)?;
    let program = ["gpu-kubelet-plugin", "claim", "print", &claim.uid];
    let failed = |source| VerifyError::Exec { claim: claim.label.clone(), source };
    let printed = exec::run(&access.client, pod, &program).await.map_err(failed)?;
    serde_json::from_slice(&printed).map_err(|source| VerifyError::Report { claim: claim.label.clone(), source })
}

/// The subject and its claims, as far as they exist.
async fn read(access: &Access, text: &str, driver: &str) -> Result<(String, Vec<SeenClaim>), VerifyError> {
    let (as_pod, as_claim, plain) = match name(text) {
        Name::Pod(name) => (true, false, name),
        Name::Claim(name) => (false, true, name),
        Name::Either(name) => (true, true, name),
    };
    let namespace = &access.namespace;
    if as_pod && let Some(object) = object(access, "pods", plain).await? {
        let label = format!("pod {namespace}/{plain}");
        let mut claims = Vec::new();
        for name in claims_of(&label, &object)? {
            claims.extend(claim(access, &name, driver).await?);
        }
        return Ok((label, claims));
    }
    if as_claim && let Some(found) = claim(access, plain, driver).await? {
        return Ok((format!("claim {namespace}/{plain}"), vec![found]));
    }
    Err(VerifyError::NotFound { namespace: namespace.clone(), name: plain.to_owned() })
}

async fn object(access: &Access, plural: &'static str, name: &str) -> Result<Option<Value>, VerifyError> {
    let namespace = Some(access.namespace.as_str());
    let resource = if plural == "pods" { Resource::core(plural, namespace) } else { Resource::dra(plural, namespace) };
    let found = json(&access.client, &resource, name).await;
    found.map_err(|source| VerifyError::Read { what: format!("{plural}/{name}"), source })
}

async fn claim(access: &Access, name: &str, driver: &str) -> Result<Option<SeenClaim>, VerifyError> {
    let Some(object) = object(access, "resourceclaims", name).await? else { return Ok(None) };
    let label = format!("{}/{name}", access.namespace);
    let parsed = verify::claim(&label, &object, driver);
    parsed.map(Some).map_err(|source| VerifyError::Parse { what: format!("claim {label}"), source })
}

/// The names of a pod's claims, with the one that the scheduler made for extended resources.
fn claims_of(label: &str, pod: &Value) -> Result<Vec<String>, VerifyError> {
    let parsed = subject::pod(pod).map_err(|source| VerifyError::Parse { what: label.to_owned(), source })?;
    let extended = pod.pointer("/status/extendedResourceClaimStatus/resourceClaimName").and_then(Value::as_str);
    let claims = parsed.claims.into_iter().filter_map(|claim| claim.claim);
    Ok(claims.chain(extended.map(str::to_owned)).collect())
}
