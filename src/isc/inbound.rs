//! An initial request becomes an arrival or a refusal.
//!
//! Start at [`check`] for an INVITE: the checks stand there in the order of the rules, and the first failure decides.
//! [`opening`] and [`target`] are what a MESSAGE shares with it. What the answers and the recipients' requests will need is
//! kept in [`Facts`] and [`Origin`]. Asks nobody: no DNS, no XDMS (UL-031). Follows OMA 7.7.5.2, TS 24.229 5.7.2 and RFC 5366.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::login::{self, Guard};
use super::rules::boundary::{self, Boundary};
use super::rules::charging::ChargingVector;
use super::rules::identity::{self, Identity};
use super::rules::own::{Asked, Own};
use super::rules::refusal::{self, Texts};
use super::rules::route::Arrived;
use super::rules::served_user::{self, Case, Clues};
use super::rules::service::{self, LIST_INVITE, LIST_MESSAGE};
use super::rules::syntax::{self, Address};
use super::rules::trust::{self, Trust};
use super::settings::{Attribution, SendPsu, Settings};
use crate::content::request_body::{self, BodyRefusal, RequestBody};
use crate::content::resource_lists::{self, Limits};
use crate::content::sdp::{self, Chosen, Direction, Session, Wants};
use crate::engine::input::Refusal;
use crate::engine::party::{Copy, Party, Recipient, Target};
use crate::sip::message::{Message, Name};
use crate::sip::uri::Uri;
use crate::sip::{Flow, Protocol};

/// What the checks look at besides the message.
pub struct Desk<'a> {
    pub settings: &'a Settings,
    pub own: &'a Own,
    pub trust: &'a Trust,
    pub boundary: &'a Boundary,
    /// Keys of users an operator barred since the start.
    pub barred: &'a HashSet<String>,
    /// No new pages: Retry-After in seconds.
    pub closed: Option<u32>,
    /// The host in Call-IDs of ours, see [`is_own_call`].
    pub host: &'a str,
    /// Asks those for credentials who come without the core's word.
    pub guard: &'a Guard,
}

/// What every answer to a request needs, refusals included.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    /// The peer is one of the core, so its requests are served (ISC-001).
    pub admitted: bool,
    /// It is inside the trust domain, too, so what it asserts is believed (ISC-017).
    pub trusted: bool,
    pub charging: Option<ChargingVector>,
    pub identities: Vec<Identity>,
    /// The same as the engine knows them.
    pub parties: Vec<Party>,
    /// The originator's From hides who it is.
    pub hidden: bool,
    /// Who it is has not been proven: the challenge, or the end of it.
    #[serde(skip)]
    pub denied: Option<Refusal>,
}

/// What the recipients' INVITEs and the originator's answers need of the page's INVITE.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    pub dialled: Party,
    pub anonymous: bool,
    pub privacy: Option<String>,
    pub arrived: Arrived,
    /// The user in whose name legs leave: the served user of an originating request, else the first identity.
    pub acting_for: String,
    /// Registration state of that user, where somebody said so.
    pub registered: Option<bool>,
    /// The S-CSCF that registered that user (ISC-058).
    pub scscf: Option<String>,
    /// The S-CSCF the HSS names for whoever legs leave on behalf of (ISC-058).
    pub asked_scscf: Option<String>,
    /// The request came in the originating case: its S-CSCF is that user's (ISC-058).
    pub same_user: bool,
    pub charging_functions: Option<String>,
    /// As received.
    pub max_forwards: u8,
    /// Header fields that go to every leg: name and value.
    pub copied: Vec<(String, String)>,
    pub expires: Option<u32>,
    pub accept_contact: Vec<String>,
    /// The application reference of the originator's Contact, as written.
    pub iari: Option<String>,
    pub asserted_service: Option<String>,
    /// The request had a Session-ID (RFC 7989).
    pub session_id: bool,
    /// The dialog is a sips one: our Contact is, too.
    pub secure: bool,
    pub reliable: bool,
    /// What was agreed of the media; a short page has none.
    pub chosen: Option<Chosen>,
    pub target: Target,
}

/// What the checks that all methods share found out.
pub struct Opening {
    arrived: Arrived,
    served: Option<String>,
    case: Case,
    registered: Option<bool>,
    max_forwards: u8,
    dialled: Party,
    /// It is addressed to a group, not to a list service.
    pub group: bool,
}

/// Reads what answers need, before anything is decided.
///
/// ISC-017, ISC-018, ISC-025, ISC-074: only a trusted peer asserts anything; a plain core knows no charging.
/// IM-021: in a plain core those nobody vouches for may prove themselves who they are.
pub fn facts(desk: &Desk<'_>, now: Instant, message: &Message, flow: &Flow) -> Facts {
    let admitted = desk.trust.admits(flow);
    let trusted = desk.boundary.believes(desk.trust, flow);
    let mut facts = Facts { admitted, trusted, ..Facts::default() };
    if trusted {
        facts.identities = identity::asserted(texts(message, Name::PAssertedIdentity));
        let ims = desk.settings.profile.is_ims();
        let charging = message.text(Name::PChargingVector).filter(|_| ims);
        facts.charging = charging.and_then(ChargingVector::parse);
    }
    if facts.identities.is_empty() && login::asks(desk.settings, message, admitted) {
        match login::login(desk, now, message, flow) {
            Ok(known) => {
                facts.identities = vec![known.identity];
                facts.hidden = known.hidden;
            }
            Err(denied) => facts.denied = Some(denied),
        }
    }
    facts.parties = facts
        .identities
        .iter()
        .map(|identity| Party {
            uri: identity.uri.as_str().into(),
            key: key_of(desk, &identity.uri, &facts.identities).into(),
            display: identity.display.as_deref().map(Arc::from),
        })
        .collect();
    facts
}

/// Whether a dialog this request opens has to be a secure one: by its Request-URI, else by the Record-Route entry of the
/// hop before us, else by the Contact (RFC 3261 §12.1.1).
fn is_secure(message: &Message) -> bool {
    let sips = |uri: &str| uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:"));
    let route = texts(message, Name::RecordRoute).next().and_then(Address::parse);
    sips(message.uri())
        || match route {
            Some(route) => sips(route.uri),
            None => message.contact().is_some_and(|contact| sips(contact.uri)),
        }
}

/// Steps 1 to 6, the same for every method; `tag` is the option tag of its recipient lists.
///
/// # Errors
/// The refusal to answer with.
pub fn opening(
    desk: &Desk<'_>,
    message: &Message,
    flow: &Flow,
    facts: &Facts,
    tag: &str,
) -> Result<Opening, Refusal> {
    // 1: overload and drain (IM-036).
    if let Some(seconds) = desk.closed {
        return Err(Refusal { retry_after: Some(seconds), ..Refusal::new(503, "IM-036") });
    }
    // 2: hops, and legs of our own (IM-037).
    let max_forwards = hops(message)?;
    if is_own_call(message.call_id(), desk.host) {
        return Err(Refusal::new(482, "IM-037"));
    }
    // 3: peer and identity.
    identify(flow, facts)?;
    let arrived = Arrived::read(texts(message, Name::Route), |uri| desk.own.is_us(uri));
    let (served, case, registered) = served(desk, message, facts, &arrived)?;
    // 4: option tags.
    let asked = desk.own.classify(message.uri());
    options(desk, message, &asked, tag)?;
    // 5: what is asked for.
    let (dialled, group) = classify(asked, case, message.uri())?;
    // 6: may the originator use the service?
    authorise(desk, message, facts)?;
    Ok(Opening { arrived, served, case, registered, max_forwards, dialled, group })
}

/// The service the core asserts, where it may.
fn asserted_service(desk: &Desk<'_>, message: &Message) -> Option<String> {
    texts(message, Name::PAssertedService)
        .next()
        .filter(|_| desk.settings.profile.is_ims() && desk.settings.isc.asserted_service)
        .map(|service| service.trim().to_owned())
}

/// The checks of an initial INVITE in their order; the first failure decides.
///
/// # Errors
/// The refusal to answer with.
pub fn check(
    desk: &Desk<'_>,
    message: &Message,
    flow: &Flow,
    facts: &Facts,
) -> Result<Box<Origin>, Refusal> {
    let opening = opening(desk, message, flow, facts, LIST_INVITE)?;
    let group = opening.group;
    // 7, the limits of one user, is the engine's. 8: mode.
    let asserted_service = asserted_service(desk, message);
    let mode = service::mode(
        texts(message, Name::AcceptContact),
        texts(message, Name::Contact).next(),
        asserted_service.as_deref(),
        if desk.settings.profile.is_ims() { &desk.settings.im.icsi } else { "" },
    );
    let sendonly = mode != service::Mode::Either || sends_only(desk, message);
    if !service::is_large(mode, sendonly, desk.settings.im.default_mode) {
        let text = format!("Feature tag {} missing", service::LARGE);
        return Err(Refusal::new(488, "IM-025").warn(text).key("im.default_mode"));
    }
    // 9: MIME.
    let body = body(desk, message)?;
    if group && !body.lists.is_empty() {
        return Err(refusal::unsupported(&[LIST_INVITE], "IM-034"));
    }
    // 10: SDP. How many are meant decides on the envelope, so the list is read here and judged below.
    let list = recipients(desk, message, flow, facts, &body.lists, LIST_INVITE);
    let others = list.as_ref().map_or(0, |list| count_others(list, facts));
    let chosen = media(desk, &body, group, others)?;
    // 11: the list.
    let target = match group {
        true => Target::Group(opening.dialled.clone()),
        false => Target::List(bounded(desk, list?, others)?),
    };
    Ok(opening.origin(desk, message, facts, (Some(chosen), target)))
}

/// Step 11 of a MESSAGE: who is meant, or the group.
///
/// # Errors
/// The refusal to answer with; 486 is 403 to a MESSAGE (UL-036).
pub fn target(
    desk: &Desk<'_>,
    message: &Message,
    flow: &Flow,
    facts: &Facts,
    opening: &Opening,
    lists: &[Bytes],
) -> Result<Target, Refusal> {
    if opening.group {
        return match lists.is_empty() {
            true => Ok(Target::Group(opening.dialled.clone())),
            false => Err(refusal::unsupported(&[LIST_MESSAGE], "IM-034")),
        };
    }
    let list = recipients(desk, message, flow, facts, lists, LIST_MESSAGE)?;
    let others = count_others(&list, facts);
    bounded(desk, list, others).map(Target::List)
}

/// IM-032, UL-020: all or nothing.
fn bounded(
    desk: &Desk<'_>,
    list: Vec<Recipient>,
    others: usize,
) -> Result<Vec<Recipient>, Refusal> {
    let bounds = [
        (desk.settings.im.max_recipients, "im.max_recipients"),
        (desk.settings.ul.max_entries, "ul.max_entries"),
    ];
    match bounds.into_iter().min().filter(|(most, _)| others > *most) {
        Some((_, key)) => {
            let text = texts_of(desk).too_many();
            Err(Refusal::new(486, "IM-032").warn(text).key(key))
        }
        None => Ok(list),
    }
}

impl Opening {
    /// What the recipients' requests and the originator's answers need, once the checks are passed.
    pub fn origin(
        self,
        desk: &Desk<'_>,
        message: &Message,
        facts: &Facts,
        (chosen, target): (Option<Chosen>, Target),
    ) -> Box<Origin> {
        let Self { arrived, served, case, registered, max_forwards, dialled, .. } = self;
        // ISC-024: several lines are one list.
        let wishes: Vec<_> =
            message.lines(Name::Privacy).map(|line| String::from_utf8_lossy(line)).collect();
        let privacy = (!wishes.is_empty()).then(|| wishes.join(";"));
        let originator = facts.identities.first().map(|identity| identity.uri.clone());
        let served = served.filter(|_| case == Case::Originating);
        Box::new(Origin {
            anonymous: facts.hidden || identity::is_anonymous(privacy.as_deref()),
            privacy,
            acting_for: served.or(originator).unwrap_or_default(),
            same_user: case == Case::Originating,
            arrived,
            registered,
            scscf: None,
            asked_scscf: None,
            charging_functions: ims_text(desk, message, Name::PChargingFunctionAddresses),
            max_forwards,
            copied: copied(desk, message),
            expires: message.text(Name::Expires).and_then(|text| text.trim().parse().ok()),
            accept_contact: texts(message, Name::AcceptContact).map(str::to_owned).collect(),
            iari: texts(message, Name::Contact)
                .next()
                .and_then(Address::parse)
                .and_then(|contact| contact.param(service::IARI_REF).flatten())
                .map(str::to_owned),
            asserted_service: asserted_service(desk, message),
            session_id: message.header(Name::Other("Session-ID")).is_some(),
            secure: is_secure(message),
            reliable: message.has_token(Name::Supported, "100rel")
                || message.has_token(Name::Require, "100rel"),
            chosen,
            target,
            dialled,
        })
    }
}

/// The elements of a header as text, those that are no text left out.
pub fn texts(message: &Message, name: Name) -> impl Iterator<Item = &str> {
    message.values(name).filter_map(|value| std::str::from_utf8(value).ok())
}

fn texts_of(desk: &Desk<'_>) -> Texts {
    Texts { numbers: desk.settings.im.warning_numbers }
}

fn ims_text(desk: &Desk<'_>, message: &Message, name: Name) -> Option<String> {
    message.text(name).filter(|_| desk.settings.profile.is_ims()).map(str::to_owned)
}

/// IM-037, ISC-015: 0 hops left is the end; a request without the field has 70 (RFC 3261 §16.3).
pub fn hops(message: &Message) -> Result<u8, Refusal> {
    let hops = message
        .text(Name::MaxForwards)
        .map_or(Ok(70), |text| text.trim().parse::<u16>())
        .map_err(|_| Refusal::new(400, "ISC-015"))?;
    if hops == 0 {
        return Err(Refusal::new(483, "IM-037"));
    }
    Ok(u8::try_from(hops).unwrap_or(u8::MAX))
}

/// Whether a Call-ID is one of our own legs'.
///
/// IM-037: `lm-`, the thread's two digits and sixteen random ones, and our host.
pub fn is_own_call(call_id: &[u8], host: &str) -> bool {
    let Some((token, at)) = std::str::from_utf8(call_id).ok().and_then(|id| id.split_once('@'))
    else {
        return false;
    };
    let digits = token.strip_prefix("lm-");
    at.eq_ignore_ascii_case(host)
        && digits.is_some_and(|digits| {
            digits.len() >= 18
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        })
}

/// ISC-001, IM-021: only peers of the core, and only with an identity they vouch for; or somebody who has proven to be
/// who the request is from.
pub fn identify(flow: &Flow, facts: &Facts) -> Result<(), Refusal> {
    if let Some(denied) = &facts.denied {
        return Err(denied.clone());
    }
    if !facts.identities.is_empty() {
        return Ok(());
    }
    if !facts.admitted {
        tracing::debug!(peer = %flow.peer, "peer is not in sip.trusted_peers");
        return Err(Refusal::new(403, "ISC-001").key("sip.trusted_peers"));
    }
    Err(Refusal::new(403, "IM-021"))
}

/// ISC-019, ISC-020: whom the S-CSCF serves, in which case, and whether registered.
fn served(
    desk: &Desk<'_>,
    message: &Message,
    facts: &Facts,
    arrived: &Arrived,
) -> Result<(Option<String>, Case, Option<bool>), Refusal> {
    let settings = desk.settings;
    // Section L: older cores and plain ones do not know the header.
    let known = settings.profile.is_ims() && settings.isc.send_psu != SendPsu::Never;
    let values = texts(message, Name::PServedUser).filter(|_| known);
    let header = served_user::read(values, settings.isc.many_served_users)
        .map_err(|_| Refusal::new(400, "ISC-019").key("isc.many_served_users"))?;
    let clues = Clues {
        originating: arrived.is_originating(),
        asserted: facts.identities.first().map(|identity| identity.uri.as_str()),
        request_uri: message.uri(),
    };
    let (user, case) = served_user::decide(header.as_ref(), clues);
    let registered = header.filter(|_| case == Case::Originating).and_then(|user| user.registered);
    Ok((user, case, registered))
}

/// IM-026, UL-002, ISC-063: every required option is served, the list only by a list service.
fn options(desk: &Desk<'_>, message: &Message, asked: &Asked, tag: &str) -> Result<(), Refusal> {
    // Nobody's URI is judged by the next step: 404 says more than 420.
    let list_service = matches!(asked, Asked::Factory(_) | Asked::Other);
    let lists = if list_service { &[tag][..] } else { &[] };
    let missing = service::missing_options(
        texts(message, Name::Require),
        lists,
        desk.settings.isc.preconditions,
    );
    if missing.is_empty() {
        return Ok(());
    }
    let rule = match missing.as_slice() {
        [missing] if missing.eq_ignore_ascii_case(tag) => "IM-034",
        _ => "IM-026",
    };
    let refusal = refusal::unsupported(&missing, rule);
    match missing.as_slice() {
        [tag] if tag.eq_ignore_ascii_case("precondition") => Err(refusal.key("isc.preconditions")),
        _ => Err(refusal),
    }
}

/// IM-023, ISC-021: list services and groups are served here, and never for a user who diverted the call.
fn classify(asked: Asked, case: Case, dialled: &str) -> Result<(Party, bool), Refusal> {
    if case == Case::OriginatingAfterDiversion {
        return Err(Refusal::new(404, "ISC-021"));
    }
    let (uri, group) = match asked {
        Asked::Factory(uri) => (uri, false),
        Asked::Group(uri) => (uri, true),
        Asked::Server | Asked::Session | Asked::Documents | Asked::Other => {
            return Err(refusal::nobody(dialled));
        }
    };
    let key = Uri::parse(&uri).map_or_else(|_| uri.clone(), |uri| uri.canonical());
    Ok((Party { uri: uri.into(), key: key.into(), display: None }, group))
}

/// IM-024, IM-044: the originator may use the service, with a release we serve.
fn authorise(desk: &Desk<'_>, message: &Message, facts: &Facts) -> Result<(), Refusal> {
    let settings = desk.settings;
    let named = |list: &[String]| {
        list.iter()
            .any(|uri| facts.parties.iter().any(|party| same_key(desk, uri, facts, &party.key)))
    };
    let barred = named(&settings.service.barred)
        || facts.parties.iter().any(|party| desk.barred.contains(&*party.key));
    let subscribed =
        settings.service.subscribers.is_empty() || named(&settings.service.subscribers);
    if barred || !subscribed {
        let key = if barred { "service.barred" } else { "service.subscribers" };
        return Err(Refusal::new(403, "IM-024").warn(texts_of(desk).not_authorised()).key(key));
    }
    let token = message.text(Name::UserAgent).or_else(|| message.text(Name::Server));
    let release = token.and_then(service::oma_release);
    if settings.im.strict_release && release.is_some_and(|release| release != settings.im.release) {
        let text = texts_of(desk).version();
        return Err(Refusal::new(403, "IM-044").warn(text).key("im.strict_release"));
    }
    Ok(())
}

/// IM-027, UL-006, UL-007.
fn body(desk: &Desk<'_>, message: &Message) -> Result<RequestBody, Refusal> {
    let bytes = message.body_bytes();
    if bytes.is_empty() {
        return Ok(RequestBody::default());
    }
    let Some(content_type) = message.content_type() else {
        return Err(refusal::media_type("IM-027"));
    };
    let disposition = message.text(Name::ContentDisposition);
    request_body::read(content_type, disposition, &bytes, desk.settings.ul.require_strict).map_err(
        |error| match error {
            BodyRefusal::Broken(_) => Refusal::new(400, "IM-027").warn(error.to_string()),
            BodyRefusal::Unknown => refusal::media_type("IM-027"),
        },
    )
}

/// IM-025: with both feature tags the direction of the media decides. What cannot be read is judged later.
fn sends_only(desk: &Desk<'_>, message: &Message) -> bool {
    let chosen = body(desk, message).ok().and_then(|body| media(desk, &body, false, 0).ok());
    chosen.is_none_or(|chosen| chosen.peer.direction == Direction::SendOnly)
}

/// IM-028, IM-029, IM-030, ISC-063, MS-020.
fn media(
    desk: &Desk<'_>,
    body: &RequestBody,
    group: bool,
    others: usize,
) -> Result<Chosen, Refusal> {
    let settings = desk.settings;
    let Some(sdp) = &body.sdp else {
        return Err(Refusal::new(488, "IM-028").warn("No SDP offer"));
    };
    let session =
        Session::parse(sdp).map_err(|error| Refusal::new(400, "IM-028").warn(error.to_string()))?;
    let wants = Wants {
        accept: &settings.media.accept,
        attributed: match settings.media.attribution {
            Attribution::Many => group || others > 1,
            Attribution::Group => group,
            Attribution::Never => false,
        },
        max_size: settings.im.large.max_size,
        tls: settings.media.tls,
        families: settings.media.families,
        cema: settings.media.cema,
    };
    let chosen = sdp::choose(&session, &wants).map_err(|error| {
        let refusal = Refusal {
            warning: Some((error.code, error.text.to_owned())),
            ..Refusal::new(error.status, error.rule)
        };
        match error.rule {
            "IM-030" if settings.im.large.by_msrp => refusal.key("msrp.max_message"),
            "IM-030" => refusal.key("im.large.max_size"),
            "MS-020" => refusal.key("msrp.attribution"),
            "IM-078" => refusal.key("msrp.tls.listen"),
            _ => refusal,
        }
    })?;
    Ok(if settings.isc.preconditions { chosen.with_preconditions() } else { chosen })
}

/// The distinct entries of the request's lists.
///
/// IM-003, IM-031, UL-002, UL-008, UL-010, UL-012, UL-015, UL-035.
fn recipients(
    desk: &Desk<'_>,
    message: &Message,
    flow: &Flow,
    facts: &Facts,
    lists: &[Bytes],
    tag: &str,
) -> Result<Vec<Recipient>, Refusal> {
    let ul = &desk.settings.ul;
    if lists.is_empty() {
        // The tag without a list and a list service without a list are the same fault.
        return Err(Refusal::new(400, "IM-031").warn("Recipient list missing"));
    }
    if ul.require_strict && !message.has_token(Name::Require, tag) {
        return Err(Refusal::new(400, "UL-002").warn("Require missing").key("ul.require_strict"));
    }
    if !trust::list_is_confidential(facts.trusted, flow.protocol == Protocol::Tls, ul.require_tls) {
        return Err(Refusal::new(403, "UL-035").key("ul.require_tls"));
    }
    let mut entries = Vec::new();
    let mut octets = 0;
    for list in lists {
        octets += list.len();
        let limits = Limits { max_bytes: ul.max_bytes, strict: ul.require_strict };
        let read = resource_lists::read(list, &limits);
        let list = read.and_then(|list| {
            if octets > ul.max_bytes { Err(resource_lists::BadList::TooLarge) } else { Ok(list) }
        });
        let list = list.map_err(|error| {
            let refusal = Refusal::new(error.status(), "UL-017").warn(error.to_string());
            if error.status() == 413 { refusal.key("ul.max_bytes") } else { refusal }
        })?;
        if list.references > 0 {
            tracing::info!(
                references = list.references,
                "UL-009: references in a list not followed"
            );
        }
        entries.extend(list.entries);
    }
    let merged = resource_lists::merge(entries, |uri| target_key(desk, uri, facts));
    Ok(merged.into_iter().map(|entry| recipient(desk, entry, facts)).collect())
}

fn recipient(desk: &Desk<'_>, entry: resource_lists::Entry, facts: &Facts) -> Recipient {
    let key = target_key(desk, &entry.uri, facts);
    let parsed = Uri::parse(&entry.uri).ok();
    let headers = parsed.as_ref().map(asked_headers).unwrap_or_default();
    let uri = match &parsed {
        Some(uri) => uri.without_headers_and_method().as_str().to_owned(),
        None => entry.uri,
    };
    Recipient {
        party: Party { uri: uri.into(), key: key.into(), display: None },
        copy: match entry.copy {
            resource_lists::Copy::To => Copy::To,
            resource_lists::Copy::Cc => Copy::Cc,
            resource_lists::Copy::Bcc => Copy::Bcc,
        },
        anonymize: entry.anonymize,
        headers,
    }
}

/// UL-015: of the header fields in an entry's URI those on the allow-list, without line breaks.
fn asked_headers(uri: &Uri) -> Vec<(String, String)> {
    const ALLOWED: [&str; 3] = ["Accept-Contact", "Priority", "Subject"];
    uri.headers()
        .filter_map(|(name, value)| {
            let name = ALLOWED.into_iter().find(|allowed| allowed.eq_ignore_ascii_case(name))?;
            let value: String =
                service::decode(value).chars().filter(|c| !c.is_control()).collect();
            Some((name.to_owned(), value))
        })
        .collect()
}

fn count_others(list: &[Recipient], facts: &Facts) -> usize {
    list.iter()
        .filter(|entry| !facts.parties.iter().any(|party| party.key == entry.party.key))
        .count()
}

/// The key of a list entry: what the URI names, whatever header fields it asks for (UL-010, UL-011).
fn target_key(desk: &Desk<'_>, uri: &str, facts: &Facts) -> String {
    match Uri::parse(uri) {
        Ok(parsed) => key_of(desk, parsed.without_headers_and_method().as_str(), &facts.identities),
        Err(_) => uri.to_owned(),
    }
}

/// UL-011: the key of a URI; with `ul.normalise_tel` a number in the originator's home domain is the number.
fn key_of(desk: &Desk<'_>, uri: &str, identities: &[Identity]) -> String {
    let Ok(parsed) = Uri::parse(uri) else { return uri.to_owned() };
    let home = identities
        .iter()
        .filter(|_| desk.settings.ul.normalise_tel)
        .find_map(|identity| Uri::parse(&identity.uri).ok().filter(Uri::is_sip));
    match home {
        Some(home) => parsed.canonical_in(home.host()),
        None => parsed.canonical(),
    }
}

fn same_key(desk: &Desk<'_>, uri: &str, facts: &Facts, key: &str) -> bool {
    key_of(desk, uri, &facts.identities) == key
}

/// IM-048, UL-029: what goes to every leg as it came.
fn copied(desk: &Desk<'_>, message: &Message) -> Vec<(String, String)> {
    const ALWAYS: [&str; 6] =
        ["Subject", "Priority", "Date", "Organization", "Answer-Mode", "Content-Language"];
    const NEVER: [&str; 26] = [
        // ISC-033, ISC-035.
        "P-Visited-Network-ID",
        "P-Preferred-Service",
        "Via",
        "Route",
        "Record-Route",
        "Call-ID",
        "CSeq",
        "From",
        "To",
        "Contact",
        "Require",
        "Supported",
        "Max-Forwards",
        "Content-Length",
        "Content-Type",
        "Accept-Contact",
        "Allow",
        "Accept",
        "Session-Expires",
        "Min-SE",
        "Expires",
        "User-Agent",
        "Server",
        "Privacy",
        "Authorization",
        "Proxy-Authorization",
    ];
    let mut out = Vec::new();
    for (name, value) in message.all_headers() {
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else {
            continue;
        };
        let is = |list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(name));
        let wanted = is(&ALWAYS)
            || name.eq_ignore_ascii_case("s")
            || (desk.settings.im.pass_through.iter().any(|known| known.eq_ignore_ascii_case(name))
                && !is(&NEVER)
                && !boundary::is_trusted_only(name)
                && (desk.settings.profile.is_ims() || !boundary::is_ims_only(name)))
            || is_foreign_credential(name, value, &desk.settings.realm);
        if wanted {
            let name = if name.eq_ignore_ascii_case("s") { "Subject" } else { name };
            out.push((name.to_owned(), value.to_owned()));
        }
    }
    out
}

/// UL-029 (RFC 5365 §7.2): credentials for our realm stay here, others may be somebody's further on.
fn is_foreign_credential(name: &str, value: &str, realm: &str) -> bool {
    ["Authorization", "Proxy-Authorization"].iter().any(|known| known.eq_ignore_ascii_case(name))
        && syntax::split(value, b',').any(|param| {
            let param = param.trim();
            let param = param.rsplit_once(' ').map_or(param, |(_, last)| last);
            param.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("realm")
                    && !syntax::unquote(value).eq_ignore_ascii_case(realm)
            })
        })
}
