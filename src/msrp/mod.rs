//! MSRP: moves a page's bytes from its originator to its recipients (RFC 4975, RFC 6135, RFC 7701 rules for switches).
//!
//! Start at [`Switch`]: it reserves our URIs, opens sessions as SDP is agreed and tells what happens by
//! [`MediaEvent`]. [`codec`] cuts streams into pieces, `session` decides what one session answers and sends next (no
//! I/O, time is an argument), `net` runs one task per connection, `doors` lets them in, `dial` opens them, [`tls`] says
//! who they may be with. The page itself lies in a [`crate::spool`]; every
//! recipient reads it at its own pace. Never decides who gets a page, builds no SDP, knows no SIP.

use std::fmt;
use std::sync::Arc;

use crate::content::fingerprint::Proof;
use crate::content::msrp_uri::MsrpUri;
use crate::engine::ids::{LegId, PageId};
use crate::engine::input::{LegMedia, OriginatorMedia};

mod buffers;
pub mod codec;
mod dial;
mod doors;
mod frames;
mod net;
mod session;
mod settings;
mod switch;
mod tap;
pub mod tls;

pub use session::Envelope;
pub use settings::Settings;
pub use switch::{Body, Switch};

/// One MSRP session of ours: the originator's of a page, or one recipient's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Originator(PageId),
    Leg(LegId),
}

impl Side {
    /// The page it belongs to.
    pub fn page(self) -> PageId {
        match self {
            Self::Originator(page) => page,
            Self::Leg(leg) => leg.page,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Originator(page) => write!(f, "{page}/0"),
            Self::Leg(leg) => leg.fmt(f),
        }
    }
}

/// Who opens the connection, seen from us (MS-024).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// We connect.
    Active,
    /// The peer connects.
    Passive,
}

/// The direction attribute of the peer's SDP (MS-014).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// What the peer's SDP said about its MSRP session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerMedia {
    /// `a=path`, leftmost first (MS-009). Never empty.
    pub path: Vec<MsrpUri>,
    /// Our role.
    pub role: Role,
    /// Where to connect if not to the leftmost URI (CEMA, MS-026).
    pub dial: Option<(String, u16)>,
    /// What it has to show over TLS, where the session runs over TLS (MS-112).
    pub proof: Option<Proof>,
    /// `a=accept-types`, entry by entry.
    pub accept_types: Vec<String>,
    /// `a=accept-wrapped-types`, entry by entry.
    pub accept_wrapped: Vec<String>,
    /// `a=max-size` (MS-017).
    pub max_size: Option<u64>,
    pub direction: Direction,
}

/// The types we agreed to take from an originator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcceptTypes {
    /// Our `a=accept-types`.
    pub types: Vec<String>,
    /// Our `a=accept-wrapped-types`; empty: whatever is wrapped is taken.
    pub wrapped: Vec<String>,
}

/// A test on a URI found in a CPIM header, `<` and `>` removed.
pub type UriTest = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What a page's first octets have to satisfy (MS-094). The default asks for nothing.
#[derive(Clone, Default)]
pub struct PageRules {
    /// Anything but `message/cpim` is 415; without From or To it is 400, with two To 403.
    pub cpim_required: bool,
    /// False on CPIM From: 403.
    pub from_ok: Option<UriTest>,
    /// False on CPIM To: 404.
    pub to_ok: Option<UriTest>,
}

impl fmt::Debug for PageRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageRules")
            .field("cpim_required", &self.cpim_required)
            .field("from_ok", &self.from_ok.is_some())
            .field("to_ok", &self.to_ok.is_some())
            .finish()
    }
}

/// What the engine hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaEvent {
    Originator { page: PageId, event: OriginatorMedia },
    Leg { leg: LegId, event: LegMedia },
}

/// Where media events go; called from connection tasks and from [`Switch`] calls, must not block.
pub type Sink = Arc<dyn Fn(MediaEvent) + Send + Sync>;

/// No session can be reserved now (MS-115).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no MSRP session left (msrp.max_sessions)")]
pub struct Full;

/// Why TLS connections did not come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HandshakesFailed {
    /// They took too long.
    pub slow: u64,
    /// The other side spoke no TLS, or none of ours.
    pub protocol: u64,
    /// A certificate was missing or not the one SDP spoke of.
    pub certificate: u64,
    /// Too many were in progress.
    pub busy: u64,
}

/// What the switch holds and has moved: for metrics and leak tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Pages with an entry.
    pub pages: u64,
    /// Sessions reserved or open.
    pub sessions: u64,
    /// Connections open, either way.
    pub connections: u64,
    /// Incoming connections no session was ever bound to.
    pub unbound: u64,
    /// Octets in spools, in memory or on disk.
    pub spool_octets: u64,
    /// Of these in memory.
    pub spool_memory: u64,
    /// Spool files.
    pub spool_files: u64,
    /// Octets read from and written to sockets since the start.
    pub octets_in: u64,
    pub octets_out: u64,
    /// IMDN and isComposing messages taken and not passed on (IM-076, MS-106).
    pub control_messages: u64,
    /// Connections refused at the door or closed for what their peer did.
    pub connections_refused: u64,
    /// TLS handshakes that came to nothing, either way, and connections ended for the certificate of their peer.
    pub handshakes_failed: HandshakesFailed,
    /// Octets of pages that came again after they had been forwarded (MS-063).
    pub overlapped: u64,
}
