// SPDX-License-Identifier: Apache-2.0
//! MPS daemons made of memory, with the switches that these tests need.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonSpec, DaemonState, Daemons, Deadline};
use dra_model::{ClaimUid, DaemonId};
use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct MemoryDaemons(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<DaemonId, DaemonSpec>,
    mood: Mood,
    /// Those with clients.
    used: BTreeSet<DaemonId>,
    starts: usize,
    stops: usize,
    /// Questions while it was silent.
    unanswered: usize,
    /// Claims that came to share a daemon, and claims that left it.
    joined: Vec<(DaemonId, ClaimUid)>,
    left: Vec<(DaemonId, ClaimUid)>,
    /// Until when each answer was waited for.
    deadlines: Vec<Deadline>,
}

/// How the MPS host takes what it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Willing,
    /// There is none.
    Away,
    /// It hangs.
    Silent,
    /// No daemon becomes ready.
    Refusing,
    /// No daemon ends.
    Clinging,
}

impl MemoryDaemons {
    pub(crate) fn set(&self, mood: Mood) {
        self.0.lock().mood = mood;
    }

    /// With the MPS host end all daemons.
    pub(crate) fn exit_all(&self) {
        self.0.lock().running.clear();
    }

    pub(crate) fn running(&self) -> BTreeMap<DaemonId, DaemonSpec> {
        self.0.lock().running.clone()
    }

    pub(crate) fn starts(&self) -> usize {
        self.0.lock().starts
    }

    /// How often it was asked while it hung, since the last time this was looked at.
    pub(crate) fn unanswered(&self) -> usize {
        std::mem::take(&mut self.0.lock().unanswered)
    }

    /// The claims that came to share a daemon, since the last time this was looked at.
    pub(crate) fn joined(&self) -> Vec<(DaemonId, ClaimUid)> {
        std::mem::take(&mut self.0.lock().joined)
    }

    /// The claims that left a daemon to others, since the last time this was looked at.
    pub(crate) fn left(&self) -> Vec<(DaemonId, ClaimUid)> {
        std::mem::take(&mut self.0.lock().left)
    }

    /// Until when each answer so far was waited for.
    pub(crate) fn deadlines(&self) -> Vec<Deadline> {
        self.0.lock().deadlines.clone()
    }

    /// How often a daemon that ran was ended.
    pub(crate) fn stops(&self) -> usize {
        self.0.lock().stops
    }

    /// Whether a daemon has clients.
    pub(crate) fn set_used(&self, id: &DaemonId, used: bool) {
        let mut state = self.0.lock();
        if used {
            state.used.insert(id.clone())
        } else {
            state.used.remove(id)
        };
    }

    /// A daemon that the engine did not start.
    pub(crate) fn add(&self, id: DaemonId) {
        let spec = DaemonSpec {
            id: id.clone(),
            devices: Vec::new(),
            multi_user: dra_hardware::MultiUser::Off,
            threads: None,
            memory: BTreeMap::new(),
        };
        self.0.lock().running.insert(id, spec);
    }
}

impl State {
    fn answer(&mut self, deadline: &Deadline) -> Result<(), DaemonError> {
        self.deadlines.push(deadline.clone());
        let socket = PathBuf::from("/run/gpu-dra/mps/host.sock");
        match self.mood {
            Mood::Away => Err(DaemonError::Unreachable { socket, why: "no such file".to_owned() }),
            Mood::Silent => {
                self.unanswered += 1;
                Err(DaemonError::Silent { socket, why: "nothing within 15s".to_owned() })
            }
            Mood::Willing | Mood::Refusing | Mood::Clinging => Ok(()),
        }
    }
}

impl Daemons for MemoryDaemons {
    fn start(
        &self,
        spec: &DaemonSpec,
        sharer: Option<&ClaimUid>,
        timeout: Duration,
        deadline: &Deadline,
    ) -> Result<Daemon, DaemonError> {
        let mut state = self.0.lock();
        state.answer(deadline)?;
        if state.mood == Mood::Refusing {
            let seen = "it says nothing".to_owned();
            return Err(DaemonError::NotReady { id: spec.id.clone(), waited: timeout, seen });
        }
        match state.running.get(&spec.id) {
            Some(other) if other != spec => return Err(DaemonError::Different { id: spec.id.clone() }),
            Some(_) => {}
            None => {
                state.starts += 1;
                state.running.insert(spec.id.clone(), spec.clone());
            }
        }
        state.joined.extend(sharer.map(|claim| (spec.id.clone(), claim.clone())));
        Ok(daemon(&spec.id))
    }

    fn stop(&self, id: &DaemonId, _: Duration, deadline: &Deadline) -> Result<(), DaemonError> {
        let mut state = self.0.lock();
        state.answer(deadline)?;
        if state.mood == Mood::Clinging && state.running.contains_key(id) {
            return Err(DaemonError::NotStopped { id: id.clone(), left: "process 4711".to_owned() });
        }
        state.stops += usize::from(state.running.remove(id).is_some());
        Ok(())
    }

    fn stop_unused(&self, id: &DaemonId, timeout: Duration, deadline: &Deadline) -> Result<(), DaemonError> {
        if self.0.lock().used.contains(id) {
            return Err(DaemonError::InUse { id: id.clone(), clients: 2 });
        }
        self.stop(id, timeout, deadline)
    }

    fn leave(&self, id: &DaemonId, claim: &ClaimUid, deadline: &Deadline) -> Result<(), DaemonError> {
        let mut state = self.0.lock();
        state.answer(deadline)?;
        state.left.push((id.clone(), claim.clone()));
        Ok(())
    }

    fn list(&self, deadline: &Deadline) -> Result<Vec<Daemon>, DaemonError> {
        let mut state = self.0.lock();
        state.answer(deadline)?;
        Ok(state.running.keys().map(daemon).collect())
    }
}

fn daemon(id: &DaemonId) -> Daemon {
    let dir = PathBuf::from("/run/gpu-dra/mps").join(id.as_str());
    let (run_dir, shm_dir) = (dir.join("run"), dir.join("shm"));
    Daemon { id: id.clone(), state: DaemonState::Ready, run_dir, shm_dir, multi_user: true }
}
