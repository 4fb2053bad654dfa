//! Whole bodies as they stand in the rules' examples, through every reader; and damaged ones, which must never hurt.

use bytes::Bytes;
use pagecast::content::msrp_uri::MsrpUri;
use pagecast::content::resource_lists::{self, BccMode, Copy, Limits};
use pagecast::content::sdp::{AcceptTypes, Own, Role, Session, Wants, choose, read_answer};
use pagecast::content::{cpim, multipart, request_body};
use pagecast::xdms::groups::Group;
use proptest::prelude::*;

/// The INVITE to a list service of the OMA rules, section G.1.
const INVITE_BODY: &str = "--bnd1\r\nContent-Type: application/sdp\r\n\r\n\
v=0\r\no=alice 2890844526 1 IN IP6 2001:db8::a1\r\ns=-\r\nc=IN IP6 2001:db8::a1\r\nt=0 0\r\n\
m=message 9 TCP/MSRP *\r\na=path:msrp://[2001:db8::a1]:2855/ue7Qm2k0;tcp\r\na=setup:active\r\n\
a=accept-types:message/cpim text/plain\r\na=accept-wrapped-types:text/plain image/png\r\n\
a=file-selector:size:20480 type:message/cpim\r\na=sendonly\r\n\
--bnd1\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"\r\n\
    xmlns:cp=\"urn:ietf:params:xml:ns:copycontrol\">\r\n  <list>\r\n\
    <entry uri=\"sip:bob@home1.example\" cp:copyControl=\"to\"/>\r\n\
    <entry uri=\"sip:carol@home2.example\" cp:copyControl=\"to\" cp:anonymize=\"true\"/>\r\n\
    <entry uri=\"sip:dan@home1.example\" cp:copyControl=\"bcc\"/>\r\n  </list>\r\n</resource-lists>\r\n--bnd1--\r\n";

fn wants(accept: &AcceptTypes, attributed: bool) -> Wants<'_> {
    Wants {
        accept,
        attributed,
        max_size: 10_485_760,
        tls: None,
        families: Default::default(),
        cema: true,
    }
}

fn lines(bytes: &Bytes) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    text.trim_end().split("\r\n").map(str::to_owned).collect()
}

/// Proves UL-008, UL-022, IM-008, MS-018.
#[test]
fn the_example_of_a_list_invite_is_understood() {
    let body = Bytes::from_static(INVITE_BODY.as_bytes());
    let found =
        request_body::read("multipart/mixed;boundary=bnd1", None, &body, true).expect("readable");
    let entries = resource_lists::parse(&found.lists[0], &Limits::default()).expect("a list");
    let named: Vec<(&str, Copy, bool)> =
        entries.iter().map(|e| (e.uri.as_str(), e.copy, e.anonymize)).collect();
    assert_eq!(
        named,
        [
            ("sip:bob@home1.example", Copy::To, false),
            ("sip:carol@home2.example", Copy::To, true),
            ("sip:dan@home1.example", Copy::Bcc, false)
        ]
    );
    let shown =
        resource_lists::history(&entries, BccMode::Remove, None).expect("something to show");
    let again = resource_lists::parse(shown.as_bytes(), &Limits::default()).expect("a list");
    let uris: Vec<&str> = again.iter().map(|e| e.uri.as_str()).collect();
    assert_eq!(uris, ["sip:bob@home1.example", "sip:anonymous@anonymous.invalid"]);
    assert!(shown.contains("cp:count=\"1\"") && !shown.contains("carol") && !shown.contains("dan"));

    let offer = Session::parse(&found.sdp.expect("there is SDP")).expect("SDP");
    let accept = AcceptTypes::default();
    let chosen = choose(&offer, &wants(&accept, false)).expect("acceptable");
    assert_eq!((chosen.peer.role, chosen.size), (Role::Passive, Some(20_480)));
    let path = MsrpUri::own(false, "192.0.2.10", 2855, "b4Jx9ZpQ0tR2sKd8").expect("a good URI");
    let own = Own {
        path: &path,
        session_id: 7731,
        version: 1,
        max_size: 10_485_760,
        fingerprints: &[],
        cema: false,
    };
    let mut to_bob = lines(&chosen.offer(&own));
    to_bob.sort();
    let mut want: Vec<String> = [
        "v=0",
        "o=- 7731 1 IN IP4 192.0.2.10",
        "s=-",
        "c=IN IP4 192.0.2.10",
        "t=0 0",
        "m=message 2855 TCP/MSRP *",
        "a=path:msrp://192.0.2.10:2855/b4Jx9ZpQ0tR2sKd8;tcp",
        "a=setup:actpass",
        "a=accept-types:message/cpim text/plain",
        "a=accept-wrapped-types:text/plain image/png",
        "a=file-selector:size:20480 type:message/cpim",
        "a=sendonly",
        "a=max-size:10485760",
    ]
    .map(str::to_owned)
    .to_vec();
    want.sort();
    assert_eq!(to_bob, want);
}

/// The descriptions of the MSRP rules, section 16.1, but for CEMA, which is not offered.
#[test]
fn the_example_descriptions_come_out() {
    let offer = "v=0\r\no=alice 2890844526 2890844526 IN IP4 192.0.2.55\r\ns=-\r\nc=IN IP4 192.0.2.55\r\nt=0 0\r\n\
        m=message 7394 TCP/MSRP *\r\na=accept-types:message/cpim\r\n\
        a=accept-wrapped-types:text/plain image/jpeg application/x-unknown\r\na=setup:actpass\r\na=msrp-cema\r\n\
        a=sendonly\r\na=x-vendor-hint:urgent\r\na=path:msrp://192.0.2.55:7394/2s93i9ek2aWq4tYz7Lm3Xc;tcp\r\n";
    let accept = AcceptTypes::default();
    let offer = Session::parse(offer.as_bytes()).expect("SDP");
    let chosen = choose(&offer, &wants(&accept, true)).expect("acceptable");
    let path = MsrpUri::own(false, "198.51.100.20", 2855, "Kp7vR2mZ9qT4xB6nH8sW1d").expect("good");
    let own = Own {
        path: &path,
        session_id: 7_721_900,
        version: 1,
        max_size: 10_485_760,
        fingerprints: &[],
        cema: true,
    };
    let head = |id: u32| -> Vec<String> {
        [
            "v=0",
            &format!("o=- {id} 1 IN IP4 198.51.100.20"),
            "s=-",
            "c=IN IP4 198.51.100.20",
            "t=0 0",
            "m=message 2855 TCP/MSRP *",
            "a=accept-types:message/cpim",
            "a=accept-wrapped-types:text/plain image/jpeg",
            "a=max-size:10485760",
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let with =
        |id, rest: &[&str]| [head(id), rest.iter().map(|l| (*l).to_owned()).collect()].concat();
    assert_eq!(
        lines(&chosen.answer(&own)),
        with(
            7_721_900,
            &[
                "a=setup:passive",
                "a=msrp-cema",
                "a=recvonly",
                "a=path:msrp://198.51.100.20:2855/Kp7vR2mZ9qT4xB6nH8sW1d;tcp"
            ]
        )
    );
    let path = MsrpUri::own(false, "198.51.100.20", 2855, "t5Yc3Jf8Gw2Ln6Qe9Ua4Rk").expect("good");
    let own = Own { path: &path, session_id: 7_721_901, ..own };
    assert_eq!(
        lines(&chosen.offer(&own)),
        with(
            7_721_901,
            &[
                "a=setup:actpass",
                "a=msrp-cema",
                "a=sendonly",
                "a=x-vendor-hint:urgent",
                "a=path:msrp://198.51.100.20:2855/t5Yc3Jf8Gw2Ln6Qe9Ua4Rk;tcp"
            ]
        )
    );
}

/// A good text of each kind, for damaging.
const GOOD: &[&str] = &[
    INVITE_BODY,
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=message 7394 TCP/MSRP *\r\n\
     a=path:msrp://192.0.2.1:7394/x;tcp\r\na=accept-types:* text/*\r\na=setup:passive\r\na=file-selector:name:\"a b\" size:1\r\n",
    "From: \"A \\\"B\\\"\" <sip:a@h>\r\nTo: <sip:b@h>\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: \\u00e9\r\n\
     Subject:;lang=fr x\r\n\r\nContent-Type: text/plain;charset=utf-8\r\n\r\nHello",
    include_str!("data/team7.xml"),
    include_str!("data/night-shift.xml"),
];

fn read_as_everything(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let _ = request_body::read("multipart/mixed;boundary=bnd1", Some("session"), &body, false);
    if let Ok(parts) = multipart::flatten("multipart/mixed; boundary=\"bnd1\"", &body) {
        assert!(parts.iter().map(|p| p.body.len()).sum::<usize>() <= bytes.len());
    }
    let _ = resource_lists::parse(bytes, &Limits::default());
    let _ = Group::parse(bytes);
    if let Ok(Some(head)) = cpim::parse(bytes) {
        assert!(head.content_at <= bytes.len());
    }
    let Ok(session) = Session::parse(bytes) else { return };
    let _ = read_answer(&session, None, true);
    let accept = AcceptTypes::default();
    let path = MsrpUri::own(false, "192.0.2.10", 2855, "b4Jx9ZpQ0tR2sKd8").expect("a good URI");
    let own =
        Own { path: &path, session_id: 1, version: 1, max_size: 1, fingerprints: &[], cema: false };
    if let Ok(chosen) = choose(&session, &wants(&accept, true)) {
        let answer = Session::parse(&chosen.answer(&own)).expect("ours is well formed");
        assert_eq!(answer.lines(), session.lines());
        assert!(Session::parse(&chosen.offer(&own)).is_ok());
    }
}

/// One way to damage a text.
#[derive(Debug, Clone)]
enum Damage {
    Set(usize, u8),
    Cut(usize),
    Drop(usize, usize),
    Repeat(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), 1usize..80).prop_map(|(at, n)| Damage::Drop(at, n)),
        (any::<usize>(), 1usize..200).prop_map(|(at, n)| Damage::Repeat(at, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bodies_do_no_harm(which in 0..GOOD.len(), damages in prop::collection::vec(damage(), 0..6)) {
        let mut bytes = GOOD[which].as_bytes().to_vec();
        for one in damages {
            let len = bytes.len().max(1);
            match one {
                Damage::Set(at, byte) => if let Some(b) = bytes.get_mut(at % len) { *b = byte },
                Damage::Cut(at) => bytes.truncate(at % len),
                Damage::Drop(at, n) => { let at = at % len; bytes.drain(at.min(bytes.len())..(at + n).min(bytes.len())); }
                Damage::Repeat(at, n) => {
                    let part = bytes.iter().skip(at % len).take(n).copied().collect::<Vec<_>>();
                    bytes.extend(part);
                }
            }
        }
        read_as_everything(&bytes);
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_as_everything(&bytes);
    }
}
