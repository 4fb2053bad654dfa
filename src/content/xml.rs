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
            depth += usize::from(!tag.is_empty);
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
}

fn start_tag(rest: &[u8], bounds: &Bounds) -> Result<StartTag, BadXml> {
    let (mut at, mut attributes) = (1, 0);
    loop {
        let found = memchr::memchr3(b'>', b'"', b'\'', &rest[at..])
            .ok_or(BadXml::Malformed("a tag without end"))?;
        at += found;
        if rest[at] == b'>' {
            return Ok(StartTag { len: at + 1, is_empty: rest[at - 1] == b'/' });
        }
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
        ];
        for (name, text, fits) in cases {
            assert_eq!(check(text, &SMALL).is_ok(), *fits, "{name}");
        }
        assert_eq!(check(&"<a/>".repeat(1025), &SMALL), Err(BadXml::TooLarge));
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
