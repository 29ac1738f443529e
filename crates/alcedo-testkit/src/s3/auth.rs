//! Who may ask: anonymous by default, or one access key.
//!
//! It knows AWS Signature Version 4 in the `Authorization` header (the AWS General Reference, "Create a signed AWS API
//! request") and checks it in full, except for the age of its date: the server's clock is the client's own. Of the
//! other dialects it checks less, and says so: Azure's `SharedKey` must name the key's id as the account, its signature
//! is not verified; Google's `Bearer` token must be the secret.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::{digest, hmac};

use super::call::{Call, Dialect};
use super::refusal::Refusal;

/// What RFC 3986 lets stand as it is; signatures encode everything else.
const STRICT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for paths.
const STRICT_PATH: AsciiSet = STRICT.remove(b'/');

/// An id and its secret.
#[derive(Clone)]
pub(super) struct AccessKey {
    pub(super) id: String,
    pub(super) secret: String,
}

/// The parts of an `Authorization` header of Signature Version 4.
struct Authorization<'a> {
    scope: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl AccessKey {
    /// # Errors
    /// [`Refusal::AccessDenied`] when the request does not name this key, [`Refusal::SignatureDoesNotMatch`] when it
    /// was not signed with its secret.
    pub(super) fn check(&self, call: &Call) -> Result<(), Refusal> {
        let header = call.header("authorization").ok_or(Refusal::AccessDenied)?;
        if call.dialect == Dialect::Azure {
            let account = header.strip_prefix("SharedKey ").and_then(|rest| rest.split_once(':'));
            return if account.is_some_and(|(id, _)| id == self.id) { Ok(()) } else { Err(Refusal::AccessDenied) };
        }
        if let Some(token) = header.strip_prefix("Bearer ") {
            return if token == self.secret { Ok(()) } else { Err(Refusal::AccessDenied) };
        }
        let authorization = self.parse(header).ok_or(Refusal::AccessDenied)?;
        if self.sign(call, &authorization) == Some(authorization.signature.to_owned()) && body_is_signed(call) {
            Ok(())
        } else {
            Err(Refusal::SignatureDoesNotMatch)
        }
    }

    fn parse<'a>(&self, header: &'a str) -> Option<Authorization<'a>> {
        let fields = header.strip_prefix("AWS4-HMAC-SHA256")?;
        let field = |name: &str| fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
        let (id, scope) = field("Credential")?.split_once('/')?;
        let (signed_headers, signature) = (field("SignedHeaders")?, field("Signature")?);
        (id == self.id).then_some(Authorization { scope, signed_headers, signature })
    }

    /// The signature that this request must carry; none when it lacks a part of what is signed.
    fn sign(&self, call: &Call, authorization: &Authorization<'_>) -> Option<String> {
        let mut query: Vec<String> =
            call.query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        query.sort();
        let mut headers = String::new();
        for name in authorization.signed_headers.split(';') {
            let value = call.header(name)?.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            headers.push_str(&format!("{name}:{value}\n"));
        }
        let path = percent_decode_str(&call.path).decode_utf8().ok()?;
        let canonical = [
            call.method.as_str(),
            &utf8_percent_encode(&path, &STRICT_PATH).to_string(),
            &query.join("&"),
            &headers,
            authorization.signed_headers,
            call.header("x-amz-content-sha256")?,
        ]
        .join("\n");
        let date = call.header("x-amz-date")?;
        let to_sign = ["AWS4-HMAC-SHA256", date, authorization.scope, &sha256_hex(canonical.as_bytes())].join("\n");
        // The scope is date/region/service/aws4_request: the key is derived through its parts.
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in authorization.scope.split('/') {
            key = hmac_sha256(&key, part.as_bytes());
        }
        Some(hex(&hmac_sha256(&key, to_sign.as_bytes())))
    }
}

/// Whether the body is the one whose digest was signed, where one was.
fn body_is_signed(call: &Call) -> bool {
    let stated = call.header("x-amz-content-sha256").unwrap_or_default();
    stated == "UNSIGNED-PAYLOAD" || stated == sha256_hex(&call.body)
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, &STRICT).to_string()
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hmac_sha256(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
