//! The suite that every share store passes, and the proof that it can fail.

use crate::base::{Chunk, ShareId};
use crate::io::sim::Random;

use super::{Error, ShareInfo, ShareReader, ShareStore, ShareWriter, verify};

/// What is checked, and on failure what was wrong.
pub(crate) type Check<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// A place with one store in it, which starts empty.
pub(crate) trait Bench {
    /// Opens the store anew; what was committed before is in it.
    fn open(&self) -> Box<dyn ShareStore>;

    /// Flips a bit of a committed stripe where it lies.
    fn damage(&self, id: &ShareId, stripe: u64);

    /// How many bytes fit at most, about; None where the place has no end.
    fn room_bytes(&self) -> Option<u64>;
}

/// Bytes of a stripe, where it does not matter.
pub(crate) const STRIPE_BYTES: u32 = 4096;

/// Runs the whole suite, each check on a bench of its own.
pub(crate) fn suite(make: &mut dyn FnMut() -> Box<dyn Bench>) -> Check {
    for (stripe_bytes, stripes) in [(4096, 23), (8192, 1), (100, 9), (1 << 20, 6), (4096, 0)] {
        a_share_survives(&*make(), stripe_bytes, stripes)?;
    }
    stripes_come_in_any_order(&*make())?;
    shares_are_listed_and_removed(&*make())?;
    unfinished_shares_are_nowhere(&*make())?;
    names_are_used_once(&*make())?;
    what_does_not_fit_is_refused(&*make())?;
    corrupt_stripes_are_named_and_replaced(&*make())?;
    writers_do_not_mix(&*make())?;
    a_full_store_stays_whole(&*make())
}

pub(crate) fn expect(good: bool, what: &str) -> Check {
    if good { Ok(()) } else { Err(what.into()) }
}

pub(crate) fn id(text: &str) -> ShareId {
    text.parse().expect("the suite's own names are valid")
}

/// A stripe whose bytes depend on `share` and on its number.
pub(crate) fn stripe(share: &ShareId, number: u64, bytes: u32) -> Chunk {
    let seed = share
        .to_string()
        .bytes()
        .fold(number, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut random = Random(seed);
    let mut chunk = Chunk::with_capacity(bytes as usize);
    chunk.set_len(bytes as usize);
    chunk.set_seq(number);
    for piece in chunk.chunks_mut(8) {
        piece.copy_from_slice(&random.next().to_le_bytes()[..piece.len()]);
    }
    chunk
}

/// Writes and commits a share.
pub(crate) fn put(
    store: &dyn ShareStore,
    share: &ShareId,
    stripe_bytes: u32,
    stripes: u64,
) -> Result<ShareInfo, Error> {
    let mut writer = store.create(share, 1, stripe_bytes)?;
    for number in 0..stripes {
        writer.append(stripe(share, number, stripe_bytes))?;
    }
    writer.commit()
}

fn same(reader: &mut dyn ShareReader, number: u64) -> Check {
    let info = reader.info().clone();
    let read = reader.read(number)?;
    expect(read.seq() == number, "a stripe that is read has its number")?;
    let good = read[..] == stripe(&info.id, number, info.stripe_bytes)[..];
    expect(good, "a stripe is read as it was written")
}

/// Reads a share whole, in order.
pub(crate) fn check_share(store: &dyn ShareStore, share: &ShareId, stripes: u64) -> Check {
    let mut reader = store.open(share)?;
    expect(reader.info().stripes == stripes, "a share has the stripes it was given")?;
    (0..stripes).try_for_each(|number| same(&mut *reader, number))
}

fn a_share_survives(bench: &dyn Bench, stripe_bytes: u32, stripes: u64) -> Check {
    let (store, share) = (bench.open(), id("g1/0/A"));
    let info = put(&*store, &share, stripe_bytes, stripes)?;
    let known = (info.id.clone(), info.format, info.stripe_bytes, info.stripes);
    expect(known == (share.clone(), 1, stripe_bytes, stripes), "commit describes the share")?;
    check_share(&*store, &share, stripes)?;
    drop(store);
    let store = bench.open();
    check_share(&*store, &share, stripes)?;
    let found = store.open(&share)?.info().clone();
    expect(found == info, "the description survives a reopening")?;
    expect(store.list()? == [info], "the share is listed")?;
    expect(verify(&*store, &share)?.is_empty(), "it is whole")
}

fn stripes_come_in_any_order(bench: &dyn Bench) -> Check {
    let (store, share) = (bench.open(), id("g1/0/B"));
    put(&*store, &share, STRIPE_BYTES, 40)?;
    let mut reader = store.open(&share)?;
    let mut random = Random(5);
    for _ in 0..60 {
        let start = random.below(40) as u64;
        for number in start..(start + random.below(7) as u64).min(40) {
            same(&mut *reader, number)?;
        }
    }
    // Stripes that the caller keeps do not stop it.
    let kept: Result<Vec<_>, _> = (0..40).map(|number| reader.read(number)).collect();
    expect(kept?.len() == 40, "all can be held at once")
}

fn shares_are_listed_and_removed(bench: &dyn Bench) -> Check {
    let store = bench.open();
    let mut shares = ["g2/0/A", "g1/10/C", "g1/2/A", "g1/2/C", "G9/0/B"].map(id);
    for share in &shares {
        put(&*store, share, STRIPE_BYTES, 3)?;
    }
    shares.sort();
    let listed = |store: &dyn ShareStore| -> Check<Vec<ShareId>> {
        Ok(store.list()?.into_iter().map(|info| info.id).collect())
    };
    expect(listed(&*store)? == shares, "all are listed, in order")?;
    store.remove(&shares[1])?;
    store.remove(&shares[1])?;
    for store in [store, bench.open()] {
        let missing = matches!(store.open(&shares[1]), Err(Error::Missing { .. }));
        expect(missing, "what was removed is missing")?;
        let rest: Vec<_> = [0, 2, 3, 4].map(|n| shares[n].clone()).into();
        expect(listed(&*store)? == rest, "what was removed is not listed")?;
        rest.iter().try_for_each(|share| check_share(&*store, share, 3))?;
    }
    let store = bench.open();
    put(&*store, &shares[1], STRIPE_BYTES, 5)?;
    check_share(&*store, &shares[1], 5)
}

fn unfinished_shares_are_nowhere(bench: &dyn Bench) -> Check {
    let (store, share) = (bench.open(), id("g1/0/C"));
    let mut writer = store.create(&share, 1, STRIPE_BYTES)?;
    for number in 0..9 {
        writer.append(stripe(&share, number, STRIPE_BYTES))?;
    }
    let unseen = |store: &dyn ShareStore| {
        let missing = matches!(store.open(&share), Err(Error::Missing { .. }));
        expect(missing, "an unfinished share is missing")?;
        expect(store.list()?.is_empty(), "an unfinished share is not listed")
    };
    unseen(&*store)?;
    drop(writer);
    unseen(&*store)?;
    drop(store);
    let store = bench.open();
    unseen(&*store)?;
    put(&*store, &share, STRIPE_BYTES, 2)?;
    check_share(&*store, &share, 2)
}

fn names_are_used_once(bench: &dyn Bench) -> Check {
    let (store, share) = (bench.open(), id("g1/0/A"));
    put(&*store, &share, STRIPE_BYTES, 2)?;
    for store in [store, bench.open()] {
        let again = put(&*store, &share, STRIPE_BYTES, 3);
        expect(matches!(again, Err(Error::Exists { .. })), "a name that is taken is refused")?;
        check_share(&*store, &share, 2)?;
    }
    Ok(())
}

fn what_does_not_fit_is_refused(bench: &dyn Bench) -> Check {
    let (store, share) = (bench.open(), id("g1/0/A"));
    let misfit = |outcome: Option<Error>| matches!(outcome, Some(Error::Misfit { .. }));
    for bytes in [0, u32::MAX] {
        let refused = misfit(store.create(&share, 1, bytes).err());
        expect(refused, "stripes of impossible length are refused")?;
    }
    let mut writer = store.create(&share, 1, STRIPE_BYTES)?;
    let late = writer.append(stripe(&share, 1, STRIPE_BYTES));
    expect(misfit(late.err()), "a stripe out of order is refused")?;
    let short = writer.append(stripe(&share, 0, STRIPE_BYTES - 1));
    expect(misfit(short.err()), "a stripe of another length is refused")?;
    writer.append(stripe(&share, 0, STRIPE_BYTES))?;
    writer.commit()?;
    let mut reader = store.open(&share)?;
    for number in [1, u64::MAX] {
        expect(misfit(reader.read(number).err()), "a stripe that there is not is refused")?;
    }
    same(&mut *reader, 0)
}

fn corrupt_stripes_are_named_and_replaced(bench: &dyn Bench) -> Check {
    let (store, share) = (bench.open(), id("g1/3/B"));
    put(&*store, &share, STRIPE_BYTES, 12)?;
    bench.damage(&share, 4);
    bench.damage(&share, 11);
    let store = bench.open();
    expect(verify(&*store, &share)? == [4, 11], "the corrupt stripes are named")?;
    let mut reader = store.open(&share)?;
    for number in [3, 4, 5, 4, 11, 0] {
        match reader.read(number) {
            Err(Error::Corrupt { id, stripe }) => {
                let named = id == share && stripe == number && [4, 11].contains(&number);
                expect(named, "the error names the stripe")?;
            }
            Err(error) => return Err(error.into()),
            Ok(_) => expect(![4, 11].contains(&number), "a corrupt stripe is not given out")?,
        }
    }
    let mut wrong = stripe(&share, 4, STRIPE_BYTES);
    wrong[7] ^= 1;
    let refused = matches!(store.replace(&share, &wrong), Err(Error::Corrupt { stripe: 4, .. }));
    expect(refused, "a wrong replacement is refused")?;
    for number in [4, 11] {
        store.replace(&share, &stripe(&share, number, STRIPE_BYTES))?;
    }
    check_share(&*store, &share, 12)?;
    let missing = store.replace(&id("g1/3/C"), &wrong);
    expect(matches!(missing, Err(Error::Missing { .. })), "only what is there can be replaced")
}

fn writers_do_not_mix(bench: &dyn Bench) -> Check {
    let (store, shares) = (bench.open(), ["g1/0/A", "g1/0/B", "g1/0/C"].map(id));
    let mut writers: Vec<Box<dyn ShareWriter>> = Vec::new();
    for share in &shares {
        writers.push(store.create(share, 1, STRIPE_BYTES)?);
    }
    for number in 0..20 {
        for (writer, share) in writers.iter_mut().zip(&shares) {
            writer.append(stripe(share, number, STRIPE_BYTES))?;
        }
    }
    for writer in writers {
        writer.commit()?;
    }
    shares.iter().try_for_each(|share| check_share(&*store, share, 20))
}

fn a_full_store_stays_whole(bench: &dyn Bench) -> Check {
    const LARGE_BYTES: u32 = 64 << 10;
    let Some(room_bytes) = bench.room_bytes() else { return Ok(()) };
    let room = room_bytes / u64::from(LARGE_BYTES);
    let (store, small) = (bench.open(), id("g1/0/A"));
    put(&*store, &small, STRIPE_BYTES, 3)?;
    for _ in 0..3 {
        let outcome = put(&*store, &id("g1/1/A"), LARGE_BYTES, 2 * room);
        expect(matches!(outcome, Err(Error::Full { .. })), "a full store says so")?;
        let store = bench.open();
        expect(store.list()?.len() == 1, "what did not fit is not there")?;
        check_share(&*store, &small, 3)?;
    }
    let large = id("g1/2/A");
    for _ in 0..3 {
        put(&*store, &large, LARGE_BYTES, room * 3 / 4)?;
        check_share(&*store, &large, room * 3 / 4)?;
        store.remove(&large)?;
    }
    check_share(&*store, &small, 3)
}

/// A store with one defect.
struct Broken {
    store: Box<dyn ShareStore>,
    defect: Defect,
}

#[derive(Clone, Copy, Debug)]
enum Defect {
    FlipsABit,
    CommitsTwice,
    KeepsWhatIsRemoved,
    ListsNothing,
    LosesTheNumber,
    ForgetsCorruption,
    ReplacesAnything,
}

struct BrokenBench(Box<dyn Bench>, Defect);

impl Bench for BrokenBench {
    fn open(&self) -> Box<dyn ShareStore> {
        Box::new(Broken { store: self.0.open(), defect: self.1 })
    }

    fn damage(&self, id: &ShareId, stripe: u64) {
        self.0.damage(id, stripe);
    }

    fn room_bytes(&self) -> Option<u64> {
        None
    }
}

impl ShareStore for Broken {
    fn create(
        &self,
        id: &ShareId,
        format: u16,
        stripe_bytes: u32,
    ) -> Result<Box<dyn ShareWriter>, Error> {
        if matches!(self.defect, Defect::CommitsTwice) {
            self.store.remove(id)?;
        }
        self.store.create(id, format, stripe_bytes)
    }

    fn open(&self, id: &ShareId) -> Result<Box<dyn ShareReader>, Error> {
        Ok(Box::new(BrokenReader(self.store.open(id)?, self.defect)))
    }

    fn list(&self) -> Result<Vec<ShareInfo>, Error> {
        match self.defect {
            Defect::ListsNothing => Ok(Vec::new()),
            _ => self.store.list(),
        }
    }

    fn remove(&self, id: &ShareId) -> Result<(), Error> {
        match self.defect {
            Defect::KeepsWhatIsRemoved => Ok(()),
            _ => self.store.remove(id),
        }
    }

    fn replace(&self, id: &ShareId, stripe: &Chunk) -> Result<(), Error> {
        match (self.store.replace(id, stripe), self.defect) {
            (Err(Error::Corrupt { .. }), Defect::ReplacesAnything) => Ok(()),
            (outcome, _) => outcome,
        }
    }
}

struct BrokenReader(Box<dyn ShareReader>, Defect);

impl ShareReader for BrokenReader {
    fn info(&self) -> &ShareInfo {
        self.0.info()
    }

    fn read(&mut self, number: u64) -> Result<Chunk, Error> {
        let bytes = self.info().stripe_bytes;
        let mut read = match (self.0.read(number), self.1) {
            (Err(Error::Corrupt { id, .. }), Defect::ForgetsCorruption) => stripe(&id, 0, bytes),
            (outcome, _) => outcome?,
        };
        match self.1 {
            Defect::FlipsABit if number == 5 => read[9] ^= 2,
            Defect::LosesTheNumber => read.set_seq(0),
            _ => {}
        }
        Ok(read)
    }
}

/// Hands the suite stores with a defect each and expects that it notices.
pub(crate) fn notices_broken_stores(make: &mut dyn FnMut() -> Box<dyn Bench>) {
    for defect in [
        Defect::FlipsABit,
        Defect::CommitsTwice,
        Defect::KeepsWhatIsRemoved,
        Defect::ListsNothing,
        Defect::LosesTheNumber,
        Defect::ForgetsCorruption,
        Defect::ReplacesAnything,
    ] {
        let outcome = suite(&mut || Box::new(BrokenBench(make(), defect)));
        assert!(outcome.is_err(), "{defect:?} went unnoticed");
    }
}
