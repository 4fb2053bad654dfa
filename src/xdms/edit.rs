//! Parts of a document changed: elements and attributes put and removed (RFC 4825 §8.2, §8.4).
//!
//! Start at [`apply`]. The text is changed where the node stands and nowhere else, so comments, white space and foreign
//! elements stay as they were (XD-019). What was put must be what the selector names afterwards, and what was removed
//! must leave the selector with nothing, or the change is refused (XD-010, XD-044). Whether the outcome is a valid
//! document is asked by the `store`. No recursion, no I/O.

use std::ops::Range;

use roxmltree::{Document, Node};

use super::groups::{self, Flaw};
use super::selector::{
    End, Expanded, Selector, Step, XML, declarations, namespace_of, value_of, written_name,
};
use crate::content::xml::{self, Bounds};

/// What is to be done with the node a selector names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit<'a> {
    /// The content of a PUT: an element, or the value of an attribute.
    Put(&'a str),
    /// It is to go.
    Delete,
}

/// The changed document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    pub text: String,
    /// The node was not there before.
    pub created: bool,
}

/// Why a node is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 404 on DELETE.
    #[error("the selector names no node")]
    NotFound,
    /// 409 `no-parent`: so many of the selector's steps lead to an element.
    #[error("the element that is to hold the node does not exist")]
    NoParent { steps: usize },
    /// 409 `cannot-insert`.
    #[error("the selector would not name what was put")]
    CannotInsert,
    /// 409 `cannot-delete`.
    #[error("the selector would name another node then")]
    CannotDelete,
    /// 409 `not-xml-frag`.
    #[error("the body is not one balanced element")]
    NotFragment,
    /// 409 `not-xml-att-value`.
    #[error("the body is no attribute value")]
    NotValue,
    /// What the document would be.
    #[error("{0}")]
    Flaw(#[from] Flaw),
}

/// Where a child belongs among the children of an element, by the usage's schema: parent, the new child, one that is there;
/// whether the new one comes first.
pub type Before<'f> = &'f dyn Fn(Node<'_, '_>, (Option<&str>, &str), (Option<&str>, &str)) -> bool;

/// Changes one node of a document that is well-formed.
///
/// XD-044, XD-045 (RFC 4825 §8.2.2 to §8.2.4, §8.4): the parent is found, the node changed tentatively, the selector
/// followed again.
///
/// # Errors
/// [`Refusal`].
pub fn apply(
    text: &str,
    selector: &Selector,
    edit: Edit<'_>,
    before: Before<'_>,
    bounds: &Bounds,
) -> Result<Edited, Refusal> {
    let tree = parse(text)?;
    match (&selector.end, edit) {
        (End::Element, Edit::Put(body)) => put_element(text, &tree, selector, body, before, bounds),
        (End::Element, Edit::Delete) => delete_element(text, &tree, selector, bounds),
        (End::Attribute(name, prefix), Edit::Put(body)) => {
            put_attribute(text, &tree, selector, (name, prefix.as_deref()), body, bounds)
        }
        (End::Attribute(name, _), Edit::Delete) => {
            delete_attribute(text, &tree, selector, name, bounds)
        }
        // The server answers 405 before it comes to this.
        (End::Namespaces, _) => Err(Refusal::NotFound),
    }
}

fn parse(text: &str) -> Result<Document<'_>, Flaw> {
    Document::parse(text).map_err(|_| Flaw::NotWellFormed("not well-formed XML"))
}

/// The document after a change: still within its bounds, or it is the change that is at fault.
fn checked<'a>(text: &'a str, bounds: &Bounds) -> Result<Document<'a>, Refusal> {
    match groups::checked_within(text.as_bytes(), bounds).and_then(parse) {
        Ok(tree) => Ok(tree),
        Err(Flaw::Constraint(what) | Flaw::NotWellFormed(what)) => {
            Err(Flaw::Constraint(what).into())
        }
        Err(other) => Err(other.into()),
    }
}

fn spliced(text: &str, range: Range<usize>, piece: &str) -> String {
    [&text[..range.start], piece, &text[range.end..]].concat()
}

fn put_element(
    text: &str,
    tree: &Document<'_>,
    selector: &Selector,
    body: &str,
    before: Before<'_>,
    bounds: &Bounds,
) -> Result<Edited, Refusal> {
    let walk = selector.find(tree);
    let Some((last, parents)) = selector.steps.split_last() else {
        return Err(Refusal::CannotInsert);
    };
    // XD-045: first what was sent, then where it goes.
    let scope = walk.element.and_then(|old| old.parent()).unwrap_or(walk.context);
    let sent = fragment(body, scope, bounds)?;
    let (text, at, created) = match walk.element {
        Some(old) => (spliced(text, old.range(), sent.text), old.range().start, false),
        None if walk.steps < parents.len() => return Err(Refusal::NoParent { steps: walk.steps }),
        None if walk.several || walk.context.is_root() => return Err(Refusal::CannotInsert),
        None => {
            let name = (sent.namespace.as_deref(), sent.local.as_str());
            let place = place(walk.context, last, name, before).ok_or(Refusal::CannotInsert)?;
            let (text, at) = inserted(text, walk.context, place, sent.text);
            (text, at, true)
        }
    };
    let tree = checked(&text, bounds)?;
    // XD-010: GET(PUT(x)) = x.
    match selector.find(&tree).element {
        Some(node) if node.range() == (at..at + sent.text.len()) => {}
        _ => return Err(Refusal::CannotInsert),
    }
    drop(tree);
    Ok(Edited { text, created })
}

/// What an element body holds.
struct Fragment<'a> {
    text: &'a str,
    namespace: Option<String>,
    local: String,
}

/// One balanced element that may use the prefixes in scope where it goes, with white space around it (RFC 4825 §8.2.2).
fn fragment<'a>(
    body: &'a str,
    scope: Node<'_, '_>,
    bounds: &Bounds,
) -> Result<Fragment<'a>, Refusal> {
    let sent = body.trim_matches([' ', '\t', '\r', '\n']);
    if sent.len() > bounds.bytes {
        return Err(Flaw::Constraint("the element is too large").into());
    }
    xml::check(sent, bounds).map_err(|_| Refusal::NotFragment)?;
    let around = if scope.is_element() { declarations(scope) } else { String::new() };
    let whole = format!("<scope{around}>{sent}</scope>");
    let tree = Document::parse(&whole).map_err(|_| Refusal::NotFragment)?;
    let mut children = tree.root_element().children();
    match (children.next(), children.next()) {
        (Some(one), None) if one.is_element() && one.range().len() == sent.len() => Ok(Fragment {
            text: sent,
            namespace: namespace_of(one).map(str::to_owned),
            local: one.tag_name().name().to_owned(),
        }),
        _ => Err(Refusal::NotFragment),
    }
}

/// Where a new element goes.
enum Place<'a, 'i> {
    Before(Node<'a, 'i>),
    After(Node<'a, 'i>),
    /// It is the only element.
    Inside,
}

/// RFC 4825 §8.2.3: at the position that is asked for, else behind the siblings of its name, else where the schema
/// wants it. `None` where no such position can be.
fn place<'a, 'i>(
    parent: Node<'a, 'i>,
    step: &Step,
    name: (Option<&str>, &str),
    before: Before<'_>,
) -> Option<Place<'a, 'i>> {
    let same = step.named(parent);
    if let Some(position) = step.position {
        let index = position.checked_sub(1)?;
        if let Some(there) = same.get(index) {
            return Some(Place::Before(*there));
        }
        if index > same.len() {
            return None;
        }
    }
    if let Some(last) = same.last() {
        return Some(Place::After(*last));
    }
    let mut children = parent.children().filter(Node::is_element);
    let later = |child: &Node<'_, '_>| {
        before(parent, name, (namespace_of(*child), child.tag_name().name()))
    };
    if let Some(next) = children.clone().find(later) {
        return Some(Place::Before(next));
    }
    Some(children.next_back().map_or(Place::Inside, Place::After))
}

/// The text with a new element, and where that begins.
fn inserted(text: &str, parent: Node<'_, '_>, place: Place<'_, '_>, new: &str) -> (String, usize) {
    let at = match place {
        Place::Before(next) => next.range().start,
        Place::After(last) => last.range().end,
        Place::Inside => {
            let range = parent.range();
            let element = &text[range.clone()];
            if element.ends_with("/>") {
                let open = range.end - "/>".len();
                let name = written_name(text, parent);
                let content = format!(">{new}</{name}>");
                return (spliced(text, open..range.end, &content), open + 1);
            }
            // Nothing behind the start of its end tag is content.
            range.start + element.rfind("</").unwrap_or(element.len())
        }
    };
    (spliced(text, at..at, new), at)
}

fn delete_element(
    text: &str,
    tree: &Document<'_>,
    selector: &Selector,
    bounds: &Bounds,
) -> Result<Edited, Refusal> {
    let element = selector.find(tree).element.ok_or(Refusal::NotFound)?;
    if element == tree.root_element() {
        return Err(Flaw::Schema("a document without its root").into());
    }
    // XD-045: white space around it stays.
    let text = spliced(text, element.range(), "");
    let tree = checked(&text, bounds)?;
    if selector.find(&tree).element.is_some() {
        return Err(Refusal::CannotDelete);
    }
    drop(tree);
    Ok(Edited { text, created: false })
}

fn put_attribute(
    text: &str,
    tree: &Document<'_>,
    selector: &Selector,
    (name, prefix): (&Expanded, Option<&str>),
    body: &str,
    bounds: &Bounds,
) -> Result<Edited, Refusal> {
    let value = attribute_value(body, bounds)?;
    let walk = selector.find(tree);
    let Some(element) = walk.element else {
        return Err(Refusal::NoParent { steps: walk.steps });
    };
    let at = element.range().start;
    let (text, created) = match value_of(text, element, name) {
        Some(old) => {
            // With the quotes, for these may have to be others.
            (spliced(text, old.start - 1..old.end + 1, &value), false)
        }
        None => {
            let (name, declared) = spelled(element, name, prefix);
            let end = match element.attributes().next_back() {
                Some(last) => last.range().end,
                None => at + 1 + written_name(text, element).len(),
            };
            (spliced(text, end..end, &format!("{declared} {name}={value}")), true)
        }
    };
    let tree = checked(&text, bounds)?;
    let wanted = value.get(1..value.len() - 1);
    let now = selector.find(&tree).element.filter(|element| element.range().start == at);
    let got = now.and_then(|element| value_of(&text, element, name));
    if got.map(|range| &text[range]) != wanted {
        return Err(Refusal::CannotInsert);
    }
    drop(tree);
    Ok(Edited { text, created })
}

/// The value between the quotes it needs.
fn attribute_value(body: &str, bounds: &Bounds) -> Result<String, Refusal> {
    if body.len() > bounds.text {
        return Err(Flaw::Constraint("the value is too long").into());
    }
    let value = match (body.contains('"'), body.contains('\'')) {
        (true, false) => format!("'{body}'"),
        (true, true) => format!("\"{}\"", body.replace('"', "&quot;")),
        (false, _) => format!("\"{body}\""),
    };
    let alone = format!("<a a={value}/>");
    let good = !body.contains('<') && Document::parse(&alone).is_ok();
    good.then_some(value).ok_or(Refusal::NotValue)
}

/// How a new attribute is written at an element, and the declaration its prefix needs first.
fn spelled(element: Node<'_, '_>, name: &Expanded, wanted: Option<&str>) -> (String, String) {
    let Some(uri) = name.namespace.as_deref() else {
        return (name.local.clone(), String::new());
    };
    let mut bound = element.namespaces().filter(|ns| ns.uri() == uri);
    if uri == XML {
        return (format!("xml:{}", name.local), String::new());
    }
    if let Some(prefix) = bound.find_map(|ns| ns.name()) {
        return (format!("{prefix}:{}", name.local), String::new());
    }
    let free = |prefix: &String| element.lookup_namespace_uri(Some(prefix)).is_none();
    let wanted = wanted.map(str::to_owned).into_iter();
    let others = (1..).map(|n| format!("ns{n}"));
    let prefix = wanted.chain(others).find(free).unwrap_or_default();
    let declared = format!(" xmlns:{prefix}=\"{}\"", xml::escape(uri));
    (format!("{prefix}:{}", name.local), declared)
}

fn delete_attribute(
    text: &str,
    tree: &Document<'_>,
    selector: &Selector,
    name: &Expanded,
    bounds: &Bounds,
) -> Result<Edited, Refusal> {
    let element = selector.find(tree).element.ok_or(Refusal::NotFound)?;
    let value = value_of(text, element, name).ok_or(Refusal::NotFound)?;
    let whole = element.attributes().map(|a| a.range()).find(|range| range.end == value.end + 1);
    let whole = whole.ok_or(Refusal::NotFound)?;
    // The space before it goes with it.
    let start = text[..whole.start].trim_end_matches([' ', '\t', '\r', '\n']).len();
    let text = spliced(text, start..whole.end, "");
    drop(checked(&text, bounds)?);
    Ok(Edited { text, created: false })
}

#[cfg(test)]
mod tests {
    use super::super::groups::BOUNDS;
    use super::super::selector::{Bindings, Selected};
    use super::*;

    const DOC: &str = "<?xml version=\"1.0\"?>\n<!-- a --><r xmlns=\"urn:r\" xmlns:f=\"urn:f\">\n  \
        <l n=\"1\">\n    <e u=\"a\"/><!-- b -->\n    <e u=\"b\" f:x='y'>t</e>\n    <f:g/>\n  </l>\n  <l n=\"2\"/>\n  \
        <l n=\"3\"> </l>\n</r>\n<?end?>";

    fn selector(text: &str) -> Selector {
        let bound = Bindings::parse("xmlns(q=urn:f)xmlns(n=urn:new)xmlns(f=urn:other)");
        Selector::parse(text, &bound, Some("urn:r")).expect("a selector")
    }

    fn edit(at: &str, what: Edit<'_>) -> Result<Edited, Refusal> {
        let order = |_: Node<'_, '_>, new: (Option<&str>, &str), there: (Option<&str>, &str)| {
            new.1 == "first" && there.1 != "first"
        };
        apply(DOC, &selector(at), what, &order, &BOUNDS)
    }

    /// Only the named piece differs: old text, new text.
    fn becomes(at: &str, what: Edit<'_>, old: &str, new: &str, created: bool) {
        assert_eq!(DOC.matches(old).count(), 1, "{old}");
        let want = Edited { text: DOC.replace(old, new), created };
        assert_eq!(edit(at, what), Ok(want), "{at}");
    }

    /// Proves XD-010, XD-019.
    #[test]
    fn an_element_goes_where_its_selector_says_and_nothing_else_moves() {
        let put = Edit::Put;
        let c = "<e u=\"c\"/>";
        becomes("r/l[1]/e[@u=\"c\"]", put(c), ">t</e>", ">t</e><e u=\"c\"/>", true);
        becomes("r/l[1]/e[3]", put(c), ">t</e>", ">t</e><e u=\"c\"/>", true);
        becomes("r/l[1]/e[3][@u=\"c\"]", put(c), ">t</e>", ">t</e><e u=\"c\"/>", true);
        becomes("r/l[1]/e[1][@u=\"c\"]", put(c), "<e u=\"a\"/>", "<e u=\"c\"/><e u=\"a\"/>", true);
        becomes("r/l[1]/*[@u=\"c\"]", put(c), "<f:g/>", "<f:g/><e u=\"c\"/>", true);
        becomes("r/l[1]/*[3][@u=\"c\"]", put(c), "<f:g/>", "<e u=\"c\"/><f:g/>", true);
        becomes("r/l[1]/*[4]", put(c), "<f:g/>", "<f:g/><e u=\"c\"/>", true);
        becomes("r/l[2]/e", put(c), "<l n=\"2\"/>", "<l n=\"2\"><e u=\"c\"/></l>", true);
        becomes("r/l[3]/e", put(c), "<l n=\"3\"> </l>", "<l n=\"3\"> <e u=\"c\"/></l>", true);
        becomes("r/l[1]/new", put("<new/>"), "<f:g/>", "<f:g/><new/>", true);
        becomes("r/first", put(" <first/>\r\n"), "<l n=\"1\">", "<first/><l n=\"1\">", true);
        becomes("r/l[1]/e[1]", put(c), "<e u=\"a\"/>", c, false);
        becomes(
            "r/l[1]/e[@u=\"a\"]",
            put("<e u='a' z='&lt;'><!-- c --></e>"),
            "<e u=\"a\"/>",
            "<e u='a' z='&lt;'><!-- c --></e>",
            false,
        );
        becomes("r/l[1]/q:g", put("<f:g>1</f:g>"), "<f:g/>", "<f:g>1</f:g>", false);
        becomes("r/l[1]/q:g", put("<g xmlns='urn:f'/>"), "<f:g/>", "<g xmlns='urn:f'/>", false);
        let root = DOC[DOC.find("<r ").unwrap()..DOC.find("\n<?end").unwrap()].to_owned();
        becomes("r", put("<r xmlns='urn:r'/>"), &root, "<r xmlns='urn:r'/>", false);
    }

    /// Proves XD-010, XD-044.
    #[test]
    fn what_would_not_be_found_again_is_not_put() {
        let cases: &[(&str, &str, Refusal)] = &[
            ("r/l[1]/e[@u=\"a\"]", "<e u=\"b\"/>", Refusal::CannotInsert),
            ("r/l[1]/e[@u=\"c\"]", "<e u=\"d\"/>", Refusal::CannotInsert),
            ("r/l[1]/e[@u=\"c\"]", "<e/>", Refusal::CannotInsert),
            ("r/l[1]/e[4]", "<e/>", Refusal::CannotInsert),
            ("r/l[1]/e[0]", "<e/>", Refusal::CannotInsert),
            ("r/l[1]/e", "<e/>", Refusal::CannotInsert),
            ("r/l[1]/x", "<e/>", Refusal::CannotInsert),
            ("r/l[1]/x", "<f:x/>", Refusal::CannotInsert),
            ("r/l[1]/x", "<x xmlns=''/>", Refusal::CannotInsert),
            ("r/l[1]/*", "<x/>", Refusal::CannotInsert),
            ("s", "<s xmlns='urn:r'/>", Refusal::CannotInsert),
            ("r", "<r/>", Refusal::CannotInsert),
            ("s/l", "<l/>", Refusal::NoParent { steps: 0 }),
            ("r/m/e", "<e/>", Refusal::NoParent { steps: 1 }),
            ("r/l/e", "<e/>", Refusal::NoParent { steps: 1 }),
            ("r/l[1]/e[2]/x/y", "<y/>", Refusal::NoParent { steps: 3 }),
            ("r/l[1]/x", "", Refusal::NotFragment),
            ("r/l[1]/x", "x", Refusal::NotFragment),
            ("r/l[1]/x", "<x>", Refusal::NotFragment),
            ("r/l[1]/x", "<x/><x/>", Refusal::NotFragment),
            ("r/l[1]/x", "<x/>text", Refusal::NotFragment),
            ("r/l[1]/x", "<x/><!-- -->", Refusal::NotFragment),
            ("r/l[1]/x", "<!-- --><x/>", Refusal::NotFragment),
            ("r/l[1]/x", "<?xml version='1.0'?><x/>", Refusal::NotFragment),
            ("r/l[1]/x", "<!DOCTYPE x><x/>", Refusal::NotFragment),
            ("r/l[1]/x", "</scope><x/><scope>", Refusal::NotFragment),
            ("r/l[1]/x", "<x a='1' a='2'/>", Refusal::NotFragment),
            ("r/l[1]/x", "<z:x/>", Refusal::NotFragment),
            ("r/l[1]/x", "<x>&y;</x>", Refusal::NotFragment),
            ("r/l[1]/x", "<x>\u{0}</x>", Refusal::NotFragment),
            ("r/l[2]/@n", "1", Refusal::CannotInsert),
            ("r/l[1]/@xmlns", "urn:x", Refusal::CannotInsert),
            ("r/m/@n", "1", Refusal::NoParent { steps: 1 }),
            ("r/l[1]/@n", "<", Refusal::NotValue),
            ("r/l[1]/@n", "a&b", Refusal::NotValue),
            ("r/l[1]/@n", "&x;", Refusal::NotValue),
            ("r/l[1]/@n", "\u{1}", Refusal::NotValue),
        ];
        for (at, body, want) in cases {
            // The position of the second list depends on nothing that changes here, its name does.
            let at = at.replace("r/l[2]/@n", "r/l[@n=\"2\"]/@n");
            assert_eq!(edit(&at, Edit::Put(body)), Err(want.clone()), "{at} {body}");
        }
        let deep = format!("{}{}", "<x>".repeat(30), "</x>".repeat(30));
        assert!(matches!(edit("r/l[1]/x", Edit::Put(&deep)), Ok(Edited { created: true, .. })));
        let deeper = format!("<x>{deep}</x>");
        let refused = edit("r/l[1]/x", Edit::Put(&deeper));
        assert!(matches!(refused, Err(Refusal::Flaw(Flaw::Constraint(_)))), "{refused:?}");
    }

    /// Proves XD-044, XD-045.
    #[test]
    fn what_is_removed_leaves_the_white_space_and_no_namesake() {
        becomes("r/l[1]/e[@u=\"a\"]", Edit::Delete, "<e u=\"a\"/>", "", false);
        becomes("r/l[1]/e[2]", Edit::Delete, "<e u=\"b\" f:x='y'>t</e>", "", false);
        becomes("r/l[1]/q:g", Edit::Delete, "<f:g/>", "", false);
        becomes("r/l[1]/*[3]", Edit::Delete, "<f:g/>", "", false);
        for (at, want) in [
            ("r/l[1]/e[1]", Refusal::CannotDelete),
            ("r/l[1]/*[2]", Refusal::CannotDelete),
            ("r/l[1]/e", Refusal::NotFound),
            ("r/l[1]/e[3]", Refusal::NotFound),
            ("r/l[1]/@x", Refusal::NotFound),
            ("r/m/@x", Refusal::NotFound),
        ] {
            assert_eq!(edit(at, Edit::Delete), Err(want), "{at}");
        }
        assert!(matches!(edit("r", Edit::Delete), Err(Refusal::Flaw(Flaw::Schema(_)))));
    }

    /// Proves XD-010.
    #[test]
    fn attributes_are_put_and_removed() {
        let put = Edit::Put;
        becomes("r/l[1]/@n", put("9"), "n=\"1\"", "n=\"9\"", false);
        becomes("r/l[1]/@n", put("a&amp;b"), "n=\"1\"", "n=\"a&amp;b\"", false);
        becomes("r/l[1]/@n", put("a\"b"), "n=\"1\"", "n='a\"b'", false);
        becomes("r/l[1]/@n", put(""), "n=\"1\"", "n=\"\"", false);
        becomes("r/l[1]/@m", put("x"), "n=\"1\"", "n=\"1\" m=\"x\"", true);
        becomes("r/l[1]/q:g/@m", put("it's"), "<f:g/>", "<f:g m=\"it's\"/>", true);
        becomes("r/l[1]/q:g/@q:m", put("x"), "<f:g/>", "<f:g f:m=\"x\"/>", true);
        becomes(
            "r/l[1]/q:g/@n:m",
            put("x"),
            "<f:g/>",
            "<f:g xmlns:n=\"urn:new\" n:m=\"x\"/>",
            true,
        );
        let taken = "<f:g xmlns:ns1=\"urn:other\" ns1:m=\"x\"/>";
        becomes("r/l[1]/q:g/@f:m", put("x"), "<f:g/>", taken, true);
        becomes("r/l[1]/q:g/@xml:lang", put("en"), "<f:g/>", "<f:g xml:lang=\"en\"/>", true);
        becomes("r/l[1]/e[2]/@q:x", put("z"), "f:x='y'", "f:x=\"z\"", false);
        becomes("r/l[1]/e[2]/@q:x", Edit::Delete, " f:x='y'", "", false);
        becomes("r/l[1]/e[1]/@u", Edit::Delete, "<e u=\"a\"/>", "<e/>", false);
        becomes("r/l[@n=\"2\"]/@n", Edit::Delete, "<l n=\"2\"/>", "<l/>", false);
    }

    /// Proves XD-010.
    #[test]
    fn what_was_put_is_what_is_read() {
        for (at, body) in [
            ("r/l[1]/e[@u=\"c\"]", "<e u='c'>\n <f:x/> </e>"),
            ("r/l[1]/@n", "a &#60; b"),
            ("r/l[2]/new", "<new><![CDATA[</new>]]></new>"),
        ] {
            let edited = edit(at, Edit::Put(body)).expect("put");
            let tree = Document::parse(&edited.text).expect("XML");
            let read = selector(at).select(&edited.text, &tree);
            let (Some(Selected::Element(text)) | Some(Selected::Attribute(text))) = read else {
                panic!("{at}: {read:?}");
            };
            assert_eq!(text, body);
        }
    }
}
