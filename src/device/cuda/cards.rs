//! The cards of a machine, and which of them this process works on.
//!
//! While there are queues or tables of this process, they are on the same cards: those that no other job held
//! when the first of them was made ([`card`]), or all, shared, when every card was held. Queues go to them in
//! turn. A card that failed gets no more queues.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cudarc::driver::{CudaContext, CudaFunction, DriverError};
use cudarc::nvrtc::Ptx;

use super::cache::Cache;
use super::compile::Compiler;
use super::{NAME, SOURCES};
use crate::device::Error;
use crate::device::card::{self, CardState, Held, Lock};
use crate::device::lane::FUNCTIONS;

/// A card with its compiled kernels.
#[derive(Clone)]
pub(super) struct Card {
    /// Its place among the cards that the driver shows.
    pub(super) number: usize,
    /// `GPU-` and its UUID, as the driver's tools write it.
    name: String,
    model: String,
    pub(super) context: Arc<CudaContext>,
    /// In the order of [`FUNCTIONS`].
    pub(super) functions: Vec<CudaFunction>,
    lost: Arc<AtomicBool>,
}

/// Cards of this machine.
pub(super) struct Cards {
    cards: Vec<Card>,
    /// Where cards are locked.
    folders: Vec<PathBuf>,
    working: Mutex<Weak<Working>>,
    /// Which card gets the next queue.
    turn: AtomicUsize,
}

/// The cards that this process works on for the time being.
pub(super) struct Working {
    /// Places in [`Cards`].
    places: Vec<usize>,
    /// One for each of them; none where they are shared with other jobs.
    locks: Vec<Lock>,
}

impl Cards {
    /// The error is the reason why there is none.
    pub(super) fn find() -> Result<Arc<Self>, String> {
        // A library that lacks a function of its interface makes the crate panic.
        let found = catch_unwind(Self::load);
        found.unwrap_or_else(|_| Err("the driver or compiler is too old or damaged".into()))
    }

    fn load() -> Result<Arc<Self>, String> {
        // SAFETY: looks for a library and runs what the library runs when loaded: NVIDIA's driver,
        // which the operator installed.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err("the driver (libcuda) is not installed".into());
        }
        let count = CudaContext::device_count().map_err(|error| error.to_string())?;
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 {
            let visible = std::env::var("CUDA_VISIBLE_DEVICES");
            let visible = visible.map(|list| format!(" among CUDA_VISIBLE_DEVICES={list}"));
            return Err(format!("the driver finds no card{}", visible.unwrap_or_default()));
        }
        let (compiler, cache) = (Compiler::find()?, Cache::of_user());
        let mut images = BTreeMap::new();
        let mut cards = Vec::new();
        for number in 0..count {
            let failed = |error: DriverError| format!("card {number}: {error}");
            let context = CudaContext::new(number).map_err(failed)?;
            let capability = context.compute_capability().map_err(failed)?;
            let images = match images.entry(capability) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(compile(&compiler, &cache, capability)?),
            };
            cards.push(Card::load(number, context, images).map_err(failed)?);
        }
        Ok(Arc::new(Self::new(cards, card::folders())))
    }

    fn new(cards: Vec<Card>, folders: Vec<PathBuf>) -> Self {
        Self { cards, folders, working: Mutex::new(Weak::new()), turn: AtomicUsize::new(0) }
    }

    /// Only these cards, by their numbers.
    pub(super) fn subset(&self, numbers: &[usize]) -> Result<Self, Error> {
        let card = |number: &usize| {
            let reason = || format!("there is no card {number} of {}", self.cards.len());
            self.cards.get(*number).cloned().ok_or_else(|| Error::absent(NAME, reason()))
        };
        let cards = numbers.iter().map(card).collect::<Result<_, _>>()?;
        Ok(Self::new(cards, self.folders.clone()))
    }

    /// What the cards call themselves.
    pub(super) fn models(&self) -> String {
        let cards: Vec<_> =
            self.cards.iter().map(|card| format!("{} ({})", card.model, card.name)).collect();
        cards.join(", ")
    }

    /// Whether one of them has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.cards.iter().any(Card::is_lost)
    }

    /// Whether they are those of the simulated driver, `kernels/shim/driver.cpp`.
    pub(super) fn are_simulated(&self) -> bool {
        self.cards.iter().all(|card| card.model == "simulated card")
    }

    /// The cards in use: those of the queues and tables there are, else those that are free now.
    pub(super) fn working(&self) -> Arc<Working> {
        let mut known = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(working) = known.upgrade() {
            return working;
        }
        let whole = (0..self.cards.len()).filter(|place| !self.cards[*place].is_lost());
        let hold = |place: usize| self.hold(place).map(|lock| (place, lock));
        let (mut places, locks): (Vec<_>, Vec<_>) = whole.clone().filter_map(hold).unzip();
        if locks.is_empty() {
            places = whole.collect();
        }
        let working = Arc::new(Working { places, locks });
        *known = Arc::downgrade(&working);
        working
    }

    fn hold(&self, place: usize) -> Option<Lock> {
        card::hold(&self.folders, &self.cards[place].name)
    }

    /// The cards of `working` that have not failed.
    pub(super) fn in_use<'a>(&'a self, working: &'a Working) -> impl Iterator<Item = &'a Card> {
        working.places.iter().map(|place| &self.cards[*place]).filter(|card| !card.is_lost())
    }

    /// The card for the next queue.
    pub(super) fn next(&self, working: &Working) -> Result<&Card, Error> {
        let places = working.places.iter().filter(|place| !self.cards[**place].is_lost());
        let places: Vec<_> = places.collect();
        if places.is_empty() {
            return Err(Error::failed(NAME, "open a queue")("every card has failed"));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Ok(&self.cards[*places[turn % places.len()]])
    }

    /// What a run may take of each card: four fifths of what is free, half of that where it is shared. The
    /// rest is for what the driver takes, and for who comes next.
    pub(super) fn least_room(&self) -> u64 {
        let working = self.working();
        let free = self
            .in_use(&working)
            .map(|card| card.context.mem_get_info().map_or(0, |(free, _)| free as u64));
        let share = free.min().unwrap_or(0) / 5 * 4;
        if working.locks.is_empty() { share / 2 } else { share }
    }

    /// How every card is at this moment.
    pub(super) fn states(&self) -> Vec<CardState> {
        let here = self.working.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let held = |place: usize| {
            let ours = here.as_ref().filter(|working| !working.locks.is_empty());
            match ours.is_some_and(|working| working.places.contains(&place)) {
                true => Held::Here,
                false if self.hold(place).is_some() => Held::Free,
                false => Held::Elsewhere,
            }
        };
        let state = |(place, card): (usize, &Card)| {
            let memory = card.context.mem_get_info().ok();
            CardState {
                name: card.name.clone(),
                model: card.model.clone(),
                memory_bytes: memory.map(|(_, total)| total as u64),
                free_bytes: memory.map(|(free, _)| free as u64),
                held: held(place),
            }
        };
        self.cards.iter().enumerate().map(state).collect()
    }
}

impl Card {
    fn load(
        number: usize,
        context: Arc<CudaContext>,
        images: &[Vec<u8>],
    ) -> Result<Self, DriverError> {
        let load = |(image, name): (&Vec<u8>, _)| {
            context.load_module(Ptx::from_binary(image.clone()))?.load_function(name)
        };
        let functions = images.iter().zip(FUNCTIONS).map(load).collect::<Result<_, _>>()?;
        let uuid = context.uuid()?.bytes.map(|byte| byte as u8);
        let (name, model) = (uuid_name(&uuid), context.name()?);
        Ok(Self { number, name, model, context, functions, lost: Arc::default() })
    }

    /// Gives the card up.
    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

/// A card's name, as the driver's tools write it.
fn uuid_name(uuid: &[u8; 16]) -> String {
    let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parts = [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| hex(&uuid[part]));
    format!("GPU-{}", parts.join("-"))
}

/// The images of [`SOURCES`]; the error is the reason why there are none.
fn compile(
    compiler: &Compiler,
    cache: &Cache,
    capability: (i32, i32),
) -> Result<Vec<Vec<u8>>, String> {
    let target = compiler.target(capability)?;
    let identity = compiler.identity(&target);
    let image = |(name, source): (&str, &str)| {
        let image = cache
            .image(&[identity.as_bytes(), source.as_bytes()], || compiler.compile(source, &target));
        image.map_err(|error| format!("kernel {name}: {error}"))
    };
    FUNCTIONS.into_iter().zip(SOURCES).map(image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn a_uuid_is_written_as_everywhere() {
        let uuid = std::array::from_fn(|at| 16 * (at as u8) + 1);
        assert_eq!(uuid_name(&uuid), "GPU-01112131-4151-6171-8191-a1b1c1d1e1f1");
    }

    /// Runs where the driver is, the simulated one too: two cards.
    #[test]
    fn queues_go_to_the_cards_that_no_other_job_holds() {
        let all = match Cards::find() {
            Ok(cards) if cards.cards.len() > 1 => cards,
            Ok(_) => return eprintln!("skipped: one card"),
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        let folder = tempfile::tempdir().unwrap();
        let all = Cards::new(all.cards.clone(), vec![folder.path().into()]);
        // Other jobs are other descriptions of the same files, in this process or not.
        let job = || Arc::new(all.subset(&[0, 1]).unwrap());
        let (first, second) = (job(), job());
        let one = Arc::new(first.subset(&[1]).unwrap());
        let of_one = one.queue(1000).unwrap();
        assert_eq!(first.working().places, [0]);
        let held =
            |cards: &Cards| cards.states().iter().map(|state| state.held).collect::<Vec<_>>();
        assert_eq!(held(&second), [Held::Free, Held::Elsewhere]);
        assert_eq!(held(&one), [Held::Here]);

        let table = first.table(&[&[1, 2, 3]]).unwrap();
        assert_eq!(held(&second), [Held::Elsewhere; 2]);
        let alone = first.least_room();
        assert_eq!(second.working().places, [0, 1], "none is free: shared");
        assert!(second.least_room() <= alone / 5 * 3);
        drop(of_one);
        assert_eq!(first.working().places, [0], "while its table is there");
        drop(table);
        assert_eq!(first.working().places, [0, 1]);

        // In turn; not to one that has failed; and to none when all have.
        let working = first.working();
        let numbers = |count| -> Vec<_> {
            (0..count).map_while(|_| first.next(&working).ok()).map(|card| card.number).collect()
        };
        let turns = numbers(4);
        assert!(turns == [0, 1, 0, 1] || turns == [1, 0, 1, 0], "{turns:?}");
        first.cards[0].lose();
        assert_eq!(numbers(3), [1, 1, 1]);
        assert!(first.survives());
        first.cards[1].lose();
        assert!(numbers(1).is_empty() && !first.survives() && first.queue(1000).is_err());
    }
}
