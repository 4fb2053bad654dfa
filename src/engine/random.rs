//! Random things in random order, against what the engine promises on [`super::Engine`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::Engine;
use super::effect::Effect;
use super::event::Event;
use super::ids::{LegId, PageId};
use super::input::{
    Input, LegEvent, LegMedia, MediaFailure, OriginatorEvent, OriginatorMedia, PageLoss, Refusal,
};
use super::policy::{Deferral, OriginatorAnswer, Policy, SrPolicy, WhenNoneJoined};
use super::record::{Record, Restored};
use super::testing::{Scene, audience, start};

const NAMES: [&str; 5] = ["bob", "carol", "dan", "eve", "frank"];

#[derive(Debug, Clone)]
enum Step {
    Arrive(u8),
    Resolve(u8, usize),
    Unresolved(u8),
    Originator(u8, OriginatorEvent),
    Leg(u8, u16, LegEvent),
    Bytes(u8, OriginatorMedia),
    Media(u8, u16, LegMedia),
    End(u8),
    Reachable(usize),
    Kept(u8, bool),
    Back(u8, usize),
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0u8..3;
    let n = 0u16..7;
    prop_oneof![
        2 => page.clone().prop_map(Step::Arrive),
        3 => (page.clone(), 0usize..6).prop_map(|(p, n)| Step::Resolve(p, n)),
        1 => page.clone().prop_map(Step::Unresolved),
        3 => (page.clone(), originator()).prop_map(|(p, e)| Step::Originator(p, e)),
        8 => (page.clone(), n.clone(), leg()).prop_map(|(p, n, e)| Step::Leg(p, n, e)),
        4 => (page.clone(), bytes()).prop_map(|(p, e)| Step::Bytes(p, e)),
        8 => (page.clone(), n, media()).prop_map(|(p, n, e)| Step::Media(p, n, e)),
        1 => page.clone().prop_map(Step::End),
        4 => (page.clone(), prop::bool::weighted(0.9)).prop_map(|(p, kept)| Step::Kept(p, kept)),
        3 => (page, 0usize..3).prop_map(|(p, n)| Step::Back(p, n)),
        3 => (0usize..5).prop_map(Step::Reachable),
        3 => prop_oneof![0u32..1000, 0u32..700_000].prop_map(Step::Pass),
    ]
}

fn originator() -> impl Strategy<Value = OriginatorEvent> {
    use OriginatorEvent::{AckMissing, Acked, Bye, Cancelled, Expired, PrackMissing};
    prop_oneof![
        6 => Just(Acked),
        2 => Just(Bye),
        1 => prop::sample::select(vec![Cancelled, AckMissing, PrackMissing, Expired]),
    ]
}

fn leg() -> impl Strategy<Value = LegEvent> {
    prop_oneof![
        2 => any::<bool>().prop_map(|ringing| LegEvent::Early { ringing, allow: None, contact: None }),
        4 => Just(LegEvent::Accepted { allow: None, contact: None }),
        1 => Just(LegEvent::Unusable { text: String::new() }),
        2 => prop::sample::select(vec![302u16, 404, 408, 480, 486, 503, 603])
            .prop_map(|status| LegEvent::Refused { status, text: String::new(), retry_after: None }),
        1 => any::<bool>().prop_map(|timeout| LegEvent::Unreachable { timeout }),
        1 => Just(LegEvent::Bye),
        1 => Just(LegEvent::Expired),
    ]
}

fn bytes() -> impl Strategy<Value = OriginatorMedia> {
    prop_oneof![
        1 => Just(OriginatorMedia::Bound),
        4 => Just(OriginatorMedia::Started { content_type: "text/plain".into(), total: None }),
        4 => Just(OriginatorMedia::Complete { size: 100 }),
        2 => Just(OriginatorMedia::Settled),
        1 => prop::sample::select(vec![PageLoss::Sender, PageLoss::Connection, PageLoss::TooBig])
            .prop_map(OriginatorMedia::Aborted),
    ]
}

fn media() -> impl Strategy<Value = LegMedia> {
    prop_oneof![
        1 => Just(LegMedia::Bound),
        2 => Just(LegMedia::Sending),
        1 => (0u64..100).prop_map(|octets| LegMedia::Progress { octets }),
        4 => Just(LegMedia::Delivered { octets: 100 }),
        2 => prop::sample::select(vec![
            MediaFailure::Status(413),
            MediaFailure::Connection,
            MediaFailure::Stall
        ])
        .prop_map(|cause| LegMedia::Failed { cause }),
        3 => Just(LegMedia::Quiet),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), any::<bool>(), 0u32..4, 1u16..6, any::<(bool, bool)>()).prop_map(
        |(immediate, first, rate, breadth, (defers, accepts))| Policy {
            deferral: Deferral {
                enabled: defers,
                when_none_joined: match accepts {
                    true => WhenNoneJoined::Accept,
                    false => WhenNoneJoined::Refuse,
                },
                ttl: Duration::from_secs(400),
                ..Deferral::default()
            },
            originator_answer: if immediate {
                OriginatorAnswer::Immediate
            } else {
                OriginatorAnswer::First200
            },
            sr_policy: if first { SrPolicy::FirstDelivery } else { SrPolicy::Switch },
            send_rate: rate,
            max_entries: breadth,
            ..Policy::default()
        },
    )
}

/// The engine as its effects describe it.
#[derive(Default)]
struct Model {
    pages: BTreeMap<PageId, PageSeen>,
    /// What is kept and not served at present: by page, its legs that wait.
    waiting: BTreeMap<PageId, (Record, Instant, Vec<u16>)>,
}

#[derive(Default)]
struct PageSeen {
    legs: BTreeMap<LegId, LegSeen>,
    answered: bool,
    refused: bool,
    ended: bool,
    released: bool,
    reported: bool,
    confirmed: bool,
    /// Keeping it was asked for; its legs that had no end then.
    asked: Option<(Box<Record>, Instant)>,
    kept: bool,
    open: Vec<u16>,
    waiting: Vec<u16>,
    /// It was kept before.
    restored: bool,
}

#[derive(Default)]
struct LegSeen {
    invited: bool,
    cancelled: bool,
    joined: bool,
    released: bool,
    told: Option<Told>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Delivered,
    Failed,
    Deferred,
    Expired,
}

impl PageSeen {
    fn count(&self, which: &[Told]) -> u16 {
        let told = self.legs.values().filter_map(|leg| leg.told);
        told.filter(|told| which.contains(told)).count() as u16
    }
}

impl Model {
    fn see(&mut self, effects: &[Effect]) {
        for effect in effects {
            self.see_one(effect);
        }
    }

    fn page(&mut self, page: PageId) -> &mut PageSeen {
        self.pages.get_mut(&page).expect("effects are for living pages only")
    }

    /// A leg that was invited and is not released.
    fn leg(&mut self, id: LegId) -> &mut LegSeen {
        let leg = self.page(id.page).legs.get_mut(&id).expect("invited before");
        assert!(leg.invited && !leg.released, "an effect for a leg that is not there: {id}");
        leg
    }

    fn result(&mut self, id: LegId, told: Told) {
        let page = self.page(id.page);
        let leg = page.legs.entry(id).or_default();
        let first = leg.told.is_none();
        let taken_back =
            leg.told == Some(Told::Deferred) && matches!(told, Told::Failed | Told::Expired);
        assert!(first || taken_back, "a second result for {id}: {:?}, {told:?}", leg.told);
        leg.told = Some(told);
    }

    fn see_one(&mut self, effect: &Effect) {
        match effect {
            Effect::Event(event) => self.see_event(event),
            Effect::Resolve { page, .. } => {
                self.page(*page);
            }
            Effect::Invite { leg, .. } => {
                let page = self.page(leg.page);
                let seen = page.legs.entry(*leg).or_default();
                if seen.invited && seen.released && seen.told.is_some() {
                    // Once more: what was told is taken back.
                    let waits = seen.told == Some(Told::Deferred);
                    assert!(!seen.joined || waits, "only who was never there is invited again");
                    *seen = LegSeen::default();
                }
                assert!(!seen.invited && seen.told.is_none());
                seen.invited = true;
            }
            Effect::Progress { page, .. } => {
                let page = self.page(*page);
                assert!(!page.answered && !page.refused, "a 1xx behind the final answer");
            }
            Effect::Answer { page, .. } => {
                let page = self.page(*page);
                assert!(!page.answered && !page.refused && !page.released);
                page.answered = true;
            }
            Effect::Refuse { page, .. } => {
                let page = self.page(*page);
                assert!(!page.answered && !page.refused && !page.released);
            }
            Effect::Cancel { leg, .. } => {
                let leg = self.leg(*leg);
                assert!(!leg.cancelled && !leg.joined);
                leg.cancelled = true;
            }
            Effect::Join { leg } => {
                let leg = self.leg(*leg);
                assert!(!leg.cancelled && !leg.joined);
                leg.joined = true;
            }
            Effect::Abort { leg } => assert!(self.leg(*leg).joined),
            Effect::EndLeg { leg, .. } => {
                self.leg(*leg);
            }
            Effect::ReleaseLeg { leg } => self.leg(*leg).released = true,
            Effect::EndOriginator { page, .. } => {
                let page = self.page(*page);
                assert!(page.answered && !page.released);
            }
            Effect::Report { page, .. } => {
                let page = self.page(*page);
                assert!(page.answered && !page.released && !page.reported);
                page.reported = true;
            }
            Effect::Accept { .. } | Effect::Deliver { .. } | Effect::Turn { .. } => {
                panic!("no page is short here")
            }
            Effect::Keep { page, record, open, until } => {
                let page = self.page(*page);
                assert!(page.asked.is_none() && !page.confirmed && !page.restored);
                assert!(!open.is_empty(), "a page is kept for somebody");
                page.asked = Some((record.clone(), *until));
                page.open.clone_from(open);
            }
            Effect::Confirm { page, kept } => {
                let page = self.page(*page);
                assert!(!page.confirmed, "said once");
                assert!(*kept == page.kept || page.asked.is_none());
                page.confirmed = true;
            }
            Effect::Settled { leg } => {
                let page = self.page(leg.page);
                assert!(page.kept, "what is not kept needs no word");
                let told = page.legs.get(leg).and_then(|leg| leg.told);
                assert!(matches!(told, Some(Told::Delivered | Told::Failed | Told::Expired)));
                let before = page.open.len();
                page.open.retain(|n| *n != leg.n);
                assert_eq!(page.open.len() + 1, before, "an open leg settles once");
            }
            Effect::Defer { leg, .. } => {
                let page = self.page(leg.page);
                assert!(page.kept);
                assert_eq!(page.legs.get(leg).and_then(|leg| leg.told), Some(Told::Deferred));
                let before = page.open.len();
                page.open.retain(|n| *n != leg.n);
                assert_eq!(page.open.len() + 1, before, "an open leg waits once");
                page.waiting.push(leg.n);
            }
            Effect::ReleaseOriginator { page } => {
                let page = self.page(*page);
                assert!(!page.released);
                page.released = true;
            }
            Effect::Forget { page } => {
                let id = *page;
                let page = self.pages.remove(&id).expect("one Forget a page");
                assert!(page.released, "the originator's session is released");
                assert_eq!((page.refused, page.ended), (!page.answered, page.answered));
                assert!(page.asked.is_none() || page.confirmed);
                assert!(!page.kept || page.open.is_empty(), "of a kept page every leg is told of");
                for (id, leg) in &page.legs {
                    assert!(leg.told.is_some(), "{id} has its result");
                    assert_eq!(leg.invited, leg.released, "{id} is released if it was invited");
                    let waits = page.waiting.contains(&id.n);
                    assert_eq!(leg.told == Some(Told::Deferred), waits, "{id} waits for somebody");
                }
                if let Some((record, until)) = page.asked.filter(|_| page.kept) {
                    let waiting = self.waiting.entry(id).or_insert((*record, until, Vec::new()));
                    waiting.2.extend(page.waiting);
                }
            }
        }
    }

    fn see_event(&mut self, event: &Event) {
        match event {
            Event::PageArrived { page, .. } => {
                assert!(self.pages.insert(*page, PageSeen::default()).is_none());
            }
            Event::PageRefused { page, .. } => {
                let page = self.page(*page);
                assert!(!page.refused && !page.answered);
                page.refused = true;
            }
            Event::PageRestored { page, .. } => {
                let (record, until, _) = self.waiting.get(page).expect("it was kept");
                let seen = PageSeen {
                    answered: true,
                    released: true,
                    confirmed: true,
                    kept: true,
                    restored: true,
                    asked: Some((Box::new(record.clone()), *until)),
                    ..PageSeen::default()
                };
                assert!(self.pages.insert(*page, seen).is_none());
            }
            Event::Delivered { leg, .. } => self.result(*leg, Told::Delivered),
            Event::Failed { leg, .. } => self.result(*leg, Told::Failed),
            Event::Deferred { leg, .. } => self.result(*leg, Told::Deferred),
            Event::Expired { leg, .. } => self.result(*leg, Told::Expired),
            Event::PageEnded { page, delivered, failed, deferred } => {
                let page = self.page(*page);
                assert!(!page.ended);
                let counts =
                    [&[Told::Delivered][..], &[Told::Failed, Told::Expired], &[Told::Deferred]];
                assert_eq!([*delivered, *failed, *deferred], counts.map(|which| page.count(which)));
                page.ended = true;
            }
            Event::Early { leg, .. } | Event::Joined { leg, .. } | Event::Sending { leg } => {
                self.leg(*leg);
            }
            Event::RecipientRemoved { page, .. }
            | Event::OriginatorAnswered { page }
            | Event::PageStarted { page, .. }
            | Event::PageComplete { page, .. }
            | Event::PageLost { page, .. } => {
                self.page(*page);
            }
            Event::Invited { leg, .. } => {
                self.leg(*leg);
            }
        }
    }
}

/// An engine under random steps, with the model beside it.
struct Run {
    engine: Engine,
    now: Instant,
    model: Model,
    minted: u64,
    pages: [PageId; 3],
    log: Vec<Effect>,
}

impl Run {
    fn new(policy: Policy) -> Self {
        Self {
            engine: Engine::new(policy),
            now: start(),
            model: Model::default(),
            minted: 3,
            pages: [0, 1, 2].map(|n| PageId::new(0, n)),
            log: Vec::new(),
        }
    }

    fn tell(&mut self, input: Input) {
        let mut out = Vec::new();
        self.engine.handle(self.now, input, &mut out);
        self.saw(out);
    }

    fn saw(&mut self, out: Vec<Effect>) {
        self.model.see(&out);
        self.log.extend(out);
        assert_eq!(self.model.pages.len(), self.engine.pages());
    }

    /// The store answers.
    fn kept(&mut self, page: PageId, kept: bool) {
        if let Some(seen) = self.model.pages.get_mut(&page)
            && seen.asked.is_some()
            && !seen.confirmed
        {
            seen.kept = kept;
            self.tell(Input::Kept { page, kept });
        }
    }

    /// Some of those a page waits for are back, or their time is over.
    fn back(&mut self, page: PageId, count: usize) {
        let Some((record, until, waiting)) = self.model.waiting.get_mut(&page) else { return };
        let open: Vec<u16> = waiting.drain(..count.min(waiting.len())).collect();
        let restored = Restored { record: record.clone(), open: open.clone(), until: *until };
        let running = self.model.pages.get_mut(&page);
        let known = running.is_some();
        if let Some(seen) = running {
            seen.open.extend(&open);
            seen.waiting.retain(|n| !open.contains(n));
        }
        if !open.is_empty() {
            let mut out = Vec::new();
            self.engine.handle(self.now, Input::Restored(Box::new(restored)), &mut out);
            if !known {
                // The word that it goes on comes first.
                assert!(matches!(out[0], Effect::Event(Event::PageRestored { .. })));
                self.model.see(&out[..1]);
                self.model.page(page).open.extend(&open);
                out.remove(0);
            }
            self.saw(out);
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.engine.next_wake().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            let mut out = Vec::new();
            self.engine.wake(self.now, &mut out);
            assert!(self.engine.next_wake().is_none_or(|next| next > self.now), "a wake settles");
            self.saw(out);
        }
        self.now = until;
    }

    /// The store has answered, everybody who was waited for is back, and a day has passed.
    fn settles(&mut self) {
        for _ in 0..2 {
            let pages: Vec<_> = self.model.pages.keys().copied().collect();
            pages.into_iter().for_each(|page| self.kept(page, true));
            let waiting: Vec<_> = self.model.waiting.keys().copied().collect();
            waiting.into_iter().for_each(|page| self.back(page, usize::MAX));
            self.pass(Duration::from_secs(24 * 3600));
        }
        let pages: Vec<_> = self.model.pages.keys().copied().collect();
        pages.into_iter().for_each(|page| self.kept(page, true));
        self.pass(Duration::from_secs(24 * 3600));
        let waits = self.model.waiting.values().any(|(_, _, legs)| !legs.is_empty());
        assert!(!waits || self.now - start() < Duration::from_secs(400), "nobody waits for ever");
    }

    fn step(&mut self, step: Step) {
        let id = |pages: &[PageId; 3], p: u8| pages[usize::from(p)];
        match step {
            Step::Arrive(p) => {
                // A slot whose page is over gets a new one.
                let page = id(&self.pages, p);
                if !self.model.pages.contains_key(&page) {
                    self.minted += 1;
                    self.pages[usize::from(p)] = PageId::new(0, self.minted);
                }
                let mut scene = Scene::new(Policy::default());
                scene.page = id(&self.pages, p);
                let arrival = scene.arrival("alice");
                self.tell(Input::Arrived(arrival));
            }
            Step::Resolve(p, count) => {
                let result = Ok(audience(&NAMES[..count]));
                self.tell(Input::Resolved { page: id(&self.pages, p), result });
            }
            Step::Unresolved(p) => {
                let result = Err(Refusal::new(404, "IM-033"));
                self.tell(Input::Resolved { page: id(&self.pages, p), result });
            }
            Step::Originator(p, event) => {
                self.tell(Input::Originator { page: id(&self.pages, p), event });
            }
            Step::Leg(p, n, event) => {
                self.tell(Input::Leg { leg: LegId { page: id(&self.pages, p), n }, event });
            }
            Step::Bytes(p, event) => {
                self.tell(Input::OriginatorMedia { page: id(&self.pages, p), event });
            }
            Step::Media(p, n, event) => {
                self.tell(Input::LegMedia { leg: LegId { page: id(&self.pages, p), n }, event });
            }
            Step::End(p) => self.tell(Input::End { page: id(&self.pages, p) }),
            Step::Reachable(n) => {
                let user = audience(&NAMES)
                    .recipients
                    .get(n)
                    .map(|recipient| recipient.party.key.clone())
                    .expect("there are as many names");
                self.tell(Input::Reachable { user });
            }
            Step::Kept(p, kept) => self.kept(id(&self.pages, p), kept),
            Step::Back(p, count) => self.back(id(&self.pages, p), count),
            Step::Pass(ms) => self.pass(Duration::from_millis(ms.into())),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Proves IM-067.
    #[test]
    fn the_promises_hold_whatever_comes(policy in policy(), steps in prop::collection::vec(step(), 0..60)) {
        let mut run = Run::new(policy.clone());
        for step in steps.clone() {
            run.step(step);
        }
        run.settles();
        prop_assert!(run.engine.is_idle(), "a day later nothing is left");
        prop_assert_eq!((run.engine.timers(), run.engine.unreached()), (0, 0));
        prop_assert!(run.model.pages.is_empty());

        let mut again = Run::new(policy);
        for step in steps {
            again.step(step);
        }
        again.settles();
        prop_assert!(run.log == again.log, "the same inputs give the same effects");
    }
}
