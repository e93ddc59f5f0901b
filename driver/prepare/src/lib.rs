// SPDX-License-Identifier: Apache-2.0
//! From a claim to a usable device and back
