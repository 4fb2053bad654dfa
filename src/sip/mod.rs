//! The SIP stack: RFC 3261, 3262, 3263, 4028, 4320 and 6026. It knows no IMS and no page.
//!
//! `message` and `uri` turn bytes into an index over them and back, `transaction`, `dialog` and `ua` are the state
//! machines without I/O, `transport` owns sockets. Start at `ua::Ua`.

pub mod dialog;
pub mod digest;
pub mod message;
pub mod resolve;
pub mod transaction;
pub mod transport;
pub mod ua;
pub mod uri;

use std::net::SocketAddr;

/// What carries a SIP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Udp,
    Tcp,
    Tls,
}

impl Protocol {
    /// Whether the transport itself repeats what was lost, so that SIP must not.
    pub fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// The token that stands in a Via header (RFC 3261 §20.42).
    pub fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

/// The way a message came, and so the way its answer goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    pub protocol: Protocol,
    /// Our side.
    pub local: SocketAddr,
    /// The sender's side, as the socket saw it.
    pub peer: SocketAddr,
    /// Which connection, 0 for UDP. Unique in this process.
    pub connection: u64,
    /// The peer has shown a certificate with a name that is trusted (ISC-001); never for UDP and TCP.
    pub vouched: bool,
}

/// Where a message is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Back the way a request came; where the connection is gone, by its Via (RFC 3261 §18.2.2).
    Flow(Flow),
    /// To the host of this URI (topmost Route, else Request-URI) by RFC 3263; `attempt` counts the alternates. A message
    /// counts as if it had at least `octets`: so ACK and CANCEL take the protocol of the INVITE they belong to.
    NextHop { uri: String, attempt: u16, octets: usize },
}
