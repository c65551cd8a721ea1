//! The reference genome in memory, and FASTA in.

use std::collections::HashMap;
use std::io::Read;

use super::inflate::InflateReader;
use crate::base::{Fault, Faulty};

/// One contig of a reference.
#[derive(Clone, Debug)]
pub struct Contig {
    /// Name: the FASTA header up to the first white space.
    pub name: String,
    /// One byte a base: 0 to 3 for A, C, G, T; 4 for anything else.
    pub bases: Vec<u8>,
}

/// A reference genome: contigs in the order of the FASTA file.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    /// The contigs.
    pub contigs: Vec<Contig>,
}

/// Letters of the base codes 0 to 4.
pub const BASE_LETTERS: [u8; 5] = *b"ACGTN";

/// Code of a base letter: 0 to 3 for A, C, G, T in either case (U as T), 4 for anything else.
pub const fn base_code(letter: u8) -> u8 {
    match letter {
        b'A' | b'a' => 0,
        b'C' | b'c' => 1,
        b'G' | b'g' => 2,
        b'T' | b't' | b'U' | b'u' => 3,
        _ => 4,
    }
}

/// Why a FASTA file was refused. Lines count from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read or restored.
    #[error("reading the reference")]
    Read(#[source] std::io::Error),
    /// The file holds no sequence.
    #[error("the reference holds no sequence")]
    Empty,
    /// Something comes before the first header.
    #[error("line {line}: a FASTA file begins with '>'")]
    NoHeader {
        /// The line.
        line: u64,
    },
    /// A header without a name.
    #[error("line {line}: the contig has no name")]
    NoName {
        /// The line.
        line: u64,
    },
    /// A header without bases.
    #[error("contig '{contig}' has no bases")]
    NoBases {
        /// The contig.
        contig: String,
    },
    /// Two contigs of one name.
    #[error("line {line}: contig '{contig}' is there twice")]
    Duplicate {
        /// The line.
        line: u64,
        /// The contig.
        contig: String,
    },
    /// A character that stands for no base.
    #[error("line {line}: character {character:?} is not a base")]
    NotABase {
        /// The line.
        line: u64,
        /// The character.
        character: char,
    },
    /// Positions are 32 bits wide.
    #[error("contig '{contig}' is longer than 4294967295 bases")]
    TooLong {
        /// The contig.
        contig: String,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Read(error) => Fault::of_io(error),
            _ => Fault::Data,
        }
    }

    fn hint(&self) -> Option<String> {
        matches!(self, Error::NoHeader { .. }).then(|| "is this a FASTA file?".into())
    }
}

impl Reference {
    /// Reads FASTA, plain or compressed. Letters of either case; anything but ACGTU becomes N.
    pub fn read_fasta(reader: impl Read) -> Result<Self, Error> {
        let mut text = InflateReader::new(reader, "reference");
        let mut parser = Parser::default();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match text.read(&mut buffer) {
                Ok(0) => return parser.finish(),
                Ok(len) => parser.push(&buffer[..len])?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
    }

    /// Index of the contig called `name`. A scan: for many look-ups use [`indexes`](Self::indexes).
    pub fn contig_index(&self, name: &str) -> Option<u32> {
        self.contigs.iter().position(|contig| contig.name == name).map(|index| index as u32)
    }

    /// Index of every contig by its name.
    pub fn indexes(&self) -> HashMap<&str, u32> {
        (0..).zip(&self.contigs).map(|(index, contig)| (contig.name.as_str(), index)).collect()
    }

    /// Bases of all contigs.
    pub fn bases(&self) -> u64 {
        self.contigs.iter().map(|contig| contig.bases.len() as u64).sum()
    }

    /// BLAKE3 of the names, lengths and base codes of all contigs in order: equal for any two
    /// FASTA files that say the same in other line lengths, letter cases or compressions.
    pub fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for contig in &self.contigs {
            hasher.update(&(contig.name.len() as u64).to_le_bytes());
            hasher.update(contig.name.as_bytes());
            hasher.update(&(contig.bases.len() as u64).to_le_bytes());
            hasher.update(&contig.bases);
        }
        hasher.finalize()
    }
}

/// What a letter of a sequence line becomes.
const CODES: [u8; 256] = {
    let mut codes = [NOT_A_BASE; 256];
    let mut letter = 0;
    while letter < 256 {
        if (letter as u8).is_ascii_alphabetic() {
            codes[letter] = base_code(letter as u8);
        }
        letter += 1;
    }
    codes
};
const NOT_A_BASE: u8 = 0xff;

struct Parser {
    contigs: Vec<Contig>,
    names: HashMap<String, ()>,
    line: u64,
    at_line_start: bool,
    header: Option<Vec<u8>>,
}

impl Default for Parser {
    fn default() -> Self {
        let (contigs, names) = (Vec::new(), HashMap::new());
        Self { contigs, names, line: 1, at_line_start: true, header: None }
    }
}

impl Parser {
    fn push(&mut self, mut text: &[u8]) -> Result<(), Error> {
        while !text.is_empty() {
            let (part, rest, ended) = match memchr::memchr(b'\n', text) {
                Some(at) => (&text[..at], &text[at + 1..], true),
                None => (text, &text[text.len()..], false),
            };
            if self.at_line_start && part.first() == Some(&b'>') {
                self.header = Some(part[1..].to_vec());
            } else if let Some(header) = &mut self.header {
                header.extend_from_slice(part);
            } else {
                self.sequence(part)?;
            }
            self.at_line_start = ended;
            if ended {
                self.end_header()?;
                self.line += 1;
            }
            text = rest;
        }
        Ok(())
    }

    fn sequence(&mut self, part: &[u8]) -> Result<(), Error> {
        let line = self.line;
        let part = part.trim_ascii_end();
        if part.is_empty() {
            return Ok(());
        }
        let contig = self.contigs.last_mut().ok_or(Error::NoHeader { line })?;
        let start = contig.bases.len();
        contig.bases.extend(part.iter().map(|letter| CODES[usize::from(*letter)]));
        if let Some(at) = memchr::memchr(NOT_A_BASE, &contig.bases[start..]) {
            return Err(Error::NotABase { line, character: char::from(part[at]) });
        }
        Ok(())
    }

    fn end_header(&mut self) -> Result<(), Error> {
        let Some(header) = self.header.take() else { return Ok(()) };
        let line = self.line;
        let name = header.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        if name.is_empty() {
            return Err(Error::NoName { line });
        }
        self.end_contig()?;
        if self.names.insert(name.clone(), ()).is_some() {
            return Err(Error::Duplicate { line, contig: name });
        }
        self.contigs.push(Contig { name, bases: Vec::new() });
        Ok(())
    }

    fn end_contig(&mut self) -> Result<(), Error> {
        let Some(contig) = self.contigs.last_mut() else { return Ok(()) };
        if contig.bases.is_empty() {
            return Err(Error::NoBases { contig: contig.name.clone() });
        }
        if u32::try_from(contig.bases.len()).is_err() {
            return Err(Error::TooLong { contig: contig.name.clone() });
        }
        contig.bases.shrink_to_fit();
        Ok(())
    }

    fn finish(mut self) -> Result<Reference, Error> {
        self.end_header()?;
        self.end_contig()?;
        if self.contigs.is_empty() {
            return Err(Error::Empty);
        }
        Ok(Reference { contigs: self.contigs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Reference, Error> {
        Reference::read_fasta(text)
    }

    #[test]
    fn every_way_of_writing_a_sequence_is_read_the_same() {
        let plain = b">chr1 a note\nACGTNNNNacgtRYKM\n>chr2\nUu\n";
        let other = b"\n>chr1\tx\r\nACGTNNNN\r\n\r\nacgt\r\nNNNN\r\n>chr2\r\nt\nT";
        let (one, two) = (read(plain).unwrap(), read(other).unwrap());
        assert_eq!(one.contigs[0].bases, [0, 1, 2, 3, 4, 4, 4, 4, 0, 1, 2, 3, 4, 4, 4, 4]);
        assert_eq!(one.digest(), two.digest());
        let packed = crate::genome::bgzf::compress(plain, 6);
        assert_eq!(read(&packed).unwrap().digest(), one.digest());
        assert_eq!((one.contig_index("chr2"), one.contig_index("chr")), (Some(1), None));
        assert_eq!(one.bases(), 18);
    }

    #[test]
    fn pieces_do_not_matter() {
        let text = b">a b c\nACGT\nAC\n>d\nGGG\n";
        for step in 1..text.len() {
            let mut parser = Parser::default();
            text.chunks(step).for_each(|piece| parser.push(piece).unwrap());
            assert_eq!(parser.finish().unwrap().digest(), read(text).unwrap().digest());
        }
    }

    #[test]
    fn wrong_files_are_refused_with_the_line() {
        let cases: [(&[u8], &str); 7] = [
            (b"", "the reference holds no sequence"),
            (b"ACGT\n", "line 1: a FASTA file begins with '>'"),
            (b">a\nAC\n> \nAC\n", "line 3: the contig has no name"),
            (b">a\nAC\n>a\nAC\n", "line 3: contig 'a' is there twice"),
            (b">a\nAC\n>b\n", "contig 'b' has no bases"),
            (b">a\nAC\nA1\n", "line 3: character '1' is not a base"),
            (b">a\n>b\nA\n", "contig 'a' has no bases"),
        ];
        for (text, message) in cases {
            assert_eq!(read(text).unwrap_err().to_string(), message);
        }
        assert!(matches!(read(&[0x1f, 0x8b, 8, 0, 0, 0]), Err(Error::Read(_))));
    }
}
