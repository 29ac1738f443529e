//! Answers off the wire as rows, whatever their form.
//!
//! Knows the wire's answer and what must hold in it; a worker's bytes are checked, not believed. It must not know which
//! call or stream they came over: the handles are already resolved.

use std::sync::Arc;
use std::time::Duration;

use alcedo_lookup::rows::decode_rows;
use alcedo_lookup::schema::RowSchema;
use alcedo_lookup::value::Value;
use alcedo_proto::v1 as pb;
use bytes::Bytes;

use crate::answer::{Answer, FileAnswer, KeyStatus, Row, Source, Stage, Trace};
use crate::batch::Share;
use crate::error::Error;
use crate::handles::Named;

/// An answer as it arrived.
#[derive(Debug)]
pub(crate) enum Received {
    /// The answer to one message.
    Whole {
        worker: Arc<str>,
        answer: pb::Answer,
        /// For each of the answer's files what its handles mean.
        named: Vec<Named>,
    },
    /// A part of the answer to several.
    Share { worker: Arc<str>, share: Share },
}

impl Received {
    /// The ring that the worker saw.
    pub(crate) fn ring_epoch(&self) -> u64 {
        match self {
            Self::Whole { answer, .. } => answer.ring_epoch,
            Self::Share { share, .. } => share.batch.answer.ring_epoch,
        }
    }
}

/// Why a file's rows could not be read.
enum Unreadable {
    /// The worker's message contradicts itself.
    Message(String),
    /// The file's own data pages are at fault.
    #[cfg(feature = "pages")]
    File(alcedo_lookup::error::Error),
}

impl From<String> for Unreadable {
    fn from(what: String) -> Self {
        Self::Message(what)
    }
}

/// Decodes the answer to a message of `keys` keys about the file or prefix at `url`.
///
/// # Errors
/// `Internal` if the message is not what the contract says; what is wrong with a file if its data pages cannot be
/// decoded.
pub(crate) fn answer(received: Received, keys: usize, url: &str) -> Result<Answer, Error> {
    match received {
        Received::Whole { worker, answer, named } => whole(worker, answer, named, keys),
        Received::Share { worker, share } => self::share(worker, &share, url),
    }
}

fn whole(worker: Arc<str>, mut answer: pb::Answer, named: Vec<Named>, keys: usize) -> Result<Answer, Error> {
    if answer.statuses.len() != keys {
        let message = format!("{worker} sent {} key statuses for {keys} keys", answer.statuses.len());
        return Err(Error::internal(message));
    }
    let mut files = Vec::with_capacity(answer.files.len());
    for (rows, named) in std::mem::take(&mut answer.files).into_iter().zip(named) {
        let url = Arc::clone(&named.file.url);
        files.push(file(rows, named, keys).map_err(|what| unreadable(&worker, &url, what))?);
    }
    let statuses = answer.statuses.iter().map(|status| key_status(*status)).collect();
    let trace = answer.trace.take().map(trace);
    Ok(Answer { files, statuses, trace, ..without_rows(worker, &answer) })
}

/// What an answer says beside its rows.
fn without_rows(worker: Arc<str>, answer: &pb::Answer) -> Answer {
    Answer {
        files: Vec::new(),
        statuses: Vec::new(),
        ring_epoch: answer.ring_epoch,
        worker,
        source: source(answer.source),
        files_total: answer.files_total,
        files_asked: answer.files_asked,
        origin_gets: answer.origin_gets.into(),
        origin_bytes: answer.origin_bytes,
        trace: None,
        elapsed: Duration::ZERO,
    }
}

/// One lookup's part of an answer to several. A file without rows of its own stays where the path names it, as in an
/// answer to this lookup alone.
fn share(worker: Arc<str>, share: &Share, path_url: &str) -> Result<Answer, Error> {
    let mut files = Vec::with_capacity(1);
    for (number, there) in share.batch.files.iter().enumerate() {
        let Named { file, schema } = &there.named;
        let mut rows = Vec::with_capacity(1);
        for (row_number, compact) in share.rows_of(number) {
            let decoded = decode_rows(schema, &compact)
                .map_err(|damage| unreadable(&worker, &file.url, Unreadable::Message(damage.to_string())))?;
            rows.extend(decoded.into_iter().map(|values| Row { key_index: 0, row_number, values }));
        }
        if !rows.is_empty() || there.is_empty() || *file.url == *path_url {
            let (url, version) = (Arc::clone(&file.url), Arc::clone(&file.version));
            files.push(FileAnswer { url, version, schema: Arc::clone(schema), rows, arrow: None });
        }
    }
    let statuses = vec![key_status(share.status())];
    Ok(Answer { files, statuses, ..without_rows(worker, &share.batch.answer) })
}

fn unreadable(worker: &str, url: &str, what: Unreadable) -> Error {
    match what {
        Unreadable::Message(what) => {
            Error::internal(format!("{worker} sent rows of {url} that cannot be read: {what}")).with_subject(url)
        }
        #[cfg(feature = "pages")]
        Unreadable::File(error) => crate::file_error::error(url, &error),
    }
}

fn file(rows: pb::FileRows, named: Named, keys: usize) -> Result<FileAnswer, Unreadable> {
    let count = rows.row_number.len();
    if !rows.key_index.is_empty() && rows.key_index.len() != count {
        return Err(format!("{} key indexes stand for {count} rows", rows.key_index.len()).into());
    }
    if let Some(index) = rows.key_index.iter().find(|&&index| index as usize >= keys) {
        return Err(format!("a row belongs to key {index} of {keys}").into());
    }
    if !rows.row_number.is_sorted() {
        return Err("the rows are not in file order".to_owned().into());
    }
    let (values, arrow) = body(rows.compact, rows.typed, rows.arrow_ipc, rows.pages, &named.schema, &rows.row_number)?;
    if values.len() != count {
        return Err(format!("{} rows have {count} row numbers", values.len()).into());
    }
    // An empty list says that every row belongs to key 0.
    let key_index = rows.key_index.into_iter().chain(std::iter::repeat(0));
    let rows = rows.row_number.into_iter().zip(key_index).zip(values);
    let rows = rows.map(|((row_number, key_index), values)| Row { key_index, row_number, values }).collect();
    Ok(FileAnswer { url: named.file.url, version: named.file.version, schema: named.schema, rows, arrow })
}

/// The rows' values, and the Arrow stream if they are in there. Exactly one form may be set.
fn body(
    compact: Bytes,
    typed: Vec<pb::TypedRow>,
    arrow_ipc: Bytes,
    pages: Option<pb::Pages>,
    schema: &RowSchema,
    row_number: &[u64],
) -> Result<(Vec<Vec<Value>>, Option<Bytes>), Unreadable> {
    match (!compact.is_empty(), !typed.is_empty(), !arrow_ipc.is_empty(), pages) {
        (true, false, false, None) => Ok((decode_rows(schema, &compact).map_err(|damage| damage.to_string())?, None)),
        (false, true, false, None) => Ok((crate::typed::rows(schema, typed)?, None)),
        (false, false, true, None) => Ok((vec![Vec::new(); row_number.len()], Some(arrow_ipc))),
        (false, false, false, Some(pages)) => Ok((pages::rows(pages, schema, row_number)?, None)),
        // A file that was named and holds no row with the keys.
        (false, false, false, None) if row_number.is_empty() => Ok((Vec::new(), None)),
        (false, false, false, None) => Err("they are in no form that this client knows".to_owned().into()),
        _ => Err("they are in more than one form".to_owned().into()),
    }
}

#[cfg(feature = "pages")]
mod pages {
    //! Data pages decoded on this side.

    use alcedo_lookup::answer::{DataPage, Pages, PagesChunk, PagesColumn, decode_pages};
    use alcedo_lookup::limits::Limits;

    use super::{Bytes, RowSchema, Unreadable, Value, decode_rows, pb};

    pub(super) fn rows(
        pages: pb::Pages,
        schema: &RowSchema,
        row_number: &[u64],
    ) -> Result<Vec<Vec<Value>>, Unreadable> {
        let columns = pages.columns.into_iter().map(column).collect();
        let pages = Pages { parquet_schema: Bytes::from(pages.parquet_schema), columns };
        let rows = decode_pages(&pages, schema, row_number, &Limits::default()).map_err(Unreadable::File)?;
        Ok(decode_rows(schema, &rows).map_err(|damage| damage.to_string())?)
    }

    fn column(column: pb::PagesColumn) -> PagesColumn {
        let chunks = column.chunks.into_iter().map(chunk).collect();
        PagesColumn { leaf: column.leaf, codec: column.codec, chunks }
    }

    fn chunk(chunk: pb::PagesChunk) -> PagesChunk {
        let page = |page: pb::DataPage| DataPage { first_row: page.first_row, rows: page.rows, page: page.page };
        let data_pages = chunk.data_pages.into_iter().map(page).collect();
        PagesChunk {
            first_row: chunk.first_row,
            rows: chunk.rows,
            dictionary: chunk.dictionary,
            data_pages,
            aligned: !chunk.pages_split_rows,
        }
    }
}

#[cfg(not(feature = "pages"))]
mod pages {
    //! Data pages without the parquet crate: refused.

    use super::{RowSchema, Unreadable, Value, pb};

    pub(super) fn rows(_: pb::Pages, _: &RowSchema, _: &[u64]) -> Result<Vec<Vec<Value>>, Unreadable> {
        Err("they are data pages, and this client is built without the feature `pages`".to_owned().into())
    }
}

fn key_status(status: i32) -> KeyStatus {
    match pb::KeyStatus::try_from(status).unwrap_or_default() {
        pb::KeyStatus::NotFound => KeyStatus::NotFound,
        pb::KeyStatus::Found => KeyStatus::Found,
        pb::KeyStatus::Truncated => KeyStatus::Truncated,
    }
}

fn source(source: i32) -> Source {
    match pb::Source::try_from(source).unwrap_or_default() {
        pb::Source::Unspecified => Source::Unknown,
        pb::Source::Memory => Source::Memory,
        pb::Source::PageStore => Source::PageStore,
        pb::Source::Peer => Source::Peer,
        pb::Source::Origin => Source::Origin,
    }
}

fn trace(trace: pb::Trace) -> Trace {
    let stage = |stage: pb::Stage| Stage {
        name: stage.name,
        file: stage.file,
        start_us: stage.start_us,
        duration_us: stage.duration_us,
        bytes: stage.bytes,
        origin_gets: stage.origin_gets,
        origin_bytes: stage.origin_bytes,
    };
    Trace { stages: trace.stages.into_iter().map(stage).collect(), total_us: trace.total_us, notes: trace.notes }
}
