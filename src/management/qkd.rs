//! The quantum layer, simulated: one module at each end of a link pushes blocks up to its agent.
//!
//! Both modules of a link read the same description and make the same blocks at the same rate; what
//! one of them loses, or makes otherwise, the agents have to find out. The number of the next block is
//! durable before the block is pushed, so that no block is ever made twice.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::Error;
use super::settings::LinkSettings;
use crate::base::{Chunk, Clock, SiteId};
use crate::io::replace_file;
use crate::key::pool::{BLOCK_BYTES_MAX, BlockId, Description, Terms};
use crate::key::{KeyRange, KeySource, Pool, Provenance, SimulatedLink, StreamId, UNIT_BYTES};

/// Blocks that are pushed for one direction before the other has its turn.
const BLOCKS_AT_ONCE: usize = 16;

/// One end of a simulated link.
pub struct Module {
    link: SimulatedLink,
    site: SiteId,
    streams: [StreamId; 2],
    next: [u64; 2],
    record: PathBuf,
    block_units: u64,
    latency_units: u64,
    loss: f64,
}

impl Module {
    /// Opens the module of `site`; it goes on after the last block of the time before.
    pub fn open(
        site: &SiteId,
        settings: &LinkSettings,
        pool: &Pool,
        clock: Clock,
    ) -> Result<Option<Self>, Error> {
        let Some(path) = &settings.qkd else { return Ok(None) };
        let link = SimulatedLink::open(path, clock)?;
        let peer = &settings.peer;
        if !link.sites().contains(site) || !link.sites().contains(peer) {
            let what = format!("a QKD link of '{site}' and '{peer}' in {}", path.display());
            return Err(Error::NotConfigured { what });
        }
        let block = settings.block.0.clamp(UNIT_BYTES, BLOCK_BYTES_MAX);
        let record = pool.folder().join("pushed.json");
        let next = match fs::read(&record) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|e| Error::File { path: record.clone(), source: e.into() })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => [0, 0],
            Err(source) => return Err(Error::File { path: record, source }),
        };
        let [a, b] = link.sites().clone();
        let streams = [(&a, &b), (&b, &a)].map(|(sender, receiver)| StreamId {
            sender: sender.clone(),
            receiver: receiver.clone(),
        });
        let latency = Duration::from_millis(settings.latency_ms);
        let late_bits = u128::from(link.rate().0) * latency.as_nanos() / 1_000_000_000;
        Ok(Some(Self {
            site: site.clone(),
            streams,
            next,
            record,
            block_units: block / UNIT_BYTES,
            latency_units: u64::try_from(late_bits / 128).unwrap_or(u64::MAX),
            loss: settings.loss,
            link,
        }))
    }

    /// What its keys are worth, and how fast they come.
    pub fn terms(&self) -> Terms {
        let Provenance { source, class, known_to, .. } = self.link.provenance().clone();
        Terms::new(source, class, known_to, self.link.rate())
    }

    /// Pushes up what exists by now; says how many blocks. There may be more when it returns.
    pub fn push(&mut self, pool: &Pool) -> Result<usize, Error> {
        let mut pushed = 0;
        for direction in 0..2 {
            let stream = self.streams[direction].clone();
            let ready = self.link.ready(&stream)?.iter().map(KeyRange::end).max().unwrap_or(0);
            let ready = ready.saturating_sub(self.latency_units);
            for _ in 0..BLOCKS_AT_ONCE {
                let number = self.next[direction];
                if number.saturating_add(1).saturating_mul(self.block_units) > ready {
                    break;
                }
                self.next[direction] += 1;
                let text = serde_json::to_vec(&self.next).expect("two numbers");
                replace_file(&self.record, &text)
                    .map_err(|source| Error::File { path: self.record.clone(), source })?;
                pushed += usize::from(self.push_block(pool, &stream, number)?);
            }
        }
        Ok(pushed)
    }

    fn push_block(&self, pool: &Pool, stream: &StreamId, number: u64) -> Result<bool, Error> {
        let digest = blake3::hash(format!("{stream} block {number}").as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_bytes()[..16]);
        if self.is_lost(&id) {
            return Ok(false);
        }
        let range = KeyRange { position: number * self.block_units, units: self.block_units };
        let mut key = Chunk::with_capacity(range.bytes() as usize);
        key.mark_secret();
        key.set_len(range.bytes() as usize);
        self.link.read(stream, range, &mut key)?;
        let provenance = self.link.provenance();
        let (source, class) = (provenance.source, provenance.class);
        pool.append(Description::key(BlockId(id), stream.clone(), source, class), &key)?;
        Ok(true)
    }

    /// Whether this end, and not the other, loses the block: by chance, but always the same.
    fn is_lost(&self, id: &[u8; 16]) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(id).update(self.site.as_str().as_bytes());
        let mut draw = [0; 4];
        draw.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
        f64::from(u32::from_le_bytes(draw)) / f64::from(u32::MAX) < self.loss
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::{BitRate, ByteCount};
    use crate::key::pool::Block;

    const BLOCK: u64 = 4096;

    fn site(name: &str) -> SiteId {
        name.parse().unwrap()
    }

    struct World {
        folder: tempfile::TempDir,
        clock: Clock,
    }

    impl World {
        /// A link that makes one block a second in each direction and has two at first.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let clock = Clock::simulated(Duration::from_secs(1_800_000_000));
            let (rate, stock) = (BitRate(2 * 8 * BLOCK), ByteCount(2 * 2 * BLOCK));
            let path = folder.path().join("link.json");
            SimulatedLink::create(&path, ["a", "b"].map(site), rate, stock, &clock).unwrap();
            Self { folder, clock }
        }

        fn pool(&self, name: &str) -> Pool {
            let folder = self.folder.path().join(name);
            Pool::open(&folder, site(name), self.clock.clone()).unwrap()
        }

        fn module(&self, name: &str, peer: &str, latency_ms: u64, loss: f64) -> Module {
            let qkd: Option<PathBuf> = Some(Path::new(self.folder.path()).join("link.json"));
            let peer = site(peer);
            let block = ByteCount(BLOCK);
            let settings = LinkSettings { peer, relay: None, qkd, block, latency_ms, loss };
            let opened = Module::open(&site(name), &settings, &self.pool(name), self.clock.clone());
            opened.unwrap().unwrap()
        }

        fn blocks(&self, name: &str) -> Vec<Block> {
            self.pool(name).blocks().unwrap()
        }
    }

    #[test]
    fn blocks_come_up_at_the_rate_of_the_link_after_its_latency() {
        let world = World::new();
        let (mut near, mut far) =
            (world.module("a", "b", 0, 0.0), world.module("b", "a", 1500, 0.0));
        assert_eq!(near.push(&world.pool("a")).unwrap(), 4, "the stock");
        assert_eq!(near.push(&world.pool("a")).unwrap(), 0);
        world.clock.advance(Duration::from_secs(3));
        assert_eq!(near.push(&world.pool("a")).unwrap(), 6);
        assert_eq!(far.push(&world.pool("b")).unwrap(), 6, "a second and a half behind");
        let ids = |name: &str| -> Vec<BlockId> {
            world.blocks(name).iter().map(|block| block.description.id).collect()
        };
        assert!(ids("b").iter().all(|id| ids("a").contains(id)), "the same blocks");
    }

    #[test]
    fn a_restart_never_makes_a_block_again() {
        let world = World::new();
        assert_eq!(world.module("a", "b", 0, 0.0).push(&world.pool("a")).unwrap(), 4);
        for block in world.blocks("a") {
            world.pool("a").lose(block.description.id).unwrap();
        }
        assert_eq!(world.module("a", "b", 0, 0.0).push(&world.pool("a")).unwrap(), 0);
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(world.module("a", "b", 0, 0.0).push(&world.pool("a")).unwrap(), 2);
    }

    #[test]
    fn a_module_that_loses_blocks_loses_others_than_its_peer() {
        let world = World::new();
        world.clock.advance(Duration::from_secs(14));
        for (name, peer) in [("a", "b"), ("b", "a")] {
            let mut module = world.module(name, peer, 0, 0.5);
            let pushed = module.push(&world.pool(name)).unwrap();
            assert!((2..31).contains(&pushed), "{pushed} of 32");
        }
        let ids = |name: &str| -> std::collections::BTreeSet<BlockId> {
            world.blocks(name).iter().map(|block| block.description.id).collect()
        };
        assert_ne!(ids("a"), ids("b"));
    }
}
