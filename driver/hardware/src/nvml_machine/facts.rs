// SPDX-License-Identifier: Apache-2.0
//! Everything that NVML reports about one GPU.
//!
//! Identity is queried first, so that the error of a later query can name the GPU. A query that the driver or the GPU does not
//! support becomes `None` or `Unknown`, except for UUID, PCI address and minor number, without which no container can use the
//! GPU. Any other failure makes the whole GPU broken, because a GPU that fails some queries is not reliable.

use std::sync::Arc;

use dra_model::{Bytes, GpuUuid, PciAddress, Version};
use dra_nvml::{Device, Nvml, NvmlError};

use super::constants::DriverConstants;
use super::profiles::{self, ProfileTable};
use super::subject::Subject;
use super::{mig, words};
use crate::gpu_error::GpuError;
use crate::machine::{GpuFacts, GpuSelector};

/// What cannot change while a driver is loaded.
#[derive(Debug, Default)]
pub(super) struct Constants {
    pub(super) profiles: DriverConstants<ProfileTable>,
    products: DriverConstants<Product>,
}

#[derive(Debug)]
struct Product {
    name: Option<String>,
    brand: &'static str,
    architecture: &'static str,
    compute_capability: Option<Version>,
    addressing_mode: Option<String>,
}

pub(super) fn read(
    nvml: &Arc<Nvml>,
    device: &Device<'_>,
    which: GpuSelector<'_>,
    constants: &Constants,
) -> Result<GpuFacts, GpuError> {
    let (subject, uuid, pci) = identity(device, which)?;
    let failed = |error| subject.failed(error);
    let memory = known(device.memory()).map_err(failed)?;
    let total = memory.map(|memory| memory.total);
    let profiles = || profiles::table(&constants.profiles, nvml, device, &uuid, total);
    let mig = mig::read(device, &subject, &uuid, total, profiles)?;
    let product = constants.products.get(nvml, &uuid, || product(device)).map_err(failed)?;
    Ok(GpuFacts {
        minor: device.minor_number().map_err(failed)?,
        product_name: product.name.clone(),
        brand: product.brand.to_owned(),
        architecture: product.architecture.to_owned(),
        compute_capability: product.compute_capability,
        memory: memory.map(|memory| Bytes(memory.total)),
        reserved: memory.and_then(|memory| memory.reserved).map(Bytes),
        addressing_mode: product.addressing_mode.clone(),
        mig,
        uuid,
        pci,
    })
}

fn product(device: &Device<'_>) -> Result<Product, NvmlError> {
    let capability = known(device.compute_capability())?;
    Ok(Product {
        name: known(device.name())?,
        brand: words::brand(known(device.brand())?),
        architecture: words::architecture(known(device.architecture())?),
        compute_capability: capability.map(|(major, minor)| Version { major, minor, patch: 0 }),
        addressing_mode: known(device.addressing_mode())?.and_then(words::addressing_mode),
    })
}

/// UUID and PCI address. Both are queried even if one fails, because the other one names the broken GPU.
fn identity<'a>(device: &Device<'_>, which: GpuSelector<'a>) -> Result<(Subject<'a>, GpuUuid, PciAddress), GpuError> {
    let (uuid_text, pci_text) = (device.uuid(), device.pci_bus_id());
    let parsed_uuid: Option<GpuUuid> = uuid_text.as_ref().ok().and_then(|text| text.parse().ok());
    let parsed_pci: Option<PciAddress> = pci_text.as_ref().ok().and_then(|text| text.parse().ok());
    let subject = Subject { which, uuid: parsed_uuid.clone(), pci: parsed_pci };
    let uuid_text = uuid_text.map_err(|error| subject.failed(error))?;
    let uuid = parsed_uuid.ok_or_else(|| subject.unexpected_value("nvmlDeviceGetUUID", uuid_text))?;
    let pci_text = pci_text.map_err(|error| subject.failed(error))?;
    let pci = parsed_pci.ok_or_else(|| subject.unexpected_value("nvmlDeviceGetPciInfo_v3", pci_text))?;
    Ok((subject, uuid, pci))
}

/// Converts an unsupported query into `None`.
fn known<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}
