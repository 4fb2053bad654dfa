//! From named URIs to those who are invited: what is taken out of a list, why, and the limits (UL rules).
//!
//! Start at [`Sieve::list`] for a request's own list and [`Sieve::members`] for a group's. Pure, but for the clock that is
//! an argument. UL-010 to UL-016, UL-033, UL-034, IM-035.

use std::collections::{HashMap, HashSet};

use super::{Consent, Settings};
use crate::engine::party::{Copy, Party, Recipient, Removal};
use crate::sip::uri::{Scheme, Uri};

/// What came out of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sifted {
    /// Those to invite, in order.
    pub recipients: Vec<Recipient>,
    /// The others, each with its reason.
    pub removed: Vec<(Party, Removal)>,
    /// The distinct entries, the originator included: the history list is made of them.
    pub history: Vec<Recipient>,
}

/// Applies the settings to the names of one page.
pub struct Sieve<'a> {
    /// The operator's choices.
    pub settings: &'a Settings,
    /// Keys of the originator's identities.
    pub originator: &'a HashSet<String>,
    /// Keys nobody may send to.
    pub barred: &'a HashSet<String>,
    /// The group the page is sent to, whose own identity is no member.
    pub group: Option<&'a str>,
}

impl Sieve<'_> {
    /// IM-035: in this order the originator, duplicates, barred ones, what cannot be routed, groups; then what would turn
    /// us against somebody (UL-033, UL-034).
    pub fn list(&self, entries: &[Recipient]) -> Sifted {
        let mut out = Sifted::default();
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut targets: Vec<Option<Removal>> = Vec::new();
        for entry in entries {
            let (cleaned, why) = self.clean(entry);
            let key = cleaned.party.key.to_string();
            if let Some(&at) = seen.get(&key) {
                // UL-010, UL-012: one request, the strongest copy, the safer anonymity.
                let first: &mut Recipient = &mut out.history[at];
                first.copy = first.copy.max(entry.copy);
                first.anonymize |= entry.anonymize;
                if !self.originator.contains(&key) {
                    out.removed.push((cleaned.party, Removal::Duplicate));
                }
                continue;
            }
            seen.insert(key.clone(), out.history.len());
            out.history.push(cleaned);
            targets.push(self.verdict(&key, why));
        }
        for (entry, verdict) in out.history.iter().zip(targets) {
            match verdict {
                Some(why) => out.removed.push((entry.party.clone(), why)),
                None => out.recipients.push(entry.clone()),
            }
        }
        out
    }

    /// The members of a group: as a list in which all are addressed and none is shown to the others.
    pub fn members(&self, uris: &[String]) -> Sifted {
        let entries: Vec<Recipient> = uris
            .iter()
            .map(|uri| Recipient {
                party: Party { uri: uri.as_str().into(), key: uri.as_str().into(), display: None },
                copy: Copy::To,
                anonymize: false,
                headers: Vec::new(),
            })
            .collect();
        Sifted { history: Vec::new(), ..self.list(&entries) }
    }

    fn verdict(&self, key: &str, why: Option<Removal>) -> Option<Removal> {
        if self.originator.contains(key) {
            return Some(Removal::Originator); // UL-013
        }
        if self.barred.contains(key) {
            return Some(Removal::Barred);
        }
        why
    }

    /// The entry as it would be requested, and what speaks against it by its URI alone.
    fn clean(&self, entry: &Recipient) -> (Recipient, Option<Removal>) {
        let mut out = entry.clone();
        let Some(uri) = self.routable(&entry.party.uri) else {
            out.party.key = self.settings.key_of(&entry.party.uri).into();
            return (out, Some(Removal::Unroutable));
        };
        out.headers.extend(allowed_headers(&uri));
        let uri = uri.without_headers_and_method();
        out.party.uri = uri.as_str().into();
        out.party.key = self.settings.key(&uri).into();
        let why = self.judge(&uri, &out.party.key);
        (out, why)
    }

    /// UL-014: sip, sips and tel with a user or a number; a local number gets the operator's context.
    fn routable(&self, text: &str) -> Option<Uri> {
        let settings = self.settings;
        let uri = match text.split_once(':') {
            Some((scheme, rest)) if settings.map_im && scheme.eq_ignore_ascii_case("im") => {
                Uri::parse(&format!("sip:{rest}")).ok()?
            }
            _ => Uri::parse(text).ok()?,
        };
        match uri.scheme() {
            Scheme::Sip | Scheme::Sips => uri.user().is_some_and(|u| !u.is_empty()).then_some(uri),
            Scheme::Tel => {
                let global = uri.user().is_some_and(|number| number.starts_with('+'));
                if global || uri.param("phone-context").is_some() {
                    return Some(uri);
                }
                let context = settings.phone_context.as_deref()?;
                Some(uri.with_param("phone-context", context))
            }
            Scheme::Urn | Scheme::Other => None,
        }
    }

    fn judge(&self, uri: &Uri, key: &str) -> Option<Removal> {
        let settings = self.settings;
        // XD-026: the group itself is no member of itself.
        if self.group.is_some_and(|group| group == key) || settings.is_group(uri) {
            return Some(Removal::NestedGroup); // UL-016
        }
        // UL-034: our own list service would explode it again.
        if settings.factories.iter().any(|own| own.matches(uri)) {
            return Some(Removal::Refused);
        }
        if !uri.is_sip() {
            return None;
        }
        if is_own(uri, &settings.own_hosts) || is_private(uri.host(), settings.allow_loopback) {
            return Some(Removal::Refused); // UL-033
        }
        // UL-032, static consent: the closed network's domains.
        (!self.is_allowed_domain(uri)).then_some(Removal::Barred)
    }

    fn is_allowed_domain(&self, uri: &Uri) -> bool {
        let domains = &self.settings.allowed_domains;
        self.settings.consent != Consent::Static
            || domains.is_empty()
            || domains.iter().any(|domain| domain.eq_ignore_ascii_case(uri.host()))
    }

    /// The key of the profile that keeps somebody out whom another value would let in; the first of them.
    pub fn key_against(&self, removed: &[(Party, Removal)]) -> Option<&'static str> {
        removed.iter().find_map(|(party, why)| {
            let scheme = party.uri.split(':').next().unwrap_or_default().to_ascii_lowercase();
            match (why, scheme.as_str()) {
                (Removal::Unroutable, "im") => Some("ul.map_im"),
                (Removal::Unroutable, "tel") => Some("ul.phone_context"),
                (Removal::Refused, _) => {
                    let uri = Uri::parse(&party.uri).ok()?;
                    let kept_out = is_private(uri.host(), false) && !is_private(uri.host(), true);
                    kept_out.then_some("ul.allow_loopback_targets")
                }
                (Removal::Barred, _) => {
                    let uri = Uri::parse(&party.uri).ok()?;
                    (!self.is_allowed_domain(&uri)).then_some("ul.allowed_domains")
                }
                _ => None,
            }
        })
    }

    /// UL-033: distinct hosts beyond our own domains.
    pub fn foreign_hosts(&self, recipients: &[Recipient]) -> usize {
        let hosts: HashSet<String> = recipients
            .iter()
            .filter_map(|r| Uri::parse(&r.party.uri).ok())
            .filter(Uri::is_sip)
            .map(|uri| uri.host().to_ascii_lowercase())
            .filter(|host| !self.settings.home_domains.iter().any(|h| h.eq_ignore_ascii_case(host)))
            .collect();
        hosts.len()
    }
}

/// UL-015: what a list may ask to be put into the request.
fn allowed_headers(uri: &Uri) -> Vec<(String, String)> {
    const ALLOWED: [&str; 3] = ["Accept-Contact", "Priority", "Subject"];
    uri.headers()
        .filter_map(|(name, value)| {
            let name = super::path::decode(name).ok()?;
            let name = ALLOWED.iter().find(|known| known.eq_ignore_ascii_case(&name))?;
            let value = super::path::decode(value).ok()?;
            let clean = !value.is_empty() && !value.chars().any(char::is_control);
            clean.then(|| ((*name).to_owned(), value))
        })
        .collect()
}

/// Whether the URI leads back to this node: host, and port where ours is named.
fn is_own(uri: &Uri, own: &[String]) -> bool {
    own.iter().filter_map(|host| Uri::parse(&format!("sip:x@{host}")).ok()).any(|own| {
        own.host().eq_ignore_ascii_case(uri.host())
            && (own.port().is_none() || own.port().unwrap_or(5060) == uri.port().unwrap_or(5060))
    })
}

/// UL-033: an address literal, or a name that means something only here. Loopback passes where we are on loopback.
fn is_private(host: &str, allow_loopback: bool) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    if let Ok(address) = bare.parse::<std::net::IpAddr>() {
        return !(allow_loopback && address.is_loopback());
    }
    let name = bare.to_ascii_lowercase();
    // What resolvers take for an IPv4 address in another notation is one.
    let last = name.rsplit('.').next().unwrap_or("");
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return true;
    }
    if name == "localhost" || name.ends_with(".localhost") {
        return !allow_loopback;
    }
    ["local", "localdomain", "internal", "intranet", "lan", "home.arpa"]
        .iter()
        .any(|private| name == *private || name.ends_with(&format!(".{private}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uri: &str, copy: Copy, anonymize: bool) -> Recipient {
        Recipient {
            party: Party { uri: uri.into(), key: uri.into(), display: None },
            copy,
            anonymize,
            headers: Vec::new(),
        }
    }

    fn sift(settings: &Settings, uris: &[&str]) -> Sifted {
        let originator = ["sip:alice@home.example", "tel:+15550001"];
        let originator = originator.iter().map(|u| settings.key_of(u)).collect();
        let barred = HashSet::from([settings.key_of("sip:barred@home.example")]);
        let entries: Vec<Recipient> = uris.iter().map(|u| entry(u, Copy::To, false)).collect();
        Sieve { settings, originator: &originator, barred: &barred, group: None }.list(&entries)
    }

    fn settings() -> Settings {
        Settings {
            home_domains: vec!["home.example".into()],
            factories: vec![crate::sip::uri::Psi::parse("sip:pages@home.example").unwrap()],
            group_domains: vec!["groups.home.example".into()],
            own_hosts: vec!["as1.home.example".into(), "as2.home.example:5090".into()],
            ..Settings::default()
        }
    }

    fn verdict(settings: &Settings, uri: &str) -> Result<String, Removal> {
        let out = sift(settings, &[uri]);
        match (out.recipients.as_slice(), out.removed.as_slice()) {
            ([one], []) => Ok(one.party.uri.to_string()),
            ([], [(_, why)]) => Err(*why),
            other => panic!("{other:?}"),
        }
    }

    /// Proves IM-035, UL-013, UL-014.
    #[test]
    fn what_cannot_or_must_not_be_invited_is_taken_out() {
        let out =
            sift(&settings(), &["sip:alice@home.example", "sip:bob@home.example", "mailto:x@y"]);
        let uris: Vec<&str> = out.recipients.iter().map(|r| &*r.party.uri).collect();
        assert_eq!(uris, ["sip:bob@home.example"], "the rule's own example");
        assert_eq!(out.history.len(), 3, "the originator stays in the history");

        let cases: &[(&str, Result<&str, Removal>)] = &[
            ("sip:alice@HOME.example", Err(Removal::Originator)),
            ("tel:+1-555-0001", Err(Removal::Originator)),
            ("sip:+15550001@home.example;user=phone", Err(Removal::Originator)),
            ("sip:barred@home.example", Err(Removal::Barred)),
            ("im:bob@home.example", Err(Removal::Unroutable)),
            ("urn:service:sos", Err(Removal::Unroutable)),
            ("sip:home.example", Err(Removal::Unroutable)),
            ("bob", Err(Removal::Unroutable)),
            ("sip:bob@", Err(Removal::Unroutable)),
            ("tel:12345", Err(Removal::Unroutable)),
            ("tel:12345;phone-context=home.example", Ok("tel:12345;phone-context=home.example")),
            ("tel:+15551", Ok("tel:+15551")),
            ("sips:bob@home.example", Ok("sips:bob@home.example")),
            ("sip:team@groups.home.example", Err(Removal::NestedGroup)),
            ("sip:pages@home.example;transport=tcp", Err(Removal::Refused)),
        ];
        for (uri, want) in cases {
            let want = want.map(str::to_owned);
            assert_eq!(verdict(&settings(), uri), want, "{uri}");
        }
        let mapped =
            Settings { map_im: true, phone_context: Some("home.example".into()), ..settings() };
        assert_eq!(verdict(&mapped, "im:bob@home.example"), Ok("sip:bob@home.example".into()));
        assert_eq!(
            verdict(&mapped, "tel:12345"),
            Ok("tel:12345;phone-context=home.example".into())
        );
        let closed = Settings { allowed_domains: vec!["home.example".into()], ..settings() };
        assert_eq!(verdict(&closed, "sip:bob@other.example"), Err(Removal::Barred));
        assert_eq!(verdict(&closed, "sip:bob@Home.example"), Ok("sip:bob@Home.example".into()));
    }

    /// Proves UL-010, UL-011, UL-012, XD-025, XD-027.
    #[test]
    fn one_request_for_one_recipient() {
        let out = sift(
            &settings(),
            &[
                "sip:bob@H.example",
                "sip:bob@h.example",
                "sip:Bob@h.example",
                "sip:bob@h.example:5060",
                "sips:bob@h.example",
                "sip:%62ob@h.example",
                "sip:bob@h.example?Subject=x",
                "sip:bob@h.example;method=BYE",
                "tel:+1-555-1",
                "tel:+15551",
                "sip:+15551@home.example;user=phone",
            ],
        );
        let uris: Vec<&str> = out.recipients.iter().map(|r| &*r.party.uri).collect();
        assert_eq!(
            uris,
            [
                "sip:bob@H.example",
                "sip:Bob@h.example",
                "sip:bob@h.example:5060",
                "sips:bob@h.example",
                "tel:+1-555-1"
            ]
        );
        assert!(out.removed.iter().all(|(_, why)| *why == Removal::Duplicate));
        assert_eq!(out.removed.len(), 6);

        let plain = Settings { normalise_tel: false, ..settings() };
        let out = sift(&plain, &["tel:+15551", "sip:+15551@home.example;user=phone"]);
        assert_eq!(out.recipients.len(), 2);

        let settings = settings();
        let (originator, barred) = (HashSet::new(), HashSet::new());
        let sieve =
            Sieve { settings: &settings, originator: &originator, barred: &barred, group: None };
        let out = sieve.list(&[
            entry("sip:bob@h.example", Copy::Bcc, true),
            entry("sip:bob@H.example", Copy::To, false),
        ]);
        assert_eq!((out.recipients[0].copy, out.recipients[0].anonymize), (Copy::To, true));
        assert_eq!(out.history.len(), 1);
        let out = sieve.list(&[
            entry("sip:Bob@X.example", Copy::Cc, false),
            entry("sip:Bob@x.EXAMPLE", Copy::To, false),
            entry("sip:bob@x.example", Copy::Cc, false),
        ]);
        let rows: Vec<(&str, Copy)> =
            out.recipients.iter().map(|r| (&*r.party.uri, r.copy)).collect();
        assert_eq!(rows, [("sip:Bob@X.example", Copy::To), ("sip:bob@x.example", Copy::Cc)]);
    }

    /// Proves UL-015.
    #[test]
    fn a_list_cannot_shape_the_request() {
        let out = sift(&settings(), &["sip:bob@h.example;method=BYE?Route=%3Csip:x%3E&body=hi"]);
        assert_eq!(&*out.recipients[0].party.uri, "sip:bob@h.example");
        assert!(out.recipients[0].headers.is_empty());
        let out = sift(
            &settings(),
            &[
                "sip:bob@h.example;transport=tcp;maddr=10.0.0.1;ttl=5;user=phone;x=y?subject=a%20b&Priority=urgent&From=x&Subject=a%0d%0aVia:%20x&Privacy=id",
            ],
        );
        assert_eq!(&*out.recipients[0].party.uri, "sip:bob@h.example;transport=tcp;user=phone;x=y");
        assert_eq!(
            out.recipients[0].headers,
            [
                ("Subject".to_owned(), "a b".to_owned()),
                ("Priority".to_owned(), "urgent".to_owned())
            ]
        );
    }

    /// Proves UL-034.
    #[test]
    fn our_own_list_service_is_no_target() {
        for uri in ["sip:pages@home.example", "sips:pages@HOME.example:5060;x=y"] {
            assert_eq!(verdict(&settings(), uri), Err(Removal::Refused), "{uri}");
        }
    }

    #[test]
    fn nobody_aims_us_at_machines() {
        let refused = [
            "sip:a@192.0.2.1",
            "sip:a@[2001:db8::1]",
            "sip:a@127.0.0.1",
            "sip:a@10.0.0.1;transport=tcp",
            "sip:a@0x7f.1",
            "sip:a@2130706433",
            "sip:a@localhost",
            "sip:a@x.localhost",
            "sip:a@printer.local",
            "sip:a@db.internal",
            "sip:a@AS1.home.example:7777",
            "sip:a@as2.home.example:5090",
        ];
        for uri in refused {
            assert_eq!(verdict(&settings(), uri), Err(Removal::Refused), "{uri}");
        }
        assert!(
            verdict(&settings(), "sip:a@as2.home.example").is_ok(),
            "another port of that host"
        );
        let here = Settings {
            allow_loopback: true,
            own_hosts: vec!["127.0.0.1:5090".into()],
            ..settings()
        };
        assert!(verdict(&here, "sip:a@127.0.0.1:6000").is_ok());
        assert!(verdict(&here, "sip:a@[::1]").is_ok() && verdict(&here, "sip:a@localhost").is_ok());
        assert_eq!(verdict(&here, "sip:a@127.0.0.1:5090"), Err(Removal::Refused));
        assert_eq!(verdict(&here, "sip:a@192.0.2.1"), Err(Removal::Refused));
    }
}
