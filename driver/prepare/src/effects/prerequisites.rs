// SPDX-License-Identifier: Apache-2.0
//! What the effects of a claim need besides its record, read and checked before the first of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use dra_cdi::{HookProgram, RenderedSpec, render};
use dra_model::{DriverFiles, Gpu, GpuUuid};

use crate::effects::device_files;
use crate::effects::error::EffectError;
use crate::state::loaded_driver::LoadedDriver;
use crate::state::node::{Node, Settings};

/// The values behind a CDI spec.
#[derive(Debug)]
pub(crate) struct Prerequisites<'a> {
    /// The GPUs of the claim, read under their locks.
    pub(crate) gpus: &'a BTreeMap<GpuUuid, Gpu>,
    /// The spec of the driver version in the record; absent where another version is loaded now.
    pub(crate) base: Option<RenderedSpec>,
    pub(crate) settings: &'a Settings,
}

/// The driver that is loaded when a call has arrived.
pub(crate) fn loaded_driver(node: &Node, arrival: Instant) -> Result<Arc<LoadedDriver>, EffectError> {
    node.driver.after(arrival, || {
        let files = node.host.driver_files().map_err(|source| EffectError::DriverFiles { source })?;
        let spec = base_spec(&files, node)?;
        Ok(LoadedDriver { files, spec })
    })
}

/// The spec of the loaded driver.
pub(crate) fn base_spec(files: &DriverFiles, node: &Node) -> Result<RenderedSpec, EffectError> {
    let nodes = node.host.control_nodes().map_err(|source| EffectError::ControlNodes { source })?;
    if let Some(dev_dir) = &node.settings.host_dev_dir {
        device_files::ensure(dev_dir, nodes.iter().map(|control| &control.node));
    }
    // Without the hook the libraries are mounted all the same. A reconciliation reports why it is not there.
    let hook = node.hook.as_ref().and_then(HookProgram::usable);
    let rendered = render::base(node.specs.naming(), files, &nodes, node.settings.architecture, hook.as_deref());
    rendered.map_err(|source| EffectError::Render { source })
}
