// SPDX-License-Identifier: Apache-2.0
//! What the recording rules join: series of dcgm-exporter and memory with the devices of claims, of every form.

use serde_json::{Value, json};

use crate::rules::test_rules;

/// Labels of the device of a claim, then those with which it is joined and recorded.
type Device = (&'static str, &'static str);

const WHOLE: Device = (r#"claim="whole",device="gpu-1""#, r#"form="gpu",gpu_uuid="GPU-1""#);
const SHARES: [Device; 2] = [
    (r#"claim="one",device="gpu-2-mps",share_id="s1""#, r#"form="mps",gpu_uuid="GPU-2""#),
    (r#"claim="two",device="gpu-2-mps",share_id="s2""#, r#"form="mps",gpu_uuid="GPU-2""#),
];
const SLICE: Device = (r#"claim="slice",device="gpu-3-ts",share_id="s3""#, r#"form="time-slicing",gpu_uuid="GPU-3""#);
const MIG: Device = (r#"claim="mig",device="gpu-4-mig""#, r#"form="mig",gpu_uuid="GPU-4",gpu_instance="9""#);

fn labels((device, rest): Device) -> String {
    format!("node=\"n1\",namespace=\"team\",request=\"gpu\",{device},{rest}")
}

/// The devices of the claims.
fn claims() -> Vec<(String, f64)> {
    let info = |device: Device, gpu: u8| {
        let labels = labels(device);
        (format!("gpu_dra_claim_device_info{{{labels},gpu=\"gpu-{gpu}\",claim_uid=\"u\",mig_uuid=\"m\"}}"), 1.0)
    };
    let [one, two] = SHARES;
    vec![info(WHOLE, 1), info(one, 2), info(two, 2), info(SLICE, 3), info(MIG, 4)]
}

/// Runs the rules on series, and compares what they record.
fn check(input: Vec<(String, f64)>, expected: &[(&str, Vec<(String, f64)>)]) {
    let input = input.into_iter().map(|(series, value)| json!({"series": series, "values": format!("{value}+0x5")}));
    let expected = expected.iter().map(|(record, samples)| {
        let samples = samples.iter();
        let samples = samples.map(|(labels, value)| json!({"labels": format!("{record}{{{labels}}}"), "value": value}));
        json!({"expr": record, "eval_time": "2m", "exp_samples": samples.collect::<Vec<_>>()})
    });
    let (input, expected): (Vec<Value>, Vec<Value>) = (input.collect(), expected.collect());
    test_rules(&[json!({"interval": "1m", "input_series": input, "promql_expr_test": expected})])
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn series_of_dcgm_exporter_are_joined_with_claims_of_every_form() {
    for (record, series, factor) in [
        ("gpu_dra:claim_dcgm_engine_active:ratio", "DCGM_FI_PROF_GR_ENGINE_ACTIVE", 1.0),
        ("gpu_dra:claim_dcgm_tensor_active:ratio", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 1.0),
        ("gpu_dra:claim_dcgm_memory_active:ratio", "DCGM_FI_PROF_DRAM_ACTIVE", 1.0),
        ("gpu_dra:claim_dcgm_memory_used:bytes", "DCGM_FI_DEV_FB_USED", 1_048_576.0),
    ] {
        let exported = [
            // Both spellings of the host, a line for each pod of a GPU, and an instance of another claim.
            (r#"UUID="GPU-1",Hostname="n1""#, 0.5),
            (r#"UUID="GPU-2",hostname="n1",pod="a""#, 0.25),
            (r#"UUID="GPU-2",hostname="n1",pod="b""#, 0.25),
            (r#"UUID="GPU-3",hostname="n1""#, 0.125),
            (r#"UUID="GPU-4",hostname="n1""#, 1.0),
            (r#"UUID="GPU-4",GPU_I_ID="9",hostname="n1""#, 0.75),
            (r#"UUID="GPU-4",GPU_I_ID="10",hostname="n1""#, 1.0),
        ];
        let exported = exported.map(|(labels, value)| (format!("{series}{{{labels}}}"), value));
        let [one, two] = SHARES;
        let expected = [(WHOLE, 0.5), (one, 0.25), (two, 0.25), (SLICE, 0.125), (MIG, 0.75)];
        let expected = expected.map(|(device, value)| (labels(device), value * factor));
        check([claims(), exported.into()].concat(), &[(record, expected.into())]);
    }
}

#[test]
fn the_part_of_a_device_is_that_of_the_memory_of_its_gpu() {
    let of_claim = |(device, _): Device, gpu: u8| {
        format!("node=\"n1\",namespace=\"team\",request=\"gpu\",{device},gpu=\"gpu-{gpu}\"")
    };
    let totals =
        (1..5).map(|gpu| (format!("gpu_dra_gpu_memory_total_bytes{{node=\"n1\",device=\"gpu-{gpu}\"}}"), 80.0));
    let limit = |device| (format!("gpu_dra_claim_memory_limit_bytes{{{}}}", of_claim(device, 2)), 10.0);
    let mig = r#"gpu_dra_mig_memory_total_bytes{node="n1",gpu="gpu-4",device="gpu-4-mig"}"#;
    let memory = SHARES.map(limit).into_iter().chain([(mig.to_owned(), 20.0)]).chain(totals);
    let [one, two] = SHARES;
    // A time-slicing share has no limit and no part.
    let expected = [(WHOLE, 1, 1.0), (one, 2, 0.125), (two, 2, 0.125), (MIG, 4, 0.25)];
    let expected = expected.map(|(device, gpu, part)| (of_claim(device, gpu), part));
    check(claims().into_iter().chain(memory).collect(), &[("gpu_dra:claim_gpu_part:ratio", expected.into())]);
}
