//! Session descriptions for MSRP: reading offers and answers, choosing a line, writing ours (RFC 4975 §8, RFC 6135).
//!
//! As answerer: [`Session::parse`], [`choose`], [`Chosen::answer`]. As offerer towards the recipients, from the same
//! choice: [`Chosen::offer`], later [`read_answer`]. For a re-INVITE: [`compare`]. Follows IM-005 to IM-009, IM-028 to
//! IM-030, IM-060, IM-068 and MS-007 to MS-028. Resolves no name, connects to nothing.
//!
//! With CEMA (RFC 6714) the address of `c=` and `m=` is dialled, without it that of the path; either way the whole path
//! is the To-Path.

use std::fmt::Write as _;
use std::net::IpAddr;

use bytes::Bytes;
use sdp_types::{AddrType, Attribute, Media};

use super::fingerprint::{self, Proof, Terms};
use super::media_address::{Fit, Names};
use super::msrp_uri::{BadMsrpUri, MsrpUri};

const CPIM: &str = "message/cpim";

/// A session description as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session(sdp_types::Session);

/// The bytes are no session description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed SDP: {what}")]
pub struct BadSdp {
    /// What is wrong, without any value from the peer but line numbers.
    pub what: String,
}

impl Session {
    /// The kind of address a media line is at; `None` where it does not say.
    pub fn family(&self, line: usize) -> Option<Family> {
        family(&self.0, self.0.medias.get(line)?)
    }

    /// Reads a session description; lines may end in LF alone.
    ///
    /// # Errors
    /// [`BadSdp`] for anything the structure of RFC 8866 forbids, or text that is not UTF-8.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadSdp> {
        sdp_types::Session::parse(bytes)
            .map(Self)
            .map_err(|error| BadSdp { what: error.to_string() })
    }

    /// How many media lines it has.
    pub fn lines(&self) -> usize {
        self.0.medias.len()
    }
}

/// Content types the server takes, in order of preference; `*` and `type/*` are wildcards (MS-010).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AcceptTypes {
    /// At the top level.
    pub types: Vec<String>,
    /// Inside a container.
    pub wrapped: Vec<String>,
}

impl Default for AcceptTypes {
    /// MS-012: the containers are named, beside what phones send.
    fn default() -> Self {
        let types: Vec<String> = [
            CPIM,
            "text/plain",
            "text/html",
            "image/png",
            "image/jpeg",
            "application/octet-stream",
            "multipart/mixed",
            "multipart/alternative",
            "multipart/signed",
        ]
        .map(str::to_owned)
        .to_vec();
        Self { wrapped: types.clone(), types }
    }
}

impl AcceptTypes {
    /// Whether content of that type may stand at the top level.
    pub fn takes(&self, content_type: &str) -> bool {
        matches_any(&self.types, content_type)
    }

    /// MS-011: whether content of that type may stand inside a container.
    pub fn takes_wrapped(&self, content_type: &str) -> bool {
        matches_any(&self.types, content_type) || matches_any(&self.wrapped, content_type)
    }
}

/// Whether a list of types, wildcards included, covers a type.
///
/// MS-010 (RFC 4975 §8.6): type and subtype have no case; parameters on either side do not narrow the match.
pub fn matches_any<S: AsRef<str>>(list: &[S], content_type: &str) -> bool {
    list.iter().any(|entry| covers(entry.as_ref(), content_type))
}

fn covers(entry: &str, content_type: &str) -> bool {
    let (entry, wanted) = (essence(entry), essence(content_type));
    if entry == "*" || entry.eq_ignore_ascii_case(wanted) {
        return true;
    }
    match (entry.strip_suffix("/*"), wanted.split_once('/')) {
        (Some(kind), Some((wanted, _))) => kind == "*" || kind.eq_ignore_ascii_case(wanted),
        _ => false,
    }
}

fn essence(entry: &str) -> &str {
    entry.split(';').next().unwrap_or(entry).trim()
}

/// A kind of network address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Of an address; `None` for a name, which may stand for both.
    pub fn of(host: &str) -> Option<Self> {
        host.parse::<IpAddr>().ok().map(|ip| if ip.is_ipv6() { Self::V6 } else { Self::V4 })
    }
}

/// The kinds of addresses we can be reached at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

impl Default for Families {
    fn default() -> Self {
        Self { v4: true, v6: true }
    }
}

impl Families {
    /// Those of the hosts we tell.
    pub fn of<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut families = Self { v4: false, v6: false };
        for host in hosts {
            let family = Family::of(host);
            families.v4 |= family != Some(Family::V6);
            families.v6 |= family != Some(Family::V4);
        }
        families
    }

    /// Whether a peer with such an address can reach us.
    pub fn serve(self, family: Option<Family>) -> bool {
        match family {
            Some(Family::V4) => self.v4,
            Some(Family::V6) => self.v6,
            None => true,
        }
    }
}

/// ISC-064 (RFC 3261 §20.43): an address format we do not have.
pub const FORMATS: &str = "Incompatible network address formats";

/// What the server wants of an offer.
#[derive(Debug, Clone, Copy)]
pub struct Wants<'a> {
    /// What it takes.
    pub accept: &'a AcceptTypes,
    /// MS-020: each page says in CPIM who sent it: `msrp.attribution`, an IM Group, or more than one recipient.
    pub attributed: bool,
    /// `im.large.max_size`: octets of a complete page (IM-030).
    pub max_size: u64,
    /// `TCP/TLS/MSRP` can be served.
    pub tls: Option<Tls>,
    /// Addresses of ours that can stand in the answer (ISC-064).
    pub families: Families,
    /// `msrp.cema`: offers of CEMA are taken (MS-027).
    pub cema: bool,
}

/// How `TCP/TLS/MSRP` is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tls {
    /// What peers may prove themselves with.
    pub terms: Terms,
    /// Addresses of ours for it.
    pub families: Families,
}

/// Which way ordinary content may flow, seen from who wrote the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Direction {
    /// Both ways; also without any attribute.
    #[default]
    SendRecv,
    /// Only from the writer.
    SendOnly,
    /// Only to the writer.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The writer may send content.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// The writer takes content.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// Who opens the connection, seen from us (RFC 6135).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Role {
    /// We connect.
    Active,
    /// We wait.
    Passive,
}

/// The peer's side of a session.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Peer {
    /// MS-009: leftmost is the next hop, rightmost the peer; all of it is the To-Path.
    pub path: Vec<MsrpUri>,
    /// Ours.
    pub role: Role,
    /// Host (without brackets) and port to connect to, if we do.
    pub dial: Option<(String, u16)>,
    /// What the peer takes at the top level.
    pub accept_types: Vec<String>,
    /// What the peer takes inside a container.
    pub accept_wrapped: Vec<String>,
    /// MS-017: the peer's limit for a complete message, if it stated one.
    pub max_size: Option<u64>,
    /// As the peer wrote it.
    pub direction: Direction,
    /// The session runs over TLS, and this is what the peer has to show there.
    pub proof: Option<Proof>,
}

/// Why an offer is refused, in the words of the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {text} ({rule})")]
pub struct SdpRefusal {
    /// 488, or 403 for the size.
    pub status: u16,
    /// Warn-code: 302, 304, 305, or 399 for our own words.
    pub code: u16,
    /// The warn-text.
    pub text: &'static str,
    /// The rule that decided.
    pub rule: &'static str,
}

const fn refusal(status: u16, code: u16, text: &'static str, rule: &'static str) -> SdpRefusal {
    SdpRefusal { status, code, text, rule }
}

/// The line of an offer that is served, and what follows from it for every leg.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Chosen {
    /// The originator's side.
    pub peer: Peer,
    /// What the answer to the originator lists: top level and wrapped.
    pub accept: AcceptTypes,
    /// What the offers to recipients list.
    pub member: AcceptTypes,
    /// IM-030: octets the originator announced by `file-selector`.
    pub size: Option<u64>,
    /// MS-020: the page names its sender, so it has to be `message/cpim`.
    pub attributed: bool,
    /// MS-028: the offer is only good if these are one place.
    pub names: Option<Names>,
    /// MS-027: the answer says CEMA, as the offer did.
    cema: bool,
    line: usize,
    #[serde(with = "as_text::attributes")]
    copied: Vec<Attribute>,
    /// The originator's `curr` and `des`, where they are answered.
    #[serde(with = "as_text::attributes")]
    conditions: Vec<Attribute>,
    #[serde(with = "as_text::description")]
    offer: sdp_types::Session,
}

/// Descriptions and their attributes as they stand in SDP, for what outlives the process.
mod as_text {
    pub mod attributes {
        use sdp_types::Attribute;
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        pub fn serialize<S: Serializer>(of: &[Attribute], to: S) -> Result<S::Ok, S::Error> {
            let pairs: Vec<_> = of.iter().map(|a| (&a.attribute, &a.value)).collect();
            pairs.serialize(to)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Attribute>, D::Error> {
            let pairs = Vec::<(String, Option<String>)>::deserialize(from)?;
            let attribute = |(attribute, value)| Attribute { attribute, value };
            Ok(pairs.into_iter().map(attribute).collect())
        }
    }

    pub mod description {
        use serde::{Deserialize, Deserializer, Serializer, de, ser};

        pub fn serialize<S: Serializer>(of: &sdp_types::Session, to: S) -> Result<S::Ok, S::Error> {
            let mut text = Vec::new();
            of.write(&mut text).map_err(ser::Error::custom)?;
            to.serialize_str(std::str::from_utf8(&text).map_err(ser::Error::custom)?)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<sdp_types::Session, D::Error> {
            let text = String::deserialize(from)?;
            let parsed = crate::content::sdp::Session::parse(text.as_bytes());
            parsed.map(|parsed| parsed.0).map_err(de::Error::custom)
        }
    }
}

/// Finds the first media line that can be served (IM-009).
///
/// IM-028, IM-029, IM-030, MS-001, MS-007, MS-008, MS-013, MS-020, MS-027. With no usable line the first MSRP line says
/// why; without any MSRP line it is the protocol (302) or the media (304).
///
/// # Errors
/// The refusal to answer with.
pub fn choose(session: &Session, wants: &Wants<'_>) -> Result<Chosen, SdpRefusal> {
    let mut first: Option<SdpRefusal> = None;
    for (line, media) in session.0.medias.iter().enumerate() {
        match usable(&session.0, line, media, wants) {
            Ok(chosen) => return Ok(chosen),
            Err(Some(why)) => first = first.or(Some(why)),
            Err(None) => {}
        }
    }
    Err(first.unwrap_or_else(|| {
        if session.0.medias.iter().any(is_message) {
            refusal(488, 302, "Incompatible transport protocol", "IM-028")
        } else {
            refusal(488, 304, "Media type not available", "IM-028")
        }
    }))
}

fn usable(
    session: &sdp_types::Session,
    line: usize,
    media: &Media,
    wants: &Wants<'_>,
) -> Result<Chosen, Option<SdpRefusal>> {
    let Some(tls) = msrp_protocol(media) else { return Err(None) };
    let (terms, families) = match (tls, wants.tls) {
        (false, _) => (None, wants.families),
        (true, Some(tls)) => (Some(tls.terms), tls.families),
        (true, None) => {
            return Err(Some(refusal(488, 302, "Incompatible transport protocol", "IM-078")));
        }
    };
    if media.port == 0 {
        return Err(Some(refusal(488, 304, "Media type not available", "IM-028")));
    }
    let setup = setup(media);
    // IM-068, MS-024: we are reachable, so we wait unless the peer insists on waiting itself.
    let role = if setup == Setup::Passive { Role::Active } else { Role::Passive };
    let cema = wants.cema && offers_cema(media);
    let peer = peer(session, media, terms, role, cema).map_err(|flaw| {
        Some(match flaw {
            Flaw::NoPath => refusal(488, 399, "No MSRP path", "IM-028"),
            Flaw::BadPath => refusal(488, 399, "Unusable MSRP path", "MS-001"),
            Flaw::Scheme => refusal(488, 302, "Incompatible transport protocol", "MS-007"),
            Flaw::NoTypes => refusal(488, 305, "Incompatible media format", "MS-008"),
            Flaw::Unproven => refusal(488, 399, "No usable fingerprint", "MS-112"),
        })
    })?;
    let names = match offered_address(session, media, &peer.path, setup) {
        Fit::Same => None,
        Fit::Names(names) => Some(names),
        Fit::Differs => return Err(Some(refusal(488, 399, ADDRESSES_DIFFER, "MS-027"))),
    };
    if !families.serve(family(session, media)) {
        return Err(Some(refusal(488, 301, FORMATS, "ISC-064")));
    }
    let (accept, member) = select(&peer, wants).ok_or(Some(refusal(
        488,
        305,
        "Incompatible media format",
        "IM-028",
    )))?;
    // IM-029: the originator has to be able to send.
    if !peer.direction.sends() {
        return Err(Some(refusal(488, 399, "Direction does not allow sending", "IM-029")));
    }
    let size = announced_size(media);
    // IM-030: max-size is what the offerer takes, so it is not looked at here.
    if size.is_some_and(|size| size > wants.max_size) {
        return Err(Some(refusal(403, 399, "Size exceeded", "IM-030")));
    }
    let mut copied: Vec<Attribute> =
        media.attributes.iter().filter(|a| !is_hop_bound(&a.attribute)).cloned().collect();
    // A direction for the whole session holds for the line as well (MS-014).
    if peer.direction != Direction::SendRecv && !copied.iter().any(|a| direction_of(a).is_some()) {
        copied.push(Attribute { attribute: peer.direction.name().to_owned(), value: None });
    }
    let attributed = wants.attributed;
    let (conditions, offer) = (Vec::new(), session.clone());
    Ok(Chosen {
        peer,
        accept,
        member,
        size,
        attributed,
        names,
        cema,
        line,
        copied,
        conditions,
        offer,
    })
}

/// IM-007, MS-018, MS-020: the types for the answer and for the recipients' offers; `None` when nothing is left.
fn select(peer: &Peer, wants: &Wants<'_>) -> Option<(AcceptTypes, AcceptTypes)> {
    let types = narrow(&peer.accept_types, &wants.accept.types);
    let mut wrapped = narrow(&peer.accept_wrapped, &wants.accept.wrapped);
    if types.is_empty() {
        return None;
    }
    if !wants.attributed {
        let both = AcceptTypes { types, wrapped };
        return Some((with_own_wrapped(both.clone(), wants), both));
    }
    // MS-020: the envelope tells who sent the page, so both sides have to know it.
    if !matches_any(&types, CPIM) {
        return None;
    }
    let content: Vec<String> = types.iter().filter(|t| !is_cpim(t)).cloned().collect();
    let mut answered = vec![CPIM.to_owned()];
    answered.extend(content.iter().cloned());
    // What could stand alone may stand inside the envelope too (MS-011).
    let mut inside = content;
    for entry in wrapped.drain(..) {
        if !inside.iter().any(|have| have.eq_ignore_ascii_case(&entry)) {
            inside.push(entry);
        }
    }
    let answer = AcceptTypes { types: answered, wrapped: inside.clone() };
    let member = AcceptTypes { types: vec![CPIM.to_owned()], wrapped: inside };
    Some((with_own_wrapped(answer, wants), member))
}

/// An offer of nothing but the envelope leaves open what is inside: then the answer says what we take.
fn with_own_wrapped(mut answer: AcceptTypes, wants: &Wants<'_>) -> AcceptTypes {
    if answer.wrapped.is_empty() && answer.types.iter().all(|t| is_cpim(t)) {
        answer.wrapped = wants.accept.wrapped.clone();
    }
    answer
}

fn is_cpim(entry: &str) -> bool {
    essence(entry).eq_ignore_ascii_case(CPIM)
}

/// The offered types we take, in the offer's order and spelling; a wildcard becomes what we take below it (IM-007).
fn narrow(offered: &[String], ours: &[String]) -> Vec<String> {
    let mut selected: Vec<String> = Vec::new();
    let mut add = |entry: &str| {
        if !selected.iter().any(|have| have.eq_ignore_ascii_case(entry)) {
            selected.push(entry.to_owned());
        }
    };
    for entry in offered {
        if matches_any(ours, entry) {
            add(entry);
        } else if entry.contains('*') {
            ours.iter().filter(|own| covers(entry, own)).for_each(|own| add(own));
        }
    }
    selected
}

/// Our end of one MSRP session, as peers are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub path: MsrpUri,
    /// Values of `a=fingerprint`; empty without TLS.
    pub fingerprints: Vec<String>,
}

impl TryFrom<&str> for End {
    type Error = BadMsrpUri;

    /// One without TLS.
    fn try_from(path: &str) -> Result<Self, Self::Error> {
        Ok(Self { path: MsrpUri::parse(path)?, fingerprints: Vec::new() })
    }
}

/// What we write into a description of ours. The same values give the same bytes (MS-015).
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Our MSRP URI for this leg (IM-006, MS-002).
    pub path: &'a MsrpUri,
    /// `sess-id`: differs for each leg, says nothing about anybody.
    pub session_id: u64,
    /// `sess-version`: 1 at first, one more for each change (MS-015).
    pub version: u64,
    /// `a=max-size` (MS-017).
    pub max_size: u64,
    /// `a=fingerprint`, one line each, where `path` is a secure one.
    pub fingerprints: &'a [String],
    /// `a=msrp-cema` in offers, and in answers to offers that have it (MS-026, MS-027).
    pub cema: bool,
}

impl Chosen {
    /// Preconditions are answered here and asked of nobody else.
    ///
    /// ISC-063 (RFC 3312): they are about the originator's own access, so recipients hear nothing of them.
    #[must_use]
    pub fn with_preconditions(mut self) -> Self {
        let (conditions, copied) = std::mem::take(&mut self.copied)
            .into_iter()
            .partition(|a| ["curr", "des", "conf"].contains(&a.attribute.as_str()));
        (self.conditions, self.copied) = (conditions, copied);
        self
    }

    /// The answer to the originator: every media line in its place, all but one refused (IM-009, IM-052).
    ///
    /// IM-029, IM-068, MS-007, MS-014, MS-020, MS-023, MS-025.
    pub fn answer(&self, own: &Own<'_>) -> Bytes {
        let mut out = head(own);
        for (n, media) in self.offer.medias.iter().enumerate() {
            if n != self.line {
                // Whatever stands in the peer's line holds no line end: the parser split at them.
                line(&mut out, format_args!("m={} 0 {} {}", media.media, media.proto, media.fmt));
                continue;
            }
            let active = self.peer.role == Role::Active;
            let port = if active { 9 } else { port(own) };
            line(&mut out, format_args!("m=message {port} {} *", protocol(own)));
            types(&mut out, &self.accept);
            line(&mut out, format_args!("a=max-size:{}", own.max_size));
            fingerprint(&mut out, own);
            line(&mut out, format_args!("a=setup:{}", if active { "active" } else { "passive" }));
            cema(&mut out, self.cema);
            // RFC 5547 §8.2: accepting a file transfer repeats its name.
            if self.copied.iter().any(|a| a.attribute == "file-transfer-id") {
                let names = ["file-selector", "file-transfer-id"];
                for a in self.copied.iter().filter(|a| names.contains(&a.attribute.as_str())) {
                    attribute(&mut out, a);
                }
            }
            conditions(&mut out, &self.conditions);
            line(&mut out, format_args!("a=recvonly"));
            line(&mut out, format_args!("a=path:{}", own.path.as_str()));
        }
        Bytes::from(out)
    }

    /// The offer to one recipient.
    ///
    /// IM-005 to IM-009, MS-018 to MS-021, MS-023: our own path, one line, the types that were selected, and every
    /// other attribute of the originator's line byte for byte, but those that belong to one hop.
    pub fn offer(&self, own: &Own<'_>) -> Bytes {
        self.to_member(own, port(own), "actpass", own.cema)
    }

    /// The answer to a later offer of a recipient: what [`Chosen::offer`] says, with who connects decided.
    ///
    /// MS-016, MS-025, MS-027.
    pub fn answer_member(&self, own: &Own<'_>, theirs: &Later) -> Bytes {
        match theirs.peer.role {
            Role::Active => self.to_member(own, 9, "active", theirs.cema),
            Role::Passive => self.to_member(own, port(own), "passive", theirs.cema),
        }
    }

    fn to_member(&self, own: &Own<'_>, port: u16, setup: &str, with_cema: bool) -> Bytes {
        let mut out = head(own);
        line(&mut out, format_args!("m=message {port} {} *", protocol(own)));
        types(&mut out, &self.member);
        line(&mut out, format_args!("a=max-size:{}", own.max_size));
        fingerprint(&mut out, own);
        line(&mut out, format_args!("a=setup:{setup}"));
        cema(&mut out, with_cema);
        self.copied.iter().for_each(|a| attribute(&mut out, a));
        line(&mut out, format_args!("a=path:{}", own.path.as_str()));
        Bytes::from(out)
    }

    /// Which media line of the offer is served, counted from 0.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The kind of address the originator offered, so that the answer has one of the same kind.
    ///
    /// ISC-064.
    pub fn family(&self) -> Option<Family> {
        family(&self.offer, self.offer.medias.get(self.line)?)
    }

    /// How a later offer of the originator differs from the one this was chosen from.
    pub fn change(&self, session: &Session) -> Change {
        changed(&self.offer, &session.0)
    }

    /// The same choice after a later offer of the originator with another path.
    ///
    /// MS-016. `cema` is whether we take it.
    ///
    /// # Errors
    /// [`Unusable`]: the new path cannot be used.
    pub fn moved(&self, session: &Session, terms: Terms, cema: bool) -> Result<Self, Unusable> {
        let tls = self.peer.proof.as_ref().map(|_| terms);
        let Later { peer, cema, names } = read_again(session, self.line, tls, cema)?;
        Ok(Self { peer, cema, names, offer: session.0.clone(), ..self.clone() })
    }
}

/// `v=` to `t=`. IM-040: `o=` never names a user.
fn head(own: &Own<'_>) -> String {
    let mut out = String::with_capacity(512);
    let host = own.path.bare_host();
    let family = match own.path.ip() {
        Some(IpAddr::V6(_)) => "IP6",
        _ => "IP4",
    };
    line(&mut out, format_args!("v=0"));
    line(&mut out, format_args!("o=- {} {} IN {family} {host}", own.session_id, own.version));
    line(&mut out, format_args!("s=-"));
    line(&mut out, format_args!("c=IN {family} {host}"));
    line(&mut out, format_args!("t=0 0"));
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing into a String cannot fail");
    out.push_str("\r\n");
}

fn attribute(out: &mut String, a: &Attribute) {
    match &a.value {
        Some(value) => line(out, format_args!("a={}:{value}", a.attribute)),
        None => line(out, format_args!("a={}", a.attribute)),
    }
}

fn types(out: &mut String, accept: &AcceptTypes) {
    line(out, format_args!("a=accept-types:{}", accept.types.join(" ")));
    if !accept.wrapped.is_empty() {
        line(out, format_args!("a=accept-wrapped-types:{}", accept.wrapped.join(" ")));
    }
}

/// Lines of preconditions that are read.
const MOST_CONDITIONS: usize = 32;

/// The answer to preconditions: our segment is met, we want to hear when the peer's is.
///
/// ISC-063 (RFC 3312 §5): what is local to the peer is remote to us, and what it sends we receive.
fn conditions(out: &mut String, theirs: &[Attribute]) {
    // More lines than any access needs are not answered.
    let theirs = &theirs[..theirs.len().min(MOST_CONDITIONS)];
    let words = |a: &Attribute| -> Vec<String> {
        let value = a.value.as_deref().unwrap_or_default();
        value.split_ascii_whitespace().map(str::to_owned).collect()
    };
    let of = |name: &str| {
        let named = theirs.iter().filter(move |a| a.attribute == name);
        named.map(words).collect::<Vec<_>>()
    };
    let mut kinds: Vec<String> = Vec::new();
    for current in of("curr") {
        let [kind, status, direction] = &current[..] else { continue };
        match status.as_str() {
            "local" if !kinds.contains(kind) => {
                kinds.push(kind.clone());
                line(out, format_args!("a=curr:{kind} local sendrecv"));
                line(out, format_args!("a=curr:{kind} remote {}", turned(direction)));
                if direction != "sendrecv" {
                    line(out, format_args!("a=conf:{kind} remote sendrecv"));
                }
            }
            "e2e" => line(out, format_args!("a=curr:{kind} e2e {}", turned(direction))),
            _ => {}
        }
    }
    for desired in of("des") {
        let [kind, strength, status, direction] = &desired[..] else { continue };
        let status = match status.as_str() {
            "local" => "remote",
            "remote" => "local",
            other => other,
        };
        line(out, format_args!("a=des:{kind} {strength} {status} {}", turned(direction)));
    }
}

fn turned(direction: &str) -> &str {
    match direction {
        "send" => "recv",
        "recv" => "send",
        other => other,
    }
}

fn fingerprint(out: &mut String, own: &Own<'_>) {
    for value in own.fingerprints {
        line(out, format_args!("a=fingerprint:{value}"));
    }
}

/// MS-026 (RFC 6714 §4.2): beside `a=setup`, without a value.
fn cema(out: &mut String, said: bool) {
    if said {
        line(out, format_args!("a=msrp-cema"));
    }
}

fn port(own: &Own<'_>) -> u16 {
    own.path.port().unwrap_or(9)
}

/// MS-007: `msrps:` goes with TLS.
fn protocol(own: &Own<'_>) -> &'static str {
    if own.path.is_secure() { "TCP/TLS/MSRP" } else { "TCP/MSRP" }
}

/// The answer of a recipient cannot be used: acknowledge, then end the session with this text (IM-060).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Unusable {
    /// For `Reason: SIP;cause=488;text="…"` and operators.
    pub text: &'static str,
}

/// A recipient's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub peer: Peer,
    /// Whether the session can be had this way. [`Fit::Differs`]: a middlebox is on the way that the recipient will not
    /// connect to, so that it has to be asked once more without CEMA (MS-026).
    pub fit: Fit,
}

/// Reads a recipient's answer to an offer of ours, which had one line, over TLS where there are terms for it. `cema` is
/// whether we offered it.
///
/// IM-060, IM-068, MS-008, MS-009, MS-017, MS-024, MS-026, MS-112.
///
/// # Errors
/// [`Unusable`] without a line that takes the page.
pub fn read_answer(session: &Session, tls: Option<Terms>, cema: bool) -> Result<Answer, Unusable> {
    let unusable = |text| Unusable { text };
    let media = session.0.medias.first().ok_or(unusable("answer without media"))?;
    let secure = msrp_protocol(media).ok_or(unusable("answer without MSRP"))?;
    if secure != tls.is_some() {
        return Err(unusable("answer changes the protocol"));
    }
    if media.port == 0 {
        return Err(unusable("media refused"));
    }
    // MS-024: `passive`, none, and the illegal `actpass` and `holdconn` make us connect.
    let role = if setup(media) == Setup::Active { Role::Passive } else { Role::Active };
    // MS-026 (RFC 6714 §4.2): whether the answer says CEMA or not, whoever changed the address waits there.
    let peer = peer(&session.0, media, tls, role, cema).map_err(|flaw| match flaw {
        Flaw::NoPath => unusable("answer without MSRP path"),
        Flaw::BadPath => unusable("unusable MSRP path"),
        Flaw::Scheme => unusable("MSRP path and protocol differ"),
        Flaw::NoTypes => unusable("answer without accept-types"),
        Flaw::Unproven => unusable("no usable fingerprint"),
    })?;
    if !peer.direction.receives() {
        return Err(unusable("answer does not receive"));
    }
    let fit = if cema && role == Role::Passive && !offers_cema(media) {
        address_fit(&session.0, media, &peer.path, Setup::Active)
    } else {
        Fit::Same
    };
    Ok(Answer { peer, fit })
}

/// A later offer of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Later {
    pub peer: Peer,
    /// It says CEMA, and we take it.
    pub cema: bool,
    /// MS-028: it is only good if these are one place.
    pub names: Option<Names>,
}

/// Reads a later offer of a peer whose line `line` is in use; only its path is new (see [`compare`]).
///
/// MS-016, MS-024, MS-027. `cema` is whether we take it.
///
/// # Errors
/// [`Unusable`] if the new path cannot be used.
pub fn read_again(
    session: &Session,
    line: usize,
    tls: Option<Terms>,
    cema: bool,
) -> Result<Later, Unusable> {
    let unusable = Unusable { text: "unusable MSRP path" };
    let media = session.0.medias.get(line).ok_or_else(|| unusable.clone())?;
    let setup = setup(media);
    let role = if setup == Setup::Passive { Role::Active } else { Role::Passive };
    let cema = cema && offers_cema(media);
    let peer = peer(&session.0, media, tls, role, cema).map_err(|_| unusable)?;
    match offered_address(&session.0, media, &peer.path, setup) {
        Fit::Same => Ok(Later { peer, cema, names: None }),
        Fit::Names(names) => Ok(Later { peer, cema, names: Some(names) }),
        Fit::Differs => Err(Unusable { text: ADDRESSES_DIFFER }),
    }
}

/// How a later description differs from an earlier one of the same side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Not at all: the connection stays as it is (MS-015).
    None,
    /// Another path, or another certificate: a new MSRP session for that leg (MS-016).
    Path,
    /// Something else about the media.
    Media,
}

/// Compares what matters for the MSRP line: `o=` and the order of attributes do not.
///
/// IM-066, MS-015, MS-016, MS-021.
pub fn compare(old: &Session, new: &Session) -> Change {
    changed(&old.0, &new.0)
}

fn changed(old: &sdp_types::Session, new: &sdp_types::Session) -> Change {
    if old.medias.len() != new.medias.len() {
        return Change::Media;
    }
    let mut change = Change::None;
    for (a, b) in old.medias.iter().zip(&new.medias) {
        // Ports and who connects go with the path.
        if !a.media.eq_ignore_ascii_case(&b.media)
            || !a.proto.eq_ignore_ascii_case(&b.proto)
            || (a.port == 0) != (b.port == 0)
            || direction(old, a) != direction(new, b)
            || steady(a) != steady(b)
        {
            return Change::Media;
        }
        // Without CEMA, or with it, another address counts: that is another session, too. Another certificate wants
        // another connection (RFC 8122 §6).
        if !values(a, "path").eq(values(b, "path"))
            || offers_cema(a) != offers_cema(b)
            || prints(old, a) != prints(new, b)
        {
            change = Change::Path;
        }
    }
    change
}

/// The fingerprints that hold for a line over TLS, sorted.
fn prints<'a>(session: &'a sdp_types::Session, media: &'a Media) -> Vec<Option<&'a str>> {
    if msrp_protocol(media) != Some(true) {
        return Vec::new();
    }
    let mut all: Vec<_> = values(media, "fingerprint").collect();
    if all.is_empty() {
        all = values_of(&session.attributes, "fingerprint").collect();
    }
    all.sort_unstable();
    all
}

/// The attributes of a line that do not belong to its path, sorted.
fn steady(media: &Media) -> Vec<(&str, Option<&str>)> {
    let mut rest: Vec<_> = media
        .attributes
        .iter()
        .filter(|a| {
            let of_the_path = ["path", "setup", "connection", "msrp-cema", "fingerprint", "tls-id"];
            !of_the_path.contains(&a.attribute.as_str()) && direction_of(a).is_none()
        })
        .map(|a| (a.attribute.as_str(), a.value.as_deref()))
        .collect();
    rest.sort_unstable();
    rest
}

// --- reading one media line ---

enum Flaw {
    NoPath,
    BadPath,
    Scheme,
    NoTypes,
    Unproven,
}

/// `tls`: what the peer may prove itself with, where the line is one over TLS.
fn peer(
    session: &sdp_types::Session,
    media: &Media,
    tls: Option<Terms>,
    role: Role,
    cema: bool,
) -> Result<Peer, Flaw> {
    let mut paths = values(media, "path");
    let path = paths.next().flatten().ok_or(Flaw::NoPath)?;
    if paths.next().is_some() {
        return Err(Flaw::BadPath);
    }
    let path = MsrpUri::parse_path(path).map_err(|_| Flaw::BadPath)?;
    let next_hop = path.first().ok_or(Flaw::NoPath)?;
    // MS-007: msrps goes with TLS, msrp without.
    if next_hop.is_secure() != tls.is_some() {
        return Err(Flaw::Scheme);
    }
    let dial = match role {
        Role::Passive => None,
        // MS-001, MS-006: only tcp can be dialled, and no port is ever assumed.
        Role::Active if next_hop.is_tcp() => {
            let port = next_hop.port().filter(|port| *port != 0).ok_or(Flaw::BadPath)?;
            let anchored = address(session, media).filter(|_| cema);
            // Nobody waits at port 9 (MS-025): then only the path is left.
            match anchored.zip(Some(media.port).filter(|port| *port != 9)) {
                Some((host, port)) => Some((host.to_owned(), port)),
                None => Some((next_hop.bare_host().to_owned(), port)),
            }
        }
        Role::Active => return Err(Flaw::BadPath),
    };
    let proof = tls
        .map(|terms| {
            // MS-028: behind a border a name proves nothing.
            let elsewhere = dial.as_ref().is_some_and(|(host, _)| host != next_hop.bare_host());
            let anchored = cema && (offers_cema(media) || elsewhere);
            let of = |attributes| values_of(attributes, "fingerprint");
            let (media, session) = (of(&media.attributes), of(&session.attributes));
            fingerprint::proof(media, session, next_hop.bare_host(), anchored, terms)
        })
        .transpose()
        .map_err(|_| Flaw::Unproven)?;
    let accept_types = list(media, "accept-types");
    if accept_types.is_empty() {
        return Err(Flaw::NoTypes);
    }
    Ok(Peer {
        dial,
        path,
        role,
        accept_types,
        accept_wrapped: list(media, "accept-wrapped-types"),
        max_size: values(media, "max-size").flatten().find_map(|v| v.trim().parse().ok()),
        direction: direction(session, media),
        proof,
    })
}

/// ISC-064: by `c=`, also where a name stands there; without one by the path.
fn family(session: &sdp_types::Session, media: &Media) -> Option<Family> {
    let Some(connection) = media.connections.first().or(session.connection.as_ref()) else {
        let path = values(media, "path").next().flatten()?;
        return Family::of(MsrpUri::parse_path(path).ok()?.first()?.bare_host());
    };
    let address = connection.connection_address.split('/').next().unwrap_or_default();
    Family::of(address).or(match connection.addrtype {
        AddrType::Ip4 => Some(Family::V4),
        AddrType::Ip6 => Some(Family::V6),
        AddrType::Other(_) => None,
    })
}

fn is_message(media: &Media) -> bool {
    media.media.eq_ignore_ascii_case("message")
}

/// `Some(tls)` for an MSRP line.
fn msrp_protocol(media: &Media) -> Option<bool> {
    if !is_message(media) {
        return None;
    }
    match media.proto.to_ascii_uppercase().as_str() {
        "TCP/MSRP" => Some(false),
        "TCP/TLS/MSRP" => Some(true),
        _ => None,
    }
}

fn values<'a>(media: &'a Media, name: &'a str) -> impl Iterator<Item = Option<&'a str>> {
    values_of(&media.attributes, name)
}

fn values_of<'a>(
    attributes: &'a [Attribute],
    name: &'a str,
) -> impl Iterator<Item = Option<&'a str>> {
    attributes.iter().filter(move |a| a.attribute == name).map(|a| a.value.as_deref())
}

fn list(media: &Media, name: &str) -> Vec<String> {
    values(media, name).flatten().flat_map(str::split_ascii_whitespace).map(str::to_owned).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setup {
    Active,
    Passive,
    Actpass,
    /// No attribute, or one that says nothing: `holdconn`, unknown (MS-023).
    Unsaid,
}

fn setup(media: &Media) -> Setup {
    let word = values(media, "setup").next().flatten().unwrap_or("").trim();
    [("active", Setup::Active), ("passive", Setup::Passive), ("actpass", Setup::Actpass)]
        .into_iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(word))
        .map_or(Setup::Unsaid, |(_, setup)| setup)
}

fn direction_of(a: &Attribute) -> Option<Direction> {
    [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive]
        .into_iter()
        .find(|d| d.name() == a.attribute)
}

fn direction(session: &sdp_types::Session, media: &Media) -> Direction {
    let first = |attributes: &[Attribute]| attributes.iter().find_map(direction_of);
    first(&media.attributes).or_else(|| first(&session.attributes)).unwrap_or_default()
}

/// What a refusal says where [`Fit::Differs`].
pub const ADDRESSES_DIFFER: &str = "MSRP path and media address differ";

fn offers_cema(media: &Media) -> bool {
    media.attributes.iter().any(|a| a.attribute == "msrp-cema")
}

/// The address of the `c=` line for a media line.
fn address<'a>(session: &'a sdp_types::Session, media: &'a Media) -> Option<&'a str> {
    let connection = media.connections.first().or(session.connection.as_ref())?;
    connection.connection_address.split('/').next()
}

/// MS-027 (RFC 6714 §4.3): without `msrp-cema` the media address has to be that of the next hop.
fn offered_address(
    session: &sdp_types::Session,
    media: &Media,
    path: &[MsrpUri],
    setup: Setup,
) -> Fit {
    if offers_cema(media) { Fit::Same } else { address_fit(session, media, path, setup) }
}

/// MS-028. The port says nothing where the peer connects (MS-025).
fn address_fit(session: &sdp_types::Session, media: &Media, path: &[MsrpUri], setup: Setup) -> Fit {
    let Some(next_hop) = path.first() else { return Fit::Differs };
    let port = (setup != Setup::Active).then_some(media.port);
    Fit::of(address(session, media), port, next_hop)
}

/// IM-008, MS-019: attributes of one hop, set anew or dropped.
fn is_hop_bound(name: &str) -> bool {
    const NAMES: [&str; 13] = [
        "path",
        "setup",
        "connection",
        "msrp-cema",
        "fingerprint",
        "tls-id",
        "crypto",
        "key-mgmt",
        "candidate",
        "mid",
        "max-size",
        "accept-types",
        "accept-wrapped-types",
    ];
    let name = name.to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || name.starts_with("ice-") || name.starts_with("rtcp")
}

/// IM-030 (RFC 5547 §6): the `size` of a `file-selector`. A name in quotes may hold anything.
fn announced_size(media: &Media) -> Option<u64> {
    let mut rest = values(media, "file-selector").flatten().next()?;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        if let Some(size) = rest.strip_prefix("size:") {
            return size.split_ascii_whitespace().next()?.parse().ok();
        }
        let mut quoted = false;
        let end = rest.find(|c: char| {
            quoted ^= c == '"';
            !quoted && c.is_ascii_whitespace()
        });
        rest = &rest[end?..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINT: &str = "sha-256 BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD";
    const MAX: u64 = 10 * 1024 * 1024;

    fn parse(text: &str) -> Session {
        Session::parse(text.as_bytes()).unwrap()
    }

    /// An offer whose media section is `media`.
    fn offer(media: &str) -> Session {
        parse(&format!(
            "v=0\r\no=alice 1 1 IN IP4 192.0.2.55\r\ns=-\r\nc=IN IP4 192.0.2.55\r\nt=0 0\r\n{}",
            media.replace('\n', "\r\n")
        ))
    }

    const PATH: &str = "a=path:msrp://192.0.2.55:7394/2s93i9ek2a;tcp\n";
    const TYPES: &str =
        "a=accept-types:message/cpim text/plain\na=accept-wrapped-types:text/plain\n";

    fn msrp(rest: &str) -> Session {
        offer(&format!("m=message 7394 TCP/MSRP *\n{PATH}{rest}"))
    }

    fn pick(session: &Session, attributed: bool) -> Result<Chosen, SdpRefusal> {
        let accept = AcceptTypes::default();
        choose(
            session,
            &Wants {
                accept: &accept,
                attributed,
                max_size: MAX,
                tls: None,
                families: Families::default(),
                cema: true,
            },
        )
    }

    fn refused(session: &Session) -> (u16, u16) {
        let why = pick(session, false).expect_err("has to be refused");
        (why.status, why.code)
    }

    fn own(path: &MsrpUri) -> Own<'_> {
        Own { path, session_id: 77, version: 1, max_size: MAX, fingerprints: &[], cema: false }
    }

    fn own_path() -> MsrpUri {
        MsrpUri::own(false, "198.51.100.20", 2855, "Kp7vR2mZ9qT4xB6nH8sW1d").unwrap()
    }

    fn text(bytes: &Bytes) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn lines_of(bytes: &Bytes) -> Vec<String> {
        let text = text(bytes);
        assert!(text.ends_with("\r\n") && !text.replace("\r\n", "").contains(['\r', '\n']));
        text.trim_end().split("\r\n").map(str::to_owned).collect()
    }

    fn attributes(bytes: &Bytes, name: &str) -> Vec<String> {
        let start = format!("a={name}");
        lines_of(bytes)
            .into_iter()
            .filter(|l| *l == start || l.starts_with(&format!("{start}:")))
            .collect()
    }

    /// Proves IM-028, MS-001, MS-007, MS-008, MS-013.
    #[test]
    fn an_offer_needs_an_msrp_line_with_path_and_types() {
        let long = "x".repeat(600);
        let cases: Vec<(&str, Session, (u16, u16))> = vec![
            ("audio only", offer("m=audio 9 RTP/AVP 0\n"), (488, 304)),
            ("no media", offer(""), (488, 304)),
            (
                "another protocol",
                offer(&format!("m=message 7394 TCP/WS/MSRP *\n{PATH}{TYPES}")),
                (488, 302),
            ),
            (
                "TLS we have not",
                offer(&format!("m=message 7394 TCP/TLS/MSRP *\n{PATH}{TYPES}")),
                (488, 302),
            ),
            ("port 0", offer(&format!("m=message 0 TCP/MSRP *\n{PATH}{TYPES}")), (488, 304)),
            ("no path", offer(&format!("m=message 7394 TCP/MSRP *\n{TYPES}")), (488, 399)),
            ("two paths", msrp(&format!("{PATH}{TYPES}")), (488, 399)),
            (
                "no transport",
                offer(&format!("m=message 1 TCP/MSRP *\na=path:msrp://192.0.2.55:1/x\n{TYPES}")),
                (488, 399),
            ),
            (
                "path too long",
                offer(&format!(
                    "m=message 1 TCP/MSRP *\na=path:msrp://192.0.2.55:1/{long};tcp\n{TYPES}"
                )),
                (488, 399),
            ),
            (
                "msrps without TLS",
                offer(&format!(
                    "m=message 7394 TCP/MSRP *\na=path:msrps://192.0.2.55:7394/x;tcp\n{TYPES}a=fingerprint:{PRINT}\n"
                )),
                (488, 302),
            ),
            ("no types", msrp(""), (488, 305)),
            ("empty types", msrp("a=accept-types:\n"), (488, 305)),
            ("unknown type", msrp("a=accept-types:application/x-unknown\n"), (488, 305)),
            (
                "ws to dial",
                offer(&format!(
                    "m=message 7394 TCP/MSRP *\na=setup:passive\na=path:msrp://192.0.2.55:7394/x;ws\n{TYPES}"
                )),
                (488, 399),
            ),
        ];
        for (name, session, want) in cases {
            assert_eq!(refused(&session), want, "{name}");
        }
        let no_path =
            pick(&offer(&format!("m=message 7394 TCP/MSRP *\n{TYPES}")), false).unwrap_err();
        assert_eq!(no_path.text, "No MSRP path");
        let relayed = offer(&format!(
            "m=message 7394 TCP/MSRP *\na=path:msrp://192.0.2.55:7394/r;tcp msrp://ue.example:9/x;ws\n{TYPES}"
        ));
        let chosen = pick(&relayed, false).unwrap();
        assert_eq!(chosen.peer.path.len(), 2, "leftmost tcp, rightmost ws");
        let caps = offer(&format!("m=Message 7394 tcp/msrp *\n{PATH}{TYPES}"));
        assert!(pick(&caps, false).is_ok());
    }

    /// Proves IM-029, MS-014.
    #[test]
    fn the_originator_has_to_be_able_to_send() {
        let path = own_path();
        for (attribute, offered) in
            [("", None), ("a=sendrecv\n", Some("a=sendrecv")), ("a=sendonly\n", Some("a=sendonly"))]
        {
            let chosen = pick(&msrp(&format!("{TYPES}{attribute}")), false).unwrap();
            assert_eq!(attributes(&chosen.answer(&own(&path)), "recvonly").len(), 1, "{attribute}");
            let to_member = text(&chosen.offer(&own(&path)));
            assert!(offered.is_none_or(|line| to_member.contains(line)), "{attribute}");
            assert!(!to_member.contains("recvonly"));
        }
        for attribute in ["a=recvonly\n", "a=inactive\n"] {
            assert_eq!(refused(&msrp(&format!("{TYPES}{attribute}"))).0, 488, "{attribute}");
        }
        let whole = parse(&format!(
            "v=0\r\no=- 1 1 IN IP4 192.0.2.55\r\ns=-\r\nc=IN IP4 192.0.2.55\r\nt=0 0\r\na=sendonly\r\nm=message 7394 TCP/MSRP *\r\n{}",
            format!("{PATH}{TYPES}").replace('\n', "\r\n")
        ));
        let chosen = pick(&whole, false).unwrap();
        assert_eq!(attributes(&chosen.offer(&own(&path)), "sendonly").len(), 1);
    }

    /// Proves IM-030.
    #[test]
    fn only_the_file_selector_tells_the_size() {
        let cases: &[(&str, Result<Option<u64>, u16>)] = &[
            ("a=file-selector:size:20000000 type:text/plain\n", Err(403)),
            ("a=file-selector:name:\"a size:1 b\" size:20000000\n", Err(403)),
            ("a=max-size:20000000\n", Ok(None)),
            ("a=file-selector:size:10485760\n", Ok(Some(10_485_760))),
            ("a=file-selector:size:10485761\n", Err(403)),
            ("a=file-selector:name:\"size:20000000 x\" type:a/b size:5\n", Ok(Some(5))),
            ("a=file-selector:type:a/b\n", Ok(None)),
            ("", Ok(None)),
        ];
        for (attribute, want) in cases {
            let got = pick(&msrp(&format!("{TYPES}{attribute}")), false)
                .map(|c| c.size)
                .map_err(|why| why.status);
            assert_eq!(got, *want, "{attribute}");
        }
        let why =
            pick(&msrp(&format!("{TYPES}a=file-selector:size:20000000\n")), false).unwrap_err();
        assert_eq!((why.code, why.text), (399, "Size exceeded"));
    }

    /// Proves IM-007.
    #[test]
    fn types_are_selected_from_the_offer_in_its_order() {
        let ours = |types: &str, wrapped: &str| AcceptTypes {
            types: types.split(' ').map(str::to_owned).collect(),
            wrapped: wrapped.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect(),
        };
        let cases: &[(&str, &str, &str, &str)] = &[
            (
                "message/cpim text/plain image/png",
                "message/cpim text/plain",
                "message/cpim text/plain",
                "the rule's own example",
            ),
            (
                "image/png text/plain",
                "text/plain image/png",
                "image/png text/plain",
                "order of the offer",
            ),
            ("*", "message/cpim text/plain", "message/cpim text/plain", "narrowed wildcard"),
            (
                "image/* text/plain",
                "text/plain image/png image/jpeg",
                "image/png image/jpeg text/plain",
                "narrowed type wildcard",
            ),
            (
                "text/plain;charset=x Image/PNG",
                "text/plain image/png",
                "text/plain;charset=x Image/PNG",
                "spelling is kept",
            ),
            ("text/plain *", "text/plain image/png", "text/plain image/png", "no duplicates"),
            (
                "application/x-foo text/plain",
                "*",
                "application/x-foo text/plain",
                "a server that takes all",
            ),
            ("*", "*", "*", "wildcard meets wildcard"),
        ];
        let path = own_path();
        for (offered, accept, want, name) in cases {
            let accept = ours(accept, "");
            let wants = Wants {
                accept: &accept,
                attributed: false,
                max_size: MAX,
                tls: None,
                families: Families::default(),
                cema: true,
            };
            let chosen = choose(&msrp(&format!("a=accept-types:{offered}\n")), &wants).unwrap();
            let to_member = chosen.offer(&own(&path));
            assert_eq!(
                attributes(&to_member, "accept-types"),
                [format!("a=accept-types:{want}")],
                "{name}"
            );
            assert!(attributes(&to_member, "accept-wrapped-types").is_empty(), "{name}");
        }
        let accept = ours("message/cpim", "text/plain image/png");
        let wants = Wants {
            accept: &accept,
            attributed: false,
            max_size: MAX,
            tls: None,
            families: Families::default(),
            cema: true,
        };
        let session = msrp(
            "a=accept-types:message/cpim\na=accept-wrapped-types:image/png application/x-u text/plain\n",
        );
        let chosen = choose(&session, &wants).unwrap();
        assert_eq!(chosen.member.wrapped, ["image/png", "text/plain"]);
        assert_eq!(chosen.accept.wrapped, ["image/png", "text/plain"]);
    }

    /// Proves MS-010, MS-011.
    #[test]
    fn types_match_without_case_and_parameters() {
        let cases = [
            ("text/plain", "Text/Plain", true),
            ("text/plain;charset=x", "text/plain", true),
            ("text/plain", "text/plain; charset=utf-8", true),
            ("*", "image/png", true),
            ("image/*", "IMAGE/png", true),
            ("image/*", "text/plain", false),
            ("text/plain", "text/html", false),
            ("text/pla", "text/plain", false),
        ];
        for (entry, content_type, fits) in cases {
            assert_eq!(matches_any(&[entry], content_type), fits, "{entry} {content_type}");
        }
        let member =
            AcceptTypes { types: vec!["message/cpim".into()], wrapped: vec!["text/plain".into()] };
        assert!(member.takes("message/cpim") && !member.takes("text/plain"));
        assert!(member.takes_wrapped("text/plain") && !member.takes_wrapped("image/png"));
    }

    #[test]
    fn the_default_types_name_the_three_containers() {
        let ours = AcceptTypes::default();
        for kind in ["message/cpim", "multipart/mixed", "multipart/alternative"] {
            assert!(ours.types.iter().any(|t| t == kind), "{kind}");
        }
    }

    /// Proves MS-020.
    #[test]
    fn attribution_puts_everything_into_an_envelope() {
        let path = own_path();
        let cases: &[(&str, &str, &str)] = &[
            (
                "a=accept-types:text/plain message/cpim\na=accept-wrapped-types:image/png\n",
                "message/cpim text/plain",
                "text/plain image/png",
            ),
            (
                "a=accept-types:message/cpim\na=accept-wrapped-types:text/plain image/jpeg application/x-unknown\n",
                "message/cpim",
                "text/plain image/jpeg",
            ),
        ];
        for (offered, answered, inside) in cases {
            let chosen = pick(&msrp(offered), true).unwrap();
            let answer = chosen.answer(&own(&path));
            assert_eq!(attributes(&answer, "accept-types"), [format!("a=accept-types:{answered}")]);
            let to_member = chosen.offer(&own(&path));
            assert_eq!(attributes(&to_member, "accept-types"), ["a=accept-types:message/cpim"]);
            assert_eq!(
                attributes(&to_member, "accept-wrapped-types"),
                [format!("a=accept-wrapped-types:{inside}")]
            );
        }
        let wild = pick(&msrp("a=accept-types:*\n"), true).unwrap();
        assert_eq!(wild.accept.types[0], "message/cpim");
        assert_eq!(wild.member.types, ["message/cpim"]);
        assert!(wild.member.wrapped.iter().any(|t| t == "image/png"));
        let why = pick(&msrp("a=accept-types:text/plain\n"), true).unwrap_err();
        assert_eq!((why.status, why.code), (488, 305));
        assert!(pick(&msrp("a=accept-types:text/plain\n"), false).is_ok(), "one recipient");
    }

    #[test]
    fn an_offer_of_the_bare_envelope_is_answered_with_what_we_take() {
        let chosen = pick(&msrp("a=accept-types:message/cpim\n"), true).unwrap();
        assert!(chosen.accept.takes_wrapped("image/png"));
        assert!(chosen.member.wrapped.is_empty(), "nothing is added that was not offered");
    }

    /// Proves IM-005, IM-006, IM-008, MS-002, MS-018, MS-019, MS-021, MS-023.
    #[test]
    fn the_offer_to_a_recipient_is_ours_with_everything_else_copied() {
        let session = msrp(&format!(
            "{TYPES}a=setup:actpass\na=connection:new\na=msrp-cema\na=fingerprint:SHA-1 AA:BB\na=tls-id:1\na=crypto:1 x\n\
             a=key-mgmt:mikey A\na=ice-ufrag:f\na=ice-lite\na=candidate:1 1 UDP 1 192.0.2.55 1 typ host\na=rtcp:9\n\
             a=rtcp-mux\na=mid:m1\na=max-size:5\na=sendonly\na=x-foo:1\na=x-Vendor:  two  spaces ; \u{e9} \n\
             a=x-empty:\na=x-flag\na=file-selector:size:20480 type:text/plain\na=file-transfer-id:abc\n\
             a=file-disposition:attachment\na=file-date:creation:\"x\"\na=file-icon:cid:i\na=file-range:1-20480\na=chatroom:nickname\n\
             a=charset:utf-8\n"
        ));
        let path = own_path();
        let chosen = pick(&session, false).unwrap();
        let offered = chosen.offer(&own(&path));
        assert_eq!(
            lines_of(&offered),
            [
                "v=0",
                "o=- 77 1 IN IP4 198.51.100.20",
                "s=-",
                "c=IN IP4 198.51.100.20",
                "t=0 0",
                "m=message 2855 TCP/MSRP *",
                "a=accept-types:message/cpim text/plain",
                "a=accept-wrapped-types:text/plain",
                "a=max-size:10485760",
                "a=setup:actpass",
                "a=sendonly",
                "a=x-foo:1",
                "a=x-Vendor:  two  spaces ; \u{e9} ",
                "a=x-empty:",
                "a=x-flag",
                "a=file-selector:size:20480 type:text/plain",
                "a=file-transfer-id:abc",
                "a=file-disposition:attachment",
                "a=file-date:creation:\"x\"",
                "a=file-icon:cid:i",
                "a=file-range:1-20480",
                "a=chatroom:nickname",
                "a=charset:utf-8",
                "a=path:msrp://198.51.100.20:2855/Kp7vR2mZ9qT4xB6nH8sW1d;tcp",
            ]
        );
        assert!(!text(&offered).contains("2s93i9ek2a"), "the originator's path stays here");
        assert!(Session::parse(&offered).is_ok());
        let other = Own { session_id: 78, ..own(&path) };
        assert_ne!(chosen.offer(&other), offered, "the origin line differs between legs");
    }

    /// Proves IM-009.
    #[test]
    fn all_lines_are_answered_and_one_is_offered() {
        let session = offer(&format!(
            "m=audio 4000 RTP/AVP 0 8\na=rtpmap:0 PCMU/8000\nm=message 7394 TCP/MSRP *\na=accept-types:x/y\n{PATH}\
             m=message 7394 TCP/MSRP *\n{PATH}{TYPES}m=message 7394 TCP/MSRP *\n{PATH}{TYPES}"
        ));
        let path = own_path();
        let chosen = pick(&session, false).unwrap();
        let media = |bytes: &Bytes| -> Vec<String> {
            lines_of(bytes).into_iter().filter(|l| l.starts_with("m=")).collect()
        };
        assert_eq!(
            media(&chosen.answer(&own(&path))),
            [
                "m=audio 0 RTP/AVP 0 8",
                "m=message 0 TCP/MSRP *",
                "m=message 2855 TCP/MSRP *",
                "m=message 0 TCP/MSRP *"
            ]
        );
        assert_eq!(media(&chosen.offer(&own(&path))), ["m=message 2855 TCP/MSRP *"]);
    }

    /// Proves IM-068, MS-024, MS-025.
    #[test]
    fn who_connects_is_as_the_table_says() {
        let path = own_path();
        let as_answerer = [
            ("a=setup:active\n", Role::Passive),
            ("a=setup:actpass\n", Role::Passive),
            ("", Role::Passive),
            ("a=setup:holdconn\n", Role::Passive),
            ("a=setup:passive\n", Role::Active),
            ("a=setup:Passive\n", Role::Active),
            ("a=setup:passive\na=connection:existing\n", Role::Active),
        ];
        for (attribute, role) in as_answerer {
            let chosen = pick(&msrp(&format!("{TYPES}{attribute}")), false).unwrap();
            assert_eq!(chosen.peer.role, role, "offered {attribute}");
            assert_eq!(chosen.peer.dial.is_some(), role == Role::Active, "offered {attribute}");
            let answer = text(&chosen.answer(&own(&path)));
            let (word, port) = match role {
                Role::Active => ("active", 9),
                Role::Passive => ("passive", 2855),
            };
            assert!(answer.contains(&format!("a=setup:{word}\r\n")), "offered {attribute}");
            assert!(
                answer.contains(&format!("m=message {port} TCP/MSRP *\r\n")),
                "offered {attribute}"
            );
            assert!(answer.contains(":2855/"), "the path keeps its port");
            assert!(!answer.contains("a=connection"));
            assert!(text(&chosen.offer(&own(&path))).contains("a=setup:actpass\r\n"));
        }
        let as_offerer = [
            ("a=setup:active\n", Role::Passive),
            ("a=setup:passive\n", Role::Active),
            ("", Role::Active),
            ("a=setup:actpass\n", Role::Active),
            ("a=setup:holdconn\n", Role::Active),
        ];
        for (attribute, role) in as_offerer {
            let peer =
                read_answer(&msrp(&format!("{TYPES}{attribute}")), None, false).unwrap().peer;
            assert_eq!(peer.role, role, "answered {attribute}");
            let dial = (role == Role::Active).then(|| ("192.0.2.55".to_owned(), 7394));
            assert_eq!(peer.dial, dial, "answered {attribute}");
        }
    }

    /// Proves MS-025.
    #[test]
    fn an_active_peer_may_write_any_port() {
        let session = offer(&format!("m=message 9 TCP/MSRP *\na=setup:active\n{PATH}{TYPES}"));
        assert!(pick(&session, false).is_ok());
    }

    /// Proves IM-060.
    #[test]
    fn answers_that_cannot_take_the_page_are_unusable() {
        let line = |rest: &str| offer(&format!("m=message 9021 TCP/MSRP *\n{rest}"));
        let path = "a=path:msrp://203.0.113.9:9021/b7;tcp\n";
        let unusable: Vec<(&str, Session)> = vec![
            ("no media", offer("")),
            ("port 0", offer(&format!("m=message 0 TCP/MSRP *\n{path}{TYPES}"))),
            ("no path", line(TYPES)),
            ("broken path", line(&format!("a=path:x\n{TYPES}"))),
            ("sendonly", line(&format!("{path}{TYPES}a=sendonly\n"))),
            ("inactive", line(&format!("{path}{TYPES}a=inactive\n"))),
            ("no types", line(path)),
            ("audio", offer("m=audio 9 RTP/AVP 0\n")),
            ("another protocol", offer(&format!("m=message 9 TCP/TLS/MSRP *\n{path}{TYPES}"))),
            ("no port to connect to", line(&format!("a=path:msrp://203.0.113.9/b7;tcp\n{TYPES}"))),
        ];
        for (name, session) in unusable {
            assert!(read_answer(&session, None, true).is_err(), "{name}");
        }
        for direction in ["", "a=recvonly\n", "a=sendrecv\n"] {
            let session = line(&format!("{path}{TYPES}{direction}"));
            let peer = read_answer(&session, None, true).unwrap().peer;
            assert!(peer.direction.receives());
        }
    }

    /// Proves MS-009, MS-017.
    #[test]
    fn what_an_answer_says_is_kept() {
        let session = offer(
            "m=message 9021 TCP/MSRP *\na=accept-types:message/cpim\na=accept-wrapped-types:text/plain image/*\n\
             a=max-size:300000\na=setup:passive\na=recvonly\n\
             a=path:msrp://relay.example:2856/r;tcp msrp://203.0.113.9:9021/b7;tcp\n",
        );
        let peer = read_answer(&session, None, false).unwrap().peer;
        assert_eq!(peer.dial, Some(("relay.example".to_owned(), 2856)), "leftmost is the next hop");
        let path: Vec<&str> = peer.path.iter().map(MsrpUri::as_str).collect();
        assert_eq!(path, ["msrp://relay.example:2856/r;tcp", "msrp://203.0.113.9:9021/b7;tcp"]);
        assert_eq!(peer.accept_types, ["message/cpim"]);
        assert_eq!(peer.accept_wrapped, ["text/plain", "image/*"]);
        assert_eq!(peer.max_size, Some(300_000));
        assert_eq!(peer.direction, Direction::RecvOnly);
        let answer = pick(&msrp(TYPES), false).unwrap().answer(&own(&own_path()));
        assert_eq!(attributes(&answer, "max-size"), ["a=max-size:10485760"]);
    }

    /// Proves ISC-064.
    #[test]
    fn an_offer_at_an_address_of_a_kind_we_lack_is_refused() {
        let both = Families::of(["192.0.2.10", "2001:db8::10"]);
        assert_eq!(both, Families::default());
        assert_eq!(Families::of(["media.example"]), both, "a name may stand for both");
        let (v4, v6) = (Families::of(["192.0.2.10"]), Families::of(["::1"]));
        assert_eq!((v4.v4, v4.v6, v6.v4, v6.v6), (true, false, false, true));
        let offer = |c: &str, path: &str| {
            format!(
                "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n{c}t=0 0\r\nm=message 9 TCP/MSRP *\r\n\
                 a=accept-types:*\r\na=setup:active\r\na=sendonly\r\na=path:msrp://{path}:2855/s;tcp\r\n"
            )
        };
        let accept = AcceptTypes::default();
        for (c, path, kind) in [
            ("c=IN IP4 192.0.2.1\r\n", "192.0.2.1", Some(Family::V4)),
            ("c=IN IP6 2001:db8::1\r\n", "[2001:db8::1]", Some(Family::V6)),
            ("c=IN IP6 ue.example\r\n", "ue.example", Some(Family::V6)),
            ("c=IN ip4 ue.example\r\n", "ue.example", Some(Family::V4)),
            // The address itself is right where the word before it is not.
            ("c=IN IP4 2001:db8::1\r\n", "[2001:db8::1]", Some(Family::V6)),
            ("", "[2001:db8::1]", Some(Family::V6)),
            ("", "192.0.2.1", Some(Family::V4)),
            ("", "ue.example", None),
        ] {
            let session = Session::parse(offer(c, path).as_bytes()).expect("a description");
            assert_eq!((session.family(0), session.family(1)), (kind, None), "{c}{path}");
            for (families, served) in
                [(both, true), (v4, kind != Some(Family::V6)), (v6, kind != Some(Family::V4))]
            {
                let wants = Wants {
                    accept: &accept,
                    attributed: false,
                    max_size: MAX,
                    tls: None,
                    families,
                    cema: true,
                };
                match choose(&session, &wants) {
                    Ok(chosen) => assert!(served && chosen.family() == kind, "{c}{path}"),
                    Err(why) => {
                        assert!(!served, "{c}{path}");
                        assert_eq!((why.status, why.code, why.text), (488, 301, FORMATS));
                    }
                }
            }
        }
    }

    /// Proves MS-027.
    #[test]
    fn path_and_media_address_have_to_agree() {
        let with = |c: &str, port: u16, host: &str, rest: &str| {
            parse(&format!(
                "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc={c}\r\nt=0 0\r\nm=message {port} TCP/MSRP *\r\n\
                 a=path:msrp://{host}:7394/x;tcp\r\na=accept-types:text/plain\r\n{rest}"
            ))
        };
        let cases = [
            ("same", with("IN IP4 192.0.2.55", 7394, "192.0.2.55", ""), true),
            ("another address", with("IN IP4 192.0.2.99", 7394, "192.0.2.55", ""), false),
            ("another port", with("IN IP4 192.0.2.55", 7395, "192.0.2.55", ""), false),
            (
                "another address, cema",
                with("IN IP4 192.0.2.99", 7394, "192.0.2.55", "a=msrp-cema\r\n"),
                true,
            ),
            (
                "one IPv6 address, two spellings",
                with("IN IP6 2001:db8::1", 7394, "[2001:0db8:0:0::1]", ""),
                true,
            ),
            ("one name", with("IN IP4 UE.example", 7394, "ue.example", ""), true),
            ("a name at another port", with("IN IP4 ue.example", 7395, "ue.example", ""), false),
            (
                "active peer, port 9",
                with("IN IP4 192.0.2.55", 9, "192.0.2.55", "a=setup:active\r\n"),
                true,
            ),
        ];
        for (name, session, fits) in cases {
            assert_eq!(pick(&session, false).is_ok(), fits, "{name}");
        }
        let chosen =
            pick(&with("IN IP4 192.0.2.99", 7394, "192.0.2.55", "a=msrp-cema\r\n"), false).unwrap();
        assert!(!text(&chosen.offer(&own(&own_path()))).contains("cema"), "never relayed");
        for (media, host) in [("sbc.example", "ue.example"), ("192.0.2.55", "ue.example")] {
            let chosen = pick(&with(&format!("IN IP4 {media}"), 7394, host, ""), false).unwrap();
            let names = Names { media: media.to_owned(), path: host.to_owned() };
            assert_eq!(chosen.names, Some(names), "their addresses have to tell");
        }
    }

    /// Proves MS-026, MS-027.
    #[test]
    fn cema_is_offered_and_answered_where_it_is_taken() {
        let path = own_path();
        let with = Own { cema: true, ..own(&path) };
        let said = |bytes: &Bytes| attributes(bytes, "msrp-cema");
        let accept = AcceptTypes::default();
        for (offer, taken, answers) in
            [("", true, false), ("a=msrp-cema\n", true, true), ("a=msrp-cema\n", false, false)]
        {
            let session = msrp(&format!("{TYPES}{offer}a=setup:passive\n"));
            let wants = Wants {
                accept: &accept,
                attributed: false,
                max_size: MAX,
                tls: None,
                families: Families::default(),
                cema: taken,
            };
            let chosen = choose(&session, &wants).unwrap();
            let answer = chosen.answer(&with);
            assert_eq!(said(&answer).len(), usize::from(answers), "{offer} {taken}");
            assert_eq!(attributes(&answer, "setup"), ["a=setup:active"]);
            // Whatever the originator said, each hop speaks for itself.
            assert_eq!(said(&chosen.offer(&with)), ["a=msrp-cema"]);
            assert!(said(&chosen.offer(&own(&path))).is_empty());
            let later = read_again(&session, 0, None, taken).unwrap();
            assert_eq!(said(&chosen.answer_member(&with, &later)).len(), usize::from(answers));
        }
        assert_eq!(compare(&msrp(TYPES), &msrp(&format!("{TYPES}a=msrp-cema\n"))), Change::Path);
    }

    /// Proves MS-026, MS-027.
    #[test]
    fn with_cema_the_media_address_is_dialled() {
        let anchored = |rest: &str, port: u16| {
            parse(&format!(
                "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n\
                 m=message {port} TCP/MSRP *\r\na=path:msrp://192.0.2.55:7394/x;tcp\r\n\
                 a=accept-types:text/plain\r\n{rest}"
            ))
        };
        let border = Some(("198.51.100.7".to_owned(), 4000));
        let phone = Some(("192.0.2.55".to_owned(), 7394));
        let cema = "a=msrp-cema\r\n";
        let active = "a=setup:active\r\n";
        let passive = "a=setup:passive\r\n";
        // What we offered, what is answered, whom we dial, whether the border is passed by.
        for (offered, rest, port, dial, fit) in [
            (true, format!("{cema}{passive}"), 4000, &border, Fit::Same),
            (true, passive.to_owned(), 4000, &border, Fit::Same),
            (true, String::new(), 4000, &border, Fit::Same),
            (true, passive.to_owned(), 9, &phone, Fit::Same),
            (true, format!("{cema}{active}"), 9, &None, Fit::Same),
            (true, active.to_owned(), 9, &None, Fit::Differs),
            (true, active.to_owned(), 4000, &None, Fit::Differs),
            (false, active.to_owned(), 9, &None, Fit::Same),
            (false, passive.to_owned(), 4000, &phone, Fit::Same),
            (false, format!("{cema}{passive}"), 4000, &phone, Fit::Same),
        ] {
            let answer = read_answer(&anchored(&rest, port), None, offered).unwrap();
            let said = format!("offered {offered}, answered {rest}");
            assert_eq!((&answer.peer.dial, &answer.fit), (dial, &fit), "{said}");
            let path: Vec<&str> = answer.peer.path.iter().map(MsrpUri::as_str).collect();
            assert_eq!(path, ["msrp://192.0.2.55:7394/x;tcp"], "{said}");
        }
        let here = msrp(&format!("{TYPES}a=setup:active\n"));
        assert_eq!(read_answer(&here, None, true).unwrap().fit, Fit::Same, "no border");
        let offer = anchored(&format!("{cema}{passive}"), 4000);
        assert_eq!(pick(&offer, false).unwrap().peer.dial, border);
        assert_eq!(read_again(&offer, 0, None, true).unwrap().peer.dial, border);
        assert_eq!(read_again(&offer, 0, None, false).unwrap().peer.dial, phone);
    }

    /// Proves MS-015.
    #[test]
    fn the_same_values_give_the_same_origin_line() {
        let chosen = pick(&msrp(TYPES), false).unwrap();
        let path = own_path();
        assert_eq!(chosen.offer(&own(&path)), chosen.offer(&own(&path)));
        let newer = Own { version: 2, ..own(&path) };
        assert!(text(&chosen.answer(&newer)).contains("o=- 77 2 IN IP4 198.51.100.20\r\n"));
        let refresh = msrp(TYPES);
        assert_eq!(compare(&msrp(TYPES), &refresh), Change::None);
    }

    #[test]
    fn a_later_description_is_compared_by_what_matters() {
        let old =
            msrp(&format!("{TYPES}a=sendonly\na=file-transfer-id:1\na=file-selector:size:1\n"));
        let bumped = parse(&format!(
            "v=0\r\no=alice 1 2 IN IP4 192.0.2.55\r\ns=-\r\nc=IN IP4 192.0.2.55\r\nt=0 0\r\nm=message 7394 TCP/MSRP *\r\n{}",
            format!("{TYPES}{PATH}a=file-selector:size:1\na=file-transfer-id:1\na=sendonly\n")
                .replace('\n', "\r\n")
        ));
        assert_eq!(compare(&old, &bumped), Change::None);
        let other_path = offer(&format!(
            "m=message 7394 TCP/MSRP *\na=path:msrp://192.0.2.55:7394/another;tcp\n{TYPES}a=sendonly\na=file-transfer-id:1\na=file-selector:size:1\n"
        ));
        assert_eq!(compare(&old, &other_path), Change::Path);
        for media in [
            "a=sendrecv\na=file-transfer-id:1\na=file-selector:size:1\n",
            "a=sendonly\na=file-transfer-id:1\na=file-selector:size:2\n",
        ] {
            assert_eq!(compare(&old, &msrp(&format!("{TYPES}{media}"))), Change::Media, "{media}");
        }
        assert_eq!(compare(&old, &offer("m=audio 9 RTP/AVP 0\n")), Change::Media);
        assert_eq!(compare(&old, &offer("")), Change::Media);
    }

    #[test]
    fn ipv6_and_tls_are_written_as_they_have_to_be() {
        let session = offer(&format!(
            "m=message 7394 TCP/TLS/MSRP *\na=path:msrps://192.0.2.55:7394/x;tcp\n{TYPES}a=fingerprint:{PRINT}\n"
        ));
        let accept = AcceptTypes::default();
        let wants = Wants {
            accept: &accept,
            attributed: false,
            max_size: MAX,
            tls: Some(Tls::default()),
            families: Families::default(),
            cema: true,
        };
        let chosen = choose(&session, &wants).unwrap();
        let path = MsrpUri::own(true, "2001:db8::5", 2855, "abc").unwrap();
        let ours = ["sha-256 AA:BB".to_owned()];
        let own = Own { fingerprints: &ours, ..own(&path) };
        let offered = text(&chosen.offer(&own));
        assert!(offered.contains("c=IN IP6 2001:db8::5\r\n"));
        assert!(offered.contains("m=message 2855 TCP/TLS/MSRP *\r\n"));
        assert!(offered.contains("a=path:msrps://[2001:db8::5]:2855/abc;tcp\r\n"));
        assert!(offered.contains("a=fingerprint:sha-256 AA:BB\r\n"));
    }

    #[test]
    fn broken_descriptions_are_refused() {
        for bad in ["", "hello", "v=1\r\n", "v=0\r\nm=message x TCP/MSRP *\r\n", "v=0\r\no=1\r\n"] {
            assert!(Session::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Session::parse(b"v=0\r\na=x:\xff\r\n").is_err());
        let bad = Session::parse(b"v=0\r\nm=message secret TCP/MSRP *\r\n").unwrap_err();
        assert!(!bad.to_string().contains("secret"));
    }

    #[test]
    fn a_flood_of_preconditions_is_not_answered_line_by_line() {
        let theirs: Vec<_> = (0..10_000)
            .map(|n| Attribute {
                attribute: "curr".to_owned(),
                value: Some(format!("kind{n} local none")),
            })
            .collect();
        let mut out = String::new();
        conditions(&mut out, &theirs);
        assert_eq!(out.lines().count(), 3 * MOST_CONDITIONS);
    }
}
