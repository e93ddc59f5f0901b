// SPDX-License-Identifier: Apache-2.0
//! Each alert fires above its threshold after its time, and not at the threshold.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::rules::{alerts, test_rules};

/// Series and their values, a minute apart.
type Input = &'static [(&'static str, &'static str)];

struct Case {
    alert: &'static str,
    /// Labels of the alert besides name and severity.
    labels: &'static str,
    /// Minute in which it fires: its time after the expression becomes true, which for counters takes some samples.
    minute: u32,
    fires: Input,
    quiet: Input,
}

/// A minute in which every alert of the chart would fire.
const LATER: u32 = 20;

const OF_GPU: &str = r#"node="n1",device="gpu-1""#;

const CASES: [Case; 15] = [
    Case {
        alert: "GpuUtilizationHigh",
        labels: OF_GPU,
        minute: 5,
        // Both plugins of an upgrade have the series.
        fires: &[
            (r#"gpu_dra_gpu_utilization_ratio{node="n1",device="gpu-1",pod="old"}"#, "0.91+0x20"),
            (r#"gpu_dra_gpu_utilization_ratio{node="n1",device="gpu-1",pod="new"}"#, "0.92+0x20"),
        ],
        quiet: &[(r#"gpu_dra_gpu_utilization_ratio{node="n1",device="gpu-1"}"#, "0.9+0x20")],
    },
    Case {
        alert: "GpuMemoryNearlyFull",
        labels: OF_GPU,
        minute: 5,
        fires: &[
            (r#"gpu_dra_gpu_memory_used_bytes{node="n1",device="gpu-1"}"#, "96+0x20"),
            (r#"gpu_dra_gpu_memory_total_bytes{node="n1",device="gpu-1"}"#, "100+0x20"),
        ],
        quiet: &[
            (r#"gpu_dra_gpu_memory_used_bytes{node="n1",device="gpu-1"}"#, "95+0x20"),
            (r#"gpu_dra_gpu_memory_total_bytes{node="n1",device="gpu-1"}"#, "100+0x20"),
        ],
    },
    Case {
        alert: "GpuMemoryNearlyFull",
        labels: r#"node="n1",device="gpu-1-mig""#,
        minute: 5,
        fires: &[
            (r#"gpu_dra_mig_memory_used_bytes{node="n1",device="gpu-1-mig",gpu="gpu-1"}"#, "96+0x20"),
            (r#"gpu_dra_mig_memory_total_bytes{node="n1",device="gpu-1-mig",gpu="gpu-1"}"#, "100+0x20"),
        ],
        quiet: &[
            (r#"gpu_dra_mig_memory_used_bytes{node="n1",device="gpu-1-mig",gpu="gpu-1"}"#, "95+0x20"),
            (r#"gpu_dra_mig_memory_total_bytes{node="n1",device="gpu-1-mig",gpu="gpu-1"}"#, "100+0x20"),
        ],
    },
    Case {
        alert: "GpuTemperatureHigh",
        labels: OF_GPU,
        minute: 5,
        fires: &[(r#"gpu_dra_gpu_temperature_celsius{node="n1",device="gpu-1"}"#, "86+0x20")],
        quiet: &[(r#"gpu_dra_gpu_temperature_celsius{node="n1",device="gpu-1"}"#, "85+0x20")],
    },
    Case {
        alert: "GpuPowerNearLimit",
        labels: OF_GPU,
        minute: 5,
        fires: &[
            (r#"gpu_dra_gpu_power_watts{node="n1",device="gpu-1"}"#, "631+0x20"),
            (r#"gpu_dra_gpu_power_limit_watts{node="n1",device="gpu-1"}"#, "700+0x20"),
        ],
        quiet: &[
            (r#"gpu_dra_gpu_power_watts{node="n1",device="gpu-1"}"#, "630+0x20"),
            (r#"gpu_dra_gpu_power_limit_watts{node="n1",device="gpu-1"}"#, "700+0x20"),
        ],
    },
    // A lost GPU is unhealthy too, and one alert is enough.
    Case {
        alert: "GpuLost",
        labels: OF_GPU,
        minute: 1,
        fires: &[
            (r#"gpu_dra_gpu_fault{node="n1",pod="a",device="gpu-1",cause="gpu-lost",effect="NoExecute"}"#, "1+0x20"),
            (r#"gpu_dra_gpu_fault{node="n1",pod="b",device="gpu-1",cause="gpu-lost",effect="NoExecute"}"#, "1+0x20"),
            (r#"gpu_dra_gpu_healthy{node="n1",pod="a",device="gpu-1"}"#, "0+0x20"),
        ],
        quiet: &[
            (r#"gpu_dra_gpu_fault{node="n1",pod="a",device="gpu-1",cause="recovery",effect="None"}"#, "1+0x20"),
            (r#"gpu_dra_gpu_healthy{node="n1",pod="a",device="gpu-1"}"#, "1+0x20"),
        ],
    },
    Case {
        alert: "GpuUnhealthy",
        labels: OF_GPU,
        minute: 5,
        fires: &[
            (r#"gpu_dra_gpu_fault{node="n1",device="gpu-1",cause="recovery",effect="NoSchedule"}"#, "1+0x20"),
            (r#"gpu_dra_gpu_healthy{node="n1",device="gpu-1"}"#, "0+0x20"),
        ],
        quiet: &[(r#"gpu_dra_gpu_healthy{node="n1",device="gpu-1"}"#, "1+0x20")],
    },
    Case {
        alert: "GpuEvictionHeldBack",
        labels: OF_GPU,
        minute: 5,
        fires: &[(r#"gpu_dra_gpu_eviction_held_back{node="n1",device="gpu-1"}"#, "1+0x20")],
        quiet: &[(r#"gpu_dra_gpu_eviction_held_back{node="n1",device="gpu-1"}"#, "0+0x20")],
    },
    Case {
        alert: "GpuRowRemapFailed",
        labels: OF_GPU,
        minute: 5,
        fires: &[(r#"gpu_dra_gpu_row_remap_failed{node="n1",device="gpu-1"}"#, "1+0x20")],
        quiet: &[
            (r#"gpu_dra_gpu_row_remap_failed{node="n1",device="gpu-1"}"#, "0+0x20"),
            (r#"gpu_dra_gpu_row_remap_pending{node="n1",device="gpu-1"}"#, "1+0x20"),
        ],
    },
    Case {
        alert: "GpuPodsPending",
        labels: "",
        minute: 15,
        // The replica that does not lead has 0.
        fires: &[
            (r#"scheduler_pending_pods{queue="unschedulable",instance="a"}"#, "1+0x60"),
            (r#"scheduler_pending_pods{queue="unschedulable",instance="b"}"#, "0+0x60"),
        ],
        quiet: &[
            (r#"scheduler_pending_pods{queue="unschedulable",instance="a"}"#, "0+0x60"),
            (r#"scheduler_pending_pods{queue="backoff",instance="a"}"#, "3+0x60"),
        ],
    },
    Case {
        alert: "GpuClaimsNotPrepared",
        labels: r#"node="n1",result="transient""#,
        minute: 16,
        fires: &[(r#"gpu_dra_claim_operations_total{node="n1",operation="prepare",result="transient"}"#, "0+1x60")],
        quiet: &[
            (r#"gpu_dra_claim_operations_total{node="n1",operation="prepare",result="success"}"#, "0+1x60"),
            (r#"gpu_dra_claim_operations_total{node="n1",operation="prepare",result="transient"}"#, "5+0x60"),
            (r#"gpu_dra_claim_operations_total{node="n1",operation="unprepare",result="transient"}"#, "0+1x60"),
        ],
    },
    Case {
        alert: "GpuDriverDown",
        labels: r#"node="n1",container="plugin""#,
        minute: 10,
        fires: &[
            (r#"up{job="gpu-dra-driver",node="n1",container="plugin"}"#, "0+0x60"),
            (r#"up{job="gpu-dra-driver",node="n1",container="controller"}"#, "1+0x60"),
        ],
        quiet: &[
            (r#"up{job="gpu-dra-driver",node="n1",container="plugin"}"#, "1+0x60"),
            (r#"up{job="other",node="n1",container="plugin"}"#, "0+0x60"),
        ],
    },
    Case {
        alert: "GpuDevicesNotPublished",
        labels: r#"node="n1""#,
        minute: 10,
        fires: &[
            (r#"gpu_dra_devices{node="n1",type="gpu",state="healthy"}"#, "2+0x60"),
            (r#"gpu_dra_published_devices{node="n1",type="gpu"}"#, "0+0x60"),
            (r#"gpu_dra_published_devices{node="n1",type="mig"}"#, "0+0x60"),
        ],
        quiet: &[
            (r#"gpu_dra_devices{node="n1",type="gpu",state="healthy"}"#, "2+0x60"),
            (r#"gpu_dra_published_devices{node="n1",type="gpu"}"#, "0+0x60"),
            (r#"gpu_dra_published_devices{node="n1",type="mig"}"#, "7+0x60"),
        ],
    },
    Case {
        alert: "GpuMpsHostUnreachable",
        labels: r#"node="n1""#,
        minute: 5,
        fires: &[(r#"gpu_dra_mps_daemons_observed{node="n1",state="host_unreachable"}"#, "1+0x20")],
        quiet: &[
            (r#"gpu_dra_mps_daemons_observed{node="n1",state="host_unreachable"}"#, "0+0x20"),
            (r#"gpu_dra_mps_daemons_observed{node="n1",state="exited"}"#, "2+0x20"),
        ],
    },
    Case {
        alert: "GpuMpsDaemonsExit",
        labels: r#"node="n1""#,
        minute: 3,
        fires: &[(r#"gpu_dra_mps_daemon_exits_total{node="n1"}"#, "0 0 4+0x30")],
        quiet: &[(r#"gpu_dra_mps_daemon_exits_total{node="n1"}"#, "0 0 3+0x30")],
    },
];

fn test(name: &str, input: Input, minute: u32, samples: &[Value]) -> Value {
    let input = input.iter().map(|(series, values)| json!({"series": series, "values": values}));
    // All alerts, so that no other one fires for the same reason.
    let expect =
        json!({"expr": "ALERTS{alertstate=\"firing\"}", "eval_time": format!("{minute}m"), "exp_samples": samples});
    json!({"name": name, "interval": "1m", "input_series": input.collect::<Vec<_>>(), "promql_expr_test": [expect]})
}

#[test]
fn each_alert_fires_alone_above_its_threshold_and_after_its_time() {
    let alerts = alerts(&[]);
    let mut tests = Vec::new();
    for case in &CASES {
        let alert = alerts.iter().find(|alert| alert["alert"] == case.alert);
        let alert = alert.unwrap_or_else(|| panic!("the chart has no alert {}", case.alert));
        let severity = alert["labels"]["severity"].as_str().unwrap();
        let labels = format!("alertname=\"{}\",alertstate=\"firing\",severity=\"{severity}\"", case.alert);
        let labels =
            [&labels, case.labels].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(",");
        let firing = [json!({"labels": format!("ALERTS{{{labels}}}"), "value": 1})];
        for (what, input, minute, expected) in [
            ("fires", case.fires, case.minute, &firing[..]),
            ("does not fire early", case.fires, case.minute - 1, &[]),
            ("fires alone", case.fires, LATER, &firing),
            ("does not fire at the threshold", case.quiet, LATER, &[]),
        ] {
            tests.push(test(&format!("{} {what}", case.alert), input, minute, expected));
        }
    }
    test_rules(&tests).unwrap_or_else(|error| panic!("{error}"));
    let tested: BTreeSet<_> = CASES.iter().map(|case| json!(case.alert).to_string()).collect();
    let all: BTreeSet<_> = alerts.iter().map(|alert| alert["alert"].to_string()).collect();
    assert_eq!(tested, all, "every alert has a case");
}
