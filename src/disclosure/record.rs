//! One record: whether it may leave, and the line that leaves.

use memchr::{memchr, memmem};

use super::right::Permit;

/// Genotype fields that leave. `PS`, `PGT` and `PID` do not: they name other records' positions.
pub(super) const FORMATS: [&str; 5] = ["GT", "AD", "DP", "GQ", "PL"];

/// Columns of a VCF line (VCF 4.3, section 1.6.1).
const COLUMNS_MAX: usize = 10;

/// What was found about one line.
pub(super) struct Site<'l> {
    pub(super) contig: &'l str,
    /// POS, from 1; 0 is the telomere.
    pub(super) position: u32,
    /// The 0-based bases that the record speaks of, if it was appended to the output.
    pub(super) kept: Option<(u32, u32)>,
}

/// Appends `line`, a record without its line end, to `out` if `permit` lets it leave.
///
/// Errors: what is wrong with the line. Malformed lines are never passed over: what is not
/// understood cannot be judged.
pub(super) fn judge<'l>(
    line: &'l [u8],
    columns: usize,
    permit: &Permit,
    out: &mut Vec<u8>,
) -> Result<Site<'l>, &'static str> {
    let fields = split(line, columns)?;
    let contig = std::str::from_utf8(fields[0]).map_err(|_| "CHROM is not text")?;
    let position = number(fields[1]).ok_or("POS is not a number")?;
    if contig.is_empty() || contig.contains(char::is_whitespace) {
        return Err("CHROM is not a name");
    }
    if fields[3].is_empty() || !fields[3].iter().all(u8::is_ascii_alphabetic) {
        return Err("REF is not a sequence");
    }
    if fields[4].is_empty() || fields[6].is_empty() || fields[7].is_empty() {
        return Err("a column is empty");
    }
    let quality = match fields[5] {
        b"." => None,
        text => Some(decimal(text).ok_or("QUAL is not a number")?),
    };
    let (start, end) = span(position, &fields)?;
    let wants_quality = permit.min_genotype_quality.is_some();
    let genotype_quality = if wants_quality { genotype_quality(&fields)? } else { None };
    let removed = Site { contig, position, kept: None };
    let breakend = fields[4].iter().any(|letter| b"[]".contains(letter));
    let least = |found: Option<f32>, least: Option<f32>| {
        least.is_none_or(|least| found.is_some_and(|found| found >= least))
    };
    let permitted = position > 0
        && permit.covers(contig, start, end)
        // The other side of a breakend lies elsewhere.
        && (!breakend || permit.extent.is_none())
        && filters_permitted(fields[6], permit)
        && least(quality, permit.min_quality)
        && least(genotype_quality, permit.min_genotype_quality.map(|quality| quality as f32));
    if !permitted {
        return Ok(removed);
    }
    append(&fields[..columns], permit, out);
    Ok(Site { kept: Some((start, end)), ..removed })
}

fn split(line: &[u8], columns: usize) -> Result<[&[u8]; COLUMNS_MAX], &'static str> {
    let mut fields = [&b""[..]; COLUMNS_MAX];
    let mut rest = line;
    for field in &mut fields[..columns - 1] {
        let tab = memchr(b'\t', rest).ok_or("fewer columns than the header")?;
        *field = &rest[..tab];
        rest = &rest[tab + 1..];
    }
    if memchr(b'\t', rest).is_some() {
        return Err("more columns than the header");
    }
    fields[columns - 1] = rest;
    Ok(fields)
}

fn number(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

fn decimal(text: &[u8]) -> Option<f32> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|value: &f32| !value.is_nan())
}

/// The bases that a record speaks of: those of REF, and as far as END or SVLEN say for alleles
/// that are not written out.
fn span(position: u32, fields: &[&[u8]]) -> Result<(u32, u32), &'static str> {
    let start = position.saturating_sub(1);
    let reference = u32::try_from(fields[3].len()).map_err(|_| "REF is too long")?;
    let mut end = start.checked_add(reference).ok_or("the record ends beyond any contig")?;
    let symbolic = fields[4].contains(&b'<');
    // Few records have either; looking once is faster than going through all the keys.
    let spans = memmem::find(fields[7], b"END=").or_else(|| memmem::find(fields[7], b"SVLEN="));
    if spans.is_none() {
        return Ok((start, end));
    }
    for entry in fields[7].split(|byte| *byte == b';') {
        if let Some(text) = entry.strip_prefix(b"END=") {
            end = end.max(number(text).ok_or("END is not a number")?);
        } else if let Some(text) = entry.strip_prefix(b"SVLEN=").filter(|_| symbolic) {
            for length in text.split(|byte| *byte == b',').filter(|length| *length != b".") {
                let length = number(length.strip_prefix(b"-").unwrap_or(length));
                let length = length.ok_or("SVLEN is not a number")?;
                let beyond = "the record ends beyond any contig";
                end = end.max(position.checked_add(length).ok_or(beyond)?);
            }
        }
    }
    Ok((start, end))
}

fn filters_permitted(filters: &[u8], permit: &Permit) -> bool {
    let permitted =
        |name: &[u8]| permit.filter.iter().any(|known| known == "*" || known.as_bytes() == name);
    filters.split(|byte| *byte == b';').all(permitted)
}

fn genotype_quality(fields: &[&[u8]]) -> Result<Option<f32>, &'static str> {
    let mut keys = fields[8].split(|byte| *byte == b':');
    let Some(at) = keys.position(|key| key == b"GQ") else { return Ok(None) };
    match fields[9].split(|byte| *byte == b':').nth(at) {
        None | Some(b".") => Ok(None),
        Some(text) => decimal(text).map(Some).ok_or("GQ is not a number"),
    }
}

fn append(fields: &[&[u8]], permit: &Permit, out: &mut Vec<u8>) {
    for field in &fields[..7] {
        out.extend_from_slice(field);
        out.push(b'\t');
    }
    let permitted = |entry: &&[u8]| {
        let key = entry.split(|byte| *byte == b'=').next().unwrap_or_default();
        permit.information.iter().any(|known| known.as_bytes() == key)
    };
    let entries = fields[7].split(|byte| *byte == b';').filter(permitted);
    join(entries, b';', out);
    if let [.., keys, values] = fields[7..] {
        out.push(b'\t');
        let colon = |byte: &u8| *byte == b':';
        let leaves = |key: &[u8]| FORMATS.iter().any(|known| known.as_bytes() == key);
        join(keys.split(colon).filter(|key| leaves(key)), b':', out);
        out.push(b'\t');
        let pairs = keys.split(colon).zip(values.split(colon));
        join(pairs.filter(|(key, _)| leaves(key)).map(|(_, value)| value), b':', out);
    }
    out.push(b'\n');
}

/// Appends the items, or `.` if there are none.
fn join<'t>(items: impl Iterator<Item = &'t [u8]>, separator: u8, out: &mut Vec<u8>) {
    let start = out.len();
    for item in items {
        if out.len() > start {
            out.push(separator);
        }
        out.extend_from_slice(item);
    }
    if out.len() == start {
        out.push(b'.');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disclosure::Right;

    fn permit(extra: &str) -> Permit {
        let text = format!("id='r'\nuser='u'\npurpose='p'\n{extra}");
        toml::from_str::<Right>(&text).unwrap().resolve().unwrap()
    }

    fn leaves(line: &str, permit: &Permit) -> Option<String> {
        let line = line.replace(' ', "\t");
        let mut out = Vec::new();
        let site = judge(line.as_bytes(), line.split('\t').count(), permit, &mut out).unwrap();
        assert_eq!(site.kept.is_some(), !out.is_empty());
        site.kept.map(|_| String::from_utf8(out).unwrap().replace('\t', " "))
    }

    #[test]
    fn the_whole_span_must_be_permitted() {
        let permit = permit("regions=['c:101-200']");
        for (line, kept) in [
            ("c 101 . A C 9 PASS .", true),
            ("c 100 . A C 9 PASS .", false),
            ("c 200 . A C 9 PASS .", true),
            ("c 200 . AC A 9 PASS .", false),
            ("c 98 . ACGT A 9 PASS .", false),
            ("d 101 . A C 9 PASS .", false),
            ("c 150 . A <DEL> 9 PASS END=200", true),
            ("c 150 . A <DEL> 9 PASS END=201", false),
            ("c 150 . A <DEL> 9 PASS SVLEN=-50", true),
            ("c 150 . A <DEL> 9 PASS SVLEN=-51", false),
            ("c 150 . A A[c:160[ 9 PASS .", false),
            ("c 0 . A C 9 PASS .", false),
        ] {
            assert_eq!(leaves(line, &permit).is_some(), kept, "{line}");
        }
    }

    #[test]
    fn filters_and_qualities_are_kept_to() {
        let permit = permit("everywhere=true\nmin-quality=30\nmin-genotype-quality=20");
        for (line, kept) in [
            ("c 1 . A C 30 PASS . GT:GQ 0/1:20", true),
            ("c 1 . A C 29.9 PASS . GT:GQ 0/1:20", false),
            ("c 1 . A C . PASS . GT:GQ 0/1:20", false),
            ("c 1 . A C 30 PASS . GT:GQ 0/1:19", false),
            ("c 1 . A C 30 PASS . GT:GQ 0/1", false),
            ("c 1 . A C 30 PASS . GT 0/1", false),
            ("c 1 . A C 30 LowQual . GT:GQ 0/1:20", false),
            ("c 1 . A C 30 . . GT:GQ 0/1:20", false),
        ] {
            assert_eq!(leaves(line, &permit).is_some(), kept, "{line}");
        }
    }

    #[test]
    fn only_listed_fields_leave() {
        let line = "c 5 rs1 A C,G 30 PASS XX=1;DP=3;FLAG GT:PID:AD:PS 0|1:4_A:1,2:4";
        let permit = permit("everywhere=true");
        assert_eq!(leaves(line, &permit).unwrap(), "c 5 rs1 A C,G 30 PASS DP=3 GT:AD 0|1:1,2\n");
        let line = "c 5 . A C 30 PASS XX=1 PID:GT 4_A";
        assert_eq!(leaves(line, &permit).unwrap(), "c 5 . A C 30 PASS . GT .\n");
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let permit = permit("regions=['c:1-2']");
        for line in [
            "c 5 . A C 30 PASS",
            "c 5 . A C 30 PASS . x",
            "c x . A C 30 PASS .",
            "c +5 . A C 30 PASS .",
            "c 5 .  C 30 PASS .",
            "c 5 . A C x PASS .",
            "c 5 . A C nan PASS .",
            "c 5 . A C 30 PASS END=x",
            "c 4294967295 . ACG C 30 PASS .",
            " 5 . A C 30 PASS .",
        ] {
            let line = line.replace(' ', "\t");
            assert!(judge(line.as_bytes(), 8, &permit, &mut Vec::new()).is_err(), "{line}");
        }
    }
}
