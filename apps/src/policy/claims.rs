//! What entries of `ports` may claim beside what was meant: another tenant's ports, those of links, none at all. Which ports
//! there are isn't known here, so these are warnings.

use std::collections::{BTreeMap, BTreeSet};

use super::declared::Declared;
use super::diagnostic::Code;
use super::model::Glob;
use super::patterns::{is_any, meet, start};
use super::report::{At, Draft, Report};
use super::text::{quote, suggestion};
use super::values::{canonical, is_literal};

/// More pairs than this aren't compared: it would take long, and who has so many patterns that look alike generated them.
const PAIRS_MAX: usize = 300_000;

/// More places than this don't help to find the others.
const PLACES_MAX: usize = 3;

/// Reports them all.
pub(super) fn check(declared: &Declared, report: &mut Report) {
    let bridges = Bridges::of(declared);
    if !bridges.names.is_empty() {
        unknown_bridges(declared, &bridges, report);
    }
    overlaps(&claims(declared, &bridges), report);
    links(declared, report);
}

/// The bridges that have a `[[bridge]]`: names and datapath ids.
struct Bridges<'a> {
    names: BTreeMap<&'a str, String>,
}

impl<'a> Bridges<'a> {
    fn of(declared: &'a Declared) -> Self {
        let named = |bridge: &'a super::declared::Bridge| {
            Some((bridge.name.as_ref()?.value.as_str(), bridge.dpid.as_ref()?.value.to_string()))
        };
        Self { names: declared.bridges.iter().filter_map(named).collect() }
    }

    /// What a bridge that is written like this is called.
    fn called(&self, written: &str) -> Vec<String> {
        let other = self.names.iter().find_map(|(name, dpid)| match written {
            _ if written == *name => Some(dpid.clone()),
            _ if written == dpid => Some((*name).to_owned()),
            _ => None,
        });
        [written.to_owned()].into_iter().chain(other).collect()
    }

    /// May a pattern or name be that of one of them?
    fn know(&self, written: &str) -> bool {
        let glob = Glob::new(written);
        self.names.iter().any(|(name, dpid)| glob.matches(name) || glob.matches(dpid))
    }
}

/// Bridges that nothing is known of, each told once.
fn unknown_bridges(declared: &Declared, bridges: &Bridges<'_>, report: &mut Report) {
    let drained = declared.fabrics.iter().flat_map(|fabric| &fabric.drain);
    let drained = drained.filter_map(|entry| Some((entry.object.as_str(), entry.bridge.as_ref()?)));
    let ports = declared.tenants.iter().flat_map(|tenant| &tenant.ports);
    let ports = ports.filter_map(|entry| Some((entry.object.as_str(), entry.bridge.as_ref()?)));
    let functions = declared.tenants.iter().flat_map(|tenant| &tenant.functions);
    let instances = functions.flat_map(|function| &function.instances);
    let instances = instances.filter_map(|entry| Some((entry.object.as_str(), entry.bridge.as_ref()?)));
    let mut unknown: BTreeMap<&str, Vec<(&str, &At<String>)>> = BTreeMap::new();
    for (object, bridge) in drained.chain(ports).chain(instances) {
        let written = bridge.value.as_str();
        // A datapath id is a bridge's own name. One that differs in case only is an error, told elsewhere.
        let is_id = written.len() == 16 && written.bytes().all(|octet| octet.is_ascii_hexdigit());
        let is_told = is_literal(written) && bridges.names.contains_key(written.to_lowercase().as_str());
        if !is_id && !is_told && !bridges.know(written) {
            unknown.entry(written).or_default().push((object, bridge));
        }
    }
    for (written, places) in unknown {
        let [(object, first), others @ ..] = places.as_slice() else { continue };
        let what = if is_literal(written) { "is named" } else { "has a name like" };
        let draft = Draft::warning(format!("{object}: no [[bridge]] {what} {}", quote(written)))
            .code(Code::UnknownBridge)
            .at(first.place.clone(), "not among those that [[bridge]] lists");
        let draft =
            others.iter().take(PLACES_MAX).fold(draft, |draft, (_, at)| draft.also(at.place.clone(), "nor is this"));
        report.push(draft.help(match suggestion(written, bridges.names.keys().copied(), report) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => "correct it, or add a [[bridge]] with its name and `dpid`; without one, only a bridge that calls itself \
                     so (other_config:dp-desc) is meant"
                .to_owned(),
        }));
    }
}

/// A claim of ports.
struct Claim<'a> {
    tenant: &'a str,
    /// As messages name who claims.
    object: &'a str,
    /// Names of the bridge, or the pattern of several.
    bridges: Vec<String>,
    /// In the form in which it is compared with others.
    pattern: String,
    port: &'a At<String>,
}

impl Claim<'_> {
    fn is_literal(&self) -> bool {
        is_literal(&self.pattern)
    }

    /// May it be for several ports?
    fn is_wide(&self) -> bool {
        !self.is_literal() || self.bridges.iter().any(|bridge| !is_literal(bridge))
    }

    /// What puts the wider of two before the narrower: the more of a name is given, the narrower it is.
    fn width(&self) -> (bool, bool, usize) {
        (self.is_literal(), !is_any(&self.pattern), start(&self.pattern).len())
    }

    fn meets(&self, other: &Self) -> bool {
        // Claims of the same are an error, told elsewhere.
        let same = self.pattern == other.pattern && self.bridges.iter().any(|bridge| other.bridges.contains(bridge));
        let bridges = || self.bridges.iter().any(|one| other.bridges.iter().any(|other| meet(one, other)));
        !same && meet(&self.pattern, &other.pattern) && bridges()
    }
}

fn claims<'a>(declared: &'a Declared, bridges: &Bridges<'_>) -> Vec<Claim<'a>> {
    let mut claims = Vec::new();
    for tenant in &declared.tenants {
        let Some(name) = &tenant.name else { continue };
        let mut claim = |object: &'a str, bridge: &At<String>, port: &'a At<String>| {
            let bridges =
                if is_literal(&bridge.value) { bridges.called(&bridge.value) } else { vec![canonical(&bridge.value)] };
            claims.push(Claim { tenant: &name.value, object, bridges, pattern: canonical(&port.value), port });
        };
        for entry in &tenant.ports {
            if let (Some(bridge), Some(port)) = (&entry.bridge, &entry.port) {
                claim(&tenant.object, bridge, port);
            }
        }
        for instance in tenant.functions.iter().flat_map(|function| &function.instances) {
            let Some(bridge) = &instance.bridge else { continue };
            instance.ports().for_each(|port| claim(&instance.object, bridge, port));
        }
    }
    claims
}

/// Ports that two tenants claim, one of them at least by a pattern. One message for each pattern and other tenant is enough.
fn overlaps(claims: &[Claim<'_>], report: &mut Report) {
    for (wide, narrow) in meeting(claims) {
        let [first, others @ ..] = narrow.as_slice() else { continue };
        let (wide, narrow) = (&claims[wide], &claims[*first]);
        let (one, other) = (narrow.object, wide.object);
        let (message, label) = if narrow.is_literal() {
            let port = quote(&narrow.port.value);
            (format!("{one} and {other} both claim port {port}: nobody gets it"), "claimed here")
        } else {
            let patterns = (quote(&narrow.port.value), quote(&wide.port.value));
            (
                format!(
                    "{one} and {other} may claim the same port: a name can match both {} and {}",
                    patterns.0, patterns.1
                ),
                "claims what both match",
            )
        };
        let draft = Draft::warning(message)
            .code(Code::Overlap)
            .at(narrow.port.place.clone(), label)
            .also(wide.port.place.clone(), format!("{other} claims it, too"));
        let others = others.iter().take(PLACES_MAX).map(|at| &claims[*at]);
        let draft = others.fold(draft, |draft, claim| draft.also(claim.port.place.clone(), "and this"));
        report.push(draft.help(
            "a port that two tenants claim is nobody's: narrow the pattern, or name ports so that no name matches both",
        ));
    }
}

/// Claims of other tenants that meet one that selects by a pattern: by that one, and by who has them.
fn meeting(claims: &[Claim<'_>]) -> Vec<(usize, Vec<usize>)> {
    let mut by_start: BTreeMap<&str, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
    for (at, claim) in claims.iter().enumerate() {
        by_start.entry(start(&claim.pattern)).or_default().entry(claim.tenant).or_default().push(at);
    }
    let mut found: BTreeMap<(usize, &str), BTreeSet<usize>> = BTreeMap::new();
    let mut compared = 0;
    'all: for (one, claim) in claims.iter().enumerate().filter(|(_, claim)| claim.is_wide()) {
        let begins = start(&claim.pattern);
        // Of two that meet, one begins as the other does. A single name meets only what begins with all of it.
        let longer = by_start.range(begins..).take_while(|(start, _)| start.starts_with(begins));
        let longer = longer.take(if claim.is_literal() { 1 } else { usize::MAX });
        let others =
            longer.flat_map(|(start, tenants)| tenants.iter().map(move |(tenant, all)| (*start, *tenant, all)));
        for (start, _, all) in others.filter(|(_, tenant, _)| *tenant != claim.tenant) {
            for &other in all.iter().filter(|other| start != begins || one < **other || !claims[**other].is_wide()) {
                compared += 1;
                if compared > PAIRS_MAX {
                    break 'all;
                }
                if claim.meets(&claims[other]) {
                    let order = |at: usize| (claims[at].width(), at);
                    let (wide, narrow) = if order(one) < order(other) { (one, other) } else { (other, one) };
                    found.entry((wide, claims[narrow].object)).or_default().insert(narrow);
                }
            }
        }
    }
    found.into_iter().map(|((wide, _), narrow)| (wide, narrow.into_iter().collect())).collect()
}

/// Patterns of tenants that ports of links may match.
fn links(declared: &Declared, report: &mut Report) {
    let links = declared.fabrics.iter().find_map(|fabric| fabric.links.as_ref());
    // That any port may become a link is how it is where nothing is said: then only names tell.
    let told: Vec<&At<String>> = links.into_iter().flatten().filter(|link| !is_any(&link.value)).collect();
    let none = links.is_some_and(Vec::is_empty);
    for (tenant, entry) in
        declared.tenants.iter().flat_map(|tenant| tenant.ports.iter().map(move |entry| (tenant, entry)))
    {
        let Some(port) = entry.port.as_ref().filter(|port| !is_literal(&port.value) && !none) else { continue };
        let link = told.iter().find(|link| meet(&link.value, &port.value));
        if link.is_none() && !is_any(&port.value) {
            continue;
        }
        let draft =
            Draft::warning(format!("pattern {} of {} may match ports of links", quote(&port.value), tenant.object))
                .code(Code::MayMatchLinks)
                .at(port.place.clone(), "links may be called so");
        let draft = link.into_iter().fold(draft, |draft, link| draft.also(link.place.clone(), "ports of links"));
        report.push(draft.help(
            "no pattern makes a tenant's port of one at which a link or a tunnel is seen; give tenants' ports names that no \
             link has, or write the one port that is meant without `*` and `?`",
        ));
    }
}
