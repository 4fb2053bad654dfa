//! MSRP over TLS between real phones and a real server, over real sockets.

use pagecast::lab::phone::{Behaviour, Phone, Setup};
use pagecast::lab::tls::Identity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::{LIMIT, Net, page, result_of, until, user};

const TLS: &str = "msrp.tls.listen=[\"127.0.0.1:0\"]";

/// A registered phone with that identity.
async fn phone(net: &Net, name: &str, identity: Option<Identity>, setup: Setup) -> Phone {
    let behaviour = Behaviour { setup, ..Behaviour::default() };
    let settings = pagecast::lab::phone::Settings {
        behaviour,
        identity,
        ..pagecast::lab::phone::Settings::new(&net.core.uri(), &user(name))
    };
    Phone::start(settings).await.expect("registered")
}

async fn secure(net: &Net, name: &str, setup: Setup) -> Phone {
    phone(net, name, Some(Identity::new()), setup).await
}

/// Where MSRP goes over TLS.
fn door(net: &Net) -> std::net::SocketAddr {
    let door = net.server.ready.split([',', '=', ' ']).find_map(|door| door.strip_prefix("tls:"));
    door.expect("a door for TLS").parse().expect("an address")
}

/// Proves MS-112, IM-078: everybody over TLS, on either end of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_over_tls_octet_by_octet() {
    let net = Net::new(&[TLS]).await;
    let alice = secure(&net, "alice2", Setup::Active).await;
    let bob = secure(&net, "bob", Setup::Passive).await;
    let carol = secure(&net, "carol", Setup::Active).await;
    let expired = Some(Identity::expired());
    let dan = phone(&net, "dan", expired.clone(), Setup::Passive).await;
    let erin = phone(&net, "erin", expired, Setup::Active).await;
    let request = page(&["bob", "carol", "dan", "erin"], 300_000);
    let outcome = alice.page(&request).await;
    assert!(outcome.succeeded(), "{outcome:?}\n{}", net.server.program.err());
    for phone in [&bob, &carol, &dan, &erin] {
        let got = timeout(LIMIT, phone.received()).await.expect("in time").expect("it runs");
        assert_eq!(got.content().expect("CPIM").1, request.body);
        assert_eq!(phone.complaints(), [""; 0]);
    }
    assert_eq!(alice.complaints(), [""; 0]);
    assert_eq!(net.server.metric("pagecast_msrp_handshakes_failed_total", "").await, 0);
    net.server.idle().await;
    net.server.ends().await;
}

/// Proves MS-112: whoever shows another certificate than its SDP says, or none, gets nothing; the others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shows_something_else_gets_nothing() {
    let net = Net::new(&[TLS, "profile.msrp.bind_timeout=2s"]).await;
    let alice = secure(&net, "alice2", Setup::Active).await;
    let bob = secure(&net, "bob", Setup::Passive).await;
    let other = Identity::new();
    let wrong = || Some(Identity::new().showing(Some(&other)));
    let carol = phone(&net, "carol", wrong(), Setup::Passive).await;
    let dan = phone(&net, "dan", wrong(), Setup::Active).await;
    let erin = phone(&net, "erin", Some(Identity::new().showing(None)), Setup::Active).await;
    let request = page(&["bob", "carol", "dan", "erin"], 20_000);
    let outcome = alice.page(&request).await;
    assert!(outcome.succeeded(), "{outcome:?}\n{}", net.server.program.err());
    let got = timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
    assert_eq!(got.content().expect("CPIM").1, request.body);
    let shown = net.server.newest().await;
    assert_eq!(result_of(&shown, "bob").0, "delivered");
    for name in ["carol", "dan", "erin"] {
        assert_eq!(result_of(&shown, name).0, "deferred", "{name} in {shown}");
    }
    let certificate = "reason=\"certificate\"";
    let count = net.server.metric("pagecast_msrp_handshakes_failed_total", certificate).await;
    assert_eq!(count, 3, "{}", net.server.program.err());
    assert!(net.server.program.err().contains("MS-112"));
    drop((carol, dan, erin));
    net.server.ends().await;
}

/// Proves IM-078: by default a recipient without TLS fails; where that is allowed it is asked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_recipient_fails_or_is_asked_again() {
    for (allowed, state) in [("deny", "failed"), ("allow", "delivered")] {
        let downgrade = format!("profile.im.tls_downgrade={allowed}");
        let net = Net::new(&[TLS, &downgrade]).await;
        let alice = secure(&net, "alice2", Setup::Active).await;
        let bob = secure(&net, "bob", Setup::Active).await;
        let carol = phone(&net, "carol", None, Setup::Active).await;
        let request = page(&["bob", "carol"], 20_000);
        let outcome = alice.page(&request).await;
        assert!(outcome.succeeded(), "{outcome:?}\n{}", net.server.program.err());
        let got = timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
        assert_eq!(got.content().expect("CPIM").1, request.body);
        let shown = net.server.newest().await;
        let (result, protocol, code) = result_of(&shown, "carol");
        assert_eq!(result, state, "{shown}");
        if allowed == "deny" {
            assert_eq!((protocol.as_str(), code), ("SIP", 488));
        }
        drop(carol);
        net.server.ends().await;
    }
}

/// Proves MS-112: handshakes that take their time are nobody else's; plain TCP at the door for TLS is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_at_the_door_delay_nobody() {
    let net = Net::new(&[TLS, "msrp.tls.handshake_timeout=\"1s\""]).await;
    let door = door(&net);
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(door).await.expect("it listens"));
    }
    let mut plain = TcpStream::connect(door).await.expect("it listens");
    plain.write_all(b"MSRP a786hjs2 SEND\r\nTo-Path: msrp://x:1/y;tcp\r\n").await.expect("read");
    let mut heard = Vec::new();
    // A reset is an end as well.
    let _ = timeout(LIMIT, plain.read_to_end(&mut heard)).await.expect("closed");
    assert!(!heard.starts_with(b"MSRP"));
    let alice = secure(&net, "alice2", Setup::Active).await;
    let bob = secure(&net, "bob", Setup::Active).await;
    let request = page(&["bob"], 20_000);
    let outcome = alice.page(&request).await;
    assert!(outcome.succeeded(), "{outcome:?}\n{}", net.server.program.err());
    let got = timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
    assert_eq!(got.content().expect("CPIM").1, request.body);
    let slow = "reason=\"slow\"";
    let family = "pagecast_msrp_handshakes_failed_total";
    until("all silent ones are sent away", async || {
        (net.server.metric(family, slow).await == 50).then_some(())
    })
    .await;
    assert_eq!(net.server.metric(family, "reason=\"protocol\"").await, 1);
    drop(silent);
    net.works().await;
    net.server.ends().await;
}

/// Proves MS-112: SIGHUP takes a new certificate; pages go on before and after, and `check` tells of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_takes_a_new_certificate() {
    let files = super::support::Folder::new();
    let write = || {
        let made = rcgen::generate_simple_self_signed(["as1.ims.test".to_owned()]).expect("made");
        std::fs::write(files.path().join("own.pem"), made.cert.pem()).expect("written");
        let key = made.signing_key.serialize_pem();
        std::fs::write(files.path().join("own.key"), key).expect("written");
        pagecast::content::fingerprint::Fingerprint::of(
            pagecast::content::fingerprint::Hash::Sha256,
            made.cert.der(),
        )
        .to_string()
    };
    let old = write();
    let file = |name: &str| format!("{:?}", files.path().join(name).display().to_string());
    let certificate = format!("msrp.tls.certificate={}", file("own.pem"));
    let key = format!("msrp.tls.key={}", file("own.key"));
    let net = Net::new(&[TLS, &certificate, &key]).await;
    let alice = secure(&net, "alice2", Setup::Active).await;
    let bob = secure(&net, "bob", Setup::Active).await;
    let told = async |print: &str| {
        let request = page(&["bob"], 20_000);
        let outcome = alice.page(&request).await;
        assert!(outcome.succeeded(), "{outcome:?}\n{}", net.server.program.err());
        let got = timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
        assert_eq!(got.content().expect("CPIM").1, request.body);
        let shown = net.server.newest().await;
        let id = shown["id"].as_str().expect("an id").to_owned();
        let flow = net.server.get(&format!("/api/pages/{id}/flow.pcapng")).await;
        let text = String::from_utf8_lossy(&flow.body).into_owned();
        assert!(text.contains(&format!("a=fingerprint:{print}\r\n")), "{print}");
    };
    told(&old).await;
    let new = write();
    assert_ne!(old, new);
    net.server.program.signal("HUP");
    until("the reload", async || net.server.program.err().contains("reload").then_some(())).await;
    told(&new).await;
    assert_eq!(net.server.metric("pagecast_msrp_handshakes_failed_total", "").await, 0);
    net.server.ends().await;
}
