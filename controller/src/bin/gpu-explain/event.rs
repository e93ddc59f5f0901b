// SPDX-License-Identifier: Apache-2.0
//! The Events about a pod that waits: one on the pod, and one on each claim of it that is not allocated.

use dra_explain::pending::PendingPod;
use dra_explain::subject::{ClaimState, Subject};
use dra_explain::why::Verdict;
use dra_resource::DriverName;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

/// The Events with a text.
pub(crate) fn events(
    driver: &DriverName,
    identity: &str,
    pod: &PendingPod,
    subject: &Subject,
    verdict: Verdict,
    text: &str,
) -> Vec<Event> {
    let on_pod = reference("v1", "Pod", pod, &pod.name, &pod.uid);
    let claims = subject.claims.iter().filter_map(|claim| match (&claim.state, &claim.uid) {
        (ClaimState::Unallocated(_), Some(uid)) => {
            let name = claim.label.split_once('/').map_or(claim.label.as_str(), |(_, name)| name);
            Some(reference("resource.k8s.io/v1", "ResourceClaim", pod, name, uid))
        }
        (ClaimState::Unallocated(_) | ClaimState::Missing { .. } | ClaimState::Allocated(_), _) => None,
    });
    let event = |regarding: ObjectReference| Event {
        metadata: ObjectMeta {
            generate_name: Some("gpu-explain-".to_owned()),
            namespace: Some(pod.namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        related: (regarding.uid != on_pod.uid).then(|| on_pod.clone()),
        regarding: Some(regarding),
        type_: Some("Warning".to_owned()),
        reason: Some(reason(verdict).to_owned()),
        action: Some("Allocate".to_owned()),
        note: Some(text.to_owned()),
        reporting_controller: Some(format!("{driver}/explain")),
        reporting_instance: Some(identity.chars().take(128).collect()),
        ..Event::default()
    };
    std::iter::once(on_pod.clone()).chain(claims).map(event).collect()
}

const fn reason(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Never => "DevicesImpossible",
        Verdict::Waits | Verdict::Fits | Verdict::Undecided => "DevicesUnavailable",
    }
}

fn reference(version: &str, kind: &str, pod: &PendingPod, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
