// SPDX-License-Identifier: Apache-2.0
//! One loaded and initialised library.
//!
//! Dropping it shuts the library down and unloads it. It records whether the driver was unloaded, for [`crate::Session`].

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nvml_wrapper::bitmasks::InitFlags;
use nvml_wrapper_sys::bindings::NvmlLib;

use crate::error::{LoadError, NvmlError, code};

/// NVML, initialised.
#[derive(Debug)]
pub struct Nvml {
    inner: nvml_wrapper::Nvml,
    gone: AtomicBool,
}

impl Nvml {
    /// Loads the library and calls `nvmlInitWithFlags`, which may succeed without any GPU.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let loaded = nvml_wrapper::Nvml::builder().lib_path(path.as_os_str()).flags(InitFlags::NO_GPUS).init();
        let inner = loaded.map_err(|error| load_error(path, error))?;
        if inner.lib().nvmlShutdown.is_err() {
            // nvml-wrapper panics on drop if the symbol is missing, so the library is leaked.
            std::mem::forget(inner);
            return Err(LoadError::Refused(NvmlError { call: "nvmlShutdown", code: code::FUNCTION_NOT_FOUND }));
        }
        Ok(Self { inner, gone: AtomicBool::new(false) })
    }

    /// `550.54.15`.
    pub fn driver_version(&self) -> Result<String, NvmlError> {
        self.answer("nvmlSystemGetDriverVersion", self.inner.sys_driver_version())
    }

    /// Major and minor number of the newest CUDA version the driver supports.
    pub fn cuda_version(&self) -> Result<(u32, u32), NvmlError> {
        let call = "nvmlSystemGetCudaDriverVersion_v2";
        let packed = self.answer(call, self.inner.sys_cuda_driver_version())?;
        let packed = u32::try_from(packed).map_err(|_negative| NvmlError { call, code: code::UNKNOWN })?;
        Ok((packed / 1000, packed % 1000 / 10))
    }

    /// The number of GPUs of the driver, lost ones included.
    pub fn device_count(&self) -> Result<u32, NvmlError> {
        self.answer("nvmlDeviceGetCount_v2", self.inner.device_count())
    }

    /// Whether a call returned a code of [`NvmlError::is_driver_gone`].
    pub fn is_driver_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(crate) fn wrapped(&self) -> &nvml_wrapper::Nvml {
        &self.inner
    }

    pub(crate) fn lib(&self) -> &NvmlLib {
        self.inner.lib()
    }

    /// Converts the result of the wrapper back into a code.
    pub(crate) fn answer<T>(
        &self,
        call: &'static str,
        result: Result<T, nvml_wrapper::error::NvmlError>,
    ) -> Result<T, NvmlError> {
        result.map_err(|error| self.failed(NvmlError { call, code: code_of(error) }))
    }

    /// Converts the code of a raw call.
    pub(crate) fn check(&self, call: &'static str, code: u32) -> Result<(), NvmlError> {
        if code == 0 { Ok(()) } else { Err(self.failed(NvmlError { call, code })) }
    }

    fn failed(&self, error: NvmlError) -> NvmlError {
        if error.is_driver_gone() {
            self.gone.store(true, Ordering::Release);
        }
        error
    }
}

/// A function of the library. An old library may lack it.
pub(crate) fn symbol<F: Copy, E>(call: &'static str, field: &Result<F, E>) -> Result<F, NvmlError> {
    field.as_ref().copied().map_err(|_missing| NvmlError { call, code: code::FUNCTION_NOT_FOUND })
}

fn load_error(path: &Path, error: nvml_wrapper::error::NvmlError) -> LoadError {
    if let nvml_wrapper::error::NvmlError::LibloadingError(reason) = &error {
        return LoadError::Unloadable { path: path.to_owned(), reason: reason.to_string() };
    }
    LoadError::Refused(NvmlError { call: "nvmlInitWithFlags", code: code_of(error) })
}

fn code_of(error: nvml_wrapper::error::NvmlError) -> u32 {
    if matches!(error, nvml_wrapper::error::NvmlError::FailedToLoadSymbol(_)) {
        return code::FUNCTION_NOT_FOUND;
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use nvml_wrapper::error::NvmlError as Wrapped;

    use super::*;

    #[test]
    fn errors_of_the_wrapper_are_converted_back_into_codes() {
        for (given, expect) in [
            (Wrapped::LibRmVersionMismatch, 18),
            (Wrapped::UnexpectedVariant(23), 23),
            (Wrapped::FailedToLoadSymbol("undefined symbol".to_owned()), 13),
            (Wrapped::GetPciInfoFailed, 999),
            (Wrapped::GpuLost, 15),
        ] {
            assert_eq!(code_of(given), expect);
        }
    }

    #[test]
    fn a_library_that_is_not_nvml_is_refused() {
        let refused = Nvml::load(Path::new("libc.so.6")).unwrap_err();
        let missing = NvmlError { call: "nvmlInitWithFlags", code: code::FUNCTION_NOT_FOUND };
        assert_eq!(refused, LoadError::Refused(missing));
    }

    #[test]
    fn a_file_that_is_not_a_library_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let Err(LoadError::Unloadable { path, .. }) = Nvml::load(file.path()) else { panic!("loaded an empty file") };
        assert_eq!(path, file.path());
    }
}
