//! MSRP framing, from the texts: what is a message, what is a body, what loses the stream.

use bytes::BytesMut;
use pagecast::content::msrp_uri::MsrpUri;
use pagecast::msrp::codec::{
    self, ByteRange, Decoder, FailureReport, Flag, Head, Kind, Limits, Lost, Piece, Report,
    SendHead,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const O: &str = "msrp://192.0.2.55:7394/2s93i9ek2aWq4tYz7Lm3Xc;tcp";
const AS_O: &str = "msrp://198.51.100.20:2855/Kp7vR2mZ9qT4xB6nH8sW1d;tcp";
const CPIM: &str = "From: <sip:alice@ims.example.net>\r\n\
    To: <sip:team7@groups.ims.example.net>\r\n\
    DateTime: 2026-03-04T09:15:27Z\r\n\
    NS: imdn <urn:ietf:params:imdn>\r\n\
    imdn.Message-ID: 9fQ2xVb7Lk4Rt8Zn\r\n\
    imdn.Disposition-Notification: positive-delivery, negative-delivery\r\n\
    \r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    \r\n\
    Depot 4 is closed until 14:00. Use gate B.";

#[derive(Debug)]
struct Got {
    head: Head,
    body: Vec<u8>,
    flag: Flag,
}

/// Decodes `wire` fed in pieces of `sizes`, over and over.
fn decode(wire: &[u8], sizes: &[usize]) -> (Vec<Got>, Option<Lost>) {
    let mut decoder = Decoder::new(Limits::default());
    let (mut got, mut open) = (Vec::new(), None);
    let mut rest = wire;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let n = (*sizes.next().expect("cycle")).clamp(1, rest.len());
        decoder.buffer().extend_from_slice(&rest[..n]);
        rest = &rest[n..];
        loop {
            match decoder.next() {
                Ok(Some(Piece::Head(head))) => open = Some((*head, Vec::new())),
                Ok(Some(Piece::Body(octets))) => {
                    assert!(!octets.is_empty());
                    open.as_mut().expect("a head first").1.extend_from_slice(&octets);
                }
                Ok(Some(Piece::End(flag))) => {
                    let (head, body) = open.take().expect("a head first");
                    got.push(Got { head, body, flag });
                }
                Ok(None) => break,
                Err(lost) => return (got, Some(lost)),
            }
        }
    }
    (got, None)
}

fn send(id: &str, extra: &str, body: Option<&str>, flag: char) -> String {
    let body = body.map_or(String::new(), |b| format!("\r\n{b}\r\n"));
    format!(
        "MSRP {id} SEND\r\nTo-Path: {AS_O}\r\nFrom-Path: {O}\r\n{extra}{body}-------{id}{flag}\r\n"
    )
}

fn digest(octets: &[u8]) -> String {
    Sha256::digest(octets).iter().map(|b| format!("{b:02x}")).collect()
}

fn written(head: &SendHead<'_>, body: &str, flag: Flag) -> Vec<u8> {
    let mut out = BytesMut::new();
    codec::send_head(&mut out, head);
    out.extend_from_slice(body.as_bytes());
    codec::end_line(&mut out, head.id, flag, head.content_type.is_some());
    out.to_vec()
}

/// Proves MS-042, MS-043, MS-044, MS-053.
#[test]
fn what_we_write_is_the_reference_octet_for_octet() {
    assert_eq!(
        digest(CPIM.as_bytes()),
        "aa7b1292cc0f3868b9fba625c2a20c5e49ab9ff5a362655d5a8b7588359afed7"
    );
    let head = SendHead {
        id: b"dk49Zr2QpXw7",
        to_path: AS_O,
        from: O,
        message_id: "41Hn8Vb3Rc6T",
        range: None,
        success_report: false,
        content_type: None,
    };
    let whole = Some(ByteRange { start: 1, end: Some(331), total: Some(331) });
    let cpim = Some("message/cpim");
    let cases = [
        (
            head,
            "",
            Flag::Last,
            197,
            "1cdbbf4aa552d5090208dc6883579883f408578f045857942a8ac372818f05a8",
        ),
        (
            SendHead {
                id: b"a786hjs2Kd91",
                message_id: "87652491Qr7K",
                range: whole,
                success_report: true,
                content_type: cpim,
                ..head
            },
            CPIM,
            Flag::Last,
            604,
            "12b1c6820748f88535e8551b6a5708a9c723b3a0b0c8aed573c7ebe55739f10b",
        ),
        (
            SendHead {
                id: b"c1Rb8Yw5Mz0K",
                message_id: "55Tq9Wn3Lp7V",
                range: Some(ByteRange { start: 1, end: Some(289), total: Some(331) }),
                success_report: true,
                content_type: cpim,
                ..head
            },
            &CPIM[..289],
            Flag::More,
            562,
            "29b94eeafab0ea2b76ec958b9ec70af027af378477dac9ff7711912807c4a93d",
        ),
        (
            SendHead {
                id: b"c2Gx4Nv7Hs9J",
                message_id: "55Tq9Wn3Lp7V",
                range: Some(ByteRange { start: 290, end: Some(331), total: Some(331) }),
                success_report: true,
                content_type: cpim,
                ..head
            },
            &CPIM[289..],
            Flag::Last,
            317,
            "8099d33d5fe53d88430467f088656f7abfbdc1bf45cca96c68b067bf4b7cdee2",
        ),
    ];
    for (head, body, flag, len, sha) in cases {
        let wire = written(&head, body, flag);
        assert_eq!((wire.len(), digest(&wire).as_str()), (len, sha), "{:?}", head.message_id);
        // And back, in one piece and octet by octet.
        for sizes in [&[usize::MAX][..], &[1][..]] {
            let (got, lost) = decode(&wire, sizes);
            assert!(lost.is_none(), "{lost:?}");
            assert_eq!(got.len(), 1);
            assert_eq!((got[0].body.as_slice(), got[0].flag), (body.as_bytes(), flag));
            assert_eq!(got[0].head.range, head.range);
            assert_eq!(got[0].head.has_body, head.content_type.is_some());
        }
    }
}

/// Proves MS-071, MS-072.
#[test]
fn responses_and_reports_are_the_reference() {
    let wire = send("a786hjs2Kd91", "Message-ID: 87652491Qr7K\r\n", None, '$');
    let (got, _) = decode(wire.as_bytes(), &[7]);
    let mut out = BytesMut::new();
    codec::response(&mut out, &got[0].head, 200);
    let expect = format!(
        "MSRP a786hjs2Kd91 200 OK\r\nTo-Path: {O}\r\nFrom-Path: {AS_O}\r\n-------a786hjs2Kd91$\r\n"
    );
    assert_eq!(out, expect.as_bytes());

    // Through a relay: one hop back for SEND, the whole way for other methods.
    let relay = "msrp://relay.example:2855/r;tcp";
    for (method, to) in [("SEND", relay.to_owned()), ("PING", format!("{relay} {O}"))] {
        let wire = format!(
            "MSRP r000 {method}\r\nTo-Path: {AS_O}\r\nFrom-Path: {relay} {O}\r\nMessage-ID: m000\r\n-------r000$\r\n"
        );
        let (got, _) = decode(wire.as_bytes(), &[usize::MAX]);
        let mut out = BytesMut::new();
        codec::response(&mut out, &got[0].head, 501);
        let expect = format!(
            "MSRP r000 501 Method not supported\r\nTo-Path: {to}\r\nFrom-Path: {AS_O}\r\n-------r000$\r\n"
        );
        assert_eq!(out, expect.as_bytes(), "{method}");
    }

    let mut out = BytesMut::new();
    codec::report(
        &mut out,
        &Report {
            id: b"Vn3R8sJw6Tqb",
            to_path: O,
            from: AS_O,
            message_id: "87652491Qr7K",
            octets: 331,
            total: Some(331),
            code: 408,
            text: "No member reachable",
        },
    );
    let expect = format!(
        "MSRP Vn3R8sJw6Tqb REPORT\r\nTo-Path: {O}\r\nFrom-Path: {AS_O}\r\nMessage-ID: 87652491Qr7K\r\n\
         Byte-Range: 1-331/331\r\nStatus: 000 408 No member reachable\r\n-------Vn3R8sJw6Tqb$\r\n"
    );
    assert_eq!(out, expect.as_bytes());
}

/// Proves MS-040, MS-041.
#[test]
fn start_lines() {
    let good = [
        ("abcd SEND", Kind::Send),
        ("a.-+%=zZ9 REPORT", Kind::Report),
        ("abcd1234 NICKNAME", Kind::Nickname),
        ("abcd1234 PING", Kind::Unknown),
        ("abcd1234 200", Kind::Response(200)),
        ("abcd1234 200 OK", Kind::Response(200)),
        ("abcd1234 481 No such session at all", Kind::Response(481)),
        ("0123456789abcdef0123456789abcdef SEND", Kind::Send),
    ];
    for (line, kind) in good {
        let id = line.split(' ').next().expect("an id");
        let wire = format!(
            "MSRP {line}\r\nTo-Path: {AS_O}\r\nFrom-Path: {O}\r\nMessage-ID: m000\r\n-------{id}$\r\n"
        );
        let (got, lost) = decode(wire.as_bytes(), &[3]);
        assert!(lost.is_none(), "{line}: {lost:?}");
        assert_eq!(got[0].head.kind, kind, "{line}");
        assert_eq!(got[0].head.id, id.as_bytes());
    }
    let bad = [
        "GET / HTTP/1.1",
        "msrp abcd SEND",
        "MSRP abc SEND",
        "MSRP -bcd SEND",
        "MSRP ab~d SEND",
        "MSRP 0123456789abcdef0123456789abcdef0 SEND",
        "MSRP abcd send",
        "MSRP abcd SEND now",
        "MSRP abcd  SEND",
        "MSRP abcd ",
        "MSRP abcd",
        "MSRP abcd 20",
        "MSRP  abcd SEND",
    ];
    for line in bad {
        let wire = format!("{line}\r\nTo-Path: {AS_O}\r\nFrom-Path: {O}\r\n-------abcd$\r\n");
        let (got, lost) = decode(wire.as_bytes(), &[usize::MAX]);
        assert!(got.is_empty(), "{line}");
        assert!(lost.expect(line).answer.is_none(), "{line}: nobody to answer");
    }
}

/// Proves MS-039.
#[test]
fn stray_line_ends_between_messages_are_skipped() {
    let one = send("abcd", "Message-ID: m000\r\n", None, '$');
    let wire = format!("\r\n\r\n{one}\r\n\r\n\r\n{one}\r\n");
    for size in 1..20 {
        let (got, lost) = decode(wire.as_bytes(), &[size]);
        assert!(lost.is_none());
        assert_eq!(got.len(), 2);
    }
}

/// Proves MS-045, MS-046.
#[test]
fn only_the_own_end_line_ends_a_body() {
    let cases: &[(&str, &str)] = &[
        ("", "empty body, strict form"),
        ("plain", "plain"),
        ("a\r\n-------other1$\r\nb", "end-line of another transaction"),
        ("a\r\n-------abcd1234\r\nb", "own id without flag"),
        ("a\r\n-------abcd1234*\r\nb", "own id with no flag character"),
        ("a\r\n-------abcd12345$\r\nb", "longer id"),
        ("a -------abcd1234$\r\nb", "own id in the middle of a line"),
        ("a\n-------abcd1234$\nb", "bare line feeds"),
        ("a\r\n-------abcd1234$\rb", "no line feed at the end"),
        ("a\r\n-------abcd1234$x\r\nb", "something behind the flag"),
        ("a\r\n------abcd1234$\r\nb", "six hyphens"),
        ("a\r\n--------abcd1234$\r\nb", "eight hyphens"),
        ("a\r\n\r\n", "ends with an empty line"),
        ("a\r\r\n-------abcd123", "half a pattern at the end"),
        ("\r\n-------", "starts like a pattern"),
        ("-------abcd1234x", "starts with the end-line's letters"),
    ];
    for (body, why) in cases {
        for flag in ['$', '+', '#'] {
            let wire = send(
                "abcd1234",
                "Message-ID: m000\r\nContent-Type: text/plain\r\n",
                Some(body),
                flag,
            );
            for size in [1, 2, 3, 5, 7, 11, 1000] {
                let (got, lost) = decode(wire.as_bytes(), &[size]);
                assert!(lost.is_none(), "{why}");
                assert_eq!(got.len(), 1, "{why}, reads of {size}");
                assert_eq!(got[0].body, body.as_bytes(), "{why}, reads of {size}");
                assert_eq!(char::from(got[0].flag.octet()), flag);
                assert!(got[0].head.has_body);
            }
        }
    }
    // One empty line directly followed by the end-line.
    let wire = send("abcd1234", "Message-ID: m000\r\nContent-Type: text/plain\r\n\r\n", None, '$');
    for size in [1, 2, 1000] {
        let (got, lost) = decode(wire.as_bytes(), &[size]);
        assert!(lost.is_none());
        assert_eq!(got.len(), 1);
        assert!(got[0].head.has_body && got[0].body.is_empty());
    }
}

/// Proves MS-043.
#[test]
fn without_an_empty_line_there_is_no_body() {
    let wire = send("abcd", "Message-ID: m000\r\nByte-Range: 1-0/0\r\n", None, '$');
    let (got, _) = decode(wire.as_bytes(), &[usize::MAX]);
    assert!(!got[0].head.has_body);
    assert_eq!(got[0].head.range, Some(ByteRange { start: 1, end: Some(0), total: Some(0) }));
}

/// Proves MS-044.
#[test]
fn content_length_is_no_framing() {
    let extra = "Message-ID: m000\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n";
    let wire = send("abcd", extra, Some("twelve chars"), '$');
    let (got, lost) = decode(wire.as_bytes(), &[usize::MAX]);
    assert!(lost.is_none());
    assert_eq!(got[0].body, b"twelve chars");
}

/// Proves MS-042, MS-068, MS-113.
#[test]
fn wrong_header_values_deserve_400_and_keep_the_framing() {
    let base = "Message-ID: m000\r\n";
    let cases: &[(String, bool)] = &[
        (send("abcd", base, None, '$'), false),
        (send("abcd", "message-id: m000\r\nX-Unknown: 1\r\n", None, '$'), false),
        (send("abcd", "Message-ID:m000\r\n", None, '$'), false),
        (send("abcd", "", None, '$'), true),
        (send("abcd", "Message-ID: m0\r\n", None, '$'), true),
        (send("abcd", &format!("Message-ID: {}\r\n", "m".repeat(128)), None, '$'), false),
        (send("abcd", &format!("Message-ID: {}\r\n", "m".repeat(129)), None, '$'), true),
        (send("abcd", &format!("{base}{base}"), None, '$'), true),
        (send("abcd", &format!("{base}Success-Report: maybe\r\n"), None, '$'), true),
        (send("abcd", &format!("{base}Success-Report: yes\r\n"), None, '$'), false),
        (send("abcd", &format!("{base}Failure-Report: perhaps\r\n"), None, '$'), true),
        (send("abcd", &format!("{base}Failure-Report: partial\r\n"), None, '$'), false),
        (
            send("abcd", &format!("{base}Failure-Report: no\r\nFailure-Report: no\r\n"), None, '$'),
            true,
        ),
        (
            send("abcd", &format!("{base}Byte-Range: 1-5/5\r\nByte-Range: 1-5/5\r\n"), None, '$'),
            true,
        ),
        (send("abcd", &format!("{base}Byte-Range: -1-5/5\r\n"), None, '$'), true),
        (send("abcd", &format!("{base}Byte-Range: 1-5\r\n"), None, '$'), true),
        (send("abcd", &format!("{base}Byte-Range: x-5/5\r\n"), None, '$'), true),
        (send("abcd", &format!("{base}Byte-Range: +1-5/5\r\n"), None, '$'), true),
        (
            send("abcd", &format!("{base}Byte-Range: 1-*/18446744073709551616\r\n"), None, '$'),
            false,
        ),
        (send("abcd", &format!("{base}Content-Type: textplain\r\n"), None, '$'), true),
        (send("abcd", &format!("To-Path: {AS_O}\r\n{base}"), None, '$'), true),
        (
            format!(
                "MSRP abcd SEND\r\nFrom-Path: {O}\r\nTo-Path: {AS_O}\r\n{base}-------abcd$\r\n"
            ),
            true,
        ),
        (format!("MSRP abcd SEND\r\nTo-Path: x\r\nFrom-Path: {O}\r\n{base}-------abcd$\r\n"), true),
        (format!("MSRP abcd SEND\r\nTo-Path: \r\nFrom-Path: {O}\r\n{base}-------abcd$\r\n"), true),
        (
            format!(
                "MSRP abcd SEND\r\nTo-Path: {}\r\nFrom-Path: {O}\r\n{base}-------abcd$\r\n",
                [AS_O; 17].join(" ")
            ),
            true,
        ),
        (format!("MSRP abcd SEND\r\nFrom-Path: {O}\r\n{base}-------abcd$\r\n"), true),
    ];
    for (wire, wrong) in cases {
        let both = format!("{wire}{}", send("next", base, None, '$'));
        let (got, lost) = decode(both.as_bytes(), &[13]);
        assert!(lost.is_none(), "{wire}");
        assert_eq!(got.len(), 2, "the next message is read: {wire}");
        assert_eq!(got[0].head.problem.is_some(), *wrong, "{wire}");
        assert_eq!(got[1].head.problem, None);
    }
    let partial = send("abcd", "Message-ID: m000\r\nFailure-Report: partial\r\n", None, '$');
    assert_eq!(decode(partial.as_bytes(), &[9]).0[0].head.failure_report, FailureReport::Partial);
    let huge =
        send("abcd", "Message-ID: m000\r\nByte-Range: 1-*/18446744073709551616\r\n", None, '$');
    let range = decode(huge.as_bytes(), &[9]).0[0].head.range;
    assert_eq!(range, Some(ByteRange { start: 1, end: None, total: Some(u64::MAX) }));
}

/// Proves MS-042, MS-051, MS-052, MS-113.
#[test]
fn lost_framing_is_told_with_or_without_an_answer() {
    let head = format!("MSRP abcd SEND\r\nTo-Path: {AS_O}\r\nFrom-Path: {O}\r\n");
    let report = format!("MSRP abcd REPORT\r\nTo-Path: {AS_O}\r\nFrom-Path: {O}\r\n");
    let lines = |n: usize| (0..n).map(|i| format!("X-{i}: 1\r\n")).collect::<String>();
    let cases: &[(String, bool, &str)] = &[
        (format!("{head}garbage\r\n"), true, "no colon"),
        (format!("{head} folded: x\r\n"), true, "folding"),
        (format!("{head}X: a\0b\r\n"), true, "NUL"),
        (format!("{head}X: a\nY: b\r\n"), true, "bare line feed"),
        (format!("{head}-------othr$\r\n"), true, "foreign end-line"),
        (format!("{head}X: {}\r\n", "x".repeat(9000)), true, "line too long"),
        (format!("{head}X: {}", "x".repeat(9000)), true, "line too long and not ended"),
        (format!("{head}{}", lines(63)), true, "too many lines"),
        (
            format!("{head}{}", format!("X: {}\r\n", "x".repeat(8000)).repeat(3)),
            true,
            "section too long",
        ),
        (format!("{report}garbage\r\n"), false, "REPORT is never answered"),
        ("MSRP abcd 200 OK\r\ngarbage\r\n".to_owned(), false, "response is never answered"),
        ("MSRP abcd SEND\r\ngarbage\r\n".to_owned(), false, "no From-Path"),
        (
            format!("MSRP abcd SEND\r\nTo-Path: {AS_O}\r\nMessage-ID: m000\r\n-------abcd$\r\n"),
            false,
            "From-Path missing",
        ),
        (
            format!("MSRP abcd SEND\r\nTo-Path: {AS_O}\r\nFrom-Path: x\r\n-------abcd$\r\n"),
            false,
            "From-Path not parsable",
        ),
        (
            format!("{report}Content-Type: text/plain\r\n\r\n{}", "x".repeat(20_000)),
            false,
            "REPORT with 20 kB of body",
        ),
    ];
    for (wire, answered, why) in cases {
        for size in [1, 50, usize::MAX] {
            let (got, lost) = decode(wire.as_bytes(), &[size]);
            assert!(got.is_empty(), "{why}");
            assert_eq!(lost.expect(why).answer.is_some(), *answered, "{why}");
        }
    }
    // Illegal UTF-8, which no string literal can hold.
    let wire = [head.as_bytes(), b"X: \xff\xfe\r\n"].concat();
    assert!(decode(&wire, &[5]).1.expect("lost").answer.is_some());
    // 64 header lines are fine.
    let most = format!("{head}Message-ID: m000\r\n{}-------abcd$\r\n", lines(61));
    let (got, lost) = decode(most.as_bytes(), &[100]);
    assert!(lost.is_none(), "{lost:?}");
    assert_eq!(got.len(), 1);
}

#[test]
fn the_next_message_after_a_loss_is_not_read() {
    let mut decoder = Decoder::new(Limits::default());
    decoder.buffer().extend_from_slice(b"GET / HTTP/1.1\r\n");
    assert!(decoder.next().is_err());
    decoder.buffer().extend_from_slice(send("abcd", "Message-ID: m000\r\n", None, '$').as_bytes());
    assert!(decoder.next().is_err());
}

#[test]
fn heads_are_printed_without_session_ids() {
    let wire = send("abcd", "Message-ID: m000\r\n", None, '$');
    let head = &decode(wire.as_bytes(), &[99]).0[0].head;
    let text = format!("{head:?}");
    for uri in [O, AS_O] {
        let uri = MsrpUri::parse(uri).expect("an MSRP URI");
        assert!(!text.contains(uri.session_id().expect("has one")), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Proves MS-046.
    #[test]
    fn fifty_messages_survive_any_split(
        bodies in prop::collection::vec(
            prop::option::of("(a|-|\r|\n|\r\n-------|abcd|\\$|\\+|#){0,12}"), 1..50),
        sizes in prop::collection::vec(1_usize..200, 1..20),
    ) {
        let mut wire = String::new();
        let mut expect = Vec::new();
        for (n, body) in bodies.iter().enumerate() {
            let id = format!("abcd{n:03}");
            // What ends the message cannot be in its body: a sender's duty (MS-047).
            let body = body.as_ref().filter(|b| !b.contains(&id));
            let extra = if body.is_some() { "Message-ID: m000\r\nContent-Type: text/plain\r\n" }
                else { "Message-ID: m000\r\n" };
            wire.push_str(&send(&id, extra, body.map(String::as_str), '+'));
            expect.push(body.cloned());
        }
        let (got, lost) = decode(wire.as_bytes(), &sizes);
        prop_assert!(lost.is_none());
        let got: Vec<_> = got.into_iter()
            .map(|g| g.head.has_body.then(|| String::from_utf8(g.body).expect("ASCII"))).collect();
        prop_assert_eq!(got, expect);
    }

    #[test]
    fn no_octets_break_the_decoder(octets in prop::collection::vec(any::<u8>(), 0..400), cut in 1_usize..50) {
        let mut wire = b"MSRP abcd SEND\r\n".to_vec();
        wire.extend_from_slice(&octets);
        let _ = decode(&wire, &[cut]);
    }
}
