// SPDX-License-Identifier: Apache-2.0
//! Libraries and programs as the driver's installer leaves them below `usr`.
//!
//! In: the simulated NVML library, and NVIDIA's own programs if they are available. Out: `lib….so.<version>` files with
//! their SONAME links, `usr/bin/nvidia-smi` and the MPS programs, and the files by which libraries for graphics are found. The
//! other libraries are stubs: they load and do nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::elf::{Function, shared_object};
use super::files::{TreeError, link, make_dir, write_file};

/// Where libraries go below the driver root.
pub const LIBRARY_DIR: &str = "usr/lib/x86_64-linux-gnu";

/// A stub: name without version, SONAME number, functions.
struct Stub {
    name: &'static str,
    soname: u32,
    functions: &'static [Function],
}

/// Libraries for each capability (NVIDIA driver README, "Installed Components"). `cuInit` answers 100, no device:
/// a simulated GPU runs nothing.
const STUBS: [Stub; 14] = [
    Stub {
        name: "libcuda.so",
        soname: 1,
        functions: &[Function { name: "cuInit", returns: 100 }, Function { name: "cuDeviceGetCount", returns: 100 }],
    },
    Stub { name: "libcudadebugger.so", soname: 1, functions: &[] },
    Stub { name: "libnvidia-ptxjitcompiler.so", soname: 1, functions: &[] },
    Stub { name: "libnvidia-nvvm.so", soname: 4, functions: &[] },
    Stub { name: "libnvidia-opencl.so", soname: 1, functions: &[] },
    Stub { name: "libnvidia-gpucomp.so", soname: 1, functions: &[] },
    Stub { name: "libnvcuvid.so", soname: 1, functions: &[] },
    Stub { name: "libnvidia-encode.so", soname: 1, functions: &[] },
    Stub { name: "libnvidia-cfg.so", soname: 1, functions: &[] },
    Stub { name: "libnvidia-allocator.so", soname: 1, functions: &[] },
    Stub { name: "libnvidia-opticalflow.so", soname: 1, functions: &[] },
    Stub { name: "libnvidia-ngx.so", soname: 1, functions: &[] },
    Stub { name: "libGLX_nvidia.so", soname: 0, functions: &[] },
    Stub { name: "libEGL_nvidia.so", soname: 0, functions: &[] },
];

/// Where the loaders of Vulkan and EGL look, and what they find.
const DATA: [(&str, &str); 2] = [
    (
        "etc/vulkan/icd.d/nvidia_icd.json",
        r#"{"file_format_version": "1.0.1", "ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.4.312"}}"#,
    ),
    (
        "usr/share/glvnd/egl_vendor.d/10_nvidia.json",
        r#"{"file_format_version": "1.0.0", "ICD": {"library_path": "libEGL_nvidia.so.0"}}"#,
    ),
];

/// Where NVIDIA's programs lie in an unpacked Debian package, by the name they get here.
const PROGRAMS: [(&str, &[&str]); 3] = [
    ("nvidia-smi", &["usr/bin/nvidia-smi", "usr/lib/nvidia/current/nvidia-smi", "usr/lib/nvidia/tesla/nvidia-smi"]),
    ("nvidia-cuda-mps-control", &["usr/bin/nvidia-cuda-mps-control"]),
    ("nvidia-cuda-mps-server", &["usr/sbin/nvidia-cuda-mps-server", "usr/bin/nvidia-cuda-mps-server"]),
];

/// Installs the library, the stubs and, if `programs_dir` is given, NVIDIA's programs found in it. Returns their names.
pub fn install(
    tree_dir: &Path,
    library_path: &Path,
    version: &str,
    programs_dir: Option<&Path>,
) -> Result<Vec<&'static str>, TreeError> {
    let library_dir = tree_dir.join(LIBRARY_DIR);
    make_dir(&library_dir)?;
    copy(library_path, &library_dir.join(format!("libnvidia-ml.so.{version}")))?;
    links(&library_dir, "libnvidia-ml.so", 1, version)?;
    for stub in &STUBS {
        let bytes = shared_object(&format!("{}.{}", stub.name, stub.soname), stub.functions);
        write_file(&library_dir.join(format!("{}.{version}", stub.name)), &bytes)?;
        links(&library_dir, stub.name, stub.soname, version)?;
    }
    for (path, text) in DATA {
        write_file(&tree_dir.join(path), text.as_bytes())?;
    }
    make_dir(&tree_dir.join("usr/bin"))?;
    let Some(programs_dir) = programs_dir else { return Ok(Vec::new()) };
    let mut installed = Vec::new();
    for (name, places) in PROGRAMS {
        let found = places.iter().map(|place| programs_dir.join(place)).find(|path| path.is_file());
        if let Some(path) = found {
            copy(&path, &tree_dir.join("usr/bin").join(name))?;
            installed.push(name);
        }
    }
    Ok(installed)
}

fn links(library_dir: &Path, name: &str, soname: u32, version: &str) -> Result<(), TreeError> {
    let soname = format!("{name}.{soname}");
    link(&library_dir.join(&soname), &PathBuf::from(format!("{name}.{version}")))?;
    link(&library_dir.join(name), Path::new(&soname))
}

/// Copies beside the target and renames, so that a running program is not changed.
fn copy(from: &Path, to: &Path) -> Result<(), TreeError> {
    let failed = |source| TreeError::Copy { from: from.to_path_buf(), to: to.to_path_buf(), source };
    let new_path = to.with_extension("new");
    std::fs::copy(from, &new_path).map_err(failed)?;
    std::fs::set_permissions(&new_path, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    std::fs::rename(&new_path, to).map_err(failed)
}

/// Gives the libraries another version, as an upgrade of the driver does.
pub fn upgrade(tree_dir: &Path, old_version: &str, new_version: &str) -> Result<(), TreeError> {
    let library_dir = tree_dir.join(LIBRARY_DIR);
    let all = STUBS.iter().map(|stub| (stub.name, stub.soname)).chain([("libnvidia-ml.so", 1)]);
    for (name, soname) in all {
        let old_path = library_dir.join(format!("{name}.{old_version}"));
        copy(&old_path, &library_dir.join(format!("{name}.{new_version}")))?;
        links(&library_dir, name, soname, new_version)?;
        super::remove(&old_path)?;
    }
    Ok(())
}
