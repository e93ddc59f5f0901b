// SPDX-License-Identifier: Apache-2.0
//! The client of the MPS host: implements the port [`Daemons`] over its socket.
//!
//! The port blocks, so it is called from blocking threads. The channel connects at the first call and again after a failure.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonSpec, Daemons, Deadline};
use dra_model::{Advice, ClaimUid, DaemonId};
use dra_proto::mps_v1 as pb;
use dra_proto::mps_v1::mps_client::MpsClient as Client;
use futures::{Stream, StreamExt as _};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::failed::{FailedDaemons, failed_message};
use crate::observed::ObservedDaemon;
use crate::wire::{DaemonChange, change_from, error_of, spec};

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a call beyond the timeout in it: the MPS host removes leftovers before a start and after a failed one, each of
/// which takes at most 4 s.
const MARGIN: Duration = Duration::from_secs(10);

/// Time to record the end of a claim, for which the MPS host scans a directory and the open files of processes.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Time to replace the daemons that must not run, which end after the answer.
const SET_FAILED_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket path that is no valid address.
#[derive(Debug, thiserror::Error)]
#[error("invalid MPS host socket {}", path.display())]
pub struct SocketPathError {
    path: PathBuf,
    #[source]
    source: tonic::transport::Error,
}

impl Advice for SocketPathError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        Some("check --run-dir".into())
    }
}

/// The client of the MPS host of this node, which need not run.
#[derive(Debug, Clone)]
pub struct MpsClient {
    socket_path: PathBuf,
    channel: Channel,
    runtime: Handle,
}

impl MpsClient {
    /// Does not connect yet. Must be called in a runtime, which serves the connection.
    pub fn new(socket_path: PathBuf) -> Result<Self, SocketPathError> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket_path.display()));
        let channel = match endpoint {
            Ok(endpoint) => endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy(),
            Err(source) => return Err(SocketPathError { path: socket_path, source }),
        };
        Ok(Self { socket_path, channel, runtime: Handle::current() })
    }

    /// Streams every daemon and then each change, until the connection ends.
    pub async fn watch(&self) -> Result<impl Stream<Item = Result<DaemonChange, DaemonError>> + use<>, DaemonError> {
        let mut client = Client::new(self.channel.clone());
        let changes = self.within(MARGIN, &Deadline::none(), client.watch(pb::WatchRequest {})).await?;
        let socket_path = self.socket_path.clone();
        Ok(changes.map(move |change| change.and_then(change_from).map_err(|status| error_of(&status, &socket_path))))
    }

    /// As [`Daemons::list`], with messages and restarts.
    pub async fn observed(&self) -> Result<Vec<ObservedDaemon>, DaemonError> {
        self.observed_until(&Deadline::none()).await
    }

    /// Replaces the daemons that must not run because their GPU failed; all others run again. An MPS host of an earlier version
    /// has no such call and ends none.
    pub async fn set_failed(&self, failed: &FailedDaemons) -> Result<(), DaemonError> {
        let mut client = Client::new(self.channel.clone());
        let set = async {
            match client.set_failed(failed_message(failed)).await {
                Err(status) if status.code() == Code::Unimplemented => Ok(Response::new(pb::SetFailedResponse {})),
                answer => answer,
            }
        };
        self.within(SET_FAILED_TIMEOUT, &Deadline::none(), set).await.map(|pb::SetFailedResponse {}| ())
    }

    async fn observed_until(&self, deadline: &Deadline) -> Result<Vec<ObservedDaemon>, DaemonError> {
        let mut client = Client::new(self.channel.clone());
        let list = client.list(pb::ListRequest {});
        let pb::ListResponse { daemons } = self.within(MARGIN, deadline, list).await?;
        let changes = daemons.into_iter().map(change_from).collect::<Result<Vec<_>, Status>>();
        let changes = changes.map_err(|status| error_of(&status, &self.socket_path))?;
        let now = |change| match change {
            DaemonChange::Updated(observed) => Some(observed),
            DaemonChange::Removed(_) => None,
        };
        Ok(changes.into_iter().filter_map(now).collect())
    }

    async fn started(
        &self,
        wanted: &DaemonSpec,
        sharer: Option<&ClaimUid>,
        wait: Duration,
        deadline: &Deadline,
    ) -> Result<Daemon, DaemonError> {
        let mut client = Client::new(self.channel.clone());
        let claim = sharer.map(ToString::to_string).unwrap_or_default();
        let request = pb::StartRequest { spec: Some(spec(wanted)), timeout_ms: millis(deadline.limit(wait)), claim };
        let message = self.within(wait + MARGIN, deadline, client.start(request)).await?;
        match change_from(message) {
            Ok(DaemonChange::Updated(observed)) => Ok(observed.daemon),
            Ok(DaemonChange::Removed(id)) => {
                Err(self.no_answer(format!("the answer to a start is that {id} was removed")))
            }
            Err(status) => Err(error_of(&status, &self.socket_path)),
        }
    }

    async fn stopped(
        &self,
        id: &DaemonId,
        unless_used: bool,
        wait: Duration,
        deadline: &Deadline,
    ) -> Result<(), DaemonError> {
        let mut client = Client::new(self.channel.clone());
        let timeout_ms = millis(deadline.limit(wait));
        let request = pb::StopRequest { id: id.to_string(), timeout_ms, unless_used };
        self.within(wait + MARGIN, deadline, client.stop(request)).await.map(|pb::StopResponse {}| ())
    }

    /// An MPS host of an earlier version has no such call and sweeps nothing.
    async fn left(&self, id: &DaemonId, claim: &ClaimUid, deadline: &Deadline) -> Result<(), DaemonError> {
        let mut client = Client::new(self.channel.clone());
        let request = pb::LeaveRequest { id: id.to_string(), claim: claim.to_string() };
        let leave = async {
            match client.leave(request).await {
                Err(status) if status.code() == Code::Unimplemented => Ok(Response::new(pb::LeaveResponse {})),
                answer => answer,
            }
        };
        self.within(LEAVE_TIMEOUT, deadline, leave).await.map(|pb::LeaveResponse {}| ())
    }

    async fn within<T>(
        &self,
        own: Duration,
        deadline: &Deadline,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, DaemonError> {
        let out_of_time = || DaemonError::OutOfTime { socket: self.socket_path.clone() };
        if deadline.is_over() {
            return Err(out_of_time());
        }
        let limit = deadline.limit(own);
        match timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(error_of(&status, &self.socket_path)),
            Err(_elapsed) if limit < own => Err(out_of_time()),
            Err(_elapsed) => Err(self.no_answer(format!("no answer within {own:?}"))),
        }
    }

    fn no_answer(&self, why: String) -> DaemonError {
        DaemonError::Silent { socket: self.socket_path.clone(), why }
    }
}

impl Daemons for MpsClient {
    fn start(
        &self,
        spec: &DaemonSpec,
        sharer: Option<&ClaimUid>,
        wait: Duration,
        deadline: &Deadline,
    ) -> Result<Daemon, DaemonError> {
        self.runtime.block_on(self.started(spec, sharer, wait, deadline))
    }

    fn stop(&self, id: &DaemonId, wait: Duration, deadline: &Deadline) -> Result<(), DaemonError> {
        self.runtime.block_on(self.stopped(id, false, wait, deadline))
    }

    fn stop_unused(&self, id: &DaemonId, wait: Duration, deadline: &Deadline) -> Result<(), DaemonError> {
        self.runtime.block_on(self.stopped(id, true, wait, deadline))
    }

    fn leave(&self, id: &DaemonId, claim: &ClaimUid, deadline: &Deadline) -> Result<(), DaemonError> {
        self.runtime.block_on(self.left(id, claim, deadline))
    }

    fn list(&self, deadline: &Deadline) -> Result<Vec<Daemon>, DaemonError> {
        let observed = self.runtime.block_on(self.observed_until(deadline))?;
        Ok(observed.into_iter().map(|observed| observed.daemon).collect())
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
