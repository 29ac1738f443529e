//! Layer 3: the worker daemon as a library, the only place where bytes meet Parquet.
//!
//! Knows how a request goes from a socket to rows: `service` (the only place with gRPC types) checks it, [`admission`]
//! gives it time and a permit, [`lookups`] finds candidates with `listings` and [`indexes`] and drives a search over a
//! [`reader`], which goes from the page store over the flight map to the origin. It must not know how a terminal looks.
//!
//! [`Config`] holds every setting, [`Worker`] starts one.

mod admin;
pub mod admission;
pub mod config;
mod config_document;
pub mod config_keys;
mod config_lookup;
mod config_tables;
mod connection;
pub mod cost;
mod damage;
mod errands;
pub mod error;
pub mod exposition;
pub mod files;
mod frames;
pub mod histogram;
pub mod indexes;
pub mod listings;
pub mod lookups;
mod membership;
mod merge;
pub mod metrics;
pub mod notify;
#[cfg(test)]
mod panics;
mod process;
pub mod reader;
mod records;
mod service;
mod serving;
mod status_page;
mod units;
pub mod watchdog;
mod worker;

pub use config::{Config, ConfigError};
pub use config_keys::{CONFIG_KEYS, ConfigKey, KeyType, config_page};
pub use error::Error;
pub use exposition::{METRICS, MetricKind, MetricRow, metrics_page};
pub use notify::Notifier;
pub use watchdog::{Unproven, Watchdog};
pub use worker::{Reloaded, Running, StartError, Worker};
