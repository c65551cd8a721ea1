//! A VCF from anybody through the disclosure filter: no panic, and no record outside the right.

use std::io::Read;

use dsgd::disclosure::{FilterOptions, Right, filter};
use dsgd::genome::inflate::InflateReader;

const HEADER: &str = "##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n";

/// Filters records and looks at what is left.
pub fn check(records: &[u8]) {
    let mut right = Right::everything(None);
    (right.everywhere, right.regions) = (false, vec!["c:10-20".into()]);
    let permit = right.resolve().expect("a good right");
    let mut out = Vec::new();
    let file = [HEADER.as_bytes(), records].concat();
    let Ok(report) = filter(&file[..], &permit, &FilterOptions::default(), &mut out) else {
        assert!(out.is_empty());
        return;
    };
    let mut text = Vec::new();
    InflateReader::new(&out[..], "out").read_to_end(&mut text).expect("our own BGZF");
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut kept = 0;
    for line in lines.filter(|line| line[0] != b'#') {
        let columns: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
        let position: usize = std::str::from_utf8(columns[1]).unwrap().parse().unwrap();
        assert!(columns[0] == b"c" && position >= 10 && position + columns[3].len() <= 21);
        kept += 1;
    }
    assert_eq!(report.kept, kept);
}
