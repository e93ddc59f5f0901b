// SPDX-License-Identifier: Apache-2.0
//! What the Kubernetes scheduler would allocate for a claim, and which rule keeps it from doing so.
//!
//! ```text
//! ResourceSlices ── slices ──> Pools ──┐
//! ResourceClaims ── usage ───> Usage ──┼─ allocate ──> devices for the claims of a pod on a node, or
//! claim, classes ── request ─> Claims ─┘              └─ explain ──> the first rule that fails and the device that came furthest
//! ```
//!
//! All functions are pure. Objects come in as the JSON of the API server, because a whole cluster as API objects needs a gigabyte.
//! The rules are those of `structured/internal/incubating` of `dynamic-resource-allocation`, Kubernetes 1.34 to 1.37.
//!
//! Reading order: [`amount`], [`node`], [`device`], [`pool`], [`slices`], [`taint_rules`], [`usage`], [`request`], [`classes`], [`selector`], [`counters`],
//! [`capacity`], [`constraint`], [`candidates`], [`allocate`], [`explain`], [`changes`], [`pod`].

pub mod amount;

pub mod node;

pub mod device;

pub mod pool;

pub mod slices;

pub mod taint_rules;

pub mod usage;

pub mod request;

pub mod classes;

pub mod selector;

pub mod counters;

pub mod capacity;

pub mod constraint;

pub mod candidates;

mod bound;

pub mod allocate;

pub mod explain;

pub mod changes;

pub mod pod;

pub use allocate::{Allocated, Outcome, allocate};
pub use amount::Amount;
pub use candidates::{Cluster, NodeView};
pub use changes::{Change, ChangeKind, changes};
pub use classes::Classes;
pub use device::{Device, DeviceId, QualifiedName};
pub use explain::{Answer, Blocked, Rule, explain, fits_on_emptied};
pub use node::NodeFacts;
pub use pod::{Exclusion, PodRules};
pub use pool::{Pool, Pools};
pub use request::ClaimSpec;
pub use selector::Selectors;
pub use slices::SliceReader;
pub use taint_rules::TaintRules;
pub use usage::{Holder, Usage};
