// SPDX-License-Identifier: Apache-2.0
//! Warnings about MPS devices that a container cannot use together. Pure.
//!
//! A container that gets the devices of two MPS daemons has the pipe directory of one: the later mount of a path replaces the
//! earlier one. In a container with several shares of one GPU, each share sets the same environment variables to its own limits.

use std::collections::{BTreeMap, BTreeSet};

use dra_model::{ClaimRef, DaemonId, LiveIdentity};
use dra_prepare::PreparedDevice;

use crate::event_text::EventText;
use crate::prepared_claim::PreparedClaim;
use crate::sharing_status;

/// The warnings about the requests of one claim.
pub fn of_requests(devices: &[PreparedDevice]) -> Vec<EventText> {
    several_daemons(devices).into_iter().chain(several_shares(devices)).collect()
}

/// The warning about the claims of one pod, for an Event on the last of them that uses MPS.
pub fn of_pod(claims: &[PreparedClaim]) -> Option<(ClaimRef, EventText)> {
    let daemon = |prepared: &PreparedClaim| prepared.devices.iter().find_map(sharing_status::daemon).cloned();
    let clients: Vec<(&ClaimRef, DaemonId)> =
        claims.iter().filter_map(|prepared| Some((&prepared.claim, daemon(prepared)?))).collect();
    let [(_, first), .., (last, _)] = &clients[..] else { return None };
    let claims: Vec<&str> = clients.iter().map(|(claim, _)| claim.name.as_str()).collect();
    let claims = claims.join(" and ");
    let text = if clients.iter().any(|(_, daemon)| daemon != first) {
        EventText::DaemonsOfClaims { claims }
    } else {
        EventText::SharesOfClaims { claims }
    };
    Some(((*last).clone(), text))
}

fn several_daemons(devices: &[PreparedDevice]) -> Option<EventText> {
    let mut requests: BTreeMap<&DaemonId, BTreeSet<&str>> = BTreeMap::new();
    for device in devices {
        if let Some(daemon) = sharing_status::daemon(device) {
            requests.entry(daemon).or_default().insert(&device.request);
        }
    }
    let all: BTreeSet<&str> = requests.values().flatten().copied().collect();
    (requests.len() > 1).then(|| EventText::DaemonsOfRequests { requests: joined(all, " and ") })
}

fn several_shares(devices: &[PreparedDevice]) -> Option<EventText> {
    let mut shares: BTreeMap<&DaemonId, Vec<&PreparedDevice>> = BTreeMap::new();
    for device in devices.iter().filter(|device| matches!(device.identity, LiveIdentity::Shared { .. })) {
        if let Some(daemon) = sharing_status::daemon(device) {
            shares.entry(daemon).or_default().push(device);
        }
    }
    let shares = shares.into_values().find(|shares| shares.len() > 1)?;
    let requests: BTreeSet<&str> = shares.iter().map(|device| device.request.as_str()).collect();
    let device = shares.first().map(|device| device.device.clone())?;
    Some(EventText::SharesOfRequests { count: shares.len(), device, requests: joined(requests, ", ") })
}

fn joined(names: BTreeSet<&str>, separator: &str) -> String {
    names.into_iter().collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use dra_model::{GpuSettings, ShareLimits, SharedForm};
    use dra_prepare::PreparedSharing;

    use super::*;

    fn device(request: &str, number: u32, daemon: Option<&str>) -> PreparedDevice {
        let uuid = format!("GPU-{number:08}-0000-0000-0000-000000000000").parse().unwrap();
        let mps = |id: &str| PreparedSharing::Mps { daemon: id.parse().unwrap(), limits: ShareLimits::default() };
        PreparedDevice {
            request: request.to_owned(),
            pool: "node-1".to_owned(),
            device: format!("gpu-{number:08}").parse().unwrap(),
            admin_access: false,
            share_id: None,
            cdi_ids: Vec::new(),
            identity: LiveIdentity::Gpu { uuid },
            sharing: daemon.map_or(PreparedSharing::Plain, mps),
            settings: GpuSettings::default(),
        }
    }

    fn gpu(number: u32) -> PreparedDevice {
        device("r", number, None)
    }

    fn share(request: &str, number: u32) -> PreparedDevice {
        let uuid = format!("GPU-{number:08}-0000-0000-0000-000000000000").parse().unwrap();
        PreparedDevice {
            device: format!("gpu-{number:08}-mps").parse().unwrap(),
            identity: LiveIdentity::Shared { uuid, form: SharedForm::Mps },
            ..device(request, number, Some(&format!("gpu-{number}")))
        }
    }

    fn claim(name: &str, devices: Vec<PreparedDevice>) -> PreparedClaim {
        let claim = ClaimRef { namespace: "ns".to_owned(), name: name.to_owned(), uid: name.parse().unwrap() };
        PreparedClaim { claim, devices }
    }

    #[test]
    fn requests_with_different_daemons_are_named() {
        for one_daemon in
            [vec![], vec![gpu(0)], vec![device("a", 0, Some("claim-u-0")), device("b", 1, Some("claim-u-0")), gpu(2)]]
        {
            assert_eq!(several_daemons(&one_daemon), None);
        }
        let text = several_daemons(&[device("b", 1, Some("gpu-1")), gpu(2), device("a", 0, Some("gpu-0"))]).unwrap();
        assert_eq!(text.reason(), "MultipleMPSDaemons");
        assert_eq!(
            text.note(),
            "Requests a and b use different MPS daemons and a process can use one only: give each container one of them in \
             resources.claims[].request"
        );
    }

    #[test]
    fn several_shares_of_one_gpu_in_one_claim_are_counted() {
        for one_each in [vec![], vec![share("a", 0)], vec![share("a", 0), share("b", 1), gpu(0)]] {
            assert_eq!(several_shares(&one_each), None);
        }
        for (devices, requests) in
            [(vec![share("b", 1), share("a", 0), share("c", 0)], "a, c"), (vec![share("a", 0), share("a", 0)], "a")]
        {
            let expect = format!(
                "2 shares of gpu-00000000-mps were allocated (requests: {requests}), but a container with several shares is \
                 limited as with one: request one share with more memory and activeThreadPercentage, or give each container \
                 one of the requests in resources.claims[].request"
            );
            let text = several_shares(&devices).unwrap();
            assert_eq!((text.reason(), text.note()), ("MultipleMPSShares", expect));
        }
    }

    #[test]
    fn claims_of_one_pod_that_use_mps_cause_a_warning_on_the_last_of_them() {
        let warning =
            |claims: &[PreparedClaim]| of_pod(claims).map(|(claim, text)| (claim.name, text.reason(), text.note()));
        assert_eq!(warning(&[claim("a", vec![share("r", 0), share("s", 0)]), claim("b", vec![gpu(1)])]), None);
        let plain = || claim("plain", vec![gpu(2)]);
        assert_eq!(
            warning(&[claim("a", vec![share("r", 0)]), claim("b", vec![share("r", 0)]), plain()]).unwrap(),
            (
                "b".to_owned(),
                "MultipleMPSShares",
                "Claims a and b of one pod are MPS shares of one GPU, but a container with several shares is limited as with \
                 one: request one share with more memory and activeThreadPercentage, or give each container one of them in \
                 resources.claims"
                    .to_owned()
            )
        );
        let (name, reason, text) =
            warning(&[claim("a", vec![share("r", 0)]), claim("b", vec![share("r", 1)])]).unwrap();
        assert_eq!((name.as_str(), reason), ("b", "MultipleMPSDaemons"));
        assert!(text.starts_with("Claims a and b of one pod use different MPS daemons"), "{text}");
    }
}
