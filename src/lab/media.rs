//! A phone's MSRP: a listener, connections, and the sessions they carry; the sending of a page.
//!
//! Start at [`Media::open`]; a session is [`Media::session`], its page goes out by [`send`]. What comes in is told as
//! [`Told`]. Octets are read by the server's codec, all the rest is a phone's own and strict (RFC 4975 §7).

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

use super::phone::Reads;
use super::tls::Identity;
use super::{Complaints, locked, token};
use crate::content::msrp_uri::MsrpUri;
use crate::msrp::codec::{self, ByteRange, Decoder, Flag, Head, Kind, Limits, Piece, SendHead};

/// Octets handed to the connection at a time.
const SLICE: usize = 16 * 1024;
/// Slices waiting for a connection; beyond them the sender waits.
const OUT_QUEUE: usize = 16;
/// Things told and not yet heard.
const TOLD_QUEUE: usize = 1024;
/// Largest page a phone takes.
const LARGEST: u64 = 256 << 20;

/// What a session tells its call.
#[derive(Debug)]
pub(super) enum Told {
    /// The first request came, on a connection the peer opened.
    Bound,
    /// A response to a SEND of ours.
    Response {
        id: Bytes,
        code: u16,
    },
    Report {
        code: u16,
        octets: u64,
    },
    /// A whole message.
    Message(Got),
    /// `#`.
    GivenUp {
        octets: u64,
    },
    Lost,
}

/// A message as it came.
#[derive(Debug, Clone)]
pub(super) struct Got {
    pub(super) content_type: String,
    pub(super) body: Bytes,
    pub(super) chunks: u32,
}

/// The MSRP side of one phone; closes when dropped.
pub(super) struct Media {
    address: SocketAddr,
    identity: Option<Identity>,
    sessions: Sessions,
    complaints: Complaints,
    task: JoinHandle<()>,
}

type Sessions = Arc<Mutex<BTreeMap<String, Arc<Session>>>>;

/// One MSRP session of ours.
pub(super) struct Session {
    id: String,
    uri: String,
    reads: Reads,
    tell: mpsc::Sender<Told>,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    peer: Option<String>,
    /// What the peer has to show over TLS.
    prints: Vec<String>,
    /// The connection it is bound to.
    bound: Option<u64>,
    message_id: Option<Arc<str>>,
    content_type: String,
    body: Vec<u8>,
    chunks: u32,
    total: Option<u64>,
}

impl Session {
    /// Our path.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// Octets of a message that is not whole.
    pub(super) fn octets(&self) -> u64 {
        locked(&self.inside).body.len() as u64
    }

    /// The peer's path, once its SDP is known.
    pub(super) fn set_peer(&self, path: &str, prints: &[String]) {
        let mut inside = locked(&self.inside);
        inside.peer = Some(path.to_owned());
        inside.prints = prints.to_vec();
    }
}

/// A session as long as it is held; its URI is dead afterwards.
pub(super) struct Held {
    pub(super) session: Arc<Session>,
    pub(super) told: mpsc::Receiver<Told>,
    sessions: Sessions,
}

impl Drop for Held {
    fn drop(&mut self) {
        locked(&self.sessions).remove(&self.session.id);
    }
}

impl Media {
    /// Listens on a free port of `ip`; over TLS, too, with an identity.
    pub(super) async fn open(
        ip: std::net::IpAddr,
        identity: Option<Identity>,
        complaints: Complaints,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let sessions = Sessions::default();
        let task =
            tokio::spawn(accept(listener, identity.clone(), sessions.clone(), complaints.clone()));
        Ok(Self { address, identity, sessions, complaints, task })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it shows over TLS, if it speaks that.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// A new session, known by its URI from now on.
    pub(super) fn session(&self, reads: Reads, secure: bool) -> Held {
        let scheme = if secure { "msrps" } else { "msrp" };
        let id = token(12);
        let (tell, told) = mpsc::channel(TOLD_QUEUE);
        let session = Arc::new(Session {
            uri: format!("{scheme}://{}/{id};tcp", self.address),
            id: id.clone(),
            reads,
            tell,
            inside: Mutex::default(),
        });
        locked(&self.sessions).insert(id, session.clone());
        Held { session, told, sessions: self.sessions.clone() }
    }

    /// Connects to the peer, as the active side.
    pub(super) async fn connect(&self, session: &Session) -> io::Result<Connection> {
        let (path, prints) = {
            let inside = locked(&session.inside);
            (inside.peer.clone().unwrap_or_default(), inside.prints.clone())
        };
        let to = first_hop(&path).ok_or_else(|| io::Error::other("a path without an address"))?;
        let stream = TcpStream::connect(to).await?;
        let (sessions, complaints) = (self.sessions.clone(), self.complaints.clone());
        let connection = if path.starts_with("msrps:") {
            let identity = self.identity.as_ref();
            let identity = identity.ok_or_else(|| io::Error::other("a phone without TLS"))?;
            // Its certificate was judged when hands were shaken.
            let stream = identity.connect(stream, &to.ip().to_string(), prints).await?;
            serve(stream, None, sessions, complaints)
        } else {
            serve(stream, None, sessions, complaints)
        };
        locked(&session.inside).bound = Some(connection.id);
        Ok(connection)
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn first_hop(path: &str) -> Option<SocketAddr> {
    let first = MsrpUri::parse_path(path).ok()?.into_iter().next()?;
    Some(SocketAddr::new(first.ip()?, first.port()?))
}

/// A connection: what is put in is written.
#[derive(Clone)]
pub(super) struct Connection {
    id: u64,
    out: mpsc::Sender<Bytes>,
    /// Octets the system has taken so far.
    written: watch::Receiver<u64>,
    tasks: Arc<[AbortHandle; 2]>,
}

impl Connection {
    /// Cuts it once so many octets are written, whatever else is under way.
    async fn kill_after(&self, octets: u64) {
        let mut written = self.written.clone();
        if written.wait_for(|so_far| *so_far >= octets).await.is_err() {
            tracing::debug!("the connection was lost before it was to be cut");
        }
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn accept(
    listener: TcpListener,
    identity: Option<Identity>,
    sessions: Sessions,
    complaints: Complaints,
) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "Nagle stays on");
            }
            let (sessions, complaints) = (sessions.clone(), complaints.clone());
            let Some(identity) = identity.clone() else {
                serve(stream, None, sessions, complaints);
                continue;
            };
            tokio::spawn(async move {
                // One port for both: TLS begins with an octet no MSRP begins with.
                const HANDSHAKE: u8 = 22;
                let mut first = [0];
                if !matches!(stream.peek(&mut first).await, Ok(1)) || first[0] != HANDSHAKE {
                    serve(stream, None, sessions, complaints);
                    return;
                }
                match identity.accept(stream).await {
                    Ok((stream, shown)) => drop(serve(stream, Some(shown), sessions, complaints)),
                    Err(error) => tracing::debug!(%error, "no TLS with a phone"),
                }
            });
        }
    }
}

/// Serves a connection; over TLS that others opened, `shown` is the fingerprint of what they show.
fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
    shown: Option<String>,
    sessions: Sessions,
    complaints: Complaints,
) -> Connection {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(0);
    let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    let (read, mut write) = tokio::io::split(stream);
    let (out, mut queue) = mpsc::channel::<Bytes>(OUT_QUEUE);
    let (count, written) = watch::channel(0);
    let writing = tokio::spawn(async move {
        while let Some(bytes) = queue.recv().await {
            if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
                return;
            }
            count.send_modify(|octets| *octets += bytes.len() as u64);
        }
    })
    .abort_handle();
    let reader = Reader {
        id,
        out: out.clone(),
        writing: writing.clone(),
        shown,
        sessions,
        complaints,
        now: None,
        touched: Vec::new(),
    };
    let reading = tokio::spawn(reader.run(read)).abort_handle();
    Connection { id, out, written, tasks: Arc::new([reading, writing]) }
}

/// A SEND that is being read.
struct Incoming {
    head: Box<Head>,
    session: Option<Arc<Session>>,
    code: u16,
    octets: u64,
}

/// Reads one connection.
struct Reader {
    id: u64,
    out: mpsc::Sender<Bytes>,
    writing: AbortHandle,
    shown: Option<String>,
    sessions: Sessions,
    complaints: Complaints,
    now: Option<Incoming>,
    touched: Vec<Arc<Session>>,
}

/// The connection is to be cut.
struct Cut;

impl Reader {
    async fn run(mut self, mut read: impl AsyncRead + Unpin) {
        let mut decoder = Decoder::new(Limits::default());
        'reading: loop {
            decoder.buffer().reserve(SLICE);
            if !matches!(read.read_buf(decoder.buffer()).await, Ok(1..)) {
                break;
            }
            loop {
                match decoder.next() {
                    Ok(None) => break,
                    Ok(Some(piece)) => {
                        if self.on_piece(piece).await.is_err() {
                            self.writing.abort();
                            break 'reading;
                        }
                    }
                    Err(lost) => {
                        self.complaints.add(format!("phone: {lost}"));
                        break 'reading;
                    }
                }
            }
        }
        for session in &self.touched {
            tell(session, Told::Lost).await;
        }
    }

    async fn on_piece(&mut self, piece: Piece) -> Result<(), Cut> {
        match piece {
            Piece::Head(head) => {
                let session = self.session_of(&head);
                let code = self.judge(&head, session.as_ref()).await;
                self.now = Some(Incoming { head, session, code, octets: 0 });
                Ok(())
            }
            Piece::Body(octets) => self.on_body(octets).await,
            Piece::End(flag) => self.on_end(flag).await,
        }
    }

    fn session_of(&self, head: &Head) -> Option<Arc<Session>> {
        let id = head.to_path.last()?.session_id()?;
        locked(&self.sessions).get(id).cloned()
    }

    /// The answer a SEND deserves so far.
    async fn judge(&mut self, head: &Head, session: Option<&Arc<Session>>) -> u16 {
        if let Some(problem) = head.problem {
            self.complaints.add(format!("phone: MSRP {:?} with {problem}", head.kind));
            return 400;
        }
        let Some(session) = session else {
            return 481;
        };
        if !self.touched.iter().any(|known| Arc::ptr_eq(known, session)) {
            self.touched.push(session.clone());
        }
        if head.kind != Kind::Send {
            return 200;
        }
        let first = {
            let mut inside = locked(&session.inside);
            let from = codec::path_text(&head.from_path);
            self.complaints.check(inside.peer.as_deref() == Some(from.as_str()), || {
                "phone: a From-Path that is not the path in the SDP".to_owned()
            });
            self.complaints.check(
                self.shown.as_ref().is_none_or(|shown| inside.prints.contains(shown)),
                || "phone: a certificate that is not the one in the SDP".to_owned(),
            );
            let first = inside.bound.is_none();
            let bound = *inside.bound.get_or_insert(self.id);
            if bound != self.id {
                return 506;
            }
            self.complaints.check(head.message_id.is_some(), || "phone: no Message-ID".to_owned());
            if head.has_body {
                self.begin_chunk(&mut inside, head);
            }
            first
        };
        if first {
            tell(session, Told::Bound).await;
        }
        200
    }

    /// A chunk of the one message begins: the same Message-ID, the next octet.
    fn begin_chunk(&self, inside: &mut Inside, head: &Head) {
        match &inside.message_id {
            None => {
                inside.message_id.clone_from(&head.message_id);
                inside.content_type = head.content_type.as_deref().unwrap_or("").to_owned();
            }
            Some(known) => self.complaints.check(Some(known) == head.message_id.as_ref(), || {
                "phone: a second Message-ID in one session".to_owned()
            }),
        }
        let next = inside.body.len() as u64 + 1;
        let start = head.range.map_or(1, |range| range.start);
        self.complaints.check(start == next, || {
            format!("phone: a chunk from octet {start} where {next} is next")
        });
        if let Some(total) = head.range.and_then(|range| range.total) {
            inside.total = Some(total);
        }
        inside.chunks += 1;
    }

    async fn on_body(&mut self, octets: Bytes) -> Result<(), Cut> {
        let Some(now) = &mut self.now else {
            return Ok(());
        };
        now.octets += octets.len() as u64;
        let Some(session) = now.session.clone().filter(|_| now.code == 200) else {
            return Ok(());
        };
        let so_far = {
            let mut inside = locked(&session.inside);
            if inside.body.len() as u64 + octets.len() as u64 > LARGEST {
                now.code = 413;
                return Ok(());
            }
            inside.body.extend_from_slice(&octets);
            inside.body.len() as u64
        };
        match session.reads {
            Reads::Slowly { octets_per_second } => {
                let wait = octets.len() as f64 / octets_per_second.max(1) as f64;
                tokio::time::sleep(Duration::from_secs_f64(wait)).await;
            }
            Reads::KillsAfter { octets } if so_far >= octets => return Err(Cut),
            Reads::RefusesAfter { octets, code } if so_far >= octets => now.code = code,
            Reads::AtOnce
            | Reads::Silently
            | Reads::KillsAfter { .. }
            | Reads::RefusesAfter { .. } => {}
        }
        Ok(())
    }

    async fn on_end(&mut self, flag: Flag) -> Result<(), Cut> {
        let Some(Incoming { head, session, code, .. }) = self.now.take() else {
            return Ok(());
        };
        match head.kind {
            Kind::Response(code) => {
                if let Some(session) = &session {
                    tell(session, Told::Response { id: head.id.clone(), code }).await;
                }
            }
            Kind::Report => {
                if let (Some(session), Some((_, code))) = (&session, head.status) {
                    let octets = head.range.and_then(|range| range.end).unwrap_or(0);
                    tell(session, Told::Report { code, octets }).await;
                }
            }
            Kind::Send => self.on_send_end(&head, session.as_ref(), code, flag).await,
            Kind::Nickname | Kind::Unknown => self.answer(&head, 501).await,
        }
        Ok(())
    }

    async fn on_send_end(
        &mut self,
        head: &Head,
        session: Option<&Arc<Session>>,
        code: u16,
        flag: Flag,
    ) {
        let silent = session.is_some_and(|session| matches!(session.reads, Reads::Silently));
        // Told before it is answered: the peer's BYE may follow the answer at once.
        let whole = match session.filter(|_| code == 200) {
            Some(session) => self.on_chunk(head, session, flag).await,
            None => None,
        };
        if !silent && head.failure_report != codec::FailureReport::No {
            self.answer(head, code).await;
        }
        if let Some(octets) = whole.filter(|_| head.success_report && !silent) {
            self.report(head, octets).await;
        }
    }

    /// A good chunk is complete; so many octets if it was the last.
    async fn on_chunk(&self, head: &Head, session: &Session, flag: Flag) -> Option<u64> {
        if flag == Flag::Abort {
            let octets = locked(&session.inside).body.len() as u64;
            tell(session, Told::GivenUp { octets }).await;
            return None;
        }
        if flag == Flag::Last && head.has_body {
            let got = {
                let mut inside = locked(&session.inside);
                let octets = inside.body.len() as u64;
                self.complaints.check(inside.total.is_none_or(|total| total == octets), || {
                    format!("phone: `$` after {octets} octets, the total was {:?}", inside.total)
                });
                Got {
                    content_type: std::mem::take(&mut inside.content_type),
                    body: Bytes::from(std::mem::take(&mut inside.body)),
                    chunks: inside.chunks,
                }
            };
            let octets = got.body.len() as u64;
            tell(session, Told::Message(got)).await;
            return Some(octets);
        }
        None
    }

    async fn answer(&self, head: &Head, code: u16) {
        let mut out = BytesMut::new();
        codec::response(&mut out, head, code);
        self.put(out).await;
    }

    async fn report(&self, head: &Head, octets: u64) {
        let mut out = BytesMut::new();
        let id = token(8);
        codec::report(
            &mut out,
            &codec::Report {
                id: id.as_bytes(),
                to_path: &codec::path_text(&head.from_path),
                from: head.own_uri(),
                message_id: head.message_id.as_deref().unwrap_or(""),
                octets,
                total: Some(octets),
                code: 200,
                text: "OK",
            },
        );
        self.put(out).await;
    }

    async fn put(&self, out: BytesMut) {
        if self.out.send(out.freeze()).await.is_err() {
            tracing::debug!("a phone's connection is gone");
        }
    }
}

/// A call that has ended hears nothing.
async fn tell(session: &Session, what: Told) {
    if session.tell.send(what).await.is_err() {
        tracing::debug!("told a call that is over");
    }
}

/// Binds the session as the active side without anything to send (RFC 4975 §5.4).
pub(super) async fn bind(connection: &Connection, session: &Session) {
    let mut out = BytesMut::new();
    let (id, message_id) = (token(8), token(8));
    let to_path = locked(&session.inside).peer.clone().unwrap_or_default();
    codec::send_head(&mut out, &head(&id, &to_path, &session.uri, &message_id));
    codec::end_line(&mut out, id.as_bytes(), Flag::Last, false);
    if connection.out.send(out.freeze()).await.is_err() {
        tracing::debug!("the connection was lost before it was bound");
    }
}

fn head<'a>(id: &'a str, to_path: &'a str, from: &'a str, message_id: &'a str) -> SendHead<'a> {
    SendHead {
        id: id.as_bytes(),
        to_path,
        from,
        message_id,
        range: None,
        success_report: false,
        content_type: None,
    }
}

/// What is to be sent, and how.
pub(super) struct Outgoing<'a> {
    pub(super) content_type: &'a str,
    pub(super) body: &'a Bytes,
    /// Octets of a chunk.
    pub(super) chunk: usize,
    pub(super) success_report: bool,
    /// `#` after so many octets.
    pub(super) give_up_after: Option<u64>,
    /// The connection is cut after so many octets.
    pub(super) kill_after: Option<u64>,
    /// Longest wait for responses and the REPORT once everything is written.
    pub(super) patience: Duration,
}

/// How far the page came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SentPage {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    /// Status of the REPORT.
    pub(super) report: Option<u16>,
    /// Octets the REPORT covers.
    pub(super) reported: u64,
    /// First response that was no 200.
    pub(super) refused: Option<u16>,
    pub(super) lost: bool,
}

/// Sends one page and waits for what is owed for it; `so_far` is right whenever this is given up.
pub(super) async fn send(
    connection: &Connection,
    held: &mut Held,
    page: &Outgoing<'_>,
    so_far: &mut SentPage,
) {
    let to_path = locked(&held.session.inside).peer.clone().unwrap_or_default();
    let uri = held.session.uri.clone();
    let message_id = token(8);
    let mut open: BTreeMap<Bytes, u64> = BTreeMap::new();
    let total = page.body.len();
    let mut at = 0;
    loop {
        let id = token(8);
        let end = (at + page.chunk.max(1)).min(total);
        let mut out = BytesMut::new();
        let range = ByteRange { start: at as u64 + 1, end: None, total: Some(total as u64) };
        codec::send_head(
            &mut out,
            &SendHead {
                range: Some(range),
                success_report: page.success_report,
                content_type: Some(page.content_type),
                ..head(&id, &to_path, &uri, &message_id)
            },
        );
        open.insert(Bytes::from(id.clone()), (end - at) as u64);
        let mut pieces = vec![out.freeze()];
        let mut from = at;
        while from < end {
            let to = (from + SLICE).min(end);
            pieces.push(page.body.slice(from..to));
            from = to;
        }
        let mut stop = false;
        for (n, piece) in pieces.into_iter().enumerate() {
            let octets = if n == 0 { 0 } else { piece.len() as u64 };
            if !put(connection, held, piece, so_far, &mut open).await {
                return;
            }
            so_far.sent += octets;
            if page.kill_after.is_some_and(|octets| so_far.sent >= octets) {
                connection.kill_after(so_far.sent).await;
                so_far.lost = true;
                return;
            }
            stop = page.give_up_after.is_some_and(|octets| so_far.sent >= octets)
                || so_far.refused.is_some();
            if stop {
                break;
            }
        }
        let flag = match (stop, end == total) {
            (true, _) => Flag::Abort,
            (false, true) => Flag::Last,
            (false, false) => Flag::More,
        };
        let mut out = BytesMut::new();
        codec::end_line(&mut out, id.as_bytes(), flag, true);
        if !put(connection, held, out.freeze(), so_far, &mut open).await {
            return;
        }
        at = end;
        if flag != Flag::More {
            break;
        }
    }
    let owed = async {
        while !so_far.lost
            && (!open.is_empty()
                || (page.success_report && so_far.report.is_none() && so_far.refused.is_none()))
        {
            match held.told.recv().await {
                Some(told) => note(told, so_far, &mut open),
                None => so_far.lost = true,
            }
        }
    };
    if tokio::time::timeout(page.patience, owed).await.is_err() {
        tracing::debug!("not everything owed for a page has come");
    }
}

/// Writes as soon as there is room, hearing what comes meanwhile. False when the connection is gone.
async fn put(
    connection: &Connection,
    held: &mut Held,
    bytes: Bytes,
    so_far: &mut SentPage,
    open: &mut BTreeMap<Bytes, u64>,
) -> bool {
    loop {
        tokio::select! {
            room = connection.out.reserve() => match room {
                Ok(room) => {
                    room.send(bytes);
                    return true;
                }
                Err(_) => {
                    so_far.lost = true;
                    return false;
                }
            },
            Some(told) = held.told.recv() => {
                note(told, so_far, open);
                if so_far.lost {
                    return false;
                }
            }
        }
    }
}

fn note(told: Told, so_far: &mut SentPage, open: &mut BTreeMap<Bytes, u64>) {
    match told {
        Told::Response { id, code } => {
            if let Some(octets) = open.remove(&id) {
                if code == 200 {
                    so_far.acknowledged += octets;
                } else {
                    so_far.refused.get_or_insert(code);
                }
            }
        }
        Told::Report { code, octets } => {
            so_far.report.get_or_insert(code);
            so_far.reported += octets;
        }
        Told::Lost => so_far.lost = true,
        Told::Bound | Told::Message(_) | Told::GivenUp { .. } => {}
    }
}
