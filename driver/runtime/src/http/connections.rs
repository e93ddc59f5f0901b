// SPDX-License-Identifier: Apache-2.0
//! Connections of one request each, bounded in number, bytes and time.
//!
//! When there are too many, the oldest goes and the newest stays: a probe of the kubelet gets its answer at once, while
//! those who only hold connections lose them. Sources are not told apart, since probes and traffic from outside of the
//! cluster may come from the same address, that of the node.

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

/// Connections at a time. More than probes and scrapers ever have, few enough for a node's limits of memory and files.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// Bytes that are buffered of a request, and of an answer that is not read; the least that hyper takes.
const BUFFER_BYTES: usize = 8 * 1024;

/// How long the header of a request may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when the process can open no file and has no connection to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers whoever connects, until it is dropped.
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
                // A request that has come with its connection is answered before the next connection is taken.
                yield_now().await;
            }
            Err(error) => pause_after(&error, &mut open).await,
        }
    }
}

/// The connections that are open, the oldest first.
#[derive(Debug, Default)]
struct Open(VecDeque<AbortHandle>);

impl Open {
    /// Closes the oldest connections while there are too many.
    fn make_room(&mut self) {
        self.0.retain(|connection| !connection.is_finished());
        while self.0.len() >= MAX_CONNECTIONS && self.close_oldest() {}
    }

    fn close_oldest(&mut self) -> bool {
        let oldest = self.0.pop_front();
        oldest.inspect(AbortHandle::abort).is_some()
    }
}

/// A process without free file descriptors gives up a connection for the next one.
async fn pause_after(error: &io::Error, open: &mut Open) {
    debug!(%error, connections = open.0.len(), "unable to take a connection (will retry)");
    open.0.retain(|connection| !connection.is_finished());
    if open.close_oldest() {
        yield_now().await;
    } else {
        sleep(ACCEPT_PAUSE).await;
    }
}

/// One request and its answer. Whatever goes wrong is the client's to see.
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
