//! What pages that reach nobody leave behind: nothing.

use std::sync::Arc;
use std::time::Duration;

use pagecast::lab::phone::{Answer, Behaviour, GiveUp, PageRequest, Provisional};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::support::{Net, page, until};

/// A thousand pages that fail, some of them taken back by their sender, and then nothing is left of them.
///
/// Proves IM-067.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_failed_pages_leave_nothing() {
    let net = Net::new(&["profile.sip.t1=10ms", "profile.msrp.bind_timeout=1s"]).await;
    let refuses = |status| Behaviour { answer: Answer::Refuse { status }, ..Behaviour::default() };
    let _busy = net.phone("busy", refuses(486)).await;
    let _away = net.phone("away", refuses(480)).await;
    let silent = Behaviour {
        answer: Answer::Never,
        provisional: Provisional::Ringing,
        ..Behaviour::default()
    };
    let _silent = net.phone("silent", silent).await;
    net.core.provision("sip:offline@ims.test");
    net.works().await;
    net.server.idle().await;
    let base = net.server.descriptors();
    let memory = net.server.memory("VmRSS");

    let Net { core, server, alice, folder } = net;
    let (alice, places) = (Arc::new(alice), Arc::new(Semaphore::new(16)));
    let mut running = JoinSet::new();
    for n in 0..1000 {
        let place = places.clone().acquire_owned().await.expect("open");
        let alice = alice.clone();
        running.spawn(async move {
            let request = if n % 10 == 0 {
                let give_up =
                    Some(GiveUp::Cancel { after: Duration::from_millis(30 + n % 7 * 20) });
                PageRequest { give_up, ..page(&["silent", "busy"], 100) }
            } else if n % 3 == 0 {
                page(&["busy", "offline"], 100)
            } else {
                page(&["busy", "away"], 100)
            };
            let cancelled = request.give_up.is_some();
            let outcome = alice.page(&request).await;
            drop(place);
            (cancelled, outcome)
        });
    }
    while let Some(done) = running.join_next().await {
        let (cancelled, outcome) = done.expect("no panic");
        let status = outcome.status.unwrap_or_default();
        let right = if cancelled { status == 487 } else { matches!(status, 480 | 486) };
        assert!(right, "{outcome:?}");
    }
    server.idle().await;
    until("descriptors as before", async || (server.descriptors() <= base).then_some(())).await;
    assert_eq!(server.spooled(&folder), 0);
    eprintln!(
        "leaks: descriptors {base} before, {} after; resident {memory} KiB before, {} KiB after",
        server.descriptors(),
        server.memory("VmRSS")
    );
    let complaints = [core.complaints(), alice.complaints()].concat();
    assert!(complaints.is_empty(), "{complaints:#?}");
    server.ends().await;
}
