//! What supplies the bytes of a link, the settings that name it, and the list of all kinds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::{BitRate, Clock, SiteId};

use super::chunks::LeaseChunks;
use super::{AtRest, Error, KeyLease, KeyRange, Provenance, StreamId, pool, preshared, sim};

/// A link in a site's configuration: `[[key]] peer = "lsa" kind = "sim" file = "link.json"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LinkSettings {
    /// The site at the other end.
    pub peer: SiteId,
    /// One of the names in [`SOURCES`].
    pub kind: String,
    /// The description that both ends have, or the folder of the pool, where it is not in the state
    /// folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

impl LinkSettings {
    /// A simulated link that `file` describes.
    pub fn simulated(peer: SiteId, file: &Path) -> Self {
        Self { peer, kind: sim::KIND.into(), file: Some(file.into()) }
    }

    /// A link whose pads are imported into the state folder.
    pub fn preshared(peer: SiteId) -> Self {
        Self { peer, kind: preshared::KIND.into(), file: None }
    }

    /// A link whose keys others put into the pool in the state folder.
    pub fn pooled(peer: SiteId) -> Self {
        Self { peer, kind: pool::KIND.into(), file: None }
    }
}

/// The supply of key bytes of one link, both directions. It knows what exists, not what is spent.
pub trait KeySource: Send {
    /// What is known about the bytes.
    fn provenance(&self) -> &Provenance;

    /// What its unused keys are to somebody who takes this site's disk.
    fn at_rest(&self) -> AtRest {
        AtRest::Exposed
    }

    /// What arrives in each direction.
    fn rate(&self) -> BitRate;

    /// The ranges of `stream` that exist now, ascending and apart; spent ones may be among them.
    fn ready(&self, stream: &StreamId) -> Result<Vec<KeyRange>, Error>;

    /// Fills `out` with the bytes at `range`, the same at both ends.
    ///
    /// # Panics
    /// When `out` is not `range.bytes()` long.
    fn read(&self, stream: &StreamId, range: KeyRange, out: &mut [u8]) -> Result<(), Error>;

    /// The bytes at `range` for one use, in memory of `chunks`. A source that works them out, instead
    /// of fetching them, gives a lease that does so when it is used.
    fn lease(
        &self,
        stream: &StreamId,
        range: KeyRange,
        chunks: &Arc<LeaseChunks>,
    ) -> Result<KeyLease, Error> {
        let mut chunk = chunks.take(range.bytes() as usize);
        chunk.mark_secret();
        self.read(stream, range, &mut chunk)?;
        Ok(KeyLease::new(range, chunk))
    }

    /// Destroys the bytes at `range` where the source keeps them. Nothing may need them again.
    fn erase(&self, stream: &StreamId, range: KeyRange) -> Result<(), Error>;

    /// Gives back the room of keys that lie wholly below `mark` and in none of the ranges that are `held`.
    /// No session is open.
    fn retire(&self, _: &StreamId, _mark: u64, _held: &[KeyRange]) -> Result<(), Error> {
        Ok(())
    }

    /// Destroys the bytes at `range`, which a session that crashed may have left.
    fn sweep(&self, stream: &StreamId, range: KeyRange) -> Result<(), Error> {
        self.erase(stream, range)
    }
}

/// What a source is opened with.
pub struct Opening<'a> {
    /// The site that opens it.
    pub site: &'a SiteId,
    /// The folder for what the link keeps at this site.
    pub folder: &'a Path,
    /// The settings of the link.
    pub settings: &'a LinkSettings,
    /// The time that the supply goes by.
    pub clock: &'a Clock,
}

impl Opening<'_> {
    /// The site's state folder.
    pub fn state(&self) -> &Path {
        self.folder.ancestors().nth(2).unwrap_or(self.folder)
    }
}

/// Opens one kind of source.
pub type Open = fn(&Opening<'_>) -> Result<Box<dyn KeySource>, Error>;

/// Every kind of source by its name in the configuration.
pub const SOURCES: &[(&str, Open)] =
    &[(sim::KIND, sim::open), (preshared::KIND, preshared::open), (pool::KIND, pool::open)];

/// Opens the source that the settings name.
pub fn open(opening: &Opening<'_>) -> Result<Box<dyn KeySource>, Error> {
    let kind = &opening.settings.kind;
    let (_, open) = SOURCES.iter().find(|(name, _)| name == kind).ok_or_else(|| {
        let known: Vec<_> = SOURCES.iter().map(|(name, _)| *name).collect();
        Error::UnknownKind { kind: kind.clone(), known: known.join(", ") }
    })?;
    open(opening)
}

/// The two streams between a site and its peer: outgoing, incoming.
pub(crate) fn streams(site: &SiteId, peer: &SiteId) -> (StreamId, StreamId) {
    let stream = |sender: &SiteId, receiver: &SiteId| StreamId {
        sender: sender.clone(),
        receiver: receiver.clone(),
    };
    (stream(site, peer), stream(peer, site))
}

/// The part of each range that lies at or after `position`.
pub(crate) fn from_position(ranges: &[KeyRange], position: u64) -> Vec<KeyRange> {
    ranges
        .iter()
        .map(|range| KeyRange::between(range.position.max(position), range.end()))
        .filter(|range| range.units > 0)
        .collect()
}
