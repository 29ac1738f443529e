//! Questions: all of a lookup but its keys, made once and asked again and again.
//!
//! Knows what makes two questions the same, and which of them have a handle by which workers may be asked. It must not
//! know workers or streams: each stream defines a handle before it first uses it, and anew where it has come to stand
//! for another question.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use alcedo_cluster::file_hash;
use alcedo_proto::v1 as pb;
use prost::Message as _;

use crate::local::LocalLookup;
use crate::request::MAX_REQUEST_BYTES;
use crate::routing::Route;

/// Handles of one client, and so of one stream: as many as a server keeps (`proto/alcedo/v1/lookup.proto`, `Prepare`).
const MAX_HANDLES: usize = 1_024;

/// All of a lookup but its keys, its time and what it tells of its making.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Spec {
    pub(crate) path: String,
    pub(crate) key_column: String,
    pub(crate) columns: Vec<String>,
    /// An `AnswerForm`.
    pub(crate) form: i32,
    pub(crate) row_limit: u32,
    /// Data pages may come in place of compact rows.
    pub(crate) accept_pages: bool,
}

/// A [`Spec`] with what is learned of it once.
#[derive(Debug)]
pub(crate) struct Question {
    spec: Spec,
    hash: u64,
    /// Tells it from all other questions of this process; never 0.
    serial: u64,
    /// Its handle; 0 while it has none.
    handle: AtomicU32,
    /// Asked since the hand came by.
    is_used: AtomicBool,
    /// Bytes that a message has left for keys.
    room: usize,
    /// Who is to be asked, as of one view of the cluster.
    route: Mutex<Option<Route>>,
    /// The question as the worker in this process keeps it.
    local: Kept,
}

/// A question that a worker in this process keeps ready.
#[derive(Default)]
struct Kept(OnceLock<LocalLookup>);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.get().is_some() { "kept" } else { "not kept" })
    }
}

impl Spec {
    fn hash(&self) -> u64 {
        let start = u64::from(self.row_limit) << 8 ^ u64::from(self.form.unsigned_abs()) << 1;
        let start = start ^ u64::from(self.accept_pages);
        let texts = [&self.path, &self.key_column].into_iter().chain(&self.columns);
        texts.fold(start, |hash, text| mixed(hash ^ file_hash(text)))
    }
}

/// Spreads what differs over all bits.
fn mixed(value: u64) -> u64 {
    let product = u128::from(value) * 0x9e37_79b9_7f4a_7c15;
    product as u64 ^ (product >> 64) as u64
}

impl Question {
    pub(crate) fn new(spec: Spec) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let serial = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let mut question = Self {
            hash: spec.hash(),
            spec,
            serial,
            handle: AtomicU32::new(0),
            is_used: AtomicBool::new(false),
            room: 0,
            route: Mutex::default(),
            local: Kept::default(),
        };
        let base = pb::LookupRequest { timeout_us: u64::MAX, trace: true, ..question.request(Vec::new()) };
        question.room = MAX_REQUEST_BYTES.saturating_sub(base.encoded_len());
        question
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(crate) fn path(&self) -> &str {
        &self.spec.path
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Bytes that a message has left for keys.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Whether its answers are compact rows: those of several lookups can be told apart by their lengths alone.
    pub(crate) fn is_compact(&self) -> bool {
        self.spec.form == pb::AnswerForm::CompactRows as i32
    }

    /// The message that asks it with these keys.
    pub(crate) fn request(&self, keys: Vec<pb::Key>) -> pb::LookupRequest {
        let Spec { path, key_column, columns, form, row_limit, accept_pages } = self.spec.clone();
        let request = pb::LookupRequest { path, key_column, keys, columns, form, row_limit, ..Default::default() };
        pb::LookupRequest { accept_parts: true, accept_pages, ..request }
    }

    /// The question as the worker in this process keeps it, prepared when it is first asked.
    pub(crate) fn local(&self, prepare: impl FnOnce() -> LocalLookup) -> &LocalLookup {
        self.local.0.get_or_init(prepare)
    }

    /// Who is to be asked, if that is known as of this generation of the view.
    pub(crate) fn route(&self, generation: u64) -> Option<Route> {
        let route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        route.as_ref().filter(|route| route.generation == generation).cloned()
    }

    pub(crate) fn set_route(&self, route: Route) {
        *self.route.lock().unwrap_or_else(PoisonError::into_inner) = Some(route);
    }
}

/// The questions of one client that have a handle, the lately asked ones.
#[derive(Debug, Default)]
pub(crate) struct Questions(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// By handle, less one.
    seated: Vec<Arc<Question>>,
    by_hash: HashMap<u64, usize, BuildHasherDefault<Spread>>,
    /// Where the search for one that was not asked lately goes on.
    hand: usize,
}

impl Questions {
    /// The question, and whether it was asked before.
    pub(crate) fn find(&self, spec: Spec) -> (Arc<Question>, bool) {
        let hash = spec.hash();
        {
            let table = self.table();
            let found = table.by_hash.get(&hash).and_then(|seat| table.seated.get(*seat));
            if let Some(question) = found.filter(|question| question.spec == spec) {
                question.is_used.store(true, Ordering::Relaxed);
                return (Arc::clone(question), true);
            }
        }
        let question = Arc::new(Question::new(spec));
        self.table().seat(&question);
        (question, false)
    }

    /// The question's handle, a new one if it has lost its own.
    pub(crate) fn handle(&self, question: &Arc<Question>) -> u32 {
        if !question.is_used.load(Ordering::Relaxed) {
            question.is_used.store(true, Ordering::Relaxed);
        }
        match question.handle.load(Ordering::Acquire) {
            0 => self.table().seat(question),
            handle => handle,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Gives a question a handle; the first question at the hand that was not asked since the hand came by loses its
    /// own.
    fn seat(&mut self, question: &Arc<Question>) -> u32 {
        let handle = question.handle.load(Ordering::Acquire);
        if handle != 0 {
            return handle;
        }
        let seat = if self.seated.len() < MAX_HANDLES {
            self.seated.push(Arc::clone(question));
            self.seated.len() - 1
        } else {
            let seat = self.unused();
            if let Some(there) = self.seated.get_mut(seat) {
                there.handle.store(0, Ordering::Release);
                if self.by_hash.get(&there.hash) == Some(&seat) {
                    self.by_hash.remove(&there.hash);
                }
                *there = Arc::clone(question);
            }
            seat
        };
        // Of two with one hash the later one is found; the other is asked in full.
        self.by_hash.insert(question.hash, seat);
        let handle = seat as u32 + 1;
        question.handle.store(handle, Ordering::Release);
        handle
    }

    fn unused(&mut self) -> usize {
        // The second time around nobody is marked but those who were asked meanwhile.
        for _ in 0..2 * MAX_HANDLES {
            let seat = self.hand;
            self.hand = (self.hand + 1) % MAX_HANDLES;
            if !self.seated.get(seat).is_some_and(|there| there.is_used.swap(false, Ordering::Relaxed)) {
                return seat;
            }
        }
        self.hand
    }
}

/// Spreads numbers that are hashes, or count up: the usual hash is made against keys of strangers.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mixed(self.0 ^ value);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spec(path: impl Into<String>) -> Spec {
        Spec { path: path.into(), columns: vec!["a".to_owned()], ..Spec::default() }
    }

    #[test]
    fn the_same_question_is_found_again_and_another_is_not() {
        let questions = Questions::default();
        let (first, known) = questions.find(spec("lake/a"));
        assert!(!known);
        let (again, known) = questions.find(spec("lake/a"));
        assert!(known && Arc::ptr_eq(&first, &again));
        for other in [
            spec("lake/b"),
            Spec { key_column: "a".to_owned(), ..spec("lake/a") },
            Spec { columns: vec!["b".to_owned()], ..spec("lake/a") },
            Spec { columns: vec![], ..spec("lake/a") },
            Spec { form: 3, ..spec("lake/a") },
            Spec { row_limit: 1, ..spec("lake/a") },
            Spec { accept_pages: true, ..spec("lake/a") },
        ] {
            assert!(!questions.find(other.clone()).1, "{other:?}");
        }
        assert_eq!((questions.handle(&first), questions.handle(&again)), (1, 1));
    }

    #[test]
    fn who_is_asked_keeps_the_handle_and_who_is_not_loses_it() {
        let questions = Questions::default();
        let (hot, _) = questions.find(spec("hot"));
        let (cold, _) = questions.find(spec("cold"));
        for number in 0..5 * MAX_HANDLES {
            questions.find(spec(format!("once/{number}")));
            questions.handle(&hot);
        }
        assert_eq!(hot.handle.load(Ordering::Relaxed), 1);
        assert_eq!(cold.handle.load(Ordering::Relaxed), 0);
        assert!((1..=MAX_HANDLES as u32).contains(&questions.handle(&cold)));
        let table = questions.table();
        assert_eq!((table.seated.len(), table.by_hash.len()), (MAX_HANDLES, MAX_HANDLES));
        for (seat, question) in table.seated.iter().enumerate() {
            assert_eq!(question.handle.load(Ordering::Relaxed), seat as u32 + 1);
        }
    }

    #[test]
    fn two_questions_of_one_hash_do_not_answer_for_each_other() {
        let questions = Questions::default();
        let (one, _) = questions.find(spec("lake/a"));
        let mut other = Question::new(spec("lake/b"));
        other.hash = one.hash;
        let other = Arc::new(other);
        assert_ne!(questions.handle(&other), questions.handle(&one));
        let (found, known) = questions.find(spec("lake/a"));
        assert!(!known && found.spec == spec("lake/a"));
    }
}
