//! Both sides of the MSRP switch at once: the octets say what the originator, the recipients, the engine and the clock do.
//!
//! Whatever they do: no panic, all recipients get the beginning of one and the same page, no request is answered twice,
//! what is held is bounded, and nothing is left at the end.
#![no_main]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pagecast::content::msrp_uri::MsrpUri;
use pagecast::engine::ids::{LegId, PageId};
use pagecast::msrp::codec::{Decoder, Kind, Limits, Piece};
use pagecast::msrp::{AcceptTypes, Direction, PageRules, PeerMedia, Role, Settings, Side, Switch};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{sleep, timeout};

const MOST: u64 = 4096;
const LEGS: u16 = 3;
const ORIGINATOR: &str = "msrp://192.0.2.55:7394/originator0;tcp";

/// What is left of the input.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn octet(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.octet()) % of.len()]
    }

    fn octets(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

fn page() -> PageId {
    PageId::new(0, 7)
}

fn leg(n: u16) -> LegId {
    LegId { page: page(), n }
}

fn octet(place: usize) -> u8 {
    (place * 31 + place / 251) as u8
}

fn media(uri: &str) -> PeerMedia {
    PeerMedia {
        path: MsrpUri::parse_path(uri).expect("a path"),
        role: Role::Passive,
        dial: None,
        accept_types: vec!["*".into()],
        accept_wrapped: Vec::new(),
        max_size: None,
        direction: Direction::SendRecv,
        proof: None,
    }
}

/// One end of one session.
struct End {
    stream: Option<DuplexStream>,
    decoder: Decoder,
    me: String,
    them: String,
    /// Of the page, and the message it belongs to.
    octets: Vec<u8>,
    message: String,
    taking: bool,
    /// Requests that wait for an answer of ours.
    asked: Vec<String>,
    /// Answers to requests of ours.
    answers: HashMap<Vec<u8>, usize>,
}

impl End {
    fn new(switch: &Switch, me: String, them: String) -> Self {
        let (ours, theirs) = tokio::io::duplex(2048);
        let switch = switch.clone();
        let from = "192.0.2.1:1000".parse().expect("an address");
        drop(tokio::spawn(async move { switch.serve_connection(theirs, from).await }));
        Self {
            stream: Some(ours),
            decoder: Decoder::new(Limits::default()),
            me,
            them,
            octets: Vec::new(),
            message: String::new(),
            taking: false,
            asked: Vec::new(),
            answers: HashMap::new(),
        }
    }

    /// Writes it if anybody reads it.
    async fn says(&mut self, wire: &[u8]) {
        let Some(stream) = &mut self.stream else { return };
        let done = timeout(Duration::from_millis(1), stream.write_all(wire)).await;
        if !matches!(done, Ok(Ok(()))) {
            self.stream = None;
        }
    }

    async fn sends(
        &mut self,
        id: &str,
        method: &str,
        lines: &str,
        body: Option<&[u8]>,
        flag: char,
    ) {
        let (me, them) = (&self.me, &self.them);
        let mut wire =
            format!("MSRP {id} {method}\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\n{lines}")
                .into_bytes();
        if let Some(body) = body {
            wire.extend_from_slice(b"\r\n");
            wire.extend_from_slice(body);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(format!("-------{id}{flag}\r\n").as_bytes());
        self.says(&wire).await;
    }

    /// Reads at most so many octets of what is there.
    async fn reads(&mut self, most: usize) {
        let Some(stream) = &mut self.stream else { return };
        let mut buffer = vec![0; most.max(1)];
        match timeout(Duration::from_millis(1), stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => self.stream = None,
            Ok(Ok(octets)) => self.decoder.buffer().extend_from_slice(&buffer[..octets]),
            Err(_) => {}
        }
        while let Some(piece) = self.decoder.next().expect("the switch writes MSRP") {
            match piece {
                Piece::Head(head) => {
                    self.taking = head.kind == Kind::Send && head.has_body;
                    match head.kind {
                        Kind::Send => {
                            self.asked.push(String::from_utf8_lossy(&head.id).into_owned());
                        }
                        Kind::Response(_) => {
                            *self.answers.entry(head.id.to_vec()).or_default() += 1;
                        }
                        _ => {}
                    }
                    if self.taking {
                        let id = head.message_id.expect("MS-041").to_string();
                        let from = head.range.expect("MS-053").start as usize - 1;
                        if self.message.is_empty() {
                            self.message = id;
                        } else {
                            assert_eq!(self.message, id, "MS-082: one id");
                        }
                        // A session that was moved begins with what was not acknowledged (MS-016).
                        assert!(from <= self.octets.len(), "MS-057: nothing is left out");
                        self.octets.truncate(from);
                    }
                }
                Piece::Body(octets) if self.taking => self.octets.extend_from_slice(&octets),
                Piece::Body(_) | Piece::End(_) => {}
            }
        }
    }
}

async fn play(data: &[u8]) {
    let mut script = Script(data);
    let setup = script.octet();
    let settings = Settings {
        max_message: MOST,
        store_and_forward: setup & 1 > 0,
        slice: if setup & 2 > 0 { 64 } else { 16_384 },
        write_buffer: if setup & 4 > 0 { 100 } else { 65_536 },
        copy_success_report: setup & 8 > 0,
        spool_total: if setup & 16 > 0 { 1000 } else { 1 << 20 },
        ..Settings::default()
    };
    let switch = Switch::new(settings, Arc::new(|_| ())).expect("a switch");
    let them = switch.reserve(Side::Originator(page())).expect("room");
    let accept =
        AcceptTypes { types: vec!["text/*".into(), "message/cpim".into()], wrapped: Vec::new() };
    switch.open_originator(page(), media(ORIGINATOR), accept, PageRules::default());
    let mut originator = End::new(&switch, ORIGINATOR.into(), them);
    let mut ends: Vec<Option<End>> = (0..LEGS).map(|_| None).collect();
    // Octets nobody knows the meaning of were sent in the originator's name.
    let mut wild = false;
    let mut sent = 0;
    while !script.0.is_empty() {
        let n = script.pick(&[1, 2, 3]);
        let end = &mut ends[usize::from(n) - 1];
        match script.octet() % 16 {
            0..=4 => {
                let from = usize::from(script.octet()) * script.pick(&[1_usize, 1, 16]);
                let len = usize::from(script.octet()) * script.pick(&[1_usize, 1, 9]);
                let body: Vec<u8> = (from..from + len).map(octet).collect();
                let flag = script.pick(&['+', '+', '+', '$', '#']);
                let range = match script.pick(&[0, 0, 0, 1, 2]) {
                    0 => format!("{}-*/*", from + 1),
                    1 => format!("{}-{}/{}", from + 1, from + len, from + len),
                    _ => format!("{}-{}/{}", script.octet(), script.octet(), script.octet()),
                };
                // With a range of its own the body says where it stands, the range may not.
                wild |= !range.starts_with(&format!("{}-", from + 1));
                let lines = format!(
                    "Message-ID: mess{}\r\nByte-Range: {range}\r\n{}{}Content-Type: {}\r\n",
                    script.pick(&[1, 1, 1, 2]),
                    script.pick(&["", "", "Failure-Report: no\r\n", "Failure-Report: partial\r\n"]),
                    script.pick(&["", "Success-Report: yes\r\n"]),
                    script.pick(&["text/plain", "text/plain", "message/cpim", "image/png"]),
                );
                sent += 1;
                originator.sends(&format!("t{sent:04}"), "SEND", &lines, Some(&body), flag).await;
            }
            5 => {
                let len = script.octet();
                wild = true;
                originator.says(script.octets(usize::from(len))).await;
            }
            6 => {
                let line = String::from_utf8_lossy(script.octets(12)).into_owned();
                let lines = format!("Message-ID: mess3\r\n{line}\r\n");
                let method = script.pick(&["SEND", "REPORT", "NICKNAME", "PING", "200 OK"]);
                sent += 1;
                wild = true;
                originator.sends(&format!("t{sent:04}"), method, &lines, None, '$').await;
            }
            7 | 8 if end.is_none() => {
                let me = format!("msrp://203.0.113.9:9021/recipient{n};tcp");
                let them = switch.reserve(Side::Leg(leg(n))).expect("room");
                let mut peer = media(&me);
                peer.max_size = script.pick(&[None, None, Some(100)]);
                switch.join(leg(n), peer);
                let mut new = End::new(&switch, me, them);
                new.sends("bind", "SEND", "Message-ID: bind\r\n", None, '$').await;
                *end = Some(new);
            }
            7..=9 => {
                let Some(end) = end else { continue };
                let most = usize::from(script.octet()) * 8;
                end.reads(most).await;
                if !end.asked.is_empty() {
                    let id = end.asked.remove(usize::from(script.octet()) % end.asked.len());
                    let code = script.pick(&[200, 200, 200, 200, 200, 413, 481, 408, 999]);
                    end.sends(&id, &format!("{code} so"), "", None, '$').await;
                }
            }
            10 => {
                let Some(end) = end else { continue };
                let lines = format!(
                    "Message-ID: {}\r\nByte-Range: 1-{}/*\r\nStatus: 000 {}\r\n",
                    if end.message.is_empty() { "nobody" } else { &end.message },
                    end.octets.len(),
                    script.pick(&[200, 200, 413, 408])
                );
                end.sends("repo", "REPORT", &lines, None, '$').await;
            }
            11 => {
                let len = script.octet();
                let octets = script.octets(usize::from(len));
                if let Some(end) = end {
                    end.says(octets).await;
                }
            }
            12 => {
                sleep(Duration::from_millis(
                    u64::from(script.octet()) * script.pick(&[1, 100, 1000]),
                ))
                .await
            }
            13 => match script.octet() % 8 {
                0 => originator.stream = None,
                1 => {
                    if let Some(end) = end {
                        end.stream = None;
                    }
                }
                2 => switch.abort(Side::Leg(leg(n))),
                3 => switch.release(Side::Leg(leg(n))),
                4 => switch.report(page(), script.pick(&[200, 408, 413]), "so"),
                5 => switch.abort(Side::Originator(page())),
                _ => {
                    let Some(old) = end else { continue };
                    let me = old.me.replace(";tcp", "x;tcp");
                    let moved = MsrpUri::parse(&me).is_ok();
                    if let Some(them) = moved
                        .then(|| switch.renew(Side::Leg(leg(n)), media(&me)).expect("room"))
                        .flatten()
                    {
                        let them = them.path.as_str().to_owned();
                        let mut new = End::new(&switch, me, them);
                        new.octets = std::mem::take(&mut old.octets);
                        new.message = std::mem::take(&mut old.message);
                        new.sends("bind", "SEND", "Message-ID: bind\r\n", None, '$').await;
                        *end = Some(new);
                    }
                }
            },
            14 => {
                let mut second = End::new(&switch, ORIGINATOR.into(), originator.them.clone());
                second.sends("seco", "SEND", "Message-ID: seco\r\n", None, '$').await;
                second.reads(400).await;
                assert!(second.answers.values().all(|count| *count == 1));
            }
            _ => originator.reads(usize::from(script.octet()) * 16).await,
        }
        let stats = switch.stats();
        // A page has at most its limit, and what came of one more piece behind a hole.
        assert!(
            stats.spool_octets <= 2 * MOST && stats.sessions <= u64::from(2 * LEGS) + 4,
            "{stats:?}"
        );
    }
    for _ in 0..40 {
        originator.reads(2048).await;
        for end in ends.iter_mut().flatten() {
            end.reads(2048).await;
        }
    }
    let recipients: Vec<&End> = ends.iter().flatten().collect();
    for (n, one) in recipients.iter().enumerate() {
        let fits = |(place, got): (usize, &u8)| *got == octet(place);
        assert!(wild || one.octets.iter().enumerate().all(fits), "other octets than were sent");
        for other in &recipients[n + 1..] {
            let common = one.octets.len().min(other.octets.len());
            assert_eq!(one.octets[..common], other.octets[..common], "one page for all");
        }
    }
    assert!(wild || originator.answers.values().all(|count| *count == 1), "answered twice");
    switch.forget(page());
    drop((originator, ends));
    sleep(Duration::from_secs(3600)).await;
    let stats = switch.stats();
    assert_eq!(
        [
            stats.pages,
            stats.sessions,
            stats.spool_octets,
            stats.spool_memory,
            stats.connections,
            stats.unbound
        ],
        [0; 6]
    );
}

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(play(data));
});
