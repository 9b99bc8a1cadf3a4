//! Access rules: what may enter. A rule holds where a frame enters, for all its ways.

use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::Oxm;

use crate::chains::FIRST;
use crate::classifiers::expand;
use crate::desired::{Draft, drop, go};
use crate::pipeline::{CLASSIFY, RULES};
use crate::policy::{Tenant, Verdict};

const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const DISCOVERY: [u8; 4] = [133, 134, 135, 136];

/// Requests and answers without which no station finds another: ARP, and neighbour discovery of IPv6 (RFC 4861 §4), router
/// solicitations and advertisements included. They pass unless a rule says otherwise.
pub(crate) fn discovery() -> Vec<Vec<Oxm>> {
    let of_ipv6 =
        DISCOVERY.map(|kind| vec![Oxm::EthType(IPV6, None), Oxm::IpProto(ICMPV6, None), Oxm::Icmpv6Type(kind, None)]);
    [vec![Oxm::EthType(ARP, None)]].into_iter().chain(of_ipv6).collect()
}

/// The entries of a tenant's rules, the same at each bridge where it has ports.
pub(crate) fn compile(tenant: &Tenant) -> Vec<Draft> {
    let then = |verdict: Verdict| -> Vec<Instruction> {
        match verdict {
            Verdict::Allow => go(CLASSIFY),
            Verdict::Drop => drop(),
        }
    };
    let mut drafts = Vec::new();
    for (rank, rule) in (0..).zip(&tenant.rules) {
        for matching in expand(&rule.classifiers, true) {
            let (priority, origin) = (FIRST - rank, rule.origin.clone());
            drafts.push(Draft { table: RULES, priority, matching, instructions: then(rule.action), origin });
        }
    }
    let mut otherwise = |priority, fields: Vec<Oxm>, verdict| {
        let (matching, origin) = (Match::new(fields), tenant.origin.clone());
        drafts.push(Draft { table: RULES, priority, matching, instructions: then(verdict), origin });
    };
    if tenant.default == Verdict::Drop {
        discovery().into_iter().for_each(|fields| otherwise(2, fields, Verdict::Allow));
    }
    otherwise(1, Vec::new(), tenant.default);
    drafts
}
