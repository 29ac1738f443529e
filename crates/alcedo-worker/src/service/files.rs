//! Layer 3: the file service.
//!
//! Knows messages of stat, list, read, check, free and pins. It must not know how bytes are found.

use std::collections::VecDeque;
use std::sync::Arc;

use alcedo_origin::{Listed, Listing};
use alcedo_proto::v1;
use alcedo_proto::v1::file_service_server::FileService;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use tonic::{Request, Response, Status};

use super::failure::status;
use super::{Door, call_timeout, convert, pins};
use crate::admission::Deadline;
use crate::cost::Cost;
use crate::error::Error;
use crate::files::{Freed, Holding, Holdings, Reading};
use crate::reader::FileVersion;

/// Entries of one message of a listing: about 200 KiB.
const ENTRIES_PER_MESSAGE: usize = 1_000;

/// `alcedo.v1.FileService`.
pub(super) struct FileDoor(pub(super) Arc<Door>);

/// A read under way: what was read first, and the rest.
struct Sending {
    door: Arc<Door>,
    reading: Reading,
    deadline: Deadline,
    first: Option<v1::ReadResponse>,
}

#[tonic::async_trait]
impl FileService for FileDoor {
    async fn stat(&self, request: Request<v1::StatRequest>) -> Result<Response<v1::StatResponse>, Status> {
        let call = call_timeout(&request);
        let v1::StatRequest { path, timeout_us } = request.into_inner();
        let deadline = self.0.admission.deadline(convert::timeout(timeout_us), call);
        let cost = Cost::new(false);
        let facts =
            self.0.work(&path, deadline, self.0.files.stat(&path, &cost)).await.map_err(|error| status(&error))?;
        let file = Some(convert::file_info(&facts.version, facts.opened.as_ref()));
        Ok(Response::new(v1::StatResponse { file, ring_epoch: self.0.membership.epoch() }))
    }

    type ListStream = BoxStream<'static, Result<v1::ListResponse, Status>>;

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let call = call_timeout(&request);
        let v1::ListRequest { path, recursive, limit, timeout_us } = request.into_inner();
        let deadline = self.0.admission.long_deadline(convert::timeout(timeout_us), call);
        let listing = self.0.files.list(&path, recursive, limit, deadline);
        let listing = self.0.work(&path, deadline, listing).await.map_err(|error| status(&error))?;
        let messages = messages(&self.0, listing).into_iter().map(Ok);
        Ok(Response::new(stream::iter(messages).boxed()))
    }

    type ReadStream = BoxStream<'static, Result<v1::ReadResponse, Status>>;

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let call = call_timeout(&request);
        let v1::ReadRequest { path, offset, length, version, timeout_us } = request.into_inner();
        let door = Arc::clone(&self.0);
        let deadline = door.admission.long_deadline(convert::timeout(timeout_us), call);
        let cost = Arc::new(Cost::new(false));
        let begun = async {
            let mut reading = door.files.read(&path, offset, length, &version, &cost).await?;
            let data = reading.next().await?.unwrap_or_default();
            Ok((reading, data))
        };
        let (reading, data) = door.work(&path, deadline, begun).await.map_err(|error| status(&error))?;
        let opened = door.files.opened(reading.version());
        let file = Some(convert::file_info(reading.version(), opened.as_ref()));
        let first = Some(v1::ReadResponse { file, data });
        let sending = Sending { door, reading, deadline, first };
        // Each step takes a permit of its own, so that a client which reads slowly holds none.
        let chunks = stream::try_unfold(sending, |mut sending| async move {
            let chunk = sending.next().await?;
            Ok::<_, Error>(chunk.map(|chunk| (chunk, sending)))
        });
        Ok(Response::new(chunks.map_err(|error| status(&error)).boxed()))
    }

    type CheckStream = BoxStream<'static, Result<v1::CheckResponse, Status>>;

    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<Self::CheckStream>, Status> {
        let call = call_timeout(&request);
        let v1::CheckRequest { path, timeout_us } = request.into_inner();
        let deadline = self.0.admission.long_deadline(convert::timeout(timeout_us), call);
        let cost = Cost::new(false);
        let checked = self.0.work(&path, deadline, self.0.files.check(&path, deadline, &cost)).await;
        let messages = holdings(checked.map_err(|error| status(&error))?).into_iter().map(Ok);
        Ok(Response::new(stream::iter(messages).boxed()))
    }

    async fn free(&self, request: Request<v1::FreeRequest>) -> Result<Response<v1::FreeResponse>, Status> {
        let call = call_timeout(&request);
        let v1::FreeRequest { path, timeout_us } = request.into_inner();
        let deadline = self.0.admission.long_deadline(convert::timeout(timeout_us), call);
        let freed = self.0.work(&path, deadline, self.0.files.free(&path, deadline)).await;
        let Freed { files, bytes, pinned_files, pinned_bytes } = freed.map_err(|error| status(&error))?;
        Ok(Response::new(v1::FreeResponse { files, freed_bytes: bytes, pinned_files, pinned_bytes }))
    }

    type PinStream = BoxStream<'static, Result<v1::PinResponse, Status>>;

    async fn pin(&self, request: Request<v1::PinRequest>) -> Result<Response<Self::PinStream>, Status> {
        let call = call_timeout(&request);
        let v1::PinRequest { path, things, timeout_us } = request.into_inner();
        let deadline = self.0.admission.long_deadline(convert::timeout(timeout_us), call);
        let pinning = async { pins::pin(&self.0, &path, things).await };
        let asked = self.0.work(&path, deadline, pinning).await.map_err(|error| status(&error))?;
        let messages = pins::outcome(&self.0, asked, deadline).await.into_iter().map(Ok);
        Ok(Response::new(stream::iter(messages).boxed()))
    }

    async fn unpin(&self, request: Request<v1::UnpinRequest>) -> Result<Response<v1::UnpinResponse>, Status> {
        let call = call_timeout(&request);
        let v1::UnpinRequest { path, timeout_us } = request.into_inner();
        let deadline = self.0.admission.deadline(convert::timeout(timeout_us), call);
        let ended = self.0.work(&path, deadline, pins::unpin(&self.0, &path)).await;
        ended.map(Response::new).map_err(|error| status(&error))
    }

    type PinsStream = BoxStream<'static, Result<v1::PinsResponse, Status>>;

    async fn pins(&self, request: Request<v1::PinsRequest>) -> Result<Response<Self::PinsStream>, Status> {
        let call = call_timeout(&request);
        let v1::PinsRequest { path, timeout_us } = request.into_inner();
        let deadline = self.0.admission.deadline(convert::timeout(timeout_us), call);
        let listed = self.0.work(&path, deadline, async { pins::list(&self.0, &path) }).await;
        let messages = listed.map_err(|error| status(&error))?.into_iter().map(Ok);
        Ok(Response::new(stream::iter(messages).boxed()))
    }
}

impl Sending {
    async fn next(&mut self) -> Result<Option<v1::ReadResponse>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let url = Arc::clone(&self.reading.version().stat.url);
        let data = self.door.work(&url, self.deadline, self.reading.next()).await?;
        Ok(data.map(|data| v1::ReadResponse { file: None, data }))
    }
}

/// A listing in messages; at least one, so that an empty listing is an answer.
fn messages(door: &Door, listing: Listing) -> VecDeque<v1::ListResponse> {
    let mut messages = VecDeque::from([v1::ListResponse::default()]);
    for entry in listing.entries {
        let info = match entry {
            Listed::File(stat) => {
                let version = FileVersion::new(stat);
                convert::file_info(&version, door.files.opened(&version).as_ref())
            }
            Listed::Prefix(url) => convert::prefix_info(&url),
            // A kind of entry that a later origin knows and this contract cannot say.
            _ => continue,
        };
        match messages.back_mut() {
            Some(last) if last.entries.len() < ENTRIES_PER_MESSAGE => last.entries.push(info),
            _ => messages.push_back(v1::ListResponse { entries: vec![info], truncated: false }),
        }
    }
    if let Some(last) = messages.back_mut() {
        last.truncated = listing.truncated;
    }
    messages
}

/// Holdings in messages; at least one, so that an empty prefix is an answer.
fn holdings(holdings: Holdings) -> VecDeque<v1::CheckResponse> {
    let message = |held: Holding| v1::Holding {
        url: held.version.stat.url.to_string(),
        size_bytes: held.version.stat.size,
        version: held.version.key.version().to_owned(),
        cached_bytes: held.cached_bytes,
        indexed: held.indexed,
    };
    let mut messages = VecDeque::from([v1::CheckResponse::default()]);
    for held in holdings.files {
        match messages.back_mut() {
            Some(last) if last.holdings.len() < ENTRIES_PER_MESSAGE => last.holdings.push(message(held)),
            _ => messages.push_back(v1::CheckResponse { holdings: vec![message(held)], truncated: false }),
        }
    }
    if let Some(last) = messages.back_mut() {
        last.truncated = holdings.truncated;
    }
    messages
}
