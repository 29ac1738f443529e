//! Alcedo beside others: another S3 server, the other clouds' dialects, a gRPC client and a Parquet reader of another
//! language. What it says must be what they say.
//!
//! Each test has a worker of its own in this process, asked over real sockets. The peers are Python programs in
//! `tests/py`, run by the interpreter that `cargo xtask test` prepares.
//!
//! - `moto`: moto's S3 server, which verifies signatures with botocore.
//! - `clouds`: `gs://` and `az://`, spoken by the test server.
//! - `reflection`: a gRPC client that has nothing but server reflection.
//! - `corpus_grpc`: the corpus by a gRPC client that was made from the published protos.
//! - `pyarrow`: the same rows by another reader of Parquet.
//! - `wild`: files of all kinds by pyarrow, DuckDB, polars and fastparquet.
//! - `agree`: pyarrow and DuckDB beside what must be answered, and where they are known to differ.
//!
//! Below them: `tour` and `overwrite` (the questions that every store must answer alike), `plain` (rows as JSON, to
//! compare), `served` (worker and lake), `python` (the interpreter).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agree;
mod clouds;
mod corpus_grpc;
mod moto;
mod overwrite;
mod plain;
mod pyarrow;
mod python;
mod reflection;
mod served;
mod tour;
mod wild;
