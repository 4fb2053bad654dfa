//! What call flows keep of MSRP: every message that matters, no content and no session-id.

use std::sync::Arc;

use crate::support::{Bench, octets, page, settings};
use pagecast::engine::input::LegMedia;
use pagecast::flow::{self, Flows};

/// Proves MS-116.
#[tokio::test]
async fn a_page_leaves_its_heads_and_no_secret() {
    let mut bench = Bench::new(settings());
    let flows = Arc::new(Flows::new(&flow::Settings::default()).expect("random octets"));
    bench.switch.tap(Arc::clone(&flows), "as1".into());
    let address = bench.listen().await;
    let mut originator = bench.open_any();
    originator.stream = Box::new(tokio::net::TcpStream::connect(address).await.expect("connects"));
    let mut recipient = bench.listening_recipient(1).await;
    let first = recipient.next().await.expect("a SEND");
    recipient.respond(&first.head, 200).await;
    bench.leg(1, LegMedia::Bound).await;
    let content = octets(100_000);
    let head = "Message-ID: mess1\r\nByte-Range: 1-*/100000\r\nSuccess-Report: yes\r\nContent-Type: text/plain\r\n";
    originator.send("tr01", head, Some(&content), '$').await;
    assert_eq!(originator.answer().await, 200);
    originator.next().await.expect("a REPORT");
    recipient.take().await;
    bench.leg(1, LegMedia::Delivered { octets: 100_000 }).await;

    let json = flows.get(page().as_u64()).expect("it is there").to_json();
    let messages = json["messages"].as_array().expect("a list");
    let found = |from: &str, to: &str, words: &str| -> Vec<&serde_json::Value> {
        let is = |m: &&serde_json::Value| {
            m["from"] == from
                && m["to"] == to
                && m["line"].as_str().is_some_and(|l| l.contains(words))
        };
        messages.iter().filter(is).collect()
    };
    let [send] = found("originator", "as1", "tr01 SEND")[..] else { panic!("{json:#}") };
    assert_eq!(send["body"]["octets"], 100_000);
    assert_eq!(send["body"]["type"], "text/plain");
    assert_eq!((&send["proto"], &send["leg"]), (&"MSRP".into(), &serde_json::Value::Null));
    assert_eq!(send["local"], address.to_string());
    assert!(send["remote"].is_string());
    assert_eq!(found("as1", "originator", "tr01 200").len(), 1, "{json:#}");
    assert_eq!(found("as1", "originator", "REPORT").len(), 1, "{json:#}");
    let sent: u64 = found("as1", "recipient 1", "SEND")
        .iter()
        .filter_map(|message| message["body"]["octets"].as_u64())
        .sum();
    assert_eq!(sent, 100_000, "{json:#}");
    assert!(!found("recipient 1", "as1", " 200").is_empty(), "{json:#}");

    let text = json.to_string();
    for uri in [&originator.me, &originator.them, &recipient.me, &recipient.them] {
        let id = uri.rsplit('/').next().and_then(|id| id.split(';').next()).expect("a session-id");
        assert!(!text.contains(id), "a session-id got out: {id}");
    }
}
