//! Fields of the specification under the names that Open vSwitch had for them before (`ovs-fields(7)`). It tells these where
//! actions name fields, and takes them in matches as the same fields. They are kept as they came.

/// Another name of a field.
pub(super) struct Alias {
    /// `nxm_class`.
    class: u16,
    /// `nxm_field`.
    id: u8,
    /// Octets of its value.
    pub(super) octets: u8,
    /// The name.
    pub(super) name: &'static str,
    /// The field's name in [`super::FIELDS`]; where it holds several fields in one, that of the first.
    pub(super) field: &'static str,
}

const fn of(class: u16, id: u8, octets: u8, name: &'static str, field: &'static str) -> Alias {
    Alias { class, id, octets, name, field }
}

const ALIASES: &[Alias] = &[
    of(0, 0, 2, "NXM_OF_IN_PORT", "in_port"),
    of(0, 1, 6, "NXM_OF_ETH_DST", "eth_dst"),
    of(0, 2, 6, "NXM_OF_ETH_SRC", "eth_src"),
    of(0, 3, 2, "NXM_OF_ETH_TYPE", "eth_type"),
    of(0, 4, 2, "NXM_OF_VLAN_TCI", "vlan_vid"),
    of(0, 5, 1, "NXM_OF_IP_TOS", "ip_dscp"),
    of(0, 6, 1, "NXM_OF_IP_PROTO", "ip_proto"),
    of(0, 7, 4, "NXM_OF_IP_SRC", "ipv4_src"),
    of(0, 8, 4, "NXM_OF_IP_DST", "ipv4_dst"),
    of(0, 9, 2, "NXM_OF_TCP_SRC", "tcp_src"),
    of(0, 10, 2, "NXM_OF_TCP_DST", "tcp_dst"),
    of(0, 11, 2, "NXM_OF_UDP_SRC", "udp_src"),
    of(0, 12, 2, "NXM_OF_UDP_DST", "udp_dst"),
    of(0, 13, 1, "NXM_OF_ICMP_TYPE", "icmpv4_type"),
    of(0, 14, 1, "NXM_OF_ICMP_CODE", "icmpv4_code"),
    of(0, 15, 2, "NXM_OF_ARP_OP", "arp_op"),
    of(0, 16, 4, "NXM_OF_ARP_SPA", "arp_spa"),
    of(0, 17, 4, "NXM_OF_ARP_TPA", "arp_tpa"),
    of(1, 16, 8, "NXM_NX_TUN_ID", "tunnel_id"),
    of(1, 17, 6, "NXM_NX_ARP_SHA", "arp_sha"),
    of(1, 18, 6, "NXM_NX_ARP_THA", "arp_tha"),
    of(1, 19, 16, "NXM_NX_IPV6_SRC", "ipv6_src"),
    of(1, 20, 16, "NXM_NX_IPV6_DST", "ipv6_dst"),
    of(1, 21, 1, "NXM_NX_ICMPV6_TYPE", "icmpv6_type"),
    of(1, 22, 1, "NXM_NX_ICMPV6_CODE", "icmpv6_code"),
    of(1, 23, 16, "NXM_NX_ND_TARGET", "ipv6_nd_target"),
    of(1, 24, 6, "NXM_NX_ND_SLL", "ipv6_nd_sll"),
    of(1, 25, 6, "NXM_NX_ND_TLL", "ipv6_nd_tll"),
    of(1, 27, 4, "NXM_NX_IPV6_LABEL", "ipv6_flabel"),
    of(1, 28, 1, "NXM_NX_IP_ECN", "ip_ecn"),
    of(1, 34, 2, "NXM_NX_TCP_FLAGS", "tcp_flags"),
];

/// The other name that a field has, by its header; its mask and length don't matter.
pub(super) fn find(header: u32) -> Option<&'static Alias> {
    let (class, id) = (header >> 16, (header >> 9 & 0x7f) as u8);
    ALIASES.iter().find(|alias| u32::from(alias.class) == class && alias.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oxm::FIELDS;

    #[test]
    fn every_other_name_is_one_of_a_field_and_no_field_itself() {
        for (at, alias) in ALIASES.iter().enumerate() {
            let info = FIELDS.iter().find(|info| info.name == alias.field).expect(alias.name);
            assert!(info.octets == alias.octets || alias.name == "NXM_OF_IN_PORT", "{}", alias.name);
            assert!(FIELDS.iter().all(|info| (info.class, info.id) != (alias.class, alias.id)), "{}", alias.name);
            assert!(ALIASES[..at].iter().all(|other| (other.class, other.id) != (alias.class, alias.id)));
        }
    }
}
