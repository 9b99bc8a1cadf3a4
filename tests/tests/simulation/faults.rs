//! A network that is drawn from a seed, and what goes wrong in it.

use std::sync::Arc;
use std::time::Duration;

use apps::desired::BridgeState;
use apps::policy::{FunctionKind, Glob, LinkSelector, Origin};
use apps::reconcile::same;
use apps::view::Endpoint;
use openflow::types::{DatapathId, MacAddr};

use crate::bridge::{Kind, SimBridge};
use crate::fabric::{Draw, Fabric};
use crate::judge::{Extent, Judge};
use crate::pipe::NEAR;
use crate::world::World;

/// How much virtual time may pass until all is right again: a bridge that refused changes rests for a minute at most.
const BOUND: Duration = Duration::from_secs(120);

/// A network with what is wanted of it.
pub(crate) struct Network {
    pub(crate) world: World,
    pub(crate) fabric: Fabric,
    pub(crate) judge: Judge,
    /// What is drawn for this; the order in which things arrive is drawn by the world.
    pub(crate) draw: Draw,
    /// What has happened so far, for whoever reads of a failure.
    pub(crate) about: String,
    /// What the tables were when it was last looked where frames go.
    looked: u64,
}

impl Network {
    /// Every other one has service functions, chains and rules.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let mut fabric = Fabric::draw(&mut draw);
        if seed % 2 == 1 {
            fabric.draw_services(&mut draw);
        }
        let probes = "version = 1\n[fabric]\nprobe_interval = \"200ms\"";
        fabric.policy.fabric = crate::policy(probes).fabric;
        let mut world = World::new(seed ^ 0x5eed, fabric.policy.clone());
        for dpid in fabric.view.bridges.keys() {
            let kind = if draw.below(2) == 0 { Kind::OpenVswitch } else { Kind::Plain };
            world.bridges.insert(*dpid, SimBridge::new(*dpid, kind));
        }
        world.wires = fabric.wires.clone();
        let judge = Judge::new(&fabric);
        let about = format!("seed {seed}");
        let mut network = Self { world, fabric, judge, draw, about, looked: 0 };
        network.follow_fabric();
        network
    }

    /// One thing happens. What tables hold only for a moment is looked at, too, if not from everywhere.
    pub(crate) fn step(&mut self) {
        self.world.step();
        let version = self.world.version();
        if version != self.looked && self.draw.below(2) == 0 {
            self.looked = version;
            self.check(Extent::Some);
        } else if self.draw.below(100) == 0 {
            self.check(Extent::All);
        }
    }

    /// Lets time pass, and whatever happens in it happen.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.world.now + duration;
        while self.world.now < end {
            self.step();
        }
    }

    pub(crate) fn dpids(&self) -> Vec<DatapathId> {
        self.world.bridges.keys().copied().collect()
    }

    /// Ports are as the drawing says, and functions cabled.
    fn follow_fabric(&mut self) {
        for (dpid, view) in &self.fabric.view.bridges {
            let bridge = self.world.bridges.get_mut(dpid).unwrap();
            for (number, port) in &view.ports {
                let place = Endpoint { bridge: *dpid, port: *number };
                if !self.world.wires.contains_key(&place) || !bridge.ports.iter().any(|it| it.number == *number) {
                    bridge.set_port(*number, &port.name, port.up);
                }
            }
            self.world.flush(*dpid);
        }
        for (place, (_, function, instance)) in &self.fabric.functions {
            if matches!(function.kind, FunctionKind::Wire | FunctionKind::Hairpin) {
                let name = &self.fabric.view.bridges[&place.bridge].ports[&place.port].name;
                let other = if *name == instance.ingress { &instance.egress } else { &instance.ingress };
                let ports = &self.fabric.view.bridges[&place.bridge].ports;
                let port = *ports.iter().find(|(_, view)| view.name == *other).unwrap().0;
                self.world.cables.insert(*place, Endpoint { bridge: place.bridge, port });
            }
        }
        self.world.hung = self.fabric.view.failed.clone();
    }

    /// Something else is wanted.
    fn wants(&mut self) {
        self.judge.wanted(&self.fabric);
        self.follow_fabric();
        self.world.set_policy(self.fabric.policy.clone());
    }

    fn some_wire(&mut self) -> Option<Endpoint> {
        let ends: Vec<Endpoint> = self.world.wires.keys().copied().collect();
        ends.get(self.draw.below(ends.len().max(1))).copied()
    }

    /// Something goes wrong, or is put right, or is wanted otherwise: what it was is the answer.
    pub(crate) fn disturb(&mut self) -> String {
        let dpids = self.dpids();
        let dpid = dpids[self.draw.below(dpids.len())];
        let fault = self.draw.below(25);
        if !matches!(fault, 0..=3 | 6 | 9 | 12 | 17..=19 | 23 | 24) {
            // Frames may be lost by it.
            self.judge.known = None;
        }
        match fault {
            0 => {
                self.world.disconnect(dpid);
                format!("{dpid} loses its connection")
            }
            1..=3 => {
                dpids.iter().for_each(|dpid| self.world.connect(*dpid));
                "all connect".to_owned()
            }
            4 => {
                let Some(end) = self.some_wire() else { return "nothing".to_owned() };
                self.judge.impaired = true;
                if !self.world.cut.remove(&end) {
                    self.world.cut.insert(end);
                }
                format!("the wire at {end} is cut or mended")
            }
            5 => {
                let Some(end) = self.some_wire() else { return "nothing".to_owned() };
                self.judge.impaired = true;
                let up = self.world.cut.contains(&end);
                // Some go down and up again faster than anybody can follow.
                for _ in 0..self.draw.below(4) {
                    self.world.set_port_up(end, !up);
                    self.world.set_port_up(end, up);
                }
                self.world.set_port_up(end, up);
                format!("{end} goes {}", if up { "up" } else { "down" })
            }
            6 => {
                (self.judge.impaired, self.judge.silent) = (true, true);
                self.world.unheard.insert(dpid);
                if !self.world.muted.remove(&dpid) {
                    self.world.muted.insert(dpid);
                }
                let pause = Duration::from_millis(self.draw.below(1500) as u64);
                self.run(pause);
                format!("the connection of {dpid} carries nothing, or again something")
            }
            7 => {
                self.world.empty(dpid);
                format!("{dpid} begins anew with empty tables")
            }
            8 => {
                let slow = self.draw.below(400) as u64;
                let Some(channel) = self.world.channels.get_mut(&dpid) else { return "nothing".to_owned() };
                (self.judge.impaired, self.judge.silent) = (true, true);
                channel.to_bridge.delay = Duration::from_millis(slow);
                channel.to_controller.delay = Duration::from_millis(slow);
                format!("{dpid} answers within {slow} ms")
            }
            9 => {
                self.world.unheard.insert(dpid);
                self.world.bridges.get_mut(&dpid).unwrap().loses_barriers = 1;
                format!("{dpid} leaves a barrier unanswered")
            }
            10 => {
                (self.judge.impaired, self.judge.silent) = (true, true);
                let room = self.draw.below(6);
                let tables = &mut self.world.bridges.get_mut(&dpid).unwrap().tables;
                tables.room = if tables.room == usize::MAX { tables.flows().len() + room } else { usize::MAX };
                format!("{dpid} has room for {} entries", tables.room)
            }
            11 => {
                self.crash();
                "the controller starts anew".to_owned()
            }
            12 => {
                self.world.by_itself(dpid, |tables| tables.idle(&mut self.draw));
                format!("a host at {dpid} is silent for long")
            }
            20 => {
                self.world.bridges.get_mut(&dpid).unwrap().undone = true;
                format!("somebody meddles with {dpid}: the next way goes as soon as it comes")
            }
            21 | 22 => {
                // Probes may end there as well.
                (self.judge.impaired, self.judge.meddled) = (true, Some(self.world.now));
                let what = self.world.by_itself(dpid, |tables| tables.meddle(&mut self.draw));
                format!("somebody meddles with {dpid}: {what}")
            }
            23 | 24 => self.drain(),
            13 => self.hand_over(),
            14..=16 => self.change_services(),
            _ => self.host_sends(),
        }
    }

    /// The controller dies, and comes back with what it has on its disk; the bridges come back to it.
    fn crash(&mut self) {
        let connected: Vec<DatapathId> = self.world.channels.keys().copied().collect();
        self.world.restart_core();
        for dpid in connected {
            let pause = Duration::from_millis(self.draw.below(700) as u64);
            self.run(pause);
            self.world.connect(dpid);
        }
    }

    /// A link is to carry nothing, or all may be used again.
    fn drain(&mut self) -> String {
        let Some(end) = self.some_wire() else { return "nothing".to_owned() };
        let name = &self.fabric.view.bridges[&end.bridge].ports[&end.port].name;
        let (bridge, port) = (Glob::new(&end.bridge.to_string()), Glob::new(name));
        let origin = Origin { file: Arc::from("drawn"), line: 1 };
        let drain = &mut self.fabric.policy.fabric.drain;
        if self.draw.below(3) == 0 {
            drain.clear();
        } else {
            drain.push(LinkSelector { bridge, port, origin });
        }
        self.wants();
        format!("{end} is to be drained, or nothing any more")
    }

    /// A port's number goes to a port of another tenant, also where its bridge isn't connected, which then goes on by what was
    /// made for the former one until it is back.
    fn hand_over(&mut self) -> String {
        let ports = self.fabric.tenant_ports();
        let Some((place, _)) = ports.get(self.draw.below(ports.len().max(1))) else { return "nothing".to_owned() };
        let what = self.fabric.hand_over(*place, &mut self.draw);
        self.wants();
        what
    }

    fn change_services(&mut self) -> String {
        if self.fabric.policy.tenants.iter().any(|tenant| tenant.functions.is_empty()) {
            return "nothing".to_owned();
        }
        let what = self.fabric.change_services(&mut self.draw);
        if what.contains("chains") {
            self.judge.redrawn.extend(what.split_whitespace().next().map(str::to_owned));
        }
        self.judge.impaired |= what.contains("down") || what.contains("hangs");
        self.wants();
        what
    }

    /// A host sends; sometimes with another's address: it moves.
    fn host_sends(&mut self) -> String {
        let ports = self.fabric.tenant_ports();
        let Some((place, tenant)) = ports.get(self.draw.below(ports.len().max(1))).cloned() else {
            return "nothing".to_owned();
        };
        let hosts = self.fabric.hosts(&tenant);
        let own = hosts.iter().find(|(_, host)| host.place == place).map(|(mac, _)| *mac);
        let any = hosts.keys().nth(self.draw.below(hosts.len().max(1))).copied();
        let fresh = MacAddr([2, 0, 0, 7, place.bridge.0 as u8, place.port.0 as u8]);
        let mac = if self.draw.below(4) == 0 { any } else { own }.unwrap_or(fresh);
        let known = self.judge.known.as_ref().and_then(|known| known.get(&tenant));
        let elsewhere = known.is_some_and(|hosts| hosts.iter().any(|(known, at)| *known == mac && *at != place));
        if elsewhere || (own != Some(mac) && mac != fresh) {
            self.judge.claimed(self.world.now);
        }
        self.world.host_sends(place, mac);
        format!("{place} sends from {mac}")
    }

    /// Every host sends, some of them after others had their addresses.
    pub(crate) fn all_send(&mut self) {
        self.judge.claimed(self.world.now);
        for tenant in self.fabric.tenants() {
            for (mac, host) in self.fabric.hosts(&tenant) {
                self.world.host_sends(host.place, mac);
            }
        }
        self.run(Duration::from_secs(1));
    }

    pub(crate) fn check(&mut self, extent: Extent) {
        self.judge.impaired |= !self.world.unheard.is_empty();
        self.judge.silent |= !self.world.unheard.is_empty();
        if self.is_settled() {
            self.settled();
        }
        let (judge, world, about) = (&self.judge, &self.world, &self.about);
        judge.check_plain(world, &mut self.draw, extent, about);
        judge.check_chains(world, &mut self.draw, extent, about);
        judge.check_known(world, &mut self.draw, extent, about);
    }

    fn settled(&mut self) {
        self.judge.settled(&self.world);
        self.world.unheard = self.world.muted.clone();
    }

    /// What is broken is put right; then all has to come right within a bound.
    pub(crate) fn heal(&mut self) {
        self.fabric = self.fabric.working();
        self.fabric.policy.fabric.drain.clear();
        self.wants();
        self.world.muted.clear();
        for end in self.world.wires.keys().copied().collect::<Vec<_>>() {
            self.world.set_port_up(end, true);
        }
        for bridge in self.world.bridges.values_mut() {
            (bridge.tables.room, bridge.loses_barriers, bridge.undone) = (usize::MAX, 0, false);
        }
        for channel in self.world.channels.values_mut() {
            (channel.to_bridge.delay, channel.to_controller.delay) = (NEAR, NEAR);
        }
        let end = self.world.now + BOUND;
        while self.world.now < end {
            self.dpids().into_iter().for_each(|dpid| self.world.connect(dpid));
            self.run(Duration::from_millis(100));
            if self.is_settled() && self.world.snapshot().status.links.up * 2 == self.world.wires.len() {
                return self.settled();
            }
        }
        let (status, other) = (self.world.snapshot().status, self.differing());
        let about = &self.about;
        panic!("{about}: doesn't converge; other than desired: {other:?}; {status:#?}\n{}", self.world.tail());
    }

    /// Bridges that hold something else than is desired.
    fn differing(&self) -> Vec<DatapathId> {
        let (desired, nothing) = (self.world.core.situation().tables, BridgeState::new());
        let differs = |(dpid, bridge): &(&DatapathId, &SimBridge)| {
            !same(&bridge.tables.read_back(), desired.get(dpid).unwrap_or(&nothing))
        };
        self.world.bridges.iter().filter(differs).map(|(dpid, _)| *dpid).collect()
    }

    /// Has everything come to rest, and do bridges hold what is desired, nothing else and nothing less?
    fn is_settled(&self) -> bool {
        self.world.is_quiet() && self.differing().is_empty()
    }
}
