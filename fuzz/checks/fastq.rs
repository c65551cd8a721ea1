//! FASTQ from anybody: no panic, and the same reads or error however the bytes are handed over.

use std::collections::VecDeque;

use dsgd::genome::fastq::FastqParser;
use dsgd::genome::{Layout, ReadBatch};

fn parse(text: &[u8], step: usize, layout: Layout) -> Result<Vec<Vec<u8>>, String> {
    let (mut parser, mut out) = (FastqParser::new("fuzz", layout, 0), VecDeque::<ReadBatch>::new());
    for piece in text.chunks(step) {
        parser.push(piece, &mut out).map_err(|error| error.to_string())?;
    }
    parser.finish(&mut out).map_err(|error| error.to_string())?;
    let read = |batch: &ReadBatch, index| {
        assert_eq!(batch.bases(index).len(), batch.qualities(index).len());
        [batch.name(index), batch.bases(index), batch.qualities(index)].join(&b'\n')
    };
    Ok(out
        .iter()
        .flat_map(|batch| (0..batch.len()).map(|i| read(batch, i)).collect::<Vec<_>>())
        .collect())
}

/// Parses a text whole and in pieces of `step` + 1 bytes.
pub fn check((step, paired, text): (u8, bool, &[u8])) {
    let layout = if paired { Layout::Paired } else { Layout::Single };
    let whole = parse(text, text.len().max(1), layout);
    assert_eq!(whole, parse(text, usize::from(step) + 1, layout));
}
