//! Layer 3: a lookup in one version of one file.
//!
//! Knows the order of the ways to a key's rows: hot ones, derived objects, a search. It must not know where else the
//! lookup looks, nor what becomes of an error.

use std::sync::Arc;

use alcedo_lookup::answer::{Body, FileAnswer, Form};
use alcedo_lookup::key::Key;
use alcedo_lookup::machine::drive;
use alcedo_lookup::search::Search;
use tokio::time::Instant;

use super::by_objects::Way;
use super::{Lookups, Suspect};
use crate::cost::{Cost, Origin, Stage};
use crate::error::Error;
use crate::merge::join;
use crate::prepared::FileTarget;
use crate::reader::Reader;

impl Lookups {
    /// Asks one version of one file: what is hot is taken as it is, the rest is one search. Where data pages may take
    /// the place of rows, few hot ones are not worth to be kept apart.
    pub(super) async fn search(
        &self,
        target: &Arc<FileTarget>,
        keys: &[Key],
        cost: &Arc<Cost>,
        sent_pages_bytes: u64,
    ) -> Result<FileAnswer, Error> {
        let hot: Vec<_> = keys.iter().map(|key| self.hot.get(target, key)).collect();
        let few = if sent_pages_bytes > 0 { keys.len() / 2 } else { 0 };
        let hits = Some(hot.iter().flatten().count()).filter(|hits| *hits > few).unwrap_or(0);
        self.count_hot(hits, keys.len());
        if hits == 0 {
            let answer = self.search_cold(target, keys, cost, sent_pages_bytes).await?;
            self.hot.fill(target, keys, &answer);
            return Ok(answer);
        }
        let cold: Vec<u32> = (0..).zip(&hot).filter(|(_, hot)| hot.is_none()).map(|(key, _)| key).collect();
        let found = if cold.is_empty() {
            None
        } else {
            let keys: Vec<Key> = cold.iter().map(|key| keys[*key as usize].clone()).collect();
            let answer = self.search_cold(target, &keys, cost, 0).await?;
            self.hot.fill(target, &keys, &answer);
            Some((answer, cold))
        };
        let bug = |_| Error::Bug { subject: target.place.url.to_string(), what: "a hot row is damaged" };
        join(target.prepared.schema(), &hot, found).map_err(bug)
    }

    async fn search_cold(
        &self,
        target: &Arc<FileTarget>,
        keys: &[Key],
        cost: &Arc<Cost>,
        sent_pages_bytes: u64,
    ) -> Result<FileAnswer, Error> {
        let (place, version) = (&target.place, &target.version);
        let _suspect = Suspect { indexes: &self.indexes, version };
        let (began, gets) = (Instant::now(), cost.origin_gets());
        let prepared = Arc::clone(&target.prepared);
        let search = match self.by_objects(target, keys).await {
            Way::Answered(answer) => {
                cost.came_from(Origin::PageStore);
                return Ok(answer);
            }
            Way::Rows(rows) => Search::at_rows(prepared, keys, rows),
            Way::Search => Search::of(prepared, keys),
        };
        let search = search.map_err(|error| Error::file(&place.url, error))?.or_pages(sent_pages_bytes);
        let reader = Reader::of_version(&self.store, place, version.clone(), cost);
        let reader = reader.learning(self.indexes.learnings(), target.prepared.index());
        let answer = drive(search, &reader).await.map_err(|error| error.about(&place.url));
        let mut answer = answer.inspect_err(|error| self.metrics.count_panic(error))?;
        // What the origin was asked for is saved by the page store, whatever else is built.
        if cost.origin_gets() == gets {
            let took = began.elapsed();
            self.heat.note(target, keys.len(), took);
            self.metrics.searched_keys.add(keys.len() as u64);
            self.metrics.searched_us.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
        if cost.is_traced() {
            if target.prepared.form() == Form::CompactRows && matches!(answer.body, Body::Pages(_)) {
                answer.notes.push("data pages in place of rows: this worker is short of CPU".to_owned());
            }
            let (name, file, ended) = ("search", Some(Arc::clone(&place.url)), Instant::now());
            cost.add(Stage { name, file, began, ended, bytes: 0, origin_gets: 0, origin_bytes: 0 });
        }
        Ok(answer)
    }

    fn count_hot(&self, hot: usize, all: usize) {
        self.metrics.hot_rows_hits.add(hot as u64);
        self.metrics.hot_rows_misses.add((all - hot) as u64);
    }
}
