//! What goes wrong, where, and how often.
//!
//! It knows operations, names and counts. It must not know how a dialect shows a fault: `server` and `content` carry it
//! out. Rules are matched in the order in which they were added. Those that only delay or replace an object all apply;
//! of the others the first that matches does, and only a rule that applies uses up one of its times.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::log::Operation;

/// How a body's end is told to the client when its length is not the promised one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length` says what is really sent: only a comparison with the range that was asked finds the fault.
    Declared,
    /// `Transfer-Encoding: chunked`, no `Content-Length`, a clean end.
    Chunked,
    /// An HTTP/1.0 answer without a length, ended by closing the connection: nothing in it says that something is
    /// wrong.
    UntilClose,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error answer of this status, in the dialect's XML, with `Retry-After` in seconds where given.
    Status {
        /// The HTTP status, such as 403, 404, 500 or 503 (which S3 calls SlowDown).
        code: u16,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
    },
    /// No answer at all; the connection stays open until the client gives up.
    StallHeaders,
    /// Right headers and the first bytes of the body, then nothing more; the connection stays open.
    StallBody {
        /// Bytes of the body before the silence.
        after_bytes: u64,
    },
    /// Right headers and the first bytes of the body, then the connection is closed.
    CutBody {
        /// Bytes of the body before the end; at most all but one.
        after_bytes: u64,
    },
    /// A right `Content-Range` and a body that lacks its last bytes, cleanly ended.
    ShortBody {
        /// How many bytes are missing.
        drop_bytes: u64,
        /// How the end is told.
        framing: Framing,
    },
    /// A right `Content-Range` and a body with bytes too many (zeros).
    LongBody {
        /// How many bytes follow the right ones.
        extra_bytes: u64,
        /// How the end is told.
        framing: Framing,
    },
    /// A `Content-Range` that is one byte further on than the body.
    WrongContentRange,
    /// Status 200 and the whole object, as if the server did not know ranges.
    FullInsteadOfRange,
    /// One bit of the body is wrong, all else is right.
    FlipBit {
        /// The byte of the body whose lowest bit is flipped, modulo the body's length.
        offset: u64,
    },
    /// The object is replaced by these bytes right before the answer: an overwrite between two reads.
    SwapObject {
        /// The new content.
        bytes: Bytes,
    },
    /// Status 307 to this URL.
    Redirect {
        /// The `Location`.
        to: String,
    },
    /// The first byte comes later, by this much; adds to the server's own latency.
    Latency(Duration),
}

impl Fault {
    /// Whether other faults may apply to the same request.
    fn is_companion(&self) -> bool {
        matches!(self, Self::Latency(_) | Self::SwapObject { .. })
    }

    /// Whether only the content of an object can carry this fault.
    fn needs_content(&self) -> bool {
        match self {
            Self::Status { .. } | Self::StallHeaders | Self::Redirect { .. } | Self::Latency(_) => false,
            Self::StallBody { .. }
            | Self::CutBody { .. }
            | Self::ShortBody { .. }
            | Self::LongBody { .. }
            | Self::WrongContentRange
            | Self::FullInsteadOfRange
            | Self::FlipBit { .. }
            | Self::SwapObject { .. } => true,
        }
    }
}

/// How often a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// To the next so many requests that match.
    Count(u32),
    /// To every n-th request that matches, without end: 1 is all of them, 10 is ten per cent. Zero is taken as 1.
    EveryNth(u32),
    /// To all requests that match, without end.
    Always,
}

/// One fault with the requests it applies to. Made by [`Rule::once`], [`Rule::times`], [`Rule::every`] or
/// [`Rule::always`], and narrowed by the methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    fault: Fault,
    times: Times,
    operation: Option<Operation>,
    name_part: String,
    skip: u32,
}

impl Rule {
    fn new(fault: Fault, times: Times) -> Self {
        Self { fault, times, operation: None, name_part: String::new(), skip: 0 }
    }

    /// For the next matching request.
    #[must_use]
    pub fn once(fault: Fault) -> Self {
        Self::new(fault, Times::Count(1))
    }

    /// For the next `count` matching requests.
    #[must_use]
    pub fn times(count: u32, fault: Fault) -> Self {
        Self::new(fault, Times::Count(count))
    }

    /// For every `nth` matching request.
    #[must_use]
    pub fn every(nth: u32, fault: Fault) -> Self {
        Self::new(fault, Times::EveryNth(nth))
    }

    /// For all matching requests.
    #[must_use]
    pub fn always(fault: Fault) -> Self {
        Self::new(fault, Times::Always)
    }

    /// Only requests of this kind. Faults in a body apply to GETs of objects only, with or without this.
    #[must_use]
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only requests whose `bucket/key` (of a listing: `bucket/prefix`) contains this text.
    #[must_use]
    pub fn key(mut self, part: impl Into<String>) -> Self {
        self.name_part = part.into();
        self
    }

    /// Lets the first `count` matching requests pass.
    #[must_use]
    pub fn after(mut self, count: u32) -> Self {
        self.skip = count;
        self
    }

    fn matches(&self, operation: Operation, name: &str) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation)
            && (!self.fault.needs_content() || operation == Operation::Get)
            && name.contains(&self.name_part)
    }

    fn is_spent(&self) -> bool {
        self.times == Times::Count(0)
    }

    /// Whether the rule applies to this matching request; counts it.
    fn fires(&mut self, seen: &mut u32) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.times {
            Times::Count(left) => {
                let fires = *left > 0;
                *left = left.saturating_sub(1);
                fires
            }
            Times::EveryNth(nth) => {
                *seen = (*seen + 1) % (*nth).max(1);
                *seen == 0
            }
            Times::Always => true,
        }
    }
}

/// What happens to one request.
#[derive(Debug, Default)]
pub(super) struct Injected {
    pub(super) latency: Duration,
    pub(super) swap: Option<Bytes>,
    pub(super) fault: Option<Fault>,
}

/// A rule and how many matching requests it has seen since it last fired.
#[derive(Debug)]
struct Armed {
    rule: Rule,
    seen: u32,
}

/// The rules of one server.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Vec<Armed>>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule behind those that are there.
    pub fn add(&self, rule: Rule) {
        self.lock().push(Armed { rule, seen: 0 });
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// How many rules can still apply. A test asks this to be sure that its faults did happen.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn take(&self, operation: Operation, name: &str) -> Injected {
        let mut injected = Injected::default();
        let mut rules = self.lock();
        for Armed { rule, seen } in rules.iter_mut() {
            let is_taken = injected.fault.is_some() && !rule.fault.is_companion();
            if is_taken || !rule.matches(operation, name) || !rule.fires(seen) {
                continue;
            }
            match &rule.fault {
                Fault::Latency(latency) => injected.latency += *latency,
                Fault::SwapObject { bytes } => injected.swap = Some(bytes.clone()),
                other => injected.fault = Some(other.clone()),
            }
        }
        rules.retain(|armed| !armed.rule.is_spent());
        injected
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const ERROR: Fault = Fault::Status { code: 500, retry_after: None };

    fn fired(faults: &Faults, operation: Operation, name: &str) -> bool {
        faults.take(operation, name).fault.is_some()
    }

    #[test]
    fn a_rule_applies_to_its_requests_as_often_as_it_says() {
        let faults = Faults::default();
        faults.add(Rule::times(2, ERROR).on(Operation::Get).key("b/part-1").after(1));
        assert!(!fired(&faults, Operation::Head, "b/part-1"));
        assert!(!fired(&faults, Operation::Get, "b/part-2"));
        let seen: Vec<bool> = (0..4).map(|_| fired(&faults, Operation::Get, "b/part-1")).collect();
        assert_eq!(seen, [false, true, true, false]);
        assert_eq!(faults.pending(), 0);

        faults.add(Rule::every(3, ERROR));
        let seen: Vec<bool> = (0..6).map(|_| fired(&faults, Operation::List, "b/")).collect();
        assert_eq!(seen, [false, false, true, false, false, true]);
        assert_eq!(faults.pending(), 1);
        faults.clear();
        assert_eq!(faults.pending(), 0);
    }

    #[test]
    fn companions_apply_together_and_the_first_other_fault_wins() {
        let faults = Faults::default();
        faults.add(Rule::once(Fault::Latency(Duration::from_millis(1))));
        faults.add(Rule::once(Fault::StallHeaders));
        faults.add(Rule::once(ERROR));
        faults.add(Rule::once(Fault::SwapObject { bytes: Bytes::from_static(b"x") }));
        faults.add(Rule::once(Fault::Latency(Duration::from_millis(2))));
        let injected = faults.take(Operation::Get, "b/k");
        assert_eq!(injected.latency, Duration::from_millis(3));
        assert_eq!(injected.swap.as_deref(), Some(&b"x"[..]));
        assert_eq!(injected.fault, Some(Fault::StallHeaders));
        assert_eq!(faults.take(Operation::Get, "b/k").fault, Some(ERROR), "the one that lost was not used up");
    }
}
