// SPDX-License-Identifier: Apache-2.0
//! A gRPC server on a unix socket: its bounds, and its graceful stop.
//!
//! A connection outlives its listener. So a server that closes refuses every further call as `Unavailable`, which callers
//! retry elsewhere, closes its idle connections, and waits for the running calls. Endless streams must end with the same
//! token.

mod incoming;

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::service::{InterceptorLayer, Routes};
use tonic::transport::Server;
use tonic::{Request, Status};
use tracing::warn;

use incoming::incoming;

/// Bytes in flight per connection and call. Requests are small.
const WINDOW_BYTES: u32 = 64 * 1024;

/// The bounds of one socket.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Concurrent connections; further ones wait.
    pub connections: usize,
    /// Concurrent calls on a connection; further ones wait.
    pub calls: u32,
    /// Time for running calls when the server closes.
    pub drain: Duration,
}

/// Serves until `close` is cancelled and the calls that run then have ended, at most for the drain time.
pub async fn serve(
    listener: UnixListener,
    routes: Routes,
    bounds: Bounds,
    close: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let Bounds { connections, calls, drain } = bounds;
    let serving = Server::builder()
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .max_concurrent_streams(calls)
        .layer(InterceptorLayer::new(refusal(close.clone())))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming(listener, connections), close.clone().cancelled_owned());
    let overdue = async {
        close.cancelled().await;
        sleep(drain).await;
    };
    tokio::select! {
        served = serving => served,
        () = overdue => {
            warn!(after = ?drain, "cutting connections of a closed socket that are still open");
            Ok(())
        }
    }
}

/// Refuses calls once a server closes.
fn refusal(close: CancellationToken) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |request| if close.is_cancelled() { Err(stopping()) } else { Ok(request) }
}

/// The status of a call to a process that stops.
pub fn stopping() -> Status {
    Status::unavailable("this process is stopping and refuses calls; retry when its successor listens")
}

/// Limits the open streams of a service, each of which may hold an unread message.
#[derive(Debug)]
pub struct StreamLimit(Arc<Semaphore>);

impl StreamLimit {
    /// A limit of concurrent streams.
    pub fn new(streams: usize) -> Self {
        Self(Arc::new(Semaphore::new(streams)))
    }

    /// The same stream, counted until it is dropped. An error at the limit.
    pub fn count<S: Stream>(&self, stream: S) -> Result<impl Stream<Item = S::Item> + use<S>, Status> {
        let refused = |_none| Status::resource_exhausted("too many open streams on this socket; close one of them");
        let permit = Arc::clone(&self.0).try_acquire_owned().map_err(refused)?;
        Ok(stream.inspect(move |_| _ = &permit))
    }
}
