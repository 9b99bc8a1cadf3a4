//! Follows one frame, for people, through the tables that all bridges should hold: which entry of which table it hits and
//! what in the policy that is there for, over which links and functions it goes, and where it and its copies end.

mod failures;
mod request;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use openflow::types::{DatapathId, MacAddr, PortNo, TableId};
use serde::{Deserialize, Serialize};

use self::failures::failures;
use crate::allocation::Allocations;
use crate::attachment::{Attachments, PortUse};
use crate::desired::{BridgeState, Flow, FlowKey};
use crate::failover;
use crate::interpreter::{Event, Frame, Output, STORM, observe};
use crate::pipeline;
use crate::policy::{FunctionKind, Policy};
use crate::view::{Carrier, Endpoint, View};

pub use self::request::{Protocol, Refusal, Request};

/// All that a trace or a plan depends on, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Situation {
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// The numbers given for it.
    pub allocations: Allocations,
    /// What bridges that are connected say that they are called.
    pub told: BTreeMap<DatapathId, String>,
    /// Bridges that should be there.
    pub remembered: BTreeSet<DatapathId>,
    /// What each bridge that answers should hold.
    pub tables: BTreeMap<DatapathId, BridgeState>,
    /// The fabric.
    pub view: View,
    /// What each port is for.
    pub attachments: Attachments,
    /// The learnt hosts, by tenant and address.
    pub hosts: BTreeMap<String, BTreeMap<MacAddr, Station>>,
    /// Does every connected bridge hold just what it should?
    pub converged: bool,
    /// Has the controller just started, and still waits for bridges and links that were there before?
    pub settling: bool,
}

/// Where a learnt host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its place.
    pub place: Endpoint,
    /// IP addresses that it was seen with.
    pub ips: Vec<IpAddr>,
    /// Did it send lately?
    pub fresh: bool,
}

/// A port, named by its bridge's and its own name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The bridge.
    pub bridge: String,
    /// The port.
    pub port: String,
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The frame.
    pub frame: Sent,
    /// What doesn't follow from the question and was assumed.
    pub notes: Vec<String>,
    /// All that happens to it, in order; each copy is followed through a bridge before the next.
    pub steps: Vec<Step>,
    /// What came of it.
    pub verdict: Verdict,
}

/// The frame that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Where it enters.
    pub from: Place,
    /// Source.
    pub source: String,
    /// Destination.
    pub destination: String,
    /// What it carries, in words.
    pub carries: String,
}

/// Something that happens to a frame at a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The bridge's name.
    pub bridge: String,
    /// What happens.
    #[serde(flatten)]
    pub what: What,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum What {
    /// It, or a copy, comes in.
    Arrives {
        /// Port that it comes in by.
        port: String,
    },
    /// It is looked up in a table.
    Table {
        /// The table's number.
        table: u8,
        /// Its name.
        name: String,
        /// The entry that it hits, if any.
        entry: Option<Entry>,
    },
    /// It passes a meter, if that has something left.
    Meter {
        /// The meter.
        meter: u32,
    },
    /// A bucket of a group gets a copy.
    Group {
        /// The group.
        group: u32,
        /// The bucket's place in it, from 0.
        bucket: usize,
    },
    /// A copy goes to the controller.
    Controller {
        /// The meter that bounds such copies.
        meter: u32,
    },
    /// It goes over a link to another bridge.
    Link {
        /// Port that it leaves by.
        port: String,
        /// Where it comes in.
        to: Place,
        /// `tunnel`, `vlan` or `dedicated`.
        carrier: String,
    },
    /// It goes to a service function.
    Function {
        /// Port that it leaves by.
        port: String,
        /// The function.
        function: String,
        /// Its instance.
        instance: String,
        /// Where it comes back, if that is known.
        back: Option<Place>,
    },
    /// A port of the function that it is on its way to is down; the next table says what becomes of it.
    Down {
        /// The port.
        port: String,
        /// The function.
        function: String,
        /// Its instance.
        instance: String,
    },
    /// It leaves the fabric.
    Leaves {
        /// Port that it leaves by.
        port: String,
    },
}

/// A flow entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its priority.
    pub priority: u16,
    /// Which packets, as `ovs-ofctl` writes it.
    #[serde(rename = "match")]
    pub matching: String,
    /// What it does with them; `drop`: nothing.
    pub instructions: String,
    /// File and line of what it is there for in the policy.
    pub origin: Option<String>,
}

/// What came of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Did it arrive where its destination is? If nobody knows where that is: anywhere?
    pub delivered: bool,
    /// Ports that copies left the fabric by.
    pub to: Vec<Place>,
    /// Copies to the controller.
    pub controller: usize,
    /// Where and why copies ended otherwise.
    pub ended: Vec<Ended>,
}

/// Where and why a copy ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The bridge.
    pub bridge: String,
    /// Number of the table that ended it, if one did.
    pub table: Option<u8>,
    /// Why, in words.
    pub why: String,
}

/// Most steps of a trace.
pub const STEPS_MAX: usize = 20_000;

/// An instance of a function at a port.
struct Service<'a> {
    function: &'a str,
    instance: &'a str,
    kind: FunctionKind,
    /// Where what is sent there comes back as it was.
    back: Option<Endpoint>,
}

struct Tracer<'a> {
    situation: &'a Situation,
    wires: BTreeMap<Endpoint, (Endpoint, Carrier)>,
    down: BTreeSet<Endpoint>,
    queue: VecDeque<(Endpoint, Frame)>,
    steps: Vec<Step>,
    verdict: Verdict,
    arrived: BTreeSet<Endpoint>,
}

impl Situation {
    /// Follows the frame that a request asks about.
    ///
    /// # Errors
    /// [`Refusal`]: the request names something that isn't there, or makes no sense.
    pub fn trace(&self, request: &Request) -> Result<Trace, Refusal> {
        let asked = request.resolve(self)?;
        let (steps, verdict) = self.follow(asked.from, asked.frame, asked.to);
        let mut notes = asked.notes;
        let chooses = |step: &Step| match &step.what {
            What::Table { entry: Some(entry), .. } => entry.instructions.contains("multipath("),
            _ => false,
        };
        if steps.iter().any(chooses) {
            let note = "a function has several instances, and the bridge's own hash chooses among them: it may be another \
                        one than is shown here";
            notes.push(note.into());
        }
        let drains = |step: &Step| matches!(&step.what, What::Table { table, .. } if *table == pipeline::BEGIN.0);
        if steps.iter().any(drains) {
            let note = "an instance drains: this is the way of a new connection; one that is older than that goes on as before";
            notes.push(note.into());
        }
        notes.extend(failures(self, &steps));
        Ok(Trace { frame: asked.sent, notes, steps, verdict })
    }

    /// Follows a frame that enters at a port; `to`: where its destination is, if anybody knows.
    pub fn follow(&self, from: Endpoint, frame: Frame, to: Option<Endpoint>) -> (Vec<Step>, Verdict) {
        let held = self.view.held.iter().filter(|held| held.up).map(|held| held.link);
        let links = self.view.links.iter().copied().chain(held);
        let ports = self.view.bridges.iter().flat_map(|(dpid, bridge)| {
            bridge.ports.iter().map(|(number, port)| (Endpoint { bridge: *dpid, port: *number }, port.up))
        });
        let mut tracer = Tracer {
            situation: self,
            wires: links
                .flat_map(|link| [(link.a, (link.b, link.carrier)), (link.b, (link.a, link.carrier))])
                .collect(),
            down: ports.filter(|(_, up)| !up).map(|(place, _)| place).collect(),
            queue: VecDeque::new(),
            steps: Vec::new(),
            verdict: Verdict::default(),
            arrived: BTreeSet::new(),
        };
        if tracer.down.contains(&from) {
            tracer.end(from.bridge, None, format!("port {} is down, so nothing comes in there", self.port(from)));
        } else {
            tracer.queue.push_back((from, frame));
        }
        tracer.run();
        tracer.verdict.delivered = match to {
            Some(to) => tracer.arrived.contains(&to),
            None => !tracer.arrived.is_empty(),
        };
        (tracer.steps, tracer.verdict)
    }

    fn bridge(&self, dpid: DatapathId) -> String {
        self.view.bridges.get(&dpid).map_or_else(|| dpid.to_string(), |bridge| bridge.name.clone())
    }

    fn port(&self, at: Endpoint) -> String {
        let port = self.view.bridges.get(&at.bridge).and_then(|bridge| bridge.ports.get(&at.port));
        port.map_or_else(|| at.port.to_string(), |port| port.name.clone())
    }

    fn place(&self, at: Endpoint) -> Place {
        Place { bridge: self.bridge(at.bridge), port: self.port(at) }
    }

    /// The function that is at a port.
    fn service(&self, at: Endpoint) -> Option<Service<'_>> {
        let PortUse::Function(used) = self.attachments.of(at) else { return None };
        let tenant = self.policy.tenants.iter().find(|tenant| tenant.name == used.tenant)?;
        let function = tenant.functions.iter().find(|function| function.name == used.function)?;
        let instance = function.instances.iter().find(|instance| instance.name == used.instance)?;
        let back = match function.kind {
            FunctionKind::Wire => {
                let here = self.port(at);
                let other = if here == instance.ingress { &instance.egress } else { &instance.ingress };
                let ports = &self.view.bridges.get(&at.bridge)?.ports;
                let found = ports.iter().find(|(_, port)| port.name == *other);
                found.map(|(number, _)| Endpoint { bridge: at.bridge, port: *number })
            }
            FunctionKind::Hairpin => Some(at),
            FunctionKind::Routed | FunctionKind::Tap => None,
        };
        Some(Service { function: &function.name, instance: &instance.name, kind: function.kind, back })
    }
}

impl Tracer<'_> {
    fn run(&mut self) {
        for _ in 0..STORM {
            let Some((at, frame)) = self.queue.pop_front() else { return };
            self.pass(at, frame);
            if self.steps.len() >= STEPS_MAX {
                break;
            }
        }
        if let Some((at, _)) = self.queue.pop_front() {
            let steps = self.steps.len();
            self.end(at.bridge, None, format!("it has come so far in {steps} steps; the rest isn't followed"));
        }
    }

    /// Through one bridge.
    fn pass(&mut self, at: Endpoint, frame: Frame) {
        let situation = self.situation;
        let Some(state) = situation.tables.get(&at.bridge) else {
            let why = "the bridge doesn't answer: it goes on as it was last told, and what that is isn't known here";
            return self.end(at.bridge, None, why.into());
        };
        self.step(at.bridge, What::Arrives { port: situation.port(at) });
        let mut last = None;
        let (mut leaves, mut tapped) = (false, false);
        let mut events = Vec::new();
        observe(state, at, &self.down, frame, |event| events.push(event));
        for event in events {
            let what = match event {
                Event::Table { table, hit } => {
                    last = Some((table, hit));
                    tapped = false;
                    let entry = hit.map(|(key, flow)| Entry::new(key, flow));
                    self.step(at.bridge, What::Table { table: table.0, name: name(table).into(), entry });
                    for port in hit.iter().flat_map(|(_, flow)| failover::asked(flow)) {
                        self.down(Endpoint { bridge: at.bridge, port });
                    }
                    continue;
                }
                Event::Meter(meter) => What::Meter { meter: meter.0 },
                Event::Bucket { group, bucket } => What::Group { group: group.0, bucket },
                Event::Output(Output::Controller(meter, _)) => {
                    self.verdict.controller += 1;
                    What::Controller { meter: meter.0 }
                }
                Event::Output(Output::Port(port, frame)) => {
                    // A tap's copy is for the tap; of the frame itself other tables tell.
                    let tap = self.output(Endpoint { bridge: at.bridge, port }, frame);
                    (leaves, tapped) = (leaves || !tap, tap);
                    continue;
                }
                Event::Bound => {
                    leaves = true;
                    let why = "its tables and groups lead to each other without end";
                    self.end(at.bridge, last.map(|(table, _)| table), why.into());
                    continue;
                }
            };
            self.step(at.bridge, what);
        }
        if let (Some((table, hit)), false) = (last, leaves || tapped) {
            let table_name = name(table);
            let why = match hit {
                None => format!("no entry of table {} ({table_name}) matches", table.0),
                Some((_, flow)) if flow.instructions.is_empty() => {
                    format!("an entry of table {} ({table_name}) drops it{}", table.0, because(flow))
                }
                Some((_, flow)) => {
                    format!(
                        "table {} ({table_name}) sends it nowhere but back where it came from{}",
                        table.0,
                        because(flow)
                    )
                }
            };
            self.end(at.bridge, Some(table), why);
        }
    }

    /// Out of a port. Is it that of a tap?
    fn output(&mut self, at: Endpoint, frame: Frame) -> bool {
        let situation = self.situation;
        let port = situation.port(at);
        let exists = situation.view.bridges.get(&at.bridge).is_some_and(|bridge| bridge.ports.contains_key(&at.port));
        if self.down.contains(&at) || !exists {
            let state = if exists { "is down" } else { "is gone" };
            self.step(at.bridge, What::Leaves { port: port.clone() });
            self.end(at.bridge, None, format!("it is sent out of port {port}, which {state}"));
        } else if let Some((there, carrier)) = self.wires.get(&at).copied() {
            let to = situation.place(there);
            self.step(at.bridge, What::Link { port, to, carrier: carrier.to_string() });
            self.queue.push_back((there, frame.carried(carrier)));
        } else if let Some(service) = situation.service(at) {
            let back = service.back.map(|back| situation.place(back));
            let (function, instance) = (service.function.to_owned(), service.instance.to_owned());
            self.step(at.bridge, What::Function { port, function, instance, back });
            match service.back {
                Some(back) if self.down.contains(&back) => {
                    let why =
                        format!("function {} has it, but its port {} is down", service.function, situation.port(back));
                    self.end(at.bridge, None, why);
                }
                Some(back) => self.queue.push_back((back, Frame { tunnel: None, ..frame })),
                None if service.kind == FunctionKind::Tap => return true,
                None => {
                    let why = format!("function {} routes it on as it thinks fit", service.function);
                    self.end(at.bridge, None, why);
                }
            }
        } else if matches!(situation.attachments.of(at), PortUse::Tenant(_)) {
            self.step(at.bridge, What::Leaves { port });
            self.verdict.to.push(situation.place(at));
            self.arrived.insert(at);
        } else {
            self.step(at.bridge, What::Leaves { port: port.clone() });
            self.end(at.bridge, None, format!("it is sent out of port {port}, behind which nothing answers probes"));
        }
        false
    }

    /// Tells of a port that is asked for, if it is down.
    fn down(&mut self, at: Endpoint) {
        let situation = self.situation;
        if let Some(service) = situation.service(at).filter(|_| self.down.contains(&at)) {
            let (function, instance) = (service.function.to_owned(), service.instance.to_owned());
            self.step(at.bridge, What::Down { port: situation.port(at), function, instance });
        }
    }

    fn step(&mut self, dpid: DatapathId, what: What) {
        if self.steps.len() < STEPS_MAX {
            self.steps.push(Step { bridge: self.situation.bridge(dpid), what });
        }
    }

    fn end(&mut self, dpid: DatapathId, table: Option<TableId>, why: String) {
        if self.verdict.ended.len() < STEPS_MAX {
            let bridge = self.situation.bridge(dpid);
            self.verdict.ended.push(Ended { bridge, table: table.map(|table| table.0), why });
        }
    }
}

impl Entry {
    fn new(key: &FlowKey, flow: &Flow) -> Self {
        let instructions: Vec<String> = flow.instructions.iter().map(ToString::to_string).collect();
        Self {
            priority: key.priority,
            matching: key.matching.to_string(),
            instructions: if instructions.is_empty() { "drop".into() } else { instructions.join(",") },
            origin: flow.origin.as_ref().map(ToString::to_string),
        }
    }
}

fn name(table: TableId) -> &'static str {
    pipeline::table(table).map_or("unknown", |table| table.name)
}

fn because(flow: &Flow) -> String {
    flow.origin.as_ref().map(|origin| format!(", because of {origin}")).unwrap_or_default()
}

/// A port by its name or number.
fn port_named(view: &View, dpid: DatapathId, name: &str) -> Option<Endpoint> {
    let ports = &view.bridges.get(&dpid)?.ports;
    let named = ports.iter().find(|(_, port)| port.name == name).map(|(number, _)| *number);
    let number = || name.parse().ok().map(PortNo).filter(|number| ports.contains_key(number));
    Some(Endpoint { bridge: dpid, port: named.or_else(number)? })
}
