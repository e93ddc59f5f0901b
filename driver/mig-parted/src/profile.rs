// SPDX-License-Identifier: Apache-2.0
//! Names of MIG profiles: `1g.10gb`, `1g.10gb+me`, `1c.3g.40gb`, as `nvidia-smi mig -lgip` and `-lcip` print them without `MIG `.

use std::fmt;

/// The order is that of the printed objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Profile {
    /// Compute slices of the GPU instance.
    slices: u32,
    /// Memory of the GPU instance, rounded as in the name.
    gigabytes: u32,
    attribute: &'static str,
    /// Compute slices of the compute instance, if it is smaller than the GPU instance.
    compute: Option<u32>,
}

/// Suffixes about the engines of a GPU instance.
const ATTRIBUTES: [&str; 5] = ["", "+me", "+gfx", "-me", "+me.all"];

impl Profile {
    /// A compute instance of the size of its GPU instance has the name of the GPU instance.
    pub fn parse(text: &str) -> Option<Self> {
        let (compute, instance) = match text.split_once("c.") {
            Some((compute, instance)) => (Some(number(compute)?), instance),
            None => (None, text),
        };
        let (slices, rest) = instance.split_once("g.")?;
        let (gigabytes, attribute) = rest.split_once("gb")?;
        let slices = number(slices)?;
        let fits = compute.is_none_or(|compute| compute <= slices);
        let attribute = ATTRIBUTES.into_iter().find(|known| *known == attribute && fits)?;
        let compute = compute.filter(|compute| *compute != slices);
        Some(Self { slices, gigabytes: number(gigabytes)?, attribute, compute })
    }

    /// Whether the compute instance is smaller than its GPU instance.
    pub fn is_part(&self) -> bool {
        self.compute.is_some()
    }

    /// Compute slices of the compute instance, if it is smaller than the GPU instance.
    pub fn compute_slices(&self) -> Option<u32> {
        self.compute
    }

    /// Name of the profile of the GPU instance.
    pub fn gpu_instance(&self) -> String {
        Self { compute: None, ..self.clone() }.to_string()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slices, gigabytes, attribute, compute } = self;
        if let Some(compute) = compute {
            write!(f, "{compute}c.")?;
        }
        write!(f, "{slices}g.{gigabytes}gb{attribute}")
    }
}

/// A positive number without leading zeros.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| *number > 0 && number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        for name in [
            "1g.5gb",
            "7g.141gb",
            "1g.10gb+me",
            "1g.24gb+gfx",
            "1g.24gb-me",
            "2g.48gb+me.all",
            "1c.3g.40gb",
            "1c.2g.24gb+me",
        ] {
            assert_eq!(Profile::parse(name).unwrap().to_string(), name);
        }
        let part = Profile::parse("1c.3g.40gb+me").unwrap();
        assert_eq!((part.compute_slices(), part.gpu_instance().as_str()), (Some(1), "3g.40gb+me"));
        let whole = Profile::parse("3c.3g.40gb").unwrap();
        assert!(whole == Profile::parse("3g.40gb").unwrap() && !whole.is_part());
    }

    #[test]
    fn other_texts_are_no_names() {
        for text in [
            "",
            "all",
            "1g",
            "g.10gb",
            "1g.gb",
            "1g.10",
            "1g.10GB",
            "1g.10gb ",
            "0g.10gb",
            "1g.0gb",
            "01g.10gb",
            "+1g.10gb",
            "1g.10gb+",
            "1g.10gb+vgpu",
            "1g.10gb.me",
            "1g.10gb+me+gfx",
            "c.3g.40gb",
            "0c.3g.40gb",
            "4c.3g.40gb",
            "MIG 1g.10gb",
            "1g.99999999999gb",
        ] {
            assert_eq!(Profile::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn profiles_are_ordered_by_size() {
        let names = ["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "1c.3g.40gb", "7g.80gb"];
        let mut profiles: Vec<_> = names.iter().rev().filter_map(|name| Profile::parse(name)).collect();
        profiles.sort();
        assert_eq!(profiles.iter().map(ToString::to_string).collect::<Vec<_>>(), names);
    }
}
