//! The registry of sessions: which URI is whose, and what joins an originator with its recipients.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use super::{AcceptTypes, Full, PageRules, PeerMedia, Settings, Side, Sink, Stats};
use crate::engine::ids::{LegId, PageId};

/// All MSRP of a node; cheap to clone. Calls never block and belong into a tokio runtime.
#[derive(Clone)]
pub struct Switch(Arc<Shared>);

struct Shared {
    _settings: Settings,
    _sink: Sink,
}

impl Switch {
    /// A switch without listeners.
    ///
    /// # Errors
    /// The spool's directory cannot be used.
    pub fn new(settings: Settings, sink: Sink) -> io::Result<Self> {
        Ok(Self(Arc::new(Shared { _settings: settings, _sink: sink })))
    }

    /// Accepts connections until the listener fails for good; each becomes a task of the current runtime.
    pub async fn listen(&self, _listener: TcpListener) {}

    /// Serves one connection to its end.
    pub async fn serve_connection<S>(&self, _stream: S, _peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
    }

    /// Makes our path URI for one side, before any SDP leaves (IM-067).
    ///
    /// # Errors
    /// [`Full`] at `msrp.max_sessions`.
    pub fn reserve(&self, _side: Side) -> Result<String, Full> {
        Err(Full)
    }

    /// The originator's SDP is agreed: it may bind and send.
    pub fn open_originator(
        &self,
        _page: PageId,
        _peer: PeerMedia,
        _accept: AcceptTypes,
        _rules: PageRules,
    ) {
    }

    /// A recipient's SDP is agreed: connect or wait, then send the page from octet 1.
    pub fn join(&self, _leg: LegId, _peer: PeerMedia) {}

    /// No more octets on that side; a running chunk ends with `#` (MS-090).
    pub fn abort(&self, _side: Side) {}

    /// REPORT to the originator about the whole page (MS-089): a failure, or with 200 the success that
    /// `sr_policy = first_delivery` waits for.
    pub fn report(&self, _page: PageId, _code: u16, _text: &str) {}

    /// The side's URI is dead at once (MS-005).
    pub fn release(&self, _side: Side) {}

    /// Releases every side of the page and drops its octets.
    pub fn forget(&self, _page: PageId) {}

    /// Octets of the page this recipient has acknowledged.
    pub fn progress(&self, _leg: LegId) -> u64 {
        0
    }

    /// What is held and moved.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
