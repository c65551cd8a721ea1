//! What both comparisons need: made-up reads, the processor's time, and rows of a table.

/// Noise from a seed (Vigna 2016, xorshift64*).
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, count: usize) -> usize {
        ((self.next() >> 33) % count as u64) as usize
    }

    pub fn codes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 62) as u8).collect()
    }

    /// `length` bases of `from` on, one of a hundred changed, and in one of eight reads a gap of up to
    /// eight bases; and how many bases of `from` they stand for.
    pub fn read(&mut self, from: &[u8], length: usize) -> (Vec<u8>, usize) {
        let mut read = from[..(length + 8).min(from.len())].to_vec();
        let mut used = length;
        if self.below(8) == 0 {
            let (at, count) = (20 + self.below(length - 40), 1 + self.below(8));
            if self.below(2) == 0 {
                let inserted = self.codes(count);
                read.splice(at..at, inserted);
                used -= count;
            } else {
                read.drain(at..at + count);
                used += count;
            }
        }
        read.truncate(length);
        for base in &mut read {
            if self.below(100) == 0 {
                *base = (*base + 1 + self.below(3) as u8) % 4;
            }
        }
        (read, used)
    }
}

/// Base codes as letters.
pub fn letters(codes: &[u8]) -> Vec<u8> {
    codes.iter().map(|&code| b"ACGTN"[usize::from(code.min(4))]).collect()
}

/// Seconds of the processor that this thread has used: what other programs take does not count.
pub fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one such structure.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

/// One way to do the work, and the best time it took.
pub struct Contender<'a> {
    name: &'static str,
    /// What it computes of one pair, or `None` when that is not known.
    cells: Option<f64>,
    work: Box<dyn FnMut() + 'a>,
    best: f64,
}

impl<'a> Contender<'a> {
    pub fn new(name: &'static str, cells: Option<f64>, work: impl FnMut() + 'a) -> Self {
        Self { name, cells, work: Box::new(work), best: f64::INFINITY }
    }
}

/// Lets all take turns, `turns` times, and prints a row of a table for each.
pub fn compare(mut contenders: Vec<Contender<'_>>, pairs: usize, turns: usize) {
    for _ in 0..turns {
        for contender in &mut contenders {
            let start = processor_seconds();
            (contender.work)();
            contender.best = contender.best.min(processor_seconds() - start);
        }
    }
    for Contender { name, cells, best, .. } in contenders {
        let each = 1e9 * best / pairs as f64;
        let rate = cells.map_or("".into(), |cells| format!("{:.2}", cells / each));
        let cells = cells.map_or("".into(), |cells| format!("{cells:.0}"));
        println!("| {name} | {each:.0} | {cells} | {rate} |");
    }
}
