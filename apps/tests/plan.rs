//! Goal: a plan tells what another policy would change, object by object and entry by entry, and nothing else. Method: two
//! bridges written by hand; the plan from one policy to another is compared with what was changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apps::allocation::Allocations;
use apps::attachment::attach;
use apps::plan::{Change, Counts, Plan};
use apps::policy::{Policy, Source, load};
use apps::problems::Changes;
use apps::trace::{Situation, Station};
use apps::view::{Bridge, Carrier, Endpoint, Link, PortView, View};
use apps::withhold::Reluctance;
use openflow::types::{DatapathId, MacAddr, PortNo};

const POLICY: &str = r#"
version = 1
[[bridge]]
name = "h1"
dpid = "1"
[fabric]
links = ["vx*"]
[[tenant]]
name = "green"
ports = [{ bridge = "*", port = "green-*" }, { bridge = "h1", port = "web", name = "web-1", mac = "02:00:00:00:00:01" }]
[[tenant.function]]
name = "firewall"
kind = "wire"
instances = [{ name = "fw-1", bridge = "h1", ingress = "fw-in", egress = "fw-out" }]
[[tenant.chain]]
name = "web"
through = ["firewall"]
match = { protocol = "tcp", destination_port = 80 }
[[tenant.rule]]
name = "no-telnet"
match = { protocol = "tcp", destination_port = 23 }
action = "drop"
[[tenant.rule]]
name = "no-ssh"
match = { protocol = "tcp", destination_port = 22 }
action = "drop"
[[tenant]]
name = "orange"
key = 200
ports = [{ bridge = "*", port = "orange-*" }]
"#;

fn read(text: &str) -> Policy {
    load(&[Source { name: "p.toml".into(), text: text.into() }]).unwrap_or_else(|told| panic!("{told}")).policy
}

fn at(bridge: u64, port: u32) -> Endpoint {
    Endpoint { bridge: DatapathId(bridge), port: PortNo(port) }
}

fn situation() -> Situation {
    let policy = read(POLICY);
    let mut view = View::default();
    for (dpid, names) in [
        (1, ["web", "green-1", "orange-1", "fw-in", "fw-out", "vx2", "spare"]),
        (2, ["x", "green-1", "orange-1", "y", "z", "vx1", "spare"]),
    ] {
        let ports = (1..)
            .map(PortNo)
            .zip(names.map(|name| PortView { name: name.into(), up: true, ..PortView::default() }))
            .collect();
        view.bridges.insert(DatapathId(dpid), Bridge { name: format!("h{dpid}"), responsive: true, ports });
    }
    view.links.push(Link { a: at(1, 6), b: at(2, 6), carrier: Carrier::Tunnel });
    let station = Station { place: at(2, 2), ips: Vec::new(), fresh: true };
    Situation {
        attachments: attach(&policy, &view),
        allocations: Allocations::default().updated(&policy),
        policy: Arc::new(policy),
        told: BTreeMap::from([(DatapathId(1), "h1".into()), (DatapathId(2), "h2".into())]),
        remembered: BTreeSet::from([DatapathId(1), DatapathId(2)]),
        hosts: BTreeMap::from([("green".into(), BTreeMap::from([(MacAddr([2, 0, 0, 0, 0, 2]), station)]))]),
        view,
        ..Situation::default()
    }
}

/// What becomes of the policy with this in place of that.
fn with(that: &str, this: &str) -> Plan {
    assert!(POLICY.contains(that), "{that}");
    situation().plan(&read(&POLICY.replace(that, this)), true)
}

/// In one line each.
fn objects(plan: &Plan) -> Vec<String> {
    let line = |object: &apps::plan::Object| {
        let fields = object.fields.iter().map(|field| format!(" {}: {} ⇒ {}", field.name, field.from, field.to));
        let tenant = object.tenant.as_deref().unwrap_or("-");
        format!("{:?} {} {tenant} {}{}", object.change, object.kind, object.name, fields.collect::<String>())
    };
    plan.objects.iter().map(line).collect()
}

#[test]
fn the_same_policy_changes_nothing_wherever_in_the_files_it_stands() {
    let other = "# a comment\n\n".to_owned()
        + &POLICY.replace("[[tenant]]\nname = \"orange\"", "\n\n[[tenant]]\nname=\"orange\"");
    for text in [POLICY, &other] {
        let plan = situation().plan(&read(text), true);
        assert_eq!(plan, Plan { same: true, ..Plan::default() });
    }
}

#[test]
fn every_kind_of_object_is_told_with_what_is_other_about_it() {
    for (that, this, told) in [
        (
            "name = \"h1\"\ndpid = \"1\"",
            "name = \"h9\"\ndpid = \"9\"",
            &["Removed bridge - h1", "Added bridge - h9"][..],
        ),
        (
            "links = [\"vx*\"]",
            "probe_interval = \"1s\"",
            &["Changed fabric - fabric links: vx* ⇒ * probe_budget: 5000 ⇒ none probe_interval: auto ⇒ 1000 ms"],
        ),
        (
            "[fabric]",
            "[fabric]\ndrain = [{ bridge = \"h2\", port = \"*\" }, { bridge = \"h1\", port = \"vx2\" }]",
            &["Changed fabric - fabric drain: none ⇒ h1/vx2, h2/*"],
        ),
        ("key = 200", "key = 300\nmax_hosts = 5", &["Changed tenant orange orange key: 200 ⇒ 300 max_hosts: 1024 ⇒ 5"]),
        ("key = 200", "", &[]),
        (
            "key = 200",
            "rate_limit = \"1 Mbit/s\"\nflood_limit = \"off\"\nunknown_unicast = \"drop\"\ndefault = \"drop\"",
            &["Changed tenant orange orange default: allow ⇒ drop flood_limit: 2000 packet/s, burst 2000 ⇒ none \
             rate_limit: none ⇒ 1000 kbit/s, burst 500 unknown_unicast: flood ⇒ drop"],
        ),
        (
            "{ bridge = \"*\", port = \"orange-*\" }",
            "{ bridge = \"*\", port = \"spare\" }",
            &["Removed port orange */orange-*", "Added port orange */spare"],
        ),
        (
            "name = \"web-1\", mac = \"02:00:00:00:00:01\"",
            "rate_limit = \"1 Mbit/s\"",
            &[
                "Changed port green h1/web mac: 02:00:00:00:00:01 ⇒ none name: web-1 ⇒ none rate_limit: none ⇒ 1000 kbit/s, burst 500",
            ],
        ),
        (
            "kind = \"wire\"",
            "kind = \"wire\"\non_failure = \"bypass\"",
            &["Changed function green firewall on_failure: drop ⇒ bypass"],
        ),
        (
            "egress = \"fw-out\" }",
            "egress = \"spare\", weight = 2 }",
            &["Changed instance green firewall/fw-1 egress: fw-out ⇒ spare weight: 1 ⇒ 2"],
        ),
        (
            "destination_port = 80 }",
            "destination_port = [80, \"90-99\"] }\nsymmetric = true",
            &["Changed chain green web match: tcp to port 80 ⇒ tcp to port 80, 90-99 symmetric: false ⇒ true"],
        ),
        (
            "destination_port = 22 }\naction = \"drop\"",
            "source = \"10.0.0.0/8\", vlan = 3 }\naction = \"allow-established\"\npriority = 3",
            &[
                "Changed tenant green green order of rules: no-telnet, no-ssh ⇒ no-ssh, no-telnet",
                "Changed rule green no-ssh action: drop ⇒ allow-established match: tcp to port 22 ⇒ tcp vlan 3 from 10.0.0.0/8 priority: 0 ⇒ 3",
            ],
        ),
    ] {
        let plan = with(that, this);
        assert_eq!(objects(&plan), told, "{that} → {this}");
        assert_eq!(plan.same, plan.objects.is_empty() && plan.bridges.is_empty());
    }
}

#[test]
fn what_comes_and_goes_is_told_whole() {
    let (before, after) = POLICY.split_once("[[tenant]]\nname = \"orange\"").unwrap();
    let plan = situation().plan(&read(before), true);
    assert_eq!(objects(&plan), ["Removed tenant orange orange", "Removed port orange */orange-*"]);
    let only_removes =
        |plan: &Plan| plan.bridges.iter().all(|bridge| bridge.flows.added == 0 && bridge.flows.removed > 0);
    assert!(plan.bridges.len() == 2 && only_removes(&plan), "{plan:?}");
    let blue = format!(
        "{before}[[tenant]]\nname = \"orange\"{after}[[tenant]]\nname = \"blue\"\nports = [{{ bridge = \"h2\", port = \"spare\" }}]"
    );
    let plan = situation().plan(&read(&blue), true);
    assert_eq!(objects(&plan), ["Added tenant blue blue", "Added port blue h2/spare"]);
    assert!(plan.bridges.iter().all(|bridge| bridge.flows.removed == 0), "{plan:?}");
    assert_eq!(plan.bridges.iter().map(|bridge| bridge.name.as_str()).collect::<Vec<_>>(), ["h2"]);
}

#[test]
fn entries_are_counted_and_shown() {
    let plan =
        with("bridge = \"*\", port = \"orange-*\"", "bridge = \"*\", port = \"orange-*\", rate_limit = \"1 Mbit/s\"");
    let [one, two] = plan.bridges.as_slice() else { panic!("{plan:?}") };
    assert_eq!((one.dpid.as_str(), one.name.as_str(), two.name.as_str()), ("0000000000000001", "h1", "h2"));
    assert_eq!((one.meters, one.groups), (Counts { added: 1, ..Counts::default() }, Counts::default()));
    let entries = one.entries.as_ref().unwrap();
    let count = |kind: &str, change| {
        entries.iter().filter(|entry| entry.change == change && entry.text.starts_with(kind)).count()
    };
    for (kind, counts) in [("flow", one.flows), ("group", one.groups), ("meter", one.meters)] {
        let told = [Change::Added, Change::Changed, Change::Removed].map(|change| count(kind, change));
        assert_eq!(told, [counts.added, counts.changed, counts.removed], "{kind}");
    }
    assert!(
        entries.iter().any(|entry| entry.text.contains("flow 2 limit_port") && entry.text.contains("meter")),
        "{entries:#?}"
    );
    assert!(entries.iter().any(|entry| entry.text.contains("1000")), "{entries:#?}");
    let brief = situation().plan(&read(&POLICY.replace("max_hosts", "").replace("key = 200", "key = 7")), false);
    assert!(brief.bridges.iter().all(|bridge| bridge.entries.is_none()) && !brief.bridges.is_empty());
}

#[test]
fn a_port_that_somebody_gets_is_no_link_any_more() {
    // The link's port becomes orange's, so green is in two parts: nothing goes from one bridge to the other.
    let plan = with("port = \"orange-*\" }", "port = \"orange-*\" }, { bridge = \"h1\", port = \"vx2\" }");
    let entries = plan.bridges.iter().flat_map(|bridge| bridge.entries.iter().flatten());
    let gone = entries.filter(|entry| entry.change == Change::Removed && entry.text.contains("forward")).count();
    assert!(gone > 0, "{plan:#?}");
}

#[test]
fn a_drained_link_is_left_where_another_joins_its_ends() {
    let policy = POLICY.replace("vx*", "vx*\", \"spare");
    let used = |situation: &Situation, port: &str| {
        let drain = format!("[fabric]\ndrain = [{{ bridge = \"h1\", port = \"{port}\" }}]");
        let bridges = situation.plan(&read(&policy.replace("[fabric]", &drain)), true).bridges;
        bridges.iter().flat_map(|it| it.entries.iter().flatten()).map(|it| it.text.clone()).collect::<Vec<_>>()
    };
    let mut one = situation();
    one.policy = Arc::new(read(&policy));
    // The only link is used all the same.
    assert_eq!(used(&one, "vx2"), [""; 0]);
    let second = Link { a: at(1, 7), b: at(2, 7), carrier: Carrier::Tunnel };
    let mut both = one.clone();
    both.view.links.push(second);
    let changes = ["vx2", "spare", "nothing"].map(|port| !used(&both, port).is_empty());
    assert!((changes[0] || changes[1]) && !changes[2], "some tenant uses one of them: {changes:?}");
    // One that was drained is there when it is to be used again; not so one that flaps.
    one.view.withheld.insert(second, Reluctance::Drained);
    assert!(!used(&one, "vx2").is_empty(), "the other is used instead");
    one.view.withheld.insert(second, Reluctance::Damped);
    assert_eq!(used(&one, "nothing"), [""; 0]);
}

#[test]
fn what_cannot_be_known_is_said() {
    let mut situation = situation();
    situation.view.bridges.get_mut(&DatapathId(2)).unwrap().responsive = false;
    situation.remembered.insert(DatapathId(0xab));
    let plan = situation.plan(&read(&POLICY.replace("vx*", "*")), false);
    assert_eq!(plan.notes.len(), 3, "{plan:?}");
    for (note, part) in plan.notes.iter().zip(["bridge h2", "bridge 00000000000000ab", "`fabric.links`"]) {
        assert!(note.contains(part), "{note}");
    }
    let claimed = POLICY.replace("orange-*", "*-1");
    assert!(!situation.plan(&read(&claimed), false).problems.new.is_empty());
    // Links aren't known yet, and so many a tenant is in parts.
    situation.settling = true;
    let plan = situation.plan(&read(&claimed), false);
    assert!(plan.problems == Changes::default() && plan.notes[0] == Situation::UNSETTLED, "{plan:?}");
}

/// The problems that come, and those that end.
fn problems(plan: &Plan) -> [Vec<String>; 2] {
    [plan.problems.new.clone(), plan.problems.ended.clone()]
}

#[test]
fn problems_that_come_and_end_are_told_and_no_others() {
    let [green, drain] = ["{ bridge = \"*\", port = \"green-*\" }", "[fabric]\nlinks = [\"vx*\"]"];
    let one = |that: &str, this: &str| {
        let mut before = situation();
        before.policy = Arc::new(read(&POLICY.replace(that, this)));
        // Somewhere else in the file, but the same.
        let moved = before.plan(&read(&format!("\n\n# moved\n{}", POLICY.replace(that, this))), false);
        assert_eq!(problems(&moved), [[""; 0]; 2], "{this}");
        let [new, ended] = [
            problems(&situation().plan(&read(&POLICY.replace(that, this)), false)),
            problems(&before.plan(&read(POLICY), false)),
        ];
        let [[new, none], [nothing, ended]] = [new, ended];
        assert_eq!((&new, none, nothing), (&ended, vec![], vec![]), "{this}");
        new
    };
    // A port that two tenants claim; functions whose ports aren't there.
    let told = one(green, "{ bridge = \"h2\", port = \"*-1\" }");
    assert!(matches!(told.as_slice(), [text] if text.contains("`orange-1` of bridge `h2` is claimed")), "{told:?}");
    let told = one("egress = \"fw-out\"", "egress = \"fw-gone\"");
    assert!(matches!(told.as_slice(), [text] if text.contains("fw-1 of function firewall")), "{told:?}");
    // A link that becomes a port, so that a tenant falls apart, and one that can't be drained, or isn't there.
    let told = one(green, "{ bridge = \"*\", port = \"green-*\" }, { bridge = \"h1\", port = \"vx*\" }");
    assert!(told.contains(&"tenant orange is in 2 parts: no link joins them".into()), "{told:?}");
    let with = |port| format!("{drain}\ndrain = [{{ bridge = \"h1\", port = \"{port}\" }}]");
    assert!(one(drain, &with("vx2"))[0].ends_with("being the only way"));
    assert!(one(drain, &with("vy*"))[0].starts_with("no link is drained by `h1`, `vy*`"));
    // What is no link because of the policy in force may be one again, if its ports are up.
    let mut cut = situation();
    cut.policy = Arc::new(read(&POLICY.replace("vx*", "none")));
    cut.attachments = attach(&cut.policy, &cut.view);
    cut.view.down = std::mem::take(&mut cut.view.links);
    let [new, ended] = problems(&cut.plan(&read(POLICY), false));
    assert!(new.is_empty() && ended.iter().any(|it| it.starts_with("tenant orange is in 2 parts")), "{ended:?}");
    cut.view.bridges.get_mut(&DatapathId(2)).unwrap().ports.get_mut(&PortNo(6)).unwrap().up = false;
    assert_eq!(problems(&cut.plan(&read(POLICY), false)), [[""; 0]; 2]);
    let mut down = situation();
    down.view.down = std::mem::take(&mut down.view.links);
    let plan = down.plan(&read(&POLICY.replace(drain, &with("vx2"))), false);
    assert_eq!(problems(&plan), [[""; 0]; 2], "a link that is down is there all the same: {plan:?}");
}

#[test]
fn bridges_go_by_the_names_of_the_policy_that_they_are_compiled_for() {
    let plan = situation().plan(&read(&POLICY.replace("h1", "x1")), true);
    // The ports that it names are those they were.
    assert_eq!((plan.same, plan.bridges), (false, vec![]), "{:?}", plan.objects);
}

#[test]
fn learnt_hosts_are_taken_into_account_as_long_as_their_port_stays() {
    let plan = with("{ bridge = \"*\", port = \"green-*\" }", "{ bridge = \"h1\", port = \"green-*\" }");
    let entries = plan.bridges.iter().flat_map(|bridge| bridge.entries.iter().flatten());
    let about: Vec<_> = entries.filter(|entry| entry.text.contains("02:00:00:00:00:02")).collect();
    assert!(about.iter().all(|entry| entry.change == Change::Removed) && about.len() >= 2, "{about:?}");
}

#[test]
fn a_plan_for_longer_packets_than_links_carry_says_so() {
    let mut situation = situation();
    let longer = read(&POLICY.replace("key = 200", "key = 200\nmtu = 1500"));
    assert_eq!(problems(&situation.plan(&longer, false)), [[""; 0]; 2], "what isn't known is no problem");
    situation.view.mtus.insert(situation.view.links[0], 1450);
    let [new, ended] = problems(&situation.plan(&longer, false));
    assert!(ended.is_empty() && matches!(new.as_slice(), [one] if one.contains("carries only 1450")), "{new:?}");
}
