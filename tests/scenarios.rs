//! The whole server between a small core and phones, over real sockets of loopback: what each of them gets to see.
//!
//! Start at [`Net`]: a node in this process, a core beside it, phones that behave well or badly. Phones and core complain
//! about every message that does not fit; [`Net::ends`] proves that nobody did and that nothing is left.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use pagecast::config::Loaded;
use pagecast::config::node::NodeSettings;
use pagecast::lab::core::{Core, Settings as CoreSettings};
use pagecast::lab::phone::{
    Answer, Behaviour, Ended, GiveUp, PageRequest, Phone, Provisional, Reads, Received, Recipients,
    Settings, Setup,
};
use pagecast::node::Node;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

struct Net {
    core: Core,
    node: Node,
    alice: Phone,
    phones: Vec<Phone>,
    folder: PathBuf,
}

impl Net {
    /// Alice, and a phone for each behaviour, named by it.
    async fn new(profile: &[&str], phones: &[(&str, Behaviour)]) -> Self {
        let core = Core::start(CoreSettings::demo()).await.expect("loopback");
        let random = getrandom::u64().expect("random bytes");
        let folder = std::env::temp_dir().join(format!("pagecast-scenario-{random:016x}"));
        std::fs::create_dir(&folder).expect("a folder");
        let mut set = vec![
            format!("node.data_dir={}", folder.display()),
            format!("core.scscf={}", core.uri()),
            "sip.listen=[\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]".to_owned(),
            "msrp.listen=[\"127.0.0.1:0\"]".to_owned(),
            "xdms.listen=127.0.0.1:0".to_owned(),
            "ops.listen=127.0.0.1:0".to_owned(),
            "profile.msrp.drain_after_end=200ms".to_owned(),
        ];
        set.extend(profile.iter().map(|key| format!("profile.{key}")));
        let loaded = Loaded::load_with(None, &set, &|_| None).expect("a good configuration");
        let node = Node::start(NodeSettings::new(&loaded, 2), None, None).await.expect("started");
        let (_, at) = node.doors().sip.first().expect("a SIP door");
        core.serve(&format!("sip:{at}")).expect("an address");
        let mut net = Self {
            alice: phone(&core, Settings::new(&core.uri(), "sip:alice@ims.test")).await,
            core,
            node,
            phones: Vec::new(),
            folder,
        };
        for (name, behaviour) in phones {
            let settings = Settings::new(&net.core.uri(), &format!("sip:{name}@ims.test"));
            let behaviour = behaviour.clone();
            let started = phone(&net.core, Settings { behaviour, ..settings }).await;
            net.phones.push(started);
        }
        net
    }

    /// The next call of the phone at `at`, once it is over.
    async fn got(&self, at: usize) -> Received {
        let name = self.phones[at].aor();
        let got = timeout(LIMIT, self.phones[at].received()).await;
        got.unwrap_or_else(|_| panic!("{name} got nothing in time")).expect("it runs")
    }

    /// Everything is over: no page, session or octet is left, and nobody complained.
    async fn ends(self) {
        timeout(LIMIT, self.node.drain()).await.expect("a node that is idle");
        let switch = self.node.control().switch();
        let empty = async {
            // Connections let go of a page's octets when their tasks have run.
            loop {
                let left = switch.stats();
                if (left.pages, left.sessions, left.spool_octets) == (0, 0, 0) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let emptied = timeout(LIMIT, empty).await;
        assert!(emptied.is_ok(), "something is left: {:?}", switch.stats());
        let mut complaints = self.core.complaints();
        for phone in self.phones.iter().chain([&self.alice]) {
            complaints.extend(phone.complaints());
        }
        assert!(complaints.is_empty(), "{complaints:#?}");
        self.node.stop();
        std::fs::remove_dir_all(&self.folder).expect("our own folder");
    }
}

async fn phone(core: &Core, settings: Settings) -> Phone {
    let name = settings.aor.clone();
    core.provision(&name);
    Phone::start(settings).await.unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn page(names: &[&str], octets: usize) -> PageRequest {
    let body: Bytes = (0..octets).map(|at| b'a' + (at % 26) as u8).collect();
    let entries = names.iter().map(|name| format!("sip:{name}@ims.test")).collect();
    let to = Recipients::List { factory: "sip:pages@ims.test".to_owned(), entries };
    PageRequest { patience: Duration::from_secs(30), ..PageRequest::new(to, "text/plain", body) }
}

fn refuses(status: u16) -> Behaviour {
    Behaviour { answer: Answer::Refuse { status }, ..Behaviour::default() }
}

/// Proves IM-001, IM-003, IM-011, IM-019, IM-051, IM-054, IM-058, IM-060, IM-070, MS-083, MS-085, UL-026.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_phone_gets_what_it_can_take() {
    let good = Behaviour::default;
    let late = Duration::from_secs(4);
    let fine = [
        ("passive", good()),
        ("active", Behaviour { setup: Setup::Active, ..good() }),
        ("ringing", Behaviour { provisional: Provisional::Ringing, ..good() }),
        ("reliable", Behaviour { provisional: Provisional::Reliable, ..good() }),
        ("progress", Behaviour { provisional: Provisional::Progress, ..good() }),
        ("late", Behaviour { after: late, ..good() }),
        ("slow", Behaviour { reads: Reads::Slowly { octets_per_second: 100_000 }, ..good() }),
        ("hasty", Behaviour { hangs_up_after_page: true, ..good() }),
    ];
    let bad = [
        ("busy", refuses(486)),
        ("unusable", Behaviour { answer: Answer::Unusable, ..good() }),
        ("killer", Behaviour { reads: Reads::KillsAfter { octets: 50_000 }, ..good() }),
        ("full", Behaviour { reads: Reads::RefusesAfter { octets: 50_000, code: 413 }, ..good() }),
        ("small", Behaviour { max_size: Some(1000), ..good() }),
    ];
    let phones = [&fine[..], &bad[..]].concat();
    let net = Net::new(&[], &phones).await;
    net.core.provision("sip:offline@ims.test");
    let mut names: Vec<_> = phones.iter().map(|(name, _)| *name).collect();
    names.extend(["offline", "unknown", "passive", "alice"]);

    let request = page(&names, 200_000);
    let outcome = net.alice.page(&request).await;
    assert!(outcome.succeeded(), "{outcome:?}");
    assert_eq!((outcome.status, outcome.report), (Some(200), Some(200)));
    let early: Vec<_> = outcome.provisional.iter().map(|(_, status)| *status).collect();
    let count = |status| early.iter().filter(|early| **early == status).count();
    assert!(count(183) <= 1 && count(180) <= 1, "IM-054: {early:?}");
    assert!(outcome.took < late, "IM-019: nobody waits for the late one, nor for the slow one");

    let mut calls = Vec::new();
    for (at, (name, _)) in fine.iter().enumerate() {
        let got = net.got(at).await;
        assert!(got.whole, "{name}: {got:?}");
        let (kind, content) = got.content().expect("CPIM");
        assert!(kind == "text/plain" && content == request.body, "{name} has other octets");
        let ended = if *name == "hasty" { Ended::HungUp } else { Ended::Bye };
        assert_eq!(got.ended, ended, "{name}");
        calls.push(got.call_id);
    }
    for (at, (name, _)) in (fine.len()..).zip(&bad) {
        let got = net.got(at).await;
        assert!(!got.whole, "{name}");
        calls.push(got.call_id);
    }
    calls.sort();
    calls.dedup();
    assert_eq!(calls.len(), phones.len(), "IM-001: a dialog each");
    net.ends().await;
}

/// Proves IM-031, IM-056, IM-057, IM-067.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_originator_hears_the_refusal_that_fits() {
    let phones = [("busy", refuses(486)), ("also", refuses(486)), ("never", refuses(603))];
    let net = Net::new(&[], &phones).await;
    net.core.provision("sip:offline@ims.test");
    let cases: [(&[&str], u16); 7] = [
        (&["busy"], 486),
        (&["busy", "also"], 486),
        (&["busy", "unknown"], 480),
        (&["offline"], 480),
        (&["unknown"], 404),
        (&["never"], 603),
        (&["alice"], 403),
    ];
    for (names, status) in cases {
        let outcome = net.alice.page(&page(names, 10)).await;
        assert_eq!(outcome.status, Some(status), "{names:?}: {outcome:?}");
    }
    net.ends().await;
}

/// Proves IM-061, IM-063, IM-067.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_answer_is_cancelled() {
    let silent = Behaviour { answer: Answer::Never, ..Behaviour::default() };
    let net = Net::new(&["im.leg_timeout=2s"], &[("silent", silent)]).await;
    let give_up = Some(GiveUp::Cancel { after: Duration::from_millis(500) });
    let outcome = net.alice.page(&PageRequest { give_up, ..page(&["silent"], 10) }).await;
    assert_eq!(outcome.status, Some(487), "{outcome:?}");
    assert!(net.got(0).await.cancelled, "by the originator");

    let outcome = net.alice.page(&page(&["silent"], 10)).await;
    assert_eq!(outcome.status, Some(480), "{outcome:?}");
    assert!(outcome.answered.is_some_and(|at| at >= Duration::from_secs(2)));
    assert!(net.got(0).await.cancelled, "by the server");
    net.ends().await;
}

/// Proves IM-064, IM-073.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_taken_back_reaches_nobody_whole() {
    let net = Net::new(&[], &[("passive", Behaviour::default())]).await;
    for give_up in
        [GiveUp::Abort { after_octets: 1_000_000 }, GiveUp::Kill { after_octets: 1_000_000 }]
    {
        let request = PageRequest { give_up: Some(give_up), ..page(&["passive"], 3_000_000) };
        let outcome = net.alice.page(&request).await;
        assert_eq!(outcome.status, Some(200), "{outcome:?}");
        assert!(!outcome.whole && outcome.bye.is_some(), "{give_up:?}: {outcome:?}");
        let got = net.got(0).await;
        assert!(!got.whole && got.ended == Ended::Bye, "{give_up:?}: {got:?}");
    }
    net.ends().await;
}

/// Proves IM-053, IM-066, IM-067.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_originator_that_acknowledges_nothing_is_given_up() {
    let silent = Behaviour { answer: Answer::Never, ..Behaviour::default() };
    let phones = [("passive", Behaviour::default()), ("silent", silent)];
    let net = Net::new(&["sip.t1=30ms"], &phones).await;
    let sender = |name: &str| Settings::new(&net.core.uri(), &format!("sip:{name}@ims.test"));

    let careless = phone(&net.core, Settings { no_prack: true, ..sender("careless") }).await;
    let outcome = careless.page(&page(&["silent"], 10)).await;
    assert_eq!(outcome.status, Some(500), "{outcome:?}");
    assert!(net.got(1).await.cancelled);

    let careless = phone(&net.core, Settings { no_ack: true, ..sender("heedless") }).await;
    let request = PageRequest { waits_for_bye: true, ..page(&["passive"], 10) };
    let outcome = careless.page(&request).await;
    assert_eq!(outcome.status, Some(200));
    assert!(outcome.bye.is_some(), "{outcome:?}");
    net.got(0).await;
    net.ends().await;
}
