//! Secret sharing of a file: stripes, each encoded so that manipulation shows, each split in three.
//!
//! # Format 1
//!
//! A file is cut into payloads of `stripe_bytes - 48` bytes; the last one may be shorter, and there
//! is always at least one stripe. Each becomes an encoded stripe of `stripe_bytes` bytes:
//!
//! | bytes | content |
//! |---|---|
//! | `stripe_bytes - 48` | payload, padded with zeros |
//! | 8 | number of the stripe, counting from 0, little-endian |
//! | 4 | true length of the payload, little-endian |
//! | 1 | 1 in the last stripe, else 0 |
//! | 1 | format version |
//! | 2 | zeros |
//! | 16 | `x`: fresh random bytes |
//! | 16 | `f(x)`: see [`stripe`] |
//!
//! The encoded stripe is the secret `S` of [`crate::kernel::share`]. So the length, the order and
//! the end of the file are inside the secret: a share of any file is noise whose size is a multiple
//! of `stripe_bytes`, and tells nothing else. No digest of the secret is kept anywhere.

pub mod device;
pub mod stripe;

use crate::base::{Chunk, Fault, Faulty, ShareLetter};
use crate::device::cpu::share as kernel;

/// Version of the share format that this program writes.
pub const FORMAT: u16 = 1;

/// Stripe size that this program writes, in bytes.
pub const STRIPE_BYTES: u32 = 1 << 20;

/// The three shares of one stripe, in the order of their letters.
pub struct Shares(pub [Chunk; 3]);

/// Splits an encoded stripe with `random`, which becomes share C.
///
/// Shapes: `encoded` and `random` of one even length; `spare` is any chunk with room for as much.
pub fn split(mut encoded: Chunk, random: Chunk, mut spare: Chunk) -> Shares {
    spare.set_seq(encoded.seq());
    spare.set_len(encoded.len());
    kernel::split(&mut encoded, &random, &mut spare);
    let mut random = random;
    random.set_seq(encoded.seq());
    Shares([encoded, spare, random])
}

/// Restores an encoded stripe from two shares of it.
///
/// Errors: [`Error::Shape`] when they are of different or odd lengths.
pub fn restore(
    mut first: Chunk,
    second: &Chunk,
    letters: (ShareLetter, ShareLetter),
) -> Result<Chunk, Error> {
    check_shape(&first, second)?;
    first.mark_secret();
    kernel::restore(&mut first, second, letters);
    Ok(first)
}

/// Rebuilds the third share of a stripe from the other two, without the secret.
///
/// Errors: [`Error::Shape`] when they are of different or odd lengths.
pub fn rebuild(
    mut first: Chunk,
    second: &Chunk,
    letters: (ShareLetter, ShareLetter),
) -> Result<Chunk, Error> {
    check_shape(&first, second)?;
    kernel::rebuild(&mut first, second, letters);
    Ok(first)
}

fn check_shape(first: &Chunk, second: &Chunk) -> Result<(), Error> {
    if first.len() == second.len() && first.len().is_multiple_of(2) && first.seq() == second.seq() {
        Ok(())
    } else {
        Err(Error::Shape { stripe: first.seq(), bytes: (first.len(), second.len()) })
    }
}

/// Why a stripe could not be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The two shares do not belong together.
    #[error("stripe {stripe}: shares of {} and {} bytes do not belong together", bytes.0, bytes.1)]
    Shape {
        /// Which stripe.
        stripe: u64,
        /// Lengths of the two shares.
        bytes: (usize, usize),
    },
    /// A share was changed after the deposit, or belongs to something else.
    #[error("stripe {stripe}: the shares do not fit together; one of them was changed")]
    Manipulated {
        /// Which stripe.
        stripe: u64,
    },
    /// No device could be asked, the CPU neither.
    #[error(transparent)]
    Device(#[from] crate::device::Error),
    /// The shares are of a version that this program does not know.
    #[error("stripe {stripe}: share format {version} is not known to this version of dsgd")]
    Version {
        /// Which stripe.
        stripe: u64,
        /// The version found.
        version: u8,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Shape { .. } | Error::Manipulated { .. } => Fault::Integrity,
            Error::Version { .. } => Fault::Data,
            Error::Device(error) => error.fault(),
        }
    }
}
