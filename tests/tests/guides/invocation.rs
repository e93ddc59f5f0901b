// SPDX-License-Identifier: Apache-2.0
//! Whether a program accepts its words: the real parsers decide, up to the point where a cluster would be needed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use clap::Parser as _;
use dra_kubectl_gpu::args::Args;
use dra_tests::chart::cluster_program;
use dra_tests::programs::built;
use dra_tests::source::root_dir;
use serde_json::Value;

use crate::shell::Invocation;

/// An address at which nothing listens.
const NO_SERVER: &str = "http://127.0.0.1:1";

/// Programs of nodes and of other projects, whose words are not checked.
const FOREIGN: [&str; 22] = [
    "apt-get",
    "cargo",
    "cd",
    "dmesg",
    "fuser",
    "git",
    "grep",
    "head",
    "install",
    "jq",
    "ls",
    "modprobe",
    "nvidia-smi",
    "rustup",
    "sed",
    "setsebool",
    "ssh",
    "sudo",
    "systemctl",
    "tail",
    "tar",
    "cat",
];

/// Words that stand for others of a certain form.
const PLACEHOLDERS: [(&str, &str); 3] = [("UUID", SOME_GPU), ("some", SOME_GPU), ("SHELL", "bash")];

const SOME_GPU: &str = "GPU-12345678-1111-2222-3333-444444444444";

fn meant(word: &str) -> &str {
    PLACEHOLDERS.iter().find(|(name, _)| *name == word).map_or(word, |(_, meant)| meant)
}

/// What is wrong with an invocation in a directory.
pub(crate) fn faults(invocation: &Invocation, dir: &Path) -> Vec<String> {
    let words: Vec<&str> = invocation.words.iter().map(|word| meant(word)).collect();
    let found = match words.as_slice() {
        ["make", rest @ ..] => make(rest),
        ["kubectl", "krew", ..]
        | ["docker", "build", ..]
        | ["docker", "push", _]
        | ["sha256sum", "-c", _]
        | ["skopeo", "inspect", ..] => Ok(()),
        ["kubectl", "gpu", rest @ ..] | ["kubectl-gpu", rest @ ..] => gpu(rest),
        ["kubectl", rest @ ..] => kubectl(rest, &invocation.input, dir),
        ["helm", rest @ ..] => helm(rest, dir),
        ["target/image/gpu-import" | "gpu-import", rest @ ..] => own("gpu-import", rest),
        ["gpu-kubelet-plugin", rest @ ..] => own("gpu-kubelet-plugin", rest),
        [program, ..] if FOREIGN.contains(program) => Ok(()),
        other => {
            Err(format!("{:?} is a program that the tests do not know: add it to tests/tests/guides", other.first()))
        }
    };
    let files = missing_files(&words, dir).into_iter().map(|file| format!("there is no file {file}"));
    let all: Vec<String> = found.err().into_iter().chain(files).collect();
    all.into_iter().map(|fault| format!("`{}`: {fault}", words.join(" "))).collect()
}

/// The values of `-f`, `--set-file` and the like that are no files. A placeholder is in capitals.
fn missing_files(words: &[&str], dir: &Path) -> Vec<String> {
    let of_flag =
        words.windows(2).filter(|pair| ["-f", "--filename", "--values"].contains(&pair[0])).map(|pair| pair[1]);
    let set =
        words.windows(2).filter(|pair| pair[0] == "--set-file").filter_map(|pair| Some(pair[1].split_once('=')?.1));
    let is_log = words.get(1) == Some(&"logs");
    let named = of_flag.filter(|_| !is_log).chain(set).filter(|name| *name != "-" && *name != "FILE");
    named.filter(|name| !dir.join(name).exists()).map(str::to_owned).collect()
}

fn make(words: &[&str]) -> Result<(), String> {
    let makefile = fs::read_to_string(root_dir().join("Makefile")).unwrap();
    let phony = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap();
    let is_target = |word: &&&str| !word.starts_with('-') && !word.contains('=');
    match words.iter().filter(is_target).find(|word| !phony.split(' ').any(|target| target == **word)) {
        None => Ok(()),
        Some(word) => Err(format!("the Makefile has no target {word}")),
    }
}

fn gpu(words: &[&str]) -> Result<(), String> {
    let parsed = Args::try_parse_from([&["kubectl-gpu"], words].concat());
    parsed.map(|_| ()).map_err(|error| error.to_string())
}

/// One of our programs reads its words from left to right, and ends at `--help`.
fn own(name: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(built(name)).args(words).arg("--help").stdin(Stdio::null()).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Runs a client of Kubernetes without a cluster: it must come as far as to ask for one.
fn asks_a_server(program: &str, arguments: &[&str], words: &[&str], dir: &Path, input: &str) -> Result<(), String> {
    let home = dir.join(".home");
    let mut command = Command::new(cluster_program(program));
    command.args(words).args(arguments).env("HOME", &home).env("KUBECONFIG", "").current_dir(dir);
    let input_path = dir.join(".input");
    fs::write(&input_path, if input.is_empty() { SOME_OBJECT } else { input }).unwrap();
    let output = command.stdin(fs::File::open(&input_path).unwrap()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let has_asked = ["connection refused", "was refused"].iter().any(|words| text.contains(words));
    if output.status.success() || has_asked { Ok(()) } else { Err(text) }
}

fn kubectl(words: &[&str], input: &str, dir: &Path) -> Result<(), String> {
    let (words, inner) = match words.iter().position(|word| *word == "--") {
        Some(at) => (&words[..at], Some(&words[at + 1..])),
        None => (words, None),
    };
    if let Some(["gpu-kubelet-plugin", rest @ ..]) = inner {
        own("gpu-kubelet-plugin", rest)?;
    }
    // A proxy asks no server before its first client does.
    if words.first() == Some(&"proxy") {
        return asks_a_server("kubectl", &["--help"], words, dir, "");
    }
    // The answer of another program is no manifest of the document.
    let input = if input == "some\n" { "" } else { input };
    manifest(input)?;
    let server = format!("--server={NO_SERVER}");
    let rest: &[&str] = if inner.is_some() { &["--", "true"] } else { &[] };
    asks_a_server("kubectl", &[&[server.as_str(), "--request-timeout=5s"], rest].concat(), words, dir, input)
}

/// What a command reads from a pipe that no program fills.
const SOME_OBJECT: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: some}\n";

/// The objects that a command reads have a kind and an API.
fn manifest(input: &str) -> Result<(), String> {
    if input.is_empty() {
        return Ok(());
    }
    let objects: Vec<Value> = serde_saphyr::from_multiple(input).map_err(|error| error.to_string())?;
    let has = |object: &Value, field: &str| object[field].as_str().is_some_and(|text| !text.is_empty());
    match objects.iter().find(|object| !has(object, "kind") || !has(object, "apiVersion")) {
        None => Ok(()),
        Some(object) => Err(format!("{object} is no object of Kubernetes")),
    }
}

/// helm parses the flags, and the chart judges the values.
/// The chart of a release is the one of this tree.
const RELEASED_CHART: &str = "oci://registry.example.com/prefix/charts/gpu-dra-driver";

fn helm(words: &[&str], dir: &Path) -> Result<(), String> {
    let chart_dir = root_dir().join("deploy/chart").display().to_string();
    let words: Vec<&str> = words.iter().map(|&word| if word == RELEASED_CHART { &chart_dir } else { word }).collect();
    let words = words.as_slice();
    asks_a_server("helm", &["--kube-apiserver", NO_SERVER], words, dir, "")?;
    let ["install" | "upgrade", _, chart, ..] = words else { return Ok(()) };
    let settings = words.windows(2).filter(|pair| ["--set", "--set-file", "-f", "--values"].contains(&pair[0]));
    let mut command = Command::new(cluster_program("helm"));
    command.args(["template", "release", chart, "--kube-version", "1.37.0"]).args(settings.flatten()).current_dir(dir);
    let output = command.output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The values of the chart, as `a.b.c`.
pub(crate) fn values() -> &'static Value {
    static VALUES: OnceLock<Value> = OnceLock::new();
    let read = || fs::read_to_string(root_dir().join("deploy/chart/values.yaml")).unwrap();
    VALUES.get_or_init(|| serde_saphyr::from_str(&read()).unwrap())
}
