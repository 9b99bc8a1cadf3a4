//! The state machine that knows the fabric: bridges, links, hosts, and what every bridge should hold. Pure: time comes
//! in with each event, and what is to be done goes out as effects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use apps::allocation::Allocations;
use apps::policy::Policy;
use openflow::message::Message;
use openflow::peer::Identity;
use openflow::types::Xid;

use crate::snapshot::{PolicyStatus, Snapshot};

/// One connection of one bridge; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What the core is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Key that probes are authenticated with.
    pub probe_key: [u8; 32],
    /// Numbers given to tenants before.
    pub allocations: Allocations,
}

/// All that can happen to the core.
#[derive(Debug)]
pub enum Event {
    /// A policy comes into force.
    Policy(Arc<Policy>, PolicyStatus),
    /// A bridge is connected and known.
    Connected {
        /// Its connection.
        session: SessionId,
        /// Where it connects from.
        address: SocketAddr,
        /// Who it is.
        identity: Box<Identity>,
    },
    /// A connection is closed.
    Disconnected {
        /// Which.
        session: SessionId,
    },
    /// A bridge sent a message that isn't the channel's own business.
    Message {
        /// Its connection.
        session: SessionId,
        /// The message's transaction id.
        xid: Xid,
        /// The message.
        message: Message,
    },
    /// [`Core::deadline`] has come.
    Timer,
}

/// How much an operator should care about a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Good to know.
    Info,
    /// Look at it.
    Warning,
}

/// All that the core can want done.
#[derive(Debug)]
pub enum Effect {
    /// Send messages to a bridge, in this order.
    Send {
        /// To whom.
        session: SessionId,
        /// What, each with its transaction id, which is at most [`openflow::peer::XID_MAX`].
        messages: Vec<(Xid, Message)>,
    },
    /// Close a connection; [`Event::Disconnected`] follows.
    Close {
        /// Which.
        session: SessionId,
        /// Why, for the log.
        reason: String,
    },
    /// Keep the numbers given to tenants over restarts.
    Save(Allocations),
    /// Tell the operator.
    Notice(Level, String),
}

/// See the module's text.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
}

impl Core {
    /// A core that knows nothing yet.
    pub fn new(_now: Instant, settings: Settings) -> Self {
        Self { settings }
    }

    /// Takes in an event and gives what is to be done, in order.
    pub fn handle(&mut self, _now: Instant, _event: Event) -> Vec<Effect> {
        vec![Effect::Save(self.settings.allocations.clone())]
    }

    /// When [`Event::Timer`] is due; `None`: nothing is waited for.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// What readers see.
    pub fn snapshot(&self, _now: Instant) -> Snapshot {
        Snapshot::default()
    }
}
