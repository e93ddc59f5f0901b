// SPDX-License-Identifier: Apache-2.0
//! Connections to the API server. The certificate authority is read for each connection, so that a rotated one is used by the next
//! connection. TCP keep-alive detects an unreachable peer.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::{BoxError, Service};

/// Includes the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle time before the first keep-alive probe, and interval of the probes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Timeout for the acknowledgement of sent data.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);

/// The certificates are unusable.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("failed to read certificates from the file")]
    Read(#[source] rustls::pki_types::pem::Error),
    #[error("the file contains no usable certificate")]
    Empty,
    /// The cryptography provider supports no protocol version.
    #[error("failed to configure TLS")]
    Tls(#[source] rustls::Error),
}

/// The trusted certificate authority.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    ca_file: PathBuf,
}

impl Trust {
    pub(super) fn new(ca_file: PathBuf) -> Self {
        Self { ca_file }
    }

    pub(super) fn read(&self) -> Result<ClientConfig, TrustError> {
        let certificates = CertificateDer::pem_file_iter(&self.ca_file).map_err(TrustError::Read)?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(TrustError::Read)?;
        let mut roots = RootCertStore::empty();
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(TrustError::Empty);
        }
        tls(roots)
    }
}

fn tls(roots: RootCertStore) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(TrustError::Tls)?.with_root_certificates(roots).with_no_client_auth())
}

/// Opens connections for an HTTP client. TLS fails without a certificate authority.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    trust: Option<Trust>,
}

/// With or without TLS, by the scheme of the URL.
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Connector {
    pub(super) fn new(trust: Option<Trust>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE_INTERVAL));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE_INTERVAL));
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT));
        Self { tcp, trust }
    }

    async fn connect(self, uri: Uri) -> Result<Stream, BoxError> {
        let Self { tcp, trust } = self;
        let tls = trust.map_or_else(|| tls(RootCertStore::empty()), |trust| trust.read())?;
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let slow =
            || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()));
        timeout(CONNECT_TIMEOUT, https.wrap_connector(tcp).call(uri)).await.map_err(|_elapsed| slow())?
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}
