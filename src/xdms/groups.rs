//! Group documents: XML into plain values (OMA XDM Group, RFC 4745).
//!
//! Start at [`Group::parse`]. Reads leniently what other servers wrote (XD-019, XD-029, XD-030) and can say what a strict
//! server must refuse ([`Group::flaw`], XD-045). Decides nothing: see `access` and `resolver`.

use roxmltree::{Document, Node};
use time::OffsetDateTime;

use super::ruleset::{self, COMMON, EXTENSIONS, Permissions, Rule, Span, children, is, trimmed};

use crate::content::service_settings::BadSettings;
use crate::content::xml::{self, BadXml, Bounds, attribute, escape};

/// Namespace of group documents.
pub const LIST_SERVICE: &str = "urn:oma:xml:poc:list-service";
pub(super) const LISTS: &str = "urn:ietf:params:xml:ns:resource-lists";

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
    pub supported: Option<Supported>,
    /// When the group is in use: from, until. `None`: always. A span that cannot be read is none (XD-037).
    pub schedule: Option<Vec<Span>>,
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

/// `oxe:supported-services`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Supported {
    /// These.
    Only(Vec<Service>),
    /// All but these.
    AllExcept(Vec<Service>),
}

/// One `oxe:service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which enabler.
    pub enabler: String,
    /// Whether it names pager-mode messages; `None`: it names no media.
    pub pager_mode: Option<bool>,
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

impl Permissions for Grants {
    fn join_with(&mut self, other: Self) {
        self.initiate |= other.initiate;
        self.anonymity |= other.anonymity;
        self.key_participant |= other.key_participant;
        self.conference_state |= other.conference_state;
        self.invite_dynamically |= other.invite_dynamically;
        self.join |= other.join;
    }

    fn meet_with(&mut self, other: Self) {
        self.initiate &= other.initiate;
        self.anonymity &= other.anonymity;
        self.key_participant &= other.key_participant;
        self.conference_state &= other.conference_state;
        self.invite_dynamically &= other.invite_dynamically;
        self.join &= other.join;
    }
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
pub(super) fn checked_within<'a>(bytes: &'a [u8], bounds: &Bounds) -> Result<&'a str, Flaw> {
    if bytes.len() > bounds.bytes {
        return Err(Flaw::Constraint("the document is too large"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Flaw::NotUtf8)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    xml::decode(text.as_bytes())?; // refuses another declared encoding
    xml::check(text, bounds)?;
    Ok(text)
}

/// The text of a document that was checked when it came.
pub(super) fn admitted(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(text.strip_prefix('\u{feff}').unwrap_or(text))
}

impl Group {
    /// Reads a group document.
    ///
    /// # Errors
    /// [`Flaw`] when nothing can be made of it; what can be read but not be taken from a user is in [`Group::flaw`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        Self::parse_within(bytes, &BOUNDS)
    }

    /// As [`Group::parse`], with other bounds (`xdm.max_doc`).
    ///
    /// # Errors
    /// As [`Group::parse`].
    pub fn parse_within(bytes: &[u8], bounds: &Bounds) -> Result<Self, Flaw> {
        let text = checked_within(bytes, bounds)?;
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
                let rules = ruleset::read(child, |node, grants| {
                    action(node, grants, &mut service.warnings)
                });
                service.rules.get_or_insert_default().extend(rules);
            }
            Some(EXTENSIONS) if name == "supported-services" => {
                place = order.len();
                service.supported = Some(supported(child));
            }
            Some(EXTENSIONS) if name == "session-active-policy" => {
                place = order.len();
                for schedule in children(child, EXTENSIONS, "schedule") {
                    let ranges = children(schedule, EXTENSIONS, "time-range");
                    let read = ranges.filter_map(|node| time_range(node, &mut service.warnings));
                    let read: Vec<_> = read.collect();
                    service.schedule.get_or_insert_default().extend(read);
                }
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
            service.invite_members =
                boolean(child, &mut service.warnings, "invite-members is no boolean");
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

fn supported(node: Node<'_, '_>) -> Supported {
    let services =
        |node| -> Vec<Service> { children(node, EXTENSIONS, "service").map(media_of).collect() };
    match children(node, EXTENSIONS, "all-services-except").next() {
        Some(except) => Supported::AllExcept(services(except)),
        None => Supported::Only(services(node)),
    }
}

fn media_of(node: Node<'_, '_>) -> Service {
    let mut media = None;
    for child in node.children().filter(Node::is_element) {
        if is(child, EXTENSIONS, "group-media") {
            media = Some(children(child, EXTENSIONS, "pager-mode-message").next().is_some());
        } else if is(child, EXTENSIONS, "all-media-except") {
            media = Some(children(child, EXTENSIONS, "pager-mode-message").next().is_none());
        }
    }
    Service {
        enabler: attribute(node, None, "enabler").unwrap_or_default().trim().to_owned(),
        pager_mode: media,
    }
}

impl Supported {
    /// Whether the group may be paged; `ids` are the enablers that are this service, none for any of them.
    pub fn admits_pages(&self, ids: &[String]) -> bool {
        let ours = |service: &Service| ids.contains(&service.enabler);
        let pages = |service: &Service| service.pager_mode.unwrap_or(true);
        match self {
            Self::Only(services) => {
                services.iter().any(|service| (ids.is_empty() || ours(service)) && pages(service))
            }
            // What is left out is somebody else's where nobody knows our names.
            Self::AllExcept(services) => {
                !services.iter().any(|service| ours(service) && pages(service))
            }
        }
    }
}

impl ListService {
    /// Whether the group is in use at that time.
    pub fn is_in_use(&self, at: OffsetDateTime) -> bool {
        let spans = self.schedule.as_deref();
        spans.is_none_or(|spans| spans.iter().any(|(from, until)| *from <= at && at < *until))
    }
}

/// One `oxe:time-range`, its ends as elements or as attributes.
fn time_range(node: Node<'_, '_>, warnings: &mut Vec<&'static str>) -> Option<Span> {
    let end = |name: &'static str| {
        let element = children(node, EXTENSIONS, name).next().map(trimmed);
        ruleset::date_time(element.or_else(|| attribute(node, None, name))?)
    };
    let range = end("start-time").zip(end("end-time"));
    if range.is_none() {
        warnings.push("a time-range that cannot be read");
    }
    range
}

/// One action of a rule; whether it is one we know.
fn action(node: Node<'_, '_>, grants: &mut Grants, warnings: &mut Vec<&'static str>) -> bool {
    if node.tag_name().namespace() != Some(LIST_SERVICE) {
        return false;
    }
    let grant = match node.tag_name().name() {
        "allow-initiate-conference" => &mut grants.initiate,
        "allow-anonymity" => &mut grants.anonymity,
        "is-key-participant" => &mut grants.key_participant,
        "allow-conference-state" => &mut grants.conference_state,
        "allow-invite-users-dynamically" => &mut grants.invite_dynamically,
        "join-handling" => {
            grants.join |= match trimmed(node) {
                "allow" => true,
                "block" => false,
                _ => boolean(node, warnings, "join-handling is no boolean"),
            };
            return true;
        }
        _ => return false,
    };
    *grant |= boolean(node, warnings, "an action is no boolean");
    true
}

/// XD-029: `true`, `1`, `false`, `0`; anything else is false, with a warning.
fn boolean(node: Node<'_, '_>, warnings: &mut Vec<&'static str>, warning: &'static str) -> bool {
    match trimmed(node) {
        "true" | "1" => true,
        "false" | "0" => false,
        _ => {
            warnings.push(warning);
            false
        }
    }
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
    use super::super::ruleset::{Condition, OMA_COMMON, Who};
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
