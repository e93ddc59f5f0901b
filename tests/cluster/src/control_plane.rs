// SPDX-License-Identifier: Apache-2.0
//! etcd, API server, scheduler and controller manager in the control plane's namespaces.
//!
//! Input: certificates and kubeconfigs. Output: a ready API server.

use crate::{
    certificates::{self, Authority, Subject},
    command,
    error::Result,
    files, kubeconfig,
    namespaces::Namespaces,
    network::{API_SERVICE_ADDRESS, POD_RANGE, SERVICE_RANGE, Subnet},
    programs::Programs,
    run_dir::RunDir,
    wait,
};
use std::{path::Path, process::Command, time::Duration};

/// Address of the API server.
pub(crate) fn server(subnet: Subnet) -> String {
    format!("https://{}:6443", subnet.control_plane())
}

/// Makes the identities of the control plane and the administrator.
pub(crate) fn write_identities(run_dir: &RunDir, subnet: Subnet) -> Result<Authority> {
    let dir = run_dir.pki_dir();
    let authority = Authority::create(&dir)?;
    certificates::write_token_key(&dir)?;
    let mut names: Vec<_> = ["", ".default", ".default.svc", ".default.svc.cluster.local"]
        .map(|suffix| format!("kubernetes{suffix}"))
        .into();
    names.extend([subnet.control_plane(), API_SERVICE_ADDRESS.to_owned(), "127.0.0.1".to_owned()]);
    let api_server = Subject { user: "kube-apiserver", group: None, names };
    authority.issue(&dir, "apiserver", &api_server)?;
    let admins = Some("system:masters");
    client(&authority, &dir, "kubelet-client", "kube-apiserver-kubelet-client", admins)?;
    let identities = [
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("admin", "admin", admins),
    ];
    for (name, user, group) in identities {
        let identity = client(&authority, &dir, name, user, group)?;
        let (ca, certificate, key) = (dir.join("ca.crt"), identity.certificate_path, identity.key_path);
        let config = kubeconfig::render(&server(subnet), &ca, &certificate, &key);
        files::write(&run_dir.path().join(format!("{name}.kubeconfig")), config.to_string())?;
    }
    Ok(authority)
}

/// Issues a certificate that only a client uses.
fn client(
    authority: &Authority,
    dir: &Path,
    name: &str,
    user: &str,
    group: Option<&str>,
) -> Result<certificates::Identity> {
    let names = Vec::new();
    authority.issue(dir, name, &Subject { user, group, names })
}

/// Starts the control plane and waits until its API server is ready.
pub(crate) fn start(run_dir: &RunDir, namespaces: &Namespaces, programs: &Programs, subnet: Subnet) -> Result<()> {
    let mut etcd = namespaces.command(programs.path("etcd"));
    etcd.arg("--data-dir").arg(run_dir.path().join("etcd"));
    // A crash of the machine terminates the whole cluster, so no durable writes are needed.
    etcd.args(["--unsafe-no-fsync", "--log-level=warn"]);
    let logs_dir = run_dir.logs_dir();
    command::start(&etcd, &logs_dir.join("etcd.log"))?;

    let mut api_server = namespaces.command(programs.path("kube-apiserver"));
    api_server.args(api_server_flags(&run_dir.pki_dir(), subnet));
    command::start(&api_server, &logs_dir.join("kube-apiserver.log"))?;
    let ready = || {
        let mut kubectl = Command::new(programs.path("kubectl"));
        kubectl.arg("--kubeconfig").arg(run_dir.kubeconfig_path());
        let answer = command::output(kubectl.args(["get", "--raw", "/readyz"]))?;
        Ok((answer == "ok").then_some(()))
    };
    wait::until("a ready API server", Duration::from_mins(2), &logs_dir, ready)?;

    for (name, flags) in
        [("kube-controller-manager", controller_manager_flags(run_dir)), ("kube-scheduler", scheduler_flags(run_dir))]
    {
        let mut program = namespaces.command(programs.path(name));
        program.args(flags);
        command::start(&program, &logs_dir.join(format!("{name}.log")))?;
    }
    Ok(())
}

fn api_server_flags(pki_dir: &Path, subnet: Subnet) -> Vec<String> {
    let pki = |name: &str| pki_dir.join(name).display().to_string();
    vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--advertise-address={}", subnet.control_plane()),
        "--secure-port=6443".to_owned(),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", pki("service-account.pub")),
        format!("--service-account-signing-key-file={}", pki("service-account.key")),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        // No kube-proxy runs beside the API server: it calls webhooks at the addresses of their pods.
        "--enable-aggregator-routing=true".to_owned(),
        // The driver's pod makes device nodes and mounts.
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

fn controller_manager_flags(run_dir: &RunDir) -> Vec<String> {
    let pki = |name: &str| run_dir.pki_dir().join(name).display().to_string();
    vec![
        kubeconfig_flag(run_dir, "controller-manager"),
        format!("--service-account-private-key-file={}", pki("service-account.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        "--use-service-account-credentials=true".to_owned(),
        // Each controller requests a token at its start; at the default rate that takes five seconds.
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=500".to_owned(),
        format!("--cluster-cidr={POD_RANGE}"),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--leader-elect=false".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

fn scheduler_flags(run_dir: &RunDir) -> Vec<String> {
    vec![
        kubeconfig_flag(run_dir, "scheduler"),
        // Prometheus has no identity here.
        "--authorization-always-allow-paths=/healthz,/livez,/readyz,/metrics".to_owned(),
        "--leader-elect=false".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

fn kubeconfig_flag(run_dir: &RunDir, name: &str) -> String {
    let path = run_dir.path().join(format!("{name}.kubeconfig"));
    format!("--kubeconfig={}", path.display())
}
