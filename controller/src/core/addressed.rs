//! Hosts' IP addresses, kept over restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use openflow::types::{DatapathId, MacAddr, PortNo};
use serde::{Deserialize, Serialize};

use super::hosts::IPS;
use super::{Core, Effect};

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
