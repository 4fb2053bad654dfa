//! A recipient that is elsewhere: the one other place its leg may try, where the operator wants that.
//!
//! Start at [`Redirect::of`], which reads a 3xx; whoever knows the rules for recipients picks one of its places, then
//! [`Isc::redirected`] goes there. Once a leg, and never by a redirection of a redirection. Follows ISC-070, ISC-077
//! (RFC 3261 §8.1.3.4, RFC 7044 §9 and §10) and IM-062.

use std::time::Instant;

use super::Isc;
use super::inbound::texts;
use super::legs::Leg;
use super::outbound::Variant;
use super::rules::syntax::Address;
use crate::engine::ids::LegId;
use crate::engine::input::LegEvent;
use crate::engine::party::Party;
use crate::sip::message::{Message, Name};
use crate::sip::uri::Uri;

/// Most places of one answer that are looked at.
const MOST_PLACES: usize = 8;

/// A leg could go elsewhere: give [`Isc::redirected`] the first of its places that may be reached, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub leg: LegId,
    pub status: u16,
    /// Where the answer says the recipient is, the best first.
    pub places: Vec<Place>,
    /// What the engine hears if none of them may be reached.
    pub refused: LegEvent,
}

/// One Contact of a redirection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub uri: String,
    /// `rc` or `mp`, where the answer says what it is (RFC 7044 §5).
    kind: Option<&'static str>,
}

impl Redirect {
    /// What a 3xx offers this leg; `None` if it had its one further try or offers nothing.
    pub(super) fn of(
        leg: LegId,
        state: &Leg,
        status: u16,
        message: &Message,
        refused: &LegEvent,
    ) -> Option<Self> {
        if state.retried || state.cancelled || !(300..400).contains(&status) {
            return None;
        }
        let mut places: Vec<(u16, Place)> = texts(message, Name::Contact)
            .take(MOST_PLACES)
            .filter_map(Address::parse)
            .map(|contact| {
                let has = |name| contact.param(name).is_some();
                let kind = ["rc", "mp"].into_iter().find(|name| has(name));
                let q = contact.param("q").flatten().map_or(1000, thousandths);
                (q, Place { uri: contact.uri.to_owned(), kind })
            })
            .collect();
        // Stable: in the order of the answer where it says nothing else.
        places.sort_by_key(|(q, _)| std::cmp::Reverse(*q));
        let places: Vec<Place> = places.into_iter().map(|(_, place)| place).collect();
        (!places.is_empty()).then(|| Self { leg, status, places, refused: refused.clone() })
    }
}

/// `0` to `1` with up to three digits; what is neither is the least.
fn thousandths(q: &str) -> u16 {
    q.trim()
        .parse::<f64>()
        .ok()
        .filter(|q| (0.0..=1.0).contains(q))
        .map_or(0, |q| (q * 1000.0) as u16)
}

impl Isc {
    /// Invites the recipient at `place`, one of `redirect`'s, as it may be requested. Otherwise, or where that is somebody
    /// this page reaches anyway (UL-010), returns what the engine has to hear.
    ///
    /// ISC-070: same Call-ID, From and To, the other Request-URI.
    pub fn redirected(
        &mut self,
        now: Instant,
        redirect: Redirect,
        place: Option<(usize, Party)>,
    ) -> Option<LegEvent> {
        let Redirect { leg, status, places, refused } = redirect;
        let Some((at, party)) = place else {
            tracing::info!(%leg, status, rule = "ISC-070", "redirected to nobody who may be reached");
            return Some(refused);
        };
        let Some(page) = self.pages.get_mut(&leg.page) else { return Some(refused) };
        let reached = page.legs.values().any(|other| other.recipient.party.key == party.key);
        let Some(state) = page.legs.get_mut(&leg.n) else { return Some(refused) };
        let Some(call) = state.call.filter(|_| !state.retried && !state.cancelled) else {
            return Some(refused);
        };
        if reached {
            tracing::info!(%leg, status, rule = "UL-010", "redirected to a recipient of this page");
            return Some(refused);
        }
        let kind = places.get(at).and_then(|place| place.kind);
        let history = history(&state.recipient.party.uri, status, &party.uri, kind);
        state.retried = true;
        state.early = None;
        state.variant =
            Variant { elsewhere: Some((party.uri.to_string(), history)), ..state.variant.clone() };
        let Some(invite) = self.invite_of(now, leg) else { return Some(refused) };
        tracing::info!(%leg, status, rule = "ISC-070", key = "im.recurse_3xx", "redirected once");
        self.ua.invite_again(now, call, invite);
        None
    }
}

/// ISC-077 (RFC 7044 §9.2, §10.3): who was asked, why no more, and who is asked now.
fn history(was: &str, status: u16, now: &str, kind: Option<&'static str>) -> String {
    let same = |a: &Uri, b: &Uri| a.user() == b.user() && a.host().eq_ignore_ascii_case(b.host());
    let (old, new) = (Uri::parse(was).ok(), Uri::parse(now).ok());
    let same = old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| same(old, new));
    // A number takes no header fields.
    let reason = match old.is_some_and(|old| old.is_sip()) {
        true => format!("?Reason=SIP%3Bcause%3D{status}"),
        false => String::new(),
    };
    let kind = kind.unwrap_or(if same { "rc" } else { "mp" });
    format!("<{was}{reason}>;index=1, <{now}>;index=1.1;{kind}=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves ISC-077.
    #[test]
    fn the_history_says_who_was_asked_and_why_no_more() {
        for (was, now, kind, want) in [
            (
                "sip:bob@home1.example",
                "sip:bobby@home2.example",
                None,
                "<sip:bob@home1.example?Reason=SIP%3Bcause%3D302>;index=1, <sip:bobby@home2.example>;index=1.1;mp=1",
            ),
            (
                "sip:bob@home1.example",
                "sip:bob@HOME1.example;transport=tcp",
                None,
                "<sip:bob@home1.example?Reason=SIP%3Bcause%3D302>;index=1, <sip:bob@HOME1.example;transport=tcp>;index=1.1;rc=1",
            ),
            (
                "tel:+15550001",
                "sip:bob@home1.example",
                Some("rc"),
                "<tel:+15550001>;index=1, <sip:bob@home1.example>;index=1.1;rc=1",
            ),
        ] {
            assert_eq!(history(was, 302, now, kind), want);
        }
    }

    #[test]
    fn the_order_is_that_of_q() {
        for (q, want) in [("1", 1000), ("0.5", 500), (" 0.333", 333), ("0", 0), ("7", 0), ("x", 0)]
        {
            assert_eq!(thousandths(q), want, "{q}");
        }
    }
}
