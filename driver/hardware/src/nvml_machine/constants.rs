// SPDX-License-Identifier: Apache-2.0
//! What cannot change while a driver is loaded, read once per GPU, so that a prepare does not read it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use dra_model::GpuUuid;
use dra_nvml::{Nvml, NvmlError};
use parking_lot::Mutex;

/// A value for each GPU that was read already.
#[derive(Debug)]
pub(super) struct DriverConstants<T>(Mutex<Values<T>>);

#[derive(Debug)]
struct Values<T> {
    /// The loaded library; the values are discarded with it.
    of: Weak<Nvml>,
    by_gpu: BTreeMap<GpuUuid, Arc<T>>,
}

impl<T> Default for DriverConstants<T> {
    fn default() -> Self {
        Self(Mutex::new(Values { of: Weak::new(), by_gpu: BTreeMap::new() }))
    }
}

impl<T> DriverConstants<T> {
    /// The value of a GPU, read now if it was not. A failure is not remembered.
    pub(super) fn get(
        &self,
        nvml: &Arc<Nvml>,
        uuid: &GpuUuid,
        read: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Result<Arc<T>, NvmlError> {
        if let Some(value) = self.known(nvml, uuid) {
            return Ok(value);
        }
        // Without the lock: reading may be slow, and two concurrent readers get the same value.
        let value = Arc::new(read()?);
        self.0.lock().by_gpu.insert(uuid.clone(), Arc::clone(&value));
        Ok(value)
    }

    /// The value of a GPU that was read already.
    pub(super) fn known(&self, nvml: &Arc<Nvml>, uuid: &GpuUuid) -> Option<Arc<T>> {
        let mut values = self.0.lock();
        let of = Arc::downgrade(nvml);
        if !Weak::ptr_eq(&values.of, &of) {
            *values = Values { of, by_gpu: BTreeMap::new() };
        }
        values.by_gpu.get(uuid).cloned()
    }
}
