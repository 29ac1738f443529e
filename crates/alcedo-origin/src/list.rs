//! Listing files under a prefix. Knows pages, order and bounds of listings; must not know which files anybody wants.

use crate::error::{Error, Failure};
use crate::mount::{Counts, Mount, Scheme};
use crate::place::{is_nameable, join};
use crate::version::FileStat;
use futures::StreamExt;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta, ObjectStore};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

/// Keys asked for per request. S3 gives no more than this.
const PAGE_KEYS: usize = 1000;

/// What lies under a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Files and, in a listing that does not descend, prefixes; by name.
    pub entries: Vec<Listed>,
    /// Whether there is more than the limit allowed.
    pub truncated: bool,
    /// Objects that were left out because no path can name them (see [`crate::Mounts::resolve`]).
    pub skipped: usize,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Listed {
    /// A file, as the listing describes it.
    File(FileStat),
    /// Canonical URL of a prefix (a directory) that has files below it, without a slash at the end.
    Prefix(Arc<str>),
}

impl Listed {
    /// The canonical URL of the file or prefix.
    pub fn url(&self) -> &Arc<str> {
        match self {
            Self::File(stat) => &stat.url,
            Self::Prefix(url) => url,
        }
    }
}

/// What a listing has gathered, by key. A prefix's key ends with a slash here, so that the order is that of the
/// objects.
#[derive(Default)]
struct Gathered {
    entries: BTreeMap<String, Option<ObjectMeta>>,
    skipped: usize,
}

impl Gathered {
    fn take(&mut self, found: ListResult, listed: &Path) {
        for meta in found.objects {
            self.take_file(meta, listed);
        }
        for prefix in found.common_prefixes {
            match is_nameable(&prefix) {
                true => drop(self.entries.insert(format!("{prefix}/"), None)),
                false => self.skipped += 1,
            }
        }
    }

    fn take_file(&mut self, meta: ObjectMeta, listed: &Path) {
        // A placeholder is an empty object that stands for its directory: its name is the prefix plus a slash, which
        // the library strips.
        if meta.size == 0 && meta.location == *listed {
            return;
        }
        match is_nameable(&meta.location) {
            true => drop(self.entries.insert(meta.location.to_string(), Some(meta))),
            false => self.skipped += 1,
        }
    }

    /// Drops the placeholders of directories that a listing with `recursive` meets further down: empty objects with
    /// other objects, or a prefix, under their name.
    fn without_placeholders(mut self) -> Self {
        let stands_for_directory = |key: &String, entries: &BTreeMap<String, Option<ObjectMeta>>| {
            let below = format!("{key}/");
            entries.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below))
        };
        let empty: Vec<String> = self
            .entries
            .iter()
            .filter(|(_, meta)| meta.as_ref().is_some_and(|meta| meta.size == 0))
            .map(|(key, _)| key.clone())
            .collect();
        for key in empty {
            if stands_for_directory(&key, &self.entries) {
                self.entries.remove(&key);
            }
        }
        self
    }
}

/// What is listed, and until when.
struct Query<'q> {
    url: &'q Arc<str>,
    location: &'q Path,
    recursive: bool,
    limit: usize,
    deadline: Instant,
}

impl Mount {
    /// Lists at most `limit` entries under a prefix (of this mount; the root path lists the whole mount), and never
    /// more than the mount's `limits.listed_entries`. With `recursive` all files below; without it files and prefixes
    /// directly below. Empty objects that stand for directories are left out. A prefix with nothing below it gives an
    /// empty listing, except that a `file://` directory which does not exist is `NotFound`.
    ///
    /// # Errors
    /// See [`Error`]; among them `Denied`, `Unavailable`, `Deadline`.
    pub async fn list(
        &self,
        prefix: &Path,
        recursive: bool,
        limit: usize,
        deadline: Instant,
    ) -> Result<Listing, Error> {
        let limit = limit.min(self.limits.listed_entries);
        let (url, location) = (&self.url_of(prefix), &join(&self.prefix, prefix));
        let query = Query { url, location, recursive, limit, deadline };
        let mut gathered = Gathered::default();
        let mut is_more = false;
        match &self.pages {
            Some(pages) => {
                let mut token = None;
                loop {
                    let page = self.page(pages.as_ref(), &query, token).await?;
                    gathered.take(page.result, location);
                    token = page.page_token;
                    is_more = token.is_some() && gathered.entries.len() > limit;
                    if token.is_none() || is_more {
                        break;
                    }
                }
            }
            None => gathered = self.plain(&query).await?,
        }
        let gathered = gathered.without_placeholders();
        let truncated = is_more || gathered.entries.len() > limit;
        let entries = gathered.entries.into_iter().take(limit);
        let entries = entries.map(|(key, meta)| self.listed(&key, meta)).collect();
        Ok(Listing { entries, truncated, skipped: gathered.skipped })
    }

    /// One page of a listing.
    async fn page(
        &self,
        pages: &dyn PaginatedListStore,
        query: &Query<'_>,
        token: Option<String>,
    ) -> Result<PaginatedListResult, Error> {
        let prefix = (!query.location.is_root()).then(|| format!("{}/", query.location));
        let (prefix, token) = (&prefix, &token);
        self.attempts(query.url, 0, query.deadline, |_| async move {
            Counts::add(&self.counts.lists, 1);
            let options = PaginatedListOptions {
                delimiter: (!query.recursive).then_some("/".into()),
                max_keys: Some(query.limit.saturating_add(1).min(PAGE_KEYS)),
                page_token: token.clone(),
                ..PaginatedListOptions::default()
            };
            let page = self.patiently(pages.list_paginated(prefix.as_deref(), options)).await?;
            page.map_err(|e| Failure::sort(self.name(), query.url, &e))
        })
        .await
    }

    /// The listing of a store that has no pages.
    async fn plain(&self, query: &Query<'_>) -> Result<Gathered, Error> {
        let prefix = (!query.location.is_root()).then_some(query.location);
        self.attempts(query.url, 0, query.deadline, |_| async move {
            Counts::add(&self.counts.lists, 1);
            let sorted = |e| Failure::sort(self.name(), query.url, &e);
            let mut gathered = Gathered::default();
            if !query.recursive {
                let found = self.patiently(self.store.list_with_delimiter(prefix)).await?.map_err(sorted)?;
                gathered.take(found, query.location);
                return Ok(gathered);
            }
            let mut stream = self.store.list(prefix);
            // One more than allowed shows that there is more.
            while gathered.entries.len() <= query.limit {
                match self.patiently(stream.next()).await? {
                    Some(meta) => gathered.take_file(meta.map_err(sorted)?, query.location),
                    None => break,
                }
            }
            Ok(gathered)
        })
        .await
    }

    /// An entry under its canonical URL. `key` is a key of the store, with a slash at the end of a prefix.
    fn listed(&self, key: &str, meta: Option<ObjectMeta>) -> Listed {
        let key = key.trim_end_matches('/');
        let relative = key.strip_prefix(self.prefix.as_ref()).unwrap_or(key).trim_start_matches('/');
        let url: Arc<str> = format!("{}/{relative}", self.url()).into();
        let Some(mut meta) = meta else { return Listed::Prefix(url) };
        // Azure's listings leave out the quotes that its answers have and If-Match needs: one content, one name.
        let has_bare_etag = self.scheme() == Scheme::Azure;
        if let Some(etag) = meta.e_tag.as_mut().filter(|etag| has_bare_etag && !etag.ends_with('"')) {
            *etag = format!("\"{etag}\"");
        }
        Listed::File(FileStat::of(url, &meta))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::fake::{Does, Fake};
    use crate::limits::OriginLimits;
    use crate::mount::Freshness;
    use object_store::{ObjectStoreExt, PutPayload};
    use std::time::Duration;

    /// A mount `s3://b/p` over these keys, each file holding its own name; keys that end with a slash are placeholders.
    async fn mount(keys: &[&str], script: &[Does], with_pages: bool) -> Mount {
        let fake = Arc::new(Fake::with("outside", b"x", script).await);
        for key in keys {
            let body = if key.ends_with('/') { Vec::new() } else { key.as_bytes().to_vec() };
            fake.files.put(&Path::parse(key).unwrap(), PutPayload::from(body)).await.unwrap();
        }
        let store = Arc::clone(&fake) as Arc<dyn ObjectStore>;
        let limits = OriginLimits::default();
        let mut mount = Mount::with_store("m", "s3://b/p", store, Freshness::default(), limits).unwrap();
        mount.pages = with_pages.then_some(fake as Arc<dyn PaginatedListStore>);
        mount
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn names(listing: &Listing) -> Vec<String> {
        let name = |entry: &Listed| match entry {
            Listed::File(stat) => stat.url.to_string(),
            Listed::Prefix(url) => format!("{url}/"),
        };
        listing.entries.iter().map(name).collect()
    }

    #[tokio::test]
    async fn entries_come_by_name_under_their_canonical_urls() {
        for with_pages in [false, true] {
            let mount = mount(&["p/b", "p/a/2", "p/a/1", "p/a.x", "p/", "p/a/"], &[], with_pages).await;
            let flat = mount.list(&Path::ROOT, false, 10, soon()).await.unwrap();
            assert_eq!(names(&flat), ["s3://b/p/a.x", "s3://b/p/a/", "s3://b/p/b"]);
            let deep = mount.list(&Path::ROOT, true, 10, soon()).await.unwrap();
            assert_eq!(names(&deep), ["s3://b/p/a.x", "s3://b/p/a/1", "s3://b/p/a/2", "s3://b/p/b"]);
            let below = mount.list(&Path::from("a"), false, 10, soon()).await.unwrap();
            assert_eq!(names(&below), ["s3://b/p/a/1", "s3://b/p/a/2"]);
            assert!(!deep.truncated && deep.skipped == 0);
            assert_eq!(mount.counts().lists, 3);
            let Listed::File(stat) = &below.entries[0] else { panic!("a file") };
            assert_eq!(stat, &mount.stat(&Path::from("a/1"), soon()).await.unwrap());
            let none = mount.list(&Path::from("none"), true, 10, soon()).await.unwrap();
            assert_eq!(none, Listing::default());
        }
    }

    #[tokio::test]
    async fn an_empty_directory_does_not_list_itself() {
        for with_pages in [false, true] {
            let mount = mount(&["p/empty/"], &[], with_pages).await;
            for recursive in [false, true] {
                let listing = mount.list(&Path::from("empty"), recursive, 10, soon()).await.unwrap();
                assert_eq!(listing, Listing::default());
            }
        }
    }

    #[tokio::test]
    async fn a_listing_is_bounded_and_says_so() {
        let keys: Vec<String> = (0..2500).map(|n| format!("p/{n:05}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        for with_pages in [false, true] {
            let mount = mount(&keys, &[], with_pages).await;
            for limit in [0, 1, 999, 1000, 1001, 2499] {
                let listing = mount.list(&Path::ROOT, true, limit, soon()).await.unwrap();
                assert_eq!((listing.entries.len(), listing.truncated), (limit, true));
            }
            for limit in [2500, 2501, usize::MAX] {
                let listing = mount.list(&Path::ROOT, true, limit, soon()).await.unwrap();
                assert_eq!((listing.entries.len(), listing.truncated), (2500, false));
            }
        }
        // Three pages for all of them, one for a few.
        let mount = mount(&keys, &[], true).await;
        mount.list(&Path::ROOT, true, 5000, soon()).await.unwrap();
        assert_eq!(mount.counts().lists, 3);
        mount.list(&Path::ROOT, true, 5, soon()).await.unwrap();
        assert_eq!(mount.counts().lists, 4);
    }

    #[tokio::test]
    async fn a_page_that_fails_is_asked_for_again_by_itself() {
        let keys: Vec<String> = (0..1500).map(|n| format!("p/{n:05}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mount = mount(&keys, &[Does::Answer, Does::Status(503)], true).await;
        assert_eq!(mount.list(&Path::ROOT, true, 5000, soon()).await.unwrap().entries.len(), 1500);
        let counts = mount.counts();
        assert_eq!((counts.lists, counts.retries, counts.errors), (3, 1, 1));
    }

    #[tokio::test]
    async fn names_that_no_path_can_spell_are_counted_not_shown() {
        let mount = mount(&["p/ok", "p/%2e%2e", "p/a?b"], &[], false).await;
        let listing = mount.list(&Path::ROOT, true, 10, soon()).await.unwrap();
        assert_eq!((names(&listing), listing.skipped), (vec!["s3://b/p/ok".to_owned()], 2));
    }
}
