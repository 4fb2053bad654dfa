//! The server is killed again and again under load, and every page it acknowledged has to arrive.
//!
//! `PAGECAST_CRASHES=200 cargo test --test real crashing -- --nocapture` runs it long; six times by default.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pagecast::lab::core::{Core, Settings as CoreSettings};
use pagecast::lab::phone::{Behaviour, PageRequest, Phone, Recipients, Settings};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::support::{Folder, LIMIT, Server, until, user};

const SETTINGS: [&str; 8] = [
    "profile.msrp.drain_after_end=50ms",
    "profile.msrp.conn_linger=100ms",
    "profile.sip.t1=50ms",
    "profile.im.leg_timeout=2s",
    "profile.im.max_parallel_per_user=1000",
    "profile.im.max_rate_per_user=1000/s",
    "profile.ul.budget_per_minute=10000000",
    "profile.deferred.max_per_user=100000",
];
/// Who is there all the time.
const THERE: [&str; 2] = ["bob", "carol"];
/// Who is away until the end.
const AWAY: &str = "dan";
const SENDERS: usize = 3;

/// How often each page arrived at one phone, by the page's own name; the body was checked.
type Inbox = Arc<Mutex<HashMap<String, u32>>>;

fn random(below: u64) -> u64 {
    getrandom::u64().expect("random octets") % below
}

/// A page's body says which page it is, and every octet of it follows from that.
fn body_of(name: &str, octets: usize) -> Vec<u8> {
    let filler = name.bytes().cycle().skip(name.len() / 2);
    name.bytes().chain(*b"\n").chain(filler).take(octets.max(name.len() + 1)).collect()
}

/// A phone that hangs up as soon as it has a page, and does not wait long for a server that has died.
async fn phone(core: &Core, name: &str) -> Phone {
    let behaviour = Behaviour { hangs_up_after_page: true, ..Behaviour::default() };
    let farewell = Duration::from_millis(500);
    let settings = Settings { behaviour, farewell, ..Settings::new(&core.uri(), &user(name)) };
    Phone::start(settings).await.expect("registered")
}

/// Takes whatever arrives at a phone.
fn takes(phone: Phone, inbox: Inbox) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(got) = phone.received().await {
            if !got.whole {
                continue;
            }
            let (_, body) = got.content().expect("an envelope");
            let text = String::from_utf8(body.to_vec()).expect("text");
            let name = text.lines().next().expect("its name").to_owned();
            assert!(text.as_bytes() == body_of(&name, text.len()), "{name} is not as it was sent");
            *inbox.lock().expect("no panic").entry(name).or_default() += 1;
        }
    })
}

/// Sends pages until told to stop; the names of those that were acknowledged.
async fn sends(phone: Arc<Phone>, name: String, running: Arc<Mutex<bool>>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut n = 0;
    while *running.lock().expect("no panic") {
        n += 1;
        let page = format!("{name}-{n}");
        let octets = if random(4) == 0 { 200_000 } else { 2000 } + random(3000) as usize;
        let entries = THERE.iter().chain([&AWAY]).map(|name| user(name)).collect();
        let to = Recipients::List { factory: "sip:pages@ims.test".to_owned(), entries };
        let request = PageRequest {
            patience: Duration::from_secs(3),
            ..PageRequest::new(to, "text/plain", body_of(&page, octets))
        };
        let outcome = phone.page(&request).await;
        // Every octet was answered 200: from then on it is a promise.
        if outcome.whole {
            acknowledged.push(page);
        }
    }
    acknowledged
}

/// Whatever was acknowledged reaches everybody, those who were away as well, octet for octet.
///
/// Proves IM-072, IM-092, IM-097.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_in_crashes() {
    let crashes: u32 =
        std::env::var("PAGECAST_CRASHES").map_or(6, |n| n.parse().expect("a number"));
    let folder = Folder::new();
    let core = Core::start(CoreSettings::demo()).await.expect("loopback");
    core.provision(&user(AWAY));
    let mut server = Server::start(&folder, &core.uri(), &SETTINGS).await;
    core.serve(&format!("sip:{}", server.udp)).expect("an address");
    let inboxes: HashMap<&str, Inbox> =
        THERE.iter().chain([&AWAY]).map(|name| (*name, Inbox::default())).collect();
    let mut taking = Vec::new();
    for name in THERE {
        let phone = phone(&core, name).await;
        taking.push(takes(phone, Arc::clone(&inboxes[name])));
    }
    let mut senders = Vec::new();
    for n in 0..SENDERS {
        senders.push(Arc::new(phone(&core, &format!("alice{n}")).await));
    }
    let mut logs = Vec::new();
    let mut acknowledged = Vec::new();
    for crash in 0..crashes {
        let running = Arc::new(Mutex::new(true));
        let sending: Vec<_> = senders
            .iter()
            .enumerate()
            .map(|(n, phone)| {
                let name = format!("page-{crash}-{n}");
                tokio::spawn(sends(Arc::clone(phone), name, Arc::clone(&running)))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100 + random(700))).await;
        server.program.signal("KILL");
        *running.lock().expect("no panic") = false;
        server.program.ended().await;
        logs.push(server.program.err());
        server = Server::start(&folder, &core.uri(), &SETTINGS).await;
        core.serve(&format!("sip:{}", server.udp)).expect("an address");
        for sender in sending {
            acknowledged.extend(sender.await.expect("no panic"));
        }
    }
    // Whoever was away comes, and gets everything.
    let phone = phone(&core, AWAY).await;
    taking.push(takes(phone, Arc::clone(&inboxes[AWAY])));
    let missing = || -> Vec<String> {
        let here =
            |name: &str, page: &String| inboxes[name].lock().expect("no panic").contains_key(page);
        let of = |name: &'static str| {
            acknowledged
                .iter()
                .filter(move |page| !here(name, page))
                .map(move |page| format!("{name}: {page}"))
        };
        THERE.into_iter().chain([AWAY]).flat_map(of).collect()
    };
    let patience = LIMIT + Duration::from_millis(100) * acknowledged.len() as u32;
    let arrived = timeout(patience, async {
        while !missing().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    if arrived.await.is_err() {
        logs.push(server.program.err());
        let missing = missing();
        panic!("{} of {}: {missing:?}\n{}", missing.len(), acknowledged.len(), logs.join("\n--\n"));
    }
    let doubled: u32 = inboxes
        .values()
        .flat_map(|inbox| {
            inbox.lock().expect("no panic").values().map(|n| n - 1).collect::<Vec<_>>()
        })
        .sum();
    eprintln!(
        "{crashes} crashes: {} pages acknowledged, all of them at {} phones; {doubled} copies came twice",
        acknowledged.len(),
        inboxes.len()
    );
    assert!(!acknowledged.is_empty(), "the load was none");
    // Nothing waits and nothing is left of any page.
    server.idle().await;
    until("the store is empty", async || {
        let store = rusqlite::Connection::open(folder.join("var/pagecast.db")).ok()?;
        let rows: i64 = store
            .query_row(
                "SELECT (SELECT count(*) FROM page) + (SELECT count(*) FROM chunk) + (SELECT count(*) FROM run) + \
                 (SELECT count(*) FROM wait) + (SELECT count(*) FROM held)",
                [],
                |row| row.get(0),
            )
            .ok()?;
        (rows == 0).then_some(())
    })
    .await;
    taking.iter().for_each(JoinHandle::abort);
    server.ends().await;
}
