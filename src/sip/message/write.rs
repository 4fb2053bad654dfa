//! Prints messages. What a peer sent is echoed as bytes; what we print ourselves cannot begin a new header line.

use bytes::Bytes;

use super::{Message, Method, Name};
use crate::sip::Flow;

/// Builds one message: start line, headers in the order given, then Content-Type, Content-Length and the body.
///
/// Values lose CR, LF and NUL, so nothing put into one can become a header of its own. Content-Length and
/// Content-Type handed in as headers are left out: [`Writer::finish`] prints them, once.
#[derive(Debug, Clone)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// A request. The next line must be its Via, see [`Writer::via`].
    pub fn request(method: &Method, uri: &str) -> Self {
        let mut writer = Self { out: Vec::with_capacity(1536) };
        writer.out.extend_from_slice(method.as_str().as_bytes());
        writer.out.push(b' ');
        writer.clean(uri.as_bytes());
        writer.out.extend_from_slice(b" SIP/2.0\r\n");
        writer
    }

    /// A response: echoes every Via, From, To (with `to_tag` if it had none), Call-ID and CSeq as they came.
    pub fn response(to: &Message, status: u16, reason: &str, to_tag: Option<&str>) -> Self {
        Self::answer(to, None, status, reason, to_tag)
    }

    /// The same, and the topmost Via says where the request came from (RFC 3261 §18.2.1, RFC 3581 §4): `received`
    /// where its sent-by is not the source address, `rport` where it was asked for.
    pub fn response_from(
        to: &Message,
        flow: &Flow,
        status: u16,
        reason: &str,
        to_tag: Option<&str>,
    ) -> Self {
        Self::answer(to, Some(flow), status, reason, to_tag)
    }

    fn answer(
        to: &Message,
        flow: Option<&Flow>,
        status: u16,
        reason: &str,
        to_tag: Option<&str>,
    ) -> Self {
        let mut writer = Self { out: Vec::with_capacity(768) };
        writer.out.extend_from_slice(b"SIP/2.0 ");
        writer.number(u32::from(status));
        writer.out.push(b' ');
        writer.clean(reason.as_bytes());
        writer.end();
        let mut top = true;
        for line in to.raw_lines(Name::Via) {
            writer.out.extend_from_slice(b"Via: ");
            match flow.filter(|_| top) {
                Some(flow) => writer.top_via(to, flow, line),
                None => writer.fold_safe(line),
            }
            top = false;
            writer.end();
        }
        writer.echo(to, Name::From);
        for line in to.raw_lines(Name::To).take(1) {
            writer.out.extend_from_slice(b"To: ");
            writer.fold_safe(line);
            if let (None, Some(tag)) = (to.to_tag(), to_tag) {
                writer.out.extend_from_slice(b";tag=");
                writer.clean(tag.as_bytes());
            }
            writer.end();
        }
        writer.echo(to, Name::CallId);
        writer.echo(to, Name::CSeq);
        writer
    }

    /// The topmost Via with `received` and `rport` as the source says; other elements of its line follow unchanged.
    fn top_via(&mut self, to: &Message, flow: &Flow, line: &[u8]) {
        let via = to.via();
        let source = flow.peer.ip().to_canonical();
        let named =
            via.host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        let received =
            named.map(|address| address.to_canonical()) != Ok(source) || via.rport.is_some();
        if !received && via.received.is_none() {
            return self.fold_safe(line);
        }
        let value = to.header(Name::Via).unwrap_or(via.raw);
        let rest = value.get(via.raw.len()..).unwrap_or(b"");
        // sent-protocol and sent-by as they stand, then the parameters but for the two that are ours to fill in
        let head = via.raw.iter().position(|byte| *byte == b';').unwrap_or(via.raw.len());
        self.fold_safe(super::view::trim_end(&via.raw[..head]));
        for param in super::Params::new(&via.raw[head..]) {
            if param.is("received") || param.is("rport") {
                continue;
            }
            self.out.push(b';');
            self.fold_safe(param.name);
            if let Some(value) = param.value {
                self.out.push(b'=');
                self.fold_safe(value);
            }
        }
        if received {
            self.out.extend_from_slice(b";received=");
            self.out.extend_from_slice(source.to_string().as_bytes());
        }
        if via.rport.is_some() {
            self.out.extend_from_slice(b";rport=");
            self.number(u32::from(flow.peer.port()));
        }
        self.fold_safe(rest);
    }

    /// The Via of a request, first line after the start line: `SIP/2.0/UDP sent_by;branch=..;rport`. Returns where
    /// the three letters of the transport stand, for whoever chooses it later.
    pub fn via(&mut self, sent_by: &str, branch: &str) -> usize {
        self.out.extend_from_slice(b"Via: SIP/2.0/");
        let at = self.out.len();
        self.out.extend_from_slice(b"UDP ");
        self.clean(sent_by.as_bytes());
        self.out.extend_from_slice(b";branch=");
        self.clean(branch.as_bytes());
        self.out.extend_from_slice(b";rport\r\n");
        at
    }

    /// One header line.
    pub fn header(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        if !printed_by_finish(name.as_bytes()) {
            self.clean(name.as_bytes());
            self.out.extend_from_slice(b": ");
            self.clean(value.as_ref());
            self.end();
        }
        self
    }

    /// Prepared lines, `Name: value` with a CRLF each. Empty lines and lines that [`Writer::finish`] prints are left
    /// out, a missing CRLF is added.
    pub fn lines(&mut self, raw: &[u8]) -> &mut Self {
        let mut rest = raw;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
            let (line, more) = rest.split_at(end);
            rest = more;
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let name = line.split(|byte| matches!(byte, b':' | b' ' | b'\t')).next().unwrap_or(b"");
            if line.is_empty() || printed_by_finish(name) {
                continue;
            }
            self.clean(line);
            self.end();
        }
        self
    }

    /// Copies every line of that name from a message, values byte for byte.
    pub fn echo(&mut self, from: &Message, name: Name) -> &mut Self {
        if !printed_by_finish(name.as_str().as_bytes()) {
            for line in from.raw_lines(name) {
                self.out.extend_from_slice(name.as_str().as_bytes());
                self.out.extend_from_slice(b": ");
                self.fold_safe(line);
                self.end();
            }
        }
        self
    }

    /// How many octets are printed so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Content-Type (with a body), Content-Length, the empty line and the body.
    pub fn finish(mut self, body: Option<(&str, &[u8])>) -> Bytes {
        let (kind, body) = body.unwrap_or(("", b""));
        if !kind.is_empty() {
            self.out.extend_from_slice(b"Content-Type: ");
            self.clean(kind.as_bytes());
            self.end();
        }
        self.out.extend_from_slice(b"Content-Length: ");
        self.number(u32::try_from(body.len()).unwrap_or(u32::MAX));
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(body);
        Bytes::from(self.out)
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }

    fn number(&mut self, mut value: u32) {
        let mut digits = [0; 10];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
    }

    /// A value of ours: CR, LF and NUL are dropped.
    fn clean(&mut self, value: &[u8]) {
        if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            self.out.extend(value.iter().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)));
        } else {
            self.out.extend_from_slice(value);
        }
    }

    /// A value as received: goes out as it is when every line break in it is a fold, else without them.
    fn fold_safe(&mut self, value: &[u8]) {
        let Some(first) = memchr::memchr2(b'\r', b'\n', value) else {
            self.out.extend_from_slice(value);
            return;
        };
        let mut rest = &value[first..];
        self.out.extend_from_slice(&value[..first]);
        while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
            self.out.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            match rest {
                [b'\r', b'\n', space @ (b' ' | b'\t'), ..] => {
                    self.out.extend_from_slice(&[b'\r', b'\n', *space]);
                    rest = &rest[3..];
                }
                _ => rest = &rest[1..],
            }
        }
        self.out.extend_from_slice(rest);
    }
}

fn printed_by_finish(name: &[u8]) -> bool {
    matches!(name.first(), Some(b'c' | b'C' | b'l' | b'L'))
        && matches!(Name::known(name), Some(Name::ContentLength | Name::ContentType))
}

/// The phrase that goes with a status code (RFC 3261 §21 and its extensions); the class's own for unknown codes.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        417 => "Unknown Resource-Priority",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        424 => "Bad Location Information",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        430 => "Flow Failed",
        433 => "Anonymity Disallowed",
        437 => "Unsupported Certificate",
        438 => "Invalid Identity Header",
        439 => "First Hop Lacks Outbound Support",
        440 => "Max-Breadth Exceeded",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        other => match other / 100 {
            1 => "Progress",
            2 => "Success",
            3 => "Redirection",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}
