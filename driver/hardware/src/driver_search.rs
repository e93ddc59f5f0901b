// SPDX-License-Identifier: Apache-2.0
//! Applies the [rules](crate::driver_rules) to a driver root: which files are there, which are not, and what was looked at.
//!
//! All found files are of one version of the driver, by their names. Files that are not named by a version (configuration, the
//! display driver of the X server, libraries of other sources) are those of the installation.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use dra_model::Capabilities;
use rustix::fs::FileType;

use crate::driver_dirs::library_dirs;
use crate::driver_root::{Found, Root};
use crate::driver_rules::{Files, RULES, Rule};
use crate::elf::{ElfError, soname};

/// A file of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub rule: &'static Rule,
    /// SONAME of a library that has one, otherwise the file name.
    pub name: String,
    /// Real path in the root.
    pub path: PathBuf,
}

/// A library that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    pub rule: &'static Rule,
    /// Real path in the root.
    pub path: PathBuf,
    pub why: ElfError,
}

/// Why a search ends without a result.
#[derive(Debug)]
pub enum SearchError {
    Unreadable { path: PathBuf, source: io::Error },
    BadLibrary { path: PathBuf, source: ElfError },
}

/// The files of one version of the driver in one root.
#[derive(Debug)]
pub struct Search<'a> {
    root: &'a Root,
    version: &'a str,
    /// By place of the name: an earlier directory precedes a later one.
    hits: BTreeMap<(Kind, String), Hit>,
    unusable: Vec<Unusable>,
    /// Directories and files, without symlinks, whose change could change the result.
    looked_at: BTreeSet<PathBuf>,
}

/// Files of one kind have different names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Library,
    Program,
    Other,
}

impl<'a> Search<'a> {
    /// The directory of NVML comes first. It can be one that no other system has: links lead to it.
    pub fn run(root: &'a Root, version: &'a str, nvml_dir: &Path) -> Result<Self, SearchError> {
        let (hits, looked_at) = (BTreeMap::new(), BTreeSet::new());
        let mut search = Self { root, version, hits, unusable: Vec::new(), looked_at };
        search.libraries(nvml_dir)?;
        for rule in RULES {
            search.files_of(rule);
        }
        search.looked_at.insert(PathBuf::from("etc/alternatives"));
        Ok(search)
    }

    /// Libraries by SONAME, then programs and other files by name.
    pub fn hits(&self) -> impl Iterator<Item = &Hit> {
        self.hits.values()
    }

    pub fn left_out(&self) -> &[Unusable] {
        &self.unusable
    }

    pub fn library(&self, soname: &str) -> Option<&Hit> {
        self.hits.get(&(Kind::Library, soname.to_owned()))
    }

    pub fn program(&self, name: &str) -> Option<&Hit> {
        self.hits.get(&(Kind::Program, name.to_owned()))
    }

    /// Everything whose change could change the result, also what does not exist yet.
    pub fn looked_at(self) -> BTreeSet<PathBuf> {
        let Self { looked_at, hits, .. } = self;
        looked_at.into_iter().chain(hits.into_values().map(|hit| hit.path)).collect()
    }

    fn libraries(&mut self, nvml_dir: &Path) -> Result<(), SearchError> {
        let mut searched = BTreeSet::new();
        for dir in [nvml_dir.to_owned()].into_iter().chain(library_dirs()) {
            let dirs = [dir.clone(), dir.join("vdpau")];
            for dir in dirs {
                let found = self.directory(&dir);
                // `lib64` and `usr/lib64` are often the same.
                if let Some(dir) = found.filter(|dir| searched.insert(dir.clone())) {
                    self.libraries_in(&dir)?;
                }
            }
        }
        Ok(())
    }

    fn libraries_in(&mut self, dir: &Path) -> Result<(), SearchError> {
        let unreadable = |source| SearchError::Unreadable { path: self.root.outside(dir), source };
        let mut names = self.root.list(dir).map_err(unreadable)?;
        // Of two files of one SONAME the one with the version counts: an older driver may have left the other.
        names.sort_by_key(|name| !name.ends_with(self.version));
        for name in names {
            if let Some(rule) = RULES.iter().find(|rule| is_library_of(rule, &name, self.version)) {
                self.add_library(rule, &dir.join(&name))?;
            }
        }
        Ok(())
    }

    fn add_library(&mut self, rule: &'static Rule, path: &Path) -> Result<(), SearchError> {
        let unreadable = |source| SearchError::Unreadable { path: self.root.outside(path), source };
        // A package that was removed may leave a link to nothing.
        let Some(found) = regular_file(self.root, path) else { return Ok(()) };
        let file = self.root.read(&found.path).map_err(unreadable)?;
        let name = match soname(&file) {
            Ok(name) => name,
            // For 32-bit programs, or of an emulated system.
            Err(ElfError::OtherMachine) => return Ok(()),
            // Opened by the name of the file, as `libnvidia-vulkan-producer.so.535.309.01`.
            Err(ElfError::NoSoname) => file_name(&found.path),
            Err(why) => return self.unusable(rule, found.path, why),
        };
        self.add(kind(rule), name, rule, found.path);
        Ok(())
    }

    /// A library that only some containers get stops no other container.
    fn unusable(&mut self, rule: &'static Rule, path: PathBuf, why: ElfError) -> Result<(), SearchError> {
        if Capabilities::default().intersects(rule.capabilities) {
            return Err(SearchError::BadLibrary { path: self.root.outside(&path), source: why });
        }
        self.looked_at.insert(path.clone());
        self.unusable.push(Unusable { rule, path, why });
        Ok(())
    }

    /// The files of a rule that is about no library.
    fn files_of(&mut self, rule: &'static Rule) {
        match rule.files {
            Files::Library(_)
            | Files::Libraries(_)
            | Files::Independent(_)
            | Files::Fixed(_)
            | Files::Module { .. } => {}
            Files::Program(_) => self.add_first(rule, is_program),
            Files::XModule { .. } | Files::Data { .. } => self.add_first(rule, is_file),
            Files::Socket(_) => self.add_first(rule, is_socket),
            Files::Firmware => self.firmware(rule),
        }
    }

    /// The first file of the name, in the directories of the rule, that is of the right type.
    fn add_first(&mut self, rule: &'static Rule, is_it: fn(&Found) -> bool) {
        let name = rule.file_name(self.version);
        for dir in rule.dirs() {
            let path = dir.join(&name);
            if let Some(dir) = path.parent() {
                self.directory(dir);
            }
            if let Some(found) = self.root.find(&path).ok().filter(is_it) {
                return self.add(kind(rule), name, rule, found.path);
            }
        }
    }

    fn firmware(&mut self, rule: &'static Rule) {
        for dir in rule.dirs() {
            let Some(dir) = self.directory(&dir.join("nvidia").join(self.version)) else { continue };
            let is_gsp = |name: &String| name.strip_suffix(".bin").is_some_and(|name| name.starts_with("gsp"));
            for name in self.root.list(&dir).unwrap_or_default().into_iter().filter(is_gsp) {
                if let Some(found) = regular_file(self.root, &dir.join(&name)) {
                    self.add(Kind::Other, name, rule, found.path);
                }
            }
        }
    }

    /// Remembers a directory, and returns its path without symlinks if it exists.
    fn directory(&mut self, dir: &Path) -> Option<PathBuf> {
        let is_dir = |found: &Found| FileType::from_raw_mode(found.stat.st_mode).is_dir();
        let found = self.root.find(dir).ok().filter(is_dir).map(|found| found.path);
        self.looked_at.insert(found.clone().unwrap_or_else(|| self.first_missing(dir)));
        found
    }

    /// The part of a path whose creation must come before everything below it: few paths stand for all that are missing.
    fn first_missing(&self, path: &Path) -> PathBuf {
        let mut there = PathBuf::new();
        for name in path {
            match self.root.find(there.join(name)) {
                Ok(found) => there = found.path,
                Err(_) => return there.join(name),
            }
        }
        path.to_owned()
    }

    fn add(&mut self, kind: Kind, name: String, rule: &'static Rule, path: PathBuf) {
        self.hits.entry((kind, name.clone())).or_insert(Hit { rule, name, path });
    }
}

const fn kind(rule: &Rule) -> Kind {
    match rule.files {
        Files::Library(_) | Files::Libraries(_) | Files::Independent(_) | Files::Fixed(_) => Kind::Library,
        Files::Program(_) => Kind::Program,
        Files::Module { .. } | Files::XModule { .. } | Files::Data { .. } | Files::Firmware | Files::Socket(_) => {
            Kind::Other
        }
    }
}

fn is_library_of(rule: &Rule, name: &str, version: &str) -> bool {
    let Some((stem, suffix)) = name.strip_prefix("lib").and_then(|rest| rest.split_once(".so.")) else { return false };
    match rule.files {
        Files::Library(own) | Files::Module { stem: own, .. } => stem == own && suffix == version,
        Files::Libraries(own) => stem.starts_with(own) && suffix == version,
        Files::Fixed(own) => name == own,
        Files::Independent(own) => stem == own && suffix.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'),
        Files::Program(_) | Files::XModule { .. } | Files::Data { .. } | Files::Firmware | Files::Socket(_) => false,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A file that is no directory and no device.
pub fn regular_file(root: &Root, path: &Path) -> Option<Found> {
    root.find(path).ok().filter(is_file)
}

fn is_file(found: &Found) -> bool {
    FileType::from_raw_mode(found.stat.st_mode).is_file()
}

fn is_program(found: &Found) -> bool {
    is_file(found) && found.stat.st_mode & 0o111 != 0
}

fn is_socket(found: &Found) -> bool {
    FileType::from_raw_mode(found.stat.st_mode).is_socket()
}
