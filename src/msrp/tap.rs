//! Copies of what crosses connections, for call flows: heads, lengths and flags, never content.
//!
//! Off unless somebody asked ([`super::Switch::tap`]). [`Outlet`] watches what frames are filled with; what came in is
//! told by its decoded [`Head`]. Whose message it is follows from our own URI in it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use memchr::memmem;

use super::Side;
use super::codec::{FailureReport, Head, Kind};
use crate::flow::{Crossing, Flows, Transport};

/// Where copies go.
pub(super) struct Tap {
    pub flows: Arc<Flows>,
    /// Our name in call flows.
    pub name: Arc<str>,
}

/// The two ends of a connection: ours and the peer's.
pub(super) type Ends = (SocketAddr, SocketAddr);

impl Tap {
    /// One message of `side`: its head, the length of its body, its flag.
    pub fn crossed(
        &self,
        side: Side,
        sent: bool,
        ends: Option<Ends>,
        head: &[u8],
        octets: u64,
        flag: u8,
    ) {
        let (leg, peer): (_, Arc<str>) = match side {
            Side::Originator(_) => (None, "originator".into()),
            Side::Leg(leg) => (Some(leg.n), format!("recipient {}", leg.n).into()),
        };
        let own = Arc::clone(&self.name);
        let (from, to) = if sent { (own, peer) } else { (peer, own) };
        let crossing = Crossing {
            page: side.page().as_u64(),
            leg,
            time: wall_clock(),
            transport: Transport::Tcp,
            sent,
            from,
            to,
            local: ends.map(|ends| ends.0),
            remote: ends.map(|ends| ends.1),
        };
        self.flows.record_msrp(crossing, head, octets, Some(flag));
    }
}

#[expect(clippy::disallowed_methods, reason = "call flows tell the time of day")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// The start line and header fields of a decoded head, in our own order.
pub(super) fn head_text(head: &Head) -> String {
    let id = String::from_utf8_lossy(&head.id);
    let mut text = match head.kind {
        Kind::Send => format!("MSRP {id} SEND\r\n"),
        Kind::Report => format!("MSRP {id} REPORT\r\n"),
        Kind::Nickname => format!("MSRP {id} NICKNAME\r\n"),
        Kind::Unknown => format!("MSRP {id} UNKNOWN\r\n"),
        Kind::Response(code) => format!("MSRP {id} {code:03}\r\n"),
    };
    for (name, path) in [("To-Path", &head.to_path), ("From-Path", &head.from_path)] {
        let uris: Vec<&str> = path.iter().map(|uri| uri.as_str()).collect();
        let _ = write!(text, "{name}: {}\r\n", uris.join(" "));
    }
    if let Some(id) = &head.message_id {
        let _ = write!(text, "Message-ID: {id}\r\n");
    }
    if let Some(range) = head.range {
        let number = |n: Option<u64>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let (end, total) = (number(range.end), number(range.total));
        let _ = write!(text, "Byte-Range: {}-{end}/{total}\r\n", range.start);
    }
    if head.success_report {
        text.push_str("Success-Report: yes\r\n");
    }
    match head.failure_report {
        FailureReport::Yes => {}
        FailureReport::Partial => text.push_str("Failure-Report: partial\r\n"),
        FailureReport::No => text.push_str("Failure-Report: no\r\n"),
    }
    if let Some((space, code)) = head.status {
        let _ = write!(text, "Status: {space:03} {code:03}\r\n");
    }
    if let Some(media) = &head.content_type {
        let _ = write!(text, "Content-Type: {media}\r\n");
    }
    text
}

/// A message that was put into frames.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Out {
    pub head: Vec<u8>,
    pub octets: u64,
    pub flag: u8,
}

impl Out {
    /// Our own URI: the last one of From-Path.
    pub fn own_uri(&self) -> Option<&str> {
        let at = memmem::find(&self.head, b"\r\nFrom-Path: ")? + 13;
        let end = at + memchr::memchr(b'\r', &self.head[at..])?;
        std::str::from_utf8(&self.head[at..end]).ok()?.split(' ').next_back()
    }
}

/// Watches what frames are filled with. The caller takes [`Outlet::done`] whenever it filled them.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    open: Option<(Vec<u8>, u64)>,
    pub done: Vec<Out>,
}

impl Outlet {
    /// Text was written: a head, an end-line, or a whole message without a body.
    pub fn text(&mut self, text: &[u8]) {
        let mut rest = text;
        if rest.starts_with(b"MSRP ") {
            let end = memmem::find(rest, b"\r\n-------").map_or(rest.len(), |at| at + 2);
            let head = memmem::find(rest, b"\r\n\r\n").map_or(end, |at| (at + 2).min(end));
            self.open = Some((rest[..head].to_vec(), 0));
            rest = &rest[end..];
        } else {
            rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        }
        if rest.starts_with(b"-------")
            && let Some(flag) = rest.trim_ascii_end().last().copied()
            && let Some((head, octets)) = self.open.take()
        {
            self.done.push(Out { head, octets, flag });
        }
    }

    /// Octets of a page were written.
    pub fn body(&mut self, octets: usize) {
        if let Some((_, sum)) = &mut self.open {
            *sum += octets as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_what_is_written() {
        let head = "MSRP a SEND\r\nTo-Path: msrp://h:1/p;tcp\r\nFrom-Path: msrp://h:2/o;tcp\r\n";
        let mut outlet = Outlet::default();
        outlet.text(format!("{head}Content-Type: text/plain\r\n\r\n").as_bytes());
        outlet.body(100);
        outlet.body(50);
        assert_eq!(outlet.done, [], "the chunk is not closed yet");
        outlet.text(b"\r\n-------a+\r\n");
        outlet.text(format!("{head}-------a$\r\n").as_bytes());
        outlet.text(b"");
        let [chunk, greeting] = &outlet.done[..] else { panic!("{:?}", outlet.done) };
        assert_eq!((chunk.octets, chunk.flag), (150, b'+'));
        assert!(chunk.head.ends_with(b"Content-Type: text/plain\r\n"));
        assert_eq!((greeting.octets, greeting.flag), (0, b'$'));
        assert_eq!(greeting.head, head.as_bytes());
        assert_eq!(greeting.own_uri(), Some("msrp://h:2/o;tcp"));
    }
}
