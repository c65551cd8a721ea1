//! Reads as FASTQ text into files or named pipes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};
use rustix::fs::OFlags;
use zeroize::Zeroize;

use super::process::Process;
use super::scratch::Scratch;
use crate::flow::{self, Meter, Weigh};
use crate::genome::{Layout, ReadBatch};

/// Batches on the way to each pipe.
const AHEAD: usize = 4;

/// How often to look whether the program has opened a pipe.
const LOOK: Duration = Duration::from_millis(10);

const NAMES: [&str; 2] = ["reads_1.fq", "reads_2.fq"];

/// Why reads were not handed over.
pub(super) enum Error {
    Reads(flow::Error),
    Write(io::Error),
}

/// Where reads are written.
pub(super) enum Files {
    Pipes(Vec<PathBuf>),
    Plain(Vec<File>),
}

impl Files {
    pub(super) fn pipes(scratch: &Scratch, layout: Layout) -> io::Result<Self> {
        let make = |name: &&str| scratch.pipe(name).map(|()| scratch.path(name));
        names(layout).iter().map(make).collect::<io::Result<_>>().map(Files::Pipes)
    }

    pub(super) fn plain(scratch: &Scratch, layout: Layout) -> io::Result<Self> {
        let make = |name: &&str| scratch.file(name);
        names(layout).iter().map(make).collect::<io::Result<_>>().map(Files::Plain)
    }
}

fn names(layout: Layout) -> &'static [&'static str] {
    match layout {
        Layout::Paired => &NAMES,
        Layout::Single => &NAMES[..1],
    }
}

/// Hands reads over and counts them.
pub(super) struct Feed {
    files: Files,
    layout: Layout,
    meter: Arc<Meter>,
    reads: u64,
    left_reads: bool,
}

impl Feed {
    pub(super) fn new(files: Files, layout: Layout, meter: Arc<Meter>) -> Self {
        Self { files, layout, meter, reads: 0, left_reads: false }
    }

    /// Reads handed over.
    pub(super) fn reads(&self) -> u64 {
        self.reads
    }

    /// Whether the program closed a pipe before its end.
    pub(super) fn left_reads(&self) -> bool {
        self.left_reads
    }

    fn texts(&mut self, batch: &ReadBatch) -> Vec<Vec<u8>> {
        let texts = texts(batch, self.layout);
        self.meter.came_in(batch.weight());
        if batch.layout == self.layout || self.layout == Layout::Single {
            self.reads += batch.len() as u64;
        }
        texts
    }

    /// Writes all reads to plain files.
    pub(super) fn write_all(
        &mut self,
        reads: &mut dyn Iterator<Item = flow::Result<ReadBatch>>,
    ) -> Result<(), Error> {
        for batch in reads {
            let mut texts = self.texts(&batch.map_err(Error::Reads)?);
            let Files::Plain(files) = &mut self.files else { return Ok(()) };
            for (text, file) in texts.iter_mut().zip(files) {
                file.write_all(text).map_err(Error::Write)?;
                text.zeroize();
            }
        }
        Ok(())
    }

    /// Writes all reads to the pipes, each from a thread of its own, while the program runs.
    pub(super) fn write_pipes(
        &mut self,
        reads: &mut dyn Iterator<Item = flow::Result<ReadBatch>>,
        process: &Process,
    ) -> Result<(), Error> {
        let Files::Pipes(paths) = &self.files else { return Ok(()) };
        let paths = paths.clone();
        std::thread::scope(|scope| {
            let (mut senders, mut writers) = (Vec::new(), Vec::new());
            for path in &paths {
                let (sender, texts) = bounded(AHEAD);
                senders.push(sender);
                writers.push(scope.spawn(move || write_pipe(path, &texts, process)));
            }
            let fed = self.send(reads, &senders);
            if fed.is_err() {
                // Ends the writers too: nobody reads their pipes any more.
                process.kill();
            }
            drop(senders);
            for writer in writers {
                let whole = writer.join().unwrap_or(Ok(false)).map_err(Error::Write)?;
                self.left_reads |= !whole;
            }
            fed
        })
    }

    fn send(
        &mut self,
        reads: &mut dyn Iterator<Item = flow::Result<ReadBatch>>,
        senders: &[crossbeam::channel::Sender<Vec<u8>>],
    ) -> Result<(), Error> {
        for batch in reads {
            let texts = self.texts(&batch.map_err(Error::Reads)?);
            for (text, sender) in texts.into_iter().zip(senders) {
                if sender.send(text).is_err() {
                    self.left_reads = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// FASTQ text of a batch, for each file. Single reads among pairs are left out.
fn texts(batch: &ReadBatch, layout: Layout) -> Vec<Vec<u8>> {
    let files = names(layout).len();
    let mut texts = vec![Vec::with_capacity(batch.text.len() / files + 16 * batch.len()); files];
    if layout == Layout::Paired && batch.layout == Layout::Single {
        return texts;
    }
    for index in 0..batch.len() {
        let text = &mut texts[index % files];
        for (mark, part) in [
            (&b"@"[..], batch.name(index)),
            (b"\n", batch.bases(index)),
            (b"\n+\n", batch.qualities(index)),
        ] {
            text.extend_from_slice(mark);
            text.extend_from_slice(part);
        }
        text.push(b'\n');
    }
    texts
}

/// Writes everything to one pipe; `false` if the program does not want all of it.
fn write_pipe(path: &Path, texts: &Receiver<Vec<u8>>, process: &Process) -> io::Result<bool> {
    let Some(mut pipe) = open_pipe(path, process)? else { return Ok(false) };
    for mut text in texts {
        let written = pipe.write_all(&text);
        text.zeroize();
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            other => other?,
        }
    }
    Ok(true)
}

/// Opens a pipe for writing once the program has opened it; `None` if it ends without doing so.
fn open_pipe(path: &Path, process: &Process) -> io::Result<Option<File>> {
    loop {
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        match OpenOptions::new().write(true).custom_flags(nonblocking).open(path) {
            Ok(pipe) => {
                // From here on writes wait; when the program dies they fail.
                rustix::fs::fcntl_setfl(&pipe, OFlags::empty())?;
                return Ok(Some(pipe));
            }
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                if process.has_ended() {
                    return Ok(None);
                }
                std::thread::sleep(LOOK);
            }
            Err(error) => return Err(error),
        }
    }
}
