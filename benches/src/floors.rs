//! The floors under a lookup: the least that a message and its answer cost over the same loopback, with nothing behind.
//!
//! Knows two echoing servers, raw TCP and an open gRPC stream with the messages of a lookup. They run as processes of
//! this same program, so that they are placed like any server. It must not know Alcedo's worker or client: what these
//! cost on top is the difference.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::pin::Pin;
use std::process::Stdio;
use std::time::{Duration, Instant};

use alcedo_proto::v1 as pb;
use alcedo_proto::v1::lookup_service_client::LookupServiceClient;
use alcedo_proto::v1::lookup_service_server::{LookupService, LookupServiceServer};
use anyhow::{Context, ensure};
use futures::{Stream, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::load::{Load, Sample, Times};
use crate::placement::Used;

/// The flag with which this program serves a floor.
pub const SERVE_FLAG: &str = "--serve-floor";
/// A request of a lookup with its path and key, about.
const REQUEST_BYTES: usize = 64;
/// A hot row of two columns as an answer, about.
const REPLY_BYTES: usize = 100;
/// Longest start of a server.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What a floor is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// Bytes over a TCP connection, read and written by a thread that blocks.
    Tcp,
    /// Frames over an open bidirectional gRPC stream, without any work between.
    Stream,
}

impl Floor {
    /// The lower one first.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Stream];

    /// What it is called in a row's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "a raw TCP ping-pong",
            Self::Stream => "an empty gRPC stream",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Stream => "stream",
        }
    }
}

/// A running echo. Dropping it ends the process.
pub struct FloorServer {
    child: Child,
    floor: Floor,
    port: u16,
}

impl FloorServer {
    /// Starts this program once more as a server.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(floor: Floor) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([SERVE_FLAG, floor.word()]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start a floor's server")?;
        let mut said = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let port = tokio::time::timeout(START_TIMEOUT, said.next_line())
            .await
            .context("a floor's server does not start")??
            .context("a floor's server ended")?
            .parse()?;
        Ok(Self { child, floor, port })
    }

    /// Its process.
    ///
    /// # Errors
    /// It has ended.
    pub fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("a floor's server has ended")
    }

    /// Sends and receives for so long with as many messages outstanding as the load says.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn measure(&self, load: Load, duration: Duration) -> anyhow::Result<Sample> {
        let (times, used) = (Times::new()?, Used::by(&[self.id()?])?);
        let begin = Instant::now();
        match self.floor {
            Floor::Tcp => pump_tcp(self.port, load.outstanding, duration, &times).await?,
            Floor::Stream => pump_stream(self.port, load.outstanding, duration, &times).await?,
        }
        let (seconds, used) = (begin.elapsed().as_secs_f64(), Used::by(&[self.id()?])?.since(&used));
        let keys = times.count() as f64;
        ensure!(keys > 0.0, "nothing came back over {}", self.floor.name());
        Ok(Sample {
            p50_us: times.quantile_us(0.5),
            p99_us: times.quantile_us(0.99),
            keys_per_second: keys / seconds,
            server_us_per_key: used * 1e6 / keys,
            keys,
        })
    }
}

async fn pump_tcp(port: u16, outstanding: usize, duration: Duration, times: &Times) -> anyhow::Result<()> {
    let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    connection.set_nodelay(true)?;
    let (begin, mut sent) = (Instant::now(), VecDeque::with_capacity(outstanding));
    let requests = vec![7_u8; REQUEST_BYTES * outstanding];
    let mut replies = vec![0_u8; REPLY_BYTES * outstanding];
    let (mut due, mut part) = (outstanding, 0);
    loop {
        let now = Instant::now();
        connection.write_all(&requests[..REQUEST_BYTES * due]).await?;
        sent.extend(std::iter::repeat_n(now, due));
        let read = connection.read(&mut replies).await?;
        ensure!(read > 0 && replies[..read].iter().all(|byte| *byte == 9), "the echo is not what it should be");
        due = (part + read) / REPLY_BYTES;
        part = (part + read) % REPLY_BYTES;
        sent.drain(..due).for_each(|then| times.record(then.elapsed()));
        if begin.elapsed() >= duration {
            return Ok(());
        }
    }
}

async fn pump_stream(port: u16, outstanding: usize, duration: Duration, times: &Times) -> anyhow::Result<()> {
    let mut client = LookupServiceClient::connect(format!("http://127.0.0.1:{port}")).await?;
    let (requests, receiver) = mpsc::channel(outstanding);
    let mut replies = client.lookup_stream(ReceiverStream::new(receiver)).await?.into_inner();
    let (begin, mut sent) = (Instant::now(), VecDeque::with_capacity(outstanding));
    let mut next = 0;
    let mut send = async |sent: &mut VecDeque<(u64, Instant)>| {
        next += 1;
        sent.push_back((next, Instant::now()));
        requests.send(question(next)).await.context("the stream's other end is gone")
    };
    for _ in 0..outstanding {
        send(&mut sent).await?;
    }
    while begin.elapsed() < duration {
        let reply = replies.message().await?.context("the stream ended")?;
        let (id, then) = sent.pop_front().context("a reply that nobody asked for")?;
        times.record(then.elapsed());
        ensure!(reply.id == id, "reply {} instead of {id}", reply.id);
        send(&mut sent).await?;
    }
    Ok(())
}

fn question(id: u64) -> pb::LookupFrame {
    let key = pb::Key { kind: Some(pb::key::Kind::Int(id.cast_signed())) };
    let lookup = pb::PreparedLookup { handle: 1, keys: vec![key], timeout_us: 1_000_000 };
    pb::LookupFrame { id, body: Some(pb::lookup_frame::Body::Lookup(lookup)) }
}

/// Serves a floor until the process is ended; says its port on standard output.
///
/// # Errors
/// There is no such floor, or the system gives no port.
pub fn serve(word: &str) -> anyhow::Result<()> {
    match Floor::ALL.into_iter().find(|floor| floor.word() == word).context("there is no such floor")? {
        Floor::Tcp => serve_tcp(),
        Floor::Stream => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve_stream()),
    }
}

fn say_port(port: u16) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{port}")?;
    Ok(out.flush()?)
}

fn serve_tcp() -> anyhow::Result<()> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    say_port(listener.local_addr()?.port())?;
    for connection in listener.incoming() {
        let mut connection = connection?;
        connection.set_nodelay(true)?;
        let mut requests = vec![0_u8; REQUEST_BYTES * 1_024];
        let replies = vec![9_u8; REPLY_BYTES * 1_024];
        let mut part = 0;
        while let Ok(read @ 1..) = connection.read(&mut requests) {
            let whole = (part + read) / REQUEST_BYTES;
            part = (part + read) % REQUEST_BYTES;
            if connection.write_all(&replies[..REPLY_BYTES * whole]).is_err() {
                break;
            }
        }
    }
    Ok(())
}

async fn serve_stream() -> anyhow::Result<()> {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?.with_nodelay(Some(true));
    say_port(incoming.local_addr()?.port())?;
    let service = LookupServiceServer::new(Echo);
    Ok(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?)
}

/// Answers every frame with one of a hot row's size.
struct Echo;

type Replies = Pin<Box<dyn Stream<Item = Result<pb::ReplyFrame, Status>> + Send>>;

#[tonic::async_trait]
impl LookupService for Echo {
    type LookupStreamStream = Replies;

    async fn lookup(&self, _: Request<pb::LookupRequest>) -> Result<Response<pb::LookupResponse>, Status> {
        Err(Status::unimplemented("this server only echoes streams"))
    }

    async fn lookup_stream(
        &self,
        request: Request<Streaming<pb::LookupFrame>>,
    ) -> Result<Response<Self::LookupStreamStream>, Status> {
        let reply = |frame: Result<pb::LookupFrame, Status>| {
            let rows = pb::FileRows { compact: vec![9; REPLY_BYTES].into(), ..pb::FileRows::default() };
            let answer = pb::Answer { files: vec![rows], statuses: vec![1], ..pb::Answer::default() };
            Ok(pb::ReplyFrame { id: frame?.id, body: Some(pb::reply_frame::Body::Answer(answer)) })
        };
        Ok(Response::new(Box::pin(request.into_inner().map(reply))))
    }
}
