//! SIP on ISC: requests into arrivals, effects into requests, answers into the engine's words.
//!
//! Start at [`Isc`], which owns the thread's [`Ua`] and knows which call is which page's. `inbound` judges an INVITE,
//! `messages` is a MESSAGE from end to end, `requests` judges everything else outside of dialogs, [`login`] who nobody
//! vouches for, `outbound` writes what leaves, `legs` reads what comes back, `doorstep` asks what a user lets in, `redirect`
//! where a recipient went, `downgrade` what is without TLS, `moves` what changes later. What is not ours passes by
//! `forward` or, as a dialog on either side, by `bridge`. [`reachable`] reads what the core tells of registered users,
//! [`registry`] holds it for all threads, `users` acts on it, `watching` subscribes to it. `following` subscribes to what
//! is cached of an XDMS, `notifying` tells others of the documents kept here; `subscribing` is how subscriptions of ours
//! live. [`rules`] are the pure rules on header values; [`settings`] is what operators choose.
//!
//! Never decides what a page does next (that is `engine`), opens no socket, asks no other server. Follows TS 24.229 5.7,
//! OMA clauses 7.5.1, 7.7.5.2, 7.7.7.1, 7.7.8.2 and RFC 5366.

mod bridge;
mod cema;
mod charged;
mod doorstep;
mod downgrade;
mod following;
mod forward;
mod inbound;
mod keepsake;
mod learning;
mod legs;
pub mod login;
mod messages;
mod moves;
mod notifying;
mod outbound;
pub mod reachable;
mod redirect;
pub mod registry;
mod requests;
pub mod rules;
pub mod settings;
mod subscribing;
mod users;
mod watching;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::content::fingerprint::Terms;
use crate::content::sdp::{Chosen, End, Peer};
use crate::engine::effect::Cause;
use crate::engine::ids::{LegId, PageId};
use crate::engine::input::{Arrival, Input, LegEvent, Mode, OriginatorEvent, Refusal};
use crate::engine::party::{self, Audience, Party, Recipient};
use crate::sip::message::{Limits, Malformed, Message, Method, Name};
use crate::sip::ua::{
    CallKey, Event, Output, RandomSource, Reply, RequestKey, SendKey, SubscriptionKey, Ua,
};
use crate::sip::{Flow, Protocol, Target, uri::Uri};

use bridge::Bridges;
pub use cema::Compare;
pub use doorstep::AtTheDoor;
use doorstep::Doorstep;
pub use downgrade::Downgrade;
pub use following::News;
use following::{DOCUMENTS, Following};
use forward::{Forward, Unsent};
use inbound::{Desk, Facts, texts};
pub use keepsake::BadKeepsake;
pub use learning::{Behalf, Learnt, Unknown};
use legs::{Leg, Page, Plain};
use login::Guard;
pub use moves::Move;
use notifying::Notifying;
pub use notifying::{DocumentState, Look};
use outbound::{Block, House, Personal, Stamp, Variant};
pub use redirect::{Place, Redirect};
use registry::Registry;
use rules::boundary::{Boundary, Crossing};
use rules::overload::{self, Shed};
use rules::own::{Asked, BadSetting, Own};
use rules::refusal;
use rules::route::Arrived;
use rules::served_user::{self, Case};
use rules::trust::Trust;
use settings::{Relay, Settings};
use users::Users;
pub use users::{Change, keys_of};
use watching::{REG, Watching};

/// What follows from an event of the SIP stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// Something the engine has to hear.
    Input(Input),
    /// A request was refused before the engine heard of it. It has been answered and logged.
    Refused(Refused),
    /// A side of an agreed session has another path: give it to the switch, then call [`Isc::moved`].
    Moved(Box<Move>),
    /// A recipient is elsewhere: give [`Isc::redirected`] the place that may be tried, if any.
    Redirected(Box<Redirect>),
    /// A recipient takes no TLS and may do without: give [`Isc::downgraded`] another end of its session.
    Downgraded(Box<Downgrade>),
    /// The table of registrations changed: have it kept, then call [`Isc::kept`] with the ticket, if there is one.
    Kept(Box<Change>),
    /// A request for one user waits for what that user's documents say: give it to [`Isc::let_in`].
    AtTheDoor(Box<AtTheDoor>),
    /// A user with these keys can be reached now: tell every thread's engine, once.
    Reachable(Arc<[Arc<str>]>),
    /// What the XDMS told of the documents that are cached of it.
    Documents(Vec<News>),
    /// Somebody watches documents: give [`Isc::tell`] how they stand.
    Look(Box<Look>),
    /// Only addresses tell whether two hosts are one: give [`Isc::compared`] the answer.
    Compare(Box<Compare>),
    /// A recipient has to be asked once more without CEMA: give [`Isc::invite_without_cema`] a fresh path.
    WithoutCema(LegId),
}

/// A refusal, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The page it would have been; other requests than INVITE have none.
    pub page: Option<PageId>,
    pub method: String,
    /// As it went out.
    pub status: u16,
    /// The Warning text, if any.
    pub text: String,
    /// The rule that decided, and the key that would change it.
    pub rule: &'static str,
    pub key: Option<&'static str>,
    /// As the core vouched for it.
    pub originator: Option<Party>,
    /// The Request-URI.
    pub dialled: String,
}

/// Where a new request goes.
enum Course {
    /// To the stack: for us, or to be refused.
    Ours,
    /// Past us, without a trace.
    Onward(Output),
    /// Through us, as a dialog on either side.
    Bridge,
    /// It was answered.
    Nowhere,
}

/// The SIP side of one thread's pages.
///
/// Contract: what came in goes to [`Isc::receive`], [`Isc::malformed`], [`Isc::sent`], [`Isc::send_failed`] or
/// [`Isc::wake`]; then [`Isc::poll`] until it is empty, sending what it says and giving events to [`Isc::on_event`].
/// Effects of the engine are performed by the methods named after them, in order. A page lives here from its
/// `Input::Arrived` until [`Isc::forget`].
pub struct Isc {
    house: House,
    own: Own,
    trust: Trust,
    boundary: Boundary,
    ua: Ua,
    random: Box<dyn RandomSource + Send>,
    forward: Forward,
    forwarded: VecDeque<Output>,
    bridges: Bridges,
    doorstep: Doorstep,
    barred: HashSet<String>,
    draining: bool,
    shed: Shed,
    pages: HashMap<PageId, Page>,
    trails: HashMap<CallKey, (PageId, Option<u16>)>,
    /// MESSAGEs of ours without a final answer.
    copies: HashMap<RequestKey, LegId>,
    plain: Plain,
    users: Users,
    watching: Watching,
    following: Following,
    notifying: Notifying,
    /// What happened without an event of the stack.
    happened: Vec<Happening>,
    guard: Guard,
}

/// Most registrations of a thread that shares none.
const OWN_REGISTRATIONS: usize = 10_000;
/// For messages that were within bounds before something was taken out.
const WRITTEN: Limits =
    Limits { max_message: usize::MAX, max_lines: usize::MAX, max_line: usize::MAX };

/// Retry-After while draining, seconds.
const DRAIN_RETRY: u32 = 30;

impl Isc {
    /// The SIP side of the thread `ua` was made for.
    ///
    /// # Errors
    /// [`BadSetting`] names a setting that is no URI.
    pub fn new(
        settings: Settings,
        ua: Ua,
        random: impl RandomSource + Send + 'static,
    ) -> Result<Self, BadSetting> {
        let own = Own::new(&settings)?;
        let mut random = random;
        let guard = Guard::new(std::array::from_fn(|_| random.next_u64()));
        let trust = Trust::new(&settings.sip.trusted_peers);
        let boundary = Boundary::new(&settings)?;
        let (sent_by, thread) = (ua.settings().sent_by.clone(), ua.settings().thread);
        let registry = Registry::new(OWN_REGISTRATIONS, settings.isc.reg_grace);
        let mut isc = Self {
            house: house(settings, &sent_by, thread),
            own,
            trust,
            boundary,
            forward: Forward::new(&sent_by, thread),
            forwarded: VecDeque::new(),
            bridges: Bridges::default(),
            doorstep: Doorstep::default(),
            ua,
            random: Box::new(random),
            barred: HashSet::new(),
            draining: false,
            shed: Shed::default(),
            pages: HashMap::new(),
            trails: HashMap::new(),
            copies: HashMap::new(),
            plain: Plain::default(),
            users: Users::new(Arc::new(registry)),
            watching: Watching::default(),
            following: Following::default(),
            notifying: Notifying::default(),
            happened: Vec::new(),
            guard,
        };
        isc.repeat_charging();
        Ok(isc)
    }

    /// Shares nonces and their counts with the other threads of the node: a phone may come back to any of them.
    #[must_use]
    pub fn guarded_by(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Takes new settings. What was accepted stays accepted; what is sent from now on follows the new ones.
    ///
    /// # Errors
    /// [`BadSetting`]; the old settings stay in force.
    pub fn reload(&mut self, settings: Settings) -> Result<(), BadSetting> {
        let boundary = Boundary::new(&settings)?;
        self.own = Own::new(&settings)?;
        self.boundary = boundary;
        self.trust = Trust::new(&settings.sip.trusted_peers);
        let (sent_by, thread) = (self.ua.settings().sent_by.clone(), self.house.thread);
        self.users.registry.set_grace(settings.isc.reg_grace);
        self.house = house(settings, &sent_by, thread);
        self.repeat_charging();
        Ok(())
    }

    /// ISC-026: every answer repeats the charging vector of its request, also one the stack gives itself.
    fn repeat_charging(&mut self) {
        let (house, trust) = (self.house.clone(), self.trust.clone());
        let boundary = self.boundary.clone();
        self.ua.repeat(move |request, flow, reply| {
            let believed = boundary.believes(&trust, flow);
            let there = memchr::memmem::find(&reply.headers, b"P-Charging-Vector:").is_some();
            let value = request.text(Name::PChargingVector).filter(|_| believed && !there);
            let vector = value.and_then(rules::charging::ChargingVector::parse);
            Bytes::from(outbound::charging_line(&house, vector.as_ref()))
        });
    }

    /// The SIP stack underneath.
    pub fn ua(&mut self) -> &mut Ua {
        &mut self.ua
    }

    /// The value for the Server header of everything the stack answers itself (IM-044).
    pub fn product(settings: &Settings) -> String {
        format!("IM-serv/OMA{} {}", settings.im.release, settings.im.vendor)
    }

    /// No new pages from now on: 503 with Retry-After (IM-036, ISC-072).
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// How much of what is new is sent away from now on (ISC-069).
    pub fn overload(&mut self, shed: Shed) {
        self.shed = shed;
    }

    /// An operator bars a user, or lets one in again.
    pub fn bar(&mut self, uri: &str, barred: bool) {
        // By both names of a number: users of other homes come with a key of their own (UL-011).
        let plain = Uri::parse(uri).map_or_else(|_| uri.to_owned(), |uri| uri.canonical());
        for key in [plain, self.user_key(uri).to_string()] {
            if barred {
                self.barred.insert(key);
            } else {
                self.barred.remove(&key);
            }
        }
    }

    // --- what comes in ---

    /// A message came. What is somebody else's goes on at once, the rest goes to the stack.
    pub fn receive(&mut self, now: Instant, message: Message, flow: Flow) {
        let believed = self.believes(&flow);
        let Some(message) = without(&self.boundary.arriving(believed), message) else { return };
        if !message.is_request() {
            // An answer may come from outside, too, where that is where requests go.
            let awaited = self.boundary.is_outside_address(flow.peer.ip());
            let heard = awaited || self.trust.admits(&flow);
            match self.forward.response(&message, flow, believed).filter(|_| heard) {
                Some(output) => self.forwarded.push_back(output),
                None => self.ua.receive(now, message, flow),
            }
        } else if self.bridges.owns(&message) {
            self.ua.receive_through(now, message, flow);
        } else if self.ua.knows(&message) {
            self.ua.receive(now, message, flow);
        } else if !self.sheds(&message, flow) && !self.waits(now, &message, flow) {
            self.takes_its_course(now, message, flow);
        }
    }

    /// A new message goes where it belongs.
    fn takes_its_course(&mut self, now: Instant, message: Message, flow: Flow) {
        match self.course(now, &message, flow) {
            Course::Ours => self.ua.receive(now, message, flow),
            Course::Onward(output) => self.forwarded.push_back(output),
            Course::Bridge => self.ua.receive_through(now, message, flow),
            Course::Nowhere => {}
        }
    }

    /// Bytes came that are no message.
    ///
    /// ISC-066: 5xx would mean that the S-CSCF shall go on without us.
    pub fn malformed(&mut self, now: Instant, mut malformed: Malformed, flow: Flow) {
        tracing::info!(peer = %flow.peer, status = malformed.status, what = malformed.what, "malformed message");
        if malformed.status >= 500 && self.house.settings.profile.is_ims() {
            malformed.status = 400;
        }
        self.ua.malformed(now, malformed, flow);
    }

    /// The transport chose a protocol.
    pub fn sent(&mut self, now: Instant, key: SendKey, protocol: Protocol) {
        match key.number() {
            Some(number) => self.forward.sent(number, protocol),
            None => self.ua.sent(now, key, protocol),
        }
    }

    /// The transport gave a message up.
    pub fn send_failed(&mut self, now: Instant, key: SendKey, more: bool) {
        let Some(number) = key.number() else {
            self.ua.send_failed(now, key, more);
            return;
        };
        match self.forward.send_failed(number, more) {
            Some(Unsent::Again(output)) => self.forwarded.push_back(output),
            Some(Unsent::Lost(request, flow)) => self.lost(now, &request, flow),
            None => {}
        }
    }

    /// A request that was only to pass finds nobody.
    ///
    /// Deviation from ISC-066: 503 although nothing is overloaded. It is no refusal: without us the S-CSCF may still find
    /// a way, and silence would cost the caller half a minute. Nobody waits for the answer to an ACK or CANCEL.
    fn lost(&mut self, now: Instant, request: &Message, flow: Flow) {
        if matches!(request.method(), Some(Method::Ack | Method::Cancel)) {
            return;
        }
        let refusal = Refusal::new(503, "ISC-066");
        let facts = inbound::facts(&self.desk(), now, request, &flow);
        self.happened.push(refused(None, request, &facts, &refusal, 503));
        self.ua.refuse(request, flow, &outbound::refuse(&self.house, &facts, &refusal));
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Instant) {
        self.ua.wake(now);
        self.bridges.wake(now, &mut self.ua);
        let mut happened = std::mem::take(&mut self.happened);
        self.users_due(now, &mut happened);
        self.watching_due(now);
        self.following_due(now, &mut happened);
        self.happened = happened;
        self.doorstep_due(now);
    }

    /// What happened without an event of the stack, by time alone or to requests it never heard of, once each; to be
    /// asked for when [`Isc::poll`] is empty.
    pub fn happened(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happened)
    }

    /// When to call [`Isc::wake`] at the latest.
    pub fn next_wake(&self) -> Option<Instant> {
        let own = [
            self.users.next_wake(),
            self.watching.next_wake(),
            self.following.next_wake(),
            self.bridges.next_wake(),
            self.doorstep.next_wake(),
        ];
        own.into_iter().chain([self.ua.next_wake()]).flatten().min()
    }

    /// How many calls pass through us as dialogs.
    pub fn relayed(&self) -> usize {
        self.bridges.len()
    }

    /// Everything that is kept for them, for leak tests.
    pub fn relay_held(&self) -> usize {
        self.bridges.held()
    }

    /// Ends them all, with BYE to both ends: the node stops.
    pub fn end_relayed(&mut self, now: Instant) {
        self.bridges.release_all(now, &mut self.ua);
    }

    /// The next thing to send or to hear of.
    pub fn poll(&mut self) -> Option<Output> {
        loop {
            let passed = self.forwarded.pop_front();
            let ours = passed.is_none();
            let output = passed.or_else(|| self.ua.poll())?;
            if let Some(output) = self.leave(output, ours) {
                return Some(output);
            }
        }
    }

    /// Whether what comes this way, or goes back, is inside the trust domain.
    fn believes(&self, flow: &Flow) -> bool {
        self.boundary.believes(&self.trust, flow)
    }

    /// What is sent, without what its next hop may not see.
    ///
    /// ISC-031, ISC-073: every request and answer passes here, whoever wrote it.
    fn leave(&self, output: Output, ours: bool) -> Option<Output> {
        let Output::Send { key, to, bytes, via_at, call } = output else { return Some(output) };
        let crossing = match &to {
            Target::Flow(flow) => self.boundary.answering(self.believes(flow), ours),
            Target::NextHop { uri, .. } => {
                let uri = Uri::parse(uri).ok();
                self.boundary.leaving(uri.as_ref().map_or("", Uri::host), ours)
            }
        };
        let plain = !self.house.settings.profile.is_ims();
        if crossing.is_open() || (plain && !rules::boundary::names_ims(&bytes)) {
            return Some(Output::Send { key, to, bytes, via_at, call });
        }
        let start = |bytes: &Bytes| memchr::memchr(b'\n', bytes).unwrap_or_default();
        let before = start(&bytes);
        let message = match Message::parse(bytes.clone(), &WRITTEN) {
            Ok(message) => message,
            Err(malformed) => {
                // A refusal of what had no Via, say: it repeats nothing but that request's own lines.
                tracing::debug!(what = malformed.what, "cannot look into what is sent");
                return Some(Output::Send { key, to, bytes, via_at, call });
            }
        };
        let bytes = crossing.apply(&message).unwrap_or(bytes);
        // The Via is the first line after the start line, which may have become shorter.
        let via_at = via_at.map(|at| (at + start(&bytes)).saturating_sub(before));
        Some(Output::Send { key, to, bytes, via_at, call })
    }

    /// Whose call this is, for call flows.
    pub fn trail_of(&self, call: CallKey) -> Option<(PageId, Option<LegId>)> {
        let (page, n) = *self.trails.get(&call)?;
        Some((page, n.map(|n| LegId { page, n })))
    }

    /// How many pages have dialogs here.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Sends a new request away while there is too much to do.
    ///
    /// ISC-069, IM-036: before any work, and only what was not taken before.
    fn sheds(&mut self, message: &Message, flow: Flow) -> bool {
        let trusted = self.trust.admits(&flow);
        let Shed { pressure, retry_after } = self.shed;
        if !pressure.sheds(message, trusted) || self.forward.knows(message) {
            return false;
        }
        let refusal = Refusal {
            retry_after: Some(retry_after.clamp(1, 30)),
            ..Refusal::new(503, "ISC-069").key("node.max_lag")
        };
        let reply = outbound::refuse(&self.house, &Facts::default(), &refusal);
        self.ua.refuse(message, flow, &reply);
        self.happened.push(Happening::Refused(Refused {
            page: None,
            method: message.method().map_or_else(String::new, |method| method.as_str().to_owned()),
            status: 503,
            text: String::new(),
            rule: refusal.rule,
            key: refusal.key,
            originator: None,
            dialled: message.uri().to_owned(),
        }));
        true
    }

    /// Which way a new request takes.
    ///
    /// IM-023, IM-037, ISC-005, ISC-021: for a user or a foreign group, and with more Route behind our entry, it is only
    /// on its way through us. A leg of our own is never expanded again, whoever it is for. ISC-079: an emergency always
    /// takes the way that touches least, and so does everything once we are about to stop.
    fn course(&mut self, now: Instant, message: &Message, flow: Flow) -> Course {
        let Some(arrived) = self.passes(message, flow) else { return Course::Ours };
        let companion = matches!(message.method(), Some(Method::Ack | Method::Cancel));
        let dialog = message.to_tag().is_some();
        if self.house.settings.isc.relay == Relay::B2bua {
            if companion && self.forward.route_of(message).is_none() {
                return Course::Ours;
            }
            let plain = companion
                || dialog
                || self.draining
                || message.method() == Some(Method::Register)
                || overload::is_emergency(message)
                || self.forward.knows(message);
            if !plain {
                return Course::Bridge;
            }
        }
        // RFC 3261 §16.3 step 5: who passes a request on has to know what is required of him.
        let unknown: Vec<&str> = texts(message, Name::ProxyRequire)
            .filter(|tag| !companion && !tag.eq_ignore_ascii_case("privacy"))
            .collect();
        if !unknown.is_empty() {
            let refusal = refusal::unsupported(&unknown, "ISC-052");
            let facts = inbound::facts(&self.desk(), now, message, &flow);
            self.happened.push(refused(None, message, &facts, &refusal, 420));
            self.ua.refuse(message, flow, &outbound::refuse(&self.house, &facts, &refusal));
            return Course::Nowhere;
        }
        match self.forward.request(message, flow, &arrived) {
            Some(output) => Course::Onward(output),
            None => Course::Ours,
        }
    }

    /// The Route of a request that is not for us.
    fn passes(&self, message: &Message, flow: Flow) -> Option<Arrived> {
        if !self.trust.admits(&flow) {
            return None;
        }
        let mut arrived = Arrived::read(texts(message, Name::Route), |uri| self.own.is_us(uri));
        let companion = matches!(message.method(), Some(Method::Ack | Method::Cancel));
        if companion && !arrived.ours {
            // Some peers leave the Route out where it has to be that of the INVITE (RFC 3261 §9.1, §17.1.1.3).
            arrived = self.forward.route_of(message).unwrap_or_default();
        }
        if !arrived.ours || arrived.rest.is_empty() {
            return None;
        }
        let passes = match self.own.classify(message.uri()) {
            Asked::Other => true,
            Asked::Factory(_) | Asked::Group(_) => {
                inbound::is_own_call(message.call_id(), &self.house.host) || is_diverted(message)
            }
            Asked::Server | Asked::Session | Asked::Documents => false,
        };
        passes.then_some(arrived)
    }

    /// Something happened in the stack; what the engine or operators have to hear is added to `out`.
    pub fn on_event(&mut self, now: Instant, event: Event, out: &mut Vec<Happening>) {
        match event {
            Event::Invited { call, message, flow } => self.invited(now, call, &message, flow, out),
            Event::Requested { request, message, flow } => {
                self.requested(now, request, &message, flow, out);
            }
            Event::Provisional { call, fork, message, .. } => {
                self.on_leg(call, out, |leg, _| Some(leg.provisional(fork, &message)));
            }
            Event::Answered { call, fork, message } => self.answered(call, &fork, &message, out),
            Event::Rejected { call, status, message, cause } => {
                if !self.tried_again(now, call, status, message.as_ref()) {
                    let event = legs::rejected(status, message.as_ref(), cause);
                    if let Some(redirect) = self.elsewhere(call, status, message.as_ref(), &event) {
                        out.push(Happening::Redirected(Box::new(redirect)));
                    } else if let Some(downgrade) = self.unsecured(call, status, &event) {
                        out.push(Happening::Downgraded(Box::new(downgrade)));
                    } else {
                        self.on_leg(call, out, |_, _| Some(event));
                    }
                }
            }
            Event::Bye { call, .. } => {
                self.on_side(call, out, OriginatorEvent::Bye, LegEvent::Bye);
            }
            Event::SessionExpired { call } => {
                self.on_side(call, out, OriginatorEvent::Expired, LegEvent::Expired);
            }
            Event::Cancelled { call } => self.on_originator(call, out, OriginatorEvent::Cancelled),
            Event::Acked { call } => self.on_originator(call, out, OriginatorEvent::Acked),
            Event::AckMissing { call } => {
                self.on_originator(call, out, OriginatorEvent::AckMissing);
            }
            Event::PrackMissing { call } => {
                self.on_originator(call, out, OriginatorEvent::PrackMissing);
            }
            Event::Offer { call, request, message } => {
                match self.new_path(call, request, &message) {
                    Ok(moved) => out.push(cema::compared_first(moved)),
                    Err(refusal) => self.in_dialog(now, request, &refusal),
                }
            }
            Event::InDialog { request, message, .. } => {
                if message.method() == Some(Method::Options) {
                    self.ua.in_dialog_answer(now, request, Reply::new(200));
                } else {
                    self.in_dialog(
                        now,
                        request,
                        &refusal::method("IM-046", refusal::ALLOW_WITHOUT_MESSAGE),
                    );
                }
            }
            Event::Through(through) => {
                let own = &self.own;
                let route = |message: &Message| {
                    Arrived::read(texts(message, Name::Route), |uri| own.is_us(uri)).rest
                };
                self.bridges.on(now, &mut self.ua, &self.house, through, route);
            }
            Event::Subscribed { subscription, status, message } => {
                self.subscribed(now, subscription, (status, message.as_ref()), out);
            }
            Event::Notified { subscription, request, message, flow } => {
                self.notified(now, (subscription, request), &message, &flow, out);
            }
            Event::NotifyDue { watcher, whole, lost } => {
                self.notify_due(now, watcher, (whole, lost), out);
            }
            Event::Resubscribed { watcher, request, message, flow } => {
                self.watch_again(now, watcher, request, &message, &flow, out);
            }
            Event::WatcherGone { watcher, status } => self.watcher_gone(watcher, status),
            Event::Response { request, status, message } => {
                if let Some((leg, event)) =
                    self.copy_answered(now, request, status, message.as_ref())
                {
                    out.push(Happening::Input(Input::Leg { leg, event }));
                }
            }
            Event::Stray { .. } => {}
        }
    }

    /// The answer to a SUBSCRIBE of ours.
    fn subscribed(
        &mut self,
        now: Instant,
        subscription: SubscriptionKey,
        (status, message): (u16, Option<&Message>),
        out: &mut Vec<Happening>,
    ) {
        if let Some(user) = self.watching.key_of(subscription) {
            self.watch_answered(now, &user, status, message);
        } else if self.following.is(subscription) {
            self.follow_answered(now, status, message, out);
        }
    }

    /// A NOTIFY of one of our subscriptions.
    ///
    /// ISC-048, XD-042: 200 at once, whatever it holds.
    fn notified(
        &mut self,
        now: Instant,
        (subscription, request): (SubscriptionKey, RequestKey),
        message: &Message,
        flow: &Flow,
        out: &mut Vec<Happening>,
    ) {
        let user = self.watching.key_of(subscription);
        let package = match &user {
            Some(_) => Some(&REG),
            None => self.following.is(subscription).then_some(&DOCUMENTS),
        };
        let status = match package {
            _ if !self.believes(flow) => 403,
            None => 481,
            Some(package) if !package.is_of(message) => 489,
            Some(_) => 200,
        };
        self.ua.respond(now, request, Reply::new(status));
        match user {
            _ if status != 200 => {}
            Some(user) => self.watch_notified(now, &user, message, out),
            None => self.follow_notified(now, message, out),
        }
    }

    fn in_dialog(&mut self, now: Instant, request: RequestKey, refusal: &Refusal) {
        tracing::info!(rule = refusal.rule, status = refusal.status, "request in a dialog refused");
        let reply = outbound::refuse(&self.house, &Facts::default(), refusal);
        self.ua.in_dialog_answer(now, request, reply);
    }

    fn desk(&self) -> Desk<'_> {
        Desk {
            settings: &self.house.settings,
            own: &self.own,
            trust: &self.trust,
            boundary: &self.boundary,
            barred: &self.barred,
            closed: self.draining.then_some(DRAIN_RETRY),
            host: &self.house.host,
            guard: &self.guard,
        }
    }

    fn invited(
        &mut self,
        now: Instant,
        call: CallKey,
        message: &Message,
        flow: Flow,
        out: &mut Vec<Happening>,
    ) {
        let id = PageId::new(self.house.thread, self.random.next_u64());
        let desk = self.desk();
        let facts = inbound::facts(&desk, now, message, &flow);
        match inbound::check(&desk, message, &flow, &facts) {
            Ok(origin) => {
                let size = origin.chosen.as_ref().and_then(|chosen| chosen.size);
                let page = page(now, origin, facts);
                self.trails.insert(call, (id, None));
                let page = Page { call: Some(call), ..page };
                self.arrives(now, message, (id, Mode::Large, size), page, out);
            }
            Err(refusal) => {
                let reply = outbound::refuse(&self.house, &facts, &refusal);
                // To be asked who one is is no refusal.
                if reply.status != 401 {
                    out.push(refused(Some(id), message, &facts, &refusal, reply.status));
                }
                self.ua.reject(now, call, reply);
                self.ua.close(call);
            }
        }
    }

    /// A page that passed every check goes to the engine.
    fn arrives(
        &mut self,
        now: Instant,
        message: &Message,
        (id, mode, size): (PageId, Mode, Option<u64>),
        mut page: Page,
        out: &mut Vec<Happening>,
    ) {
        let facts = &page.facts;
        let Some(originator) = facts.parties.first().cloned() else { return };
        let access = texts(message, Name::PAccessNetworkInfo).filter(|_| facts.trusted);
        if let Some(access) = rules::access::best(access, self.house.settings.profile) {
            let network_provided = access.network_provided;
            tracing::debug!(page = %id, access = access.kind, network_provided, "page asked for");
        }
        self.inform(now, &mut page.origin);
        let origin = &page.origin;
        out.push(Happening::Input(Input::Arrived(Arrival {
            page: id,
            mode,
            originator,
            identities: facts.parties.clone(),
            target: origin.target.clone(),
            dialled: origin.dialled.clone(),
            anonymous: origin.anonymous,
            size,
            reliable: origin.reliable,
            urgent: overload::is_urgent(message),
            aliases: self.aliases(now, facts),
            lifetime: origin.expires.map(|seconds| Duration::from_secs(seconds.into())),
        })));
        self.pages.insert(id, page);
    }

    fn requested(
        &mut self,
        now: Instant,
        request: RequestKey,
        message: &Message,
        flow: Flow,
        out: &mut Vec<Happening>,
    ) {
        let desk = self.desk();
        let facts = inbound::facts(&desk, now, message, &flow);
        if notifying::is_asked(&desk, message) {
            let admitted = requests::admit(&desk, message, &flow, &facts);
            let watched =
                admitted.and_then(|()| self.watch_documents(now, request, message, &facts));
            if let Err(refusal) = watched {
                let reply = outbound::refuse(&self.house, &facts, &refusal);
                if reply.status != 401 {
                    out.push(refused(None, message, &facts, &refusal, reply.status));
                }
                self.ua.respond(now, request, reply);
            }
            return;
        }
        if message.method() == Some(Method::Message)
            && matches!(self.own.classify(message.uri()), Asked::Factory(_) | Asked::Group(_))
        {
            return self.messaged(now, request, message, (&flow, facts), out);
        }
        let (reply, refusal) = requests::answer(&self.house, &desk, message, &flow, &facts);
        if let Some(refusal) = refusal.filter(|refusal| refusal.status != 401) {
            out.push(refused(None, message, &facts, &refusal, reply.status));
        } else if message.method() == Some(Method::Register) {
            self.registered(now, message, (request, reply), out);
            return;
        }
        self.ua.respond(now, request, reply);
    }

    /// Tells the engine what happened to a recipient's dialog.
    fn on_leg(
        &mut self,
        call: CallKey,
        out: &mut Vec<Happening>,
        what: impl FnOnce(&mut Leg, Terms) -> Option<LegEvent>,
    ) {
        let Some((page, Some(n))) = self.trails.get(&call).copied() else { return };
        let Some(state) = self.pages.get_mut(&page) else { return };
        let terms = self.house.settings.media.terms();
        let event = state.legs.get_mut(&n).and_then(|leg| what(leg, terms));
        if let Some(event) = event {
            let leg = LegId { page, n };
            out.push(Happening::Input(Input::Leg { leg, event }));
        }
    }

    fn on_originator(&mut self, call: CallKey, out: &mut Vec<Happening>, event: OriginatorEvent) {
        let Some((page, None)) = self.trails.get(&call).copied() else { return };
        if let Some(state) = self.pages.get_mut(&page) {
            // ISC-006: whatever it was, the transaction that brought the dialog identifier is over or answered.
            state.answered = true;
            out.push(Happening::Input(Input::Originator { page, event }));
        }
    }

    fn on_side(
        &mut self,
        call: CallKey,
        out: &mut Vec<Happening>,
        originator: OriginatorEvent,
        leg: LegEvent,
    ) {
        self.on_originator(call, out, originator);
        self.on_leg(call, out, |_, _| Some(leg));
    }

    /// IM-062: one more try, where a changed INVITE may do better.
    fn tried_again(
        &mut self,
        now: Instant,
        call: CallKey,
        status: u16,
        message: Option<&Message>,
    ) -> bool {
        let Some(message) = message.filter(|_| self.house.settings.im.retry) else { return false };
        let Some((page, Some(n))) = self.trails.get(&call).copied() else { return false };
        let Some(leg) = self.pages.get_mut(&page).and_then(|page| page.legs.get_mut(&n)) else {
            return false;
        };
        let Some(variant) = leg.second_try(status, message) else { return false };
        if variant.plain && status == 415 {
            self.plain.learn(&leg.recipient.party.key);
        }
        leg.retried = true;
        leg.variant = variant;
        leg.early = None;
        let Some(invite) = self.invite_of(now, LegId { page, n }) else { return false };
        tracing::info!(leg = %LegId { page, n }, status, rule = "IM-062", "INVITE tried again");
        self.ua.invite_again(now, call, invite);
        true
    }

    /// ISC-070: where a 3xx says the recipient is, if anybody wants to know.
    fn elsewhere(
        &self,
        call: CallKey,
        status: u16,
        message: Option<&Message>,
        refused: &LegEvent,
    ) -> Option<Redirect> {
        let message = message.filter(|_| (300..400).contains(&status))?;
        let (page, n) = *self.trails.get(&call)?;
        let n = n?;
        if !self.house.settings.im.recurse_3xx {
            let leg = LegId { page, n };
            tracing::info!(%leg, status, rule = "ISC-070", key = "im.recurse_3xx", "redirection refused");
            return None;
        }
        let leg = self.pages.get(&page)?.legs.get(&n)?;
        Redirect::of(LegId { page, n }, leg, status, message, refused)
    }

    // --- what the engine wants ---

    /// The session of this recipient runs over TLS.
    ///
    /// IM-078.
    pub fn is_secure(&self, leg: LegId) -> bool {
        let came = self.media_of_originator(leg.page).is_some_and(|c| c.peer.proof.is_some());
        self.house.settings.media.secures(came)
    }

    /// Invites one recipient. `own` is the end of the session the switch reserved for this leg; a path alone is one
    /// without TLS.
    ///
    /// IM-001, IM-002.
    pub fn invite(
        &mut self,
        now: Instant,
        leg: LegId,
        recipient: &Recipient,
        own: impl TryInto<End, Error: Debug>,
        audience: &Arc<Audience>,
    ) {
        let own = own.try_into().expect("the switch writes URIs that can be read");
        let call_id = self.ua.fresh_call_id();
        let random = self.random.next_u64();
        let Some(page) = self.pages.get_mut(&leg.page) else {
            tracing::error!(%leg, "no such page to invite for");
            return;
        };
        let state = Leg {
            call: None,
            recipient: recipient.clone(),
            audience: audience.clone(),
            own,
            version: 1,
            random,
            call_id,
            variant: Variant::default(),
            cema: self.house.settings.media.cema,
            multipart: false,
            retried: false,
            cancelled: false,
            early: None,
            peer: None,
            theirs: None,
        };
        // A recipient who is invited once more: what is left of the first time is the stack's.
        if let Some(call) = page.legs.insert(leg.n, state).and_then(|old| old.call) {
            self.trails.remove(&call);
            self.ua.close(call);
        }
        self.send_first(now, leg);
    }

    /// Sends the INVITE of a leg that has no call.
    fn send_first(&mut self, now: Instant, leg: LegId) {
        let Some(invite) = self.invite_of(now, leg) else { return };
        let call = self.ua.invite(now, invite);
        self.trails.insert(call, (leg.page, Some(leg.n)));
        if let Some(state) = self.leg_mut(leg) {
            state.call = Some(call);
        }
    }

    /// The INVITE of a leg as it stands now.
    fn invite_of(&mut self, now: Instant, leg: LegId) -> Option<crate::sip::ua::Invite> {
        let page = self.pages.get_mut(&leg.page)?;
        let way = outbound::way(&self.house, &page.origin, page.answered);
        let state = page.legs.get_mut(&leg.n)?;
        let chosen = page.origin.chosen.as_ref()?;
        let block = page.block.get_or_insert_with(|| {
            let (origin, facts, mode) = (&page.origin, &page.facts, Mode::Large);
            Block::new(&self.house, (leg.page, mode), origin, facts, way.kind, &state.audience)
        });
        let elapsed = now.saturating_duration_since(page.since).as_secs();
        let who = Personal {
            leg,
            call_id: &state.call_id,
            random: state.random,
            recipient: &state.recipient,
            audience: &state.audience,
            elapsed: u32::try_from(elapsed).unwrap_or(u32::MAX),
        };
        let stamp = Stamp {
            who,
            own: &state.own,
            chosen,
            variant: &state.variant,
            plain: self.plain.knows(&state.recipient.party.key),
            cema: state.cema,
        };
        let invite = outbound::invite(&self.house, &page.origin, &page.facts, block, way, &stamp);
        state.multipart =
            invite.body.as_ref().is_some_and(|(kind, _)| kind.starts_with("multipart/"));
        Some(invite)
    }

    /// A provisional answer to the originator, with our SDP where it is reliable.
    ///
    /// IM-020, IM-054. The originator's session must be open at the switch: a reliable 183 is its answer.
    pub fn progress(&mut self, now: Instant, page: PageId, own: impl TryInto<End>, ringing: bool) {
        let own = own.try_into().ok();
        let Some(state) = self.pages.get(&page) else { return };
        let reply = outbound::progress(
            &self.house,
            page,
            &state.origin,
            &state.facts,
            ringing,
            own.as_ref(),
        );
        if let Some(call) = state.call {
            self.ua.progress(now, call, reply);
        }
    }

    /// 200 to the originator.
    ///
    /// IM-051, IM-052.
    pub fn answer(
        &mut self,
        now: Instant,
        page: PageId,
        own: impl TryInto<End, Error: Debug>,
        warnings: &[String],
    ) {
        let own = own.try_into().expect("the switch writes URIs that can be read");
        let Some(state) = self.pages.get_mut(&page) else { return };
        state.answered = true;
        let (origin, facts) = (&state.origin, &state.facts);
        let reply = outbound::answer(&self.house, page, origin, facts, &own, warnings);
        if let Some(call) = state.call {
            self.ua.answer(now, call, reply);
        }
    }

    /// Final refusal to the originator, logged with the rule that decided.
    ///
    /// IM-057, UL-036.
    pub fn refuse(&mut self, now: Instant, page: PageId, refusal: &Refusal) {
        let Some(state) = self.pages.get_mut(&page) else { return };
        state.answered = true;
        let reply = outbound::refuse(&self.house, &state.facts, refusal);
        let originator = state.facts.parties.first().map(|party| party.uri.clone());
        tracing::info!(
            %page,
            rule = refusal.rule,
            key = refusal.key,
            status = reply.status,
            originator = originator.as_deref(),
            dialled = &*state.origin.dialled.uri,
            "page refused"
        );
        if let Some(call) = state.call {
            self.ua.reject(now, call, reply);
        } else if let Some(request) = state.short.as_mut().and_then(|short| short.request.take()) {
            self.ua.respond(now, request, reply);
        }
    }

    /// CANCEL to a recipient who has not answered.
    ///
    /// IM-061, IM-063.
    pub fn cancel(&mut self, now: Instant, leg: LegId, cause: &Cause) {
        let Some(state) = self.leg_mut(leg) else { return };
        state.cancelled = true;
        let Some(call) = state.call else { return };
        self.ua.cancel(now, call, Some(&outbound::reason(cause)));
    }

    /// BYE to a recipient.
    ///
    /// IM-060, IM-065, ISC-055.
    pub fn end_leg(&mut self, now: Instant, leg: LegId, cause: Option<&Cause>) {
        let own_name = self
            .pages
            .get(&leg.page)
            .and_then(|page| page.block.as_ref())
            .and_then(|block| block.own_name.clone());
        let Some(state) = self.leg_mut(leg) else { return };
        state.cancelled = true;
        let Some(call) = state.call else { return };
        self.ua.bye(now, call, &bye_lines(own_name.as_deref(), cause));
    }

    /// BYE to the originator, in the name of the service.
    ///
    /// ISC-060.
    pub fn end_originator(&mut self, now: Instant, page: PageId, cause: Option<&Cause>) {
        let Some(state) = self.pages.get(&page) else { return };
        let ims = self.house.settings.profile.is_ims();
        let own_name = ims.then(|| format!("<{}>", state.origin.dialled.uri));
        if let Some(call) = state.call {
            self.ua.bye(now, call, &bye_lines(own_name.as_deref(), cause));
        }
    }

    /// Forgets a page and its dialogs; the stack finishes what the protocol still owes.
    pub fn forget(&mut self, now: Instant, page: PageId) {
        let Some(state) = self.pages.remove(&page) else { return };
        for call in state.legs.values().filter_map(|leg| leg.call).chain(state.call) {
            self.trails.remove(&call);
            self.ua.close(call);
        }
        for copy in state.short.iter().flat_map(|short| short.copies.values()) {
            self.copies.remove(&copy.key);
        }
        // Only a page that broke has not been answered.
        if let Some(request) = state.short.and_then(|short| short.request) {
            self.ua.respond(now, request, Reply::new(480));
        }
    }

    /// What the recipient's answer says about its media, once it was accepted.
    pub fn peer_of_leg(&self, leg: LegId) -> Option<&Peer> {
        self.pages.get(&leg.page)?.legs.get(&leg.n)?.peer.as_ref()
    }

    /// From and To of an envelope around bare content for that recipient; `None` where the sender writes it, or the page
    /// is for more than one.
    ///
    /// MS-098.
    pub fn envelope_of_leg(&self, leg: LegId) -> Option<(String, String)> {
        let page = self.pages.get(&leg.page)?;
        let state = page.legs.get(&leg.n)?;
        if page.origin.chosen.as_ref()?.attributed || state.audience.recipients.len() != 1 {
            return None;
        }
        let from = match page.origin.anonymous {
            true => rules::identity::ANONYMOUS_URI,
            false => &*page.facts.parties.first()?.uri,
        };
        let to = match &page.origin.target {
            party::Target::Group(group) => &group.uri,
            party::Target::List(_) => &state.recipient.party.uri,
        };
        Some((from.to_owned(), to.to_string()))
    }

    /// What was agreed with the originator: its media, the content types our answer lists, whether the page names its
    /// sender.
    pub fn media_of_originator(&self, page: PageId) -> Option<&Chosen> {
        self.pages.get(&page)?.origin.chosen.as_ref()
    }

    fn leg_mut(&mut self, leg: LegId) -> Option<&mut Leg> {
        self.pages.get_mut(&leg.page)?.legs.get_mut(&leg.n)
    }
}

/// A page of which nothing is known yet but its request.
fn page(now: Instant, origin: Box<inbound::Origin>, facts: Facts) -> Page {
    Page {
        call: None,
        origin,
        facts,
        since: now,
        answered: false,
        block: None,
        version: 1,
        legs: BTreeMap::new(),
        short: None,
    }
}

fn house(settings: Settings, sent_by: &str, thread: u8) -> House {
    let contact = if settings.sip.advertise.is_empty() { sent_by } else { &settings.sip.advertise };
    let host = sent_by.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    // In-dialog requests come the way the server is known by.
    let transport = Uri::parse(&settings.sip.uri)
        .ok()
        .and_then(|uri| uri.param("transport").map(|transport| format!(";transport={transport}")));
    House {
        host: host.map_or(sent_by, |(host, _)| host).to_owned(),
        contact: format!("{contact}{}", transport.unwrap_or_default()),
        product: Isc::product(&settings),
        thread,
        settings,
    }
}

/// What a BYE has besides the lines of its dialog.
///
/// ISC-023, ISC-055, ISC-060.
fn bye_lines(own_name: Option<&str>, cause: Option<&Cause>) -> Bytes {
    let mut lines = String::new();
    if let Some(name) = own_name {
        let _ = write!(lines, "P-Asserted-Identity: {name}\r\n");
    }
    if let Some(cause) = cause {
        let _ = write!(lines, "Reason: {}\r\n", outbound::reason(cause));
    }
    Bytes::from(lines)
}

/// The message without what may not come in; `None` where that leaves no message.
fn without(crossing: &Crossing<'_>, message: Message) -> Option<Message> {
    let Some(bytes) = crossing.apply(&message) else { return Some(message) };
    Message::parse(bytes, &WRITTEN)
        .inspect_err(|malformed| tracing::info!(what = malformed.what, "message dropped"))
        .ok()
}

/// RFC 8498 §4: the request is served for a user who diverted the call.
fn is_diverted(message: &Message) -> bool {
    let many = settings::ManyServedUsers::First;
    served_user::read(texts(message, Name::PServedUser), many).is_ok_and(|user| {
        user.is_some_and(|user| user.case == Some(Case::OriginatingAfterDiversion))
    })
}

/// Logs a refusal in one line and tells operators.
fn refused(
    page: Option<PageId>,
    message: &Message,
    facts: &Facts,
    refusal: &Refusal,
    status: u16,
) -> Happening {
    let method = message.method().map_or_else(String::new, |method| method.as_str().to_owned());
    let originator = facts.parties.first().cloned();
    let text = refusal.warning.as_ref().map_or("", |(_, text)| text);
    tracing::info!(
        page = page.map(tracing::field::display),
        rule = refusal.rule,
        key = refusal.key,
        status,
        method,
        originator = originator.as_ref().map(|party| &*party.uri),
        dialled = message.uri(),
        text,
        "request refused"
    );
    Happening::Refused(Refused {
        page,
        method,
        status,
        text: text.to_owned(),
        rule: refusal.rule,
        key: refusal.key,
        originator,
        dialled: message.uri().to_owned(),
    })
}
