//! One thread of the node: its sockets, its SIP stack, its engine, and the loop that joins them.
//!
//! Start at [`Shard::run`]: something arrives, [`Shard::turn`] carries it through until nothing is left to do. There is
//! one arm for each effect and no rule here: rules live in `engine` and `isc`. A panic ends at the edge of one turn: see
//! [`Shard::guarded`].

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::charging::Charging;
use super::documents::Documents;
use super::hss::{self, Directory, Found};
use super::keeping::{Claim, Keeping, Loaded, Resume};
use super::load::Load;
use super::media;
use super::names::Lookup;
use super::watch::{Clock, Ladder, Watch, wall_clock};
use crate::content::sdp::{ADDRESSES_DIFFER, End};
use crate::engine::Engine;
use crate::engine::effect::{Cause, CauseProtocol, Effect};
use crate::engine::event::Event;
use crate::engine::ids::{LegId, PageId};
use crate::engine::input::{
    Arrival, Input, LegEvent, LegMedia, MediaFailure, Mode, OriginatorEvent, Refusal,
};
use crate::engine::party::{Audience, Declined, Target};
use crate::engine::policy::Policy;
use crate::engine::record::{Record, Restored};
use crate::isc::{self, Downgrade, Happening, Isc, Move, Redirect};
use crate::msrp::{Envelope, MediaEvent, Side, Switch};
use crate::sip::message::{Limits, Malformed, Message};
use crate::sip::transport::{Inbound, Sent, Transport};
use crate::sip::ua::{Output, SendKey};
use crate::sip::uri::Uri;
use crate::sip::{Flow, Protocol};
use crate::spool::About;
use crate::store::{Row, Store, Table, Told};
use crate::xdms::recipients::Sender;
use crate::xdms::{Query, Resolver, trail};

/// What reaches a thread from elsewhere in the process.
///
/// The channel behind it has no length of its own: media events are a handful per leg and legs are bounded by the
/// policy, there is one resolution per page, changes of documents are as many as writes to the XDMS, and the rest comes
/// from operators.
pub enum ToShard {
    Media(MediaEvent),
    Resolved {
        page: PageId,
        result: Result<Audience, Refusal>,
        found: Box<Found>,
    },
    EndPage(PageId),
    /// A user with these keys can be reached now.
    Reachable(Arc<[Arc<str>]>),
    /// What the user says whom the request with this ticket is for.
    LetIn {
        ticket: u64,
        declined: Option<Declined>,
    },
    /// The change of a registration with this ticket is in the store, or cannot be.
    Kept(u64),
    /// Whether this page of ours is kept.
    Stored {
        page: PageId,
        kept: bool,
    },
    /// The leg waits for this user, or the user has too many pages waiting.
    Deferred {
        leg: LegId,
        user: Arc<str>,
        waits: bool,
    },
    /// Something waits for this user, who is back.
    Waits(Arc<str>),
    /// It is this leg's turn, if its page is here.
    Turn(LegId),
    /// A leg that waits is to be served here.
    Claim(Box<Claim>),
    /// Whether the leg is ours to serve.
    Claimed {
        leg: LegId,
        kept: crate::store::Kept,
    },
    /// Everything that waited for this user has been tried.
    Served(Arc<str>),
    /// A page this node served before it ended.
    Resume(Box<Resume>),
    /// What a kept page needs to go on.
    Loaded(Box<Loaded>),
    /// The octets of a kept page are at the switch, or find no room.
    Filled {
        loaded: Box<Loaded>,
        filled: bool,
    },
    /// A kept page cannot be read.
    Unreadable(PageId),
    /// Whether the hosts are one that something waits to know of.
    Compared {
        compare: Box<isc::Compare>,
        same: bool,
    },
    Bar {
        uri: String,
        barred: bool,
    },
    /// A document of ours is another one now; `None`: any may be.
    DocumentChanged(Option<Arc<str>>),
    /// These are cached of an XDMS elsewhere.
    Follow(Vec<String>),
    Drain,
    Settings {
        isc: Box<isc::settings::Settings>,
        policy: Box<Policy>,
        resolver: Arc<Resolver>,
        max_lag: Duration,
    },
    Stop,
}

/// Everything one thread owns.
pub struct Shard {
    pub thread: u8,
    pub transport: Transport<SendKey>,
    pub limits: Limits,
    pub isc: Isc,
    pub engine: Engine,
    pub switch: Switch,
    pub resolver: Arc<Resolver>,
    pub documents: Documents,
    pub directory: Arc<Directory>,
    pub names: Lookup,
    pub store: Arc<Store>,
    pub keeping: Keeping,
    pub inbox: mpsc::UnboundedReceiver<ToShard>,
    /// Our own address, for tasks that answer later.
    pub own: mpsc::UnboundedSender<ToShard>,
    /// Every thread's address, ours included.
    pub all: Vec<mpsc::UnboundedSender<ToShard>>,
    pub watch: Arc<Watch>,
    pub charging: Option<Charging>,
    /// Told what is left here while draining.
    pub left: watch::Sender<Left>,
    pub pages: HashMap<PageId, Originator>,
    pub ladder: Ladder,
    /// Pages that came to their end in this turn, and whether with a failure.
    pub over: Vec<(PageId, bool)>,
    pub load: Load,
    /// What is still to be done: here and not on the stack, so that a panic in one page's turn loses nobody else's.
    pub due: Agenda,
    /// The page this turn is about, as far as it is known.
    pub about: Option<PageId>,
    /// The SIP message this turn began with.
    pub message: Option<Message>,
    /// Asked before the engine hears of an input; for tests, which break things here.
    pub watched: Option<Watcher>,
}

/// Whoever sees each input before the engine does.
pub type Watcher = Box<dyn FnMut(&Input) + Send>;

/// Effects to perform and inputs that followed from them, in order.
#[derive(Default)]
pub struct Agenda {
    effects: VecDeque<Effect>,
    inputs: VecDeque<Input>,
}

/// What the node itself keeps of a page.
pub struct Originator {
    arrival: Arrival,
    /// Our end of the MSRP session on the originator's side, once it is reserved.
    end: Option<End>,
    /// Keys of its other names, once the HSS has said them.
    names: Arc<OnceLock<Vec<String>>>,
}

/// Whether a thread still has work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// New pages are taken.
    Open,
    /// Only running pages go on.
    Draining,
    Nothing,
}

impl Shard {
    /// Serves until told to stop; then what is left can be looked at.
    pub async fn run(mut self) -> Self {
        // One thread is enough to tell all.
        let _telling = (self.thread == 0).then(|| self.documents.tell(&self.all));
        if self.thread == 0 {
            self.keeping.look_after_all();
        }
        loop {
            let wake = self.next_wake();
            let mut idle = false;
            let turn = tokio::select! {
                biased;
                told = self.inbox.recv() => match told {
                    None | Some(ToShard::Stop) => break,
                    Some(told) => Turn::Told(told),
                },
                inbound = self.transport.recv() => Turn::Arrived(inbound),
                () = nothing_waits(&mut idle) => Turn::Woken,
                () = sleep_until(wake) => Turn::Woken,
            };
            if idle && let Some(pressure) = self.load.idle() {
                tracing::info!(?pressure, rule = "ISC-069", "no longer behind");
            }
            self.guarded(|shard| match turn {
                Turn::Told(told) => shard.told(told),
                Turn::Arrived(inbound) => shard.arrived(inbound),
                Turn::Woken => {}
            });
            // Asked here and not by the select: whoever always has something to read would starve the timers.
            if self.next_wake().is_some_and(|at| at <= now()) {
                self.guarded(Self::woken);
            }
            if *self.left.borrow() == Left::Draining
                && self.engine.is_idle()
                && self.isc.relayed() == 0
            {
                self.left.send_replace(Left::Nothing);
            }
        }
        let now = now();
        self.guarded(|shard| {
            shard.isc.end_relayed(now);
            shard.turn(now);
        });
        self
    }

    /// Does one turn; a panic in it ends the page it was about, and nothing else.
    ///
    /// What a panic may leave half changed: the page in the engine, its dialogs in `isc` and its sessions at the switch,
    /// which are all dropped; the transaction or call being handled in the SIP stack, which its own timers end, or which
    /// nothing finds any more and is lost memory; the call flow of this turn. Tables that all pages share change by single
    /// insertions and removals, so what they hold is whole. What was still to be done for other pages is in `due` and in
    /// the stack's queue, and is done next. A panic while the page is being ended costs the rest of its goodbyes.
    fn guarded(&mut self, turn: impl FnOnce(&mut Self)) {
        (self.about, self.message) = (None, None);
        if catch_unwind(AssertUnwindSafe(|| turn(self))).is_ok() {
            return;
        }
        let mut ended = Vec::new();
        // Each round that panics again has taken something off a queue.
        for _ in 0..MOST_ROUNDS {
            let page = self.struck();
            self.watch.metrics.panics.inc();
            tracing::error!(
                page = page.map(tracing::field::display),
                "a panic in one turn was caught; the page it was about is ended"
            );
            let again = page.is_some_and(|page| ended.contains(&page));
            ended.extend(page);
            let now = now();
            let rest = catch_unwind(AssertUnwindSafe(|| {
                match page {
                    Some(page) if again => self.dropped(now, page),
                    Some(page) => self.happened(now, Input::End { page }),
                    None => {}
                }
                self.perform(now, Vec::new());
                self.turn(now);
            }));
            if rest.is_ok() {
                return;
            }
        }
    }

    /// Whose turn it was.
    fn struck(&mut self) -> Option<PageId> {
        let message = self.message.take();
        self.about.take().or_else(|| {
            let of = |message: Message| {
                let call = self.isc.ua().call_of(&message)?;
                Some(self.isc.trail_of(call)?.0)
            };
            catch_unwind(AssertUnwindSafe(|| message.and_then(of))).ok().flatten()
        })
    }

    /// Drops a page that did not end when it was told to.
    fn dropped(&mut self, now: Instant, page: PageId) {
        tracing::error!(%page, "it does not end by itself: it is dropped");
        self.due.effects.retain(|effect| effect.page() != Some(page));
        self.due.inputs.retain(|input| input.page() != Some(page));
        self.keeping.lost(page);
        for effect in self.engine.abandon(page) {
            match effect {
                Effect::Event(event) => self.shown(&event),
                turn => self.due.effects.push_back(turn),
            }
        }
        self.forget(now, page);
    }

    fn next_wake(&self) -> Option<Instant> {
        [self.isc.next_wake(), self.engine.next_wake()].into_iter().flatten().min()
    }

    /// Something came in on a SIP socket.
    fn arrived(&mut self, inbound: Inbound<SendKey>) {
        let now = now();
        if let Some(pressure) = self.load.handled(now) {
            let lag = self.load.lag();
            tracing::warn!(?pressure, ?lag, rule = "ISC-069", key = "node.max_lag", "behind");
        }
        self.isc.overload(self.load.shed(self.engine.is_full()));
        match inbound {
            Inbound::Message { bytes, flow } => match Message::parse(bytes, &self.limits) {
                Ok(message) => {
                    self.watch.received(&message);
                    self.ladder.received(&message, &flow);
                    self.message = Some(message.clone());
                    self.isc.receive(now, message, flow);
                }
                Err(malformed) => self.malformed(now, malformed, flow),
            },
            Inbound::Malformed { malformed, flow } => self.malformed(now, malformed, flow),
            Inbound::Outcome { key, sent: Ok(protocol) } => self.went(now, key, protocol),
            Inbound::Outcome { key, sent: Err(not) } => self.failed(now, key, not.more),
        }
        self.turn(now);
    }

    /// Something that is no SIP message came in.
    fn malformed(&mut self, now: Instant, malformed: Malformed, flow: Flow) {
        self.watch.metrics.refused("malformed");
        self.isc.malformed(now, malformed, flow);
    }

    /// A timer is due.
    fn woken(&mut self) {
        let now = now();
        self.isc.wake(now);
        let mut effects = Vec::new();
        self.engine.wake(now, &mut effects);
        self.perform(now, effects);
        self.turn(now);
    }

    /// Another part of the process has something for us.
    fn told(&mut self, told: ToShard) {
        let now = now();
        match told {
            ToShard::Media(MediaEvent::Originator { page, event }) => {
                self.happened(now, Input::OriginatorMedia { page, event });
            }
            ToShard::Media(MediaEvent::Leg { leg, event }) => {
                self.happened(now, Input::LegMedia { leg, event });
            }
            ToShard::Resolved { page, result, found } => {
                self.isc.learnt(page, &found.learnt);
                if let Some(originator) = self.pages.get(&page) {
                    let key = |name: &String| Some(Uri::parse(name).ok()?.canonical());
                    let names = found.own.iter().filter_map(key).collect();
                    // There is one answer to a page.
                    let _ = originator.names.set(names);
                }
                self.happened(now, Input::Resolved { page, result });
            }
            ToShard::EndPage(page) => self.happened(now, Input::End { page }),
            ToShard::Reachable(users) => {
                for user in users.iter() {
                    self.happened(now, Input::Reachable { user: Arc::clone(user) });
                    self.keeping.is_back(user);
                    if self.serves(user) {
                        self.keeping.reachable(user);
                    }
                }
            }
            ToShard::Stored { page, kept } => {
                self.keeping.stored(page, kept);
                self.happened(now, Input::Kept { page, kept });
            }
            ToShard::Deferred { leg, user, waits } => {
                if !waits {
                    let text = "too many pages wait for the recipient (deferred.max_per_user)";
                    let cause = Cause::new(CauseProtocol::Policy, 480, text);
                    self.shown(&Event::Failed { leg, cause, octets: 0 });
                }
                self.keeping.deferred(&user);
            }
            ToShard::Waits(user) => {
                if self.serves(&user) {
                    self.keeping.reachable(&user);
                }
            }
            ToShard::Turn(leg) => self.happened(now, Input::Turn { leg }),
            ToShard::Claim(claim) => self.keeping.claim(*claim),
            ToShard::Claimed { leg, kept } => self.keeping.claimed(leg, kept),
            ToShard::Served(user) => self.keeping.served(&user),
            ToShard::Resume(resume) => self.keeping.resume(*resume),
            ToShard::Loaded(loaded) => self.loaded(now, loaded),
            ToShard::Filled { loaded, filled } => self.filled(now, loaded, filled),
            ToShard::Unreadable(page) => self.keeping.unreadable(page),
            ToShard::Kept(ticket) => self.isc.kept(now, ticket),
            ToShard::Compared { compare, same } => {
                if let Some(happening) = self.isc.compared(now, *compare, same) {
                    self.follows(now, happening);
                }
            }
            ToShard::DocumentChanged(name) => self.isc.document_changed(now, name.as_deref()),
            ToShard::Follow(documents) => self.isc.follow(now, documents),
            ToShard::LetIn { ticket, declined } => self.isc.let_in(now, ticket, declined),
            ToShard::Bar { uri, barred } => self.isc.bar(&uri, barred),
            ToShard::Drain => {
                self.engine.drain();
                self.isc.drain();
                self.isc.end_watchers(now);
                self.left.send_replace(Left::Draining);
            }
            ToShard::Settings { isc, policy, resolver, max_lag } => {
                self.load.set_limit(max_lag);
                if let Err(error) = self.isc.reload(*isc) {
                    tracing::error!(%error, "new settings not taken");
                } else {
                    self.keeping.max_per_user = policy.deferral.max_per_user;
                    self.engine.set_policy(*policy);
                    self.resolver = resolver;
                }
            }
            ToShard::Stop => {}
        }
        self.turn(now);
    }

    /// Carries on until the SIP stack has nothing more to say.
    fn turn(&mut self, now: Instant) {
        while let Some(busy) = self.isc.ua().unavailable() {
            self.transport.pause(&busy.to, busy.seconds);
        }
        loop {
            while let Some(output) = self.isc.poll() {
                match output {
                    Output::Send { key, to, bytes, via_at, call } => {
                        self.watch.sent(&bytes);
                        let sent = self.transport.send(key, &to, bytes.clone(), via_at);
                        let protocol = match sent {
                            Sent::Now(protocol) => {
                                self.went(now, key, protocol);
                                Some(protocol)
                            }
                            Sent::Later => None,
                            Sent::Failed { more } => {
                                self.failed(now, key, more);
                                continue;
                            }
                        };
                        let shown = self.transport.shown(&to, &bytes, via_at);
                        self.ladder.sent(&shown, &to, protocol, call);
                    }
                    Output::Event(event) => {
                        self.about = event
                            .call()
                            .and_then(|call| self.isc.trail_of(call))
                            .map(|(page, _)| page);
                        let mut happenings = Vec::new();
                        self.isc.on_event(now, event, &mut happenings);
                        for happening in happenings {
                            self.follows(now, happening);
                        }
                    }
                }
            }
            let happened = self.isc.happened();
            if happened.is_empty() {
                break;
            }
            for happening in happened {
                self.follows(now, happening);
            }
        }
        self.keeping.flush();
        self.ladder.settle(&self.watch, |call| self.isc.trail_of(call));
        for (page, failed) in self.over.drain(..) {
            self.watch.over(page, failed);
        }
        let stats = self.isc.ua().stats();
        self.watch.gauge(self.thread, stats);
    }

    fn follows(&mut self, now: Instant, happening: Happening) {
        match happening {
            Happening::Input(input) => self.happened(now, input),
            Happening::Refused(refused) => self.watch.refused(&refused),
            Happening::Moved(change) => self.moved(now, *change),
            Happening::Redirected(redirect) => self.redirected(now, *redirect),
            Happening::Downgraded(downgrade) => self.downgraded(now, *downgrade),
            Happening::Kept(change) => self.keep(now, *change),
            Happening::Documents(news) => self.documents.take(news),
            Happening::Look(look) => {
                let states = self.documents.look(&look);
                self.isc.tell(now, &look, &states);
            }
            Happening::AtTheDoor(asked) => self.ask_recipient(*asked),
            Happening::Compare(compare) => self.compare(compare),
            Happening::WithoutCema(leg) => {
                let secure = self.isc.was_secure(leg);
                match self.switch.reserve_end(Side::Leg(leg), None, secure) {
                    Ok(end) => self.isc.invite_without_cema(now, leg, end),
                    Err(full) => {
                        let event = LegEvent::Unusable { text: full.to_string() };
                        self.happened(now, Input::Leg { leg, event });
                    }
                }
            }
            Happening::Reachable(users) => {
                for shard in &self.all {
                    // A thread that is gone has no pages.
                    let _ = shard.send(ToShard::Reachable(Arc::clone(&users)));
                }
            }
        }
    }

    /// Has a registration kept over a restart; whoever waits for that is told through the inbox.
    fn keep(&self, now: Instant, change: isc::Change) {
        let told = change.ticket.map(|ticket| -> Told {
            let own = self.own.clone();
            Box::new(move |_| {
                // Without a receiver the thread is gone and nobody waits.
                let _ = own.send(ToShard::Kept(ticket));
            })
        });
        let clock = Clock { now, time: wall_clock() };
        let row = change.kept.map(|kept| Row {
            key: Arc::clone(&kept.key),
            since: clock.millis(kept.since),
            until: clock.millis(kept.until),
            value: kept.value,
        });
        self.store.put(Table::Reg, change.key, row, told);
    }

    /// A message has left; where it could go instead is told while it is known.
    fn went(&mut self, now: Instant, key: SendKey, protocol: Protocol) {
        self.isc.sent(now, key, protocol);
        let to = self.isc.ua().opening(key);
        if let Some(attempt) = to.and_then(|to| self.transport.alternate(&to)) {
            self.isc.ua().alternate(key, attempt);
        }
    }

    fn failed(&mut self, now: Instant, key: SendKey, more: bool) {
        if !more {
            self.watch.unreachable();
        }
        self.isc.send_failed(now, key, more);
    }

    fn happened(&mut self, now: Instant, input: Input) {
        self.about = input.page();
        if let Some(watched) = &mut self.watched {
            watched(&input);
        }
        if let Input::Arrived(arrival) = &input {
            self.engine.keeps_pages(self.store.health().up);
            let (page, arrival) = (arrival.page, arrival.clone());
            if let Some(message) = self.message.as_ref().filter(|_| arrival.mode == Mode::Short) {
                self.ladder.belongs(message.call_id(), page, None);
            }
            self.pages.insert(page, Originator { arrival, end: None, names: Arc::default() });
        }
        if let Input::Originator { page, event: OriginatorEvent::Acked } = &input {
            self.switch.await_originator(*page);
        }
        let mut effects = Vec::new();
        if let Some(leg) = ends_short(&input) {
            // How far the recipient got is told before its end is.
            let event = LegMedia::Progress { octets: self.switch.progress(leg) };
            self.engine.handle(now, Input::LegMedia { leg, event }, &mut effects);
        }
        self.engine.handle(now, input, &mut effects);
        self.perform(now, effects);
    }

    /// Performs effects in order; an effect that fails is an input of its own.
    fn perform(&mut self, now: Instant, effects: Vec<Effect>) {
        self.due.effects.extend(effects);
        while let Some(effect) = self.due.effects.pop_front() {
            self.about = effect.page().or(self.about);
            match effect {
                Effect::Resolve { page, target } => self.resolve(now, page, target),
                Effect::Invite { leg, recipient, audience } => {
                    let secure = self.isc.is_secure(leg);
                    match self.switch.reserve_end(Side::Leg(leg), None, secure) {
                        Ok(end) => self.isc.invite(now, leg, &recipient, end, &audience),
                        Err(_full) => {
                            let event = LegEvent::Unreachable { timeout: false };
                            self.due.inputs.push_back(Input::Leg { leg, event });
                        }
                    }
                }
                Effect::Progress { page, ringing } => {
                    if let Some(end) = self.originator_end(page) {
                        self.isc.progress(now, page, end, ringing);
                    }
                }
                Effect::Answer { page, warnings } => match self.originator_end(page) {
                    Some(end) => self.isc.answer(now, page, end, &warnings),
                    None => self.due.inputs.push_back(Input::End { page }),
                },
                Effect::Refuse { page, refusal } => self.isc.refuse(now, page, &refusal),
                Effect::Cancel { leg, cause } => self.isc.cancel(now, leg, &cause),
                Effect::Join { leg } => match self.isc.peer_of_leg(leg) {
                    Some(peer) => {
                        let between = self.isc.envelope_of_leg(leg);
                        let since = Clock { now, time: wall_clock() }.millis(now);
                        let clock = (now, Duration::from_millis(since));
                        let envelope = between.map(|(from, to)| Envelope { from, to, clock });
                        self.switch.join_with(leg, media::peer(peer), envelope);
                    }
                    None => {
                        let event = LegMedia::Failed { cause: MediaFailure::Connection };
                        self.due.inputs.push_back(Input::LegMedia { leg, event });
                    }
                },
                Effect::Abort { leg } => self.switch.abort(Side::Leg(leg)),
                Effect::EndLeg { leg, cause } => self.isc.end_leg(now, leg, cause.as_ref()),
                Effect::EndOriginator { page, cause } => {
                    self.isc.end_originator(now, page, cause.as_ref());
                }
                Effect::Report { page, status, text } => self.switch.report(page, status, text),
                Effect::ReleaseLeg { leg } => self.switch.release(Side::Leg(leg)),
                Effect::ReleaseOriginator { page } => self.switch.release(Side::Originator(page)),
                Effect::Keep { page, record, open, until } => {
                    self.keep_page(now, page, *record, open, until);
                }
                Effect::Confirm { page, kept } => self.switch.confirm(page, kept),
                Effect::Accept { page, warnings } => self.isc.accept(now, page, &warnings),
                Effect::Deliver { leg, recipient, audience } => {
                    match self.isc.deliver(now, leg, &recipient, &audience) {
                        Ok(call_id) => self.ladder.belongs(call_id.as_bytes(), leg.page, Some(leg)),
                        Err(event) => self.due.inputs.push_back(Input::Leg { leg, event }),
                    }
                }
                Effect::Turn { leg } => {
                    // A page that was kept may be served by another thread than the one that took it.
                    for shard in &self.all {
                        // A thread that is gone has no pages.
                        let _ = shard.send(ToShard::Turn(leg));
                    }
                }
                Effect::Settled { leg } => self.keeping.settled(leg),
                Effect::Defer { leg, user, until } => {
                    self.keeping.defer(leg, &user, until);
                }
                Effect::Forget { page } => self.forget(now, page),
                Effect::Event(event) => self.shown(&event),
            }
        }
        while let Some(input) = self.due.inputs.pop_front() {
            self.happened(now, input);
        }
    }

    /// A recipient is elsewhere: where it may be tried, if anywhere (ISC-070).
    fn redirected(&mut self, now: Instant, redirect: Redirect) {
        let leg = redirect.leg;
        let Some(Originator { arrival, .. }) = self.pages.get(&leg.page) else { return };
        let query = Query {
            target: Target::List(Vec::new()),
            identities: arrival.identities.clone(),
            names: Vec::new(),
            anonymous: arrival.anonymous,
            now,
            time: wall_clock(),
        };
        let uris = redirect.places.iter().map(|place| place.uri.as_str());
        let place = self.resolver.redirect(uris, &query);
        if let Some(event) = self.isc.redirected(now, redirect, place) {
            self.happened(now, Input::Leg { leg, event });
        }
    }

    /// Asks who is meant, in a task of its own; the answer comes back through the inbox.
    fn resolve(&mut self, now: Instant, page: PageId, target: Target) {
        let Some(Originator { arrival, .. }) = self.pages.get(&page) else { return };
        let mut query = Query {
            target,
            identities: arrival.identities.clone(),
            names: Vec::new(),
            anonymous: arrival.anonymous,
            now,
            time: wall_clock(),
        };
        let unknown = self.isc.unknown(page);
        let (directory, lookup) = (Arc::clone(&self.directory), self.names.clone());
        // MS-028: what only addresses tell is found out along with the recipients.
        let hosts = self.isc.media_of_originator(page).and_then(|chosen| chosen.names.clone());
        let group = match &query.target {
            Target::Group(group) => Some(Arc::clone(&group.uri)),
            Target::List(_) => None,
        };
        let (resolver, own) = (Arc::clone(&self.resolver), self.own.clone());
        let watch = Arc::clone(&self.watch);
        tokio::spawn(async move {
            // ISC-059: all of it within a second.
            let deadline = tokio::time::Instant::now() + hss::WAIT;
            let found = directory.originator(page, &query.identities, unknown).await;
            query.names.clone_from(&found.names);
            let (mut result, exchanges) = trail::gathered(resolver.resolve(query)).await;
            if let Ok(audience) = &mut result {
                let key_of = |uri: &str| resolver.key_of(uri);
                directory.members(audience, &found, group.is_some(), key_of, deadline).await;
                if audience.recipients.is_empty() {
                    result = Err(resolver.nobody_here());
                }
            }
            if let Some(hosts) = hosts
                && !lookup.same(&hosts).await
            {
                result = Err(Refusal::new(488, "MS-027").warn(ADDRESSES_DIFFER));
            }
            if let Some(group) = group {
                watch.asked(page, &group, result.as_ref().err(), &exchanges);
            }
            // Without a receiver the thread is gone and so is the page.
            let _ = own.send(ToShard::Resolved { page, result, found: Box::new(found) });
        });
    }

    /// Finds out whether two hosts are one, in a task of its own.
    fn compare(&self, compare: Box<isc::Compare>) {
        let (lookup, own) = (self.names.clone(), self.own.clone());
        tokio::spawn(async move {
            let same = lookup.same(&compare.names).await;
            // Without a receiver the thread is gone and so is the call.
            let _ = own.send(ToShard::Compared { compare, same });
        });
    }

    /// Asks what a user's own documents say of a request for the user, in a task of its own.
    fn ask_recipient(&self, asked: isc::AtTheDoor) {
        let (resolver, own) = (Arc::clone(&self.resolver), self.own.clone());
        let sender =
            Sender { identities: asked.identities, anonymous: asked.anonymous, time: wall_clock() };
        tokio::spawn(async move {
            let declined = resolver.declines(&asked.recipient, &sender).await;
            // Without a receiver the thread is gone and so is the request.
            let _ = own.send(ToShard::LetIn { ticket: asked.ticket, declined });
        });
    }

    /// A recipient takes no TLS: a session without, then the offer of it (IM-078).
    fn downgraded(&mut self, now: Instant, downgrade: Downgrade) {
        let leg = downgrade.leg;
        let end = self.switch.reserve_end(Side::Leg(leg), None, false).ok();
        if let Some(event) = self.isc.downgraded(now, downgrade, end) {
            self.happened(now, Input::Leg { leg, event });
        }
    }

    /// Our end of the originator's session; reserved and open from the first time it is asked for (IM-067).
    fn originator_end(&mut self, page: PageId) -> Option<End> {
        let originator = self.pages.get_mut(&page)?;
        if let Some(end) = &originator.end {
            return Some(end.clone());
        }
        let agreed = self.isc.media_of_originator(page)?;
        let (side, secure) = (Side::Originator(page), agreed.peer.proof.is_some());
        let end = self.switch.reserve_end(side, agreed.family(), secure).ok()?;
        let rules = media::rules(agreed.attributed, &originator.arrival, &originator.names);
        let (peer, accept) = (media::peer(&agreed.peer), media::accept(&agreed.accept));
        self.switch.open_originator(page, peer, accept, rules);
        originator.end = Some(end.clone());
        Some(end)
    }

    /// A side has another MSRP path: a new session there, then the answer (MS-016).
    fn moved(&mut self, now: Instant, change: Move) {
        let side = change.leg.map_or(Side::Originator(change.page), Side::Leg);
        // Without a session left the old one goes on.
        let end = self.switch.renew(side, media::peer(change.peer())).ok().flatten();
        if let (Side::Originator(page), Some(end)) = (side, &end)
            && let Some(originator) = self.pages.get_mut(&page)
        {
            originator.end = Some(end.clone());
        }
        self.isc.moved(now, change, end);
    }

    /// Has a page kept that everything is here of.
    fn keep_page(
        &mut self,
        now: Instant,
        page: PageId,
        record: Record,
        open: Vec<u16>,
        until: Instant,
    ) {
        let large = record.arrival.mode == Mode::Large;
        let body = self.switch.body(page).filter(|_| large);
        match self.isc.keepsake(page) {
            Some(keepsake) if body.is_some() || !large => {
                self.keeping.keep(now, (record, keepsake), body, open, until);
            }
            _ => {
                tracing::error!(%page, "the page is not whole where it is to be kept");
                self.due.inputs.push_back(Input::Kept { page, kept: false });
            }
        }
    }

    /// Whether it is this thread that serves what waits for the user.
    fn serves(&self, user: &str) -> bool {
        let hash = user
            .bytes()
            .fold(0_usize, |hash, octet| hash.wrapping_mul(31).wrapping_add(usize::from(octet)));
        hash % self.all.len().max(1) == usize::from(self.thread)
    }

    /// A kept page goes on; first its octets have to be where legs read them.
    fn loaded(&mut self, now: Instant, loaded: Box<Loaded>) {
        let page = loaded.page;
        if self.engine.has(page) || loaded.parcel.content.is_none() {
            return self.filled(now, loaded, true);
        }
        if self.keeping.is_filling(page, &loaded.open) {
            return;
        }
        let (switch, own) = (self.switch.clone(), self.own.clone());
        let mut loaded = loaded;
        tokio::spawn(async move {
            let (content_type, inner) = match &loaded.parcel.content {
                Some((content_type, inner)) => (content_type.as_str(), inner.as_deref()),
                None => ("", None),
            };
            let about = About {
                content_type: content_type.into(),
                inner: inner.map(Arc::from),
                total: Some(loaded.parcel.record.size),
                since: now,
            };
            let octets = std::mem::take(&mut loaded.parcel.body);
            let filled = switch.restore(page, about, octets).await.is_ok();
            // Without a receiver the thread is gone and so is the page.
            let _ = own.send(ToShard::Filled { loaded, filled });
        });
    }

    /// Everything a kept page needs is here.
    fn filled(&mut self, now: Instant, loaded: Box<Loaded>, filled: bool) {
        let Loaded { page, parcel, mut open, since, until } = *loaded;
        for n in self.keeping.filled(page) {
            if !open.contains(&n) {
                open.push(n);
            }
        }
        let moment = self.keeping.clock.millis(now);
        let age = Duration::from_millis(moment.saturating_sub(since));
        let until = now + Duration::from_millis(until.saturating_sub(moment));
        if !self.engine.has(page) {
            let known = match filled {
                true => {
                    self.isc.take_back(now, page, age, &parcel.keepsake).map_err(|e| e.to_string())
                }
                false => Err("no room for its octets (msrp.spool_total)".to_owned()),
            };
            if let Err(error) = known {
                tracing::error!(%page, error, "a kept page cannot go on now");
                self.switch.forget(page);
                self.keeping.unreadable(page);
                return;
            }
            let arrival = parcel.record.arrival.clone();
            let names = Arc::default();
            self.pages.insert(page, Originator { arrival, end: None, names });
        }
        let restored = Restored { record: parcel.record, open, until };
        self.happened(now, Input::Restored(Box::new(restored)));
    }

    fn forget(&mut self, now: Instant, page: PageId) {
        self.pages.remove(&page);
        self.keeping.forget(page);
        self.switch.forget(page);
        self.isc.forget(now, page);
        self.ladder.forget(now, page);
    }

    fn shown(&mut self, event: &Event) {
        self.watch.event(event);
        if let Some(charging) = &mut self.charging {
            charging.event(event, &self.isc);
        }
        match event {
            Event::PageEnded { page, failed, .. } => self.over.push((*page, *failed > 0)),
            Event::PageRefused { page, .. } => self.over.push((*page, true)),
            _ => {}
        }
    }
}

/// The leg that may end here without the whole page.
fn ends_short(input: &Input) -> Option<LegId> {
    match input {
        Input::LegMedia { leg, event: LegMedia::Failed { .. } }
        | Input::Leg { leg, event: LegEvent::Bye | LegEvent::Expired } => Some(*leg),
        _ => None,
    }
}

/// What one turn begins with.
enum Turn {
    Told(ToShard),
    Arrived(Inbound<SendKey>),
    Woken,
}

/// How often a turn is taken up again that panics again and again.
const MOST_ROUNDS: u32 = 64;

/// Never done; notes that the queues before it are empty. One that only waits for the runtime's next turn is not.
async fn nothing_waits(idle: &mut bool) {
    std::future::poll_fn(|_| {
        *idle = tokio::task::coop::has_budget_remaining();
        std::task::Poll::<()>::Pending
    })
    .await;
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
