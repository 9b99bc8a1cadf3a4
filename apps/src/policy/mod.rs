//! Policy: what the operator wants, read from TOML and validated as a whole.
//!
//! [`load`] takes the texts of all files together, because a mistake may lie between two of them. It goes on after a
//! mistake, so that one reading tells of all of them, each with its place and with what to write instead.

mod between;
mod chain;
mod declared;
mod diagnostic;
mod linked;
mod model;
mod rate;
mod render;
mod report;
mod schema;
mod section;
mod services;
mod space;
mod text;
mod values;

use std::sync::Arc;

use self::declared::Declared;
use self::report::{Draft, Place, Report};

pub use self::chain::*;
pub use self::diagnostic::{Diagnostic, Diagnostics, Label, Severity};
pub use self::model::*;

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
        assert_eq!(policy.fabric, Fabric { links: vec![Glob::new("*")], probe_interval: Duration::from_millis(200) });
        assert_eq!(warnings.render(true), "");
    }

    #[test]
    fn everything_that_is_written_arrives() {
        let text = include_str!("../../tests/policy/valid.toml");
        let Policy { bridges, fabric, tenants } = loaded(&[("valid.toml", text)]).policy;
        let bridge = |name: &str, dpid| BridgeName { name: name.into(), dpid: DatapathId(dpid) };
        assert_eq!(bridges, [bridge("host1", 1), bridge("host2", 2)]);
        let links = vec![Glob::new("vxlan-*"), Glob::new("gre-?")];
        assert_eq!(fabric, Fabric { links, probe_interval: Duration::from_secs(2) });

        let [green, orange] = tenants.as_slice() else { panic!("{tenants:?}") };
        assert_eq!((green.name.as_str(), green.key, green.max_hosts), ("green", Some(100), 1024));
        assert_eq!(green.unknown_unicast, UnknownUnicast::Flood);
        assert_eq!(green.origin.to_string(), "valid.toml:24");
        assert_eq!((orange.name.as_str(), orange.key, orange.max_hosts), ("orange", None, 65_536));
        assert_eq!(orange.unknown_unicast, UnknownUnicast::Drop);
        assert!(!orange.ports[0].is_pinned());
        assert_eq!(orange.rate_limit, Some(RateLimit { unit: RateUnit::Packets, rate: 5000, burst: 100 }));
        assert_eq!((orange.ports[0].rate_limit, green.rate_limit), (None, None));
        let half_a_second = RateLimit { unit: RateUnit::Kilobits, rate: 50_000, burst: 25_000 };
        assert_eq!(green.ports[2].rate_limit, Some(half_a_second));

        let web = &green.ports[1];
        assert_eq!((web.bridge.to_string(), web.port.to_string()), ("host1".into(), "veth0a1".into()));
        assert_eq!(web.name.as_deref(), Some("web-1"));
        assert_eq!(web.mac, Some(MacAddr([2, 0, 0x32, 0, 0, 1])));
        assert_eq!(web.ip, ["50.0.0.1".parse::<std::net::IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!(web.origin.line, 29);
        assert_eq!(green.ports[2].bridge.to_string(), "00000000000000ab");
    }

    #[test]
    fn functions_chains_and_rules_arrive_in_the_order_in_which_they_decide() {
        let text = include_str!("../../tests/policy/valid.toml");
        let tenants = loaded(&[("valid.toml", text)]).policy.tenants;
        assert_eq!((tenants[0].flood_limit.map(|limit| limit.rate), tenants[1].flood_limit), (Some(2000), None));
        assert_eq!((tenants[0].default, tenants[1].default), (Verdict::Drop, Verdict::Allow));
        let Tenant { functions, chains, rules, .. } = &tenants[0];
        let [firewall, router, ids] = functions.as_slice() else { panic!("{functions:?}") };
        assert_eq!((firewall.kind, firewall.on_failure), (FunctionKind::Wire, OnFailure::Bypass));
        let [one, two] = firewall.instances.as_slice() else { panic!("{firewall:?}") };
        assert_eq!((one.bridge.as_str(), one.egress.as_str(), one.weight), ("host1", "fw1-out", 2));
        assert_eq!((two.bridge.as_str(), two.ingress.as_str(), two.weight), ("0000000000000002", "fw2-in", 1));
        assert_eq!(router.instances[0].mac, Some(MacAddr([2, 0, 0x32, 0, 0, 0xfe])));
        assert_eq!(
            (ids.kind, ids.on_failure, ids.instances[0].egress.as_str()),
            (FunctionKind::Tap, OnFailure::Drop, "ids1")
        );

        let [web, rest] = chains.as_slice() else { panic!("{chains:?}") };
        assert_eq!((web.name.as_str(), web.priority, web.symmetric, web.broadcast), ("web", 100, true, false));
        assert_eq!(web.through, ["firewall", "router", "ids"]);
        assert_eq!(web.rate_limit.map(|limit| limit.rate), Some(100_000));
        let classifier = &web.classifiers[0];
        let texts: Vec<String> = classifier
            .destination
            .iter()
            .map(|address| if let Address::Ip(prefix) = address { prefix.to_string() } else { panic!("{address:?}") })
            .collect();
        assert_eq!(texts, ["50.0.0.1/32", "2001:db8::1/128", "10.0.0.0/24"], "a port stands for its IP addresses");
        assert_eq!(
            (classifier.protocol, classifier.destination_port.as_slice()),
            (Protocol::TCP, &[80..=90, 443..=443][..])
        );
        assert_eq!((rest.name.as_str(), rest.classifiers[0].protocol), ("rest", Protocol::Icmp));

        let [telnet, arp] = rules.as_slice() else { panic!("{rules:?}") };
        assert_eq!((telnet.action, arp.action), (Verdict::Drop, Verdict::Allow));
        assert_eq!(arp.classifiers[0].source, [Address::Mac(MacAddr([2, 0, 0x32, 0, 0, 1]))], "or for its MAC address");
        assert_eq!((arp.classifiers[0].vlan, arp.classifiers[0].protocol), (Some(5), Protocol::ARP));
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
        assert_eq!(policy.fabric.probe_interval, Duration::from_millis(50));
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
