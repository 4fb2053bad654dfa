//! Our own user agent on a UDP socket, driven step by step by a test.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;

use bytes::Bytes;
use pagecast::sip::message::{Limits, Message};
use pagecast::sip::ua::{Event, Output, Settings, Ua};
use pagecast::sip::{Flow, Protocol, Target};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::{SOON, loopback};

/// The user agent, its socket, and what it reported.
pub struct Ours {
    pub ua: Ua,
    socket: UdpSocket,
    local: SocketAddr,
    events: VecDeque<Event>,
}

impl Ours {
    pub async fn new() -> Self {
        let socket = UdpSocket::bind(loopback()).await.expect("loopback has a free port");
        let local = socket.local_addr().expect("it is bound");
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(local.port());
        let random = move || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            seed ^ (seed >> 29)
        };
        let ua = Ua::new(Settings { sent_by: local.to_string(), ..Settings::default() }, random);
        Self { ua, socket, local, events: VecDeque::new() }
    }

    pub fn address(&self) -> SocketAddr {
        self.local
    }

    /// Now, as the user agent wants it.
    pub fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    /// Sends what waits to be sent, and keeps what is reported.
    async fn flush(&mut self) {
        while let Some(output) = self.ua.poll() {
            match output {
                Output::Send { key, to, bytes, .. } => {
                    let to = match to {
                        Target::Flow(flow) => flow.peer,
                        Target::NextHop { uri, .. } => address_in(&uri),
                    };
                    self.socket.send_to(&bytes, to).await.expect("loopback takes datagrams");
                    self.ua.sent(Instant::now().into_std(), key, Protocol::Udp);
                }
                Output::Event(event) => self.events.push_back(event),
            }
        }
    }

    /// Takes one datagram or lets one timer run.
    async fn step(&mut self) {
        self.flush().await;
        let mut buffer = vec![0; 65_536];
        let wake = self.ua.next_wake().map_or(Instant::now() + SOON, Instant::from_std);
        tokio::select! {
            received = self.socket.recv_from(&mut buffer) => {
                let (length, peer) = received.expect("loopback delivers");
                let flow = Flow { protocol: Protocol::Udp, local: self.local, peer, connection: 0, vouched: false };
                let now = self.now();
                match Message::parse(Bytes::copy_from_slice(&buffer[..length]), &Limits::default()) {
                    Ok(message) => self.ua.receive(now, message, flow),
                    Err(malformed) => panic!("the published stack sent what we do not read: {}", malformed.what),
                }
            }
            () = tokio::time::sleep_until(wake) => {
                let now = self.now();
                self.ua.wake(now);
            }
        }
        self.flush().await;
    }

    /// The next thing the user agent reports.
    pub async fn event(&mut self) -> Event {
        self.flush().await;
        let late = Instant::now() + SOON;
        while self.events.is_empty() {
            tokio::time::timeout_at(late, self.step()).await.expect("something happens soon");
        }
        self.events.pop_front().expect("there is one")
    }

    /// Runs until something the other side does is done.
    pub async fn until<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        let late = Instant::now() + SOON;
        loop {
            tokio::select! {
                biased;
                done = &mut other => {
                    self.flush().await;
                    return done;
                }
                () = self.step() => {}
                () = tokio::time::sleep_until(late) => panic!("the other side does not get ready"),
            }
        }
    }

    /// Nothing more was reported.
    pub fn assert_quiet(&self) {
        assert!(self.events.is_empty(), "{:?}", self.events);
    }
}

/// The address in `sip:user@host:port`, `<sip:…>` and the like; these tests name numeric hosts only.
fn address_in(uri: &str) -> SocketAddr {
    let rest = uri.trim_matches(['<', '>']).split(':').skip(1).collect::<Vec<_>>().join(":");
    let rest = rest.rsplit('@').next().unwrap_or(&rest);
    let end = rest.find([';', '>', '?']).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|_| panic!("{uri} names no address"))
}
