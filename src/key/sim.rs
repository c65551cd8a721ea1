//! A simulated QKD link: seeded, with a rate, a stock at the start and nothing physical about it.
//!
//! One JSON file describes the link and both ends have a copy. The bytes at any position of a
//! stream are AES-256 in counter mode with the position as the counter; the key is derived from
//! the seed and the direction. What exists grows with the clock.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::base::{BitRate, ByteCount, Clock, Secret, SiteId};
use crate::device::cpu::keystream;
use crate::kernel::otp::Expansion;

use super::chunks::LeaseChunks;
use super::source::Opening;
use super::{
    Class, Error, KeyLease, KeyRange, KeySource, Kind, Provenance, Source, StreamId, UNIT_BYTES,
};

/// The name of this kind of link in the configuration.
pub const KIND: &str = "sim";

const VERSION: u32 = 1;
const DERIVATION: &str = "dsgd 2026 simulated link, key stream of one direction";

/// The file that describes a link. The seed is as secret as the keys.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Description {
    version: u32,
    sites: [SiteId; 2],
    /// 32 bytes in hexadecimal.
    seed: String,
    /// When the link began to make keys, in seconds since 1970.
    epoch: u64,
    /// Both directions together.
    rate: BitRate,
    /// What there was at the epoch, both directions together.
    stock: ByteCount,
}

impl Drop for Description {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

/// One end of a simulated link.
pub struct SimulatedLink {
    sites: [SiteId; 2],
    /// For the stream that `sites[0]` sends, and for the other.
    keys: [Secret<[u8; 32]>; 2],
    epoch: Duration,
    rate: BitRate,
    stock: ByteCount,
    clock: Clock,
    provenance: Provenance,
}

impl SimulatedLink {
    /// Writes the description of a new link with a fresh seed to `path`, for its owner alone.
    ///
    /// `rate` and `stock` are those of both directions together; the epoch is now.
    pub fn create(
        path: &Path,
        sites: [SiteId; 2],
        rate: BitRate,
        stock: ByteCount,
        clock: &Clock,
    ) -> Result<(), Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())
            .map_err(|source| Error::Random { name: "os".into(), source: source.into() })?;
        let description = Description {
            version: VERSION,
            sites,
            seed: to_hex(&seed),
            epoch: clock.since_epoch().as_secs(),
            rate,
            stock,
        };
        let failed = |source| Error::LinkFile { path: path.into(), source };
        let text = serde_json::to_vec_pretty(&description).map_err(|e| failed(e.into()))?;
        let text = Zeroizing::new(text);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// Reads the description at `path`.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, Error> {
        let failed = |source| Error::LinkFile { path: path.into(), source };
        let refused = |what| Error::Link { path: path.into(), what };
        let text = Zeroizing::new(fs::read(path).map_err(failed)?);
        let description: Description = serde_json::from_slice(&text)
            .map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidData, e)))?;
        if description.version != VERSION {
            return Err(refused("its version is not known here"));
        }
        if description.sites[0] == description.sites[1] {
            return Err(refused("both ends are the same site"));
        }
        let seed = from_hex(&description.seed)
            .ok_or_else(|| refused("its seed is not 32 bytes in hexadecimal"))?;
        let sites = description.sites.clone();
        Ok(Self {
            keys: [derive(&seed, &sites[0], &sites[1]), derive(&seed, &sites[1], &sites[0])],
            epoch: Duration::from_secs(description.epoch),
            rate: BitRate(description.rate.0 / 2),
            stock: ByteCount(description.stock.0 / 2),
            clock,
            provenance: Provenance {
                kind: Kind::Key,
                source: Source::Simulated,
                class: Class::Computational,
                known_to: sites.iter().cloned().collect(),
            },
            sites,
        })
    }

    /// The two ends.
    pub fn sites(&self) -> &[SiteId; 2] {
        &self.sites
    }

    fn key(&self, stream: &StreamId) -> &[u8; 32] {
        self.keys[usize::from(stream.sender != self.sites[0])].expose()
    }
}

/// Opens the link that the settings name, for [`SOURCES`](super::SOURCES).
pub fn open(opening: &Opening<'_>) -> Result<Box<dyn KeySource>, Error> {
    let Some(path) = &opening.settings.file else {
        let what = "a simulated link needs the setting 'file'";
        return Err(Error::Link { path: opening.settings.peer.as_str().into(), what });
    };
    let link = SimulatedLink::open(path, opening.clock.clone())?;
    let ends = [opening.site, &opening.settings.peer];
    if ends.iter().any(|site| !link.sites.contains(site)) || ends[0] == ends[1] {
        return Err(Error::Link { path: path.clone(), what: "it joins other sites" });
    }
    Ok(Box::new(link))
}

impl KeySource for SimulatedLink {
    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn rate(&self) -> BitRate {
        self.rate
    }

    fn ready(&self, _: &StreamId) -> Result<Vec<KeyRange>, Error> {
        let age = self.clock.since_epoch().saturating_sub(self.epoch);
        let grown = u128::from(self.rate.0) * age.as_nanos() / 8_000_000_000;
        let bytes = grown + u128::from(self.stock.0);
        let units = u64::try_from(bytes / u128::from(UNIT_BYTES)).unwrap_or(u64::MAX);
        Ok(vec![KeyRange { position: 0, units: units.min(u64::MAX / UNIT_BYTES) }])
    }

    fn read(&self, stream: &StreamId, range: KeyRange, out: &mut [u8]) -> Result<(), Error> {
        assert_eq!(out.len() as u64, range.bytes(), "the caller made room for the range");
        keystream::fill(self.key(stream), u128::from(range.position), out);
        Ok(())
    }

    fn lease(
        &self,
        stream: &StreamId,
        range: KeyRange,
        chunks: &Arc<LeaseChunks>,
    ) -> Result<KeyLease, Error> {
        let counter = u128::from(range.position);
        let expansions = vec![Expansion::new(0, self.key(stream), counter)];
        Ok(KeyLease::expanded(range, None, expansions, chunks))
    }

    fn erase(&self, _: &StreamId, _: KeyRange) -> Result<(), Error> {
        // Nothing is kept: the bytes can be computed again from the seed, so this link is for
        // trials only.
        Ok(())
    }
}

/// The names are separated by a byte that no name can have.
fn derive(seed: &[u8; 32], sender: &SiteId, receiver: &SiteId) -> Secret<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(DERIVATION);
    hasher.update(seed);
    hasher.update(format!("{sender}>{receiver}").as_bytes());
    Secret::new(*hasher.finalize().as_bytes())
}

fn to_hex(bytes: &[u8; 32]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

fn from_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        let digit = |at: usize| char::from(text.as_bytes()[at]).to_digit(16);
        *byte = u8::try_from(digit(2 * index)? * 16 + digit(2 * index + 1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(rate: u64, stock: u64) -> (SimulatedLink, SimulatedLink, Clock) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link.json");
        let clock = Clock::simulated(Duration::from_secs(1000));
        let sites = ["a".parse().unwrap(), "b".parse().unwrap()];
        SimulatedLink::create(&path, sites, BitRate(rate), ByteCount(stock), &clock).unwrap();
        let open = || SimulatedLink::open(&path, clock.clone()).unwrap();
        (open(), open(), clock.clone())
    }

    fn read(link: &SimulatedLink, stream: &StreamId, position: u64, units: u64) -> Vec<u8> {
        let mut out = vec![0xff; (units * UNIT_BYTES) as usize];
        link.read(stream, KeyRange { position, units }, &mut out).unwrap();
        out
    }

    #[test]
    fn both_ends_read_the_same_bytes_at_any_position() {
        let (a, b, _) = link(0, 1 << 20);
        let (out, back) = super::super::source::streams(&a.sites()[0], &a.sites()[1]);
        let whole = read(&a, &out, 0, 1000);
        assert_eq!(read(&b, &out, 0, 1000), whole);
        assert_eq!(read(&b, &out, 37, 5), whole[37 * 16..42 * 16]);
        assert_ne!(read(&a, &back, 0, 1000), whole, "the directions are independent");
        read(&a, &out, u64::MAX - 2, 2);
    }

    #[test]
    fn key_arrives_at_half_the_rate_in_each_direction() {
        let (a, _, clock) = link(16_000, 64_000);
        let (out, _) = super::super::source::streams(&a.sites()[0], &a.sites()[1]);
        let units = || a.ready(&out).unwrap()[0].units;
        assert_eq!(units(), 2000);
        clock.advance(Duration::from_secs(16));
        assert_eq!(units(), 3000);
    }

    #[test]
    fn damaged_descriptions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link.json");
        let good = format!(
            r#"{{"version":1,"sites":["a","b"],"seed":"{}","epoch":0,"rate":8,"stock":16}}"#,
            "5a".repeat(32)
        );
        let open = |text: &str| {
            fs::write(&path, text).unwrap();
            SimulatedLink::open(&path, Clock::system())
        };
        assert!(open(&good).is_ok());
        for (from, to) in
            [("\"version\":1", "\"version\":2"), ("\"b\"", "\"a\""), ("5a5", "xa5"), ("\"a\"", "7")]
        {
            assert!(open(&good.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
