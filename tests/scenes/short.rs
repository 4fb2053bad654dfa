//! Short pages: one MESSAGE comes, everybody gets one.

use pagecast::sip::message::Message;

use crate::net::{Net, SOON, millis, seconds};
use crate::registering::registers;
use crate::text::{header, headers, method, response, to_user};

/// Alice says something to a list, through the core.
fn says(net: &Net, text: &str, users: &[&str]) {
    let n = net.scscf().number();
    let entries: String = users
        .iter()
        .map(|user| format!("<entry uri=\"sip:{user}@ims.test\" cp:copyControl=\"to\"/>"))
        .collect();
    net.scscf().delivers(&format!(
        "MESSAGE sip:pages@ims.test SIP/2.0\n\
         Via: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK-short{n}\n\
         Max-Forwards: 68\nRoute: <sip:127.0.0.1:5090;lr>, <sip:odi@127.0.0.1:5060;transport=tcp;lr;orig>\n\
         P-Asserted-Identity: <sip:alice@ims.test>\n\
         P-Served-User: <sip:alice@ims.test>;sescase=orig;regstate=reg\n\
         From: <sip:alice@ims.test>;tag=s{n}\nTo: <sip:pages@ims.test>\n\
         Call-ID: short-{n}@127.0.0.1\nCSeq: 1 MESSAGE\nRequire: recipient-list-message\n\
         Content-Type: multipart/mixed;boundary=b1\n\n\
         --b1\nContent-Type: text/plain\n\n{text}\n\
         --b1\nContent-Type: application/resource-lists+xml\n\
         Content-Disposition: recipient-list\n\n\
         <resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\" \
         xmlns:cp=\"urn:ietf:params:xml:ns:copycontrol\"><list>{entries}</list></resource-lists>\n\
         --b1--\n"
    ));
}

async fn is_accepted(net: &Net) {
    let answer = |message: &Message| message.status().is_some() && method(message) == "MESSAGE";
    let heard = net.scscf().hears_of("answer to MESSAGE", SOON, answer).await;
    assert_eq!(heard.message.status(), Some(202));
}

/// The MESSAGE to that user, which says this.
async fn gets(net: &Net, user: &str, text: &str) -> Message {
    let to = |message: &Message| {
        message.status().is_none() && method(message) == "MESSAGE" && to_user(message) == user
    };
    let heard = net.scscf().hears_of(&format!("MESSAGE to {user}"), millis(500), to).await;
    let body = String::from_utf8(heard.message.body_bytes().to_vec()).expect("text");
    assert!(body.contains(&format!("\r\n\r\n{text}\r\n--")), "{body}");
    assert!(headers(&heard.message, "Contact").is_empty(), "no dialog");
    heard.message
}

fn nobody_gets_anything(net: &Net) {
    let request = |message: &Message| message.status().is_none();
    assert!(net.scscf().takes(&request).is_none());
}

fn answers(net: &Net, message: &Message, status: u16) {
    net.scscf().delivers(&response(message, status, "r", "", ""));
}

/// One is there and one is not: who is not gets it when back, once.
///
/// Part of IM-080.
///
/// Proves IM-092.
#[tokio::test(start_paused = true)]
async fn everybody_gets_a_message_of_its_own_sooner_or_later() {
    let net = Net::new().await;
    says(&net, "Lunch at 12?", &["bob", "carol"]);
    is_accepted(&net).await;
    let bob = gets(&net, "bob", "Lunch at 12?").await;
    let carol = gets(&net, "carol", "Lunch at 12?").await;
    assert_ne!(header(&bob, "Call-ID"), header(&carol, "Call-ID"));
    answers(&net, &carol, 200);
    answers(&net, &bob, 480);
    net.after(seconds(1)).await;
    nobody_gets_anything(&net);
    assert_eq!(net.results(), ["bob deferred SIP 480", "carol delivered"]);
    assert_eq!((&net.page()["mode"], &net.page()["state"]), (&"short".into(), &"deferred".into()));
    assert_eq!(net.counted("pagecast_deferred_messages"), 1);
    net.after(seconds(3600)).await;
    registers(&net, "bob", 600).await;
    let again = gets(&net, "bob", "Lunch at 12?").await;
    assert_ne!(header(&again, "Call-ID"), header(&bob, "Call-ID"));
    answers(&net, &again, 200);
    net.after(seconds(1)).await;
    assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
    registers(&net, "bob", 600).await;
    net.after(seconds(1)).await;
    nobody_gets_anything(&net);
    net.ends().await;
}

/// Two quick ones to Bob: the second leaves when the first is answered, whichever thread has it.
///
/// Proves IM-079.
#[tokio::test(start_paused = true)]
async fn one_message_at_a_time_to_each_target() {
    let net = Net::with(&["node.threads=2"]).await;
    for text in ["first", "second"] {
        says(&net, text, &["bob"]);
        is_accepted(&net).await;
    }
    let first = gets(&net, "bob", "first").await;
    net.after(seconds(5)).await;
    nobody_gets_anything(&net);
    answers(&net, &first, 200);
    let second = gets(&net, "bob", "second").await;
    answers(&net, &second, 200);
    net.after(seconds(1)).await;
    net.ends().await;
}
