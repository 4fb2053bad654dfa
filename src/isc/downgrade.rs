//! A recipient that takes no TLS: asked once more without, where the operator wants that.
//!
//! Start at [`Isc::unsecured`], which reads a refusal; the switch makes a session without TLS, then
//! [`Isc::downgraded`] offers it. Follows IM-078 and IM-062.

use std::time::Instant;

use super::Isc;
use super::settings::TlsDowngrade;
use crate::content::sdp::End;
use crate::engine::ids::LegId;
use crate::engine::input::LegEvent;
use crate::sip::ua::CallKey;

/// A leg may do without TLS: give [`Isc::downgraded`] another end of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downgrade {
    pub leg: LegId,
    /// What the engine hears if there is none.
    pub refused: LegEvent,
}

impl Isc {
    /// Whether the refusal of an offer over TLS is followed by one without.
    ///
    /// IM-078: only where `im.tls_downgrade` allows it, and once a leg.
    pub(super) fn unsecured(
        &self,
        call: CallKey,
        status: u16,
        refused: &LegEvent,
    ) -> Option<Downgrade> {
        let (page, n) = *self.trails.get(&call)?;
        let leg = LegId { page, n: n? };
        let state = self.pages.get(&page)?.legs.get(&leg.n)?;
        if !matches!(status, 488 | 606) || !state.own.path.is_secure() || state.cancelled {
            return None;
        }
        match self.house.settings.media.tls_downgrade {
            TlsDowngrade::Allow => Some(Downgrade { leg, refused: refused.clone() }),
            TlsDowngrade::Deny => {
                let key = "im.tls_downgrade";
                tracing::info!(%leg, status, rule = "IM-078", key, "recipient refused TLS");
                None
            }
        }
    }

    /// Invites the recipient of `downgrade` again, to an end without TLS. Without one, returns what the engine has to hear.
    pub fn downgraded(
        &mut self,
        now: Instant,
        downgrade: Downgrade,
        own: Option<End>,
    ) -> Option<LegEvent> {
        let Downgrade { leg, refused } = downgrade;
        let Some(own) = own else { return Some(refused) };
        let Some(state) = self.leg_mut(leg) else { return Some(refused) };
        let Some(call) = state.call.filter(|_| !state.cancelled) else { return Some(refused) };
        state.own = own;
        state.retried = true;
        state.early = None;
        let Some(invite) = self.invite_of(now, leg) else { return Some(refused) };
        tracing::warn!(%leg, rule = "IM-078", key = "im.tls_downgrade", "recipient is asked again without TLS");
        self.ua.invite_again(now, call, invite);
        None
    }
}
