// SPDX-License-Identifier: Apache-2.0
//! The processes of the node that hold a GPU, as an administrator would look for them: by `fuser`, with command and pod.
//!
//! NVML names only processes with a compute context. A monitor or nvidia-persistenced just has the device file open. The pod of a
//! process is in the path of its cgroup, by UID, or in the paths of the files that the kubelet mounts into every container, and the
//! kubelet names the log directory of the pod by namespace, name and UID.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, Metadata};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where the processes of the node and the logs of its pods are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRoots {
    /// procfs of the PID namespace of the host.
    pub proc: PathBuf,
    /// The kubelet's `podLogsDir`.
    pub pod_logs: PathBuf,
}

impl Default for ProcessRoots {
    fn default() -> Self {
        Self { proc: "/proc".into(), pod_logs: "/var/log/pods".into() }
    }
}

/// A process of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// In the PID namespace of the host.
    pub id: u32,
    /// As the kernel has it, with at most 15 bytes. Any process chooses its own.
    pub command: Option<String>,
    pub pod: Option<Pod>,
}

/// The pod of a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        match (&self.command, &self.pod) {
            (Some(command), Some(pod)) => write!(f, " ({command} of pod {pod})"),
            (Some(command), None) => write!(f, " ({command})"),
            (None, Some(pod)) => write!(f, " (of pod {pod})"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The command of this driver's own processes, as the kernel cuts it: they hold every GPU by NVML and block nothing.
const OWN: &str = "gpu-kubelet-plu";

/// For the search of open files, of which a process may have millions.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(1);

impl ProcessRoots {
    /// A process by id; what cannot be read is absent.
    pub fn process(&self, id: u32) -> Process {
        let dir = self.proc.join(id.to_string());
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        let command = read("comm").map(|text| printable(text.trim_end()));
        let uid = read("cgroup").and_then(|text| uid_of_cgroup(&text));
        let uid = uid.or_else(|| uid_of_mounts(&read("mountinfo")?));
        let pod = uid.and_then(|uid| self.pod(&uid));
        Process { id, command, pod }
    }

    /// The ids of processes that have a file open, but those of this driver; as many as are found within a second.
    pub fn with_open(&self, is_it: impl Fn(&Metadata) -> bool) -> BTreeSet<u32> {
        let until = Instant::now() + SEARCH_TIMEOUT;
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ids = ids.take_while(|_| Instant::now() < until);
        ids.filter(|id| self.has_open(*id, &is_it, until) && !self.is_own(*id)).collect()
    }

    fn has_open(&self, id: u32, is_it: &impl Fn(&Metadata) -> bool, until: Instant) -> bool {
        let files = fs::read_dir(self.proc.join(id.to_string()).join("fd")).into_iter().flatten().flatten();
        let files = files.take_while(|_| Instant::now() < until);
        files.filter_map(|file| fs::metadata(file.path()).ok()).any(|metadata| is_it(&metadata))
    }

    fn is_own(&self, id: u32) -> bool {
        let command = fs::read_to_string(self.proc.join(id.to_string()).join("comm")).unwrap_or_default();
        command.trim_end() == OWN
    }

    /// The pod of a UID, whose log directory is `NAMESPACE_NAME_UID`; the names have no underscore.
    fn pod(&self, uid: &str) -> Option<Pod> {
        let entries = fs::read_dir(&self.pod_logs).ok()?.flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).find_map(|name| {
            let mut parts = name.splitn(3, '_');
            let (namespace, pod, found) = (parts.next()?, parts.next()?, parts.next()?);
            (found == uid).then(|| Pod { namespace: namespace.to_owned(), name: pod.to_owned() })
        })
    }
}

/// A process may have any text as its command.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// The UID in `kubepods-burstable-pod<uid>.slice` (systemd, with underscores) or `pod<uid>` (cgroupfs).
fn uid_of_cgroup(cgroup: &str) -> Option<String> {
    let of_component = |component: &str| {
        let (_, uid) = component.strip_suffix(".slice").unwrap_or(component).rsplit_once("pod")?;
        uid_of(&uid.replace('_', "-"))
    };
    cgroup.lines().flat_map(|line| line.split('/')).find_map(of_component)
}

/// The UID in `<kubelet>/pods/<uid>/etc-hosts`, which is mounted as `/etc/hosts`, or in that of the termination log.
fn uid_of_mounts(mountinfo: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        let is_of_kubelet = ["/etc/hosts", "/dev/termination-log"].contains(&mount_point);
        // A volume of the pod may contain such a path again.
        let (_, below) = root.split_once("/pods/").filter(|_| is_of_kubelet)?;
        uid_of(below.split('/').next()?)
    })
}

/// A UID, or the hash of a static pod.
fn uid_of(text: &str) -> Option<String> {
    let is_uid = text.len() >= 32 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    is_uid.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::Path;

    use super::*;

    const UID: &str = "0f9c2d0e-5b1c-4a57-9d0c-3f4a1b2c3d4e";

    fn roots(dir: &Path) -> ProcessRoots {
        ProcessRoots { proc: dir.join("proc"), pod_logs: dir.join("pods") }
    }

    fn start(roots: &ProcessRoots, id: u32, command: &str, cgroup: &str, open: &[&str]) {
        let dir = roots.proc.join(id.to_string());
        fs::create_dir_all(dir.join("fd")).unwrap();
        fs::write(dir.join("comm"), format!("{command}\n")).unwrap();
        fs::write(dir.join("cgroup"), cgroup).unwrap();
        for (number, path) in open.iter().enumerate() {
            symlink(path, dir.join("fd").join(number.to_string())).unwrap();
        }
    }

    #[test]
    fn a_process_is_named_with_its_command_and_its_pod() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(dir.path());
        fs::create_dir_all(roots.pod_logs.join(format!("monitoring_dcgm-exporter-x2b7k_{UID}"))).unwrap();
        fs::create_dir_all(roots.pod_logs.join("default_other_11111111-5b1c-4a57-9d0c-3f4a1b2c3d4e")).unwrap();
        let slice = format!(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-1.scope",
            UID.replace('-', "_")
        );
        start(&roots, 7, "dcgm-exporter", &slice, &[]);
        start(&roots, 8, "nvidia-persiste", "0::/system.slice/nvidia-persistenced.service\n", &[]);
        start(&roots, 9, "a\u{1b}[2Jb", "", &[]);
        let text = |id| roots.process(id).to_string();
        assert_eq!(text(7), "7 (dcgm-exporter of pod monitoring/dcgm-exporter-x2b7k)");
        assert_eq!(
            (text(8), text(9), text(4711)),
            ("8 (nvidia-persiste)".to_owned(), "9 (a?[2Jb)".to_owned(), "4711".to_owned())
        );
    }

    #[test]
    fn the_uid_of_a_pod_is_in_every_layout_of_cgroups() {
        let systemd = UID.replace('-', "_");
        for path in [
            format!("0::/kubepods.slice/kubepods-pod{systemd}.slice/cri-containerd-1.scope"),
            format!("0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{systemd}.slice/crio-1.scope"),
            format!("0::/../../kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice/cri-containerd-1.scope"),
            format!("0::/kubepods/burstable/pod{UID}/1"),
            format!("12:memory:/kubepods/pod{UID}/1\n1:name=systemd:/kubepods/pod{UID}/1"),
        ] {
            assert_eq!(uid_of_cgroup(&path).as_deref(), Some(UID), "{path}");
        }
        // A static pod has a hash.
        assert_eq!(
            uid_of_cgroup("0::/kubepods/podd41d8cd98f00b204e9800998ecf8427e/1").as_deref(),
            Some("d41d8cd98f00b204e9800998ecf8427e")
        );
        for path in [
            "0::/",
            "0::/kubepods.slice/kubepods-burstable.slice",
            "0::/user.slice/podman-123.scope",
            "0::/system.slice/pod.service",
        ] {
            assert_eq!(uid_of_cgroup(path), None, "{path}");
        }
    }

    #[test]
    fn the_uid_of_a_pod_is_in_the_mounts_of_the_kubelet() {
        let root = "24 23 0:22 / / rw - overlay overlay rw";
        let volume =
            "25 24 8:1 /var/lib/kubelet/pods/11111111-5b1c-4a57-9d0c-3f4a1b2c3d4e/volumes/x /x rw - ext4 /dev/sda1 rw";
        let hosts =
            format!("26 24 8:1 /var/lib/kubelet/pods/{UID}/etc-hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw");
        let log = format!("27 24 8:2 /pods/{UID}/containers/a/0f9c2d0e /dev/termination-log rw - xfs /dev/sdb1 rw");
        let inside = format!(
            "28 24 8:1 /var/lib/kubelet/pods/{UID}/volumes/a/pods/11111111-5b1c-4a57-9d0c-3f4a1b2c3d4e/x /etc/hosts rw - ext4 /dev/sda1 rw"
        );
        for lines in [[root, volume, &hosts], [root, volume, &log], [root, volume, &inside]] {
            assert_eq!(uid_of_mounts(&lines.join("\n")).as_deref(), Some(UID), "{lines:?}");
        }
        assert_eq!(uid_of_mounts(&[root, volume].join("\n")), None);
    }

    #[test]
    fn who_has_a_file_open_is_found_by_the_file_and_not_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(dir.path());
        let (device, other) = (dir.path().join("nvidia0"), dir.path().join("other/nvidia0"));
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(&device, "").unwrap();
        fs::write(&other, "").unwrap();
        let wanted = fs::metadata(&device).unwrap().ino();
        let is_it = |metadata: &Metadata| metadata.ino() == wanted;
        assert_eq!(roots.with_open(is_it), BTreeSet::new());
        let [device, other] = [&device, &other].map(|path| path.to_str().unwrap());
        start(&roots, 1, "systemd", "", &["/dev/null", "/nonexistent"]);
        start(&roots, 2, "python3", "", &["/dev/null", device]);
        start(&roots, 3, "python3", "", &[other]);
        start(&roots, 4, "gpu-kubelet-plu", "", &[device]);
        start(&roots, 5, "g", "", &[device]);
        assert_eq!(roots.with_open(is_it), [2, 5].into());
    }
}
