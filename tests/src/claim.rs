// SPDX-License-Identifier: Apache-2.0
//! Allocated claims, as the scheduler leaves them in the API server.

use serde_json::{Value, json};

use crate::api_server::{ApiServer, Resource};
use crate::kubelet::{Claim, claim_of};
use crate::node::{DRIVER, NODE};

/// The namespace of every claim that says nothing else.
pub const NAMESPACE: &str = "default";

/// A claim that is being put together.
#[derive(Debug, Clone)]
pub struct NewClaim {
    namespace: String,
    name: String,
    results: Vec<Value>,
    configs: Vec<Value>,
    pods: Vec<Value>,
}

impl NewClaim {
    /// A claim to which nothing is allocated yet.
    pub fn new(name: &str) -> Self {
        let (namespace, name) = (NAMESPACE.to_owned(), name.to_owned());
        Self { namespace, name, results: Vec::new(), configs: Vec::new(), pods: Vec::new() }
    }

    /// The same in another namespace.
    pub fn of_namespace(self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self }
    }

    /// A claim with one device, for the request `gpu`.
    pub fn of(name: &str, device: &str) -> Self {
        Self::new(name).device("gpu", device)
    }

    /// One more device of this node.
    pub fn device(self, request: &str, device: &str) -> Self {
        self.result(json!({"request": request, "driver": DRIVER, "pool": NODE, "device": device}))
    }

    /// One more device, for monitoring.
    pub fn admin_device(self, request: &str, device: &str) -> Self {
        self.result(json!({"request": request, "driver": DRIVER, "pool": NODE, "device": device, "adminAccess": true}))
    }

    /// One more allocation result as it is.
    pub fn result(mut self, result: Value) -> Self {
        self.results.push(result);
        self
    }

    /// One more configuration for this driver, from the claim, for all requests.
    pub fn config(mut self, parameters: &Value) -> Self {
        let opaque = json!({"driver": DRIVER, "parameters": parameters});
        self.configs.push(json!({"source": "FromClaim", "requests": [], "opaque": opaque}));
        self
    }

    /// Reserved for one more pod.
    pub fn pod(mut self, name: &str, uid: &str) -> Self {
        self.pods.push(json!({"resource": "pods", "name": name, "uid": uid}));
        self
    }

    /// Puts it into the API server.
    pub fn create(self, api: &ApiServer) -> Claim {
        let Self { namespace, name, results, configs, pods } = self;
        let metadata = json!({"name": name, "namespace": namespace});
        let allocation = json!({"devices": {"results": results, "config": configs}});
        let status = json!({"allocation": allocation, "reservedFor": pods});
        let claim = json!({"metadata": metadata, "spec": {"devices": {}}, "status": status});
        claim_of(&api.put(Resource::ResourceClaims, &namespace, claim))
    }
}
