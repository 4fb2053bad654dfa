//! What is kept, what never is, how much, and whether the drawings hold.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

const INVITE: &str = "INVITE sip:pages@ims.test SIP/2.0\r\n\
Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1\r\n\
From: <sip:alice@ims.test>;tag=a\r\n\
To: <sip:pages@ims.test>\r\n\
Call-ID: c1\r\n\
CSeq: 1 INVITE\r\n\
Authorization: Digest username=\"alice\", response=\"sesame\"\r\n\
Subject: first\r\n second\r\n\
Content-Type: multipart/mixed; boundary=\"b1\"\r\n\
Content-Length: 999\r\n\
\r\n\
--b1\r\n\
Content-Type: application/sdp\r\n\
\r\n\
v=0\r\n\
m=message 2855 TCP/MSRP *\r\n\
a=path:msrp://127.0.0.1:2855/secret1;tcp\r\n\
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:sesameX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4\r\n\
\r\n\
--b1\r\n\
Content-Type: application/resource-lists+xml\r\n\
Content-Disposition: recipient-list\r\n\
\r\n\
<resource-lists/>\r\n\
--b1\r\n\
Content-Type: image/png\r\n\
Content-Length: 12\r\n\
\r\n\
PICTURE-DATA\r\n\
--b1--\r\n";

fn crossing(page: u64, leg: Option<u16>, sent: bool, transport: Transport) -> Crossing {
    let (from, to) = if sent { ("as1", "S-CSCF") } else { ("S-CSCF", "as1") };
    Crossing {
        page,
        leg,
        time: UNIX_EPOCH + Duration::from_millis(1_790_000_000_123),
        transport,
        sent,
        from: from.into(),
        to: to.into(),
        local: Some(([127, 0, 0, 1], 5090).into()),
        remote: Some(([127, 0, 0, 1], 5060).into()),
    }
}

fn flows(memory: usize) -> Flows {
    Flows::new(&Settings { memory, ..Settings::default() }).expect("random octets")
}

/// A page with signalling and media in both directions.
fn example(flows: &Flows, page: u64) {
    flows.record_sip(crossing(page, None, false, Transport::Udp), INVITE.as_bytes());
    let ok = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1\r\n\
From: <sip:alice@ims.test>;tag=a\r\nTo: <sip:pages@ims.test>;tag=b\r\nCall-ID: c1\r\n\
CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
    flows.record_sip(crossing(page, None, true, Transport::Udp), ok.as_bytes());
    let message = "MESSAGE sip:bob@ims.test SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:5090;branch=z9hG4bK2\r\n\
From: <sip:alice@ims.test>;tag=c\r\nTo: <sip:bob@ims.test>\r\nCall-ID: c2\r\nCSeq: 1 MESSAGE\r\n\
c: text/plain\r\nl: 15\r\n\r\nwords of a user";
    flows.record_sip(crossing(page, Some(1), true, Transport::Tcp), message.as_bytes());
    let send = "MSRP d93k SEND\r\nTo-Path: msrp://127.0.0.1:7654/secret2;tcp\r\n\
From-Path: msrp://127.0.0.1:2855/secret1;tcp\r\nMessage-ID: 12\r\nByte-Range: 1-2048/8192\r\n\
Content-Type: text/plain\r\n\r\n";
    let mut media = crossing(page, Some(1), true, Transport::Tcp);
    media.remote = Some(([127, 0, 0, 1], 7654).into());
    media.local = Some(([127, 0, 0, 1], 2855).into());
    flows.record_msrp(media.clone(), send.as_bytes(), 2048, Some(b'+'));
    media.sent = false;
    let answer = "MSRP d93k 200 OK\r\nTo-Path: msrp://127.0.0.1:2855/secret1;tcp\r\n\
From-Path: msrp://127.0.0.1:7654/secret2;tcp\r\n\r\n";
    flows.record_msrp(media, answer.as_bytes(), 0, Some(b'$'));
}

#[test]
fn the_api_shows_heads_and_no_secret() {
    let flows = flows(1 << 20);
    example(&flows, 7);
    let json = flows.get(7).expect("it is there").to_json();
    assert_eq!(json["page"], "0000000000000007");
    assert_eq!(json["truncated"], false);
    let messages = json["messages"].as_array().expect("a list");
    assert_eq!(messages.len(), 5);
    let invite = &messages[0];
    let mut keys: Vec<&str> =
        invite.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        ["body", "from", "headers", "leg", "line", "local", "proto", "remote", "time", "to"]
    );
    assert_eq!(invite["time"], "2026-09-21T14:13:20.123Z");
    assert_eq!(invite["proto"], "SIP");
    assert_eq!(invite["from"], "S-CSCF");
    assert_eq!(invite["local"], "127.0.0.1:5090");
    assert_eq!(invite["leg"], serde_json::Value::Null);
    assert_eq!(invite["line"], "INVITE sip:pages@ims.test SIP/2.0");
    assert_eq!(invite["body"]["type"], "multipart/mixed; boundary=\"b1\"");
    let header = |name: &str| {
        let headers = invite["headers"].as_array().expect("a list");
        headers.iter().find(|header| header[0] == name).map(|header| header[1].clone())
    };
    assert_eq!(header("Subject"), Some("first second".into()));
    assert_eq!(header("Authorization"), Some("(left out)".into()));
    assert_eq!(messages[1]["body"], serde_json::Value::Null);
    assert_eq!(messages[3]["proto"], "MSRP");
    assert_eq!(messages[3]["leg"], 1);
    assert_eq!(messages[3]["body"]["octets"], 2048);
    // One id has one pseudonym, wherever it stands.
    let path = |message: usize, header: usize| messages[message]["headers"][header][1].clone();
    assert_eq!(path(3, 0), path(4, 1));
    assert_ne!(path(3, 0), path(3, 1));

    let flow = flows.get(7).expect("it is there");
    let capture = String::from_utf8_lossy(&pcapng::write(&flow)).into_owned();
    let everything = format!("{json}{}{}{capture}", ladder::text(&json), svg::draw(&json));
    for secret in ["sesame", "secret1", "secret2", "PICTURE-DATA", "words of a user"] {
        assert!(!everything.contains(secret), "{secret} got out");
    }
    assert!(capture.contains("m=message 2855 TCP/MSRP *"), "SDP is kept");
    assert!(capture.contains("<resource-lists/>"), "lists are kept");
    assert!(capture.contains("[12 octets]"), "other bodies have a stand-in");
}

/// A request leaves before anybody knows which address it goes to; what comes back tells.
#[test]
fn addresses_are_learnt_from_what_comes_back() {
    let flows = flows(1 << 20);
    let message = |line: &str, call: &str| format!("{line}\r\nCall-ID: {call}\r\n\r\n");
    let mut lost = crossing(4, Some(1), true, Transport::Udp);
    (lost.local, lost.remote) = (None, None);
    flows.record_sip(lost.clone(), message("INVITE sip:b@h SIP/2.0", "one").as_bytes());
    flows.record_sip(lost.clone(), message("INVITE sip:c@h SIP/2.0", "two").as_bytes());
    let back = crossing(4, Some(1), false, Transport::Tcp);
    flows.record_sip(back.clone(), message("SIP/2.0 200 OK", "one").as_bytes());
    flows.record_sip(lost, message("BYE sip:b@h SIP/2.0", "one").as_bytes());
    let flow = flows.get(4).expect("it is there");
    let remotes: Vec<_> = flow.entries.iter().map(|entry| entry.crossing.remote).collect();
    assert_eq!(remotes, [back.remote, None, back.remote, back.remote]);
    assert_eq!(flow.entries[0].crossing.transport, Transport::Tcp);
}

#[test]
fn the_oldest_page_leaves_when_memory_is_full() {
    let bound = 64 << 10;
    let flows = flows(bound);
    for page in 0..200 {
        example(&flows, page);
        assert!(flows.memory() <= bound, "{} octets", flows.memory());
    }
    assert_eq!(flows.get(0), None, "the oldest left");
    assert!(flows.get(199).is_some(), "the newest stays");
    let left: Vec<u64> = (0..200).filter(|page| flows.get(*page).is_some()).collect();
    assert!(left.len() > 5, "{left:?}");
    assert!(left.windows(2).all(|pair| pair[1] == pair[0] + 1), "the newest stay: {left:?}");
    example(&flows, 0);
    assert!(flows.get(0).expect("it is back").truncated, "its beginning is missing");

    let one_page = flows_of_one_page(bound);
    let kept = one_page.get(5).expect("it is there");
    assert!(kept.truncated);
    assert!(one_page.memory() <= bound / 4, "one page fills no more than a quarter");

    let off = self::flows(0);
    example(&off, 1);
    assert!(off.is_off());
    assert_eq!(off.get(1), None);
}

fn flows_of_one_page(bound: usize) -> Flows {
    let flows = flows(bound);
    for _ in 0..1000 {
        example(&flows, 5);
    }
    flows
}

#[test]
fn a_long_transfer_keeps_its_ends() {
    let flows = flows(16 << 20);
    let crossing = crossing(9, Some(2), true, Transport::Tcp);
    for chunk in 0..5000 {
        let flag = if chunk == 4999 { b'$' } else { b'+' };
        flows.record_msrp(crossing.clone(), b"MSRP x SEND\r\n\r\n", 2048, Some(flag));
        let mut answer = crossing.clone();
        answer.sent = false;
        flows.record_msrp(answer, b"MSRP x 200 OK\r\n\r\n", 0, Some(b'$'));
    }
    let flow = flows.get(9).expect("it is there");
    assert!(flow.truncated);
    assert_eq!(flow.entries.len(), 2 * CHUNKS as usize + 1);
    assert!(flow.entries.iter().any(|entry| entry.octets == 2048 && entry.flag == Some(b'$')));
}

#[test]
fn the_ladder_has_a_column_for_each_end_and_an_arrow_for_each_message() {
    let flows = flows(1 << 20);
    example(&flows, 7);
    let text = ladder::text(&flows.get(7).expect("it is there").to_json());
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(rows.len(), 2 + 5, "{text}");
    assert!(rows[1].contains("S-CSCF") && rows[1].contains("as1"), "{text}");
    assert!(rows[2].contains("- INVITE (mixed)") && rows[2].contains('>'), "{text}");
    assert!(rows[3].contains("<") && rows[3].contains("200 INVITE"), "{text}");
    assert!(rows[4].contains("MESSAGE #1 (plain)"), "{text}");
    assert!(rows[5].contains("MSRP SEND"), "{text}");
    assert_eq!(ladder::text(&Flow { page: 1, ..Flow::default() }.to_json()).lines().count(), 2);
}

#[test]
fn the_drawing_is_well_formed_whatever_peers_send() {
    let flows = flows(1 << 20);
    let mut strange = crossing(3, None, false, Transport::Udp);
    strange.from = "<script>alert(1)</script>\u{7}&\"'".into();
    flows.record_sip(strange, b"<&\x01\xff> \"x\" SIP/2.0\r\nA: b\r\n\r\n");
    example(&flows, 3);
    let svg = svg::draw(&flows.get(3).expect("it is there").to_json());
    let document = roxmltree::Document::parse(&svg).expect("well-formed");
    let arrows =
        document.descendants().filter(|node| node.attribute("marker-end").is_some()).count();
    assert_eq!(arrows, 6);
    assert!(!svg.contains("<script"));
}

#[test]
fn kept_flows_come_back_from_disk_and_have_a_bound() {
    let folder = std::env::temp_dir().join(format!("pagecast-{}-flows", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let settings = Settings {
        memory: 32 << 10,
        keep: keep::Choice::Failed,
        disk: 40_000,
        folder: Some(folder.clone()),
        threads: 1,
    };
    let flows = Flows::new(&settings).expect("the temporary folder can be written");
    let mut kept = Vec::new();
    for page in 0..60 {
        example(&flows, page);
        kept.push(flows.get(page).expect("it is there"));
        flows.ended(page, page % 2 == 1);
        // One at a time: the queue has a bound, too.
        if page % 2 == 1 {
            let file = folder.join(format!("{page:016x}.json"));
            let patience = std::time::Duration::from_secs(20);
            let start = tokio::time::Instant::now();
            while !file.exists() {
                assert!(start.elapsed() < patience, "{} is not written", file.display());
                std::thread::yield_now();
            }
        }
    }
    drop(flows);
    let size = |folder: &std::path::Path| -> u64 {
        let files = std::fs::read_dir(folder).expect("it is there");
        files.filter_map(|file| file.ok()?.metadata().ok()).map(|about| about.len()).sum()
    };
    // A new process finds them, but the oldest; pages without a failure were not kept.
    let again = Flows::new(&settings).expect("the folder is there");
    let start = tokio::time::Instant::now();
    while size(&folder) > settings.disk {
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{} octets", size(&folder));
        std::thread::yield_now();
    }
    let mut last = None;
    while last.is_none() {
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "the last page is not kept");
        last = again.get(59);
    }
    assert_eq!(last.as_ref(), Some(&kept[59]));
    assert_eq!(again.get(58), None, "it did not fail");
    assert_eq!(again.get(1), None, "the oldest file left");
    let _ = std::fs::remove_dir_all(&folder);
}

const FUSSY: [&str; 8] = [
    "image/jpeg",
    "image/png",
    "image/gif",
    "message/cpim",
    "message/imdn+xml",
    "application/json",
    "multipart/mixed;boundary=x",
    "application/vnd.3gpp.sms",
];

/// Wireshark's own dissectors read the capture: nothing is malformed, checksums are right.
#[test]
fn wireshark_opens_the_capture() {
    let flows = flows(1 << 20);
    example(&flows, 7);
    let v6 = |mut crossing: Crossing| {
        crossing.local = Some("[::1]:5090".parse().expect("an address"));
        crossing.remote = Some("[::1]:5060".parse().expect("an address"));
        crossing
    };
    flows.record_sip(v6(crossing(7, None, false, Transport::Udp)), INVITE.as_bytes());
    // Types whose dissectors look closely at what is a stand-in here.
    for media in FUSSY {
        let message = format!(
            "MESSAGE sip:bob@ims.test SIP/2.0\r\nCSeq: 1 MESSAGE\r\nContent-Type: {media}\r\n\
             Content-Length: 4\r\n\r\nbody"
        );
        flows.record_sip(crossing(7, Some(1), false, Transport::Udp), message.as_bytes());
        let send = format!(
            "MSRP a7{len} SEND\r\nTo-Path: msrp://h:1/x;tcp\r\nFrom-Path: msrp://h:2/y;tcp\r\n\
             Message-ID: 1\r\nByte-Range: 2049-*/*\r\nContent-Type: {media}\r\n\r\n",
            len = media.len(),
        );
        flows.record_msrp(
            crossing(7, Some(2), true, Transport::Tcp),
            send.as_bytes(),
            9,
            Some(b'$'),
        );
    }
    let path = std::env::temp_dir().join(format!("pagecast-{}.pcapng", std::process::id()));
    std::fs::write(&path, pcapng::write(&flows.get(7).expect("it is there")))
        .expect("the temporary folder can be written");
    let fields = [
        "frame.protocols",
        "ip.src",
        "udp.srcport",
        "tcp.srcport",
        "sip.Method",
        "sip.Status-Code",
        "msrp.method",
        "msrp.status.code",
        "_ws.malformed",
    ];
    let mut command = std::process::Command::new("tshark");
    command.arg("-r").arg(&path).args(["-o", "ip.check_checksum:TRUE"]).args([
        "-o",
        "udp.check_checksum:TRUE",
        "-o",
        "tcp.check_checksum:TRUE",
        "-d",
        "tcp.port==5090,sip",
        "-T",
        "fields",
        "-E",
        "separator=|",
    ]);
    for field in fields {
        command.args(["-e", field]);
    }
    for field in ["ip.checksum.status", "udp.checksum.status", "tcp.checksum.status"] {
        command.args(["-e", field]);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: tshark cannot be run: {error}");
            let _ = std::fs::remove_file(&path);
            return;
        }
    };
    let _ = std::fs::remove_file(&path);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!(rows.len(), 6 + 2 * FUSSY.len(), "{text}");
    for row in &rows {
        assert_eq!(row[8], "", "malformed: {row:?}");
        for checksum in &row[9..12] {
            assert!(matches!(*checksum, "" | "1"), "a checksum is wrong: {row:?}");
        }
    }
    assert!(rows[0][0].contains("sip") && rows[0][0].contains("sdp"), "{text}");
    assert_eq!((rows[0][1], rows[0][2], rows[0][4]), ("127.0.0.1", "5060", "INVITE"));
    assert_eq!(rows[1][5], "200");
    assert_eq!((rows[2][3], rows[2][4]), ("5090", "MESSAGE"));
    assert_eq!((rows[3][3], rows[3][6]), ("2855", "SEND"), "{text}");
    assert_eq!((rows[4][3], rows[4][7]), ("7654", "200"), "{text}");
    assert!(rows[5][0].contains("ipv6") && rows[5][4] == "INVITE", "{text}");
}
