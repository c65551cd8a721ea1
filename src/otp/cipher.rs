//! What protects payload on its way: said by whoever configures a site, never found out by trying.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How payload is protected on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cipher {
    /// One-time pad and tags: information-theoretic security.
    #[default]
    Otp,
    /// Neither. Only for measuring what the one-time pad costs.
    Plain,
    /// AES-256-GCM under keys from the pad: computational security, for whoever asks for it.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
}

/// What the security of a cipher rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// On nothing but the keys.
    InformationTheoretic,
    /// On an assumption about computing power.
    Computational,
    /// There is none.
    None,
}

impl Cipher {
    /// Every cipher.
    pub const ALL: [Cipher; 3] = [Cipher::Otp, Cipher::Plain, Cipher::Aes256Gcm];

    /// Its name in configurations, on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Otp => "otp",
            Cipher::Plain => "plain",
            Cipher::Aes256Gcm => "aes-256-gcm",
        }
    }

    /// What its security rests on: stands beside its name in every report.
    pub fn security(self) -> Security {
        match self {
            Cipher::Otp => Security::InformationTheoretic,
            Cipher::Plain => Security::None,
            Cipher::Aes256Gcm => Security::Computational,
        }
    }

    /// The byte that stands for it on the wire.
    pub fn code(self) -> u8 {
        match self {
            Cipher::Otp => 0,
            Cipher::Plain => 1,
            Cipher::Aes256Gcm => 2,
        }
    }

    /// The cipher that a byte stands for.
    pub fn from_code(code: u8) -> Option<Cipher> {
        Self::ALL.into_iter().find(|cipher| cipher.code() == code)
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_those_of_the_configuration_and_the_wire() {
        for cipher in Cipher::ALL {
            assert_eq!(Cipher::from_code(cipher.code()), Some(cipher));
            assert_eq!(serde_json::to_value(cipher).unwrap(), cipher.name());
        }
        assert_eq!(Cipher::from_code(3), None);
        assert_eq!(Cipher::default(), Cipher::Otp);
    }
}
