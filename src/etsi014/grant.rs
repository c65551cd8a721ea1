//! What key managers of one link tell each other, inside a session of one-time pad.
//!
//! The master's key manager makes fresh key of the link the same bytes at both ends ([`SUPPLY`], which
//! sends nothing), and then says which of these bytes, in order, are the keys of whom ([`GRANT`]). The
//! names of the keys are those of the permutation under the first such bytes of the session
//! ([`NAMES`]), so that they are not sent either. A grant is a sequence number (4 bytes) and entries,
//! integers little-endian:
//!
//! | tag | entry |
//! |---|---|
//! | 0 | a group, numbered from 0 in the session: master, 1 byte number of slaves, slaves; each an SAE ID behind its length in 1 byte |
//! | 1 | fresh keys: group (2), number (2), bytes of each (4) |
//! | 2 | copies, of keys from another link: the same, then for each its name (16) and its bytes |
//!
//! The version is in the kinds of the messages: another one would have others.
//!
//! The answer ([`GRANTED`]) is the sequence number and a byte for each entry with keys.

use super::held::{Group, SLAVES_MAX};
use super::identity::SaeId;
use super::message::NamedKey;
use super::name::KeyId;
use crate::base::Secret;

/// Kind of the keyed message whose bytes are the key of the names.
pub const NAMES: u16 = 0x1401;
/// Kind of the keyed messages whose bytes become keys.
pub const SUPPLY: u16 = 0x1402;
/// Kind of the messages that say whose keys they become.
pub const GRANT: u16 = 0x1403;
/// Kind of the answers to these.
pub const GRANTED: u16 = 0x1404;

/// Most bytes of the keys of one entry.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// The answer for one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The slaves can fetch the keys.
    Held,
    /// There is no room for more keys.
    Full,
    /// The group names somebody who is not where it should be.
    Unknown,
}

impl Verdict {
    const ALL: [Verdict; 3] = [Verdict::Held, Verdict::Full, Verdict::Unknown];
}

/// One entry of a grant.
pub enum Entry {
    /// The next group of the session.
    Group(Group),
    /// Keys out of the supply.
    Fresh {
        /// Whose.
        group: u16,
        /// How many.
        number: u16,
        /// Bytes of each.
        bytes: u32,
    },
    /// Keys that came over another link.
    Copies {
        /// Whose.
        group: u16,
        /// The keys.
        keys: Vec<NamedKey>,
    },
}

/// A grant on its way out. Wiped on drop: copies are in it.
pub struct GrantWriter(Secret<Vec<u8>>);

impl GrantWriter {
    /// A grant without entries, with room for `bytes` of them.
    pub fn new(sequence: u32, bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes + 4);
        buffer.extend_from_slice(&sequence.to_le_bytes());
        Self(Secret::new(buffer))
    }

    /// Adds a group.
    pub fn group(&mut self, group: &Group) {
        let out = self.0.expose_mut();
        out.push(0);
        let mut name = |id: &SaeId, before: Option<u8>| {
            out.push(id.as_str().len() as u8);
            out.extend_from_slice(id.as_str().as_bytes());
            out.extend(before);
        };
        name(&group.master, Some(group.slaves.len() as u8));
        group.slaves.iter().for_each(|id| name(id, None));
    }

    /// Adds fresh keys.
    pub fn fresh(&mut self, group: u16, number: usize, bytes: usize) {
        self.head(1, group, number, bytes);
    }

    /// Adds copies.
    pub fn copies(&mut self, group: u16, keys: &[NamedKey]) {
        let bytes = keys.first().map_or(0, |key| key.bytes.expose().len());
        self.head(2, group, keys.len(), bytes);
        let out = self.0.expose_mut();
        for key in keys {
            out.extend_from_slice(key.id.as_bytes());
            out.extend_from_slice(key.bytes.expose());
        }
    }

    fn head(&mut self, tag: u8, group: u16, number: usize, bytes: usize) {
        let out = self.0.expose_mut();
        out.push(tag);
        out.extend_from_slice(&group.to_le_bytes());
        out.extend_from_slice(&(number as u16).to_le_bytes());
        out.extend_from_slice(&(bytes as u32).to_le_bytes());
    }

    /// The message.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.expose()
    }
}

/// Room that the entries of a group and of its keys take, where `copies` are sent.
pub fn room(group: &Group, copies: &[NamedKey]) -> usize {
    let names = group.slaves.iter().chain([&group.master]).map(|id| id.as_str().len() + 1);
    let keys = copies.iter().map(|key| 16 + key.bytes.expose().len());
    16 + names.sum::<usize>() + keys.sum::<usize>()
}

/// Reads a grant; `None` when it is malformed.
pub fn parse_grant(message: &[u8]) -> Option<(u32, Vec<Entry>)> {
    let mut rest = message;
    let sequence = u32::from_le_bytes(take(&mut rest)?);
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let [tag] = take(&mut rest)?;
        entries.push(match tag {
            0 => Entry::Group(parse_group(&mut rest)?),
            1 | 2 => parse_keys(tag, &mut rest)?,
            _ => return None,
        });
    }
    Some((sequence, entries))
}

fn parse_group(rest: &mut &[u8]) -> Option<Group> {
    fn name(rest: &mut &[u8]) -> Option<SaeId> {
        let [length] = take(rest)?;
        let (text, after) = rest.split_at_checked(length.into())?;
        *rest = after;
        std::str::from_utf8(text).ok()?.parse().ok()
    }
    let master = name(rest)?;
    let [count] = take(rest)?;
    if !(1..=SLAVES_MAX).contains(&usize::from(count)) {
        return None;
    }
    let slaves = (0..count).map(|_| name(rest)).collect::<Option<_>>()?;
    Some(Group { master, slaves })
}

fn parse_keys(tag: u8, rest: &mut &[u8]) -> Option<Entry> {
    let group = u16::from_le_bytes(take(rest)?);
    let number = u16::from_le_bytes(take(rest)?);
    let bytes = u32::from_le_bytes(take(rest)?);
    let total = u64::from(number) * u64::from(bytes);
    if !(1..=ENTRY_BYTES_MAX as u64).contains(&total) {
        return None;
    }
    if tag == 1 {
        return Some(Entry::Fresh { group, number, bytes });
    }
    let mut keys = Vec::new();
    for _ in 0..number {
        let id = KeyId::from_bytes(take(rest)?);
        let (key, after) = rest.split_at_checked(bytes as usize)?;
        *rest = after;
        keys.push(NamedKey { id, bytes: Secret::new(key.into()) });
    }
    Some(Entry::Copies { group, keys })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*head)
}

/// Writes the answer to a grant.
pub fn write_granted(sequence: u32, verdicts: &[Verdict]) -> Vec<u8> {
    let verdicts = verdicts.iter().map(|verdict| *verdict as u8);
    sequence.to_le_bytes().into_iter().chain(verdicts).collect()
}

/// Reads the answer to a grant; `None` when it is malformed.
pub fn parse_granted(message: &[u8]) -> Option<(u32, Vec<Verdict>)> {
    let mut rest = message;
    let sequence = u32::from_le_bytes(take(&mut rest)?);
    let verdicts = rest.iter().map(|byte| Verdict::ALL.get(usize::from(*byte)).copied());
    Some((sequence, verdicts.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grants_read_back() {
        let group = Group {
            master: "m".parse().unwrap(),
            slaves: vec!["x".parse().unwrap(), "y\u{e9}".parse().unwrap()],
        };
        let key = |number| NamedKey {
            id: KeyId::from_bytes([number; 16]),
            bytes: Secret::new(vec![number; 9].into()),
        };
        let copies = [key(1), key(2)];
        let mut writer = GrantWriter::new(7, 2 * room(&group, &copies));
        writer.group(&group);
        writer.fresh(0, 3, 32);
        writer.copies(0, &copies);
        let (sequence, entries) = parse_grant(writer.as_bytes()).unwrap();
        assert_eq!((sequence, entries.len()), (7, 3));
        assert!(matches!(&entries[0], Entry::Group(read) if *read == group));
        assert!(matches!(entries[1], Entry::Fresh { group: 0, number: 3, bytes: 32 }));
        let Entry::Copies { keys, .. } = &entries[2] else { panic!("copies") };
        assert!(keys[1].id == copies[1].id && keys[1].bytes.expose() == copies[1].bytes.expose());
        for length in 0..writer.as_bytes().len() {
            let cut = parse_grant(&writer.as_bytes()[..length]);
            assert!(cut.is_none_or(|(_, entries)| entries.len() < 3));
        }
        let verdicts = [Verdict::Held, Verdict::Full, Verdict::Unknown];
        let answer = write_granted(9, &verdicts);
        assert_eq!(parse_granted(&answer), Some((9, verdicts.to_vec())));
        assert_eq!(parse_granted(&[0, 0, 0, 0, 3]), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_grant(&bytes);
            let _ = parse_granted(&bytes);
        }
    }
}
