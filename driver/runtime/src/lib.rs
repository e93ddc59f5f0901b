// SPDX-License-Identifier: Apache-2.0
//! What every process of the driver needs around its work
