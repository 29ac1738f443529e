//! All knowledge of Parquet and of the point-lookup algorithm.
//!
//! Layer 0. This crate does no I/O and has no runtime: a [`machine`] says which pieces of a file it needs, is fed them,
//! and ends in a value or in an error that means "these bytes are not what they should be". It must not know disks,
//! stores, paths or the network. A worker's reader, a client's fallback and a test's byte slice drive the same
//! machines.
//!
//! In reading order: [`key`], [`schema`] and [`value`] are the vocabulary of questions and answers, [`rows`] an
//! answer's bytes on the wire (these need no Parquet: a client built without the feature `parquet` has just them).
//! `probe` turns a key into what a column holds; `thrift` and `codec` read hostile bytes within bounds; `schema_tree`
//! is a file's columns, `file_index` its footer made small; `chunk` is the page table of one column chunk, `bloom` its
//! bloom filter; `data_page` decodes; [`machine`], `open` and `search` are the algorithm; `answer` writes it down;
//! [`decoded`] keeps hot data pages as Arrow arrays, `flat_page` picks single rows out of stored ones, of which
//! `inflating` inflates no more than that takes; [`ready`] keeps rows as answers need them, [`keymap`] names the rows
//! of a key.

pub mod key;
pub mod rows;
pub mod schema;
pub mod value;

#[cfg(feature = "parquet")]
pub mod answer;
#[cfg(feature = "parquet")]
mod arrow_hint;
#[cfg(feature = "parquet")]
mod arrow_rows;
#[cfg(feature = "parquet")]
mod arrow_stream;
#[cfg(feature = "parquet")]
mod bloom;
#[cfg(feature = "parquet")]
mod bounds_list;
#[cfg(feature = "parquet")]
mod chunk;
#[cfg(feature = "parquet")]
mod codec;
#[cfg(feature = "parquet")]
mod data_page;
#[cfg(feature = "parquet")]
mod decimal_bytes;
#[cfg(feature = "parquet")]
pub mod decoded;
#[cfg(feature = "parquet")]
mod decoded_keys;
#[cfg(feature = "parquet")]
mod delta;
#[cfg(feature = "parquet")]
pub mod derived;
#[cfg(feature = "parquet")]
pub mod error;
#[cfg(feature = "parquet")]
mod fetched;
#[cfg(feature = "parquet")]
mod fetched_group;
#[cfg(feature = "parquet")]
pub mod file_index;
#[cfg(feature = "parquet")]
mod file_parts;
#[cfg(feature = "parquet")]
mod flat_keys;
#[cfg(feature = "parquet")]
mod flat_page;
#[cfg(feature = "parquet")]
mod flat_rows;
#[cfg(feature = "parquet")]
mod footer;
#[cfg(feature = "parquet")]
mod group;
#[cfg(feature = "parquet")]
mod guard;
#[cfg(feature = "parquet")]
mod inflating;
#[cfg(feature = "parquet")]
mod int96;
#[cfg(feature = "parquet")]
mod key_column;
#[cfg(feature = "parquet")]
mod key_scan;
#[cfg(feature = "parquet")]
pub mod keymap;
#[cfg(feature = "parquet")]
pub mod learn;
#[cfg(feature = "parquet")]
pub mod limits;
#[cfg(feature = "parquet")]
pub mod machine;
#[cfg(feature = "parquet")]
mod nested_arrays;
#[cfg(feature = "parquet")]
pub mod open;
#[cfg(feature = "parquet")]
mod packed_stats;
#[cfg(feature = "parquet")]
mod page_check;
#[cfg(feature = "parquet")]
mod page_header;
#[cfg(feature = "parquet")]
mod page_index;
#[cfg(feature = "parquet")]
mod page_place;
#[cfg(feature = "parquet")]
pub mod pages_answer;
#[cfg(feature = "parquet")]
mod plain_values;
#[cfg(feature = "parquet")]
pub mod prepared;
#[cfg(feature = "parquet")]
mod probe;
#[cfg(feature = "parquet")]
mod projection;
#[cfg(feature = "parquet")]
pub mod ready;
#[cfg(feature = "parquet")]
mod row_batch;
#[cfg(feature = "parquet")]
mod row_reader;
#[cfg(feature = "parquet")]
mod schema_tree;
#[cfg(feature = "parquet")]
pub mod search;
#[cfg(feature = "parquet")]
mod sent_pages;
#[cfg(feature = "parquet")]
mod shared_schemas;
#[cfg(feature = "parquet")]
mod sieve;
#[cfg(feature = "parquet")]
mod snappy_prefix;
#[cfg(feature = "parquet")]
mod stretch;
#[cfg(feature = "parquet")]
mod tables;
#[cfg(feature = "parquet")]
mod thrift;
#[cfg(feature = "parquet")]
mod varint;
