// SPDX-License-Identifier: Apache-2.0
//! The committed code is generated from the `.proto` files.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const PROTOS: [&str; 7] = [
    "dra/v1.proto",
    "dra/v1beta1.proto",
    "health/v1.proto",
    "health/v1alpha1.proto",
    "pluginregistration/v1.proto",
    "node/v1.proto",
    "mps/v1.proto",
];

fn sources(dir: &Path) -> BTreeMap<String, String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect()
}

#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/generated");
    let out = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(PROTOS, [root]).unwrap();
    tonic_prost_build::configure()
        .build_transport(true)
        .btree_map(".")
        .out_dir(out.path())
        .compile_fds(descriptors)
        .unwrap();
    let fresh = sources(out.path());
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        for (name, text) in &fresh {
            fs::write(committed.join(name), text).unwrap();
        }
    }
    assert!(sources(&committed) == fresh, "generated code is stale: run UPDATE_GENERATED=1 cargo test -p dra-proto");
}
