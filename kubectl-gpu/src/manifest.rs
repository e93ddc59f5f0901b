// SPDX-License-Identifier: Apache-2.0
//! Workloads of a manifest: claims, templates, pods, and objects that make pods. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dra_allocation::{ClaimSpec, Classes};
use serde_json::Value;

use dra_explain::subject::{self, ClaimError, Pod};

/// The objects of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// `spec.devices` owners by `namespace/name`: the templates and claims of the file, and those that were read of the cluster.
    templates: BTreeMap<String, Value>,
    claims: BTreeMap<String, Value>,
    pods: Vec<PodSource>,
}

/// Something that makes pods.
#[derive(Debug, Clone, PartialEq)]
struct PodSource {
    /// `Kind name`, for texts.
    what: String,
    namespace: String,
    replicas: usize,
    pod: Pod,
}

/// A claim, or the pods of one object, with what their claims ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// `Kind name`
    pub what: String,
    pub replicas: usize,
    /// Absent for a claim that no pod of the file uses.
    pub pod: Option<Pod>,
    /// Claims that every replica has for itself.
    pub own: Vec<ClaimSpec>,
    /// Claims that all replicas share.
    pub shared: Vec<ClaimSpec>,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("object {number} has no kind")]
    Kind { number: usize },
    #[error("failed to parse the pod of {what}")]
    Pod { what: String, source: serde_json::Error },
    #[error("failed to use {what}")]
    Claim { what: String, source: ClaimError },
    #[error("{what} needs the {kind} {name}, which is neither in the file nor in the cluster")]
    Missing { what: String, kind: &'static str, name: String },
    #[error("the file has no claim, and no pod with a claim or an extended resource of a DeviceClass")]
    Nothing,
}

/// An object of the cluster that the manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Plural name in `resource.k8s.io`.
    pub plural: &'static str,
    pub namespace: String,
    pub name: String,
}

const TEMPLATES: &str = "resourceclaimtemplates";
const CLAIMS: &str = "resourceclaims";

impl Manifest {
    /// Objects without a namespace are in `namespace`. Objects that have nothing to do with devices are left out.
    pub fn read(objects: &[Value], namespace: &str) -> Result<Self, ManifestError> {
        let mut manifest = Self::default();
        for (at, object) in objects.iter().enumerate().filter(|(_, object)| !object.is_null()) {
            manifest.add(object, at + 1, namespace)?;
        }
        Ok(manifest)
    }

    fn add(&mut self, object: &Value, number: usize, namespace: &str) -> Result<(), ManifestError> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").ok_or(ManifestError::Kind { number })?;
        let namespace = text("/metadata/namespace").unwrap_or(namespace).to_owned();
        let name = text("/metadata/name").or_else(|| text("/metadata/generateName")).unwrap_or("without a name");
        let key = format!("{namespace}/{name}");
        let what = format!("{kind} {name}");
        let number =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let (pod, replicas) = match kind {
            "List" => {
                let items = object.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
                return items.iter().try_for_each(|item| self.add(item, 1, &namespace));
            }
            "ResourceClaimTemplate" => {
                self.templates.insert(key, object.clone());
                return Ok(());
            }
            "ResourceClaim" => {
                self.claims.insert(key, object.clone());
                return Ok(());
            }
            "Pod" => (Some(object), 1),
            "Deployment" | "StatefulSet" | "ReplicaSet" => {
                (object.pointer("/spec/template"), number("/spec/replicas").unwrap_or(1))
            }
            "Job" => (object.pointer("/spec/template"), number("/spec/parallelism").unwrap_or(1)),
            "CronJob" => {
                let parallel = number("/spec/jobTemplate/spec/parallelism").unwrap_or(1);
                (object.pointer("/spec/jobTemplate/spec/template"), parallel)
            }
            _ => return Ok(()),
        };
        let Some(pod) = pod else { return Ok(()) };
        let pod = subject::pod(pod).map_err(|source| ManifestError::Pod { what: what.clone(), source })?;
        self.pods.push(PodSource { what, namespace, replicas, pod });
        Ok(())
    }

    /// What the pods refer to that is not in the file.
    pub fn references(&self) -> BTreeSet<Reference> {
        let all = self.pods.iter().flat_map(|source| source.pod.claims.iter().map(move |claim| (source, claim)));
        let found = all.filter_map(|(source, claim)| {
            let (plural, name, known) = match (&claim.template, &claim.claim) {
                (Some(name), _) => (TEMPLATES, name, &self.templates),
                (None, Some(name)) => (CLAIMS, name, &self.claims),
                (None, None) => return None,
            };
            let is_known = known.contains_key(&format!("{}/{name}", source.namespace));
            (!is_known).then(|| Reference { plural, namespace: source.namespace.clone(), name: name.clone() })
        });
        found.collect()
    }

    /// Adds an object that was read of the cluster.
    pub fn resolve(&mut self, reference: &Reference, object: Value) {
        let key = format!("{}/{}", reference.namespace, reference.name);
        let kind = if reference.plural == TEMPLATES { &mut self.templates } else { &mut self.claims };
        kind.insert(key, object);
    }

    /// The workloads in the order of the file; claims and templates that no pod of it uses stand alone.
    pub fn workloads(&self, classes: &Classes) -> Result<Vec<Workload>, ManifestError> {
        let mut used = BTreeSet::new();
        let mut found = Vec::new();
        for source in &self.pods {
            let workload = self.of_pods(source, classes, &mut used)?;
            if !workload.own.is_empty() || !workload.shared.is_empty() {
                found.push(workload);
            }
        }
        let kinds = [(&self.claims, "ResourceClaim", CLAIMS), (&self.templates, "ResourceClaimTemplate", TEMPLATES)];
        for (objects, kind, plural) in kinds {
            for (key, object) in objects.iter().filter(|(key, _)| !used.contains(&(plural, (*key).clone()))) {
                let what = format!("{kind} {}", key.split_once('/').map_or(key.as_str(), |(_, name)| name));
                let spec =
                    spec(plural, key, object).map_err(|source| ManifestError::Claim { what: what.clone(), source })?;
                found.push(Workload { what, replicas: 1, pod: None, own: vec![spec], shared: Vec::new() });
            }
        }
        if found.is_empty() { Err(ManifestError::Nothing) } else { Ok(found) }
    }

    fn of_pods(
        &self,
        source: &PodSource,
        classes: &Classes,
        used: &mut BTreeSet<(&'static str, String)>,
    ) -> Result<Workload, ManifestError> {
        let (mut own, mut shared) = (Vec::new(), Vec::new());
        for claim in &source.pod.claims {
            let (plural, kind, name, objects, specs) = match (&claim.template, &claim.claim) {
                (Some(name), _) => (TEMPLATES, "ResourceClaimTemplate", name, &self.templates, &mut own),
                (None, Some(name)) => (CLAIMS, "ResourceClaim", name, &self.claims, &mut shared),
                (None, None) => continue,
            };
            let key = format!("{}/{name}", source.namespace);
            let what = source.what.clone();
            let missing = || ManifestError::Missing { what: what.clone(), kind, name: name.clone() };
            let object = objects.get(&key).ok_or_else(missing)?;
            // Two claims of one template differ by their name in the pod.
            let label = if plural == TEMPLATES { format!("{}/{}", source.namespace, claim.name) } else { key.clone() };
            specs.push(spec(plural, &label, object).map_err(|source| ManifestError::Claim { what, source })?);
            used.insert((plural, key));
        }
        let label = format!("{} (extended resources)", source.what);
        own.extend(classes.claim_of_resources(&label, &source.pod.resources));
        let pod = Some(source.pod.clone());
        Ok(Workload { what: source.what.clone(), replicas: source.replicas, pod, own, shared })
    }
}

fn spec(plural: &str, label: &str, object: &Value) -> Result<ClaimSpec, ClaimError> {
    if plural == TEMPLATES { subject::template_spec(label, object) } else { subject::claim_spec_of(label, object) }
}
