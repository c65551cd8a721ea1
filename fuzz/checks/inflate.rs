//! Compressed bytes from anybody: no panic, and the same text or error in pieces of any size.

use dsgd::genome::Format;
use dsgd::genome::inflate::Inflate;

/// More text than this says nothing new.
const TEXT_BYTES: usize = 1 << 20;

fn decode(file: &[u8], step: usize) -> Option<Vec<u8>> {
    let mut inflate = Inflate::new("fuzz");
    let (mut text, mut buffer) = (Vec::new(), [0; 999]);
    for piece in file.chunks(step) {
        let mut taken = 0;
        loop {
            let (used, written) = inflate.step(&piece[taken..], &mut buffer).ok()?;
            text.extend_from_slice(&buffer[..written]);
            taken += used;
            if (used == 0 && written == 0) || text.len() > TEXT_BYTES {
                break;
            }
        }
        if text.len() > TEXT_BYTES {
            text.truncate(TEXT_BYTES);
            return Some(text);
        }
    }
    inflate.end().ok().map(|()| text)
}

/// Restores a file whole and in pieces of `step` + 1 bytes.
pub fn check((step, file): (u8, &[u8])) {
    let _ = Format::detect(file);
    assert_eq!(decode(file, file.len().max(1)), decode(file, usize::from(step) + 1));
}
