//! One peer told as it would be told: what happens, and what it must see. Time is made up.

use super::*;

const S: Duration = Duration::from_secs(1);
const OURS: LinkId = LinkId(1);
const THEIRS: LinkId = LinkId(2);

/// A peer of ours, with the clock and what came out so far.
struct Case {
    now: Instant,
    peer: Peer,
    out: Vec<Effect>,
}

fn us() -> Identity {
    Identity {
        host: "as1.ims.example".into(),
        realm: "ims.example".into(),
        state: 77,
        also_plain_auth_app: false,
    }
}

fn origin(host: &str) -> Vec<Avp> {
    vec![Avp::text(&d::ORIGIN_HOST, host), Avp::text(&d::ORIGIN_REALM, "ims.example")]
}

fn with_ids(mut message: Message, hop_by_hop: u32) -> Message {
    message.header.hop_by_hop = hop_by_hop;
    message.header.end_to_end = hop_by_hop;
    message
}

fn cer_of(host: &str) -> Message {
    let mut avps = origin(host);
    avps.push(sh_application());
    with_ids(Message::request(257, 0, avps), 9)
}

fn base(code: u32, avps: &[Avp]) -> Message {
    let mut all = origin("hss1.ims.example");
    all.extend_from_slice(avps);
    with_ids(Message::request(code, 0, all), 500)
}

fn pnr() -> Message {
    let mut avps = vec![Avp::text(&d::SESSION_ID, "hss1;1;1")];
    avps.extend(origin("hss1.ims.example"));
    avps.push(Avp::grouped(
        &d::PROXY_INFO,
        &[Avp::text(&d::PROXY_HOST, "dra"), Avp::octets(&d::PROXY_STATE, &[1, 2][..])],
    ));
    with_ids(Message::request(309, d::APPLICATION_SH, avps), 600)
}

fn udr(n: u32) -> Message {
    let mut message = Message::request(
        306,
        d::APPLICATION_SH,
        vec![Avp::text(&d::SESSION_ID, "as1.ims.example;1;1")],
    );
    message.header.end_to_end = n;
    message
}

fn success() -> Avp {
    Avp::u32(&d::RESULT_CODE, 2001)
}

impl Case {
    fn new(name: Option<&str>) -> Self {
        let peer = Peer::new(us(), Timers::default(), name.map(str::to_owned), 7);
        Self { now: tokio::time::Instant::now().into_std(), peer, out: Vec::new() }
    }

    /// Connected and in service.
    fn up() -> Self {
        let mut case = Self::new(None);
        case.opens();
        case.cea(&[success(), sh_application()]);
        case.out.clear();
        case
    }

    fn opens(&mut self) {
        self.peer.start(&mut self.out);
        self.connected();
    }

    fn connected(&mut self) {
        assert_eq!(self.out.pop(), Some(Effect::Connect));
        self.input(Input::Connected { link: OURS, addresses: vec!["192.0.2.7".parse().unwrap()] });
    }

    fn input(&mut self, input: Input) {
        self.peer.handle(self.now, input, &mut self.out);
    }

    fn receives(&mut self, link: LinkId, message: &Message) {
        self.input(Input::Received { link, octets: message.encode() });
    }

    /// Answers our CER with these AVPs.
    fn cea(&mut self, avps: &[Avp]) {
        self.cea_from("hss1.ims.example", avps);
    }

    fn cea_from(&mut self, host: &str, avps: &[Avp]) {
        let (link, cer) = self.sent();
        let mut all = origin(host);
        all.extend_from_slice(avps);
        self.receives(link, &cer.answer(all));
    }

    fn send(&mut self, ticket: u64) {
        let until = self.now + 4 * S;
        let message = udr(u32::try_from(ticket).unwrap());
        self.input(Input::Send { ticket: Ticket(ticket), message, until });
    }

    /// Takes the first message that left.
    fn sent(&mut self) -> (LinkId, Message) {
        let at = self.out.iter().position(|effect| matches!(effect, Effect::Send { .. }));
        match self.out.remove(at.expect("something was sent")) {
            Effect::Send { link, octets } => (link, Message::decode(octets).unwrap()),
            _ => unreachable!("found above"),
        }
    }

    fn took(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    /// Goes to the next thing that has to happen, and does it.
    fn next(&mut self) -> Duration {
        let at = self.peer.next_wake().expect("something is awaited");
        let gone = at - self.now;
        self.now = at;
        self.peer.wake(at, &mut self.out);
        gone
    }

    fn after(&mut self, time: Duration) {
        let end = self.now + time;
        while self.peer.next_wake().is_some_and(|at| at <= end) {
            self.next();
        }
        self.now = end;
    }
}

fn between(time: Duration, least: u32, most: u32) {
    assert!(time >= least * S && time <= most * S, "{time:?} is not {least} to {most} s");
}

/// Proves SH-009: who opens sends CER at once, and what it says.
#[test]
fn the_side_that_opens_sends_cer_at_once() {
    let mut case = Case::new(None);
    case.opens();
    let (link, cer) = case.sent();
    assert_eq!((link, case.took()), (OURS, vec![]));
    assert_eq!((cer.header.code, cer.header.application), (257, 0));
    assert_eq!(cer.header.flags, Header::REQUEST);
    let expected = vec![
        Avp::text(&d::ORIGIN_HOST, "as1.ims.example"),
        Avp::text(&d::ORIGIN_REALM, "ims.example"),
        Avp::address(&d::HOST_IP_ADDRESS, "192.0.2.7".parse().unwrap()),
        Avp::u32(&d::VENDOR_ID, 0),
        Avp::text(&d::PRODUCT_NAME, "pagecast"),
        Avp::u32(&d::ORIGIN_STATE_ID, 77),
        Avp::u32(&d::SUPPORTED_VENDOR_ID, 10415),
        sh_application(),
    ];
    assert_eq!(cer.avps, expected);
    assert_eq!(cer.find(&d::PRODUCT_NAME).unwrap().flags, 0);
}

/// Proves SH-010: which CEA opens, and how long the next attempt waits after one that does not.
#[test]
fn a_cea_opens_or_closes() {
    let app = |id| Avp::u32(&d::AUTH_APPLICATION_ID, id);
    let other_vendor = Avp::grouped(
        &d::VENDOR_SPECIFIC_APPLICATION_ID,
        &[Avp::u32(&d::VENDOR_ID, 13019), app(16_777_217)],
    );
    let relay_accounting = Avp::u32(&d::ACCT_APPLICATION_ID, 0xffff_ffff);
    let cases: Vec<(&str, Vec<Avp>, Option<Alarm>)> = vec![
        ("VSAI", vec![success(), sh_application()], None),
        ("VSAI of another vendor", vec![success(), other_vendor], None),
        ("plain", vec![success(), app(16_777_217)], None),
        ("relay", vec![success(), app(0xffff_ffff)], None),
        ("relay of accounting too", vec![success(), relay_accounting], None),
        ("Cx only", vec![success(), app(16_777_216)], Some(Alarm::NoSh)),
        ("nothing", vec![success()], Some(Alarm::NoSh)),
        ("5010", vec![Avp::u32(&d::RESULT_CODE, 5010)], Some(Alarm::Refused(5010))),
        ("3010", vec![Avp::u32(&d::RESULT_CODE, 3010)], Some(Alarm::Refused(3010))),
        ("5017", vec![Avp::u32(&d::RESULT_CODE, 5017)], Some(Alarm::Refused(5017))),
        ("no result", vec![sh_application()], Some(Alarm::Nonsense)),
    ];
    for (name, avps, alarm) in cases {
        let mut case = Case::new(None);
        case.opens();
        case.cea(&avps);
        match alarm {
            None => {
                assert_eq!(case.took(), [Effect::Service { up: true }], "{name}");
                assert_eq!(case.peer.name(), Some("hss1.ims.example"), "{name}");
            }
            Some(alarm) => {
                let expected = [Effect::Alarm(alarm), Effect::Close { link: OURS }];
                assert_eq!(case.took(), expected, "{name}");
                assert!(!case.peer.in_service(), "{name}");
                between(case.next(), 108, 132);
                assert_eq!(case.took(), [Effect::Connect], "{name}");
            }
        }
    }
}

/// Proves SH-010: only the peer that was meant.
#[test]
fn somebody_else_is_not_taken_for_the_peer() {
    let mut case = Case::new(Some("hss1.ims.example"));
    case.opens();
    case.cea_from("HSS1.ims.Example", &[success(), sh_application()]);
    assert!(case.peer.in_service(), "names are compared without regard to case");

    let mut case = Case::new(Some("hss1.ims.example"));
    case.opens();
    case.cea_from("hss2.ims.example", &[success(), sh_application()]);
    let wrong = Alarm::WrongPeer { is: "hss2.ims.example".into() };
    assert_eq!(case.took(), [Effect::Alarm(wrong), Effect::Close { link: OURS }]);
}

/// Proves SH-010: anything but a CEA closes, and so does silence.
#[test]
fn before_the_cea_nothing_else_is_taken() {
    let mut case = Case::new(None);
    case.opens();
    case.out.clear();
    case.receives(OURS, &base(280, &[]));
    assert_eq!(case.took(), [Effect::Alarm(Alarm::Nonsense), Effect::Close { link: OURS }]);

    let mut case = Case::new(None);
    case.opens();
    case.out.clear();
    assert_eq!(case.next(), 10 * S);
    assert_eq!(case.took(), [Effect::Alarm(Alarm::Silent), Effect::Close { link: OURS }]);
    between(case.next(), 27, 33);
    assert_eq!(case.took(), [Effect::Connect]);
}

/// Proves SH-004: the attempts are Tc apart, and do not grow.
#[test]
fn a_peer_that_is_away_is_tried_every_tc() {
    let mut case = Case::new(None);
    case.peer.start(&mut case.out);
    let mut waits = Vec::new();
    for _ in 0..50 {
        assert_eq!(case.took(), [Effect::Connect]);
        case.input(Input::Unreachable);
        let wait = case.next();
        between(wait, 27, 33);
        waits.push(wait);
    }
    assert!(waits.windows(2).any(|two| two[0] != two[1]), "no jitter");
}

/// Proves SH-012, SH-013: a DWR leaves after Tw of silence, with another Tw each time.
#[test]
fn a_quiet_peer_is_asked() {
    let mut case = Case::up();
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        let wait = case.next();
        between(wait, 28, 32);
        seen.insert(wait);
        let (link, dwr) = case.sent();
        assert_eq!((link, dwr.header.code, dwr.header.flags), (OURS, 280, Header::REQUEST));
        assert_eq!(dwr.find(&d::ORIGIN_STATE_ID).unwrap().as_u32(), Ok(77));
        assert!(dwr.find(&d::DESTINATION_REALM).is_none());
        case.receives(OURS, &dwr.answer(vec![success()]));
        assert_eq!(case.took(), []);
    }
    assert!(seen.len() > 20, "Tw is drawn anew each time");
    // Any message will do.
    for _ in 0..10 {
        case.after(20 * S);
        case.receives(OURS, &base(280, &[]));
        let (_, dwa) = case.sent();
        assert_eq!(dwa.header.flags, 0);
        assert_eq!(case.took(), []);
    }
}

/// Proves SH-012: never below six seconds, whatever is set.
#[test]
fn the_watchdog_is_never_hasty() {
    let mut case = Case::new(None);
    case.peer.timers.twinit = S;
    case.opens();
    case.cea(&[success(), sh_application()]);
    between(case.next(), 4, 8);
}

/// Proves SH-014, SH-022: failover after two Tw, the end after a third; what comes in between heals.
#[test]
fn a_silent_peer_loses_its_requests_and_then_its_connection() {
    let mut case = Case::up();
    case.next();
    assert_eq!(case.sent().1.header.code, 280);
    let suspect = case.peer.next_wake().unwrap();
    case.after(suspect - case.now - S);
    case.send(1);
    case.sent();
    assert_eq!(case.next(), S);
    let returned = Effect::Returned { ticket: Ticket(1), why: Returned::LinkFailed };
    assert_eq!(case.took(), [returned, Effect::Service { up: false }]);
    assert!(!case.peer.in_service());
    assert_eq!(case.peer.state(), "suspect");

    // One message heals.
    case.receives(OURS, &base(280, &[]));
    case.sent();
    assert_eq!(case.took(), [Effect::Service { up: true }]);

    // The DWR is still open: one Tw of silence to SUSPECT, one more to the end.
    between(case.next(), 28, 32);
    assert_eq!(case.took(), [Effect::Service { up: false }]);
    between(case.next(), 28, 32);
    assert_eq!(case.took(), [Effect::Close { link: OURS }]);
    between(case.next(), 27, 33);
    assert_eq!(case.took(), [Effect::Connect]);
}

/// Proves SH-015: three DWAs before the peer is believed again, and nothing else counts.
#[test]
fn a_peer_that_was_away_answers_three_dwrs_first() {
    let mut case = Case::up();
    case.input(Input::Lost { link: OURS });
    assert_eq!(case.took(), [Effect::Service { up: false }]);
    case.next();
    case.connected();
    case.cea(&[success(), sh_application()]);
    for n in 0..3 {
        assert!(!case.peer.in_service());
        let (link, dwr) = case.sent();
        assert_eq!((link, dwr.header.code), (OURS, 280));
        assert_eq!(case.took(), [], "a PNR in REOPEN is not answered");
        case.receives(OURS, &pnr());
        assert_eq!(case.took(), []);
        // Its DWR is answered: it may wait for the same.
        case.receives(OURS, &base(280, &[]));
        assert_eq!(case.sent().1.header.code, 280);
        case.receives(OURS, &dwr.answer(vec![success()]));
        if n < 2 {
            case.next();
        }
    }
    assert_eq!(case.took(), [Effect::Revalidate, Effect::Service { up: true }]);
    assert!(case.peer.in_service());
}

/// Proves SH-016: DWA with what belongs in it, also in a flood; a restart of the peer is noticed.
#[test]
fn every_dwr_is_answered() {
    let mut case = Case::up();
    let state = |n| Avp::u32(&d::ORIGIN_STATE_ID, n);
    for n in 0..1000 {
        let dwr = with_ids(base(280, &[state(5)]), n);
        case.receives(OURS, &dwr);
        let (link, dwa) = case.sent();
        assert_eq!(link, OURS);
        assert_eq!(dwa.header.hop_by_hop, n);
        assert_eq!(dwa.outcome(), Ok(Outcome::Base(2001)));
        let [host, realm] = us().origin();
        assert_eq!(dwa.avps[1..], [host, realm, state(77)]);
    }
    assert_eq!(case.took(), []);
    case.receives(OURS, &base(280, &[state(6)]));
    assert_eq!(case.took()[0], Effect::Revalidate);
    case.receives(OURS, &base(280, &[state(6)]));
    assert_eq!(case.took().len(), 1);
}

/// Proves SH-021: known by Hop-by-Hop on the connection; late, strange and foreign answers touch nothing.
#[test]
fn an_answer_finds_its_request_once() {
    let mut case = Case::up();
    case.send(1);
    case.send(2);
    let (_, first) = case.sent();
    let (_, second) = case.sent();
    assert_ne!(first.header.hop_by_hop, second.header.hop_by_hop);
    assert_eq!((first.header.end_to_end, second.header.end_to_end), (1, 2));

    // The same Hop-by-Hop, but another command or another request.
    let mut wrong = first.answer(vec![success()]);
    wrong.header.code = 308;
    case.receives(OURS, &wrong);
    let mut wrong = first.answer(vec![success()]);
    wrong.header.end_to_end = 2;
    case.receives(OURS, &wrong);
    assert_eq!((case.took(), case.peer.discarded), (vec![], 2));

    let answer = second.answer(vec![success()]);
    case.receives(OURS, &answer);
    let answered = Effect::Answered { ticket: Ticket(2), answer: Ok(answer.clone()) };
    assert_eq!(case.took(), [answered]);
    case.receives(OURS, &answer);
    assert_eq!((case.took(), case.peer.discarded), (vec![], 3));

    assert_eq!(case.next(), 4 * S);
    let returned = Effect::Returned { ticket: Ticket(1), why: Returned::TimedOut };
    assert_eq!(case.took(), [returned]);
    case.receives(OURS, &first.answer(vec![success()]));
    assert_eq!((case.took(), case.peer.discarded), (vec![], 4));
}

/// Proves SH-017: Hop-by-Hop is unique among the open requests, also where it wraps.
#[test]
fn hop_by_hop_never_meets_an_open_one() {
    let mut case = Case::up();
    case.peer.hop_by_hop = u32::MAX - 2;
    for ticket in 0..5 {
        case.send(ticket);
    }
    case.peer.hop_by_hop = u32::MAX - 2;
    case.send(5);
    let mut seen = BTreeSet::new();
    for _ in 0..6 {
        assert!(seen.insert(case.sent().1.header.hop_by_hop));
    }
}

/// Proves SH-011, SH-004: a DPR with a hundred open requests.
#[test]
fn a_peer_that_parts_gives_its_requests_back() {
    for (cause, least, most) in [(0, 27, 33), (1, 540, 660), (2, 540, 660)] {
        let mut case = Case::up();
        for ticket in 0..100 {
            case.send(ticket);
        }
        case.out.clear();
        case.receives(OURS, &base(282, &[Avp::u32(&d::DISCONNECT_CAUSE, cause)]));
        let (_, dpa) = case.sent();
        assert_eq!((dpa.header.code, dpa.header.flags), (282, 0));
        assert_eq!(dpa.outcome(), Ok(Outcome::Base(2001)));
        let out = case.took();
        let back = out.iter().filter(|effect| matches!(effect, Effect::Returned { .. })).count();
        assert_eq!(back, 100);
        assert!(out.contains(&Effect::Service { up: false }));
        assert!(
            !out.iter().any(|effect| matches!(effect, Effect::Close { .. })),
            "the peer closes"
        );
        case.input(Input::Lost { link: OURS });
        between(case.next(), least, most);
        assert_eq!(case.took(), [Effect::Connect], "cause {cause}");
    }
}

/// Proves SH-011: a peer that says DPR and stays is closed.
#[test]
fn a_parting_ends() {
    let mut case = Case::up();
    case.receives(OURS, &base(282, &[Avp::u32(&d::DISCONNECT_CAUSE, 0)]));
    case.out.clear();
    assert_eq!(case.next(), 5 * S);
    assert_eq!(case.took(), [Effect::Close { link: OURS }]);
}

/// Proves SH-011: at shutdown what is open may end, then DPR, DPA, and the end.
#[test]
fn a_shutdown_waits_for_answers_and_for_dpa() {
    let mut case = Case::up();
    case.send(1);
    let (_, udr) = case.sent();
    case.input(Input::Shutdown);
    assert_eq!(case.took(), [Effect::Service { up: false }]);
    case.send(2);
    let returned = |ticket| Effect::Returned { ticket, why: Returned::LinkFailed };
    assert_eq!(case.took(), [returned(Ticket(2))]);
    let answer = udr.answer(vec![success()]);
    case.receives(OURS, &answer);
    let (_, dpr) = case.sent();
    assert_eq!(case.took(), [Effect::Answered { ticket: Ticket(1), answer: Ok(answer) }]);
    assert_eq!((dpr.header.code, dpr.header.flags), (282, Header::REQUEST));
    assert_eq!(dpr.find(&d::DISCONNECT_CAUSE).unwrap().as_u32(), Ok(0));
    assert!(dpr.find(&d::DESTINATION_REALM).is_none());
    case.receives(OURS, &dpr.answer(vec![success()]));
    assert_eq!(case.took(), [Effect::Close { link: OURS }, Effect::Gone]);
    assert_eq!(case.peer.next_wake(), None);

    // Neither an answer nor DPA: ten seconds are the end.
    let mut case = Case::up();
    case.send(1);
    case.peer.timers.request_timeout = 60 * S;
    case.input(Input::Shutdown);
    case.out.clear();
    assert_eq!(case.next(), 4 * S);
    case.out.clear();
    case.after(6 * S);
    assert!(case.took().contains(&Effect::Gone));
}

/// Proves SH-006: the election, seen from both sides.
#[test]
fn of_two_connections_one_survives() {
    // as1 is less than hss1: the peer keeps what it received, which is ours.
    let mut case = Case::new(None);
    case.opens();
    case.input(Input::Taken { link: THEIRS, addresses: vec![], cer: cer_of("hss1.ims.example") });
    assert!(!case.out.iter().any(|effect| matches!(effect, Effect::Close { .. })));
    case.cea(&[success(), sh_application()]);
    assert_eq!(case.took(), [Effect::Close { link: THEIRS }, Effect::Service { up: true }]);

    // as1 is more than aaa1: we keep what we received.
    let mut case = Case::new(None);
    case.opens();
    case.out.clear();
    case.input(Input::Taken { link: THEIRS, addresses: vec![], cer: cer_of("aaa1.ims.example") });
    let (link, cea) = case.sent();
    assert_eq!((link, cea.header.code), (THEIRS, 257));
    assert_eq!(cea.outcome(), Ok(Outcome::Base(2001)));
    assert_eq!(case.took(), [Effect::Close { link: OURS }, Effect::Service { up: true }]);

    // While ours is not even connected the other one waits, and is taken if ours fails.
    let mut case = Case::new(None);
    case.peer.start(&mut case.out);
    case.out.clear();
    case.input(Input::Taken { link: THEIRS, addresses: vec![], cer: cer_of("hss1.ims.example") });
    assert_eq!(case.took(), []);
    case.input(Input::Unreachable);
    assert_eq!(case.sent().0, THEIRS);
    assert_eq!(case.took(), [Effect::Service { up: true }]);

    // The peer closes what it opened: ours goes on.
    let mut case = Case::new(None);
    case.opens();
    case.input(Input::Taken { link: THEIRS, addresses: vec![], cer: cer_of("hss1.ims.example") });
    case.input(Input::Lost { link: THEIRS });
    case.cea(&[success(), sh_application()]);
    assert_eq!(case.took(), [Effect::Service { up: true }]);
}

/// Proves SH-006: names are compared as octets, a to z equal to A to Z.
#[test]
fn the_higher_name_wins() {
    let wins = |own: &str, peer: &str| Identity { host: own.into(), ..us() }.wins_against(peer);
    for (own, peer, expected) in [
        ("b.example", "a.example", true),
        ("a.example", "b.example", false),
        ("B.example", "a.example", true),
        ("a.example", "B.example", false),
        ("a.example", "A.EXAMPLE", false),
        ("a.example.net", "a.example", true),
        ("as_1", "as-1", true),
    ] {
        assert_eq!(wins(own, peer), expected, "{own} against {peer}");
    }
}

/// Proves SH-004: one connection per peer; and SH-010: no Sh, no connection.
#[test]
fn a_connection_of_the_peer_is_judged_too() {
    let mut case = Case::up();
    case.input(Input::Taken { link: THEIRS, addresses: vec![], cer: cer_of("hss1.ims.example") });
    assert_eq!(case.took(), [Effect::Close { link: THEIRS }]);

    let cases: Vec<(Message, u32)> = vec![
        (cer_of("hss2.ims.example"), 3010),
        (with_ids(Message::request(257, 0, origin("hss1.ims.example")), 9), 5010),
        (with_ids(Message::request(257, 0, vec![]), 9), 5005),
    ];
    for (cer, code) in cases {
        let mut case = Case::new(Some("hss1.ims.example"));
        case.peer.start(&mut case.out);
        case.input(Input::Unreachable);
        case.out.clear();
        let before = case.peer.next_wake();
        case.input(Input::Taken { link: THEIRS, addresses: vec![], cer });
        let (_, cea) = case.sent();
        assert_eq!(cea.outcome(), Ok(Outcome::Base(code)));
        assert_eq!(case.took(), [Effect::Close { link: THEIRS }]);
        assert_eq!(case.peer.next_wake(), before, "our own attempt is not put off");
    }
}

/// Proves SH-025: requests of the peer, and what the wrong ones get.
#[test]
fn requests_of_the_peer_are_handed_out_or_refused() {
    let mut case = Case::up();
    case.receives(OURS, &pnr());
    assert_eq!(case.took(), [Effect::Request { link: OURS, message: pnr() }]);
    let pna = pnr().answer(vec![success()]);
    case.input(Input::Answer { link: OURS, message: pna.clone() });
    assert_eq!(case.sent(), (OURS, pna.clone()));
    case.input(Input::Answer { link: THEIRS, message: pna });
    assert_eq!(case.took(), [], "the connection it came by is gone");

    let mut error = pnr();
    error.header.flags |= Header::ERROR;
    let mut elsewhere = pnr();
    elsewhere.header.application = 16_777_216;
    let mut pull = pnr();
    pull.header.code = 306;
    for (request, code) in [(error, 3008), (elsewhere, 3007), (pull, 3001), (base(258, &[]), 3001)]
    {
        case.receives(OURS, &request);
        let (_, answer) = case.sent();
        assert_eq!(answer.outcome(), Ok(Outcome::Base(code)));
        assert!(answer.header.is_error());
        assert!(!answer.header.is_request());
        assert_eq!(answer.find(&d::SESSION_ID), request.find(&d::SESSION_ID));
        assert_eq!(answer.find(&d::PROXY_INFO), request.find(&d::PROXY_INFO));
        assert_eq!(answer.find(&d::ORIGIN_HOST).unwrap().as_text(), Ok("as1.ims.example"));
        assert!(answer.find(&d::DESTINATION_HOST).is_none());
    }
}

/// Proves SH-018, SH-025: a PNR with a broken AVP is answered with what could be read.
#[test]
fn a_broken_request_is_answered() {
    let mut case = Case::up();
    let mut octets = pnr().encode().to_vec();
    octets.extend_from_slice(&[0, 0, 2, 0xbe, 0xc0, 0, 0xff, 0xff]);
    let length = u32::try_from(octets.len()).unwrap().to_be_bytes();
    octets[1..4].copy_from_slice(&length[1..]);
    case.input(Input::Received { link: OURS, octets: octets.into() });
    let (_, pna) = case.sent();
    assert_eq!(pna.outcome(), Ok(Outcome::Base(5014)));
    assert!(!pna.header.is_error());
    assert_eq!(pna.find(&d::SESSION_ID), pnr().find(&d::SESSION_ID));
    assert_eq!(pna.find(&d::PROXY_INFO), pnr().find(&d::PROXY_INFO));
    let failed = pna.find(&d::FAILED_AVP).unwrap();
    assert_eq!(&failed.data[..8], [0, 0, 2, 0xbe, 0xc0, 0, 0, 12]);
}
