// SPDX-License-Identifier: Apache-2.0
//! The client of the API server, and the namespace that is asked about.

use kube::Client;

#[derive(Clone)]
pub struct Access {
    pub client: Client,
    pub namespace: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
