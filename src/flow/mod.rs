//! The dataflow: a pipeline is an iterator of results, a stage turns one into the next, and a
//! thread boundary is one adaptor.
//!
//! ```
//! use dsgd::flow::{Flow, Meters};
//!
//! let meters = Meters::default();
//! let total = std::thread::scope(|scope| {
//!     Flow::source(&meters, "numbers", (0..100u64).map(|n| Ok(vec![0u8; n as usize])))
//!         .on_thread(scope, 4)
//!         .map_parallel(scope, "double", 2, |item: Vec<u8>| Ok([item.clone(), item].concat()))
//!         .try_fold(0, |sum, item| item.map(|item| sum + item.len()))
//! });
//! assert_eq!(total.unwrap(), 9900);
//! assert_eq!(meters.snapshot()[1].bytes_in, 4950);
//! ```

mod meter;
mod thread;

use std::collections::VecDeque;
use std::sync::Arc;

pub use meter::{Meter, Meters, StageReport, limiting_stage};

use crate::base::clock::Stopwatch;
use crate::base::{Chunk, Fault, Faulty};

/// Why a flow ended early: which stage failed, at which item, and what that means.
#[derive(Debug, thiserror::Error)]
#[error("{stage} failed")]
pub struct Error {
    /// The stage's name.
    pub stage: &'static str,
    /// What it means to the caller.
    pub fault: Fault,
    /// What to do about it.
    pub hint: Option<String>,
    /// The module's own error.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    /// Wraps a module's error, once, with the name of the stage it happened in.
    pub fn in_stage(stage: &'static str, error: impl Faulty) -> Self {
        Self { stage, fault: error.fault(), hint: error.hint(), source: Box::new(error) }
    }
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        self.fault
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// The outcome of one step of a flow.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How many bytes an item counts for in the meters.
pub trait Weigh {
    /// Payload bytes of this item.
    fn weight(&self) -> u64;
}

impl Weigh for Chunk {
    fn weight(&self) -> u64 {
        self.len() as u64
    }
}

impl Weigh for Vec<u8> {
    fn weight(&self) -> u64 {
        self.len() as u64
    }
}

impl<A: Weigh, B: Weigh> Weigh for (A, B) {
    fn weight(&self) -> u64 {
        self.0.weight() + self.1.weight()
    }
}

/// One step of the dataflow. It owns its state, no thread and no channel.
pub trait Stage {
    /// What comes in.
    type In: Weigh;
    /// What goes out.
    type Out: Weigh;
    /// The name in progress, statistics and errors.
    const NAME: &'static str;

    /// Takes one item and adds what comes of it, if anything, to `out`.
    fn push(&mut self, item: Self::In, out: &mut VecDeque<Self::Out>) -> Result<()>;

    /// Called once after the last item.
    fn finish(&mut self, _out: &mut VecDeque<Self::Out>) -> Result<()> {
        Ok(())
    }
}

/// A metered iterator of results. After an error it ends.
pub struct Flow<'a, T> {
    items: Box<dyn Iterator<Item = Result<T>> + Send + 'a>,
    meters: Meters,
    last: Arc<Meter>,
    /// Whether `items` receives from another thread, so that waiting for it is starvation.
    boundary: bool,
    ended: bool,
}

impl<'a, T: Weigh + Send + 'a> Flow<'a, T> {
    /// A flow from an iterator, whose own time counts as the stage `name`.
    pub fn source<I>(meters: &Meters, name: &'static str, items: I) -> Self
    where
        I: IntoIterator<Item = Result<T>>,
        I::IntoIter: Send + 'a,
    {
        let meter = meters.add(name, 1);
        let mut items = items.into_iter();
        let counted = meter.clone();
        let timed = std::iter::from_fn(move || {
            let watch = Stopwatch::start();
            let item = items.next();
            counted.busy(watch.elapsed());
            if let Some(Ok(item)) = &item {
                counted.came_out(item.weight());
            }
            item
        });
        Self::new(Box::new(timed), meters.clone(), meter, false)
    }

    /// A flow from an iterator that pulls other flows by itself, as the stage of `meter`, which is
    /// also the one for the [`starving`](Flow::starving) of what it pulls.
    pub fn gathered<I>(meters: &Meters, meter: Arc<Meter>, mut items: I) -> Self
    where
        I: Iterator<Item = Result<T>> + Send + 'a,
    {
        let counted = meter.clone();
        let timed = std::iter::from_fn(move || {
            let (watch, waited) = (Stopwatch::start(), counted.starvation());
            let item = items.next();
            counted.busy(watch.elapsed().saturating_sub(counted.starvation() - waited));
            if let Some(Ok(item)) = &item {
                counted.came_out(item.weight());
            }
            item
        });
        Self::new(Box::new(timed), meters.clone(), meter, false)
    }

    /// The same items; waiting for them counts as `meter`'s starvation, and they as its input.
    pub fn starving(self, meter: &Arc<Meter>) -> Self {
        let (meters, last, meter) = (self.meters.clone(), self.last.clone(), meter.clone());
        let mut items = self;
        let counted = std::iter::from_fn(move || {
            let waiting = Stopwatch::start();
            let item = items.next();
            meter.starved(waiting.elapsed());
            if let Some(Ok(item)) = &item {
                meter.came_in(item.weight());
            }
            item
        });
        Self::new(Box::new(counted), meters, last, true)
    }

    fn new(
        items: Box<dyn Iterator<Item = Result<T>> + Send + 'a>,
        meters: Meters,
        last: Arc<Meter>,
        boundary: bool,
    ) -> Self {
        Self { items, meters, last, boundary, ended: false }
    }

    /// Pairs every item with the item of the same place in `other`; ends with the shorter of them.
    ///
    /// Waiting for either counts as the next stage's starvation.
    pub fn zip<U: Weigh + Send + 'a>(self, mut other: Flow<'a, U>) -> Flow<'a, (T, U)> {
        let (meters, last) = (self.meters.clone(), self.last.clone());
        let pairs = self.map_while(move |item| match (item, other.next()?) {
            (Ok(item), Ok(partner)) => Some(Ok((item, partner))),
            (Err(error), _) | (_, Err(error)) => Some(Err(error)),
        });
        Flow::new(Box::new(pairs), meters, last, true)
    }

    /// Passes every item through `stage`, on the thread that pulls.
    pub fn then<S>(self, stage: S) -> Flow<'a, S::Out>
    where
        S: Stage<In = T> + Send + 'a,
        S::Out: Send + 'a,
    {
        let meter = self.meters.add(S::NAME, 1);
        let meters = self.meters.clone();
        let steps = Steps {
            input: self,
            stage,
            meter: meter.clone(),
            ready: VecDeque::new(),
            finished: false,
        };
        Flow::new(Box::new(steps), meters, meter, false)
    }
}

impl<T> Iterator for Flow<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        if self.ended {
            return None;
        }
        let item = self.items.next();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

struct Steps<'a, S: Stage> {
    input: Flow<'a, S::In>,
    stage: S,
    meter: Arc<Meter>,
    ready: VecDeque<S::Out>,
    finished: bool,
}

impl<S: Stage> Steps<'_, S> {
    fn step(&mut self) -> Result<()> {
        let waiting = Stopwatch::start();
        let item = self.input.next().transpose()?;
        if self.input.boundary {
            self.meter.starved(waiting.elapsed());
        }
        let working = Stopwatch::start();
        match item {
            Some(item) => {
                self.meter.came_in(item.weight());
                self.stage.push(item, &mut self.ready)?;
            }
            None => {
                self.finished = true;
                self.stage.finish(&mut self.ready)?;
            }
        }
        self.meter.busy(working.elapsed());
        Ok(())
    }
}

impl<S: Stage> Iterator for Steps<'_, S> {
    type Item = Result<S::Out>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.finished {
            if let Err(error) = self.step() {
                return Some(Err(error));
            }
        }
        let item = self.ready.pop_front()?;
        self.meter.came_out(item.weight());
        Some(Ok(item))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Joins items until they hold at least four bytes.
    #[derive(Default)]
    struct Join(Vec<u8>);

    impl Stage for Join {
        type In = Vec<u8>;
        type Out = Vec<u8>;
        const NAME: &'static str = "join";

        fn push(&mut self, item: Vec<u8>, out: &mut VecDeque<Vec<u8>>) -> Result<()> {
            if item == b"bad" {
                return Err(broken());
            }
            self.0.extend(item);
            if self.0.len() >= 4 {
                out.push_back(std::mem::take(&mut self.0));
            }
            Ok(())
        }

        fn finish(&mut self, out: &mut VecDeque<Vec<u8>>) -> Result<()> {
            out.push_back(std::mem::take(&mut self.0));
            Ok(())
        }
    }

    fn broken() -> Error {
        Error {
            stage: "join",
            fault: Fault::Data,
            hint: None,
            source: Box::new(std::io::Error::other("broken")),
        }
    }

    fn words(words: &'static [&'static str]) -> impl Iterator<Item = Result<Vec<u8>>> + Send {
        words.iter().map(|word| Ok(word.as_bytes().to_vec()))
    }

    #[test]
    fn stages_join_and_flush_and_are_counted() {
        let meters = Meters::default();
        let out: Vec<_> = Flow::source(&meters, "words", words(&["ab", "cd", "e"]))
            .then(Join::default())
            .map(Result::unwrap)
            .collect();
        assert_eq!(out, [b"abcd".to_vec(), b"e".to_vec()]);
        let report = meters.snapshot();
        assert_eq!((report[0].bytes_out, report[1].bytes_in, report[1].bytes_out), (5, 5, 5));
        assert_eq!(report[1].items_out, 2);
    }

    #[test]
    fn order_is_kept_over_threads() {
        let meters = Meters::default();
        std::thread::scope(|scope| {
            let items = (0..500u64).map(|n| Ok(n.to_le_bytes().to_vec()));
            let out: Vec<_> = Flow::source(&meters, "count", items)
                .on_thread(scope, 2)
                .map_parallel(scope, "same", 3, |item: Vec<u8>| {
                    if item[0].is_multiple_of(7) {
                        std::thread::yield_now();
                    }
                    Ok(item)
                })
                .on_thread(scope, 1)
                .map(|item| u64::from_le_bytes(item.unwrap().try_into().unwrap()))
                .collect();
            assert_eq!(out, (0..500).collect::<Vec<_>>());
        });
    }

    #[test]
    fn waiting_for_what_is_gathered_is_not_work() {
        let meters = Meters::default();
        let slow = words(&["ab", "cd"]).inspect(|_| std::thread::sleep(Duration::from_millis(20)));
        let slow = Flow::source(&meters, "slow", slow);
        let meter = meters.add("gather", 1);
        let gathered = Flow::gathered(&meters, meter.clone(), slow.starving(&meter));
        assert_eq!(gathered.count(), 2);
        let report = &meters.snapshot()[1];
        assert_eq!((report.bytes_in, report.bytes_out), (4, 4));
        assert!(report.starved_seconds >= 0.04 && report.busy_seconds < report.starved_seconds);
    }

    #[test]
    fn zip_pairs_by_place_and_passes_errors() {
        let meters = Meters::default();
        let numbers = Flow::source(&meters, "numbers", words(&["1", "2", "3"]));
        let failing = words(&["a", "b"]).chain(std::iter::once_with(|| Err(broken())));
        let mut pairs = numbers.zip(Flow::source(&meters, "letters", failing));
        assert_eq!(pairs.next().unwrap().unwrap(), (b"1".to_vec(), b"a".to_vec()));
        assert_eq!(pairs.next().unwrap().unwrap(), (b"2".to_vec(), b"b".to_vec()));
        assert!(pairs.next().unwrap().is_err());
        assert!(pairs.next().is_none());
    }

    #[test]
    fn an_error_ends_the_flow_and_every_thread() {
        let meters = Meters::default();
        std::thread::scope(|scope| {
            let endless = words(&["ab", "bad"]).chain(std::iter::repeat_with(|| Ok(vec![0; 4])));
            let mut flow = Flow::source(&meters, "words", endless)
                .on_thread(scope, 2)
                .then(Join::default())
                .map_parallel(scope, "same", 2, Ok)
                .on_thread(scope, 2);
            assert_eq!(flow.next().unwrap().unwrap_err().fault, Fault::Data);
            assert!(flow.next().is_none());
        });
    }

    #[test]
    fn a_flow_that_nobody_pulls_any_more_ends_its_threads() {
        let meters = Meters::default();
        std::thread::scope(|scope| {
            let endless = std::iter::repeat_with(|| Ok(vec![0u8; 10]));
            let mut flow = Flow::source(&meters, "zeros", endless)
                .on_thread(scope, 2)
                .map_parallel(scope, "same", 2, Ok);
            flow.next();
        });
    }
}
