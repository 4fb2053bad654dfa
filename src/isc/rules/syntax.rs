//! The few shapes header values have: an address with parameters, a list of parameters, a quoted string.
//!
//! Start at [`Address::parse`] and [`params`]. Follows RFC 3261 §25.1 where peers do, and is lenient about blanks.

use std::borrow::Cow;

/// A name-addr or addr-spec with what stands behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address<'a> {
    /// As written, quotes included; empty if there is none.
    pub display: &'a str,
    /// What stands in the angle brackets, or the bare URI without header parameters.
    pub uri: &'a str,
    /// Header parameters from the first `;` on, as written.
    pub params: &'a str,
}

impl<'a> Address<'a> {
    /// Reads one element of a header; `None` if there is no URI in it.
    pub fn parse(value: &'a str) -> Option<Self> {
        let value = value.trim();
        let Some(open) = outside_quotes(value, b'<') else {
            let (uri, params) = value.split_at(value.find(';').unwrap_or(value.len()));
            let uri = uri.trim();
            return (!uri.is_empty() && uri.contains(':')).then_some(Self {
                display: "",
                uri,
                params,
            });
        };
        let rest = &value[open + 1..];
        let close = rest.find('>')?;
        let uri = rest[..close].trim();
        let params = rest[close + 1..].trim();
        (!uri.is_empty()).then_some(Self { display: value[..open].trim(), uri, params })
    }

    /// The value of a header parameter: `Some(None)` if it stands there without one.
    pub fn param(&self, name: &str) -> Option<Option<&'a str>> {
        param(self.params, name)
    }
}

/// The parameters of `;a=b;c`, blanks trimmed, quotes kept. Text before the first `;` is taken as a parameter, too.
pub fn params(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    split(text, b';').map(str::trim).filter(|piece| !piece.is_empty()).map(|piece| {
        match outside_quotes(piece, b'=') {
            Some(at) => (piece[..at].trim_end(), Some(piece[at + 1..].trim_start())),
            None => (piece, None),
        }
    })
}

/// The first parameter of that name, names compared without case.
pub fn param<'a>(text: &'a str, name: &str) -> Option<Option<&'a str>> {
    params(text).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Splits at `separator` where it stands outside quotes and angle brackets.
pub fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        if let Some(at) = outside_quotes(text, separator) {
            rest = Some(&text[at + 1..]);
            Some(&text[..at])
        } else {
            rest = None;
            Some(text)
        }
    })
}

/// A quoted string without its quotes and escapes; anything else as it is.
pub fn unquote(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    let Some(inner) = text.strip_prefix('"').map(|rest| rest.strip_suffix('"').unwrap_or(rest))
    else {
        return Cow::Borrowed(text);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    Cow::Owned(out)
}

/// A quoted string that holds `text` whatever it contains; control characters are left out.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// Where `wanted` stands outside quotes (and, unless it is `<`, outside angle brackets).
fn outside_quotes(text: &str, wanted: u8) -> Option<usize> {
    let (mut quoted, mut escaped, mut bracket) = (false, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            _ if byte == wanted && !bracket => return Some(at),
            b'<' => bracket = true,
            b'>' => bracket = false,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form_peers_send() {
        for (value, display, uri, params) in [
            ("<sip:u@h>", "", "sip:u@h", ""),
            (
                "<sip:u@h>; sescase=term; regstate=unreg",
                "",
                "sip:u@h",
                "; sescase=term; regstate=unreg",
            ),
            ("sip:u@h;tag=1", "", "sip:u@h", ";tag=1"),
            (r#""A, <b> \" c" <sip:u@h;x=y>;tag=1"#, r#""A, <b> \" c""#, "sip:u@h;x=y", ";tag=1"),
            ("Alice <tel:+1555>", "Alice", "tel:+1555", ""),
        ] {
            assert_eq!(Address::parse(value), Some(Address { display, uri, params }), "{value}");
        }
        for value in ["", "<>", "alice", "\"x", "<sip:u@h"] {
            assert_eq!(Address::parse(value), None, "{value}");
        }
    }

    #[test]
    fn parameters_keep_quotes_and_compare_names_without_case() {
        let text = r#";A="x;y" ; b ;c = d"#;
        assert_eq!(param(text, "a"), Some(Some(r#""x;y""#)));
        assert_eq!(param(text, "B"), Some(None));
        assert_eq!(param(text, "c"), Some(Some("d")));
        assert_eq!(param(text, "d"), None);
        assert_eq!(unquote(r#""a\"b""#), "a\"b");
        assert_eq!(quote("a\"b\r\nc"), r#""a\"bc""#);
    }

    #[test]
    fn odd_quotes_and_separators_end_nowhere_else() {
        for (text, want) in [
            ("a", "a"),
            (" \"a\" ", "a"),
            ("\"a", "a"),
            (r#""a\\\"b""#, r#"a\"b"#),
            (r#""a\"#, r"a\"),
            ("\"\"", ""),
        ] {
            assert_eq!(unquote(text), want, "{text}");
        }
        assert_eq!(quote("a\\b"), r#""a\\b""#);
        for (text, separator, want) in [
            ("a,b", b',', &["a", "b"][..]),
            ("<a,b>,c", b',', &["<a,b>", "c"][..]),
            (r#""a,\",b",c"#, b',', &[r#""a,\",b""#, "c"][..]),
            ("", b';', &[""][..]),
            (";", b';', &["", ""][..]),
        ] {
            assert_eq!(split(text, separator).collect::<Vec<_>>(), want, "{text}");
        }
        let address = Address::parse("<sip:a@h>;X=\"1;2\";y").expect("an address");
        assert_eq!(
            (address.param("x"), address.param("Y"), address.param("z")),
            (Some(Some("\"1;2\"")), Some(None), None)
        );
    }
}
