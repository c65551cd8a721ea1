//! `dsgd compare`: calls against a truth set.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::Args;

use super::call::{read_regions, write_whole};
use super::happy;
use super::output::Table;
use super::{Context, Outcome, content_error, file_error};
use crate::engine::compare::{Comparison, Phase, compare};
use crate::genome::{Reference, Variant, bgzf, vcf};

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
    /// Write counts as hap.py does (its FILE.summary.csv, which MultiQC finds by that ending)
    #[arg(long, value_name = "CSV")]
    summary: Option<PathBuf>,
    /// Write predicted and observed errors by QUAL and GQ, of all calls whatever their filters
    #[arg(long, value_name = "CSV")]
    calibration: Option<PathBuf>,
    /// Write every record that does not agree; compressed if the name ends in .gz
    #[arg(long, value_name = "VCF")]
    disagreements: Option<PathBuf>,
    /// Copies of each contig
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    ploidy: u8,
}

/// Runs `dsgd compare`.
pub fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let file = File::open(&arguments.reference).map_err(file_error(&arguments.reference))?;
    let reference =
        Reference::read_fasta(BufReader::new(file)).map_err(content_error(&arguments.reference))?;
    let regions = read_regions(&arguments.regions)?;
    let truth = read(&arguments.truth, &reference)?;
    let mut calls = read(&arguments.calls, &reference)?;
    calls.retain(|call| call.quality >= arguments.min_quality);
    let of = |calls: &[Variant]| compare(&reference, &truth, calls, &regions, arguments.ploidy);
    let passing = of(&calls);
    calls.iter_mut().for_each(|call| call.filters.clear());
    let needs_all = arguments.all || arguments.summary.is_some() || arguments.calibration.is_some();
    let all = if needs_all { of(&calls) } else { Comparison::default() };
    if let Some(path) = &arguments.summary {
        write_whole(path, happy::summary(&all, &passing).as_bytes())?;
    }
    if let Some(path) = &arguments.calibration {
        write_whole(path, all.calibration.csv().as_bytes())?;
    }
    let comparison = if arguments.all { all } else { passing };
    if let Some(path) = &arguments.disagreements {
        let text = happy::disagreements(&comparison, &reference);
        let packed = path.extension().is_some_and(|extension| extension == "gz");
        let bytes = if packed { bgzf::compress(text.as_bytes(), 6) } else { text.into_bytes() };
        write_whole(path, &bytes)?;
    }
    context.out.result("compare", &comparison, || accuracy_table(&comparison));
    Ok(())
}

fn read(path: &Path, reference: &Reference) -> Result<Vec<Variant>, Box<dyn crate::base::Faulty>> {
    let file = File::open(path).map_err(file_error(path))?;
    Ok(vcf::read_variants(BufReader::new(file), reference).map_err(content_error(path))?)
}

/// Accuracy by class.
pub fn accuracy_table(comparison: &Comparison) -> String {
    let mut table =
        Table::new(["class", "found", "missed", "false", "genotype", "precision", "recall", "F1"]);
    let classes = [("SNP".to_owned(), &comparison.snp), ("indel".to_owned(), &comparison.indel)];
    let by_length = comparison.indel_by_length.iter().flat_map(|class| {
        let rows = [("indel", &class.all), ("insertion", &class.insertions)];
        let rows = rows.into_iter().chain([("deletion", &class.deletions)]);
        let seen = rows.filter(|(name, score)| *name == "indel" || !score.is_empty());
        seen.map(|(name, score)| (format!("{name} {}", class.bases), score))
    });
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
    let Phase { heterozygous, phased, pairs, switches } = comparison.phase;
    let mut text = table.render();
    if pairs > 0 {
        text += &format!(
            "\n{phased} of {heterozygous} heterozygous calls are phased; of {pairs} neighbours \
             that the truth phases too, {switches} are the other way round\n"
        );
    }
    text
}
