//! The neighbours among themselves: phones page each other through the core, and each notices what is wrong.

use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::core::{Core, Settings};
use super::phone::{
    Answer, Behaviour, Ended, GiveUp, PageRequest, Phone, Provisional, Reads, Received, Recipients,
    Settings as PhoneSettings,
};
use crate::content::xml::escape;

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
