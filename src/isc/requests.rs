//! Requests outside of dialogs other than INVITE, and than MESSAGE to a list or group.
//!
//! Start at [`answer`]. OPTIONS says what we are, a third-party REGISTER is taken as said, everything else is not served
//! here: 481 to what lives in dialogs, 404 for nobody we know, 405 to methods and 489 to events. Follows IM-096, ISC-039, ISC-040, ISC-046, ISC-072, UL-001.

use std::fmt::Write as _;

use bytes::Bytes;

use super::inbound::{Desk, Facts, hops, identify, texts};
use super::outbound::{House, charging_answer, refuse};
use super::rules::own::Asked;
use super::rules::refusal::{self, ALLOW, ALLOW_WITHOUT_MESSAGE};
use super::rules::service::{self, LIST_INVITE, LIST_MESSAGE, LIST_SUBSCRIBE};
use super::rules::syntax::Address;
use crate::content::xcap_diff;
use crate::engine::input::Refusal;
use crate::sip::Flow;
use crate::sip::message::{Message, Method, Name};
use crate::sip::ua::Reply;
use crate::sip::uri::Uri;

/// The answer to a request, and the refusal if it is one.
pub fn answer(
    house: &House,
    desk: &Desk<'_>,
    message: &Message,
    flow: &Flow,
    facts: &Facts,
) -> (Reply, Option<Refusal>) {
    match served(house, desk, message, flow, facts) {
        Ok(reply) => (reply, None),
        Err(refusal) => (refuse(house, facts, &refusal), Some(refusal)),
    }
}

fn served(
    house: &House,
    desk: &Desk<'_>,
    message: &Message,
    flow: &Flow,
    facts: &Facts,
) -> Result<Reply, Refusal> {
    let method = message.method();
    // ISC-046: what the core says about its users is never refused for a reason of ours.
    if method == Some(Method::Register) {
        return register(house, desk, message, facts);
    }
    open(desk, message)?;
    if !facts.admitted {
        identify(flow, facts)?;
    }
    match method {
        Some(Method::Options) => options(house, desk, message, facts),
        Some(Method::Notify) => Err(Refusal::new(481, "ISC-048")),
        // RFC 6086 §4.2.2: it lives in a dialog only.
        Some(Method::Info) => Err(Refusal::new(481, "IM-066")),
        _ if desk.own.classify(message.uri()) == Asked::Other => {
            Err(refusal::nobody(message.uri()))
        }
        Some(Method::Subscribe) => Err(subscribe(message)),
        Some(Method::Other(_)) if !desk.settings.profile.is_ims() => {
            Err(Refusal::new(501, "IM-046"))
        }
        Some(Method::Message) => Err(refusal::method("IM-046", ALLOW_WITHOUT_MESSAGE)),
        _ => Err(refusal::method("IM-046", ALLOW)),
    }
}

fn open(desk: &Desk<'_>, message: &Message) -> Result<(), Refusal> {
    if let Some(seconds) = desk.closed {
        return Err(Refusal { retry_after: Some(seconds), ..Refusal::new(503, "ISC-072") });
    }
    hops(message).map(drop)
}

/// Whether a request that needs a known sender is looked at.
///
/// # Errors
/// The refusal to answer with.
pub fn admit(
    desk: &Desk<'_>,
    message: &Message,
    flow: &Flow,
    facts: &Facts,
) -> Result<(), Refusal> {
    open(desk, message)?;
    identify(flow, facts)
}

/// UL-001: lists of subscriptions are not offered, and nothing else can be subscribed to.
fn subscribe(message: &Message) -> Refusal {
    let asks = |name| texts(message, name).any(|tag| tag.eq_ignore_ascii_case(LIST_SUBSCRIBE));
    if asks(Name::Require) {
        return refusal::unsupported(&[LIST_SUBSCRIBE], "UL-001");
    }
    Refusal::new(489, "IM-086")
}

/// IM-096, UL-004, ISC-072: what we are and can; lists only where lists are taken, and only of the kinds this version
/// takes: REFER is not served, so its tags are not told.
fn options(
    house: &House,
    desk: &Desk<'_>,
    message: &Message,
    facts: &Facts,
) -> Result<Reply, Refusal> {
    let asked = desk.own.classify(message.uri());
    let lists = match asked {
        Asked::Factory(_) | Asked::Server => true,
        Asked::Group(_) | Asked::Session | Asked::Documents => false,
        Asked::Other => return Err(refusal::nobody(message.uri())),
    };
    // IM-026 (RFC 3261 §8.2.2.3): of every method.
    let required = texts(message, Name::Require);
    let taken = if lists { &[LIST_INVITE, LIST_MESSAGE][..] } else { &[] };
    let missing = service::missing_options(required, taken, desk.settings.isc.preconditions);
    if !missing.is_empty() {
        return Err(refusal::unsupported(&missing, "IM-026"));
    }
    let tags = ["100rel", "timer"].iter().chain(taken).copied().collect::<Vec<_>>().join(", ");
    let uri = format!("sip:{}", house.contact);
    let more = if asked == Asked::Documents { ", SUBSCRIBE" } else { "" };
    let mut lines = format!(
        "Allow: {ALLOW}{more}\r\nAccept: {}, message/sipfrag\r\nSupported: {tags}\r\nContact: {}\r\n",
        refusal::ACCEPT,
        service::contact(&uri, house.settings.im.large.isfocus, house.icsi()),
    );
    if asked == Asked::Documents {
        // RFC 6665 §4.4.4.
        let _ = write!(lines, "Allow-Events: {}\r\n", xcap_diff::PACKAGE);
    }
    lines.push_str(&charging_answer(house, facts));
    Ok(Reply { headers: Bytes::from(lines), ..Reply::new(200) })
}

/// A third-party registration.
///
/// ISC-039: to us, from the S-CSCF about a user. ISC-040: the expiry comes back as it was.
fn register(
    house: &House,
    desk: &Desk<'_>,
    message: &Message,
    facts: &Facts,
) -> Result<Reply, Refusal> {
    let contact = texts(message, Name::Contact).next().and_then(Address::parse);
    // The S-CSCF names itself in From and in every Contact, the user only in To; a phone would name itself throughout.
    let sender = host_of(message.from().uri);
    let mut contacts = texts(message, Name::Contact).filter_map(Address::parse);
    let about_another = message.from().uri != message.to().uri
        && contacts.all(|contact| sender.is_some() && host_of(contact.uri) == sender);
    if !facts.trusted || !desk.own.is_us(message.uri()) || !about_another {
        return Err(Refusal::new(403, "ISC-039").key("sip.trusted_peers"));
    }
    let mut lines = String::new();
    let header = message.text(Name::Expires).map(str::trim);
    let in_contact = contact.and_then(|contact| contact.param("expires").flatten());
    let expires = header.or(in_contact).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    if let Some(expires) = expires {
        if let Some(contact) = contact {
            let own = in_contact.unwrap_or(expires);
            let _ = write!(lines, "Contact: <{}>;expires={own}\r\n", contact.uri);
        }
        let _ = write!(lines, "Expires: {expires}\r\n");
    }
    lines.push_str(&charging_answer(house, facts));
    Ok(Reply { headers: Bytes::from(lines), ..Reply::new(200) })
}

/// `None` for what names no host.
fn host_of(uri: &str) -> Option<String> {
    let host = Uri::parse(uri).ok()?.host().trim_end_matches('.').to_ascii_lowercase();
    (!host.is_empty()).then_some(host)
}
