//! What regions give, joined in order: the VCF, and the gVCF beside it.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::RegionCalls;
use super::phase::{Phased, Phaser};
use crate::engine::CallReport;
use crate::genome::vcf::{Block, BlockWriter, Error, VcfHeader, VcfWriter};
use crate::genome::{Reference, Variant};

/// Compression level of the VCF.
const VCF_LEVEL: u8 = 6;
/// That of the gVCF, which is long and regular.
const BLOCKS_LEVEL: u8 = 2;

enum Item {
    Variant(Variant),
    Block(Block),
}

impl Phased for Item {
    fn variant(&mut self) -> Option<&mut Variant> {
        match self {
            Item::Variant(variant) => Some(variant),
            Item::Block(_) => None,
        }
    }
}

/// A sink that several hold and one writes to.
pub type SharedSink<'a> = &'a Mutex<dyn Write + Send>;

struct Shared<'a>(SharedSink<'a>);

impl Write for Shared<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// The writers of one run.
pub struct Output<'a> {
    reference: &'a Reference,
    vcf: VcfWriter<&'a mut (dyn Write + Send)>,
    blocks: Option<BlockWriter<Shared<'a>>>,
    phaser: Phaser<Item>,
}

impl<'a> Output<'a> {
    /// Writes the headers.
    pub fn new(
        reference: &'a Reference,
        header: VcfHeader,
        vcf: &'a mut (dyn Write + Send),
        gvcf: Option<SharedSink<'a>>,
    ) -> Result<Self, Error> {
        let blocks = gvcf.map(|sink| BlockWriter::new(Shared(sink), header.clone(), BLOCKS_LEVEL));
        let vcf = VcfWriter::new(vcf, header, VCF_LEVEL)?;
        Ok(Self { reference, vcf, blocks: blocks.transpose()?, phaser: Phaser::new() })
    }

    /// Takes the calls of the next region.
    pub fn add(&mut self, calls: RegionCalls) -> Result<(), Error> {
        let mut blocks = calls.blocks.into_iter().peekable();
        for (variant, witnesses) in calls.variants.into_iter().zip(calls.witnesses) {
            let place = (variant.contig, variant.position);
            while let Some(block) = blocks.next_if(|block| (block.contig, block.start) < place) {
                self.add_block(block)?;
            }
            self.phaser.add(Item::Variant(variant), place, &witnesses);
            self.write_settled()?;
        }
        blocks.try_for_each(|block| self.add_block(block))
    }

    fn add_block(&mut self, block: Block) -> Result<(), Error> {
        let place = (block.contig, block.start);
        self.phaser.add(Item::Block(block), place, &[]);
        self.write_settled()
    }

    fn write_settled(&mut self) -> Result<(), Error> {
        while let Some(item) = self.phaser.next() {
            match (item, &mut self.blocks) {
                (Item::Variant(variant), blocks) => {
                    self.vcf.write(&variant, self.reference)?;
                    if let Some(blocks) = blocks {
                        blocks.variant(&variant, self.reference)?;
                    }
                }
                (Item::Block(block), Some(blocks)) => blocks.block(block, self.reference)?,
                (Item::Block(_), None) => {}
            }
        }
        Ok(())
    }

    /// Writes what is left and puts the counts and the indexes into `report`.
    pub fn finish(mut self, report: &mut CallReport) -> Result<(), Error> {
        self.phaser.close();
        self.write_settled()?;
        let summary = self.vcf.finish()?;
        report.records = summary.records;
        report.vcf_bytes = summary.text_bytes;
        report.tabix = summary.tabix;
        if let Some(blocks) = self.blocks {
            report.gvcf_tabix = blocks.finish(self.reference)?.tabix;
        }
        Ok(())
    }
}
