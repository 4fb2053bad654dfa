//! Requests among several peers: what each peer gets, and what the one who asked hears. Time is made up.

use std::collections::HashSet;

use super::*;

const S: Duration = Duration::from_secs(1);

/// Some peers, and what left for them.
struct Net {
    now: Instant,
    routing: Routing,
    /// Messages sent and not looked at yet.
    sent: VecDeque<(LinkId, Message)>,
    done: VecDeque<(u64, Result<Message, Failure>)>,
    other: Vec<Effect>,
    next_ticket: u64,
}

fn settings(peers: &[&str]) -> Settings {
    let address = |name: &&str| PeerAddress {
        identity: Some((*name).to_owned()),
        host: (*name).to_owned(),
        port: 3868,
    };
    Settings {
        peers: peers.iter().map(address).collect(),
        origin_host: "as1.example".into(),
        origin_realm: "example".into(),
        destination_realm: "home.example".into(),
        ..Settings::default()
    }
}

fn request() -> Request {
    Request {
        code: 306,
        destination_host: None,
        destination_realm: None,
        identity: Some("sip:bob@example".into()),
        avps: vec![Avp::u32(&d::DATA_REFERENCE, 11)],
        class: Class::Page,
        priority: None,
    }
}

fn text(message: &Message, def: &'static d::Def) -> Option<String> {
    Some(message.find(def)?.as_text().unwrap().to_owned())
}

impl Net {
    fn new(settings: Settings) -> Self {
        let now = tokio::time::Instant::now().into_std();
        Self {
            now,
            routing: Routing::new(settings, now, 1_772_615_700, 5),
            sent: VecDeque::new(),
            done: VecDeque::new(),
            other: Vec::new(),
            next_ticket: 0,
        }
    }

    /// All peers connected and in service, as HSSs.
    fn up(peers: &[&str]) -> Self {
        Self::up_with(settings(peers))
    }

    fn up_with(settings: Settings) -> Self {
        let names: Vec<String> = settings.peers.iter().map(|peer| peer.host.clone()).collect();
        let mut net = Self::new(settings);
        net.start();
        for (index, name) in names.iter().enumerate() {
            net.connect(index);
            net.cea(index, name, false);
        }
        net.other.clear();
        net
    }

    fn start(&mut self) {
        let mut out = Vec::new();
        self.routing.start(self.now, &mut out);
        self.take(out);
    }

    fn link(index: Index) -> LinkId {
        LinkId(u64::try_from(index).unwrap())
    }

    fn connect(&mut self, index: Index) {
        let at = self
            .other
            .iter()
            .position(|effect| matches!(effect, Effect::Connect { peer, .. } if *peer == index));
        self.other.remove(at.expect("a connection was asked for"));
        let link = Self::link(index);
        let input = peer::Input::Connected { link, addresses: vec![] };
        self.input(Input::Peer { peer: index, input });
    }

    fn cea(&mut self, index: Index, name: &str, relay: bool) {
        let (link, cer) = self.sent.pop_front().unwrap();
        assert_eq!((link, cer.header.code), (Self::link(index), 257));
        let id = if relay { d::APPLICATION_RELAY } else { d::APPLICATION_SH };
        let avps = vec![
            Avp::u32(&d::RESULT_CODE, 2001),
            Avp::text(&d::ORIGIN_HOST, name),
            Avp::text(&d::ORIGIN_REALM, "example"),
            Avp::u32(&d::AUTH_APPLICATION_ID, id),
        ];
        self.receive(link, &cer.answer(avps));
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.routing.handle(self.now, input, &mut out);
        self.take(out);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { link, octets } => {
                    self.sent.push_back((link, Message::decode(octets).unwrap()));
                }
                Effect::Done { ticket, result } => self.done.push_back((ticket.0, *result)),
                other => self.other.push(other),
            }
        }
    }

    fn receive(&mut self, link: LinkId, message: &Message) {
        self.input(Input::Received { link, octets: message.encode() });
    }

    fn ask(&mut self, request: Request) -> u64 {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.input(Input::Request { ticket, request });
        self.next_ticket
    }

    /// The next message sent, which must be for this peer.
    fn gets(&mut self, index: Index) -> Message {
        let (link, message) = self.sent.pop_front().expect("something was sent");
        assert_eq!(link, Self::link(index), "{message:?}");
        message
    }

    fn answers(&mut self, index: Index, request: &Message, host: &str, avps: &[Avp]) {
        let mut all =
            vec![Avp::text(&d::ORIGIN_HOST, host), Avp::text(&d::ORIGIN_REALM, "example")];
        all.extend_from_slice(avps);
        let mut answer = request.answer(all);
        if let Ok(Outcome::Base(3000..=3999)) = answer.outcome() {
            answer.header.flags |= Header::ERROR;
        }
        self.receive(Self::link(index), &answer);
    }

    fn after(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.routing.next_wake().filter(|at| *at <= end) {
            self.now = at;
            let mut out = Vec::new();
            self.routing.wake(at, &mut out);
            self.take(out);
        }
        self.now = end;
    }

    fn loses(&mut self, index: Index) {
        self.input(Input::Lost { link: Self::link(index) });
    }

    fn is_quiet(&self) {
        assert!(self.sent.is_empty(), "{:?}", self.sent);
        assert!(self.done.is_empty(), "{:?}", self.done);
    }
}

fn code(n: u32) -> Avp {
    Avp::u32(&d::RESULT_CODE, n)
}

fn experimental(n: u32) -> Avp {
    Avp::grouped(
        &d::EXPERIMENTAL_RESULT,
        &[Avp::u32(&d::VENDOR_ID, 10415), Avp::u32(&d::EXPERIMENTAL_RESULT_CODE, n)],
    )
}

/// Proves SH-019, SH-020, SH-031, SH-032: the head of a request and its order.
#[test]
fn a_request_has_the_head_of_every_sh_request() {
    let mut net = Net::up(&["hss1.example"]);
    net.ask(Request { priority: Some(3), ..request() });
    let udr = net.gets(0);
    assert_eq!((udr.header.code, udr.header.application), (306, 16_777_217));
    assert_eq!(udr.header.flags, Header::REQUEST | Header::PROXIABLE);
    let [host, realm] = net.routing.own.origin();
    let expected = vec![
        Avp::text(&d::SESSION_ID, "as1.example;1772615700;1;sh"),
        Avp::u32(&d::DRMP, 3),
        sh_application(),
        Avp::u32(&d::AUTH_SESSION_STATE, 1),
        host,
        realm,
        Avp::text(&d::DESTINATION_REALM, "home.example"),
        Avp::u32(&d::DATA_REFERENCE, 11),
        Avp::grouped(&d::OC_SUPPORTED_FEATURES, &[Avp::u64(&d::OC_FEATURE_VECTOR, 1)]),
    ];
    assert_eq!(udr.avps, expected);
    assert_eq!(udr.find(&d::DRMP).unwrap().flags, 0);
    assert_eq!(udr.find(&d::OC_SUPPORTED_FEATURES).unwrap().flags, 0);
    net.ask(request());
    assert!(net.gets(0).find(&d::DRMP).is_none());
}

/// Proves SH-032: Load is taken and ignored.
#[test]
fn an_answer_with_load_is_an_answer() {
    let mut net = Net::up(&["hss1.example"]);
    let ticket = net.ask(request());
    let udr = net.gets(0);
    let load = Avp::grouped(
        &d::LOAD,
        &[Avp::u32(&d::LOAD_TYPE, 0), Avp::u64(&d::LOAD_VALUE, 9), Avp::text(&d::SOURCE_ID, "h")],
    );
    net.answers(0, &udr, "hss1.example", &[code(2001), load]);
    let (done, answer) = net.done.pop_front().unwrap();
    assert_eq!(done, ticket);
    assert_eq!(answer.unwrap().unknown_mandatory(), None);
}

/// Proves SH-017, SH-019: many requests over a restart, and no two alike.
#[test]
fn sessions_and_end_to_end_never_repeat() {
    let now = tokio::time::Instant::now().into_std();
    let mut sessions = HashSet::new();
    let mut ends = HashSet::new();
    for (run, unix) in [(0, 1_772_615_700), (1, 1_772_615_760)] {
        let mut routing = Routing::new(settings(&[]), now, unix, run);
        for n in 0..100_000_u32 {
            // 10000 requests a second, for ten seconds.
            let at = now + Duration::from_micros(100) * n;
            assert!(sessions.insert(routing.new_session()));
            assert!(ends.insert(routing.new_end_to_end(at)));
        }
    }
}

/// Proves SH-026: the realm always, the host only where it is known.
#[test]
fn the_destination_is_as_exact_as_is_known() {
    let mut net = Net::up(&["dra.example"]);
    let cases = [
        (None, None, None, "home.example"),
        (Some("hss2.example"), None, Some("hss2.example"), "home.example"),
        (Some("hss2.example"), Some("example"), Some("hss2.example"), "example"),
        (None, Some("other.example"), None, "other.example"),
    ];
    for (host, realm, sent_host, sent_realm) in cases {
        net.ask(Request {
            destination_host: host.map(str::to_owned),
            destination_realm: realm.map(str::to_owned),
            ..request()
        });
        let udr = net.gets(0);
        assert_eq!(text(&udr, &d::DESTINATION_HOST).as_deref(), sent_host);
        assert_eq!(text(&udr, &d::DESTINATION_REALM).as_deref(), Some(sent_realm));
    }
    let mut settings = settings(&["dra.example"]);
    settings.destination_host = Some("hss.example".into());
    let mut net = Net::up_with(settings);
    net.ask(request());
    assert_eq!(text(&net.gets(0), &d::DESTINATION_HOST).as_deref(), Some("hss.example"));
}

/// Proves SH-027: the host itself if it is a peer, else the first, else the next.
#[test]
fn the_best_peer_is_chosen() {
    let mut net = Net::up(&["a.example", "b.example", "c.example"]);
    let to = |host: &str| Request { destination_host: Some(host.into()), ..request() };
    net.ask(request());
    net.gets(0);
    net.ask(to("b.example"));
    net.gets(1);
    net.ask(to("elsewhere.example"));
    net.gets(0);
    net.loses(0);
    net.gets(1);
    net.gets(1);
    net.ask(request());
    net.gets(1);
    net.is_quiet();
}

/// Proves SH-027: so many at a peer, then the next peer, then a second in the queue, then an answer.
#[test]
fn open_requests_have_a_limit() {
    let mut few = settings(&["a.example", "b.example"]);
    few.max_inflight = 2;
    let mut net = Net::up_with(few);
    for _ in 0..6 {
        net.ask(request());
    }
    let first = net.gets(0);
    net.gets(0);
    net.gets(1);
    net.gets(1);
    net.is_quiet();
    // The seventh does not even wait.
    let seventh = net.ask(request());
    assert_eq!(net.done.pop_front(), Some((seventh, Err(Failure::Saturated))));
    net.after(S / 2);
    net.answers(0, &first, "a.example", &[code(2001)]);
    assert_eq!(net.done.pop_front().map(|(ticket, _)| ticket), Some(1));
    assert_eq!(net.gets(0).header.code, 306);
    net.is_quiet();
    net.after(S / 2);
    assert_eq!(net.done.pop_front(), Some((6, Err(Failure::Saturated))));
    net.is_quiet();
}

/// Proves SH-021, SH-030: silence leads to one more request elsewhere, and to a result in eight seconds.
#[test]
fn silence_is_tried_once_elsewhere() {
    let mut net = Net::up(&["a.example", "b.example"]);
    let ticket = net.ask(request());
    let first = net.gets(0);
    net.after(4 * S);
    let second = net.gets(1);
    assert_ne!(first.header.end_to_end, second.header.end_to_end);
    assert_ne!(first.find(&d::SESSION_ID), second.find(&d::SESSION_ID));
    assert!(!second.header.is_retransmitted());
    // The late answer is nobody's.
    net.answers(0, &first, "a.example", &[code(2001)]);
    net.is_quiet();
    net.after(4 * S);
    let failure = Failure::Unavailable(Why::TimedOut);
    assert_eq!(net.done.pop_front(), Some((ticket, Err(failure))));
    net.answers(1, &second, "b.example", &[code(2001)]);
    net.is_quiet();

    // With one peer only it is asked again.
    let mut net = Net::up(&["a.example"]);
    net.ask(request());
    net.gets(0);
    net.after(4 * S);
    let again = net.gets(0);
    net.answers(0, &again, "a.example", &[code(2001)]);
    assert!(net.done.pop_front().unwrap().1.is_ok());
}

/// Proves SH-022, SH-028: UDR, PUR and SNR in the middle of a failover.
#[test]
fn a_failed_link_sends_the_same_request_elsewhere() {
    let mut net = Net::up(&["a.example", "b.example"]);
    for code in [306, 307, 308] {
        net.ask(Request { code, ..request() });
    }
    let first: Vec<Message> = (0..3).map(|_| net.gets(0)).collect();
    net.loses(0);
    for before in &first {
        let after = net.gets(1);
        assert_eq!(after.header.end_to_end, before.header.end_to_end);
        assert_eq!(after.avps, before.avps);
        assert_eq!(after.header.flags, before.header.flags | Header::RETRANSMITTED);
    }
    // What comes on the old link is not heard.
    net.answers(0, &first[0], "a.example", &[code(2001)]);
    net.is_quiet();
    // And nothing is left when the last peer goes.
    net.loses(1);
    for ticket in 1..=3 {
        let failure = Failure::Unavailable(Why::LinkFailed);
        assert_eq!(net.done.pop_front(), Some((ticket, Err(failure))));
    }
}

/// Proves SH-028: nobody else leads to a peer that is away, unless it passes things on.
#[test]
fn a_request_for_the_failed_peer_itself_is_undeliverable() {
    let to_a = Request { destination_host: Some("a.example".into()), ..request() };
    for (b_answers_itself, relay, moves) in
        [(true, false, false), (false, false, true), (true, true, true)]
    {
        let mut net = Net::new(settings(&["a.example", "b.example"]));
        net.start();
        for (index, name) in ["a.example", "b.example"].into_iter().enumerate() {
            net.connect(index);
            net.cea(index, name, relay);
        }
        net.ask(Request { destination_host: Some("b.example".into()), ..request() });
        let udr = net.gets(1);
        let from = if b_answers_itself { "b.example" } else { "hss.example" };
        net.answers(1, &udr, from, &[code(2001)]);
        net.done.clear();
        let ticket = net.ask(to_a.clone());
        net.gets(0);
        net.loses(0);
        if moves {
            assert!(net.gets(1).header.is_retransmitted());
        } else {
            let failure = Failure::Unavailable(Why::Undeliverable);
            assert_eq!(net.done.pop_front(), Some((ticket, Err(failure))));
        }
    }
}

/// Proves SH-030, SH-022: what is tried once elsewhere as a new request, and what is not.
#[test]
fn each_result_is_repeated_or_not() {
    let cases: Vec<(Avp, bool)> = vec![
        (code(2001), false),
        (code(3001), false),
        (code(3002), true),
        (code(3003), false),
        (code(3004), true),
        (code(3005), false),
        (code(3007), false),
        (code(3008), false),
        (code(3009), false),
        (code(4001), true),
        (code(4002), true),
        (code(5001), false),
        (code(5012), false),
        (experimental(4100), false),
        (experimental(4101), false),
        (experimental(5001), false),
    ];
    for (result, again) in cases {
        let mut net = Net::up(&["a.example", "b.example"]);
        let ticket = net.ask(request());
        let first = net.gets(0);
        net.answers(0, &first, "a.example", std::slice::from_ref(&result));
        if again {
            let second = net.gets(1);
            assert!(!second.header.is_retransmitted(), "{result:?}");
            assert_ne!(second.header.end_to_end, first.header.end_to_end);
            assert!(net.done.is_empty());
            net.answers(1, &second, "b.example", std::slice::from_ref(&result));
        }
        net.sent.clear();
        let (done, answer) = net.done.pop_front().unwrap();
        assert_eq!(done, ticket);
        assert!(answer.unwrap().avps.contains(&result), "the last answer is what is heard");

        // Alone there is nobody to try.
        let mut net = Net::up(&["a.example"]);
        net.ask(request());
        let first = net.gets(0);
        net.answers(0, &first, "a.example", std::slice::from_ref(&result));
        assert!(net.sent.is_empty());
        assert!(net.done.pop_front().unwrap().1.unwrap().avps.contains(&result));
    }
}

#[test]
fn a_loop_is_told_to_operators() {
    let mut net = Net::up(&["a.example", "b.example"]);
    net.ask(request());
    let first = net.gets(0);
    net.answers(0, &first, "a.example", &[code(3005)]);
    assert_eq!(net.other, [Effect::Loop { peer: 0 }]);
}

fn redirect(hosts: &[&str]) -> Vec<Avp> {
    let mut avps = vec![code(3006)];
    avps.extend(hosts.iter().map(|host| Avp::text(&d::REDIRECT_HOST, host)));
    avps
}

/// Proves SH-029: to the first host, and on to the next if it is dead.
#[test]
fn a_redirect_is_followed_in_order() {
    let mut allowed = settings(&["slf.example"]);
    allowed.redirect_hosts = vec!["dead.hss.example".into(), "hss7.example".into()];
    let mut net = Net::up_with(allowed);
    let ticket = net.ask(request());
    let first = net.gets(0);
    let hosts = ["aaa://Dead.hss.example:3870;transport=tcp", "aaa://hss7.example"];
    net.answers(0, &first, "slf.example", &redirect(&hosts));
    net.sent.clear();
    match &net.other[..] {
        [Effect::Connect { peer: 1, address }] => {
            assert_eq!(address.to_string(), "dead.hss.example:3870");
        }
        other => panic!("{other:?}"),
    }
    net.other.clear();
    net.input(Input::Peer { peer: 1, input: peer::Input::Unreachable });
    assert!(net.done.is_empty());
    // The dead one is not called again, so its place is taken.
    net.connect(1);
    net.cea(1, "hss7.example", false);
    let second = net.gets(1);
    assert_eq!(second.header.end_to_end, first.header.end_to_end);
    assert_eq!(second.header.flags, first.header.flags, "T is clear");
    assert_eq!(text(&second, &d::DESTINATION_HOST).as_deref(), Some("hss7.example"));
    assert_eq!(text(&second, &d::DESTINATION_REALM).as_deref(), Some("example"));
    assert_eq!(text(&second, &d::SESSION_ID), text(&first, &d::SESSION_ID));
    net.answers(1, &second, "hss7.example", &[code(2001)]);
    let (done, answer) = net.done.pop_front().unwrap();
    assert_eq!((done, answer.unwrap().outcome()), (ticket, Ok(Outcome::Base(2001))));
}

/// Proves SH-029: only where configuration lets it, and three times at most.
#[test]
fn redirects_have_limits() {
    // Not allowed, and nobody else to ask: the redirect was in vain.
    let mut net = Net::up(&["slf.example"]);
    let ticket = net.ask(request());
    let first = net.gets(0);
    net.routing.slots[0].is_hss = true;
    net.answers(0, &first, "slf.example", &redirect(&["aaa://evil.example"]));
    let failure = Failure::Unavailable(Why::Redirects);
    assert_eq!(net.done.pop_front(), Some((ticket, Err(failure.clone()))));
    assert_eq!(net.other, []);

    // A loop of four.
    let names = ["a.example", "b.example", "c.example", "d.example"];
    let mut net = Net::up(&names);
    let ticket = net.ask(request());
    for (index, next) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
        let udr = net.gets(index);
        let host = format!("aaa://{}:3868", names[next]);
        net.answers(index, &udr, names[index], &redirect(&[&host]));
    }
    assert_eq!(net.done.pop_front(), Some((ticket, Err(failure))));
    net.is_quiet();
}

/// Proves SH-029: a redirect that may be remembered is, for whom it was about and as long as it says.
#[test]
fn a_redirect_is_remembered() {
    let mut net = Net::up(&["slf.example", "hss1.example"]);
    let remembered = |usage| {
        let mut avps = redirect(&["aaa://hss1.example"]);
        avps.push(Avp::u32(&d::REDIRECT_HOST_USAGE, usage));
        avps.push(Avp::u32(&d::REDIRECT_MAX_CACHE_TIME, 60));
        avps
    };
    for (usage, straight) in [(0, 0), (1, 1)] {
        net.ask(request());
        let udr = net.gets(0);
        net.answers(0, &udr, "slf.example", &remembered(usage));
        let udr = net.gets(1);
        net.answers(1, &udr, "hss1.example", &[code(2001)]);
        net.ask(request());
        let udr = net.gets(straight);
        if straight == 0 {
            net.answers(0, &udr, "slf.example", &[code(2001)]);
        }
    }
    net.ask(Request { identity: Some("sip:carol@example".into()), ..request() });
    net.gets(0);
    net.after(20 * S);
    net.sent.clear();
    net.now += 41 * S;
    net.ask(request());
    net.gets(0);
}

/// Proves SH-031: an HSS that asks for nothing gets nothing until its report ends.
#[test]
fn under_full_overload_no_pull_leaves() {
    let mut net = Net::up(&["hss1.example"]);
    net.ask(request());
    let udr = net.gets(0);
    let olr = Avp::grouped(
        &d::OC_OLR,
        &[
            Avp::u64(&d::OC_SEQUENCE_NUMBER, 1),
            Avp::u32(&d::OC_REPORT_TYPE, 0),
            Avp::u32(&d::OC_REDUCTION_PERCENTAGE, 100),
            Avp::u32(&d::OC_VALIDITY_DURATION, 10),
        ],
    );
    net.answers(0, &udr, "hss1.example", &[code(2001), olr]);
    net.done.clear();
    for _ in 0..100 {
        let ticket = net.ask(request());
        assert_eq!(net.done.pop_front(), Some((ticket, Err(Failure::Overloaded))));
    }
    net.is_quiet();
    net.after(10 * S);
    net.ask(request());
    assert_eq!(net.gets(0).header.code, 306);
}

/// Proves SH-005, SH-006: who may connect, and what must come first.
#[test]
fn only_known_peers_may_connect() {
    let mut settings = settings(&["hss1.example"]);
    settings.peers.push(PeerAddress { identity: None, host: "192.0.2.9".into(), port: 3868 });
    let cer = |host: &str| {
        Message::request(
            257,
            0,
            vec![
                Avp::text(&d::ORIGIN_HOST, host),
                Avp::text(&d::ORIGIN_REALM, "example"),
                sh_application(),
            ],
        )
    };
    let arrives = |settings: &Settings, from: &str, message: &Message| {
        let mut net = Net::new(settings.clone());
        net.start();
        for peer in [0, 1] {
            net.input(Input::Peer { peer, input: peer::Input::Unreachable });
        }
        net.other.clear();
        net.input(Input::Arrived {
            link: LinkId(50),
            remote: from.parse().unwrap(),
            addresses: vec![],
            octets: message.encode(),
        });
        net
    };
    for (from, host, code) in [
        ("198.51.100.1:4000", "HSS1.example", 2001),
        ("192.0.2.9:4000", "anything.example", 2001),
        ("198.51.100.1:4000", "strange.example", 3010),
    ] {
        let mut net = arrives(&settings, from, &cer(host));
        let (link, cea) = net.sent.pop_front().unwrap();
        assert_eq!((link, cea.header.code), (LinkId(50), 257));
        assert_eq!(cea.outcome(), Ok(Outcome::Base(code)), "{host}");
        let closed = net.other.contains(&Effect::Close { link: LinkId(50) });
        assert_eq!(closed, code != 2001, "{host}");
    }
    let mut dwr = cer("hss1.example");
    dwr.header.code = 280;
    let net = arrives(&settings, "198.51.100.1:4000", &dwr);
    assert_eq!(net.other, [Effect::Reset { link: LinkId(50) }]);
    net.is_quiet();
}

/// Proves SH-018: nothing longer than the limit is sent.
#[test]
fn a_request_that_is_too_long_stays_here() {
    let mut net = Net::up(&["hss1.example"]);
    let avps = vec![Avp::octets(&d::USER_DATA, vec![b'x'; 70_000])];
    let ticket = net.ask(Request { avps, ..request() });
    match net.done.pop_front() {
        Some((done, Err(Failure::TooLong(70_001..)))) => assert_eq!(done, ticket),
        other => panic!("{other:?}"),
    }
    net.is_quiet();
}

/// Proves SH-011: at the end every peer hears DPR, and nothing new is taken.
#[test]
fn a_shutdown_parts_from_every_peer() {
    let mut net = Net::up(&["a.example", "b.example"]);
    net.input(Input::Shutdown);
    let ticket = net.ask(request());
    let failure = Failure::Unavailable(Why::Closing);
    assert_eq!(net.done.pop_front(), Some((ticket, Err(failure))));
    for index in [0, 1] {
        let dpr = net.gets(index);
        assert_eq!(dpr.header.code, 282);
        net.answers(index, &dpr, "x.example", &[code(2001)]);
    }
    assert_eq!(net.other.last(), Some(&Effect::Gone));
    assert_eq!(net.routing.next_wake(), None);
}

#[test]
fn without_a_peer_there_is_no_waiting() {
    let mut net = Net::new(settings(&["a.example"]));
    net.start();
    let ticket = net.ask(request());
    let failure = Failure::Unavailable(Why::NoPeer);
    assert_eq!(net.done.pop_front(), Some((ticket, Err(failure))));
}

#[test]
fn redirect_uris_are_read_as_they_are_written() {
    let read = |uri: &str| redirect_host(uri).map(|(host, at)| (host, at.port));
    let at = |host: &str, port| Some((host.to_owned(), port));
    assert_eq!(read("aaa://hss1.example"), at("hss1.example", 3868));
    assert_eq!(read("AAAS://HSS1.example:5868;transport=TCP"), at("hss1.example", 5868));
    assert_eq!(read("aaa://hss1.example;transport=sctp"), None);
    assert_eq!(read("aaa://hss1.example:0x1"), None);
    assert_eq!(read("http://hss1.example"), None);
    assert_eq!(read("aaa://"), None);
    assert_eq!(read("aaa://a b"), None);
}
