//! Credentials in memory, and texts without them. Knows how to hide; must not know what the secrets open, so that it
//! can guard any of them.

use std::fmt;

/// Longest error text that is kept, in bytes: enough for a cause, too little for an answer's body.
const MAX_TEXT_BYTES: usize = 400;

/// What is printed in a secret's place.
const REDACTED: &str = "[redacted]";

/// A credential. It prints as `[redacted]`, whichever way it is formatted, and is read only through [`Secret::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a credential.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The credential itself. Its only proper destination is the signer of a request.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// A text that may be shown: URLs lose their userinfo, query and fragment (signatures and tokens travel there), control
/// characters are escaped so that a hostile name cannot forge a log line, and the length is bounded.
pub(crate) fn scrub(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        out.push_str(before);
        // A URL ends where prose goes on: at white space or at a quote or bracket that messages put around it.
        let end = after.find(|c: char| c.is_whitespace() || "\"'<>()`".contains(c)).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        out.push_str(&scrub_url(url));
        rest = tail;
    }
    out.push_str(rest);
    bounded(&out)
}

/// The part of a URL behind `scheme://`, without userinfo, query and fragment.
fn scrub_url(url: &str) -> String {
    // A secret key may itself contain '/', '?' or '#', so userinfo is whatever stands before the last '@'.
    let (hidden, url) = match url.rsplit_once('@') {
        Some((_, rest)) => ("[redacted]@", rest),
        None => ("", url),
    };
    let mut shown = String::from(hidden);
    match url.find(['?', '#']) {
        Some(at) => {
            shown.push_str(&url[..at]);
            shown.push_str("?[redacted]");
        }
        None => shown.push_str(url),
    }
    shown
}

/// `text` with control characters escaped, cut to [`MAX_TEXT_BYTES`].
fn bounded(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= MAX_TEXT_BYTES {
            out.push_str("...");
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("CANARY");
        assert_eq!(format!("{secret} {secret:?} {:?} {:#?}", Some(&secret), [&secret]).matches("CANARY").count(), 0);
        assert_eq!(secret.reveal(), "CANARY");
    }

    #[test]
    fn urls_lose_userinfo_query_and_fragment() {
        assert_eq!(scrub("GET https://h/b/k?X-Amz-Signature=CANARY failed"), "GET https://h/b/k?[redacted] failed");
        assert_eq!(scrub("s3://AK:CANARY@lake/x"), "s3://[redacted]@lake/x");
        assert_eq!(scrub("s3://AK:CAN/ARY@lake/x"), "s3://[redacted]@lake/x");
        assert_eq!(
            scrub("(https://a/b#CANARY) and http://c/d?e=CANARY"),
            "(https://a/b?[redacted]) and http://c/d?[redacted]"
        );
        assert_eq!(scrub("no address here?"), "no address here?");
    }

    #[test]
    fn texts_are_bounded_and_cannot_forge_lines() {
        assert_eq!(scrub("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert!(scrub(&"x".repeat(10_000)).len() <= MAX_TEXT_BYTES + 3);
    }
}
