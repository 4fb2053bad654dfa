//! Rules of common policy: whom a rule is for, whatever it grants (RFC 4745, OMA XDM).
//!
//! Start at [`read`]; what the actions of a rule grant is the business of who calls: `groups` for what members may do,
//! `member_rules` for whom a user lets through. Applied by `access`. XD-019, XD-030 to XD-034.

use roxmltree::Node;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::groups::{Grants, LIST_SERVICE};
use crate::content::xml::attribute;

/// Namespace of rules (RFC 4745).
pub const COMMON: &str = "urn:ietf:params:xml:ns:common-policy";
/// Namespace of conditions that OMA adds.
pub const OMA_COMMON: &str = "urn:oma:xml:xdm:common-policy";
/// Namespace of actions that OMA adds.
pub const EXTENSIONS: &str = "urn:oma:xml:xdm:extensions";

/// From then, until then; the end is outside.
pub type Span = (OffsetDateTime, OffsetDateTime);

/// What rules grant. The default is what nobody grants (XD-033).
pub trait Permissions: Copy + Default + PartialEq {
    /// XD-033: rules only ever add.
    fn join_with(&mut self, other: Self);
    /// What both grant.
    fn meet_with(&mut self, other: Self);
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule<G = Grants> {
    /// All have to hold; none means everybody (XD-031).
    pub conditions: Vec<Condition>,
    /// What it grants.
    pub grants: G,
    /// XD-030: it needs something we do not do, so it never matches.
    pub beyond_us: bool,
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Any of these.
    Identity(Vec<Who>),
    /// The requester is in the group's own list.
    ListMember,
    /// The requester is in one of these lists.
    ExternalList(Vec<String>),
    /// Nobody names the requester.
    OtherIdentity,
    /// The request asks for anonymity.
    AnonymousRequest,
    /// Now is in one of these spans: from, until.
    Validity(Vec<Span>),
    /// Nothing we know, so it never holds (XD-031).
    Unknown,
}

/// Whom an identity condition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// This one.
    One(String),
    /// Everybody authenticated, in a domain if one is named, but not these.
    Many {
        /// Host part.
        domain: Option<String>,
        /// Not these.
        except_ids: Vec<String>,
        /// Not from there.
        except_domains: Vec<String>,
    },
    /// Nobody.
    Unknown,
}

/// Reads the rules of a ruleset. `action` reads one action into what the rule grants, and tells whether it knows it.
pub(super) fn read<G: Permissions>(
    ruleset: Node<'_, '_>,
    mut action: impl FnMut(Node<'_, '_>, &mut G) -> bool,
) -> Vec<Rule<G>> {
    children(ruleset, COMMON, "rule").map(|node| rule(node, &mut action)).collect()
}

fn rule<G: Permissions>(
    node: Node<'_, '_>,
    action: &mut impl FnMut(Node<'_, '_>, &mut G) -> bool,
) -> Rule<G> {
    let inside = |name| {
        children(node, COMMON, name).flat_map(|part| part.children().filter(Node::is_element))
    };
    let mut grants = G::default();
    // XD-030.
    let mut beyond_us = false;
    for node in inside("actions") {
        beyond_us |= !action(node, &mut grants) && must_understand(node);
    }
    beyond_us |= inside("conditions")
        .any(|node| must_understand(node) && condition(node) == Condition::Unknown);
    beyond_us |= inside("transformations").any(must_understand);
    Rule { conditions: inside("conditions").map(condition).collect(), grants, beyond_us }
}

fn must_understand(node: Node<'_, '_>) -> bool {
    node.attributes()
        .any(|a| a.name() == "must-understand" && matches!(a.value().trim(), "true" | "1"))
}

fn condition(node: Node<'_, '_>) -> Condition {
    match (node.tag_name().namespace(), node.tag_name().name()) {
        (Some(COMMON), "identity") => {
            Condition::Identity(node.children().filter(Node::is_element).map(who).collect())
        }
        (Some(COMMON), "validity") => validity(node),
        (Some(LIST_SERVICE), "is-list-member") => match trimmed(node) {
            "" | "true" | "1" => Condition::ListMember,
            _ => Condition::Unknown,
        },
        (Some(OMA_COMMON), "external-list") => Condition::ExternalList(
            children(node, OMA_COMMON, "entry")
                .filter_map(|e| attribute(e, None, "anc"))
                .map(|anchor| anchor.trim().to_owned())
                .collect(),
        ),
        (Some(OMA_COMMON), "other-identity") => Condition::OtherIdentity,
        (Some(OMA_COMMON), "anonymous-request") => Condition::AnonymousRequest,
        _ => Condition::Unknown,
    }
}

fn who(node: Node<'_, '_>) -> Who {
    if node.tag_name().namespace() != Some(COMMON) {
        return Who::Unknown;
    }
    match node.tag_name().name() {
        "one" => attribute(node, None, "id").map_or(Who::Unknown, |id| Who::One(id.trim().into())),
        // XD-032: the form of older documents.
        "id" => Who::One(trimmed(node).to_owned()),
        "many" => {
            let except = |name: &str| -> Vec<String> {
                children(node, COMMON, "except")
                    .filter_map(|e| attribute(e, None, name))
                    .map(|value| value.trim().to_owned())
                    .collect()
            };
            let known = node
                .children()
                .filter(Node::is_element)
                .all(|c| is(c, COMMON, "except") && (has(c, "id") || has(c, "domain")));
            if !known {
                // An exception we cannot read must not let anybody through.
                return Who::Unknown;
            }
            Who::Many {
                domain: attribute(node, None, "domain").map(|d| d.trim().to_owned()),
                except_ids: except("id"),
                except_domains: except("domain"),
            }
        }
        _ => Who::Unknown,
    }
}

fn has(node: Node<'_, '_>, name: &str) -> bool {
    attribute(node, None, name).is_some()
}

/// Pairs of `from` and `until`; anything else never holds.
fn validity(node: Node<'_, '_>) -> Condition {
    let times: Vec<Node<'_, '_>> = node.children().filter(Node::is_element).collect();
    let mut spans = Vec::new();
    for pair in times.chunks(2) {
        let [from, until] = pair else { return Condition::Unknown };
        if !is(*from, COMMON, "from") || !is(*until, COMMON, "until") {
            return Condition::Unknown;
        }
        let read = |node: Node<'_, '_>| date_time(trimmed(node));
        let (Some(from), Some(until)) = (read(*from), read(*until)) else {
            return Condition::Unknown;
        };
        spans.push((from, until));
    }
    Condition::Validity(spans)
}

/// A moment with its offset from UTC.
pub(super) fn date_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text.trim(), &Rfc3339).ok()
}

pub(super) fn trimmed<'a>(node: Node<'a, '_>) -> &'a str {
    node.text().unwrap_or("").trim()
}

/// XD-019: by namespace and local name only.
pub(super) fn is(node: Node<'_, '_>, namespace: &str, name: &str) -> bool {
    node.is_element()
        && node.tag_name().namespace() == Some(namespace)
        && node.tag_name().name() == name
}

pub(super) fn children<'a, 'i: 'a>(
    node: Node<'a, 'i>,
    namespace: &'static str,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| is(*child, namespace, name))
}
