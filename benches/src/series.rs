//! All samples of one way of asking, round by round, and their medians.
//!
//! Knows samples and rows. It must not know what was asked.

use crate::load::Sample;
use crate::report::{Row, median};

/// The samples of one thing over the rounds.
#[derive(Debug, Clone, Default)]
pub struct Series {
    samples: Vec<Sample>,
}

impl Series {
    /// Adds a round's.
    pub fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// The median of the rounds' figures.
    #[must_use]
    pub fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(figure))
    }

    /// Microseconds of the median call.
    #[must_use]
    pub fn p50(&self) -> f64 {
        self.median(|sample| sample.p50_us)
    }

    /// Microseconds that 99 of 100 calls stay below.
    #[must_use]
    pub fn p99(&self) -> f64 {
        self.median(|sample| sample.p99_us)
    }

    /// Keys answered in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.median(|sample| sample.keys_per_second)
    }

    /// Microseconds of the servers' time per key.
    #[must_use]
    pub fn server(&self) -> f64 {
        self.median(|sample| sample.server_us_per_key)
    }

    /// Its median call as a row.
    #[must_use]
    pub fn p50_row(&self, name: &str) -> Row {
        Row::new(format!("{name}: p50"), "us", self.p50())
    }

    /// Its slow calls as a row.
    #[must_use]
    pub fn p99_row(&self, name: &str) -> Row {
        Row::new(format!("{name}: p99"), "us", self.p99())
    }

    /// Its rate as a row.
    #[must_use]
    pub fn rate_row(&self, name: &str) -> Row {
        Row::new(format!("{name}: rate"), "keys per second", self.rate())
    }

    /// The servers' time as a row.
    #[must_use]
    pub fn server_row(&self, name: &str) -> Row {
        Row::new(format!("{name}: server CPU"), "us per key", self.server())
    }
}
