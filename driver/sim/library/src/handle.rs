// SPDX-License-Identifier: Apache-2.0
//! Handles: pointers for the caller, numbers here.
//!
//! In: engine references. Out: never-null values that carry kind, position and incarnation, so that each call can distinguish a live
//! handle from a stale or invented one. Nothing behind a handle is ever dereferenced.

use dra_sim::Code;
use dra_sim::engine::{ComputeRef, InstanceRef};

/// Any handle argument of NVML.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(usize);

/// What a handle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Gpu(usize),
    MigDevice(ComputeRef),
    /// The same device as `nvmlComputeInstanceGetInfo` gives it: its index is that of the physical GPU.
    MigDeviceOf(ComputeRef),
    Instance(InstanceRef),
    Compute(ComputeRef),
    EventSet(u32),
}

const KIND_GPU: u8 = 0x11;
const KIND_MIG: u8 = 0x12;
const KIND_INSTANCE: u8 = 0x13;
const KIND_COMPUTE: u8 = 0x14;
const KIND_EVENTS: u8 = 0x15;
const KIND_MIG_OF: u8 = 0x16;

impl Handle {
    pub(crate) fn gpu(index: usize) -> Self {
        Self::pack(KIND_GPU, index, 0, 0, 0)
    }

    pub(crate) fn mig_device(target: ComputeRef) -> Self {
        Self::pack(KIND_MIG, target.instance.gpu, target.instance.id, target.id, target.incarnation)
    }

    pub(crate) fn mig_device_of(target: ComputeRef) -> Self {
        Self::pack(KIND_MIG_OF, target.instance.gpu, target.instance.id, target.id, target.incarnation)
    }

    pub(crate) fn instance(target: InstanceRef) -> Self {
        Self::pack(KIND_INSTANCE, target.gpu, target.id, 0, target.incarnation)
    }

    pub(crate) fn compute(target: ComputeRef) -> Self {
        Self::pack(KIND_COMPUTE, target.instance.gpu, target.instance.id, target.id, target.incarnation)
    }

    pub(crate) fn event_set(id: u32) -> Self {
        Self::pack(KIND_EVENTS, 0, 0, 0, u64::from(id))
    }

    /// Decodes a value. Null and any value that is no handle of this library are invalid arguments.
    pub(crate) fn named(self) -> Result<Named, Code> {
        let [low @ .., compute, instance, gpu, kind] = u64::try_from(self.0).unwrap_or(0).to_le_bytes();
        let incarnation = u64::from(u32::from_le_bytes(low));
        let place = InstanceRef { gpu: usize::from(gpu), id: u32::from(instance), incarnation };
        // A compute handle carries its own incarnation; that of its instance is read when it is used.
        let device = ComputeRef { instance: place, id: u32::from(compute), incarnation };
        match kind {
            KIND_GPU => Ok(Named::Gpu(usize::from(gpu))),
            KIND_MIG => Ok(Named::MigDevice(device)),
            KIND_MIG_OF => Ok(Named::MigDeviceOf(device)),
            KIND_INSTANCE => Ok(Named::Instance(place)),
            KIND_COMPUTE => Ok(Named::Compute(device)),
            KIND_EVENTS => Ok(Named::EventSet(u32::from_le_bytes(low))),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// The handle as a structure field of the binding.
    pub(crate) fn as_pointer<T>(self) -> *mut T {
        std::ptr::without_provenance_mut(self.0)
    }

    fn pack(kind: u8, gpu: usize, instance: u32, compute: u32, incarnation: u64) -> Self {
        let byte = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
        let [a, b, c, d, ..] = incarnation.to_le_bytes();
        let gpu = u8::try_from(gpu).unwrap_or(u8::MAX);
        let value = u64::from_le_bytes([a, b, c, d, byte(compute), byte(instance), gpu, kind]);
        Self(usize::try_from(value).unwrap_or(0))
    }
}
