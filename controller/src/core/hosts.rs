//! Who is where: hosts learnt from the first frame that each sends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use apps::view::{Endpoint, Host, Hosts};
use openflow::types::MacAddr;

use super::trail::{Trail, Trouble};

/// IP addresses that are remembered of one host.
pub(super) const IPS: usize = 16;

/// A host stays where it moved to for at least this long, however many frames claim otherwise; then the last of them counts.
const REST: Duration = Duration::from_secs(1);

/// So many hosts that are claimed in turns at the same ports at once have no duplicate addresses: it is a loop.
const CROWD: usize = 2;

/// Of so many at most it is looked.
const LOOKED_AT: usize = 64;

/// A learnt host.
#[derive(Clone, Debug)]
pub(crate) struct Learnt {
    pub(crate) host: Host,
    pub(crate) ips: BTreeSet<IpAddr>,
    /// When a frame of it was last known to come in; `None`: not since it was read from a bridge's tables.
    pub(crate) seen: Option<Instant>,
    came: Instant,
    trail: Trail,
    contest: Option<Contest>,
}

/// Another port claims a host that has only just come to where it is. Until that is decided the host is known nowhere: each
/// of its frames is shown, whoever sends it.
#[derive(Clone, Copy, Debug)]
struct Contest {
    /// The last claim.
    place: Endpoint,
    ip: Option<IpAddr>,
    /// When it is decided.
    ends: Instant,
    /// How often the claimant changed.
    turns: u32,
}

/// A frame's source, and where it entered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) mac: MacAddr,
    pub(crate) place: Endpoint,
    pub(crate) ip: Option<IpAddr>,
    /// Tells frames apart.
    pub(crate) digest: u64,
}

impl Learnt {
    fn new(now: Instant, host: Host, claim: Claim) -> Self {
        let trail = Trail::new(now, host.place, claim.digest);
        Self { host, ips: claim.ip.into_iter().collect(), seen: Some(now), came: now, trail, contest: None }
    }
}

/// What came of a frame's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A new host, or one that was silent.
    New,
    /// It was elsewhere.
    Moved(Move),
    /// Nothing that entries depend on.
    Known,
    /// It came to where it is only just now. Who has it is decided when it has rested.
    Contested,
    /// Its port has as many hosts as it may have.
    Full,
}

/// A host that moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) from: Endpoint,
    pub(crate) to: Endpoint,
    /// It has been there lately.
    pub(crate) back: bool,
}

/// What came of claims to a host that had only just come to where it is.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(crate) tenant: String,
    pub(crate) mac: MacAddr,
    /// [`Outcome::Known`]: it stays.
    pub(crate) outcome: Outcome,
    /// Where it is to be.
    pub(crate) place: Endpoint,
    pub(crate) trouble: Option<(Trouble, Trail)>,
}

/// All learnt hosts, by tenant.
#[derive(Debug, Default)]
pub(crate) struct HostTable {
    pub(super) tenants: BTreeMap<String, BTreeMap<MacAddr, Learnt>>,
    counts: BTreeMap<Endpoint, usize>,
    /// Some host got an address since they were last kept.
    pub(super) addressed: bool,
    /// When contests are decided; some may be over already.
    contests: BTreeSet<(Instant, String, MacAddr)>,
}

impl HostTable {
    /// A frame with this source entered at a port of the tenant.
    pub(crate) fn learn(&mut self, now: Instant, tenant: &str, claim: Claim, max: u32) -> Outcome {
        let Claim { mac, place, ip, .. } = claim;
        let Some(learnt) = self.tenants.get_mut(tenant).and_then(|hosts| hosts.get_mut(&mac)) else {
            if !self.room(tenant, place, max) {
                return Outcome::Full;
            }
            self.addressed |= ip.is_some();
            self.insert(tenant, mac, Learnt::new(now, Host { place, fresh: true }, claim));
            return Outcome::New;
        };
        let old = learnt.host;
        let turn = learnt.trail.step(now, claim.place, claim.digest);
        if let Some(contest) = &mut learnt.contest {
            (contest.place, contest.ip) = (place, ip);
            contest.turns += u32::from(turn);
            return Outcome::Known;
        }
        if old.place == place {
            learnt.seen = Some(now);
            learnt.host.fresh = true;
            if let Some(ip) = ip.filter(|_| learnt.ips.len() < IPS) {
                self.addressed |= learnt.ips.insert(ip);
            }
            return if old.fresh { Outcome::Known } else { Outcome::New };
        }
        let ends = learnt.came + REST;
        if now < ends {
            learnt.contest = Some(Contest { place, ip, ends, turns: 1 });
            self.contests.insert((ends, tenant.to_owned(), mac));
            return Outcome::Contested;
        }
        self.move_to(now, tenant, claim, max)
    }

    /// Puts a known host elsewhere, if there is room.
    fn move_to(&mut self, now: Instant, tenant: &str, claim: Claim, max: u32) -> Outcome {
        let Claim { mac, place, .. } = claim;
        if !self.room(tenant, place, max) {
            return Outcome::Full;
        }
        let Some(old) = self.remove(tenant, mac) else { return Outcome::Known };
        self.addressed |= claim.ip.is_some();
        let trail = old.trail.moved();
        self.insert(tenant, mac, Learnt { trail, ..Learnt::new(now, Host { place, fresh: true }, claim) });
        Outcome::Moved(Move { from: old.host.place, to: place, back: trail.is_back() })
    }

    /// Is something wrong with a host that has just moved?
    pub(crate) fn trouble(&self, tenant: &str, mac: MacAddr) -> Option<(Trouble, Trail)> {
        let trail = self.tenants.get(tenant)?.get(&mac)?.trail;
        Some((trail.trouble(0, false)?, trail))
    }

    /// When [`HostTable::decide`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.contests.first().map(|(ends, ..)| *ends)
    }

    /// Hosts that have rested are where they were claimed last. `usable`: is a port still the tenant's, and up?
    pub(crate) fn decide(
        &mut self,
        now: Instant,
        max: impl Fn(&str) -> u32,
        usable: impl Fn(&str, Endpoint) -> bool,
    ) -> Vec<Decided> {
        let mut decided = Vec::new();
        while let Some((ends, tenant, mac)) = self.contests.pop_first() {
            if ends > now {
                self.contests.insert((ends, tenant, mac));
                break;
            }
            let Some(learnt) = self.tenants.get_mut(&tenant).and_then(|hosts| hosts.get_mut(&mac)) else { continue };
            let Some(contest) = learnt.contest.take_if(|contest| contest.ends == ends) else { continue };
            // It rests again, wherever it is.
            (learnt.came, learnt.seen) = (now, Some(now));
            let stays = contest.place == learnt.host.place || !usable(&tenant, contest.place);
            let Contest { place, ip, .. } = contest;
            let claim = Claim { mac, place, ip, digest: 0 };
            let outcome = if stays { Outcome::Known } else { self.move_to(now, &tenant, claim, max(&tenant)) };
            let trail = self.tenants.get(&tenant).and_then(|hosts| hosts.get(&mac)).map(|learnt| learnt.trail);
            let crowd = trail.is_some_and(|trail| self.fare_alike(&tenant, &trail).take(CROWD).count() + 1 >= CROWD);
            let trouble = trail.and_then(|trail| Some((trail.trouble(contest.turns, crowd)?, trail)));
            decided.push(Decided { tenant, mac, outcome, place, trouble });
        }
        decided
    }

    /// Further hosts of a tenant that are claimed in turns at the same ports right now, as far as they are soon decided.
    fn fare_alike<'a>(&'a self, tenant: &'a str, trail: &'a Trail) -> impl Iterator<Item = MacAddr> + 'a {
        let soon = self.contests.iter().take(LOOKED_AT).filter(move |(_, whose, _)| whose == tenant);
        soon.filter_map(move |(_, _, mac)| {
            let learnt = self.tenants.get(tenant)?.get(mac)?;
            let ports = learnt.trail.places().filter(|place| trail.places().any(|it| it == *place)).count();
            (ports > 1 && Trail::at_once(learnt.contest?.turns)).then_some(*mac)
        })
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
            let claim = Claim { mac, place: host.place, ip: None, digest: 0 };
            self.insert(tenant, mac, Learnt { ips, ..Learnt::new(now, host, claim) });
            // A place that was read may be an old one; a frame from elsewhere counts at once.
            if let Some(learnt) = self.tenants.get_mut(tenant).and_then(|hosts| hosts.get_mut(&mac)) {
                (learnt.came, learnt.seen) = (now.checked_sub(REST).unwrap_or(now), None);
            }
        }
    }

    /// Where a host is taken to be.
    pub(crate) fn place(&self, tenant: &str, mac: MacAddr) -> Option<Endpoint> {
        Some(self.tenants.get(tenant)?.get(&mac)?.host.place)
    }

    /// What came in by a port had gone out by another one: hosts that belong elsewhere were never there.
    pub(crate) fn forget_strays(&mut self, tenant: &str, place: Endpoint) {
        let mut strays = Vec::new();
        for (mac, learnt) in self.tenants.get_mut(tenant).into_iter().flatten() {
            learnt.contest.take_if(|contest| contest.place == place);
            let home = learnt.trail.places().next();
            if learnt.host.place == place && home != Some(place) {
                strays.push(*mac);
            }
        }
        for mac in strays {
            self.remove(tenant, mac);
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

    fn insert(&mut self, tenant: &str, mac: MacAddr, learnt: Learnt) {
        let place = learnt.host.place;
        if self.tenants.entry(tenant.to_owned()).or_default().insert(mac, learnt).is_none() {
            *self.counts.entry(place).or_default() += 1;
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
        self.retain(|_, place| now_at(place).is_some());
        self.counts.clear();
        let other = |place: &mut Endpoint| *place = now_at(*place).unwrap_or(*place);
        for learnt in self.tenants.values_mut().flat_map(BTreeMap::values_mut) {
            other(&mut learnt.host.place);
            learnt.trail.places_mut().for_each(&other);
            learnt.contest.iter_mut().for_each(|contest| other(&mut contest.place));
            *self.counts.entry(learnt.host.place).or_default() += 1;
        }
    }

    /// Keeps only hosts whose port is still `usable`; one that was claimed at another port just now is there. Gives the tenants
    /// whose hosts changed.
    pub(crate) fn retain(&mut self, usable: impl Fn(&str, Endpoint) -> bool) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for (tenant, hosts) in &mut self.tenants {
            hosts.retain(|_, learnt| {
                if usable(tenant, learnt.host.place) {
                    return true;
                }
                changed.insert(tenant.clone());
                let claim = learnt.contest.take().filter(|contest| usable(tenant, contest.place));
                if let Some(contest) = claim {
                    learnt.host.place = contest.place;
                    learnt.ips = contest.ip.into_iter().collect();
                    self.addressed = true;
                }
                claim.is_some()
            });
        }
        if !changed.is_empty() {
            self.tenants.retain(|_, hosts| !hosts.is_empty());
            self.counts.clear();
            for learnt in self.tenants.values().flat_map(BTreeMap::values) {
                *self.counts.entry(learnt.host.place).or_default() += 1;
            }
        }
        changed
    }

    /// A tenant's hosts with what is known of them.
    pub(crate) fn of(&self, tenant: &str) -> impl Iterator<Item = (&MacAddr, &Learnt)> {
        self.tenants.get(tenant).into_iter().flatten()
    }

    /// A tenant's hosts as the compiler wants them.
    pub(crate) fn places(&self, tenant: &str) -> Hosts {
        let host = |learnt: &Learnt| Host { fresh: learnt.host.fresh && learnt.contest.is_none(), ..learnt.host };
        self.of(tenant).map(|(mac, learnt)| (*mac, host(learnt))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openflow::types::{DatapathId, PortNo};

    fn place(port: u32) -> Endpoint {
        Endpoint { bridge: DatapathId(1), port: PortNo(port) }
    }
    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    fn claim(last: u8, port: u32) -> Claim {
        Claim { mac: mac(last), place: place(port), ip: None, digest: 0 }
    }

    #[test]
    fn a_full_port_hinders_no_other_and_silent_hosts_give_way() {
        let (mut table, now) = (HostTable::default(), Instant::now());
        for last in 0..3 {
            assert_eq!(table.learn(now, "green", claim(last, 1), 3), Outcome::New);
        }
        assert_eq!(table.learn(now, "green", claim(9, 1), 3), Outcome::Full);
        assert_eq!(table.learn(now, "green", claim(9, 2), 3), Outcome::New);
        assert!(table.silent("green", mac(1), place(1)));
        assert_eq!(table.places("green")[&mac(1)].place, place(1), "silent hosts are still reached");
        assert_eq!(table.learn(now, "green", claim(8, 1), 3), Outcome::New);
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

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn decide(table: &mut HostTable, now: Instant) -> Vec<(Outcome, Option<Trouble>)> {
        let decided = table.decide(now, |_| 9, |_, place| place.port != PortNo(9));
        decided.into_iter().map(|it| (it.outcome, it.trouble.map(|(trouble, _)| trouble))).collect()
    }

    fn moved(from: u32, to: u32, back: bool) -> Outcome {
        Outcome::Moved(Move { from: place(from), to: place(to), back })
    }

    #[test]
    fn a_host_moves_at_once_and_rests_and_then_is_where_it_was_claimed_last() {
        let (mut table, start) = (HostTable::default(), Instant::now());
        assert_eq!(table.learn(start, "green", claim(1, 1), 9), Outcome::New);
        let now = start + REST;
        assert_eq!(table.learn(now, "green", claim(1, 2), 9), moved(1, 2, false));
        assert_eq!(table.learn(now, "orange", claim(1, 3), 9), Outcome::New, "tenants are apart");
        assert!(table.places("green")[&mac(1)].fresh);
        assert_eq!(table.learn(now + MS(400), "green", claim(1, 1), 9), Outcome::Contested);
        assert!(!table.places("green")[&mac(1)].fresh, "all of its frames are shown until that is decided");
        assert_eq!(table.deadline(), Some(now + REST));
        assert_eq!(decide(&mut table, now + MS(999)), []);
        assert_eq!(decide(&mut table, now + REST), [(moved(2, 1, true), None)]);
        assert_eq!((table.places("green")[&mac(1)].place, table.deadline()), (place(1), None));
        // It rests again, and this time it is back before that is over.
        assert_eq!(table.learn(now + MS(1100), "green", claim(1, 2), 9), Outcome::Contested);
        assert_eq!(table.learn(now + MS(1200), "green", claim(1, 1), 9), Outcome::Known);
        assert_eq!(decide(&mut table, now + MS(2000)), [(Outcome::Known, None)]);
        assert_eq!(table.places("green")[&mac(1)], Host { place: place(1), fresh: true });
        // A port that is no longer the tenant's gets nobody; one that a host has left for another goes without it.
        assert_eq!(table.learn(now + MS(20_000), "green", claim(1, 2), 9), moved(1, 2, false));
        assert_eq!(table.learn(now + MS(20_100), "green", claim(1, 9), 9), Outcome::Contested);
        assert_eq!(decide(&mut table, now + MS(21_000)), [(Outcome::Known, None)]);
        assert_eq!(table.learn(now + MS(21_100), "green", claim(1, 1), 9), Outcome::Contested);
        table.retain(|_, place| place.port != PortNo(2));
        assert_eq!(table.places("green")[&mac(1)], Host { place: place(1), fresh: true });
        assert_eq!(decide(&mut table, now + MS(23_000)), []);
        assert_eq!(table.counts, BTreeMap::from([(place(1), 1), (place(3), 1)]));
    }

    /// What claims within one rest come to: who claims, and by which frame.
    fn fought(claims: &[(u8, u32, u64)]) -> Vec<(Outcome, Option<Trouble>)> {
        let (mut table, start) = (HostTable::default(), Instant::now());
        let hosts: BTreeSet<u8> = claims.iter().map(|(host, ..)| *host).collect();
        for host in hosts {
            table.learn(start, "green", claim(host, 1), 9);
        }
        for (&(host, port, digest), at) in claims.iter().zip(1..) {
            table.learn(start + MS(at * 20), "green", Claim { digest, ..claim(host, port) }, 9);
        }
        decide(&mut table, start + REST)
    }

    #[test]
    fn two_hosts_with_one_address_are_told_from_a_loop() {
        let told = |claims: &[(u8, u32, u64)]| fought(claims).into_iter().map(|(_, it)| it).collect::<Vec<_>>();
        let twice = [(1, 2, 1), (1, 1, 2), (1, 2, 3), (1, 1, 4), (1, 2, 5)];
        assert_eq!(fought(&twice), [(moved(1, 2, true), Some(Trouble::Twice))]);
        assert_eq!(told(&twice[..3]), [None], "there and back and there");
        let reflected = [(1, 2, 1), (1, 1, 2), (1, 2, 2), (1, 1, 3), (1, 2, 3)];
        assert_eq!(told(&reflected), [Some(Trouble::Loop)], "the same frames");
        let third = [(1, 2, 1), (1, 3, 2), (1, 1, 3), (1, 3, 4), (1, 2, 5)];
        assert_eq!(told(&third), [Some(Trouble::Loop)], "three ports");
        let many: Vec<_> = (1..=2).flat_map(|host| twice.map(|(_, port, digest)| (host, port, digest))).collect();
        assert_eq!(told(&many)[..1], [Some(Trouble::Loop)], "two hosts at the same two ports");
        let once: Vec<_> = (1..=3).map(|host| (host, 2, host.into())).collect();
        assert_eq!(fought(&once), [(moved(1, 2, false), None); 3], "three hosts behind a bond that fails over");
    }

    #[test]
    fn who_moves_again_and_again_is_told_and_who_rests_is_forgiven() {
        let (mut table, start) = (HostTable::default(), Instant::now());
        let mut troubles = Vec::new();
        for (second, port) in [0, 3, 6, 9, 12, 15, 18, 42, 45].into_iter().zip([1, 2].into_iter().cycle()) {
            table.learn(start + MS(1000 * second), "green", claim(1, port), 9);
            troubles.push(table.trouble("green", mac(1)).map(|(trouble, _)| trouble));
        }
        let none = [None; 6].into_iter();
        assert_eq!(troubles, none.chain([Some(Trouble::Restless), None, None]).collect::<Vec<_>>());
    }

    #[test]
    fn contests_are_bounded_by_hosts_and_end() {
        let (mut table, start) = (HostTable::default(), Instant::now());
        for round in 0..50 {
            for host in 0..9 {
                table.learn(start + MS(round), "green", claim(host, 1 + (round as u32 + u32::from(host)) % 5), 9);
            }
        }
        assert_eq!(table.contests.len(), 9);
        assert_eq!(decide(&mut table, start + REST + MS(60)).len(), 9);
        assert_eq!(table.deadline(), None);
    }
}
