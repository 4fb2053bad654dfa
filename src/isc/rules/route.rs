//! Where a request came through and where ours go.
//!
//! Start at [`Arrived::read`] and [`fanout`]. Route entries of others are opaque: they leave byte for byte as they came.
//! Follows TS 24.229 5.7.3, 5.7.5, 7.2A.6 and RFC 3261 §16.

use super::syntax::{Address, param};
use crate::isc::settings::{Core, CoreProfile, FanoutRoute, PsiRoute};
use crate::sip::uri::{Scheme, Uri};

/// The Route of an incoming request.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Arrived {
    /// The topmost entry named us and is taken off.
    pub ours: bool,
    /// Our entry was the originating one (`orig` as parameter or user part).
    pub our_orig: bool,
    /// What is left, byte for byte, the S-CSCF's entry with the original dialog identifier first.
    pub rest: Vec<String>,
}

impl Arrived {
    /// Takes our own entry off the top.
    ///
    /// ISC-002, ISC-003, ISC-004 (RFC 5502 §4.2): `is_ours` compares host and port with our names only.
    pub fn read<'a>(
        entries: impl IntoIterator<Item = &'a str>,
        is_ours: impl Fn(&str) -> bool,
    ) -> Self {
        let mut arrived = Self::default();
        for (at, entry) in entries.into_iter().enumerate() {
            let uri = Address::parse(entry).map_or("", |address| address.uri);
            if at == 0 && is_ours(uri) {
                arrived.ours = true;
                arrived.our_orig = is_originating(uri);
            } else {
                arrived.rest.push(entry.trim().to_owned());
            }
        }
        arrived
    }

    /// Whether the Route says that the originating case is asked for (ISC-020).
    pub fn is_originating(&self) -> bool {
        self.our_orig
            || self
                .rest
                .first()
                .and_then(|entry| Address::parse(entry))
                .is_some_and(|address| is_originating(address.uri))
    }

    /// The S-CSCF that sent the request, without what marks this dialog.
    ///
    /// ISC-058: scheme, host, port and transport of the entry; the user part and all other parameters may be the ODI.
    pub fn scscf(&self) -> Option<String> {
        let uri = Address::parse(self.rest.first()?)?.uri;
        let (scheme, rest) = uri.split_once(':')?;
        let (address, params) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        let host = address.rsplit_once('@').map_or(address, |(_, host)| host);
        let transport = param(params, "transport").flatten();
        let found = match transport {
            Some(transport) => format!("{scheme}:{host};transport={transport}"),
            None => format!("{scheme}:{host}"),
        };
        Uri::parse(&found).is_ok_and(|uri| uri.is_sip()).then_some(found)
    }
}

fn is_originating(uri: &str) -> bool {
    let (address, params) = uri.split_at(uri.find(';').unwrap_or(uri.len()));
    param(params, "orig").is_some()
        || address
            .split_once(':')
            .and_then(|(_, rest)| rest.split_once('@'))
            .is_some_and(|(user, _)| user.eq_ignore_ascii_case("orig"))
}

/// A Route entry for `uri`, loose (ISC-011), with `orig` where the originating case is wanted.
///
/// ISC-008 (TS 24.229 5.4.3.1): the URI's own parameters stay.
pub fn entry(uri: &str, orig: bool) -> String {
    let uri = uri.trim().trim_start_matches('<').trim_end_matches('>');
    let params = uri.find(';').map_or("", |at| &uri[at..]);
    let mut out = format!("<{uri}");
    if param(params, "lr").is_none() {
        out.push_str(";lr");
    }
    if orig && param(params, "orig").is_none() {
        out.push_str(";orig");
    }
    out.push('>');
    out
}

/// What decides the Route of a leg.
#[derive(Debug, Clone, Copy)]
pub struct Fanout<'a> {
    pub profile: CoreProfile,
    pub route: FanoutRoute,
    pub psi_route: PsiRoute,
    pub core: &'a Core,
    pub arrived: &'a Arrived,
    /// The originator's transaction has no final answer from us yet, so its ODI lives (ISC-006).
    pub odi_valid: bool,
    /// The Route entry of the originator's request belongs to the originator's own S-CSCF.
    pub same_user: bool,
    /// The S-CSCF the originator is registered at, from its third-party REGISTER.
    pub stored: Option<&'a str>,
    /// The S-CSCF the HSS names for the originator, or for the PSI where legs are the PSI's.
    pub asked: Option<&'a str>,
}

/// The way a leg goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub route: Vec<String>,
    pub kind: Kind,
}

/// In whose name the leg goes into the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A new originating request of the originator.
    User,
    /// The originator's own request goes on: received icid, received ODI.
    Dialog,
    /// A new originating request of the PSI.
    Service,
    /// No originating services.
    Plain,
}

/// The Route of one leg.
///
/// IM-010, ISC-012: four settings give four forms; a dead ODI falls back to a new originating request (ISC-006).
pub fn fanout(how: Fanout<'_>) -> Way {
    if !how.profile.is_ims() {
        let proxy = &how.core.outbound_proxy;
        let route = if proxy.is_empty() { Vec::new() } else { vec![entry(proxy, false)] };
        return Way { route, kind: Kind::Plain };
    }
    match how.route {
        FanoutRoute::Odi if how.odi_valid && !how.arrived.rest.is_empty() => {
            Way { route: how.arrived.rest.clone(), kind: Kind::Dialog }
        }
        FanoutRoute::OrigScscf | FanoutRoute::Odi => {
            Way { route: one(user_scscf(how), true), kind: Kind::User }
        }
        FanoutRoute::Psi if how.psi_route == PsiRoute::Scscf => {
            let scscf = how.asked.unwrap_or(&how.core.scscf);
            Way { route: one(scscf.to_owned(), true), kind: Kind::Service }
        }
        // ISC-010: no originating services for the PSI.
        FanoutRoute::Psi => Way { route: one(icscf(how.core), false), kind: Kind::Service },
        FanoutRoute::TermIcscf => Way { route: one(icscf(how.core), false), kind: Kind::Plain },
    }
}

/// ISC-058, ISC-009: the S-CSCF of the registration, the Route entry of the current request where it is the same user's,
/// the one the HSS names, the configured S-CSCF, the I-CSCF.
fn user_scscf(how: Fanout<'_>) -> String {
    if let Some(stored) = how.stored {
        return stored.to_owned();
    }
    let here = if how.same_user { how.arrived.scscf() } else { None };
    here.or_else(|| how.asked.map(str::to_owned)).unwrap_or_else(|| {
        if how.core.scscf.is_empty() { how.core.icscf.clone() } else { how.core.scscf.clone() }
    })
}

/// Whether the route of legs would be another one if the HSS named an S-CSCF, and if so for whom it would have to.
///
/// ISC-058: only where neither the registration nor the received Route gives one.
pub fn lacks_scscf(how: Fanout<'_>) -> Option<Kind> {
    match how.route {
        _ if !how.profile.is_ims() => None,
        FanoutRoute::OrigScscf | FanoutRoute::Odi => {
            let here = how.same_user && how.arrived.scscf().is_some();
            (how.stored.is_none() && !here).then_some(Kind::User)
        }
        FanoutRoute::Psi if how.psi_route == PsiRoute::Scscf => Some(Kind::Service),
        FanoutRoute::Psi | FanoutRoute::TermIcscf => None,
    }
}

/// The Request-URI of a leg that goes `route`: the recipient's, but a number that nobody on the way could look up becomes
/// a user of `home` (RFC 3261 §19.1.6).
pub fn request_uri(uri: &str, route: &[String], home: &str) -> String {
    match Uri::parse(uri) {
        Ok(number) if route.is_empty() && !home.is_empty() && number.scheme() == Scheme::Tel => {
            let number = &uri[number.scheme_str().len() + 1..];
            format!("sip:{number}@{home};user=phone")
        }
        _ => uri.to_owned(),
    }
}

fn icscf(core: &Core) -> String {
    if core.icscf.is_empty() { core.scscf.clone() } else { core.icscf.clone() }
}

fn one(uri: String, orig: bool) -> Vec<String> {
    if uri.is_empty() { Vec::new() } else { vec![entry(&uri, orig)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves ISC-058.
    #[test]
    fn the_hss_is_asked_last_and_before_what_is_configured() {
        let (core, here, nothing) = (core(), arrived(&[KAMAILIO]), Arrived::default());
        let base = |arrived| how(&core, arrived, FanoutRoute::OrigScscf);
        let stored = Some("sip:reg.home1.example");
        let asked = Some("sip:hss.home1.example:5054");
        let cases: &[(Fanout<'_>, &str, Option<Kind>)] = &[
            (Fanout { stored, asked, ..base(&here) }, "<sip:reg.home1.example;lr;orig>", None),
            (Fanout { asked, ..base(&here) }, "<sip:scscf.ims.test:5060;lr;orig>", None),
            (
                Fanout { asked, same_user: false, ..base(&here) },
                "<sip:hss.home1.example:5054;lr;orig>",
                Some(Kind::User),
            ),
            (
                Fanout { asked, ..base(&nothing) },
                "<sip:hss.home1.example:5054;lr;orig>",
                Some(Kind::User),
            ),
            (base(&nothing), "<sip:default-scscf.home1.example;lr;orig>", Some(Kind::User)),
            (
                Fanout { asked, psi_route: PsiRoute::Scscf, ..how(&core, &here, FanoutRoute::Psi) },
                "<sip:hss.home1.example:5054;lr;orig>",
                Some(Kind::Service),
            ),
            (
                Fanout { asked, ..how(&core, &here, FanoutRoute::Psi) },
                "<sip:icscf1.home1.example;lr>",
                None,
            ),
        ];
        for (how, route, lacks) in cases {
            assert_eq!(fanout(*how).route, [*route]);
            assert_eq!(lacks_scscf(*how), *lacks, "{route}");
        }
        let icscf = Core { scscf: String::new(), ..core.clone() };
        let how = Fanout { core: &icscf, ..base(&nothing) };
        assert_eq!(fanout(how).route, ["<sip:icscf1.home1.example;lr;orig>"]);
    }

    const KAMAILIO: &str =
        "<sip:iscmark@scscf.ims.test:5060;lr;s=2;h=1;d=0;a=7369703a616c69636540696d732e74657374>";

    fn arrived(entries: &[&'static str]) -> Arrived {
        Arrived::read(entries.iter().copied(), |uri| uri.starts_with("sip:im-as1.home1.example"))
    }

    fn core() -> Core {
        Core {
            scscf: "sip:default-scscf.home1.example".to_owned(),
            icscf: "sip:icscf1.home1.example".to_owned(),
            outbound_proxy: "sip:proxy.example:5070".to_owned(),
            ..Core::default()
        }
    }

    fn how<'a>(core: &'a Core, arrived: &'a Arrived, route: FanoutRoute) -> Fanout<'a> {
        Fanout {
            profile: CoreProfile::Gpp,
            route,
            psi_route: PsiRoute::Icscf,
            core,
            arrived,
            odi_valid: true,
            same_user: true,
            stored: None,
            asked: None,
        }
    }

    /// Proves ISC-002, ISC-003, ISC-004.
    #[test]
    fn our_entry_is_taken_off_and_the_rest_stays_as_it_came() {
        let both = arrived(&["<sip:im-as1.home1.example;lr;x=1>", KAMAILIO]);
        assert!(both.ours);
        assert_eq!(both.rest, [KAMAILIO]);
        let mark = "<sip:iscmark@scscf:6060;lr;s=1;h=0;d=0;a=7369>";
        assert_eq!(arrived(&["<sip:im-as1.home1.example:5060;lr>", mark]).rest, [mark]);
        let direct = arrived(&["<sip:im-as1.home1.example>"]);
        assert!(direct.ours && direct.rest.is_empty(), "an I-CSCF sends our entry without lr");
        let none = arrived(&[]);
        assert!(!none.ours && none.rest.is_empty());
        let foreign = arrived(&["<sip:other.example;lr>"]);
        assert!(!foreign.ours && foreign.rest.len() == 1);
    }

    /// Proves ISC-020.
    #[test]
    fn the_case_is_read_from_the_route_entry() {
        let orig = "<sip:odi-8f2c51@scscf1.home1.example;lr;orig>";
        assert!(arrived(&["<sip:im-as1.home1.example;lr>", orig]).is_originating());
        assert!(arrived(&["<sip:im-as1.home1.example;lr;orig>"]).is_originating());
        assert!(arrived(&["<sip:orig@im-as1.home1.example;lr>"]).is_originating());
        assert!(!arrived(&["<sip:im-as1.home1.example;lr>", KAMAILIO]).is_originating());
    }

    /// Proves ISC-008, ISC-011, ISC-058.
    #[test]
    fn a_new_request_goes_through_the_users_s_cscf_with_orig_inside_the_brackets() {
        for (entries, want) in [
            (
                &["<sip:im-as1.home1.example;lr>", "<sip:odi-8f2c51@scscf1.home1.example;lr;orig>"]
                    [..],
                "<sip:scscf1.home1.example;lr;orig>",
            ),
            (&["<sip:im-as1.home1.example;lr>", KAMAILIO][..], "<sip:scscf.ims.test:5060;lr;orig>"),
            (
                &[
                    "<sip:im-as1.home1.example;lr>",
                    "<sip:x@[2001:db8::1]:5060;transport=tcp;lr;odi=7>",
                ][..],
                "<sip:[2001:db8::1]:5060;transport=tcp;lr;orig>",
            ),
            (&["<sip:im-as1.home1.example;lr>"][..], "<sip:default-scscf.home1.example;lr;orig>"),
        ] {
            let (core, arrived) = (core(), arrived(entries));
            let way = fanout(how(&core, &arrived, FanoutRoute::OrigScscf));
            assert_eq!(way, Way { route: vec![want.to_owned()], kind: Kind::User });
        }
        assert_eq!(
            entry("sip:s.example;transport=tcp", true),
            "<sip:s.example;transport=tcp;lr;orig>"
        );
    }

    /// Proves ISC-009, ISC-058.
    #[test]
    fn without_a_known_s_cscf_the_i_cscf_is_asked_with_orig() {
        let core = Core { scscf: String::new(), ..core() };
        let arrived = arrived(&[]);
        let way = fanout(how(&core, &arrived, FanoutRoute::OrigScscf));
        assert_eq!(way.route, ["<sip:icscf1.home1.example;lr;orig>"]);
    }

    /// Proves ISC-012, ISC-007, ISC-010.
    #[test]
    fn four_settings_give_four_forms() {
        let core = core();
        let odi = "<sip:odi-8f2c51@scscf1.home1.example;lr;orig>";
        let arrived = arrived(&["<sip:im-as1.home1.example;lr>", odi]);
        for (route, want, kind) in [
            (FanoutRoute::OrigScscf, "<sip:scscf1.home1.example;lr;orig>", Kind::User),
            (FanoutRoute::Odi, odi, Kind::Dialog),
            (FanoutRoute::Psi, "<sip:icscf1.home1.example;lr>", Kind::Service),
            (FanoutRoute::TermIcscf, "<sip:icscf1.home1.example;lr>", Kind::Plain),
        ] {
            assert_eq!(
                fanout(how(&core, &arrived, route)),
                Way { route: vec![want.to_owned()], kind },
                "{route:?}"
            );
        }
        let psi = Fanout { psi_route: PsiRoute::Scscf, ..how(&core, &arrived, FanoutRoute::Psi) };
        assert_eq!(fanout(psi).route, ["<sip:default-scscf.home1.example;lr;orig>"]);
    }

    /// Proves ISC-006.
    #[test]
    fn a_dialog_identifier_is_not_used_after_our_final_answer() {
        let core = core();
        let arrived = arrived(&["<sip:im-as1.home1.example;lr>", KAMAILIO]);
        let late = Fanout { odi_valid: false, ..how(&core, &arrived, FanoutRoute::Odi) };
        assert_eq!(
            fanout(late),
            Way { route: vec!["<sip:scscf.ims.test:5060;lr;orig>".to_owned()], kind: Kind::User }
        );
    }

    #[test]
    fn a_number_without_anybody_to_ask_becomes_a_user_at_home() {
        let route = ["<sip:scscf1.home1.example;lr;orig>".to_owned()];
        for (uri, route, home, want) in [
            ("tel:+15551230002", &route[..], "home1.example", "tel:+15551230002"),
            (
                "tel:+15551230002",
                &[][..],
                "home1.example",
                "sip:+15551230002@home1.example;user=phone",
            ),
            (
                "TEL:7042;phone-context=+1-555",
                &[][..],
                "home1.example",
                "sip:7042;phone-context=+1-555@home1.example;user=phone",
            ),
            ("tel:+15551230002", &[][..], "", "tel:+15551230002"),
            ("sip:bob@home1.example", &[][..], "home1.example", "sip:bob@home1.example"),
            ("nonsense", &[][..], "home1.example", "nonsense"),
        ] {
            assert_eq!(request_uri(uri, route, home), want, "{uri}");
        }
    }

    /// Proves IM-010.
    #[test]
    fn a_plain_core_gets_its_proxy_or_nothing() {
        let arrived = arrived(&["<sip:im-as1.home1.example;lr>", KAMAILIO]);
        let with = core();
        let plain =
            Fanout { profile: CoreProfile::SipIp, ..how(&with, &arrived, FanoutRoute::OrigScscf) };
        assert_eq!(fanout(plain).route, ["<sip:proxy.example:5070;lr>"]);
        let without = Core { outbound_proxy: String::new(), ..core() };
        let direct = Fanout { core: &without, ..plain };
        assert!(fanout(direct).route.is_empty());
    }

    /// Proves ISC-008, ISC-011.
    #[test]
    fn an_entry_is_loose_and_says_orig_once() {
        for (uri, orig, want) in [
            ("sip:s.example", false, "<sip:s.example;lr>"),
            ("sip:s.example", true, "<sip:s.example;lr;orig>"),
            (" <sip:s.example;lr> ", true, "<sip:s.example;lr;orig>"),
            ("sip:s.example;orig;LR", true, "<sip:s.example;orig;LR>"),
            ("sip:s.example;orig", false, "<sip:s.example;orig;lr>"),
            ("sip:lr@s.example;lrx=1;origin", true, "<sip:lr@s.example;lrx=1;origin;lr;orig>"),
        ] {
            assert_eq!(entry(uri, orig), want, "{uri} {orig}");
        }
    }

    /// Proves ISC-020, ISC-058.
    #[test]
    fn odd_entries_say_no_more_than_they_do() {
        let us = "<sip:im-as1.home1.example;lr>";
        for (entry, originating, scscf) in [
            ("<sip:s.example;lr>", false, Some("sip:s.example")),
            ("<sip:s.example;lr;ORIG>", true, Some("sip:s.example")),
            ("<sip:s.example;lr;origin=1>", false, Some("sip:s.example")),
            ("<sip:orig@s.example;lr>", true, Some("sip:s.example")),
            ("<sip:original@s.example;lr>", false, Some("sip:s.example")),
            (
                "<sip:x@s.example:5061;TRANSPORT=tls;a=b>",
                false,
                Some("sip:s.example:5061;transport=tls"),
            ),
            ("<sips:s.example;lr>", false, Some("sips:s.example")),
            ("<tel:+1>", false, None),
            ("<sip:>", false, None),
            ("nonsense", false, None),
        ] {
            let arrived = arrived(&[us, entry]);
            assert!(arrived.ours && !arrived.our_orig);
            assert_eq!(arrived.is_originating(), originating, "{entry}");
            assert_eq!(arrived.scscf().as_deref(), scscf, "{entry}");
            assert_eq!(arrived.rest, [entry]);
        }
        // Our own entry once: a second one is somebody else's business.
        let twice = arrived(&[us, us]);
        assert_eq!(twice.rest, [us]);
        // The S-CSCF of another user is not the sender's.
        let (core, arrived) = (core(), arrived(&[us, "<sip:odi@scscf1.home1.example;lr>"]));
        let other = Fanout { same_user: false, ..how(&core, &arrived, FanoutRoute::OrigScscf) };
        assert_eq!(fanout(other).route, ["<sip:default-scscf.home1.example;lr;orig>"]);
    }
}
