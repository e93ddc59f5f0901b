// SPDX-License-Identifier: Apache-2.0
//! Parses the output of `nvidia-smi -L`.

use std::fmt;

/// The output of one `nvidia-smi -L`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub gpus: Vec<SeenGpu>,
}

/// One line with a GPU, and the MIG devices below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenGpu {
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// `GPU-…`.
    pub uuid: String,
    pub migs: Vec<SeenMig>,
}

/// One line with a MIG device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenMig {
    /// Such as `1g.10gb`.
    pub profile: String,
    /// `MIG-…`.
    pub uuid: String,
}

impl Seen {
    /// Ignores other lines.
    pub fn parse(text: &str) -> Self {
        let mut gpus: Vec<SeenGpu> = Vec::new();
        for line in text.lines() {
            let Some((what, uuid)) = line.trim().trim_end_matches(')').split_once(" (UUID: ") else {
                continue;
            };
            let uuid = uuid.to_owned();
            if let Some((_, name)) = what.strip_prefix("GPU ").and_then(|rest| rest.split_once(": ")) {
                gpus.push(SeenGpu { name: name.to_owned(), uuid, migs: Vec::new() });
            } else if let Some(profile) = what.strip_prefix("MIG ").and_then(|rest| rest.split_whitespace().next())
                && let Some(gpu) = gpus.last_mut()
            {
                gpu.migs.push(SeenMig { profile: profile.to_owned(), uuid });
            }
        }
        Self { gpus }
    }

    /// The UUIDs that a program can use: of the MIG devices of a GPU with MIG, else of the GPU.
    pub fn uuids(&self) -> Vec<&str> {
        let of_gpu = |gpu: &SeenGpu| gpu.migs.is_empty();
        let gpus = self.gpus.iter().filter(|gpu| of_gpu(gpu)).map(|gpu| gpu.uuid.as_str());
        gpus.chain(self.migs().map(|mig| mig.uuid.as_str())).collect()
    }

    /// The MIG devices of all GPUs.
    pub fn migs(&self) -> impl Iterator<Item = &SeenMig> {
        self.gpus.iter().flat_map(|gpu| &gpu.migs)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut end = "";
        for gpu in &self.gpus {
            write!(f, "{end}{}  {}", gpu.name, gpu.uuid)?;
            end = "\n";
            gpu.migs.iter().try_for_each(|mig| write!(f, "\n  MIG {}  {}", mig.profile, mig.uuid))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Seen, SeenGpu, SeenMig};

    #[test]
    fn the_list_of_nvidia_smi_is_read() {
        let text = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-a)\n  MIG 1g.10gb     Device  0: (UUID: MIG-b)\n\
                    GPU 1: Tesla T4 (UUID: GPU-c)\nanything else\n";
        let mig = SeenMig { profile: "1g.10gb".to_owned(), uuid: "MIG-b".to_owned() };
        let gpu = |name: &str, uuid: &str, migs| SeenGpu { name: name.to_owned(), uuid: uuid.to_owned(), migs };
        let seen = Seen::parse(text);
        assert_eq!(seen.gpus, [gpu("NVIDIA H100 80GB HBM3", "GPU-a", vec![mig]), gpu("Tesla T4", "GPU-c", Vec::new())]);
        assert_eq!(seen.uuids(), ["GPU-c", "MIG-b"]);
        assert_eq!(Seen::parse("No devices found.\n"), Seen::default());
    }
}
