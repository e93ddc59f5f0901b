// SPDX-License-Identifier: Apache-2.0
//! Which fields behind feature gates the API server stores. If it silently dropped them, the scheduler could allocate a GPU twice, so
//! the support is determined before the first slice with such fields is published.
//!
//! In: desired and observed slices. Out: [`Features`] for packing, and the reason of each unavailable feature. Only the version and
//! dry runs are requested, nothing is stored.

use std::collections::BTreeMap;

use dra_model::chain;
use dra_resource::{Features, Pool, SliceContent, Write, diff, slice_name};
use k8s_openapi::api::resource::v1::{Device, DeviceTaint, ResourceSlice, ResourceSliceSpec};

use crate::cluster::{Cluster, RequestError, ServerVersion};

/// The fields of one feature gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GatedFields {
    /// Shared counters, which make the forms of a GPU exclude each other (KEP-4815).
    Counters,
    /// Devices that many claims share, and their consumable capacity (KEP-5075).
    Shares,
    /// Taints of devices (KEP-5055).
    Taints,
}

/// Whether the API server stores such fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    Stored,
    /// The API server drops the fields, or they are not safe with its version.
    Unavailable {
        reason: String,
    },
}

/// The support of the API server for gated fields, as far as it is determined.
#[derive(Debug, Default)]
pub struct FeatureSupport {
    support: BTreeMap<GatedFields, Support>,
    /// The version at the last request.
    version: Option<ServerVersion>,
    recheck: bool,
}

impl GatedFields {
    pub const ALL: [Self; 3] = [Self::Counters, Self::Shares, Self::Taints];

    /// The number of fields of this kind in a slice.
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
            Self::Taints => devices().flat_map(|device| device.taints.iter().flatten()).count(),
        }
    }

    /// The first minor version of Kubernetes 1 with which the fields are used.
    fn first_minor(self) -> u32 {
        match self {
            // Beta and on by default (KEP-4815, KEP-5055).
            Self::Counters | Self::Taints => 36,
            // Beta and on by default since 1.36 (KEP-5075). But the first schedulers of 1.36 may allocate a device twice that
            // consumes counters and that many claims share (kubernetes/kubernetes#139040).
            Self::Shares => 37,
        }
    }

    fn too_old(self, version: &ServerVersion) -> Support {
        let (version, first) = (&version.full, self.first_minor());
        let reason = match self {
            Self::Counters => format!(
                "the API server is {version}, and shared counters need Kubernetes 1.{first}; upgrade Kubernetes"
            ),
            Self::Shares => format!(
                "the API server is {version}, and schedulers before Kubernetes 1.{first} may allocate a shared GPU twice; \
                 upgrade Kubernetes"
            ),
            Self::Taints => format!(
                "the API server is {version}, and taints of devices need Kubernetes 1.{first}; upgrade Kubernetes"
            ),
        };
        Support::Unavailable { reason }
    }

    fn dropped(self, version: Option<&ServerVersion>) -> Support {
        let (what, gate) = match self {
            Self::Counters => ("shared counters", "DRAPartitionableDevices"),
            Self::Shares => ("allowMultipleAllocations or requestPolicy", "DRAConsumableCapacity"),
            Self::Taints => ("taints of devices", "DRADeviceTaints"),
        };
        let version = version.map(|version| format!(" {}", version.full)).unwrap_or_default();
        let reason = format!("the API server{version} drops {what}; enable its feature gate {gate}");
        Support::Unavailable { reason }
    }
}

impl FeatureSupport {
    /// The features that may be published of the desired slices. Undetermined support is determined first: by slices that the API
    /// server has stored, else by a dry run of the first slice with such fields.
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
        Ok(Features {
            partitionable: usable(GatedFields::Counters),
            consumable: usable(GatedFields::Shares),
            taints: usable(GatedFields::Taints),
        })
    }

    /// Why fields cannot be published. Shares are not safe without counters.
    pub fn unavailable_reason(&self, gated: GatedFields) -> Option<&str> {
        let of = |gated| match self.support.get(&gated) {
            Some(Support::Unavailable { reason }) => Some(reason.as_str()),
            Some(Support::Stored) | None => None,
        };
        match gated {
            GatedFields::Counters | GatedFields::Taints => of(gated),
            GatedFields::Shares => of(gated).or_else(|| of(GatedFields::Counters)),
        }
    }

    /// Records that the API server dropped these fields in a write. No request is sent, because after a failed request the fields
    /// would be written again.
    pub fn mark_dropped(&mut self, gated: GatedFields) {
        self.support.insert(gated, gated.dropped(self.version.as_ref()));
    }

    /// Determines the support again in the next round, because the API server may have been upgraded or downgraded.
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
        Ok(stored) if gated.amount(&stored.spec) < gated.amount(&probe.spec) => Ok(gated.dropped(Some(version))),
        Ok(_) => Ok(Support::Stored),
        Err(error) if error.is_invalid() => Ok(forbidden(&error)),
        // A refused dry run or a name conflict gives no answer; the stored slice of the real write gives it.
        Err(error) if error.is_final() || error.is_conflict() => Ok(Support::Stored),
        Err(error) => Err(error),
    }
}

fn forbidden(error: &RequestError) -> Support {
    let reason = format!("a dry run with these fields failed: {}; check the admission policies", chain(error));
    Support::Unavailable { reason }
}

/// The index of slices in dry runs; no pool has as many slices.
const DRY_RUN_INDEX: usize = 0xfffff;

/// The first slice with such fields, under an unused name of this node. Slices have taints only after a fault, and an administrator wants
/// to know before it whether they are possible.
fn probe(gated: GatedFields, pool: &Pool, desired: &[SliceContent]) -> Option<ResourceSlice> {
    let mut slices = diff(pool, desired, &[]).into_iter().filter_map(|write| match write {
        Write::Create(slice) => Some(*slice),
        Write::Update(_) | Write::Delete { .. } => None,
    });
    let mut slice = match gated {
        GatedFields::Counters | GatedFields::Shares => slices.find(|slice| gated.amount(&slice.spec) > 0)?,
        GatedFields::Taints => slices.find_map(|slice| with_taint(pool, slice))?,
    };
    slice.metadata.name = Some(slice_name(DRY_RUN_INDEX, &pool.driver, &pool.node));
    Some(slice)
}

/// The slice with only its first device, which has a taint.
fn with_taint(pool: &Pool, mut slice: ResourceSlice) -> Option<ResourceSlice> {
    let device = slice.spec.devices.take()?.into_iter().next()?;
    let taint = DeviceTaint {
        key: format!("{}/dry-run", pool.driver),
        effect: "NoSchedule".to_owned(),
        ..DeviceTaint::default()
    };
    slice.spec.devices = Some(vec![Device { taints: Some(vec![taint]), ..device }]);
    Some(slice)
}
