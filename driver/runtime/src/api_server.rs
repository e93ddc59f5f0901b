// SPDX-License-Identifier: Apache-2.0
//! The client of the API server, from flags and the environment of the pod.
//!
//! kube's loader of kubeconfigs is not used: its parsers (YAML, JSONPath, regular expressions, credential plugins) would stay resident
//! in a process that only uses its service account. Outside of a pod, `kubectl proxy` serves any kubeconfig.

mod connector;
mod token;

use std::borrow::Cow;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dra_model::Advice;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use tower::ServiceBuilder;
use tower::retry::RetryLayer;
use tower::timeout::TimeoutLayer;

use connector::{Connector, Trust};
use token::Token;

/// Mount of the service account in a pod (Kubernetes documentation, "Accessing the Kubernetes API from a Pod").
const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Idle connections are closed after this time: a burst of claims uses many connections, the time after it only the watch's.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Timeout for the head of a response, which a watch receives at once; its body has no timeout.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// Flags of every program with an API server client.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ApiServer {
    /// URL of the API server, for example of `kubectl proxy` [default: from the environment of the pod]
    #[arg(long = "api-server", env = "API_SERVER", value_name = "URL")]
    url: Option<Uri>,
    /// Certificate authority of --api-server, as PEM
    #[arg(long = "api-server-ca-file", env = "API_SERVER_CA_FILE", value_name = "FILE", requires = "url")]
    ca_file: Option<PathBuf>,
    /// Service account token for --api-server, read again when it is renewed
    #[arg(long = "api-server-token-file", env = "API_SERVER_TOKEN_FILE", value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
}

/// The client cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    /// Neither a flag nor the environment of a pod.
    #[error("no API server is configured")]
    NoAddress,
    #[error("KUBERNETES_SERVICE_HOST `{host}` and KUBERNETES_SERVICE_PORT `{port}` are no valid address")]
    PodAddress { host: String, port: String, source: http::uri::InvalidUri },
    /// The URL has no scheme or no host.
    #[error("--api-server {url} is invalid")]
    InvalidUrl { url: Uri },
    #[error("--api-server {url} would send the token unencrypted")]
    InsecureToken { url: Uri },
    #[error("--api-server {url} needs --api-server-ca-file")]
    NoCaFile { url: Uri },
    #[error("failed to read the certificate authority {} of the API server", path.display())]
    CaFile { path: PathBuf, source: connector::TrustError },
    #[error("failed to read the service account token {}", path.display())]
    Token { path: PathBuf, source: token::TokenError },
}

impl Advice for ApiServerError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::NoAddress => {
                Some("run in a pod, or set --api-server, for example to the address of `kubectl proxy`".into())
            }
            Self::InvalidUrl { .. } => Some("use the form https://HOST:PORT or http://HOST:PORT".into()),
            Self::InsecureToken { .. } => Some("use https and --api-server-ca-file".into()),
            Self::NoCaFile { .. } => Some("set it, or use `http://` for a proxy on this machine".into()),
            Self::PodAddress { .. } | Self::CaFile { .. } | Self::Token { .. } => None,
        }
    }
}

/// Address and credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Access {
    url: Uri,
    ca_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

impl ApiServer {
    /// The client for the flags, or else for the environment of the pod. Reads both files; sends no request.
    pub fn client(&self, program: &'static str) -> Result<Client, ApiServerError> {
        let access = self.access(&|name| std::env::var_os(name))?;
        let trust = access.ca_file.as_deref().map(trust).transpose()?;
        let token = access.token_file.as_deref().map(token).transpose()?.map(Arc::new);
        Ok(client(access.url, trust, token, program))
    }

    fn access(&self, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Access, ApiServerError> {
        let Some(url) = self.url.clone() else { return pod_access(environment) };
        match (url.scheme_str(), url.host()) {
            (Some("https"), Some(_)) if self.ca_file.is_none() => Err(ApiServerError::NoCaFile { url }),
            (Some("http"), Some(host)) if self.token_file.is_some() && !is_loopback_host(host) => {
                Err(ApiServerError::InsecureToken { url })
            }
            (Some("https" | "http"), Some(_)) => {
                Ok(Access { url, ca_file: self.ca_file.clone(), token_file: self.token_file.clone() })
            }
            _ => Err(ApiServerError::InvalidUrl { url }),
        }
    }
}

/// Whether the host of a URL is this machine.
fn is_loopback_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The environment variables (`KUBERNETES_SERVICE_*`) and mounted files of a pod.
fn pod_access(environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Access, ApiServerError> {
    let value = |name| environment(name).and_then(|value| value.into_string().ok()).ok_or(ApiServerError::NoAddress);
    let (host, port) = (value("KUBERNETES_SERVICE_HOST")?, value("KUBERNETES_SERVICE_PORT")?);
    let authority =
        if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let url = format!("https://{authority}/").parse();
    let url = url.map_err(|source| ApiServerError::PodAddress { host, port, source })?;
    let mounted = |name| Some(Path::new(ACCOUNT_DIR).join(name));
    Ok(Access { url, ca_file: mounted("ca.crt"), token_file: mounted("token") })
}

fn trust(path: &Path) -> Result<Trust, ApiServerError> {
    let trust = Trust::new(path.to_owned());
    trust.read().map_err(|source| ApiServerError::CaFile { path: path.to_owned(), source })?;
    Ok(trust)
}

fn token(path: &Path) -> Result<Token, ApiServerError> {
    Token::read(path.to_owned()).map_err(|source| ApiServerError::Token { path: path.to_owned(), source })
}

/// The layers of kube's own client that are needed without a kubeconfig.
fn client(url: Uri, trust: Option<Trust>, token: Option<Arc<Token>>, program: &'static str) -> Client {
    let http = legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build(Connector::new(trust));
    let config = Config::new(url);
    let sign = move |mut request: Request<Body>| {
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(program));
        if let Some(token) = &token {
            headers.insert(AUTHORIZATION, token.header());
        }
        request
    };
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .map_request(sign)
        .layer(TimeoutLayer::new(RESPONSE_TIMEOUT))
        .service(http);
    ClientBuilder::new(service, config.default_namespace).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(url: Option<&str>, ca_file: Option<&str>) -> ApiServer {
        ApiServer { url: url.map(|url| url.parse().unwrap()), ca_file: ca_file.map(PathBuf::from), token_file: None }
    }

    fn mounted(url: &str) -> Access {
        let file = |name| Some(PathBuf::from(format!("/var/run/secrets/kubernetes.io/serviceaccount/{name}")));
        Access { url: url.parse().unwrap(), ca_file: file("ca.crt"), token_file: file("token") }
    }

    fn expect(flags: &ApiServer, environment: &[(&str, &str)], expect: Result<Access, &str>) {
        let value = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let found = flags.access(&value).map_err(|error| dra_model::explain(&error));
        assert_eq!(found, expect.map_err(str::to_owned), "{flags:?} {environment:?}");
    }

    #[test]
    fn a_pod_finds_its_api_server() {
        let pod = |host, port| [("KUBERNETES_SERVICE_HOST", host), ("KUBERNETES_SERVICE_PORT", port)];
        expect(&flags(None, None), &pod("10.96.0.1", "443"), Ok(mounted("https://10.96.0.1:443/")));
        expect(&flags(None, None), &pod("fd00::1", "6443"), Ok(mounted("https://[fd00::1]:6443/")));
        let wrong =
            "KUBERNETES_SERVICE_HOST `a b` and KUBERNETES_SERVICE_PORT `1` are no valid address: invalid uri character";
        expect(&flags(None, None), &pod("a b", "1"), Err(wrong));
    }

    #[test]
    fn flags_precede_the_pod_and_https_needs_a_ca_file() {
        let pod = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];
        let plain = Access { url: Uri::from_static("http://127.0.0.1:8001"), ca_file: None, token_file: None };
        expect(&flags(Some("http://127.0.0.1:8001"), None), &pod, Ok(plain));
        let trusting = Access { url: Uri::from_static("https://a:1"), ca_file: Some("/ca".into()), token_file: None };
        expect(&flags(Some("https://a:1"), Some("/ca")), &pod, Ok(trusting));
        let distrust = "--api-server https://a:1/ needs --api-server-ca-file; set it, or use `http://` for a proxy on this machine";
        expect(&flags(Some("https://a:1"), None), &pod, Err(distrust));
        let no_url = "--api-server 127.0.0.1:8001 is invalid; use the form https://HOST:PORT or http://HOST:PORT";
        expect(&flags(Some("127.0.0.1:8001"), None), &pod, Err(no_url));
        let token_file = Some(PathBuf::from("/token"));
        let open = ApiServer { token_file: token_file.clone(), ..flags(Some("http://10.0.0.1:80"), None) };
        let clear =
            "--api-server http://10.0.0.1:80/ would send the token unencrypted; use https and --api-server-ca-file";
        expect(&open, &pod, Err(clear));
        let proxied = ApiServer { token_file: token_file.clone(), ..flags(Some("http://[::1]:80"), None) };
        expect(&proxied, &pod, Ok(Access { url: Uri::from_static("http://[::1]:80"), ca_file: None, token_file }));
        let nowhere = "no API server is configured; run in a pod, or set --api-server, for example to the address of `kubectl proxy`";
        expect(&flags(None, None), &[], Err(nowhere));
    }

    /// An API server with its own certificate, which answers one request per connection.
    struct Tls {
        url: Uri,
        certificate: String,
        requests: std::sync::mpsc::Receiver<String>,
    }

    fn tls_server() -> Tls {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config =
            config.unwrap().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (sender, requests) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let config = Arc::new(config);
            for stream in listener.incoming() {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                // A client that does not trust the certificate aborts the handshake.
                answer(rustls::StreamOwned::new(connection, stream.unwrap())).map(|asked| sender.send(asked)).ok();
            }
        });
        Tls { url, certificate: made.cert.pem(), requests }
    }

    fn answer(mut stream: impl std::io::Read + std::io::Write) -> std::io::Result<String> {
        let mut request = [0; 4096];
        let length = stream.read(&mut request)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")?;
        stream.flush()?;
        Ok(String::from_utf8_lossy(&request[..length]).into_owned())
    }

    #[tokio::test]
    async fn a_rotated_authority_is_trusted_by_the_next_connection() {
        let (server, other) = (tls_server(), tls_server());
        let dir = tempfile::tempdir().unwrap();
        let [ca_file, token_file] = ["ca.crt", "token"].map(|name| dir.path().join(name));
        std::fs::write(&ca_file, &other.certificate).unwrap();
        std::fs::write(&token_file, "secret").unwrap();
        let flags =
            ApiServer { url: Some(server.url.clone()), ca_file: Some(ca_file.clone()), token_file: Some(token_file) };
        let client = flags.client("gpu-test/1").unwrap();
        let ask =
            || async { client.request::<serde_json::Value>(Request::get("/version").body(Vec::new()).unwrap()).await };

        let distrust = ask().await.unwrap_err();
        assert!(dra_model::chain(&distrust).to_string().contains("invalid peer certificate"), "{distrust:?}");
        std::fs::write(&ca_file, &server.certificate).unwrap();
        assert_eq!(ask().await.unwrap(), serde_json::json!({}));
        let request = server.requests.recv().unwrap().to_lowercase();
        assert!(request.starts_with("get /version http/1.1"), "{request}");
        assert!(
            request.contains("authorization: bearer secret") && request.contains("user-agent: gpu-test/1"),
            "{request}"
        );

        std::fs::write(&ca_file, "nothing").unwrap();
        let refused = flags.client("gpu-test/1").map(drop).unwrap_err();
        assert!(matches!(refused, ApiServerError::CaFile { source: connector::TrustError::Empty, .. }), "{refused:?}");
    }
}
