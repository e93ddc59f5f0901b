// SPDX-License-Identifier: Apache-2.0
//! `gpu-kubelet-plugin cdi print`: what a container would get on this host, and why. It reads and changes nothing.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use dra_cdi::{Architecture, ClaimDevice, HookProgram, HookProgramError, Naming, RenderError, RenderedSpec, render};
use dra_files::HostFiles;
use dra_hardware::{DeviceIds, DriverFilesError, Host, NodeError};
use dra_model::{Advice, Capabilities, Capability, ClaimUid, Device, DeviceName, DeviceNode, IdError};
use serde_json::Value;

use crate::args::hook_settings;
use crate::driver_text::driver_text;
use crate::host_args::HostArgs;

/// Shows CDI specs as this driver writes them.
#[derive(Debug, Parser)]
#[command(name = "gpu-kubelet-plugin cdi", bin_name = "gpu-kubelet-plugin cdi", version)]
pub struct CdiCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the files of the driver, found or missing, and the specs of a container
    Print(Print),
}

#[derive(Debug, Args)]
struct Print {
    /// Device of which the spec of a claim is printed, such as gpu-9f7c3f9e; by default every GPU and existing MIG device
    device: Option<DeviceName>,
    /// What the container gets of the driver
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', default_value = "compute,utility")]
    capabilities: Vec<Capability>,
    #[command(flatten)]
    host: HostArgs,
    /// Directory of the hook program on the host; without it the specs have no hook
    #[arg(long, env = "CDI_HOOK_DIR", value_name = "DIR")]
    cdi_hook_dir: Option<PathBuf>,
    /// The hook program that the plugin installs there
    #[arg(long, env = "CDI_HOOK_PROGRAM", value_name = "FILE", default_value = "/usr/bin/gpu-cdi-hook")]
    cdi_hook_program: PathBuf,
}

/// Why a spec cannot be printed. The sections before it are.
#[derive(Debug, thiserror::Error)]
pub enum CdiPrintError {
    #[error("no files of the NVIDIA driver for containers")]
    Files(#[source] DriverFilesError),
    #[error("no device nodes for containers")]
    Nodes(#[source] NodeError),
    #[error("the specs have no hook")]
    Hook(#[source] HookProgramError),
    #[error("failed to render a CDI spec")]
    Render(#[source] RenderError),
    #[error("failed to name the claim of the example")]
    Name(#[source] IdError),
    #[error("{device} is not a device of this host")]
    Unknown { device: DeviceName },
    #[error("{device} is created when a claim for it is prepared, and has no device nodes now")]
    NotCreated { device: DeviceName },
}

impl Advice for CdiPrintError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Files(source) => source.advice(),
            Self::Nodes(source) => source.advice(),
            Self::Hook(source) => source.advice(),
            Self::Render(source) => source.advice(),
            Self::Unknown { .. } => Some("name one of its ResourceSlices, or none to see all that exist".into()),
            Self::Name(_) | Self::NotCreated { .. } => None,
        }
    }
}

/// The uid of the claim in the printed specs.
const EXAMPLE: &str = "00000000-0000-4000-8000-000000000000";

impl CdiCommand {
    /// The text for standard output, complete unless there is an error.
    pub fn run(self) -> (String, Result<(), CdiPrintError>) {
        let What::Print(print) = self.what;
        let mut text = String::new();
        let printed = print.sections(&mut text);
        (text, printed)
    }
}

impl Print {
    fn sections(self, text: &mut String) -> Result<(), CdiPrintError> {
        let capabilities = Capabilities::of(self.capabilities.iter().copied()).unwrap_or_default();
        let naming = Naming::new(&self.host.driver_name);
        let host = self.host.host();
        let report = host.driver_report().map_err(CdiPrintError::Files)?;
        text.push_str(&driver_text(&report, &capabilities));

        let files = host.driver_files().map_err(CdiPrintError::Files)?;
        let nodes = host.control_nodes().map_err(CdiPrintError::Nodes)?;
        let hook = self.hook_program()?;
        let base = render::base(&naming, &files, &nodes, Architecture::own(), hook.as_deref());
        let base = base.map_err(CdiPrintError::Render)?;
        let named = naming.base_devices(&files.version, &capabilities);
        add(text, &naming, &base, |kind, device| named.iter().any(|name| *name == format!("{kind}={device}")));

        let uid: ClaimUid = EXAMPLE.parse().map_err(CdiPrintError::Name)?;
        let devices = self.devices(&host, &capabilities)?;
        if !devices.is_empty() {
            let claim = render::claim(&naming, &uid, &devices).map_err(CdiPrintError::Render)?;
            add(text, &naming, &claim, |_, _| true);
        }
        Ok(())
    }

    /// Where the plugin installs it; nothing is installed here.
    fn hook_program(&self) -> Result<Option<PathBuf>, CdiPrintError> {
        let settings = |dir| hook_settings(self.cdi_hook_program.clone(), dir, &self.host.driver_name, "");
        let settings = self.cdi_hook_dir.as_deref().map(settings);
        let path = settings.map(|settings| HookProgram::new(Arc::new(HostFiles), settings).path());
        path.transpose().map_err(CdiPrintError::Hook)
    }

    /// The named device, or all that are there now.
    fn devices(&self, host: &Host, capabilities: &Capabilities) -> Result<Vec<ClaimDevice>, CdiPrintError> {
        let inventory = host.refresh();
        let known = inventory.devices_by_name();
        if let Some(name) = &self.device {
            let unknown = || CdiPrintError::Unknown { device: name.clone() };
            let device = known.get(name).copied().ok_or_else(unknown)?;
            let nodes = nodes(host, device, capabilities)?;
            return match nodes {
                Some(nodes) => Ok(vec![claimed(name, nodes)]),
                None => Err(CdiPrintError::NotCreated { device: name.clone() }),
            };
        }
        let mut devices = Vec::new();
        for (name, device) in known {
            if !matches!(device, Device::Shared(..)) {
                devices.extend(nodes(host, device, capabilities)?.map(|nodes| claimed(&name, nodes)));
            }
        }
        Ok(devices)
    }
}

fn claimed(device: &DeviceName, nodes: Vec<DeviceNode>) -> ClaimDevice {
    ClaimDevice { device: device.clone(), share: None, nodes, mps: None }
}

/// Nothing for a MIG device that does not exist yet.
fn nodes(
    host: &Host,
    device: Device<'_>,
    capabilities: &Capabilities,
) -> Result<Option<Vec<DeviceNode>>, CdiPrintError> {
    let ids = match device {
        Device::Gpu(gpu) | Device::Shared(gpu, _) => DeviceIds::Gpu { minor: gpu.minor },
        Device::Mig(gpu, mig) => DeviceIds::of_mig(gpu.minor, &mig.ids()),
        Device::Partition(..) => return Ok(None),
    };
    let mut nodes = host.device_nodes(ids).map_err(CdiPrintError::Nodes)?;
    if matches!(ids, DeviceIds::Gpu { .. }) && capabilities.contains(Capability::Graphics) {
        nodes.extend(host.dri_nodes(device.gpu().pci).map_err(CdiPrintError::Nodes)?);
    }
    Ok(Some(nodes))
}

/// Adds a spec with those of its devices that `is_selected` selects by kind and name.
fn add(text: &mut String, naming: &Naming, spec: &RenderedSpec, is_selected: impl Fn(&str, &str) -> bool) {
    let Ok(mut value) = serde_json::from_slice::<Value>(&spec.bytes) else { return };
    let kind = naming.kind(&spec.kind);
    if let Some(devices) = value.get_mut("devices").and_then(Value::as_array_mut) {
        let name = |device: &Value| device.get("name").and_then(Value::as_str).map(str::to_owned);
        devices.retain(|device| name(device).is_some_and(|name| is_selected(&kind, &name)));
    }
    // Writing to a String cannot fail.
    write!(text, "\n{}\n{value:#}\n", naming.file_name(&spec.kind)).ok();
}
