//! Changes of XCAP documents, as an XDMS tells its subscribers (RFC 5874, RFC 5875).
//!
//! Start at [`parse`] for what arrives and [`write()`] for what is sent. Selectors are kept relative to the root and in one
//! spelling ([`normal`]); whose document one names is known above. Patches are seen and never applied. XD-040, XD-041, with
//! the XML bounds of [`super::xml`].

use std::borrow::Cow;
use std::fmt::Write as _;

use roxmltree::{Document, Node};

use super::xml::{self, attribute, escape};

/// The namespace of the documents.
pub const NAMESPACE: &str = "urn:ietf:params:xml:ns:xcap-diff";
/// Their media type.
pub const MEDIA_TYPE: &str = "application/xcap-diff+xml";
/// The event package.
pub const PACKAGE: &str = "xcap-diff";
/// How long a subscription lasts where nobody said it, in seconds (RFC 5875 §4.5).
pub const DEFAULT_DURATION: u32 = 3600;
/// Most documents, elements and attributes one body may tell of.
pub const MAX_CHANGES: usize = 4096;
/// Longest selector, in octets as written.
pub const MAX_SELECTOR: usize = 2048;

const BOUNDS: xml::Bounds =
    xml::Bounds { bytes: 1024 * 1024, depth: 32, elements: 20_000, attributes: 64, text: 65_536 };

/// The body is refused; names the reason, never the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadDiff {
    /// No XML, or more of it than is read.
    #[error("{0}")]
    Xml(#[from] xml::BadXml),
    /// XML of another kind, or without what every such body must say.
    #[error("malformed xcap-diff: {0}")]
    Malformed(&'static str),
}

/// What happened to a document, with its entity tags as [`bare_tag`] gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is there: as the first thing told of it, or because it was created.
    Exists { etag: String },
    /// It is there and was another before.
    Changed { previous: String, etag: String },
    /// It is gone.
    Removed { previous: String },
    /// No tag at all: something happened, and only a look at it will tell.
    Unsaid,
}

/// What is told of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The document relative to the root, as [`normal`] spells it.
    pub document: String,
    pub fate: Fate,
    /// The body would say how to patch the old one.
    pub patched: bool,
}

/// What is told of one element or attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// The document it is in, as in [`Change`].
    pub document: String,
    /// The steps inside of the document, as written.
    pub steps: String,
    pub exists: bool,
}

/// One body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// The root the selectors are relative to, without trailing slash.
    pub root: String,
    /// In the order of the body.
    pub changes: Vec<Change>,
    pub nodes: Vec<NodeState>,
}

/// Reads one body.
///
/// XD-041 (RFC 5874 §3): by the tags a document is there, changed or removed; of nodes only whether they exist.
/// Elements and attributes that are not known are passed over.
///
/// # Errors
/// [`BadDiff`] for anything else than such a body, or one that tells more than [`MAX_CHANGES`] things.
pub fn parse(bytes: &[u8]) -> Result<Diff, BadDiff> {
    let bad = BadDiff::Malformed;
    // XD-047: UTF-8 alone.
    let Cow::Borrowed(text) = xml::decode(bytes)? else {
        return Err(BadDiff::Xml(xml::BadXml::Encoding));
    };
    xml::check(text, &BOUNDS)?;
    let document = Document::parse(text).map_err(|_| bad("not well-formed"))?;
    let top = document.root_element();
    if !top.has_tag_name((NAMESPACE, "xcap-diff")) {
        return Err(bad("the root is no xcap-diff"));
    }
    let root = attribute(top, None, "xcap-root").map(str::trim).filter(|root| !root.is_empty());
    let root = root.ok_or(bad("no xcap-root"))?.trim_end_matches('/').to_owned();
    let mut diff = Diff { root, ..Diff::default() };
    let ours = top.children().filter(|node| node.tag_name().namespace() == Some(NAMESPACE));
    for node in ours {
        match node.tag_name().name() {
            "document" => {
                let change = change(node, &diff.root)?;
                diff.changes.push(change);
            }
            "element" | "attribute" => {
                let state = node_state(node, &diff.root)?;
                diff.nodes.push(state);
            }
            _ => {}
        }
        if diff.changes.len() + diff.nodes.len() > MAX_CHANGES {
            return Err(bad("too many changes"));
        }
    }
    Ok(diff)
}

fn change(node: Node<'_, '_>, root: &str) -> Result<Change, BadDiff> {
    let bad = BadDiff::Malformed;
    let tag = |name| attribute(node, None, name).map(|tag| bare_tag(tag).to_owned());
    let fate = match (tag("previous-etag"), tag("new-etag")) {
        (None, Some(etag)) => Fate::Exists { etag },
        (Some(previous), Some(etag)) => Fate::Changed { previous, etag },
        (Some(previous), None) => Fate::Removed { previous },
        (None, None) => Fate::Unsaid,
    };
    let (document, steps) = selector(node, root)?;
    if steps.is_some() {
        return Err(bad("a document selected by a node"));
    }
    let patched = node.children().any(|child| {
        ["add", "replace", "remove"].iter().any(|name| child.has_tag_name((NAMESPACE, *name)))
    });
    Ok(Change { document, fate, patched })
}

fn node_state(node: Node<'_, '_>, root: &str) -> Result<NodeState, BadDiff> {
    let bad = BadDiff::Malformed;
    let exists = match attribute(node, None, "exists").map(str::trim) {
        None | Some("true" | "1") => true,
        Some("false" | "0") => false,
        Some(_) => return Err(bad("neither there nor gone")),
    };
    let (document, steps) = selector(node, root)?;
    let steps = steps.ok_or(bad("a node selected by a document"))?;
    Ok(NodeState { document, steps, exists })
}

/// The document and the steps inside of it that `sel` names.
fn selector(node: Node<'_, '_>, root: &str) -> Result<(String, Option<String>), BadDiff> {
    let bad = BadDiff::Malformed;
    let sel = attribute(node, None, "sel").ok_or(bad("nothing selected"))?;
    split(sel, root).ok_or(bad("an unreadable selector"))
}

/// A selector in one spelling, as the document relative to the root and the steps behind `/~~/`. An absolute one has to
/// lie below `root`.
fn split(sel: &str, root: &str) -> Option<(String, Option<String>)> {
    let sel = sel.trim();
    let sel = match sel.strip_prefix(root) {
        Some(below) if root.contains("://") && below.starts_with('/') => below,
        _ => sel,
    };
    let segments: Vec<&str> = sel.split('/').collect();
    // XD-004: the first segment of tildes, however it is escaped.
    match segments.iter().position(|segment| decoded(segment).is_some_and(|text| text == "~~")) {
        None => Some((normal(sel)?, None)),
        Some(at) if sel.len() <= MAX_SELECTOR => {
            Some((normal(&segments[..at].join("/"))?, Some(segments[at + 1..].join("/"))))
        }
        Some(_) => None,
    }
}

/// A document relative to the root in one spelling: no slash in front, needless percent-encoding undone, the needed one
/// in upper case.
///
/// XD-041, XD-002 (RFC 3986 §6.2.2). `None` for what can name no document: empty, too long, with empty or dot segments,
/// broken escapes, no UTF-8.
pub fn normal(path: &str) -> Option<String> {
    if path.len() > MAX_SELECTOR {
        return None;
    }
    let path = path.trim().trim_start_matches('/');
    let mut out = String::with_capacity(path.len());
    for segment in path.split('/') {
        let segment = decoded(segment)?;
        if segment.is_empty() || segment == "." || segment == ".." || segment.contains('\0') {
            return None;
        }
        if !out.is_empty() {
            out.push('/');
        }
        for byte in segment.bytes() {
            // RFC 3986 §3.3: a pchar.
            if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    Some(out)
}

fn decoded(segment: &str) -> Option<String> {
    let mut out = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut nibble = || {
            let digit = char::from(bytes.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let high = nibble()?;
        out.push((high << 4) | nibble()?);
    }
    String::from_utf8(out).ok()
}

/// An entity tag without the quotes HTTP has around it: bodies of this kind carry it bare.
pub fn bare_tag(tag: &str) -> &str {
    let tag = tag.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag)
}

/// Writes a body that tells of whole documents. `root` is an absolute URI, with or without trailing slash; each change is
/// written as its tags say, and never with a patch.
///
/// XD-041, XD-043 (RFC 5874 §3).
pub fn write<'a>(root: &str, changes: impl IntoIterator<Item = (&'a str, &'a Fate)>) -> String {
    let mut out = String::with_capacity(512);
    let _ = write!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<xcap-diff xmlns=\"{NAMESPACE}\" xcap-root=\"{}/\">\r\n",
        escape(root.trim_end_matches('/'))
    );
    for (document, fate) in changes {
        let _ = write!(out, "<document sel=\"{}\"", escape(document));
        let (previous, etag) = match fate {
            Fate::Exists { etag } => (None, Some(etag)),
            Fate::Changed { previous, etag } => (Some(previous), Some(etag)),
            Fate::Removed { previous } => (Some(previous), None),
            Fate::Unsaid => (None, None),
        };
        for (name, tag) in [("previous-etag", previous), ("new-etag", etag)] {
            if let Some(tag) = tag {
                let _ = write!(out, " {name}=\"{}\"", escape(bare_tag(tag)));
            }
        }
        out.push_str("/>\r\n");
    }
    out.push_str("</xcap-diff>\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEAM7: &str = "org.openmobilealliance.groups/global/byGroupID/sip:team7@groups.ims.test";
    const ALICE: &str = "resource-lists/users/sip:alice@ims.test/index";

    fn body(inside: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<xcap-diff xmlns=\"{NAMESPACE}\" \
             xcap-root=\"https://xcap.ims.test/services/\">{inside}</xcap-diff>"
        )
    }

    fn read(inside: &str) -> Diff {
        parse(body(inside).as_bytes()).unwrap()
    }

    fn one(inside: &str) -> Change {
        let mut diff = read(inside);
        assert_eq!(diff.changes.len(), 1, "{inside}");
        diff.changes.remove(0)
    }

    /// Proves XD-041.
    #[test]
    fn tags_say_what_happened() {
        let told = |tags: &str| one(&format!("<document sel='{TEAM7}' {tags}/>")).fate;
        let (a, b) = (|| "g7-0041".to_owned(), || "g7-0042".to_owned());
        assert_eq!(told("new-etag='g7-0042'"), Fate::Exists { etag: b() });
        assert_eq!(
            told("new-etag='g7-0042' previous-etag='g7-0041'"),
            Fate::Changed { previous: a(), etag: b() }
        );
        assert_eq!(told("previous-etag='g7-0041'"), Fate::Removed { previous: a() });
        assert_eq!(told(""), Fate::Unsaid);
        // Some write the tags as HTTP does.
        assert_eq!(told("new-etag='\"g7-0042\"'"), Fate::Exists { etag: b() });
        assert_eq!(told("new-etag='W/\"g7-0042\"'"), Fate::Exists { etag: b() });
        assert_eq!(told("new-etag=''"), Fate::Exists { etag: String::new() });
    }

    /// Proves XD-041.
    #[test]
    fn the_example_reads_as_told() {
        let diff = read(&format!(
            "<document sel=\"{TEAM7}\" previous-etag=\"g7-0041\" new-etag=\"g7-0042\"/>\
             <document sel=\"{ALICE}\" previous-etag=\"rl-9\"/>"
        ));
        assert_eq!(diff.root, "https://xcap.ims.test/services");
        let told: Vec<_> = diff.changes.iter().map(|change| change.document.as_str()).collect();
        assert_eq!(told, [TEAM7, ALICE]);
        assert_eq!(diff.changes[1].fate, Fate::Removed { previous: "rl-9".into() });
        assert!(diff.nodes.is_empty() && !diff.changes[0].patched);
    }

    /// Proves XD-041.
    #[test]
    fn selectors_are_compared_relative_to_the_root_and_in_one_spelling() {
        for sel in [
            TEAM7.to_owned(),
            format!("/{TEAM7}"),
            format!(" {TEAM7} "),
            TEAM7.replace('@', "%40"),
            TEAM7.replace(':', "%3a").replace("team", "%74eam"),
            format!("https://xcap.ims.test/services/{TEAM7}"),
        ] {
            assert_eq!(one(&format!("<document sel='{sel}'/>")).document, TEAM7, "{sel}");
        }
        // A root that is no URI is none of a selector's.
        let odd = body(&format!("<document sel='{ALICE}'/>"))
            .replace("https://xcap.ims.test/services/", "resource-lists");
        assert_eq!(parse(odd.as_bytes()).unwrap().changes[0].document, ALICE);
        assert_eq!(normal("a/users/x%2fy%20%c3%a9/i").as_deref(), Some("a/users/x%2Fy%20%C3%A9/i"));
        assert_eq!(normal("a/users/x y/\u{e9}").as_deref(), Some("a/users/x%20y/%C3%A9"));
        let long = "x".repeat(MAX_SELECTOR + 1);
        for bad in
            ["", "/", "a//b", "a/", "a/../b", "a/%2e/b", "a/%zz", "a/%4", "%ff", "%00", &long]
        {
            assert_eq!(normal(bad), None, "{bad}");
        }
    }

    /// Proves XD-041.
    #[test]
    fn nodes_are_there_or_gone() {
        let sel = format!("{ALICE}/~~/resource-lists/list%5b@name=%22x%22%5d");
        let diff = read(&format!(
            "<element sel='{sel}' exists='false'/><element sel='{sel}'><list xmlns='urn:x'/></element>\
             <attribute sel='{}' exists='0'/><attribute sel='{sel}/@name' exists=' true '>x</attribute>",
            format!("{sel}/@name").replace("~~", "%7E%7e")
        ));
        let told: Vec<_> =
            diff.nodes.iter().map(|node| (node.document.as_str(), node.exists)).collect();
        assert_eq!(told, [(ALICE, false), (ALICE, true), (ALICE, false), (ALICE, true)]);
        assert_eq!(diff.nodes[0].steps, "resource-lists/list%5b@name=%22x%22%5d");
        assert!(diff.changes.is_empty());
    }

    /// Proves XD-041.
    #[test]
    fn patches_are_seen_and_stay_where_they_are() {
        for patch in [
            "<add sel='*'><entry uri='sip:a@b'/></add>",
            "<replace sel='*/@x'>y</replace>",
            "<remove sel='*/z'/>",
        ] {
            let change = one(&format!(
                "<document sel='{ALICE}' previous-etag='1' new-etag='2'>{patch}</document>"
            ));
            assert!(change.patched, "{patch}");
            assert_eq!(change.fate, Fate::Changed { previous: "1".into(), etag: "2".into() });
        }
        for other in ["<body-not-changed/>", "<add xmlns='urn:x'/>", "text", "<!-- <add/> -->"] {
            let change = one(&format!("<document sel='{ALICE}' new-etag='2'>{other}</document>"));
            assert!(!change.patched, "{other}");
        }
        // What is not known is passed over, at any depth.
        assert_eq!(
            read(
                "<x xmlns='urn:x'><document xmlns='urn:ietf:params:xml:ns:xcap-diff'/></x><other/>"
            )
            .changes,
            []
        );
    }

    /// Proves XD-047.
    #[test]
    fn what_is_no_such_body_is_refused() {
        let many = format!("<document sel='{ALICE}'/>").repeat(MAX_CHANGES + 1);
        let deep = format!("{}{}", "<a>".repeat(40), "</a>".repeat(40));
        let wide: Vec<u8> = body("").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut laughs = String::from("<!DOCTYPE r [<!ENTITY a \"lol\">");
        (0..9).for_each(|_| laughs += "<!ENTITY b \"&a;&a;&a;&a;\">");
        laughs = laughs + "]>" + &body("");
        let bomb = vec![b' '; BOUNDS.bytes + 1];
        for (text, why) in [
            (b"no XML".as_slice(), "no XML"),
            (b"", "nothing"),
            (&wide, "UTF-16"),
            (&bomb, "too large"),
            (laughs.as_bytes(), "a DTD"),
            (body("").replace("xcap-root", "root").as_bytes(), "no root"),
            (body("").replace(NAMESPACE, "urn:x").as_bytes(), "another namespace"),
            (body("<document new-etag='1'/>").as_bytes(), "no selector"),
            (body("<document sel=''/>").as_bytes(), "an empty selector"),
            (body("<document sel='a/%zz'/>").as_bytes(), "a broken escape"),
            (body("<document sel='a/~~/b'/>").as_bytes(), "a document by a node"),
            (body("<document sel='a' sel='b'/>").as_bytes(), "a duplicate attribute"),
            (body("<element sel='a/b'/>").as_bytes(), "a node by a document"),
            (body("<element sel='a/~~/b' exists='maybe'/>").as_bytes(), "neither"),
            (body("<document sel='a'>").as_bytes(), "not balanced"),
            (body(&many).as_bytes(), "too many changes"),
            (body(&deep).as_bytes(), "too deep"),
        ] {
            assert!(parse(text).is_err(), "{why}");
        }
    }

    /// Proves XD-043.
    #[test]
    fn what_is_written_reads_back() {
        let fates = [
            Fate::Exists { etag: "\"a<&\"".into() },
            Fate::Changed { previous: "1".into(), etag: "2".into() },
            Fate::Removed { previous: "3".into() },
            Fate::Unsaid,
        ];
        let documents = [TEAM7, ALICE, "a/users/x&y/i", "a/global/i"];
        let text = write("https://h/r/", documents.into_iter().zip(&fates));
        assert!(text.contains("xcap-root=\"https://h/r/\""), "{text}");
        let diff = parse(text.as_bytes()).unwrap();
        let told: Vec<_> = diff.changes.iter().map(|change| change.document.as_str()).collect();
        assert_eq!(told, documents);
        assert_eq!(diff.changes[0].fate, Fate::Exists { etag: "a<&".into() });
        let rest: Vec<_> = diff.changes[1..].iter().map(|change| change.fate.clone()).collect();
        assert_eq!(rest, fates[1..]);
        assert_eq!(parse(write("http://h", []).as_bytes()).unwrap().changes, []);
    }

    /// Cut or changed anywhere, a body is read or refused.
    #[test]
    fn whatever_comes_is_read_or_refused() {
        let good = body(&format!(
            "<document sel='{TEAM7}' new-etag='1'><add sel='*'/></document><element sel='{ALICE}/~~/a' exists='0'/>"
        ));
        for at in 0..good.len() {
            drop(parse(&good.as_bytes()[..at]));
            for octet in [0, b'<', b'"', b'%', b'/', 0xff] {
                let mut changed = good.clone().into_bytes();
                changed[at] = octet;
                if let Ok(diff) = parse(&changed) {
                    assert!(diff.changes.len() + diff.nodes.len() <= 2);
                }
            }
        }
    }
}
