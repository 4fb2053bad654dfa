//! One short page: accepted, resolved, kept, answered 202, sent to everybody as a MESSAGE of its own.
//!
//! Start at [`Short::handle`]; the whole is [`Stage`], one recipient is [`Leg`]. The MESSAGE itself is the node's.
//! Follows IM-079, IM-080, IM-097, UL-020, UL-027, UL-033, UL-034, UL-036.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::effect::{Cause, CauseProtocol, Effect};
use super::event::Event;
use super::fanout;
use super::ids::{LegId, PageId};
use super::input::{Arrival, LegEvent, Refusal};
use super::lanes::{Place, SharedLanes};
use super::leg::{Outcome, unreachable_cause};
use super::page::{Around, Happens};
use super::party::{Audience, Party, Recipient, Target};
use super::policy::Policy;
use super::record::{Record, Restored};
use super::timers::Kind;

/// Who is meant is known within this time or never.
const RESOLVE_LIMIT: Duration = Duration::from_secs(20);
/// The page is kept within this time or refused: with the time before it less than the 32 s a sender waits for an answer
/// (RFC 3261 §17.1.2.2).
const KEEP_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait before a recipient is tried again; whoever wants more is waited for as one who is not there.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What the page waits for.
///
/// ```text
/// Resolving ── recipients known ──► Keeping ── kept [202] ──► Serving ── every recipient has a result ──► Closed
///     │                                │ └── ended, too late [refused] ──► TakingBack ── kept or not ───► Closed
///     └── refused, ended               └── not kept [refused] ──────────────────────────────────────────► Closed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Resolving {
        target_is_list: bool,
    },
    Keeping,
    /// It was refused while it was being kept: what is kept of it must not be served.
    TakingBack,
    Serving,
    Closed,
}

/// One recipient.
///
/// ```text
///   ┌───────────────── Reachable, served again ─────────────────┐
///   ▼                                                           │
/// Idle ─► Ready ── the page may send ─► Lined ── its turn ─► Out ┴► Idle, with a result
///           ▲                             │                  ▲ ▼
///           └── the page may not send now ┘                 Paused
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is to be done, or not yet.
    Idle,
    /// It waits for the page's own breadth and pace.
    Ready,
    /// Others for the same target come first.
    Lined,
    /// The MESSAGE is out.
    Out,
    /// The recipient was busy and is tried again then. It keeps its turn.
    Paused(Instant),
}

#[derive(Debug)]
struct Leg {
    state: State,
    outcome: Option<Outcome>,
    /// How often it was tried again since it was lined up.
    retries: u32,
}

/// One short page.
#[derive(Debug)]
pub(super) struct Short {
    id: PageId,
    policy: Arc<Policy>,
    identities: Vec<Party>,
    /// What it counts under (IM-036).
    names: Vec<Arc<str>>,
    since: Instant,
    stage: Stage,
    /// It outlives this process.
    kept: bool,
    audience: Arc<Audience>,
    legs: Vec<Leg>,
    /// Legs that wait for the page's own breadth and pace, in order.
    ready: VecDeque<u16>,
    /// MESSAGEs without a final answer.
    out: usize,
    /// When the next one may leave, by `send_rate`.
    not_before: Option<Instant>,
    /// Legs that wait for their recipients since it was asked last.
    unreached: Vec<u16>,
    size: u64,
    /// When it is refused, unless it is kept.
    keep_by: Instant,
    /// What has to be kept of how it came, until it is.
    arrival: Option<Box<Arrival>>,
    /// When nobody is to be tried any more.
    until: Instant,
}

impl Short {
    /// Takes a page on: from here on it has its one end. The recipients are asked for.
    pub(super) fn accept(arrival: Arrival, policy: Arc<Policy>, cx: &mut Around) -> Self {
        let id = arrival.page;
        let target_is_list = matches!(arrival.target, Target::List(_));
        cx.out.push(Effect::Resolve { page: id, target: arrival.target.clone() });
        cx.timers.set(id, Kind::Resolve, Some(cx.now + RESOLVE_LIMIT));
        let ttl = policy.deferral.ttl;
        Self {
            id,
            names: super::names(&arrival),
            identities: arrival.identities.clone(),
            since: cx.now,
            stage: Stage::Resolving { target_is_list },
            kept: false,
            audience: Arc::default(),
            legs: Vec::new(),
            ready: VecDeque::new(),
            out: 0,
            not_before: None,
            unreached: Vec::new(),
            size: arrival.size.unwrap_or_default(),
            keep_by: cx.now,
            until: cx.now + arrival.lifetime.map_or(ttl, |lifetime| lifetime.min(ttl)),
            policy,
            arrival: Some(Box::new(arrival)),
        }
    }

    /// Goes on with a page that was kept.
    pub(super) fn restored(
        restored: Restored,
        policy: Arc<Policy>,
        lanes: &SharedLanes,
        cx: &mut Around,
    ) -> Self {
        let Restored { record: Record { arrival, audience, size }, open, until } = restored;
        let id = arrival.page;
        cx.out.push(Effect::Event(Event::PageRestored {
            page: id,
            mode: arrival.mode,
            originator: arrival.originator,
            dialled: arrival.dialled,
            size,
        }));
        let mut page = Self {
            id,
            names: Vec::new(),
            identities: arrival.identities,
            since: cx.now,
            stage: Stage::Serving,
            kept: true,
            legs: untouched(&audience),
            audience: Arc::new(audience),
            ready: VecDeque::new(),
            out: 0,
            not_before: None,
            unreached: Vec::new(),
            size,
            keep_by: cx.now,
            until,
            policy,
            arrival: None,
        };
        page.serve(&open, lanes, cx);
        page
    }

    /// Serves these legs, too, who waited or were left over. Whoever has had their end is passed over.
    pub(super) fn serve(&mut self, open: &[u16], lanes: &SharedLanes, cx: &mut Around) {
        if self.stage == Stage::Serving {
            for &n in open {
                self.line_up(n);
            }
        }
        self.moved(lanes, cx);
    }

    /// Moves this page; afterwards its timers are set for what it now waits for.
    pub(super) fn handle(&mut self, what: Happens, lanes: &SharedLanes, cx: &mut Around) {
        match what {
            Happens::Resolved(result) => self.on_resolved(result, cx),
            Happens::Kept(kept) => self.on_kept(kept, cx),
            Happens::Leg(n, event) => self.on_leg(n, event, lanes, cx),
            Happens::Turn(n) => self.on_turn(n, lanes, cx),
            Happens::Reachable(user) => {
                for n in self.numbers() {
                    if self.waits(n) && *self.recipient(n).party.key == *user {
                        self.line_up(n);
                    }
                }
            }
            Happens::Ended => self.on_ended(lanes, cx),
            Happens::Due(Kind::Resolve) => self.on_late(cx),
            // There is no session; the other timers only bring it here.
            Happens::Originator(_)
            | Happens::OriginatorMedia(_)
            | Happens::LegMedia(..)
            | Happens::Due(_) => {}
        }
        self.moved(lanes, cx);
    }

    /// After every move: what all of it together means.
    fn moved(&mut self, lanes: &SharedLanes, cx: &mut Around) {
        let answer_by = match self.stage {
            Stage::Resolving { .. } => Some(self.since + RESOLVE_LIMIT),
            Stage::Keeping => Some(self.keep_by),
            Stage::TakingBack | Stage::Serving | Stage::Closed => None,
        };
        cx.timers.set(self.id, Kind::Resolve, answer_by);
        if self.stage != Stage::Serving {
            return;
        }
        if cx.now >= self.until {
            for n in self.numbers() {
                if !matches!(self.state(n), State::Idle | State::Out) || self.waits(n) {
                    self.expire(n, lanes, cx);
                }
            }
        }
        self.deliver_due(lanes, cx);
        let unsent = |leg: &Leg| !matches!(leg.state, State::Idle | State::Out);
        let unsent = self.legs.iter().any(unsent);
        cx.timers.set(self.id, Kind::Deadline, Some(self.until).filter(|_| unsent));
        if !unsent && self.out == 0 {
            self.finish(cx);
        }
    }

    // ---- the originator ---------------------------------------------------------------------------------------

    fn on_resolved(&mut self, result: Result<Audience, Refusal>, cx: &mut Around) {
        let Stage::Resolving { target_is_list } = self.stage else { return };
        let audience = match result {
            Ok(audience) => fanout::admit(audience, self.id, &self.identities, cx.out),
            Err(refusal) => {
                self.refuse(refusal, cx);
                return self.close(cx);
            }
        };
        let refusal = if audience.recipients.is_empty() {
            let rule = if target_is_list { "IM-031" } else { "IM-035" };
            Some(Refusal::new(403, rule).warn("No destinations"))
        } else if audience.recipients.len() > usize::from(u16::MAX) {
            let refusal = Refusal::new(403, "UL-020").warn("102 Too many participants");
            Some(refusal.key("im.max_recipients"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.refuse(refusal, cx);
            return self.close(cx);
        }
        self.legs = untouched(&audience);
        self.audience = Arc::new(audience);
        let open: Vec<u16> = self.numbers().filter(|n| self.declined(*n).is_none()).collect();
        let Some(arrival) = self.arrival.take().filter(|_| !open.is_empty()) else {
            // Nobody it would have to be kept for; the sender is not told that rules declined it (IM-090).
            return self.answer(cx);
        };
        self.stage = Stage::Keeping;
        self.keep_by = cx.now + KEEP_LIMIT;
        let (audience, size) = ((*self.audience).clone(), self.size);
        let record = Box::new(Record { arrival: *arrival, audience, size });
        cx.out.push(Effect::Keep { page: self.id, record, open, until: self.until });
    }

    fn on_kept(&mut self, kept: bool, cx: &mut Around) {
        match (self.stage, kept) {
            (Stage::Keeping, true) => {
                self.kept = true;
                self.answer(cx);
            }
            (Stage::Keeping, false) => {
                let cause = Cause::new(CauseProtocol::Store, 0, "the page cannot be kept");
                self.fail_all(&cause, cx);
                self.refuse(store_is_down(), cx);
                self.close(cx);
            }
            (Stage::TakingBack, _) => {
                self.kept = kept;
                for n in self.numbers() {
                    self.settled(n, cx);
                }
                self.close(cx);
            }
            (Stage::Resolving { .. } | Stage::Serving | Stage::Closed, _) => {}
        }
    }

    /// The sender does not wait any longer for an answer.
    fn on_late(&mut self, cx: &mut Around) {
        match self.stage {
            Stage::Resolving { .. } => {
                let mut refusal = Refusal::new(480, "IM-033").warn("recipients unknown");
                refusal.retry_after = Some(super::RETRY_AFTER);
                self.refuse(refusal, cx);
                self.close(cx);
            }
            Stage::Keeping => {
                let cause = Cause::new(CauseProtocol::Store, 0, "the store does not answer");
                self.take_back(&cause, store_is_down(), cx);
            }
            Stage::TakingBack | Stage::Serving | Stage::Closed => {}
        }
    }

    /// Refuses a page that is being kept.
    fn take_back(&mut self, cause: &Cause, refusal: Refusal, cx: &mut Around) {
        self.fail_all(cause, cx);
        self.refuse(refusal, cx);
        self.stage = Stage::TakingBack;
    }

    fn fail_all(&mut self, cause: &Cause, cx: &mut Around) {
        for n in self.numbers() {
            self.fail(n, cause.clone(), cx);
        }
    }

    /// UL-027: 202 once nothing of it can be lost, then everybody in the order of the list.
    fn answer(&mut self, cx: &mut Around) {
        let page = self.id;
        self.stage = Stage::Serving;
        cx.out.push(Effect::Accept { page, warnings: self.audience.warnings.clone() });
        cx.out.push(Effect::Event(Event::OriginatorAnswered { page }));
        cx.out.push(Effect::ReleaseOriginator { page });
        for n in self.numbers() {
            match self.declined(n) {
                Some(cause) => self.fail(n, cause, cx),
                None => self.line_up(n),
            }
        }
    }

    /// UL-036: what is 486 to an INVITE is 403 to a MESSAGE.
    fn refuse(&mut self, refusal: Refusal, cx: &mut Around) {
        let (page, refusal) = (self.id, refusal.for_message());
        let (status, text) = (refusal.status, refusal.text());
        cx.out.push(Effect::Refuse { page, refusal });
        cx.out.push(Effect::Event(Event::PageRefused { page, status, text }));
        cx.out.push(Effect::ReleaseOriginator { page });
    }

    fn on_ended(&mut self, lanes: &SharedLanes, cx: &mut Around) {
        match self.stage {
            Stage::Resolving { .. } => {
                self.refuse(ended_refusal(), cx);
                self.close(cx);
            }
            Stage::Keeping => self.take_back(&ended_cause(), ended_refusal(), cx),
            Stage::Serving => {
                for n in self.numbers() {
                    if self.state(n) != State::Idle || self.waits(n) {
                        self.leave_lane(n, lanes, cx);
                        self.fail(n, ended_cause(), cx);
                    }
                }
            }
            Stage::TakingBack | Stage::Closed => {}
        }
    }

    // ---- the recipients ---------------------------------------------------------------------------------------

    /// Somebody who has no result, or waits, is to be served.
    fn line_up(&mut self, n: u16) {
        let waits = self.waits(n);
        let Some(leg) = self.leg_mut(n).filter(|leg| leg.state == State::Idle) else { return };
        if leg.outcome.is_none() || waits {
            (leg.state, leg.retries) = (State::Ready, 0);
            self.ready.push_back(n);
        }
    }

    /// UL-033 (`send_rate` a second), UL-034 (so many unanswered ones at a time).
    fn may_send(&self, now: Instant) -> bool {
        self.out < self.breadth() && self.not_before.is_none_or(|at| at <= now)
    }

    fn breadth(&self) -> usize {
        usize::from(self.policy.max_entries).max(1)
    }

    fn deliver_due(&mut self, lanes: &SharedLanes, cx: &mut Around) {
        for n in self.numbers() {
            if matches!(self.state(n), State::Paused(until) if until <= cx.now) {
                self.has_turn(n, lanes, cx);
            }
        }
        while self.may_send(cx.now)
            && let Some(n) = self.ready.pop_front()
        {
            self.enter_lane(n, lanes, cx);
        }
        let paced = self.out < self.breadth() && !self.ready.is_empty();
        let pauses = self.legs.iter().filter_map(|leg| match leg.state {
            State::Paused(until) => Some(until),
            _ => None,
        });
        let next = pauses.chain(self.not_before.filter(|_| paced)).min();
        cx.timers.set(self.id, Kind::Pace, next);
    }

    /// IM-079: behind those who were accepted before for the same target.
    fn enter_lane(&mut self, n: u16, lanes: &SharedLanes, cx: &mut Around) {
        let most = self.policy.deferral.max_per_user.max(1);
        let place = lanes.lock().enter(&self.recipient(n).party.key, self.leg_id(n), most);
        match place {
            Place::First => self.send(n, cx),
            Place::Behind => self.legs[usize::from(n) - 1].state = State::Lined,
            Place::Full => {
                let text =
                    "too many pages are on their way to the recipient (deferred.max_per_user)";
                let cause = Cause::new(CauseProtocol::Policy, 480, text);
                self.legs[usize::from(n) - 1].state = State::Idle;
                match self.kept && self.policy.deferral.enabled {
                    true => self.defer(n, cause, cx),
                    false => self.fail(n, cause, cx),
                }
            }
        }
    }

    /// It may be this leg's turn by now; or it was, and has passed.
    fn on_turn(&mut self, n: u16, lanes: &SharedLanes, cx: &mut Around) {
        if self.leg_mut(n).is_some_and(|leg| leg.state == State::Lined)
            && lanes.lock().is_first(&self.recipient(n).party.key, self.leg_id(n))
        {
            self.has_turn(n, lanes, cx);
        }
    }

    /// It is this leg's turn. If its page may not send now, others go first.
    fn has_turn(&mut self, n: u16, lanes: &SharedLanes, cx: &mut Around) {
        if self.may_send(cx.now) {
            return self.send(n, cx);
        }
        self.leave_lane(n, lanes, cx);
        self.legs[usize::from(n) - 1].state = State::Ready;
        self.ready.push_front(n);
    }

    fn send(&mut self, n: u16, cx: &mut Around) {
        self.not_before = fanout::pace(&self.policy).map(|gap| cx.now + gap);
        let leg = self.leg_id(n);
        let entry = &mut self.legs[usize::from(n) - 1];
        (entry.state, entry.outcome) = (State::Out, None);
        self.out += 1;
        let recipient = self.recipient(n).clone();
        let party = recipient.party.clone();
        let audience = Arc::clone(&self.audience);
        cx.out.push(Effect::Event(Event::Invited { leg, party }));
        cx.out.push(Effect::Deliver { leg, recipient, audience });
    }

    fn on_leg(&mut self, n: u16, event: LegEvent, lanes: &SharedLanes, cx: &mut Around) {
        if !self.leg_mut(n).is_some_and(|leg| leg.state == State::Out) {
            return;
        }
        if let Some(pause) = self.pause(n, &event) {
            let leg = &mut self.legs[usize::from(n) - 1];
            (leg.state, leg.retries) = (State::Paused(cx.now + pause), leg.retries + 1);
            self.out -= 1;
            return;
        }
        let cause = match event {
            LegEvent::Accepted { .. } => None,
            LegEvent::Refused { status, text, .. } => {
                Some(Cause::new(CauseProtocol::Sip, status, text))
            }
            LegEvent::Unreachable { timeout } => Some(unreachable_cause(timeout)),
            // They are about sessions.
            LegEvent::Early { .. }
            | LegEvent::Unusable { .. }
            | LegEvent::Bye
            | LegEvent::Expired => return,
        };
        self.leave_lane(n, lanes, cx);
        let leg = self.leg_id(n);
        match cause {
            None => {
                self.legs[usize::from(n) - 1].outcome = Some(Outcome::Delivered);
                cx.out.push(Effect::Event(Event::Delivered { leg, octets: self.size }));
                self.settled(n, cx);
            }
            Some(cause) if self.kept && self.policy.deferral.takes(&cause) => {
                self.defer(n, cause, cx);
            }
            Some(cause) => self.fail(n, cause, cx),
        }
    }

    /// How long to wait before the recipient is tried again; `None`: not again.
    ///
    /// UL-033: a few times at most. Whoever is there but busy, or has a core that is, is tried again; whoever did not answer
    /// may have the page already, whoever is not there is waited for, and every other answer is final.
    fn pause(&self, n: u16, event: &LegEvent) -> Option<Duration> {
        let (busy, asked) = match event {
            LegEvent::Refused { status, retry_after, .. } => {
                let asked = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
                let busy = matches!(status, 500 | 503 | 504)
                    || (asked.is_some() && matches!(status, 480 | 486));
                (busy, asked)
            }
            LegEvent::Unreachable { timeout: false } => (true, None),
            _ => (false, None),
        };
        let leg = &self.legs[usize::from(n) - 1];
        if !busy || leg.retries >= self.policy.short_retries {
            return None;
        }
        let own = self.policy.short_retry_after * 2_u32.saturating_pow(leg.retries.min(16));
        Some(own.max(asked.unwrap_or_default())).filter(|pause| *pause <= LONGEST_PAUSE)
    }

    /// The next one for the same target has its turn.
    fn leave_lane(&mut self, n: u16, lanes: &SharedLanes, cx: &mut Around) {
        let state = self.state(n);
        if state == State::Idle {
            return;
        }
        self.out -= usize::from(state == State::Out);
        self.ready.retain(|ready| *ready != n);
        self.legs[usize::from(n) - 1].state = State::Idle;
        let next = lanes.lock().leave(&self.recipient(n).party.key, self.leg_id(n));
        cx.out.extend(next.map(|leg| Effect::Turn { leg }));
    }

    fn defer(&mut self, n: u16, cause: Cause, cx: &mut Around) {
        self.unreached.push(n);
        self.legs[usize::from(n) - 1].outcome = Some(Outcome::Deferred(cause.clone()));
        cx.out.push(Effect::Event(Event::Deferred { leg: self.leg_id(n), cause }));
    }

    fn fail(&mut self, n: u16, cause: Cause, cx: &mut Around) {
        self.legs[usize::from(n) - 1].outcome = Some(Outcome::Failed(cause.clone()));
        cx.out.push(Effect::Event(Event::Failed { leg: self.leg_id(n), cause, octets: 0 }));
        self.settled(n, cx);
    }

    fn expire(&mut self, n: u16, lanes: &SharedLanes, cx: &mut Around) {
        self.leave_lane(n, lanes, cx);
        self.legs[usize::from(n) - 1].outcome = Some(Outcome::Expired);
        let party = self.recipient(n).party.clone();
        cx.out.push(Effect::Event(Event::Expired { leg: self.leg_id(n), party }));
        self.settled(n, cx);
    }

    /// It must not be served again after a restart.
    fn settled(&self, n: u16, cx: &mut Around) {
        if self.kept && self.declined(n).is_none() {
            cx.out.push(Effect::Settled { leg: self.leg_id(n) });
        }
    }

    /// The page's one end.
    fn finish(&mut self, cx: &mut Around) {
        for n in self.numbers().filter(|n| self.waits(*n)) {
            let user = Arc::clone(&self.recipient(n).party.key);
            cx.out.push(Effect::Defer { leg: self.leg_id(n), user, until: self.until });
        }
        cx.out.push(Effect::Event(Event::PageEnded {
            page: self.id,
            delivered: self.count(|outcome| matches!(outcome, Outcome::Delivered)),
            failed: self.count(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Expired)),
            deferred: self.count(|outcome| matches!(outcome, Outcome::Deferred(_))),
        }));
        self.close(cx);
    }

    fn close(&mut self, cx: &mut Around) {
        self.stage = Stage::Closed;
        cx.out.push(Effect::Forget { page: self.id });
        cx.timers.clear(self.id);
    }

    /// The final events of a page that ends on the spot, and the turns it leaves to others.
    pub(super) fn abandoned(&mut self, lanes: &SharedLanes) -> Vec<Effect> {
        let cause = Cause::new(CauseProtocol::Policy, 0, "internal error");
        let mut out = Vec::new();
        for n in self.numbers() {
            let (leg, key) = (self.leg_id(n), &self.recipient(n).party.key);
            let next = lanes.lock().leave(key, leg);
            out.extend(next.map(|leg| Effect::Turn { leg }));
            let ends = self.state(n) != State::Idle || self.waits(n);
            if ends || self.stage == Stage::Keeping {
                out.push(Effect::Event(Event::Failed { leg, cause: cause.clone(), octets: 0 }));
                self.legs[usize::from(n) - 1].outcome = Some(Outcome::Failed(cause.clone()));
            }
        }
        let page = self.id;
        let last = match self.stage {
            Stage::Serving | Stage::Closed => Event::PageEnded {
                page,
                delivered: self.count(|outcome| matches!(outcome, Outcome::Delivered)),
                failed: self
                    .count(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Expired)),
                deferred: 0,
            },
            Stage::Resolving { .. } | Stage::Keeping => {
                Event::PageRefused { page, status: 480, text: cause.text }
            }
            Stage::TakingBack => return out,
        };
        out.push(Effect::Event(last));
        out
    }

    /// Nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Closed
    }

    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// The keys of those who were not there, since this was asked last.
    pub(super) fn unreached(&mut self) -> Vec<Arc<str>> {
        let numbers = std::mem::take(&mut self.unreached);
        numbers.into_iter().map(|n| Arc::clone(&self.recipient(n).party.key)).collect()
    }

    /// Everybody the page is for.
    pub(super) fn recipients(&self) -> &[Recipient] {
        &self.audience.recipients
    }

    fn numbers(&self) -> impl Iterator<Item = u16> + use<> {
        (1..=u16::MAX).take(self.legs.len())
    }

    fn leg_id(&self, n: u16) -> LegId {
        LegId { page: self.id, n }
    }

    /// Legs that were never made are passed over.
    fn leg_mut(&mut self, n: u16) -> Option<&mut Leg> {
        self.legs.get_mut(usize::from(n).checked_sub(1)?)
    }

    /// Of a leg that was made.
    fn state(&self, n: u16) -> State {
        self.legs[usize::from(n) - 1].state
    }

    /// Of a leg that was made.
    fn recipient(&self, n: u16) -> &Recipient {
        &self.audience.recipients[usize::from(n) - 1]
    }

    fn waits(&self, n: u16) -> bool {
        let leg = usize::from(n).checked_sub(1).and_then(|index| self.legs.get(index));
        leg.is_some_and(|leg| {
            leg.state == State::Idle && matches!(leg.outcome, Some(Outcome::Deferred(_)))
        })
    }

    /// IM-090, IM-091: why this recipient is not asked at all.
    fn declined(&self, n: u16) -> Option<Cause> {
        let key = &self.recipient(n).party.key;
        let (_, why) = self.audience.declined.iter().find(|(declined, _)| declined == key)?;
        Some(Cause::new(CauseProtocol::Policy, why.status(), why.text()))
    }

    fn count(&self, which: impl Fn(&Outcome) -> bool) -> u16 {
        let ended = self.legs.iter().filter_map(|leg| leg.outcome.as_ref());
        ended.filter(|outcome| which(outcome)).count().try_into().expect("legs are numbered by u16")
    }
}

/// A leg for everybody, and nothing to do.
fn untouched(audience: &Audience) -> Vec<Leg> {
    let most = usize::from(u16::MAX);
    let leg = |_| Leg { state: State::Idle, outcome: None, retries: 0 };
    audience.recipients.iter().take(most).map(leg).collect()
}

fn ended_cause() -> Cause {
    Cause::new(CauseProtocol::Policy, 0, "ended by the operator")
}

fn ended_refusal() -> Refusal {
    Refusal::new(480, "IM-064").warn(ended_cause().text)
}

/// UL-036: the sender may try again.
pub(super) fn store_is_down() -> Refusal {
    let mut refusal = Refusal::new(480, "UL-036").warn("the store is down").key("store.url");
    refusal.retry_after = Some(super::RETRY_AFTER);
    refusal
}
