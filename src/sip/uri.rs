//! URIs as SIP uses them: sip, sips, tel, urn and whatever else. Compared by the rules, printed as received.
//!
//! Start at [`Uri::parse`]. A [`Uri`] keeps the text it was read from; parts are ranges of it. [`Uri::equals`] is the
//! comparison of the standards, [`Uri::canonical`] a map key that is the same for equal URIs.
//! Follows RFC 3261 §19.1, RFC 3966, RFC 8141 and the rules UL-011, UL-015, ISC-057.

pub mod psi;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

pub use psi::{BadPsi, Psi};

/// What kind of URI it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    Urn,
    Other,
}

/// Why text is no URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUri {
    #[error("no scheme")]
    Scheme,
    #[error("a byte that may not stand in a URI")]
    Byte,
    #[error("no host or one that is none")]
    Host,
    #[error("port is no number up to 65535")]
    Port,
    #[error("broken user part")]
    User,
    #[error("a parameter without a name")]
    Param,
    #[error("no telephone number")]
    Number,
    #[error("too long")]
    Long,
}

/// A URI. For `sip` and `sips` all parts are there; for `tel` the number is the user and the host is empty; other
/// schemes have only their text.
#[derive(Debug, Clone)]
pub struct Uri {
    raw: Arc<str>,
    scheme: Scheme,
    /// Length of the scheme without its colon.
    scheme_len: u16,
    user: Option<Range<u16>>,
    host: Range<u16>,
    port: Option<u16>,
    params: Range<u16>,
    headers: Range<u16>,
}

impl PartialEq for Uri {
    /// As [`Uri::equals`].
    fn eq(&self, other: &Self) -> bool {
        self.equals(other)
    }
}

impl std::fmt::Display for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.raw)
    }
}

impl std::str::FromStr for Uri {
    type Err = BadUri;

    fn from_str(text: &str) -> Result<Self, BadUri> {
        Self::parse(text)
    }
}

impl Uri {
    /// Reads a URI without angle brackets.
    ///
    /// # Errors
    /// [`BadUri`] says which part is broken. Any scheme is a URI; only the parts of sip, sips and tel are looked at.
    pub fn parse(text: &str) -> Result<Self, BadUri> {
        if text.len() > usize::from(u16::MAX) {
            return Err(BadUri::Long);
        }
        let bytes = text.as_bytes();
        if bytes.iter().any(|byte| *byte <= b' ' || matches!(byte, 0x7f | b'<' | b'>' | b'"')) {
            return Err(BadUri::Byte);
        }
        let colon = bytes.iter().position(|byte| *byte == b':').ok_or(BadUri::Scheme)?;
        let name = &bytes[..colon];
        let well = name.first().is_some_and(u8::is_ascii_alphabetic)
            && name
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        if !well || colon + 1 == bytes.len() {
            return Err(BadUri::Scheme);
        }
        let scheme = match name {
            name if name.eq_ignore_ascii_case(b"sip") => Scheme::Sip,
            name if name.eq_ignore_ascii_case(b"sips") => Scheme::Sips,
            name if name.eq_ignore_ascii_case(b"tel") => Scheme::Tel,
            name if name.eq_ignore_ascii_case(b"urn") => Scheme::Urn,
            _ => Scheme::Other,
        };
        let mut uri = Self {
            raw: Arc::from(text),
            scheme,
            scheme_len: colon as u16,
            user: None,
            host: 0..0,
            port: None,
            params: 0..0,
            headers: 0..0,
        };
        match scheme {
            Scheme::Sip | Scheme::Sips => uri.read_sip(text, colon + 1)?,
            Scheme::Tel => uri.read_tel(text, colon + 1)?,
            Scheme::Urn | Scheme::Other => {}
        }
        Ok(uri)
    }

    /// RFC 3261 §19.1.1: `[user[:password]@]host[:port][;params][?headers]`.
    fn read_sip(&mut self, text: &str, start: usize) -> Result<(), BadUri> {
        let bytes = text.as_bytes();
        let mut at = start;
        // Nowhere but behind the user may a bare `@` stand, while the user may hold `;`, `?` and `/`.
        if let Some(sign) = bytes[at..].iter().position(|byte| *byte == b'@') {
            if sign == 0 || bytes[at + sign + 1..].contains(&b'@') || bytes[at] == b':' {
                return Err(BadUri::User);
            }
            if !escapes_are_whole(&bytes[at..at + sign]) {
                return Err(BadUri::User);
            }
            self.user = Some(at as u16..(at + sign) as u16);
            at += sign + 1;
        }
        let end = |from: usize, stops: &[u8]| {
            bytes[from..]
                .iter()
                .position(|byte| stops.contains(byte))
                .map_or(bytes.len(), |found| from + found)
        };
        let host_end = if bytes.get(at) == Some(&b'[') {
            let close = bytes[at..].iter().position(|byte| *byte == b']').ok_or(BadUri::Host)?;
            if text[at + 1..at + close].parse::<std::net::Ipv6Addr>().is_err() {
                return Err(BadUri::Host);
            }
            at + close + 1
        } else {
            let host_end = end(at, b":;?");
            let well = bytes[at..host_end]
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(byte));
            if !well || host_end == at {
                return Err(BadUri::Host);
            }
            host_end
        };
        self.host = at as u16..host_end as u16;
        at = host_end;
        if bytes.get(at) == Some(&b':') {
            let port_end = end(at, b";?");
            let digits = &text[at + 1..port_end];
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(BadUri::Port);
            }
            self.port = Some(digits.parse().map_err(|_| BadUri::Port)?);
            at = port_end;
        }
        if bytes.get(at) == Some(&b';') {
            let params_end = end(at, b"?");
            self.params = (at + 1) as u16..params_end as u16;
            at = params_end;
            if self.params().any(|(name, _)| name.is_empty()) {
                return Err(BadUri::Param);
            }
        }
        match bytes.get(at) {
            None => {}
            Some(b'?') => self.headers = (at + 1) as u16..bytes.len() as u16,
            Some(_) => return Err(BadUri::Host), // something between `]` and the rest
        }
        Ok(())
    }

    /// RFC 3966 §3: a number, then parameters.
    fn read_tel(&mut self, text: &str, start: usize) -> Result<(), BadUri> {
        let end = text[start..].find(';').map_or(text.len(), |found| start + found);
        let number = &text[start..end];
        let digits = number.strip_prefix('+').unwrap_or(number);
        let local = digits.len() == number.len();
        let well =
            digits.bytes().any(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'*' | b'#'))
                && digits.bytes().all(|byte| {
                    byte.is_ascii_digit()
                        || is_separator(byte)
                        || (local && (byte.is_ascii_hexdigit() || matches!(byte, b'*' | b'#')))
                });
        if !well {
            return Err(BadUri::Number);
        }
        self.user = Some(start as u16..end as u16);
        if end < text.len() {
            self.params = (end + 1) as u16..text.len() as u16;
            if self.params().any(|(name, _)| name.is_empty()) {
                return Err(BadUri::Param);
            }
        }
        Ok(())
    }

    fn part(&self, range: &Range<u16>) -> &str {
        &self.raw[usize::from(range.start)..usize::from(range.end)]
    }

    /// As received.
    pub fn as_str(&self) -> &str {
        &self.raw
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The scheme as received, without the colon.
    pub fn scheme_str(&self) -> &str {
        &self.raw[..usize::from(self.scheme_len)]
    }

    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The user part (with a password if there is one) or the telephone number, as received. `None` where the scheme
    /// has no such thing.
    pub fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|range| self.part(range))
    }

    /// The user part with its `%` escapes resolved.
    pub fn user_decoded(&self) -> Option<Cow<'_, str>> {
        self.user().map(|user| match decode(user) {
            Cow::Borrowed(_) => Cow::Borrowed(user),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        })
    }

    /// The host as received (IPv6 in brackets); empty for other schemes than sip and sips.
    pub fn host(&self) -> &str {
        self.part(&self.host)
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// All parameters, names and values as received; a flag has an empty value.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = self.part(&self.params);
        (!self.params.is_empty())
            .then(|| text.split(';'))
            .into_iter()
            .flatten()
            .map(|one| one.split_once('=').unwrap_or((one, "")))
    }

    /// A parameter by name (any case): empty for a flag, `None` if it is not there.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// What stands behind `?`: names and values as received.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = self.part(&self.headers);
        (!self.headers.is_empty())
            .then(|| text.split('&'))
            .into_iter()
            .flatten()
            .map(|one| one.split_once('=').unwrap_or((one, "")))
    }

    /// Whether a Route with this URI belongs to a loose router (RFC 3261 §16.12).
    pub fn is_loose_router(&self) -> bool {
        self.is_sip() && self.param("lr").is_some()
    }

    /// The same URI with one more parameter (or another value of it). An empty value makes a flag.
    ///
    /// Other schemes than sip, sips and tel are given back unchanged.
    pub fn with_param(&self, name: &str, value: &str) -> Uri {
        self.rebuilt(|found| !found.eq_ignore_ascii_case(name), Some((name, value)), true)
    }

    /// UL-015 (RFC 3261 §19.1.5, RFC 5365 §6-7): what may become the Request-URI of a request to a list member: no
    /// headers, no `method`, and neither `maddr` nor `ttl`, which would let a list aim our traffic.
    pub fn without_headers_and_method(&self) -> Uri {
        let dropped = ["method", "maddr", "ttl"];
        self.rebuilt(
            |name| !dropped.iter().any(|drop| name.eq_ignore_ascii_case(drop)),
            None,
            false,
        )
    }

    fn rebuilt(
        &self,
        keep: impl Fn(&str) -> bool,
        add: Option<(&str, &str)>,
        headers: bool,
    ) -> Uri {
        if !self.is_sip() && self.scheme != Scheme::Tel {
            return self.clone();
        }
        let head_end = match (self.params.is_empty(), self.headers.is_empty()) {
            (false, _) => usize::from(self.params.start) - 1,
            (true, false) => usize::from(self.headers.start) - 1,
            (true, true) => self.raw.trim_end_matches(['?', ';']).len(),
        };
        let mut text = String::with_capacity(self.raw.len() + 16);
        text.push_str(&self.raw[..head_end]);
        let kept = self.params().filter(|(name, _)| keep(name));
        for (name, value) in kept.chain(add) {
            text.push(';');
            text.push_str(name);
            if !value.is_empty() {
                text.push('=');
                text.push_str(value);
            }
        }
        if headers && !self.headers.is_empty() {
            text.push('?');
            text.push_str(self.part(&self.headers));
        }
        Self::parse(&text).unwrap_or_else(|_| self.clone())
    }

    /// UL-011 (RFC 3261 §19.1.4, RFC 3966 §4): whether both name the same thing. Not transitive for sip: a parameter
    /// without a rule of its own counts only where both URIs have it.
    pub fn equals(&self, other: &Uri) -> bool {
        if self.scheme != other.scheme {
            return false;
        }
        if !self.is_sip() {
            return self.canonical() == other.canonical();
        }
        let same_user = match (self.user(), other.user()) {
            (None, None) => true,
            (Some(a), Some(b)) => decode(a) == decode(b),
            _ => false,
        };
        same_user
            && same_host(self.host(), other.host())
            && self.port == other.port
            && params_agree(self, other)
            && params_agree(other, self)
            && sorted_headers(self) == sorted_headers(other)
    }

    /// A key: URIs that are equal by UL-011 have the same key. URIs that differ only in parameters the comparison
    /// ignores when one side lacks them have the same key, too.
    pub fn canonical(&self) -> String {
        let mut key = String::with_capacity(self.raw.len() + 8);
        match self.scheme {
            Scheme::Sip | Scheme::Sips => {
                key.push_str(if self.scheme == Scheme::Sip { "sip:" } else { "sips:" });
                if let Some(user) = self.user() {
                    encode(&decode(user), &mut key);
                    key.push('@');
                }
                key.push_str(&canonical_host(self.host()));
                if let Some(port) = self.port {
                    let _ = write!(key, ":{port}"); // writing to a String cannot fail
                }
                let mut params: Vec<_> = self
                    .params()
                    .filter(|(name, _)| counts_alone(name))
                    .map(|(name, value)| {
                        (name.to_ascii_lowercase(), decode(value).to_ascii_lowercase())
                    })
                    .collect();
                params.sort_unstable();
                params.dedup();
                for (name, value) in params {
                    key.push(';');
                    key.push_str(&name);
                    key.push('=');
                    encode(&value, &mut key);
                }
                for (at, (name, value)) in sorted_headers(self).into_iter().enumerate() {
                    key.push(if at == 0 { '?' } else { '&' });
                    key.push_str(&name);
                    key.push('=');
                    encode(&value, &mut key);
                }
            }
            Scheme::Tel => {
                key.push_str("tel:");
                push_digits(self.user().unwrap_or(""), &mut key);
                let mut params: Vec<_> =
                    self.params().map(|(name, value)| tel_param(name, value)).collect();
                params.sort_unstable();
                for (name, value) in params {
                    key.push(';');
                    key.push_str(&name);
                    key.push('=');
                    key.push_str(&value);
                }
            }
            // RFC 8141 §3.1: scheme and namespace in any case, the rest as it stands.
            Scheme::Urn => {
                let text = &self.raw[usize::from(self.scheme_len) + 1..];
                let (namespace, rest) = text.split_once(':').unwrap_or((text, ""));
                let _ = write!(key, "urn:{}:{rest}", namespace.to_ascii_lowercase());
            }
            Scheme::Other => {
                key.push_str(&self.scheme_str().to_ascii_lowercase());
                key.push_str(&self.raw[usize::from(self.scheme_len)..]);
            }
        }
        key
    }

    /// [`Uri::canonical`], and with `ul.normalise_tel` a global number is one key however it is written:
    /// `tel:+N` and `sip:+N@<home domain>;user=phone` (UL-011, last part).
    pub fn canonical_in(&self, home_domain: &str) -> String {
        let phone = self.is_sip()
            && self.param("user").is_some_and(|value| value.eq_ignore_ascii_case("phone"))
            && same_host(self.host(), home_domain);
        if phone && let Some(number) = self.user_decoded().filter(|user| user.starts_with('+')) {
            let tel = format!("tel:{number}");
            if let Ok(tel) = Uri::parse(&tel) {
                return tel.canonical();
            }
        }
        self.canonical()
    }

    /// ISC-057 (RFC 3261 §19.1.4 with leniency): whether both name the same public service identity: user and host
    /// only; port 5060 is as good as none, sip as sips, and parameters do not count.
    pub fn same_psi(&self, other: &Uri) -> bool {
        match (self.is_sip(), other.is_sip()) {
            (true, true) => {
                let port = |uri: &Uri| uri.port.filter(|port| *port != 5060);
                self.user().map(decode) == other.user().map(decode)
                    && same_host(self.host(), other.host())
                    && port(self) == port(other)
            }
            (false, false) => self.equals(other),
            _ => false,
        }
    }
}

/// Parameters whose presence in only one of two URIs makes them differ (RFC 3261 §19.1.4, with its examples).
fn counts_alone(name: &str) -> bool {
    ["user", "ttl", "method", "maddr", "transport"].iter().any(|one| name.eq_ignore_ascii_case(one))
}

/// Whether every parameter of `a` agrees with `b`'s.
fn params_agree(a: &Uri, b: &Uri) -> bool {
    a.params().all(|(name, value)| {
        // A name that stands twice is malformed; then one of them has to agree.
        let mut others = b
            .params()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, other)| other)
            .peekable();
        if others.peek().is_none() {
            return !counts_alone(name);
        }
        others.any(|other| decode(value).eq_ignore_ascii_case(&decode(other)))
    })
}

fn sorted_headers(uri: &Uri) -> Vec<(String, Vec<u8>)> {
    let mut headers: Vec<_> = uri
        .headers()
        .map(|(name, value)| (name.to_ascii_lowercase(), decode(value).into_owned()))
        .collect();
    headers.sort_unstable();
    headers
}

fn canonical_host(host: &str) -> String {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match inner.and_then(|text| text.parse::<std::net::Ipv6Addr>().ok()) {
        Some(address) => format!("[{address}]"),
        None => host.to_ascii_lowercase(),
    }
}

fn same_host(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (a.starts_with('[') && canonical_host(a) == canonical_host(b))
}

fn tel_param(name: &str, value: &str) -> (String, String) {
    let name = name.to_ascii_lowercase();
    let global = name == "phone-context" && value.starts_with('+');
    let mut text = String::new();
    if global || name == "ext" {
        push_digits(value, &mut text);
    } else {
        text = value.to_ascii_lowercase();
    }
    (name, text)
}

/// RFC 3966 §5.1.1: `-`, `.`, `(` and `)` are for the eye.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'.' | b'(' | b')')
}

fn push_digits(number: &str, out: &mut String) {
    let digits = number.chars().filter(|digit| !u8::try_from(*digit).is_ok_and(is_separator));
    out.extend(digits.map(|digit| digit.to_ascii_lowercase()));
}

fn escapes_are_whole(text: &[u8]) -> bool {
    text.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
        text.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Resolves `%` escapes; a broken one stays as it is.
fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = match (byte, bytes.get(at + 1), bytes.get(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low)
            }
            _ => None,
        };
        plain.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    Cow::Owned(plain)
}

/// Writes bytes with everything escaped that is no unreserved character, so that a key has one spelling.
fn encode(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()+".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        Uri::parse(text).unwrap_or_else(|bad| panic!("{text}: {bad}"))
    }

    #[test]
    fn parts_are_found() {
        let all =
            uri("SIP:al%20ice;x=?:pw@[2001:DB8::1]:5070;Transport=TCP;lr?Subject=a%20b&body=x");
        assert_eq!(all.user(), Some("al%20ice;x=?:pw"));
        assert_eq!(all.user_decoded().as_deref(), Some("al ice;x=?:pw"));
        assert_eq!((all.host(), all.port()), ("[2001:DB8::1]", Some(5070)));
        assert_eq!(
            (all.param("transport"), all.param("LR"), all.param("x")),
            (Some("TCP"), Some(""), None)
        );
        assert_eq!(all.headers().collect::<Vec<_>>(), [("Subject", "a%20b"), ("body", "x")]);
        assert!(all.is_loose_router());
        let tel = uri("tel:+1-201-555-0123;ext=4");
        assert_eq!(
            (tel.user(), tel.param("ext"), tel.host()),
            (Some("+1-201-555-0123"), Some("4"), "")
        );
        assert_eq!(uri("urn:service:sos").scheme(), Scheme::Urn);
        assert_eq!(uri("im:a@b").scheme(), Scheme::Other);
        assert_eq!(uri("sip:h").user(), None);
    }

    #[test]
    fn broken_uris_are_refused() {
        for text in [
            "",
            "sip:",
            "bob",
            ":x",
            "1sip:x",
            "sip:@h",
            "sip:a@",
            "sip:a@h:x",
            "sip:a@h:99999",
            "sip:a@[::1",
            "sip:a@[::1]x",
            "sip:a@b@c",
            "sip:a@b;;c",
            "sip:a b@c",
            "sip:<a@b>",
            "sip:a%4@h",
            "sip:a@h!",
            "tel:",
            "tel:+",
            "tel:+12x",
            "tel:+1;;",
        ] {
            assert!(Uri::parse(text).is_err(), "{text}");
        }
    }

    /// Proves UL-011.
    #[test]
    fn equality_follows_the_scheme() {
        let rows = [
            (true, "sip:bob@H.example", "SIP:bob@h.EXAMPLE", "host and scheme in any case"),
            (false, "sip:Bob@h.example", "sip:bob@h.example", "the user in its case"),
            (true, "sip:%61lice@h", "sip:alice@h", "escapes are resolved"),
            (
                true,
                "sip:alice@h;transport=TCP",
                "sip:alice@h;Transport=tcp",
                "parameters in any case",
            ),
            (true, "sip:carol@h", "sip:carol@h;newparam=5", "an unknown parameter in only one"),
            (
                false,
                "sip:carol@h;newparam=6",
                "sip:carol@h;newparam=5",
                "an unknown parameter in both",
            ),
            (
                true,
                "sip:b@h;security=on",
                "sip:b@h;a=1;security=ON",
                "order and others do not matter",
            ),
            (false, "sip:bob@h", "sip:bob@h:5060", "no port is not 5060"),
            (false, "sip:bob@h:6000", "sip:bob@h:5060", "ports"),
            (false, "sip:bob@h", "sips:bob@h", "schemes"),
            (false, "sip:bob@h", "sip:h", "a user or none"),
            (false, "sip:bob@h", "sip:bob:pw@h", "a password or none"),
            (false, "sip:+1@h;user=phone", "sip:+1@h", "user in only one"),
            (false, "sip:bob@h;transport=udp", "sip:bob@h", "transport in only one"),
            (false, "sip:bob@h;maddr=1.2.3.4", "sip:bob@h", "maddr in only one"),
            (false, "sip:bob@h;method=INVITE", "sip:bob@h", "method in only one"),
            (
                true,
                "sip:h?to=alice%40a&priority=urgent",
                "sip:h?Priority=urgent&TO=alice%40a",
                "headers in any order",
            ),
            (false, "sip:bob@h?Subject=x", "sip:bob@h", "headers count"),
            (false, "sip:bob@h?Subject=x", "sip:bob@h?Subject=X", "header values count"),
            (true, "sip:[2001:db8:0::1]", "sip:[2001:DB8::1]", "one address, two spellings"),
            (true, "tel:+1-555-1", "tel:+15551", "visual separators"),
            (
                true,
                "tel:(555).1;phone-context=+1-2",
                "TEL:5551;PHONE-CONTEXT=+12",
                "the same in phone-context",
            ),
            (true, "tel:1;ext=2-3;isub=a", "tel:1;ISUB=A;ext=23", "parameters in any order"),
            (false, "tel:+15551", "tel:15551;phone-context=+1", "global and local"),
            (false, "tel:5551;phone-context=a", "tel:5551;phone-context=b", "another context"),
            (false, "tel:+15551", "tel:+15551;ext=1", "a parameter in only one"),
            (false, "tel:+15551", "sip:+15551@h;user=phone", "tel and sip"),
            (true, "URN:Service:sos", "urn:service:sos", "urn: namespace in any case"),
            (false, "urn:service:sos", "urn:service:SOS", "urn: the rest in its case"),
            (false, "im:a@b", "pres:a@b", "other schemes"),
            (
                true,
                "sip:a@b;x=1;x=2",
                "sip:a@b;x=2;x=1;x=1",
                "a parameter twice is malformed, and itself",
            ),
        ];
        for (equal, a, b, why) in rows {
            let (a, b) = (uri(a), uri(b));
            assert_eq!((a.equals(&b), b.equals(&a)), (equal, equal), "{a} {b}: {why}");
            assert!(a.equals(&a) && a.canonical() == a.canonical());
            if equal {
                assert_eq!(a.canonical(), b.canonical(), "{why}");
            } else if !why.starts_with("an unknown") {
                assert_ne!(a.canonical(), b.canonical(), "{why}");
            }
        }
        // ul.normalise_tel: one key for a global number, in the home domain only
        let key = uri("tel:+1-555-1").canonical_in("home1.example");
        assert_eq!(uri("sip:+1555.1@Home1.example;user=phone").canonical_in("home1.example"), key);
        assert_ne!(uri("sip:+15551@other.example;user=phone").canonical_in("home1.example"), key);
        assert_ne!(uri("sip:+15551@home1.example").canonical_in("home1.example"), key);
    }

    /// Proves ISC-057.
    #[test]
    fn a_psi_is_matched_by_user_and_host() {
        let psi = uri("sip:im-exploder@im.home1.example");
        for same in [
            "SIP:im-exploder@IM.HOME1.EXAMPLE;transport=tcp",
            "sip:im-exploder@im.home1.example:5060",
            "sip:im%2Dexploder@im.home1.example;user=phone",
        ] {
            assert!(psi.same_psi(&uri(same)), "{same}");
        }
        for other in [
            "sip:IM-exploder@im.home1.example",
            "sip:im.home1.example",
            "sip:im-exploder@home1.example",
            "sip:im-exploder@im.home1.example:5070",
            "tel:+1",
        ] {
            assert!(!psi.same_psi(&uri(other)), "{other}");
        }
        assert!(uri("tel:+1-2").same_psi(&uri("tel:+12")));
    }

    /// The part of UL-015 that can be seen in a URI.
    #[test]
    fn what_a_list_may_not_choose_is_dropped() {
        let rows = [
            ("sip:bob@h;method=BYE?Route=%3Csip:x%3E&body=hi", "sip:bob@h"),
            (
                "sip:bob@h;maddr=1.2.3.4;transport=tcp;TTL=3;x=y;user=phone",
                "sip:bob@h;transport=tcp;x=y;user=phone",
            ),
            ("sip:bob@h?", "sip:bob@h"),
            ("sip:bob@h", "sip:bob@h"),
            ("tel:+1;ext=3", "tel:+1;ext=3"),
            ("urn:service:sos?x", "urn:service:sos?x"),
        ];
        for (given, left) in rows {
            assert_eq!(uri(given).without_headers_and_method().as_str(), left);
        }
        assert_eq!(
            uri("sip:a@b;LR?x=y").with_param("transport", "tcp").as_str(),
            "sip:a@b;LR;transport=tcp?x=y"
        );
        assert_eq!(uri("sip:a@b").with_param("lr", "").as_str(), "sip:a@b;lr");
    }
}
