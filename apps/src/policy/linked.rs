//! Mistakes that lie between functions, chains and rules of one tenant, and between functions and everybody's ports.

use std::collections::{BTreeMap, BTreeSet};

use super::between::unique;
use super::chain::{Address, Classifier, FunctionKind};
use super::declared::{Declared, TenantPart};
use super::model::Origin;
use super::report::{At, Draft, Place, Report};
use super::services::{ChainPart, ClassifierPart, RulePart, Term, bears};
use super::text::{nearest, quote};

/// Most flow entries that chains and rules of one tenant may become.
const ENTRIES_MAX: usize = 5_000;

/// Reports them all.
pub(super) fn check(declared: &Declared, report: &mut Report) {
    let dpids = declared.dpids();
    let mut ports: BTreeMap<(String, String), (&Place, String)> = BTreeMap::new();
    for tenant in &declared.tenants {
        for entry in &tenant.ports {
            if let (Some(bridge), Some(port)) = (&entry.bridge, &entry.port) {
                let bridge = dpids.get(bridge.value.as_str()).cloned().unwrap_or_else(|| bridge.value.clone());
                ports.entry((bridge, port.value.clone())).or_insert((&port.place, entry.object.clone()));
            }
        }
    }
    for tenant in &declared.tenants {
        for instance in tenant.functions.iter().flat_map(|function| &function.instances) {
            let Some(bridge) = &instance.bridge else { continue };
            let bridge = dpids.get(bridge.value.as_str()).cloned().unwrap_or_else(|| bridge.value.clone());
            for port in [&instance.ingress, &instance.egress].into_iter().flatten() {
                let claim = (bridge.clone(), port.value.clone());
                if let Some((first, other)) = ports.get(&claim) {
                    if *other != instance.object {
                        report.push(
                            Draft::error(format!(
                                "{} and {other} have the same port {}",
                                instance.object,
                                quote(&port.value)
                            ))
                            .at(port.place.clone(), "used again")
                            .also((*first).clone(), format!("used by {other}"))
                            .help("a port serves one purpose: write another port in one of the two"),
                        );
                    }
                } else {
                    ports.insert(claim, (&port.place, instance.object.clone()));
                }
            }
        }
        names(tenant, report);
        chains(tenant, report);
        classifiers(tenant, report);
        // Of more than there may be, each isn't held against each.
        if all(tenant).count() <= ENTRIES_MAX {
            overlaps(tenant, report);
            covered(tenant, report);
        }
    }
}

fn names(tenant: &TenantPart, report: &mut Report) {
    let of = &tenant.object;
    let functions = tenant.functions.iter().filter_map(|it| it.name.as_ref());
    let help = "give each function a name of its own";
    unique(functions, |name| format!("two functions of {of} are named {}", quote(name)), help, report);
    for function in &tenant.functions {
        let instances = function.instances.iter().filter_map(|it| it.name.as_ref());
        let help = "give each instance a name of its own";
        let title = |name: &String| format!("two instances of {} are named {}", function.object, quote(name));
        unique(instances, title, help, report);
    }
    let chains = tenant.chains.iter().filter_map(|it| it.name.as_ref());
    let help = "give each chain a name of its own";
    unique(chains, |name| format!("two chains of {of} are named {}", quote(name)), help, report);
    let rules = tenant.rules.iter().filter_map(|it| it.name.as_ref());
    let help = "give each rule a name of its own";
    unique(rules, |name| format!("two rules of {of} are named {}", quote(name)), help, report);
}

fn chains(tenant: &TenantPart, report: &mut Report) {
    let names: Vec<&str> =
        tenant.functions.iter().filter_map(|it| it.name.as_ref()).map(|name| name.value.as_str()).collect();
    let mut used = BTreeSet::new();
    for chain in &tenant.chains {
        for name in &chain.through {
            used.insert(name.value.as_str());
            if !names.contains(&name.value.as_str()) {
                let help = match nearest(&name.value, names.iter().copied()) {
                    Some(meant) => format!("did you mean {}?", quote(meant)),
                    None if names.is_empty() => "declare it: [[tenant.function]]".to_owned(),
                    None => format!("functions of the tenant: {}", names.join(", ")),
                };
                report.push(
                    Draft::error(format!("{}: {} has no function {}", chain.object, tenant.object, quote(&name.value)))
                        .at(name.place.clone(), "not known")
                        .help(help),
                );
            }
        }
        let help = "a frame passes a function once: remove one of the two";
        unique(chain.through.iter(), |name| format!("{} passes {} twice", chain.object, quote(name)), help, report);
        routed(tenant, chain, report);
        for part in chain.classifiers.iter().filter(|_| chain.symmetric) {
            let classifier = resolved(part, tenant);
            if classifier.covers(&classifier.reversed()) {
                report.push(
                    Draft::error(format!("{} is symmetric, but its match doesn't tell replies from requests", chain.object))
                        .at(part.place.clone(), "matches both directions")
                        .help("say `source`, `destination` or a port, or remove `symmetric`: all that matches passes in order"),
                );
            }
        }
    }
    for function in &tenant.functions {
        if let Some(name) = function.name.as_ref().filter(|name| !used.contains(name.value.as_str())) {
            report.push(
                Draft::warning(format!("no chain passes {}", function.object))
                    .at(name.place.clone(), "not used")
                    .help(format!("name it in a chain: through = [\"{}\"]", name.value)),
            );
        }
    }
}

/// A function that routes changes Ethernet addresses, so behind it nothing can be told by those.
fn routed(tenant: &TenantPart, chain: &ChainPart, report: &mut Report) {
    let is_routed = |name: &At<String>| {
        let named = |it: &&super::services::FunctionPart| it.name.as_ref().is_some_and(|it| it.value == name.value);
        tenant.functions.iter().find(named).is_some_and(|it| it.kind == Some(FunctionKind::Routed))
    };
    let Some(name) = chain.through.iter().find(|name| is_routed(name)) else { return };
    for part in &chain.classifiers {
        let classifier = resolved(part, tenant);
        if classifier.source.iter().chain(&classifier.destination).any(|address| matches!(address, Address::Mac(_))) {
            report.push(
                Draft::error(format!(
                    "{}: {} changes MAC addresses, so it can't be told by them",
                    chain.object,
                    quote(&name.value)
                ))
                .at(part.place.clone(), "has a MAC address, or a port without IP address")
                .also(name.place.clone(), "a function that routes")
                .help("write IP addresses or prefixes instead"),
            );
        }
    }
}

fn resolved(part: &ClassifierPart, tenant: &TenantPart) -> Classifier {
    part.resolve(&tenant.ports, Origin { file: "".into(), line: 0 })
}

/// Every classifier of a tenant.
fn all(tenant: &TenantPart) -> impl Iterator<Item = &ClassifierPart> {
    let chains = tenant.chains.iter().flat_map(|chain| &chain.classifiers);
    chains.chain(tenant.rules.iter().flat_map(|rule| &rule.classifiers))
}

fn classifiers(tenant: &TenantPart, report: &mut Report) {
    let names: Vec<&At<String>> = tenant.ports.iter().filter_map(|port| port.name.as_ref()).collect();
    let mut entries = 0usize;
    for part in all(tenant) {
        for term in part.source.iter().chain(&part.destination) {
            let Term::Port(name) = &term.value else { continue };
            let port = tenant.ports.iter().find(|port| port.name.as_ref().is_some_and(|it| it.value == *name));
            match port {
                None => {
                    let help = nearest(name, names.iter().map(|it| it.value.as_str())).map_or_else(
                        || {
                            "write a MAC address, an IP address or prefix, or the `name` of an entry of `ports`"
                                .to_owned()
                        },
                        |meant| format!("did you mean {}?", quote(meant)),
                    );
                    report.push(
                        Draft::error(format!("{}: {} has no port named {}", part.object, tenant.object, quote(name)))
                            .at(term.place.clone(), "not known")
                            .help(help),
                    );
                }
                Some(port) if port.mac.is_none() && port.ip.is_empty() => report.push(
                    Draft::error(format!("{}: nothing tells frames of port {} apart", part.object, quote(name)))
                        .at(term.place.clone(), "a port without addresses")
                        .help("write `mac` or `ip` in the port's entry of `ports`"),
                ),
                Some(_) => {}
            }
        }
        let classifier = resolved(part, tenant);
        let odd = classifier.source.iter().chain(&classifier.destination).find(|it| !bears(classifier.protocol, it));
        if odd.is_some() || classifier.entries() == 0 {
            report.push(
                Draft::error(format!("{} can never match", part.object))
                    .at(part.place.clone(), "addresses that don't go together, or not with the protocol")
                    .help("IPv4 goes with IPv4, IPv6 with IPv6; ARP and other Ethernet types go with MAC addresses"),
            );
        }
        let count = classifier.entries();
        entries = entries.saturating_add(count);
        if count > Classifier::ENTRIES_MAX {
            let help = format!(
                "at most {} are allowed: write fewer addresses or ports, or prefixes and ranges",
                Classifier::ENTRIES_MAX
            );
            let title = format!("{} would become {count} flow entries at each bridge", part.object);
            report.push(Draft::error(title).at(part.place.clone(), "too many").help(help));
        }
    }
    if entries > ENTRIES_MAX {
        let title = format!("chains and rules of {} would become {entries} flow entries at each bridge", tenant.object);
        let help = format!("at most {ENTRIES_MAX} are allowed: write fewer addresses or ports, or prefixes and ranges");
        report.push(Draft::error(title).at(tenant.place.clone(), "too many").help(help));
    }
}

/// Two chains of the same priority that one frame could be in.
fn overlaps(tenant: &TenantPart, report: &mut Report) {
    let chains: Vec<(&ChainPart, Vec<Classifier>)> = tenant
        .chains
        .iter()
        .map(|it| (it, it.classifiers.iter().map(|part| resolved(part, tenant)).collect()))
        .collect();
    for (index, (chain, mine)) in chains.iter().enumerate() {
        for (other, theirs) in chains[..index].iter().filter(|(other, _)| other.priority == chain.priority) {
            let meet = mine.iter().enumerate().find_map(|(at, one)| {
                let with = theirs.iter().position(|it| it.overlaps(one))?;
                Some((&chain.classifiers[at], &other.classifiers[with]))
            });
            if let Some((here, there)) = meet {
                report.push(
                    Draft::error(format!("{} and {} match the same frames", chain.object, other.object))
                        .at(here.place.clone(), "meets the other")
                        .also(there.place.clone(), "the other")
                        .help("give one of the two a higher `priority`, or make them match different frames"),
                );
            }
        }
    }
}

/// Rules that decide about nothing, because others come first.
fn covered(tenant: &TenantPart, report: &mut Report) {
    let mut rules: Vec<(&RulePart, Vec<Classifier>)> = tenant
        .rules
        .iter()
        .map(|it| (it, it.classifiers.iter().map(|part| resolved(part, tenant)).collect()))
        .collect();
    rules.sort_by_key(|(rule, _)| std::cmp::Reverse(rule.priority));
    for (index, (rule, mine)) in rules.iter().enumerate() {
        let covers = |(_, theirs): &&(&RulePart, Vec<Classifier>)| {
            !mine.is_empty() && mine.iter().all(|one| theirs.iter().any(|it| it.covers(one)))
        };
        if let Some((first, _)) = rules[..index].iter().find(covers) {
            report.push(
                Draft::warning(format!(
                    "{} never decides: {} comes first and matches all of it",
                    rule.object, first.object
                ))
                .at(rule.place.clone(), "never reached")
                .also(first.place.clone(), "comes first")
                .help("give it a higher `priority`, or remove it"),
            );
        }
    }
}
