//! What leaves: the INVITE or MESSAGE of every recipient and the answers to the originator.
//!
//! Start at [`Block::new`]: what all legs of a page share is printed once; [`invite`] and [`message`] stamp the rest. Answers
//! are [`progress`], [`answer`], [`accepted`] and [`refuse`]. Follows OMA 7.7.7.1, 7.7.8.2, 7.5.1 and TS 24.229 5.7.3.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};

use super::inbound::{Facts, Origin};
use super::legs::Leg;
use super::rules::charging::{self, ChargingVector};
use super::rules::own::own_domain;
use super::rules::refusal::{self, ALLOW};
use super::rules::route::{self, Fanout, Kind, Way};
use super::rules::syntax::Address;
use super::rules::{identity, served_user, service};
use super::settings::{AnonReject, CoreProfile, PsiRoute, Refresher, Settings, SizeBasis, Source};
use crate::content::message_body::{self, Piece};
use crate::content::multipart;
use crate::content::request_body::{HISTORY, RESOURCE_LISTS};
use crate::content::resource_lists::{self, BccMode, Entry};
use crate::content::sdp::{self, Chosen, End};
use crate::engine::effect::Cause;
use crate::engine::ids::{LegId, PageId};
use crate::engine::input::{Mode, Refusal};
use crate::engine::party::{Audience, Copy, Recipient};
use crate::sip::message::Method;
use crate::sip::ua::{self, Invite, OutRequest, Reply};

/// What we take in answers (IM-046).
const ACCEPT: &str = "application/sdp, message/sipfrag, multipart/mixed";

/// Everything about this server that stands in what it sends.
#[derive(Debug, Clone)]
pub struct House {
    pub settings: Settings,
    /// `host` of our own URIs: `icid-generated-at`, Warning, Call-ID.
    pub host: String,
    /// `host[:port]` of Contact, with `;transport=` where our own URI has it.
    pub contact: String,
    /// `IM-serv/OMA1.0 vendor/version` (IM-044).
    pub product: String,
    pub thread: u8,
}

impl House {
    /// The URI of a page's dialogs.
    ///
    /// IM-042: one user part for each fan-out.
    pub fn session_uri(&self, page: PageId) -> String {
        format!("sip:lm-{page}@{}", self.contact)
    }

    /// The service identifier legs and Contacts carry; a plain core knows none.
    pub fn icsi(&self) -> &str {
        if self.is_ims() { &self.settings.im.icsi } else { "" }
    }

    /// Whether services and applications are named by feature tags (section L): an older core knows them only where the
    /// operator says so, a plain one never.
    fn knows_services(&self) -> bool {
        match self.settings.profile {
            CoreProfile::Gpp => true,
            CoreProfile::Gpp2 => self.settings.isc.asserted_service || !self.icsi().is_empty(),
            CoreProfile::SipIp => false,
        }
    }

    fn contact(&self, page: PageId) -> String {
        service::contact(&self.session_uri(page), self.settings.im.large.isfocus, self.icsi())
    }

    /// A Contact for a dialog that is secure or not (RFC 3261 §8.1.1.8, §12.1.1).
    fn secured(&self, contact: &str, secure: bool) -> String {
        if secure && self.settings.sip.secure {
            contact.replacen("<sip:", "<sips:", 1)
        } else {
            contact.to_owned()
        }
    }

    /// Our inter-operator identifier: the configured operator, else the one the core speaks for, else our domain.
    pub fn ioi(&self, charging: Option<&ChargingVector>) -> String {
        let isc = &self.settings.isc;
        let operator = if isc.operator.is_empty() {
            let named = charging.and_then(ChargingVector::orig_operator);
            named.unwrap_or_else(|| own_domain(&self.settings.sip.uri, &self.host))
        } else {
            isc.operator.clone()
        };
        charging::ioi(&isc.ioi_prefix, &operator)
    }

    /// Our first domain, where numbers are at home.
    fn home(&self) -> &str {
        self.settings
            .service
            .home_domains
            .first()
            .map_or(super::rules::own::domain(&self.host), String::as_str)
    }

    pub fn is_ims(&self) -> bool {
        self.settings.profile.is_ims()
    }
}

/// RFC 3261 §8.1.1.8: the Request-URI or the topmost Route is a sips URI.
fn asks_for_tls(way: &Way, uri: &str) -> bool {
    let sips = |uri: &str| uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:"));
    let top = way.route.first().and_then(|entry| Address::parse(entry));
    sips(uri) || top.is_some_and(|top| sips(top.uri))
}

/// What one try of a leg does differently from the first (IM-062).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variant {
    /// Without the history list.
    pub plain: bool,
    /// Min-SE the peer asked for.
    pub min_se: Option<u32>,
    /// Option tags not to offer.
    pub without: Vec<String>,
    /// Another Request-URI, and the History-Info that says so (ISC-070).
    pub elsewhere: Option<(String, String)>,
}

/// The lines all legs of one page share, printed once.
#[derive(Debug, Clone)]
pub struct Block {
    lines: Bytes,
    from: String,
    /// The identity of the service, where it is the service that speaks (ISC-060).
    pub own_name: Option<String>,
    contact: String,
    /// Value lines every leg has unless its list entry asked for another.
    replaceable: Vec<(String, String)>,
    accept_contact: Vec<String>,
    /// What all recipients may see of the list, if anything.
    history: Option<String>,
}

impl Block {
    /// Prints the shared lines.
    ///
    /// IM-038…IM-049, ISC-022, ISC-031, ISC-034, ISC-073, ISC-077.
    pub fn new(
        house: &House,
        (page, mode): (PageId, Mode),
        origin: &Origin,
        facts: &Facts,
        kind: Kind,
        audience: &Audience,
    ) -> Self {
        let settings = &house.settings;
        let mut lines = String::with_capacity(1024);
        let mut put = |name: &str, value: &str| {
            let value = value.replace(['\r', '\n', '\0'], " ");
            let _ = write!(lines, "{name}: {value}\r\n");
        };
        let service_name = format!("<{}>", origin.dialled.uri);
        // ISC-060: what is sent in the service's own name names nobody else, whatever the profile says of users' pages.
        let as_service = kind == Kind::Service || settings.im.pai_source == Source::Service;
        let own_name = as_service.then(|| service_name.clone()).filter(|_| house.is_ims());
        if house.is_ims() {
            let asserted = own_name.clone().unwrap_or_else(|| identity::assert(&facts.identities));
            put("P-Asserted-Identity", &asserted);
            if let Some(user) = served_user_value(settings, origin, facts, kind) {
                put("P-Served-User", &user);
            }
            if let Some(addresses) = &origin.charging_functions {
                put("P-Charging-Function-Addresses", addresses);
            }
            let received = origin.asserted_service.as_deref();
            // Our own identifier is that of large pages.
            let icsi = if mode == Mode::Large { house.icsi() } else { "" };
            if let Some(service) = service::asserted(received, icsi)
                && settings.isc.asserted_service
            {
                put("P-Asserted-Service", service);
            }
        }
        if let Some(privacy) = &origin.privacy {
            put("Privacy", privacy);
        }
        let originator = facts.parties.first();
        let uri = originator.map_or("", |party| &*party.uri);
        if let Some(referrer) = identity::referred_by(uri, origin.anonymous)
            && mode == Mode::Large
        {
            put("Referred-By", &referrer);
        }
        put("User-Agent", &house.product);
        if mode == Mode::Large {
            put("Allow", ALLOW);
            put("Accept", ACCEPT);
        }
        let mut replaceable = Vec::new();
        for (name, value) in &origin.copied {
            if ["Subject", "Priority"].iter().any(|known| known.eq_ignore_ascii_case(name)) {
                replaceable.push((name.clone(), value.clone()));
            } else {
                put(name, value);
            }
        }
        let from = match settings.im.from_source {
            Source::Originator if kind != Kind::Service => {
                let display = originator.and_then(|party| party.display.as_deref());
                identity::from_header(uri, display, origin.anonymous)
            }
            _ if origin.anonymous => identity::ANONYMOUS.to_owned(),
            _ => service_name,
        };
        let received: Vec<String> = match house.knows_services() {
            true => origin.accept_contact.clone(),
            false => origin
                .accept_contact
                .iter()
                .filter_map(|v| service::without_references(v))
                .collect(),
        };
        let accept_contact = match mode {
            Mode::Large => service::accept_contact(
                received.iter().map(String::as_str),
                &settings.im.accept_contact_params,
                house.icsi(),
            ),
            Mode::Short => received,
        };
        Self {
            lines: Bytes::from(lines),
            from,
            own_name,
            contact: contact_of_legs(house, page, origin),
            replaceable,
            accept_contact,
            history: resource_lists::history(&entries(audience), settings.ul.bcc_mode, None),
        }
    }
}

/// ISC-022, ISC-060: who is served by the S-CSCF we send to, if anybody.
fn served_user_value(
    settings: &Settings,
    origin: &Origin,
    facts: &Facts,
    kind: Kind,
) -> Option<String> {
    let (user, registered) = match kind {
        Kind::User | Kind::Dialog => {
            (origin.acting_for.as_str(), origin.registered.unwrap_or(true))
        }
        Kind::Service if settings.isc.psi_route == PsiRoute::Scscf => (&*origin.dialled.uri, false),
        Kind::Service | Kind::Plain => return None,
    };
    let asserted: Vec<&str> = if kind == Kind::Service || settings.im.pai_source == Source::Service
    {
        vec![&origin.dialled.uri]
    } else {
        facts.identities.iter().map(|identity| identity.uri.as_str()).collect()
    };
    served_user::is_sent(settings.isc.send_psu, user, &asserted)
        .then(|| served_user::write(user, registered))
}

/// The way of one leg, decided when it is invited.
///
/// ISC-006: the received Route serves only until our final answer.
pub fn way(house: &House, origin: &Origin, answered: bool) -> Way {
    route::fanout(leaving(house, origin, answered))
}

/// What decides it.
pub fn leaving<'a>(house: &'a House, origin: &'a Origin, answered: bool) -> Fanout<'a> {
    Fanout {
        profile: house.settings.profile,
        route: house.settings.isc.fanout_route,
        psi_route: house.settings.isc.psi_route,
        core: &house.settings.core,
        arrived: &origin.arrived,
        odi_valid: !answered,
        same_user: origin.same_user,
        stored: origin.scscf.as_deref(),
        asked: origin.asked_scscf.as_deref(),
    }
}

/// What belongs to one leg alone, whatever the method.
#[derive(Debug)]
pub struct Personal<'a> {
    pub leg: LegId,
    pub call_id: &'a str,
    /// Random bits for what has to be unique.
    pub random: u64,
    pub recipient: &'a Recipient,
    pub audience: &'a Audience,
    /// Whole seconds since the originator's request.
    pub elapsed: u32,
}

impl Personal<'_> {
    /// What this recipient may see of the list, if anything.
    ///
    /// UL-023: only a bcc recipient may see more than everybody, and only itself.
    fn history<'b>(&self, settings: &Settings, block: &'b Block) -> Option<Cow<'b, str>> {
        let own = &self.recipient.party.uri;
        let sees_itself =
            settings.ul.bcc_mode == BccMode::KeepOwn && self.recipient.copy == Copy::Bcc;
        let personal = (sees_itself && block.history.is_some())
            .then(|| resource_lists::history(&entries(self.audience), BccMode::KeepOwn, Some(own)))
            .flatten();
        personal.map(Cow::Owned).or_else(|| block.history.as_deref().map(Cow::Borrowed))
    }

    /// Its lines, and the charging vectors for this request and for later ones in its dialog.
    ///
    /// IM-047, IM-048, IM-049, ISC-027, ISC-077, ISC-078, UL-015.
    fn lines(
        &self,
        house: &House,
        origin: &Origin,
        facts: &Facts,
        (block, kind): (&Block, Kind),
        history_info: Option<&str>,
    ) -> (BytesMut, Option<String>) {
        let mut lines = BytesMut::with_capacity(block.lines.len() + 512);
        let mut put = |name: &str, value: &str| put(&mut lines, name, value);
        let charging = house.is_ims().then(|| leg_charging(house, facts, kind, self));
        if let Some((first, _)) = &charging {
            put("P-Charging-Vector", first);
        }
        // ISC-077: the fan-out itself retargets nobody.
        if let Some(history) = history_info {
            put("History-Info", history);
        }
        let asked = |name: &'static str| {
            let headers = &self.recipient.headers;
            headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name))
        };
        for value in &block.accept_contact {
            put("Accept-Contact", value);
        }
        for (_, value) in asked("Accept-Contact") {
            put("Accept-Contact", value);
        }
        for name in ["Subject", "Priority"] {
            let own: Vec<_> = asked(name).take(1).collect();
            let shared =
                block.replaceable.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            for (_, value) in own.iter().copied().chain(shared.filter(|_| own.is_empty())) {
                put(name, value);
            }
        }
        if let Some(expires) = origin.expires {
            put("Expires", &expires.saturating_sub(self.elapsed).to_string());
        }
        if origin.session_id {
            // ISC-078: a local half of its own, the other one not known yet (RFC 7989).
            let page = self.leg.page.as_u64();
            let local = u128::from(self.random) << 64 | u128::from(page ^ u64::from(self.leg.n));
            put("Session-ID", &format!("{local:032x};remote={:032x}", 0));
        }
        (lines, charging.map(|(_, later)| later))
    }
}

fn put(lines: &mut BytesMut, name: &str, value: &str) {
    for text in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        lines.put_slice(text);
    }
}

/// What belongs to one leg of a large page.
#[derive(Debug)]
pub struct Stamp<'a> {
    pub who: Personal<'a>,
    pub own: &'a End,
    /// What was agreed with the originator.
    pub chosen: &'a Chosen,
    pub variant: &'a Variant,
    /// This recipient's client is known to refuse multipart.
    pub plain: bool,
    /// The offer says CEMA (MS-026).
    pub cema: bool,
}

/// One leg's INVITE.
///
/// IM-002, IM-005, IM-006, IM-038…IM-050, ISC-015, ISC-028, ISC-051, UL-003, UL-015.
pub fn invite(
    house: &House,
    origin: &Origin,
    facts: &Facts,
    block: &Block,
    way: Way,
    stamp: &Stamp<'_>,
) -> Invite {
    let settings = &house.settings;
    let history_info = stamp.variant.elsewhere.as_ref().map(|(_, info)| info.as_str());
    let who = &stamp.who;
    let (mut lines, later) = who.lines(house, origin, facts, (block, way.kind), history_info);
    let mut put = |name: &str, value: &str| put(&mut lines, name, value);
    let supported: Vec<&str> = ["100rel", "timer"]
        .into_iter()
        .filter(|tag| !stamp.variant.without.iter().any(|not| not.eq_ignore_ascii_case(tag)))
        .collect();
    if !supported.is_empty() {
        put("Supported", &supported.join(", "));
    }
    let wanted = settings.im.large.session_timer && supported.contains(&"timer");
    let mut interval = Some(settings.im.session_expires).filter(|_| wanted);
    let refresher = match settings.im.refresher {
        Refresher::Omit => None,
        Refresher::Uac => Some(ua::Refresher::Uac),
        Refresher::Uas => Some(ua::Refresher::Uas),
    };
    // IM-062: a least interval other than our own is written here, not by the stack.
    if let Some(least) = stamp.variant.min_se.filter(|_| wanted) {
        let parameter =
            refresher.map_or(String::new(), |side| format!(";refresher={}", side.as_str()));
        let asked = least.max(settings.im.session_expires);
        put("Session-Expires", &format!("{asked}{parameter}"));
        put("Min-SE", &least.to_string());
        interval = None;
    }
    lines.put_slice(&block.lines);
    let offer = offer(settings, stamp);
    let secure = asks_for_tls(&way, &who.recipient.party.uri);
    let contact = house.secured(&block.contact, secure);
    Invite {
        call_id: who.call_id.to_owned(),
        request_uri: match &stamp.variant.elsewhere {
            Some((uri, _)) => uri.clone(),
            None => route::request_uri(&who.recipient.party.uri, &way.route, house.home()),
        },
        to: format!("<{}>", who.recipient.party.uri),
        from: block.from.clone(),
        max_forwards: origin.max_forwards.saturating_sub(1),
        route: way.route,
        contact,
        headers: lines.freeze(),
        in_dialog: in_dialog(house, later),
        body: Some(body(settings, block, &offer, stamp)),
        session_expires: interval,
        refresher,
        offer,
        ..Invite::default()
    }
}

/// One recipient's MESSAGE.
#[derive(Debug)]
pub struct Copied {
    pub request: OutRequest,
    /// It shows the history list.
    pub lists: bool,
    /// It is longer than may be sent (IM-079).
    pub too_large: bool,
}

/// One recipient's copy of a short page; `plain` without the history list, which also goes where there is no room for it.
///
/// IM-079, UL-003, UL-015, UL-025, UL-027, UL-028, ISC-015, ISC-028.
pub fn message(
    house: &House,
    origin: &Origin,
    facts: &Facts,
    (block, way): (&Block, Way),
    who: &Personal<'_>,
    (payload, plain): (&[Piece], bool),
) -> Copied {
    let (mut lines, _) = who.lines(house, origin, facts, (block, way.kind), None);
    lines.put_slice(&block.lines);
    let mut request = OutRequest {
        call_id: who.call_id.to_owned(),
        request_uri: route::request_uri(&who.recipient.party.uri, &way.route, house.home()),
        to: format!("<{}>", who.recipient.party.uri),
        from: block.from.clone(),
        max_forwards: origin.max_forwards.saturating_sub(1),
        route: way.route,
        ..OutRequest::new(Method::Message)
    };
    let pager = &house.settings.pager;
    let fits = |request: &OutRequest| {
        let octets = match pager.size_basis {
            SizeBasis::Request => octets(request),
            SizeBasis::Body => request.body.as_ref().map_or(0, |(_, body)| body.len()),
        };
        pager.safe_path || octets <= pager.max_size
    };
    if let Some(history) = who.history(&house.settings, block).filter(|_| !plain) {
        let with = filled(&request, &lines, payload, Some(&history));
        if fits(&with) {
            return Copied { request: with, lists: true, too_large: false };
        }
    }
    request = filled(&request, &lines, payload, None);
    let too_large = !fits(&request);
    Copied { request, lists: false, too_large }
}

/// The request with its lines and its body.
fn filled(
    request: &OutRequest,
    lines: &[u8],
    payload: &[Piece],
    history: Option<&str>,
) -> OutRequest {
    let (fields, body) = message_body::write(payload, history);
    let mut headers = BytesMut::from(lines);
    let mut content_type = String::new();
    for (name, value) in fields {
        let value = value.replace(['\r', '\n', '\0'], " ");
        if name.eq_ignore_ascii_case("Content-Type") {
            content_type = value;
        } else if !has(lines, &name) {
            put(&mut headers, &name, &value);
        }
    }
    OutRequest { headers: headers.freeze(), body: Some((content_type, body)), ..request.clone() }
}

/// Whether the field stands among the lines already: copied as the operator wants it, say.
fn has(lines: &[u8], name: &str) -> bool {
    lines.split(|octet| *octet == b'\n').any(|line| {
        line.get(name.len()) == Some(&b':')
            && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
    })
}

/// About how long a request is on the wire: everything but the lines the stack writes, and room for those.
fn octets(request: &OutRequest) -> usize {
    /// Via, CSeq, tags, Content-Length, the names of the fields.
    const STACK: usize = 250;
    let routes: usize = request.route.iter().map(|route| route.len() + 9).sum();
    let fields = [&request.request_uri, &request.to, &request.from, &request.call_id];
    let fields: usize = fields.into_iter().map(String::len).sum();
    let body = request.body.as_ref().map_or(0, |(kind, body)| kind.len() + body.len());
    STACK + routes + fields + request.headers.len() + body
}

/// The charging vectors of a leg: for the INVITE, and for later requests in its dialog.
///
/// ISC-027, ISC-028.
fn leg_charging(house: &House, facts: &Facts, kind: Kind, who: &Personal<'_>) -> (String, String) {
    let received = facts.charging.as_ref();
    let ioi = house.ioi(received);
    let vector = match (kind, received) {
        (Kind::Dialog, Some(received)) => received.forward(),
        _ => {
            let icid = leg_icid(kind, received, who.leg, who.random);
            let related =
                received.filter(|_| house.settings.isc.related_icid).and_then(ChargingVector::icid);
            charging::new_leg(&icid, &house.host, &ioi, related.as_deref())
        }
    };
    let later = ChargingVector::parse(&vector).map(|vector| vector.in_dialog(&ioi));
    (vector, later.unwrap_or_default())
}

/// ISC-028: a leg has an icid of its own, but where the originator's dialog goes on in it.
pub fn leg_icid(kind: Kind, received: Option<&ChargingVector>, leg: LegId, random: u64) -> String {
    match received.filter(|_| kind == Kind::Dialog).and_then(ChargingVector::icid) {
        Some(icid) => icid.into_owned(),
        None => format!("{}-{}-{random:016x}", leg.page, leg.n),
    }
}

/// Lines of our later requests in a dialog: none of what belongs to initial requests (ISC-014).
fn in_dialog(house: &House, charging: Option<String>) -> Bytes {
    let mut lines = String::new();
    if let Some(charging) = charging.filter(|vector| !vector.is_empty()) {
        let _ = write!(lines, "P-Charging-Vector: {charging}\r\n");
    }
    let _ = write!(lines, "User-Agent: {}\r\n", house.product);
    Bytes::from(lines)
}

/// Lines of requests we send in a dialog that passes through us (ISC-027).
pub fn own_lines(house: &House, charging: Option<&ChargingVector>) -> Bytes {
    let ioi = house.ioi(charging);
    in_dialog(house, charging.filter(|_| house.is_ims()).map(|vector| vector.in_dialog(&ioi)))
}

/// IM-005…IM-009.
fn offer(settings: &Settings, stamp: &Stamp<'_>) -> Bytes {
    let own = own(settings, stamp.own, stamp.who.random, 1);
    stamp.chosen.offer(&sdp::Own { cema: stamp.cema, ..own })
}

/// Our side of one description; `name` is different for every dialog.
fn own<'a>(settings: &'a Settings, end: &'a End, name: u64, version: u64) -> sdp::Own<'a> {
    sdp::Own {
        path: &end.path,
        session_id: name >> 2,
        version,
        max_size: settings.im.large.max_size,
        fingerprints: &end.fingerprints,
        cema: settings.media.cema,
    }
}

/// 200 to a re-INVITE or UPDATE that made a new MSRP session, with our side of it.
///
/// MS-016.
pub fn moved(sdp: Bytes) -> Reply {
    Reply {
        headers: Bytes::from(format!("Allow: {ALLOW}\r\nSupported: timer\r\n")),
        body: Some(("application/sdp".to_owned(), sdp)),
        ..Reply::new(200)
    }
}

/// Our answer to a recipient's new path.
pub fn sdp_for_leg(house: &House, chosen: &Chosen, leg: &Leg, theirs: &sdp::Later) -> Bytes {
    let own = own(&house.settings, &leg.own, leg.random, leg.version);
    chosen.answer_member(&own, theirs)
}

/// IM-047, UL-021: the offer alone, or with the history list where there is something to show.
fn body(settings: &Settings, block: &Block, offer: &Bytes, stamp: &Stamp<'_>) -> (String, Bytes) {
    let plain = stamp.plain || stamp.variant.plain;
    match stamp.who.history(settings, block).filter(|_| !plain) {
        None => ("application/sdp".to_owned(), offer.clone()),
        Some(list) => multipart::write(&[
            (&[("Content-Type", "application/sdp")], offer),
            (
                &[("Content-Type", RESOURCE_LISTS), ("Content-Disposition", HISTORY)],
                list.as_bytes(),
            ),
        ]),
    }
}

/// UL-022, UL-023.
fn entries(audience: &Audience) -> Vec<Entry> {
    let entry = |recipient: &Recipient| Entry {
        uri: recipient.party.uri.to_string(),
        copy: match recipient.copy {
            Copy::To => resource_lists::Copy::To,
            Copy::Cc => resource_lists::Copy::Cc,
            Copy::Bcc => resource_lists::Copy::Bcc,
        },
        tagged: true,
        anonymize: recipient.anonymize,
    };
    audience.history.iter().map(entry).collect()
}

/// ISC-037: the application the originator's client named goes to every leg.
fn contact_of_legs(house: &House, page: PageId, origin: &Origin) -> String {
    let mut contact = house.contact(page);
    if let Some(iari) = origin.iari.as_ref().filter(|_| house.knows_services()) {
        let _ = write!(contact, ";{}={iari}", service::IARI_REF);
    }
    contact
}

/// A provisional answer to the originator.
///
/// IM-020, IM-054: our own, with our SDP where it is to be reliable and the media is ready.
pub fn progress(
    house: &House,
    page: PageId,
    origin: &Origin,
    facts: &Facts,
    ringing: bool,
    own_end: Option<&End>,
) -> Reply {
    let status = if ringing { 180 } else { 183 };
    let own_end = own_end.filter(|_| origin.reliable);
    let body = own_end.and_then(|end| sdp_answer(house, page, origin, end));
    Reply { reliable: true, body, ..positive(house, page, origin, facts, status) }
}

/// The 200 to the originator.
///
/// IM-052, ISC-023, ISC-026.
pub fn answer(
    house: &House,
    page: PageId,
    origin: &Origin,
    facts: &Facts,
    own_end: &End,
    warnings: &[String],
) -> Reply {
    let positive = positive(house, page, origin, facts, 200);
    let mut headers = positive.headers.to_vec();
    for warning in warnings {
        headers.extend_from_slice(refusal::warning(399, &house.host, warning).as_bytes());
    }
    Reply {
        headers: Bytes::from(headers),
        body: sdp_answer(house, page, origin, own_end),
        ..positive
    }
}

/// The 202 to the originator of a short page.
///
/// IM-079, UL-027: no body, no Contact. ISC-023, ISC-026.
pub fn accepted(house: &House, origin: &Origin, facts: &Facts, warnings: &[String]) -> Reply {
    let mut lines = String::new();
    if house.is_ims() {
        let _ = write!(lines, "P-Asserted-Identity: <{}>\r\n", origin.dialled.uri);
    }
    lines.push_str(&charging_answer(house, facts));
    for warning in warnings {
        lines.push_str(&refusal::warning(399, &house.host, warning));
    }
    Reply { headers: Bytes::from(lines), ..Reply::new(202) }
}

fn positive(house: &House, page: PageId, origin: &Origin, facts: &Facts, status: u16) -> Reply {
    let mut lines = String::new();
    if house.is_ims() {
        let _ = write!(lines, "P-Asserted-Identity: <{}>\r\n", origin.dialled.uri);
    }
    lines.push_str(&charging_answer(house, facts));
    let _ = write!(lines, "Allow: {ALLOW}\r\nSupported: 100rel, timer\r\n");
    let ioi = house.ioi(facts.charging.as_ref());
    let later = facts.charging.as_ref().map(|vector| vector.in_dialog(&ioi));
    Reply {
        headers: Bytes::from(lines),
        contact: Some(house.secured(&house.contact(page), origin.secure)),
        in_dialog: Some(in_dialog(house, later)),
        ..Reply::new(status)
    }
}

fn sdp_answer(house: &House, page: PageId, origin: &Origin, end: &End) -> Option<(String, Bytes)> {
    let chosen = origin.chosen.as_ref()?;
    Some(("application/sdp".to_owned(), sdp_for_originator(house, page, chosen, end, 1)))
}

/// Our answer to the originator.
pub fn sdp_for_originator(
    house: &House,
    page: PageId,
    chosen: &Chosen,
    end: &End,
    version: u64,
) -> Bytes {
    chosen.answer(&own(&house.settings, end, page.as_u64(), version))
}

/// ISC-026: the charging line of an answer, or nothing where the request had none.
pub fn charging_answer(house: &House, facts: &Facts) -> String {
    charging_line(house, facts.charging.as_ref())
}

/// The same for any vector that was received.
pub fn charging_line(house: &House, vector: Option<&ChargingVector>) -> String {
    match vector.filter(|_| house.is_ims()) {
        Some(vector) => {
            let ioi = house.ioi(Some(vector));
            format!("P-Charging-Vector: {}\r\n", vector.answer(&ioi))
        }
        None => String::new(),
    }
}

/// The refusal of a request.
///
/// UL-036, ISC-026, ISC-066; IM-022 in the words the profile wants.
pub fn refuse(house: &House, facts: &Facts, refusal: &Refusal) -> Reply {
    let mut refusal = refusal.clone();
    let rfc = house.settings.im.anon_reject == AnonReject::Rfc;
    if rfc && refusal.rule == "IM-022" && refusal.status == 403 {
        (refusal.status, refusal.warning) = (433, None);
    }
    if !house.settings.im.warning_numbers {
        refusal::leave_number_out(&mut refusal);
    }
    let mut lines = refusal::lines(&refusal, &house.host) + &charging_answer(house, facts);
    let source = &house.settings.isc.response_source;
    if !source.is_empty() && house.is_ims() {
        // ISC-076 (TS 24.229 7.2.17).
        let _ = write!(lines, "Response-Source: fe=<{source}>\r\n");
    }
    Reply {
        headers: Bytes::from(lines),
        ..Reply::new(refusal::status(&refusal, house.settings.profile))
    }
}

/// The Reason value for what we end ourselves.
///
/// ISC-055, IM-060, IM-074 (RFC 3326): a status where there is one, whoever gave it.
pub fn reason(cause: &Cause) -> String {
    let text = super::rules::syntax::quote(&cause.text);
    if (200..700).contains(&cause.code) {
        format!("SIP;cause={};text={text}", cause.code)
    } else {
        format!("SIP;text={text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::effect::CauseProtocol;

    /// Proves ISC-055.
    #[test]
    fn the_reason_names_the_status_where_there_is_one() {
        let cause = |protocol, code| Cause { protocol, code, text: "x \"y\"".to_owned() };
        for (cause, want) in [
            (cause(CauseProtocol::Sip, 488), "SIP;cause=488;text=\"x \\\"y\\\"\""),
            (cause(CauseProtocol::Msrp, 413), "SIP;cause=413;text=\"x \\\"y\\\"\""),
            (cause(CauseProtocol::Timer, 0), "SIP;text=\"x \\\"y\\\"\""),
        ] {
            assert_eq!(reason(&cause), want);
        }
    }
}
