//! A fabric that isn't there: the real core behind the real codec, bridges that keep their own tables, wires and
//! connections that can be cut, time that goes on when told to. Everything that can come in one order or another comes in an
//! order that the seed draws.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apps::desired::BridgeState;
use apps::interpreter::{Frame, Journey, Output, follow, walk};
use apps::links::TAG;
use apps::marks::PROBE_KEY;
use apps::pipeline::{ADMIT, LEARN};
use apps::policy::Policy;
use apps::view::{Carrier, Endpoint};
use bytes::{Bytes, BytesMut};
use controller::core::{BRIDGES_MAX, Core, Effect, Event, Memory, SessionId, Settings};
use controller::snapshot::{PolicyStatus, Snapshot};
use openflow::action::Action;
use openflow::frame::next_frame;
use openflow::matching::Match;
use openflow::message::Message;
use openflow::oxm::Oxm;
use openflow::packet::{PacketIn, PacketInReason, PacketOut};
use openflow::peer::{Peer, Received, Timing};
use openflow::types::{BufferId, Cookie, DatapathId, MacAddr, PortNo, TableId, Xid};

use crate::bridge::{Kind, SimBridge};
use crate::fabric::Draw;
use crate::pipe::Pipe;
use crate::tables::Tables;

/// A connection of a bridge, with what the controller's end of it knows.
pub(crate) struct Channel {
    session: SessionId,
    peer: Peer,
    received: BytesMut,
    /// Has the core been told of it?
    pub(crate) ready: bool,
    pub(crate) to_bridge: Pipe,
    pub(crate) to_controller: Pipe,
}

/// See the module's text.
pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) now: Instant,
    pub(crate) draw: Draw,
    pub(crate) bridges: BTreeMap<DatapathId, SimBridge>,
    pub(crate) channels: BTreeMap<DatapathId, Channel>,
    pub(crate) wires: BTreeMap<Endpoint, (Endpoint, Carrier)>,
    /// How many octets packets may have that leave by an end of a wire; others may have any number.
    pub(crate) carries: BTreeMap<Endpoint, usize>,
    /// Ends of wires that carry nothing at the moment.
    pub(crate) cut: BTreeSet<Endpoint>,
    /// Bridges whose connection is open but carries nothing.
    pub(crate) muted: BTreeSet<DatapathId>,
    /// Where frames come out that go into a service function by a port.
    pub(crate) cables: BTreeMap<Endpoint, Endpoint>,
    /// Ports of functions that let nothing through at the moment.
    pub(crate) hung: BTreeSet<Endpoint>,
    /// Bridges that couldn't be heard for a while since the network was last quiet.
    pub(crate) unheard: BTreeSet<DatapathId>,
    /// What the controller has on its disk, and what has been on the way there since when.
    stored: Memory,
    unstored: (Instant, Memory),
    policy: (Arc<Policy>, PolicyStatus),
    sessions: u64,
    pub(crate) log: Vec<String>,
}

/// How long it takes until what the controller wants to keep is on its disk.
const STORING: Duration = Duration::from_millis(50);

/// What happens next.
enum Next {
    ToBridge(DatapathId),
    ToController(DatapathId),
    Overdue(DatapathId),
    Timer,
}

impl World {
    pub(crate) fn new(seed: u64, policy: Policy) -> Self {
        let now = Instant::now();
        let settings = Settings { probe_key: [1; 32], memory: Memory::default(), bridges_max: BRIDGES_MAX };
        let mut world = Self {
            core: Core::new(now, settings),
            now,
            draw: Draw::new(seed),
            bridges: BTreeMap::new(),
            channels: BTreeMap::new(),
            wires: BTreeMap::new(),
            carries: BTreeMap::new(),
            cut: BTreeSet::new(),
            muted: BTreeSet::new(),
            cables: BTreeMap::new(),
            hung: BTreeSet::new(),
            unheard: BTreeSet::new(),
            stored: Memory::default(),
            unstored: (now, Memory::default()),
            policy: (Arc::default(), PolicyStatus::default()),
            sessions: 0,
            log: Vec::new(),
        };
        world.set_policy(policy);
        world
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) {
        let generation = self.policy.1.generation + 1;
        let status = PolicyStatus { generation, digest: format!("{generation:064x}"), ..PolicyStatus::default() };
        self.policy = (Arc::new(policy), status.clone());
        self.event(Event::Policy(self.policy.0.clone(), status));
    }

    pub(crate) fn add_bridge(&mut self, dpid: u64, ports: &[&str]) {
        let kind = if self.draw.below(2) == 0 { Kind::OpenVswitch } else { Kind::Plain };
        let mut bridge = SimBridge::new(DatapathId(dpid), kind);
        for (number, name) in (1..).zip(ports) {
            bridge.add_port(PortNo(number), name);
        }
        self.bridges.insert(bridge.dpid, bridge);
    }

    pub(crate) fn add_wire(&mut self, a: u64, b: u64, carrier: Carrier) {
        let mut end = |dpid: u64| {
            let bridge = self.bridges.get_mut(&DatapathId(dpid)).unwrap();
            let port = PortNo(bridge.ports.len() as u32 + 1);
            bridge.add_port(port, &format!("link{}", port.0));
            Endpoint { bridge: DatapathId(dpid), port }
        };
        let (a, b) = (end(a), end(b));
        self.wires.insert(a, (b, carrier));
        self.wires.insert(b, (a, carrier));
    }

    /// A new controller with what the old one had on its disk; the last of what it wanted to keep may be missing there.
    pub(crate) fn restart_core(&mut self) {
        for dpid in self.bridges.keys().copied().collect::<Vec<_>>() {
            let Some(mut channel) = self.channels.remove(&dpid) else { continue };
            self.last_octets(dpid, &mut channel);
        }
        let (since, memory) = self.unstored.clone();
        if self.now - since > STORING || self.draw.below(2) == 0 {
            self.stored = memory;
        }
        self.unstored = (self.now, self.stored.clone());
        let settings = Settings { probe_key: [2; 32], memory: self.stored.clone(), bridges_max: BRIDGES_MAX };
        self.core = Core::new(self.now, settings);
        let (policy, status) = self.policy.clone();
        self.event(Event::Policy(policy, status));
    }

    /// The bridge does what still reaches it, without being able to answer.
    fn last_octets(&mut self, dpid: DatapathId, channel: &mut Channel) {
        let octets = channel.to_bridge.cut(&mut self.draw);
        let bridge = self.bridges.get_mut(&dpid).unwrap();
        bridge.receive(&octets);
        bridge.answers.clear();
    }

    pub(crate) fn connect(&mut self, dpid: DatapathId) {
        if self.channels.contains_key(&dpid) {
            return;
        }
        self.sessions += 1;
        let channel = Channel {
            session: SessionId(self.sessions),
            peer: Peer::new(self.now, Timing::default()),
            received: BytesMut::new(),
            ready: false,
            to_bridge: Pipe::new(),
            to_controller: Pipe::new(),
        };
        self.channels.insert(dpid, channel);
        self.bridges.get_mut(&dpid).unwrap().connected();
        self.flush(dpid);
    }

    /// The connection breaks; a part of what was under way still arrives at the bridge.
    pub(crate) fn disconnect(&mut self, dpid: DatapathId) {
        let Some(mut channel) = self.channels.remove(&dpid) else { return };
        self.unheard.insert(dpid);
        self.last_octets(dpid, &mut channel);
        if channel.ready {
            self.event(Event::Disconnected { session: channel.session });
        }
    }

    /// The bridge begins anew with empty tables.
    pub(crate) fn empty(&mut self, dpid: DatapathId) {
        self.disconnect(dpid);
        let tables = &mut self.bridges.get_mut(&dpid).unwrap().tables;
        (tables.section, tables.version) = (Arc::default(), tables.version + 1);
    }

    /// How often the tables of bridges have changed.
    pub(crate) fn version(&self) -> u64 {
        self.bridges.values().map(|bridge| bridge.tables.version).sum()
    }

    /// Tables change without the controller, and the bridge tells what it can tell of that.
    pub(crate) fn by_itself<T>(&mut self, dpid: DatapathId, change: impl FnOnce(&mut Tables) -> T) -> T {
        let bridge = self.bridges.get_mut(&dpid).unwrap();
        let what = change(&mut bridge.tables);
        bridge.tables.version += 1;
        bridge.tell_changes(None);
        self.flush(dpid);
        what
    }

    /// A port gets or loses its carrier.
    pub(crate) fn set_port_up(&mut self, place: Endpoint, up: bool) {
        let bridge = self.bridges.get_mut(&place.bridge).unwrap();
        let port = bridge.ports.iter().find(|port| port.number == place.port).unwrap();
        let name = port.name.text().into_owned();
        bridge.set_port(place.port, &name, up);
        self.flush(place.bridge);
        if up {
            self.cut.remove(&place)
        } else {
            self.cut.insert(place)
        };
    }

    /// What a bridge and the controller's end of its connection have to send is under way.
    pub(crate) fn flush(&mut self, dpid: DatapathId) {
        let bridge = self.bridges.get_mut(&dpid).unwrap();
        let answers = std::mem::take(&mut bridge.answers);
        let Some(channel) = self.channels.get_mut(&dpid) else { return };
        let mut out = BytesMut::new();
        for (xid, message) in answers {
            message.encode(xid, &mut out).expect("what bridges tell fits");
        }
        channel.to_controller.put(self.now, out.freeze(), &mut self.draw);
        let out = channel.peer.take_output();
        channel.to_bridge.put(self.now, out.freeze(), &mut self.draw);
    }

    fn event(&mut self, event: Event) {
        for effect in self.core.handle(self.now, event) {
            match effect {
                Effect::Send { session, messages } | Effect::SendFirst { session, messages } => {
                    let Some(channel) = self.channels.values_mut().find(|channel| channel.session == session) else {
                        continue;
                    };
                    let mut out = BytesMut::new();
                    for (xid, message) in messages {
                        message.encode(xid, &mut out).expect("what bridges are sent fits");
                    }
                    channel.to_bridge.put(self.now, out.freeze(), &mut self.draw);
                }
                Effect::Close { session, reason } => {
                    self.log.push(format!("closes {session:?}: {reason}"));
                    let dpid = self.channels.iter().find(|(_, it)| it.session == session).map(|(dpid, _)| *dpid);
                    if let Some(dpid) = dpid {
                        self.disconnect(dpid);
                    }
                }
                Effect::Save(memory) => (_, self.stored) = std::mem::replace(&mut self.unstored, (self.now, memory)),
                Effect::Notice(_, text) => self.log.push(text),
            }
        }
    }

    /// One thing happens: octets arrive somewhere, or time passes.
    pub(crate) fn step(&mut self) {
        let mut choices: Vec<(Instant, Next)> = Vec::new();
        for (dpid, channel) in &self.channels {
            if !self.muted.contains(dpid) {
                choices.extend(channel.to_bridge.due().map(|due| (due, Next::ToBridge(*dpid))));
                choices.extend(channel.to_controller.due().map(|due| (due, Next::ToController(*dpid))));
            }
            choices.push((channel.peer.deadline(), Next::Overdue(*dpid)));
        }
        choices.extend(self.core.deadline(self.now).map(|due| (due, Next::Timer)));
        let next = choices.iter().map(|(due, _)| *due).min().unwrap_or(self.now + Duration::from_millis(100));
        self.now = next.clamp(self.now, self.now + Duration::from_millis(100));
        choices.retain(|(due, _)| *due <= self.now);
        if choices.is_empty() {
            return;
        }
        let (_, next) = choices.swap_remove(self.draw.below(choices.len()));
        match next {
            Next::ToBridge(dpid) => self.at_bridge(dpid),
            Next::ToController(dpid) => self.at_controller(dpid),
            Next::Overdue(dpid) => {
                let channel = self.channels.get_mut(&dpid).unwrap();
                let told = channel.peer.handle_timeout(self.now);
                self.flush(dpid);
                if let Err(close) = told {
                    self.log.push(format!("{dpid}: {close}"));
                    self.disconnect(dpid);
                }
            }
            Next::Timer => self.event(Event::Timer),
        }
    }

    fn at_bridge(&mut self, dpid: DatapathId) {
        let octets = self.channels.get_mut(&dpid).and_then(|channel| channel.to_bridge.take());
        let bridge = self.bridges.get_mut(&dpid).unwrap();
        let out = octets.map(|octets| bridge.receive(&octets)).unwrap_or_default();
        self.flush(dpid);
        out.iter().for_each(|out| self.packet_out(dpid, out));
    }

    /// Octets reach the controller: cut into messages and decoded as its sessions do.
    fn at_controller(&mut self, dpid: DatapathId) {
        let Some(channel) = self.channels.get_mut(&dpid) else { return };
        let (session, octets) = (channel.session, channel.to_controller.take().unwrap_or_default());
        channel.received.extend_from_slice(&octets);
        // Whatever a message leads to may close the connection.
        while let Some(channel) = self.channels.get_mut(&dpid).filter(|channel| channel.session == session) {
            let Some(frame) = next_frame(&mut channel.received).expect("a bridge's messages have lengths") else {
                break;
            };
            let received = channel.peer.handle_frame(self.now, &frame).expect("a bridge's handshake is right");
            let event = match received {
                None => None,
                Some(Received::Ready(identity)) => {
                    channel.ready = true;
                    Some(Event::Connected { session, address: ([127, 0, 0, 1], 1).into(), identity })
                }
                Some(Received::Message(xid, message)) => Some(Event::Message { session, xid, message }),
                Some(other) => panic!("a bridge's messages can be decoded: {other:?}"),
            };
            self.flush(dpid);
            event.into_iter().for_each(|event| self.event(event));
        }
    }

    /// Lets time pass, and whatever happens in it happen.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.core.snapshot(self.now)
    }

    /// Has everything come to rest: is everybody connected, is nothing under way, and does the core think that all is done?
    pub(crate) fn is_quiet(&self) -> bool {
        let idle = |dpid: &DatapathId| {
            let channel = self.channels.get(dpid).filter(|channel| channel.ready);
            channel.is_some_and(|it| it.to_bridge.due().is_none() && it.to_controller.due().is_none())
        };
        let waits = self.core.deadline(self.now).is_none_or(|due| due > self.now);
        waits && self.muted.is_empty() && self.bridges.keys().all(idle) && self.core.situation().converged
    }

    /// Wires that carry frames.
    pub(crate) fn open_wires(&self) -> BTreeMap<Endpoint, (Endpoint, Carrier)> {
        // A cut end carries nothing either way: to nowhere.
        let nowhere = Endpoint { bridge: DatapathId(u64::MAX), port: PortNo(0) };
        let wires = self.wires.iter().map(|(from, (to, carrier))| {
            let open = !self.cut.contains(from) && !self.cut.contains(to);
            (*from, (if open { *to } else { nowhere }, *carrier))
        });
        wires.collect()
    }

    fn packet_out(&mut self, dpid: DatapathId, out: &PacketOut) {
        let (key, port) = match out.actions.as_slice() {
            [Action::SetField(Oxm::TunnelId(key, None)), Action::Output { port, .. }] => (Some(*key), *port),
            [Action::Output { port, .. }] => (None, *port),
            other => panic!("not a probe: {other:?}"),
        };
        assert!(key.is_none_or(|key| key == u64::from(PROBE_KEY)));
        let from = Endpoint { bridge: dpid, port };
        let header = if out.data.0[12..14] == TAG.to_be_bytes() { 18 } else { 14 };
        if self.carries.get(&from).is_some_and(|octets| out.data.0.len() > header + octets) {
            return;
        }
        if let Some((at, carrier)) = self.open_wires().get(&from).copied() {
            self.arrive(at, &out.data.0, key, carrier);
        } else if let Some(other) = self.cables.get(&from).copied()
            && ![from, other].iter().any(|place| self.hung.contains(place) || self.is_down(*place))
        {
            self.arrive(other, &out.data.0, None, Carrier::Vlan);
        }
    }

    fn is_down(&self, place: Endpoint) -> bool {
        self.bridges[&place.bridge].down().contains(&place.port)
    }

    /// All ports without carrier.
    pub(crate) fn down(&self) -> BTreeSet<Endpoint> {
        let of = |bridge: &SimBridge| {
            bridge.down().into_iter().map(|port| Endpoint { bridge: bridge.dpid, port }).collect::<Vec<_>>()
        };
        self.bridges.values().flat_map(of).collect()
    }

    /// A frame comes in at a bridge that may show it to the controller.
    fn arrive(&mut self, at: Endpoint, data: &Bytes, tunnel: Option<u64>, carrier: Carrier) {
        let octets = |from: usize| MacAddr(data[from..from + 6].try_into().unwrap());
        let number = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
        let (tags, ethertype) = if number(12) == TAG { (vec![number(14)], number(16)) } else { (vec![], number(12)) };
        let frame = Frame { destination: octets(0), source: octets(6), ethertype, tags, tunnel, ..Frame::default() };
        let frame = frame.carried(carrier);
        let tunnel = frame.tunnel;
        let Some(bridge) = self.bridges.get_mut(&at.bridge) else { return };
        for output in walk(&bridge.tables.state(), at, &BTreeSet::new(), frame) {
            if let Output::Controller(_, table) = output {
                let fields = [Oxm::InPort(at.port, None)].into_iter().chain(tunnel.map(|key| Oxm::TunnelId(key, None)));
                bridge.answers.push((Xid(0), packet_in(table, Match::new(fields), data.clone())));
            }
        }
        self.flush(at.bridge);
    }

    /// A host sends a frame; the controller hears of it if the bridge shows it.
    pub(crate) fn host_sends(&mut self, at: Endpoint, source: MacAddr) {
        let data: Vec<u8> = [&[0xff; 6][..], &source.0, &[0x88, 0xb5], &[0; 46]].concat();
        self.arrive(at, &Bytes::from(data), None, Carrier::Vlan);
    }

    /// The same with a frame that tells the host's IP address.
    pub(crate) fn host_tells(&mut self, at: Endpoint, source: MacAddr, ip: [u8; 4]) {
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &source.0, &ip, &[0; 10], &[0; 18]].concat();
        let data: Vec<u8> = [&[0xff; 6][..], &source.0, &[8, 6], &arp].concat();
        self.arrive(at, &Bytes::from(data), None, Carrier::Vlan);
    }

    pub(crate) fn states(&self) -> BTreeMap<DatapathId, BridgeState> {
        self.bridges.iter().map(|(dpid, bridge)| (*dpid, bridge.tables.state())).collect()
    }

    pub(crate) fn follow(&self, from: Endpoint, sent: &Frame) -> Journey {
        self.follow_in(&self.states(), from, sent)
    }

    pub(crate) fn follow_in(
        &self,
        states: &BTreeMap<DatapathId, BridgeState>,
        from: Endpoint,
        sent: &Frame,
    ) -> Journey {
        follow(states, &self.open_wires(), &self.down(), from, sent)
    }

    /// An end of a link that a frame is sent over twice from, looking the same, if it enters at a port.
    pub(crate) fn loops(&self, from: Endpoint, sent: &Frame) -> Option<Endpoint> {
        let (wires, down) = (self.open_wires(), self.down());
        let (mut seen, mut queue) = (BTreeSet::new(), vec![(from, sent.clone())]);
        while let Some((at, frame)) = queue.pop() {
            let Some(bridge) = self.bridges.get(&at.bridge) else { continue };
            for output in walk(&bridge.tables.state(), at, &down, frame) {
                let Output::Port(port, frame) = output else { continue };
                let here = Endpoint { bridge: at.bridge, port };
                let Some((there, carrier)) = wires.get(&here) else { continue };
                if !seen.insert((here, frame.clone())) {
                    return Some(here);
                }
                queue.push((*there, frame.carried(*carrier)));
            }
        }
        None
    }

    /// Every port that isn't the end of a wire, with its name.
    pub(crate) fn edge_ports(&self) -> Vec<(Endpoint, String)> {
        let ports = self.bridges.values().flat_map(|bridge| {
            let place = |port: &openflow::port::Port| Endpoint { bridge: bridge.dpid, port: port.number };
            bridge.ports.iter().map(move |port| (place(port), port.name.text().into_owned()))
        });
        ports.filter(|(place, _)| !self.wires.contains_key(place)).collect()
    }

    /// What happened last, for whoever looks for the cause of a failure.
    pub(crate) fn tail(&self) -> String {
        self.log[self.log.len().saturating_sub(60)..].join("\n")
    }
}

fn packet_in(table: TableId, matching: Match, data: Bytes) -> Message {
    assert!([ADMIT, LEARN].contains(&table));
    Message::PacketIn(PacketIn {
        buffer_id: BufferId::NONE,
        total_len: data.len() as u16,
        reason: PacketInReason::Action,
        table,
        cookie: Cookie(0),
        matching,
        data: data.into(),
    })
}
