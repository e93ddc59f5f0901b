// SPDX-License-Identifier: Apache-2.0
//! Safe access to the NVIDIA management library
