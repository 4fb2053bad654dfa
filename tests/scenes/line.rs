//! One MSRP connection of a phone: always the side that connects, by a pipe instead of a socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pagecast::msrp::codec::{self, Decoder, Flag, Head, Kind, Limits, Piece};
use pagecast::sip::message::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::timeout;

use crate::identity::{self, Identity};
use crate::net::{SOON, Scscf};
use crate::text;

/// A phone's connection and its two URIs.
pub struct Line {
    stream: DuplexStream,
    decoder: Decoder,
    me: String,
    them: String,
    next: usize,
    /// What has come of the frame that is not whole yet.
    partial: Option<(Head, Vec<u8>)>,
}

/// One request or response as it came.
#[derive(Debug)]
pub struct Frame {
    pub head: Head,
    pub body: Vec<u8>,
    pub flag: Flag,
}

/// A page as a recipient got it.
#[derive(Debug)]
pub struct Taken {
    pub octets: Vec<u8>,
    pub flag: Flag,
    pub content_type: String,
    pub message_id: String,
}

impl Line {
    /// Connects as `sdp` of the node says: over TLS if it does; nothing is sent yet.
    pub fn connect_to(core: &Arc<Scscf>, me: &str, sdp: &Message) -> Self {
        let them = text::attribute(sdp, "path").expect("a path");
        match text::attribute(sdp, "fingerprint") {
            None => Self::connect(core, me, &them),
            Some(theirs) => Self::secured(core, me, &them, identity::phones(), theirs),
        }
    }

    /// Connects; nothing is sent yet.
    pub fn connect(core: &Arc<Scscf>, me: &str, them: &str) -> Self {
        let (stream, theirs) = tokio::io::duplex(16 * 1024);
        let switch = core.control.switch().clone();
        let from = "192.0.2.77:7000".parse().expect("an address");
        drop(tokio::spawn(async move { switch.serve_connection(theirs, from).await }));
        let decoder = Decoder::new(Limits::default());
        Self { stream, decoder, me: me.to_owned(), them: them.to_owned(), next: 0, partial: None }
    }

    /// Connects over TLS and shows that certificate; the node has to show one with the fingerprint `theirs`.
    pub fn secured(
        core: &Arc<Scscf>,
        me: &str,
        them: &str,
        identity: &Identity,
        theirs: String,
    ) -> Self {
        let (stream, far) = tokio::io::duplex(16 * 1024);
        let switch = core.control.switch().clone();
        let from = "192.0.2.77:7000".parse().expect("an address");
        drop(tokio::spawn(async move { switch.serve_secure_connection(far, from).await }));
        let stream = identity.inside(stream, theirs);
        let decoder = Decoder::new(Limits::default());
        Self { stream, decoder, me: me.to_owned(), them: them.to_owned(), next: 0, partial: None }
    }

    /// The first request on a new connection: a SEND without content (IM-069).
    pub async fn binds(&mut self) {
        self.sends("Message-ID: bind\r\n", None, '$').await;
        assert_eq!(self.hears_answer().await, 200, "bound");
    }

    /// One SEND with these header lines.
    pub async fn sends(&mut self, lines: &str, body: Option<&[u8]>, flag: char) {
        let wire = self.wire(lines, body, flag);
        self.stream.write_all(&wire).await.expect("the switch reads");
    }

    fn wire(&mut self, lines: &str, body: Option<&[u8]>, flag: char) -> Vec<u8> {
        self.next += 1;
        let (id, me, them) = (format!("tr{:04}", self.next), &self.me, &self.them);
        let mut wire =
            format!("MSRP {id} SEND\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\n{lines}").into_bytes();
        if let Some(body) = body {
            wire.extend_from_slice(b"\r\n");
            wire.extend_from_slice(body);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(format!("-------{id}{flag}\r\n").as_bytes());
        wire
    }

    /// As [`Line::sends`], to a switch that may not listen any more; `false` if it does not.
    pub async fn tries_to_send(&mut self, lines: &str, body: Option<&[u8]>, flag: char) -> bool {
        let wire = self.wire(lines, body, flag);
        matches!(timeout(SOON, self.stream.write_all(&wire)).await, Ok(Ok(())))
    }

    pub async fn tries_to_respond(&mut self, request: &Head, code: u16) -> bool {
        let mut out = BytesMut::new();
        codec::response(&mut out, request, code);
        matches!(timeout(SOON, self.stream.write_all(&out)).await, Ok(Ok(())))
    }

    /// What comes next; `None` when the switch has closed. May be given up and asked again.
    pub async fn hears(&mut self) -> Option<Frame> {
        loop {
            match (self.piece().await?, &mut self.partial) {
                (Piece::Head(head), None) => self.partial = Some((*head, Vec::new())),
                (Piece::Body(octets), Some((_, body))) => body.extend_from_slice(&octets),
                (Piece::End(flag), partial) => {
                    let (head, body) = partial.take().expect("a head came first");
                    return Some(Frame { head, body, flag });
                }
                (piece, partial) => panic!("{piece:?} behind {partial:?}"),
            }
        }
    }

    async fn piece(&mut self) -> Option<Piece> {
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

    /// A response is due at once: its code.
    pub async fn hears_answer(&mut self) -> u16 {
        let frame = timeout(SOON, self.hears()).await.expect("an answer at once");
        match frame.expect("an open connection").head.kind {
            Kind::Response(code) => code,
            other => panic!("{other:?} where an answer was due"),
        }
    }

    /// A REPORT is due at once: its status.
    pub async fn hears_report(&mut self) -> u16 {
        let frame = timeout(SOON, self.hears()).await.expect("a REPORT at once");
        let head = frame.expect("an open connection").head;
        assert_eq!(head.kind, Kind::Report);
        head.status.expect("a status").1
    }

    /// Whether the head of something comes within this time. What follows it cannot be heard any more.
    pub async fn hears_a_head(&mut self, within: Duration) -> bool {
        timeout(within, self.piece()).await.is_ok_and(|piece| piece.is_some())
    }

    /// Nothing comes now.
    pub async fn hears_nothing(&mut self) {
        if let Ok(piece) = timeout(SOON, self.piece()).await {
            panic!("expected silence, got {piece:?}");
        }
    }

    pub async fn responds(&mut self, request: &Head, code: u16) {
        let mut out = BytesMut::new();
        codec::response(&mut out, request, code);
        self.stream.write_all(&out).await.expect("the switch reads");
    }

    /// REPORT about the whole page.
    pub async fn reports(&mut self, taken: &Taken, status: u16) {
        self.reports_octets(&taken.message_id, taken.octets.len(), status).await;
    }

    pub async fn reports_octets(&mut self, id: &str, octets: usize, status: u16) {
        self.next += 1;
        let (n, me, them) = (self.next, &self.me, &self.them);
        let wire = format!(
            "MSRP rp{n:04} REPORT\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\nMessage-ID: {id}\r\n\
             Byte-Range: 1-{octets}/{octets}\r\nStatus: 000 {status} Text\r\n-------rp{n:04}$\r\n"
        );
        self.stream.write_all(wire.as_bytes()).await.expect("the switch reads");
    }

    /// The next chunk of the page, not yet answered.
    pub async fn hears_chunk(&mut self) -> Frame {
        self.hears_chunk_within(SOON).await
    }

    pub async fn hears_chunk_within(&mut self, within: Duration) -> Frame {
        let frame = timeout(within, self.hears()).await.expect("a chunk in time");
        let frame = frame.expect("an open connection");
        assert_eq!(frame.head.kind, Kind::Send);
        frame
    }

    /// Takes chunks and answers each with 200, until the page ends one way or the other. The ranges fit together.
    pub async fn takes_page(&mut self) -> Taken {
        let first = self.hears_chunk().await;
        self.takes_rest(first).await
    }

    /// As [`Line::takes_page`], where it takes its time.
    pub async fn takes_page_within(&mut self, within: Duration) -> Taken {
        let first = self.hears_chunk_within(within).await;
        self.takes_rest(first).await
    }

    /// As [`Line::takes_page`], with the first chunk in hand.
    pub async fn takes_rest(&mut self, first: Frame) -> Taken {
        let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
        let mut taken = Taken {
            octets: Vec::new(),
            flag: Flag::More,
            content_type: text(&first.head.content_type),
            message_id: text(&first.head.message_id),
        };
        let mut frame = first;
        loop {
            assert_eq!(text(&frame.head.message_id), taken.message_id, "one message");
            if frame.head.has_body {
                let range = frame.head.range.expect("a range");
                assert_eq!(range.start, taken.octets.len() as u64 + 1, "octets in order");
            }
            taken.octets.extend_from_slice(&frame.body);
            taken.flag = frame.flag;
            self.responds(&frame.head, 200).await;
            if taken.flag == Flag::Last && frame.head.success_report {
                self.reports(&taken, 200).await;
            }
            if taken.flag != Flag::More {
                return taken;
            }
            frame = self.hears_chunk().await;
        }
    }
}
