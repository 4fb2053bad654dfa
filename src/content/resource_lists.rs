//! Recipient lists: what a request asks us to reach, and the history list recipients see (RFC 4826, RFC 5364, RFC 5366).
//!
//! Start at [`parse`], then [`merge`] with the caller's idea of equal URIs, then [`history`] for what goes out.
//! Follows UL-009 to UL-012 and UL-017 to UL-023. Never follows a reference: `entry-ref` and `external` are counted and
//! left alone (no fetch, so nothing to aim at a third party).

use std::collections::HashMap;

use roxmltree::{Document, Node};

use super::xml::{self, BadXml, Bounds, escape};

const LISTS: &str = "urn:ietf:params:xml:ns:resource-lists";
const COPY_CONTROL: &str = "urn:ietf:params:xml:ns:copycontrol";
/// Seen in an example of RFC 5366 and in clients made after it (UL-018).
const COPY_CONTROL_CAMEL: &str = "urn:ietf:params:xml:ns:copyControl";
/// Stands for everybody who is not to be seen (RFC 5364 §4).
const ANONYMOUS: &str = "sip:anonymous@anonymous.invalid";

/// What a list may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `ul.max_bytes`: octets of one list part (UL-020).
    pub max_bytes: usize,
    /// `ul.require_strict`: attributes outside their namespace do not count (UL-018).
    pub strict: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 65_536, strict: false }
    }
}

/// How a recipient is named to the others (RFC 5364 §4). Ordered: to is more than cc, cc more than bcc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Copy {
    /// Named to nobody.
    Bcc,
    /// A copy.
    Cc,
    /// Addressed.
    To,
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The URI as written, without white space around it.
    pub uri: String,
    /// Absent or unknown means bcc (UL-019).
    pub copy: Copy,
    /// The entry said how it is to be copied.
    pub tagged: bool,
    /// The others must not learn of this one.
    pub anonymize: bool,
}

/// What a list holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// All entries in document order, duplicates included.
    pub entries: Vec<Entry>,
    /// References that were not followed (UL-009), for the log.
    pub references: usize,
}

/// Why a list is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    /// 413: more octets than `ul.max_bytes`.
    #[error("the recipient list is too large")]
    TooLarge,
    /// 400: no recipient list.
    #[error("the recipient list is broken: {0}")]
    Malformed(&'static str),
}

impl BadList {
    /// The SIP status of the answer (UL-036).
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::Malformed(_) => 400,
        }
    }
}

impl From<BadXml> for BadList {
    fn from(bad: BadXml) -> Self {
        match bad {
            BadXml::TooLarge => Self::TooLarge,
            BadXml::Encoding => Self::Malformed("encoding"),
            BadXml::Malformed(what) => Self::Malformed(what),
        }
    }
}

/// Reads one list part.
///
/// UL-009, UL-017, UL-018, UL-019: every `entry` inside a `list`, nested lists flattened, in document order; unknown
/// elements and attributes ignored; any prefix; no DTD, at most 16 levels.
///
/// # Errors
/// [`BadList`] by size, for anything XML forbids, or another root element.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Vec<Entry>, BadList> {
    read(bytes, limits).map(|list| list.entries)
}

/// As [`parse`], and counts the references that were left alone.
///
/// # Errors
/// As [`parse`].
pub fn read(bytes: &[u8], limits: &Limits) -> Result<List, BadList> {
    if bytes.len() > limits.max_bytes {
        return Err(BadList::TooLarge);
    }
    let text = xml::decode(bytes)?;
    let bounds = Bounds {
        bytes: usize::MAX, // the size that counts is that of the octets received
        depth: 16,
        elements: 20_000,
        attributes: 64,
        text: limits.max_bytes,
    };
    xml::check(&text, &bounds)?;
    let document = Document::parse(&text).map_err(|_| BadList::Malformed("not well-formed"))?;
    let root = document.root_element();
    if !root.has_tag_name((LISTS, "resource-lists")) {
        return Err(BadList::Malformed("the root is no resource-lists"));
    }
    let mut list = List::default();
    for child in root.children().filter(|n| n.has_tag_name((LISTS, "list"))) {
        collect(child, limits.strict, &mut list);
    }
    Ok(list)
}

/// Depth is bounded by [`xml::check`].
fn collect(list: Node<'_, '_>, strict: bool, found: &mut List) {
    for node in list.children().filter(Node::is_element) {
        if node.tag_name().namespace() != Some(LISTS) {
            continue;
        }
        match node.tag_name().name() {
            "list" => collect(node, strict, found),
            "entry" => found.entries.extend(entry(node, strict)),
            "entry-ref" | "external" => found.references += 1,
            _ => {}
        }
    }
}

fn entry(node: Node<'_, '_>, strict: bool) -> Option<Entry> {
    let uri = xml::attribute(node, None, "uri").map(str::trim).filter(|uri| !uri.is_empty())?;
    let attribute = |name: &str| {
        xml::attribute(node, Some(COPY_CONTROL), name)
            .or_else(|| xml::attribute(node, Some(COPY_CONTROL_CAMEL), name))
            .or_else(|| if strict { None } else { xml::attribute(node, None, name) })
            .map(str::trim)
    };
    let copy = attribute("copyControl");
    Some(Entry {
        uri: uri.to_owned(),
        // UL-019: absent and unknown are bcc.
        copy: match copy {
            Some("to") => Copy::To,
            Some("cc") => Copy::Cc,
            _ => Copy::Bcc,
        },
        tagged: copy.is_some(),
        // UL-019; what is neither true nor false hides rather than shows.
        anonymize: !matches!(attribute("anonymize"), None | Some("false" | "0")),
    })
}

/// A flat list of URIs, nothing but entries: what a subscription to documents asks for.
///
/// XD-040 (RFC 5875 §4.4).
pub fn flat<'a>(uris: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<resource-lists xmlns=\"{LISTS}\">\r\n<list>\r\n"
    );
    for uri in uris {
        out.push_str("<entry uri=\"");
        out.push_str(&escape(uri));
        out.push_str("\"/>\r\n");
    }
    out.push_str("</list>\r\n</resource-lists>\r\n");
    out
}

/// One entry for each URI, in the order of first appearance. `key` gives equal keys to equal URIs (UL-011).
///
/// UL-010, UL-012: the strongest copyControl wins, and one `anonymize` is enough.
pub fn merge(entries: Vec<Entry>, mut key: impl FnMut(&str) -> String) -> Vec<Entry> {
    let mut place: HashMap<String, usize> = HashMap::with_capacity(entries.len());
    let mut merged: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let at = *place.entry(key(&entry.uri)).or_insert(merged.len());
        match merged.get_mut(at) {
            Some(first) => {
                first.copy = first.copy.max(entry.copy);
                first.tagged |= entry.tagged;
                first.anonymize |= entry.anonymize;
            }
            None => merged.push(entry),
        }
    }
    merged
}

/// `ul.bcc_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BccMode {
    /// No bcc URI in any history list.
    #[default]
    Remove,
    /// Each bcc recipient sees its own URI, tagged bcc.
    KeepOwn,
}

/// The history list for one recipient, or `None` when there is nothing to show. `entries` are merged; `own` is the
/// recipient's URI as it stands in them.
///
/// UL-021, UL-022, UL-023 (RFC 5364 §4): to and cc as they are, the anonymised ones as one entry with a count; no
/// header part, no other attribute.
pub fn history(entries: &[Entry], bcc: BccMode, own: Option<&str>) -> Option<String> {
    if entries.iter().all(|e| e.copy == Copy::Bcc) {
        return None;
    }
    let mut out = String::with_capacity(256 + entries.len() * 80);
    out.push_str(concat!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n",
        "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"",
        " xmlns:cp=\"urn:ietf:params:xml:ns:copycontrol\">\r\n<list>\r\n",
    ));
    for (copy, word) in [(Copy::To, "to"), (Copy::Cc, "cc")] {
        let mut hidden = 0usize;
        for entry in entries.iter().filter(|e| e.copy == copy) {
            if entry.anonymize {
                hidden += 1;
            } else {
                put(&mut out, bare(&entry.uri), word, None);
            }
        }
        if hidden > 0 {
            put(&mut out, ANONYMOUS, word, Some(hidden));
        }
    }
    if let (BccMode::KeepOwn, Some(own)) = (bcc, own)
        && let Some(entry) = entries.iter().find(|e| e.copy == Copy::Bcc && e.uri == own)
    {
        put(&mut out, bare(&entry.uri), "bcc", None);
    }
    out.push_str("</list>\r\n</resource-lists>\r\n");
    Some(out)
}

/// The URI without the header fields it asked for.
fn bare(uri: &str) -> &str {
    uri.split('?').next().unwrap_or(uri)
}

fn put(out: &mut String, uri: &str, copy: &str, count: Option<usize>) {
    out.push_str("<entry uri=\"");
    out.push_str(&escape(uri));
    out.push_str("\" cp:copyControl=\"");
    out.push_str(copy);
    if let Some(count) = count {
        out.push_str("\" cp:count=\"");
        out.push_str(&count.to_string());
    }
    out.push_str("\"/>\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<resource-lists \
        xmlns=\"urn:ietf:params:xml:ns:resource-lists\" \
        xmlns:cp=\"urn:ietf:params:xml:ns:copycontrol\">";

    fn doc(inside: &str) -> String {
        format!("{HEAD}<list>{inside}</list></resource-lists>")
    }

    fn uris(text: &str) -> Vec<String> {
        parse(text.as_bytes(), &Limits::default()).unwrap().into_iter().map(|e| e.uri).collect()
    }

    /// A stand-in for the real comparison: hosts have no case.
    fn key(uri: &str) -> String {
        match uri.split_once('@') {
            Some((user, host)) => format!("{user}@{}", host.to_ascii_lowercase()),
            None => uri.to_owned(),
        }
    }

    /// Proves UL-009.
    #[test]
    fn every_entry_inside_a_list_counts_in_document_order() {
        let text = doc(
            "<display-name xml:lang='en'>x</display-name><entry uri='sip:a@h'><display-name>A</display-name></entry>\
             <list name='n'><entry uri=' sip:b@h '/><list><entry uri='sip:c@h' x='y'/></list></list>\
             <external anchor='http://169.254.169.254/'/><entry-ref ref='resource-lists/users/x'/>\
             <other xmlns='urn:x'><entry uri='sip:hidden@h'/></other><entry xmlns='urn:x' uri='sip:no@h'/>\
             <entry/><entry uri=''/><entry uri='sip:d@h'/>",
        );
        assert_eq!(uris(&text), ["sip:a@h", "sip:b@h", "sip:c@h", "sip:d@h"]);
        assert_eq!(read(text.as_bytes(), &Limits::default()).unwrap().references, 2);
        let two = format!(
            "{HEAD}<list><entry uri='sip:a@h'/></list><entry uri='sip:x@h'/><list><entry uri='sip:b@h'/></list></resource-lists>"
        );
        assert_eq!(uris(&two), ["sip:a@h", "sip:b@h"]);
    }

    /// Proves XD-040.
    #[test]
    fn a_flat_list_reads_back() {
        let wanted = ["a/global/b/sip:x@h", "a/users/sip:a&<\">@h/index"];
        let text = flat(wanted);
        let list = read(text.as_bytes(), &Limits::default()).unwrap();
        let uris: Vec<_> = list.entries.iter().map(|entry| entry.uri.as_str()).collect();
        assert_eq!((uris.as_slice(), list.references), (wanted.as_slice(), 0));
        assert!(!text.contains("copyControl"), "{text}");
        assert!(read(flat([]).as_bytes(), &Limits::default()).unwrap().entries.is_empty());
    }

    /// Proves UL-017.
    #[test]
    fn hostile_xml_is_refused_quickly_and_without_echo() {
        let mut laughs = String::from("<?xml version=\"1.0\"?><!DOCTYPE r [<!ENTITY l0 \"lol\">");
        for n in 1..10 {
            laughs += &format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10));
        }
        laughs += "]><resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list>&l9;</list></resource-lists>";
        let deep = |n: usize| {
            format!(
                "{HEAD}{}<entry uri='sip:a@h'/>{}</resource-lists>",
                "<list>".repeat(n),
                "</list>".repeat(n)
            )
        };
        let bomb = format!("{HEAD}{}", "<list>".repeat(9_000));
        let cases: &[(&str, &str, bool)] = &[
            ("billion laughs", &laughs, false),
            (
                "empty doctype",
                "<!DOCTYPE resource-lists><resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"/>",
                false,
            ),
            (
                "external entity",
                "<!DOCTYPE r [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><r>&x;</r>",
                false,
            ),
            ("unknown entity", &doc("<entry uri='sip:a&nbsp;@h'/>"), false),
            ("16 levels", &deep(14), true),
            ("17 levels", &deep(15), false),
            ("9000 open elements", &bomb, false),
            ("two attributes of one name", &doc("<entry uri='sip:a@h' uri='sip:b@h'/>"), false),
            ("not closed", &format!("{HEAD}<list>"), false),
            ("NUL", &doc("<entry uri='sip:a\u{0}@h'/>"), false),
            ("another root", "<list xmlns=\"urn:ietf:params:xml:ns:resource-lists\"/>", false),
            (
                "no namespace",
                "<resource-lists><list><entry uri='sip:a@h'/></list></resource-lists>",
                false,
            ),
            ("nothing", "", false),
            ("predefined entities", &doc("<entry uri='sip:a&amp;&#x62;@h'/>"), true),
        ];
        for (name, text, fits) in cases {
            let got = parse(text.as_bytes(), &Limits::default());
            assert_eq!(got.is_ok(), *fits, "{name}");
            if let Err(bad) = got {
                assert_eq!(bad.status(), 400, "{name}");
                assert!(!bad.to_string().contains("passwd") && !bad.to_string().contains("lol"));
            }
        }
        let wide: Vec<u8> = std::iter::once(0xfeff)
            .chain(doc("<entry uri='sip:\u{e9}@h'/>").replace("UTF-8", "UTF-16").encode_utf16())
            .flat_map(u16::to_be_bytes)
            .collect();
        assert_eq!(parse(&wide, &Limits::default()).unwrap()[0].uri, "sip:\u{e9}@h");
    }

    #[test]
    fn a_list_has_a_size_limit() {
        let limits = Limits { max_bytes: 200, strict: false };
        let text = doc(&"<entry uri='sip:a@h'/>".repeat(3));
        assert_eq!(parse(text.as_bytes(), &limits), Err(BadList::TooLarge));
        assert_eq!(BadList::TooLarge.status(), 413);
    }

    /// Proves UL-018, UL-019.
    #[test]
    fn attributes_count_in_their_namespaces_and_have_defaults() {
        let with = |ns: &str, attrs: &str| {
            format!(
                "<l:resource-lists xmlns:l=\"{LISTS}\" xmlns:z=\"{ns}\"><l:list>\
                 <l:entry uri='sip:a@h' {attrs}/></l:list></l:resource-lists>"
            )
        };
        let cases: &[(&str, String, bool, Copy, bool, bool)] = &[
            (
                "lower case",
                with(COPY_CONTROL, "z:copyControl='to' z:anonymize='true'"),
                true,
                Copy::To,
                true,
                true,
            ),
            (
                "as in the example",
                with(COPY_CONTROL_CAMEL, "z:copyControl='to' z:anonymize='true'"),
                true,
                Copy::To,
                true,
                true,
            ),
            ("none", with(COPY_CONTROL, ""), true, Copy::Bcc, false, false),
            (
                "unknown value",
                with(COPY_CONTROL, "z:copyControl='fcc'"),
                true,
                Copy::Bcc,
                true,
                false,
            ),
            (
                "no namespace",
                with(COPY_CONTROL, "copyControl='cc' anonymize='1'"),
                false,
                Copy::Cc,
                true,
                true,
            ),
            (
                "no namespace, strict",
                with(COPY_CONTROL, "copyControl='cc' anonymize='1'"),
                true,
                Copy::Bcc,
                false,
                false,
            ),
            (
                "foreign namespace",
                with("urn:x", "z:copyControl='to'"),
                false,
                Copy::Bcc,
                false,
                false,
            ),
            (
                "count is ignored",
                with(COPY_CONTROL, "z:copyControl='cc' z:count='7'"),
                true,
                Copy::Cc,
                true,
                false,
            ),
            ("anonymize 0", with(COPY_CONTROL, "z:anonymize='0'"), true, Copy::Bcc, false, false),
            (
                "anonymize false",
                with(COPY_CONTROL, "z:anonymize='false'"),
                true,
                Copy::Bcc,
                false,
                false,
            ),
            ("anonymize 1", with(COPY_CONTROL, "z:anonymize='1'"), true, Copy::Bcc, false, true),
        ];
        for (name, text, strict, copy, tagged, anonymize) in cases {
            let limits = Limits { max_bytes: 65_536, strict: *strict };
            let got = parse(text.as_bytes(), &limits).unwrap();
            let want = Entry {
                uri: "sip:a@h".into(),
                copy: *copy,
                tagged: *tagged,
                anonymize: *anonymize,
            };
            assert_eq!(got, [want], "{name}");
        }
    }

    fn vector() -> Vec<Entry> {
        let text = doc("<entry uri='sip:bill@example.com' cp:copyControl='to'/>\
             <entry uri='sip:randy@example.net' cp:copyControl='to' cp:anonymize='true'/>\
             <entry uri='sip:eddy@example.com' cp:copyControl='to' cp:anonymize='true'/>\
             <entry uri='sip:joe@example.org' cp:copyControl='cc'/>\
             <entry uri='sip:carol@example.net' cp:copyControl='cc' cp:anonymize='true'/>\
             <entry uri='sip:ted@example.net' cp:copyControl='bcc'/>\
             <entry uri='sip:andy@example.com'/>\
             <entry uri='sip:bill@EXAMPLE.com' cp:copyControl='cc'/>");
        merge(parse(text.as_bytes(), &Limits::default()).unwrap(), key)
    }

    /// What a list says: URI, copyControl, count, in order; anything else in it is an error.
    fn said(xml: &str) -> Vec<(String, String, Option<String>)> {
        let document = Document::parse(xml).unwrap();
        let root = document.root_element();
        assert!(root.has_tag_name((LISTS, "resource-lists")));
        let list = root.first_element_child().unwrap();
        assert!(list.has_tag_name((LISTS, "list")) && list.next_sibling_element().is_none());
        let mut said = Vec::new();
        for entry in list.children().filter(Node::is_element) {
            assert!(entry.has_tag_name((LISTS, "entry")));
            let mut copy = None;
            let mut count = None;
            let mut uri = None;
            for a in entry.attributes() {
                match (a.namespace(), a.name()) {
                    (None, "uri") => uri = Some(a.value().to_owned()),
                    (Some(COPY_CONTROL), "copyControl") => copy = Some(a.value().to_owned()),
                    (Some(COPY_CONTROL), "count") => count = Some(a.value().to_owned()),
                    other => panic!("{other:?}"),
                }
            }
            said.push((uri.unwrap(), copy.unwrap(), count));
        }
        said
    }

    fn row(uri: &str, copy: &str, count: Option<&str>) -> (String, String, Option<String>) {
        (uri.to_owned(), copy.to_owned(), count.map(str::to_owned))
    }

    /// Proves UL-010, UL-012, UL-022, UL-023.
    #[test]
    fn the_vector_of_the_rules_comes_out() {
        let entries = vector();
        assert_eq!(entries.len(), 7, "seven requests go out, bill once");
        assert_eq!(entries[0].copy, Copy::To, "the strongest copyControl of a duplicate wins");
        let common = [
            row("sip:bill@example.com", "to", None),
            row(ANONYMOUS, "to", Some("2")),
            row("sip:joe@example.org", "cc", None),
            row(ANONYMOUS, "cc", Some("1")),
        ];
        for own in entries.iter().map(|e| e.uri.as_str()) {
            let xml = history(&entries, BccMode::Remove, Some(own)).unwrap();
            assert_eq!(said(&xml), common, "remove, for {own}");
            let mut want = common.to_vec();
            if ["sip:ted@example.net", "sip:andy@example.com"].contains(&own) {
                want.push(row(own, "bcc", None));
            }
            let xml = history(&entries, BccMode::KeepOwn, Some(own)).unwrap();
            assert_eq!(said(&xml), want, "keep_own, for {own}");
        }
    }

    /// Proves UL-012.
    #[test]
    fn duplicates_take_the_strongest_copy_and_any_anonymity() {
        let entry =
            |copy, anonymize| Entry { uri: "sip:a@h".into(), copy, tagged: true, anonymize };
        let cases = [
            (vec![entry(Copy::Bcc, false), entry(Copy::To, false)], entry(Copy::To, false)),
            (vec![entry(Copy::To, false), entry(Copy::Bcc, true)], entry(Copy::To, true)),
            (vec![entry(Copy::Bcc, false), entry(Copy::Cc, false)], entry(Copy::Cc, false)),
        ];
        for (entries, want) in cases {
            assert_eq!(merge(entries, key), [want]);
        }
    }

    #[test]
    fn a_list_of_bcc_alone_has_no_history() {
        let text = doc("<entry uri='sip:a@h' cp:copyControl='bcc'/><entry uri='sip:b@h'/>");
        let entries = parse(text.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(history(&entries, BccMode::Remove, Some("sip:a@h")), None);
        assert_eq!(history(&entries, BccMode::KeepOwn, Some("sip:a@h")), None);
        assert_eq!(history(&[], BccMode::Remove, None), None);
    }

    #[test]
    fn a_bcc_entry_that_asked_for_anonymity_is_still_only_bcc() {
        let text = doc(
            "<entry uri='sip:a@h' cp:copyControl='to'/><entry uri='sip:b@h' cp:copyControl='bcc' cp:anonymize='true'/>",
        );
        let entries = parse(text.as_bytes(), &Limits::default()).unwrap();
        let xml = history(&entries, BccMode::Remove, Some("sip:b@h")).unwrap();
        assert_eq!(said(&xml), [row("sip:a@h", "to", None)]);
    }

    #[test]
    fn what_is_written_cannot_break_out_of_its_attribute() {
        let entry = Entry {
            uri: "sip:\"/><x a='&@h?Route=%3Csip:x%3E".into(),
            copy: Copy::To,
            tagged: true,
            anonymize: false,
        };
        let xml = history(&[entry], BccMode::Remove, None).unwrap();
        assert_eq!(said(&xml), [row("sip:\"/><x a='&@h", "to", None)]);
    }
}
