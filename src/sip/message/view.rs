//! Typed views of header values: name-addr, Via, CSeq, parameters, comma lists. All borrow from the value.

use std::borrow::Cow;

use bytes::Bytes;

use super::Method;

/// A byte of RFC 3261 `token`.
pub(crate) fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut at = 0;
        while at < 256 {
            let byte = at as u8;
            table[at] = byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
                );
            at += 1;
        }
        table
    };
    TOKEN[byte as usize]
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(skip_space(bytes))
}

pub(super) fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., last] = bytes
        && is_space(*last)
    {
        bytes = rest;
    }
    bytes
}

pub(super) fn skip_space(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [first, tail @ ..] = rest
        && is_space(*first)
    {
        rest = tail;
    }
    rest
}

/// Splits where `stop` first says so.
fn run(bytes: &[u8], stop: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|byte| stop(*byte)).unwrap_or(bytes.len()))
}

/// A leading quoted-string: the text between the quotes, as it stands, and what follows. `None` if it never ends.
fn quoted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = bytes.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        match inner.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some((&inner[..at], &inner[at + 1..])),
            _ => at += 1,
        }
    }
}

fn unescape(text: &[u8]) -> Cow<'_, str> {
    if !text.contains(&b'\\') {
        return String::from_utf8_lossy(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let byte = if *byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte };
        plain.push(*byte);
    }
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}

/// One `;name=value` of a header value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param<'a> {
    pub name: &'a [u8],
    /// As it stands, with its quotes; `None` for a flag.
    pub value: Option<&'a [u8]>,
}

impl<'a> Param<'a> {
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value without surrounding quotes; empty for a flag.
    pub fn plain(&self) -> &'a [u8] {
        let value = self.value.unwrap_or(b"");
        value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
    }
}

/// Reads `;name=value` pairs up to the end or a comma. Ends early on other bytes, see
/// [`Params::is_at_end`].
#[derive(Debug, Clone)]
pub struct Params<'a> {
    rest: &'a [u8],
    broken: bool,
}

impl<'a> Params<'a> {
    /// `text` begins at the first `;` (white space before it is fine) or is empty.
    pub fn new(text: &'a [u8]) -> Self {
        Self { rest: text, broken: false }
    }

    fn take(&mut self) -> Option<Option<Param<'a>>> {
        let rest = skip_space(self.rest);
        self.rest = rest;
        let [first, rest @ ..] = rest else { return Some(None) };
        match first {
            b',' => return Some(None),
            b';' => {}
            _ => return None,
        }
        let (name, rest) = run(skip_space(rest), |byte| !is_token(byte));
        if name.is_empty() {
            return None;
        }
        let after = skip_space(rest);
        let Some(after) = after.strip_prefix(b"=") else {
            self.rest = after;
            return Some(Some(Param { name, value: None }));
        };
        let after = skip_space(after);
        let (value, rest) = if after.first() == Some(&b'"') {
            let (inner, rest) = quoted(after)?;
            (&after[..inner.len() + 2], rest)
        } else {
            run(after, |byte| matches!(byte, b';' | b',' | b' ' | b'\t' | b'"'))
        };
        self.rest = rest;
        Some(Some(Param { name, value: Some(value) }))
    }

    /// Whether the text was a list of parameters to its end. Asked after the last `next`.
    pub fn is_at_end(&self) -> bool {
        !self.broken && self.rest.is_empty()
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        if self.broken {
            return None;
        }
        let taken = self.take();
        self.broken = taken.is_none();
        taken.flatten()
    }
}

/// A name-addr or addr-spec with its header parameters: From, To, Contact, Route, P-Asserted-Identity and so on.
///
/// Without angle brackets everything after the first `;` belongs to the header, not to the URI (RFC 3261 §20).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// Unquoted and unescaped; bytes that are no UTF-8 are replaced. `None` where there is none or it is empty.
    pub display: Option<Cow<'a, str>>,
    /// The URI without brackets, as received. It has a scheme and holds neither spaces nor controls.
    pub uri: &'a str,
    /// The whole value.
    pub raw: &'a [u8],
    params: &'a [u8],
}

impl<'a> NameAddr<'a> {
    /// Reads one element. `None` where it is no address (no scheme, a broken quote, spaces in the URI, junk behind).
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let raw = trim(value);
        let (display, uri, params) = split_address(raw)?;
        let mut rest = Params::new(params);
        rest.by_ref().for_each(drop);
        rest.is_at_end().then(|| Self { display: display_name(display), uri, raw, params })
    }

    pub(super) fn empty() -> Self {
        Self { display: None, uri: "", raw: b"", params: b"" }
    }

    /// A header parameter by name (any case): its value without quotes, empty for a flag, `None` if it is not there
    /// or no UTF-8.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        let param = self.params().find(|param| param.is(name))?;
        std::str::from_utf8(param.plain()).ok()
    }

    pub fn params(&self) -> Params<'a> {
        Params::new(self.params)
    }

    /// All header parameters as they stand, from the first `;` on; empty if there are none.
    pub fn params_raw(&self) -> &'a [u8] {
        self.params
    }
}

fn display_name(display: &[u8]) -> Option<Cow<'_, str>> {
    let display = trim(display);
    let text = match quoted(display) {
        Some((inner, _)) => unescape(inner),
        None => String::from_utf8_lossy(display),
    };
    (!text.is_empty()).then_some(text)
}

/// Display name, URI, parameters (from `;`) of one element.
pub(super) fn split_address(value: &[u8]) -> Option<(&[u8], &str, &[u8])> {
    let (display, rest) = match value.first()? {
        b'"' => {
            let (inner, rest) = quoted(value)?;
            let rest = skip_space(rest);
            (&value[..inner.len() + 2], Some(rest.strip_prefix(b"<")?))
        }
        b'<' => (&value[..0], Some(&value[1..])),
        _ => match value.iter().position(|byte| *byte == b'<') {
            // `sip:a@b;x="<"` has no bracket of its own: a display name holds neither `;` nor `,` nor `"`.
            Some(at) if !value[..at].iter().any(|byte| matches!(byte, b';' | b',' | b'"')) => {
                (&value[..at], Some(&value[at + 1..]))
            }
            _ => (&value[..0], None),
        },
    };
    let (uri, params) = match rest {
        Some(rest) => {
            let end = rest.iter().position(|byte| *byte == b'>')?;
            (&rest[..end], &rest[end + 1..])
        }
        None => run(value, |byte| matches!(byte, b';' | b',' | b' ' | b'\t' | b'?')),
    };
    let params = skip_space(params);
    Some((display, absolute(uri)?, params))
}

/// The bytes as a URI with a scheme and without spaces, controls or quotes.
pub(super) fn absolute(uri: &[u8]) -> Option<&str> {
    let scheme = uri
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')))?;
    let well = scheme > 0
        && uri[0].is_ascii_alphabetic()
        && uri[scheme] == b':'
        && uri.len() > scheme + 1
        && !uri.iter().any(|byte| *byte <= b' ' || matches!(byte, 0x7f | b'<' | b'>' | b'"'));
    if well { std::str::from_utf8(uri).ok() } else { None }
}

/// The topmost Via of a message (RFC 3261 §20.42, RFC 3581).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via<'a> {
    /// `UDP`, `TCP`, `TLS` or whatever else stands there.
    pub transport: &'a str,
    /// Host of sent-by; brackets of an IPv6 reference are kept.
    pub host: &'a str,
    pub port: Option<u16>,
    pub branch: Option<&'a str>,
    pub received: Option<&'a str>,
    pub maddr: Option<&'a str>,
    /// `None`: no rport; `Some(None)`: asked for; `Some(Some(port))`: filled in.
    pub rport: Option<Option<u16>>,
    /// The first element of the line as it stands (unfolded).
    pub raw: &'a [u8],
}

impl<'a> Via<'a> {
    pub(super) const EMPTY: Via<'static> = Via {
        transport: "",
        host: "",
        port: None,
        branch: None,
        received: None,
        maddr: None,
        rport: None,
        raw: b"",
    };

    /// Reads the first element of a Via value; `None` if it is no Via.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = skip_space(value);
        let rest = slash(word(value, b"SIP")?)?;
        let rest = slash(word(rest, b"2.0")?)?;
        let (transport, rest) = run(rest, |byte| !is_token(byte));
        if transport.is_empty() || !rest.first().is_some_and(|byte| is_space(*byte)) {
            return None;
        }
        let rest = skip_space(rest);
        let (host, rest) = host(rest)?;
        let mut rest = skip_space(rest);
        let mut port = None;
        if let Some(after) = rest.strip_prefix(b":") {
            let (digits, after) = run(skip_space(after), |byte| !byte.is_ascii_digit());
            port = Some(u16::try_from(decimal(digits)?).ok().filter(|port| *port != 0)?);
            rest = skip_space(after);
        }
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let mut via = Self { transport: text(transport)?, host, port, ..Via::EMPTY };
        let mut params = Params::new(rest);
        for param in params.by_ref() {
            match param.name.len() {
                6 if param.is("branch") => via.branch = Some(text(param.plain())?),
                8 if param.is("received") => via.received = Some(text(param.plain())?),
                5 if param.is("maddr") => via.maddr = Some(text(param.plain())?),
                5 if param.is("rport") => {
                    via.rport = Some(match param.value {
                        None | Some(b"") => None,
                        Some(digits) => Some(u16::try_from(decimal(digits)?).ok()?),
                    });
                }
                _ => {}
            }
        }
        via.raw = trim(&value[..value.len() - params.rest.len()]);
        (!params.broken).then_some(via)
    }
}

fn word<'a>(bytes: &'a [u8], expected: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(expected.len())?;
    head.eq_ignore_ascii_case(expected).then_some(rest)
}

fn slash(bytes: &[u8]) -> Option<&[u8]> {
    Some(skip_space(skip_space(bytes).strip_prefix(b"/")?))
}

/// A leading host: name, IPv4 or bracketed IPv6. `_` is no legal host byte, and networks use it all the same.
fn host(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (host, rest) = if bytes.first() == Some(&b'[') {
        let end = bytes.iter().position(|byte| *byte == b']')?;
        let well = bytes[1..end]
            .iter()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
        if !well {
            return None;
        }
        bytes.split_at(end + 1)
    } else {
        run(bytes, |byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')))
    };
    let host = std::str::from_utf8(host).ok()?;
    (!host.is_empty()).then_some((host, rest))
}

/// Digits only, no sign; leading zeros are fine; `None` above `u32`.
pub(super) fn decimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// A CSeq: number below 2^31 and method (RFC 3261 §20.16).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CSeq {
    pub number: u32,
    pub method: Method,
}

impl CSeq {
    pub(super) fn parse(value: &[u8], bytes: &Bytes) -> Option<Self> {
        let (digits, rest) = run(value, |byte| !byte.is_ascii_digit());
        let number = decimal(digits).filter(|number| *number < 1 << 31)?;
        let word = trim(rest);
        if word.len() == rest.len() {
            return None; // nothing between number and method
        }
        let method = match Method::known(word) {
            Some(known) => known,
            None if word.as_ptr_range().start >= bytes.as_ptr()
                && word.as_ptr_range().end <= bytes.as_ptr_range().end =>
            {
                Method::parse(&bytes.slice_ref(word))?
            }
            None => Method::parse(&Bytes::copy_from_slice(word))?,
        };
        Some(Self { number, method })
    }
}

/// The elements of a comma-separated value: commas inside quotes and angle brackets do not split.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Elements<'a> {
    pub fn new(value: &'a [u8]) -> Self {
        Self { rest: Some(value) }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let rest = self.rest?;
            let (mut at, mut in_quotes, mut in_brackets) = (0, false, false);
            while let Some(byte) = rest.get(at) {
                match byte {
                    b'\\' if in_quotes => at += 1,
                    b'"' if !in_brackets => in_quotes = !in_quotes,
                    b'<' if !in_quotes => in_brackets = true,
                    b'>' if !in_quotes => in_brackets = false,
                    b',' if !in_quotes && !in_brackets => break,
                    _ => {}
                }
                at += 1;
            }
            let at = at.min(rest.len());
            self.rest = rest.get(at + 1..);
            let element = trim(&rest[..at]);
            if !element.is_empty() {
                return Some(element);
            }
        }
    }
}
