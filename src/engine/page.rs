//! One page: accepted, resolved, fanned out, delivered, ended.
//!
//! Start at [`Page::handle`]; the originator's side is [`Stage`], the bytes are [`Body`], the recipients are a
//! [`Fanout`]. Never builds a message and never reads a byte of the page.
//! Follows IM-020, IM-051…IM-067, MS-084, MS-085, MS-089, MS-090, MS-108…MS-110.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::effect::{Cause, CauseProtocol, Effect};
use super::event::Event;
use super::fanout::{self, Fanout, Turn};
use super::ids::{LegId, PageId};
use super::input::{
    Arrival, LegEvent, LegMedia, OriginatorEvent, OriginatorMedia, PageLoss, Refusal,
};
use super::leg::{CROSSING, Happening};
use super::party::{Audience, Party, Recipient, Target};
use super::policy::{OriginatorAnswer, Policy, WhenNoneJoined};
use super::record::{Record, Restored};
use super::report::Owed;
use super::timers::{Kind, Timers};

/// Who is meant is known within this time or never.
const RESOLVE_LIMIT: Duration = Duration::from_secs(30);

/// An ACK comes within 64 × T1 or not at all (RFC 3261 §13.3.1.4).
const ACK_LIMIT: Duration = Duration::from_secs(32);

/// The originator's dialog.
///
/// ```text
/// Resolving ── recipients known ──► Inviting ── first 2xx (or at once) [200] ──► Answered
///     │                                │                                          │   │
///     │                                │               BYE, page not whole ◄──────┘   ├── nothing left to wait for
///     │                                │                       ▼                      ▼
///     │                                │                    Leaving                Closing ── all written, or waited
///     │                                │                       │ page whole, or not     │                     [BYE]
///     ▼                                ▼                       ▼                        ▼
///     └── refused, CANCEL ─────────────┴──── BYE, page whole ──┴────────────────────► Closed [release]
/// ```
#[derive(Debug)]
enum Stage {
    /// Accepted; who is meant is not known yet.
    Resolving { target_is_list: bool },
    /// Recipients are invited and nobody has joined.
    Inviting,
    /// 200 went out.
    Answered { since: Instant },
    /// BYE came while the page was not whole: what is under way may complete it.
    Leaving { since: Instant },
    /// We shall say BYE once what the originator is owed is written and our 200 acknowledged.
    Closing { since: Instant, written: bool, cause: Option<Cause> },
    /// The dialog is over and the MSRP session released.
    Closed,
}

/// The page's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Awaited,
    /// Octets have come since.
    Coming {
        since: Instant,
    },
    Whole {
        since: Instant,
        at: Instant,
        settled: Option<Instant>,
        safe: Safe,
    },
    Lost,
}

/// Whether a whole page outlives this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Safe {
    /// It was asked for.
    Asked,
    Kept,
    /// There is nobody it would have to be kept for, or it could not be.
    No,
}

/// One page.
#[derive(Debug)]
pub(super) struct Page {
    id: PageId,
    policy: Arc<Policy>,
    identities: Vec<Party>,
    /// What it counts under (IM-036).
    names: Vec<Arc<str>>,
    /// How long until the next 183 repeats the last.
    repeat: Duration,
    since: Instant,
    stage: Stage,
    /// When the originator last heard a provisional response.
    progressed: Option<Instant>,
    rang: bool,
    acked: bool,
    /// 200 was sent, so the page ends with `PageEnded`; otherwise it was refused.
    answered: bool,
    body: Body,
    legs: Fanout,
    owed: Owed,
    /// What has to be kept of how it came, until it is.
    arrival: Option<Box<Arrival>>,
    /// When nobody is to be tried any more.
    until: Instant,
}

/// What happens to a page, sorted from [`super::input::Input`] and the timers.
pub(super) enum Happens {
    Resolved(Result<Audience, Refusal>),
    Originator(OriginatorEvent),
    Leg(u16, LegEvent),
    OriginatorMedia(OriginatorMedia),
    LegMedia(u16, LegMedia),
    Ended,
    Kept(bool),
    /// The user with this key can be reached now.
    Reachable(Arc<str>),
    /// Nobody else's MESSAGE is on its way to the target of this leg any more.
    Turn(u16),
    Due(Kind),
}

/// What a move needs besides the page.
pub(super) struct Around<'a> {
    pub(super) now: Instant,
    pub(super) timers: &'a mut Timers,
    pub(super) out: &'a mut Vec<Effect>,
}

impl Page {
    /// Takes a page on: from here on it has its one end. The recipients are asked for.
    pub(super) fn accept(arrival: Arrival, policy: Arc<Policy>, cx: &mut Around) -> Self {
        let id = arrival.page;
        let target_is_list = matches!(arrival.target, Target::List(_));
        let (reliable, unreliable) = policy.progress_repeat;
        let names = super::names(&arrival);
        cx.out.push(Effect::Resolve { page: id, target: arrival.target.clone() });
        let ttl = policy.deferral.ttl;
        let page = Self {
            id,
            names,
            until: cx.now + arrival.lifetime.map_or(ttl, |lifetime| lifetime.min(ttl)),
            identities: arrival.identities.clone(),
            repeat: if arrival.reliable { reliable } else { unreliable },
            since: cx.now,
            stage: Stage::Resolving { target_is_list },
            progressed: None,
            rang: false,
            acked: false,
            answered: false,
            body: Body::Awaited,
            legs: Fanout::empty(id),
            owed: Owed::new(policy.sr_policy),
            policy,
            arrival: Some(Box::new(arrival)),
        };
        page.rearm(cx.timers);
        page
    }

    /// Goes on with a page that was kept: its originator is gone, its octets are here.
    pub(super) fn restored(restored: Restored, policy: Arc<Policy>, cx: &mut Around) -> Self {
        let Restored { record: Record { arrival, audience, size }, open, until } = restored;
        let id = arrival.page;
        cx.out.push(Effect::Event(Event::PageRestored {
            page: id,
            mode: arrival.mode,
            originator: arrival.originator,
            dialled: arrival.dialled,
            size,
        }));
        let now = cx.now;
        let mut page = Self {
            id,
            names: Vec::new(),
            until,
            identities: arrival.identities,
            repeat: Duration::MAX,
            since: now,
            stage: Stage::Closed,
            progressed: None,
            rang: false,
            acked: true,
            answered: true,
            body: Body::Whole { since: now, at: now, settled: Some(now), safe: Safe::Kept },
            legs: Fanout::restored(id, audience, &open),
            owed: Owed::new(policy.sr_policy),
            policy,
            arrival: None,
        };
        page.moved(cx);
        page
    }

    /// Serves these legs, too, who waited or were left over.
    pub(super) fn serve(&mut self, open: &[u16], cx: &mut Around) {
        self.legs.serve(open);
        self.moved(cx);
    }

    /// After every move: what all of it together means.
    fn moved(&mut self, cx: &mut Around) {
        if self.safe() == Some(Safe::Kept) {
            if cx.now >= self.until {
                self.legs.expire(cx.out);
            }
            self.with_legs(cx, Fanout::invite_due);
        }
        self.settle(cx);
        self.tell_settled(cx);
        self.rearm(cx.timers);
        if self.is_over() {
            self.finish(cx);
        }
    }

    fn safe(&self) -> Option<Safe> {
        match self.body {
            Body::Whole { safe, .. } => Some(safe),
            Body::Awaited | Body::Coming { .. } | Body::Lost => None,
        }
    }

    /// What must not be served again after a restart.
    fn tell_settled(&mut self, cx: &mut Around) {
        let page = self.id;
        if self.safe() == Some(Safe::Kept) {
            let settled = self.legs.settled().into_iter();
            cx.out.extend(settled.map(|n| Effect::Settled { leg: LegId { page, n } }));
        }
    }

    /// The final events of a page that ends on the spot.
    pub(super) fn abandoned(&self) -> Vec<Event> {
        let cause = Cause::new(CauseProtocol::Policy, 0, "internal error");
        let mut events: Vec<Event> = self
            .legs
            .unfinished()
            .map(|leg| Event::Failed { leg, cause: cause.clone(), octets: 0 })
            .collect();
        let (page, delivered) = (self.id, self.legs.delivered());
        let failed = self.legs.failed().saturating_add(events.len().try_into().unwrap_or(u16::MAX));
        events.push(if self.answered {
            Event::PageEnded { page, delivered, failed, deferred: 0 }
        } else {
            Event::PageRefused { page, status: 480, text: cause.text }
        });
        events
    }

    /// Nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Closed)
            && self.legs.all_gone()
            && self.safe() != Some(Safe::Asked)
    }

    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Moves this page; afterwards its timers are set for what it now waits for.
    pub(super) fn handle(&mut self, what: Happens, cx: &mut Around) {
        match what {
            Happens::Resolved(result) => self.on_resolved(result, cx),
            Happens::Originator(event) => self.on_originator(event, cx),
            Happens::Leg(n, event) => self.on_leg(n, event, cx),
            Happens::OriginatorMedia(event) => self.on_originator_media(event, cx),
            Happens::LegMedia(n, event) => self.move_leg(n, Happening::Media(event), cx),
            Happens::Ended => {
                let cause = Cause::new(CauseProtocol::Policy, 0, "ended by the operator");
                self.lose(&cause, true, cx);
                self.stop(cause, "IM-064", cx);
            }
            Happens::Reachable(user) => {
                if self.may_invite_again() {
                    self.with_legs(cx, |legs, turn, out| legs.invite_again(&user, turn, out));
                }
            }
            Happens::Kept(kept) => self.on_kept(kept, cx),
            // INVITEs wait for nobody else's.
            Happens::Turn(_) => {}
            Happens::Due(kind) => self.on_due(kind, cx),
        }
        self.moved(cx);
    }

    /// Those who could not be found, since this was asked last.
    pub(super) fn unreached(&mut self) -> impl Iterator<Item = Arc<str>> {
        self.legs.unreached()
    }

    /// Everybody the page is for.
    pub(super) fn recipients(&self) -> &[Recipient] {
        self.legs.recipients()
    }

    /// Whether somebody who could not be found may still get the page: it can become whole or is, and its sender has not
    /// been told that nobody got it.
    fn may_invite_again(&self) -> bool {
        let running = match self.stage {
            Stage::Inviting => true,
            Stage::Answered { .. } => self.body != Body::Lost,
            Stage::Leaving { .. } | Stage::Closing { .. } | Stage::Closed => {
                self.answered && matches!(self.body, Body::Whole { .. })
            }
            Stage::Resolving { .. } => false,
        };
        let nobody = self.legs.delivered() == 0 && self.legs.deferred() == 0;
        running && !(self.legs.all_told() && nobody)
    }

    // ---- recipients known -------------------------------------------------------------------------------------

    fn on_resolved(&mut self, result: Result<Audience, Refusal>, cx: &mut Around) {
        let Stage::Resolving { target_is_list } = self.stage else {
            return;
        };
        let audience = match result {
            Ok(audience) => fanout::admit(audience, self.id, &self.identities, cx.out),
            Err(refusal) => return self.refuse(refusal, cx),
        };
        if audience.recipients.is_empty() {
            // IM-031: nobody is left to send to.
            let rule = if target_is_list { "IM-031" } else { "IM-035" };
            return self.refuse(Refusal::new(403, rule).warn("No destinations"), cx);
        }
        if audience.recipients.len() > usize::from(u16::MAX) {
            let refusal = Refusal::new(486, "IM-032").warn("102 Too many participants");
            return self.refuse(refusal.key("im.max_recipients"), cx);
        }
        self.legs = Fanout::new(self.id, audience);
        self.stage = Stage::Inviting;
        self.with_legs(cx, Fanout::invite_due);
        match self.policy.originator_answer {
            OriginatorAnswer::Immediate => self.answer(cx),
            // IM-020: the S-CSCF waits two seconds at most for more than a 100.
            OriginatorAnswer::First200 if self.progressed.is_none() => self.progress(false, cx),
            OriginatorAnswer::First200 => {}
        }
    }

    // ---- the originator's dialog ------------------------------------------------------------------------------

    fn on_originator(&mut self, event: OriginatorEvent, cx: &mut Around) {
        use OriginatorEvent as E;
        match event {
            // IM-063: the INVITE has its 487 already. A CANCEL that crossed our 200 does nothing.
            E::Cancelled => self.on_given_up(487, "cancelled by the originator", cx),
            // IM-053: the INVITE has its 500 already. The 200, if decided, was still held back.
            E::PrackMissing => {
                self.on_given_up(500, "no PRACK for the 183", cx);
                self.on_session_void("no PRACK for the 183", false, cx);
            }
            E::Acked => {
                self.acked = true;
                if let Stage::Closing { written: true, .. } = self.stage {
                    self.say_bye(cx);
                }
            }
            // IM-066: BYE, and everything is released.
            E::AckMissing => self.on_session_void("no ACK for the 200", true, cx),
            E::Bye => self.on_bye(cx),
            E::Expired => self.on_expired(cx),
        }
    }

    /// The originator's INVITE is over before it got a 200.
    fn on_given_up(&mut self, status: u16, text: &'static str, cx: &mut Around) {
        if matches!(self.stage, Stage::Resolving { .. } | Stage::Inviting) {
            self.abandon(&Cause::new(CauseProtocol::Sip, status, text), false, cx);
            self.refused(status, text.to_owned(), cx);
            self.close(cx);
        }
    }

    /// There never was a session, though we answered.
    fn on_session_void(&mut self, text: &'static str, bye: bool, cx: &mut Around) {
        if !matches!(self.stage, Stage::Answered { .. } | Stage::Closing { .. }) {
            return;
        }
        let cause = Cause::new(CauseProtocol::Timer, 408, text);
        self.lose(&cause, false, cx);
        self.abandon(&cause, false, cx);
        if bye {
            cx.out.push(Effect::EndOriginator { page: self.id, cause: Some(cause) });
        }
        self.close(cx);
    }

    /// IM-064, MS-109: after the whole page a BYE is how senders say goodbye; before it, it takes the page back.
    fn on_bye(&mut self, cx: &mut Around) {
        match (&self.stage, self.body) {
            (Stage::Resolving { .. } | Stage::Inviting, _) => {
                let text = "the originator left";
                self.abandon(&Cause::new(CauseProtocol::Sip, 487, text), false, cx);
                self.refuse(Refusal::new(487, "IM-063").warn(text), cx);
            }
            (Stage::Answered { .. }, Body::Whole { .. }) | (Stage::Closing { .. }, _) => {
                self.close(cx)
            }
            // The last octets and the BYE come by different ways.
            (Stage::Answered { .. }, _) => self.stage = Stage::Leaving { since: cx.now },
            (Stage::Leaving { .. } | Stage::Closed, _) => {}
        }
    }

    /// IM-066 (RFC 4028 §10).
    fn on_expired(&mut self, cx: &mut Around) {
        if !matches!(
            self.stage,
            Stage::Answered { .. } | Stage::Leaving { .. } | Stage::Closing { .. }
        ) {
            return;
        }
        let cause = Cause::new(CauseProtocol::Timer, 408, "the session timer ran out");
        if !matches!(self.body, Body::Whole { .. }) {
            self.lose(&cause, false, cx);
            self.abandon(&cause, false, cx);
        }
        if !matches!(self.stage, Stage::Leaving { .. }) {
            cx.out.push(Effect::EndOriginator { page: self.id, cause: Some(cause) });
        }
        self.close(cx);
    }

    // ---- the originator's bytes -------------------------------------------------------------------------------

    fn on_originator_media(&mut self, event: OriginatorMedia, cx: &mut Around) {
        let page = self.id;
        match (event, self.body) {
            // MS-084, MS-110: the audience stands, and the clock for the whole page starts.
            (OriginatorMedia::Started { content_type, total }, Body::Awaited) => {
                self.body = Body::Coming { since: cx.now };
                cx.out.push(Effect::Event(Event::PageStarted { page, content_type, total }));
            }
            (OriginatorMedia::Complete { size }, Body::Awaited | Body::Coming { .. }) => {
                let since = if let Body::Coming { since } = self.body { since } else { cx.now };
                cx.out.push(Effect::Event(Event::PageComplete { page, size }));
                let safe = self.keep(size, cx);
                self.body = Body::Whole { since, at: cx.now, settled: None, safe };
                if matches!(self.stage, Stage::Leaving { .. }) {
                    self.close(cx);
                }
            }
            (OriginatorMedia::Settled, body) => {
                if let Body::Whole { since, at, settled: None, safe } = body {
                    self.body = Body::Whole { since, at, settled: Some(cx.now), safe };
                }
                if let Stage::Closing { written, .. } = &mut self.stage {
                    *written = true;
                    if self.acked {
                        self.say_bye(cx);
                    }
                }
            }
            (OriginatorMedia::Aborted(loss), Body::Awaited | Body::Coming { .. }) => {
                self.on_aborted(loss, cx);
            }
            (
                OriginatorMedia::Bound
                | OriginatorMedia::Started { .. }
                | OriginatorMedia::Complete { .. }
                | OriginatorMedia::Aborted(_),
                _,
            ) => {}
        }
    }

    /// What is acknowledged is kept first; nothing is where everybody has had their end.
    fn keep(&mut self, size: u64, cx: &mut Around) -> Safe {
        let (page, until) = (self.id, self.until);
        // Those who had their end so far are not among the open ones.
        self.legs.settled();
        let open = self.legs.open();
        let Some(arrival) = self.arrival.take().filter(|_| !open.is_empty()) else {
            cx.out.push(Effect::Confirm { page, kept: true });
            return Safe::No;
        };
        let record = Record { arrival: *arrival, audience: self.legs.audience().clone(), size };
        cx.out.push(Effect::Keep { page, record: Box::new(record), open, until });
        Safe::Asked
    }

    /// The page is safe, or will never be.
    fn on_kept(&mut self, kept: bool, cx: &mut Around) {
        let Body::Whole { safe: safe @ Safe::Asked, .. } = &mut self.body else { return };
        *safe = if kept { Safe::Kept } else { Safe::No };
        cx.out.push(Effect::Confirm { page: self.id, kept });
        if !kept {
            let cause = loss_cause(PageLoss::Storage);
            cx.out.push(Effect::Event(Event::PageLost { page: self.id, cause: cause.clone() }));
            self.abandon(&cause, false, cx);
            self.legs.give_up(cx.out);
            if matches!(self.stage, Stage::Answered { .. }) {
                self.begin_closing(Some(cause), false, cx);
            }
        }
    }

    /// IM-073, IM-074, MS-090: nobody can get the whole page any more.
    fn on_aborted(&mut self, loss: PageLoss, cx: &mut Around) {
        let cause = loss_cause(loss);
        self.lose(&cause, false, cx);
        match self.stage {
            Stage::Resolving { .. } | Stage::Inviting => self.stop(cause, "IM-073", cx),
            // The response that says why may still have to be written (IM-074).
            Stage::Answered { .. } => self.begin_closing(Some(cause), owes_nothing(loss), cx),
            Stage::Leaving { .. } => self.close(cx),
            Stage::Closing { .. } | Stage::Closed => {}
        }
    }

    /// The page will never be whole; nothing happens to one that is.
    fn lose(&mut self, cause: &Cause, now_or_never: bool, cx: &mut Around) {
        if matches!(self.body, Body::Awaited | Body::Coming { .. }) {
            self.body = Body::Lost;
            if self.answered {
                let cause = cause.clone();
                cx.out.push(Effect::Event(Event::PageLost { page: self.id, cause }));
            }
            self.abandon(cause, now_or_never, cx);
        }
    }

    // ---- the recipients ---------------------------------------------------------------------------------------

    fn on_leg(&mut self, n: u16, event: LegEvent, cx: &mut Around) {
        if matches!(self.stage, Stage::Inviting) && self.legs.awaits_answer(n) {
            match event {
                // IM-051: the first one who joins.
                LegEvent::Accepted { .. } => self.answer(cx),
                // IM-054: our own 183 stands for all of theirs; one 180 for all of theirs.
                LegEvent::Early { ringing: true, .. } if !self.rang => self.progress(true, cx),
                _ => {}
            }
        }
        self.move_leg(n, Happening::Session(event), cx);
    }

    /// IM-019: one leg moves, and with it only what all of them together mean.
    fn move_leg(&mut self, n: u16, what: Happening, cx: &mut Around) {
        let delivered = self.legs.delivered();
        self.with_legs(cx, |legs, turn, out| {
            legs.on(n, what, turn, out);
            legs.invite_due(turn, out);
        });
        if self.legs.delivered() > delivered && self.originator_listens() {
            self.owed.on_delivery(cx.now, self.id, cx.out);
        }
    }

    fn abandon(&mut self, cause: &Cause, now_or_never: bool, cx: &mut Around) {
        self.with_legs(cx, |legs, turn, out| legs.abandon(cause, now_or_never, turn, out));
    }

    fn with_legs(
        &mut self,
        cx: &mut Around,
        act: impl FnOnce(&mut Fanout, &mut Turn<'_>, &mut Vec<Effect>),
    ) {
        let whole = matches!(self.body, Body::Whole { .. });
        let mut turn = Turn { now: cx.now, whole, policy: &self.policy, timers: cx.timers };
        act(&mut self.legs, &mut turn, cx.out);
    }

    /// What follows when every recipient has its result.
    fn settle(&mut self, cx: &mut Around) {
        if matches!(self.stage, Stage::Resolving { .. }) || !self.legs.all_told() {
            return;
        }
        match (&self.stage, self.body) {
            // IM-097: nobody joined, but somebody may come back.
            (Stage::Inviting, _) if self.may_wait() => self.answer(cx),
            (Stage::Inviting, _) => {
                // IM-057: nobody joined.
                let status = fanout::best_refusal(self.legs.failures(), self.policy.fail_map);
                self.refuse(Refusal::new(status, "IM-057").key("im.fail_map"), cx);
            }
            (Stage::Answered { .. }, Body::Whole { .. }) => self.report_if_nobody_served(cx),
            // IM-097: the page is taken for those who are waited for.
            (Stage::Answered { .. }, Body::Coming { .. } | Body::Awaited)
                if self.legs.deferred() > 0 => {}
            // IM-065: nobody is left to send the rest to.
            (Stage::Answered { .. }, Body::Coming { .. }) => {
                self.report_if_nobody_served(cx);
                self.begin_closing(None, false, cx);
            }
            (Stage::Answered { .. }, Body::Awaited) => self.begin_closing(None, true, cx),
            (Stage::Leaving { .. }, Body::Awaited | Body::Coming { .. })
                if self.legs.deferred() == 0 =>
            {
                self.close(cx);
            }
            _ => {}
        }
    }

    /// IM-097: whether a page nobody joined is taken all the same.
    fn may_wait(&self) -> bool {
        self.policy.deferral.when_none_joined == WhenNoneJoined::Accept && self.legs.deferred() > 0
    }

    // ---- what the originator hears ----------------------------------------------------------------------------

    fn progress(&mut self, ringing: bool, cx: &mut Around) {
        self.progressed = Some(cx.now);
        self.rang |= ringing;
        cx.out.push(Effect::Progress { page: self.id, ringing });
    }

    fn answer(&mut self, cx: &mut Around) {
        self.stage = Stage::Answered { since: cx.now };
        self.answered = true;
        let warnings = self.legs.warnings().to_vec();
        cx.out.push(Effect::Answer { page: self.id, warnings });
        cx.out.push(Effect::Event(Event::OriginatorAnswered { page: self.id }));
    }

    fn refuse(&mut self, refusal: Refusal, cx: &mut Around) {
        let (status, text) = (refusal.status, refusal.text());
        cx.out.push(Effect::Refuse { page: self.id, refusal });
        self.refused(status, text, cx);
        self.close(cx);
    }

    fn refused(&mut self, status: u16, text: String, cx: &mut Around) {
        self.legs.give_up(cx.out);
        cx.out.push(Effect::Event(Event::PageRefused { page: self.id, status, text }));
    }

    /// Ends the page whatever its state: 480 if the originator has no answer yet, BYE otherwise.
    fn stop(&mut self, cause: Cause, rule: &'static str, cx: &mut Around) {
        self.abandon(&cause, true, cx);
        match self.stage {
            Stage::Resolving { .. } | Stage::Inviting => {
                self.refuse(Refusal::new(480, rule).warn(cause.text), cx);
            }
            Stage::Answered { .. } => self.begin_closing(Some(cause), false, cx),
            Stage::Leaving { .. } => self.close(cx),
            Stage::Closing { .. } | Stage::Closed => {}
        }
    }

    /// BYE as soon as it may be: nothing is left to be `written`, and the ACK is here.
    ///
    /// RFC 3261 §15: not before the ACK came or cannot come any more.
    fn begin_closing(&mut self, cause: Option<Cause>, written: bool, cx: &mut Around) {
        self.stage = Stage::Closing { since: cx.now, written, cause };
        if written && self.acked {
            self.say_bye(cx);
        }
    }

    fn report_if_nobody_served(&mut self, cx: &mut Around) {
        if self.legs.delivered() == 0 && self.legs.deferred() == 0 {
            self.owed.on_nobody_served(cx.now, self.id, self.legs.failures(), cx.out);
        }
    }

    fn say_bye(&mut self, cx: &mut Around) {
        let cause = match &mut self.stage {
            Stage::Closing { cause, .. } => cause.take(),
            _ => None,
        };
        cx.out.push(Effect::EndOriginator { page: self.id, cause });
        self.close(cx);
    }

    /// The originator's dialog is over; its MSRP URI dies with it (MS-111).
    fn close(&mut self, cx: &mut Around) {
        if !matches!(self.stage, Stage::Closed) {
            self.stage = Stage::Closed;
            cx.out.push(Effect::ReleaseOriginator { page: self.id });
        }
    }

    /// MS-074: no REPORT for a session that has ended.
    fn originator_listens(&self) -> bool {
        matches!(self.stage, Stage::Answered { .. } | Stage::Closing { .. })
    }

    // ---- time -------------------------------------------------------------------------------------------------

    fn on_due(&mut self, kind: Kind, cx: &mut Around) {
        match kind {
            Kind::Leg(n) => self.move_leg(n, Happening::Waited, cx),
            Kind::Pace => self.with_legs(cx, Fanout::invite_due),
            Kind::Progress => self.progress(false, cx),
            Kind::Resolve => {
                let mut refusal = Refusal::new(480, "IM-033").warn("recipients unknown");
                refusal.retry_after = Some(super::RETRY_AFTER);
                self.refuse(refusal, cx);
            }
            // MS-110, IM-077: everything ends here.
            Kind::Deadline => {
                let cause = Cause::new(CauseProtocol::Timer, 408, "page_deadline");
                self.lose(&cause, true, cx);
                self.abandon(&cause, true, cx);
                if matches!(self.stage, Stage::Answered { .. }) {
                    self.report_if_nobody_served(cx);
                }
                self.stop(cause, "MS-110", cx);
            }
            Kind::Originator => match &self.stage {
                Stage::Leaving { .. } => {
                    let text = "the originator left before the page was whole";
                    self.lose(&Cause::new(CauseProtocol::Sip, 0, text), false, cx);
                    self.close(cx);
                }
                // IM-064, MS-109: the originator did not say BYE, so we do.
                Stage::Answered { .. } => {
                    let cause = Cause::new(CauseProtocol::Timer, 408, "no page came");
                    self.lose(&cause, false, cx);
                    let nothing_came = self.body == Body::Lost;
                    self.begin_closing(nothing_came.then_some(cause), true, cx);
                }
                Stage::Closing { .. } => self.say_bye(cx),
                Stage::Resolving { .. } | Stage::Inviting | Stage::Closed => {}
            },
        }
    }

    fn rearm(&self, timers: &mut Timers) {
        let resolving = matches!(self.stage, Stage::Resolving { .. });
        let waiting = resolving || matches!(self.stage, Stage::Inviting);
        timers.set(self.id, Kind::Resolve, resolving.then(|| self.since + RESOLVE_LIMIT));
        timers.set(self.id, Kind::Progress, waiting.then(|| self.progress_due()));
        timers.set(self.id, Kind::Deadline, self.deadline());
        timers.set(self.id, Kind::Originator, self.originator_due());
    }

    /// IM-020: the first soon, the others now and then.
    fn progress_due(&self) -> Instant {
        match self.progressed {
            None => self.since + self.policy.progress_after,
            Some(last) => last + self.repeat.max(Duration::from_secs(1)),
        }
    }

    /// MS-110, IM-071, IM-077: from the first octet, until nobody is left who could get one.
    fn deadline(&self) -> Option<Instant> {
        match self.body {
            Body::Coming { since } => Some(since + self.policy.page_deadline),
            Body::Whole { since, .. } if !self.legs.all_told() => {
                Some(since + self.policy.page_deadline)
            }
            Body::Whole { .. } | Body::Awaited | Body::Lost => None,
        }
    }

    fn originator_due(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Leaving { since } => Some(*since + CROSSING),
            Stage::Closing { since, .. } if !self.acked => Some(*since + ACK_LIMIT),
            Stage::Closing { since, .. } => Some(*since + self.policy.drain_after_end),
            // A session without a page is no reason to wait longer than one with a page.
            Stage::Answered { since } if self.body == Body::Awaited => {
                Some(*since + self.policy.page_deadline)
            }
            Stage::Answered { .. } => self.bye_due(),
            Stage::Resolving { .. } | Stage::Inviting | Stage::Closed => None,
        }
    }

    /// When the originator's own BYE is overdue: counted from what it was last told.
    fn bye_due(&self) -> Option<Instant> {
        let Body::Whole { at, settled, .. } = self.body else {
            return None;
        };
        if self.owed.is_undecided() && !self.legs.all_told() {
            return None;
        }
        let written = settled.unwrap_or(at + self.policy.quiet_timeout);
        let told = self.owed.reported().map_or(written, |reported| reported.max(written));
        Some(told + self.policy.originator_bye_timeout)
    }

    /// The page's one end.
    fn finish(&mut self, cx: &mut Around) {
        if self.safe() == Some(Safe::Kept) {
            if cx.now >= self.until {
                self.legs.expire_waiting(cx.out);
                self.tell_settled(cx);
            }
            for (leg, user) in self.legs.waiting() {
                cx.out.push(Effect::Defer { leg, user: Arc::clone(user), until: self.until });
            }
        } else {
            self.legs.give_up(cx.out);
        }
        let (page, delivered, failed) = (self.id, self.legs.delivered(), self.legs.failed());
        if self.answered {
            let deferred = self.legs.deferred();
            cx.out.push(Effect::Event(Event::PageEnded { page, delivered, failed, deferred }));
        }
        cx.out.push(Effect::Forget { page });
        cx.timers.clear(page);
    }
}

/// Whether nothing is to be written any more after such a loss.
fn owes_nothing(loss: PageLoss) -> bool {
    match loss {
        PageLoss::Connection | PageLoss::Gap | PageLoss::Bind => true,
        PageLoss::Sender | PageLoss::TooBig | PageLoss::Refused(_) | PageLoss::Storage => false,
    }
}

/// What operators, and the Reason of every BYE, say about a lost page.
fn loss_cause(loss: PageLoss) -> Cause {
    use CauseProtocol::{Msrp, Sip, Store, Timer};
    match loss {
        PageLoss::Sender => Cause::new(Msrp, 0, "the sender gave the page up"),
        PageLoss::Connection => Cause::new(Msrp, 0, "the sender's connection was lost"),
        PageLoss::Gap => Cause::new(Timer, 408, "no octet within chunk_gap_timeout"),
        PageLoss::Bind => Cause::new(Timer, 408, "the sender never connected"),
        PageLoss::TooBig => Cause::new(Sip, 413, "Size exceeded"),
        PageLoss::Refused(code) => Cause::new(Msrp, code, "the page's content was refused"),
        PageLoss::Storage => Cause::new(Store, 0, "no room for the page"),
    }
}
