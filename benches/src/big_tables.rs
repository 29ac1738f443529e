//! Tables ten times larger than the memory for decoded data: from compressed data pages, and once lookup-ready.
//!
//! Knows the generated table in its two layouts and what is asked of lookups in it. Each layout has two workers: one
//! that builds nothing, and one that has built all it can. All answers are compared with the truth.

use std::time::Duration;

use alcedo_testkit::cluster::BUCKET;

use crate::asker::{Asker, By};
use crate::built::{self, Kind};
use crate::decoding;
use crate::effort::Effort;
use crate::keys::Keys;
use crate::load::{BATCHES, Load, ONE, SOME};
use crate::placement::{Cores, Placement};
use crate::report::{Row, median};
use crate::series::Series;
use crate::table::{Layout, Table};
use crate::worker::{BenchWorker, Settings};

/// Memory for decoded data.
const DECODED_BYTES: u64 = 16 << 20;
/// How many times more the table is.
const TIMES: u64 = 10;
/// The worker's settings of memory: all tiers of decoded data together are `DECODED_BYTES`.
pub const MEMORY: Settings<'static> = &[("cache.decoded", "\"16MiB\"")];
/// The share of a load's time in which it runs before it is measured, so that the caches hold what it asks for.
const LEAD_SHARE: u32 = 2;
/// The leaf columns of the table that a lookup decodes: the key and the two that are selected.
const LEAVES: [usize; 3] = [0, 2, 3];

/// The table that is so much larger than the memory for decoded data.
pub const TABLE: Table = Table { rows: DECODED_BYTES * TIMES / Table::DECODED_ROW_BYTES };

/// Where rows are asked for by other keys too.
const OTHER_KEYS: (Layout, State) = (Layout::Seeking, State::Ready);

/// What of the file is there beside its own data pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Compressed,
    Ready,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Compressed => "from compressed data pages",
            Self::Ready => "lookup-ready",
        }
    }
}

/// How rows are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drawn {
    Zipf,
    Uniform,
}

impl Drawn {
    fn name(self) -> &'static str {
        match self {
            Self::Zipf => "zipf 0.99",
            Self::Uniform => "uniform",
        }
    }
}

/// A worker with one layout in one state.
struct Side {
    layout: Layout,
    state: State,
    worker: BenchWorker,
    asker: Asker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Question {
    layout: Layout,
    state: State,
    drawn: Drawn,
    by: By,
    load: Load,
}

struct Measured {
    placement: Placement,
    question: Question,
    series: Series,
    /// Reads of the page stores per key, round by round.
    reads: Vec<f64>,
}

/// Measures in so many rounds.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
pub async fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let (sides, mut missing) = sides().await?;
    let cores = Cores::of_this_process()?;
    let mut all: Vec<Measured> = Vec::new();
    for placement in cores.placements() {
        let measured = |question| Measured { placement, question, series: Series::default(), reads: Vec::new() };
        all.extend(questions(&sides).into_iter().map(measured));
    }
    let keys = [Keys::zipf(TABLE.rows), Keys::uniform(TABLE.rows)];
    for round in 0..effort.rounds {
        let order: Vec<usize> = if round % 2 == 0 { (0..all.len()).collect() } else { (0..all.len()).rev().collect() };
        for at in order {
            let Measured { placement, question, series, reads } = &mut all[at];
            let fits = |side: &&Side| (side.layout, side.state) == (question.layout, question.state);
            let Some(side) = sides.iter().find(fits) else { continue };
            placement.pin(&[side.worker.id()?])?;
            let keys = keys[question.drawn as usize].clone();
            let asker = Asker { by: question.by, keys, ..side.asker.clone() };
            let (sample, read) = measure(side, &asker, question.load, effort.load).await?;
            series.push(sample);
            reads.push(read);
        }
    }
    cores.release()?;
    let floor = decoding::one_page_per_column(&TABLE.file(Layout::Plain)?, &LEAVES)?;
    missing.extend(cores.placements().into_iter().flat_map(|placement| rows(placement, &all, floor)));
    Ok(missing)
}

/// All sides, and a row for each object that was not built.
async fn sides() -> anyhow::Result<(Vec<Side>, Vec<Row>)> {
    let (mut sides, mut missing) = (Vec::new(), Vec::new());
    for layout in Layout::ALL {
        let file = TABLE.file(layout)?;
        for state in [State::Compressed, State::Ready] {
            let builds = if state == State::Compressed { built::OFF } else { built::FAST };
            let worker = BenchWorker::start(&[MEMORY, builds].concat(), &[("table.parquet", &file)]).await?;
            let path = format!("{BUCKET}/table.parquet");
            let asker = Asker {
                client: worker.client().build()?,
                path: path.as_str().into(),
                by: By::Id,
                keys: Keys::heating(TABLE.rows),
            };
            asker.warm(TABLE).await?;
            let name = format!("big table, {}", layout.name());
            if state == State::Ready {
                missing.extend(built::by_heat(worker.endpoint(), &asker, Kind::Ready, &name).await?);
            }
            if (layout, state) == OTHER_KEYS {
                let by_user = Asker { by: By::User, ..asker.clone() };
                missing.extend(built::by_heat(worker.endpoint(), &by_user, Kind::Keymap, &name).await?);
                // With a keymap alone a data page per column is still decoded, which is worth the rows too.
                missing.extend(built::by_heat(worker.endpoint(), &by_user, Kind::Ready, &name).await?);
            }
            sides.push(Side { layout, state, worker, asker });
        }
    }
    Ok((sides, missing))
}

fn questions(sides: &[Side]) -> Vec<Question> {
    let mut questions = Vec::new();
    for Side { layout, state, .. } in sides {
        let question = |drawn, by, load| Question { layout: *layout, state: *state, drawn, by, load };
        for (drawn, load) in
            [Drawn::Zipf, Drawn::Uniform].iter().flat_map(|drawn| [ONE, SOME].map(|load| (*drawn, load)))
        {
            questions.push(question(drawn, By::Id, load));
        }
        if (*layout, *state) == OTHER_KEYS {
            let others =
                [(By::User, ONE), (By::User, SOME), (By::Absent, ONE), (By::Absent, SOME), (By::Absent, BATCHES)];
            questions.extend(others.map(|(by, load)| question(Drawn::Uniform, by, load)));
        }
    }
    questions
}

async fn measure(
    side: &Side,
    asker: &Asker,
    load: Load,
    duration: Duration,
) -> anyhow::Result<(crate::load::Sample, f64)> {
    let servers = [side.worker.id()?];
    asker.run(load, &servers, duration / LEAD_SHARE).await?;
    let before = page_reads(side).await?;
    let sample = asker.run(load, &servers, duration).await?;
    Ok((sample, (page_reads(side).await? - before) / sample.keys))
}

/// Reads of the worker's page stores, hits and misses.
async fn page_reads(side: &Side) -> anyhow::Result<f64> {
    let metrics = side.worker.metrics().await?;
    let of = |cache: &str| metrics.sum("alcedo_cache_requests_total", &[&format!("cache=\"{cache}\"")]);
    Ok(of("page") + of("derived"))
}

fn rows(placement: Placement, all: &[Measured], floor: f64) -> Vec<Row> {
    let here: Vec<&Measured> = all.iter().filter(|measured| measured.placement == placement).collect();
    let of = |question: Question| here.iter().find(|measured| measured.question == question).map(|m| &m.series);
    let mut rows = Vec::new();
    for Measured { question, series, reads, .. } in &here {
        let Question { layout, state, drawn, by, load } = *question;
        let by_name = if by == By::Id { String::new() } else { format!(", {}", by.name()) };
        let about = format!("{}, {}, {}{by_name}", layout.name(), state.name(), drawn.name());
        let name = format!("big table, {}, {about}, {}", placement.name, load.name);
        if load == ONE {
            let p50 = series.p50_row(&name);
            let is_bound = (layout, state, drawn) == (Layout::Seeking, State::Compressed, Drawn::Uniform);
            rows.push(if is_bound { p50.at_most(400.0) } else { p50 });
            rows.push(series.p99_row(&name));
        } else {
            rows.push(series.rate_row(&name));
            rows.push(judged(*question, series.server_row(&name)));
            let reads = Row::new(format!("{name}: page-store reads"), "per key", median(reads.iter().copied()));
            let is_bound = (state, drawn, by) == (State::Ready, Drawn::Uniform, By::Id);
            // None at all would mean that they are not counted: ten times the memory is asked for.
            let is_met = reads.alcedo > 0.0 && reads.alcedo <= 1.0;
            rows.push(if is_bound { reads.judged("one, on average at most".to_owned(), Some(is_met)) } else { reads });
        }
        let seeking = of(Question { layout: Layout::Seeking, ..*question });
        if let (Layout::Plain, State::Ready, SOME, Some(seeking)) = (layout, state, load, seeking) {
            let row = series.server_row(&format!("{name}, beside {}", Layout::Seeking.name())).beside(seeking.server());
            rows.push(row.at_most_times(1.2, "the other layout"));
        }
        if (layout, state, drawn, load) == (Layout::Plain, State::Compressed, Drawn::Uniform, SOME) {
            let row = series.server_row(&format!("{name}, beside decoding a data page per column")).beside(floor);
            rows.push(row.at_most_times(1.0, "one data page per column"));
        }
        if let (By::User, Some(int64)) = (by, of(Question { by: By::Id, ..*question })) {
            let name = format!("{name}, beside the sorted int64 key");
            let row = match load {
                ONE => series.p50_row(&name).beside(int64.p50()),
                _ => series.server_row(&name).beside(int64.server()),
            };
            rows.push(row.at_most_times(1.5, "the int64 key"));
        }
    }
    rows
}

/// The server's time with what is asked of it.
fn judged(question: Question, row: Row) -> Row {
    let Question { layout, state, drawn, by, load } = question;
    match (layout, state, drawn, by, load) {
        (Layout::Seeking, State::Ready, Drawn::Zipf, By::Id, SOME) => row.per_core(50e3),
        (Layout::Seeking, State::Compressed, Drawn::Uniform, By::Id, SOME) => row.per_core(5e3),
        (Layout::Seeking, State::Ready, Drawn::Uniform, By::Id, SOME) => row.per_core(30e3),
        (Layout::Seeking, State::Ready, Drawn::Uniform, By::Absent, BATCHES) => row.per_core(250e3),
        _ => row,
    }
}
