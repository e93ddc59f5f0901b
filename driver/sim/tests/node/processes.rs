// SPDX-License-Identifier: Apache-2.0
//! Many processes at once on one node.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::node::Node;

/// Twelve writers race for seven placements while others read: seven win, no reader sees half a change, no file is left over.
#[test]
fn writers_and_readers_never_disturb_each_other() {
    let node = Node::new("h100:2");
    node.gpu_sim("mig", &["mode", "on"]).ok();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut rounds = 0;
                    while !done.load(Ordering::SeqCst) || rounds == 0 {
                        assert!(node.smi(&["-L"]).ok().starts_with("GPU 0: NVIDIA H100"));
                        rounds += 1;
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..12)
            .map(|_| scope.spawn(|| node.smi(&["mig", "-i", "0", "-cgi", "19", "-C"]).code == Some(0)))
            .collect();
        let won = writers.into_iter().map(|writer| writer.join().unwrap()).filter(|&won| won).count();
        done.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(won, 7);
    });
    let state = node.state();
    let starts: BTreeSet<u32> = state.gpus[0].instances.values().map(|instance| instance.placement.start).collect();
    assert_eq!(starts, (0..7).collect());
    assert_eq!(node.smi(&["-L"]).ok().matches("MIG 1g.10gb").count(), 7);
    let nodes = std::fs::read_dir(node.path("dev/nvidia-caps")).unwrap().count();
    assert_eq!(nodes, 2 + 7 * 2, "a GPU and a compute capability for each, config and monitor");
    let files: Vec<String> = std::fs::read_dir(node.path("var/lib/gpu-sim"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files.iter().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(["lock", "state.json"]));
}

/// A process that waits for events sees what another one does.
#[test]
fn events_cross_processes() {
    let node = Node::new("h100:2");
    let script = format!(
        r#"
import subprocess
from pynvml import *
nvmlInit()
s = nvmlEventSetCreate()
for i in range(2):
    d = nvmlDeviceGetHandleByIndex(i)
    nvmlDeviceRegisterEvents(d, nvmlDeviceGetSupportedEventTypes(d), s)
def wait(ms):
    try:
        e = nvmlEventSetWait_v2(s, ms)
        print(nvmlDeviceGetIndex(e.device), hex(e.eventType), e.eventData, hex(e.gpuInstanceId))
    except NVMLError as error: print(error)
def sim(*args): subprocess.check_output(["{program}", args[0], "{dir}", *args[1:]])
wait(0)
sim("xid", "-g", "1", "48")
sim("xid", "-g", "1", "94", "--gi", "3")
wait(10000)
wait(0)
sim("mig", "-i", "0", "mode", "on")
wait(10000)
sim("lose", "-g", "0")
wait(10000)
wait(10000)
"#,
        program = env!("CARGO_BIN_EXE_gpu-sim"),
        dir = node.dir().display(),
    );
    // NVML does not report the index of a lost GPU, so its XID 79 is read as the first "GPU is lost".
    let expect = "Timeout\n1 0x8 48 0xffffffff\n1 0x8 94 0x3\n0 0x100 0 0xffffffff\nGPU is lost\nGPU is lost\n";
    assert_eq!(node.python(&script).ok(), expect);
}
