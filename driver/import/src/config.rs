// SPDX-License-Identifier: Apache-2.0
//! Parses the YAML of a device plugin's configuration, with a warning for every key that is not imported.
//!
//! Types are checked strictly. As in the plugin, keys of sections are case-insensitive and keys of a strategy are case-sensitive.

use dra_mig_parted::{Field, TypeError};

use crate::key_notes;
use crate::keys::{self, RESOURCE_KEYS, SECTIONS, STRATEGIES, STRATEGY_KEYS};
use crate::warnings::{self, Warning};

/// The imported configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `sharing.mps`.
    pub mps: Option<Shared>,
    /// `sharing.timeSlicing`.
    pub time_slicing: Option<Shared>,
    /// `flags.migStrategy` and its path.
    pub mig: Option<(MigStrategy, String)>,
}

/// The plugin's names for MIG devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigStrategy {
    /// MIG devices are ignored.
    None,
    /// Named as GPUs.
    Single,
    /// Named by profile.
    Mixed,
}

/// The section of a strategy.
#[derive(Debug, PartialEq, Eq)]
pub struct Shared {
    pub path: String,
    /// Whether shared resources have the suffix `.shared`.
    pub renamed: bool,
    pub resources: Vec<Resource>,
}

/// A shared resource.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    pub path: String,
    pub kind: Kind,
    /// Number of shares of each device, at least two.
    pub replicas: u64,
}

/// The devices of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `nvidia.com/gpu`.
    Gpu,
    /// `nvidia.com/mig-<profile>`, with the profile name of NVML.
    Mig(String),
}

impl Kind {
    /// The extended resource the plugin advertises.
    pub fn resource_name(&self) -> String {
        match self {
            Self::Gpu => format!("{PREFIX}gpu"),
            Self::Mig(profile) => format!("{PREFIX}{}", object_name(profile)),
        }
    }
}

/// `mig-1g.10gb.me` for `1g.10gb+me`: the device plugin replaces the plus, which is invalid in names, by a dot.
pub fn object_name(profile: &str) -> String {
    format!("mig-{}", profile.replace('+', "."))
}

/// An invalid configuration, with which the plugin does not start either.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("a key has the wrong type")]
    Type(#[source] TypeError),
    #[error("{path} is {found:?}, expected v1")]
    Version { path: String, found: String },
    #[error("{path} has no {key}, without which the plugin does not start")]
    Missing { path: String, key: &'static str },
    #[error("{path} is {found:?}, expected nvidia.com/gpu or nvidia.com/mig-<profile>")]
    Name { path: String, found: String },
}

/// The plugin adds this prefix to names without it.
const PREFIX: &str = "nvidia.com/";

struct Reader {
    config: Config,
    warnings: Vec<Warning>,
}

/// Reads one configuration.
pub fn read(whole: &Field<'_>) -> Result<(Config, Vec<Warning>), ConfigError> {
    let mut reader = Reader { config: Config::default(), warnings: Vec::new() };
    let entries = whole.entries().map_err(ConfigError::Type)?;
    let lost = keys::lost_indentation(&entries);
    for (key, field) in entries {
        match reader.name_in(&SECTIONS, key, &field) {
            name if lost.contains(&name) => {}
            "version" => version(&field)?,
            "flags" => reader.flags(&field, "flags")?,
            "sharing" if !lost.is_empty() => reader.warnings.push(warnings::lost_indentation(&field.path, &lost)),
            "sharing" => reader.sharing(&field)?,
            name => reader.other(name, name, &field, &SECTIONS),
        }
    }
    Ok((reader.config, reader.warnings))
}

fn version(field: &Field<'_>) -> Result<(), ConfigError> {
    match field.text().map_err(ConfigError::Type)? {
        None | Some("" | "v1") => Ok(()),
        Some(found) => Err(ConfigError::Version { path: field.path.clone(), found: found.to_owned() }),
    }
}

impl Reader {
    /// The documented spelling of a key, with a warning if it differs; unknown keys are returned as they are.
    fn name_in<'k>(&mut self, known: &[&'static str], key: &'k str, field: &Field<'_>) -> &'k str {
        let Some(name) = known.iter().find(|name| name.eq_ignore_ascii_case(key)) else { return key };
        if *name != key {
            self.warnings.push(warnings::other_case(&field.path, name));
        }
        name
    }

    /// Warns about a key that is not imported.
    fn other(&mut self, key: &str, note: &str, field: &Field<'_>, known: &[&str]) {
        if key_notes::is_known(note) {
            self.warnings.extend(warnings::of_known(note, &field.path, field.value));
        } else {
            self.warnings.push(warnings::unknown(&field.path, key, known, keys::section_of(key)));
        }
    }

    fn flags(&mut self, flags: &Field<'_>, section: &str) -> Result<(), ConfigError> {
        for (key, field) in flags.entries().map_err(ConfigError::Type)? {
            let note = format!("{section}.{key}");
            match note.to_ascii_lowercase().as_str() {
                "flags.migstrategy" => self.mig_strategy(&field)?,
                "flags.plugin" => self.flags(&field, "flags.plugin")?,
                _ => self.other(key, &note, &field, &[]),
            }
        }
        Ok(())
    }

    fn mig_strategy(&mut self, field: &Field<'_>) -> Result<(), ConfigError> {
        let strategy = match field.text().map_err(ConfigError::Type)? {
            None => return Ok(()),
            Some("none") => MigStrategy::None,
            Some("single") => MigStrategy::Single,
            Some("mixed") => MigStrategy::Mixed,
            Some(_) => {
                self.warnings.push(warnings::mig_strategy(&field.path));
                MigStrategy::None
            }
        };
        self.config.mig = Some((strategy, field.path.clone()));
        Ok(())
    }

    fn sharing(&mut self, sharing: &Field<'_>) -> Result<(), ConfigError> {
        for (key, field) in sharing.entries().map_err(ConfigError::Type)? {
            match self.name_in(&STRATEGIES, key, &field) {
                _ if field.value.is_null() => {}
                "mps" => self.config.mps = Some(self.strategy(&field, "mps")?),
                "timeSlicing" => self.config.time_slicing = Some(self.strategy(&field, "timeSlicing")?),
                name => self.other(name, "", &field, &STRATEGIES),
            }
        }
        Ok(())
    }

    fn strategy(&mut self, section: &Field<'_>, strategy: &str) -> Result<Shared, ConfigError> {
        let mut shared = Shared { path: section.path.clone(), renamed: false, resources: Vec::new() };
        let mut listed = 0;
        for (key, field) in section.entries().map_err(ConfigError::Type)? {
            match key {
                "renameByDefault" => shared.renamed = field.flag().map_err(ConfigError::Type)? == Some(true),
                "resources" => {
                    let items = field.items().map_err(ConfigError::Type)?;
                    listed = items.len();
                    for item in items {
                        self.resource(&item, &mut shared.resources)?;
                    }
                }
                _ => {
                    if key == "failRequestsGreaterThanOne" {
                        field.flag().map_err(ConfigError::Type)?;
                    }
                    self.other(key, &format!("sharing.{strategy}.{key}"), &field, &STRATEGY_KEYS);
                }
            }
        }
        if listed == 0 {
            return Err(ConfigError::Missing { path: shared.path, key: "resources" });
        }
        Ok(shared)
    }

    fn resource(&mut self, entry: &Field<'_>, resources: &mut Vec<Resource>) -> Result<(), ConfigError> {
        let (mut name, mut replicas) = (None, None);
        for (key, field) in entry.entries().map_err(ConfigError::Type)? {
            match key {
                "name" => name = full_name(&field)?.map(|name| (name, field.path)),
                "replicas" => replicas = field.number().map_err(ConfigError::Type)?.map(|number| (number, field.path)),
                "devices" if !keys::is_choice(field.value) => self.warnings.push(warnings::no_choice(&field.path)),
                _ => self.other(key, &format!("sharing.*.resources.{key}"), &field, &RESOURCE_KEYS),
            }
        }
        let missing = |key| ConfigError::Missing { path: entry.path.clone(), key };
        let (name, name_path) = name.ok_or_else(|| missing("name"))?;
        let (number, replicas_path) = replicas.ok_or_else(|| missing("replicas"))?;
        let Some(kind) = kind(&name) else {
            self.warnings.push(warnings::no_such_resource(&name_path, &name));
            return Ok(());
        };
        let Some(replicas) = u64::try_from(number).ok().filter(|replicas| *replicas >= 2) else {
            self.warnings.push(warnings::not_shared(&replicas_path, number));
            return Ok(());
        };
        match resources.iter_mut().find(|other| other.kind == kind) {
            Some(other) => {
                other.replicas = replicas.max(other.replicas);
                self.warnings.push(warnings::named_again(&name_path, &name, other.replicas));
            }
            None => resources.push(Resource { path: entry.path.clone(), kind, replicas }),
        }
        Ok(())
    }
}

/// The name with prefix, checked as by the plugin: a DNS subdomain after the prefix, at most 63 characters in total.
fn full_name(field: &Field<'_>) -> Result<Option<String>, ConfigError> {
    let Some(found) = field.text().map_err(ConfigError::Type)? else { return Ok(None) };
    let short = found.strip_prefix(PREFIX).unwrap_or(found);
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label =
        |part: &str| !part.is_empty() && part.chars().all(inside) && !part.starts_with('-') && !part.ends_with('-');
    if short.len() + PREFIX.len() > 63 || !short.split('.').all(label) {
        return Err(ConfigError::Name { path: field.path.clone(), found: found.to_owned() });
    }
    Ok(Some(format!("{PREFIX}{short}")))
}

fn kind(name: &str) -> Option<Kind> {
    match name.strip_prefix(PREFIX)? {
        "gpu" => Some(Kind::Gpu),
        short => profile(short.strip_prefix("mig-")?).map(Kind::Mig),
    }
}

/// `1g.10gb`, or `1g.10gb.me` for `1g.10gb+me`: the plugin replaces the plus, which is invalid in names, by a dot.
fn profile(text: &str) -> Option<String> {
    let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let (slices, rest) = text.split_once("g.")?;
    let (gigabytes, attribute) = rest.split_once("gb")?;
    if !digits(slices) || !digits(gigabytes) {
        return None;
    }
    match attribute.split_once('.') {
        None => (attribute.is_empty() || attribute.starts_with('-')).then(|| text.to_owned()),
        Some(("", attribute)) => Some(format!("{slices}g.{gigabytes}gb+{attribute}")),
        Some(_) => None,
    }
}
