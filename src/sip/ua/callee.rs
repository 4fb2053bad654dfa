//! INVITEs of the peer: provisional answers (reliable or not), the final one, its ACK, CANCEL.

use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use super::call::{Call, Callee, Leg, Phase, Provisional, Side, Unacknowledged};
use super::table::Key;
use super::transactions::ServerUser;
use super::types::{CallKey, Event, Reply, RequestKey, Through};
use super::{CallTimer, Due, SendKey, Ua, wire};
use crate::sip::dialog::Dialog;
use crate::sip::dialog::reliable::Sender;
use crate::sip::dialog::session::{self, Refusal};
use crate::sip::message::{Message, Name};
use crate::sip::{Flow, Target};

impl Ua {
    /// A new INVITE: 100 at once (IM-020), then it is the layer above that decides.
    pub(super) fn receive_invite(
        &mut self,
        now: Instant,
        message: Message,
        flow: Flow,
        key: u128,
        arrival: u128,
    ) {
        let local_tag = self.fresh_token();
        let agreement = session::accept(&message, &self.settings.session);
        let dialog = Dialog::of_request(&message, &local_tag);
        let transaction =
            self.open_server(now, message.clone(), flow, key, local_tag.clone(), ServerUser::Own);
        self.mark_arrival(transaction, arrival);
        let (agreement, dialog) = match (agreement, dialog) {
            (Ok(agreement), Some(dialog)) => (agreement, dialog),
            (Err(refusal), _) => {
                self.refuse_session(now, transaction, refusal);
                return;
            }
            (_, None) => {
                let reason = Some("Contact missing or unreadable".to_owned());
                self.reply(now, transaction, &Reply { reason, ..Reply::new(400) }, &[]);
                return;
            }
        };
        let requires_100rel = message.has_token(Name::Require, "100rel");
        let random = self.random.next_u64();
        let call = self.calls.insert(Box::new(Call {
            phase: Phase::Pending,
            dialogs: vec![Leg::new(dialog)],
            main: Some(0),
            index: self.dialog_key(message.call_id(), local_tag.as_bytes()),
            local_tag,
            contact: String::new(),
            in_dialog: Bytes::new(),
            sdp: Bytes::new(),
            peer_media: self.media_key(&message),
            unacknowledged: SmallVec::new(),
            pending_bye: None,
            session: None,
            offer: None,
            refresh: None,
            closed: false,
            holds: 0,
            side: Side::Callee(Box::new(Callee {
                flow,
                cseq: message.cseq().number,
                transaction,
                requires_100rel,
                supports_100rel: requires_100rel || message.has_token(Name::Supported, "100rel"),
                sender: Sender::new(random, self.settings.max_queued_provisionals),
                held: None,
                agreement,
            })),
        }));
        if let Some(state) = self.calls.get(call) {
            self.dialogs.insert(state.index, call);
        }
        if let Some(server) = self.server_mut(transaction) {
            server.user = ServerUser::Invite(call);
            server.call = Some(call);
        }
        self.reply(now, transaction, &Reply::new(100), &[]);
        self.event(Event::Invited { call: CallKey(call), message, flow });
    }

    /// ISC-061 (RFC 4028 §9).
    pub(super) fn refuse_session(&mut self, now: Instant, transaction: Key, refusal: Refusal) {
        match refusal {
            Refusal::Unreadable => {
                let reason = Some("Session-Expires or Min-SE unreadable".to_owned());
                self.reply(now, transaction, &Reply { reason, ..Reply::new(400) }, &[]);
            }
            Refusal::TooSmall(least) => {
                self.reply(
                    now,
                    transaction,
                    &Reply::new(422),
                    &[("Min-SE", least.to_string().as_bytes())],
                );
            }
        }
    }

    fn pending_callee(&mut self, call: CallKey) -> Option<&mut Callee> {
        let state = self.calls.get_mut(call.0)?;
        match &mut state.side {
            Side::Callee(callee) if state.phase == Phase::Pending => Some(callee),
            _ => None,
        }
    }

    fn keep_from(&mut self, call: CallKey, reply: &Reply) {
        if let Some(state) = self.calls.get_mut(call.0) {
            if let Some(contact) = &reply.contact {
                state.contact.clone_from(contact);
            }
            if let Some(lines) = &reply.in_dialog {
                state.in_dialog = lines.clone();
            }
            if let Some((kind, body)) = &reply.body
                && wire::media_of(kind, body).is_some()
            {
                state.sdp = body.clone();
            }
        }
    }

    /// Answers a pending INVITE of the peer with 101 to 199; other statuses do nothing.
    ///
    /// ISC-062 (RFC 3262 §3): reliable if asked to and the peer can, and always if the peer requires it. Reliable ones
    /// go out one after the other, each after the PRACK of the one before.
    pub fn progress(&mut self, now: Instant, call: CallKey, reply: Reply) {
        self.latest = Some(now);
        if !(101..=199).contains(&reply.status) {
            return;
        }
        let Some(callee) = self.pending_callee(call) else {
            return;
        };
        if callee.held.is_some() {
            return;
        }
        let reliable = callee.requires_100rel || (reply.reliable && callee.supports_100rel);
        let transaction = callee.transaction;
        if !reliable {
            self.keep_from(call, &reply);
            let contact = self.contact_of(call.0);
            self.reply(now, transaction, &reply, &contact_line(&contact));
            return;
        }
        if let Some(next) = callee.sender.enqueue(Provisional::new(reply)) {
            self.send_reliably(now, call, next);
        }
    }

    fn send_reliably(&mut self, now: Instant, call: CallKey, mut provisional: Provisional) {
        self.keep_from(call, &provisional.reply);
        let timers = self.settings.timers;
        let contact = self.contact_of(call.0);
        let Some(callee) = self.pending_callee(call) else {
            return;
        };
        let rseq = callee.sender.number();
        let transaction = callee.transaction;
        let number = rseq.to_string();
        let mut lines = contact_line(&contact);
        lines.extend([("Require", &b"100rel"[..]), ("RSeq", number.as_bytes())]);
        let Some(bytes) = self.reply(now, transaction, &provisional.reply, &lines) else {
            return;
        };
        provisional.bytes = bytes;
        provisional.wait = timers.t1;
        provisional.again =
            Some(self.timers.start(now + timers.t1, Due::Call(call.0, CallTimer::Provisional)));
        let deadline =
            self.timers.start(now + timers.give_up(), Due::Call(call.0, CallTimer::PrackMissing));
        provisional.deadline = Some(deadline);
        if let Some(callee) = self.pending_callee(call) {
            callee.sender.sent(rseq, provisional);
        }
    }

    /// IM-053 (RFC 3262 §3): doubling from T1 without the cap of T2.
    pub(super) fn repeat_provisional(&mut self, now: Instant, key: Key) {
        let Some(callee) = self.pending_callee(CallKey(key)) else {
            return;
        };
        let flow = callee.flow;
        let Some(outstanding) = callee.sender.outstanding_mut() else {
            return;
        };
        let provisional = &mut outstanding.response;
        provisional.wait *= 2;
        let (bytes, wait) = (provisional.bytes.clone(), provisional.wait);
        self.counts.retransmissions_sent += 1;
        self.send(SendKey::NONE, Target::Flow(flow), bytes, Some(key));
        let again = self.timers.start(now + wait, Due::Call(key, CallTimer::Provisional));
        if let Some(outstanding) =
            self.pending_callee(CallKey(key)).and_then(|callee| callee.sender.outstanding_mut())
        {
            outstanding.response.again = Some(again);
        }
    }

    /// IM-053: nobody acknowledged it for 64×T1.
    pub(super) fn prack_missing(&mut self, now: Instant, key: Key) {
        if self.pending_callee(CallKey(key)).is_none() {
            return;
        }
        self.reject(now, CallKey(key), Reply::new(500));
        self.call_event(key, Event::PrackMissing { call: CallKey(key) });
    }

    /// Stops repeating the reliable response on its way; it can still be acknowledged.
    fn stop_provisional(&mut self, key: Key) {
        let tokens = match self.calls.get_mut(key).map(|call| &mut call.side) {
            Some(Side::Callee(callee)) => {
                callee.sender.drop_waiting();
                callee.sender.outstanding_mut().map(|outstanding| {
                    let provisional = &mut outstanding.response;
                    [provisional.again.take(), provisional.deadline.take()]
                })
            }
            _ => None,
        };
        for token in tokens.into_iter().flatten() {
            self.stop_timer(token);
        }
    }

    /// A PRACK with this RAck came: whether it acknowledges the response on its way.
    pub(super) fn prack(&mut self, key: Key, rseq: u32, cseq: u32) -> bool {
        let Some(Side::Callee(callee)) = self.calls.get_mut(key).map(|call| &mut call.side) else {
            return false;
        };
        if callee.cseq != cseq {
            return false;
        }
        let Some(acknowledged) = callee.sender.acknowledge(rseq) else {
            return false;
        };
        self.stop_timer(acknowledged.again);
        self.stop_timer(acknowledged.deadline);
        true
    }

    /// Goes on after a PRACK was answered: with the 2xx that waited, else with the next provisional response.
    pub(super) fn after_prack(&mut self, now: Instant, key: Key) {
        let Some(callee) = self.pending_callee(CallKey(key)) else {
            return;
        };
        if let Some(reply) = callee.held.take() {
            self.answer(now, CallKey(key), reply);
        } else if let Some(next) = callee.sender.take_waiting() {
            self.send_reliably(now, CallKey(key), next);
        }
    }

    /// Answers a pending INVITE of the peer with a 2xx; other statuses do nothing. Repeated until the ACK comes.
    ///
    /// IM-053 (RFC 3262 §3): waits while a reliable provisional response with a description is not acknowledged.
    pub fn answer(&mut self, now: Instant, call: CallKey, reply: Reply) {
        self.latest = Some(now);
        if !(200..=299).contains(&reply.status) {
            return;
        }
        let Some(callee) = self.pending_callee(call) else {
            return;
        };
        if callee.held.is_some() {
            return;
        }
        if callee.sender.outstanding().is_some_and(|outstanding| outstanding.response.describes()) {
            callee.sender.drop_waiting();
            callee.held = Some(reply);
            return;
        }
        let (transaction, cseq, flow, agreement) =
            (callee.transaction, callee.cseq, callee.flow, callee.agreement);
        self.stop_provisional(call.0);
        self.keep_from(call, &reply);
        let contact = self.contact_of(call.0);
        let session = agreement.map(|agreement| agreement.value());
        let mut lines = contact_line(&contact);
        if let (Some(value), Some(agreement)) = (&session, &agreement) {
            lines.extend(wire::session_lines(value, agreement));
        }
        let Some(bytes) = self.reply(now, transaction, &reply, &lines) else {
            return;
        };
        if let Some(state) = self.calls.get_mut(call.0) {
            state.phase = Phase::Confirmed;
        }
        self.await_ack(now, call.0, (cseq, flow), bytes, true);
        if let Some(agreement) = agreement {
            self.start_session(now, call.0, agreement);
        }
    }

    /// Refuses a pending INVITE of the peer with 300 to 699; other statuses do nothing.
    pub fn reject(&mut self, now: Instant, call: CallKey, reply: Reply) {
        self.latest = Some(now);
        if !(300..=699).contains(&reply.status) {
            return;
        }
        let Some(callee) = self.pending_callee(call) else {
            return;
        };
        callee.held = None;
        let transaction = callee.transaction;
        self.stop_provisional(call.0);
        self.reply(now, transaction, &reply, &[]);
        if let Some(state) = self.calls.get_mut(call.0) {
            state.phase = Phase::Ended;
        }
        self.reap(call.0);
    }

    /// CANCEL: its own answer is 200 if there is an INVITE to it, which then gets 487 unless it is answered already.
    ///
    /// IM-063 (RFC 3261 §9.2).
    pub(super) fn receive_cancel(&mut self, now: Instant, message: Message, flow: Flow, key: u128) {
        let invite = self.server_key_as(&message, &crate::sip::message::Method::Invite);
        let invite = self.servers.get(&invite).copied();
        let call = invite.and_then(|invite| self.server(invite)).and_then(|server| server.call);
        let tag = match call.and_then(|call| self.calls.get(call)) {
            Some(call) => call.local_tag.clone(),
            None => self.fresh_token(),
        };
        let transaction = self.open_server(now, message.clone(), flow, key, tag, ServerUser::Own);
        if let Some(server) = self.server_mut(transaction) {
            server.call = call;
        }
        let Some(invite) = invite else {
            self.reply(now, transaction, &Reply::new(481), &[]);
            return;
        };
        self.reply(now, transaction, &Reply::new(200), &[]);
        match self.server(invite).map(|server| server.user) {
            Some(ServerUser::Invite(call)) if self.pending_callee(CallKey(call)).is_some() => {
                self.reject(now, CallKey(call), Reply::new(487));
                self.call_event(call, Event::Cancelled { call: CallKey(call) });
            }
            Some(ServerUser::Offer(call)) => self.refuse_offer(now, call),
            Some(ServerUser::Through) => {
                let request = RequestKey(invite);
                self.event(Event::Through(Through::Cancel { request, message }));
            }
            _ => {}
        }
    }

    // --- 2xx and its ACK ---

    /// Repeats a 2xx from T1 on, doubling to T2, on any protocol, until its ACK comes (RFC 3261 §13.3.1.4).
    pub(super) fn await_ack(
        &mut self,
        now: Instant,
        key: Key,
        (cseq, flow): (u32, Flow),
        bytes: Bytes,
        initial: bool,
    ) {
        let timers = self.settings.timers;
        let again = self.timers.start(now + timers.t1, Due::Call(key, CallTimer::Answer(cseq)));
        let deadline =
            self.timers.start(now + timers.give_up(), Due::Call(key, CallTimer::AckMissing(cseq)));
        if let Some(call) = self.calls.get_mut(key) {
            let wait = timers.t1;
            call.unacknowledged.push(Unacknowledged {
                cseq,
                bytes,
                flow,
                wait,
                again,
                deadline,
                initial,
            });
        }
    }

    pub(super) fn repeat_answer(&mut self, now: Instant, key: Key, cseq: u32) {
        let timers = self.settings.timers;
        let Some(answer) = self.unacknowledged(key, cseq) else {
            return;
        };
        answer.wait = timers.doubled(answer.wait);
        let (flow, bytes, wait) = (answer.flow, answer.bytes.clone(), answer.wait);
        self.counts.retransmissions_sent += 1;
        self.send(SendKey::NONE, Target::Flow(flow), bytes, Some(key));
        let again = self.timers.start(now + wait, Due::Call(key, CallTimer::Answer(cseq)));
        if let Some(answer) = self.unacknowledged(key, cseq) {
            answer.again = again;
        }
    }

    fn unacknowledged(&mut self, key: Key, cseq: u32) -> Option<&mut Unacknowledged> {
        self.calls.get_mut(key)?.unacknowledged.iter_mut().find(|answer| answer.cseq == cseq)
    }

    fn take_unacknowledged(&mut self, key: Key, cseq: u32) -> Option<Unacknowledged> {
        let call = self.calls.get_mut(key)?;
        let at = call.unacknowledged.iter().position(|answer| answer.cseq == cseq)?;
        let answer = call.unacknowledged.remove(at);
        self.timers.stop(answer.again);
        self.timers.stop(answer.deadline);
        Some(answer)
    }

    /// The call is over: whether its 2xx arrived does not matter any more.
    pub(super) fn stop_answers(&mut self, key: Key) {
        let answers = self.calls.get_mut(key).map(|call| std::mem::take(&mut call.unacknowledged));
        for answer in answers.into_iter().flatten() {
            self.timers.stop(answer.again);
            self.timers.stop(answer.deadline);
        }
    }

    /// IM-066 (RFC 3261 §13.3.1.4): the layer above ends the call.
    pub(super) fn ack_missing(&mut self, now: Instant, key: Key, cseq: u32) {
        if self.take_unacknowledged(key, cseq).is_some() {
            self.call_event(key, Event::AckMissing { call: CallKey(key) });
            self.bye_after_ack(now, key);
            self.reap(key);
        }
    }

    /// An ACK in a dialog: whether a 2xx of ours waits for it.
    pub(super) fn acknowledge(&mut self, now: Instant, message: &Message) -> bool {
        let Some((key, _)) = self.find_dialog(message) else {
            return false;
        };
        let Some(answer) = self.take_unacknowledged(key, message.cseq().number) else {
            return false;
        };
        if answer.initial {
            self.call_event(key, Event::Acked { call: CallKey(key) });
        }
        self.bye_after_ack(now, key);
        self.reap(key);
        true
    }

    /// Sends the BYE that had to wait for the ACK.
    fn bye_after_ack(&mut self, now: Instant, key: Key) {
        if let Some(extra) = self.calls.get_mut(key).and_then(|call| call.pending_bye.take()) {
            self.end_by_bye(now, key, &extra);
        }
    }

    pub(super) fn contact_of(&self, key: Key) -> String {
        self.calls.get(key).map_or(String::new(), |call| call.contact.clone())
    }
}

/// The Contact line of an answer, where there is one to give.
pub(super) fn contact_line(contact: &str) -> SmallVec<[(&str, &[u8]); 4]> {
    let mut lines = SmallVec::new();
    if !contact.is_empty() {
        lines.push(("Contact", contact.as_bytes()));
    }
    lines
}
