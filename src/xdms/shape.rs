//! What documents of each usage have to look like: schemas as tables, and a walk that holds a document against one.
//!
//! Start at [`check`]. The tables say what this server relies on: which elements, in which order, with which attributes,
//! and what must not be there twice (XD-021, XD-045; RFC 4826 §3.2, §4.2; RFC 4745 §13; the OMA schemas for groups).
//! Elements of other namespaces are let through wherever the schema leaves room for them (XD-019). [`comes_before`] puts
//! new elements where the schema wants them. No recursion (XD-047).

use std::collections::HashSet;

use roxmltree::{Document, Node};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::groups::{Flaw, LIST_SERVICE, LISTS};
use super::ruleset::COMMON;
use super::selector::namespace_of;
use crate::content::xml::attribute;

/// The namespace of rls-services documents.
pub const RLS_SERVICES: &str = "urn:ietf:params:xml:ns:rls-services";

/// One type of element.
pub struct Kind {
    attributes: &'static [(&'static str, Needed, Type)],
    /// Children in their order.
    slots: &'static [Slot],
    /// Where elements of other namespaces may stand.
    others: Others,
    /// Elements of other namespaces that are looked into all the same.
    known: &'static [(Name, &'static Kind)],
    /// Child, its attribute, and how the conflict names it: no two alike.
    unique: &'static [(Name, &'static str, &'static str)],
    text: Type,
}

type Name = (&'static str, &'static str);

/// One place in a sequence: any of these, so often.
struct Slot {
    any: &'static [(Name, &'static Kind)],
    least: usize,
    most: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    Yes,
    No,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Behind all others.
    Last,
    Anywhere,
}

/// Simple types, as far as they are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Any,
    /// A URI: not empty and without spaces.
    Uri,
    /// One below the XCAP root, without leading slash (XD-022).
    Relative,
    /// One of HTTP, complete (XD-022).
    Absolute,
    Boolean,
    /// A boolean, or a word of older documents (XD-029).
    Handling,
    Count,
    Time,
}

impl Type {
    fn fits(self, text: &str) -> bool {
        let text = text.trim();
        let boolean = matches!(text, "true" | "false" | "1" | "0");
        match self {
            Self::Any => true,
            Self::Uri | Self::Relative | Self::Absolute => {
                !text.is_empty() && !text.contains(|c: char| c.is_whitespace())
            }
            Self::Boolean => boolean,
            Self::Handling => boolean || matches!(text, "allow" | "block"),
            Self::Count => !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()),
            Self::Time => OffsetDateTime::parse(text, &Rfc3339).is_ok(),
        }
    }
}

impl Type {
    /// What is no matter of the schema (RFC 4826 §3.4.5).
    fn leads_somewhere(self, text: &str) -> bool {
        let text = text.trim();
        let scheme = text.split(['/', '?', '#']).next().and_then(|head| head.split_once(':'));
        match self {
            Self::Relative => scheme.is_none() && !text.starts_with('/'),
            Self::Absolute => scheme.is_some_and(|(scheme, _)| {
                let rest = text.get(scheme.len() + 1..).and_then(|rest| rest.strip_prefix("//"));
                let http = ["http", "https"].iter().any(|one| scheme.eq_ignore_ascii_case(one));
                http && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
            }),
            _ => true,
        }
    }
}

const ALL: usize = usize::MAX;

const fn plain() -> Kind {
    Kind {
        attributes: &[],
        slots: &[],
        others: Others::Anywhere,
        known: &[],
        unique: &[],
        text: Type::Any,
    }
}

const fn simple(text: Type) -> Kind {
    Kind { text, ..plain() }
}

/// Any content.
pub static ANY: Kind = plain();
static BOOLEAN: Kind = simple(Type::Boolean);
static HANDLING: Kind = simple(Type::Handling);
static COUNT: Kind = simple(Type::Count);
static TIME: Kind = simple(Type::Time);
static URI: Kind = simple(Type::Uri);

const fn lists(name: &'static str) -> Name {
    (LISTS, name)
}

const fn group(name: &'static str) -> Name {
    (LIST_SERVICE, name)
}

const fn policy(name: &'static str) -> Name {
    (COMMON, name)
}

// --- resource-lists, RFC 4826 §3.2 ---------------------------------------------------------------------------------------

const ENTRIES: &[(Name, &str, &str)] = &[
    (lists("list"), "name", "list/@name"),
    (lists("entry"), "uri", "entry/@uri"),
    (lists("entry-ref"), "ref", "entry-ref/@ref"),
    (lists("external"), "anchor", "external/@anchor"),
];
const DISPLAY: Slot = Slot { any: &[(lists("display-name"), &ANY)], least: 0, most: 1 };

/// A resource-lists document, and a list of group usages.
pub static RESOURCE_LISTS: Kind = Kind {
    slots: &[Slot { any: &[(lists("list"), &LIST)], least: 0, most: ALL }],
    unique: ENTRIES,
    ..plain()
};
static LIST: Kind = Kind {
    slots: &[
        DISPLAY,
        Slot {
            any: &[
                (lists("list"), &LIST),
                (lists("entry"), &ENTRY),
                (lists("entry-ref"), &ENTRY_REF),
                (lists("external"), &EXTERNAL),
            ],
            least: 0,
            most: ALL,
        },
    ],
    others: Others::Last,
    unique: ENTRIES,
    ..plain()
};
static ENTRY: Kind =
    Kind { attributes: &[("uri", Needed::Yes, Type::Uri)], slots: &[DISPLAY], ..plain() };
static ENTRY_REF: Kind =
    Kind { attributes: &[("ref", Needed::Yes, Type::Relative)], slots: &[DISPLAY], ..plain() };
static EXTERNAL: Kind =
    Kind { attributes: &[("anchor", Needed::Yes, Type::Absolute)], slots: &[DISPLAY], ..plain() };

// --- rls-services, RFC 4826 §4.2 -----------------------------------------------------------------------------------------

/// A document of services; what a `list` of theirs holds is of resource-lists.
pub static RLS: Kind = Kind {
    slots: &[Slot { any: &[((RLS_SERVICES, "service"), &SERVICE)], least: 0, most: ALL }],
    unique: &[((RLS_SERVICES, "service"), "uri", "rls-services/service/@uri")],
    ..plain()
};
static SERVICE: Kind = Kind {
    attributes: &[("uri", Needed::Yes, Type::Uri)],
    slots: &[
        Slot {
            any: &[((RLS_SERVICES, "list"), &LIST), ((RLS_SERVICES, "resource-list"), &URI)],
            least: 1,
            most: 1,
        },
        Slot { any: &[((RLS_SERVICES, "packages"), &PACKAGES)], least: 0, most: 1 },
    ],
    others: Others::Last,
    ..plain()
};
static PACKAGES: Kind = Kind {
    slots: &[Slot { any: &[((RLS_SERVICES, "package"), &ANY)], least: 0, most: ALL }],
    ..plain()
};

// --- common policy, RFC 4745 §13 -----------------------------------------------------------------------------------------

/// A document of rules, and the rules of a group.
pub static RULESET: Kind = Kind {
    slots: &[Slot { any: &[(policy("rule"), &RULE)], least: 0, most: ALL }],
    unique: &[(policy("rule"), "id", "ruleset/rule/@id")],
    ..plain()
};
static RULE: Kind = Kind {
    attributes: &[("id", Needed::Yes, Type::Uri)],
    slots: &[
        Slot { any: &[(policy("conditions"), &CONDITIONS)], least: 0, most: 1 },
        Slot { any: &[(policy("actions"), &ACTIONS)], least: 0, most: 1 },
        Slot { any: &[(policy("transformations"), &TRANSFORMATIONS)], least: 0, most: 1 },
    ],
    ..plain()
};
static CONDITIONS: Kind = Kind {
    slots: &[Slot {
        any: &[
            (policy("identity"), &IDENTITY),
            (policy("sphere"), &SPHERE),
            (policy("validity"), &VALIDITY),
        ],
        least: 0,
        most: ALL,
    }],
    ..plain()
};
static IDENTITY: Kind = Kind {
    slots: &[Slot {
        // XD-032: `id` is of older documents.
        any: &[(policy("one"), &ONE), (policy("many"), &MANY), (policy("id"), &URI)],
        least: 0,
        most: ALL,
    }],
    ..plain()
};
static ONE: Kind = Kind { attributes: &[("id", Needed::Yes, Type::Uri)], ..plain() };
static MANY: Kind = Kind {
    attributes: &[("domain", Needed::No, Type::Uri)],
    slots: &[Slot { any: &[(policy("except"), &EXCEPT)], least: 0, most: ALL }],
    ..plain()
};
static EXCEPT: Kind = Kind {
    attributes: &[("id", Needed::No, Type::Uri), ("domain", Needed::No, Type::Uri)],
    ..plain()
};
static SPHERE: Kind = Kind { attributes: &[("value", Needed::Yes, Type::Any)], ..plain() };
static VALIDITY: Kind = Kind {
    slots: &[Slot {
        any: &[(policy("from"), &TIME), (policy("until"), &TIME)],
        least: 2,
        most: ALL,
    }],
    ..plain()
};
static ACTIONS: Kind = Kind {
    known: &[
        (group("allow-conference-state"), &BOOLEAN),
        (group("allow-invite-users-dynamically"), &BOOLEAN),
        (group("join-handling"), &HANDLING),
        (group("allow-initiate-conference"), &BOOLEAN),
        (group("allow-anonymity"), &BOOLEAN),
        (group("is-key-participant"), &BOOLEAN),
    ],
    ..plain()
};
static TRANSFORMATIONS: Kind = plain();

// --- groups, OMA ---------------------------------------------------------------------------------------------------------

/// A group document.
pub static GROUP: Kind = Kind {
    slots: &[Slot { any: &[(group("list-service"), &LIST_SERVICE_KIND)], least: 1, most: ALL }],
    unique: &[(group("list-service"), "uri", "group/list-service/@uri")],
    ..plain()
};
static LIST_SERVICE_KIND: Kind = Kind {
    attributes: &[("uri", Needed::Yes, Type::Uri)],
    slots: &[
        Slot { any: &[(group("display-name"), &ANY)], least: 0, most: 1 },
        Slot { any: &[(group("list"), &GROUP_LIST)], least: 0, most: 1 },
        Slot { any: &[(group("invite-members"), &BOOLEAN)], least: 0, most: 1 },
        Slot { any: &[(group("max-participant-count"), &COUNT)], least: 0, most: 1 },
    ],
    others: Others::Last,
    known: &[(policy("ruleset"), &RULESET)],
    ..plain()
};
static GROUP_LIST: Kind = Kind {
    slots: &[Slot {
        any: &[(group("entry"), &ENTRY), (group("external"), &EXTERNAL)],
        least: 0,
        most: ALL,
    }],
    unique: &[
        (group("entry"), "uri", "list/entry/@uri"),
        (group("external"), "anchor", "list/external/@anchor"),
    ],
    ..plain()
};

/// Holds a document against the type its root has to be of.
///
/// XD-045: what the schema says goes before what must be unique, and that before other constraints.
///
/// # Errors
/// The first [`Flaw::Schema`], else the first [`Flaw::NotUnique`], else the first [`Flaw::Constraint`].
pub fn check(tree: &Document<'_>, root: Name, kind: &'static Kind) -> Result<(), Flaw> {
    let element = tree.root_element();
    if name_of(element) != (Some(root.0), root.1) {
        return Err(Flaw::Schema("the root is none of this usage"));
    }
    let (mut twice, mut astray) = (None, None);
    let mut open = vec![(element, kind)];
    while let Some((node, kind)) = open.pop() {
        astray = astray.or(attributes(node, kind)?);
        children(node, kind, &mut open)?;
        if twice.is_none() {
            twice = repeated(node, kind);
        }
    }
    match twice.map(Flaw::NotUnique).or(astray) {
        None => Ok(()),
        Some(flaw) => Err(flaw),
    }
}

fn name_of<'a>(node: Node<'a, '_>) -> (Option<&'a str>, &'a str) {
    (namespace_of(node), node.tag_name().name())
}

fn is(name: Name, other: (Option<&str>, &str)) -> bool {
    other == (Some(name.0), name.1)
}

/// What is against the schema is an error; a reference that leads nowhere is given back.
fn attributes(node: Node<'_, '_>, kind: &Kind) -> Result<Option<Flaw>, Flaw> {
    let mut astray = None;
    for (name, needed, of) in kind.attributes {
        match attribute(node, None, name) {
            Some(value) if !of.fits(value) => {
                return Err(Flaw::Schema("an attribute has no value of its type"));
            }
            None if *needed == Needed::Yes => {
                return Err(Flaw::Schema("an attribute is missing that has to be there"));
            }
            Some(value) if !of.leads_somewhere(value) => {
                astray = Some(Flaw::Constraint("a reference is not of its kind"));
            }
            _ => {}
        }
    }
    let simple = kind.text != Type::Any;
    if simple && !kind.text.fits(node.text().unwrap_or_default()) {
        return Err(Flaw::Schema("an element has no value of its type"));
    }
    Ok(astray)
}

/// Children in their order; those with a type of their own are looked at later.
fn children<'a, 'i>(
    node: Node<'a, 'i>,
    kind: &'static Kind,
    open: &mut Vec<(Node<'a, 'i>, &'static Kind)>,
) -> Result<(), Flaw> {
    let (mut slot, mut count, mut behind) = (0, 0, false);
    for child in node.children().filter(Node::is_element) {
        let name = name_of(child);
        if let Some((at, inner)) = kind.slot_of(name) {
            if at < slot || behind {
                return Err(Flaw::Schema("elements are out of order"));
            }
            if at > slot {
                leave(kind, slot..at, count)?;
                (slot, count) = (at, 0);
            }
            count += 1;
            if count > kind.slots[at].most {
                return Err(Flaw::Schema("an element is there too often"));
            }
            open.push((child, inner));
            continue;
        }
        if let Some((_, inner)) = kind.known.iter().find(|(known, _)| is(*known, name)) {
            open.push((child, inner));
        } else if kind.slots.iter().flat_map(|s| s.any).any(|((uri, _), _)| name.0 == Some(*uri)) {
            return Err(Flaw::Schema("an element is where it does not belong"));
        }
        behind = kind.others == Others::Last;
    }
    leave(kind, slot..kind.slots.len(), count)
}

/// Whether the places that are left behind have what they need.
fn leave(kind: &Kind, slots: std::ops::Range<usize>, first: usize) -> Result<(), Flaw> {
    for (n, slot) in kind.slots[slots].iter().enumerate() {
        let count = if n == 0 { first } else { 0 };
        if count < slot.least {
            return Err(Flaw::Schema("an element is missing that has to be there"));
        }
    }
    Ok(())
}

fn repeated(node: Node<'_, '_>, kind: &Kind) -> Option<&'static str> {
    let mut seen = HashSet::new();
    for child in node.children().filter(Node::is_element) {
        for (name, key, field) in kind.unique.iter().filter(|(name, ..)| is(*name, name_of(child)))
        {
            // XD-021: as strings, with their case.
            if let Some(value) = attribute(child, None, key)
                && !seen.insert((name, value))
            {
                return Some(field);
            }
        }
    }
    None
}

impl Kind {
    fn slot_of(&self, name: (Option<&str>, &str)) -> Option<(usize, &'static Kind)> {
        self.slots.iter().enumerate().find_map(|(at, slot)| {
            slot.any.iter().find(|(known, _)| is(*known, name)).map(|(_, kind)| (at, *kind))
        })
    }

    fn child(&self, name: (Option<&str>, &str)) -> Option<&'static Kind> {
        let known = || self.known.iter().find(|(known, _)| is(*known, name)).map(|(_, kind)| *kind);
        self.slot_of(name).map(|(_, kind)| kind).or_else(known)
    }
}

/// Whether a new child belongs before one that is there (RFC 4825 §8.2.3: the outcome has to fit the schema).
pub fn comes_before(
    root: &'static Kind,
    parent: Node<'_, '_>,
    new: (Option<&str>, &str),
    there: (Option<&str>, &str),
) -> bool {
    let mut down: Vec<_> =
        parent.ancestors().filter(Node::is_element).map(|node| name_of(node)).collect();
    down.pop(); // the root, whose type is given
    let mut kind = Some(root);
    while let (Some(of), Some(name)) = (kind, down.pop()) {
        kind = of.child(name);
    }
    let Some(kind) = kind else { return false };
    let place = |name| kind.slot_of(name).map_or(kind.slots.len(), |(at, _)| at);
    place(new) < place(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, root: Name, kind: &'static Kind) -> Result<(), &'static str> {
        let tree = Document::parse(text).expect("XML");
        check(&tree, root, kind).map_err(|flaw| match flaw {
            Flaw::Schema(_) => "schema",
            Flaw::NotUnique(field) => field,
            Flaw::Constraint(_) => "constraint",
            other => panic!("{other}"),
        })
    }

    /// Proves XD-021, XD-022.
    #[test]
    fn lists_have_their_order_and_their_keys() {
        let cases: &[(&str, Result<(), &str>)] = &[
            ("", Ok(())),
            ("<list/>", Ok(())),
            (
                "<list name='a'><display-name>A</display-name><entry uri='sip:a@h'/><list/></list>",
                Ok(()),
            ),
            (
                "<list><entry-ref ref='x'/><external anchor='http://h'/><entry uri='a'/><x:y/></list>",
                Ok(()),
            ),
            ("<x:y/><list/><x:y/>", Ok(())),
            ("<list><x:y/><entry uri='a'/></list>", Err("schema")),
            ("<list><entry uri='a'/><display-name>A</display-name></list>", Err("schema")),
            ("<list><display-name/><display-name/></list>", Err("schema")),
            ("<list><entry/></list>", Err("schema")),
            ("<list><entry uri=''/></list>", Err("schema")),
            ("<list><entry-ref/></list>", Err("schema")),
            ("<list><external/></list>", Err("schema")),
            ("<list><entry uri='a'><entry uri='b'/></entry></list>", Err("schema")),
            ("<list><unknown/></list>", Err("schema")),
            ("<entry uri='a'/>", Err("schema")),
            ("<list name='a'/><list name='b'/><list name='A'/>", Ok(())),
            ("<list name='a'/><list name='a'/>", Err("list/@name")),
            ("<list><list name='a'/><list/><list/><list name='a'/></list>", Err("list/@name")),
            ("<list name='a'><list name='a'/></list>", Ok(())),
            ("<list><entry uri='a'/><entry uri='a'/></list>", Err("entry/@uri")),
            ("<list><entry-ref ref='a'/><entry-ref ref='a'/></list>", Err("entry-ref/@ref")),
            ("<list><external anchor='a'/><external anchor='a'/></list>", Err("external/@anchor")),
            ("<list><entry uri='a'/><entry uri='a'/></list><list><entry/></list>", Err("schema")),
            ("<list><entry-ref ref='resource-lists/users/sip:a@h/index/~~/x'/></list>", Ok(())),
            ("<list><entry-ref ref='/resource-lists/users/a/index'/></list>", Err("constraint")),
            ("<list><entry-ref ref='http://h/x'/></list>", Err("constraint")),
            (
                "<list><external anchor='https://h/x/sip:a@h'/><external anchor='HTTP://h'/></list>",
                Ok(()),
            ),
            ("<list><external anchor='resource-lists/users/a/index'/></list>", Err("constraint")),
            ("<list><external anchor='file:///etc/passwd'/></list>", Err("constraint")),
            ("<list><external anchor='https:x'/></list>", Err("constraint")),
            ("<list><external anchor='https:///x'/></list>", Err("constraint")),
        ];
        for (inside, want) in cases {
            let text = format!(
                "<resource-lists xmlns='{LISTS}' xmlns:x='urn:x'>{inside}</resource-lists>"
            );
            assert_eq!(
                checked(&text, (LISTS, "resource-lists"), &RESOURCE_LISTS),
                *want,
                "{inside}"
            );
        }
        let other = "<list xmlns='urn:ietf:params:xml:ns:resource-lists'/>";
        assert_eq!(checked(other, (LISTS, "resource-lists"), &RESOURCE_LISTS), Err("schema"));
    }

    #[test]
    fn services_have_one_list_and_a_uri_of_their_own() {
        let cases: &[(&str, Result<(), &str>)] = &[
            (
                "<service uri='a'><list name='t'><l:entry uri='b'/></list><packages><package>presence</package></packages></service>",
                Ok(()),
            ),
            ("<service uri='a'><resource-list>http://h/x</resource-list></service>", Ok(())),
            ("<service uri='a'/>", Err("schema")),
            ("<service><resource-list>http://h/x</resource-list></service>", Err("schema")),
            ("<service uri='a'><resource-list> </resource-list></service>", Err("schema")),
            (
                "<service uri='a'><packages/><resource-list>h</resource-list></service>",
                Err("schema"),
            ),
            ("<service uri='a'><resource-list>h</resource-list><list/></service>", Err("schema")),
            ("<service uri='a'><list><l:entry/></list></service>", Err("schema")),
            (
                "<service uri='a'><list/></service><service uri='a'><list/></service>",
                Err("rls-services/service/@uri"),
            ),
        ];
        for (inside, want) in cases {
            let text = format!(
                "<rls-services xmlns='{RLS_SERVICES}' xmlns:l='{LISTS}'>{inside}</rls-services>"
            );
            assert_eq!(checked(&text, (RLS_SERVICES, "rls-services"), &RLS), *want, "{inside}");
        }
    }

    #[test]
    fn rules_have_the_shape_of_common_policy() {
        let rule = |inside: &str| format!("<rule id='a'>{inside}</rule>");
        let conditions = |inside: &str| rule(&format!("<conditions>{inside}</conditions>"));
        let from = "<from>2030-01-01T00:00:00Z</from>";
        let until = "<until>2031-01-01T00:00:00+01:00</until>";
        let cases: &[(String, Result<(), &str>)] = &[
            (String::new(), Ok(())),
            (rule("<conditions/><actions/><transformations/>"), Ok(())),
            (rule("<x:y/>"), Ok(())),
            (rule("<actions/><conditions/>"), Err("schema")),
            (rule("<actions/><actions/>"), Err("schema")),
            (rule("<unknown/>"), Err("schema")),
            ("<rule/>".to_owned(), Err("schema")),
            ("<rule id='a'/><rule id='b'/>".to_owned(), Ok(())),
            ("<rule id='a'/><rule id='a'/>".to_owned(), Err("ruleset/rule/@id")),
            (
                conditions(
                    "<identity><one id='a'/><id>b</id><many domain='d'><except id='x'/></many></identity>",
                ),
                Ok(()),
            ),
            (conditions("<identity><one/></identity>"), Err("schema")),
            (conditions("<identity><two id='a'/></identity>"), Err("schema")),
            (conditions("<identity><many><one id='a'/></many></identity>"), Err("schema")),
            (conditions("<x:y/><identity/><x:y/><sphere value='w'/>"), Ok(())),
            (conditions("<sphere/>"), Err("schema")),
            (conditions("<one id='a'/>"), Err("schema")),
            (conditions(&format!("<validity>{from}{until}</validity>")), Ok(())),
            (conditions("<validity/>"), Err("schema")),
            (conditions(&format!("<validity>{from}<until>soon</until></validity>")), Err("schema")),
            (
                rule(
                    "<actions><g:allow-anonymity> true </g:allow-anonymity><g:join-handling>allow</g:join-handling></actions>",
                ),
                Ok(()),
            ),
            (rule("<actions><g:allow-anonymity>TRUE</g:allow-anonymity></actions>"), Err("schema")),
            (rule("<actions><g:join-handling>maybe</g:join-handling></actions>"), Err("schema")),
        ];
        for (inside, want) in cases {
            let text = format!(
                "<ruleset xmlns='{COMMON}' xmlns:g='{LIST_SERVICE}' xmlns:x='urn:x'>{inside}</ruleset>"
            );
            assert_eq!(checked(&text, (COMMON, "ruleset"), &RULESET), *want, "{inside}");
        }
    }

    #[test]
    fn groups_have_the_shape_of_oma() {
        let service = |inside: &str| format!("<list-service uri='sip:t@g'>{inside}</list-service>");
        let cases: &[(String, Result<(), &str>)] = &[
            (String::new(), Err("schema")),
            (service(""), Ok(())),
            (
                service(
                    "<display-name/><list/><invite-members>true</invite-members><max-participant-count>20</max-participant-count><x:y/><p:ruleset/><x:y/>",
                ),
                Ok(()),
            ),
            (service("<list/><display-name/>"), Err("schema")),
            (service("<x:y/><list/>"), Err("schema")),
            (service("<list/><list/>"), Err("schema")),
            (service("<invite-members>yes</invite-members>"), Err("schema")),
            (service("<max-participant-count>-1</max-participant-count>"), Err("schema")),
            (service("<p:ruleset><p:rule/></p:ruleset>"), Err("schema")),
            (
                service("<p:ruleset><p:rule id='a'/><p:rule id='a'/></p:ruleset>"),
                Err("ruleset/rule/@id"),
            ),
            (service("<list><entry uri='a'/><x:y/><external anchor='http://h'/></list>"), Ok(())),
            (service("<list><entry/></list>"), Err("schema")),
            (service("<list><list/></list>"), Err("schema")),
            (service("<list><entry uri='a'/><entry uri='a'/></list>"), Err("list/entry/@uri")),
            ("<list-service/>".to_owned(), Err("schema")),
            (service("").repeat(2), Err("group/list-service/@uri")),
        ];
        for (inside, want) in cases {
            let text = format!(
                "<group xmlns='{LIST_SERVICE}' xmlns:p='{COMMON}' xmlns:x='urn:x'>{inside}</group>"
            );
            assert_eq!(checked(&text, (LIST_SERVICE, "group"), &GROUP), *want, "{inside}");
        }
    }

    /// Proves XD-010.
    #[test]
    fn new_elements_have_their_place() {
        let text = format!(
            "<group xmlns='{LIST_SERVICE}'><list-service uri='a'><list/></list-service></group>"
        );
        let tree = Document::parse(&text).expect("XML");
        let service = tree.root_element().first_element_child().expect("a service");
        let own = |name| (Some(LIST_SERVICE), name);
        let cases = [
            (own("display-name"), own("list"), true),
            (own("invite-members"), own("list"), false),
            (own("max-participant-count"), (Some(COMMON), "ruleset"), true),
            ((Some("urn:x"), "y"), own("list"), false),
            ((Some("urn:x"), "y"), (Some(COMMON), "ruleset"), false),
            (own("list"), (Some("urn:x"), "y"), true),
        ];
        for (new, there, want) in cases {
            assert_eq!(comes_before(&GROUP, service, new, there), want, "{new:?} {there:?}");
        }
    }
}
