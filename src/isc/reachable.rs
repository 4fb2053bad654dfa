//! What a third-party REGISTER says about a user, as plain data.
//!
//! Start at [`read`]: headers and bodies in, one [`Registration`] out, whatever the bodies hold. How registrations follow
//! each other and how long they last is [`super::registry`]'s. Knows no clock: all times are seconds from the arrival of
//! the REGISTER. ISC-039 to ISC-044 (TS 24.229 5.4.1.7, 5.7.1.1).

use bytes::Bytes;
use roxmltree::Document;
use serde::{Deserialize, Serialize};

use super::inbound::texts;
use super::rules::charging::ChargingVector;
use super::rules::service;
use super::rules::syntax::{self, Address, param, params, unquote};
use crate::content::multipart;
use crate::content::xml;
use crate::sip::message::{Message, Name};
use crate::sip::uri::Uri;

/// Most identities of one implicit registration set that are kept.
pub const MAX_IDENTITIES: usize = 32;
/// Most contacts of one user that are kept.
pub const MAX_CONTACTS: usize = 16;
/// Most octets of one value that are kept; a longer one is left out.
const MAX_VALUE: usize = 2048;
/// Most feature tags of one contact that are kept.
const MAX_TAGS: usize = 32;
/// Where a REGISTER names no expiry that can be read (RFC 3261 §10.2).
const DEFAULT_EXPIRY: u32 = 3600;
/// Header parameters of a Contact that are no feature tags.
const NO_TAGS: [&str; 8] =
    ["expires", "q", "tag", "methods", "pub-gruu", "temp-gruu", "reg-id", "received"];

const BOUNDS: xml::Bounds =
    xml::Bounds { bytes: 64 * 1024, depth: 16, elements: 1024, attributes: 32, text: 32 * 1024 };

/// What is known of one registered public identity.
///
/// ISC-041: what the core's REGISTER says of it, and ISC-042: what its bodies do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registration {
    /// To, as the core wrote it.
    pub identity: String,
    /// Seconds from its arrival; 0: the identity is registered no more.
    pub expires: u32,
    /// The S-CSCF's own URI: Contact, else From.
    pub scscf: String,
    /// P-Charging-Function-Addresses as received.
    pub charging_functions: Option<String>,
    pub icid: Option<String>,
    pub orig_ioi: Option<String>,
    /// P-Access-Network-Info; what the network provided before what the phone says (ISC-032).
    pub access: Option<String>,
    /// P-Visited-Network-ID (ISC-033: read, never sent).
    pub visited: Option<String>,
    /// `+g.3gpp.registration-token` of Contact.
    pub token: Option<String>,
    /// What the operator's profile holds for us: the text of `service-info`.
    pub service_info: Option<String>,
    /// User-Agent of the phone that registered last.
    pub user_agent: Option<String>,
    /// All contacts that are known: those of the S-CSCF's answer where it is there, else the phone's own.
    pub contacts: Vec<Contact>,
    /// The implicit registration set, the identity itself included if the core names it.
    pub associated: Vec<String>,
    /// For the order of what comes (ISC-045).
    pub call_id: String,
    pub cseq: u32,
}

/// One address of a registered user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contact {
    pub uri: String,
    /// Seconds it has, where somebody said so.
    pub expires: Option<u32>,
    /// Feature tags: names with their values as written, if any.
    pub tags: Vec<(String, Option<String>)>,
    /// The tags are all of them: they come from the phone itself or from somebody who repeats even those without value.
    pub told: bool,
}

impl Contact {
    /// Whether the phone behind it takes pages, as far as its tags say.
    ///
    /// ISC-048: `false` only where all of its tags are known, and ours is not among them; some S-CSCFs drop tags without
    /// a value, so that their silence means nothing.
    pub fn takes_pages(&self, icsi: &str) -> bool {
        let ours = self.tags.iter().any(|(name, value)| {
            let is_im =
                [service::LARGE, service::SESSION].iter().any(|tag| tag.eq_ignore_ascii_case(name))
                    && value
                        .as_deref()
                        .is_none_or(|value| !unquote(value).eq_ignore_ascii_case("false"));
            let is_service = name.eq_ignore_ascii_case(service::ICSI_REF)
                && !icsi.is_empty()
                && value.as_deref().is_some_and(|value| {
                    service::names_icsi(&format!("{}={value}", service::ICSI_REF), icsi)
                });
            is_im || is_service
        });
        ours || !self.told
    }
}

/// A registration, and what of its bodies could not be read, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub registration: Registration,
    pub faults: Vec<&'static str>,
}

/// Reads a third-party REGISTER; `contact` is its Contact, if it is one.
///
/// ISC-041, ISC-043: nothing in it is a reason to refuse it.
pub fn read(message: &Message, contact: Option<Address<'_>>) -> Read {
    let mut faults = Vec::new();
    let charging = message.text(Name::PChargingVector).and_then(ChargingVector::parse);
    let text = |name| message.text(name).filter(|text| text.len() <= MAX_VALUE).map(str::to_owned);
    let mut registration = Registration {
        identity: message.to().uri.to_owned(),
        expires: expiry(message, contact),
        scscf: contact.map_or_else(|| message.from().uri, |contact| contact.uri).to_owned(),
        charging_functions: text(Name::PChargingFunctionAddresses),
        icid: charging.as_ref().and_then(ChargingVector::icid).map(std::borrow::Cow::into_owned),
        orig_ioi: charging
            .as_ref()
            .and_then(|vector| vector.raw("orig-ioi"))
            .map(|ioi| unquote(ioi).into_owned()),
        access: access(texts(message, Name::PAccessNetworkInfo)),
        visited: text(Name::PVisitedNetworkId),
        token: contact
            .and_then(|contact| contact.param("+g.3gpp.registration-token").flatten())
            .map(|token| unquote(token).into_owned()),
        associated: identities(message.lines(Name::PAssociatedUri).filter_map(as_text)),
        call_id: String::from_utf8_lossy(message.call_id()).into_owned(),
        cseq: message.cseq().number,
        ..Registration::default()
    };
    registration.icid = registration.icid.filter(|icid| icid.len() <= MAX_VALUE);
    let body = message.body_bytes();
    if !body.is_empty() {
        bodies(message.content_type(), &body, &mut registration, &mut faults);
    }
    Read { registration, faults }
}

/// RFC 3261 §10.2.1.1: the Contact's own expiry, else the header's; what cannot be read is an hour (§10.2).
fn expiry(message: &Message, contact: Option<Address<'_>>) -> u32 {
    let own = contact.and_then(|contact| contact.param("expires").flatten());
    let text = own.or_else(|| message.text(Name::Expires).map(str::trim));
    text.and_then(seconds).unwrap_or(DEFAULT_EXPIRY)
}

/// A number of seconds; more than the field can hold is all it can hold.
fn seconds(text: &str) -> Option<u32> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}

/// ISC-032: a value the network vouches for wins over the phone's.
fn access<'a>(values: impl Iterator<Item = &'a str>) -> Option<String> {
    let values: Vec<&str> = values.filter(|value| value.len() <= MAX_VALUE).collect();
    let vouched = values.iter().find(|value| param(value, "network-provided").is_some());
    vouched.or(values.first()).map(|value| (*value).to_owned())
}

fn as_text(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok()
}

/// The identities of P-Associated-URI lines.
///
/// ISC-042, ISC-043: also where a core puts several into one pair of brackets.
fn identities<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut add = |uri: &str| -> bool {
        let good = uri.len() <= MAX_VALUE && Uri::parse(uri).is_ok();
        if good && found.len() < MAX_IDENTITIES && !found.iter().any(|known| known == uri) {
            found.push(uri.to_owned());
        }
        good
    };
    for line in lines {
        for element in syntax::split(line, b',') {
            let well_formed = Address::parse(element).is_some_and(|address| add(address.uri));
            if !well_formed {
                for piece in element.split(',') {
                    let piece = piece.rsplit('<').next().unwrap_or(piece);
                    add(piece.split('>').next().unwrap_or(piece).trim());
                }
            }
        }
    }
    found
}

/// ISC-042, ISC-043: one part bare or several in a multipart, with a type or recognised by how they begin.
fn bodies(
    content_type: Option<&str>,
    body: &Bytes,
    into: &mut Registration,
    faults: &mut Vec<&'static str>,
) {
    let Some(content_type) = content_type else {
        part("", body, into, faults);
        return;
    };
    match multipart::flatten(content_type, body) {
        Ok(parts) => {
            for one in parts {
                part(&one.content_type.essence, &one.body, into, faults);
            }
        }
        Err(bad) => {
            faults.push(bad.what);
            // A type nobody can read says as much as none.
            part("", body, into, faults);
        }
    }
}

fn part(kind: &str, body: &[u8], into: &mut Registration, faults: &mut Vec<&'static str>) {
    let start = body.trim_ascii_start();
    let is = |what: &str| kind.eq_ignore_ascii_case(what);
    if start.starts_with(b"REGISTER ") {
        request(body, into, faults);
    } else if start.starts_with(b"SIP/2.0 200") {
        response(body, into, faults);
    } else if is("application/3gpp-ims+xml")
        || start.starts_with(b"<ims-3gpp")
        || start.starts_with(b"<?xml")
    {
        match service_info(body) {
            Ok(info) => into.service_info = info,
            Err(fault) => faults.push(fault),
        }
    } else if is("message/sip") {
        faults.push("a message/sip body that is neither a REGISTER nor a 200");
    }
}

/// ISC-042: the text the operator's profile holds for us; the version attribute may be missing (ISC-043).
fn service_info(body: &[u8]) -> Result<Option<String>, &'static str> {
    let text = xml::decode(body).map_err(|_| "an ims-3gpp body in another encoding")?;
    xml::check(&text, &BOUNDS).map_err(|_| "an ims-3gpp body beyond its bounds")?;
    let document = Document::parse(&text).map_err(|_| "an ims-3gpp body that is no XML")?;
    let root = document.root_element();
    if root.tag_name().name() != "ims-3gpp" {
        return Err("an XML body that is no ims-3gpp");
    }
    let node = root.children().find(|node| node.tag_name().name() == "service-info");
    let Some(node) = node else { return Ok(None) };
    if node.children().any(|child| child.is_element()) {
        // Whoever put markup there wants it back as it is.
        let first = node.first_child().map_or(0, |child| child.range().start);
        let last = node.last_child().map_or(0, |child| child.range().end);
        return Ok(text.get(first..last).map(str::to_owned));
    }
    let inner: String = node.children().filter_map(|child| child.text()).collect();
    Ok(Some(inner))
}

/// The phone's own REGISTER.
fn request(body: &[u8], into: &mut Registration, faults: &mut Vec<&'static str>) {
    let Some(head) = Head::read(body) else {
        faults.push("a REGISTER body that is no text");
        return;
    };
    into.user_agent =
        head.first("User-Agent").filter(|agent| agent.len() <= MAX_VALUE).map(str::to_owned);
    let expires = head.first("Expires").and_then(seconds);
    let contacts = contacts(&head, expires, true);
    if into.contacts.is_empty() {
        into.contacts = contacts;
        return;
    }
    // The S-CSCF's answer was read before: the phone knows its own tags best.
    for contact in contacts {
        if let Some(known) = into.contacts.iter_mut().find(|known| known.uri == contact.uri) {
            (known.tags, known.told) = (contact.tags, true);
        }
    }
}

/// The S-CSCF's answer to it.
fn response(body: &[u8], into: &mut Registration, faults: &mut Vec<&'static str>) {
    let Some(head) = Head::read(body) else {
        faults.push("a 200 body that is no text");
        return;
    };
    let associated = identities(head.all("P-Associated-URI"));
    if !associated.is_empty() {
        into.associated = associated;
    }
    let expires = head.first("Expires").and_then(seconds);
    let own = std::mem::take(&mut into.contacts);
    into.contacts = contacts(&head, expires, false);
    if into.contacts.is_empty() {
        into.contacts = own;
        return;
    }
    for contact in own {
        if let Some(known) = into.contacts.iter_mut().find(|known| known.uri == contact.uri) {
            (known.tags, known.told) = (contact.tags, true);
        }
    }
}

/// The contacts of a REGISTER or its answer. `told` where their tags are surely all.
fn contacts(head: &Head<'_>, expires: Option<u32>, told: bool) -> Vec<Contact> {
    let elements = head.all("Contact").flat_map(|line| syntax::split(line, b','));
    let addresses = elements.filter_map(Address::parse);
    addresses
        .filter(|address| address.uri.len() <= MAX_VALUE && address.params.len() <= MAX_VALUE)
        .take(MAX_CONTACTS)
        .map(|address| {
            let tags = tags(address.params);
            Contact {
                uri: address.uri.to_owned(),
                expires: address.param("expires").flatten().and_then(seconds).or(expires),
                told: told || tags.iter().any(|(_, value)| value.is_none()),
                tags,
            }
        })
        .collect()
}

fn tags(text: &str) -> Vec<(String, Option<String>)> {
    params(text)
        .filter(|(name, _)| !NO_TAGS.iter().any(|not| not.eq_ignore_ascii_case(name)))
        .take(MAX_TAGS)
        .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
        .collect()
}

/// The header lines of a message inside a body. Less strict than a message on the wire: only what is looked for has to
/// be there.
struct Head<'a> {
    lines: Vec<(&'a str, String)>,
}

impl<'a> Head<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let mut lines: Vec<(&str, String)> = Vec::new();
        for line in text.trim_start().lines().skip(1).take(512) {
            if line.is_empty() {
                break;
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = lines.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                lines.push((name.trim(), value.trim().to_owned()));
            }
        }
        Some(Self { lines })
    }

    /// Every line of that name; `Contact` also by its compact form.
    fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let compact = if name == "Contact" { "m" } else { name };
        self.lines
            .iter()
            .filter(move |(known, _)| {
                known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(compact)
            })
            .map(|(_, value)| value.as_str())
    }

    fn first(&self, name: &'static str) -> Option<&str> {
        self.all(name).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves ISC-042, ISC-043.
    #[test]
    fn identities_are_found_in_whatever_brackets() {
        for (lines, want) in [
            (&["<sip:alice@h>, <tel:+1555>"][..], &["sip:alice@h", "tel:+1555"][..]),
            (&["<sip:alice@h>", "tel:+1555;x=y"], &["sip:alice@h", "tel:+1555"]),
            (&["<sip:alice@ims.test, tel:+15550001>"], &["sip:alice@ims.test", "tel:+15550001"]),
            (&["\"A, B\" <sip:a@h>, <sip:a@h>"], &["sip:a@h"]),
            (&["nobody", "<>", ""], &[]),
        ] {
            assert_eq!(identities(lines.iter().copied()), want, "{lines:?}");
        }
        let many: Vec<String> = (0..100).map(|n| format!("<sip:u{n}@h>")).collect();
        assert_eq!(identities([many.join(", ").as_str()]).len(), MAX_IDENTITIES);
    }

    /// Proves ISC-032.
    #[test]
    fn what_the_network_says_of_the_access_comes_first() {
        for (values, want) in [
            (&["3GPP-GERAN;cgi-3gpp=1"][..], Some("3GPP-GERAN;cgi-3gpp=1")),
            (
                &["3GPP-GERAN;cgi-3gpp=1", "3GPP-GERAN;network-provided;cgi-3gpp=2"],
                Some("3GPP-GERAN;network-provided;cgi-3gpp=2"),
            ),
            (&[], None),
        ] {
            assert_eq!(access(values.iter().copied()).as_deref(), want);
        }
    }

    /// Proves ISC-048.
    #[test]
    fn only_known_tags_without_ours_say_no() {
        const SERVICE: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";
        let encoded = "\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"";
        for (tags, told, takes) in [
            (&[][..], false, true),
            (&[], true, false),
            (&[("audio", None)], true, false),
            (&[("audio", None)], false, true),
            (&[("+g.oma.sip-im", None)], true, true),
            (&[("+G.OMA.SIP-IM.large-message", Some("\"true\""))], true, true),
            (&[("+g.oma.sip-im", Some("\"FALSE\""))], true, false),
            (&[("+g.3gpp.icsi-ref", Some(encoded))], true, true),
            (&[("+g.3gpp.icsi-ref", Some("\"urn%3Aother\""))], true, false),
        ] {
            let tags: Vec<(String, Option<String>)> = tags
                .iter()
                .map(|(name, value): &(&str, Option<&str>)| {
                    ((*name).to_owned(), value.map(str::to_owned))
                })
                .collect();
            let contact = Contact { tags, told, ..Contact::default() };
            assert_eq!(contact.takes_pages(SERVICE), takes, "{contact:?}");
        }
    }

    /// Cut or changed anywhere, a body is read as far as it goes.
    #[test]
    fn whatever_stands_in_a_body_is_read_as_far_as_it_goes() {
        const BODY: &str = "--b\r\nContent-Type: application/3gpp-ims+xml\r\n\r\n<ims-3gpp><service-info>x\
            </service-info></ims-3gpp>\r\n--b\r\nContent-Type: message/sip\r\n\r\nREGISTER sip:h SIP/2.0\r\n\
            m: <sip:a@h>;+g.oma.sip-im;expires=9\r\n\r\n--b\r\n\r\nSIP/2.0 200 OK\r\nContact: <sip:a@h>\r\n\
            P-Associated-URI: <sip:a@h, tel:+1>\r\n--b--\r\n";
        let read = |body: Vec<u8>, kind: Option<&str>| {
            let mut registration = Registration::default();
            bodies(kind, &Bytes::from(body), &mut registration, &mut Vec::new());
            registration
        };
        let multipart = Some("multipart/mixed;boundary=b");
        let whole = read(BODY.as_bytes().to_vec(), multipart);
        assert_eq!(whole.service_info.as_deref(), Some("x"));
        assert_eq!((whole.associated.len(), whole.contacts.len()), (2, 1));
        assert!(whole.contacts[0].told && whole.contacts[0].takes_pages(""));
        for at in 0..BODY.len() {
            for kind in [multipart, Some("message/sip"), Some("nonsense"), None] {
                read(BODY.as_bytes()[..at].to_vec(), kind);
                read(BODY.as_bytes()[at..].to_vec(), kind);
                for octet in [0, b'<', b';', b'\n', 0xff] {
                    let mut changed = BODY.as_bytes().to_vec();
                    changed[at] = octet;
                    read(changed, kind);
                }
            }
        }
    }
}
