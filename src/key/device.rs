//! Random numbers from a physical generator, with continuous health tests.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use zeroize::{Zeroize, Zeroizing};

use crate::base::SiteId;

use super::{Class, Error, Kind, Provenance, RandomSource, Source};

/// Bytes that are read and thrown away before the first are handed out (SP 800-90B, section 4.3).
const START_BYTES: usize = 1024;

/// A physical random number generator, or a file of what one recorded.
///
/// The class is information-theoretic because the operator says so by naming the device; the
/// health tests only notice when it breaks. A regular file is used up: what was read is wiped and
/// cut off its end, durably, before it is handed out.
pub struct Device {
    name: String,
    file: File,
    recorded: bool,
    health: Health,
    /// The health test that failed: nothing is handed out any more.
    failed: Option<&'static str>,
    provenance: Provenance,
}

impl Device {
    /// Opens the device or file at `path` for `owner` and tests what it gives first.
    pub fn open(path: &Path, owner: SiteId) -> Result<Self, Error> {
        let name = path.display().to_string();
        let failed = |source| Error::Random { name: name.clone(), source };
        let recorded = path.metadata().map_err(failed)?.is_file();
        let file = File::options().read(true).write(recorded).open(path).map_err(failed)?;
        let provenance = Provenance {
            kind: Kind::Random,
            source: Source::Device,
            class: Class::InformationTheoretic,
            known_to: [owner].into(),
        };
        let health = Health::default();
        let mut device = Self { name, file, recorded, health, failed: None, provenance };
        device.fill(Zeroizing::new([0; START_BYTES]).as_mut_slice())?;
        Ok(device)
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<()> {
        if !self.recorded {
            return self.file.read_exact(out);
        }
        self.file.lock()?;
        let read = self.cut_off(out);
        self.file.unlock()?;
        read
    }

    fn cut_off(&self, out: &mut [u8]) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "the file is used up");
        let rest = length.checked_sub(out.len() as u64).ok_or_else(short)?;
        self.file.read_exact_at(out, rest)?;
        self.file.write_all_at(&vec![0; out.len()], rest)?;
        self.file.sync_data()?;
        self.file.set_len(rest)?;
        self.file.sync_all()
    }
}

impl RandomSource for Device {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        let unhealthy = |name: &str, test| Error::Unhealthy { name: name.into(), test };
        if let Some(test) = self.failed {
            return Err(unhealthy(&self.name, test));
        }
        if let Err(source) = self.read(out) {
            out.zeroize();
            return Err(Error::Random { name: self.name.clone(), source });
        }
        if let Err(test) = self.health.check(out) {
            out.zeroize();
            self.failed = Some(test);
            return Err(unhealthy(&self.name, test));
        }
        Ok(())
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }
}

/// The continuous tests of SP 800-90B, sections 4.4.1 and 4.4.2, on bytes of which each is to have
/// at least 4 bits of min-entropy; a sound source fails one with probability 2^-64 a sample.
#[derive(Default)]
struct Health {
    last: u8,
    repetitions: u32,
    window_first: u8,
    window_samples: u32,
    window_matches: u32,
}

/// `1 + ceil(64 / 4)`.
const REPETITIONS_MAX: u32 = 17;
const WINDOW_SAMPLES: u32 = 512;
/// `1 + CRITBINOM(512, 2^-4, 1 - 2^-64)`.
const MATCHES_MAX: u32 = 93;

impl Health {
    fn check(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        for byte in bytes.iter().copied() {
            self.repetitions = if byte == self.last { self.repetitions + 1 } else { 1 };
            self.last = byte;
            if self.repetitions >= REPETITIONS_MAX {
                return Err("repetition count");
            }
            if self.window_samples == 0 {
                (self.window_first, self.window_matches) = (byte, 0);
            }
            self.window_matches += u32::from(byte == self.window_first);
            if self.window_matches >= MATCHES_MAX {
                return Err("adaptive proportion");
            }
            self.window_samples = (self.window_samples + 1) % WINDOW_SAMPLES;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(bytes: usize) -> Vec<u8> {
        let mut noise = vec![0; bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        noise
    }

    fn device(content: &[u8]) -> Result<Device, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Device::open(file.path(), "a".parse().unwrap())
    }

    #[test]
    fn sound_bytes_pass_and_none_is_given_twice() {
        let content = noise(1 << 20);
        let mut device = device(&content).unwrap();
        let mut seen = Vec::new();
        for _ in 0..255 {
            let mut out = vec![0; 4096];
            device.fill(&mut out).unwrap();
            seen.splice(0..0, out);
        }
        let end = content.len() - START_BYTES;
        assert!(seen == content[end - seen.len()..end], "from the end towards the beginning");
        let mut out = vec![0xee; 4096];
        assert!(matches!(device.fill(&mut out), Err(Error::Random { .. })), "a short read");
        assert!(out.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn stuck_and_biased_sources_are_refused_for_good() {
        assert!(matches!(
            device(&[0; 4096]),
            Err(Error::Unhealthy { test: "repetition count", .. })
        ));
        let mut biased = noise(1 << 16);
        biased.iter_mut().step_by(3).for_each(|byte| *byte = 7);
        assert!(
            device(&biased).is_err() || {
                let mut device = device(&biased).unwrap();
                device.fill(&mut [0; 30_000]).is_err()
            }
        );
        let mut stuck = noise(1 << 16);
        stuck[50_000..50_100].fill(9);
        let mut device = device(&stuck).unwrap();
        assert!(device.fill(&mut [0; 20_000]).is_err());
        assert!(matches!(device.fill(&mut [0; 16]), Err(Error::Unhealthy { .. })));
        assert!(Device::open("/dev/zero".as_ref(), "a".parse().unwrap()).is_err());
        assert!(Device::open("/dev/null".as_ref(), "a".parse().unwrap()).is_err());
    }

    /// The cutoff again, from the binomial distribution in logarithms.
    #[test]
    fn the_cutoff_is_that_of_the_standard() {
        let (samples, p) = (f64::from(WINDOW_SAMPLES), 1.0f64 / 16.0);
        let mut logs = vec![samples * (1.0 - p).ln()];
        for k in 0..WINDOW_SAMPLES {
            let ratio = (samples - f64::from(k)) / f64::from(k + 1) * p / (1.0 - p);
            logs.push(logs[k as usize] + ratio.ln());
        }
        let tail = |from: u32| logs[from as usize..].iter().map(|log| log.exp()).sum::<f64>();
        let alpha = 2f64.powi(-64);
        let critical = (0..WINDOW_SAMPLES).find(|k| tail(k + 1) <= alpha).unwrap();
        assert_eq!(MATCHES_MAX, 1 + critical);
    }
}
