//! Where we differ from the source of a vector, and why.

/// Messages that we write otherwise than they came; their meaning stays.
pub(crate) const REWRITTEN: &[(&str, &str)] = &[
    ("os-ken/packets.txt: 4-4-ofp_packet_in", ORDER),
    ("os-ken/packets.txt: 4-59-ofp_packet_in", ORDER),
    ("os-ken/packets.txt: 4-60-ofp_flow_mod", ORDER),
    ("os-ken/packets.txt: ovs-ofctl-of13-match_conj", ORDER),
    ("ovs-tests/printed.txt: OFPT_FLOW_MOD - OF1.3 - flags - low verbosity", ORDER),
    (
        "ovs-ofctl/sent.txt: add-flow table=4,icmp6,icmpv6_type=136,icmpv6_code=0,nd_target=fe80::2,nd_reserved=0xe0000000,nd_options_type=2,actions=drop",
        ORDER,
    ),
    ("ovs-ofctl/sent.txt: add-flow table=4,mpls,mpls_label=1048575,mpls_tc=5,mpls_bos=1,actions=drop", ORDER),
    (
        "ovs-ofctl/sent.txt: add-flow table=4,eth_type=0x894f,nsh_flags=1,nsh_ttl=60,nsh_mdtype=1,nsh_np=3,nsh_spi=0x123456,nsh_si=254,actions=drop",
        ORDER,
    ),
    ("ovs-vswitchd/answered.txt: monitor -P standard (4)", ORDER),
    ("ovs-ofctl/sent.txt: add-flow table=4,tun_flags=+oam,actions=drop", "a mask of all bits that count is left out"),
    ("ovs-tests/printed.txt: FLOW_MONITOR request", "the length of a match is wrong in it, and nobody looks at it"),
];

const ORDER: &str = "fields come in another order";

/// Messages that Open vSwitch refuses for what they ask for. We keep values without a name as they are: whoever uses them
/// decides.
pub(crate) const KEPT: &[(&str, &str)] = &[
    ("ovs-tests/refused.txt: OFPT_METER_MOD request - bad band - OF1.3", "a kind of band without a name"),
    ("ovs-tests/refused.txt: OFPT_METER_MOD request - bad command - OF1.3", "a command without a name"),
    ("ovs-tests/refused.txt: OFPT_METER_MOD request - bad flags - OF1.3", "two units at once"),
    ("ovs-tests/refused.txt: flow_mod with bad OpenFlow13 actions: OFPBAC_BAD_SET_TYPE", "a field without a name"),
    ("ovs-tests/refused.txt: flow_mod with bad OpenFlow11 actions: OFPBIC_UNSUP_INST", "an instruction as an action"),
    ("ovs-tests/refused.txt: flow_mod with bad OpenFlow10 actions: OFPBIC_UNSUP_INST", "an instruction as an action"),
    ("ovs-tests/refused.txt: flow_mod with bad OpenFlow10 actions: OFPBAC_BAD_ARGUMENT", "force without commit"),
    ("ovs-tests/refused.txt: flow_mod with bad OpenFlow10 actions: OFPBAC_BAD_SET_LEN", "a zone of 8 bits"),
    ("ovs-tests/refused.txt: flow_mod with bad OpenFlow10 actions: OFPBAC_BAD_SET_LEN (2)", "a zone of 32 bits"),
    (
        "ovs-tests/refused.txt: flow_mod with bad OpenFlow10 actions: OFPBAC_BAD_SET_ARGUMENT",
        "a field that can't be set",
    ),
    (
        "ovs-tests/refused.txt: flow_mod with bad OpenFlow10 actions: OFPBAC_BAD_SET_ARGUMENT (2)",
        "a field that can't be set",
    ),
    ("ovs-tests/refused.txt: flow_mod with bad OpenFlow10 actions: OFPBAC_BAD_ARGUMENT (2)", "ct within ct"),
    (
        "ovs-tests/refused.txt: flow_mod with bad OpenFlow10 actions: OFPBAC_BAD_ARGUMENT (3)",
        "a field that ct can't set",
    ),
    (
        "ovs-tests/refused.txt: flow_mod with bad OpenFlow10 actions: OFPBAC_BAD_ARGUMENT (4)",
        "addresses of both versions",
    ),
];

/// Messages in a form that we don't read.
pub(crate) const ANOTHER_FORM: &[(&str, &str)] = &[(
    "os-ken/packets.txt: 4-63-onf_flow_monitor_request",
    "the ONF extension's text has bare fields there; Open vSwitch has a whole match, and refuses this",
)];
