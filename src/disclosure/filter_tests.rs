//! The filter against a slow and obvious model of what a right permits.

use std::io::{Read, Write};

use proptest::prelude::*;

use super::*;
use crate::genome::bgzf;
use crate::genome::inflate::InflateReader;

const HEADER: &str = "##fileformat=VCFv4.3\n##source=caller\n\
    ##INFO=<ID=DP,Number=1,Type=Integer,Description=\"d\">\n\
    ##FORMAT=<ID=GT,Number=1,Type=String,Description=\"g\">\n\
    ##FORMAT=<ID=GQ,Number=1,Type=Integer,Description=\"q\">\n\
    ##contig=<ID=c1,length=1000000>\n##contig=<ID=c2,length=1000000>\n\
    #CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tsample\n";

#[derive(Clone, Debug)]
struct Call {
    contig: u32,
    position: u32,
    reference: usize,
    quality: u32,
    passed: bool,
    genotype_quality: u32,
}

impl Call {
    /// The line; `number` marks it in a column that leaves and in one that does not.
    fn line(&self, number: usize) -> String {
        format!(
            "c{}\t{}\tid{number}.\t{}\tC\t{}\t{}\tDP=3;MARK=in{number}.\tGT:GQ\t0/1:{}\n",
            self.contig,
            self.position,
            "A".repeat(self.reference),
            self.quality,
            if self.passed { "PASS" } else { "LowQual" },
            self.genotype_quality,
        )
    }
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = (1u32..4, 1u32..300, 1usize..8, 0u32..60, any::<bool>(), 0u32..99);
    let call = call.prop_map(|(contig, position, reference, quality, passed, genotype_quality)| {
        Call { contig, position, reference, quality, passed, genotype_quality }
    });
    prop::collection::vec(call, 0..60).prop_map(|mut calls| {
        calls.sort_by_key(|call| (call.contig, call.position));
        calls
    })
}

/// Regions on the first two contigs, as first and last base, from 1.
fn regions() -> impl Strategy<Value = Vec<(u32, u32, u32)>> {
    let region = (1u32..3, 1u32..300, 1u32..60);
    prop::collection::vec(region.prop_map(|(c, first, len)| (c, first, first + len)), 1..5)
}

fn permit_of(regions: &[(u32, u32, u32)], extra: &str) -> Permit {
    let list: Vec<String> =
        regions.iter().map(|(c, first, last)| format!("'c{c}:{first}-{last}'")).collect();
    let extent = format!("regions=[{}]", list.join(","));
    let text = format!("id='r'\nuser='u'\npurpose='p'\n{extent}\n{extra}");
    toml::from_str::<Right>(&text).unwrap().resolve().unwrap()
}

fn vcf(calls: &[Call]) -> String {
    let lines: String = (0..).zip(calls).map(|(number, call)| call.line(number)).collect();
    format!("{HEADER}{lines}")
}

fn run(input: &[u8], permit: &Permit, threads: usize) -> Result<(Vec<u8>, FilterReport), Error> {
    let mut out = Vec::new();
    // Level 0 stores the text as it is, so that nothing can hide in the raw bytes.
    let done = filter(input, permit, &FilterOptions { threads, level: 0 }, &mut out);
    if done.is_err() {
        assert!(out.is_empty(), "nothing is written when the input is refused");
    }
    done.map(|report| (out, report))
}

fn text_of(file: &[u8]) -> String {
    let mut text = String::new();
    InflateReader::new(file, "out").read_to_string(&mut text).unwrap();
    text
}

fn numbers(file: &[u8]) -> Vec<usize> {
    let number =
        |line: &str| line.split('\t').nth(2)?.strip_prefix("id")?.strip_suffix('.')?.parse().ok();
    text_of(file)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| number(line).unwrap())
        .collect()
}

/// Base by base: slow, and hard to get wrong.
fn permitted(call: &Call, regions: &[(u32, u32, u32)], least: (u32, u32)) -> bool {
    let inside = |base: u32| {
        regions.iter().any(|(c, first, last)| *c == call.contig && (*first..=*last).contains(&base))
    };
    (call.position..call.position + call.reference as u32).all(inside)
        && call.passed
        && call.quality >= least.0
        && call.genotype_quality >= least.1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn exactly_the_permitted_records_leave(
        calls in calls(), regions in regions(), least in (0u32..40, 0u32..40), max in 0u64..20,
    ) {
        let extra = format!(
            "min-quality={}.0\nmin-genotype-quality={}\nmax-records={max}", least.0, least.1);
        let permit = permit_of(&regions, &extra);
        let text = vcf(&calls);
        let (file, report) = run(text.as_bytes(), &permit, 1).unwrap();
        let expected: Vec<usize> = (0..calls.len())
            .filter(|number| permitted(&calls[*number], &regions, least))
            .take(max as usize)
            .collect();
        prop_assert_eq!(numbers(&file), expected.clone());
        prop_assert_eq!(report.kept, expected.len() as u64);
        prop_assert_eq!(report.kept + report.removed, calls.len() as u64);
        prop_assert_eq!(report.text_bytes_in, text.len() as u64);
        prop_assert_eq!(report.text_bytes_out, text_of(&file).len() as u64);
        // Not one mark of a removed record, in any field, and no hidden field of a kept one.
        let raw = String::from_utf8_lossy(&file);
        for number in 0..calls.len() {
            let found = raw.contains(&format!("id{number}."));
            prop_assert_eq!(found, expected.contains(&number));
            let hidden = format!("in{number}.");
            prop_assert!(!raw.contains(&hidden));
        }
        prop_assert!(!raw.contains("caller") && !raw.contains("\nc3\t"));
    }

    #[test]
    fn packing_and_threads_do_not_change_a_byte(calls in calls(), regions in regions()) {
        let (permit, text) = (permit_of(&regions, ""), vcf(&calls));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let inputs = [
            text.clone().into_bytes(),
            text.replace('\n', "\r\n").into_bytes(),
            gzip.finish().unwrap(),
            bgzf::compress(text.as_bytes(), 1),
        ];
        let (expected, report) = run(&inputs[0], &permit, 1).unwrap();
        for (input, threads) in inputs.iter().zip([2, 3, 1, 3]) {
            let (file, other) = run(input, &permit, threads).unwrap();
            prop_assert!(file == expected);
            prop_assert_eq!(&other.tabix, &report.tabix);
        }
    }

    #[test]
    fn a_filter_that_permits_one_base_more_is_caught(
        calls in calls(), regions in regions(), side: bool,
    ) {
        let wider: Vec<_> = regions
            .iter()
            .map(|(c, first, last)| if side { (*c, *first, last + 1) } else {
                (*c, (first - 1).max(1), *last)
            })
            .collect();
        let (file, _) = run(vcf(&calls).as_bytes(), &permit_of(&wider, ""), 1).unwrap();
        let left: Vec<usize> = numbers(&file);
        let wrong = |rules: &[(u32, u32, u32)]| {
            left != (0..calls.len()).filter(|n| permitted(&calls[*n], rules, (0, 0))).collect::<Vec<_>>()
        };
        prop_assert!(!wrong(&wider));
        // The model tells the two rights apart whenever any record does.
        let differs = calls.iter().any(|call| {
            permitted(call, &wider, (0, 0)) != permitted(call, &regions, (0, 0))
        });
        prop_assert_eq!(wrong(&regions), differs);
    }
}

fn many(count: usize) -> Vec<Call> {
    let call = |n: usize| Call {
        contig: 1 + (n >= count / 2) as u32,
        position: 1 + 7 * (n % (count / 2)) as u32,
        reference: 1 + n % 3,
        quality: 50,
        passed: !n.is_multiple_of(5),
        genotype_quality: 40,
    };
    (0..count).map(call).collect()
}

#[test]
fn large_files_are_filtered_alike_on_any_threads_and_their_index_is_true() {
    let calls = many(60_000);
    let permit = permit_of(&[(1, 1, 150_000), (2, 70_000, 200_000)], "");
    let input = bgzf::compress(vcf(&calls).as_bytes(), 1);
    let (file, report) = run(&input, &permit, 1).unwrap();
    assert!(run(&input, &permit, 4).unwrap().0 == file);
    assert!(report.kept > 20_000 && report.text_bytes_out > 1_200_000);
    let index = noodles::tabix::io::Reader::new(&report.tabix[..]).read_index().unwrap();
    let mut reader = noodles::vcf::io::IndexedReader::new(io::Cursor::new(file), index);
    let header = reader.read_header().unwrap();
    for (contig, first, last) in
        [(1, 1, 1), (1, 50_000, 60_000), (2, 1, 69_999), (2, 199_000, 300_000)]
    {
        let expected = calls.iter().filter(|call| {
            let end = call.position + call.reference as u32;
            call.contig == contig
                && call.position <= last
                && end > first
                && permitted(call, &[(1, 1, 150_000), (2, 70_000, 200_000)], (0, 0))
        });
        let region = format!("c{contig}:{first}-{last}").parse().unwrap();
        let found = reader.query(&header, &region).unwrap();
        assert_eq!(found.records().count(), expected.count(), "{region}");
    }
}

#[test]
fn a_malformed_line_is_named_wherever_it_is() {
    let header_lines = HEADER.lines().count();
    let permit = permit_of(&[(1, 1, 10)], "");
    for at in [0, 1, 39_999] {
        let mut lines: Vec<String> =
            (0..).zip(many(40_000)).map(|(number, call)| call.line(number)).collect();
        lines[at] = lines[at].replace("\tPASS\t", "\t").replace("\tLowQual\t", "\t");
        let text = format!("{HEADER}{}", lines.concat());
        match run(text.as_bytes(), &permit, 2) {
            Err(Error::Malformed { line, what }) => {
                assert_eq!(line, (header_lines + at + 1) as u64);
                assert_eq!(what, "fewer columns than the header");
            }
            other => panic!("{:?}", other.map(|(_, report)| report)),
        }
    }
}

#[test]
fn disorder_damage_and_other_files_are_refused() {
    let permit = permit_of(&[(1, 1, 10)], "");
    let call = |contig, position| Call { contig, position, ..many(2)[0].clone() };
    let disordered = vcf(&[call(1, 9), call(1, 8)]);
    let scattered = vcf(&[call(1, 9), call(2, 1), call(1, 10)]);
    for text in [disordered, scattered, String::new(), "hello\n".into(), HEADER[..60].into()] {
        assert!(matches!(run(text.as_bytes(), &permit, 1), Err(Error::Malformed { .. })), "{text}");
    }
    let file = bgzf::compress(vcf(&many(30_000)).as_bytes(), 1);
    for cut in [file.len() - 28, file.len() / 2] {
        assert!(run(&file[..cut], &permit, 1).is_err());
    }
    let mut bad = file.clone();
    bad[file.len() / 2] ^= 4;
    assert!(run(&bad, &permit, 1).is_err());
}

#[test]
fn no_records_leave_a_header_alone() {
    let (file, report) =
        run(vcf(&many(10)).as_bytes(), &permit_of(&[(1, 900, 999)], ""), 1).unwrap();
    let text = text_of(&file);
    assert!(text.contains(",Kept=0,Removed=10>") && text.ends_with("FORMAT\tsample\n"));
    assert_eq!((report.kept, report.removed), (0, 10));
    let everything = Right::everything(Some(3)).resolve().unwrap();
    let (file, _) = run(vcf(&many(10)).as_bytes(), &everything, 1).unwrap();
    assert_eq!(numbers(&file), [0, 1, 2]);
}
