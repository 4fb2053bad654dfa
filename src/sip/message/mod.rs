//! SIP messages: one pass over the bytes builds an index of lines; views are read on demand; bytes stay as they came.
//!
//! Start at [`Message::parse`]. The index holds where each header line is and which name it has ([`Name`]); values are
//! read by [`NameAddr`], [`Via`], [`CSeq`], [`Elements`]. [`Writer`] prints, [`Framer`] cuts a stream into messages.
//! Nothing here decides what a message means, and nothing is re-serialised: what is passed on goes out as it came in.
//! Follows RFC 3261 §7, §20, §25 and RFC 4475. What breaks a rule comes back as [`Malformed`], with a lenient index of
//! the same bytes where it can still be answered.

mod frame;
mod index;
mod method;
mod name;
#[cfg(test)]
mod tests;
mod view;
mod write;

use std::sync::Arc;

use bytes::Bytes;

pub use frame::{Frame, Framer, Lost};
pub use method::Method;
pub use name::Name;
pub use view::{CSeq, Elements, NameAddr, Param, Params, Via};
pub use write::{Writer, reason_phrase};

use index::{Index, Start};

/// The bounds on one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets of a whole message.
    pub max_message: usize,
    /// Header lines of a message.
    pub max_lines: usize,
    /// Octets of one line, continuation lines included.
    pub max_line: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message: 256 * 1024, max_lines: 256, max_line: 8 * 1024 }
    }
}

/// Why bytes are no message.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct Malformed {
    /// What is wrong, for the log line.
    pub what: &'static str,
    /// The refusal that fits: 400, 413, 414 or 505.
    pub status: u16,
    /// The lenient index of the same bytes, to answer from. `None` where there is nobody to answer: a response, an
    /// ACK, or a request whose topmost Via cannot be read.
    pub answer: Option<Box<Message>>,
}

/// A message: its bytes and an index over them. Cheap to clone.
#[derive(Clone)]
pub struct Message(Arc<Index>);

impl std::fmt::Debug for Message {
    /// The start line only: the rest may hold what belongs in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.start {
            Start::Request { method, .. } => write!(f, "Message({method} {})", self.uri()),
            Start::Response { status, .. } => {
                write!(f, "Message({status} to {})", self.0.cseq.method)
            }
        }
    }
}

impl Message {
    /// Reads a whole datagram or one framed message of a stream. Octets behind Content-Length are dropped.
    ///
    /// # Errors
    /// [`Malformed`] with the status to refuse with and, where that is possible, an index to answer from.
    pub fn parse(bytes: Bytes, limits: &Limits) -> Result<Self, Malformed> {
        let (index, fault) = index::read(bytes, limits);
        match (fault, index) {
            (None, Some(index)) => Ok(Self(Arc::new(index))),
            (fault, index) => {
                let (what, status) = fault.unwrap_or(("no SIP message", 400));
                let answer =
                    index.filter(Index::is_answerable).map(|index| Box::new(Self(Arc::new(index))));
                Err(Malformed { what, status, answer })
            }
        }
    }

    /// The message as it came (leading empty lines of a datagram included).
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    pub fn is_request(&self) -> bool {
        matches!(self.0.start, Start::Request { .. })
    }

    /// The method of a request, `None` for a response.
    pub fn method(&self) -> Option<Method> {
        match &self.0.start {
            Start::Request { method, .. } => Some(method.clone()),
            Start::Response { .. } => None,
        }
    }

    /// The Request-URI as received, empty for a response.
    pub fn uri(&self) -> &str {
        match self.0.start {
            Start::Request { uri, .. } => std::str::from_utf8(self.0.slice(uri)).unwrap_or(""),
            Start::Response { .. } => "",
        }
    }

    /// The status code of a response, 100 to 699.
    pub fn status(&self) -> Option<u16> {
        match self.0.start {
            Start::Request { .. } => None,
            Start::Response { status, .. } => Some(status),
        }
    }

    /// The reason phrase of a response; empty if there is none or it is no UTF-8.
    pub fn reason(&self) -> &str {
        match self.0.start {
            Start::Request { .. } => "",
            Start::Response { reason, .. } => {
                std::str::from_utf8(self.0.slice(reason)).unwrap_or("")
            }
        }
    }

    /// The CSeq. In a request its method is that of the start line.
    pub fn cseq(&self) -> CSeq {
        self.0.cseq.clone()
    }

    /// The Call-ID, never empty in a message that was accepted.
    pub fn call_id(&self) -> &[u8] {
        self.0.value_at(self.0.call_id).unwrap_or(b"")
    }

    pub fn from(&self) -> NameAddr<'_> {
        self.0.value_at(self.0.from).and_then(NameAddr::parse).unwrap_or_else(NameAddr::empty)
    }

    pub fn to(&self) -> NameAddr<'_> {
        self.0.value_at(self.0.to).and_then(NameAddr::parse).unwrap_or_else(NameAddr::empty)
    }

    /// The tag of From; `None` if there is none or it is empty.
    pub fn from_tag(&self) -> Option<&[u8]> {
        self.0.tag(self.0.from, self.0.from_tag)
    }

    /// The tag of To; `None` if there is none or it is empty.
    pub fn to_tag(&self) -> Option<&[u8]> {
        self.0.tag(self.0.to, self.0.to_tag)
    }

    /// The topmost Via.
    pub fn via(&self) -> Via<'_> {
        self.0.value_at(self.0.via).and_then(Via::parse).unwrap_or(Via::EMPTY)
    }

    /// The first Contact that is an address (`*` is none).
    pub fn contact(&self) -> Option<NameAddr<'_>> {
        self.values(Name::Contact).next().and_then(NameAddr::parse)
    }

    /// The value of the first line of that name: continuation lines joined, surrounding white space dropped.
    pub fn header(&self, name: Name) -> Option<&[u8]> {
        self.lines(name).next()
    }

    /// The same as text, `None` also if it is no UTF-8.
    pub fn text(&self, name: Name) -> Option<&str> {
        self.header(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The value of every line of that name, in their order. Compact forms are the same name.
    pub fn lines(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let index = &*self.0;
        index.named(name).filter_map(|(at, _)| index.value_at(at))
    }

    /// The comma-separated elements over all lines of that name, trimmed, empty ones left out.
    pub fn values(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.lines(name).flat_map(Elements::new)
    }

    /// Whether a list header holds the token; parameters of an element are not looked at. Case counts only where the
    /// elements are methods (Allow).
    pub fn has_token(&self, name: Name, token: &str) -> bool {
        self.values(name).any(|element| {
            let element = view::trim(element.split(|byte| *byte == b';').next().unwrap_or(b""));
            if name == Name::Allow {
                element == token.as_bytes()
            } else {
                element.eq_ignore_ascii_case(token.as_bytes())
            }
        })
    }

    /// Every header line: the name as received and the value as of [`Message::header`].
    pub fn all_headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let index = &*self.0;
        index.lines.iter().enumerate().map(move |(at, line)| {
            let name = index.slice(line.name());
            (name, index.value_at(at as u16).unwrap_or(b""))
        })
    }

    pub fn body(&self) -> &[u8] {
        self.0.slice(self.0.body)
    }

    /// The body without a copy; it keeps the whole message alive.
    pub fn body_bytes(&self) -> Bytes {
        let (start, end) = self.0.body;
        self.0.bytes.slice(start as usize..end as usize)
    }

    pub fn content_type(&self) -> Option<&str> {
        self.text(Name::ContentType)
    }

    /// The values of every line of that name exactly as received, folds included.
    fn raw_lines(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let index = &*self.0;
        index.named(name).map(|(_, line)| index.slice((line.value, line.end)))
    }
}
