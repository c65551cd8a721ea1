//! Whatever has a Vulkan driver, by compute shaders: `shaders/<kernel>.wgsl`.
//!
//! Asks for no more than the default limits of WebGPU, so any driver that has it at all will do, a
//! software one too: that is where the tests run. Whatever a driver complains about becomes an [`Error`] of the
//! worker that asked, by error scopes, which are those of a thread; the library's panic when a device is lost
//! is caught, and nobody asks that device again.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use wgpu::{BufferUsages, MapMode, PollType};

use super::lane::{
    Ability, COLUMNS, FUNCTIONS, Function, Lane, Lanes, Launch, VECTOR_BYTES, stride,
};
use super::table::Resident;
use super::{Device, Error, Queue};
use crate::base::foreign;

const NAME: &str = "wgpu";
/// Bytes of the shaders' `Plan`.
const PLAN_BYTES: usize = 16;

/// The kernels, in the order of [`FUNCTIONS`].
const SOURCES: [&str; FUNCTIONS.len()] = [
    include_str!("../../shaders/xor.wgsl"),
    include_str!("../../shaders/share.wgsl"),
    include_str!("../../shaders/otp.wgsl"),
    include_str!("../../shaders/align.wgsl"),
    include_str!("../../shaders/pairhmm.wgsl"),
    include_str!("../../shaders/pack.wgsl"),
    include_str!("../../shaders/ungapped.wgsl"),
    include_str!("../../shaders/lookup.wgsl"),
];

/// A graphics device with its kernels.
struct Gpu {
    model: String,
    /// Whether its driver computes on this machine's processor.
    is_software: bool,
    device: wgpu::Device,
    queue: wgpu::Queue,
    bindings: wgpu::BindGroupLayout,
    layout: wgpu::PipelineLayout,
    /// In the order of [`FUNCTIONS`], each compiled when it is first used: a start does not wait for kernels
    /// that nothing is done with.
    pipelines: [OnceLock<wgpu::ComputePipeline>; FUNCTIONS.len()],
    /// Why nobody asks it any more.
    lost: Arc<Mutex<Option<String>>>,
}

/// Opens the fastest device that a Vulkan driver offers.
pub(super) fn open() -> Result<Box<dyn Device>, Error> {
    Ok(Box::new(some_gpu()?))
}

fn some_gpu() -> Result<Arc<Gpu>, Error> {
    let mut wanted = wgpu::InstanceDescriptor::new_without_display_handle();
    wanted.backends = wgpu::Backends::VULKAN;
    let instance = wgpu::Instance::new(wanted);
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = pollster::block_on(instance.request_adapter(&options))
        .map_err(|error| Error::absent(NAME, error.to_string()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default()))
        .map_err(|error| Error::absent(NAME, error.to_string()))?;
    Ok(Arc::new(Gpu::new(adapter.get_info(), device, queue)))
}

impl Gpu {
    fn new(info: wgpu::AdapterInfo, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let lost = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&lost);
        device.set_device_lost_callback(move |_, reason| lose(&keep, reason));
        let keep = Arc::clone(&lost);
        // Nobody knows whose work it hit.
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lose(&keep, error.to_string());
        }));
        let bindings = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &[
                binding(0, wgpu::BufferBindingType::Storage { read_only: false }),
                binding(1, wgpu::BufferBindingType::Uniform),
                binding(2, wgpu::BufferBindingType::Storage { read_only: true }),
            ],
        });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&bindings)],
            immediate_size: 0,
        });
        let is_software = info.device_type == wgpu::DeviceType::Cpu;
        let (model, pipelines) = (info.name, [const { OnceLock::new() }; FUNCTIONS.len()]);
        Self { model, is_software, device, queue, bindings, layout, pipelines, lost }
    }

    /// A kernel, compiled.
    fn pipeline(&self, function: Function) -> &wgpu::ComputePipeline {
        self.pipelines[function as usize].get_or_init(|| {
            let source = SOURCES[function as usize].into();
            let source = wgpu::ShaderModuleDescriptor {
                label: Some(FUNCTIONS[function as usize]),
                source: wgpu::ShaderSource::Wgsl(source),
            };
            self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: Some(&self.layout),
                module: &self.device.create_shader_module(source),
                entry_point: None,
                compilation_options: Default::default(),
                cache: None,
            })
        })
    }

    /// The buffers of one launch: memory, plan and table.
    fn bind(&self, buffers: [&wgpu::Buffer; 3]) -> wgpu::BindGroup {
        let entry = |binding: usize| wgpu::BindGroupEntry {
            binding: binding as u32,
            resource: buffers[binding].as_entire_binding(),
        };
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.bindings,
            entries: &[0, 1, 2].map(entry),
        })
    }

    /// Does a step on the device, which asks for up to `bytes` of memory, and takes all that goes wrong.
    ///
    /// Errors: what the step gives; before that, what the driver complains of meanwhile on this thread; that
    /// the device is lost, now or before, when the step may not have been done.
    fn asked<T>(
        &self,
        step: &'static str,
        bytes: usize,
        act: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.there(step)?;
        // Those of memory are asked last: the others may follow from them.
        let filters = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let others = filters.map(|filter| self.device.push_error_scope(filter));
        let done = foreign::caught(act).unwrap_or_else(|| {
            lose(&self.lost, "its library gave up".into());
            Err(Error::failed(NAME, step)("its library gave up"))
        });
        let [internal, validation] = others;
        let complaint = pollster::block_on(validation.pop()).or(pollster::block_on(internal.pop()));
        if pollster::block_on(memory.pop()).is_some() {
            return Err(Error::NoMemory { device: NAME, piece_bytes: bytes });
        }
        self.there(step)?;
        match complaint {
            None => done,
            Some(complaint) => Err(Error::failed(NAME, step)(complaint.to_string())),
        }
    }

    /// Errors: that it is lost.
    fn there(&self, step: &'static str) -> Result<(), Error> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.as_ref().map_or(Ok(()), |reason| Err(Error::failed(NAME, step)(reason.clone())))
    }

    /// Whether there is as much memory, by taking it and giving it back.
    fn could_take(&self, bytes: u64) -> bool {
        const BUFFER_BYTES: u64 = 256 << 20;
        let take = || {
            let buffer = |number| {
                self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size: BUFFER_BYTES.min(bytes - number * BUFFER_BYTES).next_multiple_of(4),
                    usage: BufferUsages::STORAGE,
                    mapped_at_creation: false,
                })
            };
            let buffers: Vec<_> = (0..bytes.div_ceil(BUFFER_BYTES)).map(buffer).collect();
            buffers.iter().for_each(wgpu::Buffer::destroy);
            // Destroyed buffers are given back when the device is looked after.
            let _ = self.device.poll(PollType::Poll);
            Ok(())
        };
        self.asked("take memory", bytes as usize, take).is_ok()
    }
}

/// Writes down why a device is lost; the first reason counts.
fn lose(lost: &Mutex<Option<String>>, reason: String) {
    lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
}

fn binding(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

impl Device for Arc<Gpu> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn model(&self) -> String {
        self.model.clone()
    }

    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        let limits = self.device.limits();
        let groups = limits.max_compute_workgroups_per_dimension as usize;
        let most = (limits.max_storage_buffer_binding_size as usize / COLUMNS)
            .min(groups * Function::Share.block() as usize * VECTOR_BYTES);
        let column_bytes =
            stride(piece_bytes.clamp(1, most)).min(most / VECTOR_BYTES * VECTOR_BYTES);
        let lane = || match GpuLane::new(self, column_bytes) {
            Err(Error::NoMemory { device, .. }) => Err(Error::NoMemory { device, piece_bytes }),
            lane => lane,
        };
        let lanes = [lane()?, lane()?];
        Ok(Box::new(Lanes::new(lanes, column_bytes, Ability::WGSL)))
    }

    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
        let bytes = 4 * parts.iter().map(|part| part.len()).sum::<usize>().max(1);
        if bytes > self.table_bytes_max() {
            let reason = format!("{bytes} bytes are more than a binding can have");
            return Err(Error::failed(NAME, "take a table")(reason));
        }
        let step = "take a table";
        let taken = self.asked(step, bytes, || {
            let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: bytes as u64,
                usage: BufferUsages::STORAGE,
                mapped_at_creation: true,
            });
            let mut mapped = buffer.get_mapped_range_mut(..).map_err(Error::failed(NAME, step))?;
            let mut at = 0;
            for part in parts {
                let part: &[u8] = bytemuck::cast_slice(part);
                mapped.slice(at..at + part.len()).copy_from_slice(part);
                at += part.len();
            }
            drop(mapped);
            buffer.unmap();
            Ok(Arc::new(buffer) as Resident)
        });
        taken.map_err(|error| match error {
            Error::NoMemory { device, .. } => Error::NoTable { device, table_bytes: bytes },
            error => error,
        })
    }

    fn table_bytes_max(&self) -> usize {
        let limits = self.device.limits();
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) as usize
    }

    fn is_simulated(&self) -> bool {
        self.is_software
    }

    /// A driver does not say what is free: what can be taken now, with a quarter more, is.
    fn room(&self, wanted: u64) -> u64 {
        let mut room = wanted;
        while room > 0 && !self.could_take(room + room / 4) {
            room /= 2;
        }
        room
    }
}

/// Buffers for one piece or batch.
struct GpuLane {
    gpu: Arc<Gpu>,
    /// Mapped while no work is on its way: the inputs, then the plan.
    upload: wgpu::Buffer,
    memory: wgpu::Buffer,
    plan: wgpu::Buffer,
    download: wgpu::Buffer,
    /// Of kernels that read no table, which see a few zeros instead.
    bound: wgpu::BindGroup,
    running: Option<Running>,
}

/// Work on its way.
struct Running {
    submission: wgpu::SubmissionIndex,
    /// Whether `upload` and `download` could be mapped, one message each.
    mapped: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    /// Bytes of results.
    down: u64,
}

impl GpuLane {
    fn new(gpu: &Arc<Gpu>, column_bytes: usize) -> Result<Self, Error> {
        let buffer = |bytes: usize, usage: BufferUsages| {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: bytes as u64,
                usage,
                mapped_at_creation: usage.contains(BufferUsages::MAP_WRITE),
            })
        };
        let bytes = COLUMNS * column_bytes;
        gpu.asked("take memory", 3 * bytes, || {
            let upload =
                buffer(bytes + PLAN_BYTES, BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC);
            let both = BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
            let memory = buffer(bytes, BufferUsages::STORAGE | both);
            let plan = buffer(PLAN_BYTES, BufferUsages::UNIFORM | BufferUsages::COPY_DST);
            let download = buffer(bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST);
            let zeros = buffer(PLAN_BYTES, BufferUsages::STORAGE);
            let bound = gpu.bind([&memory, &plan, &zeros]);
            Ok(Self { gpu: Arc::clone(gpu), upload, memory, plan, download, bound, running: None })
        })
    }

    /// [`Gpu::asked`] for a step of this lane, which takes as much memory as it has.
    fn asked<T>(
        &self,
        step: &'static str,
        act: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.gpu.asked(step, self.memory.size() as usize, act)
    }

    /// Sends off what lies in `upload`.
    fn submit(&self, launch: &Launch) -> Running {
        let plan_at = self.upload.size() - PLAN_BYTES as u64;
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.upload, 0, &self.memory, 0, launch.up as u64);
        encoder.copy_buffer_to_buffer(&self.upload, plan_at, &self.plan, 0, PLAN_BYTES as u64);
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(self.gpu.pipeline(launch.function));
        let bound = launch.table.as_ref().map(|table| {
            let table = table.downcast_ref().expect("a table of this device");
            self.gpu.bind([&self.memory, &self.plan, table])
        });
        pass.set_bind_group(0, bound.as_ref().unwrap_or(&self.bound), &[]);
        pass.dispatch_workgroups(launch.threads.div_ceil(launch.function.block()), 1, 1);
        drop(pass);
        let (from, down) = (launch.down.start as u64, launch.down.len() as u64);
        encoder.copy_buffer_to_buffer(&self.memory, from, &self.download, 0, down);
        let submission = self.gpu.queue.submit([encoder.finish()]);

        let (sender, mapped) = mpsc::channel();
        let report = sender.clone();
        self.upload.map_async(MapMode::Write, .., move |outcome| {
            let _ = report.send(outcome);
        });
        self.download.map_async(MapMode::Read, ..down, move |outcome| {
            let _ = sender.send(outcome);
        });
        Running { submission, mapped, down }
    }

    /// Waits until `upload` and `download` are mapped.
    fn wait(&self, running: &Running) -> Result<(), Error> {
        let step = "finish work";
        let submission_index = Some(running.submission.clone());
        let wait = PollType::Wait { submission_index, timeout: None };
        self.gpu.device.poll(wait).map_err(Error::failed(NAME, step))?;
        for _ in 0..2 {
            // The messages come from the thread that saw the work end, which may be another's.
            let outcome = loop {
                match running.mapped.recv_timeout(Duration::from_millis(100)) {
                    Err(mpsc::RecvTimeoutError::Timeout) => self.gpu.there(step)?,
                    outcome => break outcome.map_err(Error::failed(NAME, step))?,
                }
            };
            outcome.map_err(Error::failed(NAME, step))?;
        }
        Ok(())
    }
}

impl Lane for GpuLane {
    fn start<'a>(
        &mut self,
        launch: &Launch,
        inputs: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<(), Error> {
        let [first, second, third] = launch.numbers;
        let (step, plan) = ("start work", [first, second, third, 0]);
        let mut running = None;
        let started = self.asked(step, || {
            let mut upload =
                self.upload.get_mapped_range_mut(..).map_err(Error::failed(NAME, step))?;
            let plan_at = self.upload.size() as usize - PLAN_BYTES;
            upload.slice(plan_at..).copy_from_slice(bytemuck::cast_slice(&plan));
            for (at, input) in inputs {
                upload.slice(at..at + input.len()).copy_from_slice(input);
            }
            drop(upload);
            self.upload.unmap();
            running = Some(self.submit(launch));
            Ok(())
        });
        // Also when the driver complained: what lies in the buffers is to be wiped.
        self.running = running;
        started
    }

    fn finish<'a>(
        &mut self,
        outputs: impl Iterator<Item = (usize, &'a mut [u8])>,
    ) -> Result<(), Error> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let step = "finish work";
        let finished = self.asked(step, || {
            self.wait(&running)?;
            let results = self.download.get_mapped_range(..running.down);
            let results = results.map_err(Error::failed(NAME, step))?;
            for (at, output) in outputs {
                output.copy_from_slice(&results[at..at + output.len()]);
            }
            Ok(())
        });
        // Whatever came of it: a buffer that stays mapped could be neither used again nor wiped.
        let unmapped = self.asked(step, || {
            self.download.unmap();
            Ok(())
        });
        finished.and(unmapped)
    }
}

/// Key bytes and genomes stay in no buffer. Each is wiped by itself: a device that refuses one may do others.
impl Drop for GpuLane {
    fn drop(&mut self) {
        let _ = self.finish(std::iter::empty());
        let wipe = "be wiped";
        let _ = self.asked(wipe, || {
            let mut upload =
                self.upload.get_mapped_range_mut(..).map_err(Error::failed(NAME, wipe))?;
            upload.slice(..).fill(0);
            drop(upload);
            self.upload.unmap();
            Ok(())
        });
        for buffer in [&self.memory, &self.download] {
            let _ = self.asked(wipe, || {
                let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
                encoder.clear_buffer(buffer, 0, None);
                self.gpu.queue.submit([encoder.finish()]);
                Ok(())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the driver refuses of one worker is an error of that worker, and of no other.
    #[test]
    fn complaints_go_to_whoever_asked() {
        let gpu = match some_gpu() {
            Ok(gpu) => gpu,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        // No buffer may be both: refused, but no reason to give the device up.
        let refused = |worker: usize| {
            gpu.asked("bind", 0, || {
                let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size: 16,
                    usage: BufferUsages::MAP_READ | BufferUsages::MAP_WRITE,
                    mapped_at_creation: false,
                });
                drop(buffer);
                Ok(worker)
            })
        };
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            let work = |worker| {
                let (gpu, barrier) = (&gpu, &barrier);
                scope.spawn(move || {
                    for _ in 0..50 {
                        barrier.wait();
                        match worker % 2 {
                            0 => assert!(refused(worker).is_err()),
                            _ => assert_eq!(gpu.asked("wait", 0, || Ok(worker)).unwrap(), worker),
                        }
                    }
                })
            };
            (0..4).for_each(|worker| drop(work(worker)));
        });
        assert!(gpu.there("go on").is_ok());
        let panicked =
            gpu.asked("panic", 0, || -> Result<(), Error> { panic!("as the library does") });
        assert!(panicked.is_err() && gpu.there("go on").is_err());
        assert!(gpu.asked("go on", 0, || Ok(())).is_err() && gpu.queue(4096).is_err());
    }
}
