//! Calls in, as far as a [`Variant`] holds them.

use std::io::{BufRead, BufReader, Read};

use super::{Error, FILTERS};
use crate::genome::inflate::InflateReader;
use crate::genome::reference::{BASE_LETTERS, Reference, base_code};
use crate::genome::variant::Variant;

/// Reads the calls of a VCF, plain or compressed: of the first sample, as far as [`Variant`] holds
/// them. IDs and genotype fields it does not know are left out; INFO but `DP` is kept as text, and
/// a filter name that is none of [`FILTERS`] is read as `LowQual`.
///
/// Errors: a line that is not VCF; a contig or REF that `reference` does not have.
pub fn read_variants(reader: impl Read, reference: &Reference) -> Result<Vec<Variant>, Error> {
    let mut lines = BufReader::with_capacity(1 << 16, InflateReader::new(reader, "VCF"));
    let indexes = reference.indexes();
    let (mut text, mut line, mut variants) = (Vec::new(), 0, Vec::new());
    loop {
        text.clear();
        line += 1;
        if lines.read_until(b'\n', &mut text).map_err(Error::Read)? == 0 {
            return if line > 1 { Ok(variants) } else { Err(malformed(1, "the file is empty")) };
        }
        if line == 1 && !text.starts_with(b"##fileformat=VCF") {
            return Err(malformed(1, "the file does not begin with ##fileformat=VCF"));
        }
        let record = text.trim_ascii_end();
        if record.is_empty() || record[0] == b'#' {
            continue;
        }
        let record = std::str::from_utf8(record).map_err(|_| malformed(line, "not UTF-8 text"))?;
        let variant = parse_line(record, line, |name| indexes.get(name).copied())?;
        check_reference(&variant, reference, line)?;
        variants.push(variant);
    }
}

/// PS of a phased genotype that has none (VCF 4.3, section 1.6.2): no position has this number.
const CONTIG_PHASE_SET: u32 = 0;

fn malformed(line: u64, what: &'static str) -> Error {
    Error::Malformed { line, what }
}

fn parse_line(
    text: &str,
    line: u64,
    contig_of: impl Fn(&str) -> Option<u32>,
) -> Result<Variant, Error> {
    let bad = |what| malformed(line, what);
    let columns: Vec<&str> = text.split('\t').collect();
    let &[contig, position, _, reference, alternates, quality, filters, information, ..] =
        &columns[..]
    else {
        return Err(bad("fewer than 8 columns"));
    };
    let contig = contig_of(contig)
        .ok_or_else(|| Error::NoSuchContig { record: line, contig: contig.into() })?;
    let position = position.parse::<u32>().ok().and_then(|position| position.checked_sub(1));
    let position = position.ok_or_else(|| bad("POS is not a number from 1"))?;
    if reference.is_empty() || !reference.bytes().all(|letter| letter.is_ascii_alphabetic()) {
        return Err(bad("REF is not a sequence"));
    }
    let quality = match quality {
        "." => 0.0,
        text => text.parse().map_err(|_| bad("QUAL is not a number"))?,
    };
    let information = if information == "." { "" } else { information };
    let entries = || information.split(';').filter(|entry| !entry.is_empty());
    let depth = entries().find_map(|entry| entry.strip_prefix("DP=")?.parse().ok());
    let rest: Vec<&str> = entries().filter(|entry| !entry.starts_with("DP=")).collect();
    let mut variant = Variant {
        contig,
        position,
        reference: reference.to_ascii_uppercase().into_bytes(),
        alternates: letters(alternates),
        quality,
        filters: filter_names(filters),
        genotype: Vec::new(),
        phase_set: None,
        depth: depth.unwrap_or(0),
        allele_depths: Vec::new(),
        genotype_quality: 0,
        likelihoods: Vec::new(),
        information: rest.join(";"),
    };
    if let (Some(keys), Some(values)) = (columns.get(8), columns.get(9)) {
        for (key, value) in keys.split(':').zip(values.split(':')) {
            read_field(&mut variant, key, value).ok_or_else(|| bad("a genotype field is wrong"))?;
        }
    }
    let alleles = variant.alternates.len();
    if variant.genotype.iter().any(|allele| usize::from(*allele) > alleles) {
        return Err(bad("GT names an allele that is not there"));
    }
    Ok(variant)
}

fn letters(alternates: &str) -> Vec<Vec<u8>> {
    match alternates {
        "." => Vec::new(),
        list => list.split(',').map(|allele| allele.as_bytes().to_vec()).collect(),
    }
}

fn filter_names(filters: &str) -> Vec<&'static str> {
    let known = |name: &str| FILTERS.iter().find(|filter| filter.id == name);
    match filters {
        "." | "PASS" => Vec::new(),
        list => {
            list.split(';').map(|name| known(name).map_or("LowQual", |known| known.id)).collect()
        }
    }
}

/// Takes one genotype field; `None` if its value is malformed.
fn read_field(variant: &mut Variant, key: &str, value: &str) -> Option<()> {
    let numbers = || -> Option<Vec<u32>> {
        value.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()
    };
    if key == "GT" {
        if !value.contains('.') {
            let alleles = value.split(['/', '|']).map(|allele| allele.parse().ok());
            variant.genotype = alleles.collect::<Option<_>>()?;
            // Without PS, all phased genotypes of a contig are of one set.
            if value.contains('|') {
                variant.phase_set.get_or_insert(CONTIG_PHASE_SET);
            }
        }
        return Some(());
    }
    if value.split(',').any(|number| number == ".") {
        return Some(());
    }
    match key {
        "DP" => variant.depth = value.parse().ok()?,
        "AD" => variant.allele_depths = numbers()?,
        // Some callers write fractions.
        "GQ" => variant.genotype_quality = value.parse::<f32>().ok()? as u32,
        "PL" => variant.likelihoods = numbers()?,
        "PS" => variant.phase_set = value.parse().ok(),
        _ => {}
    }
    Some(())
}

fn check_reference(variant: &Variant, reference: &Reference, line: u64) -> Result<(), Error> {
    let contig = &reference.contigs[variant.contig as usize];
    let start = variant.position as usize;
    let held = contig.bases.get(start..start + variant.reference.len());
    let same = held.is_some_and(|held| {
        held.iter().zip(&variant.reference).all(|(code, letter)| {
            // N on either side says nothing.
            *code == 4 || base_code(*letter) == 4 || BASE_LETTERS[usize::from(*code)] == *letter
        })
    });
    let position = u64::from(variant.position) + 1;
    if same {
        Ok(())
    } else {
        Err(Error::OtherReference { line, contig: contig.name.clone(), position })
    }
}
