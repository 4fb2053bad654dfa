//! What the tests of this crate share: an endpoint of the published stack, and a plain socket that speaks SIP as text.
//!
//! The published stack is code we did not write, so it shows what our own tests cannot: that both of us read the same
//! standards. It is not on our wire because of the gaps `tests/known_gaps.rs` keeps an eye on.

pub mod ours;

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ezk_sip_core::{Endpoint, IncomingRequest, Layer, MayTake};
use ezk_sip_types::{Method, StatusCode};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// How long a test waits for something that has to come.
pub const SOON: Duration = Duration::from_secs(5);

/// How long a test waits to be satisfied that nothing comes.
pub const A_WHILE: Duration = Duration::from_millis(400);

/// What the application above the published stack was given.
#[derive(Debug)]
pub struct Seen {
    pub method: Method,
    pub body: Bytes,
}

/// Answers 200 to every request but INVITE and ACK, and tells the test what it saw.
pub struct Answering(pub mpsc::UnboundedSender<Seen>);

#[async_trait]
impl Layer for Answering {
    fn name(&self) -> &'static str {
        "answering"
    }

    async fn receive(&self, endpoint: &Endpoint, request: MayTake<'_, IncomingRequest>) {
        if matches!(request.line.method, Method::INVITE | Method::ACK) {
            return;
        }
        let mut request = request.take();
        let seen = Seen { method: request.line.method.clone(), body: request.body.clone() };
        let response = endpoint.create_response(&request, StatusCode::OK, None);
        let transaction = endpoint.create_server_tsx(&mut request);
        // The test may be over before the answer is out.
        let _ = self.0.send(seen);
        let _ = transaction.respond(response).await;
    }
}

/// Hands every INVITE outside a dialog to the test.
pub struct Inviting(pub mpsc::UnboundedSender<IncomingRequest>);

#[async_trait]
impl Layer for Inviting {
    fn name(&self) -> &'static str {
        "inviting"
    }

    async fn receive(&self, _: &Endpoint, request: MayTake<'_, IncomingRequest>) {
        if request.line.method == Method::INVITE {
            // The test may be over.
            let _ = self.0.send(request.take());
        }
    }
}

/// An endpoint of the published stack on loopback that answers, and what it saw.
pub async fn answering() -> (SocketAddr, mpsc::UnboundedReceiver<Seen>) {
    let (seen, reports) = mpsc::unbounded_channel();
    let mut builder = Endpoint::builder();
    let bound = builder.bind_udp(loopback()).await.expect("loopback has a free port").bound();
    builder.add_layer(Answering(seen));
    builder.build();
    (bound, reports)
}

pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A socket that writes and reads SIP as text.
pub struct Wire {
    pub socket: UdpSocket,
}

impl Wire {
    pub async fn new() -> Self {
        Self { socket: UdpSocket::bind(loopback()).await.expect("loopback has a free port") }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is bound")
    }

    pub async fn send(&self, to: SocketAddr, text: &str) {
        self.socket.send_to(text.as_bytes(), to).await.expect("loopback takes datagrams");
    }

    /// The next datagram, or `None` after `limit`.
    pub async fn receive(&self, limit: Duration) -> Option<(String, SocketAddr)> {
        let mut buffer = vec![0; 65_536];
        let (length, from) = tokio::time::timeout(limit, self.socket.recv_from(&mut buffer))
            .await
            .ok()?
            .expect("loopback delivers");
        Some((String::from_utf8_lossy(&buffer[..length]).into_owned(), from))
    }

    /// The next datagram whose start line begins like this.
    pub async fn expect(&self, start: &str) -> (String, SocketAddr) {
        loop {
            let (text, from) = self
                .receive(SOON)
                .await
                .unwrap_or_else(|| panic!("nothing that starts with {start} came"));
            if text.starts_with(start) {
                return (text, from);
            }
        }
    }
}

/// A plain request a stack has to answer, made from these lines.
pub struct Ask {
    pub method: &'static str,
    pub uri: &'static str,
    pub via: Option<&'static str>,
    pub from: &'static str,
    pub cseq_method: &'static str,
    pub more: &'static str,
    pub body: &'static str,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            method: "OPTIONS",
            uri: "sip:as.example",
            via: None,
            from: "<sip:alice@home1.example>;tag=a1",
            cseq_method: "OPTIONS",
            more: "Content-Length: 0\r\n",
            body: "",
        }
    }
}

impl Ask {
    pub fn text(&self, number: u32, sender: SocketAddr) -> String {
        let own = format!("SIP/2.0/UDP {sender};branch=z9hG4bK{number};rport");
        format!(
            "{} {} SIP/2.0\r\nVia: {}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: <sip:as.example>\r\n\
             Call-ID: ask-{number}@{sender}\r\nCSeq: {number} {}\r\n{}\r\n{}",
            self.method,
            self.uri,
            self.via.unwrap_or(&own),
            self.from,
            self.cseq_method,
            self.more,
            self.body
        )
    }
}

/// The values of a header, in order, one a line or separated by commas outside quotes and brackets.
pub fn values<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    let head = message.split("\r\n\r\n").next().unwrap_or(message);
    let mut found = Vec::new();
    for line in head.lines().skip(1) {
        let Some((own, value)) = line.split_once(':') else { continue };
        if !own.trim().eq_ignore_ascii_case(name) {
            continue;
        }
        let (mut quoted, mut depth, mut start) = (false, 0, 0);
        for (at, c) in value.char_indices() {
            match c {
                '"' => quoted = !quoted,
                '<' if !quoted => depth += 1,
                '>' if !quoted => depth -= 1,
                ',' if !quoted && depth == 0 => {
                    found.push(value[start..at].trim());
                    start = at + 1;
                }
                _ => {}
            }
        }
        found.push(value[start..].trim());
    }
    found
}

/// The branch of the topmost Via.
pub fn branch(message: &str) -> String {
    let via = values(message, "Via")[0];
    let rest = via.split("branch=").nth(1).expect("every Via has a branch");
    rest.split([';', ' ']).next().unwrap_or(rest).to_owned()
}
