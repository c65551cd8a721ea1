//! Learning the insert-size model from the first templates of the input, before any is mapped.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use super::insert::{InsertModel, LEARNT_TEMPLATES};
use super::map::Mapper;
use crate::flow::{Result, Stage};
use crate::genome::{Layout, ReadBatch};

/// Holds the first batches back until the model is learnt, then lets everything pass.
///
/// The model depends on the first [`LEARNT_TEMPLATES`] templates alone, whatever the batches.
pub struct Learn {
    mapper: Arc<Mapper>,
    model: Arc<OnceLock<InsertModel>>,
    held: VecDeque<ReadBatch>,
    templates: u64,
    lengths: Vec<u32>,
}

impl Learn {
    /// Learns with `mapper` and puts the model where `model` is.
    pub fn new(mapper: Arc<Mapper>, model: Arc<OnceLock<InsertModel>>) -> Self {
        Self { mapper, model, held: VecDeque::new(), templates: 0, lengths: Vec::new() }
    }

    fn learnt(&mut self, out: &mut VecDeque<ReadBatch>) {
        let lengths = std::mem::take(&mut self.lengths);
        self.model.get_or_init(|| InsertModel::learn(lengths));
        out.append(&mut self.held);
    }
}

impl Stage for Learn {
    type In = ReadBatch;
    type Out = ReadBatch;
    const NAME: &'static str = "learn";

    fn push(&mut self, batch: ReadBatch, out: &mut VecDeque<ReadBatch>) -> Result<()> {
        if self.model.get().is_some() {
            out.push_back(batch);
            return Ok(());
        }
        let in_batch = match batch.layout {
            Layout::Single => batch.len(),
            Layout::Paired => batch.len() / 2,
        };
        let wanted = (LEARNT_TEMPLATES - self.templates).min(in_batch as u64);
        self.mapper.template_lengths(&batch, wanted as usize, &mut self.lengths);
        self.templates += wanted;
        self.held.push_back(batch);
        if self.templates == LEARNT_TEMPLATES {
            self.learnt(out);
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut VecDeque<ReadBatch>) -> Result<()> {
        self.learnt(out);
        Ok(())
    }
}
