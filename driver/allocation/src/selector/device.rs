// SPDX-License-Identifier: Apache-2.0
//! The variable `device` of an expression: `driver`, `attributes`, `capacity` and `allowMultipleAllocations`.
//!
//! `attributes` and `capacity` have a map for every domain, an empty one for a domain that the device does not have; only a missing
//! name in it is an error.

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Sizer};
use cel::common::types::{CelBool, CelInt, CelString, Type};
use cel::common::value::{CowVal, Val};

use super::quantity::QuantityValue;
use super::version::version_value;
use crate::device::{Device, Value};

static DEVICE: Type = Type::new_unspecified_type("kubernetes.DRADevice");
static NAMED: Type = Type::new_unspecified_type("kubernetes.DRANames");

/// The whole device.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceValue<'a> {
    pub(super) driver: &'a str,
    pub(super) device: &'a Device,
}

/// What the values of a map are.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Attributes,
    Capacity,
}

/// Values of one kind, of all domains or of one.
#[derive(Debug, Clone)]
struct Named<'a> {
    device: &'a Device,
    kind: Kind,
    domain: Option<Box<str>>,
}

fn key(index: &dyn Val) -> Result<&str, ExecutionError> {
    let text = index.downcast_ref::<CelString>().map(CelString::inner);
    text.ok_or_else(|| ExecutionError::UnexpectedType {
        got: index.get_type().name().to_owned(),
        want: "string".to_owned(),
    })
}

impl Val for DeviceValue<'_> {
    fn get_type(&self) -> &Type {
        &DEVICE
    }

    fn cel_type() -> &'static Type {
        &DEVICE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn into_indexer<'v>(self: Box<Self>) -> Option<Box<dyn Indexer + 'v>>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl<'a> DeviceValue<'a> {
    fn field<'v>(&self, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        'a: 'v,
    {
        let named = |kind| Box::new(Named { device: self.device, kind, domain: None });
        match key(index)? {
            "driver" => Ok(Box::new(CelString::from(self.driver))),
            "attributes" => Ok(named(Kind::Attributes)),
            "capacity" => Ok(named(Kind::Capacity)),
            "allowMultipleAllocations" => Ok(Box::new(CelBool::from(self.device.is_shareable))),
            other => Err(ExecutionError::no_such_key(other)),
        }
    }
}

impl Indexer for DeviceValue<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.field(index).map(CowVal::Owned)
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.field(index)
    }
}

impl Val for Named<'_> {
    fn get_type(&self) -> &Type {
        &NAMED
    }

    fn cel_type() -> &'static Type {
        &NAMED
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn into_indexer<'v>(self: Box<Self>) -> Option<Box<dyn Indexer + 'v>>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl<'a> Named<'a> {
    fn value<'v>(&self, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        'a: 'v,
    {
        let key = key(index)?;
        let Some(domain) = &self.domain else {
            return Ok(Box::new(Self { domain: Some(key.into()), ..self.clone() }));
        };
        let found = match self.kind {
            Kind::Attributes => self.attribute(domain, key).map(value).transpose()?,
            Kind::Capacity => self.capacity(domain, key),
        };
        found.ok_or_else(|| ExecutionError::no_such_key(key))
    }

    fn attribute(&self, domain: &str, id: &str) -> Option<&'a Value> {
        let mut attributes = self.device.attributes.iter();
        attributes.find(|(name, _)| *name.domain == *domain && *name.id == *id).map(|(_, value)| value)
    }

    fn capacity<'v>(&self, domain: &str, id: &str) -> Option<Box<dyn Val + 'v>> {
        let mut capacity = self.device.capacity.iter();
        let found = capacity.find(|capacity| *capacity.name.domain == *domain && *capacity.name.id == *id)?;
        Some(Box::new(QuantityValue(found.value)))
    }

    /// The domains, or the names in the domain.
    fn keys(&self) -> std::collections::BTreeSet<&str> {
        let attributes = self.device.attributes.iter().map(|(name, _)| name);
        let capacity = self.device.capacity.iter().map(|capacity| &capacity.name);
        let names: Vec<_> = match self.kind {
            Kind::Attributes => attributes.collect(),
            Kind::Capacity => capacity.collect(),
        };
        match &self.domain {
            None => names.iter().map(|name| name.domain.as_ref()).collect(),
            Some(domain) => names.iter().filter(|name| *name.domain == **domain).map(|name| name.id.as_ref()).collect(),
        }
    }
}

fn value<'v>(value: &'v Value) -> Result<Box<dyn Val + 'v>, ExecutionError> {
    match value {
        Value::Int(number) => Ok(Box::new(CelInt::from(*number))),
        Value::Bool(value) => Ok(Box::new(CelBool::from(*value))),
        Value::Text(text) => Ok(Box::new(CelString::from(text.as_ref()))),
        Value::Version(text) => Ok(Box::new(version_value(text)?)),
        Value::Unknown => {
            Err(ExecutionError::function_error("attributes", "the attribute has a value of another type"))
        }
    }
}

impl Indexer for Named<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.value(index).map(CowVal::Owned)
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.value(index)
    }
}

impl Container for Named<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.keys().contains(key(value)?))
    }
}

impl Sizer for Named<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.keys().len()).unwrap_or(i64::MAX))
    }
}
