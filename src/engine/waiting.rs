//! Pages that are kept, and recipients who are waited for: IM-092, IM-097.

use std::time::Duration;

use super::effect::Effect;
use super::ids::LegId;
use super::input::{Input, LegEvent, LegMedia, OriginatorEvent, OriginatorMedia};
use super::policy::{Deferral, Policy, WhenNoneJoined};
use super::record::{Record, Restored};
use super::testing::{Scene, audience, start};

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn kept(s: &mut Scene, kept: bool) -> String {
    s.does(Input::Kept { page: s.page, kept })
}

fn refuses(s: &mut Scene, n: u16, status: u16) -> String {
    s.leg(n, LegEvent::Refused { status, text: String::new(), retry_after: None })
}

fn restored(s: &Scene, names: &[&str], open: &[u16], until: Duration) -> Input {
    let record = Record { arrival: s.arrival("alice"), audience: audience(names), size: 100 };
    let until = start() + until;
    Input::Restored(Box::new(Restored { record, open: open.to_vec(), until }))
}

/// Proves IM-097.
#[test]
fn who_is_not_there_is_waited_for_and_the_others_are_served() {
    let mut s = Scene::deferring(Policy::default());
    s.arrives();
    s.resolves(&["bob", "carol"]);
    assert_eq!(refuses(&mut s, 1, 480), "*deferred 1 Sip 480, release 1");
    assert_eq!(s.accepts(2), "200, *answered, join 2, *joined 2");
    s.originator(OriginatorEvent::Acked);
    s.starts();
    assert_eq!(s.completes(), "*complete, keep");
    assert_eq!(s.bytes(OriginatorMedia::Settled), "", "nothing is said before the page is kept");
    assert_eq!(kept(&mut s, true), "confirm");
    assert_eq!(s.delivers(2), "*delivered 2, settled 2");
    s.media(2, LegMedia::Quiet);
    assert_eq!(s.originator(OriginatorEvent::Bye), "release");
    assert_eq!(s.after(seconds(5)), "5.000s bye 2, release 2, defer 1, *ended 1+0+1, forget");
    assert!(s.engine.is_idle());
    assert_eq!((s.engine.timers(), s.engine.unreached()), (0, 0));
}

/// Proves IM-097: `deferred.causes` says what is waited for; 404, 486 and 603 are final.
#[test]
fn only_the_causes_set_are_waited_for() {
    let deferred = [408, 430, 480, 503, 504];
    for status in [404, 408, 410, 415, 430, 480, 486, 488, 500, 503, 504, 600, 603] {
        let mut s = Scene::deferring(Policy::default());
        s.arrives();
        s.resolves(&["bob", "carol"]);
        let word = if deferred.contains(&status) { "deferred" } else { "failed" };
        assert_eq!(refuses(&mut s, 1, status), format!("*{word} 1 Sip {status}, release 1"));
    }
    let mut s = Scene::deferring(Policy::default());
    s.arrives();
    s.resolves(&["bob", "carol"]);
    let silence = s.leg(1, LegEvent::Unreachable { timeout: true });
    assert_eq!(silence, "*deferred 1 Timer 408, release 1", "no answer at all");
    let unsent = s.leg(2, LegEvent::Unreachable { timeout: false });
    assert!(unsent.starts_with("*deferred 2 Sip 503, release 2"), "{unsent}");
}

/// Proves IM-097: when nobody joined, `deferred.when_none_joined` decides.
#[test]
fn a_page_nobody_joined_is_refused_or_taken() {
    let mut s = Scene::deferring(Policy::default());
    s.arrives();
    s.resolves(&["bob", "carol"]);
    refuses(&mut s, 1, 480);
    assert_eq!(
        refuses(&mut s, 2, 480),
        "*deferred 2 Sip 480, release 2, refuse 480, *failed 1 Sip 480, *failed 2 Sip 480, \
         *refused 480, release, forget",
        "IM-057 decides, and nobody is waited for"
    );

    let when_none_joined = WhenNoneJoined::Accept;
    let deferral = Deferral { when_none_joined, ..Deferral::default() };
    let mut s = Scene::deferring(Policy { deferral, ..Policy::default() });
    s.arrives();
    s.resolves(&["bob", "carol"]);
    refuses(&mut s, 1, 486);
    assert_eq!(refuses(&mut s, 2, 480), "*deferred 2 Sip 480, release 2, 200, *answered");
    s.originator(OriginatorEvent::Acked);
    assert_eq!(s.starts(), "*started", "though nobody is there to send it to");
    assert_eq!(s.completes(), "*complete, keep");
    assert_eq!(kept(&mut s, true), "confirm");
    assert_eq!(
        s.originator(OriginatorEvent::Bye),
        "release, defer 2, *ended 0+1+1, forget",
        "no failure is reported: the page is on its way"
    );
}

/// Proves IM-097: nobody is waited for with a page that never was whole.
#[test]
fn a_page_that_is_lost_waits_for_nobody() {
    let mut s = Scene::deferring(Policy::default());
    s.arrives();
    s.resolves(&["bob", "carol"]);
    refuses(&mut s, 1, 480);
    s.accepts(2);
    s.originator(OriginatorEvent::Acked);
    s.starts();
    s.bytes(OriginatorMedia::Aborted(super::input::PageLoss::Sender));
    let words = s.after(seconds(600));
    assert!(words.ends_with("*failed 1 Sip 480, *ended 0+2, forget"), "{words}");
}

/// What cannot be kept is not acknowledged, and given up.
#[test]
fn a_page_that_cannot_be_kept_is_not_acknowledged() {
    let mut s = Scene::deferring(Policy::default());
    s.arrives();
    s.resolves(&["bob", "carol"]);
    refuses(&mut s, 1, 480);
    s.accepts(2);
    s.originator(OriginatorEvent::Acked);
    s.starts();
    s.media(2, LegMedia::Sending);
    s.completes();
    assert_eq!(
        kept(&mut s, false),
        "confirm, *lost Store 0, *failed 2 Store 0, abort 2, *failed 1 Sip 480"
    );
    let words = s.after(seconds(600));
    assert!(words.ends_with("*ended 0+2, forget"), "{words}");
}

/// A page everybody has had their end of needs no store.
#[test]
fn what_nobody_is_open_for_is_not_kept() {
    let mut s = Scene::deferring(Policy::default());
    s.arrives();
    s.resolves(&["bob", "carol"]);
    refuses(&mut s, 1, 486);
    s.accepts(2);
    s.originator(OriginatorEvent::Acked);
    s.starts();
    s.leg(2, LegEvent::Bye);
    // The sender's last octets cross our BYE.
    assert!(!s.completes().contains("keep"));
}

/// Proves IM-092: delivered once, and not again to who had it.
#[test]
fn a_kept_page_goes_on_with_the_legs_that_are_open() {
    let mut s = Scene::deferring(Policy::default());
    let input = restored(&s, &["bob", "carol", "dan"], &[1, 3], seconds(1000));
    assert_eq!(s.does(input), "*restored, invite 1, *invited 1, invite 3, *invited 3");
    assert_eq!(s.accepts(1), "join 1, *joined 1", "no originator hears of it");
    assert_eq!(s.media(1, LegMedia::Sending), "*sending 1");
    assert_eq!(s.delivers(1), "*delivered 1, settled 1");
    s.media(1, LegMedia::Quiet);
    assert_eq!(refuses(&mut s, 3, 480), "*deferred 3 Sip 480, release 3");
    assert_eq!(s.after(seconds(5)), "5.000s bye 1, release 1, defer 3, *ended 1+0+1, forget");
    assert!(s.engine.is_idle() && s.engine.timers() == 0);
}

/// Proves IM-092: another recipient of the same page may come back while it runs.
#[test]
fn a_running_page_takes_on_more_legs() {
    let mut s = Scene::deferring(Policy::default());
    let input = restored(&s, &["bob", "carol"], &[1], seconds(1000));
    assert_eq!(s.does(input), "*restored, invite 1, *invited 1");
    let input = restored(&s, &["bob", "carol"], &[1], seconds(1000));
    assert_eq!(s.does(input), "", "it is being served already");
    refuses(&mut s, 1, 603);
    let mut s = Scene::deferring(Policy::default());
    let input = restored(&s, &["bob", "carol"], &[1], seconds(1000));
    s.does(input);
    s.accepts(1);
    let leg = LegId { page: s.page, n: 2 };
    let input = restored(&s, &["bob", "carol"], &[2], seconds(1000));
    let mut out = Vec::new();
    s.engine.handle(s.now, input, &mut out);
    let invited = |effect: &Effect| matches!(effect, Effect::Invite { leg: to, .. } if *to == leg);
    assert!(out.iter().any(invited), "{out:?}");
}

/// Proves IM-092: what waited too long has its end.
#[test]
fn who_is_waited_for_too_long_gets_nothing() {
    let mut s = Scene::deferring(Policy::default());
    s.after(seconds(2000));
    let input = restored(&s, &["bob", "carol"], &[2], seconds(1000));
    assert_eq!(s.does(input), "*restored, *expired 2, settled 2, *ended 0+1, forget");
    assert!(s.engine.is_idle() && s.engine.timers() == 0);
}

/// Proves IM-097: `msrp.page_deadline` ends sessions; a leg then unfinished is waited for.
#[test]
fn the_deadline_ends_sessions_and_not_the_page() {
    let mut s = Scene::deferring(Policy::default());
    s.arrives();
    s.resolves(&["bob", "carol"]);
    s.accepts(1);
    s.originator(OriginatorEvent::Acked);
    s.starts();
    s.media(1, LegMedia::Sending);
    s.completes();
    kept(&mut s, true);
    s.originator(OriginatorEvent::Bye);
    let words = s.after(seconds(1000));
    assert!(words.contains("600.000s *deferred 1 Timer 408, abort 1"), "{words}");
    assert!(words.contains("*deferred 2 Timer 408"), "{words}");
    assert!(words.ends_with("defer 1, defer 2, *ended 0+0+2, forget"), "{words}");
}
