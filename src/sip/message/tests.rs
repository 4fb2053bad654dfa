use bytes::{Bytes, BytesMut};

use super::*;
use crate::sip::{Flow, Protocol};

const INVITE: &str = "INVITE sip:im-exploder@im.home1.example SIP/2.0\r\n\
    Via: SIP/2.0/UDP scscf1.home1.example:5060;branch=z9hG4bK351g45.1;rport, SIP/2.0/UDP [5555::aaa]:1357;branch=z9hG4bKnash\r\n\
    v: SIP/2.0/UDP 10.0.0.1\r\n\
    Max-Forwards: 68\r\n\
    Record-Route: <sip:scscf1.home1.example;lr>\r\n\
    f: \"A \\\"Quoted\\\" \\\\ Name\" <sip:alice%20@home1.example;transport=tcp?x=y>;TAG=171828;x=\"a;b,c\"\r\n\
    To: <tel:+1-212-555-2222;phone-context=x>;p\r\n\
    i: cb03a0s09a2sdfglkj490333\r\n\
    CSeq: 0127 INVITE\r\n\
    Contact: <sip:[5555::aaa]:1357>;+sip.instance=\"<urn:uuid:1>\", <sip:b@c>\r\n\
    Require: recipient-list-invite ,  100REL\r\n\
    Allow: INVITE, ACK,\r\n\
    \tCANCEL\r\n\
    Subject: caf\u{e9}\r\n\
    X-Own: 1\r\n\
    l: 4\r\n\
    \r\nbodymore";

fn parse(text: impl AsRef<[u8]>) -> Result<Message, Malformed> {
    Message::parse(Bytes::copy_from_slice(text.as_ref()), &Limits::default())
}

#[test]
fn an_invite_is_read_as_it_stands() {
    let message = parse(INVITE).unwrap();
    assert_eq!(message.method(), Some(Method::Invite));
    assert_eq!(message.uri(), "sip:im-exploder@im.home1.example");
    assert_eq!(message.status(), None);
    assert_eq!(message.cseq(), CSeq { number: 127, method: Method::Invite });
    assert_eq!(message.call_id(), b"cb03a0s09a2sdfglkj490333");
    let from = message.from();
    assert_eq!(from.display.as_deref(), Some("A \"Quoted\" \\ Name"));
    assert_eq!(from.uri, "sip:alice%20@home1.example;transport=tcp?x=y");
    assert_eq!(from.param("tag"), Some("171828"));
    assert_eq!(from.param("X"), Some("a;b,c"));
    assert_eq!(message.from_tag(), Some(&b"171828"[..]));
    assert_eq!(message.to_tag(), None);
    assert_eq!(message.to().uri, "tel:+1-212-555-2222;phone-context=x");
    assert_eq!(message.to().param("p"), Some(""));
    let via = message.via();
    assert_eq!((via.transport, via.host, via.port), ("UDP", "scscf1.home1.example", Some(5060)));
    assert_eq!((via.branch, via.rport, via.received), (Some("z9hG4bK351g45.1"), Some(None), None));
    assert_eq!(message.lines(Name::Via).count(), 2);
    assert_eq!(message.values(Name::Via).count(), 3);
    let contacts: Vec<_> = message.values(Name::Contact).collect();
    assert_eq!(
        contacts,
        [&b"<sip:[5555::aaa]:1357>;+sip.instance=\"<urn:uuid:1>\""[..], b"<sip:b@c>"]
    );
    assert_eq!(
        message.contact().and_then(|contact| contact.param("+SIP.instance")),
        Some("<urn:uuid:1>")
    );
    assert!(message.has_token(Name::Require, "100rel") && message.has_token(Name::Allow, "CANCEL"));
    assert!(!message.has_token(Name::Allow, "cancel"));
    assert_eq!(message.header(Name::Allow), Some(&b"INVITE, ACK, CANCEL"[..]));
    assert_eq!(message.text(Name::Other("x-own")), Some("1"));
    assert_eq!(message.body(), b"body");
    assert_eq!(message.all_headers().count(), 14);
}

#[test]
fn a_response_is_read_as_it_stands() {
    let text = "SIP/2.0 183 Sitzung l\u{e4}uft\r\nVia: SIP/2.0/TCP a_b.example;received=1.2.3.4;rport=77;branch=z9hG4bK1\r\n\
        From: sip:a@b;tag=1\r\nTo: sip:c@d;tag=2\r\nCall-ID: x\r\nCSeq: 1 PRACK\r\n\r\n";
    let message = parse(text).unwrap();
    assert_eq!((message.status(), message.reason()), (Some(183), "Sitzung l\u{e4}uft"));
    assert!(!message.is_request() && message.method().is_none() && message.uri().is_empty());
    assert_eq!((message.from_tag(), message.to_tag()), (Some(&b"1"[..]), Some(&b"2"[..])));
    assert_eq!(message.from().uri, "sip:a@b");
    assert_eq!((message.via().received, message.via().rport), (Some("1.2.3.4"), Some(Some(77))));
    assert_eq!(message.via().host, "a_b.example");
}

#[test]
fn an_answer_echoes_bytes_and_says_where_the_request_came_from() {
    let message = parse(INVITE).unwrap();
    let flow = Flow {
        protocol: Protocol::Udp,
        local: "127.0.0.1:5060".parse().unwrap(),
        peer: "192.0.2.9:5070".parse().unwrap(),
        connection: 0,
        vouched: false,
    };
    let mut writer = Writer::response_from(&message, &flow, 180, reason_phrase(180), Some("00tag"));
    writer
        .header("X-Evil", "a\r\nX-Injected: yes\0")
        .header("content-length", "77")
        .lines(b"A: 1\r\n\r\nL: 3\r\nB: 2");
    writer.echo(&message, Name::Allow);
    let out = writer.finish(Some(("text/plain", b"hi")));
    let expected = "SIP/2.0 180 Ringing\r\n\
        Via: SIP/2.0/UDP scscf1.home1.example:5060;branch=z9hG4bK351g45.1;received=192.0.2.9;rport=5070, SIP/2.0/UDP [5555::aaa]:1357;branch=z9hG4bKnash\r\n\
        Via: SIP/2.0/UDP 10.0.0.1\r\n\
        From: \"A \\\"Quoted\\\" \\\\ Name\" <sip:alice%20@home1.example;transport=tcp?x=y>;TAG=171828;x=\"a;b,c\"\r\n\
        To: <tel:+1-212-555-2222;phone-context=x>;p;tag=00tag\r\n\
        Call-ID: cb03a0s09a2sdfglkj490333\r\n\
        CSeq: 0127 INVITE\r\n\
        X-Evil: aX-Injected: yes\r\n\
        A: 1\r\n\
        B: 2\r\n\
        Allow: INVITE, ACK,\r\n\tCANCEL\r\n\
        Content-Type: text/plain\r\n\
        Content-Length: 2\r\n\r\nhi";
    assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
}

#[test]
fn a_stream_is_cut_the_same_however_it_was_split() {
    let stream = format!(
        "\r\n\r\n{}\r\n{}",
        INVITE.trim_end_matches("more"),
        INVITE.trim_end_matches("more")
    );
    let stream = stream.as_bytes();
    for step in 1..stream.len() {
        let (mut framer, mut buffer, mut frames) =
            (Framer::new(&Limits::default()), BytesMut::new(), Vec::new());
        for piece in stream.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = framer.feed(&mut buffer).unwrap() {
                frames.push(frame);
            }
        }
        let message =
            Frame::Message(Bytes::copy_from_slice(INVITE.trim_end_matches("more").as_bytes()));
        assert_eq!(frames, [Frame::Ping, message.clone(), Frame::Pong, message], "step {step}");
    }
}
