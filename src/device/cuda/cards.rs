//! The cards of a machine, and which of them this process works on.
//!
//! While there are queues or tables of this process, they are on the same cards: those that no other job held
//! when the first of them was made ([`card`]), or all, shared, when every card was held. Queues go to them in
//! turn. A card that failed gets no more queues. A card that cannot be used at all (too old for the compiler,
//! held by a process that lets no other in, damaged) is left out, and does not keep the others from work.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cudarc::driver::{CudaContext, CudaFunction, DriverError, result};
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

/// A card that cannot be used.
#[derive(Clone)]
struct Unusable {
    number: usize,
    /// As of a [`Card`]; empty where the driver does not even say that.
    name: String,
    model: String,
    reason: String,
}

/// Cards of this machine.
pub(super) struct Cards {
    cards: Vec<Card>,
    unusable: Vec<Unusable>,
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
        let (mut images, mut cards, mut unusable) = (Images::new()?, Vec::new(), Vec::new());
        for number in 0..count {
            match Card::open(number, &mut images) {
                Ok(card) => cards.push(card),
                Err(reason) => unusable.push(Unusable::look(number, reason)),
            }
        }
        if cards.is_empty() {
            let reasons =
                unusable.iter().map(|card| format!("card {}: {}", card.number, card.reason));
            return Err(reasons.collect::<Vec<_>>().join("; "));
        }
        Ok(Arc::new(Self::new(cards, unusable, card::folders())))
    }

    fn new(cards: Vec<Card>, unusable: Vec<Unusable>, folders: Vec<PathBuf>) -> Self {
        let (working, turn) = (Mutex::new(Weak::new()), AtomicUsize::new(0));
        Self { cards, unusable, folders, working, turn }
    }

    /// Only these cards, by the driver's numbers.
    pub(super) fn subset(&self, numbers: &[usize]) -> Result<Self, Error> {
        let card = |number: &usize| {
            let card = self.cards.iter().find(|card| card.number == *number);
            card.cloned().ok_or_else(|| Error::absent(NAME, self.why_not(*number)))
        };
        let cards = numbers.iter().map(card).collect::<Result<_, _>>()?;
        Ok(Self::new(cards, Vec::new(), self.folders.clone()))
    }

    /// Why that card cannot be had.
    fn why_not(&self, number: usize) -> String {
        match self.unusable.iter().find(|card| card.number == number) {
            Some(card) => format!("card {number}: {}", card.reason),
            None => {
                format!("there is no card {number} of {}", self.cards.len() + self.unusable.len())
            }
        }
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

    /// How every card is at this moment, in the driver's order.
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
            let state = CardState {
                name: card.name.clone(),
                model: card.model.clone(),
                memory_bytes: memory.map(|(_, total)| total as u64),
                free_bytes: memory.map(|(free, _)| free as u64),
                held: Some(held(place)),
                unusable: None,
            };
            (card.number, state)
        };
        let usable = self.cards.iter().enumerate().map(state);
        let states = usable.chain(self.unusable.iter().map(|card| (card.number, card.state())));
        states.collect::<BTreeMap<_, _>>().into_values().collect()
    }
}

impl Card {
    /// The error is the reason why it cannot be used.
    fn open(number: usize, images: &mut Images) -> Result<Self, String> {
        let failed = |error: DriverError| error.to_string();
        let context = CudaContext::new(number).map_err(failed)?;
        let images = images.of(context.compute_capability().map_err(failed)?)?;
        Self::load(number, context, &images).map_err(failed)
    }

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

impl Unusable {
    /// What the driver says of the card without opening it.
    fn look(number: usize, reason: String) -> Self {
        let device = result::device::get(number as i32);
        let uuid = device.and_then(result::device::get_uuid);
        let name = uuid.map(|uuid| uuid_name(&uuid.bytes.map(|byte| byte as u8)));
        let model = device.and_then(result::device::get_name);
        Self { number, name: name.unwrap_or_default(), model: model.unwrap_or_default(), reason }
    }

    fn state(&self) -> CardState {
        CardState {
            name: self.name.clone(),
            model: self.model.clone(),
            memory_bytes: None,
            free_bytes: None,
            held: None,
            unusable: Some(self.reason.clone()),
        }
    }
}

/// A card's name, as the driver's tools write it.
fn uuid_name(uuid: &[u8; 16]) -> String {
    let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parts = [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| hex(&uuid[part]));
    format!("GPU-{}", parts.join("-"))
}

/// The images of [`SOURCES`] for one kind of card; the error is the reason why there are none.
type Compiled = Result<Arc<[Vec<u8>]>, String>;

/// Images for all kinds of cards, each compiled or read once.
struct Images {
    compiler: Compiler,
    cache: Cache,
    /// By compute capability.
    known: BTreeMap<(i32, i32), Compiled>,
}

impl Images {
    fn new() -> Result<Self, String> {
        Ok(Self { compiler: Compiler::find()?, cache: Cache::of_user(), known: BTreeMap::new() })
    }

    fn of(&mut self, capability: (i32, i32)) -> Compiled {
        let Self { compiler, cache, known } = self;
        known.entry(capability).or_insert_with(|| compile(compiler, cache, capability)).clone()
    }
}

fn compile(compiler: &Compiler, cache: &Cache, capability: (i32, i32)) -> Compiled {
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
        let all = Cards::new(all.cards.clone(), Vec::new(), vec![folder.path().into()]);
        // Other jobs are other descriptions of the same files, in this process or not.
        let job = || Arc::new(all.subset(&[0, 1]).unwrap());
        let (first, second) = (job(), job());
        let one = Arc::new(first.subset(&[1]).unwrap());
        let of_one = one.queue(1000).unwrap();
        assert_eq!(first.working().places, [0]);
        let held = |cards: &Cards| {
            cards.states().iter().filter_map(|state| state.held).collect::<Vec<_>>()
        };
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

    #[test]
    fn a_card_that_cannot_be_used_keeps_its_number_and_says_why() {
        let cards = match Cards::find() {
            Ok(cards) if cards.cards.len() > 1 => cards.cards.clone(),
            Ok(_) => return eprintln!("skipped: one card"),
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        let old = Unusable::look(0, "too old".into());
        assert_eq!((&old.name, &old.model), (&cards[0].name, &cards[0].model));
        let cards = Cards::new(vec![cards[1].clone()], vec![old], Vec::new());
        assert_eq!(cards.subset(&[1]).unwrap().cards[0].number, 1);
        let refused = |number| cards.subset(&[1, number]).err().unwrap().to_string();
        assert!(refused(0).ends_with("card 0: too old"), "{}", refused(0));
        assert!(refused(2).ends_with("there is no card 2 of 2"), "{}", refused(2));
        let states = cards.states();
        assert_eq!(states[0].unusable.as_deref(), Some("too old"));
        assert!(states[0].held.is_none() && states[1].unusable.is_none() && states.len() == 2);
    }
}
