// SPDX-License-Identifier: Apache-2.0
//! Where devices are to each other and to the processors.

use std::ffi::{c_uint, c_ulong};

use dra_sim::Code;
use dra_sim::catalog::Addressing;
use dra_sim::catalog::observed::ObservedFabric;
use dra_sim::state::{Fabric, Gpu};
use nvml_wrapper_sys::bindings as nvml;

use crate::call::{Call, exports};
use crate::ffi::{ListOut, Out, Versioned, put, size};
use crate::handle::Handle;

use super::identity::gpu;

exports! {
    nvmlDeviceGetTopologyCommonAncestor: (one: Handle, other: Handle, level: Out<'_, c_uint>) |call| {
        put(level, common_level(gpu(call, one)?, gpu(call, other)?))
    };

    nvmlDeviceGetP2PStatus: (one: Handle, other: Handle, _kind: c_uint, status: Out<'_, c_uint>) |call| {
        call.gpu(one)?;
        call.gpu(other)?;
        // NVML_P2P_STATUS_NOT_SUPPORTED
        put(status, 5)
    };

    nvmlDeviceGetCpuAffinity: (device: Handle, length: c_uint, set: ListOut<c_ulong>) |call| {
        call.device(device)?;
        set.fill(words(length, ALL_CPUS)?)
    };

    nvmlDeviceGetCpuAffinityWithinScope: (device: Handle, length: c_uint, set: ListOut<c_ulong>, _scope: c_uint) |call| {
        call.device(device)?;
        set.fill(words(length, ALL_CPUS)?)
    };

    nvmlDeviceGetMemoryAffinity: (device: Handle, length: c_uint, set: ListOut<c_ulong>, _scope: c_uint) |call| {
        set.fill(words(length, memory_nodes(call, device)?)?)
    };

    // The node of the GPU's own memory, where the processor's address translation reaches it.
    nvmlDeviceGetNumaNodeId: (device: Handle, node: Out<'_, c_uint>) |call| {
        let gpu = gpu(call, device)?;
        if gpu.model()?.addressing != Addressing::Ats {
            return Err(Code::NOT_SUPPORTED);
        }
        put(node, PROCESSORS + gpu.minor * NODES_OF_GPU)
    };

    nvmlDeviceGetNvLinkState: (device: Handle, link: c_uint, state: Out<'_, c_uint>) |call| {
        let gpu = gpu(call, device)?;
        let links = gpu.model()?.nvlinks();
        match (links, link) {
            (0, _) => Err(Code::NOT_SUPPORTED),
            (links, link) if link >= links => Err(Code::INVALID_ARGUMENT),
            (links, link) => put(state, (link < links.saturating_sub(gpu.nvlink_faults.down)).into()),
        }
    };

    nvmlDeviceGetGpuFabricInfo: (device: Handle, info: Out<'_, nvml::nvmlGpuFabricInfo_t>) |call| {
        let state = fabric_state(call, device)?;
        let ObservedFabric { cluster, clique, .. } = fabric_of(call, device, state)?;
        put(info, nvml::nvmlGpuFabricInfo_t { clusterUuid: cluster.0, status: 0, cliqueId: clique, state })
    };

    nvmlDeviceGetGpuFabricInfoV: (device: Handle, info: Versioned) |call| {
        let state = fabric_state(call, device)?;
        let ObservedFabric { cluster, clique, health } = fabric_of(call, device, state)?;
        let second = info.put_if(2, |version| nvml::nvmlGpuFabricInfo_v2_t {
            version, clusterUuid: cluster.0, status: 0, cliqueId: clique, state, healthMask: health.mask,
        })?;
        if second {
            return Ok(());
        }
        info.put(3, |version| nvml::nvmlGpuFabricInfo_v3_t {
            version, clusterUuid: cluster.0, status: 0, cliqueId: clique, state, healthMask: health.mask,
            healthSummary: health.summary,
        })
    };
}

/// Each processor's memory has a NUMA node, before those of GPUs.
const PROCESSORS: c_uint = 2;
/// A GPU has a NUMA node for its whole memory, and seven for MIG devices: `nvidia-smi topo -m` of GB200 boards prints 2, 10, 18.
const NODES_OF_GPU: c_uint = 8;

/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
const FABRIC_COMPLETED: u8 = 3;

/// `nvmlGpuFabricState_t`: 0 without a fabric, 2 in progress, 3 completed.
fn fabric_state(call: &Call, device: Handle) -> Result<u8, Code> {
    let gpu = call.gpu(device)?;
    let gpu = call.state.gpu(gpu)?;
    Ok(match (gpu.model()?.has_fabric(), gpu.fabric) {
        (false, _) => 0,
        (true, Fabric::Pending) => 2,
        (true, Fabric::Completed) => FABRIC_COMPLETED,
    })
}

/// What a registered board reports of its fabric.
fn fabric_of(call: &Call, device: Handle, state: u8) -> Result<ObservedFabric, Code> {
    let known = gpu(call, device)?.model()?.observed.as_ref().filter(|_| state == FABRIC_COMPLETED);
    Ok(known.and_then(|observed| observed.fabric).unwrap_or_default())
}

/// The machine's processors are not simulated: every GPU is near the first 64.
const ALL_CPUS: c_ulong = c_ulong::MAX;

/// `nvmlGpuTopologyLevel_t`: same GPU, same PCIe root, same NUMA node, or only the same machine.
fn common_level(one: &Gpu, other: &Gpu) -> c_uint {
    if one.uuid == other.uuid {
        0
    } else if one.pci.root == other.pci.root {
        30
    } else if one.numa_node == other.numa_node {
        40
    } else {
        50
    }
}

fn memory_nodes(call: &Call, device: Handle) -> Result<c_ulong, Code> {
    let gpu = call.device(device)?.gpu();
    let node = u32::try_from(call.state.gpu(gpu)?.numa_node).unwrap_or(0);
    Ok(1_u64.checked_shl(node).unwrap_or(0))
}

fn words(length: c_uint, first: c_ulong) -> Result<Vec<c_ulong>, Code> {
    if length == 0 {
        return Err(Code::INVALID_ARGUMENT);
    }
    let mut words = vec![0; size(length)];
    if let Some(word) = words.first_mut() {
        *word = first;
    }
    Ok(words)
}
