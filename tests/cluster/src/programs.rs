// SPDX-License-Identifier: Apache-2.0
//! Builds the cluster's programs from the pinned Go modules, once.
//!
//! Each module's output lies in a directory of the cache that is named by
//! everything it is built from; `bin` directories with all programs are hard links
//! to them. Progress is printed to standard error.

use crate::{
    cache, command,
    error::{ClusterError, Result},
    files, wait,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A Go package and the names its binary is called by.
#[derive(Debug)]
pub(crate) struct Target {
    pub package: &'static str,
    pub names: &'static [&'static str],
    pub ldflags: &'static str,
    pub tags: &'static str,
    pub cgo: bool,
}

/// How the programs are compiled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Build {
    /// As their releases are.
    #[default]
    Optimised,
    /// In less time, for the first cluster of a new user; the packages below `k8s.io/api/core/v1` took two thirds of it.
    Unoptimised,
}

impl Build {
    /// The same as of the calling program, which has debug assertions unless it is optimised.
    pub const fn of(debug_assertions: bool) -> Self {
        if debug_assertions { Self::Unoptimised } else { Self::Optimised }
    }

    fn compiler_flags(self) -> &'static str {
        match self {
            Self::Optimised => "",
            Self::Unoptimised => "-gcflags=all=-N -l",
        }
    }
}

/// A Go module of `tests/cluster/go` and what is built from it.
#[derive(Debug)]
pub(crate) struct Module {
    pub name: &'static str,
    /// How long a first build takes on two cores.
    pub takes: &'static str,
    pub targets: &'static [Target],
}

pub(crate) const PLAIN: Target = Target { package: ".", names: &[], ldflags: "-s -w", tags: "", cgo: false };

const CONTAINERD: Target = Target { tags: "no_btrfs,no_devmapper,no_zfs", ..PLAIN };

const MODULES: [Module; 4] = [
    Module {
        name: "kubernetes",
        takes: "about 8 minutes",
        targets: &[Target {
            names: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"],
            // Without a version the kubelet and the API server report v0.0.0 and refuse each other.
            ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 \
                      -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37",
            ..PLAIN
        }],
    },
    Module {
        name: "node",
        takes: "about 1 minute",
        targets: &[
            Target { package: "go.etcd.io/etcd/server/v3", names: &["etcd"], ..PLAIN },
            Target {
                package: "github.com/containerd/containerd/v2/cmd/containerd",
                names: &["containerd"],
                ..CONTAINERD
            },
            Target {
                package: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                names: &["containerd-shim-runc-v2"],
                ..CONTAINERD
            },
            Target { package: "github.com/containerd/containerd/v2/cmd/ctr", names: &["ctr"], ..CONTAINERD },
        ],
    },
    Module {
        name: "helm",
        takes: "about 2 minutes",
        targets: &[Target { package: "helm.sh/helm/v4/cmd/helm", names: &["helm"], ..PLAIN }],
    },
    Module {
        name: "runc",
        takes: "about 10 seconds",
        targets: &[Target {
            package: "github.com/opencontainers/runc",
            names: &["runc"],
            ldflags: "-s -w -X main.version=1.5.2",
            tags: "seccomp",
            cgo: true,
        }],
    },
];

/// The built programs.
#[derive(Debug, Clone)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// The directory that holds all of them, for a `PATH`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of one of them, such as `kubectl`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }
}

/// Builds what the cache does not hold and returns where the programs are. Optimised programs that are there serve every caller.
pub fn build_programs(build: Build) -> Result<Programs> {
    let _lock = cache::lock(&cache::dir().join("build.lock"))?;
    let build = if are_built(Build::Optimised)? { Build::Optimised } else { build };
    let mut modules = Vec::new();
    for module in &MODULES {
        modules.push((module, build_module(module, build)?));
    }
    let keys = modules.iter().map(|(_, dir)| dir.as_os_str().as_encoded_bytes());
    let dir = cache::dir().join(cache::key(keys)).join("bin");
    if !dir.exists() {
        link_programs(&modules, &dir)?;
    }
    Ok(Programs { dir })
}

/// Builds a module that no cluster needs, unless the cache holds it, and returns the directory of its programs.
pub(crate) fn build_further(module: &Module) -> Result<PathBuf> {
    let _lock = cache::lock(&cache::dir().join("build.lock"))?;
    build_module(module, Build::Optimised)
}

fn are_built(build: Build) -> Result<bool> {
    for module in &MODULES {
        if !module_dir(module, build)?.exists() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn link_programs(modules: &[(&Module, PathBuf)], dir: &Path) -> Result<()> {
    let new_dir = dir.with_extension("new");
    fs::remove_dir_all(&new_dir).ok(); // left by a build that was cut
    files::make_dir(&new_dir)?;
    for (module, module_dir) in modules {
        for name in module.targets.iter().flat_map(|target| target.names) {
            let link_path = new_dir.join(name);
            fs::hard_link(module_dir.join(name), &link_path).map_err(files::error("link", &link_path))?;
        }
    }
    fs::rename(&new_dir, dir).map_err(files::error("rename", &new_dir))
}

fn build_module(module: &Module, build: Build) -> Result<PathBuf> {
    let dir = module_dir(module, build)?;
    if dir.exists() {
        return Ok(dir);
    }
    let started = Instant::now();
    eprintln!("building {} ({}, once)", module.name, module.takes);
    let new_dir = dir.with_extension("new");
    fs::remove_dir_all(&new_dir).ok(); // left by a build that was cut
    files::make_dir(&new_dir)?;
    for target in module.targets {
        build_target(module, target, build, &new_dir)?;
    }
    fs::rename(&new_dir, &dir).map_err(files::error("rename", &new_dir))?;
    eprintln!("built {} in {} s", module.name, started.elapsed().as_secs());
    Ok(dir)
}

pub(crate) fn source_dir(module: &Module) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(module.name)
}

/// Where the programs of a module are once they are built.
fn module_dir(module: &Module, build: Build) -> Result<PathBuf> {
    let name = format!("{}-{}", module.name, module_key(module, build)?);
    Ok(cache::dir().join("programs").join(name))
}

fn module_key(module: &Module, build: Build) -> Result<String> {
    let source_dir = source_dir(module);
    let mut parts = vec![format!("{:?}{}", module.targets, build.compiler_flags()).into_bytes()];
    for name in ["go.mod", "go.sum", "main.go"] {
        let path = source_dir.join(name);
        if path.exists() {
            parts.push(cache::bytes(&path)?);
        }
    }
    Ok(cache::key(parts.iter().map(Vec::as_slice)))
}

fn build_target(module: &Module, target: &Target, build: Build, dir: &Path) -> Result<()> {
    let [first, others @ ..] = target.names else {
        return Ok(());
    };
    let output_path = dir.join(first);
    let mut go = Command::new("go");
    go.current_dir(source_dir(module))
        .env("GOFLAGS", "")
        .env("CGO_ENABLED", if target.cgo { "1" } else { "0" })
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false"])
        .args(Some(build.compiler_flags()).filter(|flags| !flags.is_empty()))
        .args(["-tags", target.tags, "-ldflags", target.ldflags, "-o"])
        .arg(&output_path)
        .arg(target.package);
    run_with_progress(&mut go, module.name)?;
    for name in others {
        let link_path = dir.join(name);
        fs::hard_link(&output_path, &link_path).map_err(files::error("link", &link_path))?;
    }
    Ok(())
}

/// Runs a long program and prints every 15 seconds that it is still running.
fn run_with_progress(go: &mut Command, name: &str) -> Result<()> {
    let started = Instant::now();
    let child = go
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| command::start_error(go, source))?;
    let build = thread::spawn(move || child.wait_with_output());
    let mut reported = 0;
    wait::until("the build", Duration::from_hours(2), &cache::dir(), || {
        let quarters = started.elapsed().as_secs() / 15;
        if quarters > reported {
            reported = quarters;
            eprintln!("building {name}: {} s", reported * 15);
        }
        Ok(build.is_finished().then_some(()))
    })?;
    let output = build
        .join()
        .unwrap_or_else(|_| Err(std::io::Error::other("the thread that waited ended early")))
        .map_err(|source| ClusterError::Start { program: "go".to_owned(), source })?;
    command::text_of(go, &output).map(drop)
}
