// SPDX-License-Identifier: Apache-2.0
//! The features of the driver as scenes on a real cluster.
