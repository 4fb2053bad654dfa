//! What the threads of one node share: inboxes, the table of connections with its limits, counters.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::doors::Doors;
use super::owner::owner_of;
use super::pauses::Pauses;
use super::{Inbound, Key, Settings, Stats};
use crate::handshake::Gate;
use crate::sip::resolve::{Hop, NoRoute};
use crate::sip::{Flow, Protocol};

/// What can wait in a thread's inbox.
#[derive(Debug)]
pub(super) enum Arrival<K> {
    Up(Inbound<K>),
    /// A name this thread asked for.
    Resolved {
        uri: Box<str>,
        hops: Result<Vec<Hop>, NoRoute>,
    },
}

/// One message to write, and who wants to know what became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item<K> {
    pub bytes: Bytes,
    /// `None` for a pong.
    pub ticket: Option<Ticket<K>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket<K> {
    pub key: K,
    pub thread: usize,
    /// Whether there is another alternate to try.
    pub more: bool,
    /// The caller was told [`super::Sent::Later`] and waits for the outcome.
    pub later: bool,
}

/// What a connection's task writes from.
pub(super) type Items<K> = mpsc::UnboundedReceiver<Item<K>>;

/// One connection, open or being opened.
#[derive(Debug)]
pub(super) struct Line<K> {
    pub flow: Flow,
    /// Whom one of ours is opened to, and so whose certificate it wants; empty without TLS and for those of others.
    pub name: Box<str>,
    pub queue: mpsc::UnboundedSender<Item<K>>,
    /// Octets in `queue`: what bounds it.
    pub queued: AtomicUsize,
    /// Told to end at once.
    pub end: Notify,
    /// Connected; false while one of ours is being opened.
    pub open: AtomicBool,
}

/// Why a connection takes nothing more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unsent<K> {
    /// Its peer does not read; it is being closed.
    Choked,
    /// It has ended; here is the message back.
    Gone(Item<K>),
}

impl<K> Line<K> {
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Puts a message into the queue. One that reads too slowly to keep its queue short loses the connection.
    pub fn push(&self, item: Item<K>, max_queued: usize) -> Result<(), Unsent<K>> {
        let octets = item.bytes.len();
        if self.queued.fetch_add(octets, Ordering::Relaxed) + octets > max_queued {
            self.end.notify_one();
            return Err(Unsent::Choked);
        }
        self.queue.send(item).map_err(|back| Unsent::Gone(back.0))
    }
}

struct Table<K> {
    connections: HashMap<u64, Arc<Line<K>>, ahash::RandomState>,
    /// A connection is used again for the same address and, over TLS, the same name (RFC 5922 §7.3).
    by_peer: HashMap<(Protocol, SocketAddr, Box<str>), u64, ahash::RandomState>,
    per_peer: HashMap<IpAddr, usize, ahash::RandomState>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub datagrams: AtomicU64,
    pub inbox_full: AtomicU64,
    pub send_dropped: AtomicU64,
    pub accepted: AtomicU64,
    pub connected: AtomicU64,
    pub refused_connections: AtomicU64,
    pub slow: AtomicU64,
    pub choked: AtomicU64,
    pub framing_lost: AtomicU64,
    pub handshakes_failed: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) struct Hub<K> {
    pub settings: Settings,
    pub inboxes: Vec<mpsc::Sender<Arrival<K>>>,
    pub counters: Counters,
    pub gate: Gate,
    /// Next hops that asked for a pause.
    pub pauses: Pauses,
    /// Set once, before the first thread serves.
    pub doors: OnceLock<Doors>,
    table: Mutex<Table<K>>,
    next: AtomicU64,
}

impl<K: Key> Hub<K> {
    pub fn new(settings: Settings, inboxes: Vec<mpsc::Sender<Arrival<K>>>) -> Self {
        let table = Table {
            connections: HashMap::default(),
            by_peer: HashMap::default(),
            per_peer: HashMap::default(),
        };
        Self {
            gate: Gate::new(settings.max_handshakes, settings.max_handshakes_per_peer),
            pauses: Pauses::default(),
            doors: OnceLock::new(),
            settings,
            inboxes,
            counters: Counters::default(),
            table: Mutex::new(table),
            next: AtomicU64::new(1),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table<K>> {
        // Each change is one step, so a panic of another thread left nothing half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a new connection; `None` when the limits say no. `name` is whom one of ours is opened to.
    pub fn admit(
        &self,
        protocol: Protocol,
        local: SocketAddr,
        peer: SocketAddr,
        open: bool,
        name: &str,
    ) -> Option<(Arc<Line<K>>, Items<K>)> {
        let mut table = self.table();
        let from_peer = table.per_peer.get(&peer.ip()).copied().unwrap_or(0);
        if table.connections.len() >= self.settings.max_connections
            || from_peer >= self.settings.max_connections_per_peer
        {
            count(&self.counters.refused_connections);
            return None;
        }
        let connection = self.next.fetch_add(1, Ordering::Relaxed);
        let (queue, items) = mpsc::unbounded_channel();
        let line = Arc::new(Line {
            flow: Flow { protocol, local, peer, connection, vouched: false },
            name: name.into(),
            queue,
            queued: AtomicUsize::new(0),
            end: Notify::new(),
            open: AtomicBool::new(open),
        });
        table.per_peer.insert(peer.ip(), from_peer + 1);
        table.by_peer.insert((protocol, peer, name.into()), connection);
        table.connections.insert(connection, Arc::clone(&line));
        Some((line, items))
    }

    pub fn by_id(&self, connection: u64) -> Option<Arc<Line<K>>> {
        self.table().connections.get(&connection).cloned()
    }

    pub fn by_peer(
        &self,
        protocol: Protocol,
        peer: SocketAddr,
        name: &str,
    ) -> Option<Arc<Line<K>>> {
        let table = self.table();
        table.connections.get(table.by_peer.get(&(protocol, peer, name.into()))?).cloned()
    }

    /// No new requests on this connection; answers still find it.
    pub fn retire(&self, line: &Line<K>) {
        let flow = &line.flow;
        let key = (flow.protocol, flow.peer, line.name.clone());
        let mut table = self.table();
        if table.by_peer.get(&key) == Some(&flow.connection) {
            table.by_peer.remove(&key);
        }
    }

    pub fn remove(&self, line: &Line<K>) {
        self.retire(line);
        let flow = &line.flow;
        let mut table = self.table();
        if table.connections.remove(&flow.connection).is_none() {
            return;
        }
        let ip = flow.peer.ip();
        match table.per_peer.get_mut(&ip) {
            Some(left) if *left > 1 => *left -= 1,
            _ => drop(table.per_peer.remove(&ip)),
        }
    }

    /// What others are told of the way back.
    pub fn doors(&self) -> &Doors {
        self.doors.get_or_init(Doors::default)
    }

    /// Hands a message of a connection to its thread, waiting while that one is busy: the peer feels it.
    pub async fn deliver(&self, bytes: Bytes, flow: Flow) {
        let owner = owner_of(&bytes, self.inboxes.len());
        self.post(owner, Arrival::Up(Inbound::Message { bytes, flow })).await;
    }

    pub async fn post(&self, thread: usize, arrival: Arrival<K>) {
        // A thread that has ended takes nothing any more, and nobody else could.
        let _ = self.inboxes[thread].send(arrival).await;
    }

    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Stats {
            connections: self.table().connections.len() as u64,
            datagrams: read(&counters.datagrams),
            inbox_full: read(&counters.inbox_full),
            send_dropped: read(&counters.send_dropped),
            accepted: read(&counters.accepted),
            connected: read(&counters.connected),
            refused_connections: read(&counters.refused_connections),
            slow: read(&counters.slow),
            choked: read(&counters.choked),
            framing_lost: read(&counters.framing_lost),
            handshakes_failed: read(&counters.handshakes_failed),
        }
    }
}
