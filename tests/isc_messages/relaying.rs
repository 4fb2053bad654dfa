//! What only passes through, as a routing B2BUA: one dialog on either side, and nothing else of ours.

use std::time::Duration;

use pagecast::isc::settings::{Relay, Settings};
use pagecast::sip::Target as Hop;

use crate::world::{INVITE, Sent, World, header, headers, home, reply};

const ROUTE: &str = "<sip:iscmark@scscf1.home1.example:6060;lr;s=1;h=0;d=0;a=7369>";

/// Alice calls bob; the S-CSCF asks us on the way.
const CALL: &str = "INVITE sip:bob@home1.example SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40;branch=z9hG4bK-a1;rport
Via: SIP/2.0/UDP 192.0.2.61:5060;branch=z9hG4bK-ue
Max-Forwards: 68
Route: <sip:im-as1.home1.example;lr>, <sip:iscmark@scscf1.home1.example:6060;lr;s=1;h=0;d=0;a=7369>
Record-Route: <sip:scscf1.home1.example;lr>, <sip:pcscf1.home1.example;lr>
P-Asserted-Identity: \"Alice\" <sip:alice@home1.example>, <tel:+15551230001>
P-Served-User: <sip:alice@home1.example>;sescase=orig;regstate=reg
P-Charging-Vector: icid-value=\"pc1-42\";orig-ioi=\"Type 3home1.example\";transit-ioi=\"a.1\"
From: \"Alice, A.\" <sip:alice@home1.example;user=phone>;x=1;tag=a1
To: \"Bob\" <sip:bob@home1.example>
Call-ID: call-1@ue.example
CSeq: 7 INVITE
Contact: <sip:alice@192.0.2.61;transport=udp>;+g.3gpp.icsi-ref=\"urn%3Ax\";audio
Supported: 100rel, timer, precondition
Require: some-tag-of-the-ends
Session-Expires: 60
Min-SE: 60
History-Info: <sip:bob@home1.example>;index=1
Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=00000000000000000000000000000000
X-Foo: 1
x-foo: second,  odd   spacing
Content-Type: application/sdp

v=0
o=alice 1 1 IN IP4 192.0.2.61
";

fn b2bua() -> World {
    world_with(|_| {})
}

fn world_with(change: impl FnOnce(&mut Settings)) -> World {
    let mut settings = home();
    settings.isc.relay = Relay::B2bua;
    change(&mut settings);
    World::new(settings)
}

/// A request in the dialog that `like` showed one side of: the peer that got it speaks, or (`same`) the one it came from.
struct Dialog {
    call_id: String,
    from: String,
    to: String,
    uri: String,
}

impl Dialog {
    /// As bob sees it, who got the INVITE and answers with this tag.
    fn of_bob(invite: &Sent, tag: &str) -> Self {
        let contact = header(invite, "Contact").expect("a contact");
        Self {
            call_id: header(invite, "Call-ID").expect("one").to_owned(),
            from: format!("{};tag={tag}", header(invite, "To").expect("one")),
            to: header(invite, "From").expect("one").to_owned(),
            uri: contact.split(['<', '>']).nth(1).expect("a URI").to_owned(),
        }
    }

    /// As alice sees it, who got this answer.
    fn of_alice(answer: &Sent) -> Self {
        let contact = header(answer, "Contact").expect("a contact");
        Self {
            call_id: "call-1@ue.example".to_owned(),
            from: header(answer, "From").expect("one").to_owned(),
            to: header(answer, "To").expect("one").to_owned(),
            uri: contact.split(['<', '>']).nth(1).expect("a URI").to_owned(),
        }
    }

    fn says(&self, method: &str, number: u32, more: &str) -> String {
        let (uri, from, to, call_id) = (&self.uri, &self.from, &self.to, &self.call_id);
        format!(
            "{method} {uri} SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40;branch=z9hG4bK-{method}-{number}-{}
Max-Forwards: 60
From: {from}
To: {to}
Call-ID: {call_id}
CSeq: {number} {method}
{more}",
            from.len()
        )
    }
}

const BOB: &str = "Contact: <sip:bob@192.0.2.77>;+g.x\n\
                   Record-Route: <sip:pcscf2.home1.example;lr>, <sip:scscf1.home1.example;lr>\n";

/// Bob takes the call; returns bob's and alice's views of it.
fn established(world: &mut World) -> (Dialog, Dialog) {
    world.receive(CALL);
    let invite = world.sent.iter().position(|sent| sent.message.is_request()).expect("it goes on");
    let bob = Dialog::of_bob(&world.sent[invite], "b1");
    let answer = reply(&world.sent[invite], 200, "b1", &format!("{BOB}Server: bobs\n"), "");
    world.receive(&answer);
    let alice = Dialog::of_alice(world.answer());
    world.receive(&alice.says("ACK", 7, ""));
    assert_eq!(world.requests("ACK").len(), 1);
    (bob, alice)
}

/// Nothing is kept of what is over.
fn is_forgotten(mut world: World) {
    world.pass(Duration::from_secs(70));
    assert_eq!((world.isc.relayed(), world.isc.relay_held()), (0, 0));
    let stats = world.isc.ua().stats();
    assert_eq!((stats.client_transactions, stats.server_transactions), (0, 0));
    assert_eq!((stats.timers, stats.kept_bytes), (0, 0));
}

/// Header by header: only what names the dialog and the way changes.
///
/// Proves ISC-005, ISC-015, ISC-053.
#[test]
fn a_call_passes_as_a_new_dialog_with_everything_in_it() {
    let mut world = b2bua();
    world.receive(CALL);
    assert_eq!(world.statuses(), [100]);
    assert!(world.happened.is_empty(), "no page");
    let invite = world.last_request("INVITE");
    assert_eq!(invite.message.uri(), "sip:bob@home1.example");
    assert_eq!(header(invite, "Route"), Some(ROUTE));
    let next = ROUTE.trim_matches(['<', '>']).to_owned();
    assert_eq!(invite.to, Hop::NextHop { uri: next, attempt: 0, octets: 0 });
    assert_eq!(headers(invite, "Via").len(), 1, "it is our own request");
    assert_eq!(headers(invite, "Record-Route").len(), 0);
    assert_eq!(header(invite, "Max-Forwards"), Some("67"));
    assert_eq!(header(invite, "CSeq"), Some("7 INVITE"));
    assert_eq!(header(invite, "To"), Some("\"Bob\" <sip:bob@home1.example>"));
    let from = header(invite, "From").expect("one");
    let tag = from
        .strip_prefix("\"Alice, A.\" <sip:alice@home1.example;user=phone>;x=1;tag=")
        .expect("all of it but the tag");
    assert_ne!(tag, "a1");
    assert_ne!(header(invite, "Call-ID"), Some("call-1@ue.example"));
    let contact = header(invite, "Contact").expect("one");
    assert!(contact.starts_with("<sip:lm-") && contact.contains("@im-as1.home1.example"));
    assert!(contact.ends_with(">;+g.3gpp.icsi-ref=\"urn%3Ax\";audio"), "{contact}");
    for line in [
        "P-Asserted-Identity: \"Alice\" <sip:alice@home1.example>, <tel:+15551230001>",
        "P-Served-User: <sip:alice@home1.example>;sescase=orig;regstate=reg",
        "P-Charging-Vector: icid-value=\"pc1-42\";orig-ioi=\"Type 3home1.example\";transit-ioi=\"a.1\"",
        "Supported: 100rel, timer, precondition",
        "Require: some-tag-of-the-ends",
        "Session-Expires: 60",
        "Min-SE: 60",
        "History-Info: <sip:bob@home1.example>;index=1",
        "Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=00000000000000000000000000000000",
        "X-Foo: 1",
        "x-foo: second,  odd   spacing",
        "Content-Type: application/sdp",
    ] {
        assert!(invite.text.contains(&format!("\r\n{line}\r\n")), "{line}\n{}", invite.text);
    }
    assert_eq!(invite.message.body(), crate::world::parse(CALL).body());

    let lines = format!(
        "{BOB}X-Bar: 2\nAlert-Info: <urn:x>\nServer: bobs\nRequire: 100rel\nRSeq: 9\nContent-Type: application/sdp\n"
    );
    let ringing = reply(invite, 183, "b1", &lines, "v=0\n");
    let bob = Dialog::of_bob(invite, "b1");
    world.receive(&ringing);
    let answer = world.answer();
    assert_eq!(answer.message.status(), Some(183));
    assert!(answer.text.starts_with("SIP/2.0 183 Text\r\n"), "the phrase, too");
    assert_eq!(header(answer, "Call-ID"), Some("call-1@ue.example"));
    assert_eq!(
        header(answer, "From"),
        Some("\"Alice, A.\" <sip:alice@home1.example;user=phone>;x=1;tag=a1")
    );
    assert_eq!(header(answer, "To"), Some("\"Bob\" <sip:bob@home1.example>;tag=b1"));
    assert_eq!(header(answer, "CSeq"), Some("7 INVITE"));
    assert_eq!(headers(answer, "Via").len(), 2);
    assert_eq!(
        header(answer, "Record-Route"),
        Some("<sip:scscf1.home1.example;lr>, <sip:pcscf1.home1.example;lr>")
    );
    for (name, value) in [("X-Bar", "2"), ("Server", "bobs"), ("RSeq", "9"), ("Require", "100rel")]
    {
        assert_eq!(header(answer, name), Some(value));
    }
    assert!(
        header(answer, "Contact")
            .is_some_and(|c| c.starts_with("<sip:lm-") && c.ends_with(">;+g.x"))
    );
    assert_eq!(answer.message.body(), b"v=0\r\n");

    // PRACK is the ends' own, its body too.
    let alice = Dialog::of_alice(world.answer());
    world.receive(&alice.says(
        "PRACK",
        8,
        "RAck: 9 7 INVITE\nContent-Type: application/sdp\n\nv=0\ns=2\n",
    ));
    assert!(!world.statuses().contains(&200), "not answered by us");
    let prack = world.last_request("PRACK");
    assert_eq!(header(prack, "RAck"), Some("9 7 INVITE"));
    assert_eq!(header(prack, "CSeq"), Some("8 PRACK"));
    assert_eq!(prack.message.uri(), "sip:bob@192.0.2.77");
    assert_eq!(
        headers(prack, "Route"),
        ["<sip:scscf1.home1.example;lr>", "<sip:pcscf2.home1.example;lr>"],
        "bob's own way back"
    );
    assert_eq!(header(prack, "To"), Some("\"Bob\" <sip:bob@home1.example>;tag=b1"));
    assert_eq!(prack.message.body(), b"v=0\r\ns=2\r\n");
    let done = reply(prack, 200, "", "X-Prack: ok\n", "");
    world.receive(&done);
    assert_eq!(header(world.answer(), "CSeq"), Some("8 PRACK"));
    assert_eq!(header(world.answer(), "X-Prack"), Some("ok"));

    // An UPDATE of bob's before the answer.
    world.receive(&bob.says("UPDATE", 1, "Contact: <sip:bob@192.0.2.78>\nX-Up: 1\n"));
    let update = world.last_request("UPDATE");
    assert_eq!(update.message.uri(), "sip:alice@192.0.2.61;transport=udp");
    assert_eq!(
        headers(update, "Route"),
        ["<sip:scscf1.home1.example;lr>", "<sip:pcscf1.home1.example;lr>"]
    );
    assert_eq!(header(update, "Call-ID"), Some("call-1@ue.example"));
    assert_eq!(header(update, "X-Up"), Some("1"));
    let refused = reply(update, 491, "", "", "");
    world.receive(&refused);
    assert_eq!(world.answer().message.status(), Some(491));
    assert_eq!(header(world.answer(), "CSeq"), Some("1 UPDATE"));
}

/// From the answer to BYE, everything between the ends.
///
/// Proves ISC-053.
#[test]
fn whatever_the_ends_say_in_their_dialog_reaches_the_other() {
    let mut world = b2bua();
    let (bob, alice) = established(&mut world);
    let ack = world.last_request("ACK");
    assert_eq!(ack.message.uri(), "sip:bob@192.0.2.77");
    assert_eq!(header(ack, "CSeq"), Some("7 ACK"));
    // The 200 comes again, the ACK was lost; so does its ACK.
    let again = reply(world.last_request("INVITE"), 200, "b1", BOB, "");
    world.receive(&again);
    assert_eq!(world.statuses().iter().filter(|status| **status == 200).count(), 2);
    world.receive(&alice.says("ACK", 7, "Content-Type: application/sdp\n\nv=0\n"));
    assert_eq!(world.requests("ACK").len(), 2);
    assert_eq!(world.last_request("ACK").message.body(), b"v=0\r\n", "an answer in the ACK");

    for (method, number) in [("INFO", 8), ("MESSAGE", 9), ("REFER", 10), ("WHATEVER", 11)] {
        world.receive(&alice.says(method, number, "X-Foo: 1\nContent-Type: a/b\n\nbody\n"));
        let sent = world.last_request(method);
        assert_eq!(header(sent, "X-Foo"), Some("1"), "{method}");
        assert_eq!(sent.message.body(), b"body\r\n");
        assert_eq!(header(sent, "Max-Forwards"), Some("59"));
        let answer = reply(sent, 202, "", "X-Bar: 2\n", "");
        world.receive(&answer);
        assert_eq!(world.answer().message.status(), Some(202));
        assert_eq!(header(world.answer(), "X-Bar"), Some("2"));
    }
    // Bob moves and refreshes; alice's next request finds him there.
    world.receive(&bob.says("INVITE", 3, "Contact: <sip:bob@192.0.2.99>\nSession-Expires: 1800\nContent-Type: application/sdp\n\nv=0\n"));
    let again = world.last_request("INVITE");
    assert_eq!(again.message.uri(), "sip:alice@192.0.2.61;transport=udp");
    assert_eq!(header(again, "Session-Expires"), Some("1800"));
    assert_eq!(headers(again, "Record-Route").len(), 0);
    let answer = reply(
        again,
        200,
        "",
        "Contact: <sip:alice@192.0.2.62>\nSession-Expires: 1800;refresher=uac\n",
        "",
    );
    world.receive(&answer);
    assert_eq!(header(world.answer(), "Session-Expires"), Some("1800;refresher=uac"));
    world.receive(&bob.says("ACK", 3, ""));
    assert_eq!(world.last_request("ACK").message.uri(), "sip:alice@192.0.2.62");
    // A refused re-INVITE: its ACK is the transaction's.
    let acks = world.requests("ACK").len();
    world.receive(&alice.says("INVITE", 12, "Contact: <sip:alice@192.0.2.62>\n"));
    assert_eq!(world.last_request("INVITE").message.uri(), "sip:bob@192.0.2.99");
    let refused = reply(world.last_request("INVITE"), 488, "", "Warning: 399 h \"x\"\n", "");
    world.receive(&refused);
    assert_eq!(header(world.answer(), "Warning"), Some("399 h \"x\""));
    assert_eq!(world.requests("ACK").len(), acks + 1, "ours to bob");
    let ack = alice.says("ACK", 12, "").replace("z9hG4bK-ACK", "z9hG4bK-INVITE");
    world.receive(&ack);
    assert_eq!(world.requests("ACK").len(), acks + 1, "alice's stays with us");
    // Nobody but the two belongs to it.
    let other = Dialog {
        from: "<sip:eve@h>;tag=e".to_owned(),
        to: alice.to.clone(),
        uri: alice.uri.clone(),
        call_id: alice.call_id.clone(),
    };
    world.receive(&other.says("INFO", 1, ""));
    assert_eq!(world.answer().message.status(), Some(481));

    world.receive(&bob.says("BYE", 4, "Reason: Q.850;cause=16\n"));
    let bye = world.last_request("BYE");
    assert_eq!(header(bye, "Reason"), Some("Q.850;cause=16"));
    assert_eq!(world.isc.relayed(), 1);
    let ok = reply(bye, 200, "", "X-Last: 1\n", "");
    world.receive(&ok);
    assert_eq!(header(world.answer(), "X-Last"), Some("1"));
    assert_eq!(world.isc.relayed(), 0);
    world.receive(&alice.says("INFO", 13, ""));
    assert_eq!(world.answer().message.status(), Some(481), "it is over");
    is_forgotten(world);
}

/// Proves ISC-053: responses are mapped one to one.
#[test]
fn refusals_pass_as_they_are() {
    for (status, lines) in [
        (486, "X-Busy: 1\n"),
        (302, "Contact: <sip:bob@elsewhere.example>;q=0.5, <tel:+1900>\n"),
        (422, "Min-SE: 1800\n"),
        (407, "Proxy-Authenticate: Digest realm=\"r\",nonce=\"n\"\n"),
        (503, "Retry-After: 3\n"),
        (603, ""),
    ] {
        let mut world = b2bua();
        world.receive(CALL);
        let answer = reply(world.last_request("INVITE"), status, "b1", lines, "");
        world.receive(&answer);
        assert_eq!(world.statuses(), [100, status]);
        let answer = world.answer();
        for line in lines.lines() {
            assert!(answer.text.contains(&format!("\r\n{line}\r\n")), "{}", answer.text);
        }
        assert_eq!(world.requests("ACK").len(), 1, "each hop acknowledges its own");
        assert_eq!(world.isc.relayed(), 0);
        let ack = CALL.split("Content-Type").next().unwrap_or_default();
        let ack = ack.replacen("INVITE", "ACK", 1).replace("7 INVITE", "7 ACK");
        world.receive(&ack.replace(
            "To: \"Bob\" <sip:bob@home1.example>",
            "To: \"Bob\" <sip:bob@home1.example>;tag=b1",
        ));
        assert_eq!(world.requests("ACK").len(), 1);
        is_forgotten(world);
    }
}

/// Nobody answers, or nothing takes it: the caller hears of it and nothing stays.
#[test]
fn a_call_that_goes_nowhere_is_answered() {
    let mut world = b2bua();
    world.receive(CALL);
    world.pass(Duration::from_millis(32_100));
    assert_eq!(world.statuses(), [100, 408]);
    is_forgotten(world);

    let mut world = b2bua();
    world.receive(CALL);
    world.fails(false);
    assert_eq!(world.statuses(), [100, 503]);
    assert_eq!(header(world.answer(), "Retry-After"), None);
    is_forgotten(world);

    for (from, to, status) in [
        ("Max-Forwards: 68", "Max-Forwards: 0", 483),
        (
            "Contact: <sip:alice@192.0.2.61;transport=udp>;+g.3gpp.icsi-ref=\"urn%3Ax\";audio\n",
            "",
            400,
        ),
    ] {
        let mut world = b2bua();
        world.receive(&CALL.replace(from, to));
        assert_eq!(world.statuses(), [100, status]);
        assert!(world.requests("INVITE").is_empty());
        is_forgotten(world);
    }
}

fn cancel() -> String {
    let head = CALL.split("Content-Type").next().unwrap_or_default();
    head.replacen("INVITE", "CANCEL", 1).replace("7 INVITE", "7 CANCEL")
        + "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\n"
}

/// Proves ISC-053.
#[test]
fn cancel_passes_when_it_may() {
    let mut world = b2bua();
    world.receive(CALL);
    world.receive(&cancel());
    assert_eq!(world.statuses(), [100, 200], "200 to CANCEL at once");
    assert!(world.requests("CANCEL").is_empty(), "nothing was heard from bob yet");
    let ringing = reply(world.last_request("INVITE"), 180, "b1", BOB, "");
    world.receive(&ringing);
    let cancel = world.last_request("CANCEL");
    assert_eq!(header(cancel, "Reason"), Some("SIP;cause=200;text=\"Call completed elsewhere\""));
    assert_eq!(headers(cancel, "X-Foo").len(), 2);
    assert!(headers(cancel, "Contact").is_empty());
    assert_eq!(cancel.message.via().branch, world.last_request("INVITE").message.via().branch);
    let gone = reply(world.last_request("INVITE"), 487, "b1", "", "");
    let ok = reply(world.last_request("CANCEL"), 200, "b1", "", "");
    world.receive(&ok);
    world.receive(&gone);
    assert_eq!(world.statuses(), [100, 200, 180, 487]);
    is_forgotten(world);

    // Bob says nothing more: 64 × T1 are enough.
    let mut world = b2bua();
    world.receive(CALL);
    let trying = reply(world.last_request("INVITE"), 100, "", "", "");
    world.receive(&trying);
    world.receive(&self::cancel());
    assert_eq!(world.requests("CANCEL").len(), 1);
    world.pass(Duration::from_millis(32_100));
    assert_eq!(world.statuses(), [100, 200, 487]);
    is_forgotten(world);

    // Bob took the call while alice gave up: it is hers to end.
    let mut world = b2bua();
    world.receive(CALL);
    let ringing = reply(world.last_request("INVITE"), 180, "b1", BOB, "");
    let answer = reply(world.last_request("INVITE"), 200, "b1", BOB, "");
    world.receive(&ringing);
    world.receive(&self::cancel());
    world.receive(&answer);
    assert_eq!(world.answer().message.status(), Some(200));
    assert_eq!(world.isc.relayed(), 1);
}

/// A phone that rings for ever (RFC 3261 §16.6 step 11).
#[test]
fn a_call_nobody_answers_is_cancelled() {
    let mut world = b2bua();
    world.receive(CALL);
    let ringing = reply(world.last_request("INVITE"), 180, "b1", BOB, "");
    world.receive(&ringing);
    world.pass(Duration::from_secs(180));
    assert!(world.requests("CANCEL").is_empty());
    world.receive(&ringing.replace("180 Text", "183 Text"));
    world.pass(Duration::from_secs(184));
    assert!(world.requests("CANCEL").is_empty(), "it was heard of again");
    world.pass(Duration::from_secs(2));
    assert_eq!(
        header(world.last_request("CANCEL"), "Reason"),
        Some("SIP;cause=408;text=\"No answer\"")
    );
}

/// Each phone of a forked call has its own dialog on alice's side, too.
#[test]
fn forks_stay_apart() {
    let mut world = b2bua();
    world.receive(CALL);
    let invite = world.requests("INVITE").len() - 1;
    let say = |world: &mut World, status, tag: &str, host: &str| {
        let lines = format!("Contact: <sip:bob@{host}>\n");
        let text = reply(world.requests("INVITE")[invite], status, tag, &lines, "");
        world.receive(&text);
    };
    say(&mut world, 180, "b1", "192.0.2.71");
    say(&mut world, 180, "b2", "192.0.2.72");
    say(&mut world, 200, "b2", "192.0.2.72");
    assert_eq!(world.statuses(), [100, 180, 180, 200]);
    let alice = Dialog::of_alice(world.answer());
    assert!(alice.to.ends_with(";tag=b2"));
    world.receive(&alice.says("ACK", 7, ""));
    assert_eq!(world.last_request("ACK").message.uri(), "sip:bob@192.0.2.72");
    // The other one was as quick.
    say(&mut world, 200, "b1", "192.0.2.71");
    let first = Dialog::of_alice(world.answer());
    world.receive(&first.says("ACK", 7, "X: 1\n"));
    world.receive(&first.says("BYE", 8, ""));
    assert_eq!(world.last_request("BYE").message.uri(), "sip:bob@192.0.2.71");
    let ok = reply(world.last_request("BYE"), 200, "", "", "");
    world.receive(&ok);
    assert_eq!(world.isc.relayed(), 1, "one of two is left");
    world.receive(&alice.says("BYE", 9, ""));
    let ok = reply(world.last_request("BYE"), 200, "", "", "");
    world.receive(&ok);
    is_forgotten(world);
}

/// Proves ISC-055.
#[test]
fn the_loss_of_one_side_ends_the_other_with_the_reason() {
    let mut world = b2bua();
    let (_, alice) = established(&mut world);
    world.receive(&alice.says("INFO", 8, ""));
    world.fails(false);
    assert_eq!(world.answer().message.status(), Some(503));
    let byes = world.requests("BYE");
    let [to_bob, to_alice] = byes.as_slice() else { panic!("{} BYE", byes.len()) };
    assert_eq!(to_bob.message.uri(), "sip:bob@192.0.2.77");
    assert_eq!(header(to_bob, "CSeq"), Some("9 BYE"), "the caller's numbers go on");
    assert_eq!(to_alice.message.uri(), "sip:alice@192.0.2.61;transport=udp");
    assert_eq!(header(to_alice, "CSeq"), Some("1 BYE"));
    assert_eq!(
        header(to_alice, "To"),
        Some("\"Alice, A.\" <sip:alice@home1.example;user=phone>;x=1;tag=a1")
    );
    assert_eq!(header(to_alice, "From"), Some("\"Bob\" <sip:bob@home1.example>;tag=b1"));
    for bye in [to_bob, to_alice] {
        assert_eq!(header(bye, "Reason"), Some("SIP;cause=503;text=\"Other side not reachable\""));
        let charging = header(bye, "P-Charging-Vector").expect("of the call");
        assert!(charging.contains("icid-value=\"pc1-42\""), "{charging}");
    }
    is_forgotten(world);
    // A BYE that finds nobody has done what it was for.
    let mut world = b2bua();
    let (bob, _) = established(&mut world);
    world.receive(&bob.says("BYE", 1, ""));
    world.fails(false);
    assert_eq!(world.answer().message.status(), Some(200));
    assert_eq!(world.isc.relayed(), 0);
    is_forgotten(world);
}

/// Bounded in time, and at the end of the node.
#[test]
fn a_forgotten_call_is_ended() {
    let mut world = world_with(|settings| settings.isc.relay_lifetime = Duration::from_secs(600));
    let (_, alice) = established(&mut world);
    world.pass(Duration::from_secs(590));
    world.receive(&alice.says("INFO", 8, ""));
    let ok = reply(world.last_request("INFO"), 200, "", "", "");
    world.receive(&ok);
    world.pass(Duration::from_secs(590));
    assert!(world.requests("BYE").is_empty(), "it was heard of");
    world.pass(Duration::from_millis(10_100));
    assert_eq!(world.requests("BYE").len(), 2);
    is_forgotten(world);

    let mut world = b2bua();
    established(&mut world);
    world.isc.end_relayed(world.now);
    world.drive();
    assert_eq!(world.requests("BYE").len(), 2);
    is_forgotten(world);
}

/// Proves ISC-053.
#[test]
fn other_requests_are_transactions_on_either_side() {
    for (method, extra) in [
        ("MESSAGE", "Content-Type: text/plain\n\nhi\n"),
        ("OPTIONS", ""),
        ("PUBLISH", "Event: x\n"),
        ("WHATEVER", ""),
    ] {
        let mut world = b2bua();
        let head = CALL.split("Content-Type").next().unwrap_or_default();
        let text = head.replacen("INVITE", method, 1).replace("7 INVITE", &format!("7 {method}"));
        world.receive(&(text.clone() + extra));
        assert!(world.statuses().is_empty(), "no 1xx to {method}");
        let sent = world.last_request(method);
        assert_eq!(header(sent, "Route"), Some(ROUTE));
        assert_eq!(headers(sent, "Via").len(), 1);
        assert_ne!(header(sent, "Call-ID"), Some("call-1@ue.example"));
        assert_eq!(headers(sent, "X-Foo"), ["1", "second,  odd   spacing"]);
        assert!(header(sent, "Contact").is_some_and(|c| c.contains("192.0.2.61")), "as it came");
        let answer = reply(sent, 202, "b1", "X-Bar: 2\nContact: <sip:z@y>\n", "");
        world.receive(&(text + extra));
        assert_eq!(world.requests(method).len(), 1, "sent again, absorbed");
        world.receive(&answer);
        assert_eq!(world.statuses(), [202]);
        let answer = world.answer();
        assert_eq!(header(answer, "X-Bar"), Some("2"));
        assert_eq!(header(answer, "Contact"), Some("<sip:z@y>"));
        assert_eq!(header(answer, "To"), Some("\"Bob\" <sip:bob@home1.example>;tag=b1"));
        assert!(headers(answer, "Record-Route").is_empty());
        assert_eq!(world.isc.relayed(), 0);
        is_forgotten(world);
    }
    // ISC-068: nobody says 408 to these.
    let mut world = b2bua();
    let head = CALL.split("Content-Type").next().unwrap_or_default();
    world.receive(&head.replacen("INVITE", "MESSAGE", 1).replace("7 INVITE", "7 MESSAGE"));
    world.pass(Duration::from_secs(40));
    assert!(world.statuses().is_empty());
    is_forgotten(world);
}

/// A subscription is a dialog, too: its NOTIFY comes back through us, even before the answer.
#[test]
fn subscriptions_pass() {
    let mut world = b2bua();
    let head = CALL.split("Content-Type").next().unwrap_or_default();
    let subscribe = head.replacen("INVITE", "SUBSCRIBE", 1).replace("7 INVITE", "7 SUBSCRIBE");
    world.receive(&(subscribe + "Event: presence\nExpires: 600\n"));
    let sent = world.last_request("SUBSCRIBE");
    let bob = Dialog::of_bob(sent, "n1");
    let accepted = reply(sent, 200, "n1", &format!("{BOB}Expires: 600\n"), "");
    world.receive(&bob.says(
        "NOTIFY",
        1,
        "Contact: <sip:bob@192.0.2.77>\nEvent: presence\nSubscription-State: active;expires=600\n",
    ));
    let notify = world.last_request("NOTIFY");
    assert_eq!(notify.message.uri(), "sip:alice@192.0.2.61;transport=udp");
    let ok = reply(notify, 200, "", "", "");
    world.receive(&ok);
    world.receive(&accepted);
    assert_eq!(world.statuses(), [200, 200]);
    assert!(header(world.answer(), "Record-Route").is_some());
    assert_eq!(world.isc.relayed(), 1);
    world.receive(&bob.says(
        "NOTIFY",
        2,
        "Event: presence\nSubscription-State: Terminated;reason=noresource\n",
    ));
    let ok = reply(world.last_request("NOTIFY"), 200, "", "", "");
    world.receive(&ok);
    assert_eq!(world.isc.relayed(), 0);
    is_forgotten(world);
}

/// A leg of ours that the core brings back passes like any other call, and the page's dialog works through it.
///
/// Proves IM-037.
#[test]
fn our_own_leg_passes_as_a_dialog_and_is_never_expanded() {
    let mut world = b2bua();
    world.receive(INVITE);
    world.invite(1);
    let ours = world.last_request("INVITE");
    let call_id = header(ours, "Call-ID").map(str::to_owned);
    let back = ours.text.replace(
        "Route: <sip:scscf1.home1.example;lr;orig>\r\n",
        "Route: <sip:im-as1.home1.example;lr>, <sip:odi-77@scscf1.home1.example;lr;orig>\r\n",
    );
    let back = back.replacen(
        "Via:",
        "Via: SIP/2.0/UDP scscf1.home1.example;branch=z9hG4bK-back\r\nVia:",
        1,
    );
    let (heard, leg) = (world.happened.len(), world.sent.len());
    world.receive(&back);
    assert_eq!(world.happened.len(), heard, "no second page");
    let passed = world.last_request("INVITE");
    assert_eq!(header(passed, "Route"), Some("<sip:odi-77@scscf1.home1.example;lr;orig>"));
    assert_eq!(header(passed, "Max-Forwards"), Some("65"));
    assert_ne!(header(passed, "Call-ID").map(str::to_owned), call_id);
    assert_eq!(passed.message.body(), crate::world::parse(&back).body());
    // Bob's answer goes to the S-CSCF under the leg's own Call-ID.
    let answer = reply(passed, 486, "b1", "", "");
    world.receive(&answer);
    let busy = world.sent[leg..].iter().rfind(|sent| sent.message.status() == Some(486));
    let busy = busy.expect("it passes");
    assert_eq!(header(busy, "Call-ID").map(str::to_owned), call_id);
    assert_eq!(headers(busy, "Via").len(), 2);
}

/// Proves ISC-079: and what cannot have two dialogs takes the way that touches least.
#[test]
fn some_requests_pass_without_a_dialog() {
    let mut world = b2bua();
    world.receive(&CALL.replace("INVITE sip:bob@home1.example", "INVITE urn:service:sos.fire"));
    assert_eq!(header(world.last_request("INVITE"), "Call-ID"), Some("call-1@ue.example"));
    assert!(world.statuses().is_empty());
    let mut world = b2bua();
    world.isc.drain();
    world.receive(CALL);
    assert_eq!(
        header(world.last_request("INVITE"), "Call-ID"),
        Some("call-1@ue.example"),
        "we are about to stop"
    );
    // What belongs together stays together.
    world.receive(&cancel());
    assert_eq!(header(world.last_request("CANCEL"), "Call-ID"), Some("call-1@ue.example"));
    // A CANCEL for nothing.
    let mut world = b2bua();
    world.receive(&cancel());
    assert_eq!(world.statuses(), [481]);
}

/// The same call in both ways of relaying: what the rules of each role name is what differs.
///
/// Proves ISC-028, ISC-049.
#[test]
fn a_proxy_keeps_the_dialog_and_a_b2bua_makes_a_new_one() {
    let sent = |relay| {
        let mut world = world_with(|settings| settings.isc.relay = relay);
        world.receive(CALL);
        world.sent.into_iter().find(|sent| sent.message.is_request()).expect("it goes on")
    };
    let (proxy, b2bua) = (sent(Relay::Proxy), sent(Relay::B2bua));
    assert_eq!((headers(&proxy, "Via").len(), headers(&b2bua, "Via").len()), (3, 1));
    for name in ["Call-ID", "From", "Contact"] {
        assert_ne!(headers(&proxy, name), headers(&b2bua, name), "{name}");
    }
    for name in
        ["Route", "Max-Forwards", "CSeq", "To", "P-Asserted-Identity", "P-Charging-Vector", "X-Foo"]
    {
        assert_eq!(headers(&proxy, name), headers(&b2bua, name), "{name}");
    }
    assert_eq!(proxy.message.body(), b2bua.message.body());
}

/// Both ends, the network and the clock do what a die says: nothing panics, whatever we write can be read, and in the end
/// nothing is held.
#[test]
fn calls_in_no_sensible_order_leave_nothing() {
    let mut state = 5_u64;
    let mut below = move |bound: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % bound.max(1)
    };
    const METHODS: [&str; 9] =
        ["INVITE", "UPDATE", "PRACK", "INFO", "BYE", "ACK", "MESSAGE", "NOTIFY", "CANCEL"];
    const STATUSES: [u16; 10] = [100, 180, 183, 200, 200, 202, 302, 481, 487, 503];
    for _ in 0..400 {
        let mut world =
            world_with(|settings| settings.isc.relay_lifetime = Duration::from_secs(600));
        let mut number = 8;
        for _ in 0..below(25) + 5 {
            match below(9) {
                0 => world.receive(CALL),
                1 => world.receive(&cancel()),
                2 => world.pass(Duration::from_millis(below(40_000) as u64)),
                3 => {
                    let last = world.sent.last().is_some_and(|sent| sent.message.is_request());
                    if last {
                        world.fails(below(2) == 0);
                    }
                }
                4..=6 => {
                    let asked: Vec<usize> = (0..world.sent.len())
                        .filter(|at| world.sent[*at].message.is_request())
                        .collect();
                    if let Some(at) = asked.get(below(asked.len())) {
                        let tag = ["b1", "b2", ""][below(3)];
                        let sent = &world.sent[*at];
                        let inside = sent.message.to_tag().is_some();
                        let tag = if inside { "" } else { tag };
                        let text = reply(sent, STATUSES[below(STATUSES.len())], tag, BOB, "");
                        world.receive(&text);
                    }
                }
                _ => {
                    number += 1;
                    let method = METHODS[below(METHODS.len())];
                    let initial = |sent: &&Sent| {
                        sent.message.is_request() && header(sent, "CSeq") == Some("7 INVITE")
                    };
                    let Some(invite) = world.sent.iter().find(initial) else { continue };
                    let bob = Dialog::of_bob(invite, ["b1", "b2", "b3"][below(3)]);
                    let answered = |sent: &&Sent| {
                        sent.message.status().is_some_and(|status| (101..300).contains(&status))
                            && sent.message.to_tag().is_some()
                            && header(sent, "CSeq") == Some("7 INVITE")
                    };
                    let alice = world.sent.iter().rfind(answered).map(Dialog::of_alice);
                    let more = "Contact: <sip:x@192.0.2.99>\n";
                    let text = match alice.filter(|_| below(2) == 0) {
                        Some(alice) => alice.says(method, number, more),
                        None => bob.says(method, number, more),
                    };
                    world.receive(&text);
                }
            }
        }
        world.pass(Duration::from_secs(1300));
        is_forgotten(world);
    }
}

/// One caller may have two dialogs under one Call-ID and tag: the end of one is not that of the other.
#[test]
fn a_second_dialog_of_the_same_caller_outlives_the_first() {
    let mut world = b2bua();
    let head = CALL.split("Content-Type").next().unwrap_or_default();
    let refer = head.replacen("INVITE", "SUBSCRIBE", 1).replace("7 INVITE", "8 SUBSCRIBE");
    world.receive(CALL);
    let invite = reply(world.last_request("INVITE"), 486, "b1", "", "");
    world.receive(&(refer.replace("z9hG4bK-a1", "z9hG4bK-a2") + "Event: x\nExpires: 600\n"));
    let subscribe = world.last_request("SUBSCRIBE");
    let accepted = reply(subscribe, 200, "n1", &format!("{BOB}Expires: 600\n"), "");
    world.receive(&accepted);
    let alice = Dialog::of_alice(world.answer());
    world.receive(&invite);
    assert_eq!(world.isc.relayed(), 1);
    world.receive(&alice.says("SUBSCRIBE", 9, "Event: x\nExpires: 0\n"));
    assert_eq!(header(world.last_request("SUBSCRIBE"), "CSeq"), Some("9 SUBSCRIBE"));
}
