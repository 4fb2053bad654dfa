//! Which service is asked for: by feature tags, service identifiers and option tags.
//!
//! Start at [`mode`] and [`missing_options`]. Follows RFC 3840, RFC 3841, RFC 6050, TS 24.229 7.2A.8 and OMA IM.

use super::syntax::{Address, param, params, split, unquote};
use crate::isc::settings::DefaultMode;

/// Feature tag of a large message.
pub const LARGE: &str = "+g.oma.sip-im.large-message";
/// Feature tag of an IM session.
pub const SESSION: &str = "+g.oma.sip-im";
/// Feature tag that carries IMS communication service identifiers.
pub const ICSI_REF: &str = "+g.3gpp.icsi-ref";
/// Feature tag that carries IMS application references.
pub const IARI_REF: &str = "+g.3gpp.iari-ref";
/// Option tag of a recipient list in an INVITE.
pub const LIST_INVITE: &str = "recipient-list-invite";
/// Option tag of a recipient list in a MESSAGE.
pub const LIST_MESSAGE: &str = "recipient-list-message";
/// Option tag of a recipient list in a SUBSCRIBE.
pub const LIST_SUBSCRIBE: &str = "recipient-list-subscribe";

/// What an initial INVITE wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Large,
    Session,
    /// Both tags: the direction of the media decides.
    Either,
    Unknown,
}

/// The mode by the tags of Accept-Contact and Contact.
///
/// IM-025, ISC-034: the tags as header parameters; the configured service identifier counts as the large-message tag, as
/// a tag or asserted by the core. What a phone merely prefers counts for nothing (ISC-035).
pub fn mode<'a>(
    accept_contact: impl IntoIterator<Item = &'a str>,
    contact: Option<&'a str>,
    asserted: Option<&str>,
    icsi: &str,
) -> Mode {
    let named = |service: &str| !icsi.is_empty() && matches_icsi(service, icsi);
    let (mut large, mut session) = (asserted.is_some_and(named), false);
    let contact = contact.and_then(Address::parse).map_or("", |address| address.params);
    for text in accept_contact.into_iter().chain([contact]) {
        large |= has_tag(text, LARGE) || (!icsi.is_empty() && names_icsi(text, icsi));
        session |= has_tag(text, SESSION);
    }
    match (large, session) {
        (true, true) => Mode::Either,
        (true, false) => Mode::Large,
        (false, true) => Mode::Session,
        (false, false) => Mode::Unknown,
    }
}

/// Whether the request is a large message, given the direction of its media.
///
/// IM-025: with both tags a large message only sends; without a tag the profile decides.
pub fn is_large(mode: Mode, sendonly: bool, default: DefaultMode) -> bool {
    match mode {
        Mode::Large => true,
        Mode::Session => false,
        Mode::Either => sendonly,
        Mode::Unknown => default == DefaultMode::Large,
    }
}

fn has_tag(text: &str, tag: &str) -> bool {
    param(text, tag).is_some_and(|value| {
        value.is_none_or(|value| !unquote(value).eq_ignore_ascii_case("false"))
    })
}

/// The service our legs assert: the one the core asserted, else our own.
///
/// ISC-034, ISC-035 (RFC 6050 §5.1): one value, and none that contradicts the service the legs' own tags name.
pub fn asserted<'a>(received: Option<&'a str>, icsi: &'a str) -> Option<&'a str> {
    let own = Some(icsi).filter(|icsi| !icsi.is_empty());
    received.filter(|received| own.is_none_or(|own| matches_icsi(received, own))).or(own)
}

/// An Accept-Contact value without the tags of services and applications; `None` where nothing else is asked for.
///
/// Section L: for cores that do not know them.
pub fn without_references(value: &str) -> Option<String> {
    let is_reference =
        |name: &str| [ICSI_REF, IARI_REF].iter().any(|tag| tag.eq_ignore_ascii_case(name));
    if !params(value).any(|(name, _)| is_reference(name)) {
        return Some(value.to_owned());
    }
    let mut kept = Vec::new();
    let mut asks = false;
    for piece in split(value, b';').map(str::trim) {
        let name = piece.split('=').next().unwrap_or(piece).trim();
        if !is_reference(name) {
            asks |=
                !["*", "require", "explicit"].iter().any(|word| word.eq_ignore_ascii_case(name));
            kept.push(piece);
        }
    }
    asks.then(|| kept.join(";"))
}

/// Whether a value of the feature tag names this service or a subclass of it.
///
/// ISC-036 (TS 24.229 7.2A.8): percent-encoded or plain, separated by commas or semicolons.
pub fn names_icsi(text: &str, icsi: &str) -> bool {
    params(text)
        .filter(|(name, _)| name.eq_ignore_ascii_case(ICSI_REF))
        .filter_map(|(_, value)| value)
        .any(|value| {
            unquote(value).split([',', ';']).any(|one| matches_icsi(&decode(one.trim()), icsi))
        })
}

/// A service identifier matches itself and its dotted subclasses, case aside.
pub fn matches_icsi(received: &str, icsi: &str) -> bool {
    let received = received.to_ascii_lowercase();
    let icsi = icsi.to_ascii_lowercase();
    received
        .strip_prefix(icsi.as_str())
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The feature tag for a service identifier, percent-encoded.
pub fn icsi_param(icsi: &str) -> String {
    let mut out = format!("{ICSI_REF}=\"");
    for c in icsi.chars() {
        match c {
            ':' => out.push_str("%3A"),
            '"' | '\\' | '<' | '>' | ' ' | '%' => out.push_str(&format!("%{:02X}", u32::from(c))),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The option tags of Require that we do not serve, in order; `lists` are those of the recipient lists that are.
///
/// IM-026, ISC-063 (RFC 3261 §8.2.2.3).
pub fn missing_options<'a>(
    required: impl IntoIterator<Item = &'a str>,
    lists: &[&str],
    preconditions: bool,
) -> Vec<&'a str> {
    required
        .into_iter()
        .map(str::trim)
        .filter(|tag| {
            let tag = tag.to_ascii_lowercase();
            !(matches!(tag.as_str(), "" | "100rel" | "timer" | "pref")
                || lists.contains(&tag.as_str())
                || (tag == "precondition" && preconditions))
        })
        .collect()
}

/// The Accept-Contact values of a leg.
///
/// IM-041, IM-049 (RFC 3841 §9): ours first, the originator's others as separate values. ISC-037: they pass unchanged.
pub fn accept_contact<'a>(
    received: impl IntoIterator<Item = &'a str>,
    params: &str,
    icsi: &str,
) -> Vec<String> {
    let extra = params.trim_matches(|c: char| c == ';' || c.is_whitespace());
    let suffix = if extra.is_empty() { String::new() } else { format!(";{extra}") };
    let mut out = vec![format!("*;{LARGE}{suffix}")];
    if !icsi.is_empty() {
        out.push(format!("*;{}{suffix}", icsi_param(icsi)));
    }
    out.extend(
        received
            .into_iter()
            .map(str::trim)
            .filter(|value| {
                let known = has_tag(value, LARGE) || (!icsi.is_empty() && names_icsi(value, icsi));
                !value.is_empty() && !known
            })
            .map(str::to_owned),
    );
    out
}

/// The Contact of one page's dialogs.
///
/// IM-042 (RFC 3840, RFC 5366 §6): feature tags outside the brackets, never in the URI.
pub fn contact(uri: &str, isfocus: bool, icsi: &str) -> String {
    let mut out = format!("<{uri}>;{LARGE}");
    if !icsi.is_empty() {
        out.push(';');
        out.push_str(&icsi_param(icsi));
    }
    if isfocus {
        out.push_str(";isfocus");
    }
    out
}

/// The OMA release a product token names: `IM-client/OMA1.0 …` gives `1.0`.
///
/// IM-044.
pub fn oma_release(user_agent: &str) -> Option<&str> {
    user_agent.split_whitespace().find_map(|token| {
        let (product, release) = token.split_once("/OMA")?;
        ["IM-client", "IM-serv"]
            .iter()
            .any(|known| product.eq_ignore_ascii_case(known))
            .then_some(release)
    })
}

/// The elements of a comma-separated value.
pub fn elements(value: &str) -> impl Iterator<Item = &str> {
    split(value, b',').map(str::trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPM: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";

    /// Proves IM-025.
    #[test]
    fn the_tags_say_what_is_wanted() {
        for (accept, contact, want) in [
            (&["*;+g.oma.sip-im.large-message"][..], None, Mode::Large),
            (&[][..], Some("<sip:a@h>;+g.oma.sip-im.large-message"), Mode::Large),
            (&["*;+g.oma.sip-im;require"][..], None, Mode::Session),
            (&["*;+G.OMA.SIP-IM.LARGE-MESSAGE;require;explicit"][..], None, Mode::Large),
            (&["*;+g.oma.sip-im", "*;+g.oma.sip-im.large-message"][..], None, Mode::Either),
            (&["*;+g.oma.sip-im.large-message=\"FALSE\""][..], None, Mode::Unknown),
            (&["*;audio"][..], Some("<sip:a@h;+g.oma.sip-im>"), Mode::Unknown),
            (&[][..], None, Mode::Unknown),
        ] {
            assert_eq!(
                mode(accept.iter().copied(), contact, None, ""),
                want,
                "{accept:?} {contact:?}"
            );
        }
        for (mode, sendonly, default, large) in [
            (Mode::Large, false, DefaultMode::Reject, true),
            (Mode::Session, true, DefaultMode::Large, false),
            (Mode::Either, true, DefaultMode::Reject, true),
            (Mode::Either, false, DefaultMode::Reject, false),
            (Mode::Unknown, true, DefaultMode::Reject, false),
            (Mode::Unknown, false, DefaultMode::Large, true),
        ] {
            assert_eq!(is_large(mode, sendonly, default), large, "{mode:?} {sendonly} {default:?}");
        }
    }

    /// Proves ISC-036.
    #[test]
    fn service_identifiers_match_in_four_spellings() {
        for text in [
            "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"",
            "*;+g.3gpp.icsi-ref=\"urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg\"",
            "*;+G.3GPP.ICSI-REF=\"urn%3aurn-7%3a3gpp-service.ims.icsi.mmtel,URN%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.LARGEMSG\"",
            "*;+g.3gpp.icsi-ref=\"urn:x;urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg.sub\"",
        ] {
            assert!(names_icsi(text, CPM), "{text}");
            assert_eq!(mode([text], None, None, CPM), Mode::Large);
            assert_eq!(mode([text], None, None, ""), Mode::Unknown);
        }
        assert!(!matches_icsi("urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsgs", CPM));
        assert!(!names_icsi(
            "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"",
            CPM
        ));
    }

    /// Proves ISC-034, ISC-035.
    #[test]
    fn an_asserted_service_selects_and_is_asserted_again_unless_it_contradicts() {
        let sub = format!("{CPM}.sub");
        let other = "urn:urn-7:3gpp-service.ims.icsi.mmtel";
        for (received, icsi, want_mode, want) in [
            (None, "", Mode::Unknown, None),
            (None, CPM, Mode::Unknown, Some(CPM)),
            (Some(other), "", Mode::Unknown, Some(other)),
            (Some(CPM), "", Mode::Unknown, Some(CPM)),
            (Some(CPM), CPM, Mode::Large, Some(CPM)),
            (Some(sub.as_str()), CPM, Mode::Large, Some(sub.as_str())),
            (Some(other), CPM, Mode::Unknown, Some(CPM)),
        ] {
            assert_eq!(mode([], None, received, icsi), want_mode, "{received:?} {icsi}");
            assert_eq!(asserted(received, icsi), want, "{received:?} {icsi}");
        }
        assert_eq!(mode(["*;+g.oma.sip-im"], None, Some(CPM), CPM), Mode::Either);
    }

    /// Proves IM-018.
    #[test]
    fn a_core_without_service_tags_is_asked_for_everything_else() {
        for (value, want) in [
            ("*;audio;require", Some("*;audio;require")),
            ("*;+g.3gpp.iari-ref=\"x\"", None),
            ("*;+G.3GPP.ICSI-REF=\"a,b;c\";require;explicit", None),
            ("*; +g.3gpp.icsi-ref = \"a;b\" ;audio; explicit", Some("*;audio;explicit")),
            ("*;+g.3gpp.iari-refs=\"x\"", Some("*;+g.3gpp.iari-refs=\"x\"")),
        ] {
            assert_eq!(without_references(value).as_deref(), want, "{value}");
        }
    }

    /// Proves IM-026, ISC-063.
    #[test]
    fn only_option_tags_we_do_not_know_are_named() {
        for (required, list_service, preconditions, missing) in [
            (&["foo", "timer"][..], true, false, &["foo"][..]),
            (&["100rel", "Timer", "pref", "recipient-list-invite"][..], true, false, &[][..]),
            (&["recipient-list-invite"][..], false, false, &["recipient-list-invite"][..]),
            (&["precondition"][..], true, false, &["precondition"][..]),
            (&["precondition"][..], true, true, &[][..]),
            (&["b", "a"][..], true, false, &["b", "a"][..]),
        ] {
            assert_eq!(
                missing_options(
                    required.iter().copied(),
                    if list_service { &[LIST_INVITE] } else { &[] },
                    preconditions,
                ),
                missing
            );
        }
    }

    /// Proves IM-041, IM-042.
    #[test]
    fn tags_are_header_parameters_and_never_encoded() {
        assert_eq!(accept_contact([], "", ""), ["*;+g.oma.sip-im.large-message"]);
        assert_eq!(
            accept_contact(["*;+g.oma.sip-im.large-message", "*;audio"], "require;explicit", ""),
            ["*;+g.oma.sip-im.large-message;require;explicit", "*;audio"]
        );
        assert_eq!(
            contact("sip:lm-7f3a@im-as1.home1.example", true, ""),
            "<sip:lm-7f3a@im-as1.home1.example>;+g.oma.sip-im.large-message;isfocus"
        );
        assert_eq!(contact("sip:lm-1@h", false, ""), "<sip:lm-1@h>;+g.oma.sip-im.large-message");
    }

    /// Proves IM-049.
    #[test]
    fn a_configured_service_is_named_percent_encoded() {
        let tag = "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"";
        assert_eq!(icsi_param(CPM), tag);
        assert_eq!(accept_contact([], "", CPM)[1], format!("*;{tag}"));
        assert!(contact("sip:x@h", false, CPM).ends_with(tag));
    }

    #[test]
    fn the_release_is_read_from_either_product_token() {
        assert_eq!(oma_release("IM-client/OMA1.0 ExampleUE/1.2"), Some("1.0"));
        assert_eq!(oma_release("IM-serv/OMA2.0"), Some("2.0"));
        assert_eq!(oma_release("lab-ue/1"), None);
    }

    #[test]
    fn escapes_are_read_and_written_and_broken_ones_kept() {
        for (text, want) in [
            ("urn%3Ax", "urn:x"),
            ("%41%62", "Ab"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%\u{e4}", "%\u{e4}"),
            ("", ""),
        ] {
            assert_eq!(decode(text), want, "{text}");
        }
        assert_eq!(
            icsi_param("urn:a b\"\\<>%\n"),
            "+g.3gpp.icsi-ref=\"urn%3Aa%20b%22%5C%3C%3E%25\""
        );
    }

    /// Proves IM-041.
    #[test]
    fn what_was_asked_for_is_asked_for_once() {
        for (received, params, icsi, want) in [
            (
                &[" ", "*;audio ", ""][..],
                ";require;explicit;",
                "",
                &["*;+g.oma.sip-im.large-message;require;explicit", "*;audio"][..],
            ),
            (
                &["*;+G.OMA.sip-im.LARGE-message;require", "*;+g.oma.sip-im"][..],
                " ",
                "",
                &["*;+g.oma.sip-im.large-message", "*;+g.oma.sip-im"][..],
            ),
            (
                &["*;+g.3gpp.icsi-ref=\"urn%3Ax\""][..],
                "",
                "urn:x",
                &["*;+g.oma.sip-im.large-message", "*;+g.3gpp.icsi-ref=\"urn%3Ax\""][..],
            ),
            (
                &["*;+g.3gpp.icsi-ref=\"urn%3Ay\""][..],
                "explicit",
                "urn:x",
                &[
                    "*;+g.oma.sip-im.large-message;explicit",
                    "*;+g.3gpp.icsi-ref=\"urn%3Ax\";explicit",
                    "*;+g.3gpp.icsi-ref=\"urn%3Ay\"",
                ][..],
            ),
        ] {
            assert_eq!(accept_contact(received.iter().copied(), params, icsi), want);
        }
        let split: Vec<&str> = elements(" a, \"b,c\" <sip:x,y@z> ,, d").collect();
        assert_eq!(split, ["a", "\"b,c\" <sip:x,y@z>", "d"]);
    }

    #[test]
    fn releases_of_others_are_none() {
        for (token, want) in [
            ("Other/OMA1.0", None),
            ("IM-CLIENT/OMA2.0", Some("2.0")),
            ("x IM-serv/OMA1.0 y", Some("1.0")),
            ("IM-client/1.0", None),
            ("", None),
        ] {
            assert_eq!(oma_release(token), want, "{token}");
        }
        assert!(
            matches_icsi("URN:X", "urn:x")
                && !matches_icsi("urn:xy", "urn:x")
                && !matches_icsi("urn", "urn:x")
        );
    }
}
