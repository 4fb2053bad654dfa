//! The user agent: transactions, dialogs and calls of one thread, without I/O.
//!
//! Start at [`Ua`]. Requests and responses go in by [`Ua::receive`], the layer above asks by the methods named after
//! what it wants, and everything that follows comes out of [`Ua::poll`]. It opens no socket, starts no task and reads no
//! clock; random bits are an input. It knows no IMS and no page: that is `isc`.
//!
//! * `transactions` moves the machines of [`crate::sip::transaction`] and does what they say.
//! * `caller` is an INVITE of ours, `callee` one of the peer, `inside` a request in a dialog, `refresh` the session timer.
//! * `subscribe` is a subscription of ours, `notifier` one of the peer.
//! * `through` is what passes as a transaction on either side, its dialogs left to the layer above.
//! * `elsewhere` says when a request goes to another next hop.
//! * `wire` writes messages, [`types`] are the words of the interface.
//!
//! Follows RFC 3261 §8 and §12 to §17, RFC 3262, RFC 3311, RFC 3581, RFC 4028, RFC 4320, RFC 6026, RFC 6665.

mod call;
mod callee;
mod caller;
mod elsewhere;
mod inside;
mod notifier;
mod refresh;
mod subscribe;
mod table;
#[cfg(test)]
mod tests;
mod through;
mod timers;
mod transactions;
pub mod types;
mod wire;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::sip::message::{Malformed, Message, Method, Name, Writer};
use crate::sip::transaction::{Event as Move, Timer};
use crate::sip::{Flow, Protocol, Target};

use call::{Call, Phase, Side};
pub use elsewhere::Unavailable;
pub use notifier::{Package, Unwatched, WatcherKey};
use notifier::{Watcher, WatcherTimer};
use subscribe::Subscription;
pub use subscribe::SubscriptionKey;
use table::{Key, Table};
use transactions::{ClientUser, ServerUser, Transaction};
use types::Whose;
pub use types::*;

/// All SIP state of one thread.
///
/// Contract: call one method, then [`Ua::poll`] until it is empty, do everything in that order, then the next call.
/// Call [`Ua::wake`] at [`Ua::next_wake`] at the latest. Each [`CallKey`], whether from [`Ua::invite`] or
/// [`Event::Invited`], lives until [`Ua::close`]; after its end every method on it does nothing. A [`RequestKey`] ends by
/// its answer. Time never runs backwards.
pub struct Ua {
    settings: Settings,
    random: Box<dyn RandomSource + Send>,
    transactions: Table<Transaction>,
    /// Our branch and whether it is the CANCEL under it.
    clients: HashMap<(u64, bool), Key>,
    /// The key of RFC 3261 §17.2.3.
    servers: HashMap<u128, Key>,
    /// From-tag, Call-ID and CSeq of what opens something: a second way to the same request (RFC 3261 §8.2.2.2).
    arrivals: HashMap<u128, Key>,
    calls: Table<Box<Call>>,
    /// Call-ID and our tag.
    dialogs: HashMap<u128, Key>,
    subscriptions: Table<Box<Subscription>>,
    /// Call-ID and our tag, of subscriptions.
    subscribed: HashMap<u128, Key>,
    watchers: Table<Box<Watcher>>,
    /// Call-ID and our tag, of subscriptions of the peer.
    watched: HashMap<u128, Key>,
    hashers: [ahash::RandomState; 2],
    timers: timers::Queue<Due>,
    out: VecDeque<Output>,
    /// Next hops that asked for a pause; few, and fetched at once.
    unavailable: Vec<Unavailable>,
    /// The time of the last call, for [`Ua::close`], which is told none.
    latest: Option<Instant>,
    counts: Stats,
    repeat: Option<Repeat>,
}

/// Lines that answers owe the request they answer.
pub type Repeat = Box<dyn Fn(&Message, &Flow, &Reply) -> Bytes + Send>;

/// What a timer stands for.
#[derive(Debug, Clone, Copy)]
enum Due {
    Transaction(Key, Timer),
    Call(Key, CallTimer),
    Watcher(Key, WatcherTimer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallTimer {
    /// Repeat the 2xx to the INVITE with this number.
    Answer(u32),
    /// No ACK came for it.
    AckMissing(u32),
    /// Repeat the reliable provisional response.
    Provisional,
    /// No PRACK came for it.
    PrackMissing,
    /// No final answer came to a cancelled INVITE.
    CancelUnanswered,
    /// Send a session refresh.
    Refresh,
    /// No session refresh came.
    SessionEnd,
}

impl Ua {
    /// A user agent that holds nothing.
    pub fn new(settings: Settings, random: impl RandomSource + Send + 'static) -> Self {
        let mut random: Box<dyn RandomSource + Send> = Box::new(random);
        let mut hasher = || {
            let mut next = || random.next_u64();
            ahash::RandomState::with_seeds(next(), next(), next(), next())
        };
        let hashers = [hasher(), hasher()];
        Self {
            settings,
            random,
            transactions: Table::new(),
            clients: HashMap::new(),
            servers: HashMap::new(),
            arrivals: HashMap::new(),
            calls: Table::new(),
            dialogs: HashMap::new(),
            subscriptions: Table::new(),
            subscribed: HashMap::new(),
            watchers: Table::new(),
            watched: HashMap::new(),
            hashers,
            timers: timers::Queue::new(),
            out: VecDeque::new(),
            unavailable: Vec::new(),
            latest: None,
            counts: Stats::default(),
            repeat: None,
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A message came.
    pub fn receive(&mut self, now: Instant, message: Message, flow: Flow) {
        self.latest = Some(now);
        match message.method() {
            None => self.receive_response(now, &message),
            Some(method) => self.receive_request(now, &method, message, flow),
        }
    }

    /// Bytes came that are no message. What can be answered is refused, without keeping anything.
    pub fn malformed(&mut self, _now: Instant, malformed: Malformed, flow: Flow) {
        self.counts.malformed += 1;
        let Some(request) = malformed.answer.filter(|message| message.is_request()) else {
            return;
        };
        let reply =
            Reply { reason: Some(malformed.what.to_owned()), ..Reply::new(malformed.status) };
        self.answer_statelessly(&request, flow, &reply);
    }

    /// Refuses a request nobody else takes, without keeping anything. ACK is never answered.
    pub fn refuse(&mut self, request: &Message, flow: Flow, reply: &Reply) {
        if request.method() != Some(Method::Ack) {
            self.answer_statelessly(request, flow, reply);
        }
    }

    /// The transport chose a protocol for a request.
    pub fn sent(&mut self, now: Instant, send: SendKey, protocol: Protocol) {
        self.latest = Some(now);
        if protocol.is_reliable()
            && let SendKey(Whose::Transaction(key)) = send
        {
            self.went_reliably(now, key);
        }
    }

    /// The transport gave a message up; `more` says that RFC 3263 knows another next hop.
    ///
    /// ISC-071 (RFC 3263 §4.3): before any response the request goes there in a new branch.
    pub fn send_failed(&mut self, now: Instant, send: SendKey, more: bool) {
        self.latest = Some(now);
        self.counts.send_failures += 1;
        if let SendKey(Whose::Transaction(key)) = send {
            self.client_send_failed(now, key, more);
        }
    }

    /// Does what is due by `now`.
    pub fn wake(&mut self, now: Instant) {
        self.latest = Some(now);
        while let Some((_, due)) = self.timers.expired(now) {
            match due {
                Due::Transaction(key, timer) => self.transaction_timer(now, key, timer),
                Due::Call(key, timer) => self.call_timer(now, key, timer),
                Due::Watcher(key, timer) => self.watcher_timer(now, key, timer),
            }
        }
    }

    /// When to call [`Ua::wake`] next.
    pub fn next_wake(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What is held and what was done.
    pub fn stats(&self) -> Stats {
        Stats {
            calls: self.calls.len(),
            subscriptions: self.subscriptions.len(),
            watchers: self.watchers.len(),
            timers: self.timers.len(),
            ..self.counts
        }
    }

    /// The call a message that just came belongs to, for call flows.
    pub fn call_of(&self, message: &Message) -> Option<CallKey> {
        let call = match message.method() {
            None => {
                let branch = message.via().branch?;
                let branch = wire::own_branch(branch, self.settings.thread)?;
                let cancel = message.cseq().method == Method::Cancel;
                self.client(*self.clients.get(&(branch, cancel))?)?.call()
            }
            Some(method) => {
                let transaction = self.servers.get(&self.server_key(message, &method));
                let call = transaction.and_then(|key| self.server(*key)?.call);
                call.or_else(|| self.find_dialog(message).map(|(call, _)| call))
            }
        };
        call.map(CallKey)
    }

    /// Ends an established call; one that is not yet established is cancelled (ours) or refused with 480 (the peer's).
    /// `extra` are raw header lines, e.g. Reason. Waits for the ACK of our 2xx (RFC 3261 §15).
    pub fn bye(&mut self, now: Instant, call: CallKey, extra: &[u8]) {
        self.latest = Some(now);
        let Some(state) = self.calls.get_mut(call.0) else {
            return;
        };
        match (state.phase, &state.side) {
            (Phase::Ended, _) => {}
            (Phase::Pending, Side::Caller(_)) => self.cancel(now, call, None),
            (Phase::Pending, Side::Callee(_)) => self.reject(now, call, Reply::new(480)),
            (Phase::Confirmed, _) if state.unacknowledged.iter().any(|answer| answer.initial) => {
                state.pending_bye = Some(Bytes::copy_from_slice(extra));
                self.stop_session(call.0);
            }
            (Phase::Confirmed, _) => self.end_by_bye(now, call.0, extra),
        }
    }

    /// Forgets a call: no more events about it. What the protocol still owes is done: a pending INVITE of ours is
    /// cancelled and one of the peer refused with 480, late answers are acknowledged and ended.
    pub fn close(&mut self, call: CallKey) {
        let Some(now) = self.latest else {
            return;
        };
        let Some(state) = self.calls.get_mut(call.0) else {
            return;
        };
        if state.closed {
            return;
        }
        state.closed = true;
        match state.phase {
            Phase::Pending => self.bye(now, call, b""),
            Phase::Confirmed if state.pending_bye.is_none() => {
                state.phase = Phase::Ended;
                self.stop_session(call.0);
                self.refuse_offer(now, call.0);
            }
            Phase::Confirmed | Phase::Ended => {}
        }
        self.reap(call.0);
    }

    // --- requests that come in ---

    fn receive_request(&mut self, now: Instant, method: &Method, message: Message, flow: Flow) {
        let key = self.server_key(&message, method);
        let inside = message.to_tag().is_some();
        let known = self.servers.get(&key).copied();
        if *method == Method::Ack {
            if let Some(transaction) = known {
                self.drive_server(now, transaction, Move::Ack);
            }
            if !(inside && self.acknowledge(now, &message)) && known.is_none() {
                self.counts.stray += 1;
            }
            return;
        }
        if let Some(transaction) = known {
            self.counts.retransmissions_received += 1;
            self.drive_server(now, transaction, Move::Request);
            return;
        }
        // ISC-069: requests in a dialog and CANCEL come last to be shed; so does what the core says of its users, whom a
        // refusal could end (ISC-046).
        let last = inside || matches!(method, Method::Cancel | Method::Register);
        let bound = self.settings.max_transactions;
        let bound = if last { bound + bound / 8 } else { bound };
        if self.transactions.len() >= bound {
            self.refuse_full(&message, flow);
            return;
        }
        if *method == Method::Cancel {
            self.receive_cancel(now, message, flow, key);
        } else if inside {
            self.receive_inside(now, method, message, flow, key);
        } else {
            self.receive_initial(now, method, message, flow, key);
        }
    }

    fn receive_initial(
        &mut self,
        now: Instant,
        method: &Method,
        message: Message,
        flow: Flow,
        key: u128,
    ) {
        let arrival = self.arrival_key(&message);
        // A REGISTER that comes twice says nothing else the second time, and a refusal could end what it began.
        let merged = *method != Method::Register && self.arrivals.contains_key(&arrival);
        // These live in a dialog only.
        let homeless = matches!(method, Method::Bye | Method::Prack | Method::Update);
        let refusal = match () {
            () if merged => Some(Reply::new(482)),
            () if homeless => Some(Reply::new(481)),
            () => None,
        };
        if *method == Method::Invite && refusal.is_none() {
            if self.calls.len() >= self.settings.max_calls {
                self.refuse_full(&message, flow);
                return;
            }
            self.receive_invite(now, message, flow, key, arrival);
            return;
        }
        let tag = self.fresh_token();
        let user = if refusal.is_some() { ServerUser::Own } else { ServerUser::Requested };
        let transaction = self.open_server(now, message.clone(), flow, key, tag, user);
        if let Some(reply) = refusal {
            self.reply(now, transaction, &reply, &[]);
            return;
        }
        self.mark_arrival(transaction, arrival);
        self.event(Event::Requested { request: RequestKey(transaction), message, flow });
    }

    /// Answers a request handed up by [`Event::Requested`].
    pub fn respond(&mut self, now: Instant, request: RequestKey, reply: Reply) {
        self.answer_request(now, request.0, reply);
    }

    /// Answers a request handed up by [`Event::Offer`] or [`Event::InDialog`].
    pub fn in_dialog_answer(&mut self, now: Instant, request: RequestKey, reply: Reply) {
        self.answer_request(now, request.0, reply);
    }

    // --- requests that go out ---

    /// Sends a request outside of a dialog. [`Event::Response`] tells its end.
    pub fn request(&mut self, now: Instant, request: OutRequest) -> RequestKey {
        self.latest = Some(now);
        let tag = request.from_tag.clone().unwrap_or_else(|| self.fresh_token());
        let from = [request.from.as_bytes(), b";tag=", tag.as_bytes()].concat();
        let call_id =
            if request.call_id.is_empty() { self.fresh_call_id() } else { request.call_id.clone() };
        let (branch, via) = self.fresh_via();
        let bytes = wire::request(&request, &call_id, &from, &via);
        let next_hop = wire::next_hop(&request.next_hop, &request.route, &request.request_uri);
        let key = self.open_client(now, bytes, branch, next_hop, ClientUser::OutOfDialog, None);
        RequestKey(key)
    }

    // --- small helpers ---

    /// Entries of the tables that lead to transactions and calls, for leak tests.
    #[cfg(test)]
    fn indexes(&self) -> usize {
        let transactions = self.clients.len() + self.servers.len() + self.arrivals.len();
        transactions + self.dialogs.len() + self.watched.len()
    }

    fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    /// An event of a call, unless the layer above has forgotten it.
    fn call_event(&mut self, call: Key, event: Event) {
        if self.calls.get(call).is_some_and(|call| !call.closed) {
            self.event(event);
        }
    }

    fn send(&mut self, key: SendKey, to: Target, bytes: Bytes, call: Option<Key>) {
        let via_at = matches!(to, Target::NextHop { .. }).then(|| wire::via_at(&bytes));
        self.out.push_back(Output::Send { key, to, bytes, via_at, call: call.map(CallKey) });
    }

    /// A tag of ours.
    pub fn fresh_tag(&mut self) -> String {
        self.fresh_token()
    }

    fn fresh_token(&mut self) -> String {
        wire::token(self.settings.thread, self.random.next_u64())
    }

    /// A Call-ID of ours: `lm-`, the thread's two digits, random ones, `@` and our host.
    pub fn fresh_call_id(&mut self) -> String {
        let random = self.random.next_u64();
        let host = self
            .settings
            .sent_by
            .rsplit_once(':')
            .map_or(self.settings.sent_by.as_str(), |(host, _)| host);
        format!("lm-{}@{host}", wire::token(self.settings.thread, random))
    }

    fn fresh_via(&mut self) -> (u64, String) {
        let branch = self.random.next_u64();
        (branch, wire::via(&self.settings.sent_by, self.settings.thread, branch))
    }

    fn hash(&self, parts: &[&[u8]]) -> u128 {
        let [high, low] = &self.hashers;
        (u128::from(high.hash_one(parts)) << 64) | u128::from(low.hash_one(parts))
    }

    fn dialog_key(&self, call_id: &[u8], local_tag: &[u8]) -> u128 {
        self.hash(&[call_id, local_tag])
    }

    /// What a message's session description says, in few octets: see [`wire::media`].
    fn media_key(&self, message: &Message) -> Option<u128> {
        wire::media(message).map(|media| self.hash(&[&media]))
    }

    /// What makes two requests the same one (RFC 3261 §17.2.3). ACK is matched to its INVITE.
    fn server_key(&self, request: &Message, method: &Method) -> u128 {
        let method = if *method == Method::Ack { &Method::Invite } else { method };
        self.server_key_as(request, method)
    }

    fn server_key_as(&self, request: &Message, method: &Method) -> u128 {
        let via = request.via();
        let branch = via.branch.unwrap_or("");
        let host = via.host.to_ascii_lowercase();
        let port = via.port.map_or([0, 0], u16::to_be_bytes);
        let parts = [method.as_str().as_bytes(), branch.as_bytes(), host.as_bytes(), &port];
        if wire::is_unique(branch) {
            return self.hash(&parts);
        }
        // A peer of RFC 2543: the branch alone says nothing.
        let number = request.cseq().number.to_be_bytes();
        let more = [
            request.uri().as_bytes(),
            request.from_tag().unwrap_or(b""),
            request.call_id(),
            &number,
        ];
        self.hash(&[&parts[..], &more[..]].concat())
    }

    /// RFC 3261 §8.2.2.2.
    fn arrival_key(&self, request: &Message) -> u128 {
        let cseq = request.cseq();
        let tag = request.from_tag().unwrap_or(b"");
        self.hash(&[
            tag,
            request.call_id(),
            &cseq.number.to_be_bytes(),
            cseq.method.as_str().as_bytes(),
        ])
    }

    fn refuse_full(&mut self, request: &Message, flow: Flow) {
        self.counts.refused_full += 1;
        let headers = format!("Retry-After: {}\r\n", self.settings.retry_after);
        let reply = Reply { headers: headers.into(), ..Reply::new(503) };
        self.answer_statelessly(request, flow, &reply);
    }

    /// The same request gets the same tag again, though nothing is kept (RFC 3261 §8.2.7).
    fn answer_statelessly(&mut self, request: &Message, flow: Flow, reply: &Reply) {
        let key = self.server_key_as(request, &request.cseq().method);
        let tag = wire::token(self.settings.thread, (key >> 64) as u64);
        let mut writer = wire::response(request, &flow, reply, &tag, &self.settings.server);
        self.repeat_into(&mut writer, request, &flow, reply);
        let bytes = wire::finish_response(writer, reply);
        self.send(SendKey::NONE, Target::Flow(flow), bytes, None);
    }

    /// From now on every response but 100, whoever decides on it, has the lines that `lines` makes of its request.
    pub fn repeat(&mut self, lines: impl Fn(&Message, &Flow, &Reply) -> Bytes + Send + 'static) {
        self.repeat = Some(Box::new(lines));
    }

    pub(super) fn repeat_into(
        &self,
        writer: &mut Writer,
        request: &Message,
        flow: &Flow,
        reply: &Reply,
    ) {
        if let Some(lines) = self.repeat.as_ref().filter(|_| reply.status > 100) {
            writer.lines(&lines(request, flow, reply));
        }
    }

    /// A header line that names what of Require is not understood, if anything is.
    fn unsupported(&self, request: &Message, understood: &[&str]) -> Option<String> {
        let known =
            |tag: &[u8]| understood.iter().any(|known| tag.eq_ignore_ascii_case(known.as_bytes()));
        let unknown: Vec<_> = request
            .values(Name::Require)
            .filter(|tag| !known(tag))
            .map(String::from_utf8_lossy)
            .collect();
        (!unknown.is_empty()).then(|| format!("Unsupported: {}\r\n", unknown.join(", ")))
    }

    /// Why a request in a dialog is refused whatever it is about: RFC 3261 §16.3, §8.2.2.3.
    fn refusal_of_any(&self, request: &Message) -> Option<Reply> {
        if request.text(Name::MaxForwards).is_some_and(|hops| hops.trim().parse() == Ok(0_u32)) {
            return Some(Reply::new(483));
        }
        let headers = self.unsupported(request, &[])?;
        Some(Reply { headers: headers.into(), ..Reply::new(420) })
    }

    /// A request of a subscription: refused here, or given on to whoever subscribed or notifies.
    fn judged(
        &mut self,
        now: Instant,
        (message, flow, server): (&Message, Flow, u128),
        refusal: Option<Reply>,
        event: impl FnOnce(RequestKey) -> Event,
    ) {
        let user = ServerUser::Requested;
        let transaction = self.open_server(now, message.clone(), flow, server, String::new(), user);
        match refusal {
            Some(refusal) => {
                self.reply(now, transaction, &refusal, &[]);
            }
            None => self.event(event(RequestKey(transaction))),
        }
    }

    fn stop_timer(&mut self, token: Option<timers::Token>) {
        if let Some(token) = token {
            self.timers.stop(token);
        }
    }

    fn call_timer(&mut self, now: Instant, key: Key, timer: CallTimer) {
        match timer {
            CallTimer::Answer(cseq) => self.repeat_answer(now, key, cseq),
            CallTimer::AckMissing(cseq) => self.ack_missing(now, key, cseq),
            CallTimer::Provisional => self.repeat_provisional(now, key),
            CallTimer::PrackMissing => self.prack_missing(now, key),
            CallTimer::CancelUnanswered => self.cancel_unanswered(key),
            CallTimer::Refresh => self.refresh_session(now, key),
            CallTimer::SessionEnd => self.session_over(now, key),
        }
    }

    /// Drops a call that nothing can come back to.
    fn reap(&mut self, key: Key) {
        let Some(call) = self.calls.get(key) else {
            return;
        };
        let over = call.closed && call.phase == Phase::Ended;
        if over && call.holds == 0 && call.unacknowledged.is_empty() {
            self.dialogs.remove(&call.index);
            self.calls.remove(key);
        }
    }
}
