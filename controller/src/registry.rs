//! Which session speaks for which bridge. Sessions settle it among themselves: the hub only hears of winners.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use openflow::types::DatapathId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use crate::core::SessionId;
use crate::metrics::Traffic;

/// A question to the session that holds a datapath id. Answered: its bridge is alive. Dropped: it has let go.
pub type Challenge = oneshot::Sender<()>;

/// Most challenges that may wait for one session; whoever comes beyond them is refused.
const CHALLENGES_MAX: usize = 16;

#[derive(Debug)]
struct Holder {
    session: SessionId,
    address: SocketAddr,
    traffic: Arc<Traffic>,
    challenges: mpsc::Sender<Challenge>,
}

/// All claimed datapath ids.
#[derive(Debug, Default)]
pub struct Registry(DashMap<DatapathId, Holder>);

/// The datapath id stays with the session that has it, which connects from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken(pub SocketAddr);

impl Registry {
    /// Claims a datapath id. If another session holds it, that one is challenged, and only if its bridge turns out to be
    /// dead the claim succeeds, after the hub was told that the other is gone.
    ///
    /// # Errors
    /// [`Taken`], after `patience` at the latest.
    pub async fn claim(
        &self,
        dpid: DatapathId,
        session: SessionId,
        address: SocketAddr,
        traffic: &Arc<Traffic>,
        patience: Duration,
    ) -> Result<mpsc::Receiver<Challenge>, Taken> {
        let end = Instant::now() + patience;
        let (challenges, mine) = mpsc::channel(CHALLENGES_MAX);
        loop {
            // The guard of the map must be gone before anything is awaited.
            let (holder, incumbent) = match self.0.entry(dpid) {
                Entry::Vacant(free) => {
                    free.insert(Holder { session, address, traffic: Arc::clone(traffic), challenges });
                    return Ok(mine);
                }
                Entry::Occupied(held) => (held.get().challenges.clone(), held.get().address),
            };
            let (challenge, verdict) = oneshot::channel();
            if let Err(mpsc::error::TrySendError::Full(_)) = holder.try_send(challenge) {
                return Err(Taken(incumbent));
            }
            match timeout_at(end, verdict).await {
                // It is gone, or about to be.
                Ok(Err(_)) if Instant::now() < end => sleep(Duration::from_millis(5)).await,
                _ => return Err(Taken(incumbent)),
            }
        }
    }

    /// Lets go of a datapath id, after the hub was told.
    pub fn release(&self, dpid: DatapathId, session: SessionId) {
        self.0.remove_if(&dpid, |_, holder| holder.session == session);
    }

    /// The messages of each bridge that is connected, in order.
    pub fn traffic(&self) -> BTreeMap<DatapathId, Arc<Traffic>> {
        self.0.iter().map(|held| (*held.key(), Arc::clone(&held.value().traffic))).collect()
    }

    /// The bridges that are connected, in order.
    pub fn bridges(&self) -> Vec<DatapathId> {
        let mut all: Vec<_> = self.0.iter().map(|held| *held.key()).collect();
        all.sort_unstable();
        all
    }
}
