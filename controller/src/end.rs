//! Why a session ends: for the log, with what the operator can do about it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use openflow::frame::BadLength;
use openflow::peer::Close;
use openflow::types::DatapathId;

use crate::metrics::Refused;

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The other end closed the connection.
    #[error("it closed the connection")]
    Gone,
    /// The connection failed.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// The channel can't go on.
    #[error("{0}")]
    Channel(#[from] Close),
    /// What it sends isn't OpenFlow.
    #[error("it doesn't begin with an OpenFlow HELLO; {0}")]
    Rubbish(&'static str),
    /// The stream can't be cut into messages.
    #[error("{0}; what follows can't be told apart, so the bridge has to connect again")]
    Length(#[from] BadLength),
    /// A message was begun and not finished.
    #[error("it began a message and hasn't finished it for {0:?}; look at the network between it and here")]
    Half(Duration),
    /// It doesn't read.
    #[error("it hasn't read anything for {0:?} although there was something for it; look at its load")]
    Stalled(Duration),
    /// More waits for it than may wait.
    #[error("too much waits to be read by it; look at its load, it may connect again")]
    Full,
    /// Too many are about to connect.
    #[error("too many are about to connect, and it hasn't said who it is for longest; look who connects to this port")]
    Crowded,
    /// The hub wants it.
    #[error("{0}")]
    Hub(String),
    /// Its datapath id belongs to another connection.
    #[error(
        "its datapath id {0} is that of the bridge at {1}, which is alive; give one of them another: \
         ovs-vsctl set bridge BRIDGE other_config:datapath-id=…"
    )]
    Taken(DatapathId, SocketAddr),
    /// It says that it is another bridge now.
    #[error("it changed its datapath id from {0} to {1}; it has to connect again")]
    Changed(DatapathId, DatapathId),
    /// A fault of ours.
    #[error("a message of it hit a fault of this program; please report the lines above")]
    Panicked,
    /// The controller stops.
    #[error("the controller stops")]
    Stop,
}

impl End {
    /// How it is counted; `None`: it isn't refused.
    pub(crate) const fn refused(&self) -> Option<Refused> {
        Some(match self {
            Self::Gone | Self::Broken(_) | Self::Stop => return None,
            Self::Channel(Close::NotHello) | Self::Rubbish(_) => Refused::NotHello,
            Self::Channel(Close::Incompatible(_)) => Refused::BadVersion,
            Self::Channel(Close::HandshakeTimeout(_)) => Refused::HandshakeTimeout,
            Self::Channel(Close::Handshake(_)) => Refused::Handshake,
            Self::Channel(Close::Auxiliary(_)) => Refused::Auxiliary,
            Self::Channel(Close::NoEcho(_)) => Refused::EchoTimeout,
            Self::Length(_) => Refused::BadLength,
            Self::Half(_) => Refused::MessageTimeout,
            Self::Stalled(_) => Refused::OutputTimeout,
            Self::Full => Refused::OutputFull,
            Self::Crowded => Refused::TooManySessions,
            Self::Hub(_) => Refused::GivenUp,
            Self::Taken(..) => Refused::Taken,
            Self::Changed(..) => Refused::Changed,
            Self::Panicked => Refused::Fault,
        })
    }

    /// What doesn't begin as OpenFlow: a guess at what it is from its first octets.
    pub(crate) fn rubbish(close: Close, start: &[u8]) -> Self {
        match (close, start) {
            (Close::NotHello, [0x16, ..]) => {
                Self::Rubbish("it speaks TLS: use tcp:, not ssl:, in ovs-vsctl set-controller")
            }
            (Close::NotHello, [b'A'..=b'Z', b'A'..=b'Z', ..]) => {
                Self::Rubbish("it looks like HTTP, which is served at the address given by --rest")
            }
            (Close::NotHello, _) => Self::Rubbish("only bridges may connect to this port"),
            (close, _) => Self::Channel(close),
        }
    }
}
