//! A device that counts what is launched on it, and is lost when it is told to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use dsgd::device::conformance::double::{Double, Given};
use dsgd::device::table::Resident;
use dsgd::device::{Device, Error, Kernel, Queue};

/// What happened to a device.
#[derive(Clone, Default)]
pub struct Watch(Arc<Counts>);

#[derive(Default)]
struct Counts {
    launches: [AtomicUsize; Kernel::ALL.len()],
    left: AtomicUsize,
}

impl Watch {
    /// Counts anew; after so many launches the device is lost.
    pub fn begin(&self, lost_after: usize) {
        self.0.left.store(lost_after, SeqCst);
        self.0.launches.iter().for_each(|count| count.store(0, SeqCst));
    }

    /// Launches of all kernels.
    pub fn launches(&self) -> usize {
        Kernel::ALL.into_iter().map(|kernel| self.launches_of(kernel)).sum()
    }

    /// Launches of one kernel.
    pub fn launches_of(&self, kernel: Kernel) -> usize {
        self.0.launches[kernel as usize].load(SeqCst)
    }

    fn launch(&self, device: &'static str, kernel: Kernel) -> Result<(), Error> {
        let less = |left: usize| left.checked_sub(1);
        if self.0.left.fetch_update(SeqCst, SeqCst, less).is_err() {
            return Err(Error::Failed { device, step: "go on", source: "it was lost".into() });
        }
        self.0.launches[kernel as usize].fetch_add(1, SeqCst);
        Ok(())
    }
}

/// A device under watch.
pub struct Watched {
    device: Arc<dyn Device>,
    watch: Watch,
}

impl Watched {
    /// Watches a device.
    pub fn over(device: &Arc<dyn Device>, watch: &Watch) -> Box<dyn Device> {
        Box::new(Self { device: Arc::clone(device), watch: watch.clone() })
    }
}

impl Device for Watched {
    fn name(&self) -> &'static str {
        self.device.name()
    }

    fn model(&self) -> String {
        self.device.model()
    }

    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        let (queue, watch, name) =
            (self.device.queue(piece_bytes)?, self.watch.clone(), self.name());
        let hook = move |kernel: Kernel, _: Given<'_>| watch.launch(name, kernel);
        Ok(Box::new(Double { queue, hook }))
    }

    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
        // A table of the CPU's says that it is the CPU's; that of a second one is another.
        let table = self.device.table(parts)?;
        Ok(if self.name() == "cpu" { Arc::new("another") } else { table })
    }

    fn has(&self, kernel: Kernel) -> bool {
        self.device.has(kernel)
    }

    fn is_simulated(&self) -> bool {
        self.device.is_simulated()
    }

    fn room(&self, wanted: u64) -> u64 {
        self.device.room(wanted)
    }
}
