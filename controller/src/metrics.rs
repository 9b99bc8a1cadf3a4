//! What `/metrics` tells. Sessions hold their counters, so that counting costs an addition; what the snapshot or the
//! sessions know anyhow is only put into words when somebody asks.
//!
//! Labels are bounded: types, reasons, and the datapath ids of bridges that are connected now.

mod exposition;
mod traffic;

use openflow::error::ErrorCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub use exposition::Exposition;
pub use traffic::{Direction, Traffic};

/// One row per value of a label: what it stands for, and how it is written.
macro_rules! values {
    ($(#[$meta:meta])* $name:ident: $($(#[$vmeta:meta])* $variant:ident = $text:literal;)+) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// How it is written.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

values! {
    /// Why input of a bridge, or a whole connection, was refused.
    Refused:
    /// A length below that of a header.
    BadLength = "bad_length";
    /// It doesn't begin with a HELLO.
    NotHello = "not_hello";
    /// Not OpenFlow 1.3, in a HELLO or later.
    BadVersion = "bad_version";
    /// A type that only controllers send, or none of OpenFlow 1.3.
    BadType = "bad_type";
    /// It can't be decoded.
    Malformed = "malformed";
    /// An answer to nothing that was asked.
    Unasked = "unasked";
    /// The handshake can't go on.
    Handshake = "handshake_failed";
    /// The handshake took too long.
    HandshakeTimeout = "handshake_timeout";
    /// A message was begun and not finished.
    MessageTimeout = "message_timeout";
    /// An echo request wasn't answered.
    EchoTimeout = "echo_timeout";
    /// Too many were about to connect, and it took longest.
    TooManySessions = "too_many_sessions";
    /// An auxiliary connection.
    Auxiliary = "auxiliary_connection";
    /// Another connection has its datapath id.
    Taken = "datapath_taken";
    /// It turned into another bridge.
    Changed = "datapath_changed";
    /// More waits for it than may wait.
    OutputFull = "output_full";
    /// It doesn't read.
    OutputTimeout = "output_timeout";
    /// It tells of its tables without end.
    TablesTooLong = "tables_too_long";
    /// The core can't work with it.
    GivenUp = "given_up";
    /// A fault of ours.
    Fault = "fault";
}

values! {
    /// Why a packet-in was dropped.
    Excess:
    /// More probes than a session may have waiting.
    Probes = "probe_budget";
    /// More other packets than a session may have waiting.
    Packets = "packet_budget";
}

values! {
    /// What came of looking at the policy.
    Reload:
    /// A new one is in force.
    Applied = "applied";
    /// It is what is in force.
    Unchanged = "unchanged";
    /// It can't be used; the last good one stays in force.
    Refused = "refused";
}

/// One label of one name.
type Label = [(&'static str, &'static str); 1];

/// Counters by the value of one label, each held.
#[derive(Debug)]
struct Counters {
    family: Family<Label, Counter>,
    held: Vec<Counter>,
}

impl Counters {
    fn new(name: &'static str, values: impl Iterator<Item = &'static str>) -> Self {
        let family = Family::<Label, Counter>::default();
        let held = values.map(|value| family.get_or_create_owned(&[(name, value)])).collect();
        Self { family, held }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    r#type: String,
    code: &'static str,
}

/// All counters that sessions, listener and policy watcher share.
#[derive(Debug)]
pub struct Metrics {
    /// Connections that were accepted.
    pub connections: Counter,
    refused: Counters,
    excess: Counters,
    reloads: Counters,
    errors: Family<ErrorLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            connections: Counter::default(),
            refused: Counters::new("reason", Refused::ALL.iter().map(|value| value.label())),
            excess: Counters::new("reason", Excess::ALL.iter().map(|value| value.label())),
            reloads: Counters::new("result", Reload::ALL.iter().map(|value| value.label())),
            errors: Family::default(),
        }
    }
}

impl Metrics {
    /// Input that was refused.
    pub fn refused(&self, why: Refused) -> &Counter {
        &self.refused.held[why as usize]
    }

    /// Packet-ins that were dropped.
    pub fn excess(&self, why: Excess) -> &Counter {
        &self.excess.held[why as usize]
    }

    /// Looks at the policy.
    pub fn reload(&self, result: Reload) -> &Counter {
        &self.reloads.held[result as usize]
    }

    /// A bridge told of an error.
    pub fn error(&self, code: ErrorCode) {
        // Only what has a name has a label of its own, or bridges could make up as many as they like.
        let (r#type, code) = match code.name() {
            Some(name) => (code.kind().to_string(), name),
            None => ("other".to_owned(), "other"),
        };
        self.errors.get_or_create(&ErrorLabels { r#type, code }).inc();
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Connections of bridges that were accepted", self.connections.clone());
        registry.register(
            "input_refused",
            "Messages and connections of bridges that were refused",
            self.refused.family.clone(),
        );
        registry.register(
            "packet_ins_dropped",
            "Packet-ins dropped because their session had too many waiting",
            self.excess.family.clone(),
        );
        registry.register("policy_reloads", "Looks at the policy, by what came of them", self.reloads.family.clone());
        registry.register("openflow_errors", "Errors that bridges told of", self.errors.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_few_labels_whatever_bridges_send() {
        let metrics = Metrics::default();
        for number in 0..=u16::MAX {
            metrics.error(ErrorCode::from_numbers(0, number, number));
            metrics.error(ErrorCode::from_numbers(0, 1, number));
        }
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let rows = text.lines().filter(|line| line.starts_with("openflow_errors_total{")).count();
        assert!((14..50).contains(&rows), "{rows}");
        assert!(text.contains("openflow_errors_total{type=\"1\",code=\"OFPBRC_BAD_TYPE\"} 2"), "{text}");
    }

    #[test]
    fn each_value_has_a_label_of_its_own() {
        for labels in [
            Refused::ALL.iter().map(|value| value.label()).collect::<Vec<_>>(),
            Excess::ALL.iter().map(|value| value.label()).collect(),
            Reload::ALL.iter().map(|value| value.label()).collect(),
        ] {
            let unique: std::collections::BTreeSet<_> = labels.iter().collect();
            assert_eq!(unique.len(), labels.len(), "{labels:?}");
        }
    }
}
