//! A recipient's answer where a border on the way may have changed the media address (RFC 6714).
//!
//! Start at [`Isc::answered`]. A recipient that knows nothing of CEMA and will connect itself would pass the border by: it
//! is asked once more, without CEMA, in a new INVITE. Where names stand for addresses somebody else resolves them
//! ([`Compare`]). Follows MS-026 to MS-028.

use std::time::Instant;

use super::{Happening, Isc, Move};
use crate::content::media_address::{Fit, Names};
use crate::content::sdp::End;
use crate::engine::effect::{Cause, CauseProtocol};
use crate::engine::ids::LegId;
use crate::engine::input::{Input, LegEvent};
use crate::sip::message::Message;
use crate::sip::ua::{CallKey, Fork};

/// Something waits until it is known whether two hosts are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub names: Names,
    waits: Waits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Waits {
    /// A recipient's answer.
    Answer { call: CallKey, leg: LegId, event: LegEvent },
    /// A new path (MS-027).
    Move(Box<Move>),
}

/// A move, behind the comparison it needs first, if any.
pub(super) fn compared_first(moved: Move) -> Happening {
    match moved.names().cloned() {
        Some(names) => {
            Happening::Compare(Box::new(Compare { names, waits: Waits::Move(Box::new(moved)) }))
        }
        None => Happening::Moved(Box::new(moved)),
    }
}

impl Isc {
    /// The first 2xx of a recipient.
    pub(super) fn answered(
        &mut self,
        call: CallKey,
        fork: &Fork,
        message: &Message,
        out: &mut Vec<Happening>,
    ) {
        let Some((page, Some(n))) = self.trails.get(&call).copied() else { return };
        let Some(state) = self.pages.get_mut(&page) else { return };
        let terms = self.house.settings.media.terms();
        let Some(leg) = state.legs.get_mut(&n) else { return };
        let (event, fit) = leg.answered(fork, message, terms);
        // Whoever is not wanted any more is not asked again.
        let fit = if leg.cancelled { Fit::Same } else { fit };
        let leg = LegId { page, n };
        out.push(match fit {
            Fit::Same => Happening::Input(Input::Leg { leg, event }),
            Fit::Differs => Happening::WithoutCema(leg),
            Fit::Names(names) => {
                let waits = Waits::Answer { call, leg, event };
                Happening::Compare(Box::new(Compare { names, waits }))
            }
        });
    }

    /// What follows now that it is known whether the hosts are one.
    pub fn compared(&mut self, now: Instant, compare: Compare, same: bool) -> Option<Happening> {
        match compare.waits {
            // The recipient may be gone, or be asked anew.
            Waits::Answer { call, leg, .. } if self.trail_of(call)?.1 != Some(leg) => None,
            Waits::Answer { leg, event, .. } => {
                let wanted = self.leg_mut(leg).is_some_and(|leg| !leg.cancelled);
                Some(match same || !wanted {
                    true => Happening::Input(Input::Leg { leg, event }),
                    false => Happening::WithoutCema(leg),
                })
            }
            Waits::Move(moved) if same => Some(Happening::Moved(moved)),
            Waits::Move(moved) => {
                self.not_moved(now, &moved);
                None
            }
        }
    }

    /// Whether the recipient was last asked over TLS (IM-078).
    pub fn was_secure(&self, leg: LegId) -> bool {
        let state = self.pages.get(&leg.page).and_then(|page| page.legs.get(&leg.n));
        state.is_some_and(|leg| leg.own.path.is_secure())
    }

    /// Ends what was agreed with a recipient and invites once more, without CEMA. `own` is a fresh end: the recipient
    /// may have come by the old one already.
    ///
    /// MS-026 (RFC 6714 §4.2).
    pub fn invite_without_cema(&mut self, now: Instant, leg: LegId, own: End) {
        tracing::info!(%leg, rule = "MS-026", key = "msrp.cema", "asked again without CEMA: a border is on the way");
        let cause = Cause::new(CauseProtocol::Policy, 0, "offered again without CEMA");
        self.end_leg(now, leg, Some(&cause));
        let call_id = self.ua.fresh_call_id();
        let Some(state) = self.leg_mut(leg) else { return };
        let old = state.call.take();
        state.call_id = call_id;
        state.own = own;
        state.cema = false;
        state.cancelled = false;
        (state.early, state.peer, state.theirs) = (None, None, None);
        if let Some(old) = old {
            self.trails.remove(&old);
            self.ua.close(old);
        }
        self.send_first(now, leg);
    }
}
