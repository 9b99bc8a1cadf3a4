//! The state machine that knows the fabric: bridges, links, hosts, and what every bridge should hold. Pure: time comes
//! in with each event, and what is to be done goes out as effects.

mod addressed;
mod bridge;
mod bundles;
mod claims;
mod counting;
mod damping;
mod documents;
mod drift;
mod fabric;
mod handover;
mod health;
mod hosts;
mod known;
mod leading;
mod lengths;
mod linked;
mod loops;
mod messages;
mod moves;
mod notices;
mod polling;
mod ports;
mod probe;
mod read_back;
mod reading;
mod refusals;
mod returned;
mod rounds;
mod sender;
mod services;
mod settling;
mod situation;
mod topology;
mod trail;
mod trees;
mod trials;
mod unread;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use apps::allocation::Allocations;
use apps::attachment::Attachments;
use apps::compile::Desired;
use apps::marks::Owner;
use apps::policy::Policy;
use apps::view::{Endpoint, Held, View};
use openflow::message::Message;
use openflow::peer::Identity;
use openflow::types::{DatapathId, Xid};
use serde::{Deserialize, Serialize};

use crate::snapshot::PolicyStatus;
pub use addressed::Addressed;
use bridge::Bridge;
use health::Health;
use hosts::HostTable;
use leading::Leading;
use lengths::Mtu;
use linked::Removed;
use loops::Loops;
use notices::Notices;
use rounds::Rounds;
use settling::Settling;
use topology::Topology;

/// One connection of one bridge; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What the core is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Key that probes are authenticated with; a new one each time, so that no old probe counts.
    pub probe_key: [u8; 32],
    /// What it knew before.
    pub memory: Memory,
    /// Most bridges, beside those that the policy names; [`BRIDGES_MAX`], but for tests.
    pub bridges_max: usize,
}

/// Most bridges, beside those that the policy names: strangers can claim datapath ids, and a tenant's ports, too.
pub const BRIDGES_MAX: usize = 16_384;

/// What the core keeps over restarts. Links and hosts are found again, and tables are read back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Numbers given to tenants.
    pub allocations: Allocations,
    /// What tells this controller from others that lead the same bridges, at different times: 24 bits; 0: not chosen yet.
    #[serde(default)]
    pub instance: u32,
    /// Datapath ids of the bridges that were connected and mattered: after a restart they are waited for.
    pub bridges: BTreeSet<u64>,
    /// What bridges were last brought to as a whole.
    #[serde(default)]
    pub settled: Settled,
    /// IP addresses of hosts, as of some seconds ago.
    #[serde(default)]
    pub hosts: Vec<Addressed>,
    /// Instances of functions that let nothing through, by tenant, function and instance.
    #[serde(default)]
    pub failed: BTreeSet<(String, String, String)>,
    /// Ports that are shut for floods because of a loop, each with the port that it is joined with: by datapath ids and numbers.
    #[serde(default)]
    pub loops: BTreeSet<((u64, u32), (u64, u32))>,
}

/// What bridges were brought to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The numbers that tenants had.
    pub allocations: Allocations,
    /// The digest of the policy.
    pub policy: String,
}

/// All that can happen to the core.
#[derive(Debug)]
pub enum Event {
    /// A policy comes into force.
    Policy(Arc<Policy>, PolicyStatus),
    /// A bridge is connected and known.
    Connected {
        /// Its connection.
        session: SessionId,
        /// Where it connects from.
        address: SocketAddr,
        /// Who it is.
        identity: Box<Identity>,
    },
    /// A connection is closed.
    Disconnected {
        /// Which.
        session: SessionId,
    },
    /// A bridge sent a message that isn't the channel's own business.
    Message {
        /// Its connection.
        session: SessionId,
        /// The message's transaction id.
        xid: Xid,
        /// The message.
        message: Message,
    },
    /// A bridge tells of its tables in more octets than anybody wants to hear. Its session drops the rest.
    TablesTooLong {
        /// Its connection.
        session: SessionId,
    },
    /// [`Core::deadline`] has come.
    Timer,
}

/// How much an operator should care about a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Good to know.
    Info,
    /// Look at it.
    Warning,
}

/// All that the core can want done.
#[derive(Debug)]
pub enum Effect {
    /// Send messages to a bridge, in this order.
    Send {
        /// To whom.
        session: SessionId,
        /// What, each with its transaction id, which is at most [`openflow::peer::XID_MAX`].
        messages: Vec<(Xid, Message)>,
    },
    /// The same, ahead of all that waits to be sent to that bridge.
    SendFirst {
        /// To whom.
        session: SessionId,
        /// What, as in [`Effect::Send`].
        messages: Vec<(Xid, Message)>,
    },
    /// Close a connection; [`Event::Disconnected`] follows.
    Close {
        /// Which.
        session: SessionId,
        /// Why, for the log.
        reason: String,
    },
    /// Keep this over restarts.
    Save(Memory),
    /// Tell the operator.
    Notice(Level, String),
}

/// See the module's text.
#[derive(Debug)]
pub struct Core {
    probe_key: [u8; 32],
    bridges_max: usize,
    policy: Arc<Policy>,
    policy_status: PolicyStatus,
    /// Bridges that it names.
    named: BTreeSet<String>,
    memory: Memory,
    bridges: BTreeMap<DatapathId, Bridge>,
    sessions: BTreeMap<SessionId, DatapathId>,
    leading: Leading,
    topology: Topology,
    /// Ports that a tenant's pattern matches, and until when probes may show that they are links.
    trials: BTreeMap<Endpoint, Instant>,
    loops: Loops,
    health: Health,
    mtu: Mtu,
    hosts: HostTable,
    /// When their addresses were last kept.
    hosts_kept: Instant,
    /// Links at bridges that don't answer.
    held: BTreeMap<(Endpoint, Endpoint), Held>,
    view: View,
    attachments: Attachments,
    /// What ports were for when everything was last computed.
    compiled: Attachments,
    /// By which policy, and with which numbers of tenants.
    compiled_for: Settled,
    desired: Desired,
    rounds: Rounds,
    /// Ports changed, and what follows from that is still to be found out.
    refresh_due: bool,
    /// Links that went with a port lately.
    removed_links: Vec<Removed>,
    started: Instant,
    /// What is waited for after a restart.
    settling: Option<Settling>,
    /// Has the policy rate limits?
    limited: bool,
    /// Has it chains?
    chained: bool,
    /// When limits were last asked for what they did.
    counted: Instant,
    /// When bridges were last asked which hosts sent something.
    asked_seen: Instant,
    /// When it was last looked which bridges' turn it is to be asked for their tables.
    polled: Instant,
    notices: Notices,
    /// Owners whose changes would have broken the network, so they weren't sent, and why.
    faults: BTreeMap<Owner, String>,
    /// Owners of what bridges told that they have: whether that leads in circles is still to be looked at.
    suspects: BTreeSet<Owner>,
    effects: Vec<Effect>,
}

impl Core {
    /// A core that knows nothing yet but what `settings` remember.
    pub fn new(now: Instant, settings: Settings) -> Self {
        let policy = Arc::new(Policy::default());
        let awaited: BTreeSet<DatapathId> = settings.memory.bridges.iter().copied().map(DatapathId).collect();
        let (mut memory, mut effects) = (settings.memory, Vec::new());
        if memory.instance == 0 {
            // Bridges tell it to whoever asks, and the key is nobody's business.
            let mut hasher = DefaultHasher::new();
            settings.probe_key.hash(&mut hasher);
            memory.instance = ((hasher.finish() >> 40) as u32).max(1);
            effects.push(Effect::Save(memory.clone()));
        }
        Self {
            probe_key: settings.probe_key,
            bridges_max: settings.bridges_max,
            topology: Topology::new(now),
            health: Health::new(now),
            mtu: Mtu::new(now),
            policy,
            policy_status: PolicyStatus::default(),
            named: BTreeSet::new(),
            leading: Leading::new(memory.instance),
            bridges: BTreeMap::new(),
            sessions: BTreeMap::new(),
            trials: BTreeMap::new(),
            loops: Loops::after(now, &memory.loops),
            hosts: HostTable::default(),
            hosts_kept: now,
            held: BTreeMap::new(),
            view: View::default(),
            attachments: Attachments::default(),
            compiled: Attachments::default(),
            desired: Desired::default(),
            rounds: Rounds::after(&memory.settled.allocations),
            compiled_for: memory.settled.clone(),
            memory,
            refresh_due: false,
            removed_links: Vec::new(),
            started: now,
            settling: Settling::after(now, awaited),
            limited: false,
            chained: false,
            counted: now,
            polled: now,
            asked_seen: now,
            notices: Notices::default(),
            faults: BTreeMap::new(),
            suspects: BTreeSet::new(),
            effects,
        }
    }

    /// Takes in an event and gives what is to be done, in order. What an event makes necessary for many bridges is put
    /// off to the next [`Event::Timer`], which is due at once, so that events that come together are dealt with together.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        match event {
            Event::Policy(policy, status) => self.policy(now, policy, status),
            Event::Connected { session, address, identity } => self.connected(now, session, address, *identity),
            Event::Disconnected { session } => self.disconnected(now, session),
            Event::Message { session, xid, message } => self.message(now, session, xid, message),
            Event::TablesTooLong { session } => self.tables_too_long(now, session),
            Event::Timer => {
                self.beat(now);
                self.overdue(now);
                self.expire_links(now);
                self.end_trials(now);
                self.decide_hosts(now);
                self.expire_loops(now);
                if self.refresh_due {
                    self.refresh(now);
                }
                self.judge_told(now);
                self.start_rounds(now);
                self.send_probes(now);
                self.measure(now);
                self.probe_functions(now);
                self.count(now);
                self.poll(now);
                self.ask_seen(now);
                self.keep_hosts(now);
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Timer`] is due; `None`: nothing is waited for.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let rounds = match &self.settling {
            Some(settling) if self.rounds.can_start() => Some(settling.deadline()),
            _ => self.rounds.can_start().then_some(now),
        };
        let refresh = self.refresh_due.then_some(now);
        self.topology
            .deadline()
            .into_iter()
            .chain(self.health.deadline())
            .chain(self.mtu.deadline())
            .chain(self.trials.values().min().copied())
            .chain(self.loops.deadline())
            .chain(self.overdue_at())
            .chain(self.hosts.deadline())
            .chain(self.leading.deadline())
            .chain(self.count_at())
            .chain(self.poll_at())
            .chain(self.seen_at())
            .chain(self.keep_hosts_at())
            .chain(rounds)
            .chain(refresh)
            .min()
    }

    fn policy(&mut self, now: Instant, policy: Arc<Policy>, status: PolicyStatus) {
        let allocations = self.memory.allocations.updated(&policy);
        if allocations != self.memory.allocations {
            self.memory.allocations = allocations;
            self.effects.push(Effect::Save(self.memory.clone()));
        }
        self.topology.set_probes(now, policy.fabric.probes);
        let wanted = policy.tenants.iter().filter_map(|tenant| tenant.mtu).max();
        self.mtu.set(policy.fabric.probes, wanted.unwrap_or_default());
        self.limited = policy.has_rate_limits();
        self.chained = policy.tenants.iter().any(|tenant| !tenant.chains.is_empty());
        self.named = policy.named_bridges();
        self.policy = policy;
        self.policy_status = status;
        self.forget_probes_heard();
        // What was refused may be other than what is wanted now.
        self.bridges.values_mut().for_each(|bridge| bridge.refusals.clear());
        self.refresh(now);
    }

    /// The name of a tenant by what it owns.
    fn tenant_of(&self, owner: Owner) -> Option<&str> {
        let tenants = self.policy.tenants.iter().map(|tenant| tenant.name.as_str());
        tenants.into_iter().find(|name| self.memory.allocations.of(name).is_some_and(|numbers| numbers.key == owner.0))
    }

    /// What a port is called where people read it.
    fn port_name(&self, place: Endpoint) -> String {
        let bridge = self.bridges.get(&place.bridge);
        let name = bridge.map_or_else(|| place.bridge.to_string(), |bridge| bridge.name.clone());
        let port = bridge.and_then(|bridge| bridge.ports.get(&place.port));
        format!("{name}/{}", port.map_or_else(|| place.port.to_string(), |port| port.port.name.text().into_owned()))
    }
}
