//! What a large page to many costs.

use std::time::Duration;

use pagecast::lab::phone::{Behaviour, Reads};
use tokio::time::timeout;

use super::support::{LIMIT, Net, page, result_of};

/// Most the server may grow by, in KiB: what of the page stays in memory, all of it on its way into the store, and a
/// write buffer for each recipient.
const MOST: u64 = 64 * 1024;

/// A page of 10 MiB to 50 recipients, one of whom does not read: 49 get it, and the server stays small.
///
/// Proves IM-071.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_page_to_many_costs_little() {
    let stall = "profile.msrp.leg_stall_timeout=8s";
    let net =
        Net::new(&[stall, "profile.msrp.max_message=11MiB", "profile.im.large.max_size=11MiB"])
            .await;
    let mut phones = Vec::new();
    let mut names: Vec<String> = (1..50).map(|n| format!("reader{n}")).collect();
    for name in &names {
        phones.push(net.phone(name, Behaviour::default()).await);
    }
    // Reads one buffer and then nothing for hours.
    let stuck = Behaviour { reads: Reads::Slowly { octets_per_second: 1 }, ..Behaviour::default() };
    let stuck = net.phone("stuck", stuck).await;
    names.push("stuck".to_owned());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();

    let before = net.server.memory("VmRSS");
    // From here on VmHWM is the peak of what follows (proc(5)).
    let reset = format!("/proc/{}/clear_refs", net.server.program.pid());
    std::fs::write(reset, "5").expect("our own child");
    let request = page(&names, 10 << 20);
    let outcome = net.alice.page(&request).await;
    assert!(outcome.succeeded(), "{outcome:?}");
    let mut sums = Vec::new();
    for phone in &phones {
        let got = timeout(LIMIT, phone.received()).await.expect("in time").expect("it runs");
        assert!(got.whole, "{}", got.aor);
        let (_, content) = got.content().expect("CPIM");
        assert!(content == request.body, "{} has other octets", got.aor);
        if sums.is_empty() {
            sums.push(got.sha256());
            sums.push(pagecast::lab::phone::sha256(&request.body));
        }
    }
    let peak = net.server.memory("VmHWM");
    let grown = peak.saturating_sub(before);
    eprintln!(
        "memory: {before} KiB before, {peak} KiB at the peak, grown by {grown} KiB; \
         last of 49 copies done, sha256 with envelope {} content {}; originator waited {:.1?}",
        sums[0], sums[1], outcome.took
    );
    assert!(grown < MOST, "grown by {grown} KiB");

    let ended = net.server.newest().await;
    assert_eq!(ended["recipients"].as_array().map(Vec::len), Some(50));
    for name in &names[..49] {
        assert_eq!(result_of(&ended, name).0, "delivered", "{name}");
    }
    assert_eq!(result_of(&ended, "stuck").0, "deferred");
    let peak = net.server.memory("VmHWM").saturating_sub(before);
    assert!(peak < MOST, "grown by {peak} KiB in the end");
    drop(stuck);
    until_idle(net).await;
}

async fn until_idle(net: Net) {
    timeout(Duration::from_secs(60), net.server.idle()).await.expect("nothing is left");
    assert_eq!(net.server.spooled(&net.folder), 0);
    net.server.ends().await;
}
