//! Building the lab: namespaces, the underlay, the control network, hosts, bridges and links.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use crate::container::Container;
use crate::host::{self, Host};
use crate::link::{Link, LinkEnd, links};
use crate::netns::Netns;
use crate::spec::{Bridge, Spec, Switching};
use crate::{leftovers, process};

/// The controller's address in the control network.
pub(crate) const CONTROLLER: &str = "172.16.0.254";
/// The port OpenFlow is spoken on.
pub(crate) const OPENFLOW_PORT: u16 = 6653;
/// The host's end of its cable to the underlay.
pub(crate) const UPLINK: &str = "uplink";
/// The host's end of its cable to the controller.
pub(crate) const CONTROL: &str = "control";
/// Tunnel headers must fit beside the 1450 bytes that containers send.
pub(crate) const UNDERLAY_MTU: u32 = 1600;

/// A running lab; dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    /// What all its names begin with.
    pub id: String,
    pub(crate) spec: Spec,
    pub(crate) dir: PathBuf,
    pub(crate) hub: Netns,
    pub(crate) control: Netns,
    pub(crate) controller_netns: Netns,
    hosts: Vec<Host>,
    links: Vec<Link>,
    containers: Mutex<Vec<Container>>,
    next_index: AtomicU32,
}

impl Lab {
    /// Builds a lab and waits until its bridges are there.
    pub fn start(spec: &Spec) -> Result<Self> {
        host::require_open_vswitch()?;
        spec.check()?;
        let (id, dir) = leftovers::claim()?;
        let netns = |name: &str| Netns::named(format!("{id}-{name}"));
        let mut lab = Self {
            hub: netns("hub"),
            control: netns("control"),
            controller_netns: netns("controller"),
            spec: spec.clone(),
            hosts: Vec::new(),
            links: links(spec),
            containers: Mutex::default(),
            next_index: AtomicU32::new(10_000),
            id,
            dir,
        };
        // From here on a failure drops the lab, and with it whatever was made so far.
        lab.build().context("the lab didn't come up")?;
        Ok(lab)
    }

    fn build(&mut self) -> Result<()> {
        let database = Host::make_database(&self.dir)?;
        for number in 1..=self.spec.hosts {
            let netns = Netns::named(format!("{}-h{number}", self.id));
            self.hosts.push(Host::prepare(&self.dir, number, netns, &database)?);
        }
        let containers = self.planned_containers();
        let mut names = vec![&self.hub, &self.control, &self.controller_netns];
        names.extend(self.hosts.iter().map(|host| &host.netns));
        names.extend(containers.iter().map(|container| &container.netns));
        let lines = names.iter().fold(String::new(), |lines, name| lines + "netns add " + name.name() + "\n");
        process::feed(Command::new("ip").args(["-batch", "-"]), &lines)?;

        self.lay_networks()?;
        self.lay_wires()?;
        let lab = &*self;
        thread::scope(|scope| {
            let starting: Vec<_> = lab
                .hosts
                .iter()
                .map(|host| {
                    let here: Vec<_> = containers.iter().filter(|c| c.host == host.number).collect();
                    scope.spawn(move || lab.build_host(host, &here))
                })
                .collect();
            starting.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        *self.containers_mut() = containers;
        Ok(())
    }

    /// The underlay, and the network between the controller and the hosts: a Linux bridge each.
    fn lay_networks(&self) -> Result<()> {
        let mut hub = String::from("link add name hub type bridge mcast_snooping 0\nlink set hub up\n");
        let mut control = String::from("link add name control type bridge mcast_snooping 0\nlink set control up\n");
        let mut cutters = String::new();
        for host in &self.hosts {
            let (number, netns) = (host.number, host.netns.name());
            // The two ends of a cable get different indexes: equal ones report a loss of carrier late.
            if self.spec.carrier.tunnel_type().is_some() {
                let _ = writeln!(
                    hub,
                    "link add name h{number} index {} mtu {UNDERLAY_MTU} type veth peer name {UPLINK} index {} \
                     mtu {UNDERLAY_MTU} netns {netns}\nlink set h{number} master hub up",
                    1000 + number,
                    2000 + number
                );
                // Where frames to a host can be thrown away without any carrier being lost: see fault.rs.
                let _ = writeln!(cutters, "qdisc add dev h{number} root handle 1: htb");
                let _ = writeln!(cutters, "class add dev h{number} parent 1: classid 1:1 htb rate 10gbit");
                let _ = writeln!(cutters, "qdisc add dev h{number} parent 1:1 handle 2: blackhole");
            }
            let _ = writeln!(
                control,
                "link add name h{number} index {} type veth peer name {CONTROL} index {} netns {netns}\n\
                 link set h{number} master control up",
                1000 + number,
                3000 + number
            );
        }
        let _ = writeln!(
            control,
            "link add name controller index 1500 type veth peer name {CONTROL} index 3500 netns {}\n\
             link set controller master control up",
            self.controller_netns.name()
        );
        for netns in [&self.hub, &self.control] {
            netns.run(silence)?;
        }
        self.hub.ip_batch(&hub)?;
        self.hub.tc_batch(&cutters)?;
        self.control.ip_batch(&control)?;
        self.controller_netns
            .ip_batch(&format!("link set lo up\naddr add {CONTROLLER}/24 dev {CONTROL}\nlink set {CONTROL} up\n"))
    }

    /// Cables from bridge to bridge, if links are cables.
    fn lay_wires(&self) -> Result<()> {
        if self.spec.carrier.tunnel_type().is_some() {
            return Ok(());
        }
        for host in &self.hosts {
            let mut lines = String::new();
            for link in self.links.iter().filter(|link| link.a.host == host.number) {
                let (near, far) = self.indexes();
                let (a, b, netns) = (&link.a.port, &link.b.port, self.hosts[link.b.host - 1].netns.name());
                let _ = writeln!(
                    lines,
                    "link add name {a} index {near} mtu {UNDERLAY_MTU} type veth peer name {b} index {far} \
                     mtu {UNDERLAY_MTU} netns {netns}"
                );
            }
            host.netns.ip_batch(&lines)?;
        }
        Ok(())
    }

    fn build_host(&self, host: &Host, containers: &[&Container]) -> Result<()> {
        host.netns.run(silence)?;
        host.start()?;
        let mut lines =
            format!("link set lo up\naddr add 172.16.0.{}/24 dev {CONTROL}\nlink set {CONTROL} up\n", host.number);
        let mut cables: Vec<&str> = Vec::new();
        if self.spec.carrier.tunnel_type().is_some() {
            let _ = writeln!(lines, "link set {UPLINK} up");
            cables.push(UPLINK);
        } else {
            for end in self.link_ends(host.number) {
                let _ = writeln!(lines, "link set {} up", end.port);
                cables.push(&end.port);
            }
        }
        for container in containers {
            lines.push_str(&container.cable(self.indexes()));
        }
        cables.extend(containers.iter().map(|container| container.port.as_str()));
        host.netns.ip_batch(&lines)?;
        host.netns.run(|| cables.iter().try_for_each(|cable| no_offload(cable)))?;
        for container in containers {
            container.configure()?;
        }
        host.vsctl(&self.bridge_commands(host, containers))?;
        self.address_underlay(host)
    }

    /// One transaction that makes all bridges and ports of a host.
    fn bridge_commands(&self, host: &Host, containers: &[&Container]) -> Vec<String> {
        // A switch of the lab has little to do; the default is some threads for each core of the machine.
        let mut commands =
            words("set Open_vSwitch . other_config:n-handler-threads=1 other_config:n-revalidator-threads=1");
        if let Some(limit) = self.spec.vlan_limit {
            commands.push(format!("other_config:vlan-limit={limit}"));
        }
        if self.spec.carrier.tunnel_type().is_some() {
            let mac = underlay_mac(host.number);
            commands.extend(words(&format!(
                "-- add-br br-phy -- set bridge br-phy datapath_type=netdev fail_mode=standalone \
                 other_config:hwaddr={mac} -- set interface br-phy mtu_request={UNDERLAY_MTU} \
                 -- add-port br-phy {UPLINK} -- set interface {UPLINK} mtu_request={UNDERLAY_MTU}"
            )));
        }
        for bridge in self.spec.bridges(host.number) {
            commands.extend(self.one_bridge(&bridge));
        }
        for end in self.link_ends(host.number) {
            commands.extend(self.link_port(end));
        }
        for (number, container) in (1..).zip(containers) {
            commands.extend(container.port_commands(Some(number)));
        }
        commands
    }

    fn one_bridge(&self, bridge: &Bridge) -> Vec<String> {
        let Bridge { name, description, .. } = bridge;
        let (fail_mode, tree) = match self.spec.switching {
            Switching::Controller => ("secure", ""),
            Switching::Standalone => ("standalone", ""),
            Switching::Stp => ("standalone", "stp_enable=true"),
            Switching::StpFast => (
                "standalone",
                "stp_enable=true other_config:stp-hello-time=1 other_config:stp-max-age=6 \
                 other_config:stp-forward-delay=4",
            ),
            Switching::Rstp => ("standalone", "rstp_enable=true"),
        };
        // In one transaction with the ports: a bridge that forwards before its tree protocol is on storms at once.
        let mut commands = words(&format!(
            "-- add-br {name} -- set bridge {name} datapath_type=netdev fail_mode={fail_mode} protocols=OpenFlow13 \
             other_config:disable-in-band=true other_config:dp-desc={description} other_config:hwaddr={} \
             other_config:datapath-id={} {tree}",
            bridge_mac(bridge),
            bridge.dpid_hex()
        ));
        if self.spec.connect && self.spec.switching == Switching::Controller {
            commands.push("--".to_owned());
            commands.extend(connect_commands(name));
        }
        commands
    }

    /// What makes the port at one end of a link, in `ovs-vsctl`'s words.
    pub(crate) fn link_port(&self, end: &LinkEnd) -> Vec<String> {
        let LinkEnd { bridge, port, .. } = end;
        let mut commands = words(&format!("-- add-port {bridge} {port}"));
        let Some((link, peer)) = self.links.iter().find_map(|link| Some((link, link.other(end)?.host))) else {
            return commands;
        };
        commands.extend(words(&format!("-- set interface {port} ofport_request={}", 1000 + peer)));
        if let Some(kind) = self.spec.carrier.tunnel_type() {
            let key = link.tenant.as_deref().and_then(|tenant| self.spec.key_of(tenant));
            let key = key.map_or("flow".to_owned(), |key| key.to_string());
            commands.extend(words(&format!("type={kind} options:remote_ip={} options:key={key}", underlay_ip(peer))));
            if let Some(interval) = self.spec.bfd_ms {
                commands.extend(words(&format!("bfd:enable=true bfd:min_rx={interval} bfd:min_tx={interval}")));
            }
        }
        commands
    }

    /// Gives the underlay bridge its address and its neighbours, which ovs-vswitchd may forget when it ends.
    pub(crate) fn address_underlay(&self, host: &Host) -> Result<()> {
        if self.spec.carrier.tunnel_type().is_none() {
            return Ok(());
        }
        let address = underlay_ip(host.number);
        host.netns.ip_batch(&format!("addr replace {address}/24 dev br-phy\nlink set br-phy up\n"))?;
        // Without them a tunnel drops the packets that make it ask for the neighbour.
        for peer in (1..=self.spec.hosts).filter(|peer| *peer != host.number) {
            host.appctl("tnl/neigh/set", &["br-phy", &underlay_ip(peer), &underlay_mac(peer)])?;
        }
        Ok(())
    }

    /// A fresh pair of interface indexes.
    pub(crate) fn indexes(&self) -> (u32, u32) {
        let first = self.next_index.fetch_add(2, Ordering::Relaxed);
        (first, first + 1)
    }

    /// The address the controller listens at.
    pub fn controller_address(&self) -> String {
        self.further_address(0)
    }

    /// The same of a further controller.
    pub(crate) fn further_address(&self, number: u16) -> String {
        format!("{CONTROLLER}:{}", OPENFLOW_PORT + number)
    }

    /// The namespace the controller runs in.
    pub fn controller_netns(&self) -> &Netns {
        &self.controller_netns
    }

    /// Where logs and sockets are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was asked for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A host by its number, from 1.
    pub fn host(&self, number: usize) -> Result<&Host> {
        let host = number.checked_sub(1).and_then(|index| self.hosts.get(index));
        host.with_context(|| format!("the lab has the hosts 1 to {}, no {number}", self.hosts.len()))
    }

    /// All bridges that a controller sees.
    pub fn bridges(&self) -> Vec<Bridge> {
        (1..=self.spec.hosts).flat_map(|host| self.spec.bridges(host)).collect()
    }

    /// All links.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The link between two hosts that carries a tenant's traffic.
    pub fn link(&self, a: usize, b: usize, tenant: &str) -> Result<&Link> {
        let pair = (a.min(b), a.max(b));
        let bridge = self.spec.bridge_of(tenant)?;
        let found = self.links.iter().find(|link| (link.a.host, link.b.host) == pair && link.a.bridge == bridge);
        found.with_context(|| format!("no link joins h{a} and h{b} for {tenant}"))
    }

    pub(crate) fn link_ends(&self, host: usize) -> impl Iterator<Item = &LinkEnd> {
        self.links.iter().flat_map(|link| [&link.a, &link.b]).filter(move |end| end.host == host)
    }

    pub(crate) fn containers_mut(&self) -> MutexGuard<'_, Vec<Container>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a bridge where the controller is.
    pub fn connect(&self, bridge: &Bridge) -> Result<()> {
        self.host(bridge.host)?.vsctl(&connect_commands(&bridge.name)).map(drop)
    }

    /// Tells all bridges where the controller is.
    pub fn connect_all(&self) -> Result<()> {
        self.bridges().iter().try_for_each(|bridge| self.connect(bridge))
    }

    /// Tells all bridges of so many controllers.
    pub fn connect_to_all(&self, controllers: u16) -> Result<()> {
        let targets: Vec<String> =
            (0..controllers).map(|number| format!("tcp:{}", self.further_address(number))).collect();
        self.bridges().iter().try_for_each(|bridge| {
            let command = format!("set-controller {} {}", bridge.name, targets.join(" "));
            self.host(bridge.host)?.vsctl(&words(&command)).map(drop)
        })
    }

    /// Makes a bridge forget its controller; the channel is closed in order.
    pub fn disconnect(&self, bridge: &Bridge) -> Result<()> {
        self.host(bridge.host)?.vsctl(&["del-controller", &bridge.name]).map(drop)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in &self.hosts {
            host.kill();
        }
        if let Err(error) = leftovers::remove(&self.id, &self.dir) {
            eprintln!("lab {}: not all of it could be removed; `lab clean` tries again: {error:#}", self.id);
        }
    }
}

fn connect_commands(bridge: &str) -> Vec<String> {
    words(&format!(
        "set-controller {bridge} tcp:{CONTROLLER}:{OPENFLOW_PORT} -- set controller {bridge} max_backoff=1000 \
         connection_mode=out-of-band"
    ))
}

/// Splits a command line; nothing in the lab's commands has blanks of its own.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Keeps the kernel's own IPv6 chatter off the cables that end in the calling thread's namespace.
fn silence() -> Result<()> {
    for which in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        if Path::new(&path).exists() {
            fs::write(&path, "1").with_context(|| format!("writing {path} failed"))?;
        }
    }
    Ok(())
}

/// Makes the kernel fill in checksums: the userspace datapath passes them on as they are.
pub(crate) fn no_offload(interface: &str) -> Result<()> {
    process::output(Command::new("ethtool").args(["-K", interface, "tx", "off"])).map(drop)
}

pub(crate) fn underlay_ip(host: usize) -> String {
    format!("192.168.0.{host}")
}

fn underlay_mac(host: usize) -> String {
    format!("02:aa:00:00:00:{host:02x}")
}

fn bridge_mac(bridge: &Bridge) -> String {
    format!("02:bb:00:00:{:02x}:{:02x}", bridge.dpid >> 16, bridge.host)
}
