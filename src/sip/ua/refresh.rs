//! The session timer of established calls: refreshes of ours, and the end of sessions nobody refreshes (RFC 4028).

use std::time::{Duration, Instant};

use super::call::{Phase, Session, Side};
use super::table::Key;
use super::transactions::ClientUser;
use super::types::{CallKey, Event, Failure};
use super::{CallTimer, Due, Ua};
use crate::sip::dialog::session::{Agreement, FLOOR, Refresher, agreed, min_se};
use crate::sip::message::{Message, Method};

/// How long a refresh that the peer refused for the moment waits, where the answer does not say.
const AGAIN: Duration = Duration::from_secs(10);

impl Ua {
    /// Starts the timer anew, as just agreed.
    pub(super) fn start_session(&mut self, now: Instant, key: Key, agreement: Agreement) {
        self.stop_session(key);
        let end =
            self.timers.start(now + agreement.end_after(), Due::Call(key, CallTimer::SessionEnd));
        let refresh = agreement.ours.then(|| {
            self.timers.start(now + agreement.refresh_after(), Due::Call(key, CallTimer::Refresh))
        });
        if let Some(call) = self.calls.get_mut(key) {
            call.session = Some(Session { interval: agreement.interval, end, refresh });
        }
    }

    pub(super) fn stop_session(&mut self, key: Key) {
        if let Some(session) = self.calls.get_mut(key).and_then(|call| call.session.take()) {
            self.timers.stop(session.end);
            self.stop_timer(session.refresh);
        }
    }

    fn refresh_later(&mut self, now: Instant, key: Key, after: Duration) {
        if self.calls.get(key).is_none_or(|call| call.session.is_none()) {
            return;
        }
        let token = self.timers.start(now + after, Due::Call(key, CallTimer::Refresh));
        let old = self
            .calls
            .get_mut(key)
            .and_then(|call| call.session.as_mut())
            .and_then(|session| session.refresh.replace(token));
        self.stop_timer(old);
    }

    /// ISC-061 (RFC 4028 §7.4): UPDATE without a description if the peer takes it, else a re-INVITE that changes
    /// nothing.
    pub(super) fn refresh_session(&mut self, now: Instant, key: Key) {
        let least = self.settings.session.least();
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        let (Phase::Confirmed, Some(at), Some(session)) =
            (call.phase, call.main, &mut call.session)
        else {
            return;
        };
        session.refresh = None;
        let value = format!("{};refresher={}", session.interval, Refresher::Uac.as_str());
        if call.offer.is_some() || call.refresh.is_some() {
            let after = self.settings.timers.t2;
            self.refresh_later(now, key, after);
            return;
        }
        let (method, body) = if call.dialogs[at].dialog.peer_updates() {
            (Method::Update, None)
        } else {
            (Method::Invite, Some(call.sdp.clone()).filter(|sdp| !sdp.is_empty()))
        };
        let contact = call.contact.clone();
        let least = least.to_string();
        let lines = [
            ("Contact", contact.as_bytes()),
            ("Supported", b"timer"),
            ("Session-Expires", value.as_bytes()),
            ("Min-SE", least.as_bytes()),
        ];
        let sent = self.request_inside(
            now,
            key,
            at,
            &method,
            &lines,
            b"",
            body.as_deref(),
            ClientUser::Refresh,
        );
        if let Some(call) = self.calls.get_mut(key) {
            call.refresh = sent;
        }
    }

    pub(super) fn refresh_response(
        &mut self,
        now: Instant,
        key: Key,
        transaction: Key,
        status: u16,
        response: &Message,
    ) {
        if status < 200 {
            return;
        }
        let is_invite = response.cseq().method == Method::Invite;
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        let Some(at) = call.main else {
            return;
        };
        if is_invite && status < 300 {
            let cseq = response.cseq().number;
            if call.dialogs[at].acks.iter().any(|(number, _)| *number == cseq) {
                self.repeat_ack(key, at, cseq);
                return;
            }
            call.dialogs[at].dialog.refresh(response);
            self.send_ack(key, at, cseq);
        }
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        if call.refresh != Some(transaction) {
            return;
        }
        call.refresh = None;
        if call.phase != Phase::Confirmed {
            return;
        }
        let (owner, Some(session)) = (matches!(call.side, Side::Caller(_)), &mut call.session)
        else {
            return;
        };
        match status {
            200..=299 => {
                call.dialogs[at].dialog.refresh(response);
                let unchanged =
                    Agreement { interval: session.interval, refresher: Refresher::Uac, ours: true };
                // A peer that says nothing about the timer leaves it as it is.
                let agreement = agreed(response).ok().flatten().unwrap_or(unchanged);
                self.start_session(now, key, agreement);
            }
            // The dialog is gone (RFC 3261 §12.2.1.2).
            408 | 481 => self.session_over(now, key),
            422 => {
                let least = min_se(response).ok().flatten().unwrap_or(FLOOR);
                if least > session.interval {
                    session.interval = least;
                    self.refresh_session(now, key);
                } else {
                    self.refresh_later(now, key, AGAIN);
                }
            }
            // UPDATE was announced and is not taken after all.
            405 | 501 if !is_invite => {
                call.dialogs[at].dialog.forget_updates();
                self.refresh_session(now, key);
            }
            // ISC-080 (RFC 3261 §14.1): in steps of 10 ms, 2.1 to 4 s for who made the Call-ID, else 0 to 2 s.
            491 => {
                let random = self.random.next_u64();
                let steps = if owner { 210 + random % 191 } else { random % 201 };
                self.refresh_later(now, key, Duration::from_millis(steps * 10));
            }
            _ => self.refresh_later(now, key, AGAIN),
        }
    }

    pub(super) fn refresh_failed(&mut self, now: Instant, key: Key, cause: Failure) {
        if let Some(call) = self.calls.get_mut(key) {
            call.refresh = None;
            if call.phase != Phase::Confirmed {
                return;
            }
        }
        if cause == Failure::Timeout {
            self.session_over(now, key);
        } else {
            self.refresh_later(now, key, AGAIN);
        }
    }

    /// ISC-061 (RFC 4028 §10): BYE.
    pub(super) fn session_over(&mut self, now: Instant, key: Key) {
        if self.calls.get(key).is_none_or(|call| call.phase != Phase::Confirmed) {
            return;
        }
        self.end_by_bye(now, key, b"Reason: SIP;cause=408;text=\"Session timer expired\"\r\n");
        self.call_event(key, Event::SessionExpired { call: CallKey(key) });
        self.reap(key);
    }
}
