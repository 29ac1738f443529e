//! Layer 3: whether a serving thread has looked at its sockets.
//!
//! Knows the runtime's word for it: who yields is woken after the sockets were looked at and whoever they woke is in
//! line. It must not know who waits. A future that yields is ready when it is polled again, and a connection polls its
//! stream several times in one go; here only the runtime's own call counts.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::task::yield_now;

/// One look, begun.
pub(crate) struct Look {
    called: Arc<Called>,
}

#[derive(Default)]
struct Called {
    is_over: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_over.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Look {
    /// Asks the runtime for a call after its next look.
    pub(crate) fn begin() -> Self {
        let called = Arc::<Called>::default();
        let waker = Waker::from(Arc::clone(&called));
        let asked = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        called.is_over.fetch_or(asked.is_ready(), Ordering::AcqRel);
        Self { called }
    }

    /// Ready once the thread has looked.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waker = self.called.waker.lock().unwrap_or_else(PoisonError::into_inner);
        // Within the lock: who calls in between finds the waker.
        if self.called.is_over.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn it_is_over_once_the_sockets_were_looked_at_and_not_before() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        // The runtime takes it for readable until somebody has tried.
        let mut byte = [0];
        let tried = poll_fn(|cx| Poll::Ready(pin!(here.read(&mut byte)).poll(cx).is_pending())).await;
        there.write_all(b"x").await.unwrap();
        assert!(tried && here.try_read(&mut [0]).is_err(), "nobody has looked");
        let look = Look::begin();
        poll_fn(|cx| {
            // However often it is asked.
            (0..9).for_each(|_| assert!(look.poll(cx).is_pending()));
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| look.poll(cx)).await;
        assert_eq!(here.try_read(&mut [0]).unwrap(), 1);
    }
}
