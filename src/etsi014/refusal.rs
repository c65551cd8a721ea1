//! What a key manager answers when it does not give keys: status codes and texts of the standard.

use std::borrow::Cow;

use hyper::StatusCode;

/// Texts that clause 5 and clause 6 of ETSI GS QKD 014 V1.1.1 fix.
pub mod text {
    /// The size asked for is no whole number of bytes.
    pub const SIZE: &str = "size shall be a multiple of 8";
    /// A mandatory extension that is not known here.
    pub const MANDATORY: &str = "not all extension_mandatory parameters are supported";
    /// Names of keys that were never given, were fetched before, or have expired.
    pub const NOT_FOUND: &str = "one or more keys specified are not found on KME";
}

/// Why a key manager gives no keys. Says nothing about keys, other applications or this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The request is not what the standard allows, or names what is not there: 400.
    #[error("{message}")]
    BadRequest {
        /// What is wrong with it.
        message: Cow<'static, str>,
        /// Which part of it.
        detail: Option<String>,
    },
    /// The application may not have this: 401, without a body.
    #[error("not authorised")]
    Unauthorized,
    /// Keys are short, or a key manager that has to agree is away: 503.
    #[error("{message}")]
    Unavailable {
        /// What is missing.
        message: &'static str,
    },
    /// No such resource: 404, which the standard leaves to HTTP.
    #[error("there is no such resource")]
    NoResource,
    /// A resource that is used otherwise: 405, which the standard leaves to HTTP.
    #[error("this resource is used by {allow}")]
    Method {
        /// The methods it has.
        allow: &'static str,
    },
}

impl Refusal {
    /// A bad request for one of the reasons that need no detail.
    pub fn bad(message: &'static str) -> Self {
        Self::BadRequest { message: message.into(), detail: None }
    }

    /// The keys cannot be had now.
    pub fn unavailable(message: &'static str) -> Self {
        Self::Unavailable { message }
    }

    /// The status code of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Refusal::Unauthorized => StatusCode::UNAUTHORIZED,
            Refusal::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::NoResource => StatusCode::NOT_FOUND,
            Refusal::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// The error format of clause 6.5, or nothing where the standard wants no body.
    pub fn body(&self) -> Vec<u8> {
        let document = match self {
            Refusal::Unauthorized => return Vec::new(),
            Refusal::BadRequest { message, detail: Some(detail) } => {
                serde_json::json!({"message": message, "details": [{"reason": detail}]})
            }
            other => serde_json::json!({"message": other.to_string()}),
        };
        serde_json::to_vec(&document).expect("an error is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_form_of_the_standard() {
        let body = |refusal: &Refusal| String::from_utf8(refusal.body()).unwrap();
        let size = Refusal::bad(text::SIZE);
        assert_eq!(
            (size.status().as_u16(), body(&size).as_str()),
            (400, r#"{"message":"size shall be a multiple of 8"}"#)
        );
        let detail = Refusal::BadRequest { message: "no".into(), detail: Some("column 1".into()) };
        assert_eq!(body(&detail), r#"{"details":[{"reason":"column 1"}],"message":"no"}"#);
        assert_eq!(
            (Refusal::Unauthorized.status().as_u16(), body(&Refusal::Unauthorized).len()),
            (401, 0)
        );
        assert_eq!(Refusal::unavailable("short").status().as_u16(), 503);
    }
}
