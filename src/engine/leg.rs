//! One recipient of one page, from its INVITE to the end of its dialog.
//!
//! Start at [`Leg::on`]: every move is in its one `match`. A leg knows its own state only; who joined first and what
//! the originator hears is decided in `fanout` and `page`.
//! Follows IM-056…IM-061, IM-065, IM-067 and the leg states of MS section 7.1.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::effect::{Cause, CauseProtocol, Effect};
use super::event::Event;
use super::ids::LegId;
use super::input::{LegEvent, LegMedia, MediaFailure};
use super::party::{Audience, Declined, Recipient};
use super::policy::{Deferral, Policy};

/// After a CANCEL a final answer comes within 64 × T1, however late the CANCEL itself could leave (RFC 3261 §9.1, §17.1.1.2).
const CANCEL_LIMIT: Duration = Duration::from_secs(64);

/// What travels on two ways may change places: a BYE is believed this long after it came.
pub(super) const CROSSING: Duration = Duration::from_millis(500);

/// About as long as a refusal takes that comes from the recipient's network: nobody is to tell one from the other.
const DECLINE: Duration = Duration::from_millis(500);

/// Where a recipient stands.
///
/// ```text
/// Waiting ── invite, declined ──► Declined ── a moment, abandoned ──► Gone
///    │
///    ├────── invite ──► Inviting ── 1xx ──► Early
///    │                      ├───────────────┤
///    │                      │               ├── 2xx ──► Joined ── first octets ──► Sending
///    │                      │               │             ├─────────────────────────┤
///    │                      │               │             │                         ├── BYE, page whole ──► HungUp
///    │                      │               │             │  all acknowledged, failed, abandoned              │
///    │                      │               │             └────────► Settling ── quiet, or waited ──► Draining│
///    │                      │               │                          │                                 │    │
///    │                      │               │                          └── BYE, session timer ──┐   waited [BYE]
///    │                      │               │                                                   │        │    │
///    │                      └── no answer in time, abandoned [CANCEL] ──► Cancelling            │        │    │
///    │                      │                                                 │                 ▼        ▼    ▼
///    └── abandoned ─────────┴── 3xx-6xx, unusable 2xx [BYE] ──────────────────┴── any final ──► Gone [release]
/// ```
/// The result is told once, on leaving the states left of Cancelling, Settling, Draining and Gone. From Gone a leg that
/// nobody took starts again as Waiting where its page finds a reason ([`Leg::start_again`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not invited yet (UL-033, UL-034).
    Waiting,
    /// Will not be invited: the recipient's own documents decline (IM-090, IM-091).
    Declined { since: Instant, why: Declined },
    /// The INVITE is out.
    Inviting { since: Instant },
    /// A provisional response above 100 came.
    Early { since: Instant },
    /// The result is told, the INVITE still open.
    Cancelling { since: Instant },
    /// Answered; the media may flow.
    Joined,
    /// Octets flow.
    Sending,
    /// The recipient said BYE with the whole page on its way: its last acknowledgement may be just behind.
    HungUp { since: Instant },
    /// The result is told; responses are outstanding (MS-108).
    Settling { since: Instant },
    /// Nothing is outstanding; a moment more before BYE (MS-108).
    Draining { since: Instant },
    /// The dialog is over and the MSRP session released.
    Gone,
}

/// How a recipient ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    Failed(Cause),
    /// The recipient was not there: the page may wait for them (IM-097).
    Deferred(Cause),
    /// It waited too long.
    Expired,
}

/// What happens to a leg: its own inputs, its timer, and what its page decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Happening {
    /// It is this recipient's turn.
    Invite,
    /// The dialog did something.
    Session(LegEvent),
    /// The media did something.
    Media(LegMedia),
    /// The time of the present state is over ([`State::due`]).
    Waited,
    /// The page is lost or over: stop with this cause. `now_or_never` leaves no time for outstanding responses.
    Abandoned { cause: Cause, now_or_never: bool },
}

/// One recipient.
#[derive(Debug, Clone)]
pub(super) struct Leg {
    pub(super) id: LegId,
    pub(super) recipient: Recipient,
    pub(super) state: State,
    pub(super) outcome: Option<Outcome>,
    /// It failed because nobody was there: worth another try once somebody is.
    pub(super) unreached: bool,
    /// Octets known to be acknowledged.
    octets: u64,
}

/// What a leg has to know of its page.
pub(super) struct Surroundings<'a> {
    pub(super) now: Instant,
    /// The page is whole in the spool.
    pub(super) whole: bool,
    pub(super) audience: &'a Arc<Audience>,
    pub(super) deferral: &'a Deferral,
}

impl Surroundings<'_> {
    fn declines(&self, recipient: &Recipient) -> Option<Declined> {
        let declined = &self.audience.declined;
        declined.iter().find(|(key, _)| *key == recipient.party.key).map(|(_, why)| *why)
    }
}

impl State {
    /// The INVITE has no final answer yet; a breadth limit counts these (UL-034).
    pub(super) fn is_open_branch(self) -> bool {
        matches!(self, Self::Inviting { .. } | Self::Early { .. } | Self::Cancelling { .. })
    }

    /// A 2xx would make this leg join.
    pub(super) fn awaits_answer(self) -> bool {
        matches!(self, Self::Inviting { .. } | Self::Early { .. })
    }

    /// When the present state has lasted long enough.
    pub(super) fn due(self, policy: &Policy) -> Option<Instant> {
        match self {
            // IM-061: no final answer; a provisional one buys no time.
            Self::Inviting { since } | Self::Early { since } => Some(since + policy.leg_timeout),
            Self::Declined { since, .. } => Some(since + DECLINE),
            Self::Cancelling { since } => Some(since + CANCEL_LIMIT),
            Self::HungUp { since } => Some(since + CROSSING),
            Self::Settling { since } => Some(since + policy.quiet_timeout),
            Self::Draining { since } => Some(since + policy.drain_after_end),
            // MS-035, MS-077, MS-091 are watched by the switch, MS-110 by the page.
            Self::Waiting | Self::Joined | Self::Sending | Self::Gone => None,
        }
    }
}

impl Leg {
    pub(super) fn new(id: LegId, recipient: Recipient) -> Self {
        let (state, outcome) = (State::Waiting, None);
        Self { id, recipient, state, outcome, unreached: false, octets: 0 }
    }

    /// Moves this leg. A pair that is not named changes nothing: it crossed something on its way.
    pub(super) fn on(&mut self, what: Happening, around: &Surroundings, out: &mut Vec<Effect>) {
        use Happening as H;
        use LegEvent as E;
        use LegMedia as M;
        use State as S;
        let now = around.now;
        self.state = match (self.state, what) {
            // IM-090, IM-091: a failed leg like any other, for which nothing was reserved.
            (S::Declined { why, .. }, H::Waited) => {
                self.fail(around, Cause::new(CauseProtocol::Policy, why.status(), why.text()), out);
                S::Gone
            }
            (S::Declined { .. }, H::Abandoned { cause, .. }) => {
                self.abandon(around, cause, out);
                S::Gone
            }
            (S::Waiting, H::Invite) => {
                let (leg, recipient) = (self.id, self.recipient.clone());
                let party = recipient.party.clone();
                let declined = around.declines(&recipient);
                if declined.is_none() {
                    out.push(Effect::Invite { leg, recipient, audience: around.audience.clone() });
                }
                out.push(Effect::Event(Event::Invited { leg, party }));
                match declined {
                    Some(why) => S::Declined { since: now, why },
                    None => S::Inviting { since: now },
                }
            }
            (S::Waiting, H::Abandoned { cause, .. }) => {
                self.abandon(around, cause, out);
                S::Gone
            }

            (
                S::Inviting { since } | S::Early { since },
                H::Session(E::Early { ringing, allow, contact }),
            ) => {
                out.push(Effect::Event(Event::Early { leg: self.id, ringing, allow, contact }));
                S::Early { since }
            }
            // IM-017, IM-058: whenever it answers, it gets the page from its first octet.
            (S::Inviting { .. } | S::Early { .. }, H::Session(E::Accepted { allow, contact })) => {
                out.push(Effect::Join { leg: self.id });
                out.push(Effect::Event(Event::Joined { leg: self.id, allow, contact }));
                S::Joined
            }
            // IM-060 (RFC 3326): answered, but with media nobody can use.
            (S::Inviting { .. } | S::Early { .. }, H::Session(E::Unusable { text })) => {
                let cause = Cause::new(CauseProtocol::Sip, 488, text);
                self.fail(around, cause.clone(), out);
                self.end(Some(cause), out);
                S::Gone
            }
            // IM-056: one refusal is nobody else's business.
            (S::Inviting { .. } | S::Early { .. }, H::Session(E::Refused { status, text, .. })) => {
                self.fail(around, Cause::new(CauseProtocol::Sip, status, text), out);
                self.release(out);
                S::Gone
            }
            (S::Inviting { .. } | S::Early { .. }, H::Session(E::Unreachable { timeout })) => {
                self.fail(around, unreachable_cause(timeout), out);
                self.release(out);
                S::Gone
            }
            // IM-061 (RFC 3261 §9.1): the dialog layer holds the CANCEL back until a provisional response came.
            (S::Inviting { .. } | S::Early { .. }, H::Waited) => {
                let cause =
                    Cause::new(CauseProtocol::Timer, 408, "no final answer within leg_timeout");
                self.fail(around, cause.clone(), out);
                out.push(Effect::Cancel { leg: self.id, cause });
                S::Cancelling { since: now }
            }
            (S::Inviting { .. } | S::Early { .. }, H::Abandoned { cause, .. }) => {
                self.abandon(around, cause.clone(), out);
                out.push(Effect::Cancel { leg: self.id, cause });
                S::Cancelling { since: now }
            }

            // IM-061: the answer crossed our CANCEL, so there is a session to end.
            (S::Cancelling { .. }, H::Session(E::Accepted { .. } | E::Unusable { .. })) => {
                self.end(self.failure(), out);
                S::Gone
            }
            (
                S::Cancelling { .. },
                H::Session(E::Refused { .. } | E::Unreachable { .. }) | H::Waited,
            ) => {
                self.release(out);
                S::Gone
            }

            (S::Joined, H::Media(M::Sending)) => {
                out.push(Effect::Event(Event::Sending { leg: self.id }));
                S::Sending
            }
            (S::Joined | S::Sending, H::Media(M::Delivered { octets })) => {
                self.deliver(octets, out);
                S::Settling { since: now }
            }
            (S::Joined | S::Sending, H::Media(M::Failed { cause })) => {
                let outstanding = may_be_outstanding(&cause);
                self.fail(around, media_cause(&cause), out);
                if outstanding { S::Settling { since: now } } else { S::Draining { since: now } }
            }
            // IM-065, MS-111: this leg only. The last acknowledgement and the BYE come by different ways.
            (S::Joined | S::Sending, H::Session(E::Bye)) if around.whole => {
                S::HungUp { since: now }
            }
            (S::Joined | S::Sending, H::Session(E::Bye)) => {
                self.fail(around, left_cause(), out);
                self.release(out);
                S::Gone
            }
            (S::Joined | S::Sending, H::Session(E::Expired)) => {
                self.fail(around, expired_cause(), out);
                self.end(self.failure(), out);
                S::Gone
            }
            // MS-090: `#` to whoever has begun to get it.
            (S::Joined | S::Sending, H::Abandoned { cause, now_or_never }) => {
                self.abandon(around, cause, out);
                out.push(Effect::Abort { leg: self.id });
                if now_or_never { S::Draining { since: now } } else { S::Settling { since: now } }
            }

            (S::HungUp { .. }, H::Media(M::Delivered { octets })) => {
                self.deliver(octets, out);
                self.release(out);
                S::Gone
            }
            (S::HungUp { .. }, H::Media(M::Failed { .. }) | H::Waited | H::Abandoned { .. }) => {
                self.fail(around, left_cause(), out);
                self.release(out);
                S::Gone
            }

            // MS-108: first what is outstanding, then a moment, then BYE.
            (S::Settling { .. }, H::Media(M::Quiet) | H::Waited) => S::Draining { since: now },
            (S::Draining { .. }, H::Waited) => {
                self.end(self.failure(), out);
                S::Gone
            }
            (S::Settling { .. } | S::Draining { .. }, H::Session(E::Bye)) => {
                self.release(out);
                S::Gone
            }
            (S::Settling { .. } | S::Draining { .. }, H::Session(E::Expired)) => {
                self.end(self.failure(), out);
                S::Gone
            }

            (state, H::Media(M::Progress { octets })) => {
                self.octets = self.octets.max(octets);
                state
            }
            (settled, _) => settled,
        };
    }

    /// Whether its failure says that nobody was there to answer the INVITE.
    pub(super) fn found_nobody(&self) -> bool {
        match &self.outcome {
            Some(Outcome::Failed(cause) | Outcome::Deferred(cause)) => matches!(
                (cause.protocol, cause.code),
                (CauseProtocol::Sip, 408 | 480) | (CauseProtocol::Timer, 408)
            ),
            Some(Outcome::Delivered | Outcome::Expired) | None => false,
        }
    }

    /// It is waited for.
    pub(super) fn waits(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Deferred(_)))
    }

    /// As it was before its first turn.
    pub(super) fn start_again(&mut self) {
        *self = Self::new(self.id, self.recipient.clone());
    }

    fn deliver(&mut self, octets: u64, out: &mut Vec<Effect>) {
        self.octets = octets;
        self.outcome = Some(Outcome::Delivered);
        out.push(Effect::Event(Event::Delivered { leg: self.id, octets }));
    }

    /// Not delivered; whether that is the end depends on the cause (IM-097).
    fn fail(&mut self, around: &Surroundings, cause: Cause, out: &mut Vec<Effect>) {
        if around.deferral.takes(&cause) {
            self.outcome = Some(Outcome::Deferred(cause.clone()));
            out.push(Effect::Event(Event::Deferred { leg: self.id, cause }));
        } else {
            self.fail_for_good(cause, out);
        }
    }

    /// Its page gives it up: one that is not whole can wait for nobody.
    fn abandon(&mut self, around: &Surroundings, cause: Cause, out: &mut Vec<Effect>) {
        if around.whole { self.fail(around, cause, out) } else { self.fail_for_good(cause, out) }
    }

    fn fail_for_good(&mut self, cause: Cause, out: &mut Vec<Effect>) {
        self.outcome = Some(Outcome::Failed(cause.clone()));
        out.push(Effect::Event(Event::Failed { leg: self.id, cause, octets: self.octets }));
    }

    /// The page cannot wait for this recipient after all.
    pub(super) fn give_up(&mut self, out: &mut Vec<Effect>) {
        if let Some(Outcome::Deferred(cause)) = &self.outcome {
            self.fail_for_good(cause.clone(), out);
        }
    }

    /// It was kept and its time is over.
    pub(super) fn expire(&mut self, out: &mut Vec<Effect>) {
        (self.state, self.outcome) = (State::Gone, Some(Outcome::Expired));
        let party = self.recipient.party.clone();
        out.push(Effect::Event(Event::Expired { leg: self.id, party }));
    }

    /// BYE, and nothing more on this leg.
    fn end(&self, cause: Option<Cause>, out: &mut Vec<Effect>) {
        out.push(Effect::EndLeg { leg: self.id, cause });
        self.release(out);
    }

    /// IM-067: the one place where a leg's MSRP session goes.
    fn release(&self, out: &mut Vec<Effect>) {
        out.push(Effect::ReleaseLeg { leg: self.id });
    }

    fn failure(&self) -> Option<Cause> {
        match &self.outcome {
            Some(Outcome::Failed(cause) | Outcome::Deferred(cause)) => Some(cause.clone()),
            Some(Outcome::Delivered | Outcome::Expired) | None => None,
        }
    }
}

/// RFC 3261 §8.1.3.1: no answer counts as 408, nothing sent as 503.
pub(super) fn unreachable_cause(timeout: bool) -> Cause {
    if timeout {
        Cause::new(CauseProtocol::Timer, 408, "no answer")
    } else {
        Cause::new(CauseProtocol::Sip, 503, "the request could not be sent")
    }
}

fn left_cause() -> Cause {
    Cause::new(CauseProtocol::Sip, 0, "the recipient left")
}

fn expired_cause() -> Cause {
    Cause::new(CauseProtocol::Timer, 408, "the session timer ran out")
}

/// Whether responses of the peer can still come after this failure.
fn may_be_outstanding(failure: &MediaFailure) -> bool {
    match failure {
        MediaFailure::Status(_) | MediaFailure::Stall | MediaFailure::TooBig => true,
        MediaFailure::Connection
        | MediaFailure::Bind
        | MediaFailure::Timeout
        | MediaFailure::Type => false,
    }
}

/// What operators read about a media failure.
fn media_cause(failure: &MediaFailure) -> Cause {
    use CauseProtocol::{Msrp, Timer};
    match failure {
        MediaFailure::Status(code) => Cause::new(Msrp, *code, "refused by the recipient"),
        MediaFailure::Connection => Cause::new(Msrp, 0, "connection refused or lost"),
        MediaFailure::Bind => Cause::new(Timer, 408, "the session was never bound"),
        MediaFailure::Stall => Cause::new(Timer, 408, "no progress"),
        // MS-077: a missing response is a local 408.
        MediaFailure::Timeout => Cause::new(Msrp, 408, "no response"),
        MediaFailure::TooBig => Cause::new(Msrp, 413, "larger than the recipient takes"),
        MediaFailure::Type => Cause::new(Msrp, 415, "a type the recipient does not take"),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::engine::ids::PageId;
    use crate::engine::testing::{recipient, start, words};

    /// Proves IM-056, IM-058, IM-060, IM-061, IM-065, IM-067, MS-090, MS-108.
    #[test]
    fn every_state_meets_every_event() {
        let mut table = String::new();
        for (name, state) in states() {
            for (event, what, whole) in events() {
                let mut leg = Leg::new(LegId { page: PageId::new(0, 1), n: 1 }, recipient("bob"));
                leg.state = state;
                leg.outcome = told_before(state);
                let told = leg.outcome.is_some();
                let mut out = Vec::new();
                let audience = Arc::new(Audience::default());
                let deferral = &never();
                let around = Surroundings { now: start(), whole, audience: &audience, deferral };
                leg.on(what, &around, &mut out);
                assert!(!told || leg.outcome == told_before(state), "{name}: a result is final");
                let quiet = leg.state == state && out.is_empty();
                if !quiet {
                    let to = states().into_iter().find(|(_, s)| *s == leg.state);
                    let to = to.map_or("?", |(name, _)| name);
                    let line = format!("{name:<10} {event:<17} -> {to:<10} [{}]", words(&out));
                    writeln!(table, "{}", line.trim_end()).expect("a string takes it");
                }
            }
            writeln!(table, "{name:<10} anything else     -> {name:<10} []\n").expect("as above");
        }
        let expected = include_str!("leg_table.txt");
        assert!(table == expected, "the table is now\n{table}\nand was\n{expected}");
    }

    /// Proves IM-090, IM-091.
    #[test]
    fn who_declines_is_not_invited_and_fails_a_moment_later() {
        for (why, status) in [(Declined::Rejected, 403), (Declined::Inactive, 480)] {
            let mut leg = Leg::new(LegId { page: PageId::new(0, 1), n: 1 }, recipient("bob"));
            let key = leg.recipient.party.key.clone();
            let audience = Arc::new(Audience { declined: vec![(key, why)], ..Audience::default() });
            let deferral = &Deferral::default();
            let around = Surroundings { now: start(), whole: false, audience: &audience, deferral };
            let mut out = Vec::new();
            leg.on(Happening::Invite, &around, &mut out);
            assert_eq!(words(&out), "*invited 1", "no INVITE");
            assert_eq!(leg.state, State::Declined { since: start(), why });
            assert_eq!(leg.state.due(&Policy::default()), Some(start() + DECLINE));
            assert!(!leg.state.is_open_branch() && !leg.state.awaits_answer());
            out.clear();
            leg.on(Happening::Waited, &around, &mut out);
            assert_eq!(words(&out), format!("*failed 1 Policy {status}"), "nothing to release");
            assert_eq!(leg.state, State::Gone);
            assert!(!leg.found_nobody(), "a registration changes nothing about it");
        }
    }

    fn never() -> Deferral {
        Deferral { enabled: false, ..Deferral::default() }
    }

    fn states() -> [(&'static str, State); 11] {
        let since = start();
        [
            ("Waiting", State::Waiting),
            ("Declined", State::Declined { since, why: Declined::Rejected }),
            ("Inviting", State::Inviting { since }),
            ("Early", State::Early { since }),
            ("Cancelling", State::Cancelling { since }),
            ("Joined", State::Joined),
            ("Sending", State::Sending),
            ("HungUp", State::HungUp { since }),
            ("Settling", State::Settling { since }),
            ("Draining", State::Draining { since }),
            ("Gone", State::Gone),
        ]
    }

    fn told_before(state: State) -> Option<Outcome> {
        match state {
            State::Cancelling { .. } | State::Gone => Some(Outcome::Failed(left_cause())),
            State::Settling { .. } | State::Draining { .. } => Some(Outcome::Delivered),
            State::Waiting
            | State::Declined { .. }
            | State::Inviting { .. }
            | State::Early { .. }
            | State::Joined
            | State::Sending
            | State::HungUp { .. } => None,
        }
    }

    fn events() -> Vec<(&'static str, Happening, bool)> {
        use Happening::{Abandoned, Invite, Media, Session, Waited};
        let cause = Cause::new(CauseProtocol::Policy, 1, "");
        let failed = |cause| Media(LegMedia::Failed { cause });
        vec![
            ("invite", Invite, false),
            (
                "early",
                Session(LegEvent::Early { ringing: false, allow: None, contact: None }),
                false,
            ),
            ("accepted", Session(LegEvent::Accepted { allow: None, contact: None }), false),
            ("unusable", Session(LegEvent::Unusable { text: String::new() }), false),
            (
                "refused",
                Session(LegEvent::Refused { status: 486, text: String::new(), retry_after: None }),
                false,
            ),
            ("timeout", Session(LegEvent::Unreachable { timeout: true }), false),
            ("unreachable", Session(LegEvent::Unreachable { timeout: false }), false),
            ("BYE", Session(LegEvent::Bye), false),
            ("BYE, page whole", Session(LegEvent::Bye), true),
            ("session timer", Session(LegEvent::Expired), true),
            ("bound", Media(LegMedia::Bound), true),
            ("sending", Media(LegMedia::Sending), false),
            ("delivered", Media(LegMedia::Delivered { octets: 9 }), true),
            ("connection lost", failed(MediaFailure::Connection), true),
            ("413", failed(MediaFailure::Status(413)), true),
            ("quiet", Media(LegMedia::Quiet), true),
            ("waited", Waited, true),
            ("abandoned", Abandoned { cause: cause.clone(), now_or_never: false }, true),
            ("abandoned now", Abandoned { cause, now_or_never: true }, true),
        ]
    }
}
