// SPDX-License-Identifier: Apache-2.0
//! What the API server keeps of fields behind feature gates. One that drops them silently could let the scheduler hand
//! out a GPU twice, so this is known before the first slice that needs them is published.
//!
//! In: the slices as they should be and as they are. Out: [`Features`] to pack with, and the reason of each refusal. It
//! asks for the version and sends dry runs; it never stores anything.

use std::collections::BTreeMap;

use dra_model::chain;
use dra_resource::{Features, Pool, SliceContent, Write, diff, slice_name};
use k8s_openapi::api::resource::v1::{ResourceSlice, ResourceSliceSpec};

use crate::cluster::{Cluster, RequestError, ServerVersion};

/// Fields that stand behind one feature gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GatedFields {
    /// Counters, which keep the forms of a GPU apart (KEP-4815).
    Counters,
    /// Devices for many claims and what each takes of them (KEP-5075).
    Shares,
}

/// What the API server does with such fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// It keeps them.
    Stored,
    /// It does not, or they are not safe there, and this is why.
    Unavailable {
        /// For people.
        reason: String,
    },
}

/// What is known of the API server so far.
#[derive(Debug, Default)]
pub struct FeatureSupport {
    support: BTreeMap<GatedFields, Support>,
    /// As it was when it was asked last.
    version: Option<ServerVersion>,
    recheck: bool,
}

impl GatedFields {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Counters, Self::Shares];

    /// How much of a slice is of this kind.
    pub fn amount(self, spec: &ResourceSliceSpec) -> usize {
        let devices = || spec.devices.iter().flatten();
        match self {
            Self::Counters => {
                let consuming = devices().filter(|device| device.consumes_counters.is_some());
                spec.shared_counters.iter().flatten().count() + consuming.count()
            }
            Self::Shares => {
                let for_many = devices().filter(|device| device.allow_multiple_allocations == Some(true));
                let capacities = devices().flat_map(|device| device.capacity.iter().flatten());
                for_many.count() + capacities.filter(|(_, capacity)| capacity.request_policy.is_some()).count()
            }
        }
    }

    /// The first minor version of Kubernetes 1 that they are used on.
    fn first_minor(self) -> u32 {
        match self {
            // Beta and on by default (KEP-4815).
            Self::Counters => 36,
            // Beta and on by default since 1.36 (KEP-5075). But the first schedulers of 1.36 may hand out twice what
            // consumes counters beside devices for many claims (kubernetes/kubernetes#139040).
            Self::Shares => 37,
        }
    }

    fn too_old(self, version: &ServerVersion) -> Support {
        let (version, first) = (&version.full, self.first_minor());
        let reason = match self {
            Self::Counters => format!("the API server {version} has no counters; they need Kubernetes 1.{first}"),
            Self::Shares => format!(
                "the API server is {version}, and before Kubernetes 1.{first} a GPU that many claims share may be \
                 handed out twice; upgrade Kubernetes"
            ),
        };
        Support::Unavailable { reason }
    }

    fn dropped(self, version: Option<&ServerVersion>) -> Support {
        let (what, gate) = match self {
            Self::Counters => ("counters", "DRAPartitionableDevices"),
            Self::Shares => ("allowMultipleAllocations or requestPolicy", "DRAConsumableCapacity"),
        };
        let version = version.map(|version| format!(" {}", version.full)).unwrap_or_default();
        let reason = format!("the API server{version} drops {what}; enable its feature gate {gate}");
        Support::Unavailable { reason }
    }
}

impl FeatureSupport {
    /// What may be published of the desired slices. What is open is asked first: slices that the API server has already
    /// are an answer, and a dry run of the first slice in question is another.
    pub async fn features(
        &mut self,
        cluster: &Cluster,
        pool: &Pool,
        desired: &[SliceContent],
        observed: &[ResourceSlice],
    ) -> Result<Features, RequestError> {
        let open = GatedFields::ALL.into_iter().filter(|gated| self.recheck || !self.support.contains_key(gated));
        let open: Vec<_> = open.filter_map(|gated| Some((gated, probe(gated, pool, desired)?))).collect();
        if !open.is_empty() {
            let version = cluster.version().await?;
            for (gated, probe) in open {
                let support = determine(cluster, gated, &probe, observed, &version).await?;
                self.support.insert(gated, support);
            }
            self.version = Some(version);
        }
        self.recheck = false;
        let usable = |gated| self.unavailable_reason(gated).is_none();
        Ok(Features { partitionable: usable(GatedFields::Counters), consumable: usable(GatedFields::Shares) })
    }

    /// Why something cannot be published. Shares are not safe without counters.
    pub fn unavailable_reason(&self, gated: GatedFields) -> Option<&str> {
        let of = |gated| match self.support.get(&gated) {
            Some(Support::Unavailable { reason }) => Some(reason.as_str()),
            Some(Support::Stored) | None => None,
        };
        match gated {
            GatedFields::Counters => of(gated),
            GatedFields::Shares => of(gated).or_else(|| of(GatedFields::Counters)),
        }
    }

    /// Learns from a write of which these fields did not come back. Nothing is asked, since a question that fails would have them
    /// written again.
    pub fn mark_dropped(&mut self, gated: GatedFields) {
        self.support.insert(gated, gated.dropped(self.version.as_ref()));
    }

    /// Everything is asked anew the next time: it may have been upgraded, or replaced by an older one.
    pub fn recheck(&mut self) {
        self.recheck = true;
    }
}

async fn determine(
    cluster: &Cluster,
    gated: GatedFields,
    probe: &ResourceSlice,
    observed: &[ResourceSlice],
    version: &ServerVersion,
) -> Result<Support, RequestError> {
    if (version.major, version.minor) < (1, gated.first_minor()) {
        return Ok(gated.too_old(version));
    }
    if observed.iter().any(|slice| gated.amount(&slice.spec) > 0) {
        return Ok(Support::Stored);
    }
    match cluster.dry_run(probe).await {
        Ok(kept) if gated.amount(&kept.spec) < gated.amount(&probe.spec) => Ok(gated.dropped(Some(version))),
        Ok(_) => Ok(Support::Stored),
        Err(error) if error.is_invalid() => Ok(forbidden(&error)),
        // Whoever refuses dry runs, or holds the name, does not answer the question; the answers to real writes will.
        Err(error) if error.is_final() || error.is_conflict() => Ok(Support::Stored),
        Err(error) => Err(error),
    }
}

fn forbidden(error: &RequestError) -> Support {
    let reason = format!("they were tried, and {}; look for an admission policy that forbids them", chain(error));
    Support::Unavailable { reason }
}

/// The position of slices that are only tried; no pool has so many.
const TRIAL: usize = 0xfffff;

/// The first slice with such fields, under a name of this node that no slice has.
fn probe(gated: GatedFields, pool: &Pool, desired: &[SliceContent]) -> Option<ResourceSlice> {
    let mut slice = diff(pool, desired, &[]).into_iter().find_map(|write| match write {
        Write::Create(slice) if gated.amount(&slice.spec) > 0 => Some(*slice),
        Write::Create(_) | Write::Update(_) | Write::Delete { .. } => None,
    })?;
    slice.metadata.name = Some(slice_name(TRIAL, &pool.driver, &pool.node));
    Some(slice)
}
