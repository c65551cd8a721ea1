//! Every kernel on every device of this machine, beside what bounds it.
//!
//! `cargo bench --bench kernels`. Kernels over bytes are told in bytes *moved*, read and written, so that their
//! rates stand directly beside that of `copy`: 2 for each byte of a copy, 3 for one that is changed in place
//! by another text, 4 for one that is split. Others are told in cells, reads, seeds or operations.
//! `dsgd bench kernels` measures the same on all cores too, in turns, and tells the shares.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dsgd::device::measure::{Effort, each};
use dsgd::device::{BACKENDS, Open};

const EFFORT: Effort =
    Effort { bytes: 64 << 20, jobs: 2000, time: Duration::from_millis(500), limits: true };

fn kernels(criterion: &mut Criterion) {
    for (name, open) in BACKENDS {
        if let Err(error) = on_device(criterion, name, *open) {
            eprintln!("{error}");
        }
    }
}

fn on_device(criterion: &mut Criterion, name: &str, open: Open) -> Result<(), dsgd::device::Error> {
    let device = open()?;
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).measurement_time(EFFORT.time);
    each(device.as_ref(), EFFORT, |turn| {
        let amount = turn.amount as u64;
        group.throughput(if turn.bytes {
            Throughput::Bytes(amount)
        } else {
            Throughput::Elements(amount)
        });
        group.bench_function(turn.name, |bench| {
            bench.iter(|| (turn.run)().expect("a device that works"));
        });
    })?;
    group.finish();
    Ok(())
}

criterion_group!(benches, kernels);
criterion_main!(benches);
