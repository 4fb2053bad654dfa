//! Public service identities as operators write them: one URI, or a pattern that stands for many.
//!
//! Start at [`Psi::parse`] and [`Psi::matches`]. A pattern is an extended regular expression between exclamation marks in
//! the user part (`sip:lm-!.*!@im.example`). Matching takes time in proportion to the length of the text, whatever the
//! pattern. Follows TS 23.003 §13.5, RFC 5002 and the rules ISC-056, ISC-057.

use regex::bytes::{Regex, RegexBuilder};

use super::{BadUri, Uri, decode, same_host};

/// Octets a compiled pattern may take.
const MOST: usize = 256 << 10;

/// Why text is no public service identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPsi {
    #[error(transparent)]
    Uri(#[from] BadUri),
    #[error("no regular expression between the exclamation marks, or one that is too large")]
    Pattern,
}

/// A public service identity, distinct or wildcarded.
#[derive(Debug, Clone)]
pub struct Psi {
    uri: Uri,
    wildcard: Option<Wildcard>,
}

/// A user part with a pattern in it: what stands before, the pattern for all between, what stands behind.
#[derive(Debug, Clone)]
struct Wildcard {
    before: Vec<u8>,
    pattern: Regex,
    behind: Vec<u8>,
}

impl PartialEq for Psi {
    /// Written alike.
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Psi {
    /// Reads what an operator wrote.
    ///
    /// ISC-056 (TS 23.003 §13.5): of more than two exclamation marks the outermost count; one alone is a letter like
    /// any other.
    ///
    /// # Errors
    /// [`BadPsi`] for text that is no URI, or whose pattern is none.
    pub fn parse(text: &str) -> Result<Self, BadPsi> {
        let uri = Uri::parse(text)?;
        let user = uri.user().filter(|_| uri.is_sip()).unwrap_or_default();
        let wildcard = match (user.find('!'), user.rfind('!')) {
            (Some(first), Some(last)) if first < last => Some(Wildcard {
                before: decode(&user[..first]).into_owned(),
                pattern: pattern(&user[first + 1..last])?,
                behind: decode(&user[last + 1..]).into_owned(),
            }),
            _ => None,
        };
        Ok(Self { uri, wildcard })
    }

    /// Whether it stands for many.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard.is_some()
    }

    /// As the operator wrote it.
    pub fn as_str(&self) -> &str {
        self.uri.as_str()
    }

    /// Whether a URI names this service, or one of those it stands for.
    ///
    /// ISC-056, ISC-057: user part and host as for a distinct identity; the pattern covers the whole of its piece.
    pub fn matches(&self, uri: &Uri) -> bool {
        let Some(wildcard) = &self.wildcard else { return self.uri.same_psi(uri) };
        let port = |uri: &Uri| uri.port().filter(|port| *port != 5060);
        let Some(user) = uri.user().filter(|_| uri.is_sip()) else { return false };
        let user = decode(user);
        same_host(self.uri.host(), uri.host())
            && port(&self.uri) == port(uri)
            && user
                .strip_prefix(wildcard.before.as_slice())
                .and_then(|rest| rest.strip_suffix(wildcard.behind.as_slice()))
                .is_some_and(|piece| wildcard.pattern.is_match(piece))
    }
}

/// The expression, anchored at both ends.
fn pattern(text: &str) -> Result<Regex, BadPsi> {
    let build = |text: &str| {
        RegexBuilder::new(text)
            .unicode(false)
            .dot_matches_new_line(true)
            .size_limit(MOST)
            .nest_limit(16)
            .build()
            .map_err(|_| BadPsi::Pattern)
    };
    // Alone first: `a)|(b` is an expression only where something stands around it.
    build(text)?;
    build(&format!(r"\A(?:{text})\z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(psi: &str, uri: &str) -> bool {
        let psi = Psi::parse(psi).expect("a service identity");
        psi.matches(&Uri::parse(uri).expect("a URI"))
    }

    /// Proves ISC-056.
    #[test]
    fn a_wildcard_stands_for_every_user_part_its_pattern_covers() {
        let rooms = "sip:lm-!.*!@im.home1.example";
        let teams = "sip:team!(red|blue)[0-9]{1,2}!-x@im.home1.example:5070";
        for (psi, uri, want) in [
            (rooms, "sip:lm-7f3a@im.home1.example", true),
            (rooms, "sip:lm-@im.home1.example", true),
            (rooms, "SIP:lm-a%40b@IM.HOME1.EXAMPLE:5060;transport=tcp;user=phone", true),
            (rooms, "sip:%6Cm-1@im.home1.example", true),
            (rooms, "sip:lm-%0A%FF@im.home1.example", true),
            (rooms, "sips:lm-1@im.home1.example", true),
            (rooms, "sip:lm@im.home1.example", false),
            (rooms, "sip:LM-1@im.home1.example", false),
            (rooms, "sip:xlm-1@im.home1.example", false),
            (rooms, "sip:lm-1@im.home1.example:5061", false),
            (rooms, "sip:lm-1@home1.example", false),
            (rooms, "sip:im.home1.example", false),
            (rooms, "tel:+15550001", false),
            (rooms, "urn:service:sos", false),
            (teams, "sip:teamred7-x@im.home1.example:5070", true),
            (teams, "sip:teamblue12-x@im.home1.example:5070", true),
            (teams, "sip:teamred7-x@im.home1.example", false),
            (teams, "sip:teamred-x@im.home1.example:5070", false),
            (teams, "sip:teamred777-x@im.home1.example:5070", false),
            (teams, "sip:teamred7-y@im.home1.example:5070", false),
            (teams, "sip:teamred7@im.home1.example:5070", false),
            // Neither end of the pattern may be left open by a choice in it.
            ("sip:!a|b!@h.example", "sip:ax@h.example", false),
            ("sip:!a|b!@h.example", "sip:xb@h.example", false),
            ("sip:!a|b!@h.example", "sip:b@h.example", true),
            // What stands before and behind never shares a letter.
            ("sip:aba!.*!ab@h.example", "sip:abab@h.example", false),
            ("sip:aba!.*!ab@h.example", "sip:abaab@h.example", true),
            // The outermost marks count, one alone is a letter.
            ("sip:!a!b!@h.example", "sip:a!b@h.example", true),
            ("sip:!a!b!@h.example", "sip:ab@h.example", false),
            ("sip:a!b@h.example", "sip:a%21b@h.example", true),
            ("sip:!!@h.example", "sip:x@h.example", false),
            ("sip:pages@h.example", "sip:pages@H.example;transport=udp", true),
            ("tel:+1-555", "tel:+1555", true),
        ] {
            assert_eq!(matches(psi, uri), want, "{psi} {uri}");
        }
        for (psi, wild) in [(rooms, true), ("sip:a!b@h", false), ("sip:pages@h", false)] {
            let psi = Psi::parse(psi).expect("a service identity");
            assert_eq!(psi.is_wildcard(), wild, "{}", psi.as_str());
        }
        assert_eq!(Psi::parse(rooms).expect("a service identity").as_str(), rooms);
        assert_eq!(Psi::parse(rooms), Psi::parse(rooms));
        assert_ne!(Psi::parse(rooms), Psi::parse(teams));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, want) in [
            ("pages", BadPsi::Uri(BadUri::Scheme)),
            ("sip:!(!@h.example", BadPsi::Pattern),
            ("sip:!a)|(b!@h.example", BadPsi::Pattern),
            ("sip:!*!@h.example", BadPsi::Pattern),
            ("sip:!(a{1000}){1000}!@h.example", BadPsi::Pattern),
            ("sip:!((((((((((((((((((((a))))))))))))))))))))!@h.example", BadPsi::Pattern),
        ] {
            assert_eq!(Psi::parse(text).err(), Some(want), "{text}");
        }
    }

    /// A pattern that a backtracking matcher would never finish.
    #[test]
    fn no_text_makes_a_pattern_slow() {
        let text = format!("sip:{}b@h.example", "a".repeat(20_000));
        assert!(!matches("sip:!(a*)*!@h.example", &text));
    }
}
