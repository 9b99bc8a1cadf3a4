//! Containers: namespaces with a cable to a bridge.
//!
//! Tenants use the same IP and MAC addresses on purpose, so that nothing but the port tells them apart.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::frame::Mac;
use crate::netns::Netns;
use crate::process;
use crate::topology::{Lab, no_offload, words};

/// The MTU inside: what fits into the underlay with any tunnel's headers.
const MTU: u32 = 1450;
/// The own end of the cable of the lab's containers.
const INTERFACE: &str = "eth0";

/// A container; a handle that stays valid for what it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its namespace.
    pub netns: Netns,
    /// Its own end of the cable.
    pub interface: String,
    /// The host it is on, from 1.
    pub host: usize,
    /// The bridge it is attached to.
    pub bridge: String,
    /// The bridge's port.
    pub port: String,
    /// Whose it is; none if its port is named after no tenant.
    pub tenant: Option<String>,
    /// Its MAC address.
    pub mac: Mac,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
}

impl Container {
    /// `ip` commands that lay the cable, for the host's namespace.
    pub(crate) fn cable(&self, (near, far): (u32, u32)) -> String {
        let Self { port, mac, netns, .. } = self;
        format!(
            "link add name {port} index {near} type veth peer name {INTERFACE} index {far} address {mac} netns {}\n\
             link set {port} up\n",
            netns.name()
        )
    }

    /// Sets up the container's own end.
    pub(crate) fn configure(&self) -> Result<()> {
        let lines = format!(
            "link set lo up\nlink set {INTERFACE} mtu {MTU} addrgenmode none\naddr add {}/24 dev {INTERFACE}\n\
             addr add {}/64 dev {INTERFACE} nodad\nlink set {INTERFACE} up\n",
            self.ipv4, self.ipv6
        );
        self.netns.run(|| {
            process::feed(Command::new("ip").args(["-batch", "-"]), &lines)?;
            no_offload(INTERFACE)
        })
    }

    /// What makes the bridge's port, in `ovs-vsctl`'s words.
    pub(crate) fn port_commands(&self, number: Option<usize>) -> Vec<String> {
        let mut commands = words(&format!("-- add-port {} {}", self.bridge, self.port));
        if let Some(number) = number {
            commands.extend(words(&format!("-- set interface {} ofport_request={number}", self.port)));
        }
        commands
    }
}

impl Lab {
    /// The containers that the spec asks for.
    pub(crate) fn planned_containers(&self) -> Vec<Container> {
        let spec = &self.spec;
        let mut containers = Vec::new();
        for host in 1..=spec.hosts {
            for tenant in &spec.tenants {
                for index in 1..=spec.containers {
                    let address = (host - 1) * spec.containers + index;
                    let port = format!("{}-{index}", tenant.name);
                    let bridge = spec.bridge_of(&tenant.name).unwrap_or("br0");
                    // `Spec::check` keeps addresses below 251.
                    containers.push(self.describe(host, bridge, &port, u8::try_from(address).unwrap_or(u8::MAX)));
                }
            }
        }
        containers
    }

    fn describe(&self, host: usize, bridge: &str, port: &str, address: u8) -> Container {
        let tenant = port.split_once('-').map(|(tenant, _)| tenant).filter(|t| self.spec.key_of(t).is_some());
        Container {
            netns: Netns::named(format!("{}-h{host}-{port}", self.id)),
            interface: INTERFACE.to_owned(),
            host,
            bridge: bridge.to_owned(),
            port: port.to_owned(),
            tenant: tenant.map(str::to_owned),
            mac: Mac::numbered(address),
            ipv4: Ipv4Addr::new(10, 0, 0, address),
            ipv6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(address)),
        }
    }

    /// All containers.
    pub fn containers(&self) -> Vec<Container> {
        self.containers_mut().clone()
    }

    /// All containers of a tenant.
    pub fn tenant(&self, tenant: &str) -> Vec<Container> {
        self.containers_mut().iter().filter(|c| c.tenant.as_deref() == Some(tenant)).cloned().collect()
    }

    /// The container at a port of a host, such as `(1, "green-1")`.
    pub fn container(&self, host: usize, port: &str) -> Result<Container> {
        let found = self.containers_mut().iter().find(|c| c.host == host && c.port == port).cloned();
        found.with_context(|| format!("h{host} has no container at a port `{port}`"))
    }

    /// Attaches one more container. A port whose name begins with no tenant's is one that no policy lists. The
    /// last number of all its addresses is `address`; fields of the result may be compared, not changed.
    pub fn add_container(&self, host: usize, bridge: &str, port: &str, address: u8) -> Result<Container> {
        ensure!(port.len() <= 15, "`{port}` is longer than the 15 characters that Linux allows for an interface");
        let mut container = self.describe(host, bridge, port, address);
        let taken = |netns: &Netns| self.containers_mut().iter().any(|c| c.netns == *netns);
        let first = container.netns.name().to_owned();
        for attempt in 2.. {
            if !taken(&container.netns) {
                break;
            }
            container.netns = Netns::named(format!("{first}-{attempt}"));
        }
        process::output(Command::new("ip").args(["netns", "add", container.netns.name()]))?;
        self.attach(&container)?;
        self.containers_mut().push(container.clone());
        Ok(container)
    }

    /// Removes a container, its port and all.
    pub fn remove_container(&self, container: &Container) -> Result<()> {
        self.detach(container)?;
        self.containers_mut().retain(|c| c.netns != container.netns);
        process::output(Command::new("ip").args(["netns", "del", container.netns.name()])).map(drop)
    }

    /// Moves a container to the bridge of the same name on another host; it keeps its addresses and its namespace.
    pub fn move_container(&self, container: &Container, host: usize) -> Result<Container> {
        let port = (1..)
            .map(|number| format!("{}-m{number}", container.tenant.as_deref().unwrap_or("stray")))
            .find(|port| self.container(host, port).is_err());
        let port = port.context("no port name is free")?;
        let moved = Container { host, port, ..container.clone() };
        self.detach(container)?;
        self.attach(&moved)?;
        for known in self.containers_mut().iter_mut().filter(|known| known.netns == container.netns) {
            *known = moved.clone();
        }
        Ok(moved)
    }

    fn attach(&self, container: &Container) -> Result<()> {
        let host = self.host(container.host)?;
        host.netns.ip_batch(&container.cable(self.indexes()))?;
        host.netns.run(|| no_offload(&container.port))?;
        container.configure()?;
        host.vsctl(&container.port_commands(None)).map(drop)
    }

    fn detach(&self, container: &Container) -> Result<()> {
        let host = self.host(container.host)?;
        host.vsctl(&["--if-exists", "del-port", &container.bridge, &container.port])?;
        host.netns.ip_batch(&format!("link del {}\n", container.port))
    }

    /// Gives the containers of each tenant permanent entries for one another, so that a test measures the network
    /// and not when a container asks for a neighbour again (up to 1 s after a long outage).
    pub fn pin_neighbours(&self) -> Result<()> {
        let containers = self.containers();
        for container in &containers {
            let peers = containers.iter().filter(|peer| peer.tenant == container.tenant && peer.mac != container.mac);
            let lines = peers.fold(String::new(), |lines, peer| {
                let (Container { ipv4, ipv6, mac, .. }, interface) = (peer, &container.interface);
                lines
                    + &format!("neigh replace {ipv4} lladdr {mac} dev {interface} nud permanent\n")
                    + &format!("neigh replace {ipv6} lladdr {mac} dev {interface} nud permanent\n")
            });
            container.netns.ip_batch(&lines)?;
        }
        Ok(())
    }
}
