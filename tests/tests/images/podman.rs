// SPDX-License-Identifier: Apache-2.0
//! podman, which reads the specs of a directory itself and starts a container by runc.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::image::Image;

/// In a mount namespace with the specs where podman reads them, and with the device files of the simulated machine in `/dev`:
/// in a user namespace a runtime binds those of the host. Removes its cgroups, in which conmon runs a little longer than podman.
const SCRIPT: &str = r#"
mount -t tmpfs tmpfs /run
mkdir /run/cdi /run/dev
mount --bind "$CDI_DIR" /run/cdi
if [ -d /etc/cdi ]; then mount -t tmpfs tmpfs /etc/cdi; fi
mount --rbind /dev /run/dev
mount -t tmpfs -o dev,mode=755 tmpfs /dev
cp -a /run/dev/null /run/dev/zero /run/dev/full /run/dev/random /run/dev/urandom /run/dev/tty /dev
mkdir /dev/pts /dev/shm /dev/mqueue
mount --rbind /run/dev/pts /dev/pts
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd
[ -z "$DEVICE_DIR" ] || cp -a "$DEVICE_DIR"/nvidia* /dev
ended=0
podman --root "$STORE" --runroot /run/podman --storage-driver vfs --cgroup-manager cgroupfs --runtime runc \
    --events-backend none run --rm --network none --cgroup-parent "/gpu-dra-$$" \
    --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$@" || ended=$?
remove_cgroups() {
    find /sys/fs/cgroup -depth -type d \( -path "*/gpu-dra-$$" -o -path "*/gpu-dra-$$/*" \) -exec rmdir {} + 2>/dev/null
}
tries=0
until remove_cgroups || [ "$tries" -eq 1000 ]; do tries=$((tries + 1)); done
exit $ended
"#;

/// What containers have of the host.
#[derive(Debug)]
pub(crate) struct Podman<'a> {
    pub(crate) cdi_dir: &'a Path,
    /// Device files of the host, if containers have a user namespace.
    pub(crate) device_dir: Option<&'a Path>,
    /// Qualified CDI names.
    pub(crate) devices: Vec<String>,
}

impl Podman<'_> {
    /// The standard output of a program in a container.
    pub(crate) fn run(&self, image: &Image, options: &[&str], command: &[&str]) -> Vec<u8> {
        let store = TempDir::new().unwrap();
        let mut podman = Command::new("unshare");
        podman.args(["--mount", "--", "sh", "-ec", SCRIPT, "sh"]).args(options);
        podman.args(self.devices.iter().flat_map(|device| ["--device", device]));
        podman.arg("--rootfs").arg(format!("{}:O", image.root().display())).args(command);
        podman.env("CDI_DIR", self.cdi_dir).env("STORE", store.path());
        podman.env("DEVICE_DIR", self.device_dir.unwrap_or_else(|| Path::new("")));
        let output = podman.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?} {options:?} {command:?}: {errors}", image.layout);
        output.stdout
    }

    /// What the program of the image prints of the libraries, line by line.
    pub(crate) fn answers(&self, image: &Image, options: &[&str]) -> Vec<String> {
        let printed = String::from_utf8(self.run(image, options, &["/program"])).unwrap();
        printed.lines().map(str::to_owned).collect()
    }
}
