//! Who asks, and under which name a leg leaves.
//!
//! Start at [`asserted`] and [`from_header`]. Follows RFC 3323, RFC 3325, RFC 3892 and the OMA rules on INVITEs.

use super::syntax::quote;
use crate::sip::message::NameAddr;
use crate::sip::uri::Uri;

/// What stands in place of a name nobody may see (RFC 3323 §4.1).
pub const ANONYMOUS: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";

/// The same in an address that has no display name.
pub const ANONYMOUS_URI: &str = "sip:anonymous@anonymous.invalid";

/// One identity the core vouches for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The element as received.
    pub value: String,
    pub uri: String,
    /// Display name without quotes.
    pub display: Option<String>,
}

impl Identity {
    /// `None` for what is no address: it goes out again in our own From.
    fn read(value: &str) -> Option<Self> {
        let address = NameAddr::parse(value.as_bytes())?;
        Uri::parse(address.uri).ok()?;
        Some(Self {
            value: value.trim().to_owned(),
            uri: address.uri.to_owned(),
            display: address.display.map(std::borrow::Cow::into_owned),
        })
    }

    fn scheme(&self) -> &str {
        self.uri.split_once(':').map_or("", |(scheme, _)| scheme)
    }

    fn is_sip(&self) -> bool {
        ["sip", "sips"].iter().any(|scheme| self.scheme().eq_ignore_ascii_case(scheme))
    }

    fn is_tel(&self) -> bool {
        self.scheme().eq_ignore_ascii_case("tel")
    }
}

/// The asserted identities of a request, the sip form first where there is one.
///
/// ISC-018, IM-039 (RFC 3325 §9.1): at most one sip or sips and one tel; of more the first of each kind.
pub fn asserted<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Identity> {
    let (mut sip, mut tel) = (None, None);
    for identity in values.into_iter().filter_map(Identity::read) {
        if identity.is_sip() {
            sip.get_or_insert(identity);
        } else if identity.is_tel() {
            tel.get_or_insert(identity);
        }
    }
    sip.into_iter().chain(tel).collect()
}

/// The value of P-Asserted-Identity for `identities`.
pub fn assert(identities: &[Identity]) -> String {
    identities.iter().map(|identity| identity.value.as_str()).collect::<Vec<_>>().join(", ")
}

/// Whether the request asks that its sender stays unknown to recipients.
///
/// IM-022, ISC-024 (RFC 3323 §4.2): `id`, `user` or `header`; `session` alone is no such wish and `none` forbids it.
pub fn is_anonymous(privacy: Option<&str>) -> bool {
    let Some(privacy) = privacy else { return false };
    let mut wishes = privacy.split([';', ',']).map(str::trim);
    let all = || privacy.split([';', ',']).map(str::trim);
    !all().any(|wish| wish.eq_ignore_ascii_case("none"))
        && wishes.any(|wish| {
            ["id", "user", "header"].iter().any(|known| wish.eq_ignore_ascii_case(known))
        })
}

/// Whether a From header hides its sender (RFC 3323 §4.1.1.3).
pub fn is_anonymous_from(uri: &str) -> bool {
    uri.to_ascii_lowercase().ends_with("@anonymous.invalid")
}

/// The From value of a leg, without its tag.
///
/// IM-038, IM-040: identity and display name the core vouches for; nothing of them if the sender stays unknown.
pub fn from_header(uri: &str, display: Option<&str>, anonymous: bool) -> String {
    match display {
        _ if anonymous => ANONYMOUS.to_owned(),
        Some(name) => format!("{} <{uri}>", quote(name)),
        None => format!("<{uri}>"),
    }
}

/// Who sent the page, for recipients who want to know; nothing if the sender stays unknown.
///
/// IM-043 (RFC 3892 §3).
pub fn referred_by(uri: &str, anonymous: bool) -> Option<String> {
    (!anonymous).then(|| format!("<{uri}>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uris(values: &[&str]) -> Vec<String> {
        asserted(values.iter().copied()).into_iter().map(|identity| identity.uri).collect()
    }

    /// Proves ISC-018.
    #[test]
    fn one_sip_and_one_tel_identity_are_used() {
        for (values, want) in [
            (
                &["\"Alice\" <sip:alice@h>", "<tel:+15551230001>"][..],
                &["sip:alice@h", "tel:+15551230001"][..],
            ),
            (&["<sip:a@h>", "<tel:+1>", "<sip:b@h>"][..], &["sip:a@h", "tel:+1"][..]),
            (&["<tel:+1>"][..], &["tel:+1"][..]),
            (&["<tel:+1>", "sips:a@h"][..], &["sips:a@h", "tel:+1"][..]),
            (&["<mailto:a@h>", "nonsense"][..], &[][..]),
            (&["<sip:a\"b@h>", "<sip:a@h> x", "<sip:c@h>"][..], &["sip:c@h"][..]),
            (&[][..], &[][..]),
        ] {
            assert_eq!(uris(values), want, "{values:?}");
        }
    }

    /// Proves IM-039.
    #[test]
    fn both_identities_are_asserted_again_as_received() {
        let identities = asserted(["\"Alice\" <sip:alice@home1.example>", "<tel:+15551230001>"]);
        assert_eq!(assert(&identities), "\"Alice\" <sip:alice@home1.example>, <tel:+15551230001>");
    }

    /// Proves IM-022, ISC-024.
    #[test]
    fn privacy_values_that_mean_anonymity() {
        for (privacy, anonymous) in [
            (None, false),
            (Some("none"), false),
            (Some("id"), true),
            (Some("ID; critical"), true),
            (Some("user"), true),
            (Some("header;session"), true),
            (Some("session"), false),
            (Some("critical"), false),
            (Some("history"), false),
            (Some("id;none"), false),
        ] {
            assert_eq!(is_anonymous(privacy), anonymous, "{privacy:?}");
        }
        assert!(is_anonymous_from("sip:anonymous@Anonymous.invalid"));
        assert!(!is_anonymous_from("sip:alice@home1.example"));
    }

    /// Proves IM-038, IM-040, IM-043.
    #[test]
    fn the_name_of_a_leg_is_the_asserted_one_or_nobodys() {
        assert_eq!(from_header("sip:a@h", Some("Al \"x\""), false), "\"Al \\\"x\\\"\" <sip:a@h>");
        assert_eq!(from_header("sip:a@h", None, false), "<sip:a@h>");
        assert_eq!(from_header("sip:a@h", Some("Alice"), true), ANONYMOUS);
        assert_eq!(referred_by("sip:a@h", false).as_deref(), Some("<sip:a@h>"));
        assert_eq!(referred_by("sip:a@h", true), None);
    }
}
