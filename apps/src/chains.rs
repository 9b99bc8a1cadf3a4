//! Service chains (RFC 7665): which functions a frame passes, by which instance of each, and what comes next when it comes
//! back. Which position of its chain a frame has reached is told by the port that it comes back from, never by what it
//! looks like: functions may rewrite frames. Only where the port doesn't tell is the frame held against the classifiers
//! again.

mod informed;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use openflow::action::{Action, BitRange, HashFields, Multipath, MultipathAlgorithm, Nested};
use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::{FieldId, Oxm};
use openflow::types::{DatapathId, MacAddr, PortNo, TableId};

use crate::allocation::{self, Allocations};
use crate::assigned::ethertype::TAGS;
use crate::attachment::Attachments;
use crate::balance::SLOTS;
use crate::classifiers::{FRAGMENT, expand, of_fragments};
use crate::desired::{Draft, FlowKey, SectionBuilder, drop, go};
use crate::drain::choose;
use crate::marks::{Direction, Mode, Owner, Waypoint, chain_limit, metadata, step_of, vlan_id};
use crate::pipeline::{BALANCE, CLASSIFY, FORWARD, STEER};
use crate::policy::{Chain, FunctionKind, Instance, OnFailure, ShareBy, Tenant};
use crate::rules::discovery;
use crate::services::{Health, Reach, Service, place};
use crate::tenants::GROUP_BIT;
use crate::view::{Endpoint, View};

/// What tells frames on their way to a waypoint, in the table that steers them.
pub fn steered(key: u32, waypoint: Waypoint) -> FlowKey {
    let step = metadata::step(key, step_of(waypoint.numbers.key), waypoint.direction);
    let matching = Match::new([Oxm::Metadata(step, Some(metadata::TENANT | metadata::STEP))]);
    FlowKey { table: STEER, priority: 10, matching }
}

/// What comes next for a frame: copies for taps, then something else.
struct Next<'s, 'a> {
    taps: Vec<&'s Service<'a>>,
    then: Then<'s, 'a>,
}

enum Then<'s, 'a> {
    /// A function.
    To(&'s Service<'a>),
    /// The way to its destination.
    Leave,
    /// Nothing: the function that would be next can't be told from others, or it is only at bridges that don't know what to do.
    End,
}

/// What an entry is for: whole packets, or anything else that no entry of fragments takes; or fragments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packet {
    Whole,
    Fragment,
}

/// The chains of a tenant, and where their functions are.
pub struct Chains<'a> {
    tenant: &'a Tenant,
    key: u32,
    allocations: &'a Allocations,
    services: BTreeMap<&'a str, Service<'a>>,
    /// Chains in the order in which they are held against a frame.
    ranked: Vec<(&'a Chain, Direction)>,
}

impl<'a> Chains<'a> {
    /// Finds the tenant's functions in the fabric.
    pub fn new(
        tenant: &'a Tenant,
        key: u32,
        allocations: &'a Allocations,
        attachments: &Attachments,
        view: &View,
    ) -> Self {
        let services = place(tenant, allocations, attachments, view);
        let both = tenant.chains.iter().flat_map(|chain| {
            let directions = if chain.symmetric { &Direction::ALL[..] } else { &Direction::ALL[..1] };
            directions.iter().map(move |direction| (chain, *direction))
        });
        let mut ranked: Vec<_> = both.collect();
        ranked.sort_by_key(|(chain, direction)| (Reverse(chain.priority), *direction));
        let mut chains = Self { tenant, key, allocations, services, ranked };
        chains.leave_out_uninformed(view);
        chains
    }

    /// The tenant's functions, by name.
    pub fn services(&self) -> &BTreeMap<&'a str, Service<'a>> {
        &self.services
    }

    /// The functions that frames are sent to, each with the directions in which they go in.
    pub(crate) fn used(&self) -> BTreeSet<(&'a str, Direction)> {
        let mut used = BTreeSet::new();
        for (chain, direction) in &self.ranked {
            let services = chain.through.iter().filter_map(|name| self.services.get(name.as_str()));
            used.extend(services.map(|service| (service.function.name.as_str(), service.side(*direction))));
        }
        used
    }

    /// All places that frames are sent to.
    pub(crate) fn waypoints(&self) -> Vec<(Waypoint, Endpoint, &'a Instance)> {
        let mut waypoints = Vec::new();
        for (name, direction) in self.used() {
            let Some(service) = self.services.get(name) else { continue };
            for placed in service.instances.iter().filter(|placed| placed.health != Health::Failed && placed.informed) {
                if let Some(place) = placed.ingress(direction) {
                    waypoints.push((placed.waypoint(direction), place, placed.instance));
                }
            }
        }
        waypoints
    }

    /// Functions that route are stations among the tenant's others: they are asked for addresses, and ask.
    pub(crate) fn stations(&self) -> BTreeMap<MacAddr, Endpoint> {
        let routed = self.services.values().filter(|service| service.function.kind == FunctionKind::Routed);
        let placed = routed.flat_map(|service| &service.instances).filter(|placed| placed.health != Health::Failed);
        placed.filter_map(|placed| Some((placed.instance.mac?, placed.ingress(Direction::Forward)?))).collect()
    }

    /// The ports that frames come back from at a bridge.
    fn returns(&self, at: DatapathId) -> Vec<(PortNo, &Service<'a>, &'a Instance, Vec<Direction>)> {
        let mut returns = Vec::new();
        for service in self.services.values().filter(|service| service.function.kind != FunctionKind::Tap) {
            for placed in &service.instances {
                for (direction, place) in placed.ports.iter().filter(|(_, place)| place.bridge == at) {
                    // What went in by the other port comes out of this one.
                    let came = match (service.has_two_ports(), direction) {
                        (false, Direction::Forward) => Direction::ALL.to_vec(),
                        (false, Direction::Reverse) => continue,
                        (true, Direction::Forward) => vec![Direction::Reverse],
                        (true, Direction::Reverse) => vec![Direction::Forward],
                    };
                    returns.push((place.port, service, placed.instance, came));
                }
            }
        }
        returns
    }

    /// The ports of functions at a bridge.
    pub(crate) fn ports(&self, at: DatapathId) -> BTreeSet<PortNo> {
        let placed = self.services.values().flat_map(|service| &service.instances);
        placed.flat_map(|it| it.ports.values()).filter(|place| place.bridge == at).map(|place| place.port).collect()
    }

    /// The bridges that frames may come back from.
    pub(crate) fn bridges(&self) -> BTreeSet<DatapathId> {
        let placed = self.services.values().flat_map(|service| &service.instances);
        placed.flat_map(|placed| placed.ports.values().map(|place| place.bridge)).collect()
    }

    /// What comes after a function; `None`: at the beginning.
    fn next(
        &self,
        chain: &'a Chain,
        direction: Direction,
        after: Option<&str>,
        at: DatapathId,
        reach: &Reach<'_>,
    ) -> Next<'_, 'a> {
        let mut names: Vec<&str> = chain.through.iter().map(String::as_str).collect();
        if direction == Direction::Reverse {
            names.reverse();
        }
        let passed = after.and_then(|after| names.iter().position(|name| *name == after)).map_or(0, |index| index + 1);
        let mut taps = Vec::new();
        for name in names.into_iter().skip(passed) {
            // One that there was no number for can't be reached, nor told to be bypassed.
            let Some(service) = self.services.get(name) else { return Next { taps, then: Then::End } };
            let none = service.candidates(at, reach).is_empty();
            let uninformed = service.instances.iter().any(|placed| !placed.informed);
            match service.function.kind {
                FunctionKind::Tap if none => {}
                FunctionKind::Tap => taps.push(service),
                _ if none && service.function.on_failure == OnFailure::Bypass => {}
                // The way there goes only when this is in force.
                _ if none && uninformed => return Next { taps, then: Then::End },
                _ => return Next { taps, then: Then::To(service) },
            }
        }
        Next { taps, then: Then::Leave }
    }

    /// What sends a whole packet, or a fragment, to a function: actions, metadata, and the table that goes on.
    fn enter(&self, service: &Service<'a>, direction: Direction, of: Packet) -> (Vec<Action>, u64, TableId) {
        let side = service.side(direction);
        if let [placed] = service.instances.as_slice() {
            return (Vec::new(), metadata::step(self.key, step_of(placed.numbers.key), side), STEER);
        }
        let (Some(dst), Some(range)) = (FieldId::named("reg0"), BitRange::new(0, 16)) else {
            return (Vec::new(), 0, STEER);
        };
        let hash = Action::Multipath(Multipath {
            fields: match (of, service.function.share_by) {
                (Packet::Whole, ShareBy::Connections) => HashFields::SymmetricL3l4Udp,
                // All that fragments of IPv6 have in common.
                _ => HashFields::SymmetricL3,
            },
            // Each function chooses by itself.
            basis: step_of(service.numbers.key),
            algorithm: MultipathAlgorithm::Hrw,
            max_link: SLOTS - 1,
            argument: 0,
            range,
            dst,
        });
        (vec![hash], metadata::step(self.key, step_of(service.numbers.key), side), BALANCE)
    }

    fn instructions(&self, next: &Next<'_, 'a>, direction: Direction, of: Packet) -> Vec<Instruction> {
        let mut actions = Vec::new();
        for tap in &next.taps {
            let (mut copy, metadata, table) = self.enter(tap, direction, of);
            copy.push(Action::SetField(Oxm::Metadata(metadata, None)));
            copy.push(Action::resubmit(table));
            actions.push(Action::Clone(Nested(copy)));
        }
        let mut instructions = match next.then {
            Then::Leave => self.leave(),
            Then::End => drop(),
            Then::To(service) => {
                let (more, metadata, table) = self.enter(service, direction, of);
                actions.extend(more);
                vec![Instruction::WriteMetadata { metadata, mask: u64::MAX }, Instruction::GotoTable(table)]
            }
        };
        if !actions.is_empty() {
            instructions.insert(0, Instruction::ApplyActions(actions));
        }
        instructions
    }

    /// What sends a frame to its destination, as if it entered here.
    fn leave(&self) -> Vec<Instruction> {
        let metadata = metadata::edge(self.key);
        vec![Instruction::WriteMetadata { metadata, mask: u64::MAX }, Instruction::GotoTable(FORWARD)]
    }

    /// The entries that find the chain of a frame that enters at a bridge.
    pub(crate) fn classify(&self, at: DatapathId, reach: &Reach<'_>) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for (rank, (chain, direction)) in (0..).zip(&self.ranked) {
            let next = self.next(chain, *direction, None, at, reach);
            let meter =
                self.allocations.of(&allocation::chain(self.tenant, chain)).filter(|_| chain.rate_limit.is_some());
            let meter = meter.map(|numbers| Instruction::Meter(chain_limit(step_of(numbers.key))));
            for (priority, of, matching) in self.asked(rank, chain, *direction) {
                let then = self.instructions(&next, *direction, of);
                drafts.push(Draft {
                    table: CLASSIFY,
                    priority,
                    matching,
                    instructions: meter.iter().cloned().chain(then).collect(),
                    origin: chain.origin.clone(),
                });
            }
        }
        drafts
    }

    /// What tells the frames of the chain that is asked at this place in the order, with priorities. Which fragments are the chain's can't
    /// be told by ports, or by a protocol that only the first has: all that may be are, lest one goes round its functions, or two of a datagram
    /// take different ways.
    fn asked(&self, rank: u16, chain: &Chain, direction: Direction) -> Vec<(u16, Packet, Match)> {
        let matches = match direction {
            Direction::Forward => expand(&chain.classifiers, chain.broadcast),
            Direction::Reverse => {
                let reversed: Vec<_> = chain.classifiers.iter().map(|it| it.reversed()).collect();
                expand(&reversed, chain.broadcast)
            }
        };
        let fragments = of_fragments(&matches, &FRAGMENT, self.shares(chain));
        let of = |of, matches: BTreeSet<Match>| {
            matches.into_iter().map(move |matching| (FIRST - 2 * rank - u16::from(of == Packet::Whole), of, matching))
        };
        of(Packet::Fragment, fragments).chain(of(Packet::Whole, matches)).collect()
    }

    /// Are fragments shared among instances in another way than whole packets?
    fn shares(&self, chain: &Chain) -> bool {
        let mut services = chain.through.iter().filter_map(|name| self.services.get(name.as_str()));
        services.any(|it| it.instances.len() > 1 && it.function.share_by == ShareBy::Connections)
    }

    /// The entries that send frames on that come back from functions at a bridge. Gives the ports at which some may.
    pub(crate) fn go_on(&self, builder: &mut SectionBuilder, at: DatapathId, reach: &Reach<'_>) -> Vec<PortNo> {
        let mut ports = Vec::new();
        for (port, service, instance, came) in self.returns(at) {
            let name = service.function.name.as_str();
            let ways: Vec<_> = self
                .passing(name, &came)
                .map(|(chain, direction)| {
                    let next = self.next(chain, direction, Some(name), at, reach);
                    let of = |of| self.instructions(&next, direction, of);
                    (chain, direction, [of(Packet::Whole), of(Packet::Fragment)])
                })
                .collect();
            let Some((.., first)) = ways.first() else { continue };
            ports.push(port);
            let here = || self.back(port);
            if service.function.kind == FunctionKind::Routed {
                // What was for a router that is down isn't what a router asks and answers.
                let own = metadata::TENANT | metadata::EDGE | metadata::DIVERTED;
                let own = || [Oxm::InPort(port, None), Oxm::Metadata(metadata::link(self.key), Some(own))];
                for fields in discovery() {
                    let fields = fields.into_iter().chain(own());
                    builder.about(&instance.origin).flow(CLASSIFY, FIRST + 1, fields, self.leave());
                }
            }
            if ways.iter().all(|(.., instructions)| instructions == first) {
                let [whole, fragment] = first;
                for (priority, of, matching) in self.all_back(port, ways.iter().any(|(chain, ..)| chain.broadcast)) {
                    let fields = matching.fields().iter().cloned();
                    let then = if of == Packet::Whole { whole } else { fragment };
                    if of == Packet::Whole || fragment != whole {
                        builder.about(&instance.origin).flow(CLASSIFY, priority, fields, then.clone());
                    }
                }
                continue;
            }
            // What is led past by a function that is down came over a link. If that marks frames with a tag, nothing is known of what is
            // behind a tag of the sender's own, and which chain is next can't be told.
            let past = Oxm::Metadata(
                metadata::link(self.key) | metadata::DIVERTED,
                Some(metadata::TENANT | metadata::EDGE | metadata::DIVERTED),
            );
            for tag in TAGS {
                let fields = [Oxm::InPort(port, None), past.clone(), Oxm::EthType(tag, None)];
                builder.about(&instance.origin).flow(CLASSIFY, FIRST + 1, fields, drop());
            }
            for (rank, (chain, direction, [whole, fragment])) in (0..).zip(&ways) {
                for (priority, of, matching) in self.asked(rank, chain, *direction) {
                    let fields = matching.fields().iter().cloned().chain(here());
                    let then = if of == Packet::Whole { whole } else { fragment };
                    builder.about(&chain.origin).flow(CLASSIFY, priority, fields, then.clone());
                }
            }
        }
        ports
    }

    /// The chains through a function in which frames have come there by one of these ways, in the order in which they are held
    /// against a frame.
    fn passing<'s>(
        &'s self,
        function: &'s str,
        came: &'s [Direction],
    ) -> impl Iterator<Item = (&'a Chain, Direction)> + use<'s, 'a> {
        let passes = move |(chain, direction): &&(&Chain, Direction)| {
            came.contains(direction) && chain.through.iter().any(|name| name == function)
        };
        self.ranked.iter().filter(passes).map(|(chain, direction)| (*chain, *direction))
    }

    /// Frames that come back from a function by this port. Where the port goes to somebody else, or back to the tenant's own
    /// hosts, what those send is none.
    fn back(&self, port: PortNo) -> [Oxm; 2] {
        let back = Oxm::Metadata(metadata::link(self.key), Some(metadata::TENANT | metadata::EDGE));
        [Oxm::InPort(port, None), back]
    }

    /// All of them that a chain may be for, with priorities; fragments by themselves, too.
    fn all_back(&self, port: PortNo, broadcast: bool) -> Vec<(u16, Packet, Match)> {
        let to_one = Oxm::EthDst(MacAddr::default(), Some(GROUP_BIT));
        let all = BTreeSet::from([Match::new(self.back(port).into_iter().chain((!broadcast).then_some(to_one)))]);
        let fragments = of_fragments(&all, &FRAGMENT, true).into_iter().map(|it| (FIRST, Packet::Fragment, it));
        fragments.chain(all.into_iter().map(|it| (FIRST - 1, Packet::Whole, it))).collect()
    }

    /// The entries that choose among instances at a bridge, for all functions that have several.
    pub(crate) fn balance(&self, builder: &mut SectionBuilder, at: DatapathId, reach: &Reach<'_>) {
        let mut used: BTreeSet<(&str, Direction)> = BTreeSet::new();
        for (chain, direction) in &self.ranked {
            used.extend(chain.through.iter().map(|name| (name.as_str(), *direction)));
        }
        let used = used.into_iter().filter_map(|(name, direction)| {
            let service = self.services.get(name).filter(|service| service.instances.len() > 1)?;
            Some((name, service.side(direction)))
        });
        for (name, side) in used.collect::<BTreeSet<_>>() {
            let Some(service) = self.services.get(name) else { continue };
            choose(builder, Owner(self.key), service, side, &service.candidates(at, reach));
        }
    }

    /// VLAN ids that mark frames on their way to the tenant's functions, those that it had included: as long as some bridge
    /// may send frames so marked, none may take them for the tenant's own.
    pub(crate) fn marks(&self) -> BTreeSet<u16> {
        let instances = self.allocations.instances(&self.tenant.name);
        let vlans = instances.filter_map(|numbers| Some((numbers, numbers.vlan?)));
        let both = |(numbers, vlan)| {
            Direction::ALL.map(|direction| vlan_id(vlan, Mode::Waypoint(Waypoint { numbers, direction })))
        };
        vlans.flat_map(both).collect()
    }
}

/// Priority of the first chain, or rule; those behind it have lower ones.
pub(crate) const FIRST: u16 = 60_000;

/// Frames that no chain matches go to their destination.
pub(crate) fn unchained(tenant: &Tenant) -> Draft {
    Draft {
        table: CLASSIFY,
        priority: 1,
        matching: Match::default(),
        instructions: go(FORWARD),
        origin: tenant.origin.clone(),
    }
}
