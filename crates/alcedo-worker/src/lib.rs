//! Layer 3: the worker daemon as a library, the only place where bytes meet Parquet.
//!
//! Knows how a request goes from a socket to rows: `service` (the only place with gRPC types) checks it, [`admission`]
//! gives it time and a permit, [`lookups`] finds candidates with `listings` and [`indexes`] and drives a search over a
//! [`reader`], which goes from the page store over the flight map to the origin. It must not know how a terminal looks.
//!
//! [`Config`] holds every setting, [`Worker`] starts one.

mod admin;
pub mod admission;
pub mod builds;
pub mod config;
mod config_document;
pub mod config_keys;
mod config_lookup;
mod config_tables;
mod connection;
pub mod cost;
mod damage;
mod decoded_budget;
pub mod derived;
mod errands;
pub mod error;
pub mod exposition;
pub mod files;
mod frames;
pub mod heat;
pub mod histogram;
pub mod hot_rows;
pub mod indexes;
pub mod listings;
pub mod lookups;
mod membership;
mod memory;
mod merge;
pub mod metrics;
pub mod notify;
#[cfg(test)]
mod panics;
mod pinned;
pub mod pins;
pub mod prepared;
mod process;
pub mod reader;
mod records;
mod service;
mod serving;
mod shortage;
mod status_page;
pub mod tails;
mod turns;
mod units;
mod unix_socket;
pub mod watchdog;
mod worker;

pub use builds::{Failed, What};
pub use config::{Config, ConfigError};
pub use config_keys::{CONFIG_KEYS, ConfigKey, KeyType, config_page};
pub use error::Error;
pub use exposition::{METRICS, MetricKind, MetricRow, metrics_page};
pub use notify::Notifier;
pub use watchdog::{Unproven, Watchdog};
pub use worker::{Reloaded, Running, StartError, Worker};
