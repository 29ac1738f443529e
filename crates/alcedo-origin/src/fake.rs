//! A store for this crate's tests that answers what it is told to. Knows one file per key in memory and a script of
//! faults; must not know mounts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::error::Refused;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::StatusCode;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

/// What the store does with one request. A request beyond the script is answered honestly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    /// Answers honestly.
    Answer,
    /// Leaves out the body's last byte.
    Short,
    /// Goes on for a long time after the body.
    Long,
    /// Names another entity tag.
    OtherTag,
    /// Names another range.
    OtherRange,
    /// Ignores If-Match.
    IgnoreMatch,
    /// Refuses with a status that our connector passes on.
    Status(u16),
    /// Refuses like the library does with 403.
    Forbid,
    /// Breaks the connection.
    Break,
    /// Breaks the connection in the middle of the body.
    BreakBody,
    /// Answers honestly, but late.
    Late,
    /// Never answers.
    Stall,
    /// Sends headers and half of the body, then nothing.
    StallBody,
    /// Says what the library says about an answer that it does not understand.
    Odd,
}

/// How late [`Does::Late`] is.
pub(crate) const LATE: Duration = Duration::from_millis(40);

/// See [`Does`].
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) files: InMemory,
    script: Mutex<VecDeque<Does>>,
}

impl fmt::Display for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fake")
    }
}

/// A text that must never be seen: every error of this store quotes it where a signature would be.
pub(crate) const CANARY: &str = "CANARY-0123456789";

impl Fake {
    /// A store with one file and a script.
    pub(crate) async fn with(key: &str, bytes: &[u8], script: &[Does]) -> Self {
        let fake = Self::default();
        fake.files.put(&Path::from(key), PutPayload::from(bytes.to_vec())).await.unwrap();
        *fake.script.lock().unwrap() = script.iter().copied().collect();
        fake
    }

    fn next(&self) -> Does {
        self.script.lock().unwrap().pop_front().unwrap_or(Does::Answer)
    }

    /// How much of the script is left.
    pub(crate) fn left(&self) -> usize {
        self.script.lock().unwrap().len()
    }
}

/// An error as the library wraps what our connector says.
fn transport<E: std::error::Error + Send + Sync + 'static>(kind: HttpErrorKind, source: E) -> Error {
    Error::Generic { store: "fake", source: Box::new(HttpError::new(kind, source)) }
}

fn broken() -> Error {
    let text = format!("connection reset by https://AK:{CANARY}@host/bucket/a?X-Amz-Signature={CANARY}");
    transport(HttpErrorKind::Interrupted, std::io::Error::other(text))
}

async fn stall<T>() -> T {
    std::future::pending().await
}

fn more() -> Result<Bytes> {
    Ok(Bytes::from_static(b"!"))
}

/// The body of an honest answer, changed as `does` says.
fn spoil(result: &mut GetResult, body: Bytes, does: Does) {
    let half = body.slice(..body.len() / 2);
    let chunks: BoxStream<'static, Result<Bytes>> = match does {
        Does::Short => stream::iter([Ok(body.slice(..body.len() - 1))]).boxed(),
        Does::Long => stream::once(async { Ok(body) }).chain(stream::repeat_with(more).take(1000)).boxed(),
        Does::BreakBody => stream::iter([Ok(half), Err(broken())]).boxed(),
        Does::StallBody => stream::iter([Ok(half)]).chain(stream::once(stall())).boxed(),
        _ => stream::iter([Ok(half.clone()), Ok(body.slice(half.len()..))]).boxed(),
    };
    match does {
        Does::OtherTag => result.meta.e_tag = Some("\"other\"".to_owned()),
        Does::OtherRange => result.range = result.range.start + 1..result.range.end + 1,
        _ => {}
    }
    result.payload = GetResultPayload::Stream(chunks);
}

#[async_trait]
impl ObjectStore for Fake {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.files.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("no test writes in parts")
    }

    async fn get_opts(&self, location: &Path, mut options: GetOptions) -> Result<GetResult> {
        let does = self.next();
        match does {
            Does::Status(status) => {
                let status = StatusCode::from_u16(status).unwrap();
                return Err(transport(HttpErrorKind::Unknown, Refused { status, code: Some("SomeCode".to_owned()) }));
            }
            Does::Forbid => {
                let source = format!(
                    "Error performing GET https://host/b/a?sig={CANARY} in 1ms - Server returned non-2xx status code: \
                     403 Forbidden: <StringToSign>{CANARY}</StringToSign>"
                );
                return Err(Error::PermissionDenied { path: location.to_string(), source: source.into() });
            }
            Does::Break => return Err(broken()),
            Does::Late => tokio::time::sleep(LATE).await,
            Does::Stall => return stall().await,
            Does::Odd => {
                let source = format!("Received non-partial response from https://host/b?sig={CANARY}");
                return Err(Error::Generic { store: "fake", source: source.into() });
            }
            Does::IgnoreMatch => options.if_match = None,
            _ => {}
        }
        // A real store answers a suffix of an empty object with 416.
        if let (Some(GetRange::Suffix(_)), 0) = (&options.range, self.files.head(location).await?.size) {
            let refused = Refused { status: StatusCode::RANGE_NOT_SATISFIABLE, code: None };
            return Err(transport(HttpErrorKind::Unknown, refused));
        }
        let mut result = self.files.get_opts(location, options.clone()).await?;
        if !options.head {
            let (meta, range, attributes) = (result.meta.clone(), result.range.clone(), result.attributes.clone());
            let body = result.bytes().await?;
            let payload = GetResultPayload::Stream(stream::empty().boxed());
            result = GetResult { payload, meta, range, attributes };
            spoil(&mut result, body, does);
        }
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl PaginatedListStore for Fake {
    /// Pages in the order of the keys; the token is the last key of the page before.
    async fn list_paginated(&self, prefix: Option<&str>, options: PaginatedListOptions) -> Result<PaginatedListResult> {
        if let Does::Status(status) = self.next() {
            let refused = Refused { status: StatusCode::from_u16(status).unwrap(), code: None };
            return Err(transport(HttpErrorKind::Unknown, refused));
        }
        let prefix = prefix.map(|prefix| Path::parse(prefix).unwrap());
        let mut found = match options.delimiter.is_some() {
            true => self.files.list_with_delimiter(prefix.as_ref()).await?,
            false => ListResult {
                objects: self.files.list(prefix.as_ref()).map(|meta| meta.unwrap()).collect().await,
                common_prefixes: Vec::new(),
            },
        };
        // The placeholder of the prefix itself: the library strips the slash from its name.
        if let Some(prefix) = &prefix
            && let Ok(placeholder) = self.files.head(prefix).await
        {
            found.objects.push(placeholder);
        }
        let token = options.page_token.unwrap_or_default();
        let is_due = |path: &Path| path.as_ref() > token.as_str();
        let mut keys: Vec<Path> = found.objects.iter().map(|meta| meta.location.clone()).collect();
        keys.extend(found.common_prefixes.iter().cloned());
        keys.retain(is_due);
        keys.sort();
        let is_more = keys.len() > options.max_keys.unwrap();
        keys.truncate(options.max_keys.unwrap());
        let page_token = if is_more { keys.last().map(Path::to_string) } else { None };
        let objects = found.objects.into_iter().filter(|meta| keys.contains(&meta.location)).collect();
        let common_prefixes = found.common_prefixes.into_iter().filter(|prefix| keys.contains(prefix)).collect();
        Ok(PaginatedListResult { result: ListResult { objects, common_prefixes }, page_token })
    }
}
