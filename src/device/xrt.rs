//! FPGA cards of AMD by XRT, with the kernels of `hls/` in an `xclbin` that Vitis has built.
//!
//! XRT's library is looked for at run time. The environment variable `DSGD_XCLBIN` names the card's
//! image. This **never ran on a card**: what runs is this host side against `hls/sim/xrt.cpp`, which has
//! the functions of XRT called here over the C simulation of the kernels.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;
use std::sync::Arc;

use libloading::{Library, Symbol};

use super::lane::{
    Ability, COLUMNS, FUNCTIONS, Function, Lane, Lanes, Launch, VECTOR_BYTES, stride,
};
use super::table::Resident;
use super::{Device, Error, Kernel, Queue};

const NAME: &str = "xrt";
const LIBRARY: &str = "libxrt_coreutil.so.2";
/// Names the card's image.
const IMAGE: &str = "DSGD_XCLBIN";
/// Parts of a buffer begin at multiples of this.
const PART_BYTES: usize = 4096;
/// Parts of a lane's buffer: kernels over columns read the first and write the others.
const PARTS: usize = 2 * COLUMNS;
/// The longest that a kernel may take.
const WAIT_MS: c_uint = 60_000;
/// `ERT_CMD_STATE_COMPLETED` of XRT's `ert.h`.
const COMPLETED: c_int = 4;
const TO_CARD: c_int = 0;
const FROM_CARD: c_int = 1;

type Handle = NonNull<c_void>;

/// The functions of XRT's C interface that are used here, with its library.
struct Xrt {
    device_open: unsafe extern "C" fn(c_uint) -> Option<Handle>,
    device_close: unsafe extern "C" fn(Handle) -> c_int,
    load_image: unsafe extern "C" fn(Handle, *const c_char) -> c_int,
    image_uuid: unsafe extern "C" fn(Handle, *mut u8) -> c_int,
    kernel_open: unsafe extern "C" fn(Handle, *const u8, *const c_char) -> Option<Handle>,
    kernel_close: unsafe extern "C" fn(Handle) -> c_int,
    kernel_group: unsafe extern "C" fn(Handle, c_int) -> c_int,
    buffer: unsafe extern "C" fn(Handle, usize, u64, u32) -> Option<Handle>,
    buffer_part: unsafe extern "C" fn(Handle, usize, usize) -> Option<Handle>,
    buffer_free: unsafe extern "C" fn(Handle) -> c_int,
    buffer_sync: unsafe extern "C" fn(Handle, c_int, usize, usize) -> c_int,
    buffer_write: unsafe extern "C" fn(Handle, *const c_void, usize, usize) -> c_int,
    buffer_read: unsafe extern "C" fn(Handle, *mut c_void, usize, usize) -> c_int,
    run_open: unsafe extern "C" fn(Handle) -> Option<Handle>,
    run_argument: unsafe extern "C" fn(Handle, c_int, ...) -> c_int,
    run_start: unsafe extern "C" fn(Handle) -> c_int,
    run_wait: unsafe extern "C" fn(Handle, c_uint) -> c_int,
    run_close: unsafe extern "C" fn(Handle) -> c_int,
    /// Last, so that it is there as long as the functions.
    _library: Library,
}

impl Xrt {
    /// Loads XRT; the error is the reason why not.
    fn load() -> Result<Self, String> {
        // SAFETY: runs what the library runs when loaded: XRT, which the operator installed.
        let library = unsafe { Library::new(LIBRARY) }
            .map_err(|error| format!("XRT is not installed: {error}"))?;
        // SAFETY: the types of the fields are those of XRT's headers, xrt_device.h, xrt_bo.h and
        // xrt_kernel.h.
        unsafe { Self::find(library) }
    }

    /// Finds the functions in the library.
    ///
    /// # Safety
    /// The types of the fields are those of the library's functions.
    unsafe fn find(library: Library) -> Result<Self, String> {
        // SAFETY: as the caller promises.
        let found = unsafe {
            Self {
                device_open: function(&library, "xrtDeviceOpen")?,
                device_close: function(&library, "xrtDeviceClose")?,
                load_image: function(&library, "xrtDeviceLoadXclbinFile")?,
                image_uuid: function(&library, "xrtDeviceGetXclbinUUID")?,
                kernel_open: function(&library, "xrtPLKernelOpen")?,
                kernel_close: function(&library, "xrtKernelClose")?,
                kernel_group: function(&library, "xrtKernelArgGroupId")?,
                buffer: function(&library, "xrtBOAlloc")?,
                buffer_part: function(&library, "xrtBOSubAlloc")?,
                buffer_free: function(&library, "xrtBOFree")?,
                buffer_sync: function(&library, "xrtBOSync")?,
                buffer_write: function(&library, "xrtBOWrite")?,
                buffer_read: function(&library, "xrtBORead")?,
                run_open: function(&library, "xrtRunOpen")?,
                run_argument: function(&library, "xrtRunSetArg")?,
                run_start: function(&library, "xrtRunStart")?,
                run_wait: function(&library, "xrtRunWaitFor")?,
                run_close: function(&library, "xrtRunClose")?,
                _library: library,
            }
        };
        Ok(found)
    }
}

/// A function of the library.
///
/// # Safety
/// `T` is the type of the function of that name.
unsafe fn function<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
    // SAFETY: as the caller promises.
    let symbol: Result<Symbol<'_, T>, _> = unsafe { library.get(name.as_bytes()) };
    symbol.map(|symbol| *symbol).map_err(|error| format!("XRT has no {name}: {error}"))
}

/// The first card, with its image loaded.
struct Card {
    xrt: Xrt,
    device: Handle,
    /// In the order of [`Ability::HLS`].
    kernels: Vec<Handle>,
}

// SAFETY: XRT's handles may be used from any thread; two threads use no run or buffer at a time, since
// each belongs to a lane.
unsafe impl Send for Card {}
// SAFETY: as above.
unsafe impl Sync for Card {}

/// Opens the first card and loads its image.
pub(super) fn open() -> Result<Box<dyn Device>, Error> {
    let absent = |reason: String| Error::absent(NAME, reason);
    let image = std::env::var_os(IMAGE).ok_or_else(|| absent(format!("{IMAGE} names no image")))?;
    let image = CString::new(image.as_bytes()).map_err(|error| absent(error.to_string()))?;
    Ok(Box::new(Arc::new(Card::open(&image).map_err(absent)?)))
}

impl Card {
    fn open(image: &CString) -> Result<Self, String> {
        let xrt = Xrt::load()?;
        // SAFETY: plain calls of XRT; the handle is that of the device just opened.
        let device = unsafe { (xrt.device_open)(0) }.ok_or("XRT finds no card")?;
        let mut card = Self { xrt, device, kernels: Vec::new() };
        // SAFETY: `image` is a C string.
        if unsafe { (card.xrt.load_image)(device, image.as_ptr()) } != 0 {
            return Err(format!("the image {} cannot be loaded", image.to_string_lossy()));
        }
        let mut uuid = [0; 16];
        // SAFETY: the identifier has 16 bytes.
        if unsafe { (card.xrt.image_uuid)(device, uuid.as_mut_ptr()) } != 0 {
            return Err("the image has no identifier".into());
        }
        for function in Ability::HLS.functions {
            let name = FUNCTIONS[*function as usize];
            let named = CString::new(name).map_err(|error| error.to_string())?;
            // SAFETY: identifier and name live until the call returns.
            let kernel = unsafe { (card.xrt.kernel_open)(device, uuid.as_ptr(), named.as_ptr()) };
            card.kernels.push(kernel.ok_or_else(|| format!("the image has no kernel {name}"))?);
        }
        Ok(card)
    }
}

impl Card {
    /// A buffer of the card's memory, if there is as much.
    fn take(&self, bytes: usize) -> Result<Option<Handle>, Error> {
        // SAFETY: the kernel is the card's. All kernels are linked to one bank: hls/link.cfg.
        let group = unsafe { (self.xrt.kernel_group)(self.kernels[0], 0) };
        let group = u32::try_from(group).map_err(|_| failed("take memory", "no memory bank"))?;
        // SAFETY: the device is the card's.
        Ok(unsafe { (self.xrt.buffer)(self.device, bytes, 0, group) })
    }

    /// Whether there is as much memory, by taking it and giving it back.
    fn could_take(&self, bytes: u64) -> bool {
        let buffer = usize::try_from(bytes).ok().and_then(|bytes| self.take(bytes).ok()?);
        if let Some(buffer) = buffer {
            // SAFETY: just taken, and used by nobody.
            unsafe { (self.xrt.buffer_free)(buffer) };
        }
        buffer.is_some()
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        for kernel in &self.kernels {
            // SAFETY: opened by this card, and used by no lane any more: lanes keep the card.
            unsafe { (self.xrt.kernel_close)(*kernel) };
        }
        // SAFETY: likewise.
        unsafe { (self.xrt.device_close)(self.device) };
    }
}

impl Device for Arc<Card> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn model(&self) -> String {
        "the first card of XRT".into()
    }

    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        let column_bytes = stride(piece_bytes.clamp(1, 16 << 20));
        let lane = || CardLane::new(self, column_bytes);
        Ok(Box::new(Lanes::new([lane()?, lane()?], column_bytes, Ability::HLS)))
    }

    /// Nothing: no kernel here reads one.
    fn table(&self, _parts: &[&[u32]]) -> Result<Resident, Error> {
        Ok(Arc::new(()))
    }

    /// XRT does not say what is free: what can be taken now is.
    fn room(&self, wanted: u64) -> u64 {
        let mut room = wanted;
        while room > 0 && !self.could_take(room) {
            room /= 2;
        }
        room
    }

    fn has(&self, kernel: Kernel) -> bool {
        Ability::HLS.functions.contains(&Function::of(kernel))
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
enum Argument {
    /// A part of the lane's buffer.
    Part(usize),
    /// All of it.
    Whole,
    Number(u32),
}

/// What a launch means for XRT: where the inputs go, the kernel's arguments, where results come from.
struct Plan {
    /// Ranges of the lane's memory, each with its part.
    inputs: Vec<(std::ops::Range<usize>, usize)>,
    arguments: Vec<Argument>,
    /// Parts with the bytes that follow each other as the results.
    outputs: Vec<(usize, usize)>,
}

/// Words of 64 bytes.
fn words(bytes: usize) -> Argument {
    Argument::Number(bytes.div_ceil(64) as u32)
}

impl Plan {
    fn of(launch: &Launch) -> Self {
        use Argument::{Number, Part, Whole};
        let [first, second, third] = launch.numbers;
        let stride = first as usize * VECTOR_BYTES;
        let column = |at: usize| (at * stride..(at + 1) * stride, at);
        match launch.function {
            Function::Xor => Self {
                inputs: (0..2).map(column).collect(),
                arguments: vec![Part(0), Part(1), Part(COLUMNS), words(stride)],
                outputs: vec![(COLUMNS, stride)],
            },
            Function::Share => Self {
                inputs: (0..COLUMNS).map(column).collect(),
                arguments: (0..PARTS)
                    .map(Part)
                    .chain([words(stride), Number(second), Number(third)])
                    .collect(),
                outputs: (0..second as usize).map(|at| (COLUMNS + at, stride)).collect(),
            },
            Function::Otp => {
                let data = super::lane::stride(first as usize);
                let sums = second as usize * VECTOR_BYTES;
                let pad = data + sums + VECTOR_BYTES;
                Self {
                    inputs: vec![(0..data, 0), (pad..pad + data, 1), (data + sums..pad, 2)],
                    arguments: vec![
                        Part(0),
                        Part(1),
                        Part(2),
                        Part(COLUMNS),
                        Part(COLUMNS + 1),
                        Number(first),
                        Number(second),
                        Number(third),
                    ],
                    outputs: vec![(COLUMNS, data), (COLUMNS + 1, sums)],
                }
            }
            _ => Self {
                inputs: vec![(0..launch.up, 0)],
                arguments: vec![Whole, Whole, Number(first), Number(second)],
                outputs: vec![],
            },
        }
    }
}

/// A buffer in the card's memory, in parts, and its image in this machine's.
struct CardLane {
    card: Arc<Card>,
    buffer: Handle,
    parts: Vec<Handle>,
    part_bytes: usize,
    memory: Vec<u8>,
    running: Option<(Handle, Launch)>,
}

// SAFETY: as for the card.
unsafe impl Send for CardLane {}

/// What XRT gave when something went wrong.
fn failed(step: &'static str, what: &str) -> Error {
    Error::failed(NAME, step)(what.to_owned())
}

fn checked(status: c_int, step: &'static str, what: &str) -> Result<(), Error> {
    if status == 0 { Ok(()) } else { Err(failed(step, &format!("{what}: {status}"))) }
}

impl CardLane {
    fn new(card: &Arc<Card>, column_bytes: usize) -> Result<Self, Error> {
        let part_bytes = column_bytes.next_multiple_of(PART_BYTES);
        let no_memory = || Error::NoMemory { device: NAME, piece_bytes: column_bytes };
        let buffer = card.take(PARTS * part_bytes)?.ok_or_else(no_memory)?;
        let memory = vec![0; PARTS * part_bytes];
        let mut lane = Self {
            card: Arc::clone(card),
            buffer,
            parts: Vec::new(),
            part_bytes,
            memory,
            running: None,
        };
        for part in 0..PARTS {
            // SAFETY: the part lies within the buffer, on a multiple of a page.
            let part = unsafe { (card.xrt.buffer_part)(buffer, part_bytes, part * part_bytes) };
            lane.parts.push(part.ok_or_else(no_memory)?);
        }
        Ok(lane)
    }

    /// Copies `bytes` to the beginning of a part, and over all parts that follow.
    fn upload(&self, part: usize, bytes: &[u8]) -> Result<(), Error> {
        let at = part * self.part_bytes;
        // SAFETY: `at + bytes.len()` is within the buffer: `Lanes` makes no larger launch.
        let status = unsafe {
            (self.card.xrt.buffer_write)(self.buffer, bytes.as_ptr().cast(), bytes.len(), at)
        };
        checked(status, "start work", "xrtBOWrite")?;
        // SAFETY: likewise.
        let status = unsafe { (self.card.xrt.buffer_sync)(self.buffer, TO_CARD, bytes.len(), at) };
        checked(status, "start work", "xrtBOSync")
    }

    /// Copies bytes of the buffer from `at` on to `bytes`.
    fn download(&self, at: usize, bytes: &mut [u8]) -> Result<(), Error> {
        // SAFETY: the bytes lie within the buffer, as above.
        let status =
            unsafe { (self.card.xrt.buffer_sync)(self.buffer, FROM_CARD, bytes.len(), at) };
        checked(status, "finish work", "xrtBOSync")?;
        // SAFETY: likewise.
        let status = unsafe {
            (self.card.xrt.buffer_read)(self.buffer, bytes.as_mut_ptr().cast(), bytes.len(), at)
        };
        checked(status, "finish work", "xrtBORead")
    }

    /// Copies the results of a launch to where `Lanes` looks for them.
    fn fetch(&self, launch: &Launch, results: &mut [u8]) -> Result<(), Error> {
        let plan = Plan::of(launch);
        let mut end = launch.down.start;
        for (part, bytes) in &plan.outputs {
            self.download(part * self.part_bytes, &mut results[end..end + bytes])?;
            end += bytes;
        }
        if plan.outputs.is_empty() {
            self.download(launch.down.start, &mut results[launch.down.clone()])?;
        }
        Ok(())
    }

    fn run(&self, launch: &Launch, arguments: &[Argument]) -> Result<Handle, Error> {
        let kernel = Ability::HLS.functions.iter().position(|known| *known == launch.function);
        let kernel = kernel.map(|at| self.card.kernels[at]);
        let kernel = kernel.ok_or_else(|| failed("start work", "a kernel it does not have"))?;
        let xrt = &self.card.xrt;
        // SAFETY: the kernel is the card's.
        let run = unsafe { (xrt.run_open)(kernel) };
        let run = run.ok_or_else(|| failed("start work", "xrtRunOpen"))?;
        if let Err(error) = self.start_run(run, arguments) {
            // SAFETY: it did not start, and nobody else has it.
            unsafe { (xrt.run_close)(run) };
            return Err(error);
        }
        Ok(run)
    }

    fn start_run(&self, run: Handle, arguments: &[Argument]) -> Result<(), Error> {
        let xrt = &self.card.xrt;
        for (index, argument) in (0..).zip(arguments) {
            // SAFETY: the arguments have the types of the kernel's declaration in `hls/`.
            let status = unsafe {
                match *argument {
                    Argument::Part(part) => (xrt.run_argument)(run, index, self.parts[part]),
                    Argument::Whole => (xrt.run_argument)(run, index, self.buffer),
                    Argument::Number(number) => (xrt.run_argument)(run, index, number),
                }
            };
            checked(status, "start work", "xrtRunSetArg")?;
        }
        // SAFETY: all arguments are set.
        checked(unsafe { (xrt.run_start)(run) }, "start work", "xrtRunStart")
    }

    /// Waits for what runs, if anything does.
    fn wait(&mut self) -> Result<Option<Launch>, Error> {
        let Some((run, launch)) = self.running.take() else { return Ok(None) };
        // SAFETY: the run was started and not closed.
        let state = unsafe { (self.card.xrt.run_wait)(run, WAIT_MS) };
        // SAFETY: the run is used no more.
        unsafe { (self.card.xrt.run_close)(run) };
        if state != COMPLETED {
            return Err(failed("finish work", &format!("the kernel ended in state {state}")));
        }
        Ok(Some(launch))
    }
}

impl Lane for CardLane {
    fn start<'a>(
        &mut self,
        launch: &Launch,
        inputs: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<(), Error> {
        self.wait()?;
        for (at, input) in inputs {
            self.memory[..launch.up][at..at + input.len()].copy_from_slice(input);
        }
        let plan = Plan::of(launch);
        for (range, part) in plan.inputs {
            self.upload(part, &self.memory[range])?;
        }
        let run = self.run(launch, &plan.arguments)?;
        self.running = Some((run, launch.clone()));
        Ok(())
    }

    fn finish<'a>(
        &mut self,
        outputs: impl Iterator<Item = (usize, &'a mut [u8])>,
    ) -> Result<(), Error> {
        let Some(launch) = self.wait()? else { return Ok(()) };
        let mut results = std::mem::take(&mut self.memory);
        let fetched = self.fetch(&launch, &mut results);
        // It is wiped when the lane is dropped, also where a download failed.
        self.memory = results;
        fetched?;
        let from = launch.down.start;
        for (at, output) in outputs {
            output.copy_from_slice(&self.memory[from + at..from + at + output.len()]);
        }
        Ok(())
    }
}

/// Key bytes and genomes stay on neither side.
impl Drop for CardLane {
    fn drop(&mut self) {
        let _ = self.wait();
        self.memory.clear();
        self.memory.resize(PARTS * self.part_bytes, 0);
        let _ = self.upload(0, &self.memory);
        // SAFETY: parts before the whole; none is used any more.
        unsafe {
            for part in self.parts.drain(..) {
                (self.card.xrt.buffer_free)(part);
            }
            (self.card.xrt.buffer_free)(self.buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A lane of the simulated card, of which `spoil` changed functions; and the start of an XOR.
    fn lane(spoil: impl FnOnce(&mut Xrt)) -> Option<(CardLane, Launch)> {
        if std::env::var_os(IMAGE).is_none_or(|image| image != "simulated") {
            eprintln!("skipped: {IMAGE} does not name the simulated image");
            return None;
        }
        let mut card = Card::open(&CString::new("simulated").unwrap()).unwrap();
        spoil(&mut card.xrt);
        let launch = Launch {
            function: Function::Xor,
            threads: 4,
            numbers: [4, 1, 0],
            up: 128,
            down: 0..64,
            table: None,
            shared_words: 0,
        };
        Some((CardLane::new(&Arc::new(card), 64).unwrap(), launch))
    }

    fn start(lane: &mut CardLane, launch: &Launch) -> Result<(), Error> {
        lane.start(launch, [(0, &[7; 64][..]), (64, &[9; 64])].into_iter())
    }

    unsafe extern "C" fn only_to_card(_: Handle, direction: c_int, _: usize, _: usize) -> c_int {
        if direction == TO_CARD { 0 } else { -5 }
    }

    #[test]
    fn after_a_failed_download_the_lane_still_has_what_it_must_wipe() {
        let Some((mut lane, launch)) = lane(|xrt| xrt.buffer_sync = only_to_card) else { return };
        start(&mut lane, &launch).unwrap();
        let mut output = [0; 64];
        assert!(lane.finish([(0, &mut output[..])].into_iter()).is_err());
        assert_eq!(lane.memory.len(), PARTS * lane.part_bytes);
        assert_eq!(lane.memory[..128], [[7; 64], [9; 64]].concat());
    }

    unsafe extern "C" fn refuse(_: Handle) -> c_int {
        -5
    }

    static CLOSED: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C" fn count_closed(_: Handle) -> c_int {
        CLOSED.fetch_add(1, Ordering::Relaxed);
        0
    }

    #[test]
    fn a_run_that_does_not_start_is_closed() {
        let spoilt = lane(|xrt| (xrt.run_start, xrt.run_close) = (refuse, count_closed));
        let Some((mut lane, launch)) = spoilt else { return };
        assert!(start(&mut lane, &launch).is_err());
        assert_eq!(CLOSED.load(Ordering::Relaxed), 1);
        assert!(lane.running.is_none());
    }
}
