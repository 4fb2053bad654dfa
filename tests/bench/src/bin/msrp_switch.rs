//! pagecast's MSRP switch and nothing above it: sessions are reserved and opened as the node would, without SIP.
//!
//! Reads commands from a control connection, one a line: `pages COUNT LEGS` makes sessions and answers a line of path
//! URIs a page, `forget` ends them all, `stats` tells what is held. A page is forgotten when all of its sides are done.

#[path = "../msrp/mod.rs"]
#[expect(dead_code, reason = "shared with the generator")]
mod msrp;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use pagecast::content::msrp_uri::MsrpUri;
use pagecast::engine::ids::{LegId, PageId};
use pagecast::engine::input::{LegMedia, OriginatorMedia};
use pagecast::msrp::{
    AcceptTypes, Direction, MediaEvent, PageRules, PeerMedia, Role, Settings, Side, Switch,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    control: SocketAddr,
    /// Pages go to files here, and a page is only done when its file is synced.
    #[arg(long)]
    spool: Option<PathBuf>,
}

/// Octets of a page that need not be in its file.
const MEMORY: u64 = 64 << 10;

/// What is still missing of a page, and the number it goes by here.
struct Open {
    left: usize,
    settled: bool,
}

struct State {
    switch: Switch,
    spool: Option<PathBuf>,
    next: u64,
    open: HashMap<PageId, Open>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings {
        host: arguments.listen.ip().to_string(),
        port: arguments.listen.port(),
        spool_dir: arguments.spool.clone(),
        // Where files are measured, everything goes through them.
        spool_page_memory: if arguments.spool.is_some() { MEMORY } else { 4 << 20 },
        // Peers here send no REPORT.
        copy_success_report: false,
        max_unbound: 100_000,
        max_connections: 100_000,
        max_sessions: 1_000_000,
        max_sessions_per_connection: 100_000,
        ..Settings::default()
    };
    let (sender, mut events) = mpsc::unbounded_channel();
    let switch = Switch::new(settings, Arc::new(move |event| drop(sender.send(event))))?;
    let listener = TcpListener::bind(arguments.listen).await?;
    let control = TcpListener::bind(arguments.control).await?;
    let listening = switch.clone();
    drop(tokio::spawn(async move { listening.listen(listener).await }));
    let (synced, mut syncs) = mpsc::unbounded_channel();
    let mut state = State { switch, spool: arguments.spool, next: 0, open: HashMap::new() };
    let (said, mut commands) = mpsc::channel::<(String, mpsc::Sender<String>)>(16);
    drop(tokio::spawn(async move {
        while let Ok((stream, _)) = control.accept().await {
            drop(tokio::spawn(converse(stream, said.clone())));
        }
    }));
    println!("ready");
    let mut heard = Vec::new();
    loop {
        tokio::select! {
            // As many as there are: pages that are over are forgotten before more come.
            _ = events.recv_many(&mut heard, 1024) => {
                heard.drain(..).for_each(|event| state.on(event, &synced));
            }
            Some(page) = syncs.recv() => state.done(page),
            Some((command, answer)) = commands.recv() => {
                // The generator reads what it asked for.
                let _ = answer.send(state.obey(&command)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, said: mpsc::Sender<(String, mpsc::Sender<String>)>) {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let (answer, mut answers) = mpsc::channel(1);
    while let Ok(Some(line)) = lines.next_line().await {
        if said.send((line, answer.clone())).await.is_err() {
            return;
        }
        let Some(text) = answers.recv().await else { return };
        if writer.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

impl State {
    fn obey(&mut self, command: &str) -> String {
        let mut words = command.split(' ');
        match words.next() {
            Some("pages") => {
                let mut number = || words.next().and_then(|n| n.parse().ok()).expect("a number");
                let (count, legs) = (number(), number());
                (0..count).map(|_| self.page(legs) + "\n").collect()
            }
            Some("forget") => {
                for page in std::mem::take(&mut self.open).into_keys() {
                    self.switch.forget(page);
                }
                "\n".into()
            }
            _ => format!("{:?}\n", self.switch.stats()),
        }
    }

    /// Its number, the originator's path, and the recipients'.
    fn page(&mut self, legs: usize) -> String {
        let number = self.next;
        self.next += 1;
        let page = PageId::new(0, number);
        let mut line = number.to_string();
        let own = self.switch.reserve(Side::Originator(page)).expect("room for a session");
        let accept = AcceptTypes { types: vec!["*".into()], wrapped: Vec::new() };
        let peer = media(&msrp::originator(number));
        self.switch.open_originator(page, peer, accept, PageRules::default());
        line = line + " " + &own;
        for n in 1..=legs {
            let leg = LegId { page, n: n as u16 };
            let own = self.switch.reserve(Side::Leg(leg)).expect("room for a session");
            self.switch.join(leg, media(&msrp::recipient(number, n)));
            line = line + " " + &own;
        }
        let left = legs + 1 + usize::from(self.spool.is_some());
        self.open.insert(page, Open { left, settled: false });
        line
    }

    fn on(&mut self, event: MediaEvent, synced: &mpsc::UnboundedSender<PageId>) {
        match event {
            MediaEvent::Leg { leg, event: LegMedia::Quiet } => self.done(leg.page),
            MediaEvent::Leg { leg, event: LegMedia::Failed { cause } } => {
                eprintln!("{leg} failed: {cause:?}");
            }
            MediaEvent::Originator { page, event: OriginatorMedia::Settled } => {
                let first = self
                    .open
                    .get_mut(&page)
                    .is_some_and(|open| !std::mem::replace(&mut open.settled, true));
                if first {
                    self.done(page);
                }
            }
            MediaEvent::Originator { page, event: OriginatorMedia::Aborted(loss) } => {
                eprintln!("{page} aborted: {loss:?}");
            }
            MediaEvent::Originator { page, event: OriginatorMedia::Complete { size } } => {
                if let Some(dir) = &self.spool {
                    let (path, synced) = (dir.join(format!("{page}.page")), synced.clone());
                    drop(tokio::task::spawn_blocking(move || {
                        if let Err(error) = sync(&path, size.saturating_sub(MEMORY)) {
                            eprintln!("{}: {error}", path.display());
                        }
                        // The loop that hears it lives as long as the process.
                        let _ = synced.send(page);
                    }));
                }
            }
            _ => {}
        }
    }

    fn done(&mut self, page: PageId) {
        let Some(open) = self.open.get_mut(&page) else { return };
        open.left -= 1;
        if open.left == 0 {
            self.open.remove(&page);
            self.switch.forget(page);
        }
    }
}

/// Syncs a file once `octets` of it are written.
fn sync(path: &Path, octets: u64) -> std::io::Result<()> {
    let file = std::fs::File::open(path)?;
    while file.metadata()?.len() < octets {
        std::thread::park_timeout(Duration::from_micros(200));
    }
    file.sync_data()
}

fn media(path: &str) -> PeerMedia {
    PeerMedia {
        path: MsrpUri::parse_path(path).expect("a path"),
        role: Role::Passive,
        dial: None,
        accept_types: vec!["*".into()],
        accept_wrapped: Vec::new(),
        max_size: None,
        direction: Direction::SendRecv,
        proof: None,
    }
}
