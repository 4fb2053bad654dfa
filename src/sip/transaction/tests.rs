//! Every state with every event, printed and compared with `tests.txt`, which was read against the RFCs; and the
//! timers, row by row from RFC 3261 table 4.

use std::fmt::{Debug, Write};

use super::*;

const EVENTS: [Event; 22] = [
    Event::Reliable,
    Event::Response(100),
    Event::Response(199),
    Event::Response(200),
    Event::Response(299),
    Event::Response(300),
    Event::Response(408),
    Event::Response(699),
    Event::Request,
    Event::Ack,
    Event::Expired(Timer::A),
    Event::Expired(Timer::B),
    Event::Expired(Timer::D),
    Event::Expired(Timer::E),
    Event::Expired(Timer::F),
    Event::Expired(Timer::G),
    Event::Expired(Timer::H),
    Event::Expired(Timer::I),
    Event::Expired(Timer::J),
    Event::Expired(Timer::K),
    Event::Expired(Timer::L),
    Event::Expired(Timer::M),
];

fn terms(reliable: bool) -> Terms {
    Terms { timers: Timers::default(), reliable }
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// One line for each pair that does something; the others by name on a line of their own.
fn table<S: Copy + Debug + PartialEq>(
    text: &mut String,
    title: &str,
    states: &[S],
    on: impl Fn(S, Event, &Terms, &mut Actions) -> S,
) {
    for reliable in [false, true] {
        let kind = if reliable { "reliable" } else { "unreliable" };
        writeln!(text, "# {title}, {kind}").expect("a string takes all");
        for state in states {
            let mut nothing = Vec::new();
            for event in EVENTS.into_iter().chain([Event::Broken]) {
                let mut out = Actions::new();
                let next = on(*state, event, &terms(reliable), &mut out);
                if next == *state && out.is_empty() {
                    nothing.push(format!("{event:?}"));
                } else {
                    writeln!(text, "{state:?} + {event:?} -> {next:?} {out:?}")
                        .expect("a string takes all");
                }
            }
            writeln!(text, "{state:?} + nothing: {}", nothing.join(" "))
                .expect("a string takes all");
        }
    }
}

/// Proves ISC-065, ISC-068.
#[test]
fn every_state_with_every_event() {
    let mut text = String::new();
    let wait = milliseconds(500);
    let calling = [
        InviteClient::Calling { wait },
        InviteClient::Calling { wait: milliseconds(16_000) },
        InviteClient::Proceeding,
        InviteClient::Completed,
        InviteClient::Accepted,
        InviteClient::Finished,
    ];
    table(&mut text, "INVITE client", &calling, InviteClient::on);
    let called = [
        InviteServer::Proceeding,
        InviteServer::Completed { wait },
        InviteServer::Completed { wait: milliseconds(4_000) },
        InviteServer::Confirmed,
        InviteServer::Accepted,
        InviteServer::Finished,
    ];
    table(&mut text, "INVITE server", &called, InviteServer::on);
    let asking = [
        Client::Trying { wait },
        Client::Trying { wait: milliseconds(4_000) },
        Client::Proceeding,
        Client::Completed,
        Client::Finished,
    ];
    table(&mut text, "client", &asking, Client::on);
    let asked = [Server::Trying, Server::Completed, Server::Finished];
    table(&mut text, "server", &asked, Server::on);
    assert_eq!(text, include_str!("tests.txt"));
}

#[test]
fn a_transaction_starts_by_sending_and_with_both_timers() {
    use Action::{Start, Transmit};
    let (t1, end) = (milliseconds(500), milliseconds(32_000));
    let mut out = Actions::new();
    assert_eq!(InviteClient::start(&terms(false), &mut out), InviteClient::Calling { wait: t1 });
    assert_eq!(out.as_slice(), [Transmit, Start(Timer::A, t1), Start(Timer::B, end)]);
    let mut out = Actions::new();
    assert_eq!(Client::start(&terms(false), &mut out), Client::Trying { wait: t1 });
    assert_eq!(out.as_slice(), [Transmit, Start(Timer::E, t1), Start(Timer::F, end)]);
    let mut out = Actions::new();
    assert_eq!(Server::start(&terms(false), &mut out), Server::Trying);
    assert_eq!(out.as_slice(), [Start(Timer::J, end)]);
}

/// RFC 3261 table 4 and RFC 6026: what each state waits for by which timer, over UDP and over TCP.
///
/// Proves ISC-065.
#[test]
fn timers_are_those_of_the_table() {
    fn started(out: &Actions, wanted: Timer) -> Option<Duration> {
        out.iter().find_map(|action| match action {
            Action::Start(timer, after) if *timer == wanted => Some(*after),
            _ => None,
        })
    }
    let after = |timer: Timer, reliable: bool| {
        let mut out = Actions::new();
        let terms = terms(reliable);
        let wait = terms.timers.t1;
        match timer {
            Timer::D => {
                InviteClient::Proceeding.on(Event::Response(486), &terms, &mut out);
            }
            Timer::M => {
                InviteClient::Proceeding.on(Event::Response(200), &terms, &mut out);
            }
            Timer::G | Timer::H => {
                InviteServer::Proceeding.on(Event::Response(486), &terms, &mut out);
            }
            Timer::I => {
                InviteServer::Completed { wait }.on(Event::Ack, &terms, &mut out);
            }
            Timer::L => {
                InviteServer::Proceeding.on(Event::Response(200), &terms, &mut out);
            }
            Timer::J => {
                Server::Trying.on(Event::Response(200), &terms, &mut out);
            }
            Timer::K => {
                Client::Proceeding.on(Event::Response(200), &terms, &mut out);
            }
            Timer::A | Timer::B => {
                InviteClient::start(&terms, &mut out);
            }
            Timer::E | Timer::F => {
                Client::start(&terms, &mut out);
            }
        }
        started(&out, timer).map(|length| length.as_millis())
    };
    // Client timers A and E are stopped when the transport reports a reliable protocol, see the other table.
    let rows: [(Timer, Option<u128>, Option<u128>); 12] = [
        (Timer::A, Some(500), Some(500)),
        (Timer::B, Some(32_000), Some(32_000)),
        (Timer::D, Some(32_000), None),
        (Timer::E, Some(500), Some(500)),
        (Timer::F, Some(32_000), Some(32_000)),
        (Timer::G, Some(500), None),
        (Timer::H, Some(32_000), Some(32_000)),
        (Timer::I, Some(5_000), None),
        (Timer::J, Some(32_000), None),
        (Timer::K, Some(5_000), None),
        (Timer::L, Some(32_000), Some(32_000)),
        (Timer::M, Some(32_000), Some(32_000)),
    ];
    for (timer, udp, tcp) in rows {
        assert_eq!((after(timer, false), after(timer, true)), (udp, tcp), "timer {timer:?}");
    }
}

#[test]
fn derived_lengths_follow_t1_and_t2() {
    let quick = Timers { t1: milliseconds(100), t2: milliseconds(300), t4: milliseconds(50) };
    assert_eq!(quick.give_up(), milliseconds(6_400));
    assert_eq!(quick.d(), milliseconds(32_000), "D is never below 32 s");
    let slow = Timers { t1: milliseconds(1_000), ..quick };
    assert_eq!(slow.d(), milliseconds(64_000), "nor below the peer's H");
    let doubled: Vec<_> =
        [100, 149, 150, 151, 300].map(|last| quick.doubled(milliseconds(last)).as_millis()).into();
    assert_eq!(doubled, [200, 298, 300, 300, 300]);
    let repeating: Vec<_> = EVENTS
        .iter()
        .filter_map(|event| match event {
            Event::Expired(timer) if timer.repeats() => Some(*timer),
            _ => None,
        })
        .collect();
    assert_eq!(repeating, [Timer::A, Timer::E, Timer::G]);
}
