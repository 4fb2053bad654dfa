//! The registry of sessions: which URI is whose, and what joins an originator with its recipients.
//!
//! Start at [`Switch`]. A page's sides share one spool and nothing else; each [`Cell`] sits behind a small lock of its
//! own that nobody holds while waiting. What a connection has to do for a session reaches it as a [`Nudge`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use super::buffers::Buffers;
use super::codec;
use super::net::{Handle, Nudge};
use super::session::{FromRecipient, Incoming, Outgoing, Owed, Part, Session};
use super::tap::Tap;
use super::tls::{Failure, Promise, Shown, Tls};
use super::{
    AcceptTypes, Envelope, Full, HandshakesFailed, MediaEvent, PageRules, PeerMedia, Role,
    Settings, Side, Sink, Stats,
};
use super::{dial, doors};
use crate::content::fingerprint::Proof;
use crate::content::msrp_uri::MsrpUri;
use crate::content::sdp::{End, Family};
use crate::engine::ids::{LegId, PageId};
use crate::engine::input::{LegMedia, MediaFailure, OriginatorMedia, PageLoss};
use crate::flow::Flows;
use crate::handshake::Gate;
use crate::spool::{self, About, Spool, Spools};

/// All MSRP of a node; cheap to clone.
///
/// Contract: calls come from inside a tokio runtime, never block, and change nothing for sides they do not know. Events
/// of one side come in order; the sink must neither block nor call the switch.
#[derive(Clone)]
pub struct Switch(pub(super) Arc<Shared>);

/// What all connections and sessions share.
pub(super) struct Shared {
    pub settings: Arc<Settings>,
    pub spools: Spools,
    pub counters: Counters,
    pub buffers: Arc<Buffers>,
    sink: Sink,
    sessions: Mutex<HashMap<SessionId, Arc<Cell>>>,
    /// Who has to be bound by when, the earliest first.
    binds: Mutex<Binds>,
    pages: Mutex<HashMap<PageId, Page>>,
    pub peers: Mutex<HashMap<dial::PeerKey, dial::PeerConnection>>,
    pub per_ip: Mutex<HashMap<IpAddr, usize>>,
    /// Where MSRP goes over TLS, too.
    pub tls: OnceLock<Tls>,
    /// Handshakes of clients in progress.
    pub gate: Gate,
    /// Who watches, if anybody does.
    pub tap: OnceLock<Tap>,
}

/// See [`Stats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub connections: AtomicUsize,
    pub incoming: AtomicUsize,
    pub unbound: AtomicUsize,
    pub next_connection: AtomicU64,
    pub octets_in: AtomicU64,
    pub octets_out: AtomicU64,
    pub control: AtomicU64,
    pub refused: AtomicU64,
    pub overlapped: AtomicU64,
    handshakes: [AtomicU64; 4],
}

impl Counters {
    fn failed(&self, failure: Failure) -> &AtomicU64 {
        &self.handshakes[failure as usize]
    }

    /// Counts a TLS connection that did not come to be.
    pub fn handshake_failed(&self, failure: Failure) {
        self.failed(failure).fetch_add(1, Ordering::Relaxed);
    }

    fn handshakes_failed(&self) -> HandshakesFailed {
        let of = |failure| self.failed(failure).load(Ordering::Relaxed);
        HandshakesFailed {
            slow: of(Failure::Slow),
            protocol: of(Failure::Protocol),
            certificate: of(Failure::Certificate),
            busy: of(Failure::Busy),
        }
    }
}

/// A session-id of ours (MS-004).
type SessionId = [u8; 24];

/// Sessions that wait to be bound (MS-035): all wait equally long.
#[derive(Default)]
struct Binds {
    due: VecDeque<(Instant, SessionId)>,
    /// Somebody looks at them.
    watched: bool,
}

struct Page {
    spool: Arc<Spool>,
    originator: Option<Arc<Cell>>,
    legs: HashMap<u16, Arc<Cell>>,
}

/// One session as connections and the switch share it.
pub(super) struct Cell {
    pub side: Side,
    pub spool: Arc<Spool>,
    /// Waits in a connection's turn already.
    pub queued: AtomicBool,
    /// Where it stands among its connection's sessions.
    pub place: AtomicUsize,
    /// Requests of ours its connection knows and has no response to.
    pub asked: AtomicU32,
    inner: Mutex<Guarded>,
}

pub(super) struct Guarded {
    pub session: Session,
    /// The connection it is bound to.
    pub handle: Option<Arc<Handle>>,
    pub waker: Option<std::task::Waker>,
    /// What its peer has to show over TLS, once that is known.
    pub proof: Option<Proof>,
    /// Keeps the certificate its peer was told of, until the peer has come.
    pub promise: Option<Promise>,
    /// Connections whose first request waits for the peer's SDP (MS-112).
    pub early: Vec<Arc<Handle>>,
    /// Its URI is dead: nothing is told any more.
    pub released: bool,
    /// The engine knows that nothing is owed to the originator.
    pub settled: bool,
    /// What is owed to the originator once its page is kept.
    pub held: Option<Box<Held>>,
    /// It was said whether the page is kept.
    pub confirmed: bool,
    /// The session this one replaces, until this one is bound (MS-016).
    pub before: Option<Arc<Cell>>,
    /// Takes what still arrives here since it has replaced this one: the originator's new session.
    pub heir: Option<Arc<Cell>>,
}

impl Guarded {
    /// Has the connections that wait for this session look again.
    fn look_again(&mut self) {
        for handle in self.early.drain(..) {
            handle.nudge(Nudge::Look);
        }
    }
}

/// Frames that wait for the word that a page is kept.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// What is written if it is.
    kept: BytesMut,
    /// And if it cannot be.
    lost: BytesMut,
}

impl Held {
    /// The end of a chunk of the whole page: the response to `head` with `answer`, if there is one, then the REPORT.
    pub fn add(&mut self, head: &codec::Head, answer: Option<u16>, report: Option<Bytes>) {
        if let Some(code) = answer {
            codec::response(&mut self.kept, head, code);
        }
        self.kept.extend_from_slice(&report.unwrap_or_default());
        // Who wants to hear of no failure hears of none.
        if super::session::may_answer(head.failure_report, 413) {
            codec::response(&mut self.lost, head, 413);
        }
    }
}

/// Connections that may wait for one session's peer to be known; one is honest.
const MOST_EARLY: usize = 2;

/// The octets of a whole page.
#[derive(Debug)]
pub struct Body {
    pub about: About,
    spool: Arc<Spool>,
}

impl Body {
    /// All of them, in pieces of at most `piece` octets. Blocks where they are on disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&self, piece: usize) -> io::Result<Vec<Bytes>> {
        let mut pieces = Vec::new();
        let mut open = BytesMut::new();
        let mut at = 0;
        loop {
            let octets = match self.spool.read(at, piece, u32::MAX, None) {
                spool::Read::Data(octets) | spool::Read::Plain(octets) => octets,
                spool::Read::Disk(disk) => disk.run()?,
                spool::Read::End => break,
                spool::Read::Wait | spool::Read::Lost => {
                    return Err(io::Error::other("the page is not whole"));
                }
            };
            at += octets.len() as u64;
            if open.len() + octets.len() > piece {
                pieces.push(open.split().freeze());
            }
            open.extend_from_slice(&octets);
        }
        if !open.is_empty() {
            pieces.push(open.freeze());
        }
        Ok(pieces)
    }

    /// How many they are.
    pub fn size(&self) -> u64 {
        self.spool.stored()
    }
}

/// What a certificate is to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vetted {
    Passes,
    /// It is not known yet.
    Waits,
    /// Not what the peer's SDP says.
    Stranger,
}

/// What a session wants the engine to hear.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub originator: Vec<OriginatorMedia>,
    pub leg: Vec<LegMedia>,
}

impl Cell {
    /// Who takes what arrives on the connection of this session; `None` when its successor is bound elsewhere.
    pub fn taker(self: &Arc<Self>) -> Option<Arc<Self>> {
        let guarded = self.lock();
        match &guarded.heir {
            None => Some(Arc::clone(self)),
            Some(_) if guarded.released => None,
            Some(heir) => heir.taker(),
        }
    }

    /// Who shows `shown` may touch the session.
    ///
    /// MS-112: a session that is bound has been judged; one whose peer's SDP is not known makes `handle` wait, as far as
    /// there is room.
    pub fn vet(&self, shown: &Shown, tls: &Tls, handle: &Arc<Handle>) -> Vetted {
        let mut guarded = self.lock();
        if guarded.released || !guarded.session.is_free() || !guarded.session.own().is_secure() {
            return Vetted::Passes;
        }
        match &guarded.proof {
            Some(proof) if tls.satisfied(shown, proof) => Vetted::Passes,
            Some(_) => Vetted::Stranger,
            None => {
                if !guarded.early.iter().any(|known| Arc::ptr_eq(known, handle)) {
                    if guarded.early.len() >= MOST_EARLY {
                        return Vetted::Stranger;
                    }
                    guarded.early.push(Arc::clone(handle));
                }
                Vetted::Waits
            }
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Guarded> {
        // A session a panic left half changed concerns nobody else.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Tables are changed by single inserts and removes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// `N` base-62 characters of system randomness, about 5.9 bits each (MS-004, MS-041).
pub(super) fn random<const N: usize>() -> [u8; N] {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    system_octets::<N>().map(|octet| ALPHABET[usize::from(octet) % ALPHABET.len()])
}

/// Octets of system randomness, each given out once. Asked for in larger pieces: the system call costs more than they do.
fn system_octets<const N: usize>() -> [u8; N] {
    const PIECE: usize = 1024;
    thread_local! {
        static LEFT: RefCell<([u8; PIECE], usize)> = const { RefCell::new(([0; PIECE], PIECE)) };
    }
    LEFT.with_borrow_mut(|(octets, used)| {
        if *used + N > PIECE {
            getrandom::fill(octets).expect("the system has a random source");
            *used = 0;
        }
        let mut out = [0; N];
        out.copy_from_slice(&octets[*used..*used + N]);
        octets[*used..*used + N].fill(0);
        *used += N;
        out
    })
}

pub(super) fn random_text<const N: usize>() -> String {
    random::<N>().iter().map(|octet| char::from(*octet)).collect()
}

impl Shared {
    /// Passes on what a session told; the session's lock is held, so that the order is right.
    pub fn tell(&self, guarded: &Guarded, told: Told) {
        if guarded.released {
            return;
        }
        match guarded.session.side {
            Side::Originator(page) => {
                for event in told.originator {
                    tracing::debug!(%page, ?event, "originator media");
                    (self.sink)(MediaEvent::Originator { page, event });
                }
            }
            Side::Leg(leg) => {
                for event in told.leg {
                    tracing::debug!(%leg, ?event, "recipient media");
                    (self.sink)(MediaEvent::Leg { leg, event });
                }
            }
        }
    }

    /// The live session with this URI.
    pub fn find(&self, uri: &MsrpUri) -> Option<Arc<Cell>> {
        let id = SessionId::try_from(uri.session_id()?.as_bytes()).ok()?;
        lock(&self.sessions).get(&id).cloned()
    }

    /// MS-035: fails the session if it is not bound by then.
    fn watch_bind(self: &Arc<Self>, cell: &Cell, by: Instant) {
        let guarded = cell.lock();
        let Some(Ok(id)) = guarded.session.own().session_id().map(|id| id.as_bytes().try_into())
        else {
            return;
        };
        drop(guarded);
        let mut binds = lock(&self.binds);
        binds.due.push_back((by, id));
        if !std::mem::replace(&mut binds.watched, true) {
            drop(tokio::spawn(bind_watch(Arc::downgrade(self), by)));
        }
    }

    /// Fails sessions whose time is up; when the next one's is.
    fn check_binds(&self) -> Option<Instant> {
        let time = now();
        loop {
            let id = {
                let mut binds = lock(&self.binds);
                match binds.due.front() {
                    Some((by, _)) if *by > time => return Some(*by),
                    Some((_, id)) => {
                        let id = *id;
                        binds.due.pop_front();
                        id
                    }
                    None => {
                        *binds = Binds::default();
                        return None;
                    }
                }
            };
            let cell = lock(&self.sessions).get(&id).cloned();
            if let Some(cell) = cell
                && cell.lock().session.is_bind_overdue(time)
            {
                tracing::info!(side = %cell.side, "MS-035: no connection was bound in time (msrp.bind_timeout)");
                self.lost(&cell, PageLoss::Bind, MediaFailure::Bind);
            }
        }
    }

    /// A session's connection broke, was never made, or nobody came (MS-036, MS-035).
    pub fn lost(&self, cell: &Cell, loss: PageLoss, cause: MediaFailure) {
        if let Some(before) = self.lost_itself(cell, loss, cause) {
            // MS-016: what it was to replace ends with it.
            self.release(&before);
        }
    }

    fn lost_itself(&self, cell: &Cell, loss: PageLoss, cause: MediaFailure) -> Option<Arc<Cell>> {
        let mut guarded = cell.lock();
        let guarded = &mut *guarded;
        let mut told = Told::default();
        guarded.session.unbind();
        guarded.promise = None;
        guarded.look_again();
        guarded.handle = None;
        guarded.waker = None;
        match &mut guarded.session.part {
            Part::Reserved { .. } => {}
            Part::Originator(page) => {
                page.lose(loss, &mut told.originator);
                if !std::mem::replace(&mut guarded.settled, true) {
                    told.originator.push(OriginatorMedia::Settled);
                }
            }
            Part::Leg { send, .. } => send.cut(cause, &mut told.leg),
        }
        self.tell(guarded, told);
        guarded.before.take()
    }

    /// The session's URI is dead, and that of a session it was to replace.
    pub fn release(&self, cell: &Arc<Cell>) {
        let before = {
            let mut guarded = cell.lock();
            guarded.released = true;
            guarded.waker = None;
            guarded.promise = None;
            let id = guarded.session.own().session_id().map(|id| id.as_bytes().try_into());
            if let Some(Ok(id)) = id {
                lock(&self.sessions).remove::<SessionId>(&id);
            }
            guarded.look_again();
            if let Side::Leg(leg) = cell.side {
                cell.spool.leave(u32::from(leg.n));
            }
            if let Some(handle) = guarded.handle.take() {
                handle.nudge(Nudge::Detach(Arc::clone(cell)));
            }
            guarded.before.take()
        };
        if let Some(before) = before {
            self.release(&before);
        }
    }

    fn side(&self, side: Side) -> Option<Arc<Cell>> {
        let pages = lock(&self.pages);
        let page = pages.get(&side.page())?;
        match side {
            Side::Originator(_) => page.originator.clone(),
            Side::Leg(leg) => page.legs.get(&leg.n).cloned(),
        }
    }
}

impl Switch {
    /// A switch without listeners.
    ///
    /// # Errors
    /// The spool's directory cannot be used.
    pub fn new(settings: Settings, sink: Sink) -> io::Result<Self> {
        let limits = spool::Limits {
            total: settings.spool_total,
            page_memory: settings.spool_page_memory,
            total_memory: settings.spool_memory,
        };
        Ok(Self(Arc::new(Shared {
            spools: Spools::new(settings.spool_dir.as_deref(), limits)?,
            gate: Gate::new(settings.max_handshakes, settings.max_handshakes),
            tls: OnceLock::new(),
            settings: Arc::new(settings),
            counters: Counters::default(),
            buffers: Arc::default(),
            sink,
            sessions: Mutex::default(),
            binds: Mutex::default(),
            pages: Mutex::default(),
            peers: Mutex::default(),
            per_ip: Mutex::default(),
            tap: OnceLock::new(),
        })))
    }

    /// Copies the heads of everything that crosses connections made from now on into call flows, where we are called
    /// `name`. Only the first call counts.
    pub fn tap(&self, flows: Arc<Flows>, name: Arc<str>) {
        drop(self.0.tap.set(Tap { flows, name }));
    }

    /// Sessions may run over TLS from now on. Only the first call counts.
    pub fn secure(&self, tls: Tls) {
        drop(self.0.tls.set(tls));
    }

    /// The TLS it was given.
    pub fn tls(&self) -> Option<&Tls> {
        self.0.tls.get()
    }

    /// Accepts connections over TLS until dropped. Ends at once without [`Switch::secure`].
    pub async fn listen_secure(&self, listener: TcpListener) {
        if let Some(tls) = self.0.tls.get() {
            doors::listen_secure(&self.0, tls, listener).await;
        }
    }

    /// Serves one incoming connection over TLS to its end, from its handshake on.
    pub async fn serve_secure_connection<S>(&self, stream: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if let Some(tls) = self.0.tls.get() {
            doors::serve_secure(&self.0, tls, stream, peer.ip()).await;
        }
    }

    /// Accepts connections until dropped; each becomes a task of the current runtime.
    pub async fn listen(&self, listener: TcpListener) {
        doors::listen(&self.0, listener).await;
    }

    /// Serves one incoming connection to its end.
    pub async fn serve_connection<S>(&self, stream: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        doors::serve(&self.0, stream, peer.ip()).await;
    }

    /// Makes our path URI for one side, before any SDP leaves (IM-067). A side reserved before gets a new one.
    ///
    /// # Errors
    /// [`Full`] at `msrp.max_sessions`.
    pub fn reserve(&self, side: Side) -> Result<String, Full> {
        self.reserve_for(side, None)
    }

    /// The same for a peer whose address is of that kind (ISC-064).
    ///
    /// # Errors
    /// [`Full`] at `msrp.max_sessions`.
    pub fn reserve_for(&self, side: Side, family: Option<Family>) -> Result<String, Full> {
        self.reserve_end(side, family, false).map(|end| end.path.as_str().to_owned())
    }

    /// Our end of one side's session as SDP tells it, over TLS if `secure`: then with the fingerprints of the
    /// certificates we may show, the hash of one of which the peer will find (MS-112).
    ///
    /// # Errors
    /// [`Full`] at `msrp.max_sessions`, and without TLS where TLS is asked for.
    pub fn reserve_end(
        &self,
        side: Side,
        family: Option<Family>,
        secure: bool,
    ) -> Result<End, Full> {
        self.release(side);
        self.make(side, family, secure).map(|(_, end)| end)
    }

    /// The peer of an agreed session has a new path: a new session with our new path URI, which goes on where the old one
    /// stands. `None` for a side without an agreed session.
    ///
    /// MS-016 (RFC 4975 §5.4, §8.4): the old URI is dead once the new session is bound. A recipient gets what it has not
    /// acknowledged under the same Message-ID; what the originator still sends the old way is taken.
    ///
    /// # Errors
    /// [`Full`] at `msrp.max_sessions`; the old session goes on.
    pub fn renew(&self, side: Side, peer: PeerMedia) -> Result<Option<End>, Full> {
        let shared = &self.0;
        let Some(old) = shared.side(side) else { return Ok(None) };
        if matches!(old.lock().session.part, Part::Reserved { .. }) {
            return Ok(None);
        }
        let family = peer.path.first().and_then(|hop| Family::of(hop.bare_host()));
        let (cell, end) = self.make(side, family, peer.proof.is_some())?;
        let own = cell.lock().session.own().clone();
        let (part, told, earlier) = {
            let mut guarded = old.lock();
            let guarded = &mut *guarded;
            let part = match &mut guarded.session.part {
                Part::Leg { send, .. } => Part::Leg {
                    send: send.hand_over(now(), &own, &peer),
                    receive: FromRecipient::default(),
                },
                part => {
                    guarded.heir = Some(Arc::clone(&cell));
                    std::mem::replace(part, Part::Reserved { leg: false })
                }
            };
            if let Some(handle) = &guarded.handle {
                handle.ready(&old);
            }
            let held = std::mem::take(&mut guarded.held);
            (part, (guarded.settled, guarded.confirmed, held), guarded.before.take())
        };
        if let Some(earlier) = earlier {
            shared.release(&earlier);
        }
        {
            let mut guarded = cell.lock();
            (guarded.settled, guarded.confirmed, guarded.held) = told;
            guarded.before = Some(old);
        }
        let by = now() + shared.settings.bind_timeout;
        self.agree(&cell, peer, part, Some(by));
        Ok(Some(end))
    }

    fn make(
        &self,
        side: Side,
        family: Option<Family>,
        secure: bool,
    ) -> Result<(Arc<Cell>, End), Full> {
        let shared = &self.0;
        let id: SessionId = random();
        let announced = match shared.tls.get().filter(|_| secure) {
            Some(tls) => Some(tls.announce()),
            None if secure => {
                tracing::error!(%side, "MS-112: a session over TLS where there is no TLS (msrp.tls.listen)");
                return Err(Full);
            }
            None => None,
        };
        let (host, port) = match secure {
            true => shared.settings.told_secure(family),
            false => shared.settings.told(family),
        };
        let own = MsrpUri::own(secure, host, port, &String::from_utf8_lossy(&id))
            .expect("host and port come from a checked configuration, the id from our alphabet");
        let (fingerprints, promise) = match announced {
            Some(announced) => (announced.fingerprints, Some(announced.promise)),
            None => (Vec::new(), None),
        };
        let end = End { path: own.clone(), fingerprints };
        if lock(&shared.sessions).len() >= shared.settings.max_sessions {
            tracing::warn!(%side, "MS-115: no MSRP session left (msrp.max_sessions)");
            return Err(Full);
        }
        let mut pages = lock(&shared.pages);
        let page = pages.entry(side.page()).or_insert_with(|| Page {
            spool: shared.spools.open(side.page().to_string()),
            originator: None,
            legs: HashMap::new(),
        });
        let cell = Arc::new(Cell {
            side,
            spool: Arc::clone(&page.spool),
            queued: false.into(),
            place: 0.into(),
            asked: 0.into(),
            inner: Mutex::new(Guarded {
                session: Session::reserved(side, own),
                handle: None,
                waker: None,
                proof: None,
                promise,
                early: Vec::new(),
                released: false,
                settled: false,
                held: None,
                confirmed: false,
                before: None,
                heir: None,
            }),
        });
        match side {
            Side::Originator(_) => page.originator = Some(Arc::clone(&cell)),
            Side::Leg(leg) => {
                page.legs.insert(leg.n, Arc::clone(&cell));
            }
        }
        drop(pages);
        lock(&shared.sessions).insert(id, Arc::clone(&cell));
        Ok((cell, end))
    }

    /// The originator's SDP is agreed: it may bind and send what `accept` and `rules` allow. Where it is the one to
    /// connect, nobody waits for it before [`Switch::await_originator`].
    pub fn open_originator(
        &self,
        page: PageId,
        peer: PeerMedia,
        accept: AcceptTypes,
        rules: PageRules,
    ) {
        let shared = &self.0;
        let Some(cell) = shared.side(Side::Originator(page)) else { return };
        let settings = Arc::clone(&shared.settings);
        let part =
            Part::Originator(Incoming::new(settings, accept, rules, Arc::clone(&cell.spool)));
        let by = (peer.role == Role::Active).then(|| now() + shared.settings.bind_timeout);
        self.agree(&cell, peer, part, by);
    }

    /// The originator has acknowledged our answer: from now on it is late if it does not connect.
    ///
    /// MS-035: `bind_timeout` counts from the ACK; our answer may have waited in a 183 until somebody joined.
    pub fn await_originator(&self, page: PageId) {
        let shared = &self.0;
        let Some(cell) = shared.side(Side::Originator(page)) else { return };
        let by = now() + shared.settings.bind_timeout;
        let mut guarded = cell.lock();
        if guarded.session.bind_by.is_none() {
            guarded.session.bind_by = Some(by);
            drop(guarded);
            shared.watch_bind(&cell, by);
        }
    }

    /// The originator's whole page is kept, or cannot be: what waited for it is written.
    ///
    /// IM-072: the response to the last chunk and the success REPORT say that the page will be delivered.
    pub fn confirm(&self, page: PageId, kept: bool) {
        let Some(cell) = self.0.side(Side::Originator(page)) else { return };
        let mut guarded = cell.lock();
        let guarded = &mut *guarded;
        guarded.confirmed = true;
        let held = std::mem::take(&mut guarded.held);
        if !kept && let Part::Originator(incoming) = &mut guarded.session.part {
            incoming.not_kept();
        }
        if let Some(handle) = &guarded.handle {
            let Held { kept: taken, lost } = held.map(|held| *held).unwrap_or_default();
            let frame = if kept { taken } else { lost };
            handle.nudge(Nudge::Frame(frame.freeze(), Arc::clone(&cell)));
        }
    }

    /// The octets of a page that is whole, to be kept.
    pub fn body(&self, page: PageId) -> Option<Body> {
        let spool = Arc::clone(&lock(&self.0.pages).get(&page)?.spool);
        spool.whole()?;
        let about = spool.about()?.clone();
        Some(Body { about, spool })
    }

    /// Takes a page back that was kept. Waits for room in the spools, at most `msrp.full_timeout`.
    ///
    /// # Errors
    /// There is no room, or a page of this name is here.
    pub async fn restore(
        &self,
        page: PageId,
        about: About,
        octets: Vec<Bytes>,
    ) -> Result<(), Full> {
        let shared = &self.0;
        let spool = {
            let mut pages = lock(&shared.pages);
            if pages.contains_key(&page) {
                return Err(Full);
            }
            let spool = shared.spools.open(page.to_string());
            let kept = Page { spool: Arc::clone(&spool), originator: None, legs: HashMap::new() };
            pages.insert(page, kept);
            spool
        };
        let filled = tokio::time::timeout(shared.settings.full_timeout, async {
            let mut at = 0;
            for piece in octets {
                loop {
                    let room = shared.spools.room().notified();
                    if spool.write(at, &piece).is_ok() {
                        break;
                    }
                    room.await;
                }
                at += piece.len() as u64;
            }
            at
        });
        let done = filled.await.is_ok_and(|size| {
            let whole = spool.finish(size).is_ok();
            spool.publish(about, size);
            whole
        });
        if !done {
            lock(&shared.pages).remove(&page);
            return Err(Full);
        }
        Ok(())
    }

    /// A recipient's SDP is agreed: connect or wait, then send the page from octet 1.
    pub fn join(&self, leg: LegId, peer: PeerMedia) {
        self.join_with(leg, peer, None);
    }

    /// The same; bare content may be wrapped for a recipient that takes only `message/cpim` (MS-098).
    pub fn join_with(&self, leg: LegId, peer: PeerMedia, envelope: Option<Envelope>) {
        let shared = &self.0;
        let Some(cell) = shared.side(Side::Leg(leg)) else { return };
        let own = cell.lock().session.own().clone();
        let mut send = Outgoing::new(
            now(),
            Arc::clone(&shared.settings),
            Arc::clone(&cell.spool),
            u32::from(leg.n),
            &own,
            &peer,
            random_text::<20>(),
        );
        if let Some(envelope) = envelope {
            send.may_wrap(envelope);
        }
        let by = now() + shared.settings.bind_timeout;
        let part = Part::Leg { send, receive: FromRecipient::default() };
        self.agree(&cell, peer, part, Some(by));
    }

    fn agree(&self, cell: &Arc<Cell>, peer: PeerMedia, part: Part, by: Option<Instant>) {
        let shared = &self.0;
        let stranger = {
            let mut guarded = cell.lock();
            guarded.proof.clone_from(&peer.proof);
            let early = guarded.session.bound_to().is_some();
            let stranger =
                if guarded.session.agree(&peer, part, by) { None } else { guarded.handle.take() };
            guarded.look_again();
            if early && stranger.is_none() {
                // The peer was faster than its answer (MS-025).
                let told =
                    Told { originator: vec![OriginatorMedia::Bound], leg: vec![LegMedia::Bound] };
                shared.tell(&guarded, told);
                if let Some(handle) = &guarded.handle {
                    handle.ready(cell);
                }
                return;
            }
            stranger
        };
        if let Some(handle) = stranger {
            handle.nudge(Nudge::Detach(Arc::clone(cell)));
        }
        if peer.role == Role::Active {
            dial::connect(shared, Arc::clone(cell), &peer);
        } else if let Some(by) = by {
            shared.watch_bind(cell, by);
        }
    }

    /// No more octets on that side; a running chunk ends with `#` (MS-090).
    pub fn abort(&self, side: Side) {
        let shared = &self.0;
        let Some(cell) = shared.side(side) else { return };
        let mut guarded = cell.lock();
        let guarded = &mut *guarded;
        let mut told = Told::default();
        match &mut guarded.session.part {
            Part::Reserved { .. } => {
                told.leg.push(LegMedia::Quiet);
                told.originator.push(OriginatorMedia::Settled);
            }
            Part::Originator(page) => {
                // The engine knows.
                page.lose(PageLoss::Refused(413), &mut Vec::new());
                match &guarded.handle {
                    Some(handle) => handle.nudge(Nudge::Frame(Bytes::new(), Arc::clone(&cell))),
                    None => told.originator.push(OriginatorMedia::Settled),
                }
            }
            Part::Leg { send, .. } => {
                send.abort();
                match &guarded.handle {
                    Some(handle) => handle.ready(&cell),
                    None => send.settle(now(), &mut told.leg),
                }
            }
        }
        shared.tell(guarded, told);
    }

    /// REPORT to the originator about the whole page (MS-089): a failure, or with 200 the success that
    /// `sr_policy = first_delivery` waits for. What was not asked for, or contradicts an earlier one, is not sent.
    pub fn report(&self, page: PageId, code: u16, text: &str) {
        let Some(cell) = self.0.side(Side::Originator(page)) else { return };
        let mut guarded = cell.lock();
        let guarded = &mut *guarded;
        let Part::Originator(incoming) = &mut guarded.session.part else { return };
        let Some(handle) = &guarded.handle else { return };
        let frame = match incoming.report(code) {
            Some(owed) => {
                guarded.settled = false;
                report_frame(&owed, guarded.session.own(), code, text)
            }
            None => Bytes::new(),
        };
        handle.nudge(Nudge::Frame(frame, Arc::clone(&cell)));
    }

    /// The side's URI is dead at once (MS-005). A running chunk ends with `#`; the connection lingers.
    pub fn release(&self, side: Side) {
        let shared = &self.0;
        let cell = {
            let mut pages = lock(&shared.pages);
            let Some(page) = pages.get_mut(&side.page()) else { return };
            match side {
                Side::Originator(_) => page.originator.take(),
                Side::Leg(leg) => page.legs.remove(&leg.n),
            }
        };
        if let Some(cell) = cell {
            shared.release(&cell);
        }
    }

    /// Releases every side of the page and drops its octets.
    pub fn forget(&self, page: PageId) {
        let removed = lock(&self.0.pages).remove(&page);
        let Some(page) = removed else { return };
        for cell in page.originator.iter().chain(page.legs.values()) {
            self.0.release(cell);
        }
    }

    /// Octets of the page this recipient has acknowledged; 0 once it is released.
    pub fn progress(&self, leg: LegId) -> u64 {
        let Some(cell) = self.0.side(Side::Leg(leg)) else { return 0 };
        match &cell.lock().session.part {
            Part::Leg { send, .. } => send.acknowledged(),
            Part::Reserved { .. } | Part::Originator(_) => 0,
        }
    }

    /// What is held and moved.
    pub fn stats(&self) -> Stats {
        let shared = &self.0;
        let counters = &shared.counters;
        let spools = shared.spools.stats();
        Stats {
            pages: lock(&shared.pages).len() as u64,
            sessions: lock(&shared.sessions).len() as u64,
            connections: counters.connections.load(Ordering::Relaxed) as u64,
            unbound: counters.unbound.load(Ordering::Relaxed) as u64,
            spool_octets: spools.octets,
            spool_memory: spools.memory,
            spool_files: spools.files,
            octets_in: counters.octets_in.load(Ordering::Relaxed),
            octets_out: counters.octets_out.load(Ordering::Relaxed),
            control_messages: counters.control.load(Ordering::Relaxed),
            connections_refused: counters.refused.load(Ordering::Relaxed),
            handshakes_failed: counters.handshakes_failed(),
            overlapped: counters.overlapped.load(Ordering::Relaxed),
        }
    }
}

/// MS-072.
pub(super) fn report_frame(owed: &Owed, own: &MsrpUri, code: u16, text: &str) -> Bytes {
    let mut out = BytesMut::new();
    codec::report(
        &mut out,
        &codec::Report {
            id: &random::<16>(),
            to_path: &owed.to_path,
            from: own.as_str(),
            message_id: &owed.message_id,
            octets: owed.octets,
            total: owed.total,
            code,
            text,
        },
    );
    out.freeze()
}

/// MS-035: looks after those to whom nobody came.
async fn bind_watch(shared: Weak<Shared>, mut by: Instant) {
    loop {
        tokio::time::sleep_until(by.into()).await;
        let Some(shared) = shared.upgrade() else { return };
        match shared.check_binds() {
            Some(next) => by = next,
            None => return,
        }
    }
}
