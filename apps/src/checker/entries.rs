//! Each entry by itself: whose frames it takes, where it leads them, and by whose port they leave.

use openflow::action::Action;
use openflow::types::{DatapathId, PortNo};

use super::chains::Working;
use super::look::{Act, Changed, Does, Seen, act, looks_up};
use super::meaning::Held;
use super::surroundings::{Behind, Places, Steps, mark, station};
use super::ways::{Floods, Rule, Ways};
use super::{Checker, Here, Property, Violation, entry_name};
use crate::allocation::Numbers;
use crate::attachment::ServicePort;
use crate::desired::{Flow, FlowKey};
use crate::marks::{Mode, Owner, TreeVersion, group_version, metadata};
use crate::pipeline::{
    ADMIT, BALANCE, BEGIN, CLASSIFY, DELIVER, DRAIN, FLOOD, FORWARD, GUARD, LEARN, LIMIT_PORT, LIMIT_TENANT, RULES,
    STEER,
};
use crate::policy::{FunctionKind, Tenant};
use crate::view::Carrier;

/// Goes through what one owner has, bridge by bridge.
pub(super) struct Scan<'s, 'a> {
    pub(super) checker: &'s Checker<'a>,
    pub(super) owner: Owner,
    pub(super) tenant: Option<&'a Tenant>,
    pub(super) numbers: Option<Numbers>,
    pub(super) steps: &'s Steps<'a>,
    pub(super) places: &'s Places<'a>,
    pub(super) ways: Ways,
    floods: Floods,
    pub(super) working: Working,
    /// What frames of hosts are called where they enter at this bridge, and the ports that frames of functions come back from.
    pub(super) entered: Vec<u64>,
    pub(super) returning: Vec<PortNo>,
    /// By which ports the entry that is looked at sends frames, so changed. Kept for the next, empty: most entries send.
    pub(super) outs: Vec<(PortNo, Changed)>,
    /// What has been held against rules and chains.
    pub(super) held: Vec<Held<'s, 'a>>,
    pub(super) found: Vec<Violation>,
}

/// An entry in the course of being looked at.
#[derive(Clone, Copy)]
pub(super) struct Entry<'t> {
    pub(super) here: Here<'t>,
    pub(super) key: &'t FlowKey,
    pub(super) seen: Seen,
    pub(super) does: Does<'t>,
}

impl<'s, 'a> Scan<'s, 'a> {
    pub(super) fn new(
        checker: &'s Checker<'a>,
        owner: Owner,
        tenant: Option<&'a Tenant>,
        numbers: Option<Numbers>,
        steps: &'s Steps<'a>,
        places: &'s Places<'a>,
    ) -> Self {
        let (ways, floods, found) = (Ways::default(), Floods::default(), Vec::new());
        let working = tenant.zip(numbers).map(|(tenant, numbers)| Working::new(checker, tenant, numbers, steps));
        let working = working.unwrap_or_default();
        let (entered, returning, outs, held) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            checker,
            owner,
            tenant,
            numbers,
            steps,
            places,
            ways,
            floods,
            working,
            entered,
            returning,
            outs,
            held,
            found,
        }
    }

    /// What an owner is called.
    pub(super) fn name(&self) -> String {
        self.tenant
            .map_or_else(|| format!("nobody with key {}", self.owner.0), |tenant| format!("tenant {}", tenant.name))
    }

    pub(super) fn bridge(&mut self, here: Here<'s>) {
        self.floods.at(here.index);
        self.entered.clear();
        self.returning.clear();
        for (key, flow) in &here.section.flows {
            self.entry(here, key, flow);
        }
        if let (Some(tenant), Some(numbers)) = (self.tenant, self.numbers) {
            self.guarded(here, tenant, numbers);
            self.senders(here, tenant, numbers);
            self.meaning(here, tenant, numbers);
        }
    }

    pub(super) fn finish(mut self, dpids: &[DatapathId]) -> Vec<Violation> {
        let name =
            |index: u32| dpids.get(index as usize).map_or_else(String::new, |dpid| self.checker.bridge_name(*dpid));
        let texts: Vec<String> =
            self.ways.circles(name).into_iter().chain(self.floods.circles(self.places, name)).collect();
        let who = self.name();
        let of = |text| Violation { owner: self.owner, property: Property::Loop, text: format!("{who}: {text}") };
        self.found.extend(texts.into_iter().map(of));
        self.found
    }

    pub(super) fn tell(&mut self, entry: &Entry<'_>, property: Property, what: &str) {
        if entry.here.judged {
            let bridge = self.checker.bridge_name(entry.here.dpid);
            let text = format!("{} at bridge {bridge}, {}: {what}", self.name(), entry_name(entry.key));
            self.found.push(Violation { owner: self.owner, property, text });
        }
    }

    fn entry(&mut self, here: Here<'_>, key: &FlowKey, flow: &Flow) {
        let does = Does::of(&flow.instructions);
        if does.ends() {
            return;
        }
        let entry = Entry { here, key, seen: Seen::of(&key.matching), does };
        if does.else_ {
            self.tell(&entry, Property::Form, "has an instruction that no entry of ours has");
        }
        if does.goto.is_some_and(|table| table <= key.table) {
            self.tell(&entry, Property::Form, "leads back to an earlier table");
        }
        if let Some(meter) = does.meter.filter(|meter| !here.has_meter(*meter)) {
            self.tell(&entry, Property::Form, &format!("uses meter {}, which isn't there", meter.0));
        }
        if does.write.is_some_and(|(_, mask)| mask != u64::MAX) {
            self.tell(&entry, Property::Isolation, "writes a part of the metadata only");
        }
        match self.numbers {
            Some(numbers) if numbers.key == self.owner.0 => self.tenants(&entry, numbers),
            _ => self.nobodys(&entry),
        }
    }

    /// Entries that belong to no tenant hand copies to the controller, drop, and lead over limits that nobody has.
    fn nobodys(&mut self, entry: &Entry<'_>) {
        let fits = match entry.key.table {
            LIMIT_PORT => entry.does.goto == Some(LIMIT_TENANT),
            LIMIT_TENANT => entry.does.goto == Some(LEARN),
            _ => entry.does.goto.is_none(),
        };
        if !fits || entry.does.write.is_some() || self.owner != Owner::FABRIC {
            self.tell(entry, Property::Isolation, "takes frames in, or leads them on, for no tenant");
        }
        self.only_copies(entry);
    }

    /// Nothing leaves here but copies for the controller; gives how frames that go on are changed.
    fn only_copies(&mut self, entry: &Entry<'_>) -> Changed {
        let mut other = false;
        let mut missing = None;
        let changed = act(entry.does.actions, Changed::default(), |act| match act {
            Act::Copy(meter) => missing = missing.or((!entry.here.has_meter(meter)).then_some(meter)),
            _ => other = true,
        });
        if other {
            self.tell(entry, Property::Isolation, "does more than to hand copies to the controller");
        }
        if let Some(meter) = missing {
            self.tell(entry, Property::Form, &format!("uses meter {}, which isn't there", meter.0));
        }
        changed
    }

    fn tenants(&mut self, entry: &Entry<'_>, numbers: Numbers) {
        let key = numbers.key;
        let behind = entry.seen.in_port.map(|port| self.places.of(entry.here.index, port));
        let of_port = matches!(behind, Some(Behind::Tenant(whose) | Behind::Function(whose, ..)) if whose == key);
        let of_tenant = entry.seen.told(metadata::TENANT) == Some(u64::from(key));
        if entry.key.table != ADMIT && !of_tenant && !of_port {
            self.tell(entry, Property::Isolation, "takes frames that may be another tenant's");
        }
        let goes = |table| entry.does.goto == Some(table) && entry.does.write.is_none();
        let passes = match entry.key.table {
            ADMIT => return self.admits(entry, numbers),
            // What a port may not send is shown to the controller.
            GUARD if entry.does.goto.is_none() => entry.does.write.is_none(),
            GUARD => match behind {
                Some(Behind::Tenant(_)) => goes(LIMIT_PORT),
                Some(Behind::Function(..)) => goes(CLASSIFY),
                _ => false,
            },
            LIMIT_PORT => goes(LIMIT_TENANT),
            LIMIT_TENANT => goes(LEARN),
            LEARN => goes(RULES),
            RULES => return self.rules(entry, numbers),
            CLASSIFY => return self.classifies(entry, key),
            BALANCE if entry.does.goto == Some(BEGIN) => return self.weighs(entry, key),
            BALANCE | DRAIN => return self.balance(entry, key),
            BEGIN => return self.begins(entry, key),
            STEER => return self.steers(entry, numbers),
            DELIVER => return self.delivers(entry, numbers),
            FORWARD => return self.forwards(entry, numbers),
            FLOOD => return self.floods(entry, numbers),
            _ => false,
        };
        if !passes {
            self.tell(entry, Property::Form, "passes by a stage of the pipeline, or says anew whose frames they are");
        }
        if self.only_copies(entry) != Changed::default() {
            self.tell(entry, Property::Form, "changes frames where they only go on");
        }
    }

    /// Table 0 says whose a frame is: by a port of the tenant's, or by a mark on a link.
    fn admits(&mut self, entry: &Entry<'_>, numbers: Numbers) {
        let (here, seen, does) = (entry.here, entry.seen, entry.does);
        let Some(goto) = does.goto else {
            self.only_copies(entry);
            return;
        };
        let Some((value, _)) = does.write else {
            return self.tell(entry, Property::Isolation, "lets frames in without saying whose they are");
        };
        let changed = self.only_copies(entry);
        let key = u64::from(numbers.key);
        if value & metadata::TENANT != key {
            let whose = value & metadata::TENANT;
            return self.tell(
                entry,
                Property::Isolation,
                &format!("says that frames are of the tenant with key {whose}"),
            );
        }
        let Some(port) = seen.in_port else {
            return self.tell(entry, Property::Isolation, "lets frames in from any port");
        };
        let unchanged = changed == Changed::default();
        match self.places.of(here.index, port) {
            Behind::Tenant(whose) if whose == numbers.key => {
                let entered = value & !metadata::VERSION == key | metadata::EDGE;
                if !entered || goto != GUARD || !unchanged {
                    self.tell(entry, Property::Form, "lets a host's frames in otherwise than through rules and chains");
                } else if !self.entered.contains(&value) {
                    self.entered.push(value);
                }
            }
            Behind::Function(whose, service, _) if whose == numbers.key => {
                if service.kind == FunctionKind::Tap {
                    self.tell(
                        entry,
                        Property::Chain,
                        "lets in what a tap sends: who got copies would send them a second time",
                    );
                } else if value != key || goto != GUARD || !unchanged {
                    self.tell(entry, Property::Chain, "lets frames of a function in as if they hadn't passed it");
                } else {
                    self.returning.push(port);
                }
            }
            Behind::Link(link) => {
                let versions = || TreeVersion::ALL.into_iter();
                let mode = match goto {
                    FORWARD if value == key => Some(Mode::Normal),
                    FLOOD => versions().find(|it| value == metadata::flooded(numbers.key, *it)).map(Mode::Flood),
                    STEER if value == key | value & metadata::STEP => {
                        self.steps.waypoint(value).map(|(waypoint, ..)| Mode::Waypoint(waypoint))
                    }
                    _ => None,
                };
                let wanted = mode.and_then(|mode| mark(link.carrier, numbers, mode));
                let tunnel = match link.carrier {
                    Carrier::Dedicated(key) => Some(u64::from(key)),
                    _ => wanted.and_then(|mark| mark.tunnel),
                };
                let popped = u8::from(wanted.is_some_and(|mark| mark.tag.is_some()));
                let fits = wanted.is_some_and(|mark| (tunnel, mark.tag) == (seen.tunnel, seen.vlan)) && !seen.vague;
                if !fits || changed != (Changed { popped, ..Changed::default() }) {
                    let what = "takes frames in from a link by a mark that stands for something else";
                    self.tell(entry, Property::Isolation, what);
                } else if let Some(Mode::Flood(version)) = mode {
                    self.floods.admit(here.index, port, version);
                }
            }
            Behind::Tenant(whose) | Behind::Function(whose, ..) => {
                let whose = self.checker.tenants.get(&whose).map_or("another one", |tenant| &tenant.name);
                self.tell(entry, Property::Isolation, &format!("lets in frames of a port that is tenant {whose}'s"));
            }
            Behind::Nobody => self.tell(entry, Property::Isolation, "lets in frames of a port that isn't the tenant's"),
        }
    }

    fn rules(&mut self, entry: &Entry<'_>, numbers: Numbers) {
        let zone = numbers.vlan;
        let tracks = |act: &Act<'_>| {
            matches!(act, Act::Track(track) if looks_up(track, zone, RULES))
                && entry.seen.untracked
                && entry.does.goto.is_none()
        };
        let mut other = false;
        let changed = act(entry.does.actions, Changed::default(), |act| other |= !tracks(&act));
        let goes = entry.does.goto.is_none_or(|table| table == CLASSIFY) && entry.does.write.is_none();
        if other || !goes || changed != Changed::default() {
            self.tell(entry, Property::Form, "does something else than to let frames go on to the chains, or end");
        }
        if entry.seen.told(metadata::EDGE) != Some(metadata::EDGE) {
            self.tell(entry, Property::Form, "is for frames that didn't enter here");
        }
    }

    /// The step that an entry's frames are on, and none else's.
    pub(super) fn step(&mut self, entry: &Entry<'_>, key: u32) -> Option<u64> {
        let told = entry.seen.told(metadata::TENANT | metadata::STEP);
        let told = told.filter(|told| told & metadata::TENANT == u64::from(key));
        if told.is_none() {
            self.tell(entry, Property::Chain, "takes frames of several steps of chains");
        }
        told
    }

    fn balance(&mut self, entry: &Entry<'_>, key: u32) {
        let Some(told) = self.step(entry, key) else { return };
        let next = entry.does.write.map_or(0, |(value, _)| value);
        let of = |value| self.steps.of(value);
        let fits = match (of(told), self.steps.waypoint(next)) {
            (Some((step, direction)), Some((waypoint, function, _))) => {
                step.function().name == function.name && direction == waypoint.direction
            }
            _ => false,
        };
        let clean = next & !metadata::STEP == u64::from(key) && entry.does.actions.is_empty();
        if !fits || !clean || entry.does.goto != Some(STEER) {
            self.tell(entry, Property::Chain, "sends frames to something that is no instance of their function");
        }
    }

    fn steers(&mut self, entry: &Entry<'_>, numbers: Numbers) {
        let Some(told) = self.step(entry, numbers.key) else { return };
        let Some((waypoint, function, instance)) = self.steps.waypoint(told) else {
            return self.tell(entry, Property::Chain, "is for a step that no chain has");
        };
        let goes = entry.does.goto.is_some_and(|table| table != DELIVER);
        if goes || entry.does.write.is_some() {
            self.tell(entry, Property::Chain, "leads frames on past the function that they are on their way to");
        }
        if entry.does.goto.is_some() {
            return self.asks(entry, function, instance);
        }
        self.leave(entry, numbers, Mode::Waypoint(waypoint), |_, _| false, |_, _, _| false);
    }

    fn forwards(&mut self, entry: &Entry<'_>, numbers: Numbers) {
        let (seen, does) = (entry.seen, entry.does);
        if does.write.is_some() {
            self.tell(entry, Property::Isolation, "says anew whose frames they are");
        }
        if does.goto.is_none() && does.actions.is_empty() {
            return;
        }
        if let Some(goto) = does.goto {
            if goto != FLOOD || !does.actions.is_empty() {
                self.tell(entry, Property::Form, "leads frames to somewhere else than to be flooded");
            }
            if seen.told(metadata::EDGE) != Some(metadata::EDGE) {
                let what = "floods frames that came over links as known ones: bridges that differ could throw them back and forth";
                self.tell(entry, Property::Loop, what);
            }
            return;
        }
        let Some(to) = seen.destination else {
            return self.tell(entry, Property::Loop, "sends frames for several destinations the same way");
        };
        let tenant = self.tenant;
        self.leave(
            entry,
            numbers,
            Mode::Normal,
            |_, changed| *changed == Changed::default(),
            |service, _, changed| {
                let function = function_of(tenant, service);
                function.is_some_and(|function| station(function, &service.instance) == Some(to))
                    && service.kind == FunctionKind::Routed
                    && *changed == Changed::default()
            },
        );
    }

    fn floods(&mut self, entry: &Entry<'_>, numbers: Numbers) {
        if entry.does.goto.is_some() || entry.does.write.is_some() {
            self.tell(entry, Property::Form, "leads flooded frames on");
        }
        let edge = entry.seen.told(metadata::EDGE).map(|edge| edge != 0);
        let follows = entry.seen.told(metadata::TREE).map(metadata::tree);
        let sends = entry.does.actions.iter().find_map(sent_by).unwrap_or_default();
        if edge != Some(true) && follows != Some(sends) {
            self.tell(entry, Property::Loop, "sends frames on along another version of the tree than they came by");
        }
        let rule = Rule { at: entry.here.index, came_by: entry.seen.in_port, entered: edge, follows, set: 0 };
        // The same groups do the same, whatever port frames came by.
        if !self.floods.again(entry.does.actions, rule) {
            let own = |_: PortNo, changed: &Changed| *changed == Changed::default();
            let stations = |service: &ServicePort, _: &str, changed: &Changed| {
                service.kind == FunctionKind::Routed && *changed == Changed::default()
            };
            let ports = self.leave(entry, numbers, Mode::Flood(sends), own, stations);
            if self.floods.set(entry.does.actions, ports, sends, rule) {
                self.tell(entry, Property::Loop, "sends two copies of a frame out of one port");
            }
        }
    }
}

/// The version of the tree that copies by a group follow.
fn sent_by(action: &Action) -> Option<TreeVersion> {
    if let Action::Group { group } = action { Some(group_version(*group)) } else { None }
}

fn function_of<'a>(tenant: Option<&'a Tenant>, service: &ServicePort) -> Option<&'a crate::policy::Function> {
    tenant?.functions.iter().find(|function| function.name == service.function)
}
