//! What a trace is asked for, in an operator's terms, and the frame that this comes to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openflow::types::{DatapathId, MacAddr};
use serde::{Deserialize, Serialize};

use super::{Sent, Situation, port_named};
use crate::assigned::protocol;
use crate::interpreter::{Frame, Network, SYN, Transport};
use crate::policy::Tenant;
use crate::view::Endpoint;

/// Which frame to follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The tenant's name.
    pub tenant: String,
    /// Who sends it: a port by its name in the policy or as `bridge/port`, or a host by its MAC or IP address.
    pub from: String,
    /// To whom: the same, an address that nobody is known to have, or `broadcast`.
    pub to: String,
    /// What it carries.
    #[serde(default)]
    pub protocol: Protocol,
    /// Destination port; TCP and UDP have one, others don't.
    pub port: Option<u16>,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An echo request.
    #[default]
    Icmp,
    /// A request for the receiver's MAC address.
    Arp,
}

/// Why there is no frame to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Something that was named isn't there.
    NotFound(String),
    /// The request makes no sense.
    Invalid(String),
}

/// A frame to follow.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) from: Endpoint,
    /// Where it should arrive, if anybody knows.
    pub(super) to: Option<Endpoint>,
    pub(super) frame: Frame,
    pub(super) sent: Sent,
    pub(super) notes: Vec<String>,
}

/// An end of the way, as far as it is known.
#[derive(Debug)]
struct Party {
    place: Option<Endpoint>,
    mac: Option<MacAddr>,
    ips: Vec<IpAddr>,
}

/// Stands for a sender whose address isn't known.
const SOMEBODY: MacAddr = MacAddr([0x02, 0xe5, 0, 0, 0, 1]);

/// Where TCP and UDP are sent from: the first of the dynamic ports (RFC 6335 §6).
const SOURCE_PORT: u16 = 49152;

/// Both families' addresses of everybody on a link (RFC 919 §7, RFC 4291 §2.7.1).
const EVERYBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::BROADCAST), IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))];

impl Request {
    pub(super) fn resolve(&self, situation: &Situation) -> Result<Asked, Refusal> {
        match (self.protocol, self.port) {
            (Protocol::Tcp | Protocol::Udp, None) => {
                return Err(Refusal::Invalid("tcp and udp need the destination port; name it as \"port\"".into()));
            }
            (Protocol::Icmp | Protocol::Arp, Some(_)) => {
                return Err(Refusal::Invalid("icmp and arp have no port; leave \"port\" out".into()));
            }
            _ => {}
        }
        let tenant = situation.policy.tenants.iter().find(|tenant| tenant.name.eq_ignore_ascii_case(&self.tenant));
        let tenant =
            tenant.ok_or_else(|| Refusal::NotFound(format!("there is no tenant with the name \"{}\"", self.tenant)))?;
        let known = Known::new(situation, tenant);
        let from = known.party(&self.from)?;
        let Some(place) = from.place else {
            return Err(known.unknown(&self.from, "; nobody knows by which port that enters: name the port, too"));
        };
        let to = if self.to.eq_ignore_ascii_case("broadcast") {
            Party { place: None, mac: Some(MacAddr::BROADCAST), ips: EVERYBODY.to_vec() }
        } else {
            known.party(&self.to)?
        };
        self.frame(situation, place, &from, &to)
    }

    fn frame(&self, situation: &Situation, from: Endpoint, sender: &Party, to: &Party) -> Result<Asked, Refusal> {
        let mut notes = Vec::new();
        let source = sender.mac.unwrap_or_else(|| {
            notes.push(format!("no host is known at {}; {SOMEBODY} stands for one", self.from));
            SOMEBODY
        });
        let destination = match (self.protocol, to.mac) {
            (Protocol::Arp, _) => MacAddr::BROADCAST,
            (_, Some(mac)) => mac,
            (_, None) => {
                let hint = "name its MAC address, or ask for arp";
                return Err(Refusal::NotFound(format!("no host is known that is meant by \"{}\"; {hint}", self.to)));
            }
        };
        let ended =
            |ips: &[IpAddr], wanted: Family| ips.iter().copied().find(|ip| ip.is_ipv6() == (wanted == Family::V6));
        let family = self.family(sender, to);
        let mut address = |party: &Party, name: &str| {
            ended(&party.ips, family).unwrap_or_else(|| {
                let any = family.unspecified();
                notes.push(format!(
                    "no {family} address of {name} is known, {any} stands for it: entries may tell them apart"
                ));
                any
            })
        };
        let addresses = (address(sender, &self.from), address(to, &self.to));
        let port = self.port.unwrap_or_default();
        let ports = |flags| Transport::Ports { source: SOURCE_PORT, destination: port, flags };
        let (number, transport) = match (self.protocol, family) {
            (Protocol::Tcp, _) => (protocol::TCP, ports(SYN)),
            (Protocol::Udp, _) => (protocol::UDP, ports(0)),
            (_, Family::V4) => (protocol::ICMP, Transport::Icmp { kind: 8, code: 0, target: None, link_layer: None }),
            (_, Family::V6) => {
                (protocol::ICMPV6, Transport::Icmp { kind: 128, code: 0, target: None, link_layer: None })
            }
        };
        let network = match addresses {
            (IpAddr::V4(spa), IpAddr::V4(tpa)) if self.protocol == Protocol::Arp => {
                Network::Arp { op: 1, sha: source, spa, tpa }
            }
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Network::Ipv4 { source, destination, protocol: number, transport }
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Network::Ipv6 { source, destination, protocol: number, transport }
            }
            _ => Network::Unknown,
        };
        let carries = match self.protocol {
            Protocol::Arp => format!("arp: {} asks who has {}", addresses.0, addresses.1),
            Protocol::Icmp => format!("icmp echo request from {} to {}", addresses.0, addresses.1),
            Protocol::Tcp | Protocol::Udp => {
                let name = if self.protocol == Protocol::Tcp { "tcp" } else { "udp" };
                format!("{name} from {} port {SOURCE_PORT} to {} port {port}", addresses.0, addresses.1)
            }
        };
        if !situation.converged {
            notes.push("not every bridge holds yet what it should; this is the way once it does".into());
        }
        let sent = Sent {
            from: situation.place(from),
            source: source.to_string(),
            destination: destination.to_string(),
            carries,
        };
        let ethertype = network.ethertype().unwrap_or_default();
        let frame = Frame { destination, source, ethertype, network, ..Frame::default() };
        Ok(Asked { from, to: to.place, frame, sent, notes })
    }

    /// The family that both have addresses of, else the only one that one has.
    fn family(&self, from: &Party, to: &Party) -> Family {
        let has = |party: &Party, v6: bool| party.ips.iter().any(|ip| ip.is_ipv6() == v6);
        let only_v6 = |party: &Party| has(party, true) && !has(party, false);
        let both_v4 = has(from, false) && has(to, false);
        if self.protocol != Protocol::Arp
            && !both_v4
            && (only_v6(to) || only_v6(from) || has(from, true) && has(to, true))
        {
            Family::V6
        } else {
            Family::V4
        }
    }
}

/// A version of IP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// What is known of a tenant's ports and hosts.
struct Known<'a> {
    situation: &'a Situation,
    tenant: &'a Tenant,
    /// Pinned hosts first.
    hosts: Vec<(MacAddr, Endpoint, Vec<IpAddr>)>,
}

impl<'a> Known<'a> {
    fn new(situation: &'a Situation, tenant: &'a Tenant) -> Self {
        let ports = situation.attachments.of_tenant(&tenant.name);
        let mut hosts: Vec<_> = ports.filter_map(|(place, port)| Some((port.mac?, place, port.ip.clone()))).collect();
        let pinned = hosts.len();
        for (mac, station) in situation.hosts.get(&tenant.name).into_iter().flatten() {
            if !hosts[..pinned].iter().any(|(other, ..)| other == mac) {
                hosts.push((*mac, station.place, station.ips.clone()));
            }
        }
        Self { situation, tenant, hosts }
    }

    /// Whom a text means.
    fn party(&self, text: &str) -> Result<Party, Refusal> {
        if let Ok(mac) = text.parse::<MacAddr>() {
            let host = self.hosts.iter().find(|(other, ..)| *other == mac);
            return Ok(match host {
                Some((_, place, ips)) => Party { place: Some(*place), mac: Some(mac), ips: ips.clone() },
                None => Party { place: None, mac: Some(mac), ips: Vec::new() },
            });
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            if let Some((mac, place, _)) = self.hosts.iter().find(|(.., ips)| ips.contains(&ip)) {
                return Ok(Party { place: Some(*place), mac: Some(*mac), ips: vec![ip] });
            }
            // A port may be pinned to an IP address alone.
            let pinned = self.ports().find(|(_, port)| port.ip.contains(&ip)).map(|(place, _)| place);
            let mac = pinned.and_then(|place| self.at(place).mac);
            return Ok(Party { place: pinned, mac, ips: vec![ip] });
        }
        if let Some((bridge, port)) = text.split_once('/') {
            let view = &self.situation.view;
            let named = view.bridges.iter().find(|(_, it)| it.name.eq_ignore_ascii_case(bridge)).map(|(dpid, _)| *dpid);
            let dpid = named.or_else(|| bridge.parse::<DatapathId>().ok());
            let place = dpid.and_then(|dpid| port_named(view, dpid, port));
            let mine = place.filter(|place| self.ports().any(|(other, _)| other == *place));
            return mine.map(|place| self.at(place)).ok_or_else(|| self.unknown(text, ""));
        }
        let named =
            self.ports().find(|(_, port)| port.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(text)));
        named.map(|(place, _)| self.at(place)).ok_or_else(|| self.unknown(text, ""))
    }

    fn ports(&self) -> impl Iterator<Item = (Endpoint, &'a crate::policy::PortSelector)> {
        self.situation.attachments.of_tenant(&self.tenant.name)
    }

    /// Whoever is at a port.
    fn at(&self, place: Endpoint) -> Party {
        let pinned =
            self.ports().find(|(other, _)| *other == place).map(|(_, port)| port.ip.clone()).unwrap_or_default();
        let host = self.hosts.iter().find(|(_, other, _)| *other == place);
        let seen = host.map(|(.., ips)| ips.clone()).unwrap_or_default();
        let ips = if pinned.is_empty() { seen } else { pinned };
        Party { place: Some(place), mac: host.map(|(mac, ..)| *mac), ips }
    }

    fn unknown(&self, text: &str, hint: &str) -> Refusal {
        let forms = "a port is named as in the policy or as bridge/port, a host by its MAC or IP address";
        Refusal::NotFound(format!("tenant {} has no port or host \"{text}\"{hint}; {forms}", self.tenant.name))
    }
}
