//! Parts of a document: XCAP node selectors, for reading (RFC 4825 §6.3).
//!
//! Start at [`select`]. Understands steps of names, `*`, positions and one attribute test, without prefixes; unprefixed
//! names are in the document's default namespace, that of its root (XD-004, XD-005). Changes nothing.

use roxmltree::{Document, Node};

use super::groups::{self, ListChild, list_children};
use crate::content::xml::attribute;

/// What a selector named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// An element, as it stands in the document (XD-046).
    Element(String),
    /// The value of an attribute.
    Attribute(String),
}

/// The one node a selector names; `None` for none, for several, or for a selector this module does not understand.
pub fn select(document: &[u8], selector: &str) -> Option<Selected> {
    let text = groups::checked(document).ok()?;
    let tree = Document::parse(text).ok()?;
    let steps = steps(selector)?;
    if let Some((last, steps)) = steps.split_last()
        && let Some(name) = last.strip_prefix('@')
    {
        let element = walk(&tree, steps)?;
        return attribute(element, None, name).map(|v| Selected::Attribute(v.to_owned()));
    }
    let element = walk(&tree, &steps)?;
    Some(Selected::Element(text[element.range()].to_owned()))
}

/// The children of the list (or the one entry) a reference points to; `None` if it is no `wanted` element.
pub(super) fn list_at(
    document: &[u8],
    selector: Option<&str>,
    wanted: &str,
) -> Option<Vec<ListChild>> {
    let text = groups::checked(document).ok()?;
    let tree = Document::parse(text).ok()?;
    let element = walk(&tree, &steps(selector?)?)?;
    (element.tag_name().name() == wanted).then(|| list_children(element))
}

/// Splits at slashes outside quotes.
fn steps(selector: &str) -> Option<Vec<&str>> {
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
    }
    steps.push(&selector[start..]);
    (quote.is_none() && steps.iter().all(|s| !s.is_empty()) && steps.len() <= 32).then_some(steps)
}

/// Follows the steps from the root; each has to name exactly one element.
fn walk<'a, 'i>(tree: &'a Document<'i>, steps: &[&str]) -> Option<Node<'a, 'i>> {
    let namespace = tree.root_element().tag_name().namespace();
    let mut at = tree.root();
    if steps.is_empty() {
        return None;
    }
    for step in steps {
        let step = Step::parse(step)?;
        let mut matching: Vec<Node<'a, 'i>> = at
            .children()
            .filter(Node::is_element)
            .filter(|n| {
                step.name == "*"
                    || (n.tag_name().name() == step.name && n.tag_name().namespace() == namespace)
            })
            .collect();
        // The position counts siblings of that name, the attribute test comes after (XD-004).
        if let Some(position) = step.position {
            matching = matching.get(position.checked_sub(1)?).map(|n| vec![*n])?;
        }
        if let Some((name, value)) = &step.test {
            matching.retain(|n| attribute(*n, None, name) == Some(value.as_str()));
        }
        let [one] = matching.as_slice() else { return None };
        at = *one;
    }
    Some(at)
}

struct Step<'a> {
    name: &'a str,
    position: Option<usize>,
    test: Option<(&'a str, String)>,
}

impl<'a> Step<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (name, mut rest) = match text.find('[') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        if name.is_empty() || name.contains([':', '@', '(', ' ']) {
            return None;
        }
        let mut step = Self { name, position: None, test: None };
        while !rest.is_empty() {
            let inside = rest.strip_prefix('[')?;
            if let Some(test) = inside.strip_prefix('@') {
                let (attribute, value) = test.split_once('=')?;
                let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
                let end = value[1..].find(quote)? + 1;
                if step.test.is_some() || attribute.contains(':') {
                    return None;
                }
                step.test = Some((attribute, unescape(&value[1..end])));
                rest = value[end + 1..].strip_prefix(']')?;
            } else {
                let (number, after) = inside.split_once(']')?;
                if step.position.is_some() || step.test.is_some() {
                    return None;
                }
                step.position = Some(number.parse().ok()?);
                rest = after;
            }
        }
        Some(step)
    }
}

/// XD-004: attribute values are XML-escaped inside a selector.
fn unescape(value: &str) -> String {
    value
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
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
            ("", None),
            ("resource-lists//list", None),
            ("resource-lists/list[", None),
            ("resource-lists/list[@name=\"c]", None),
            ("resource-lists/p:list", None),
        ];
        for (selector, want) in cases {
            assert_eq!(select(DOC.as_bytes(), selector), want, "{selector}");
        }
    }
}
