// SPDX-License-Identifier: Apache-2.0
//! The objects and the faults of the fake API server, which all its connections share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::key::Resource;
use super::objects::Objects;
use super::patch::Owners;
use super::refusal::Refusal;
use super::request::Verb;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) revisions: watch::Sender<u64>,
    pub(super) hangs: watch::Sender<bool>,
    pub(super) requests: watch::Sender<BTreeMap<(Verb, Resource), u64>>,
    pub(super) latency: Mutex<Duration>,
    pub(super) refusal: Mutex<Option<Refusal>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) objects: Objects,
    pub(super) owners: Owners,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state())
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let answer = change(&mut state);
        self.revisions.send_replace(state.objects.revision());
        answer
    }

    pub(super) fn revisions(&self) -> watch::Receiver<u64> {
        self.revisions.subscribe()
    }

    pub(super) fn count(&self, verb: Verb, resource: Resource) {
        self.requests.send_modify(|counts| *counts.entry((verb, resource)).or_insert(0) += 1);
    }

    /// Applies the latency and the hang to a request; an error refuses it.
    pub(super) async fn conduct(&self) -> Result<(), Refusal> {
        let latency = *self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        // The sender is a field of `self`, so this never fails.
        self.hangs.subscribe().wait_for(|hangs| !hangs).await.map(drop).unwrap_or_default();
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}
