//! Asking a worker for rows of the generated table, each compared with the truth.
//!
//! Knows the client crate and how the table's values are computed. It must not know how long a call takes is too long,
//! nor where the worker is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alcedo_client::{Answer, Client, KeyStatus, Reason, Value};
use anyhow::{Context, bail, ensure};

use crate::keys::Keys;
use crate::load::{self, Load, Sample};
use crate::table::Table;

/// How often an index that is still being built is asked for again before a run gives up.
const BUILDING_TRIES: u32 = 50;
/// Rows between two that are asked for to bring every data page of a layout into the page store.
const WARM_STRIDE: u64 = 500;
/// Keys of a message while it is warmed.
const WARM_KEYS: usize = 100;

/// By which column rows are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The sorted int64 key.
    Id,
    /// The unsorted string key.
    User,
    /// The sorted key, with values that no row has.
    Absent,
}

impl By {
    /// What it is called in a row's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "sorted int64 key",
            Self::User => "unsorted string key",
            Self::Absent => "absent keys",
        }
    }
}

/// Asks one worker for rows of one file; clones share the connections and go on among the keys.
#[derive(Clone)]
pub struct Asker {
    /// The worker's client.
    pub client: Client,
    /// The file.
    pub path: Arc<str>,
    /// How rows are asked for.
    pub by: By,
    /// Which.
    pub keys: Keys,
}

impl Asker {
    /// Asks for so long in this way.
    ///
    /// # Errors
    /// A call fails or an answer is not the truth.
    pub async fn run(&self, load: Load, servers: &[u32], duration: Duration) -> anyhow::Result<Sample> {
        let asker = self.clone();
        let ask = move |keys| {
            let asker = asker.clone();
            async move { asker.ask(keys).await }
        };
        load::run(load, servers, duration, ask).await
    }

    /// One call with so many keys; how long it took until its answer was there.
    ///
    /// # Errors
    /// The call fails or an answer is not the truth.
    pub async fn ask(&self, keys: usize) -> anyhow::Result<Duration> {
        let rows: Vec<u64> = (0..keys).map(|_| self.keys.draw()).collect();
        let begin = Instant::now();
        let answer = self.call(&rows).await.with_context(|| format!("rows {rows:?} of {}", self.path))?;
        let took = begin.elapsed();
        self.compare(&rows, &answer)?;
        Ok(took)
    }

    /// The call alone.
    ///
    /// # Errors
    /// It fails.
    pub async fn call(&self, rows: &[u64]) -> Result<Answer, alcedo_client::Error> {
        let lookup = self.client.lookup(&*self.path).select(Table::SELECTED);
        match self.by {
            By::Id => lookup.key_column("id").keys(rows.iter().map(|row| Table::id(*row))),
            By::Absent => lookup.key_column("id").keys(rows.iter().map(|row| Table::absent_id(*row))),
            By::User => lookup.key_column("user").keys(rows.iter().map(|row| Table::user(*row))),
        }
        .await
    }

    /// Whether an answer is the truth about these rows.
    ///
    /// # Errors
    /// It is not.
    pub fn compare(&self, rows: &[u64], answer: &Answer) -> anyhow::Result<()> {
        if self.by == By::Absent {
            let is_absent = answer.is_empty() && answer.statuses.iter().all(|s| *s == KeyStatus::NotFound);
            ensure!(is_absent, "rows came for keys behind {rows:?}, which no row has");
            return Ok(());
        }
        let mut seen = vec![false; rows.len()];
        for (_, found) in answer.rows() {
            let place = found.key_index as usize;
            let row = *rows.get(place).context("an answer to a key that was not asked")?;
            let [Value::String(note), Value::Float64(score)] = &found.values[..] else {
                bail!("row {row} has values {:?}", found.values);
            };
            let is_true = *note == Table::note(row) && score.to_bits() == Table::score(row).to_bits();
            ensure!(is_true && found.row_number == row, "row {row} is answered with {found:?}");
            ensure!(!std::mem::replace(&mut seen[place], true), "row {row} came twice");
        }
        ensure!(seen.iter().all(|seen| *seen), "a key of rows {rows:?} has no row");
        Ok(())
    }

    /// Asks once, and again while the file's index is still being built, as a caller would.
    ///
    /// # Errors
    /// The call fails for another reason, or an answer is not the truth.
    pub async fn ask_patiently(&self, rows: &[u64]) -> anyhow::Result<()> {
        for _ in 0..BUILDING_TRIES {
            match self.call(rows).await {
                Ok(answer) => return self.compare(rows, &answer),
                Err(error) if error.reason == Some(Reason::IndexBuilding) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("the index of {} was not built in {BUILDING_TRIES} tries", self.path)
    }

    /// Brings every data page of the key and the selected columns into the worker's page store.
    ///
    /// # Errors
    /// A call fails or an answer is not the truth.
    pub async fn warm(&self, table: Table) -> anyhow::Result<()> {
        let rows: Vec<u64> = (0..table.rows).step_by(WARM_STRIDE as usize).collect();
        for chunk in rows.chunks(WARM_KEYS) {
            self.ask_patiently(chunk).await?;
        }
        Ok(())
    }
}
