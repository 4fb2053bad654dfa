//! Both ends of MSRP traffic through a server: originators that send as fast as they may, recipients that count.
//!
//! Sessions are made and bound before the clock starts. Every recipient counts octets and messages; with `--verify` it
//! compares each octet with what was sent. Prints one line: octets received, messages received, seconds, and CPU seconds
//! the processes `--pids` have used meanwhile (`/proc/PID/stat`). With `--idle` it prints how much their resident memory
//! has grown instead.

#[path = "../msrp/mod.rs"]
mod msrp;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use msrp::{Part, Reader};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Mutex, Notify};

/// Bodies below this are copied behind their heads.
const SMALL: usize = 16 << 10;
/// Octets gathered for one write, about.
const BATCH: usize = 256 << 10;
/// Most slices of one write.
const SLICES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// pagecast: everybody connects to it, sessions come from `--control`.
    Switch,
    /// A program that copies octets to connections it opens to `--accept`.
    Copy,
    /// An MSRP relay that connects to `--accept`.
    Relay,
}

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value = "switch")]
    mode: Mode,
    #[arg(long)]
    to: SocketAddr,
    #[arg(long)]
    control: Option<SocketAddr>,
    #[arg(long)]
    accept: Option<SocketAddr>,
    /// Octets of one message, and of one chunk at most.
    #[arg(long, default_value_t = 10 << 20)]
    size: usize,
    #[arg(long, default_value_t = 64 << 10)]
    chunk: usize,
    /// Recipients of each message.
    #[arg(long, default_value_t = 1)]
    legs: usize,
    /// Connections of originators, and of each recipient; messages take turns.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Ends after so many messages.
    #[arg(long, default_value_t = 1000)]
    pages: usize,
    /// Sends no new message after this time.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Messages on their way at any time.
    #[arg(long, default_value_t = 2)]
    window: usize,
    /// Compare what arrives.
    #[arg(long)]
    verify: bool,
    /// The last recipient reads nothing of the messages.
    #[arg(long)]
    stall: bool,
    /// Sends nothing; tells memory.
    #[arg(long)]
    idle: bool,
    /// Processes of the server.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
}

/// What has happened so far.
struct Tally {
    body: Vec<u8>,
    verify: bool,
    /// Recipients answer SENDs.
    answers: bool,
    octets: Cell<u64>,
    /// Messages received, by all recipients.
    received: Cell<u64>,
    /// 200s received.
    agreed: Cell<u64>,
    started: Cell<u64>,
    change: Notify,
}

impl Tally {
    async fn until(&self, reached: impl Fn(&Self) -> bool) {
        while !reached(self) {
            let told = tokio::time::timeout(Duration::from_secs(30), self.change.notified()).await;
            assert!(
                told.is_ok(),
                "no progress for 30 s: {} messages received",
                self.received.get()
            );
        }
    }
}

fn add(cell: &Cell<u64>, n: u64) {
    cell.set(cell.get() + n);
}

/// One page as its peers know it.
struct Page {
    number: u64,
    originator: String,
    recipients: Vec<String>,
}

/// A connection: one task reads it, everybody who writes takes its lock.
struct Line {
    writer: Mutex<OwnedWriteHalf>,
}

impl Line {
    fn new(stream: TcpStream, tally: &Rc<Tally>, stop_after: Option<u64>) -> io::Result<Rc<Self>> {
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let line = Rc::new(Self { writer: Mutex::new(writer) });
        let (tally, own) = (Rc::clone(tally), Rc::clone(&line));
        drop(tokio::task::spawn_local(async move { own.read(reader, &tally, stop_after).await }));
        Ok(line)
    }

    async fn read(&self, mut from: OwnedReadHalf, tally: &Tally, stop_after: Option<u64>) {
        let mut reader = Reader::new();
        let (mut answers, mut agreed) = (Vec::new(), 0);
        // Octets of each message, by the session it came in.
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut place = 0;
        while stop_after.is_none_or(|most| agreed < most) {
            if reader.buffer.capacity() < BATCH && tally.body.len() >= SMALL {
                reader.buffer.reserve(BATCH);
            }
            match from.read_buf(&mut reader.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            reader.read(|part| match part {
                Part::Head(head) if head.what == "SEND" => {
                    place = places.remove(&head.to).unwrap_or(0);
                }
                Part::Head(head) => {
                    assert_eq!(head.what, "200", "answer to {}", head.id);
                    agreed += 1;
                }
                Part::Body(octets) => {
                    if tally.verify {
                        assert!(tally.body[place..].starts_with(octets), "octets at {place}");
                    }
                    place += octets.len();
                    add(&tally.octets, octets.len() as u64);
                }
                Part::End(head, flag) => {
                    if head.what != "SEND" {
                        return;
                    }
                    match flag {
                        b'$' => {
                            assert_eq!(place, tally.body.len(), "octets of a message");
                            add(&tally.received, 1);
                        }
                        b'+' => drop(places.insert(head.to.clone(), place)),
                        other => panic!("a message ended with {other}"),
                    }
                    if tally.answers {
                        head.answer(&mut answers);
                    }
                }
            });
            if !answers.is_empty() {
                self.writer.lock().await.write_all(&answers).await.expect("the server reads");
                answers.clear();
            }
            add(&tally.agreed, std::mem::take(&mut agreed) * u64::from(stop_after.is_none()));
            tally.change.notify_waiters();
            if stop_after.is_some() {
                add(&tally.agreed, 1);
                // It stays open and nobody reads it.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Where an originator's octets come from: text of its own, or the body all messages share.
enum Segment {
    Text(usize),
    Body(usize, usize),
}

/// Octets about to be written.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    segments: VecDeque<Segment>,
    octets: usize,
}

impl Batch {
    fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.text.len();
        write(&mut self.text);
        let added = self.text.len() - before;
        self.octets += added;
        match self.segments.back_mut() {
            Some(Segment::Text(len)) => *len += added,
            _ => self.segments.push_back(Segment::Text(added)),
        }
    }

    /// All chunks of a page: heads, body, end-lines. Returns how many.
    fn page(&mut self, page: &Page, to: &str, body: &[u8], chunk: usize) -> u64 {
        let from = msrp::originator(page.number);
        let mut chunks = 0;
        let mut at = 0;
        loop {
            let end = (at + chunk).min(body.len());
            let id = format!("{:06}x{chunks:05}", page.number);
            let flag = if end == body.len() { '$' } else { '+' };
            self.text(|out| {
                let head = format!(
                    "MSRP {id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: message{}\r\n\
                     Byte-Range: {}-*/{}\r\nContent-Type: application/octet-stream\r\n\r\n",
                    page.number,
                    at + 1,
                    body.len()
                );
                out.extend_from_slice(head.as_bytes());
                if end - at < SMALL {
                    out.extend_from_slice(&body[at..end]);
                }
            });
            if end - at >= SMALL {
                self.segments.push_back(Segment::Body(at, end));
                self.octets += end - at;
            }
            self.text(|out| out.extend_from_slice(format!("\r\n-------{id}{flag}\r\n").as_bytes()));
            chunks += 1;
            at = end;
            if at == body.len() {
                return chunks;
            }
        }
    }

    async fn write(&mut self, line: &Line, body: &[u8]) -> io::Result<()> {
        let mut writer = line.writer.lock().await;
        let mut text = 0;
        while !self.segments.is_empty() {
            let mut slices = [IoSlice::new(b""); SLICES];
            let mut at = text;
            for (slot, segment) in slices.iter_mut().zip(&self.segments) {
                *slot = IoSlice::new(match segment {
                    Segment::Text(len) => {
                        at += len;
                        &self.text[at - len..at]
                    }
                    Segment::Body(from, to) => &body[*from..*to],
                });
            }
            let used = self.segments.len().min(SLICES);
            let mut written = writer.write_vectored(&slices[..used]).await?;
            while let Some(first) = self.segments.front_mut() {
                let len = match first {
                    Segment::Text(len) => *len,
                    Segment::Body(from, to) => *to - *from,
                };
                let taken = written.min(len);
                written -= taken;
                match first {
                    Segment::Text(len) => {
                        *len -= taken;
                        text += taken;
                    }
                    Segment::Body(from, _) => *from += taken,
                }
                if taken < len {
                    break;
                }
                self.segments.pop_front();
            }
        }
        self.text.clear();
        self.octets = 0;
        Ok(())
    }
}

/// A SEND without a body, which binds a session.
fn bind(to: &str, from: &str, id: &str) -> String {
    format!(
        "MSRP {id} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {id}\r\n-------{id}$\r\n"
    )
}

/// Words with pagecast's switch.
struct Control {
    reader: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Control {
    async fn open(at: SocketAddr) -> io::Result<Self> {
        let (reader, writer) = TcpStream::connect(at).await?.into_split();
        Ok(Self { reader: BufReader::new(reader).lines(), writer })
    }

    async fn ask(&mut self, command: &str, lines: usize) -> io::Result<Vec<String>> {
        self.writer.write_all(format!("{command}\n").as_bytes()).await?;
        let mut answer = Vec::with_capacity(lines);
        for _ in 0..lines {
            answer.push(self.reader.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)?);
        }
        Ok(answer)
    }
}

/// What is measured: who sends and the pages in the order they are sent.
struct Scene {
    originators: Vec<Rc<Line>>,
    pages: Vec<Page>,
    _recipients: Vec<Rc<Line>>,
    control: Option<Control>,
}

async fn dial(to: SocketAddr, small: bool) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if small {
        socket.set_recv_buffer_size(4096)?;
    }
    socket.connect(to).await
}

/// pagecast: sessions of all pages, every one bound.
async fn switch(arguments: &Arguments, tally: &Rc<Tally>) -> io::Result<Scene> {
    let Arguments { to, legs, connections, pages: count, stall, .. } = *arguments;
    let mut control = Control::open(arguments.control.expect("--control")).await?;
    let mut pages = Vec::new();
    for line in control.ask(&format!("pages {count} {legs}"), count).await? {
        let mut words = line.split(' ').map(str::to_owned);
        let number = words.next().and_then(|n| n.parse().ok()).expect("a number");
        let originator = words.next().expect("a path");
        pages.push(Page { number, originator, recipients: words.collect() });
    }
    let (mut originators, mut recipients) = (Vec::new(), Vec::new());
    let mut bound = 0;
    for at in 0..connections.min(count) {
        let of = || pages.iter().skip(at).step_by(connections);
        let line = Line::new(dial(to, false).await?, tally, None)?;
        let binds: Vec<_> = of()
            .map(|page| {
                bind(
                    &page.originator,
                    &msrp::originator(page.number),
                    &format!("bind{}", page.number),
                )
            })
            .collect();
        bound += binds.len() as u64;
        line.writer.lock().await.write_all(binds.concat().as_bytes()).await?;
        originators.push(line);
        for n in 1..=legs {
            let deaf = stall && n == legs;
            let line = Line::new(dial(to, deaf).await?, tally, deaf.then_some(count as u64))?;
            let binds: Vec<_> = of()
                .map(|page| {
                    let own = msrp::recipient(page.number, n);
                    bind(&page.recipients[n - 1], &own, &format!("bind{}x{n}", page.number))
                })
                .collect();
            bound += if deaf { 1 } else { binds.len() as u64 };
            line.writer.lock().await.write_all(binds.concat().as_bytes()).await?;
            recipients.push(line);
        }
        if at % 64 == 63 {
            // Connections that are not bound yet are few, and the server is not asked for more than it can take.
            tally.until(|tally| tally.agreed.get() >= bound).await;
        }
    }
    tally.until(|tally| tally.agreed.get() >= bound).await;
    Ok(Scene { originators, pages, _recipients: recipients, control: Some(control) })
}

/// Paths no server looks at, or that lead over a relay.
async fn others(arguments: &Arguments, tally: &Rc<Tally>) -> io::Result<Scene> {
    let Arguments { to, legs, pages: count, mode, .. } = *arguments;
    let own = arguments.accept.expect("--accept");
    let listener = TcpListener::bind(own).await?;
    let mut stream = dial(to, false).await?;
    let mut recipients = Vec::new();
    if mode == Mode::Copy {
        stream.write_u8(u8::try_from(legs).expect("at most 255 recipients")).await?;
        for _ in 0..legs {
            recipients.push(Line::new(listener.accept().await?.0, tally, None)?);
        }
    } else {
        let tally = Rc::clone(tally);
        drop(tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let line = Line::new(stream, &tally, None).expect("a connection");
                drop(line);
            }
        }));
    }
    let pages = (0..count as u64)
        .map(|number| {
            let path = match mode {
                Mode::Relay => format!("msrp://{to}/relay;tcp msrp://{own}/r{number}x1;tcp"),
                _ => msrp::recipient(number, 1),
            };
            Page { number, originator: path, recipients: Vec::new() }
        })
        .collect();
    let originators = vec![Line::new(stream, tally, None)?];
    Ok(Scene { originators, pages, _recipients: recipients, control: None })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    // What a task finds wrong ends everything.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::exit(1);
    }));
    tokio::task::LocalSet::new().run_until(run(arguments)).await
}

async fn run(arguments: Arguments) -> io::Result<()> {
    // Octets of every value, CR and LF among them.
    let mut seed = 1_u64;
    let body = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    });
    let tally = Rc::new(Tally {
        body: body.take(arguments.size).collect(),
        verify: arguments.verify,
        answers: arguments.mode != Mode::Copy,
        octets: Cell::new(0),
        received: Cell::new(0),
        agreed: Cell::new(0),
        started: Cell::new(0),
        change: Notify::new(),
    });
    let before = resident(&arguments.pids)?;
    let mut scene = match arguments.mode {
        Mode::Switch => switch(&arguments, &tally).await?,
        Mode::Copy | Mode::Relay => others(&arguments, &tally).await?,
    };
    if arguments.idle {
        let sessions = (arguments.pages * (arguments.legs + 1)) as u64;
        let grown = resident(&arguments.pids)?.saturating_sub(before);
        println!("{sessions} {grown} {:.0}", grown as f64 / sessions as f64);
    } else {
        measure(&arguments, &tally, &scene).await?;
    }
    if let Some(control) = &mut scene.control {
        control.ask("forget", 1).await?;
    }
    Ok(())
}

async fn measure(arguments: &Arguments, tally: &Rc<Tally>, scene: &Scene) -> io::Result<()> {
    let readers = (arguments.legs - usize::from(arguments.stall)) as u64;
    let bound = tally.agreed.get();
    let chunks = Rc::new(Cell::new(0));
    let (cpu, begin) = (cpu(&arguments.pids)?, Instant::now());
    let end = begin + Duration::from_secs_f64(arguments.seconds);
    let senders = scene.originators.iter().enumerate().map(|(at, line)| {
        let turn = scene.pages.iter().skip(at).step_by(scene.originators.len());
        let (tally, chunks) = (Rc::clone(tally), Rc::clone(&chunks));
        async move {
            let mut batch = Batch::default();
            let mut turn = turn.peekable();
            let free = |tally: &Tally| {
                tally.started.get() < tally.received.get() / readers + arguments.window as u64
            };
            while turn.peek().is_some() && Instant::now() < end {
                tally.until(free).await;
                while free(&tally) && batch.octets < BATCH {
                    let Some(page) = turn.next() else { break };
                    add(&tally.started, 1);
                    add(&chunks, batch.page(page, &page.originator, &tally.body, arguments.chunk));
                }
                batch.write(line, &tally.body).await?;
                tokio::task::yield_now().await;
            }
            Ok::<(), io::Error>(())
        }
    });
    all(senders.collect()).await?;
    tally.until(|tally| tally.received.get() >= tally.started.get() * readers).await;
    let seconds = begin.elapsed().as_secs_f64();
    if tally.answers {
        // Everything the server owes is part of its work.
        tally.until(|tally| tally.agreed.get() >= bound + chunks.get()).await;
    }
    let cpu = self::cpu(&arguments.pids)? - cpu;
    println!("{} {} {seconds:.4} {cpu:.2}", tally.octets.get(), tally.received.get());
    Ok(())
}

/// Runs all of them in this task.
async fn all<F: Future<Output = io::Result<()>>>(futures: Vec<F>) -> io::Result<()> {
    let futures: Vec<_> = futures.into_iter().map(|f| RefCell::new(Some(Box::pin(f)))).collect();
    std::future::poll_fn(|context| {
        let mut open = false;
        for slot in &futures {
            let mut slot = slot.borrow_mut();
            match slot.as_mut().map(|future| future.as_mut().poll(context)) {
                None => {}
                Some(std::task::Poll::Pending) => open = true,
                Some(std::task::Poll::Ready(Ok(()))) => *slot = None,
                Some(std::task::Poll::Ready(failed)) => return std::task::Poll::Ready(failed),
            }
        }
        if open { std::task::Poll::Pending } else { std::task::Poll::Ready(Ok(())) }
    })
    .await
}

/// CPU seconds of the processes, user and system.
fn cpu(pids: &[u32]) -> io::Result<f64> {
    let mut ticks = 0;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, rest) = stat.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
        ticks +=
            rest.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap_or(0)).sum::<u64>();
    }
    // USER_HZ, which Linux shows to every program as 100.
    Ok(ticks as f64 / 100.0)
}

/// Resident octets of the processes.
fn resident(pids: &[u32]) -> io::Result<u64> {
    let mut octets = 0;
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line
            .and_then(|line| line.split_whitespace().nth(1))
            .and_then(|n| n.parse::<u64>().ok());
        octets += kib.ok_or(io::ErrorKind::InvalidData)? * 1024;
    }
    Ok(octets)
}
