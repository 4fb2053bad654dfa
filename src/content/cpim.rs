//! CPIM: the envelope that says who sent a page, to whom and when (RFC 3862).
//!
//! Start at [`parse`] for the head of what arrives, [`write()`] for an envelope of our own. Reads the head only; the
//! content is where [`Head::content_at`] points and is never copied or changed (MS-096). Follows MS-094 (syntax) and
//! MS-095.

use bytes::{BufMut, Bytes, BytesMut};

use super::mime::{BadBlock, MediaType, field, header_block};

/// Most header lines of an envelope.
const MAX_LINES: usize = 64;
/// Longest head of an envelope with the header of its content, in octets.
pub const MAX_HEAD: usize = 16 * 1024;

/// The head of one CPIM message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// All header lines in order.
    pub headers: Vec<Header>,
    /// Who sent it.
    pub from: Option<Address>,
    /// Who it is for; may be several on the wire (MS-094 forbids that for a page).
    pub to: Vec<Address>,
    /// Copies.
    pub cc: Vec<Address>,
    /// As written.
    pub date_time: Option<String>,
    /// As written, unescaped.
    pub subject: Option<String>,
    /// Header names the reader has to understand (MS-097).
    pub require: Vec<String>,
    /// Fields of the encapsulated entity: name as received and value.
    pub entity: Vec<(String, String)>,
    /// The entity's type; `text/plain` where it names none.
    pub content_type: MediaType,
    /// Offset of the first octet of the content.
    pub content_at: usize,
}

/// One header line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The namespace URI the prefix stands for; `None` for the names of RFC 3862 itself.
    pub namespace: Option<String>,
    /// The name without its prefix. Case matters (MS-095).
    pub name: String,
    /// The value with its escapes undone.
    pub value: String,
}

/// `Formal Name <uri>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The name, without quotes.
    pub name: Option<String>,
    /// The URI between the angle brackets.
    pub uri: String,
}

/// The bytes are no CPIM message; names the first thing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed CPIM: {what}")]
pub struct BadCpim {
    /// What is wrong, without the text.
    pub what: &'static str,
}

const fn bad(what: &'static str) -> BadCpim {
    BadCpim { what }
}

impl Head {
    /// The value of the first header of that namespace and name.
    pub fn header(&self, namespace: Option<&str>, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|h| h.namespace.as_deref() == namespace && h.name == name)
            .map(|h| h.value.as_str())
    }
}

/// Reads the head of a CPIM message from its first octets. `None`: more octets are needed.
///
/// MS-095 (RFC 3862 §2, §3): CRLF, one space after the colon, names with case, no folding, a prefix only after its `NS`.
///
/// # Errors
/// [`BadCpim`] as soon as it is certain, at the latest after [`MAX_HEAD`] octets.
pub fn parse(bytes: &[u8]) -> Result<Option<Head>, BadCpim> {
    let mut reader = Reader::default();
    let mut at = 0;
    loop {
        let Some(len) = memchr::memchr(b'\n', &bytes[at..]) else {
            return unfinished(bytes);
        };
        let line =
            bytes[at..at + len].strip_suffix(b"\r").ok_or(bad("a line does not end in CR LF"))?;
        at += len + 1;
        if at > MAX_HEAD {
            return Err(bad("the head is too long"));
        }
        if line.is_empty() {
            break;
        }
        reader.line(line)?;
    }
    let entity = match header_block(&bytes[at..]) {
        Ok(block) => block,
        Err(BadBlock::Unfinished) => return unfinished(bytes),
        Err(BadBlock::Malformed(what)) => return Err(bad(what)),
    };
    let content_type = match field(&entity.fields, "content-type") {
        Some(text) => MediaType::parse(text).ok_or(bad("Content-Type cannot be read"))?,
        None => MediaType { essence: "text/plain".to_owned(), params: Vec::new() },
    };
    let Reader { headers, from, to, cc, date_time, subject, require, .. } = reader;
    Ok(Some(Head {
        headers,
        from,
        to,
        cc,
        date_time,
        subject,
        require,
        content_type,
        content_at: at + entity.end,
        entity: entity.fields,
    }))
}

fn unfinished(bytes: &[u8]) -> Result<Option<Head>, BadCpim> {
    if bytes.len() > MAX_HEAD { Err(bad("the head is too long")) } else { Ok(None) }
}

#[derive(Default)]
struct Reader {
    namespaces: Vec<(String, String)>,
    headers: Vec<Header>,
    from: Option<Address>,
    to: Vec<Address>,
    cc: Vec<Address>,
    date_time: Option<String>,
    subject: Option<String>,
    require: Vec<String>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), BadCpim> {
        if self.headers.len() == MAX_LINES {
            return Err(bad("too many header lines"));
        }
        let line = std::str::from_utf8(line).map_err(|_| bad("a header line is not UTF-8"))?;
        if line.starts_with([' ', '\t']) {
            return Err(bad("a header line is folded"));
        }
        let (full, value) = line.split_once(':').ok_or(bad("a header line has no colon"))?;
        // `Subject:;lang=fr value` carries a parameter between colon and space.
        let value = match value.strip_prefix(';') {
            Some(rest) => rest.split_once(' ').map(|(_, v)| v),
            None => value.strip_prefix(' '),
        };
        let value = value.ok_or(bad("no space after the colon"))?;
        if value.starts_with(' ') {
            return Err(bad("more than one space after the colon"));
        }
        let (prefix, name) = match full.split_once('.') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, full),
        };
        if !is_name(name) || !prefix.is_none_or(is_name) {
            return Err(bad("a header name has a forbidden character"));
        }
        let namespace = match prefix {
            None => None,
            Some(prefix) => Some(
                self.namespaces
                    .iter()
                    .rev()
                    .find(|(p, _)| p == prefix)
                    .map(|(_, uri)| uri.clone())
                    .ok_or(bad("a prefix is used before its NS"))?,
            ),
        };
        let text = unescape(value)?;
        if namespace.is_none() {
            self.known(name, value, &text)?;
        }
        self.headers.push(Header { namespace, name: name.to_owned(), value: text });
        Ok(())
    }

    fn known(&mut self, name: &str, raw: &str, text: &str) -> Result<(), BadCpim> {
        match name {
            "From" if self.from.is_some() => return Err(bad("two From headers")),
            "From" => self.from = Some(address(raw)?),
            "To" => self.to.push(address(raw)?),
            "cc" => self.cc.push(address(raw)?),
            "DateTime" if self.date_time.is_some() => return Err(bad("two DateTime headers")),
            "DateTime" => self.date_time = Some(text.to_owned()),
            "Subject" if self.subject.is_none() => self.subject = Some(text.to_owned()),
            "Require" => self.require.extend(
                text.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned),
            ),
            "NS" => {
                let (prefix, uri) = text.split_once('<').ok_or(bad("NS without <URI>"))?;
                let uri = uri.strip_suffix('>').ok_or(bad("NS without <URI>"))?;
                self.namespaces.push((prefix.trim().to_owned(), uri.to_owned()));
            }
            _ => {}
        }
        Ok(())
    }
}

/// RFC 3862 §2.3: a name has no separator and no dot.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-^_`|~".contains(&b))
}

fn address(value: &str) -> Result<Address, BadCpim> {
    let value = value.trim_end();
    let open = value.rfind('<').ok_or(bad("an address without <URI>"))?;
    let uri = value[open + 1..].strip_suffix('>').ok_or(bad("an address without <URI>"))?;
    if uri.is_empty() || uri.contains([' ', '\t', '>']) {
        return Err(bad("an address with a broken URI"));
    }
    let name = value[..open].trim();
    let name = match name.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').ok_or(bad("a name without closing quote"))?,
        None => name,
    };
    let name = unescape(name)?;
    Ok(Address { name: (!name.is_empty()).then_some(name), uri: uri.to_owned() })
}

/// MS-095 (RFC 3862 §2.1): the escapes of header text.
fn unescape(text: &str) -> Result<String, BadCpim> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some(c @ ('\\' | '"' | '\'')) => c,
            Some('b') => '\u{8}',
            Some('t') => '\t',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('u') => {
                let rest = chars.as_str();
                let hex = rest.get(..4).filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
                let code = hex.and_then(|h| u32::from_str_radix(h, 16).ok());
                chars = rest.get(4..).unwrap_or("").chars();
                code.and_then(char::from_u32).ok_or(bad("an escape that is none"))?
            }
            _ => return Err(bad("an escape that is none")),
        });
    }
    Ok(out)
}

fn escape(out: &mut BytesMut, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.put_slice(b"\\\\"),
            '\u{8}' => out.put_slice(b"\\b"),
            '\t' => out.put_slice(b"\\t"),
            '\n' => out.put_slice(b"\\n"),
            '\r' => out.put_slice(b"\\r"),
            c if c.is_control() && u32::from(c) <= 0xffff => {
                out.put_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
            }
            c => out.put_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Writes an envelope around content (MS-098): header lines as given, values escaped, then the entity's type and the
/// content. Names are ours; values cannot add a line.
pub fn write(headers: &[(&str, &str)], content_type: &str, content: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(content.len() + 512);
    for (name, value) in headers {
        out.put_slice(name.as_bytes());
        out.put_slice(b": ");
        escape(&mut out, value);
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\nContent-Type: ");
    out.extend(content_type.bytes().filter(|b| !matches!(b, b'\r' | b'\n' | 0)));
    out.put_slice(b"\r\n\r\n");
    out.put_slice(content);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMDN: &str = "urn:ietf:params:imdn";

    fn head(text: &str) -> Result<Head, BadCpim> {
        parse(text.as_bytes()).map(|head| head.expect("complete"))
    }

    #[test]
    fn an_envelope_is_read() {
        let text = "From: MR SANDERS <im:piglet@100akerwood.com>\r\nTo: \"Depressed \\\"D\\\" Donkey\" <im:eeyore@h>\r\n\
            cc: <im:a@h>\r\ncc: B <im:b@h>\r\nDateTime: 2000-12-13T13:40:00-08:00\r\nSubject:;lang=fr beau \\u00e9t\\u00e9\r\n\
            NS: imdn <urn:ietf:params:imdn>\r\nNS: MyFeatures <mid:MessageFeatures@id.foo.com>\r\n\
            imdn.Message-ID: 34jk324j\r\nRequire: MyFeatures.VitalMessageOption, X\r\n\
            MyFeatures.VitalMessageOption: Confirmation-requested\r\n\r\n\
            Content-type: text/plain; charset=utf-8\r\nContent-ID: <1@h>\r\n\r\nHi\r\n";
        let head = head(text).unwrap();
        let from = head.from.clone().unwrap();
        assert_eq!(
            (from.name.as_deref(), from.uri.as_str()),
            (Some("MR SANDERS"), "im:piglet@100akerwood.com")
        );
        assert_eq!(head.to[0].name.as_deref(), Some("Depressed \"D\" Donkey"));
        assert_eq!(head.cc.len(), 2);
        assert_eq!(head.date_time.as_deref(), Some("2000-12-13T13:40:00-08:00"));
        assert_eq!(head.subject.as_deref(), Some("beau \u{e9}t\u{e9}"));
        assert_eq!(head.header(Some(IMDN), "Message-ID"), Some("34jk324j"));
        assert_eq!(head.header(None, "Message-ID"), None);
        assert_eq!(head.require, ["MyFeatures.VitalMessageOption", "X"]);
        assert_eq!(head.content_type.essence, "text/plain");
        assert_eq!(&text[head.content_at..], "Hi\r\n");
    }

    /// Proves MS-095.
    #[test]
    fn the_grammar_is_kept() {
        let end = "\r\n\r\nContent-Type: a/b\r\n\r\n";
        let long = format!("From: <im:a@h>\r\nSubject: {}", "x".repeat(MAX_HEAD));
        let many = "X: y\r\n".repeat(65) + "X: y";
        let refused = [
            ("no space", "From:<im:a@h>"),
            ("two spaces", "From:  <im:a@h>"),
            ("folded", "Subject: a\r\n b"),
            ("no colon", "From"),
            ("no brackets", "From: im:a@h"),
            ("empty URI", "From: <>"),
            ("two From", "From: <im:a@h>\r\nFrom: <im:a@h>"),
            ("two DateTime", "DateTime: 1\r\nDateTime: 2"),
            ("prefix before NS", "imdn.Message-ID: 1\r\nNS: imdn <urn:ietf:params:imdn>"),
            ("NS without URI", "NS: imdn"),
            ("bad escape", "Subject: a\\x"),
            ("bad hex escape", "Subject: a\\u12g4"),
            ("half a surrogate", "Subject: \\ud800"),
            ("escape at the end", "Subject: a\\"),
            ("LF alone", "From: <im:a@h>\nTo: <im:b@h>"),
            ("space in the name", "Fr om: <im:a@h>"),
            ("too long", &long),
            ("too many", &many),
        ];
        for (name, text) in refused {
            assert!(head(&format!("{text}{end}")).is_err(), "{name}");
        }
        let odd = head(&format!("from: whatever\r\nto: x\r\nCC: y\r\nX-New: <\r\nSubject: a\\\\\\\"\\'\\b\\t\\n\\r\\u00fc\u{fc}{end}")).unwrap();
        assert_eq!(odd.from, None, "from: is not From");
        assert!(odd.to.is_empty() && odd.cc.is_empty(), "to: is not To, CC: is not cc");
        assert_eq!(odd.subject.as_deref(), Some("a\\\"'\u{8}\t\n\r\u{fc}\u{fc}"));
        assert_eq!(odd.header(None, "from"), Some("whatever"));
        let repeated = head(&format!(
            "To: <im:a@h>\r\nTo: B <im:b@h>\r\nNS: a <urn:1>\r\nNS: a <urn:2>\r\na.X: y{end}"
        ))
        .unwrap();
        assert_eq!(repeated.to.len(), 2);
        assert_eq!(repeated.header(Some("urn:2"), "X"), Some("y"));
        assert!(parse(b"From: \xff\r\n\r\n\r\n").is_err());
    }

    /// Proves MS-095: the namespace says what a header is, and the prefix is free.
    #[test]
    fn headers_of_imdn_are_known_by_their_namespace() {
        let end = "\r\n\r\nContent-Type: a/b\r\n\r\n";
        for prefix in ["imdn", "i", "IMDN", "x-1", "From"] {
            let text = format!(
                "NS: {prefix} <{IMDN}>\r\n{prefix}.Message-ID: 34jk\r\n\
                 {prefix}.Disposition-Notification: negative-delivery{end}"
            );
            let head = head(&text).unwrap();
            assert_eq!(head.header(Some(IMDN), "Message-ID"), Some("34jk"), "{prefix}");
            let asked = head.header(Some(IMDN), "Disposition-Notification");
            assert_eq!(asked, Some("negative-delivery"), "{prefix}");
            assert_eq!(head.from, None, "{prefix}");
        }
        let other = head(&format!("NS: imdn <urn:other>\r\nimdn.Message-ID: 34jk{end}")).unwrap();
        assert_eq!(
            other.header(Some(IMDN), "Message-ID"),
            None,
            "the usual prefix of another namespace"
        );
        let strange = format!("NS: i <{IMDN}>\r\nI.Message-ID: 34jk{end}");
        assert!(head(&strange).is_err(), "prefixes have case");
    }

    #[test]
    fn a_head_may_come_in_any_number_of_pieces() {
        let text = b"From: <im:a@h>\r\nTo: <im:b@h>\r\n\r\nContent-Type: text/plain\r\n\r\nHello";
        let start = text.len() - 5;
        for n in 0..text.len() {
            let got = parse(&text[..n]).unwrap();
            assert_eq!(got.is_some(), n >= start, "{n}");
        }
        assert!(parse(&vec![b'x'; MAX_HEAD + 1]).is_err(), "nobody waits for ever");
        let bare = parse(b"From: <im:a@h>\r\n\r\n\r\nHello").unwrap().unwrap();
        assert_eq!(bare.content_type.essence, "text/plain");
    }

    #[test]
    fn what_is_written_reads_back_and_injects_nothing() {
        let bytes = write(
            &[
                ("From", "<sip:a@h>"),
                ("To", "<sip:b@h>"),
                ("Subject", "a\\b\r\nTo: <sip:evil@h>\u{7f}\u{e9}"),
            ],
            "text/plain",
            b"body",
        );
        let head = parse(&bytes).unwrap().unwrap();
        assert_eq!(head.to.len(), 1);
        assert_eq!(head.subject.as_deref(), Some("a\\b\r\nTo: <sip:evil@h>\u{7f}\u{e9}"));
        assert_eq!(&bytes[head.content_at..], b"body");
    }
}
