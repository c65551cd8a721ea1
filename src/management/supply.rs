//! KSA: what leaves the key network. It puts agreed blocks into the pool of the site that the node
//! supplies, and the network keeps nothing of them.

use std::path::PathBuf;

use super::Error;
use super::agent::PATIENCE;
use super::protocol::Delivery;
use crate::base::{BitRate, Clock, SiteId};
use crate::key::pool::{self, BlockId, Description, State, Terms};
use crate::key::{Pool, StreamId};

/// The supply of one site.
pub(super) struct Supply {
    site: SiteId,
    state: PathBuf,
    clock: Clock,
}

impl Supply {
    pub(super) fn new(site: SiteId, state: PathBuf, clock: Clock) -> Self {
        Self { site, state, clock }
    }

    /// The site that is supplied.
    pub(super) fn site(&self) -> &SiteId {
        &self.site
    }

    fn pool(&self, delivery: &Delivery) -> Result<Pool, Error> {
        let peer = if delivery.from == self.site { &delivery.to } else { &delivery.from };
        let folder = pool::folder(&self.state, peer);
        Ok(Pool::open(&folder, self.site.clone(), self.clock.clone())?)
    }

    /// Puts both blocks of a delivery into the pool, pending; gives the position of the one that this
    /// site sends with.
    pub(super) fn deliver(&self, delivery: &Delivery, key: &[u8]) -> Result<Option<u64>, Error> {
        let pool = self.pool(delivery)?;
        self.give_up_unfinished(&pool)?;
        let mut own = None;
        let mut rest = key;
        for (block, bytes) in blocks(delivery) {
            let (part, later) = rest.split_at(bytes as usize);
            let (source, class) = (delivery.source, delivery.class);
            pool.set_terms(&Terms::new(source, class, block.everybody(), BitRate(0)))?;
            own = own.or(pool.append(block, part)?.position);
            rest = later;
        }
        Ok(own)
    }

    /// Makes the block ready that the peer sends with.
    pub(super) fn follow(&self, delivery: &Delivery, position: Option<u64>) -> Result<(), Error> {
        self.promote(delivery, false, position)
    }

    /// Makes every block of a delivery ready that is not. The other end can read what this site sends
    /// with from now on.
    pub(super) fn finish(&self, delivery: &Delivery, back: Option<u64>) -> Result<(), Error> {
        if delivery.from == self.site {
            self.promote(delivery, false, back)?;
        }
        self.promote(delivery, true, None)
    }

    fn promote(&self, delivery: &Delivery, own: bool, position: Option<u64>) -> Result<(), Error> {
        let pool = self.pool(delivery)?;
        for (block, _) in blocks(delivery) {
            if (block.stream.sender == self.site) == own {
                pool.promote(block.id, position)?;
            }
        }
        Ok(())
    }

    /// Gives up what deliveries left that were never finished, because a node or the server died.
    fn give_up_unfinished(&self, pool: &Pool) -> Result<(), Error> {
        let now = self.clock.since_epoch();
        for block in pool.blocks()? {
            let age = now.saturating_sub(block.description.created);
            if block.state == State::Pending && age > 10 * PATIENCE {
                pool.lose(block.description.id)?;
            }
        }
        Ok(())
    }

    /// Gives up what of a delivery is here.
    pub(super) fn give_up(&self, delivery: &Delivery) -> Result<(), Error> {
        let pool = self.pool(delivery)?;
        let mine: Vec<BlockId> = blocks(delivery).map(|(block, _)| block.id).collect();
        for block in pool.blocks()? {
            if mine.contains(&block.description.id) && block.state == State::Pending {
                pool.lose(block.description.id)?;
            }
        }
        Ok(())
    }
}

/// The blocks of a delivery that are not empty, with their lengths.
fn blocks(delivery: &Delivery) -> impl Iterator<Item = (Description, u64)> {
    let Delivery { from, to, .. } = delivery;
    let parts = [
        (delivery.forward, from, to, delivery.forward_bytes),
        (delivery.back, to, from, delivery.back_bytes),
    ];
    parts.into_iter().filter(|(.., bytes)| *bytes > 0).map(|(id, sender, receiver, bytes)| {
        let stream = StreamId { sender: sender.clone(), receiver: receiver.clone() };
        let mut block = Description::key(id, stream, delivery.source, delivery.class);
        // A relay of the only path had the key itself; those of several had a part each.
        match &delivery.paths[..] {
            [path] => block.seen_by = path.iter().cloned().collect(),
            paths => {
                block.parts_seen_by =
                    paths.iter().map(|path| path.iter().cloned().collect()).collect();
            }
        }
        (block, bytes)
    })
}
