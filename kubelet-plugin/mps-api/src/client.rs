// SPDX-License-Identifier: Apache-2.0
//! The MPS daemons of this node, asked of the MPS host over its socket.
//!
//! The port blocks, so it is called from blocking threads; the connection is made when it is needed and again when it broke.

use std::path::PathBuf;
use std::time::Duration;

use dra_hardware::{ClaimUse, Daemon, DaemonError, DaemonSpec, Daemons, Deadline};
use dra_model::{ClaimUid, DaemonId};
use dra_proto::mps_v1 as pb;
use dra_proto::mps_v1::mps_client::MpsClient as Client;
use futures::{Stream, StreamExt as _};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::observed::ObservedDaemon;
use crate::wire::{DaemonChange, change_from, error_of, spec};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a call may take beyond the patience that it carries: the host clears what was there before, and what it could not
/// start; either takes it at most 4 s.
const MARGIN: Duration = Duration::from_secs(10);

/// How long the host may take to note a sharer, for which it looks into a directory, and what processes have open.
const SHARE_TIMEOUT: Duration = Duration::from_secs(2);

/// The path is no path of a socket.
#[derive(Debug, thiserror::Error)]
#[error("{} is not usable as --mps-socket", path.display())]
pub struct SocketPathError {
    path: PathBuf,
    #[source]
    source: tonic::transport::Error,
}

/// The MPS host of this node, there or not.
#[derive(Debug, Clone)]
pub struct MpsClient {
    socket_path: PathBuf,
    channel: Channel,
    runtime: Handle,
}

impl MpsClient {
    /// Connects when asked for something. Needs to be called in a runtime, whose threads do the talking.
    pub fn new(socket_path: PathBuf) -> Result<Self, SocketPathError> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket_path.display()));
        let channel = match endpoint {
            Ok(endpoint) => endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy(),
            Err(source) => return Err(SocketPathError { path: socket_path, source }),
        };
        Ok(Self { socket_path, channel, runtime: Handle::current() })
    }

    /// Every daemon at once, then each change, until the connection ends.
    pub async fn watch(&self) -> Result<impl Stream<Item = Result<DaemonChange, DaemonError>> + use<>, DaemonError> {
        let mut client = Client::new(self.channel.clone());
        let changes = self.within(Duration::ZERO, &Deadline::none(), client.watch(pb::WatchRequest {})).await?;
        let socket_path = self.socket_path.clone();
        Ok(changes.map(move |change| change.and_then(change_from).map_err(|status| error_of(&status, &socket_path))))
    }

    /// Everything that [`Daemons::list`] tells, and what people should know.
    pub async fn observed(&self) -> Result<Vec<ObservedDaemon>, DaemonError> {
        self.observed_until(&Deadline::none()).await
    }

    async fn observed_until(&self, deadline: &Deadline) -> Result<Vec<ObservedDaemon>, DaemonError> {
        let mut client = Client::new(self.channel.clone());
        let list = client.list(pb::ListRequest {});
        let pb::ListResponse { daemons } = self.within(Duration::ZERO, deadline, list).await?;
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
        patience: Duration,
        deadline: &Deadline,
    ) -> Result<Daemon, DaemonError> {
        let mut client = Client::new(self.channel.clone());
        let request = pb::StartRequest { spec: Some(spec(wanted)), timeout_ms: millis(deadline.limit(patience)) };
        let message = self.within(patience, deadline, client.start(request)).await?;
        match change_from(message) {
            Ok(DaemonChange::Updated(observed)) => Ok(observed.daemon),
            Ok(DaemonChange::Removed(id)) => Err(self.silent(format!("it says that {id} is gone"))),
            Err(status) => Err(error_of(&status, &self.socket_path)),
        }
    }

    async fn stopped(
        &self,
        id: &DaemonId,
        unless_used: bool,
        patience: Duration,
        deadline: &Deadline,
    ) -> Result<(), DaemonError> {
        let mut client = Client::new(self.channel.clone());
        let timeout_ms = millis(deadline.limit(patience));
        let request = pb::StopRequest { id: id.to_string(), timeout_ms, unless_used };
        self.within(patience, deadline, client.stop(request)).await.map(|pb::StopResponse {}| ())
    }

    /// An MPS host of an earlier version does not know of sharers, and needs not.
    async fn shared(
        &self,
        id: &DaemonId,
        claim: &ClaimUid,
        change: ClaimUse,
        deadline: &Deadline,
    ) -> Result<(), DaemonError> {
        let mut client = Client::new(self.channel.clone());
        let leaves = change == ClaimUse::Ends;
        let request = pb::ShareRequest { id: id.to_string(), claim: claim.to_string(), leaves };
        match timeout(deadline.limit(SHARE_TIMEOUT), client.share(request)).await {
            Ok(Err(status)) if status.code() != Code::Unimplemented => Err(error_of(&status, &self.socket_path)),
            Ok(Ok(_) | Err(_)) => Ok(()),
            Err(_elapsed) => Err(self.silent(format!("nothing within {SHARE_TIMEOUT:?}"))),
        }
    }

    async fn within<T>(
        &self,
        patience: Duration,
        deadline: &Deadline,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, DaemonError> {
        let out_of_time = || DaemonError::OutOfTime { socket: self.socket_path.clone() };
        if deadline.is_over() {
            return Err(out_of_time());
        }
        let own = patience + MARGIN;
        let limit = deadline.limit(own);
        match timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(error_of(&status, &self.socket_path)),
            Err(_elapsed) if limit < own => Err(out_of_time()),
            Err(_elapsed) => Err(self.silent(format!("nothing within {own:?}"))),
        }
    }

    fn silent(&self, why: String) -> DaemonError {
        DaemonError::Silent { socket: self.socket_path.clone(), why }
    }
}

impl Daemons for MpsClient {
    fn start(&self, spec: &DaemonSpec, patience: Duration, deadline: &Deadline) -> Result<Daemon, DaemonError> {
        self.runtime.block_on(self.started(spec, patience, deadline))
    }

    fn stop(&self, id: &DaemonId, patience: Duration, deadline: &Deadline) -> Result<(), DaemonError> {
        self.runtime.block_on(self.stopped(id, false, patience, deadline))
    }

    fn stop_unused(&self, id: &DaemonId, patience: Duration, deadline: &Deadline) -> Result<(), DaemonError> {
        self.runtime.block_on(self.stopped(id, true, patience, deadline))
    }

    fn share(&self, id: &DaemonId, claim: &ClaimUid, change: ClaimUse, deadline: &Deadline) -> Result<(), DaemonError> {
        self.runtime.block_on(self.shared(id, claim, change, deadline))
    }

    fn list(&self, deadline: &Deadline) -> Result<Vec<Daemon>, DaemonError> {
        let observed = self.runtime.block_on(self.observed_until(deadline))?;
        Ok(observed.into_iter().map(|observed| observed.daemon).collect())
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
