//! What another policy would change, for people: which objects of the policy, and which entries of which bridges. Both
//! policies are compiled against the same fabric, so the same policy changes nothing, whatever the bridges hold by now.

mod objects;

use std::collections::{BTreeMap, BTreeSet};

use openflow::types::{DatapathId, GroupId, MeterId};
use serde::{Deserialize, Serialize};

use crate::allocation::Allocations;
use crate::attachment::{Attachments, PortUse, attach, bridge_names};
use crate::compile::compile;
use crate::desired::{BridgeState, Flow, FlowKey, Group, Meter};
use crate::pipeline;
use crate::policy::{Policy, PortSelector};
use crate::problems::{self, Changes, Facts};
use crate::tenants;
use crate::trace::Situation;
use crate::view::{Endpoint, Host, Link, View};
use crate::withhold::{self, Needs, Reluctance, withhold};

/// What a policy would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Is there nothing to change?
    pub same: bool,
    /// Objects of the policy, bridges' names first, then the fabric's settings, then tenants.
    pub objects: Vec<Object>,
    /// Bridges, in order of their datapath ids; only those with a difference.
    pub bridges: Vec<Bridge>,
    /// Problems that would come, and such that would end.
    pub problems: Changes,
    /// What couldn't be taken into account.
    pub notes: Vec<String>,
    /// What looks odd about the policy, as told by whoever read it.
    pub warnings: Vec<String>,
}

/// What becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It wasn't there.
    Added,
    /// It will be another.
    Changed,
    /// It will be gone.
    Removed,
}

/// An object of the policy that would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// What becomes of it.
    pub change: Change,
    /// `bridge`, `fabric`, `tenant`, `port`, `function`, `instance`, `chain` or `rule`.
    pub kind: String,
    /// Whose it is, if a tenant's.
    pub tenant: Option<String>,
    /// Its name.
    pub name: String,
    /// Of one that is changed what would be other than before.
    pub fields: Vec<Field>,
}

/// A part of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Which, as the policy calls it.
    pub name: String,
    /// How it is.
    pub from: String,
    /// How it would be.
    pub to: String,
}

/// A bridge whose tables would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its datapath id.
    pub dpid: String,
    /// Its name by the new policy.
    pub name: String,
    /// Flow entries.
    pub flows: Counts,
    /// Groups.
    pub groups: Counts,
    /// Meters.
    pub meters: Counts,
    /// Each of them, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<Entry>>,
}

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Weren't there.
    pub added: usize,
    /// Are replaced where they stand.
    pub changed: usize,
    /// Go.
    pub removed: usize,
}

/// A flow entry, group or meter that would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What becomes of it.
    pub change: Change,
    /// What it is, and what it would be if it stays.
    pub text: String,
}

impl Situation {
    /// What is to be said while [`Situation::settling`].
    pub const UNSETTLED: &str = "the controller has just started and still waits for bridges and links: which problems would be new can't \
                                 be told for some seconds; see `espalier get status` then";

    /// What another policy would change; `entries`: also which flow entries, groups and meters, one by one. Numbers are
    /// given as they would be, and not kept.
    pub fn plan(&self, policy: &Policy, entries: bool) -> Plan {
        let allocations = self.allocations.updated(policy);
        let old = self.tables_by(&self.policy, &self.allocations);
        let new = self.tables_by(policy, &allocations);
        let names = bridge_names(policy, &self.told);
        let nothing = BridgeState::new();
        let dpids: BTreeSet<DatapathId> = old.keys().chain(new.keys()).copied().collect();
        let bridges = dpids.into_iter().filter_map(|dpid| {
            let name = names.get(&dpid).cloned().unwrap_or_else(|| dpid.to_string());
            let (old, new) = (old.get(&dpid).unwrap_or(&nothing), new.get(&dpid).unwrap_or(&nothing));
            bridge(dpid, name, old, new, entries)
        });
        let bridges: Vec<Bridge> = bridges.collect();
        let objects = objects::changes((&self.policy, &self.allocations), (policy, &allocations));
        let same = objects.is_empty() && bridges.is_empty();
        Plan {
            same,
            objects,
            bridges,
            problems: self.problems(policy),
            notes: self.unknown(policy),
            warnings: Vec::new(),
        }
    }

    /// Problems that another policy would bring, and such that it would end. None while that can't be told:
    /// [`Situation::UNSETTLED`].
    pub fn problems(&self, policy: &Policy) -> Changes {
        if self.settling {
            return Changes::default();
        }
        let of = |policy: &Policy, allocations: &Allocations| {
            let (attachments, view) = self.fabric_by(policy, allocations);
            let tree = |tenant| tenants::tree(tenant, allocations, &attachments, &view);
            let trees = policy.tenants.iter().map(|tenant| (tenant.name.clone(), tree(tenant))).collect();
            problems::problems(&Facts { policy, allocations, attachments: &attachments, view: &view, trees: &trees })
        };
        let new = of(policy, &self.allocations.updated(policy));
        Changes::between(&of(&self.policy, &self.allocations), &new)
    }

    /// What bridges should hold by a policy, in the fabric as it is seen now.
    fn tables_by(&self, policy: &Policy, allocations: &Allocations) -> BTreeMap<DatapathId, BridgeState> {
        let (attachments, view) = self.fabric_by(policy, allocations);
        let hosts = policy.tenants.iter().map(|tenant| {
            let known = self.hosts.get(&tenant.name).into_iter().flatten();
            let stay = known.filter(|(_, station)| {
                attachments.tenant(station.place).is_some_and(|attached| attached.tenant == tenant.name)
            });
            let host = |station: &crate::trace::Station| Host { place: station.place, fresh: station.fresh };
            (tenant.name.clone(), stay.map(|(mac, station)| (*mac, host(station))).collect())
        });
        compile(policy, allocations, &view, &hosts.collect()).bridges
    }

    /// What ports are for by a policy, and the fabric with the links that are used then.
    fn fabric_by(&self, policy: &Policy, allocations: &Allocations) -> (Attachments, View) {
        let mut view = View { bridges: self.view.bridges.clone(), trees: self.view.trees.clone(), ..View::default() };
        for (dpid, name) in bridge_names(policy, &self.told) {
            if let Some(bridge) = view.bridges.get_mut(&dpid) {
                bridge.name = name;
                // What nobody has tried yet counts as no link, as it will unless probes show otherwise.
                bridge.ports.values_mut().for_each(|port| port.behind.untried = false);
            }
        }
        let attachments = attach(policy, &view);
        // A port that somebody gets is no link any more. Which ports become links for the first time only probes can tell; those that
        // were links, and are none now because the policy in force has it so, are taken for links again.
        let may_be =
            |link: &Link, by: &Attachments| [link.a, link.b].iter().all(|it| *by.of(*it) == PortUse::Candidate);
        let (down, barred): (Vec<Link>, Vec<Link>) =
            self.view.down.iter().partition(|link| may_be(link, &self.attachments) || !self.view.has_carrier(link));
        view.held.clone_from(&self.view.held);
        let up = self.view.links.iter().chain(self.view.withheld.keys()).chain(&barred).copied();
        let up = up.filter(|link| may_be(link, &attachments));
        let why = |link: &Link| match withhold::drained(policy, &view, link) {
            Some(_) => Some(Reluctance::Drained),
            None => self.view.withheld.get(link).copied().filter(|why| *why == Reluctance::Damped),
        };
        let (used, withheld) = withhold(up, why, &Needs::new(policy, allocations, &attachments, &view));
        view.links = used.into_iter().collect();
        view.withheld = withheld;
        view.down = down.into_iter().filter(|link| may_be(link, &attachments)).collect();
        view.failed.clone_from(&self.view.failed);
        view.mtus.clone_from(&self.view.mtus);
        (attachments, view)
    }

    /// What the plan can't know.
    fn unknown(&self, policy: &Policy) -> Vec<String> {
        let mut notes: Vec<String> = self.settling.then(|| Self::UNSETTLED.into()).into_iter().collect();
        let silent = self.view.bridges.values().filter(|bridge| !bridge.responsive).map(|bridge| bridge.name.clone());
        let absent = self.remembered.iter().filter(|dpid| !self.view.bridges.contains_key(dpid));
        for name in silent.chain(absent.map(ToString::to_string)) {
            notes.push(format!("bridge {name} doesn't answer: what would change there isn't counted"));
        }
        notes.extend(self.matched_links(policy));
        if policy.fabric.links != self.policy.fabric.links {
            notes.push("links that would be found for the first time because of other `fabric.links` aren't taken into account".into());
        }
        notes
    }
}

impl Situation {
    /// The links whose ends patterns of tenants' ports match, and that stay links.
    fn matched_links(&self, policy: &Policy) -> Vec<String> {
        let links =
            self.view.links.iter().chain(self.view.withheld.keys()).chain(self.view.held.iter().map(|it| &it.link));
        let mut notes = Vec::new();
        for link in links.chain(&self.view.down) {
            let name = |end: Endpoint| {
                let bridge = self.view.bridges.get(&end.bridge)?;
                Some((bridge.name.as_str(), bridge.ports.get(&end.port)?.name.as_str()))
            };
            let (Some(a), Some(b)) = (name(link.a), name(link.b)) else { continue };
            for (bridge, port) in [a, b] {
                let matches = |selector: &&PortSelector| {
                    !selector.port.is_literal() && selector.bridge.matches(bridge) && selector.port.matches(port)
                };
                for (tenant, selector) in policy
                    .tenants
                    .iter()
                    .flat_map(|it| it.ports.iter().filter(matches).map(move |selector| (it, selector)))
                {
                    notes.push(format!(
                        "link {}/{} – {}/{}: `{}` of tenant {} ({}) matches {bridge}/{port}, which is no port of the tenant all the \
                         same, because a pattern never takes a link; name links and ports apart",
                        a.0, a.1, b.0, b.1, selector.port, tenant.name, selector.origin
                    ));
                }
            }
        }
        notes
    }
}

fn bridge(dpid: DatapathId, name: String, old: &BridgeState, new: &BridgeState, entries: bool) -> Option<Bridge> {
    let (old, new) = (Tables::of(old), Tables::of(new));
    let mut list = Vec::new();
    let flows = differences(&old.flows, &new.flows, flow_text, &mut list);
    let groups = differences(&old.groups, &new.groups, group_text, &mut list);
    let meters = differences(&old.meters, &new.meters, meter_text, &mut list);
    let dpid = dpid.to_string();
    (!list.is_empty()).then(|| Bridge { dpid, name, flows, groups, meters, entries: entries.then_some(list) })
}

/// What a bridge has, whoever it belongs to.
struct Tables<'a> {
    flows: BTreeMap<&'a FlowKey, &'a Flow>,
    groups: BTreeMap<&'a GroupId, &'a Group>,
    meters: BTreeMap<&'a MeterId, &'a Meter>,
}

impl<'a> Tables<'a> {
    fn of(state: &'a BridgeState) -> Self {
        Self {
            flows: state.values().flat_map(|section| &section.flows).collect(),
            groups: state.values().flat_map(|section| &section.groups).collect(),
            meters: state.values().flat_map(|section| &section.meters).collect(),
        }
    }
}

fn differences<K: Ord, V: PartialEq>(
    old: &BTreeMap<&K, &V>,
    new: &BTreeMap<&K, &V>,
    text: impl Fn(&K, &V, Option<&V>) -> String,
    list: &mut Vec<Entry>,
) -> Counts {
    let mut counts = Counts::default();
    let keys: BTreeSet<&K> = old.keys().chain(new.keys()).copied().collect();
    for key in keys {
        let (change, text) = match (old.get(key), new.get(key)) {
            (None, Some(to)) => (Change::Added, text(key, to, None)),
            (Some(from), None) => (Change::Removed, text(key, from, None)),
            (Some(from), Some(to)) if from != to => (Change::Changed, text(key, from, Some(to))),
            _ => continue,
        };
        *match change {
            Change::Added => &mut counts.added,
            Change::Changed => &mut counts.changed,
            Change::Removed => &mut counts.removed,
        } += 1;
        list.push(Entry { change, text });
    }
    counts
}

fn flow_text(key: &FlowKey, flow: &Flow, to: Option<&Flow>) -> String {
    let does = |flow: &Flow| {
        let instructions: Vec<String> = flow.instructions.iter().map(ToString::to_string).collect();
        let mut text = if instructions.is_empty() { "drop".to_owned() } else { instructions.join(",") };
        if flow.idle_timeout > 0 {
            text += &format!(" (until idle for {} s)", flow.idle_timeout);
        }
        text
    };
    let name = pipeline::table(key.table).map_or("", |table| table.name);
    let (from, to) = (does(flow), to.map(does));
    let head = format!("flow {} {name}, {} {} → {from}", key.table.0, key.priority, key.matching);
    match to {
        None => head,
        // What differs then is its cookie, which says whose it is.
        Some(to) if to == from => format!("{head}, for somebody else"),
        Some(to) => format!("{head} ⇒ {to}"),
    }
}

fn group_text(id: &GroupId, group: &Group, to: Option<&Group>) -> String {
    let does = |group: &Group| {
        let bucket = |bucket: &openflow::group::Bucket| {
            bucket.actions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        format!("{:?} [{}]", group.kind, group.buckets.iter().map(bucket).collect::<Vec<_>>().join("] ["))
    };
    let to = to.map(|to| format!(" ⇒ {}", does(to))).unwrap_or_default();
    format!("group {} {}{to}", id.0, does(group))
}

fn meter_text(id: &MeterId, meter: &Meter, to: Option<&Meter>) -> String {
    let does = |meter: &Meter| format!("{:?} {:?}", meter.flags, meter.bands);
    let to = to.map(|to| format!(" ⇒ {}", does(to))).unwrap_or_default();
    format!("meter {} {}{to}", id.0, does(meter))
}
