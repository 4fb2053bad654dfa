//! Hand-made SIP messages after the ideas of RFC 4475, and the mistakes other stacks were seen to make.
//!
//! Each row says what must come of the bytes: read, refused with a status, or not even answerable.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use pagecast::sip::message::{Frame, Framer, Limits, Malformed, Message, Method, Name, Writer};
use proptest::prelude::*;

/// What must come of a message.
#[derive(Debug, PartialEq)]
enum Fate {
    Read,
    /// Refused with this status, and there is enough to send the refusal.
    Refused(u16),
    /// Dropped: nobody can be answered, or nobody may be.
    Dropped,
}

fn parse(bytes: impl AsRef<[u8]>) -> Result<Message, Malformed> {
    Message::parse(Bytes::copy_from_slice(bytes.as_ref()), &Limits::default())
}

fn fate(bytes: &[u8]) -> Fate {
    match parse(bytes) {
        Ok(_) => Fate::Read,
        Err(Malformed { status, answer: Some(request), .. }) => {
            // The refusal can be printed, and is itself a message as far as the request left something to echo.
            let bytes = Writer::response(&request, status, "No", Some("t")).finish(None);
            assert!(
                bytes.starts_with(format!("SIP/2.0 {status} No\r\nVia: ").as_bytes()),
                "{bytes:?}"
            );
            Fate::Refused(status)
        }
        Err(_) => Fate::Dropped,
    }
}

/// A MESSAGE whose lines can be replaced (`-Name` drops one, `Name: x` replaces it, `+line` is added).
fn message(changes: &[&str]) -> Vec<u8> {
    message_with("MESSAGE sip:bob@example.org SIP/2.0", changes, "hello")
}

fn message_with(start: &str, changes: &[&str], body: &str) -> Vec<u8> {
    let mut lines = vec![
        "Via: SIP/2.0/UDP pc.example.com:5060;branch=z9hG4bK776".to_owned(),
        "Max-Forwards: 70".to_owned(),
        "From: \"A\" <sip:alice@example.com>;tag=1928".to_owned(),
        "To: <sip:bob@example.org>".to_owned(),
        "Call-ID: a84b4c76e66710@pc.example.com".to_owned(),
        "CSeq: 314 MESSAGE".to_owned(),
        "Content-Type: text/plain".to_owned(),
        "Content-Length: 5".to_owned(),
    ];
    let name = |line: &str| line.split(':').next().unwrap_or("").to_owned();
    for change in changes {
        if let Some(dropped) = change.strip_prefix('-') {
            lines.retain(|line| name(line) != dropped);
        } else if let Some(added) = change.strip_prefix('+') {
            lines.push(added.to_owned());
        } else {
            let place = lines
                .iter_mut()
                .find(|line| name(line) == name(change))
                .expect("a line to replace");
            *place = (*change).to_owned();
        }
    }
    format!("{start}\r\n{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
}

#[test]
fn what_the_grammar_allows_is_read() {
    let rows: &[(&str, Vec<u8>)] = &[
        ("nothing special", message(&[])),
        (
            "white space wherever it may stand, folds, compact names, any case",
            b"INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0\r\n\
              TO :\r\n sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n\r\n\
              from   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com>\r\n  ;\r\n  tag = 98asjd8\r\n\
              MaX-fOrWaRdS: 0068\r\n\
              Call-ID: wsinv.ndaksdj@192.0.2.1\r\n\
              Content-Length   : 4\r\n\
              cseq: 0009\r\n  INVITE\r\n\
              Via  : SIP  /   2.0\r\n /UDP\r\n    192.0.2.2;branch=390skdjuw\r\n\
              s :\r\n\
              NewFangledHeader:   newfangled value\r\n continued newfangled value\r\n\
              UnknownHeaderWithUnusualValue: ;;,,;;,;\r\n\
              Content-Type: application/sdp\r\n\
              Route:\r\n <sip:services.example.com;lr;unknownwith=value;unknown-no-value>\r\n\
              v:  SIP  / 2.0  / TCP     spindle.example.com   ;\r\n  branch  =   z9hG4bK9ikj8  ,\r\n SIP  /    2.0   / UDP  192.168.255.111   ; branch=\r\n z9hG4bK30239\r\n\
              m:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =\r\n      newvalue ;\r\n  secondparam ; q = 0.33\r\n\r\nv=0\n"
                .to_vec(),
        ),
        (
            "every token byte in a method, controls escaped in a display name",
            b"!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0\r\n\
              Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bK-.!%66*_+`'~\r\n\
              To: \"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7F\" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>\r\n\
              From: token1~` token2'+_ token3*%!.- <sip:mundane@example.com>;fromParam''~+*_!.-%=\"\xd1\x80\xd0\xb0\";tag=_token~1'+`*%!-.\r\n\
              Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{\r\n\
              CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~\r\n\
              Max-Forwards: 255\r\n\
              extensionHeader-!.%*+_`'~:\xef\xbb\xbf\xe5\xa4\xa7\xe5\x81\x9c\xe9\x9b\xbb\r\n\
              Content-Length: 0\r\n\r\n"
                .to_vec(),
        ),
        ("tel in the Request-URI", message_with("MESSAGE tel:+1-201-555-0123;phone-context=x SIP/2.0", &[], "hello")),
        ("urn in the Request-URI", message_with("MESSAGE urn:service:sos SIP/2.0", &[], "hello")),
        ("im in the Request-URI", message_with("MESSAGE im:bob@example.org SIP/2.0", &[], "hello")),
        ("pres in From, tel in To", message(&["From: pres:a@b;tag=1", "To: <tel:+44.20.7946.0000>"])),
        ("http in Contact", message(&["+Contact: <http://example.org/x>"])),
        ("upper-case parameter names", message(&["From: <sip:a@b>;TAG=9", "Via: SIP/2.0/UDP h;BRANCH=z9hG4bK1;RPORT"])),
        ("underscore in a host", message(&["Via: SIP/2.0/UDP my_host_1:5060;branch=z9hG4bK1", "From: <sip:a@my_host>;tag=1"])),
        ("IPv6 sent-by", message(&["Via: SIP/2.0/UDP [2001:db8::9:1]:5060;received=2001:db8::9:255;branch=z9hG4bKas3"])),
        ("old Via without magic cookie", message(&["Via: SIP/2.0/UDP h;branch=1"])),
        ("unknown transport in Via", message(&["Via: SIP/2.0/UNKNOWN h;branch=z9hG4bK1"])),
        ("a Call-ID of odd bytes", message(&["Call-ID: )(><:\\/\"][?}{"])),
        ("largest CSeq", message(&["CSeq: 2147483647 MESSAGE"])),
        ("no Content-Length in a datagram", message(&["-Content-Length"])),
        ("Content-Length twice, the same", message(&["+l: 05"])),
        ("octets behind Content-Length", message(&["Content-Length: 2"])),
        ("empty lines before the start line", [b"\r\n\r\n".to_vec(), message(&[])].concat()),
        ("empty header values", message(&["+Subject:", "+Accept: "])),
        ("no reason phrase", b"SIP/2.0 100 \r\nv: SIP/2.0/UDP h;branch=z9hG4bK1\r\nf: sip:a@b;tag=1\r\nt: sip:c@d\r\ni: x\r\nCSeq: 1 INVITE\r\n\r\n".to_vec()),
        ("semicolons in a user part", message_with("MESSAGE sip:user;par=u%40example.net@example.com SIP/2.0", &[], "hello")),
    ];
    for (what, bytes) in rows {
        if let Err(malformed) = parse(bytes) {
            panic!("{what}: {malformed}");
        }
    }
}

#[test]
fn what_breaks_the_rules_is_refused_and_the_refusal_can_be_sent() {
    let start = |start: &str| message_with(start, &[], "hello");
    let rows: Vec<(&str, Vec<u8>, Fate)> = vec![
        ("CSeq of another method", message(&["CSeq: 314 INVITE"]), Fate::Refused(400)),
        ("CSeq of another case", message(&["CSeq: 314 message"]), Fate::Refused(400)),
        ("CSeq too large", message(&["CSeq: 36893488147419103232 MESSAGE"]), Fate::Refused(400)),
        ("CSeq of 2^31", message(&["CSeq: 2147483648 MESSAGE"]), Fate::Refused(400)),
        ("CSeq without a number", message(&["CSeq: MESSAGE"]), Fate::Refused(400)),
        ("CSeq without a space", message(&["CSeq: 1MESSAGE"]), Fate::Refused(400)),
        ("negative Content-Length", message(&["Content-Length: -999"]), Fate::Refused(400)),
        ("Content-Length in words", message(&["Content-Length: five"]), Fate::Refused(400)),
        ("two Content-Lengths", message(&["+Content-Length: 4"]), Fate::Refused(400)),
        ("two Content-Lengths, one compact", message(&["+l: 0"]), Fate::Refused(400)),
        (
            "Content-Length beyond the datagram",
            message(&["Content-Length: 9999"]),
            Fate::Refused(400),
        ),
        ("two From", message(&["+f: <sip:x@y>;tag=2"]), Fate::Refused(400)),
        ("two To", message(&["+To: <sip:x@y>"]), Fate::Refused(400)),
        ("two CSeq", message(&["+CSeq: 314 MESSAGE"]), Fate::Refused(400)),
        ("two Call-ID", message(&["+i: x"]), Fate::Refused(400)),
        ("no From", message(&["-From"]), Fate::Refused(400)),
        ("no To", message(&["-To"]), Fate::Refused(400)),
        ("no Call-ID", message(&["-Call-ID"]), Fate::Refused(400)),
        ("empty Call-ID", message(&["Call-ID:"]), Fate::Refused(400)),
        ("no CSeq", message(&["-CSeq"]), Fate::Refused(400)),
        ("a line without a colon", message(&["+nonsense"]), Fate::Refused(400)),
        ("a name that is no token", message(&["+X Y: z"]), Fate::Refused(400)),
        (
            "a quote that never ends",
            message(&["To: \"Mr. J. User <sip:j.user@example.com>"]),
            Fate::Refused(400),
        ),
        (
            "spaces inside the brackets",
            message(&["To: \"Watson, Thomas\" < sip:t.watson@example.org >"]),
            Fate::Refused(400),
        ),
        (
            "a comma in a display name without quotes",
            message(&["To: Bell, Alexander <sip:a.g.bell@bell-tel.com>;tag=43"]),
            Fate::Refused(400),
        ),
        ("To without a scheme", message(&["To: <bob>"]), Fate::Refused(400)),
        ("junk behind the brackets", message(&["From: <sip:a@b> x;tag=1"]), Fate::Refused(400)),
        (
            "two addresses in From",
            message(&["From: <sip:a@b>;tag=1, <sip:c@d>"]),
            Fate::Refused(400),
        ),
        ("line feed inside a line", message(&["+X: a\nInjected: b"]), Fate::Refused(400)),
        ("carriage return inside a line", message(&["+X: a\rInjected: b"]), Fate::Refused(400)),
        (
            "brackets around the Request-URI",
            start("MESSAGE <sip:bob@example.org> SIP/2.0"),
            Fate::Refused(400),
        ),
        (
            "spaces in the Request-URI",
            start("MESSAGE sip:bob@example.org; lr SIP/2.0"),
            Fate::Refused(400),
        ),
        (
            "two spaces before the Request-URI",
            start("MESSAGE  sip:bob@example.org SIP/2.0"),
            Fate::Refused(400),
        ),
        (
            "two spaces after the Request-URI",
            start("MESSAGE sip:bob@example.org  SIP/2.0"),
            Fate::Refused(400),
        ),
        (
            "a space at the end of the start line",
            start("MESSAGE sip:bob@example.org SIP/2.0 "),
            Fate::Refused(400),
        ),
        ("Request-URI without a scheme", start("MESSAGE bob SIP/2.0"), Fate::Refused(400)),
        ("no Request-URI", start("MESSAGE SIP/2.0"), Fate::Dropped),
        ("version 7.0", start("MESSAGE sip:bob@example.org SIP/7.0"), Fate::Refused(505)),
        ("version 2.00", start("MESSAGE sip:bob@example.org SIP/2.00"), Fate::Refused(505)),
        ("HTTP", start("GET / HTTP/1.1"), Fate::Dropped),
        ("no Via", message(&["-Via"]), Fate::Dropped),
        ("empty Via", message(&["Via:"]), Fate::Dropped),
        ("Via full of separators", message(&["Via: SIP/2.0/UDP 192.0.2.15;;,;,,"]), Fate::Dropped),
        ("Via without a host", message(&["Via: SIP/2.0/UDP ;branch=z9hG4bK1"]), Fate::Dropped),
        ("Via with port 0", message(&["Via: SIP/2.0/UDP h:0;branch=z9hG4bK1"]), Fate::Dropped),
        (
            "Via with port 99999",
            message(&["Via: SIP/2.0/UDP h:99999;branch=z9hG4bK1"]),
            Fate::Dropped,
        ),
        (
            "bad ACK",
            message_with("ACK sip:b@c SIP/2.0", &["CSeq: 1 INVITE"], "hello"),
            Fate::Dropped,
        ),
        ("method that is no token", start("M@SSAGE sip:b@c SIP/2.0"), Fate::Dropped),
        ("nothing", b"".to_vec(), Fate::Dropped),
        ("one line without an end", b"MESSAGE sip:b@c SIP/2.0".to_vec(), Fate::Dropped),
        ("headers without an end", message(&[]).split_at(120).0.to_vec(), Fate::Refused(400)),
        (
            "a response with an odd status",
            b"SIP/2.0 4294967301 better not break\r\nv: SIP/2.0/UDP h\r\n\r\n".to_vec(),
            Fate::Dropped,
        ),
        (
            "a response without a CSeq",
            b"SIP/2.0 200 OK\r\nv: SIP/2.0/UDP h\r\nf: sip:a@b\r\nt: sip:a@b\r\ni: x\r\n\r\n"
                .to_vec(),
            Fate::Dropped,
        ),
    ];
    for (what, bytes, expected) in rows {
        assert_eq!(fate(&bytes), expected, "{what}");
    }
}

/// B1: where the reads of a stream end changes nothing, above all not where a body begins.
#[test]
fn a_read_that_ends_behind_content_length_loses_no_body() {
    let bytes = message(&["+X-Last: 1"]);
    let cut =
        bytes.windows(17).position(|window| window == b"Content-Length: 5").expect("it is there")
            + 19;
    let mut framer = Framer::new(&Limits::default());
    let mut buffer = BytesMut::from(&bytes[..cut]);
    assert_eq!(framer.feed(&mut buffer).expect("no fault yet"), None);
    buffer.extend_from_slice(&bytes[cut..]);
    buffer.extend_from_slice(&bytes);
    for _ in 0..2 {
        let Some(Frame::Message(frame)) = framer.feed(&mut buffer).expect("well framed") else {
            panic!("a message")
        };
        assert_eq!(parse(frame).expect("well formed").body(), b"hello");
    }
    assert_eq!((framer.feed(&mut buffer).expect("well framed"), buffer.len()), (None, 0));
}

/// B1, B29: what leaves the end of a message open ends the stream, with an answer where one can be given.
#[test]
fn a_stream_whose_framing_is_in_doubt_is_given_up() {
    let rows: &[(&str, Vec<u8>, u16)] = &[
        ("contradicting lengths", message(&["+Content-Length: 50"]), 400),
        ("negative length", message(&["Content-Length: -1"]), 400),
        ("no number", message(&["Content-Length: 5, 5"]), 400),
        ("body without a length", message(&["-Content-Length"]), 400),
        ("too large", message(&["Content-Length: 99999999"]), 413),
        ("larger than any number", message(&["Content-Length: 99999999999999999999"]), 400),
    ];
    for (what, bytes, status) in rows {
        let lost =
            Framer::new(&Limits::default()).feed(&mut BytesMut::from(&bytes[..])).expect_err(what);
        assert_eq!(lost.0.status, *status, "{what}");
        assert!(lost.0.answer.is_some(), "{what}");
    }
    let mut framer = Framer::new(&Limits { max_message: 1000, ..Limits::default() });
    let endless = "MESSAGE sip:a@b SIP/2.0\r\n".repeat(50);
    assert!(framer.feed(&mut BytesMut::from(endless.as_str())).is_err(), "a head without an end");
}

/// B2, B7: a Via that cannot be read is no panic; everything else that is wrong gets its status.
#[test]
fn no_line_can_be_broken_into_a_panic() {
    for via in [
        "",
        ";",
        ",",
        "SIP",
        "SIP/2.0",
        "SIP/2.0/UDP",
        "SIP/2.0/UDP ",
        "SIP/2.0/UDP [",
        "SIP/2.0/UDP [::1",
        "SIP/2.0/UDP h;branch=\"",
    ] {
        let line = format!("Via: {via}");
        let request = message(&[&line]);
        assert_eq!(fate(&request), Fate::Dropped, "{via}");
        let response = format!(
            "SIP/2.0 200 OK\r\n{line}\r\nFrom: sip:a@b;tag=1\r\nTo: sip:a@b\r\nCall-ID: x\r\nCSeq: 1 BYE\r\n\r\n"
        );
        assert_eq!(fate(response.as_bytes()), Fate::Dropped, "{via}");
    }
}

/// B4, B5: From, To and Contact leave as they came; nothing in them can become a header line.
#[test]
fn addresses_leave_as_they_came() {
    let from = "\"A%25 \\\"B\" <sip:a%25@b;transport=tcp;maddr=1.2.3.4;lr>;tag=x%0d%0aX-Injected:%20yes;+sip.instance=\"<urn:uuid:1>\"";
    let request = parse(message(&[&format!("From: {from}")])).expect("well formed");
    let answer = Writer::response(&request, 200, "OK", Some("y\r\nX-Injected")).finish(None);
    let answer = std::str::from_utf8(&answer).expect("text");
    assert!(answer.contains(&format!("\r\nFrom: {from}\r\n")), "{answer}");
    assert_eq!(answer.matches("\r\nX-Injected").count(), 0);
    let answer = parse(answer).expect("our own answer is well formed");
    assert_eq!(answer.from().param("+sip.instance"), Some("<urn:uuid:1>"));
    assert_eq!(answer.from_tag(), Some(&b"x%0d%0aX-Injected:%20yes"[..]));
}

/// B6: escaped quotes, other cases, no UTF-8, a stray line: none of them loses the message.
#[test]
fn oddities_do_not_lose_the_message() {
    let mut bytes = message(&[
        "From: \"a \\\" b\" <sip:a@b_c>;TAG=7",
        "Via: SIP/2.0/UDP a_b;Branch=z9hG4bK5",
        "+Subject: caf?",
    ]);
    let at = bytes.iter().position(|byte| *byte == b'?').expect("it is there");
    bytes[at] = 0xe9;
    let read = parse(&bytes).expect("well formed");
    assert_eq!(read.from().display.as_deref(), Some("a \" b"));
    assert_eq!(read.from_tag(), Some(&b"7"[..]));
    assert_eq!(read.via().branch, Some("z9hG4bK5"));
    assert_eq!(
        (read.header(Name::Subject), read.text(Name::Subject)),
        (Some(&b"caf\xe9"[..]), None)
    );
    let mut display = message(&["From: ? <sip:a@b>;tag=1"]);
    let at = display.iter().position(|byte| *byte == b'?').expect("it is there");
    display[at] = 0xff;
    assert_eq!(parse(&display).expect("well formed").from().uri, "sip:a@b");
}

/// B8: a method is exact.
#[test]
fn methods_are_exact() {
    for (text, known) in [
        ("MESSAGE", true),
        ("MESSAGEX", false),
        ("message", false),
        ("Message", false),
        ("MESSAG", false),
    ] {
        let bytes = message_with(
            &format!("{text} sip:b@c SIP/2.0"),
            &[&format!("CSeq: 1 {text}")],
            "hello",
        );
        let method =
            parse(bytes).expect("an unknown method is well formed").method().expect("a request");
        assert_eq!(method == Method::Message, known, "{text}");
        assert_eq!(method.as_str(), text);
    }
}

/// B27: the cost of a header flood grows with its size, not with its square, and the number of lines has a bound.
#[test]
fn a_header_flood_is_cheap_and_bounded() {
    let flood = |lines: usize| {
        let added: Vec<String> = (0..lines).map(|at| format!("+X{at}: y")).collect();
        let added: Vec<&str> = added.iter().map(String::as_str).collect();
        Bytes::from(message(&added))
    };
    assert_eq!(fate(&flood(9000)), Fate::Refused(413));
    let unbounded = Limits { max_lines: usize::MAX, ..Limits::default() };
    // The best of many runs, so that a busy machine does not decide.
    let cost = |bytes: &Bytes| {
        (0..20)
            .map(|_| {
                let begin = now();
                assert!(Message::parse(bytes.clone(), &unbounded).is_ok());
                begin.elapsed()
            })
            .min()
            .expect("twenty runs")
    };
    let (small, large) = (cost(&flood(1000)), cost(&flood(8000)));
    assert!(large < small * 24, "8 times the lines: {small:?} -> {large:?}");
}

#[expect(clippy::disallowed_methods, reason = "measures what parsing costs")]
fn now() -> Instant {
    Instant::now()
}

/// B28: however headers were copied, Content-Length is printed once.
#[test]
fn content_length_is_printed_once() {
    let request = parse(message(&[])).expect("well formed");
    let mut writer = Writer::request(&Method::Message, "sip:x@y");
    for (name, value) in request.all_headers() {
        writer.header(std::str::from_utf8(name).expect("a token"), value);
    }
    writer.echo(&request, Name::ContentLength).lines(b"l: 7\r\nContent-Length : 8\r\n");
    let copy = parse(writer.finish(Some(("text/plain", b"hello, world")))).expect("well formed");
    assert_eq!(copy.lines(Name::ContentLength).collect::<Vec<_>>(), [b"12"]);
    assert_eq!(copy.lines(Name::ContentType).count(), 1);
    assert_eq!(copy.body(), b"hello, world");
}

/// B30: a malformed message inside intact framing leaves the stream usable.
#[test]
fn a_malformed_message_does_not_break_the_stream() {
    let bytes = [message(&["CSeq: nonsense", "To: <bob>", "+no colon"]), message(&[])].concat();
    let mut buffer = BytesMut::from(&bytes[..]);
    let mut framer = Framer::new(&Limits::default());
    let mut fates = Vec::new();
    while let Some(Frame::Message(frame)) = framer.feed(&mut buffer).expect("the framing is intact")
    {
        fates.push(fate(&frame));
    }
    assert_eq!(fates, [Fate::Refused(400), Fate::Read]);
}

#[test]
fn bounds_are_refused_with_their_status() {
    let long = "x".repeat(9000);
    let rows: &[(&str, Vec<u8>, u16)] = &[
        ("a long line", message(&[&format!("+X: {long}")]), 413),
        (
            "a long start line",
            message_with(&format!("MESSAGE sip:{long}@b SIP/2.0"), &[], "hello"),
            414,
        ),
        ("a large message", [message(&["-Content-Length"]), vec![b'x'; 300 * 1024]].concat(), 413),
    ];
    for (what, bytes, status) in rows {
        assert_eq!(fate(bytes), Fate::Refused(*status), "{what}");
    }
}

/// `;tag` and `;tag=` are no tag, wherever they stand, and no reason to fall over.
#[test]
fn a_tag_without_a_value_is_none() {
    for tag in [";tag", ";tag=", ";tag;x=1", ";tag=\"\""] {
        let line = format!("From: <sip:alice@example.com>{tag}");
        let read = parse(message(&["-From", &format!("+{line}")]));
        if let Ok(read) = read {
            assert_eq!(read.from_tag(), None, "{line}");
        }
    }
}

proptest! {
    /// Whatever single bytes are changed, removed or added: no panic, and what is accepted can be echoed and read again.
    #[test]
    fn mutations_never_panic(at in 0usize..500, byte: u8, kind in 0u8..3) {
        let mut bytes = message(&["+Contact: \"x\" <sip:a@b>;q=1, <tel:+1>", "+Subject: a\r\n b"]);
        let at = at % bytes.len();
        match kind {
            0 => bytes[at] = byte,
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, byte),
        }
        if let Ok(read) = parse(&bytes) {
            let answer = Writer::response(&read, 200, "OK", Some("t")).finish(None);
            let again = parse(answer).expect("an answer to a well-formed request is well-formed");
            prop_assert_eq!(again.from(), read.from());
            prop_assert_eq!(again.call_id(), read.call_id());
            prop_assert_eq!(again.cseq(), read.cseq());
            prop_assert_eq!(again.via(), read.via());
        }
    }

    /// White space and folds wherever the grammar has LWS or SWS change nothing (`^` marks these places).
    #[test]
    fn white_space_changes_nothing(picks in proptest::collection::vec(0usize..7, 64)) {
        const MARKED: &str = "MESSAGE sip:bob@example.org SIP/2.0\r\n\
            Via~:^SIP^/^2.0^/^UDP host.example^:^5060^;^branch^=^z9hG4bK1^;^rport^,^SIP/2.0/TCP h2;branch=z9hG4bK2\r\n\
            Max-Forwards~:^70\r\n\
            From~:^\"A, B\"^<sip:alice@example.com>^;^tag^=^1928^;^x^=^\"y;z\"\r\n\
            To~:^Bob Two^<tel:+1-2>^;^flag\r\n\
            Call-ID~:^a84b4c76e66710\r\n\
            CSeq~:^314 ^MESSAGE\r\n\
            Require~:^one^,^two\r\n\
            Content-Length~:^5\r\n\r\nhello";
        let mut picks = picks.into_iter().cycle();
        let mut spaced = String::new();
        for letter in MARKED.chars() {
            match letter {
                '^' => spaced += ["", " ", "\t", "   ", "\r\n ", " \r\n\t", "\r\n \r\n  "][picks.next().expect("endless")],
                '~' => spaced += ["", " ", "\t", "  \t"][picks.next().expect("endless") % 4],
                other => spaced.push(other),
            }
        }
        let plain = parse(MARKED.replace(['^', '~'], "")).expect("well formed");
        let spaced = parse(spaced).expect("well formed with white space");
        let via = |message: &Message| {
            let via = message.via();
            (via.transport.to_owned(), via.host.to_owned(), via.port, via.branch.map(str::to_owned), via.rport)
        };
        prop_assert_eq!(via(&spaced), via(&plain));
        prop_assert_eq!(spaced.from().display, plain.from().display);
        prop_assert_eq!((spaced.from().uri, spaced.from_tag()), (plain.from().uri, plain.from_tag()));
        prop_assert_eq!(spaced.from().param("X"), Some("y;z"));
        prop_assert_eq!((spaced.to().uri, spaced.to().param("flag")), (plain.to().uri, Some("")));
        prop_assert_eq!((spaced.cseq(), spaced.call_id(), spaced.body()), (plain.cseq(), plain.call_id(), plain.body()));
        prop_assert!(spaced.has_token(Name::Require, "one") && spaced.has_token(Name::Require, "two"));
        prop_assert_eq!(spaced.values(Name::Via).count(), 2);
        let answer = parse(Writer::response(&spaced, 200, "OK", Some("t")).finish(None)).expect("well formed");
        prop_assert_eq!(via(&answer), via(&plain));
        prop_assert_eq!(answer.to().param("tag"), Some("t"));
    }

    /// A stream of any bytes is cut the same way in one piece and in many.
    #[test]
    fn any_split_gives_the_same_frames(noise in proptest::collection::vec(any::<u8>(), 0..40), step in 1usize..60) {
        let stream = [message(&[]), noise, message(&[])].concat();
        let run = |step: usize| {
            let (mut framer, mut buffer, mut seen) = (Framer::new(&Limits::default()), BytesMut::new(), Vec::new());
            for piece in stream.chunks(step) {
                buffer.extend_from_slice(piece);
                loop {
                    match framer.feed(&mut buffer) {
                        Ok(Some(frame)) => seen.push(format!("{frame:?}")),
                        Ok(None) => break,
                        Err(lost) => {
                            seen.push(lost.to_string());
                            return seen;
                        }
                    }
                }
            }
            seen
        };
        prop_assert_eq!(run(step), run(stream.len()));
    }
}
