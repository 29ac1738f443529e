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
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::answer::{Answer, FileAnswer, Trace};
use crate::client::Client;
use crate::deadline::Deadline;
use crate::decode::{self, Undecoded};
use crate::error::{Error, Kind, Reason};
use crate::question::{Question, Spec};
use crate::request::{Form, Keys, messages};
use crate::tries::Turn;

/// Messages of one lookup that are under way at once. All go to one worker: while one is on its way back, the worker
/// has the next ones to work on. Where a worker turns one away, the others go one after the other.
const MESSAGES_AT_ONCE: usize = 4;

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
        let deadline = self.client.start(self.deadline)?;
        let form = self.form.on_wire(self.unary)?;
        let Self { client, path, key_column, keys, columns, row_limit, trace, unary, .. } = self;
        let accept_pages = client.pages.are_accepted_for(form);
        let spec = Spec { path, key_column, columns, form, row_limit, accept_pages };
        // What is asked once travels in full; what is asked again has a handle from then on.
        let (question, handle) = if unary || trace {
            (Arc::new(Question::new(spec)), None)
        } else {
            let (question, known) = client.routing.questions.find(spec);
            let handle = known.then(|| client.routing.questions.handle(&question));
            (question, handle)
        };
        let messages = messages(keys, question.room())?;
        let ask = Ask { question: &question, handle, trace, unary, deadline };
        client.ask(ask, messages).await
    }
}

/// All of a lookup's messages but their keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) question: &'a Arc<Question>,
    /// The question's handle, for workers that know handles.
    pub(crate) handle: Option<u32>,
    pub(crate) trace: bool,
    pub(crate) unary: bool,
    pub(crate) deadline: Deadline,
}

/// One message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) question: &'a Question,
    pub(crate) handle: Option<u32>,
    pub(crate) keys: &'a Keys,
    pub(crate) trace: bool,
    pub(crate) unary: bool,
}

impl IntoFuture for Lookup {
    type Output = Result<Answer, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl Client {
    /// Sends a lookup's messages, each with the number of its first key, and makes their answers one.
    pub(crate) async fn ask(&self, ask: Ask<'_>, mut messages: Vec<(u32, Keys)>) -> Result<Answer, Error> {
        let mut answer = match messages.pop() {
            Some((_, keys)) if messages.is_empty() => self.exchange(ask, &keys).await?,
            last => {
                messages.extend(last);
                merge(Box::pin(self.exchange_all(ask, messages)).await?)?
            }
        };
        answer.elapsed = ask.deadline.elapsed();
        Ok(answer)
    }

    /// One message and its answer. What is seldom gone through has its future elsewhere: this one is made for every
    /// message, and moved.
    pub(crate) async fn exchange(&self, ask: Ask<'_>, keys: &Keys) -> Result<Answer, Error> {
        let Ask { question, handle, trace, unary, deadline } = ask;
        if let Some(local) = &self.local {
            return decode::answer(local.lookup(&ask, keys).await?, keys.len(), "", &self.pages).map_err(Into::into);
        }
        let message = Message { question, handle, keys, trace, unary };
        self.count_lookup();
        let attempt = |turn: Turn| async move { turn.worker.lookup(&message, &turn, deadline).await };
        match self.routing.route_question(question, deadline, attempt).await {
            Ok((received, url)) => {
                self.routing.observe(received.ring_epoch());
                match decode::answer(received, keys.len(), &url, &self.pages) {
                    Err(Undecoded::Pages(error)) if question.spec().accept_pages => {
                        tracing::debug!(%error, "data pages in place of rows cannot be decoded: rows are asked for");
                        Box::pin(self.exchange_rows(ask, keys)).await
                    }
                    answer => Ok(answer?),
                }
            }
            Err(error) => {
                let request = pb::LookupRequest { trace, ..question.request(keys.clone().into_vec()) };
                Box::pin(self.fall_back(&request, deadline, error)).await
            }
        }
    }

    /// The same for rows alone. What is wrong with a file is found out, and perhaps mended, where they are decoded.
    async fn exchange_rows(&self, ask: Ask<'_>, keys: &Keys) -> Result<Answer, Error> {
        let spec = Spec { accept_pages: false, ..ask.question.spec().clone() };
        let question = Arc::new(Question::new(spec));
        self.exchange(Ask { question: &question, handle: None, ..ask }, keys).await
    }

    /// Several messages and their answers, in order.
    async fn exchange_all(&self, ask: Ask<'_>, messages: Vec<(u32, Keys)>) -> Result<Vec<(u32, Answer)>, Error> {
        let send = |number: usize| {
            let messages = &messages;
            async move {
                let answer = match messages.get(number) {
                    Some((_, keys)) => self.exchange(ask, keys).await,
                    None => Err(Error::internal("a message of a lookup is missing")),
                };
                (number, answer)
            }
        };
        let mut answers: Vec<Option<Answer>> = messages.iter().map(|_| None).collect();
        let (mut at_once, mut next, mut refused) = (MESSAGES_AT_ONCE, 0, Vec::new());
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < at_once {
                let Some(number) = refused.pop().or((next < messages.len()).then_some(next)) else { break };
                next = next.max(number + 1);
                under_way.push(send(number));
            }
            let Some((number, answer)) = under_way.next().await else { break };
            match answer {
                Ok(answer) => answers[number] = Some(answer),
                // The lookup's own messages may be what takes the worker's permits.
                Err(error) if error.kind == Kind::Exhausted && at_once > 1 && !under_way.is_empty() => {
                    (at_once, refused) = (1, [refused, vec![number]].concat());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(messages.iter().zip(answers).filter_map(|((first, _), answer)| Some((*first, answer?))).collect())
    }
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
