// SPDX-License-Identifier: Apache-2.0
//! Renders a plan: chart values and warnings as comments, and the objects as YAML for `kubectl apply`.

use std::collections::BTreeMap;

use dra_resource::{DriverName, quantity};
use k8s_openapi::api::resource::v1 as k8s;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::json;

use crate::config::object_name;
use crate::plan::{Amount, Class, Devices, Plan, Template, Values};

#[derive(Debug, thiserror::Error)]
#[error("failed to render YAML")]
pub struct RenderError(#[source] serde_saphyr::ser::Error);

/// The first lines of the output.
#[derive(Debug)]
pub struct Heading<'a> {
    /// The configuration that is converted.
    pub source: &'a str,
    /// The reason if there is no object.
    pub nothing: &'static str,
}

/// The values and warnings as comments, then the objects.
pub fn everything(plan: &Plan, heading: &Heading<'_>, driver: &DriverName) -> Result<String, RenderError> {
    let Heading { source, nothing } = heading;
    let mut text = format!("# Converted from {source} by gpu-import {}.\n", env!("CARGO_PKG_VERSION"));
    if plan.templates.is_empty() {
        text.extend(["# The configuration ", nothing, ", so there is nothing to apply.\n"]);
    } else {
        text.push_str(
            "# Create the templates in the namespace of their pods: kubectl apply --namespace NAMESPACE -f FILE\n",
        );
    }
    let values = values(&plan.values)?;
    if !values.is_empty() {
        text.push_str(
            "#\n# These shares require the following chart values (`gpu-import --values` prints only the values):\n#\n",
        );
        text.extend(values.lines().map(|line| format!("#   {line}\n")));
    }
    text.extend(plan.warnings.iter().map(|warning| format!("#\n# Warning: {warning}\n")));
    for class in &plan.classes {
        text.push_str(&document(&device_class(class, driver))?);
    }
    for template in &plan.templates {
        text.push_str(&document(&claim_template(template, driver))?);
    }
    Ok(text)
}

/// The chart values; empty if none is needed.
pub fn values(values: &Values) -> Result<String, RenderError> {
    let mut sections = serde_json::Map::new();
    if values.release_resource_name {
        sections.insert("deviceClasses".to_owned(), json!({"gpu": {"extendedResourceName": ""}}));
    }
    let mut sharing = serde_json::Map::new();
    sharing.extend(values.default_shares.map(|shares| ("defaultShares".to_owned(), json!(shares))));
    sharing.extend(values.max_shares.map(|shares| ("timeSlicing".to_owned(), json!({"maxShares": shares}))));
    if values.shares_without_amount {
        sharing.insert("requireAmount".to_owned(), json!(false));
    }
    if !sharing.is_empty() {
        sections.insert("sharing".to_owned(), sharing.into());
    }
    if sections.is_empty() { Ok(String::new()) } else { yaml(&sections) }
}

fn document(object: &impl Serialize) -> Result<String, RenderError> {
    Ok(format!("---\n{}", yaml(object)?))
}

fn yaml(value: &impl Serialize) -> Result<String, RenderError> {
    serde_saphyr::to_string(value).map_err(RenderError)
}

/// The class for pods that request the extended resource.
fn device_class(class: &Class, driver: &DriverName) -> k8s::DeviceClass {
    let name = match &class.devices {
        Devices::OfProfile(profile) => class_of_profile(profile),
        Devices::Gpu | Devices::Mps | Devices::TimeSlicing | Devices::Mig(_) => {
            format!("imported-{}.nvidia.com", class.advertised.rsplit('/').next().unwrap_or_default())
        }
    };
    let expression = expression(&class.devices, driver);
    k8s::DeviceClass {
        metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
        spec: Some(k8s::DeviceClassSpec {
            extended_resource_name: Some(class.advertised.clone()),
            selectors: Some(vec![selector(expression)]),
            ..k8s::DeviceClassSpec::default()
        }),
    }
}

/// The class that the chart creates for a profile.
fn class_of_profile(profile: &str) -> String {
    format!("{}.nvidia.com", object_name(profile))
}

/// The template for pods with claims, with a class of the chart.
fn claim_template(template: &Template, driver: &DriverName) -> k8s::ResourceClaimTemplate {
    let (request, class, selectors) = match &template.devices {
        Devices::Gpu => ("gpu", "gpu.nvidia.com".to_owned(), None),
        Devices::Mps => ("gpu", "mps.gpu.nvidia.com".to_owned(), None),
        Devices::TimeSlicing => ("gpu", "timeslicing.gpu.nvidia.com".to_owned(), None),
        Devices::Mig(profile) => {
            ("mig", "mig.nvidia.com".to_owned(), Some(vec![selector(of_profile(profile, driver))]))
        }
        Devices::OfProfile(profile) => ("mig", class_of_profile(profile), None),
    };
    let requests: BTreeMap<String, Quantity> =
        template.capacity.iter().map(|(name, amount)| ((*name).to_owned(), amount_of(*amount))).collect();
    let capacity = (!requests.is_empty()).then_some(k8s::CapacityRequirements { requests: Some(requests) });
    let exactly =
        k8s::ExactDeviceRequest { device_class_name: class, capacity, selectors, ..k8s::ExactDeviceRequest::default() };
    let request =
        k8s::DeviceRequest { name: request.to_owned(), exactly: Some(exactly), ..k8s::DeviceRequest::default() };
    let devices = k8s::DeviceClaim { requests: Some(vec![request]), ..k8s::DeviceClaim::default() };
    k8s::ResourceClaimTemplate {
        metadata: ObjectMeta { name: Some(template.name.clone()), ..ObjectMeta::default() },
        spec: Some(k8s::ResourceClaimTemplateSpec {
            spec: Some(k8s::ResourceClaimSpec { devices: Some(devices) }),
            ..k8s::ResourceClaimTemplateSpec::default()
        }),
    }
}

fn amount_of(amount: Amount) -> Quantity {
    match amount {
        Amount::Count(count) => quantity::decimal(quantity::Milli::from_count(count)),
        Amount::Memory(bytes) => quantity::binary(bytes),
    }
}

fn selector(expression: String) -> k8s::DeviceSelector {
    k8s::DeviceSelector { cel: Some(k8s::CELDeviceSelector { expression }) }
}

/// Attributes of other drivers' devices are never read, because CEL stops at the first `false`.
fn expression(devices: &Devices, driver: &DriverName) -> String {
    let of = |kind: &str| format!(r#"device.driver == "{driver}" && device.attributes["{driver}"].type == "{kind}""#);
    let shared = |strategy: &str| {
        format!(r#"{} && device.attributes["{driver}"].sharingStrategy == "{strategy}""#, of("shared-gpu"))
    };
    match devices {
        Devices::Gpu => of("gpu"),
        Devices::Mps => shared("MPS"),
        Devices::TimeSlicing => shared("TimeSlicing"),
        Devices::Mig(profile) | Devices::OfProfile(profile) => {
            format!("{} && {}", of("mig"), of_profile(profile, driver))
        }
    }
}

fn of_profile(profile: &str, driver: &DriverName) -> String {
    format!(r#"device.attributes["{driver}"].profile == "{profile}""#)
}
