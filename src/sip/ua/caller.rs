//! INVITEs of ours: provisional answers, forks, ACK, PRACK, CANCEL.

use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use super::call::{Call, Caller, Cancel, Leg, Phase, Side};
use super::table::Key;
use super::transactions::ClientUser;
use super::types::{CallKey, Event, Failure, Fork, Invite};
use super::{CallTimer, Due, SendKey, Ua, wire};
use crate::sip::Target;
use crate::sip::dialog::Dialog;
use crate::sip::dialog::reliable::{self, Arrival};
use crate::sip::dialog::session;
use crate::sip::message::{Message, Method, Name};

impl Ua {
    /// Sends an INVITE. Its end is [`Event::Answered`] or [`Event::Rejected`]; with full tables the latter at once.
    pub fn invite(&mut self, now: Instant, invite: Invite) -> CallKey {
        self.latest = Some(now);
        let local_tag = self.fresh_token();
        let index = self.dialog_key(invite.call_id.as_bytes(), local_tag.as_bytes());
        let from = [invite.from.as_bytes(), b";tag=", local_tag.as_bytes()].concat();
        let full = self.calls.len() >= self.settings.max_calls;
        let key = self.calls.insert(Box::new(Call {
            phase: Phase::Pending,
            dialogs: Vec::new(),
            main: None,
            index,
            local_tag,
            contact: String::new(),
            in_dialog: Bytes::new(),
            sdp: Bytes::new(),
            peer_media: None,
            unacknowledged: SmallVec::new(),
            pending_bye: None,
            session: None,
            offer: None,
            refresh: None,
            closed: false,
            holds: 0,
            side: Side::Caller(Box::new(Caller {
                call_id: invite.call_id.clone(),
                request_uri: invite.request_uri.clone(),
                from: from.into_boxed_slice(),
                cseq: 0,
                transaction: None,
                heard: false,
                cancel: Cancel::No,
                give_up: None,
            })),
        }));
        self.dialogs.insert(index, key);
        self.send_invite(now, key, invite, full);
        CallKey(key)
    }

    /// Sends the INVITE of a rejected call again, changed: same Call-ID and From-tag, a higher CSeq.
    ///
    /// IM-062 (RFC 3261 §8.1.3.5). Does nothing while the call is pending or once it was answered.
    pub fn invite_again(&mut self, now: Instant, call: CallKey, invite: Invite) {
        self.latest = Some(now);
        let Some(state) = self.calls.get_mut(call.0) else {
            return;
        };
        if state.phase != Phase::Ended
            || state.main.is_some()
            || state.closed
            || !matches!(state.side, Side::Caller(_))
        {
            return;
        }
        state.phase = Phase::Pending;
        let call_id = state.caller().map_or(String::new(), |caller| caller.call_id.clone());
        self.send_invite(now, call.0, Invite { call_id, ..invite }, false);
    }

    fn send_invite(&mut self, now: Instant, key: Key, invite: Invite, full: bool) {
        let full = full || self.transactions.len() >= self.settings.max_transactions;
        let (branch, via) = self.fresh_via();
        let min_se = self.settings.session.least();
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        call.contact.clone_from(&invite.contact);
        call.in_dialog = invite.in_dialog.clone();
        call.sdp = invite.offer.clone();
        // PRACKs of an earlier attempt have used numbers, too.
        let used = call.dialogs.iter().map(|leg| leg.dialog.local_cseq()).max().unwrap_or(0);
        call.dialogs.clear();
        let Side::Caller(caller) = &mut call.side else {
            return;
        };
        caller.cseq = caller.cseq.max(used) + 1;
        caller.heard = false;
        caller.cancel = Cancel::No;
        caller.request_uri.clone_from(&invite.request_uri);
        if full {
            self.counts.refused_full += 1;
            self.invite_failed(key, 503, None, Failure::Transport);
            return;
        }
        let bytes = wire::invite(&invite, &caller.from, caller.cseq, &via, min_se);
        let next_hop = wire::next_hop(&invite.next_hop, &invite.route, &caller.request_uri);
        let transaction =
            self.open_client(now, bytes, branch, next_hop, ClientUser::Invite, Some(key));
        if let Some(caller) = self.calls.get_mut(key).and_then(|call| call.caller_mut()) {
            caller.transaction = Some(transaction);
        }
    }

    /// Cancels a pending INVITE of ours: at once if a provisional response came, else when one comes.
    /// `reason` is the value of a Reason header. The call's end is still [`Event::Rejected`].
    ///
    /// IM-061 (RFC 3261 §9.1).
    pub fn cancel(&mut self, now: Instant, call: CallKey, reason: Option<&str>) {
        self.latest = Some(now);
        let Some(state) = self.calls.get_mut(call.0) else {
            return;
        };
        if state.phase != Phase::Pending {
            return;
        }
        let Some(caller) = state.caller_mut() else {
            return;
        };
        if caller.cancel == Cancel::No {
            caller.cancel = Cancel::Wanted(reason.map(str::to_owned));
            self.send_cancel(now, call.0);
        }
    }

    /// Sends the CANCEL that is wanted, if it may go.
    fn send_cancel(&mut self, now: Instant, key: Key) {
        let Some(caller) = self.calls.get_mut(key).and_then(|call| call.caller_mut()) else {
            return;
        };
        let (Cancel::Wanted(reason), true, Some(transaction)) =
            (&caller.cancel, caller.heard, caller.transaction)
        else {
            return;
        };
        let reason = reason.clone();
        caller.cancel = Cancel::Sent;
        let Some(invite) = self.client(transaction) else {
            return;
        };
        let bytes = wire::cancel(&invite.request, reason.as_deref());
        let (branch, way) = (invite.branch(), invite.way());
        self.open_client_at(now, bytes, branch, way, ClientUser::Silent, Some(key));
        let after = self.settings.timers.give_up();
        let token = self.timers.start(now + after, Due::Call(key, CallTimer::CancelUnanswered));
        if let Some(caller) = self.calls.get_mut(key).and_then(|call| call.caller_mut()) {
            caller.give_up = Some(token);
        }
    }

    /// RFC 3261 §9.1: an INVITE that is not answered for 64×T1 after its CANCEL is over.
    pub(super) fn cancel_unanswered(&mut self, key: Key) {
        let Some(caller) = self.calls.get_mut(key).and_then(|call| call.caller_mut()) else {
            return;
        };
        caller.give_up = None;
        let transaction = caller.transaction.take();
        self.invite_failed(key, 408, None, Failure::Timeout);
        if let Some(transaction) = transaction {
            self.drop_client(transaction);
        }
    }

    pub(super) fn invite_response(
        &mut self,
        now: Instant,
        key: Key,
        status: u16,
        response: &Message,
    ) {
        match status {
            100..=199 => self.invite_provisional(now, key, status, response),
            200..=299 => self.invite_answered(now, key, response),
            _ => self.invite_failed(key, status, Some(response.clone()), Failure::Response),
        }
    }

    fn invite_provisional(&mut self, now: Instant, key: Key, status: u16, response: &Message) {
        if let Some(caller) = self.calls.get_mut(key).and_then(|call| call.caller_mut()) {
            caller.heard = true;
        }
        self.send_cancel(now, key);
        if status == 100 {
            return;
        }
        let mut first_of_fork = false;
        let mut acknowledge = None;
        if response.to_tag().is_some() {
            let Some((at, new)) = self.leg_of(key, response) else {
                return;
            };
            first_of_fork = new;
            let leg = match self.calls.get_mut(key).and_then(|call| call.dialogs.get_mut(at)) {
                Some(leg) => leg,
                None => return,
            };
            // IM-011, IM-012: RSeq alone asks for nothing, only Require does.
            let asks = response.has_token(Name::Require, "100rel");
            if let Some(rseq) = reliable::rseq(response).filter(|_| asks) {
                if leg.receiver.on(rseq) != Arrival::Next {
                    return;
                }
                acknowledge = Some((at, rseq));
            }
            if !new {
                leg.dialog.learn_from(response);
            }
        }
        if let Some((at, rseq)) = acknowledge {
            let rack = format!("{rseq} {} INVITE", response.cseq().number);
            self.request_inside(
                now,
                key,
                at,
                &Method::Prack,
                &[("RAck", rack.as_bytes())],
                b"",
                None,
                ClientUser::Silent,
            );
            if let Some(media) = self.media_key(response)
                && let Some(call) = self.calls.get_mut(key)
            {
                call.peer_media = Some(media);
            }
        }
        let fork = fork_of(response);
        self.call_event(
            key,
            Event::Provisional {
                call: CallKey(key),
                fork,
                message: response.clone(),
                first_of_fork,
            },
        );
    }

    /// The dialog of a response, by its To-tag, and whether it is new. `None` when the INVITE forked too often.
    fn leg_of(&mut self, key: Key, response: &Message) -> Option<(usize, bool)> {
        let bound = self.settings.max_forks;
        let call = self.calls.get_mut(key)?;
        let tag = response.to_tag().unwrap_or(b"");
        if let Some(at) = call.dialogs.iter().position(|leg| leg.dialog.remote_tag() == tag) {
            return Some((at, false));
        }
        if call.dialogs.len() >= bound {
            return None;
        }
        let Side::Caller(caller) = &call.side else {
            return None;
        };
        let dialog = Dialog::of_response(&caller.from, &caller.request_uri, response);
        call.dialogs.push(Leg::new(dialog));
        Some((call.dialogs.len() - 1, true))
    }

    /// A 2xx, first or repeated, of the first phone or a further one.
    ///
    /// IM-016, IM-059, IM-061 (RFC 3261 §13.2.2.4).
    fn invite_answered(&mut self, now: Instant, key: Key, response: &Message) {
        let cseq = response.cseq().number;
        let media = self.media_key(response);
        let Some((at, new)) = self.leg_of(key, response) else {
            return;
        };
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        if call.dialogs[at].acks.iter().any(|(number, _)| *number == cseq) {
            self.repeat_ack(key, at, cseq);
            return;
        }
        if !new {
            call.dialogs[at].dialog.learn_from(response);
        }
        self.send_ack(key, at, cseq);
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        let first = call.phase == Phase::Pending;
        let wanted =
            !call.closed && call.caller().is_some_and(|caller| caller.cancel == Cancel::No);
        if !(first && wanted) {
            call.dialogs[at].surplus = true;
            self.request_inside(now, key, at, &Method::Bye, &[], b"", None, ClientUser::Silent);
            if first {
                self.invite_failed(key, 487, None, Failure::Response);
            }
            return;
        }
        call.phase = Phase::Confirmed;
        call.main = Some(at);
        call.peer_media = media.or(call.peer_media);
        // A timer that cannot be read is one that was not agreed.
        if let Ok(Some(agreement)) = session::agreed(response) {
            self.start_session(now, key, agreement);
        }
        let fork = fork_of(response);
        self.call_event(
            key,
            Event::Answered { call: CallKey(key), fork, message: response.clone() },
        );
    }

    /// ACKs the 2xx to the INVITE with this number, in the dialog it belongs to. `None`: no such dialog.
    pub(super) fn send_ack(&mut self, key: Key, at: usize, cseq: u32) {
        let (_, via) = self.fresh_via();
        let Some(leg) = self.calls.get_mut(key).and_then(|call| call.dialogs.get_mut(at)) else {
            return;
        };
        let bytes = leg.dialog.request(&Method::Ack, cseq, &via).finish(None);
        // Those of earlier INVITEs are not asked for any more.
        if leg.acks.len() >= 2 {
            leg.acks.remove(0);
        }
        leg.acks.push((cseq, bytes));
        self.repeat_ack(key, at, cseq);
    }

    pub(super) fn repeat_ack(&mut self, key: Key, at: usize, cseq: u32) {
        let Some(leg) = self.calls.get(key).and_then(|call| call.dialogs.get(at)) else {
            return;
        };
        if let Some((_, bytes)) = leg.acks.iter().find(|(number, _)| *number == cseq) {
            let (bytes, uri) = (bytes.clone(), leg.dialog.next_hop().to_owned());
            self.send(
                SendKey::NONE,
                Target::NextHop { uri, attempt: 0, octets: 0 },
                bytes,
                Some(key),
            );
        }
    }

    pub(super) fn invite_failed(
        &mut self,
        key: Key,
        status: u16,
        message: Option<Message>,
        cause: Failure,
    ) {
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        if call.phase != Phase::Pending {
            return;
        }
        call.phase = Phase::Ended;
        let give_up = call.caller_mut().and_then(|caller| caller.give_up.take());
        self.stop_timer(give_up);
        self.call_event(key, Event::Rejected { call: CallKey(key), status, message, cause });
    }

    /// The transaction of an INVITE or re-INVITE is over: no further 2xx to it can come.
    pub(super) fn invite_transaction_gone(&mut self, key: Key, transaction: Key) {
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        if let Side::Caller(caller) = &mut call.side
            && caller.transaction == Some(transaction)
        {
            caller.transaction = None;
        }
        let initial = call.caller().filter(|caller| caller.transaction.is_some());
        let initial = initial.map(|caller| caller.cseq);
        for leg in &mut call.dialogs {
            leg.acks.retain(|(number, _)| Some(*number) == initial);
        }
    }
}

fn fork_of(response: &Message) -> Fork {
    Fork(response.to_tag().unwrap_or(b"").into())
}

impl Call {
    pub fn caller(&self) -> Option<&Caller> {
        match &self.side {
            Side::Caller(caller) => Some(caller),
            Side::Callee(_) => None,
        }
    }

    pub fn caller_mut(&mut self) -> Option<&mut Caller> {
        match &mut self.side {
            Side::Caller(caller) => Some(caller),
            Side::Callee(_) => None,
        }
    }
}
