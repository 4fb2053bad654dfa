//! One stream connection: a task that cuts what comes in and writes what is queued. The same for TCP and TLS, once the
//! handshake is done: [`welcome`] and [`dial`] do it in the connection's own task, so that nobody waits for a slow one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;

use super::hub::{Arrival, Hub, Item, Items, Line, Ticket, count};
use super::owner::owner_of;
use super::tls::{self, Names};
use super::{Inbound, Key};
use crate::handshake::{self, Pass};
use crate::sip::message::{Frame, Framer};
use crate::sip::{Flow, Protocol};

/// Why reading ended.
enum End {
    /// The peer closed, or the connection broke.
    Closed,
    /// The end of a message cannot be told any more.
    Lost,
    /// A message was begun and not finished in time, or nothing came for long.
    Slow,
}

/// Shakes hands with a client over TLS, and serves it if that goes well and there is room.
pub(super) async fn welcome<K: Key>(
    stream: TcpStream,
    peer: SocketAddr,
    pass: Pass,
    hub: Arc<Hub<K>>,
    mut closing: watch::Receiver<()>,
) {
    let (Some(tls), Ok(local)) = (&hub.settings.security, stream.local_addr()) else { return };
    let handshake = timeout(hub.settings.handshake_timeout, tls.acceptor().accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        _ = closing.changed() => return,
    };
    drop(pass);
    let stream = match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => stream,
        Err(error) => {
            count(&hub.counters.handshakes_failed);
            tracing::info!(%peer, %error, "TLS handshake of a SIP client failed");
            return;
        }
    };
    let names = tls::names_shown(stream.get_ref().1.peer_certificates());
    let Some((line, items)) = hub.admit(Protocol::Tls, local, peer, true, "") else {
        tracing::warn!(%peer, "SIP connection refused: too many");
        return;
    };
    count(&hub.counters.accepted);
    serve(stream, line.flow, names, line, items, hub, closing).await;
}

/// Opens a connection and serves it.
pub(super) async fn dial<K: Key>(
    line: Arc<Line<K>>,
    items: Items<K>,
    hub: Arc<Hub<K>>,
    closing: watch::Receiver<()>,
) {
    let connected = timeout(hub.settings.connect_timeout, TcpStream::connect(line.flow.peer)).await;
    let stream =
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).and_then(|stream| {
            stream.set_nodelay(true)?;
            Ok(stream)
        });
    let flow = |stream: &TcpStream| Flow {
        local: stream.local_addr().unwrap_or(line.flow.local),
        ..line.flow
    };
    let failed = match stream {
        Ok(stream) if line.flow.protocol == Protocol::Tls => {
            let flow = flow(&stream);
            match shake_hands(stream, &line.name, &hub).await {
                Ok(stream) => {
                    count(&hub.counters.connected);
                    line.open.store(true, Ordering::Release);
                    let names = tls::names_shown(stream.get_ref().1.peer_certificates());
                    return serve(stream, flow, names, line, items, hub, closing).await;
                }
                Err(error) => {
                    count(&hub.counters.handshakes_failed);
                    error
                }
            }
        }
        Ok(stream) => {
            count(&hub.counters.connected);
            line.open.store(true, Ordering::Release);
            let flow = flow(&stream);
            return serve(stream, flow, Names::default(), line, items, hub, closing).await;
        }
        Err(error) => error,
    };
    let protocol = line.flow.protocol.via_token();
    tracing::info!(peer = %line.flow.peer, name = %line.name, protocol, error = %failed, "SIP connection failed");
    hub.remove(&line);
    abandon(items, &hub).await;
}

/// The client's side of a handshake: the server must be `name` (RFC 5922 §7.3).
async fn shake_hands<K: Key>(
    stream: TcpStream,
    name: &str,
    hub: &Hub<K>,
) -> io::Result<TlsStream<TcpStream>> {
    let connector = hub.settings.security.as_ref().and_then(tls::Tls::connector);
    let connector = connector.ok_or_else(|| io::Error::other("sip.tls.ca is not set"))?;
    let name = handshake::server_name(name).ok_or_else(|| io::Error::other("no name to verify"))?;
    let shaken = timeout(hub.settings.handshake_timeout, connector.connect(name, stream)).await;
    shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Serves an open connection until it ends. `stream` may be anything that carries bytes both ways; `names` are those of
/// the certificate its peer has shown.
pub(super) async fn serve<K: Key, S: AsyncRead + AsyncWrite>(
    stream: S,
    flow: Flow,
    names: Names,
    line: Arc<Line<K>>,
    mut items: Items<K>,
    hub: Arc<Hub<K>>,
    mut closing: watch::Receiver<()>,
) {
    let (reader, writer) = tokio::io::split(stream);
    {
        let mut writing = std::pin::pin!(write(writer, &mut items, &line, &hub));
        let ended = tokio::select! {
            end = read(reader, flow, &names, &line, &hub) => Some(end),
            () = &mut writing => None,
            () = line.end.notified() => {
                count(&hub.counters.choked);
                tracing::warn!(peer = %line.flow.peer, "SIP connection closed: its peer does not read");
                None
            }
            _ = closing.changed() => None,
        };
        match ended {
            // Answers to what was read may still be under way; a peer may also have closed its sending side only.
            Some(End::Closed | End::Lost) => {
                hub.retire(&line);
                let _ = timeout(hub.settings.linger, writing).await;
            }
            Some(End::Slow) => {
                count(&hub.counters.slow);
                tracing::info!(peer = %line.flow.peer, "SIP connection closed: idle or too slow");
            }
            None => {}
        }
    }
    hub.remove(&line);
    abandon(items, &hub).await;
}

async fn read<K: Key>(
    mut stream: impl AsyncRead + Unpin,
    flow: Flow,
    names: &Names,
    line: &Line<K>,
    hub: &Hub<K>,
) -> End {
    let settings = &hub.settings;
    // Asked for each message: what is trusted can change while a connection stays.
    let vouched = || settings.security.as_ref().is_some_and(|tls| tls.vouches(names));
    let mut framer = Framer::new(&settings.limits);
    let mut buffer = BytesMut::new();
    // When the message in front began.
    let mut begun: Option<Instant> = None;
    loop {
        let deadline = match begun {
            None => Instant::now() + settings.idle_timeout,
            Some(begun) if framer.has_head() => begun + settings.message_timeout,
            Some(begun) => begun + settings.head_timeout,
        };
        buffer.reserve(2048);
        match timeout_at(deadline, stream.read_buf(&mut buffer)).await {
            Err(_) => return End::Slow,
            Ok(Ok(0) | Err(_)) => return End::Closed,
            Ok(Ok(_)) => {}
        }
        loop {
            match framer.feed(&mut buffer) {
                Ok(None) => break,
                Ok(Some(Frame::Message(bytes))) => {
                    begun = None;
                    hub.deliver(bytes, Flow { vouched: vouched(), ..flow }).await;
                }
                Ok(Some(Frame::Ping)) => {
                    // RFC 5626 §4.4.1. A queue that is full closes the connection, so there is nothing left to do.
                    let _ = line.push(
                        Item { bytes: Bytes::from_static(b"\r\n"), ticket: None },
                        settings.max_queued,
                    );
                }
                Ok(Some(Frame::Pong)) => {}
                Err(lost) => {
                    count(&hub.counters.framing_lost);
                    tracing::info!(peer = %line.flow.peer, what = %lost, "SIP connection closed: its framing is lost");
                    lose(lost.0, flow, hub).await;
                    return End::Lost;
                }
            }
        }
        begun = if buffer.is_empty() { None } else { begun.or_else(|| Some(Instant::now())) };
    }
}

/// Lets the thread concerned answer what broke the framing.
async fn lose<K: Key>(malformed: crate::sip::message::Malformed, flow: Flow, hub: &Hub<K>) {
    let owner =
        malformed.answer.as_ref().map_or(0, |request| owner_of(request.bytes(), hub.inboxes.len()));
    hub.post(owner, Arrival::Up(Inbound::Malformed { malformed, flow })).await;
}

async fn write<K: Key>(
    mut stream: impl AsyncWrite + Unpin,
    items: &mut Items<K>,
    line: &Line<K>,
    hub: &Hub<K>,
) {
    const BATCH: usize = 32;
    let mut batch = Vec::with_capacity(BATCH);
    let mut joined = Vec::new();
    while items.recv_many(&mut batch, BATCH).await > 0 {
        let octets = batch.iter().map(|item| item.bytes.len()).sum();
        let octets_of: &[u8] = match batch.as_slice() {
            [one] => &one.bytes,
            many => {
                joined.clear();
                many.iter().for_each(|item| joined.extend_from_slice(&item.bytes));
                &joined
            }
        };
        let written = timeout(hub.settings.write_timeout, async {
            stream.write_all(octets_of).await?;
            // Over TLS what the socket did not take at once lies in a buffer until somebody asks for it.
            stream.flush().await
        });
        let written = written.await;
        let done = matches!(written, Ok(Ok(())));
        line.queued.fetch_sub(octets, Ordering::Relaxed);
        for ticket in batch.drain(..).filter_map(|item| item.ticket) {
            if !done {
                fail(ticket, hub).await;
            } else if ticket.later {
                let outcome = Inbound::Outcome { key: ticket.key, sent: Ok(line.flow.protocol) };
                hub.post(ticket.thread, Arrival::Up(outcome)).await;
            }
        }
        if !done {
            return;
        }
    }
}

/// Tells whoever waits that what is left in the queue was not sent.
async fn abandon<K: Key>(mut items: Items<K>, hub: &Hub<K>) {
    items.close();
    while let Some(item) = items.recv().await {
        if let Some(ticket) = item.ticket {
            fail(ticket, hub).await;
        }
    }
}

async fn fail<K: Key>(ticket: Ticket<K>, hub: &Hub<K>) {
    let outcome =
        Inbound::Outcome { key: ticket.key, sent: Err(super::NotSent { more: ticket.more }) };
    hub.post(ticket.thread, Arrival::Up(outcome)).await;
}
