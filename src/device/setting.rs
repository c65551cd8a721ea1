//! Which devices a run is told to use.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{BACKENDS, Error};

/// `auto`, the name of a device, or a name with the cards to use of it: `cuda:0,2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Setting {
    /// Every kernel where it was measured to be fastest.
    #[default]
    Auto,
    /// Every kernel on this device, if it has it.
    Named {
        /// Its name in [`BACKENDS`].
        device: &'static str,
        /// Its cards, counted from 0; all of them, if empty.
        cards: Vec<usize>,
    },
}

impl Setting {
    /// What `dsgd` shows for the values of an option.
    pub const VALUES: &str = "auto, cpu, cuda, cuda:0,1, wgpu, xrt, fpga-sim";
}

impl FromStr for Setting {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "auto" {
            return Ok(Setting::Auto);
        }
        let unknown = || Error::Unknown { name: text.chars().take(40).collect() };
        let (name, cards) = text.split_once(':').unzip();
        let name = name.unwrap_or(text);
        let known = BACKENDS.iter().find(|(known, _)| *known == name);
        let (device, _) = known.ok_or_else(unknown)?;
        let cards = cards.into_iter().flat_map(|cards| cards.split(','));
        let cards = cards.map(|card| card.trim().parse().map_err(|_| unknown()));
        let mut cards = cards.collect::<Result<Vec<usize>, _>>()?;
        cards.sort_unstable();
        cards.dedup();
        Ok(Setting::Named { device, cards })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Auto => write!(f, "auto"),
            Setting::Named { device, cards } if cards.is_empty() => write!(f, "{device}"),
            Setting::Named { device, cards } => {
                let cards: Vec<_> = cards.iter().map(ToString::to_string).collect();
                write!(f, "{device}:{}", cards.join(","))
            }
        }
    }
}

impl Serialize for Setting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_read_as_it_is_written() {
        for (text, written) in
            [("auto", "auto"), ("cpu", "cpu"), ("cuda:2, 0,2", "cuda:0,2"), ("wgpu", "wgpu")]
        {
            let setting: Setting = text.parse().unwrap();
            assert_eq!(setting.to_string(), written);
            assert_eq!(written.parse::<Setting>().unwrap(), setting);
        }
        for text in ["", "abacus", "cuda:", "cuda:one", "auto:1", "cpu,cuda"] {
            assert!(matches!(text.parse::<Setting>(), Err(Error::Unknown { .. })), "{text}");
        }
    }
}
