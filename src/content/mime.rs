//! MIME headers: media types, dispositions and the header block of a body part (RFC 2045, RFC 2183, RFC 5621).
//!
//! Shared by [`super::multipart`] and [`super::cpim`]. Start at [`MediaType::parse`] and [`header_block`].
//! Never looks into a body.

/// Most header fields one body part may have.
const MAX_HEADERS: usize = 64;
/// Longest header block of one body part, in octets.
const MAX_HEADER_BLOCK: usize = 16 * 1024;

/// A type with its parameters: `text/plain;charset=UTF-8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType {
    /// Type and subtype in lower case, without parameters: `text/plain`.
    pub essence: String,
    /// Names in lower case, values unquoted, in order.
    pub params: Vec<(String, String)>,
}

impl MediaType {
    /// Reads a Content-Type value; `None` when it is no `type/subtype` or a parameter cannot be read.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, params) = split_head(text);
        let (kind, subtype) = head.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        Some(Self { essence: head.to_ascii_lowercase(), params: parse_params(params)? })
    }

    /// The value of a parameter, by its lower-case name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether this is `multipart/anything`.
    pub fn is_multipart(&self) -> bool {
        self.essence.starts_with("multipart/")
    }
}

/// What a part is for (RFC 2183, RFC 5621 §8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disposition {
    /// The disposition type in lower case: `recipient-list`.
    pub kind: String,
    /// Names in lower case, values unquoted, in order.
    pub params: Vec<(String, String)>,
    /// `handling=optional`; absent or anything else means required.
    pub optional: bool,
}

impl Disposition {
    /// Reads a Content-Disposition value.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, params) = split_head(text);
        if !is_token(kind) {
            return None;
        }
        let params = parse_params(params)?;
        let optional = params
            .iter()
            .any(|(name, value)| name == "handling" && value.eq_ignore_ascii_case("optional"));
        Some(Self { kind: kind.to_ascii_lowercase(), params, optional })
    }
}

/// A header block: its fields in order, and where what follows the blank line starts.
pub(super) struct HeaderBlock {
    /// Name as received, value unfolded and trimmed.
    pub fields: Vec<(String, String)>,
    /// Offset of the first octet behind the blank line.
    pub end: usize,
}

/// Why a header block cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadBlock {
    /// There is no blank line yet.
    Unfinished,
    /// Something else; names the first thing wrong.
    Malformed(&'static str),
}

/// Reads MIME header fields up to and with the blank line. LF alone ends a line, too; folded lines are unfolded.
pub(super) fn header_block(bytes: &[u8]) -> Result<HeaderBlock, BadBlock> {
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut at = 0;
    loop {
        let Some(len) = memchr::memchr(b'\n', &bytes[at..]) else {
            return Err(if bytes.len() > MAX_HEADER_BLOCK {
                BadBlock::Malformed("the header block is too long")
            } else {
                BadBlock::Unfinished
            });
        };
        let line = &bytes[at..at + len];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        at += len + 1;
        if at > MAX_HEADER_BLOCK {
            return Err(BadBlock::Malformed("the header block is too long"));
        }
        if line.is_empty() {
            return Ok(HeaderBlock { fields, end: at });
        }
        let text = std::str::from_utf8(line)
            .map_err(|_| BadBlock::Malformed("a header field is not UTF-8"))?;
        if text.starts_with([' ', '\t']) {
            let (_, value) =
                fields.last_mut().ok_or(BadBlock::Malformed("the first header line is folded"))?;
            value.push(' ');
            value.push_str(text.trim());
            continue;
        }
        let (name, value) =
            text.split_once(':').ok_or(BadBlock::Malformed("a header line has no colon"))?;
        let name = name.trim_end();
        if !is_token(name) {
            return Err(BadBlock::Malformed("a header name is no token"));
        }
        if fields.len() == MAX_HEADERS {
            return Err(BadBlock::Malformed("too many header fields"));
        }
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// The first field of that name, whatever its case.
pub(super) fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

/// RFC 2045 token.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
}

fn split_head(text: &str) -> (&str, &str) {
    let (head, params) = text.split_once(';').unwrap_or((text, ""));
    (head.trim(), params)
}

/// `a=b; c="d e"`; empty elements are skipped, a value in quotes is unquoted.
fn parse_params(text: &str) -> Option<Vec<(String, String)>> {
    let mut params = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(next) = rest.strip_prefix(';') {
            rest = next.trim_start();
            continue;
        }
        let end = rest.find(['=', ';']).unwrap_or(rest.len());
        let name = rest[..end].trim();
        if !is_token(name) {
            return None;
        }
        rest = &rest[end..];
        let mut value = String::new();
        if let Some(after) = rest.strip_prefix('=') {
            let after = after.trim_start();
            if let Some(quoted) = after.strip_prefix('"') {
                let (text, tail) = unquote(quoted)?;
                value = text;
                let tail = tail.trim_start();
                if !tail.is_empty() && !tail.starts_with(';') {
                    return None;
                }
                rest = tail;
            } else {
                let end = after.find(';').unwrap_or(after.len());
                value.push_str(after[..end].trim());
                rest = &after[end..];
            }
        }
        params.push((name.to_ascii_lowercase(), value));
    }
    Some(params)
}

/// The text up to the closing quote with `\x` undone, and what follows the quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_read_with_quotes_and_spaces() {
        let t = MediaType::parse("Multipart/Mixed ; Boundary = \"a b;c\\\"d\" ;charset=utf-8;")
            .unwrap();
        assert_eq!(t.essence, "multipart/mixed");
        assert!(t.is_multipart());
        assert_eq!(t.param("boundary"), Some("a b;c\"d"));
        assert_eq!(t.param("charset"), Some("utf-8"));
        for bad in
            ["", "text", "text/", "/plain", "te xt/plain", "a/b;=x", "a/b;x=\"y", "a/b;x=\"y\"z"]
        {
            assert_eq!(MediaType::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn handling_is_required_unless_it_says_optional() {
        assert!(!Disposition::parse("recipient-list").unwrap().optional);
        assert!(Disposition::parse("Render; Handling=\"Optional\"").unwrap().optional);
        assert!(!Disposition::parse("render;handling=required").unwrap().optional);
    }

    #[test]
    fn a_header_block_is_unfolded_and_bounded() {
        let block = header_block(b"Content-Type: a/b;\r\n\tx=y\nX:\r\n\r\nrest").unwrap();
        assert_eq!(field(&block.fields, "content-type"), Some("a/b; x=y"));
        assert_eq!(field(&block.fields, "x"), Some(""));
        assert_eq!(block.end, 31);
        assert!(matches!(header_block(b"A: b\r\n"), Err(BadBlock::Unfinished)));
        assert!(matches!(header_block(b"no colon\r\n\r\n"), Err(BadBlock::Malformed(_))));
        let many = "A: b\r\n".repeat(65) + "\r\n";
        assert!(matches!(header_block(many.as_bytes()), Err(BadBlock::Malformed(_))));
    }
}
