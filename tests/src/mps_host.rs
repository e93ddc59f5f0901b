// SPDX-License-Identifier: Apache-2.0
//! A fake MPS host for the plugin: the real protocol over a socket, with daemons that are values.
//!
//! The real one is tested in `kubelet-plugin/mps-host/tests` and on a real cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use dra_hardware::{Daemon, DaemonState};
use dra_mps_api::failed::failed_of;
use dra_mps_api::wire::{changes, daemon, id_of, observed_message, spec_of};
use dra_mps_api::{FailedDaemons, ObservedDaemon, ObservedDaemons};
use dra_proto::mps_v1 as pb;
use dra_proto::mps_v1::mps_server::MpsServer;
use futures::{Stream, StreamExt as _, stream};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::wait::within;

/// The host of one node.
#[derive(Debug)]
pub struct MpsHost {
    root: PathBuf,
    daemons: watch::Sender<ObservedDaemons>,
    failed: watch::Sender<Vec<FailedDaemons>>,
    serving: Option<(CancellationToken, JoinHandle<()>)>,
}

impl MpsHost {
    /// One without daemons that is heard below this directory.
    pub fn start(root: &Path) -> Self {
        let (daemons, failed) = (watch::Sender::default(), watch::Sender::default());
        let mut host = Self { root: root.to_owned(), daemons, failed, serving: None };
        host.come_back();
        host
    }

    /// It ends, as far as others see.
    pub async fn go_away(&mut self) {
        let (stop, serving) = self.serving.take().expect("a host that is there");
        fs::remove_file(self.socket_path()).expect("a socket");
        stop.cancel();
        within("the MPS host ends its connections", serving).await.expect("it does not panic");
    }

    /// It is there again, with what became of its daemons meanwhile.
    pub fn come_back(&mut self) {
        fs::create_dir_all(&self.root).expect("a writable directory");
        let listener = UnixListener::bind(self.socket_path()).expect("a host that was away");
        let incoming = stream::poll_fn(move |context| listener.poll_accept(context).map(Some));
        let incoming = incoming.map(|accepted| accepted.map(|(stream, _)| stream));
        let stop = CancellationToken::new();
        let (daemons, failed) = (self.daemons.clone(), self.failed.clone());
        let service = Service { root: self.root.clone(), daemons, failed, stop: stop.clone() };
        let stopped = stop.clone().cancelled_owned();
        let serve = Server::builder().add_service(MpsServer::new(service));
        let serving = async move {
            serve.serve_with_incoming_shutdown(incoming, stopped).await.expect("a socket accepts");
        };
        self.serving = Some((stop, tokio::spawn(serving)));
    }

    /// Lets every daemon be so.
    pub fn all_are(&self, state: &DaemonState) {
        self.daemons.send_modify(|daemons| daemons.values_mut().for_each(|seen| seen.daemon.state = state.clone()));
    }

    /// The daemons that must not run, call by call, until this holds for them.
    pub async fn until_failed(&self, what: &str, holds: impl Fn(&[FailedDaemons]) -> bool) -> Vec<FailedDaemons> {
        let mut calls = self.failed.subscribe();
        let all = within(what, calls.wait_for(|calls| holds(calls))).await;
        all.expect("the sender is a field of the host").clone()
    }

    /// Lets it know no daemon any more.
    pub fn forget_all(&self) {
        self.daemons.send_modify(ObservedDaemons::clear);
    }

    fn socket_path(&self) -> PathBuf {
        self.root.join("host.sock")
    }
}

#[derive(Debug)]
struct Service {
    root: PathBuf,
    daemons: watch::Sender<ObservedDaemons>,
    failed: watch::Sender<Vec<FailedDaemons>>,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl pb::mps_server::Mps for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::Daemon, Status>> + Send>>;

    async fn start(&self, request: Request<pb::StartRequest>) -> Result<Response<pb::Daemon>, Status> {
        let spec = spec_of(request.into_inner().spec.unwrap_or_default())?;
        let (id, dir) = (spec.id.clone(), self.root.join(spec.id.as_str()));
        let (run_dir, shm_dir) = (dir.join("run"), dir.join("shm"));
        let started = Daemon { id: id.clone(), state: DaemonState::Ready, run_dir, shm_dir, multi_user: false };
        let answer = daemon(&spec, &started);
        let new = ObservedDaemon { spec, daemon: started, message: String::new(), restarts: 0 };
        self.daemons.send_if_modified(|daemons| {
            let is_new = !daemons.contains_key(&id);
            daemons.entry(id).or_insert(new);
            is_new
        });
        Ok(Response::new(answer))
    }

    async fn leave(&self, _request: Request<pb::LeaveRequest>) -> Result<Response<pb::LeaveResponse>, Status> {
        Ok(Response::new(pb::LeaveResponse {}))
    }

    async fn set_failed(
        &self,
        request: Request<pb::SetFailedRequest>,
    ) -> Result<Response<pb::SetFailedResponse>, Status> {
        let failed = failed_of(request.into_inner())?;
        self.daemons.send_modify(|daemons| {
            for (id, seen) in daemons {
                match (failed.get(id), &seen.daemon.state) {
                    (Some(why), _) => seen.daemon.state = DaemonState::GpuFailed { why: why.clone() },
                    (None, DaemonState::GpuFailed { .. }) => seen.daemon.state = DaemonState::Ready,
                    (None, _) => {}
                }
            }
        });
        self.failed.send_modify(|calls| calls.push(failed));
        Ok(Response::new(pb::SetFailedResponse {}))
    }

    async fn stop(&self, request: Request<pb::StopRequest>) -> Result<Response<pb::StopResponse>, Status> {
        let id = id_of(&request.into_inner().id)?;
        self.daemons.send_modify(|daemons| _ = daemons.remove(&id));
        Ok(Response::new(pb::StopResponse {}))
    }

    async fn list(&self, _request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        let daemons = self.daemons.borrow().values().map(observed_message).collect();
        Ok(Response::new(pb::ListResponse { daemons }))
    }

    async fn watch(&self, _request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut daemons = self.daemons.subscribe();
        daemons.mark_changed();
        let changes_after = stream::unfold((daemons, ObservedDaemons::new()), |(mut daemons, sent)| async move {
            daemons.changed().await.ok()?;
            let now = daemons.borrow_and_update().clone();
            let changes_after = changes(&sent, &now);
            Some((stream::iter(changes_after.into_iter().map(Ok)), (daemons, now)))
        });
        let until_stopped = changes_after.flatten().take_until(self.stop.clone().cancelled_owned());
        Ok(Response::new(Box::pin(until_stopped)))
    }
}
