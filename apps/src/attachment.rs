//! Which port belongs to whom: the policy's globs held against the bridges' ports.

use std::collections::BTreeMap;

use openflow::types::{DatapathId, PortNo};

use crate::policy::{FunctionKind, Glob, Origin, Policy, PortSelector, Tenant};
use crate::problems::Problem;
use crate::view::{Bridge, Endpoint, PortView, View};

/// A port of a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    /// The tenant's name.
    pub tenant: String,
    /// What the policy says of the port.
    pub selector: PortSelector,
}

/// A port of a tenant's service function.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    /// The tenant's name.
    pub tenant: String,
    /// The function's name.
    pub function: String,
    /// The name of the function's instance.
    pub instance: String,
    /// How frames go through the function.
    pub kind: FunctionKind,
    /// What the policy says of the instance.
    pub origin: Origin,
}

/// What a port is for.
#[derive(Clone, Debug, PartialEq)]
pub enum PortUse {
    /// It belongs to a tenant.
    Tenant(Box<Attached>),
    /// It belongs to a tenant's service function.
    Function(Box<ServicePort>),
    /// It may become a link.
    Candidate,
    /// A tenant's pattern matches it, and it isn't the tenant's before probes had time to show that it is no link.
    Untried(Box<Attached>),
    /// Nothing: frames from it go nowhere.
    Unused,
}

impl PortUse {
    /// Do both give the port to the same tenant, or both to none? Of a function that becomes one of another kind, frames
    /// come back that didn't before: that makes it another one.
    pub fn same_owner(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tenant(one) | Self::Untried(one), Self::Tenant(two) | Self::Untried(two)) => {
                one.tenant == two.tenant
            }
            (Self::Function(one), Self::Function(two)) => {
                (&one.tenant, &one.function, &one.instance, one.kind)
                    == (&two.tenant, &two.function, &two.instance, two.kind)
            }
            (Self::Candidate, Self::Candidate) | (Self::Unused, Self::Unused) => true,
            _ => false,
        }
    }
}

/// What every port of the fabric is for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachments {
    /// By place.
    pub ports: BTreeMap<Endpoint, PortUse>,
    /// Ports that can't be used, and why.
    pub problems: Vec<Problem>,
}

impl Attachments {
    /// The use of one port.
    pub fn of(&self, place: Endpoint) -> &PortUse {
        self.ports.get(&place).unwrap_or(&PortUse::Unused)
    }

    /// Do probes go out there, to find what is behind it?
    pub fn is_probed(&self, place: Endpoint) -> bool {
        matches!(self.of(place), PortUse::Candidate | PortUse::Untried(_))
    }

    /// The tenant whose pattern matches a port of which it isn't sure that it is no link, or that is the tenant's by that alone.
    pub fn by_pattern(&self, place: Endpoint) -> Option<&Attached> {
        match self.of(place) {
            PortUse::Untried(attached) => Some(attached),
            PortUse::Tenant(attached) if !attached.selector.port.is_literal() => Some(attached),
            _ => None,
        }
    }

    /// The tenant whose port it is.
    pub fn tenant(&self, place: Endpoint) -> Option<&Attached> {
        if let PortUse::Tenant(attached) = self.of(place) { Some(attached) } else { None }
    }

    /// The service function whose port it is.
    pub fn service(&self, place: Endpoint) -> Option<&ServicePort> {
        if let PortUse::Function(port) = self.of(place) { Some(port) } else { None }
    }

    /// The ports of one tenant.
    pub fn of_tenant<'a>(&'a self, tenant: &'a str) -> impl Iterator<Item = (Endpoint, &'a PortSelector)> {
        self.ports.iter().filter_map(move |(place, used)| match used {
            PortUse::Tenant(attached) if attached.tenant == tenant => Some((*place, &attached.selector)),
            _ => None,
        })
    }
}

/// What every port of the fabric is for. A port that two tenants claim is nobody's.
pub fn attach(policy: &Policy, view: &View) -> Attachments {
    let mut attachments = Attachments::default();
    for (dpid, bridge) in &view.bridges {
        let dpid_text = dpid.to_string();
        let twins = twins(bridge);
        for (number, port) in &bridge.ports {
            let place = Endpoint { bridge: *dpid, port: *number };
            if let Some(numbers) = twins.get(port.name.as_str())
                && let Some(origin) = picks_one(policy, &bridge.name, &dpid_text, &port.name)
            {
                if numbers.first() == Some(number) {
                    attachments.problems.push(same_name(&bridge.name, place, &port.name, numbers, &origin));
                }
                attachments.ports.insert(place, PortUse::Unused);
                continue;
            }
            let claims = |tenant: &Tenant| {
                if let Some(service) = service(tenant, &bridge.name, &dpid_text, &port.name) {
                    return Some((service.origin.clone(), PortUse::Function(Box::new(service))));
                }
                let hit = |selector: &&PortSelector| {
                    (selector.bridge.matches(&bridge.name) || selector.bridge.matches(&dpid_text))
                        && selector.port.matches(&port.name)
                        // A bridge's own interface is no port like the others: only its very name selects it.
                        && (*number != PortNo::LOCAL || selector.port.is_literal())
                };
                // The most exact selector speaks for the port: one that names it before a glob.
                let exact = |selector: &&PortSelector| (selector.port.is_literal(), selector.bridge.is_literal());
                let selector = tenant.ports.iter().filter(hit).max_by_key(exact)?.clone();
                let origin = selector.origin.clone();
                Some((origin, PortUse::Tenant(Box::new(Attached { tenant: tenant.name.clone(), selector }))))
            };
            let mut claimed = policy.tenants.iter().filter_map(|tenant| Some((tenant, claims(tenant)?)));
            let used = match (claimed.next(), claimed.next()) {
                (Some((_, (_, used))), None) => match used {
                    PortUse::Tenant(attached) if !attached.selector.port.is_literal() => {
                        match by_pattern(policy, port, attached) {
                            Ok(used) => used,
                            Err(why) => {
                                let text = format!("port `{}` of bridge `{}` {why}", port.name, bridge.name);
                                attachments.problems.push(Problem::new("pattern takes link", place, text));
                                PortUse::Unused
                            }
                        }
                    }
                    used => used,
                },
                (Some((_, (_, one))), Some((_, (_, other))))
                    if [&one, &other].iter().all(|it| stays_link(policy, port, it)) =>
                {
                    PortUse::Candidate
                }
                (Some((one, (first, _))), Some((other, (second, _)))) => {
                    let text = format!(
                        "port `{}` of bridge `{}` is claimed by tenant `{}` ({first}) and tenant `{}` ({second}): nobody gets it; narrow one of the two patterns",
                        port.name, bridge.name, one.name, other.name,
                    );
                    attachments.problems.push(Problem::new("claimed twice", place, text));
                    PortUse::Unused
                }
                (None, _) if *number != PortNo::LOCAL && may_link(policy, &port.name) => PortUse::Candidate,
                (None, _) => PortUse::Unused,
            };
            attachments.ports.insert(place, used);
        }
    }
    attachments
}

/// Does a pattern match a port that is a link's all the same?
fn stays_link(policy: &Policy, port: &PortView, claimed: &PortUse) -> bool {
    let PortUse::Tenant(attached) = claimed else { return false };
    let by_pattern = || by_pattern(policy, port, attached.clone());
    !attached.selector.port.is_literal() && by_pattern() == Ok(PortUse::Candidate)
}

/// What a port is for that a tenant's pattern matches, or why it is nobody's. A pattern never makes a tenant's port of a link: a
/// flood into it would come back by the others. Whoever is behind a port can pass probes on, so these alone make no link of it.
fn by_pattern(policy: &Policy, port: &PortView, attached: Box<Attached>) -> Result<PortUse, String> {
    let PortSelector { port: pattern, origin, .. } = &attached.selector;
    let behind = port.behind;
    let of_links = policy.fabric.links.iter().filter(|glob| glob.matches(&port.name)).map(Glob::exactness).max();
    // The more exact of two patterns speaks for the port.
    if of_links.is_some_and(|exactness| exactness > pattern.exactness()) {
        return Ok(PortUse::Candidate);
    }
    let claim = format!("matches `{pattern}` of tenant `{}` ({origin})", attached.tenant);
    let apart = "name the ends of links apart from the tenants' ports, or name them more exactly in `links` of [fabric] than that \
                 pattern does; a port that is to be the tenant's all the same has to be listed by its very name";
    match of_links {
        Some(_) if behind.tunnel => Ok(PortUse::Candidate),
        None if behind.tunnel => Err(format!(
            "{claim}, but is the end of a tunnel, which `links` of [fabric] doesn't name: nobody gets it; {apart}"
        )),
        _ if behind.probes => Err(format!(
            "{claim}, but probes show that it leads to another port of this fabric: nobody gets it; if that is a link, {apart}; \
             if something behind it joins two ports, end that, then apply the policy again"
        )),
        _ if behind.untried => Ok(PortUse::Untried(attached)),
        _ => Ok(PortUse::Tenant(attached)),
    }
}

/// Ports of a bridge that tell the same name: OpenFlow has room for its beginning alone (`OFP_MAX_PORT_NAME_LEN`).
fn twins(bridge: &Bridge) -> BTreeMap<&str, Vec<PortNo>> {
    let mut numbers: BTreeMap<&str, Vec<PortNo>> = BTreeMap::new();
    for (number, port) in &bridge.ports {
        numbers.entry(&port.name).or_default().push(*number);
    }
    numbers.retain(|_, numbers| numbers.len() > 1);
    numbers
}

/// What in the policy means one port of this name, or some by how their names end. A pattern that leaves the end open means
/// all that begin so, whatever is cut off.
fn picks_one(policy: &Policy, bridge: &str, dpid: &str, port: &str) -> Option<Origin> {
    let picks = |selector: &&PortSelector| {
        (selector.bridge.matches(bridge) || selector.bridge.matches(dpid))
            && selector.port.matches(port)
            && !selector.port.to_string().ends_with('*')
    };
    policy.tenants.iter().find_map(|tenant| {
        let function = service(tenant, bridge, dpid, port).map(|service| service.origin);
        function.or_else(|| tenant.ports.iter().find(picks).map(|selector| selector.origin.clone()))
    })
}

fn same_name(bridge: &str, place: Endpoint, name: &str, numbers: &[PortNo], origin: &Origin) -> Problem {
    let numbers = numbers.iter().map(PortNo::to_string).collect::<Vec<_>>().join(" and ");
    let text = format!(
        "ports {numbers} of bridge `{bridge}` have the same name `{name}`, as far as OpenFlow tells it (15 characters), so \
         {origin} can't mean one of them: nobody gets them; give them names on their bridge that differ in the first 15 \
         characters (ovs-vsctl del-port NAME, then add-port with another one; ovs-ofctl show tells which is which)"
    );
    Problem::new("same name", format!("{} {name}", place.bridge), text)
}

/// The tenant's service function that a port belongs to.
fn service(tenant: &Tenant, bridge: &str, dpid: &str, port: &str) -> Option<ServicePort> {
    let all = tenant.functions.iter().flat_map(|function| function.instances.iter().map(move |it| (function, it)));
    let mut here = all.filter(|(_, it)| it.bridge == bridge || it.bridge == dpid);
    let (function, instance) = here.find(|(_, it)| it.ingress == port || it.egress == port)?;
    Some(ServicePort {
        tenant: tenant.name.clone(),
        function: function.name.clone(),
        instance: instance.name.clone(),
        kind: function.kind,
        origin: instance.origin.clone(),
    })
}

fn may_link(policy: &Policy, port: &str) -> bool {
    policy.fabric.links.iter().any(|glob| glob.matches(port))
}

/// The names of bridges: from the policy, else what the bridge says of itself if nobody else has that name, else its
/// datapath id.
pub fn bridge_names(policy: &Policy, told: &BTreeMap<DatapathId, String>) -> BTreeMap<DatapathId, String> {
    let named: BTreeMap<DatapathId, &str> = policy.bridges.iter().map(|name| (name.dpid, name.name.as_str())).collect();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for name in named.values().copied() {
        *uses.entry(name).or_default() += 1;
    }
    for (_, name) in told.iter().filter(|(dpid, _)| !named.contains_key(dpid)) {
        *uses.entry(name).or_default() += 1;
    }
    told.iter()
        .map(|(dpid, told)| {
            let unique = !told.is_empty() && uses.get(told.as_str()) == Some(&1);
            let name = named.get(dpid).copied().or(unique.then_some(told.as_str()));
            (*dpid, name.map_or_else(|| dpid.to_string(), str::to_owned))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Source, load};

    /// What ports of one bridge are for, by number, and whether a problem names both twins.
    fn given(policy: &str, names: &[&str]) -> (Vec<Option<String>>, bool) {
        let text = format!("version = 1\n{policy}");
        let policy = load(&[Source { name: "p.toml".into(), text }]).unwrap().policy;
        let port = |name: &&str| PortView { name: (*name).to_owned(), up: true, ..PortView::default() };
        let ports = names.iter().zip(1..).map(|(name, number)| (PortNo(number), port(name))).collect();
        let bridge = Bridge { name: "h1".into(), responsive: true, ports };
        let view = View { bridges: BTreeMap::from([(DatapathId(1), bridge)]), ..View::default() };
        let given = attach(&policy, &view);
        let told = given.problems.iter().any(|it| it.text.contains("ports 1 and 2 of bridge `h1`"));
        let owner = |used: &PortUse| match used {
            PortUse::Tenant(attached) => Some(attached.tenant.clone()),
            PortUse::Function(port) => Some(port.function.clone()),
            PortUse::Candidate => Some("link".to_owned()),
            PortUse::Untried(_) | PortUse::Unused => None,
        };
        (given.ports.values().map(owner).collect(), told)
    }

    #[test]
    fn of_ports_whose_names_tell_no_difference_none_is_anybodys() {
        let tenant = |name: &str, ports: &str| format!("[[tenant]]\nname = \"{name}\"\nports = [{ports}]\n");
        let entry = |port: &str| format!("{{ bridge = \"*\", port = \"{port}\" }},");
        let twins = ["customer-port-1", "customer-port-1", "customer-port-2"];
        let [green, link] = ["green", "link"].map(|who| Some(who.to_owned()));
        let exact = tenant("green", &entry("customer-port-1"));
        assert_eq!(given(&exact, &twins), (vec![None, None, link.clone()], true));
        assert_eq!(given(&exact, &twins[1..]), (vec![green.clone(), link.clone()], false), "one alone is told apart");
        let by_end = tenant("green", &entry("*-port-1"));
        assert_eq!(given(&by_end, &twins), (vec![None, None, link.clone()], true));
        let begins = tenant("green", &entry("customer-*"));
        assert_eq!(given(&begins, &twins), (vec![green.clone(); 3], false), "whatever is cut off");
        let both = tenant("green", &entry("customer-*")) + &tenant("orange", &entry("customer-port-1"));
        assert_eq!(given(&both, &twins), (vec![None, None, green.clone()], true));
        let links = format!("[fabric]\nlinks = [\"customer-*\"]\n{}", tenant("green", &entry("customer-port-2")));
        assert_eq!(given(&links, &twins), (vec![link.clone(), link, green], false), "probes tell links apart");
        let function = "[[tenant.function]]\nname = \"tap\"\nkind = \"tap\"\n\
                        instances = [{ name = \"t\", bridge = \"h1\", ingress = \"customer-port-1\" }]\n";
        let function = tenant("green", &entry("customer-*")) + function;
        assert_eq!(given(&function, &twins).0[..2], [None, None]);
    }

    #[test]
    fn a_function_of_another_kind_is_another_owner() {
        let of = |kind| {
            let (tenant, function, instance) = ("green".into(), "ids".into(), "ids-1".into());
            let origin = Origin { file: "a.toml".into(), line: 1 };
            PortUse::Function(Box::new(ServicePort { tenant, function, instance, kind, origin }))
        };
        assert!(of(FunctionKind::Tap).same_owner(&of(FunctionKind::Tap)));
        assert!(!of(FunctionKind::Tap).same_owner(&of(FunctionKind::Hairpin)));
    }
}
