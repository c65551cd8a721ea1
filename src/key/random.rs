//! Where random numbers come from: the R of secret sharing, and new pads.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::base::SiteId;
use crate::device::cpu::otp;

use super::device::Device;
use super::generator::Generator;
use super::{Class, Error, KeyRange, Kind, Provenance, Sender, Source};

/// Bytes asked of a source at once.
const FILL_BYTES: usize = 1 << 20;

/// A supply of random bytes that are handed out once.
pub trait RandomSource: Send {
    /// Fills `out` with fresh bytes. After an error `out` holds nothing that may be used.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error>;

    /// What is known about the bytes.
    fn provenance(&self) -> &Provenance;
}

/// A random source as it is named in a configuration: `key-stream`, `generator`, `os` or
/// `device:/dev/hwrng`.
///
/// `key-stream` is the one to choose for sharing: as strong as the keys of the link, free of a generator,
/// and share C need not be sent. Where share C is to be sent, `generator` is the fast one and a physical
/// `device:` the strong one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RandomSettings {
    /// The operating system's generator.
    OperatingSystem,
    /// This program's generator, seeded by the operating system's: as strong, and faster.
    Generator,
    /// A device or a file of recorded random bytes, which is used up from its end.
    Device(PathBuf),
    /// The keys that are shared with the holder of share C, which then need not be sent.
    KeyStream,
}

impl RandomSettings {
    /// Opens the source for `owner`. `sender` gives the stream to the holder of share C; only a
    /// key stream asks for it.
    pub fn open(
        &self,
        owner: &SiteId,
        sender: impl FnOnce() -> Result<Sender, Error>,
    ) -> Result<Box<dyn RandomSource>, Error> {
        Ok(match self {
            RandomSettings::OperatingSystem => Box::new(OperatingSystem::new(owner.clone())),
            RandomSettings::Generator => Box::new(Generator::new(owner.clone())?),
            RandomSettings::Device(path) => Box::new(Device::open(path, owner.clone())?),
            RandomSettings::KeyStream => Box::new(KeyStream::new(sender()?)),
        })
    }
}

impl FromStr for RandomSettings {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match (text, text.strip_prefix("device:")) {
            ("os", _) => Ok(RandomSettings::OperatingSystem),
            ("generator", _) => Ok(RandomSettings::Generator),
            ("key-stream", _) => Ok(RandomSettings::KeyStream),
            (_, Some(path)) if !path.is_empty() => Ok(RandomSettings::Device(path.into())),
            _ => Err(Error::UnknownRandom { text: text.into() }),
        }
    }
}

impl TryFrom<String> for RandomSettings {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<RandomSettings> for String {
    fn from(settings: RandomSettings) -> String {
        settings.to_string()
    }
}

impl fmt::Display for RandomSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RandomSettings::OperatingSystem => f.write_str("os"),
            RandomSettings::Generator => f.write_str("generator"),
            RandomSettings::Device(path) => write!(f, "device:{}", path.display()),
            RandomSettings::KeyStream => f.write_str("key-stream"),
        }
    }
}

/// The operating system's generator: computationally secure.
pub struct OperatingSystem(Provenance);

impl OperatingSystem {
    /// For use by `owner`.
    pub fn new(owner: SiteId) -> Self {
        Self(Provenance {
            kind: Kind::Random,
            source: Source::OperatingSystem,
            class: Class::Computational,
            known_to: [owner].into(),
        })
    }
}

impl RandomSource for OperatingSystem {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        for part in out.chunks_mut(FILL_BYTES) {
            getrandom::fill(part)
                .map_err(|source| Error::Random { name: "os".into(), source: source.into() })?;
        }
        Ok(())
    }

    fn provenance(&self) -> &Provenance {
        &self.0
    }
}

/// Keys that two sites share, used as random numbers: the peer knows them without being sent them.
///
/// Only legal when [`Provenance::may_share_with`] says so; the caller checks that.
pub struct KeyStream {
    sender: Sender,
    provenance: Provenance,
    uses: Vec<KeyUse>,
}

/// Keys that became random numbers, and the reservation they are from: what the peer needs to
/// find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeyUse {
    /// The keys.
    pub range: KeyRange,
    /// The reservation.
    pub reservation: KeyRange,
}

impl KeyStream {
    /// Spends the stream of `sender`.
    pub fn new(sender: Sender) -> Self {
        let provenance = Provenance { kind: Kind::Random, ..sender.provenance().clone() };
        Self { sender, provenance, uses: Vec::new() }
    }

    /// What was used since the last call, in order. A range whose bytes were not a multiple of 16
    /// has unused bytes at its end.
    pub fn take_uses(&mut self) -> Vec<KeyUse> {
        std::mem::take(&mut self.uses)
    }
}

impl RandomSource for KeyStream {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        for start in (0..out.len()).step_by(FILL_BYTES) {
            let end = out.len().min(start + FILL_BYTES);
            let lease = self.sender.take(end - start).inspect_err(|_| out.zeroize())?;
            otp::write(&lease.pad(), &mut out[start..end]);
            let reservation = self.sender.reservation();
            self.uses.push(KeyUse { range: lease.range(), reservation });
        }
        Ok(())
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        for text in ["os", "generator", "device:/dev/hwrng", "key-stream"] {
            assert_eq!(text.parse::<RandomSettings>().unwrap().to_string(), text);
        }
        for text in ["", "device:", "rdrand", "OS"] {
            assert!(text.parse::<RandomSettings>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_system_fills_more_than_one_call_gives() {
        let mut out = vec![0; 3 * FILL_BYTES + 5];
        let mut source = OperatingSystem::new("a".parse().unwrap());
        source.fill(&mut out).unwrap();
        assert!(out.chunks(64).all(|part| part.len() < 64 || part.iter().any(|byte| *byte != 0)));
        assert_eq!(source.provenance().class, Class::Computational);
    }
}
