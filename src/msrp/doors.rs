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
use super::net::Connection;
use super::switch::{Shared, lock};
use super::tap::Ends;

/// Accepts until dropped.
pub(super) async fn listen(shared: &Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(door) = Door::pass(shared, peer.ip()) else { continue };
                prepare(&stream);
                let shared = Arc::clone(shared);
                let ends = stream.local_addr().ok().map(|local| (local, peer));
                drop(tokio::spawn(async move { serve_behind(&shared, stream, door, ends).await }));
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
        serve_behind(shared, stream, door, None).await;
    }
}

async fn serve_behind<S>(shared: &Arc<Shared>, stream: S, door: Door, ends: Option<Ends>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut connection = Connection::new(shared, Some(door));
    connection.ends = ends;
    connection.run(stream).await;
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
