//! Connections: one task each, generic over the stream.
//!
//! Start at [`Connection::run`]; `doors` and `dial` make connections. One reads into its decoder, lets sessions answer,
//! and fills its frames: answers and REPORTs first, then the sessions in turn. What waits for the socket is bounded, the
//! page itself stays in the spool. Decides nothing a session could decide.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::futures::Notified;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use super::Side;
use super::buffers::Intake;
use super::codec::{self, Decoder, Flag, Head, Kind, Piece};
use super::doors::Door;
use super::frames::{Frames, SLICES};
use super::session::{Part, Step, TxId, Verdict, may_answer};
use super::switch::{Cell, Shared, Told, Vetted, now, random, report_frame};
use super::tap::{self, Ends, Outlet};
use super::tls::{Failure, Shown};
use crate::content::msrp_uri::MsrpUri;
use crate::engine::input::{LegMedia, MediaFailure, OriginatorMedia, PageLoss};

/// Chunks of ours are not made smaller than this if it can be helped (MS-055).
const SMALL: u64 = 2048;
/// Reads in a row, after one that brought a lot, before answers are written.
const EAGER: u8 = 3;
/// Octets of such a read.
const PLENTY: usize = 16 * 1024;
/// Octets read before others have their turn, while these are still in the processor's cache.
const BURST: usize = 512 * 1024;
/// MS-035: failed requests without a success before an incoming connection is closed.
const FAILURES: u8 = 3;

/// What the rest of the switch knows of a connection.
pub(super) struct Handle {
    pub id: u64,
    inbox: Mutex<Inbox>,
    /// Sessions bound here.
    pub sessions: AtomicUsize,
    /// MS-091: over 80 % of its write buffer is waiting.
    pub congested: AtomicBool,
}

#[derive(Default)]
struct Inbox {
    nudges: Vec<Nudge>,
    /// The connection's task, when it waits.
    waker: Option<Waker>,
    closed: bool,
}

/// What a connection is asked to do for a session.
pub(super) enum Nudge {
    /// It may have something to write.
    Ready(Arc<Cell>),
    /// It uses this connection from now on (MS-029).
    Attach(Arc<Cell>),
    /// It has ended.
    Detach(Arc<Cell>),
    /// A session it waits for may be known now (MS-112).
    Look,
    /// Write this, then tell the originator's session that it is settled. An empty frame only asks for the latter.
    Frame(Bytes, Arc<Cell>),
}

impl Handle {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // A push cannot leave it half changed.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a message for the connection's task; returns it if that has ended.
    pub fn offer(&self, nudge: Nudge) -> Option<Nudge> {
        let mut inbox = self.lock();
        if inbox.closed {
            return Some(nudge);
        }
        inbox.nudges.push(nudge);
        let waker = inbox.waker.take();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
        None
    }

    /// Ready when there is a message for the connection's task.
    fn poll_nudged(&self, context: &Context<'_>) -> Poll<()> {
        let mut inbox = self.lock();
        if !inbox.nudges.is_empty() {
            return Poll::Ready(());
        }
        match &mut inbox.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Leaves a message for the connection's task, if it still runs.
    pub fn nudge(&self, nudge: Nudge) {
        drop(self.offer(nudge));
    }

    /// The session may have something to write; told once until it had its turn.
    pub fn ready(&self, cell: &Arc<Cell>) {
        if !cell.queued.swap(true, Ordering::AcqRel) {
            self.nudge(Nudge::Ready(Arc::clone(cell)));
        }
    }
}

/// Wakes a recipient's session when its page has more octets.
pub(super) struct LegWaker {
    cell: Weak<Cell>,
    handle: Weak<Handle>,
}

impl LegWaker {
    pub fn waker(cell: &Arc<Cell>, handle: &Arc<Handle>) -> Waker {
        let waker = Self { cell: Arc::downgrade(cell), handle: Arc::downgrade(handle) };
        Waker::from(Arc::new(waker))
    }
}

impl Wake for LegWaker {
    fn wake(self: Arc<Self>) {
        if let (Some(cell), Some(handle)) = (self.cell.upgrade(), self.handle.upgrade()) {
            handle.ready(&cell);
        }
    }
}

/// The SEND or other request whose octets are coming in.
struct Current {
    head: Box<Head>,
    /// The session that takes it; `None` when it is only read past.
    cell: Option<Arc<Cell>>,
    /// Of its body, so far.
    octets: u64,
}

/// A place in the outgoing stream where somebody wants to know that it is written.
struct Mark {
    at: u64,
    cell: Arc<Cell>,
    settled: bool,
}

/// Answers and REPORTs that are to be written before anything else; nothing while there are none.
#[derive(Default)]
struct Control(Option<Box<Answers>>);

#[derive(Default)]
struct Answers {
    text: BytesMut,
    /// Octets of each in `text`, and the session that is settled with it.
    frames: VecDeque<(usize, Option<Arc<Cell>>)>,
}

impl Control {
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |answers| answers.frames.len())
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn write(&mut self, settles: Option<Arc<Cell>>, write: impl FnOnce(&mut BytesMut)) {
        let Answers { text, frames } = &mut **self.0.get_or_insert_default();
        let before = text.len();
        write(text);
        frames.push_back((text.len() - before, settles));
    }

    fn push(&mut self, frame: &[u8], settles: Option<Arc<Cell>>) {
        self.write(settles, |text| text.extend_from_slice(frame));
    }
}

/// Octets the spool has no room for (MS-092).
struct Blocked {
    octets: Bytes,
    plain: bool,
    until: Instant,
}

/// What is being read from disk.
struct Loading {
    cell: Arc<Cell>,
    at: u64,
    read: JoinHandle<io::Result<Bytes>>,
    /// Sessions that need the disk meanwhile.
    queue: Vec<Arc<Cell>>,
}

/// The chunk some session is writing.
struct Writing {
    cell: Arc<Cell>,
    /// Octets since it got its turn (MS-058).
    used: u64,
    /// It waits for its page or the disk.
    idle: bool,
}

/// What TLS adds to a connection.
pub(super) enum Secured {
    /// What the peer has shown; each session it binds has to agree.
    By(Shown),
    /// It has shown what it must not: ended by an alert.
    Refused,
}

pub(super) struct Connection {
    shared: Arc<Shared>,
    pub handle: Arc<Handle>,
    door: Option<Door>,
    decoder: Decoder,
    out: Frames,
    /// Not yet in `out`.
    control: Control,
    sessions: Vec<Arc<Cell>>,
    turn: VecDeque<Arc<Cell>>,
    writing: Option<Writing>,
    transactions: HashMap<TxId, Arc<Cell>>,
    marks: VecDeque<Mark>,
    loading: Option<Box<Loading>>,
    current: Option<Current>,
    blocked: Option<Box<Blocked>>,
    failures: u8,
    /// Nothing more is read; closed when everything is written, at this time at the latest.
    closing: Option<Instant>,
    /// Closed at once.
    dead: bool,
    intake: Intake,
    head_since: Option<Instant>,
    /// Since when no session is bound here; at first, since it was accepted.
    alone_since: Option<Instant>,
    was_bound: bool,
    /// The socket takes all it is given: nothing waits, and it is given more at once.
    ample: bool,
    /// Something was written since the stream was last flushed.
    unflushed: bool,
    wake_at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Reads in a row.
    eager: u8,
    /// Octets read since others had their turn.
    burst: usize,
    /// Over TLS: what the peer has shown.
    pub secured: Option<Secured>,
    /// The head of a request whose session's peer is not known yet; nothing is read meanwhile (MS-112).
    held: Option<Box<Head>>,
    /// Both addresses, for call flows.
    ends: Option<Box<Ends>>,
}

impl Connection {
    /// One that came in between `ends`.
    pub fn behind(shared: &Arc<Shared>, door: Door, ends: Option<Ends>) -> Box<Self> {
        let mut connection = Self::new(shared, Some(door));
        connection.know(ends);
        connection
    }

    /// It runs between `ends`.
    pub fn know(&mut self, ends: Option<Ends>) {
        // Only call flows ask for them.
        self.ends = ends.filter(|_| self.shared.tap.get().is_some()).map(Box::new);
    }

    pub fn new(shared: &Arc<Shared>, door: Option<Door>) -> Box<Self> {
        shared.counters.connections.fetch_add(1, Ordering::Relaxed);
        let handle = Handle {
            id: shared.counters.next_connection.fetch_add(1, Ordering::Relaxed) + 1,
            inbox: Mutex::default(),
            sessions: AtomicUsize::new(0),
            congested: AtomicBool::new(false),
        };
        Box::new(Self {
            decoder: Decoder::new(shared.settings.decoder()),
            shared: Arc::clone(shared),
            handle: Arc::new(handle),
            door,
            out: Frames::watched(
                Arc::clone(&shared.buffers),
                shared.tap.get().map(|_| Outlet::default()),
            ),
            control: Control::default(),
            sessions: Vec::new(),
            turn: VecDeque::new(),
            writing: None,
            transactions: HashMap::new(),
            marks: VecDeque::new(),
            loading: None,
            current: None,
            blocked: None,
            failures: 0,
            closing: None,
            dead: false,
            intake: Intake::default(),
            head_since: None,
            alone_since: Some(now()),
            was_bound: false,
            ample: false,
            unflushed: false,
            wake_at: None,
            timer: None,
            eager: 0,
            burst: 0,
            secured: None,
            held: None,
            ends: None,
        })
    }

    /// Serves until the end, and closes. The stream comes back open if the peer is to be told that its certificate is not
    /// the right one.
    pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        mut self: Box<Self>,
        mut stream: S,
    ) -> Option<S> {
        let shared = Arc::clone(&self.shared);
        loop {
            let mut room = self.blocked.is_some().then(|| {
                // Before the spool is asked, so that room made meanwhile is noticed.
                let mut room = Box::pin(shared.spools.room().notified());
                room.as_mut().enable();
                room
            });
            let time = now();
            self.take_nudges(time);
            self.process(time);
            self.on_time(time);
            self.fill(time);
            self.flushed(time);
            if self.dead
                || (self.closing.is_some() && self.out.is_empty() && self.control.is_empty())
            {
                break;
            }
            if self.blocked.is_some() && room.is_none() {
                continue;
            }
            let room = &mut room;
            poll_fn(|context| {
                self.poll(context, &mut stream, room.as_mut().map(|room| room.as_mut()))
            })
            .await;
        }
        self.end();
        if matches!(self.secured, Some(Secured::Refused)) {
            return Some(stream);
        }
        // Best effort: the peer may be gone.
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await;
        None
    }

    /// Reads and writes what can be read and written; ready when something has happened.
    fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
        room: Option<Pin<&mut Notified<'_>>>,
    ) -> Poll<()> {
        let mut happened = self.handle.poll_nudged(context).is_ready()
            | room.is_some_and(|room| room.poll(context).is_ready())
            | self.poll_loading(context).is_ready()
            | self.poll_due(context).is_ready();
        let mut reads = self.closing.is_none() && !self.waits() && !self.flooded();
        if reads && self.burst >= BURST {
            self.burst = 0;
            context.waker().wake_by_ref();
        } else if reads {
            let buffer = self.decoder.buffer();
            match self.intake.poll_read(context, stream, buffer, &self.shared.buffers) {
                Poll::Pending => (self.burst, reads) = (0, false),
                Poll::Ready(Ok(octets)) if octets > 0 => {
                    self.shared.counters.octets_in.fetch_add(octets as u64, Ordering::Relaxed);
                    self.burst += octets;
                    happened = true;
                    if octets >= PLENTY && self.eager < EAGER {
                        // More is there in all likelihood: one write for its answers is cheaper than one for each.
                        self.eager += 1;
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => (self.dead, happened) = (true, true),
            }
        }
        self.eager = 0;
        if let Poll::Ready(written) = self.poll_write(context, stream) {
            match written {
                Ok(0) | Err(_) => self.dead = true,
                Ok(octets) => self.wrote(octets),
            }
            happened = true;
        }
        if happened {
            return Poll::Ready(());
        }
        if !reads {
            self.rest();
        }
        Poll::Pending
    }

    /// Ready with how much the stream has taken. What TLS has taken it writes when asked again.
    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        if self.out.is_empty() {
            if self.secured.is_some() && self.unflushed {
                ready!(Pin::new(stream).poll_flush(context))?;
                self.unflushed = false;
            }
            return Poll::Pending;
        }
        let mut slices = [IoSlice::new(b""); SLICES];
        let used = self.out.slices(&mut slices);
        Pin::new(stream).poll_write_vectored(context, &slices[..used])
    }

    fn poll_loading(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(loading) = &mut self.loading else { return Poll::Pending };
        let octets = ready!(Pin::new(&mut loading.read).poll(context));
        self.on_loaded(octets.unwrap_or_else(|error| Err(error.into())));
        Poll::Ready(())
    }

    /// Ready when something is due.
    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.next_due() else {
            self.timer = None;
            return Poll::Pending;
        };
        let due = tokio::time::Instant::from_std(due);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        // One that is too early is looked at then.
        if due < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(context)
    }

    /// Holds no memory that only busy connections need.
    fn rest(&mut self) {
        if !self.out.is_empty() || !self.control.is_empty() {
            return;
        }
        self.out.rest();
        self.control = Control::default();
        if self.marks.is_empty() && self.marks.capacity() > 0 {
            self.marks = VecDeque::new();
        }
        if self.turn.is_empty() && self.turn.capacity() > 0 {
            self.turn = VecDeque::new();
        }
        if self.transactions.is_empty() && self.transactions.capacity() > 0 {
            self.transactions = HashMap::new();
        }
    }

    /// Nothing more is read for now.
    fn waits(&self) -> bool {
        self.blocked.is_some() || self.held.is_some()
    }

    fn flooded(&self) -> bool {
        self.control.len() >= self.shared.settings.max_in_flight
    }

    fn wrote(&mut self, octets: usize) {
        self.shared.counters.octets_out.fetch_add(octets as u64, Ordering::Relaxed);
        let all = octets == self.out.len();
        self.ample = all && (self.ample || octets >= self.write_buffer() / 2);
        self.out.advance(octets);
        self.unflushed = true;
        let time = now();
        if let Some(mark) = self.marks.front()
            && let Part::Leg { send, .. } = &mut mark.cell.lock().session.part
        {
            send.moving(time);
        }
    }

    fn write_buffer(&self) -> usize {
        usize::try_from(self.shared.settings.write_buffer).unwrap_or(usize::MAX)
    }

    fn take_nudges(&mut self, time: Instant) {
        let nudges = std::mem::take(&mut self.handle.lock().nudges);
        for nudge in nudges {
            match nudge {
                Nudge::Ready(cell) => self.enqueue(cell),
                Nudge::Attach(cell) => self.attach(cell),
                Nudge::Detach(cell) => self.detach(&cell, time),
                // `process` does.
                Nudge::Look => {}
                Nudge::Frame(frame, cell) => self.control.push(&frame, Some(cell)),
            }
        }
    }

    /// Puts a session that is marked as queued into the turn.
    fn enqueue(&mut self, cell: Arc<Cell>) {
        match &mut self.writing {
            Some(writing) if Arc::ptr_eq(&writing.cell, &cell) => {
                cell.queued.store(false, Ordering::Release);
                writing.idle = false;
            }
            _ => self.turn.push_back(cell),
        }
    }

    fn again(&mut self, cell: &Arc<Cell>) {
        if !cell.queued.swap(true, Ordering::AcqRel) {
            self.enqueue(Arc::clone(cell));
        }
    }

    /// A session we are the active side of.
    pub fn attach(&mut self, cell: Arc<Cell>) {
        {
            let mut guarded = cell.lock();
            if guarded.released {
                return;
            }
            let guarded = &mut *guarded;
            guarded.session.bind(self.handle.id);
            if let Part::Leg { send, .. } = &mut guarded.session.part {
                send.greet();
            }
        }
        self.bound(&cell);
        self.again(&cell);
    }

    /// The session is bound here: tells so.
    fn bound(&mut self, cell: &Arc<Cell>) {
        cell.place.store(self.sessions.len(), Ordering::Relaxed);
        self.sessions.push(Arc::clone(cell));
        self.handle.sessions.store(self.sessions.len(), Ordering::Relaxed);
        self.was_bound = true;
        self.alone_since = None;
        if let Some(door) = &mut self.door {
            door.bound();
        }
        let before = cell.lock().before.take();
        if let Some(before) = before {
            // MS-016.
            self.shared.release(&before);
        }
        let mut guarded = cell.lock();
        guarded.handle = Some(Arc::clone(&self.handle));
        guarded.promise = None;
        if let Side::Leg(_) = cell.side {
            guarded.waker = Some(LegWaker::waker(cell, &self.handle));
        }
        if !matches!(guarded.session.part, Part::Reserved { .. }) {
            let told =
                Told { originator: vec![OriginatorMedia::Bound], leg: vec![LegMedia::Bound] };
            self.shared.tell(&guarded, told);
        }
    }

    fn detach(&mut self, cell: &Arc<Cell>, time: Instant) {
        if self.writing.as_ref().is_some_and(|w| Arc::ptr_eq(&w.cell, cell)) {
            // MS-067: whatever runs on this connection after it needs the chunk to end.
            if let Part::Leg { send, .. } = &mut cell.lock().session.part {
                send.abort();
            }
            self.step(cell, 1, time);
            self.writing = None;
        }
        self.remove(cell);
        if cell.queued.load(Ordering::Acquire) {
            self.turn.retain(|c| !Arc::ptr_eq(c, cell));
        }
        if let Some(loading) = &mut self.loading {
            loading.queue.retain(|c| !Arc::ptr_eq(c, cell));
        }
        if cell.asked.load(Ordering::Relaxed) > 0 {
            self.transactions.retain(|_, c| !Arc::ptr_eq(c, cell));
        }
        self.handle.sessions.store(self.sessions.len(), Ordering::Relaxed);
        if self.sessions.is_empty() {
            self.alone_since = Some(time);
        }
    }

    /// Takes it out of the list of sessions.
    fn remove(&mut self, cell: &Arc<Cell>) {
        let is = |other: &Arc<Cell>| Arc::ptr_eq(other, cell);
        let place = cell.place.load(Ordering::Relaxed);
        let at = match self.sessions.get(place).filter(|other| is(other)) {
            Some(_) => Some(place),
            // It has been bound to another connection meanwhile.
            None => self.sessions.iter().position(is),
        };
        if let Some(at) = at {
            self.sessions.swap_remove(at);
            if let Some(moved) = self.sessions.get(at) {
                moved.place.store(at, Ordering::Relaxed);
            }
        }
    }

    /// Takes what the decoder holds, as far as there is room for answers and octets.
    fn process(&mut self, time: Instant) {
        if let Some(blocked) = self.blocked.take() {
            let Blocked { octets, plain, until } = *blocked;
            self.on_body(octets, plain, Some(until), time);
        }
        if let Some(head) = self.held.take() {
            self.on_head(head, time);
        }
        while !self.waits() && !self.flooded() && self.closing.is_none() && !self.dead {
            match self.decoder.next() {
                Ok(Some(Piece::Head(head))) => self.on_head(head, time),
                Ok(Some(Piece::Body(octets))) => {
                    let plain = self.decoder.is_plain();
                    self.on_body(octets, plain, None, time);
                }
                Ok(Some(Piece::End(flag))) => self.on_end(flag, time),
                Ok(None) => break,
                Err(lost) => {
                    tracing::info!(
                        what = lost.what,
                        "MS-052: MSRP framing lost, connection closed"
                    );
                    self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
                    if let Some(head) = &lost.answer {
                        self.answer(head, 400);
                    }
                    self.close(time);
                }
            }
        }
        if !self.decoder.in_head() {
            self.head_since = None;
        } else if self.head_since.is_none() {
            self.head_since = Some(time);
        }
    }

    fn on_head(&mut self, head: Box<Head>, time: Instant) {
        let mut cell = None;
        match head.kind {
            Kind::Response(code) => {
                if let Ok(id) = TxId::try_from(&head.id[..])
                    && let Some(cell) = self.transactions.remove(&id)
                {
                    cell.asked.fetch_sub(1, Ordering::Relaxed);
                    self.with_leg(&cell, |send, told| send.response(time, &id, code, told));
                }
            }
            // MS-072, MS-075: never answered, silently ignored if it fits nothing.
            Kind::Report => {
                let found = head.to_path.first().and_then(|uri| self.shared.find(uri));
                if let Some(cell) = found.filter(|cell| self.is_bound(cell)) {
                    self.with_leg(&cell, |send, told| send.report(time, &head, told));
                }
            }
            _ if head.problem.is_some() => {
                tracing::info!(what = head.problem, "MSRP request answered 400");
                self.refuse(&head, 400, time);
            }
            // MS-107: no nicknames in pager mode.
            Kind::Nickname => self.refuse(&head, 403, time),
            // MS-049.
            Kind::Unknown => self.refuse(&head, 501, time),
            Kind::Send if self.held(&head) => {
                self.held = Some(head);
                return;
            }
            Kind::Send => match self.on_send(&head, time) {
                Ok((found, Verdict::Take)) => {
                    self.failures = 0;
                    cell = Some(found);
                }
                Ok((found, Verdict::Skip(code))) => {
                    self.failures = 0;
                    self.answer(&head, code);
                    if let Some(taker) = found.taker() {
                        self.settle_if_over(&taker, &taker.lock());
                    }
                }
                Err(code) => self.refuse(&head, code, time),
            },
        }
        self.current = Some(Current { head, cell, octets: 0 });
    }

    /// Over TLS: whether the request has to wait until the peer of its session is known. Ends the connection, and the
    /// session, if the peer has shown somebody else's certificate.
    ///
    /// MS-112.
    fn held(&mut self, head: &Head) -> bool {
        let Some(Secured::By(shown)) = &self.secured else { return false };
        let cell = head.to_path.first().and_then(|uri| self.shared.find(uri));
        let (Some(cell), Some(tls)) = (cell, self.shared.tls.get()) else { return false };
        match cell.vet(shown, tls, &self.handle) {
            Vetted::Passes => false,
            Vetted::Waits => true,
            Vetted::Stranger => {
                let side = cell.side;
                tracing::info!(%side, rule = "MS-112", "certificate is not the one SDP spoke of, connection closed");
                self.shared.counters.handshake_failed(Failure::Certificate);
                self.shared.lost(&cell, PageLoss::Connection, MediaFailure::Connection);
                self.secured = Some(Secured::Refused);
                self.dead = true;
                true
            }
        }
    }

    /// Steps 4 to 13 of the receiving procedure.
    fn on_send(&mut self, head: &Head, time: Instant) -> Result<(Arc<Cell>, Verdict), u16> {
        // MS-112: a session over TLS is bound over TLS, and over nothing else.
        let to = head.to_path.first();
        if to.is_some_and(|uri| uri.is_secure() != self.secured.is_some()) {
            return Err(481);
        }
        let cell = head.to_path.first().and_then(|uri| self.shared.find(uri)).ok_or(481_u16)?;
        let full = self.sessions.len() >= self.shared.settings.max_sessions_per_connection;
        let newly = {
            let mut guarded = cell.lock();
            if full && guarded.session.is_free() {
                tracing::warn!("MS-115: too many sessions (msrp.max_sessions_per_connection)");
                return Err(413);
            }
            guarded.session.admit(self.handle.id, head)?
        };
        if newly {
            self.bound(&cell);
            self.again(&cell);
        }
        let taker = cell.taker().ok_or(481_u16)?;
        let mut guarded = taker.lock();
        let guarded = &mut *guarded;
        let mut told = Told::default();
        let verdict = match &mut guarded.session.part {
            Part::Reserved { .. } if head.has_body => Verdict::Skip(481),
            Part::Reserved { .. } => Verdict::Take,
            Part::Originator(page) => page.head(time, head, &mut told.originator),
            Part::Leg { receive, .. } => receive.head(head, self.shared.settings.max_message),
        };
        self.shared.tell(guarded, told);
        self.earlier(guarded.session.next_wake());
        Ok((Arc::clone(&cell), verdict))
    }

    fn on_body(&mut self, octets: Bytes, plain: bool, until: Option<Instant>, time: Instant) {
        let Some(current) = &mut self.current else { return };
        if until.is_none() {
            current.octets += octets.len() as u64;
        }
        let Some(cell) = current.cell.as_ref().and_then(Cell::taker) else { return };
        let mut guarded = cell.lock();
        let guarded = &mut *guarded;
        let mut told = Told::default();
        let verdict = match &mut guarded.session.part {
            Part::Reserved { .. } => Verdict::Take,
            Part::Originator(page) => match page.body(time, &octets, plain, &mut told.originator) {
                Ok(verdict) => {
                    self.intake.keeps(octets.len());
                    verdict
                }
                Err(spool) => {
                    // MS-092: stop reading; a shortage that lasts ends the page.
                    let until = until.unwrap_or(time + self.shared.settings.full_timeout);
                    if until > time {
                        self.blocked = Some(Box::new(Blocked { octets, plain, until }));
                        Verdict::Take
                    } else {
                        tracing::warn!(side = %cell.side, "MS-092: {spool} (msrp.spool_total), 413");
                        page.no_room(&mut told.originator)
                    }
                }
            },
            Part::Leg { receive, .. } => receive.body(&octets),
        };
        self.shared.tell(guarded, told);
        self.earlier(guarded.session.next_wake());
        if let Verdict::Skip(code) = verdict
            && let Some(current) = &mut self.current
        {
            current.cell = None;
            let head = current.head.clone();
            self.answer(&head, code);
            self.settle_if_over(&cell, guarded);
        }
    }

    fn on_end(&mut self, flag: Flag, time: Instant) {
        let Some(Current { head, cell, octets }) = self.current.take() else { return };
        self.tap_received(&head, octets, flag);
        let Some(cell) = cell.as_ref().and_then(Cell::taker) else { return };
        let mut guarded = cell.lock();
        let guarded = &mut *guarded;
        let mut told = Told::default();
        let counters = &self.shared.counters;
        let (mut report, mut of_page) = (None, false);
        let answer = match &mut guarded.session.part {
            Part::Reserved { .. } => may_answer(head.failure_report, 200).then_some(200),
            Part::Originator(page) => {
                let closing = page.end(time, flag, &mut told.originator);
                counters
                    .control
                    .fetch_add(std::mem::take(&mut page.control_seen), Ordering::Relaxed);
                let overlapped = std::mem::take(&mut page.overlapped);
                counters.overlapped.fetch_add(overlapped, Ordering::Relaxed);
                (report, of_page) = (closing.report, closing.of_whole);
                closing.answer
            }
            Part::Leg { receive, .. } => {
                let answer = receive.end(flag);
                let seen = std::mem::take(&mut receive.control_seen);
                counters.control.fetch_add(seen, Ordering::Relaxed);
                answer
            }
        };
        let report =
            report.map(|owed| report_frame(&owed, guarded.session.own(), 200, codec::comment(200)));
        let holds = of_page && self.shared.settings.await_confirmation && !guarded.confirmed;
        if holds {
            guarded.held.get_or_insert_default().add(&head, answer, report);
            self.shared.tell(guarded, told);
            return;
        }
        if let Some(code) = answer {
            self.push_answer(&head, code);
        }
        if let Some(frame) = report {
            self.control.push(&frame, None);
        }
        self.shared.tell(guarded, told);
        self.earlier(guarded.session.next_wake());
        self.settle_if_over(&cell, guarded);
    }

    /// Everything owed to an originator whose page is over is in `control` now.
    fn settle_if_over(&mut self, cell: &Arc<Cell>, guarded: &super::switch::Guarded) {
        if let Part::Originator(page) = &guarded.session.part
            && page.is_over()
        {
            self.control.push(b"", Some(Arc::clone(cell)));
        }
    }

    /// Copies a message that came in.
    fn tap_received(&self, head: &Head, octets: u64, flag: Flag) {
        if let Some(tap) = self.shared.tap.get()
            && let Some(cell) = head.to_path.first().and_then(|uri| self.shared.find(uri))
        {
            let text = tap::head_text(head);
            tap.crossed(
                cell.side,
                false,
                self.ends.as_deref().copied(),
                text.as_bytes(),
                octets,
                flag.octet(),
            );
        }
    }

    /// Copies the messages that were put into `out`.
    fn tap_sent(&mut self) {
        let Some(outlet) = &mut self.out.outlet else { return };
        let Some(tap) = self.shared.tap.get() else { return };
        for out in outlet.done.drain(..) {
            let own = out.own_uri().and_then(|uri| MsrpUri::parse(uri).ok());
            if let Some(cell) = own.and_then(|uri| self.shared.find(&uri)) {
                tap.crossed(
                    cell.side,
                    true,
                    self.ends.as_deref().copied(),
                    &out.head,
                    out.octets,
                    out.flag,
                );
            }
        }
    }

    fn is_bound(&self, cell: &Cell) -> bool {
        cell.lock().session.bound_to() == Some(self.handle.id)
    }

    /// Lets a recipient's copy change, then tells what follows from it.
    fn with_leg(
        &mut self,
        cell: &Arc<Cell>,
        change: impl FnOnce(&mut super::session::Outgoing, &mut Vec<LegMedia>),
    ) {
        let mut guarded = cell.lock();
        let guarded = &mut *guarded;
        let mut told = Told::default();
        if let Part::Leg { send, .. } = &mut guarded.session.part {
            change(send, &mut told.leg);
        }
        self.shared.tell(guarded, told);
        self.earlier(guarded.session.next_wake());
        // It may have a `#` to write.
        self.again(cell);
    }

    /// A request that found no session or made no sense (MS-035).
    fn refuse(&mut self, head: &Head, code: u16, time: Instant) {
        self.answer(head, code);
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES && self.sessions.is_empty() && self.door.is_some() {
            tracing::info!("MS-035: three failed requests, connection closed");
            self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            self.close(time);
        }
    }

    /// MS-069.
    fn answer(&mut self, head: &Head, code: u16) {
        if may_answer(head.failure_report, code) {
            self.push_answer(head, code);
        }
    }

    fn push_answer(&mut self, head: &Head, code: u16) {
        self.control.write(None, |out| codec::response(out, head, code));
    }

    fn earlier(&mut self, wake: Option<Instant>) {
        self.wake_at = [self.wake_at, wake].into_iter().flatten().min();
    }

    /// Timers of the connection and of its sessions.
    fn on_time(&mut self, time: Instant) {
        let settings = Arc::clone(&self.shared.settings);
        if self.head_since.is_some_and(|since| time >= since + settings.header_timeout) {
            tracing::info!("MS-114: header section took too long, connection closed");
            self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            self.dead = true;
        }
        if [self.alone_until(), self.closing].into_iter().flatten().any(|until| time >= until) {
            self.dead = true;
        }
        if self.wake_at.is_some_and(|at| at <= time) {
            self.wake_at = None;
            for cell in self.sessions.clone() {
                self.wake_session(&cell, time);
            }
        }
    }

    fn wake_session(&mut self, cell: &Arc<Cell>, time: Instant) {
        let mut guarded = cell.lock();
        let guarded = &mut *guarded;
        let mut told = Told::default();
        match &mut guarded.session.part {
            Part::Reserved { .. } => {}
            Part::Originator(page) => {
                let over = page.is_over();
                page.wake(time, &mut told.originator);
                if page.is_over() && !over {
                    self.control.push(b"", Some(Arc::clone(cell)));
                }
            }
            Part::Leg { send, .. } => {
                if send.wake(time, &mut told.leg) {
                    tracing::info!(side = %cell.side, "MS-091: peer reads nothing, connection closed");
                    self.dead = true;
                }
            }
        }
        self.shared.tell(guarded, told);
        self.earlier(guarded.session.next_wake());
        self.again(cell);
    }

    /// When a connection without sessions is closed (MS-035, MS-038).
    fn alone_until(&self) -> Option<Instant> {
        let settings = &self.shared.settings;
        let patience = if self.was_bound { settings.conn_linger } else { settings.bind_timeout };
        self.alone_since.map(|since| since + patience)
    }

    fn close(&mut self, time: Instant) {
        self.closing.get_or_insert(time + self.shared.settings.conn_linger);
    }

    fn next_due(&self) -> Option<Instant> {
        let head = self.head_since.map(|since| since + self.shared.settings.header_timeout);
        let blocked = self.blocked.as_ref().map(|blocked| blocked.until);
        [self.wake_at, head, blocked, self.alone_until(), self.closing].into_iter().flatten().min()
    }

    /// Moves octets into `out` while there is room.
    fn fill(&mut self, time: Instant) {
        let buffer = self.write_buffer();
        let limit = if self.ample { buffer.saturating_mul(2) } else { buffer };
        while self.out.len() < limit {
            if !self.control.is_empty() {
                if !self.pause(time) {
                    continue;
                }
                let Some(answers) = &mut self.control.0 else { continue };
                let Answers { text, frames } = &mut **answers;
                let mut rest = &text[..];
                for (octets, settles) in frames.drain(..) {
                    let (frame, behind) = rest.split_at(octets);
                    self.out.text(|out| out.extend_from_slice(frame));
                    rest = behind;
                    if let Some(cell) = settles {
                        self.marks.push_back(Mark { at: self.out.produced(), cell, settled: true });
                    }
                }
                text.clear();
                continue;
            }
            let others = !self.turn.is_empty();
            let slice = self.shared.settings.slice;
            let room = limit - self.out.len();
            let cell = match &self.writing {
                Some(writing) if others && (writing.idle || writing.used >= slice) => {
                    let (cell, idle) = (Arc::clone(&writing.cell), writing.idle);
                    self.interrupt();
                    if !idle {
                        self.again(&cell);
                    }
                    continue;
                }
                Some(writing) if writing.idle => break,
                Some(writing) => Arc::clone(&writing.cell),
                None => {
                    let Some(cell) = self.turn.pop_front() else { break };
                    cell.queued.store(false, Ordering::Release);
                    cell
                }
            };
            let room = if others { room.min(usize::try_from(slice).unwrap_or(room)) } else { room };
            self.step(&cell, room, time);
        }
        self.tap_sent();
        let congested = !self.ample && self.out.len() * 10 >= buffer * 8;
        self.handle.congested.store(congested, Ordering::Relaxed);
    }

    /// Gets a running chunk out of the way of answers and REPORTs; `false`: call again.
    ///
    /// MS-056, and MS-055: not below 2048 octets while there are more.
    fn pause(&mut self, time: Instant) -> bool {
        let Some(writing) = &self.writing else { return true };
        let cell = Arc::clone(&writing.cell);
        let octets = match &cell.lock().session.part {
            Part::Leg { send, .. } => send.open_octets(),
            Part::Reserved { .. } | Part::Originator(_) => SMALL,
        };
        if octets < SMALL && !writing.idle {
            self.step(&cell, usize::try_from(SMALL - octets).unwrap_or(1), time);
            return false;
        }
        let idle = writing.idle;
        self.interrupt();
        if !idle {
            self.again(&cell);
        }
        true
    }

    fn interrupt(&mut self) {
        let Some(writing) = self.writing.take() else { return };
        if let Part::Leg { send, .. } = &mut writing.cell.lock().session.part {
            send.interrupt(&mut self.out);
        }
        self.marks.push_back(Mark { at: self.out.produced(), cell: writing.cell, settled: false });
    }

    /// One session writes about `room` octets.
    fn step(&mut self, cell: &Arc<Cell>, room: usize, time: Instant) {
        let before = self.out.produced();
        let mut guarded = cell.lock();
        let guarded = &mut *guarded;
        let mut told = Told::default();
        let (step, open, at) = match &mut guarded.session.part {
            Part::Leg { send, .. } => {
                let transactions = &mut self.transactions;
                let mut ids = || loop {
                    let id = random::<16>();
                    if transactions.try_insert(id, Arc::clone(cell)).is_ok() {
                        cell.asked.fetch_add(1, Ordering::Relaxed);
                        return id;
                    }
                };
                let waker = guarded.waker.as_ref();
                let step = send.write(time, room, &mut ids, waker, &mut self.out, &mut told.leg);
                send.settle(time, &mut told.leg);
                (step, send.is_open(), send.cursor())
            }
            Part::Reserved { .. } | Part::Originator(_) => (Step::Idle, false, 0),
        };
        self.shared.tell(guarded, told);
        self.earlier(guarded.session.next_wake());
        let made = self.out.produced() - before;
        if made > 0 {
            let at = self.out.produced();
            self.marks.push_back(Mark { at, cell: Arc::clone(cell), settled: false });
        }
        let idle = !matches!(step, Step::Wrote);
        self.writing = match self.writing.take() {
            Some(writing) if open => Some(Writing { used: writing.used + made, idle, ..writing }),
            None if open => Some(Writing { cell: Arc::clone(cell), used: made, idle }),
            _ => None,
        };
        match (step, &mut self.loading) {
            (Step::Wrote, _) if !open => self.again(cell),
            (Step::Wrote | Step::Idle, _) => {}
            (Step::Disk(_), Some(loading)) => loading.queue.push(Arc::clone(cell)),
            (Step::Disk(read), none) => {
                let read = tokio::task::spawn_blocking(move || read.run());
                let cell = Arc::clone(cell);
                *none = Some(Box::new(Loading { cell, at, read, queue: Vec::new() }));
            }
        }
    }

    fn on_loaded(&mut self, octets: io::Result<Bytes>) {
        let Some(loading) = self.loading.take() else { return };
        let Loading { cell, at, queue, .. } = *loading;
        if let Err(error) = &octets {
            tracing::error!(side = %cell.side, %error, "spool file cannot be read");
        }
        self.with_leg(&cell, |send, told| send.loaded(at, octets.ok(), told));
        for cell in queue {
            self.again(&cell);
        }
    }

    /// Tells sessions what the socket has taken.
    fn flushed(&mut self, time: Instant) {
        let written = self.out.written();
        while self.marks.front().is_some_and(|mark| mark.at <= written) {
            let Some(mark) = self.marks.pop_front() else { break };
            let mut guarded = mark.cell.lock();
            let guarded = &mut *guarded;
            let mut told = Told::default();
            match &mut guarded.session.part {
                Part::Originator(_) if mark.settled && !guarded.settled => {
                    guarded.settled = true;
                    told.originator.push(OriginatorMedia::Settled);
                }
                Part::Leg { send, .. } => send.flushed(time, written, &mut told.leg),
                Part::Reserved { .. } | Part::Originator(_) => {}
            }
            self.shared.tell(guarded, told);
            self.earlier(guarded.session.next_wake());
        }
    }

    /// MS-036: all its sessions have failed.
    fn end(&mut self) {
        self.shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
        let nudges = {
            let mut inbox = self.handle.lock();
            inbox.closed = true;
            std::mem::take(&mut inbox.nudges)
        };
        for nudge in nudges {
            if let Nudge::Attach(cell) = nudge {
                self.sessions.push(cell);
            }
        }
        for cell in std::mem::take(&mut self.sessions) {
            if !cell.lock().released {
                self.shared.lost(&cell, PageLoss::Connection, MediaFailure::Connection);
            }
        }
        if let Some(loading) = self.loading.take() {
            loading.read.abort();
        }
    }
}
