// SPDX-License-Identifier: Apache-2.0
//! Converts values of the port into messages and back, without loss, for both ends of the socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonSpec, DaemonState, MultiUser};
use dra_model::{Bytes, DaemonId, GpuUuid, MigUuid, ThreadPercentage};
use dra_proto::mps_v1::failure::Reason;
use dra_proto::mps_v1::spec::MultiUser as WireMultiUser;
use dra_proto::mps_v1::{self as pb, Failure};
use prost::Message as _;
use tonic::{Code, Status};

use crate::ids::is_ours;
use crate::observed::{ObservedDaemon, ObservedDaemons};

/// One message of the watch stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonChange {
    Updated(ObservedDaemon),
    Removed(DaemonId),
}

/// The daemon id in a message.
pub fn id_of(text: &str) -> Result<DaemonId, Status> {
    let id: DaemonId = text.parse().map_err(invalid::<dra_model::IdError>)?;
    let expected = "expected gpu- and the digits of a UUID, or claim-, a UID and a number";
    if is_ours(&id) { Ok(id) } else { Err(Status::invalid_argument(format!("daemon id {id}: {expected}"))) }
}

/// The spec in a message.
pub fn spec_of(spec: pb::Spec) -> Result<DaemonSpec, Status> {
    let multi_user = WireMultiUser::try_from(spec.multi_user).map_err(invalid)?;
    let multi_user = match multi_user {
        WireMultiUser::Off => MultiUser::Off,
        WireMultiUser::On => MultiUser::On,
        WireMultiUser::IfKnown => MultiUser::IfKnown,
    };
    let threads = spec.active_thread_percentage.map(|number| ThreadPercentage::try_from(u64::from(number)));
    let threads = threads.transpose().map_err(invalid)?;
    let devices = spec.devices;
    let invalid_device = devices.iter().find(|device| !is_device(device));
    if let Some(device) = invalid_device {
        return Err(Status::invalid_argument(format!("`{device}` is not the UUID of a GPU or MIG device")));
    }
    if devices.is_empty() {
        return Err(Status::invalid_argument("a daemon needs a device"));
    }
    let invalid_index =
        spec.pinned_memory_bytes.keys().find(|index| usize::try_from(**index).is_ok_and(|at| at >= devices.len()));
    if let Some(index) = invalid_index {
        return Err(Status::invalid_argument(format!(
            "memory limit for device {index}, but the daemon has {} devices",
            devices.len()
        )));
    }
    let memory = spec.pinned_memory_bytes.into_iter().map(|(index, bytes)| (index, Bytes(bytes))).collect();
    Ok(DaemonSpec { id: id_of(&spec.id)?, devices, multi_user, threads, memory })
}

fn is_device(text: &str) -> bool {
    text.parse::<GpuUuid>().is_ok() || text.parse::<MigUuid>().is_ok()
}

fn invalid<E: std::error::Error + 'static>(error: E) -> Status {
    Status::invalid_argument(dra_model::chain(&error).to_string())
}

/// A spec as a message.
pub fn spec(spec: &DaemonSpec) -> pb::Spec {
    let multi_user = match spec.multi_user {
        MultiUser::Off => WireMultiUser::Off,
        MultiUser::On => WireMultiUser::On,
        MultiUser::IfKnown => WireMultiUser::IfKnown,
    };
    pb::Spec {
        id: spec.id.to_string(),
        devices: spec.devices.clone(),
        multi_user: multi_user.into(),
        active_thread_percentage: spec.threads.map(|percentage| percentage.get().into()),
        pinned_memory_bytes: spec.memory.iter().map(|(index, bytes)| (*index, bytes.0)).collect(),
    }
}

/// A daemon as a message.
pub fn daemon(wanted: &DaemonSpec, daemon: &Daemon) -> pb::Daemon {
    let (mut message, mut users) = (String::new(), (0, 0));
    let state = match &daemon.state {
        DaemonState::Changing => pb::State::Changing,
        DaemonState::Ready => pb::State::Ready,
        DaemonState::UserWaiting { waiting, active } => {
            users = (*waiting, *active);
            pb::State::UserWaiting
        }
        DaemonState::Exited { why } => {
            message.clone_from(why);
            pb::State::Exited
        }
        DaemonState::Lost => pb::State::Lost,
        DaemonState::GpuFailed { why } => {
            message.clone_from(why);
            pb::State::GpuFailed
        }
    };
    pb::Daemon {
        spec: Some(spec(wanted)),
        state: state.into(),
        message,
        run_dir: daemon.run_dir.display().to_string(),
        shm_dir: daemon.shm_dir.display().to_string(),
        multi_user: daemon.multi_user,
        restarts: 0,
        waiting_user: users.0,
        active_user: users.1,
    }
}

/// An observed daemon as a message.
pub fn observed_message(observed: &ObservedDaemon) -> pb::Daemon {
    let mut message = daemon(&observed.spec, &observed.daemon);
    message.restarts = observed.restarts;
    if message.message.is_empty() {
        message.message.clone_from(&observed.message);
    }
    message
}

/// The messages of the daemons that changed between two states.
pub fn changes(before: &ObservedDaemons, now: &ObservedDaemons) -> Vec<pb::Daemon> {
    let removed = before.values().filter(|daemon| !now.contains_key(&daemon.spec.id));
    let removed = removed.map(|daemon| pb::Daemon { state: pb::State::Removed.into(), ..observed_message(daemon) });
    let changed = now.values().filter(|daemon| before.get(&daemon.spec.id) != Some(daemon)).map(observed_message);
    removed.chain(changed).collect()
}

/// The change in a message of the stream or of a list.
pub fn change_from(message: pb::Daemon) -> Result<DaemonChange, Status> {
    let state = message.state();
    let spec = spec_of(message.spec.unwrap_or_default())?;
    let mut text = message.message;
    let state = match state {
        pb::State::Changing => DaemonState::Changing,
        pb::State::Ready => DaemonState::Ready,
        pb::State::UserWaiting => {
            DaemonState::UserWaiting { waiting: message.waiting_user, active: message.active_user }
        }
        pb::State::Exited => DaemonState::Exited { why: std::mem::take(&mut text) },
        pb::State::Lost => DaemonState::Lost,
        pb::State::GpuFailed => DaemonState::GpuFailed { why: std::mem::take(&mut text) },
        pb::State::Removed => return Ok(DaemonChange::Removed(spec.id)),
    };
    let (run_dir, shm_dir) = (PathBuf::from(message.run_dir), PathBuf::from(message.shm_dir));
    let daemon = Daemon { id: spec.id.clone(), state, run_dir, shm_dir, multi_user: message.multi_user };
    Ok(DaemonChange::Updated(ObservedDaemon { spec, daemon, message: text, restarts: message.restarts }))
}

/// An error as a status: its text as message, and the error itself in the details.
pub fn status_from(error: &DaemonError) -> Status {
    let path = |path: &Path| path.display().to_string();
    let named = |reason: Reason, id: &DaemonId| Failure { id: id.to_string(), ..blank(reason) };
    let (code, failure) = match error {
        DaemonError::Unreachable { why, .. } | DaemonError::Silent { why, .. } => {
            (Code::Unavailable, Failure { why: why.clone(), ..Failure::default() })
        }
        DaemonError::OutOfTime { .. } => (Code::Unavailable, Failure::default()),
        DaemonError::NoProgram { program, root } => {
            let (name, path) = (program.clone(), path(root));
            (Code::FailedPrecondition, Failure { name, path, ..blank(Reason::NoProgram) })
        }
        DaemonError::NoMultiUser { id } => (Code::Unimplemented, named(Reason::NoMultiUser, id)),
        DaemonError::LimitNotApplied { id, what, wanted, found } => {
            let (name, wanted, found) = (what.clone(), wanted.clone(), found.clone());
            (Code::FailedPrecondition, Failure { name, wanted, found, ..named(Reason::LimitNotApplied, id) })
        }
        DaemonError::Different { id } => (Code::AlreadyExists, named(Reason::Different, id)),
        DaemonError::NotReady { id, waited, seen } => {
            let number = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            (Code::DeadlineExceeded, Failure { number, why: seen.clone(), ..named(Reason::NotReady, id) })
        }
        DaemonError::ClientsLeft { id, clients } => {
            let number = u64::try_from(*clients).unwrap_or(u64::MAX);
            (Code::FailedPrecondition, Failure { number, ..named(Reason::ClientsLeft, id) })
        }
        DaemonError::GpuFailed { id, why } => {
            (Code::FailedPrecondition, Failure { why: why.clone(), ..named(Reason::GpuFailed, id) })
        }
        DaemonError::InUse { id, clients } => {
            let number = u64::try_from(*clients).unwrap_or(u64::MAX);
            (Code::FailedPrecondition, Failure { number, ..named(Reason::InUse, id) })
        }
        DaemonError::NotStopped { id, left } => {
            (Code::Internal, Failure { why: left.clone(), ..named(Reason::NotStopped, id) })
        }
        DaemonError::UnusableDir { id, path: index, why } => {
            let (path, why) = (path(index), why.clone());
            (Code::ResourceExhausted, Failure { path, why, ..named(Reason::UnusableDir, id) })
        }
    };
    Status::with_details(code, error.to_string(), failure.encode_to_vec().into())
}

fn blank(reason: Reason) -> Failure {
    Failure { reason: reason.into(), ..Failure::default() }
}

/// The error of a status. A status from elsewhere than the MPS host is `Unreachable` or `Silent`.
pub fn error_of(status: &Status, socket: &Path) -> DaemonError {
    known_error(status.details()).unwrap_or_else(|| {
        let (socket, why) = (socket.to_owned(), text_of(status));
        if is_unreachable(status) {
            DaemonError::Unreachable { socket, why }
        } else {
            DaemonError::Silent { socket, why }
        }
    })
}

/// Whether no process listens on the socket. Any other failure may be an MPS host that hangs or stops.
fn is_unreachable(status: &Status) -> bool {
    let causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    let mut errors = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors.any(|error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
}

fn known_error(details: &[u8]) -> Option<DaemonError> {
    let failure = Failure::decode(details).ok()?;
    let (reason, path) = (failure.reason(), PathBuf::from(failure.path));
    let id = || failure.id.parse().ok();
    Some(match reason {
        Reason::Unknown => return None,
        Reason::NoProgram => DaemonError::NoProgram { program: failure.name, root: path },
        Reason::NoMultiUser => DaemonError::NoMultiUser { id: id()? },
        Reason::LimitNotApplied => {
            let (what, wanted, found) = (failure.name, failure.wanted, failure.found);
            DaemonError::LimitNotApplied { id: failure.id.parse().ok()?, what, wanted, found }
        }
        Reason::Different => DaemonError::Different { id: id()? },
        Reason::NotReady => {
            let waited = Duration::from_millis(failure.number);
            DaemonError::NotReady { id: id()?, waited, seen: failure.why }
        }
        Reason::ClientsLeft => {
            DaemonError::ClientsLeft { id: id()?, clients: usize::try_from(failure.number).unwrap_or(usize::MAX) }
        }
        Reason::GpuFailed => DaemonError::GpuFailed { id: id()?, why: failure.why },
        Reason::InUse => {
            DaemonError::InUse { id: id()?, clients: usize::try_from(failure.number).unwrap_or(usize::MAX) }
        }
        Reason::NotStopped => DaemonError::NotStopped { id: id()?, left: failure.why },
        Reason::UnusableDir => DaemonError::UnusableDir { id: id()?, path, why: failure.why },
    })
}

/// The text of a status: its cause, its message, or its code.
fn text_of(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(cause) => dra_model::chain(cause).to_string(),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: &str = "GPU-00112233-4455-6677-8899-aabbccddeeff";
    const MIG: &str = "MIG-00112233-4455-6677-8899-aabbccddee00";

    fn id() -> DaemonId {
        "gpu-00112233445566778899aabbccddeeff".parse().unwrap()
    }

    fn an_observed(state: DaemonState) -> ObservedDaemon {
        let spec = DaemonSpec {
            id: id(),
            devices: [GPU, MIG].map(str::to_owned).to_vec(),
            multi_user: MultiUser::IfKnown,
            threads: ThreadPercentage::try_from(7).ok(),
            memory: [(0, Bytes(1 << 30)), (1, Bytes(1 << 20))].into(),
        };
        let (run_dir, shm_dir) = ("/run/d/run".into(), "/run/d/shm".into());
        let daemon = Daemon { id: id(), state, run_dir, shm_dir, multi_user: true };
        ObservedDaemon { spec, daemon, message: String::new(), restarts: 3 }
    }

    #[test]
    fn daemons_arrive_as_they_were_sent() {
        for state in [
            DaemonState::Changing,
            DaemonState::Ready,
            DaemonState::UserWaiting { waiting: 1000, active: 0 },
            DaemonState::Exited { why: "by itself".to_owned() },
            DaemonState::Lost,
            DaemonState::GpuFailed { why: "off the bus".to_owned() },
        ] {
            let sent = an_observed(state);
            assert_eq!(change_from(observed_message(&sent)).unwrap(), DaemonChange::Updated(sent));
        }
    }

    #[test]
    fn a_reader_gets_changed_and_removed_daemons() {
        let states = |observed: &ObservedDaemon| ObservedDaemons::from([(id(), observed.clone())]);
        let (ready, lost) = (an_observed(DaemonState::Ready), an_observed(DaemonState::Lost));
        for (before, now, expect) in [
            (ObservedDaemons::new(), states(&ready), vec![DaemonChange::Updated(ready.clone())]),
            (states(&ready), states(&ready), vec![]),
            (states(&ready), states(&lost), vec![DaemonChange::Updated(lost.clone())]),
            (states(&lost), ObservedDaemons::new(), vec![DaemonChange::Removed(id())]),
        ] {
            let received: Vec<DaemonChange> =
                changes(&before, &now).into_iter().map(|message| change_from(message).unwrap()).collect();
            assert_eq!(received, expect);
        }
    }

    #[test]
    fn invalid_specs_are_refused() {
        let good = || spec(&an_observed(DaemonState::Ready).spec);
        spec_of(good()).unwrap();
        for (bad, expect) in [
            (pb::Spec { id: "backups".to_owned(), ..good() }, "daemon id backups: expected gpu-"),
            (pb::Spec { id: "../x".to_owned(), ..good() }, "`../x` is not a valid daemon id"),
            (pb::Spec { multi_user: 3, ..good() }, "unknown enumeration value 3"),
            (pb::Spec { devices: vec![format!("{GPU},{MIG}")], ..good() }, "is not the UUID of a GPU or MIG device"),
            (pb::Spec { devices: vec![], ..good() }, "a daemon needs a device"),
            (
                pb::Spec { pinned_memory_bytes: [(2, 1 << 30)].into(), ..good() },
                "memory limit for device 2, but the daemon has 2 devices",
            ),
            (pb::Spec { active_thread_percentage: Some(101), ..good() }, "101"),
        ] {
            let refused = spec_of(bad).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains(expect), "{refused}");
        }
    }

    #[test]
    fn errors_arrive_as_they_were_sent() {
        let text = str::to_owned;
        for error in [
            DaemonError::NoProgram { program: text("p"), root: "/r".into() },
            DaemonError::NoMultiUser { id: id() },
            DaemonError::LimitNotApplied { id: id(), what: text("w"), wanted: text("1"), found: text("2") },
            DaemonError::Different { id: id() },
            DaemonError::NotReady { id: id(), waited: Duration::from_millis(1500), seen: text("s") },
            DaemonError::ClientsLeft { id: id(), clients: 3 },
            DaemonError::GpuFailed { id: id(), why: text("off the bus") },
            DaemonError::InUse { id: id(), clients: 2 },
            DaemonError::NotStopped { id: id(), left: text("l") },
            DaemonError::UnusableDir { id: id(), path: "/p".into(), why: text("full") },
        ] {
            assert_eq!(error_of(&status_from(&error), Path::new("/s")), error);
        }
    }

    #[test]
    fn a_status_from_elsewhere_is_no_answer() {
        let why = |status: &Status| {
            let DaemonError::Silent { why, .. } = error_of(status, Path::new("/s")) else { panic!("{status}") };
            why
        };
        assert_eq!(why(&Status::unavailable("no socket")), "no socket");
        assert_eq!(why(&Status::with_details(Code::Internal, "odd", vec![8, 99].into())), "odd");
        assert_eq!(spec_of(pb::Spec::default()).unwrap_err().code(), Code::InvalidArgument);
    }
}
