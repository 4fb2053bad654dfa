//! Multipart bodies: reading what clients send and writing ours (RFC 2046 §5.1, RFC 5621).
//!
//! Start at [`parse`] for one level, [`flatten`] for all leaf parts, [`write()`] for our own bodies. Bodies of parts are
//! slices of the whole, never copies. What parts mean is decided in [`super::request_body`].

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;

use super::mime::{BadBlock, field, header_block};
pub use super::mime::{Disposition, MediaType};

/// Deepest nesting that is searched (UL-006).
pub const MAX_DEPTH: usize = 3;
/// Most parts of one body, all levels together.
pub const MAX_PARTS: usize = 64;

/// One part of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// All header fields as received: name and unfolded value.
    pub headers: Vec<(String, String)>,
    /// The type; `text/plain` where the part named none (RFC 2046 §5.1).
    pub content_type: MediaType,
    /// What the part is for, if it says so.
    pub disposition: Option<Disposition>,
    /// Content-ID without its angle brackets.
    pub content_id: Option<String>,
    /// The content, without the line end that belongs to the delimiter.
    pub body: Bytes,
}

impl Part {
    /// A header field of the part, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }
}

/// The body is broken; names the first thing wrong, never the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed body: {what}")]
pub struct BadBody {
    /// What is wrong.
    pub what: &'static str,
}

const fn bad(what: &'static str) -> BadBody {
    BadBody { what }
}

/// Splits a body of that Content-Type into its parts. A body that is no multipart is its own only part, without header
/// fields but its type.
///
/// UL-006 (RFC 2046 §5.1): the boundary has 1 to 70 characters, quoted or not; preamble and epilogue are dropped; a
/// part without Content-Type is `text/plain`. Lines may end in LF alone. A multipart without its closing delimiter is
/// broken: it may have been cut, and a cut list would reach too few.
///
/// # Errors
/// [`BadBody`] for anything that is no multipart though it says so.
pub fn parse(content_type: &str, body: &Bytes) -> Result<Vec<Part>, BadBody> {
    let kind = MediaType::parse(content_type).ok_or(bad("the Content-Type cannot be read"))?;
    if kind.is_multipart() {
        return split(&kind, body, MAX_PARTS);
    }
    Ok(vec![Part {
        headers: Vec::new(),
        content_type: kind,
        disposition: None,
        content_id: None,
        body: body.clone(),
    }])
}

/// All leaf parts in document order, nested multiparts searched to [`MAX_DEPTH`]; a multipart below that stays one
/// opaque part (UL-006).
///
/// # Errors
/// [`BadBody`] if any level that is looked at is broken.
pub fn flatten(content_type: &str, body: &Bytes) -> Result<Vec<Part>, BadBody> {
    let mut leaves = Vec::new();
    // Parts still to look at with their depth, the next one last.
    let mut open: Vec<(usize, Part)> = Vec::new();
    let mut seen = 0;
    for part in parse(content_type, body)?.into_iter().rev() {
        open.push((1, part));
    }
    while let Some((depth, part)) = open.pop() {
        seen += 1;
        if !part.content_type.is_multipart() || depth >= MAX_DEPTH {
            leaves.push(part);
            continue;
        }
        let left = MAX_PARTS.saturating_sub(seen + open.len());
        for inner in split(&part.content_type, &part.body, left)?.into_iter().rev() {
            open.push((depth + 1, inner));
        }
    }
    Ok(leaves)
}

fn split(kind: &MediaType, body: &Bytes, most: usize) -> Result<Vec<Part>, BadBody> {
    let boundary = kind.param("boundary").ok_or(bad("multipart without boundary"))?;
    if boundary.is_empty()
        || boundary.len() > 70
        || boundary.ends_with(' ')
        || !boundary.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
    {
        return Err(bad("the boundary is not 1 to 70 printable characters"));
    }
    let delimiter = [b"--", boundary.as_bytes()].concat();
    let mut parts = Vec::new();
    let mut start = None;
    let delimiters = Delimiters { body, needle: &delimiter, from: 0 };
    for (at, line) in delimiters {
        if let Some(start) = start {
            if parts.len() == most {
                return Err(bad("too many parts"));
            }
            parts.push(part(body, start, before_line_end(body, start, at))?);
        }
        match line {
            Line::Open(next) => start = Some(next),
            Line::Close if parts.is_empty() => return Err(bad("multipart without parts")),
            Line::Close => return Ok(parts),
        }
    }
    Err(bad("the closing delimiter is missing"))
}

/// Where the part that began at `start` ends: the line end before the delimiter at `at` belongs to the delimiter.
fn before_line_end(body: &[u8], start: usize, at: usize) -> usize {
    let inside = &body[start..at];
    let inside = inside.strip_suffix(b"\n").unwrap_or(inside);
    let inside = inside.strip_suffix(b"\r").unwrap_or(inside);
    start + inside.len()
}

fn part(body: &Bytes, start: usize, end: usize) -> Result<Part, BadBody> {
    let whole = &body[start..end];
    let (headers, content) = match header_block(whole) {
        Ok(block) => (block.fields, body.slice(start + block.end..end)),
        Err(BadBlock::Malformed(what)) => return Err(bad(what)),
        // The part ends with its header fields: the blank line is the one that belongs to the delimiter.
        Err(BadBlock::Unfinished) => {
            let closed = [whole, b"\r\n\r\n"].concat();
            match header_block(&closed) {
                Ok(block) => (block.fields, Bytes::new()),
                Err(_) => return Err(bad("a part has no blank line after its header")),
            }
        }
    };
    let content_type = match field(&headers, "content-type") {
        Some(text) => MediaType::parse(text).ok_or(bad("a part's Content-Type cannot be read"))?,
        None => MediaType { essence: "text/plain".to_owned(), params: Vec::new() },
    };
    let disposition = match field(&headers, "content-disposition") {
        Some(text) => Some(
            Disposition::parse(text).ok_or(bad("a part's Content-Disposition cannot be read"))?,
        ),
        None => None,
    };
    let content_id = field(&headers, "content-id")
        .map(|id| id.trim_start_matches('<').trim_end_matches('>').to_owned());
    Ok(Part { headers, content_type, disposition, content_id, body: content })
}

/// A delimiter line.
enum Line {
    /// What follows it starts here.
    Open(usize),
    Close,
}

/// Finds the delimiter lines: at the start of a line, followed by nothing but blanks, or by `--`.
struct Delimiters<'a> {
    body: &'a [u8],
    needle: &'a [u8],
    from: usize,
}

impl Iterator for Delimiters<'_> {
    type Item = (usize, Line);

    fn next(&mut self) -> Option<(usize, Line)> {
        loop {
            let at = self.from + memmem::find(&self.body[self.from..], self.needle)?;
            let after = at + self.needle.len();
            self.from = after;
            if at > 0 && self.body[at - 1] != b'\n' {
                continue;
            }
            let rest = &self.body[after..];
            let (closes, rest) = match rest.strip_prefix(b"--") {
                Some(rest) => (true, rest),
                None => (false, rest),
            };
            let padding = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
            let tail = &rest[padding..];
            let ends_line = tail.first() == Some(&b'\n') || tail.starts_with(b"\r\n");
            if closes && (ends_line || tail.is_empty()) {
                return Some((at, Line::Close));
            }
            if !closes && ends_line {
                let next = self.body.len() - tail.len() + if tail[0] == b'\n' { 1 } else { 2 };
                // The next delimiter may follow at once, so its line start is this line's end.
                self.from = next;
                return Some((at, Line::Open(next)));
            }
        }
    }
}

/// One part to write: its header fields in order, and its content.
pub type Outgoing<'a> = (&'a [(&'a str, &'a str)], &'a [u8]);

/// Writes `multipart/mixed`: the Content-Type value and the body.
///
/// UL-006 (RFC 2046 §5.1): CRLF, no preamble, a boundary that occurs in no part. Line ends and NUL in header values are
/// dropped, so no value can add a line.
pub fn write(parts: &[Outgoing<'_>]) -> (String, Bytes) {
    let boundary = free_boundary(parts);
    let size: usize = parts.iter().map(|(_, body)| body.len() + 256).sum();
    let mut out = BytesMut::with_capacity(size + 64);
    for (headers, body) in parts {
        out.put_slice(b"--");
        out.put_slice(boundary.as_bytes());
        out.put_slice(b"\r\n");
        for (name, value) in *headers {
            put_clean(&mut out, name);
            out.put_slice(b": ");
            put_clean(&mut out, value);
            out.put_slice(b"\r\n");
        }
        out.put_slice(b"\r\n");
        out.put_slice(body);
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"--");
    out.put_slice(boundary.as_bytes());
    out.put_slice(b"--\r\n");
    (format!("multipart/mixed;boundary={boundary}"), out.freeze())
}

fn put_clean(out: &mut BytesMut, text: &str) {
    out.extend(text.bytes().filter(|b| !matches!(b, b'\r' | b'\n' | 0)));
}

fn free_boundary(parts: &[Outgoing<'_>]) -> String {
    let mut n = 0u32;
    loop {
        let boundary = format!("part{n:04}");
        let taken = parts.iter().any(|(headers, body)| {
            memmem::find(body, boundary.as_bytes()).is_some()
                || headers.iter().any(|(_, value)| value.contains(&boundary))
        });
        if !taken {
            return boundary;
        }
        n += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: &str, body: &str) -> Result<Vec<(String, String)>, BadBody> {
        let parts = flatten(content_type, &Bytes::copy_from_slice(body.as_bytes()))?;
        Ok(parts
            .into_iter()
            .map(|p| (p.content_type.essence, String::from_utf8_lossy(&p.body).into_owned()))
            .collect())
    }

    fn two() -> Vec<(String, String)> {
        vec![("a/b".into(), "one".into()), ("text/plain".into(), "two\r\n".into())]
    }

    /// Proves UL-006.
    #[test]
    fn parts_are_found_however_clients_write_them() {
        let cases = [
            (
                "plain",
                "multipart/mixed;boundary=x",
                "--x\r\nContent-Type: a/b\r\n\r\none\r\n--x\r\n\r\ntwo\r\n\r\n--x--\r\n",
            ),
            (
                "quoted boundary",
                "Multipart/Mixed; boundary=\"x\"",
                "--x\r\nContent-Type: a/b\r\n\r\none\r\n--x\r\n\r\ntwo\r\n\r\n--x--",
            ),
            (
                "preamble and epilogue",
                "multipart/mixed;boundary=x",
                "hello --x\r\n--xy\r\n--x\r\ncontent-type:a/b\r\n\r\none\r\n--x\r\n\r\ntwo\r\n\r\n--x--\r\nbye\r\n--x\r\n",
            ),
            (
                "LF only",
                "multipart/mixed;boundary=x",
                "--x\nContent-Type: a/b\n\none\n--x\n\ntwo\r\n\n--x--\n",
            ),
            (
                "padding",
                "multipart/mixed;boundary=x",
                "--x \t\r\nContent-Type: a/b\r\n\r\none\r\n--x  \r\n\r\ntwo\r\n\r\n--x-- \r\n",
            ),
            (
                "nested",
                "multipart/mixed;boundary=x",
                "--x\r\nContent-Type: multipart/alternative;boundary=y\r\n\r\n--y\r\nContent-Type: multipart/mixed;boundary=z\r\n\r\n--z\r\nContent-Type: a/b\r\n\r\none\r\n--z--\r\n--y--\r\n--x\r\n\r\ntwo\r\n\r\n--x--",
            ),
            (
                "boundary a prefix of the other",
                "multipart/mixed;boundary=x",
                "--x\r\nContent-Type: multipart/mixed;boundary=xx\r\n\r\n--xx\r\nContent-Type: a/b\r\n\r\none\r\n--xx--\r\n--x\r\n\r\ntwo\r\n\r\n--x--",
            ),
            (
                "odd characters",
                "multipart/mixed;boundary=\"a ='()+_,-./:?b\"",
                "--a ='()+_,-./:?b\r\nContent-Type: a/b\r\n\r\none\r\n--a ='()+_,-./:?b\r\n\r\ntwo\r\n\r\n--a ='()+_,-./:?b--",
            ),
        ];
        for (name, content_type, body) in cases {
            assert_eq!(read(content_type, body), Ok(two()), "{name}");
        }
        assert_eq!(
            read("application/sdp", "v=0"),
            Ok(vec![("application/sdp".to_owned(), "v=0".to_owned())])
        );
    }

    #[test]
    fn nesting_below_three_stays_closed() {
        let mut body = "--d4\r\n\r\ndeep\r\n--d4--".to_owned();
        for n in (1..4).rev() {
            body = format!(
                "--d{n}\r\nContent-Type: multipart/mixed;boundary=d{}\r\n\r\n{body}\r\n--d{n}--",
                n + 1
            );
        }
        let leaves = read("multipart/mixed;boundary=d1", &body).unwrap();
        assert_eq!(leaves.len(), 1);
        assert_eq!(leaves[0].0, "multipart/mixed");
    }

    #[test]
    fn broken_bodies_are_refused() {
        let long = "b".repeat(71);
        let long_type = format!("multipart/mixed;boundary={long}");
        let long_body = format!("--{long}\r\n\r\n--{long}--");
        let crowd = "--x\r\n\r\n".repeat(70) + "--x--";
        let cases = [
            ("no boundary parameter", "multipart/mixed", "--x\r\n\r\n--x--"),
            ("empty boundary", "multipart/mixed;boundary=\"\"", "--\r\n\r\n----"),
            ("71 characters", &long_type, &long_body),
            ("boundary does not occur", "multipart/mixed;boundary=x", "--y\r\n\r\n--y--"),
            ("no closing delimiter", "multipart/mixed;boundary=x", "--x\r\n\r\none\r\n"),
            ("cut in the middle", "multipart/mixed;boundary=x", "--x\r\n\r\none\r\n--x\r\n\r\ntw"),
            ("no parts", "multipart/mixed;boundary=x", "--x--\r\n"),
            ("no blank line", "multipart/mixed;boundary=x", "--x\r\nhello\r\n--x--\r\n"),
            (
                "type that is none",
                "multipart/mixed;boundary=x",
                "--x\r\nContent-Type: oops\r\n\r\n--x--\r\n",
            ),
            (
                "nested one broken",
                "multipart/mixed;boundary=x",
                "--x\r\nContent-Type: multipart/mixed\r\n\r\n--x--\r\n",
            ),
            ("unreadable type", "mixed", ""),
            ("too many parts", "multipart/mixed;boundary=x", &crowd),
        ];
        for (name, content_type, body) in cases {
            assert!(read(content_type, body).is_err(), "{name}");
        }
    }

    /// Proves UL-006.
    #[test]
    fn what_we_write_has_a_boundary_of_its_own_and_reads_back() {
        let body = b"text with --part0000 and part0001 inside\r\n--part0000--\r\n";
        let (content_type, bytes) = write(&[
            (&[("Content-Type", "text/plain"), ("X", "a\r\nInjected: yes")], body),
            (&[("Content-Type", "a/b")], b""),
        ]);
        assert_eq!(content_type, "multipart/mixed;boundary=part0002");
        assert!(bytes.starts_with(b"--part0002\r\n"));
        let parts = parse(&content_type, &bytes).unwrap();
        assert_eq!(parts.len(), 2);
        assert_eq!(&parts[0].body[..], body);
        assert_eq!(parts[0].header("x"), Some("aInjected: yes"));
        assert_eq!(parts[0].header("injected"), None);
        assert!(parts[1].body.is_empty());
    }

    #[test]
    fn content_id_and_disposition_are_read() {
        let body = Bytes::from_static(
            b"--x\r\nContent-ID: <a@b>\r\nContent-Disposition: Recipient-List; handling=optional\r\n\r\n\r\n--x--",
        );
        let parts = parse("multipart/mixed;boundary=x", &body).unwrap();
        assert_eq!(parts[0].content_id.as_deref(), Some("a@b"));
        let disposition = parts[0].disposition.as_ref().unwrap();
        assert_eq!(disposition.kind, "recipient-list");
        assert!(disposition.optional);
        assert!(parts[0].body.is_empty());
    }
}
