//! What an operator should look at because of what a policy says of the fabric as it is seen. The status tells it of the policy
//! in force; a plan, and whoever applies a policy, holds that of two policies against each other. So what is found here is told
//! by all of them.
//!
//! To add a kind of problem: write a method of [`Facts`] that gives them, and name it in [`problems`]; or let
//! [`attach`](crate::attachment::attach) find it, if it is about who gets a port. What has to be known for it beside the policy
//! (what probes measured, which functions hang) belongs in the [`View`], where a plan has it, too. What is the same whatever the
//! policy says (a bridge that refuses something, a copied probe, an address that moves about) isn't for here: the
//! controller's core tells of it by itself.

use std::collections::{BTreeMap, BTreeSet};

use openflow::types::DatapathId;
use serde::{Deserialize, Serialize};

use crate::allocation::Allocations;
use crate::attachment::{Attachments, PortUse};
use crate::chains::Chains;
use crate::marks::Direction;
use crate::mtu;
use crate::policy::{Glob, LinkSelector, Policy, PortSelector, nearest};
use crate::services::{Health, Placed};
use crate::trees::Tree;
use crate::view::{Bridge, Carrier, Endpoint, Held, Link, View};
use crate::withhold;

/// Something that an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which kind of problem, and what it is about, in words that stay the same as long as it is the same problem to an
    /// operator: without lines of the policy, counts, and whatever else changes beside it.
    pub key: (&'static str, String),
    /// What happened, where, and what to do next.
    pub text: String,
}

impl Problem {
    /// A problem of this kind about something.
    pub fn new(kind: &'static str, about: impl ToString, text: String) -> Self {
        Self { key: (kind, about.to_string()), text }
    }
}

/// What problems follow from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The numbers that tenants have by it.
    pub allocations: &'a Allocations,
    /// What ports are for by it.
    pub attachments: &'a Attachments,
    /// The fabric, with the links that are used by it.
    pub view: &'a View,
    /// The tenants' trees, by name.
    pub trees: &'a BTreeMap<String, Tree>,
}

/// All problems, in the order in which they are shown.
pub fn problems(facts: &Facts<'_>) -> Vec<Problem> {
    let mut all = facts.attachments.problems.clone();
    all.extend(facts.links_taken());
    all.extend(facts.selectors());
    all.extend(facts.drains());
    all.extend(facts.drains_of_nothing());
    all.extend(facts.parts());
    all.extend(facts.vlan_ids());
    all.extend(facts.unmarked());
    all.extend(facts.mtus());
    all.extend(facts.functions());
    all
}

impl Facts<'_> {
    /// Ports that are somebody's by their names although they are links.
    fn links_taken(&self) -> Vec<Problem> {
        let taken = self.attachments.ports.iter().filter_map(|(place, used)| {
            let port = self.view.bridges.get(&place.bridge)?.ports.get(&place.port)?;
            let (whose, origin) = match used {
                PortUse::Tenant(attached) => (format!("tenant {}", attached.tenant), &attached.selector.origin),
                PortUse::Function(port) => (format!("function {} of tenant {}", port.function, port.tenant), &port.origin),
                PortUse::Candidate | PortUse::Untried(_) | PortUse::Unused => return None,
            };
            let name = self.name(*place);
            let text = format!(
                "probes show that {name} leads to another port of this fabric, but it is a port of {whose} ({origin}): it is no \
                 link, and what is flooded there may come back; take that entry out of the policy, or end what joins the two"
            );
            port.behind.probes.then(|| Problem::new("link taken", place, text))
        });
        taken.collect()
    }

    /// Entries of `ports` that select nothing. That no port fits a pattern yet is a problem only if some port nearly does.
    fn selectors(&self) -> Vec<Problem> {
        let bridges = || self.view.bridges.iter();
        if bridges().next().is_none() {
            return Vec::new();
        }
        let View { links, withheld, held, down, .. } = self.view;
        let all = links.iter().chain(withheld.keys()).chain(held.iter().map(|held| &held.link)).chain(down);
        let linked: BTreeSet<Endpoint> = all.flat_map(|link| [link.a, link.b]).collect();
        let mut problems = Vec::new();
        for tenant in &self.policy.tenants {
            for selector in &tenant.ports {
                let PortSelector { bridge, port, origin, .. } = selector;
                let fits =
                    |(dpid, it): &(&DatapathId, &Bridge)| bridge.matches(&it.name) || bridge.matches(&dpid.to_string());
                let here = || bridges().filter(fits);
                let why = if here().next().is_none() {
                    let meant = nearest(&bridge.to_string(), bridges().map(|(_, it)| it.name.as_str()));
                    let meant = meant.filter(|_| bridge.is_literal());
                    if !bridge.is_literal() {
                        continue;
                    }
                    format!("no bridge of that name is or was connected{}", did_you_mean(meant))
                } else if here().any(|(_, it)| it.ports.values().any(|it| port.matches(&it.name))) {
                    continue;
                } else {
                    let free =
                        here().flat_map(|(dpid, it)| it.ports.iter().map(move |(number, it)| (dpid, number, it)));
                    let free = free.filter(|(dpid, number, _)| {
                        let place = Endpoint { bridge: **dpid, port: **number };
                        !linked.contains(&place)
                            && matches!(self.attachments.of(place), PortUse::Candidate | PortUse::Unused)
                    });
                    let names = free.map(|(_, _, it)| it.name.as_str());
                    let meant = if port.is_literal() {
                        nearest(&port.to_string(), names.take(1_000))
                    } else {
                        nearly(port, names)
                    };
                    if meant.is_none() && !port.is_literal() {
                        continue;
                    }
                    format!("no port of that name is there{}", did_you_mean(meant))
                };
                let text = format!("tenant {}: `{bridge}`, `{port}` ({origin}) selects nothing: {why}", tenant.name);
                problems.push(Problem::new("selects nothing", format!("{} {bridge}/{port}", tenant.name), text));
            }
        }
        problems
    }

    /// Links that can't be drained as the policy wants it.
    fn drains(&self) -> Vec<Problem> {
        let used = self.view.links.iter().map(|link| (link, false));
        // Of one that was down already nothing is expected; one that wasn't used may still be sent over.
        let counts = |held: &&Held| held.up || !self.view.down.contains(&held.link);
        let held = self.view.held.iter().filter(counts).map(|held| (&held.link, true));
        let drained = |(link, held)| {
            let selector = withhold::drained(self.policy, self.view, link)?;
            let (ends, note) = (format!("{} – {}", self.name(link.a), self.name(link.b)), not_drained(selector, held));
            Some(Problem::new("drain", format!("{} – {}", link.a, link.b), format!("link {ends} is {note}")))
        };
        used.chain(held).filter_map(drained).collect()
    }

    /// Entries of `drain` that select no link.
    fn drains_of_nothing(&self) -> Vec<Problem> {
        let View { links, withheld, held, down, .. } = self.view;
        let links = || links.iter().chain(withheld.keys()).chain(held.iter().map(|held| &held.link)).chain(down);
        let idle =
            self.policy.fabric.drain.iter().filter(|it| !links().any(|link| withhold::selects(it, self.view, link)));
        let problem = |LinkSelector { bridge, port, origin }: &LinkSelector| {
            let text = format!(
                "no link is drained by `{bridge}`, `{port}` ({origin}): no port of that name is the end of a link"
            );
            Problem::new("drain of nothing", format!("{bridge}/{port}"), text)
        };
        idle.map(problem).collect()
    }

    /// Tenants with bridges between which there is no way.
    fn parts(&self) -> Vec<Problem> {
        let parted = self.policy.tenants.iter().filter_map(|tenant| {
            let parts = self.trees.get(&tenant.name)?.roots.len();
            let text = format!("tenant {} is in {parts} parts: no link joins them", tenant.name);
            (parts > 1).then(|| Problem::new("parts", &tenant.name, text))
        });
        parted.collect()
    }

    /// Tenants that can't use links without tunnel.
    fn vlan_ids(&self) -> Vec<Problem> {
        let without = self
            .policy
            .tenants
            .iter()
            .filter(|tenant| self.allocations.of(&tenant.name).is_some_and(|numbers| numbers.vlan.is_none()));
        let problem = |name: &String| {
            let text = format!("tenant {name} has no VLAN id left for links without tunnel");
            Problem::new("vlan id", name, text)
        };
        without.map(|tenant| problem(&tenant.name)).collect()
    }

    /// Links that carry nothing with a mark of ours.
    fn unmarked(&self) -> Vec<Problem> {
        let none = self.view.mtus.iter().filter(|(_, octets)| **octets == 0);
        let problem = |link: &Link| {
            let text = format!(
                "link {} lets through no frames with a VLAN tag, which tenants' frames bear on it: what is between its ends has to pass \
                 tagged frames with all VLAN ids (a trunk, without a list of VLANs)",
                self.link(link)
            );
            Problem::new("marks", format!("{} – {}", link.a, link.b), text)
        };
        none.map(|(link, _)| problem(link)).collect()
    }

    /// Tenants that say that they send longer packets than some link carries.
    fn mtus(&self) -> Vec<Problem> {
        let told = self.policy.tenants.iter().filter_map(|tenant| {
            let (wanted, tree) = (tenant.mtu?, self.trees.get(&tenant.name)?);
            let links = mtu::too_short(tree, &self.view.mtus, !tenant.chains.is_empty(), wanted);
            // Of those that carry nothing is told already.
            let mut links = links.into_iter().filter(|(octets, _)| *octets > 0);
            let (octets, link) = links.next()?;
            let more = match links.count() {
                0 => String::new(),
                more => format!(" and {more} more of its links"),
            };
            let (name, origin) = (&tenant.name, &tenant.origin);
            let keyed = match link.carrier {
                Carrier::Dedicated(_) => ", or give the tunnel options:key=flow, where our marks take no room",
                Carrier::Tunnel | Carrier::Vlan => "",
            };
            let text = format!(
                "tenant {name} sends packets of up to {wanted} octets ({origin}), but link {} carries only {octets} (`espalier get \
                 links` tells of all){}: longer ones are lost there without a sign. Lower the MTU of its containers and of the policy to \
                 {octets} (ip link set dev INTERFACE mtu {octets}), or raise the MTU of what is below that link by {}{keyed}",
                self.link(&link),
                if more.is_empty() { String::new() } else { format!(", like{more}") },
                wanted - octets,
            );
            Some(Problem::new("mtu", name, text))
        });
        told.collect()
    }

    fn link(&self, link: &Link) -> String {
        format!("{} – {}", self.name(link.a), self.name(link.b))
    }

    /// Instances of functions in chains that frames can't pass.
    pub(crate) fn functions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for tenant in self.policy.tenants.iter().filter(|tenant| !tenant.chains.is_empty()) {
            let Some(numbers) = self.allocations.of(&tenant.name) else { continue };
            let chains = Chains::new(tenant, numbers.key, self.allocations, self.attachments, self.view);
            let used: BTreeSet<&str> = tenant.chains.iter().flat_map(|it| &it.through).map(String::as_str).collect();
            for (name, service) in chains.services().iter().filter(|(name, _)| used.contains(**name)) {
                let unused = |placed: &&Placed<'_>| placed.health == Health::Failed || !placed.informed;
                for placed in service.instances.iter().filter(unused) {
                    let hangs = placed.ingress(Direction::Forward).is_some_and(|it| self.view.failed.contains(&it));
                    let instance = placed.instance;
                    let why = match placed.health {
                        Health::Failed if hangs => "lets nothing through",
                        Health::Failed => "has a port that is missing or down",
                        _ => "isn't used: its bridge doesn't answer, and knows it by other chains, or not at all",
                    };
                    let text = format!(
                        "{} of function {name} of tenant {} {why} ({} at bridge {}; {})",
                        instance.name, tenant.name, instance.ingress, instance.bridge, instance.origin
                    );
                    let about = format!("{}/{name}/{}", tenant.name, instance.name);
                    problems.push(Problem::new("function", about, text));
                }
            }
        }
        problems
    }

    /// What a port is called where people read it.
    fn name(&self, place: Endpoint) -> String {
        let Some(bridge) = self.view.bridges.get(&place.bridge) else { return place.to_string() };
        let port = bridge.ports.get(&place.port);
        format!("{}/{}", bridge.name, port.map_or_else(|| place.port.to_string(), |port| port.name.clone()))
    }
}

/// The first of the names that begins nearly as a pattern does.
fn nearly<'a>(pattern: &Glob, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let pattern = pattern.to_string();
    let begin = pattern.split(['*', '?']).next().filter(|begin| begin.len() > 3)?;
    // Some letter may be one too many, or be missing.
    let begins = |name: &&str| {
        let cut = |length: usize| name.get(..length.min(name.len()));
        (begin.len() - 1..=begin.len() + 1).filter_map(cut).any(|it| nearest(begin, std::iter::once(it)).is_some())
    };
    names.take(1_000).find(begins)
}

fn did_you_mean(meant: Option<&str>) -> String {
    meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
}

/// What is to be said of a link that an entry of `drain` selects and that may carry something all the same: because it is held, or
/// because there is no other way.
pub fn not_drained(selector: &LinkSelector, held: bool) -> String {
    let origin = &selector.origin;
    if held {
        format!("held: a bridge at its end doesn't answer, and may still send over it; to be drained ({origin})")
    } else {
        format!("to be drained ({origin}), but it is used all the same, being the only way")
    }
}

/// What becomes of problems when one policy replaces another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Those that would come, in plain words.
    pub new: Vec<String>,
    /// Those that would end.
    pub ended: Vec<String>,
}

impl Changes {
    /// From what is wrong by one policy to what is by another, in the same fabric.
    pub fn between(old: &[Problem], new: &[Problem]) -> Self {
        let only = |these: &[Problem], those: &[Problem]| {
            let known: BTreeSet<_> = those.iter().map(|problem| &problem.key).collect();
            these.iter().filter(|it| !known.contains(&it.key)).map(|it| it.text.clone()).collect()
        };
        Self { new: only(new, old), ended: only(old, new) }
    }
}
