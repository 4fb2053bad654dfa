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
use super::policy::{OriginatorAnswer, Policy, SrPolicy};
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
        1 => page.prop_map(Step::End),
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
            .prop_map(|status| LegEvent::Refused { status, text: String::new() }),
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
    (any::<bool>(), any::<bool>(), 0u32..4, 1u16..6).prop_map(
        |(immediate, first, rate, breadth)| Policy {
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
}

#[derive(Default)]
struct PageSeen {
    legs: BTreeMap<LegId, LegSeen>,
    answered: bool,
    refused: bool,
    ended: bool,
    released: bool,
    reported: bool,
    delivered: u16,
    failed: u16,
}

#[derive(Default)]
struct LegSeen {
    invited: bool,
    cancelled: bool,
    joined: bool,
    released: bool,
    told: bool,
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

    fn result(&mut self, id: LegId, delivered: bool) {
        let page = self.page(id.page);
        let leg = page.legs.entry(id).or_default();
        assert!(!leg.told, "a second result for {id}");
        leg.told = true;
        page.delivered += u16::from(delivered);
        page.failed += u16::from(!delivered);
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
                if seen.invited && seen.released && seen.told {
                    // Once more: what was told is taken back.
                    assert!(!seen.joined, "only who was never there is invited again");
                    *seen = LegSeen::default();
                    page.failed -= 1;
                }
                assert!(!seen.invited && !seen.told);
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
            Effect::Keep { .. }
            | Effect::Confirm { .. }
            | Effect::Accept { .. }
            | Effect::Deliver { .. }
            | Effect::Settled { .. }
            | Effect::Defer { .. } => panic!("nothing is kept here"),
            Effect::ReleaseOriginator { page } => {
                let page = self.page(*page);
                assert!(!page.released);
                page.released = true;
            }
            Effect::Forget { page } => {
                let page = self.pages.remove(page).expect("one Forget a page");
                assert!(page.released, "the originator's session is released");
                assert_eq!((page.refused, page.ended), (!page.answered, page.answered));
                for (id, leg) in page.legs {
                    assert!(leg.told, "{id} has its result");
                    assert_eq!(leg.invited, leg.released, "{id} is released if it was invited");
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
            Event::PageRestored { .. } | Event::Deferred { .. } | Event::Expired { .. } => {
                panic!("nothing is deferred here")
            }
            Event::Delivered { leg, .. } => self.result(*leg, true),
            Event::Failed { leg, .. } => self.result(*leg, false),
            Event::PageEnded { page, delivered, failed, .. } => {
                let page = self.page(*page);
                assert!(!page.ended);
                assert_eq!((*delivered, *failed), (page.delivered, page.failed));
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
        run.pass(Duration::from_secs(24 * 3600));
        prop_assert!(run.engine.is_idle(), "a day later nothing is left");
        prop_assert_eq!((run.engine.timers(), run.engine.unreached()), (0, 0));
        prop_assert!(run.model.pages.is_empty());

        let mut again = Run::new(policy);
        for step in steps {
            again.step(step);
        }
        again.pass(Duration::from_secs(24 * 3600));
        prop_assert!(run.log == again.log, "the same inputs give the same effects");
    }
}
