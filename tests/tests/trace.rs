//! Goal: a trace tells what the network does. Method: for frames of many kinds, on every layout and carrier, our trace is held
//! against Open vSwitch's own (`ofproto/trace`) on the bridges as they are: the same entries of the same tables in the same
//! order, the same copies to the controller, the same ports. What Open vSwitch puts on a link goes into its trace of the
//! next bridge, so nothing of the way is taken from ours.

mod network;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result, ensure};
use lab::{Carrier, ControllerSpec, Function, Lab, Layout, Spec};
use serde_json::{Value, json};

use network::{MS, Network, POLICY, spec};

/// An entry: table, priority, and what it matches in `ovs-ofctl`'s words; no entry has no priority.
type Entry = (u64, Option<u64>, BTreeSet<String>);

/// What happens at one bridge.
#[derive(Debug, Default, PartialEq)]
struct Pass {
    entries: Vec<Entry>,
    /// Names of the ports that it leaves by.
    ports: Vec<String>,
    /// Copies to the controller.
    copies: usize,
}

/// A match of ours in `ovs-ofctl`'s words.
fn in_ovs_words(text: &str) -> BTreeSet<String> {
    let fields: BTreeMap<&str, &str> = text.split(',').filter_map(|field| field.split_once('=')).collect();
    let proto = match (fields.get("eth_type").copied(), fields.get("ip_proto").copied()) {
        (Some("0x806"), _) => Some("arp"),
        (Some("0x800"), None) => Some("ip"),
        (Some("0x800"), Some("1")) => Some("icmp"),
        (Some("0x800"), Some("6")) => Some("tcp"),
        (Some("0x800"), Some("17")) => Some("udp"),
        (Some("0x86dd"), None) => Some("ipv6"),
        _ => None,
    };
    let mut words: BTreeSet<String> = proto.into_iter().map(str::to_owned).collect();
    for (name, value) in fields {
        let name = match name {
            "eth_type" | "ip_proto" if proto.is_some() => continue,
            "eth_dst" => "dl_dst",
            "eth_src" => "dl_src",
            "tunnel_id" => "tun_id",
            "ipv4_src" => "nw_src",
            "ipv4_dst" => "nw_dst",
            "tcp_dst" | "udp_dst" => "tp_dst",
            "vlan_vid" => {
                let vid = u16::from_str_radix(value.trim_start_matches("0x"), 16).unwrap_or_default();
                words.insert(format!("dl_vlan={}", vid & 0xfff));
                continue;
            }
            name => name,
        };
        words.insert(format!("{name}={value}"));
    }
    words
}

/// What our trace says, bridge by bridge: the bridge, the port that it came in by, and what happened.
fn ours(trace: &Value) -> Result<Vec<(String, String, Pass)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut passes: Vec<(String, String, Pass)> = Vec::new();
    for step in trace["steps"].as_array().with_context(|| format!("no steps: {trace}"))? {
        if step["step"] == "arrives" {
            passes.push((text(&step["bridge"]), text(&step["port"]), Pass::default()));
        }
        let (_, _, pass) = passes.last_mut().context("a frame arrives first")?;
        match step["step"].as_str() {
            Some("table") => {
                let table = step["table"].as_u64().context("a number")?;
                let words = step["entry"]["match"].as_str().map(in_ovs_words).unwrap_or_default();
                pass.entries.push((table, step["entry"]["priority"].as_u64(), words));
            }
            Some("controller") => pass.copies += 1,
            Some("link" | "leaves" | "function") => pass.ports.push(text(&step["port"])),
            _ => {}
        }
    }
    Ok(passes)
}

/// What Open vSwitch's trace says of a bridge, and what marks the frame bears at each port that it leaves by.
fn theirs(text: &str, names: &BTreeMap<u64, String>) -> Result<(Pass, Vec<String>)> {
    let (mut pass, mut marks) = (Pass::default(), Vec::new());
    let (mut key, mut vlan) = (None, None);
    let mut skipped = usize::MAX;
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("---")).skip(1).collect();
    for (at, line) in lines.iter().enumerate().take_while(|(_, line)| !line.starts_with("Final flow")) {
        let (depth, line) = (line.len() - line.trim_start().len(), line.trim());
        // A tunnel's own way through the bridge below is no business of ours.
        if depth >= skipped && !line.is_empty() || line.is_empty() {
            continue;
        }
        skipped = usize::MAX;
        if line.starts_with("bridge(") {
            skipped = depth;
        } else if let Some((table, entry)) = line.split_once(". ").filter(|(table, _)| table.parse::<u64>().is_ok()) {
            let (words, priority) = match entry.split_once("priority ") {
                Some((words, rest)) => (words, Some(rest.split(',').next().unwrap_or_default().parse()?)),
                None => ("", None),
            };
            let words = words.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned);
            pass.entries.push((table.parse()?, priority, words.collect()));
        } else if line.starts_with("controller") {
            pass.copies += 1;
        } else if line.starts_with("bucket") {
            (key, vlan) = (None, None);
        } else if let Some(set) = line.strip_prefix("set_field:") {
            match set.split_once("->") {
                Some((value, "tun_id")) => key = Some(value.to_owned()),
                Some((value, "vlan_vid")) => vlan = Some(value.parse::<u16>()? & 0xfff),
                _ => {}
            }
        // All ports live here, so a bundle takes its first one.
        } else if let Some(number) = line.strip_prefix("output:").or_else(|| first_member(line)) {
            if lines.get(at + 1).is_some_and(|next| next.contains("skipping output to input port")) {
                continue;
            }
            let number: u64 = number.parse()?;
            pass.ports.push(names.get(&number).with_context(|| format!("port {number}"))?.clone());
            let key = key.as_ref().map(|key| format!(",tun_id={key}")).unwrap_or_default();
            marks.push(key + &vlan.map(|vlan| format!(",dl_vlan={vlan}")).unwrap_or_default());
        }
    }
    Ok((pass, marks))
}

/// The first port that a bundle chooses from.
fn first_member(line: &str) -> Option<&str> {
    line.strip_prefix("bundle(")?.split_once("members:")?.1.split([',', ')']).next()
}

/// The frame of a trace as `ofproto/trace` wants it, without its port.
fn flow(trace: &Value) -> Result<String> {
    let frame = &trace["frame"];
    let carries = frame["carries"].as_str().context("it carries something")?;
    let words: Vec<&str> = carries.split(' ').collect();
    let macs = format!("dl_src={},dl_dst={}", frame["source"].as_str().context("a source")?, {
        frame["destination"].as_str().context("a destination")?
    });
    let after = |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
    let (from, to) = (after("from"), after("to"));
    let rest = match (words[0], from, to) {
        ("arp:", ..) => {
            let sha = frame["source"].as_str().unwrap_or_default();
            format!("arp,arp_op=1,arp_sha={sha},arp_spa={},arp_tpa={}", words[1], words[words.len() - 1])
        }
        ("icmp", Some(from), Some(to)) if from.contains(':') => {
            format!("icmp6,ipv6_src={from},ipv6_dst={to},icmpv6_type=128,icmpv6_code=0")
        }
        ("icmp", Some(from), Some(to)) => format!("icmp,nw_src={from},nw_dst={to},icmp_type=8,icmp_code=0"),
        (name, Some(from), Some(to)) => {
            let ends = if from.contains(':') { ("6", "ipv6") } else { ("", "nw") };
            let port = words[words.len() - 1];
            format!("{name}{},{}_src={from},{}_dst={to},{name}_src=49152,{name}_dst={port}", ends.0, ends.1, ends.1)
        }
        _ => anyhow::bail!("what is \"{carries}\"?"),
    };
    Ok(format!("{rest},{macs}"))
}

/// Asks, once all is in place.
fn ask(network: &Network, question: &Value) -> Result<Value> {
    let mut trace = Value::Null;
    lab::wait_until("a trace of what is in place", MS(5000), || {
        let body = question.to_string();
        let answer = network.controller.request("POST", "/v1/trace", Some(("application/json", &body)))?;
        ensure!(answer.status == 200, "{question}: {answer:?}");
        trace = answer.json()?;
        Ok(!trace["notes"].to_string().contains("not every bridge"))
    })?;
    Ok(trace)
}

/// What traces passed.
#[derive(Debug, Default, PartialEq)]
struct Passed {
    /// Bridges, each counted as often.
    bridges: usize,
    /// Functions.
    functions: usize,
    /// How many ended at a rule.
    ruled: usize,
}

/// Holds one trace against Open vSwitch's.
fn compare(
    network: &Network,
    function: Option<&Function>,
    tenant: &str,
    question: &Value,
    passed: &mut Passed,
) -> Result<()> {
    let trace = ask(network, question)?;
    let steps = trace["steps"].as_array().into_iter().flatten();
    passed.functions += steps.filter(|step| step["step"] == "function").count();
    passed.ruled += usize::from(trace["verdict"]["ended"][0]["table"] == 5);
    let ours = ours(&trace)?;
    let flow = flow(&trace)?;
    let bridge = network.lab.spec().bridge_of(tenant)?.to_owned();
    let bridges = network.controller.get("/v1/bridges")?;
    let named: BTreeMap<String, BTreeMap<u64, String>> = bridges
        .as_array()
        .context("bridges")?
        .iter()
        .map(|bridge| {
            let ports = bridge["ports"].as_array().into_iter().flatten();
            let ports = ports.filter_map(|port| Some((port["number"].as_u64()?, port["name"].as_str()?.to_owned())));
            (bridge["dpid"].as_str().unwrap_or_default().to_owned(), ports.collect())
        })
        .collect();
    let known = network.lab.bridges();
    let names: BTreeMap<&str, &str> = bridges
        .as_array()
        .context("bridges")?
        .iter()
        .filter_map(|bridge| Some((bridge["name"].as_str()?, bridge["dpid"].as_str()?)))
        .collect();
    let mut queue = VecDeque::new();
    let (first, port, _) = ours.first().with_context(|| format!("{question}: {trace}"))?;
    let host = known.iter().find(|it| Some(it.dpid_hex().as_str()) == names.get(first.as_str()).copied());
    queue.push_back((host.context("a bridge of the lab")?.host, port.clone(), String::new()));
    for (at, (name, port, pass)) in ours.iter().enumerate() {
        let (host, there, marks) = queue.pop_front().with_context(|| format!("Open vSwitch passes {at} bridges"))?;
        let here = known.iter().find(|it| it.host == host && it.name == bridge).context("a bridge of the lab")?;
        ensure!(
            names.get(name.as_str()) == Some(&here.dpid_hex().as_str()) && *port == there,
            "{question}: {name}/{port}"
        );
        let ports = &named[&here.dpid_hex()];
        let number = ports.iter().find(|(_, name)| *name == port).context("the port's number")?.0;
        let told =
            network.lab.host(host)?.appctl("ofproto/trace", &[&bridge, &format!("in_port={number},{flow}{marks}")])?;
        let (theirs, marks) = theirs(&told, ports)?;
        ensure!(*pass == theirs, "{question} at h{host}:\n{pass:#?}\nOpen vSwitch says:\n{theirs:#?}\n{told}");
        for (port, marks) in theirs.ports.iter().zip(marks) {
            let ends = network.lab.links().iter().flat_map(|link| [(&link.a, &link.b), (&link.b, &link.a)]);
            let mut over = ends.filter(|(from, _)| from.host == host && from.bridge == bridge && from.port == *port);
            if let Some((_, to)) = over.next() {
                let fixed =
                    network.lab.spec().layout == Layout::PerTenant && network.lab.spec().carrier != Carrier::Veth;
                let key = if fixed { ",tun_id=0x64" } else { "" };
                queue.push_back((to.host, to.port.clone(), format!("{marks}{key}")));
            }
            if let Some(function) = function.filter(|function| function.host == host) {
                let ends = [(&function.ingress, &function.egress), (&function.egress, &function.ingress)];
                let through = ends.iter().filter(|(into, _)| *into == port);
                queue.extend(through.map(|(_, back)| (host, (*back).clone(), String::new())));
            }
        }
    }
    ensure!(queue.is_empty(), "{question}: Open vSwitch goes on at {queue:?}");
    passed.bridges += ours.len();
    Ok(())
}

/// Holds traces of all kinds against Open vSwitch's, with a function on the second host if there is to be one.
fn agree(spec: &Spec, policy: &str, function: bool) -> Result<Passed> {
    let lab = Lab::start(spec)?;
    let function = function.then(|| lab.add_function(2, "br0", "fw-in", "fw-out")).transpose()?;
    let controller = lab.start_controller(&ControllerSpec::policy(policy))?;
    let network = Network { controller, lab };
    network.settle()?;
    network.meet("green")?;
    let container = |host| network.lab.container(host, "green-1");
    let unknown = "02:00:00:ff:ff:fe".to_owned();
    let mut passed = Passed::default();
    for from in 1..=spec.hosts {
        let others = (1..=spec.hosts).filter(|to| *to != from);
        let known = others.map(|to| container(to).map(|to| to.mac.to_string())).collect::<Result<Vec<_>>>()?;
        let from = container(from)?.mac.to_string();
        for to in known.into_iter().chain(["broadcast".to_owned(), unknown.clone()]) {
            for (protocol, port) in KINDS {
                let question = json!({"tenant": "green", "from": from, "to": to, "protocol": protocol, "port": port});
                compare(&network, function.as_ref(), "green", &question, &mut passed)?;
            }
        }
    }
    Ok(passed)
}

/// Protocols and destination ports.
const KINDS: [(&str, Option<u16>); 5] =
    [("icmp", None), ("tcp", Some(23)), ("tcp", Some(80)), ("udp", Some(53)), ("arp", None)];

/// How many bridges all frames of a mesh of three pass: those to known hosts two each, what is flooded all three.
fn passes(unknown: usize) -> usize {
    let arp = KINDS.iter().filter(|(protocol, _)| *protocol == "arp").count();
    let other = KINDS.len() - arp;
    3 * (other * (2 + 2 + 3 + unknown) + arp * 4 * 3)
}

fn all_pass(spec: &Spec) -> Result<()> {
    let passed = agree(spec, POLICY, false)?;
    ensure!(passed == Passed { bridges: passes(3), ..Passed::default() }, "{passed:?}");
    Ok(())
}

#[test]
fn shared_bridges_over_tunnels() -> Result<()> {
    all_pass(&spec(Layout::Shared))
}

#[test]
fn shared_bridges_over_plain_links() -> Result<()> {
    all_pass(&Spec { carrier: Carrier::Veth, ..spec(Layout::Shared) })
}

#[test]
fn a_bridge_per_tenant_over_tunnels() -> Result<()> {
    all_pass(&spec(Layout::PerTenant))
}

/// Pinned addresses, limits, and frames that end where they enter.
#[test]
fn what_a_policy_restricts() -> Result<()> {
    let pinned = r#"ports = [
  { bridge = "h1", port = "green-1", mac = "02:00:00:00:00:01", ip = ["10.0.0.1", "fd00::1"], rate_limit = "50 Mbit/s" },
  { bridge = "*", port = "green-*" },"#;
    let policy =
        POLICY.replace("unknown_unicast = \"flood\"", "unknown_unicast = \"drop\"\nrate_limit = \"90 Mbit/s\"");
    let policy = policy.replacen("ports = [\n  { bridge = \"*\", port = \"green-*\" },", pinned, 1);
    ensure!(policy.contains("02:00:00:00:00:01") && policy.contains("90 Mbit/s"), "{policy}");
    let passed = agree(&spec(Layout::Shared), &policy, false)?;
    ensure!(passed == Passed { bridges: passes(1), ..Passed::default() }, "{passed:?}");
    Ok(())
}

const CHAINED: &str = r#"
[[tenant.function]]
name = "firewall"
kind = "wire"
instances = [{ name = "fw-1", bridge = "h2", ingress = "fw-in", egress = "fw-out" }]

[[tenant.chain]]
name = "pings"
through = ["firewall"]
match = [{ protocol = "icmp" }]

[[tenant.rule]]
name = "no-telnet"
match = { protocol = "tcp", destination_port = 23 }
action = "drop"

[[tenant]]
name = "orange"
"#;

/// Pings to hosts, known or not, go through the function once, wherever they come from; nobody gets to use telnet.
#[test]
fn chains_and_rules() -> Result<()> {
    let policy = POLICY.replacen("\n[[tenant]]\nname = \"orange\"\n", CHAINED, 1);
    ensure!(policy.contains("no-telnet"), "{policy}");
    for carrier in [Carrier::Vxlan, Carrier::Veth] {
        let passed = agree(&Spec { carrier, ..spec(Layout::Shared) }, &policy, true)?;
        ensure!((passed.functions, passed.ruled) == (3 * 3, 3 * 4), "{carrier:?}: {passed:?}");
    }
    Ok(())
}
