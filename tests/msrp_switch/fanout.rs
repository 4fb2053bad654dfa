//! One page to many: what every recipient gets, whatever the others do.

use crate::support::{Bench, octets, settings};
use pagecast::engine::input::{LegMedia, OriginatorMedia};
use pagecast::msrp::codec::Flag;

/// Proves MS-030, MS-053, MS-081, MS-082, MS-083.
#[tokio::test]
async fn a_page_goes_from_one_to_one_over_real_sockets() {
    let mut bench = Bench::new(settings());
    let address = bench.listen().await;
    let mut originator = bench.open_any();
    originator.stream = Box::new(tokio::net::TcpStream::connect(address).await.expect("connects"));
    let mut recipient = bench.listening_recipient(1).await;

    // We connected: a SEND without content comes at once.
    let first = recipient.next().await.expect("a SEND");
    assert!(!first.head.has_body);
    recipient.respond(&first.head, 200).await;
    bench.leg(1, LegMedia::Bound).await;

    let page = octets(100_000);
    let head = "Message-ID: mess1\r\nByte-Range: 1-*/100000\r\nSuccess-Report: yes\r\nContent-Type: text/plain\r\n";
    originator.send("tr01", head, Some(&page), '$').await;
    assert_eq!(originator.answer().await, 200);
    let report = originator.next().await.expect("a REPORT");
    assert_eq!(report.head.status, Some((0, 200)));

    let taken = recipient.take().await;
    assert_eq!(taken.octets, page);
    assert_eq!(taken.flag, Flag::Last);
    for head in &taken.heads {
        assert_ne!(head.message_id.as_deref(), Some("mess1"));
        assert_ne!(&head.id[..], b"tr01");
        assert_eq!(head.from_path[0].as_str(), recipient.them);
        assert_eq!(head.to_path[0].as_str(), recipient.me);
    }
    let id = taken.heads[0].message_id.clone().expect("an id");
    bench.leg(1, LegMedia::Delivered { octets: 100_000 }).await;
    recipient.report(&id, "1-100000/100000", 200).await;
    bench.leg(1, LegMedia::Quiet).await;
    bench.originator(OriginatorMedia::Settled).await;
    assert_eq!(
        bench.originator_events(),
        [
            OriginatorMedia::Bound,
            OriginatorMedia::Started { content_type: "text/plain".into(), total: Some(100_000) },
            OriginatorMedia::Complete { size: 100_000 },
            OriginatorMedia::Settled,
        ]
    );
    assert_eq!(
        bench.leg_events(1),
        [
            LegMedia::Bound,
            LegMedia::Sending,
            LegMedia::Delivered { octets: 100_000 },
            LegMedia::Quiet
        ]
    );
    assert_eq!(bench.switch.progress(crate::support::leg(1)), 100_000);
}
