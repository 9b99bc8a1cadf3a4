//! Mistakes that lie between two declarations, maybe of two files.

use std::collections::BTreeMap;

use super::declared::{Declared, TenantPart};
use super::linked;
use super::report::{At, Draft, Place, Report};
use super::text::quote;
use super::values::{canonical, is_literal};

/// Reports them all.
pub(super) fn check(declared: &Declared, report: &mut Report) {
    for (first, again, ()) in repeated(declared.fabrics.iter().map(|fabric| ((), &fabric.place, ()))) {
        report.push(
            Draft::error("there are two `[fabric]` tables")
                .at(again.clone(), "second `[fabric]`")
                .also(first.clone(), "first `[fabric]`")
                .help("move everything into one of them: the files together describe one fabric"),
        );
    }
    bridges(declared, report);
    tenants(declared, report);
    for tenant in &declared.tenants {
        addresses(tenant, report);
    }
    selectors(declared, report);
    linked::check(declared, report);
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
    let help = "a station is behind one port: correct one of the two, or remove `mac`";
    unique(macs, |mac| format!("two ports of {of} have the MAC address {mac}"), help, report);
    let ips = tenant.ports.iter().flat_map(|port| &port.ip);
    let help = "an address belongs to one port: write it once";
    unique(ips, |ip| format!("the IP address {ip} is written twice in {of}"), help, report);
}

/// Ports that surely are claimed twice. Whether two different patterns meet is only known once ports are there.
fn selectors(declared: &Declared, report: &mut Report) {
    let dpids = declared.dpids();
    let lower: BTreeMap<String, &At<String>> = declared
        .bridges
        .iter()
        .filter_map(|bridge| bridge.name.as_ref())
        .map(|name| (name.value.clone(), name))
        .collect();
    let mut claims = Vec::new();
    for tenant in &declared.tenants {
        for entry in &tenant.ports {
            let (Some(bridge), Some(port)) = (&entry.bridge, &entry.port) else { continue };
            let named = lower.get(&bridge.value.to_lowercase()).filter(|name| name.value != bridge.value);
            if let Some(name) = named.filter(|_| is_literal(&bridge.value)) {
                report.push(
                    Draft::error(format!("{}: there is no bridge {}", entry.object, quote(&bridge.value)))
                        .at(bridge.place.clone(), "upper-case letters")
                        .also(name.place.clone(), "differs in case only")
                        .help(format!("write: bridge = \"{}\"", name.value)),
                );
            }
            let bridge = dpids.get(bridge.value.as_str()).cloned().unwrap_or_else(|| canonical(&bridge.value));
            claims.push(((bridge, canonical(&port.value)), &port.place, tenant.object.as_str()));
        }
    }
    let mut owners: BTreeMap<(String, String), &str> = BTreeMap::new();
    for (claim, _, tenant) in &claims {
        owners.entry(claim.clone()).or_insert(tenant);
    }
    let claims = claims.into_iter().map(|(claim, place, tenant)| (claim.clone(), place, (claim, tenant)));
    for (first, again, (claim, tenant)) in repeated(claims) {
        let owner = owners.get(&claim).copied().unwrap_or(tenant);
        let port = quote(&claim.1);
        let (message, help) = if owner == tenant {
            (format!("{tenant} selects port {port} of the same bridge twice"), "remove one of the two entries")
        } else {
            let help = "a port belongs to one tenant: remove one of the two entries, or narrow its pattern";
            (format!("{tenant} and {owner} select the same port {port}"), help)
        };
        report.push(
            Draft::error(message)
                .at(again.clone(), "selected again")
                .also(first.clone(), format!("selected by {owner}"))
                .help(help),
        );
    }
}

/// Reports values that are there more than once.
pub(super) fn unique<'a, T: Ord + Clone + 'a>(
    values: impl Iterator<Item = &'a At<T>>,
    message: impl Fn(&T) -> String,
    help: &str,
    report: &mut Report,
) {
    for (first, again, value) in repeated(values.map(|it| (it.value.clone(), &it.place, &it.value))) {
        report.push(Draft::error(message(value)).at(again.clone(), "again").also(first.clone(), "first").help(help));
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
