//! Memory: what a file's index takes, and whether a worker stays within what it was given.
//!
//! Knows the worker's gauges and its process. It must not know what the memory is used for.

use std::time::Duration;

use alcedo_testkit::cluster::BUCKET;
use anyhow::ensure;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use tokio::time::{Instant, sleep};

use crate::asker::{Asker, By};
use crate::big_tables::TABLE;
use crate::built;
use crate::effort::Effort;
use crate::keys::Keys;
use crate::load::Load;
use crate::report::Row;
use crate::table::{Layout, Table};
use crate::worker::BenchWorker;

/// Files whose indexes are held at once.
const FILES: u64 = 2_000;
/// Files that are opened before anything is weighed: what the first ones bring, such as code, tables of the metadata
/// store and threads, is not theirs.
const WARM_FILES: u64 = 300;
/// Each of them: one row group with a page index.
const SMALL: Table = Table { rows: 100_000 };
/// A file with many data pages, which shows what one more of them takes.
const LARGE: Table = Table { rows: 1_200_000 };
/// What an index may take beside its data pages, and for each of the key column's.
const FILE_BYTES: f64 = 2_048.0;
const PAGE_BYTES: f64 = 64.0;
/// Files whose indexes are to fit into a GiB.
const MANY_FILES: f64 = 100_000.0;
const GIB: f64 = (1 << 30) as f64;
/// The memory that the worker of the mixed run is given.
const LIMIT_MIB: f64 = 512.0;
/// It may take a tenth more.
const MOST_SHARE: f64 = 1.1;
/// How often the process is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the mixed run lasts, and where a long one is asked for.
const MIXED: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];

/// Measures both.
///
/// # Errors
/// Something cannot be started, or an answer is not right.
pub async fn run(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let mut rows = indexes().await?;
    // A short run has short loads; the mixed one is then as short as it can be and still show a slope.
    let short = MIXED[0].min(effort.load * 75);
    rows.extend(mixed(if effort.long { MIXED[1] } else { short }).await?);
    Ok(rows)
}

/// What the worker holds for the indexes of many files after one lookup of each by its key column alone.
async fn indexes() -> anyhow::Result<Vec<Row>> {
    let small = weigh(SMALL, FILES).await?;
    let large = weigh(LARGE, 1).await?;
    let (small_pages, large_pages) = (key_pages(SMALL)?, key_pages(LARGE)?);
    let row = |what: &str, bytes: f64, pages: f64| {
        let name = format!("memory, index of a file with {pages:.0} data pages of the key{what}");
        Row::new(name, "bytes", bytes)
    };
    let bounded = |bytes: f64, pages: f64| row("", bytes, pages).at_most(FILE_BYTES + PAGE_BYTES * pages);
    let fitting = Row::new(
        "memory, indexes of 100,000 files, from 2,000 real ones, beside the process's growth",
        "GiB",
        small.held * MANY_FILES / GIB,
    );
    let resident = small.resident * MANY_FILES / GIB;
    Ok(vec![
        bounded(small.held, small_pages),
        bounded(large.held, large_pages),
        row(", by the process's growth", small.resident, small_pages),
        fitting.beside(resident).at_most(1.0),
    ])
}

/// Bytes for each file's index.
struct Weighed {
    /// By the worker's own count.
    held: f64,
    /// By what its process grew.
    resident: f64,
}

async fn weigh(table: Table, files: u64) -> anyhow::Result<Weighed> {
    let file = table.file(Layout::Seeking)?;
    let names: Vec<String> = (0..files + WARM_FILES).map(|number| format!("many/{number}.parquet")).collect();
    let objects: Vec<_> = names.iter().map(|name| (name.as_str(), file.as_path())).collect();
    // What is kept decoded has a bound of its own.
    let settings = [&[("cache.index", "\"1GiB\""), ("cache.decoded", "0")][..], built::OFF].concat();
    let worker = BenchWorker::start(&settings, &objects).await?;
    let client = worker.client().build()?;
    client.cluster().await?;
    let index_bytes = async || anyhow::Ok(worker.metrics().await?.sum("alcedo_cache_bytes", &["cache=\"index\""]));
    let (mut held_before, mut resident_before) = (0.0, 0.0);
    for (number, name) in (0..).zip(&names) {
        if number == WARM_FILES {
            (held_before, resident_before) = (index_bytes().await?, worker.resident_bytes()?);
        }
        let row = crate::table::mixed(number) % table.rows;
        let lookup = client.lookup(format!("{BUCKET}/{name}")).key_column("id").key(Table::id(row)).select(["id"]);
        let answer = lookup.await?;
        let found: Vec<u64> = answer.rows().map(|(_, found)| found.row_number).collect();
        ensure!(found == [row], "row {row} of {name} is answered with {found:?}");
    }
    let held = index_bytes().await? - held_before;
    ensure!(held > 0.0, "the worker holds no index");
    let per_file = |bytes: f64| bytes / files as f64;
    Ok(Weighed { held: per_file(held), resident: per_file(worker.resident_bytes()? - resident_before) })
}

/// Data pages of the key column.
fn key_pages(table: Table) -> anyhow::Result<f64> {
    let read = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    let metadata = read.parse_and_finish(&std::fs::File::open(table.file(Layout::Seeking)?)?)?;
    let groups = metadata.offset_index().into_iter().flatten();
    Ok(groups.map(|group| group[0].page_locations().len()).sum::<usize>() as f64)
}

/// Everything at once against a worker with little memory, for so long; the most that its process had in RAM.
async fn mixed(length: Duration) -> anyhow::Result<Vec<Row>> {
    let file = TABLE.file(Layout::Seeking)?;
    let plain = TABLE.file(Layout::Plain)?;
    let limit = format!("\"{LIMIT_MIB}MiB\"");
    let objects = [("table.parquet", file.as_path()), ("plain.parquet", plain.as_path())];
    let worker = BenchWorker::start(&[("memory.limit", &limit)], &objects).await?;
    let asker = |file: &str, by, keys| -> anyhow::Result<Asker> {
        Ok(Asker { client: worker.client().build()?, path: format!("{BUCKET}/{file}").into(), by, keys })
    };
    let skewed = asker("table.parquet", By::Id, Keys::zipf(TABLE.rows))?;
    let uniform = asker("table.parquet", By::Id, Keys::uniform(TABLE.rows))?;
    let absent = asker("table.parquet", By::Absent, Keys::uniform(TABLE.rows))?;
    let plain = asker("plain.parquet", By::Id, Keys::uniform(TABLE.rows))?;
    plain.ask_patiently(&[0]).await?;
    let load = |outstanding, keys| Load { name: "mixed", outstanding, keys };
    let servers = [worker.id()?];
    let begin = Instant::now();
    let watch = async {
        let mut most = 0.0_f64;
        while begin.elapsed() < length {
            most = most.max(worker.resident_bytes()?);
            sleep(LOOK_INTERVAL).await;
        }
        anyhow::Ok(most)
    };
    let (most, skewed, uniform, absent, batches, plain) = tokio::try_join!(
        watch,
        skewed.run(load(32, 1), &servers, length),
        uniform.run(load(16, 1), &servers, length),
        absent.run(load(16, 1), &servers, length),
        uniform.run(load(1, 100), &servers, length),
        plain.run(load(4, 1), &servers, length),
    )?;
    let rate = [skewed, uniform, absent, batches, plain].iter().map(|sample| sample.keys_per_second).sum();
    let name = format!("memory, mixed run of {} s with {LIMIT_MIB} MiB", length.as_secs());
    let most = most / f64::from(1 << 20);
    Ok(vec![
        Row::new(format!("{name}: most in RAM"), "MiB", most).at_most((LIMIT_MIB * MOST_SHARE).round()),
        Row::new(format!("{name}: rate"), "keys per second", rate),
    ])
}
