//! The calls about files, to one worker.
//!
//! Knows the messages of `files.proto`. It must not know which worker owns a path, nor how a connection is had: that is
//! `transport`'s.

use alcedo_proto::v1 as pb;
use pb::file_service_client::FileServiceClient;
use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::ending::CallError;
use crate::replies::MAX_REPLY_BYTES;
use crate::transport::{Worker, timed};

impl Worker {
    pub(crate) async fn stat(
        &self,
        path: String,
        connect_by: Instant,
        deadline: Deadline,
    ) -> Result<pb::StatResponse, CallError> {
        let mut client = self.files(connect_by).await?;
        let request = pb::StatRequest { path, timeout_us: deadline.timeout_us() };
        self.bounded(deadline, client.stat(timed(request, deadline))).await
    }

    /// Starts a listing; its messages are taken with [`Self::next_message`].
    pub(crate) async fn list(
        &self,
        mut request: pb::ListRequest,
        connect_by: Instant,
        deadline: Deadline,
    ) -> Result<tonic::Streaming<pb::ListResponse>, CallError> {
        let mut client = self.files(connect_by).await?;
        request.timeout_us = deadline.timeout_us();
        self.bounded(deadline, client.list(timed(request, deadline))).await
    }

    /// Starts a read; its messages are taken with [`Self::next_message`].
    pub(crate) async fn read(
        &self,
        mut request: pb::ReadRequest,
        connect_by: Instant,
        deadline: Deadline,
    ) -> Result<tonic::Streaming<pb::ReadResponse>, CallError> {
        let mut client = self.files(connect_by).await?;
        request.timeout_us = deadline.timeout_us();
        self.bounded(deadline, client.read(timed(request, deadline))).await
    }

    /// Starts a check; its messages are taken with [`Self::next_message`].
    pub(crate) async fn check(
        &self,
        path: String,
        deadline: Deadline,
    ) -> Result<tonic::Streaming<pb::CheckResponse>, CallError> {
        let mut client = self.files(deadline.at()).await?;
        let request = pb::CheckRequest { path, timeout_us: deadline.timeout_us() };
        self.bounded(deadline, client.check(timed(request, deadline))).await
    }

    /// Drops what the worker holds below a path.
    pub(crate) async fn free(&self, path: String, deadline: Deadline) -> Result<pb::FreeResponse, CallError> {
        let mut client = self.files(deadline.at()).await?;
        let request = pb::FreeRequest { path, timeout_us: deadline.timeout_us() };
        self.bounded(deadline, client.free(timed(request, deadline))).await
    }

    /// Takes a pin; what came of it is taken with [`Self::next_message`].
    pub(crate) async fn pin(
        &self,
        mut request: pb::PinRequest,
        deadline: Deadline,
    ) -> Result<tonic::Streaming<pb::PinResponse>, CallError> {
        let mut client = self.files(deadline.at()).await?;
        request.timeout_us = deadline.timeout_us();
        self.bounded(deadline, client.pin(timed(request, deadline))).await
    }

    /// Ends a pin.
    pub(crate) async fn unpin(&self, path: String, deadline: Deadline) -> Result<pb::UnpinResponse, CallError> {
        let mut client = self.files(deadline.at()).await?;
        let request = pb::UnpinRequest { path, timeout_us: deadline.timeout_us() };
        self.bounded(deadline, client.unpin(timed(request, deadline))).await
    }

    /// Asks for pins; their messages are taken with [`Self::next_message`].
    pub(crate) async fn pins(
        &self,
        path: String,
        deadline: Deadline,
    ) -> Result<tonic::Streaming<pb::PinsResponse>, CallError> {
        let mut client = self.files(deadline.at()).await?;
        let request = pb::PinsRequest { path, timeout_us: deadline.timeout_us() };
        self.bounded(deadline, client.pins(timed(request, deadline))).await
    }

    async fn files(&self, connect_by: Instant) -> Result<FileServiceClient<tonic::transport::Channel>, CallError> {
        let channel = self.link(connect_by).await?.channel();
        Ok(FileServiceClient::new(channel).max_decoding_message_size(MAX_REPLY_BYTES))
    }
}
