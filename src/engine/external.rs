//! Engines that are other programs.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::{CallReport, CallRequest, Engine, Error};
use crate::flow::{Flow, Meters};
use crate::genome::ReadBatch;

/// An engine of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExternalSettings {
    /// Its name.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// An engine that is another program.
pub struct External(ExternalSettings);

impl External {
    /// An engine of the configuration.
    pub fn new(settings: ExternalSettings) -> Self {
        Self(settings)
    }
}

impl Engine for External {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn version(&self) -> String {
        String::new()
    }

    fn call(
        &self,
        _request: &CallRequest<'_>,
        _reads: Flow<'_, ReadBatch>,
        _meters: &Meters,
        _vcf: &mut (dyn Write + Send),
        _bam: Option<&mut (dyn Write + Send)>,
    ) -> Result<CallReport, Error> {
        Err(Error::Output { what: "VCF", source: std::io::Error::other("not merged yet") })
    }
}
