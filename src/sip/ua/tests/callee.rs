//! INVITEs of the peer.

use super::*;

#[test]
fn a_call_from_its_invite_to_its_bye() {
    let mut bench = Bench::new();
    bench.gets(Ask::invite().write());
    let trying = bench.send();
    assert_eq!((trying.message.status(), trying.message.to_tag()), (Some(100), None));
    let events = bench.events();
    let [Event::Invited { call, .. }] = events[..] else { panic!("{events:?}") };
    bench.act(|ua, now| ua.answer(now, call, our_answer(200)));
    let ok = bench.send();
    assert_eq!(ok.one(Name::RecordRoute), "<sip:scscf.example;lr>, <sip:pcscf.example;lr>");
    assert_eq!(
        (ok.one(Name::Contact), ok.one(Name::Server)),
        ("<sip:session1@192.0.2.1>".into(), "pagecast".into())
    );
    bench.gets(Ask::inside("ACK", 1, &ok.message).write());
    assert_eq!(bench.heard(), "Acked");
    bench.gets(Ask::inside("BYE", 2, &ok.message).write());
    assert_eq!(bench.heard(), "Bye");
    assert_eq!(bench.kinds(), "200 BYE");
    bench.act(|ua, _| ua.close(call));
    bench.after(seconds(33));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}
