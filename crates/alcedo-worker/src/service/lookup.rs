//! Layer 3: the lookup service, unary and streaming.
//!
//! Knows calls. It must not know what happens inside a stream, which `stream` runs.

use std::sync::Arc;

use alcedo_proto::v1::lookup_service_server::LookupService;
use alcedo_proto::v1::{self, AnswerForm};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::failure::status;
use super::handles::Handles;
use super::stream::{QUEUED_REPLIES, serve};
use super::{Door, call_timeout, convert};
use crate::connection::Line;

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

#[tonic::async_trait]
impl LookupService for LookupDoor {
    async fn lookup(&self, request: Request<v1::LookupRequest>) -> Result<Response<v1::LookupResponse>, Status> {
        let call = call_timeout(&request);
        let door = self.of(&request);
        let request = request.into_inner();
        let deadline = door.admission.deadline(convert::timeout(request.timeout_us), call);
        let answered = Box::pin(door.lookup(request, AnswerForm::TypedValues, deadline)).await;
        let answered = answered.map_err(|error| status(&error))?;
        let mut handles = Handles::default();
        let epoch = door.membership.epoch();
        let answer = convert::answer(answered.answer, &answered.cost, answered.form, epoch, &mut handles);
        let answer = Some(answer.map_err(|error| status(&error))?);
        Ok(Response::new(v1::LookupResponse { announce: handles.announce(), answer }))
    }

    type LookupStreamStream = ReceiverStream<Result<v1::ReplyFrame, Status>>;

    async fn lookup_stream(
        &self,
        request: Request<Streaming<v1::LookupFrame>>,
    ) -> Result<Response<Self::LookupStreamStream>, Status> {
        let (replies, receiver) = mpsc::channel(QUEUED_REPLIES);
        // It ends with the stream: when either side closes, or when the worker has drained.
        let (door, line) = (Arc::clone(self.of(&request)), request.extensions().get::<Line>().cloned());
        tokio::spawn(serve(door, line, request.into_inner(), replies));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
