//! How users and services are named on Sh: public identities in canonical form, numbers in TBCD.
//!
//! Start at [`Identity::canonical`].

use std::fmt;
use std::sync::Arc;

use crate::sip::uri::{Scheme, Uri};

/// A public identity in canonical form: the key of everything the HSS knows of a user or a service.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<str>);

impl Identity {
    /// The canonical form of a SIP or tel URI; `None` for anything else.
    ///
    /// SH-039 (3GPP TS 29.328 §6.1.1, TS 23.003 §13.4): scheme and host in lower case, a number without visual
    /// separators, neither parameters nor port of a SIP URI. A local number keeps its context, without which it is none.
    pub fn canonical(uri: &str) -> Option<Self> {
        let uri = Uri::parse(uri).ok()?;
        let text = match uri.scheme() {
            Scheme::Sip | Scheme::Sips => {
                let scheme = if uri.scheme() == Scheme::Sip { "sip" } else { "sips" };
                let host = uri.host().to_ascii_lowercase();
                match uri.user() {
                    // A password is no part of anybody's name.
                    Some(user) => {
                        let user = user.split(':').next()?;
                        format!("{scheme}:{}@{host}", unescaped(user))
                    }
                    None => format!("{scheme}:{host}"),
                }
            }
            Scheme::Tel => {
                let digits = |number: &str| -> String {
                    number.chars().filter(|c| !"-.()".contains(*c)).collect()
                };
                let number = digits(uri.user()?).to_ascii_lowercase();
                match uri.param("phone-context").filter(|_| !number.starts_with('+')) {
                    Some(context) if context.starts_with('+') => {
                        format!("tel:{number};phone-context={}", digits(context))
                    }
                    Some(context) => {
                        format!("tel:{number};phone-context={}", context.to_ascii_lowercase())
                    }
                    None => format!("tel:{number}"),
                }
            }
            _ => return None,
        };
        Some(Self(text.into()))
    }

    /// The name of a range of identities, which is no URI: scheme and host in lower case, the rest as it came.
    ///
    /// SH-055 (3GPP TS 23.003 §13.5): the expression stands between exclamation marks in the user part.
    pub fn wildcard(text: &str) -> Self {
        let text = match (text.split_once(':'), text.rsplit_once('@')) {
            (Some((scheme, _)), Some((user, host))) if user.len() > scheme.len() => {
                let user = &user[scheme.len()..];
                format!("{}{user}@{}", scheme.to_ascii_lowercase(), host.to_ascii_lowercase())
            }
            _ => text.to_owned(),
        };
        Self(text.into())
    }

    /// The URI.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain it is at home in; a number has none.
    pub fn domain(&self) -> Option<&str> {
        let rest = self.0.strip_prefix("sip:").or_else(|| self.0.strip_prefix("sips:"))?;
        Some(rest.rsplit_once('@').map_or(rest, |(_, host)| host))
    }

    /// What stands in logs instead of the identity: the same for the same one, and no way back.
    ///
    /// SH-056: 64 bits of SHA-256 of `salt` and the identity.
    pub fn pseudonym(&self, salt: u64) -> String {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new();
        hash.update(salt.to_be_bytes());
        hash.update(self.0.as_bytes());
        hash.finalize().iter().take(8).map(|octet| format!("{octet:02x}")).collect()
    }
}

/// SH-056: an identity that is printed by accident is not told.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// Escapes of characters that need none are undone; the others stay, with capital digits (RFC 3986 §6.2.2).
fn unescaped(user: &str) -> String {
    let mut out = String::with_capacity(user.len());
    let mut rest = user;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let octet = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match octet {
            Some(octet)
                if octet.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&octet) =>
            {
                out.push(char::from(octet));
            }
            Some(octet) => out.push_str(&format!("%{octet:02X}")),
            None => {
                out.push_str(&rest[at..]);
                return out;
            }
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    out
}

/// An international number in the octets of an MSISDN AVP: digits swapped in pairs, an odd one filled up with F.
/// `None` for what is no number of 1 to 15 digits.
///
/// SH-039 (3GPP TS 29.329 §6.3.2, TS 23.003 §2.1).
pub fn tbcd(number: &str) -> Option<Vec<u8>> {
    let digits = number.strip_prefix('+').unwrap_or(number).as_bytes();
    if !(1..=15).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let octet = |pair: &[u8]| (pair.get(1).map_or(0xf, |high| high - b'0') << 4) | (pair[0] - b'0');
    Some(digits.chunks(2).map(octet).collect())
}

/// The digits of an MSISDN AVP; `None` for what is no number.
pub fn digits(tbcd: &[u8]) -> Option<String> {
    let (last, whole) = tbcd.split_last()?;
    let mut out = String::with_capacity(tbcd.len() * 2);
    let digit = |nibble: u8| (nibble < 10).then(|| char::from(b'0' + nibble));
    for octet in whole {
        out.push(digit(octet & 0xf)?);
        out.push(digit(octet >> 4)?);
    }
    out.push(digit(last & 0xf)?);
    if last >> 4 != 0xf {
        out.push(digit(last >> 4)?);
    }
    (out.len() <= 15).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves SH-039.
    #[test]
    fn an_identity_is_canonical_however_it_was_written() {
        let cases: &[(&str, Option<&str>)] = &[
            ("sip:bob@ims.example.net", Some("sip:bob@ims.example.net")),
            ("SIP:bob@IMS.Example.NET:5060;transport=tcp?a=b", Some("sip:bob@ims.example.net")),
            ("sip:Bob@ims.example.net", Some("sip:Bob@ims.example.net")),
            ("sip:%62ob%20x@h", Some("sip:bob%20x@h")),
            ("sip:bob:secret@h", Some("sip:bob@h")),
            ("sips:bob@H;lr", Some("sips:bob@h")),
            ("sip:+49170@h;user=phone", Some("sip:+49170@h")),
            ("sip:groups.ims.test:5090", Some("sip:groups.ims.test")),
            ("tel:+49-(170).1234567;isub=1", Some("tel:+491701234567")),
            ("TEL:110;phone-context=+49-89", Some("tel:110;phone-context=+4989")),
            ("tel:110;phone-context=IMS.Test", Some("tel:110;phone-context=ims.test")),
            ("mailto:bob@h", None),
            ("bob", None),
        ];
        for (written, canonical) in cases {
            let found = Identity::canonical(written);
            assert_eq!(found.as_ref().map(Identity::as_str), *canonical, "{written}");
            if let Some(found) = found {
                assert_eq!(Identity::canonical(found.as_str()), Some(found), "{written}");
            }
        }
    }

    /// Proves SH-039.
    #[test]
    fn numbers_are_swapped_in_pairs() {
        let even = [0x94, 0x71, 0x10, 0x32, 0x54, 0x76];
        let odd = [0x94, 0x71, 0x10, 0x32, 0x54, 0x76, 0xf8];
        assert_eq!(tbcd("491701234567").as_deref(), Some(&even[..]));
        assert_eq!(tbcd("+4917012345678").as_deref(), Some(&odd[..]));
        assert_eq!(digits(&even).as_deref(), Some("491701234567"));
        assert_eq!(digits(&odd).as_deref(), Some("4917012345678"));
        for bad in ["", "+", "12a", "1234567890123456"] {
            assert_eq!(tbcd(bad), None, "{bad}");
        }
        for bad in [&[][..], &[0xaf], &[0xf1, 0x21], &[0x11; 8]] {
            assert_eq!(digits(bad), None, "{bad:02x?}");
        }
    }

    /// Proves SH-055.
    #[test]
    fn ranges_keep_their_expression() {
        for (written, kept) in [
            ("SIP:chat!.*!@IMS.test", "sip:chat!.*!@ims.test"),
            ("tel:!+49.*!", "tel:!+49.*!"),
            ("!", "!"),
        ] {
            assert_eq!(Identity::wildcard(written).as_str(), kept);
        }
    }

    /// Proves SH-056.
    #[test]
    fn logs_learn_no_identity() {
        let bob = Identity::canonical("sip:bob@ims.test").expect("a URI");
        assert!(!format!("{bob:?}").contains("bob"));
        assert_eq!(bob.pseudonym(1), bob.pseudonym(1));
        assert_ne!(bob.pseudonym(1), bob.pseudonym(2));
        assert_eq!(bob.pseudonym(1).len(), 16);
        assert_eq!(bob.domain(), Some("ims.test"));
    }
}
