//! Requests in a dialog, of either side.

use std::time::Instant;

use bytes::Bytes;

use super::call::{Phase, Side};
use super::callee::contact_line;
use super::table::Key;
use super::transactions::{ClientUser, ServerUser};
use super::types::{CallKey, Event, Reply, RequestKey};
use super::{Ua, wire};
use crate::sip::Flow;
use crate::sip::dialog::Order;
use crate::sip::dialog::reliable::RAck;
use crate::sip::dialog::session;
use crate::sip::message::{Message, Method, Name};

/// What requests in a dialog may require.
const UNDERSTOOD: [&str; 2] = ["100rel", "timer"];

impl Ua {
    /// The call and the dialog of a request: Call-ID, our tag in To, the peer's in From.
    pub(super) fn find_dialog(&self, request: &Message) -> Option<(Key, usize)> {
        let index = self.dialog_key(request.call_id(), request.to_tag()?);
        let key = *self.dialogs.get(&index)?;
        let remote = request.from_tag().unwrap_or(b"");
        let at = self
            .calls
            .get(key)?
            .dialogs
            .iter()
            .position(|leg| leg.dialog.remote_tag() == remote)?;
        Some((key, at))
    }

    pub(super) fn receive_inside(
        &mut self,
        now: Instant,
        method: &Method,
        message: Message,
        flow: Flow,
        key: u128,
    ) {
        if *method == Method::Notify && self.receive_notify(now, &message, flow, key) {
            return;
        }
        if *method == Method::Subscribe && self.receive_resubscribe(now, &message, flow, key) {
            return;
        }
        let transaction =
            self.open_server(now, message.clone(), flow, key, String::new(), ServerUser::Own);
        let found = self.find_dialog(&message);
        if let Some(server) = self.server_mut(transaction) {
            server.call = found.map(|(call, _)| call);
        }
        if let Some(refusal) = self.refusal_inside(method, &message, found) {
            self.reply(now, transaction, &refusal, &[]);
            return;
        }
        let Some((call, at)) = found else {
            return;
        };
        match method {
            Method::Bye => self.receive_bye(now, transaction, call, at, message),
            Method::Prack => self.receive_prack(now, transaction, call, &message),
            Method::Invite | Method::Update => {
                self.receive_offer(now, method, transaction, call, at, message)
            }
            _ => {
                if let Some(server) = self.server_mut(transaction) {
                    server.user = ServerUser::Requested;
                }
                let request = RequestKey(transaction);
                self.call_event(call, Event::InDialog { call: CallKey(call), request, message });
            }
        }
    }

    /// Why a request is refused before its method is looked at. Counts its CSeq.
    fn refusal_inside(
        &mut self,
        method: &Method,
        message: &Message,
        found: Option<(Key, usize)>,
    ) -> Option<Reply> {
        if message.text(Name::MaxForwards).is_some_and(|hops| hops.trim().parse() == Ok(0_u32)) {
            return Some(Reply::new(483));
        }
        // IM-066 (RFC 3261 §12.2.2).
        let Some((key, at)) = found else {
            return Some(Reply::new(481));
        };
        // UL-005, IM-034 (RFC 5366 §5.1).
        if *method == Method::Invite && wire::has_list(message) {
            let headers = format!("Unsupported: {}\r\n", wire::LIST_TAG).into();
            return Some(Reply { headers, ..Reply::new(420) });
        }
        if let Some(headers) = self.unsupported(message, &UNDERSTOOD) {
            return Some(Reply { headers: headers.into(), ..Reply::new(420) });
        }
        let call = self.calls.get_mut(key)?;
        // RFC 3261 §12.2.2: never held back for a gap, refused when it comes too late.
        if call.dialogs[at].dialog.receive_cseq(message.cseq().number) == Order::Old {
            return Some(Reply::new(500));
        }
        let gone = call.phase == Phase::Ended || call.closed;
        if gone && *method != Method::Bye && *method != Method::Prack {
            return Some(Reply::new(481));
        }
        None
    }

    fn receive_bye(
        &mut self,
        now: Instant,
        transaction: Key,
        key: Key,
        at: usize,
        message: Message,
    ) {
        let Some(call) = self.calls.get(key) else {
            return;
        };
        // RFC 3261 §15: only the caller may end an early dialog by BYE.
        if call.phase == Phase::Pending && matches!(call.side, Side::Caller(_)) {
            self.reply(now, transaction, &Reply::new(481), &[]);
            return;
        }
        self.reply(now, transaction, &Reply::new(200), &[]);
        let is_main = call_is_main(self, key, at);
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        if !is_main || call.phase == Phase::Ended {
            return;
        }
        if call.phase == Phase::Pending {
            // RFC 3261 §15.1.2.
            self.reject(now, CallKey(key), Reply::new(487));
        } else {
            call.phase = Phase::Ended;
            call.pending_bye = None;
            self.stop_answers(key);
            self.stop_session(key);
            self.refuse_offer(now, key);
        }
        self.call_event(key, Event::Bye { call: CallKey(key), message });
        self.reap(key);
    }

    /// ISC-062 (RFC 3262 §3): 200 to what acknowledges the response on its way, 481 to anything else.
    fn receive_prack(&mut self, now: Instant, transaction: Key, key: Key, message: &Message) {
        let Some(rack) = message.text(Name::RAck).and_then(RAck::parse) else {
            let reason = Some("RAck missing or unreadable".to_owned());
            self.reply(now, transaction, &Reply { reason, ..Reply::new(400) }, &[]);
            return;
        };
        if !(rack.invite && self.prack(key, rack.rseq, rack.cseq)) {
            self.reply(now, transaction, &Reply::new(481), &[]);
            return;
        }
        let reply = match self.compare(key, message) {
            Media::None => Reply::new(200),
            Media::Same => Reply { body: self.description(key), ..Reply::new(200) },
            // An offer we would have to think about; nobody makes one before the page's session stands.
            Media::New => Reply::new(488),
        };
        self.reply(now, transaction, &reply, &[]);
        self.after_prack(now, key);
    }

    /// A re-INVITE or UPDATE. What changes nothing is answered here, changed media goes up.
    ///
    /// IM-066, ISC-061, ISC-080 (RFC 3261 §14.2, RFC 3311 §5.2, RFC 4028 §9).
    fn receive_offer(
        &mut self,
        now: Instant,
        method: &Method,
        transaction: Key,
        key: Key,
        at: usize,
        message: Message,
    ) {
        let is_invite = *method == Method::Invite;
        let retry_after = self.random.next_u64() % 11;
        let Some(call) = self.calls.get(key) else {
            return;
        };
        let pending = call.phase == Phase::Pending;
        let ours_open = call.refresh.is_some()
            || (pending && is_invite && matches!(call.side, Side::Caller(_)));
        let theirs_open = call.offer.is_some() || (pending && is_invite);
        if ours_open {
            self.reply(now, transaction, &Reply::new(491), &[]);
            return;
        }
        if theirs_open {
            let headers = format!("Retry-After: {retry_after}\r\n").into();
            self.reply(now, transaction, &Reply { headers, ..Reply::new(500) }, &[]);
            return;
        }
        if let Err(refusal) = session::accept(&message, &self.settings.session) {
            self.refuse_session(now, transaction, refusal);
            return;
        }
        let media = self.compare(key, &message);
        if media == Media::New {
            if let Some(server) = self.server_mut(transaction) {
                server.user = ServerUser::Offer(key);
            }
            if let Some(call) = self.calls.get_mut(key) {
                call.offer = Some(transaction);
            }
            if is_invite {
                self.reply(now, transaction, &Reply::new(100), &[]);
            }
            let request = RequestKey(transaction);
            self.call_event(key, Event::Offer { call: CallKey(key), request, message });
            return;
        }
        let body = if is_invite || media == Media::Same { self.description(key) } else { None };
        let headers = format!("Allow: {}\r\nSupported: timer\r\n", self.settings.allow).into();
        self.accept_offer(now, transaction, (key, at), Reply { body, headers, ..Reply::new(200) });
    }

    /// Our description as it stands, same `o=` line.
    fn description(&self, key: Key) -> Option<(String, Bytes)> {
        let sdp = &self.calls.get(key)?.sdp;
        (!sdp.is_empty()).then(|| ("application/sdp".to_owned(), sdp.clone()))
    }

    fn compare(&self, key: Key, message: &Message) -> Media {
        if message.body().is_empty() {
            return Media::None;
        }
        let known = self.calls.get(key).and_then(|call| call.peer_media);
        match self.media_key(message) {
            None => Media::None,
            offered if offered == known => Media::Same,
            Some(_) => Media::New,
        }
    }

    /// Sends the 2xx to a re-INVITE or UPDATE and does what follows from it.
    fn accept_offer(
        &mut self,
        now: Instant,
        transaction: Key,
        (key, at): (Key, usize),
        mut reply: Reply,
    ) {
        let Some(server) = self.server(transaction) else {
            return;
        };
        let (Some(message), flow) = (server.request.clone(), server.flow) else {
            return;
        };
        let agreement = session::accept(&message, &self.settings.session).ok().flatten();
        let early = self.calls.get(key).is_none_or(|call| call.phase != Phase::Confirmed);
        let agreement = agreement.filter(|_| !early);
        let media = self.media_key(&message);
        if let Some(call) = self.calls.get_mut(key) {
            call.dialogs[at].dialog.refresh(&message);
            call.peer_media = media.or(call.peer_media);
            if let Some((kind, body)) = &reply.body
                && wire::media_of(kind, body).is_some()
            {
                call.sdp = body.clone();
            }
            if let Some(contact) = reply.contact.take() {
                call.contact = contact;
            }
        }
        let contact = self.contact_of(key);
        let session = agreement.map(|agreement| agreement.value());
        let mut lines = contact_line(&contact);
        if let (Some(value), Some(agreement)) = (&session, &agreement) {
            lines.extend(wire::session_lines(value, agreement));
        }
        let Some(bytes) = self.reply(now, transaction, &reply, &lines) else {
            return;
        };
        if message.method() == Some(Method::Invite) {
            self.await_ack(now, key, (message.cseq().number, flow), bytes, false);
        }
        match agreement {
            Some(agreement) => self.start_session(now, key, agreement),
            // RFC 4028 §7.2: the last 2xx decides, and it names no interval.
            None if !early => self.stop_session(key),
            None => {}
        }
    }

    /// The layer above answers a request that was handed up.
    pub(super) fn answer_request(&mut self, now: Instant, transaction: Key, reply: Reply) {
        self.latest = Some(now);
        let Some(server) = self.server(transaction) else {
            return;
        };
        if !server.is_open() || reply.status < 200 {
            return;
        }
        match server.user {
            ServerUser::Requested | ServerUser::Through => {
                let contact = reply.contact.clone().unwrap_or_default();
                self.reply(now, transaction, &reply, &contact_line(&contact));
            }
            ServerUser::Offer(key) => {
                if let Some(call) = self.calls.get_mut(key) {
                    call.offer = None;
                }
                let request = self.server(transaction).and_then(|server| server.request.clone());
                let at = request.and_then(|request| self.find_dialog(&request)).map(|(_, at)| at);
                match at {
                    Some(at) if reply.status < 300 => {
                        self.accept_offer(now, transaction, (key, at), reply)
                    }
                    _ => {
                        self.reply(now, transaction, &reply, &[]);
                    }
                }
            }
            ServerUser::Invite(_) | ServerUser::Own => {}
        }
    }

    /// Ends a re-INVITE or UPDATE nobody will answer any more (RFC 3261 §9.2, §15.1.2).
    pub(super) fn refuse_offer(&mut self, now: Instant, key: Key) {
        if let Some(transaction) = self.calls.get_mut(key).and_then(|call| call.offer.take()) {
            self.reply(now, transaction, &Reply::new(487), &[]);
        }
    }

    // --- ours ---

    /// Ends an established call by BYE.
    pub(super) fn end_by_bye(&mut self, now: Instant, key: Key, extra: &[u8]) {
        self.stop_answers(key);
        self.stop_session(key);
        self.refuse_offer(now, key);
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        call.phase = Phase::Ended;
        if let Some(at) = call.main {
            self.request_inside(now, key, at, &Method::Bye, &[], extra, None, ClientUser::Silent);
        }
    }

    /// Sends a request in a dialog of the call, with the lines the layer above wants on them.
    #[expect(clippy::too_many_arguments, reason = "each is one part of the message")]
    pub(super) fn request_inside(
        &mut self,
        now: Instant,
        key: Key,
        at: usize,
        method: &Method,
        lines: &[(&str, &[u8])],
        extra: &[u8],
        body: Option<&[u8]>,
        user: ClientUser,
    ) -> Option<Key> {
        let (branch, via) = self.fresh_via();
        let call = self.calls.get_mut(key)?;
        let leg = call.dialogs.get_mut(at)?;
        let cseq = leg.dialog.next_cseq();
        let mut writer = leg.dialog.request(method, cseq, &via);
        for (name, value) in lines {
            writer.header(name, value);
        }
        writer.lines(&call.in_dialog).lines(extra);
        let bytes = writer.finish(body.map(|body| ("application/sdp", body)));
        let next_hop = leg.dialog.next_hop().to_owned();
        Some(self.open_client(now, bytes, branch, next_hop, user, Some(key)))
    }
}

/// What a description says, compared with the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Media {
    None,
    Same,
    New,
}

fn call_is_main(ua: &Ua, key: Key, at: usize) -> bool {
    ua.calls.get(key).is_some_and(|call| call.main == Some(at))
}
