//! `[fabric]`, as policy files declare it.

use toml::de::DeTable;

use super::declared::selected;
use super::diagnostic::Code;
use super::model::{Fabric, Glob, LinkSelector, Origin, Probes};
use super::report::{At, Draft, Place, Report};
use super::schema;
use super::section::{Section, object};
use super::text::quote;
use super::values;

/// Least and greatest number of probes a second.
const PROBE_BUDGET: [u16; 2] = [100, 50_000];

/// `[fabric]`.
pub(super) struct FabricPart {
    pub(super) place: Place,
    pub(super) links: Option<Vec<At<String>>>,
    probes: Probes,
    pub(super) drain: Vec<DrainPart>,
}

/// An entry of `drain`.
pub(super) struct DrainPart {
    place: Place,
    /// As messages name it.
    pub(super) object: String,
    pub(super) bridge: Option<At<String>>,
    pub(super) port: Option<At<String>>,
}

impl FabricPart {
    pub(super) fn read(table: At<&DeTable<'_>>, report: &mut Report) -> Self {
        let section = Section::new(table.value, table.place, "the fabric".into(), &schema::FABRIC, report);
        let links: Option<Vec<At<String>>> = section.strings("links", report).map(|links| {
            let pattern =
                |link: &At<&str>, report: &mut Report| values::port_pattern(link, "a pattern of `links`", report);
            links.value.iter().filter_map(|link| pattern(link, report)).collect()
        });
        let budget = section.bounded("probe_budget", PROBE_BUDGET, report);
        let interval = section.string("probe_interval", report);
        let probes = match interval.and_then(|interval| values::probe_interval(&interval, report)) {
            Some(Probes::Every(interval)) => {
                if let Some((_, place)) = section.get("probe_budget") {
                    report.push(
                        Draft::error("`probe_budget` has no effect beside this `probe_interval`".to_owned())
                            .code(Code::Misplaced)
                            .at(place, "no effect")
                            .help("leave one of the two out: a budget is for probe_interval = \"auto\""),
                    );
                }
                Probes::Every(interval)
            }
            _ => budget.map_or(Probes::default(), Probes::Budget),
        };
        let drain: Vec<_> =
            section.tables("drain", report).into_iter().map(|table| DrainPart::read(table, report)).collect();
        if let Some(links) = &links {
            drain.iter().for_each(|part| part.check(links, report));
        }
        Self { place: section.place, links, probes, drain }
    }

    pub(super) fn into_model(self, origin: &impl Fn(&Place) -> Origin) -> Option<Fabric> {
        let drain = self.drain.into_iter().map(|part| {
            let (bridge, port) = (Glob::new(&part.bridge?.value), Glob::new(&part.port?.value));
            Some(LinkSelector { bridge, port, origin: origin(&part.place) })
        });
        let all = Fabric::default().links;
        Some(Fabric {
            links: self.links.map_or(all, |links| links.iter().map(|it| Glob::new(&it.value)).collect()),
            probes: self.probes,
            drain: drain.collect::<Option<_>>()?,
        })
    }
}

impl DrainPart {
    fn read(table: At<&DeTable<'_>>, report: &mut Report) -> Self {
        let object = object("link", "port", table.value, " to drain");
        let section = Section::new(table.value, table.place, object, &schema::DRAIN, report);
        let (bridge, port) = selected(&section, report);
        Self { bridge, port, place: section.place, object: section.object }
    }

    /// A port that never becomes a link has nothing to drain.
    fn check(&self, links: &[At<String>], report: &mut Report) {
        let Some(port) = self.port.as_ref().filter(|port| values::is_literal(&port.value)) else { return };
        if !links.iter().any(|link| Glob::new(&link.value).matches(&port.value)) {
            report.push(
                Draft::warning(format!("port {} can't be a link, so nothing is drained", quote(&port.value)))
                    .code(Code::NoEffect)
                    .at(port.place.clone(), "matches no pattern of `links`")
                    .help("write the name of a port that `links` admits, or remove the entry"),
            );
        }
    }
}
