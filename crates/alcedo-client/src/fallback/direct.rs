//! One lookup at the origin: files, pruning, search, one answer.
//!
//! Knows the way that a worker's lookup takes, without its caches. It must not know why nobody else takes it. A file is
//! answered from one content version; if it changes in the middle it is asked once more on the new one.

use std::sync::Arc;
use std::time::Duration;

use alcedo_lookup::answer::{Body, FileAnswer as Found, KeyStatus as Status};
use alcedo_lookup::file_index::FileIndex;
use alcedo_lookup::machine::drive;
use alcedo_lookup::open::Open;
use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::search::{Query, Search};
use alcedo_origin::{ErrorKind, FileStat, Freshness, Listed, Listing, Path, Place};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::source::{Cost, Failure, OriginFile};
use super::{Fallback, ORIGIN, Opened, error_of, origin_error};
use crate::answer::{Answer, FileAnswer, KeyStatus, Row, Source};
use crate::error::{Error, Kind, Reason};

/// The ending of names that are looked into, as in a worker.
const FILE_ENDING: &str = ".parquet";
/// Bytes of a file's end that are read first, as in a worker: the footers of usual files are shorter.
const TAIL_BYTES: u64 = 64 << 10;
/// Most files of one lookup. Each one that is not known costs two trips to the origin, and nobody else will profit.
const MAX_FILES: usize = 1_000;
/// Most files that are searched after pruning by their bounds.
const MAX_CANDIDATES: usize = 64;
/// Files that are read at once.
const FILES_AT_ONCE: usize = 16;

/// One lookup under way.
pub(super) struct Direct<'a> {
    pub(super) fallback: &'a Fallback,
    pub(super) query: Arc<Query>,
    pub(super) deadline: Instant,
    pub(super) cost: &'a Cost,
}

impl Direct<'_> {
    /// The rows of a file, or of all files below a prefix.
    pub(super) async fn answer(&self, place: &Place) -> Result<Answer, Error> {
        let places = self.places(place).await?;
        let files_total = places.len();
        // As a worker does: of a file that is named it is told also which version has no such row.
        let is_named = matches!(places.as_slice(), [(_, None)]);
        // Boxed one by one: the compiler cannot see otherwise that all of them together may change threads.
        let opening: Vec<BoxFuture<'_, _>> =
            places.iter().map(|(place, listed)| self.open_of(place, listed.as_ref()).boxed()).collect();
        let opened: Vec<(&Place, Opened)> = stream::iter(opening).buffered(FILES_AT_ONCE).try_collect().await?;
        let (mut asked, mut files_asked) = (Vec::new(), 0);
        for (place, opened) in opened {
            let may_hold = opened.index.may_hold(&self.query);
            let may_hold = may_hold.map_err(|error| crate::file_error::error(&place.url, &error))?;
            files_asked += usize::from(may_hold);
            if may_hold || is_named {
                asked.push((place, opened));
            }
        }
        if files_asked > MAX_CANDIDATES {
            return Err(too_many(&place.url, "may hold the keys", MAX_CANDIDATES));
        }
        let asking: Vec<BoxFuture<'_, _>> =
            asked.into_iter().map(|(place, opened)| self.ask(place, opened).boxed()).collect();
        let found: Vec<_> = stream::iter(asking).buffered(FILES_AT_ONCE).try_collect().await?;
        let (files, statuses) = self.merged(found, is_named)?;
        let count = |files: usize| u32::try_from(files).unwrap_or(u32::MAX);
        Ok(Answer {
            files,
            statuses,
            ring_epoch: 0,
            worker: ORIGIN.into(),
            source: Source::Origin,
            files_total: count(files_total),
            files_asked: count(files_asked),
            origin_gets: 0,
            origin_bytes: 0,
            trace: None,
            elapsed: Duration::ZERO,
        })
    }

    async fn open_of<'p>(&self, place: &'p Place, listed: Option<&FileStat>) -> Result<(&'p Place, Opened), Error> {
        let opened = self.open(place, listed).await;
        Ok((place, opened.map_err(|failure| error_of(&place.url, &failure))?))
    }

    /// The files that a place stands for, each with its version if that was listed. What ends in a slash is a prefix,
    /// and so is what is no file but has files below it.
    async fn places(&self, place: &Place) -> Result<Vec<(Place, Option<FileStat>)>, Error> {
        if !place.ends_with_slash && !place.key.is_root() {
            match self.open(place, None).await {
                Ok(_) => return Ok(vec![(place.clone(), None)]),
                Err(failure) if failure.is(ErrorKind::NotFound) => {
                    let below = self.below(place).await?;
                    return if below.is_empty() { Err(error_of(&place.url, &failure)) } else { Ok(below) };
                }
                Err(failure) => return Err(error_of(&place.url, &failure)),
            }
        }
        let below = self.below(place).await?;
        if below.is_empty() {
            let message = format!("{}/: there is no Parquet file below this prefix", place.url);
            return Err(Error::new(Kind::NotFound, message).with_reason(Reason::EmptyPrefix));
        }
        Ok(below)
    }

    /// The Parquet files below a prefix.
    async fn below(&self, prefix: &Place) -> Result<Vec<(Place, Option<FileStat>)>, Error> {
        let listing = match prefix.mount.list(&prefix.key, true, usize::MAX, self.deadline).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Listing::default(),
            listing => listing.map_err(|error| origin_error(&error))?,
        };
        let file = |listed: Listed| match listed {
            Listed::File(stat) => Some((table_file(prefix, &stat.url)?, Some(stat))),
            _ => None,
        };
        let truncated = listing.truncated;
        let files: Vec<_> = listing.entries.into_iter().filter_map(file).collect();
        if truncated || files.len() > MAX_FILES {
            return Err(too_many(&prefix.url, "are below it", MAX_FILES));
        }
        Ok(files)
    }

    /// A file's index: one that is here and believed, or read now.
    async fn open(&self, place: &Place, listed: Option<&FileStat>) -> Result<Opened, Failure> {
        if let Some(known) = self.fallback.indexes.get(&place.url) {
            match listed {
                Some(listed) if listed.version == known.stat.version => return Ok(known),
                Some(_) => {}
                None if is_believed(place, known.checked) => return Ok(known),
                None => {
                    let checked = Instant::now();
                    let stat = place.mount.stat(&place.key, self.deadline).await?;
                    if stat.version == known.stat.version {
                        let known = Opened { checked, ..known };
                        self.fallback.indexes.insert(Arc::clone(&place.url), known.clone());
                        return Ok(known);
                    }
                }
            }
        }
        match self.read(place, listed.cloned()).await {
            // What the listing said is older than the file: whatever is there now is as good.
            Err(failure) if failure.is(ErrorKind::VersionChanged) => self.read(place, None).await,
            opened => opened,
        }
    }

    async fn read(&self, place: &Place, stat: Option<FileStat>) -> Result<Opened, Failure> {
        let checked = Instant::now();
        let file = self.file(place, stat);
        let index: Arc<FileIndex> = drive(Open::new(TAIL_BYTES, Arc::clone(&self.fallback.limits)), &file).await?;
        let stat = file.stat().cloned().ok_or(Failure::Died)?;
        let opened = Opened { stat, index, checked };
        self.fallback.indexes.insert(Arc::clone(&place.url), opened.clone());
        Ok(opened)
    }

    /// Searches a file, once more where it changed.
    async fn ask<'p>(&self, place: &'p Place, opened: Opened) -> Result<(&'p Place, (Arc<str>, Found)), Error> {
        let found = match self.search(place, &opened).await {
            Err(failure) if failure.is(ErrorKind::VersionChanged) => {
                self.fallback.indexes.invalidate(&place.url);
                match self.read(place, None).await {
                    Ok(opened) => self.search(place, &opened).await,
                    Err(failure) => Err(failure),
                }
            }
            found => found,
        };
        Ok((place, found.map_err(|failure| error_of(&place.url, &failure))?))
    }

    async fn search(&self, place: &Place, opened: &Opened) -> Result<(Arc<str>, Found), Failure> {
        let (index, limits) = (Arc::clone(&opened.index), Arc::clone(&self.fallback.limits));
        let search = Search::new(index, Arc::clone(&self.query), limits)?;
        let found = drive(search, &self.file(place, Some(opened.stat.clone()))).await?;
        Ok((opened.stat.version.as_str().into(), found))
    }

    fn file<'a>(&'a self, place: &'a Place, stat: Option<FileStat>) -> OriginFile<'a> {
        OriginFile::new(place, stat, self.fallback.limits.coalesce_gap_bytes, self.deadline, self.cost)
    }

    /// The files' rows as one answer, within the row limit per key over all of them. Files without rows are left out
    /// unless `keep_empty`.
    fn merged(
        &self,
        found: Vec<(&Place, (Arc<str>, Found))>,
        keep_empty: bool,
    ) -> Result<(Vec<FileAnswer>, Vec<KeyStatus>), Error> {
        let keys = self.query.keys.len();
        let mut statuses = vec![KeyStatus::NotFound; keys];
        let mut rows_left = vec![self.query.row_limit.unwrap_or(u32::MAX); keys];
        let mut files = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        for (place, (version, found)) in found {
            for (merged, status) in statuses.iter_mut().zip(&found.statuses) {
                *merged = later(*merged, *status);
            }
            rows += found.row_number.len();
            bytes += match &found.body {
                Body::Compact(body) | Body::ArrowIpc(body) => body.len(),
                Body::Pages(_) => 0,
            };
            if rows > self.fallback.limits.answer_rows || bytes > self.fallback.limits.answer_bytes {
                let message = format!("{}: the answer is too large; ask for fewer keys or set a row limit", place.url);
                return Err(Error::new(Kind::Invalid, message).with_reason(Reason::AnswerTooLarge));
            }
            let mut file = file_answer(&place.url, version, found)?;
            let cut = within(&mut file.rows, &mut rows_left, &mut statuses);
            if cut && file.arrow.is_some() {
                let message = "no worker reachable; the origin directly gives Arrow rows of several files only without \
                               a row limit";
                return Err(Error::new(Kind::Unavailable, message).with_reason(Reason::NoWorker));
            }
            if keep_empty || !file.rows.is_empty() {
                files.push(file);
            }
        }
        Ok((files, statuses))
    }
}

/// Cuts rows that are beyond what is left of their key's limit; says whether there were any.
fn within(rows: &mut Vec<Row>, rows_left: &mut [u32], statuses: &mut [KeyStatus]) -> bool {
    let before = rows.len();
    rows.retain(|row| {
        let key = row.key_index as usize;
        let Some(left) = rows_left.get_mut(key) else { return false };
        if *left == 0 {
            if let Some(status) = statuses.get_mut(key) {
                *status = KeyStatus::Truncated;
            }
            return false;
        }
        *left -= 1;
        true
    });
    rows.len() < before
}

fn later(merged: KeyStatus, status: Status) -> KeyStatus {
    match (merged, status) {
        (KeyStatus::Truncated, _) | (_, Status::Truncated) => KeyStatus::Truncated,
        (KeyStatus::Found, _) | (_, Status::Found) => KeyStatus::Found,
        (KeyStatus::NotFound, Status::NotFound) => KeyStatus::NotFound,
    }
}

fn file_answer(url: &Arc<str>, version: Arc<str>, found: Found) -> Result<FileAnswer, Error> {
    let damaged = || Error::internal(format!("{url}: the rows of an answer are damaged")).with_subject(&**url);
    let count = found.row_number.len();
    let (values, arrow) = match found.body {
        Body::Compact(rows) => (decode_rows(&found.schema, &rows).map_err(|_| damaged())?, None),
        Body::ArrowIpc(rows) => (vec![Vec::new(); count], (!rows.is_empty()).then_some(rows)),
        Body::Pages(_) => return Err(damaged()),
    };
    if values.len() != count || found.key_index.len() != count {
        return Err(damaged());
    }
    let rows = found.row_number.into_iter().zip(found.key_index).zip(values);
    let rows = rows.map(|((row_number, key_index), values)| Row { key_index, row_number, values }).collect();
    Ok(FileAnswer { url: Arc::clone(url), version, schema: found.schema, rows, arrow })
}

/// Whether a version that was current then is taken for current still, without asking.
fn is_believed(place: &Place, checked: Instant) -> bool {
    match place.mount.freshness() {
        Freshness::Immutable => true,
        Freshness::Ttl { soft, .. } => checked.elapsed() < soft,
        Freshness::Always => false,
    }
}

/// The place of a listed name, if it counts as a file of the table, by the worker's rule: it ends in `.parquet`, and
/// neither it nor a directory on the way is hidden.
fn table_file(prefix: &Place, url: &Arc<str>) -> Option<Place> {
    let below = url.strip_prefix(prefix.url.as_ref())?.strip_prefix('/')?;
    if below.split('/').any(|segment| segment.starts_with(['_', '.'])) || !below.ends_with(FILE_ENDING) {
        return None;
    }
    let key = Path::parse(url.strip_prefix(prefix.mount.url())?).ok()?;
    Some(Place { mount: Arc::clone(&prefix.mount), key, url: Arc::clone(url), ends_with_slash: false })
}

fn too_many(url: &str, which: &str, limit: usize) -> Error {
    let message = format!(
        "no worker reachable; the origin directly is asked for at most {limit} files of {url}/ that {which}: name a \
         file or a deeper prefix"
    );
    Error::new(Kind::Unavailable, message).with_reason(Reason::NoWorker)
}
