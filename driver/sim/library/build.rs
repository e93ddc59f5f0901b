// SPDX-License-Identifier: Apache-2.0
//! Sets the SONAME of NVIDIA's library, and the flag that keeps the library loaded after `dlclose` at shutdown of a client.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in ["-Wl,-soname,libnvidia-ml.so.1", "-Wl,-z,nodelete"] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
