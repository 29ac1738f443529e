//! Deadlines: how long a call may still take, on both sides of the wire.
//!
//! Knows nothing of calls or workers. The worker is told the time left and should answer in it; this side waits a
//! little longer, because the worker's own answer says more than ours ("the index is being built, 40 % done").

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind, Reason};

/// Longest deadline; a longer one is cut to this. Workers grant less (30 s by default), so nobody waits this long for
/// an answer; the bound keeps the arithmetic of instants defined.
pub const MAX_DEADLINE: Duration = Duration::from_secs(3_600);

/// How much longer than the deadline this side waits for the worker's own words, which are on the wire when the
/// deadline passes.
pub(crate) const GRACE: Duration = Duration::from_millis(20);

/// The instant at which a call is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    began: Instant,
    at: Instant,
    granted: Duration,
}

impl Deadline {
    /// The deadline of a call that starts now.
    pub(crate) fn after(granted: Duration) -> Self {
        let granted = granted.min(MAX_DEADLINE);
        let began = Instant::now();
        Self { began, at: began + granted, granted }
    }

    /// The nearer of this and `share` from now; for one of several tries.
    pub(crate) fn within(self, share: Duration) -> Self {
        Self { at: self.at.min(Instant::now() + share.min(MAX_DEADLINE)), ..self }
    }

    /// When the call began.
    pub(crate) fn began(self) -> Instant {
        self.began
    }

    /// How long the call has taken.
    pub(crate) fn elapsed(self) -> Duration {
        Instant::now().saturating_duration_since(self.began)
    }

    /// When the worker should have answered.
    pub(crate) fn at(self) -> Instant {
        self.at
    }

    /// When this side stops waiting.
    pub(crate) fn give_up_at(self) -> Instant {
        self.at + GRACE
    }

    /// The time left; zero when it has passed.
    pub(crate) fn remaining(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The time left as the wire says it, never the 0 that would mean "the server's default".
    pub(crate) fn timeout_us(self) -> u64 {
        self.timeout_us_at(Instant::now())
    }

    /// The same where the time is known.
    pub(crate) fn timeout_us_at(self, now: Instant) -> u64 {
        u64::try_from(self.at.saturating_duration_since(now).as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// The error of a call that ran out of time while `doing` something.
    pub(crate) fn passed(self, doing: impl std::fmt::Display) -> Error {
        let message = format!("the deadline of {:?} passed while {doing}", self.granted);
        Error::new(Kind::Deadline, message).with_reason(Reason::Deadline)
    }
}
