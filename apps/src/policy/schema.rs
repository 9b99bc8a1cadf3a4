//! The keys of a policy file: what may be written where, with an example of each for messages.

/// A key.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// A line that shows how it is written.
    pub(super) example: &'static str,
}

/// The keys of one kind of table.
pub(super) struct Schema {
    /// How the table is begun, as messages show it.
    pub(super) header: &'static str,
    pub(super) keys: &'static [Key],
}

const fn key(name: &'static str, example: &'static str) -> Key {
    Key { name, example }
}

/// The file itself.
pub(super) const FILE: Schema = Schema {
    header: "the file itself",
    keys: &[
        key("version", "version = 1"),
        key("bridge", "[[bridge]]"),
        key("fabric", "[fabric]"),
        key("tenant", "[[tenant]]"),
    ],
};

/// `[[bridge]]`.
pub(super) const BRIDGE: Schema = Schema {
    header: "[[bridge]]",
    keys: &[key("name", "name = \"host1\""), key("dpid", "dpid = \"0000000000000001\"")],
};

/// `[fabric]`.
pub(super) const FABRIC: Schema = Schema {
    header: "[fabric]",
    keys: &[
        key("links", "links = [\"vxlan-*\"]"),
        key("probe_interval", "probe_interval = \"auto\""),
        key("probe_budget", "probe_budget = 5000"),
        key("drain", "drain = [{ bridge = \"host1\", port = \"vxlan-2\" }]"),
    ],
};

/// An entry of the fabric's `drain`.
pub(super) const DRAIN: Schema = Schema {
    header: "an entry of `drain`",
    keys: &[key("bridge", "bridge = \"host1\""), key("port", "port = \"vxlan-2\"")],
};

/// `[[tenant]]`.
pub(super) const TENANT: Schema = Schema {
    header: "[[tenant]]",
    keys: &[
        key("name", "name = \"green\""),
        key("key", "key = 100"),
        key("unknown_unicast", "unknown_unicast = \"flood\""),
        key("link_local", "link_local = \"drop\""),
        key("default", "default = \"allow\""),
        key("inner_vlans", "inner_vlans = \"drop\""),
        key("max_hosts", "max_hosts = 1024"),
        key("mtu", "mtu = 1450"),
        key("rate_limit", "rate_limit = \"200 Mbit/s\""),
        key("flood_limit", "flood_limit = \"2000 packet/s\""),
        key("ports", "ports = [{ bridge = \"*\", port = \"green-*\" }]"),
        key("function", "[[tenant.function]]"),
        key("chain", "[[tenant.chain]]"),
        key("rule", "[[tenant.rule]]"),
    ],
};

/// An entry of a tenant's `ports`.
pub(super) const PORT: Schema = Schema {
    header: "an entry of `ports`",
    keys: &[
        key("bridge", "bridge = \"*\""),
        key("port", "port = \"green-*\""),
        key("name", "name = \"web-1\""),
        key("mac", "mac = \"02:00:32:00:00:01\""),
        key("ip", "ip = [\"50.0.0.1\"]"),
        key("shared_mac", "shared_mac = [\"00:00:5e:00:01:33\"]"),
        key("shared_ip", "shared_ip = [\"50.0.0.254\"]"),
        key("router", "router = true"),
        key("dhcp_server", "dhcp_server = true"),
        key("rate_limit", "rate_limit = \"50 Mbit/s\""),
        key("rate_limit_to", "rate_limit_to = \"50 Mbit/s\""),
    ],
};

/// `[[tenant.function]]`.
pub(super) const FUNCTION: Schema = Schema {
    header: "[[tenant.function]]",
    keys: &[
        key("name", "name = \"firewall\""),
        key("kind", "kind = \"wire\""),
        key("on_failure", "on_failure = \"drop\""),
        key("share_by", "share_by = \"addresses\""),
        key(
            "instances",
            "instances = [{ name = \"fw-1\", bridge = \"host1\", ingress = \"fw1-in\", egress = \"fw1-out\" }]",
        ),
    ],
};

/// An entry of a function's `instances`.
pub(super) const INSTANCE: Schema = Schema {
    header: "an entry of `instances`",
    keys: &[
        key("name", "name = \"fw-1\""),
        key("bridge", "bridge = \"host1\""),
        key("ingress", "ingress = \"fw1-in\""),
        key("egress", "egress = \"fw1-out\""),
        key("mac", "mac = \"02:00:32:00:00:01\""),
        key("weight", "weight = 2"),
        key("drain", "drain = true"),
    ],
};

/// `[[tenant.chain]]`.
pub(super) const CHAIN: Schema = Schema {
    header: "[[tenant.chain]]",
    keys: &[
        key("name", "name = \"web\""),
        key("priority", "priority = 100"),
        key("through", "through = [\"firewall\"]"),
        key("symmetric", "symmetric = true"),
        key("broadcast", "broadcast = true"),
        key("match", "match = { protocol = \"tcp\", destination_port = 80 }"),
        key("rate_limit", "rate_limit = \"100 Mbit/s\""),
    ],
};

/// `[[tenant.rule]]`.
pub(super) const RULE: Schema = Schema {
    header: "[[tenant.rule]]",
    keys: &[
        key("name", "name = \"no-telnet\""),
        key("priority", "priority = 100"),
        key("match", "match = { protocol = \"tcp\", destination_port = 23 }"),
        key("action", "action = \"drop\""),
    ],
};

/// A `match` of a chain or a rule.
pub(super) const MATCH: Schema = Schema {
    header: "a `match`",
    keys: &[
        key("protocol", "protocol = \"tcp\""),
        key("ethertype", "ethertype = 0x88b5"),
        key("vlan", "vlan = 5"),
        key("source", "source = \"10.0.0.0/24\""),
        key("destination", "destination = [\"web-1\", \"10.0.0.0/24\"]"),
        key("source_port", "source_port = 1234"),
        key("destination_port", "destination_port = [80, 443, \"8000-8010\"]"),
        key("icmp_type", "icmp_type = \"echo-request\""),
        key("icmp_code", "icmp_code = 0"),
    ],
};

/// `rate_limit`, where a text doesn't say enough.
pub(super) const RATE_LIMIT: Schema = Schema {
    header: "a `rate_limit`",
    keys: &[
        key("rate", "rate = \"200 Mbit/s\""),
        key("burst", "burst = \"100 Mbit\""),
        key("per", "per = \"bridge\""),
        key("band", "band = \"drop\""),
    ],
};

impl Schema {
    /// All tables that have keys.
    const ALL: [&'static Self; 12] =
        [&FILE, &BRIDGE, &FABRIC, &DRAIN, &TENANT, &PORT, &FUNCTION, &INSTANCE, &CHAIN, &RULE, &MATCH, &RATE_LIMIT];

    /// The names of the keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.keys.iter().map(|key| key.name)
    }

    /// How a key is written.
    pub(super) fn example(&self, name: &str) -> &'static str {
        self.keys.iter().find(|key| key.name == name).map_or("", |key| key.example)
    }

    /// A table that does have this key.
    pub(super) fn elsewhere(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|schema| schema.names().any(|known| known == name))
    }
}
