//! Group documents: XML into plain values (OMA XDM Group, RFC 4745).
//!
//! Start at [`Group::parse`]. Reads leniently what other servers wrote (XD-019, XD-029, XD-030) and can say what a strict
//! server must refuse ([`Group::flaw`], XD-045). Decides nothing: see `access` and `resolver`.

use roxmltree::{Document, Node};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::content::service_settings::BadSettings;
use crate::content::xml::{self, BadXml, Bounds, attribute, escape};

/// Namespace of group documents.
pub const LIST_SERVICE: &str = "urn:oma:xml:poc:list-service";
const COMMON: &str = "urn:ietf:params:xml:ns:common-policy";
const OMA_COMMON: &str = "urn:oma:xml:xdm:common-policy";
const EXTENSIONS: &str = "urn:oma:xml:xdm:extensions";
const LISTS: &str = "urn:ietf:params:xml:ns:resource-lists";

/// XD-047: bounds of a document.
pub const BOUNDS: Bounds =
    Bounds { bytes: 1024 * 1024, depth: 32, elements: 20_000, attributes: 64, text: 64 * 1024 };

/// One group document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Normally one.
    pub services: Vec<ListService>,
    /// The first thing a server must not take (XD-045), if there is one.
    pub flaw: Option<Flaw>,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListService {
    /// The group identity.
    pub uri: String,
    /// Its name.
    pub display: Option<String>,
    /// Members and references in document order.
    pub list: Vec<Member>,
    /// The server invites the members.
    pub invite_members: bool,
    /// Most participants.
    pub max_participants: Option<u64>,
    /// What the group may be used for; `None` for everything.
    pub supported: Option<Vec<Service>>,
    /// There is a schedule, which nobody here can read.
    pub scheduled: bool,
    /// `None`: the document has no rules at all (XD-033).
    pub rules: Option<Vec<Rule>>,
    /// What was read leniently, for the log.
    pub warnings: Vec<&'static str>,
}

/// One child of a group's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// A URI.
    Entry(String),
    /// The anchor of a list elsewhere.
    External(String),
}

/// One `oxe:service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which enabler.
    pub enabler: String,
    /// Whether it lets pager-mode messages through.
    pub pager_mode: bool,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All have to hold; none means everybody (XD-031).
    pub conditions: Vec<Condition>,
    /// What it grants.
    pub grants: Grants,
    /// XD-030: it needs something we do not do, so it never matches.
    pub beyond_us: bool,
}

/// What rules grant; absent is false (XD-033).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grants {
    /// May send a page.
    pub initiate: bool,
    /// May hide who they are.
    pub anonymity: bool,
    /// Is invited first.
    pub key_participant: bool,
    /// May subscribe to the conference.
    pub conference_state: bool,
    /// May add users.
    pub invite_dynamically: bool,
    /// May join.
    pub join: bool,
}

impl Grants {
    /// XD-033: rules only ever add.
    pub fn join_with(&mut self, other: Self) {
        self.initiate |= other.initiate;
        self.anonymity |= other.anonymity;
        self.key_participant |= other.key_participant;
        self.conference_state |= other.conference_state;
        self.invite_dynamically |= other.invite_dynamically;
        self.join |= other.join;
    }
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
    Validity(Vec<(OffsetDateTime, OffsetDateTime)>),
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

/// Why a document is not taken, in the words of an XCAP conflict (RFC 4825 §11).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Not UTF-8.
    #[error("the document is not UTF-8")]
    NotUtf8,
    /// Not XML, or XML that is refused (XD-047).
    #[error("not well-formed: {0}")]
    NotWellFormed(&'static str),
    /// Not this kind of document.
    #[error("not valid: {0}")]
    Schema(&'static str),
    /// Something twice that may be there once.
    #[error("not unique: {0}")]
    NotUnique(&'static str),
    /// A limit of this server.
    #[error("{0}")]
    Constraint(&'static str),
}

impl From<BadXml> for Flaw {
    fn from(bad: BadXml) -> Self {
        match bad {
            BadXml::TooLarge => Self::Constraint("the document is too large"),
            BadXml::Encoding => Self::NotUtf8,
            BadXml::Malformed(what) => Self::NotWellFormed(what),
        }
    }
}

impl From<BadSettings> for Flaw {
    fn from(bad: BadSettings) -> Self {
        match bad {
            BadSettings::Xml(bad) => bad.into(),
            BadSettings::Root => Self::Schema("the root is no service settings"),
        }
    }
}

/// XD-047: bytes into checked text: UTF-8 only, no DTD, bounded.
pub(super) fn checked(bytes: &[u8]) -> Result<&str, Flaw> {
    if bytes.len() > BOUNDS.bytes {
        return Err(Flaw::Constraint("the document is too large"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Flaw::NotUtf8)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    xml::decode(text.as_bytes())?; // refuses another declared encoding
    xml::check(text, &BOUNDS)?;
    Ok(text)
}

impl Group {
    /// Reads a group document.
    ///
    /// # Errors
    /// [`Flaw`] when nothing can be made of it; what can be read but not be taken from a user is in [`Group::flaw`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let text = checked(bytes)?;
        let document =
            Document::parse(text).map_err(|_| Flaw::NotWellFormed("not well-formed XML"))?;
        let root = document.root_element();
        if !is(root, LIST_SERVICE, "group") {
            return Err(Flaw::Schema("the root is no group"));
        }
        let mut flaw = None;
        let services: Vec<ListService> = children(root, LIST_SERVICE, "list-service")
            .map(|node| list_service(node, &mut flaw))
            .collect();
        if services.is_empty() {
            note(&mut flaw, Flaw::Schema("a group without list-service"));
        }
        Ok(Self { services, flaw })
    }
}

fn note(flaw: &mut Option<Flaw>, found: Flaw) {
    flaw.get_or_insert(found);
}

fn list_service(node: Node<'_, '_>, flaw: &mut Option<Flaw>) -> ListService {
    let mut service = ListService::default();
    match attribute(node, None, "uri").map(str::trim).filter(|uri| !uri.is_empty()) {
        Some(uri) => service.uri = uri.to_owned(),
        None => note(flaw, Flaw::Schema("a list-service without uri")),
    }
    // The first four are a sequence; other namespaces follow (6.1).
    let order = ["display-name", "list", "invite-members", "max-participant-count"];
    let mut place = 0;
    for child in node.children().filter(Node::is_element) {
        let name = child.tag_name().name();
        match child.tag_name().namespace() {
            Some(LIST_SERVICE) => {
                match order.iter().position(|known| *known == name) {
                    Some(at) if at + 1 > place => place = at + 1,
                    _ => note(flaw, Flaw::Schema("elements of list-service out of order")),
                }
                own_element(child, &mut service, flaw);
            }
            Some(COMMON) if name == "ruleset" => {
                place = order.len();
                let rules = children(child, COMMON, "rule").map(|r| rule(r, &mut service));
                let rules: Vec<Rule> = rules.collect();
                service.rules.get_or_insert_default().extend(rules);
            }
            Some(EXTENSIONS) if name == "supported-services" => {
                place = order.len();
                service.supported =
                    Some(children(child, EXTENSIONS, "service").map(supported).collect());
            }
            Some(EXTENSIONS) if name == "session-active-policy" => {
                place = order.len();
                service.scheduled |= children(child, EXTENSIONS, "schedule").next().is_some();
            }
            _ => place = order.len(),
        }
    }
    service
}

fn own_element(child: Node<'_, '_>, service: &mut ListService, flaw: &mut Option<Flaw>) {
    match child.tag_name().name() {
        "display-name" => service.display = child.text().map(|text| text.trim().to_owned()),
        "list" => {
            let mut seen = std::collections::HashSet::new();
            for node in child.children().filter(Node::is_element) {
                let (kind, name): (fn(String) -> Member, _) = if is(node, LIST_SERVICE, "entry") {
                    (Member::Entry, "uri")
                } else if is(node, LIST_SERVICE, "external") {
                    (Member::External, "anchor")
                } else {
                    continue;
                };
                match attribute(node, None, name).map(str::trim).filter(|v| !v.is_empty()) {
                    Some(value) => {
                        if !seen.insert((name, value.to_owned())) {
                            note(flaw, Flaw::NotUnique("list/entry/@uri"));
                        }
                        service.list.push(kind(value.to_owned()));
                    }
                    None => note(flaw, Flaw::Schema("a list entry without its address")),
                }
            }
        }
        "invite-members" => {
            service.invite_members = boolean(child, service, "invite-members is no boolean");
        }
        "max-participant-count" => match trimmed(child).parse() {
            Ok(count) => service.max_participants = Some(count),
            Err(_) => {
                // A limit nobody can read must not be no limit.
                service.max_participants = Some(0);
                service.warnings.push("max-participant-count is no number");
                note(flaw, Flaw::Schema("max-participant-count is no number"));
            }
        },
        _ => {}
    }
}

fn supported(node: Node<'_, '_>) -> Service {
    let mut media = None;
    for child in node.children().filter(Node::is_element) {
        match child.tag_name().name() {
            "group-media" => {
                media = Some(children(child, EXTENSIONS, "pager-mode-message").next().is_some());
            }
            "all-media-except" => {
                media = Some(children(child, EXTENSIONS, "pager-mode-message").next().is_none());
            }
            _ => {}
        }
    }
    Service {
        enabler: attribute(node, None, "enabler").unwrap_or_default().trim().to_owned(),
        pager_mode: media.unwrap_or(true),
    }
}

fn rule(node: Node<'_, '_>, service: &mut ListService) -> Rule {
    let conditions = children(node, COMMON, "conditions")
        .flat_map(|c| c.children().filter(Node::is_element))
        .map(condition)
        .collect();
    let mut grants = Grants::default();
    let mut beyond_us = false;
    for action in
        children(node, COMMON, "actions").flat_map(|a| a.children().filter(Node::is_element))
    {
        let known = match (action.tag_name().namespace(), action.tag_name().name()) {
            (Some(LIST_SERVICE), "allow-initiate-conference") => Some(&mut grants.initiate),
            (Some(LIST_SERVICE), "allow-anonymity") => Some(&mut grants.anonymity),
            (Some(LIST_SERVICE), "is-key-participant") => Some(&mut grants.key_participant),
            (Some(LIST_SERVICE), "allow-conference-state") => Some(&mut grants.conference_state),
            (Some(LIST_SERVICE), "allow-invite-users-dynamically") => {
                Some(&mut grants.invite_dynamically)
            }
            (Some(LIST_SERVICE), "join-handling") => {
                match trimmed(action) {
                    "allow" => grants.join = true,
                    "block" => {}
                    _ => grants.join |= boolean(action, service, "join-handling is no boolean"),
                }
                continue;
            }
            _ => None,
        };
        match known {
            Some(grant) => *grant |= boolean(action, service, "an action is no boolean"),
            None => beyond_us |= must_understand(action),
        }
    }
    beyond_us |= children(node, COMMON, "conditions")
        .chain(children(node, COMMON, "transformations"))
        .flat_map(|c| c.children().filter(Node::is_element))
        .any(|n| must_understand(n) && condition(n) == Condition::Unknown);
    Rule { conditions, grants, beyond_us }
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
        let read = |n: Node<'_, '_>| OffsetDateTime::parse(trimmed(n), &Rfc3339).ok();
        let (Some(from), Some(until)) = (read(*from), read(*until)) else {
            return Condition::Unknown;
        };
        spans.push((from, until));
    }
    Condition::Validity(spans)
}

/// XD-029: `true`, `1`, `false`, `0`; anything else is false, with a warning.
fn boolean(node: Node<'_, '_>, service: &mut ListService, warning: &'static str) -> bool {
    match trimmed(node) {
        "true" | "1" => true,
        "false" | "0" => false,
        _ => {
            service.warnings.push(warning);
            false
        }
    }
}

fn trimmed<'a>(node: Node<'a, '_>) -> &'a str {
    node.text().unwrap_or("").trim()
}

/// XD-019: by namespace and local name only.
fn is(node: Node<'_, '_>, namespace: &str, name: &str) -> bool {
    node.is_element()
        && node.tag_name().namespace() == Some(namespace)
        && node.tag_name().name() == name
}

fn children<'a, 'i: 'a>(
    node: Node<'a, 'i>,
    namespace: &'static str,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| is(*child, namespace, name))
}

/// A group document whose members may page it: they are invited, and each of them may send.
pub fn new_document(uri: &str, members: &[&str]) -> String {
    let mut out = format!(
        concat!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
            "<group xmlns=\"{}\"\n       xmlns:cp=\"{}\">\n",
            "  <list-service uri=\"{}\">\n    <list>\n"
        ),
        LIST_SERVICE,
        COMMON,
        escape(uri)
    );
    for member in members {
        out.push_str(&format!("      <entry uri=\"{}\"/>\n", escape(member)));
    }
    out.push_str(concat!(
        "    </list>\n",
        "    <invite-members>true</invite-members>\n",
        "    <cp:ruleset>\n",
        "      <cp:rule id=\"members\">\n",
        "        <cp:conditions>\n          <is-list-member/>\n        </cp:conditions>\n",
        "        <cp:actions>\n",
        "          <allow-initiate-conference>true</allow-initiate-conference>\n",
        "          <join-handling>true</join-handling>\n",
        "        </cp:actions>\n",
        "      </cp:rule>\n",
        "    </cp:ruleset>\n",
        "  </list-service>\n",
        "</group>\n"
    ));
    out
}

/// Reads the entries of a `list` element of a resource-lists document, without following anything.
pub(super) fn list_children(list: Node<'_, '_>) -> Vec<ListChild> {
    let value = |node: Node<'_, '_>, name: &str| {
        attribute(node, None, name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
    };
    let mut found = Vec::new();
    let mut open: Vec<Node<'_, '_>> = vec![list];
    // Document order without recursion: a node's children are pushed in reverse.
    while let Some(node) = open.pop() {
        if is(node, LISTS, "list") {
            let inside: Vec<_> = node.children().filter(Node::is_element).collect();
            open.extend(inside.into_iter().rev());
        } else if is(node, LISTS, "entry") {
            found.extend(value(node, "uri").map(ListChild::Entry));
        } else if is(node, LISTS, "entry-ref") {
            found.extend(value(node, "ref").map(ListChild::EntryRef));
        } else if is(node, LISTS, "external") {
            found.extend(value(node, "anchor").map(ListChild::External));
        }
    }
    found
}

/// What a flattened list element names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListChild {
    /// A URI.
    Entry(String),
    /// Relative to the XCAP root.
    EntryRef(String),
    /// Absolute.
    External(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(inside: &str) -> String {
        format!(
            "<g:group xmlns:g=\"{LIST_SERVICE}\" xmlns:p=\"{COMMON}\" xmlns:o=\"{OMA_COMMON}\" xmlns:x=\"{EXTENSIONS}\">\
             <g:list-service uri='sip:team@g'>{inside}</g:list-service></g:group>"
        )
    }

    fn service(inside: &str) -> ListService {
        Group::parse(group(inside).as_bytes()).unwrap().services.remove(0)
    }

    fn rule_of(conditions: &str, actions: &str) -> Rule {
        let rules = service(&format!(
            "<p:ruleset><p:rule id='r'><p:conditions>{conditions}</p:conditions><p:actions>{actions}</p:actions></p:rule></p:ruleset>"
        ));
        rules.rules.unwrap().remove(0)
    }

    /// Proves XD-019, XD-029.
    #[test]
    fn documents_are_read_by_namespace_and_leniently() {
        let one = service(
            "<g:display-name xml:lang='en'> Team </g:display-name><g:list><g:entry uri='sip:a@h'/><y:new xmlns:y='urn:y'/>\
             <g:external anchor='http://h/x'/></g:list><g:invite-members> 1 </g:invite-members>\
             <g:max-participant-count>20</g:max-participant-count><z:foreign xmlns:z='urn:z'/>",
        );
        assert_eq!(one.display.as_deref(), Some("Team"));
        assert_eq!(
            one.list,
            [Member::Entry("sip:a@h".into()), Member::External("http://h/x".into())]
        );
        assert!(one.invite_members);
        assert_eq!(one.max_participants, Some(20));
        assert_eq!((one.rules, one.supported), (None, None));

        let disorder = group("<g:invite-members>true</g:invite-members><g:list/>");
        let read = Group::parse(disorder.as_bytes()).unwrap();
        assert!(read.services[0].invite_members, "another order is read");
        assert_eq!(
            read.flaw,
            Some(Flaw::Schema("elements of list-service out of order")),
            "but not taken"
        );

        let wrong = service("<g:invite-members>TRUE</g:invite-members>");
        assert!(!wrong.invite_members);
        assert_eq!(wrong.warnings.len(), 1);

        for (text, join) in
            [("allow", true), ("block", false), ("true", true), ("0", false), ("yes", false)]
        {
            let rule = rule_of("", &format!("<g:join-handling>{text}</g:join-handling>"));
            assert_eq!(rule.grants.join, join, "{text}");
        }
        let two = format!(
            "<group xmlns='{LIST_SERVICE}'><list-service uri='sip:a@g'/><list-service uri='sip:b@g'/></group>"
        );
        assert_eq!(Group::parse(two.as_bytes()).unwrap().services.len(), 2);
    }

    /// Proves XD-030.
    #[test]
    fn what_must_be_understood_and_is_not_spoils_the_rule() {
        let action = "<g:allow-initiate-conference>true</g:allow-initiate-conference>";
        assert!(!rule_of("", action).beyond_us);
        assert!(
            !rule_of("", &format!("{action}<x:allow-expelling>true</x:allow-expelling>")).beyond_us
        );
        assert!(rule_of("", &format!("{action}<x:new-thing must-understand='true'/>")).beyond_us);
        assert!(rule_of("", &format!("{action}<x:new-thing x:must-understand='1'/>")).beyond_us);
        assert!(!rule_of("", &format!("{action}<x:new-thing must-understand='false'/>")).beyond_us);
    }

    #[test]
    fn conditions_are_read_and_unknown_ones_kept_as_such() {
        let cases = [
            ("<g:is-list-member/>", Condition::ListMember),
            ("<g:is-list-member>true</g:is-list-member>", Condition::ListMember),
            ("<g:is-list-member>no</g:is-list-member>", Condition::Unknown),
            ("<o:other-identity/>", Condition::OtherIdentity),
            ("<o:anonymous-request/>", Condition::AnonymousRequest),
            (
                "<o:external-list><o:entry anc='http://h/l'/></o:external-list>",
                Condition::ExternalList(vec!["http://h/l".into()]),
            ),
            ("<p:sphere value='work'/>", Condition::Unknown),
            ("<is-list-member xmlns='urn:x'/>", Condition::Unknown),
            ("<p:validity><p:from>2030-01-01T00:00:00Z</p:from></p:validity>", Condition::Unknown),
            (
                "<p:identity><p:one id='sip:a@h'/><p:id>sip:b@h</p:id><p:new/></p:identity>",
                Condition::Identity(vec![
                    Who::One("sip:a@h".into()),
                    Who::One("sip:b@h".into()),
                    Who::Unknown,
                ]),
            ),
            (
                "<p:identity><p:many domain='h'><p:except id='sip:a@h'/><p:except domain='x'/></p:many></p:identity>",
                Condition::Identity(vec![Who::Many {
                    domain: Some("h".into()),
                    except_ids: vec!["sip:a@h".into()],
                    except_domains: vec!["x".into()],
                }]),
            ),
            (
                "<p:identity><p:many><p:but id='sip:a@h'/></p:many></p:identity>",
                Condition::Identity(vec![Who::Unknown]),
            ),
        ];
        for (text, want) in cases {
            assert_eq!(rule_of(text, "").conditions, [want], "{text}");
        }
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = format!("<group xmlns='{LIST_SERVICE}'>{}", "<a>".repeat(100_000));
        let many = format!("<group xmlns='{LIST_SERVICE}'>{}</group>", "<a/>".repeat(20_001));
        let cases = [
            (b"<!DOCTYPE g [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><g>&x;</g>".to_vec(), "DTD"),
            (deep.into_bytes(), "deep"),
            (many.into_bytes(), "many elements"),
            (b"<group".to_vec(), "cut"),
            (b"<group xmlns='urn:other'/>".to_vec(), "another root"),
            (vec![0xff, 0xfe, b'<', 0], "UTF-16"),
            (b"<?xml version='1.0' encoding='latin1'?><g/>".to_vec(), "latin1"),
        ];
        for (bytes, name) in cases {
            assert!(Group::parse(&bytes).is_err(), "{name}");
        }
        let big = vec![b' '; BOUNDS.bytes + 1];
        assert_eq!(Group::parse(&big), Err(Flaw::Constraint("the document is too large")));
    }

    #[test]
    fn a_new_document_is_valid_and_lets_members_page() {
        let text = new_document("sip:team@groups.ims.test", &["sip:a@h", "sip:b&<\"@h"]);
        let group = Group::parse(text.as_bytes()).unwrap();
        assert_eq!(group.flaw, None);
        let service = &group.services[0];
        assert_eq!(service.list[1], Member::Entry("sip:b&<\"@h".into()));
        assert!(service.invite_members);
        let rules = service.rules.as_ref().unwrap();
        assert_eq!(rules[0].conditions, [Condition::ListMember]);
        assert!(rules[0].grants.initiate && !rules[0].grants.anonymity);
    }
}
