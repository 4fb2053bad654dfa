//! The body of a MESSAGE: what it says, and whom it names beside that.
//!
//! Start at [`read`], which takes the recipient lists out; [`write()`] puts a history list in their place. What is said
//! passes octet for octet. Follows UL-006 to UL-008, UL-028 and RFC 5365 §7.3.

use bytes::Bytes;

use super::multipart::{self, BadBody, Disposition, MAX_DEPTH, MediaType, Part};
use super::request_body::{
    BodyRefusal, HISTORY, Purpose, RESOURCE_LISTS, is_bare_list, is_plain, purpose,
};

/// One part of what a MESSAGE says, with the header fields that describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// `Content-…` fields, name and value; Content-Type is among them.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// The body of a MESSAGE, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageBody {
    /// What it says, in order.
    pub pieces: Vec<Piece>,
    /// The recipient lists in order; several are one list (UL-008).
    pub lists: Vec<Bytes>,
}

/// Octets of what is said.
pub fn size(pieces: &[Piece]) -> usize {
    pieces.iter().map(|piece| piece.body.len()).sum()
}

/// Takes the lists out of a body. `headers` are the `Content-…` fields of the request itself; `strict` is
/// `ul.require_strict`.
///
/// Lists are looked for in `multipart/mixed`, [`MAX_DEPTH`] levels deep: of other multiparts no part can be taken away. A
/// list without a disposition is one only if it is the only such part and nobody insists (UL-007); else it is said like
/// everything else. History lists are left out.
///
/// # Errors
/// [`BodyRefusal::Broken`] for broken MIME; [`BodyRefusal::Unknown`] for a list that is none of ours, or a body without a
/// type.
pub fn read(
    headers: Vec<(String, String)>,
    body: &Bytes,
    strict: bool,
) -> Result<MessageBody, BodyRefusal> {
    if body.is_empty() {
        return Ok(MessageBody::default());
    }
    let whole = Piece { headers, body: body.clone() };
    let field = |name: &str| {
        let mut fields = whole.headers.iter();
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    };
    let content_type = field("Content-Type").ok_or(BodyRefusal::Unknown)?;
    let kind = MediaType::parse(content_type)
        .ok_or(BodyRefusal::Broken(BadBody { what: "the Content-Type cannot be read" }))?;
    let part = Part {
        disposition: field("Content-Disposition").and_then(Disposition::parse),
        content_id: None,
        content_type: kind,
        headers: whole.headers.clone(),
        body: whole.body.clone(),
    };
    // All of it has to be well formed, and bounded, whatever is taken out.
    let leaves = multipart::flatten(content_type, body)?;
    let bare = leaves.iter().filter(|leaf| is_bare_list(leaf)).count();
    let mut sieve = Sieve { lists: Vec::new(), lone: bare == 1 && !strict };
    let pieces = match sieve.open(&part, 0)? {
        Some((parts, true)) => parts.into_iter().map(piece).collect(),
        Some((_, false)) => vec![whole],
        None => sieve.sift(part, 0)?.map(piece).into_iter().collect(),
    };
    Ok(MessageBody { pieces, lists: sieve.lists })
}

struct Sieve {
    lists: Vec<Bytes>,
    /// The part that looks like a list and does not say so is one.
    lone: bool,
}

impl Sieve {
    /// What is left of a part's own parts, and whether any was taken; `None` for a part that has none.
    fn open(
        &mut self,
        part: &Part,
        depth: usize,
    ) -> Result<Option<(Vec<Part>, bool)>, BodyRefusal> {
        if !is_open(part, depth) {
            return Ok(None);
        }
        let mut left = Vec::new();
        let mut taken = false;
        for inner in parts(part)? {
            let before = inner.body.clone();
            match self.sift(inner, depth + 1)? {
                Some(inner) => {
                    taken |= inner.body != before;
                    left.push(inner);
                }
                None => taken = true,
            }
        }
        Ok(Some((left, taken)))
    }

    /// What is left of a part.
    fn sift(&mut self, part: Part, depth: usize) -> Result<Option<Part>, BodyRefusal> {
        if let Some((mut left, taken)) = self.open(&part, depth)? {
            return Ok(match left.len() {
                _ if !taken => Some(part),
                0 => None,
                1 => left.pop(),
                _ => Some(joined(left)),
            });
        }
        let is_list = match purpose(&part) {
            Purpose::List => true,
            Purpose::BareList => self.lone,
            Purpose::History => return Ok(None),
            Purpose::Sdp | Purpose::Other => {
                let names = part.disposition.as_ref().map(|d| d.kind.as_str());
                if names == Some("recipient-list") {
                    return Err(BodyRefusal::Unknown);
                }
                false
            }
        };
        if !is_list {
            return Ok(Some(part));
        }
        if !is_plain(&part) {
            return Err(BodyRefusal::Unknown);
        }
        self.lists.push(part.body);
        Ok(None)
    }
}

fn is_open(part: &Part, depth: usize) -> bool {
    part.content_type.essence == "multipart/mixed" && depth < MAX_DEPTH
}

fn parts(part: &Part) -> Result<Vec<Part>, BodyRefusal> {
    let field = part.header("content-type").unwrap_or_default();
    Ok(multipart::parse(field, &part.body)?)
}

/// Several parts as one.
fn joined(parts: Vec<Part>) -> Part {
    let pieces: Vec<Piece> = parts.into_iter().map(piece).collect();
    let (content_type, body) = together(&pieces, None);
    Part {
        content_type: MediaType { essence: "multipart/mixed".to_owned(), params: Vec::new() },
        headers: vec![("Content-Type".to_owned(), content_type)],
        disposition: None,
        content_id: None,
        body,
    }
}

/// RFC 2046 §5.1: only `Content-…` fields mean something in a part; one without a type is text.
fn piece(part: Part) -> Piece {
    let describes = |name: &str| {
        name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("Content-"))
            && !name.eq_ignore_ascii_case("Content-Length")
    };
    let mut headers: Vec<_> =
        part.headers.into_iter().filter(|(name, _)| describes(name)).collect();
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Content-Type")) {
        headers.insert(0, ("Content-Type".to_owned(), "text/plain".to_owned()));
    }
    Piece { headers, body: part.body }
}

/// A body of these pieces and, behind them, a history list: its `Content-…` fields, Content-Type first, and its octets.
///
/// UL-021, UL-028: a single part stands there without a multipart around it.
pub fn write(pieces: &[Piece], history: Option<&str>) -> (Vec<(String, String)>, Bytes) {
    if let ([only], None) = (pieces, history) {
        let mut headers = only.headers.clone();
        headers.sort_by_key(|(name, _)| !name.eq_ignore_ascii_case("Content-Type"));
        return (headers, only.body.clone());
    }
    let (content_type, body) = together(pieces, history);
    (vec![("Content-Type".to_owned(), content_type)], body)
}

fn together(pieces: &[Piece], history: Option<&str>) -> (String, Bytes) {
    let fields: Vec<Vec<(&str, &str)>> = pieces
        .iter()
        .map(|piece| piece.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect())
        .collect();
    let mut parts: Vec<multipart::Outgoing<'_>> = fields
        .iter()
        .zip(pieces)
        .map(|(headers, piece)| (headers.as_slice(), &piece.body[..]))
        .collect();
    const LIST: &[(&str, &str)] =
        &[("Content-Type", RESOURCE_LISTS), ("Content-Disposition", HISTORY)];
    if let Some(history) = history {
        parts.push((LIST, history.as_bytes()));
    }
    multipart::write(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str =
        "Content-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n";

    fn mixed(boundary: &str, parts: &[(&str, &str)]) -> String {
        let mut text = String::new();
        for (headers, content) in parts {
            text += &format!("--{boundary}\r\n{headers}\r\n{content}\r\n");
        }
        text + &format!("--{boundary}--\r\n")
    }

    fn sorted(content_type: &str, body: &str, strict: bool) -> Result<(Vec<String>, usize), u16> {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        let read = read(headers, &Bytes::from(body.to_owned()), strict);
        let is_type = |name: &str| name.eq_ignore_ascii_case("Content-Type");
        let text = |piece: &Piece| {
            let kind = piece.headers.iter().find(|(name, _)| is_type(name)).expect("a type");
            format!("{}: {}", kind.1, String::from_utf8_lossy(&piece.body))
        };
        read.map(|body| (body.pieces.iter().map(text).collect(), body.lists.len()))
            .map_err(BodyRefusal::status)
    }

    /// Part of UL-007, UL-008 and UL-028.
    #[test]
    fn lists_are_taken_out_and_the_rest_stays_as_it_is() {
        const MIXED: &str = "multipart/mixed;boundary=b";
        let text = ("Content-Type: text/plain;charset=UTF-8\r\n", "Lunch?");
        let image = ("Content-Type: image/png\r\nContent-ID: <a>\r\n", "\u{1}--c\r\n");
        let bare = "Content-Type: application/resource-lists+xml\r\n";
        let said = "text/plain;charset=UTF-8: Lunch?".to_owned();
        let inner = mixed("c", &[text, (LIST, "L")]);
        let nested = ("Content-Type: multipart/mixed;boundary=c\r\n", inner.as_str());
        let deep = mixed("d", &[nested]);
        let deeper = ("Content-Type: multipart/mixed;boundary=d\r\n", deep.as_str());
        let many = vec![text; multipart::MAX_PARTS + 1];
        let other = mixed("c", &[text, ("Content-Type: text/html\r\n", "<p>")]);
        let either = ("Content-Type: multipart/alternative;boundary=c\r\n", other.as_str());
        let as_is = format!("multipart/alternative;boundary=c: {other}");
        for (name, body, strict, want) in [
            (
                "as it should be",
                mixed("b", &[text, (LIST, "L")]),
                true,
                Ok((vec![said.clone()], 1)),
            ),
            (
                "two",
                mixed("b", &[(LIST, "L"), text, (LIST, "M")]),
                true,
                Ok((vec![said.clone()], 2)),
            ),
            ("deep", mixed("b", &[nested]), true, Ok((vec![said.clone()], 1))),
            ("deeper", mixed("b", &[deeper]), true, Ok((vec![said.clone()], 1))),
            ("too many parts", mixed("b", &many), true, Err(400)),
            (
                "two parts",
                mixed("b", &[text, image, (LIST, "L")]),
                true,
                Ok((vec![said.clone(), "image/png: \u{1}--c\r\n".to_owned()], 1)),
            ),
            ("a choice", mixed("b", &[either, (LIST, "L")]), true, Ok((vec![as_is], 1))),
            (
                "no disposition",
                mixed("b", &[text, (bare, "L")]),
                false,
                Ok((vec![said.clone()], 1)),
            ),
            ("nothing said", mixed("b", &[(LIST, "L")]), false, Ok((vec![], 1))),
            (
                "a list that is said",
                mixed("b", &[(bare, "L"), (bare, "M"), (LIST, "N")]),
                false,
                Ok((
                    ["L", "M"].map(|l| format!("application/resource-lists+xml: {l}")).to_vec(),
                    1,
                )),
            ),
            (
                "of another type",
                mixed(
                    "b",
                    &[
                        text,
                        ("Content-Type: text/x\r\nContent-Disposition: recipient-list\r\n", "L"),
                    ],
                ),
                false,
                Err(415),
            ),
            (
                "packed",
                mixed(
                    "b",
                    &[text, (&format!("{LIST}Content-Transfer-Encoding: base64\r\n"), "TA==")],
                ),
                false,
                Err(415),
            ),
            ("cut", "--b\r\n\r\nx".to_owned(), false, Err(400)),
        ] {
            assert_eq!(sorted(MIXED, &body, strict), want, "{name}");
        }
        let whole = mixed("b", &[text, image]);
        let want = vec![format!("{MIXED}: {whole}")];
        assert_eq!(sorted(MIXED, &whole, true), Ok((want, 0)), "nothing was taken");
        assert_eq!(sorted("text/plain", "hi", true), Ok((vec!["text/plain: hi".to_owned()], 0)));
        assert_eq!(sorted("", "hi", true), Err(400));
        assert_eq!(read(Vec::new(), &Bytes::new(), true), Ok(MessageBody::default()));
        let untyped = read(Vec::new(), &Bytes::from_static(b"hi"), true);
        assert_eq!(untyped, Err(BodyRefusal::Unknown));
    }

    /// Part of UL-021 and UL-028.
    #[test]
    fn one_part_stands_alone() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let text = Piece {
            headers: vec![field("Content-Language", "en"), field("content-type", "text/plain")],
            body: Bytes::from_static(b"part0000"),
        };
        let (headers, body) = write(std::slice::from_ref(&text), None);
        assert_eq!(headers, [field("content-type", "text/plain"), field("Content-Language", "en")]);
        assert_eq!(body, "part0000");
        let (headers, body) = write(std::slice::from_ref(&text), Some("<list/>"));
        assert_eq!(headers, [field("Content-Type", "multipart/mixed;boundary=part0001")]);
        let body = String::from_utf8(body.to_vec()).expect("text");
        assert!(body.contains("Content-Disposition: recipient-list-history; handling=optional"));
        let (mut again, _) = sorted(&headers[0].1, &body, true).expect("it can be read");
        assert_eq!(again.pop().as_deref(), Some("text/plain: part0000"));
        assert!(again.is_empty(), "the history list is no content");
    }
}
