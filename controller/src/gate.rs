//! Who may be about to connect: a bounded number, and nobody keeps others out by taking long.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use crate::core::SessionId;

/// Whoever has been about to connect for longer gives way when there is no room. It is some round trips of the longest
/// ways on earth.
const GRACE: Duration = Duration::from_millis(500);

/// For the one that gives way to be gone, before the next one has to.
const LEAVING: Duration = Duration::from_millis(20);

/// Resolves when its session has to give way.
pub(crate) type GiveWay = oneshot::Receiver<()>;

type Waiting = BTreeMap<SessionId, (Instant, oneshot::Sender<()>)>;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Gate {
    room: Arc<Semaphore>,
    /// Sessions about to connect, by age.
    waiting: Mutex<Waiting>,
}

/// The place of one session that is about to connect; dropped when its bridge is known, or with the session.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Arc<Gate>,
    session: SessionId,
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    /// Room for so many.
    pub(crate) fn new(room: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(room)), waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room. If there is none, those give way that have been about to connect for longest, and for long; so
    /// many honest ones that come together wait for each other, and don't wait for silent ones.
    pub(crate) async fn room(&self) -> io::Result<OwnedSemaphorePermit> {
        let mut leaving = Duration::ZERO;
        loop {
            let oldest = self.waiting().first_key_value().map(|(_, (since, _))| *since);
            let young = oldest.map_or(GRACE, |since| (since + GRACE).saturating_duration_since(Instant::now()));
            match timeout(young.max(leaving), Arc::clone(&self.room).acquire_owned()).await {
                Ok(permit) => return permit.map_err(io::Error::other),
                Err(_) => drop(self.waiting().pop_first()),
            }
            leaving = LEAVING;
        }
    }

    /// Gives room to a session.
    pub(crate) fn enter(self: &Arc<Self>, session: SessionId, permit: OwnedSemaphorePermit) -> (Place, GiveWay) {
        let (stay, give_way) = oneshot::channel();
        self.waiting().insert(session, (Instant::now(), stay));
        (Place { gate: Arc::clone(self), session, _permit: permit }, give_way)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.waiting().remove(&self.session);
    }
}
