// SPDX-License-Identifier: Apache-2.0
//! Plays NVIDIA's device plugin in a pod: the protocol `v1beta1` of the kubelet's device plugins, on its real sockets.
//!
//! The messages have the field numbers of `k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1`. What is not needed is left out.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt as _, stream};
use tokio::net::UnixListener;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse, uri::PathAndQuery};
use tonic::server::{Grpc, NamedService};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// The argument that makes this program the device plugin.
pub(crate) const PLAY: &str = "--play-device-plugin";
/// The directory of the sockets in its pod, as on the node.
pub(crate) const DIR: &str = "/var/lib/kubelet/device-plugins";
/// The devices that it offers.
const DEVICES: [&str; 2] = ["GPU-played-0", "GPU-played-1"];

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct RegisterRequest {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    endpoint: String,
    #[prost(string, tag = "3")]
    resource_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Device {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    health: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Listed {
    #[prost(message, repeated, tag = "1")]
    devices: Vec<Device>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AllocateRequest {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<ContainerRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerRequest {
    #[prost(string, repeated, tag = "1")]
    ids: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Allocated {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<ContainerAnswer>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerAnswer {
    #[prost(btree_map = "string, string", tag = "1")]
    envs: std::collections::BTreeMap<String, String>,
}

/// `v1beta1.DevicePlugin`.
#[derive(Clone)]
struct Plugin;

impl NamedService for Plugin {
    const NAME: &'static str = "v1beta1.DevicePlugin";
}

type Answered<T> = Pin<Box<dyn Future<Output = Result<T, Infallible>> + Send>>;

impl Service<HttpRequest<Body>> for Plugin {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Answered<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(async move {
            let answer = match request.uri().path().rsplit('/').next() {
                Some("ListAndWatch") => {
                    let list = service_fn(async |_: Request<Empty>| Ok(Response::new(listed())));
                    Grpc::new(ProstCodec::<Listed, Empty>::default()).server_streaming(list, request).await
                }
                Some("Allocate") => {
                    let allocate = service_fn(async |request: Request<AllocateRequest>| {
                        Ok::<_, Status>(Response::new(allocated(request.into_inner())))
                    });
                    Grpc::new(ProstCodec::<Allocated, AllocateRequest>::default()).unary(allocate, request).await
                }
                // Its options, none of which are on.
                _ => {
                    let options = service_fn(async |_: Request<Empty>| Ok::<_, Status>(Response::new(Empty {})));
                    Grpc::new(ProstCodec::<Empty, Empty>::default()).unary(options, request).await
                }
            };
            Ok(answer)
        })
    }
}

type Devices = Pin<Box<dyn Stream<Item = Result<Listed, Status>> + Send>>;

/// The devices once; the stream stays open as long as the plugin runs.
fn listed() -> Devices {
    let device = |id: &&str| Device { id: (*id).to_owned(), health: "Healthy".to_owned() };
    let devices = DEVICES.iter().map(device).collect();
    stream::once(async { Ok(Listed { devices }) }).chain(stream::pending()).boxed()
}

fn allocated(request: AllocateRequest) -> Allocated {
    let answer = |container: ContainerRequest| {
        let visible = ("NVIDIA_VISIBLE_DEVICES".to_owned(), container.ids.join(","));
        ContainerAnswer { envs: [visible].into() }
    };
    Allocated { containers: request.containers.into_iter().map(answer).collect() }
}

/// Serves the devices and registers, as each start of the real plugin does. Ends with its pod.
pub(crate) fn play() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket_path = Path::new(DIR).join("nvidia-gpu.sock");
        std::fs::remove_file(&socket_path).ok();
        let listener = UnixListener::bind(&socket_path).unwrap();
        let incoming = stream::unfold(listener, async |listener| {
            let accepted = listener.accept().await.map(|(connection, _)| connection);
            Some((accepted, listener))
        });
        let serving = Server::builder().add_service(Plugin).serve_with_incoming(incoming);
        let (outcome, ()) = futures::join!(serving, register());
        outcome.unwrap();
        ExitCode::SUCCESS
    })
}

async fn register() {
    let kubelet = Endpoint::try_from(format!("unix://{DIR}/kubelet.sock")).unwrap().connect().await.unwrap();
    let request = RegisterRequest {
        version: "v1beta1".to_owned(),
        endpoint: "nvidia-gpu.sock".to_owned(),
        resource_name: "nvidia.com/gpu".to_owned(),
    };
    let mut client = tonic::client::Grpc::new(kubelet);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/v1beta1.Registration/Register");
    let codec = ProstCodec::<RegisterRequest, Empty>::default();
    client.unary(Request::new(request), path, codec).await.unwrap();
    println!("registered");
}
