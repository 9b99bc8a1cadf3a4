//! Goal: whatever a bridge refuses is tried again after a pause, never at once and without end, and costs nobody else
//! anything. Method: the real core against a bridge that refuses what it is told to refuse.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apps::marks::{Owner, cookie};
use apps::policy::{Source, load};
use controller::core::{Core, Effect, Event, Memory, SessionId, Settings};
use controller::snapshot::PolicyStatus;
use openflow::error::{BundleFailed, ErrorCode, ErrorMsg, FlowModFailed};
use openflow::experimenter::{BundleControl, BundleControlType, Experimenter};
use openflow::flow::FlowModCommand;
use openflow::message::Message;
use openflow::multipart::{MultipartReply, MultipartRequest, Part};
use openflow::peer::Identity;
use openflow::port::{Port, PortReason, PortStatus};
use openflow::switch::{Capabilities, FeaturesReply, Role};
use openflow::types::{DatapathId, MacAddr, PortNo, Xid};
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
    held: Held,
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
            held: Held::new(),
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
        let identity = Box::new(Identity { features, desc: None, ports, role: Role::Master });
        self.event(Event::Connected { session: SESSION, address: SocketAddr::from(([127, 0, 0, 1], 9)), identity });
    }

    fn event(&mut self, event: Event) {
        for effect in self.core.handle(self.now, event) {
            match effect {
                Effect::Send { messages, .. } => {
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

    /// Does it take this change, if it is one of green's entries?
    fn takes(&self, message: &Message) -> bool {
        let Message::FlowMod(wanted) = message else { return true };
        match wanted.command {
            FlowModCommand::Add => !self.refuses_more || cookie::owner(wanted.cookie) != Some(Owner(100)),
            _ => !self.refuses_less || !self.held.contains(&place(message)),
        }
    }

    fn make(&mut self, message: &Message) {
        if let Message::FlowMod(wanted) = message {
            self.held.remove(&place(message));
            if wanted.command == FlowModCommand::Add && cookie::owner(wanted.cookie) == Some(Owner(100)) {
                self.held.insert(place(message));
            }
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
                        if let Some((first, _)) = bundle.iter().find(|(_, message)| !self.takes(message)) {
                            self.refused += 1;
                            self.refuse(*first, FlowModFailed::TableFull);
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
            change if self.takes(&change) => return self.make(&change),
            _ => {
                self.refused += 1;
                return self.refuse(xid, FlowModFailed::TableFull);
            }
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
    assert_eq!(world.problems(), [""; 0]);
    assert!(world.core.snapshot(world.now).status.converged);
}
