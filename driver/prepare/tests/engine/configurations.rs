// SPDX-License-Identifier: Apache-2.0
//! Every configuration with every device, by each way in which it can come to be for the device: the table of
//! `dra_prepare::configuration`.

use dra_model::{Claim, ClaimConfig, ConfigSource};
use dra_prepare::{PrepareCause, PreparedSharing};
use serde_json::{Value, json};

use crate::node::{Node, allocate, share, shares};

const GPU: &str = "gpu-00000000";
const MIG: &str = "gpu-00000001-mig-19-0";
const TIME_SLICING: &str = "gpu-00000000-ts";
const MPS: &str = "gpu-00000000-mps";

/// How a configuration comes to be for the request `r`, or for its alternative `r/some`.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// By the name of the request.
    Named,
    /// By the name of the alternative.
    NamedAlternative,
    /// By the name of the request that has alternatives.
    Parent,
    /// Without a name, for an alternative.
    AllForAlternative,
    /// Without a name, and it applies to another device of the claim.
    AllWithOther,
    /// Without a name, and there is no other device.
    AllAlone,
    /// From the class, with the name that the scheduler gives it.
    Class,
}

const WAYS: [Way; 7] = [
    Way::Named,
    Way::NamedAlternative,
    Way::Parent,
    Way::AllForAlternative,
    Way::AllWithOther,
    Way::AllAlone,
    Way::Class,
];

/// The columns: no strategy, `Exclusive`, `TimeSlicing`, `MPS`, `MPS` with a limit.
fn strategies(kind: &str) -> [Value; 5] {
    let interval = if kind == "GpuConfig" { "Long" } else { "Default" };
    [
        Value::Null,
        json!({"strategy": "Exclusive"}),
        json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": interval}}),
        json!({"strategy": "MPS"}),
        json!({"strategy": "MPS", "mpsConfig": {"defaultActiveThreadPercentage": 50}}),
    ]
}

fn request(way: Way) -> &'static str {
    match way {
        Way::NamedAlternative | Way::Parent | Way::AllForAlternative => "r/some",
        Way::Named | Way::AllWithOther | Way::AllAlone | Way::Class => "r",
    }
}

/// A claim for the device, without configuration.
fn claim(device: &str, kind: &str, way: Way) -> Claim {
    let mut claim = if device == TIME_SLICING || device == MPS {
        shares("a", vec![share(request(way), device, "s1", 1024, None)])
    } else {
        allocate("a", &[(request(way), device)])
    };
    if let Way::AllWithOther = way {
        let other = if kind == "GpuConfig" { "gpu-00000002" } else { "gpu-00000001-mig-19-3" };
        claim.devices.extend(allocate("a", &[("other", other)]).devices);
    }
    claim
}

fn configured(claim: Claim, kind: &str, sharing: &Value, way: Way) -> Claim {
    let (source, requests) = match way {
        Way::Named | Way::Parent => (ConfigSource::Claim, vec!["r".to_owned()]),
        Way::NamedAlternative => (ConfigSource::Claim, vec!["r/some".to_owned()]),
        Way::AllForAlternative | Way::AllWithOther | Way::AllAlone => (ConfigSource::Claim, Vec::new()),
        Way::Class => (ConfigSource::Class, vec!["r".to_owned()]),
    };
    let parameters = json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": kind, "sharing": sharing});
    let parameters = dra_model::config::parse(&parameters);
    Claim { configs: vec![ClaimConfig { source, index: 0, requests, parameters }], ..claim }
}

fn sharing(node: &Node, claim: &Claim) -> Result<(PreparedSharing, Vec<String>), String> {
    let answer = node.prepare(claim).map_err(|error| {
        let PrepareCause::Refused(refusal) = &*error.cause else { panic!("not a refusal: {error}") };
        refusal.to_string()
    })?;
    let ignored = dra_prepare::ignored(claim, &answer).iter().map(ToString::to_string).collect();
    node.engine.unprepare(&claim.reference).unwrap();
    Ok((answer[0].sharing.clone(), ignored))
}

/// `A`: it applies, `.`: the device is as without it, `I`: as without it, and the user gets the reason, `R`: refused.
fn outcome(node: &Node, device: &str, kind: &str, wanted: &Value, way: Way) -> char {
    let without = sharing(node, &claim(device, kind, way)).unwrap();
    let with = sharing(node, &configured(claim(device, kind, way), kind, wanted, way));
    match with {
        Err(_) => 'R',
        Ok((sharing, ignored)) if ignored.is_empty() => {
            if sharing == without.0 {
                '.'
            } else {
                'A'
            }
        }
        Ok((sharing, ignored)) => {
            assert_eq!(sharing, without.0, "{ignored:?}");
            assert!(ignored.len() == 1 && ignored[0].contains(device), "{ignored:?}");
            'I'
        }
    }
}

/// A share has its strategy from its form: where both agree the configuration changes nothing but the interval.
#[test]
fn each_configuration_applies_is_ignored_or_is_refused_as_in_the_table() {
    let node = Node::new(3);
    node.machine.cut(1, &[0, 3], 0);
    node.redraw();
    for (device, kind, expect) in [
        (GPU, "GpuConfig", [".AAAA", ".AAAA", ".AAAA", ".AAAA", ".AAAA", ".AAAA", ".AAAA"]),
        (MIG, "MigDeviceConfig", [".RAAA", ".RAAA", ".RAAA", ".RAAA", ".RAAA", ".RAAA", ".RAAA"]),
        (TIME_SLICING, "GpuConfig", [".RARR", ".RARR", ".IAII", ".IAII", ".IAII", ".RARR", ".IAII"]),
        (MPS, "GpuConfig", [".RR.R", ".RR.R", ".II.I", ".II.I", ".II.I", ".RR.R", ".II.I"]),
        (GPU, "MigDeviceConfig", ["RRRRR", "RRRRR", ".R...", ".R...", ".R...", ".R...", ".R..."]),
        (MIG, "GpuConfig", ["RRRRR", "RRRRR", ".....", ".....", ".....", ".....", "....."]),
        (TIME_SLICING, "MigDeviceConfig", ["RRRRR", "RRRRR", ".R...", ".R...", ".R...", ".R...", ".R..."]),
        (MPS, "MigDeviceConfig", ["RRRRR", "RRRRR", ".R...", ".R...", ".R...", ".R...", ".R..."]),
    ] {
        for (way, expect) in WAYS.into_iter().zip(expect) {
            let found = strategies(kind).map(|wanted| outcome(&node, device, kind, &wanted, way));
            assert_eq!(found.iter().collect::<String>(), expect, "{kind} on {device}, {way:?}");
        }
    }
}

/// A configuration of the class counts for a share again when that of the claim is ignored.
#[test]
fn an_ignored_configuration_does_not_replace_an_earlier_one() {
    let node = Node::new(3);
    let long = json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}});
    let class = configured(claim(TIME_SLICING, "GpuConfig", Way::Class), "GpuConfig", &long, Way::Class);
    let others = claim(TIME_SLICING, "GpuConfig", Way::AllWithOther);
    let own = configured(others, "GpuConfig", &json!({"strategy": "Exclusive"}), Way::AllWithOther);
    let mut configs = [class.configs, own.configs.clone()].concat();
    configs[1].index = 1;
    let (sharing, ignored) = sharing(&node, &Claim { configs, ..own }).unwrap();
    let PreparedSharing::TimeSlicing { interval, .. } = sharing else { panic!("{sharing:?}") };
    assert_eq!((interval.to_string().as_str(), ignored.len()), ("Long", 1));
}
