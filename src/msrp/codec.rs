//! MSRP on the wire: octets into pieces of requests and responses, and back (RFC 4975 §7.1, §9).
//!
//! Start at [`Decoder`]: feed it, then take [`Piece`]s until it wants more. A body comes in slices as it arrives, so
//! nothing ever waits for the end of a chunk. The writing half is [`send_head`], [`response`], [`report`] and
//! [`end_line`]. Knows no session and no socket, and decides nothing but what is framing and what is not.

use std::sync::{Arc, LazyLock};

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memmem};
use smallvec::SmallVec;

use crate::content::msrp_uri::MsrpUri;

/// The seven hyphens every end-line starts with.
const HYPHENS: &[u8] = b"-------";
static FIND_HYPHENS: LazyLock<memmem::Finder<'static>> =
    LazyLock::new(|| memmem::Finder::new(HYPHENS));
/// MS-051 (RFC 4975 §7.1): most body octets of a request other than SEND.
const NON_SEND_BODY: u64 = 10_240;
/// MS-041: longest transact-id, and longest Message-ID taken from a peer.
const IDENT: usize = 32;
const MESSAGE_ID: usize = 128;

/// How much header a peer may send (MS-113).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets from the start line to the end of the header section.
    pub section: usize,
    /// Header lines.
    pub lines: usize,
    /// Octets of one line.
    pub line: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { section: 16 * 1024, lines: 64, line: 8 * 1024 }
    }
}

/// How an end-line ends (MS-048).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// `$`: the message ends here.
    Last,
    /// `+`: more chunks follow.
    More,
    /// `#`: the message is given up.
    Abort,
}

impl Flag {
    /// The octet on the wire.
    pub fn octet(self) -> u8 {
        match self {
            Self::Last => b'$',
            Self::More => b'+',
            Self::Abort => b'#',
        }
    }

    fn of(octet: u8) -> Option<Self> {
        match octet {
            b'$' => Some(Self::Last),
            b'+' => Some(Self::More),
            b'#' => Some(Self::Abort),
            _ => None,
        }
    }
}

/// `Failure-Report` (MS-068).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailureReport {
    /// Absent means this.
    #[default]
    Yes,
    Partial,
    No,
}

/// `Byte-Range: start-end/total`; `None` is `*`. Numbers too large for 64 bits read as `u64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// First octet of the body is number 1.
    pub start: u64,
    pub end: Option<u64>,
    pub total: Option<u64>,
}

/// What a start line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Send,
    Report,
    /// NICKNAME (RFC 7701 §7).
    Nickname,
    /// Any other method.
    Unknown,
    /// A response with its code.
    Response(u16),
}

impl Kind {
    /// A request, whatever its method.
    pub fn is_request(self) -> bool {
        !matches!(self, Self::Response(_))
    }
}

/// Start line and headers of one request or response.
#[derive(Clone)]
pub struct Head {
    pub kind: Kind,
    /// Transact-id.
    pub id: Bytes,
    /// Empty only if [`Head::problem`] says so.
    pub to_path: Vec<MsrpUri>,
    /// Never empty in a request the decoder hands out.
    pub from_path: Vec<MsrpUri>,
    pub message_id: Option<Arc<str>>,
    pub range: Option<ByteRange>,
    pub success_report: bool,
    pub failure_report: FailureReport,
    /// REPORT: namespace and code.
    pub status: Option<(u16, u16)>,
    /// Media type with its parameters, as received.
    pub content_type: Option<Arc<str>>,
    /// A body follows, be it empty (MS-045).
    pub has_body: bool,
    /// What deserves 400 although the framing holds (MS-042, MS-068, MS-113).
    pub problem: Option<&'static str>,
    /// `To-Path` as received if it does not parse: a 400 has to be sent from somewhere.
    to_raw: Option<Arc<str>>,
    seen: u16,
}

impl Head {
    /// The URI a response to this request is sent from: ours as the peer wrote it.
    pub fn own_uri(&self) -> &str {
        match self.to_path.first() {
            Some(uri) => uri.as_str(),
            None => self.to_raw.as_deref().unwrap_or("").split(' ').next().unwrap_or(""),
        }
    }
}

/// Session-ids stay out (MS-116).
impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("to_path", &self.to_path)
            .field("from_path", &self.from_path)
            .field("message_id", &self.message_id)
            .field("range", &self.range)
            .field("content_type", &self.content_type)
            .field("problem", &self.problem)
            .finish_non_exhaustive()
    }
}

/// What the decoder found next. A message is one `Head`, any number of `Body`, one `End`.
#[derive(Debug, Clone)]
pub enum Piece {
    Head(Box<Head>),
    /// Octets of the body, never empty.
    Body(Bytes),
    End(Flag),
}

/// The framing is lost: nothing behind it can be read, the connection has to be closed (MS-040, MS-052).
#[derive(Debug, Clone, thiserror::Error)]
#[error("MSRP framing lost: {what}")]
pub struct Lost {
    pub what: &'static str,
    /// The request that deserves a 400 first, if it can be addressed.
    pub answer: Option<Box<Head>>,
}

#[derive(Debug)]
enum State {
    /// Between messages or inside a header section: `lines` are complete, the next starts at `at`.
    Head {
        lines: Vec<(usize, usize)>,
        at: usize,
        scanned: usize,
    },
    /// Inside a body that ends at `pattern` + flag + CRLF; `pattern` starts with CRLF.
    Body {
        pattern: Vec<u8>,
        fresh: bool,
        left: Option<u64>,
    },
    /// Header section and end-line are taken, the end-line is yet to be told.
    End(Flag),
    Dead,
}

impl State {
    fn fresh() -> Self {
        Self::Head { lines: Vec::new(), at: 0, scanned: 0 }
    }
}

/// Cuts a stream into [`Piece`]s, whatever the sizes of the reads.
///
/// Contract: put octets into [`Decoder::buffer`], then call [`Decoder::next`] until it returns `Ok(None)`. After an
/// error every further call repeats it without an answer. Holds at most one header section, or the octets just fed.
#[derive(Debug)]
pub struct Decoder {
    buf: BytesMut,
    limits: Limits,
    state: State,
    plain: bool,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { buf: BytesMut::new(), limits, state: State::fresh(), plain: false }
    }

    /// Where received octets are appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buf
    }

    /// A header section has begun and is not complete (MS-114).
    pub fn in_head(&self) -> bool {
        matches!(self.state, State::Head { .. }) && !self.buf.is_empty()
    }

    /// Between two messages with nothing pending: a stream may end here.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Head { .. }) && self.buf.is_empty()
    }

    /// The last [`Piece::Body`] holds no seven hyphens in a row, so no end-line whatever its id (MS-047).
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// The next piece, or `None` when more octets are needed.
    ///
    /// # Errors
    /// [`Lost`] when the stream is no MSRP any more.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end; this one waits")]
    pub fn next(&mut self) -> Result<Option<Piece>, Lost> {
        let result = match &self.state {
            State::Head { .. } => self.head(),
            State::Body { .. } => self.body(),
            State::End(flag) => {
                let flag = *flag;
                self.state = State::fresh();
                Ok(Some(Piece::End(flag)))
            }
            State::Dead => Err(Lost { what: "connection is given up", answer: None }),
        };
        if result.is_err() {
            self.state = State::Dead;
            self.buf.clear();
        }
        result
    }

    fn head(&mut self) -> Result<Option<Piece>, Lost> {
        let State::Head { lines, at, scanned } = &mut self.state else { return Ok(None) };
        if lines.is_empty() {
            // MS-039: keep-alive CRLFs between messages.
            while self.buf.starts_with(b"\r\n") {
                self.buf.advance(2);
                *scanned = 0;
            }
            let known = self.buf.len().min(5);
            if self.buf[..known] != b"MSRP "[..known] && self.buf[..] != b"\r"[..] {
                return Err(Lost { what: "no MSRP start line", answer: None });
            }
        }
        loop {
            let Some(found) = memchr(b'\n', &self.buf[(*scanned).max(*at)..]) else {
                *scanned = self.buf.len();
                // The CR of its end may be here already.
                let over = self.buf.len() - *at > self.limits.line + 1
                    || self.buf.len() > self.limits.section + 1;
                return if over { Err(self.lost("header over limit")) } else { Ok(None) };
            };
            let newline = (*scanned).max(*at) + found;
            let (start, end) = (*at, newline.saturating_sub(1));
            *at = newline + 1;
            if end < start || self.buf[end] != b'\r' {
                return Err(self.lost("line end is not CRLF"));
            }
            let line = &self.buf[start..end];
            if lines.is_empty() {
                if start_line(line).is_none() {
                    return Err(Lost { what: "start line does not parse", answer: None });
                }
                // As many as a SEND has, mostly.
                lines.reserve_exact(8);
                lines.push((start, end));
                continue;
            }
            if line.is_empty() {
                return self.head_done(true, Flag::Last);
            }
            if let Some(rest) = line.strip_prefix(HYPHENS) {
                let (_, id) = start_line(&self.buf[..lines[0].1]).unwrap_or((Kind::Unknown, b""));
                match rest.strip_prefix(id) {
                    Some([octet]) if Flag::of(*octet).is_some() => {
                        let flag = Flag::of(*octet).unwrap_or(Flag::Last);
                        return self.head_done(false, flag);
                    }
                    _ => return Err(self.lost("foreign end-line in a header section")),
                }
            }
            if end - start > self.limits.line
                || lines.len() > self.limits.lines
                || end > self.limits.section
            {
                return Err(self.lost("header over limit"));
            }
            if !header_octets(line) {
                return Err(self.lost("no header line"));
            }
            lines.push((start, end));
        }
    }

    /// MS-052: 400 goes out if the lines so far say to whom.
    fn lost(&self, what: &'static str) -> Lost {
        let State::Head { lines, .. } = &self.state else { return Lost { what, answer: None } };
        let answer = parse(&self.buf, lines).filter(|head| {
            head.kind.is_request() && head.kind != Kind::Report && !head.from_path.is_empty()
        });
        Lost { what, answer: answer.map(Box::new) }
    }

    fn head_done(&mut self, has_body: bool, flag: Flag) -> Result<Option<Piece>, Lost> {
        let State::Head { lines, at, .. } = &self.state else { return Ok(None) };
        let Some(mut head) = parse(&self.buf, lines) else {
            return Err(Lost { what: "start line does not parse", answer: None });
        };
        head.has_body = has_body;
        if head.kind.is_request() && head.from_path.is_empty() {
            // MS-042: nowhere to answer.
            return Err(Lost { what: "no usable From-Path", answer: None });
        }
        let taken = *at;
        self.buf.advance(taken);
        self.state = if has_body {
            let pattern = [b"\r\n", HYPHENS, &head.id].concat();
            let left = (head.kind != Kind::Send).then_some(NON_SEND_BODY);
            State::Body { pattern, fresh: true, left }
        } else {
            State::End(flag)
        };
        Ok(Some(Piece::Head(Box::new(head))))
    }

    fn body(&mut self) -> Result<Option<Piece>, Lost> {
        let State::Body { pattern, fresh, left } = &mut self.state else { return Ok(None) };
        if self.buf.is_empty() {
            return Ok(None);
        }
        if *fresh {
            // MS-045: an empty line directly followed by the end-line is an empty body, too.
            match end_at(&self.buf, &pattern[2..]) {
                EndLine::Here(flag, len) => {
                    self.buf.advance(len);
                    self.state = State::fresh();
                    return Ok(Some(Piece::End(flag)));
                }
                EndLine::Unclear => return Ok(None),
                EndLine::No => *fresh = false,
            }
        }
        // MS-046 (RFC 4975 §7.1): only CRLF, hyphens, this very id, a flag and CRLF end the body.
        // Seven hyphens are looked for, whatever follows them, so that one search also tells what a sender has to know.
        let (mut from, mut plain) = (0, true);
        let hold = loop {
            let Some(found) = FIND_HYPHENS.find(&self.buf[from..]) else {
                break self.buf.len() - begun(&self.buf);
            };
            let run = from + found;
            if let Some(at) = run.checked_sub(2) {
                match end_at(&self.buf[at..], pattern) {
                    EndLine::Here(flag, len) if at == 0 => {
                        self.buf.advance(len);
                        self.state = State::fresh();
                        return Ok(Some(Piece::End(flag)));
                    }
                    EndLine::Here(..) | EndLine::Unclear => break at,
                    EndLine::No => {}
                }
            }
            plain = false;
            // An id starts with no hyphen: the end-line begins where hyphens do.
            let more = self.buf[run + HYPHENS.len()..].iter().take_while(|b| **b == b'-').count();
            from = run + HYPHENS.len() + more;
        };
        if hold == 0 {
            return Ok(None);
        }
        if let Some(left) = left {
            // MS-051.
            *left = left.checked_sub(hold as u64).ok_or(Lost {
                what: "body over 10240 octets in a request other than SEND",
                answer: None,
            })?;
        }
        self.plain = plain;
        Ok(Some(Piece::Body(self.buf.split_to(hold).freeze())))
    }
}

/// Octets at the end that may be the start of an end-line, as far as that has not seven hyphens yet.
fn begun(octets: &[u8]) -> usize {
    const START: &[u8] = b"\r\n------";
    (1..=START.len()).rev().find(|len| octets.ends_with(&START[..*len])).unwrap_or(0)
}

enum EndLine {
    /// With its length, trailing CRLF included.
    Here(Flag, usize),
    /// As far as it is here it could be one.
    Unclear,
    No,
}

fn end_at(octets: &[u8], pattern: &[u8]) -> EndLine {
    let known = octets.len().min(pattern.len());
    if octets[..known] != pattern[..known] {
        return EndLine::No;
    }
    let rest = &octets[known..];
    if known < pattern.len() || rest.is_empty() {
        return EndLine::Unclear;
    }
    match (Flag::of(rest[0]), &rest[1..rest.len().min(3)]) {
        (Some(flag), b"\r\n") => EndLine::Here(flag, known + 3),
        (Some(_), b"" | b"\r") => EndLine::Unclear,
        _ => EndLine::No,
    }
}

/// MS-041.
fn is_ident(text: &[u8], longest: usize) -> bool {
    (4..=longest).contains(&text.len())
        && text[0].is_ascii_alphanumeric()
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b".-+%=".contains(b))
}

/// MS-040. Kind and transact-id.
fn start_line(line: &[u8]) -> Option<(Kind, &[u8])> {
    let rest = line.strip_prefix(b"MSRP ")?;
    let space = memchr(b' ', rest)?;
    let (id, rest) = (&rest[..space], &rest[space + 1..]);
    if !is_ident(id, IDENT) {
        return None;
    }
    let (word, comment) = match memchr(b' ', rest) {
        Some(space) => (&rest[..space], Some(&rest[space + 1..])),
        None => (rest, None),
    };
    if let [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = word {
        let digit = |d: &u8| u16::from(d - b'0');
        return Some((Kind::Response(digit(a) * 100 + digit(b) * 10 + digit(c)), id));
    }
    if word.is_empty() || comment.is_some() || !word.iter().all(u8::is_ascii_uppercase) {
        return None;
    }
    let kind = match word {
        b"SEND" => Kind::Send,
        b"REPORT" => Kind::Report,
        b"NICKNAME" => Kind::Nickname,
        _ => Kind::Unknown,
    };
    Some((kind, id))
}

/// A line of the form `token:`..., UTF-8, no control character (MS-042, MS-052).
fn header_octets(line: &[u8]) -> bool {
    let Some(colon) = memchr(b':', line) else { return false };
    colon > 0
        && line[..colon].iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
        // All of them are looked at, which takes less time than looking for the first.
        && line[colon..].iter().fold(true, |fine, b| fine & (*b == b'\t' || (*b >= b' ' && *b != 0x7f)))
        && std::str::from_utf8(line).is_ok()
}

/// The headers we read, each with its bit for MS-113.
const KNOWN: [&str; 8] = [
    "To-Path",
    "From-Path",
    "Message-ID",
    "Byte-Range",
    "Success-Report",
    "Failure-Report",
    "Status",
    "Content-Type",
];

fn parse(buf: &[u8], lines: &[(usize, usize)]) -> Option<Head> {
    let (first, rest) = lines.split_first()?;
    let (kind, id) = start_line(&buf[first.0..first.1])?;
    let mut head = Head {
        kind,
        id: Bytes::copy_from_slice(id),
        to_path: Vec::new(),
        from_path: Vec::new(),
        message_id: None,
        range: None,
        success_report: false,
        failure_report: FailureReport::Yes,
        status: None,
        content_type: None,
        has_body: false,
        problem: None,
        to_raw: None,
        seen: 0,
    };
    for (n, (start, end)) in rest.iter().enumerate() {
        let line = std::str::from_utf8(&buf[*start..*end]).ok()?;
        let colon = memchr(b':', line.as_bytes())?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        head.line(n, name, value.trim_matches([' ', '\t']));
    }
    if head.seen & 0b11 != 0b11 {
        head.wrong("To-Path or From-Path missing");
    }
    if kind == Kind::Send && head.message_id.is_none() {
        head.wrong("Message-ID missing");
    }
    Some(head)
}

impl Head {
    fn wrong(&mut self, what: &'static str) {
        self.problem.get_or_insert(what);
    }

    fn line(&mut self, n: usize, name: &str, value: &str) {
        let Some(which) = KNOWN.iter().position(|known| known.eq_ignore_ascii_case(name)) else {
            if n < 2 {
                self.wrong("To-Path and From-Path come first");
            }
            return;
        };
        if self.seen & (1 << which) != 0 {
            // The first one counts.
            self.wrong("duplicate header");
            return;
        }
        self.seen |= 1 << which;
        if n < 2 && which != n {
            self.wrong("To-Path and From-Path come first");
        }
        match which {
            0 => match MsrpUri::parse_path(value) {
                Ok(path) => self.to_path = path,
                Err(_) => {
                    self.to_raw = Some(Arc::from(value));
                    self.wrong("To-Path does not parse");
                }
            },
            1 => match MsrpUri::parse_path(value) {
                Ok(path) => self.from_path = path,
                Err(_) => self.wrong("From-Path does not parse"),
            },
            2 if is_ident(value.as_bytes(), MESSAGE_ID) => self.message_id = Some(Arc::from(value)),
            2 => self.wrong("Message-ID is no ident"),
            3 => match byte_range(value) {
                Some(range) => self.range = Some(range),
                None => self.wrong("Byte-Range does not parse"),
            },
            4 => match value {
                "yes" => self.success_report = true,
                "no" => {}
                _ => self.wrong("Success-Report is neither yes nor no"),
            },
            5 => match value {
                "yes" => {}
                "partial" => self.failure_report = FailureReport::Partial,
                "no" => self.failure_report = FailureReport::No,
                _ => self.wrong("Failure-Report is none of yes, no, partial"),
            },
            6 => match status(value) {
                Some(status) => self.status = Some(status),
                None => self.wrong("Status does not parse"),
            },
            _ if is_media_type(value) => self.content_type = Some(Arc::from(value)),
            _ => self.wrong("Content-Type does not parse"),
        }
    }
}

fn byte_range(value: &str) -> Option<ByteRange> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let open = |text: &str| if text == "*" { Some(None) } else { number(text).map(Some) };
    let (range, total) = value.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    Some(ByteRange { start: number(start)?, end: open(end)?, total: open(total)? })
}

fn status(value: &str) -> Option<(u16, u16)> {
    let mut words = value.split(' ');
    let mut code = || {
        let word = words.next()?;
        if word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit()) {
            word.parse().ok()
        } else {
            None
        }
    };
    Some((code()?, code()?))
}

fn is_media_type(value: &str) -> bool {
    let essence = value.split(';').next().unwrap_or("").trim();
    let token = |t: &str| {
        !t.is_empty()
            && t.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
    };
    essence.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub))
}

/// What a SEND of ours says.
#[derive(Debug, Clone, Copy)]
pub struct SendHead<'a> {
    pub id: &'a [u8],
    /// The peer's whole path (MS-009).
    pub to_path: &'a str,
    pub from: &'a str,
    pub message_id: &'a str,
    pub range: Option<ByteRange>,
    pub success_report: bool,
    /// `None` makes a SEND without a body (MS-043).
    pub content_type: Option<&'a str>,
}

/// Writes a SEND up to the first octet of its body; without a content type [`end_line`] follows directly.
pub fn send_head(out: &mut BytesMut, head: &SendHead<'_>) {
    start(out, head.id, "SEND", &[head.to_path], head.from);
    text(out, &["Message-ID: ", head.message_id, "\r\n"]);
    if let Some(range) = head.range {
        byte_range_line(out, range);
    }
    if head.success_report {
        out.extend_from_slice(b"Success-Report: yes\r\n");
    }
    if let Some(content_type) = head.content_type {
        text(out, &["Content-Type: ", content_type, "\r\n\r\n"]);
    }
}

/// Ends a message: CRLF in front if there was a body (MS-044).
pub fn end_line(out: &mut BytesMut, id: &[u8], flag: Flag, had_body: bool) {
    if had_body {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(HYPHENS);
    out.extend_from_slice(id);
    out.extend_from_slice(&[flag.octet(), b'\r', b'\n']);
}

/// Writes the response to `request` (MS-071, MS-050).
pub fn response(out: &mut BytesMut, request: &Head, code: u16) {
    // MS-071 (RFC 4975 §7.2): a SEND is answered one hop back, everything else along the whole path.
    let hops = if request.kind == Kind::Send { 1 } else { request.from_path.len() };
    let to: SmallVec<[&str; 1]> =
        request.from_path.iter().take(hops).map(MsrpUri::as_str).collect();
    out.extend_from_slice(b"MSRP ");
    out.extend_from_slice(&request.id);
    out.extend_from_slice(b" ");
    number(out, u64::from(code));
    text(out, &[" ", comment(code)]);
    paths(out, &to, request.own_uri());
    end_line(out, &request.id, Flag::Last, false);
}

/// What a REPORT of ours says (MS-072).
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    pub id: &'a [u8],
    /// The complete From-Path of the SEND.
    pub to_path: &'a str,
    pub from: &'a str,
    pub message_id: &'a str,
    /// Octets covered, from 1; also the total.
    pub octets: u64,
    pub total: Option<u64>,
    pub code: u16,
    pub text: &'a str,
}

/// Writes a REPORT; the AS never puts a body into one (MS-051).
pub fn report(out: &mut BytesMut, report: &Report<'_>) {
    start(out, report.id, "REPORT", &[report.to_path], report.from);
    text(out, &["Message-ID: ", report.message_id, "\r\n"]);
    byte_range_line(out, ByteRange { start: 1, end: Some(report.octets), total: report.total });
    let comment = report.text.replace(['\r', '\n'], " ");
    text(out, &["Status: 000 ", &format!("{:03}", report.code), " ", &comment, "\r\n"]);
    end_line(out, report.id, Flag::Last, false);
}

fn start(out: &mut BytesMut, id: &[u8], kind: &str, to: &[&str], from: &str) {
    out.extend_from_slice(b"MSRP ");
    out.extend_from_slice(id);
    text(out, &[" ", kind]);
    paths(out, to, from);
}

fn paths(out: &mut BytesMut, to: &[&str], from: &str) {
    text(out, &["\r\nTo-Path:"]);
    for hop in to {
        text(out, &[" ", hop]);
    }
    text(out, &["\r\nFrom-Path: ", from, "\r\n"]);
}

fn byte_range_line(out: &mut BytesMut, range: ByteRange) {
    out.extend_from_slice(b"Byte-Range: ");
    number(out, range.start);
    for (before, n) in [(b"-", range.end), (b"/", range.total)] {
        out.extend_from_slice(before);
        match n {
            Some(n) => number(out, n),
            None => out.extend_from_slice(b"*"),
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn text(out: &mut BytesMut, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// In decimal; such lines are written a hundred thousand times a second.
fn number(out: &mut BytesMut, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A path as it stands in headers.
pub fn path_text(path: &[MsrpUri]) -> String {
    path.iter().map(MsrpUri::as_str).collect::<Vec<_>>().join(" ")
}

/// The usual words behind a code.
pub fn comment(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad request",
        403 => "Forbidden",
        404 => "Not found",
        408 => "Timeout",
        413 => "Stop sending",
        415 => "Media type not supported",
        481 => "No such session",
        501 => "Method not supported",
        506 => "Session bound to another connection",
        _ => "Failure",
    }
}
