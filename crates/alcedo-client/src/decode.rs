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
use crate::kept_pages::KeptPages;

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
pub(crate) enum Unreadable {
    /// The worker's message contradicts itself.
    Message(String),
    /// The file's own data pages are at fault.
    #[cfg(feature = "pages")]
    File(alcedo_lookup::error::Error),
}

/// Why an answer could not be read.
#[derive(Debug)]
pub(crate) enum Undecoded {
    /// Its data pages cannot be decoded on this side.
    Pages(Error),
    /// Anything else.
    Other(Error),
}

impl From<Undecoded> for Error {
    fn from(undecoded: Undecoded) -> Self {
        match undecoded {
            Undecoded::Pages(error) | Undecoded::Other(error) => error,
        }
    }
}

impl From<Error> for Undecoded {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Unreadable {
    fn is_about_the_file(&self) -> bool {
        match self {
            Self::Message(_) => false,
            #[cfg(feature = "pages")]
            Self::File(_) => true,
        }
    }
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
pub(crate) fn answer(received: Received, keys: usize, url: &str, pages: &KeptPages) -> Result<Answer, Undecoded> {
    match received {
        Received::Whole { worker, answer, named } => whole(worker, answer, named, (keys, pages)),
        Received::Share { worker, share } => Ok(self::share(worker, &share, url)?),
    }
}

fn whole(
    worker: Arc<str>,
    mut answer: pb::Answer,
    named: Vec<Named>,
    (keys, pages): (usize, &KeptPages),
) -> Result<Answer, Undecoded> {
    if answer.statuses.len() != keys {
        let message = format!("{worker} sent {} key statuses for {keys} keys", answer.statuses.len());
        return Err(Error::internal(message).into());
    }
    let mut files = Vec::with_capacity(answer.files.len());
    for (rows, named) in std::mem::take(&mut answer.files).into_iter().zip(named) {
        let url = Arc::clone(&named.file.url);
        let read = file(rows, named, keys, pages);
        files.push(read.map_err(|what| {
            let is_about_pages = what.is_about_the_file();
            let error = unreadable(&worker, &url, what);
            if is_about_pages { Undecoded::Pages(error) } else { Undecoded::Other(error) }
        })?);
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

fn file(rows: pb::FileRows, named: Named, keys: usize, pages: &KeptPages) -> Result<FileAnswer, Unreadable> {
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
    let pb::FileRows { compact, typed, arrow_ipc, pages: sent, .. } = rows;
    let decode = |sent| pages.rows(sent, &named, &rows.row_number);
    let (values, arrow) = body((compact, typed, arrow_ipc, sent), &named.schema, count, decode)?;
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
    (compact, typed, arrow_ipc, pages): (Bytes, Vec<pb::TypedRow>, Bytes, Option<pb::Pages>),
    schema: &RowSchema,
    count: usize,
    decode: impl FnOnce(pb::Pages) -> Result<Vec<Vec<Value>>, Unreadable>,
) -> Result<(Vec<Vec<Value>>, Option<Bytes>), Unreadable> {
    match (!compact.is_empty(), !typed.is_empty(), !arrow_ipc.is_empty(), pages) {
        (true, false, false, None) => Ok((decode_rows(schema, &compact).map_err(|damage| damage.to_string())?, None)),
        (false, true, false, None) => Ok((crate::typed::rows(schema, typed)?, None)),
        (false, false, true, None) => Ok((vec![Vec::new(); count], Some(arrow_ipc))),
        (false, false, false, Some(pages)) => Ok((decode(pages)?, None)),
        // A file that was named and holds no row with the keys.
        (false, false, false, None) if count == 0 => Ok((Vec::new(), None)),
        (false, false, false, None) => Err("they are in no form that this client knows".to_owned().into()),
        _ => Err("they are in more than one form".to_owned().into()),
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
