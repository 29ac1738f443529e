//! Layer 3: who looks after a stream while its connection does not.
//!
//! Knows since when the connection has not asked for replies, and the moments at which a stream ends. It must not know
//! frames. A connection that cannot write asks for nothing, and what nobody asks for does not go on: then this does the
//! stream's work, and breaks the connection off if its client reads nothing for too long. It sleeps nearly always.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};

use super::replies::lock;
use super::stream::{Frames, Work};
use crate::connection::Line;

/// How often a stream is looked at that has nothing under way: so long may frames wait that nobody reads.
const IDLE_LOOK: Duration = Duration::from_secs(1);
/// The same while requests are under way: so long they may hold their permits in vain.
const BUSY_LOOK: Duration = Duration::from_millis(20);
/// How often it is looked at whether a client still reads nothing, as a part of the time that it has.
const STALL_LOOKS: u32 = 8;

/// The task; it ends with this.
pub(super) struct Watch(pub(super) JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks after a stream until it is dropped, or its connection is cut.
pub(super) async fn watch<F: Frames>(
    work: Arc<Mutex<Work<F>>>,
    line: Option<Line>,
    mut draining: watch::Receiver<Option<Duration>>,
    busy: Arc<Notify>,
) {
    let ends = async {
        let mut aged = pin!(OptionFuture::from(line.as_ref().map(|line| sleep_until(line.ends))));
        tokio::select! {
            // An error means that the worker's own handle is gone, which ends the process.
            _ = draining.wait_for(Option::is_some) => {}
            Some(()) = &mut aged => {}
        }
        lock(&work).close();
        std::future::pending().await
    };
    tokio::select! {
        () = ends => {}
        () = look_after(&work, line.as_ref(), &busy) => {}
    }
}

async fn look_after<F: Frames>(work: &Mutex<Work<F>>, line: Option<&Line>, busy: &Notify) {
    let (mut pause, mut seen) = (IDLE_LOOK, 0);
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = busy.notified() => {
                pause = BUSY_LOOK;
                continue;
            }
        }
        let is_left_alone = {
            let mut work = lock(work);
            pause = if work.is_busy() { BUSY_LOOK } else { IDLE_LOOK };
            let is_left_alone = work.asked.times == seen && !work.asked.is_content;
            seen = work.asked.times;
            is_left_alone
        };
        if is_left_alone && take_over(work, line, seen).await {
            return;
        }
    }
}

/// Does a stream's work until the connection asks for replies again; whether it was cut instead.
async fn take_over<F: Frames>(work: &Mutex<Work<F>>, line: Option<&Line>, seen: u64) -> bool {
    let working = poll_fn(|cx| {
        let mut work = lock(work);
        if work.asked.times != seen {
            return Poll::Ready(());
        }
        work.asked.watch = Some(cx.waker().clone());
        work.work_on(cx);
        Poll::Pending
    });
    let stalled = async {
        let Some(line) = line else { return std::future::pending().await };
        loop {
            sleep(line.stalled / STALL_LOOKS).await;
            let work = lock(work);
            if work.asked.times == seen && work.stalled_for().is_some_and(|stalled| stalled >= line.stalled) {
                // Nothing else frees what waits inside the connection: its client has closed the window.
                work.door().metrics.connections_stalled_total.up();
                line.cut();
                return;
            }
        }
    };
    tokio::select! {
        () = working => false,
        () = stalled => true,
    }
}
