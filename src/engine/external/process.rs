//! A running program: watched, listened to, and stopped with everything it started.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::clock::Stopwatch;

/// Bytes kept of what the program says.
const MESSAGE_BYTES: usize = 64 << 10;

/// How often the watch looks.
const LOOK: Duration = Duration::from_millis(10);

/// The program took longer than it may.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimedOut;

/// How a program ended.
pub(super) struct Ended {
    pub(super) status: Result<ExitStatus, TimedOut>,
    /// The end of its standard error.
    pub(super) messages: String,
    /// Its standard output, if that was asked for.
    pub(super) output: Vec<u8>,
}

/// A program in a process group of its own.
pub(super) struct Process {
    group: Arc<Group>,
    watch: Option<JoinHandle<Result<ExitStatus, TimedOut>>>,
    messages: Option<JoinHandle<Vec<u8>>>,
    output: Option<JoinHandle<Vec<u8>>>,
}

struct Group {
    child: Mutex<Child>,
    ended: AtomicBool,
}

impl Group {
    fn kill(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
            // A group that has ended already needs no end.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()
    }
}

impl Process {
    /// Starts the program. What it prints is kept whole if `keep_output`, and else passed over.
    pub(super) fn start(
        mut command: Command,
        limit: Duration,
        keep_output: bool,
    ) -> io::Result<Self> {
        command.process_group(0).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let group = Arc::new(Group { child: Mutex::new(child), ended: AtomicBool::new(false) });
        let watched = group.clone();
        let keep = if keep_output { usize::MAX } else { 0 };
        Ok(Self {
            watch: Some(std::thread::spawn(move || watch(&watched, limit))),
            messages: errors.map(|errors| std::thread::spawn(move || tail(errors, MESSAGE_BYTES))),
            output: output.map(|output| std::thread::spawn(move || tail(output, keep))),
            group,
        })
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.group.ended.load(Ordering::SeqCst)
    }

    /// Stops it and everything it started in its group.
    pub(super) fn kill(&self) {
        if !self.has_ended() {
            self.group.kill();
        }
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) -> Ended {
        let status = self.watch.take().and_then(|watch| watch.join().ok()).unwrap_or(Err(TimedOut));
        let collect = |handle: &mut Option<JoinHandle<Vec<u8>>>| {
            handle.take().and_then(|handle| handle.join().ok()).unwrap_or_default()
        };
        let messages = String::from_utf8_lossy(&collect(&mut self.messages)).into_owned();
        Ended { status, messages, output: collect(&mut self.output) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.wait();
    }
}

/// Waits for the end, or brings it about; then ends whatever the program left running, which would
/// hold its output open.
fn watch(group: &Group, limit: Duration) -> Result<ExitStatus, TimedOut> {
    let watch = Stopwatch::start();
    let mut late = false;
    loop {
        match group.try_wait() {
            Ok(Some(status)) => {
                group.kill();
                group.ended.store(true, Ordering::SeqCst);
                return if late { Err(TimedOut) } else { Ok(status) };
            }
            Ok(None) if !late && watch.elapsed() >= limit => {
                late = true;
                group.kill();
            }
            Ok(None) => {}
            // A child that cannot be waited for is stopped rather than left alone.
            Err(_) => {
                group.kill();
                group.ended.store(true, Ordering::SeqCst);
                return Err(TimedOut);
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Reads to the end and keeps the last `keep` bytes.
fn tail(mut from: impl Read, keep: usize) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => kept.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        if kept.len() / 2 > keep {
            kept.drain(..kept.len() - keep);
        }
    }
    kept.drain(..kept.len().saturating_sub(keep));
    kept
}
