//! Whom a request is served for, and in which case.
//!
//! Start at [`decide`]. Follows RFC 5502, RFC 8498 and TS 24.229 5.7.1.3A. Knows no message: it is given header values.

use super::syntax::Address;
use crate::isc::settings::{ManyServedUsers, SendPsu};
use crate::sip::uri::Uri;

/// On which side of the call the S-CSCF asks us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Originating,
    Terminating,
    /// Originating services of a user who diverted the call (RFC 8498).
    OriginatingAfterDiversion,
}

/// A P-Served-User value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedUser {
    pub uri: String,
    /// As far as the header tells it.
    pub case: Option<Case>,
    /// `regstate`; `None` if it does not stand there.
    pub registered: Option<bool>,
}

/// The header breaks its own rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadServedUser;

/// Reads the P-Served-User values of a request from a trusted peer.
///
/// ISC-019 (RFC 5502 §6): one value, blanks around `;` allowed, unknown parameters harmless.
pub fn read<'a>(
    values: impl IntoIterator<Item = &'a str>,
    many: ManyServedUsers,
) -> Result<Option<ServedUser>, BadServedUser> {
    let mut values = values.into_iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() && many == ManyServedUsers::Reject {
        return Err(BadServedUser);
    }
    let address = Address::parse(first).ok_or(BadServedUser)?;
    Uri::parse(address.uri).map_err(|_| BadServedUser)?;
    let case = match address.param("sescase").flatten() {
        _ if address.param("orig-cdiv").is_some() => Some(Case::OriginatingAfterDiversion),
        Some(case) if case.eq_ignore_ascii_case("orig") => Some(Case::Originating),
        Some(case) if case.eq_ignore_ascii_case("term") => Some(Case::Terminating),
        _ => None,
    };
    let registered = address.param("regstate").flatten().and_then(|state| match state {
        _ if state.eq_ignore_ascii_case("reg") => Some(true),
        _ if state.eq_ignore_ascii_case("unreg") => Some(false),
        _ => None,
    });
    Ok(Some(ServedUser { uri: address.uri.to_owned(), case, registered }))
}

/// What stands in for P-Served-User where it is missing.
#[derive(Debug, Clone, Copy)]
pub struct Clues<'a> {
    /// The S-CSCF's Route entry carries `orig`, or our own entry is the originating one.
    pub originating: bool,
    /// First asserted identity, sip form preferred.
    pub asserted: Option<&'a str>,
    pub request_uri: &'a str,
}

/// The served user and the case of a request.
///
/// ISC-020 (RFC 5502 §4.1): the header where there is one; else the case from the Route, and from the case the user.
pub fn decide(header: Option<&ServedUser>, clues: Clues<'_>) -> (Option<String>, Case) {
    let guessed = if clues.originating { Case::Originating } else { Case::Terminating };
    let case = header.and_then(|user| user.case).unwrap_or(guessed);
    let user = match (header, case) {
        (Some(user), _) => Some(user.uri.clone()),
        (None, Case::Terminating) => Some(clues.request_uri.to_owned()),
        (None, _) => clues.asserted.map(str::to_owned),
    };
    (user, case)
}

/// Whether our request names the served user, given the identities it asserts.
///
/// ISC-022 (RFC 5502 §7.1).
pub fn is_sent(when: SendPsu, user: &str, asserted: &[&str]) -> bool {
    let same = |identity: &str| match (Uri::parse(identity), Uri::parse(user)) {
        (Ok(identity), Ok(user)) => identity.equals(&user),
        _ => false,
    };
    match when {
        SendPsu::Always => true,
        SendPsu::IfDiffers => !asserted.iter().any(|identity| same(identity)),
        SendPsu::Never => false,
    }
}

/// The value we send when we act for a user.
///
/// ISC-022 (RFC 5502 §7.1).
pub fn write(uri: &str, registered: bool) -> String {
    let state = if registered { "reg" } else { "unreg" };
    format!("<{uri}>;sescase=orig;regstate={state}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uri: &str, case: Option<Case>, registered: Option<bool>) -> ServedUser {
        ServedUser { uri: uri.to_owned(), case, registered }
    }

    /// Proves ISC-019.
    #[test]
    fn p_served_user_is_read_in_its_forms() {
        let one = |value| read([value], ManyServedUsers::Reject);
        assert_eq!(
            one("<sip:u@h>; sescase=term; regstate=unreg"),
            Ok(Some(user("sip:u@h", Some(Case::Terminating), Some(false))))
        );
        assert_eq!(
            one("<sip:u@h>;orig-cdiv"),
            Ok(Some(user("sip:u@h", Some(Case::OriginatingAfterDiversion), None)))
        );
        assert_eq!(
            one("<sip:u@h>;sescase=orig;regstate=reg;x-new=1"),
            Ok(Some(user("sip:u@h", Some(Case::Originating), Some(true))))
        );
        assert_eq!(
            one("sip:u@h;sescase=orig"),
            Ok(Some(user("sip:u@h", Some(Case::Originating), None)))
        );
        assert_eq!(one("nobody"), Err(BadServedUser));
        assert_eq!(read([], ManyServedUsers::Reject), Ok(None));
    }

    /// Proves ISC-019.
    #[test]
    fn two_values_are_refused_unless_the_topmost_may_count() {
        let two = ["<sip:bob@h>;sescase=term", "<sip:alice@h>;sescase=orig"];
        assert_eq!(read(two, ManyServedUsers::Reject), Err(BadServedUser));
        assert_eq!(
            read(two, ManyServedUsers::First),
            Ok(Some(user("sip:bob@h", Some(Case::Terminating), None)))
        );
    }

    /// Proves ISC-020.
    #[test]
    fn the_served_user_is_found_with_and_without_the_header() {
        let header = user("sip:served@h", Some(Case::Originating), Some(true));
        let clues = |originating| Clues {
            originating,
            asserted: Some("sip:alice@h"),
            request_uri: "sip:bob@h",
        };
        for (header, originating, who, case) in [
            (Some(&header), false, "sip:served@h", Case::Originating),
            (Some(&header), true, "sip:served@h", Case::Originating),
            (None, true, "sip:alice@h", Case::Originating),
            (None, false, "sip:bob@h", Case::Terminating),
        ] {
            assert_eq!(decide(header, clues(originating)), (Some(who.to_owned()), case));
        }
    }

    /// Proves ISC-022.
    #[test]
    fn the_served_user_is_named_when_the_profile_says_so() {
        let both = ["sip:alice@home1.example", "tel:+15551230001"];
        for (when, user, asserted, sent) in [
            (SendPsu::Always, "sip:alice@home1.example", &both[..], true),
            (SendPsu::Never, "sip:other@home1.example", &both[..], false),
            (SendPsu::IfDiffers, "sip:alice@HOME1.example", &both[..], false),
            (SendPsu::IfDiffers, "tel:+1-555-123-0001", &both[..], false),
            (SendPsu::IfDiffers, "sip:Alice@home1.example", &both[..], true),
            (
                SendPsu::IfDiffers,
                "sip:alice@home1.example",
                &["sip:psi@im.home1.example"][..],
                true,
            ),
            (SendPsu::IfDiffers, "nonsense", &["nonsense"][..], true),
            (SendPsu::IfDiffers, "sip:alice@home1.example", &[][..], true),
        ] {
            assert_eq!(is_sent(when, user, asserted), sent, "{when:?} {user} {asserted:?}");
        }
    }

    #[test]
    fn our_own_value_names_user_case_and_state() {
        assert_eq!(write("sip:a@h", true), "<sip:a@h>;sescase=orig;regstate=reg");
        assert_eq!(write("sip:a@h", false), "<sip:a@h>;sescase=orig;regstate=unreg");
    }

    /// Proves ISC-019.
    #[test]
    fn parameters_nobody_knows_say_nothing() {
        let one = |value| read([value], ManyServedUsers::Reject).map(Option::unwrap);
        for (value, case, registered) in [
            ("<sip:u@h>", None, None),
            ("<sip:u@h>;sescase", None, None),
            ("<sip:u@h>;sescase=other;regstate=maybe", None, None),
            ("<sip:u@h>;SESCASE=ORIG;RegState=UNREG", Some(Case::Originating), Some(false)),
            ("<sip:u@h>;regstate=REG", None, Some(true)),
            ("<sip:u@h;sescase=orig>", None, None),
            ("<sip:u@h>;sescase=term;orig-cdiv", Some(Case::OriginatingAfterDiversion), None),
            ("\"U\" <sip:u@h> ; sescase = term", Some(Case::Terminating), None),
        ] {
            let user = one(value).expect("a user");
            assert_eq!((user.case, user.registered), (case, registered), "{value}");
        }
        assert_eq!(one("<tel:+15550001>;sescase=orig").expect("a user").uri, "tel:+15550001");
        for value in ["<sip:a b@h>", "<>", "<sip:u@h", "<sip:@h>", ";sescase=orig", "\u{0}"] {
            assert_eq!(one(value), Err(BadServedUser), "{value:?}");
        }
        let none: [&str; 0] = [];
        assert_eq!(read(none, ManyServedUsers::First), Ok(None));
    }

    /// Proves ISC-020.
    #[test]
    fn what_the_header_leaves_open_the_route_says() {
        let header = user("sip:served@h", None, None);
        let clues =
            |originating, asserted| Clues { originating, asserted, request_uri: "sip:bob@h" };
        for (header, originating, asserted, want) in [
            (Some(&header), true, None, (Some("sip:served@h"), Case::Originating)),
            (Some(&header), false, None, (Some("sip:served@h"), Case::Terminating)),
            (None, true, None, (None, Case::Originating)),
            (None, false, None, (Some("sip:bob@h"), Case::Terminating)),
        ] {
            let (who, case) = decide(header, clues(originating, asserted));
            assert_eq!((who.as_deref(), case), want);
        }
        let diverted = user("sip:d@h", Some(Case::OriginatingAfterDiversion), None);
        let found = decide(Some(&diverted), clues(false, Some("sip:a@h")));
        assert_eq!(found, (Some("sip:d@h".to_owned()), Case::OriginatingAfterDiversion));
    }
}
