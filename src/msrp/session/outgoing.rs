//! One recipient's copy of the page on its way out.
//!
//! [`Outgoing::write`] appends the next octets to a connection's frames whenever there is room; everything else tells
//! it what came back. Follows MS-053 to MS-058, MS-067, MS-075 to MS-082, MS-088, MS-090, MS-091, MS-093, MS-098, MS-108.
//! Positions are those of what is sent: where bare content is wrapped, our head comes first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use memchr::memmem;
use smallvec::SmallVec;

use super::{CPIM, Envelope, Types, accepts, is_cpim};
use crate::content::msrp_uri::MsrpUri;
use crate::engine::input::{LegMedia, MediaFailure};
use crate::msrp::codec::{self, ByteRange, Flag, Head, SendHead, path_text};
use crate::msrp::frames::Frames;
use crate::msrp::{PeerMedia, Settings};
use crate::spool::{About, DiskRead, Read, Spool};

/// A transact-id of ours (MS-041).
pub type TxId = [u8; 16];

/// MS-054: chunks up to this size may say where they end.
const SMALL: u64 = 2048;
/// Hyphens and transact-id: what no body of ours may contain (MS-047).
const PATTERN: usize = 7 + 16;

/// The sending half of a recipient's session.
///
/// ```text
/// Sending ── last octet written ─► Waiting ── every chunk answered 200 ─► Delivered
///    └── refusal, timer, size, type ──┴──────► Failed      all three: told once nothing is outstanding (Quiet)
///    └── page lost, abort ────────────┴──────► Aborted
/// ```
#[derive(Debug)]
pub struct Outgoing {
    settings: Arc<Settings>,
    spool: Arc<Spool>,
    /// Our number among the page's readers.
    reader: u32,
    own: String,
    to_path: String,
    message_id: String,
    accept: Types,
    wrapped: Vec<String>,
    max_size: Option<u64>,
    /// How bare content may be wrapped; none once that is decided.
    envelope: Option<Box<Envelope>>,
    /// What we put before the page's octets (MS-098).
    head: Bytes,
    phase: Phase,
    /// Octets written so far: the position of the next one.
    cursor: u64,
    chunk: Option<Open>,
    sent: VecDeque<Transaction>,
    acknowledged: u64,
    /// We connected: a SEND has to go out at once (MS-030).
    greet: bool,
    /// Octets read from disk.
    loaded: Option<(u64, Bytes)>,
    /// How a stopped copy ends.
    hash: Hash,
    began: bool,
    reported: bool,
    /// There are relays on the way: a 200 is the next hop's word, a REPORT the recipient's (MS-118).
    relayed: bool,
    /// Until when a success REPORT is awaited.
    report_by: Option<Instant>,
    /// Place in the connection's stream behind our last octet, and how far it is written.
    end: u64,
    written: u64,
    progress: Instant,
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Sending,
    Waiting,
    Delivered,
    Failed,
    Aborted,
}

/// What is left to say when the copy stops early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    /// End a running chunk.
    IfOpen,
    /// Say so even between chunks (MS-090).
    Always,
    /// The copy goes on in another session: end a running chunk with `+` (MS-016).
    Moved,
    /// Said.
    Done,
}

/// The chunk being written.
#[derive(Debug)]
struct Open {
    id: TxId,
    from: u64,
    /// The last octets written, to find the pattern across slices.
    tail: SmallVec<[u8; PATTERN - 1]>,
    /// Answered 200 before it ended.
    early: bool,
}

/// A SEND that is written but not answered.
#[derive(Debug)]
struct Transaction {
    id: TxId,
    /// Position of its first octet.
    from: u64,
    octets: u64,
    /// Place in the stream behind its end-line.
    end: u64,
    /// Set when that is written (MS-077).
    due: Option<Instant>,
}

/// What a call of [`Outgoing::write`] did.
#[derive(Debug)]
pub enum Step {
    /// Appended something; there may be more.
    Wrote,
    /// Nothing to write until the spool or the peer does something.
    Idle,
    /// Octets have to be read first: give them to [`Outgoing::loaded`].
    Disk(DiskRead),
}

impl Outgoing {
    /// A copy from octet 1. `message_id` is fresh (MS-082).
    pub fn new(
        now: Instant,
        settings: Arc<Settings>,
        spool: Arc<Spool>,
        reader: u32,
        own: &MsrpUri,
        peer: &PeerMedia,
        message_id: String,
    ) -> Self {
        Self {
            settings,
            spool,
            reader,
            own: own.as_str().to_owned(),
            to_path: path_text(&peer.path),
            message_id,
            accept: Types::of(&peer.accept_types),
            wrapped: peer.accept_wrapped.clone(),
            max_size: peer.max_size,
            envelope: None,
            head: Bytes::new(),
            phase: Phase::Sending,
            cursor: 0,
            chunk: None,
            sent: VecDeque::new(),
            acknowledged: 0,
            greet: false,
            loaded: None,
            hash: Hash::Done,
            began: false,
            reported: false,
            relayed: peer.path.len() > 1,
            report_by: None,
            end: 0,
            written: 0,
            progress: now,
            quiet: false,
        }
    }

    /// The rest of this copy, to be sent in a session that replaces this one; what is left here only ends its chunk.
    ///
    /// MS-016 (RFC 4975 §5.4): the same Message-ID, from the first octet that was not acknowledged.
    pub fn hand_over(&mut self, now: Instant, own: &MsrpUri, peer: &PeerMedia) -> Self {
        let unanswered = self.sent.iter().filter(|sent| sent.octets > 0).map(|sent| sent.from);
        let open = self.chunk.as_ref().map(|chunk| chunk.from);
        let from = unanswered.chain(open).min().unwrap_or(self.cursor);
        let (settings, spool) = (Arc::clone(&self.settings), Arc::clone(&self.spool));
        let name = self.message_id.clone();
        let mut heir = Self::new(now, settings, spool, self.reader, own, peer, name);
        heir.envelope.clone_from(&self.envelope);
        heir.head = self.head.clone();
        heir.cursor = from;
        heir.acknowledged = from;
        heir.began = self.began;
        heir.reported = self.reported;
        heir.report_by = self.report_by.take();
        heir.phase = match self.phase {
            Phase::Sending | Phase::Waiting => Phase::Sending,
            Phase::Delivered | Phase::Failed | Phase::Aborted => self.phase,
        };
        heir.quiet = std::mem::replace(&mut self.quiet, true);
        if heir.phase == Phase::Sending {
            self.phase = Phase::Aborted;
            self.hash = if self.chunk.is_some() { Hash::Moved } else { Hash::Done };
        }
        self.sent.clear();
        heir
    }

    /// We opened or share the connection: the first SEND goes out even without content (MS-030).
    pub fn greet(&mut self) {
        self.greet = true;
    }

    /// Bare content may be wrapped like this, where the recipient takes nothing else.
    pub fn may_wrap(&mut self, envelope: Envelope) {
        self.envelope = Some(Box::new(envelope));
    }

    /// Octets of the page the peer acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.saturating_sub(self.before())
    }

    /// Octets of ours before the page's.
    fn before(&self) -> u64 {
        self.head.len() as u64
    }

    /// Octets of the whole copy, once the page is whole.
    fn whole(&self) -> Option<u64> {
        self.spool.whole().map(|len| len + self.before())
    }

    /// The same, or what its sender said.
    fn total(&self) -> Option<u64> {
        let said = || self.spool.about().and_then(|about| about.total);
        self.spool.whole().or_else(said).map(|len| len.saturating_add(self.before()))
    }

    /// A chunk is open: nothing else can be written on the connection until it ends.
    pub fn is_open(&self) -> bool {
        self.chunk.is_some()
    }

    /// Octets in the open chunk.
    pub fn open_octets(&self) -> u64 {
        self.chunk.as_ref().map_or(0, |chunk| self.cursor - chunk.from)
    }

    /// Appends what comes next, about `room` octets. `ids` gives fresh transact-ids. With [`Step::Idle`] the spool keeps
    /// `waker`.
    pub fn write(
        &mut self,
        now: Instant,
        room: usize,
        ids: &mut dyn FnMut() -> TxId,
        waker: Option<&Waker>,
        out: &mut Frames,
        told: &mut Vec<LegMedia>,
    ) -> Step {
        let before = out.produced();
        let step = self.step(room.max(1), ids, waker, out, told);
        if out.produced() > before {
            if self.end <= self.written {
                self.progress = now;
            }
            self.end = out.produced();
        }
        step
    }

    fn step(
        &mut self,
        room: usize,
        ids: &mut dyn FnMut() -> TxId,
        waker: Option<&Waker>,
        out: &mut Frames,
        told: &mut Vec<LegMedia>,
    ) -> Step {
        if self.phase == Phase::Sending
            && let Some(cause) = self.unfit()
        {
            self.fail(cause, told);
        }
        match self.phase {
            Phase::Sending => {}
            Phase::Failed | Phase::Aborted if self.hash != Hash::Done => {
                self.write_hash(ids, out);
                return Step::Wrote;
            }
            _ => return Step::Idle,
        }
        let read = match self.loaded.take() {
            Some((at, octets)) if at == self.cursor => Read::Data(octets),
            _ => self.read(room, waker),
        };
        match read {
            Read::Data(octets) => self.write_octets(octets, false, ids, out, told),
            Read::Plain(octets) => self.write_octets(octets, true, ids, out, told),
            Read::Disk(disk) => return Step::Disk(disk),
            Read::End => self.write_end(ids, out, told),
            Read::Lost => {
                self.abort();
                if self.hash != Hash::Done {
                    self.write_hash(ids, out);
                }
            }
            Read::Wait if self.greet => self.write_greeting(ids, out),
            Read::Wait => return Step::Idle,
        }
        Step::Wrote
    }

    /// What comes next in the copy.
    fn read(&self, room: usize, waker: Option<&Waker>) -> Read {
        match self.cursor.checked_sub(self.before()) {
            Some(at) => self.spool.read(at, room, self.reader, waker),
            None if self.spool.is_lost() => Read::Lost,
            None => {
                let rest = self.head.slice(usize::try_from(self.cursor).unwrap_or(usize::MAX)..);
                Read::Data(rest.slice(..room.min(rest.len())))
            }
        }
    }

    /// MS-011, MS-093, IM-074, IM-075: what this peer cannot be sent.
    fn unfit(&mut self) -> Option<MediaFailure> {
        self.wrap();
        let about = self.spool.about()?;
        if self.head.is_empty() && !self.takes(about) {
            return Some(MediaFailure::Type);
        }
        let here = self.spool.readable() + self.before();
        let size = self.total().unwrap_or(0).max(here);
        self.max_size.is_some_and(|max| size > max).then_some(MediaFailure::TooBig)
    }

    /// Decides about the envelope as soon as it is known what the page is.
    ///
    /// MS-098: only around bare content, and only where it has to be.
    fn wrap(&mut self) {
        let Some(about) = self.spool.about() else { return };
        let Some(envelope) = self.envelope.take() else { return };
        let inside = self.wrapped.is_empty() || accepts(&self.wrapped, &about.content_type);
        if !is_cpim(&about.content_type) && !self.takes(about) && self.accept.take(CPIM) && inside {
            self.head = envelope.head(about.since, &about.content_type);
        }
    }

    fn takes(&self, about: &About) -> bool {
        self.accept.take(&about.content_type)
            && about.inner.as_ref().is_none_or(|inner| {
                // A peer that names no wrapped types says nothing about them.
                self.wrapped.is_empty() || accepts(&self.wrapped, inner) || self.accept.take(inner)
            })
    }

    fn content_type(&self) -> Arc<str> {
        if !self.head.is_empty() {
            return Arc::from(CPIM);
        }
        self.spool
            .about()
            .map_or_else(|| Arc::from("application/octet-stream"), |a| Arc::clone(&a.content_type))
    }

    fn begin(&mut self, told: &mut Vec<LegMedia>) {
        self.greet = false;
        if !self.began {
            self.began = true;
            told.push(LegMedia::Sending);
        }
    }

    fn write_head(&self, id: &TxId, range: ByteRange, out: &mut Frames) {
        let content_type = self.content_type();
        out.text(|out| {
            codec::send_head(
                out,
                &SendHead {
                    id,
                    to_path: &self.to_path,
                    from: &self.own,
                    message_id: &self.message_id,
                    range: Some(range),
                    success_report: self.settings.copy_success_report,
                    content_type: Some(&content_type),
                },
            );
        });
    }

    fn write_octets(
        &mut self,
        octets: Bytes,
        plain: bool,
        ids: &mut dyn FnMut() -> TxId,
        out: &mut Frames,
        told: &mut Vec<LegMedia>,
    ) {
        self.begin(told);
        if self.chunk.is_none() {
            let id = if plain { ids() } else { fresh(ids, &octets) };
            let (whole, total) = (self.whole(), self.total());
            let len = octets.len() as u64;
            let rest = whole.is_some_and(|whole| self.cursor + len == whole) && len <= SMALL;
            // MS-054: anything longer than 2048 octets can be interrupted.
            let end = rest.then_some(self.cursor + len);
            self.write_head(&id, ByteRange { start: self.cursor + 1, end, total }, out);
            self.chunk = Some(Open { id, from: self.cursor, tail: SmallVec::new(), early: false });
        }
        let Some(chunk) = &mut self.chunk else { return };
        let fits = chunk.fits(&octets, plain);
        if fits < octets.len() {
            // MS-047: the body would contain our own end-line; what follows gets another transact-id.
            let now = octets.slice(..fits);
            self.cursor += now.len() as u64;
            out.body(now);
            self.loaded = Some((self.cursor, octets.slice(fits..)));
            self.close(Flag::More, out);
            return;
        }
        chunk.remember(&octets);
        self.cursor += octets.len() as u64;
        out.body(octets);
        if self.whole() == Some(self.cursor) {
            self.close(Flag::Last, out);
            self.phase = Phase::Waiting;
        }
    }

    /// Behind the last octet: a page of no octets, or a chunk that was interrupted right at the end.
    fn write_end(
        &mut self,
        ids: &mut dyn FnMut() -> TxId,
        out: &mut Frames,
        told: &mut Vec<LegMedia>,
    ) {
        self.begin(told);
        if self.chunk.is_none() {
            self.open_empty(ids, out);
        }
        self.close(Flag::Last, out);
        self.phase = Phase::Waiting;
    }

    fn open_empty(&mut self, ids: &mut dyn FnMut() -> TxId, out: &mut Frames) {
        let id = ids();
        let total = self.total();
        let range = ByteRange { start: self.cursor + 1, end: Some(self.cursor), total };
        self.write_head(&id, range, out);
        self.chunk = Some(Open { id, from: self.cursor, tail: SmallVec::new(), early: false });
    }

    /// MS-067, MS-090.
    fn write_hash(&mut self, ids: &mut dyn FnMut() -> TxId, out: &mut Frames) {
        if self.chunk.is_none() && self.hash == Hash::Always && self.cursor > 0 {
            self.open_empty(ids, out);
        }
        if self.chunk.is_some() {
            let flag = if self.hash == Hash::Moved { Flag::More } else { Flag::Abort };
            self.close(flag, out);
        }
        self.hash = Hash::Done;
    }

    /// MS-030: a SEND without a body under a Message-ID of its own.
    fn write_greeting(&mut self, ids: &mut dyn FnMut() -> TxId, out: &mut Frames) {
        self.greet = false;
        let (id, name) = (ids(), ids());
        out.text(|out| {
            codec::send_head(
                out,
                &SendHead {
                    id: &id,
                    to_path: &self.to_path,
                    from: &self.own,
                    message_id: &String::from_utf8_lossy(&name),
                    range: None,
                    success_report: false,
                    content_type: None,
                },
            );
            codec::end_line(out, &id, Flag::Last, false);
        });
        let (from, end) = (self.cursor, out.produced());
        self.sent.push_back(Transaction { id, from, octets: 0, end, due: None });
    }

    /// Ends the running chunk so that something else can be written (MS-056, MS-058).
    pub fn interrupt(&mut self, out: &mut Frames) {
        if self.chunk.is_some() {
            self.close(Flag::More, out);
            self.end = out.produced();
        }
    }

    fn close(&mut self, flag: Flag, out: &mut Frames) {
        let Some(chunk) = self.chunk.take() else { return };
        out.text(|out| codec::end_line(out, &chunk.id, flag, true));
        let octets = self.cursor - chunk.from;
        if chunk.early {
            self.acknowledged += octets;
        } else {
            let end = out.produced();
            let (id, from) = (chunk.id, chunk.from);
            self.sent.push_back(Transaction { id, from, octets, end, due: None });
        }
    }

    /// Octets read from disk at the position asked for, or that they cannot be read.
    pub fn loaded(&mut self, at: u64, octets: Option<Bytes>, told: &mut Vec<LegMedia>) {
        match octets {
            Some(octets) => self.loaded = Some((at, octets)),
            None => self.fail(MediaFailure::Connection, told),
        }
    }

    /// The position [`Step::Disk`] was about.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Some octets before [`Outgoing::write`]'s last ones left for the peer.
    pub fn moving(&mut self, now: Instant) {
        self.progress = now;
    }

    /// The connection has written everything up to `written`.
    pub fn flushed(&mut self, now: Instant, written: u64, told: &mut Vec<LegMedia>) {
        self.written = written.min(self.end).max(self.written);
        self.progress = now;
        for sent in &mut self.sent {
            if sent.due.is_none() && sent.end <= written {
                // MS-077: from the last octet handed to the system.
                sent.due = Some(now + self.settings.tx_timeout);
            }
        }
        self.settle(now, told);
    }

    /// A response to one of our SENDs.
    pub fn response(&mut self, now: Instant, id: &[u8], code: u16, told: &mut Vec<LegMedia>) {
        let running = self.chunk.as_mut().filter(|chunk| chunk.id == id);
        let found = self.sent.iter().position(|sent| sent.id == id);
        let octets = match (running, found) {
            (Some(chunk), _) => {
                chunk.early = code == 200;
                0
            }
            (None, Some(at)) => self.sent.remove(at).map_or(0, |sent| sent.octets),
            // MS-050.
            (None, None) => return,
        };
        self.progress = now;
        if code == 200 {
            self.acknowledged += octets;
        } else {
            self.fail(refused(code), told);
        }
        self.settle(now, told);
    }

    /// A REPORT about our copy.
    ///
    /// MS-075, MS-076, MS-088: consumed here.
    pub fn report(&mut self, now: Instant, head: &Head, told: &mut Vec<LegMedia>) {
        let Some((0, code)) = head.status else { return };
        if head.message_id.as_deref() != Some(self.message_id.as_str()) {
            return;
        }
        if code == 200 {
            let reach = head.range.map_or(Some(u64::MAX), |range| range.end);
            self.reported |= reach.is_none_or(|end| self.whole().is_some_and(|len| end >= len));
        } else {
            self.fail(refused(code), told);
        }
        self.settle(now, told);
    }

    /// The copy is given up for a reason the engine does not know yet.
    pub fn fail(&mut self, cause: MediaFailure, told: &mut Vec<LegMedia>) {
        if !matches!(self.phase, Phase::Sending | Phase::Waiting) {
            return;
        }
        self.hash = match cause {
            MediaFailure::TooBig if self.began => Hash::Always,
            _ if self.chunk.is_some() => Hash::IfOpen,
            _ => Hash::Done,
        };
        self.phase = Phase::Failed;
        told.push(LegMedia::Failed { cause });
    }

    /// The copy is given up, the engine knows why (MS-090). A copy that is written completely is left alone.
    pub fn abort(&mut self) {
        if self.phase == Phase::Sending {
            self.phase = Phase::Aborted;
            self.hash = if self.began { Hash::Always } else { Hash::Done };
        }
    }

    /// The connection is gone, or never came; nothing more can be written.
    pub fn cut(&mut self, cause: MediaFailure, told: &mut Vec<LegMedia>) {
        if self.is_acknowledged() {
            self.deliver(told);
        }
        self.fail(cause, told);
        if self.phase == Phase::Sending {
            self.phase = Phase::Aborted;
        }
        self.hash = Hash::Done;
        self.chunk = None;
        self.sent.clear();
        self.spool.leave(self.reader);
        self.tell_quiet(told);
    }

    /// Draws the conclusions after every change.
    pub fn settle(&mut self, now: Instant, told: &mut Vec<LegMedia>) {
        if self.is_acknowledged() {
            if self.settings.copy_success_report && self.report_by.is_none() {
                // MS-108: the REPORT is awaited as long as a response would be.
                self.report_by = Some(now + self.settings.tx_timeout);
            }
            // MS-076, MS-118: behind a relay a failure REPORT may still follow the 200. That none comes is no failure.
            let may_fail = self.relayed && !self.reported;
            if !may_fail || self.report_by.is_none_or(|by| by <= now) {
                self.deliver(told);
            }
        }
        let outstanding = !self.sent.is_empty() || self.chunk.is_some() || self.end > self.written;
        let over = match self.phase {
            Phase::Sending | Phase::Waiting => false,
            Phase::Delivered => self.reported || self.report_by.is_none_or(|by| by <= now),
            Phase::Failed | Phase::Aborted => self.hash == Hash::Done && !outstanding,
        };
        if over {
            self.tell_quiet(told);
        }
    }

    /// The whole copy is written and answered 200.
    fn is_acknowledged(&self) -> bool {
        self.phase == Phase::Waiting && self.sent.is_empty() && self.chunk.is_none()
    }

    fn deliver(&mut self, told: &mut Vec<LegMedia>) {
        self.phase = Phase::Delivered;
        told.push(LegMedia::Delivered { octets: self.acknowledged() });
    }

    fn tell_quiet(&mut self, told: &mut Vec<LegMedia>) {
        if !self.quiet {
            self.quiet = true;
            self.report_by = None;
            told.push(LegMedia::Quiet);
        }
    }

    /// Octets of ours wait for the socket since the last progress.
    fn stall_at(&self) -> Option<Instant> {
        let waits = self.end > self.written && !self.quiet;
        waits.then(|| self.progress + self.settings.leg_stall_timeout)
    }

    /// When [`Outgoing::wake`] is due at the latest.
    pub fn next_wake(&self) -> Option<Instant> {
        let due = self.sent.iter().find_map(|sent| sent.due);
        [due, self.stall_at(), self.report_by].into_iter().flatten().min()
    }

    /// Looks at the timers. `true`: the peer takes nothing any more, its connection is useless (MS-091).
    pub fn wake(&mut self, now: Instant, told: &mut Vec<LegMedia>) -> bool {
        let stalled = self.stall_at().is_some_and(|at| at <= now);
        if stalled {
            self.fail(MediaFailure::Stall, told);
        }
        let late = self.sent.iter().any(|sent| sent.due.is_some_and(|due| due <= now));
        if late {
            self.fail(MediaFailure::Timeout, told);
            // No answer will be waited for twice.
            self.sent.retain(|sent| sent.due.is_none_or(|due| due > now));
        }
        self.settle(now, told);
        stalled
    }
}

/// MS-077: 408 says that a timer ran out somewhere.
fn refused(code: u16) -> MediaFailure {
    if code == 408 { MediaFailure::Timeout } else { MediaFailure::Status(code) }
}

/// An id whose end-line is not in `octets` (MS-047).
fn fresh(ids: &mut dyn FnMut() -> TxId, octets: &[u8]) -> TxId {
    loop {
        let id = ids();
        if memmem::find(octets, &pattern(&id)).is_none() {
            return id;
        }
    }
}

fn pattern(id: &TxId) -> [u8; PATTERN] {
    let mut pattern = [b'-'; PATTERN];
    pattern[7..].copy_from_slice(id);
    pattern
}

impl Open {
    /// How many of `octets` can follow without our own end-line in the body; `plain`: there is none within them.
    fn fits(&self, octets: &[u8], plain: bool) -> usize {
        let pattern = pattern(&self.id);
        let reach = octets.len().min(PATTERN - 1);
        if !self.tail.is_empty() {
            let mut seam: SmallVec<[u8; 2 * PATTERN]> = SmallVec::from_slice(&self.tail);
            seam.extend_from_slice(&octets[..reach]);
            if let Some(at) = memmem::find(&seam, &pattern) {
                return at.saturating_sub(self.tail.len());
            }
        }
        if plain {
            return octets.len();
        }
        memmem::find(octets, &pattern).unwrap_or(octets.len())
    }

    fn remember(&mut self, octets: &[u8]) {
        let last = &octets[octets.len().saturating_sub(PATTERN - 1)..];
        let surplus = (self.tail.len() + last.len()).saturating_sub(PATTERN - 1);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(last);
    }
}
