//! Layer 3: what a service manager is told.
//!
//! Knows the messages of sd_notify(3) and their order. It must not know when they are due. Without `NOTIFY_SOCKET`
//! every message is dropped, so that the same program runs under systemd, in a container and by hand.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    /// What `STATUS=` last said; it is not repeated.
    said: Mutex<String>,
}

impl Notifier {
    /// The time within which a watchdog must be fed, if it is to be fed at all.
    pub fn watchdog() -> Option<Duration> {
        sd_notify::watchdog_enabled()
    }

    /// The worker serves.
    pub fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// The worker has begun to stop.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// The settings are being reloaded; [`Notifier::ready`] says when that is over.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "no monotonic clock: the service manager is told less"),
        }
    }

    /// The worker has proved that it serves.
    pub fn alive(&self) {
        send(&[NotifyState::Watchdog]);
    }

    /// What takes long goes on: another so much time before the start counts as failed.
    pub fn extend(&self, by: Duration) {
        send(&[NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// A line for people, in `systemctl status`.
    pub fn status(&self, line: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != line {
            line.clone_into(&mut said);
            send(&[NotifyState::Status(line)]);
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
