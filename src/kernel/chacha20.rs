//! ChaCha20 as a generator of random numbers, scalar form: what every faster form must equal.

use zeroize::Zeroize;

/// Bytes of one block.
pub const BLOCK_BYTES: usize = 64;

/// Fills `out` with the key stream of ChaCha20 under `key` and an all-zero nonce, from block `counter`
/// on.
///
/// Source: RFC 8439, section 2.4.
///
/// # Panics
/// When the block counter would pass 2^32.
pub fn fill(key: &[u8; 32], counter: u32, out: &mut [u8]) {
    check(counter, out.len());
    let mut state = state(key);
    for (piece, number) in out.chunks_mut(BLOCK_BYTES).zip(counter..=u32::MAX) {
        state[12] = number;
        let mut block = block(&state);
        piece.copy_from_slice(&block[..piece.len()]);
        block.zeroize();
    }
    state.zeroize();
}

/// Panics where the counter would begin again.
pub fn check(counter: u32, bytes: usize) {
    let blocks = bytes.div_ceil(BLOCK_BYTES) as u64;
    assert!(u64::from(counter) + blocks <= 1 << 32, "a key gives 256 GiB and not more");
}

/// The input of the block function, section 2.3, without a nonce.
pub fn state(key: &[u8; 32]) -> [u32; 16] {
    let mut state = [0; 16];
    state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    for (word, bytes) in state[4..12].iter_mut().zip(key.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    state
}

fn block(state: &[u32; 16]) -> [u8; BLOCK_BYTES] {
    let mut x = *state;
    for _ in 0..10 {
        quarter(&mut x, 0, 4, 8, 12);
        quarter(&mut x, 1, 5, 9, 13);
        quarter(&mut x, 2, 6, 10, 14);
        quarter(&mut x, 3, 7, 11, 15);
        quarter(&mut x, 0, 5, 10, 15);
        quarter(&mut x, 1, 6, 11, 12);
        quarter(&mut x, 2, 7, 8, 13);
        quarter(&mut x, 3, 4, 9, 14);
    }
    let mut bytes = [0; BLOCK_BYTES];
    for ((place, word), first) in bytes.chunks_exact_mut(4).zip(x).zip(state) {
        place.copy_from_slice(&word.wrapping_add(*first).to_le_bytes());
    }
    x.zeroize();
    bytes
}

/// Section 2.1.
fn quarter(x: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(16);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(12);
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(8);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(7);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    /// Section 2.3.2, which has a nonce.
    #[test]
    fn the_block_is_that_of_the_standard() {
        let key: [u8; 32] = std::array::from_fn(|n| n as u8);
        let mut input = state(&key);
        input[12..].copy_from_slice(&[1, 0x0900_0000, 0x4a00_0000, 0]);
        let expected = bytes(
            "10f1e7e4d13b5915500fdd1fa32071c4 c7d1f4c733c068030422aa9ac3d46c4e
             d2826446079faa0914c2d705d98b02a2 b5129cd1de164eb9cbd083e8a2503c4e",
        );
        assert_eq!(block(&input)[..], expected);
    }

    /// Appendix A.1, test vectors 1 and 2: an all-zero key and nonce, blocks 0 and 1.
    #[test]
    fn the_stream_is_that_of_the_standard() {
        let expected = bytes(
            "76b8e0ada0f13d90405d6ae55386bd28 bdd219b8a08ded1aa836efcc8b770dc7
             da41597c5157488d7724e03fb8d84a37 6a43b8f41518a11cc387b669b2ee6586
             9f07e7be5551387a98ba977c732d080d cb0f29a048e3656912c6533e32ee7aed
             29b721769ce64e43d57133b074d839d5 31ed1f28510afb45ace10a1f4b794d6f",
        );
        let mut stream = [0; 128];
        fill(&[0; 32], 0, &mut stream);
        assert_eq!(stream[..], expected);
        let mut second = [0; 40];
        fill(&[0; 32], 1, &mut second);
        assert_eq!(second[..], expected[64..104]);
    }

    #[test]
    fn a_counter_never_begins_again() {
        fill(&[0; 32], u32::MAX, &mut [0; 64]);
        let over = || fill(&[0; 32], u32::MAX, &mut [0; 65]);
        assert!(std::panic::catch_unwind(over).is_err());
    }
}
