//! A session that gets another MSRP path under way; nothing else of a page's media ever changes.
//!
//! Start at [`Isc::new_path`], which judges a re-INVITE or UPDATE; the switch makes the new MSRP session, then
//! [`Isc::moved`] answers. Follows IM-066, MS-016 and MS-027.

use std::time::Instant;

use bytes::Bytes;

use super::{Isc, legs, outbound};
use crate::content::media_address::Names;
use crate::content::sdp::{self, Change, End, Later, Peer, Session};
use crate::engine::ids::{LegId, PageId};
use crate::engine::input::Refusal;
use crate::sip::message::Message;
use crate::sip::ua::{CallKey, RequestKey};

/// A side of a page wants its session under another path; its request waits for [`Isc::moved`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub page: PageId,
    /// `None`: the originator.
    pub leg: Option<LegId>,
    later: Later,
    request: RequestKey,
    theirs: Session,
}

impl Move {
    /// Its media from now on.
    pub fn peer(&self) -> &Peer {
        &self.later.peer
    }

    /// What has to be one place before it may be (MS-028).
    pub(super) fn names(&self) -> Option<&Names> {
        self.later.names.as_ref()
    }
}

fn cannot(text: &str) -> Refusal {
    Refusal::new(488, "IM-066").warn(text.to_owned())
}

impl Isc {
    /// What an offer inside a dialog asks for, if it is a new path alone.
    ///
    /// # Errors
    /// IM-066: 488 for any other change, and before the session is agreed.
    pub(super) fn new_path(
        &self,
        call: CallKey,
        request: RequestKey,
        message: &Message,
    ) -> Result<Move, Refusal> {
        let fixed = || cannot("Session cannot be changed");
        let (page, n) = *self.trails.get(&call).ok_or_else(fixed)?;
        let state = self.pages.get(&page).ok_or_else(fixed)?;
        let sdp = legs::description(message).ok_or_else(fixed)?;
        let theirs = Session::parse(&sdp).map_err(|_| cannot("malformed SDP"))?;
        let chosen = state.origin.chosen.as_ref().ok_or_else(fixed)?;
        let media = &self.house.settings.media;
        let (terms, cema) = (media.terms(), media.cema);
        let mut secure = chosen.peer.proof.is_some();
        let later = match n {
            None if state.answered && chosen.change(&theirs) == Change::Path => {
                sdp::read_again(&theirs, chosen.line(), secure.then_some(terms), cema)
            }
            Some(n) => {
                let leg = state.legs.get(&n).filter(|leg| !leg.cancelled).ok_or_else(fixed)?;
                let before = leg.theirs.as_ref().ok_or_else(fixed)?;
                if sdp::compare(before, &theirs) != Change::Path {
                    return Err(fixed());
                }
                secure = leg.own.path.is_secure();
                sdp::read_again(&theirs, 0, secure.then_some(terms), cema)
            }
            None => return Err(fixed()),
        };
        let later = later.map_err(|why| cannot(why.text))?;
        // ISC-064: the new address has to be of a kind of ours, too.
        let line = if n.is_none() { chosen.line() } else { 0 };
        let families = media.tls.filter(|_| secure).map_or(media.families, |tls| tls.families);
        if !families.serve(theirs.family(line)) {
            return Err(Refusal { warning: Some((301, sdp::FORMATS.to_owned())), ..cannot("") });
        }
        Ok(Move { page, leg: n.map(|n| LegId { page, n }), later, request, theirs })
    }

    /// Refuses a move whose path leads elsewhere than its media address.
    ///
    /// MS-027.
    pub(super) fn not_moved(&mut self, now: Instant, change: &Move) {
        self.in_dialog(now, change.request, &cannot(sdp::ADDRESSES_DIFFER));
    }

    /// Answers the request behind `change`: 200 with our new path, or 488 if there is none.
    ///
    /// MS-015, MS-016: the version of our description is one higher.
    pub fn moved(&mut self, now: Instant, change: Move, own: Option<impl TryInto<End>>) {
        let own = own.and_then(|own| own.try_into().ok());
        let sdp = own.and_then(|own| match change.leg {
            None => self.move_originator(&change, &own),
            Some(leg) => self.move_leg(leg, &change, own),
        });
        match sdp {
            Some(sdp) => {
                tracing::info!(page = %change.page, leg = change.leg.map(tracing::field::display), rule = "MS-016", "new MSRP path");
                self.ua.in_dialog_answer(now, change.request, outbound::moved(sdp));
            }
            None => self.in_dialog(now, change.request, &cannot("No MSRP session left")),
        }
    }

    fn move_originator(&mut self, change: &Move, own: &End) -> Option<Bytes> {
        let state = self.pages.get_mut(&change.page)?;
        let (terms, cema) = (self.house.settings.media.terms(), change.later.cema);
        let chosen = state.origin.chosen.as_ref()?.moved(&change.theirs, terms, cema).ok()?;
        state.version += 1;
        let chosen = state.origin.chosen.insert(chosen);
        Some(outbound::sdp_for_originator(&self.house, change.page, chosen, own, state.version))
    }

    fn move_leg(&mut self, leg: LegId, change: &Move, own: End) -> Option<Bytes> {
        let state = self.pages.get_mut(&change.page)?;
        let chosen = state.origin.chosen.as_ref()?;
        let leg = state.legs.get_mut(&leg.n)?;
        leg.own = own;
        leg.version += 1;
        leg.peer = Some(change.peer().clone());
        leg.theirs = Some(change.theirs.clone());
        Some(outbound::sdp_for_leg(&self.house, chosen, leg, &change.later))
    }
}
