// SPDX-License-Identifier: Apache-2.0
//! The connections of a socket, up to a limit: further ones are accepted when one ends.
//!
//! A failed accept, such as without free file descriptors, is repeated after a pause. Its error is not returned, because the
//! server would repeat the accept at once.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tonic::transport::server::Connected;
use tracing::warn;

/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections without end, as long as fewer than the limit are open.
pub(super) fn incoming(
    listener: UnixListener,
    connections: usize,
) -> impl Stream<Item = Result<Connection, Infallible>> {
    let free = Arc::new(Semaphore::new(connections));
    stream::unfold((listener, free), |(listener, free)| async move {
        let permit = Arc::clone(&free).acquire_owned().await.ok()?;
        let stream = accept(&listener).await;
        Some((Ok(Connection { stream, _permit: permit }), (listener, free)))
    })
}

async fn accept(listener: &UnixListener) -> UnixStream {
    let mut is_logged = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if !is_logged => {
                warn!(%error, "failed to accept a connection, trying again");
                is_logged = true;
            }
            Err(_the_same) => {}
        }
        sleep(PAUSE).await;
    }
}

/// A connection, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut UnixStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
