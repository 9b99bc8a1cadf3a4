//! Mistakes that lie between two declarations, maybe of two files.

use std::collections::BTreeMap;
use std::fmt;

use super::answers;
use super::between_chains;
use super::claims;
use super::declared::{Declared, TenantPart};
use super::diagnostic::Code;
use super::report::{At, Draft, Place, Report};
use super::text::quote;
use super::values::{canonical, is_literal};
use super::virtual_macs;

/// Reports them all.
pub(super) fn check(declared: &Declared, report: &mut Report) {
    for (first, again, ()) in repeated(declared.fabrics.iter().map(|fabric| ((), &fabric.place, ()))) {
        report.push(
            Draft::error("there are two `[fabric]` tables")
                .code(Code::Duplicate)
                .at(again.clone(), "second `[fabric]`")
                .also(first.clone(), "first `[fabric]`")
                .help("move everything into one of them: the files together describe one fabric"),
        );
    }
    bridges(declared, report);
    tenants(declared, report);
    for tenant in &declared.tenants {
        addresses(tenant, report);
        between_chains::check(tenant, report);
        answers::check(tenant, report);
        virtual_macs::check(tenant, report);
    }
    selectors(declared, report);
    claims::check(declared, report);
}

fn bridges(declared: &Declared, report: &mut Report) {
    let names = declared.bridges.iter().filter_map(|bridge| bridge.name.as_ref());
    unique(
        names,
        |name| format!("two bridges are named {}", quote(name)),
        "give each bridge a name of its own",
        report,
    );
    let ids = declared.bridges.iter().filter_map(|bridge| bridge.dpid.as_ref());
    let help = "a bridge has one name: remove one of the two, or correct its `dpid`";
    unique(ids, |dpid| format!("two bridges have the datapath id {dpid}"), help, report);
}

fn tenants(declared: &Declared, report: &mut Report) {
    let names = declared.tenants.iter().filter_map(|tenant| tenant.name.as_ref());
    let help = "give each tenant a name of its own; what belongs to one tenant stands in one `[[tenant]]`";
    unique(names, |name| format!("two tenants are named {}", quote(name)), help, report);
    let keys = declared.tenants.iter().filter_map(|tenant| {
        let key = tenant.key.as_ref()?;
        Some((key.value, &key.place, tenant.object.as_str()))
    });
    let mut owners: BTreeMap<u32, &str> = BTreeMap::new();
    for (key, _, tenant) in keys.clone() {
        owners.entry(key).or_insert(tenant);
    }
    for (first, again, (key, tenant)) in repeated(keys.map(|(key, place, tenant)| (key, place, (key, tenant)))) {
        let owner = owners.get(&key).copied().unwrap_or("a tenant");
        // Of a tenant that is declared twice, the name has been reported.
        if owner == tenant {
            continue;
        }
        report.push(
            Draft::error(format!("{tenant} and {owner} have the same key {key}"))
                .code(Code::Duplicate)
                .at(again.clone(), "the same key")
                .also(first.clone(), format!("key of {owner}"))
                .help("give each tenant a key of its own, or leave `key` out: then one is allocated"),
        );
    }
}

/// Names and addresses that one tenant gives to two ports. Two tenants may use the same: they never see each other.
fn addresses(tenant: &TenantPart, report: &mut Report) {
    let of = &tenant.object;
    let names = tenant.ports.iter().filter_map(|port| port.name.as_ref());
    let help = "give each port a name of its own";
    unique(names, |name| format!("two ports of {of} are named {}", quote(name)), help, report);
    let macs = tenant.ports.iter().filter_map(|port| port.mac.as_ref());
    let routed = tenant.functions.iter().flat_map(|function| &function.instances).filter_map(|it| it.mac.as_ref());
    let help = "a station is behind one port: correct one of the two, or remove `mac`";
    unique(macs.chain(routed), |mac| format!("two ports of {of} have the MAC address {mac}"), help, report);
    let ips = tenant.ports.iter().flat_map(|port| &port.ip);
    let help = "an address belongs to one port: write it once";
    unique(ips, |ip| format!("the IP address {ip} is written twice in {of}"), help, report);
    let macs = tenant.ports.iter().filter_map(|port| port.mac.as_ref());
    let ips = tenant.ports.iter().flat_map(|port| &port.ip);
    shared(tenant.ports.iter().flat_map(|port| &port.shared_mac), macs, "mac", report);
    shared(tenant.ports.iter().flat_map(|port| &port.shared_ip), ips, "ip", report);
}

/// Addresses that several ports share, and one has for its own.
fn shared<'a, T: Ord + fmt::Display + 'a>(
    shared: impl Iterator<Item = &'a At<T>>,
    own: impl Iterator<Item = &'a At<T>>,
    key: &str,
    report: &mut Report,
) {
    let own: BTreeMap<&T, &Place> = own.map(|it| (&it.value, &it.place)).collect();
    for (at, own) in shared.filter_map(|it| Some((it, own.get(&it.value)?))) {
        report.push(
            Draft::error(format!("{} is `shared_{key}` of one port and `{key}` of another", at.value))
                .code(Code::Duplicate)
                .at(at.place.clone(), "shared")
                .also((*own).clone(), "one port's own")
                .help(format!("write it as `shared_{key}` at each port that may have it, and as `{key}` at none")),
        );
    }
}

/// Ports that surely are claimed twice. Whether two different patterns meet is only known once ports are there.
fn selectors(declared: &Declared, report: &mut Report) {
    let dpids: BTreeMap<&str, String> = declared
        .bridges
        .iter()
        .filter_map(|bridge| Some((bridge.name.as_ref()?.value.as_str(), bridge.dpid.as_ref()?.value.to_string())))
        .collect();
    let lower: BTreeMap<String, &At<String>> = declared
        .bridges
        .iter()
        .filter_map(|bridge| bridge.name.as_ref())
        .map(|name| (name.value.clone(), name))
        .collect();
    let mut claims = Vec::new();
    let mut bridge_of = |object: &str, bridge: &At<String>| {
        let named = lower.get(&bridge.value.to_lowercase()).filter(|name| name.value != bridge.value);
        if let Some(name) = named.filter(|_| is_literal(&bridge.value)) {
            report.push(
                Draft::error(format!("{object}: there is no bridge {}", quote(&bridge.value)))
                    .code(Code::UnknownBridge)
                    .at(bridge.place.clone(), "upper-case letters")
                    .also(name.place.clone(), "differs in case only")
                    .help(format!("write: bridge = \"{}\"", name.value)),
            );
        }
        dpids.get(bridge.value.as_str()).cloned().unwrap_or_else(|| canonical(&bridge.value))
    };
    let mut drained = Vec::new();
    for entry in declared.fabrics.iter().flat_map(|fabric| &fabric.drain) {
        let (Some(bridge), Some(port)) = (&entry.bridge, &entry.port) else { continue };
        let link = (bridge_of(&entry.object, bridge), canonical(&port.value));
        drained.push((link, &port.place, port));
    }
    for tenant in &declared.tenants {
        for entry in &tenant.ports {
            let (Some(bridge), Some(port)) = (&entry.bridge, &entry.port) else { continue };
            let port_key = (bridge_of(&entry.object, bridge), canonical(&port.value));
            claims.push((port_key, &port.place, Owner { object: &tenant.object, is_instance: false }));
        }
        for instance in tenant.functions.iter().flat_map(|function| &function.instances) {
            let Some(bridge) = &instance.bridge else { continue };
            let bridge = bridge_of(&instance.object, bridge);
            for port in instance.ports() {
                let port_key = (bridge.clone(), port.value.clone());
                claims.push((port_key, &port.place, Owner { object: &instance.object, is_instance: true }));
            }
        }
    }
    for (first, again, port) in repeated(drained.into_iter()) {
        report.push(
            Draft::error(format!("`drain` selects port {} of the same bridge twice", quote(&port.value)))
                .code(Code::Duplicate)
                .at(again.clone(), "selected again")
                .also(first.clone(), "selected before")
                .help("remove one of the two entries"),
        );
    }
    let mut owners: BTreeMap<(String, String), Owner<'_>> = BTreeMap::new();
    for (claim, _, owner) in &claims {
        owners.entry(claim.clone()).or_insert(*owner);
    }
    let claims = claims.into_iter().map(|(claim, place, owner)| (claim.clone(), place, (claim, owner)));
    for (first, again, (claim, claimant)) in repeated(claims) {
        let owner = owners.get(&claim).copied().unwrap_or(claimant);
        let port = quote(&claim.1);
        let (one, other) = (claimant.object, owner.object);
        let (message, help) = if claimant.is_instance || owner.is_instance {
            let help =
                "a port belongs to one instance of one function, and to no tenant's `ports`: correct one of the two";
            (format!("{one} and {other} have the same port {port}"), help)
        } else if one == other {
            (format!("{one} selects port {port} of the same bridge twice"), "remove one of the two entries")
        } else {
            let help = "a port belongs to one tenant: remove one of the two entries, or narrow its pattern";
            (format!("{one} and {other} select the same port {port}"), help)
        };
        let what = if owner.is_instance { format!("port of {other}") } else { format!("selected by {other}") };
        report.push(
            Draft::error(message)
                .code(Code::Duplicate)
                .at(again.clone(), if claimant.is_instance { "the same port" } else { "selected again" })
                .also(first.clone(), what)
                .help(help),
        );
    }
}

/// What has a port.
#[derive(Clone, Copy)]
struct Owner<'a> {
    object: &'a str,
    is_instance: bool,
}

/// Reports values that are there more than once.
pub(super) fn unique<'a, T: Ord + Clone + 'a>(
    values: impl Iterator<Item = &'a At<T>>,
    message: impl Fn(&T) -> String,
    help: &str,
    report: &mut Report,
) {
    for (first, again, value) in repeated(values.map(|it| (it.value.clone(), &it.place, &it.value))) {
        report.push(
            Draft::error(message(value))
                .code(Code::Duplicate)
                .at(again.clone(), "again")
                .also(first.clone(), "first")
                .help(help),
        );
    }
}

/// What comes again: the place of the first of its kind, its own place, and what came with it.
fn repeated<'a, K: Ord, T>(items: impl Iterator<Item = (K, &'a Place, T)>) -> Vec<(&'a Place, &'a Place, T)> {
    let mut first: BTreeMap<K, &Place> = BTreeMap::new();
    let mut again = Vec::new();
    for (key, place, with) in items {
        match first.get(&key) {
            Some(first) => again.push((*first, place, with)),
            None => _ = first.insert(key, place),
        }
    }
    again
}
