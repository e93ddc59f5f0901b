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
pub enum Gated {
    /// Counters, which keep the forms of a GPU apart (KEP-4815).
    Counters,
    /// Devices for many claims and what each takes of them (KEP-5075).
    Shares,
}

/// What the API server does with such fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It keeps them.
    Kept,
    /// It does not, or they are not safe there, and this is why.
    Unavailable {
        /// For people.
        reason: String,
    },
}

/// What is known of the API server so far.
#[derive(Debug, Default)]
pub struct Server {
    verdicts: BTreeMap<Gated, Verdict>,
    /// As it was when it was asked last.
    version: Option<ServerVersion>,
    asks_again: bool,
}

impl Gated {
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

    fn too_old(self, version: &ServerVersion) -> Verdict {
        let (version, first) = (&version.full, self.first_minor());
        let reason = match self {
            Self::Counters => format!("the API server {version} has no counters; they need Kubernetes 1.{first}"),
            Self::Shares => format!(
                "the API server is {version}, and before Kubernetes 1.{first} a GPU that many claims share may be \
                 handed out twice; upgrade Kubernetes"
            ),
        };
        Verdict::Unavailable { reason }
    }

    fn dropped(self, version: Option<&ServerVersion>) -> Verdict {
        let (what, gate) = match self {
            Self::Counters => ("counters", "DRAPartitionableDevices"),
            Self::Shares => ("allowMultipleAllocations or requestPolicy", "DRAConsumableCapacity"),
        };
        let version = version.map(|version| format!(" {}", version.full)).unwrap_or_default();
        let reason = format!("the API server{version} drops {what}; enable its feature gate {gate}");
        Verdict::Unavailable { reason }
    }
}

impl Server {
    /// What may be published of the desired slices. What is open is asked first: slices that the API server has already
    /// are an answer, and a dry run of the first slice in question is another.
    pub async fn features(
        &mut self,
        cluster: &Cluster,
        pool: &Pool,
        desired: &[SliceContent],
        observed: &[ResourceSlice],
    ) -> Result<Features, RequestError> {
        let open = Gated::ALL.into_iter().filter(|gated| self.asks_again || !self.verdicts.contains_key(gated));
        let open: Vec<_> = open.filter_map(|gated| Some((gated, probe(gated, pool, desired)?))).collect();
        if !open.is_empty() {
            let version = cluster.version().await?;
            for (gated, probe) in open {
                let verdict = ask(cluster, gated, &probe, observed, &version).await?;
                self.verdicts.insert(gated, verdict);
            }
            self.version = Some(version);
        }
        self.asks_again = false;
        let usable = |gated| self.refusal(gated).is_none();
        Ok(Features { partitionable: usable(Gated::Counters), consumable: usable(Gated::Shares) })
    }

    /// Why something cannot be published. Shares are not safe without counters.
    pub fn refusal(&self, gated: Gated) -> Option<&str> {
        let of = |gated| match self.verdicts.get(&gated) {
            Some(Verdict::Unavailable { reason }) => Some(reason.as_str()),
            Some(Verdict::Kept) | None => None,
        };
        match gated {
            Gated::Counters => of(gated),
            Gated::Shares => of(gated).or_else(|| of(Gated::Counters)),
        }
    }

    /// Learns from a write of which these fields did not come back. Nothing is asked, since a question that fails would have them
    /// written again.
    pub fn dropped(&mut self, gated: Gated) {
        self.verdicts.insert(gated, gated.dropped(self.version.as_ref()));
    }

    /// Everything is asked anew the next time: it may have been upgraded, or replaced by an older one.
    pub fn ask_again(&mut self) {
        self.asks_again = true;
    }
}

async fn ask(
    cluster: &Cluster,
    gated: Gated,
    probe: &ResourceSlice,
    observed: &[ResourceSlice],
    version: &ServerVersion,
) -> Result<Verdict, RequestError> {
    if (version.major, version.minor) < (1, gated.first_minor()) {
        return Ok(gated.too_old(version));
    }
    if observed.iter().any(|slice| gated.amount(&slice.spec) > 0) {
        return Ok(Verdict::Kept);
    }
    match cluster.dry_run(probe).await {
        Ok(kept) if gated.amount(&kept.spec) < gated.amount(&probe.spec) => Ok(gated.dropped(Some(version))),
        Ok(_) => Ok(Verdict::Kept),
        Err(error) if error.is_invalid() => Ok(forbidden(&error)),
        // Whoever refuses dry runs, or holds the name, does not answer the question; the answers to real writes will.
        Err(error) if error.is_final() || error.is_conflict() => Ok(Verdict::Kept),
        Err(error) => Err(error),
    }
}

fn forbidden(error: &RequestError) -> Verdict {
    let reason = format!("they were tried, and {}; look for an admission policy that forbids them", chain(error));
    Verdict::Unavailable { reason }
}

/// The position of slices that are only tried; no pool has so many.
const TRIAL: usize = 0xfffff;

/// The first slice with such fields, under a name of this node that no slice has.
fn probe(gated: Gated, pool: &Pool, desired: &[SliceContent]) -> Option<ResourceSlice> {
    let mut slice = diff(pool, desired, &[]).into_iter().find_map(|write| match write {
        Write::Create(slice) if gated.amount(&slice.spec) > 0 => Some(*slice),
        Write::Create(_) | Write::Update(_) | Write::Delete { .. } => None,
    })?;
    slice.metadata.name = Some(slice_name(TRIAL, &pool.driver, &pool.node));
    Some(slice)
}
