//! How an alignment differs from the reference: the `MD` and `NM` tags (SAM optional fields
//! specification, section 1.1).

use super::aligned::AlignedRead;
use super::extend::{DELETION, INSERTION, MATCH};
use crate::genome::reference::BASE_LETTERS;

/// Appends the text of `MD` to `out` and gives the value of `NM`.
///
/// `contig` holds the base codes of the read's contig. Unknown bases differ from everything, as
/// they do for samtools.
pub fn describe(read: &AlignedRead, contig: &[u8], out: &mut Vec<u8>) -> u32 {
    let (mut query, mut at) = (0, read.position as usize);
    let (mut equal, mut distance) = (0u32, 0);
    for &op in &read.cigar {
        let (count, code) = ((op >> 4) as usize, op & 15);
        match code {
            MATCH => {
                let pairs = read.bases[query..query + count].iter().zip(&contig[at..at + count]);
                for (&base, &known) in pairs {
                    if base == known && base < 4 {
                        equal += 1;
                    } else {
                        add_number(equal, out);
                        out.push(letter(known));
                        (equal, distance) = (0, distance + 1);
                    }
                }
            }
            DELETION => {
                add_number(equal, out);
                out.push(b'^');
                out.extend(contig[at..at + count].iter().map(|&known| letter(known)));
                equal = 0;
                distance += count as u32;
            }
            INSERTION => distance += count as u32,
            _ => {}
        }
        query += if code == DELETION { 0 } else { count };
        at += if matches!(code, MATCH | DELETION) { count } else { 0 };
    }
    add_number(equal, out);
    distance
}

fn letter(code: u8) -> u8 {
    BASE_LETTERS[usize::from(code).min(4)]
}

fn add_number(number: u32, out: &mut Vec<u8>) {
    out.extend(number.to_string().bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(cigar: &[u32], bases: &[u8], contig: &[u8]) -> (String, u32) {
        let read = AlignedRead {
            template: 0,
            flags: 0,
            contig: 0,
            position: 1,
            mapping_quality: 60,
            cigar: cigar.to_vec(),
            bases: bases.to_vec(),
            qualities: vec![30; bases.len()],
            mate_contig: u32::MAX,
            mate_position: u32::MAX,
            template_length: 0,
            read_group: 0,
        };
        let mut text = Vec::new();
        let distance = describe(&read, contig, &mut text);
        (String::from_utf8(text).unwrap(), distance)
    }

    #[test]
    fn the_text_is_that_of_the_specification() {
        let contig = [3, 0, 1, 2, 3, 0, 1, 2, 3, 4];
        assert_eq!(described(&[3 << 4], &[0, 1, 2], &contig), ("3".into(), 0));
        assert_eq!(described(&[3 << 4], &[1, 1, 3], &contig), ("0A1G0".into(), 2));
        // Two deleted, then a mismatch at once; an insertion leaves no trace in the text.
        let cigar = [2 << 4, 2 << 4 | 2, 2 << 4, 1 << 4 | 1, 1 << 4];
        let text = described(&cigar, &[0, 1, 3, 1, 0, 2], &contig);
        assert_eq!(text, ("2^GT0A2".into(), 4));
        // Clipped bases do not count; unknown ones never match.
        let cigar = [2 << 4 | 4, 9 << 4];
        let bases = [0, 0, 0, 1, 2, 3, 0, 1, 4, 3, 4];
        assert_eq!(described(&cigar, &bases, &contig), ("6G1N0".into(), 2));
    }
}
