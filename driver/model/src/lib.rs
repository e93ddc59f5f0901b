// SPDX-License-Identifier: Apache-2.0
//! The words of the domain: GPUs, MIG devices, claims and names
