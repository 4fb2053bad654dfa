//! Parts of a document: XCAP node selectors (RFC 4825 §6.3).
//!
//! Start at [`Selector::parse`], then [`Selector::find`]. All step forms are understood: names, `*`, positions, one
//! attribute test; the end is an element, an attribute or the namespaces of an element. Unprefixed elements are in the
//! usage's default namespace, unprefixed attributes in none; prefixes mean what the query says (XD-004, XD-005). What
//! the document calls its prefixes does not matter. Changes nothing: see `edit`.

use std::ops::Range;

use roxmltree::{Document, Node};

use super::groups::{self, ListChild, list_children};
use super::path;
use crate::content::xml::{self, attribute};

/// Most steps; deeper no document is ([`groups::BOUNDS`]).
const MOST_STEPS: usize = 32;
/// The namespace of the prefix `xml`, which needs no binding.
pub(super) const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// What a selector named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// An element, as it stands in the document (XD-046).
    Element(String),
    /// The value of an attribute as it stands between its quotes (RFC 4825 §15.2.2).
    Attribute(String),
    /// An element's name with the namespaces that are in scope there.
    Namespaces(String),
}

/// Prefixes and the namespaces they stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings(Vec<(String, String)>);

/// Why a text is no selector of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// It uses a prefix that nothing binds (XD-005).
    #[error("a prefix without namespace")]
    Undeclared,
    /// It has a form nobody here understands, and so names nothing (RFC 4825 §6.3, extension selectors).
    #[error("no selector")]
    Unknown,
}

impl Bindings {
    /// Reads a decoded query: `xmlns(p=uri)xmlns(q=uri)`, with `^` before brackets that belong to the URI. What is none
    /// of these is passed over; of two for one prefix the last counts.
    pub fn parse(query: &str) -> Self {
        let mut bindings = Vec::new();
        let mut rest = query;
        while let Some(at) = rest.find("xmlns(") {
            rest = &rest[at + "xmlns(".len()..];
            let Some((inside, after)) = bracketed(rest) else { break };
            if let Some((prefix, uri)) = inside.split_once('=') {
                bindings.push((prefix.trim().to_owned(), uri.trim().to_owned()));
            }
            rest = after;
        }
        Self(bindings)
    }

    fn namespace(&self, prefix: &str) -> Result<&str, Bad> {
        if prefix == "xml" {
            return Ok(XML);
        }
        let bound = self.0.iter().rev().find(|(p, _)| p == prefix);
        bound.map(|(_, uri)| uri.as_str()).ok_or(Bad::Undeclared)
    }

    /// The expanded name; without a prefix the namespace is `default`.
    fn expand(&self, name: &str, default: Option<&str>) -> Result<Expanded, Bad> {
        let (namespace, local) = match name.split_once(':') {
            Some((prefix, local)) => {
                if !is_name(prefix) || !is_name(local) {
                    return Err(Bad::Unknown);
                }
                (Some(self.namespace(prefix)?), local)
            }
            None => (default, name),
        };
        if !is_name(local) {
            return Err(Bad::Unknown);
        }
        let namespace = namespace.filter(|uri| !uri.is_empty()).map(str::to_owned);
        Ok(Expanded { namespace, local: local.to_owned() })
    }
}

/// What stands before the closing bracket, and what behind it.
fn bracketed(text: &str) -> Option<(String, &str)> {
    let mut inside = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ')' => return Some((inside, &text[at + 1..])),
            '^' => inside.push(chars.next()?.1),
            c => inside.push(c),
        }
    }
    None
}

/// Near enough to a name without colon: what is none is in no document, and what would end a step is none.
fn is_name(text: &str) -> bool {
    let first = |c: char| c.is_alphabetic() || c == '_' || u32::from(c) > 0x7f;
    let other = |c: char| c.is_alphanumeric() || "-._".contains(c) || u32::from(c) > 0x7f;
    text.chars().next().is_some_and(first) && text.chars().all(other)
}

/// Namespace and local name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// `None` for none.
    pub namespace: Option<String>,
    pub local: String,
}

impl Expanded {
    fn is_of(&self, node: Node<'_, '_>) -> bool {
        node.tag_name().name() == self.local && namespace_of(node) == self.namespace.as_deref()
    }
}

/// The namespace of an element; `xmlns=""` is none.
pub(super) fn namespace_of<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    node.tag_name().namespace().filter(|uri| !uri.is_empty())
}

/// One step: which child of the element before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `None` for `*`.
    pub name: Option<Expanded>,
    /// Counts from 1 among the siblings of that name (XD-004).
    pub position: Option<usize>,
    /// An attribute and the value it has.
    pub test: Option<(Expanded, String)>,
    /// As it was written, decoded.
    text: String,
}

/// What of the element is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All of it.
    Element,
    /// An attribute, with the prefix the selector gave it.
    Attribute(Expanded, Option<String>),
    /// `namespace::*`
    Namespaces,
}

/// A selector that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// From the root element down; never empty.
    pub steps: Vec<Step>,
    pub end: End,
}

/// Where following the steps has led.
pub struct Walk<'a, 'i> {
    /// The element, if every step named exactly one.
    pub element: Option<Node<'a, 'i>>,
    /// The last element that was reached; the document itself if it was none.
    pub context: Node<'a, 'i>,
    /// Steps that led somewhere.
    pub steps: usize,
    /// The step that failed names several elements and not none.
    pub several: bool,
}

impl Selector {
    /// Understands a decoded selector. `default` is the default document namespace of the usage.
    ///
    /// # Errors
    /// [`Bad`], whatever is in the document.
    pub fn parse(text: &str, bindings: &Bindings, default: Option<&str>) -> Result<Self, Bad> {
        let mut steps = split(text).ok_or(Bad::Unknown)?;
        let end = match steps.last().copied() {
            Some("namespace::*") => End::Namespaces,
            Some(last) => match last.strip_prefix('@') {
                Some(name) => {
                    let prefix = name.split_once(':').map(|(prefix, _)| prefix.to_owned());
                    End::Attribute(bindings.expand(name, None)?, prefix)
                }
                None => End::Element,
            },
            None => return Err(Bad::Unknown),
        };
        if end != End::Element {
            steps.pop();
        }
        if steps.is_empty() || steps.len() > MOST_STEPS {
            return Err(Bad::Unknown);
        }
        let steps = steps.iter().map(|step| Step::parse(step, bindings, default));
        Ok(Self { steps: steps.collect::<Result<_, _>>()?, end })
    }

    /// Follows the steps from the root; each has to name exactly one element.
    pub fn find<'a, 'i>(&self, tree: &'a Document<'i>) -> Walk<'a, 'i> {
        let mut context = tree.root();
        for (steps, step) in self.steps.iter().enumerate() {
            let found = step.find(context);
            let [one] = found.as_slice() else {
                return Walk { element: None, context, steps, several: !found.is_empty() };
            };
            context = *one;
        }
        Walk { element: Some(context), context, steps: self.steps.len(), several: false }
    }

    /// The first steps as they stand in a request, and whether they need the bindings of the query.
    pub fn written(&self, steps: usize) -> (String, bool) {
        let steps = &self.steps[..steps.min(self.steps.len())];
        let text: Vec<String> = steps.iter().map(|s| path::encode_segment(&s.text)).collect();
        let prefixed = |step: &Step| {
            let name = step.text.split('[').next().unwrap_or_default();
            let test = step.text.split_once("[@").and_then(|(_, test)| test.split_once('='));
            name.contains(':') || test.is_some_and(|(name, _)| name.contains(':'))
        };
        (text.join("/"), steps.iter().any(prefixed))
    }

    /// What the selector names in a document that was checked; `None` for nothing, or several things.
    pub fn select(&self, text: &str, tree: &Document<'_>) -> Option<Selected> {
        let element = self.find(tree).element?;
        match &self.end {
            End::Element => Some(Selected::Element(text[element.range()].to_owned())),
            End::Attribute(name, _) => {
                let value = value_of(text, element, name)?;
                Some(Selected::Attribute(text[value].to_owned()))
            }
            End::Namespaces => Some(Selected::Namespaces(namespaces(text, element))),
        }
    }
}

impl Step {
    fn parse(text: &str, bindings: &Bindings, default: Option<&str>) -> Result<Self, Bad> {
        let (name, mut rest) = text.split_at(text.find('[').unwrap_or(text.len()));
        let name = if name == "*" { None } else { Some(bindings.expand(name, default)?) };
        let mut step = Self { name, position: None, test: None, text: text.to_owned() };
        while let Some(inside) = rest.strip_prefix('[') {
            if step.test.is_some() {
                return Err(Bad::Unknown);
            }
            rest = match inside.strip_prefix('@') {
                Some(test) => {
                    let (name, value) = test.split_once('=').ok_or(Bad::Unknown)?;
                    let quote = value
                        .chars()
                        .next()
                        .filter(|c| matches!(c, '"' | '\''))
                        .ok_or(Bad::Unknown)?;
                    let (value, after) = value[1..].split_once(quote).ok_or(Bad::Unknown)?;
                    let value = unescape(value).ok_or(Bad::Unknown)?;
                    step.test = Some((bindings.expand(name, None)?, value));
                    after.strip_prefix(']').ok_or(Bad::Unknown)?
                }
                None if step.position.is_none() => {
                    let (digits, after) = inside.split_once(']').ok_or(Bad::Unknown)?;
                    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                        return Err(Bad::Unknown);
                    }
                    // More digits than a number holds count past every sibling.
                    step.position = Some(digits.parse().unwrap_or(usize::MAX));
                    after
                }
                None => return Err(Bad::Unknown),
            };
        }
        if rest.is_empty() { Ok(step) } else { Err(Bad::Unknown) }
    }

    /// Elements below `parent` that the step's name fits, in document order.
    pub fn named<'a, 'i>(&self, parent: Node<'a, 'i>) -> Vec<Node<'a, 'i>> {
        let fits = |n: &Node<'_, '_>| self.name.as_ref().is_none_or(|name| name.is_of(*n));
        parent.children().filter(Node::is_element).filter(fits).collect()
    }

    fn find<'a, 'i>(&self, parent: Node<'a, 'i>) -> Vec<Node<'a, 'i>> {
        let mut matching = self.named(parent);
        // The position counts siblings of that name, the attribute test comes after (XD-004).
        if let Some(position) = self.position {
            let place = position.checked_sub(1).and_then(|at| matching.get(at).copied());
            matching = place.into_iter().collect();
        }
        if let Some((name, value)) = &self.test {
            let named = |n: &Node<'_, '_>| {
                attribute(*n, name.namespace.as_deref(), &name.local) == Some(value.as_str())
            };
            matching.retain(named);
        }
        matching
    }
}

/// The one node a selector names; `None` for none, or for several. The default namespace is that of the root.
///
/// # Errors
/// [`Bad`], whether there is such a node or not.
pub fn select(
    document: &[u8],
    selector: &str,
    bindings: &Bindings,
) -> Result<Option<Selected>, Bad> {
    let Some((text, tree)) =
        groups::admitted(document).and_then(|text| Some((text, Document::parse(text).ok()?)))
    else {
        return Ok(None);
    };
    let default = namespace_of(tree.root_element());
    Ok(Selector::parse(selector, bindings, default)?.select(text, &tree))
}

/// The children of the list (or the one entry) a reference points to; `None` if it is no `wanted` element.
pub(super) fn list_at(
    document: &[u8],
    selector: Option<&str>,
    wanted: &str,
) -> Option<Vec<ListChild>> {
    let tree = Document::parse(groups::admitted(document)?).ok()?;
    let default = namespace_of(tree.root_element());
    let selector = Selector::parse(selector?, &Bindings::default(), default).ok()?;
    let element = selector.find(&tree).element.filter(|_| selector.end == End::Element)?;
    (element.tag_name().name() == wanted).then(|| list_children(element))
}

/// Splits at slashes outside quotes.
fn split(selector: &str) -> Option<Vec<&str>> {
    let mut steps = Vec::new();
    let (mut start, mut quote) = (0, None);
    for (at, c) in selector.char_indices() {
        match (quote, c) {
            (None, '/') => {
                steps.push(&selector[start..at]);
                start = at + 1;
            }
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            _ => {}
        }
        if steps.len() > MOST_STEPS + 1 {
            return None;
        }
    }
    steps.push(&selector[start..]);
    (quote.is_none() && steps.iter().all(|s| !s.is_empty())).then_some(steps)
}

/// XD-004: attribute values are XML-escaped inside a selector; characters may be named by number too.
fn unescape(value: &str) -> Option<String> {
    if value.contains('<') {
        return None;
    }
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (name, after) = after.split_once(';')?;
        let number =
            |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        out.push(match name {
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            "amp" => '&',
            _ => match name.strip_prefix('#')? {
                digits if digits.starts_with('x') => number(&digits[1..], 16)?,
                digits => number(digits, 10)?,
            },
        });
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// Where the value of an attribute stands, without its quotes.
pub(super) fn value_of(text: &str, element: Node<'_, '_>, name: &Expanded) -> Option<Range<usize>> {
    let is = |a: &roxmltree::Attribute<'_, '_>| {
        a.name() == name.local
            && a.namespace().filter(|uri| !uri.is_empty()) == name.namespace.as_deref()
    };
    let whole = element.attributes().find(is)?.range();
    // Neither a name nor the equals sign holds a quote.
    let open = text[whole.clone()].find(['"', '\''])?;
    Some(whole.start + open + 1..whole.end - 1)
}

/// The element's name as the document writes it.
pub(super) fn written_name<'t>(text: &'t str, element: Node<'_, '_>) -> &'t str {
    let inside = &text[element.range()][1..];
    let end = inside.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>'));
    &inside[..end.unwrap_or(inside.len())]
}

/// Declarations of every namespace in scope at an element: ` xmlns="…" xmlns:p="…"`.
pub(super) fn declarations(element: Node<'_, '_>) -> String {
    let mut out = String::new();
    for namespace in element.namespaces() {
        let uri = xml::escape(namespace.uri());
        match namespace.name() {
            Some("xml") => {}
            Some(_) if uri.is_empty() => {}
            Some(prefix) => out.push_str(&format!(" xmlns:{prefix}=\"{uri}\"")),
            None => out.push_str(&format!(" xmlns=\"{uri}\"")),
        }
    }
    out
}

/// RFC 4825 §7.10, §10: an empty element of the same name that declares what is in scope.
fn namespaces(text: &str, element: Node<'_, '_>) -> String {
    format!("<{}{}/>", written_name(text, element), declarations(element))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = "<?xml version=\"1.0\"?>\n<l:resource-lists xmlns:l=\"urn:ietf:params:xml:ns:resource-lists\">\
        <l:list name=\"a/b\"><l:entry uri=\"sip:1@h\"/><l:entry uri=\"sip:&quot;2&quot;@h\"/></l:list>\
        <l:list name=\"c\"><l:entry uri=\"sip:3@h\"><l:display-name>3</l:display-name></l:entry></l:list>\
        <list name=\"c\" xmlns=\"urn:other\"/></l:resource-lists>";

    #[test]
    fn selectors_name_one_node() {
        let element = |text: &str| Some(Selected::Element(text.to_owned()));
        let cases: Vec<(&str, Option<Selected>)> = vec![
            (
                "resource-lists/list[@name=\"c\"]/entry",
                element("<l:entry uri=\"sip:3@h\"><l:display-name>3</l:display-name></l:entry>"),
            ),
            (
                "resource-lists/list[@name='c']/entry/display-name",
                element("<l:display-name>3</l:display-name>"),
            ),
            ("resource-lists/list[@name=\"a/b\"]/entry[1]", element("<l:entry uri=\"sip:1@h\"/>")),
            (
                "resource-lists/list[1]/entry[@uri=\"sip:&quot;2&quot;@h\"]",
                element("<l:entry uri=\"sip:&quot;2&quot;@h\"/>"),
            ),
            (
                "resource-lists/list[1]/entry[2][@uri=\"sip:&quot;2&quot;@h\"]",
                element("<l:entry uri=\"sip:&quot;2&quot;@h\"/>"),
            ),
            ("resource-lists/list[1]/*[2]", element("<l:entry uri=\"sip:&quot;2&quot;@h\"/>")),
            ("resource-lists/list[2]/@name", Some(Selected::Attribute("c".into()))),
            ("resource-lists/list[1]/entry", None),
            ("resource-lists/list[9]", None),
            ("resource-lists/list[0]", None),
            ("resource-lists/list[1]/entry[1][@uri=\"sip:3@h\"]", None),
            ("resource-lists/list[@name=\"x\"]", None),
            ("list", None),
        ];
        for (selector, want) in cases {
            let got = select(DOC.as_bytes(), selector, &Bindings::default());
            assert_eq!(got, Ok(want), "{selector}");
        }
    }

    /// Proves XD-004.
    #[test]
    fn what_is_no_selector_names_nothing() {
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "a[",
            "a[]",
            "a[x]",
            "a[-1]",
            "a[1.0]",
            "a[@b]",
            "a[@b=c]",
            "a[@b=\"c]",
            "a[@b=\"c\"",
            "a[@b=\"c\"]x",
            "a[@b=\"c\"][1]",
            "a[1][2]",
            "a[@b=\"<\"]",
            "a[@b=\"&c;\"]",
            "a[@b=\"&\"]",
            "@a",
            "namespace::*",
            "a/@",
            "a/@*",
            "a/@b/c",
            "a/namespace::*/b",
            "a b",
            ":a",
            "a:",
            "**",
            "..",
            "a()",
        ] {
            let got = Selector::parse(text, &Bindings::default(), None);
            assert_eq!(got, Err(Bad::Unknown), "{text}");
        }
        let deep = vec!["a"; 33].join("/");
        assert_eq!(Selector::parse(&deep, &Bindings::default(), None), Err(Bad::Unknown));
        assert!(Selector::parse(&deep[2..], &Bindings::default(), None).is_ok());
    }

    /// Proves XD-004.
    #[test]
    fn values_are_unescaped_and_namespaces_are_told() {
        let document = "<a xmlns='urn:a' xmlns:b='urn:b&amp;'><b:c d='&lt;&#x41;/[~~]' b:e = 'f'>\
                        <g xmlns='' xmlns:b='urn:other'/></b:c></a>";
        let bound = Bindings::parse("xmlns(x=urn:b&)xmlns(y=urn:other)xmlns(z=urn:a^(b^)^^)");
        let select = |selector: &str| select(document.as_bytes(), selector, &bound);
        let attribute = |value: &str| Ok(Some(Selected::Attribute(value.to_owned())));
        let namespaces = |text: &str| Ok(Some(Selected::Namespaces(text.to_owned())));
        assert_eq!(select("a/x:c[@d=\"&lt;A/[~~]\"]/@x:e"), attribute("f"));
        assert_eq!(select("a/*[1][@d='&#60;&#65;/[~~]']/@d"), attribute("&lt;&#x41;/[~~]"));
        assert_eq!(select("a/x:c[@x:e=\"f\"]/@e"), Ok(None));
        assert_eq!(select("a/*[@e=\"f\"]"), Ok(None));
        assert_eq!(
            select("a/namespace::*"),
            namespaces("<a xmlns=\"urn:a\" xmlns:b=\"urn:b&amp;\"/>")
        );
        assert_eq!(
            select("a/x:c/*/namespace::*"),
            namespaces("<g xmlns=\"\" xmlns:b=\"urn:other\"/>")
        );
        assert_eq!(
            select("a/x:c/g"),
            Ok(None),
            "g is in no namespace, and a name is in the default one"
        );
        assert_eq!(bound.namespace("z"), Ok("urn:a(b)^"));
        assert_eq!(bound.namespace("xml"), Ok(XML));
    }

    /// Proves XD-005.
    #[test]
    fn prefixes_mean_what_the_query_says() {
        let document = format!(
            "<g:group xmlns:g=\"{}\" xmlns:zz=\"urn:ietf:params:xml:ns:common-policy\"><g:list-service uri=\"sip:t@g\">\
             <zz:ruleset><zz:rule id=\"a\"/></zz:ruleset></g:list-service></g:group>",
            groups::LIST_SERVICE
        );
        let select = |selector: &str, query: &str| {
            select(document.as_bytes(), selector, &Bindings::parse(query))
        };
        let bound = "xmlns(cp=urn:ietf:params:xml:ns:common-policy)xmlns(x=urn:x)";
        let found = |text: &str| Ok(Some(Selected::Element(text.to_owned())));
        assert!(
            matches!(select("group/list-service", ""), Ok(Some(_))),
            "whatever its prefix here"
        );
        assert_eq!(
            select("group/list-service/cp:ruleset/cp:rule[@id=\"a\"]", bound),
            found("<zz:rule id=\"a\"/>")
        );
        assert_eq!(
            select("group/list-service/ruleset", bound),
            Ok(None),
            "not the default namespace"
        );
        assert_eq!(select("group/list-service/x:ruleset", bound), Ok(None));
        assert_eq!(
            select("group/list-service/zz:ruleset", bound),
            Err(Bad::Undeclared),
            "the document's own"
        );
        assert_eq!(select("group/nothing/q:ruleset", bound), Err(Bad::Undeclared));
        assert_eq!(select("group/list-service/@q:uri", bound), Err(Bad::Undeclared));
        assert_eq!(select("group/list-service[@q:uri=\"a\"]", bound), Err(Bad::Undeclared));
        assert_eq!(
            select("group/list-service/@uri", bound),
            Ok(Some(Selected::Attribute("sip:t@g".into())))
        );
        assert_eq!(select("group/list-service/@x:uri", bound), Ok(None));
    }
}
