// SPDX-License-Identifier: Apache-2.0
//! Which claims hold which devices, from the ResourceClaims of a cluster.
//!
//! Only claims with an allocation are read. Their JSON is decoded page by page without a copy of its texts.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;

use crate::amount::Amount;
use crate::device::QualifiedName;
use crate::pool::Pool;

/// A page that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to parse a list of ResourceClaims")]
pub struct ClaimsError(#[source] serde_json::Error);

/// A claim that is allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub namespace: Box<str>,
    pub name: Box<str>,
    /// The pods, or other objects, that use the claim.
    pub consumers: Vec<Box<str>>,
    /// Time of the allocation, as RFC 3339; absent where the scheduler does not write it.
    pub since: Option<Box<str>>,
}

/// What one result of a claim's allocation takes of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Position of the claim, see [`Usage::holder`].
    pub claim: usize,
    pub kind: Kind,
}

/// How a device is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Alone.
    Exclusive,
    /// With access for an administrator, which takes nothing.
    Admin,
    /// A share, with the capacity that it consumes.
    Share(Vec<(QualifiedName, Amount)>),
}

/// All allocations of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    holders: Vec<Holder>,
    /// By driver and pool, then by device.
    pools: BTreeMap<(Arc<str>, Arc<str>), PoolUsage>,
}

/// The allocations of the devices of one pool, by device.
pub type PoolUsage = BTreeMap<Box<str>, Vec<Allocation>>;

impl Usage {
    /// Adds the claims of a list and returns the token of the next page, if there is one.
    pub fn add_page(&mut self, json: &[u8]) -> Result<Option<String>, ClaimsError> {
        let page: Page<'_> = serde_json::from_slice(json).map_err(ClaimsError)?;
        for claim in page.items {
            self.add(claim).map_err(ClaimsError)?;
        }
        Ok(page.metadata.next.map(Cow::into_owned).filter(|next| !next.is_empty()))
    }

    fn add(&mut self, claim: Claim<'_>) -> Result<(), serde_json::Error> {
        let Some(Status { allocation: Some(allocation), reserved_for }) = claim.status else { return Ok(()) };
        let at = self.holders.len();
        self.holders.push(Holder {
            namespace: claim.metadata.namespace.into(),
            name: claim.metadata.name.into(),
            consumers: reserved_for.unwrap_or_default().into_iter().map(|found| found.name.into()).collect(),
            since: allocation.allocation_timestamp.map(Into::into),
        });
        for result in allocation.devices.results.unwrap_or_default() {
            let kind = kind(&result)?;
            let pool = (result.driver.into(), result.pool.into());
            let device = self.pools.entry(pool).or_default().entry(result.device.into()).or_default();
            device.push(Allocation { claim: at, kind });
        }
        Ok(())
    }

    /// The claim of an allocation.
    pub fn holder(&self, allocation: &Allocation) -> Option<&Holder> {
        self.holders.get(allocation.claim)
    }

    /// The claim at a position.
    pub fn claim(&self, at: usize) -> Option<&Holder> {
        self.holders.get(at)
    }

    /// The allocations of a pool; absent if there are none.
    pub fn of_pool(&self, pool: &Pool) -> Option<&PoolUsage> {
        self.pools.get(&(Arc::clone(&pool.driver), Arc::clone(&pool.name)))
    }

    /// The allocations of some pools as they would be without some claims. The names of the others are not in it.
    pub fn without(&self, claims: &BTreeSet<usize>, pools: &[&Pool]) -> Self {
        let key = |pool: &&Pool| (Arc::clone(&pool.driver), Arc::clone(&pool.name));
        let left = |devices: &PoolUsage| {
            let rest = devices.iter().map(|(device, allocations)| {
                let rest = allocations.iter().filter(|allocation| !claims.contains(&allocation.claim));
                (device.clone(), rest.cloned().collect::<Vec<_>>())
            });
            rest.filter(|(_, allocations)| !allocations.is_empty()).collect()
        };
        let found = pools.iter().map(key).filter_map(|key| Some((left(self.pools.get(&key)?), key)));
        Self { holders: Vec::new(), pools: found.map(|(devices, key)| (key, devices)).collect() }
    }

    /// Takes devices for a claim that does not exist, such as one of several replicas.
    pub fn take(&mut self, claim: Holder, devices: impl IntoIterator<Item = (Arc<str>, Arc<str>, Arc<str>, Kind)>) {
        let at = self.holders.len();
        self.holders.push(claim);
        for (driver, pool, device, kind) in devices {
            let devices = self.pools.entry((driver, pool)).or_default();
            devices.entry(device.as_ref().into()).or_default().push(Allocation { claim: at, kind });
        }
    }
}

fn kind(result: &Found<'_>) -> Result<Kind, serde_json::Error> {
    use serde::de::Error as _;
    if result.admin_access == Some(true) {
        return Ok(Kind::Admin);
    }
    if result.share_id.is_none() {
        return Ok(Kind::Exclusive);
    }
    let consumed = result.consumed_capacity.iter().flatten().map(|(name, amount)| {
        Ok((QualifiedName::new(name, &result.driver), amount.parse().map_err(serde_json::Error::custom)?))
    });
    consumed.collect::<Result<_, _>>().map(Kind::Share)
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow, default)]
    metadata: ListMeta<'a>,
    #[serde(borrow)]
    items: Vec<Claim<'a>>,
}

#[derive(Default, Deserialize)]
struct ListMeta<'a> {
    #[serde(borrow, rename = "continue")]
    next: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Claim<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    status: Option<Status<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(borrow)]
    allocation: Option<Allocated<'a>>,
    #[serde(borrow)]
    reserved_for: Option<Vec<Reference<'a>>>,
}

#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Allocated<'a> {
    #[serde(borrow, default)]
    devices: Devices<'a>,
    #[serde(borrow)]
    allocation_timestamp: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct Devices<'a> {
    #[serde(borrow)]
    results: Option<Vec<Found<'a>>>,
}

/// One allocated device.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found<'a> {
    #[serde(borrow)]
    driver: Cow<'a, str>,
    #[serde(borrow)]
    pool: Cow<'a, str>,
    #[serde(borrow)]
    device: Cow<'a, str>,
    admin_access: Option<bool>,
    #[serde(borrow, rename = "shareID")]
    share_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    consumed_capacity: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}
