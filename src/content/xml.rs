//! XML that cannot hurt: what is checked before a tree is built, and how text is written.
//!
//! UL-017, XD-047: no DTD, no entity beyond the five predefined, bounded size, depth, elements and attributes; nothing is
//! ever fetched. Start at [`check`]; the tree itself is roxmltree's, which refuses the rest (duplicate attributes,
//! undeclared prefixes, illegal characters).

use std::borrow::Cow;

/// Bounds of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Octets of the document as received.
    pub bytes: usize,
    /// Deepest nesting; the root element is at depth 1.
    pub depth: usize,
    /// Elements in all.
    pub elements: usize,
    /// Attributes of one element, namespace declarations included.
    pub attributes: usize,
    /// Octets of one attribute value or one run of text.
    pub text: usize,
}

/// The document is refused; names the reason, never the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadXml {
    /// More octets than allowed.
    #[error("the document is too large")]
    TooLarge,
    /// The encoding is none we read, or the bytes are not in it.
    #[error("the encoding is not supported")]
    Encoding,
    /// Anything else.
    #[error("malformed XML: {0}")]
    Malformed(&'static str),
}

/// UTF-8 or UTF-16, by byte order mark or declaration (UL-017). The mark itself is dropped.
///
/// # Errors
/// [`BadXml::Encoding`] for another encoding, or bytes that are not in the declared one.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, BadXml> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| -> Result<String, BadXml> {
        if !bytes.len().is_multiple_of(2) {
            return Err(BadXml::Encoding);
        }
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).collect::<Result<String, _>>().map_err(|_| BadXml::Encoding)
    };
    let (text, is_wide) = match bytes {
        [0xff, 0xfe, rest @ ..] => (Cow::Owned(wide(rest, u16::from_le_bytes)?), true),
        [0xfe, 0xff, rest @ ..] => (Cow::Owned(wide(rest, u16::from_be_bytes)?), true),
        [b'<', 0, ..] => (Cow::Owned(wide(bytes, u16::from_le_bytes)?), true),
        [0, b'<', ..] => (Cow::Owned(wide(bytes, u16::from_be_bytes)?), true),
        [0xef, 0xbb, 0xbf, rest @ ..] => (utf8(rest)?, false),
        _ => (utf8(bytes)?, false),
    };
    let fits = match declared_encoding(&text) {
        None => true,
        Some(name) if is_wide => name.to_ascii_lowercase().starts_with("utf-16"),
        Some(name) => ["utf-8", "us-ascii", "ascii"].iter().any(|n| name.eq_ignore_ascii_case(n)),
    };
    if fits { Ok(text) } else { Err(BadXml::Encoding) }
}

fn utf8(bytes: &[u8]) -> Result<Cow<'_, str>, BadXml> {
    std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| BadXml::Encoding)
}

fn declared_encoding(text: &str) -> Option<&str> {
    let declaration = text.strip_prefix("<?xml")?;
    let declaration = &declaration[..declaration.find("?>")?];
    let value = declaration[declaration.find("encoding")? + "encoding".len()..].trim_start();
    let value = value.strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value[1..].split(quote).next()
}

/// Most namespace declarations in scope at any place: a tree keeps all of them for each element that adds one.
const MOST_NAMESPACES: usize = 256;

/// Walks the markup once, without a tree and without recursion, and refuses what [`Bounds`] forbid.
///
/// # Errors
/// [`BadXml::TooLarge`] by size; [`BadXml::Malformed`] for a DTD, unbalanced markup, or any other bound.
pub fn check(text: &str, bounds: &Bounds) -> Result<(), BadXml> {
    let bad = |what| Err(BadXml::Malformed(what));
    if text.len() > bounds.bytes {
        return Err(BadXml::TooLarge);
    }
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut elements) = (0usize, 0usize, 0usize);
    // Declarations in scope, for each open element.
    let mut scopes: Vec<usize> = Vec::new();
    while let Some(text_len) = memchr::memchr(b'<', &bytes[at..]) {
        if text_len > bounds.text {
            return bad("too much text");
        }
        at += text_len;
        let rest = &bytes[at..];
        if rest.starts_with(b"<!--") {
            at += 4
                + memchr::memmem::find(&rest[4..], b"-->")
                    .ok_or(BadXml::Malformed("a comment without end"))?
                + 3;
        } else if rest.starts_with(b"<![CDATA[") {
            let len = memchr::memmem::find(rest, b"]]>")
                .ok_or(BadXml::Malformed("a CDATA section without end"))?;
            if len > bounds.text {
                return bad("too much text");
            }
            at += len + 3;
        } else if rest.starts_with(b"<!") {
            return bad("a document type declaration");
        } else if rest.starts_with(b"<?") {
            at += memchr::memmem::find(rest, b"?>")
                .ok_or(BadXml::Malformed("an instruction without end"))?
                + 2;
        } else if rest.starts_with(b"</") {
            at += memchr::memchr(b'>', rest).ok_or(BadXml::Malformed("a tag without end"))? + 1;
            depth =
                depth.checked_sub(1).ok_or(BadXml::Malformed("an end tag without its start"))?;
            scopes.pop();
        } else {
            let tag = start_tag(rest, bounds)?;
            at += tag.len;
            elements += 1;
            if elements > bounds.elements {
                return bad("too many elements");
            }
            if depth + 1 > bounds.depth {
                return bad("nested too deeply");
            }
            let scope = scopes.last().copied().unwrap_or_default() + tag.namespaces;
            if scope > MOST_NAMESPACES {
                return bad("too many namespaces");
            }
            if !tag.is_empty {
                depth += 1;
                scopes.push(scope);
            }
        }
    }
    if bytes.len() - at > bounds.text {
        return bad("too much text");
    }
    Ok(())
}

struct StartTag {
    len: usize,
    is_empty: bool,
    /// Declarations.
    namespaces: usize,
}

fn start_tag(rest: &[u8], bounds: &Bounds) -> Result<StartTag, BadXml> {
    let (mut at, mut attributes, mut namespaces) = (1, 0, 0);
    loop {
        let from = at;
        let found = memchr::memchr3(b'>', b'"', b'\'', &rest[at..])
            .ok_or(BadXml::Malformed("a tag without end"))?;
        at += found;
        if rest[at] == b'>' {
            return Ok(StartTag { len: at + 1, is_empty: rest[at - 1] == b'/', namespaces });
        }
        let name = rest[from..at].trim_ascii_end();
        let name = name.strip_suffix(b"=").unwrap_or(name).trim_ascii_end();
        let name = name.rsplit(u8::is_ascii_whitespace).next().unwrap_or(name);
        namespaces += usize::from(name.starts_with(b"xmlns"));
        let value = memchr::memchr(rest[at], &rest[at + 1..])
            .ok_or(BadXml::Malformed("an attribute value without end"))?;
        if value > bounds.text {
            return Err(BadXml::Malformed("an attribute value is too long"));
        }
        attributes += 1;
        if attributes > bounds.attributes {
            return Err(BadXml::Malformed("too many attributes"));
        }
        at += value + 2;
    }
}

/// Watches a document while it arrives, so that one beyond its bounds is refused before all of it is there.
///
/// Contract: [`Gauge::feed`] for every piece in order, until it fails. What passes is still to be held against [`check`].
#[derive(Debug)]
pub struct Gauge {
    bounds: Bounds,
    at: At,
    octets: usize,
    depth: usize,
    elements: usize,
    first: [u8; 2],
}

/// Where in the markup the last octet was; numbers are octets, or what has been seen of an end.
#[derive(Debug, Clone, Copy)]
enum At {
    Text(usize),
    /// Behind `<`.
    Open,
    /// Behind `<!`: so much of `--` or `[CDATA[`.
    Bang(&'static [u8], usize),
    Comment(usize),
    Cdata(usize, usize),
    Instruction(bool),
    EndTag,
    /// In a start tag with so many attributes; whether the last octet was a slash.
    Tag(usize, bool),
    Value(u8, usize, usize),
}

impl Gauge {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, at: At::Text(0), octets: 0, depth: 0, elements: 0, first: [0; 2] }
    }

    /// The next piece.
    ///
    /// # Errors
    /// As [`check`]; [`BadXml::Encoding`] for what begins as UTF-16.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), BadXml> {
        if self.octets + piece.len() > self.bounds.bytes {
            return Err(BadXml::TooLarge);
        }
        for byte in piece {
            if self.octets < 2 {
                self.first[self.octets] = *byte;
                if self.octets == 1
                    && matches!(self.first, [0xff, 0xfe] | [0xfe, 0xff] | [b'<', 0] | [0, b'<'])
                {
                    return Err(BadXml::Encoding);
                }
            }
            self.octets += 1;
            self.at = self.step(*byte).map_err(BadXml::Malformed)?;
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<At, &'static str> {
        let bounds = &self.bounds;
        Ok(match (self.at, byte) {
            (At::Text(_), b'<') => At::Open,
            // Before the root there is none; what goes on and on there is too large one day.
            (At::Text(n), _) if n >= bounds.text && self.elements > 0 => {
                return Err("too much text");
            }
            (At::Text(n), _) => At::Text(n + 1),
            (At::Open, b'!') => At::Bang(b"", 0),
            (At::Open, b'?') => At::Instruction(false),
            (At::Open, b'/') => At::EndTag,
            (At::Open, _) => {
                self.elements += 1;
                if self.elements > bounds.elements {
                    return Err("too many elements");
                }
                if self.depth + 1 > bounds.depth {
                    return Err("nested too deeply");
                }
                self.at = At::Tag(0, false);
                return self.step(byte);
            }
            (At::Bang(b"", _), b'-') => At::Bang(b"--", 1),
            (At::Bang(b"", _), b'[') => At::Bang(b"[CDATA[", 1),
            (At::Bang(wanted, n), _) if wanted.get(n) == Some(&byte) => {
                match (n + 1 == wanted.len(), wanted) {
                    (false, _) => At::Bang(wanted, n + 1),
                    (true, b"--") => At::Comment(0),
                    (true, _) => At::Cdata(0, 0),
                }
            }
            (At::Bang(..), _) => return Err("a document type declaration"),
            (At::Comment(n), b'-') => At::Comment(n + 1),
            (At::Comment(n), b'>') if n >= 2 => At::Text(0),
            (At::Comment(_), _) => At::Comment(0),
            (At::Cdata(n, _), _) if n > bounds.text => return Err("too much text"),
            (At::Cdata(n, brackets), b']') => At::Cdata(n + 1, brackets + 1),
            (At::Cdata(_, brackets), b'>') if brackets >= 2 => At::Text(0),
            (At::Cdata(n, _), _) => At::Cdata(n + 1, 0),
            (At::Instruction(true), b'>') => At::Text(0),
            (At::Instruction(_), _) => At::Instruction(byte == b'?'),
            (At::EndTag, b'>') => {
                self.depth = self.depth.checked_sub(1).ok_or("an end tag without its start")?;
                At::Text(0)
            }
            (At::EndTag, _) => At::EndTag,
            (At::Tag(_, slash), b'>') => {
                self.depth += usize::from(!slash);
                At::Text(0)
            }
            (At::Tag(n, _), b'"' | b'\'') if n >= bounds.attributes => {
                return Err("too many attributes");
            }
            (At::Tag(n, _), b'"' | b'\'') => At::Value(byte, n + 1, 0),
            (At::Tag(n, _), _) => At::Tag(n, byte == b'/'),
            (At::Value(quote, n, _), _) if byte == quote => At::Tag(n, false),
            (At::Value(_, _, length), _) if length >= bounds.text => {
                return Err("an attribute value is too long");
            }
            (At::Value(quote, n, length), _) => At::Value(quote, n, length + 1),
        })
    }
}

/// The attribute of exactly that namespace and name; `None` is no namespace, not any.
pub fn attribute<'a>(
    node: roxmltree::Node<'a, '_>,
    namespace: Option<&str>,
    name: &str,
) -> Option<&'a str> {
    node.attributes().find(|a| a.namespace() == namespace && a.name() == name).map(|a| a.value())
}

/// Text made fit for an attribute value in double quotes or for element content. Characters XML cannot hold are dropped.
pub fn escape(text: &str) -> Cow<'_, str> {
    let special =
        |c: char| matches!(c, '<' | '>' | '&' | '"' | '\'') || !(' '..='\u{fffd}').contains(&c);
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' => out.push_str("&#9;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c < ' ' => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Bounds = Bounds { bytes: 4096, depth: 3, elements: 5, attributes: 2, text: 64 };

    #[test]
    fn bounds_hold_without_building_a_tree() {
        let long = "x".repeat(65);
        let long_text = format!("<a>{long}</a>");
        let long_value = format!("<a b='{long}'/>");
        let big = format!("<a>{}</a>", "<b/>".repeat(1100));
        let cases: &[(&str, &str, bool)] = &[
            ("fits", "<?xml version='1.0'?><a b='>' c=\"/>\"><b><c/></b><!-- <x> --></a>", true),
            ("cdata", "<a><![CDATA[<b><c><d><e>]]></a>", true),
            ("deep", "<a><b><c><d/></c></b></a>", false),
            ("many elements", "<a><b/><b/><b/><b/><b/></a>", false),
            ("many attributes", "<a b='1' c='2' d='3'/>", false),
            ("long text", &long_text, false),
            ("long value", &long_value, false),
            ("doctype", "<!DOCTYPE a><a/>", false),
            ("doctype inside", "<a><!DOCTYPE a []></a>", false),
            ("entity", "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", false),
            ("end without start", "</a>", false),
            ("open tag", "<a b='", false),
            ("open comment", "<!-- ", false),
            ("big", &big, false),
            ("dashes", "<a><!-- - -- ---></a>", true),
            ("brackets", "<a><![CDATA[]]]]><![CDATA[]>]]></a>", true),
            ("instructions", "<?a ??><a><?b <c>?></a><?d?>", true),
        ];
        for (name, text, fits) in cases {
            assert_eq!(check(text, &SMALL).is_ok(), *fits, "{name}");
            // What is cut off at its end is not known to be so while more may come.
            let open = ["open tag", "open comment"].contains(name);
            for pieces in [1, 3, text.len()] {
                let mut gauge = Gauge::new(SMALL);
                let fed = text.as_bytes().chunks(pieces).try_for_each(|piece| gauge.feed(piece));
                assert_eq!(fed.is_ok(), *fits || open, "{name} in pieces of {pieces}");
            }
        }
        assert_eq!(Gauge::new(SMALL).feed(&[0xff, 0xfe, b'<', 0]), Err(BadXml::Encoding));
        assert_eq!(Gauge::new(SMALL).feed(&[b'x'; 4097]), Err(BadXml::TooLarge));
        assert_eq!(check(&"<a/>".repeat(1025), &SMALL), Err(BadXml::TooLarge));
    }

    #[test]
    fn declarations_in_scope_are_bounded() {
        let bounds =
            Bounds { bytes: 1 << 20, depth: 32, elements: 20_000, attributes: 64, text: 999 };
        let declarations =
            |n: usize| -> String { (0..n).map(|n| format!(" xmlns:p{n} = 'u'")).collect() };
        let nested = |levels: usize| {
            let open = format!("<a b='xmlns'{}>", declarations(60));
            open.repeat(levels) + "<c xmlns='d'/>" + &"</a>".repeat(levels)
        };
        assert!(check(&nested(4), &bounds).is_ok());
        assert!(check(&nested(5), &bounds).is_err());
        let beside = format!("<a>{}</a>", format!("<b{}/>", declarations(60)).repeat(500));
        assert!(check(&beside, &bounds).is_ok(), "each has its own");
    }

    #[test]
    fn encodings_are_those_declared() {
        let wide = |text: &str, le: bool, mark: bool| -> Vec<u8> {
            let mut units: Vec<u16> = if mark { vec![0xfeff] } else { Vec::new() };
            units.extend(text.encode_utf16());
            units
                .into_iter()
                .flat_map(|u| if le { u.to_le_bytes() } else { u.to_be_bytes() })
                .collect()
        };
        let sixteen = "<?xml version=\"1.0\" encoding=\"UTF-16\"?><a>\u{e9}\u{1f600}</a>";
        for le in [true, false] {
            for mark in [true, false] {
                assert_eq!(decode(&wide(sixteen, le, mark)).as_deref(), Ok(sixteen));
            }
        }
        assert_eq!(decode(b"\xef\xbb\xbf<a/>").as_deref(), Ok("<a/>"));
        assert!(decode(b"<?xml version='1.0' encoding='Utf-8'?><a/>").is_ok());
        for bad in [
            &b"<?xml version='1.0' encoding='ISO-8859-1'?><a/>"[..],
            b"<?xml version='1.0' encoding='UTF-16'?><a/>",
            b"<a>\xe9</a>",
            b"\xff\xfe<",
            b"\xff\xfe\x00\xd8",
        ] {
            assert_eq!(decode(bad), Err(BadXml::Encoding));
        }
    }

    #[test]
    fn written_text_reads_back() {
        let text = "a<b>&\"'\t\n\r \u{e9}";
        let xml = format!("<a b=\"{}\">{}</a>", escape(text), escape(text));
        let doc = roxmltree::Document::parse(&xml).unwrap();
        assert_eq!(doc.root_element().attribute("b"), Some(text));
        assert_eq!(doc.root_element().text(), Some(text));
        assert_eq!(escape("a\u{0}\u{8}\u{ffff}b"), "ab");
    }
}
