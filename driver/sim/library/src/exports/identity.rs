// SPDX-License-Identifier: Apache-2.0
//! What a device is: name, UUID, PCI address, versions.

use std::ffi::{c_int, c_uint, c_ulonglong};

use dra_sim::Code;
use dra_sim::catalog::observed::Observed;
use dra_sim::catalog::{Addressing, Model};
use dra_sim::state::Gpu;
use nvml_wrapper_sys::bindings as nvml;

use crate::call::{Call, Device, exports};
use crate::ffi::{Out, TextOut, Versioned, narrow, put, text_field};
use crate::handle::{Handle, Named};

/// `NVML_BRAND_NVIDIA`; data-centre boards report it since R470.
const BRAND_NVIDIA: u32 = 14;
/// `NVML_GPU_VIRTUALIZATION_MODE_PASSTHROUGH`: every captured board is in a virtual machine, which has it to itself.
const PASS_THROUGH: u32 = 1;
/// `NVML_BUS_TYPE_PCIE`.
const BUS_PCIE: u32 = 2;

exports! {
    nvmlDeviceGetName: (device: Handle, name: TextOut, length: c_uint) |call| {
        match call.device(device)? {
            Device::Gpu(gpu) => name.put(length, &call.state.gpu(gpu)?.model()?.name),
            Device::Mig(target) => name.put(length, &call.state.mig_device_name(target)?),
        }
    };

    nvmlDeviceGetUUID: (device: Handle, uuid: TextOut, length: c_uint) |call| {
        match call.device(device)? {
            Device::Gpu(gpu) => uuid.put(length, &call.state.gpu(gpu)?.uuid),
            Device::Mig(target) => uuid.put(length, &call.state.compute_instance(target)?.uuid),
        }
    };

    nvmlDeviceGetBrand: (device: Handle, brand: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(brand, BRAND_NVIDIA)
    };

    nvmlDeviceGetArchitecture: (device: Handle, architecture: Out<'_, c_uint>) |call| {
        put(architecture, model(call, device)?.architecture.number())
    };

    nvmlDeviceGetCudaComputeCapability: (device: Handle, major: Out<'_, c_int>, minor: Out<'_, c_int>) |call| {
        let (high, low) = model(call, device)?.compute_capability;
        put(major, high)?;
        put(minor, low)
    };

    nvmlDeviceGetNumGpuCores: (device: Handle, cores: Out<'_, c_uint>) |call| put(cores, model(call, device)?.cores);

    nvmlDeviceGetIndex: (device: Handle, index: Out<'_, c_uint>) |call| put(index, index_of(call, device)?);

    nvmlDeviceGetMinorNumber: (device: Handle, minor: Out<'_, c_uint>) |call| put(minor, gpu(call, device)?.minor);

    nvmlDeviceGetSerial: (device: Handle, serial: TextOut, length: c_uint) |call| {
        serial.put(length, &gpu(call, device)?.serial)
    };

    nvmlDeviceGetModuleId: (device: Handle, module: Out<'_, c_uint>) |call| put(module, gpu(call, device)?.module_id);

    // The board is in one place of its rack. How nvml.h orders the bytes of the GUID is not known.
    nvmlDeviceGetPlatformInfo: (device: Handle, info: Versioned) |call| {
        let known = observed(call, device)?.platform.as_ref().ok_or(Code::NOT_SUPPORTED)?;
        let module = u8::try_from(gpu(call, device)?.module_id).map_err(|_large| Code::UNKNOWN)?;
        let mut serial = [0; 16];
        serial.iter_mut().zip(known.chassis_serial.bytes()).for_each(|(to, from)| *to = from);
        info.put(2, |version| nvml::nvmlPlatformInfo_v2_t {
            version,
            ibGuid: [0; 16],
            chassisSerialNumber: serial,
            slotNumber: known.slot,
            trayIndex: known.tray,
            hostId: known.host,
            peerType: known.peer_type,
            moduleId: module,
        })
    };

    nvmlDeviceGetBoardId: (device: Handle, board: Out<'_, c_uint>) |call| {
        put(board, gpu(call, device)?.pci.bus << 8)
    };

    nvmlDeviceGetBoardPartNumber: (device: Handle, number: TextOut, length: c_uint) |call| {
        number.put(length, &model(call, device)?.board_part_number)
    };

    nvmlDeviceGetVbiosVersion: (device: Handle, version: TextOut, length: c_uint) |call| {
        version.put(length, &model(call, device)?.vbios)
    };

    nvmlDeviceGetMultiGpuBoard: (device: Handle, multi: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(multi, 0)
    };

    nvmlDeviceGetBusType: (device: Handle, bus: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(bus, BUS_PCIE)
    };

    nvmlDeviceGetPciInfo_v3 + nvmlDeviceGetPciInfo_v2 + nvmlDeviceGetPciInfo: (device: Handle, info: Out<'_, nvml::nvmlPciInfo_t>) |call| {
        let device = call.device(device)?.gpu();
        put(info, pci_info(call.state.gpu(device)?)?)
    };

    nvmlDeviceGetPciInfoExt: (device: Handle, info: Versioned) |call| {
        let found = gpu(call, device)?;
        let pci = pci_info(found)?;
        let class = found.model()?.pci.class_id.0;
        info.put(1, |version| nvml::nvmlPciInfoExt_v1_t {
            version,
            domain: pci.domain,
            bus: pci.bus,
            device: pci.device,
            pciDeviceId: pci.pciDeviceId,
            pciSubSystemId: pci.pciSubSystemId,
            baseClass: class >> 16,
            subClass: (class >> 8) & 0xff,
            busId: pci.busId,
        })
    };

    nvmlDeviceGetPdi: (device: Handle, identity: Versioned) |call| {
        let serial = gpu(call, device)?.serial.parse::<c_ulonglong>().map_err(|_not_a_number| Code::UNKNOWN)?;
        identity.put(1, |version| nvml::nvmlPdi_v1_t { version, value: serial })
    };

    nvmlDeviceGetAddressingMode: (device: Handle, mode: Versioned) |call| {
        let value = addressing(model(call, device)?);
        mode.put(1, |version| nvml::nvmlDeviceAddressingMode_v1_t { version, value })
    };

    nvmlDeviceGetVirtualizationMode: (device: Handle, mode: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(mode, PASS_THROUGH)
    };

    nvmlDeviceGetGspFirmwareVersion: (device: Handle, version: TextOut) |call| {
        call.gpu(device)?;
        // The caller's buffer has NVML_GSP_FIRMWARE_VERSION_BUF_SIZE bytes.
        version.put(64, &call.state.driver_version)
    };

    nvmlDeviceGetGspFirmwareMode: (device: Handle, enabled: Out<'_, c_uint>, default: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(enabled, 1)?;
        put(default, 1)
    };

    nvmlDeviceGetInforomImageVersion: (device: Handle, version: TextOut, length: c_uint) |call| {
        version.put(length, &observed(call, device)?.inforom.image)
    };

    nvmlDeviceGetInforomVersion: (device: Handle, object: c_uint, version: TextOut, length: c_uint) |call| {
        let inforom = &observed(call, device)?.inforom;
        // OEM and ECC (nvml.h `NVML_INFOROM_*`).
        match object {
            0 => version.put(length, &inforom.oem),
            1 => version.put(length, &inforom.ecc),
            _ => Err(Code::NOT_SUPPORTED),
        }
    };

    nvmlDeviceGetC2cModeInfoV: (device: Handle, info: Out<'_, nvml::nvmlC2cModeInfo_v1_t>) |call| {
        let enabled = observed(call, device)?.c2c_enabled.ok_or(Code::NOT_SUPPORTED)?;
        put(info, nvml::nvmlC2cModeInfo_v1_t { isC2cEnabled: enabled.into() })
    };

    nvmlDeviceGetCapabilities: (device: Handle, capabilities: Versioned) |call| {
        call.gpu(device)?;
        capabilities.put(1, |version| nvml::nvmlDeviceCapabilities_v1_t { version, capMask: 0 })
    };
}

/// `nvmlDeviceAddressingModeType_t`.
pub(super) const fn addressing(model: &Model) -> c_uint {
    match model.addressing {
        Addressing::None => 0,
        Addressing::Hmm => 1,
        Addressing::Ats => 2,
    }
}

/// The GPU behind a handle of a physical GPU.
pub(crate) fn gpu(call: &Call, device: Handle) -> Result<&Gpu, Code> {
    let index = call.gpu(device)?;
    call.state.gpu(index)
}

/// The model of the GPU behind a handle of either kind.
pub(crate) fn model(call: &Call, device: Handle) -> Result<&'static Model, Code> {
    let index = call.device(device)?.gpu();
    call.state.gpu(index)?.model()
}

/// What is known of a real board of the model of a physical GPU.
pub(crate) fn observed(call: &Call, device: Handle) -> Result<&'static Observed, Code> {
    gpu(call, device)?.model()?.observed.as_ref().ok_or(Code::NOT_SUPPORTED)
}

/// Index of a GPU, or of a MIG device within its GPU. nvidia-smi takes the index of the device in a compute instance's
/// information for that of the GPU (`mig -lci`), so there it is.
fn index_of(call: &Call, device: Handle) -> Result<c_uint, Code> {
    let of_gpu = |gpu: usize| call.visible_gpus().iter().position(|&visible| visible == gpu);
    let position = match (call.device(device)?, device.named()?) {
        (Device::Gpu(gpu), _) => of_gpu(gpu),
        (Device::Mig(target), Named::MigDeviceOf(_)) => of_gpu(target.instance.gpu),
        (Device::Mig(target), _) => {
            call.visible_mig_devices(target.instance.gpu)?.iter().position(|&visible| visible == target)
        }
    };
    position.map(narrow).ok_or(Code::NOT_FOUND)
}

fn pci_info(gpu: &Gpu) -> Result<nvml::nvmlPciInfo_t, Code> {
    let model = gpu.model()?;
    Ok(nvml::nvmlPciInfo_t {
        busIdLegacy: text_field(&gpu.pci.address().to_uppercase()),
        domain: gpu.pci.domain,
        bus: gpu.pci.bus,
        device: gpu.pci.device,
        pciDeviceId: model.pci.device_id.0,
        pciSubSystemId: model.pci.subsystem_id.0,
        busId: text_field(&gpu.pci.nvml_address()),
    })
}
