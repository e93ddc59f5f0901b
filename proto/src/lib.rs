// SPDX-License-Identifier: Apache-2.0
//! The gRPC wire of the kubelet and of this driver
