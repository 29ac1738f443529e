//! One request, taken apart: dialect, operation, bucket, key, parameters.
//!
//! It knows URLs and which shape of a request means what. It must not know objects. Nothing is guessed: a path that
//! does not decode and a parameter that an operation does not know are refused.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

use super::log::Operation;
use super::refusal::Refusal;

/// The first part of a path that is spoken to in Azure's dialect: the account that Azure's own emulator uses.
pub(super) const AZURE_ACCOUNT: &str = "devstoreaccount1";

/// Whose protocol a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// S3, and the XML API of Google Cloud Storage.
    Amazon,
    /// Azure Blob.
    Azure,
}

/// One request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) dialect: Dialect,
    pub(super) operation: Operation,
    pub(super) method: Method,
    /// The path as it was sent, for signatures and error messages.
    pub(super) path: String,
    /// Bucket or container; empty when the request names none.
    pub(super) bucket: String,
    /// Empty when the request is about the bucket.
    pub(super) key: String,
    /// Decoded parameters in the order in which they were sent.
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    /// # Errors
    /// [`Refusal::InvalidArgument`] when the path or a parameter does not decode to UTF-8.
    pub(super) fn parse(parts: Parts, body: Bytes) -> Result<Self, Refusal> {
        let path = parts.uri.path().to_owned();
        let decoded = decode(&path)?;
        let name = decoded.strip_prefix('/').unwrap_or(&decoded);
        let azure = name.strip_prefix(AZURE_ACCOUNT).and_then(|rest| rest.strip_prefix('/'));
        let (dialect, name) = azure.map_or((Dialect::Amazon, name), |rest| (Dialect::Azure, rest));
        let (bucket, key) = name.split_once('/').unwrap_or((name, ""));
        let mut call = Self {
            dialect,
            operation: Operation::Other,
            method: parts.method,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            query: parse_query(parts.uri.query().unwrap_or_default())?,
            headers: parts.headers,
            body,
            path,
        };
        call.operation = call.classify();
        Ok(call)
    }

    fn classify(&self) -> Operation {
        let lists = match self.dialect {
            Dialect::Amazon => self.parameter("list-type").is_some(),
            Dialect::Azure => self.parameter("comp") == Some("list"),
        };
        match (self.method.as_str(), self.key.is_empty()) {
            ("GET", true) if lists && !self.bucket.is_empty() => Operation::List,
            ("GET", false) => Operation::Get,
            ("HEAD", false) => Operation::Head,
            ("PUT", false) => Operation::Put,
            ("DELETE", false) => Operation::Delete,
            _ => Operation::Other,
        }
    }

    /// A parameter's value, empty when it was sent without one.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A header's value where it is plain text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The range that is asked for. Azure's own header goes before the standard one.
    pub(super) fn range(&self) -> Option<&str> {
        let own = if self.dialect == Dialect::Azure { self.header("x-ms-range") } else { None };
        own.or_else(|| self.header("range"))
    }

    /// What fault rules and the log see behind the bucket: the key, or the prefix of a listing.
    pub(super) fn key_or_prefix(&self) -> &str {
        if self.operation == Operation::List { self.parameter("prefix").unwrap_or_default() } else { &self.key }
    }

    /// # Errors
    /// [`Refusal::NotImplemented`] for a parameter that is not in `known`: a sub-resource must never be mistaken for
    /// the object itself.
    pub(super) fn only_parameters(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.query.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(Refusal::NotImplemented(format!("the parameter {name}"))),
            None => Ok(()),
        }
    }
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
        })
        .collect()
}

fn decode(text: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| Refusal::InvalidArgument(format!("{text} does not decode to UTF-8.")))
}
