//! The messages of ETSI GS QKD 014 V1.1.1, clause 6: read strictly, written exactly.
//!
//! What comes from outside is bounded in length before it gets here. A field that occurs twice, a
//! number that is none, and an array where an object belongs are refused; a field that the standard
//! does not know is ignored, because clients in use send such.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroize;

use super::identity::{SaeId, percent_decoded};
use super::name::KeyId;
use super::refusal::{Refusal, text};
use crate::base::Secret;

/// A key with its name.
pub struct NamedKey {
    /// Its name.
    pub id: KeyId,
    /// Its bytes.
    pub bytes: Secret<Box<[u8]>>,
}

/// What an application asks of `enc_keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRequest {
    /// How many keys; 1, if not given.
    pub number: Option<u64>,
    /// Bits of each; the default of the key manager, if not given.
    pub size: Option<u64>,
    /// Who else gets the same keys.
    pub additional_slaves: Vec<SaeId>,
}

/// What a key manager says of the keys for a pair of applications (clause 6.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The key manager that answers.
    #[serde(rename = "source_KME_ID")]
    pub source_kme_id: String,
    /// The key manager of the slave.
    #[serde(rename = "target_KME_ID")]
    pub target_kme_id: String,
    /// Who asks.
    #[serde(rename = "master_SAE_ID")]
    pub master_sae_id: String,
    /// Whom the keys would be shared with.
    #[serde(rename = "slave_SAE_ID")]
    pub slave_sae_id: String,
    /// Bits of a key when the request does not say.
    pub key_size: u64,
    /// Keys of that size that are there.
    pub stored_key_count: u64,
    /// The most of them that there can be.
    pub max_key_count: u64,
    /// The most keys of one request.
    pub max_key_per_request: u64,
    /// The most bits of a key.
    pub max_key_size: u64,
    /// The fewest bits of a key.
    pub min_key_size: u64,
    /// The most additional slaves of one request.
    #[serde(rename = "max_SAE_ID_count")]
    pub max_sae_id_count: u64,
    /// What the keys are made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_extension: Option<BTreeMap<String, serde_json::Value>>,
}

/// Reads the body of a `POST` of `enc_keys`; an empty one asks for one key of the default size.
pub fn parse_key_request(body: &[u8]) -> Result<KeyRequest, Refusal> {
    if body.is_empty() {
        return Ok(KeyRequest::default());
    }
    let Object(raw): Object<RawKeyRequest> = parse(body, "the body is not a key request")?;
    if raw.extension_mandatory.iter().any(|extension| !extension.0.is_empty()) {
        return Err(Refusal::bad(text::MANDATORY));
    }
    let slaves = raw.additional_slaves.iter().map(|id| id.parse());
    let slaves = slaves.collect::<Result<_, _>>();
    Ok(KeyRequest {
        number: raw.number.value("number shall be an integer")?,
        size: raw.size.value("size shall be an integer")?,
        additional_slaves: slaves
            .map_err(|_| Refusal::bad("additional_slave_SAE_IDs has what is no SAE ID"))?,
    })
}

/// Reads the query of a `GET` of `enc_keys`.
pub fn parse_key_query(query: Option<&str>) -> Result<KeyRequest, Refusal> {
    let mut request = KeyRequest::default();
    for (name, value) in parameters(query) {
        let (place, message) = match name {
            "number" => (&mut request.number, "number shall be an integer"),
            "size" => (&mut request.size, "size shall be an integer"),
            _ => continue,
        };
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let value = if digits { value.parse().ok() } else { None };
        let value = value.ok_or_else(|| Refusal::bad(message))?;
        if place.replace(value).is_some() {
            return Err(Refusal::bad("a parameter is given twice"));
        }
    }
    Ok(request)
}

/// Reads the body of a `POST` of `dec_keys`.
pub fn parse_key_ids(body: &[u8]) -> Result<Vec<KeyId>, Refusal> {
    let Object(raw): Object<RawKeyIds<'_>> = parse(body, "the body is not a list of key IDs")?;
    let ids = raw.ids.iter().map(|Object(entry)| entry.id.parse());
    let ids: Vec<KeyId> =
        ids.collect::<Result<_, _>>().map_err(|_| Refusal::bad("a key_ID shall be a UUID"))?;
    check_ids(ids)
}

/// Reads the query of a `GET` of `dec_keys`: one name.
pub fn parse_key_id_query(query: Option<&str>) -> Result<Vec<KeyId>, Refusal> {
    let mut ids = Vec::new();
    for (_, value) in parameters(query).filter(|(name, _)| *name == "key_ID") {
        let value = percent_decoded(value).unwrap_or_default();
        ids.push(value.parse().map_err(|_| Refusal::bad("a key_ID shall be a UUID"))?);
    }
    if ids.len() > 1 {
        return Err(Refusal::bad("a parameter is given twice"));
    }
    check_ids(ids)
}

fn check_ids(ids: Vec<KeyId>) -> Result<Vec<KeyId>, Refusal> {
    if ids.is_empty() {
        return Err(Refusal::bad("key_IDs shall name at least one key"));
    }
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Refusal::bad("key_IDs names a key twice"));
    }
    Ok(ids)
}

fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// Writes a key container. Its memory is wiped on drop.
pub fn write_container(keys: &[NamedKey]) -> Secret<Vec<u8>> {
    const AROUND: usize = r#"{"key_ID":"","key":""},"#.len() + 36;
    let encoded = |key: &NamedKey| key.bytes.expose().len().div_ceil(3) * 4;
    let room = keys.iter().map(|key| AROUND + encoded(key)).sum::<usize>() + 16;
    // Never grows, so that no copy is left behind.
    let mut body = Secret::new(Vec::with_capacity(room));
    let out = body.expose_mut();
    out.extend_from_slice(br#"{"keys":["#);
    for (number, key) in keys.iter().enumerate() {
        out.extend_from_slice(if number == 0 { br#"{"key_ID":""# } else { br#",{"key_ID":""# });
        out.extend_from_slice(&key.id.to_text());
        out.extend_from_slice(br#"","key":""#);
        let start = out.len();
        out.resize(start + encoded(key), 0);
        let written = STANDARD.encode_slice(key.bytes.expose(), &mut out[start..]);
        debug_assert_eq!(written, Ok(encoded(key)));
        out.extend_from_slice(br#""}"#);
    }
    out.extend_from_slice(b"]}");
    debug_assert!(out.capacity() == room);
    body
}

/// Why an answer of a key manager cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// Not what the standard describes.
    #[error("it is not the JSON document that the standard describes")]
    Json,
    /// A name that is none.
    #[error("a key_ID is not a UUID")]
    KeyId,
    /// A key that is not in base64.
    #[error("a key is not in base64")]
    Base64,
    /// Another number of keys than was asked for.
    #[error("it has {found} keys where {wanted} were asked for")]
    Number {
        /// Asked for.
        wanted: usize,
        /// There.
        found: usize,
    },
    /// Another length than was asked for.
    #[error("a key has {found} bits where {wanted} were asked for")]
    Size {
        /// Asked for.
        wanted: u64,
        /// There.
        found: u64,
    },
    /// A name twice in one answer.
    #[error("it has a key_ID twice")]
    RepeatedId,
    /// A key twice in one answer.
    #[error("it has a key twice")]
    RepeatedKey,
    /// A name that was not asked for.
    #[error("it has a key_ID that was not asked for")]
    ForeignId,
}

/// Reads the status that a key manager answers.
pub fn parse_status(body: &[u8]) -> Result<Status, Defect> {
    let object: Result<Object<Status>, _> = serde_json::from_slice(body);
    object.map(|Object(status)| status).map_err(|_| Defect::Json)
}

/// Reads the key container that a key manager answers. `keys` may be spelled `Keys`, as it is in one
/// table of the standard.
///
/// Errors: every [`Defect`] but those that depend on what was asked for.
pub fn parse_container(body: &[u8]) -> Result<Vec<NamedKey>, Defect> {
    let object: Result<Object<RawContainer<'_>>, _> = serde_json::from_slice(body);
    let Object(container) = object.map_err(|_| Defect::Json)?;
    let mut keys = Vec::with_capacity(container.keys.len());
    for Object(raw) in &container.keys {
        let id: KeyId = raw.id.parse().map_err(|_| Defect::KeyId)?;
        keys.push(NamedKey { id, bytes: decode(&raw.key.0)? });
    }
    let mut ids: Vec<_> = keys.iter().map(|key| key.id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Defect::RepeatedId);
    }
    let mut bytes: Vec<&[u8]> = keys.iter().map(|key| &key.bytes.expose()[..]).collect();
    bytes.sort_unstable();
    if bytes.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Defect::RepeatedKey);
    }
    Ok(keys)
}

fn decode(text: &str) -> Result<Secret<Box<[u8]>>, Defect> {
    let padding = text.bytes().rev().take(2).take_while(|byte| *byte == b'=').count();
    let length = (text.len() / 4 * 3).checked_sub(padding).ok_or(Defect::Base64)?;
    let mut bytes = Secret::new(vec![0; length].into_boxed_slice());
    match STANDARD.decode_slice(text, bytes.expose_mut()) {
        Ok(written) if written == length && length > 0 => Ok(bytes),
        _ => Err(Defect::Base64),
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], what: &'static str) -> Result<T, Refusal> {
    let refuse = |message: &'static str, detail: String| Refusal::BadRequest {
        message: message.into(),
        detail: Some(detail),
    };
    std::str::from_utf8(body)
        .map_err(|error| refuse("the body is not UTF-8", error.to_string()))?;
    serde_json::from_slice(body).map_err(|error| {
        // Only where it is: what it is came from the application, and stays with it.
        let place = format!("line {}, column {}", error.line(), error.column());
        refuse(if error.is_data() { what } else { "the body is not JSON" }, place)
    })
}

#[derive(Deserialize)]
struct RawKeyRequest {
    #[serde(default)]
    number: Integer,
    #[serde(default)]
    size: Integer,
    #[serde(default, rename = "additional_slave_SAE_IDs")]
    additional_slaves: Vec<String>,
    #[serde(default)]
    extension_mandatory: Vec<Object<BTreeMap<String, IgnoredAny>>>,
    // Read to be checked; what is optional may be ignored.
    #[serde(default, rename = "extension_optional")]
    _extension_optional: Vec<Object<BTreeMap<String, IgnoredAny>>>,
}

#[derive(Deserialize)]
struct RawKeyIds<'a> {
    #[serde(borrow, rename = "key_IDs")]
    ids: Vec<Object<RawKeyId<'a>>>,
    #[serde(default, rename = "key_IDs_extension")]
    _extension: Option<Object<BTreeMap<String, IgnoredAny>>>,
}

#[derive(Deserialize)]
struct RawKeyId<'a> {
    #[serde(borrow, rename = "key_ID")]
    id: Cow<'a, str>,
    #[serde(default, rename = "key_ID_extension")]
    _extension: Option<Object<BTreeMap<String, IgnoredAny>>>,
}

#[derive(Deserialize)]
struct RawContainer<'a> {
    #[serde(borrow, alias = "Keys")]
    keys: Vec<Object<RawKey<'a>>>,
}

#[derive(Deserialize)]
struct RawKey<'a> {
    #[serde(borrow, rename = "key_ID")]
    id: Cow<'a, str>,
    #[serde(borrow)]
    key: SecretText<'a>,
}

/// A text that is wiped on drop, where it had to be copied.
#[derive(Deserialize)]
#[serde(transparent)]
struct SecretText<'a>(#[serde(borrow)] Cow<'a, str>);

impl Drop for SecretText<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

/// A JSON object, and not the array that serde would take for a structure as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Inside<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Inside<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Inside(PhantomData))
    }
}

/// What stands where a number belongs.
#[derive(Default)]
enum Integer {
    #[default]
    Absent,
    Value(u64),
    /// Negative, too large, not whole, or no number at all.
    Wrong,
}

impl Integer {
    fn value(&self, message: &'static str) -> Result<Option<u64>, Refusal> {
        match self {
            Integer::Absent => Ok(None),
            Integer::Value(value) => Ok(Some(*value)),
            Integer::Wrong => Err(Refusal::bad(message)),
        }
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = Integer;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }
            fn visit_u64<E>(self, value: u64) -> Result<Integer, E> {
                Ok(Integer::Value(value))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Integer, E> {
                Ok(Integer::Wrong)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Integer, E> {
                Ok(Integer::Wrong)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Integer, E> {
                Ok(Integer::Wrong)
            }
            fn visit_str<E>(self, _: &str) -> Result<Integer, E> {
                Ok(Integer::Wrong)
            }
            fn visit_unit<E>(self) -> Result<Integer, E> {
                Ok(Integer::Wrong)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Integer, A::Error> {
                Err(A::Error::custom("an integer was expected"))
            }
        }
        deserializer.deserialize_any(AnyValue)
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
