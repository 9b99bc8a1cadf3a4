//! Who may send as whom, read from the policy itself, and whether the entries of the guard say no more than that.
//!
//! An entry that lets frames of a port go on is held against each place where a frame says who sends it. Either no frame that the
//! entry matches has that place, or the entry says what is there, and the policy lets the port say so; or it leaves it open. It
//! may do so only where the policy does, and for addresses that are pinned to others only if they are stopped by entries that are
//! asked before. No frame has to be sent for that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openflow::matching::Match;
use openflow::oxm::Oxm;
use openflow::types::{MacAddr, PortNo};

use super::entries::{Entry, Scan};
use super::guarded::guard_range;
use super::look::{Does, Seen};
use super::{Here, Property};
use crate::allocation::Numbers;
use crate::attachment::PortUse;
use crate::desired::FlowKey;
use crate::guard::link_local;
use crate::marks::metadata;
use crate::pipeline::LIMIT_PORT;
use crate::policy::{PortSelector, Tenant, Verdict};
use crate::view::Endpoint;

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;

/// A place where a frame says who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    EthSrc,
    ArpSha,
    NdSll,
    NdTll,
    Ipv4Src,
    ArpSpa,
    /// What a probe of ARP asks for, whose sender has no address yet.
    ArpProbe,
    Ipv6Src,
    NdTarget,
    /// The same in neighbour discovery.
    NdProbe,
    /// Nothing that a bridge could read, though stations do.
    Hidden(u8),
}

const PLACES: [Place; 10] = [
    Place::EthSrc,
    Place::ArpSha,
    Place::NdSll,
    Place::NdTll,
    Place::Ipv4Src,
    Place::ArpSpa,
    Place::ArpProbe,
    Place::Ipv6Src,
    Place::NdTarget,
    Place::NdProbe,
];
/// How many kinds of frames hide what they say.
const HIDDEN: u8 = 5;

/// What is said there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Station(MacAddr),
    Address(IpAddr),
    Nothing,
}

impl Place {
    /// The message of neighbour discovery that has it.
    const fn message(self) -> Option<u8> {
        match self {
            Self::NdSll | Self::NdProbe | Self::Hidden(1) => Some(135),
            Self::NdTll | Self::NdTarget | Self::Hidden(2) => Some(136),
            _ => None,
        }
    }

    /// The Ethernet type of frames that have it; `None`: all have.
    const fn ethertype(self) -> Option<u16> {
        match self {
            Self::EthSrc => None,
            Self::ArpSha | Self::ArpSpa | Self::ArpProbe | Self::Hidden(0) => Some(ARP),
            Self::Ipv4Src => Some(IPV4),
            Self::Hidden(3) => Some(0x8100),
            Self::Hidden(4..) => Some(0x88a8),
            _ => Some(IPV6),
        }
    }

    const fn is_station(self) -> bool {
        matches!(self, Self::EthSrc | Self::ArpSha | Self::NdSll | Self::NdTll)
    }

    /// What all frames that have it have, and no others.
    fn kind(self) -> Vec<Oxm> {
        let message = self.message().map(|kind| [Oxm::IpProto(ICMPV6, None), Oxm::Icmpv6Type(kind, None)]);
        let ethertype = self.ethertype().map(|it| Oxm::EthType(it, None));
        ethertype.into_iter().chain(message.into_iter().flatten()).collect()
    }

    /// What all frames that say this there have, and no others.
    fn frames(self, said: Said) -> Vec<Oxm> {
        let mut fields = self.kind();
        match (self, said) {
            (Self::EthSrc, Said::Station(mac)) => fields.push(Oxm::EthSrc(mac, None)),
            (Self::ArpSha, Said::Station(mac)) => fields.push(Oxm::ArpSha(mac, None)),
            (Self::NdSll, Said::Station(mac)) => fields.push(Oxm::Ipv6NdSll(mac, None)),
            (Self::NdTll, Said::Station(mac)) => fields.push(Oxm::Ipv6NdTll(mac, None)),
            (Self::Ipv4Src, Said::Address(IpAddr::V4(ip))) => fields.push(Oxm::Ipv4Src(ip, None)),
            (Self::ArpSpa, Said::Address(IpAddr::V4(ip))) => fields.push(Oxm::ArpSpa(ip, None)),
            (Self::ArpProbe, Said::Address(IpAddr::V4(ip))) => {
                fields.extend([Oxm::ArpSpa(Ipv4Addr::UNSPECIFIED, None), Oxm::ArpTpa(ip, None)]);
            }
            (Self::Ipv6Src, Said::Address(IpAddr::V6(ip))) => fields.push(Oxm::Ipv6Src(ip, None)),
            (Self::NdTarget, Said::Address(IpAddr::V6(ip))) => fields.push(Oxm::Ipv6NdTarget(ip, None)),
            (Self::NdProbe, Said::Address(IpAddr::V6(ip))) => {
                fields.extend([Oxm::Ipv6Src(Ipv6Addr::UNSPECIFIED, None), Oxm::Ipv6NdTarget(ip, None)]);
            }
            (Self::Hidden(0), _) => fields.push(Oxm::ArpOp(0, None)),
            (Self::Hidden(1 | 2), _) => fields.push(Oxm::Ipv6NdTarget(Ipv6Addr::UNSPECIFIED, None)),
            (Self::Hidden(_), _) => fields.push(Oxm::VlanVid(crate::links::tagged(0), None)),
            _ => {}
        }
        fields
    }

    /// What an entry's frames say there; `None`: it leaves that open.
    fn told(self, matching: &Match) -> Option<Said> {
        matching.fields().iter().find_map(|field| match (self, field) {
            (Self::EthSrc, Oxm::EthSrc(mac, None))
            | (Self::ArpSha, Oxm::ArpSha(mac, None))
            | (Self::NdSll, Oxm::Ipv6NdSll(mac, None))
            | (Self::NdTll, Oxm::Ipv6NdTll(mac, None)) => Some(Said::Station(*mac)),
            (Self::Ipv4Src, Oxm::Ipv4Src(ip, None))
            | (Self::ArpSpa, Oxm::ArpSpa(ip, None))
            | (Self::ArpProbe, Oxm::ArpTpa(ip, None)) => Some(Said::Address((*ip).into())),
            (Self::Ipv6Src, Oxm::Ipv6Src(ip, None)) | (Self::NdTarget | Self::NdProbe, Oxm::Ipv6NdTarget(ip, None)) => {
                Some(Said::Address((*ip).into()))
            }
            _ => None,
        })
    }

    /// Does a port say there what the policy lists for it, if it lists something?
    fn listed(self, matching: &Match, port: &PortSelector, own: &Pinned) -> bool {
        let told = self.told(matching);
        let nobody = matches!(told, Some(Said::Address(ip)) if ip.is_unspecified());
        match self {
            Self::Hidden(0..=2) => true,
            Self::Hidden(_) => port.ip.is_empty(),
            // An option that isn't there reads as zero.
            Self::ArpSha | Self::NdSll | Self::NdTll if port.ip.is_empty() => true,
            Self::NdSll | Self::NdTll if told == Some(Said::Station(MacAddr::default())) => true,
            _ if self.is_station() => port.mac.is_none() || told.is_some_and(|said| own.has(said)),
            _ if port.ip.is_empty() => true,
            // A probe: it asks for its own.
            Self::ArpSpa if nobody => Self::ArpProbe.listed(matching, port, own),
            Self::Ipv4Src | Self::Ipv6Src if nobody => unaddressed(matching),
            _ => told.is_some_and(|said| own.has(said)),
        }
    }

    /// Has none of an entry's frames it?
    fn is_absent(self, matching: &Match) -> bool {
        matching.fields().iter().any(|field| match field {
            Oxm::EthType(it, _) => self.ethertype().is_some_and(|wanted| wanted != *it),
            Oxm::IpProto(it, _) => self.message().is_some() && *it != ICMPV6,
            Oxm::Icmpv6Type(it, _) => self.message().is_some_and(|wanted| wanted != *it),
            Oxm::ArpSpa(ip, None) => self == Self::ArpProbe && !ip.is_unspecified(),
            Oxm::Ipv6Src(ip, None) => self == Self::NdProbe && !ip.is_unspecified(),
            _ => false,
        })
    }
}

/// What a tenant's policy gives to single ports.
#[derive(Default)]
struct Pinned {
    macs: BTreeSet<MacAddr>,
    ips: BTreeSet<IpAddr>,
}

impl Pinned {
    /// What a port may say, the addresses of links that are made from its MAC addresses included.
    fn of(port: &PortSelector) -> Self {
        let mut own = Self::default();
        own.add(port);
        if own.ips.iter().any(IpAddr::is_ipv6) {
            own.ips.extend(own.macs.iter().map(|mac| IpAddr::from(link_local(*mac))));
        }
        own
    }

    fn add(&mut self, port: &PortSelector) {
        self.macs.extend(port.macs());
        self.ips.extend(port.ips());
    }

    fn has(&self, said: Said) -> bool {
        match said {
            Said::Station(mac) => self.macs.contains(&mac),
            Said::Address(ip) => self.ips.contains(&ip),
            Said::Nothing => true,
        }
    }

    /// All that may be said there.
    fn at(&self, place: Place) -> Vec<Said> {
        let v4 = matches!(place, Place::Ipv4Src | Place::ArpSpa | Place::ArpProbe);
        match place {
            Place::Hidden(_) => vec![Said::Nothing],
            _ if place.is_station() => self.macs.iter().copied().map(Said::Station).collect(),
            _ => self.ips.iter().copied().filter(|ip| ip.is_ipv4() == v4).map(Said::Address).collect(),
        }
    }
}

/// What stops frames at a bridge, with its priorities.
struct Stops {
    by: BTreeMap<Match, u16>,
    /// Whose ports' frames, of those that entered.
    edge: Oxm,
}

impl Stops {
    fn of(&self, at: Oxm, fields: Vec<Oxm>) -> u16 {
        self.by.get(&Match::new(fields.into_iter().chain([at]))).copied().unwrap_or(0)
    }

    /// Of frames that say this there, from any port or from this one.
    fn said(&self, place: Place, said: Said, port: PortNo) -> u16 {
        let at = |at| self.of(at, place.frames(said));
        at(self.edge.clone()).max(at(Oxm::InPort(port, None)))
    }

    /// Of all frames of a port that have the place.
    fn shut(&self, place: Place, port: PortNo) -> u16 {
        self.of(Oxm::InPort(port, None), place.kind())
    }
}

impl Scan<'_, '_> {
    /// Holds what lets frames of the tenant's ports go on against what the policy says of them.
    pub(super) fn senders(&mut self, here: Here<'_>, tenant: &Tenant, numbers: Numbers) {
        let some = tenant.ports.iter().any(PortSelector::is_pinned);
        let mut all = Pinned::default();
        tenant.ports.iter().for_each(|port| all.add(port));
        let instances = tenant.functions.iter().flat_map(|function| &function.instances);
        all.macs.extend(instances.filter_map(|instance| instance.mac));
        let offers = offers(tenant);
        let looked_at = |port: &PortSelector| offers.iter().any(|(_, _, kept_from)| kept_from(port));
        let free = all.macs.is_empty() && all.ips.is_empty() && !tenant.ports.iter().any(looked_at);
        if !here.judged || free {
            return;
        }
        let edge = Oxm::Metadata(metadata::edge(numbers.key), Some(metadata::TENANT | metadata::EDGE));
        let mut stops = Stops { by: BTreeMap::new(), edge };
        let mut passes: Vec<(&FlowKey, PortNo)> = Vec::new();
        for (key, flow) in here.section.flows.range(guard_range()) {
            match (Does::of(&flow.instructions).goto, key.matching.in_port()) {
                (None, _) => drop(stops.by.insert(key.matching.clone(), key.priority)),
                (Some(LIMIT_PORT), Some(port)) => passes.push((key, port)),
                _ => {}
            }
        }
        let hidden = (0..HIDDEN).map(Place::Hidden);
        let places: Vec<Place> = PLACES.into_iter().chain(hidden).filter(|it| some || *it == Place::EthSrc).collect();
        // What is said first of all that is stopped at a port last; it is the same for many entries.
        let mut least: BTreeMap<(PortNo, Place), Option<(u16, Said)>> = BTreeMap::new();
        let mut found = Vec::new();
        for (key, port) in passes {
            let place = Endpoint { bridge: here.dpid, port };
            let PortUse::Tenant(attached) = self.checker.attachments.of(place) else { continue };
            let own = Pinned::of(&attached.selector);
            let closed = |fields: &[Oxm]| {
                let stopped = [stops.edge.clone(), Oxm::InPort(port, None)].map(|at| stops.of(at, fields.to_vec()));
                key.matching.fields().iter().any(|asked| fields.iter().any(|it| excludes(it, asked)))
                    || stopped.iter().max() > Some(&key.priority)
            };
            let mut kept = offers.iter().filter(|(_, _, kept_from)| kept_from(&attached.selector));
            if let Some((what, ..)) = kept.find(|(_, fields, _)| !closed(fields)) {
                found.push((key, format!("lets a port send {what}, which the policy doesn't say of it")));
                continue;
            }
            let shut = |place: Place| stops.shut(place, port) > key.priority;
            let open = |place: &&Place| !place.is_absent(&key.matching) && !shut(**place);
            if let Some(place) =
                places.iter().filter(open).find(|it| !it.listed(&key.matching, &attached.selector, &own))
            {
                found.push((key, format!("lets a port that is pinned say other than the policy lists, by {place:?}")));
                continue;
            }
            let lets_by = places.iter().filter(open).find_map(|place| {
                let lowest = match place.told(&key.matching) {
                    Some(said) if own.has(said) || !all.has(said) => None,
                    Some(said) => Some((stops.said(*place, said, port), said)),
                    None => *least.entry((port, *place)).or_insert_with(|| {
                        all.at(*place).into_iter().map(|said| (stops.said(*place, said, port), said)).min()
                    }),
                };
                lowest.filter(|(priority, _)| *priority <= key.priority).map(|(_, said)| (place, said))
            });
            if let Some((place, said)) = lets_by {
                found.push((key, format!("lets a port say {place:?} {said:?}, which is pinned elsewhere")));
            }
        }
        for (key, what) in found {
            let entry = Entry { here, key, seen: Seen::default(), does: Does::default() };
            self.tell(&entry, Property::Sender, &what);
        }
    }
}

/// Do both ask of the same field for different values?
fn excludes(one: &Oxm, other: &Oxm) -> bool {
    one.name() == other.name() && !one.is_masked() && !other.is_masked() && one != other
}

/// What is only sent from ports of which the policy says so: by whom, which frames, and which ports it is kept from.
type Offer = (&'static str, Vec<Oxm>, fn(&PortSelector) -> bool);

fn offers(tenant: &Tenant) -> Vec<Offer> {
    let icmp = |kind| vec![Oxm::EthType(IPV6, None), Oxm::IpProto(ICMPV6, None), Oxm::Icmpv6Type(kind, None)];
    let udp = |version, to| vec![Oxm::EthType(version, None), Oxm::IpProto(17, None), Oxm::UdpDst(to, None)];
    let others: fn(&PortSelector) -> bool = |port| !port.router;
    let pinned: fn(&PortSelector) -> bool = |port| !port.router && port.ips().any(|ip| ip.is_ipv6());
    let clients: fn(&PortSelector) -> bool = |port| !port.dhcp_server;
    let drops = tenant.default == Verdict::Drop;
    let (routers, servers) =
        (tenant.ports.iter().any(|port| port.router), tenant.ports.iter().any(|port| port.dhcp_server));
    let mut offers: Vec<Offer> =
        vec![("router advertisements", icmp(134), if drops || routers { others } else { pinned })];
    // Those name addresses in places that no bridge reads.
    if routers || tenant.ports.iter().any(PortSelector::is_pinned) {
        offers.push(("redirects", icmp(137), others));
    }
    if drops || servers {
        offers.push(("answers of a DHCP server", udp(IPV4, 68), clients));
        offers.push(("answers of a DHCPv6 server", udp(IPV6, 546), clients));
    }
    offers
}

/// What is said in other places has no address: a station that is about to get one (RFC 2131 §4.4.1, RFC 3376 §4.2.13, RFC 4861 §4.1,
/// RFC 3590 §4), or that asks whether somebody has it.
fn unaddressed(matching: &Match) -> bool {
    let has = |wanted: &[Oxm]| wanted.iter().all(|field| matching.fields().contains(field));
    let of_icmp = |kind| has(&[Oxm::IpProto(ICMPV6, None), Oxm::Icmpv6Type(kind, None)]);
    has(&[Oxm::IpProto(17, None), Oxm::UdpSrc(68, None), Oxm::UdpDst(67, None)])
        || has(&[Oxm::EthType(IPV4, None), Oxm::IpProto(2, None)])
        || [131, 132, 133, 135, 143].into_iter().any(of_icmp)
}
