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
const RESOLVE_LIMIT: Duration = Duration::from_secs(30);

/// What the page waits for.
///
/// ```text
/// Resolving ── recipients known ──► Keeping ── kept [202] ──► Serving ── every recipient has a result ──► Closed
///     │                                │
///     └── refused, ended               └── not kept, ended [refused] ───────────────────────────────────► Closed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Resolving {
        target_is_list: bool,
    },
    /// It was asked for; an operator may have ended the page since.
    Keeping {
        ended: bool,
    },
    Serving,
    Closed,
}

/// One recipient.
///
/// ```text
///           ┌────────── Reachable, served again ──────────┐
///           ▼                                             │
/// Idle ─► Lined ── its turn at the target ─► Ready ─► Out ┴► Idle, with a result
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is to be done, or not yet.
    Idle,
    /// Others for the same target come first.
    Lined,
    /// It waits for the page's own breadth and pace.
    Ready,
    /// The MESSAGE is out.
    Out,
}

#[derive(Debug)]
struct Leg {
    state: State,
    outcome: Option<Outcome>,
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
    /// Legs that have their turn at the target, in order.
    ready: VecDeque<u16>,
    /// MESSAGEs without a final answer.
    out: usize,
    /// When the next one may leave, by `send_rate`.
    not_before: Option<Instant>,
    /// Legs that failed since it was asked last, because nobody was there.
    unreached: Vec<u16>,
    size: u64,
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
                self.line_up(n, lanes, cx);
            }
        }
        self.moved(lanes, cx);
    }

    /// Moves this page; afterwards its timers are set for what it now waits for.
    pub(super) fn handle(&mut self, what: Happens, lanes: &SharedLanes, cx: &mut Around) {
        match what {
            Happens::Resolved(result) => self.on_resolved(result, lanes, cx),
            Happens::Kept(kept) => self.on_kept(kept, lanes, cx),
            Happens::Leg(n, event) => self.on_leg(n, event, lanes, cx),
            Happens::Turn(n) => {
                if let Some(leg) = self.leg_mut(n).filter(|leg| leg.state == State::Lined) {
                    leg.state = State::Ready;
                    self.ready.push_back(n);
                }
            }
            Happens::Reachable(user) => {
                for n in self.numbers() {
                    if self.waits(n) && *self.recipient(n).party.key == *user {
                        self.line_up(n, lanes, cx);
                    }
                }
            }
            Happens::Ended => self.on_ended(lanes, cx),
            Happens::Due(Kind::Resolve) => {
                let mut refusal = Refusal::new(480, "IM-033").warn("recipients unknown");
                refusal.retry_after = Some(super::RETRY_AFTER);
                self.refuse(refusal, cx);
            }
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
        if self.stage != Stage::Serving {
            let resolving = matches!(self.stage, Stage::Resolving { .. });
            let due = resolving.then(|| self.since + RESOLVE_LIMIT);
            cx.timers.set(self.id, Kind::Resolve, due);
            return;
        }
        cx.timers.set(self.id, Kind::Resolve, None);
        if cx.now >= self.until {
            for n in self.numbers() {
                if matches!(self.state(n), State::Lined | State::Ready) || self.waits(n) {
                    self.expire(n, lanes, cx);
                }
            }
        }
        self.deliver_due(cx);
        let busy = self.legs.iter().any(|leg| leg.state != State::Idle);
        let unsent = self.legs.iter().any(|leg| matches!(leg.state, State::Lined | State::Ready));
        cx.timers.set(self.id, Kind::Deadline, Some(self.until).filter(|_| unsent));
        if !busy {
            self.finish(cx);
        }
    }

    // ---- the originator ---------------------------------------------------------------------------------------

    fn on_resolved(
        &mut self,
        result: Result<Audience, Refusal>,
        lanes: &SharedLanes,
        cx: &mut Around,
    ) {
        let Stage::Resolving { target_is_list } = self.stage else { return };
        let audience = match result {
            Ok(audience) => fanout::admit(audience, self.id, &self.identities, cx.out),
            Err(refusal) => return self.refuse(refusal, cx),
        };
        if audience.recipients.is_empty() {
            let rule = if target_is_list { "IM-031" } else { "IM-035" };
            return self.refuse(Refusal::new(403, rule).warn("No destinations"), cx);
        }
        if audience.recipients.len() > usize::from(u16::MAX) {
            let refusal = Refusal::new(403, "UL-020").warn("102 Too many participants");
            return self.refuse(refusal.key("im.max_recipients"), cx);
        }
        self.legs = untouched(&audience);
        self.audience = Arc::new(audience);
        let open: Vec<u16> = self.numbers().filter(|n| self.declined(*n).is_none()).collect();
        let Some(arrival) = self.arrival.take().filter(|_| !open.is_empty()) else {
            // Nobody it would have to be kept for; the sender is not told that rules declined it (IM-090).
            return self.answer(lanes, cx);
        };
        self.stage = Stage::Keeping { ended: false };
        let (audience, size) = ((*self.audience).clone(), self.size);
        let record = Box::new(Record { arrival: *arrival, audience, size });
        cx.out.push(Effect::Keep { page: self.id, record, open, until: self.until });
    }

    fn on_kept(&mut self, kept: bool, lanes: &SharedLanes, cx: &mut Around) {
        let Stage::Keeping { ended } = self.stage else { return };
        self.kept = kept;
        if kept && !ended {
            return self.answer(lanes, cx);
        }
        let (cause, refusal) = if ended {
            let cause = ended_cause();
            let refusal = Refusal::new(480, "IM-064").warn(cause.text.clone());
            (cause, refusal)
        } else {
            // UL-036: the sender may try again.
            let cause = Cause::new(CauseProtocol::Store, 0, "the page cannot be kept");
            let mut refusal =
                Refusal::new(480, "UL-036").warn("the store is down").key("store.url");
            refusal.retry_after = Some(super::RETRY_AFTER);
            (cause, refusal)
        };
        for n in self.numbers() {
            self.fail(n, cause.clone(), cx);
        }
        self.refuse(refusal, cx);
    }

    /// UL-027: 202 once nothing of it can be lost, then everybody in the order of the list.
    fn answer(&mut self, lanes: &SharedLanes, cx: &mut Around) {
        let page = self.id;
        self.stage = Stage::Serving;
        cx.out.push(Effect::Accept { page, warnings: self.audience.warnings.clone() });
        cx.out.push(Effect::Event(Event::OriginatorAnswered { page }));
        cx.out.push(Effect::ReleaseOriginator { page });
        for n in self.numbers() {
            match self.declined(n) {
                Some(cause) => self.fail(n, cause, cx),
                None => self.line_up(n, lanes, cx),
            }
        }
    }

    /// UL-036: what is 486 to an INVITE is 403 to a MESSAGE.
    fn refuse(&mut self, refusal: Refusal, cx: &mut Around) {
        let (page, refusal) = (self.id, for_message(refusal));
        let (status, text) = (refusal.status, refusal.text());
        cx.out.push(Effect::Refuse { page, refusal });
        cx.out.push(Effect::Event(Event::PageRefused { page, status, text }));
        cx.out.push(Effect::ReleaseOriginator { page });
        self.close(cx);
    }

    fn on_ended(&mut self, lanes: &SharedLanes, cx: &mut Around) {
        match &mut self.stage {
            Stage::Resolving { .. } => {
                let refusal = Refusal::new(480, "IM-064").warn(ended_cause().text);
                self.refuse(refusal, cx);
            }
            // What is being kept is taken back when it is.
            Stage::Keeping { ended } => *ended = true,
            Stage::Serving => {
                for n in self.numbers() {
                    if self.state(n) != State::Idle || self.waits(n) {
                        self.leave_lane(n, lanes, cx);
                        self.fail(n, ended_cause(), cx);
                    }
                }
            }
            Stage::Closed => {}
        }
    }

    // ---- the recipients ---------------------------------------------------------------------------------------

    /// IM-079: behind those who were accepted before for the same target.
    fn line_up(&mut self, n: u16, lanes: &SharedLanes, cx: &mut Around) {
        let waits = self.waits(n);
        let fresh = self
            .leg_mut(n)
            .is_some_and(|leg| leg.state == State::Idle && (leg.outcome.is_none() || waits));
        if !fresh {
            return;
        }
        let id = self.leg_id(n);
        let most = self.policy.deferral.max_per_user.max(1);
        let place = lanes.lock().enter(&self.recipient(n).party.key, id, most);
        let leg = &mut self.legs[usize::from(n) - 1];
        leg.outcome = None;
        match place {
            Place::First => {
                leg.state = State::Ready;
                self.ready.push_back(n);
            }
            Place::Behind => leg.state = State::Lined,
            Place::Full => {
                let text =
                    "too many pages are on their way to the recipient (deferred.max_per_user)";
                self.fail(n, Cause::new(CauseProtocol::Policy, 480, text), cx);
            }
        }
    }

    /// UL-033 (`send_rate` a second), UL-034 (so many unanswered ones at a time).
    fn deliver_due(&mut self, cx: &mut Around) {
        let breadth = usize::from(self.policy.max_entries).max(1);
        while self.out < breadth && self.not_before.is_none_or(|at| at <= cx.now) {
            let Some(n) = self.ready.pop_front() else { break };
            self.not_before = fanout::pace(&self.policy).map(|gap| cx.now + gap);
            let leg = self.leg_id(n);
            self.legs[usize::from(n) - 1].state = State::Out;
            self.out += 1;
            let recipient = self.recipient(n).clone();
            let party = recipient.party.clone();
            let audience = Arc::clone(&self.audience);
            cx.out.push(Effect::Event(Event::Invited { leg, party }));
            cx.out.push(Effect::Deliver { leg, recipient, audience });
        }
        let paced = self.out < breadth && !self.ready.is_empty();
        cx.timers.set(self.id, Kind::Pace, self.not_before.filter(|_| paced));
    }

    fn on_leg(&mut self, n: u16, event: LegEvent, lanes: &SharedLanes, cx: &mut Around) {
        if !self.leg_mut(n).is_some_and(|leg| leg.state == State::Out) {
            return;
        }
        let cause = match event {
            LegEvent::Accepted { .. } => None,
            LegEvent::Refused { status, text } => {
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
                self.legs[usize::from(n) - 1].outcome = Some(Outcome::Deferred(cause.clone()));
                self.unreached.push(n);
                cx.out.push(Effect::Event(Event::Deferred { leg, cause }));
            }
            Some(cause) => self.fail(n, cause, cx),
        }
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
            if ends || matches!(self.stage, Stage::Keeping { .. }) {
                out.push(Effect::Event(Event::Failed { leg, cause: cause.clone(), octets: 0 }));
                self.legs[usize::from(n) - 1].outcome = Some(Outcome::Failed(cause.clone()));
            }
        }
        let page = self.id;
        out.push(Effect::Event(match self.stage {
            Stage::Serving | Stage::Closed => Event::PageEnded {
                page,
                delivered: self.count(|outcome| matches!(outcome, Outcome::Delivered)),
                failed: self
                    .count(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Expired)),
                deferred: 0,
            },
            Stage::Resolving { .. } | Stage::Keeping { .. } => {
                Event::PageRefused { page, status: 480, text: cause.text }
            }
        }));
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
    let leg = |_| Leg { state: State::Idle, outcome: None };
    audience.recipients.iter().take(most).map(leg).collect()
}

/// UL-020, UL-036: the refusal as a MESSAGE gets it.
pub(super) fn for_message(mut refusal: Refusal) -> Refusal {
    if refusal.status == 486 {
        refusal.status = 403;
    }
    refusal
}

fn ended_cause() -> Cause {
    Cause::new(CauseProtocol::Policy, 0, "ended by the operator")
}
