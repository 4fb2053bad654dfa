//! What a server says is wrong with a write: `application/xcap-error+xml` (RFC 4825 §11).
//!
//! Start at [`Conflict::read`]. XD-011.

use std::fmt;

use roxmltree::Node;

use crate::content::xml::{self, Bounds, attribute};

const NAMESPACE: &str = "urn:ietf:params:xml:ns:xcap-error";
const TYPE: &str = "application/xcap-error+xml";
const BOUNDS: Bounds =
    Bounds { bytes: 64 * 1024, depth: 16, elements: 256, attributes: 16, text: 4096 };
/// Alternatives that are kept.
const MOST_ALTERNATIVES: usize = 16;

/// The condition of a 409.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    NotWellFormed,
    NotXmlFrag,
    NotXmlAttValue,
    NotUtf8,
    /// The URI of the closest node that is there, where the server names it.
    NoParent(Option<String>),
    CannotInsert,
    CannotDelete,
    SchemaValidation,
    Uniqueness(Vec<Exists>),
    Constraint,
    /// None that we understand, or none at all.
    Plain,
}

/// One value that is used already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exists {
    /// Where it stands, as a node selector.
    pub field: String,
    /// Values that are free.
    pub alternatives: Vec<String>,
}

/// A condition and the server's words about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub condition: Condition,
    /// Printable characters only.
    pub phrase: Option<String>,
}

impl Conflict {
    /// Reads the body of a 409. XD-011: what is missing or not understood is a plain 409.
    pub fn read(content_type: Option<&str>, body: &[u8]) -> Self {
        let plain = Self { condition: Condition::Plain, phrase: None };
        if !content_type.is_some_and(|given| super::is_type(given, TYPE)) {
            return plain;
        }
        let Ok(text) = xml::decode(body) else { return plain };
        if xml::check(&text, &BOUNDS).is_err() {
            return plain;
        }
        let Ok(document) = roxmltree::Document::parse(&text) else { return plain };
        let root = document.root_element();
        let mut children = root.children().filter(Node::is_element);
        match (is(root, "xcap-error"), children.next(), children.next()) {
            (true, Some(only), None) if only.tag_name().namespace() == Some(NAMESPACE) => {
                match condition(only) {
                    Some(condition) => Self { condition, phrase: phrase(only) },
                    None => plain,
                }
            }
            _ => plain,
        }
    }

    /// What whoever wrote should do (table 2.1 of the XDM rules).
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self.condition {
            Condition::NoParent(_) => "create what is above it first",
            Condition::CannotInsert => "read the document again and name the place anew",
            Condition::CannotDelete => "use a selector that names the node uniquely",
            Condition::SchemaValidation => "the server knows another version of the schema",
            _ => return None,
        })
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.condition {
            Condition::NotWellFormed => "not-well-formed",
            Condition::NotXmlFrag => "not-xml-frag",
            Condition::NotXmlAttValue => "not-xml-att-value",
            Condition::NotUtf8 => "not-utf-8",
            Condition::NoParent(_) => "no-parent",
            Condition::CannotInsert => "cannot-insert",
            Condition::CannotDelete => "cannot-delete",
            Condition::SchemaValidation => "schema-validation-error",
            Condition::Uniqueness(_) => "uniqueness-failure",
            Condition::Constraint => "constraint-failure",
            Condition::Plain => "conflict",
        };
        f.write_str(self.phrase.as_deref().unwrap_or(name))?;
        match &self.condition {
            Condition::NoParent(Some(ancestor)) => write!(f, "; the closest there is: {ancestor}")?,
            Condition::Uniqueness(exists) => {
                // Its first alternative is the one to offer.
                if let Some(free) = exists.iter().find_map(|one| one.alternatives.first()) {
                    write!(f, "; free: {free}")?;
                }
            }
            _ => {}
        }
        self.advice().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

fn condition(node: Node<'_, '_>) -> Option<Condition> {
    Some(match node.tag_name().name() {
        "not-well-formed" => Condition::NotWellFormed,
        "not-xml-frag" => Condition::NotXmlFrag,
        "not-xml-att-value" => Condition::NotXmlAttValue,
        "not-utf-8" => Condition::NotUtf8,
        "no-parent" => {
            let ancestor = node.children().find(|child| is(*child, "ancestor"));
            Condition::NoParent(ancestor.and_then(|child| child.text()).map(printable))
        }
        "cannot-insert" => Condition::CannotInsert,
        "cannot-delete" => Condition::CannotDelete,
        "schema-validation-error" => Condition::SchemaValidation,
        "uniqueness-failure" => {
            let exists = node.children().filter(|child| is(*child, "exists"));
            Condition::Uniqueness(exists.map(exist).collect())
        }
        "constraint-failure" => Condition::Constraint,
        _ => return None,
    })
}

fn exist(node: Node<'_, '_>) -> Exists {
    let free = node.children().filter(|child| is(*child, "alt-value"));
    Exists {
        field: printable(attribute(node, None, "field").unwrap_or_default()),
        alternatives: free
            .filter_map(|child| child.text())
            .map(printable)
            .take(MOST_ALTERNATIVES)
            .collect(),
    }
}

fn phrase(node: Node<'_, '_>) -> Option<String> {
    attribute(node, None, "phrase").map(printable).filter(|phrase| !phrase.is_empty())
}

/// A peer's words, fit for a terminal and a log line.
fn printable(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(256).collect()
}

fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element()
        && node.tag_name().namespace() == Some(NAMESPACE)
        && node.tag_name().name() == name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(child: &str) -> Conflict {
        let body = format!(
            "<?xml version=\"1.0\"?><e:xcap-error xmlns:e=\"{NAMESPACE}\">{child}</e:xcap-error>"
        );
        Conflict::read(Some("application/xcap-error+xml; charset=UTF-8"), body.as_bytes())
    }

    /// Each child of table 2.1, with a phrase and without. Proves XD-011.
    #[test]
    fn every_condition_is_read() {
        let free = |alternatives: &[&str]| {
            Condition::Uniqueness(vec![Exists {
                field: "group/list-service/@uri".into(),
                alternatives: alternatives.iter().map(|one| (*one).to_owned()).collect(),
            }])
        };
        let cases: Vec<(&str, &str, Condition)> = vec![
            ("not-well-formed", "", Condition::NotWellFormed),
            ("not-xml-frag", "", Condition::NotXmlFrag),
            ("not-xml-att-value", "", Condition::NotXmlAttValue),
            ("not-utf-8", "", Condition::NotUtf8),
            ("no-parent", "", Condition::NoParent(None)),
            (
                "no-parent",
                "<e:ancestor>index/~~/resource-lists</e:ancestor>",
                Condition::NoParent(Some("index/~~/resource-lists".into())),
            ),
            ("cannot-insert", "", Condition::CannotInsert),
            ("cannot-delete", "", Condition::CannotDelete),
            ("schema-validation-error", "", Condition::SchemaValidation),
            ("uniqueness-failure", "<e:exists field=\"group/list-service/@uri\"/>", free(&[])),
            (
                "uniqueness-failure",
                "<e:exists field=\"group/list-service/@uri\"><e:alt-value>sip:t-2@g</e:alt-value>\
                 <e:alt-value>sip:t-b@g</e:alt-value></e:exists>",
                free(&["sip:t-2@g", "sip:t-b@g"]),
            ),
            ("constraint-failure", "", Condition::Constraint),
        ];
        for (name, inside, condition) in cases {
            let bare = read(&format!("<e:{name}>{inside}</e:{name}>"));
            assert_eq!(bare, Conflict { condition: condition.clone(), phrase: None }, "{name}");
            let with = read(&format!("<e:{name} phrase=\" No\u{85} way \">{inside}</e:{name}>"));
            assert_eq!(with, Conflict { condition, phrase: Some("No way".into()) }, "{name}");
        }
        let taken = read(
            "<e:uniqueness-failure phrase=\"In use\"><e:exists field=\"f\">\
             <e:alt-value>sip:t-2@g</e:alt-value></e:exists></e:uniqueness-failure>",
        );
        assert_eq!(taken.to_string(), "In use; free: sip:t-2@g");
        let above = read("<e:no-parent><e:ancestor>a/b</e:ancestor></e:no-parent>");
        assert_eq!(
            above.to_string(),
            "no-parent; the closest there is: a/b; create what is above it first"
        );
    }

    /// Proves XD-011.
    #[test]
    fn what_is_not_understood_is_a_plain_conflict() {
        let plain = Conflict { condition: Condition::Plain, phrase: None };
        for child in [
            "",
            "<e:extension><x xmlns=\"urn:x\"/></e:extension>",
            "<e:something-else phrase=\"x\"/>",
            "<x:cannot-insert xmlns:x=\"urn:x\"/>",
            "<e:cannot-insert/><e:cannot-delete/>",
            "<e:cannot-insert>",
        ] {
            assert_eq!(read(child), plain, "{child}");
        }
        let good = format!("<xcap-error xmlns=\"{NAMESPACE}\"><cannot-insert/></xcap-error>");
        let of = |content_type, body: &[u8]| Conflict::read(content_type, body);
        assert_eq!(of(Some(TYPE), good.as_bytes()).condition, Condition::CannotInsert);
        assert_eq!(of(Some(TYPE), b""), plain);
        assert_eq!(of(None, good.as_bytes()), plain);
        assert_eq!(of(Some("text/xml"), good.as_bytes()), plain);
        assert_eq!(of(Some(TYPE), &[0xff, 0xfe, b'<']), plain);
        assert_eq!(of(Some(TYPE), b"<!DOCTYPE a><a/>"), plain);
        let other = good.replace("xcap-error", "other");
        assert_eq!(of(Some(TYPE), other.as_bytes()), plain);
    }
}
