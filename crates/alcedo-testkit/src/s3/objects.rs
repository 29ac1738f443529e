//! Buckets and objects: names, contents in memory or on disk, versions, and listing in key order.
//!
//! It knows what a store keeps and the order in which it lists. It must not know how a dialect spells any of it. Every
//! put makes a new version, even with equal bytes: a test that overwrites a file wants to be seen.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::refusal::Refusal;

/// The first generation number, in the magnitude that Google Cloud Storage uses (microseconds since 1970).
const FIRST_GENERATION: u64 = 1_700_000_000_000_000;

/// Where the bytes of an object are.
#[derive(Clone, Debug)]
enum Content {
    Memory(Bytes),
    /// Held open, so that a rename or a removal on disk does not change what is served.
    Disk(Arc<File>),
}

/// One version of one object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    content: Content,
    /// Length in bytes.
    pub(super) size: u64,
    /// 32 hex digits, without quotes; each dialect dresses it in its own way.
    pub(super) etag: String,
    pub(super) modified: SystemTime,
    /// Grows with every put to this server.
    pub(super) generation: u64,
}

impl Object {
    /// The bytes from `offset` on, at most `length`; fewer only where the object ends.
    pub(super) fn read(&self, offset: u64, length: u64) -> io::Result<Bytes> {
        let end = offset.saturating_add(length).min(self.size);
        let start = offset.min(end);
        match &self.content {
            Content::Memory(bytes) => Ok(bytes.slice(to_index(start)?..to_index(end)?)),
            Content::Disk(file) => {
                let mut buffer = vec![0; to_index(end - start)?];
                file.read_exact_at(&mut buffer, start)?;
                Ok(Bytes::from(buffer))
            }
        }
    }

    /// The ETag as S3 sends it: in quotes.
    pub(super) fn quoted_etag(&self) -> String {
        format!("\"{}\"", self.etag)
    }
}

fn to_index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::Error::other(format!("offset {offset} does not fit this machine")))
}

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    Start,
    /// After this key.
    After(String),
    /// At this key or after it.
    From(String),
    /// After every key that begins with this common prefix.
    AfterPrefix(String),
}

/// One page of a listing is asked for with this.
#[derive(Clone, Debug)]
pub(super) struct ListQuery {
    pub(super) prefix: String,
    /// Empty: none.
    pub(super) delimiter: String,
    pub(super) cursor: Cursor,
    /// Most entries of a page: keys and common prefixes together.
    pub(super) limit: usize,
}

/// One page of a listing, in key order.
#[derive(Debug, Default)]
pub(super) struct ListPage {
    pub(super) objects: Vec<(String, Object)>,
    pub(super) prefixes: Vec<String>,
    /// Set when more entries follow.
    pub(super) next: Option<Cursor>,
}

type Bucket = BTreeMap<String, Object>;

#[derive(Debug, Default)]
struct Inner {
    buckets: BTreeMap<String, Bucket>,
    puts: u64,
}

/// All buckets of one server.
#[derive(Debug, Default)]
pub(super) struct Objects {
    inner: Mutex<Inner>,
}

impl Objects {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an empty bucket; an existing one stays as it is.
    pub(super) fn create_bucket(&self, bucket: &str) {
        self.lock().buckets.entry(bucket.to_owned()).or_default();
    }

    pub(super) fn bucket_exists(&self, bucket: &str) -> bool {
        self.lock().buckets.contains_key(bucket)
    }

    /// Stores bytes, making the bucket if need be.
    pub(super) fn put(&self, bucket: &str, key: &str, bytes: Bytes) -> Object {
        let digest = |put: u64| xxh3_128_with_seed(&bytes, put);
        self.insert(bucket, key, bytes.len() as u64, digest, Content::Memory(bytes.clone()))
    }

    /// Serves an open file; its length is taken now.
    pub(super) fn put_file(&self, bucket: &str, key: &str, file: File) -> io::Result<Object> {
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let identity = format!("{key} {} {}", metadata.len(), modified.as_nanos());
        let digest = |put: u64| xxh3_128_with_seed(identity.as_bytes(), put);
        Ok(self.insert(bucket, key, metadata.len(), digest, Content::Disk(Arc::new(file))))
    }

    fn insert(&self, bucket: &str, key: &str, size: u64, digest: impl Fn(u64) -> u128, content: Content) -> Object {
        let mut inner = self.lock();
        inner.puts += 1;
        let object = Object {
            content,
            size,
            etag: format!("{:032x}", digest(inner.puts)),
            modified: SystemTime::now(),
            generation: FIRST_GENERATION + inner.puts,
        };
        inner.buckets.entry(bucket.to_owned()).or_default().insert(key.to_owned(), object.clone());
        object
    }

    /// Whether there was something to remove.
    pub(super) fn remove(&self, bucket: &str, key: &str) -> bool {
        self.lock().buckets.get_mut(bucket).is_some_and(|keys| keys.remove(key).is_some())
    }

    /// # Errors
    /// [`Refusal::NoSuchBucket`] and [`Refusal::NoSuchKey`].
    pub(super) fn get(&self, bucket: &str, key: &str) -> Result<Object, Refusal> {
        let inner = self.lock();
        let keys = inner.buckets.get(bucket).ok_or(Refusal::NoSuchBucket)?;
        keys.get(key).cloned().ok_or(Refusal::NoSuchKey)
    }

    /// # Errors
    /// [`Refusal::NoSuchBucket`].
    pub(super) fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, Refusal> {
        let inner = self.lock();
        let keys = inner.buckets.get(bucket).ok_or(Refusal::NoSuchBucket)?;
        Ok(list_page(keys, query))
    }
}

fn list_page(keys: &Bucket, query: &ListQuery) -> ListPage {
    let mut page = ListPage::default();
    if query.limit == 0 {
        return page;
    }
    let mut last = query.cursor.clone();
    for (key, object) in keys.range::<str, _>((first_bound(query), Bound::Unbounded)) {
        let Some(rest) = key.strip_prefix(query.prefix.as_str()) else { break };
        if matches!(&last, Cursor::AfterPrefix(done) if key.starts_with(done.as_str())) {
            continue;
        }
        if page.objects.len() + page.prefixes.len() == query.limit {
            page.next = Some(last);
            return page;
        }
        let cut = if query.delimiter.is_empty() { None } else { rest.find(&query.delimiter) };
        if let Some(cut) = cut {
            let prefix = format!("{}{}{}", query.prefix, &rest[..cut], query.delimiter);
            page.prefixes.push(prefix.clone());
            last = Cursor::AfterPrefix(prefix);
        } else {
            page.objects.push((key.clone(), object.clone()));
            last = Cursor::After(key.clone());
        }
    }
    page
}

/// The first key to look at: the cursor's, or the prefix where that comes later. Keys with the prefix are one run from
/// there.
fn first_bound(query: &ListQuery) -> Bound<&str> {
    let bound = match &query.cursor {
        Cursor::Start => Bound::Unbounded,
        Cursor::After(key) | Cursor::AfterPrefix(key) => Bound::Excluded(key.as_str()),
        Cursor::From(key) => Bound::Included(key.as_str()),
    };
    match bound {
        Bound::Excluded(key) | Bound::Included(key) if key >= query.prefix.as_str() => bound,
        _ => Bound::Included(query.prefix.as_str()),
    }
}
