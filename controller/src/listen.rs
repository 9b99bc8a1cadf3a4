//! Accepts connections of bridges and starts a session for each.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openflow::peer::Timing;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, warn};

use crate::core::SessionId;
use crate::gate::Gate;
use crate::hub::Input;
use crate::limit::Limit;
use crate::metrics::Metrics;
use crate::problems::Problems;
use crate::registry::Registry;
use crate::session;

/// How long bridges and clients may take, and how many may be about to connect.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the channel itself.
    pub peer: Timing,
    /// From the first octet of a message to its last.
    pub message: Duration,
    /// Without any progress in writing.
    pub write: Duration,
    /// For a bridge to show that it is alive when another one claims its datapath id.
    pub challenge: Duration,
    /// For the whole claim.
    pub claim: Duration,
    /// Connections that haven't said who they are; beyond it the slowest of them are closed.
    pub handshakes: usize,
    /// For the head of a REST request, and for the pause between two.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            peer: Timing::default(),
            message: seconds(10),
            write: seconds(10),
            challenge: seconds(2),
            claim: seconds(3),
            handshakes: 1024,
            request: seconds(10),
        }
    }
}

/// What all sessions share.
#[derive(Debug)]
pub struct Shared {
    /// The hub's queue. It is bounded: who has something for it waits.
    pub hub: mpsc::Sender<Input>,
    /// Who speaks for which bridge.
    pub registry: Registry,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where it is told who can't connect.
    pub problems: Arc<Problems>,
    /// How long bridges may take.
    pub limits: Limits,
    /// Limits lines about datapath ids that two bridges claim: both may try for ever.
    pub taken: Mutex<Limit>,
    /// Limits lines about connections that never said who they are: anybody can make many.
    pub strangers: Mutex<Limit>,
    /// Limits lines about the ends of bridges' connections: they may connect again and again.
    pub ends: Mutex<Limit>,
}

impl Shared {
    /// For sessions that report to `hub`.
    pub fn new(hub: mpsc::Sender<Input>, limits: Limits, problems: Arc<Problems>) -> Self {
        let (registry, metrics) = (Registry::default(), Arc::default());
        let [taken, strangers, ends] = [1, 20, 50].map(|per_second| Mutex::new(Limit::new(per_second)));
        Self { hub, registry, metrics, problems, limits, taken, strangers, ends }
    }
}

/// Accepts connections until `stop` changes; then all sessions end.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let gate = Arc::new(Gate::new(shared.limits.handshakes));
    let mut sessions = JoinSet::new();
    let mut failures = Limit::new(1);
    for id in 1.. {
        // Who comes while too many are about to connect waits in the socket's own queue.
        let accept = async {
            let permit = gate.room().await?;
            listener.accept().await.map(|(stream, address)| (stream, address, permit))
        };
        tokio::pin!(accept);
        let accepted = loop {
            tokio::select! {
                accepted = &mut accept => break accepted,
                Some(ended) = sessions.join_next() => {
                    if let Err(fault) = ended {
                        error!("a session failed, which is a fault of this program: {fault}");
                    }
                }
                _ = stop.changed() => return,
            }
        };
        match accepted {
            Ok((stream, address, permit)) => {
                // Without it small answers would wait for each other; who refuses it is only slower.
                let _ = stream.set_nodelay(true);
                shared.metrics.connections.inc();
                let entered = gate.enter(SessionId(id), permit);
                sessions.spawn(session::run(stream, address, SessionId(id), Arc::clone(&shared), entered));
            }
            Err(error) => {
                if failures.pass(Instant::now()).is_some() {
                    warn!(
                        "can't accept connections of bridges: {error}; if files run out, raise the limit (ulimit -n)"
                    );
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
