//! A file to three shares at three sites.
//!
//! | hop | what happens |
//! |---|---|
//! | encode | bytes cut into stripes, each encoded so that manipulation shows |
//! | random | as many random bytes as the stripe has |
//! | split | shares A, B, C of the stripe |
//! | share A, B, C | each to its store, at the same time |
//!
//! Only when all three have everything do they commit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::Error;
use crate::base::clock::Stopwatch;
use crate::base::{Chunk, Pool, ShareLetter};
use crate::control::{Deposit, Member, Role};
use crate::device::Kernel;
use crate::device::assign::Assignment;
use crate::flow::{self, Flow, Meter, Meters, Stage, Weigh};
use crate::key::RandomSource;
use crate::share::device::{STRIPES_TOGETHER, Sharing};
use crate::share::stripe::Codec;
use crate::share::{self, Shares};
use crate::store::{ShareStore, ShareWriter};

/// Where the random numbers of sharing come from.
#[derive(Clone)]
pub enum Random {
    /// A source of its own; share C is sent like the others.
    Source(Arc<Mutex<Box<dyn RandomSource>>>),
    /// The key of the link to the holder of C, which then knows share C without its being sent.
    LinkToHolderOfC,
}

/// A file to be shared out.
pub struct ToShare<'a> {
    /// Its name.
    pub file: String,
    /// What it is for.
    pub role: Role,
    /// Its bytes.
    pub bytes: Flow<'a, Chunk>,
    /// Its length, where it is known: keys are then reserved for just that.
    pub length: Option<u64>,
}

/// What is needed to share out one file.
pub struct ShareOut<'a> {
    /// The deposit it belongs to.
    pub deposit: &'a Deposit,
    /// Which of its files.
    pub member: usize,
    /// Stores of the shares A, B and C. Share B may be left out, to be rebuilt later.
    pub stores: [Option<&'a dyn ShareStore>; 3],
    /// Where the random numbers come from.
    pub random: Random,
    /// Chunks of the pipeline, each with room for a stripe: [`pool_chunks`] of them.
    pub pool: &'a Pool,
    /// What splits the stripes.
    pub devices: &'a Arc<Assignment>,
    /// Counters.
    pub meters: &'a Meters,
}

/// Chunks of one pipeline: what is between its stages and in their hands.
const POOL_CHUNKS: usize = 48;

/// Chunks of a pipeline that splits with these devices.
pub fn pool_chunks(devices: &Assignment) -> usize {
    // A device is given encoded stripes, random bytes and room for share B.
    let collected = if devices.on_cpu(Kernel::Split) { 0 } else { 3 * STRIPES_TOGETHER };
    POOL_CHUNKS + collected
}

const AHEAD: usize = 2;

impl ShareOut<'_> {
    /// Shares out a file; says what the catalogue has to know of it.
    ///
    /// Errors: those of the stages and stores; nothing is then committed, unless a commit itself
    /// failed after another one.
    pub fn run(&self, source: ToShare<'_>) -> Result<Member, Error> {
        let ToShare { file, role, bytes, length: expected } = source;
        let codec =
            Codec::new(&self.deposit.dataset, self.member as u32, self.deposit.stripe_bytes)
                .expect("this program's stripe size suits the codec");
        let [a, b, c] = self.writers(expected.map(|bytes| stripes_of(bytes, &codec)))?;
        let c = c.expect("share C is never left out");
        let length = Arc::new(Mutex::new(0));
        let encode = Encode::new(codec, self.pool.clone(), length.clone(), self.random.clone());
        let stripes = std::thread::scope(|scope| {
            let encoded = bytes.on_thread(scope, AHEAD).then(encode).on_thread(scope, AHEAD);
            match &self.random {
                Random::Source(source) => {
                    let random = AddRandom { source: source.clone(), pool: self.pool.clone() };
                    let split = Split::new(self.pool, self.devices);
                    let shares = encoded.then(random).on_thread(scope, AHEAD).then(split);
                    let sinks = [a, b, Some(c)];
                    scatter(scope, shares, sinks, self.meters)
                }
                Random::LinkToHolderOfC => {
                    let holder = Arc::new(Mutex::new(c));
                    let random = DrawKey { holder: holder.clone() };
                    let split = Split::new(self.pool, self.devices);
                    let shares = encoded.then(random).on_thread(scope, AHEAD).then(split);
                    let stripes = scatter(scope, shares, [a, b, None], self.meters)?;
                    let holder = Arc::into_inner(holder).ok_or(Error::Died { stage: "random" })?;
                    holder.into_inner().unwrap_or_else(PoisonError::into_inner).commit()?;
                    Ok(stripes)
                }
            }
        })?;
        let bytes = *length.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Member { file, role, bytes, stripes })
    }

    fn writers(&self, stripes: Option<u64>) -> Result<[Option<Box<dyn ShareWriter>>; 3], Error> {
        let mut writers = [None, None, None];
        for (letter, slot) in ShareLetter::ALL.into_iter().zip(&mut writers) {
            let Some(store) = self.stores[letter as usize] else { continue };
            let id = self.deposit.share(self.member, letter);
            let mut writer = store.create(&id, share::FORMAT, self.deposit.stripe_bytes)?;
            if let Some(stripes) = stripes {
                writer.expect(stripes)?;
            }
            *slot = Some(writer);
        }
        Ok(writers)
    }
}

/// Stripes that a file of this length takes: at least one.
fn stripes_of(bytes: u64, codec: &Codec) -> u64 {
    bytes.div_ceil(codec.payload_bytes() as u64).max(1)
}

/// Cuts bytes into payloads and encodes each as a stripe.
struct Encode {
    codec: Codec,
    pool: Pool,
    open: Option<Chunk>,
    number: u64,
    length: Arc<Mutex<u64>>,
    random: Random,
}

impl Encode {
    fn new(codec: Codec, pool: Pool, length: Arc<Mutex<u64>>, random: Random) -> Self {
        Self { codec, pool, open: None, number: 0, length, random }
    }

    fn close(&mut self, last: bool) -> flow::Result<Chunk> {
        let mut chunk = self.open.take().unwrap_or_else(|| self.pool.take());
        chunk.set_seq(self.number);
        self.number += 1;
        *self.length.lock().unwrap_or_else(PoisonError::into_inner) += chunk.len() as u64;
        let mut x = [0; 16];
        match &self.random {
            Random::Source(source) => source
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .fill(&mut x)
                .map_err(|error| flow::Error::in_stage(Self::NAME, error))?,
            // The holder of C must not know x, so it is not taken from that link.
            Random::LinkToHolderOfC => getrandom::fill(&mut x).map_err(|source| flow::Error {
                stage: Self::NAME,
                fault: crate::base::Fault::System,
                hint: None,
                source: Box::new(source),
            })?,
        }
        self.codec.encode(&mut chunk, last, &x);
        zeroize::Zeroize::zeroize(&mut x);
        Ok(chunk)
    }
}

impl Stage for Encode {
    type In = Chunk;
    type Out = Chunk;
    const NAME: &'static str = "encode";

    fn push(&mut self, item: Chunk, out: &mut VecDeque<Chunk>) -> flow::Result<()> {
        let mut rest = &item[..];
        while !rest.is_empty() {
            // A full payload is closed only when more bytes come: the last one must say so.
            if self.open.as_ref().is_some_and(|open| open.len() == self.codec.payload_bytes()) {
                out.push_back(self.close(false)?);
            }
            let open = self.open.get_or_insert_with(|| {
                let mut chunk = self.pool.take();
                chunk.mark_secret();
                chunk
            });
            let start = open.len();
            let taken = rest.len().min(self.codec.payload_bytes() - start);
            open.set_len(start + taken);
            open[start..].copy_from_slice(&rest[..taken]);
            rest = &rest[taken..];
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut VecDeque<Chunk>) -> flow::Result<()> {
        out.push_back(self.close(true)?);
        Ok(())
    }
}

/// Gives every stripe its random bytes.
struct AddRandom {
    source: Arc<Mutex<Box<dyn RandomSource>>>,
    pool: Pool,
}

impl Stage for AddRandom {
    type In = Chunk;
    type Out = (Chunk, Chunk);
    const NAME: &'static str = "random";

    fn push(&mut self, item: Chunk, out: &mut VecDeque<(Chunk, Chunk)>) -> flow::Result<()> {
        let mut random = self.pool.take();
        random.set_len(item.len());
        self.source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill(&mut random)
            .map_err(|error| flow::Error::in_stage(Self::NAME, error))?;
        out.push_back((item, random));
        Ok(())
    }
}

/// Takes the random bytes from the link to the holder of C, which keeps them as its share.
struct DrawKey {
    holder: Arc<Mutex<Box<dyn ShareWriter>>>,
}

impl Stage for DrawKey {
    type In = Chunk;
    type Out = (Chunk, Chunk);
    const NAME: &'static str = "random";

    fn push(&mut self, item: Chunk, out: &mut VecDeque<(Chunk, Chunk)>) -> flow::Result<()> {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        let drawn = holder.append_key(item.len()).unwrap_or_else(|| {
            Err(crate::store::Error::Catalogue {
                place: "the holder of share C".into(),
                what: "is not reached over a link with keys, so its share must be sent".into(),
            })
        });
        out.push_back((item, drawn.map_err(|error| flow::Error::in_stage(Self::NAME, error))?));
        Ok(())
    }
}

/// Splits stripes; collects them first where a device is to have several at a time.
struct Split {
    pool: Pool,
    sharing: Sharing,
    waiting: Vec<[Chunk; 3]>,
}

impl Split {
    fn new(pool: &Pool, devices: &Arc<Assignment>) -> Self {
        let sharing = Sharing::new(Arc::clone(devices));
        Self { pool: pool.clone(), sharing, waiting: Vec::new() }
    }
}

impl Stage for Split {
    type In = (Chunk, Chunk);
    type Out = Shares;
    const NAME: &'static str = "split";

    fn push(&mut self, item: (Chunk, Chunk), out: &mut VecDeque<Shares>) -> flow::Result<()> {
        self.waiting.push([item.0, item.1, self.pool.take()]);
        if self.waiting.len() < self.sharing.together(Kernel::Split) {
            return Ok(());
        }
        self.finish(out)
    }

    fn finish(&mut self, out: &mut VecDeque<Shares>) -> flow::Result<()> {
        let split = self.sharing.split(std::mem::take(&mut self.waiting));
        out.extend(split.map_err(|error| flow::Error::in_stage(Self::NAME, error))?);
        Ok(())
    }
}

impl Weigh for Shares {
    fn weight(&self) -> u64 {
        self.0[0].len() as u64
    }
}

/// What a sink is told.
enum Order {
    Append(Chunk),
    Commit,
}

/// Sends every share to its sink; commits all of them when all have everything.
fn scatter<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    shares: Flow<'_, Shares>,
    sinks: [Option<Box<dyn ShareWriter>>; 3],
    meters: &Meters,
) -> Result<u64, Error> {
    const NAMES: [&str; 3] = ["share A", "share B", "share C"];
    let mut lines = Vec::with_capacity(3);
    for (name, sink) in NAMES.into_iter().zip(sinks) {
        lines.push(sink.map(|sink| Line::start(scope, name, sink, meters.add(name, 1))));
    }
    let fed = feed(shares, &lines);
    if matches!(fed, Ok(Fed { complete: true, .. })) {
        // A sink that failed meanwhile says so when it ends.
        lines.iter().flatten().for_each(|line| drop(line.orders.send(Order::Commit)));
    }
    let mut outcome = Ok(());
    for line in lines.into_iter().flatten() {
        outcome = outcome.and(line.end());
    }
    // A sink's own error explains why the flow stopped, so it goes first.
    outcome?;
    Ok(fed?.stripes)
}

/// How much was handed to the sinks.
struct Fed {
    stripes: u64,
    /// Whether that was everything: false when a sink failed.
    complete: bool,
}

fn feed(shares: Flow<'_, Shares>, lines: &[Option<Line<'_>>]) -> Result<Fed, Error> {
    let mut stripes = 0;
    for item in shares {
        let Shares(chunks) = item?;
        for (line, chunk) in lines.iter().zip(chunks) {
            let Some(line) = line else { continue };
            if line.orders.send(Order::Append(chunk)).is_err() {
                return Ok(Fed { stripes, complete: false });
            }
        }
        stripes += 1;
    }
    Ok(Fed { stripes, complete: true })
}

/// A store's end of the pipeline, on a thread of its own.
struct Line<'scope> {
    name: &'static str,
    orders: Sender<Order>,
    worker: ScopedJoinHandle<'scope, Result<(), flow::Error>>,
}

impl<'scope> Line<'scope> {
    fn start(
        scope: &'scope Scope<'scope, '_>,
        name: &'static str,
        sink: Box<dyn ShareWriter>,
        meter: Arc<Meter>,
    ) -> Self {
        let (orders, queue) = bounded(AHEAD);
        let worker = scope.spawn(move || {
            append_all(&queue, sink, &meter).map_err(|error| flow::Error::in_stage(name, error))
        });
        Self { name, orders, worker }
    }

    /// Waits for the sink; one that saw no commit leaves nothing behind.
    fn end(self) -> Result<(), Error> {
        drop(self.orders);
        match self.worker.join() {
            Ok(outcome) => outcome.map_err(Error::Stage),
            Err(_) => Err(Error::Died { stage: self.name }),
        }
    }
}

fn append_all(
    queue: &Receiver<Order>,
    mut sink: Box<dyn ShareWriter>,
    meter: &Meter,
) -> Result<(), crate::store::Error> {
    loop {
        let waiting = Stopwatch::start();
        let Ok(order) = queue.recv() else { return Ok(()) };
        meter.starved(waiting.elapsed());
        let working = Stopwatch::start();
        match order {
            Order::Append(stripe) => {
                let bytes = stripe.len() as u64;
                meter.came_in(bytes);
                sink.append(stripe)?;
                meter.came_out(bytes);
                meter.busy(working.elapsed());
            }
            Order::Commit => {
                sink.commit()?;
                meter.busy(working.elapsed());
                return Ok(());
            }
        }
    }
}
