//! A worker in the same process, asked without a connection.
//!
//! Knows what such a worker has to do; the worker's crate, which is above this one, makes a [`Local`] of itself. It
//! must not know how a worker works. A lookup passes its messages as values; everything else takes a connection inside
//! the process, which is made when it is first needed.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use alcedo_lookup::key::Key;
use alcedo_lookup::schema::RowSchema;
use alcedo_proto::v1 as pb;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::time::timeout_at;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::decode::Received;
use crate::error::Error;
use crate::handles::{FileVersion, Named};
use crate::lookup::Ask;
use crate::request::{Keys, key_of};

/// A worker in this process; see [`Builder::in_process`](crate::Builder::in_process).
#[derive(Clone)]
pub struct Local {
    name: Arc<str>,
    prepare: Arc<Prepare>,
    connect: Arc<Connect>,
}

type Prepare = dyn Fn(pb::LookupRequest) -> LocalLookup + Send + Sync;
type Connect = dyn Fn() -> BoxFuture<'static, io::Result<DuplexStream>> + Send + Sync;

/// A question that a worker keeps ready: it is asked with keys and the time for them.
pub type LocalLookup = Box<dyn Fn(Vec<Key>, Duration) -> LocalReply + Send + Sync>;

/// What becomes of a lookup.
pub enum LocalReply {
    /// It is there.
    Now(Result<LocalAnswer, pb::Failure>),
    /// It is being made. Dropping the future ends the work.
    Later(BoxFuture<'static, Result<LocalAnswer, pb::Failure>>),
}

/// An answer and what it speaks of.
#[derive(Debug)]
pub struct LocalAnswer {
    /// The answer. Its handles mean nothing.
    pub answer: pb::Answer,
    /// For each of the answer's files what it is.
    pub files: Vec<LocalFile>,
}

/// One version of a file, and the columns of its rows.
#[derive(Debug, Clone)]
pub struct LocalFile {
    /// The canonical URL.
    pub url: Arc<str>,
    /// The content version.
    pub version: Arc<str>,
    /// Names and types of the rows' columns.
    pub schema: Arc<RowSchema>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for LocalReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Later(_) => "Later",
        })
    }
}

impl Local {
    /// A worker that goes by this name in answers. `prepare` keeps a question ready, of which keys and time are to be
    /// ignored; `connect` opens a connection over which the worker serves everything else.
    pub fn new(
        name: &str,
        prepare: impl Fn(pb::LookupRequest) -> LocalLookup + Send + Sync + 'static,
        connect: impl Fn() -> BoxFuture<'static, io::Result<DuplexStream>> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), prepare: Arc::new(prepare), connect: Arc::new(connect) }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A connection inside the process.
    pub(crate) async fn channel(&self, endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
        let connect = Arc::clone(&self.connect);
        let connector = tower::service_fn(move |_: Uri| {
            let pipe = connect();
            async move { Ok::<_, io::Error>(TokioIo::new(pipe.await?)) }
        });
        endpoint.connect_with_connector(connector).await
    }

    /// One message of a lookup.
    pub(crate) async fn lookup(&self, ask: &Ask<'_>, keys: &Keys) -> Result<Received, Error> {
        let kept;
        let request = || (self.prepare)(ask.question.request(Vec::new()));
        let prepared = match ask.trace {
            true => {
                let request = pb::LookupRequest { trace: true, ..ask.question.request(Vec::new()) };
                kept = (self.prepare)(request);
                &kept
            }
            false => ask.question.local(request),
        };
        let deadline = ask.deadline;
        let keys = keys.as_slice().iter().map(|key| key_of(key).unwrap_or(Key::Null)).collect();
        let answer = match prepared(keys, deadline.at().saturating_duration_since(deadline.began())) {
            LocalReply::Now(answer) => answer,
            LocalReply::Later(answer) => {
                let waiting = timeout_at(deadline.give_up_at(), answer).await;
                waiting.map_err(|_| deadline.passed(format_args!("waiting for {}", self.name)))?
            }
        };
        let LocalAnswer { answer, files } = answer.map_err(Error::from_failure)?;
        if files.len() != answer.files.len() {
            return Err(Error::internal(format!(
                "{} named {} of {} files",
                self.name,
                files.len(),
                answer.files.len()
            )));
        }
        let named =
            |file: LocalFile| Named { file: FileVersion { url: file.url, version: file.version }, schema: file.schema };
        let named = files.into_iter().map(named).collect();
        Ok(Received::Whole { worker: Arc::clone(&self.name), answer, named })
    }
}
