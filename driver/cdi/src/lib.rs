// SPDX-License-Identifier: Apache-2.0
//! Container Device Interface specs of prepared claims
