//! Layer 3: questions without their keys, resolved once.
//!
//! Knows questions that were asked before and, of each, the files that it goes to as far as they are known and fresh.
//! It must not know keys, rows, nor the wire. A question that is asked again and again finds its place, its files and
//! their columns here. What is resolved against an index lives as long as the index is in memory: this room holds only
//! weak references, so that it keeps no index alive that its own cache has dropped.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use alcedo_lookup::answer::Form;
use alcedo_lookup::decoded::DecodedPages;
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::limits::Limits;
use alcedo_lookup::prepared::Prepared;
use alcedo_lookup::search::Query;
use alcedo_origin::Place;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::error::Error;
use crate::listings::ListedFile;
use crate::lookups::Serving;
use crate::reader::FileVersion;

/// Memory for questions that were asked: tens of thousands of usual ones.
const ASKED_BYTES: u64 = 16 << 20;
/// What a question costs beside its texts: its place, its locks, and the table's own.
const ASKED_OVERHEAD_BYTES: usize = 768;
/// Questions that are kept resolved against one index. A file is asked in a few ways; who asks in more finds the last.
const MAX_TARGETS_PER_FILE: usize = 32;

/// All of a question but its keys and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// A file or a prefix, as the caller wrote it.
    pub path: String,
    /// The column to search; none: the first that the file declares it is sorted by.
    pub key_column: Option<String>,
    /// The answer's columns in order; none: all in file order.
    pub columns: Option<Vec<String>>,
    /// The answer's form.
    pub form: Form,
    /// At most so many rows per key.
    pub row_limit: Option<u32>,
}

impl Hash for Ask {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.path, &self.key_column, &self.columns, self.form as u8, self.row_limit).hash(state);
    }
}

impl Ask {
    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        let columns = self.columns.iter().flatten().map(|column| column.len() + size_of::<String>());
        self.path.len() + self.key_column.as_ref().map_or(0, String::len) + columns.sum::<usize>()
    }
}

/// A question whose path names a mount of ours.
#[derive(Debug)]
pub struct Asked {
    id: u64,
    /// The question.
    pub ask: Ask,
    /// What its path names.
    pub place: Place,
    /// The question as a machine wants it, without keys.
    query: Query,
    target: RwLock<Option<Arc<Target>>>,
}

/// The files that a question goes to, and until when that is believed without a look at what is known of them.
#[derive(Debug)]
pub(crate) struct Target {
    /// In listing order. Gone with the index it was made of.
    pub(crate) files: Box<[Weak<FileTarget>]>,
    /// The listing that names them; none where the path names the file.
    pub(crate) listing: Option<Arc<[ListedFile]>>,
    /// The state of the worker's knowledge that this was made of; see [`crate::indexes::Indexes::changes`].
    pub(crate) changes: u64,
    pub(crate) valid_until: Instant,
}

/// One index as one question sees it.
#[derive(Debug)]
pub struct FileTarget {
    /// Never used for another version, index or question in this process.
    pub id: u64,
    /// Where the file is.
    pub place: Place,
    /// The version that the index is of.
    pub version: FileVersion,
    /// The question, resolved.
    pub prepared: Arc<Prepared>,
    /// Its rows may be kept: they are encoded one by one, and every answer has the same columns.
    pub keeps_rows: bool,
    /// Which derived objects answer it, as last found out.
    serving: RwLock<Option<Arc<Serving>>>,
}

/// What is resolved against one index; it lives beside the index in the cache.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    all: Mutex<Vec<(u64, Arc<FileTarget>)>>,
    /// Where decoded data pages are kept.
    decoded: Option<Arc<DecodedPages>>,
}

impl Asked {
    /// What is known of the files that this goes to.
    pub(crate) fn target(&self) -> Option<Arc<Target>> {
        self.target.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what is known of them.
    pub(crate) fn set_target(&self, target: Option<Arc<Target>>) {
        *self.target.write().unwrap_or_else(PoisonError::into_inner) = target;
    }
}

impl FileTarget {
    /// A question that is resolved against the index of this version.
    pub(crate) fn new(place: &Place, version: &FileVersion, prepared: Arc<Prepared>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let keeps_rows = prepared.form() == Form::CompactRows && prepared.is_schema_fixed();
        let (id, place, version) = (NEXT.fetch_add(1, Ordering::Relaxed), place.clone(), version.clone());
        Self { id, place, version, prepared, keeps_rows, serving: RwLock::default() }
    }

    /// Which objects answer it, as last found out.
    pub(crate) fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes which objects answer it.
    pub(crate) fn set_serving(&self, serving: &Arc<Serving>) {
        *self.serving.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(serving));
    }
}

impl Targets {
    /// None yet.
    pub(crate) fn new(decoded: Option<Arc<DecodedPages>>) -> Self {
        Self { all: Mutex::default(), decoded }
    }

    /// This question, resolved against this index; found here or made now.
    ///
    /// # Errors
    /// No such column, or one that cannot be a key.
    pub(crate) fn of(
        &self,
        asked: &Asked,
        place: &Place,
        (version, index): (&FileVersion, &Arc<FileIndex>),
        limits: &Arc<Limits>,
    ) -> Result<Arc<FileTarget>, Error> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, target)) = all.iter().find(|(id, _)| *id == asked.id) {
            return Ok(Arc::clone(target));
        }
        let prepared = Prepared::new(Arc::clone(index), &asked.query, Arc::clone(limits));
        let mut prepared = prepared.map_err(|error| Error::file(&place.url, error))?;
        if let Some(decoded) = &self.decoded {
            prepared = prepared.with_decoded(Arc::clone(decoded));
        }
        let target = Arc::new(FileTarget::new(place, version, Arc::new(prepared)));
        if all.len() >= MAX_TARGETS_PER_FILE {
            all.remove(0);
        }
        all.push((asked.id, Arc::clone(&target)));
        Ok(target)
    }
}

#[derive(Debug, Clone)]
struct TextBytes;

impl Weighter<Arc<Ask>, Arc<Asked>> for TextBytes {
    fn weight(&self, ask: &Arc<Ask>, _: &Arc<Asked>) -> u64 {
        // In the key and in the question, and once more as a query.
        (3 * ask.text_bytes() + ASKED_OVERHEAD_BYTES) as u64
    }
}

/// The questions of one worker.
#[derive(Debug)]
pub(crate) struct Questions {
    asked: Cache<Arc<Ask>, Arc<Asked>, TextBytes>,
    next: AtomicU64,
}

impl Questions {
    pub(crate) fn new() -> Self {
        let usual = ASKED_BYTES as usize / (ASKED_OVERHEAD_BYTES + 256);
        Self { asked: Cache::with_weighter(usual, ASKED_BYTES, TextBytes), next: AtomicU64::new(1) }
    }

    /// The question that asks this; `resolve` says what its path names, where it was not asked before.
    ///
    /// # Errors
    /// Those of `resolve`.
    pub(crate) fn of(&self, ask: Ask, resolve: impl FnOnce(&str) -> Result<Place, Error>) -> Result<Arc<Asked>, Error> {
        if let Some(asked) = self.asked.get(&ask) {
            return Ok(asked);
        }
        let place = resolve(&ask.path)?;
        let query = Query {
            key_column: ask.key_column.clone(),
            keys: Vec::new(),
            columns: ask.columns.clone(),
            form: ask.form,
            row_limit: ask.row_limit,
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let key = Arc::new(ask.clone());
        let asked = Arc::new(Asked { id, ask, place, query, target: RwLock::new(None) });
        self.asked.insert(key, Arc::clone(&asked));
        Ok(asked)
    }
}
