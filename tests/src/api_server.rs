// SPDX-License-Identifier: Apache-2.0
//! An API server for the objects this driver touches, over real HTTP on loopback.
//!
//! It keeps nodes, claims, slices, events and leases with resource versions, UIDs, conflicts, field selectors, watches and
//! server-side apply of `status.devices`, and it can be slow, hang, be away, or not know a field. It does not
//! authorise: what an account may do is tried on a real cluster.

mod answer;
mod key;
pub mod objects;
mod patch;
mod refusal;
pub mod request;
mod shared;
mod validate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use key::{Key, Resource};
use objects::Preconditions;
use refusal::Refusal;
pub use request::Verb;
use shared::Shared;

use crate::wait::within;

#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: Serving,
}

#[derive(Debug)]
enum Serving {
    Up(JoinHandle<()>),
    /// The port stays bound and refuses connections, because no process listens.
    Down(TcpSocket),
}

impl ApiServer {
    /// A server without objects, on a port of its own.
    pub fn start() -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            revisions: watch::Sender::new(0),
            hangs: watch::Sender::new(false),
            requests: watch::Sender::new(BTreeMap::new()),
            latency: Mutex::default(),
            refusal: Mutex::default(),
        });
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = socket.local_addr().expect("a bound socket has an address");
        let serving = Serving::Up(tokio::spawn(serve(listen(socket), Arc::clone(&shared))));
        Self { shared, address, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client without credentials.
    pub fn client(&self) -> kube::Client {
        let config = kube::Config::new(self.url().parse().expect("an address makes a URL"));
        kube::Client::try_from(config).expect("a client needs no more than a URL")
    }

    /// Makes an object past the counters, as a user or a scheduler would.
    pub fn put(&self, resource: Resource, namespace: &str, object: Value) -> Value {
        self.shared.change(|state| state.objects.create(resource, namespace, object)).expect("a valid new object")
    }

    /// Changes an object past the counters.
    pub fn edit(&self, key: &Key, edit: impl FnOnce(&mut Value)) -> Value {
        let edited = self.shared.change(|state| {
            let mut object = state.objects.get(key)?;
            edit(&mut object);
            state.objects.update(key, object)
        });
        edited.expect("a valid change of an existing object")
    }

    /// Deletes an object past the counters.
    pub fn remove(&self, key: &Key) {
        self.shared.change(|state| state.objects.delete(key, &Preconditions::default())).expect("an existing object");
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Value> {
        self.shared.read(|state| state.objects.get(key).ok())
    }

    /// All objects of a kind.
    pub fn list(&self, resource: Resource) -> Vec<Value> {
        self.shared.read(|state| state.objects.list(resource))
    }

    /// How often clients asked for something.
    pub fn requests(&self, verb: Verb, resource: Resource) -> u64 {
        self.shared.requests.borrow().get(&(verb, resource)).copied().unwrap_or(0)
    }

    /// How often clients changed, or tried to change, objects of a kind.
    pub fn writes(&self, resource: Resource) -> u64 {
        let requests = self.shared.requests.borrow();
        let writes = requests
            .iter()
            .filter(|((verb, of), _)| *of == resource && !matches!(verb, Verb::Get | Verb::List | Verb::Watch));
        writes.map(|(_, count)| count).sum()
    }

    /// Waits until the objects of a kind are as wanted.
    pub async fn until<T>(&self, what: &str, resource: Resource, wanted: impl Fn(&[Value]) -> Option<T>) -> T {
        let mut revisions = self.shared.revisions.subscribe();
        let reached = async {
            loop {
                if let Some(reached) = wanted(&self.list(resource)) {
                    return reached;
                }
                revisions.changed().await.expect("the server outlives its users");
            }
        };
        within(what, reached).await
    }

    /// Waits until clients have asked for something at least that often.
    pub async fn until_requested(&self, verb: Verb, resource: Resource, times: u64) {
        let mut requests = self.shared.requests.subscribe();
        let asked = requests.wait_for(|counts| counts.get(&(verb, resource)).is_some_and(|count| *count >= times));
        within(&format!("{times} requests to {verb:?} {resource:?}"), asked)
            .await
            .expect("the server outlives its users");
    }

    /// Closes all connections and refuses new ones.
    pub async fn go_down(&mut self) {
        if let Serving::Up(task) = &mut self.serving {
            task.abort();
            task.await.ok();
            self.serving = Serving::Down(bind(self.address));
        }
    }

    /// Listens again on the same port.
    pub fn come_up(&mut self) {
        if matches!(self.serving, Serving::Down(_)) {
            let up = |socket| Serving::Up(tokio::spawn(serve(listen(socket), Arc::clone(&self.shared))));
            let placeholder = Serving::Up(tokio::spawn(async {}));
            let down = std::mem::replace(&mut self.serving, placeholder);
            self.serving = match down {
                Serving::Down(socket) => up(socket),
                up @ Serving::Up(_) => up,
            };
        }
    }

    /// Accepts requests and does not answer, until [`Self::answer_again`].
    pub fn hang(&self) {
        self.shared.hangs.send_replace(true);
    }

    /// Ends [`Self::hang`]; waiting requests are answered.
    pub fn answer_again(&self) {
        self.shared.hangs.send_replace(false);
    }

    /// Answers every request with an error, such as 403 or 500, or answers them again.
    pub fn refuse(&self, how: Option<(u16, &'static str)>) {
        let refusal = how.map(|(code, reason)| Refusal::new(code, reason, format!("refused on demand: {reason}")));
        *self.shared.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    /// Makes every request take at least that long.
    pub fn be_slow(&self, latency: Duration) {
        *self.shared.latency.lock().unwrap_or_else(PoisonError::into_inner) = latency;
    }

    /// Does not know these fields of slices from now on.
    pub fn drop_fields(&self, names: &[&'static str]) {
        self.shared.change(|state| state.objects.dropped_fields = names.to_vec());
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Serving::Up(task) = &self.serving {
            task.abort();
        }
    }
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("loopback has IPv4");
    socket.set_reuseaddr(true).expect("a socket option");
    socket.bind(address).expect("the port is free or was ours");
    socket
}

fn listen(socket: TcpSocket) -> TcpListener {
    socket.listen(1024).expect("a bound socket can listen")
}

/// Accepts until it is aborted; its connections end with it.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let service = TowerToHyperService::new(Router::new().fallback(answer::answer).with_state(shared));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let service = service.clone();
                connections.spawn(async move {
                    // A client that leaves early is no failure of the server.
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
