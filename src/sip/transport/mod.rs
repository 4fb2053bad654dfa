//! The sockets of one thread: UDP and stream connections, the choice of the next hop, limits.
//!
//! Start at [`Transport`]. Each of a node's threads has its own UDP sockets and listeners on the same port
//! (SO_REUSEPORT); what the kernel gives to the wrong thread goes to the inbox of its owner ([`owner_of`]).
//! Connections are tasks ([`connection`]), in a table all threads share ([`hub`]); [`tls`] says whom they are shown to and
//! believed from, [`doors`] what others are told of the way back. Never reads more of a message than it needs to frame
//! and to place it. What wants TLS goes over TLS or not at all.
//! Follows RFC 3261 §18 and §26, RFC 3263 (by [`crate::sip::resolve`]), RFC 3581, RFC 5626 §4.4.1 (pings), RFC 5922 and
//! ISC-067.

mod bind;
mod connection;
pub mod doors;
mod fake;
mod hub;
mod owner;
mod pauses;
#[cfg(test)]
mod tests;
pub mod tls;
#[cfg(test)]
mod tls_tests;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::bind::Sockets;
use self::doors::Doors;
use self::hub::{Arrival, Hub, Item, Ticket, Unsent, count};
use self::tls::{Names, Tls};
use crate::sip::message::{Limits, Malformed, Name, Via};
use crate::sip::resolve::{self, Dns, Hop, NoRoute};
use crate::sip::uri::Uri;
use crate::sip::{Flow, Protocol, Target};

pub use self::fake::{FakeSent, FakeWire};
pub use self::owner::owner_of;

/// What names a message towards the caller of [`Transport::send`].
pub trait Key: Copy + fmt::Debug + Send + Sync + 'static {}
impl<K: Copy + fmt::Debug + Send + Sync + 'static> Key for K {}

/// Addresses and bounds.
#[derive(Debug, Clone)]
pub struct Settings {
    pub udp: Vec<SocketAddr>,
    pub tcp: Vec<SocketAddr>,
    /// Nothing is listened on for TLS without `security`.
    pub tls: Vec<SocketAddr>,
    /// Certificates and trusted names; `None`: no TLS, neither way.
    pub security: Option<Tls>,
    pub limits: Limits,
    /// Requests with more octets go over TCP (RFC 3261 §18.1.1).
    pub max_udp_request: usize,
    /// Kernel buffer of each UDP socket, octets.
    pub udp_buffer: usize,
    pub max_connections: usize,
    pub max_connections_per_peer: usize,
    /// Octets that may wait for a slow peer; beyond, its connection is closed.
    pub max_queued: usize,
    /// Messages that may wait for a busy thread; beyond, datagrams are dropped and connections are not read.
    pub inbox: usize,
    /// Requests that may wait for name servers, per thread; beyond, they fail.
    pub max_resolving: usize,
    /// How long a resolved name is used.
    pub route_lifetime: Duration,
    pub connect_timeout: Duration,
    /// From the end of TCP's handshake to the end of TLS's, on both sides.
    pub handshake_timeout: Duration,
    /// Handshakes of clients in progress, in the whole node; beyond, connections are closed at once.
    pub max_handshakes: usize,
    /// Of these, from one address.
    pub max_handshakes_per_peer: usize,
    /// From the first octet of a message to the end of its head.
    pub head_timeout: Duration,
    /// From the first octet of a message to its last.
    pub message_timeout: Duration,
    pub write_timeout: Duration,
    /// A connection on which nothing came for so long is closed.
    pub idle_timeout: Duration,
    /// The longest a next hop is left alone because its 503 asked for it: what comes from far behind it may be in its name.
    pub longest_pause: Duration,
    /// How long answers may still be written after the peer ended its side.
    pub linger: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            udp: Vec::new(),
            tcp: Vec::new(),
            tls: Vec::new(),
            security: None,
            limits: Limits::default(),
            max_udp_request: 1300,
            udp_buffer: 4 * 1024 * 1024,
            max_connections: 4096,
            max_connections_per_peer: 1024,
            max_queued: 32 * 1024 * 1024,
            inbox: 4096,
            max_resolving: 4096,
            route_lifetime: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(4),
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 256,
            max_handshakes_per_peer: 32,
            head_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(900),
            longest_pause: Duration::from_secs(60),
            linger: Duration::from_secs(2),
        }
    }
}

/// What [`Transport::recv`] brings.
#[derive(Debug)]
pub enum Inbound<K> {
    /// One message, framed, not parsed.
    Message { bytes: Bytes, flow: Flow },
    /// A stream whose framing is lost: answer what can be answered; the connection ends by itself.
    Malformed { malformed: Malformed, flow: Flow },
    /// What became of a message: after [`Sent::Later`], and after [`Sent::Now`] where the connection broke before the
    /// message was written.
    Outcome { key: K, sent: Result<Protocol, NotSent> },
}

/// A message did not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotSent {
    /// Whether the next attempt has another place to go to.
    pub more: bool,
}

/// What [`Transport::send`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Now(Protocol),
    /// A name is being resolved or a connection opened: an [`Inbound::Outcome`] follows.
    Later,
    Failed {
        more: bool,
    },
}

/// What the transports of a node have seen, all threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub connections: u64,
    pub datagrams: u64,
    /// Datagrams dropped because their thread's inbox was full.
    pub inbox_full: u64,
    /// Datagrams the kernel did not take.
    pub send_dropped: u64,
    pub accepted: u64,
    pub connected: u64,
    /// Connections refused or not opened because of a limit.
    pub refused_connections: u64,
    /// Connections closed for being idle or too slow.
    pub slow: u64,
    /// Connections closed for not reading.
    pub choked: u64,
    pub framing_lost: u64,
    /// TLS handshakes that failed or took too long, both sides together.
    pub handshakes_failed: u64,
}

/// The open sockets of one thread, on their way into it.
pub struct Bound<K> {
    thread: usize,
    sockets: Sockets,
    hub: Arc<Hub<K>>,
    inbox: mpsc::Receiver<Arrival<K>>,
    dns: Dns,
}

impl<K: Key> Bound<K> {
    /// The addresses listened on, port 0 replaced by the real one.
    ///
    /// # Errors
    /// When a socket does not tell its address.
    pub fn addresses(&self) -> io::Result<Vec<(Protocol, SocketAddr)>> {
        let udp = self.sockets.udp.iter().map(|socket| Ok((Protocol::Udp, socket.local_addr()?)));
        let tcp =
            self.sockets.tcp.iter().map(|listener| Ok((Protocol::Tcp, listener.local_addr()?)));
        let tls =
            self.sockets.tls.iter().map(|listener| Ok((Protocol::Tls, listener.local_addr()?)));
        udp.chain(tcp).chain(tls).collect()
    }

    /// What others are told of the way back, on all threads. Without it Via and Contact stay as they are written.
    pub fn tell(&self, doors: Doors) {
        // The first word counts: another thread's is the same.
        let _ = self.hub.doors.set(doors);
    }

    /// Starts serving. Must be called inside the thread's runtime.
    ///
    /// # Errors
    /// When the runtime takes no more sockets.
    pub fn start(self) -> io::Result<Transport<K>> {
        let (closing, closed) = watch::channel(());
        let udp = self.sockets.udp.into_iter().map(Udp::start).collect::<io::Result<Vec<_>>>()?;
        let tcp = self.sockets.tcp.into_iter().map(|listener| (Protocol::Tcp, listener));
        let tls = self.sockets.tls.into_iter().map(|listener| (Protocol::Tls, listener));
        for (protocol, listener) in tcp.chain(tls) {
            tokio::spawn(accept(
                TcpListener::from_std(listener)?,
                protocol,
                Arc::clone(&self.hub),
                closed.clone(),
            ));
        }
        Ok(Transport::new(self.thread, udp, self.hub, self.inbox, self.dns, closing))
    }
}

/// Takes connections until the transport ends.
async fn accept<K: Key>(
    listener: TcpListener,
    protocol: Protocol,
    hub: Arc<Hub<K>>,
    mut closing: watch::Receiver<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.changed() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly no more file descriptors: wait for some to come back instead of asking in a circle.
                tracing::warn!(%error, "cannot accept a SIP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(local) = stream.local_addr() else { continue };
        // Without it answers are late, not wrong.
        let _ = stream.set_nodelay(true);
        if protocol == Protocol::Tls {
            let Some(pass) = hub.gate.enter(peer.ip()) else {
                count(&hub.counters.refused_connections);
                tracing::warn!(%peer, "SIP connection refused: too many TLS handshakes in progress");
                continue;
            };
            let welcome =
                connection::welcome(stream, peer, pass, Arc::clone(&hub), closing.clone());
            tokio::spawn(welcome);
            continue;
        }
        let Some((line, items)) = hub.admit(Protocol::Tcp, local, peer, true, "") else {
            tracing::warn!(%peer, "SIP connection refused: too many");
            continue;
        };
        count(&hub.counters.accepted);
        tokio::spawn(connection::serve(
            stream,
            line.flow,
            Names::default(),
            line,
            items,
            Arc::clone(&hub),
            closing.clone(),
        ));
    }
}

struct Udp {
    socket: UdpSocket,
    local: SocketAddr,
}

impl Udp {
    fn start(socket: std::net::UdpSocket) -> io::Result<Self> {
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { local: socket.local_addr()?, socket })
    }
}

/// A resolved name and until when it is good.
struct Route {
    hops: Vec<Hop>,
    until: Option<Instant>,
}

/// A request that waits for a name.
struct Waiting<K> {
    key: K,
    attempt: u16,
    octets: usize,
    bytes: Bytes,
    via_at: Option<usize>,
}

/// The SIP I/O of one thread. Sending never waits; receiving brings messages and outcomes in their order.
///
/// Contract: [`Transport::bind`] once per node, [`Bound::start`] once in each thread, then call [`Transport::recv`] in
/// a loop, [`Transport::try_recv`] to take more of the same batch. Dropping it closes its listeners and connections.
pub struct Transport<K> {
    thread: usize,
    udp: Vec<Udp>,
    hub: Arc<Hub<K>>,
    inbox: mpsc::Receiver<Arrival<K>>,
    /// Outcomes found while sending.
    ready: VecDeque<Inbound<K>>,
    dns: Dns,
    supported: Vec<Protocol>,
    routes: HashMap<Box<str>, Route, ahash::RandomState>,
    resolving: HashMap<Box<str>, Vec<Waiting<K>>, ahash::RandomState>,
    waiting: usize,
    buffer: Box<[u8]>,
    /// Which source is asked first, so that none starves.
    inbox_first: bool,
    closing: watch::Sender<()>,
    fake: Option<mpsc::UnboundedSender<FakeSent>>,
}

impl<K: Key> Transport<K> {
    /// Opens the sockets of all threads of a node.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub fn bind(settings: &Settings, threads: usize, dns: &Dns) -> io::Result<Vec<Bound<K>>> {
        let threads = threads.max(1);
        let sockets = bind::open(settings, threads)?;
        let (senders, inboxes): (Vec<_>, Vec<_>) =
            (0..threads).map(|_| mpsc::channel(settings.inbox.max(1))).unzip();
        let hub = Arc::new(Hub::new(settings.clone(), senders));
        let bound =
            sockets.into_iter().zip(inboxes).enumerate().map(|(thread, (sockets, inbox))| Bound {
                thread,
                sockets,
                hub: Arc::clone(&hub),
                inbox,
                dns: dns.clone(),
            });
        Ok(bound.collect())
    }

    /// Transports without sockets and the wire they share. Names resolve in `dns`; every address can be reached.
    pub fn fake(settings: &Settings, threads: usize, dns: &Dns) -> (Vec<Self>, FakeWire<K>) {
        let (senders, inboxes): (Vec<_>, Vec<_>) =
            (0..threads.max(1)).map(|_| mpsc::channel(settings.inbox.max(1))).unzip();
        let hub = Arc::new(Hub::new(settings.clone(), senders));
        let (sender, sent) = mpsc::unbounded_channel();
        let transports = inboxes
            .into_iter()
            .enumerate()
            .map(|(thread, inbox)| {
                let mut one = Self::new(
                    thread,
                    Vec::new(),
                    Arc::clone(&hub),
                    inbox,
                    dns.clone(),
                    watch::channel(()).0,
                );
                if !one.supported.contains(&Protocol::Udp) {
                    one.supported.push(Protocol::Udp);
                }
                one.fake = Some(sender.clone());
                one
            })
            .collect();
        (transports, FakeWire { hub, sent })
    }

    fn new(
        thread: usize,
        udp: Vec<Udp>,
        hub: Arc<Hub<K>>,
        inbox: mpsc::Receiver<Arrival<K>>,
        dns: Dns,
        closing: watch::Sender<()>,
    ) -> Self {
        let mut supported = vec![Protocol::Tcp];
        if !udp.is_empty() {
            supported.push(Protocol::Udp);
        }
        if hub.settings.security.is_some() {
            supported.push(Protocol::Tls);
        }
        Self {
            thread,
            udp,
            hub,
            inbox,
            ready: VecDeque::new(),
            dns,
            supported,
            routes: HashMap::default(),
            resolving: HashMap::default(),
            waiting: 0,
            buffer: vec![0; 65536].into_boxed_slice(),
            inbox_first: false,
            closing,
            fake: None,
        }
    }

    /// The counters of the whole node.
    pub fn stats(&self) -> Stats {
        self.hub.stats()
    }

    /// The next message or outcome. Cancel-safe.
    pub async fn recv(&mut self) -> Inbound<K> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// The next message or outcome that is there already.
    pub fn try_recv(&mut self) -> Option<Inbound<K>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            self.inbox_first = !self.inbox_first;
            if self.inbox_first
                && let Ok(arrival) = self.inbox.try_recv()
            {
                match self.arrived(arrival) {
                    Some(up) => return Some(up),
                    None => continue,
                }
            }
            let mut found = None;
            for at in 0..self.udp.len() {
                if let Ok((octets, peer)) = self.udp[at].socket.try_recv_from(&mut self.buffer) {
                    found = Some((at, octets, peer));
                    break;
                }
            }
            if let Some((at, octets, peer)) = found {
                match self.datagram(at, octets, peer) {
                    Some(up) => return Some(up),
                    None => continue,
                }
            }
            match self.inbox.try_recv() {
                Ok(arrival) => {
                    if let Some(up) = self.arrived(arrival) {
                        return Some(up);
                    }
                }
                Err(_) => return None,
            }
        }
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Inbound<K>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Poll::Ready(ready);
            }
            self.inbox_first = !self.inbox_first;
            let first = self.inbox_first;
            let step = match (first, self.poll_one(first, context)) {
                (_, Poll::Ready(step)) => step,
                (first, Poll::Pending) => match self.poll_one(!first, context) {
                    Poll::Ready(step) => step,
                    Poll::Pending => return Poll::Pending,
                },
            };
            if let Some(up) = step {
                return Poll::Ready(up);
            }
        }
    }

    /// One step on one source; `Ready(None)` when it was nothing for the caller.
    fn poll_one(&mut self, inbox: bool, context: &mut Context<'_>) -> Poll<Option<Inbound<K>>> {
        if inbox {
            // The hub holds a sender of this inbox, so it never ends.
            return match self.inbox.poll_recv(context) {
                Poll::Ready(Some(arrival)) => Poll::Ready(self.arrived(arrival)),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            };
        }
        for at in 0..self.udp.len() {
            let mut buffer = ReadBuf::new(&mut self.buffer);
            match self.udp[at].socket.poll_recv_from(context, &mut buffer) {
                Poll::Ready(Ok(peer)) => {
                    let octets = buffer.filled().len();
                    return Poll::Ready(self.datagram(at, octets, peer));
                }
                // An ICMP message about something sent earlier: the transaction's timer finds out by itself.
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// A datagram in the buffer: ours to hand up, another thread's, or nothing.
    fn datagram(&mut self, at: usize, octets: usize, peer: SocketAddr) -> Option<Inbound<K>> {
        let data = &self.buffer[..octets];
        // Keep-alives of any kind: empty lines, single octets, STUN.
        if octets < 12
            || data[0] < b' ' && !data.starts_with(b"\r\n\r\n") && !data.starts_with(b"\r\n")
            || data.trim_ascii().is_empty()
        {
            return None;
        }
        count(&self.hub.counters.datagrams);
        let flow = Flow {
            protocol: Protocol::Udp,
            local: self.udp[at].local,
            peer,
            connection: 0,
            vouched: false,
        };
        let bytes = Bytes::copy_from_slice(data);
        let owner = owner_of(&bytes, self.hub.inboxes.len());
        let message = Inbound::Message { bytes, flow };
        if owner == self.thread {
            return Some(message);
        }
        if self.hub.inboxes[owner].try_send(Arrival::Up(message)).is_err() {
            count(&self.hub.counters.inbox_full);
        }
        None
    }

    fn arrived(&mut self, arrival: Arrival<K>) -> Option<Inbound<K>> {
        match arrival {
            Arrival::Up(up) => Some(up),
            Arrival::Resolved { uri, hops } => {
                self.resolved(uri, hops);
                self.ready.pop_front()
            }
        }
    }

    /// Sends one message. `via_at` is where the three letters of the transport stand in a request's topmost Via;
    /// they are set to what was chosen.
    pub fn send(&mut self, key: K, target: &Target, bytes: Bytes, via_at: Option<usize>) -> Sent {
        match target {
            Target::Flow(flow) => self.send_back(key, flow, bytes),
            Target::NextHop { uri, attempt, octets } => {
                self.send_on(key, uri, (*attempt, *octets), bytes, via_at)
            }
        }
    }

    /// RFC 3261 §18.2.2, RFC 3581 §4: an answer goes the way its request came. Over UDP that is the source address,
    /// and the source port if rport was there, else that of sent-by. Where a connection is gone, a new one is made to
    /// the source address and the port of sent-by.
    fn send_back(&mut self, key: K, flow: &Flow, mut bytes: Bytes) -> Sent {
        let by_via = |bytes: &Bytes| {
            let via = top_via(bytes);
            SocketAddr::new(
                flow.peer.ip(),
                via.and_then(|via| via.port).unwrap_or(if flow.protocol == Protocol::Tls {
                    5061
                } else {
                    5060
                }),
            )
        };
        let doors = self.hub.doors();
        bytes = doors.addressed(bytes, None, flow.protocol, doors.of(flow));
        if let Some(fake) = &self.fake {
            let sent = FakeSent {
                protocol: flow.protocol,
                to: flow.peer,
                connection: flow.connection,
                bytes,
            };
            return if fake.send(sent).is_ok() {
                Sent::Now(flow.protocol)
            } else {
                Sent::Failed { more: false }
            };
        }
        if flow.protocol == Protocol::Udp {
            let response = bytes.starts_with(b"SIP/");
            let to = if response && top_via(&bytes).is_some_and(|via| via.rport.is_none()) {
                by_via(&bytes)
            } else {
                flow.peer
            };
            return self.send_datagram(Some(flow.local), to, &bytes, false);
        }
        let ticket = Ticket { key, thread: self.thread, more: false, later: false };
        if let Some(line) = self.hub.by_id(flow.connection) {
            let item = Item { bytes, ticket: Some(ticket) };
            match line.push(item, self.hub.settings.max_queued) {
                Ok(()) => return Sent::Now(flow.protocol),
                Err(Unsent::Choked) => return Sent::Failed { more: false },
                Err(Unsent::Gone(item)) => bytes = item.bytes,
            }
        }
        let hop = Hop { protocol: flow.protocol, address: by_via(&bytes) };
        let name = top_via(&bytes).map_or(String::new(), |via| via.host.to_owned());
        self.send_stream(hop, &name, bytes, ticket)
    }

    fn send_on(
        &mut self,
        key: K,
        uri: &str,
        (attempt, octets): (u16, usize),
        bytes: Bytes,
        via_at: Option<usize>,
    ) -> Sent {
        let large = bytes.len().max(octets) > self.hub.settings.max_udp_request;
        let hops = match self.route(uri, attempt) {
            Some(Ok(hops)) => hops,
            Some(Err(why)) => {
                tracing::info!(uri, %why, "no way to send to");
                return Sent::Failed { more: false };
            }
            None => return self.ask(key, uri, (attempt, octets), bytes, via_at),
        };
        let (hop, count) = if large {
            let all = resolve::for_large(hops);
            (all.get(usize::from(attempt)).copied(), all.len())
        } else {
            (hops.get(usize::from(attempt)).copied(), hops.len())
        };
        let Some(hop) = hop else { return Sent::Failed { more: false } };
        let more = usize::from(attempt) + 1 < count;
        if self.hub.pauses.holds(hop.address, Instant::now()) && opens(&bytes) {
            tracing::debug!(uri, to = %hop.address, "the next hop has asked for a pause");
            return Sent::Failed { more };
        }
        if hop.protocol != Protocol::Tls && is_secure(&bytes) {
            tracing::info!(uri, "no TLS on the way to a sips URI, and nothing else will do");
            return Sent::Failed { more };
        }
        let doors = self.hub.doors();
        let told = doors.towards(hop.protocol, hop.address.ip());
        let bytes = doors.addressed(bytes, via_at, hop.protocol, told);
        if let Some(fake) = &self.fake {
            let sent = FakeSent { protocol: hop.protocol, to: hop.address, connection: 0, bytes };
            return if fake.send(sent).is_ok() {
                Sent::Now(hop.protocol)
            } else {
                Sent::Failed { more }
            };
        }
        match hop.protocol {
            Protocol::Udp => self.send_datagram(None, hop.address, &bytes, more),
            Protocol::Tcp | Protocol::Tls => {
                let ticket = Ticket { key, thread: self.thread, more, later: false };
                let name = match Uri::parse(uri) {
                    Ok(uri) if hop.protocol == Protocol::Tls => uri.host().to_ascii_lowercase(),
                    _ => String::new(),
                };
                self.send_stream(hop, &name, bytes, ticket)
            }
        }
    }

    /// A message as it leaves this way, for call flows; as it is where the way is not known yet.
    pub fn shown(&self, to: &Target, bytes: &Bytes, via_at: Option<usize>) -> Bytes {
        let doors = self.hub.doors();
        match to {
            Target::Flow(flow) => {
                doors.addressed(bytes.clone(), None, flow.protocol, doors.of(flow))
            }
            Target::NextHop { attempt, octets, .. } => {
                match self.hop_of(to, *attempt, bytes.len().max(*octets)) {
                    None => bytes.clone(),
                    Some(hop) => {
                        let told = doors.towards(hop.protocol, hop.address.ip());
                        doors.addressed(bytes.clone(), via_at, hop.protocol, told)
                    }
                }
            }
        }
    }

    /// Where this attempt goes, as far as it is known.
    fn hop_of(&self, to: &Target, attempt: u16, octets: usize) -> Option<Hop> {
        let Target::NextHop { uri, .. } = to else { return None };
        let hops = &self.routes.get(uri.as_str())?.hops;
        let at = usize::from(attempt);
        if octets > self.hub.settings.max_udp_request {
            resolve::for_large(hops).get(at).copied()
        } else {
            hops.get(at).copied()
        }
    }

    /// Which attempt leads to another address than this one and those before it.
    ///
    /// ISC-071 (RFC 3263 §4.3): of what is known; nobody is asked.
    pub fn alternate(&self, to: &Target) -> Option<u16> {
        let Target::NextHop { uri, attempt, octets } = to else { return None };
        let hops = &self.routes.get(uri.as_str())?.hops;
        let large;
        let hops = if *octets > self.hub.settings.max_udp_request {
            large = resolve::for_large(hops);
            &large
        } else {
            hops
        };
        let now = usize::from(*attempt);
        let tried = hops.get(..=now)?;
        let later = hops.iter().enumerate().skip(now + 1);
        let mut others =
            later.filter(|(_, hop)| tried.iter().all(|other| other.address != hop.address));
        others.next().and_then(|(at, _)| u16::try_from(at).ok())
    }

    /// The next hop of this way has answered 503 and named a time: until then it gets nothing new.
    ///
    /// ISC-069 (RFC 3261 §21.5.4).
    pub fn pause(&self, to: &Target, seconds: u32) {
        let Target::NextHop { uri, attempt, octets } = to else { return };
        let Some(hop) = self.hop_of(to, *attempt, *octets) else { return };
        let length = Duration::from_secs(u64::from(seconds)).min(self.hub.settings.longest_pause);
        let taken = self.hub.pauses.add(hop.address, Instant::now(), length);
        tracing::info!(uri, to = %hop.address, ?length, taken, "the next hop is overloaded: 503 with Retry-After");
    }

    /// The hops of a URI if they are known; `None` if name servers must be asked. A later attempt goes by the order the
    /// first one went by.
    fn route(&mut self, uri: &str, attempt: u16) -> Option<Result<&[Hop], NoRoute>> {
        let good = self.routes.get(uri).is_some_and(|route| {
            attempt > 0 || route.until.is_none_or(|until| Instant::now() < until)
        });
        if !good {
            let parsed = match Uri::parse(uri) {
                Ok(parsed) => parsed,
                Err(_) => return Some(Err(NoRoute::Scheme)),
            };
            match resolve::numeric(&parsed, &self.supported) {
                Ok(Some(hop)) => self.remember(uri.into(), Route { hops: vec![hop], until: None }),
                Ok(None) => return None,
                Err(why) => return Some(Err(why)),
            }
        }
        self.routes.get(uri).map(|route| Ok(route.hops.as_slice()))
    }

    fn remember(&mut self, uri: Box<str>, route: Route) {
        const MAX: usize = 4096;
        if self.routes.len() >= MAX {
            self.routes.clear();
        }
        self.routes.insert(uri, route);
    }

    /// Asks name servers; the request waits.
    fn ask(
        &mut self,
        key: K,
        uri: &str,
        (attempt, octets): (u16, usize),
        bytes: Bytes,
        via_at: Option<usize>,
    ) -> Sent {
        if self.waiting >= self.hub.settings.max_resolving {
            return Sent::Failed { more: false };
        }
        self.waiting += 1;
        let waiting = Waiting { key, attempt, octets, bytes, via_at };
        if let Some(others) = self.resolving.get_mut(uri) {
            others.push(waiting);
            return Sent::Later;
        }
        let name: Box<str> = uri.into();
        self.resolving.insert(name.clone(), vec![waiting]);
        let (dns, hub, thread, supported) =
            (self.dns.clone(), Arc::clone(&self.hub), self.thread, self.supported.clone());
        tokio::spawn(async move {
            let hops = match Uri::parse(&name) {
                Ok(uri) => dns.hops(&uri, &supported, &mut lot).await,
                Err(_) => Err(NoRoute::Scheme),
            };
            hub.post(thread, Arrival::Resolved { uri: name, hops }).await;
        });
        Sent::Later
    }

    fn resolved(&mut self, uri: Box<str>, hops: Result<Vec<Hop>, NoRoute>) {
        let waiting = self.resolving.remove(&uri).unwrap_or_default();
        self.waiting -= waiting.len();
        let known = match hops {
            Ok(hops) => {
                let until = Some(Instant::now() + self.hub.settings.route_lifetime);
                self.remember(uri.clone(), Route { hops, until });
                true
            }
            Err(why) => {
                tracing::info!(%uri, %why, "no way to send to");
                false
            }
        };
        for one in waiting {
            let sent = if known {
                self.send_on(one.key, &uri, (one.attempt, one.octets), one.bytes, one.via_at)
            } else {
                Sent::Failed { more: false }
            };
            let outcome = match sent {
                Sent::Now(protocol) => Ok(protocol),
                Sent::Failed { more } => Err(NotSent { more }),
                Sent::Later => continue,
            };
            self.ready.push_back(Inbound::Outcome { key: one.key, sent: outcome });
        }
    }

    fn send_datagram(
        &mut self,
        local: Option<SocketAddr>,
        to: SocketAddr,
        bytes: &[u8],
        more: bool,
    ) -> Sent {
        let own = self.udp.iter().find(|udp| local == Some(udp.local));
        let Some(udp) =
            own.or_else(|| self.udp.iter().find(|udp| udp.local.is_ipv4() == to.is_ipv4()))
        else {
            return Sent::Failed { more };
        };
        let mut result = udp.socket.try_send_to(bytes, to);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            // The error belongs to an earlier datagram; reading it has cleared it.
            result = udp.socket.try_send_to(bytes, to);
        }
        match result {
            Ok(_) => Sent::Now(Protocol::Udp),
            // A full kernel buffer loses the datagram as a network would; it is sent again by its transaction.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                count(&self.hub.counters.send_dropped);
                Sent::Now(Protocol::Udp)
            }
            Err(error) => {
                tracing::info!(%to, %error, "cannot send a datagram");
                Sent::Failed { more }
            }
        }
    }

    /// Over a connection to exactly this address, one of theirs or one of ours; a new one where there is none. Over TLS
    /// only to whom shows that it is `name`.
    fn send_stream(&mut self, hop: Hop, name: &str, mut bytes: Bytes, ticket: Ticket<K>) -> Sent {
        let max = self.hub.settings.max_queued;
        let name = if hop.protocol == Protocol::Tls { name } else { "" };
        if let Some(line) = self.hub.by_peer(hop.protocol, hop.address, name) {
            // What is still being opened tells its outcome later, so the ticket says so.
            let open = line.is_open();
            let item = Item { bytes, ticket: Some(Ticket { later: !open, ..ticket }) };
            match line.push(item, max) {
                Ok(()) if open => return Sent::Now(hop.protocol),
                Ok(()) => return Sent::Later,
                Err(Unsent::Choked) => return Sent::Failed { more: ticket.more },
                Err(Unsent::Gone(item)) => bytes = item.bytes,
            }
        }
        let connects = match hop.protocol {
            Protocol::Udp => false,
            Protocol::Tcp => true,
            Protocol::Tls => self.hub.settings.security.is_some() && !name.is_empty(),
        };
        if !connects {
            return Sent::Failed { more: ticket.more };
        }
        let local = SocketAddr::new(
            if hop.address.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() },
            0,
        );
        let Some((line, items)) = self.hub.admit(hop.protocol, local, hop.address, false, name)
        else {
            tracing::warn!(peer = %hop.address, "SIP connection not opened: too many");
            return Sent::Failed { more: ticket.more };
        };
        let item = Item { bytes, ticket: Some(Ticket { later: true, ..ticket }) };
        if line.push(item, max).is_err() {
            self.hub.remove(&line);
            return Sent::Failed { more: ticket.more };
        }
        tokio::spawn(connection::dial(
            line,
            items,
            Arc::clone(&self.hub),
            self.closing.subscribe(),
        ));
        Sent::Later
    }
}

/// Four random bytes for the choice between equal servers; without randomness the first one is as good.
fn lot() -> u32 {
    getrandom::u32().unwrap_or(0)
}

/// The topmost Via of a message we wrote: its second line.
fn top_via(bytes: &[u8]) -> Option<Via<'_>> {
    let start = memchr::memchr(b'\n', bytes)? + 1;
    let line = &bytes[start..];
    let line = &line[..memchr::memchr(b'\r', line)?];
    let colon = memchr::memchr(b':', line)?;
    if Name::known(&line[..colon]) != Some(Name::Via) {
        return None;
    }
    Via::parse(line.get(colon + 1..)?.trim_ascii())
}

/// Whether a request of ours that opens something asks for TLS on every hop.
///
/// RFC 3261 §8.1.2, §26.2.2: its Request-URI is a sips URI. What is inside a dialog follows the dialog's route set, and
/// what has more than one Via is not ours.
fn is_secure(bytes: &[u8]) -> bool {
    let uri = memchr::memchr(b' ', bytes).and_then(|space| bytes.get(space + 1..space + 6));
    uri.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sips:")) && opens(bytes)
}

/// Whether this is a request we wrote ourselves, with nothing before it in a dialog.
fn opens(bytes: &[u8]) -> bool {
    let head = &bytes[..memchr::memmem::find(bytes, b"\r\n\r\n").unwrap_or(bytes.len())];
    let mut vias = memchr::memmem::find_iter(head, b"\r\nVia: ");
    let one_via = vias.next().is_some() && vias.next().is_none();
    let to = memchr::memmem::find(head, b"\r\nTo: ").map(|at| &head[at + 2..]);
    let to = to.map(|to| &to[..memchr::memchr(b'\r', to).unwrap_or(to.len())]);
    let tagged = to.is_none_or(|to| memchr::memmem::find(to, b">;tag=").is_some());
    one_via && !tagged && !bytes.starts_with(b"ACK ") && !bytes.starts_with(b"CANCEL ")
}
