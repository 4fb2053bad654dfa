//! How long a page takes; a figure to look at, not to fail by.

use pagecast::lab::phone::Behaviour;
use tokio::time::{Instant, timeout};

use super::support::{LIMIT, Net, page};

/// 200 KB to ten phones, from the sender's ACK to the last delivery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_to_ten_phones() {
    let net = Net::new(&[]).await;
    let names: Vec<String> = (0..10).map(|n| format!("phone{n}")).collect();
    let mut phones = Vec::new();
    for name in &names {
        phones.push(net.phone(name, Behaviour::default()).await);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let outcome = net.alice.page(&page(&names, 200_000)).await;
        assert!(outcome.succeeded(), "{outcome:?}");
        let acknowledged = began + outcome.answered.expect("answered");
        let mut last = acknowledged;
        for phone in &phones {
            let got = timeout(LIMIT, phone.received()).await.expect("in time").expect("it runs");
            last = last.max(got.received_at.expect("whole"));
        }
        times.push(last - acknowledged);
    }
    eprintln!("speed: ACK to the last of 10 deliveries of 200 KB: {times:.1?}");
    net.server.ends().await;
}
