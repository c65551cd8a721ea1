//! The engine with small shell scripts for programs.

use std::path::Path;

use super::*;
use crate::flow;
use crate::genome::reads::ReadRange;
use crate::genome::{ReadGroup, Reference};

fn batch(seq: u64, layout: Layout, templates: usize) -> ReadBatch {
    let mut batch = ReadBatch {
        seq,
        layout,
        read_group: 0,
        first_template: 0,
        text: Vec::new(),
        reads: Vec::new(),
    };
    let each = if layout == Layout::Paired { 2 } else { 1 };
    for read in 0..templates * each {
        let mut put = |text: &str| {
            let start = batch.text.len() as u32;
            batch.text.extend_from_slice(text.as_bytes());
            start..batch.text.len() as u32
        };
        let name = put(&format!("r{seq}.{}", read / each));
        let (bases, qualities) = (put("ACGT"), put("IIII"));
        batch.reads.push(ReadRange { name, bases, qualities });
    }
    batch
}

/// Prints a VCF with one record at `$1`.
const PRINT: &str = r#"printf '##fileformat=VCFv4.2\n##contig=<ID=c1,length=999>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tx\nc1\t%s\t.\tA\tC\t50\tPASS\t.\tGT\t0/1\n' "$1""#;

struct Outcome {
    result: Result<CallReport, crate::engine::Error>,
    vcf: String,
    left: usize,
}

fn run(
    script: &str,
    batches: Vec<flow::Result<ReadBatch>>,
    change: impl Fn(&mut ExternalSettings),
) -> Outcome {
    let parent = tempfile::tempdir().unwrap();
    let script = format!("print() {{ {PRINT}; }}; {script}");
    let mut settings = ExternalSettings {
        name: "script".into(),
        command: ["sh", "-c", &script].map(String::from).into(),
        version_command: Vec::new(),
        handover: Handover::Pipes,
        scratch: Some(parent.path().into()),
        timeout_seconds: 60,
    };
    change(&mut settings);
    let reference = Reference::default();
    let request = CallRequest {
        reference_path: Path::new("/ref.fa"),
        sample: "HG002".into(),
        read_groups: vec![ReadGroup {
            id: "1".into(),
            sample: "HG002".into(),
            library: "1".into(),
            unit: "1".into(),
            platform: "ILLUMINA".into(),
        }],
        threads: 3,
        command_line: "call".into(),
        ..CallRequest::new(&reference)
    };
    let (meters, mut out) = (Meters::default(), Vec::new());
    let reads = Flow::source(&meters, "reads", batches);
    let result = External::new(settings).call(&request, reads, &meters, &mut out, None);
    let mut vcf = String::new();
    crate::genome::inflate::InflateReader::new(&out[..], "x").read_to_string(&mut vcf).unwrap_or(0);
    Outcome { result, vcf, left: std::fs::read_dir(parent.path()).unwrap().count() }
}

fn paired(count: u64) -> Vec<flow::Result<ReadBatch>> {
    (0..count).map(|seq| Ok(batch(seq, Layout::Paired, 3000))).collect()
}

#[test]
fn reads_go_in_by_pipes_and_calls_come_back_on_standard_output() {
    // Reads both files alongside and puts the number of lines at the position.
    let script = r#"n=$(paste "$DSGD_READS_1" "$DSGD_READS_2" | grep -c "^ACGT.ACGT$"); print $n"#;
    let outcome = run(script, paired(30), |_| {});
    let report = outcome.result.unwrap();
    assert_eq!((report.reads, report.records), (180_000, 1));
    assert_eq!(report.vcf_bytes, outcome.vcf.len() as u64);
    assert!(outcome.vcf.contains("##dsgdCommandLine=call\n") && outcome.vcf.contains("\tHG002\n"));
    assert!(outcome.vcf.ends_with("c1\t90000\t.\tA\tC\t50\tPASS\t.\tGT\t0/1\n"));
    assert!(!report.tabix.is_empty());
    assert_eq!(outcome.left, 0, "the private folder is gone");
}

#[test]
fn files_may_be_read_one_after_the_other_and_the_output_named() {
    let script = r#"n=$(cat "$DSGD_READS_2" "$DSGD_READS_1" "$DSGD_READS_1" | wc -l)
        test $DSGD_THREADS-$DSGD_PLOIDY-$0 = 3-2-HG002/ref.fa || exit 9
        echo chatter; print $n > "$1""#;
    let outcome = run(script, paired(2), |settings| {
        settings.handover = Handover::Files;
        settings.command.extend(["{sample}{reference}", "{output}"].map(String::from));
        settings.command[2] = settings.command[2].replace("> \"$1\"", "> \"$DSGD_OUTPUT\"");
    });
    outcome.result.unwrap();
    assert!(outcome.vcf.contains("c1\t72000\t"));
    assert_eq!(outcome.left, 0);
}

#[test]
fn single_reads_need_one_file() {
    let script = r#"test $# = 1 || exit 9; print $(grep -c ACGT "$1")"#;
    let batches = vec![Ok(batch(0, Layout::Single, 7)), Ok(batch(1, Layout::Paired, 2))];
    let outcome = run(script, batches, |settings| {
        settings.command.extend(["x", "{reads_1}", "{reads_2}"].map(String::from));
    });
    assert_eq!(outcome.result.unwrap().reads, 11);
    assert!(outcome.vcf.contains("c1\t11\t"));
}

fn external(result: Result<CallReport, crate::engine::Error>) -> Error {
    match result {
        Err(crate::engine::Error::External(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn failures_keep_the_last_words() {
    let script = r#"cat "$DSGD_READS_1" "$DSGD_READS_2" > /dev/null; yes chatter | head -c 200000 >&2
        echo "no such index" >&2; exit 3"#;
    let outcome = run(script, vec![Ok(batch(0, Layout::Paired, 3))], |_| {});
    let Error::Failed { status, messages, .. } = external(outcome.result) else { panic!() };
    assert_eq!((status.code(), messages.len()), (Some(3), 64 << 10));
    assert!(messages.ends_with("no such index\n"));
    assert_eq!(outcome.left, 0);
}

#[test]
fn a_program_that_is_not_there_is_unavailable() {
    let outcome = run("", paired(1), |settings| settings.command = vec!["/nonexistent/x".into()]);
    let error = external(outcome.result);
    assert_eq!((error.fault(), outcome.left), (Fault::Unavailable, 0));
    let none = run("", paired(1), |settings| settings.command.clear());
    assert!(matches!(external(none.result), Error::NoCommand { .. }));
}

#[test]
fn a_program_that_takes_too_long_is_stopped_with_its_children() {
    for script in
        ["sleep 1000 & sleep 1000", r#"exec 3<"$DSGD_READS_1" 4<"$DSGD_READS_2"; sleep 999"#]
    {
        let outcome = run(script, paired(20), |settings| settings.timeout_seconds = 1);
        assert!(matches!(external(outcome.result), Error::TimedOut { seconds: 1, .. }));
        assert_eq!(outcome.left, 0);
    }
}

#[test]
fn reads_that_fail_stop_the_program() {
    let mut batches = paired(5);
    batches
        .push(Err(flow::Error::in_stage("test", Error::NoCommand { engine: "any error".into() })));
    let script = r#"paste "$DSGD_READS_1" "$DSGD_READS_2" > /dev/null; print 5"#;
    for handover in [Handover::Pipes, Handover::Files] {
        let batches = std::mem::replace(
            &mut batches,
            vec![Err(flow::Error::in_stage(
                "test",
                Error::NoCommand { engine: "any error".into() },
            ))],
        );
        let outcome = run(script, batches, |settings| settings.handover = handover);
        assert!(matches!(outcome.result, Err(crate::engine::Error::Reads(_))));
        assert_eq!((outcome.vcf.as_str(), outcome.left), ("", 0));
    }
}

#[test]
fn unread_reads_and_wrong_output_are_errors() {
    let outcome = run("print 5", paired(3), |_| {});
    assert!(matches!(external(outcome.result), Error::LeftReads { .. }));
    let read = r#"paste "$DSGD_READS_1" "$DSGD_READS_2" > /dev/null;"#;
    for (end, line) in [
        ("echo hello", 1),
        ("true", 1),
        ("print 5; print 6", 5),
        ("print x", 4),
        ("print 7; printf 'c1\\t6\\t.\\tA\\tC\\t.\\t.\\t.\\tGT\\t0/1\\n'", 5),
        ("print 5 | sed 's/\\tx$/\\tx\\ty/'", 3),
    ] {
        let outcome = run(&format!("{read} {end}"), paired(1), |_| {});
        match external(outcome.result) {
            Error::Output { line: found, what, .. } => assert_eq!(found, line, "{end}: {what}"),
            other => panic!("{end}: {other}"),
        }
    }
}

#[test]
fn placeholders_are_filled_once() {
    let values = [("a", String::from("{b}")), ("b", String::from("B"))];
    assert_eq!(fill("x{a}{b}{c}{", &values), "x{b}B{c}{");
}
