// SPDX-License-Identifier: Apache-2.0
//! Names of the files of claim records.

use dra_files::TEMP_SUFFIX;
use dra_model::ClaimUid;

const SUFFIX: &str = ".json";

pub(crate) fn record_name(uid: &ClaimUid) -> String {
    format!("{uid}{SUFFIX}")
}

pub(crate) fn uid_of_record(name: &str) -> Option<ClaimUid> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}

pub(crate) fn temp_name(uid: &ClaimUid) -> String {
    format!(".{uid}{SUFFIX}.{uid}{TEMP_SUFFIX}")
}

pub(crate) fn uid_of_temp(name: &str) -> Option<ClaimUid> {
    let uid = name.strip_suffix(TEMP_SUFFIX)?.rsplit_once('.')?.1.parse().ok()?;
    (temp_name(&uid) == name).then_some(uid)
}
