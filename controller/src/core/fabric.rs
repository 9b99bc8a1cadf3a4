//! The fabric as the compiler sees it, kept up to date: bridges that come and go, their ports, links, and what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use apps::attachment::{PortUse, attach, bridge_names};
use apps::compile;
use apps::marks::{Owner, PROBE_KEY};
use apps::reconcile;
use apps::tenants;
use apps::view::{self, Endpoint, Held, Link, PortView};
use apps::withhold::{self, Needs, Reluctance};
use openflow::action::Action;
use openflow::message::Message;
use openflow::oxm::Oxm;
use openflow::packet::PacketOut;
use openflow::peer::Identity;
use openflow::switch::Role;
use openflow::types::{DatapathId, Xid};
use openflow::wire::Nothing;

use super::bridge::{Bridge, Connection, PortRecord};
use super::damping::HOLD;
use super::leading::Rank;
use super::moves::is_usable;
use super::polling;
use super::probe::Probe;
use super::rounds::ACKNOWLEDGE;
use super::topology::State;
use super::{Core, Effect, Level, SessionId, Settled};

/// Ports that nobody gets, as far as the log tells; the status tells of all.
const PROBLEMS_TOLD: usize = 20;

/// What Open vSwitch says where nobody gave a bridge a name (`other_config:dp-desc`, ovs-vswitchd.conf.db(5)).
const UNNAMED: &str = "None";

/// A bridge that is expected to say something is silent for at least so long before it counts as one that doesn't answer:
/// a channel may well stall for as long as TCP takes to send again what was lost.
const SILENT: Duration = Duration::from_millis(500);

impl Core {
    pub(super) fn connected(&mut self, now: Instant, session: SessionId, address: SocketAddr, identity: Identity) {
        let dpid = identity.features.datapath;
        if !self.has_room(dpid) {
            let reason = format!(
                "there are {} bridges already, and the policy doesn't name this one; look who connects to the OpenFlow \
                 port, or name it",
                self.bridges.len()
            );
            self.effects.push(Effect::Close { session, reason });
            return;
        }
        if let Some(old) = self.bridges.get(&dpid).and_then(|bridge| bridge.connection.as_ref()) {
            self.disconnected(now, old.session);
        }
        self.sessions.insert(session, dpid);
        let bridge = self.bridges.entry(dpid).or_default();
        let is_new = bridge.came.is_none();
        bridge.came.get_or_insert(now);
        bridge.told = identity.desc.map(|desc| desc.datapath.text().into_owned()).unwrap_or_default();
        if bridge.told == UNNAMED {
            bridge.told.clear();
        }
        let others = bridge.set_ports(identity.ports);
        let role = identity.role;
        let tables = identity.features.n_tables;
        let rank = Rank::new(now, identity.generation);
        bridge.connection = Some(Connection { tables, rank, ..Connection::new(now, session, address, role) });
        if is_new {
            self.look_for_former_self(now, dpid);
        }
        self.name_bridges();
        // Ahead of all that it is sent.
        self.greet(now, dpid);
        self.numbers_passed(now, dpid, &others);
        let name = self.bridges.get(&dpid).map(|bridge| bridge.name.clone()).unwrap_or_default();
        self.notice_of(now, dpid, Level::Info, &format!("bridge {name} ({dpid}) connected from {address}"));
        // Before we lead it, nothing of it has to be known.
        if self
            .bridges
            .get(&dpid)
            .and_then(|bridge| bridge.connection.as_ref())
            .is_some_and(|it| it.role != Role::Slave)
        {
            self.read_tables(now, dpid);
        }
    }

    /// Another controller is a bridge's master. Until it connects again we write nothing to it.
    pub(super) fn only_reads(&mut self, now: Instant, dpid: DatapathId) {
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let name = &bridge.name;
        let text = format!(
            "bridge {name} lets us only read: another controller is its master; remove that controller \
             (ovs-vsctl get-controller) or stop it, then let the bridge connect again"
        );
        bridge.trouble = Some(text.clone());
        if let Some(connection) = &mut bridge.connection {
            connection.role = Role::Slave;
        }
        self.notice_of(now, dpid, Level::Warning, &text);
    }

    /// Asks a bridge for all that its tables hold, unless it has to rest; it counts as answering when that is known.
    pub(super) fn read_tables(&mut self, now: Instant, dpid: DatapathId) {
        let Some(bridge) = self.bridges.get_mut(&dpid).filter(|bridge| bridge.rests_until.is_none()) else { return };
        let Some(session) = bridge.connection.as_ref().map(|connection| connection.session) else { return };
        let messages = bridge.start_reading(now);
        self.effects.push(Effect::Send { session, messages });
    }

    /// The last answer about a bridge's tables is here.
    pub(super) fn tables_read(&mut self, now: Instant, dpid: DatapathId) {
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        bridge.recall_stations();
        let others = bridge.strangers();
        self.refresh(now);
        self.numbers_passed(now, dpid, &others);
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let attachments = &self.attachments;
        let is_link = |port| *attachments.of(Endpoint { bridge: dpid, port }) == PortUse::Candidate;
        reconcile::recognise_ways(&mut bridge.installed, is_link);
        (bridge.unjudged, bridge.is_back) = (true, true);
        self.rounds.two_trees.extend(bridge.installed.keys());
        let config = (bridge.next_xid(), polling::config());
        let session = bridge.connection.as_ref().map(|connection| connection.session);
        self.effects.extend(session.map(|session| Effect::Send { session, messages: vec![config] }));
        self.rounds.found_again.clear();
        let mut hosts = bridge.hosts(dpid);
        let addresses = self.kept_addresses(dpid);
        // Where there are more than there may be, those stay that sent something lately.
        hosts.sort_by_key(|(.., host)| !host.fresh);
        for (key, mac, host) in hosts {
            let Some(name) = self.tenant_of(Owner(key)) else { continue };
            let Some(tenant) = self.policy.tenants.iter().find(|tenant| tenant.name == name) else { continue };
            let pinned = tenant.ports.iter().any(|selector| selector.mac == Some(mac));
            if !pinned && self.attachments.tenant(host.place).is_some_and(|attached| attached.tenant == name) {
                let ips = addresses.get(&(name.to_owned(), mac, host.place.port)).cloned().unwrap_or_default();
                self.hosts.recover(now, &tenant.name, mac, host, ips, tenant.max_hosts);
            }
        }
        // What was up before is presumed to be up still, until probes tell otherwise.
        let answers = |dpid: DatapathId| self.bridges.get(&dpid).is_some_and(Bridge::is_responsive);
        let back = |held: &Held| answers(held.link.a.bridge) && answers(held.link.b.bridge);
        let back: Vec<Held> = self.held.values().filter(|held| back(held)).cloned().collect();
        for held in back {
            let link = held.link;
            self.held.remove(&(link.a, link.b));
            if held.up {
                self.topology.presume(now, link);
            }
        }
        self.links_changed(now);
        self.rounds.all_dirty = true;
    }

    pub(super) fn disconnected(&mut self, now: Instant, session: SessionId) {
        let Some(dpid) = self.sessions.remove(&session) else { return };
        let ours = |bridge: &Bridge| bridge.connection.as_ref().is_some_and(|connection| connection.session == session);
        if !self.bridges.get(&dpid).is_some_and(ours) {
            return;
        }
        self.lost(now, dpid);
        if let Some(bridge) = self.bridges.get_mut(&dpid) {
            bridge.connection = None;
            bridge.left = Some(now);
            let name = &bridge.name;
            let text = format!("bridge {name} ({dpid}) is no longer connected; it goes on forwarding as it was told");
            self.notice_of(now, dpid, Level::Warning, &text);
        }
        self.forget_stranger(dpid);
        self.refresh(now);
    }

    pub(super) fn name_bridges(&mut self) {
        let told = self.bridges.iter().map(|(dpid, bridge)| (*dpid, bridge.told.clone())).collect();
        for (dpid, name) in bridge_names(&self.policy, &told) {
            if let Some(bridge) = self.bridges.get_mut(&dpid) {
                bridge.name = name;
            }
        }
    }

    /// Bridges, ports or the policy changed.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.refresh_due = false;
        self.name_bridges();
        let known = self.bridges.iter().filter(|(_, bridge)| bridge.was_read);
        self.view.bridges = known
            .map(|(dpid, bridge)| {
                let port = |port: &PortRecord| PortView {
                    name: port.port.name.text().into_owned(),
                    up: port.is_up(),
                    behind: port.behind,
                    shut: self.loops.is_shut(Endpoint { bridge: *dpid, port: port.port.number }),
                };
                let ports = bridge.ports.iter().map(|(number, record)| (*number, port(record))).collect();
                (*dpid, view::Bridge { name: bridge.name.clone(), responsive: bridge.is_responsive(), ports })
            })
            .collect();
        let keeps = self.bridges.iter().filter(|(_, bridge)| bridge.was_read && !bridge.is_responsive());
        self.view.kept = keeps.map(|(dpid, bridge)| (*dpid, bridge.kept())).collect();
        self.attachments = attach(&self.policy, &self.view);
        for problem in self.attachments.problems.iter().take(PROBLEMS_TOLD).cloned().collect::<Vec<_>>() {
            self.notice(now, Level::Warning, &problem.text);
        }
        self.refresh_loops();
        let probed = self.set_probed(now);
        self.try_ports(now, &probed);
        self.refresh_health(now);
        // Hosts stay while their port is the tenant's and isn't known to be down.
        let (attachments, view) = (&self.attachments, &self.view);
        self.hosts.retain(|tenant, place| is_usable(attachments, view, tenant, place));
        self.remember(&[]);
        self.links_changed(now);
        self.rounds.all_dirty = true;
    }

    /// Says which ports send probes: those that may be links, and those of tenants that may be joined.
    pub(super) fn set_probed(&mut self, now: Instant) -> BTreeSet<Endpoint> {
        let is_up = |place: &Endpoint| {
            let bridge = self.view.bridges.get(&place.bridge).filter(|bridge| bridge.responsive);
            bridge.and_then(|bridge| bridge.ports.get(&place.port)).is_some_and(|port| port.up)
        };
        let candidates = self.attachments.ports.keys().copied().filter(|place| self.attachments.is_probed(*place));
        let joined = self.loops.probed().filter(|place| self.attachments.tenant(*place).is_some());
        let probed: BTreeSet<Endpoint> = candidates.chain(joined).filter(is_up).collect();
        self.loops.excuse(now, |place| probed.contains(&place) && self.topology.sends(place));
        self.topology.set_senders(now, &probed);
        probed
    }

    /// Keeps in mind how a bridge that no longer answers was linked.
    pub(super) fn hold_links(&mut self, dpid: DatapathId) {
        let Some(bridge) = self.bridges.get(&dpid) else { return };
        let floods = bridge.floods();
        let trees = |port| floods.get(&port).cloned().unwrap_or_default();
        for held in self.held.values_mut() {
            if let Some((here, _)) = held.link.at(dpid) {
                let now = trees(here.port);
                held.trees.retain(|key| now.contains(key));
            }
        }
        // Links that are down count as well: the bridge may still flood over them, and they may only seem to be down.
        for (&(a, b), known) in self.topology.known() {
            let link = Link { a, b, carrier: known.carrier };
            let Some((here, _)) = link.at(dpid) else { continue };
            let held = Held { link, trees: trees(here.port), up: known.is_up() };
            if held.up || !held.trees.is_empty() {
                self.held.entry((a, b)).or_insert(held);
            }
        }
        let ports: Vec<_> = bridge.ports.keys().copied().collect();
        for port in ports {
            self.topology.silence(Endpoint { bridge: dpid, port });
        }
    }

    /// Looks which links are up now.
    pub(super) fn links_changed(&mut self, now: Instant) {
        let exists = |place: Endpoint| {
            self.bridges.get(&place.bridge).is_some_and(|bridge| bridge.ports.contains_key(&place.port))
        };
        self.held.retain(|_, held| exists(held.link.a) && exists(held.link.b));
        // A port that its bridge says is down carries nothing, whatever the silent bridge at the other end may do.
        let down = |place: Endpoint| {
            let bridge = self.bridges.get(&place.bridge).filter(|bridge| bridge.is_responsive());
            bridge.and_then(|bridge| bridge.ports.get(&place.port)).is_some_and(|port| !port.is_up())
        };
        let usable = |held: &Held| Held { up: held.up && !down(held.link.a) && !down(held.link.b), ..held.clone() };
        let held: Vec<Held> = self.held.values().map(usable).collect();
        let unknown = held.iter().filter(|held| held.up).map(|held| (held.link.a, held.link.b)).collect();
        let links = self.topology.links(now, &unknown);
        let instead = self.drop_superseded(&links.up);
        let held = held.into_iter().filter(|it| self.held.contains_key(&(it.link.a, it.link.b)));
        let held: Vec<Held> = held.map(|held| self.still_used(held)).collect();
        let other_held = self.view.held != held;
        self.view.held = held;
        let (used, withheld) = self.withhold(now, &links.up);
        self.topology.withhold(&withheld);
        self.view.withheld = withheld;
        let down = self.topology.known().iter().filter(|(_, known)| known.state == State::Down);
        self.view.down = down.map(|(&(a, b), known)| Link { a, b, carrier: known.carrier }).collect();
        let name = |link: &Link| format!("link {} – {}", self.port_name(link.a), self.port_name(link.b));
        let mut notices = Vec::new();
        for (link, damped) in &links.came {
            notices.push((Level::Info, format!("{} ({}) is up", name(link), link.carrier)));
            // Told when it begins; the status tells the rest.
            if *damped == Some(HOLD) {
                let text = format!(
                    "{} goes down again and again: each time it has to stay up for longer before it is used, unless there \
                     is no other way; look at the ports and the cable or path between them",
                    name(link)
                );
                notices.push((Level::Warning, text));
            }
        }
        let went = links.went.iter().map(|link| (Level::Warning, format!("{} ({}) is down", name(link), link.carrier)));
        notices.extend(went);
        for (level, text) in notices {
            self.notice(now, level, &text);
        }
        if !links.came.is_empty() {
            self.remember(&links.came.iter().map(|(link, _)| *link).collect::<Vec<_>>());
        }
        if self.view.links != used || other_held {
            self.view.links = used;
            let tenants = self.policy.tenants.iter().filter_map(|tenant| self.memory.allocations.of(&tenant.name));
            self.rounds.dirty.extend(tenants.map(|numbers| Owner(numbers.key)));
        }
        self.judge_superseded(now, instead);
    }

    /// Which of the links that are up may be used. The others are damped, or drained by the policy, and nobody needs them.
    fn withhold(&self, now: Instant, up: &[Link]) -> (Vec<Link>, BTreeMap<Link, Reluctance>) {
        let why = |link: &Link| match withhold::drained(&self.policy, &self.view, link) {
            Some(_) => Some(Reluctance::Drained),
            None => self.topology.is_damped(now, link).then_some(Reluctance::Damped),
        };
        if up.iter().all(|link| why(link).is_none()) {
            return (up.to_vec(), BTreeMap::new());
        }
        let needs = Needs::new(&self.policy, &self.memory.allocations, &self.attachments, &self.view);
        let (used, withheld) = withhold::withhold(up.iter().copied(), why, &needs);
        (used.into_iter().collect(), withheld)
    }

    /// A link that wasn't used when its bridge stopped answering isn't now: that bridge takes nothing in from it.
    fn still_used(&self, held: Held) -> Held {
        let known = self.topology.known().get(&(held.link.a, held.link.b));
        let unused = held.trees.is_empty() && known.is_some_and(|known| known.withheld);
        Held { up: held.up && !unused, ..held }
    }

    /// Looks which links and bridges have been silent for too long. Nobody can tell a bridge whose channel is cut from
    /// one that is dead: its links are then not known to be down, but held.
    pub(super) fn expire_links(&mut self, now: Instant) {
        if self.topology.is_calm_again(now) {
            self.links_changed(now);
        }
        let Some(slept) = self.topology.woke(now) else { return };
        let interval = self.topology.interval();
        let (mut ask, mut silent) = (Vec::new(), Vec::new());
        // Of bridges without links nothing is expected.
        let links = self.view.links.iter().chain(self.view.withheld.keys());
        let linked: BTreeSet<_> = links.flat_map(|link| [link.a.bridge, link.b.bridge]).collect();
        let expected = |dpid: &DatapathId, bridge: &Bridge| bridge.is_responsive() && linked.contains(dpid);
        let mut mute = Vec::new();
        for (dpid, bridge) in &mut self.bridges {
            let expected = expected(dpid, bridge);
            let Some(connection) = &mut bridge.connection else { continue };
            connection.heard = (connection.heard + slept).min(now);
            let quiet = now.duration_since(connection.heard);
            // Its channel lives, or it would have been closed, but what it was asked it never answers. Right after a sleep the answer
            // may be waiting.
            let is_late = |(_, put): (Xid, Instant)| slept.is_zero() && now.duration_since(put) >= ACKNOWLEDGE;
            if connection.asked.is_some_and(is_late) {
                mute.push(*dpid);
            } else if !expected {
                continue;
            } else if quiet > interval.mul_f64(2.75).max(SILENT) && connection.asked.is_some() {
                silent.push(*dpid);
            } else if quiet > interval.mul_f64(1.5) {
                ask.push(*dpid);
            }
        }
        for dpid in mute {
            self.give_up(now, dpid, format!("it hasn't answered a barrier for {} s", ACKNOWLEDGE.as_secs()));
        }
        for dpid in ask {
            self.ask(now, dpid);
        }
        let any = !silent.is_empty();
        for dpid in silent {
            if let Some(bridge) = self.bridges.get_mut(&dpid)
                && let Some(connection) = &mut bridge.connection
            {
                connection.silent = true;
                let quiet = now.duration_since(connection.heard).as_millis();
                let text = format!(
                    "bridge {} has been silent for {quiet} ms, although it was asked: others no longer send through it",
                    bridge.name
                );
                self.notice_of(now, dpid, Level::Warning, &text);
            }
            self.lost(now, dpid);
        }
        if any {
            self.refresh(now);
        }
        self.judge_links(now);
    }

    /// Closes what lost its probes, and asks whoever has to be asked first.
    fn judge_links(&mut self, now: Instant) {
        let bridges = &self.bridges;
        let answered = |dpid| Some(bridges.get(&dpid)?.connection.as_ref()?.answered);
        let judgement = self.topology.judge(now, answered);
        for dpid in judgement.ask {
            self.ask(now, dpid);
        }
        if judgement.closed {
            self.links_changed(now);
        }
    }

    /// Lets a bridge show that it is awake, unless it is asked already.
    fn ask(&mut self, now: Instant, dpid: DatapathId) {
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        let xid = bridge.next_xid();
        let Some(connection) = bridge.connection.as_mut().filter(|connection| connection.asked.is_none()) else {
            return;
        };
        connection.asked = Some((xid, now));
        let messages = vec![(xid, Message::BarrierRequest(Nothing))];
        self.effects.push(Effect::Send { session: connection.session, messages });
    }

    /// A bridge has answered a barrier: perhaps the one that it was asked with to show that it is awake.
    pub(super) fn awake(&mut self, now: Instant, dpid: DatapathId, barrier: Xid) {
        let connection = self.bridges.get_mut(&dpid).and_then(|bridge| bridge.connection.as_mut());
        let Some(connection) = connection else { return };
        if let Some((_, put)) = connection.asked.take_if(|(xid, _)| *xid == barrier) {
            connection.answered = put;
            self.judge_links(now);
        }
    }

    /// A bridge has sent something. One that was silent has its tables read before it counts again.
    pub(super) fn heard(&mut self, now: Instant, dpid: DatapathId) {
        let Some(connection) = self.bridges.get_mut(&dpid).and_then(|bridge| bridge.connection.as_mut()) else {
            return;
        };
        connection.heard = now;
        if std::mem::take(&mut connection.silent) {
            self.read_tables(now, dpid);
        }
    }

    pub(super) fn send_probes(&mut self, now: Instant) {
        let mut batches: BTreeMap<SessionId, Vec<(Xid, Message)>> = BTreeMap::new();
        for (place, number) in self.topology.due(now) {
            let Some(bridge) = self.bridges.get_mut(&place.bridge) else { continue };
            let Some(session) = bridge.connection.as_ref().map(|connection| connection.session) else { continue };
            let Some(address) = bridge.ports.get(&place.port).map(|port| port.port.address) else { continue };
            let frame = Probe { from: place, number, size: 0 }.encode(&self.probe_key, address);
            let mark = Action::SetField(Oxm::TunnelId(PROBE_KEY.into(), None));
            let out = PacketOut::new(vec![mark, Action::output(place.port)], frame);
            batches.entry(session).or_default().push((bridge.next_xid(), Message::PacketOut(out)));
        }
        for (session, messages) in batches {
            self.effects.push(Effect::Send { session, messages });
        }
    }

    pub(super) fn compile_all(&mut self) {
        self.rounds.handover |= self.changes_hands();
        self.compiled = self.attachments.clone();
        let allocations = self.memory.allocations.clone();
        self.compiled_for = Settled { allocations, policy: self.policy_status.digest.clone() };
        let names = self.policy.tenants.iter().map(|tenant| tenant.name.clone());
        let keys = names.filter_map(|name| Some((self.memory.allocations.of(&name)?.key, name)));
        self.rounds.keys = keys.collect();

        let hosts = self.policy.tenants.iter().map(|tenant| (tenant.name.clone(), self.hosts.places(&tenant.name)));
        let hosts = hosts.collect();
        self.recall_trees(&self.rounds.keys.keys().map(|key| Owner(*key)).collect());
        self.desired = compile::compile(&self.policy, &self.memory.allocations, &self.view, &hosts);
        // A key that another tenant had is first emptied everywhere; the next round gives it to the new one.
        let renewed = self.rounds.renewed();
        for owner in &renewed {
            self.desired.set(*owner, BTreeMap::new());
        }
        for owner in self.refused_owners().into_iter().filter(|owner| !renewed.contains(owner)) {
            self.compile_owner(owner);
        }
        self.go_on_halfway();
        let trees = self.desired.grown(&self.memory.allocations);
        let moved =
            trees.iter().filter(|(key, tree)| self.view.trees.get(key).is_none_or(|it| it.version != tree.version));
        self.rounds.two_trees.extend(moved.map(|(key, _)| Owner(*key)));
        self.view.trees = trees;
        renewed.iter().for_each(|owner| drop(self.view.trees.remove(&owner.0)));
    }

    pub(super) fn compile_owner(&mut self, owner: Owner) {
        let Some(name) = self.tenant_of(owner).map(str::to_owned) else { return };
        let Some(tenant) = self.policy.tenants.iter().find(|tenant| tenant.name == name) else { return };
        let (allocations, hosts) = (&self.memory.allocations, self.hosts.places(&name));
        let network = tenants::compile(tenant, allocations, &self.attachments, &self.view_of(owner), &hosts);
        self.desired.set(owner, network.sections);
        let before = self.view.trees.insert(owner.0, network.tree.grown());
        if before.is_none_or(|before| before.version != network.tree.version) {
            self.rounds.two_trees.insert(owner);
        }
        self.desired.trees.insert(name, network.tree);
    }
}
