//! Identifiers: parsed once at the edge, trusted afterwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why an identifier was refused.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{text}' is not a valid {what}: expected 1 to {max} of the letters a-z, A-Z, 0-9, '-', '_' and '.', not beginning with '.' or '-'"
)]
pub struct IdError {
    text: String,
    what: &'static str,
    max: usize,
}

fn check(text: &str, what: &'static str, max: usize) -> Result<(), IdError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let good =
        (1..=max).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with(['.', '-']);
    if good { Ok(()) } else { Err(IdError { text: text.chars().take(80).collect(), what, max }) }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check(text, $what, $max)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A site: a place with its own storage, keys and people.
    SiteId, "site name", 64
}
text_id! {
    /// What share holders know a data set by: random, so that it says nothing about the person.
    DatasetId, "data set identifier", 64
}
text_id! {
    /// What the data owner calls a deposit: a sample or a run. Never leaves the owner's site.
    SampleName, "sample name", 64
}
text_id! {
    /// One piece of work that was asked for.
    JobId, "job identifier", 64
}

/// Which of the three shares (Fujiwara et al. 2022, "Secret sharing").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ShareLetter {
    /// `(S1 ^ R1) . (S2 ^ R2 ^ R1)`.
    A,
    /// `(S1 ^ R1 ^ R2) . (S2 ^ R2)`.
    B,
    /// `R1 . R2`.
    C,
}

impl ShareLetter {
    /// The three, in order.
    pub const ALL: [ShareLetter; 3] = [ShareLetter::A, ShareLetter::B, ShareLetter::C];
}

impl fmt::Display for ShareLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One share of one member file of a data set, written `dataset/member/letter`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShareId {
    /// The data set.
    pub dataset: DatasetId,
    /// Which of its files, counting from 0.
    pub member: u32,
    /// Which share of that file.
    pub letter: ShareLetter,
}

impl fmt::Display for ShareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.dataset, self.member, self.letter)
    }
}

impl FromStr for ShareId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError { text: text.into(), what: "share identifier", max: 64 };
        let mut parts = text.split('/');
        let dataset = parts.next().ok_or_else(refuse)?.parse()?;
        let member = parts.next().and_then(|part| part.parse().ok()).ok_or_else(refuse)?;
        let letter = match parts.next() {
            Some("A") => ShareLetter::A,
            Some("B") => ShareLetter::B,
            Some("C") => ShareLetter::C,
            _ => return Err(refuse()),
        };
        if parts.next().is_some() {
            return Err(refuse());
        }
        Ok(Self { dataset, member, letter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_folder_are_refused() {
        for text in ["", "..", "a/b", "a b", "-x", "\u{e9}", &"x".repeat(65)] {
            assert!(text.parse::<SiteId>().is_err(), "{text}");
        }
        assert_eq!("tommo-1.a_b".parse::<SiteId>().unwrap().as_str(), "tommo-1.a_b");
    }

    #[test]
    fn share_identifiers_round_trip() {
        let id: ShareId = "g7f/2/B".parse().unwrap();
        assert_eq!(id.to_string(), "g7f/2/B");
        for text in ["g7f", "g7f/x/B", "g7f/2/D", "g7f/2/B/", "../2/B"] {
            assert!(text.parse::<ShareId>().is_err(), "{text}");
        }
    }
}
