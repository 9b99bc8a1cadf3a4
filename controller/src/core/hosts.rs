//! Who is where: hosts learnt from the first frame that each sends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use apps::view::{Endpoint, Host, Hosts};
use openflow::types::{DatapathId, MacAddr, PortNo};
use serde::{Deserialize, Serialize};

use super::{Core, Effect};

/// IP addresses that are remembered of one host.
const IPS: usize = 16;

/// A host stays where it moved to for at least this long, however many frames claim otherwise.
const REST: Duration = Duration::from_secs(1);

/// A learnt host.
#[derive(Clone, Debug)]
pub(crate) struct Learnt {
    pub(crate) host: Host,
    pub(crate) ips: BTreeSet<IpAddr>,
    /// When a frame of it was last known to come in; `None`: not since it was read from a bridge's tables.
    pub(crate) seen: Option<Instant>,
    came: Instant,
}

/// A host's IP addresses, kept over restarts: bridges' tables tell where it is, but not those.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressed {
    /// Its tenant.
    pub tenant: String,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Datapath id of its bridge.
    pub bridge: u64,
    /// Number of its port.
    pub port: u32,
    /// The addresses.
    pub ips: Vec<IpAddr>,
}

/// So many hosts' addresses are kept.
const KEPT: usize = 65_536;

/// They are kept at most this often.
const KEEP: Duration = Duration::from_secs(5);

/// What came of a frame's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A new host, or one that was silent.
    New,
    /// It was elsewhere.
    Moved(Endpoint),
    /// Nothing that entries depend on.
    Known,
    /// It was elsewhere a moment ago.
    TooSoon(Endpoint),
    /// Its port has as many hosts as it may have.
    Full,
}

/// All learnt hosts, by tenant.
#[derive(Debug, Default)]
pub(crate) struct HostTable {
    tenants: BTreeMap<String, BTreeMap<MacAddr, Learnt>>,
    counts: BTreeMap<Endpoint, usize>,
    /// Some host got an address since they were last kept.
    addressed: bool,
}

impl HostTable {
    /// A frame with this source entered at a port of the tenant.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        tenant: &str,
        mac: MacAddr,
        place: Endpoint,
        ip: Option<IpAddr>,
        max: u32,
    ) -> Outcome {
        let known = self.tenants.get_mut(tenant).and_then(|hosts| hosts.get_mut(&mac));
        if let Some(learnt) = known {
            let old = learnt.host;
            if old.place == place {
                learnt.seen = Some(now);
                learnt.host.fresh = true;
                if let Some(ip) = ip.filter(|_| learnt.ips.len() < IPS) {
                    self.addressed |= learnt.ips.insert(ip);
                }
                return if old.fresh { Outcome::Known } else { Outcome::New };
            }
            if now.duration_since(learnt.came) < REST {
                return Outcome::TooSoon(old.place);
            }
        }
        if !self.room(tenant, place, max) {
            return Outcome::Full;
        }
        let old = self.remove(tenant, mac);
        self.addressed |= ip.is_some();
        self.insert(now, tenant, mac, Host { place, fresh: true }, ip.into_iter().collect());
        old.map_or(Outcome::New, |old| Outcome::Moved(old.host.place))
    }

    /// Puts a host where a bridge's tables say that it is, unless more is known, or its port has as many as it may have.
    pub(crate) fn recover(
        &mut self,
        now: Instant,
        tenant: &str,
        mac: MacAddr,
        host: Host,
        ips: BTreeSet<IpAddr>,
        max: u32,
    ) {
        let known = self.tenants.get(tenant).is_some_and(|hosts| hosts.contains_key(&mac));
        let room = self.counts.get(&host.place).copied().unwrap_or(0) < max as usize;
        if !known && room {
            self.insert(now, tenant, mac, host, ips);
            // A place that was read may be an old one; a frame from elsewhere counts at once.
            if let Some(learnt) = self.tenants.get_mut(tenant).and_then(|hosts| hosts.get_mut(&mac)) {
                (learnt.came, learnt.seen) = (now.checked_sub(REST).unwrap_or(now), None);
            }
        }
    }

    /// Frames of a host came in.
    pub(crate) fn seen(&mut self, now: Instant, tenant: &str, mac: MacAddr, place: Endpoint) {
        let host = self.tenants.get_mut(tenant).and_then(|hosts| hosts.get_mut(&mac));
        host.filter(|learnt| learnt.host.place == place).into_iter().for_each(|learnt| learnt.seen = Some(now));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.tenants.values().map(BTreeMap::len).sum()
    }

    fn insert(&mut self, now: Instant, tenant: &str, mac: MacAddr, host: Host, ips: BTreeSet<IpAddr>) {
        let learnt = Learnt { host, ips, seen: Some(now), came: now };
        if self.tenants.entry(tenant.to_owned()).or_default().insert(mac, learnt).is_none() {
            *self.counts.entry(host.place).or_default() += 1;
        }
    }

    /// Is there room for one more at a port? A host that has long been silent gives way.
    fn room(&mut self, tenant: &str, place: Endpoint, max: u32) -> bool {
        if self.counts.get(&place).copied().unwrap_or(0) < max as usize {
            return true;
        }
        let hosts = self.tenants.get(tenant).into_iter().flatten();
        let silent = hosts.filter(|(_, learnt)| learnt.host.place == place && !learnt.host.fresh);
        let Some(mac) = silent.min_by_key(|(_, learnt)| learnt.seen).map(|(mac, _)| *mac) else { return false };
        self.remove(tenant, mac);
        true
    }

    fn remove(&mut self, tenant: &str, mac: MacAddr) -> Option<Learnt> {
        let old = self.tenants.get_mut(tenant)?.remove(&mac)?;
        if let Some(count) = self.counts.get_mut(&old.host.place) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&old.host.place);
            }
        }
        Some(old)
    }

    /// A host has sent nothing for so long that its bridge no longer takes it as known.
    pub(crate) fn silent(&mut self, tenant: &str, mac: MacAddr, place: Endpoint) -> bool {
        let host = self.tenants.get_mut(tenant).and_then(|hosts| hosts.get_mut(&mac));
        host.filter(|learnt| learnt.host.place == place).is_some_and(|learnt| std::mem::take(&mut learnt.host.fresh))
    }

    /// Places are called otherwise; `None`: they are gone.
    pub(crate) fn relocate(&mut self, now_at: impl Fn(Endpoint) -> Option<Endpoint>) {
        self.retain(|_, learnt| now_at(learnt.host.place).is_some());
        self.counts.clear();
        for learnt in self.tenants.values_mut().flat_map(BTreeMap::values_mut) {
            learnt.host.place = now_at(learnt.host.place).unwrap_or(learnt.host.place);
            *self.counts.entry(learnt.host.place).or_default() += 1;
        }
    }

    /// Keeps only hosts for which `keep` holds. Gives the tenants that lost some.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&str, &Learnt) -> bool) -> BTreeSet<String> {
        let mut lost = BTreeSet::new();
        for (tenant, hosts) in &mut self.tenants {
            hosts.retain(|_, learnt| {
                let stays = keep(tenant, learnt);
                if !stays {
                    lost.insert(tenant.clone());
                }
                stays
            });
        }
        if !lost.is_empty() {
            self.tenants.retain(|_, hosts| !hosts.is_empty());
            self.counts.clear();
            for learnt in self.tenants.values().flat_map(BTreeMap::values) {
                *self.counts.entry(learnt.host.place).or_default() += 1;
            }
        }
        lost
    }

    /// A tenant's hosts with what is known of them.
    pub(crate) fn of(&self, tenant: &str) -> impl Iterator<Item = (&MacAddr, &Learnt)> {
        self.tenants.get(tenant).into_iter().flatten()
    }

    /// A tenant's hosts as the compiler wants them.
    pub(crate) fn places(&self, tenant: &str) -> Hosts {
        self.of(tenant).map(|(mac, learnt)| (*mac, learnt.host)).collect()
    }
}

impl Core {
    /// When hosts' addresses have to be kept.
    pub(super) fn keep_hosts_at(&self) -> Option<Instant> {
        self.hosts.addressed.then_some(self.hosts_kept + KEEP)
    }

    /// Keeps hosts' addresses, if it is time: those that are known, and those of bridges that aren't back yet.
    pub(super) fn keep_hosts(&mut self, now: Instant) {
        if self.keep_hosts_at().is_none_or(|due| now < due) {
            return;
        }
        (self.hosts_kept, self.hosts.addressed) = (now, false);
        let known = self.hosts.tenants.iter().flat_map(|(tenant, hosts)| hosts.iter().map(move |it| (tenant, it)));
        let known = known.filter(|(_, (_, learnt))| !learnt.ips.is_empty());
        let known = known.map(|(tenant, (mac, learnt))| Addressed {
            tenant: tenant.clone(),
            mac: mac.0,
            bridge: learnt.host.place.bridge.0,
            port: learnt.host.place.port.0,
            ips: learnt.ips.iter().copied().collect(),
        });
        let away = |it: &&Addressed| !self.bridges.get(&DatapathId(it.bridge)).is_some_and(|bridge| bridge.was_read);
        let awaited = self.memory.hosts.iter().filter(away).cloned();
        self.memory.hosts = known.chain(awaited).take(KEPT).collect();
        self.effects.push(Effect::Save(self.memory.clone()));
    }

    /// The addresses that hosts of a bridge had before, where they are still at the same port.
    pub(super) fn kept_addresses(&self, dpid: DatapathId) -> BTreeMap<(String, MacAddr, PortNo), BTreeSet<IpAddr>> {
        let here = self.memory.hosts.iter().filter(|it| it.bridge == dpid.0);
        let key = |it: &Addressed| it.ips.iter().copied().take(IPS).collect();
        here.map(|it| ((it.tenant.clone(), MacAddr(it.mac), PortNo(it.port)), key(it))).collect()
    }
}

/// The sender's IP address, as far as the beginning of a frame tells: ARP (RFC 826), IPv4, IPv6.
pub(crate) fn sender(frame: &[u8]) -> Option<IpAddr> {
    let mut at = 12;
    let ethertype = loop {
        let kind = u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?);
        at += 2;
        match kind {
            // A tag: two octets, then the next type.
            0x8100 | 0x88a8 => at += 2,
            kind => break kind,
        }
    };
    let octets = |from: usize, n: usize| frame.get(at + from..at + from + n);
    // What a header says of itself has to be right: addresses of other kinds or lengths are elsewhere.
    let ip = match (ethertype, octets(0, 6)?) {
        (0x0806, [0, 1, 8, 0, 6, 4]) => IpAddr::from(<[u8; 4]>::try_from(octets(14, 4)?).ok()?),
        (0x0800, [0x45..=0x4f, ..]) => IpAddr::from(<[u8; 4]>::try_from(octets(12, 4)?).ok()?),
        (0x86dd, [0x60..=0x6f, ..]) => IpAddr::from(<[u8; 16]>::try_from(octets(8, 16)?).ok()?),
        _ => return None,
    };
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u32) -> Endpoint {
        Endpoint { bridge: DatapathId(1), port: PortNo(port) }
    }
    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    #[test]
    fn a_full_port_hinders_no_other_and_silent_hosts_give_way() {
        let (mut table, now) = (HostTable::default(), Instant::now());
        for last in 0..3 {
            assert_eq!(table.learn(now, "green", mac(last), place(1), None, 3), Outcome::New);
        }
        assert_eq!(table.learn(now, "green", mac(9), place(1), None, 3), Outcome::Full);
        assert_eq!(table.learn(now, "green", mac(9), place(2), None, 3), Outcome::New);
        assert!(table.silent("green", mac(1), place(1)));
        assert_eq!(table.places("green")[&mac(1)].place, place(1), "silent hosts are still reached");
        assert_eq!(table.learn(now, "green", mac(8), place(1), None, 3), Outcome::New);
        assert!(!table.places("green").contains_key(&mac(1)));
    }

    #[test]
    fn tables_that_are_read_back_fill_no_port_beyond_its_bound() {
        let (mut table, now) = (HostTable::default(), Instant::now());
        for last in 0..100 {
            table.recover(now, "green", mac(last), Host { place: place(1), fresh: true }, BTreeSet::new(), 3);
        }
        table.recover(now, "green", mac(200), Host { place: place(2), fresh: false }, BTreeSet::new(), 3);
        assert_eq!(table.places("green").into_keys().collect::<Vec<_>>(), [mac(0), mac(1), mac(2), mac(200)]);
    }

    #[test]
    fn a_host_moves_but_not_all_the_time() {
        let (mut table, now) = (HostTable::default(), Instant::now());
        assert_eq!(table.learn(now, "green", mac(1), place(1), None, 9), Outcome::New);
        assert_eq!(table.learn(now, "green", mac(1), place(2), None, 9), Outcome::TooSoon(place(1)));
        let later = now + REST;
        assert_eq!(table.learn(later, "green", mac(1), place(2), None, 9), Outcome::Moved(place(1)));
        assert_eq!(table.learn(later, "green", mac(1), place(1), None, 9), Outcome::TooSoon(place(2)));
        assert_eq!(table.learn(later, "orange", mac(1), place(3), None, 9), Outcome::New, "tenants are apart");
    }

    #[test]
    fn the_sender_is_read_from_arp_ip_and_behind_tags_and_never_beyond_the_end() {
        let mut arp = vec![0u8; 12];
        arp.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 7]);
        assert_eq!(sender(&arp), Some(IpAddr::from([10, 0, 0, 7])));
        let mut tagged = arp.clone();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(sender(&tagged), Some(IpAddr::from([10, 0, 0, 7])));
        for end in 0..tagged.len() {
            assert_eq!(sender(&tagged[..end]), None);
        }
        assert_eq!(sender(&[0x81; 100]), None);
    }

    #[test]
    fn frames_that_lie_about_themselves_tell_no_sender() {
        let frame = |kind: [u8; 2], body: &[u8]| [&[2; 12][..], &kind, body].concat();
        let ip = |first: u8| [&[first][..], &[0; 11], &[10, 0, 0, 1], &[0; 200]].concat();
        assert_eq!(sender(&frame([8, 0], &ip(0x45))), Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(sender(&frame([8, 0], &ip(0x4f))), Some(IpAddr::from([10, 0, 0, 1])), "with options");
        for first in [0x40, 0x44, 0x35, 0x65, 0xff, 0] {
            assert_eq!(sender(&frame([8, 0], &ip(first))), None, "first octet {first:#04x}");
        }
        assert_eq!(sender(&frame([0x86, 0xdd], &ip(0x45))), None);
        for lengths in [[255, 255], [0, 0], [8, 4], [6, 16]] {
            let arp = [&[0, 1, 8, 0][..], &lengths, &[0, 1], &[9; 600]].concat();
            assert_eq!(sender(&frame([8, 6], &arp)), None, "{lengths:?}");
        }
        // Tags and labels without end.
        assert_eq!(sender(&frame([0x81, 0], &[0, 1, 0x88, 0xa8].repeat(200))), None);
        assert_eq!(sender(&frame([0x88, 0x47], &[0, 0, 0x10, 64].repeat(300))), None);
        let tagged = [&[0, 1, 0x81, 0].repeat(199)[..], &[0, 1, 8, 0], &ip(0x45)].concat();
        assert_eq!(sender(&frame([0x81, 0], &tagged)), Some(IpAddr::from([10, 0, 0, 1])));
    }
}
