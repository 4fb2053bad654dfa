//! Registration information: who is registered by which contacts, as a registrar tells its subscribers (RFC 3680).
//!
//! Start at [`parse`] for one document and [`Sequence::take`] for the documents of one subscription in their order.
//! Knows no SIP and no clock; what a contact is good for is decided by whoever reads it. ISC-048, with the XML bounds of
//! [`super::xml`].

use std::collections::BTreeMap;

use roxmltree::{Document, Node};

use super::xml::{self, attribute};

/// The namespace of the documents.
pub const NAMESPACE: &str = "urn:ietf:params:xml:ns:reginfo";
/// Their media type.
pub const MEDIA_TYPE: &str = "application/reginfo+xml";
/// How long a subscription lasts where nobody said it, in seconds (RFC 3680 §4.3).
pub const DEFAULT_DURATION: u32 = 3761;
/// Most addresses of record in one document, or known by one subscription.
pub const MAX_REGISTRATIONS: usize = 64;
/// Most contacts of one address of record.
pub const MAX_CONTACTS: usize = 64;

const BOUNDS: xml::Bounds =
    xml::Bounds { bytes: 256 * 1024, depth: 16, elements: 8192, attributes: 32, text: 8192 };

/// The document is refused; names the reason, never the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadReginfo {
    /// No XML, or more of it than is read.
    #[error("{0}")]
    Xml(#[from] xml::BadXml),
    /// XML of another kind, or without what every document must say.
    #[error("malformed reginfo: {0}")]
    Malformed(&'static str),
}

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reginfo {
    pub version: u32,
    /// Everything there is, not only what changed.
    pub full: bool,
    pub registrations: Vec<Registration>,
}

/// Where an address of record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Init,
    Active,
    Terminated,
}

/// One address of record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub aor: String,
    /// Its name in later documents.
    pub id: String,
    pub state: State,
    pub contacts: Vec<Contact>,
}

/// One contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its name in later documents.
    pub id: String,
    /// Whether requests reach it: its state is active and what happened last did not end it.
    pub active: bool,
    pub uri: String,
    /// Seconds it has left, where the document says so.
    pub expires: Option<u32>,
    /// Its feature tags, each with its value as written, if any.
    pub params: Vec<(String, Option<String>)>,
}

impl Registration {
    /// The contacts that can be reached, none where the address of record is not active.
    pub fn reachable(&self) -> impl Iterator<Item = &Contact> {
        let active = self.state == State::Active;
        self.contacts.iter().filter(move |contact| active && contact.active)
    }
}

/// Reads one document.
///
/// ISC-048 (RFC 3680 §5): elements and attributes that are not known are passed over.
///
/// # Errors
/// [`BadReginfo`] for anything else than such a document.
pub fn parse(bytes: &[u8]) -> Result<Reginfo, BadReginfo> {
    let bad = BadReginfo::Malformed;
    let text = xml::decode(bytes)?;
    xml::check(&text, &BOUNDS)?;
    let document = Document::parse(&text).map_err(|_| bad("not well-formed"))?;
    let root = document.root_element();
    if !root.has_tag_name((NAMESPACE, "reginfo")) {
        return Err(bad("the root is no reginfo"));
    }
    let version = attribute(root, None, "version").and_then(|text| text.trim().parse().ok());
    let full = match attribute(root, None, "state").map(str::trim) {
        Some("full") => true,
        Some("partial") => false,
        _ => return Err(bad("neither full nor partial")),
    };
    let mut registrations = Vec::new();
    for node in root.children().filter(|node| node.has_tag_name((NAMESPACE, "registration"))) {
        if registrations.len() == MAX_REGISTRATIONS {
            return Err(bad("too many registrations"));
        }
        registrations.push(registration(node)?);
    }
    Ok(Reginfo { version: version.ok_or(bad("no version"))?, full, registrations })
}

fn registration(node: Node<'_, '_>) -> Result<Registration, BadReginfo> {
    let bad = BadReginfo::Malformed;
    let text = |name| attribute(node, None, name).map(str::trim).filter(|text| !text.is_empty());
    let aor = text("aor").ok_or(bad("a registration without aor"))?.to_owned();
    let state = match text("state") {
        Some("active") => State::Active,
        Some("init") => State::Init,
        Some("terminated") => State::Terminated,
        _ => return Err(bad("a registration without a state")),
    };
    let mut contacts = Vec::new();
    for contact in node.children().filter(|node| node.has_tag_name((NAMESPACE, "contact"))) {
        if contacts.len() == MAX_CONTACTS {
            return Err(bad("too many contacts"));
        }
        contacts.push(self::contact(contact)?);
    }
    Ok(Registration { id: text("id").unwrap_or(&aor).to_owned(), aor, state, contacts })
}

/// ISC-048 (RFC 3680 §5.3.2): these events end a contact, whatever its state says.
fn contact(node: Node<'_, '_>) -> Result<Contact, BadReginfo> {
    const ENDS: [&str; 5] = ["deactivated", "rejected", "unregistered", "expired", "probation"];
    let text = |name| attribute(node, None, name).map(str::trim).filter(|text| !text.is_empty());
    let child = |name: &str| {
        let found = node.children().find(|node| node.has_tag_name((NAMESPACE, name)));
        found.and_then(|node| node.text()).map(str::trim).filter(|text| !text.is_empty())
    };
    let uri = child("uri").ok_or(BadReginfo::Malformed("a contact without uri"))?.to_owned();
    let ended = text("event").is_some_and(|event| ENDS.contains(&event));
    let params = node.children().filter(|node| node.has_tag_name((NAMESPACE, "unknown-param")));
    Ok(Contact {
        id: text("id").unwrap_or(&uri).to_owned(),
        active: text("state") == Some("active") && !ended,
        expires: text("expires").and_then(|text| text.parse().ok()),
        params: params
            .filter_map(|node| {
                let value = node.text().map(str::trim).filter(|value| !value.is_empty());
                Some((attribute(node, None, "name")?.trim().to_owned(), value.map(str::to_owned)))
            })
            .collect(),
        uri,
    })
}

/// What a document did to what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It counts.
    Yes,
    /// It is not newer than what is known and changes nothing.
    Old,
    /// One before it is missing: ask for the whole state.
    Gap,
}

/// What one subscription has told so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequence {
    version: Option<u32>,
    registrations: BTreeMap<String, Registration>,
}

impl Sequence {
    /// Takes the next document.
    ///
    /// ISC-048 (RFC 3680 §5.2): full state replaces what was known, partial state adds to it if it is the very next.
    pub fn take(&mut self, document: Reginfo) -> Taken {
        if self.version.is_some_and(|known| document.version <= known) {
            return Taken::Old;
        }
        let next = self.version.and_then(|known| known.checked_add(1));
        if !document.full && next != Some(document.version) {
            return Taken::Gap;
        }
        self.version = Some(document.version);
        if document.full {
            self.registrations.clear();
        }
        for registration in document.registrations {
            self.merge(registration);
        }
        Taken::Yes
    }

    fn merge(&mut self, mut new: Registration) {
        if let Some(old) = self.registrations.remove(&new.id) {
            let named: Vec<&str> = new.contacts.iter().map(|contact| contact.id.as_str()).collect();
            let kept: Vec<_> = old
                .contacts
                .into_iter()
                .filter(|contact| !named.contains(&contact.id.as_str()))
                .collect();
            new.contacts.extend(kept);
        }
        new.contacts.retain(|contact| contact.active);
        new.contacts.truncate(MAX_CONTACTS);
        if new.state != State::Terminated && self.registrations.len() < MAX_REGISTRATIONS {
            self.registrations.insert(new.id.clone(), new);
        }
    }

    /// Every address of record that is known and not terminated.
    pub fn registrations(&self) -> impl Iterator<Item = &Registration> {
        self.registrations.values()
    }

    /// The version of the last document that counted.
    pub fn version(&self) -> Option<u32> {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(version: u32, state: &str, inner: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<reginfo xmlns=\"{NAMESPACE}\" version=\"{version}\" state=\"{state}\">{inner}</reginfo>"
        )
    }

    fn read(version: u32, state: &str, inner: &str) -> Reginfo {
        parse(document(version, state, inner).as_bytes()).expect("a document")
    }

    fn alice(state: &str, contacts: &str) -> String {
        format!(
            "<registration aor=\"sip:alice@ims.test\" id=\"a7\" state=\"{state}\">{contacts}</registration>"
        )
    }

    fn contact(id: &str, state: &str, event: &str) -> String {
        format!(
            "<contact id=\"{id}\" state=\"{state}\" event=\"{event}\" expires=\"592\"><uri>sip:{id}@192.0.2.1</uri></contact>"
        )
    }

    /// Proves ISC-048.
    #[test]
    fn a_registrars_document_is_read() {
        // As a real S-CSCF writes it: tags without a value are left out, ids are addresses.
        let text = "<registration aor=\"sip:alice@ims.test\" id=\"0x7f16\" state=\"active\">
            <contact id=\"0x7f17\" state=\"active\" event=\"registered\" expires=\"592\" q=\"0.000\">
                <uri>sip:alice@127.0.0.61:5060</uri>
            <unknown-param name=\"+g.3gpp.icsi-ref\">\"urn%3Aurn-7\"</unknown-param>
            <unknown-param name=\"+g.oma.sip-im\"/>
            </contact></registration><other xmlns=\"urn:x\"/>";
        let read = read(2, "full", text);
        assert_eq!((read.version, read.full), (2, true));
        let registration = &read.registrations[0];
        assert_eq!(
            (registration.aor.as_str(), registration.state),
            ("sip:alice@ims.test", State::Active)
        );
        assert_eq!(
            registration.contacts,
            [Contact {
                id: "0x7f17".to_owned(),
                active: true,
                uri: "sip:alice@127.0.0.61:5060".to_owned(),
                expires: Some(592),
                params: vec![
                    ("+g.3gpp.icsi-ref".to_owned(), Some("\"urn%3Aurn-7\"".to_owned())),
                    ("+g.oma.sip-im".to_owned(), None),
                ],
            }]
        );
    }

    /// Proves ISC-048.
    #[test]
    fn a_contact_counts_while_it_is_active_and_nothing_ended_it() {
        for (of_aor, state, event, counts) in [
            ("active", "active", "registered", true),
            ("active", "active", "created", true),
            ("active", "active", "refreshed", true),
            ("active", "active", "shortened", true),
            ("active", "active", "deactivated", false),
            ("active", "active", "rejected", false),
            ("active", "active", "unregistered", false),
            ("active", "active", "expired", false),
            ("active", "active", "probation", false),
            ("active", "terminated", "registered", false),
            ("init", "active", "registered", false),
            ("terminated", "active", "registered", false),
        ] {
            let read = read(0, "full", &alice(of_aor, &contact("c1", state, event)));
            let reachable = read.registrations[0].reachable().count();
            assert_eq!(reachable, usize::from(counts), "{of_aor} {state} {event}");
        }
    }

    /// Proves ISC-048.
    #[test]
    fn documents_count_in_their_order() {
        let ids = |sequence: &Sequence| -> Vec<String> {
            let contacts = sequence.registrations().flat_map(Registration::reachable);
            contacts.map(|contact| contact.id.clone()).collect()
        };
        let one = alice("active", &contact("c1", "active", "registered"));
        let two = alice("active", &contact("c2", "active", "created"));
        let gone = alice("active", &contact("c1", "terminated", "unregistered"));
        let mut sequence = Sequence::default();
        // What is only a change means nothing before the whole is known.
        assert_eq!(sequence.take(read(5, "partial", &one)), Taken::Gap);
        assert_eq!(sequence.take(read(5, "full", &one)), Taken::Yes);
        assert_eq!(sequence.take(read(5, "full", "")), Taken::Old);
        assert_eq!(sequence.take(read(4, "partial", &gone)), Taken::Old);
        assert_eq!(ids(&sequence), ["c1"]);
        assert_eq!(sequence.take(read(6, "partial", &two)), Taken::Yes);
        assert_eq!(ids(&sequence), ["c2", "c1"]);
        assert_eq!(sequence.take(read(8, "partial", &gone)), Taken::Gap);
        assert_eq!((ids(&sequence), sequence.version()), (vec!["c2".into(), "c1".into()], Some(6)));
        assert_eq!(sequence.take(read(7, "partial", &gone)), Taken::Yes);
        assert_eq!(ids(&sequence), ["c2"]);
        assert_eq!(sequence.take(read(20, "full", &one)), Taken::Yes);
        assert_eq!(ids(&sequence), ["c1"]);
        assert_eq!(sequence.take(read(21, "partial", &alice("terminated", ""))), Taken::Yes);
        assert_eq!(sequence.registrations().count(), 0);
    }

    #[test]
    fn what_is_no_such_document_is_refused() {
        let many = |n: usize| alice("active", &"x".repeat(0)).repeat(n);
        let contacts: String =
            (0..=MAX_CONTACTS).map(|n| contact(&format!("c{n}"), "active", "created")).collect();
        for (text, why) in [
            ("<reginfo version='1' state='full'/>".to_owned(), "another namespace"),
            (document(0, "whole", ""), "neither full nor partial"),
            (document(0, "full", "").replace("version=\"0\"", ""), "no version"),
            (document(0, "full", "").replace("version=\"0\"", "version=\"-1\""), "no number"),
            (document(0, "full", "<registration state='active' id='1'/>"), "no aor"),
            (document(0, "full", "<registration aor='sip:a@b' id='1'/>"), "no state"),
            (
                document(
                    0,
                    "full",
                    &alice("active", "<contact state='active' event='created' id='1'/>"),
                ),
                "no uri",
            ),
            (document(0, "full", &many(MAX_REGISTRATIONS + 1)), "too many registrations"),
            (document(0, "full", &alice("active", &contacts)), "too many contacts"),
            (format!("<!DOCTYPE r>{}", document(0, "full", "")), "a DTD"),
            ("no XML".to_owned(), "no XML"),
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{why}");
        }
    }

    /// Cut or changed anywhere, a document is read or refused, and a sequence stays within its bounds.
    #[test]
    fn whatever_comes_is_read_or_refused() {
        let good = document(7, "full", &alice("active", &contact("c1", "active", "registered")));
        let mut sequence = Sequence::default();
        for at in 0..good.len() {
            drop(parse(&good.as_bytes()[..at]));
            for octet in [0, b'<', b'"', b'9', 0xff] {
                let mut changed = good.clone().into_bytes();
                changed[at] = octet;
                if let Ok(read) = parse(&changed) {
                    sequence.take(read);
                }
            }
        }
        assert!(sequence.registrations().count() <= MAX_REGISTRATIONS);
    }
}
