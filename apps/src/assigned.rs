//! Numbers that frames bear, as IEEE and IANA have assigned them.

/// Ethernet types.
pub mod ethertype {
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A tag for a VLAN (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A tag for a service VLAN (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// What begins with another tag.
    pub const TAGS: [u16; 2] = [VLAN, SERVICE_VLAN];
}

/// Types of ICMPv6 messages (RFC 4861 §4).
pub mod icmpv6 {
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
}

/// IP protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// Fragment header of IPv6.
    pub const IPV6_FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
