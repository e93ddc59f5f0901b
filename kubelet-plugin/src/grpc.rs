// SPDX-License-Identifier: Apache-2.0
//! How the sockets of this package serve gRPC, and how they stop.
//!
//! A connection outlives its listener. So a server that closes refuses every further call as `Unavailable`, which callers
//! try again elsewhere, tells its connections to end, and waits for the calls that run. Streams that never end by themselves
//! have to end with the same token.

use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::sleep;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::{InterceptorLayer, Routes};
use tonic::transport::Server;
use tonic::{Request, Status};
use tracing::warn;

/// Serves until `close` is cancelled and the calls that run then have ended, or `drain` is over.
pub async fn serve(
    listener: UnixListener,
    routes: Routes,
    drain: Duration,
    close: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let serving = Server::builder()
        .layer(InterceptorLayer::new(refusal(close.clone())))
        .add_routes(routes)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), close.clone().cancelled_owned());
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
