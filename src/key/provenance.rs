//! Where key and random bytes come from, and what that allows: the part that goes into receipts.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::SiteId;

/// What an adversary with unlimited computing power can do against the bytes.
///
/// The order is from weak to strong: the class of several sources together is the least of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Only as hard to guess as some computation is long.
    Computational,
    /// Nothing: the bytes are uniform and independent of everything the adversary has.
    InformationTheoretic,
}

/// What the bytes may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Shared by two sites: one-time pad and authentication.
    Key,
    /// Known to one site at first: the R of secret sharing.
    Random,
}

/// What made the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Quantum key distribution.
    Qkd,
    /// A pad carried on a medium.
    Preshared,
    /// Relayed over trusted nodes.
    Relayed,
    /// A physical random number generator.
    Device,
    /// The operating system's generator.
    OperatingSystem,
    /// This program's generator, seeded by the operating system's.
    Generator,
    /// A simulated link: for trials, never for patients.
    Simulated,
}

macro_rules! display_kebab {
    ($type:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($type::$variant => $text),+ })
            }
        }
    };
}

display_kebab!(Class {
    Computational => "computational",
    InformationTheoretic => "information-theoretic",
});
display_kebab!(Kind { Key => "key", Random => "random" });
display_kebab!(Source {
    Qkd => "qkd",
    Preshared => "preshared",
    Relayed => "relayed",
    Device => "device",
    OperatingSystem => "operating-system",
    Generator => "generator",
    Simulated => "simulated",
});

/// What unused keys are to somebody who takes the disk they lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtRest {
    /// They lie there as they are, or what they are made of does.
    Exposed,
    /// Useless without seeds that were only in memory, as far as AES-256 holds
    /// ([`expansion`](super::expansion)).
    Computational,
}

display_kebab!(AtRest { Exposed => "exposed", Computational => "computational" });

/// What is known about the origin of key or random bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Provenance {
    /// What they may be used for.
    pub kind: Kind,
    /// What made them.
    pub source: Source,
    /// How strong they are.
    pub class: Class,
    /// Every site that has or had them.
    pub known_to: BTreeSet<SiteId>,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.source, self.class)
    }
}

impl Provenance {
    /// Whether the bytes may be the R of a secret whose owner is `owner` and whose share C lies at
    /// `holder_of_c`. Anybody else who knows R gets the secret from share A or B alone.
    pub fn may_share_with(&self, owner: &SiteId, holder_of_c: &SiteId) -> bool {
        self.known_to.iter().all(|site| site == owner || site == holder_of_c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteId {
        name.parse().unwrap()
    }

    #[test]
    fn random_numbers_known_to_a_third_site_are_refused() {
        let mut provenance = Provenance {
            kind: Kind::Key,
            source: Source::Qkd,
            class: Class::InformationTheoretic,
            known_to: [site("tommo"), site("lsa")].into(),
        };
        assert!(provenance.may_share_with(&site("tommo"), &site("lsa")));
        assert!(!provenance.may_share_with(&site("tommo"), &site("hospital")));
        provenance.known_to.insert(site("relay"));
        assert!(!provenance.may_share_with(&site("tommo"), &site("lsa")));
    }

    #[test]
    fn names_on_the_screen_are_those_in_files() {
        for source in [Source::Qkd, Source::OperatingSystem, Source::Simulated] {
            assert_eq!(serde_json::to_string(&source).unwrap(), format!("\"{source}\""));
        }
        for class in [Class::Computational, Class::InformationTheoretic] {
            assert_eq!(serde_json::to_string(&class).unwrap(), format!("\"{class}\""));
        }
    }
}
