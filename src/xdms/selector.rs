//! Parts of a document: XCAP node selectors, for reading (RFC 4825 §6.3).
//!
//! Start at [`select`]. Understands steps of names, `*`, positions and one attribute test. Unprefixed names are in the
//! usage's default namespace, which is that of the root; prefixes mean what the query says (XD-004, XD-005). Changes
//! nothing.

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

/// Prefixes and the namespaces they stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings(Vec<(String, String)>);

/// The selector uses a prefix that nothing binds (XD-005).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a prefix without namespace")]
pub struct Undeclared;

impl Bindings {
    /// Reads a decoded query: `xmlns(p=uri)xmlns(q=uri)`. What is none of these is passed over.
    pub fn parse(query: &str) -> Self {
        let one = |part: &str| {
            let (prefix, uri) = part.split_once(')')?.0.split_once('=')?;
            Some((prefix.trim().to_owned(), uri.trim().to_owned()))
        };
        Self(query.split("xmlns(").skip(1).filter_map(one).collect())
    }

    fn namespace(&self, prefix: &str) -> Result<&str, Undeclared> {
        self.0.iter().find(|(p, _)| p == prefix).map(|(_, uri)| uri.as_str()).ok_or(Undeclared)
    }

    /// Namespace and local name; without a prefix the namespace is `default`.
    fn resolve<'a>(
        &'a self,
        name: &'a str,
        default: Option<&'a str>,
    ) -> Result<(Option<&'a str>, &'a str), Undeclared> {
        match name.split_once(':') {
            Some((prefix, local)) => Ok((Some(self.namespace(prefix)?), local)),
            None => Ok((default, name)),
        }
    }
}

/// The one node a selector names; `None` for none, for several, or for a selector this module does not understand.
///
/// # Errors
/// [`Undeclared`], whether there is such a node or not.
pub fn select(
    document: &[u8],
    selector: &str,
    bindings: &Bindings,
) -> Result<Option<Selected>, Undeclared> {
    let Some(steps) = steps(selector) else { return Ok(None) };
    let Some((text, tree)) =
        groups::admitted(document).and_then(|text| Some((text, Document::parse(text).ok()?)))
    else {
        return Ok(None);
    };
    if let Some((last, steps)) = steps.split_last()
        && let Some(name) = last.strip_prefix('@')
    {
        let (namespace, local) = bindings.resolve(name, None)?;
        let element = walk(&tree, steps, bindings)?;
        let value = element.and_then(|element| attribute(element, namespace, local));
        return Ok(value.map(|v| Selected::Attribute(v.to_owned())));
    }
    let element = walk(&tree, &steps, bindings)?;
    Ok(element.map(|element| Selected::Element(text[element.range()].to_owned())))
}

/// The children of the list (or the one entry) a reference points to; `None` if it is no `wanted` element.
pub(super) fn list_at(
    document: &[u8],
    selector: Option<&str>,
    wanted: &str,
) -> Option<Vec<ListChild>> {
    let tree = Document::parse(groups::admitted(document)?).ok()?;
    let element = walk(&tree, &steps(selector?)?, &Bindings::default()).ok()??;
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
fn walk<'a, 'i>(
    tree: &'a Document<'i>,
    steps: &[&str],
    bindings: &Bindings,
) -> Result<Option<Node<'a, 'i>>, Undeclared> {
    let default = tree.root_element().tag_name().namespace();
    let mut at = (!steps.is_empty()).then(|| tree.root());
    for step in steps {
        let Some(step) = Step::parse(step) else { return Ok(None) };
        let (namespace, local) = bindings.resolve(step.name, default)?;
        let test = match &step.test {
            Some((name, value)) => Some((bindings.resolve(name, None)?, value)),
            None => None,
        };
        let Some(node) = at else { continue }; // prefixes of later steps are still looked at
        let mut matching: Vec<Node<'a, 'i>> = node
            .children()
            .filter(Node::is_element)
            .filter(|n| {
                local == "*"
                    || (n.tag_name().name() == local && n.tag_name().namespace() == namespace)
            })
            .collect();
        // The position counts siblings of that name, the attribute test comes after (XD-004).
        if let Some(position) = step.position {
            let place = position.checked_sub(1).and_then(|at| matching.get(at).copied());
            matching = place.into_iter().collect();
        }
        if let Some(((namespace, name), value)) = test {
            matching.retain(|n| attribute(*n, namespace, name) == Some(value.as_str()));
        }
        at = match matching.as_slice() {
            [one] => Some(*one),
            _ => None,
        };
    }
    Ok(at)
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
        if name.is_empty() || name.starts_with(':') || name.contains(['@', '(', ' ']) {
            return None;
        }
        let mut step = Self { name, position: None, test: None };
        while !rest.is_empty() {
            let inside = rest.strip_prefix('[')?;
            if let Some(test) = inside.strip_prefix('@') {
                let (attribute, value) = test.split_once('=')?;
                let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
                let end = value[1..].find(quote)? + 1;
                if step.test.is_some() {
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
        ];
        for (selector, want) in cases {
            let got = select(DOC.as_bytes(), selector, &Bindings::default());
            assert_eq!(got, Ok(want), "{selector}");
        }
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
            Err(Undeclared),
            "the document's own"
        );
        assert_eq!(select("group/nothing/q:ruleset", bound), Err(Undeclared));
        assert_eq!(select("group/list-service/@q:uri", bound), Err(Undeclared));
        assert_eq!(select("group/list-service[@q:uri=\"a\"]", bound), Err(Undeclared));
        assert_eq!(
            select("group/list-service/@uri", bound),
            Ok(Some(Selected::Attribute("sip:t@g".into())))
        );
        assert_eq!(select("group/list-service/@x:uri", bound), Ok(None));
    }
}
