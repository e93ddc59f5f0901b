// SPDX-License-Identifier: Apache-2.0
//! The gRPC services a kubelet calls on a node with GPUs
