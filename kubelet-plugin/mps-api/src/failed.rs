// SPDX-License-Identifier: Apache-2.0
//! The daemons that must not run because their GPU failed, as a message and back, within bounds.

use std::collections::BTreeMap;

use dra_model::DaemonId;
use dra_proto::mps_v1::SetFailedRequest;
use tonic::Status;

use crate::wire::id_of;

/// More than a node has GPUs, MIG devices and claims with a daemon.
const MAX_DAEMONS: usize = 1024;

/// A reason is a part of the message of a condition, which has at most 32 KiB, and of an Event, which has at most 1 KiB.
const MAX_REASON_BYTES: usize = 512;

/// The reason for each daemon that must not run: GPU and fault, as a text for the administrator.
pub type FailedDaemons = BTreeMap<DaemonId, String>;

/// The daemons in a message.
pub fn failed_of(request: SetFailedRequest) -> Result<FailedDaemons, Status> {
    let SetFailedRequest { reasons } = request;
    if reasons.len() > MAX_DAEMONS {
        let count = reasons.len();
        return Err(Status::invalid_argument(format!("{count} daemons of failed GPUs, more than {MAX_DAEMONS}")));
    }
    let one = |(id, reason): (String, String)| {
        let id = id_of(&id)?;
        if reason.len() > MAX_REASON_BYTES {
            let bytes = reason.len();
            let refusal = format!("the reason for daemon {id} has {bytes} bytes, more than {MAX_REASON_BYTES}");
            return Err(Status::invalid_argument(refusal));
        }
        Ok((id, reason))
    };
    reasons.into_iter().map(one).collect()
}

/// The daemons as a message.
pub fn failed_message(failed: &FailedDaemons) -> SetFailedRequest {
    SetFailedRequest { reasons: failed.iter().map(|(id, reason)| (id.to_string(), reason.clone())).collect() }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn id(number: usize) -> DaemonId {
        format!("gpu-{number:032x}").parse().unwrap()
    }

    #[test]
    fn failed_daemons_arrive_as_they_were_sent() {
        let reason = || "r".repeat(MAX_REASON_BYTES);
        for count in [0, 1, MAX_DAEMONS] {
            let failed: FailedDaemons = (0..count).map(|number| (id(number), reason())).collect();
            assert_eq!(failed_of(failed_message(&failed)).unwrap(), failed);
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let many = (0..=MAX_DAEMONS).map(|number| (id(number).to_string(), String::new())).collect();
        let one = |id: &str, reason: &str| [(id.to_owned(), reason.to_owned())].into();
        for (reasons, expect) in [
            (many, "1025 daemons of failed GPUs, more than 1024"),
            (one("backups", ""), "daemon id backups: expected gpu-"),
            (one(id(7).as_str(), &"r".repeat(MAX_REASON_BYTES + 1)), "has 513 bytes, more than 512"),
        ] {
            let refused = failed_of(SetFailedRequest { reasons }).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains(expect), "{refused}");
        }
    }
}
