// SPDX-License-Identifier: Apache-2.0
//! The versions that the driver supports, as the tables in README.md and docs/support.md have them. Pure.

use dra_model::node_check::{Check, Problem};

/// What a minor version of Kubernetes offers.
struct Kubernetes {
    minor: u32,
    offers: &'static str,
}

const PLAIN: &str =
    "GPUs, or the MIG devices of administrators, without shared counters: whole GPUs in MIG mode are not published";

const KUBERNETES: [Kubernetes; 4] = [
    Kubernetes { minor: 34, offers: PLAIN },
    Kubernetes { minor: 35, offers: PLAIN },
    Kubernetes { minor: 36, offers: "shared counters, MIG devices on demand, extended resources" },
    Kubernetes { minor: 37, offers: "shares of GPUs; the end-to-end tests run on this version" },
];

/// How a container runtime has CDI.
struct Runtime {
    /// As in the name of the runtime that the kubelet reports.
    scheme: &'static str,
    name: &'static str,
    /// The first version, major and minor.
    since: (u32, u32),
    /// What must be set; nothing where CDI is on by default.
    setting: Option<&'static str>,
}

/// The newest first.
const RUNTIMES: [Runtime; 3] = [
    Runtime { scheme: "containerd", name: "containerd 2", since: (2, 0), setting: None },
    Runtime { scheme: "cri-o", name: "CRI-O", since: (1, 23), setting: None },
    Runtime { scheme: "containerd", name: "containerd 1.7", since: (1, 7), setting: Some("enable_cdi = true") },
];

/// The version of the API server or of a kubelet, such as `v1.37.2`.
pub fn kubernetes(subject: &str, version: &str) -> Check {
    let oldest = KUBERNETES.first().map_or(0, |oldest| oldest.minor);
    let Some((major, minor)) = numbers(version.trim_start_matches('v')) else {
        return Check::good(subject, format!("Kubernetes {version}, which this program does not know"));
    };
    if (major, minor) < (1, oldest) {
        let cause = format!("Kubernetes {version} is older than 1.{oldest}");
        return Check::bad(subject, Problem::error(cause, format!("upgrade to Kubernetes 1.{oldest} or later")));
    }
    let newest = KUBERNETES.iter().rev().find(|known| known.minor <= minor);
    let offers = newest.map_or("", |known| known.offers.split(';').next().unwrap_or_default());
    Check::good(subject, format!("Kubernetes {version}: {offers}"))
}

/// The container runtime as the kubelet reports it, such as `containerd://2.3.7`.
pub fn runtime(text: &str) -> Check {
    let subject = "container runtime";
    let (scheme, version) = text.split_once("://").unwrap_or((text, ""));
    let mut known = RUNTIMES.iter().filter(|runtime| runtime.scheme == scheme).peekable();
    if known.peek().is_none() {
        let names: Vec<&str> = RUNTIMES.iter().map(|runtime| runtime.name).collect();
        let cause = format!("{text} is not known to have CDI, by which containers get GPUs");
        return Check::bad(subject, Problem::warning(cause, format!("use one of: {}", names.join(", "))));
    }
    let Some(found) = numbers(version) else { return Check::good(subject, text) };
    match known.find(|runtime| found >= runtime.since) {
        Some(Runtime { setting: None, .. }) => Check::good(subject, format!("{text}: CDI is on by default")),
        Some(Runtime { setting: Some(setting), .. }) => {
            let cause = format!("{text} has CDI off by default");
            let fix = format!("set `{setting}` in its configuration, if that is not done, or upgrade it");
            Check::bad(subject, Problem::warning(cause, fix))
        }
        None => {
            let cause = format!("{text} has no CDI, by which containers get GPUs");
            Check::bad(subject, Problem::error(cause, "upgrade the container runtime"))
        }
    }
}

/// Major and minor version.
pub fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use dra_model::node_check::Severity;

    use super::*;

    /// The rows of README.md that this file must agree with.
    fn rows() -> Vec<String> {
        let mut rows: Vec<String> = Vec::new();
        for offers in KUBERNETES.chunk_by(|one, other| one.offers == other.offers) {
            let versions: Vec<String> = offers.iter().map(|known| format!("1.{}", known.minor)).collect();
            rows.push(format!("| Kubernetes {} | {} |", versions.join(", "), offers[0].offers));
        }
        let by_default: Vec<&str> =
            RUNTIMES.iter().filter(|runtime| runtime.setting.is_none()).map(|runtime| runtime.name).collect();
        let set = RUNTIMES.iter().filter_map(|runtime| Some(format!("{} with `{}`", runtime.name, runtime.setting?)));
        let set: Vec<String> = set.collect();
        rows.push(format!("| container runtime | {}; {} |", by_default.join(", "), set.join(", ")));
        rows
    }

    #[test]
    fn the_tables_of_the_documents_are_this_one() {
        for (document, section) in
            [("README.md", "Compatibility"), ("docs/support.md", "Kubernetes and container runtimes")]
        {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(document);
            let text = std::fs::read_to_string(path).unwrap();
            let table = text.split(&format!("\n## {section}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
            let is_known = |line: &&str| line.starts_with("| Kubernetes ") || line.starts_with("| container runtime ");
            let found: Vec<&str> = table.lines().filter(is_known).collect();
            assert_eq!(found, rows(), "{document}");
        }
    }

    #[test]
    fn versions_are_judged() {
        for (version, severity) in [
            ("v1.33.9", Some(Severity::Error)),
            ("v1.34.0", None),
            ("v1.37.2-gke.1", None),
            ("v1.39.0", None),
            ("of an unknown version", None),
        ] {
            let check = kubernetes("API server", version);
            assert_eq!(check.problems.first().map(|problem| problem.severity), severity, "{check:?}");
        }
        assert!(kubernetes("API server", "v1.38.0").found.ends_with(": shares of GPUs"));
        for (text, severity) in [
            ("containerd://2.3.7", None),
            ("containerd://1.7.27", Some(Severity::Warning)),
            ("containerd://1.6.9", Some(Severity::Error)),
            ("cri-o://1.34.1", None),
            ("cri-o://1.22.0", Some(Severity::Error)),
            ("docker://28.0.1", Some(Severity::Warning)),
        ] {
            let check = runtime(text);
            assert_eq!(check.problems.first().map(|problem| problem.severity), severity, "{check:?}");
        }
    }
}
