//! MSRP URIs: parsing, writing and comparing them (RFC 4975 §6 and §9, RFC 7977 §5.2.1).
//!
//! Start at [`MsrpUri::parse`]; equality is [`PartialEq`]. Resolves no name and knows no session.
//! The session-id is a secret: [`MsrpUri::as_str`] shows it because SDP and paths need it, `Debug` never does.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use memchr::{memchr, memrchr};

/// MS-113: longest URI taken from a peer, in octets.
pub const MAX_URI: usize = 512;
/// MS-113: most URIs in one path.
pub const MAX_PATH: usize = 16;

/// One MSRP URI as received or as written by us.
///
/// MS-001 (RFC 4975 §6, §9). Two of them are equal by the rules of MS-003, not by their letters.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MsrpUri {
    raw: Arc<str>,
    secure: bool,
    host: Range<u16>,
    port: Option<u16>,
    session: Option<Range<u16>>,
    transport: Range<u16>,
}

impl From<MsrpUri> for String {
    fn from(uri: MsrpUri) -> Self {
        uri.raw.to_string()
    }
}

impl TryFrom<String> for MsrpUri {
    type Error = BadMsrpUri;

    fn try_from(text: String) -> Result<Self, BadMsrpUri> {
        Self::parse(&text)
    }
}

/// The text is no MSRP URI; `what` names the first thing wrong with it, never the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no MSRP URI: {what}")]
pub struct BadMsrpUri {
    /// What is wrong.
    pub what: &'static str,
}

const fn bad(what: &'static str) -> BadMsrpUri {
    BadMsrpUri { what }
}

impl MsrpUri {
    /// Reads one URI; the whole text must be the URI.
    ///
    /// # Errors
    /// Anything outside the grammar of MS-001, or longer than [`MAX_URI`].
    pub fn parse(text: &str) -> Result<Self, BadMsrpUri> {
        if text.len() > MAX_URI {
            return Err(bad("longer than 512 octets"));
        }
        if !text.bytes().fold(true, |fine, b| fine & b.is_ascii_graphic()) {
            return Err(bad("a character that is not printable ASCII"));
        }
        let (scheme, rest) = cut(text, b':')
            .and_then(|(scheme, rest)| Some((scheme, rest.strip_prefix("//")?)))
            .ok_or(bad("no scheme"))?;
        let secure = if scheme.eq_ignore_ascii_case("msrp") {
            false
        } else if scheme.eq_ignore_ascii_case("msrps") {
            true
        } else {
            return Err(bad("scheme is neither msrp nor msrps"));
        };
        let (address, params) = cut(rest, b';').ok_or(bad("no transport"))?;
        let (authority, session) = match cut(address, b'/') {
            Some((authority, session)) => (authority, Some(session)),
            None => (address, None),
        };
        let (userinfo, hostport) = match memrchr(b'@', authority.as_bytes()) {
            Some(at) => (Some(&authority[..at]), &authority[at + 1..]),
            None => (None, authority),
        };
        if userinfo.is_some_and(|u| !u.bytes().all(|b| is_reg_name(b) || b == b':')) {
            return Err(bad("userinfo has a forbidden character"));
        }
        let (host, port) = split_port(hostport)?;
        check_host(host)?;
        if let Some(session) = session
            && (session.is_empty() || !session.bytes().all(is_session))
        {
            return Err(bad("session-id is empty or has a forbidden character"));
        }
        let mut params = params.split(';');
        let transport = params.next().unwrap_or("");
        if transport.is_empty() || !transport.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(bad("transport is not alphanumeric"));
        }
        for param in params {
            let (name, value) = param.split_once('=').unwrap_or((param, "x"));
            if name.is_empty()
                || value.is_empty()
                || !param.bytes().all(|b| is_token(b) || b == b'=')
            {
                return Err(bad("parameter is not a token"));
            }
        }
        let range = |part: &str| {
            let start = part.as_ptr() as usize - text.as_ptr() as usize;
            start as u16..(start + part.len()) as u16
        };
        Ok(Self {
            secure,
            host: range(host),
            port,
            session: session.map(range),
            transport: range(transport),
            raw: Arc::from(text),
        })
    }

    /// Reads a path: URIs separated by single spaces, leftmost first (MS-009).
    ///
    /// # Errors
    /// An empty path, more than [`MAX_PATH`] URIs, or one URI that is none.
    pub fn parse_path(text: &str) -> Result<Vec<Self>, BadMsrpUri> {
        if memchr(b' ', text.as_bytes()).is_none() && !text.is_empty() {
            return Ok(vec![Self::parse(text)?]);
        }
        let mut path = Vec::with_capacity(1);
        for uri in text.split(' ').filter(|u| !u.is_empty()) {
            if path.len() == MAX_PATH {
                return Err(bad("more than 16 URIs in a path"));
            }
            path.push(Self::parse(uri)?);
        }
        if path.is_empty() { Err(bad("empty path")) } else { Ok(path) }
    }

    /// Writes one of our own: host, explicit port, session-id, `;tcp`, no userinfo (MS-002). An IPv6 literal may come
    /// with or without its brackets.
    ///
    /// # Errors
    /// A host or session-id outside the grammar.
    pub fn own(secure: bool, host: &str, port: u16, session: &str) -> Result<Self, BadMsrpUri> {
        if session.is_empty() || !session.bytes().all(is_session) {
            return Err(bad("session-id is empty or has a forbidden character"));
        }
        let scheme = if secure { "msrps" } else { "msrp" };
        let text = if host.parse::<Ipv6Addr>().is_ok() {
            format!("{scheme}://[{host}]:{port}/{session};tcp")
        } else {
            format!("{scheme}://{host}:{port}/{session};tcp")
        };
        Self::parse(&text)
    }

    /// The URI as it was read or written, session-id included: for SDP and paths, never for logs (MS-116).
    pub fn as_str(&self) -> &str {
        &self.raw
    }

    /// `msrps`: goes over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host as received; an IPv6 literal keeps its brackets.
    pub fn host(&self) -> &str {
        self.part(&self.host)
    }

    /// Host without brackets, as resolvers and socket addresses want it.
    pub fn bare_host(&self) -> &str {
        let host = self.host();
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    /// Host as an address, if it is a literal.
    pub fn ip(&self) -> Option<IpAddr> {
        self.bare_host().parse().ok()
    }

    /// Port, if one is written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Session-id, if there is one. A secret.
    pub fn session_id(&self) -> Option<&str> {
        self.session.as_ref().map(|range| self.part(range))
    }

    /// Transport token as received.
    pub fn transport(&self) -> &str {
        self.part(&self.transport)
    }

    /// We can connect to it: transport `tcp`.
    pub fn is_tcp(&self) -> bool {
        self.transport().eq_ignore_ascii_case("tcp")
    }

    fn part(&self, range: &Range<u16>) -> &str {
        &self.raw[usize::from(range.start)..usize::from(range.end)]
    }
}

/// What is before the first `octet`, which is ASCII, and what is behind it.
fn cut(text: &str, octet: u8) -> Option<(&str, &str)> {
    let at = memchr(octet, text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

/// MS-003 (RFC 4975 §6.1).
impl PartialEq for MsrpUri {
    fn eq(&self, other: &Self) -> bool {
        self.secure == other.secure
            && self.port == other.port
            && self.session_id() == other.session_id()
            && self.transport().eq_ignore_ascii_case(other.transport())
            && same_host(self, other)
    }
}

impl Eq for MsrpUri {}

fn same_host(a: &MsrpUri, b: &MsrpUri) -> bool {
    if a.host() == b.host() {
        return true;
    }
    match (a.ip(), b.ip()) {
        (Some(a), Some(b)) => a == b,
        (None, None) => unescape(a.host()).eq_ignore_ascii_case(&unescape(b.host())),
        _ => false,
    }
}

/// Undoes percent-encoding of characters that need none.
fn unescape(host: &str) -> Cow<'_, str> {
    if !host.contains('%') {
        return Cow::Borrowed(host);
    }
    let mut plain = String::with_capacity(host.len());
    let mut rest = host;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) if is_unreserved(code) => {
                plain.push(char::from(code));
                rest = &rest[at + 3..];
            }
            _ => {
                plain.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

fn split_port(hostport: &str) -> Result<(&str, Option<u16>), BadMsrpUri> {
    let colon = match hostport.rfind(']') {
        Some(bracket) => hostport[bracket..].find(':').map(|at| bracket + at),
        None => hostport.find(':'),
    };
    let Some(colon) = colon else { return Ok((hostport, None)) };
    let digits = &hostport[colon + 1..];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("port is no number"));
    }
    let port = digits.parse().map_err(|_| bad("port is above 65535"))?;
    Ok((&hostport[..colon], Some(port)))
}

fn check_host(host: &str) -> Result<(), BadMsrpUri> {
    if host.is_empty() {
        return Err(bad("no host"));
    }
    if let Some(literal) = host.strip_prefix('[') {
        let literal = literal.strip_suffix(']').ok_or(bad("unbalanced bracket"))?;
        return literal.parse::<Ipv6Addr>().map(|_| ()).map_err(|_| bad("no IPv6 address in []"));
    }
    if host.bytes().all(is_reg_name) { Ok(()) } else { Err(bad("host has a forbidden character")) }
}

fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~".contains(&b)
}

fn is_session(b: u8) -> bool {
    is_unreserved(b) || b"+=/".contains(&b)
}

fn is_reg_name(b: u8) -> bool {
    is_unreserved(b) || b"%!$&'()*+,=".contains(&b)
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b)
}

impl FromStr for MsrpUri {
    type Err = BadMsrpUri;

    fn from_str(text: &str) -> Result<Self, BadMsrpUri> {
        Self::parse(text)
    }
}

/// Leaves the session-id out (MS-116).
impl fmt::Debug for MsrpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "msrps" } else { "msrp" };
        write!(f, "MsrpUri({scheme}://{}", self.host())?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        let session = if self.session.is_some() { "/…" } else { "" };
        write!(f, "{session};{})", self.transport())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves MS-001.
    #[test]
    fn only_uris_of_the_grammar_are_read() {
        let good = [
            "msrp://192.0.2.55:7394/2s93i9ek2aWq4tYz7Lm3Xc;tcp",
            "msrps://[2001:db8::1]:2855/a+b=c/d-._~;tcp",
            "MSRP://host.example/x;TCP",
            "msrp://relay.example:2855;tcp",
            "msrp://user:pw@host:1/x;tcp;foo=1;bar",
            "msrp://host:1/x;ws",
            "msrp://host:1/x;sctp",
        ];
        for text in good {
            assert_eq!(MsrpUri::parse(text).map(|u| u.as_str().to_owned()), Ok(text.to_owned()));
        }
        let long = format!("msrp://host:1/{};tcp", "x".repeat(500));
        let refused = [
            ("", "empty"),
            ("sip:alice@example.org", "scheme"),
            ("http://host:1/x;tcp", "scheme"),
            ("msrp://host:1/x", "no transport"),
            ("msrp://host:1/x;", "empty transport"),
            ("msrp://host:1/x;t-p", "transport is alphanumeric"),
            ("msrp://host:1/;tcp", "session-id has one character or more"),
            ("msrp://host:1/x?y;tcp", "session-id"),
            ("msrp://host:1/x%41;tcp", "session-id has no percent"),
            ("msrp://:1/x;tcp", "no host"),
            ("msrp://host:/x;tcp", "empty port"),
            ("msrp://host:65536/x;tcp", "port"),
            ("msrp://host:+1/x;tcp", "port"),
            ("msrp://[::1/x;tcp", "bracket"),
            ("msrp://[host]:1/x;tcp", "no address in brackets"),
            ("msrp://h ost:1/x;tcp", "space"),
            ("msrp://h\u{f6}st:1/x;tcp", "ASCII only"),
            ("msrp://host:1/x;tcp;", "empty parameter"),
            ("msrp://host:1/x;tcp;a=", "empty parameter value"),
            ("msrp://host:1/x;tcp;=a", "empty parameter name"),
            (long.as_str(), "too long"),
        ];
        for (text, why) in refused {
            assert!(MsrpUri::parse(text).is_err(), "{text}: {why}");
        }
    }

    /// Proves MS-002.
    #[test]
    fn own_uris_have_all_parts() {
        let uri = MsrpUri::own(false, "192.0.2.1", 2855, "s1").expect("in the grammar");
        assert_eq!(uri.as_str(), "msrp://192.0.2.1:2855/s1;tcp");
        let uri = MsrpUri::own(true, "2001:db8::1", 2856, "s1").expect("in the grammar");
        assert_eq!(uri.as_str(), "msrps://[2001:db8::1]:2856/s1;tcp");
        assert_eq!(uri.bare_host(), "2001:db8::1");
        let uri = MsrpUri::own(true, "[2001:db8::1]", 2856, "s1").expect("in the grammar");
        assert_eq!(uri.as_str(), "msrps://[2001:db8::1]:2856/s1;tcp");
        assert!(MsrpUri::own(false, "192.0.2.1", 2855, "s;1").is_err());
    }

    /// Proves MS-003.
    #[test]
    fn comparison_follows_the_text() {
        let base = "msrp://host.example:2855/aB3;tcp";
        let cases = [
            ("MSRP://host.example:2855/aB3;tcp", true, "scheme in any case"),
            ("msrps://host.example:2855/aB3;tcp", false, "other scheme"),
            ("msrp://HOST.Example:2855/aB3;tcp", true, "host in any case"),
            ("msrp://%68ost.example:2855/aB3;tcp", true, "needless percent-encoding"),
            ("msrp://host2.example:2855/aB3;tcp", false, "other host"),
            ("msrp://bob@host.example:2855/aB3;tcp", true, "userinfo does not count"),
            ("msrp://host.example:02855/aB3;tcp", true, "port as a number"),
            ("msrp://host.example:2856/aB3;tcp", false, "other port"),
            ("msrp://host.example/aB3;tcp", false, "no port is no port"),
            ("msrp://host.example:2855/AB3;tcp", false, "session-id letter by letter"),
            ("msrp://host.example:2855;tcp", false, "no session-id"),
            ("msrp://host.example:2855/./aB3;tcp", false, "no path normalisation"),
            ("msrp://host.example:2855/aB3;TCP", true, "transport in any case"),
            ("msrp://host.example:2855/aB3;ws", false, "other transport"),
            ("msrp://host.example:2855/aB3;tcp;foo=1", true, "other parameters do not count"),
        ];
        let base = MsrpUri::parse(base).expect("in the grammar");
        for (text, equal, why) in cases {
            let other = MsrpUri::parse(text).expect(why);
            assert_eq!(base == other, equal, "{why}");
            assert_eq!(other == base, equal, "{why}");
        }
        let addresses = [
            ("msrp://[2001:db8::1]:1/x;tcp", "msrp://[2001:0DB8:0:0::1]:1/x;tcp", true),
            ("msrp://[2001:db8::1]:1/x;tcp", "msrp://[2001:db8::2]:1/x;tcp", false),
            ("msrp://192.0.2.1:1/x;tcp", "msrp://host.example:1/x;tcp", false),
            ("msrp://host:1/x;tcp", "msrp://ho%zzst:1/x;tcp", false),
            ("msrp://ho%2ast:1/x;tcp", "msrp://ho*st:1/x;tcp", false),
            ("msrp://host:1;tcp", "msrp://host:1;tcp", true),
        ];
        for (a, b, equal) in addresses {
            let (a, b) = (MsrpUri::parse(a).expect(a), MsrpUri::parse(b).expect(b));
            assert_eq!(a == b, equal, "{a:?} {b:?}");
        }
    }

    #[test]
    fn paths_keep_their_order_and_have_a_bound() {
        let path = MsrpUri::parse_path("msrp://relay:1/r;tcp msrp://host:2/x;ws").expect("a path");
        assert_eq!(path.iter().map(MsrpUri::host).collect::<Vec<_>>(), ["relay", "host"]);
        assert!(path[0].is_tcp() && !path[1].is_tcp());
        assert!(MsrpUri::parse_path("").is_err());
        assert!(MsrpUri::parse_path("msrp://relay:1/r;tcp nonsense").is_err());
        let sixteen = ["msrp://h:1/x;tcp"; 16].join(" ");
        assert_eq!(MsrpUri::parse_path(&sixteen).map(|p| p.len()), Ok(16));
        assert!(MsrpUri::parse_path(&format!("{sixteen} msrp://h:1/x;tcp")).is_err());
    }

    #[test]
    fn the_session_id_stays_out_of_debug_text() {
        let uri = MsrpUri::parse("msrp://host:1/SECRET;tcp").expect("in the grammar");
        let text = format!("{uri:?}");
        assert!(!text.contains("SECRET") && text.contains("host:1"), "{text}");
    }
}
