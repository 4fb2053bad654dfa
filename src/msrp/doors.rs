//! Incoming connections: who is let in, and how many (MS-115).
//!
//! Start at [`listen`]. Every connection is a task of its own and a [`Door`], the place it takes in the counts.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use super::Settings;
use super::net::{Connection, Secured};
use super::switch::{Shared, lock};
use super::tap::Ends;
use super::tls::{self, Failure, Shown, Tls};

/// Accepts until dropped.
pub(super) async fn listen(shared: &Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(door) = Door::pass(shared, peer.ip()) else { continue };
                prepare(&stream);
                let ends = stream.local_addr().ok().map(|local| (local, peer));
                drop(tokio::spawn(Connection::behind(shared, door, ends).run(stream)));
            }
            Err(error) => {
                // Out of descriptors, mostly: give others time to close some.
                tracing::warn!(%error, "MSRP accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// MS-039: keep-alive is the transport's business.
pub(super) fn prepare(stream: &TcpStream) {
    let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
    let socket = socket2::SockRef::from(stream);
    let done = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive));
    if let Err(error) = done {
        tracing::debug!(%error, "socket options");
    }
}

/// Serves one incoming connection.
pub(super) async fn serve<S>(shared: &Arc<Shared>, stream: S, peer: IpAddr)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    if let Some(door) = Door::pass(shared, peer) {
        drop(Connection::behind(shared, door, None).run(stream).await);
    }
}

/// Accepts connections over TLS until dropped. Handshakes happen in the connections' own tasks.
pub(super) async fn listen_secure(shared: &Arc<Shared>, tls: &Tls, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(door) = Door::pass(shared, peer.ip()) else { continue };
                prepare(&stream);
                let (shared, tls) = (Arc::clone(shared), tls.clone());
                let ends = stream.local_addr().ok().map(|local| (local, peer));
                drop(tokio::spawn(async move { shake(&shared, &tls, stream, door, ends).await }));
            }
            Err(error) => {
                // Out of descriptors, mostly: give others time to close some.
                tracing::warn!(%error, "MSRP accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves one incoming connection over TLS.
pub(super) async fn serve_secure<S>(shared: &Arc<Shared>, tls: &Tls, stream: S, peer: IpAddr)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    if let Some(door) = Door::pass(shared, peer) {
        shake(shared, tls, stream, door, None).await;
    }
}

/// Shakes hands as the server, then serves.
///
/// MS-112 (RFC 8122 §6.2): who shows no certificate is told so and leaves; which one it has to be is known with its first
/// request.
async fn shake<S>(shared: &Arc<Shared>, tls: &Tls, stream: S, door: Door, ends: Option<Ends>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let peer = door.peer;
    let failed = |failure: Failure, why: &dyn std::fmt::Display| {
        shared.counters.handshake_failed(failure);
        tracing::info!(%peer, error = %why, rule = "MS-112", "TLS handshake of an MSRP peer failed");
    };
    let Some(pass) = shared.gate.enter(peer) else {
        return failed(Failure::Busy, &"too many in progress (msrp.tls.max_handshakes)");
    };
    let limit = shared.settings.handshake_timeout;
    let shaken = tokio::time::timeout(limit, tls.acceptor().accept(stream)).await;
    drop(pass);
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return failed(Failure::of(&error), &error),
        Err(_) => return failed(Failure::Slow, &"it took too long (msrp.tls.handshake_timeout)"),
    };
    let Some(shown) = Shown::of(stream.get_ref().1.peer_certificates()) else {
        failed(Failure::Certificate, &"no certificate was shown");
        return refuse(stream).await;
    };
    let mut connection = Connection::behind(shared, door, ends);
    connection.secured = Some(Secured::By(shown));
    if let Some(stream) = connection.run(stream).await {
        refuse(stream).await;
    }
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: tokio_rustls::server::TlsStream<S>) {
    // Best effort: the peer may be gone.
    let _ = tokio::time::timeout(Duration::from_secs(1), tls::refuse(stream)).await;
}

/// An incoming connection counted against the caps (MS-115).
pub(super) struct Door {
    shared: Arc<Shared>,
    peer: IpAddr,
    unbound: bool,
}

impl Door {
    fn pass(shared: &Arc<Shared>, peer: IpAddr) -> Option<Self> {
        let Settings { max_connections, max_connections_per_ip, max_unbound, .. } =
            *shared.settings;
        let counters = &shared.counters;
        let mut per_ip = lock(&shared.per_ip);
        let mine = per_ip.entry(peer).or_insert(0);
        let key = if counters.incoming.load(Ordering::Relaxed) >= max_connections {
            Some("msrp.max_connections")
        } else if max_connections_per_ip > 0 && *mine >= max_connections_per_ip {
            Some("msrp.max_connections_per_ip")
        } else if counters.unbound.load(Ordering::Relaxed) >= max_unbound {
            Some("msrp.max_unbound")
        } else {
            None
        };
        if let Some(key) = key {
            if *mine == 0 {
                per_ip.remove(&peer);
            }
            counters.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%peer, key, "MS-115: MSRP connection refused");
            return None;
        }
        *mine += 1;
        counters.incoming.fetch_add(1, Ordering::Relaxed);
        counters.unbound.fetch_add(1, Ordering::Relaxed);
        drop(per_ip);
        Some(Self { shared: Arc::clone(shared), peer, unbound: true })
    }

    pub fn bound(&mut self) {
        if std::mem::take(&mut self.unbound) {
            self.shared.counters.unbound.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.bound();
        self.shared.counters.incoming.fetch_sub(1, Ordering::Relaxed);
        let mut per_ip = lock(&self.shared.per_ip);
        if let Some(mine) = per_ip.get_mut(&self.peer) {
            *mine -= 1;
            if *mine == 0 {
                per_ip.remove(&self.peer);
            }
        }
    }
}
