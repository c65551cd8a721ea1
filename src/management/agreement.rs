//! How two agents find out that they have the same blocks, before anybody uses one.
//!
//! Fiber, modules or a fault may have given them different bytes. The sender of the stream makes 32
//! bytes of fresh key at both ends (with its tag that is 48 bytes for a block), hashes the block under
//! the first half and masks the hash with the second; the other end does the same and compares. An
//! adversary learns nothing of the block, and two different blocks of `n` units pass with a chance of
//! at most `n / 2^128`. A block that differs is given up at both ends.

use std::time::Duration;

use subtle::ConstantTimeEq;

use super::Error;
use super::agent::{Agent, Neighbour};
use super::protocol::{HASH_BYTES, Hash, Reply, Request};
use crate::base::{ByteCount, Chunk, SiteId};
use crate::device::cpu::otp;
use crate::key::pool::{Block, BlockId, Description, State};
use crate::key::{KeyRange, Pool};

/// How long a block may be at one end alone.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the other end may leave its block unsaid, before it is given up here, too.
const PATIENCE_OF_FOLLOWER: Duration = Duration::from_secs(600);

/// Key of the agents' sessions below which some is moved to them, and how much at once.
const CONTROL_LOW: ByteCount = ByteCount(256 << 10);
const REPLENISHMENT: u64 = 64 << 10;

/// The masked hash of a block.
fn check_of(bytes: &[u8], mask: &[u8]) -> Hash {
    let (hash_key, rest) = mask.split_at(HASH_BYTES);
    let mut check = otp::polyval_blocks(hash_key.try_into().expect("cut to 16 bytes"), bytes);
    check.iter_mut().zip(rest).for_each(|(byte, mask)| *byte ^= mask);
    check
}

fn pending_bytes(pool: &Pool, block: &Block) -> Result<Chunk, Error> {
    let length = block.bytes().0 as usize;
    let mut bytes = Chunk::with_capacity(length);
    bytes.mark_secret();
    bytes.set_len(length);
    pool.read_pending(block.description.id, &mut bytes)?;
    Ok(bytes)
}

impl Agent {
    /// Agrees with a neighbour on what is pending; says how many blocks became ready.
    pub(super) fn agree(&self, neighbour: &Neighbour) -> Result<usize, Error> {
        let (own, other) = (self.stream_to(&neighbour.name), self.stream_from(&neighbour.name));
        let mut ready = 0;
        for block in neighbour.pool.blocks()? {
            let Description { id, stream, created, .. } = &block.description;
            if block.state != State::Pending {
                continue;
            }
            let age = self.clock.since_epoch().saturating_sub(*created);
            if *stream == own {
                ready += usize::from(self.agree_on(neighbour, &block, age)?);
            } else if *stream == other && age > PATIENCE_OF_FOLLOWER {
                neighbour.pool.lose(*id)?;
            }
        }
        Ok(ready)
    }

    fn agree_on(&self, neighbour: &Neighbour, block: &Block, age: Duration) -> Result<bool, Error> {
        let Some(range) = block.range() else { return Ok(false) };
        let id = block.description.id;
        let bytes = pending_bytes(&neighbour.pool, block)?;
        let question = |mask: &Chunk| {
            let (position, units) = (range.position, range.units);
            Request::Agree { block: id, position, units, check: check_of(&bytes, mask) }
        };
        let answer = neighbour.caller.ask_masked(2 * HASH_BYTES, question);
        match neighbour.remember(answer)? {
            Reply::Agreed(true) => {
                neighbour.pool.promote(id, None)?;
                Ok(true)
            }
            Reply::Agreed(false) => {
                neighbour.pool.lose(id)?;
                (self.notice)(format!("block {id} differs at {}; given up", neighbour.name));
                Ok(false)
            }
            Reply::Unknown if age > PATIENCE => {
                neighbour.pool.lose(id)?;
                (self.notice)(format!("block {id} never came to {}; given up", neighbour.name));
                Ok(false)
            }
            Reply::Unknown => Ok(false),
            _ => Err(Error::Protocol { peer: neighbour.name.clone() }),
        }
    }

    /// The other end's part: compares its block with that of `peer`, and makes it ready or gives it
    /// up.
    pub(super) fn compare(
        &self,
        peer: &SiteId,
        id: BlockId,
        (position, units): (u64, u64),
        check: &Hash,
        mask: &Chunk,
    ) -> Result<Reply, Error> {
        let pool = &self.neighbour(peer)?.pool;
        let protocol = || Error::Protocol { peer: peer.clone() };
        if mask.len() != 2 * HASH_BYTES {
            return Err(protocol());
        }
        let blocks = pool.blocks()?;
        let Some(block) = blocks.iter().find(|block| block.description.id == id) else {
            return Ok(Reply::Unknown);
        };
        if block.description.stream != self.stream_from(peer) {
            return Err(protocol());
        }
        match block.state {
            // The answer to the same question was lost.
            State::Ready | State::Active => Ok(Reply::Agreed(block.position == Some(position))),
            State::Lost | State::Spent => Ok(Reply::Agreed(false)),
            State::Pending => {
                let same = block.description.units == units
                    && bool::from(check_of(&pending_bytes(pool, block)?, mask).ct_eq(check));
                let agreed = same && pool.promote(id, Some(position)).is_ok();
                if !agreed {
                    pool.lose(id)?;
                    (self.notice)(format!("block {id} differs at {peer}; given up"));
                }
                Ok(Reply::Agreed(agreed))
            }
        }
    }

    /// Moves key from a link to the agents' own sessions when those run low, if their keys are in a
    /// pool.
    pub(super) fn replenish(&self, neighbour: &Neighbour) -> Result<(), Error> {
        let peer = &neighbour.name;
        let Some(pool) = self.control_pool(peer)? else { return Ok(()) };
        let (control, link) = (self.control.level(peer)?, self.links.level(peer)?);
        let enough = self.settings.floor.0.max(4 * REPLENISHMENT);
        if control.outgoing.remaining >= CONTROL_LOW || link.outgoing.remaining.0 < enough {
            return Ok(());
        }
        let (lease, reservation, origin) = self.spend(neighbour, ByteCount(REPLENISHMENT))?;
        let range = lease.range();
        let id = BlockId::fresh()?;
        let stream = self.stream_to(peer);
        let block = Description::key(id, stream, origin.source, origin.class);
        let key = lease.into_chunk();
        let position = pool.append(block, &key)?.position.unwrap_or(0);
        match neighbour.ask(&Request::Replenish { block: id, position, range, reservation }) {
            Ok(Reply::Done) => pool.promote(id, None).map(drop).map_err(Error::from),
            other => {
                pool.lose(id)?;
                other.map(drop)
            }
        }
    }

    pub(super) fn take_replenishment(
        &self,
        peer: &SiteId,
        (id, position): (BlockId, u64),
        range: KeyRange,
        reservation: KeyRange,
    ) -> Result<Reply, Error> {
        let pool = self.control_pool(peer)?;
        let pool = pool.ok_or_else(|| Error::Protocol { peer: peer.clone() })?;
        let (lease, origin) = self.follow(peer, range, reservation)?;
        let block = Description::key(id, self.stream_from(peer), origin.source, origin.class);
        let key = lease.into_chunk();
        pool.append(block, &key)?;
        pool.promote(id, Some(position))?;
        Ok(Reply::Done)
    }

    fn control_pool(&self, peer: &SiteId) -> Result<Option<Pool>, Error> {
        match self.control.pool_folder(peer) {
            None => Ok(None),
            Some(folder) => Ok(Some(Pool::open(&folder, self.node.clone(), self.clock.clone())?)),
        }
    }
}
