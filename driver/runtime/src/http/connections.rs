// SPDX-License-Identifier: Apache-2.0
//! Connections of one request each, limited in number, bytes and time.
//!
//! At the limit a new connection replaces the oldest one: a probe of the kubelet is answered at once, and idle connections are closed.
//! Sources are not distinguished, because probes and traffic from outside of the cluster may have the same address, that of the node.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{sleep, timeout};
use tracing::debug;

/// Limit of open connections: more than probes and scrapers need, few enough for the limits of memory and open files.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// Limit of buffered bytes of a request and of an unread response; the minimum of hyper.
const BUFFER_BYTES: usize = 8 * 1024;

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept if there is no connection to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until the future is dropped.
pub(super) async fn serve<F>(listener: &TcpListener, answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static)
where
    F: Future<Output = Response<String>> + Send + 'static,
{
    let mut open = Open::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.make_room();
                open.0.push_back(tokio::spawn(connection(stream, answer.clone())).abort_handle());
                // A request that arrived with its connection is answered before the next connection is accepted.
                yield_now().await;
            }
            Err(error) => pause_after(&error, &mut open).await,
        }
    }
}

/// The open connections, the oldest first.
#[derive(Debug, Default)]
struct Open(VecDeque<AbortHandle>);

impl Open {
    /// Closes the oldest connections at the limit.
    fn make_room(&mut self) {
        self.0.retain(|connection| !connection.is_finished());
        while self.0.len() >= MAX_CONNECTIONS && self.close_oldest() {}
    }

    fn close_oldest(&mut self) -> bool {
        let oldest = self.0.pop_front();
        oldest.inspect(AbortHandle::abort).is_some()
    }
}

/// Closes the oldest connection, because accepting fails without free file descriptors.
async fn pause_after(error: &io::Error, open: &mut Open) {
    debug!(%error, connections = open.0.len(), "failed to accept a connection; retrying");
    open.0.retain(|connection| !connection.is_finished());
    if open.close_oldest() {
        yield_now().await;
    } else {
        sleep(ACCEPT_PAUSE).await;
    }
}

/// Serves one request. Errors are ignored, because the client sees them.
async fn connection<F>(stream: TcpStream, answer: impl Fn(Request<Incoming>) -> F)
where
    F: Future<Output = Response<String>>,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(BUFFER_BYTES).keep_alive(false);
    timeout(CONNECTION_TIMEOUT, server.serve_connection(TokioIo::new(stream), service)).await.ok();
}
