//! Next hops that are busy or silent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pagecast::sip::message::Message;
use pagecast::sip::resolve::Zone;

use crate::callee::Callee;
use crate::net::{Net, SOON, seconds};
use crate::text::{self, header, invite};

/// The entry point of the network has two addresses.
const TWO: &[&str] =
    &["profile.isc.fanout_route=term_icscf", "core.icscf=sip:icscf.ims.test;transport=tcp"];

fn two() -> Zone {
    let mut zone = Zone::default();
    let both = vec![IpAddr::from([192, 0, 2, 11]), IpAddr::from([192, 0, 2, 12])];
    zone.addresses.insert("icscf.ims.test".into(), both);
    zone
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 5060))
}

/// The next initial INVITE, and where it was sent.
async fn invited(net: &Net, within: Duration) -> (Callee, SocketAddr) {
    let heard = net.scscf().hears_of("INVITE", within, text::is_initial).await;
    (Callee::new(Arc::clone(net.scscf()), heard.message), heard.to)
}

/// Who has heard the ACK of the refusal.
async fn acknowledged(net: &Net, leg: &Callee) -> SocketAddr {
    let branch = |message: &Message| message.via().branch.map(str::to_owned);
    let ack = |message: &Message| {
        message.is_request()
            && text::method(message) == "ACK"
            && branch(message) == branch(&leg.invite)
    };
    net.scscf().hears_of("ACK", SOON, ack).await.to
}

/// Proves ISC-069, ISC-071.
#[tokio::test(start_paused = true)]
async fn a_busy_hop_is_left_at_once_and_left_alone_as_long_as_it_says() {
    let net = Net::with_zone(TWO, two()).await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let (first, to) = invited(&net, SOON).await;
    assert_eq!(to, at(11));
    first.tries();
    first.says(503, "Retry-After: 20\n", "");
    assert_eq!(acknowledged(&net, &first).await, at(11));
    let (second, to) = invited(&net, SOON).await;
    assert_eq!(to, at(12));
    for same in ["Call-ID", "CSeq", "From", "To", "Contact"] {
        assert_eq!(header(&second.invite, same), header(&first.invite, same), "{same}");
    }
    assert_ne!(header(&second.invite, "Via"), header(&first.invite, "Via"), "a branch of its own");
    second.refuses(480).await;
    alice.gets(480).await;

    // A new page does not ask the busy one.
    let mut alice = net.scscf().sends(invite().to(["carol"])).await;
    let (leg, to) = invited(&net, SOON).await;
    assert_eq!(to, at(12));
    // The other is busy, too: nobody is left, and the leg ends as one that cannot be reached.
    leg.says(503, "Retry-After: 5\n", "");
    assert_eq!(acknowledged(&net, &leg).await, at(12));
    alice.gets(480).await;
    let mut alice = net.scscf().sends(invite().to(["dan"])).await;
    alice.gets(480).await;
    net.scscf().gets_no_invite().await;

    net.after(seconds(20)).await;
    let mut alice = net.scscf().sends(invite().to(["erin"])).await;
    let (leg, to) = invited(&net, SOON).await;
    assert_eq!(to, at(11), "its time is over");
    leg.refuses(480).await;
    alice.gets(480).await;
    net.ends().await;
}

/// Proves ISC-071.
#[tokio::test(start_paused = true)]
async fn a_silent_hop_is_left_when_its_time_is_over() {
    let net = Net::with_zone(TWO, two()).await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let (first, to) = invited(&net, SOON).await;
    assert_eq!(to, at(11));
    let (second, to) = invited(&net, seconds(33)).await;
    assert_eq!(to, at(12));
    assert_eq!(second.call_id, first.call_id);
    second.rings();
    second.refuses(486).await;
    alice.gets(486).await;
    net.ends().await;
}
