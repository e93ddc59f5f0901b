// SPDX-License-Identifier: Apache-2.0
//! Keeps the ResourceSlices of a node equal to its inventory
