// SPDX-License-Identifier: Apache-2.0
//! The gRPC wire of the kubelet and of this driver, generated and committed.
//!
//! `tests/generated.rs` regenerates `src/generated/` from the `.proto` files with protox (no protoc needed) and fails
//! on a difference; `UPDATE_GENERATED=1 cargo test -p dra-proto` writes it.

/// Declares a module for one generated file. Generated code is not linted.
macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        #[allow(
            clippy::pedantic,
            clippy::allow_attributes_without_reason,
            clippy::as_conversions,
            clippy::wildcard_enum_match_arm,
            missing_debug_implementations,
            unreachable_pub,
            reason = "generated code"
        )]
        pub mod $name {
            include!(concat!("generated/", $file));
        }
    };
}

generated!(
    /// `k8s.io.kubelet.pkg.apis.dra.v1`: kubelet to plugin, Kubernetes 1.34 and later.
    dra_v1,
    "k8s.io.kubelet.pkg.apis.dra.v1.rs"
);
generated!(
    /// `k8s.io.kubelet.pkg.apis.dra.v1beta1`: the same without share ids.
    dra_v1beta1,
    "k8s.io.kubelet.pkg.apis.dra.v1beta1.rs"
);
generated!(
    /// `v1`: the health of devices, Kubernetes 1.37 and later.
    health_v1,
    "v1.rs"
);
generated!(
    /// `v1alpha1`: the same, Kubernetes 1.34 to 1.39.
    health_v1alpha1,
    "v1alpha1.rs"
);
generated!(
    /// `pluginregistration`: kubelet to registration socket.
    registration_v1,
    "pluginregistration.rs"
);
generated!(
    /// `gpu_dra.node.v1`: plugin to controller.
    node_v1,
    "gpu_dra.node.v1.rs"
);
generated!(
    /// `gpu_dra.mps.v1`: plugin to MPS host.
    mps_v1,
    "gpu_dra.mps.v1.rs"
);

/// The value of `PluginInfo.type` for a DRA driver.
pub const PLUGIN_TYPE: &str = "DRAPlugin";

/// The services that a plugin lists at registration, preferred first: the kubelet uses the first one of each kind that it supports.
pub const SUPPORTED_SERVICES: [&str; 4] =
    ["v1.DRAPlugin", "v1beta1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"];
