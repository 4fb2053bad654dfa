//! The engine told as stories: what comes in, what must follow, hours in milliseconds.

use std::time::Duration;

use super::event::Event;
use super::ids::PageId;
use super::input::{
    Arrival, Input, LegEvent, LegMedia, MediaFailure, OriginatorEvent, OriginatorMedia, PageLoss,
    Refusal,
};
use super::party::Removal;
use super::policy::{FailMap, OriginatorAnswer, Policy, SrPolicy};
use super::testing::{Scene, audience, party, start, words};
use super::{Effect, Engine, SharedLanes, SharedUsers};

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

// ---- the whole way ------------------------------------------------------------------------------------------------

/// Proves IM-051, IM-056, MS-108, MS-109.
#[test]
fn a_page_reaches_those_who_join() {
    let mut s = Scene::new(Policy::default());
    assert_eq!(s.arrives(), "*arrived, resolve");
    assert_eq!(
        s.resolves(&["bob", "carol", "dan"]),
        "invite 1, *invited 1, invite 2, *invited 2, invite 3, *invited 3, 183"
    );
    assert_eq!(s.refuses(1, 486), "*failed 1 Sip 486, release 1", "the originator hears nothing");
    assert_eq!(s.accepts(2), "200, *answered, join 2, *joined 2");
    assert_eq!(s.accepts(3), "join 3, *joined 3", "one 200 for all");
    assert_eq!(s.originator(OriginatorEvent::Acked), "");
    assert_eq!(s.bytes(OriginatorMedia::Bound), "");
    assert_eq!(s.starts(), "*started");
    assert_eq!(s.media(2, LegMedia::Bound), "");
    assert_eq!(s.media(2, LegMedia::Sending), "*sending 2");
    assert_eq!(s.completes(), "*complete");
    assert_eq!(s.bytes(OriginatorMedia::Settled), "");
    assert_eq!(s.delivers(2), "*delivered 2");
    assert_eq!(s.originator(OriginatorEvent::Bye), "release");
    assert_eq!(s.delivers(3), "*delivered 3");
    assert_eq!(s.media(2, LegMedia::Quiet), "");
    assert_eq!(s.after(millis(4999)), "");
    assert_eq!(s.after(millis(1)), "5.000s bye 2, release 2");
    assert_eq!(
        s.after(seconds(3600)),
        "35.000s bye 3, release 3, *ended 2+1, forget",
        "nothing outstanding was told: waited for it, then drained"
    );
    assert!(s.engine.is_idle());
    assert_eq!(s.engine.timers(), 0);
}

/// Proves IM-019, IM-058, MS-085.
#[test]
fn a_recipient_who_answers_late_gets_the_whole_page() {
    let mut s = Scene::inviting(Policy::default(), &["bob", "carol"]);
    s.accepts(1);
    s.originator(OriginatorEvent::Acked);
    s.starts();
    s.completes();
    s.delivers(1);
    s.originator(OriginatorEvent::Bye);
    s.after(seconds(20));
    assert_eq!(s.accepts(2), "join 2, *joined 2");
    assert_eq!(s.delivers(2), "*delivered 2");
}

/// Proves IM-051.
#[test]
fn immediate_answers_before_anybody_else_does() {
    let policy = Policy { originator_answer: OriginatorAnswer::Immediate, ..Policy::default() };
    let mut s = Scene::new(policy);
    s.arrives();
    assert_eq!(s.resolves(&["bob"]), "invite 1, *invited 1, 200, *answered");
    assert_eq!(s.originator(OriginatorEvent::Acked), "");
    assert_eq!(s.early(1, true), "*early 1", "no 180 behind a 200");
    assert_eq!(s.accepts(1), "join 1, *joined 1");
}

/// Proves UL-026.
#[test]
fn immediate_tells_by_report_that_nobody_took_it() {
    let policy = Policy { originator_answer: OriginatorAnswer::Immediate, ..Policy::default() };
    let mut s = Scene::new(policy.clone());
    s.arrives();
    s.resolves(&["bob", "carol"]);
    s.originator(OriginatorEvent::Acked);
    s.starts();
    assert_eq!(s.refuses(1, 486), "*failed 1 Sip 486, release 1");
    assert_eq!(s.refuses(2, 603), "*failed 2 Sip 603, release 2, report 403");
    assert_eq!(s.bytes(OriginatorMedia::Settled), "bye, release, *ended 0+2, forget");

    let mut s = Scene::new(policy);
    s.arrives();
    s.resolves(&["bob"]);
    assert_eq!(
        s.refuses(1, 486),
        "*failed 1 Sip 486, release 1",
        "no SEND to report on, no ACK yet"
    );
    assert_eq!(s.originator(OriginatorEvent::Acked), "bye, release, *ended 0+1, forget");
}

// ---- arriving -----------------------------------------------------------------------------------------------------

/// Proves IM-031, UL-010, UL-013, MS-087.
#[test]
fn the_sender_and_those_named_twice_are_not_invited() {
    let mut s = Scene::new(Policy::default());
    let mut arrival = s.arrival("alice");
    arrival.identities.push(party("alice-at-work"));
    s.does(Input::Arrived(arrival));
    assert_eq!(
        s.resolves(&["alice", "bob", "alice-at-work", "bob"]),
        "*removed Originator, *removed Originator, *removed Duplicate, invite 1, *invited 1, 183"
    );

    let mut s = Scene::new(Policy::default());
    s.arrives();
    assert_eq!(
        s.resolves(&["alice"]),
        "*removed Originator, refuse 403, *refused 403, release, forget"
    );
}

/// Proves IM-035.
#[test]
fn each_removal_is_told() {
    let mut s = Scene::new(Policy::default());
    s.arrives();
    let mut who = audience(&["bob"]);
    who.removed = vec![(party("mallory"), Removal::Barred), (party("x"), Removal::Unroutable)];
    let words = s.does(Input::Resolved { page: s.page, result: Ok(who) });
    assert_eq!(words, "*removed Barred, *removed Unroutable, invite 1, *invited 1, 183");
}

/// All or nothing, as IM-032 asks for the limits that are set.
#[test]
fn more_than_can_be_numbered_are_refused_as_one() {
    for (count, words) in
        [(65_535, "invite 1"), (65_536, "refuse 486, *refused 486, release, forget")]
    {
        let mut s = Scene::new(Policy::default());
        s.arrives();
        let names: Vec<_> = (0..count).map(|n| n.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let told = s.resolves(&names);
        assert!(told.starts_with(words), "{count}: {}", &told[..told.len().min(100)]);
    }
}

#[test]
fn what_the_resolver_refuses_is_refused() {
    let mut s = Scene::new(Policy::default());
    s.arrives();
    let result = Err(Refusal::new(404, "IM-033"));
    assert_eq!(
        s.does(Input::Resolved { page: s.page, result }),
        "refuse 404, *refused 404, release, forget"
    );
    assert_eq!(s.resolves(&["bob"]), "", "a second result finds nothing");
}

/// Proves IM-033.
#[test]
fn a_resolver_that_never_answers_is_480_with_retry_after() {
    let mut s = Scene::new(Policy::default());
    s.arrives();
    assert_eq!(
        s.after(seconds(60)),
        "0.500s 183\n30.000s refuse 480, *refused 480, release, forget"
    );
}

/// Proves IM-036.
#[test]
fn one_users_burst_is_cut_at_its_limits() {
    let policy = Policy { max_parallel_per_user: 3, max_rate_per_user: 2, ..Policy::default() };
    let mut engine = Engine::new(policy);
    let mut out = Vec::new();
    let mut arrive = |engine: &mut Engine, at, n, who: &str| {
        out.clear();
        let mut arrival = Scene::new(Policy::default()).arrival(who);
        arrival.page = PageId::new(0, n);
        engine.handle(start() + at, Input::Arrived(arrival), &mut out);
        words(&out)
    };
    let taken = "*arrived, resolve";
    let busy = "*arrived, refuse 486, *refused 486, release, forget";
    assert_eq!(arrive(&mut engine, millis(0), 1, "alice"), taken);
    assert_eq!(arrive(&mut engine, millis(0), 2, "alice"), taken);
    assert_eq!(arrive(&mut engine, millis(10), 3, "alice"), busy, "two a second");
    assert_eq!(arrive(&mut engine, millis(10), 4, "bob"), taken, "others are unaffected");
    assert_eq!(arrive(&mut engine, millis(1000), 5, "alice"), taken);
    assert_eq!(arrive(&mut engine, seconds(5), 6, "alice"), busy, "three at a time");
    assert_eq!(engine.pages(), 4, "earlier ones stay");
}

/// Proves IM-036: the limits are the user's, however many threads take its pages.
#[test]
fn engines_share_the_limits_of_users() {
    let policy = Policy { max_parallel_per_user: 2, ..Policy::default() };
    let users = SharedUsers::default();
    let mut engines =
        [0, 1].map(|_| Engine::sharing(policy.clone(), users.clone(), SharedLanes::default()));
    let mut out = Vec::new();
    let mut arrive = |engine: &mut Engine, n, who: &str| {
        out.clear();
        let mut arrival = Scene::new(Policy::default()).arrival(who);
        arrival.page = PageId::new(0, n);
        engine.handle(start(), Input::Arrived(arrival), &mut out);
        words(&out)
    };
    let taken = "*arrived, resolve";
    let busy = "*arrived, refuse 486, *refused 486, release, forget";
    assert_eq!(arrive(&mut engines[0], 1, "alice"), taken);
    assert_eq!(arrive(&mut engines[1], 2, "alice"), taken);
    assert_eq!(arrive(&mut engines[0], 3, "alice"), busy);
    assert_eq!(arrive(&mut engines[1], 4, "alice"), busy);
    assert_eq!(arrive(&mut engines[1], 5, "bob"), taken);
}

/// Proves IM-036.
#[test]
fn overload_and_drain_are_503_with_retry_after_before_any_work() {
    let mut s = Scene::new(Policy { max_pages: 1, ..Policy::default() });
    assert!(s.engine.admits().is_ok());
    s.arrives();
    assert!(s.engine.admits().is_err());
    let first = std::mem::replace(&mut s.page, PageId::new(0, 2));
    let mut out = Vec::new();
    let arrival = s.arrival("bob");
    s.engine.handle(s.now, Input::Arrived(arrival), &mut out);
    assert_eq!(words(&out), "*arrived, refuse 503, *refused 503, release, forget");
    let Some(Effect::Refuse { refusal, .. }) = out.get(1) else { panic!("{out:?}") };
    assert!(refusal.retry_after.is_some());

    s.page = first;
    s.engine.drain();
    assert!(!s.engine.is_idle());
    assert_eq!(s.originator(OriginatorEvent::Cancelled), "*refused 487, release, forget");
    assert!(s.engine.is_idle());
    assert_eq!(s.arrives(), "*arrived, refuse 503, *refused 503, release, forget");
}

#[test]
fn a_second_arrival_under_a_living_id_is_passed_over() {
    let mut s = Scene::new(Policy::default());
    s.arrives();
    assert_eq!(s.arrives(), "");
    assert_eq!(s.engine.pages(), 1);
}

#[test]
fn a_new_policy_is_for_new_pages() {
    let mut s = Scene::new(Policy::default());
    s.arrives();
    s.engine.set_policy(Policy { max_pages: 1, ..Policy::default() });
    assert!(s.engine.admits().is_err());
    assert_eq!(s.after(millis(500)), "0.500s 183", "the old one's progress_after");
}

// ---- provisional responses ----------------------------------------------------------------------------------------

/// Proves IM-020.
#[test]
fn a_183_comes_soon_and_is_repeated_while_waiting() {
    let long = Policy { leg_timeout: seconds(400), ..Policy::default() };
    let mut s = Scene::new(long.clone());
    s.arrives();
    assert_eq!(s.after(millis(1500)), "0.500s 183", "even while the recipients are looked up");
    assert_eq!(s.resolves(&["bob"]), "invite 1, *invited 1", "and then not again");
    assert_eq!(s.after(seconds(310)), "150.500s 183\n300.500s 183");

    let mut s = Scene::new(long);
    let mut arrival: Arrival = s.arrival("alice");
    arrival.reliable = false;
    s.does(Input::Arrived(arrival));
    assert_eq!(s.resolves(&["bob"]), "invite 1, *invited 1, 183");
    assert_eq!(s.after(seconds(130)), "60.000s 183\n120.000s 183");
    s.accepts(1);
    assert_eq!(s.after(seconds(130)), "", "answered: nothing is repeated");
}

/// Proves IM-054.
#[test]
fn recipients_183_and_180_become_at_most_one_each() {
    let mut s = Scene::inviting(Policy::default(), &["a", "b", "c", "d", "e"]);
    for n in 1..=5 {
        assert_eq!(s.early(n, false), format!("*early {n}"), "our own 183 has gone");
    }
    assert_eq!(s.early(2, true), "180, *early 2");
    assert_eq!(s.early(3, true), "*early 3");
}

// ---- refusals -----------------------------------------------------------------------------------------------------

/// Proves IM-057, UL-036.
#[test]
fn the_originator_hears_one_refusal_that_fits_all() {
    use FailMap::{Plain, Safe};
    let cases: &[(FailMap, &[u16], u16, &str)] = &[
        (Safe, &[486, 486], 486, "all equal"),
        (Safe, &[486, 404], 480, "they differ"),
        (Safe, &[404], 404, "sole"),
        (Safe, &[603], 603, "6xx kept"),
        (Safe, &[603, 603], 603, "6xx kept, all equal"),
        (Safe, &[603, 486], 480, "a 603 is not global"),
        (Safe, &[606], 606, "606 only from a sole recipient"),
        (Safe, &[606, 606], 480, "606 only from a sole recipient"),
        (Safe, &[401], 403, "401"),
        (Safe, &[407], 403, "407"),
        (Safe, &[401, 403], 403, "equal after mapping"),
        (Safe, &[300], 480, "3xx"),
        (Safe, &[302], 480, "3xx"),
        (Safe, &[399], 480, "3xx"),
        (Safe, &[408], 480, "408"),
        (Safe, &[500], 480, "5xx"),
        (Safe, &[503, 408, 302], 480, "all 480 after mapping"),
        (Safe, &[599], 480, "5xx"),
        (Safe, &[600], 600, "6xx kept"),
        (Safe, &[415], 488, "415"),
        (Safe, &[420], 488, "420"),
        (Safe, &[421], 488, "421"),
        (Safe, &[422], 488, "422"),
        (Safe, &[423], 423, "other 4xx kept"),
        (Safe, &[419], 419, "other 4xx kept"),
        (Safe, &[400], 400, "other 4xx kept"),
        (Plain, &[408], 408, "as it is"),
        (Plain, &[503], 503, "as it is"),
        (Plain, &[401], 401, "as it is"),
        (Plain, &[503, 503], 503, "all equal"),
        (Plain, &[503, 486], 480, "they differ"),
        (Plain, &[606, 606], 480, "606 only from a sole recipient"),
    ];
    for (map, statuses, answer, why) in cases {
        let names = &["a", "b", "c"][..statuses.len()];
        let mut s = Scene::inviting(Policy { fail_map: *map, ..Policy::default() }, names);
        let mut last = String::new();
        for (n, status) in (1..).zip(*statuses) {
            assert!(!last.contains("refuse"), "{statuses:?}: refused before the last");
            last = s.refuses(n, *status);
        }
        let n = statuses.len();
        let expected = format!(
            "*failed {n} Sip {}, release {n}, refuse {answer}, *refused {answer}, release, forget",
            statuses[n - 1]
        );
        assert_eq!(last, expected, "{map:?} {statuses:?}: {why}");
    }
}

/// Proves IM-057, IM-060, IM-067.
#[test]
fn timeouts_and_dead_ends_are_480_and_unusable_answers_488() {
    let cases = [
        (LegEvent::Unreachable { timeout: true }, "*failed 1 Timer 408, release 1", 480),
        (LegEvent::Unreachable { timeout: false }, "*failed 1 Sip 503, release 1", 480),
        (
            LegEvent::Unusable { text: "port 0".into() },
            "*failed 1 Sip 488, bye 1(Sip 488), release 1",
            488,
        ),
    ];
    for (event, leg, answer) in cases {
        let mut s = Scene::inviting(Policy::default(), &["bob"]);
        let rest = format!("refuse {answer}, *refused {answer}, release, forget");
        assert_eq!(s.leg(1, event), format!("{leg}, {rest}"));
        assert_eq!(s.engine.timers(), 0);
    }
}

/// Proves IM-061, IM-067.
#[test]
fn no_answer_in_time_is_cancelled_and_a_late_one_ended() {
    let mut s = Scene::inviting(Policy::default(), &["bob", "carol"]);
    s.accepts(2);
    s.originator(OriginatorEvent::Acked);
    s.after(seconds(60));
    s.early(1, true);
    assert_eq!(
        s.after(seconds(60)),
        "120.000s *failed 1 Timer 408, cancel 1",
        "a provisional response buys no time"
    );
    assert_eq!(s.accepts(1), "bye 1(Timer 408), release 1", "the result stands");

    let mut s = Scene::inviting(Policy::default(), &["bob"]);
    s.after(seconds(119));
    assert_eq!(
        s.after(seconds(1)),
        "120.000s *failed 1 Timer 408, cancel 1, refuse 480, *refused 480, release"
    );
    assert_eq!(s.refuses(1, 487), "release 1, forget");
}

/// Proves IM-067.
#[test]
fn a_cancelled_invite_that_never_ends_is_released_all_the_same() {
    let mut s = Scene::inviting(Policy::default(), &["bob"]);
    let told = s.after(seconds(3600));
    assert!(told.ends_with("184.000s release 1, forget"), "{told}");
}

/// Proves IM-067.
#[test]
fn a_thousand_failed_fan_outs_leave_nothing() {
    let mut engine = Engine::new(Policy { max_rate_per_user: 5000, ..Policy::default() });
    let mut out = Vec::new();
    for n in 0..1000 {
        let mut arrival = Scene::new(Policy::default()).arrival("alice");
        arrival.page = PageId::new(0, n);
        let page = arrival.page;
        engine.handle(start(), Input::Arrived(arrival), &mut out);
        let result = Ok(audience(&["bob", "carol"]));
        engine.handle(start(), Input::Resolved { page, result }, &mut out);
        for n in 1..=2 {
            let event = LegEvent::Refused { status: 486, text: String::new(), retry_after: None };
            let leg = super::ids::LegId { page, n };
            engine.handle(start(), Input::Leg { leg, event }, &mut out);
        }
    }
    assert!(engine.is_idle());
    assert_eq!((engine.timers(), engine.next_wake()), (0, None));
    let count = |kind: &dyn Fn(&Effect) -> bool| out.iter().filter(|e| kind(e)).count();
    assert_eq!(count(&|e| matches!(e, Effect::Invite { .. })), 2000);
    assert_eq!(count(&|e| matches!(e, Effect::ReleaseLeg { .. })), 2000);
    assert_eq!(count(&|e| matches!(e, Effect::ReleaseOriginator { .. })), 1000);
    assert_eq!(count(&|e| matches!(e, Effect::Forget { .. })), 1000);
}

// ---- the originator goes ------------------------------------------------------------------------------------------

/// Proves IM-063.
#[test]
fn cancel_cancels_the_pending_and_ends_who_answers_across_it() {
    let mut s = Scene::inviting(Policy::default(), &["bob", "carol", "dan"]);
    s.early(2, false);
    s.refuses(3, 486);
    assert_eq!(
        s.originator(OriginatorEvent::Cancelled),
        "*failed 1 Sip 487, cancel 1, *failed 2 Sip 487, cancel 2, *refused 487, release"
    );
    assert_eq!(s.refuses(1, 487), "release 1");
    assert_eq!(s.accepts(2), "bye 2(Sip 487), release 2, forget");

    let mut s = Scene::running(Policy::default(), &["bob"]);
    assert_eq!(s.originator(OriginatorEvent::Cancelled), "", "after our 200 it does nothing");
}

#[test]
fn a_bye_before_the_answer_is_a_cancel() {
    let mut s = Scene::inviting(Policy::default(), &["bob"]);
    assert_eq!(
        s.originator(OriginatorEvent::Bye),
        "*failed 1 Sip 487, cancel 1, refuse 487, *refused 487, release"
    );
    assert_eq!(s.refuses(1, 487), "release 1, forget");
}

/// Proves IM-053.
#[test]
fn a_missing_prack_releases_all_legs() {
    let mut s = Scene::inviting(Policy::default(), &["bob", "carol"]);
    assert_eq!(
        s.originator(OriginatorEvent::PrackMissing),
        "*failed 1 Sip 500, cancel 1, *failed 2 Sip 500, cancel 2, *refused 500, release"
    );

    // The 200 was decided, and held back for the PRACK.
    let mut s = Scene::inviting(Policy::default(), &["bob", "carol"]);
    s.accepts(1);
    assert_eq!(
        s.originator(OriginatorEvent::PrackMissing),
        "*lost Timer 408, *failed 1 Timer 408, abort 1, *failed 2 Timer 408, cancel 2, release"
    );
}

/// Proves IM-066.
#[test]
fn a_missing_ack_ends_the_session_and_every_leg() {
    let mut s = Scene::inviting(Policy::default(), &["bob", "carol"]);
    s.accepts(1);
    assert_eq!(
        s.originator(OriginatorEvent::AckMissing),
        "*lost Timer 408, *failed 1 Timer 408, abort 1, *failed 2 Timer 408, cancel 2, \
         bye(Timer 408), release"
    );
    s.refuses(2, 487);
    s.media(1, LegMedia::Quiet);
    assert_eq!(s.after(seconds(60)), "5.000s bye 1(Timer 408), release 1, *ended 0+2, forget");
}

/// Proves IM-066.
#[test]
fn session_timers_end_the_session_they_belong_to() {
    let mut s = Scene::running(Policy::default(), &["bob", "carol"]);
    assert_eq!(
        s.leg(1, LegEvent::Expired),
        "*failed 1 Timer 408, bye 1(Timer 408), release 1",
        "that leg only"
    );
    assert_eq!(
        s.originator(OriginatorEvent::Expired),
        "*lost Timer 408, *failed 2 Timer 408, abort 2, bye(Timer 408), release"
    );

    let mut s = Scene::running(Policy::default(), &["bob"]);
    s.completes();
    assert_eq!(
        s.originator(OriginatorEvent::Expired),
        "bye(Timer 408), release",
        "a whole page goes on"
    );
    assert_eq!(s.delivers(1), "*delivered 1");
}

/// Proves IM-064, MS-109.
#[test]
fn bye_after_the_last_octet_stops_nobody() {
    let mut s = Scene::inviting(Policy::default(), &["bob", "carol"]);
    s.accepts(1);
    s.originator(OriginatorEvent::Acked);
    s.starts();
    s.completes();
    assert_eq!(s.originator(OriginatorEvent::Bye), "release");
    assert_eq!(s.accepts(2), "join 2, *joined 2", "who was pending still gets it");
    s.delivers(1);
    s.delivers(2);
    s.media(1, LegMedia::Quiet);
    s.media(2, LegMedia::Quiet);
    let told = s.after(seconds(5));
    assert_eq!(told, "5.000s bye 1, release 1, bye 2, release 2, *ended 2+0, forget");
}

/// Proves IM-064, MS-090.
#[test]
fn bye_in_mid_page_takes_it_back() {
    let mut s = Scene::inviting(Policy::default(), &["bob", "carol"]);
    s.accepts(1);
    s.originator(OriginatorEvent::Acked);
    s.starts();
    assert_eq!(s.originator(OriginatorEvent::Bye), "");
    assert_eq!(
        s.after(seconds(1)),
        "0.500s *lost Sip 0, *failed 1 Sip 0, abort 1, *failed 2 Sip 0, cancel 2, release"
    );
}

/// Proves IM-064.
#[test]
fn bye_that_overtook_the_last_octets_takes_nothing_back() {
    let mut s = Scene::running(Policy::default(), &["bob"]);
    assert_eq!(s.originator(OriginatorEvent::Bye), "");
    s.after(millis(400));
    assert_eq!(s.completes(), "*complete, release");
    assert_eq!(s.after(seconds(20)), "");
    assert_eq!(s.delivers(1), "*delivered 1");
}

/// Proves IM-064, MS-109.
#[test]
fn the_server_says_bye_only_long_after_everything_is_told() {
    let mut s = Scene::running(Policy::default(), &["bob"]);
    s.completes();
    s.after(seconds(10));
    s.bytes(OriginatorMedia::Settled);
    assert_eq!(s.after(millis(29_999)), "");
    assert_eq!(s.after(millis(1)), "40.000s bye, release");

    let mut s = Scene::running(Policy::default(), &["bob"]);
    s.completes();
    assert_eq!(s.after(millis(59_999)), "", "unwritten responses are waited for");
    assert_eq!(s.after(millis(1)), "60.000s bye, release");
}

/// RFC 3261 §15: no BYE of ours before the ACK.
#[test]
fn our_bye_waits_for_the_ack() {
    let mut s = Scene::inviting(Policy::default(), &["bob"]);
    s.accepts(1);
    assert_eq!(s.leg(1, LegEvent::Bye), "*failed 1 Sip 0, release 1");
    assert_eq!(s.after(seconds(31)), "");
    assert_eq!(s.originator(OriginatorEvent::Acked), "bye, release, *ended 0+1, forget");

    let mut s = Scene::inviting(Policy::default(), &["bob"]);
    s.accepts(1);
    s.leg(1, LegEvent::Bye);
    assert_eq!(s.after(seconds(33)), "32.000s bye, release, *ended 0+1, forget");
}

#[test]
fn a_session_without_a_page_is_ended() {
    let mut s = Scene::inviting(Policy::default(), &["bob"]);
    s.accepts(1);
    s.originator(OriginatorEvent::Acked);
    assert_eq!(
        s.after(seconds(600)),
        "600.000s *lost Timer 408, *failed 1 Timer 408, abort 1, bye(Timer 408), release"
    );
}

// ---- the page is lost ---------------------------------------------------------------------------------------------

/// Proves IM-073, IM-074, MS-090.
#[test]
fn what_will_never_be_whole_is_aborted_everywhere() {
    let cases = [
        (PageLoss::Sender, "Msrp 0", false),
        (PageLoss::Connection, "Msrp 0", true),
        (PageLoss::Gap, "Timer 408", true),
        (PageLoss::Bind, "Timer 408", true),
        (PageLoss::TooBig, "Sip 413", false),
        (PageLoss::Refused(415), "Msrp 415", false),
        (PageLoss::Storage, "Store 0", false),
    ];
    for (loss, cause, at_once) in cases {
        let mut s = Scene::inviting(Policy::default(), &["bob", "carol", "dan"]);
        s.accepts(1);
        s.originator(OriginatorEvent::Acked);
        s.refuses(3, 486);
        s.starts();
        let legs =
            format!("*lost {cause}, *failed 1 {cause}, abort 1, *failed 2 {cause}, cancel 2");
        let bye = format!("bye({cause}), release");
        if at_once {
            assert_eq!(s.bytes(OriginatorMedia::Aborted(loss)), format!("{legs}, {bye}"));
        } else {
            assert_eq!(s.bytes(OriginatorMedia::Aborted(loss)), legs, "{loss:?}");
            assert_eq!(s.bytes(OriginatorMedia::Settled), bye, "once the response is written");
        }
        s.refuses(2, 487);
        s.media(1, LegMedia::Quiet);
        assert_eq!(
            s.after(seconds(60)),
            format!("5.000s bye 1({cause}), release 1, *ended 0+3, forget")
        );
    }
}

/// Proves IM-074.
#[test]
fn the_413_need_not_be_written_for_ever() {
    let mut s = Scene::running(Policy::default(), &["bob"]);
    s.bytes(OriginatorMedia::Aborted(PageLoss::TooBig));
    s.media(1, LegMedia::Quiet);
    assert_eq!(
        s.after(seconds(5)),
        "5.000s bye(Sip 413), release, bye 1(Sip 413), release 1, *ended 0+1, forget"
    );
}

#[test]
fn a_whole_page_cannot_be_lost() {
    let mut s = Scene::running(Policy::default(), &["bob"]);
    s.completes();
    assert_eq!(s.bytes(OriginatorMedia::Aborted(PageLoss::Connection)), "");
    assert_eq!(s.delivers(1), "*delivered 1");
}

#[test]
fn bytes_lost_before_the_answer_refuse_the_page() {
    let mut s = Scene::inviting(Policy::default(), &["bob"]);
    assert_eq!(
        s.bytes(OriginatorMedia::Aborted(PageLoss::Bind)),
        "*failed 1 Timer 408, cancel 1, refuse 480, *refused 480, release"
    );
}

/// Proves MS-110, IM-071, IM-077.
#[test]
fn the_deadline_counts_from_the_first_octet_and_ends_everything() {
    let policy = Policy { leg_timeout: seconds(4000), ..Policy::default() };
    let mut s = Scene::inviting(policy, &["bob", "carol", "dan", "eve"]);
    for n in [1, 2, 3] {
        s.accepts(n);
    }
    s.originator(OriginatorEvent::Acked);
    s.after(seconds(100));
    s.starts();
    s.completes();
    s.originator(OriginatorEvent::Bye);
    s.media(1, LegMedia::Sending);
    s.delivers(2);
    s.media(2, LegMedia::Quiet);
    s.after(seconds(599));
    assert_eq!(
        s.after(seconds(1)),
        "700.000s *failed 1 Timer 408, abort 1, *failed 3 Timer 408, abort 3, \
         *failed 4 Timer 408, cancel 4"
    );
    assert_eq!(
        s.after(seconds(100)),
        "705.000s bye 1(Timer 408), release 1, bye 3(Timer 408), release 3\n\
         764.000s release 4, *ended 1+3, forget",
        "outstanding responses buy no time now"
    );
}

/// Proves MS-110, MS-089.
#[test]
fn the_deadline_ends_the_originators_session_too() {
    let mut s = Scene::running(Policy::default(), &["bob"]);
    assert_eq!(
        s.after(seconds(600)),
        "600.000s *lost Timer 408, *failed 1 Timer 408, abort 1, report 408"
    );
    assert_eq!(s.bytes(OriginatorMedia::Settled), "bye(Timer 408), release");
    assert_eq!(s.after(seconds(5)), "605.000s bye 1(Timer 408), release 1, *ended 0+1, forget");
}

// ---- the recipients' media ----------------------------------------------------------------------------------------

/// Proves IM-065, MS-108.
#[test]
fn a_recipient_that_leaves_is_gone_alone() {
    let mut s = Scene::running(Policy::default(), &["bob", "carol"]);
    assert_eq!(s.leg(1, LegEvent::Bye), "*failed 1 Sip 0, release 1");
    assert_eq!(s.completes(), "*complete");
    assert_eq!(s.delivers(2), "*delivered 2");
    assert_eq!(s.leg(2, LegEvent::Bye), "release 2", "its own BYE spares ours");
    assert_eq!(s.originator(OriginatorEvent::Bye), "release, *ended 1+1, forget");
}

/// Proves IM-065, MS-089.
#[test]
fn nobody_left_while_the_page_is_incomplete_ends_the_originator() {
    let mut s = Scene::running(Policy::default(), &["bob", "carol"]);
    s.leg(1, LegEvent::Bye);
    assert_eq!(s.leg(2, LegEvent::Bye), "*failed 2 Sip 0, release 2, report 408");
    assert_eq!(s.after(seconds(9)), "5.000s bye, release, *ended 0+2, forget");
}

/// Proves IM-065.
#[test]
fn a_recipients_bye_may_overtake_its_last_acknowledgement() {
    let mut s = Scene::running(Policy::default(), &["bob", "carol"]);
    s.completes();
    assert_eq!(s.leg(1, LegEvent::Bye), "");
    assert_eq!(s.delivers(1), "*delivered 1, release 1");
    assert_eq!(s.leg(2, LegEvent::Bye), "");
    assert_eq!(s.after(seconds(1)), "0.500s *failed 2 Sip 0, release 2");
}

/// Proves IM-019, IM-077, MS-091.
#[test]
fn one_legs_media_failure_is_its_own() {
    let cases = [
        (MediaFailure::Status(413), "Msrp 413", 35),
        (MediaFailure::Connection, "Msrp 0", 5),
        (MediaFailure::Bind, "Timer 408", 5),
        (MediaFailure::Stall, "Timer 408", 35),
        (MediaFailure::Timeout, "Msrp 408", 5),
        (MediaFailure::TooBig, "Msrp 413", 35),
        (MediaFailure::Type, "Msrp 415", 5),
    ];
    for (cause, words, at) in cases {
        let mut s = Scene::running(Policy::default(), &["bob", "carol"]);
        s.completes();
        s.media(1, LegMedia::Sending);
        assert_eq!(s.media(1, LegMedia::Failed { cause }), format!("*failed 1 {words}"));
        assert_eq!(s.after(seconds(40)), format!("{at}.000s bye 1({words}), release 1"));
        assert_eq!(s.delivers(2), "*delivered 2");
    }
}

#[test]
fn how_far_a_failed_leg_came_is_told() {
    let mut s = Scene::running(Policy::default(), &["bob"]);
    for octets in [10, 70, 40] {
        assert_eq!(s.media(1, LegMedia::Progress { octets }), "");
    }
    let mut out = Vec::new();
    let leg = super::ids::LegId { page: s.page, n: 1 };
    let event = LegMedia::Failed { cause: MediaFailure::Stall };
    s.engine.handle(s.now, Input::LegMedia { leg, event }, &mut out);
    assert!(matches!(out[0], Effect::Event(Event::Failed { octets: 70, .. })), "{out:?}");
}

// ---- reports ------------------------------------------------------------------------------------------------------

/// Proves MS-089.
#[test]
fn only_a_page_nobody_got_is_reported_as_failed() {
    let mut s = Scene::running(Policy::default(), &["bob", "carol", "dan"]);
    s.completes();
    s.bytes(OriginatorMedia::Settled);
    let failed = |code| LegMedia::Failed { cause: MediaFailure::Status(code) };
    assert_eq!(s.media(1, failed(413)), "*failed 1 Msrp 413");
    assert_eq!(s.media(2, failed(413)), "*failed 2 Msrp 413");
    assert_eq!(s.delivers(3), "*delivered 3", "one of three got it: no report");

    let mut s = Scene::running(Policy::default(), &["bob", "carol"]);
    s.completes();
    s.bytes(OriginatorMedia::Settled);
    s.media(1, failed(413));
    s.after(seconds(20));
    assert_eq!(s.media(2, failed(413)), "*failed 2 Msrp 413, report 413");
    let told = s.after(seconds(30));
    assert!(told.ends_with("50.000s bye, release"), "counted from the report: {told}");
}

/// Proves MS-089, MS-074.
#[test]
fn no_report_to_an_originator_that_has_left() {
    let mut s = Scene::running(Policy::default(), &["bob"]);
    s.completes();
    s.originator(OriginatorEvent::Bye);
    let failed = LegMedia::Failed { cause: MediaFailure::Connection };
    assert_eq!(s.media(1, failed), "*failed 1 Msrp 0");
}

/// Proves MS-089, MS-109.
#[test]
fn first_delivery_reports_with_the_first_who_has_it() {
    let policy = Policy { sr_policy: SrPolicy::FirstDelivery, ..Policy::default() };
    let mut s = Scene::running(policy.clone(), &["bob", "carol"]);
    s.completes();
    s.bytes(OriginatorMedia::Settled);
    assert_eq!(s.after(seconds(100)), "", "no BYE from us before the report");
    assert_eq!(s.delivers(1), "*delivered 1, report 200");
    assert_eq!(s.delivers(2), "*delivered 2");
    let told = s.after(seconds(30));
    assert!(told.contains("130.000s bye, release"), "{told}");

    let mut s = Scene::running(policy, &["bob"]);
    s.completes();
    s.originator(OriginatorEvent::Bye);
    assert_eq!(s.delivers(1), "*delivered 1", "the originator has left");
}

// ---- pacing and breadth -------------------------------------------------------------------------------------------

/// Proves UL-033.
#[test]
fn legs_leave_at_the_rate_set() {
    let mut s = Scene::new(Policy { send_rate: 4, ..Policy::default() });
    s.arrives();
    assert_eq!(s.resolves(&["a", "b", "c", "d"]), "invite 1, *invited 1, 183");
    assert_eq!(s.refuses(1, 486), "*failed 1 Sip 486, release 1", "no turn is won by failing");
    assert_eq!(
        s.after(seconds(1)),
        "0.250s invite 2, *invited 2\n0.500s invite 3, *invited 3\n0.750s invite 4, *invited 4"
    );
}

/// Proves UL-034.
#[test]
fn so_many_invites_are_open_at_a_time() {
    let mut s = Scene::new(Policy { max_entries: 2, ..Policy::default() });
    s.arrives();
    assert_eq!(
        s.resolves(&["a", "b", "c", "d"]),
        "invite 1, *invited 1, invite 2, *invited 2, 183"
    );
    assert_eq!(s.refuses(2, 486), "*failed 2 Sip 486, release 2, invite 3, *invited 3");
    assert_eq!(s.accepts(1), "200, *answered, join 1, *joined 1, invite 4, *invited 4");
}

/// Proves UL-033, IM-063, IM-067.
#[test]
fn who_had_no_turn_yet_fails_without_a_request() {
    let mut s = Scene::new(Policy { send_rate: 1, ..Policy::default() });
    s.arrives();
    s.resolves(&["a", "b"]);
    assert_eq!(
        s.originator(OriginatorEvent::Cancelled),
        "*failed 1 Sip 487, cancel 1, *failed 2 Sip 487, *refused 487, release"
    );
    assert_eq!(s.after(seconds(10)), "");
    assert_eq!(s.refuses(1, 487), "release 1, forget");
}

/// Proves UL-033, UL-034.
#[test]
fn rate_and_breadth_hold_together() {
    let mut s = Scene::new(Policy { send_rate: 2, max_entries: 2, ..Policy::default() });
    s.arrives();
    s.resolves(&["a", "b", "c", "d"]);
    assert_eq!(s.after(seconds(5)), "0.500s invite 2, *invited 2");
    assert_eq!(s.refuses(1, 486), "*failed 1 Sip 486, release 1, invite 3, *invited 3");
    assert_eq!(s.refuses(2, 486), "*failed 2 Sip 486, release 2");
    assert_eq!(s.after(seconds(5)), "5.500s invite 4, *invited 4");
}

// ---- the operator -------------------------------------------------------------------------------------------------

#[test]
fn the_operator_ends_a_page_in_any_state() {
    let end = |s: &mut Scene| s.does(Input::End { page: s.page });
    let mut s = Scene::new(Policy::default());
    s.arrives();
    assert_eq!(end(&mut s), "refuse 480, *refused 480, release, forget");

    let mut s = Scene::inviting(Policy::default(), &["bob"]);
    assert_eq!(end(&mut s), "*failed 1 Policy 0, cancel 1, refuse 480, *refused 480, release");

    let mut s = Scene::running(Policy::default(), &["bob"]);
    assert_eq!(end(&mut s), "*lost Policy 0, *failed 1 Policy 0, abort 1");
    assert_eq!(
        s.after(seconds(5)),
        "5.000s bye(Policy 0), release, bye 1(Policy 0), release 1, *ended 0+1, forget"
    );

    let mut s = Scene::running(Policy::default(), &["bob"]);
    s.completes();
    s.originator(OriginatorEvent::Bye);
    assert_eq!(end(&mut s), "*failed 1 Policy 0, abort 1");
}

#[test]
fn a_running_page_has_timers() {
    let s = Scene::inviting(Policy::default(), &["bob"]);
    assert_eq!(s.engine.timers(), 2, "the next 183, and bob's answer");
    assert_eq!(s.engine.next_wake(), Some(start() + seconds(120)));
}

#[test]
fn nothing_is_known_of_strangers() {
    let mut s = Scene::inviting(Policy::default(), &["bob"]);
    assert_eq!(s.accepts(0), "");
    assert_eq!(s.accepts(2), "");
    s.page = PageId::new(1, 77);
    assert_eq!(s.accepts(1), "");
    assert_eq!(s.originator(OriginatorEvent::Bye), "");
}

fn reachable(s: &mut Scene, name: &str) -> String {
    let user = super::testing::party(name).key;
    s.does(Input::Reachable { user })
}

/// Who was not there is invited again when he can be reached, once for each time that is told, while the page runs.
#[test]
fn who_was_not_there_is_invited_again_when_he_can_be_reached() {
    for (fails, again) in [
        (LegEvent::Refused { status: 480, text: String::new(), retry_after: None }, true),
        (LegEvent::Refused { status: 408, text: String::new(), retry_after: None }, true),
        (LegEvent::Unreachable { timeout: true }, true),
        (LegEvent::Unreachable { timeout: false }, false),
        (LegEvent::Refused { status: 404, text: String::new(), retry_after: None }, false),
        (LegEvent::Refused { status: 486, text: String::new(), retry_after: None }, false),
        (LegEvent::Refused { status: 603, text: String::new(), retry_after: None }, false),
    ] {
        let mut s = Scene::inviting(Policy::default(), &["bob", "carol"]);
        s.accepts(1);
        let text = s.leg(2, fails.clone());
        assert!(text.contains("*failed 2"), "{text}");
        assert_eq!(reachable(&mut s, "dan"), "", "somebody else");
        assert_eq!(reachable(&mut s, "bob"), "", "he is there already");
        let invited = if again { "invite 2, *invited 2" } else { "" };
        assert_eq!(reachable(&mut s, "carol"), invited, "{fails:?}");
        assert_eq!(reachable(&mut s, "carol"), "", "once");
        if again {
            assert_eq!(s.refuses(2, 480), "*failed 2 Sip 480, release 2");
            assert_eq!(reachable(&mut s, "carol"), "invite 2, *invited 2", "and once more");
            assert_eq!(s.accepts(2), "join 2, *joined 2");
        }
        s.originator(OriginatorEvent::Acked);
        s.starts();
        s.completes();
        s.delivers(1);
        s.delivers(2);
        s.bytes(OriginatorMedia::Settled);
        s.originator(OriginatorEvent::Bye);
        let text = s.after(seconds(60));
        let ended = if again { "*ended 2+0, forget" } else { "*ended 1+1, forget" };
        assert!(text.ends_with(ended), "{fails:?}: {text}");
        assert_eq!((s.engine.timers(), s.engine.unreached()), (0, 0));
        assert_eq!(reachable(&mut s, "carol"), "", "the page is over");
    }
}

/// Nobody is invited again for a page that is lost or whose sender was told that nobody got it.
#[test]
fn a_page_that_is_lost_invites_nobody_again() {
    let mut s = Scene::inviting(Policy::default(), &["bob", "carol"]);
    s.accepts(1);
    s.refuses(2, 480);
    s.originator(OriginatorEvent::Acked);
    s.starts();
    s.bytes(OriginatorMedia::Aborted(PageLoss::Sender));
    assert_eq!(reachable(&mut s, "carol"), "");

    let mut s = Scene::inviting(Policy::default(), &["bob", "carol"]);
    s.accepts(1);
    s.refuses(2, 480);
    s.originator(OriginatorEvent::Acked);
    s.starts();
    s.completes();
    let text = s.media(1, LegMedia::Failed { cause: MediaFailure::Status(413) });
    assert!(text.contains("report"), "{text}");
    assert_eq!(reachable(&mut s, "carol"), "");
}

/// Turns are kept: whoever is invited again waits like everybody else.
#[test]
fn an_invitation_once_more_waits_for_its_turn() {
    let policy = Policy { max_entries: 1, ..Policy::default() };
    let mut s = Scene::inviting(policy, &["bob", "carol", "dan"]);
    assert_eq!(s.refuses(1, 480), "*failed 1 Sip 480, release 1, invite 2, *invited 2");
    assert_eq!(reachable(&mut s, "bob"), "", "carol is asked");
    assert_eq!(s.refuses(2, 486), "*failed 2 Sip 486, release 2, invite 3, *invited 3");
    assert_eq!(
        s.refuses(3, 486),
        "*failed 3 Sip 486, release 3, invite 1, *invited 1",
        "everybody once, then who can be reached now"
    );
    assert_eq!(
        s.refuses(1, 486),
        "*failed 1 Sip 486, release 1, refuse 486, *refused 486, release, forget"
    );
}
