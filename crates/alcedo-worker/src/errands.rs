//! Layer 3: shared work, done once for all who ask at the same time.
//!
//! Knows names and tasks. It must not know what the work is. A task runs detached and within a time of its own, so that
//! a caller who leaves harms nobody; all who asked meanwhile get its outcome. The work stores its result before it
//! leaves the map, so whoever comes later finds it stored and does not begin again.

use std::collections::HashMap;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;

use crate::error::Error;
use crate::metrics::Metrics;

/// Longest time of one errand, whoever waits for it: a request's own longest time.
const ERRAND_TIMEOUT: Duration = Duration::from_secs(30);
/// Errands under way at once; callers who come and go leave errands behind, so their own number does not bound it.
const MAX_ERRANDS: usize = 16_384;
/// Advice to those who are turned away: about the time of a few reads of an origin.
const RETRY_AFTER: Duration = Duration::from_millis(100);

type Outcome<V> = Result<V, Error>;
type UnderWay<K, V> = HashMap<K, watch::Receiver<Option<Outcome<V>>>>;

/// The errands under way, by name.
#[derive(Debug)]
pub(crate) struct Errands<K, V> {
    under_way: Arc<Mutex<UnderWay<K, V>>>,
    metrics: Arc<Metrics>,
}

/// An entry in the map, which ends with its task.
struct Entry<K: Hash + Eq, V> {
    under_way: Arc<Mutex<UnderWay<K, V>>>,
    name: K,
}

impl<K: Hash + Eq, V> Drop for Entry<K, V> {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.name);
    }
}

impl<K, V> Errands<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { under_way: Arc::default(), metrics }
    }

    /// The outcome of the errand of this name, which begins now unless it is under way.
    pub(crate) async fn run<F>(&self, name: K, work: impl FnOnce() -> F) -> Outcome<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let mut outcome = self.begin(name, work)?;
        // A task that panics has an outcome; only a runtime that shuts down drops one without.
        let arrived = outcome.wait_for(Option::is_some).await.map_err(|_| Error::Draining)?;
        arrived.clone().unwrap_or(Err(Error::Draining))
    }

    /// Begins the errand of this name unless it is under way, and does not wait for it.
    pub(crate) fn begin<F>(
        &self,
        name: K,
        work: impl FnOnce() -> F,
    ) -> Result<watch::Receiver<Option<Outcome<V>>>, Error>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let mut under_way = lock(&self.under_way);
        if let Some(outcome) = under_way.get(&name) {
            return Ok(outcome.clone());
        }
        if under_way.len() >= MAX_ERRANDS {
            return Err(Error::Overloaded { what: "too many files are being opened", retry_after: RETRY_AFTER });
        }
        let (tell, outcome) = watch::channel(None);
        under_way.insert(name.clone(), outcome.clone());
        drop(under_way);
        let entry = Entry { under_way: Arc::clone(&self.under_way), name };
        let metrics = Arc::clone(&self.metrics);
        let work = tokio::time::timeout(ERRAND_TIMEOUT, AssertUnwindSafe(work()).catch_unwind());
        tokio::spawn(async move {
            let subject = "shared work".to_owned();
            let outcome = match work.await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => {
                    metrics.panics_total.up();
                    Err(Error::Bug { subject, what: "shared work panicked" })
                }
                Err(_) => Err(Error::Deadline { subject, timeout: ERRAND_TIMEOUT }),
            };
            drop(entry);
            // Everybody who waited may have left.
            let _ = tell.send(Some(outcome));
        });
        Ok(outcome)
    }
}

fn lock<K, V>(under_way: &Mutex<UnderWay<K, V>>) -> MutexGuard<'_, UnderWay<K, V>> {
    // Nothing that may panic runs while the map is half changed.
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn many_ask_once_and_one_who_leaves_harms_nobody() {
        let errands = Arc::new(Errands::<u32, u32>::new(Arc::default()));
        let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
        let ask = || {
            let (errands, runs, gate) = (Arc::clone(&errands), Arc::clone(&runs), Arc::clone(&gate));
            tokio::spawn(async move {
                let work = || async move {
                    runs.fetch_add(1, Ordering::Relaxed);
                    gate.notified().await;
                    Ok(7)
                };
                errands.run(1, work).await
            })
        };
        let first = ask();
        tokio::task::yield_now().await;
        let others: Vec<_> = (0..100).map(|_| ask()).collect();
        tokio::task::yield_now().await;
        first.abort();
        tokio::task::yield_now().await;
        gate.notify_one();
        for other in others {
            assert_eq!(other.await.unwrap().unwrap(), 7);
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert!(lock(&errands.under_way).is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_to_all_who_wait_and_the_next_try_begins_anew() {
        let metrics = Arc::new(Metrics::default());
        let errands = Errands::<u32, u32>::new(Arc::clone(&metrics));
        let failed = errands.run(1, || async { panic!("planted") }).await.unwrap_err();
        assert!(matches!(failed, Error::Bug { .. }));
        assert_eq!(metrics.panics_total.get(), 1);
        assert_eq!(errands.run(1, || async { Ok(2) }).await.unwrap(), 2);
    }
}
