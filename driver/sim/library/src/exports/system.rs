// SPDX-License-Identifier: Apache-2.0
//! Init, shutdown, versions, error texts.

use std::ffi::{CString, c_char, c_int, c_uint};
use std::sync::OnceLock;

use dra_sim::Code;

use nvml_wrapper_sys::bindings as nvml;

use crate::call::{Call, Return, contain, exports};
use crate::ffi::{Out, TextOut, Versioned, put, text_field};
use crate::session::Session;

/// Initialises NVML: `DRIVER_NOT_LOADED` without a machine, without the driver, or without the control node, as in a
/// container that was given no GPU.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Return {
    initialise("nvmlInitWithFlags")
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlInit_v2() -> Return {
    initialise("nvmlInit_v2")
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlInit() -> Return {
    initialise("nvmlInit")
}

fn initialise(name: &'static str) -> Return {
    contain(|| {
        let session = Session::current();
        Call::begin(name, session)?;
        if !session.has_node("nvidiactl") {
            return Err(Code::DRIVER_NOT_LOADED);
        }
        session.initialise();
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlShutdown() -> Return {
    contain(|| Session::current().shut_down())
}

/// The text of a return code, valid as long as the library is loaded; needs no initialisation.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlErrorString(code: Return) -> *const c_char {
    static TEXTS: OnceLock<Vec<CString>> = OnceLock::new();
    let texts = TEXTS.get_or_init(|| {
        (0..=LAST_CODE + 1).map(|code| CString::new(Code::text_of(code)).unwrap_or_default()).collect()
    });
    let index = usize::try_from(code.min(LAST_CODE + 1)).unwrap_or(0);
    texts.get(index).map_or(std::ptr::null(), |text| text.as_ptr())
}

/// The last code with a text of its own; the one after it stands for all unknown ones.
const LAST_CODE: u32 = 29;

exports! {
    nvmlSystemGetDriverVersion: (version: TextOut, length: c_uint) |call| version.put(length, &call.state.driver_version);

    nvmlSystemGetNVMLVersion: (version: TextOut, length: c_uint) |call| {
        version.put(length, &format!("{}.{}", call.state.cuda_version() / 1000, call.state.driver_version))
    };

    nvmlSystemGetCudaDriverVersion_v2 + nvmlSystemGetCudaDriverVersion: (version: Out<'_, c_int>) |call| {
        put(version, call.state.cuda_version())
    };

    nvmlSystemGetDriverBranch: (info: Versioned, length: c_uint) |call| {
        if length == 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        let branch = text_field(&format!("r{}_00", call.state.driver_branch()));
        info.put(1, |version| nvml::nvmlSystemDriverBranchInfo_v1_t { version, branch })
    };

    nvmlSystemGetProcessName: (pid: c_uint, name: TextOut, length: c_uint) |_call| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).map_err(|_gone| Code::NOT_FOUND)?;
        name.put(length, &program.to_string_lossy())
    };

    nvmlUnitGetCount: (count: Out<'_, c_uint>) |_call| put(count, 0);

    nvmlGetExcludedDeviceCount + nvmlGetBlacklistDeviceCount: (count: Out<'_, c_uint>) |_call| put(count, 0);
}
