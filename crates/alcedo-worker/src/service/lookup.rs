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

/// `alcedo.v1.LookupService`.
pub(super) struct LookupDoor(pub(super) Arc<Door>);

#[tonic::async_trait]
impl LookupService for LookupDoor {
    async fn lookup(&self, request: Request<v1::LookupRequest>) -> Result<Response<v1::LookupResponse>, Status> {
        let call = call_timeout(&request);
        let request = request.into_inner();
        let deadline = self.0.admission.deadline(convert::timeout(request.timeout_us), call);
        let answered = Box::pin(self.0.lookup(request, AnswerForm::TypedValues, deadline)).await;
        let answered = answered.map_err(|error| status(&error))?;
        let mut handles = Handles::default();
        let epoch = self.0.ring.epoch();
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
        tokio::spawn(serve(Arc::clone(&self.0), request.into_inner(), replies));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
