//! Quantities with their unit in the type; parsed from and printed as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes. Reads `4MiB`, `16GB`, `4096`; prints decimal units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(pub u64);

/// A number of bits a second. Reads `400Mbit/s`; prints decimal units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(pub u64);

/// Why a quantity could not be read.
#[derive(Debug, thiserror::Error)]
#[error("'{text}' is not {expected}")]
pub struct ParseError {
    text: String,
    expected: &'static str,
}

const BYTE_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("KB", 1000),
    ("B", 1),
];

const RATE_UNITS: [(&str, u64); 4] =
    [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1000), ("bit/s", 1)];

fn parse_with(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, scale) = units
        .iter()
        .find_map(|(unit, scale)| text.strip_suffix(unit).map(|number| (number, *scale)))
        .unwrap_or((text, 1));
    let number: f64 = number.trim().parse().ok()?;
    let value = number * scale as f64;
    (value.is_finite() && (0.0..=9e18).contains(&value)).then_some(value.round() as u64)
}

impl FromStr for ByteCount {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse_with(text, &BYTE_UNITS).map(ByteCount).ok_or_else(|| ParseError {
            text: text.into(),
            expected: "a number of bytes, such as 4MiB or 16GB",
        })
    }
}

impl FromStr for BitRate {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse_with(text, &RATE_UNITS)
            .map(BitRate)
            .ok_or_else(|| ParseError { text: text.into(), expected: "a rate, such as 400Mbit/s" })
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1000 => write!(f, "{} B", self.0),
            1000..1_000_000 => write!(f, "{:.1} kB", self.0 as f64 / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.1} MB", self.0 as f64 / 1e6),
            1_000_000_000..1_000_000_000_000 => write!(f, "{:.2} GB", self.0 as f64 / 1e9),
            _ => write!(f, "{:.2} TB", self.0 as f64 / 1e12),
        }
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1000 => write!(f, "{} bit/s", self.0),
            1000..1_000_000 => write!(f, "{:.1} kbit/s", self.0 as f64 / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.1} Mbit/s", self.0 as f64 / 1e6),
            _ => write!(f, "{:.2} Gbit/s", self.0 as f64 / 1e9),
        }
    }
}

impl BitRate {
    /// The rate at which `bytes` pass in `seconds`; zero when no time passed.
    pub fn of(bytes: ByteCount, seconds: f64) -> Self {
        if seconds > 0.0 { Self((bytes.0 as f64 * 8.0 / seconds) as u64) } else { Self(0) }
    }
}

/// Accepts both a number and a text with a unit; gives the text.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u64(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a number or a text with a unit")
                    }
                    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<$type, E> {
                        Ok(<$type>::from(value))
                    }
                    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<$type, E> {
                        u64::try_from(value).map(<$type>::from).map_err(E::custom)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }

        impl From<u64> for $type {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }
    };
}

serde_as_text!(ByteCount);
serde_as_text!(BitRate);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let bytes = |text: &str| text.parse::<ByteCount>().unwrap().0;
        assert_eq!(bytes("4MiB"), 4 << 20);
        assert_eq!(bytes("16 GB"), 16_000_000_000);
        assert_eq!(bytes("1.5kB"), 1500);
        assert_eq!(bytes("77"), 77);
        assert_eq!("400Mbit/s".parse::<BitRate>().unwrap().0, 400_000_000);
    }

    #[test]
    fn refuses_nonsense_with_the_text_in_the_message() {
        for text in ["", "4 MiBs", "-1MB", "inf", "1e300GB"] {
            assert!(text.parse::<ByteCount>().unwrap_err().to_string().contains(text));
        }
    }

    #[test]
    fn prints_decimal_units() {
        assert_eq!(ByteCount(20_700_000).to_string(), "20.7 MB");
        assert_eq!(BitRate::of(ByteCount(50_000_000), 1.0).to_string(), "400.0 Mbit/s");
    }
}
