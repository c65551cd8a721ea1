//! A damaged or lost share from the other two: the secret itself does not appear.

use super::Error;
use crate::base::ShareLetter;
use crate::control::Deposit;
use crate::device::Kernel;
use crate::pipeline::restore::Holders;
use crate::share;
use crate::share::device::Sharing;
use crate::store::{ShareReader, ShareStore};

/// A share to be rebuilt from the other two.
pub(super) struct Rebuild<'a> {
    /// The deposit.
    pub(super) deposit: &'a Deposit,
    /// Which of its files.
    pub(super) member: usize,
    /// Which of its shares.
    pub(super) letter: ShareLetter,
    /// Where the shares are.
    pub(super) holders: &'a Holders,
}

impl Rebuild<'_> {
    /// Rebuilds these stripes; the whole share, if it is lost.
    ///
    /// Errors: those of the stores; a stripe whose shares do not belong together.
    pub(super) fn run(
        &self,
        numbers: &[u64],
        lost: bool,
        sharing: &mut Sharing,
    ) -> Result<(), Error> {
        let others = ShareLetter::ALL.into_iter().filter(|other| *other != self.letter);
        let [first, second]: [ShareLetter; 2] =
            others.collect::<Vec<_>>().try_into().unwrap_or_else(|_| unreachable!("two others"));
        let mut left = self.open(first)?;
        let mut right = self.open(second)?;
        let id = self.deposit.share(self.member, self.letter);
        let target: &dyn ShareStore = &*self.holders[self.letter as usize];
        let mut writer = None;
        if lost {
            // What is left of it is of no use.
            target.remove(&id)?;
            let mut begun = target.create(&id, share::FORMAT, self.deposit.stripe_bytes)?;
            begun.expect(numbers.len() as u64)?;
            writer = Some(begun);
        }
        let failed = |error| {
            let failed = crate::flow::Error::in_stage("rebuild", error);
            Error::Pipeline(crate::pipeline::Error::Stage(failed))
        };
        for numbers in numbers.chunks(sharing.together(Kernel::Rebuild)) {
            let pair = |number: &u64| Ok::<_, Error>((left.read(*number)?, right.read(*number)?));
            let pairs = numbers.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
            for stripe in sharing.rebuild(pairs, (first, second)).map_err(failed)? {
                let stripe = stripe.map_err(failed)?;
                match writer.as_mut() {
                    Some(writer) => writer.append(stripe)?,
                    None => target.replace(&id, &stripe)?,
                }
            }
        }
        if let Some(writer) = writer {
            writer.commit()?;
        }
        Ok(())
    }

    fn open(&self, letter: ShareLetter) -> Result<Box<dyn ShareReader>, Error> {
        let share = self.deposit.share(self.member, letter);
        Ok(self.holders[letter as usize].open(&share)?)
    }
}
