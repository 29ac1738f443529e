//! Lookups on many paths at once.
//!
//! Knows how to spread them over the workers. It must not know what a lookup asks or how it is sent: each is a lookup
//! of its own, with its own deadline and its own end.

use std::collections::HashMap;
use std::future::IntoFuture as _;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream;

use crate::answer::Answer;
use crate::client::Client;
use crate::error::Error;
use crate::lookup::Lookup;

/// Lookups of one call that are under way to one worker at once: beyond that a stream gains nothing, and another
/// caller's lookups would wait behind these.
const PER_WORKER_AT_ONCE: usize = 64;

impl Client {
    /// Sends lookups on any number of paths, grouped by the worker that owns each path and at once to all of them. Each
    /// result stands where its lookup stood. A lookup of many keys on one path is one [`Lookup`], not many of these.
    ///
    /// A slow or lost worker holds up the lookups in its own group only.
    pub async fn lookup_many(&self, lookups: impl IntoIterator<Item = Lookup>) -> Vec<Result<Answer, Error>> {
        let lookups: Vec<Lookup> = lookups.into_iter().collect();
        // Without a view every lookup tells by itself what is wrong, or is answered by the origin.
        let view = match self.start(self.deadline) {
            Ok(deadline) => self.routing.view(deadline).await.ok(),
            Err(_) => None,
        };
        let mut groups: HashMap<Option<Arc<str>>, Vec<(usize, Lookup)>> = HashMap::new();
        for (place, lookup) in lookups.into_iter().enumerate() {
            let owner = view.as_ref().and_then(|view| view.owner(lookup.path()));
            groups.entry(owner).or_default().push((place, lookup));
        }
        let group = |group: Vec<(usize, Lookup)>| {
            let sent = group.into_iter().map(|(place, lookup)| {
                let answer = lookup.into_future();
                async move { (place, answer.await) }
            });
            stream::iter(sent).buffer_unordered(PER_WORKER_AT_ONCE)
        };
        let mut answers: Vec<_> = stream::select_all(groups.into_values().map(group)).collect().await;
        answers.sort_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}
