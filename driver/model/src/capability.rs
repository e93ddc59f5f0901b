// SPDX-License-Identifier: Apache-2.0
//! The parts of the driver that a container gets, named as in NVIDIA's `NVIDIA_DRIVER_CAPABILITIES`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::ids::IdError;

/// A part of the driver, by what programs use it for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// CUDA and OpenCL.
    Compute,
    /// NVML and `nvidia-smi`.
    Utility,
    /// Encoding and decoding of video.
    Video,
    /// OpenGL, EGL, Vulkan and OptiX, with the DRI nodes of the GPU.
    Graphics,
    /// An X server or a compositor in the container.
    Display,
    /// NGX, such as DLSS.
    Ngx,
    /// The sockets of the daemons of the host, by which root in a container can change settings of GPUs. NVIDIA's toolkit has no
    /// word for them and gives them to every container with `utility`.
    Ipc,
}

impl Capability {
    pub const ALL: [Self; 7] =
        [Self::Compute, Self::Utility, Self::Video, Self::Graphics, Self::Display, Self::Ngx, Self::Ipc];

    /// The names in a text.
    const EXPECTED: &'static str = "`compute`, `utility`, `video`, `graphics`, `display`, `ngx` or `ipc`";

    /// A list of names in a text.
    pub const EXPECTED_LIST: &'static str =
        "a list of `compute`, `utility`, `video`, `graphics`, `display`, `ngx` or `ipc`";

    const fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Utility => "utility",
            Self::Video => "video",
            Self::Graphics => "graphics",
            Self::Display => "display",
            Self::Ngx => "ngx",
            Self::Ipc => "ipc",
        }
    }

    /// The capability without which this one is of no use: the libraries for video open `libcuda.so.1`, an X server loads those
    /// for graphics (libnvidia-container, `options.h`).
    const fn needs(self) -> Option<Self> {
        match self {
            Self::Video => Some(Self::Compute),
            Self::Display => Some(Self::Graphics),
            Self::Compute | Self::Utility | Self::Graphics | Self::Ngx | Self::Ipc => None,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Capability {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let known = Self::ALL.into_iter().find(|capability| capability.as_str() == text);
        known.ok_or_else(|| IdError::new("driver capability", text, Self::EXPECTED))
    }
}

/// At least one capability, and with each one those that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities(BTreeSet<Capability>);

impl Capabilities {
    /// Nothing for an empty list.
    pub fn of(listed: impl IntoIterator<Item = Capability>) -> Option<Self> {
        let with_needed = listed.into_iter().flat_map(|capability| [Some(capability), capability.needs()]);
        let all: BTreeSet<Capability> = with_needed.flatten().collect();
        (!all.is_empty()).then_some(Self(all))
    }

    pub fn contains(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }

    /// Whether one of them is among `others`.
    pub fn intersects(&self, others: &[Capability]) -> bool {
        others.iter().any(|other| self.contains(*other))
    }

    /// In the order of [`Capability::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = Capability> + '_ {
        self.0.iter().copied()
    }
}

impl Default for Capabilities {
    /// Those of NVIDIA's toolkit for a container that names none.
    fn default() -> Self {
        Self([Capability::Compute, Capability::Utility].into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_exactly_and_all_of_them_are_in_the_text_for_users() {
        for capability in Capability::ALL {
            assert_eq!(capability.to_string().parse(), Ok(capability));
            assert!(Capability::EXPECTED.contains(&format!("`{capability}`")), "{capability}");
        }
        let error = "Video".parse::<Capability>().unwrap_err().to_string();
        assert!(error.starts_with("`Video` is not a valid driver capability: expected `compute`, "), "{error}");
        assert_eq!(Capability::EXPECTED_LIST, format!("a list of {}", Capability::EXPECTED));
    }

    #[test]
    fn a_capability_comes_with_the_one_that_it_needs() {
        use Capability::{Compute, Display, Graphics, Utility, Video};
        for (listed, expect) in [
            (&[][..], None),
            (&[Utility], Some(vec![Utility])),
            (&[Video], Some(vec![Compute, Video])),
            (&[Display, Utility, Display], Some(vec![Utility, Graphics, Display])),
            (&[Utility, Compute], Some(Capabilities::default().iter().collect())),
        ] {
            let found = Capabilities::of(listed.iter().copied());
            assert_eq!(found.map(|found| found.iter().collect::<Vec<_>>()), expect, "{listed:?}");
        }
    }
}
