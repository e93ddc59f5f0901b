// SPDX-License-Identifier: Apache-2.0
//! A ConfigMap of NVIDIA's device plugin, imported, installed and applied: pods get the same part of a GPU as before.

use crate::{
    arena::{Arena, checked},
    mps, pods,
};
use dra_demo::{driver, published, text};
use serde_json::Value;
use std::{fs, path::PathBuf, process::Command};

crate::case::cases![an_import_from_the_device_plugin_gives_pods_the_same_part_of_a_gpu];

const NODE: &str = "node-2";
/// What the device plugin advertised.
const RESOURCE: &str = "nvidia.com/gpu.shared";
/// As its operator keeps it: one configuration for nodes that take time_slices and one for those with MPS.
const CONFIG_MAP: &str = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: device-plugin-config
  namespace: gpu-operator
data:
  time-slicing: |-
    version: v1
    sharing:
      timeSlicing:
        renameByDefault: true
        failRequestsGreaterThanOne: true
        resources:
          - name: nvidia.com/gpu
            replicas: 4
  mps: |-
    version: v1
    sharing:
      mps:
        renameByDefault: true
        resources:
          - name: nvidia.com/gpu
            replicas: 4
";

fn an_import_from_the_device_plugin_gives_pods_the_same_part_of_a_gpu(arena: &Arena) {
    let values = ["time-slicing", "mps"].map(|config| import(arena, config, &["--values"]).display().to_string());
    let values = values.each_ref().map(|path| ["--values", path]).concat();
    checked(driver::upgrade(&arena.cluster, &arena.repository, &values));
    checked(driver::wait_for_pods(&arena.cluster));
    wait_for_shares(arena, "4");
    for (config, strategy) in [("time-slicing", "TimeSlicing"), ("mps", "MPS")] {
        let objects_path = import(arena, config, &[]).display().to_string();
        arena.kubectl(&["apply", "--validate=strict", "--namespace", "default", "-f", &objects_path]);
        pods::start_from(arena, "new", NODE, &format!("{config}-gpu-1-of-4"));
        pods::start_requesting(arena, "old", NODE, RESOURCE);
        for pod in ["new", "old"] {
            has_a_quarter(arena, pod, strategy);
        }
        arena.kubectl(&["delete", "pod", "new", "old", "--timeout=60s"]);
        arena.kubectl(&["delete", "--namespace", "default", "-f", &objects_path]);
    }
    checked(driver::upgrade(&arena.cluster, &arena.repository, &[]));
    checked(driver::wait_for_pods(&arena.cluster));
    wait_for_shares(arena, "10");
}

/// Imports the ConfigMap and returns the file with what was printed.
fn import(arena: &Arena, config: &str, args: &[&str]) -> PathBuf {
    let config_path = arena.cluster.dir().join("config-map.yaml");
    fs::write(&config_path, CONFIG_MAP).unwrap();
    let program_path = checked(arena.repository.program_path("gpu-import"));
    let output =
        Command::new(program_path).arg(format!("--config={config}")).args(args).arg(config_path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed_path = arena.cluster.dir().join(format!("imported-{config}{}.yaml", args.concat()));
    fs::write(&printed_path, output.stdout).unwrap();
    printed_path
}

fn devices(arena: &Arena) -> Vec<Value> {
    let slices = checked(published::slices(&arena.cluster));
    slices.iter().filter_map(|slice| slice["spec"]["devices"].as_array()).flatten().cloned().collect()
}

/// Waits until every GPU is published with so many time_slices.
fn wait_for_shares(arena: &Arena, shares: &str) {
    arena.until(&format!("{shares} shares of every GPU"), || {
        let devices = devices(arena);
        let of = |device: &Value| text(device, "/capacity/shares/value").to_owned();
        let mut published = devices.iter().map(of).filter(|shares| !shares.is_empty()).peekable();
        (published.peek().is_some() && published.all(|published| published == shares)).then_some(())
    });
}

/// Sees one GPU, counts as a quarter of it, and knows its limits where the strategy has some.
fn has_a_quarter(arena: &Arena, pod: &str, strategy: &str) {
    let uuid = checked(arena.stage().saw(pod)).seen.uuids().join(" ");
    let is_it = |device: &&Value| {
        text(device, "/attributes/uuid/string") == uuid
            && text(device, "/attributes/sharingStrategy/string") == strategy
    };
    let device = devices(arena).iter().find(is_it).expect("the device").clone();
    let claim = checked(arena.stage().claim_of(pod));
    let claim: Value = serde_json::from_str(&arena.kubectl(&["get", "resourceclaim", &claim, "-o", "json"])).unwrap();
    let result = &claim["status"]["allocation"]["devices"]["results"][0];
    assert_eq!((text(result, "/device"), text(result, "/pool")), (text(&device, "/name"), NODE), "{claim}");
    let amounts = |name: &str| {
        let consumed = text(result, &format!("/consumedCapacity/{name}"));
        (mebibytes(consumed), mebibytes(text(&device, &format!("/capacity/{name}/value"))))
    };
    let (memory, total) = amounts("memory");
    assert_eq!(memory, total / 4, "{result} of {device}");
    let (share, all) = amounts(if strategy == "MPS" { "activeThreadPercentage" } else { "shares" });
    assert_eq!(share * 4, all, "{result} of {device}");
    if strategy == "MPS" {
        let limits = checked(arena.stage().run_in("default", pod, "env | grep -E '^CUDA_MPS_(ACTIVE|PINNED)' | sort"));
        let expect = format!("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25\nCUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0={memory}M\n");
        assert_eq!(limits, expect, "{pod}");
        assert_eq!(mps::asked(arena, "default", pod), "100.0");
    }
}

/// An amount of memory; a plain number stays what it is.
fn mebibytes(quantity: &str) -> u64 {
    let units = [("Gi", 1024), ("Mi", 1), ("", 1)];
    let amount = |(unit, factor): (&str, u64)| Some(quantity.strip_suffix(unit)?.parse::<u64>().ok()? * factor);
    units.into_iter().find_map(amount).unwrap_or_else(|| panic!("{quantity:?} is no amount of MiB"))
}
