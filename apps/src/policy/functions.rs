//! Service functions, as policy files declare them.

use openflow::types::MacAddr;
use toml::de::DeTable;

use super::chain::{Function, FunctionKind, Instance, OnFailure, ShareBy};
use super::diagnostic::Code;
use super::model::Origin;
use super::report::{At, Draft, Place, Report};
use super::schema;
use super::section::{Section, object};
use super::values;

/// Largest `weight`.
const WEIGHT_MAX: u16 = 100;

/// `[[tenant.function]]`.
pub(super) struct FunctionPart {
    pub(super) place: Place,
    /// As messages name it.
    pub(super) object: String,
    pub(super) name: Option<At<String>>,
    pub(super) kind: Option<FunctionKind>,
    on_failure: OnFailure,
    share_by: ShareBy,
    pub(super) instances: Vec<InstancePart>,
}

/// An entry of `instances`.
pub(super) struct InstancePart {
    place: Place,
    /// As messages name it.
    pub(super) object: String,
    pub(super) name: Option<At<String>>,
    pub(super) bridge: Option<At<String>>,
    ingress: Option<At<String>>,
    egress: Option<At<String>>,
    pub(super) mac: Option<At<MacAddr>>,
    weight: u16,
    /// Where it is said that it drains.
    drain: Option<Place>,
}

impl FunctionPart {
    pub(super) fn read(table: At<&DeTable<'_>>, tenant: &str, report: &mut Report) -> Self {
        let object = object("function", "name", table.value, &format!(" of {tenant}"));
        let section = Section::new(table.value, table.place, object, &schema::FUNCTION, report);
        let name = section.required("name", report).map(|name| values::name(&name, "a function", report));
        let kinds = [
            ("wire", FunctionKind::Wire),
            ("hairpin", FunctionKind::Hairpin),
            ("routed", FunctionKind::Routed),
            ("tap", FunctionKind::Tap),
        ];
        if !section.has("kind") {
            report.push(section.missing("kind"));
        }
        let kind = section.choice("kind", &kinds, report);
        let ways = [("drop", OnFailure::Drop), ("bypass", OnFailure::Bypass)];
        let on_failure = section.choice("on_failure", &ways, report);
        let shares = [("connections", ShareBy::Connections), ("addresses", ShareBy::Addresses)];
        let share_by = section.choice("share_by", &shares, report);
        if kind == Some(FunctionKind::Tap) && section.has("on_failure") {
            report.push(
                Draft::error(format!("`on_failure` of {}: a tap is never in the way", section.object))
                    .code(Code::Misplaced)
                    .at(section.place_of_key("on_failure"), "not for a tap")
                    .help("remove it: frames go on, whether their copies are taken or not"),
            );
        }
        let tables = section.tables("instances", report);
        if section.is_empty("instances") {
            report.push(
                Draft::error(format!("{} has no instance", section.object))
                    .code(Code::MissingKey)
                    .at(section.place_of_key("instances"), "it runs nowhere")
                    .help(format!("write where it runs, like: {}", schema::FUNCTION.example("instances"))),
            );
        }
        let instances: Vec<_> =
            tables.into_iter().map(|table| InstancePart::read(table, &section.object, kind, report)).collect();
        reports_drain(&instances, &section.object, report);
        Self {
            instances,
            name,
            kind,
            on_failure: on_failure.unwrap_or_default(),
            share_by: share_by.unwrap_or_default(),
            place: section.place,
            object: section.object,
        }
    }

    /// Do frames of both directions come back by the same port?
    pub(super) fn has_single_port(&self) -> bool {
        self.instances.iter().any(|instance| instance.ports().count() == 1)
    }

    pub(super) fn into_model(self, origin: impl Fn(&Place) -> Origin) -> Option<Function> {
        let instances = self.instances.into_iter().map(|part| {
            let ingress = part.ingress?.value;
            Some(Instance {
                name: part.name?.value,
                bridge: part.bridge?.value,
                egress: part.egress.map_or_else(|| ingress.clone(), |egress| egress.value),
                ingress,
                mac: part.mac.map(|mac| mac.value),
                weight: part.weight,
                drain: part.drain.is_some(),
                origin: origin(&part.place),
            })
        });
        Some(Function {
            name: self.name?.value,
            kind: self.kind?,
            on_failure: self.on_failure,
            share_by: self.share_by,
            instances: instances.collect::<Option<_>>()?,
            origin: origin(&self.place),
        })
    }
}

impl InstancePart {
    fn read(table: At<&DeTable<'_>>, function: &str, kind: Option<FunctionKind>, report: &mut Report) -> Self {
        let object = object("instance", "name", table.value, &format!(" of {function}"));
        let section = Section::new(table.value, table.place, object, &schema::INSTANCE, report);
        let name = section.required("name", report).map(|name| values::name(&name, "an instance", report));
        let what = |key: &str| format!("the `{key}` of {}", section.object);
        let bridge = section.required("bridge", report);
        let bridge = bridge.and_then(|text| values::bridge_name(&text, &what("bridge"), report));
        let ingress = section.required("ingress", report);
        let ingress = ingress.and_then(|text| values::port_name(&text, &what("ingress"), report));
        let egress = section.string("egress", report);
        let egress = egress.and_then(|text| values::port_name(&text, &what("egress"), report));
        let mac = section.string("mac", report).and_then(|text| values::mac(&text, &section.object, report));
        let weight = section.bounded("weight", [1, WEIGHT_MAX], report);
        let drain = section.boolean("drain", report).unwrap_or_default();
        if let Some(kind) = kind {
            fits(&section, kind, report);
        }
        if let (Some(FunctionKind::Wire), Some(one), Some(other)) = (kind, &ingress, &egress)
            && one.value == other.value
        {
            report.push(
                Draft::error(format!("`ingress` and `egress` of {} are the same port", section.object))
                    .code(Code::Duplicate)
                    .at(other.place.clone(), "the same port")
                    .also(one.place.clone(), "`ingress`")
                    .help("write the port that frames come out of, or kind = \"hairpin\" if there is only one"),
            );
        }
        Self {
            name,
            bridge,
            ingress,
            egress,
            mac,
            weight: weight.unwrap_or(1),
            drain: drain.then(|| section.place_of_key("drain")),
            place: section.place,
            object: section.object,
        }
    }

    /// Its ports, each once.
    pub(super) fn ports(&self) -> impl Iterator<Item = &At<String>> {
        let other = self.egress.as_ref().filter(|port| Some(&port.value) != self.ingress.as_ref().map(|it| &it.value));
        self.ingress.iter().chain(other)
    }
}

/// Reports a function that nobody is left to serve new connections of.
fn reports_drain(instances: &[InstancePart], function: &str, report: &mut Report) {
    let drains: Vec<&Place> = instances.iter().filter_map(|instance| instance.drain.as_ref()).collect();
    if let Some((first, others)) = drains.split_first().filter(|_| drains.len() == instances.len()) {
        let all = Draft::error(format!("all instances of {function} drain: new connections have nowhere to go"))
            .at((*first).clone(), "one of them has to take new connections");
        let all = others.iter().fold(all, |draft, place| draft.also((*place).clone(), "and this one drains"));
        report.push(all.help("remove `drain` where new connections are to go, or add an instance that takes them"));
    }
}

/// Reports the keys that an instance of this kind must or can't have.
fn fits(section: &Section<'_>, kind: FunctionKind, report: &mut Report) {
    let mut unfit = |key: &str, why: &str, help: &str| {
        report.push(
            Draft::error(format!("`{key}` of {}: {why}", section.object))
                .code(Code::Misplaced)
                .at(section.place_of_key(key), "not for this kind of function")
                .help(help),
        );
    };
    match kind {
        FunctionKind::Hairpin if section.has("egress") => {
            unfit("egress", "frames leave a hairpin as they came", "remove it, or write kind = \"wire\"");
        }
        FunctionKind::Routed if section.has("egress") => {
            unfit("egress", "a station of the tenant's network has one port", "remove it");
        }
        FunctionKind::Tap if section.has("egress") => {
            unfit("egress", "nothing comes back from a tap", "remove it, or write kind = \"wire\"");
        }
        _ => {}
    }
    if kind != FunctionKind::Routed && section.has("mac") {
        let help = "remove it, or write kind = \"routed\" if the function is a hop of IP";
        unfit("mac", "only frames to a routed function are sent to its own address", help);
    }
    let needed = match kind {
        FunctionKind::Wire => "egress",
        FunctionKind::Routed => "mac",
        FunctionKind::Hairpin | FunctionKind::Tap => return,
    };
    if !section.has(needed) {
        report.push(section.missing(needed));
    }
}
