//! Requests nobody vouches for, in the profile `sipip`: challenged, proven, refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pagecast::isc::Happening;
use pagecast::isc::settings::{Account, Auth, CoreProfile, Settings};
use pagecast::sip::digest::{Algorithm, Challenge, Client, Ha1};

use crate::world::{INVITE, World, header, headers, home};

const REALM: &str = "home1.example";
const SECRET: &str = "sesame";
/// Outside of `sip.trusted_peers`.
const STRANGER: &str = "198.51.100.7:5060";
const CORE: &str = "192.0.2.40:5060";
const EXPLODER: &str = "sip:im-exploder@im.home1.example";
const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Md5];

fn account(name: &str, algorithms: &[Algorithm], identities: &[&str]) -> (String, Account) {
    let ha1 = |algorithm| (algorithm, Ha1::of(algorithm, name, REALM, SECRET.as_bytes()));
    let account = Account {
        ha1: algorithms.iter().copied().map(ha1).collect(),
        identities: identities.iter().map(|uri| (*uri).to_owned()).collect(),
    };
    (name.to_owned(), account)
}

/// A plain core with two users of its own.
fn plain() -> Settings {
    let mut settings = Settings { realm: REALM.to_owned(), ..home() };
    settings.profile = CoreProfile::SipIp;
    settings.ul.require_tls = false;
    let users: BTreeMap<_, _> = [
        account("alice", &ALL, &["sip:alice@home1.example", "tel:+15551230001"]),
        account("bob", &ALL, &["sip:bob@home1.example"]),
    ]
    .into();
    settings.auth = Auth { users: Arc::new(users), max_failures: 5, ..Auth::default() };
    settings
}

/// The INVITE of the examples as a phone without a core sends it, nth of its call, with further lines.
fn invite(n: u32, lines: &str) -> String {
    let gone = ["Route:", "Record-Route:", "P-", "Via: SIP/2.0/TCP scscf1", "Via: SIP/2.0/UDP pc"];
    let mut text = String::new();
    for line in INVITE.lines().filter(|line| !gone.iter().any(|gone| line.starts_with(gone))) {
        text += line;
        text += "\n";
    }
    text.replace("CSeq: 1 INVITE", &format!("CSeq: {n} INVITE"))
        .replace("z9hG4bK-ue-1", &format!("z9hG4bK-ue-{n}"))
        .replacen("Subject: Minutes\n", &format!("Subject: Minutes\n{lines}"), 1)
}

/// Another request of the same phone.
fn request(method: &str, uri: &str, lines: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK-{method}{}\n\
         Max-Forwards: 70\nFrom: <sip:alice@home1.example>;tag=q\nTo: <{uri}>\n\
         Call-ID: {method}-{}\nCSeq: 7 {method}\n{lines}\n",
        lines.len(),
        lines.len()
    )
}

/// What the last answer asks for with this algorithm.
fn asked(world: &World, algorithm: Algorithm) -> Challenge {
    let values = headers(world.answer(), "WWW-Authenticate");
    let read = values.iter().filter_map(|value| Challenge::read(value.as_bytes()));
    let found = read.clone().find(|challenge| challenge.algorithm == algorithm);
    found.unwrap_or_else(|| panic!("no such challenge: {values:?}"))
}

fn line(client: &mut Client, method: &str, uri: &str) -> String {
    format!("Authorization: {}\n", client.credentials(method, uri, "0a4f113b"))
}

/// A world that has challenged an INVITE.
fn challenged(settings: Settings) -> World {
    let mut world = World::new(settings);
    world.receive_from(STRANGER, &invite(1, ""));
    assert_eq!(world.statuses(), [100, 401]);
    world
}

/// Nobody is let in, nothing goes out, and operators are not told of a page that only was asked for its sender.
///
/// Proves IM-021.
#[test]
fn who_is_not_known_is_challenged_and_who_proves_it_is_served() {
    for algorithm in ALL {
        let mut world = challenged(plain());
        let values = headers(world.answer(), "WWW-Authenticate");
        let offered: Vec<_> =
            values.iter().filter_map(|value| Challenge::read(value.as_bytes())).collect();
        let algorithms: Vec<_> = offered.iter().map(|challenge| challenge.algorithm).collect();
        assert_eq!(algorithms, ALL, "the best first (RFC 8760)");
        assert!(offered.iter().all(|one| one.realm == REALM && one.qop && !one.stale));
        assert!(world.happened.is_empty(), "{:?}", world.happened);

        let mut client = Client::new("alice", SECRET.as_bytes(), asked(&world, algorithm));
        world.receive_from(STRANGER, &invite(2, &line(&mut client, "INVITE", EXPLODER)));
        let arrival = world.arrival();
        assert_eq!(&*arrival.originator.uri, "sip:alice@home1.example");
        assert_eq!(arrival.originator.display, None, "nobody vouches for a name");
        assert!(!arrival.anonymous);
        world.invite(1);
        let leg = world.last_request("INVITE");
        assert_eq!(header(leg, "Authorization"), None);
        assert!(leg.text.contains("From: <sip:alice@home1.example>;tag="), "{}", leg.text);
    }
}

/// Each row is one INVITE after a challenge: what is done to its credentials, and its answer.
///
/// Proves IM-021.
#[test]
fn credentials_that_do_not_prove_it() {
    type Spoil = fn(&str) -> String;
    let rows: [(&str, Spoil, u16); 9] = [
        ("as they are", |line| line.to_owned(), 100),
        ("another user", |line| line.replace("\"alice\"", "\"bob\""), 401),
        ("a user nobody knows", |line| line.replace("\"alice\"", "\"eve\""), 401),
        ("another realm", |line| line.replace("realm=\"home1", "realm=\"home2"), 401),
        ("another nonce", |line| line.replace("nonce=\"0", "nonce=\"1"), 401),
        ("a count nobody made", |line| line.replace("nc=00000001", "nc=1"), 401),
        ("no qop", |line| line.replace("qop=auth, ", ""), 401),
        ("another algorithm", |line| line.replace("SHA-256", "SHA-512-256"), 401),
        ("another scheme", |line| line.replace("Digest", "Basic"), 401),
    ];
    for (name, spoil, status) in rows {
        let mut world = challenged(plain());
        let mut client = Client::new("alice", SECRET.as_bytes(), asked(&world, Algorithm::Sha256));
        let good = line(&mut client, "INVITE", EXPLODER);
        world.receive_from(STRANGER, &invite(2, &spoil(&good)));
        assert_eq!(world.statuses().last(), Some(&status), "{name}");
        assert_eq!(world.has_arrived(), status == 100, "{name}");
        if status == 401 {
            assert!(!asked(&world, Algorithm::Sha256).stale, "{name}");
        }
    }
}

/// A nonce is good for a while, and each of its counts once; then right credentials get a new one (RFC 7616 §3.3).
///
/// Proves IM-021.
#[test]
fn nonces_are_used_once_and_not_for_ever() {
    let mut world = challenged(plain());
    let mut client = Client::new("alice", SECRET.as_bytes(), asked(&world, Algorithm::Md5));
    let first = line(&mut client, "OPTIONS", EXPLODER);
    let second = line(&mut client, "OPTIONS", EXPLODER);
    for (n, credentials, status) in
        [(1, &first, 200), (2, &first, 401), (3, &second, 200), (4, &second, 401)]
    {
        let lines = format!("{credentials}X-N: {}\n", "x".repeat(n));
        world.receive_from(STRANGER, &request("OPTIONS", EXPLODER, &lines));
        assert_eq!(world.statuses().last(), Some(&status), "{n}");
        if status == 401 {
            assert!(asked(&world, Algorithm::Md5).stale, "{n}: the credentials were right");
        }
    }
    // The nonce of the last answer, just before its end and just after.
    let mut client = Client::new("alice", SECRET.as_bytes(), asked(&world, Algorithm::Md5));
    for (time, status) in [(300, 200), (1, 401)] {
        world.pass(Duration::from_secs(time));
        let credentials = line(&mut client, "OPTIONS", EXPLODER);
        let lines = format!("{credentials}Y-N: {}\n", "x".repeat(time as usize));
        world.receive_from(STRANGER, &request("OPTIONS", EXPLODER, &lines));
        assert_eq!(world.statuses().last(), Some(&status), "after {time} s");
    }
    assert!(asked(&world, Algorithm::Md5).stale);
    // Too old and wrong as well is wrong.
    let mut wrong = Client::new("alice", b"guess", asked(&world, Algorithm::Md5));
    world.pass(Duration::from_secs(600));
    let credentials = line(&mut wrong, "OPTIONS", EXPLODER);
    world.receive_from(STRANGER, &request("OPTIONS", EXPLODER, &credentials));
    assert_eq!(world.statuses().last(), Some(&401));
    assert!(!asked(&world, Algorithm::Md5).stale);
}

/// After five wrong passwords in a minute a source is refused, right ones too; other sources are not.
///
/// Proves IM-021.
#[test]
fn guessing_has_an_end() {
    let mut world = challenged(plain());
    let right = |world: &World| Client::new("alice", SECRET.as_bytes(), asked(world, ALL[0]));
    let ask = |world: &mut World, peer: &str, client: &mut Client, n: usize| {
        let lines = line(client, "OPTIONS", EXPLODER) + &format!("X-N: {}\n", "x".repeat(n));
        world.receive_from(peer, &request("OPTIONS", EXPLODER, &lines));
        world.statuses().pop()
    };
    for n in 0..5 {
        let mut guess = Client::new("alice", b"guess", asked(&world, ALL[0]));
        assert_eq!(ask(&mut world, STRANGER, &mut guess, n), Some(401), "{n}");
    }
    let mut client = right(&world);
    assert_eq!(ask(&mut world, STRANGER, &mut client, 10), Some(403));
    let Some(Happening::Refused(refused)) = world.happened.last() else {
        panic!("operators hear of it: {:?}", world.happened)
    };
    assert_eq!((refused.rule, refused.key), ("IM-021", Some("auth.max_failures")));
    assert_eq!(ask(&mut world, "198.51.100.8:5060", &mut client, 11), Some(200));
    world.pass(Duration::from_secs(60));
    assert_eq!(ask(&mut world, STRANGER, &mut client, 12), Some(200), "a minute later");
}

/// Behind the core everybody has its address: who guesses there shuts out himself and nobody else.
///
/// Proves IM-021.
#[test]
fn one_who_guesses_behind_the_core_shuts_out_nobody_else() {
    let mut world = World::new(plain());
    let ask = |world: &mut World, user: &str, password: &str, n: u32| {
        let from = format!("From: <sip:{user}@home1.example>;tag=a1c9");
        let of = |text: String| {
            text.replacen("From: \"Alice\" <sip:alice@home1.example>;tag=a1c9", &from, 1)
                .replace("Call-ID: ", &format!("Call-ID: {user}-{n}-"))
        };
        world.receive_from(CORE, &of(invite(2 * n + 1, "")));
        let mut client = Client::new(user, password.as_bytes(), asked(world, ALL[0]));
        let credentials = line(&mut client, "INVITE", EXPLODER);
        world.receive_from(CORE, &of(invite(2 * n + 2, &credentials)));
        world.statuses().pop()
    };
    for n in 0..5 {
        assert_eq!(ask(&mut world, "alice", "guess", n), Some(401), "{n}");
    }
    assert_eq!(ask(&mut world, "alice", SECRET, 5), Some(403), "not even with the right one");
    assert_eq!(ask(&mut world, "bob", SECRET, 6), Some(100), "a page of his arrives");
    assert!(world.has_arrived());
}

/// Proves IM-021, IM-022.
#[test]
fn a_user_speaks_as_one_of_the_own_identities() {
    let from = "From: \"Alice\" <sip:alice@home1.example>;tag=a1c9";
    for (other, status, originator, anonymous) in [
        ("From: <sip:bob@home1.example>;tag=a1c9", 403, "", false),
        ("From: <sip:alice@home2.example>;tag=a1c9", 403, "", false),
        ("From: <SIP:alice@HOME1.example>;tag=a1c9", 100, "sip:alice@home1.example", false),
        ("From: <tel:+1-555-123-0001>;tag=a1c9", 100, "tel:+15551230001", false),
        (
            "From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=a1c9",
            100,
            "sip:alice@home1.example",
            true,
        ),
    ] {
        let mut world = challenged(plain());
        let mut client = Client::new("alice", SECRET.as_bytes(), asked(&world, ALL[0]));
        let credentials = line(&mut client, "INVITE", EXPLODER);
        world.receive_from(STRANGER, &invite(2, &credentials).replacen(from, other, 1));
        assert_eq!(world.statuses().last(), Some(&status), "{other}");
        if status == 403 {
            assert_eq!(world.refused().key, Some("auth.users"), "{other}");
            assert!(headers(world.answer(), "WWW-Authenticate").is_empty());
            continue;
        }
        let arrival = world.arrival();
        assert_eq!((&*arrival.originator.uri, arrival.anonymous), (originator, anonymous));
    }
}

/// Which requests are asked at all: by whom they come, in which profile, with which method.
///
/// Proves IM-021, ISC-001.
#[test]
fn who_is_asked_for_credentials() {
    let ims: fn(&mut Settings) = |settings| settings.profile = CoreProfile::Gpp;
    let same: fn(&mut Settings) = |_| {};
    let nobody: fn(&mut Settings) = |settings| settings.auth = Auth::default();
    let asserted = "P-Asserted-Identity: <sip:alice@home1.example>\n";
    for (name, change, peer, text, status) in [
        ("an IMS core never asks", ims, STRANGER, invite(1, ""), 403),
        ("nor does it ask its own", ims, CORE, invite(1, ""), 403),
        ("nobody could answer", nobody, STRANGER, invite(1, ""), 403),
        ("what a stranger asserts is nothing", same, STRANGER, invite(1, asserted), 401),
        ("what the core asserts is enough", same, CORE, invite(1, asserted), 100),
        ("the core does not know who it is", same, CORE, invite(1, ""), 401),
        ("its heartbeat is nobody's", same, CORE, request("OPTIONS", EXPLODER, ""), 200),
        ("a stranger's is", same, STRANGER, request("OPTIONS", EXPLODER, ""), 401),
        ("SUBSCRIBE", same, STRANGER, request("SUBSCRIBE", EXPLODER, "Event: reg\n"), 401),
        ("MESSAGE", same, STRANGER, request("MESSAGE", EXPLODER, ""), 401),
        ("REFER", same, STRANGER, request("REFER", EXPLODER, ""), 403),
        ("REGISTER", same, STRANGER, request("REGISTER", "sip:home1.example", ""), 403),
        ("CANCEL of nothing", same, STRANGER, request("CANCEL", EXPLODER, ""), 481),
    ] {
        let mut settings = plain();
        change(&mut settings);
        let mut world = World::new(settings);
        world.receive_from(peer, &text);
        assert_eq!(world.statuses().last(), Some(&status), "{name}");
        let asked = !headers(world.answer(), "WWW-Authenticate").is_empty();
        assert_eq!(asked, status == 401, "{name}");
        assert!(headers(world.answer(), "Proxy-Authenticate").is_empty(), "{name}");
    }
    let mut world = World::new(plain());
    world.receive_from(STRANGER, &request("ACK", EXPLODER, ""));
    assert!(world.statuses().is_empty(), "an ACK has no answer");
}

/// Known users get the answers everybody gets.
///
/// Proves IM-096.
#[test]
fn known_users_are_answered_like_the_core() {
    for (method, lines, status) in
        [("OPTIONS", "", 200), ("SUBSCRIBE", "Event: presence\n", 489), ("MESSAGE", "", 400)]
    {
        let mut world = challenged(plain());
        let mut client = Client::new("alice", SECRET.as_bytes(), asked(&world, ALL[0]));
        let lines = line(&mut client, method, EXPLODER) + lines;
        world.receive_from(STRANGER, &request(method, EXPLODER, &lines));
        assert_eq!(world.statuses().last(), Some(&status), "{method}");
    }
}

/// Credentials are for the Request-URI they name, and those of others are neither read nor lost.
///
/// Proves IM-021, UL-029.
#[test]
fn credentials_belong_to_a_request_and_to_a_realm() {
    let mut world = challenged(plain());
    let mut client = Client::new("alice", SECRET.as_bytes(), asked(&world, ALL[0]));
    let elsewhere = line(&mut client, "INVITE", "sip:other@im.home1.example");
    world.receive_from(STRANGER, &invite(2, &elsewhere));
    assert_eq!(world.statuses().last(), Some(&400));

    let foreign = "Authorization: Digest username=\"a\", realm=\"home2.example\", nonce=\"n\", \
                   uri=\"sip:x@home2.example\", response=\"0\"\n";
    let unproven = "Authorization: Digest username=\"alice\", realm=\"home1.example\", nonce=\"\", \
                    uri=\"sip:home1.example\", response=\"\"\n";
    for lines in [foreign, unproven] {
        let mut world = challenged(plain());
        for n in 2..10 {
            world.receive_from(STRANGER, &invite(n, lines));
            assert_eq!(world.statuses().last(), Some(&401), "no guess: {lines}");
        }
    }
    let mut world = challenged(plain());
    let mut client = Client::new("alice", SECRET.as_bytes(), asked(&world, ALL[0]));
    let both = foreign.to_owned() + &line(&mut client, "INVITE", EXPLODER);
    world.receive_from(STRANGER, &invite(2, &both));
    world.invite(1);
    let kept = headers(world.last_request("INVITE"), "Authorization");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].contains("home2.example"));
}

/// Only what every user can answer is offered.
#[test]
fn challenges_name_the_algorithms_everybody_has() {
    for (alice, bob, offered) in [
        (&ALL[..], &ALL[1..], vec![Algorithm::Md5]),
        (&ALL[..1], &ALL[..], vec![Algorithm::Sha256]),
    ] {
        let mut settings = plain();
        let users: BTreeMap<_, _> = [
            account("alice", alice, &["sip:alice@home1.example"]),
            account("bob", bob, &["sip:bob@home1.example"]),
        ]
        .into();
        settings.auth.users = Arc::new(users);
        let world = challenged(settings);
        let values = headers(world.answer(), "WWW-Authenticate");
        let got: Vec<_> = values
            .iter()
            .filter_map(|value| Challenge::read(value.as_bytes()))
            .map(|challenge| challenge.algorithm)
            .collect();
        assert_eq!(got, offered);
    }
}
