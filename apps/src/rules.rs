//! Access rules: what may enter. A rule holds where a frame enters, for all its ways.

use openflow::instruction::Instruction;
use openflow::matching::Match;
use openflow::oxm::Oxm;

use crate::chains::FIRST;
use crate::classifiers::expand;
use crate::desired::{Draft, drop, go};
use crate::pipeline::{CLASSIFY, RULES};
use crate::policy::{Tenant, Verdict};

/// Requests and answers without which no station finds another: ARP, and neighbour discovery of IPv6 (RFC 4861 §4), router
/// solicitations and advertisements included. They pass unless a rule says otherwise.
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const DISCOVERY: [u8; 4] = [133, 134, 135, 136];

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
        otherwise(2, vec![Oxm::EthType(ARP, None)], Verdict::Allow);
        for kind in DISCOVERY {
            let fields = [Oxm::EthType(IPV6, None), Oxm::IpProto(ICMPV6, None), Oxm::Icmpv6Type(kind, None)];
            otherwise(2, fields.to_vec(), Verdict::Allow);
        }
    }
    otherwise(1, Vec::new(), tenant.default);
    drafts
}
