//! Builds the index of a message: one pass over the lines, then the checks every message must pass.

use bytes::Bytes;
use smallvec::SmallVec;

use super::view::{self, CSeq, Params, Via};
use super::{Limits, Method, Name, name};

/// What is wrong with a message and the status that says so.
type Fault = (&'static str, u16);
type Range = (u32, u32);

pub(super) const NONE: u16 = u16::MAX;

#[derive(Debug)]
pub(super) struct Index {
    pub(super) bytes: Bytes,
    pub(super) start: Start,
    pub(super) lines: SmallVec<[Line; 24]>,
    /// Values that were folded over several lines, each as one line (rare).
    unfolded: Vec<(u16, Box<[u8]>)>,
    pub(super) body: Range,
    pub(super) cseq: CSeq,
    /// The first line of each, [`NONE`] where it is missing.
    pub(super) via: u16,
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) call_id: u16,
    /// Where the tags are, relative to the values.
    pub(super) from_tag: Range,
    pub(super) to_tag: Range,
}

#[derive(Debug)]
pub(super) enum Start {
    Request { method: Method, uri: Range },
    Response { status: u16, reason: Range },
}

/// Where one header line is in the message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) name: u32,
    pub(super) value: u32,
    /// End of the value, white space before the line end not counted.
    pub(super) end: u32,
    pub(super) name_len: u16,
    /// [`Name::number`], [`name::UNKNOWN`] for names without one.
    pub(super) number: u8,
    pub(super) folded: bool,
}

impl Line {
    pub(super) fn name(&self) -> Range {
        (self.name, self.name + u32::from(self.name_len))
    }
}

impl Index {
    pub(super) fn slice(&self, (start, end): Range) -> &[u8] {
        &self.bytes[start as usize..end as usize]
    }

    pub(super) fn value_at(&self, at: u16) -> Option<&[u8]> {
        let line = self.lines.get(at as usize)?;
        if line.folded
            && let Some((_, value)) = self.unfolded.iter().find(|(line, _)| *line == at)
        {
            return Some(value);
        }
        Some(self.slice((line.value, line.end)))
    }

    pub(super) fn tag(&self, at: u16, (start, end): Range) -> Option<&[u8]> {
        if start == end {
            return None;
        }
        self.value_at(at)?.get(start as usize..end as usize)
    }

    pub(super) fn is_answerable(&self) -> bool {
        let Start::Request { method, .. } = &self.start else { return false };
        *method != Method::Ack && self.value_at(self.via).and_then(Via::parse).is_some()
    }

    /// The positions and lines of that name.
    pub(super) fn named(&self, name: Name) -> impl Iterator<Item = (u16, &Line)> {
        let number = name.number();
        self.lines.iter().enumerate().filter_map(move |(at, line)| {
            let same = line.number == number
                && (number != name::UNKNOWN
                    || self.slice(line.name()).eq_ignore_ascii_case(name.as_str().as_bytes()));
            same.then_some((at as u16, line))
        })
    }
}

/// Reads bytes into an index. The first fault is kept and the rest is read as far as it can be; no index when the
/// start line says nothing.
pub(super) fn read(bytes: Bytes, limits: &Limits) -> (Option<Index>, Option<Fault>) {
    let mut reader = Reader { fault: None, bare: false };
    let index = reader.message(bytes, limits);
    (index, reader.fault)
}

struct Reader {
    fault: Option<Fault>,
    /// A CR or LF that ends no line was seen.
    bare: bool,
}

/// What is gathered on the way and checked at the end.
struct Seen {
    cseq: u16,
    content_length: Option<u32>,
    twice: bool,
}

impl Reader {
    fn note(&mut self, what: &'static str, status: u16) {
        if self.fault.is_none() {
            self.fault = Some((what, status));
        }
    }

    fn message(&mut self, bytes: Bytes, limits: &Limits) -> Option<Index> {
        if bytes.len() > limits.max_message {
            self.note("message too large", 413);
        }
        // Offsets are u32; what lies beyond belongs to a message that is refused anyway.
        let data = &bytes[..bytes.len().min(limits.max_message).min(u32::MAX as usize)];
        let mut at = 0;
        // RFC 3261 §7.5: empty lines before the start line are ignored.
        while data[at..].starts_with(b"\r\n") {
            at += 2;
        }
        let (end, next) = self.line(data, at)?;
        if end - at > limits.max_line {
            self.note("start line too long", 414);
        }
        let start = self.start_line(&bytes, at, end)?;
        let mut index = Index {
            start,
            lines: SmallVec::new(),
            unfolded: Vec::new(),
            body: (0, 0),
            cseq: CSeq { number: 0, method: Method::Other(Bytes::new()) },
            via: NONE,
            from: NONE,
            to: NONE,
            call_id: NONE,
            from_tag: (0, 0),
            to_tag: (0, 0),
            bytes: Bytes::new(),
        };
        let mut seen = Seen { cseq: NONE, content_length: None, twice: false };
        let body = self.headers(data, next, limits, &mut index, &mut seen);
        if self.bare {
            self.note("CR or LF inside a line", 400);
        }
        index.body = self.body(body, data.len(), seen.content_length);
        index.bytes = bytes.clone();
        self.check(&mut index, &seen);
        Some(index)
    }

    /// One line: where its text ends and where the next begins. `None` if it never ends.
    fn line(&mut self, data: &[u8], at: usize) -> Option<(usize, usize)> {
        let lf = at + memchr::memchr(b'\n', data.get(at..)?)?;
        if lf > at && data[lf - 1] == b'\r' {
            return Some((lf - 1, lf + 1));
        }
        self.bare = true;
        Some((lf, lf + 1))
    }

    /// All header lines; returns where the body begins.
    fn headers(
        &mut self,
        data: &[u8],
        mut at: usize,
        limits: &Limits,
        index: &mut Index,
        seen: &mut Seen,
    ) -> usize {
        let max_line = limits.max_line.min(usize::from(u16::MAX));
        loop {
            let begin = at;
            let Some((mut end, mut next)) = self.line(data, at) else {
                self.note("no empty line after the headers", 400);
                return data.len();
            };
            if end == begin {
                return next;
            }
            // RFC 3261 §7.3.1: a line that begins with white space continues the one before.
            let mut folded = false;
            while matches!(data.get(next), Some(b' ' | b'\t')) {
                let Some(more) = self.line(data, next) else { break };
                (end, next) = more;
                folded = true;
            }
            at = next;
            if end - begin > max_line {
                self.note("header line too long", 413);
                continue;
            }
            if index.lines.len() >= limits.max_lines.min(usize::from(NONE)) {
                self.note("too many header lines", 413);
                return data.len();
            }
            self.header(&data[begin..end], begin, folded, index, seen);
        }
    }

    fn header(
        &mut self,
        line: &[u8],
        begin: usize,
        folded: bool,
        index: &mut Index,
        seen: &mut Seen,
    ) {
        let name_len = line.iter().position(|byte| !view::is_token(*byte)).unwrap_or(line.len());
        let mut colon = name_len;
        while matches!(line.get(colon), Some(b' ' | b'\t')) {
            colon += 1;
        }
        if name_len == 0 || line.get(colon) != Some(&b':') {
            self.note("header line without a name and a colon", 400);
            return;
        }
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let mut start = colon + 1;
        while line.get(start).is_some_and(blank) {
            start += 1;
        }
        let mut end = line.len();
        while end > start && blank(&line[end - 1]) {
            end -= 1;
        }
        let here = index.lines.len() as u16; // at most `max_lines`, which fits
        let number = name::number(&line[..name_len]);
        index.lines.push(Line {
            name: begin as u32,
            value: (begin + start) as u32,
            end: (begin + end) as u32,
            name_len: name_len as u16,
            number,
            folded,
        });
        let value = &line[start..end];
        if folded {
            let value = unfold(value);
            self.known(number, here, &value, index, seen);
            index.unfolded.push((here, value));
        } else {
            if memchr::memchr(b'\r', value).is_some() {
                self.bare = true;
            }
            self.known(number, here, value, index, seen);
        }
    }

    /// Notes the lines every message must have, once.
    fn known(&mut self, number: u8, here: u16, value: &[u8], index: &mut Index, seen: &mut Seen) {
        const VIA: u8 = Name::Via.number();
        const FROM: u8 = Name::From.number();
        const TO: u8 = Name::To.number();
        const CALL_ID: u8 = Name::CallId.number();
        const CSEQ: u8 = Name::CSeq.number();
        const CONTENT_LENGTH: u8 = Name::ContentLength.number();
        let place = match number {
            VIA => {
                if index.via == NONE {
                    index.via = here;
                }
                return;
            }
            FROM => &mut index.from,
            TO => &mut index.to,
            CALL_ID => &mut index.call_id,
            CSEQ => &mut seen.cseq,
            CONTENT_LENGTH => {
                match (view::decimal(value), seen.content_length) {
                    (None, _) => self.note("Content-Length is no number", 400),
                    (Some(new), Some(old)) if new != old => self.note("Content-Length twice", 400),
                    (Some(new), _) => seen.content_length = Some(new),
                }
                return;
            }
            _ => return,
        };
        if *place == NONE {
            *place = here;
        } else {
            seen.twice = true;
        }
    }

    fn body(&mut self, start: usize, available: usize, content_length: Option<u32>) -> Range {
        let end = match content_length {
            None => available,
            Some(length) => {
                match start.checked_add(length as usize).filter(|end| *end <= available) {
                    Some(end) => end,
                    None => {
                        self.note("body shorter than Content-Length", 400);
                        available
                    }
                }
            }
        };
        (start as u32, end as u32)
    }

    fn check(&mut self, index: &mut Index, seen: &Seen) {
        if seen.twice {
            self.note("From, To, Call-ID or CSeq twice", 400);
        }
        if index.value_at(index.via).and_then(Via::parse).is_none() {
            self.note("no Via that can be read", 400);
        }
        match index.value_at(index.from).map(tag_of) {
            Some(Some(range)) => index.from_tag = range,
            Some(None) => self.note("From is no address", 400),
            None => self.note("From is missing", 400),
        }
        match index.value_at(index.to).map(tag_of) {
            Some(Some(range)) => index.to_tag = range,
            Some(None) => self.note("To is no address", 400),
            None => self.note("To is missing", 400),
        }
        match index.value_at(index.call_id) {
            Some(value) if !value.is_empty() && !value.iter().any(|byte| *byte <= b' ') => {}
            _ => self.note("no Call-ID that can be read", 400),
        }
        match index.value_at(seen.cseq).and_then(|value| CSeq::parse(value, &index.bytes)) {
            Some(cseq) => index.cseq = cseq,
            None => self.note("no CSeq that can be read", 400),
        }
        if let Start::Request { method, .. } = &index.start
            && *method != index.cseq.method
        {
            self.note("CSeq is of another method", 400);
        }
    }

    /// The start line at `at..end`. `None`, and nothing to answer, where not even a method can be told.
    fn start_line(&mut self, bytes: &Bytes, at: usize, end: usize) -> Option<Start> {
        let line = &bytes[at..end];
        if line.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/")) {
            return self.status_line(line, at);
        }
        let Some(space) = memchr::memchr(b' ', line) else {
            self.note("no start line", 400);
            return None;
        };
        let method = match Method::known(&line[..space]) {
            Some(known) => known,
            None => match Method::parse(&bytes.slice(at..at + space)) {
                Some(other) => other,
                None => {
                    self.note("the method is no token", 400);
                    return None;
                }
            },
        };
        // The version stands behind the last space, whatever is wrong in between.
        let last = memchr::memrchr(b' ', view::trim_end(line)).filter(|last| *last > space);
        let Some(last) = last else {
            self.note("no SIP version in the start line", 400);
            return None;
        };
        let version = &line[last + 1..];
        let is_sip = version.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/"));
        if !version.eq_ignore_ascii_case(b"SIP/2.0") {
            match version {
                [.., b' ' | b'\t'] => self.note("white space at the end of the start line", 400),
                _ if is_sip => self.note("SIP version is not 2.0", 505),
                _ => {
                    self.note("no SIP version in the start line", 400);
                    return None;
                }
            }
        }
        let uri = &line[space + 1..last];
        if view::absolute(uri).is_none() {
            self.note("the Request-URI is no URI", 400);
            return Some(Start::Request { method, uri: (0, 0) });
        }
        Some(Start::Request { method, uri: ((at + space + 1) as u32, (at + last) as u32) })
    }

    fn status_line(&mut self, line: &[u8], at: usize) -> Option<Start> {
        if !line.get(..8).is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/2.0 ")) {
            self.note("SIP version is not 2.0", 505);
            return None;
        }
        let digits =
            line.get(8..11).and_then(view::decimal).filter(|status| (100..700).contains(status));
        let (Some(status), None | Some(b' ')) = (digits, line.get(11)) else {
            self.note("no status code", 400);
            return None;
        };
        let reason = (12.min(line.len()) + at) as u32;
        Some(Start::Response { status: status as u16, reason: (reason, (at + line.len()) as u32) })
    }
}

/// Joins a folded value into one line (RFC 3261 §7.3.1: the fold counts as one space).
fn unfold(value: &[u8]) -> Box<[u8]> {
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(lf) = memchr::memchr(b'\n', rest) {
        plain.extend_from_slice(view::trim_end(
            rest[..lf].strip_suffix(b"\r").unwrap_or(&rest[..lf]),
        ));
        plain.push(b' ');
        rest = view::skip_space(&rest[lf + 1..]);
    }
    plain.extend_from_slice(rest);
    plain.into_boxed_slice()
}

/// Checks a From or To and finds its tag: a range of the value, empty where there is none. `None`: no address.
fn tag_of(value: &[u8]) -> Option<Range> {
    let (_, _, params) = view::split_address(value)?;
    let mut list = Params::new(params);
    let mut tag = (0, 0);
    for param in list.by_ref() {
        if param.is("tag") {
            let text = param.plain();
            // A tag without a value is none, and its empty text lies outside of the header's value.
            if !text.is_empty() {
                let start = text.as_ptr().addr() - value.as_ptr().addr();
                tag = (start as u32, (start + text.len()) as u32);
            }
        }
    }
    list.is_at_end().then_some(tag)
}
