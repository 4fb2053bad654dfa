//! Our user agent and the published one call each other, over UDP, with sip: URIs and without 100rel: what both can do.
//!
//! Two implementations by different people have to agree here on transactions, dialogs and offers; each test plays one
//! call to its end.

use std::net::SocketAddr;

use bytes::Bytes;
use ezk_sip_core::{Endpoint, IncomingRequest, Request};
use ezk_sip_types::header::typed::Contact;
use ezk_sip_types::uri::{NameAddr, SipUri};
use ezk_sip_types::{Method, Name, StatusCode};
use ezk_sip_ua::dialog::{Dialog, DialogLayer};
use ezk_sip_ua::invite::acceptor::InviteAcceptor;
use ezk_sip_ua::invite::create_ack;
use ezk_sip_ua::invite::initiator::{Early, EarlyResponse, InviteInitiator, Response};
use ezk_sip_ua::invite::session::{InviteSession, InviteSessionEvent};
use ezk_sip_ua::invite::{InviteLayer, session::Role};
use interop_ezk::ours::Ours;
use interop_ezk::{Answering, Inviting, SOON, Seen, loopback};
use pagecast::sip::message::{Method as OurMethod, Name as OurName};
use pagecast::sip::ua::{Event, Failure, Invite, OutRequest, Reply};
use tokio::sync::mpsc;

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
    m=message 2855 TCP/MSRP *\r\na=path:msrp://127.0.0.1:2855/offer;tcp\r\na=accept-types:text/plain\r\na=sendonly\r\n";
const ANSWER: &str = "v=0\r\no=- 2 2 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
    m=message 9 TCP/MSRP *\r\na=path:msrp://127.0.0.1:2856/answer;tcp\r\na=accept-types:text/plain\r\na=recvonly\r\n";

/// The published stack as one phone.
struct Phone {
    endpoint: Endpoint,
    bound: SocketAddr,
    invites: mpsc::UnboundedReceiver<IncomingRequest>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Phone {
    async fn new() -> Self {
        let (invited, invites) = mpsc::unbounded_channel();
        let (answered, seen) = mpsc::unbounded_channel();
        let mut builder = Endpoint::builder();
        let bound = builder.bind_udp(loopback()).await.expect("loopback has a free port").bound();
        builder.add_layer(DialogLayer::default());
        builder.add_layer(InviteLayer::default());
        builder.add_layer(Inviting(invited));
        builder.add_layer(Answering(answered));
        Self { endpoint: builder.build(), bound, invites, seen }
    }

    fn contact(&self) -> Contact {
        Contact::new(NameAddr::uri(uri(&format!("sip:phone@{}", self.bound))))
    }

    fn calls(&self, whom: SocketAddr) -> InviteInitiator {
        let alice = NameAddr::uri(uri("sip:alice@home1.example"));
        let target = uri(&format!("sip:pages@{whom}"));
        let mut call = InviteInitiator::new(self.endpoint.clone(), alice, self.contact(), target);
        call.support_100rel = false;
        call.support_timer = false;
        call
    }

    async fn is_called(&mut self) -> InviteAcceptor {
        let invite = self.invites.recv().await.expect("the layer lives");
        let dialog =
            Dialog::new_server(self.endpoint.clone(), &invite, self.contact()).expect("a dialog");
        InviteAcceptor::new(dialog, invite)
    }
}

fn uri(text: &str) -> SipUri {
    text.parse().expect("a SIP URI")
}

fn offering(call: &mut InviteInitiator) -> Request {
    let mut invite = call.create_invite();
    invite.headers.insert(Name::CONTENT_TYPE, "application/sdp");
    invite.body = Bytes::from_static(OFFER.as_bytes());
    invite
}

fn sdp(text: &'static str) -> Option<(String, Bytes)> {
    Some(("application/sdp".to_owned(), Bytes::from_static(text.as_bytes())))
}

fn answer(ours: &Ours) -> Reply {
    Reply {
        body: sdp(ANSWER),
        contact: Some(format!("<sip:page-1@{}>", ours.address())),
        ..Reply::new(200)
    }
}

/// A call of the published stack to ours, answered by us with 200 and acknowledged.
async fn established(
    ours: &mut Ours,
    phone: &Phone,
) -> (InviteInitiator, InviteSession, pagecast::sip::ua::CallKey) {
    let mut caller = phone.calls(ours.address());
    let invite = offering(&mut caller);
    caller.send_invite(invite).await.expect("it leaves");
    let Event::Invited { call, message, .. } = ours.event().await else { panic!("no INVITE") };
    assert_eq!(message.body(), OFFER.as_bytes());
    assert_eq!(message.cseq().method, OurMethod::Invite);
    let now = ours.now();
    let ok = answer(ours);
    ours.ua.answer(now, call, ok);
    let session = loop {
        match ours.until(caller.receive()).await.expect("a response") {
            Response::Session(session, response) => {
                assert_eq!(response.body, ANSWER.as_bytes());
                let mut ack = create_ack(&session.dialog, response.base_headers.cseq.cseq)
                    .await
                    .expect("an ACK");
                phone.endpoint.send_outgoing_request(&mut ack).await.expect("it leaves");
                caller.set_acknowledge(&session, ack);
                break session;
            }
            Response::Provisional(response) => assert_eq!(response.line.code, StatusCode::TRYING),
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(session.role, Role::Uac));
    assert!(matches!(ours.event().await, Event::Acked { call: acked } if acked == call));
    (caller, session, call)
}

#[tokio::test]
async fn a_call_to_us_is_answered_and_ended_by_the_caller() {
    let (mut ours, phone) = (Ours::new().await, Phone::new().await);
    let (_caller, mut session, call) = established(&mut ours, &phone).await;
    let response = ours.until(session.terminate()).await.expect("an answer to BYE");
    assert_eq!(response.line.code, StatusCode::OK);
    assert!(matches!(ours.event().await, Event::Bye { call: ended, .. } if ended == call));
    ours.assert_quiet();
}

#[tokio::test]
async fn a_call_to_us_is_answered_and_ended_by_us() {
    let (mut ours, phone) = (Ours::new().await, Phone::new().await);
    let (_caller, mut session, call) = established(&mut ours, &phone).await;
    let now = ours.now();
    ours.ua.bye(now, call, b"Reason: SIP;cause=200;text=\"done\"\r\n");
    let event = ours.until(session.run()).await.expect("an event");
    let InviteSessionEvent::Bye(bye) = event else { panic!("no BYE") };
    ours.until(session.handle_bye(bye)).await.expect("an answer");
    // Nobody is told that a BYE of ours was answered; that it is not sent again says so.
    let before = ours.ua.stats().retransmissions_sent;
    let _ = tokio::time::timeout(std::time::Duration::from_millis(800), ours.event()).await;
    assert_eq!(ours.ua.stats().retransmissions_sent, before);
}

#[tokio::test]
async fn our_provisionals_make_an_early_dialog() {
    let (mut ours, phone) = (Ours::new().await, Phone::new().await);
    let mut caller = phone.calls(ours.address());
    let invite = offering(&mut caller);
    caller.send_invite(invite).await.expect("it leaves");
    let Event::Invited { call, .. } = ours.event().await else { panic!("no INVITE") };
    let now = ours.now();
    let contact = Some(format!("<sip:page-1@{}>", ours.address()));
    ours.ua.progress(now, call, Reply { contact, ..Reply::new(183) });
    let mut early: Early = loop {
        match ours.until(caller.receive()).await.expect("a response") {
            Response::Early(early, response, rseq) => {
                assert_eq!(response.line.code, StatusCode::SESSION_PROGRESS);
                assert!(rseq.is_none(), "not reliable: the caller does not take it");
                break early;
            }
            Response::Provisional(response) => assert_eq!(response.line.code, StatusCode::TRYING),
            other => panic!("{other:?}"),
        }
    };
    let now = ours.now();
    let ok = answer(&ours);
    ours.ua.answer(now, call, ok);
    assert!(matches!(ours.until(caller.receive()).await, Ok(Response::EarlyEvent)));
    // The same tag: the 200 belongs to the early dialog of the 183.
    let EarlyResponse::Success(session, response) =
        ours.until(early.receive()).await.expect("the 200")
    else {
        panic!("no session")
    };
    let mut ack =
        create_ack(&session.dialog, response.base_headers.cseq.cseq).await.expect("an ACK");
    phone.endpoint.send_outgoing_request(&mut ack).await.expect("it leaves");
    assert!(matches!(ours.event().await, Event::Acked { .. }));
}

#[tokio::test]
async fn our_refusal_is_understood_and_acknowledged() {
    let (mut ours, phone) = (Ours::new().await, Phone::new().await);
    let mut caller = phone.calls(ours.address());
    let invite = offering(&mut caller);
    caller.send_invite(invite).await.expect("it leaves");
    let Event::Invited { call, .. } = ours.event().await else { panic!("no INVITE") };
    let now = ours.now();
    ours.ua.reject(now, call, Reply { reason: Some("Busy Here".into()), ..Reply::new(486) });
    loop {
        match ours.until(caller.receive()).await.expect("a response") {
            Response::Failure(response) => {
                assert_eq!(response.line.code, StatusCode::BUSY_HERE);
                assert!(response.base_headers.to.tag.is_some());
                break;
            }
            Response::Provisional(response) => assert_eq!(response.line.code, StatusCode::TRYING),
            other => panic!("{other:?}"),
        }
    }
    let _ = tokio::time::timeout(std::time::Duration::from_millis(800), ours.event()).await;
    assert_eq!(ours.ua.stats().retransmissions_sent, 0, "its ACK ended our 486");
}

/// An INVITE of ours to a phone of the published stack.
fn invite(ours: &Ours, phone: &Phone) -> Invite {
    let bob = format!("sip:bob@{}", phone.bound);
    Invite {
        call_id: format!("lm-00interop@{}", ours.address()),
        request_uri: bob.clone(),
        to: format!("<{bob}>"),
        from: "\"Alice\" <sip:alice@home1.example>".into(),
        max_forwards: 66,
        contact: format!("<sip:page-1@{}>;+g.oma.sip-im.large-message;isfocus", ours.address()),
        headers: Bytes::from_static(
            b"Accept-Contact: *;+g.oma.sip-im.large-message\r\nSupported: 100rel, timer\r\n",
        ),
        body: sdp(OFFER),
        session_expires: Some(1800),
        offer: Bytes::from_static(OFFER.as_bytes()),
        ..Invite::default()
    }
}

/// The next event that is not a provisional.
async fn after_ringing(ours: &mut Ours) -> Event {
    loop {
        match ours.event().await {
            Event::Provisional { .. } => {}
            event => return event,
        }
    }
}

#[tokio::test]
async fn we_call_a_phone_and_end_the_call() {
    let (mut ours, mut phone) = (Ours::new().await, Phone::new().await);
    let invite = invite(&ours, &phone);
    let now = ours.now();
    let call = ours.ua.invite(now, invite);
    let mut acceptor = ours.until(phone.is_called()).await;
    let ringing = acceptor.create_response(StatusCode::RINGING, None).await.expect("a response");
    acceptor.respond_provisional(ringing).await.expect("it leaves");
    let mut ok = acceptor.create_response(StatusCode::OK, None).await.expect("a response");
    ok.msg.headers.insert(Name::CONTENT_TYPE, "application/sdp");
    ok.msg.body = Bytes::from_static(ANSWER.as_bytes());
    // Ends when our ACK is there.
    let (mut session, ack) = ours.until(acceptor.respond_success(ok)).await.expect("acknowledged");
    assert_eq!(ack.line.method, Method::ACK);
    let Event::Answered { call: answered, message, .. } = after_ringing(&mut ours).await else {
        panic!("not answered")
    };
    assert_eq!(answered, call);
    assert_eq!(message.body(), ANSWER.as_bytes());
    assert!(message.header(OurName::Contact).is_some());
    let now = ours.now();
    ours.ua.bye(now, call, b"");
    let InviteSessionEvent::Bye(bye) = ours.until(session.run()).await.expect("an event") else {
        panic!("no BYE")
    };
    ours.until(session.handle_bye(bye)).await.expect("an answer");
}

#[tokio::test]
async fn we_call_a_phone_and_it_ends_the_call() {
    let (mut ours, mut phone) = (Ours::new().await, Phone::new().await);
    let invite = invite(&ours, &phone);
    let now = ours.now();
    let call = ours.ua.invite(now, invite);
    let acceptor = ours.until(phone.is_called()).await;
    let mut ok = acceptor.create_response(StatusCode::OK, None).await.expect("a response");
    ok.msg.headers.insert(Name::CONTENT_TYPE, "application/sdp");
    ok.msg.body = Bytes::from_static(ANSWER.as_bytes());
    let (mut session, _ack) = ours.until(acceptor.respond_success(ok)).await.expect("acknowledged");
    assert!(matches!(after_ringing(&mut ours).await, Event::Answered { .. }));
    let response = ours.until(session.terminate()).await.expect("an answer to BYE");
    assert_eq!(response.line.code, StatusCode::OK);
    assert!(matches!(ours.event().await, Event::Bye { call: ended, .. } if ended == call));
}

#[tokio::test]
async fn a_phone_declines() {
    let (mut ours, mut phone) = (Ours::new().await, Phone::new().await);
    let invite = invite(&ours, &phone);
    let now = ours.now();
    let call = ours.ua.invite(now, invite);
    let acceptor = ours.until(phone.is_called()).await;
    let no = acceptor.create_response(StatusCode::DECLINE, None).await.expect("a response");
    // Ends when our ACK is there.
    ours.until(acceptor.respond_failure(no)).await.expect("acknowledged");
    let Event::Rejected { call: rejected, status, cause, .. } = after_ringing(&mut ours).await
    else {
        panic!("not refused")
    };
    assert_eq!((rejected, status, cause), (call, 603, Failure::Response));
}

#[tokio::test]
async fn our_cancel_finds_its_invite() {
    let (mut ours, mut phone) = (Ours::new().await, Phone::new().await);
    let invite = invite(&ours, &phone);
    let now = ours.now();
    let call = ours.ua.invite(now, invite);
    let mut acceptor = ours.until(phone.is_called()).await;
    let ringing = acceptor.create_response(StatusCode::RINGING, None).await.expect("a response");
    acceptor.respond_provisional(ringing).await.expect("it leaves");
    assert!(matches!(ours.event().await, Event::Provisional { .. }));
    let now = ours.now();
    ours.ua.cancel(now, call, Some("SIP;cause=200;text=\"answered elsewhere\""));
    ours.until(acceptor.cancelled()).await;
    let Event::Rejected { call: rejected, status, .. } = after_ringing(&mut ours).await else {
        panic!("not ended")
    };
    assert_eq!((rejected, status), (call, 487));
}

#[tokio::test]
async fn requests_outside_a_dialog_pass_both_ways() {
    let (mut ours, mut phone) = (Ours::new().await, Phone::new().await);
    // To the phone.
    let now = ours.now();
    let target = format!("sip:bob@{}", phone.bound);
    let request = ours.ua.request(
        now,
        OutRequest {
            request_uri: target.clone(),
            to: format!("<{target}>"),
            from: "<sip:alice@home1.example>".into(),
            body: Some(("text/plain".into(), Bytes::from_static(b"hello"))),
            ..OutRequest::new(OurMethod::Message)
        },
    );
    let Event::Response { request: answered, status, .. } = ours.event().await else {
        panic!("no answer")
    };
    assert_eq!((answered, status), (request, 200));
    let seen = tokio::time::timeout(SOON, phone.seen.recv())
        .await
        .expect("seen")
        .expect("the layer lives");
    assert_eq!((seen.method, &seen.body[..]), (Method::MESSAGE, &b"hello"[..]));
    // From the phone.
    let mut options = Request::new(Method::OPTIONS, uri(&format!("sip:pages@{}", ours.address())));
    for (name, value) in [
        (Name::FROM, "<sip:scscf.home1.example>;tag=1"),
        (Name::TO, "<sip:pages@ims.test>"),
        (Name::CALL_ID, "heartbeat"),
        (Name::CSEQ, "1 OPTIONS"),
        (Name::MAX_FORWARDS, "70"),
    ] {
        options.headers.insert(name, value);
    }
    let mut transaction =
        phone.endpoint.send_request(options, &mut Default::default()).await.expect("it leaves");
    let Event::Requested { request, message, .. } = ours.event().await else {
        panic!("no request")
    };
    assert_eq!(message.method(), Some(OurMethod::Options));
    let now = ours.now();
    ours.ua.respond(now, request, Reply::new(200));
    let response = ours.until(transaction.receive_final()).await.expect("an answer");
    assert_eq!(response.line.code, StatusCode::OK);
}
