//! One lookup: its questions, its messages, and their answers made one.
//!
//! Knows how many messages a lookup takes and what one answer must be. It must not know how a message finds its worker.

use std::collections::HashMap;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use alcedo_lookup::key::Key;
use alcedo_proto::v1 as pb;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use crate::answer::{Answer, FileAnswer, Trace};
use crate::client::Client;
use crate::deadline::Deadline;
use crate::decode;
use crate::error::{Error, Kind, Reason};
use crate::request::{Form, Request};

/// Messages of one lookup that are under way at once. All go to one worker, and a full message may take all of its
/// permits: the worker would turn a second one away.
const MESSAGES_AT_ONCE: usize = 1;

/// A lookup that is being put together; awaiting it sends it.
///
/// Dropping the future cancels it on the worker. A lookup changes nothing, so one that failed may be sent again.
#[derive(Debug, Clone)]
#[must_use = "a lookup does nothing until it is awaited"]
pub struct Lookup {
    client: Client,
    path: String,
    key_column: String,
    keys: Vec<Key>,
    columns: Vec<String>,
    row_limit: u32,
    form: Form,
    deadline: Duration,
    trace: bool,
    unary: bool,
}

impl Lookup {
    pub(crate) fn new(client: Client, path: String) -> Self {
        Self {
            deadline: client.deadline,
            client,
            path,
            key_column: String::new(),
            keys: Vec::new(),
            columns: Vec::new(),
            row_limit: 0,
            form: Form::default(),
            trace: false,
            unary: false,
        }
    }

    /// The column to search. If it is not set, the first column by which the file declares to be sorted.
    pub fn key_column(mut self, column: impl Into<String>) -> Self {
        self.key_column = column.into();
        self
    }

    /// One more key.
    pub fn key(mut self, key: impl Into<Key>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// More keys, any number of them. More than [`MAX_KEYS_PER_MESSAGE`](crate::MAX_KEYS_PER_MESSAGE) travel in several
    /// messages.
    pub fn keys(mut self, keys: impl IntoIterator<Item = impl Into<Key>>) -> Self {
        self.keys.extend(keys.into_iter().map(Into::into));
        self
    }

    /// The columns of the answer, in this order; all columns in file order if it is empty or not set.
    pub fn select(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.columns = columns.into_iter().map(Into::into).collect();
        self
    }

    /// At most so many rows per key, in file order. Without it, or with 0, the worker's bound holds and passing it is
    /// an error.
    pub fn row_limit(mut self, rows: u32) -> Self {
        self.row_limit = rows;
        self
    }

    /// How the rows travel.
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// How long the whole lookup may take.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Asks the worker where the time went; see [`Answer::trace`].
    pub fn trace(mut self, trace: bool) -> Self {
        self.trace = trace;
        self
    }

    /// Uses a unary call for each message instead of the lookup stream, as clients in other languages do. It costs
    /// several times the CPU.
    pub fn unary(mut self, unary: bool) -> Self {
        self.unary = unary;
        self
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    async fn send(self) -> Result<Answer, Error> {
        let started = Instant::now();
        let deadline = self.client.start(self.deadline)?;
        let form = match (self.form, self.unary) {
            (Form::CompactRows, false) => pb::AnswerForm::CompactRows,
            (Form::CompactRows, true) => pb::AnswerForm::TypedValues,
            (Form::ArrowIpc, _) => pb::AnswerForm::ArrowIpc,
            (Form::Pages, _) => pb::AnswerForm::Pages,
        };
        let base = pb::LookupRequest {
            path: self.path,
            key_column: self.key_column,
            keys: Vec::new(),
            columns: self.columns,
            form: form.into(),
            row_limit: self.row_limit,
            timeout_us: 0,
            trace: self.trace,
            accept_parts: false,
        };
        let mut messages = Request::new(base, self.keys)?.messages()?;
        let client = &self.client;
        let mut answer = if messages.len() == 1 {
            let (_, message) = messages.swap_remove(0);
            exchange(client, message, self.unary, deadline).await?
        } else {
            let send = |(first, message)| async move {
                Ok::<_, Error>((first, exchange(client, message, self.unary, deadline).await?))
            };
            let answers = futures::stream::iter(messages).map(send).buffered(MESSAGES_AT_ONCE);
            merge(answers.try_collect().await?)?
        };
        answer.elapsed = started.elapsed();
        Ok(answer)
    }
}

impl IntoFuture for Lookup {
    type Output = Result<Answer, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// One message and its answer.
async fn exchange(
    client: &Client,
    message: pb::LookupRequest,
    unary: bool,
    deadline: Deadline,
) -> Result<Answer, Error> {
    let attempt = |worker: Arc<crate::transport::Worker>, connect_by| {
        let message = message.clone();
        async move {
            match unary {
                false => worker.lookup(message, connect_by, deadline).await,
                true => worker.lookup_unary(message, connect_by, deadline).await,
            }
        }
    };
    client.count_lookup();
    let received = match client.routing.route(&message.path, deadline, true, attempt).await {
        Ok(received) => received,
        Err(error) => return client.fall_back(&message, deadline, error).await,
    };
    client.routing.observe(received.answer.ring_epoch);
    decode::answer(received, message.keys.len())
}

/// Makes the answers of one lookup's messages one answer. Each comes with the number of its first key.
fn merge(answers: Vec<(u32, Answer)>) -> Result<Answer, Error> {
    let mut answers = answers.into_iter();
    let Some((_, mut whole)) = answers.next() else {
        return Err(Error::internal("a lookup was sent in no message"));
    };
    let mut places: HashMap<Arc<str>, usize> =
        whole.files.iter().enumerate().map(|(place, file)| (Arc::clone(&file.url), place)).collect();
    for (first, part) in answers {
        whole.statuses.extend(part.statuses);
        whole.source = whole.source.max(part.source);
        whole.ring_epoch = part.ring_epoch;
        whole.files_total = whole.files_total.max(part.files_total);
        whole.files_asked = whole.files_asked.max(part.files_asked);
        whole.origin_gets += part.origin_gets;
        whole.origin_bytes += part.origin_bytes;
        whole.trace = merge_traces(whole.trace, part.trace);
        for mut file in part.files {
            file.rows.iter_mut().for_each(|row| row.key_index += first);
            match places.get(&file.url).and_then(|&place| whole.files.get_mut(place)) {
                Some(there) => add(there, file).map_or(Ok(()), |apart| apart.map(|file| whole.files.push(file)))?,
                None => {
                    places.insert(Arc::clone(&file.url), whole.files.len());
                    whole.files.push(file);
                }
            }
        }
    }
    // Listing order, and file order within each file, as in the answer to one message.
    whole.files.sort_by(|a, b| a.url.cmp(&b.url));
    for file in whole.files.iter_mut().filter(|file| file.arrow.is_none()) {
        file.rows.sort_by_key(|row| (row.row_number, row.key_index));
    }
    Ok(whole)
}

/// Adds rows to those of the same file, or gives them back if they have to stand apart.
fn add(there: &mut FileAnswer, more: FileAnswer) -> Option<Result<FileAnswer, Error>> {
    if there.version != more.version {
        let message = format!("{} changed between two messages of this lookup; try again", there.url);
        let error = Error::new(Kind::VersionChanged, message).with_reason(Reason::VersionChanged);
        return Some(Err(error.with_subject(&*there.url)));
    }
    // Two Arrow streams do not make one, and rows of different columns do not either.
    if there.arrow.is_some() || more.arrow.is_some() || there.schema != more.schema {
        return Some(Ok(more));
    }
    there.rows.extend(more.rows);
    None
}

fn merge_traces(whole: Option<Trace>, part: Option<Trace>) -> Option<Trace> {
    match (whole, part) {
        (Some(mut whole), Some(part)) => {
            whole.stages.extend(part.stages);
            whole.notes.extend(part.notes);
            whole.total_us = whole.total_us.max(part.total_us);
            Some(whole)
        }
        (whole, part) => whole.or(part),
    }
}
