//! Whatever has a Vulkan driver, by compute shaders: `shaders/<kernel>.wgsl`.
//!
//! Asks for no more than the default limits of WebGPU, so any driver that has it at all will do, a
//! software one too: that is where the tests run. Everything a driver can complain about becomes an
//! [`Error`]; the library's own way, a panic, is switched off.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use wgpu::{BufferUsages, MapMode, PollType};

use super::lane::{
    Ability, COLUMNS, FUNCTIONS, Function, Lane, Lanes, Launch, VECTOR_BYTES, stride,
};
use super::table::Resident;
use super::{Device, Error, Queue};

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
    /// The first complaint since it was last asked for.
    complaint: Arc<Mutex<Option<wgpu::Error>>>,
}

/// Opens the fastest device that a Vulkan driver offers.
pub(super) fn open() -> Result<Box<dyn Device>, Error> {
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
    let gpu = Gpu::new(adapter.get_info(), device, queue);
    Ok(Box::new(Arc::new(gpu)))
}

impl Gpu {
    fn new(info: wgpu::AdapterInfo, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let complaint = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&complaint);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            keep.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
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
        Self { model, is_software, device, queue, bindings, layout, pipelines, complaint }
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

    /// Whether there is as much memory, by taking it and giving it back.
    fn could_take(&self, bytes: u64) -> bool {
        const BUFFER_BYTES: u64 = 256 << 20;
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffers: Vec<_> = (0..bytes.div_ceil(BUFFER_BYTES))
            .map(|number| {
                self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size: BUFFER_BYTES.min(bytes - number * BUFFER_BYTES).next_multiple_of(4),
                    usage: BufferUsages::STORAGE,
                    mapped_at_creation: false,
                })
            })
            .collect();
        let lacks = pollster::block_on(scope.pop()).is_some();
        buffers.iter().for_each(wgpu::Buffer::destroy);
        // Destroyed buffers are given back when the device is looked after.
        let _ = self.device.poll(PollType::Poll);
        !lacks
    }

    /// Whether the driver complained since the last call.
    fn complaint(&self, step: &'static str) -> Result<(), Error> {
        match self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(wgpu::Error::OutOfMemory { .. }) => {
                Err(Error::NoMemory { device: NAME, piece_bytes: 0 })
            }
            Some(reason) => Err(Error::failed(NAME, step)(reason.to_string())),
        }
    }
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
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes as u64,
            usage: BufferUsages::STORAGE,
            mapped_at_creation: true,
        });
        let mut mapped =
            buffer.get_mapped_range_mut(..).map_err(Error::failed(NAME, "take a table"))?;
        let mut at = 0;
        for part in parts {
            let part: &[u8] = bytemuck::cast_slice(part);
            mapped.slice(at..at + part.len()).copy_from_slice(part);
            at += part.len();
        }
        drop(mapped);
        buffer.unmap();
        self.complaint("take a table")?;
        Ok(Arc::new(buffer))
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
        let upload = buffer(bytes + PLAN_BYTES, BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC);
        let both = BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let memory = buffer(bytes, BufferUsages::STORAGE | both);
        let plan = buffer(PLAN_BYTES, BufferUsages::UNIFORM | BufferUsages::COPY_DST);
        let download = buffer(bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST);
        let zeros = buffer(PLAN_BYTES, BufferUsages::STORAGE);
        let bound = gpu.bind([&memory, &plan, &zeros]);
        gpu.complaint("take memory")?;
        Ok(Self { gpu: Arc::clone(gpu), upload, memory, plan, download, bound, running: None })
    }
}

impl Lane for GpuLane {
    fn start<'a>(
        &mut self,
        launch: &Launch,
        inputs: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<(), Error> {
        let [first, second, third] = launch.numbers;
        let plan_at = self.upload.size() as usize - PLAN_BYTES;
        let mut upload =
            self.upload.get_mapped_range_mut(..).map_err(Error::failed(NAME, "be written to"))?;
        let plan = [first, second, third, 0];
        upload.slice(plan_at..).copy_from_slice(bytemuck::cast_slice(&plan));
        for (at, input) in inputs {
            upload.slice(at..at + input.len()).copy_from_slice(input);
        }
        drop(upload);
        self.upload.unmap();

        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.upload, 0, &self.memory, 0, launch.up as u64);
        encoder.copy_buffer_to_buffer(
            &self.upload,
            plan_at as u64,
            &self.plan,
            0,
            PLAN_BYTES as u64,
        );
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
        self.running = Some(Running { submission, mapped, down });
        self.gpu.complaint("start work")
    }

    fn finish<'a>(
        &mut self,
        outputs: impl Iterator<Item = (usize, &'a mut [u8])>,
    ) -> Result<(), Error> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let failed = "finish work";
        let wait = PollType::Wait { submission_index: Some(running.submission), timeout: None };
        self.gpu.device.poll(wait).map_err(Error::failed(NAME, failed))?;
        for outcome in running.mapped.iter().take(2) {
            outcome.map_err(Error::failed(NAME, failed))?;
        }
        self.gpu.complaint(failed)?;
        let results =
            self.download.get_mapped_range(..running.down).map_err(Error::failed(NAME, failed))?;
        for (at, output) in outputs {
            output.copy_from_slice(&results[at..at + output.len()]);
        }
        drop(results);
        self.download.unmap();
        Ok(())
    }
}

/// Key bytes and genomes stay in no buffer.
impl Drop for GpuLane {
    fn drop(&mut self) {
        if self.finish(std::iter::empty()).is_err() {
            return;
        }
        if let Ok(mut upload) = self.upload.get_mapped_range_mut(..) {
            upload.slice(..).fill(0);
        }
        self.upload.unmap();
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        for buffer in [&self.memory, &self.download] {
            encoder.clear_buffer(buffer, 0, None);
        }
        self.gpu.queue.submit([encoder.finish()]);
    }
}
