//! INVITEs of ours.

use super::*;

fn call(bench: &mut Bench) -> (CallKey, Sent) {
    let call = bench.act(|ua, now| ua.invite(now, our_invite()));
    (call, bench.send())
}

/// Proves IM-016.
#[test]
fn a_2xx_is_acknowledged_on_the_way_it_showed_and_so_is_each_repetition() {
    let mut bench = Bench::new();
    let (call, invite) = call(&mut bench);
    assert_eq!(invite.next_hop(), "sip:orig@scscf.example;lr #0");
    assert_eq!(&invite.text()[invite.via_at.expect("a request has a Via to patch")..][..4], "UDP ");
    bench.gets(answer(&invite.message, 100, "", "", None));
    let x = "Contact: <sip:x@198.51.100.7>\r\nRecord-Route: <sip:near.example;lr>\r\n";
    bench.gets(answer(&invite.message, 183, "t1", x, None));
    bench.gets(answer(&invite.message, 200, "t1", PHONE, Some(SDP)));
    assert_eq!(bench.heard(), "Provisional 183 t1 new, Answered t1");
    let ack = bench.send();
    assert_eq!(
        ack.message.uri(),
        "sip:bob@198.51.100.7:5066;gr=x",
        "the Contact of the 200, not of the 183"
    );
    assert_eq!(
        ack.all(Name::Route),
        ["<sip:near.example;lr>", "<sip:second.example;lr>", "<sip:first.example;lr>"],
        "Record-Route reversed"
    );
    assert_eq!(ack.next_hop(), "sip:near.example;lr #0");
    assert_eq!(ack.one(Name::CSeq), "1 ACK");
    assert_eq!(
        ack.one(Name::UserAgent),
        "",
        "the lines for requests in the dialog are not for ACK"
    );
    assert_ne!(ack.message.via().branch, invite.message.via().branch);
    for _ in 0..2 {
        bench.gets(answer(&invite.message, 200, "t1", PHONE, Some(SDP)));
        assert_eq!(bench.send().text(), ack.text());
    }
    assert_eq!(bench.heard(), "");
    bench.act(|ua, now| ua.bye(now, call, b"Reason: SIP;cause=200\r\n"));
    let bye = bench.send();
    assert_eq!(bye.message.uri(), ack.message.uri());
    assert_eq!(bye.all(Name::Route), ack.all(Name::Route));
    assert_eq!(
        (bye.one(Name::CSeq), bye.one(Name::Reason)),
        ("2 BYE".into(), "SIP;cause=200".into())
    );
    assert_eq!(bye.one(Name::UserAgent), "pagecast");
    bench.gets(answer(&bye.message, 200, "", "", None));
    bench.act(|ua, _| ua.close(call));
    bench.after(seconds(33));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}
