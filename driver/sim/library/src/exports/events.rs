// SPDX-License-Identifier: Apache-2.0
//! Event sets: registration in this process, events from the shared state.
//!
//! In: events that any process wrote into the state. Out: one per wait, in order: on Linux each XID is an event of its own.

use std::ffi::{c_uint, c_ulonglong};
use std::time::{Duration, Instant};

use dra_sim::state::{EVENT_MIG_CONFIG, EVENT_XID, Event};
use dra_sim::store::Changes;
use dra_sim::{Code, State};
use nvml_wrapper_sys::bindings as nvml;

use crate::call::{Call, code_of, exports};
use crate::ffi::{Out, put};
use crate::handle::{Handle, Named};
use crate::session::EventSet;

/// ECC errors, XID, clock changes, and from R570 on GPU unavailable and recovery action (nvml.h `nvmlEventType*`).
const SUPPORTED: u64 = 0x1 | 0x2 | EVENT_XID | 0x10 | 0x4000 | 0x8000;
/// An instance id where there is none.
const NO_INSTANCE: c_uint = c_uint::MAX;

/// `nvmlEventData_t` as the first version of the wait fills it.
#[repr(C)]
pub(crate) struct DataV1 {
    device: nvml::nvmlDevice_t,
    kind: c_ulonglong,
    data: c_ulonglong,
}

exports! {
    nvmlEventSetCreate: (set: Out<'_, Handle>) |call| {
        let set = set.ok_or(Code::INVALID_ARGUMENT)?;
        let id = call.session.event_sets().open(call.state.next_event - 1);
        put(Some(set), Handle::event_set(id))
    };

    nvmlEventSetFree: (set: Handle) |call| {
        let id = set_id(set)?;
        call.session.event_sets().open.remove(&id).map(|_| ()).ok_or(Code::INVALID_ARGUMENT)
    };

    nvmlDeviceGetSupportedEventTypes: (device: Handle, kinds: Out<'_, c_ulonglong>) |call| {
        let gpu = call.gpu(device)?;
        put(kinds, supported(&call.state, gpu))
    };

    nvmlDeviceRegisterEvents: (device: Handle, kinds: c_ulonglong, set: Handle) |call| {
        let gpu = call.gpu(device)?;
        let id = set_id(set)?;
        if kinds & !supported(&call.state, gpu) != 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        let mut sets = call.session.event_sets();
        let set = sets.open.get_mut(&id).ok_or(Code::INVALID_ARGUMENT)?;
        *set.masks.entry(gpu).or_insert(0) |= kinds;
        Ok(())
    };

    nvmlEventSetWait_v2: (set: Handle, data: Out<'_, nvml::nvmlEventData_t>, timeout: c_uint) |call| {
        let data = data.ok_or(Code::INVALID_ARGUMENT)?;
        let event = wait(call, set, timeout)?;
        put(Some(data), nvml::nvmlEventData_t {
            device: Handle::gpu(event.gpu).as_pointer(),
            eventType: event.kind,
            eventData: event.data,
            gpuInstanceId: event.gpu_instance.unwrap_or(NO_INSTANCE),
            computeInstanceId: event.compute_instance.unwrap_or(NO_INSTANCE),
        })
    };

    nvmlEventSetWait: (set: Handle, data: Out<'_, DataV1>, timeout: c_uint) |call| {
        let data = data.ok_or(Code::INVALID_ARGUMENT)?;
        let event = wait(call, set, timeout)?;
        put(Some(data), DataV1 { device: Handle::gpu(event.gpu).as_pointer(), kind: event.kind, data: event.data })
    };
}

fn supported(state: &State, gpu: usize) -> u64 {
    let mig = state.gpu(gpu).is_ok_and(|gpu| gpu.mig.is_some());
    if mig { SUPPORTED | EVENT_MIG_CONFIG } else { SUPPORTED }
}

fn set_id(set: Handle) -> Result<u32, Code> {
    match set.named()? {
        Named::EventSet(id) => Ok(id),
        Named::Gpu(_) | Named::MigDevice(_) | Named::MigDeviceOf(_) | Named::Instance(_) | Named::Compute(_) => {
            Err(Code::INVALID_ARGUMENT)
        }
    }
}

/// Waits without holding the table of sets, so that a set can be freed meanwhile.
fn wait(call: &Call, set: Handle, timeout: c_uint) -> Result<Event, Code> {
    let id = set_id(set)?;
    let last = call.session.event_sets().open.get_mut(&id).ok_or(Code::INVALID_ARGUMENT)?.changes.take();
    // Before the state is read, so that no change is missed between the two.
    let mut changes = last.unwrap_or_else(|| call.session.store.changes());
    let event = next_event(call, id, timeout, &mut changes);
    if let Some(set) = call.session.event_sets().open.get_mut(&id) {
        set.changes = Some(changes).filter(Changes::are_reported);
    }
    event
}

fn next_event(call: &Call, id: u32, timeout: c_uint, changes: &mut Changes) -> Result<Event, Code> {
    let deadline = Instant::now() + Duration::from_millis(u64::from(timeout));
    loop {
        let state = call.session.store.read().map_err(|error| code_of(&error))?;
        state.driver_loaded()?;
        let mut sets = call.session.event_sets();
        let set = sets.open.get_mut(&id).ok_or(Code::INVALID_ARGUMENT)?;
        if let Some(event) = set.take(&state) {
            return Ok(event);
        }
        if set.masks.keys().any(|&gpu| state.gpu(gpu).is_ok_and(|gpu| gpu.lost)) {
            return Err(Code::GPU_IS_LOST);
        }
        drop(sets);
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Code::TIMEOUT);
        }
        changes.wait(left);
    }
}

impl EventSet {
    /// The next event to report, and marks it seen.
    fn take(&mut self, state: &State) -> Option<Event> {
        let is_wanted = |event: &Event| self.masks.get(&event.gpu).is_some_and(|mask| mask & event.kind != 0);
        let first = *state.events_after(self.seen, is_wanted).next()?;
        self.seen = first.sequence;
        Some(first)
    }
}
