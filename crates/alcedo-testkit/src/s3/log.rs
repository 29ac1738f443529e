//! What was asked of the server: exact counters and a bounded list of requests.
//!
//! It knows requests only once their answer is made (or they are left hanging). A request is counted before its first
//! byte leaves, so that a client which holds an answer always finds it counted. Arrivals and answers are numbered in
//! one row, so that a reader sees which request waited for which without a clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most requests that [`S3Server::requests`](super::S3Server::requests) remembers; older ones are dropped, not the
/// counts.
const KEPT_REQUESTS: usize = 65_536;

/// Most different keys that are counted one by one; a larger lake is a benchmark, which looks at the totals.
const COUNTED_KEYS: usize = 65_536;

/// What a request does, whatever its dialect calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Content of an object, or a range of it.
    Get,
    /// Metadata of an object.
    Head,
    /// One page of a listing.
    List,
    /// A new object.
    Put,
    /// An object's removal.
    Delete,
    /// Everything about buckets, and everything that is refused before its meaning is known.
    Other,
}

/// One answered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// What it asked for.
    pub operation: Operation,
    /// Bucket or container.
    pub bucket: String,
    /// The key; of a listing, its prefix.
    pub key: String,
    /// The `Range` (or `x-ms-range`) header as it was sent.
    pub range: Option<String>,
    /// The `If-Match` header as it was sent.
    pub if_match: Option<String>,
    /// The answer's status; none when the headers were stalled.
    pub status: Option<u16>,
    /// Bytes of object content that the answer set out to send.
    pub bytes: u64,
    /// The number of its arrival among all arrivals and answers.
    pub began: u64,
    /// The number of its answer's first byte; none while the answer is held back.
    pub answered: Option<u64>,
}

/// Dependent trips: the longest row of requests each of which arrived after the one before it was answered. Requests of
/// one round count as one trip only if the store holds answers back for longer than the round takes to be sent.
#[must_use]
pub fn trips(requests: &[RequestRecord]) -> usize {
    let mut in_order: Vec<&RequestRecord> = requests.iter().collect();
    in_order.sort_by_key(|request| request.began);
    let mut depths: Vec<(u64, usize)> = Vec::with_capacity(in_order.len());
    for request in in_order {
        let before = depths.iter().filter(|(answered, _)| *answered < request.began).map(|(_, depth)| *depth);
        let depth = 1 + before.max().unwrap_or(0);
        depths.push((request.answered.unwrap_or(u64::MAX), depth));
    }
    depths.into_iter().map(|(_, depth)| depth).max().unwrap_or(0)
}

/// Requests of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCounters {
    /// GET requests.
    pub get: u64,
    /// HEAD requests.
    pub head: u64,
    /// Bytes of content that the GETs' answers set out to send.
    pub bytes_sent: u64,
}

/// Requests since the start or the last reset, refused and failed ones too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// GET requests of objects.
    pub get: u64,
    /// HEAD requests of objects.
    pub head: u64,
    /// Pages of listings.
    pub list: u64,
    /// PUT requests of objects.
    pub put: u64,
    /// DELETE requests of objects.
    pub delete: u64,
    /// All others.
    pub other: u64,
    /// Bytes of object content that answers set out to send: what a fault adds counts, what it drops does not, and
    /// bodies of errors and listings do not.
    pub bytes_sent: u64,
    /// By `bucket/key`, for at most 65,536 keys.
    pub by_key: BTreeMap<String, KeyCounters>,
}

#[derive(Debug, Default)]
struct Inner {
    counters: Counters,
    requests: VecDeque<RequestRecord>,
    /// The last number given to an arrival or an answer.
    clock: u64,
}

/// The log of one server.
#[derive(Debug, Default)]
pub(super) struct Log {
    inner: Mutex<Inner>,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request arrived; its number.
    pub(super) fn arrival(&self) -> u64 {
        self.lock().tick()
    }

    pub(super) fn record(&self, record: RequestRecord) {
        let mut inner = self.lock();
        inner.counters.add(&record);
        if inner.requests.len() == KEPT_REQUESTS {
            inner.requests.pop_front();
        }
        inner.requests.push_back(record);
    }

    /// The answer to the request of this number leaves now.
    pub(super) fn answers(&self, began: u64) {
        let mut inner = self.lock();
        let now = inner.tick();
        if let Some(record) = inner.requests.iter_mut().rev().find(|record| record.began == began) {
            record.answered = Some(now);
        }
    }

    pub(super) fn counters(&self) -> Counters {
        self.lock().counters.clone()
    }

    pub(super) fn requests(&self) -> Vec<RequestRecord> {
        self.lock().requests.iter().cloned().collect()
    }

    pub(super) fn reset(&self) {
        let mut inner = self.lock();
        // Numbers go on, so that what is still under way is not taken for something later.
        *inner = Inner { clock: inner.clock, ..Inner::default() };
    }
}

impl Inner {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

impl Counters {
    fn add(&mut self, record: &RequestRecord) {
        let total = match record.operation {
            Operation::Get => &mut self.get,
            Operation::Head => &mut self.head,
            Operation::List => &mut self.list,
            Operation::Put => &mut self.put,
            Operation::Delete => &mut self.delete,
            Operation::Other => &mut self.other,
        };
        *total += 1;
        self.bytes_sent += record.bytes;
        if !matches!(record.operation, Operation::Get | Operation::Head) {
            return;
        }
        let name = format!("{}/{}", record.bucket, record.key);
        if self.by_key.len() >= COUNTED_KEYS && !self.by_key.contains_key(&name) {
            return;
        }
        let key = self.by_key.entry(name).or_default();
        match record.operation {
            Operation::Head => key.head += 1,
            _ => key.get += 1,
        }
        key.bytes_sent += record.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(began: u64, answered: Option<u64>) -> RequestRecord {
        let (bucket, key) = (String::new(), String::new());
        let (range, if_match, status) = (None, None, None);
        RequestRecord { operation: Operation::Get, bucket, key, range, if_match, status, bytes: 0, began, answered }
    }

    #[test]
    fn trips_are_the_longest_row_of_requests_that_waited_for_each_other() {
        assert_eq!(trips(&[]), 0);
        let together = [request(1, Some(4)), request(2, Some(6)), request(3, Some(5))];
        assert_eq!(trips(&together), 1);
        let then = [request(7, Some(9)), request(8, None)];
        assert_eq!(trips(&[&together[..], &then].concat()), 2);
        // One that arrived before any answer waited for nobody, whoever else did.
        let apart = [request(1, Some(3)), request(2, Some(8)), request(4, Some(5)), request(6, Some(7))];
        assert_eq!(trips(&apart), 3);
        assert_eq!(trips(&[request(1, None), request(2, None)]), 1);
    }
}
