//! The edge of the trust domain, and of our own administrative domain: what a message loses when it crosses them.
//!
//! Start at [`Boundary::arriving`] and [`Boundary::leaving`], which say what a neighbour is; [`Crossing::apply`] takes out
//! what may not cross. Inside, where nothing is taken out, not even `Privacy: id` removes an identity (ISC-075): that is
//! the work of the network's border. Decides nothing about requests and opens no socket. Follows TS 24.229 4.4,
//! RFC 3325 §7, RFC 7044 §10, RFC 7315 §4.5 and section L of the rules.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use ipnet::IpNet;

use super::own::{BadSetting, domain};
use super::service::{decode, elements};
use super::syntax::Address;
use super::trust::Trust;
use crate::isc::settings::{CoreProfile, SendPsu, Settings};
use crate::sip::Flow;
use crate::sip::message::{Message, Name};
use crate::sip::uri::Uri;

/// Since when a core knows a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    /// The base that cores after 3GPP2 were made from has it.
    Old,
    /// It came later, so that base passes it like any unknown header (section L).
    Newer,
}

/// Headers that mean something only between members of the trust domain.
///
/// ISC-073, ISC-074 (TS 24.229 4.4.2 to 4.4.20).
const HEADERS: &[(&str, Base)] = &[
    ("P-Asserted-Identity", Base::Old),
    ("P-Access-Network-Info", Base::Old),
    ("History-Info", Base::Old),
    ("P-Charging-Function-Addresses", Base::Old),
    ("P-Charging-Vector", Base::Old),
    ("Cellular-Network-Info", Base::Newer),
    ("P-Asserted-Service", Base::Newer),
    ("Resource-Priority", Base::Newer),
    ("P-Profile-Key", Base::Newer),
    ("P-Served-User", Base::Newer),
    ("P-Private-Network-Indication", Base::Newer),
    ("P-Early-Media", Base::Newer),
    ("Feature-Caps", Base::Newer),
    ("Restoration-Info", Base::Newer),
    ("Relayed-Charge", Base::Newer),
    ("Service-Interact-Info", Base::Newer),
    ("Response-Source", Base::Newer),
    ("Attestation-Info", Base::Newer),
    ("Origination-Id", Base::Newer),
    ("Additional-Identity", Base::Newer),
];

/// URI parameters the network puts there for itself (ISC-073).
const MARKS: [&str; 3] = ["cpc", "oli", "iotl"];

/// Headers of requests whose URIs the network may have marked, besides identities and history. Contact is the user's, and
/// who only passes a request on leaves its From and To alone (ISC-052).
const MARKED: [&str; 3] = ["Route", "Referred-By", "Diversion"];

/// Whether a header has no business outside the trust domain.
pub fn is_trusted_only(name: &str) -> bool {
    HEADERS.iter().any(|(header, _)| header.eq_ignore_ascii_case(name))
}

/// Whether a plain core is never shown the header (section L).
pub fn is_ims_only(name: &str) -> bool {
    starts_with(name, "P-") || name.eq_ignore_ascii_case("Feature-Caps")
}

/// Whether a line begins as a header does that a plain core is never shown: a quick look that spares most messages a
/// closer one.
pub fn names_ims(message: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', message).any(|end| {
        let line = &message[end + 1..];
        ["P-", "Feature-Caps"].iter().any(|start| {
            line.get(..start.len())
                .is_some_and(|found| found.eq_ignore_ascii_case(start.as_bytes()))
        })
    })
}

fn starts_with(name: &str, start: &str) -> bool {
    name.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start))
}

/// What an operator names as outside.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Net(IpNet),
    /// A host, and every name below it.
    Domain(String),
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(net) = text.parse::<IpNet>() {
            return Some(Self::Net(net));
        }
        if let Some(address) = literal(text) {
            return Some(Self::Net(address.into()));
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        let well = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let name = plain_host(name);
        // `10.1.2` and `10.1.2.300` are mistyped addresses, not names.
        let named = name.bytes().any(|b| b.is_ascii_alphabetic());
        (named && name.split('.').all(well)).then_some(Self::Domain(name))
    }

    fn holds(&self, host: &str) -> bool {
        match (self, literal(host)) {
            (Self::Net(net), Some(address)) => net.contains(&address),
            (Self::Domain(domain), None) => is_below(&plain_host(host), domain),
            _ => false,
        }
    }
}

/// An address, with or without the brackets of a URI.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn plain_host(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether `text` may stand in `core.untrusted_hops`.
pub fn is_place(text: &str) -> bool {
    Place::parse(text).is_some()
}

/// Whether a host is one of `places`, which may stand in `core.untrusted_hops`.
pub fn is_at(host: &str, places: &[String]) -> bool {
    places.iter().filter_map(|place| Place::parse(place)).any(|place| place.holds(host))
}

/// Who stands on which side of the two edges, read once from the settings.
#[derive(Debug, Clone)]
pub struct Boundary {
    profile: CoreProfile,
    /// Newer headers that the operator switched on for an older core.
    switched_on: Vec<&'static str>,
    outside: Vec<Place>,
    /// Addresses of the core.
    inside: Vec<IpNet>,
    /// Domains of ours.
    domains: Vec<String>,
    /// Single hosts of ours.
    hosts: Vec<String>,
}

impl Boundary {
    /// # Errors
    /// [`BadSetting`] for an untrusted hop that is neither address nor name.
    pub fn new(settings: &Settings) -> Result<Self, BadSetting> {
        let place = |text: &String| {
            Place::parse(text).ok_or_else(|| BadSetting {
                key: "core.untrusted_hops",
                value: text.clone(),
                why: "an address, a CIDR block or a domain is wanted".to_owned(),
            })
        };
        let host = |uri: &String| Uri::parse(uri).ok().map(|uri| plain_host(uri.host()));
        let core = &settings.core;
        let neighbours = [&core.scscf, &core.icscf, &core.outbound_proxy];
        let mut switched_on = Vec::new();
        if settings.isc.send_psu != SendPsu::Never {
            switched_on.push("P-Served-User");
        }
        if settings.isc.asserted_service {
            switched_on.push("P-Asserted-Service");
        }
        Ok(Self {
            profile: settings.profile,
            switched_on,
            outside: core.untrusted_hops.iter().map(place).collect::<Result<_, _>>()?,
            inside: settings.sip.trusted_peers.clone(),
            domains: settings
                .service
                .home_domains
                .iter()
                .map(|domain| plain_host(domain))
                .chain(host(&settings.sip.uri).map(|host| domain(&host).to_owned()))
                .filter(|domain| !domain.is_empty())
                .collect(),
            hosts: neighbours.into_iter().filter_map(host).filter(|h| !h.is_empty()).collect(),
        })
    }

    /// Whether the operator named this host or address as outside the trust domain.
    pub fn is_outside(&self, host: &str) -> bool {
        self.outside.iter().any(|place| place.holds(host))
    }

    /// The same for the address a message came from.
    pub fn is_outside_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.outside.iter().any(|place| matches!(place, Place::Net(net) if net.contains(&address)))
    }

    /// Whether what comes this way, or goes back, is inside the trust domain.
    ///
    /// ISC-017: a peer of the core that the operator did not name as outside.
    pub fn believes(&self, trust: &Trust, flow: &Flow) -> bool {
        trust.admits(flow) && !self.is_outside_address(flow.peer.ip())
    }

    /// Whether a host belongs to our own administrative domain: below our domains, a neighbour of the configuration, or
    /// an address of the core.
    ///
    /// ISC-031 (RFC 7315 §4.5.2.2).
    pub fn is_own(&self, host: &str) -> bool {
        let name = plain_host(host);
        if self.is_outside(host) {
            return false;
        }
        self.hosts.contains(&name)
            || match literal(host) {
                Some(address) => self.inside.iter().any(|net| net.contains(&address)),
                None => self.domains.iter().any(|domain| is_below(&name, domain)),
            }
    }

    /// What a message loses before we read it; `believed` is whether its sender is inside the trust domain.
    ///
    /// ISC-074.
    pub fn arriving(&self, believed: bool) -> Crossing<'_> {
        Crossing {
            boundary: self,
            arriving: true,
            outside: !believed,
            foreign: !believed,
            ours: false,
        }
    }

    /// What a message loses before it goes to `host`; `ours` is whether we wrote it or only pass it on.
    ///
    /// ISC-031, ISC-073.
    pub fn leaving(&self, host: &str, ours: bool) -> Crossing<'_> {
        let outside = self.is_outside(host);
        Crossing { boundary: self, arriving: false, outside, foreign: !self.is_own(host), ours }
    }

    /// The same for an answer that goes back to a peer: there is no other domain behind one inside.
    pub fn answering(&self, believed: bool, ours: bool) -> Crossing<'_> {
        Crossing { boundary: self, arriving: false, outside: !believed, foreign: !believed, ours }
    }
}

/// A message on its way over the edge.
#[derive(Debug, Clone, Copy)]
pub struct Crossing<'a> {
    boundary: &'a Boundary,
    arriving: bool,
    /// The other side is outside the trust domain.
    outside: bool,
    /// The other side is not of our administrative domain.
    foreign: bool,
    /// We wrote the message ourselves.
    ours: bool,
}

/// What becomes of one header field.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Gone,
    Changed(String),
}

impl Crossing<'_> {
    /// Whether nothing is ever taken out of a message that crosses here.
    pub fn is_open(&self) -> bool {
        self.boundary.profile.is_ims() && !self.outside && !self.foreign
    }

    /// The message as it may cross; `None` where it may as it is.
    ///
    /// ISC-031, ISC-073, ISC-074, section L.
    pub fn apply(&self, message: &Message) -> Option<Bytes> {
        if self.is_open() {
            return None;
        }
        if !self.boundary.profile.is_ims() && !names_ims(message.bytes()) {
            return None;
        }
        let request = message.is_request();
        let privacy = Privacy::of(message);
        let uri = match without_marks(message.uri(), true) {
            Cow::Owned(uri) if self.removes_marks() => Cow::Owned(uri),
            _ => Cow::Borrowed(message.uri()),
        };
        let fates: Vec<Fate> = message
            .all_headers()
            .map(|(name, value)| self.fate(name, value, request, &privacy))
            .collect();
        if uri == message.uri() && fates.iter().all(|fate| *fate == Fate::Kept) {
            return None;
        }
        let mut out = BytesMut::with_capacity(message.bytes().len());
        match (message.method(), message.status()) {
            (Some(method), _) => {
                line(&mut out, &[method.as_str().as_bytes(), b" ", uri.as_bytes(), b" SIP/2.0"])
            }
            (None, status) => {
                let status = status.unwrap_or_default().to_string();
                line(
                    &mut out,
                    &[b"SIP/2.0 ", status.as_bytes(), b" ", message.reason().as_bytes()],
                );
            }
        }
        for ((name, value), fate) in message.all_headers().zip(fates) {
            match fate {
                Fate::Kept => line(&mut out, &[name, b": ", value]),
                Fate::Gone => {}
                Fate::Changed(value) => line(&mut out, &[name, b": ", value.as_bytes()]),
            }
        }
        out.put_slice(b"\r\n");
        out.put_slice(message.body());
        Some(out.freeze())
    }

    fn fate(&self, name: &[u8], value: &[u8], request: bool, privacy: &Privacy) -> Fate {
        let Ok(name) = std::str::from_utf8(name) else { return Fate::Kept };
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if !self.boundary.profile.is_ims() {
            // Who is asking, said by a peer we trust, is all a plain core takes of them.
            let asked = self.arriving && !self.outside && is("P-Asserted-Identity");
            return if is_ims_only(name) && !asked { Fate::Gone } else { Fate::Kept };
        }
        if is("P-Charging-Function-Addresses") {
            return if self.foreign { Fate::Gone } else { Fate::Kept };
        }
        if !self.outside {
            return Fate::Kept;
        }
        if is("Reason") && !request && self.boundary.profile == CoreProfile::Gpp {
            return Fate::Gone;
        }
        if !self.removes(name) {
            let named = MARKED.iter().any(|known| is(known))
                || (self.ours && ["From", "To"].iter().any(|known| is(known)));
            return if request && named { self.unmarked(value) } else { Fate::Kept };
        }
        if !self.arriving && is("P-Asserted-Identity") && !privacy.hides_identity() {
            return self.unmarked(value);
        }
        if !self.arriving && is("History-Info") {
            return self.history(value, privacy);
        }
        Fate::Gone
    }

    /// Whether the header is one of the trust domain's, as far as this core knows it.
    fn removes(&self, name: &str) -> bool {
        let known = |base: Base, header: &str| {
            base == Base::Old
                || self.boundary.profile == CoreProfile::Gpp
                || self.boundary.switched_on.contains(&header)
        };
        HEADERS
            .iter()
            .any(|(header, base)| header.eq_ignore_ascii_case(name) && known(*base, header))
    }

    fn removes_marks(&self) -> bool {
        self.outside && self.boundary.profile == CoreProfile::Gpp
    }

    fn unmarked(&self, value: &[u8]) -> Fate {
        let Some(text) = std::str::from_utf8(value).ok().filter(|_| self.removes_marks()) else {
            return Fate::Kept;
        };
        match without_marks(text, false) {
            Cow::Owned(text) => Fate::Changed(text),
            Cow::Borrowed(_) => Fate::Kept,
        }
    }

    /// What of the history may be seen outside: an entry that is to stay private keeps its place and loses its name.
    ///
    /// RFC 7044 §10.1.2.
    fn history(&self, value: &[u8], privacy: &Privacy) -> Fate {
        let Ok(text) = std::str::from_utf8(value) else { return Fate::Gone };
        let mut kept = Vec::new();
        for entry in elements(text) {
            let Some(address) = Address::parse(entry) else { continue };
            if privacy.hides_history() || (!privacy.none && hides_itself(address.uri)) {
                kept.push(format!("<sip:anonymous@anonymous.invalid>{}", address.params));
            } else if self.removes_marks() {
                kept.push(without_marks(entry, false).into_owned());
            } else {
                kept.push(entry.to_owned());
            }
        }
        match kept.join(", ") {
            none if none.is_empty() => Fate::Gone,
            same if same == text => Fate::Kept,
            other => Fate::Changed(other),
        }
    }
}

/// Whether the URI of a history entry carries a Privacy header of its own that hides it.
fn hides_itself(uri: &str) -> bool {
    let Ok(uri) = Uri::parse(uri) else { return true };
    uri.headers().any(|(name, value)| {
        name.eq_ignore_ascii_case("Privacy") && {
            let mut privacy = Privacy::default();
            privacy.read(&decode(value));
            privacy.hides_history()
        }
    })
}

/// What the Privacy lines of a message ask for (RFC 3323 §4.2, RFC 3325 §9.3, RFC 7044 §10.1.1).
#[derive(Debug, Default)]
struct Privacy {
    id: bool,
    history: bool,
    none: bool,
}

impl Privacy {
    fn of(message: &Message) -> Self {
        let mut privacy = Self::default();
        for line in message.lines(Name::Privacy) {
            privacy.read(&String::from_utf8_lossy(line));
        }
        privacy
    }

    fn read(&mut self, value: &str) {
        for wish in value.split([';', ',']).map(str::trim) {
            let is = |known: &str| wish.eq_ignore_ascii_case(known);
            self.id |= is("id");
            self.history |= is("history") || is("header");
            self.none |= is("none");
        }
    }

    /// RFC 3325 §7: `id` asks for it and `none` forbids it.
    fn hides_identity(&self) -> bool {
        self.id && !self.none
    }

    fn hides_history(&self) -> bool {
        self.history && !self.none
    }
}

/// Takes the network's marks out of every URI of a header value; `bare` for a text that is one URI.
fn without_marks(text: &str, bare: bool) -> Cow<'_, str> {
    // Without brackets what follows the number or host is the URI's in these headers.
    let everywhere = bare || !text.contains('<');
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut from, mut at) = (0, 0);
    let (mut quoted, mut inside) = (false, everywhere);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'<' => inside = true,
            b'>' => inside = everywhere,
            b';' if inside => {
                let end = end_of_param(bytes, at + 1);
                let name = text[at + 1..end].split('=').next().unwrap_or_default().trim();
                if MARKS.iter().any(|mark| mark.eq_ignore_ascii_case(name)) {
                    out.push_str(&text[from..at]);
                    from = end;
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[from..]);
    Cow::Owned(out)
}

/// Where the parameter that starts at `from` ends: at the next one, or where the user part, the URI or the element ends.
fn end_of_param(bytes: &[u8], from: usize) -> usize {
    let ends = |byte: &u8| matches!(byte, b';' | b'>' | b'@' | b'?' | b',' | b'"');
    bytes[from..].iter().position(ends).map_or(bytes.len(), |found| from + found)
}

fn line(out: &mut BytesMut, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.put_slice(part));
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Limits;

    fn settings(profile: CoreProfile) -> Settings {
        let mut settings = Settings::of(profile);
        settings.sip.uri = "sip:im-as1.home1.example:5090".to_owned();
        settings.sip.trusted_peers = vec!["192.0.2.0/24".parse().expect("a network")];
        settings.core.scscf = "sip:scscf.elsewhere.test:6060;transport=tcp".to_owned();
        settings.core.icscf = "sip:198.51.100.9".to_owned();
        settings.service.home_domains = vec!["im.Home2.example".to_owned()];
        settings.core.untrusted_hops =
            ["192.0.2.128/25", "[2001:db8::1]", "*.other.example", "bad.home1.example."]
                .map(str::to_owned)
                .to_vec();
        settings
    }

    fn boundary(profile: CoreProfile) -> Boundary {
        Boundary::new(&settings(profile)).expect("the settings are good")
    }

    fn message(start: &str, lines: &[&str]) -> Message {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let text = format!(
            "{start}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n{lines}From: <sip:a@h;cpc=ordinary>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Length: 4\r\n\r\nbody"
        );
        Message::parse(Bytes::from(text), &Limits::default()).expect("tests write messages")
    }

    /// The lines that are left of those given, `None` where the message crosses as it is.
    fn left(crossing: Crossing<'_>, start: &str, lines: &[&str]) -> Option<Vec<String>> {
        let bytes = crossing.apply(&message(start, lines))?;
        let text = String::from_utf8(bytes.to_vec()).expect("text stays text");
        assert!(text.ends_with("\r\nContent-Length: 4\r\n\r\nbody"), "{text}");
        let own = ["Via", "From", "To", "Call-ID", "CSeq", "Content-Length", ""];
        let head = text.split("\r\n\r\n").next().unwrap_or_default().to_owned();
        let others = head
            .lines()
            .skip(1)
            .filter(|line| !own.contains(&line.split(':').next().unwrap_or_default()));
        Some(others.map(str::to_owned).collect())
    }

    const INVITE: &str = "INVITE sip:b@h SIP/2.0";
    const REFUSED: &str = "SIP/2.0 486 Busy Here";

    /// Every header of the rule, in its order, with a value.
    const ALL: [&str; 20] = [
        "P-Asserted-Identity: <sip:alice@home1.example>",
        "P-Access-Network-Info: 3GPP-UTRAN-FDD;utran-cell-id-3gpp=1",
        "Cellular-Network-Info: 3GPP-UTRAN-FDD",
        "History-Info: <sip:x@y>;index=1",
        "P-Asserted-Service: urn:urn-7:x",
        "Resource-Priority: wps.3",
        "P-Profile-Key: <sip:lm-!.*!@im.home1.example>",
        "P-Served-User: <sip:alice@home1.example>;sescase=orig",
        "P-Private-Network-Indication: p.example",
        "P-Early-Media: supported",
        "Feature-Caps: *;+g.3gpp.srvcc",
        "Restoration-Info: noresponse",
        "Relayed-Charge: x",
        "Service-Interact-Info: x",
        "Response-Source: fe=<urn:3gpp:fe:as>",
        "Attestation-Info: a",
        "Origination-Id: 123e4567",
        "Additional-Identity: <sip:z@y>",
        "P-Charging-Function-Addresses: ccf=c",
        "P-Charging-Vector: icid-value=1",
    ];

    fn named(lines: &[&'static str], names: &[&str]) -> Vec<String> {
        let named = lines.iter().filter(|line| names.iter().any(|name| line.starts_with(name)));
        named.map(|line| (*line).to_owned()).collect()
    }

    /// Proves ISC-073, ISC-074.
    #[test]
    fn every_header_of_the_rule_stays_inside() {
        let boundary = boundary(CoreProfile::Gpp);
        let privately: Vec<&str> = ["Privacy: id", "X-Kept: 1"].into_iter().chain(ALL).collect();
        let kept = ["Privacy: id", "X-Kept: 1"].map(str::to_owned);
        // Without a word about privacy the identity goes on, and so does an open history.
        let public = named(&ALL, &["P-Asserted-Identity", "History-Info"]);
        for start in [INVITE, REFUSED] {
            let out = boundary.leaving("sbc.other.example", false);
            let after = left(out, start, &privately).expect("something is taken out");
            assert_eq!(after[..2], kept, "{start}");
            assert_eq!(after[2..], named(&ALL, &["History-Info"]), "{start}");
            assert_eq!(left(out, start, &ALL), Some(public.clone()), "{start}");
            let back = boundary.answering(false, true);
            assert_eq!(left(back, start, &ALL), Some(public.clone()), "{start}");
            // From outside none of it is believed, whatever is said about privacy.
            let come = boundary.arriving(false);
            assert_eq!(left(come, start, &ALL), Some(Vec::new()), "{start}");
            let none = [&["Privacy: none"][..], &ALL].concat();
            assert_eq!(left(come, start, &none), Some(vec!["Privacy: none".to_owned()]));
        }
        for header in ALL {
            let name = header.split(':').next().expect("a name");
            assert!(is_trusted_only(name) && is_trusted_only(&name.to_lowercase()), "{name}");
            let shout = header.replace(name, &name.to_uppercase());
            assert_eq!(left(boundary.arriving(false), INVITE, &[&shout]), Some(Vec::new()));
        }
        assert!(!is_trusted_only("P-Visited-Network-ID") && !is_trusted_only("P-Asserted"));
    }

    /// Proves ISC-073.
    #[test]
    fn the_privacy_header_decides_about_the_identity() {
        let boundary = boundary(CoreProfile::Gpp);
        let identity = "P-Asserted-Identity: \"A\" <sip:alice@home1.example>, <tel:+1>";
        for (privacy, kept) in [
            (&["Privacy: id"][..], false),
            (&["Privacy: critical; ID"][..], false),
            (&["Privacy: header,id"][..], false),
            (&["Privacy: session", "Privacy: id"][..], false),
            (&["Privacy: none"][..], true),
            (&["Privacy: id;none"][..], true),
            (&["Privacy: header"][..], true),
            (&["Privacy: user;identity"][..], true),
            (&["Privacy: \u{fffd}"][..], true),
            (&[][..], true),
        ] {
            let lines = [privacy, &[identity]].concat();
            let after = left(boundary.leaving("other.example", false), INVITE, &lines);
            // Kept means that nothing is to be changed at all.
            assert_eq!(after.is_none(), kept, "{privacy:?}");
        }
    }

    /// Proves ISC-075.
    #[test]
    fn inside_nothing_is_taken_out() {
        for profile in [CoreProfile::Gpp, CoreProfile::Gpp2] {
            let boundary = boundary(profile);
            let lines: Vec<&str> =
                ["Privacy: id", "Reason: SIP;cause=486"].into_iter().chain(ALL).collect();
            for crossing in [
                boundary.leaving("scscf1.home1.example", true),
                boundary.leaving("scscf1.home1.example", false),
                boundary.arriving(true),
                boundary.answering(true, true),
                boundary.answering(true, false),
            ] {
                assert!(crossing.is_open());
                assert_eq!(left(crossing, INVITE, &lines), None);
                assert_eq!(left(crossing, REFUSED, &lines), None);
            }
        }
    }

    /// Proves ISC-073.
    #[test]
    fn a_reason_leaves_in_requests_only() {
        let boundary = boundary(CoreProfile::Gpp);
        let reason = ["Reason: Q.850;cause=17", "X-Kept: 1"];
        for crossing in [boundary.leaving("other.example", false), boundary.arriving(false)] {
            assert_eq!(left(crossing, REFUSED, &reason), Some(vec!["X-Kept: 1".to_owned()]));
            assert_eq!(left(crossing, INVITE, &reason), None);
        }
    }

    /// Proves ISC-031.
    #[test]
    fn charging_functions_are_told_in_our_own_domain_only() {
        let boundary = boundary(CoreProfile::Gpp);
        let addresses = [
            "P-Charging-Function-Addresses: ccf=\"aaa://c\";ecf=e",
            "P-Charging-Vector: icid-value=1",
        ];
        for (host, own) in [
            ("scscf1.home1.example", true),
            ("SCSCF1.Home1.Example.", true),
            ("home1.example", true),
            ("im.home2.example", true),
            ("pages.im.home2.example", true),
            ("scscf.elsewhere.test", true),
            ("198.51.100.9", true),
            ("192.0.2.1", true),
            ("[::ffff:192.0.2.1]", true),
            // Another operator, though nobody says that it is not trusted.
            ("scscf1.home3.example", false),
            ("evilhome1.example", false),
            ("home2.example", false),
            ("other.elsewhere.test", false),
            ("198.51.100.10", false),
            ("[2001:db8::2]", false),
            ("", false),
            // Ours, but said to be outside.
            ("bad.home1.example", false),
            ("192.0.2.129", false),
        ] {
            assert_eq!(boundary.is_own(host), own, "{host}");
            let after = left(boundary.leaving(host, true), INVITE, &addresses);
            match (own, boundary.is_outside(host)) {
                (true, _) => assert_eq!(after, None, "{host}"),
                (false, false) => assert_eq!(after, Some(vec![addresses[1].to_owned()]), "{host}"),
                (false, true) => assert_eq!(after, Some(Vec::new()), "{host}"),
            }
        }
    }

    /// Proves ISC-073.
    #[test]
    fn neighbours_outside_are_known_by_address_or_domain() {
        let boundary = boundary(CoreProfile::Gpp);
        for (host, outside) in [
            ("192.0.2.128", true),
            ("192.0.2.127", false),
            ("::ffff:192.0.2.200", true),
            ("2001:db8::1", true),
            ("[2001:db8:0::1]", true),
            ("2001:db8::2", false),
            ("other.example", true),
            ("a.b.OTHER.example.", true),
            ("another.example", false),
            ("bad.home1.example", true),
            ("home1.example", false),
            ("", false),
        ] {
            assert_eq!(boundary.is_outside(host), outside, "{host}");
        }
        for (text, well) in [
            ("10.0.0.0/8", true),
            ("2001:db8::/32", true),
            ("[::1]", true),
            ("127.0.0.1", true),
            ("*.example", true),
            ("a_b-c.example.", true),
            ("", false),
            ("*.", false),
            ("10.0.0.0/33", false),
            ("10.0.0", false),
            ("10.0.0.256", false),
            ("a..b", false),
            ("sip:a@b", false),
            ("a b", false),
        ] {
            assert_eq!(is_place(text), well, "{text:?}");
        }
        let mut settings = Settings::default();
        settings.core.untrusted_hops = vec!["nobody".to_owned(), "10.0.0.0/40".to_owned()];
        let bad = Boundary::new(&settings).expect_err("no network");
        assert_eq!((bad.key, bad.value.as_str()), ("core.untrusted_hops", "10.0.0.0/40"));
    }

    /// Proves ISC-073.
    #[test]
    fn private_entries_of_a_history_keep_their_place_and_lose_their_name() {
        let boundary = boundary(CoreProfile::Gpp);
        let open = "<sip:bob@home1.example>;index=1;np=0";
        let hidden =
            "<sip:carol@home1.example?Privacy=history&Reason=SIP%3Bcause%3D302>;index=1.1;mp=1";
        let nobody = "<sip:anonymous@anonymous.invalid>;index=1.1;mp=1";
        for (privacy, value, want) in [
            (None, format!("{open}, {hidden}"), Some(format!("{open}, {nobody}"))),
            (None, hidden.replace("history", "none%3BHEADER"), None),
            (None, hidden.replace("history", "HEADER"), Some(nobody.to_owned())),
            (Some("none"), hidden.to_owned(), None),
            (
                Some("history"),
                open.to_owned(),
                Some("<sip:anonymous@anonymous.invalid>;index=1;np=0".to_owned()),
            ),
            (Some("header"), hidden.to_owned(), Some(nobody.to_owned())),
            (Some("id"), open.to_owned(), None),
            (Some("history;none"), open.to_owned(), None),
            // What cannot be read is not shown.
            (None, format!("nonsense, {open}"), Some(open.to_owned())),
            (
                None,
                "<sip:a b@c>;index=2".to_owned(),
                Some("<sip:anonymous@anonymous.invalid>;index=2".to_owned()),
            ),
            (
                None,
                "<sip:u;cpc=x@h;user=phone;iotl=a-b>;index=1".to_owned(),
                Some("<sip:u@h;user=phone>;index=1".to_owned()),
            ),
        ] {
            let history = format!("History-Info: {value}");
            let privacy = privacy.map(|privacy| format!("Privacy: {privacy}"));
            let lines: Vec<&str> = privacy.iter().chain([&history]).map(String::as_str).collect();
            let after = left(boundary.leaving("other.example", false), INVITE, &lines);
            let want = want.map(|want| {
                privacy.iter().cloned().chain([format!("History-Info: {want}")]).collect()
            });
            assert_eq!(after, want, "{lines:?}");
        }
        let nothing = left(boundary.leaving("other.example", false), INVITE, &["History-Info: x"]);
        assert_eq!(nothing, Some(Vec::new()));
    }

    /// Proves ISC-073.
    #[test]
    fn the_network_s_own_uri_parameters_are_taken_out() {
        for (text, bare, want) in [
            ("tel:+15551230001;cpc=payphone", true, "tel:+15551230001"),
            (
                "sip:+1;oli=00;CPC=x@h;user=phone;iotl=homeA-homeB?X=1",
                true,
                "sip:+1@h;user=phone?X=1",
            ),
            ("sip:b@h;iotl", true, "sip:b@h"),
            ("sip:b@h;cpcs=1;xoli=2;iotlx", true, "sip:b@h;cpcs=1;xoli=2;iotlx"),
            ("tel:+1;cpc=x, <sip:a@h>", false, "tel:+1;cpc=x, <sip:a@h>"),
            ("tel:+1;cpc=x;phone-context=+1", false, "tel:+1;phone-context=+1"),
            (
                "\"x;cpc=1 <\" <sip:a@h;cpc=1>;cpc=header, <tel:+1;oli=2>",
                false,
                "\"x;cpc=1 <\" <sip:a@h>;cpc=header, <tel:+1>",
            ),
            ("\"\\\";cpc=1\" <sip:a@h;oli=1>", false, "\"\\\";cpc=1\" <sip:a@h>"),
            ("<sip:a@h>;cpc=header", false, "<sip:a@h>;cpc=header"),
            ("<sip:a@h;cpc", false, "<sip:a@h"),
            ("\"\\", false, "\"\\"),
            ("", true, ""),
        ] {
            assert_eq!(without_marks(text, bare), want, "{text}");
        }
        let start = "INVITE sip:+1;cpc=x@h;iotl=a-b SIP/2.0";
        let lines = [
            "Route: <sip:p.other.example;lr;iotl=a-b>",
            "Referred-By: <tel:+1;oli=1>",
            "Contact: <sip:+1;cpc=x@h>",
            "Diversion: tel:+2;cpc=x",
        ];
        let boundary = boundary(CoreProfile::Gpp);
        let text = |ours| {
            let bytes = boundary.leaving("p.other.example", ours).apply(&message(start, &lines));
            String::from_utf8(bytes.expect("it changes").to_vec()).expect("text stays text")
        };
        for ours in [true, false] {
            let text = text(ours);
            assert!(text.starts_with("INVITE sip:+1@h SIP/2.0\r\n"), "{text}");
            for line in [
                "Route: <sip:p.other.example;lr>",
                "Referred-By: <tel:+1>",
                "Diversion: tel:+2",
                "Contact: <sip:+1;cpc=x@h>",
            ] {
                assert!(text.contains(&format!("{line}\r\n")), "{line}\n{text}");
            }
            // Who only passes a request on leaves its From alone.
            assert_eq!(text.contains("From: <sip:a@h>;tag=1"), ours, "{text}");
        }
        // Answers repeat what was asked.
        let reply = ["Referred-By: <tel:+1;oli=1>", "P-Asserted-Identity: <tel:+1;cpc=x>"];
        assert_eq!(
            left(boundary.leaving("p.other.example", true), REFUSED, &reply),
            Some(vec![
                "Referred-By: <tel:+1;oli=1>".to_owned(),
                "P-Asserted-Identity: <tel:+1>".to_owned()
            ])
        );
        // Inside they mean something.
        assert_eq!(left(boundary.leaving("home3.example", true), start, &lines), None);
    }

    /// Proves ISC-073.
    #[test]
    fn an_older_core_takes_out_what_its_base_knows() {
        let old = ["P-Access-Network-Info", "P-Charging-Function-Addresses", "P-Charging-Vector"];
        let newer: Vec<&str> =
            ALL.into_iter().filter(|line| !old.iter().any(|name| line.starts_with(name))).collect();
        let own: Vec<String> = newer.iter().map(|line| (*line).to_owned()).collect();
        let boundary = boundary(CoreProfile::Gpp2);
        let crossing = boundary.leaving("other.example", true);
        assert_eq!(left(crossing, INVITE, &ALL), Some(own.clone()));
        assert_eq!(left(crossing, REFUSED, &["Reason: SIP;cause=486"]), None);
        assert_eq!(left(crossing, "INVITE tel:+1;cpc=x SIP/2.0", &["Route: <sip:a;iotl=x>"]), None);
        let mut settings = settings(CoreProfile::Gpp2);
        for (name, psu, service) in [
            ("P-Served-User", SendPsu::IfDiffers, false),
            ("P-Asserted-Service", SendPsu::Never, true),
        ] {
            (settings.isc.send_psu, settings.isc.asserted_service) = (psu, service);
            let boundary = Boundary::new(&settings).expect("the settings are good");
            let own: Vec<String> =
                own.iter().filter(|line| !line.starts_with(name)).cloned().collect();
            assert_eq!(left(boundary.leaving("other.example", true), INVITE, &ALL), Some(own));
        }
    }

    /// Proves IM-018.
    #[test]
    fn a_plain_core_is_shown_nothing_of_ims() {
        let boundary = boundary(CoreProfile::SipIp);
        let theirs: Vec<String> = ALL
            .into_iter()
            .filter(|line| !is_ims_only(line.split(':').next().expect("a name")))
            .map(str::to_owned)
            .collect();
        assert_eq!(theirs.len(), 10);
        let lines = [&ALL[..], &["p-preferred-identity: <sip:a@h>"]].concat();
        for host in ["proxy.example", "192.0.2.1", "other.example"] {
            assert_eq!(
                left(boundary.leaving(host, false), INVITE, &lines),
                Some(theirs.clone()),
                "{host}"
            );
            // Also where we are one end of a dialog and pass on what the other end said.
            assert_eq!(
                left(boundary.leaving(host, true), INVITE, &lines),
                Some(theirs.clone()),
                "{host}"
            );
        }
        assert_eq!(left(boundary.arriving(false), INVITE, &lines), Some(theirs.clone()));
        let known =
            [&["P-Asserted-Identity: <sip:alice@home1.example>".to_owned()], &theirs[..]].concat();
        assert_eq!(left(boundary.arriving(true), INVITE, &lines), Some(known));
        assert_eq!(left(boundary.answering(true, false), REFUSED, &lines), Some(theirs));
        assert_eq!(left(boundary.arriving(true), INVITE, &["X-P-Y: 1"]), None);
        for (text, names) in [
            ("INVITE sip:a@b SIP/2.0\r\nP-X: 1\r\n", true),
            ("INVITE sip:a@b SIP/2.0\r\nX: 1\r\np-early-media: x", true),
            ("INVITE sip:a@b SIP/2.0\r\nfeature-CAPS: *\r\n", true),
            ("P-X: 1\r\n", false),
            ("INVITE sip:a@b SIP/2.0\r\nX-P-X: 1\r\nPriority: x\r\nP", false),
            ("", false),
        ] {
            assert_eq!(names_ims(text.as_bytes()), names, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_pass_or_stay_but_never_break() {
        let boundary = boundary(CoreProfile::Gpp);
        let raw = b"INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nHistory-Info: <sip:\xff@h>\r\nReferred-By: <sip:\xff;cpc=1@h>\r\nX: \xff\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
        let message =
            Message::parse(Bytes::from_static(raw), &Limits::default()).expect("a message");
        let out = boundary.leaving("other.example", true).apply(&message).expect("it changes");
        assert!(memchr::memmem::find(&out, b"History-Info").is_none());
        assert!(memchr::memmem::find(&out, b"X: \xff\r\n").is_some());
        assert!(memchr::memmem::find(&out, b"Referred-By: <sip:\xff;cpc=1@h>").is_some());
    }

    /// Proves ISC-073.
    #[test]
    fn what_is_quoted_is_a_name_and_no_uri() {
        for (text, want) in [
            (
                r#""a <b;cpc=1\";cpc=2>" <sip:u@h;cpc=operator;x=y>"#,
                r#""a <b;cpc=1\";cpc=2>" <sip:u@h;x=y>"#,
            ),
            (r#""a" <sip:u@h;OLI=1;x=y>;cpc=tag"#, r#""a" <sip:u@h;x=y>;cpc=tag"#),
            (r#""\\" <sip:u@h;cpc=1>, "<" <sip:v@h;iotl=x>"#, r#""\\" <sip:u@h>, "<" <sip:v@h>"#),
            ("sip:u;cpc=1@h;x=y;oli=2", "sip:u@h;x=y"),
        ] {
            assert_eq!(without_marks(text, false), want, "{text}");
        }
    }
}
