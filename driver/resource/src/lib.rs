// SPDX-License-Identifier: Apache-2.0
//! Translation between the model and resource.k8s.io
