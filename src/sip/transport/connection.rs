//! One stream connection: a task that cuts what comes in and writes what is queued. The same for TCP and TLS.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::hub::{Arrival, Hub, Item, Items, Line, Ticket, count};
use super::owner::owner_of;
use super::{Inbound, Key};
use crate::sip::Flow;
use crate::sip::message::{Frame, Framer};

/// Why reading ended.
enum End {
    /// The peer closed, or the connection broke.
    Closed,
    /// The end of a message cannot be told any more.
    Lost,
    /// A message was begun and not finished in time, or nothing came for long.
    Slow,
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
    match stream {
        Ok(stream) => {
            count(&hub.counters.connected);
            line.open.store(true, Ordering::Release);
            let local = stream.local_addr().unwrap_or(line.flow.local);
            serve(stream, Flow { local, ..line.flow }, line, items, hub, closing).await;
        }
        Err(error) => {
            tracing::info!(peer = %line.flow.peer, %error, "SIP connection failed");
            hub.remove(&line.flow);
            abandon(items, &hub).await;
        }
    }
}

/// Serves an open connection until it ends. `stream` may be anything that carries bytes both ways.
pub(super) async fn serve<K: Key, S: AsyncRead + AsyncWrite>(
    stream: S,
    flow: Flow,
    line: Arc<Line<K>>,
    mut items: Items<K>,
    hub: Arc<Hub<K>>,
    mut closing: watch::Receiver<()>,
) {
    let (reader, writer) = tokio::io::split(stream);
    {
        let mut writing = std::pin::pin!(write(writer, &mut items, &line, &hub));
        let ended = tokio::select! {
            end = read(reader, flow, &line, &hub) => Some(end),
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
                hub.retire(&line.flow);
                let _ = timeout(hub.settings.linger, writing).await;
            }
            Some(End::Slow) => {
                count(&hub.counters.slow);
                tracing::info!(peer = %line.flow.peer, "SIP connection closed: idle or too slow");
            }
            None => {}
        }
    }
    hub.remove(&line.flow);
    abandon(items, &hub).await;
}

async fn read<K: Key>(
    mut stream: impl AsyncRead + Unpin,
    flow: Flow,
    line: &Line<K>,
    hub: &Hub<K>,
) -> End {
    let settings = &hub.settings;
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
                    hub.deliver(bytes, flow).await;
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
        let written = match batch.as_slice() {
            [one] => timeout(hub.settings.write_timeout, stream.write_all(&one.bytes)).await,
            many => {
                joined.clear();
                many.iter().for_each(|item| joined.extend_from_slice(&item.bytes));
                timeout(hub.settings.write_timeout, stream.write_all(&joined)).await
            }
        };
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
