//! The two sides of a comparison, asked alike: a worker through Alcedo's client, and Redis through its own.
//!
//! Knows how the same row is asked of either. It must not know how long that takes.

use std::sync::Arc;

use alcedo_client::{Client, KeyStatus};
use alcedo_testkit::lake::TruthRow;
use anyhow::ensure;
use redis::aio::MultiplexedConnection;

/// What of a row is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Two of its columns.
    TwoColumns,
    /// All of them.
    WholeRow,
}

impl Shape {
    /// Both, the smaller first.
    pub const ALL: [Self; 2] = [Self::TwoColumns, Self::WholeRow];

    /// What it is called in a row's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoColumns => "2 columns",
            Self::WholeRow => "whole rows",
        }
    }

    /// The columns to select; none is all.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::TwoColumns => &["user", "score"],
            Self::WholeRow => &[],
        }
    }

    /// The key under which Redis holds this of a row.
    fn redis_key(self, id: i64) -> String {
        match self {
            Self::TwoColumns => format!("c:{id}"),
            Self::WholeRow => format!("r:{id}"),
        }
    }

    /// What Redis holds: the same columns as JSON, as services keep rows there.
    fn json(self, row: &TruthRow) -> String {
        match self {
            Self::TwoColumns => serde_json::json!({ "user": row.user, "score": row.score }),
            Self::WholeRow => serde_json::json!({
                "id": row.id, "user": row.user, "name": row.name, "city": row.city, "score": row.score,
                "amount": row.amount.to_string(), "created": row.created_micros, "flags": row.flags,
                "active": row.active, "tags": row.tags,
            }),
        }
        .to_string()
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
    pub async fn fill(&self, rows: &[TruthRow]) -> anyhow::Result<()> {
        let Self::Redis(connection) = self else { return Ok(()) };
        let mut pipeline = redis::pipe();
        for (row, shape) in rows.iter().flat_map(|row| Shape::ALL.map(|shape| (row, shape))) {
            pipeline.set(shape.redis_key(row.id), shape.json(row)).ignore();
        }
        Ok(pipeline.query_async(&mut connection.clone()).await?)
    }

    /// Asks for the row of one key, which must be there.
    ///
    /// # Errors
    /// It is not there, or nobody answers.
    pub async fn get(&self, shape: Shape, id: i64) -> anyhow::Result<()> {
        match self {
            Self::Alcedo { client, path } => {
                let lookup = client.lookup(&**path).key_column("id").key(id).select(shape.columns().iter().copied());
                let answer = lookup.await?;
                ensure!(answer.rows().count() == 1 && answer.statuses == [KeyStatus::Found], "no row for {id}");
            }
            Self::Redis(connection) => {
                let mut get = redis::cmd("GET");
                get.arg(shape.redis_key(id));
                let value: Option<Vec<u8>> = get.query_async(&mut connection.clone()).await?;
                ensure!(value.is_some(), "no value for {id}");
            }
        }
        Ok(())
    }

    /// Asks for the rows of many keys in one call; all must be there.
    ///
    /// # Errors
    /// One is not there, or nobody answers.
    pub async fn get_many(&self, shape: Shape, ids: &[i64]) -> anyhow::Result<()> {
        let found = match self {
            Self::Alcedo { client, path } => {
                let lookup = client.lookup(&**path).key_column("id").keys(ids.iter().copied());
                lookup.select(shape.columns().iter().copied()).await?.rows().count()
            }
            Self::Redis(connection) => {
                let mut get = redis::cmd("MGET");
                ids.iter().for_each(|id| {
                    get.arg(shape.redis_key(*id));
                });
                let values: Vec<Option<Vec<u8>>> = get.query_async(&mut connection.clone()).await?;
                values.iter().flatten().count()
            }
        };
        ensure!(found == ids.len(), "{found} rows for {} keys", ids.len());
        Ok(())
    }
}
