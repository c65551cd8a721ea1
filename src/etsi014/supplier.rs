//! The master's end of the link between two key managers: a thread with a session of its own.
//!
//! Requests that arrive while a grant is on its way share the next one, so that neither the number of
//! messages nor the number of syncs grows with the number of requests. No key is handed out before
//! the other key manager has said that it holds it; when the session breaks before that, its keys
//! are given up, never used again.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use tokio::sync::oneshot;

use super::grant::{self, ENTRY_BYTES_MAX, GrantWriter, Verdict};
use super::held::Group;
use super::message::NamedKey;
use super::name::{Names, PERMUTATION_KEY_BYTES};
use super::refusal::Refusal;
use super::supply::Supply;
use crate::base::Secret;
use crate::base::clock::Stopwatch;
use crate::base::fault::with_causes;
use crate::key;
use crate::net::{self, Connection, Dialer};
use crate::otp;

/// Requests that wait at most.
const WAITING_MAX: usize = 4096;
/// Requests of one grant at most.
const BATCH_MAX: usize = 256;
/// Bytes of fresh key that are made at once, from the first time of a session to the last.
const STEP_BYTES: (usize, usize) = (1 << 10, 256 << 10);

/// How long a link without key is left alone: each new session would take the little that arrives.
const REST: Duration = Duration::from_secs(1);

const SHORT: &str = "not enough keys are stored for this SAE pair";
const AWAY: &str = "the KME of a slave SAE cannot be reached";
const BUSY: &str = "the KME has too many requests";
const FULL: &str = "the KME of a slave SAE holds too many keys that were not fetched";
const DISAGREE: &str = "the KME of a slave SAE does not know this SAE pair";

/// What is wanted of a link.
pub enum Want {
    /// Keys that nobody has had.
    Fresh {
        /// How many.
        number: usize,
        /// Bytes of each.
        bytes: usize,
    },
    /// That the other end gets keys which this end has already.
    Copies(Arc<Vec<NamedKey>>),
}

struct Job {
    want: Want,
    group: Arc<Group>,
    reply: oneshot::Sender<Result<Vec<NamedKey>, Refusal>>,
}

/// The way to one other key manager. Its thread ends with the last clone.
#[derive(Clone)]
pub struct Supplier(Sender<Job>);

impl Supplier {
    /// Starts the thread. The other key manager is called when the first key is wanted.
    ///
    /// The settings of `dialer` bound how long that may take; `note` is told what goes wrong.
    pub fn start(dialer: Dialer, note: impl Fn(String) + Send + 'static) -> io::Result<Self> {
        let (sender, jobs) = bounded(WAITING_MAX);
        let worker =
            Worker { dialer, session: None, failing: false, empty: None, note: Box::new(note) };
        thread::Builder::new().name("key-supplier".into()).spawn(move || worker.run(&jobs))?;
        Ok(Self(sender))
    }

    /// Asks for keys, and waits until the slaves of `group` at the other end can fetch them.
    ///
    /// Errors: 503 where they cannot. Fresh keys are then given up.
    pub async fn grant(&self, want: Want, group: Arc<Group>) -> Result<Vec<NamedKey>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.try_send(Job { want, group, reply });
        sent.map_err(|_| Refusal::unavailable(BUSY))?;
        answer.await.unwrap_or(Err(Refusal::unavailable(AWAY)))
    }
}

struct Worker {
    dialer: Dialer,
    session: Option<Session>,
    /// Whether the operator was told: not for every request again.
    failing: bool,
    /// Since when there is not even key for a session.
    empty: Option<Stopwatch>,
    note: Box<dyn Fn(String) + Send>,
}

struct Session {
    connection: Connection,
    names: Names,
    supply: Supply,
    groups: HashMap<Arc<Group>, u16>,
    sequence: u32,
    step: usize,
}

type Outcome = Result<Vec<NamedKey>, Refusal>;

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut bytes = cost(&first);
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX && bytes < ENTRY_BYTES_MAX / 2 {
                let Ok(job) = jobs.try_recv() else { break };
                bytes += cost(&job);
                // Whoever gave up waiting must not cost key.
                if !job.reply.is_closed() {
                    batch.push(job);
                }
            }
            self.serve(batch);
        }
    }

    fn serve(&mut self, batch: Vec<Job>) {
        // A message has room for the copies of one request beside the rest.
        let (copies, fresh): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|job| matches!(job.want, Want::Copies(_)));
        for part in std::iter::once(fresh).chain(copies.into_iter().map(|job| vec![job])) {
            if part.is_empty() {
                continue;
            }
            let outcomes = self.grant(&part);
            for (job, outcome) in part.into_iter().zip(outcomes) {
                // Nobody waits any more: the keys are wiped here, and expire at the other end.
                let _ = job.reply.send(outcome);
            }
        }
    }

    /// One outcome for each job. A session that was there before may have died of age: then it is
    /// tried again with another.
    fn grant(&mut self, jobs: &[Job]) -> Vec<Outcome> {
        let refused = |reason| jobs.iter().map(|_| Err(Refusal::unavailable(reason))).collect();
        if self.empty.is_some_and(|watch| watch.elapsed() < REST) {
            return refused(SHORT);
        }
        let had_session = self.session.is_some();
        let mut outcome = self.attempt(jobs);
        if had_session && outcome.as_ref().is_err_and(|error| !is_exhausted(error)) {
            outcome = self.attempt(jobs);
        }
        let empty = outcome.as_ref().is_err_and(is_exhausted);
        self.empty = empty.then(Stopwatch::start);
        let told = std::mem::replace(&mut self.failing, outcome.is_err());
        outcome.unwrap_or_else(|error| {
            let reason = if is_exhausted(&error) { SHORT } else { AWAY };
            if !told {
                (self.note)(with_causes(&error));
            }
            refused(reason)
        })
    }

    fn attempt(&mut self, jobs: &[Job]) -> Result<Vec<Outcome>, net::Error> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::begin(self.dialer.dial()?)?,
        };
        // Unless all goes well the session is dropped here, with the supply that may be out of step.
        let outcomes = session.grant(jobs)?;
        if session.groups.len() + BATCH_MAX < usize::from(u16::MAX) {
            self.session = Some(session);
        }
        Ok(outcomes)
    }
}

impl Session {
    fn begin(mut connection: Connection) -> Result<Self, net::Error> {
        let mut bytes = connection.send_keyed(grant::NAMES, PERMUTATION_KEY_BYTES)?;
        bytes.mark_secret();
        let mut key = Secret::new([0; PERMUTATION_KEY_BYTES]);
        key.expose_mut().copy_from_slice(&bytes);
        Ok(Self {
            connection,
            names: Names::new(&key),
            supply: Supply::default(),
            groups: HashMap::new(),
            sequence: 0,
            step: STEP_BYTES.0,
        })
    }

    fn grant(&mut self, jobs: &[Job]) -> Result<Vec<Outcome>, net::Error> {
        self.stock(jobs.iter().map(fresh_bytes).sum())?;
        let mut message = GrantWriter::new(self.sequence, jobs.iter().map(entry_room).sum());
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            outcomes.push(self.enter(job, &mut message));
        }
        if outcomes.iter().all(Result::is_err) {
            return Ok(outcomes);
        }
        self.connection.send(grant::GRANT, message.as_bytes())?;
        let granted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let mut verdicts = self.verdicts(granted)?.into_iter();
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
            match verdicts.next() {
                Some(Verdict::Held) => {}
                Some(Verdict::Full) => *outcome = Err(Refusal::unavailable(FULL)),
                _ => *outcome = Err(Refusal::unavailable(DISAGREE)),
            }
        }
        Ok(outcomes)
    }

    /// Takes the keys of one job and says whose they are. A group is only written before keys.
    fn enter(&mut self, job: &Job, message: &mut GrantWriter) -> Outcome {
        let keys = match &job.want {
            Want::Fresh { number, bytes } => {
                let keys = self.supply.take(*number, *bytes, &mut self.names);
                keys.ok_or(Refusal::unavailable(SHORT))?
            }
            Want::Copies(_) => Vec::new(),
        };
        let next = self.groups.len() as u16;
        let group = *self.groups.entry(Arc::clone(&job.group)).or_insert_with(|| {
            message.group(&job.group);
            next
        });
        match &job.want {
            Want::Fresh { number, bytes } => message.fresh(group, *number, *bytes),
            Want::Copies(copies) => message.copies(group, copies),
        }
        Ok(keys)
    }

    /// Makes the supply at least `bytes`, as far as there is key for it.
    fn stock(&mut self, bytes: usize) -> Result<(), net::Error> {
        while self.supply.bytes() < bytes {
            let missing = (bytes - self.supply.bytes()).min(ENTRY_BYTES_MAX);
            let supplied = match self.connection.send_keyed(grant::SUPPLY, missing.max(self.step)) {
                Err(error) if is_exhausted(&error) && self.step > missing => {
                    self.step = STEP_BYTES.0;
                    self.connection.send_keyed(grant::SUPPLY, missing)
                }
                supplied => supplied,
            };
            match supplied {
                Ok(chunk) => self.supply.add(chunk),
                Err(error) if is_exhausted(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            self.step = (2 * self.step).min(STEP_BYTES.1);
        }
        Ok(())
    }

    fn verdicts(&mut self, count: usize) -> Result<Vec<Verdict>, net::Error> {
        let address = self.connection.address().to_owned();
        let Some(answer) = self.connection.receive()? else {
            return Err(net::Error::CutOff { address });
        };
        let expected = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        match grant::parse_granted(&answer.payload) {
            Some((sequence, verdicts))
                if answer.kind == grant::GRANTED
                    && sequence == expected
                    && verdicts.len() == count =>
            {
                Ok(verdicts)
            }
            _ => Err(net::Error::CutOff { address }),
        }
    }
}

fn fresh_bytes(job: &Job) -> usize {
    match &job.want {
        Want::Fresh { number, bytes } => number * bytes,
        Want::Copies(_) => 0,
    }
}

fn entry_room(job: &Job) -> usize {
    match &job.want {
        Want::Fresh { .. } => grant::room(&job.group, &[]),
        Want::Copies(keys) => grant::room(&job.group, keys),
    }
}

fn cost(job: &Job) -> usize {
    fresh_bytes(job) + entry_room(job)
}

/// Whether a link has no key left, which may be otherwise later.
fn is_exhausted(error: &net::Error) -> bool {
    let net::Error::Session { source: otp::Error::Key(source), .. } = error else { return false };
    matches!(source, key::Error::Exhausted { .. })
}
