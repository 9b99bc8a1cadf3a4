//! One bridge, as far as the controller knows it: its connection, ports, and what its tables hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use apps::desired::{BridgeState, FlowKey};
use apps::kept::Kept;
use apps::limits::delivered;
use apps::marks::{Owner, TreeVersion, group_version};
use apps::pipeline::{self, FLOOD, FORWARD, LEARN};
use apps::reconcile::{self, Change, Edit};
use apps::rules::unread_filters;
use apps::view::{Behind, Endpoint, Host};
use openflow::action::Action;
use openflow::message::Message;
use openflow::multipart::{MultipartReply, Part};
use openflow::oxm::Oxm;
use openflow::peer::{PORTS_MAX, XID_MAX};
use openflow::port::{Port, PortState};
use openflow::switch::Role;
use openflow::types::{DatapathId, MacAddr, PortNo, TableId, Xid};

use super::SessionId;
use super::bundles::{Bundles, InFlight};
use super::counting::Counting;
use super::drift::{self, Drift};
use super::leading::Rank;
use super::polling::Polling;
use super::reading::Reading;
use super::refusals::Refusal;
use super::topology::Sign;
use super::unread::Unreads;

/// A connection that is open.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) session: SessionId,
    pub(crate) address: SocketAddr,
    /// Which one we have, or are about to get. As `Slave` we write nothing.
    pub(crate) role: Role,
    /// How many tables are there for controllers.
    pub(crate) tables: u8,
    /// What it tells of who leads.
    pub(crate) rank: Rank,
    /// When it last sent anything.
    pub(crate) heard: Instant,
    /// It has sent nothing for so long, although it was asked, that it is taken for one that doesn't answer.
    pub(crate) silent: bool,
    /// The barrier that it was asked with to show that it is awake, and when, until it answers.
    pub(crate) asked: Option<(Xid, Instant)>,
    /// When the last such question that it has answered was put: what it was sent before is done, and what it had to tell
    /// then is told.
    pub(crate) answered: Instant,
    /// What is still missing of its tables; `None`: they are known.
    pub(crate) reading: Option<Reading>,
    /// What its limits did.
    pub(crate) counting: Counting,
    pub(crate) unreads: Unreads,
    /// How often others changed its tables lately.
    pub(crate) drift: Drift,
    /// Changes that it hasn't acknowledged yet, by the transaction id of the barrier behind them.
    pub(crate) in_flight: BTreeMap<Xid, InFlight>,
    /// Does it take changes in bundles?
    pub(crate) bundles: Bundles,
    /// Whether its tables still hold what is known of them.
    pub(crate) polling: Polling,
}

impl Connection {
    /// One that has just been opened.
    pub(crate) fn new(now: Instant, session: SessionId, address: SocketAddr, role: Role) -> Self {
        Self {
            session,
            address,
            role,
            tables: u8::MAX,
            rank: Rank::new(now, None),
            heard: now,
            silent: false,
            asked: None,
            answered: now,
            reading: None,
            counting: Counting::default(),
            unreads: Unreads::default(),
            drift: Drift::default(),
            in_flight: BTreeMap::new(),
            bundles: Bundles::default(),
            polling: Polling::default(),
        }
    }

    /// Is it another controller's, of our make?
    pub(crate) fn is_watched(&self) -> bool {
        self.role == Role::Slave && self.rank.is_watched()
    }

    /// Is a table there for controllers? Others are the bridge's own, and nobody else can change them: Open vSwitch keeps there
    /// what its bonds do. It tells of changes in them all the same.
    pub(crate) fn is_for_controllers(&self, table: TableId) -> bool {
        table.0 < self.tables || pipeline::table(table).is_some()
    }
}

/// A port, and whether its liveness counts: a bridge that never tells of any is taken by its ports' carrier alone.
#[derive(Clone, Debug)]
pub(crate) struct PortRecord {
    pub(crate) port: Port,
    liveness_counts: bool,
    pub(crate) behind: Behind,
}

impl PortRecord {
    fn new(port: Port, liveness_counts: bool) -> Self {
        Self { port, liveness_counts, behind: Behind { untried: true, ..Behind::default() } }
    }

    /// Can frames pass? A port that isn't live (BFD, LACP, CFM) can't, though its carrier is there.
    pub(crate) fn is_up(&self) -> bool {
        self.port.is_up() && (!self.liveness_counts || self.port.state.contains(PortState::LIVE))
    }

    /// By what it is known that it isn't up.
    pub(crate) fn sign(&self) -> Sign {
        if self.port.is_up() { Sign::Liveness } else { Sign::Carrier }
    }
}

/// Can this be the number of a port? Others mean something else in entries, or nothing (OpenFlow 1.3.5 §7.2.1).
pub(crate) const fn is_port(number: PortNo) -> bool {
    (number.0 >= 1 && number.0 <= PortNo::MAX.0) || number.0 == PortNo::LOCAL.0
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Bridge {
    /// The name that it gives itself; may be empty.
    pub(crate) told: String,
    /// The name that it goes by.
    pub(crate) name: String,
    pub(crate) ports: BTreeMap<PortNo, PortRecord>,
    /// When it first connected.
    pub(crate) came: Option<Instant>,
    /// When its connection last ended.
    pub(crate) left: Option<Instant>,
    /// Has it ever said of a port that it is live? Then those of which it doesn't say so aren't.
    pub(crate) tells_liveness: bool,
    pub(crate) connection: Option<Connection>,
    /// What its tables hold, as last acknowledged or read.
    pub(crate) installed: BridgeState,
    /// Has `installed` ever been read?
    pub(crate) was_read: bool,
    /// It told of its tables, and that hasn't been held against anything yet.
    pub(crate) unjudged: bool,
    /// Its tables were read, and no whole round has been finished since.
    pub(crate) is_back: bool,
    /// Changes that it may or may not have made before it stopped answering.
    pub(crate) uncertain: Vec<Change>,
    /// Its tables aren't read before this, because it refused or delayed changes.
    pub(crate) rests_until: Option<Instant>,
    /// How often in a row that was so.
    pub(crate) failures: u32,
    /// What it refused last.
    pub(crate) trouble: Option<String>,
    /// Owners some of whose changes it refused.
    pub(crate) refusals: BTreeMap<Owner, Refusal>,
    /// It refused something lately: changes go to it phase by phase.
    pub(crate) cautious: bool,
    /// How often it was sent changes.
    pub(crate) batches: u64,
    next_xid: u32,
}

impl Bridge {
    /// Does it answer, are its tables known, and may we write to it?
    pub(crate) fn is_responsive(&self) -> bool {
        let answers = |connection: &Connection| {
            connection.reading.is_none() && !connection.silent && connection.role != Role::Slave
        };
        self.connection.as_ref().is_some_and(answers) && self.rests_until.is_none()
    }

    /// Does it hold exactly what is desired, and may it be told if not?
    pub(crate) fn holds(&self, desired: Option<&BridgeState>) -> bool {
        let nothing = BridgeState::new();
        let same = reconcile::same(&self.installed, desired.unwrap_or(&nothing));
        same && self.is_responsive() && self.refusals.is_empty()
    }

    /// What it refused, in plain words.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        self.trouble.iter().chain(self.refusals.values().map(|refusal| &refusal.text)).cloned()
    }

    pub(crate) fn next_xid(&mut self) -> Xid {
        self.next_xid = if self.next_xid >= XID_MAX.0 { 1 } else { self.next_xid + 1 };
        Xid(self.next_xid)
    }

    /// Asks for what ended of what rules and chains can't see, if it answers.
    pub(crate) fn ask_unread(&mut self, now: Instant) -> Vec<(Xid, Message)> {
        let xids: Vec<Xid> = unread_filters().iter().map(|_| self.next_xid()).collect();
        let (answers, mut xids) = (self.is_responsive(), xids.into_iter());
        let Some(connection) = self.connection.as_mut().filter(|_| answers) else { return Vec::new() };
        connection.unreads.ask(now, || xids.next().unwrap_or_default())
    }

    /// It has these ports. Gives the numbers that were other ports' so far.
    pub(crate) fn set_ports(&mut self, ports: Vec<Port>) -> BTreeSet<PortNo> {
        self.tells_liveness |= ports.iter().any(|port| port.state.contains(PortState::LIVE));
        let liveness_counts = self.tells_liveness;
        let real = ports.into_iter().filter(|port| is_port(port.number));
        let ports = real.map(|port| (port.number, PortRecord::new(port, liveness_counts))).collect();
        let before = std::mem::replace(&mut self.ports, ports);
        let name = |record: &PortRecord| record.port.name.clone();
        self.keep_behind(&before);
        let stays = |(number, record): (&PortNo, &PortRecord)| self.ports.get(number).map(name) == Some(name(record));
        before.iter().filter(|it| !stays(*it)).map(|(number, _)| *number).collect()
    }

    /// What is known of what is behind its ports, from before. What is called as before and has another address may be something else.
    pub(crate) fn keep_behind(&mut self, before: &BTreeMap<PortNo, PortRecord>) {
        let device = |record: &PortRecord| (record.port.name.text().into_owned(), record.port.address);
        let behind: BTreeMap<_, Behind> = before.values().map(|record| (device(record), record.behind)).collect();
        for record in self.ports.values_mut() {
            record.behind = behind.get(&device(record)).copied().unwrap_or(record.behind);
        }
    }

    /// What its tables let in as a station's has been found to be no link before.
    pub(crate) fn recall_stations(&mut self) {
        for port in reconcile::stations(&self.installed) {
            if let Some(record) = self.ports.get_mut(&port) {
                record.behind.untried = false;
            }
        }
    }

    /// The numbers whose entries, as they were read, were made for other ports than those that have them.
    pub(crate) fn strangers(&self) -> BTreeSet<PortNo> {
        let names = self.ports.iter().map(|(number, record)| (*number, record.port.name.text()));
        let names: BTreeMap<PortNo, _> = names.collect();
        reconcile::strangers(&self.installed, &names.iter().map(|(number, name)| (*number, &**name)).collect())
    }

    /// Is there room for this port?
    pub(crate) fn has_room(&self, number: PortNo) -> bool {
        self.ports.len() < PORTS_MAX || self.ports.contains_key(&number)
    }

    /// A port came or changed. `true`: other than in what doesn't matter here.
    pub(crate) fn set_port(&mut self, port: Port) -> bool {
        let before = self.ports.get(&port.number);
        let behind = before.filter(|old| old.port.name == port.name).map(|old| old.behind);
        let before = before.map(|old| (old.port.name.clone(), old.is_up()));
        if port.state.contains(PortState::LIVE) && !std::mem::replace(&mut self.tells_liveness, true) {
            self.ports.values_mut().for_each(|record| record.liveness_counts = true);
        }
        let mut new = PortRecord::new(port, self.tells_liveness);
        new.behind = behind.unwrap_or(new.behind);
        let changed = before != Some((new.port.name.clone(), new.is_up()));
        self.ports.insert(new.port.number, new);
        changed
    }

    /// Asks for all that its tables hold.
    pub(crate) fn start_reading(&mut self, now: Instant) -> Vec<(Xid, Message)> {
        let (open, discard, monitor) = (self.next_xid(), self.next_xid(), self.next_xid());
        let (reading, questions) = Reading::start(now, true, [self.next_xid(), self.next_xid(), self.next_xid()]);
        let Some(connection) = &mut self.connection else { return Vec::new() };
        let mut messages = connection.bundles.ask(open, discard);
        // Changes are told before tables are, so none is missed.
        messages.extend(connection.polling.ask_for_monitor(monitor));
        messages.extend(questions);
        connection.reading = Some(reading);
        connection.polling.all_is_read();
        messages
    }

    /// Takes in an answer about its tables. `true`: that was the last one. How long they may be is its session's business.
    pub(crate) fn read(&mut self, xid: Xid, part: Part<MultipartReply>) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let Some(reading) = &mut connection.reading else { return false };
        if !reading.took(xid, part) {
            return false;
        }
        if let Some(mut reading) = connection.reading.take() {
            let changed = std::mem::take(&mut reading.changed);
            self.installed = reading.state();
            for update in changed {
                drift::apply(&mut self.installed, update);
            }
            self.was_read = true;
            self.uncertain.clear();
            self.refusals.clear();
        }
        true
    }

    /// Is an answer with this transaction id waited for?
    pub(crate) fn reads(&self, xid: Xid) -> bool {
        let reading = self.connection.as_ref().and_then(|connection| connection.reading.as_ref());
        reading.is_some_and(|reading| reading.waits_for(xid))
    }

    /// What it certainly does as long as it can't be changed.
    pub(crate) fn kept(&self) -> Arc<Kept> {
        Arc::new(Kept::new(&self.installed, &self.uncertain))
    }

    /// For each port the keys of the tenants whose frames it may flood there, by what it holds and what it may hold. Where a
    /// tenant's frames enter by one version of its tree, the other one is of no use.
    pub(crate) fn floods(&self) -> BTreeMap<PortNo, BTreeSet<u32>> {
        let doubtful = |owner: Owner| {
            let floods = |change: &Change| {
                change.owner == owner && matches!(&change.edit, Edit::SetFlow(key, _) if key.table == FLOOD)
            };
            self.uncertain.iter().any(floods)
        };
        let follows = self.installed.iter().filter(|(owner, _)| !doubtful(**owner));
        let follows: BTreeMap<Owner, TreeVersion> =
            follows.filter_map(|(owner, section)| Some((*owner, reconcile::followed(section)?))).collect();
        let used = |owner: Owner, version| follows.get(&owner).is_none_or(|it| *it == version);
        let held = self.installed.iter().flat_map(|(owner, section)| {
            section.groups.iter().map(|(id, group)| (*owner, *id, group)).collect::<Vec<_>>()
        });
        let maybe = self.uncertain.iter().filter_map(|change| match &change.edit {
            Edit::AddGroup(id, group) | Edit::ModifyGroup(id, group) => Some((change.owner, *id, group)),
            _ => None,
        });
        let mut floods: BTreeMap<PortNo, BTreeSet<u32>> = BTreeMap::new();
        for (owner, _, group) in held.chain(maybe).filter(|(owner, id, _)| used(*owner, group_version(*id))) {
            for action in group.buckets.iter().flat_map(|bucket| &bucket.actions) {
                if let Action::Output { port, .. } = action {
                    floods.entry(*port).or_default().insert(owner.0);
                }
            }
        }
        let taken = self.installed.iter().flat_map(|(owner, section)| section.flows.iter().map(|it| (*owner, it)));
        let maybe = self.uncertain.iter().filter_map(|change| match &change.edit {
            Edit::SetFlow(key, flow) => Some((change.owner, (key, flow))),
            _ => None,
        });
        for (owner, (key, flow)) in taken.chain(maybe).filter(|(_, (key, _))| key.table == FLOOD) {
            let version = reconcile::floods(key, flow);
            if let Some(port) = key.matching.in_port().filter(|_| version.is_none_or(|it| used(owner, it))) {
                floods.entry(port).or_default().insert(owner.0);
            }
        }
        floods
    }

    /// The hosts that its tables send to by a port of its own: tenant key, address, place. Links may be among the ports.
    pub(crate) fn hosts(&self, dpid: DatapathId) -> Vec<(u32, MacAddr, Host)> {
        let address = |key: &FlowKey| {
            key.matching.fields().iter().find_map(|field| match field {
                Oxm::EthDst(mac, None) | Oxm::EthSrc(mac, None) if mac.is_station() => Some(*mac),
                _ => None,
            })
        };
        let mut hosts = Vec::new();
        for (owner, section) in &self.installed {
            let learnt = section.flows.keys().filter(|key| key.table == LEARN);
            let fresh: BTreeSet<(Option<PortNo>, Option<MacAddr>)> =
                learnt.map(|key| (key.matching.in_port(), address(key))).collect();
            for (key, flow) in section.flows.iter().filter(|(key, _)| key.table == FORWARD) {
                let (Some(port), Some(mac)) = (delivered(&flow.instructions), address(key)) else { continue };
                let place = Endpoint { bridge: dpid, port };
                hosts.push((owner.0, mac, Host { place, fresh: fresh.contains(&(Some(port), Some(mac))) }));
            }
        }
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_that_calls_one_port_live_calls_all_so_that_are() {
        let port = |number, state| Port { state, ..Port::new(PortNo(number), MacAddr::default(), "p") };
        let dark = PortState::empty();
        let mut bridge = Bridge::default();
        let up = |bridge: &Bridge| bridge.ports.values().map(PortRecord::is_up).collect::<Vec<_>>();
        bridge.set_ports(vec![port(1, dark), port(2, dark)]);
        assert_eq!(up(&bridge), [true, true], "it never told of any");
        assert!(!bridge.set_port(port(2, PortState::LIVE)), "up as before");
        assert_eq!(up(&bridge), [false, true], "a bond without a partner");
        assert!(bridge.set_port(port(1, PortState::LIVE)));
        bridge.set_ports(vec![port(1, dark), port(2, dark)]);
        assert_eq!(up(&bridge), [false, false], "it is the same bridge after it connects again");
    }
}
