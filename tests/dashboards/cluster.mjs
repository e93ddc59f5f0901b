// SPDX-License-Identifier: Apache-2.0
// The cluster of `make up MONITORING=1`, by the KUBECONFIG and PATH that `gpu-cluster env` prints.

import { execFileSync } from 'node:child_process';
import { dirname, join } from 'node:path';

function run(program, ...args) {
  return execFileSync(program, args, { encoding: 'utf8' });
}

export function kubectl(...args) {
  return run('kubectl', ...args);
}

/** The simulated GPUs of a node, changed from outside as hardware would. */
export function gpuSim(programs, node, command, ...args) {
  const tree = join(dirname(process.env.KUBECONFIG), 'nodes', node, 'gpu');
  return run(join(programs, 'gpu-sim'), command, tree, ...args.map(String));
}

/** The UUIDs of the GPUs of a node, in the order of their indices. */
export function gpus(programs, node) {
  return [...gpuSim(programs, node, 'status').matchAll(/^\d+ .*(GPU-[0-9a-f-]{36})/gm)].map(([, uuid]) => uuid);
}

/** A process of a pod as its node counts it. */
export function processOf(programs, node, podUid) {
  const find = `grep -ls pods/${podUid}/etc-hosts /proc/[0-9]*/mountinfo | tail -1 | cut -d/ -f3`;
  return run(join(programs, 'gpu-cluster'), 'exec', node, 'sh', '-c', find).trim();
}

const USED = `gpu_dra_claim_device_info * on (claim_uid)
  group_right (device, gpu_uuid, gpu_instance, form, share_id) gpu_dra_claim_pod_info`;

/** Devices with the pods that use them: the labels of both series. */
export async function used(prometheus) {
  const answer = await fetch(`${prometheus}/api/v1/query?${new URLSearchParams({ query: USED })}`);
  const { data, error } = await answer.json();
  if (error !== undefined) {
    throw new Error(error);
  }
  return data.result.map(({ metric }) => metric);
}
