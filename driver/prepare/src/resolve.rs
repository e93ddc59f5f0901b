// SPDX-License-Identifier: Apache-2.0
//! From the name of a device to the hardware it stands for. Pure.
//!
//! A name says which GPU it is about even when the device is gone, so that the answer can say why.

use dra_model::{Device, Gpu};
use dra_model::{DeviceName, DriverState, GpuEntry, GpuUuid, Inventory, MigDevice, MigIdentity, MigMode};

/// The identity behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A whole GPU.
    Gpu(GpuUuid),
    /// A MIG device.
    Mig(MigIdentity),
}

impl Target {
    /// The physical GPU.
    pub fn gpu(&self) -> &GpuUuid {
        match self {
            Self::Gpu(uuid) => uuid,
            Self::Mig(identity) => &identity.parent,
        }
    }
}

/// Why a name stands for nothing usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// There is no driver to ask.
    NoDriver {
        /// Why.
        reason: String,
    },
    /// Its GPU is broken.
    Broken {
        /// How.
        reason: String,
    },
    /// The whole GPU is cut.
    MigModeOn,
    /// The MIG device was destroyed.
    MigGone,
    /// Nothing on this node has or had such a name.
    Unknown,
}

/// The hardware a name stands for.
pub fn resolve(inventory: &Inventory, name: &DeviceName) -> Result<Target, Unresolved> {
    match inventory.devices_by_name().get(name) {
        Some(Device::Gpu(gpu)) => Ok(Target::Gpu(gpu.uuid.clone())),
        Some(Device::Mig(_, mig)) => Ok(Target::Mig(mig.identity.clone())),
        None => Err(why_not(inventory, name)),
    }
}

fn why_not(inventory: &Inventory, name: &DeviceName) -> Unresolved {
    if let DriverState::Missing { reason } = &inventory.driver {
        return Unresolved::NoDriver { reason: reason.clone() };
    }
    let names = inventory.names();
    let form_of = |uuid: &GpuUuid| name.as_str().strip_prefix(&names.gpu(uuid)).map(Form::of);
    let about = inventory.gpus.iter().find_map(|entry| match entry {
        GpuEntry::Good(gpu) => match form_of(&gpu.uuid)? {
            Form::Whole => Some(Unresolved::MigModeOn),
            Form::Mig => Some(Unresolved::MigGone),
            Form::Other => None,
        },
        GpuEntry::Broken { uuid, reason, .. } => match form_of(uuid.as_ref()?)? {
            Form::Whole | Form::Mig => Some(Unresolved::Broken { reason: reason.clone() }),
            Form::Other => None,
        },
    });
    about.unwrap_or(Unresolved::Unknown)
}

/// What follows the name of the GPU in the name of a device.
enum Form {
    Whole,
    Mig,
    Other,
}

impl Form {
    fn of(rest: &str) -> Self {
        match rest {
            "" => Self::Whole,
            rest if rest.starts_with("-mig-") => Self::Mig,
            _ => Self::Other,
        }
    }
}

/// A target as it is in a GPU that was just read, or what has become of it.
pub fn find<'a>(target: &Target, gpu: &'a Gpu) -> Result<Device<'a>, Unresolved> {
    match (target, &gpu.mig) {
        (Target::Gpu(_), MigMode::Unsupported | MigMode::Off(_)) => Ok(Device::Gpu(gpu)),
        (Target::Gpu(_), MigMode::On { .. }) => Err(Unresolved::MigModeOn),
        (Target::Mig(identity), _) => {
            let mig: Option<&MigDevice> = gpu.mig_devices().iter().find(|mig| mig.identity == *identity);
            mig.map(|mig| Device::Mig(gpu, mig)).ok_or(Unresolved::MigGone)
        }
    }
}
