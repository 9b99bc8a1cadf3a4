//! A bridge that does what a bridge has to do, on a task of its own, in a manner that tests choose. All the time it asks
//! for echoes and measures how long they take: nobody's misdeeds may show there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use openflow::error::{ErrorCode, ErrorMsg};
use openflow::group::{GroupDesc, GroupMod, GroupModCommand};
use openflow::message::Message;
use openflow::meter::{MeterConfig, MeterMod, MeterModCommand};
use openflow::multipart::Part;
use openflow::multipart::{MultipartReply, MultipartRequest};
use openflow::port::Port;
use openflow::types::{GroupId, MacAddr, MeterId, PortNo, Xid};
use openflow::wire::{Nothing, Payload};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Bridge, PATIENCE, until};

/// A good bridge's echoes never take longer, whatever others do. A busy machine has its share of it.
const PROMPT: Duration = Duration::from_secs(3);

/// Transaction id of its own echo requests; tests use others.
const OWN_ECHO: u32 = 0xffff_fff0;

/// How a bridge behaves.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    /// Its ports, by name; numbers begin at 1.
    pub(crate) ports: Vec<&'static str>,
    /// It refuses entries with this error.
    pub(crate) refuses: Option<ErrorCode>,
    /// It doesn't answer barriers.
    pub(crate) withholds: bool,
    /// What it tells of its flow entries: kind, flags and body of the multipart message. None: that there are none.
    pub(crate) flows: Option<Bytes>,
    /// It tells that again and again.
    pub(crate) endless: bool,
    /// It asks for no echoes: its octets are the test's own.
    pub(crate) quiet: bool,
}

/// What a bridge has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// When it was asked for changes of its tables.
    pub(crate) changes: Vec<Instant>,
    /// How often its tables were asked for.
    pub(crate) reads: usize,
    /// What isn't a question: errors, and answers to what the test sent.
    pub(crate) told: Vec<(Xid, Message)>,
    /// The slowest echo, and since when the present one is waited for.
    worst: Duration,
    waits: Option<Instant>,
    /// When the connection was closed.
    pub(crate) closed: Option<Instant>,
    /// The groups and meters that it has: these are asked for again and again.
    groups: BTreeMap<GroupId, GroupDesc>,
    meters: BTreeMap<MeterId, MeterConfig>,
}

impl Seen {
    /// Keeps groups and meters as it is told to.
    fn holds(&mut self, message: &Message) {
        match message.clone() {
            Message::GroupMod(GroupMod { command: GroupModCommand::Delete, group, .. }) => {
                drop(self.groups.remove(&group));
            }
            Message::GroupMod(GroupMod { kind, group, buckets, .. }) => {
                self.groups.insert(group, GroupDesc { kind, group, buckets });
            }
            Message::MeterMod(MeterMod { command: MeterModCommand::Delete, meter, .. }) => {
                drop(self.meters.remove(&meter));
            }
            Message::MeterMod(MeterMod { flags, meter, bands, .. }) => {
                self.meters.insert(meter, MeterConfig { flags, meter, bands });
            }
            _ => {}
        }
    }
}

/// See the module's text.
pub(crate) struct Model {
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) address: SocketAddr,
    octets: mpsc::UnboundedSender<Bytes>,
    task: JoinHandle<()>,
}

impl Model {
    /// Connects, and when this returns, its session has its datapath id, or has ended.
    pub(crate) async fn connect(address: SocketAddr, dpid: u64, manner: Manner) -> Self {
        let ports = manner.ports.iter().zip(1..).map(|(name, number)| port(number, name)).collect();
        let bridge = Bridge::connect_with(address, dpid, ports).await;
        let local = bridge.stream.local_addr().unwrap();
        let seen = Arc::default();
        let (octets, to_send) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(bridge, manner, Arc::clone(&seen), to_send));
        let model = Self { seen, address: local, octets, task };
        // The last answer of the handshake was sent, but perhaps not yet read: another could still be first.
        model.settled(OWN_ECHO + 1).await;
        model
    }

    /// One that does nothing but watch how others fare.
    pub(crate) async fn canary(address: SocketAddr) -> Self {
        Self::connect(address, 0xca_0a47, Manner::default()).await
    }

    /// Sends octets as they are.
    pub(crate) fn write(&self, octets: impl Into<Bytes>) {
        // It may be closed by now; tests look at that.
        let _ = self.octets.send(octets.into());
    }

    /// Sends a message.
    pub(crate) fn send(&self, xid: u32, message: &Message) {
        let mut out = BytesMut::new();
        message.encode(Xid(xid), &mut out).unwrap();
        self.write(out.freeze());
    }

    /// Waits until all that was sent before has been dealt with by the session, or it is closed. Gives what came.
    pub(crate) async fn settled(&self, xid: u32) -> Vec<(Xid, Message)> {
        self.send(xid, &Message::EchoRequest("settled?".into()));
        let answer = (Xid(xid), Message::EchoReply("settled?".into()));
        until("an echo, or the end", || self.is_closed() || self.seen.lock().unwrap().told.contains(&answer)).await;
        let mut told = std::mem::take(&mut self.seen.lock().unwrap().told);
        told.retain(|message| *message != answer);
        told
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.seen.lock().unwrap().closed.is_some()
    }

    /// Waits for the end of the connection. Gives how long it took.
    pub(crate) async fn closed(&self) -> Duration {
        let start = Instant::now();
        until("the connection is closed", || self.is_closed()).await;
        start.elapsed()
    }

    /// How many changes it was asked for.
    pub(crate) fn changes(&self) -> usize {
        self.seen.lock().unwrap().changes.len()
    }

    /// Its session lives, and its echoes have been prompt.
    #[track_caller]
    pub(crate) fn is_well(&self, what: &str) {
        let seen = self.seen.lock().unwrap();
        assert!(seen.closed.is_none(), "{what}: a good bridge lost its session");
        let worst = seen.waits.map_or(seen.worst, |since| seen.worst.max(since.elapsed()));
        assert!(worst < PROMPT, "{what}: an echo of a good bridge took {worst:?}");
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn port(number: u32, name: &str) -> Port {
    Port::new(PortNo(number), MacAddr([0x0e, 0, 0, 0, 0, number as u8]), name)
}

async fn run(mut bridge: Bridge, manner: Manner, seen: Arc<Mutex<Seen>>, mut to_send: mpsc::UnboundedReceiver<Bytes>) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut out = BytesMut::new();
        let mut say = |xid: Xid, message: Message| message.encode(xid, &mut out).unwrap();
        tokio::select! {
            received = bridge.receive() => match received {
                Some((xid, message)) => answer(&manner, &mut seen.lock().unwrap(), xid, message, &mut say),
                None => break,
            },
            Some(octets) = to_send.recv() => out.extend_from_slice(&octets),
            _ = tick.tick(), if !manner.quiet => {
                let mut seen = seen.lock().unwrap();
                if seen.waits.is_none() {
                    seen.waits = Some(Instant::now());
                    say(Xid(OWN_ECHO), Message::EchoRequest(Payload::default()));
                }
            }
        }
        let endless = manner.endless && out.get(1) == Some(&19);
        while let Ok(true) = bridge.try_write(&out).await.map(|()| endless) {}
    }
    seen.lock().unwrap().closed = Some(Instant::now());
}

fn answer(manner: &Manner, seen: &mut Seen, xid: Xid, message: Message, say: &mut dyn FnMut(Xid, Message)) {
    match message {
        Message::EchoReply(_) if xid == Xid(OWN_ECHO) => {
            let took = seen.waits.take().map_or(PATIENCE, |since| since.elapsed());
            seen.worst = seen.worst.max(took);
        }
        Message::EchoRequest(body) => say(xid, Message::EchoReply(body)),
        Message::BarrierRequest(_) if !manner.withholds => say(xid, Message::BarrierReply(Nothing)),
        Message::BarrierRequest(_) | Message::PacketOut(_) => {}
        Message::FlowMod(_) | Message::GroupMod(_) | Message::MeterMod(_) => {
            seen.changes.push(Instant::now());
            seen.holds(&message);
            if let (Message::FlowMod(_), Some(code)) = (&message, manner.refuses) {
                say(xid, Message::Error(ErrorMsg { code, data: Bytes::new().into() }));
            }
        }
        // It tells no changes that others make: there are none.
        Message::MultipartRequest(Part { body: MultipartRequest::Experimenter(_), .. }) => {}
        Message::MultipartRequest(part) => {
            seen.reads += 1;
            let none = match part.body {
                MultipartRequest::Flow(_) => match &manner.flows {
                    Some(body) => return say(xid, Message::Unknown { kind: 19, data: body.clone().into() }),
                    None => MultipartReply::Flow(Vec::new()),
                },
                MultipartRequest::GroupDesc(_) => MultipartReply::GroupDesc(seen.groups.values().cloned().collect()),
                MultipartRequest::Meter(_) => MultipartReply::Meter(Vec::new()),
                _ => MultipartReply::MeterConfig(seen.meters.values().cloned().collect()),
            };
            say(xid, Message::MultipartReply(Part::whole(none)));
        }
        // It tells nobody who leads.
        Message::RoleRequest(_) => {}
        told => seen.told.push((xid, told)),
    }
}
