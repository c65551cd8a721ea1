//! Pads out of keys that a key manager gives: the product's own use of other people's key managers.
//!
//! One site draws: it asks for keys that it shares with the other, and writes them as its copy of a
//! pad. What it then tells the other site, the [`Drawing`], says which keys in which order, and
//! nothing of their bytes. The other site fetches the same keys by their names from its own key
//! manager, and writes its copy. Both then import their copies as they would pads that were
//! carried. Either copy is whole or not there at all; keys of one that failed are lost, not used.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::client::Client;
use super::error::Error;
use super::identity::SaeId;
use super::message::{NamedKey, Status};
use super::name::KeyId;
use super::seen::{MARK_BYTES, SeenKeys};
use crate::base::{ByteCount, Clock, SiteId};
use crate::key::pad::{self, PadHeader};
use crate::key::{self, Class, Kind, Provenance, RandomSource, Source, UNIT_BYTES};

/// Bytes of key in one answer: what a key manager can be trusted to write.
const ANSWER_BYTES: u64 = 1 << 20;
/// Fewest bytes of a key that leave something behind their mark.
const KEY_BYTES_MIN: u64 = MARK_BYTES as u64 + UNIT_BYTES;
const VERSION: u32 = 1;

/// Which keys of a key manager make up a pad. Not secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Drawing {
    version: u32,
    /// Who drew.
    pub master: SaeId,
    /// Bits of each key.
    pub bits: u64,
    /// The pad.
    pub pad: PadHeader,
    /// The keys, in order.
    pub keys: Vec<KeyId>,
}

/// What is to be drawn.
pub struct Wish<'a> {
    /// This site and the other.
    pub sites: [SiteId; 2],
    /// Who we are to the key manager.
    pub master: &'a SaeId,
    /// Who the other site is to its key manager.
    pub slave: &'a SaeId,
    /// Bytes of pad, both directions together.
    pub bytes: ByteCount,
    /// Bits of a key; as many as the key manager gives, if not said.
    pub bits: Option<u64>,
    /// How strong the operator knows the keys to be.
    pub class: Class,
}

/// Draws keys and writes this site's copy of the pad into `folder`.
///
/// Errors: whatever the key manager does wrong; [`Error::Repeated`] when it gives a key that `seen`
/// remembers. There is no file then.
pub fn draw(
    client: &mut Client,
    wish: &Wish<'_>,
    seen: &mut SeenKeys,
    folder: &Path,
) -> Result<(PathBuf, Drawing), Error> {
    let status = client.status(wish.slave)?;
    let bits = key_bits(&status, wish.bits)?;
    let origin = provenance(wish.class, &wish.sites);
    let pad = PadHeader::fresh(wish.sites.clone(), wish.bytes, &origin, &Clock::system())?;
    let mut left = key_count(&pad, bits);
    let batch = (ANSWER_BYTES / (bits / 8)).clamp(1, status.max_key_per_request.max(1));
    let mut keys = Vec::new();
    let next = |client: &mut Client| {
        let number = left.min(batch);
        left -= number;
        let drawn = client.enc_keys(wish.slave, number as usize, bits)?;
        keys.extend(drawn.iter().map(|key| key.id));
        Ok(drawn)
    };
    let site = &wish.sites[0];
    let path = write(client, &pad, site, Box::new(next), (origin, seen), folder)?;
    let drawing = Drawing { version: VERSION, master: wish.master.clone(), bits, pad, keys };
    Ok((path, drawing))
}

/// Fetches the keys of `drawing` and writes the copy of `site` into `folder`.
///
/// Errors: as for [`draw`].
pub fn fetch(
    client: &mut Client,
    drawing: &Drawing,
    site: &SiteId,
    seen: &mut SeenKeys,
    folder: &Path,
) -> Result<PathBuf, Error> {
    let unfit = |what: &str| Err(Error::Unfit { what: what.into() });
    if drawing.version != VERSION {
        return unfit("the version of the drawing is not known here");
    }
    let sound = drawing.bits.is_multiple_of(8)
        && (KEY_BYTES_MIN..=ANSWER_BYTES).contains(&(drawing.bits / 8))
        && drawing.keys.len() as u64 == key_count(&drawing.pad, drawing.bits);
    if !sound {
        return unfit("the drawing does not have as many keys as its pad needs");
    }
    let status = client.status(&drawing.master)?;
    let batch = (ANSWER_BYTES / (drawing.bits / 8)).clamp(1, status.max_key_per_request.max(1));
    let mut batches = drawing.keys.chunks(batch as usize);
    let next = |client: &mut Client| {
        let ids = batches.next().unwrap_or_default();
        client.dec_keys(&drawing.master, ids, drawing.bits)
    };
    let origin = provenance(drawing.pad.class, &drawing.pad.sites);
    write(client, &drawing.pad, site, Box::new(next), (origin, seen), folder)
}

/// Bits of each key: a number of whole bytes that the key manager gives.
fn key_bits(status: &Status, wanted: Option<u64>) -> Result<u64, Error> {
    let most = status.max_key_size.min(ANSWER_BYTES * 8);
    let bits = wanted.unwrap_or(most) / 8 * 8;
    if bits / 8 < KEY_BYTES_MIN || bits < status.min_key_size || bits > most {
        let what = format!(
            "keys of {bits} bits cannot be drawn: the key manager gives {} to {}, and {} are the \
             fewest of which something is left for the pad",
            status.min_key_size,
            status.max_key_size,
            KEY_BYTES_MIN * 8
        );
        return Err(Error::Unfit { what });
    }
    Ok(bits)
}

fn key_count(pad: &PadHeader, bits: u64) -> u64 {
    pad.key_bytes().div_ceil(bits / 8 - MARK_BYTES as u64)
}

fn provenance(class: Class, sites: &[SiteId; 2]) -> Provenance {
    Provenance {
        kind: Kind::Key,
        source: Source::Qkd,
        class,
        known_to: sites.iter().cloned().collect(),
    }
}

type Next<'a> = Box<dyn FnMut(&mut Client) -> Result<Vec<NamedKey>, Error> + Send + 'a>;

fn write(
    client: &mut Client,
    pad: &PadHeader,
    site: &SiteId,
    next: Next<'_>,
    (provenance, seen): (Provenance, &mut SeenKeys),
    folder: &Path,
) -> Result<PathBuf, Error> {
    let mut stream =
        KeyStream { client, next, seen, provenance, keys: Vec::new(), taken: 0, failure: None };
    let written = pad::write_copy(pad, site, &mut stream, folder);
    match stream.failure.take() {
        Some(failure) => Err(failure),
        None => Ok(written?),
    }
}

/// Keys one after the other, without their marks, as random bytes.
struct KeyStream<'a> {
    client: &'a mut Client,
    next: Next<'a>,
    seen: &'a mut SeenKeys,
    provenance: Provenance,
    /// The last first.
    keys: Vec<NamedKey>,
    /// Bytes of the last key that were taken, its mark among them.
    taken: usize,
    /// Why there are no more.
    failure: Option<Error>,
}

impl KeyStream<'_> {
    fn refill(&mut self) -> Result<(), Error> {
        let mut keys = (self.next)(self.client)?;
        if !self.seen.remember(&keys)? {
            return Err(Error::Repeated { address: self.client.address() });
        }
        keys.reverse();
        (self.keys, self.taken) = (keys, MARK_BYTES);
        Ok(())
    }
}

impl RandomSource for KeyStream<'_> {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), key::Error> {
        let mut out = out;
        while !out.is_empty() {
            let Some(key) = self.keys.last() else {
                if let Err(failure) = self.refill() {
                    self.failure = Some(failure);
                    let source = std::io::ErrorKind::Interrupted.into();
                    return Err(key::Error::Random { name: self.client.address(), source });
                }
                continue;
            };
            let rest = &key.bytes.expose()[self.taken..];
            let count = rest.len().min(out.len());
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&rest[..count]);
            self.taken += count;
            if count == rest.len() {
                self.keys.pop();
                self.taken = MARK_BYTES;
            }
            out = later;
        }
        Ok(())
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }
}
