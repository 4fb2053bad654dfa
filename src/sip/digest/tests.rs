use proptest::prelude::*;

use super::*;

/// One published computation.
struct Example {
    text: &'static str,
    algorithm: Algorithm,
    realm: &'static str,
    password: &'static str,
    nonce: &'static str,
    counted: Option<(&'static str, &'static str)>,
    response: &'static str,
}

/// All of them are for `Mufasa` and `GET /dir/index.html`.
const EXAMPLES: &[Example] = &[
    Example {
        text: "RFC 2617 §3.5",
        algorithm: Algorithm::Md5,
        realm: "testrealm@host.com",
        password: "Circle Of Life",
        nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        counted: Some(("00000001", "0a4f113b")),
        response: "6629fae49393a05397450978507c4ef1",
    },
    Example {
        text: "RFC 2617 §3.5 without its qop",
        algorithm: Algorithm::Md5,
        realm: "testrealm@host.com",
        password: "Circle Of Life",
        nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        counted: None,
        response: "670fd8c2df070c60b045671b8b24ff02",
    },
    Example {
        text: "RFC 7616 §3.9.1",
        algorithm: Algorithm::Md5,
        realm: "http-auth@example.org",
        password: "Circle of Life",
        nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        counted: Some(("00000001", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")),
        response: "8ca523f5e9506fed4657c9700eebdbec",
    },
    Example {
        text: "RFC 7616 §3.9.1",
        algorithm: Algorithm::Sha256,
        realm: "http-auth@example.org",
        password: "Circle of Life",
        nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        counted: Some(("00000001", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")),
        response: "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
    },
];

#[test]
fn responses_of_the_published_examples() {
    for example in EXAMPLES {
        let Example { text, algorithm, realm, password, nonce, counted, response: right } =
            *example;
        let ha1 = Ha1::of(algorithm, "Mufasa", realm, password.as_bytes());
        let counted = counted.map(|(nc, cnonce)| Counted { nc, cnonce });
        let uri = "/dir/index.html";
        assert_eq!(
            response(algorithm, &ha1, "GET", uri, nonce, counted),
            right,
            "{text} {algorithm:?}"
        );
    }
}

/// The headers of the same examples, from the challenge to credentials a server takes.
#[test]
fn a_client_answers_and_a_server_sees_that_it_is_right() {
    for example in EXAMPLES.iter().filter(|example| example.counted.is_some()) {
        let Example { algorithm, realm, password, nonce, .. } = *example;
        let (_, cnonce) = example.counted.expect("filtered");
        let header = format!(
            "Digest realm=\"{realm}\", nonce=\"{nonce}\", opaque=\"5c,=c\", stale=FALSE, \
             algorithm={}, qop=\"auth-int,auth\"",
            algorithm.name()
        );
        let challenge = Challenge::read(header.as_bytes()).expect("a challenge");
        assert_eq!(Challenge::read(challenge.write().as_bytes()), Some(challenge.clone()));
        let mut client = Client::new("Mufasa", password.as_bytes(), challenge);
        let value = client.credentials("GET", "/dir/index.html", cnonce);
        assert!(value.contains(example.response), "{value}");
        let credentials = Credentials::read(value.as_bytes()).expect("credentials");
        let ha1 = Ha1::of(algorithm, "Mufasa", realm, password.as_bytes());
        assert!(credentials.answers(algorithm, &ha1, "GET"));
        assert!(!credentials.answers(algorithm, &ha1, "PUT"));
        let other = Ha1::of(algorithm, "Mufasa", realm, b"circle of life");
        assert!(!credentials.answers(algorithm, &other, "GET"));
        assert_eq!((credentials.user.as_str(), credentials.count()), ("Mufasa", Some(1)));
        assert_eq!(credentials.opaque.as_deref(), Some("5c,=c"));
        // The next request counts on.
        let value = client.credentials("GET", "/dir/index.html", cnonce);
        let again = Credentials::read(value.as_bytes()).expect("credentials");
        assert_eq!(again.count(), Some(2));
        assert!(again.answers(algorithm, &ha1, "GET"));
        let said = format!("{again:?} {ha1:?}");
        assert!(!said.contains(&again.response) && !said.contains(&ha1.0), "{said}");
    }
}

#[test]
fn challenges_that_cannot_be_answered_and_those_that_can() {
    for (value, fine) in [
        ("Digest realm=\"r\", nonce=\"n\"", true),
        ("digest  realm = \"r\" ,nonce=n,", true),
        ("Digest realm=\"a \\\"b\\\", c\", nonce=\"n\", algorithm=md5", true),
        ("Digest realm=\"r\", nonce=\"n\", algorithm=AKAv1-MD5, qop=\"auth\"", true),
        ("Digest realm=\"r\", nonce=\"n\", qop=auth", true),
        ("Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\"", false),
        ("Digest realm=\"r\", nonce=\"n\", algorithm=SHA-512-256", false),
        ("Digest realm=\"r\", nonce=\"n\", realm=\"r\"", false),
        ("Digest realm=\"r\" nonce=\"n\"", false),
        ("Digest realm=\"r, nonce=\"n\"", false),
        ("Digest realm=\"r\\\", nonce=\"n\"", false),
        ("Digest realm=\"r\"", false),
        ("Digest nonce=\"n\"", false),
        ("Digest =x, realm=\"r\", nonce=\"n\"", false),
        ("Digest x, realm=\"r\", nonce=\"n\"", false),
        ("Basic realm=\"r\", nonce=\"n\"", false),
        ("Digest", false),
        ("", false),
    ] {
        assert_eq!(Challenge::read(value.as_bytes()).is_some(), fine, "{value}");
    }
    assert_eq!(Challenge::read(b"Digest realm=\"\xff\", nonce=\"n\""), None);
    let many = (0..40).map(|n| format!("p{n}=1, ")).collect::<String>();
    assert_eq!(Challenge::read(format!("Digest {many}realm=r, nonce=n").as_bytes()), None);
    let stale = Challenge::read(b"Digest realm=r, nonce=n, stale=TRUE").expect("a challenge");
    assert!(stale.stale && !stale.qop);
}

#[test]
fn credentials_that_lack_something_answer_nothing() {
    let ha1 = Ha1::of(Algorithm::Md5, "u", "r", b"p");
    let challenge = Challenge {
        realm: "r".to_owned(),
        nonce: "n".to_owned(),
        opaque: None,
        algorithm: Algorithm::Md5,
        qop: true,
        stale: false,
    };
    let good = Client::new("u", b"p", challenge.clone()).credentials("INVITE", "sip:x@h", "c");
    let judge = |value: &str| {
        Credentials::read(value.as_bytes())
            .is_some_and(|credentials| credentials.answers(Algorithm::Md5, &ha1, "INVITE"))
    };
    assert!(judge(&good), "{good}");
    for part in ["username", "realm", "nonce", "uri", "response", "qop", "nc", "cnonce"] {
        let without = good
            .strip_prefix("Digest ")
            .expect("the scheme")
            .split(", ")
            .filter(|param| !param.starts_with(&format!("{part}=")))
            .collect::<Vec<_>>()
            .join(", ");
        assert!(!judge(&format!("Digest {without}")), "{part}");
    }
    // An older response is right and still not enough where we ask for qop.
    let old = Challenge { qop: false, ..challenge };
    assert!(!judge(&Client::new("u", b"p", old).credentials("INVITE", "sip:x@h", "c")));
    for nc in ["1", "0000000g", "000000001", "+0000001"] {
        let value = good.replace("nc=00000001", &format!("nc={nc}"));
        let credentials = Credentials::read(value.as_bytes()).expect("still credentials");
        assert_eq!(credentials.count(), None, "{nc}");
    }
    let empty = unproven("alice@ims.test", "ims.test", "sip:ims.test");
    assert!(Credentials::read(empty.as_bytes()).is_some() && !judge(&empty));
}

#[test]
fn stored_secrets_have_the_length_of_their_hash() {
    for (algorithm, digits, fine) in [
        (Algorithm::Md5, 32, true),
        (Algorithm::Md5, 64, false),
        (Algorithm::Sha256, 64, true),
        (Algorithm::Sha256, 63, false),
    ] {
        assert_eq!(Ha1::read(algorithm, &"A".repeat(digits)).is_some(), fine);
    }
    assert_eq!(Ha1::read(Algorithm::Md5, &"g".repeat(32)), None);
    let made = Ha1::of(Algorithm::Md5, "u", "r", b"p");
    assert_eq!(Ha1::read(Algorithm::Md5, &made.0.to_uppercase()), Some(made));
}

#[test]
fn the_realm_is_read_of_any_scheme() {
    for (value, realm) in [
        ("Digest username=\"u\", realm=\"our realm\"", Some("our realm")),
        ("Bearer realm=elsewhere", Some("elsewhere")),
        ("Bearer abc", None),
        ("x", None),
    ] {
        assert_eq!(realm_of(value.as_bytes()).as_deref(), realm, "{value}");
    }
}

proptest! {
    /// Whatever a peer writes is read or not; what was read can be written and read again.
    #[test]
    fn any_value_is_read_or_refused(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        text in "(Digest|digest|Basic)?[ \t]{0,2}((realm|nonce|uri|response|username|qop|nc|cnonce|algorithm|opaque|stale|x)[ ]?=[ ]?(\"[^\"]{0,6}(\\\\.)?\"|[^,]{0,6})[, ]{0,2}){0,9}",
    ) {
        for value in [noise.as_slice(), text.as_bytes()] {
            let _ = realm_of(value);
            if let Some(credentials) = Credentials::read(value) {
                let ha1 = Ha1::of(Algorithm::Sha256, &credentials.user, &credentials.realm, b"");
                prop_assert!(!credentials.answers(Algorithm::Sha256, &ha1, "INVITE"));
            }
            if let Some(challenge) = Challenge::read(value) {
                // A value without its quotes may hold one; between quotes it cannot be told from the end.
                let plain = |text: &str| !text.contains('"') && !text.ends_with('\\');
                let opaque = challenge.opaque.as_deref().unwrap_or_default();
                if [&challenge.realm, &challenge.nonce].iter().all(|text| plain(text)) && plain(opaque) {
                    prop_assert_eq!(Challenge::read(challenge.write().as_bytes()), Some(challenge));
                }
            }
        }
    }
}
