// SPDX-License-Identifier: Apache-2.0
//! `/healthz`, `/readyz` and `/metrics` of a process.
//!
//! A process is healthy if its runtime responds. It is ready if also its [`Readiness`] is `Ok`; otherwise the body has the reason.
//! Details may follow in further lines.
//!
//! Any client that reaches the port can open many connections. They are served on a separate thread, so that they delay nothing else,
//! and limited in number, bytes and time: see [`connections`].

mod connections;

mod liveness;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use dra_model::Advice;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use liveness::Liveness;

/// Whether a process is ready; `Err` has the reason if it is not.
pub type Readiness = watch::Receiver<Result<(), String>>;

/// Upper bounds of histograms of durations, in seconds.
pub const DURATIONS: [f64; 16] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384, 32.768];

/// Stack size of the thread, which has no deep calls.
const STACK_BYTES: usize = 256 * 1024;

/// The endpoints are not served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("failed to start the thread of the HTTP endpoints")]
    Start(#[source] io::Error),
    #[error("failed to listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// The thread panicked.
    #[error("the thread of the HTTP endpoints on {address} exited")]
    Ended { address: SocketAddr },
}

impl Advice for HttpError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Listen { .. } => Some("choose another --http-address".into()),
            Self::Start(_) | Self::Ended { .. } => None,
        }
    }
}

/// What the endpoints show beside the readiness.
pub struct Content {
    pub registry: Registry,
    /// Awaited before each answer of `/metrics`, for values that are measured only then.
    pub measure: Option<Measure>,
    /// The lines of `/readyz` below the first.
    pub details: Option<Details>,
}

/// Measures.
pub type Measure = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Complete lines.
pub type Details = Box<dyn Fn() -> String + Send + Sync>;

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl From<Registry> for Content {
    fn from(registry: Registry) -> Self {
        Self { registry, measure: None, details: None }
    }
}

struct Endpoints {
    content: Content,
    readiness: Readiness,
    liveness: Liveness,
}

/// Serves until `stop` is cancelled or this future is dropped.
pub async fn serve(
    address: SocketAddr,
    content: impl Into<Content>,
    readiness: Readiness,
    stop: CancellationToken,
) -> Result<(), HttpError> {
    let (liveness, responder) = liveness::liveness();
    let endpoints = Arc::new(Endpoints { content: content.into(), readiness, liveness });
    let stop = stop.child_token();
    let (ended, end) = oneshot::channel();
    let serving = stop.clone();
    let work = move || drop(ended.send(run(address, endpoints, &serving)));
    thread::Builder::new().name("http".to_owned()).stack_size(STACK_BYTES).spawn(work).map_err(HttpError::Start)?;
    let _stops_the_thread = stop.drop_guard();
    tokio::select! {
        ended = end => ended.unwrap_or(Err(HttpError::Ended { address })),
        never = responder => match never {},
    }
}

/// The main function of the thread.
fn run(address: SocketAddr, endpoints: Arc<Endpoints>, stop: &CancellationToken) -> Result<(), HttpError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(HttpError::Start)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(|source| HttpError::Listen { address, source })?;
        let answer = move |request| answer(Arc::clone(&endpoints), request);
        stop.run_until_cancelled(connections::serve(&listener, answer)).await;
        Ok(())
    })
}

async fn answer<B>(endpoints: Arc<Endpoints>, request: Request<B>) -> Response<String> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed\n");
    }
    match request.uri().path() {
        "/healthz" => healthz(&endpoints).await,
        "/readyz" => readyz(&endpoints).await,
        "/metrics" => metrics(&endpoints.content).await,
        _ => text(StatusCode::NOT_FOUND, "not found; available: /healthz, /readyz, /metrics\n"),
    }
}

async fn healthz(endpoints: &Endpoints) -> Response<String> {
    if endpoints.liveness.responds().await {
        text(StatusCode::OK, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "the runtime of the process does not respond\n")
    }
}

async fn readyz(endpoints: &Endpoints) -> Response<String> {
    let waits_for = endpoints.readiness.borrow().as_ref().err().map(|reason| format!("{reason}\n"));
    let mut response = match waits_for {
        None => healthz(endpoints).await,
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
    };
    if let Some(details) = &endpoints.content.details {
        response.body_mut().push_str(&details());
    }
    response
}

async fn metrics(content: &Content) -> Response<String> {
    if let Some(measure) = &content.measure {
        measure().await;
    }
    let mut lines = String::new();
    match encode(&mut lines, &content.registry) {
        Ok(()) => typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", lines),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<String> {
    typed(status, "text/plain; charset=utf-8", body.into())
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    /// Served endpoints, stopped when this is dropped.
    struct Served {
        address: SocketAddr,
        ready: watch::Sender<Result<(), String>>,
        _stop: tokio_util::sync::DropGuard,
    }

    fn free_address() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn served() -> Served {
        let (address, stop) = (free_address(), CancellationToken::new());
        let (ready, readiness) = watch::channel(Err("not yet".to_owned()));
        let mut registry = Registry::default();
        registry.register("seen", "Seen", prometheus_client::metrics::counter::Counter::<u64>::default());
        let details: Details = Box::new(|| "2 GPUs\n".to_owned());
        let content = Content { registry, measure: None, details: Some(details) };
        tokio::spawn(serve(address, content, readiness, stop.clone()));
        Served { address, ready, _stop: stop.drop_guard() }
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_not_listening_yet) => tokio::task::yield_now().await,
            }
        }
    }

    /// Status and body of the answer to a request.
    async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
        let mut stream = connect(address).await;
        stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// Until the server closes a connection.
    async fn until_closed(stream: &mut TcpStream) {
        let mut rest = Vec::new();
        // A connection that is closed with unread bytes is reset.
        stream.read_to_end(&mut rest).await.ok();
    }

    #[tokio::test]
    async fn each_endpoint_answers_one_request_and_closes() {
        let server = served();
        let texts = |status: u16, body: &str| (status, body.to_owned());
        assert_eq!(ask(server.address, "GET", "/healthz").await, texts(200, "ok\n"));
        assert_eq!(ask(server.address, "GET", "/readyz").await, texts(503, "not yet\n2 GPUs\n"));
        server.ready.send(Ok(())).unwrap();
        assert_eq!(ask(server.address, "GET", "/readyz").await, texts(200, "ok\n2 GPUs\n"));
        let (status, metrics) = ask(server.address, "GET", "/metrics").await;
        assert!(status == 200 && metrics.contains("seen_total 0"), "{metrics}");
        assert_eq!(
            ask(server.address, "GET", "/").await,
            texts(404, "not found; available: /healthz, /readyz, /metrics\n")
        );
        assert_eq!(ask(server.address, "POST", "/healthz").await, texts(405, "only GET is allowed\n"));
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let server = served();
        drop(connect(server.address).await);
        let (_ready, readiness) = watch::channel(Ok(()));
        let refused =
            serve(server.address, Registry::default(), readiness, CancellationToken::new()).await.unwrap_err();
        let explained = dra_model::explain(&refused);
        assert!(explained.starts_with(&format!("failed to listen on {}: ", server.address)), "{explained}");
        assert!(explained.ends_with("; choose another --http-address"), "{explained}");
    }

    #[tokio::test]
    async fn the_oldest_connection_is_closed_when_there_are_too_many() {
        let server = served();
        let mut held = Vec::new();
        for _ in 0..=connections::MAX_CONNECTIONS {
            let mut stream = connect(server.address).await;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").await.unwrap();
            held.push(stream);
        }
        assert_eq!(ask(server.address, "GET", "/healthz").await.0, 200);
        until_closed(&mut held[0]).await;
        let newest = held.last_mut().unwrap();
        newest.write_all(b"y\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        newest.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn an_unfinished_request_is_closed() {
        let server = served();
        let mut stream = connect(server.address).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), until_closed(&mut stream)).await.unwrap();
    }

    #[test]
    fn a_process_with_a_blocked_runtime_is_unhealthy() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (address_sender, addresses) = std::sync::mpsc::channel();
        let (go_on, hangs) = std::sync::mpsc::channel::<()>();
        let process = thread::spawn(move || {
            runtime().block_on(async {
                let server = served();
                assert_eq!(ask(server.address, "GET", "/healthz").await.0, 200);
                address_sender.send(server.address).unwrap();
                hangs.recv().unwrap();
                assert_eq!(ask(server.address, "GET", "/healthz").await.0, 200);
            });
        });
        let address = addresses.recv().unwrap();
        assert_eq!(runtime().block_on(ask(address, "GET", "/healthz")).0, 503);
        go_on.send(()).unwrap();
        process.join().unwrap();
    }
}
