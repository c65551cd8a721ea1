//! Kernels on every device of this machine, beside a plain copy of the same bytes.
//!
//! `cargo bench --features wgpu,cuda --bench kernels`; throughput counts the bytes of the secret, or
//! of the data under the pad.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dsgd::base::ShareLetter;
use dsgd::device::cpu::chacha20;
use dsgd::device::cpu::otp::{Hash, HashKey};
use dsgd::device::{BACKENDS, Queue};
use dsgd::kernel::otp::{Expansion, Pad};

/// A stripe, or the data of a frame: larger than the caches of one core.
const BYTES: usize = 8 << 20;
const PIECE_BYTES: usize = 1 << 20;

fn queues() -> Vec<(&'static str, Box<dyn Queue>)> {
    let open = |(name, open): &(&'static str, dsgd::device::Open)| {
        let queue = open().and_then(|device| device.queue(PIECE_BYTES));
        queue.map_err(|error| eprintln!("{error}")).ok().map(|queue| (*name, queue))
    };
    BACKENDS.iter().filter_map(open).collect()
}

fn kernels(criterion: &mut Criterion) {
    let (mut x, mut z) = (vec![0x5a_u8; BYTES], vec![0_u8; BYTES]);
    let y: Vec<u8> = (0..BYTES).map(|n| (n * 31) as u8).collect();
    let mut group = criterion.benchmark_group("kernels");
    group.throughput(Throughput::Bytes(BYTES as u64)).sample_size(10);
    group.bench_function("copy", |bench| bench.iter(|| black_box(&mut z).copy_from_slice(&y)));
    for (name, queue) in &mut queues() {
        group.bench_function(BenchmarkId::new("split", *name), |bench| {
            bench.iter(|| queue.split(&mut x, &y, &mut z).expect("a device that works"));
        });
        group.bench_function(BenchmarkId::new("restore", *name), |bench| {
            let letters = (ShareLetter::A, ShareLetter::C);
            bench.iter(|| queue.restore(&mut x, &y, letters).expect("a device that works"));
        });
        group.bench_function(BenchmarkId::new("xor", *name), |bench| {
            bench.iter(|| queue.xor(&mut x, &y).expect("a device that works"));
        });
    }
    let key = HashKey::new(&[7; 16]);
    group.bench_function(BenchmarkId::new("seal", "cpu"), |bench| {
        bench.iter(|| {
            let mut hash = Hash::new(&key);
            hash.seal(&mut x, &y);
            black_box(hash.finish())
        });
    });
    // Fig. 5: what is stored, with a key stream on it that is never in memory.
    let expansions = [Expansion::new(0, &[9; 32], 5)];
    group.bench_function(BenchmarkId::new("seal with Fig. 5", "cpu"), |bench| {
        bench.iter(|| {
            let mut hash = Hash::new(&key);
            hash.seal(&mut x, Pad::new(Some(&y), &expansions, BYTES));
            black_box(hash.finish())
        });
    });
    group.bench_function(BenchmarkId::new("chacha20", "cpu"), |bench| {
        bench.iter(|| chacha20::fill(&[7; 32], 0, black_box(&mut z)));
    });
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
