//! The legs of one page: whose turn it is, who is still open, and the one answer their refusals come to.
//!
//! Start at [`Fanout::on`]: one leg moves, the counts follow. Turns are given by [`Fanout::invite_due`].
//! Never looks at the originator's dialog: see `page`.
//! Follows IM-019 and IM-057 instead of RFC 3261 §16.7, UL-033, UL-034 and MS-084, MS-087.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::effect::{Cause, CauseProtocol, Effect};
use super::event::Event;
use super::ids::{LegId, PageId};
use super::leg::{Happening, Leg, Outcome, State, Surroundings};
use super::party::{Audience, Party, Recipient, Removal};
use super::policy::{FailMap, Policy};
use super::timers::{Kind, Timers};

/// All recipients of one page.
#[derive(Debug)]
pub(super) struct Fanout {
    page: PageId,
    audience: Arc<Audience>,
    legs: Vec<Leg>,
    /// The first leg that had no turn yet.
    next: usize,
    /// When the next one may have its turn, by `send_rate`.
    not_before: Option<Instant>,
    /// Legs without a result.
    unfinished: usize,
    /// Legs that are not gone.
    present: usize,
    /// INVITEs without a final answer.
    branches: usize,
    delivered: u16,
    /// Legs that failed since it was asked last, because nobody was there.
    unreached: Vec<u16>,
    /// Legs that wait for their turn to be invited once more.
    again: VecDeque<u16>,
    /// Legs that came to their end since it was asked last.
    settled: Vec<u16>,
    /// Nobody is invited any more.
    abandoned: bool,
}

/// Takes out of the audience what must not be invited whatever the resolver said; tells each removal.
///
/// MS-087 (RFC 7701 §6.1), UL-010, UL-013.
pub(super) fn admit(
    mut audience: Audience,
    page: PageId,
    identities: &[Party],
    out: &mut Vec<Effect>,
) -> Audience {
    let mut seen = BTreeSet::new();
    let mut late = Vec::new();
    audience.recipients.retain(|recipient| {
        let party = &recipient.party;
        let why = if identities.iter().any(|own| own.key == party.key) {
            Removal::Originator
        } else if !seen.insert(party.key.clone()) {
            Removal::Duplicate
        } else {
            return true;
        };
        late.push((party.clone(), why));
        false
    });
    audience.removed.append(&mut late);
    for (party, why) in &audience.removed {
        let (party, why) = (party.clone(), *why);
        out.push(Effect::Event(Event::RecipientRemoved { page, party, why }));
    }
    audience
}

impl Fanout {
    /// Legs for everybody in the audience, which is frozen from here on (MS-084). Nobody is invited yet.
    pub(super) fn new(page: PageId, audience: Audience) -> Self {
        let legs: Vec<_> = (1..=u16::MAX)
            .zip(&audience.recipients)
            .map(|(n, recipient)| Leg::new(LegId { page, n }, recipient.clone()))
            .collect();
        Self {
            page,
            unfinished: legs.len(),
            present: legs.len(),
            branches: 0,
            delivered: 0,
            unreached: Vec::new(),
            settled: Vec::new(),
            again: VecDeque::new(),
            abandoned: false,
            next: 0,
            not_before: None,
            audience: Arc::new(audience),
            legs,
        }
    }

    /// The legs of a page that was kept: those in `open` are served, the others have had their end, or wait.
    pub(super) fn restored(page: PageId, audience: Audience, open: &[u16]) -> Self {
        let mut fanout = Self::new(page, audience);
        for leg in &mut fanout.legs {
            if !open.contains(&leg.id.n) {
                leg.state = State::Gone;
            }
        }
        fanout.next = fanout.legs.len();
        let waiting = fanout.legs.iter().filter(|leg| leg.state == State::Waiting).count();
        (fanout.unfinished, fanout.present) = (waiting, waiting);
        fanout.serve(open);
        fanout
    }

    /// These are to be invited as soon as it is their turn. Whoever has had their end is passed over.
    pub(super) fn serve(&mut self, open: &[u16]) {
        for &n in open {
            let leg = usize::from(n).checked_sub(1).and_then(|index| self.legs.get(index));
            let idle = leg.is_some_and(|leg| {
                let untouched = leg.outcome.is_none();
                leg.waits() || (untouched && matches!(leg.state, State::Waiting | State::Gone))
            });
            if idle && !self.again.contains(&n) {
                self.again.push_back(n);
            }
        }
    }

    /// Nobody yet: the recipients are not known.
    pub(super) fn empty(page: PageId) -> Self {
        Self::new(page, Audience::default())
    }

    /// One leg moves. Legs that were never made are passed over.
    pub(super) fn on(&mut self, n: u16, what: Happening, cx: &mut Turn<'_>, out: &mut Vec<Effect>) {
        let around = Surroundings {
            now: cx.now,
            whole: cx.whole,
            audience: &self.audience,
            deferral: &cx.policy.deferral,
        };
        let Some(leg) = usize::from(n).checked_sub(1).and_then(|i| self.legs.get_mut(i)) else {
            return;
        };
        let before = (leg.outcome.is_none(), leg.state);
        leg.on(what, &around, out);
        if before.0 && leg.outcome.is_some() {
            self.unfinished -= 1;
            self.settled.extend((!leg.waits()).then_some(n));
            self.delivered += u16::from(leg.outcome == Some(Outcome::Delivered));
            if before.1.awaits_answer() && leg.found_nobody() && !self.abandoned {
                leg.unreached = true;
                self.unreached.push(n);
            }
        }
        if before.1 != State::Gone && leg.state == State::Gone {
            self.present -= 1;
        }
        self.branches += usize::from(leg.state.is_open_branch());
        self.branches -= usize::from(before.1.is_open_branch());
        cx.timers.set(self.page, Kind::Leg(n), leg.state.due(cx.policy));
    }

    /// Invites as many as may be invited now.
    ///
    /// UL-033 (`send_rate` legs a second), UL-034 (RFC 5393: so many unanswered INVITEs at a time).
    pub(super) fn invite_due(&mut self, cx: &mut Turn<'_>, out: &mut Vec<Effect>) {
        let breadth = usize::from(cx.policy.max_entries).max(1);
        while self.branches < breadth && self.not_before.is_none_or(|at| at <= cx.now) {
            let Some(n) = self.next_turn() else { break };
            self.not_before = pace(cx.policy).map(|gap| cx.now + gap);
            self.on(n, Happening::Invite, cx, out);
        }
        // Where breadth is what they wait for, the next final answer calls again.
        let waiting = self.next < self.legs.len() || !self.again.is_empty();
        let paced = waiting && self.branches < breadth;
        cx.timers.set(self.page, Kind::Pace, self.not_before.filter(|_| paced));
    }

    /// Whose turn it is: first everybody once.
    fn next_turn(&mut self) -> Option<u16> {
        if let Some(leg) = self.legs.get(self.next) {
            self.next += 1;
            return Some(leg.id.n);
        }
        let n = self.again.pop_front()?;
        let leg = self.legs.get_mut(usize::from(n).checked_sub(1)?)?;
        if leg.state == State::Gone {
            leg.start_again();
            self.unfinished += 1;
            self.present += 1;
        }
        Some(n)
    }

    /// Invites once more whoever of this name was not there the first time.
    pub(super) fn invite_again(&mut self, user: &str, cx: &mut Turn<'_>, out: &mut Vec<Effect>) {
        if self.abandoned {
            return;
        }
        let gone = |leg: &&Leg| leg.state == State::Gone && leg.unreached;
        let found = self.legs.iter().filter(|leg| *leg.recipient.party.key == *user).find(gone);
        if let Some(n) = found.map(|leg| leg.id.n)
            && !self.again.contains(&n)
        {
            self.again.push_back(n);
            self.invite_due(cx, out);
        }
    }

    /// The keys of those who were not there, since this was asked last.
    pub(super) fn unreached(&mut self) -> impl Iterator<Item = Arc<str>> {
        let legs = &self.legs;
        let of = |n: u16| legs.get(usize::from(n).checked_sub(1)?);
        self.unreached.drain(..).filter_map(move |n| Some(Arc::clone(&of(n)?.recipient.party.key)))
    }

    /// Legs that came to their end since this was asked last: they must not be served again.
    pub(super) fn settled(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.settled)
    }

    /// The legs a page that is kept still has to serve, or waits for.
    pub(super) fn open(&self) -> Vec<u16> {
        let open = |leg: &&Leg| leg.outcome.is_none() || leg.waits();
        self.legs.iter().filter(open).map(|leg| leg.id.n).collect()
    }

    /// Those who wait, with the names they come back under.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (LegId, &Arc<str>)> {
        let waiting = self.legs.iter().filter(|leg| leg.waits());
        waiting.map(|leg| (leg.id, &leg.recipient.party.key))
    }

    /// Nobody is waited for.
    pub(super) fn give_up(&mut self, out: &mut Vec<Effect>) {
        for leg in self.legs.iter_mut().filter(|leg| leg.waits()) {
            leg.give_up(out);
            self.settled.push(leg.id.n);
        }
    }

    /// Those who are to be served have had their time.
    pub(super) fn expire(&mut self, out: &mut Vec<Effect>) {
        while let Some(n) = self.again.pop_front() {
            let index = usize::from(n).checked_sub(1);
            let leg = index.and_then(|index| self.legs.get_mut(index));
            if let Some(leg) = leg.filter(|leg| leg.waits() || leg.outcome.is_none()) {
                if leg.state == State::Waiting {
                    (self.unfinished, self.present) = (self.unfinished - 1, self.present - 1);
                }
                leg.expire(out);
                self.settled.push(n);
            }
        }
    }

    /// Those who are waited for have had their time.
    pub(super) fn expire_waiting(&mut self, out: &mut Vec<Effect>) {
        for leg in self.legs.iter_mut().filter(|leg| leg.waits()) {
            leg.expire(out);
            self.settled.push(leg.id.n);
        }
    }

    pub(super) fn audience(&self) -> &Audience {
        &self.audience
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.audience.warnings
    }

    pub(super) fn recipients(&self) -> &[Recipient] {
        &self.audience.recipients
    }

    /// Stops every leg that has no result yet; each one's cause is `cause`.
    pub(super) fn abandon(
        &mut self,
        cause: &Cause,
        now_or_never: bool,
        cx: &mut Turn<'_>,
        out: &mut Vec<Effect>,
    ) {
        self.next = self.legs.len();
        self.again.clear();
        self.abandoned = true;
        cx.timers.set(self.page, Kind::Pace, None);
        for i in 0..self.legs.len() {
            if self.legs[i].outcome.is_none() {
                let what = Happening::Abandoned { cause: cause.clone(), now_or_never };
                self.on(self.legs[i].id.n, what, cx, out);
            }
        }
    }

    /// Whether a 2xx of this leg would make it join.
    pub(super) fn awaits_answer(&self, n: u16) -> bool {
        usize::from(n)
            .checked_sub(1)
            .and_then(|i| self.legs.get(i))
            .is_some_and(|leg| leg.state.awaits_answer())
    }

    /// Every recipient has its result.
    pub(super) fn all_told(&self) -> bool {
        self.unfinished == 0 && self.again.is_empty()
    }

    /// No dialog is left.
    pub(super) fn all_gone(&self) -> bool {
        self.present == 0 && self.again.is_empty()
    }

    pub(super) fn delivered(&self) -> u16 {
        self.delivered
    }

    pub(super) fn failed(&self) -> u16 {
        self.count(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Expired))
    }

    /// How many are waited for.
    pub(super) fn deferred(&self) -> u16 {
        self.count(|outcome| matches!(outcome, Outcome::Deferred(_)))
    }

    /// Whoever has no result yet.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = LegId> {
        let unfinished = |leg: &&Leg| leg.outcome.is_none() && leg.state != State::Gone;
        self.legs.iter().filter(unfinished).map(|leg| leg.id)
    }

    /// Why those failed who failed, and those were not there who are waited for, in the order of inviting.
    pub(super) fn failures(&self) -> impl Iterator<Item = &Cause> {
        self.legs.iter().filter_map(|leg| match &leg.outcome {
            Some(Outcome::Failed(cause) | Outcome::Deferred(cause)) => Some(cause),
            Some(Outcome::Delivered | Outcome::Expired) | None => None,
        })
    }

    fn count(&self, which: impl Fn(&Outcome) -> bool) -> u16 {
        let ended = self.legs.iter().filter_map(|leg| leg.outcome.as_ref());
        ended.filter(|outcome| which(outcome)).count().try_into().expect("legs are numbered by u16")
    }
}

/// What a move needs besides the legs.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    pub(super) whole: bool,
    pub(super) policy: &'a Policy,
    pub(super) timers: &'a mut Timers,
}

/// The time between two INVITEs of one page.
pub(super) fn pace(policy: &Policy) -> Option<Duration> {
    (policy.send_rate > 0).then(|| Duration::from_secs(1) / policy.send_rate)
}

/// The one final answer when nobody joined; never called for an empty list.
///
/// IM-057 (after RFC 3261 §16.7 step 6).
/// Deviation: a recipient's 6xx is not global here; distinct people were asked, not one person's phones. So only the
/// refusals' agreement counts, and 606 is never passed on for several (UL-036).
pub(super) fn best_refusal<'a>(causes: impl IntoIterator<Item = &'a Cause>, map: FailMap) -> u16 {
    let mut codes = causes.into_iter().map(|cause| mapped(cause, map));
    let Some(first) = codes.next() else {
        return 480;
    };
    let mut sole = true;
    for code in codes {
        sole = false;
        if code != first {
            return 480;
        }
    }
    if first == 606 && !sole { 480 } else { first }
}

/// One recipient's failure as a status for the originator.
///
/// IM-057, ISC-066: in `safe`, nothing that could make the S-CSCF go round us.
fn mapped(cause: &Cause, map: FailMap) -> u16 {
    let status = match cause.protocol {
        // A recipient's own rules answer as the recipient would (IM-090, IM-091).
        CauseProtocol::Sip | CauseProtocol::Timer | CauseProtocol::Policy if cause.code >= 300 => {
            cause.code
        }
        _ => 480,
    };
    match (map, status) {
        (FailMap::Plain, _) => status,
        (FailMap::Safe, 401 | 407) => 403,
        (FailMap::Safe, 415 | 420..=422) => 488,
        (FailMap::Safe, 408 | 300..=399 | 500..=599) => 480,
        (FailMap::Safe, _) => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves IM-057.
    #[test]
    fn what_is_no_final_status_counts_as_unreachable() {
        use CauseProtocol::{Msrp, Policy, Sip, Store, Timer};
        let cases =
            [(Sip, 0), (Sip, 200), (Timer, 0), (Msrp, 413), (Policy, 0), (Store, 0), (Timer, 408)];
        for (protocol, code) in cases {
            let cause = Cause::new(protocol, code, "");
            assert_eq!(best_refusal([&cause], FailMap::Safe), 480, "{protocol:?} {code}");
        }
        assert_eq!(best_refusal([], FailMap::Plain), 480, "nobody was asked");
        let declined = Cause::new(Policy, 403, "");
        assert_eq!(best_refusal([&declined], FailMap::Safe), 403, "IM-090");
        let first = Cause::new(Sip, 300, "");
        assert_eq!(best_refusal([&first], FailMap::Plain), 300, "the lowest refusal there is");
    }
}
