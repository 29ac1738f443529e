//! Layer 3: the lookup service, unary and streaming.
//!
//! Knows calls. It must not know what happens inside a stream, which `stream` runs.

use std::sync::Arc;

use alcedo_proto::v1::lookup_service_server::LookupService;
use alcedo_proto::v1::{self, AnswerForm};
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use super::failure::status;
use super::handles::Handles;
use super::parts::Next;
use super::questions::{Question, keys};
use super::replies::Replies;
use super::{Answered, Door, call_timeout, convert};
use crate::connection::Line;
use crate::error::Error;

/// Largest unary answer: what gRPC clients take unless they are told otherwise, in nearly every language. A larger one
/// would be computed, sent, and then refused there with a message about gRPC instead of one about the lookup.
const MAX_UNARY_BYTES: usize = 4 << 20;

/// `alcedo.v1.LookupService`.
pub(super) struct LookupDoor {
    pub(super) door: Arc<Door>,
    /// Where calls go that this process makes to itself: the built-in file is there and nowhere else.
    pub(super) built_in: Arc<Door>,
}

impl LookupDoor {
    fn of<T>(&self, request: &Request<T>) -> &Arc<Door> {
        let is_own = request.extensions().get::<Line>().is_some_and(|line| line.is_own);
        if is_own { &self.built_in } else { &self.door }
    }
}

/// A unary answer, if it is not too large. No more of it is encoded than is needed to see that.
fn whole(answered: Answered, epoch: u64) -> Result<v1::LookupResponse, Error> {
    let mut handles = Handles::default();
    let Answered { answer, cost, form } = answered;
    let mut parts = convert::answer(answer, &cost, form, epoch, &mut handles, MAX_UNARY_BYTES);
    let url = parts.subject();
    let response = match parts.next()? {
        Next::End(answer) => Some(v1::LookupResponse { announce: handles.announce(), answer: Some(answer) }),
        Next::Part(_) => None,
    };
    let unit = "bytes, the most of a unary call (LookupStream returns larger ones)";
    let too_large = || Error::AnswerTooLarge { url: url.into(), limit: MAX_UNARY_BYTES, unit };
    response.filter(|response| response.encoded_len() <= MAX_UNARY_BYTES).ok_or_else(too_large)
}

#[tonic::async_trait]
impl LookupService for LookupDoor {
    async fn lookup(&self, request: Request<v1::LookupRequest>) -> Result<Response<v1::LookupResponse>, Status> {
        let call = call_timeout(&request);
        let door = self.of(&request);
        let mut request = request.into_inner();
        let deadline = door.admission.deadline(convert::timeout(request.timeout_us), call);
        // Pages of several files may be more than a unary call returns.
        request.accept_pages = false;
        let question = Question::new(&mut request, AnswerForm::TypedValues, &door.lookups);
        let keys = keys(request.keys);
        let answered = match door.answered_at_once(&question, &keys) {
            Some(answered) => answered,
            None => Box::pin(door.lookup(question, keys, deadline)).await,
        };
        let response = answered.and_then(|answered| door.encoded(|| whole(answered, door.membership.epoch())));
        response.map(Response::new).map_err(|error| status(&error))
    }

    type LookupStreamStream = Replies<Streaming<v1::LookupFrame>>;

    async fn lookup_stream(
        &self,
        request: Request<Streaming<v1::LookupFrame>>,
    ) -> Result<Response<Self::LookupStreamStream>, Status> {
        let (door, line) = (Arc::clone(self.of(&request)), request.extensions().get::<Line>().cloned());
        Ok(Response::new(Replies::new(door, line, request.into_inner())))
    }
}
