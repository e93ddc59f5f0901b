// SPDX-License-Identifier: Apache-2.0
//! NVIDIA's Python binding reads and changes the node, and the C interface follows the rules of NVML.

use crate::node::Node;

#[test]
fn nvidia_ml_py_reads_every_gpu() {
    let node = Node::new("h100:1,a100-40:1,t4:1");
    let text = node.python(
        r"
from pynvml import *
nvmlInit()
print(nvmlSystemGetDriverVersion(), nvmlSystemGetCudaDriverVersion(), nvmlSystemGetNVMLVersion())
for i in range(nvmlDeviceGetCount()):
    d = nvmlDeviceGetHandleByIndex(i)
    pci = nvmlDeviceGetPciInfo(d)
    print(nvmlDeviceGetName(d), nvmlDeviceGetMemoryInfo(d).total >> 20, nvmlDeviceGetCudaComputeCapability(d),
          nvmlDeviceGetArchitecture(d), nvmlDeviceGetMinorNumber(d), hex(pci.pciDeviceId), pci.busId)
    assert nvmlDeviceGetUUID(nvmlDeviceGetHandleByUUID(nvmlDeviceGetUUID(d))) == nvmlDeviceGetUUID(d)
    assert nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId(pci.busId)) == i
nvmlShutdown()
",
    );
    let expect = "580.95.05 13000 13.580.95.05\n\
                  NVIDIA H100 80GB HBM3 81559 (9, 0) 9 0 0x233010de 00000000:1B:00.0\n\
                  NVIDIA A100-SXM4-40GB 40960 (8, 0) 7 1 0x20b010de 00000000:27:00.0\n\
                  Tesla T4 15360 (7, 5) 6 2 0x1eb810de 00000000:3B:00.0\n";
    assert_eq!(text.ok(), expect);
}

/// The memory of a GPU is a NUMA node of its own where the processor's address translation reaches it, and only there.
#[test]
fn the_memory_of_a_coherent_gpu_is_a_numa_node() {
    let node = Node::new("b200:1,gb200:2");
    let text = node.python(
        r#"
from ctypes import *
lib = CDLL("libnvidia-ml.so.1")
lib.nvmlInit_v2()
for index in range(3):
    device, node = c_void_p(), c_uint()
    lib.nvmlDeviceGetHandleByIndex_v2(index, byref(device))
    print(lib.nvmlDeviceGetNumaNodeId(device, byref(node)), node.value)
"#,
    );
    assert_eq!(text.ok(), "3 0\n0 10\n0 18\n");
}

#[test]
fn nvidia_ml_py_creates_and_destroys_a_mig_device() {
    let node = Node::new("h100:1");
    let text = node.python(
        r#"
from pynvml import *
nvmlInit()
d = nvmlDeviceGetHandleByIndex(0)
assert nvmlDeviceSetMigMode(d, 1) == NVML_SUCCESS
assert nvmlDeviceGetMigMode(d) == [1, 1]
profile = nvmlDeviceGetGpuInstanceProfileInfo(d, NVML_GPU_INSTANCE_PROFILE_2_SLICE)
print(profile.id, profile.sliceCount, profile.memorySizeMB, profile.instanceCount)
gi = nvmlDeviceCreateGpuInstance(d, profile.id)
place = nvmlGpuInstanceGetInfo(gi).placement
print(place.start, place.size)
own = nvmlGpuInstanceGetComputeInstanceProfileInfo(gi, NVML_COMPUTE_INSTANCE_PROFILE_2_SLICE, 0)
ci = nvmlGpuInstanceCreateComputeInstance(gi, own.id)
mig = nvmlDeviceGetMigDeviceHandleByIndex(d, 0)
assert nvmlDeviceGetUUID(nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig)) == nvmlDeviceGetUUID(d)
uuid = nvmlDeviceGetUUID(mig)
assert uuid == nvmlDeviceGetUUID(nvmlComputeInstanceGetInfo(ci).device)
assert nvmlDeviceGetUUID(nvmlDeviceGetHandleByUUID(uuid)) == uuid
a = nvmlDeviceGetAttributes(mig)
print(a.multiprocessorCount, a.gpuInstanceSliceCount, a.computeInstanceSliceCount, a.memorySizeMB)
print(nvmlDeviceGetName(mig), nvmlDeviceGetMemoryInfo(mig).total >> 20)
try: nvmlGpuInstanceDestroy(gi)
except NVMLError as e: print(e)
nvmlComputeInstanceDestroy(ci)
nvmlGpuInstanceDestroy(gi)
for stale in (lambda: nvmlGpuInstanceGetInfo(gi), lambda: nvmlDeviceGetUUID(mig), lambda: nvmlComputeInstanceDestroy(ci)):
    try: stale(); print("alive")
    except NVMLError as e: print(e)
gi2 = nvmlDeviceCreateGpuInstance(d, profile.id)
try: nvmlGpuInstanceGetInfo(gi); print("alive")
except NVMLError as e: print(e)
"#,
    );
    let expect = "14 2 20096 3\n4 2\n32 2 2 20096\nNVIDIA H100 80GB HBM3 MIG 2g.20gb 20096\n\
                  In use by another client\nNot Found\nNot Found\nNot Found\nNot Found\n";
    assert_eq!(text.ok(), expect);
}

#[test]
fn the_c_interface_keeps_the_rules_of_buffers_and_versions() {
    let node = Node::new("h100:1,t4:1");
    let text = node.python(
        r#"
import ctypes, pynvml
from ctypes import *
lib = CDLL("libnvidia-ml.so.1")
lib.nvmlErrorString.restype = c_char_p
def code(name, *args): return getattr(lib, name)(*args)
count, handle, t4 = c_uint(), c_void_p(), c_void_p()
print("before init", code("nvmlDeviceGetCount_v2", byref(count)), code("nvmlUnitGetUnitInfo"))
print("init", code("nvmlInit"), code("nvmlInitWithFlags", 1))
print("shutdown", code("nvmlShutdown"), code("nvmlDeviceGetCount", byref(count)), count.value)
code("nvmlDeviceGetHandleByIndex_v2", 0, byref(handle)); code("nvmlDeviceGetHandleByIndex_v2", 1, byref(t4))
print("no such index", code("nvmlDeviceGetHandleByIndex_v2", 2, byref(c_void_p())))
print("null", code("nvmlDeviceGetCount_v2", None), code("nvmlDeviceGetUUID", handle, None, 96), code("nvmlDeviceGetName", None, None, 0))
buffer = create_string_buffer(96)
print("size", code("nvmlDeviceGetUUID", handle, buffer, 40), code("nvmlDeviceGetUUID", handle, buffer, 41), len(buffer.value))
print("invented handle", code("nvmlDeviceGetIndex", c_void_p(42), byref(count)))
memory = pynvml.c_nvmlMemory_v2_t(); memory.version = 7
print("version", code("nvmlDeviceGetMemoryInfo_v2", handle, byref(memory)))
n = c_uint(3)
print("placements", code("nvmlDeviceGetGpuInstancePossiblePlacements_v2", handle, 19, None, byref(n)), n.value)
n = c_uint(3); few = (c_uint * 6)()
print("too few", code("nvmlDeviceGetGpuInstancePossiblePlacements_v2", handle, 19, few, byref(n)), n.value)
info = (c_uint * 12)()
print("profiles", [code("nvmlDeviceGetGpuInstanceProfileInfo", handle, i, info) for i in range(18)])
print("no mig", code("nvmlDeviceGetMigMode", t4, byref(count), byref(n)), code("nvmlDeviceGetGpuInstanceProfileInfo", t4, 0, info))
print("mig off", code("nvmlDeviceCreateGpuInstance", handle, 19, byref(c_void_p())), code("nvmlDeviceGetMigDeviceHandleByIndex", handle, 0, byref(c_void_p())))
print("not simulated", code("nvmlUnitGetUnitInfo"), code("nvmlDeviceGetFanSpeed", handle, byref(count)))
print(lib.nvmlErrorString(23).decode(), "-", lib.nvmlErrorString(1234).decode(), "-", lib.nvmlErrorString(0).decode())
print("cuInit", CDLL("libcuda.so.1").cuInit(0))
"#,
    );
    let expect = "before init 1 1\ninit 0 0\nshutdown 0 0 2\nno such index 2\nnull 2 2 2\nsize 7 0 40\ninvented handle 2\n\
                  version 25\nplacements 0 7\ntoo few 7 7\n\
                  profiles [0, 0, 0, 0, 0, 3, 3, 0, 3, 0, 3, 3, 3, 3, 3, 3, 3, 2]\nno mig 3 3\nmig off 3 3\n\
                  not simulated 3 3\nInsufficient Resources - Unknown Error - Success\ncuInit 100\n";
    assert_eq!(text.ok(), expect);
}

/// A client written in Go terminates at the first missing symbol.
#[test]
fn every_symbol_that_the_binding_knows_is_there() {
    let node = Node::new("t4:1");
    let text = node.python(
        r#"
import ctypes, re, pynvml
lib = ctypes.CDLL("libnvidia-ml.so.1")
names = set(re.findall(r'_nvmlGetFunctionPointer\("(\w+)"\)', open(pynvml.__file__).read()))
print(len(names) > 250, sorted(name for name in names if not hasattr(lib, name)))
"#,
    );
    assert_eq!(text.ok(), "True []\n");
}
