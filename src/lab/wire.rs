//! A neighbour's SIP sockets: UDP and TCP on one port, TLS on another where it is wanted; messages in one queue.
//!
//! Start at [`Wire::open`]. Knows no transaction: what is to be repeated is repeated by whoever sends it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::locked;
use crate::handshake::server_name;
use crate::sip::message::{Frame, Framer, Limits, Malformed, Message};
use crate::sip::transport::tls::Tls;

/// Largest datagram sent; beyond it goes TCP (RFC 3261 §18.1.1 with the path MTU of loopback).
pub(super) const LARGEST_DATAGRAM: usize = 60_000;
/// Messages waiting to be read by their owner.
const QUEUE: usize = 4096;
/// Messages waiting for one connection.
const OUT_QUEUE: usize = 64;
/// Connections kept open.
const MOST_CONNECTIONS: usize = 256;
/// Octets the system may hold for us while we are busy.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The way a message came, and so the way its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Udp(SocketAddr),
    Tcp {
        connection: u64,
        peer: SocketAddr,
    },
    /// Connection 0: whichever leads there, or a new one.
    Tls {
        connection: u64,
        peer: SocketAddr,
    },
}

impl Way {
    pub(super) fn peer(self) -> SocketAddr {
        match self {
            Self::Udp(peer) | Self::Tcp { peer, .. } | Self::Tls { peer, .. } => peer,
        }
    }

    pub(super) fn is_tls(self) -> bool {
        matches!(self, Self::Tls { .. })
    }
}

/// A message, or what should have been one.
pub(super) struct Arrived {
    pub(super) message: Result<Message, Malformed>,
    pub(super) way: Way,
}

/// The sockets. Dropping the last clone closes them.
#[derive(Clone)]
pub(super) struct Wire {
    address: SocketAddr,
    udp: Arc<UdpSocket>,
    connections: Arc<Mutex<Connections>>,
    inbox: mpsc::Sender<Arrived>,
    secure: Option<(SocketAddr, Tls)>,
    _tasks: Arc<JoinSet<()>>,
}

#[derive(Default)]
struct Connections {
    last: u64,
    open: BTreeMap<u64, (SocketAddr, mpsc::Sender<Bytes>)>,
}

impl Wire {
    /// Binds UDP and TCP to `listen`; port 0 takes one that is free for both.
    pub(super) async fn open(listen: SocketAddr) -> io::Result<(Self, mpsc::Receiver<Arrived>)> {
        Self::open_secure(listen, None).await
    }

    /// The same, and TLS at an address of its own.
    pub(super) async fn open_secure(
        listen: SocketAddr,
        secure: Option<(SocketAddr, Tls)>,
    ) -> io::Result<(Self, mpsc::Receiver<Arrived>)> {
        let (tcp, udp) = bind_both(listen).await?;
        let address = udp.local_addr()?;
        let (inbox, outbox) = mpsc::channel(QUEUE);
        let udp = Arc::new(udp);
        let connections = Arc::new(Mutex::new(Connections::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(read_datagrams(udp.clone(), inbox.clone()));
        tasks.spawn(accept(tcp, connections.clone(), inbox.clone()));
        let secure = match secure {
            None => None,
            Some((listen, tls)) => {
                let listener = TcpListener::bind(listen).await?;
                let address = listener.local_addr()?;
                let (connections, inbox) = (connections.clone(), inbox.clone());
                tasks.spawn(accept_secure(listener, tls.clone(), connections, inbox));
                Some((address, tls))
            }
        };
        let wire = Self { address, udp, connections, inbox, secure, _tasks: Arc::new(tasks) };
        Ok((wire, outbox))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where TLS is listened for.
    pub(super) fn secure_address(&self) -> Option<SocketAddr> {
        self.secure.as_ref().map(|(address, _)| *address)
    }

    /// Sends back the way something came. What cannot be sent is lost, as on any network.
    pub(super) async fn send(&self, way: Way, bytes: Bytes) {
        match way {
            Way::Udp(to) => self.send_to(to, bytes).await,
            Way::Tls { connection: 0, peer } => self.send_by_tls(peer, bytes).await,
            Way::Tcp { connection, peer } | Way::Tls { connection, peer } => {
                let open =
                    locked(&self.connections).open.get(&connection).map(|(_, to)| to.clone());
                match open {
                    Some(to) => lost_if(to.send(bytes).await.is_err(), peer),
                    None => lost_if(true, peer),
                }
            }
        }
    }

    /// Whether the way something came is still there.
    pub(super) fn leads_back(&self, way: Way) -> bool {
        match way {
            Way::Udp(_) => true,
            Way::Tcp { connection, .. } | Way::Tls { connection, .. } => {
                locked(&self.connections).open.contains_key(&connection)
            }
        }
    }

    /// Sends to an address: UDP, or TCP where a datagram would be too large.
    pub(super) async fn send_to(&self, to: SocketAddr, bytes: Bytes) {
        if bytes.len() > LARGEST_DATAGRAM {
            return self.send_by_tcp(to, bytes).await;
        }
        lost_if(self.udp.send_to(&bytes, to).await.is_err(), to);
    }

    fn known(&self, to: SocketAddr) -> Option<mpsc::Sender<Bytes>> {
        let connections = locked(&self.connections);
        let mut open = connections.open.values();
        open.find(|(peer, _)| *peer == to).map(|(_, sender)| sender.clone())
    }

    /// Sends to an address by TLS, over a connection that is there or a new one.
    async fn send_by_tls(&self, to: SocketAddr, bytes: Bytes) {
        let sender = match self.known(to) {
            Some(sender) => Some(sender),
            None => self.dial(to).await,
        };
        match sender {
            Some(sender) => lost_if(sender.send(bytes).await.is_err(), to),
            None => lost_if(true, to),
        }
    }

    async fn dial(&self, to: SocketAddr) -> Option<mpsc::Sender<Bytes>> {
        let connector = self.secure.as_ref()?.1.connector()?;
        let name = server_name(&to.ip().to_string())?;
        let stream = TcpStream::connect(to).await.ok()?;
        match connector.connect(name, stream).await {
            Ok(stream) => {
                let way = |connection| Way::Tls { connection, peer: to };
                keep(stream, way, &self.connections, &self.inbox)
            }
            Err(error) => {
                tracing::info!(%to, %error, "the lab's TLS handshake failed");
                None
            }
        }
    }

    /// Sends to an address by TCP, over a connection that is there or a new one.
    pub(super) async fn send_by_tcp(&self, to: SocketAddr, bytes: Bytes) {
        let sender = match self.known(to) {
            Some(sender) => Some(sender),
            None => match TcpStream::connect(to).await {
                Ok(stream) => {
                    let way = |connection| Way::Tcp { connection, peer: to };
                    keep(stream, way, &self.connections, &self.inbox)
                }
                Err(_) => None,
            },
        };
        match sender {
            Some(sender) => lost_if(sender.send(bytes).await.is_err(), to),
            None => lost_if(true, to),
        }
    }
}

fn lost_if(lost: bool, to: SocketAddr) {
    if lost {
        tracing::debug!(%to, "a message of the lab was not sent");
    }
}

async fn bind_both(listen: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let mut tries = 20;
    loop {
        let tcp = TcpListener::bind(listen).await?;
        match bind_udp(tcp.local_addr()?) {
            Ok(udp) => return Ok((tcp, udp)),
            // Port 0: the port was free for TCP only.
            Err(error) if listen.port() != 0 || tries == 0 => return Err(error),
            Err(_) => tries -= 1,
        }
    }
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    // A smaller buffer than asked for is no reason not to run.
    if let Err(error) = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER) {
        tracing::debug!(%error, "the receive buffer stays as it is");
    }
    UdpSocket::from_std(socket)
}

async fn read_datagrams(udp: Arc<UdpSocket>, inbox: mpsc::Sender<Arrived>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((octets, peer)) = udp.recv_from(&mut buffer).await else {
            continue; // an ICMP error of an earlier datagram
        };
        if octets <= 4 {
            continue; // a keep-alive
        }
        let bytes = Bytes::copy_from_slice(&buffer[..octets]);
        let message = Message::parse(bytes, &Limits::default());
        if inbox.send(Arrived { message, way: Way::Udp(peer) }).await.is_err() {
            return;
        }
    }
}

async fn accept(
    listener: TcpListener,
    connections: Arc<Mutex<Connections>>,
    inbox: mpsc::Sender<Arrived>,
) {
    loop {
        if let Ok((stream, peer)) = listener.accept().await {
            let way = |connection| Way::Tcp { connection, peer };
            keep(stream, way, &connections, &inbox);
        }
    }
}

async fn accept_secure(
    listener: TcpListener,
    tls: Tls,
    connections: Arc<Mutex<Connections>>,
    inbox: mpsc::Sender<Arrived>,
) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let (acceptor, connections, inbox) = (tls.acceptor(), connections.clone(), inbox.clone());
        tokio::spawn(async move {
            match acceptor.accept(stream).await {
                Ok(stream) => {
                    let way = |connection| Way::Tls { connection, peer };
                    keep(stream, way, &connections, &inbox);
                }
                Err(error) => tracing::info!(%peer, %error, "a TLS handshake with the lab failed"),
            }
        });
    }
}

/// Takes a connection into the table and serves it; `None` when the table is full.
fn keep(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    way: impl FnOnce(u64) -> Way,
    connections: &Arc<Mutex<Connections>>,
    inbox: &mpsc::Sender<Arrived>,
) -> Option<mpsc::Sender<Bytes>> {
    let (sender, queue) = mpsc::channel(OUT_QUEUE);
    let (id, way) = {
        let mut table = locked(connections);
        if table.open.len() >= MOST_CONNECTIONS {
            return None;
        }
        table.last += 1;
        let id = table.last;
        let way = way(id);
        table.open.insert(id, (way.peer(), sender.clone()));
        (id, way)
    };
    let (connections, inbox) = (connections.clone(), inbox.clone());
    tokio::spawn(async move {
        serve(stream, way, queue, &inbox).await;
        locked(&connections).open.remove(&id);
    });
    Some(sender)
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite,
    way: Way,
    mut queue: mpsc::Receiver<Bytes>,
    inbox: &mpsc::Sender<Arrived>,
) {
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = async move {
        while let Some(bytes) = queue.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let reading = async {
        let limits = Limits::default();
        let mut framer = Framer::new(&limits);
        let mut buffer = BytesMut::new();
        while matches!(read.read_buf(&mut buffer).await, Ok(1..)) {
            loop {
                let message = match framer.feed(&mut buffer) {
                    Ok(None) => break,
                    Ok(Some(Frame::Ping | Frame::Pong)) => continue,
                    Ok(Some(Frame::Message(bytes))) => Message::parse(bytes, &limits),
                    Err(lost) => Err(lost.0),
                };
                let lost = message.is_err();
                if inbox.send(Arrived { message, way }).await.is_err() || lost {
                    return;
                }
            }
        }
    };
    // Neither waits for the other: a peer that writes before it reads is served.
    tokio::select! {
        () = inbox.closed() => {}
        () = writing => {}
        () = reading => {}
    }
}
