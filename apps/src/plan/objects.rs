//! Objects of a policy, as what people can tell them apart by: a name, and fields with values. Where they stand in which file
//! is no part of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::{Change, Field, Object};
use crate::allocation::Allocations;
use crate::policy::{
    Chain, Classifier, Function, Instance, Policy, PortSelector, Probes, Protocol, RateLimit, Rule, Tenant,
};

/// What has a name of its own: kind, tenant, name. Kinds come in the order in which they are shown.
type Key = (Option<String>, Kind, String);

/// Values by the names that the policy has for them.
type Fields = BTreeMap<&'static str, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Bridge,
    Fabric,
    Tenant,
    Port,
    Function,
    Instance,
    Chain,
    Rule,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Fabric => "fabric",
            Self::Tenant => "tenant",
            Self::Port => "port",
            Self::Function => "function",
            Self::Instance => "instance",
            Self::Chain => "chain",
            Self::Rule => "rule",
        }
    }
}

/// What differs between two policies with their numbers.
pub(super) fn changes(old: (&Policy, &Allocations), new: (&Policy, &Allocations)) -> Vec<Object> {
    let (mut before, mut after) = (objects(old.0, old.1), objects(new.0, new.1));
    orders(old.0, new.0, &mut before, &mut after);
    let keys: BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
    keys.into_iter().filter_map(|key| object(key, before.get(key), after.get(key))).collect()
}

fn object(key: &Key, before: Option<&Fields>, after: Option<&Fields>) -> Option<Object> {
    let mut fields = Vec::new();
    let change = match (before, after) {
        (None, None) => return None,
        (None, Some(_)) => Change::Added,
        (Some(_), None) => Change::Removed,
        (Some(before), Some(after)) => {
            let names: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
            let value = |fields: &Fields, name| fields.get(name).cloned().unwrap_or_else(|| "none".into());
            let all = names.into_iter().map(|name| (name, value(before, name), value(after, name)));
            let other = all.filter(|(_, from, to)| from != to);
            fields.extend(other.map(|(name, from, to)| Field { name: name.into(), from, to }));
            if fields.is_empty() {
                return None;
            }
            Change::Changed
        }
    };
    let (tenant, kind, name) = key;
    Some(Object { change, kind: kind.label().into(), tenant: tenant.clone(), name: name.clone(), fields })
}

fn objects(policy: &Policy, allocations: &Allocations) -> BTreeMap<Key, Fields> {
    let mut all = BTreeMap::new();
    let Policy { bridges, fabric, tenants } = policy;
    for bridge in bridges {
        all.insert((None, Kind::Bridge, bridge.name.clone()), Fields::from([("dpid", bridge.dpid.to_string())]));
    }
    let crate::policy::Fabric { links, probes, drain } = fabric;
    // Their order doesn't matter.
    let links: BTreeSet<String> = links.iter().map(ToString::to_string).collect();
    let mut settings = Fields::from([("links", list(links))]);
    match probes {
        Probes::Budget(budget) => {
            settings.extend([("probe_interval", "auto".to_owned()), ("probe_budget", budget.to_string())]);
        }
        Probes::Every(time) => settings.extend([("probe_interval", format!("{} ms", time.as_millis()))]),
    }
    let drain: BTreeSet<String> = drain.iter().map(|it| format!("{}/{}", it.bridge, it.port)).collect();
    if !drain.is_empty() {
        settings.insert("drain", list(drain));
    }
    all.insert((None, Kind::Fabric, "fabric".into()), settings);
    for it in tenants {
        let mut add = |kind, name: String, fields| {
            // Ports need no name, so two entries may look the same.
            let mut key = (Some(it.name.clone()), kind, name.clone());
            for number in 2.. {
                if !all.contains_key(&key) {
                    break;
                }
                key.2 = format!("{name} ({number})");
            }
            all.insert(key, fields);
        };
        add(Kind::Tenant, it.name.clone(), tenant(it, allocations));
        it.ports.iter().for_each(|it| add(Kind::Port, format!("{}/{}", it.bridge, it.port), port(it)));
        for it in &it.functions {
            add(Kind::Function, it.name.clone(), function(it));
            it.instances.iter().for_each(|one| add(Kind::Instance, format!("{}/{}", it.name, one.name), instance(one)));
        }
        it.chains.iter().for_each(|it| add(Kind::Chain, it.name.clone(), chain(it)));
        it.rules.iter().for_each(|it| add(Kind::Rule, it.name.clone(), rule(it)));
    }
    all
}

/// Among rules, and chains, of one priority the order in the files decides. It is told where it changes among those that stay.
fn orders(old: &Policy, new: &Policy, before: &mut BTreeMap<Key, Fields>, after: &mut BTreeMap<Key, Fields>) {
    fn names(tenant: &Tenant) -> [(&'static str, Vec<&str>); 2] {
        let chains = tenant.chains.iter().map(|it| it.name.as_str()).collect();
        [("order of chains", chains), ("order of rules", tenant.rules.iter().map(|it| it.name.as_str()).collect())]
    }
    for tenant in &new.tenants {
        let Some(former) = old.tenant(&tenant.name) else { continue };
        let key = (Some(tenant.name.clone()), Kind::Tenant, tenant.name.clone());
        for ((field, was), (_, is)) in names(former).into_iter().zip(names(tenant)) {
            let common = |these: &[&str], those: &[&str]| list(these.iter().filter(|name| those.contains(name)));
            let (was, is) = (common(&was, &is), common(&is, &was));
            if was != is {
                before.entry(key.clone()).or_default().insert(field, was);
                after.entry(key.clone()).or_default().insert(field, is);
            }
        }
    }
}

fn tenant(tenant: &Tenant, allocations: &Allocations) -> Fields {
    let Tenant {
        name,
        key,
        unknown_unicast,
        link_local,
        max_hosts,
        mtu,
        rate_limit,
        flood_limit,
        ports: _,
        default,
        inner_vlans,
        functions: _,
        chains: _,
        rules: _,
        origin: _,
    } = tenant;
    let key = key.or(allocations.of(name).map(|numbers| numbers.key));
    let mut fields = Fields::from([
        ("unknown_unicast", lower(unknown_unicast)),
        ("link_local", lower(link_local)),
        ("max_hosts", max_hosts.to_string()),
        ("default", lower(default)),
        ("inner_vlans", lower(inner_vlans)),
    ]);
    fields.extend(key.map(|key| ("key", key.to_string())));
    fields.extend(mtu.map(|octets| ("mtu", octets.to_string())));
    limit(&mut fields, "rate_limit", *rate_limit);
    limit(&mut fields, "flood_limit", *flood_limit);
    fields
}

fn port(port: &PortSelector) -> Fields {
    let PortSelector {
        bridge: _,
        port: _,
        name,
        mac,
        ip,
        shared_mac,
        shared_ip,
        router,
        dhcp_server,
        rate_limit,
        rate_limit_to,
        origin: _,
    } = port;
    let mut fields = Fields::new();
    fields.extend(name.clone().map(|name| ("name", name)));
    fields.extend(mac.map(|mac| ("mac", mac.to_string())));
    if !ip.is_empty() {
        fields.insert("ip", list(ip));
    }
    if !shared_mac.is_empty() {
        fields.insert("shared_mac", list(shared_mac));
    }
    if !shared_ip.is_empty() {
        fields.insert("shared_ip", list(shared_ip));
    }
    for (key, offered) in [("router", router), ("dhcp_server", dhcp_server)] {
        fields.extend(offered.then(|| (key, offered.to_string())));
    }
    limit(&mut fields, "rate_limit", *rate_limit);
    limit(&mut fields, "rate_limit_to", *rate_limit_to);
    fields
}

fn function(function: &Function) -> Fields {
    let Function { name: _, kind, on_failure, share_by, instances: _, origin: _ } = function;
    Fields::from([("kind", lower(kind)), ("on_failure", lower(on_failure)), ("share_by", lower(share_by))])
}

fn instance(instance: &Instance) -> Fields {
    let Instance { name: _, bridge, ingress, egress, mac, weight, drain, origin: _ } = instance;
    let mut fields = Fields::from([
        ("bridge", bridge.clone()),
        ("ingress", ingress.clone()),
        ("egress", egress.clone()),
        ("weight", weight.to_string()),
        ("drain", drain.to_string()),
    ]);
    fields.extend(mac.map(|mac| ("mac", mac.to_string())));
    fields
}

fn chain(chain: &Chain) -> Fields {
    let Chain { name: _, priority, through, symmetric, broadcast, classifiers, rate_limit, origin: _ } = chain;
    let mut fields = Fields::from([
        ("priority", priority.to_string()),
        ("through", list(through)),
        ("symmetric", symmetric.to_string()),
        ("broadcast", broadcast.to_string()),
        ("match", matches(classifiers)),
    ]);
    limit(&mut fields, "rate_limit", *rate_limit);
    fields
}

fn rule(rule: &Rule) -> Fields {
    let Rule { name: _, priority, classifiers, action, origin: _ } = rule;
    Fields::from([
        ("priority", priority.to_string()),
        ("match", matches(classifiers)),
        ("action", lower(action).replace("allowestablished", "allow-established")),
    ])
}

fn limit(fields: &mut Fields, name: &'static str, limit: Option<RateLimit>) {
    fields.extend(limit.map(|limit| (name, format!("{limit}, burst {}", limit.burst))));
}

fn matches(classifiers: &[Classifier]) -> String {
    classifiers.iter().map(classifier).collect::<Vec<_>>().join(" | ")
}

fn classifier(it: &Classifier) -> String {
    let Classifier {
        protocol,
        vlan,
        source,
        destination,
        source_port,
        destination_port,
        icmp_type,
        icmp_code,
        origin: _,
    } = it;
    let mut parts = vec![match *protocol {
        Protocol::Any => "any".into(),
        Protocol::TCP => "tcp".into(),
        Protocol::UDP => "udp".into(),
        Protocol::SCTP => "sctp".into(),
        Protocol::ARP => "arp".into(),
        Protocol::Icmp => "icmp".into(),
        Protocol::Ip(number) => format!("ip {number}"),
        Protocol::Ethertype(number) => format!("{number:#06x}"),
    }];
    parts.extend(vlan.map(|vlan| format!("vlan {vlan}")));
    if !icmp_type.is_empty() {
        parts.push(format!("type {}", list(icmp_type)));
    }
    parts.extend(icmp_code.map(|code| format!("code {code}")));
    let range = |range: &RangeInclusive<u16>| match (*range.start(), *range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    for (word, addresses, ports) in [("from", source, source_port), ("to", destination, destination_port)] {
        if !addresses.is_empty() {
            parts.push(format!("{word} {}", list(addresses)));
        }
        if !ports.is_empty() {
            parts.push(format!("{word} port {}", list(ports.iter().map(range))));
        }
    }
    parts.join(" ")
}

/// How a policy writes one of a few words.
fn lower(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
