// SPDX-License-Identifier: Apache-2.0
//! Gives the library the SONAME of NVIDIA's and keeps it loaded after `dlclose`, since clients unload it at shutdown.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in ["-Wl,-soname,libnvidia-ml.so.1", "-Wl,-z,nodelete"] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
