//! Layer 3: the worker daemon as a library, the only place where bytes meet Parquet.
//!
//! Knows how a request goes from a socket to rows: `service` (the only place with gRPC types) checks it, [`admission`]
//! gives it time and a permit, [`lookups`] finds candidates with `listings` and [`indexes`] and drives a search over a
//! [`reader`], which goes from the page store over the flight map to the origin. It must not know how a terminal looks.
//!
//! [`Config`] holds every setting, [`Worker`] starts one.

pub mod admission;
pub mod config;
mod config_document;
pub mod config_keys;
mod connection;
pub mod cost;
mod errands;
pub mod error;
pub mod files;
pub mod indexes;
pub mod listings;
pub mod lookups;
mod merge;
pub mod metrics;
pub mod reader;
mod service;
mod units;
mod worker;

pub use config::{Config, ConfigError};
pub use config_keys::{CONFIG_KEYS, ConfigKey, KeyType};
pub use error::Error;
pub use worker::{Running, StartError, Worker};
