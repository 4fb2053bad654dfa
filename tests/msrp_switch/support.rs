//! Peers for the MSRP tests: a switch with its events, and raw MSRP clients that do exactly what a test says.

use std::sync::Arc;
use std::time::Duration;

use pagecast::content::msrp_uri::MsrpUri;
use pagecast::engine::ids::{LegId, PageId};
use pagecast::engine::input::{LegMedia, OriginatorMedia};
use pagecast::msrp::codec::{Decoder, Flag, Head, Kind, Limits, Piece};
use pagecast::msrp::{
    AcceptTypes, Direction, MediaEvent, PageRules, PeerMedia, Role, Settings, Side, Switch,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub const PAGE: u64 = 7;

pub fn page() -> PageId {
    PageId::new(0, PAGE)
}

pub fn leg(n: u16) -> LegId {
    LegId { page: page(), n }
}

/// A switch and what it told.
pub struct Bench {
    pub switch: Switch,
    events: mpsc::UnboundedReceiver<MediaEvent>,
    seen: Vec<MediaEvent>,
}

pub fn settings() -> Settings {
    Settings { connect_loopback: true, ..Settings::default() }
}

impl Bench {
    pub fn new(settings: Settings) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let sink = Arc::new(move |event| drop(sender.send(event)));
        let switch = Switch::new(settings, sink).expect("a switch");
        Self { switch, events, seen: Vec::new() }
    }

    /// Waits until `event` was told; events before it are kept.
    pub async fn told(&mut self, event: &MediaEvent) {
        while !self.seen.contains(event) {
            let next = tokio::time::timeout(Duration::from_secs(3600), self.events.recv()).await;
            let next = next.unwrap_or_else(|_| panic!("no {event:?}, only {:?}", self.seen));
            self.seen.push(next.expect("the switch lives"));
        }
    }

    pub async fn originator(&mut self, event: OriginatorMedia) {
        self.told(&MediaEvent::Originator { page: page(), event }).await;
    }

    pub async fn leg(&mut self, n: u16, event: LegMedia) {
        self.told(&MediaEvent::Leg { leg: leg(n), event }).await;
    }

    /// Everything told so far.
    pub fn all(&mut self) -> &[MediaEvent] {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event);
        }
        &self.seen
    }

    /// What one leg was told about, in order.
    pub fn leg_events(&mut self, n: u16) -> Vec<LegMedia> {
        let wanted = leg(n);
        let of = |event: &MediaEvent| match event {
            MediaEvent::Leg { leg, event } if *leg == wanted => Some(event.clone()),
            _ => None,
        };
        self.all().iter().filter_map(of).collect()
    }

    pub fn originator_events(&mut self) -> Vec<OriginatorMedia> {
        let of = |event: &MediaEvent| match event {
            MediaEvent::Originator { event, .. } => Some(event.clone()),
            MediaEvent::Leg { .. } => None,
        };
        self.all().iter().filter_map(of).collect()
    }

    /// A connection to the switch that has sent nothing.
    pub fn dial(&self) -> Box<dyn Stream> {
        self.dial_from("192.0.2.1:1000")
    }

    pub fn dial_from(&self, from: &str) -> Box<dyn Stream> {
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let switch = self.switch.clone();
        let from = from.parse().expect("an address");
        drop(tokio::spawn(async move { switch.serve_connection(theirs, from).await }));
        Box::new(ours)
    }

    /// Reserves and opens the originator's session and connects; nothing is sent yet.
    pub fn open(&self, accept: AcceptTypes, rules: PageRules) -> Peer {
        let own = self.switch.reserve(Side::Originator(page())).expect("room");
        let me = "msrp://192.0.2.55:7394/originator0;tcp";
        self.switch.open_originator(page(), media(me, Role::Passive), accept, rules);
        Peer::new(self.dial(), me, &own)
    }

    /// An originator that may send any type.
    pub fn open_any(&self) -> Peer {
        self.open(any(), PageRules::default())
    }

    /// A recipient that connects to us, bound by a bodiless SEND.
    pub async fn recipient(&self, n: u16) -> Peer {
        self.recipient_with(n, |_| {}).await
    }

    pub async fn recipient_with(&self, n: u16, change: impl FnOnce(&mut PeerMedia)) -> Peer {
        let mut peer = self.unbound_recipient(n, change);
        peer.send("bind", "Message-ID: bind\r\n", None, '$').await;
        assert_eq!(peer.answer().await, 200);
        peer
    }

    pub fn unbound_recipient(&self, n: u16, change: impl FnOnce(&mut PeerMedia)) -> Peer {
        let own = self.switch.reserve(Side::Leg(leg(n))).expect("room");
        let me = format!("msrp://203.0.113.9:9021/recipient{n};tcp");
        let mut media = media(&me, Role::Passive);
        change(&mut media);
        self.switch.join(leg(n), media);
        Peer::new(self.dial(), &me, &own)
    }

    /// A recipient we connect to; the peer listens on loopback.
    pub async fn listening_recipient(&self, n: u16) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let own = self.switch.reserve(Side::Leg(leg(n))).expect("room");
        let me = format!("msrp://127.0.0.1:{port}/recipient{n};tcp");
        self.switch.join(leg(n), media(&me, Role::Active));
        let (stream, _) = listener.accept().await.expect("a connection");
        Peer::new(Box::new(stream), &me, &own)
    }

    /// A listening switch on loopback: its address.
    pub async fn listen(&self) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let switch = self.switch.clone();
        drop(tokio::spawn(async move { switch.listen(listener).await }));
        address
    }
}

pub fn any() -> AcceptTypes {
    AcceptTypes { types: vec!["*".into()], wrapped: Vec::new() }
}

pub fn media(uri: &str, role: Role) -> PeerMedia {
    PeerMedia {
        path: MsrpUri::parse_path(uri).expect("a path"),
        role,
        dial: None,
        proof: None,
        accept_types: vec!["*".into()],
        accept_wrapped: Vec::new(),
        max_size: None,
        direction: Direction::SendRecv,
    }
}

/// One message as a peer got it.
#[derive(Debug)]
pub struct Message {
    pub head: Head,
    pub body: Vec<u8>,
    pub flag: Flag,
}

/// A raw MSRP client.
pub struct Peer {
    pub stream: Box<dyn Stream>,
    decoder: Decoder,
    pub me: String,
    pub them: String,
}

impl Peer {
    pub fn new(stream: Box<dyn Stream>, me: &str, them: &str) -> Self {
        let decoder = Decoder::new(Limits::default());
        Self { stream, decoder, me: me.into(), them: them.into() }
    }

    pub async fn raw(&mut self, wire: &[u8]) {
        self.stream.write_all(wire).await.expect("the switch reads");
        self.stream.flush().await.expect("the switch reads");
    }

    pub fn wire(&self, id: &str, extra: &str, body: Option<&[u8]>, flag: char) -> Vec<u8> {
        let (me, them) = (&self.me, &self.them);
        let mut wire =
            format!("MSRP {id} SEND\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\n{extra}").into_bytes();
        if let Some(body) = body {
            wire.extend_from_slice(b"\r\n");
            wire.extend_from_slice(body);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(format!("-------{id}{flag}\r\n").as_bytes());
        wire
    }

    /// One SEND; `extra` are header lines.
    pub async fn send(&mut self, id: &str, extra: &str, body: Option<&[u8]>, flag: char) {
        let wire = self.wire(id, extra, body, flag);
        self.raw(&wire).await;
    }

    /// A chunk of text/plain with that Byte-Range.
    pub async fn chunk(&mut self, id: &str, message: &str, range: &str, body: &[u8], flag: char) {
        let extra =
            format!("Message-ID: {message}\r\nByte-Range: {range}\r\nContent-Type: text/plain\r\n");
        self.send(id, &extra, Some(body), flag).await;
    }

    /// The next piece of what the switch sends; `None` at the end of the stream.
    pub async fn piece(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.decoder.next().expect("the switch writes MSRP") {
                return Some(piece);
            }
            match self.stream.read_buf(self.decoder.buffer()).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next whole message; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Message> {
        let Some(Piece::Head(head)) = self.piece().await else { return None };
        let mut body = Vec::new();
        loop {
            match self.piece().await? {
                Piece::Body(octets) => body.extend_from_slice(&octets),
                Piece::End(flag) => return Some(Message { head: *head, body, flag }),
                Piece::Head(_) => panic!("a head inside a message"),
            }
        }
    }

    /// The next message has to be a response: its code.
    pub async fn answer(&mut self) -> u16 {
        let message = self.next().await.expect("an answer");
        match message.head.kind {
            Kind::Response(code) => code,
            other => panic!("{other:?} where an answer was due"),
        }
    }

    /// Nothing arrives while the runtime has anything to do and for `time` after that.
    pub async fn silence(&mut self, time: Duration) {
        if let Ok(piece) = tokio::time::timeout(time, self.piece()).await {
            panic!("expected silence, got {piece:?}");
        }
    }

    pub async fn respond(&mut self, request: &Head, code: u16) {
        let (me, them) = (&self.me, &self.them);
        let id = std::str::from_utf8(&request.id).expect("an id");
        let wire = format!(
            "MSRP {id} {code} text\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\n-------{id}$\r\n"
        );
        self.raw(wire.as_bytes()).await;
    }

    pub async fn report(&mut self, message: &str, range: &str, code: u16) {
        let (me, them) = (&self.me, &self.them);
        let wire = format!(
            "MSRP rep1 REPORT\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\nMessage-ID: {message}\r\n\
             Byte-Range: {range}\r\nStatus: 000 {code} text\r\n-------rep1$\r\n"
        );
        self.raw(wire.as_bytes()).await;
    }

    /// Takes chunks of one message, answers each 200, until `$` or `#`. Checks what holds for every chunk of ours.
    pub async fn take(&mut self) -> Taken {
        let mut taken = Taken { octets: Vec::new(), flag: Flag::More, heads: Vec::new() };
        while taken.flag == Flag::More {
            let Some(message) = self.next().await else { break };
            if message.head.kind != Kind::Send || !message.head.has_body {
                if message.head.kind == Kind::Send {
                    self.respond(&message.head, 200).await;
                }
                continue;
            }
            let range = message.head.range.expect("MS-053: every SEND with a body has a range");
            assert_eq!(range.start, taken.octets.len() as u64 + 1, "MS-057: ascending order");
            if message.body.len() > 2048 {
                assert_eq!(range.end, None, "MS-054: long chunks can be interrupted");
            }
            if let Some(end) = range.end {
                assert_eq!(end, range.start - 1 + message.body.len() as u64);
            }
            taken.octets.extend_from_slice(&message.body);
            taken.flag = message.flag;
            self.respond(&message.head, 200).await;
            taken.heads.push(message.head);
        }
        taken
    }
}

/// A message as a recipient took it.
#[derive(Debug)]
pub struct Taken {
    pub octets: Vec<u8>,
    pub flag: Flag,
    pub heads: Vec<Head>,
}

/// Octets that tell their position.
pub fn octets(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251) as u8).collect()
}
