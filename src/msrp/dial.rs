//! Connections we open: which next hop, a connection that is shared, a new one (MS-006, MS-029).
//!
//! Start at [`connect`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::net::TcpStream;

use super::PeerMedia;
use super::doors::prepare;
use super::net::{Connection, Handle, Nudge};
use super::switch::{Cell, Shared, lock};
use crate::engine::input::{MediaFailure, PageLoss};

/// Host in lower case and port of a next hop.
pub(super) type PeerKey = (String, u16);

/// A connection we opened or are opening.
pub(super) enum PeerConnection {
    Opening(Vec<Arc<Cell>>),
    Open(Weak<Handle>),
}

/// Gives an active session a connection: one that is open to that next hop, or a new one (MS-006, MS-029).
pub(super) fn connect(shared: &Arc<Shared>, cell: Arc<Cell>, peer: &PeerMedia) {
    let uri = peer.path.first();
    let target = match (&peer.dial, uri) {
        (Some((host, port)), _) => Some((host.to_ascii_lowercase(), *port)),
        (None, Some(uri)) => uri.port().map(|port| (uri.bare_host().to_ascii_lowercase(), port)),
        (None, None) => None,
    };
    let usable = uri.is_some_and(|uri| uri.is_tcp() && !uri.is_secure());
    let Some(key) = target.filter(|_| usable) else {
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
    let opened = tokio::time::timeout(limit, dial(shared, &key)).await;
    let stream = match opened {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::info!(host = %key.0, port = key.1, %error, "MSRP connect failed");
            None
        }
        Err(_) => {
            tracing::info!(host = %key.0, port = key.1, "MSRP connect took too long (msrp.bind_timeout)");
            None
        }
    };
    let connection = stream.is_some().then(|| Connection::new(shared, None));
    let waiting = {
        let mut peers = lock(&shared.peers);
        let before = match &connection {
            Some(c) => {
                let open = PeerConnection::Open(Arc::downgrade(&c.handle));
                peers.insert(key.clone(), open)
            }
            None => peers.remove(&key),
        };
        if let Some(PeerConnection::Opening(waiting)) = before { waiting } else { Vec::new() }
    };
    match (stream, connection) {
        (Some(stream), Some(mut connection)) => {
            connection.ends = stream.local_addr().ok().zip(stream.peer_addr().ok());
            waiting.into_iter().for_each(|cell| connection.attach(cell));
            let handle = Arc::downgrade(&connection.handle);
            connection.run(stream).await;
            let mut peers = lock(&shared.peers);
            if matches!(peers.get(&key), Some(PeerConnection::Open(h)) if h.ptr_eq(&handle)) {
                peers.remove(&key);
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
async fn dial(shared: &Shared, (host, port): &PeerKey) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![(ip, *port).into()],
        Err(_) => tokio::net::lookup_host((host.as_str(), *port)).await?.collect(),
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
