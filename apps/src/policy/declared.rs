//! What policy files say, with the place of everything: read from the tree of TOML, turned into the policy at last.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use openflow::types::DatapathId;
use toml::de::DeTable;

use super::chain::Verdict;
use super::chains::{ChainPart, RulePart};
use super::diagnostic::Code;
use super::fabric::FabricPart;
use super::functions::FunctionPart;
use super::matches::Ports;
use super::model::{
    BridgeName, Fabric, InnerVlans, LinkLocal, Origin, Policy, RateLimit, RateUnit, Tenant, UnknownUnicast,
};
use super::ports::PortPart;
use super::rate;
use super::report::{At, Draft, Place, Report};
use super::schema;
use super::section::{Section, object};
use super::text::{Lines, quote};
use super::values;

/// More messages than this about the syntax of one file follow from the first ones.
const SYNTAX_ERRORS_MAX: usize = 5;

/// What the parser says of a key that stands twice.
const DUPLICATE_KEY: &str = "duplicate key";

const MAX_HOSTS: u32 = 1_024;
const FLOOD_LIMIT: RateLimit = RateLimit { unit: RateUnit::Packets, rate: 2_000, burst: 2_000 };
const MAX_HOSTS_MAX: u32 = 65_536;

/// Least and greatest `mtu`: what every IPv4 link carries (RFC 791), and what is measured at most.
const MTU: [u16; 2] = [68, 9000];

/// All files' declarations. A value that was reported as wrong is left out.
#[derive(Default)]
pub(super) struct Declared {
    pub(super) bridges: Vec<Bridge>,
    pub(super) fabrics: Vec<FabricPart>,
    pub(super) tenants: Vec<TenantPart>,
}

/// `[[bridge]]`.
pub(super) struct Bridge {
    pub(super) name: Option<At<String>>,
    pub(super) dpid: Option<At<DatapathId>>,
}

/// `[[tenant]]`.
pub(super) struct TenantPart {
    pub(super) place: Place,
    /// As messages name it.
    pub(super) object: String,
    pub(super) name: Option<At<String>>,
    pub(super) key: Option<At<u32>>,
    unknown_unicast: UnknownUnicast,
    link_local: LinkLocal,
    max_hosts: u32,
    mtu: Option<u16>,
    rate_limit: Option<RateLimit>,
    flood_limit: Option<RateLimit>,
    pub(super) ports: Vec<PortPart>,
    pub(super) default: Verdict,
    inner_vlans: InnerVlans,
    pub(super) functions: Vec<FunctionPart>,
    pub(super) chains: Vec<ChainPart>,
    pub(super) rules: Vec<RulePart>,
}

impl Declared {
    /// Adds a file's declarations. How deep they may be nested is bounded by the parser.
    pub(super) fn read(&mut self, file: usize, text: &str, report: &mut Report) {
        let (tree, mut errors) = DeTable::parse_recoverable(text);
        errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        let mut last_line = None;
        let mut shown = 0;
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let line = text[..super::text::floor(text, span.start)].rfind('\n');
            // What follows in the same line is mostly an echo of the first error.
            if last_line == Some(line) || shown == SYNTAX_ERRORS_MAX {
                continue;
            }
            (last_line, shown) = (Some(line), shown + 1);
            let draft = if error.message() == DUPLICATE_KEY {
                let key = quote(text.get(span.clone()).unwrap_or_default());
                Draft::error(format!("{DUPLICATE_KEY} {key}"))
                    .code(Code::Duplicate)
                    .at(Place::new(file, span), "written before")
                    .help("a key stands once in a table: remove one of the two")
            } else {
                Draft::error(error.message())
                    .code(Code::Syntax)
                    .at(Place::new(file, span), "")
                    .help("this is no TOML: see https://toml.io, or an example policy")
            };
            report.push(draft);
        }
        // A tree with holes would give errors that aren't there; one with a key too many is whole.
        if errors.iter().all(|error| error.message() == DUPLICATE_KEY) {
            self.read_tree(file, tree.get_ref(), report);
        }
    }

    fn read_tree(&mut self, file: usize, tree: &DeTable<'_>, report: &mut Report) {
        let version =
            tree.get("version").and_then(|version| version.get_ref().as_integer()?.as_str().parse::<i64>().ok());
        let help = "write `version = 1`: it says how to read the rest";
        match (version, tree.get("version")) {
            (Some(1), _) => {}
            (Some(other), Some(place)) => {
                let draft = Draft::error(format!("policy version {other} isn't known")).code(Code::Version);
                report.push(draft.at(Place::new(file, place.span()), "not known").help(help));
                // What its keys mean isn't known either.
                return;
            }
            (_, Some(place)) => {
                let draft = Draft::error("`version` must be the whole number 1").code(Code::Version);
                report.push(draft.at(Place::new(file, place.span()), "not a whole number").help(help));
            }
            (_, None) => {
                let help = "write `version = 1` as the first line: it says how to read the rest";
                let draft = Draft::error("the policy file has no `version`").code(Code::Version);
                report.push(draft.at(Place::start(file), "`version` is missing").help(help));
            }
        }
        let section = Section::file(tree, file, report);
        for bridge in section.tables("bridge", report) {
            self.bridges.push(Bridge::read(bridge, report));
        }
        if let Some(fabric) = section.table("fabric", report) {
            self.fabrics.push(FabricPart::read(fabric, report));
        }
        for tenant in section.tables("tenant", report) {
            self.tenants.push(TenantPart::read(tenant, report));
        }
    }

    /// The policy, if nothing was left out.
    pub(super) fn into_policy(self, names: &[Arc<str>], lines: &Lines<'_>) -> Option<Policy> {
        let origin =
            |place: &Place| Origin { file: names[place.file].clone(), line: lines.line(place.file, place.span.start) };
        let bridges = self
            .bridges
            .into_iter()
            .map(|bridge| Some(BridgeName { name: bridge.name?.value, dpid: bridge.dpid?.value }));
        let bridges = bridges.collect::<Option<Vec<_>>>()?;
        let fabric = self.fabrics.into_iter().next();
        let fabric = fabric.map_or_else(|| Some(Fabric::default()), |fabric| fabric.into_model(&origin))?;
        let origin = &origin;
        let tenants = self.tenants.into_iter().map(|part| {
            let functions = part.functions.into_iter().map(|function| function.into_model(origin));
            let chains = part.chains.into_iter().map(|chain| chain.into_model(origin));
            let rules = part.rules.into_iter().map(|rule| rule.into_model(origin));
            let mut chains = chains.collect::<Option<Vec<_>>>()?;
            let mut rules = rules.collect::<Option<Vec<_>>>()?;
            // In file order where priorities are equal.
            chains.sort_by_key(|chain| Reverse(chain.priority));
            rules.sort_by_key(|rule| Reverse(rule.priority));
            Some(Tenant {
                name: part.name?.value,
                key: part.key.map(|key| key.value),
                unknown_unicast: part.unknown_unicast,
                link_local: part.link_local,
                max_hosts: part.max_hosts,
                mtu: part.mtu,
                rate_limit: part.rate_limit,
                flood_limit: part.flood_limit,
                ports: part.ports.into_iter().map(|port| port.into_model(origin)).collect::<Option<_>>()?,
                default: part.default,
                inner_vlans: part.inner_vlans,
                functions: functions.collect::<Option<_>>()?,
                chains,
                rules,
                origin: origin(&part.place),
            })
        });
        let mut tenants = tenants.collect::<Option<Vec<_>>>()?;
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        Some(Policy { bridges, fabric, tenants })
    }
}

impl Bridge {
    fn read(table: At<&DeTable<'_>>, report: &mut Report) -> Self {
        let object = object("bridge", "name", table.value, "");
        let section = Section::new(table.value, table.place, object, &schema::BRIDGE, report);
        let name = section.required("name", report).map(|name| values::name(&name, "a bridge", report));
        if let Some(name) = &name {
            values::not_a_datapath_id(name, report);
        }
        let dpid = section.required("dpid", report).and_then(|it| values::datapath_id(&it, &section.object, report));
        Self { name, dpid }
    }
}

impl TenantPart {
    fn read(table: At<&DeTable<'_>>, report: &mut Report) -> Self {
        let object = object("tenant", "name", table.value, "");
        let section = Section::new(table.value, table.place, object, &schema::TENANT, report);
        let name = section.required("name", report).map(|name| values::name(&name, "a tenant", report));
        let key = section.integer("key", report).and_then(|key| tenant_key(&section, &key, report));
        let choices = [("flood", UnknownUnicast::Flood), ("drop", UnknownUnicast::Drop)];
        let unknown_unicast = section.choice("unknown_unicast", &choices, report).unwrap_or_default();
        let choices = [("drop", LinkLocal::Drop), ("pass", LinkLocal::Pass)];
        let link_local = section.choice("link_local", &choices, report).unwrap_or_default();
        let verdicts = [("allow", Verdict::Allow), ("drop", Verdict::Drop)];
        let default = section.choice("default", &verdicts, report).unwrap_or_default();
        let choices = [("drop", InnerVlans::Drop), ("pass", InnerVlans::Pass)];
        let inner_vlans = section.choice("inner_vlans", &choices, report).unwrap_or_default();
        let max_hosts = section.integer("max_hosts", report).and_then(|hosts| max_hosts(&section, &hosts, report));
        let mtu = section.bounded("mtu", MTU, report);
        let rate_limit = rate::limit(&section, "rate_limit", report);
        let off = section.string("flood_limit", &mut Report::default()).is_some_and(|text| text.value == "off");
        let flood_limit = match section.has("flood_limit") {
            false => Some(FLOOD_LIMIT),
            true if off => None,
            true => rate::limit(&section, "flood_limit", report),
        };
        let tables = section.tables("ports", report);
        if section.is_empty("ports") {
            report.push(
                Draft::warning(format!("{} has no port", section.object))
                    .code(Code::NoEffect)
                    .at(section.place_of_key("ports"), "nothing belongs to it")
                    .help(format!("write which ports belong to it, like: {}", schema::TENANT.example("ports"))),
            );
        }
        let of = &section.object;
        let ports: Vec<_> = tables.into_iter().map(|port| PortPart::read(port, of, report)).collect();
        let functions = section.tables("function", report);
        let functions: Vec<_> = functions.into_iter().map(|table| FunctionPart::read(table, of, report)).collect();
        // Of ports with the same name, the first counts.
        let ports_by_name: Ports<'_> =
            ports.iter().rev().filter_map(|port| Some((port.name.as_ref()?.value.as_str(), port))).collect();
        let functions_by_name: BTreeMap<&str, &FunctionPart> =
            functions.iter().filter_map(|function| Some((function.name.as_ref()?.value.as_str(), function))).collect();
        let chains = section.tables("chain", report).into_iter();
        let chains = chains.map(|table| ChainPart::read(table, of, &functions_by_name, &ports_by_name, report));
        let chains = chains.collect();
        let rules = section.tables("rule", report).into_iter();
        let rules = rules.map(|table| RulePart::read(table, of, &ports_by_name, report)).collect();
        Self {
            ports,
            default,
            inner_vlans,
            functions,
            chains,
            rules,
            name,
            key,
            unknown_unicast,
            link_local,
            max_hosts: max_hosts.unwrap_or(MAX_HOSTS),
            mtu,
            rate_limit,
            flood_limit,
            place: section.place,
            object: section.object,
        }
    }
}

/// The patterns of bridges and ports that an entry selects by.
pub(super) fn selected(section: &Section<'_>, report: &mut Report) -> (Option<At<String>>, Option<At<String>>) {
    let what = |key: &str| format!("the `{key}` of {}", section.object);
    let bridge = section.required("bridge", report);
    let bridge = bridge.and_then(|text| values::bridge_pattern(&text, &what("bridge"), report));
    let port = section.required("port", report);
    let port = port.and_then(|text| values::port_pattern(&text, &what("port"), report));
    (bridge, port)
}

fn tenant_key(section: &Section<'_>, key: &At<i64>, report: &mut Report) -> Option<At<u32>> {
    let max = Tenant::KEY_MAX;
    match u32::try_from(key.value) {
        Ok(value) if (1..=max).contains(&value) => return Some(At { value, place: key.place.clone() }),
        outside => {
            let why = match outside {
                Ok(0) => "0 stands for the fabric itself",
                Err(_) if key.value < 0 => "keys are positive",
                _ => "keys above the range carry the fabric's own marks",
            };
            report.push(
                Draft::error(format!("the key of {} is out of range", section.object)).at(key.place.clone(), why).help(
                    format!("write a number from 1 to {max} ({max:#x}), or leave `key` out: then one is allocated"),
                ),
            );
        }
    }
    None
}

fn max_hosts(section: &Section<'_>, hosts: &At<i64>, report: &mut Report) -> Option<u32> {
    let number = u32::try_from(hosts.value).ok().filter(|number| (1..=MAX_HOSTS_MAX).contains(number));
    if number.is_none() {
        report.push(
            Draft::error(format!("`max_hosts` of {} is out of range", section.object))
                .at(hosts.place.clone(), "out of range")
                .help(format!("write how many sources are learnt at one port: a number from 1 to {MAX_HOSTS_MAX}")),
        );
    }
    number
}
