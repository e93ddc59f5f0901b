// SPDX-License-Identifier: Apache-2.0
//! The time-slice interval of a GPU, through `nvidia-smi compute-policy` of the driver.
//!
//! NVML has no public call for it, and the calls of nvidia-smi are private. The exit code does not prove that a setting was
//! applied, so it is read back by a second run. Texts and codes are those of nvidia-smi 535.261.

use std::path::Path;
use std::time::Duration;

use dra_model::{GpuUuid, Interval};

use crate::driver_program::{DriverProgram, Ended, ProgramError};
use crate::gpu_error::{GpuError, Setting};

/// The nvidia-smi of a driver root, for one GPU.
#[derive(Debug, Clone)]
pub(super) struct NvidiaSmi<'a> {
    pub(super) driver_root: &'a Path,
    /// The version of the loaded driver.
    pub(super) loaded: Option<String>,
    /// For one run.
    pub(super) timeout: Duration,
    pub(super) gpu: &'a GpuUuid,
    /// The index of the GPU now. With a UUID nvidia-smi looks at every GPU, and fails if any of them is lost.
    pub(super) index: u32,
}

/// A run takes some milliseconds. Without persistence mode the driver initialises all GPUs first, which took 2 s to 30 s.
pub(super) const RUN_TIMEOUT: Duration = Duration::from_mins(1);

/// "The requested operation is not available on target device" (nvidia-smi(1), return values).
const NOT_AVAILABLE: i32 = 3;

impl NvidiaSmi<'_> {
    /// The interval in force, if the GPU supports it.
    pub(super) fn interval(&self) -> Result<Option<Interval>, GpuError> {
        let read = || {
            let smi = self.find()?;
            let Some(ended) = self.compute_policy(&smi, &["-l"])? else { return Ok(None) };
            parse(&ended.text, self.index).map(Some).ok_or_else(|| smi.failed(&ended))
        };
        read().map_err(|source| GpuError::Program { gpu: self.gpu.clone(), setting: Setting::Interval, source })
    }

    pub(super) fn set_interval(&self, interval: Interval) -> Result<(), GpuError> {
        let (gpu, setting) = (self.gpu, Setting::Interval);
        let number = interval.number().to_string();
        let set = self.find().and_then(|smi| self.compute_policy(&smi, &["--set-timeslice", &number]));
        match set {
            Ok(Some(_done)) => GpuError::check_applied(gpu, setting, &interval, self.interval()?.as_ref()),
            Ok(None) => Err(GpuError::Unsupported { gpu: gpu.clone(), setting }),
            Err(source) => Err(GpuError::Program { gpu: gpu.clone(), setting, source }),
        }
    }

    fn find(&self) -> Result<DriverProgram, ProgramError> {
        DriverProgram::find(self.driver_root, "nvidia-smi", &["libnvidia-ml.so.1"], self.loaded.as_deref())
    }

    /// The output of a successful run; nothing for a GPU without such a policy.
    fn compute_policy(&self, smi: &DriverProgram, action: &[&str]) -> Result<Option<Ended>, ProgramError> {
        let index = self.index.to_string();
        let arguments = [&["compute-policy", "-i", &index], action].concat();
        let ended = smi.run(&arguments, self.timeout)?;
        match ended.status.code() {
            Some(0) => Ok(Some(ended)),
            Some(NOT_AVAILABLE) => Ok(None),
            Some(_) | None => Err(smi.failed(&ended)),
        }
    }
}

/// The value in the one line `|   1   Timeslice       Medium        |` of a table about the GPU of an index.
fn parse(table: &str, index: u32) -> Option<Interval> {
    let mut values = table.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["|", gpu, "Timeslice", value, "|"] => Some((gpu, value)),
        _ => None,
    });
    let (gpu, value) = values.next().filter(|_first| values.next().is_none())?;
    (gpu == index.to_string()).then(|| value.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As nvidia-smi 535.261 prints it.
    const TABLE: &str = "\
+-------------------------------------+
| GPU compute policies:               |
| GPU     Name           Value        |
|=====================================|
|   1   Timeslice       Medium        |
+-------------------------------------+
";

    #[test]
    fn the_one_value_of_a_table_is_read() {
        let two = TABLE.replace("|===", "|   0   Timeslice       Default       |\n|===");
        for (given, expect) in [
            (TABLE.to_owned(), Some(Interval::Medium)),
            (TABLE.replace("Medium ", "Default"), Some(Interval::Default)),
            (TABLE.replace("Medium ", "Unknown"), None),
            (TABLE.replace("Timeslice", "Other    "), None),
            (two, None),
            (TABLE.replace("  1  ", "  2  "), None),
            ("No devices were found\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&given, 1), expect, "{given}");
        }
    }
}
