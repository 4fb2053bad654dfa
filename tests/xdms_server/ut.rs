//! Who asks: through a proxy, or directly with a password.

use std::net::IpAddr;

use pagecast::sip::digest::{Algorithm, Challenge, Client as Digest, Ha1};
use pagecast::xdms::server::{Peer, User, Ut};

use super::*;

const BOB: &str = "sip:bob@ims.test";
const REALM: &str = "ims.test";

fn users() -> Ut {
    let user = |name: &str, identities: &[&str]| {
        let ha1 = [Algorithm::Sha256, Algorithm::Md5]
            .map(|algorithm| (algorithm, Ha1::of(algorithm, name, REALM, b"secret")))
            .into();
        let identities = identities.iter().map(|&one| one.to_owned()).collect();
        (name.to_owned(), User { ha1, identities })
    };
    let users = [user("alice", &[ALICE, "tel:+15551"]), user("bob", &[BOB])];
    Ut { realm: REALM.to_owned(), users: Arc::new(users.into()), max_failures: 3, ..Ut::default() }
}

async fn bench() -> Bench {
    Bench::with(Quotas::default(), |s| {
        s.trusted_proxies = vec!["192.0.2.1/32".parse().expect("a network")];
        s.ut = users();
        s.writes_per_minute = 1000;
    })
    .await
}

/// The last challenge an answer holds: the one anybody can answer.
fn challenge(got: &Got) -> Challenge {
    assert_eq!(got.status, 401);
    Challenge::read(got.headers["www-authenticate"].as_bytes()).expect("a challenge")
}

async fn login(bench: &Bench, user: &str, password: &str) -> Digest {
    let asked = bench.send("GET", &own("team"), &[], b"").await;
    Digest::new(user, password.as_bytes(), challenge(&asked))
}

/// Proves XD-017, XD-018.
#[tokio::test]
async fn users_without_a_proxy_prove_who_they_are() {
    let bench = bench().await;
    let mut alice = login(&bench, "alice", "secret").await;
    let mut bob = login(&bench, "bob", "secret").await;
    let path = own("team");
    let put = alice.credentials("PUT", &path, "c1");
    let headers = [("Authorization", put.as_str()), ("Content-Type", GROUP_TYPE)];
    assert_eq!(bench.send("PUT", &path, &headers, team().as_bytes()).await.status, 201);
    let got = bench
        .send("GET", &path, &[("Authorization", &alice.credentials("GET", &path, "c2"))], b"")
        .await;
    assert_eq!((got.status, got.body), (200, team()));
    let node = own("team/~~/group/list-service/@uri");
    let got = bench
        .send("GET", &node, &[("Authorization", &alice.credentials("GET", &node, "c3"))], b"")
        .await;
    assert_eq!((got.status, got.body.as_str()), (200, TEAM));

    let got = bench
        .send("GET", &path, &[("Authorization", &bob.credentials("GET", &path, "c1"))], b"")
        .await;
    assert_eq!(got.status, 403, "another user's tree");
    let replayed = bench.send("PUT", &path, &headers, team().as_bytes()).await;
    assert!(challenge(&replayed).stale, "each count once");
    let elsewhere = [("Authorization", &*alice.credentials("GET", &own("other"), "c4"))];
    assert_eq!(bench.send("GET", &path, &elsewhere, b"").await.status, 400);
    let as_put = [("Authorization", &*alice.credentials("PUT", &path, "c5"))];
    assert!(!challenge(&bench.send("GET", &path, &as_put, b"").await).stale, "for another method");
    let other =
        Challenge { realm: "other".into(), ..challenge(&bench.send("GET", &path, &[], b"").await) };
    let mut stranger = Digest::new("alice", b"secret", other);
    let headers = [("Authorization", &*stranger.credentials("GET", &path, "c"))];
    assert_eq!(bench.send("GET", &path, &headers, b"").await.status, 401, "another realm");
    let basic = [("Authorization", "Basic YWxpY2U6c2VjcmV0")];
    assert_eq!(bench.send("GET", &path, &basic, b"").await.status, 401);
}

/// Proves XD-017.
#[tokio::test]
async fn one_is_who_one_is_and_nobody_else() {
    let bench = bench().await;
    let mut alice = login(&bench, "alice", "secret").await;
    let tel = format!("{GROUPS}/users/tel:+15551/team");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(&str, Headers<'_>, u16)] = &[
        (&own("team"), &[], 404),
        (&own("team"), &[("X-3GPP-Intended-Identity", "\"sip:alice@IMS.test\"")], 404),
        (&own("team"), &[("X-3GPP-Intended-Identity", "<sip:alice@ims.test>")], 404),
        (&own("team"), &[("X-3GPP-Intended-Identity", BOB)], 403),
        (
            &own("team"),
            &[("X-3GPP-Intended-Identity", "\"sip:alice@ims.test\", \"sip:bob@ims.test\"")],
            403,
        ),
        (&tel, &[], 403),
        (&tel, &[("X-3GPP-Intended-Identity", "tel:+1-555-1")], 404),
        (&own("team"), &[("X-3GPP-Intended-Identity", "tel:+15551")], 403),
        // Only proxies may assert, whatever it is (XD-016).
        (&own("team"), &[("X-3GPP-Asserted-Identity", ALICE)], 403),
        (&own("team"), &[("X-XCAP-Asserted-Identity", ALICE)], 403),
        (&own("team"), &[("X-3GPP-Asserted-Identity", "")], 403),
    ];
    for (n, (path, headers, want)) in cases.iter().enumerate() {
        let credentials = alice.credentials("GET", path, &format!("c{n}"));
        let mut all = vec![("Authorization", credentials.as_str())];
        all.extend_from_slice(headers);
        assert_eq!(bench.send("GET", path, &all, b"").await.status, *want, "{path} {headers:?}");
    }
    let operator =
        bench.send("GET", &own("team"), &[("X-3GPP-Asserted-Identity", OPERATOR)], b"").await;
    assert_eq!(operator.status, 403);
}

/// Proves XD-015.
#[tokio::test]
async fn a_challenge_offers_what_every_user_has_and_guessing_ends() {
    let bench = bench().await;
    let asked = bench.send("GET", &own("team"), &[], b"").await;
    let first = challenge(&asked);
    assert_eq!((first.algorithm, first.qop, first.realm.as_str()), (Algorithm::Md5, true, REALM));
    let mut strong =
        Digest::new("alice", b"secret", Challenge { algorithm: Algorithm::Sha256, ..first });
    let headers = [("Authorization", &*strong.credentials("GET", &own("team"), "c"))];
    assert_eq!(
        bench.send("GET", &own("team"), &headers, b"").await.status,
        404,
        "SHA-256 is offered, too"
    );
    let mut guess = login(&bench, "alice", "guess").await;
    let mut nobody = login(&bench, "nobody", "secret").await;
    for n in 0..3 {
        let who = if n == 1 { &mut nobody } else { &mut guess };
        let headers = [("Authorization", &*who.credentials("GET", &own("team"), "c"))];
        assert_eq!(bench.send("GET", &own("team"), &headers, b"").await.status, 401, "{n}");
    }
    let headers = [("Authorization", &*strong.credentials("GET", &own("team"), "d"))];
    assert_eq!(
        bench.send("GET", &own("team"), &headers, b"").await.status,
        429,
        "even the right one"
    );
}

/// Proves XD-015, XD-016.
#[tokio::test]
async fn passwords_are_asked_for_over_tls_or_from_this_machine() {
    let store = Arc::new(Store::in_memory(Quotas::default()));
    let proxy = "192.0.2.1";
    let settings = |ut: Ut| Settings {
        trusted_proxies: vec!["192.0.2.1/32".parse().expect("a network")],
        ut,
        ..Settings::default()
    };
    let with = Server::new(settings(users()), store.clone());
    let without = Server::new(settings(Ut::default()), store);
    for (server, address, secure, want) in [
        (&with, "127.0.0.1", false, 401),
        (&with, "::1", false, 401),
        (&with, "::ffff:127.0.0.1", false, 401),
        (&with, "198.51.100.7", false, 403),
        (&with, "198.51.100.7", true, 401),
        (&with, proxy, false, 403),
        (&with, proxy, true, 403),
        (&without, "127.0.0.1", false, 403),
        (&without, "198.51.100.7", true, 403),
    ] {
        let request = hyper::Request::get(own("team")).body(http_body_util::Empty::<Bytes>::new());
        let peer = Peer { address: address.parse::<IpAddr>().expect("an address"), secure };
        let answer = server.answer(request.expect("a request"), peer).await;
        assert_eq!(answer.status().as_u16(), want, "{address} {secure}");
        assert_eq!(
            answer.headers().get_all("www-authenticate").iter().count(),
            if want == 401 { 2 } else { 0 }
        );
    }
    // Others are told to be believed from now on, and the users are gone.
    let mut fresh = settings(Ut::default());
    fresh.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
    fresh.root = "/elsewhere".to_owned();
    with.obey(fresh);
    let request = hyper::Request::get(own("team")).header("X-3GPP-Asserted-Identity", ALICE);
    let request = request.body(http_body_util::Empty::<Bytes>::new()).expect("a request");
    let peer = Peer { address: "127.0.0.1".parse().expect("an address"), secure: false };
    assert_eq!(with.answer(request, peer).await.status().as_u16(), 404, "the root is as it was");
}
