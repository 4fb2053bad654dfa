//! The neighbours among themselves: phones page each other through the core, and each notices what is wrong.

use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::auth::Auth;
use super::core::{Core, Settings};
use super::phone::{
    Answer, Behaviour, Ended, GiveUp, PageRequest, Phone, Provisional, Reads, Received, Recipients,
    Settings as PhoneSettings, Standing,
};
use super::wire::{Arrived, Way, Wire};
use crate::content::xml::escape;
use crate::sip::digest::{Credentials, Ha1};
use crate::sip::message::{Message, Method, Name, Writer};

const LIMIT: Duration = Duration::from_secs(20);

struct Net {
    core: Core,
    alice: Phone,
    bob: Phone,
}

impl Net {
    async fn new(behaviour: Behaviour) -> Self {
        let core = Core::start(Settings::demo()).await.expect("loopback");
        let alice = phone(&core, "alice", Behaviour::default()).await;
        let bob = phone(&core, "bob", behaviour).await;
        Self { core, alice, bob }
    }

    async fn got(&self) -> Received {
        timeout(LIMIT, self.bob.received()).await.expect("in time").expect("bob is there")
    }

    fn nobody_complains(&self) {
        let all = [self.core.complaints(), self.alice.complaints(), self.bob.complaints()].concat();
        assert!(all.is_empty(), "{all:#?}");
    }
}

async fn phone(core: &Core, name: &str, behaviour: Behaviour) -> Phone {
    let settings = PhoneSettings {
        behaviour,
        ..PhoneSettings::new(&core.uri(), &format!("sip:{name}@ims.test"))
    };
    Phone::start(settings).await.expect("registered")
}

fn to(name: &str, octets: usize) -> PageRequest {
    let body: Vec<u8> = (0..octets).map(|at| (at % 251) as u8).collect();
    let to = Recipients::User(format!("sip:{name}@ims.test"));
    PageRequest {
        patience: Duration::from_secs(10),
        chunk: 10_000,
        ..PageRequest::new(to, "application/octet-stream", body)
    }
}

#[tokio::test]
async fn a_page_arrives_as_it_was_sent() {
    for provisional in
        [Provisional::None, Provisional::Ringing, Provisional::Progress, Provisional::Reliable]
    {
        let net = Net::new(Behaviour { provisional, ..Behaviour::default() }).await;
        let request = to("bob", 100_000);
        let (outcome, got) = tokio::join!(net.alice.page(&request), net.got());
        assert!(outcome.succeeded(), "{outcome:?}");
        assert_eq!((outcome.status, outcome.report), (Some(200), Some(200)));
        let early = outcome.provisional.iter().map(|(_, status)| *status).collect::<Vec<_>>();
        assert_eq!(early.is_empty(), provisional == Provisional::None);
        assert!(got.whole && got.ended == Ended::Bye);
        assert_eq!(got.chunks, 11, "the envelope is part of it");
        let (kind, content) = got.content().expect("CPIM");
        assert_eq!((kind.as_str(), &content), ("application/octet-stream", &request.body));
        net.nobody_complains();
    }
}

#[tokio::test]
async fn refused_offline_unknown() {
    let net =
        Net::new(Behaviour { answer: Answer::Refuse { status: 486 }, ..Behaviour::default() });
    let net = net.await;
    net.core.provision("sip:carol@ims.test");
    assert_eq!(net.alice.page(&to("bob", 10)).await.status, Some(486));
    assert_eq!(net.got().await.ended, Ended::Refused(486));
    assert_eq!(net.alice.page(&to("carol", 10)).await.status, Some(480), "offline");
    assert_eq!(net.alice.page(&to("nobody", 10)).await.status, Some(404), "unknown");
    assert_eq!(net.core.registered().len(), 2);
    net.nobody_complains();
    let Net { core, alice, bob } = net;
    bob.stop().await.expect("answered");
    assert_eq!(core.registered().len(), 1);
    assert_eq!(alice.page(&to("bob", 10)).await.status, Some(480), "bob has gone");
}

#[tokio::test]
async fn a_call_nobody_answers_is_cancelled() {
    let behaviour = Behaviour {
        answer: Answer::Never,
        provisional: Provisional::Ringing,
        ..Behaviour::default()
    };
    let net = Net::new(behaviour).await;
    let give_up = Some(GiveUp::Cancel { after: Duration::from_millis(50) });
    let request = PageRequest { give_up, ..to("bob", 10) };
    let (outcome, got) = tokio::join!(net.alice.page(&request), net.got());
    assert_eq!(outcome.status, Some(487));
    assert!(got.cancelled && !got.whole);
    net.nobody_complains();
}

#[tokio::test]
async fn a_page_that_is_given_up_arrives_in_part() {
    let net = Net::new(Behaviour::default()).await;
    let give_up = Some(GiveUp::Abort { after_octets: 30_000 });
    let request = PageRequest { give_up, success_report: false, ..to("bob", 100_000) };
    let (outcome, got) = tokio::join!(net.alice.page(&request), net.got());
    assert!(!outcome.whole && outcome.sent < 100_000);
    assert!(got.aborted && !got.whole);
    assert_eq!(got.octets, outcome.sent);
    net.nobody_complains();
}

#[tokio::test]
async fn an_originator_that_is_cut_off_has_written_what_it_says() {
    let net = Net::new(Behaviour::default()).await;
    let give_up = Some(GiveUp::Kill { after_octets: 30_000 });
    let request = PageRequest { give_up, patience: Duration::from_secs(2), ..to("bob", 100_000) };
    let (outcome, got) = tokio::join!(net.alice.page(&request), net.got());
    assert!((30_000..50_000).contains(&outcome.sent), "{outcome:?}");
    assert!(!got.whole && !got.aborted);
    assert_eq!(got.octets, outcome.sent, "cut off, and still all that was written");
    net.nobody_complains();
}

#[tokio::test]
async fn phones_that_take_a_page_badly() {
    let cases = [
        (Reads::Slowly { octets_per_second: 200_000 }, true),
        (Reads::KillsAfter { octets: 40_000 }, false),
        (Reads::RefusesAfter { octets: 40_000, code: 413 }, false),
    ];
    for (reads, whole) in cases {
        let net = Net::new(Behaviour { reads, ..Behaviour::default() }).await;
        let request = PageRequest { patience: Duration::from_secs(1), ..to("bob", 100_000) };
        let page = async {
            let outcome = net.alice.page(&request).await;
            assert_eq!(outcome.whole, whole, "{reads:?}: {outcome:?}");
            if let Reads::RefusesAfter { code, .. } = reads {
                assert_eq!(outcome.refused, Some(code));
            }
        };
        let page = async { timeout(LIMIT, page).await.is_ok() };
        let (ended, got) = tokio::join!(page, net.got());
        assert!(ended, "{reads:?}");
        assert_eq!(got.whole, whole, "{reads:?}");
    }
}

#[tokio::test]
async fn a_recipient_may_say_bye_first() {
    let behaviour = Behaviour { hangs_up_after_page: true, ..Behaviour::default() };
    let net = Net::new(behaviour).await;
    let request = PageRequest { waits_for_bye: true, ..to("bob", 10) };
    let (outcome, got) = tokio::join!(net.alice.page(&request), net.got());
    assert!(outcome.bye.is_some(), "{outcome:?}");
    assert_eq!(got.ended, Ended::HungUp);
    assert!(got.whole);
}

/// What a careless peer would send, and who complains.
#[tokio::test]
async fn the_core_complains_about_what_does_not_fit() {
    let core = Core::start(Settings::demo()).await.expect("loopback");
    let peer = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let own = peer.local_addr().expect("bound");
    let at = core.address();
    let ask = async |method: &str, uri: &str, more: &str| {
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKx{method};rport\r\n\
             From: <sip:as@{own}>;tag=1\r\nTo: <{uri}>\r\nCall-ID: {method}@x\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:{own}>\r\n{more}Content-Length: 0\r\n\r\n"
        );
        peer.send_to(text.as_bytes(), at).await.expect("sent");
        let mut buffer = [0; 4096];
        let read = timeout(LIMIT, peer.recv(&mut buffer)).await.expect("answered").expect("read");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    let orig = format!("Route: <sip:{at};lr;orig>\r\n");
    let hops = "Max-Forwards: 5\r\n";
    let cases = [
        (
            "CANCEL",
            "sip:bob@ims.test",
            format!("{hops}{orig}"),
            "481",
            "branch is that of no INVITE",
        ),
        ("INVITE", "sip:bob@ims.test", format!("{hops}{orig}"), "404", "no P-Asserted-Identity"),
        ("MESSAGE", "sip:pages@ims.test", format!("{hops}{orig}"), "482", "for itself"),
        ("INVITE", "sip:bob@ims.test", orig.clone(), "483", "Max-Forwards"),
    ];
    for (method, uri, more, status, complaint) in cases {
        let answer = ask(method, uri, &more).await;
        assert!(answer.starts_with(&format!("SIP/2.0 {status} ")), "{answer}");
        let complaints = core.complaints();
        assert!(complaints.iter().any(|c| c.contains(complaint)), "{complaint}: {complaints:?}");
    }
    let answer = ask("OPTIONS", &format!("sip:{at}"), hops).await;
    assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
    peer.send_to(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKother\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:a@h>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n", at).await.expect("sent");
    assert!(ask("OPTIONS", &format!("sip:{at}"), hops).await.starts_with("SIP/2.0 200 "));
    assert!(core.complaints().iter().any(|c| c.contains("topmost Via is not ours")));
}

#[tokio::test]
async fn a_large_list_takes_tcp() {
    let core = Core::start(Settings::demo()).await.expect("loopback");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let server = listener.local_addr().expect("bound");
    core.serve(&format!("sip:{server}")).expect("an address");
    let alice = phone(&core, "alice", Behaviour::default()).await;
    let entries: Vec<_> =
        (0..1000).map(|n| format!("sip:member{n}{}@ims.test", "x".repeat(40))).collect();
    let octets: usize = entries.iter().map(|entry| escape(entry).len()).sum();
    assert!(octets > 50_000);
    let to = Recipients::List { factory: "sip:pages@ims.test".to_owned(), entries };
    let request = PageRequest {
        patience: Duration::from_secs(2),
        ..PageRequest::new(to, "text/plain", Bytes::from_static(b"hello"))
    };
    let server = async {
        use tokio::io::AsyncReadExt;
        let (mut stream, _) = listener.accept().await.expect("connected");
        let mut head = [0; 200];
        stream.read_exact(&mut head).await.expect("the request");
        String::from_utf8_lossy(&head).into_owned()
    };
    let (_, head) = tokio::join!(alice.page(&request), timeout(LIMIT, server));
    let head = head.expect("in time");
    assert!(head.starts_with("INVITE sip:pages@ims.test SIP/2.0\r\nVia: SIP/2.0/TCP "), "{head}");
}

/// A registrar in the hands of a test.
struct Registrar {
    wire: Wire,
    inbox: mpsc::Receiver<Arrived>,
}

impl Registrar {
    async fn new() -> Self {
        let (wire, inbox) = Wire::open(([127, 0, 0, 1], 0).into()).await.expect("loopback");
        Self { wire, inbox }
    }

    /// The next request of this method; repetitions of others are passed over.
    async fn next(&mut self, method: &Method) -> (Message, Way) {
        let asked = async {
            loop {
                let arrived = self.inbox.recv().await.expect("it is open");
                let message = arrived.message.expect("phones write messages");
                if message.method().as_ref() == Some(method) {
                    return (message, arrived.way);
                }
            }
        };
        timeout(LIMIT, asked).await.expect("in time")
    }

    /// The next REGISTER, with its CSeq.
    async fn register(&mut self, cseq: u32) -> (Message, Way) {
        loop {
            let (message, way) = self.next(&Method::Register).await;
            if message.cseq().number >= cseq {
                assert_eq!(message.cseq().number, cseq);
                return (message, way);
            }
        }
    }

    async fn answer(&self, to: &(Message, Way), status: u16, more: &[(&str, &str)]) {
        let mut out = Writer::response(&to.0, status, "Text", Some("r1"));
        for (name, value) in more {
            out.header(name, value);
        }
        self.wire.send(to.1, out.finish(None)).await;
    }
}

fn proven(message: &Message, name: Name, user: &str, password: &[u8]) -> Option<u32> {
    let credentials = Credentials::read(message.header(name)?)?;
    let ha1 = Ha1::of(credentials.algorithm?, user, "ims.test", password);
    let method = message.method()?;
    let right = credentials.uri == message.uri()
        && credentials.answers(credentials.algorithm?, &ha1, method.as_str());
    right.then(|| credentials.count())?
}

/// TS 24.229 5.1.1.2, 5.1.1.4, 5.1.1.6, 5.2.2, 5.2.6.3: a phone that is its own P-CSCF, from its registration to its end.
#[tokio::test]
async fn a_phone_behind_a_core_registers_and_stays_registered() {
    let mut core = Registrar::new().await;
    let uri = format!("sip:{}", core.wire.address());
    let settings = PhoneSettings {
        auth: Some(Auth::password("alice@ims.test:alice-pw").expect("a user")),
        visited: Some("visited.test".to_owned()),
        expires: 60,
        ..PhoneSettings::new(&uri, "sip:alice@ims.test")
    };
    let starting = tokio::spawn(Phone::start(settings));
    let first = core.register(1).await;
    let text = |message: &Message, name| message.text(name).unwrap_or("").to_owned();
    let path = text(&first.0, Name::Path);
    let unproven = text(&first.0, Name::Authorization);
    assert_eq!(first.0.uri(), "sip:ims.test");
    assert!(unproven.contains("username=\"alice@ims.test\"") && unproven.contains("nonce=\"\""));
    assert!(path.starts_with("<sip:127.0.0.1:") && path.ends_with(";lr>"), "{path}");
    assert!(first.0.has_token(Name::Require, "path"));
    assert_eq!(text(&first.0, Name::PVisitedNetworkId), "visited.test");
    assert!(text(&first.0, Name::PChargingVector).starts_with("icid-value=\""));
    let contact = text(&first.0, Name::Contact);
    assert!(contact.ends_with(">;+g.oma.sip-im;+g.oma.sip-im.large-message"), "{contact}");

    let challenge = ("WWW-Authenticate", "Digest realm=\"ims.test\", nonce=\"n1\", qop=\"auth\"");
    core.answer(&first, 401, &[challenge]).await;
    let second = core.register(2).await;
    assert_eq!(second.0.call_id(), first.0.call_id());
    assert_eq!(proven(&second.0, Name::Authorization, "alice@ims.test", b"alice-pw"), Some(1));
    let service = format!("<sip:orig@{};lr>", core.wire.address());
    let granted =
        format!("{};expires=1", contact.split(">;").next().expect("a URI").to_owned() + ">");
    let fine = [("Contact", granted.as_str()), ("Service-Route", service.as_str())];
    core.answer(&second, 200, &fine).await;
    let phone = starting.await.expect("it ran").expect("registered");

    // Again before the second is over, with the next count of the same nonce.
    let third = core.register(3).await;
    assert_eq!(proven(&third.0, Name::Authorization, "alice@ims.test", b"alice-pw"), Some(2));
    let mut standing = phone.standing();
    core.answer(&third, 403, &[]).await;
    timeout(LIMIT, standing.changed()).await.expect("in time").expect("it runs");
    assert!(matches!(&*standing.borrow_and_update(), Standing::Lost(why) if why.contains("403")));
    let fourth = core.register(4).await;
    let long = [("Contact", granted.replace("=1", "=3600")), ("Service-Route", service.clone())];
    let long: Vec<_> = long.iter().map(|(name, value)| (*name, value.as_str())).collect();
    core.answer(&fourth, 200, &long).await;
    timeout(LIMIT, standing.changed()).await.expect("in time").expect("it runs");
    assert_eq!(*standing.borrow_and_update(), Standing::Registered);

    // What it sends passes the Service-Route, with what a P-CSCF asserts.
    let request = to("bob", 10);
    let calling = async { phone.page(&request).await };
    let called = async {
        let invite = core.next(&Method::Invite).await;
        assert_eq!(text(&invite.0, Name::Route), service);
        assert_eq!(text(&invite.0, Name::PAssertedIdentity), "<sip:alice@ims.test>");
        assert!(text(&invite.0, Name::PChargingVector).starts_with("icid-value=\""));
        assert!(invite.0.header(Name::PPreferredIdentity).is_none());
        core.answer(&invite, 486, &[]).await;
    };
    let (outcome, ()) = tokio::join!(calling, called);
    assert_eq!(outcome.status, Some(486));

    let stopping = tokio::spawn(phone.stop());
    let last = core.register(5).await;
    assert_eq!(text(&last.0, Name::Expires), "0");
    core.answer(&last, 200, &[]).await;
    stopping.await.expect("it ran").expect("deregistered");
}

/// A challenge in answer to credentials is answered once more, and no more.
#[tokio::test]
async fn a_phone_does_not_guess() {
    let mut core = Registrar::new().await;
    let settings = PhoneSettings {
        auth: Some(Auth::password("alice@ims.test:guess").expect("a user")),
        ..PhoneSettings::new(&format!("sip:{}", core.wire.address()), "sip:alice@ims.test")
    };
    let starting = tokio::spawn(Phone::start(settings));
    for cseq in 1..=3 {
        let asked = core.register(cseq).await;
        let value = format!("Digest realm=\"ims.test\", nonce=\"n{cseq}\", qop=\"auth\"");
        core.answer(&asked, 401, &[("WWW-Authenticate", &value)]).await;
    }
    let ended = timeout(LIMIT, starting).await.expect("in time").expect("it ran");
    let why = ended.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(why.contains("does not take the credentials"), "{why}");
}

/// TS 24.229 5.1.1.2.1: what failed inside the core is tried again, and not for ever.
#[tokio::test]
async fn a_phone_tries_again_where_the_core_failed() {
    for (failures, registers) in [(2, true), (3, false)] {
        let mut core = Registrar::new().await;
        let uri = format!("sip:{}", core.wire.address());
        let starting = tokio::spawn(Phone::start(PhoneSettings::new(&uri, "sip:alice@ims.test")));
        for cseq in 1..=failures {
            let asked = core.register(cseq).await;
            core.answer(&asked, if cseq == 1 { 504 } else { 500 }, &[]).await;
        }
        if registers {
            let asked = core.register(failures + 1).await;
            core.answer(&asked, 200, &[("Expires", "60")]).await;
        }
        let ended = timeout(LIMIT, starting).await.expect("in time").expect("it ran");
        let why = ended.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert_eq!((ended.is_ok(), why.contains("500")), (registers, !registers), "{why}");
    }
}

/// RFC 3310 with the published test set: the response is made with RES.
#[tokio::test]
async fn a_phone_with_a_sim_answers_aka() {
    let mut core = Registrar::new().await;
    let keys = "465b5ce8b199b49faa5f0a2ee238a6bc:cd63cb71954a9f4e48a5994e37a02baf";
    let nonce = "I1U8vpY3qJ0hiuZNrke/NVXzKLQ1d7m5Sp/6w1Tfr7M=";
    let challenge =
        format!("Digest realm=\"ims.test\", nonce=\"{nonce}\", algorithm=AKAv1-MD5, qop=\"auth\"");
    for (nonce, answered) in [(nonce.to_owned(), true), (nonce.replace("7M=", "7Q="), false)] {
        let settings = PhoneSettings {
            auth: Some(Auth::aka(&format!("carol@ims.test:{keys}")).expect("keys")),
            ..PhoneSettings::new(&format!("sip:{}", core.wire.address()), "sip:carol@ims.test")
        };
        let starting = tokio::spawn(Phone::start(settings));
        let first = core.register(1).await;
        let value = challenge.replace("I1U8vpY3qJ0hiuZNrke/NVXzKLQ1d7m5Sp/6w1Tfr7M=", &nonce);
        core.answer(&first, 401, &[("WWW-Authenticate", &value)]).await;
        if answered {
            let second = core.register(2).await;
            let res = 0xa542_11d5_e3ba_50bf_u64.to_be_bytes();
            assert_eq!(proven(&second.0, Name::Authorization, "carol@ims.test", &res), Some(1));
            core.answer(&second, 200, &[]).await;
        }
        let phone = starting.await.expect("it ran");
        assert_eq!(phone.is_ok(), answered, "a network that does not know K is left");
    }
}

/// RFC 3261 §22.2, §22.3: an INVITE is asked for credentials once; its ACK carries them too.
#[tokio::test]
async fn a_page_answers_a_challenge_once() {
    let mut core = Registrar::new().await;
    let unregistered = PhoneSettings {
        auth: Some(Auth::password("alice:alice-pw").expect("a user")),
        unregistered: true,
        ..PhoneSettings::new(&format!("sip:{}", core.wire.address()), "sip:alice@ims.test")
    };
    let phone = Phone::start(unregistered).await.expect("loopback");
    let challenge = "Digest realm=\"ims.test\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256";
    for (status, asks, credentials) in [
        (401, "WWW-Authenticate", Name::Authorization),
        (407, "Proxy-Authenticate", Name::ProxyAuthorization),
    ] {
        let request = to("bob", 10);
        let calling = async { phone.page(&request).await };
        let called = async {
            let first = core.next(&Method::Invite).await;
            assert!(first.0.header(credentials).is_none() && first.0.header(Name::Route).is_none());
            core.answer(&first, status, &[(asks, challenge)]).await;
            let second = core.next(&Method::Invite).await;
            assert_eq!(second.0.cseq().number, 2);
            assert_eq!(second.0.call_id(), first.0.call_id());
            assert_eq!(proven(&second.0, credentials, "alice", b"alice-pw"), Some(1));
            core.answer(&second, status, &[(asks, challenge)]).await;
        };
        let (outcome, ()) = tokio::join!(calling, called);
        assert_eq!(outcome.status, Some(status), "refused, and not tried for ever");
    }
}

/// Between two ends there may be UDP and proxies of several processes: an ACK may come behind the BYE that was sent after
/// it. Only one that never comes is a mistake.
#[tokio::test]
async fn a_bye_may_overtake_its_ack() {
    for acknowledged in [true, false] {
        let mut caller = Registrar::new().await;
        let from = caller.wire.address();
        let settings = PhoneSettings {
            unregistered: true,
            ..PhoneSettings::new(&format!("sip:{from}"), "sip:bob@ims.test")
        };
        let bob = Phone::start(settings).await.expect("loopback");
        let request = |method: &Method, to_tag: &str| {
            let mut out = Writer::request(method, &format!("sip:bob@{}", bob.address()));
            out.via(&from.to_string(), &format!("z9hG4bK{}", method.as_str()));
            out.header("Max-Forwards", "70").header("From", "<sip:alice@ims.test>;tag=a");
            out.header("To", format!("<sip:bob@ims.test>{to_tag}")).header("Call-ID", "overtaken");
            let number = if *method == Method::Bye { 2 } else { 1 };
            out.header("CSeq", format!("{number} {}", method.as_str()));
            out.header("Contact", format!("<sip:{from}>"));
            out
        };
        let offer = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                     m=message 9 TCP/MSRP *\r\na=accept-types:*\r\na=setup:active\r\na=sendonly\r\n\
                     a=path:msrp://127.0.0.1:9/overtaken;tcp\r\n";
        let to = bob.address();
        let invite =
            request(&Method::Invite, "").finish(Some(("application/sdp", offer.as_bytes())));
        caller.wire.send_to(to, invite).await;
        let tag = loop {
            let arrived = timeout(LIMIT, caller.inbox.recv()).await.expect("in time");
            let answer = arrived.expect("it is open").message.expect("phones write messages");
            if answer.status() == Some(200) {
                let tag = answer.to_tag().expect("a dialog").to_vec();
                break format!(";tag={}", String::from_utf8_lossy(&tag));
            }
        };
        caller.wire.send_to(to, request(&Method::Bye, &tag).finish(None)).await;
        if acknowledged {
            caller.wire.send_to(to, request(&Method::Ack, &tag).finish(None)).await;
        }
        let got = timeout(LIMIT, bob.received()).await.expect("in time").expect("bob is there");
        assert_eq!(got.ended, Ended::Bye);
        let complains = bob.complaints().iter().any(|complaint| complaint.contains("no ACK"));
        assert_eq!(complains, !acknowledged, "{:?}", bob.complaints());
    }
}
