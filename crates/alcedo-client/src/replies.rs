//! The task that reads one lookup stream over gRPC, and what becomes of each reply, however it came.
//!
//! Knows reply frames and what the end of a stream means. It must not know who asked what: each reply goes to the place
//! of its id. It takes all frames that are there before those who wait for them have their turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use alcedo_proto::v1 as pb;
use pb::lookup_service_client::LookupServiceClient;
use pb::reply_frame::Body;
use tonic::transport::Channel;

use crate::batch::{Batch, Share};
use crate::ending::{DRAINING, End};
use crate::error::{Error, Kind, Reason};
use crate::handles::{MAX_HANDLES, RETIRE_HANDLES};
use crate::outbound::Frames;
use crate::pending::Reply;
use crate::stream::Stream;

/// Largest message that is read: the largest answer (64 MiB of rows and the numbers of a million of them) of a worker
/// that does not send parts would not fit into tonic's default of 4 MiB.
pub(crate) const MAX_REPLY_BYTES: usize = 96 << 20;

/// Ends the stream's calls when the reader stops for whatever reason, the end of its runtime included.
pub(crate) struct Ending {
    pub(crate) stream: Arc<Stream>,
    pub(crate) end: End,
}

impl Ending {
    pub(crate) fn new(stream: Arc<Stream>) -> Self {
        Self { stream, end: End::Broken("the runtime of the connection ended".to_owned()) }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.stream.usable.store(false, Ordering::Release);
        let unsent = self.stream.outbound.close();
        let wakers = self.stream.pending().end(&self.end, &unsent);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Reads the stream to its end. It is a future and not a function's body, so that the end of a runtime that never
/// polled it ends the calls as well.
pub(crate) fn read(
    worker: Arc<str>,
    channel: Channel,
    stream: Arc<Stream>,
) -> impl Future<Output = ()> + Send + 'static {
    let mut ending = Ending::new(stream);
    async move {
        let mut client = LookupServiceClient::new(channel).max_decoding_message_size(MAX_REPLY_BYTES);
        let frames = Frames(Arc::clone(&ending.stream.outbound));
        ending.end = match client.lookup_stream(frames).await {
            Ok(replies) => loop_over(&worker, replies.into_inner(), &ending.stream).await,
            Err(status) => match end_of(&worker, &status) {
                End::Refused(error) if error.kind == Kind::Unavailable => End::NotAccepted(error.message),
                end => end,
            },
        };
        tracing::debug!(%worker, end = ?ending.end, "lookup stream ended");
    }
}

async fn loop_over(worker: &str, mut replies: tonic::Streaming<pb::ReplyFrame>, stream: &Stream) -> End {
    loop {
        match replies.message().await {
            Ok(Some(frame)) => {
                if let Err(what) = stream.take(frame) {
                    return End::Broken(what);
                }
            }
            // The server ends a stream between two messages only when it drains.
            Ok(None) => return End::NotAccepted(DRAINING.to_owned()),
            Err(status) => return end_of(worker, &status),
        }
    }
}

/// What a status at the end of the stream says about the unanswered calls.
fn end_of(worker: &str, status: &tonic::Status) -> End {
    use std::error::Error as _;
    if status.source().is_some() {
        return End::Broken(crate::error::cause(status));
    }
    refused(Error::from_status(worker, status))
}

/// What an error that is about the stream itself says about them.
pub(crate) fn refused(error: Error) -> End {
    match error.reason {
        Some(Reason::Draining) => End::NotAccepted(DRAINING.to_owned()),
        _ => End::Refused(Box::new(error)),
    }
}

impl Stream {
    /// Takes one frame off the wire.
    pub(crate) fn take(&self, frame: pb::ReplyFrame) -> Result<(), String> {
        self.health.hear();
        let waker = match frame.body {
            Some(Body::Announce(announce)) => return self.announce(announce),
            Some(Body::Batch(batch)) => {
                self.share(batch);
                return Ok(());
            }
            Some(Body::Part(part)) => self.pending().gather(frame.id, part),
            Some(Body::Answer(answer)) => self.pending().settle(frame.id, Reply::Answer(answer, None)),
            Some(Body::Failure(failure)) => self.pending().settle(frame.id, Reply::Failure(failure)),
            None => self.pending().settle(frame.id, Reply::Unknown),
        };
        // Nobody to wake: the call was given up, and this is its late reply.
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Gives each lookup of a batch its part.
    fn share(&self, batch: pb::BatchAnswer) {
        let pb::BatchAnswer { ids, answer } = batch;
        let answer = answer.unwrap_or_default();
        let named =
            self.handles().resolve(&answer.files).map_err(|what| format!("an answer that cannot be read: {what}"));
        let batch = named.and_then(|named| Batch::new(ids.len(), answer, named)).map(Arc::new);
        let mut wakers = Vec::with_capacity(ids.len());
        {
            let mut pending = self.pending();
            for (number, id) in ids.into_iter().enumerate() {
                let reply = match &batch {
                    Ok(batch) => Reply::Share(Share { batch: Arc::clone(batch), number }),
                    Err(what) => Reply::Unreadable(what.clone()),
                };
                wakers.extend(pending.settle(id, reply));
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    fn announce(&self, announce: pb::Announce) -> Result<(), String> {
        let mut handles = self.handles_mut();
        handles.announce(announce);
        if handles.len() >= RETIRE_HANDLES {
            self.usable.store(false, Ordering::Release);
        }
        if handles.len() > MAX_HANDLES {
            return Err(format!("it announced more than {MAX_HANDLES} handles"));
        }
        Ok(())
    }
}
