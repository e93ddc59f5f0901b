// SPDX-License-Identifier: Apache-2.0
//! The kinds of objects of the fake API server, and the key of an object.

/// A kind of object that the driver uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// `v1`, cluster-wide.
    Nodes,
    /// `resource.k8s.io/v1`, in namespaces.
    ResourceClaims,
    /// `resource.k8s.io/v1`, cluster-wide.
    ResourceSlices,
    /// `events.k8s.io/v1`, in namespaces.
    Events,
    /// `coordination.k8s.io/v1`, in namespaces.
    Leases,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub resource: Resource,
    /// Empty for kinds without namespaces.
    pub namespace: String,
    pub name: String,
}
