//! Cuts a byte stream into messages. Keeps nothing between calls but how far it has looked.

use bytes::{Buf, Bytes, BytesMut};

use super::view;
use super::{Limits, Malformed, Message, Name, name};

/// What a stream holds next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// One message: head and body as announced by its Content-Length. Not yet parsed.
    Message(Bytes),
    /// Two empty lines: the peer wants [`Frame::Pong`] back (RFC 5626 §3.5.1).
    Ping,
    /// One empty line: the answer to a ping.
    Pong,
}

/// The stream cannot be cut any more: answer what can be answered, then close it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub Malformed);

/// Splits a stream into messages. The result does not depend on how the stream was split into reads.
///
/// Contract: append what was read to one buffer, then call [`Framer::feed`] until it says `None`.
#[derive(Debug, Clone)]
pub struct Framer {
    limits: Limits,
    /// Octets of the buffer known to hold no end of a head.
    looked: usize,
    /// Octets of the message in front, once its head is complete.
    total: Option<usize>,
}

impl Framer {
    pub fn new(limits: &Limits) -> Self {
        Self { limits: *limits, looked: 0, total: None }
    }

    /// Takes one frame from the front of the buffer; `None` until more octets come.
    ///
    /// # Errors
    /// [`Lost`] when the end of the message cannot be told (Content-Length missing where there is a body, no number,
    /// contradicting itself) or lies beyond the limit. The buffer is then of no use.
    pub fn feed(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Lost> {
        if self.total.is_none() && self.looked == 0 {
            match buffer.as_ref() {
                [] | b"\r" | b"\r\n" | b"\r\n\r" => return Ok(None),
                [b'\r', b'\n', b'\r', b'\n', ..] => {
                    buffer.advance(4);
                    return Ok(Some(Frame::Ping));
                }
                [b'\r', b'\n', ..] => {
                    buffer.advance(2);
                    return Ok(Some(Frame::Pong));
                }
                _ => {}
            }
        }
        let total = match self.total {
            Some(total) => total,
            None => match self.head(buffer)? {
                Some(total) => total,
                None => return Ok(None),
            },
        };
        if buffer.len() < total {
            self.total = Some(total);
            return Ok(None);
        }
        (self.looked, self.total) = (0, None);
        Ok(Some(Frame::Message(buffer.split_to(total).freeze())))
    }

    /// Whether the head of the message in front is complete and only its body is missing.
    pub fn has_head(&self) -> bool {
        self.total.is_some()
    }

    /// The octets of the message in front once its head is there.
    fn head(&mut self, buffer: &BytesMut) -> Result<Option<usize>, Lost> {
        let from = self.looked.saturating_sub(3);
        let Some(found) = memchr::memmem::find(&buffer[from..], b"\r\n\r\n") else {
            self.looked = buffer.len();
            if buffer.len() > self.limits.max_message {
                return Err(self.lost(buffer, "head too large", 413));
            }
            return Ok(None);
        };
        let head = from + found + 4;
        if head > self.limits.max_message {
            return Err(self.lost(buffer, "head too large", 413));
        }
        let length = match content_length(&buffer[..head - 2]) {
            Ok(length) => length,
            Err(what) => return Err(self.lost(&buffer[..head], what, 400)),
        };
        match head.checked_add(length).filter(|total| *total <= self.limits.max_message) {
            Some(total) => Ok(Some(total)),
            None => Err(self.lost(&buffer[..head], "message too large", 413)),
        }
    }

    fn lost(&self, head: &[u8], what: &'static str, status: u16) -> Lost {
        let head = &head[..head.len().min(self.limits.max_message)];
        let answer = match Message::parse(Bytes::copy_from_slice(head), &self.limits) {
            Ok(message) => message.is_request().then(|| Box::new(message)),
            Err(malformed) => malformed.answer,
        };
        Lost(Malformed { what, status, answer })
    }
}

/// The Content-Length of a head (which ends with the CRLF of its last line).
///
/// RFC 3261 §18.3: a stream needs it. A message without it and without a Content-Type can have no body (§20.15), so
/// its end is known all the same.
fn content_length(head: &[u8]) -> Result<usize, &'static str> {
    let mut length = None;
    let mut typed = false;
    let mut at = 0;
    while at < head.len() {
        let begin = at;
        let mut end = next_line(head, at);
        if !matches!(head[begin], b'c' | b'C' | b'l' | b'L') {
            at = end;
            continue;
        }
        while matches!(head.get(end), Some(b' ' | b'\t')) {
            end = next_line(head, end);
        }
        at = end;
        let line = &head[begin..end];
        let name_len = line.iter().position(|byte| !view::is_token(*byte)).unwrap_or(line.len());
        let number = name::number(&line[..name_len]);
        if number == Name::ContentType.number() {
            typed = true;
        }
        if number != Name::ContentLength.number() {
            continue;
        }
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let rest = &line[name_len..];
        let Some(colon) = rest
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t'))
            .filter(|at| rest[*at] == b':')
        else {
            return Err("Content-Length without a colon");
        };
        let digits: &[u8] = &rest[colon + 1..];
        let start = digits.iter().position(|byte| !blank(byte)).unwrap_or(digits.len());
        let stop = digits.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
        let new = view::decimal(&digits[start..stop]).ok_or("Content-Length is no number")?;
        if length.is_some_and(|old| old != new) {
            return Err("Content-Length twice");
        }
        length = Some(new);
    }
    match length {
        Some(length) => Ok(length as usize),
        None if typed => Err("body without Content-Length on a stream"),
        None => Ok(0),
    }
}

fn next_line(head: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &head[at..]).map_or(head.len(), |lf| at + lf + 1)
}
