//! One session in, up to five out, everybody doing whatever comes to mind, against a model of what all of them are owed.
//!
//! A case is a list of acts of the originator and a habit for each recipient. [`Expected`] reads the acts as the rules
//! do, knows no switch, and says every frame the originator gets, in order, and what became of the page. What a
//! recipient is owed follows from that and from what it did itself ([`Seen`]). Time is paused.

use std::pin::Pin;
use std::time::Duration;

use pagecast::engine::input::{LegMedia, MediaFailure};
use pagecast::msrp::codec::{Decoder, Flag, Head, Kind, Limits, Piece};
use pagecast::msrp::{PageRules, Settings, Side, Switch};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use crate::support::{Bench, Stream, any, leg, media, page, settings};

const ORIGINATOR: &str = "msrp://192.0.2.55:7394/originator0;tcp";
/// Octets of the largest page that is taken.
const MOST: usize = 6000;

// --- what can happen ---

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    Yes,
    Partial,
    No,
}

#[derive(Debug, Clone, Copy)]
enum Number {
    Unsaid,
    Right,
    /// Not what comes; only where nothing but the count decides.
    Lies,
}

#[derive(Debug, Clone)]
struct Chunk {
    /// Which message.
    message: u8,
    from: usize,
    to: usize,
    /// Which of two contents, so that an overlap shows.
    variant: u8,
    flag: char,
    end: Number,
    total: Number,
    answers: Answers,
    report: bool,
    content_type: &'static str,
}

#[derive(Debug, Clone)]
enum Act {
    Chunk(Chunk),
    /// The connection breaks in the middle of a chunk's body, or (false) of its head.
    Breaks(Chunk, bool),
    /// More than may come.
    TooMuch(Chunk),
    /// A SEND with a header line that cannot be, and that code.
    Wrong(&'static str, u16, Answers),
    /// A SEND to somebody else.
    Elsewhere(&'static str, Answers),
    Method(&'static str, u16, Answers),
    Bodiless(Answers),
    Composing(Answers),
    /// Nothing that is answered.
    Noise(&'static str),
    Pauses,
}

#[derive(Debug, Clone, Copy)]
enum Habit {
    Takes,
    /// Answers everything twice, and things nobody asked.
    Repeats,
    /// Answers as soon as a chunk begins.
    Hasty,
    Refuses {
        chunk: usize,
        code: u16,
        at_once: bool,
    },
    /// Says by REPORT that the page failed.
    Reports(u16),
    /// Answers no chunk from that one on.
    Silent(usize),
    /// The connection breaks when that many octets are here.
    Breaks(usize),
    Limited(u64),
    /// Takes pictures only.
    Pictures,
    NeverBinds,
    /// Has another path from the end of that chunk on, which it answers or not.
    Moves {
        chunk: usize,
        answers: bool,
    },
    /// Sends content of its own.
    Talks,
}

#[derive(Debug, Clone)]
struct Gateway {
    habits: Vec<Habit>,
    /// Joins when everything is sent.
    late: bool,
    /// Octets a read, and whether time passes between two.
    reads: usize,
    slow: bool,
}

#[derive(Debug, Clone)]
struct Case {
    acts: Vec<Act>,
    gateways: Vec<Gateway>,
    writes: Vec<usize>,
    store_and_forward: bool,
    slice: u64,
    write_buffer: u64,
}

// --- what is owed to the originator ---

#[derive(Debug, Clone, PartialEq, Eq)]
enum Frame {
    Answer(String, u16),
    /// Success, over so many octets.
    Report(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Awaited,
    Coming,
    Whole(usize),
    /// With the code for what still comes of it.
    Lost(u16),
}

/// MS-060 to MS-066, MS-069, MS-073, MS-079, MS-110, read from the text.
struct Expected {
    page: Page,
    message: Option<u8>,
    /// For each octet that is here the contents it may have.
    octets: Vec<Option<Vec<u8>>>,
    len: Option<usize>,
    report: bool,
    too_big: Vec<u8>,
    frames: Vec<Frame>,
    overwrites: bool,
    sent: usize,
}

impl Expected {
    fn new(store_and_forward: bool) -> Self {
        Self {
            page: Page::Awaited,
            message: None,
            octets: Vec::new(),
            len: None,
            report: false,
            too_big: Vec::new(),
            frames: Vec::new(),
            // Nothing is forwarded before it is whole, so the last one wins.
            overwrites: store_and_forward,
            sent: 0,
        }
    }

    fn answer(&mut self, code: u16, answers: Answers) {
        let due = match answers {
            Answers::Yes => true,
            Answers::Partial => code != 200,
            Answers::No => false,
        };
        if due {
            self.frames.push(Frame::Answer(id(self.sent), code));
        }
    }

    fn prefix(&self) -> usize {
        self.octets.iter().position(Option::is_none).unwrap_or(self.octets.len())
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Chunk(chunk) => {
                let before = self.page;
                let code = self.chunk(chunk);
                self.answer(code, chunk.answers);
                if let Page::Whole(size) = self.page {
                    // MS-073; MS-037 for what comes again.
                    let done = before != self.page && self.report;
                    let again = before == self.page && code == 200 && chunk.flag == '$';
                    if done || (again && chunk.report) {
                        self.frames.push(Frame::Report(size as u64));
                    }
                }
            }
            Act::TooMuch(chunk) => {
                if self.is_of_the_page(chunk) {
                    self.page = Page::Lost(413);
                    self.message.get_or_insert(chunk.message);
                }
                self.too_big.push(chunk.message);
                self.answer(413, chunk.answers);
            }
            Act::Breaks(chunk, body) => {
                if let Some(code) = self.refusal(chunk).filter(|_| *body) {
                    self.answer(code, chunk.answers);
                }
                if !matches!(self.page, Page::Whole(_)) {
                    self.page = Page::Lost(413);
                }
            }
            Act::Wrong(_, code, answers) | Act::Method(_, code, answers) => {
                self.answer(*code, *answers);
            }
            Act::Elsewhere(_, answers) => self.answer(481, *answers),
            Act::Bodiless(answers) | Act::Composing(answers) => self.answer(200, *answers),
            Act::Noise(_) | Act::Pauses => return,
        }
        self.sent += 1;
    }

    fn is_of_the_page(&self, chunk: &Chunk) -> bool {
        match self.page {
            Page::Awaited => true,
            Page::Coming => self.message == Some(chunk.message),
            Page::Whole(_) | Page::Lost(_) => false,
        }
    }

    /// What the head alone deserves.
    fn refusal(&self, chunk: &Chunk) -> Option<u16> {
        if self.too_big.contains(&chunk.message) {
            return Some(413);
        }
        let ours = self.message == Some(chunk.message);
        match self.page {
            Page::Whole(_) | Page::Coming if ours => None,
            Page::Lost(code) if ours => Some(code),
            _ if chunk.content_type != "text/plain" => Some(415),
            Page::Awaited => None,
            _ => Some(403),
        }
    }

    fn chunk(&mut self, chunk: &Chunk) -> u16 {
        if let Some(code) = self.refusal(chunk) {
            if self.page == Page::Awaited && code == 415 {
                self.page = Page::Lost(415);
            }
            return code;
        }
        if matches!(self.page, Page::Whole(_)) {
            return 200;
        }
        self.page = Page::Coming;
        self.message = Some(chunk.message);
        self.report |= chunk.report;
        self.put(chunk);
        match chunk.flag {
            '#' => {
                self.page = Page::Lost(413);
                return 200;
            }
            // MS-061: a message ends once.
            '$' if self.len.is_some_and(|len| len != chunk.to) || self.prefix() > chunk.to => {
                self.page = Page::Lost(400);
                return 400;
            }
            '$' => {
                self.len = Some(chunk.to);
                self.octets.truncate(chunk.to);
            }
            _ => {}
        }
        if self.len == Some(self.prefix()) {
            self.page = Page::Whole(self.prefix());
        }
        200
    }

    fn put(&mut self, chunk: &Chunk) {
        let to = self.len.map_or(chunk.to, |len| chunk.to.min(len));
        if self.octets.len() < to {
            self.octets.resize(to, None);
        }
        for place in chunk.from..to {
            let new = octet(place, chunk.variant);
            match &mut self.octets[place] {
                Some(there) if !self.overwrites => there.push(new),
                there => *there = Some(vec![new]),
            }
        }
    }
}

fn id(sent: usize) -> String {
    format!("tr{sent:03}")
}

fn octet(place: usize, variant: u8) -> u8 {
    (place * 31 + place / 251) as u8 ^ if variant == 0 { 0 } else { 0x55 }
}

fn octets(chunk: &Chunk) -> Vec<u8> {
    (chunk.from..chunk.to).map(|place| octet(place, chunk.variant)).collect()
}

// --- the originator ---

fn report_lines(answers: Answers) -> &'static str {
    match answers {
        Answers::Yes => "",
        Answers::Partial => "Failure-Report: partial\r\n",
        Answers::No => "Failure-Report: no\r\n",
    }
}

fn frame(
    id: &str,
    method: &str,
    them: &str,
    lines: &str,
    body: Option<&[u8]>,
    flag: char,
) -> Vec<u8> {
    let mut wire =
        format!("MSRP {id} {method}\r\nTo-Path: {them}\r\nFrom-Path: {ORIGINATOR}\r\n{lines}")
            .into_bytes();
    if let Some(body) = body {
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(body);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(format!("-------{id}{flag}\r\n").as_bytes());
    wire
}

fn chunk_wire(id: &str, them: &str, chunk: &Chunk, size: usize) -> Vec<u8> {
    let number = |number, right: usize| match number {
        Number::Unsaid => "*".to_owned(),
        Number::Right => right.to_string(),
        Number::Lies => (right + 7).to_string(),
    };
    let report = if chunk.report { "Success-Report: yes\r\n" } else { "" };
    let lines = format!(
        "Message-ID: message{}\r\nByte-Range: {}-{}/{}\r\n{}{report}Content-Type: {}\r\n",
        chunk.message,
        chunk.from + 1,
        number(chunk.end, chunk.to),
        number(chunk.total, size.max(chunk.from)),
        report_lines(chunk.answers),
        chunk.content_type,
    );
    frame(id, "SEND", them, &lines, Some(&octets(chunk)), chunk.flag)
}

/// The octets of one act; `true`: and then the connection breaks.
fn wire(act: &Act, sent: usize, them: &str, size: usize) -> (Vec<u8>, bool) {
    let id = &id(sent);
    let wire = match act {
        Act::Chunk(chunk) => chunk_wire(id, them, chunk, size),
        Act::Breaks(chunk, body) => {
            let mut wire = chunk_wire(id, them, chunk, size);
            // Behind the body stand CRLF and an end-line.
            let end = wire.len() - (2 + 7 + id.len() + 3) - (chunk.to - chunk.from) / 2;
            wire.truncate(if *body { end } else { 30 });
            return (wire, true);
        }
        Act::TooMuch(chunk) => {
            let lines = format!(
                "Message-ID: message{}\r\nByte-Range: 1-*/99999999999999\r\n{}Content-Type: text/plain\r\n",
                chunk.message,
                report_lines(chunk.answers)
            );
            frame(id, "SEND", them, &lines, Some(b"too much"), '+')
        }
        Act::Wrong(line, _, answers) => {
            let lines = format!("{line}{}Content-Type: text/plain\r\n", report_lines(*answers));
            frame(id, "SEND", them, &lines, Some(b"wrong"), '$')
        }
        Act::Elsewhere(path, answers) => {
            let path = path.replace("THEM", them);
            let lines = format!("Message-ID: elsewhere\r\n{}", report_lines(*answers));
            frame(id, "SEND", &path, &lines, None, '$')
        }
        Act::Method(method, _, answers) => {
            frame(id, method, them, report_lines(*answers), None, '$')
        }
        Act::Bodiless(answers) => {
            let lines = format!("Message-ID: alive\r\n{}", report_lines(*answers));
            frame(id, "SEND", them, &lines, None, '$')
        }
        Act::Composing(answers) => {
            let lines = format!(
                "Message-ID: composing\r\n{}Content-Type: application/im-iscomposing+xml\r\n",
                report_lines(*answers)
            );
            frame(id, "SEND", them, &lines, Some(b"<isComposing/>"), '$')
        }
        Act::Noise("\r\n\r\n") => b"\r\n\r\n".to_vec(),
        Act::Noise(what) => {
            let lines = "Message-ID: nobody\r\nByte-Range: 1-1/1\r\nStatus: 000 413 no\r\n";
            frame(
                "noise1",
                what,
                them,
                if what.starts_with("REPORT") { lines } else { "" },
                None,
                '$',
            )
        }
        Act::Pauses => Vec::new(),
    };
    (wire, false)
}

/// Everything that arrives, until the end of the stream.
async fn listen(mut stream: ReadHalf<Box<dyn Stream>>) -> Vec<Frame> {
    let mut decoder = Decoder::new(Limits::default());
    let mut frames = Vec::new();
    loop {
        while let Some(piece) = decoder.next().expect("the switch writes MSRP") {
            let Piece::Head(head) = piece else { continue };
            frames.push(match head.kind {
                Kind::Response(code) => {
                    Frame::Answer(String::from_utf8_lossy(&head.id).into_owned(), code)
                }
                Kind::Report => {
                    let range = head.range.expect("MS-072");
                    assert_eq!((head.status, range.start), (Some((0, 200)), 1));
                    assert_eq!((range.end, range.total.is_some()), (range.total, true));
                    Frame::Report(range.end.expect("MS-073"))
                }
                other => panic!("{other:?} to the originator"),
            });
        }
        match stream.read_buf(decoder.buffer()).await {
            Ok(0) | Err(_) => return frames,
            Ok(_) => {}
        }
    }
}

// --- the recipients ---

/// What one recipient has got and done.
#[derive(Debug, Clone, Default)]
struct Seen {
    octets: Vec<u8>,
    last: Option<Flag>,
    chunks: usize,
    message_id: Option<String>,
    refused: Option<u16>,
    silent: bool,
    /// The connection it shares broke.
    broke: bool,
}

struct Session {
    n: u16,
    habit: Habit,
    me: String,
    them: String,
    /// Nobody shares its connection.
    alone: bool,
    /// The next SEND may begin with octets that are here already.
    resumes: bool,
    /// It has gone on elsewhere.
    gone: bool,
    seen: Seen,
}

impl Session {
    fn path_lines(&self) -> String {
        format!("To-Path: {}\r\nFrom-Path: {}\r\n", self.them, self.me)
    }

    fn response(&self, head: &Head, code: u16) -> String {
        let id = String::from_utf8_lossy(&head.id);
        format!("MSRP {id} {code} text\r\n{}-------{id}$\r\n", self.path_lines())
    }

    fn report(&self, code: u16) -> String {
        let id = self.seen.message_id.as_deref().unwrap_or("nobody");
        format!(
            "MSRP repo{} REPORT\r\n{}Message-ID: {id}\r\nByte-Range: 1-{}/*\r\nStatus: 000 {code} text\r\n-------repo{}$\r\n",
            self.n,
            self.path_lines(),
            self.seen.octets.len().max(1),
            self.n
        )
    }

    /// What is said at the head of a SEND of the page.
    fn at_head(&mut self, head: &Head) -> String {
        if let Some(id) = &self.seen.message_id {
            assert_eq!(head.message_id.as_deref(), Some(id.as_str()), "MS-082: one id");
        }
        self.seen.message_id = head.message_id.as_deref().map(str::to_owned);
        let range = head.range.expect("MS-053: every SEND with a body has a range");
        if std::mem::take(&mut self.resumes) {
            let from = range.start as usize - 1;
            assert!(from <= self.seen.octets.len(), "MS-016: nothing is left out");
            self.seen.octets.truncate(from);
        } else {
            assert!(self.seen.last.is_none_or(|flag| flag == Flag::More), "after its end");
        }
        assert_eq!(range.start, self.seen.octets.len() as u64 + 1, "MS-057: in ascending order");
        match self.habit {
            Habit::Hasty => self.response(head, 200),
            Habit::Refuses { chunk, code, at_once: true } if chunk == self.seen.chunks => {
                self.seen.refused = Some(code);
                self.response(head, code)
            }
            _ => String::new(),
        }
    }

    fn at_end(&mut self, head: &Head, octets: u64, flag: Flag) -> String {
        if octets > 2048 {
            assert_eq!(head.range.and_then(|range| range.end), None, "MS-054");
        }
        let chunk = self.seen.chunks;
        self.seen.chunks += 1;
        self.seen.last = Some(flag);
        match self.habit {
            Habit::Hasty => String::new(),
            Habit::Refuses { chunk: at, at_once: true, .. } if at == chunk => String::new(),
            Habit::Refuses { chunk: at, code, .. } if at == chunk => {
                self.seen.refused = Some(code);
                self.response(head, code)
            }
            Habit::Silent(from) if chunk >= from => {
                self.seen.silent = true;
                String::new()
            }
            Habit::Moves { chunk: at, answers: false } if at == chunk => String::new(),
            Habit::Reports(code) if chunk == 0 => {
                self.seen.refused = Some(code);
                self.report(code) + &self.response(head, 200)
            }
            Habit::Repeats => {
                let ok = self.response(head, 200);
                let failed = self.response(head, 413);
                ok + &failed
                    + &self.report(200)
                    + "MSRP odd1 200 OK\r\n"
                    + &self.path_lines()
                    + "-------odd1$\r\n"
            }
            Habit::Talks => {
                let content = format!(
                    "MSRP talk1 SEND\r\n{}Message-ID: talk\r\nContent-Type: text/plain\r\n\r\nhello\r\n-------talk1$\r\n",
                    self.path_lines()
                );
                content + &self.response(head, 200)
            }
            _ => self.response(head, 200),
        }
    }
}

/// A recipient goes on in another session.
///
/// MS-016.
fn moves(switch: &Switch, session: &mut Session, gateway: &Gateway) -> Option<Playing> {
    let me = session.me.replace(";tcp", "moved;tcp");
    let peer = media(&me, pagecast::msrp::Role::Passive);
    let them =
        switch.renew(Side::Leg(leg(session.n)), peer).expect("room")?.path.as_str().to_owned();
    session.gone = true;
    let heir = Session {
        habit: Habit::Takes,
        me,
        them,
        alone: true,
        resumes: true,
        seen: session.seen.clone(),
        ..*session
    };
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let serving = switch.clone();
    let from = "192.0.2.2:1000".parse().expect("an address");
    drop(tokio::spawn(async move { serving.serve_connection(theirs, from).await }));
    let gateway = Gateway { habits: vec![Habit::Takes], ..gateway.clone() };
    Some(tokio::spawn(serve(switch.clone(), Box::new(ours), gateway, vec![heir])))
}

type Playing = tokio::task::JoinHandle<Vec<Session>>;

/// Plays one connection with its recipients to the end.
fn serve(
    switch: Switch,
    stream: Box<dyn Stream>,
    gateway: Gateway,
    sessions: Vec<Session>,
) -> Pin<Box<dyn Future<Output = Vec<Session>> + Send>> {
    Box::pin(serve_here(switch, stream, gateway, sessions))
}

async fn serve_here(
    switch: Switch,
    stream: Box<dyn Stream>,
    gateway: Gateway,
    mut sessions: Vec<Session>,
) -> Vec<Session> {
    let (mut reader, mut writer): (_, WriteHalf<Box<dyn Stream>>) = tokio::io::split(stream);
    let mut said = String::new();
    for session in &sessions {
        if !matches!(session.habit, Habit::NeverBinds) {
            let lines = session.path_lines();
            said += &format!(
                "MSRP bind{} SEND\r\n{lines}Message-ID: bind\r\n-------bind{}$\r\n",
                session.n, session.n
            );
        }
    }
    let mut elsewhere = Vec::new();
    let mut decoder = Decoder::new(Limits::default());
    let mut current: Option<(Head, Option<usize>, u64)> = None;
    let mut buffer = vec![0; gateway.reads];
    'stream: loop {
        if !said.is_empty() && writer.write_all(said.as_bytes()).await.is_err() {
            break;
        }
        said.clear();
        let Ok(Ok(octets)) = timeout(Duration::from_secs(500), reader.read(&mut buffer)).await
        else {
            break;
        };
        if octets == 0 {
            break;
        }
        if gateway.slow {
            sleep(Duration::from_millis(20)).await;
        }
        decoder.buffer().extend_from_slice(&buffer[..octets]);
        while let Some(piece) = decoder.next().expect("the switch writes MSRP") {
            match piece {
                Piece::Head(head) => {
                    let to = head.to_path.last().map(|uri| uri.as_str().to_owned());
                    let at = sessions.iter().position(|session| Some(&session.me) == to.as_ref());
                    let at = at.expect("somebody it is for");
                    if sessions[at].gone {
                        current = Some((*head, None, 0));
                        continue;
                    }
                    let content = head.kind == Kind::Send && head.has_body;
                    if content {
                        said += &sessions[at].at_head(&head);
                    } else if head.kind == Kind::Send {
                        said += &sessions[at].response(&head, 200);
                    } else if let Kind::Response(code) = head.kind {
                        let talk = &head.id[..] == b"talk1";
                        assert_eq!(code, if talk { 403 } else { 200 }, "MS-014, MS-110");
                    }
                    current = Some((*head, content.then_some(at), 0));
                }
                Piece::Body(octets) => {
                    let Some((_, Some(at), count)) = &mut current else { continue };
                    *count += octets.len() as u64;
                    let session = &mut sessions[*at];
                    session.seen.octets.extend_from_slice(&octets);
                    if let Habit::Breaks(most) = session.habit
                        && session.seen.octets.len() >= most
                    {
                        sessions.iter_mut().for_each(|session| session.seen.broke = true);
                        break 'stream;
                    }
                }
                Piece::End(flag) => {
                    let Some((head, Some(at), octets)) = current.take() else { continue };
                    let session = &mut sessions[at];
                    said += &session.at_end(&head, octets, flag);
                    if let Habit::Moves { chunk, .. } = session.habit
                        && session.seen.chunks == chunk + 1
                        && !session.gone
                    {
                        // Whatever it answered is there before it moves.
                        if writer.write_all(said.as_bytes()).await.is_err() {
                            break 'stream;
                        }
                        said.clear();
                        sleep(Duration::from_millis(1)).await;
                        elsewhere.extend(moves(&switch, session, &gateway));
                    }
                }
            }
        }
    }
    sessions.retain(|session| !session.gone);
    for heirs in elsewhere {
        sessions.extend(heirs.await.expect("the recipient is content"));
    }
    sessions
}

fn join(bench: &Bench, gateway: &Gateway, first: u16) -> Playing {
    let mut sessions = Vec::new();
    for (n, habit) in (first..).zip(&gateway.habits) {
        let them = bench.switch.reserve(Side::Leg(leg(n))).expect("room");
        let me = format!("msrp://203.0.113.9:9021/recipient{n};tcp");
        let mut peer = media(&me, pagecast::msrp::Role::Passive);
        match habit {
            Habit::Limited(max) => peer.max_size = Some(*max),
            Habit::Pictures => peer.accept_types = vec!["image/*".into()],
            _ => {}
        }
        bench.switch.join(leg(n), peer);
        sessions.push(Session {
            n,
            habit: *habit,
            me,
            them,
            alone: gateway.habits.len() == 1,
            resumes: false,
            gone: false,
            seen: Seen::default(),
        });
    }
    tokio::spawn(serve(bench.switch.clone(), bench.dial(), gateway.clone(), sessions))
}

/// Checks one recipient against the page and what it did itself.
fn judge(
    session: &Session,
    events: &[LegMedia],
    expected: &Expected,
    (alone, announced): (bool, usize),
) {
    let Session { n, habit, seen, .. } = session;
    let ends: Vec<&LegMedia> = events
        .iter()
        .filter(|event| matches!(event, LegMedia::Delivered { .. } | LegMedia::Failed { .. }))
        .collect();
    let quiet = events.iter().filter(|event| **event == LegMedia::Quiet).count();
    assert!(ends.len() <= 1 && quiet <= 1, "{n}: {events:?}");
    let fits = |(place, octet): (usize, &u8)| {
        expected
            .octets
            .get(place)
            .is_some_and(|may| may.as_ref().is_some_and(|may| may.contains(octet)))
    };
    if let Page::Whole(size) = expected.page {
        let failed = |cause| Some(LegMedia::Failed { cause });
        let delivered = Some(LegMedia::Delivered { octets: size as u64 });
        let by_code =
            |code| if code == 408 { MediaFailure::Timeout } else { MediaFailure::Status(code) };
        let due = match habit {
            Habit::NeverBinds => failed(MediaFailure::Bind),
            // What was under way when the connection broke is chance.
            _ if seen.broke && !alone => ends.first().map(|end| (*end).clone()),
            Habit::Pictures => failed(MediaFailure::Type),
            Habit::Limited(max) if size as u64 > *max => failed(MediaFailure::TooBig),
            // More was announced than came.
            Habit::Limited(max) if announced as u64 > *max => {
                ends.first().map(|end| (*end).clone())
            }
            _ => match (seen.refused, seen.broke, seen.silent) {
                (Some(code), ..) => failed(by_code(code)),
                (_, true, _) => failed(MediaFailure::Connection),
                (_, _, true) => failed(MediaFailure::Timeout),
                _ => delivered.clone(),
            },
        };
        assert_eq!(ends.first().copied(), due.as_ref(), "{n} {habit:?}: {events:?}");
        assert_eq!((ends.len(), quiet), (1, 1), "{n}: {events:?}");
        if due == delivered {
            assert_eq!((seen.octets.len(), seen.last), (size, Some(Flag::Last)), "{n} {habit:?}");
        }
        assert!(seen.octets.iter().enumerate().all(fits), "{n}: other octets than were sent");
        assert!(seen.last != Some(Flag::Last) || seen.octets.len() == size, "{n}: too early");
    } else {
        assert!(!matches!(ends.first(), Some(LegMedia::Delivered { .. })), "{n}: {events:?}");
        assert_ne!(seen.last, Some(Flag::Last), "{n}: a page that never was whole");
        let ended = seen.refused.is_some() || seen.broke || seen.silent;
        if seen.chunks > 0 && !ended && ends.is_empty() {
            assert_eq!(seen.last, Some(Flag::Abort), "MS-090: {n} {habit:?} {events:?}");
        }
    }
}

async fn run(case: Case) {
    let Case { slice, write_buffer, store_and_forward, .. } = case;
    let mut bench = Bench::new(Settings {
        slice,
        write_buffer,
        store_and_forward,
        max_message: MOST as u64,
        chunk_gap_timeout: Duration::from_secs(60),
        ..settings()
    });
    let them = bench.switch.reserve(Side::Originator(page())).expect("room");
    let mut accept = any();
    accept.types = vec!["text/plain".into()];
    let side = media(ORIGINATOR, pagecast::msrp::Role::Passive);
    bench.switch.open_originator(page(), side, accept, PageRules::default());
    let (reader, mut writer) = tokio::io::split(bench.dial());
    let listening = tokio::spawn(listen(reader));
    let binding = frame("bind", "SEND", &them, "Message-ID: bind\r\n", None, '$');
    writer.write_all(&binding).await.expect("it reads");

    let mut next = 1;
    let mut playing = Vec::new();
    let mut starts = Vec::new();
    for gateway in &case.gateways {
        starts.push(next);
        if !gateway.late {
            playing.push(join(&bench, gateway, next));
        }
        next += gateway.habits.len() as u16;
    }
    let size = case.acts.iter().filter_map(|act| match act {
        Act::Chunk(chunk) => Some(chunk.to),
        _ => None,
    });
    let size = size.max().unwrap_or(0);
    let mut expected = Expected::new(store_and_forward);
    let mut sizes = case.writes.iter().cycle();
    for act in &case.acts {
        let (wire, breaks) = wire(act, expected.sent, &them, size);
        expected.act(act);
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let some = (*sizes.next().expect("cycle")).min(rest.len());
            writer.write_all(&rest[..some]).await.expect("it reads");
            rest = &rest[some..];
        }
        if breaks || matches!(act, Act::Pauses) {
            // Nothing that is due is left undone.
            sleep(Duration::from_millis(5)).await;
        }
        if breaks {
            writer.shutdown().await.expect("a stream");
            break;
        }
    }
    sleep(Duration::from_millis(5)).await;
    for (gateway, first) in case.gateways.iter().zip(&starts) {
        if gateway.late {
            playing.push(join(&bench, gateway, *first));
        }
    }
    let mut sessions = Vec::new();
    for task in playing {
        sessions.extend(task.await.expect("the recipient is content"));
    }
    // Every timer has run out.
    sleep(Duration::from_secs(200)).await;
    for session in &sessions {
        let events = bench.leg_events(session.n);
        let alone = session.alone;
        judge(session, &events, &expected, (alone, size));
    }
    for (n, one) in sessions.iter().enumerate() {
        for other in &sessions[n + 1..] {
            let common = one.seen.octets.len().min(other.seen.octets.len());
            assert_eq!(one.seen.octets[..common], other.seen.octets[..common], "MS-083: one page");
        }
    }
    bench.switch.forget(page());
    drop(writer);
    sleep(Duration::from_secs(100)).await;
    let mut heard = listening.await.expect("the originator is content");
    assert_eq!(heard.remove(0), Frame::Answer("bind".into(), 200));
    assert_eq!(heard, expected.frames);
    let stats = bench.switch.stats();
    assert_eq!(
        [stats.pages, stats.sessions, stats.spool_octets, stats.spool_memory, stats.connections],
        [0; 5]
    );
}

// --- cases ---

fn answers() -> impl Strategy<Value = Answers> {
    prop_oneof![4 => Just(Answers::Yes), 1 => Just(Answers::Partial), 1 => Just(Answers::No)]
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![2 => Just(Number::Unsaid), 2 => Just(Number::Right), 1 => Just(Number::Lies)]
}

/// Some chunk, wherever.
fn stray(size: usize) -> impl Strategy<Value = Chunk> {
    let place = (0..=size, 0..=size.min(300));
    let flag = prop::sample::select(vec!['+', '+', '+', '$', '#']);
    let kind = prop::sample::select(vec!["text/plain", "text/plain", "text/plain", "image/png"]);
    (prop::sample::select(vec![0_u8, 0, 1]), place, flag, number(), answers(), any_bool(), kind)
        .prop_map(move |(message, (from, octets), flag, end, answers, report, content_type)| {
            Chunk {
                message,
                from,
                to: (from + octets).min(size),
                variant: 1,
                flag,
                end,
                total: Number::Unsaid,
                answers,
                report,
                content_type,
            }
        })
}

fn any_bool() -> impl Strategy<Value = bool> {
    any_of(vec![true, false])
}

fn any_of<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> impl Strategy<Value = T> {
    prop::sample::select(values)
}

fn other_act(size: usize) -> impl Strategy<Value = Act> {
    let wrong = any_of(vec![
        "Message-ID: wron\r\nByte-Range: 0-10/10\r\n",
        "Message-ID: wron\r\nByte-Range: 5-3/9\r\n",
        "Message-ID: wron\r\nByte-Range: -1-5/5\r\n",
        "Message-ID: wron\r\nByte-Range: 9-*/3\r\n",
        "Message-ID: wron\r\nSuccess-Report: maybe\r\n",
        "Message-ID: wron\r\nMessage-ID: wron\r\n",
        "Byte-Range: 1-5/5\r\n",
    ]);
    let path =
        any_of(vec!["msrp://127.0.0.1:2855/nobody0000;tcp", "THEM msrp://192.0.2.1:1/more;tcp"]);
    let method = any_of(vec![("PING", 501), ("AUTH", 501), ("NICKNAME", 403)]);
    prop_oneof![
        6 => stray(size).prop_map(Act::Chunk),
        1 => stray(size).prop_map(Act::TooMuch),
        2 => (wrong, answers()).prop_map(|(line, answers)| Act::Wrong(line, 400, answers)),
        2 => (path, answers()).prop_map(|(path, answers)| Act::Elsewhere(path, answers)),
        1 => (method, answers()).prop_map(|((method, code), answers)| Act::Method(method, code, answers)),
        1 => answers().prop_map(Act::Bodiless),
        1 => answers().prop_map(Act::Composing),
        1 => any_of(vec!["REPORT", "200 OK", "\r\n\r\n"]).prop_map(Act::Noise),
        3 => Just(Act::Pauses),
        1 => (stray(size), any_bool()).prop_map(|(chunk, body)| Act::Breaks(chunk, body)),
    ]
}

fn habit(size: usize) -> impl Strategy<Value = Habit> {
    prop_oneof![
        6 => Just(Habit::Takes),
        1 => Just(Habit::Repeats),
        1 => Just(Habit::Hasty),
        2 => (0..3_usize, any_of(vec![400_u16, 403, 408, 413, 415, 481, 506, 599]), any_bool())
            .prop_map(|(chunk, code, at_once)| Habit::Refuses { chunk, code, at_once }),
        1 => any_of(vec![408_u16, 413, 500]).prop_map(Habit::Reports),
        1 => (0..3_usize).prop_map(Habit::Silent),
        1 => (0..=size).prop_map(Habit::Breaks),
        1 => (0..=size as u64 + 10).prop_map(Habit::Limited),
        1 => Just(Habit::Pictures),
        1 => Just(Habit::NeverBinds),
        2 => (0..3_usize, any_bool()).prop_map(|(chunk, answers)| Habit::Moves { chunk, answers }),
        1 => Just(Habit::Talks),
    ]
}

fn gateway(size: usize) -> impl Strategy<Value = Gateway> {
    let habits = prop::collection::vec(habit(size), 1..4);
    let reads = any_of(vec![100_usize, 1000, 8000]);
    (habits, prop::bool::weighted(0.3), reads, any_bool())
        .prop_map(|(habits, late, reads, slow)| Gateway { habits, late, reads, slow })
}

fn case() -> impl Strategy<Value = Case> {
    prop_oneof![4 => 0..60_usize, 4 => 0..900_usize, 1 => 0..=MOST]
        .prop_flat_map(|size| {
            let cuts = prop::collection::btree_set(0..=size, 0..6);
            let others = prop::collection::vec((0..12_usize, other_act(size)), 0..5);
            let gateways = prop::collection::vec(gateway(size), 0..3);
            let page = (Just(size), cuts, answers(), any_bool(), number(), number());
            let io = (
                prop::collection::vec(1..3000_usize, 1..4),
                prop::bool::weighted(0.2),
                any_of(vec![1_u64, 100, 2048, 16_384]),
                any_of(vec![64_u64, 700, 5000, 262_144]),
            );
            (page, others, gateways, io, prop::bool::weighted(0.6))
        })
        .prop_flat_map(|(page, others, gateways, io, in_order)| {
            let (size, cuts, ..) = &page;
            let mut ends: Vec<usize> =
                cuts.iter().copied().filter(|cut| cut > &0 && cut < size).collect();
            ends.push(*size);
            let order: Vec<usize> = (0..ends.len()).collect();
            let order =
                if in_order { Just(order).boxed() } else { Just(order).prop_shuffle().boxed() };
            (Just((page, others, gateways, io, ends)), order)
        })
        .prop_map(|((page, others, gateways, io, ends), order)| {
            let (size, _, answers, report, end, total) = page;
            // What lies about the whole is refused where it is too short, so it is not part of the plan.
            let total = if matches!(total, Number::Lies) { Number::Unsaid } else { total };
            let mut acts: Vec<Act> = order
                .into_iter()
                .map(|n| {
                    let to = ends[n];
                    Act::Chunk(Chunk {
                        message: 0,
                        from: if n == 0 { 0 } else { ends[n - 1] },
                        to,
                        variant: 0,
                        flag: if to == size { '$' } else { '+' },
                        end,
                        total,
                        answers,
                        report,
                        content_type: "text/plain",
                    })
                })
                .collect();
            for (place, act) in others {
                acts.insert(place.min(acts.len()), act);
            }
            let (writes, store_and_forward, slice, write_buffer) = io;
            Case { acts, gateways, writes, store_and_forward, slice, write_buffer }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// Proves MS-037, MS-050, MS-056, MS-058, MS-060, MS-061, MS-063, MS-065, MS-069, MS-079, MS-083, MS-090.
    #[test]
    fn everybody_is_owed_what_the_rules_say(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(case));
    }
}
