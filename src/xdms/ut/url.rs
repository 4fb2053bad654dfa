//! Absolute http and https URIs as they are compared and asked for (RFC 3986 §6.2.2, XD-023).
//!
//! Start at [`Url::parse`]. Equal references have equal texts. Asks no name server.

use std::fmt;

/// An http or https URI in its one spelling: scheme and host in lower case, no default port, no needless
/// percent-encoding, no dot segments, no fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    secure: bool,
    host: String,
    port: u16,
    path: String,
    query: Option<String>,
}

/// Longest URI that is looked at, in octets.
const LONGEST: usize = 8 * 1024;

impl Url {
    /// Reads one. `None` for another scheme, for credentials in it, for dot segments, and for what is no URI.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = authority_of(authority)?;
        let (path, query) = match tail.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (tail, None),
        };
        let path = normal_path(path)?;
        if query.as_ref().is_some_and(|query| !query.bytes().all(is_visible)) {
            return None;
        }
        Some(Self {
            secure,
            host,
            port: port.unwrap_or(if secure { 443 } else { 80 }),
            path,
            query,
        })
    }

    /// Where a redirection leads: absolute, or an absolute path on the same host.
    pub fn join(&self, location: &str) -> Option<Self> {
        if !location.starts_with('/') {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme()));
        }
        Self::parse(&format!("{}://{}{location}", self.scheme(), self.authority()))
    }

    /// The same place below this one. `path` begins with a slash, encoded where it needs to be.
    pub fn below(&self, path: &str) -> Option<Self> {
        Some(Self {
            path: format!("{}{}", self.path.trim_end_matches('/'), normal_path(path)?),
            query: None,
            ..self.clone()
        })
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// An address of version 6 has no brackets here.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// As in Host.
    pub fn authority(&self) -> String {
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// Begins with a slash, or is empty.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// As in a request line.
    pub fn target(&self) -> String {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        match &self.query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }

    /// Whether both are at the same scheme, host and port.
    pub fn same_origin(&self, other: &Self) -> bool {
        (self.secure, self.port, &self.host) == (other.secure, other.port, &other.host)
    }

    /// The path below this one, with its leading slash; `None` if `other` is elsewhere.
    pub fn strip<'a>(&self, other: &'a Self) -> Option<&'a str> {
        let below = other.path.strip_prefix(self.path.trim_end_matches('/'))?;
        (self.same_origin(other) && below.starts_with('/')).then_some(below)
    }

    /// The document a reference is to, and the selector behind `/~~/`, decoded (XD-004).
    pub fn split_selector(mut self) -> Option<(Self, Option<String>)> {
        self.query = None; // it only binds prefixes
        let Some(at) = self.path.find("/~~/") else { return Some((self, None)) };
        let selector = super::super::path::decode(&self.path[at + 4..]).ok()?;
        self.path.truncate(at);
        Some((self, Some(selector)))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority(), self.path)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

fn authority_of(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.rfind(':') {
        Some(at) if !text.ends_with(']') => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    let named = |host: &str| {
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    let numeric = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    if !named(host) && !numeric(host) {
        return None;
    }
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port > 0)?),
    };
    Some((host.trim_end_matches('.').to_ascii_lowercase(), port))
}

fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

/// What may stand in a path as it is: `pchar` and the slash (RFC 3986 §3.3).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// Needless escapes undone, the others in upper case, what needs one escaped; `None` for dot segments and broken escapes.
fn normal_path(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let escaped = byte == b'%';
        let byte = if escaped {
            let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        };
        if is_plain(byte) || (byte == b'/' && !escaped) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    let dots = out.split('/').any(|segment| matches!(segment, "." | ".."));
    (!dots).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves XD-023.
    #[test]
    fn equal_references_have_one_spelling() {
        let one = "https://xcap.ims.test/services/resource-lists/users/sip:a@ims.test/index";
        for same in [
            one,
            "HTTPS://XCAP.ims.Test:443/services/resource-lists/users/sip:a@ims.test/index",
            "https://xcap.ims.test./services/resource-lists/users/sip%3aa%40ims.test/%69ndex",
            "https://xcap.ims.test:/services/resource-lists/users/sip:a@ims.test/index#part",
        ] {
            assert_eq!(Url::parse(same).map(|url| url.to_string()).as_deref(), Some(one), "{same}");
        }
        for other in [
            "http://xcap.ims.test/services/resource-lists/users/sip:a@ims.test/index",
            "https://xcap.ims.test:8443/services/resource-lists/users/sip:a@ims.test/index",
            "https://xcap.ims.test/Services/resource-lists/users/sip:a@ims.test/index",
            "https://xcap.ims.test/services/resource-lists/users/sip:a@ims.test%2Findex",
        ] {
            assert_ne!(Url::parse(other).map(|url| url.to_string()).as_deref(), Some(one));
        }
        for none in [
            "ftp://h/x",
            "/resource-lists/users/a/index",
            "https:///x",
            "https://user@h/x",
            "https://h:0/x",
            "https://h:70000/x",
            "https://h/../x",
            "https://h/%2e%2E/x",
            "https://h/%zz",
            "https://[::zz]/x",
            "https://a b/x",
            "https://h/x?a b",
        ] {
            assert_eq!(Url::parse(none), None, "{none}");
        }
        let v6 = Url::parse("http://[::1]:8080/r").expect("a URL");
        assert_eq!((v6.host(), v6.port(), v6.authority().as_str()), ("::1", 8080, "[::1]:8080"));
    }

    /// Proves XD-022, XD-024.
    #[test]
    fn a_reference_is_below_the_root_or_elsewhere() {
        let root = Url::parse("https://xcap.ims.test/services").expect("a URL");
        let below =
            |text: &str| Url::parse(text).and_then(|url| root.strip(&url).map(str::to_owned));
        assert_eq!(below("https://XCAP.ims.test:443/services/a/b").as_deref(), Some("/a/b"));
        for elsewhere in [
            "http://xcap.ims.test/services/a/b",
            "https://xcap.ims.test/services2/a",
            "https://xcap.ims.test/services",
            "https://xcap.ims.test:444/services/a",
            "https://other.test/services/a",
        ] {
            assert_eq!(below(elsewhere), None, "{elsewhere}");
        }
        let list = "https://h/r/resource-lists/users/a/index/%7E%7e/resource-lists/list%5b@name=%22x%22%5d?xmlns(a=b)";
        let (document, selector) =
            Url::parse(list).and_then(Url::split_selector).expect("a reference");
        assert_eq!(document.to_string(), "https://h/r/resource-lists/users/a/index");
        assert_eq!(selector.as_deref(), Some("resource-lists/list[@name=\"x\"]"));
        assert_eq!(
            root.join("/x?y").map(|url| url.to_string()).as_deref(),
            Some("https://xcap.ims.test/x?y")
        );
        assert_eq!(root.join("//o/x").map(|url| url.to_string()).as_deref(), Some("https://o/x"));
        assert_eq!(root.join("x"), None);
    }
}
