//! Derived objects of a worker: none at all, or those that the heat of what is asked has built.
//!
//! Knows the settings of background builds and the metrics by which one sees them. It must not know what they are good
//! for.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

use crate::asker::Asker;
use crate::load::Load;
use crate::report::Row;
use crate::worker::{Metrics, Settings};

/// Settings that switch background builds off.
pub const OFF: Settings<'static> = &[("builds.parallel", "0")];
/// Settings with which a build takes a whole processor: what is measured is what it leads to.
pub const FAST: Settings<'static> = &[("builds.cpu_percent", "100")];
/// Longest time until what is asked for is built.
const BUILD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long is asked between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Enough to be hot; few enough that the build gets its turn.
const HEATING: Load = Load { name: "heating", outstanding: 4, keys: 1 };

/// A kind of derived object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rows that need no decompression.
    Ready,
    /// Key to rows.
    Keymap,
}

impl Kind {
    /// How many of it a worker has.
    #[must_use]
    pub fn held(self, metrics: &Metrics) -> f64 {
        let label = match self {
            Self::Ready => "kind=\"ready\"",
            Self::Keymap => "kind=\"keymap\"",
        };
        metrics.sum("alcedo_derived_objects", &[label])
    }
}

/// Builds that are under way.
#[must_use]
pub fn under_way(metrics: &Metrics) -> f64 {
    metrics.sum("alcedo_builds_under_way", &[])
}

/// Asks until a build begins, and no longer.
///
/// # Errors
/// None does, or an answer is not the truth.
pub async fn until_begun(endpoint: &str, asker: &Asker) -> anyhow::Result<()> {
    let begin = Instant::now();
    while under_way(&Metrics::read(endpoint).await?) == 0.0 {
        asker.run(HEATING, &[], LOOK_INTERVAL).await?;
        if begin.elapsed() > BUILD_TIMEOUT {
            bail!("no build began within {BUILD_TIMEOUT:?}");
        }
    }
    Ok(())
}

/// Asks until the worker that listens there has one more object of this kind, and until nothing is being built any
/// more. Where that does not come, what is measured goes on without it, and this says so in a row called after `name`.
///
/// # Errors
/// An answer is not the truth.
pub async fn by_heat(endpoint: &str, asker: &Asker, kind: Kind, name: &str) -> anyhow::Result<Vec<Row>> {
    let (begin, before) = (Instant::now(), kind.held(&Metrics::read(endpoint).await?));
    loop {
        asker.run(HEATING, &[], LOOK_INTERVAL).await?;
        let metrics = Metrics::read(endpoint).await?;
        if kind.held(&metrics) > before && under_way(&metrics) == 0.0 {
            return Ok(Vec::new());
        }
        if begin.elapsed() > BUILD_TIMEOUT {
            let target = format!("what is asked for is built within {BUILD_TIMEOUT:?}; the rows beside are without it");
            let row =
                Row::new(format!("{name}: objects of the kind {kind:?}"), "objects", kind.held(&metrics) - before);
            return Ok(vec![row.judged(target, Some(false))]);
        }
    }
}
