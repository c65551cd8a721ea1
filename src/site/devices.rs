//! The devices of a site: chosen once, for all its work.

use std::sync::{Arc, PoisonError};

use super::{Error, Site};
use crate::device::assign::Assignment;
use crate::device::setting::Setting;

/// `auto` looks for devices before work on so many bytes, and before every analysis: for less, the CPU is done
/// before a card is awake.
const WORTH_A_LOOK_BYTES: u64 = 4 << 30;
/// Queues besides those of the engine's workers: shares are split and restored beside it.
const FURTHER_QUEUES: usize = 4;

/// The devices that a request works with, from its first step to its last.
pub(super) struct InUse {
    devices: Arc<Assignment>,
    /// How many of their notices are other requests', or were told.
    told: usize,
}

impl Site {
    /// Which device does what here; chosen at the first call, which takes up to seconds where there are cards.
    /// The first call of a daemon's request tries what was lost before it again ([`Assignment::renewed`]);
    /// other requests that begin wait meanwhile.
    ///
    /// Errors: a device that the configuration names is absent.
    pub fn devices(&self) -> Result<Arc<Assignment>, Error> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(InUse { devices, .. }) = &*in_use {
            return Ok(Arc::clone(devices));
        }
        let mut chosen = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let known = chosen.clone();
        let (devices, told) = match known {
            None => {
                let queues = self.threads() + FURTHER_QUEUES;
                (Assignment::choose(&self.settings.device.setting, queues)?, 0)
            }
            Some(known) => match self.renewed(&known) {
                Some(renewed) => (renewed, 0),
                None => (Arc::clone(&known), known.notices().len()),
            },
        };
        *chosen = Some(Arc::clone(&devices));
        *in_use = Some(InUse { devices: Arc::clone(&devices), told });
        Ok(devices)
    }

    fn renewed(&self, devices: &Assignment) -> Option<Arc<Assignment>> {
        if !devices.has_lost() {
            return None;
        }
        // Tables hold on to the device as it was.
        let loaded = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.values().for_each(|reference| reference.drop_idle_tables());
        drop(loaded);
        devices.renewed()
    }

    /// What the operator should know of this work, and of the devices in use since it began: each of their
    /// notices is told with the work in which it came up, and not again.
    pub(super) fn notices_with_devices(&self) -> Vec<String> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(InUse { devices, told }) = &mut *in_use {
            let all = devices.notices();
            all[*told..].iter().for_each(|notice| self.notices.add(notice));
            *told = all.len();
        }
        self.notices.all()
    }

    /// The same for sharing out or restoring as many bytes.
    pub(super) fn devices_for(&self, bytes: u64) -> Result<Arc<Assignment>, Error> {
        let is_chosen = self.devices.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        match self.settings.device.setting {
            Setting::Auto if !is_chosen && bytes < WORTH_A_LOOK_BYTES => {
                Ok(Assignment::cpu_because("less than 4 GiB are not worth a look at other devices"))
            }
            _ => self.devices(),
        }
    }
}

/// What became of the devices is told also when the work failed.
impl Drop for Site {
    fn drop(&mut self) {
        self.notices_with_devices();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::device::assign::Opener;
    use crate::device::conformance::double::{Double, Given};
    use crate::device::table::Resident;
    use crate::device::{Device, Error as DeviceError, Kernel, Queue, open};
    use crate::pipeline::Notices;
    use crate::site::{LoadedReference, Settings, settings::ReferenceSettings};

    /// The CPU by another name, which fails while it is told to.
    #[derive(Clone, Default)]
    struct Card {
        fails: Arc<AtomicBool>,
        tables: Arc<()>,
    }

    impl Device for Card {
        fn name(&self) -> &'static str {
            "card"
        }

        fn model(&self) -> String {
            "for tests".into()
        }

        fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, DeviceError> {
            let fails = Arc::clone(&self.fails);
            let hook = move |_: Kernel, _: Given<'_>| match fails.load(Ordering::SeqCst) {
                true => {
                    let source = "it was lost".into();
                    Err(DeviceError::Failed { device: "card", step: "go on", source })
                }
                false => Ok(()),
            };
            Ok(Box::new(Double { queue: open("cpu")?.queue(piece_bytes)?, hook }))
        }

        fn table(&self, _: &[&[u32]]) -> Result<Resident, DeviceError> {
            Ok(Arc::new(Arc::clone(&self.tables)))
        }
    }

    /// A site whose card was chosen, and what it shows as it happens.
    fn site(folder: &std::path::Path, card: &Card) -> (Site, Arc<Mutex<Vec<String>>>) {
        let defaults = include_str!("../../dsgd.default.toml");
        let text = format!("site = 'trusted'\nstate = '{}'\n{defaults}", folder.display());
        let settings: Settings = toml::from_str(&text).unwrap();
        let shown: Arc<Mutex<Vec<String>>> = Arc::default();
        let show = Arc::clone(&shown);
        let notices = Notices::shown_by(move |text| show.lock().unwrap().push(text.into()));
        let site = Site::open(settings, notices).unwrap();
        let card = card.clone();
        let open = move || Ok(Box::new(card.clone()) as Box<dyn Device>);
        let opener = Opener { open: Box::new(open), rest: Duration::ZERO };
        let chosen = Assignment::everything_opened_by(opener, 2).unwrap();
        *site.devices.lock().unwrap() = Some(chosen);
        (site, shown)
    }

    fn work(devices: &Arc<Assignment>) {
        let mut data = [1, 2, 3];
        devices.queue().unwrap().xor(&mut data, &[1, 1, 1]).unwrap();
        assert_eq!(data, [0, 3, 2]);
    }

    const LOST: &str = "device 'card' failed to go on: it was lost; the CPU goes on";
    const BACK: &str = "device 'card' (for tests) gives right results again: it is used again";

    #[test]
    fn a_device_is_told_of_with_the_request_in_which_it_was_lost_and_that_which_uses_it_again() {
        let (folder, card) = (tempfile::tempdir().unwrap(), Card::default());
        let (site, shown) = site(folder.path(), &card);
        // What each request tells, and whether the card did its work at the end.
        let request = |fails_first: bool, fails: bool| {
            card.fails.store(fails_first, Ordering::SeqCst);
            let request = site.for_one_request();
            let devices = request.devices().unwrap();
            card.fails.store(fails, Ordering::SeqCst);
            work(&devices);
            card.fails.store(false, Ordering::SeqCst);
            assert!(Arc::ptr_eq(&devices, &request.devices_for(1).unwrap()), "of one request");
            let told = request.notices_with_devices();
            assert_eq!(request.notices_with_devices(), told, "each is told once");
            (told, !devices.on_cpu(Kernel::Xor))
        };
        let told = |notices: &[&str]| notices.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(request(false, false), (vec![], true));
        assert_eq!(request(false, true), (told(&[LOST]), false));
        assert_eq!(request(true, true), (vec![], false), "still lost");
        assert_eq!(request(false, false), (told(&[BACK]), true));
        assert_eq!(request(false, false), (vec![], true));
        assert_eq!(request(false, true), (told(&[LOST]), false));
        assert_eq!(request(false, true), (told(&[BACK, LOST]), false));
        assert_eq!(*shown.lock().unwrap(), [LOST, BACK, LOST, BACK, LOST]);
    }

    #[test]
    fn what_became_of_a_device_is_shown_also_when_the_request_failed() {
        let (folder, card) = (tempfile::tempdir().unwrap(), Card::default());
        let (site, shown) = site(folder.path(), &card);
        let request = site.for_one_request();
        let devices = request.devices().unwrap();
        card.fails.store(true, Ordering::SeqCst);
        work(&devices);
        drop(request);
        assert_eq!(*shown.lock().unwrap(), [LOST]);
    }

    #[test]
    fn tables_leave_a_lost_device_and_return_with_it() {
        let (folder, card) = (tempfile::tempdir().unwrap(), Card::default());
        let (site, _) = site(folder.path(), &card);
        let fasta = folder.path().join("reference.fa");
        let mut noise = 1_u64;
        let bases = (0..2000).map(|_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ['A', 'C', 'G', 'T'][(noise >> 62) as usize]
        });
        std::fs::write(&fasta, format!(">one\n{}\n", bases.collect::<String>())).unwrap();
        let settings = ReferenceSettings { name: "small".into(), fasta, index: None };
        let loaded = Arc::new(LoadedReference::read(&settings).unwrap());
        site.references.lock().unwrap().insert("small".into(), Arc::clone(&loaded));
        let tables = || Arc::strong_count(&card.tables) - Arc::strong_count(&card.fails);
        // A request's engine is dropped with it; what is kept is kept for the next.
        let request = || {
            let devices = site.for_one_request().devices().unwrap();
            drop(loaded.engine("native", 1, &devices, &[]).unwrap());
            devices
        };
        let first = request();
        assert_eq!(tables(), 2);
        card.fails.store(true, Ordering::SeqCst);
        work(&first);
        assert!(Arc::ptr_eq(&request(), &first) && tables() == 0, "it is still lost");
        card.fails.store(false, Ordering::SeqCst);
        let second = request();
        assert!(!Arc::ptr_eq(&second, &first) && tables() == 2);
    }
}
