// SPDX-License-Identifier: Apache-2.0
//! Evaluates the CEL expressions of DeviceClasses and claims on devices, as the scheduler does.
//!
//! The environment is that of the Kubernetes documentation, "Common Expression Language in Kubernetes", with the variable `device` of
//! the package `dynamic-resource-allocation/cel`. Reading an attribute that a device lacks is an error, and an error of an expression
//! ends the scheduling attempt of the pod on all nodes.

mod device;
mod environment;
mod quantity;
mod text;
mod version;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use cel::{Context, Env, ExecutionError, Program, Value};

use crate::device::Device;
use device::DeviceValue;

/// An expression without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("the expression is no valid CEL: {0}")]
    Syntax(String),
    /// The scheduler fails in the same way.
    #[error("no such key: {key}")]
    Missing { key: String },
    #[error("the expression fails: {0}")]
    Failed(String),
    #[error("the expression does not give a bool")]
    NotBool,
    /// The scheduler may know it.
    #[error("this program does not know `{0}`")]
    Unknown(String),
}

type Outcome = Result<bool, SelectorError>;

/// Compiled expressions and what they gave.
///
/// Devices with the same attributes and capacities give the same, so a cluster of equal nodes needs few evaluations.
pub struct Selectors {
    env: Arc<Env>,
    compiled: RefCell<BTreeMap<String, Rc<Compiled>>>,
}

struct Compiled {
    program: Result<Program, SelectorError>,
    /// By the addresses of attributes and capacities, and whether the device is shareable.
    outcomes: RefCell<BTreeMap<(usize, usize, bool), Outcome>>,
}

impl std::fmt::Debug for Selectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selectors").finish_non_exhaustive()
    }
}

impl Default for Selectors {
    fn default() -> Self {
        Self { env: Arc::new(environment::environment()), compiled: RefCell::default() }
    }
}

impl Selectors {
    /// Whether an expression selects a device of a driver. Devices must live as long as the outcomes that are stored.
    pub fn selects(&self, expression: &str, driver: &str, device: &Device) -> Outcome {
        let compiled = self.compiled(expression);
        let program = compiled.program.as_ref().map_err(Clone::clone)?;
        let key = (Arc::as_ptr(&device.attributes).addr(), Arc::as_ptr(&device.capacity).addr(), device.is_shareable);
        if let Some(known) = compiled.outcomes.borrow().get(&key) {
            return known.clone();
        }
        let mut context = Context::with_env(Arc::clone(&self.env));
        context.add_variable_as_val("device", Box::new(DeviceValue { driver, device }));
        let outcome = match program.execute(&context) {
            Ok(Value::Bool(selected)) => Ok(selected),
            Ok(_) => Err(SelectorError::NotBool),
            Err(error) => Err(failure(&error)),
        };
        compiled.outcomes.borrow_mut().insert(key, outcome.clone());
        outcome
    }

    fn compiled(&self, expression: &str) -> Rc<Compiled> {
        if let Some(known) = self.compiled.borrow().get(expression) {
            return Rc::clone(known);
        }
        let program = self.env.compile(expression).map_err(|errors| {
            let first = errors.errors.first().map(|error| error.msg.clone());
            SelectorError::Syntax(first.unwrap_or_else(|| "unknown error".to_owned()))
        });
        let new = Rc::new(Compiled { program, outcomes: RefCell::default() });
        self.compiled.borrow_mut().insert(expression.to_owned(), Rc::clone(&new));
        new
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the error type of a library with further variants")]
fn failure(error: &ExecutionError) -> SelectorError {
    match error {
        ExecutionError::NoSuchKey(key) => SelectorError::Missing { key: key.to_string() },
        ExecutionError::UndeclaredReference(name) => SelectorError::Unknown(name.to_string()),
        ExecutionError::NoSuchOverload(overload) => SelectorError::Failed(overload.to_string()),
        ExecutionError::FunctionError { message, .. } => SelectorError::Failed(message.clone()),
        error => SelectorError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Capacity, QualifiedName, Value as Attribute};

    const DRIVER: &str = "gpu.nvidia.com";

    fn device() -> Device {
        let name = |text| QualifiedName::new(text, DRIVER);
        let text = |text: &str| Attribute::Text(text.into());
        let attributes = vec![
            (name("type"), text("mig")),
            (name("profile"), text("1g.10gb")),
            (name("productName"), text("NVIDIA H100 80GB HBM3")),
            (name("driverVersion"), Attribute::Version("580.95.5".into())),
            (name("resource.kubernetes.io/numaNode"), Attribute::Int(1)),
            (name("net.example.com/fast"), Attribute::Bool(true)),
        ];
        let memory = Capacity { name: name("memory"), value: "9984Mi".parse().unwrap(), policy: None };
        Device {
            name: "d".into(),
            attributes: Arc::new(attributes),
            capacity: Arc::new(vec![memory]),
            consumes: Vec::new(),
            taints: Vec::new(),
            is_shareable: false,
            scope: None,
        }
    }

    fn check(expression: &str, expect: &Outcome) {
        let (selectors, device) = (Selectors::default(), device());
        assert_eq!(&selectors.selects(expression, DRIVER, &device), expect, "{expression}");
        assert_eq!(&selectors.selects(expression, DRIVER, &device), expect, "from the cache: {expression}");
    }

    #[test]
    fn devices_are_selected_by_what_they_publish() {
        for expression in [
            r#"device.driver == "gpu.nvidia.com" && device.attributes["gpu.nvidia.com"].type == "mig""#,
            r#"device.attributes["gpu.nvidia.com"].profile in ["1g.10gb", "2g.20gb"]"#,
            r#"device.attributes["gpu.nvidia.com"].productName.contains("H100")"#,
            r#"device.attributes["gpu.nvidia.com"].productName.lowerAscii().matches("h[0-9]+00 ")"#,
            r#"device.attributes["gpu.nvidia.com"].productName.find("[0-9]+GB") == "80GB""#,
            r#"device.attributes["gpu.nvidia.com"].productName.findAll("[0-9]+").size() == 3"#,
            r#"device.attributes["gpu.nvidia.com"].productName.split(" ")[1] == "H100""#,
            r#"device.attributes["resource.kubernetes.io"].numaNode == 1"#,
            r#"device.attributes["net.example.com"].fast"#,
            r#"device.capacity["gpu.nvidia.com"].memory.compareTo(quantity("9Gi")) >= 0"#,
            r#"device.capacity["gpu.nvidia.com"].memory == quantity("9984Mi")"#,
            r#"device.capacity["gpu.nvidia.com"].memory.isLessThan(quantity("10Gi"))"#,
            r#"device.capacity["gpu.nvidia.com"].memory.add(quantity("256Mi")).isGreaterThan(quantity("9.9Gi"))"#,
            r#"device.capacity["gpu.nvidia.com"].memory.sub(1).asInteger() == 10468982783"#,
            r#"isQuantity("1Gi") && !isQuantity("much") && quantity("1500m").sign() == 1 && !quantity("1500m").isInteger()"#,
            r#"device.attributes["gpu.nvidia.com"].driverVersion.isGreaterThan(semver("580.9.0"))"#,
            r#"device.attributes["gpu.nvidia.com"].driverVersion.major() >= 580"#,
            r#"device.attributes["gpu.nvidia.com"].driverVersion.compareTo(semver("v0580.95", true)) == 1"#,
            r#"semver("1.0.0+a") == semver("1.0.0+b") && isSemver("1.2.3") && !isSemver("1.2") && isSemver("1.2", true)"#,
            "!device.allowMultipleAllocations",
            r#""gpu.nvidia.com" in device.attributes && !("other.com" in device.attributes)"#,
            r#""profile" in device.attributes["gpu.nvidia.com"] && has(device.attributes["gpu.nvidia.com"].profile)"#,
            r#"!has(device.attributes["gpu.nvidia.com"].speed) && !has(device.attributes["other.com"].speed)"#,
            r#"device.attributes["gpu.nvidia.com"].?speed.orValue("none") == "none""#,
            r#"device.attributes["gpu.nvidia.com"].?profile.orValue("none") == "1g.10gb""#,
            r#"cel.bind(gpu, device.attributes["gpu.nvidia.com"], gpu.type == "mig" && gpu.profile == "1g.10gb")"#,
            r#"["1g.10gb", "x"].exists(p, p == device.attributes["gpu.nvidia.com"].profile)"#,
            r#"device.attributes["other.com"].speed == 1 || true"#,
        ] {
            check(expression, &Ok(true));
        }
        check(r#"device.driver == "net.example.com" && device.attributes["net.example.com"].speed == 1"#, &Ok(false));
    }

    #[test]
    fn a_missing_attribute_is_an_error_as_in_the_scheduler() {
        let missing = |key: &str| Err(SelectorError::Missing { key: key.to_owned() });
        check(r#"device.attributes["gpu.nvidia.com"].sharingStrategy == "MPS""#, &missing("sharingStrategy"));
        check(r#"device.attributes["other.com"].speed == 1"#, &missing("speed"));
        check(r#"device.capacity["gpu.nvidia.com"].shares.isInteger()"#, &missing("shares"));
        check(
            r#"device.driver == "gpu.nvidia.com" && device.attributes["gpu.nvidia.com"].speed == 1"#,
            &missing("speed"),
        );
    }

    #[test]
    fn what_is_no_selector_is_named() {
        let (selectors, device) = (Selectors::default(), device());
        let outcome = |expression: &str| selectors.selects(expression, DRIVER, &device);
        assert!(matches!(outcome("device.driver =="), Err(SelectorError::Syntax(_))));
        assert_eq!(outcome(r#""text""#), Err(SelectorError::NotBool));
        assert!(matches!(outcome("unheard(device)"), Err(SelectorError::Unknown(name)) if name == "unheard"));
        assert!(matches!(outcome(r#"quantity("much").isInteger()"#), Err(SelectorError::Failed(_))));
    }
}
