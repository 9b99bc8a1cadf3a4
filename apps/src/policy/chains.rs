//! Chains and access rules, as policy files declare them.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::chain::{Chain, Classifier, FunctionKind, Rule, RuleAction};
use super::diagnostic::Code;
use super::functions::FunctionPart;
use super::matches::{self, Ports};
use super::model::{Origin, RateLimit};
use super::rate;
use super::report::{At, Draft, Place, Report};
use super::schema;
use super::section::{Section, object};
use super::text::{quote, suggestion};
use super::values;

/// Largest `priority`.
const PRIORITY_MAX: u16 = 10_000;

/// `[[tenant.chain]]`.
pub(super) struct ChainPart {
    place: Place,
    /// As messages name it.
    pub(super) object: String,
    pub(super) name: Option<At<String>>,
    pub(super) priority: u16,
    /// `None`: some of it is wrong.
    pub(super) through: Option<Vec<String>>,
    pub(super) symmetric: bool,
    broadcast: bool,
    pub(super) classifiers: Classifiers,
    rate_limit: Option<RateLimit>,
}

/// `[[tenant.rule]]`.
pub(super) struct RulePart {
    pub(super) place: Place,
    /// As messages name it.
    pub(super) object: String,
    pub(super) name: Option<At<String>>,
    pub(super) priority: u16,
    pub(super) classifiers: Classifiers,
    pub(super) action: Option<RuleAction>,
}

/// What `match` says; the origins are filled in at last. `None`: some of it is wrong.
pub(super) type Classifiers = Option<Vec<At<Classifier>>>;

impl ChainPart {
    pub(super) fn read(
        table: At<&DeTable<'_>>,
        tenant: &str,
        functions: &BTreeMap<&str, &FunctionPart>,
        ports: &Ports<'_>,
        report: &mut Report,
    ) -> Self {
        let object = object("chain", "name", table.value, &format!(" of {tenant}"));
        let section = Section::new(table.value, table.place, object, &schema::CHAIN, report);
        let name = section.required("name", report).map(|name| values::name(&name, "a chain", report));
        let priority = section.bounded("priority", [0, PRIORITY_MAX], report);
        let through = through(&section, functions, report);
        let symmetric = section.boolean("symmetric", report);
        let broadcast = section.boolean("broadcast", report).unwrap_or_default();
        let classifiers = matches::read(&section, ports, report);
        let is_tap = |name: &String| functions.get(name.as_str()).is_some_and(|it| it.kind == Some(FunctionKind::Tap));
        if through.as_ref().is_some_and(|through| !through.iter().all(is_tap)) {
            everything(&section, "ARP and what else isn't meant for the functions passes them, too", report);
        }
        for classifier in classifiers.iter().flatten().filter(|_| !broadcast) {
            if let Some(group) = classifier.value.destination.iter().find(|address| address.is_group()) {
                report.push(
                    Draft::error(format!("{} isn't for group addresses such as {group}", section.object))
                        .at(classifier.place.clone(), "no frame is to be chained by this")
                        .help("write broadcast = true in the chain, or remove the address"),
                );
            }
        }
        Self {
            name,
            priority: priority.unwrap_or_default(),
            through,
            symmetric: symmetric.unwrap_or_default(),
            broadcast,
            classifiers,
            rate_limit: rate::limit(&section, "rate_limit", report),
            place: section.place,
            object: section.object,
        }
    }

    pub(super) fn into_model(self, origin: impl Fn(&Place) -> Origin) -> Option<Chain> {
        Some(Chain {
            name: self.name?.value,
            priority: self.priority,
            through: self.through?,
            symmetric: self.symmetric,
            broadcast: self.broadcast,
            classifiers: with_origins(self.classifiers?, &origin),
            rate_limit: self.rate_limit,
            origin: origin(&self.place),
        })
    }
}

impl RulePart {
    pub(super) fn read(table: At<&DeTable<'_>>, tenant: &str, ports: &Ports<'_>, report: &mut Report) -> Self {
        let object = object("rule", "name", table.value, &format!(" of {tenant}"));
        let section = Section::new(table.value, table.place, object, &schema::RULE, report);
        let name = section.required("name", report).map(|name| values::name(&name, "a rule", report));
        let priority = section.bounded("priority", [0, PRIORITY_MAX], report);
        let classifiers = matches::read(&section, ports, report);
        if !section.has("action") {
            report.push(section.missing("action"));
        }
        let actions = [
            ("drop", RuleAction::Drop),
            ("allow", RuleAction::Allow),
            ("allow-established", RuleAction::AllowEstablished),
        ];
        let action = section.choice("action", &actions, report);
        if matches!(action, Some(RuleAction::Drop | RuleAction::Allow)) {
            let default = if action == Some(RuleAction::Drop) { "drop" } else { "allow" };
            let meant = format!("for what no rule is for, write default = \"{default}\" in the tenant");
            everything(&section, &meant, report);
        }
        Self {
            name,
            priority: priority.unwrap_or_default(),
            classifiers,
            action,
            place: section.place,
            object: section.object,
        }
    }

    pub(super) fn into_model(self, origin: impl Fn(&Place) -> Origin) -> Option<Rule> {
        Some(Rule {
            name: self.name?.value,
            priority: self.priority,
            classifiers: with_origins(self.classifiers?, &origin),
            action: self.action?,
            origin: origin(&self.place),
        })
    }
}

/// Reports a `match` that says nothing. Whoever means every frame can say so.
fn everything(section: &Section<'_>, why: &str, report: &mut Report) {
    for table in section.tables_or_one("match", &mut Report::default()).iter().filter(|table| table.value.is_empty()) {
        report.push(
            Draft::warning(format!("{} is for every frame of its tenant", section.object))
                .code(Code::MatchesAll)
                .at(table.place.clone(), "says nothing, so everything matches")
                .help(format!(
                    "say which frames, like: {}; {why}; if every frame is meant, write match = {{ protocol = \"any\" }}",
                    schema::RULE.example("match"),
                )),
        );
    }
}

fn with_origins(classifiers: Vec<At<Classifier>>, origin: impl Fn(&Place) -> Origin) -> Vec<Classifier> {
    let one = |at: At<Classifier>| Classifier { origin: origin(&at.place), ..at.value };
    classifiers.into_iter().map(one).collect()
}

/// The functions of a chain, all of them known.
fn through(
    section: &Section<'_>,
    functions: &BTreeMap<&str, &FunctionPart>,
    report: &mut Report,
) -> Option<Vec<String>> {
    if !section.has("through") {
        report.push(section.missing("through"));
    }
    let list = section.strings("through", report)?;
    let most = Chain::FUNCTIONS_MAX;
    if !(1..=most).contains(&list.value.len()) {
        report.push(
            Draft::error(format!("{} has {} functions", section.object, list.value.len()))
                .at(list.place, format!("not 1 to {most}"))
                .help(format!("write 1 to {most} names of functions, in the order in which frames pass them")),
        );
        return None;
    }
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    let mut sound = true;
    for name in &list.value {
        let draft = if !functions.contains_key(name.value) {
            let help = match suggestion(name.value, functions.keys().copied(), report) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "declare it as a [[tenant.function]] of the same tenant, or correct the name".into(),
            };
            Draft::error(format!("{}: there is no function {}", section.object, quote(name.value)))
                .code(Code::UnknownName)
                .at(name.place.clone(), "not known")
                .help(help)
        } else if let Some(first) = seen.get(name.value) {
            Draft::error(format!("{} passes function {} twice", section.object, quote(name.value)))
                .code(Code::Duplicate)
                .at(name.place.clone(), "again")
                .also((*first).clone(), "first")
                .help("remove one of the two; if it is to be passed twice, declare a second function")
        } else {
            seen.insert(name.value, &name.place);
            continue;
        };
        sound = false;
        report.push(draft);
    }
    sound.then(|| list.value.iter().map(|name| name.value.to_owned()).collect())
}
