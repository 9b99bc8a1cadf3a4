//! Policy: what the operator wants, read from TOML and validated as a whole.
//!
//! [`load`] takes the texts of all files together, because a mistake may lie between two of them. It goes on after a
//! mistake, so that one reading tells of all of them, each with its place and with what to write instead.

mod answers;
mod between;
mod between_chains;
mod chain;
mod chains;
mod claims;
mod declared;
mod diagnostic;
mod fabric;
mod functions;
mod icmp;
mod matches;
mod model;
mod patterns;
mod ports;
mod rate;
mod render;
mod report;
mod schema;
mod section;
mod space;
mod text;
mod values;
mod virtual_macs;

use std::sync::Arc;

use self::declared::Declared;
use self::report::{Draft, Place, Report};

pub use self::chain::*;
pub use self::diagnostic::{Code, Diagnostic, Diagnostics, Label, Severity};
pub use self::icmp::IcmpType;
pub use self::model::*;
pub(crate) use self::text::nearest;

/// A policy file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Source {
    /// Its name, as diagnostics show it.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl Source {
    /// Longest text that is read. Policies are written by people or generated per host; more than this is a mistake.
    pub const BYTES_MAX: usize = 16 << 20;
}

/// A policy that holds, and what looks odd about it all the same.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// What the operator may want to look at. None of these is an error.
    pub warnings: Diagnostics,
}

/// Reads the policy that all these files form together. Their order doesn't matter; no file at all is an empty policy.
pub fn load(sources: &[Source]) -> Result<Loaded, Diagnostics> {
    let mut sources: Vec<&Source> = sources.iter().collect();
    sources.sort_by(|a, b| (&a.name, &a.text).cmp(&(&b.name, &b.text)));
    // A byte order mark is no part of the text, and columns shouldn't count it.
    let texts: Vec<&str> = sources.iter().map(|source| without_mark(&source.text)).collect();
    let names: Vec<Arc<str>> = sources.iter().map(|source| Arc::from(source.name.as_str())).collect();

    let mut report = Report::default();
    let mut declared = Declared::default();
    for (file, text) in texts.iter().enumerate() {
        if text.len() > Source::BYTES_MAX {
            report.push(
                Draft::error(format!("policy file {} is too large: {} bytes", text::quote(&names[file]), text.len()))
                    .code(Code::TooLarge)
                    .at(Place::start(file), "")
                    .help(format!("a policy file has at most {} MiB; split it", Source::BYTES_MAX >> 20)),
            );
        } else {
            declared.read(file, text, &mut report);
        }
    }
    between::check(&declared, &mut report);

    let lines = text::Lines::of(&texts);
    let diagnostics = report.finish(&names, &texts, &lines);
    if diagnostics.has_errors() {
        return Err(diagnostics);
    }
    match declared.into_policy(&names, &lines) {
        Some(policy) => Ok(Loaded { policy, warnings: diagnostics }),
        // Whatever is missing has been reported as an error above, so this is never reached.
        None => Err(diagnostics),
    }
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openflow::types::{DatapathId, MacAddr};

    use super::*;

    fn loaded(texts: &[(&str, &str)]) -> Loaded {
        let source = |(name, text): &(&str, &str)| Source { name: (*name).into(), text: (*text).into() };
        load(&texts.iter().map(source).collect::<Vec<_>>()).unwrap_or_else(|told| panic!("{told}"))
    }

    #[test]
    fn no_file_is_an_empty_policy() {
        let Loaded { policy, warnings } = loaded(&[]);
        assert!(policy.bridges.is_empty() && policy.tenants.is_empty() && warnings.is_empty());
        assert_eq!(policy.fabric, Fabric { links: vec![Glob::new("*")], probes: Probes::Budget(5_000), drain: vec![] });
        assert_eq!(warnings.render(true), "");
    }

    #[test]
    fn everything_that_is_written_arrives() {
        let text = include_str!("../../tests/policy/valid.toml");
        let Policy { bridges, fabric, tenants } = loaded(&[("valid.toml", text)]).policy;
        let bridge = |name: &str, dpid| BridgeName { name: name.into(), dpid: DatapathId(dpid) };
        assert_eq!(bridges, [bridge("host1", 1), bridge("host2", 2)]);
        let links = vec![Glob::new("vxlan-*"), Glob::new("gre-?")];
        assert_eq!((fabric.links, fabric.probes), (links, Probes::Every(Duration::from_secs(2))));
        let drained = |it: &LinkSelector| format!("{}/{} {}", it.bridge, it.port, it.origin);
        let drain: Vec<String> = fabric.drain.iter().map(drained).collect();
        assert_eq!(drain, ["host1/vxlan-2 valid.toml:15", "00000000000000ab/* valid.toml:16"]);

        let [green, orange] = tenants.as_slice() else { panic!("{tenants:?}") };
        assert_eq!((green.name.as_str(), green.key, green.max_hosts), ("green", Some(100), 1024));
        assert_eq!(green.unknown_unicast, UnknownUnicast::Flood);
        assert_eq!(green.origin.to_string(), "valid.toml:29");
        assert_eq!((orange.name.as_str(), orange.key, orange.max_hosts), ("orange", None, 65_536));
        assert_eq!(orange.unknown_unicast, UnknownUnicast::Drop);
        assert_eq!((orange.mtu, green.mtu), (Some(9000), None));
        assert!(!orange.ports[0].is_pinned());
        assert_eq!(orange.rate_limit, Some(RateLimit { unit: RateUnit::Packets, rate: 5000, burst: 100 }));
        assert_eq!((orange.ports[0].rate_limit, green.rate_limit), (None, None));
        let half_a_second = RateLimit { unit: RateUnit::Kilobits, rate: 50_000, burst: 25_000 };
        assert_eq!(green.ports[2].rate_limit, Some(half_a_second));
        let packets = RateLimit { unit: RateUnit::Packets, rate: 10, burst: 5 };
        assert_eq!((green.ports[2].rate_limit_to, green.ports[0].rate_limit_to), (Some(packets), None));

        let web = &green.ports[1];
        assert_eq!((web.bridge.to_string(), web.port.to_string()), ("host1".into(), "veth0a1".into()));
        assert_eq!(web.name.as_deref(), Some("web-1"));
        assert_eq!(web.mac, Some(MacAddr([2, 0, 0x32, 0, 0, 1])));
        assert_eq!(web.ip, ["50.0.0.1".parse::<std::net::IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!(web.origin.line, 34);
        assert_eq!(green.ports[2].bridge.to_string(), "00000000000000ab");
        assert_eq!((orange.default, green.default), (Verdict::Drop, Verdict::Allow));
    }

    #[test]
    fn functions_chains_and_rules_arrive() {
        let text = include_str!("../../tests/policy/valid.toml");
        let tenants = loaded(&[("valid.toml", text)]).policy.tenants;
        let Tenant { functions, chains, rules, .. } = &tenants[0];
        assert_eq!((tenants[0].flood_limit.map(|limit| limit.rate), tenants[1].flood_limit), (Some(2000), None));

        let names = ["firewall", "router", "cache", "ids"];
        assert_eq!(functions.iter().map(|function| function.name.as_str()).collect::<Vec<_>>(), names);
        let kinds = [FunctionKind::Wire, FunctionKind::Routed, FunctionKind::Hairpin, FunctionKind::Tap];
        assert_eq!(functions.iter().map(|function| function.kind).collect::<Vec<_>>(), kinds);
        assert_eq!((functions[0].on_failure, functions[1].on_failure), (OnFailure::Bypass, OnFailure::Drop));
        let [one, two] = functions[0].instances.as_slice() else { panic!("{functions:?}") };
        assert_eq!((one.name.as_str(), one.bridge.as_str(), one.weight), ("fw-1", "host1", 2));
        assert_eq!((one.ingress.as_str(), one.egress.as_str(), one.mac), ("fw1-in", "fw1-out", None));
        assert_eq!((two.bridge.as_str(), two.weight), ("00000000000000ab", 1));
        assert_eq!((one.drain, two.drain), (false, true));
        let router = &functions[1].instances[0];
        assert_eq!((router.ingress.as_str(), router.egress.as_str()), ("r1", "r1"));
        assert_eq!(router.mac, Some(MacAddr([2, 0, 0, 0, 0, 0xfe])));

        let [web, dns] = chains.as_slice() else { panic!("higher priority first: {chains:?}") };
        assert_eq!((web.name.as_str(), web.priority, web.symmetric, web.broadcast), ("web", 10_000, true, false));
        assert_eq!((dns.name.as_str(), dns.priority, dns.symmetric, dns.broadcast), ("dns", 0, false, true));
        assert_eq!(
            (web.through.as_slice(), dns.through.as_slice()),
            (&names.map(String::from)[..], &["ids".into()][..])
        );
        assert_eq!(web.rate_limit.map(|limit| limit.rate), Some(100_000));
        let [tcp, icmp] = web.classifiers.as_slice() else { panic!("{web:?}") };
        assert_eq!(
            (tcp.protocol, icmp.protocol, dns.classifiers[0].protocol),
            (Protocol::TCP, Protocol::Icmp, Protocol::UDP)
        );
        assert_eq!((tcp.vlan, icmp.vlan), (None, Some(5)));
        let shown = |addresses: &[Address]| addresses.iter().map(Address::to_string).collect::<Vec<_>>();
        // A port's name stands for its IP addresses where the protocol is one over IP.
        assert_eq!(shown(&tcp.source), ["10.0.0.0/8"]);
        assert_eq!(shown(&tcp.destination), ["10.1.0.0/16", "50.0.0.1/32", "2001:db8::1/128"]);
        assert_eq!(
            (tcp.source_port.as_slice(), tcp.destination_port.as_slice()),
            (&[1024..=65_535][..], &[80..=80][..])
        );
        assert_eq!(dns.classifiers[0].destination_port, [53..=53, 5350..=5353], "in order, apart from each other");
        assert_eq!(shown(&dns.classifiers[0].destination), ["ff:ff:ff:ff:ff:ff", "224.0.0.0/24"]);
        assert_eq!((web.origin.line, tcp.origin.line, icmp.origin.line), (68, 74, 75));

        assert_eq!(rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["no-telnet", "lab", "same"]);
        assert_eq!((rules[0].action, rules[1].action), (RuleAction::Drop, RuleAction::Allow));
        let lab = &rules[1].classifiers;
        assert_eq!((lab[0].protocol, lab[1].protocol), (Protocol::Ethertype(0x88b5), Protocol::Ethertype(35_000)));
        assert_eq!(
            (shown(&lab[0].source), shown(&lab[1].destination)),
            (vec!["02:00:32:00:00:01".into()], vec!["02:00:32:00:00:01".into()])
        );
        assert_eq!(shown(&rules[2].classifiers[0].source), ["02:00:32:00:00:01"], "once");
    }

    #[test]
    fn a_port_without_mac_address_stands_for_its_ip_addresses() {
        let text = "version = 1\n[[tenant]]\nname = \"green\"\nports = [\
             { bridge = \"a\", port = \"b\", name = \"ip\", ip = [\"10.0.0.1\", \"10.0.0.2\"] },\
             { bridge = \"a\", port = \"c\", name = \"mac\", mac = \"02:00:00:00:00:01\" }]\n\
             [[tenant.rule]]\nname = \"r\"\naction = \"drop\"\n\
             match = [{ source = \"ip\" }, { protocol = \"tcp\", source = \"mac\" }, { protocol = \"arp\", source = \"mac\" }]";
        let rule = loaded(&[("a.toml", text)]).policy.tenants.remove(0).rules.remove(0);
        let sources =
            rule.classifiers.iter().map(|classifier| classifier.source.iter().map(Address::to_string).collect());
        let mac = || vec!["02:00:00:00:00:01".to_owned()];
        assert_eq!(sources.collect::<Vec<Vec<_>>>(), [vec!["10.0.0.1/32".into(), "10.0.0.2/32".into()], mac(), mac()]);
    }

    #[test]
    fn every_kind_of_rate_limit_counts() {
        let limited = |in_tenant: &str, in_port: &str, in_chain: &str| {
            let limit = "rate_limit = \"1 Mbit/s\"";
            let put = |what: &str| if what.is_empty() { "" } else { limit };
            let port = if in_port.is_empty() { "" } else { ", rate_limit = \"1 Mbit/s\"" };
            let text = format!(
                "version = 1\n[[tenant]]\nname = \"green\"\n{}\nports = [{{ bridge = \"a\", port = \"b\"{port} }}]\n\
                 [[tenant.function]]\nname = \"f\"\nkind = \"tap\"\n\
                 instances = [{{ name = \"i\", bridge = \"a\", ingress = \"c\" }}]\n\
                 [[tenant.chain]]\nname = \"c\"\nthrough = [\"f\"]\nmatch = {{}}\n{}\n",
                put(in_tenant),
                put(in_chain),
            );
            loaded(&[("a.toml", &text)]).policy.has_rate_limits()
        };
        assert!(!limited("", "", ""));
        assert!(limited("x", "", "") && limited("", "x", "") && limited("", "", "x"));
    }

    #[test]
    fn frames_with_two_tags_end_where_somebody_asks_what_is_behind_them() {
        let ends = |written: &str, asked: &str| {
            let rule = "[[tenant.rule]]\nname = \"r\"\naction = \"drop\"\nmatch =";
            let text = format!("version = 1\n[[tenant]]\nname = \"green\"\n{written}\n{rule} {{ {asked} }}\n");
            loaded(&[("a.toml", &text)]).policy.tenants[0].ends_inner_vlans()
        };
        for asked in ["protocol = \"arp\"", "ethertype = 0x88b5", "protocol = \"tcp\"", "source = \"10.0.0.0/8\""] {
            assert!(ends("", asked) && ends("inner_vlans = \"drop\"", asked), "{asked}");
            assert!(!ends("inner_vlans = \"pass\"", asked), "{asked}");
        }
        for asked in ["vlan = 5", "source = \"02:00:00:00:00:01\"", "protocol = \"any\""] {
            assert!(!ends("", asked), "{asked}");
        }
    }

    #[test]
    fn files_together_form_one_policy_in_any_order() {
        let green =
            ("b.toml", "version = 1\n[[tenant]]\nname = \"green\"\nports = [{ bridge = \"*\", port = \"g*\" }]");
        let blue = ("a.toml", "version = 1\n[[tenant]]\nname = \"blue\"\nports = [{ bridge = \"*\", port = \"b*\" }]");
        let fabric = ("c.toml", "version = 1\n[fabric]\nprobe_interval = \"50ms\"");
        let policy = loaded(&[green, blue, fabric]).policy;
        assert_eq!(policy, loaded(&[fabric, blue, green]).policy);
        assert_eq!(policy.tenants.iter().map(|tenant| tenant.name.as_str()).collect::<Vec<_>>(), ["blue", "green"]);
        assert_eq!(policy.fabric.probes, Probes::Every(Duration::from_millis(50)));
    }

    #[test]
    fn a_budget_is_for_probes_that_have_no_interval() {
        for (fabric, probes) in [
            ("probe_interval = \"auto\"", Probes::Budget(5_000)),
            ("probe_budget = 100", Probes::Budget(100)),
            ("probe_budget = 50000\nprobe_interval = \"auto\"", Probes::Budget(50_000)),
            ("probe_interval = \"20ms\"", Probes::Every(Duration::from_millis(20))),
        ] {
            let text = format!("version = 1\n[fabric]\n{fabric}\n");
            assert_eq!(loaded(&[("a.toml", &text)]).policy.fabric.probes, probes, "{fabric}");
        }
    }

    #[test]
    fn byte_order_marks_and_line_ends_of_other_systems_do_no_harm() {
        let policy = loaded(&[("a.toml", "\u{feff}version = 1\r\n\r\n[[tenant]]\r\nname = \"green\"\r\n")]).policy;
        assert_eq!(policy.tenants[0].origin.line, 3);
        let source = Source { name: "a.toml".into(), text: "\u{feff}x = 1\r\nversion = 1\r\n".into() };
        let told = load(&[source]).unwrap_err();
        assert_eq!((told.len(), told.iter().next().unwrap().label.column), (1, 1));
    }

    #[test]
    fn no_flood_of_warnings_hides_an_error() {
        let many: String = (0..30_000).map(|n| format!("[[tenant]]\nname = \"t{n}\"\n")).collect();
        let text = format!("version = 1\n{many}[[tenant]]\nname = \"t0\"\n");
        let told = load(&[Source { name: "a.toml".into(), text }]).unwrap_err();
        assert!(told.has_errors());
        assert_eq!((told.len(), told.omitted()), (1_000, 29_002));
        assert!(told.render(false).ends_with("\n\n… and 29002 more\n"));
    }
}
