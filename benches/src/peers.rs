//! Everybody who answers point lookups on one machine, asked for the same rows of the same file in the same run.
//!
//! Knows the Python program that asks the peers (`py/peers.py`) and how it is talked to: one line for each round. It
//! must not know how a peer is asked. Alcedo takes its turn in each round, over the stream and in process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use alcedo_testkit::cluster::BUCKET;
use anyhow::{Context, ensure};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::asker::{Asker, By};
use crate::built::{self, Kind};
use crate::effort::Effort;
use crate::keys::Keys;
use crate::load::ONE;
use crate::placement::{Cores, Placement};
use crate::report::{Row, median};
use crate::series::Series;
use crate::table::{Layout, Table, data_directory};
use crate::transport::Embedded;
use crate::worker::BenchWorker;

/// The table that everybody is asked for.
const TABLE: Table = Table { rows: 1_000_000 };
/// Names the interpreter that has the peers' packages; `cargo xtask bench` sets it.
const PYTHON: &str = "BENCH_PYTHON";
/// The share of those that read the same file which Alcedo in process is to stay below.
const MOST_SHARE: f64 = 0.01;

/// What the program says of one peer in one round.
#[derive(Debug, Deserialize)]
struct Said {
    name: String,
    /// `file`: it reads the Parquet file itself; `store`: it holds a copy of the rows.
    kind: String,
    p50_us: f64,
    p99_us: f64,
}

/// The running program.
struct Peers {
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// Everybody's figures in one placement.
#[derive(Default)]
struct Seen {
    peers: BTreeMap<(String, String), Vec<(f64, f64)>>,
    stream: Series,
    embedded: Series,
}

/// Measures in so many rounds.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
pub async fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let file = TABLE.file(Layout::Seeking)?;
    let cores = Cores::of_this_process()?;
    let mut peers = Peers::start(&file).await?;
    let worker = BenchWorker::start(built::FAST, &[("table.parquet", &file)]).await?;
    let home = tempfile::tempdir()?;
    let embedded = Embedded::start(worker.store(), &home.path().join("cache"))?;
    let path = format!("{BUCKET}/table.parquet");
    let (by, keys) = (By::Id, Keys::uniform(TABLE.rows));
    let stream = Asker { client: worker.client().build()?, path: path.as_str().into(), by, keys };
    stream.warm(TABLE).await?;
    let name = |way: &str| format!("peers, {way}");
    let mut rows = built::by_heat(worker.endpoint(), &heating(&stream), Kind::Ready, &name("over the stream")).await?;
    let in_process = Asker { client: embedded.client()?, ..stream.clone() };
    in_process.warm(TABLE).await?;
    let endpoint = embedded.endpoint();
    rows.extend(built::by_heat(&endpoint, &heating(&in_process), Kind::Ready, &name("in process")).await?);
    for placement in cores.placements() {
        let mut seen = Seen::default();
        for round in 0..effort.rounds {
            placement.pin(&[worker.id()?])?;
            seen.stream.push(stream.run(ONE, &[worker.id()?], effort.load).await?);
            placement.pin_together(std::process::id())?;
            seen.embedded.push(in_process.run(ONE, &[], effort.load).await?);
            peers.round(placement, round, effort, &mut seen).await?;
        }
        cores.release()?;
        rows.extend(report(placement.name, &seen));
    }
    Ok(rows)
}

/// The same asker for other rows than those that are measured.
fn heating(asker: &Asker) -> Asker {
    Asker { keys: Keys::heating(TABLE.rows), ..asker.clone() }
}

impl Peers {
    async fn start(file: &Path) -> anyhow::Result<Self> {
        let python = std::env::var_os(PYTHON).map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("py/peers.py");
        let stores = data_directory()?.join("peers");
        let mut command = Command::new(python);
        command.arg(program).arg(file).arg(TABLE.rows.to_string()).arg(stores).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().context("cannot start Python")?;
        let questions = child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let mut peers = Self { child, questions, answers };
        let ready =
            peers.answers.next_line().await?.context("the peers' program ended; `cargo xtask bench` has them")?;
        ensure!(ready == "ready", "the peers' program says {ready:?}");
        Ok(peers)
    }

    /// Has every peer asked for a while, in an order that turns.
    async fn round(
        &mut self,
        placement: Placement,
        round: usize,
        effort: Effort,
        seen: &mut Seen,
    ) -> anyhow::Result<()> {
        placement.pin_together(self.child.id().context("the peers' program has ended")?)?;
        let question = format!("{round} {}\n", effort.load.as_secs_f64());
        self.questions.write_all(question.as_bytes()).await?;
        let answer = self.answers.next_line().await?.context("the peers' program ended")?;
        for said in serde_json::from_str::<Vec<Said>>(&answer)? {
            seen.peers.entry((said.kind, said.name)).or_default().push((said.p50_us, said.p99_us));
        }
        Ok(())
    }
}

fn report(placement: &str, seen: &Seen) -> Vec<Row> {
    let mut rows = Vec::new();
    for ((kind, peer), figures) in &seen.peers {
        let p50 = median(figures.iter().map(|(p50, _)| *p50));
        let p99 = median(figures.iter().map(|(_, p99)| *p99));
        let name = |way: &str| format!("peers, {placement}, {way}, beside {peer}");
        let row = seen.embedded.p50_row(&name("in process")).beside(p50);
        let is_met = seen.embedded.p50() <= MOST_SHARE * p50;
        rows.push(if kind == "file" { row.judged("at least 100 times lower".to_owned(), Some(is_met)) } else { row });
        rows.push(seen.embedded.p99_row(&name("in process")).beside(p99));
        rows.push(seen.stream.p50_row(&name("over the stream")).beside(p50));
    }
    rows
}
