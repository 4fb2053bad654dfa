//! Why the published SIP stack plays phones here and does not carry our traffic.
//!
//! Each test shows one thing it still gets wrong. A test that fails is good news: a release closed that gap, and the
//! choice should be looked at again.

use std::sync::atomic::{AtomicUsize, Ordering};

use ezk_sip_core::{Endpoint, Request};
use ezk_sip_types::header::typed::Contact;
use ezk_sip_types::uri::{NameAddr, SipUri};
use ezk_sip_types::{Method, Name, StatusCode};
use ezk_sip_ua::dialog::{Dialog, DialogLayer};
use ezk_sip_ua::invite::InviteLayer;
use ezk_sip_ua::invite::acceptor::InviteAcceptor;
use ezk_sip_ua::invite::create_ack;
use ezk_sip_ua::invite::initiator::{InviteInitiator, Response};
use interop_ezk::{A_WHILE, Ask, SOON, Wire, answering, branch, loopback, values};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// What every test first makes sure of: the endpoint does answer a plain request.
async fn assert_answers(wire: &Wire, endpoint: std::net::SocketAddr, number: u32) {
    wire.send(endpoint, &Ask::default().text(number, wire.address())).await;
    wire.expect("SIP/2.0 200").await;
}

/// Sends a request the standard wants answered and says whether anything came back.
async fn is_answered(ask: Ask) -> bool {
    let (endpoint, _seen) = answering().await;
    let wire = Wire::new().await;
    assert_answers(&wire, endpoint, 1).await;
    wire.send(endpoint, &ask.text(2, wire.address())).await;
    wire.receive(A_WHILE).await.is_some()
}

/// B1: a Content-Length that arrives before the rest of the header section is forgotten, and the body is lost.
#[tokio::test]
async fn b1_a_body_is_lost_when_the_head_comes_in_two_pieces() {
    let (seen, mut reports) = mpsc::unbounded_channel();
    let mut builder = Endpoint::builder();
    // The listener does not tell its port, so take one that is free and give it back first.
    let address =
        std::net::TcpListener::bind(loopback()).expect("a free port").local_addr().expect("bound");
    builder.listen_tcp(address).await.expect("still free");
    builder.add_layer(interop_ezk::Answering(seen));
    builder.build();
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let head = "MESSAGE sip:as.example SIP/2.0\r\nContent-Length: 5\r\nVia: SIP/2.0/TCP ";
    let rest = format!(
        "{address};branch=z9hG4bK1\r\nMax-Forwards: 70\r\nFrom: <sip:a@home1.example>;tag=1\r\n\
         To: <sip:as.example>\r\nCall-ID: split\r\nCSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\n\r\nhello"
    );
    stream.write_all(head.as_bytes()).await.expect("connected");
    stream.flush().await.expect("connected");
    // The two pieces have to be two reads at the other end; there is nothing to see from outside in between.
    tokio::time::sleep(A_WHILE).await;
    stream.write_all(rest.as_bytes()).await.expect("connected");
    let seen = tokio::time::timeout(SOON, reports.recv())
        .await
        .expect("it comes")
        .expect("the layer lives");
    assert!(seen.body.is_empty(), "B1 is closed: the body arrived whole");
}

/// B2: one datagram with a Via that does not parse panics the task that reads it.
#[tokio::test]
async fn b2_an_unreadable_via_panics() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.location().is_some_and(|place| place.file().contains("ezk-sip-core")) {
            PANICS.fetch_add(1, Ordering::SeqCst);
        } else {
            before(info);
        }
    }));
    let (endpoint, _seen) = answering().await;
    let wire = Wire::new().await;
    wire.send(endpoint, &Ask { via: Some("nonsense"), ..Ask::default() }.text(1, wire.address()))
        .await;
    // Both are read in order by one task on this single-threaded runtime: the answer says the first was looked at.
    assert_answers(&wire, endpoint, 2).await;
    assert_eq!(PANICS.load(Ordering::SeqCst), 1, "B2 is closed: no panic");
}

/// B3: tel URIs, as every IMS network has them, make a request disappear.
#[tokio::test]
async fn b3_tel_uris_are_dropped() {
    assert!(
        !is_answered(Ask { from: "<tel:+15551230001>;tag=a1", ..Ask::default() }).await,
        "B3 is closed: From"
    );
    assert!(
        !is_answered(Ask { uri: "tel:+15551230001", ..Ask::default() }).await,
        "B3 is closed: Request-URI"
    );
}

/// B4: an escaped line end in a tag becomes a header of its own in the answer.
#[tokio::test]
async fn b4_a_tag_injects_a_header() {
    let (endpoint, _seen) = answering().await;
    let wire = Wire::new().await;
    let ask =
        Ask { from: "<sip:alice@home1.example>;tag=x%0d%0aX-Injected:%20yes", ..Ask::default() };
    wire.send(endpoint, &ask.text(1, wire.address())).await;
    let (answer, _) = wire.expect("SIP/2.0 200").await;
    assert_eq!(values(&answer, "X-Injected"), ["yes"], "B4 is closed: {answer}");
}

/// B5: From is not echoed as it came.
#[tokio::test]
async fn b5_from_is_rewritten_in_answers() {
    let (endpoint, _seen) = answering().await;
    let wire = Wire::new().await;
    let from = "<sip:a%25b@home1.example>;tag=a1";
    wire.send(endpoint, &Ask { from, ..Ask::default() }.text(1, wire.address())).await;
    let (answer, _) = wire.expect("SIP/2.0 200").await;
    assert_ne!(values(&answer, "From"), [from], "B5 is closed");
}

/// B6: valid or harmless oddities make a request disappear.
#[tokio::test]
async fn b6_harmless_oddities_are_dropped() {
    let from = r#""Al \"Ice\" B" <sip:alice@home1.example>;tag=a1"#;
    assert!(!is_answered(Ask { from, ..Ask::default() }).await, "B6 is closed: escaped quotes");
    let more = "no colon here\r\nContent-Length: 0\r\n";
    assert!(
        !is_answered(Ask { more, ..Ask::default() }).await,
        "B6 is closed: a line without a colon"
    );
}

/// B7: a CSeq of another method is not refused, and what lacks a header is not answered at all.
#[tokio::test]
async fn b7_malformed_requests_get_no_refusal() {
    let (endpoint, _seen) = answering().await;
    let wire = Wire::new().await;
    wire.send(endpoint, &Ask { cseq_method: "MESSAGE", ..Ask::default() }.text(1, wire.address()))
        .await;
    let (answer, _) = wire.receive(SOON).await.expect("the application answers");
    assert!(answer.starts_with("SIP/2.0 200"), "B7 is closed: {answer}");
    let more = "Content-Length: 0\r\nRequire: nothing-anybody-knows\r\n";
    wire.send(endpoint, &Ask { more, ..Ask::default() }.text(2, wire.address())).await;
    let (answer, _) = wire.receive(SOON).await.expect("the application answers");
    assert!(answer.starts_with("SIP/2.0 200"), "B7 is closed: {answer}");
}

/// B8: a method is read by its beginning and without regard to case.
#[tokio::test]
async fn b8_methods_are_read_by_prefix() {
    let (endpoint, mut seen) = answering().await;
    let wire = Wire::new().await;
    for (number, method) in ["MESSAGEX", "message"].into_iter().enumerate() {
        let ask = Ask { method, cseq_method: method, ..Ask::default() };
        wire.send(endpoint, &ask.text(number as u32, wire.address())).await;
        let seen = tokio::time::timeout(SOON, seen.recv())
            .await
            .expect("it comes")
            .expect("the layer lives");
        assert_eq!(seen.method, Method::MESSAGE, "B8 is closed: {method} is {:?}", seen.method);
    }
}

/// B9: the first repetition of a request other than INVITE comes after 4 s instead of 0.5 s.
#[tokio::test]
async fn b9_requests_are_repeated_too_late() {
    let mut builder = Endpoint::builder();
    builder.bind_udp(loopback()).await.expect("loopback has a free port");
    let endpoint = builder.build();
    let wire = Wire::new().await;
    let mut request = Request::new(Method::OPTIONS, uri(&format!("sip:{}", wire.address())));
    for (name, value) in [
        (Name::FROM, "<sip:a@home1.example>;tag=1"),
        (Name::TO, "<sip:b@home1.example>"),
        (Name::CALL_ID, "late"),
        (Name::CSEQ, "1 OPTIONS"),
    ] {
        request.headers.insert(name, value);
    }
    let mut transaction =
        endpoint.send_request(request, &mut Default::default()).await.expect("it leaves");
    tokio::spawn(async move { transaction.receive_final().await });
    wire.expect("OPTIONS").await;
    // By RFC 3261 §17.1.2.2 the next would come after T1, 500 ms.
    let again = wire.receive(std::time::Duration::from_millis(1200)).await;
    assert!(again.is_none(), "B9 is closed: repeated in time");
}

/// B13: CANCEL has a branch of its own, so that no proxy can match it.
#[tokio::test]
async fn b13_cancel_has_another_branch() {
    let wire = Wire::new().await;
    let mut call = calling(&wire).await;
    let invite = call.create_invite();
    call.send_invite(invite).await.expect("it leaves");
    let (invite, _) = wire.expect("INVITE").await;
    let cancelling = tokio::spawn(call.cancel());
    let (cancel, _) = wire.expect("CANCEL").await;
    cancelling.abort();
    assert_ne!(branch(&invite), branch(&cancel), "B13 is closed");
}

/// B14: the ACK of a refusal does not take the INVITE's Route.
#[tokio::test]
async fn b14_the_ack_of_a_refusal_has_no_route() {
    let wire = Wire::new().await;
    let mut call = calling(&wire).await;
    let mut invite = call.create_invite();
    invite.headers.insert(Name::ROUTE, format!("<sip:{};lr>", wire.address()));
    call.send_invite(invite).await.expect("it leaves");
    let (invite, from) = wire.expect("INVITE").await;
    assert_eq!(values(&invite, "Route").len(), 1);
    wire.send(from, &answer(&invite, "486 Busy Here", "")).await;
    assert!(matches!(call.receive().await, Ok(Response::Failure(_))));
    let (ack, _) = wire.expect("ACK").await;
    assert!(values(&ack, "Route").is_empty(), "B14 is closed: {ack}");
}

/// B16: the route set of a caller is not reversed.
#[tokio::test]
async fn b16_the_callers_route_set_is_not_reversed() {
    let wire = Wire::new().await;
    let mut call = calling(&wire).await;
    let invite = call.create_invite();
    call.send_invite(invite).await.expect("it leaves");
    let (invite, from) = wire.expect("INVITE").await;
    let here = wire.address();
    let routes = format!(
        "Record-Route: <sip:first.example;lr>\r\nRecord-Route: <sip:second.example;lr>\r\nContact: <sip:bob@{here}>\r\n"
    );
    wire.send(from, &answer(&invite, "200 OK", &routes)).await;
    let Ok(Response::Session(session, response)) = call.receive().await else {
        panic!("no session")
    };
    let ack = create_ack(&session.dialog, response.base_headers.cseq.cseq).await.expect("an ACK");
    let printed: Vec<String> = ack
        .msg
        .headers
        .iter()
        .filter(|(name, _)| **name == Name::ROUTE)
        .map(|(_, value)| value.to_string())
        .collect();
    let printed = printed.join(",");
    let (first, second) =
        (printed.find("first").expect("there"), printed.find("second").expect("there"));
    assert!(first < second, "B16 is closed: {printed}");
}

/// B17: provisional and failure answers have no To tag.
#[tokio::test]
async fn b17_answers_have_no_to_tag() {
    let (invites, mut invited) = mpsc::unbounded_channel();
    let mut builder = Endpoint::builder();
    let bound = builder.bind_udp(loopback()).await.expect("loopback has a free port").bound();
    builder.add_layer(DialogLayer::default());
    builder.add_layer(InviteLayer::default());
    builder.add_layer(interop_ezk::Inviting(invites));
    let endpoint = builder.build();
    let wire = Wire::new().await;
    let ask = Ask {
        method: "INVITE",
        cseq_method: "INVITE",
        more: "Contact: <sip:a@h>\r\nContent-Length: 0\r\n",
        ..Ask::default()
    };
    wire.send(bound, &ask.text(1, wire.address())).await;
    let invite = tokio::time::timeout(SOON, invited.recv())
        .await
        .expect("it comes")
        .expect("the layer lives");
    let dialog = Dialog::new_server(endpoint, &invite, contact(bound)).expect("a dialog");
    let mut acceptor = InviteAcceptor::new(dialog, invite);
    let ringing = acceptor.create_response(StatusCode::RINGING, None).await.expect("a response");
    acceptor.respond_provisional(ringing).await.expect("it leaves");
    let (ringing, _) = wire.expect("SIP/2.0 180").await;
    assert!(!values(&ringing, "To")[0].contains("tag="), "B17 is closed: {ringing}");
}

/// B29: a negative Content-Length is taken.
#[tokio::test]
async fn b29_a_negative_length_is_taken() {
    let (endpoint, _seen) = answering().await;
    let wire = Wire::new().await;
    let ask = Ask { more: "Content-Length: -1\r\n", ..Ask::default() };
    wire.send(endpoint, &ask.text(1, wire.address())).await;
    let (answer, _) = wire.receive(SOON).await.expect("the application answers");
    assert!(answer.starts_with("SIP/2.0 200"), "B29 is closed: {answer}");
}

fn uri(text: &str) -> SipUri {
    text.parse().expect("a SIP URI")
}

fn contact(at: std::net::SocketAddr) -> Contact {
    Contact::new(NameAddr::uri(uri(&format!("sip:ezk@{at}"))))
}

/// A caller of the published stack whose INVITE comes to this socket.
async fn calling(wire: &Wire) -> InviteInitiator {
    let mut builder = Endpoint::builder();
    let bound = builder.bind_udp(loopback()).await.expect("loopback has a free port").bound();
    builder.add_layer(DialogLayer::default());
    builder.add_layer(InviteLayer::default());
    let endpoint = builder.build();
    InviteInitiator::new(
        endpoint,
        NameAddr::uri(uri("sip:alice@home1.example")),
        contact(bound),
        uri(&format!("sip:bob@{}", wire.address())),
    )
}

fn answer(invite: &str, status: &str, more: &str) -> String {
    let one = |name| values(invite, name)[0].to_owned();
    format!(
        "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {};tag=b1\r\nCall-ID: {}\r\nCSeq: {}\r\n{more}Content-Length: 0\r\n\r\n",
        one("Via"),
        one("From"),
        one("To"),
        one("Call-ID"),
        one("CSeq")
    )
}
