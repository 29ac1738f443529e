//! Lookups sent at a rate, whatever comes back: frames that were made beforehand, over plain connections of frames or
//! plain lookup streams of gRPC.
//!
//! Knows frames, when each was due, when the connection took it, and what came back when. It must not know what a
//! worker should do with them. The client crate holds back by itself what a worker cannot take, and costs more for each
//! call than a refusal costs the worker: a client that is late measures itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alcedo_proto::framing::{self, Front, LENGTH_BYTES, MAGIC};
use alcedo_proto::v1 as pb;
use alcedo_proto::v1::lookup_service_client::LookupServiceClient;
use anyhow::{Context, bail, ensure};
use bytes::{Buf as _, BytesMut};
use futures::StreamExt;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::keys::Keys;
use crate::load::Times;
use crate::table::Table;

/// Connections that the frames are spread over, as of many clients.
const CONNECTIONS: usize = 16;
/// How often the frames that are due are handed to the connections.
const TICK: Duration = Duration::from_millis(1);
/// A lookup that takes longer is of no use to its caller.
const DEADLINE: Duration = Duration::from_secs(1);
/// Longest wait for the last answers, which all have a deadline.
const PATIENCE: Duration = Duration::from_secs(20);
/// The handle of the only question.
const HANDLE: u32 = 1;
/// When a frame that nobody took yet was taken.
const NEVER: u64 = u64::MAX;
/// Longest reply: one row of two columns.
const MOST_REPLY_BYTES: usize = 1 << 20;

/// How lookups travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In frames, as clients change over to by themselves.
    Frames,
    /// On lookup streams of gRPC.
    Grpc,
}

/// Connections to one worker.
pub struct Flooder {
    endpoint: String,
    path: String,
    way: Way,
    /// Of gRPC; those of frames live as long as a flood.
    channels: Vec<Channel>,
}

/// One connection of a flood.
enum Line {
    Frames(TcpStream),
    Grpc(Channel),
}

/// What came of one flood.
#[derive(Debug, Clone, Copy)]
pub struct Flooded {
    /// Right answers in time, in a second.
    pub goodput: f64,
    /// Of all frames: refused; answered too late, or told that it is too late.
    pub refused: f64,
    /// See above.
    pub late: f64,
    /// The 99th of a hundred refusals, in microseconds, from when the connection took the frame.
    pub refusal_us: f64,
    /// The same from when the frame was due: what the client and the connection make it wait is in it.
    pub refusal_since_due_us: f64,
}

/// One flood under way.
struct Flood {
    rows: Vec<u64>,
    begin: Instant,
    duration: Duration,
    rate: f64,
    /// Nanoseconds from the beginning until the connection took each frame.
    taken: Vec<AtomicU64>,
    good: AtomicU64,
    late: AtomicU64,
    refused: Times,
    refused_since_due: Times,
}

impl Flooder {
    /// Connects to the worker that listens there; all lookups will be by the key `id` in this file.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connect(endpoint: &str, path: &str, way: Way) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        while way == Way::Grpc && channels.len() < CONNECTIONS {
            channels.push(Endpoint::new(format!("http://{endpoint}"))?.tcp_nodelay(true).connect().await?);
        }
        Ok(Self { endpoint: endpoint.to_owned(), path: path.to_owned(), way, channels })
    }

    /// The connections of one flood.
    async fn lines(&self) -> anyhow::Result<Vec<Line>> {
        let mut lines: Vec<Line> = self.channels.iter().cloned().map(Line::Grpc).collect();
        while self.way == Way::Frames && lines.len() < CONNECTIONS {
            let mut socket = TcpStream::connect(&self.endpoint).await?;
            socket.set_nodelay(true)?;
            socket.write_all(&MAGIC).await?;
            let mut answer = [0; MAGIC.len()];
            socket.read_exact(&mut answer).await?;
            ensure!(answer == MAGIC, "the worker does not speak frames");
            lines.push(Line::Frames(socket));
        }
        Ok(lines)
    }

    /// Sends so many frames a second for so long, and waits until each is answered.
    ///
    /// # Errors
    /// A stream breaks, an answer is not the truth, or a lookup fails for another reason than load.
    pub async fn flood(&self, keys: &Keys, rate: f64, duration: Duration) -> anyhow::Result<Flooded> {
        let count = (rate * duration.as_secs_f64()) as usize;
        let rows: Vec<u64> = (0..count).map(|_| keys.draw()).collect();
        let mut frames = rows.iter().zip(1..).map(|(row, id)| lookup(id, *row)).collect::<Vec<_>>().into_iter();
        let never = (0..count).map(|_| AtomicU64::new(NEVER)).collect();
        let (good, late) = (AtomicU64::new(0), AtomicU64::new(0));
        let (refused, refused_since_due) = (Times::new()?, Times::new()?);
        let connections = self.lines().await?;
        let begin = Instant::now() + TICK;
        let flood = Flood { rows, begin, duration, rate, taken: never, good, late, refused, refused_since_due };
        let flood = Arc::new(flood);
        let mut streams = JoinSet::new();
        let mut lines = Vec::with_capacity(connections.len());
        for (number, connection) in connections.into_iter().enumerate() {
            let (line, frames) = mpsc::unbounded_channel();
            let _ = line.send(self.prepare());
            lines.push(line);
            let flood = Arc::clone(&flood);
            match connection {
                Line::Grpc(channel) => streams.spawn(answers(channel, frames, flood)),
                Line::Frames(socket) => {
                    let (read, write) = socket.into_split();
                    let replies = (number..count).step_by(CONNECTIONS).count();
                    let writing = tokio::spawn(write_frames(write, frames, Arc::clone(&flood)));
                    streams.spawn(async move {
                        read_frames(read, replies, flood).await?;
                        // Until all is answered: a worker does not answer a client that stops sending.
                        drop(writing.await??);
                        Ok(())
                    })
                }
            };
        }
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut sent = 0;
        while sent < count {
            ticks.tick().await;
            let due = (begin.elapsed().as_secs_f64() * rate) as usize;
            for frame in frames.by_ref().take(due.saturating_sub(sent)) {
                lines[sent % CONNECTIONS].send(frame).ok().context("a stream ended in the middle of a flood")?;
                sent += 1;
            }
        }
        drop(lines);
        let all = async {
            while let Some(ended) = streams.join_next().await {
                ended.context("a stream panicked")??;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, all).await.context("a worker under a flood left frames unanswered")??;
        flood.ended()
    }

    /// What each stream begins with.
    fn prepare(&self) -> pb::LookupFrame {
        let request = pb::LookupRequest {
            path: self.path.clone(),
            key_column: "id".to_owned(),
            columns: ["note", "score"].map(str::to_owned).into(),
            ..pb::LookupRequest::default()
        };
        let prepare = pb::Prepare { handle: HANDLE, request: Some(request) };
        pb::LookupFrame { id: 0, body: Some(pb::lookup_frame::Body::Prepare(prepare)) }
    }
}

fn lookup(id: u64, row: u64) -> pb::LookupFrame {
    let key = pb::Key { kind: Some(pb::key::Kind::Int(Table::id(row))) };
    let timeout_us = DEADLINE.as_micros() as u64;
    let lookup = pb::PreparedLookup { handle: HANDLE, keys: vec![key], timeout_us };
    pb::LookupFrame { id, body: Some(pb::lookup_frame::Body::Lookup(lookup)) }
}

/// One stream from its first frame to its last reply.
async fn answers(
    channel: Channel,
    frames: mpsc::UnboundedReceiver<pb::LookupFrame>,
    flood: Arc<Flood>,
) -> anyhow::Result<()> {
    let at = Arc::clone(&flood);
    let frames = UnboundedReceiverStream::new(frames).inspect(move |frame| at.take(frame.id));
    let mut replies = LookupServiceClient::new(channel).lookup_stream(frames).await?.into_inner();
    while let Some(reply) = replies.message().await? {
        flood.see(reply)?;
    }
    Ok(())
}

/// Writes frames as they come, as many at once as there are, and gives the connection back at their end.
async fn write_frames(
    mut write: OwnedWriteHalf,
    mut frames: mpsc::UnboundedReceiver<pb::LookupFrame>,
    flood: Arc<Flood>,
) -> anyhow::Result<OwnedWriteHalf> {
    let mut out = BytesMut::new();
    while let Some(mut frame) = frames.recv().await {
        loop {
            flood.take(frame.id);
            framing::put(&frame, &mut out);
            match frames.try_recv() {
                Ok(next) => frame = next,
                Err(_) => break,
            }
        }
        write.write_all(&out).await?;
        out.clear();
    }
    Ok(write)
}

/// Reads so many replies.
async fn read_frames(mut read: OwnedReadHalf, mut replies: usize, flood: Arc<Flood>) -> anyhow::Result<()> {
    let mut come = BytesMut::new();
    while replies > 0 {
        match framing::front(&come, MOST_REPLY_BYTES) {
            Front::Part { .. } => {
                ensure!(read.read_buf(&mut come).await? > 0, "the worker ended a connection under a flood");
            }
            Front::Ping => come.advance(LENGTH_BYTES),
            Front::Message { bytes } => {
                come.advance(LENGTH_BYTES);
                let reply = pb::ReplyFrame::decode(come.split_to(bytes))?;
                replies -= usize::from(!matches!(reply.body, Some(pb::reply_frame::Body::Announce(_))));
                flood.see(reply)?;
            }
            Front::TooLong { bytes } => bail!("a reply of {bytes} bytes"),
        }
    }
    Ok(())
}

impl Flood {
    fn now(&self) -> u64 {
        Instant::now().saturating_duration_since(self.begin).as_nanos() as u64
    }

    /// The connection takes a frame.
    fn take(&self, id: u64) {
        if let Some(taken) = id.checked_sub(1).and_then(|place| self.taken.get(place as usize)) {
            taken.store(self.now(), Ordering::Relaxed);
        }
    }

    fn see(&self, reply: pb::ReplyFrame) -> anyhow::Result<()> {
        let now = self.now();
        let failure = match reply.body {
            Some(pb::reply_frame::Body::Announce(_)) => return Ok(()),
            Some(pb::reply_frame::Body::Answer(answer)) => {
                let row = *self.rows.get(self.place(reply.id)?).context("an answer to a frame that was not sent")?;
                ensure!(is_true(&answer, row), "row {row} is answered with {answer:?}");
                // What comes after the flood is no goodput of it.
                let is_in_time = now <= self.duration.as_nanos() as u64;
                let count = if is_in_time { &self.good } else { &self.late };
                count.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Some(pb::reply_frame::Body::Failure(failure)) => failure,
            other => bail!("a reply that nobody asked for: {other:?}"),
        };
        match Code::from(failure.code) {
            Code::ResourceExhausted => {
                let place = self.place(reply.id)?;
                let taken = self.taken.get(place).map_or(NEVER, |taken| taken.load(Ordering::Relaxed));
                let due = (place as f64 / self.rate * 1e9) as u64;
                self.refused.record(Duration::from_nanos(now.saturating_sub(taken)));
                self.refused_since_due.record(Duration::from_nanos(now.saturating_sub(due)));
            }
            Code::DeadlineExceeded => {
                self.late.fetch_add(1, Ordering::Relaxed);
            }
            _ => bail!("a lookup of a flood failed: {}", failure.message),
        }
        Ok(())
    }

    fn place(&self, id: u64) -> anyhow::Result<usize> {
        usize::try_from(id)?.checked_sub(1).context("an answer to no frame")
    }

    fn ended(&self) -> anyhow::Result<Flooded> {
        let (good, late) = (self.good.load(Ordering::Relaxed), self.late.load(Ordering::Relaxed));
        let (refused, all) = (self.refused.count(), self.rows.len() as u64);
        ensure!(good + late + refused == all, "of {all} frames {good} + {late} + {refused} were answered");
        Ok(Flooded {
            goodput: good as f64 / self.duration.as_secs_f64(),
            refused: refused as f64 / all as f64,
            late: late as f64 / all as f64,
            refusal_us: self.refused.quantile_us(0.99),
            refusal_since_due_us: self.refused_since_due.quantile_us(0.99),
        })
    }
}

/// Whether an answer is this row and nothing else (`proto/alcedo/v1/values.proto`, compact rows).
fn is_true(answer: &pb::Answer, row: u64) -> bool {
    let [rows] = &answer.files[..] else { return false };
    let note = Table::note(row);
    let mut fields = vec![0];
    uvarint(note.len(), &mut fields);
    fields.extend(note.as_bytes());
    fields.extend(Table::score(row).to_le_bytes());
    let mut compact = Vec::with_capacity(fields.len() + 2);
    uvarint(fields.len(), &mut compact);
    compact.extend(fields);
    rows.row_number == [row] && rows.compact == compact
}

fn uvarint(mut number: usize, into: &mut Vec<u8>) {
    while number > 0x7f {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_compared_byte_by_byte() {
        let (note, score) = (Table::note(7), Table::score(7));
        let mut compact = vec![(note.len() + 10) as u8, 0, note.len() as u8];
        compact.extend(note.as_bytes());
        compact.extend(score.to_le_bytes());
        let rows = pb::FileRows { row_number: vec![7], compact: compact.into(), ..pb::FileRows::default() };
        let answer = pb::Answer { files: vec![rows], ..pb::Answer::default() };
        assert!(is_true(&answer, 7) && !is_true(&answer, 8) && !is_true(&pb::Answer::default(), 7));
        let mut other = answer;
        other.files[0].row_number = vec![8];
        assert!(!is_true(&other, 7));
        let mut bytes = Vec::new();
        uvarint(300, &mut bytes);
        assert_eq!(bytes, [0xac, 2]);
    }
}
