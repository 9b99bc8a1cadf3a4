//! The way from the hub to one session: encoded batches, bounded in number and in octets, and the order to close.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::end::End;

/// Most octets that may wait for one bridge, beside the batch that is being written. A single batch may be longer, if
/// nothing else waits.
pub const OCTETS_MAX: usize = 1 << 20;
/// Most batches that may wait for one bridge.
pub const BATCHES_MAX: usize = 4096;

/// The hub's end.
#[derive(Debug)]
pub struct Outgoing {
    first: mpsc::Sender<Bytes>,
    batches: mpsc::Sender<Bytes>,
    octets: Arc<AtomicUsize>,
    close: mpsc::Sender<End>,
}

/// The session's end.
#[derive(Debug)]
pub struct Incoming {
    first: mpsc::Receiver<Bytes>,
    batches: mpsc::Receiver<Bytes>,
    octets: Arc<AtomicUsize>,
    close: mpsc::Receiver<End>,
}

/// The bridge doesn't read as fast as it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Both ends.
pub fn channel() -> (Outgoing, Incoming) {
    let (first, first_out) = mpsc::channel(BATCHES_MAX);
    let (batches, batches_out) = mpsc::channel(BATCHES_MAX);
    let (close, close_out) = mpsc::channel(1);
    let octets = Arc::new(AtomicUsize::new(0));
    let incoming = Incoming { first: first_out, batches: batches_out, octets: Arc::clone(&octets), close: close_out };
    (Outgoing { first, batches, octets, close }, incoming)
}

impl Outgoing {
    /// Queues whole messages. Never waits.
    ///
    /// # Errors
    /// [`Full`]: it wasn't queued, and the session closes, for the bridge would miss it.
    pub fn send(&self, batch: Bytes) -> Result<(), Full> {
        self.queue(&self.batches, batch)
    }

    /// The same, ahead of all batches that wait; among themselves they keep their order.
    ///
    /// # Errors
    /// As of [`Outgoing::send`].
    pub fn send_first(&self, batch: Bytes) -> Result<(), Full> {
        self.queue(&self.first, batch)
    }

    fn queue(&self, queue: &mpsc::Sender<Bytes>, batch: Bytes) -> Result<(), Full> {
        let length = batch.len();
        let before = self.octets.fetch_add(length, Ordering::Relaxed);
        let fits = before == 0 || before + length <= OCTETS_MAX;
        match fits.then(|| queue.try_send(batch)) {
            // A session that has ended reports so itself.
            Some(Ok(()) | Err(mpsc::error::TrySendError::Closed(_))) => Ok(()),
            Some(Err(mpsc::error::TrySendError::Full(_))) | None => {
                self.end(End::Full);
                Err(Full)
            }
        }
    }

    /// Has the session end, for a reason that goes to the log. Only the first one counts.
    pub fn close(&self, reason: String) {
        self.end(End::Hub(reason));
    }

    fn end(&self, end: End) {
        // Full: it is already told to close. Closed: it has ended.
        let _ = self.close.try_send(end);
    }
}

impl Incoming {
    /// The next batch, if `take` wants one, else the order to close. A batch that was taken no longer counts as waiting.
    ///
    /// # Errors
    /// The order to close.
    pub(crate) async fn next(&mut self, take: bool) -> Result<Bytes, End> {
        tokio::select! {
            biased;
            batch = self.first.recv(), if take => batch.map(|batch| self.taken(batch)).ok_or(End::Stop),
            batch = self.batches.recv(), if take => batch.map(|batch| self.taken(batch)).ok_or(End::Stop),
            end = self.close.recv() => Err(end.unwrap_or(End::Stop)),
        }
    }

    /// The next batch, if one waits.
    pub(crate) fn batch_now(&mut self) -> Option<Bytes> {
        let batch = self.first.try_recv().or_else(|_| self.batches.try_recv()).ok()?;
        Some(self.taken(batch))
    }

    fn taken(&self, batch: Bytes) -> Bytes {
        self.octets.fetch_sub(batch.len(), Ordering::Relaxed);
        batch
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

        assert!(matches!(session.next(false).await, Err(End::Full)), "whoever misses a batch has to go");

        let (hub, mut session) = channel();
        for (octet, first) in [(3, false), (1, true), (4, false), (2, true)] {
            let batch = Bytes::from(vec![octet]);
            assert_eq!(if first { hub.send_first(batch) } else { hub.send(batch) }, Ok(()));
        }
        let order = [session.next(true).await.unwrap(), session.batch_now().unwrap()];
        assert_eq!(order.concat(), [1, 2], "some go first");
        assert_eq!([session.next(true).await.unwrap(), session.batch_now().unwrap()].concat(), [3, 4]);

        let (hub, mut session) = channel();
        for _ in 0..2 {
            assert_eq!(hub.send(vec![0; OCTETS_MAX].into()), Ok(()));
            assert_eq!(session.next(true).await.unwrap().len(), OCTETS_MAX, "what is being written doesn't wait");
        }
        assert_eq!(hub.send(vec![0; OCTETS_MAX - 1].into()), Ok(()));
        assert_eq!(hub.send(vec![0; 1].into()), Ok(()));
        assert_eq!(hub.send(vec![0; 1].into()), Err(Full));
    }
}
