//! One connection of one bridge: a task that moves octets between the socket, [`Peer`], which decides, and the hub.
//!
//! It never stops reading because it writes, nor writing because it reads, and it has a deadline for everything that
//! the other end can put off. What a bridge costs the hub is bounded by budgets: packet-ins are dropped beyond theirs;
//! all else waits, which holds up this bridge's socket and nobody else.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use apps::fabric::has_probes_type;
use apps::pipeline::ADMIT;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use openflow::frame::{header, next_frame};
use openflow::message::Message;
use openflow::peer::{Identity, Peer, Received};
use openflow::types::{DatapathId, Xid};
use tokio::io::ErrorKind;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::asked::{Asked, Verdict};
use crate::core::{Event, SessionId};
use crate::end::End;
use crate::gate::{GiveWay, Place};
use crate::hub::Input;
use crate::limit::Limit;
use crate::listen::Shared;
use crate::metrics::{Direction, Excess, Refused, Traffic};
use crate::outgoing::{Incoming, Outgoing, channel};
use crate::registry::Challenge;

/// A message that waits at the hub counts as so many octets, or as what it has.
const MESSAGE_MIN: usize = 2 << 10;
/// Octets in packet-ins of probes that one session may have waiting at the hub: losing them looks like losing links.
const PROBES_MAX: usize = 256 * MESSAGE_MIN;
/// Octets in other packet-ins that one session may have waiting at the hub.
const PACKETS_MAX: usize = 64 * MESSAGE_MIN;
/// Octets in other messages that one session may have waiting at the hub; beyond that its socket isn't read.
const OTHERS_MAX: usize = 512 * MESSAGE_MIN;
/// Octets of our own answers beyond which nothing more is read.
const ANSWERS_MAX: usize = 1 << 20;
/// Room for one read: from the least, where many bridges are at rest, to the most, where one is busy. The most is also
/// what may be there of messages that aren't whole; the longest message just fits.
const READ_MIN: usize = 4 << 10;
const READ_MAX: usize = 64 << 10;
/// Lines that one session may write into the log per second; the core has a budget of its own for each bridge.
const LINES: u32 = 5;
/// How long a bridge may take to read why it is turned away.
const FAREWELL: Duration = Duration::from_millis(500);

struct Session {
    id: SessionId,
    address: SocketAddr,
    stream: TcpStream,
    shared: Arc<Shared>,
    peer: Peer,
    /// Held until the bridge is known.
    handshake: Option<(Place, GiveWay)>,
    /// The datapath id that is claimed.
    dpid: Option<DatapathId>,
    /// For the hub, once the bridge is known.
    outgoing: Option<Outgoing>,
    incoming: Incoming,
    challenges: Option<mpsc::Receiver<Challenge>>,
    /// Challenges that the bridge hasn't met yet.
    open: Vec<Challenge>,
    probes: Arc<Semaphore>,
    packets: Arc<Semaphore>,
    others: Arc<Semaphore>,
    traffic: Arc<Traffic>,
    asked: Asked,
    /// It told of its tables without end; the hub closes it.
    too_long: bool,
    lines: Limit,
    /// What was read and isn't a whole message yet.
    buffer: BytesMut,
    read_size: usize,
    /// Since when the message that `buffer` begins with hasn't been completed.
    half_since: Option<Instant>,
    /// Our own answers, to be sent before the next batch.
    answers: BytesMut,
    /// What is being written.
    writing: Bytes,
    /// Since when nothing could be written.
    stalled_since: Option<Instant>,
}

/// Serves a connection until its end.
pub(crate) async fn run(
    stream: TcpStream,
    address: SocketAddr,
    id: SessionId,
    shared: Arc<Shared>,
    handshake: (Place, GiveWay),
) {
    let (outgoing, incoming) = channel();
    let mut session = Session {
        id,
        address,
        stream,
        peer: Peer::new(Instant::now(), shared.limits.peer),
        shared,
        handshake: Some(handshake),
        dpid: None,
        outgoing: Some(outgoing),
        incoming,
        challenges: None,
        open: Vec::new(),
        probes: Arc::new(Semaphore::new(PROBES_MAX)),
        packets: Arc::new(Semaphore::new(PACKETS_MAX)),
        others: Arc::new(Semaphore::new(OTHERS_MAX)),
        traffic: Arc::default(),
        asked: Asked::default(),
        too_long: false,
        lines: Limit::new(LINES),
        buffer: BytesMut::new(),
        read_size: READ_MIN,
        half_since: None,
        answers: BytesMut::new(),
        writing: Bytes::new(),
        stalled_since: None,
    };
    let Err(end) = session.serve().await;
    session.report(&end);
    if matches!(end, End::Channel(_)) {
        session.farewell().await;
    }
    session.leave().await;
}

impl Session {
    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        self.collect();
        let timer = sleep_until(self.deadline().into());
        tokio::pin!(timer);
        loop {
            self.flush()?;
            // A timer that comes too early does no harm, and moving it with each message would cost more.
            if self.deadline() < timer.deadline().into_std() {
                timer.as_mut().reset(self.deadline().into());
            }
            let idle = self.writing.is_empty();
            tokio::select! {
                ready = self.stream.readable(), if self.answers.len() < ANSWERS_MAX => {
                    ready?;
                    self.read().await?;
                }
                ready = self.stream.writable(), if !idle => ready?,
                batch = self.incoming.next(idle) => {
                    self.writing = self.batch(batch?);
                }
                () = crowded(&mut self.handshake) => return Err(End::Crowded),
                challenge = next(&mut self.challenges) => {
                    self.peer.challenge(Instant::now(), self.shared.limits.challenge);
                    self.open.push(challenge);
                    self.collect();
                }
                () = &mut timer => {
                    self.timeout().await?;
                    timer.as_mut().reset(self.deadline().into());
                }
            }
        }
    }

    fn deadline(&self) -> Instant {
        let limits = &self.shared.limits;
        let half = self.half_since.map(|since| since + limits.message);
        let stalled = self.stalled_since.map(|since| since + limits.write);
        [half, stalled].into_iter().flatten().fold(self.peer.deadline(), Instant::min)
    }

    async fn timeout(&mut self) -> Result<(), End> {
        // What has come in the meantime counts as in time.
        self.read().await?;
        let (now, limits) = (Instant::now(), self.shared.limits);
        if self.half_since.is_some_and(|since| now >= since + limits.message) {
            return Err(End::Half(limits.message));
        }
        if self.stalled_since.is_some_and(|since| now >= since + limits.write) {
            return Err(End::Stalled(limits.write));
        }
        self.peer.handle_timeout(now)?;
        self.collect();
        if self.buffer.is_empty() {
            // A bridge at rest holds no memory for reading.
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Reads what is there and handles every whole message of it.
    async fn read(&mut self) -> Result<(), End> {
        let room = self.read_size.min(READ_MAX - self.buffer.len());
        self.buffer.reserve(room);
        match self.stream.try_read_buf(&mut (&mut self.buffer).limit(room)) {
            Ok(0) => return Err(End::Gone),
            Ok(count) if count == room => self.read_size = (self.read_size * 2).min(READ_MAX),
            Ok(count) if count < self.read_size / 4 => self.read_size = (self.read_size / 2).max(READ_MIN),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut whole = false;
        loop {
            self.peer.check_start(&self.buffer).map_err(|close| End::rubbish(close, &self.buffer))?;
            let Some(frame) = next_frame(&mut self.buffer)? else { break };
            whole = true;
            self.frame(&frame).await?;
        }
        self.collect();
        match (self.buffer.is_empty(), whole) {
            (true, _) => self.half_since = None,
            (false, true) => self.half_since = Some(Instant::now()),
            (false, false) => _ = self.half_since.get_or_insert_with(Instant::now),
        }
        Ok(())
    }

    async fn frame(&mut self, frame: &Bytes) -> Result<(), End> {
        self.traffic.count(Direction::Received, header(frame).1);
        if self.dpid.is_some() {
            match self.asked.came(frame) {
                Verdict::Due => {}
                Verdict::Unasked => {
                    self.refuse(Refused::Unasked);
                    return Ok(());
                }
                Verdict::TooLong => return self.too_long().await,
            }
        }
        // Nothing in there should panic. If it does, it may cost this connection only.
        let handled = catch_unwind(AssertUnwindSafe(|| self.peer.handle_frame(Instant::now(), frame)));
        let received = handled.map_err(|_| End::Panicked)??;
        if !self.peer.is_challenged() {
            for challenge in self.open.drain(..) {
                // Whoever asked may be gone by now.
                let _ = challenge.send(());
            }
        }
        match received {
            None => Ok(()),
            Some(Received::Ready(identity)) => self.ready(identity).await,
            Some(Received::Message(xid, message)) => self.message(xid, message, frame.len()).await,
            Some(Received::Malformed(error)) => {
                self.refuse(Refused::Malformed);
                if let Some(more) = self.lines.pass(Instant::now()) {
                    let bridge = self.name();
                    warn!("dropped a message from {bridge}: {error}{more}");
                }
                Ok(())
            }
            Some(Received::WrongVersion) => {
                self.refuse(Refused::BadVersion);
                Ok(())
            }
            Some(Received::WrongType) => {
                self.refuse(Refused::BadType);
                Ok(())
            }
        }
    }

    fn refuse(&self, why: Refused) {
        self.shared.metrics.refused(why).inc();
    }

    /// It tells of its tables without end. The hub decides what becomes of it, and hears of it once.
    async fn too_long(&mut self) -> Result<(), End> {
        self.refuse(Refused::TablesTooLong);
        if std::mem::replace(&mut self.too_long, true) {
            return Ok(());
        }
        let event = Event::TablesTooLong { session: self.id };
        self.shared.hub.send(Input::Event(event, None)).await.map_err(|_| End::Stop)
    }

    async fn ready(&mut self, identity: Box<Identity>) -> Result<(), End> {
        let dpid = identity.features.datapath;
        let (registry, limits) = (&self.shared.registry, &self.shared.limits);
        let claim = registry.claim(dpid, self.id, self.address, &self.traffic, limits.claim);
        let challenges = claim.await.map_err(|taken| End::Taken(dpid, taken.0))?;
        self.challenges = Some(challenges);
        self.dpid = Some(dpid);
        self.handshake = None;
        self.shared.problems.turned_away.connected(self.address.ip(), dpid);
        // Escaped: what a bridge calls itself must not write lines of its own into the log.
        let plain = |text: &str| text.escape_debug().to_string();
        let software = identity.desc.as_ref();
        let software =
            software.map(|desc| format!(" ({} {})", plain(&desc.hardware.text()), plain(&desc.software.text())));
        debug!("{} is connected{}", self.name(), software.unwrap_or_default());
        let Some(outgoing) = self.outgoing.take() else { return Ok(()) };
        let connected = Input::Connected { session: self.id, address: self.address, identity, outgoing };
        self.shared.hub.send(connected).await.map_err(|_| End::Stop)
    }

    async fn message(&mut self, xid: Xid, message: Message, octets: usize) -> Result<(), End> {
        // At most 65,535, so it fits.
        let cost = octets.max(MESSAGE_MIN) as u32;
        let permit = match &message {
            Message::PacketIn(packet) => {
                // A tenant's frames of that type, and whatever others make a bridge show, have the other budget.
                let is_probe = packet.table == ADMIT && has_probes_type(&packet.data);
                let (budget, excess) =
                    if is_probe { (&self.probes, Excess::Probes) } else { (&self.packets, Excess::Packets) };
                match Arc::clone(budget).try_acquire_many_owned(cost) {
                    Ok(permit) => permit,
                    Err(_) => {
                        self.shared.metrics.excess(excess).inc();
                        return Ok(());
                    }
                }
            }
            Message::FeaturesReply(features) => match self.dpid {
                Some(dpid) if dpid != features.datapath => return Err(End::Changed(dpid, features.datapath)),
                _ => {
                    self.refuse(Refused::Unasked);
                    return Ok(());
                }
            },
            Message::EchoReply(_) => {
                self.refuse(Refused::Unasked);
                return Ok(());
            }
            other => {
                if let Message::Error(error) = other {
                    self.shared.metrics.error(error.code);
                }
                Arc::clone(&self.others).acquire_many_owned(cost).await.map_err(|_| End::Stop)?
            }
        };
        let event = Event::Message { session: self.id, xid, message };
        self.shared.hub.send(Input::Event(event, Some(permit))).await.map_err(|_| End::Stop)
    }

    /// Takes over what the channel wants to say.
    fn collect(&mut self) {
        let output = self.peer.take_output();
        self.asked.sent(&output, &self.traffic);
        if self.answers.is_empty() {
            self.answers = output;
        } else {
            self.answers.extend_from_slice(&output);
        }
    }

    /// A batch of the hub is about to be written.
    fn batch(&mut self, batch: Bytes) -> Bytes {
        self.asked.sent(&batch, &self.traffic);
        batch
    }

    /// Writes until there is nothing left or the socket takes no more.
    fn flush(&mut self) -> Result<(), End> {
        loop {
            if self.writing.is_empty() {
                // Answers go between two batches: each batch is a run of whole messages.
                if !self.answers.is_empty() {
                    self.writing = self.answers.split().freeze();
                } else if let Some(batch) = self.incoming.batch_now() {
                    self.writing = self.batch(batch);
                } else {
                    self.stalled_since = None;
                    return Ok(());
                }
                continue;
            }
            match self.stream.try_write(&self.writing) {
                Ok(count) => {
                    self.writing.advance(count);
                    self.stalled_since = None;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets the bridge read our last words: a close with unread input would wipe them out on their way.
    async fn farewell(&mut self) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        self.collect();
        if self.answers.is_empty() && self.writing.is_empty() {
            return;
        }
        let Self { writing, answers, stream, .. } = self;
        let last_words = async {
            stream.write_all(writing).await?;
            stream.write_all(answers).await?;
            stream.shutdown().await?;
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        // Whether it was read can't be known anyhow.
        let _ = timeout(FAREWELL, last_words).await;
    }

    /// The hub hears of the end before anybody else may claim the datapath id.
    async fn leave(self) {
        let Some(dpid) = self.dpid else { return };
        if self.outgoing.is_none() {
            let gone = Event::Disconnected { session: self.id };
            // If the hub is gone, so is everything that would care.
            let _ = self.shared.hub.send(Input::Event(gone, None)).await;
        }
        self.shared.registry.release(dpid, self.id);
    }

    fn name(&self) -> String {
        match self.dpid {
            Some(dpid) => format!("bridge {dpid} at {}", self.address),
            None => self.address.to_string(),
        }
    }

    fn report(&self, end: &End) {
        if let Some(why) = end.refused() {
            self.refuse(why);
            let dpid = match end {
                End::Taken(dpid, _) => Some(*dpid),
                _ => self.dpid,
            };
            self.shared.problems.turned_away.add(Instant::now(), self.address.ip(), dpid, end.to_string());
        }
        let name = self.name();
        let held_back = self.lines.held_back();
        if held_back > 0 {
            warn!("{name} sent {held_back} more messages that can't be decoded");
        }
        let limit = match (end, self.dpid) {
            (End::Stop, _) => return,
            (End::Gone | End::Broken(_), None) => return debug!("{name} left before it said who it is: {end}"),
            (End::Taken(..), None) => &self.shared.taken,
            (_, None) => &self.shared.strangers,
            (_, Some(_)) => &self.shared.ends,
        };
        let passed = limit.lock().unwrap_or_else(PoisonError::into_inner).pass(Instant::now());
        match (passed, end) {
            (None, _) => {}
            (Some(more), End::Gone) => info!("{name} closed the connection{more}"),
            (Some(more), _) => warn!("closed the connection from {name}: {end}{more}"),
        }
    }
}

/// Resolves when there is no more time to say who it is.
async fn crowded(handshake: &mut Option<(Place, GiveWay)>) {
    match handshake {
        // Told or let go: both say the same.
        Some((_, give_way)) => drop(give_way.await),
        None => std::future::pending().await,
    }
}

async fn next(challenges: &mut Option<mpsc::Receiver<Challenge>>) -> Challenge {
    if let Some(challenges) = challenges
        && let Some(challenge) = challenges.recv().await
    {
        return challenge;
    }
    // Nobody can ask any more, or not yet.
    std::future::pending().await
}
