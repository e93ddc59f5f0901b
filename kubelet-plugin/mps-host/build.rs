// SPDX-License-Identifier: Apache-2.0
//! Packs the relocations of the program, which stay resident as long as it runs. Needs glibc 2.36 (DT_RELR).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
