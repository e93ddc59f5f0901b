// SPDX-License-Identifier: Apache-2.0
//! A simulated node as its users meet it: NVIDIA's own nvidia-smi, NVIDIA's Python binding and several processes at once
//! read and change one tree.
//!
//! The programs come from the cache that `tests/cluster/setup.sh` fills; without them these tests fail with that reason. They
//! need root, as an administrator does.

#[cfg(test)]
mod captures;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod mps;
#[cfg(test)]
mod nvidia_smi;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod python;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod tree;

#[cfg(test)]
mod node;
