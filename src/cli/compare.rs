//! `dsgd compare`: calls against a truth set.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::Args;

use super::call::read_regions;
use super::output::Table;
use super::{Context, Outcome, file_error};
use crate::engine::compare::{Comparison, compare};
use crate::genome::{Reference, Variant, vcf};

/// Arguments of `dsgd compare`.
#[derive(Args)]
pub struct Arguments {
    /// The truth: VCF, plain or compressed
    truth: PathBuf,
    /// The calls: VCF, plain or compressed
    calls: PathBuf,
    /// Reference FASTA that both are about
    #[arg(short, long, value_name = "FASTA")]
    reference: PathBuf,
    /// Where the truth is complete
    #[arg(long, value_name = "BED")]
    regions: PathBuf,
    /// Count calls that failed a filter, too
    #[arg(long)]
    all: bool,
    /// Count calls of at least this QUAL only
    #[arg(long, default_value_t = 0.0)]
    min_quality: f32,
    /// Copies of each contig
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    ploidy: u8,
}

/// Runs `dsgd compare`.
pub fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let file = File::open(&arguments.reference).map_err(file_error(&arguments.reference))?;
    let reference = Reference::read_fasta(BufReader::new(file))?;
    let regions = read_regions(&arguments.regions)?;
    let truth = read(&arguments.truth, &reference)?;
    let mut calls = read(&arguments.calls, &reference)?;
    calls.retain(|call| {
        (arguments.all || call.filters.is_empty()) && call.quality >= arguments.min_quality
    });
    let comparison = compare(&reference, &truth, &calls, &regions, arguments.ploidy);
    context.out.result("compare", &comparison, || accuracy_table(&comparison));
    Ok(())
}

fn read(path: &Path, reference: &Reference) -> Result<Vec<Variant>, Box<dyn crate::base::Faulty>> {
    let file = File::open(path).map_err(file_error(path))?;
    Ok(vcf::read_variants(BufReader::new(file), reference)?)
}

/// Accuracy by class.
pub fn accuracy_table(comparison: &Comparison) -> String {
    let mut table =
        Table::new(["class", "found", "missed", "false", "genotype", "precision", "recall", "F1"]);
    let lengths = comparison.indel_by_length.iter();
    let classes = [("SNP".to_owned(), &comparison.snp), ("indel".to_owned(), &comparison.indel)];
    let by_length = lengths.map(|(length, score)| (format!("indel {length}"), score));
    let runs = [("indel in homopolymer".to_owned(), &comparison.homopolymer)];
    for (name, score) in classes.into_iter().chain(by_length).chain(runs) {
        table.row([
            name,
            score.found.to_string(),
            score.missed.to_string(),
            score.false_calls.to_string(),
            score.genotype_errors.to_string(),
            format!("{:.4}", score.precision),
            format!("{:.4}", score.recall),
            format!("{:.4}", score.f1),
        ]);
    }
    table.render()
}
