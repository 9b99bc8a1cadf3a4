//! Mistakes that lie between the functions, chains and rules of one tenant.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::between::unique;
use super::chain::{Classifier, FunctionKind, RuleAction};
use super::chains::{ChainPart, RulePart};
use super::declared::TenantPart;
use super::diagnostic::Code;
use super::report::{At, Draft, Report};
use super::space::Space;
use super::text::quote;

/// Most flow entries that the chains and rules of a tenant may become.
const ENTRIES_MAX: usize = 5_000;

/// Reports them all.
pub(super) fn check(tenant: &TenantPart, report: &mut Report) {
    names(tenant, report);
    unused(tenant, report);
    if too_many(tenant, report) {
        // Comparing each with each would take long.
        return;
    }
    let chains: Vec<(&ChainPart, Set<'_>)> =
        tenant.chains.iter().filter_map(|chain| Some((chain, Set::of(chain.classifiers.as_ref()?)))).collect();
    undecided(&chains, report);
    for (chain, set) in chains.iter().filter(|(chain, _)| chain.symmetric) {
        own_replies(chain, set, report);
    }
    returning(tenant, report);
    never_reached(&tenant.rules, report);
}

/// Classifiers as sets of frames.
struct Set<'a>(Vec<(&'a At<Classifier>, Space)>);

impl<'a> Set<'a> {
    fn of(classifiers: &'a [At<Classifier>]) -> Self {
        Self(classifiers.iter().map(|classifier| (classifier, Space::of(&classifier.value))).collect())
    }

    /// The first pair of classifiers of the two of which this holds.
    fn pair<'b>(
        &self,
        other: &Set<'b>,
        holds: impl Fn(&Space, &Space) -> bool,
    ) -> Option<(&'a At<Classifier>, &'b At<Classifier>)> {
        let with = |(classifier, space): &(&'a At<Classifier>, Space)| {
            let (found, _) = other.0.iter().find(|(_, other)| holds(space, other))?;
            Some((*classifier, *found))
        };
        self.0.iter().find_map(with)
    }
}

fn names(tenant: &TenantPart, report: &mut Report) {
    let of = &tenant.object;
    let functions = tenant.functions.iter().filter_map(|function| function.name.as_ref());
    let help = "give each function a name of its own; what it runs on are its `instances`";
    unique(functions, |name| format!("two functions of {of} are named {}", quote(name)), help, report);
    for function in &tenant.functions {
        let instances = function.instances.iter().filter_map(|instance| instance.name.as_ref());
        let message = |name: &String| format!("two instances of {} are named {}", function.object, quote(name));
        unique(instances, message, "give each instance a name of its own", report);
    }
    let chains = tenant.chains.iter().filter_map(|chain| chain.name.as_ref());
    let help = "give each chain a name of its own; one chain may have several tables in its `match`";
    unique(chains, |name| format!("two chains of {of} are named {}", quote(name)), help, report);
    let rules = tenant.rules.iter().filter_map(|rule| rule.name.as_ref());
    let help = "give each rule a name of its own; one rule may have several tables in its `match`";
    unique(rules, |name| format!("two rules of {of} are named {}", quote(name)), help, report);
}

/// Functions that no chain passes.
fn unused(tenant: &TenantPart, report: &mut Report) {
    let Some(passed) = tenant.chains.iter().map(|chain| chain.through.as_ref()).collect::<Option<Vec<_>>>() else {
        // Which functions are meant isn't known.
        return;
    };
    let passed: BTreeSet<&String> = passed.into_iter().flatten().collect();
    for function in &tenant.functions {
        if function.name.as_ref().is_some_and(|name| !passed.contains(&name.value)) {
            report.push(
                Draft::warning(format!("no chain passes {}", function.object))
                    .code(Code::NoEffect)
                    .at(function.place.clone(), "nothing is sent to it")
                    .help("name it in `through` of a [[tenant.chain]], or remove it"),
            );
        }
    }
}

fn too_many(tenant: &TenantPart, report: &mut Report) -> bool {
    let entries = |classifiers: &Option<Vec<At<Classifier>>>| -> usize {
        classifiers.iter().flatten().map(|classifier| classifier.value.entries()).sum()
    };
    // Replies are classified, too.
    let of_chain = |chain: &ChainPart| entries(&chain.classifiers) * if chain.symmetric { 2 } else { 1 };
    let all = tenant.chains.iter().map(of_chain).chain(tenant.rules.iter().map(|rule| entries(&rule.classifiers)));
    let all: usize = all.sum();
    if all > ENTRIES_MAX {
        report.push(
            Draft::error(format!("chains and rules of {} become {all} flow entries", tenant.object))
                .code(Code::TooLarge)
                .at(tenant.place.clone(), format!("more than {ENTRIES_MAX}"))
                .help("write prefixes instead of many addresses, or fewer ports; a symmetric chain counts twice"),
        );
    }
    all > ENTRIES_MAX
}

/// Chains of the same priority that some frame belongs to both of. One message for each chain is enough.
fn undecided(chains: &[(&ChainPart, Set<'_>)], report: &mut Report) {
    let mut by_priority: BTreeMap<u16, Vec<&(&ChainPart, Set<'_>)>> = BTreeMap::new();
    for chain in chains {
        let before = by_priority.entry(chain.0.priority).or_default();
        let found = before.iter().find_map(|one| Some((one.0, one.1.pair(&chain.1, Space::overlaps)?)));
        if let Some((other, (first, second))) = found {
            report.push(
                Draft::error(format!("{} and {} may be for the same frames", chain.0.object, other.object))
                    .code(Code::Undecided)
                    .at(second.place.clone(), format!("of priority {}", chain.0.priority))
                    .also(first.place.clone(), "of the same priority")
                    .help("give one of the two chains a higher `priority`: it gets the frames that are for both"),
            );
        }
        before.push(chain);
    }
}

/// Symmetric chains for which a reply looks like a request.
fn own_replies(chain: &ChainPart, set: &Set<'_>, report: &mut Report) {
    let reversed: Vec<At<Classifier>> = chain
        .classifiers
        .iter()
        .flatten()
        .map(|classifier| At { value: classifier.value.reversed(), place: classifier.place.clone() })
        .collect();
    let Some((one, other)) = set.pair(&Set::of(&reversed), Space::covers) else { return };
    let draft =
        Draft::error(format!("requests and replies of {} can't be told apart", chain.object)).code(Code::Undecided);
    let draft = if one.place == other.place {
        draft.at(one.place.clone(), "replies match this, too")
    } else {
        draft.at(one.place.clone(), "replies to the other match this").also(other.place.clone(), "the other")
    };
    report.push(draft.help(
        "say in `match` whom or which port requests go to, with `source`, `destination` or `destination_port`, or \
         remove `symmetric`",
    ));
}

/// A chain's way in one direction past one of its functions.
#[derive(Clone)]
struct Visit<'a> {
    chain: &'a ChainPart,
    reverse: bool,
    /// The functions that follow.
    rest: Vec<&'a str>,
    /// Does it come from a function that changes MAC addresses, this one or one before?
    routed: bool,
}

/// Frames come back from a function, and its port doesn't tell where they go on: classifiers have to. They can't by MAC
/// addresses where one of the functions on the way has changed these.
fn returning(tenant: &TenantPart, report: &mut Report) {
    let functions: BTreeMap<&str, _> = tenant
        .functions
        .iter()
        .filter_map(|function| Some((function.name.as_ref()?.value.as_str(), function)))
        .collect();
    let mut visits: BTreeMap<(&str, bool), Vec<Visit<'_>>> = BTreeMap::new();
    for chain in &tenant.chains {
        let Some(through) = &chain.through else { continue };
        let forth: Vec<&str> = through.iter().map(String::as_str).collect();
        let back = forth.iter().rev().copied().collect();
        for (way, reverse) in [(forth, false), (back, true)].into_iter().filter(|(_, back)| !back || chain.symmetric) {
            let mut routed = false;
            for (position, name) in way.iter().enumerate() {
                let Some(function) = functions.get(name) else { continue };
                routed |= function.kind == Some(FunctionKind::Routed);
                if function.kind == Some(FunctionKind::Tap) {
                    continue;
                }
                let by_port = reverse && !function.has_single_port();
                let visit = Visit { chain, reverse, rest: way[position + 1..].to_vec(), routed };
                visits.entry((name, by_port)).or_default().push(visit);
            }
        }
    }
    // A chain that passes several such functions is told of once.
    let mut told = BTreeSet::new();
    for ((name, _), visits) in visits {
        let [first, others @ ..] = visits.as_slice() else { continue };
        let one_way = others.iter().all(|visit| (visit.reverse, &visit.rest) == (first.reverse, &first.rest));
        if one_way || !visits.iter().any(|visit| visit.routed) {
            continue;
        }
        for chain in visits.iter().map(|visit| visit.chain) {
            let by_mac = chain.classifiers.iter().flatten().find(|classifier| classifier.value.has_mac());
            let Some(classifier) = by_mac.filter(|at| told.insert((at.place.file, at.place.span.start))) else {
                continue;
            };
            let function = functions[name];
            report.push(
                Draft::error(format!("{} can't be told by a MAC address behind {}", chain.object, function.object))
                    .code(Code::Undecided)
                    .at(classifier.place.clone(), "looks at a MAC address")
                    .also(function.place.clone(), "frames that go on differently come back from here")
                    .help(
                        "write IP addresses instead: a routed function on the way changes MAC addresses (the name of a \
                         port stands for its IP addresses where `protocol` is one over IP)",
                    ),
            );
        }
    }
}

/// Rules all of whose frames are a higher one's.
fn never_reached(rules: &[RulePart], report: &mut Report) {
    let mut sets: Vec<(&RulePart, Set<'_>)> =
        rules.iter().filter_map(|rule| Some((rule, Set::of(rule.classifiers.as_ref()?)))).collect();
    sets.sort_by_key(|(rule, _)| Reverse(rule.priority));
    for (at, (rule, set)) in sets.iter().enumerate() {
        let covered =
            |higher: &Set<'_>| set.0.iter().all(|(_, space)| higher.0.iter().any(|(_, higher)| higher.covers(space)));
        // One that knows connections decides about theirs only.
        let decides =
            |(higher, set): &&(&RulePart, Set<'_>)| higher.action != Some(RuleAction::AllowEstablished) && covered(set);
        if let Some((higher, _)) = sets[..at].iter().find(decides) {
            report.push(
                Draft::warning(format!("{} never decides: {} does before", rule.object, higher.object))
                    .code(Code::NoEffect)
                    .at(rule.place.clone(), "no frame gets here")
                    .also(higher.place.clone(), "matches all of its frames, and comes first")
                    .help("remove it, or give it a higher `priority` than the other has"),
            );
        }
    }
}
