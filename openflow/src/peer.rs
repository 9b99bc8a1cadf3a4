//! The controller's end of a channel to one bridge, as a state machine: agreement on the version, who the bridge is,
//! role, echoes, and answers to what a bridge may not send (OpenFlow 1.3.5 §6.2–6.3, §7.5).
//!
//! It does no I/O. Feed it with [`Peer::handle_frame`] and [`Peer::handle_timeout`]; afterwards send what
//! [`Peer::take_output`] gives and come back by [`Peer::deadline`].

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::error::{BadRequest, ErrorCode, ErrorMsg};
use crate::frame::{VERSION, header};
use crate::message::{DecodeError, Message};
use crate::multipart::{MultipartFlags, MultipartReply, MultipartRequest, Part};
use crate::port::{Port, PortReason, PortStatus};
use crate::switch::{Desc, FeaturesReply, Hello, Role, RoleRequest};
use crate::types::Xid;
use crate::wire::{Nothing, Payload};

/// How long the other end may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the connection until the bridge is known.
    pub handshake: Duration,
    /// Silence after which we ask whether it is still there.
    pub echo_after: Duration,
    /// From that question until we give up.
    pub echo_answer: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { handshake: seconds(5), echo_after: seconds(2), echo_answer: seconds(3) }
    }
}

/// Who the bridge is, once all of it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Datapath id and capabilities.
    pub features: FeaturesReply,
    /// Maker and names; `None` if the bridge wouldn't tell.
    pub desc: Option<Box<Desc>>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// The role that we have there so far. Which one to ask for isn't the channel's business.
    pub role: Role,
    /// The generation of its last master, or [`RoleRequest::NONE`]; `None`: it knows no roles.
    pub generation: Option<u64>,
}

/// What a frame meant for the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The bridge is known. Messages follow from here on only.
    Ready(Box<Identity>),
    /// A message that isn't the channel's own business.
    Message(Xid, Message),
    /// A message that can't be decoded. It was dropped; the channel goes on.
    Malformed(DecodeError),
    /// A message of another version. It was refused with an error; the channel goes on.
    WrongVersion,
    /// A message of a type that bridges don't send. It was refused with an error; the channel goes on.
    WrongType,
}

/// Why the channel has to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Close {
    /// The first message isn't a hello, or not of OpenFlow at all.
    #[error("it doesn't begin with an OpenFlow HELLO")]
    NotHello,
    /// No version in common.
    #[error(
        "it doesn't speak OpenFlow 1.3 (its HELLO has version {0:#04x}); on the host: ovs-vsctl set bridge BRIDGE protocols=OpenFlow13"
    )]
    Incompatible(u8),
    /// The handshake wasn't finished in time.
    #[error("the handshake wasn't finished in time: still without {0}")]
    HandshakeTimeout(&'static str),
    /// A message of the handshake can't be used.
    #[error("the handshake failed: {0}")]
    Handshake(String),
    /// An auxiliary connection; we use none.
    #[error("it is an auxiliary connection (id {0}), which this controller doesn't use")]
    Auxiliary(u8),
    /// An echo request wasn't answered.
    #[error("it hasn't answered an echo request for {0:?}")]
    NoEcho(Duration),
}

#[derive(Debug)]
enum State {
    Hello,
    Features,
    /// Waiting for the rest: what has come so far.
    Details {
        features: FeaturesReply,
        desc: Option<Option<Box<Desc>>>,
        ports: Vec<Port>,
        ports_complete: bool,
        role: Option<(Role, Option<u64>)>,
    },
    Ready,
}

// Transaction ids of the channel's own requests. The controller's are below.
const OWN: u32 = 0x8000_0000;
const FEATURES: Xid = Xid(OWN + 1);
const DESC: Xid = Xid(OWN + 2);
const PORTS: Xid = Xid(OWN + 3);
const ROLE: Xid = Xid(OWN + 4);
const ECHO: Xid = Xid(OWN + 5);

/// Highest transaction id that the controller may use for its own requests.
pub const XID_MAX: Xid = Xid(OWN - 1);

/// Most ports that a bridge may have.
pub const PORTS_MAX: usize = 4096;

/// See the module's text.
#[derive(Debug)]
pub struct Peer {
    timing: Timing,
    state: State,
    out: BytesMut,
    started: Instant,
    heard: Instant,
    /// When the echo request was sent that isn't answered yet.
    asked: Option<Instant>,
    /// When a challenge is lost, unless the bridge is heard before.
    challenged: Option<Instant>,
}

impl Peer {
    /// A channel that has just been opened; our hello is the first output.
    pub fn new(now: Instant, timing: Timing) -> Self {
        let mut peer = Self {
            timing,
            state: State::Hello,
            out: BytesMut::new(),
            started: now,
            heard: now,
            asked: None,
            challenged: None,
        };
        peer.send(Xid(OWN), &Message::Hello(Hello::v13()));
        peer
    }

    /// What has to be sent, in order.
    pub fn take_output(&mut self) -> BytesMut {
        self.out.split()
    }

    /// When [`Peer::handle_timeout`] has to be called, unless frames come first.
    pub fn deadline(&self) -> Instant {
        match (&self.state, self.asked) {
            (State::Ready, None) => self.heard + self.timing.echo_after,
            (State::Ready, Some(asked)) => {
                let given = asked + self.timing.echo_answer;
                self.challenged.map_or(given, |end| end.min(given))
            }
            _ => self.started + self.timing.handshake,
        }
    }

    /// Time has passed.
    ///
    /// # Errors
    /// The channel has to be closed.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Close> {
        if now < self.deadline() {
            return Ok(());
        }
        let missing = match &self.state {
            State::Hello => "a HELLO",
            State::Features => "a FEATURES_REPLY",
            State::Details { ports_complete: false, .. } => "its ports",
            State::Details { desc: None, .. } => "its description",
            State::Details { .. } => "a ROLE_REPLY",
            State::Ready if self.asked.is_some() => return Err(Close::NoEcho(now - self.heard)),
            State::Ready => {
                self.asked = Some(now);
                self.send(ECHO, &Message::EchoRequest(Payload::default()));
                return Ok(());
            }
        };
        Err(Close::HandshakeTimeout(missing))
    }

    /// Somebody else claims to be this bridge: it has to be heard within `answer`, or the channel is closed.
    pub fn challenge(&mut self, now: Instant, answer: Duration) {
        if !matches!(self.state, State::Ready) || self.challenged.is_some() {
            return;
        }
        self.challenged = Some(now + answer);
        if self.asked.is_none() {
            self.asked = Some(now);
            self.send(ECHO, &Message::EchoRequest(Payload::default()));
        }
    }

    /// Is a challenge still open?
    pub fn is_challenged(&self) -> bool {
        self.challenged.is_some()
    }

    /// Looks at the first octets of a message that isn't whole yet. What doesn't begin as a hello would otherwise be
    /// waited for up to the length that it seems to claim.
    ///
    /// # Errors
    /// The channel has to be closed.
    pub fn check_start(&self, start: &[u8]) -> Result<(), Close> {
        match (&self.state, start) {
            (State::Hello, [0, ..] | [_, (1..), ..]) => Err(Close::NotHello),
            _ => Ok(()),
        }
    }

    /// A whole message has come, as [`crate::frame::next_frame`] cut it.
    ///
    /// # Errors
    /// The channel has to be closed, after sending what [`Peer::take_output`] gives.
    pub fn handle_frame(&mut self, now: Instant, frame: &Bytes) -> Result<Option<Received>, Close> {
        let (version, kind, xid) = header(frame);
        if matches!(self.state, State::Hello) {
            return self.hello(version, kind, frame).map(|()| None);
        }
        self.heard = now;
        self.asked = None;
        self.challenged = None;
        if version != VERSION {
            self.refuse(kind, Xid(xid), BadRequest::BadVersion, frame);
            return Ok(Some(Received::WrongVersion));
        }
        if is_for_bridges(kind) {
            // Its body isn't even looked at.
            self.refuse(kind, Xid(xid), BadRequest::BadType, frame);
            return Ok(Some(Received::WrongType));
        }
        match Message::decode(frame) {
            Ok((xid, message)) => self.message(xid, message),
            Err(error) if matches!(self.state, State::Ready) => Ok(Some(Received::Malformed(error))),
            Err(error) => Err(Close::Handshake(error.to_string())),
        }
    }

    fn hello(&mut self, version: u8, kind: u8, frame: &Bytes) -> Result<(), Close> {
        if kind != 0 || version == 0 {
            return Err(Close::NotHello);
        }
        let hello = match Message::decode(frame) {
            Ok((_, Message::Hello(hello))) => hello,
            Ok(_) => return Err(Close::NotHello),
            Err(error) => return Err(Close::Handshake(error.to_string())),
        };
        if !hello.speaks_v13(version) {
            let text = "Espalier speaks OpenFlow 1.3 only (set bridge protocols=OpenFlow13)";
            self.send(Xid(OWN), &Message::Error(ErrorMsg::incompatible(text)));
            return Err(Close::Incompatible(version));
        }
        self.send(FEATURES, &Message::FeaturesRequest(Nothing));
        self.state = State::Features;
        Ok(())
    }

    fn message(&mut self, xid: Xid, message: Message) -> Result<Option<Received>, Close> {
        match message {
            Message::EchoRequest(body) => self.send(xid, &Message::EchoReply(body)),
            Message::EchoReply(_) if xid == ECHO => {}
            // A second hello changes nothing.
            Message::Hello(_) => {}
            Message::Error(error) if matches!(error.code, ErrorCode::HelloFailed(_)) => {
                return Err(Close::Handshake("the bridge answered HELLO_FAILED".into()));
            }
            message => return self.business(xid, message),
        }
        Ok(None)
    }

    fn business(&mut self, xid: Xid, message: Message) -> Result<Option<Received>, Close> {
        match (&mut self.state, message) {
            (State::Ready, message) => return Ok(Some(Received::Message(xid, message))),
            (State::Features, Message::FeaturesReply(features)) if xid == FEATURES => {
                if features.auxiliary_id != 0 {
                    return Err(Close::Auxiliary(features.auxiliary_id));
                }
                self.state =
                    State::Details { features, desc: None, ports: Vec::new(), ports_complete: false, role: None };
                let question = |body| Message::MultipartRequest(Part::whole(body));
                self.send(DESC, &question(MultipartRequest::Desc(Nothing)));
                self.send(PORTS, &question(MultipartRequest::PortDesc(Nothing)));
                let query = RoleRequest { role: Role::NoChange, generation: 0 };
                self.send(ROLE, &Message::RoleRequest(query));
            }
            (State::Details { desc, .. }, Message::MultipartReply(Part { body: MultipartReply::Desc(told), .. }))
                if xid == DESC =>
            {
                *desc = Some(Some(told));
            }
            (
                State::Details { ports, ports_complete, .. },
                Message::MultipartReply(Part { flags, body: MultipartReply::PortDesc(told) }),
            ) if xid == PORTS => {
                ports.extend(told);
                *ports_complete = !flags.contains(MultipartFlags::MORE);
                return self.bounded();
            }
            (State::Details { ports, ports_complete: true, .. }, Message::PortStatus(status)) => {
                apply(ports, status);
                return self.bounded();
            }
            (State::Details { role, .. }, Message::RoleReply(reply)) if xid == ROLE => {
                *role = Some((reply.role, Some(reply.generation)));
            }
            (State::Details { role, desc, .. }, Message::Error(error)) => match xid {
                ROLE => *role = Some((Role::Equal, None)),
                DESC => *desc = Some(None),
                _ => {
                    return Err(Close::Handshake(format!("the bridge answered {}", error.code)));
                }
            },
            // Before the bridge is known nothing else counts.
            _ => {}
        }
        Ok(self.ready())
    }

    /// Are its ports few enough? If so, is the last piece here?
    fn bounded(&mut self) -> Result<Option<Received>, Close> {
        match &self.state {
            State::Details { ports, .. } if ports.len() > PORTS_MAX => {
                Err(Close::Handshake(format!("it tells more than {PORTS_MAX} ports")))
            }
            _ => Ok(self.ready()),
        }
    }

    /// Is the last piece here?
    fn ready(&mut self) -> Option<Received> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Details {
                features,
                desc: Some(desc),
                ports,
                ports_complete: true,
                role: Some((role, generation)),
            } => Some(Received::Ready(Box::new(Identity { features, desc, ports, role, generation }))),
            other => {
                self.state = other;
                None
            }
        }
    }

    fn refuse(&mut self, kind: u8, xid: Xid, code: BadRequest, frame: &Bytes) {
        // An error never answers an error, or two ends could go on for ever.
        if kind != 1 {
            self.send(xid, &Message::Error(ErrorMsg::about(code, frame)));
        }
    }

    fn send(&mut self, xid: Xid, message: &Message) {
        // What the channel says itself is short, or an echo of what fitted into a message.
        let fits = message.encode(xid, &mut self.out);
        debug_assert!(fits.is_ok(), "{fits:?}");
    }
}

/// Is this a type that only a controller may send, or none of OpenFlow 1.3?
const fn is_for_bridges(kind: u8) -> bool {
    matches!(kind, 5 | 7 | 9 | 13..=18 | 20 | 22 | 24 | 26 | 28..)
}

/// Brings a list of ports up to date.
pub fn apply(ports: &mut Vec<Port>, status: PortStatus) {
    ports.retain(|port| port.number != status.port.number);
    if status.reason != PortReason::Delete {
        ports.push(status.port);
    }
}
