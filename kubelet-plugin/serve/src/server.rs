// SPDX-License-Identifier: Apache-2.0
//! How the sockets of this package serve gRPC: what a socket may cost this process, and how it stops.
//!
//! A connection outlives its listener. So a server that closes refuses every further call as `Unavailable`, which callers
//! try again elsewhere, tells its connections to end, and waits for the calls that run. Streams that never end by themselves
//! have to end with the same token.

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

/// Bytes that a caller may send ahead of what is read, per connection and call. Requests are small.
const WINDOW_BYTES: u32 = 64 * 1024;

/// What one socket may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at a time; further ones wait.
    pub connections: usize,
    /// Calls at a time on a connection; further ones wait.
    pub calls: u32,
    /// How long calls may go on when the server closes.
    pub drain: Duration,
}

/// Serves until `close` is cancelled and the calls that run then have ended, or the time for that is over.
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
            warn!(after = ?drain, "connections of a closed socket are still open and are cut");
            Ok(())
        }
    }
}

/// Refuses calls once a server closes.
fn refusal(close: CancellationToken) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |request| if close.is_cancelled() { Err(stopping()) } else { Ok(request) }
}

/// What a caller hears of a process that stops.
pub fn stopping() -> Status {
    Status::unavailable("this process is stopping and takes no more calls; retry when its successor listens")
}

/// Counts the streams that a service has open, each of which may hold a message that its reader does not read.
#[derive(Debug)]
pub struct StreamLimit(Arc<Semaphore>);

impl StreamLimit {
    /// At most so many streams at a time.
    pub fn new(streams: usize) -> Self {
        Self(Arc::new(Semaphore::new(streams)))
    }

    /// The same stream, counted until it is dropped; refused when there are too many.
    pub fn count<S: Stream>(&self, stream: S) -> Result<impl Stream<Item = S::Item> + use<S>, Status> {
        let refused = |_none| Status::resource_exhausted("too many streams are open on this socket; close one of them");
        let permit = Arc::clone(&self.0).try_acquire_owned().map_err(refused)?;
        Ok(stream.inspect(move |_| _ = &permit))
    }
}
