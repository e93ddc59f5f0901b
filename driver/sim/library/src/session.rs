// SPDX-License-Identifier: Apache-2.0
//! The session of this process: the directory of the machine, the count of NVML initialisations, and the event sets.
//!
//! In: `GPU_SIM_ROOT` or the library's own path. Out: one session per process. Event sets are stored here, events in the shared
//! state.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use dra_sim::store::{Changes, Store};
use dra_sim::{Code, tree};

pub(crate) struct Session {
    pub(crate) store: Store,
    /// In a container a device is what its nodes are; on the host NVIDIA's library makes missing nodes itself.
    sees_only_nodes: bool,
    inits: AtomicU32,
    event_sets: Mutex<EventSets>,
}

#[derive(Default)]
pub(crate) struct EventSets {
    last_id: u32,
    pub(crate) open: BTreeMap<u32, EventSet>,
}

/// The registrations of one set: event mask by GPU, and the last event it has seen.
#[derive(Default)]
pub(crate) struct EventSet {
    pub(crate) masks: BTreeMap<usize, u64>,
    pub(crate) seen: u64,
    /// Of the last wait, while no thread waits: a wait needs no inotify instance of its own.
    pub(crate) changes: Option<Changes>,
}

impl Session {
    /// The session of this process.
    pub(crate) fn current() -> &'static Self {
        static SESSION: OnceLock<Session> = OnceLock::new();
        SESSION.get_or_init(|| {
            let root_dir = root_dir();
            Self {
                sees_only_nodes: !tree::is_drawn(&root_dir),
                store: Store::new(root_dir),
                inits: AtomicU32::new(0),
                event_sets: Mutex::new(EventSets::default()),
            }
        })
    }

    pub(crate) fn is_initialised(&self) -> bool {
        self.inits.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn initialise(&self) {
        self.inits.fetch_add(1, Ordering::SeqCst);
    }

    /// One `nvmlShutdown` for one `nvmlInit`; the last closes the event sets.
    pub(crate) fn shut_down(&self) -> Result<(), Code> {
        let taken = self.inits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |inits| inits.checked_sub(1));
        let before = taken.map_err(|_none| Code::UNINITIALIZED)?;
        if before == 1 {
            self.event_sets().open.clear();
        }
        Ok(())
    }

    pub(crate) fn event_sets(&self) -> MutexGuard<'_, EventSets> {
        self.event_sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a device node is there for this process.
    pub(crate) fn has_node(&self, name: &str) -> bool {
        !self.sees_only_nodes || self.dev_dir().join(name).exists()
    }

    /// The directory that has `dev`: the driver root, or the root of the file system if the driver root has none.
    fn dev_dir(&self) -> PathBuf {
        let own = self.store.root_dir().join("dev");
        if own.is_dir() { own } else { PathBuf::from("/dev") }
    }
}

impl EventSets {
    /// Opens a set that has seen everything up to `seen`.
    pub(crate) fn open(&mut self, seen: u64) -> u32 {
        self.last_id += 1;
        self.open.insert(self.last_id, EventSet { seen, ..EventSet::default() });
        self.last_id
    }
}

/// `GPU_SIM_ROOT`, else what is above the library directory, else the root of the file system.
fn root_dir() -> PathBuf {
    if let Some(root) = std::env::var_os("GPU_SIM_ROOT") {
        return PathBuf::from(root);
    }
    let own = own_path().and_then(|path| path.canonicalize().ok()).unwrap_or_default();
    let library_dir = own.parent().unwrap_or_else(|| Path::new("/"));
    let below = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64"];
    let depth = below.iter().find(|dir| library_dir.ends_with(dir)).map_or(0, |dir| dir.split('/').count());
    if depth == 0 {
        return PathBuf::from("/");
    }
    library_dir.ancestors().nth(depth).unwrap_or_else(|| Path::new("/")).to_path_buf()
}

#[repr(C)]
struct DlInfo {
    file_name: *const c_char,
    file_base: *mut c_void,
    symbol_name: *const c_char,
    symbol_address: *mut c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, info: *mut DlInfo) -> c_int;
}

/// The file this library was loaded from.
fn own_path() -> Option<PathBuf> {
    static MARK: u8 = 0;
    let mut info = DlInfo {
        file_name: std::ptr::null(),
        file_base: std::ptr::null_mut(),
        symbol_name: std::ptr::null(),
        symbol_address: std::ptr::null_mut(),
    };
    // SAFETY: dladdr accepts any address, and `info` is a whole Dl_info.
    let found = unsafe { dladdr(std::ptr::from_ref(&MARK).cast(), &raw mut info) };
    if found == 0 || info.file_name.is_null() {
        return None;
    }
    // SAFETY: dladdr succeeded, so the name is a string that is valid while the library is loaded.
    let name = unsafe { CStr::from_ptr(info.file_name) };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}
