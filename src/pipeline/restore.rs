//! Two shares of a file to its bytes, with the third as the way out.
//!
//! Each share is read on a thread of its own. A stripe that one store cannot give, or that does not
//! fit, is restored from the third share instead; the notices name the share, the stripe and the
//! site, and `dsgd store repair` mends it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::Scope;

use super::{Error, Notices};
use crate::base::fault::with_causes;
use crate::base::{Chunk, Faulty, ShareLetter};
use crate::control::Deposit;
use crate::device::Kernel;
use crate::device::assign::Assignment;
use crate::flow::{self, Flow, Meters, Stage, Weigh};
use crate::share;
use crate::share::device::Sharing;
use crate::share::stripe::{Codec, Content};
use crate::store::{self, ShareReader, ShareStore};

/// The stores that hold the shares A, B and C of a deposit.
pub type Holders = [Arc<dyn ShareStore>; 3];

/// Stripes read ahead of each share.
const AHEAD: usize = 4;

/// How the files of a deposit are to be restored.
pub struct Restore<'a> {
    /// The deposit.
    pub deposit: &'a Deposit,
    /// Where the shares are.
    pub holders: Holders,
    /// The shares to read, the preferred ones first; the third is used when one of the first two
    /// fails. Only two letters: no third is tried.
    pub order: &'a [ShareLetter],
    /// What restores the stripes.
    pub devices: Arc<Assignment>,
    /// Counters.
    pub meters: &'a Meters,
    /// What the operator should know.
    pub notices: &'a Notices,
}

impl Restore<'_> {
    /// The bytes of file `member` in order, every stripe checked before it is given.
    ///
    /// Errors: [`Error::TooFewShares`] when fewer than two shares can be opened.
    pub fn start<'a, 'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        member: usize,
    ) -> Result<Flow<'a, Chunk>, Error>
    where
        'a: 'scope,
    {
        let (first, second, rescue) = self.choose(member)?;
        let stripes = self.deposit.members[member].stripes;
        let codec = Codec::new(&self.deposit.dataset, member as u32, self.deposit.stripe_bytes)
            .ok_or(Error::Stripes {
                name: self.deposit.name.to_string(),
                member,
                found: 0,
                expected: stripes,
            })?;
        let letters = (first.letter, second.letter);
        let flow = |opened: Opened| {
            let read = ReadStripes { reader: opened.reader, next: 0, stripes };
            Flow::source(self.meters, name_of(opened.letter), read).on_thread(scope, AHEAD)
        };
        let sharing = Sharing::new(Arc::clone(&self.devices));
        let combine = Combine { codec, letters, stripes, rescue, sharing, waiting: Vec::new() };
        Ok(flow(first).zip(flow(second)).then(combine).on_thread(scope, AHEAD))
    }

    fn choose(&self, member: usize) -> Result<(Opened, Opened, Rescue), Error> {
        let mut opened = Vec::with_capacity(2);
        let mut reasons = Vec::new();
        let mut fault = None;
        let mut rest = self.order.iter().copied();
        for letter in rest.by_ref() {
            match self.open(member, letter) {
                Ok(reader) => opened.push(Opened { letter, reader }),
                Err(error) => {
                    let site = self.deposit.holder(letter);
                    let reason = format!("share {letter} at {site}: {}", with_causes(&error));
                    self.notices.add(format!("{reason}; going on without it"));
                    reasons.push(reason);
                    fault.get_or_insert(error.fault());
                }
            }
            if opened.len() == 2 {
                break;
            }
        }
        let reachable = opened.len();
        let [first, second] = <[Opened; 2]>::try_from(opened).map_err(|_| Error::TooFewShares {
            name: self.deposit.name.to_string(),
            reachable,
            reasons,
            fault: fault.unwrap_or(crate::base::Fault::Usage),
        })?;
        let rescue = Rescue {
            letters: [first.letter, second.letter].into_iter().chain(rest).collect(),
            holders: self.holders.clone(),
            deposit: self.deposit.clone(),
            member,
            readers: [None, None, None],
            lost: [false; 3],
            notices: self.notices.clone(),
        };
        Ok((first, second, rescue))
    }

    fn open(&self, member: usize, letter: ShareLetter) -> Result<Box<dyn ShareReader>, Error> {
        let id = self.deposit.share(member, letter);
        let reader = self.holders[letter as usize].open(&id)?;
        let (found, expected) = (reader.info().stripes, self.deposit.members[member].stripes);
        if found != expected || reader.info().stripe_bytes != self.deposit.stripe_bytes {
            let name = self.deposit.name.to_string();
            return Err(Error::Stripes { name, member, found, expected });
        }
        Ok(reader)
    }
}

fn name_of(letter: ShareLetter) -> &'static str {
    match letter {
        ShareLetter::A => "share A",
        ShareLetter::B => "share B",
        ShareLetter::C => "share C",
    }
}

struct Opened {
    letter: ShareLetter,
    reader: Box<dyn ShareReader>,
}

/// A stripe of a share, or why it could not be read. The flow goes on after a bad one.
struct StripeRead {
    number: u64,
    stripe: Result<Chunk, store::Error>,
}

impl Weigh for StripeRead {
    fn weight(&self) -> u64 {
        self.stripe.as_ref().map_or(0, |chunk| chunk.len() as u64)
    }
}

struct ReadStripes {
    reader: Box<dyn ShareReader>,
    next: u64,
    stripes: u64,
}

impl Iterator for ReadStripes {
    type Item = flow::Result<StripeRead>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.stripes {
            return None;
        }
        let number = self.next;
        self.next += 1;
        Some(Ok(StripeRead { number, stripe: self.reader.read_unchecked(number) }))
    }
}

/// Restores stripes and checks them; collects them first where a device is to have several at a time.
struct Combine {
    codec: Codec,
    letters: (ShareLetter, ShareLetter),
    stripes: u64,
    rescue: Rescue,
    sharing: Sharing,
    waiting: Vec<(StripeRead, StripeRead)>,
}

impl Stage for Combine {
    type In = (StripeRead, StripeRead);
    type Out = Chunk;
    const NAME: &'static str = "restore";

    fn push(&mut self, item: Self::In, out: &mut VecDeque<Chunk>) -> flow::Result<()> {
        self.waiting.push(item);
        if self.waiting.len() < self.sharing.together(Kernel::Restore) {
            return Ok(());
        }
        self.finish(out)
    }

    fn finish(&mut self, out: &mut VecDeque<Chunk>) -> flow::Result<()> {
        // Those of which both shares could be read are restored together; the order is kept.
        let (mut pairs, mut order) = (Vec::new(), Vec::new());
        for (first, second) in std::mem::take(&mut self.waiting) {
            let (number, letters) = (first.number, self.letters);
            let half = match (first.stripe, second.stripe) {
                (Ok(first), Ok(second)) => {
                    pairs.push((first, second));
                    None
                }
                (Ok(good), Err(error)) => Some((error, letters.1, Some((letters.0, good)))),
                (Err(error), Ok(good)) => Some((error, letters.0, Some((letters.1, good)))),
                (Err(error), Err(_)) => Some((error, letters.0, None)),
            };
            order.push((number, half));
        }
        let restored = self.sharing.restore(pairs, self.letters);
        let mut restored = restored.map_err(failed)?.into_iter();
        for (number, half) in order {
            let decoded = match half {
                None => self.decode(number, restored.next().expect("one for each pair")),
                Some((error, lost, Some(good))) => {
                    self.rescue.report(lost, number, &error);
                    self.rescue.stripe(&self.codec, number, vec![good], Some(error))
                }
                Some((error, _, None)) => Err(flow::Error::in_stage(Self::NAME, error)),
            };
            let (chunk, content) = decoded?;
            if content.last != (number + 1 == self.stripes) {
                return Err(failed(share::Error::Manipulated { stripe: number }));
            }
            out.push_back(chunk);
        }
        Ok(())
    }
}

impl Combine {
    /// A restored stripe, checked; from other shares where it does not fit.
    fn decode(
        &mut self,
        number: u64,
        restored: Result<Chunk, share::Error>,
    ) -> flow::Result<(Chunk, Content)> {
        let decoded = restored.and_then(|mut chunk| {
            let content = self.codec.decode(&mut chunk)?;
            Ok((chunk, content))
        });
        // The code has found what digests would have; they say which share it was.
        decoded.or_else(|_| self.rescue.stripe(&self.codec, number, Vec::new(), None))
    }
}

fn failed(error: share::Error) -> flow::Error {
    flow::Error::in_stage(Combine::NAME, error)
}

fn decode(
    codec: &Codec,
    first: Chunk,
    second: &Chunk,
    letters: (ShareLetter, ShareLetter),
) -> Result<(Chunk, Content), share::Error> {
    let mut chunk = share::restore(first, second, letters)?;
    let content = codec.decode(&mut chunk)?;
    Ok((chunk, content))
}

/// The way out for a stripe that the first two shares do not give: any two that fit.
struct Rescue {
    /// Letters that may be used, the preferred ones first.
    letters: Vec<ShareLetter>,
    holders: Holders,
    deposit: Deposit,
    member: usize,
    readers: [Option<Box<dyn ShareReader>>; 3],
    /// Shares whose holder failed as a whole.
    lost: [bool; 3],
    notices: Notices,
}

impl Rescue {
    /// The stripe from any two shares that fit; `have` are those at hand, `missing` says why another
    /// could not be read.
    fn stripe(
        &mut self,
        codec: &Codec,
        number: u64,
        mut have: Vec<(ShareLetter, Chunk)>,
        mut missing: Option<store::Error>,
    ) -> flow::Result<(Chunk, Content)> {
        for letter in self.letters.clone() {
            if have.iter().any(|(at_hand, _)| *at_hand == letter) {
                continue;
            }
            let chunk = match self.read(letter, number) {
                Ok(chunk) => chunk,
                Err(error) => {
                    missing = missing.or(error);
                    continue;
                }
            };
            for (other, partner) in &have {
                let copy = Chunk::from_bytes(number, &chunk);
                if let Ok(decoded) = decode(codec, copy, partner, (letter, *other)) {
                    self.blame(number, letter, *other);
                    return Ok(decoded);
                }
            }
            have.push((letter, chunk));
        }
        Err(match missing {
            Some(error) if have.len() < 2 => flow::Error::in_stage(Combine::NAME, error),
            _ => failed(share::Error::Manipulated { stripe: number }),
        })
    }

    /// A stripe of a share. Why it cannot be read is reported, and given if it was not before.
    fn read(&mut self, letter: ShareLetter, number: u64) -> Result<Chunk, Option<store::Error>> {
        let place = letter as usize;
        if self.lost[place] {
            return Err(None);
        }
        if self.readers[place].is_none() {
            match self.holders[place].open(&self.deposit.share(self.member, letter)) {
                Ok(reader) => self.readers[place] = Some(reader),
                Err(error) => {
                    self.report(letter, number, &error);
                    self.lost[place] = true;
                    return Err(Some(error));
                }
            }
        }
        let reader = self.readers[place].as_mut().ok_or(None)?;
        reader.read(number).map_err(|error| {
            self.report(letter, number, &error);
            Some(error)
        })
    }

    /// Says why a stripe could not be read; a holder that is gone is named once.
    fn report(&mut self, letter: ShareLetter, number: u64, error: &store::Error) {
        let site = self.deposit.holder(letter);
        if matches!(error, store::Error::Corrupt { .. }) {
            let mend = "'dsgd store repair' mends it";
            self.notices.add(format!("share {letter} at {site}: {}; {mend}", with_causes(error)));
        } else if !self.lost[letter as usize] {
            self.lost[letter as usize] = true;
            let from = format!("from stripe {number} on");
            self.notices.add(format!(
                "share {letter} at {site}: {}; done without it {from}",
                with_causes(error)
            ));
        }
    }

    /// Names the share that was not needed: when all could be read, it is the one that was changed.
    fn blame(&self, number: u64, used: ShareLetter, partner: ShareLetter) {
        let odd = ShareLetter::ALL.into_iter().find(|letter| *letter != used && *letter != partner);
        let Some(odd) = odd else { return };
        if !self.lost[odd as usize] {
            let (member, site) = (self.member, self.deposit.holder(odd));
            self.notices.add(format!(
                "file {member}, stripe {number}: restored from shares {used} and {partner}; \
                 share {odd} at {site} was not usable"
            ));
        }
    }
}
