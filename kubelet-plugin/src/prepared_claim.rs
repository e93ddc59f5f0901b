// SPDX-License-Identifier: Apache-2.0
//! A claim whose devices containers can use.

use dra_model::ClaimRef;
use dra_prepare::PreparedDevice;

#[derive(Debug)]
pub struct PreparedClaim {
    pub claim: ClaimRef,
    pub devices: Vec<PreparedDevice>,
}
