// SPDX-License-Identifier: Apache-2.0
//! What this node has promised, on disk
