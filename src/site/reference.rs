//! References and their indexes: loaded once, used for many samples.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::settings::ReferenceSettings;
use super::{Error, Site};
use crate::base::Faulty;
use crate::device::assign::Assignment;
use crate::engine::Engine;
use crate::engine::external::External;
use crate::engine::native::{Index, Native};
use crate::genome::Reference;
use crate::io::StreamWriter;

/// A reference in memory, with its index once a native engine asked for it, and with that engine, whose tables
/// stay on the devices from sample to sample.
pub struct LoadedReference {
    /// What it is called.
    pub name: String,
    /// The FASTA file.
    pub path: PathBuf,
    /// The sequences.
    pub reference: Arc<Reference>,
    /// Digest of names and sequences.
    pub digest: String,
    index_path: Option<PathBuf>,
    index: Mutex<Option<Arc<Index>>>,
    native: Mutex<Option<Native>>,
}

impl LoadedReference {
    /// Reads a FASTA file, plain or compressed.
    pub fn read(settings: &ReferenceSettings) -> Result<Self, Error> {
        let failed =
            |fault, source| Error::Reference { name: settings.name.clone(), fault, source };
        let file = File::open(&settings.fasta)
            .map_err(|source| Error::File { path: settings.fasta.clone(), source })?;
        let reference = Reference::read_fasta(BufReader::new(file))
            .map_err(|error| failed(error.fault(), Box::new(error)))?;
        Ok(Self {
            name: settings.name.clone(),
            path: settings.fasta.clone(),
            digest: reference.digest().to_hex().to_string(),
            reference: Arc::new(reference),
            index_path: settings.index.clone(),
            index: Mutex::new(None),
            native: Mutex::new(None),
        })
    }

    /// The index: read from its file, or built in memory where there is none.
    pub fn index(&self, threads: usize) -> Result<Arc<Index>, Error> {
        let mut slot = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = &*slot {
            return Ok(index.clone());
        }
        let index = match &self.index_path {
            Some(path) => self.read_index(path)?,
            None => Index::build(&self.reference, threads).map_err(|error| self.failed(error))?,
        };
        Ok(slot.insert(Arc::new(index)).clone())
    }

    /// Opens an index file and checks that it is whole and of this reference.
    pub fn read_index(&self, path: &Path) -> Result<Index, Error> {
        let file = File::open(path).map_err(|source| Error::File { path: path.into(), source })?;
        Index::open(&file, &self.reference).map_err(|error| Error::Index {
            path: path.into(),
            fault: error.fault(),
            source: Box::new(error),
        })
    }

    fn failed(&self, error: impl Faulty) -> Error {
        Error::Reference { name: self.name.clone(), fault: error.fault(), source: Box::new(error) }
    }

    /// Builds the index and writes it to a file, whole or not at all.
    pub fn write_index(&self, path: &Path, threads: usize) -> Result<(), Error> {
        let index = self.index(threads)?;
        let mut out = StreamWriter::create(path, None)?;
        index.write(&mut out).map_err(|error| self.failed(error))?;
        out.finish()?;
        Ok(())
    }

    /// Our own engine; its tables are put on devices when these are not those of the last call.
    fn native(&self, threads: usize, devices: &Arc<Assignment>) -> Result<Native, Error> {
        let index = self.index(threads)?;
        let mut slot = self.native.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(native) = slot.as_ref().filter(|native| native.runs_on(devices)) {
            return Ok(native.clone());
        }
        // The tables for other devices go first: both may not fit.
        *slot = None;
        let native = Native::new(index, Arc::clone(devices)).map_err(|error| self.failed(error))?;
        Ok(slot.insert(native).clone())
    }

    /// Drops the engine if tables of it lie on a device that does not use them any more.
    pub(super) fn drop_idle_tables(&self) {
        let mut slot = self.native.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = slot.take().filter(|native| !native.has_idle_tables());
    }

    /// The engine `name` for this reference; the kernels of our own run where `devices` says.
    pub fn engine(
        &self,
        name: &str,
        threads: usize,
        devices: &Arc<Assignment>,
        external: &[crate::engine::external::ExternalSettings],
    ) -> Result<Box<dyn Engine>, Error> {
        if name == "native" {
            return Ok(Box::new(self.native(threads, devices)?));
        }
        match external.iter().find(|engine| engine.name == name) {
            Some(settings) => Ok(Box::new(External::new(settings.clone()))),
            None => Err(Error::NotConfigured {
                what: "engine",
                name: name.into(),
                known: ["native".to_owned()]
                    .into_iter()
                    .chain(external.iter().map(|engine| engine.name.clone()))
                    .collect(),
            }),
        }
    }
}

impl Site {
    /// The reference `name`, loaded at most once.
    pub fn reference(&self, name: &str) -> Result<Arc<LoadedReference>, Error> {
        let mut loaded = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reference) = loaded.get(name) {
            return Ok(reference.clone());
        }
        let settings = self.settings.reference.iter().find(|reference| reference.name == name);
        let settings = settings.ok_or_else(|| Error::NotConfigured {
            what: "reference",
            name: name.into(),
            known: self.settings.reference.iter().map(|reference| reference.name.clone()).collect(),
        })?;
        let reference = Arc::new(LoadedReference::read(settings)?);
        loaded.insert(name.into(), reference.clone());
        Ok(reference)
    }

    /// Worker threads of the engine.
    pub fn threads(&self) -> usize {
        match self.settings.engine.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}
