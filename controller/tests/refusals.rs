//! Goal: whatever a bridge refuses is tried again after a pause, never at once and without end, and costs nobody else
//! anything. Method: the real core against a bridge that refuses what it is told to refuse.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apps::marks::{Owner, cookie, group_owner, receive_limit};
use apps::pipeline::{FORWARD, LIMIT_TENANT};
use apps::policy::{Source, load};
use controller::core::{Core, Effect, Event, Memory, SessionId, Settings};
use controller::snapshot::PolicyStatus;
use openflow::error::{BundleFailed, ErrorCode, ErrorMsg, FlowModFailed, GroupModFailed, MeterModFailed};
use openflow::experimenter::{BundleControl, BundleControlType, Experimenter};
use openflow::flow::FlowModCommand;
use openflow::instruction::Instruction;
use openflow::message::Message;
use openflow::meter::MeterModCommand;
use openflow::multipart::{MultipartReply, MultipartRequest, Part};
use openflow::peer::Identity;
use openflow::port::{Port, PortReason, PortStatus};
use openflow::switch::{Capabilities, FeaturesReply, Role};
use openflow::types::{DatapathId, MacAddr, MeterId, PortNo, Xid};
use openflow::wire::{Nothing, Payload};

const SESSION: SessionId = SessionId(1);

/// Entries that green has, by their table, priority and match, as far as the bridge took them.
type Held = BTreeSet<(u8, u16, String)>;

struct World {
    core: Core,
    now: Instant,
    knows_bundles: bool,
    /// Does it refuse that green gets entries?
    refuses_more: bool,
    /// Does it refuse that green loses entries?
    refuses_less: bool,
    /// Has it room for no group of green?
    refuses_groups: bool,
    /// How many meters it has room for, and those that it has.
    meters_max: usize,
    meters: BTreeSet<MeterId>,
    held: Held,
    /// How many entries orange has.
    of_orange: Held,
    /// What is in the bundle, and what of it is refused.
    bundle: Vec<(Xid, Message)>,
    /// Changes that were refused, one by one or as a bundle.
    refused: usize,
    notices: Vec<String>,
    to_core: VecDeque<(Xid, Message)>,
}

fn policy(green: &str, orange: &str) -> Event {
    let tenant = |name, key, port| {
        format!("[[tenant]]\nname = \"{name}\"\nkey = {key}\nports = [{{ bridge = \"*\", port = \"{port}\" }}]\n")
    };
    event(&format!("{}{}", tenant("green", 100, green), tenant("orange", 200, orange)))
}

fn event(text: &str) -> Event {
    let text = format!("version = 1\n{text}");
    let policy = load(&[Source { name: "p.toml".into(), text }]).expect("a sound policy").policy;
    Event::Policy(Arc::new(policy), PolicyStatus::default())
}

impl World {
    fn new(knows_bundles: bool) -> Self {
        let now = Instant::now();
        let settings = Settings { probe_key: [7; 32], memory: Memory::default(), bridges_max: 10 };
        Self {
            core: Core::new(now, settings),
            now,
            knows_bundles,
            refuses_more: false,
            refuses_less: false,
            refuses_groups: false,
            meters_max: usize::MAX,
            meters: BTreeSet::new(),
            held: Held::new(),
            of_orange: Held::new(),
            bundle: Vec::new(),
            refused: 0,
            notices: Vec::new(),
            to_core: VecDeque::new(),
        }
    }

    fn connect(&mut self) {
        let features = FeaturesReply {
            datapath: DatapathId(1),
            n_buffers: 0,
            n_tables: 254,
            auxiliary_id: 0,
            capabilities: Capabilities::empty(),
        };
        let port = |number, name| Port::new(PortNo(number), MacAddr([2, 0, 0, 0, 0, 1]), name);
        let ports = vec![port(1, "one"), port(2, "two"), port(3, "three")];
        let identity = Box::new(Identity { features, desc: None, ports, role: Role::Master, generation: None });
        self.event(Event::Connected { session: SESSION, address: SocketAddr::from(([127, 0, 0, 1], 9)), identity });
    }

    fn event(&mut self, event: Event) {
        for effect in self.core.handle(self.now, event) {
            match effect {
                Effect::Send { messages, .. } | Effect::SendFirst { messages, .. } => {
                    messages.into_iter().for_each(|(xid, message)| self.obey(xid, message));
                }
                Effect::Notice(_, text) => self.notices.push(text),
                Effect::Close { reason, .. } => panic!("closed: {reason}"),
                Effect::Save(_) => {}
            }
        }
    }

    /// For so long, in so many events at most.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..2000 {
            if let Some((xid, message)) = self.to_core.pop_front() {
                self.event(Event::Message { session: SESSION, xid, message });
                continue;
            }
            let due = self.core.deadline(self.now).unwrap_or(end).max(self.now);
            if due > end {
                self.now = end;
                return;
            }
            self.now = due;
            self.event(Event::Timer);
        }
        panic!("it never comes to rest: {} refusals; {:?}", self.refused, self.notices);
    }

    fn refuse(&mut self, xid: Xid, code: impl Into<ErrorCode>) {
        self.to_core.push_back((xid, Message::Error(ErrorMsg { code: code.into(), data: Payload::default() })));
    }

    /// What it has against a change.
    fn against(&self, message: &Message) -> Option<ErrorCode> {
        match message {
            Message::FlowMod(wanted) => {
                let used = |it: &Instruction| matches!(it, Instruction::Meter(id) if !self.meters.contains(id));
                let is_greens = cookie::owner(wanted.cookie) == Some(Owner(100));
                match wanted.command {
                    FlowModCommand::Add if wanted.instructions.iter().any(used) => {
                        Some(MeterModFailed::UnknownMeter.into())
                    }
                    FlowModCommand::Add => (self.refuses_more && is_greens).then_some(FlowModFailed::TableFull.into()),
                    _ => (self.refuses_less && self.held.contains(&place(message)))
                        .then_some(FlowModFailed::TableFull.into()),
                }
            }
            Message::GroupMod(wanted) => (self.refuses_groups && group_owner(wanted.group) == Owner(100))
                .then_some(GroupModFailed::OutOfGroups.into()),
            Message::MeterMod(wanted) => (wanted.command == MeterModCommand::Add
                && self.meters.len() >= self.meters_max)
                .then_some(MeterModFailed::OutOfMeters.into()),
            _ => None,
        }
    }

    fn make(&mut self, message: &Message) {
        match message {
            Message::FlowMod(wanted) => {
                self.held.remove(&place(message));
                self.of_orange.remove(&place(message));
                match cookie::owner(wanted.cookie).filter(|_| wanted.command == FlowModCommand::Add) {
                    Some(Owner(100)) => _ = self.held.insert(place(message)),
                    Some(Owner(200)) => _ = self.of_orange.insert(place(message)),
                    _ => {}
                }
            }
            Message::MeterMod(wanted) if wanted.command == MeterModCommand::Add => {
                self.meters.insert(wanted.meter);
            }
            Message::MeterMod(wanted) if wanted.command == MeterModCommand::Delete => {
                self.meters.remove(&wanted.meter);
            }
            _ => {}
        }
    }

    fn obey(&mut self, xid: Xid, message: Message) {
        let told = match message {
            Message::BarrierRequest(_) => Message::BarrierReply(Nothing),
            Message::MultipartRequest(Part { body, .. }) => Message::MultipartReply(Part::whole(match body {
                MultipartRequest::Flow(_) => MultipartReply::Flow(Vec::new()),
                MultipartRequest::GroupDesc(_) => MultipartReply::GroupDesc(Vec::new()),
                MultipartRequest::MeterConfig(_) => MultipartReply::MeterConfig(Vec::new()),
                _ => return,
            })),
            Message::Experimenter(Experimenter::BundleControl(control)) if self.knows_bundles => {
                let bundle = std::mem::take(&mut self.bundle);
                let kind = match control.kind {
                    BundleControlType::OpenRequest => BundleControlType::OpenReply,
                    BundleControlType::CommitRequest => {
                        let against = |(xid, message): &(Xid, Message)| Some((*xid, self.against(message)?));
                        if let Some((first, code)) = bundle.iter().find_map(against) {
                            self.refused += 1;
                            self.refuse(first, code);
                            return self.refuse(xid, BundleFailed::MsgFailed);
                        }
                        bundle.iter().for_each(|(_, message)| self.make(message));
                        BundleControlType::CommitReply
                    }
                    _ => return,
                };
                Message::Experimenter(Experimenter::BundleControl(BundleControl { kind, ..control }))
            }
            Message::Experimenter(Experimenter::BundleAdd(add)) => return self.bundle.push((add.xid, *add.message)),
            Message::Experimenter(_) => return self.refuse(xid, openflow::error::BadRequest::BadExperimenter),
            change => match self.against(&change) {
                None => return self.make(&change),
                Some(code) => {
                    self.refused += 1;
                    return self.refuse(xid, code);
                }
            },
        };
        self.to_core.push_back((xid, told));
    }

    fn problems(&self) -> Vec<String> {
        self.core.snapshot(self.now).status.problems
    }
}

fn place(message: &Message) -> (u8, u16, String) {
    match message {
        Message::FlowMod(wanted) => (wanted.table.0, wanted.priority, wanted.matching.to_string()),
        other => panic!("{} is no entry", other.name()),
    }
}

/// Shorter than the time after which groups are asked for, which this bridge doesn't keep.
const SOON: Duration = Duration::from_millis(900);

/// The same where two such times have to fit in, and a retry.
const QUICK: Duration = Duration::from_millis(100);

/// A bridge that is filled for the first time gets all in one phase: nothing comes behind it that could be put off.
#[test]
fn what_is_refused_in_the_last_phase_is_no_end_of_the_round() {
    for knows_bundles in [false, true] {
        let mut world = World::new(knows_bundles);
        world.refuses_more = true;
        world.event(policy("one", "two"));
        world.connect();
        world.run(SOON);
        let problems = world.problems();
        assert!(problems.iter().any(|text| text.contains("refused an entry of tenant green")), "{problems:?}");
        assert!(!world.core.snapshot(world.now).status.converged);
        assert!(world.held.is_empty(), "{:?}", world.held);
    }
}

/// Green loses a port to nobody and gets a rule that drops, for which there is no room: the port goes all the same.
#[test]
fn what_is_no_longer_wanted_goes_even_if_what_is_new_is_refused() {
    for knows_bundles in [false, true] {
        let mut world = World::new(knows_bundles);
        let fabric = "[fabric]\nlinks = [\"tun-*\"]\n";
        let ports = |list: &str| format!("{fabric}[[tenant]]\nname = \"green\"\nkey = 100\nports = [{list}]\n");
        let (one, three) = ("{ bridge = \"*\", port = \"one\" }", ", { bridge = \"*\", port = \"three\" }");
        let rule =
            "[[tenant.rule]]\nname = \"r\"\nmatch = { protocol = \"tcp\", destination_port = 23 }\naction = \"drop\"\n";
        world.event(event(&ports(&format!("{one}{three}"))));
        world.connect();
        world.run(SOON);
        let of_three = |world: &World| world.held.iter().filter(|(.., text)| text.contains("in_port=3")).count();
        assert!(of_three(&world) > 0, "{:?}", world.held);
        world.refuses_more = true;
        world.event(event(&format!("{}{rule}", ports(one))));
        world.run(SOON);
        assert!(world.refused > 0);
        assert_eq!(of_three(&world), 0, "bundles: {knows_bundles}, {:?}", world.held);
    }
}

/// Green's port goes to orange, but the bridge won't take it away from green: it can't be worked with.
#[test]
fn a_bridge_that_keeps_what_goes_to_another_rests_as_a_whole() {
    for knows_bundles in [false, true] {
        let mut world = World::new(knows_bundles);
        world.event(policy("one", "two"));
        world.connect();
        world.run(SOON);
        assert!(world.core.snapshot(world.now).status.converged && !world.held.is_empty());
        world.refuses_less = true;
        world.event(policy("three", "one"));
        world.run(SOON);
        assert!((1..=200).contains(&world.refused), "{}", world.refused);
        assert!(
            world.problems().iter().any(|text| text.contains("refused to remove an entry")),
            "{:?}",
            world.problems()
        );
        assert!(!world.core.snapshot(world.now).status.converged);
    }
}

/// Green with what the policy says of it, and orange.
fn limited(green: &str) -> Event {
    let tenant = |name, key, port, more| {
        let ports = format!("ports = [{{ bridge = \"*\", port = \"{port}\" }}]");
        format!("[[tenant]]\nname = \"{name}\"\nkey = {key}\n{more}\n{ports}\n")
    };
    let (green, orange) = (tenant("green", 100, "one", green), tenant("orange", 200, "two", ""));
    event(&format!("[fabric]\nlinks = [\"tun-*\"]\n{green}{orange}"))
}

/// There is no room for the meter of green's new limit: green keeps what it has, and whoever comes meanwhile gets what it should.
#[test]
fn a_meter_that_is_refused_costs_the_tenant_that_it_is_for() {
    for knows_bundles in [false, true] {
        let mut world = World::new(knows_bundles);
        world.event(limited(""));
        world.connect();
        world.run(QUICK);
        assert!(world.core.snapshot(world.now).status.converged);
        let before = (world.held.clone(), world.of_orange.clone());
        assert!(!before.0.is_empty() && !before.1.is_empty());
        world.meters_max = world.meters.len();
        world.event(limited("rate_limit = \"1 Mbit/s\""));
        world.run(QUICK);
        let problems = world.problems();
        let told =
            problems.iter().find(|text| text.contains("refused meter")).unwrap_or_else(|| panic!("{problems:?}"));
        for part in [
            "meter 131073 of tenant green (rate_limit, p.toml:",
            "OFPMMFC_OUT_OF_METERS",
            "have fewer rate limits",
            "tenant green gets along without this bridge",
        ] {
            assert!(told.contains(part), "no {part} in {told}");
        }
        assert!(!problems.iter().any(|text| text.contains("fabric")), "{problems:?}");
        assert_eq!((&world.held, &world.of_orange), (&before.0, &before.1), "bundles: {knows_bundles}");
        let status = world.core.snapshot(world.now);
        assert!(!status.status.converged && status.bridges[0].problems.iter().any(|text| text == told), "{status:?}");

        // It isn't asked again and again, and others' changes go through.
        let refused = world.refused;
        world.meters_max += 2;
        world.event(Event::Timer);
        world.run(Duration::from_millis(50));
        assert_eq!(world.refused, refused);

        // There is room again: nobody has to do anything more.
        world.meters_max = usize::MAX;
        world.run(Duration::from_secs(1));
        assert_eq!(world.problems(), [""; 0], "bundles: {knows_bundles}");
        assert!(world.core.snapshot(world.now).status.converged);
        assert!(world.meters.contains(&MeterId(0x2_0001)));
        assert!(world.held.iter().any(|(table, ..)| *table == LIMIT_TENANT.0), "{:?}", world.held);
    }
}

/// While green's meter is refused, orange loses its port and gets it back: green's limit isn't tried with that.
#[test]
fn others_come_and_go_while_a_meter_is_refused() {
    for knows_bundles in [false, true] {
        let mut world = World::new(knows_bundles);
        world.event(limited(""));
        world.connect();
        world.run(QUICK);
        world.meters_max = world.meters.len();
        world.event(limited("rate_limit = \"1 Mbit/s\""));
        world.run(QUICK);
        let (refused, orange) = (world.refused, world.of_orange.clone());
        let message = |reason| {
            let port = Port::new(PortNo(2), MacAddr([2, 0, 0, 0, 0, 1]), "two");
            Message::PortStatus(PortStatus { reason, port })
        };
        for (reason, there) in [(PortReason::Delete, Held::new()), (PortReason::Add, orange)] {
            world.event(Event::Message { session: SESSION, xid: Xid(0), message: message(reason) });
            world.run(QUICK);
            assert!(!world.meters.contains(&MeterId(0x2_0001)), "it isn't tried beside what others get");
            assert_eq!((world.refused, &world.of_orange), (refused, &there), "bundles: {knows_bundles}");
        }
    }
}

/// A limit of what green's port is sent goes, but the bridge won't take the entry without it: it keeps the old one, whose meter
/// has to stay, as the entry would go with it.
#[test]
fn who_keeps_what_he_has_keeps_its_meter() {
    for knows_bundles in [false, true] {
        let mut world = World::new(knows_bundles);
        let green = |more: &str| {
            event(&format!(
                "[fabric]\nlinks = [\"tun-*\"]\n[[tenant]]\nname = \"green\"\nkey = 100\n\
                 ports = [{{ bridge = \"0000000000000001\", port = \"one\", mac = \"02:00:00:00:00:05\"{more} }}]\n"
            ))
        };
        let (meter, forward) =
            (receive_limit(PortNo(1)).unwrap(), |held: &Held| held.iter().any(|it| it.0 == FORWARD.0));
        world.event(green(", rate_limit_to = \"1 Mbit/s\""));
        world.connect();
        world.run(QUICK);
        assert!(world.meters.contains(&meter) && forward(&world.held), "{:?}", world.held);
        world.refuses_more = true;
        world.event(green(""));
        world.run(QUICK);
        assert!(world.refused > 0 && forward(&world.held) && world.meters.contains(&meter), "{:?}", world.meters);
        world.refuses_more = false;
        world.run(Duration::from_secs(1));
        assert!(forward(&world.held) && !world.meters.contains(&meter), "bundles: {knows_bundles}");
        assert!(world.core.snapshot(world.now).status.converged);
    }
}

/// There is no room for a group of green.
#[test]
fn a_group_that_is_refused_costs_its_tenant() {
    for knows_bundles in [false, true] {
        let mut world = World::new(knows_bundles);
        world.refuses_groups = true;
        world.event(limited(""));
        world.connect();
        world.run(SOON);
        let problems = world.problems();
        let told = problems.iter().find(|text| text.contains("of tenant green, p.toml:")).expect("it is told");
        assert!(told.contains("refused group") && told.contains("OFPGMFC_OUT_OF_GROUPS"), "{told}");
        // Without bundles it keeps what came beside the group.
        assert!(!world.of_orange.is_empty() && (world.held.is_empty() || !knows_bundles), "bundles: {knows_bundles}");
        world.refuses_groups = false;
        world.run(Duration::from_secs(5));
        assert!(world.core.snapshot(world.now).status.converged && !world.held.is_empty());
    }
}

/// The only port of green is gone just when what the bridge refused would be tried again.
#[test]
fn nobody_waits_for_what_nobody_wants_any_more() {
    let mut world = World::new(true);
    world.refuses_more = true;
    world.event(policy("one", "two"));
    world.connect();
    world.run(SOON);
    assert!(world.problems().iter().any(|text| text.contains("refused an entry")), "{:?}", world.problems());
    world.now += Duration::from_millis(300);
    let port = Port::new(PortNo(1), MacAddr([2, 0, 0, 0, 0, 1]), "one");
    let message = Message::PortStatus(PortStatus { reason: PortReason::Delete, port });
    world.event(Event::Message { session: SESSION, xid: Xid(0), message });
    world.run(Duration::from_millis(100));
    let problems = world.problems();
    assert!(
        matches!(problems.as_slice(), [one] if one.contains("selects nothing: no port of that name is there")),
        "{problems:?}"
    );
    assert!(world.core.snapshot(world.now).status.converged);
}
