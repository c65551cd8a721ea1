//! What the trusted server does: restore, analyse, keep the calls as shares, filter, deliver.
//!
//! Reads and calls exist in clear only in this process's memory.

use std::path::Path;

use super::owner::{Holding, Placement};
use super::request::{AnalyseRequest, DeliverRequest, Reply, Request};
use super::{Error, LoadedReference, Site};
use crate::base::clock::Stopwatch;
use crate::base::{Chunk, JobId, ShareLetter, SiteId};
use crate::control::catalogue::Origin;
use crate::control::{Deposit, Role, State};
use crate::device::Kernel;
use crate::disclosure::{FilterOptions, FilterReport, Permit, Receipt, Timestamp, filter};
use crate::engine::Engine;
use crate::flow::{Flow, Meters, limiting_stage};
use crate::pipeline::analyse::{Analyse, AnalyseReport, Calls};
use crate::pipeline::deliver::{DeliverReport, Delivery, add_keys, add_origin};
use crate::pipeline::intake::{FlowReader, Source};
use crate::pipeline::share_out::ToShare;
use crate::store::remote::kind;

/// The shares of a deposit, the nearest first: the owner's own is at hand.
const ORDER: [ShareLetter; 3] = ShareLetter::ALL;

/// Bytes of a message that carries a part of a delivery.
const PART_BYTES: usize = 1 << 20;

impl Site {
    /// Restores a deposit of reads, calls its variants, and deposits the calls.
    pub fn analyse(
        &self,
        request: &AnalyseRequest,
        meters: &Meters,
    ) -> Result<AnalyseReport, Error> {
        if self.catalogue()?.find(&request.run)?.is_some_and(|run| run.state == State::Stored) {
            return Err(Error::Exists { name: request.run.to_string() });
        }
        let deposit = self.catalogue()?.stored(&request.sample)?;
        // Asked before the work: who cannot keep the calls should not compute them.
        let placement = self.placement(Holding::Two)?;
        let (calls, mut report) = self.call(&deposit, request, meters)?;
        let reference = self.reference(&request.reference)?;
        let origin = Origin {
            sample: request.sample.clone(),
            engine: report.engine.clone(),
            reference: reference.digest.clone(),
        };
        self.keep(request, &calls, placement, meters, origin)?;
        report.stages = meters.snapshot();
        report.limiting_stage =
            limiting_stage(&report.stages).map_or_else(String::new, |stage| stage.stage.clone());
        report.notices.splice(0..0, self.notices_with_devices());
        report.keys = self.link_use();
        Ok(report)
    }

    fn call(
        &self,
        deposit: &Deposit,
        request: &AnalyseRequest,
        meters: &Meters,
    ) -> Result<(Calls, AnalyseReport), Error> {
        let loaded = self.reference(&request.reference)?;
        let settings = &self.settings.engine;
        let engine = request.engine.as_deref().unwrap_or(&settings.name);
        let devices = self.devices()?;
        let engine = loaded.engine(engine, self.threads(), &devices, &settings.external)?;
        self.call_deposit(deposit, &loaded, &*engine, request.ploidy, meters)
    }

    /// Restores a deposit of reads and calls its variants.
    pub fn call_deposit(
        &self,
        deposit: &Deposit,
        loaded: &LoadedReference,
        engine: &dyn Engine,
        ploidy: u8,
        meters: &Meters,
    ) -> Result<(Calls, AnalyseReport), Error> {
        let restore = self.restore(deposit, &ORDER, meters)?;
        let analyse = Analyse {
            sample: &deposit.name,
            engine,
            reference: &loaded.reference,
            reference_path: &loaded.path,
            ploidy,
            haploid: None,
            gvcf: None,
            regions: None,
            threads: self.threads(),
            command_line: format!("dsgd run {} --reference {}", deposit.name, loaded.name),
            room: crate::engine::Room::default(),
            format: crate::engine::AlignmentFormat::Bam,
            meters,
        };
        std::thread::scope(|scope| {
            let mut sources = Vec::new();
            for (member, entry) in deposit.members.iter().enumerate() {
                let bytes = restore.start(scope, member)?;
                sources.push(Source { file: entry.file.clone(), role: entry.role, bytes });
            }
            let (calls, mut report) = analyse.run(scope, sources, None)?;
            report.devices.splice(0..0, restore.devices.described(&[Kernel::Restore]));
            Ok((calls, report))
        })
    }

    /// Deposits calls and their index.
    fn keep(
        &self,
        request: &AnalyseRequest,
        calls: &Calls,
        placement: Placement,
        meters: &Meters,
        origin: Origin,
    ) -> Result<(), Error> {
        let file = |extension: &str| format!("{}.{extension}", request.run);
        let source = |extension, role, bytes| ToShare {
            file: file(extension),
            role,
            bytes: in_memory("calls", bytes, meters),
            length: Some(bytes.len() as u64),
        };
        let sources = vec![
            source("vcf.gz", Role::Calls, &calls.vcf[..]),
            source("vcf.gz.tbi", Role::Other, &calls.tabix[..]),
        ];
        let complete = |deposit: &mut Deposit| deposit.origin = Some(origin);
        self.share_out(&request.run, sources, placement, meters, complete)?;
        Ok(())
    }

    /// Filters the calls of a run by a right, and delivers what is left.
    pub fn deliver(
        &self,
        request: &DeliverRequest,
        meters: &Meters,
    ) -> Result<DeliverReport, Error> {
        let permit = self.permit(&request.right, &request.user)?;
        let deposit = self.catalogue()?.stored(&request.run)?;
        let (vcf, filtered) = self.filter(&deposit, &permit, meters)?;
        let now = Timestamp::of(self.clock.since_epoch());
        let name = deposit.name.as_str();
        let mut receipt = Receipt::new(job(name)?, name, &permit, &filtered, now);
        add_origin(&mut receipt, &deposit);
        let sending = Stopwatch::start();
        self.send(&request.user, &Delivery::of(&receipt), &vcf)?;
        let transfer_seconds = sending.elapsed().as_secs_f64();
        let links = self.link_use();
        add_keys(&mut receipt, &deposit, &links);
        let folder = self.settings.state.join("receipts");
        let path = folder.join(format!("{}.json", receipt.job));
        write_new(&folder, &path, receipt.to_json().as_bytes())?;
        let notices = self.notices_with_devices();
        Ok(DeliverReport { receipt, filter: filtered, transfer_seconds, links, notices })
    }

    fn permit(&self, id: &str, user: &SiteId) -> Result<Permit, Error> {
        let right = self.settings.right.iter().find(|right| right.id == id);
        let right = right.ok_or_else(|| Error::NotConfigured {
            what: "right",
            name: id.into(),
            known: self.settings.right.iter().map(|right| right.id.clone()).collect(),
        })?;
        let permit = right.resolve()?;
        permit.check(user, self.clock.since_epoch())?;
        Ok(permit)
    }

    fn filter(
        &self,
        deposit: &Deposit,
        permit: &Permit,
        meters: &Meters,
    ) -> Result<(Vec<u8>, FilterReport), Error> {
        let restore = self.restore(deposit, &ORDER, meters)?;
        std::thread::scope(|scope| {
            let calls = FlowReader::new(restore.start(scope, 0)?);
            let options = FilterOptions { threads: self.threads(), ..FilterOptions::default() };
            let mut vcf = Vec::new();
            let report = filter(calls, permit, &options, &mut vcf)?;
            Ok((vcf, report))
        })
    }

    /// Sends bytes to an end user as a delivery is sent, and gives their digest: for measuring.
    pub fn transfer(&self, user: &SiteId, bytes: &[u8]) -> Result<String, Error> {
        let digest = blake3::hash(bytes).to_hex().to_string();
        let delivery = Delivery {
            job: job("transfer")?,
            right: String::new(),
            right_digest: String::new(),
            bytes: bytes.len() as u64,
            digest: digest.clone(),
            records: 0,
            delivered: Timestamp::of(self.clock.since_epoch()),
        };
        self.send(user, &delivery, bytes)?;
        Ok(digest)
    }

    fn send(&self, user: &SiteId, delivery: &Delivery, vcf: &[u8]) -> Result<(), Error> {
        let mut connection = self.dialer(user)?.dial()?;
        let request = Request::Receive(delivery.clone());
        let text = serde_json::to_vec(&request).expect("requests are plain data");
        connection.send(kind::REQUEST, &text)?;
        for part in vcf.chunks(PART_BYTES) {
            connection.send_chunk(kind::STRIPE, Chunk::from_bytes(0, part))?;
        }
        let answer = connection.receive()?;
        let protocol = || Error::Protocol { peer: user.clone() };
        let answer = answer.filter(|message| message.kind == kind::REPLY).ok_or_else(protocol)?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Reply::Received(digest)) if digest == delivery.digest => {
                connection.close()?;
                Ok(())
            }
            Ok(Reply::Received(_)) => Err(Error::Digest { peer: user.clone() }),
            Ok(Reply::Failed(source)) => Err(Error::Peer { peer: user.clone(), source }),
            _ => Err(protocol()),
        }
    }
}

/// A fresh identifier that begins with as much of `name` as there is room for.
fn job(name: &str) -> Result<JobId, Error> {
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(|_| crate::control::Error::Random)?;
    let name = &name[..name.len().min(40)];
    let id = format!("{name}-{:016x}", u64::from_le_bytes(salt));
    Ok(id.parse().expect("a name and hexadecimal digits make an identifier"))
}

/// Writes a file into a folder that is made if it is not there.
pub(super) fn write_new(folder: &Path, path: &Path, text: &[u8]) -> Result<(), Error> {
    std::fs::create_dir_all(folder)
        .and_then(|()| crate::io::replace_file(path, text))
        .map_err(|source| Error::File { path: path.into(), source })
}

fn in_memory<'a>(name: &'static str, bytes: &'a [u8], meters: &Meters) -> Flow<'a, Chunk> {
    let parts = bytes.chunks(PART_BYTES);
    Flow::source(meters, name, parts.zip(0..).map(|(part, seq)| Ok(Chunk::from_bytes(seq, part))))
}
