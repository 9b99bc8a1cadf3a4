//! One bridge stays one bridge. Without a datapath id of its own a bridge of Open vSwitch takes the lowest address of its ports, and so
//! becomes another one when a port comes or goes; one that was removed and made anew does, too. By what is the same (its ports,
//! what it calls itself, or where its links lead) it is known again, and takes the place of the one that it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use apps::view::{Endpoint, Link};
use openflow::types::{DatapathId, MacAddr, PortNo};

use super::bridge::Bridge;
use super::{Core, Effect};

impl Bridge {
    /// The devices at its ports: their names and addresses. A tunnel has another address whenever it is made, a veth hasn't.
    fn devices(&self) -> BTreeSet<(String, MacAddr)> {
        let real =
            self.ports.iter().filter(|(number, it)| **number != PortNo::LOCAL && it.port.address != MacAddr::default());
        real.map(|(_, record)| (record.port.name.text().into_owned(), record.port.address)).collect()
    }

    /// Is this what became of a bridge that is gone? By most of its devices, or by some and what it calls itself.
    fn succeeds(&self, gone: &Self) -> bool {
        let before = gone.devices();
        let shared = self.devices().intersection(&before).count();
        let same_name = !self.told.is_empty() && self.told == gone.told;
        shared * 2 > before.len() || (shared > 0 && same_name)
    }

    /// Does its datapath id follow its ports' addresses? Then it is that of its own interface.
    fn id_follows_ports(&self, dpid: DatapathId) -> bool {
        let local = self.ports.get(&PortNo::LOCAL).map(|record| record.port.address.0);
        local.is_some_and(|[a, b, c, d, e, f]| u64::from_be_bytes([0, 0, a, b, c, d, e, f]) == dpid.0)
    }
}

impl Core {
    /// A bridge has connected for the first time: looks whether it is one that was known by another datapath id.
    pub(super) fn look_for_former_self(&mut self, now: Instant, dpid: DatapathId) {
        let Some(bridge) = self.bridges.get(&dpid) else { return };
        let gone = self.bridges.iter().filter(|(other, it)| self.is_gone(**other, it));
        let former = gone.filter(|(other, it)| **other != dpid && bridge.succeeds(it)).map(|(other, _)| *other).next();
        if let Some(former) = former {
            self.take_place(now, former, dpid);
        }
    }

    /// May another bridge take its place? One that the policy names by its datapath id is nobody else.
    fn is_gone(&self, dpid: DatapathId, bridge: &Bridge) -> bool {
        bridge.connection.is_none() && !self.is_named(dpid)
    }

    /// A port leads to one other. Where a link at a bridge that doesn't answer ends at a port which has a live link to another bridge,
    /// that one has taken its place, or somebody has laid the cable anew; the old link is gone in any case.
    pub(super) fn drop_superseded(&mut self, up: &[Link]) -> Vec<(DatapathId, DatapathId)> {
        let live: BTreeMap<Endpoint, Endpoint> =
            up.iter().flat_map(|link| [(link.a, link.b), (link.b, link.a)]).collect();
        let mut instead = Vec::new();
        self.held.retain(|(a, b), _| {
            let other =
                |(end, far): (Endpoint, Endpoint)| live.get(&end).filter(|now| **now != far).map(|now| (far, *now));
            let superseded = [(*a, *b), (*b, *a)].into_iter().find_map(other);
            instead.extend(superseded.map(|(old, new)| (old.bridge, new.bridge)));
            superseded.is_none()
        });
        instead
    }

    /// All links of a bridge that is gone lead to one that came since: that is what became of it.
    pub(super) fn judge_superseded(&mut self, now: Instant, instead: Vec<(DatapathId, DatapathId)>) {
        for (old, new) in instead {
            let (Some(gone), Some(here)) = (self.bridges.get(&old), self.bridges.get(&new)) else { continue };
            let came_since = gone.left.zip(here.came).is_some_and(|(left, came)| came > left);
            let linked = self.held.keys().any(|(a, b)| a.bridge == old || b.bridge == old);
            if old != new && came_since && !linked && self.is_gone(old, gone) {
                self.take_place(now, old, new);
            }
        }
    }

    /// A bridge takes the place of the one that it was, with its hosts.
    fn take_place(&mut self, now: Instant, former: DatapathId, dpid: DatapathId) {
        let Some(gone) = self.bridges.remove(&former) else { return };
        for port in gone.ports.keys() {
            self.topology.forget(Endpoint { bridge: former, port: *port });
        }
        self.held.retain(|(a, b), _| a.bridge != former && b.bridge != former);
        let Some(bridge) = self.bridges.get_mut(&dpid) else { return };
        bridge.keep_behind(&gone.ports);
        let numbers: BTreeMap<_, PortNo> =
            bridge.ports.iter().map(|(number, record)| (record.port.name.text().into_owned(), *number)).collect();
        let now_at = |place: Endpoint| {
            let name = gone.ports.get(&place.port)?.port.name.text();
            Some(Endpoint { bridge: dpid, port: *numbers.get(&*name)? })
        };
        self.hosts.relocate(|place| if place.bridge == former { now_at(place) } else { Some(place) });
        if self.memory.bridges.remove(&former.0) {
            self.memory.bridges.insert(dpid.0);
            self.effects.push(Effect::Save(self.memory.clone()));
        }
        let name = if bridge.told.is_empty() { dpid.to_string() } else { bridge.told.clone() };
        let text = format!(
            "bridge {name} came back with datapath id {dpid}, and was {former} before: it is taken for the same; an id of its own \
             stays the same (ovs-vsctl set bridge BRIDGE other_config:datapath-id={dpid})"
        );
        self.problem(now, dpid, &text);
        self.name_bridges();
        self.refresh_due = true;
        self.rounds.all_dirty = true;
    }

    /// Bridges that can't be told apart by what they call themselves, or that may be others tomorrow.
    pub(super) fn identity_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut named: BTreeMap<&str, Vec<DatapathId>> = BTreeMap::new();
        for (dpid, bridge) in self.bridges.iter().filter(|(_, bridge)| bridge.connection.is_some()) {
            named.entry(&bridge.told).or_default().push(*dpid);
            if bridge.id_follows_ports(*dpid) {
                let local = bridge.ports.get(&PortNo::LOCAL).map(|record| record.port.name.text()).unwrap_or_default();
                problems.push(format!(
                    "bridge {} has no datapath id of its own: it becomes another bridge when a port with a lower address comes or \
                     goes; set it (ovs-vsctl set bridge {local} other_config:datapath-id={dpid})",
                    bridge.name
                ));
            }
        }
        for (told, dpids) in named.into_iter().filter(|(told, dpids)| !told.is_empty() && dpids.len() > 1) {
            let dpids: Vec<String> = dpids.iter().map(ToString::to_string).collect();
            problems.push(format!(
                "bridges {} all call themselves {told}, so they go by their datapath ids: give each a name of its own (ovs-vsctl \
                 set bridge BRIDGE other_config:dp-desc=NAME), or name them in the policy",
                dpids.join(" and ")
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use apps::view::{Carrier, Held};

    use openflow::peer::Identity;
    use openflow::port::Port;
    use openflow::switch::{Capabilities, Desc, FeaturesReply, Role};
    use openflow::wire::Text;

    use super::super::{BRIDGES_MAX, Event, Memory, SessionId, Settings};
    use super::*;

    fn port((number, name, address): (u32, &str, u8)) -> Port {
        Port::new(PortNo(number), MacAddr([2, 0, 0, 0, 0, address]), name)
    }

    fn bridge(told: &str, ports: &[(u32, &str, u8)]) -> Bridge {
        let mut bridge = Bridge::default();
        told.clone_into(&mut bridge.told);
        bridge.set_ports(ports.iter().copied().map(port).collect());
        bridge
    }

    #[test]
    fn a_bridge_is_known_by_its_devices_and_not_by_a_name_alone() {
        let gone = bridge("h1", &[(1, "green-1", 1), (2, "green-2", 2), (9, "tun2", 3)]);
        let is = |told, ports: &[(u32, &str, u8)]| bridge(told, ports).succeeds(&gone);
        assert!(is("", &[(1, "green-1", 1), (7, "green-2", 2), (9, "tun2", 77)]), "most devices, and other numbers");
        assert!(is("h1", &[(1, "green-1", 1), (9, "tun2", 77)]), "made anew under its name");
        assert!(!is("h2", &[(1, "green-1", 1), (9, "tun2", 77)]), "one container has moved to another bridge");
        assert!(
            !is("h1", &[(1, "green-1", 51), (2, "green-2", 52), (9, "tun2", 53)]),
            "another host that is called the same"
        );
        assert!(!is("", &[]) && !bridge("", &[]).succeeds(&bridge("", &[])));
    }

    fn connect(core: &mut Core, now: Instant, dpid: u64, told: &str, ports: &[(u32, &str, u8)]) {
        let (datapath, capabilities) = (DatapathId(dpid), Capabilities::empty());
        let features = FeaturesReply { datapath, n_buffers: 0, n_tables: 254, auxiliary_id: 0, capabilities };
        let blank = || Text::new("");
        let (manufacturer, hardware, software, serial) = (blank(), blank(), blank(), Text::new(""));
        let desc = Some(Box::new(Desc { manufacturer, hardware, software, serial, datapath: Text::new(told) }));
        let ports = ports.iter().copied().map(port).collect();
        let identity = Box::new(Identity { features, desc, ports, role: Role::Master, generation: None });
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
        core.handle(now, Event::Connected { session: SessionId(dpid), address, identity });
    }

    fn core(now: Instant) -> Core {
        Core::new(now, Settings { probe_key: [7; 32], memory: Memory::default(), bridges_max: BRIDGES_MAX })
    }

    #[test]
    fn what_has_no_name_or_shares_one_goes_by_its_id_and_an_id_of_no_ones_own_is_told() {
        let now = Instant::now();
        let mut core = core(now);
        connect(&mut core, now, 1, "None", &[]);
        connect(&mut core, now, 2, "None", &[]);
        assert_eq!(core.identity_problems(), [] as [String; 0], "Open vSwitch calls so whoever has no name");
        assert_eq!(core.bridges[&DatapathId(1)].name, "0000000000000001");
        connect(&mut core, now, 3, "h1", &[]);
        connect(&mut core, now, 4, "h1", &[]);
        let told = core.identity_problems();
        assert!(
            told.len() == 1 && told[0].contains("0000000000000003 and 0000000000000004 all call themselves h1"),
            "{told:?}"
        );
        connect(&mut core, now, 0x0200_0000_0005, "h5", &[(PortNo::LOCAL.0, "br0", 5), (1, "x", 5)]);
        let told = core.identity_problems();
        assert!(told[0].contains("set bridge br0 other_config:datapath-id=0000020000000005"), "{told:?}");
    }

    /// A bridge without devices that could be known: its links lead to the same ports as before.
    #[test]
    fn a_bridge_is_known_by_where_its_links_lead() {
        let now = Instant::now();
        let mut core = core(now);
        connect(&mut core, now, 1, "", &[(1, "tun2", 1), (2, "tun3", 2)]);
        connect(&mut core, now, 9, "", &[(1, "tun1", 3), (2, "tun1b", 4)]);
        core.handle(now, Event::Disconnected { session: SessionId(1) });
        assert!(core.bridges.contains_key(&DatapathId(9)));
        core.bridges.entry(DatapathId(1)).or_insert_with(|| bridge("", &[(1, "tun2", 1), (2, "tun3", 2)]));
        core.bridges.get_mut(&DatapathId(1)).expect("it was there").left = Some(now);
        let link = |dpid: u64, port: u32| {
            let (a, b) = (
                Endpoint { bridge: DatapathId(dpid), port: PortNo(port) },
                Endpoint { bridge: DatapathId(9), port: PortNo(port) },
            );
            Link { a: a.min(b), b: a.max(b), carrier: Carrier::Tunnel }
        };
        for port in [1, 2] {
            let link = link(1, port);
            core.held.insert((link.a, link.b), Held { link, trees: BTreeSet::new(), up: true });
        }
        let later = now + Duration::from_secs(1);
        connect(&mut core, later, 20, "", &[(1, "tun2", 11), (2, "tun3", 12)]);
        let instead = core.drop_superseded(&[link(20, 1)]);
        core.judge_superseded(later, instead);
        assert!(
            core.bridges.contains_key(&DatapathId(1)) && core.held.len() == 1,
            "one link of two may have been laid anew"
        );
        let instead = core.drop_superseded(&[link(20, 1), link(20, 2)]);
        core.judge_superseded(later, instead);
        assert!(!core.bridges.contains_key(&DatapathId(1)) && core.held.is_empty());
    }
}
