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

impl Site {
    /// Which device does what here; chosen at the first call, which takes up to seconds where there are cards.
    ///
    /// Errors: a device that the configuration names is absent.
    pub fn devices(&self) -> Result<Arc<Assignment>, Error> {
        let mut chosen = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(devices) = &*chosen {
            return Ok(Arc::clone(devices));
        }
        let queues = self.threads() + FURTHER_QUEUES;
        let devices = Assignment::choose(&self.settings.device.setting, queues)?;
        Ok(Arc::clone(chosen.insert(devices)))
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
