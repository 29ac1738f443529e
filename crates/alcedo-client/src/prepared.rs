//! Prepared lookups: a question that is put together once and asked with key after key.
//!
//! Knows how a question is kept ready. It must not know how it travels: a lookup that is put together anew each time
//! takes the same way, and pays for finding out that it was asked before.

use std::sync::Arc;
use std::time::Duration;

use alcedo_lookup::key::Key;

use crate::answer::Answer;
use crate::client::Client;
use crate::error::Error;
use crate::lookup::Ask;
use crate::question::{Question, Spec};
use crate::request::{Form, message, messages};

/// A lookup without its keys. A clone is cheap and shares what was learned.
///
/// ```no_run
/// # async fn example(client: alcedo_client::Client) -> Result<(), alcedo_client::Error> {
/// let users = client.prepare("lake/users/").key_column("id").select(["name", "score"]);
/// let answer = users.get(4711).await?;
/// let answers = users.get_many([17, 4711]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a prepared lookup does nothing until it is asked for a key"]
pub struct Prepared {
    client: Client,
    question: Arc<Question>,
    deadline: Duration,
    /// Why it cannot be asked.
    refused: Option<Arc<Error>>,
}

impl Client {
    /// Prepares lookups in a file or in all files below a prefix; see [`Client::lookup`] for the path.
    pub fn prepare(&self, path: impl Into<String>) -> Prepared {
        let (form, refused) = on_wire(Form::default());
        let accept_pages = self.pages.are_accepted_for(form);
        let spec = Spec { path: path.into(), form, accept_pages, ..Spec::default() };
        Prepared { client: self.clone(), question: Arc::new(Question::new(spec)), deadline: self.deadline, refused }
    }
}

fn on_wire(form: Form) -> (i32, Option<Arc<Error>>) {
    match form.on_wire(false) {
        Ok(form) => (form, None),
        Err(error) => (0, Some(Arc::new(error))),
    }
}

impl Prepared {
    /// The column to search. If it is not set, the first column by which the file declares to be sorted.
    pub fn key_column(self, column: impl Into<String>) -> Self {
        self.with(|spec| spec.key_column = column.into())
    }

    /// The columns of the answers, in this order; all columns in file order if it is empty or not set.
    pub fn select(self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(|spec| spec.columns = columns.into_iter().map(Into::into).collect())
    }

    /// At most so many rows per key, in file order. Without it, or with 0, the worker's bound holds and passing it is
    /// an error.
    pub fn row_limit(self, rows: u32) -> Self {
        self.with(|spec| spec.row_limit = rows)
    }

    /// How the rows travel.
    pub fn form(mut self, form: Form) -> Self {
        let (form, refused) = on_wire(form);
        self.refused = refused;
        let accept_pages = self.client.pages.are_accepted_for(form);
        self.with(|spec| (spec.form, spec.accept_pages) = (form, accept_pages))
    }

    /// How long each lookup may take.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn with(self, change: impl FnOnce(&mut Spec)) -> Self {
        let mut spec = self.question.spec().clone();
        change(&mut spec);
        Self { question: Arc::new(Question::new(spec)), ..self }
    }

    /// The rows with this key. Dropping the future cancels the lookup.
    ///
    /// # Errors
    /// Why there is no answer; that no row has the key is none.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Answer, Error> {
        let ask = self.ask()?;
        let keys = message(key.into(), self.question.room())?;
        let mut answer = self.client.exchange(ask, &keys).await?;
        answer.elapsed = ask.deadline.elapsed();
        Ok(answer)
    }

    /// The rows with any of these keys; any number of them, more than
    /// [`MAX_KEYS_PER_MESSAGE`](crate::MAX_KEYS_PER_MESSAGE) travel in several messages. Dropping the future cancels
    /// the lookup.
    ///
    /// # Errors
    /// Why there is no answer; that no row has a key is none.
    pub async fn get_many(&self, keys: impl IntoIterator<Item = impl Into<Key>>) -> Result<Answer, Error> {
        let ask = self.ask()?;
        let messages = messages(keys.into_iter().map(Into::into).collect(), self.question.room())?;
        self.client.ask(ask, messages).await
    }

    fn ask(&self) -> Result<Ask<'_>, Error> {
        if let Some(refused) = &self.refused {
            return Err(Error::clone(refused));
        }
        Ok(Ask {
            question: &self.question,
            handle: Some(self.client.routing.questions.handle(&self.question)),
            trace: false,
            unary: false,
            deadline: self.client.start(self.deadline)?,
        })
    }
}
