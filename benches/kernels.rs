//! Kernels on every device of this machine, beside a plain copy of the same bytes.
//!
//! `cargo bench --features wgpu,cuda --bench kernels`; throughput counts the bytes of the secret or of the
//! data under the pad, and the states of alignments. `dsgd bench devices` has all kernels.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dsgd::base::ShareLetter;
use dsgd::device::cpu::chacha20;
use dsgd::device::cpu::otp::{Hash, HashKey};
use dsgd::device::{BACKENDS, Queue};
use dsgd::kernel::align::{Pair, Scores};
use dsgd::kernel::otp::{Expansion, Pad};

/// A stripe, or the data of a frame: larger than the caches of one core.
const BYTES: usize = 8 << 20;
const PIECE_BYTES: usize = 1 << 20;
const PAIRS: usize = 2000;
const READ_BASES: usize = 150;
const BAND: usize = 32;

fn queues() -> Vec<(&'static str, Box<dyn Queue>)> {
    let open = |(name, open): &(&'static str, dsgd::device::Open)| {
        let queue = open().and_then(|device| device.queue(PIECE_BYTES));
        queue.map_err(|error| eprintln!("{error}")).ok().map(|queue| (*name, queue))
    };
    BACKENDS.iter().filter_map(open).collect()
}

fn columns(criterion: &mut Criterion) {
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
        group.bench_function(BenchmarkId::new("seal", *name), |bench| {
            bench.iter(|| queue.seal(&mut x, (&y).into(), &[7; 16]).expect("a device that works"));
        });
    }
    let key = HashKey::new(&[7; 16]);
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

fn alignments(criterion: &mut Criterion) {
    let code = |at: usize| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62) as u8;
    let targets: Vec<u8> = (0..PAIRS * BAND + READ_BASES + BAND).map(code).collect();
    let pair = |at: usize| Pair {
        query: &targets[at * BAND + 9..][..READ_BASES],
        target: &targets[at * BAND..][..READ_BASES + BAND - 1],
    };
    let pairs: Vec<_> = (0..PAIRS).map(pair).collect();
    let mut group = criterion.benchmark_group("cells");
    let cells = PAIRS * READ_BASES * BAND;
    group.throughput(Throughput::Elements(cells as u64)).sample_size(10);
    for (name, queue) in &mut queues() {
        group.bench_function(BenchmarkId::new("align", *name), |bench| {
            bench.iter(|| queue.align(&pairs, &Scores::default()).expect("a device that works"));
        });
    }
    group.finish();
}

criterion_group!(benches, columns, alignments);
criterion_main!(benches);
