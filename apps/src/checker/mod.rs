//! Holds tables against what must never happen, before they are sent: no frame of a tenant gets to anybody else, none goes
//! around in circles, none gets around a function of its chain.
//!
//! It reads entries alone, and takes nothing for granted of how they were made. No packet is sent through them: what holds
//! for each entry by itself, and for the graphs that entries make, holds for all packets. docs/architecture.md has the
//! argument, and what isn't looked at.

mod asks;
mod chains;
mod draining;
mod entries;
mod failing;
mod guarded;
mod leaving;
mod look;
mod meaning;
mod read_back;
mod regions;
mod senders;
mod surroundings;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::resume_unwind;
use std::thread::scope;

use openflow::types::{DatapathId, MeterId};

use crate::allocation::Allocations;
use crate::attachment::Attachments;
use crate::desired::{BridgeState, FlowKey, Section};
use crate::marks::Owner;
use crate::pipeline;
use crate::policy::{Policy, Tenant};
use crate::view::{Carrier, Endpoint, View};

use entries::Scan;
use surroundings::{Places, Steps};

pub use read_back::contradictions;

/// Most threads that share the owners, and the fewest owners for which it is worth to begin another.
const JUDGES: usize = 4;
const OWNERS_MIN: usize = 8;

/// Tables of bridges.
pub type Tables = BTreeMap<DatapathId, BridgeState>;

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// Tables lead forward, through every stage of the pipeline, and what entries name exists.
    Form,
    /// Frames of a tenant get to nobody else, and nobody else's become a tenant's.
    Isolation,
    /// No frame passes a link twice in the same direction and position of its chain.
    Loop,
    /// Frames in a chain pass its functions in order.
    Chain,
    /// What enters is what the tenant's rules let in.
    Rule,
    /// Who sends is who the policy lets, by each address that a frame says.
    Sender,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "form",
            Self::Isolation => "isolation",
            Self::Loop => "loop",
            Self::Chain => "chain",
            Self::Rule => "rule",
            Self::Sender => "sender",
        })
    }
}

/// Something that must never happen, and would.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Whose entries.
    pub owner: Owner,
    /// What would be violated.
    pub property: Property,
    /// Where, by which entry, and what would happen.
    pub text: String,
}

/// What tables are held against: what the policy says, and what is where.
#[derive(Debug)]
pub struct Checker<'a> {
    allocations: &'a Allocations,
    attachments: &'a Attachments,
    view: &'a View,
    /// By key.
    tenants: BTreeMap<u32, &'a Tenant>,
    /// By name.
    keys: BTreeMap<&'a str, u32>,
    /// Keys that some tunnel has to itself.
    dedicated: BTreeSet<u32>,
    /// Ends of links, those of bridges that don't answer included, with the other end, in order.
    links: Vec<(Endpoint, Endpoint, Carrier)>,
}

impl<'a> Checker<'a> {
    /// A checker for one policy and one view of the fabric.
    pub fn new(policy: &'a Policy, allocations: &'a Allocations, attachments: &'a Attachments, view: &'a View) -> Self {
        let numbered = || policy.tenants.iter().filter_map(|it| Some((it, allocations.of(&it.name)?.key)));
        let all = view.links.iter().chain(view.held.iter().map(|held| &held.link));
        let mut links: Vec<_> =
            all.flat_map(|link| [(link.a, link.b, link.carrier), (link.b, link.a, link.carrier)]).collect();
        links.sort();
        let fixed = |carrier: &Carrier| if let Carrier::Dedicated(key) = carrier { Some(*key) } else { None };
        Self {
            allocations,
            attachments,
            view,
            tenants: numbered().map(|(tenant, key)| (key, tenant)).collect(),
            keys: numbered().map(|(tenant, key)| (tenant.name.as_str(), key)).collect(),
            dedicated: links.iter().filter_map(|(.., carrier)| fixed(carrier)).collect(),
            links,
        }
    }

    /// All violations in these tables. Entries of bridges that don't answer aren't held against anything, because nobody can
    /// change them, but they count where ways are looked at for loops.
    pub fn all(&self, tables: &Tables) -> Vec<Violation> {
        let dpids: Vec<DatapathId> = tables.keys().copied().collect();
        let places = self.places(&dpids, |_| true);
        let owners: BTreeSet<Owner> = tables.values().flat_map(BTreeMap::keys).copied().collect();
        let owners: Vec<Owner> = owners.into_iter().collect();
        let judge = |owners: &[Owner]| -> Vec<Violation> {
            owners.iter().flat_map(|owner| self.judge(tables, &dpids, &places, *owner, true)).collect()
        };
        let mut found = self.numbers();
        // Owners have nothing to do with each other. What is found comes in their order, whoever is ready first.
        let (here, others) = owners.split_at(owners.len().div_ceil(JUDGES).max(OWNERS_MIN).min(owners.len()));
        scope(|scope| {
            let others = others.chunks(here.len().max(1)).map(|share| scope.spawn(|| judge(share)));
            let others: Vec<_> = others.collect();
            found.extend(judge(here));
            for other in others {
                found.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
        });
        found
    }

    /// Where what bridges have of these owners leads in a circle, whatever else is wrong with it.
    pub fn circles<'o>(&self, tables: &Tables, owners: impl IntoIterator<Item = &'o Owner>) -> Vec<Violation> {
        let dpids: Vec<DatapathId> = tables.keys().copied().collect();
        let places = self.places(&dpids, |_| true);
        owners.into_iter().flat_map(|owner| self.judge(tables, &dpids, &places, *owner, false)).collect()
    }

    /// The violations in what these owners have there.
    pub fn owners<'o>(&self, tables: &Tables, owners: impl IntoIterator<Item = &'o Owner>) -> Vec<Violation> {
        let dpids: Vec<DatapathId> = tables.keys().copied().collect();
        let mut found = Vec::new();
        for owner in owners {
            let places = self.places(&dpids, |dpid| tables.get(dpid).is_some_and(|state| state.contains_key(owner)));
            found.extend(self.judge(tables, &dpids, &places, *owner, true));
        }
        found
    }

    /// `each`: are entries looked at one by one as well, or only the ways that they make?
    fn judge<'t>(
        &'t self,
        tables: &'t Tables,
        dpids: &[DatapathId],
        places: &'t Places<'a>,
        owner: Owner,
        each: bool,
    ) -> Vec<Violation> {
        let tenant = self.tenants.get(&owner.0).copied();
        let steps = tenant.map(|tenant| Steps::new(tenant, self.allocations)).unwrap_or_default();
        let numbers = tenant.and_then(|tenant| self.allocations.of(&tenant.name));
        let mut scan = Scan::new(self, owner, tenant, numbers, &steps, places);
        for (index, (dpid, state)) in (0..).zip(tables) {
            if let Some(section) = state.get(&owner) {
                let nobodys = state.get(&Owner::FABRIC).map(|it| &**it);
                let here = Here::new(self, index, *dpid, section, nobodys);
                scan.bridge(Here { judged: here.judged && each, ..here });
            }
        }
        scan.finish(dpids)
    }

    /// Do no two tenants, or ways to functions, bear the same mark?
    fn numbers(&self) -> Vec<Violation> {
        let (mut keys, mut vlans) = (BTreeMap::new(), BTreeMap::new());
        let mut found = Vec::new();
        for (key, tenant) in &self.tenants {
            let steps = Steps::new(tenant, self.allocations);
            let own = self.allocations.of(&tenant.name).into_iter();
            let all = own.chain(steps.numbers()).map(|numbers| (numbers.key, numbers.vlan));
            for (number, vlan) in all.collect::<BTreeSet<_>>() {
                let other = keys.insert(number, tenant).or(vlan.and_then(|vlan| vlans.insert(vlan, tenant)));
                if let Some(other) = other {
                    let text = format!(
                        "frames of tenant {} and of tenant {} bear the same mark: number {number}, VLAN id {vlan:?}",
                        tenant.name, other.name
                    );
                    found.push(Violation { owner: Owner(*key), property: Property::Isolation, text });
                }
            }
        }
        found
    }

    fn bridge_name(&self, dpid: DatapathId) -> String {
        self.view.bridges.get(&dpid).map_or_else(|| dpid.to_string(), |bridge| bridge.name.clone())
    }
}

/// What an owner has at one bridge.
#[derive(Clone, Copy)]
struct Here<'t> {
    /// Its place among the bridges.
    index: u32,
    dpid: DatapathId,
    section: &'t Section,
    /// What belongs to no tenant there.
    nobodys: Option<&'t Section>,
    /// Does the bridge answer, and are its entries looked at one by one?
    judged: bool,
}

impl<'t> Here<'t> {
    fn new(
        checker: &Checker<'_>,
        index: u32,
        dpid: DatapathId,
        section: &'t Section,
        nobodys: Option<&'t Section>,
    ) -> Self {
        let judged = checker.view.bridges.get(&dpid).is_some_and(|bridge| bridge.responsive);
        Self { index, dpid, section, nobodys, judged }
    }

    fn has_meter(&self, meter: MeterId) -> bool {
        self.nobodys.is_some_and(|section| section.meters.contains_key(&meter))
    }
}

/// What an entry is called where people read it.
fn entry_name(key: &FlowKey) -> String {
    let name = pipeline::table(key.table).map_or("", |table| table.name);
    format!("table {} ({name}), priority {}, {}", key.table.0, key.priority, key.matching)
}
