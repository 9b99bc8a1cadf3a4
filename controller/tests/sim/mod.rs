//! A fabric that isn't there: the real core, bridges that keep their own tables, wires that can be cut, time that goes on
//! when told to. Everything that can come in one order or another comes in an order that the seed draws.

pub(crate) mod bridge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apps::desired::BridgeState;
use apps::interpreter::{Frame, Journey, Output, follow, walk};
use apps::marks::PROBE_KEY;
use apps::pipeline::{ADMIT, LEARN};
use apps::policy::Policy;
use apps::view::{Carrier, Endpoint};
use bytes::Bytes;
use controller::core::{BRIDGES_MAX, Core, Effect, Event, Memory, SessionId, Settings};
use controller::snapshot::{PolicyStatus, Snapshot};
use openflow::action::Action;
use openflow::matching::Match;
use openflow::message::Message;
use openflow::oxm::Oxm;
use openflow::packet::{PacketIn, PacketInReason, PacketOut};
use openflow::port::{PortReason, PortState, PortStatus};
use openflow::types::{BufferId, Cookie, DatapathId, MacAddr, PortNo, TableId, Xid};

use bridge::SimBridge;

/// Nobody has it.
pub(crate) const UNKNOWN: MacAddr = MacAddr([2, 0, 0, 0, 0xff, 0xff]);

/// SplitMix64: a stream of numbers that a seed determines.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % bound.max(1) as u64) as usize
    }
}

pub(crate) fn frame(source: MacAddr, destination: MacAddr) -> Frame {
    Frame { destination, source, ethertype: 0x88b5, ..Frame::default() }
}

/// See the module's text.
pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) now: Instant,
    pub(crate) draw: Draw,
    pub(crate) bridges: BTreeMap<DatapathId, SimBridge>,
    pub(crate) wires: BTreeMap<Endpoint, (Endpoint, Carrier)>,
    /// Ends of wires that carry nothing at the moment.
    pub(crate) cut: BTreeSet<Endpoint>,
    /// Bridges whose channel is open but carries nothing.
    pub(crate) muted: BTreeSet<DatapathId>,
    memory: Memory,
    policy: Arc<Policy>,
    sessions: u64,
    pub(crate) log: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, policy: Policy) -> Self {
        let now = Instant::now();
        let settings = Settings { probe_key: [1; 32], memory: Memory::default(), bridges_max: BRIDGES_MAX };
        let mut world = Self {
            core: Core::new(now, settings),
            now,
            draw: Draw(seed),
            bridges: BTreeMap::new(),
            wires: BTreeMap::new(),
            cut: BTreeSet::new(),
            muted: BTreeSet::new(),
            memory: Memory::default(),
            policy: Arc::new(policy),
            sessions: 0,
            log: Vec::new(),
        };
        let policy = world.policy.clone();
        world.event(Event::Policy(policy, PolicyStatus::default()));
        world
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.policy = Arc::new(policy);
        let policy = self.policy.clone();
        self.event(Event::Policy(policy, PolicyStatus::default()));
    }

    pub(crate) fn add_bridge(&mut self, dpid: u64, ports: &[&str]) {
        let mut bridge = SimBridge::new(dpid);
        for name in ports {
            bridge.add_port(name);
        }
        self.bridges.insert(bridge.dpid, bridge);
    }

    pub(crate) fn add_wire(&mut self, a: u64, b: u64, carrier: Carrier) {
        let mut end = |dpid: u64| {
            let bridge = self.bridges.get_mut(&DatapathId(dpid)).unwrap();
            let port = bridge.add_port(&format!("link{}", bridge.ports.len() + 1));
            Endpoint { bridge: DatapathId(dpid), port }
        };
        let (a, b) = (end(a), end(b));
        self.wires.insert(a, (b, carrier));
        self.wires.insert(b, (a, carrier));
    }

    /// A new controller with what the old one kept.
    pub(crate) fn restart_core(&mut self) {
        for dpid in self.bridges.keys().copied().collect::<Vec<_>>() {
            let bridge = self.bridges.get_mut(&dpid).unwrap();
            bridge.session = None;
            bridge.to_core.clear();
            // What was on its way may have arrived or not.
            let keep = self.draw.below(bridge.to_bridge.len() + 1);
            bridge.to_bridge.truncate(keep);
            self.drain(dpid);
        }
        self.core =
            Core::new(self.now, Settings { probe_key: [2; 32], memory: self.memory.clone(), bridges_max: BRIDGES_MAX });
        let policy = self.policy.clone();
        self.event(Event::Policy(policy, PolicyStatus::default()));
    }

    /// The bridge does what it has got, without answering anybody.
    fn drain(&mut self, dpid: DatapathId) {
        let bridge = self.bridges.get_mut(&dpid).unwrap();
        while let Some((xid, message)) = bridge.to_bridge.pop_front() {
            bridge.obey(xid, message);
        }
        bridge.to_core.clear();
    }

    pub(crate) fn connect(&mut self, dpid: DatapathId) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let bridge = self.bridges.get_mut(&dpid).unwrap();
        if bridge.session.is_some() {
            return;
        }
        bridge.session = Some(session);
        let identity = bridge.identity();
        self.event(Event::Connected { session, address: "127.0.0.1:1".parse().unwrap(), identity });
    }

    /// The channel breaks; a part of what was on its way still arrives at the bridge.
    pub(crate) fn disconnect(&mut self, dpid: DatapathId) {
        let bridge = self.bridges.get_mut(&dpid).unwrap();
        let Some(session) = bridge.session.take() else { return };
        let keep = self.draw.below(bridge.to_bridge.len() + 1);
        bridge.to_bridge.truncate(keep);
        self.drain(dpid);
        self.event(Event::Disconnected { session });
    }

    /// The bridge begins anew with empty tables.
    pub(crate) fn empty(&mut self, dpid: DatapathId) {
        self.disconnect(dpid);
        self.bridges.get_mut(&dpid).unwrap().state.clear();
    }

    pub(crate) fn set_port_up(&mut self, place: Endpoint, up: bool) {
        let bridge = self.bridges.get_mut(&place.bridge).unwrap();
        let port = bridge.ports.iter_mut().find(|port| port.number == place.port).unwrap();
        port.state = if up { PortState::LIVE } else { PortState::LINK_DOWN };
        let status = PortStatus { reason: PortReason::Modify, port: port.clone() };
        if bridge.session.is_some() {
            bridge.to_core.push_back((Xid(0), Message::PortStatus(status)));
        }
        if up {
            self.cut.remove(&place)
        } else {
            self.cut.insert(place)
        };
    }

    fn event(&mut self, event: Event) {
        for effect in self.core.handle(self.now, event) {
            match effect {
                Effect::Send { session, messages } => {
                    let bridge = self.bridges.values_mut().find(|bridge| bridge.session == Some(session));
                    if let Some(bridge) = bridge {
                        bridge.to_bridge.extend(messages);
                    }
                }
                Effect::Close { session, reason } => {
                    self.log.push(format!("closes {session:?}: {reason}"));
                    let dpid = self.bridges.values().find(|bridge| bridge.session == Some(session)).map(|b| b.dpid);
                    if let Some(dpid) = dpid {
                        self.disconnect(dpid);
                    }
                }
                Effect::Save(memory) => self.memory = memory,
                Effect::Notice(_, text) => self.log.push(text),
            }
        }
    }

    /// One thing happens: a message arrives somewhere, or time passes.
    pub(crate) fn step(&mut self) {
        let mut choices: Vec<(bool, DatapathId)> = Vec::new();
        let muted = &self.muted;
        let open = |bridge: &&SimBridge| bridge.session.is_some() && !muted.contains(&bridge.dpid);
        for bridge in self.bridges.values().filter(open) {
            choices.extend((!bridge.to_bridge.is_empty()).then_some((true, bridge.dpid)));
            choices.extend((!bridge.to_core.is_empty()).then_some((false, bridge.dpid)));
        }
        let due = self.core.deadline(self.now).filter(|due| *due <= self.now);
        let pick = self.draw.below(choices.len() + usize::from(due.is_some()));
        match choices.get(pick) {
            Some((true, dpid)) => {
                let bridge = self.bridges.get_mut(dpid).unwrap();
                let (xid, message) = bridge.to_bridge.pop_front().unwrap();
                if let Some(out) = bridge.obey(xid, message) {
                    self.packet_out(*dpid, &out);
                }
            }
            Some((false, dpid)) => {
                let bridge = self.bridges.get_mut(dpid).unwrap();
                let (xid, message) = bridge.to_core.pop_front().unwrap();
                let session = bridge.session.unwrap();
                self.event(Event::Message { session, xid, message });
            }
            None if due.is_some() => self.event(Event::Timer),
            // Nothing is on its way: on to the next thing that is waited for.
            None => {
                let next = self.core.deadline(self.now).unwrap_or(self.now + Duration::from_millis(100));
                self.now = next.clamp(self.now, self.now + Duration::from_millis(100));
                self.event(Event::Timer);
            }
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
        let [Action::SetField(Oxm::TunnelId(key, None)), Action::Output { port, .. }] = out.actions.as_slice() else {
            panic!("not a probe: {:?}", out.actions)
        };
        assert_eq!(*key, u64::from(PROBE_KEY));
        let from = Endpoint { bridge: dpid, port: *port };
        let Some((at, carrier)) = self.open_wires().get(&from).copied() else { return };
        self.arrive(at, &out.data.0, Some(*key), carrier);
    }

    /// A frame comes in at a bridge that may show it to the controller.
    pub(crate) fn arrive(&mut self, at: Endpoint, data: &Bytes, tunnel: Option<u64>, carrier: Carrier) {
        let octets = |from: usize| MacAddr(data[from..from + 6].try_into().unwrap());
        let ethertype = u16::from_be_bytes([data[12], data[13]]);
        let frame = Frame { destination: octets(0), source: octets(6), ethertype, tunnel, ..Frame::default() };
        let frame = frame.carried(carrier);
        let tunnel = frame.tunnel;
        let Some(bridge) = self.bridges.get_mut(&at.bridge).filter(|bridge| bridge.session.is_some()) else { return };
        for output in walk(&bridge.state, at, &BTreeSet::new(), frame) {
            if let Output::Controller(_, table) = output {
                let fields = [Oxm::InPort(at.port, None)].into_iter().chain(tunnel.map(|key| Oxm::TunnelId(key, None)));
                let packet = packet_in(table, Match::new(fields), data.clone());
                bridge.to_core.push_back((Xid(0), packet));
            }
        }
    }

    /// A host sends a frame; the controller hears of it if the bridge shows it.
    pub(crate) fn host_sends(&mut self, at: Endpoint, source: MacAddr) {
        let data: Vec<u8> = [&[0xff; 6][..], &source.0, &[0x88, 0xb5], &[0; 46]].concat();
        self.arrive(at, &Bytes::from(data), None, Carrier::Vlan);
    }

    pub(crate) fn states(&self) -> BTreeMap<DatapathId, BridgeState> {
        self.bridges.iter().map(|(dpid, bridge)| (*dpid, bridge.state.clone())).collect()
    }

    pub(crate) fn follow(&self, from: Endpoint, sent: &Frame) -> Journey {
        follow(&self.states(), &self.open_wires(), &BTreeSet::new(), from, sent)
    }

    /// Every port that isn't the end of a wire, with the tenant that its name tells.
    pub(crate) fn edge_ports(&self) -> Vec<(Endpoint, Option<String>)> {
        let ports = self.bridges.values().flat_map(|bridge| {
            let place = |port: &openflow::port::Port| Endpoint { bridge: bridge.dpid, port: port.number };
            bridge.ports.iter().map(move |port| (place(port), port.name.text().into_owned()))
        });
        ports
            .filter(|(place, _)| !self.wires.contains_key(place))
            .map(|(place, name)| (place, name.split_once('-').map(|(tenant, _)| tenant.to_owned())))
            .collect()
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
