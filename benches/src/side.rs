//! The sides of a comparison, asked alike: a worker through Alcedo's client, and Redis through its own.
//!
//! Knows how the same row is asked of either, and what the answer must be. It must not know how long that takes is too
//! long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alcedo_client::{Client, KeyStatus, Value};
use alcedo_testkit::lake::TruthRow;
use anyhow::ensure;
use redis::aio::MultiplexedConnection;

/// What of a row is asked for, and by which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Two of its columns.
    TwoColumns,
    /// All of them.
    WholeRow,
    /// Two columns by a string key that the file is not sorted by.
    ByUser,
    /// Two columns of keys that no row has.
    Absent,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TwoColumns, Self::WholeRow, Self::ByUser, Self::Absent];

    /// What it is called in a row's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoColumns => "2 columns",
            Self::WholeRow => "whole rows",
            Self::ByUser => "unsorted string key",
            Self::Absent => "absent keys",
        }
    }

    /// The columns to select; none is all.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::WholeRow => &[],
            _ => &["user", "score"],
        }
    }
}

/// A row that is asked for again and again, with the answers that are right.
#[derive(Debug)]
pub struct HotRow {
    id: i64,
    absent_id: i64,
    user: String,
    two: [Value; 2],
    whole: Vec<Value>,
    two_json: String,
    whole_json: String,
}

impl HotRow {
    /// A row, and a key that no row has.
    #[must_use]
    pub fn new(row: &TruthRow, absent_id: i64) -> Self {
        let text = |text: &str| Value::String(text.to_owned());
        let (sign, unscaled) = (if row.amount < 0 { "-" } else { "" }, row.amount.unsigned_abs());
        let amount = format!("{sign}{}.{:02}", unscaled / 100, unscaled % 100);
        let tags = row.tags.as_ref().map(|tags| Value::List(tags.iter().map(|tag| text(tag)).collect()));
        let whole = vec![
            Value::Int(row.id),
            text(&row.user),
            row.name.as_deref().map_or(Value::Null, text),
            text(row.city),
            Value::Float64(row.score),
            Value::Decimal(amount.clone().into()),
            Value::Int(row.created_micros),
            Value::Int(row.flags.into()),
            Value::Bool(row.active),
            tags.unwrap_or(Value::Null),
        ];
        // As services keep rows in Redis.
        let whole_json = serde_json::json!({
            "id": row.id, "user": row.user, "name": row.name, "city": row.city, "score": row.score,
            "amount": amount, "created": row.created_micros, "flags": row.flags,
            "active": row.active, "tags": row.tags,
        });
        Self {
            id: row.id,
            absent_id,
            user: row.user.clone(),
            two: [text(&row.user), Value::Float64(row.score)],
            whole,
            two_json: serde_json::json!({ "user": row.user, "score": row.score }).to_string(),
            whole_json: whole_json.to_string(),
        }
    }

    /// The values that an answer of this shape has; none where there is no row.
    fn values(&self, shape: Shape) -> Option<&[Value]> {
        match shape {
            Shape::TwoColumns | Shape::ByUser => Some(&self.two),
            Shape::WholeRow => Some(&self.whole),
            Shape::Absent => None,
        }
    }

    /// The key under which Redis holds what this shape asks for.
    fn redis_key(&self, shape: Shape) -> String {
        match shape {
            Shape::TwoColumns => format!("c:{}", self.id),
            Shape::WholeRow => format!("r:{}", self.id),
            Shape::ByUser => format!("u:{}", self.user),
            Shape::Absent => format!("c:{}", self.absent_id),
        }
    }

    /// What Redis holds under it.
    fn json(&self, shape: Shape) -> Option<&str> {
        match shape {
            Shape::TwoColumns | Shape::ByUser => Some(&self.two_json),
            Shape::WholeRow => Some(&self.whole_json),
            Shape::Absent => None,
        }
    }
}

/// One side, ready to be asked; clones share its connections.
#[derive(Clone)]
pub enum Side {
    /// A worker, asked for rows of this file.
    Alcedo {
        /// Its client.
        client: Client,
        /// The file.
        path: Arc<str>,
    },
    /// A server that [`Side::fill`] has filled.
    Redis(MultiplexedConnection),
}

impl Side {
    /// Stores rows in Redis; a worker reads them from its lake.
    ///
    /// # Errors
    /// The server does not take them.
    pub async fn fill(&self, rows: &[Arc<HotRow>]) -> anyhow::Result<()> {
        let Self::Redis(connection) = self else { return Ok(()) };
        let mut pipeline = redis::pipe();
        for (row, shape) in rows.iter().flat_map(|row| Shape::ALL.map(|shape| (row, shape))) {
            if let Some(json) = row.json(shape) {
                pipeline.set(row.redis_key(shape), json).ignore();
            }
        }
        Ok(pipeline.query_async(&mut connection.clone()).await?)
    }

    /// Asks for the rows of some keys in one call, compares the answer with the truth, and says how long the call took.
    ///
    /// # Errors
    /// Nobody answers, or the answer is not right.
    pub async fn ask(&self, shape: Shape, rows: &[Arc<HotRow>]) -> anyhow::Result<Duration> {
        match self {
            Self::Alcedo { client, path } => alcedo(client, path, shape, rows).await,
            Self::Redis(connection) => redis(connection.clone(), shape, rows).await,
        }
    }
}

async fn alcedo(client: &Client, path: &str, shape: Shape, rows: &[Arc<HotRow>]) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let lookup = client.lookup(path).select(shape.columns().iter().copied());
    let answer = match shape {
        Shape::TwoColumns | Shape::WholeRow => lookup.key_column("id").keys(rows.iter().map(|row| row.id)),
        Shape::ByUser => lookup.key_column("user").keys(rows.iter().map(|row| row.user.as_str())),
        Shape::Absent => lookup.key_column("id").keys(rows.iter().map(|row| row.absent_id)),
    }
    .await?;
    let took = begin.elapsed();
    let status = if shape == Shape::Absent { KeyStatus::NotFound } else { KeyStatus::Found };
    let expected = if shape == Shape::Absent { 0 } else { rows.len() };
    ensure!(answer.statuses.iter().all(|found| *found == status), "a key of {} is wrongly there or not", shape.name());
    ensure!(answer.rows().count() == expected, "{} rows for {} keys", answer.rows().count(), rows.len());
    for (_, found) in answer.rows() {
        let truth = rows.get(found.key_index as usize).and_then(|row| row.values(shape));
        ensure!(truth == Some(&found.values), "the worker answers {found:?}, the truth is {truth:?}");
    }
    Ok(took)
}

async fn redis(mut connection: MultiplexedConnection, shape: Shape, rows: &[Arc<HotRow>]) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let values: Vec<Option<Vec<u8>>> = if let [row] = rows {
        vec![redis::cmd("GET").arg(row.redis_key(shape)).query_async(&mut connection).await?]
    } else {
        let mut get = redis::cmd("MGET");
        rows.iter().for_each(|row| {
            get.arg(row.redis_key(shape));
        });
        get.query_async(&mut connection).await?
    };
    let took = begin.elapsed();
    ensure!(values.len() == rows.len(), "{} values for {} keys", values.len(), rows.len());
    let is_true = rows.iter().zip(&values).all(|(row, value)| row.json(shape).map(str::as_bytes) == value.as_deref());
    ensure!(is_true, "redis-server answers something else than it was given");
    Ok(took)
}
