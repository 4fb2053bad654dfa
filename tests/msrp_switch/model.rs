//! Random pages, chunkings, orders and recipients against a model that only knows what everybody must end up with.

use pagecast::engine::input::{LegMedia, MediaFailure, OriginatorMedia};
use pagecast::msrp::codec::{Flag, Kind};
use proptest::prelude::*;

use crate::support::{Bench, Peer, leg, octets, settings};

/// What a recipient does, and so what must become of its copy.
#[derive(Debug, Clone, Copy)]
enum Habit {
    Takes,
    /// Joins when the page is whole.
    TakesLate,
    /// Answers that chunk, counted from 0, with a code; all others with 200.
    Refuses {
        at: usize,
        code: u16,
    },
    /// Takes at most that many octets by its SDP.
    Limited {
        max: u64,
    },
}

#[derive(Debug, Clone)]
struct Case {
    page: usize,
    /// Chunk ends in octets, ascending; the last is the page's size.
    cuts: Vec<usize>,
    /// Order of sending the chunks.
    order: Vec<usize>,
    /// Which chunks are sent twice.
    twice: Vec<bool>,
    /// Sizes of the writes.
    writes: Vec<usize>,
    report: bool,
    habits: Vec<Habit>,
}

fn habit() -> impl Strategy<Value = Habit> {
    prop_oneof![
        4 => Just(Habit::Takes),
        2 => Just(Habit::TakesLate),
        1 => (0..3_usize, prop::sample::select(vec![400_u16, 403, 413, 415, 481]))
            .prop_map(|(at, code)| Habit::Refuses { at, code }),
        1 => (0..40_000_u64).prop_map(|max| Habit::Limited { max }),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    (0..30_000_usize)
        .prop_flat_map(|page| {
            let cuts = prop::collection::btree_set(0..=page, 0..8);
            let habits = prop::collection::vec(habit(), 1..5);
            let writes = prop::collection::vec(1..5000_usize, 1..6);
            (Just(page), cuts, any::<bool>(), habits, writes)
        })
        .prop_flat_map(|(page, cuts, report, habits, writes)| {
            let mut cuts: Vec<usize> =
                cuts.into_iter().filter(|cut| *cut > 0 && *cut < page).collect();
            cuts.push(page);
            let order = Just((0..cuts.len()).collect::<Vec<_>>()).prop_shuffle();
            let twice = prop::collection::vec(prop::bool::weighted(0.2), cuts.len());
            (Just((page, cuts, report, habits, writes)), order, twice)
        })
        .prop_map(|((page, cuts, report, habits, writes), order, twice)| Case {
            page,
            cuts,
            order,
            twice,
            writes,
            report,
            habits,
        })
}

/// Plays a recipient to the end of its copy: the octets it got, and the last flag.
async fn recipient(mut peer: Peer, habit: Habit) -> (Vec<u8>, Option<Flag>) {
    let (mut got, mut chunk, mut last) = (Vec::new(), 0, None);
    while last.is_none_or(|flag| flag == Flag::More) {
        let quiet = std::time::Duration::from_secs(200);
        let Ok(Some(message)) = tokio::time::timeout(quiet, peer.next()).await else { break };
        if message.head.kind != Kind::Send || !message.head.has_body {
            continue;
        }
        let start = message.head.range.expect("MS-053").start;
        assert_eq!(start, got.len() as u64 + 1);
        got.extend_from_slice(&message.body);
        last = Some(message.flag);
        let code = match habit {
            Habit::Refuses { at, code } if at == chunk => code,
            _ => 200,
        };
        chunk += 1;
        peer.respond(&message.head, code).await;
        if code != 200 {
            break;
        }
    }
    // The connection stays until the switch has read everything.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    (got, last)
}

async fn run(case: Case) {
    let mut bench = Bench::new(settings());
    let page = octets(case.page);
    let mut originator = bench.open_any();
    let mut playing = Vec::new();
    for (n, habit) in (1..).zip(&case.habits) {
        if matches!(habit, Habit::TakesLate) {
            continue;
        }
        let peer = bench
            .recipient_with(n, |media| {
                if let Habit::Limited { max } = habit {
                    media.max_size = Some(*max);
                }
            })
            .await;
        playing.push((n, *habit, tokio::spawn(recipient(peer, *habit))));
    }
    let mut wire = Vec::new();
    let mut sent = 0;
    for &chunk in &case.order {
        let from = if chunk == 0 { 0 } else { case.cuts[chunk - 1] };
        let to = case.cuts[chunk];
        let flag = if to == case.page { '$' } else { '+' };
        let report = if case.report { "Success-Report: yes\r\n" } else { "" };
        let extra = format!(
            "Message-ID: mess1\r\nByte-Range: {}-*/*\r\n{report}Content-Type: text/plain\r\n",
            from + 1
        );
        for _ in 0..=usize::from(case.twice[chunk]) {
            wire.extend(originator.wire(
                &format!("tr{sent:02}"),
                &extra,
                Some(&page[from..to]),
                flag,
            ));
            sent += 1;
        }
    }
    let (mut rest, mut sizes) = (&wire[..], case.writes.iter().cycle());
    while !rest.is_empty() {
        let size = (*sizes.next().expect("cycle")).min(rest.len());
        originator.raw(&rest[..size]).await;
        tokio::task::yield_now().await;
        rest = &rest[size..];
    }
    // The message repeated when it is whole is reported again (MS-037).
    let last = *case.order.last().expect("one chunk at least");
    let again = case.cuts[last] == case.page && case.twice[last];
    let due = if case.report { 1 + usize::from(again) } else { 0 };
    let (mut answers, mut reports) = (0, 0);
    while answers < sent || reports < due {
        match originator.next().await.expect("an answer").head.kind {
            Kind::Response(200) => answers += 1,
            Kind::Report => reports += 1,
            other => panic!("{other:?}"),
        }
    }
    bench.originator(OriginatorMedia::Complete { size: case.page as u64 }).await;
    for (n, habit) in (1..).zip(&case.habits) {
        if matches!(habit, Habit::TakesLate) {
            let peer = bench.recipient(n).await;
            playing.push((n, *habit, tokio::spawn(recipient(peer, *habit))));
        }
    }
    for (n, habit, task) in playing {
        let (got, last) = task.await.expect("the recipient is content");
        let delivered = LegMedia::Delivered { octets: case.page as u64 };
        let outcome = match habit {
            Habit::Limited { max } if max < case.page as u64 => {
                LegMedia::Failed { cause: MediaFailure::TooBig }
            }
            // A refused last chunk is a refused page; a chunk number that never came changes nothing.
            Habit::Refuses { code, .. }
                if bench.leg_events(n).iter().any(|e| matches!(e, LegMedia::Failed { .. })) =>
            {
                LegMedia::Failed { cause: MediaFailure::Status(code) }
            }
            _ => delivered,
        };
        bench.leg(n, outcome.clone()).await;
        bench.leg(n, LegMedia::Quiet).await;
        assert_eq!(got, page[..got.len()], "what came is the page's beginning");
        if matches!(outcome, LegMedia::Delivered { .. }) {
            assert_eq!((got.len(), last), (case.page, Some(Flag::Last)));
            assert_eq!(bench.switch.progress(leg(n)), case.page as u64);
        }
        let events = bench.leg_events(n);
        let finals = events
            .iter()
            .filter(|e| matches!(e, LegMedia::Delivered { .. } | LegMedia::Failed { .. }));
        assert_eq!(finals.count(), 1, "{events:?}");
        assert_eq!(events.iter().filter(|e| **e == LegMedia::Quiet).count(), 1, "{events:?}");
    }
    // The originator hears about its own page only.
    originator.silence(std::time::Duration::from_secs(1)).await;
    bench.switch.forget(crate::support::page());
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let stats = bench.switch.stats();
    assert_eq!([stats.pages, stats.sessions, stats.spool_octets, stats.spool_memory], [0; 4]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::default() })]

    /// Proves MS-059, MS-061, MS-083, MS-088.
    #[test]
    fn everybody_gets_the_page_or_a_reason(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(case));
    }
}
