//! Somebody dies at the worst moment: what becomes of the page, and that the next one does not notice.

use std::time::Duration;

use pagecast::lab::phone::{Answer, Behaviour, Ended, Provisional, Reads, Settings};
use serde_json::Value;
use tokio::time::timeout;

use super::raw::{Dies, Gets, Victim, page_and_die};
use super::support::{LIMIT, Net, page, result_of, until};

const FAST: [&str; 5] = [
    "profile.sip.t1=30ms",
    "profile.im.leg_timeout=1500ms",
    "profile.msrp.bind_timeout=1500ms",
    "profile.msrp.tx_timeout=2s",
    "profile.im.originator_bye_timeout=1s",
];
const OCTETS: usize = 400_000;

fn state(page: &Value, user: &str) -> String {
    result_of(page, user).0
}

/// A recipient dies: its copy has failed and says why, the other one arrives.
///
/// Proves MS-035, MS-036.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipient_dies() {
    let net = Net::new(&FAST).await;
    let good = net.phone("good", Behaviour::default()).await;
    let cases = [
        Dies::BeforeMsrp,
        Dies::BeforeItConnects,
        Dies::After(1),
        Dies::After(OCTETS / 2),
        Dies::AfterTheLastOctet,
    ];
    for (n, dies) in cases.into_iter().enumerate() {
        let name = format!("victim{n}");
        let victim = Victim::start(&net.core, &name, dies).await;
        let request = page(&["good", &name], OCTETS);
        let outcome = net.alice.page(&request).await;
        assert!(outcome.succeeded(), "{dies:?}: {outcome:?}");
        let got = timeout(LIMIT, good.received()).await.expect("in time").expect("it runs");
        assert!(got.whole && got.content().expect("CPIM").1 == request.body, "{dies:?}");
        let ended = net.server.newest().await;
        assert_eq!(state(&ended, "good"), "delivered", "{dies:?}");
        let (state, protocol, code) = result_of(&ended, &name);
        eprintln!("{dies:?}: {state} {protocol} {code}");
        assert_eq!(state, "deferred", "{dies:?}: {ended}");
        assert!(matches!(protocol.as_str(), "MSRP" | "timer"), "{dies:?}: {protocol} {code}");
        timeout(LIMIT, victim.bye).await.expect("MS-036: BYE").expect("no panic");
        net.works().await;
    }

    // Rings, and is gone before it answers: nobody answers the CANCEL either.
    let silent = Behaviour {
        answer: Answer::Never,
        provisional: Provisional::Ringing,
        ..Behaviour::default()
    };
    let gone = net.phone("gone", silent).await;
    let request = page(&["good", "gone"], OCTETS);
    let dying = async {
        until("ringing", async || {
            let pages = net.server.json("/api/pages?limit=1").await;
            let id = pages["pages"][0]["id"].as_str()?.to_owned();
            let page = net.server.json(&format!("/api/pages/{id}")).await;
            let all = page["recipients"].as_array()?;
            all.iter()
                .any(|r| r["uri"] == "sip:gone@ims.test" && r["state"] == "early")
                .then_some(())
        })
        .await;
        drop(gone);
    };
    let (outcome, ()) = tokio::join!(net.alice.page(&request), dying);
    assert!(outcome.succeeded(), "{outcome:?}");
    let ended = net.server.newest().await;
    assert_eq!(state(&ended, "good"), "delivered");
    let (state, protocol, code) = result_of(&ended, "gone");
    eprintln!("before its answer: {state} {protocol} {code}");
    assert_eq!((state.as_str(), protocol.as_str()), ("deferred", "timer"), "{code}");
    net.works().await;
    net.server.idle().await;
    net.server.ends().await;
}

/// An originator dies: before its page is whole nobody gets it, afterwards everybody does.
///
/// Proves MS-090.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_originator_dies() {
    let net = Net::new(&FAST).await;
    let good = net.phone("good", Behaviour::default()).await;
    let slow = Behaviour {
        reads: Reads::Slowly { octets_per_second: OCTETS as u64 },
        ..Behaviour::default()
    };
    let slow = net.phone("slow", slow).await;

    for gets in [Gets::Nowhere, Gets::Halfway, Gets::ToTheLastOctet, Gets::ToTheEnd] {
        let bye = page_and_die(&net.core, &net.server, &["good", "slow"], OCTETS, gets).await;
        let whole = gets == Gets::ToTheEnd;
        for phone in [&good, &slow] {
            let got = timeout(LIMIT, phone.received()).await.expect("in time").expect("it runs");
            assert_eq!(got.whole, whole, "{gets:?}: {got:?}");
            assert_eq!(got.ended, Ended::Bye, "{gets:?}: {got:?}");
            let begun = matches!(gets, Gets::Halfway | Gets::ToTheLastOctet);
            assert_eq!(got.aborted, begun, "{gets:?}: MS-090 wants `#`: {got:?}");
        }
        let reason = timeout(LIMIT, bye).await.expect("BYE to the originator").expect("no panic");
        let ended = net.server.newest().await;
        eprintln!(
            "{gets:?}: BYE {reason:?}, {:?} {:?}",
            result_of(&ended, "good"),
            result_of(&ended, "slow")
        );
        let wanted = if whole { "delivered" } else { "failed" };
        for name in ["good", "slow"] {
            assert_eq!(state(&ended, name), wanted, "{gets:?}: {ended}");
        }
        net.works().await;
    }

    // Gone before the answer: the 200 is acknowledged by nobody.
    let late = Behaviour { after: Duration::from_millis(700), ..Behaviour::default() };
    let late = net.phone("late", late).await;
    let settings = Settings::new(&net.core.uri(), "sip:gone@ims.test");
    let gone = pagecast::lab::phone::Phone::start(settings).await.expect("registered");
    assert!(timeout(Duration::from_millis(400), gone.page(&page(&["late"], 10))).await.is_err());
    drop(gone);
    let got = timeout(LIMIT, late.received()).await.expect("in time").expect("it runs");
    assert!(!got.whole);
    let ended = net.server.newest().await;
    eprintln!("before the answer: {:?}", result_of(&ended, "late"));
    assert_eq!(state(&ended, "late"), "failed");
    net.works().await;
    net.server.idle().await;
    net.server.ends().await;
}
