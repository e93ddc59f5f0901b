// SPDX-License-Identifier: Apache-2.0
//! Finding devices: count, and handles by index, UUID, PCI address and serial number.

use std::ffi::c_uint;

use dra_sim::Code;
use nvml_wrapper_sys::bindings as nvml;

use crate::call::{Call, exports};
use crate::ffi::{Out, TextIn, Versioned, narrow, put, size};
use crate::handle::Handle;

exports! {
    nvmlDeviceGetCount_v2 + nvmlDeviceGetCount: (count: Out<'_, c_uint>) |call| {
        put(count, narrow(call.visible_gpus().len()))
    };

    nvmlDeviceGetHandleByIndex_v2 + nvmlDeviceGetHandleByIndex: (index: c_uint, device: Out<'_, Handle>) |call| {
        let gpu = call.visible_gpus().get(size(index)).copied().ok_or(Code::INVALID_ARGUMENT)?;
        put(device, checked(call, Handle::gpu(gpu))?)
    };

    nvmlDeviceGetHandleByUUID: (uuid: TextIn, device: Out<'_, Handle>) |call| {
        put(device, by_uuid(call, uuid.text()?)?)
    };

    nvmlDeviceGetHandleByUUIDV: (uuid: Versioned, device: Out<'_, Handle>) |call| {
        // Type 1 is text; binary UUIDs (type 2) are not simulated.
        let text = uuid.read(1, |value: &nvml::nvmlUUID_v1_t| (value.type_, uuid_text(value)))?;
        match text {
            (1, text) => put(device, by_uuid(call, &text)?),
            _ => Err(Code::NOT_SUPPORTED),
        }
    };

    nvmlDeviceGetHandleByPciBusId_v2 + nvmlDeviceGetHandleByPciBusId: (address: TextIn, device: Out<'_, Handle>) |call| {
        let wanted = parse_address(address.text()?).ok_or(Code::INVALID_ARGUMENT)?;
        let found = call.visible_gpus().into_iter().find(|&gpu| {
            call.state.gpus.get(gpu).is_some_and(|gpu| (gpu.pci.domain, gpu.pci.bus, gpu.pci.device) == wanted)
        });
        put(device, checked(call, Handle::gpu(found.ok_or(Code::NOT_FOUND)?))?)
    };

    nvmlDeviceGetHandleBySerial: (serial: TextIn, device: Out<'_, Handle>) |call| {
        let wanted = serial.text()?;
        let found = call.visible_gpus().into_iter().find(|&gpu| {
            call.state.gpus.get(gpu).is_some_and(|gpu| gpu.serial == wanted)
        });
        put(device, checked(call, Handle::gpu(found.ok_or(Code::NOT_FOUND)?))?)
    };
}

/// A handle of a device that is not lost.
fn checked(call: &Call, handle: Handle) -> Result<Handle, Code> {
    call.device(handle).map(|_| handle)
}

fn by_uuid(call: &Call, uuid: &str) -> Result<Handle, Code> {
    if uuid.starts_with("MIG-") {
        let target = call.state.mig_device_by_uuid(uuid).ok_or(Code::NOT_FOUND)?;
        let visible =
            call.is_visible(target.instance.gpu) && call.visible_mig_devices(target.instance.gpu)?.contains(&target);
        return if visible { checked(call, Handle::mig_device(target)) } else { Err(Code::NOT_FOUND) };
    }
    let gpu = call.state.gpu_by_uuid(uuid).filter(|&gpu| call.is_visible(gpu)).ok_or(Code::NOT_FOUND)?;
    checked(call, Handle::gpu(gpu))
}

/// `[domain:]bus:device[.function]` in hexadecimal.
fn parse_address(text: &str) -> Option<(u32, u32, u32)> {
    let hex = |digits: &str| u32::from_str_radix(digits, 16).ok();
    let text = text.split('.').next()?;
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [domain, bus, device] => Some((hex(domain)?, hex(bus)?, hex(device)?)),
        [bus, device] => Some((0, hex(bus)?, hex(device)?)),
        _ => None,
    }
}

fn uuid_text(value: &nvml::nvmlUUID_v1_t) -> String {
    // SAFETY: both members of the union are plain bytes of which the caller has set those of `type_`.
    let bytes = unsafe { value.value.str_ };
    bytes.iter().map(|byte| byte.to_ne_bytes()).take_while(|&[byte]| byte != 0).map(|[byte]| char::from(byte)).collect()
}
