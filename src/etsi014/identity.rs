//! Who applications and key managers are: names that their certificates give them.
//!
//! The identifier of an application (SAE ID) or of a key manager (KME ID) is the common name of
//! its certificate's subject. A certificate without one may have its identifier as the only URI
//! or, lacking that, the only DNS name of its subject alternative names. More than one candidate is
//! no identity: such a certificate is refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::base::SiteId;

/// Most bytes of an identifier.
pub const IDENTIFIER_BYTES_MAX: usize = 128;

/// The identifier of an application or of a key manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SaeId(String);

/// Why something identifies nobody.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text is no identifier.
    #[error("an identifier has 1 to {IDENTIFIER_BYTES_MAX} bytes and no control characters")]
    Text,
    /// The certificate cannot be read.
    #[error("the certificate is malformed")]
    Certificate,
    /// The certificate names nobody, or more than one.
    #[error("the certificate does not have exactly one name that could be an identifier")]
    Ambiguous,
}

impl SaeId {
    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identifier that a certificate, in DER, gives its subject.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::Certificate)?;
        let mut names: Vec<String> = Vec::new();
        for name in certificate.subject().iter_common_name() {
            names.push(name.as_str().map_err(|_| IdentityError::Certificate)?.into());
        }
        let alternative =
            certificate.subject_alternative_name().map_err(|_| IdentityError::Certificate)?;
        let others = alternative.map_or(&[][..], |names| &names.value.general_names);
        if names.is_empty() {
            names.extend(others.iter().filter_map(|name| match name {
                GeneralName::URI(uri) => Some((*uri).into()),
                _ => None,
            }));
        }
        if names.is_empty() {
            names.extend(others.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).into()),
                _ => None,
            }));
        }
        match &names[..] {
            [name] => name.parse(),
            _ => Err(IdentityError::Ambiguous),
        }
    }

    /// The identifier as one segment of a URL's path.
    pub fn to_segment(&self) -> String {
        let mut segment = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                segment.push(byte.into());
            } else {
                segment += &format!("%{byte:02X}");
            }
        }
        segment
    }

    /// The identifier that a segment of a URL's path stands for.
    pub fn from_segment(segment: &str) -> Result<Self, IdentityError> {
        percent_decoded(segment).ok_or(IdentityError::Text)?.parse()
    }
}

impl From<&SiteId> for SaeId {
    fn from(site: &SiteId) -> Self {
        Self(site.to_string())
    }
}

/// A part of a URL with its `%XX` resolved; `None` when they are malformed or not UTF-8.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let digits = rest.get(..2)?;
            let digit = |at: usize| char::from(digits[at]).to_digit(16);
            bytes.push((digit(0)? << 4 | digit(1)?) as u8);
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

impl FromStr for SaeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let good =
            (1..=IDENTIFIER_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if good { Ok(Self(text.into())) } else { Err(IdentityError::Text) }
    }
}

impl TryFrom<String> for SaeId {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<SaeId> for String {
    fn from(id: SaeId) -> String {
        id.0
    }
}

impl fmt::Display for SaeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common_names: &[&str], uris: &[&str], hosts: &[&str]) -> Vec<u8> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts).unwrap();
        parameters.distinguished_name = DistinguishedName::new();
        for name in common_names {
            parameters.distinguished_name.push(DnType::CommonName, *name);
        }
        for uri in uris {
            parameters.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_counts_then_a_uri_then_a_host() {
        let id = |der: Vec<u8>| SaeId::of_certificate(&der).map(|id| id.to_string()).ok();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(id(certificate(&["sae-a"], &["urn:x"], &["h", "i"])), some("sae-a"));
        assert_eq!(id(certificate(&[], &["urn:x"], &["h", "i"])), some("urn:x"));
        assert_eq!(id(certificate(&[], &[], &["h"])), some("h"));
        assert_eq!(id(certificate(&[], &[], &["h", "i"])), None);
        assert_eq!(id(certificate(&[], &["urn:x", "urn:y"], &["h"])), None);
        assert_eq!(id(certificate(&[], &[], &[])), None);
        assert_eq!(id(certificate(&["a\nb"], &[], &[])), None);
        assert_eq!(id(b"nonsense".to_vec()), None);
    }

    #[test]
    fn identifiers_survive_the_url() {
        for text in ["sae-a", "a/b?c#d", "\u{6771}\u{5317}", "a b%"] {
            let id: SaeId = text.parse().unwrap();
            assert!(id.to_segment().is_ascii());
            assert_eq!(SaeId::from_segment(&id.to_segment()).unwrap(), id);
        }
        for bad in ["", "%", "%4", "%zz", "%ff", "%0a", &"x".repeat(129)] {
            assert!(SaeId::from_segment(bad).is_err(), "{bad}");
        }
    }
}
