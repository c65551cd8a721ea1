//! Devices that are another program: a simulation of a card, spoken to through its pipes.
//!
//! A launch goes to the program as eight words of 32 bits (which kernel, its threads, its three
//! numbers, the first byte of the results, how many there are, the number of bytes of the inputs),
//! then the inputs; back come the results. Before a launch that needs another table than the last one
//! goes the table, with the kernel's number all ones. The program stays for many launches and ends when its
//! input does.
//!
//! The backend `fpga-sim` runs the C simulation of `hls/`, which `make -C hls/sim` builds, when the
//! environment variable `DSGD_FPGA_SIM` names it: right and slow, the job of a card before there is
//! one.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use super::lane::{Ability, COLUMNS, Function, Lane, Lanes, Launch, VECTOR_BYTES, stride};
use super::table::Resident;
use super::{Device, Error, Kernel, Queue};

const NAME: &str = "fpga-sim";
/// Stands for the kernel before a table.
const TABLE: u32 = u32::MAX;
/// Names the program that simulates the card.
const PROGRAM: &str = "DSGD_FPGA_SIM";

/// A device that is a program.
pub(super) struct Simulated {
    name: &'static str,
    program: PathBuf,
    ability: Ability,
}

/// Opens the simulated card.
pub(super) fn open_fpga_sim() -> Result<Box<dyn Device>, Error> {
    let program = std::env::var_os(PROGRAM)
        .ok_or_else(|| Error::absent(NAME, format!("{PROGRAM} names no program")))?;
    Ok(Box::new(Simulated::new(NAME, Path::new(&program), Ability::HLS)?))
}

impl Simulated {
    /// The device that `program` simulates, which can do that.
    pub(super) fn new(name: &'static str, program: &Path, ability: Ability) -> Result<Self, Error> {
        if program.is_file() {
            return Ok(Self { name, program: program.into(), ability });
        }
        Err(Error::absent(name, format!("there is no program {}", program.display())))
    }
}

impl Device for Simulated {
    fn name(&self) -> &'static str {
        self.name
    }

    fn model(&self) -> String {
        format!("simulation {}", self.program.display())
    }

    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        let least = self.ability.sealing.lanes.map_or(1, |lanes| lanes * VECTOR_BYTES);
        let column_bytes = stride(piece_bytes.clamp(least, 64 << 20));
        let lane = || ProcessLane::new(self, COLUMNS * column_bytes);
        Ok(Box::new(Lanes::new([lane()?, lane()?], column_bytes, self.ability)))
    }

    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
        Ok(Arc::new(parts.concat()))
    }

    fn has(&self, kernel: Kernel) -> bool {
        self.ability.functions.contains(&Function::of(kernel))
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

/// One running program.
struct ProcessLane {
    name: &'static str,
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
    memory: Vec<u8>,
    results: Vec<u8>,
    /// The table that the program has.
    table: Option<Resident>,
}

impl ProcessLane {
    fn new(device: &Simulated, memory_bytes: usize) -> Result<Self, Error> {
        let failed = Error::failed(device.name, "start its program");
        let mut child = Command::new(&device.program)
            .arg(memory_bytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (to, from) = pipes.expect("both pipes were asked for");
        let memory = vec![0; memory_bytes];
        Ok(Self { name: device.name, child, to, from, memory, results: Vec::new(), table: None })
    }

    fn send(&mut self, launch: &Launch) -> std::io::Result<()> {
        if let Some(table) = &launch.table
            && !self.table.as_ref().is_some_and(|known| Arc::ptr_eq(known, table))
        {
            let words: &Vec<u32> = table.downcast_ref().expect("a table of this device");
            let head = [TABLE, 0, 0, 0, 0, 0, 0, 4 * words.len() as u32];
            self.to.write_all(bytemuck::cast_slice(&head))?;
            self.to.write_all(bytemuck::cast_slice(words))?;
            self.table = Some(Arc::clone(table));
        }
        let [first, second, third] = launch.numbers;
        let (from, count) = (launch.down.start as u32, launch.down.len() as u32);
        let kernel = launch.function as u32;
        let head = [kernel, launch.threads, first, second, third, from, count, launch.up as u32];
        self.to.write_all(bytemuck::cast_slice(&head))?;
        self.to.write_all(&self.memory[..launch.up])?;
        self.to.flush()
    }
}

impl Lane for ProcessLane {
    fn start<'a>(
        &mut self,
        launch: &Launch,
        inputs: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<(), Error> {
        for (at, input) in inputs {
            self.memory[..launch.up][at..at + input.len()].copy_from_slice(input);
        }
        self.results.resize(launch.down.len(), 0);
        self.send(launch).map_err(Error::failed(self.name, "start work"))
    }

    fn finish<'a>(
        &mut self,
        outputs: impl Iterator<Item = (usize, &'a mut [u8])>,
    ) -> Result<(), Error> {
        self.from.read_exact(&mut self.results).map_err(Error::failed(self.name, "finish work"))?;
        for (at, output) in outputs {
            output.copy_from_slice(&self.results[at..at + output.len()]);
        }
        Ok(())
    }
}

/// The program is ended, not waited for: it may still compute what nobody wants any more.
impl Drop for ProcessLane {
    fn drop(&mut self) {
        self.memory.fill(0);
        self.results.fill(0);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
