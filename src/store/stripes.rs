//! Reading and writing the stripes of a share on a disk, with several in flight: what the stores on
//! local disks have in common.

use std::collections::{HashMap, VecDeque};

use crate::base::{Chunk, Pool, ShareId};
use crate::io::{self, Disk, Op, WriteBehind};

use super::{Digest, Error, HELD_STRIPES, ShareInfo, ShareReader};

/// The largest stripe taken, in bytes: bounds the memory an open share needs.
pub(super) const STRIPE_BYTES_MAX: u32 = 64 << 20;

/// Bytes of a digest.
pub(super) const DIGEST_BYTES: usize = 32;

/// Where on its disk a stripe begins.
pub(super) type Place = Box<dyn Fn(u64) -> u64 + Send>;

/// The digest of a stripe, or of the table of all digests.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// Checks the sizes a share is created with.
pub(super) fn check_sizes(id: &ShareId, stripe_bytes: u32) -> Result<(), Error> {
    if (1..=STRIPE_BYTES_MAX).contains(&stripe_bytes) {
        return Ok(());
    }
    let what = format!("stripes of {stripe_bytes} bytes; 1 to {STRIPE_BYTES_MAX} can be stored");
    Err(Error::Misfit { id: id.clone(), what })
}

/// Names a failed operation: [`Error::Full`] where that is the reason.
pub(super) fn disk_error(place: &str, needed: u64, free: u64, source: std::io::Error) -> Error {
    let place = place.into();
    if io::is_full(&source) {
        Error::Full { place, needed, free }
    } else {
        Error::Disk { place, source }
    }
}

/// The stripes of a share being written, in order.
pub(super) struct StripeWriter {
    pub(super) id: ShareId,
    pub(super) format: u16,
    pub(super) stripe_bytes: u32,
    pub(super) disk: WriteBehind,
    /// The digests of the stripes so far, one after the other.
    pub(super) digests: Vec<u8>,
}

impl StripeWriter {
    pub(super) fn new(id: &ShareId, format: u16, stripe_bytes: u32, disk: Box<dyn Disk>) -> Self {
        let disk = WriteBehind::new(disk, HELD_STRIPES);
        Self { id: id.clone(), format, stripe_bytes, disk, digests: Vec::new() }
    }

    /// Number of stripes so far.
    pub(super) fn stripes(&self) -> u64 {
        (self.digests.len() / DIGEST_BYTES) as u64
    }

    /// Checks number and length of the next stripe.
    pub(super) fn check(&self, stripe: &Chunk) -> Result<(), Error> {
        let (number, len) = (self.stripes(), self.stripe_bytes as usize);
        if stripe.seq() == number && stripe.len() == len {
            return Ok(());
        }
        let what = format!(
            "stripe {} of {} bytes came where stripe {number} of {len} was expected",
            stripe.seq(),
            stripe.len()
        );
        Err(Error::Misfit { id: self.id.clone(), what })
    }

    /// Starts writing a checked stripe at `offset`.
    pub(super) fn write(&mut self, mut stripe: Chunk, offset: u64) -> Result<(), std::io::Error> {
        self.digests.extend_from_slice(&digest_of(&stripe).0);
        pad(&mut stripe, self.disk.alignment());
        self.disk.write(stripe, offset)
    }

    pub(super) fn info(&self) -> ShareInfo {
        ShareInfo {
            id: self.id.clone(),
            format: self.format,
            stripe_bytes: self.stripe_bytes,
            stripes: self.stripes(),
            digest: digest_of(&self.digests),
        }
    }
}

/// Lengthens a chunk with zeros to what the disk takes.
pub(super) fn pad(chunk: &mut Chunk, alignment: usize) {
    let (len, padded) = (chunk.len(), chunk.len().next_multiple_of(alignment));
    chunk.spare()[len..padded].fill(0);
    chunk.set_len(padded);
}

/// Reads a share's stripes; those after the one asked for are on their way already when the
/// stripes are asked for in order.
pub(super) struct StripeReader {
    info: ShareInfo,
    digests: Vec<u8>,
    disk: Box<dyn Disk>,
    /// For errors.
    place: String,
    locate: Place,
    /// Memory for the stripes on their way; one that the caller keeps too long is made anew.
    pool: Pool,
    /// Stripes asked of the disk and not handed out, in order.
    ahead: VecDeque<u64>,
    ready: HashMap<u64, Result<Chunk, std::io::Error>>,
    /// The stripe that comes next if reading goes on in order.
    next: u64,
}

impl StripeReader {
    /// Memory for reading `stripes` stripes ahead and for as many with the caller.
    pub(super) fn pool(info: &ShareInfo) -> Pool {
        let chunks = 2 * (HELD_STRIPES as u64).min(info.stripes) as usize;
        Pool::new(chunks, info.stripe_bytes as usize)
    }

    /// The pool again, if reading the share gains from having it registered with the kernel: that
    /// costs about as much as reading into it a few times unregistered.
    pub(super) fn registered<'a>(info: &ShareInfo, pool: &'a Pool) -> Option<&'a Pool> {
        (info.stripes > 16 * HELD_STRIPES as u64).then_some(pool)
    }

    pub(super) fn new(
        info: ShareInfo,
        digests: Vec<u8>,
        disk: Box<dyn Disk>,
        place: String,
        locate: Place,
        pool: Pool,
    ) -> Self {
        let (ahead, ready) = (VecDeque::new(), HashMap::new());
        Self { info, digests, disk, place, locate, pool, ahead, ready, next: 0 }
    }

    fn ask(&mut self, number: u64) {
        let bytes = self.info.stripe_bytes as usize;
        let mut chunk = self.pool.try_take().unwrap_or_else(|| Chunk::with_capacity(bytes));
        chunk.set_seq(number);
        let len = bytes.next_multiple_of(self.disk.alignment());
        self.disk.submit(Op::Read { chunk, offset: (self.locate)(number), len });
        self.ahead.push_back(number);
    }

    /// Gives up what was read ahead.
    fn forget(&mut self) -> Result<(), std::io::Error> {
        while self.ready.len() < self.ahead.len() {
            self.settle()?;
        }
        self.ready.clear();
        self.ahead.clear();
        Ok(())
    }

    fn settle(&mut self) -> Result<(), std::io::Error> {
        let lost = || std::io::Error::other("the disk did not answer");
        let done = self.disk.wait().ok_or_else(lost)?;
        let chunk = done.chunk.ok_or_else(lost)?;
        self.ready.insert(chunk.seq(), done.result.map(|_| chunk));
        Ok(())
    }

    fn fetch(&mut self, number: u64) -> Result<Chunk, std::io::Error> {
        let in_order = number == self.next;
        if !in_order {
            self.forget()?;
        }
        let depth = if in_order { HELD_STRIPES as u64 } else { 1 };
        let first = self.ahead.back().map_or(number, |last| last + 1);
        for ahead in first..self.info.stripes.min(number + depth) {
            self.ask(ahead);
        }
        while !self.ready.contains_key(&number) {
            self.settle()?;
        }
        self.next = number + 1;
        self.ahead.retain(|ahead| *ahead != number);
        self.ready.remove(&number).expect("it was waited for above")
    }
}

impl ShareReader for StripeReader {
    fn info(&self) -> &ShareInfo {
        &self.info
    }

    fn read(&mut self, number: u64) -> Result<Chunk, Error> {
        let stripe = self.read_unchecked(number)?;
        let start = number as usize * DIGEST_BYTES;
        let known = &self.digests[start..start + DIGEST_BYTES];
        if digest_of(&stripe).0 == known {
            Ok(stripe)
        } else {
            Err(Error::Corrupt { id: self.info.id.clone(), stripe: number })
        }
    }

    fn read_unchecked(&mut self, number: u64) -> Result<Chunk, Error> {
        let id = &self.info.id;
        if number >= self.info.stripes {
            let what = format!("stripe {number} was asked for, it has {}", self.info.stripes);
            return Err(Error::Misfit { id: id.clone(), what });
        }
        let corrupt = Error::Corrupt { id: id.clone(), stripe: number };
        let mut stripe = match self.fetch(number) {
            Ok(stripe) => stripe,
            Err(source) => return Err(Error::Disk { place: self.place.clone(), source }),
        };
        let bytes = self.info.stripe_bytes as usize;
        if stripe.len() < bytes {
            return Err(corrupt);
        }
        stripe.set_len(bytes);
        Ok(stripe)
    }
}

/// Checks that a rebuilt stripe is the one that was stored.
pub(super) fn check_replacement(
    info: &ShareInfo,
    digests: &[u8],
    stripe: &Chunk,
) -> Result<(), Error> {
    let id = || info.id.clone();
    if stripe.seq() >= info.stripes || stripe.len() != info.stripe_bytes as usize {
        let what = format!("it has no stripe {} of {} bytes", stripe.seq(), stripe.len());
        return Err(Error::Misfit { id: id(), what });
    }
    let start = stripe.seq() as usize * DIGEST_BYTES;
    if digest_of(stripe).0 != digests[start..start + DIGEST_BYTES] {
        return Err(Error::Corrupt { id: id(), stripe: stripe.seq() });
    }
    Ok(())
}
