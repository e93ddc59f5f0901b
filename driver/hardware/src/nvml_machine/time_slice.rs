// SPDX-License-Identifier: Apache-2.0
//! The time-slice interval of a GPU, by the driver's own `nvidia-smi compute-policy`.
//!
//! NVML has no public call for it, and what nvidia-smi calls instead is private to the two. Its exit code alone proves
//! nothing: a setting is believed when the next run shows it. Texts and codes are those of nvidia-smi 535.261.

use std::path::Path;
use std::time::Duration;

use dra_model::{GpuUuid, Interval};

use crate::driver_program::{DriverProgram, Ended, ProgramError};
use crate::machine::{GpuError, Setting};

/// The nvidia-smi of a driver root.
#[derive(Debug, Clone, Copy)]
pub(super) struct NvidiaSmi<'a> {
    /// Where the driver is.
    pub(super) driver_root: &'a Path,
    /// How long one run may take.
    pub(super) timeout: Duration,
}

/// A run takes some milliseconds. Where persistence mode is off the driver sets all GPUs up first: 2 s to 30 s were seen.
pub(super) const RUN_TIMEOUT: Duration = Duration::from_mins(1);

/// "The requested operation is not available on target device" (nvidia-smi(1), return values).
const NOT_AVAILABLE: i32 = 3;

impl NvidiaSmi<'_> {
    /// What is in force, where the GPU has it.
    pub(super) fn interval(self, gpu: &GpuUuid) -> Result<Option<Interval>, GpuError> {
        let read = || {
            let smi = self.find()?;
            let Some(ended) = self.compute_policy(&smi, gpu, &["-l"])? else { return Ok(None) };
            parse(&ended.text).map(Some).ok_or_else(|| smi.failed(&ended))
        };
        read().map_err(|source| GpuError::Program { gpu: gpu.clone(), setting: Setting::Interval, source })
    }

    /// Sets and reads back.
    pub(super) fn set_interval(self, gpu: &GpuUuid, interval: Interval) -> Result<(), GpuError> {
        let setting = Setting::Interval;
        let number = interval.number().to_string();
        let set = self.find().and_then(|smi| self.compute_policy(&smi, gpu, &["--set-timeslice", &number]));
        match set {
            Ok(Some(_done)) => GpuError::check_applied(gpu, setting, &interval, self.interval(gpu)?.as_ref()),
            Ok(None) => Err(GpuError::Unsupported { gpu: gpu.clone(), setting }),
            Err(source) => Err(GpuError::Program { gpu: gpu.clone(), setting, source }),
        }
    }

    fn find(self) -> Result<DriverProgram, ProgramError> {
        DriverProgram::find(self.driver_root, "nvidia-smi", &["libnvidia-ml.so.1"])
    }

    /// What a run says that succeeds; nothing on a GPU that has no such policy.
    fn compute_policy(
        self,
        smi: &DriverProgram,
        gpu: &GpuUuid,
        action: &[&str],
    ) -> Result<Option<Ended>, ProgramError> {
        let arguments = [&["compute-policy", "-i", gpu.as_str()], action].concat();
        let ended = smi.run(&arguments, self.timeout)?;
        match ended.status.code() {
            Some(0) => Ok(Some(ended)),
            Some(NOT_AVAILABLE) => Ok(None),
            Some(_) | None => Err(smi.failed(&ended)),
        }
    }
}

/// The value in the one line `|   1   Timeslice       Medium        |` of a table.
fn parse(table: &str) -> Option<Interval> {
    let mut values = table.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["|", _gpu, "Timeslice", value, "|"] => Some(value),
        _ => None,
    });
    values.next().filter(|_first| values.next().is_none())?.parse().ok()
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
            ("No devices were found\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&given), expect, "{given}");
        }
    }
}
