//! Goal: of two controllers at the same bridges one leads all of them and the other none, whatever comes first; when the one
//! that leads is gone, the other takes over within 15 s; and one that is alone waits for nobody after a restart.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apps::policy::{Source, load};
use controller::core::{Core, Effect, Event, Memory, SessionId, Settings};
use controller::snapshot::PolicyStatus;
use openflow::error::{BadRequest, ErrorCode, ErrorMsg, RoleRequestFailed};
use openflow::message::Message;
use openflow::multipart::{MultipartReply, MultipartRequest, Part};
use openflow::peer::Identity;
use openflow::port::Port;
use openflow::switch::{Capabilities, FeaturesReply, Role, RoleRequest};
use openflow::types::{DatapathId, MacAddr, PortNo, Xid};
use openflow::wire::{Nothing, Payload};

const POLICY: &str = "version = 1\n[[tenant]]\nname = \"green\"\nports = [{ bridge = \"*\", port = \"green-*\" }]\n";
const SECOND: Duration = Duration::from_secs(1);

type Messages = VecDeque<(Xid, Message)>;

/// A controller: the core, and for each bridge what is on its way there and back, and its role there.
struct Controller {
    core: Core,
    memory: Memory,
    channels: BTreeMap<u64, (Messages, Messages, Role)>,
    /// Changes that bridges took from it.
    changes: usize,
}

struct World {
    now: Instant,
    seed: u64,
    controllers: BTreeMap<u64, Controller>,
    /// The generations of the bridges' masters.
    generations: BTreeMap<u64, u64>,
}

impl World {
    fn new(seed: u64, bridges: u64) -> Self {
        let generations = (1..=bridges).map(|dpid| (dpid, RoleRequest::NONE)).collect();
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { now: Instant::now(), seed, controllers: BTreeMap::new(), generations }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 33) as usize % bound.max(1)
    }

    /// Starts a controller with what it has kept.
    fn start(&mut self, name: u64, memory: Memory) {
        let settings = Settings { probe_key: [name as u8; 32], memory: memory.clone(), bridges_max: 100 };
        let core = Core::new(self.now, settings);
        self.controllers.insert(name, Controller { core, memory, channels: BTreeMap::new(), changes: 0 });
        let policy = load(&[Source { name: "p.toml".into(), text: POLICY.to_owned() }]).unwrap().policy;
        self.event(name, Event::Policy(Arc::new(policy), PolicyStatus::default()));
    }

    fn connect(&mut self, name: u64, dpid: u64) {
        let features = FeaturesReply {
            datapath: DatapathId(dpid),
            n_buffers: 0,
            n_tables: 254,
            auxiliary_id: 0,
            capabilities: Capabilities::empty(),
        };
        let ports = vec![Port::new(PortNo(1), MacAddr([2, 0, 0, 0, 0, 1]), "green-1")];
        let generation = Some(self.generations[&dpid]);
        let identity = Box::new(Identity { features, desc: None, ports, role: Role::Equal, generation });
        self.controllers.get_mut(&name).unwrap().channels.insert(dpid, (VecDeque::new(), VecDeque::new(), Role::Equal));
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        self.event(name, Event::Connected { session: SessionId(dpid), address, identity });
    }

    fn event(&mut self, name: u64, event: Event) {
        let Some(controller) = self.controllers.get_mut(&name) else { return };
        for effect in controller.core.handle(self.now, event) {
            match effect {
                Effect::Send { session, messages } | Effect::SendFirst { session, messages } => {
                    if let Some((to, ..)) = controller.channels.get_mut(&session.0) {
                        to.extend(messages);
                    }
                }
                Effect::Save(memory) => controller.memory = memory,
                Effect::Close { reason, .. } => panic!("closed: {reason}"),
                Effect::Notice(..) => {}
            }
        }
    }

    /// A bridge obeys the next message of a controller.
    fn obey(&mut self, name: u64, dpid: u64) {
        let Some((to, ..)) = self.controllers.get_mut(&name).and_then(|it| it.channels.get_mut(&dpid)) else { return };
        let Some((xid, message)) = to.pop_front() else { return };
        let generation = self.generations.get_mut(&dpid).unwrap();
        let error = |code: ErrorCode| Message::Error(ErrorMsg { code, data: Payload::default() });
        let mut demote = false;
        let (_, back, role) = self.controllers.get_mut(&name).unwrap().channels.get_mut(&dpid).unwrap();
        let answer = match message {
            Message::RoleRequest(asked) => {
                let stale = *generation != RoleRequest::NONE && asked.generation < *generation;
                if asked.role != Role::NoChange && stale {
                    error(RoleRequestFailed::Stale.into())
                } else {
                    if asked.role != Role::NoChange {
                        (*role, *generation) = (asked.role, asked.generation);
                        demote = asked.role == Role::Master;
                    }
                    Message::RoleReply(RoleRequest { role: *role, generation: *generation })
                }
            }
            Message::BarrierRequest(_) => Message::BarrierReply(Nothing),
            Message::MultipartRequest(part) => match part.body {
                MultipartRequest::Flow(_) => Message::MultipartReply(Part::whole(MultipartReply::Flow(Vec::new()))),
                MultipartRequest::GroupDesc(_) => {
                    Message::MultipartReply(Part::whole(MultipartReply::GroupDesc(Vec::new())))
                }
                MultipartRequest::MeterConfig(_) => {
                    Message::MultipartReply(Part::whole(MultipartReply::MeterConfig(Vec::new())))
                }
                _ => error(BadRequest::BadMultipart.into()),
            },
            Message::FlowMod(_) | Message::GroupMod(_) | Message::MeterMod(_) if *role == Role::Slave => {
                error(BadRequest::IsSlave.into())
            }
            Message::FlowMod(_) | Message::GroupMod(_) | Message::MeterMod(_) => {
                self.controllers.get_mut(&name).unwrap().changes += 1;
                return;
            }
            Message::PacketOut(_) => return,
            _ => error(BadRequest::BadExperimenter.into()),
        };
        back.push_back((xid, answer));
        for (_, other) in self.controllers.iter_mut().filter(|(other, _)| demote && **other != name) {
            if let Some((_, _, role)) = other.channels.get_mut(&dpid).filter(|(_, _, role)| *role == Role::Master) {
                *role = Role::Slave;
            }
        }
    }

    /// Lets things happen for so long, in an order that the seed draws.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let mut choices: Vec<(u64, u64, bool)> = Vec::new();
            for (name, controller) in &self.controllers {
                for (dpid, (to, back, _)) in &controller.channels {
                    choices.extend((!to.is_empty()).then_some((*name, *dpid, true)));
                    choices.extend((!back.is_empty()).then_some((*name, *dpid, false)));
                }
                if controller.core.deadline(self.now).is_some_and(|due| due <= self.now) {
                    choices.push((*name, 0, false));
                }
            }
            if choices.is_empty() {
                let due = self.controllers.values().filter_map(|it| it.core.deadline(self.now)).min();
                self.now = due.unwrap_or(end).max(self.now);
                if self.now >= end {
                    self.now = end;
                    return;
                }
                continue;
            }
            // Messages take their time.
            let pause = self.below(300) as u64;
            self.now += Duration::from_micros(pause);
            let (name, dpid, to_bridge) = choices[self.below(choices.len())];
            if to_bridge {
                self.obey(name, dpid);
            } else if dpid == 0 {
                self.event(name, Event::Timer);
            } else if let Some((xid, message)) =
                self.controllers.get_mut(&name).and_then(|it| it.channels.get_mut(&dpid)?.1.pop_front())
            {
                self.event(name, Event::Message { session: SessionId(dpid), xid, message });
            }
        }
    }

    /// The one that is master of all bridges, if no other is of any.
    fn leader(&self) -> Option<u64> {
        let masters = |it: &Controller| it.channels.values().filter(|(_, _, role)| *role == Role::Master).count();
        let masters: Vec<(u64, usize)> = self.controllers.iter().map(|(name, it)| (*name, masters(it))).collect();
        let leading: Vec<_> = masters.iter().filter(|(_, count)| *count > 0).collect();
        match *leading {
            [(name, count)] if *count == self.generations.len() => Some(*name),
            _ => None,
        }
    }

    /// What the one that doesn't lead says.
    fn problems(&self, name: u64) -> usize {
        let problems = self.controllers[&name].core.snapshot(self.now).status.problems;
        problems.iter().filter(|problem| problem.contains("another controller leads")).count()
    }
}

#[test]
fn of_two_that_start_at_once_one_leads_all_bridges_and_the_other_takes_over() {
    for seed in 0..40 {
        let mut world = World::new(seed, 4);
        world.start(1, Memory::default());
        world.start(2, Memory::default());
        let mut all: Vec<(u64, u64)> = (1..=4).flat_map(|dpid| [(1, dpid), (2, dpid)]).collect();
        while !all.is_empty() {
            let (name, dpid) = all.swap_remove(world.below(all.len()));
            world.connect(name, dpid);
            let pause = world.below(if seed % 2 == 0 { 3 } else { 3000 });
            world.run(Duration::from_millis(pause as u64));
        }
        world.run(SECOND * 8);
        let leader = world.leader().unwrap_or_else(|| panic!("seed {seed}: nobody leads all"));
        let other = 3 - leader;
        let before = world.controllers[&other].changes;
        world.run(SECOND * 30);
        let after = world.controllers[&other].changes;
        assert_eq!((world.leader(), before), (Some(leader), after), "seed {seed}: it stays so");
        assert_eq!((world.problems(leader), world.problems(other)), (0, 1), "seed {seed}");
        // It is killed, and comes back when the other one leads.
        let memory = world.controllers.remove(&leader).unwrap().memory;
        world.run(SECOND * 15);
        assert_eq!(world.leader(), Some(other), "seed {seed}: the other one takes over");
        assert_eq!(world.problems(other), 0);
        world.start(leader, memory);
        (1..=4).for_each(|dpid| world.connect(leader, dpid));
        world.run(SECOND * 20);
        assert_eq!(world.leader(), Some(other), "seed {seed}: whoever comes back follows");
        assert_eq!((world.problems(leader), world.controllers[&leader].changes), (1, 0));
    }
}

#[test]
fn one_that_is_alone_waits_for_nobody_after_a_restart_but_for_a_stranger() {
    let mut world = World::new(7, 3);
    world.start(1, Memory::default());
    (1..=3).for_each(|dpid| world.connect(1, dpid));
    world.run(SECOND * 11);
    assert_eq!(world.leader(), Some(1));
    let memory = world.controllers.remove(&1).unwrap().memory;
    world.start(1, memory);
    (1..=3).for_each(|dpid| world.connect(1, dpid));
    world.run(SECOND / 10);
    assert_eq!(world.leader(), Some(1), "it knows its own");
    // Another one, with a state of its own, can't know whether the first one lives.
    world.controllers.clear();
    world.start(2, Memory::default());
    (1..=3).for_each(|dpid| world.connect(2, dpid));
    world.run(SECOND * 9);
    assert_eq!((world.leader(), world.problems(2)), (None, 1));
    world.run(SECOND * 4);
    assert_eq!((world.leader(), world.problems(2)), (Some(2), 0));
}
