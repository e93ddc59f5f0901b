// SPDX-License-Identifier: Apache-2.0
//! Configurations of mig-parted (`version: v1`, `mig-configs`), parsed from YAML. Pure.
//!
//! Reading order: [`yaml`], [`field`], [`profile`], [`device_id`], [`entry`], [`layouts`], [`error`].

pub mod yaml;

pub mod field;

pub mod profile;

pub mod device_id;

pub mod entry;

pub mod layouts;

pub mod error;

pub use entry::{Entry, Gpus, Limit, MigDevices};
pub use error::LayoutError;
pub use field::{Field, TypeError};
pub use layouts::Layouts;
pub use profile::Profile;
pub use yaml::YamlError;
