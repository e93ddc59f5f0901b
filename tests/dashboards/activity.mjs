// SPDX-License-Identifier: Apache-2.0
// Uses a cluster of `make up MONITORING=1`, so that every panel has something to draw:
//
//   node activity.mjs PROMETHEUS MINUTES PROGRAMS WORKLOADS
//
// Pods of demo/workloads take GPUs, MIG devices and shares. Their load rises and falls, some come and go, memory has errors, and a
// GPU falls off the bus. The pods stay.

import { join } from 'node:path';
import { gpuSim, gpus, kubectl, processOf, used } from './cluster.mjs';

const [prometheus, minutes, programs, workloads] = process.argv.slice(2);
const NODES = ['node-1', 'node-2'];
const STEP_SECONDS = 10;
const STAYING = ['mig-on-demand', 'mps-shares', 'time-slicing-shares', 'gpu-fails', 'shared-claim', 'cannot-be-satisfied'];
const COMING = 'one-gpu';
/** GPUs of node-1 with errors, by index: the scheduler gives out the lowest first, after the one that is divided. */
const [FAILING, DAMAGED, NOISY] = [1, 2, 3];

function file(workload) {
  return join(workloads, `${workload}.yaml`);
}

/** Between 0 and 1, another curve for each number. */
function wave(seconds, number) {
  const slow = Math.sin(seconds / (90 + 11 * number) + number);
  return 0.5 + 0.35 * slow + 0.1 * Math.sin(seconds / 17 + 3 * number);
}

/** 0x4 is the power limit, 0x40 heat: what a full load may meet. */
function loadGpus(node, uuids, inUse, seconds) {
  for (const [index, uuid] of uuids.entries()) {
    const part = inUse.has(uuid) ? wave(seconds, index) : 0;
    const throttle = part > 0.8 ? (index % 2 === 0 ? '0x4' : '0x40') : '0';
    gpuSim(programs, node, 'load', '--gpu', index, '--utilization', Math.round(100 * part), '--throttle', throttle);
  }
}

/** MiB that the process of a pod uses at most: two fit on a shared GPU, and no share or MIG device has less. */
const MEMORY_MIB = { gpu: 38_000, mig: 8_000, mps: 3_500, 'time-slicing': 3_500 };

/** The process of each pod: node, index of the GPU, its number there, and which of the curves it follows. */
const processes = new Map();
let curves = 0;

/** The process of a pod, once it runs. */
function started({ node, pod_uid, gpu_uuid }, uuids) {
  const pid = processOf(programs, node, pod_uid);
  return pid === '' ? undefined : { node, index: uuids.indexOf(gpu_uuid), pid, curve: curves++ };
}

/** The memory of a pod's process, in a MIG device or a whole GPU. */
function useMemory(device, uuids, seconds) {
  const process = processes.get(device.pod_uid) ?? started(device, uuids);
  if (process === undefined) {
    return;
  }
  processes.set(device.pod_uid, process);
  const { node, index, pid, curve } = process;
  const instance = device.gpu_instance ? ['--gi', device.gpu_instance] : [];
  const memory = Math.round(MEMORY_MIB[device.form] * wave(seconds, curve % 12));
  gpuSim(programs, node, 'process', '--gpu', index, ...instance, '--memory-mib', memory, pid);
}

function endProcesses(devices) {
  for (const [podUid, { node, index, pid }] of processes) {
    if (!devices.some(({ pod_uid }) => pod_uid === podUid)) {
      gpuSim(programs, node, 'process', '--gpu', index, '--end', pid);
      processes.delete(podUid);
    }
  }
}

function damage(seconds) {
  const errors = Math.round(seconds / 30);
  const rows = seconds > 120 ? ['--rows-corrected', '1', '--remap-pending'] : [];
  gpuSim(programs, 'node-1', 'memory-errors', '--gpu', DAMAGED, '--corrected', errors, ...rows);
  gpuSim(programs, 'node-1', 'nvlink', '--gpu', NOISY, '--crc-errors', 3 * errors, '--replays', errors);
}

/** What happens once, by the second in which it does. */
function events(end) {
  const toggle = (at, verb) => [at, () => kubectl(verb, '-f', file(COMING), ...(verb === 'delete' ? ['--wait=false'] : []))];
  const xid = (at, gpu, number) => [at, () => gpuSim(programs, 'node-1', 'xid', '--gpu', gpu, number)];
  const coming = Array.from({ length: Math.ceil(end / 60) }, (_, at) => toggle(60 * at + 20, at % 2 === 0 ? 'apply' : 'delete'));
  return [
    ...coming,
    xid(0.3 * end, NOISY, 31),
    xid(0.45 * end, DAMAGED, 13),
    // Its MIG device is destroyed after it, and created again.
    [0.5 * end, () => kubectl('delete', 'pod', 'mig-1g', '--wait=false')],
    [0.75 * end, () => kubectl('apply', '-f', file('mig-on-demand'))],
    [0.6 * end, () => gpuSim(programs, 'node-1', 'lose', '--gpu', FAILING)],
  ];
}

for (const workload of STAYING) {
  kubectl('apply', '-f', file(workload));
}
// Most GPUs of node-1 work.
kubectl('scale', 'deployment/gpu-fails', '--replicas', '4');
const [began, end] = [Date.now(), 60 * Number(minutes)];
const uuids = Object.fromEntries(NODES.map((node) => [node, gpus(programs, node)]));
let ahead = events(end);
for (let seconds = 0; seconds < end; seconds = (Date.now() - began) / 1000) {
  for (const [, happen] of ahead.filter(([at]) => at <= seconds)) {
    happen();
  }
  ahead = ahead.filter(([at]) => at > seconds);
  const devices = await used(prometheus);
  const inUse = new Set(devices.map(({ gpu_uuid }) => gpu_uuid));
  NODES.forEach((node) => loadGpus(node, uuids[node], inUse, seconds));
  endProcesses(devices);
  devices.forEach((device) => useMemory(device, uuids[device.node], seconds));
  damage(seconds);
  await new Promise((resolve) => setTimeout(resolve, STEP_SECONDS * 1000));
}
