//! The one task that owns the [`Core`]: every input of it is an event from one bounded queue, and every effect is
//! carried out here and nowhere else.
//!
//! ```text
//!  listener ─spawns─▶ session × bridges ──Input (bounded, waits)──▶ hub ──Outgoing (bounded, never waits)──▶ session
//!  policy files / store ──Input::Policy──────────────────────────▶  │ ├──watch: Published──▶ REST
//!  REST ──Input::Situation (for traces, plans)──────────────────▶   │ ├──oneshot: Situation─▶ REST
//!                                                                   └────watch: Memory──▶ store
//! ```
//!
//! The hub waits for nobody: a session that can't take a batch is closed, and the store takes the newest of what it
//! missed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apps::policy::Policy;
use apps::trace::Situation;
use bytes::BytesMut;
use openflow::message::Message;
use openflow::peer::{Identity, XID_MAX};
use openflow::types::Xid;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tracing::{info, trace, warn};

use crate::core::{Core, Effect, Event, Level, Memory, SessionId, Settings};
use crate::outgoing::Outgoing;
use crate::snapshot::{PolicyStatus, Snapshot};

/// Room in the hub's queue.
pub const QUEUE: usize = 8192;
/// Most events of one turn, after which batches go out.
const TURN: usize = 256;
/// Least time between two snapshots.
const PUBLISH: Duration = Duration::from_millis(20);
/// The part of the hub's time that snapshots may take, as its reciprocal; and that situations may.
const PUBLISH_SHARE: u32 = 20;

/// What the hub takes in.
#[derive(Debug)]
pub enum Input {
    /// A bridge is connected and known.
    Connected {
        /// Its connection.
        session: SessionId,
        /// Where it connects from.
        address: SocketAddr,
        /// Who it is.
        identity: Box<Identity>,
        /// The way to it.
        outgoing: Outgoing,
    },
    /// A policy comes into force. Answered when the documents are of it.
    Policy(Arc<Policy>, PolicyStatus, oneshot::Sender<()>),
    /// Somebody wants to trace frames, or to see a plan. The answer may be as old as snapshots are, but it is of the policy in force;
    /// `None` until there is one.
    Situation(oneshot::Sender<Option<Arc<Situation>>>),
    /// Anything else, with what it takes of its session's budget.
    Event(Event, Option<OwnedSemaphorePermit>),
}

/// A snapshot and when it was taken; `None` until a policy is in force.
pub type Published = Option<(Instant, Arc<Snapshot>)>;

struct Attached {
    outgoing: Outgoing,
    batch: BytesMut,
    closing: bool,
}

impl Attached {
    /// Puts messages behind what a batch has.
    fn encode(&mut self, messages: Vec<(Xid, Message)>, batch: &mut BytesMut) {
        for (xid, message) in messages {
            debug_assert!(xid <= XID_MAX, "{xid:?} belongs to the channel");
            if let Err(error) = message.encode(xid, batch) {
                // What is left of the change would be a lie. It shouldn't come to this: the tables are cut into messages
                // that fit.
                self.closing = true;
                self.outgoing.close(format!("a message for it can't be written: {error}"));
                break;
            }
        }
    }
}

/// A session that can be sent something.
fn attached(sessions: &mut BTreeMap<SessionId, Attached>, session: SessionId) -> Option<&mut Attached> {
    let attached = sessions.get_mut(&session).filter(|attached| !attached.closing);
    if attached.is_none() {
        trace!("nothing is sent to {session:?}, which is closed");
    }
    attached
}

struct Hub {
    core: Core,
    sessions: BTreeMap<SessionId, Attached>,
    /// Sessions with something in their batch.
    touched: Vec<SessionId>,
    publish: watch::Sender<Published>,
    save: watch::Sender<Memory>,
    /// Is a policy in force? Has anything happened since the last snapshot, and when may the next one be taken?
    ready: bool,
    changed: bool,
    publish_from: Instant,
    /// Whoever waits for documents of the policy in force: the next snapshot is made at once.
    waiting: Vec<oneshot::Sender<()>>,
    /// The newest situation that somebody asked for, and until when it isn't made anew although things happen.
    situation: Option<(Arc<Situation>, Instant)>,
    /// Has anything happened since?
    outdated: bool,
}

/// Runs the core until `stop` changes or all senders of inputs are gone.
pub async fn run(
    settings: Settings,
    mut inputs: mpsc::Receiver<Input>,
    publish: watch::Sender<Published>,
    save: watch::Sender<Memory>,
    mut stop: watch::Receiver<bool>,
) {
    let now = Instant::now();
    let mut hub = Hub {
        core: Core::new(now, settings),
        sessions: BTreeMap::new(),
        touched: Vec::new(),
        publish,
        save,
        ready: false,
        changed: false,
        publish_from: now,
        waiting: Vec::new(),
        situation: None,
        outdated: false,
    };
    let mut turn = Vec::with_capacity(TURN);
    loop {
        let wake = hub.wake();
        tokio::select! {
            count = inputs.recv_many(&mut turn, TURN) => if count == 0 { return },
            () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
            _ = stop.changed() => return,
        }
        // Sessions that end because the daemon stops must not look like bridges that fail: nothing changes on the others.
        if *stop.borrow() {
            return;
        }
        let now = Instant::now();
        for input in turn.drain(..) {
            hub.input(now, input);
        }
        if hub.core.deadline(now).is_some_and(|deadline| deadline <= now) {
            hub.handle(now, Event::Timer);
        }
        hub.flush();
        hub.publish();
    }
}

impl Hub {
    /// When to go on without an input.
    fn wake(&self) -> Option<Instant> {
        let publish = (self.changed && self.ready).then_some(self.publish_from);
        self.core.deadline(Instant::now()).into_iter().chain(publish).min()
    }

    fn input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Connected { session, address, identity, outgoing } => {
                self.sessions.insert(session, Attached { outgoing, batch: BytesMut::new(), closing: false });
                self.handle(now, Event::Connected { session, address, identity });
            }
            Input::Policy(policy, status, done) => {
                self.ready = true;
                self.situation = None;
                self.waiting.push(done);
                self.handle(now, Event::Policy(policy, status));
            }
            Input::Situation(answer) => {
                // Whoever asked may be gone.
                let _ = answer.send(self.ready.then(|| self.situation()));
            }
            Input::Event(event, _permit) => {
                let gone = match &event {
                    Event::Disconnected { session } => Some(*session),
                    _ => None,
                };
                self.handle(now, event);
                if let Some(session) = gone {
                    self.sessions.remove(&session);
                }
            }
        }
    }

    fn handle(&mut self, now: Instant, event: Event) {
        self.changed = true;
        self.outdated = true;
        for effect in self.core.handle(now, event) {
            match effect {
                Effect::Send { session, messages } => {
                    let Some(attached) = attached(&mut self.sessions, session) else { continue };
                    if attached.batch.is_empty() {
                        self.touched.push(session);
                    }
                    let mut batch = std::mem::take(&mut attached.batch);
                    attached.encode(messages, &mut batch);
                    attached.batch = batch;
                }
                Effect::SendFirst { session, messages } => {
                    let Some(attached) = attached(&mut self.sessions, session) else { continue };
                    let mut batch = BytesMut::new();
                    attached.encode(messages, &mut batch);
                    attached.closing |= attached.outgoing.send_first(batch.freeze()).is_err();
                }
                Effect::Close { session, reason } => {
                    if let Some(attached) = self.sessions.get_mut(&session) {
                        attached.closing = true;
                        attached.outgoing.close(reason);
                    }
                }
                // The same again would cost a commit.
                Effect::Save(memory) => {
                    self.save.send_if_modified(|saved| {
                        let modified = *saved != memory;
                        *saved = memory;
                        modified
                    });
                }
                Effect::Notice(Level::Info, text) => info!("{text}"),
                Effect::Notice(Level::Warning, text) => warn!("{text}"),
            }
        }
    }

    fn flush(&mut self) {
        for session in self.touched.drain(..) {
            let Some(attached) = self.sessions.get_mut(&session) else { continue };
            let batch = attached.batch.split().freeze();
            attached.closing |= attached.outgoing.send(batch).is_err();
        }
    }

    fn publish(&mut self) {
        let start = Instant::now();
        if !self.changed || !self.ready || (start < self.publish_from && self.waiting.is_empty()) {
            return;
        }
        let snapshot = Arc::new(self.core.snapshot(start));
        self.publish.send_replace(Some((start, snapshot)));
        self.changed = false;
        self.publish_from = start + PUBLISH.max(start.elapsed() * PUBLISH_SHARE);
        // Whoever waited may be gone.
        self.waiting.drain(..).for_each(|done| _ = done.send(()));
    }

    /// What traces and plans depend on. It is made only when somebody asks, and for no more of the hub's time than snapshots.
    fn situation(&mut self) -> Arc<Situation> {
        let start = Instant::now();
        if let Some((situation, kept_until)) = &self.situation
            && (!self.outdated || start < *kept_until)
        {
            return Arc::clone(situation);
        }
        let situation = Arc::new(self.core.situation());
        self.outdated = false;
        self.situation = Some((Arc::clone(&situation), start + PUBLISH.max(start.elapsed() * PUBLISH_SHARE)));
        situation
    }
}
