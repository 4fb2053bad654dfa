//! Short pages: scenes in words, then what is promised whatever comes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::effect::Effect;
use super::event::Event;
use super::ids::{LegId, PageId};
use super::input::{Arrival, Input, LegEvent, Mode, Refusal};
use super::party::{Audience, Declined};
use super::policy::Policy;
use super::record::{Record, Restored};
use super::testing::{Scene, audience, party, start, words};
use super::{Engine, SharedLanes, SharedUsers};

fn scene(policy: Policy) -> Scene {
    let mut scene = Scene::deferring(policy);
    let arrival = short(&scene);
    assert_eq!(scene.does(Input::Arrived(arrival)), "*arrived, resolve");
    scene
}

fn short(scene: &Scene) -> Arrival {
    Arrival { mode: Mode::Short, size: Some(12), ..scene.arrival("alice") }
}

fn kept(scene: &mut Scene, kept: bool) -> String {
    scene.does(Input::Kept { page: scene.page, kept })
}

/// A second page, to Bob alone, up to where it is kept.
fn another_to_bob(s: &mut Scene) -> String {
    s.page = PageId::new(0, 2);
    let arrival = short(s);
    s.does(Input::Arrived(arrival));
    s.resolves(&["bob"]);
    kept(s, true)
}

/// Part of IM-080 and UL-027.
#[test]
fn a_page_is_kept_then_accepted_then_sent_to_everybody() {
    let mut s = scene(Policy::default());
    assert_eq!(
        s.resolves(&["alice", "bob", "carol", "bob"]),
        "*removed Originator, *removed Duplicate, keep"
    );
    assert_eq!(
        kept(&mut s, true),
        "202, *answered, release, *invited 1, deliver 1, *invited 2, deliver 2"
    );
    assert_eq!(s.accepts(2), "*delivered 2, settled 2");
    assert_eq!(s.refuses(1, 403), "*failed 1 Sip 403, settled 1, *ended 1+1, forget");
    assert!(s.engine.is_idle() && s.engine.timers() == 0 && s.engine.lined() == 0);
    assert_eq!(s.accepts(1), "", "it crossed the end");
}

/// As UL-020 and UL-036 ask of MESSAGE.
#[test]
fn what_is_refused_is_refused_as_a_message_is() {
    let mut s = scene(Policy::default());
    assert_eq!(
        s.resolves(&["alice"]),
        "*removed Originator, refuse 403, *refused 403, release, forget"
    );
    for (status, answer) in [(486, 403), (404, 404), (480, 480), (403, 403)] {
        let mut s = scene(Policy::default());
        let result = Err(Refusal::new(status, "UL-020"));
        let told = s.does(Input::Resolved { page: s.page, result });
        assert_eq!(told, format!("refuse {answer}, *refused {answer}, release, forget"));
    }
    let mut s = Scene::deferring(Policy { max_parallel_per_user: 0, ..Policy::default() });
    let arrival = short(&s);
    let told = s.does(Input::Arrived(arrival));
    assert_eq!(told, "*arrived, refuse 403, *refused 403, release, forget");
    let mut s = scene(Policy::default());
    assert_eq!(
        s.after(Duration::from_secs(20)),
        "20.000s refuse 480, *refused 480, release, forget"
    );
    let mut s = scene(Policy::default());
    s.resolves(&["bob"]);
    let told = kept(&mut s, false);
    assert_eq!(told, "*failed 1 Store 0, refuse 480, *refused 480, release, forget");
    assert!(s.engine.is_idle() && s.engine.timers() == 0);
}

/// Part of IM-079.
#[test]
fn two_quick_messages_to_one_target_go_one_after_the_other() {
    let lanes = SharedLanes::default();
    let engine = || Engine::sharing(Policy::default(), SharedUsers::default(), lanes.clone());
    let (mut one, mut two) =
        (Scene::deferring(Policy::default()), Scene::deferring(Policy::default()));
    (one.engine, two.engine, two.page) = (engine(), engine(), PageId::new(1, 2));
    for s in [&mut one, &mut two] {
        let arrival = short(s);
        s.does(Input::Arrived(arrival));
        s.resolves(&["bob"]);
    }
    assert_eq!(kept(&mut one, true), "202, *answered, release, *invited 1, deliver 1");
    assert_eq!(kept(&mut two, true), "202, *answered, release", "bob has one on its way");
    let leg = LegId { page: two.page, n: 1 };
    assert_eq!(one.accepts(1), "turn 1, *delivered 1, settled 1, *ended 1+0, forget");
    assert_eq!(one.does(Input::Turn { leg }), "", "it is another thread's");
    assert_eq!(two.does(Input::Turn { leg }), "*invited 1, deliver 1");
    assert_eq!(two.does(Input::Turn { leg }), "", "once");
    two.accepts(1);
    assert_eq!((two.engine.is_idle(), two.engine.lined()), (true, 0));
}

/// Part of IM-079.
#[test]
fn a_page_that_ends_or_breaks_gives_its_turns_away() {
    for broken in [false, true] {
        let mut s = scene(Policy::default());
        s.resolves(&["bob"]);
        kept(&mut s, true);
        let first = s.page;
        another_to_bob(&mut s);
        if broken {
            let told = words(&s.engine.abandon(first));
            assert_eq!(told, "turn 1, *failed 1 Policy 0, *ended 0+1");
        } else {
            let told = s.does(Input::End { page: first });
            assert_eq!(told, "turn 1, *failed 1 Policy 0, settled 1, *ended 0+1, forget");
        }
        let leg = LegId { page: s.page, n: 1 };
        assert_eq!(s.does(Input::Turn { leg }), "*invited 1, deliver 1");
        s.accepts(1);
        assert_eq!((s.engine.is_idle(), s.engine.lined(), s.engine.timers()), (true, 0, 0));
    }
}

#[test]
fn a_page_ended_while_it_is_being_kept_is_taken_back() {
    let mut s = scene(Policy::default());
    s.resolves(&["bob"]);
    let told = s.does(Input::End { page: s.page });
    assert_eq!(told, "*failed 1 Policy 0, refuse 480, *refused 480, release");
    assert_eq!(kept(&mut s, true), "settled 1, forget");
}

/// As IM-090 and IM-091 ask.
#[test]
fn who_declines_gets_nothing_and_nobody_is_told() {
    let mut s = scene(Policy::default());
    let declined = vec![(party("bob").key, Declined::Rejected)];
    let result = Ok(Audience { declined, ..audience(&["bob"]) });
    assert_eq!(
        s.does(Input::Resolved { page: s.page, result }),
        "202, *answered, release, *failed 1 Policy 403, *ended 0+1, forget"
    );
}

/// Part of IM-097.
#[test]
fn who_is_not_there_is_waited_for_and_comes_back() {
    let mut s = scene(Policy::default());
    s.resolves(&["bob", "carol"]);
    kept(&mut s, true);
    assert_eq!(s.refuses(1, 480), "*deferred 1 Sip 480");
    let user = party("bob").key;
    assert_eq!(s.does(Input::Reachable { user }), "*invited 1, deliver 1", "while the page runs");
    assert_eq!(s.leg(1, LegEvent::Unreachable { timeout: true }), "*deferred 1 Timer 408");
    assert_eq!(s.accepts(2), "*delivered 2, settled 2, defer 1, *ended 1+0+1, forget");
    assert!(s.engine.is_idle() && s.engine.unreached() == 0);

    let record = Record { arrival: short(&s), audience: audience(&["bob", "carol"]), size: 12 };
    let until = s.now + Duration::from_secs(60);
    let restored = Restored { record, open: vec![1], until };
    let told = s.does(Input::Restored(Box::new(restored.clone())));
    assert_eq!(told, "*restored, *invited 1, deliver 1");
    assert_eq!(s.refuses(1, 480), "*deferred 1 Sip 480, defer 1, *ended 0+0+1, forget");

    s.now = until;
    let told = s.does(Input::Restored(Box::new(restored)));
    assert_eq!(told, "*restored, *expired 1, settled 1, *ended 0+1, forget");
}

/// As UL-033 and UL-034 ask.
#[test]
fn breadth_and_pace_hold_here_too() {
    let mut s = scene(Policy { max_entries: 1, ..Policy::default() });
    s.resolves(&["bob", "carol"]);
    assert_eq!(kept(&mut s, true), "202, *answered, release, *invited 1, deliver 1");
    assert_eq!(s.accepts(1), "*delivered 1, settled 1, *invited 2, deliver 2");
    let mut s = scene(Policy { send_rate: 2, ..Policy::default() });
    s.resolves(&["bob", "carol"]);
    assert_eq!(kept(&mut s, true), "202, *answered, release, *invited 1, deliver 1");
    assert_eq!(s.after(Duration::from_secs(1)), "0.500s *invited 2, deliver 2");
}

#[test]
fn a_lane_is_not_longer_than_what_may_wait_for_one_user() {
    let mut policy = Policy::default();
    policy.deferral.max_per_user = 1;
    let mut s = scene(policy);
    s.resolves(&["bob"]);
    kept(&mut s, true);
    assert_eq!(
        another_to_bob(&mut s),
        "202, *answered, release, *deferred 1 Policy 480, defer 1, *ended 0+0+1, forget",
        "nothing that was accepted is lost"
    );
}

/// Whoever comes back while a page that found no place still runs is served by it.
#[test]
fn a_leg_that_found_no_place_is_served_when_its_recipient_is_back() {
    let mut policy = Policy::default();
    policy.deferral.max_per_user = 1;
    let mut s = scene(policy);
    s.resolves(&["bob"]);
    kept(&mut s, true);
    let first = std::mem::replace(&mut s.page, PageId::new(0, 2));
    let arrival = short(&s);
    s.does(Input::Arrived(arrival));
    s.resolves(&["bob", "carol"]);
    kept(&mut s, true);
    let second = std::mem::replace(&mut s.page, first);
    s.accepts(1);
    let user = party("bob").key;
    assert_eq!(s.does(Input::Reachable { user }), "*invited 1, deliver 1");
    s.page = second;
    s.accepts(1);
    assert_eq!(s.accepts(2), "*delivered 2, settled 2, *ended 2+0, forget");
    assert_eq!((s.engine.unreached(), s.engine.lined()), (0, 0));
}

/// As UL-033 asks: whoever is busy is tried again, later each time, and not for ever.
#[test]
fn who_is_busy_is_tried_again() {
    let busy = |status, retry_after| LegEvent::Refused { status, text: String::new(), retry_after };
    let mut s = scene(Policy { short_retries: 2, ..Policy::default() });
    s.resolves(&["bob"]);
    kept(&mut s, true);
    assert_eq!(s.leg(1, busy(503, None)), "");
    assert_eq!(s.after(Duration::from_secs(9)), "5.000s *invited 1, deliver 1");
    assert_eq!(s.leg(1, busy(503, None)), "");
    assert_eq!(s.after(Duration::from_secs(19)), "19.000s *invited 1, deliver 1");
    let told = s.leg(1, busy(503, None));
    assert_eq!(told, "*deferred 1 Sip 503, defer 1, *ended 0+0+1, forget", "twice is enough");
    assert_eq!((s.engine.lined(), s.engine.timers()), (0, 0));

    for (event, again) in [
        (busy(486, Some(30)), Some("30.000s *invited 1, deliver 1")),
        (busy(500, Some(1)), Some("5.000s *invited 1, deliver 1")),
        (LegEvent::Unreachable { timeout: false }, Some("5.000s *invited 1, deliver 1")),
        (busy(503, Some(301)), None),
        (busy(486, None), None),
        (busy(480, None), None),
        (busy(403, Some(5)), None),
        (LegEvent::Unreachable { timeout: true }, None),
    ] {
        let mut s = scene(Policy::default());
        s.resolves(&["bob"]);
        kept(&mut s, true);
        let told = s.leg(1, event.clone());
        assert_eq!(told.is_empty(), again.is_some(), "{event:?}: {told}");
        if let Some(again) = again {
            assert_eq!(s.after(Duration::from_secs(60)), again, "{event:?}");
        }
    }
}

/// A registration says nothing of whether somebody is busy.
#[test]
fn who_is_busy_is_tried_when_they_said() {
    let mut s = scene(Policy::default());
    s.resolves(&["bob", "carol"]);
    kept(&mut s, true);
    assert_eq!(s.refuses(2, 480), "*deferred 2 Sip 480");
    let busy = LegEvent::Refused { status: 503, text: String::new(), retry_after: Some(60) };
    assert_eq!(s.leg(1, busy), "");
    let user = party("bob").key;
    assert_eq!(s.does(Input::Reachable { user }), "");
    assert_eq!(s.after(Duration::from_secs(60)), "60.000s *invited 1, deliver 1");
}

/// As IM-079 asks: a page that is held back holds back nobody else.
#[test]
fn a_page_that_may_not_send_lets_others_go_first() {
    let mut s = scene(Policy { max_entries: 1, ..Policy::default() });
    s.resolves(&["carol", "bob"]);
    assert_eq!(kept(&mut s, true), "202, *answered, release, *invited 1, deliver 1");
    let slow = s.page;
    assert_eq!(another_to_bob(&mut s), "202, *answered, release, *invited 1, deliver 1");
    s.page = slow;
    assert_eq!(s.accepts(1), "*delivered 1, settled 1", "now bob has one on its way");
}

/// As UL-027 asks of what is not kept in time.
#[test]
fn a_store_that_does_not_answer_is_not_waited_for() {
    for kept_after_all in [true, false] {
        let mut s = scene(Policy::default());
        s.resolves(&["bob"]);
        assert_eq!(
            s.after(Duration::from_secs(60)),
            "10.000s *failed 1 Store 0, refuse 480, *refused 480, release"
        );
        let told = kept(&mut s, kept_after_all);
        assert_eq!(told, if kept_after_all { "settled 1, forget" } else { "forget" });
        assert_eq!((s.engine.is_idle(), s.engine.timers()), (true, 0));
    }
}

// ---- whatever comes -------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Arrive(usize),
    Resolve(usize, Vec<usize>),
    Keep(usize, bool),
    Answer(usize, u16, u16),
    Silent(usize, u16),
    End(usize),
    Reach(usize),
    Pass(u64),
    Abandon(usize),
}

const PEOPLE: [&str; 4] = ["bob", "carol", "dave", "erin"];

fn step() -> impl Strategy<Value = Step> {
    let page = 0..4_usize;
    prop_oneof![
        3 => page.clone().prop_map(Step::Arrive),
        3 => (page.clone(), prop::collection::vec(0..4_usize, 0..5)).prop_map(|(p, l)| Step::Resolve(p, l)),
        3 => (page.clone(), prop::bool::weighted(0.8)).prop_map(|(p, k)| Step::Keep(p, k)),
        6 => (page.clone(), 1..6_u16, prop::sample::select(vec![200, 403, 480, 503]))
            .prop_map(|(p, n, s)| Step::Answer(p, n, s)),
        1 => (page.clone(), 1..6_u16).prop_map(|(p, n)| Step::Silent(p, n)),
        1 => page.clone().prop_map(Step::End),
        1 => (0..4_usize).prop_map(Step::Reach),
        1 => (0..100_u64).prop_map(Step::Pass),
        1 => page.prop_map(Step::Abandon),
    ]
}

#[derive(Default)]
struct Seen {
    asked: bool,
    kept: bool,
    refused: bool,
    accepted: bool,
    released: bool,
    open: Vec<u16>,
    out: BTreeMap<u16, String>,
    /// The last word on each leg, and whether it is final.
    last: BTreeMap<u16, bool>,
    settled: BTreeSet<u16>,
    ended: bool,
}

#[derive(Default)]
struct Model {
    pages: BTreeMap<PageId, Seen>,
    turns: Vec<LegId>,
}

impl Model {
    /// What is on its way to a target is nobody else's.
    fn outstanding(&self, target: &str) -> usize {
        self.pages.values().flat_map(|seen| seen.out.values()).filter(|to| *to == target).count()
    }

    fn see(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Deliver { leg, recipient, .. } => {
                    let target = recipient.party.key.to_string();
                    assert_eq!(self.outstanding(&target), 0, "one at a time to {target}");
                    let seen = self.page(leg.page);
                    assert!(seen.accepted && seen.open.contains(&leg.n));
                    seen.out.insert(leg.n, target);
                    seen.last.remove(&leg.n);
                }
                Effect::Turn { leg } => self.turns.push(*leg),
                Effect::Keep { page, open, .. } => {
                    let seen = self.page(*page);
                    assert!(!seen.asked && !open.is_empty());
                    (seen.asked, seen.open) = (true, open.clone());
                }
                Effect::Accept { page, .. } => {
                    let seen = self.page(*page);
                    assert!(
                        seen.kept && !seen.accepted && !seen.refused,
                        "kept before it is accepted"
                    );
                    seen.accepted = true;
                }
                Effect::Refuse { page, refusal } => {
                    let seen = self.page(*page);
                    assert!(!seen.accepted && !seen.refused && refusal.status != 486);
                    seen.refused = true;
                }
                Effect::Settled { leg } | Effect::Defer { leg, .. } => {
                    let seen = self.page(leg.page);
                    assert!(seen.kept && seen.settled.insert(leg.n), "one end for what is kept");
                }
                Effect::ReleaseOriginator { page } => {
                    assert!(!std::mem::replace(&mut self.page(*page).released, true));
                }
                Effect::Forget { page } => {
                    let seen = self.pages.remove(page).expect("it is known");
                    assert!(seen.released && seen.ended && (seen.accepted || seen.refused));
                    if seen.kept {
                        assert!(seen.open.iter().all(|n| seen.settled.contains(n)));
                    }
                    assert!(
                        seen.open.iter().all(|n| seen.last.contains_key(n)),
                        "a word on each leg"
                    );
                }
                Effect::Event(event) => self.see_event(event),
                Effect::Resolve { .. } => {}
                other => panic!("{other:?} is not for short pages"),
            }
        }
    }

    fn see_event(&mut self, event: &Event) {
        match event {
            Event::PageArrived { page, .. } => {
                assert!(self.pages.insert(*page, Seen::default()).is_none());
            }
            Event::Delivered { leg, .. }
            | Event::Failed { leg, .. }
            | Event::Expired { leg, .. } => {
                let seen = self.page(leg.page);
                seen.out.remove(&leg.n);
                let before = seen.last.insert(leg.n, true);
                assert!(before != Some(true), "one result for each recipient");
            }
            Event::Deferred { leg, .. } => {
                let seen = self.page(leg.page);
                seen.out.remove(&leg.n);
                assert_eq!(seen.last.insert(leg.n, false), None);
            }
            Event::PageEnded { page, .. } | Event::PageRefused { page, .. } => {
                assert!(!std::mem::replace(&mut self.page(*page).ended, true));
            }
            _ => {}
        }
    }

    fn page(&mut self, page: PageId) -> &mut Seen {
        self.pages.get_mut(&page).expect("effects are about known pages")
    }
}

struct Run {
    /// Pages are on either thread; turns reach both.
    engines: [Engine; 2],
    now: std::time::Instant,
    model: Model,
    ids: [PageId; 4],
    minted: u64,
    lanes: SharedLanes,
}

impl Run {
    fn tell(&mut self, input: Input) {
        let thread = usize::from(input.page().map_or(0, PageId::thread));
        let mut out = Vec::new();
        self.engines[thread].handle(self.now, input, &mut out);
        self.saw(&out);
    }

    fn saw(&mut self, out: &[Effect]) {
        self.model.see(out);
        while let Some(leg) = self.model.turns.pop() {
            for thread in 0..2 {
                let mut out = Vec::new();
                self.engines[thread].handle(self.now, Input::Turn { leg }, &mut out);
                self.model.see(&out);
            }
        }
    }

    fn keep(&mut self, page: PageId, kept: bool) {
        if let Some(seen) = self.model.pages.get_mut(&page)
            && seen.asked
            && !seen.accepted
            && !seen.kept
        {
            seen.kept = kept;
            self.tell(Input::Kept { page, kept });
        }
    }

    /// Whatever becomes of it, this MESSAGE is no longer on its way.
    fn answered(&mut self, leg: LegId) {
        if let Some(seen) = self.model.pages.get_mut(&leg.page) {
            seen.out.remove(&leg.n);
        }
    }

    fn pass(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        for thread in 0..2 {
            while let Some(at) = self.engines[thread].next_wake().filter(|at| *at <= until) {
                let mut out = Vec::new();
                self.engines[thread].wake(at.max(self.now), &mut out);
                self.saw(&out);
            }
        }
        self.now = until;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Arrive(p) => {
                if self.engines.iter().all(|engine| !engine.has(self.ids[p])) {
                    self.minted += 1;
                    self.ids[p] = PageId::new(u8::from(p % 2 == 1), self.minted);
                    let scene = Scene::deferring(Policy::default());
                    let arrival = Arrival { page: self.ids[p], ..short(&scene) };
                    self.tell(Input::Arrived(arrival));
                }
            }
            Step::Resolve(p, people) => {
                let names: Vec<&str> = people.into_iter().map(|i| PEOPLE[i]).collect();
                let page = self.ids[p];
                self.tell(Input::Resolved { page, result: Ok(audience(&names)) });
            }
            Step::Keep(p, kept) => self.keep(self.ids[p], kept),
            Step::Answer(p, n, status) => {
                let leg = LegId { page: self.ids[p], n };
                let event = match status {
                    200 => LegEvent::Accepted { allow: None, contact: None },
                    status => LegEvent::Refused { status, text: String::new(), retry_after: None },
                };
                self.answered(leg);
                self.tell(Input::Leg { leg, event });
            }
            Step::Silent(p, n) => {
                let leg = LegId { page: self.ids[p], n };
                self.answered(leg);
                self.tell(Input::Leg { leg, event: LegEvent::Unreachable { timeout: true } });
            }
            Step::End(p) => self.tell(Input::End { page: self.ids[p] }),
            Step::Reach(who) => {
                for thread in 0..2 {
                    let mut out = Vec::new();
                    let user = party(PEOPLE[who]).key;
                    self.engines[thread].handle(self.now, Input::Reachable { user }, &mut out);
                    self.saw(&out);
                }
            }
            Step::Pass(seconds) => self.pass(seconds),
            Step::Abandon(p) => {
                let page = self.ids[p];
                let out = self.engines[usize::from(page.thread())].abandon(page);
                self.model.see(&out);
                self.model.pages.remove(&page);
                self.saw(&[]);
            }
        }
    }

    fn settles(&mut self) {
        // Every answer may give another its turn, and so may the time.
        for _ in 0..50 {
            for page in self.model.pages.keys().copied().collect::<Vec<_>>() {
                self.keep(page, true);
            }
            self.pass(31);
            while let Some((page, n)) = self
                .model
                .pages
                .iter()
                .find_map(|(page, seen)| Some((*page, *seen.out.keys().next()?)))
            {
                let event = LegEvent::Accepted { allow: None, contact: None };
                self.tell(Input::Leg { leg: LegId { page, n }, event });
            }
        }
        assert!(self.model.pages.is_empty(), "every page has its end");
        assert_eq!(self.lanes.lock().len(), 0);
        for engine in &self.engines {
            assert_eq!((engine.pages(), engine.timers(), engine.unreached()), (0, 0, 0));
        }
    }
}

proptest! {
    /// Part of IM-079 and UL-027.
    #[test]
    fn the_promises_hold_for_short_pages(steps in prop::collection::vec(step(), 0..80)) {
        let (lanes, users) = (SharedLanes::default(), SharedUsers::default());
        let policy = Policy { max_rate_per_user: 1000, ..Policy::default() };
        let slow = Policy { max_entries: 2, send_rate: 3, ..policy.clone() };
        let engine = |policy| Engine::sharing(policy, users.clone(), lanes.clone());
        let mut run = Run {
            engines: [engine(policy), engine(slow)],
            now: start(),
            model: Model::default(),
            ids: [0, 1, 2, 3].map(|n| PageId::new(u8::from(n % 2 == 1), n)),
            minted: 10,
            lanes: lanes.clone(),
        };
        steps.into_iter().for_each(|step| run.step(step));
        run.settles();
    }
}
