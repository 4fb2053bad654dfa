//! What may be kept of a message: heads without secrets, signalling bodies, stand-ins for all others.
//!
//! MSRP session-ids are secrets (MS-116, RFC 4975 §14.1): each is replaced, wherever it stands in an `msrp:` URI, by a
//! pseudonym of the same length that is the same for the same id in this process. Credentials and SDP keys are left
//! out. Start at [`Reducer`].

use bytes::Bytes;
use memchr::memmem;
use sha2::{Digest, Sha256};

/// Replaces secrets. Holds the key of the pseudonyms.
pub struct Reducer {
    key: [u8; 32],
}

impl std::fmt::Debug for Reducer {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reducer")
    }
}

/// Header fields whose values are credentials.
const SECRET_HEADERS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "authentication-info",
    "proxy-authentication-info",
    "cookie",
    "set-cookie",
];

/// Media types of bodies that are signalling.
const KEPT: [&str; 3] =
    ["application/sdp", "application/resource-lists+xml", "application/reginfo+xml"];

/// Multiparts inside multiparts that are looked into.
const DEPTH: usize = 3;

impl Reducer {
    /// A reducer with a key nobody else knows.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The head without secrets, in memory of its own, ending in one CRLF.
    pub fn head(&self, head: &[u8]) -> Bytes {
        let mut kept = Vec::with_capacity(head.len() + 2);
        let mut secret = false;
        for (number, line) in lines(head).enumerate() {
            if line.is_empty() {
                continue;
            }
            let folded = line.starts_with(b" ") || line.starts_with(b"\t");
            if folded && secret {
                continue;
            }
            let name_end = memchr::memchr(b':', line).unwrap_or(0);
            let name = String::from_utf8_lossy(&line[..name_end]);
            secret = number > 0
                && !folded
                && SECRET_HEADERS.iter().any(|header| header.eq_ignore_ascii_case(name.trim()));
            if secret {
                kept.extend_from_slice(&line[..name_end]);
                kept.extend_from_slice(b": (left out)");
            } else {
                self.append(&mut kept, line);
            }
            kept.extend_from_slice(b"\r\n");
        }
        kept.into()
    }

    /// What is kept of a body of this Content-Type.
    pub fn body(&self, content_type: &str, body: &[u8]) -> Bytes {
        self.part(content_type, body, 0).into()
    }

    fn part(&self, content_type: &str, body: &[u8], depth: usize) -> Vec<u8> {
        if body.is_empty() {
            return Vec::new();
        }
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(media)) {
            let mut kept = Vec::with_capacity(body.len());
            self.append(&mut kept, body);
            mask_keys(&mut kept);
            return kept;
        }
        let multipart =
            media.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"));
        if multipart
            && depth < DEPTH
            && let Some(boundary) = parameter(content_type, "boundary")
        {
            return self.multipart(&boundary, body, depth);
        }
        stand_in(body.len() as u64).into()
    }

    /// The same multipart with every part reduced.
    fn multipart(&self, boundary: &str, body: &[u8], depth: usize) -> Vec<u8> {
        let delimiter = format!("--{boundary}");
        let mut kept = Vec::new();
        let mut starts: Vec<usize> = memmem::find_iter(body, delimiter.as_bytes())
            .filter(|at| *at == 0 || body[*at - 1] == b'\n')
            .collect();
        starts.push(body.len());
        for pair in starts.windows(2) {
            let piece = &body[pair[0]..pair[1]];
            let rest = &piece[delimiter.len().min(piece.len())..];
            if rest.starts_with(b"--") {
                break;
            }
            let after_line = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let content = &rest[after_line..];
            let content = content.strip_suffix(b"\r\n").unwrap_or(content);
            let (head, body) = match content.strip_prefix(b"\r\n") {
                Some(body) => (&[][..], body),
                None => split(content),
            };
            let head = self.head(head);
            let inner = content_type(&head).unwrap_or_else(|| "text/plain".into());
            let body = self.part(&inner, body, depth + 1);
            kept.extend_from_slice(delimiter.as_bytes());
            kept.extend_from_slice(b"\r\n");
            kept.extend_from_slice(&with_content_length(&head, body.len(), false));
            kept.extend_from_slice(b"\r\n");
            kept.extend_from_slice(&body);
            kept.extend_from_slice(b"\r\n");
        }
        kept.extend_from_slice(delimiter.as_bytes());
        kept.extend_from_slice(b"--\r\n");
        kept
    }

    /// Appends `text` with the session-ids of `msrp:` and `msrps:` URIs replaced.
    fn append(&self, kept: &mut Vec<u8>, text: &[u8]) {
        let mut rest = text;
        while let Some(at) = memmem::find(rest, b"://") {
            let (before, after) = rest.split_at(at + 3);
            kept.extend_from_slice(before);
            rest = after;
            let scheme = &before[..at];
            let is_msrp = ends_with_ignoring_case(scheme, b"msrp")
                || ends_with_ignoring_case(scheme, b"msrps");
            let authority = rest.iter().position(|b| b"/;>\", \t\r\n".contains(b));
            if let Some(end) = authority.filter(|end| is_msrp && rest[*end] == b'/') {
                kept.extend_from_slice(&rest[..=end]);
                rest = &rest[end + 1..];
                let length = rest
                    .iter()
                    .position(|b| !b.is_ascii_alphanumeric() && !b"-._~+=/%".contains(b))
                    .unwrap_or(rest.len());
                self.pseudonym(kept, &rest[..length]);
                rest = &rest[length..];
            }
        }
        kept.extend_from_slice(rest);
    }

    /// As many letters as the id has octets, always the same for the same id.
    fn pseudonym(&self, kept: &mut Vec<u8>, id: &[u8]) {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(id);
        let digest = hash.finalize();
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        kept.extend(
            digest.iter().cycle().take(id.len()).map(|byte| LETTERS[usize::from(byte & 31)]),
        );
    }
}

/// Head (with the CRLF of its last line) and body, around the first empty line.
pub fn split(message: &[u8]) -> (&[u8], &[u8]) {
    match memmem::find(message, b"\r\n\r\n") {
        Some(at) => (&message[..at + 2], &message[at + 4..]),
        None => (message, &[]),
    }
}

/// The value of Content-Type in a head.
pub fn content_type(head: &[u8]) -> Option<String> {
    let names: &[&str] = &["content-type", "c"];
    value_of(head, names).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// What stands for a body that is not kept.
pub fn stand_in(octets: u64) -> Bytes {
    format!("[{octets} octets]").into()
}

/// The head with Content-Length telling `length`: where it stood, or added if `always`.
pub fn with_content_length(head: &[u8], length: usize, always: bool) -> Vec<u8> {
    let mut result = Vec::with_capacity(head.len() + 24);
    let mut written = false;
    for line in lines(head).filter(|line| !line.is_empty()) {
        let name = &line[..memchr::memchr(b':', line).unwrap_or(0)];
        let name = name.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"l") {
            if !written {
                result.extend_from_slice(name);
                result.extend_from_slice(format!(": {length}\r\n").as_bytes());
            }
            written = true;
        } else {
            result.extend_from_slice(line);
            result.extend_from_slice(b"\r\n");
        }
    }
    if always && !written {
        result.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
    }
    result
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The first value of a header field with one of these names, in lower case.
pub fn value_of<'a>(head: &'a [u8], names: &[&str]) -> Option<&'a [u8]> {
    lines(head).skip_while(|line| line.is_empty()).find_map(|line| {
        let at = memchr::memchr(b':', line)?;
        let name = line[..at].trim_ascii();
        names
            .iter()
            .any(|wanted| name.eq_ignore_ascii_case(wanted.as_bytes()))
            .then(|| line[at + 1..].trim_ascii())
    })
}

fn parameter(content_type: &str, name: &str) -> Option<String> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (key.trim().eq_ignore_ascii_case(name) && !value.is_empty()).then(|| value.to_owned())
    })
}

/// Overwrites key material in SDP (`a=crypto`, `a=key-mgmt`, `k=`), keeping the length and the rest of the line.
fn mask_keys(sdp: &mut [u8]) {
    for line in sdp.split_mut(|byte| *byte == b'\n') {
        let secret = [&b"a=crypto:"[..], b"a=key-mgmt:", b"k="]
            .into_iter()
            .find(|start| line.starts_with(start));
        let Some(start) = secret else { continue };
        // The tag and suite of a=crypto tell something and no key.
        let inline = memmem::find(line, b"inline:");
        let start = inline.map_or(start.len(), |at| at + 7);
        for byte in &mut line[start..] {
            match byte {
                b'\r' => {}
                b'|' if inline.is_some() => break,
                other => *other = b'x',
            }
        }
    }
}

fn ends_with_ignoring_case(text: &[u8], end: &[u8]) -> bool {
    text.len() >= end.len() && text[text.len() - end.len()..].eq_ignore_ascii_case(end)
}
