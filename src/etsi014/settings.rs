//! What a key manager is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::grant::ENTRY_BYTES_MAX;
use super::held::SLAVES_MAX;
use super::identity::SaeId;
use crate::base::SiteId;
use crate::key::RandomSettings;

/// The section `[kme]` of a site's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KmeSettings {
    /// Address that applications call.
    pub listen: String,
    /// Its certificate and those above it, PEM. The name in it is the KME ID.
    pub certificate: PathBuf,
    /// The private key of the certificate, PEM.
    pub private_key: PathBuf,
    /// Certificates of those who certify applications, PEM.
    pub authority: PathBuf,
    /// Every application that there is, here and at other sites.
    pub sae: Vec<SaeSettings>,
    /// KME IDs of other sites, where they are not the names of the sites.
    #[serde(default)]
    pub peers: BTreeMap<SiteId, String>,
    /// Bits of a key when the request does not say.
    #[serde(default = "defaults::key_bits")]
    pub key_bits: u64,
    /// Fewest bits of a key.
    #[serde(default = "defaults::key_bits_min")]
    pub key_bits_min: u64,
    /// Most bits of a key.
    #[serde(default = "defaults::key_bits_max")]
    pub key_bits_max: u64,
    /// Most keys of one request. Their bits together are at most 8 Mbit.
    #[serde(default = "defaults::keys_per_request")]
    pub keys_per_request: u64,
    /// Most slaves besides the first.
    #[serde(default = "defaults::additional_slaves")]
    pub additional_slaves: u64,
    /// Most keys that wait here to be fetched.
    #[serde(default = "defaults::held_keys")]
    pub held_keys: usize,
    /// How long a key waits to be fetched, in seconds.
    #[serde(default = "defaults::lifetime_seconds")]
    pub lifetime_seconds: u64,
    /// Connections of applications at once.
    #[serde(default = "defaults::connections")]
    pub connections: usize,
    /// Threads that serve applications; as many as there are cores, if 0.
    #[serde(default)]
    pub threads: usize,
    /// Where keys come from when all applications are at this site: `os` or `device:PATH`.
    #[serde(default = "defaults::local_random")]
    pub local_random: RandomSettings,
}

/// An application.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SaeSettings {
    /// Its SAE ID, as its certificate has it.
    pub id: SaeId,
    /// Where it is: at this site, if not given.
    pub site: Option<SiteId>,
}

mod defaults {
    use crate::key::RandomSettings;

    pub fn key_bits() -> u64 {
        256
    }
    pub fn key_bits_min() -> u64 {
        64
    }
    pub fn key_bits_max() -> u64 {
        65_536
    }
    pub fn keys_per_request() -> u64 {
        128
    }
    pub fn additional_slaves() -> u64 {
        8
    }
    pub fn held_keys() -> usize {
        200_000
    }
    pub fn lifetime_seconds() -> u64 {
        3600
    }
    pub fn connections() -> usize {
        1024
    }
    pub fn local_random() -> RandomSettings {
        RandomSettings::OperatingSystem
    }
}

impl KmeSettings {
    /// Whether the numbers go together.
    pub fn check(&self) -> Result<(), Error> {
        let refused = |what| Err(Error::Settings { what });
        let sizes = [self.key_bits_min, self.key_bits, self.key_bits_max];
        if sizes.iter().any(|bits| !bits.is_multiple_of(8) || *bits == 0) || !sizes.is_sorted() {
            return refused(
                "key-bits-min, key-bits and key-bits-max must be multiples of 8 that do not fall",
            );
        }
        let bytes = (self.key_bits_max / 8).checked_mul(self.keys_per_request);
        if self.keys_per_request == 0 || bytes.is_none_or(|bytes| bytes > ENTRY_BYTES_MAX as u64) {
            return refused("keys-per-request keys of key-bits-max bits must be 8 Mbit at most");
        }
        if self.additional_slaves >= SLAVES_MAX as u64 {
            return refused("additional-slaves must be 31 at most");
        }
        if self.local_random == RandomSettings::KeyStream {
            return refused("local-random cannot be a key stream");
        }
        let mut ids: Vec<_> = self.sae.iter().map(|sae| &sae.id).collect();
        ids.sort();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return refused("an application is there twice");
        }
        Ok(())
    }

    /// Makes relative paths relative to `folder`, where the file is that says them.
    pub fn relative_to(&mut self, folder: &Path) {
        for path in [&mut self.certificate, &mut self.private_key, &mut self.authority] {
            *path = folder.join(&*path);
        }
    }
}
