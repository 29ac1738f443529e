//! Layer 3: how fast a build may go.
//!
//! Knows when lookups need the worker for themselves, and a share of the processor. It must not know what is built. It
//! stands between a machine and its source: before every read and every step it waits while it must, and after a step
//! it rests for as long as the share demands.

use std::sync::Arc;
use std::time::Duration;

use alcedo_lookup::machine::{Fed, Machine, Need, Source, Step};
use tokio::runtime::Handle;

use crate::admission::Admission;
use crate::error::Error;
use crate::reader::{FileVersion, Reader};
use crate::service::Door;

/// While requests need the worker, it is looked again so soon.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Longest rest after one step, so that a step that was held up by others does not hold the build up for minutes.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// The source of one build.
pub(super) struct Paced<'d> {
    door: &'d Door,
    io: &'d Handle,
    reader: Arc<Reader>,
    version: &'d FileVersion,
    cpu_percent: u32,
}

impl<'d> Paced<'d> {
    pub(super) fn new(door: &'d Door, io: &'d Handle, reader: Reader, version: &'d FileVersion) -> Self {
        let cpu_percent = door.settings().builds.cpu_percent;
        Self { door, io, reader: Arc::new(reader), version, cpu_percent }
    }

    /// Waits while requests need the worker.
    ///
    /// # Errors
    /// The file has another version by now, and nobody will ask for this one's objects; or memory is short, and a build
    /// that only waited would keep its own.
    pub(super) async fn pass(&self) -> Result<(), Error> {
        let builds = &self.door.builds;
        loop {
            if self.door.lookups.indexes().is_outdated(self.version) {
                return Err(Error::VersionChanged { url: Arc::clone(&self.version.stat.url) });
            }
            if self.door.admission.memory_is_short() {
                return Err(Admission::memory_error());
            }
            if !self.door.admission.is_strained() {
                return Ok(());
            }
            builds.counts().yielded.up();
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// How long to rest after so much work, so that work is this part of the time in percent.
fn rest(work: Duration, percent: u32) -> Duration {
    let percent = percent.clamp(1, 100);
    (work * (100 - percent) / percent).min(LONGEST_REST)
}

impl Source for Paced<'_> {
    type Error = Error;

    async fn read(&self, stage: &'static str, need: &Need) -> Result<Vec<Fed>, Error> {
        self.pass().await?;
        // What is here is copied by this thread, which gives way to lookups.
        if let Some(fed) = self.reader.read_here(stage, need) {
            return Ok(fed);
        }
        // On a runtime that is never busy: a lookup that waits for the same bytes must not wait for this thread.
        let (reader, need) = (Arc::clone(&self.reader), need.clone());
        let read = self.io.spawn(async move { reader.read(stage, &need).await });
        match read.await {
            Ok(fed) => fed,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Draining),
            },
        }
    }

    async fn step<M: Machine>(&self, mut machine: M) -> Result<(M, Step<M::Output>), Error> {
        self.pass().await?;
        // Elapsed time is not less than the processor's, which is what is bounded.
        let began = std::time::Instant::now();
        let step = machine.step();
        tokio::time::sleep(rest(began.elapsed(), self.cpu_percent)).await;
        Ok((machine, step.map_err(|error| Error::file(&self.version.stat.url, error))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_makes_work_the_share_that_it_may_be() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(10), 20), ms(40));
        assert_eq!(rest(ms(10), 50), ms(10));
        assert_eq!((rest(ms(10), 100), rest(ms(10), 400)), (ms(0), ms(0)));
        assert_eq!(rest(ms(1), 0), ms(99));
        assert_eq!(rest(Duration::from_secs(60), 20), LONGEST_REST);
    }
}
