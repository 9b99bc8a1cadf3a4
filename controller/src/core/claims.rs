//! Frames that aren't let in because they claim to be of somebody else: who sends them, and what to do about it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use apps::policy::Tenant;
use apps::view::Endpoint;
use openflow::types::MacAddr;

use super::Core;

/// More tags than this nobody reads.
const TAGS_MAX: usize = 4;

/// Who a frame says that its sender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Mac(MacAddr),
    Ip(IpAddr),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => mac.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// All that a frame says of its sender, as a station may read it: also where a bridge reads nothing.
fn claims(frame: &[u8]) -> BTreeSet<Claim> {
    let octets = |from: usize, n: usize| frame.get(from..from + n);
    let mac = |at: usize| Some(MacAddr(octets(at, 6)?.try_into().ok()?));
    let v4 = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets(at, 4)?).ok()?));
    let v6 = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets(at, 16)?).ok()?));
    let mut found: BTreeSet<Claim> = mac(6).map(Claim::Mac).into_iter().collect();
    let at = body(frame);
    match octets(at - 2, 2) {
        Some([0x08, 0x06]) => {
            found.extend(mac(at + 8).map(Claim::Mac));
            let asked = v4(at + 14).filter(|sender| !sender.is_unspecified()).or_else(|| v4(at + 24));
            found.extend(asked.map(|ip| Claim::Ip(ip.into())));
        }
        Some([0x08, 0x00]) => found.extend(v4(at + 12).map(|ip| Claim::Ip(ip.into()))),
        Some([0x86, 0xdd]) => {
            let source = v6(at + 8);
            found.extend(source.map(|ip| Claim::Ip(ip.into())));
            let icmp = at + 40;
            let message = octets(at + 6, 1).filter(|next| *next == [58]).and_then(|_| octets(icmp, 1)).map(|it| it[0]);
            // Whom a solicitation asks for is somebody else, unless its sender has no address yet (RFC 4862 §5.4.2).
            let probes = message == Some(135) && source.is_some_and(|ip| ip.is_unspecified());
            found.extend(v6(icmp + 8).filter(|_| probes || message == Some(136)).map(|ip| Claim::Ip(ip.into())));
            let mut option = icmp + 24;
            let options = matches!(message, Some(135 | 136));
            while let Some([kind, length]) = octets(option, 2).filter(|it| options && it[1] > 0) {
                found.extend(mac(option + 2).filter(|_| matches!(kind, 1 | 2)).map(Claim::Mac));
                option += 8 * usize::from(*length);
            }
        }
        _ => {}
    }
    found
}

/// What a frame is that only routers or DHCP servers may send, and the key by which the policy says so of a port.
fn offers(frame: &[u8]) -> Option<(&'static str, &'static str)> {
    let octets = |from: usize, n: usize| frame.get(from..from + n);
    let at = body(frame);
    let (protocol, inner) = match octets(at - 2, 2)? {
        [0x08, 0x00] => (octets(at + 9, 1)?[0], at + 4 * usize::from(octets(at, 1)?[0] & 0xf)),
        [0x86, 0xdd] => (octets(at + 6, 1)?[0], at + 40),
        _ => return None,
    };
    match (protocol, octets(inner, 4)?) {
        (58, [134, ..]) => Some(("router advertisements", "router")),
        (58, [137, ..]) => Some(("redirects", "router")),
        (17, [_, _, 0, 68] | [_, _, 2, 34]) => Some(("answers of a DHCP server", "dhcp_server")),
        _ => None,
    }
}

/// Where what a frame carries begins, behind its tags.
fn body(frame: &[u8]) -> usize {
    let tagged = |tag: usize| matches!(frame.get(12 + 4 * tag..14 + 4 * tag), Some([0x81, 0x00] | [0x88, 0xa8]));
    14 + 4 * (0..TAGS_MAX).take_while(|tag| tagged(*tag)).count()
}

/// Whom the policy gives an address to, in words.
fn holder(tenant: &Tenant, claim: Claim) -> Option<String> {
    let port = tenant.ports.iter().find(|port| match claim {
        Claim::Mac(mac) => port.macs().any(|it| it == mac),
        Claim::Ip(ip) => port.ips().any(|it| it == ip),
    });
    let instances = tenant.functions.iter().flat_map(|function| &function.instances);
    let mut instances = instances.filter(|instance| instance.mac.map(Claim::Mac) == Some(claim));
    let port = port.map(|port| format!("{}/{} ({})", port.bridge, port.port, port.origin));
    port.or_else(|| instances.next().map(|it| format!("instance {} ({})", it.name, it.origin)))
}

impl Core {
    /// A port sent what it may not send as.
    pub(super) fn claimed(&mut self, now: Instant, place: Endpoint, frame: &[u8]) {
        let Some(attached) = self.attachments.tenant(place) else { return };
        let Some(tenant) = self.policy.tenant(&attached.tenant) else { return };
        let (selector, port) =
            (&attached.selector, format!("{}, a port of tenant {}", self.port_name(place), tenant.name));
        let own = |claim: &Claim| match *claim {
            Claim::Mac(mac) => selector.macs().any(|it| it == mac),
            Claim::Ip(ip) => selector.ips().any(|it| it == ip),
        };
        let claims = claims(frame);
        let stolen = claims.iter().filter(|claim| !own(claim)).find_map(|claim| Some((claim, holder(tenant, *claim)?)));
        let made = claims.iter().find_map(|claim| match claim {
            Claim::Ip(IpAddr::V6(ip)) if ip.is_unicast_link_local() && !own(claim) => Some(*ip),
            _ => None,
        });
        let may = |key: &str| if key == "router" { selector.router } else { selector.dhcp_server };
        let offered = offers(frame).filter(|(_, key)| !may(key));
        let made = made.filter(|_| selector.ips().any(|ip| ip.is_ipv6()));
        let text = if let Some((claim, holder)) = stolen {
            format!(
                "{port}, sends as {claim}, which is pinned to {holder}: dropped; look who is behind the port, and give it an \
                 address of its own, or write the address as `shared_mac` or `shared_ip` at both ports if they share it"
            )
        } else if let Some((what, key)) = offered {
            format!(
                "{port}, sends {what}: dropped; look who is behind the port, or write {key} = true there ({}) if that is right",
                selector.origin
            )
        } else if let Some(ip) = made {
            format!(
                "{port}, says that it is {ip}, a link-local address that isn't made from its MAC address: dropped; write it in \
                 `ip` ({}), or have it made from the MAC address (sysctl -w net.ipv6.conf.INTERFACE.addr_gen_mode=0, then \
                 take the interface down and up)",
                selector.origin
            )
        } else {
            return;
        };
        self.problem(now, place.bridge, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(frame: &[u8]) -> Vec<String> {
        claims(frame).iter().map(Claim::to_string).collect()
    }

    fn arp(tags: &[u8], spa: [u8; 4], hardware: u8) -> Vec<u8> {
        let head = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], tags, &[8, 6, 0, hardware, 8, 0, 6, 4, 0, 2]].concat();
        [&head[..], &[2, 0, 0, 0, 0, 8], &spa, &[0; 6], &[10, 0, 0, 7]].concat()
    }

    #[test]
    fn arp_tells_source_sender_and_what_a_probe_asks_for_whatever_is_around_it() {
        let (nine, eight) = ("02:00:00:00:00:09", "02:00:00:00:00:08");
        assert_eq!(told(&arp(&[], [10, 0, 0, 1], 1)), [eight, nine, "10.0.0.1"]);
        assert_eq!(told(&arp(&[], [0; 4], 6)), [eight, nine, "10.0.0.7"]);
        assert_eq!(told(&arp(&[0x88, 0xa8, 0, 0, 0x81, 0, 0, 0], [10, 0, 0, 1], 1)), [eight, nine, "10.0.0.1"]);
        let whole = arp(&[0x81, 0, 0, 5], [10, 0, 0, 1], 1);
        for end in 0..whole.len() {
            assert!(told(&whole[..end]).len() <= 3);
        }
        assert_eq!(told(&[0x81; 60]), ["81:81:81:81:81:81"]);
    }

    fn discovery(kind: u8, source: u16, options: &[u8]) -> Vec<u8> {
        let ip = |last: u16| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).octets();
        let source = if source == 0 { [0; 16] } else { ip(source) };
        let head = [&[0x33; 6][..], &[2, 0, 0, 0, 0, 9], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 58, 255]].concat();
        [&head[..], &source, &ip(99), &[kind, 0, 0, 0, 0, 0, 0, 0], &ip(7), options].concat()
    }

    #[test]
    fn discovery_tells_targets_where_they_are_the_senders_and_all_options() {
        let (nine, eight) = ("02:00:00:00:00:09", "02:00:00:00:00:08");
        let twice = [[2, 1, 2, 0, 0, 0, 0, 9], [2, 1, 2, 0, 0, 0, 0, 8]].concat();
        assert_eq!(told(&discovery(136, 1, &twice)), [eight, nine, "fd00::1", "fd00::7"]);
        assert_eq!(told(&discovery(135, 1, &[1, 1, 2, 0, 0, 0, 0, 8])), [eight, nine, "fd00::1"]);
        assert_eq!(told(&discovery(135, 0, &[])), [nine, "::", "fd00::7"]);
        assert_eq!(told(&discovery(128, 1, &twice)), [nine, "fd00::1"]);
        // An option without length ends it.
        assert_eq!(told(&discovery(136, 1, &[0; 80])), [nine, "fd00::1", "fd00::7"]);
    }

    #[test]
    fn what_routers_and_servers_send_is_known_behind_tags_and_options() {
        assert_eq!(offers(&discovery(134, 1, &[])), Some(("router advertisements", "router")));
        assert_eq!(offers(&discovery(137, 1, &[])), Some(("redirects", "router")));
        assert_eq!(offers(&discovery(136, 1, &[])), None);
        let udp = |tags: &[u8], words: u8, to: u16| {
            let head = [&[0xff; 12][..], tags, &[8, 0, 0x40 | words, 0, 0, 0, 0, 0, 0, 0, 64, 17]].concat();
            let rest = vec![0; 4 * usize::from(words) - 10];
            [&head[..], &rest, &67_u16.to_be_bytes(), &to.to_be_bytes()].concat()
        };
        for frame in [udp(&[], 5, 68), udp(&[0x81, 0, 0, 5], 6, 68)] {
            assert_eq!(offers(&frame), Some(("answers of a DHCP server", "dhcp_server")));
            assert!((0..frame.len()).all(|end| offers(&frame[..end]).is_none()));
        }
        assert_eq!(offers(&udp(&[], 5, 67)), None);
    }
}
