// SPDX-License-Identifier: Apache-2.0
//! Kubeconfig documents: address of the API server and client certificate.

use serde_json::{Value, json};
use std::path::Path;

/// A kubeconfig as JSON, which is YAML. The files are named, not embedded, so
/// their paths are those that the reading program sees.
pub(crate) fn render(server: &str, authority: &Path, certificate: &Path, key: &Path) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "gpu-dra", "cluster": {"server": server, "certificate-authority": authority}}],
        "users": [{"name": "user", "user": {"client-certificate": certificate, "client-key": key}}],
        "contexts": [{"name": "gpu-dra", "context": {"cluster": "gpu-dra", "user": "user"}}],
        "current-context": "gpu-dra",
    })
}
