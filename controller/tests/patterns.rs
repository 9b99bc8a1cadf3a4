//! Goal: a station that passes probes on makes no link of its ports, and costs nobody else anything; only what comes through a
//! tunnel, which no station can feign, shows that a port which a tenant's pattern matches is a link's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apps::pipeline::{ADMIT, LEARN};
use apps::policy::{Source, load};
use controller::core::{BRIDGES_MAX, Core, Effect, Event, Memory, SessionId, Settings};
use controller::snapshot::PolicyStatus;
use openflow::action::Action;
use openflow::matching::Match;
use openflow::message::Message;
use openflow::multipart::{MultipartReply, MultipartRequest, Part};
use openflow::oxm::Oxm;
use openflow::packet::{PacketIn, PacketInReason};
use openflow::peer::Identity;
use openflow::port::Port;
use openflow::switch::{Capabilities, FeaturesReply, Role};
use openflow::types::{BufferId, Cookie, DatapathId, MacAddr, PortNo, TableId, Xid};
use openflow::wire::Nothing;

const MS: fn(u64) -> Duration = Duration::from_millis;

const POLICY: &str = "version = 1
[[tenant]]
name = \"green\"
key = 100
ports = [{ bridge = \"*\", port = \"green-*\" }]
";

/// Two bridges, each with two ports that the tenant's pattern matches, and what joins port 2 of both.
struct Pair {
    core: Core,
    now: Instant,
    /// Port 2 of each leads to port 2 of the other: by a tunnel with this key, or by a station that passes on what it gets.
    joined: Option<u64>,
}

impl Pair {
    fn new(joined: Option<u64>) -> Self {
        let now = Instant::now();
        let settings = Settings { probe_key: [7; 32], memory: Memory::default(), bridges_max: BRIDGES_MAX };
        let mut pair = Self { core: Core::new(now, settings), now, joined };
        pair.apply();
        for dpid in [1, 2] {
            let (datapath, capabilities) = (DatapathId(dpid), Capabilities::empty());
            let features = FeaturesReply { datapath, n_buffers: 0, n_tables: 254, auxiliary_id: 0, capabilities };
            let port = |number: u32| {
                let address = MacAddr([2, 0, 0, 0, dpid as u8, number as u8]);
                Port::new(PortNo(number), address, &format!("green-{number}"))
            };
            let identity = Box::new(Identity {
                features,
                desc: None,
                ports: vec![port(1), port(2)],
                role: Role::Master,
                generation: None,
            });
            let address = SocketAddr::from(([127, 0, 0, 1], 9));
            pair.event(Event::Connected { session: SessionId(dpid), address, identity });
        }
        pair
    }

    fn apply(&mut self) {
        let policy = load(&[Source { name: "p.toml".into(), text: POLICY.to_owned() }]).unwrap().policy;
        self.event(Event::Policy(Arc::new(policy), PolicyStatus::default()));
    }

    /// Something happens, the bridges answer, and what goes out of a port 2 comes in at the other.
    fn event(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.core.handle(self.now, event) {
                let (Effect::Send { session, messages } | Effect::SendFirst { session, messages }) = effect else {
                    continue;
                };
                for (xid, message) in messages {
                    let answer = match message {
                        Message::MultipartRequest(part) => Message::MultipartReply(Part::whole(match part.body {
                            MultipartRequest::Flow(_) => MultipartReply::Flow(Vec::new()),
                            MultipartRequest::GroupDesc(_) => MultipartReply::GroupDesc(Vec::new()),
                            MultipartRequest::MeterConfig(_) => MultipartReply::MeterConfig(Vec::new()),
                            _ => continue,
                        })),
                        Message::BarrierRequest(_) => Message::BarrierReply(Nothing),
                        Message::PacketOut(out) if out.actions.contains(&Action::output(PortNo(2))) => {
                            let other = SessionId(3 - session.0);
                            events.extend(self.joined.map(|key| came(other, 2, ADMIT, key, &out.data)));
                            continue;
                        }
                        _ => continue,
                    };
                    events.insert(0, Event::Message { session, xid, message: answer });
                }
            }
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now += MS(5);
            self.event(Event::Timer);
        }
    }

    /// What port 1 and 2 of the first bridge are.
    fn kinds(&self) -> Vec<String> {
        self.core.snapshot(self.now).bridges[0].ports.iter().map(|port| port.kind.clone()).collect()
    }

    fn problems(&self) -> String {
        self.core.snapshot(self.now).status.problems.join("\n")
    }
}

/// A frame that comes in by a port, out of a tunnel unless the key is 0.
fn came(session: SessionId, port: u32, table: TableId, key: u64, frame: &[u8]) -> Event {
    let tunnel = (key != 0).then_some(Oxm::TunnelId(key, None));
    let matching = Match::new([Oxm::InPort(PortNo(port), None)].into_iter().chain(tunnel));
    let (buffer_id, reason, cookie) = (BufferId::NONE, PacketInReason::Action, Cookie(0));
    let total_len = frame.len() as u16;
    let data = bytes::Bytes::copy_from_slice(frame).into();
    let packet = PacketIn { buffer_id, total_len, reason, table, cookie, matching, data };
    Event::Message { session, xid: Xid(0), message: Message::PacketIn(packet) }
}

#[test]
fn a_station_that_passes_probes_on_loses_its_own_ports_and_makes_no_link() {
    let mut pair = Pair::new(Some(0));
    pair.run(MS(1000));
    assert_eq!(pair.kinds(), ["tenant", "unused"], "{}", pair.problems());
    assert!(pair.core.snapshot(pair.now).links.is_empty());
    assert!(pair.problems().contains("probes show that it leads to another port of this fabric: nobody gets it"));
    pair.joined = None;
    pair.run(MS(1000));
    assert_eq!(pair.kinds(), ["tenant", "unused"], "for as long as the policy is in force");
    pair.apply();
    pair.run(MS(1000));
    assert_eq!(pair.kinds(), ["tenant", "tenant"], "{}", pair.problems());
}

#[test]
fn a_port_is_its_tenants_when_no_probe_came_back_and_then_stays_so() {
    let mut pair = Pair::new(None);
    pair.run(MS(100));
    assert_eq!(pair.kinds(), ["unused", "unused"], "tried first");
    assert!(!pair.core.snapshot(pair.now).status.converged, "what is wanted isn't known yet");
    pair.run(MS(400));
    assert_eq!(pair.kinds(), ["tenant", "tenant"]);
    assert!(pair.core.snapshot(pair.now).status.converged);
    pair.apply();
    assert_eq!(pair.kinds(), ["tenant", "tenant"], "another policy tries nothing again that was no link");
}

#[test]
fn what_came_through_a_tunnel_shows_a_link_whenever_it_comes() {
    let mut pair = Pair::new(Some(100));
    pair.run(MS(500));
    assert_eq!(pair.kinds(), ["tenant", "link"], "{}", pair.problems());
    assert_eq!(pair.problems(), "");

    // A station's frame that had been in a tunnel: there is one behind the port, whoever has the other end.
    let mut pair = Pair::new(None);
    pair.run(MS(500));
    let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[8, 0], &[0x45; 60]].concat();
    pair.event(came(SessionId(1), 1, LEARN, 0, &frame));
    pair.event(came(SessionId(1), 2, LEARN, 100, &frame));
    pair.run(MS(100));
    assert_eq!(pair.kinds(), ["tenant", "unused"], "{}", pair.problems());
    assert_eq!(pair.core.snapshot(pair.now).hosts.len(), 1, "nobody is learnt behind a tunnel's end");
}
