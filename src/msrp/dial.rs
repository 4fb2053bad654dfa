//! Connections we open: which next hop, a connection that is shared, a new one (MS-006, MS-029).
//!
//! Start at [`connect`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::PeerMedia;
use super::doors::prepare;
use super::net::{Connection, Handle, Nudge, Secured};
use super::switch::{Cell, Shared, lock};
use super::tap::Ends;
use super::tls::{Failure, Shown};
use crate::content::fingerprint::Proof;
use crate::engine::input::{MediaFailure, PageLoss};

/// A next hop: sessions of the same one may share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PeerKey {
    /// In lower case.
    host: String,
    port: u16,
    secured: Option<Secret>,
}

/// What else has to be the same over TLS (MS-112).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Secret {
    /// The host of the URI, whatever is dialled.
    name: String,
    proof: Proof,
    /// Which certificate of ours it sees.
    generation: u64,
}

impl PeerKey {
    /// Where a session's connection leads; `None` if we cannot connect there.
    fn of(shared: &Shared, peer: &PeerMedia) -> Option<Self> {
        let uri = peer.path.first().filter(|uri| uri.is_tcp())?;
        let name = uri.bare_host().to_ascii_lowercase();
        let (host, port) = match &peer.dial {
            Some((host, port)) => (host.to_ascii_lowercase(), *port),
            None => (name.clone(), uri.port()?),
        };
        let secured = match (&peer.proof, shared.tls.get(), uri.is_secure()) {
            (None, _, false) => None,
            (Some(proof), Some(tls), true) => {
                Some(Secret { name, proof: proof.clone(), generation: tls.generation() })
            }
            // MS-112: never without TLS where the URI says so.
            _ => return None,
        };
        Some(Self { host, port, secured })
    }
}

/// A connection we opened or are opening.
pub(super) enum PeerConnection {
    Opening(Vec<Arc<Cell>>),
    Open(Weak<Handle>),
}

/// Gives an active session a connection: one that is open to that next hop, or a new one (MS-006, MS-029).
pub(super) fn connect(shared: &Arc<Shared>, cell: Arc<Cell>, peer: &PeerMedia) {
    let Some(key) = PeerKey::of(shared, peer) else {
        tracing::info!(side = %cell.side, "MS-001: the next hop is not one we can connect to");
        shared.lost(&cell, PageLoss::Connection, MediaFailure::Connection);
        return;
    };
    let mut peers = lock(&shared.peers);
    match peers.get_mut(&key) {
        Some(PeerConnection::Opening(waiting)) => return waiting.push(cell),
        Some(PeerConnection::Open(handle)) => {
            let most = shared.settings.max_sessions_per_connection;
            if let Some(handle) = handle.upgrade()
                && handle.sessions.load(Ordering::Relaxed) < most
                && !handle.congested.load(Ordering::Relaxed)
                && handle.offer(Nudge::Attach(Arc::clone(&cell))).is_none()
            {
                return;
            }
        }
        None => {}
    }
    peers.insert(key.clone(), PeerConnection::Opening(vec![cell]));
    drop(peers);
    let shared = Arc::clone(shared);
    drop(tokio::spawn(async move { open(&shared, key).await }));
}

async fn open(shared: &Arc<Shared>, key: PeerKey) {
    let limit = shared.settings.bind_timeout;
    let PeerKey { host, port, secured } = &key;
    let opened = tokio::time::timeout(limit, dial(shared, host, *port)).await;
    let stream = match opened {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::info!(host, port, %error, "MSRP connect failed");
            None
        }
        Err(_) => {
            tracing::info!(host, port, "MSRP connect took too long (msrp.bind_timeout)");
            None
        }
    };
    match (secured, stream) {
        (None, stream) => {
            let stream = stream.map(|stream| (ends(&stream), None, stream));
            share(shared, &key, stream).await;
        }
        (Some(secret), Some(stream)) => {
            let ends = ends(&stream);
            let shaken = shake(shared, secret, stream).await;
            share(shared, &key, shaken.map(|(shown, stream)| (ends, Some(shown), stream))).await;
        }
        (Some(_), None) => share::<TcpStream>(shared, &key, None).await,
    }
}

fn ends(stream: &TcpStream) -> Option<Ends> {
    stream.local_addr().ok().zip(stream.peer_addr().ok())
}

/// Shakes hands as the client (RFC 6135 §4.3).
async fn shake(
    shared: &Shared,
    secret: &Secret,
    stream: TcpStream,
) -> Option<(Shown, TlsStream<TcpStream>)> {
    let tls = shared.tls.get()?;
    let limit = shared.settings.handshake_timeout;
    let shaken = tls.connect(stream, &secret.name, &secret.proof);
    let shaken = tokio::time::timeout(limit, shaken).await;
    let failed = match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => match Shown::of(stream.get_ref().1.peer_certificates()) {
            Some(shown) => return Some((shown, stream)),
            None => io::Error::other("no certificate was shown"),
        },
        Err(error) => error,
    };
    shared.counters.handshake_failed(Failure::of(&failed));
    let host = &*secret.name;
    tracing::info!(host, error = %failed, rule = "MS-112", "TLS handshake with an MSRP peer failed");
    None
}

/// Gives the connection to those who wait for it, and serves it. Without one they have failed.
async fn share<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    key: &PeerKey,
    stream: Option<(Option<Ends>, Option<Shown>, S)>,
) {
    let connection = stream.is_some().then(|| Connection::new(shared, None));
    let waiting = {
        let mut peers = lock(&shared.peers);
        let before = match &connection {
            Some(c) => {
                let open = PeerConnection::Open(Arc::downgrade(&c.handle));
                peers.insert(key.clone(), open)
            }
            None => peers.remove(key),
        };
        if let Some(PeerConnection::Opening(waiting)) = before { waiting } else { Vec::new() }
    };
    match (stream, connection) {
        (Some((ends, shown, stream)), Some(mut connection)) => {
            connection.know(ends);
            connection.secured = shown.map(Secured::By);
            waiting.into_iter().for_each(|cell| connection.attach(cell));
            let handle = Arc::downgrade(&connection.handle);
            drop(connection.run(stream).await);
            let mut peers = lock(&shared.peers);
            if matches!(peers.get(key), Some(PeerConnection::Open(h)) if h.ptr_eq(&handle)) {
                peers.remove(key);
            }
        }
        _ => {
            for cell in waiting {
                shared.lost(&cell, PageLoss::Connection, MediaFailure::Connection);
            }
        }
    }
}

/// MS-006: addresses in the order received; MS-022: only where we may go.
async fn dial(shared: &Shared, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![(ip, port).into()],
        Err(_) => tokio::net::lookup_host((host, port)).await?.collect(),
    };
    for address in addresses {
        if !shared.settings.may_connect(address.ip()) {
            let text = "MS-022: not a network we connect to (msrp.connect_allow)";
            last = io::Error::new(io::ErrorKind::PermissionDenied, text);
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                prepare(&stream);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
