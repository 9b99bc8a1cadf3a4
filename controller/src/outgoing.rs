//! The way from the hub to one session: encoded batches, bounded in number and in octets, and the order to close.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Most octets that may wait for one bridge. A single batch may be longer, if nothing else waits.
pub const OCTETS_MAX: usize = 16 << 20;
/// Most batches that may wait for one bridge.
pub const BATCHES_MAX: usize = 4096;

/// The hub's end.
#[derive(Debug)]
pub struct Outgoing {
    batches: mpsc::Sender<Bytes>,
    octets: Arc<AtomicUsize>,
    close: mpsc::Sender<String>,
}

/// The session's end.
#[derive(Debug)]
pub struct Incoming {
    batches: mpsc::Receiver<Bytes>,
    octets: Arc<AtomicUsize>,
    close: mpsc::Receiver<String>,
}

/// The bridge doesn't read as fast as it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Both ends.
pub fn channel() -> (Outgoing, Incoming) {
    let (batches, batches_out) = mpsc::channel(BATCHES_MAX);
    let (close, close_out) = mpsc::channel(1);
    let octets = Arc::new(AtomicUsize::new(0));
    let incoming = Incoming { batches: batches_out, octets: Arc::clone(&octets), close: close_out };
    (Outgoing { batches, octets, close }, incoming)
}

impl Outgoing {
    /// Queues whole messages. Never waits.
    ///
    /// # Errors
    /// [`Full`]: it wasn't queued, and the session has to be closed, for the bridge would miss it.
    pub fn send(&self, batch: Bytes) -> Result<(), Full> {
        let length = batch.len();
        let before = self.octets.fetch_add(length, Ordering::Relaxed);
        if before > 0 && before + length > OCTETS_MAX {
            return Err(Full);
        }
        match self.batches.try_send(batch) {
            // A session that has ended reports so itself.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Full),
        }
    }

    /// Has the session end, for a reason that goes to the log. Only the first one counts.
    pub fn close(&self, reason: String) {
        // Full: it is already told to close. Closed: it has ended.
        let _ = self.close.try_send(reason);
    }
}

impl Incoming {
    /// The next batch, if `take` wants one, else the order to close with its reason, or without if the hub is gone.
    /// Report what was written with [`Self::written`].
    ///
    /// # Errors
    /// The order to close.
    pub async fn next(&mut self, take: bool) -> Result<Bytes, Option<String>> {
        tokio::select! {
            batch = self.batches.recv(), if take => batch.ok_or(None),
            reason = self.close.recv() => Err(reason),
        }
    }

    /// The next batch, if one waits.
    pub fn batch_now(&mut self) -> Option<Bytes> {
        self.batches.try_recv().ok()
    }

    /// So many octets of batches don't wait any more.
    pub fn written(&self, octets: usize) {
        self.octets.fetch_sub(octets, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn batches_are_bounded_in_number_and_octets_and_one_long_batch_fits() {
        let (hub, mut session) = channel();
        assert_eq!(hub.send(vec![0; OCTETS_MAX + 1].into()), Ok(()));
        assert_eq!(hub.send(vec![0; 1].into()), Err(Full));

        let (hub, _session) = channel();
        let sent = (0..).take_while(|_| hub.send(Bytes::from_static(&[0])).is_ok()).take(BATCHES_MAX + 1).count();
        assert_eq!(sent, BATCHES_MAX);

        let length = session.next(true).await.unwrap().len();
        session.written(length);
        assert_eq!(
            session.octets.load(Ordering::Relaxed),
            1,
            "what was refused stays counted: the session ends anyway"
        );
    }
}
