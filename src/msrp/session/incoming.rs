//! The originator's page on its way into the spool.
//!
//! One SEND passes [`Incoming::head`], any number of [`Incoming::body`], then [`Incoming::end`]. Follows steps 7 to 16
//! of the receiving procedure in their order: MS-060 to MS-066, MS-073, MS-094, MS-110, IM-073 to IM-075.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Types, Verdict, accepts, check_range, is_control, is_cpim, may_answer};
use crate::content::cpim;
use crate::engine::input::{OriginatorMedia, PageLoss};
use crate::engine::policy::SrPolicy;
use crate::msrp::codec::{FailureReport, Flag, Head, path_text};
use crate::msrp::{AcceptTypes, PageRules, Settings};
use crate::spool::{About, Full, Spool};

/// Message-IDs answered 413 that are remembered (MS-079).
const REFUSED: usize = 16;

/// The receiving half of the originator's session.
#[derive(Debug)]
pub struct Incoming {
    settings: Arc<Settings>,
    accept: Types,
    wrapped: Vec<String>,
    rules: PageRules,
    spool: Arc<Spool>,
    state: State,
    message: Option<Box<Message>>,
    chunk: Option<Chunk>,
    /// Message-IDs that got 413.
    refused: Vec<Arc<str>>,
    /// A control message of several chunks.
    control: Option<Arc<str>>,
    gap: Option<Instant>,
    reported: bool,
    /// Control messages seen and octets that came too late, since last asked.
    pub control_seen: u64,
    pub overlapped: u64,
}

/// ```text
/// Waiting ── first content ─► Receiving ── `$` and no hole ─► Whole
///    └──────────┴── `#`, gap, connection, size, refusal ─► Lost
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Receiving,
    Whole(u64),
    Lost(PageLoss),
}

/// The page's message as the originator names it.
#[derive(Debug)]
struct Message {
    id: Arc<str>,
    content_type: Arc<str>,
    total: Option<u64>,
    since: Instant,
    success_report: bool,
    failure_report: FailureReport,
    from_path: String,
    chunks: u64,
    octets: u64,
    /// Its first octets passed the checks.
    judged: Option<About>,
    published: bool,
    /// Where it ends, once that was said.
    length: Option<u64>,
}

#[derive(Debug)]
struct Chunk {
    what: What,
    /// Position of the next octet, from 0.
    at: u64,
    success_report: bool,
    failure_report: FailureReport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Page,
    /// No content: binds or keeps alive.
    Bodiless,
    /// A body without Content-Type: fine as long as it is empty.
    Untyped,
    Control,
    /// Of a message that is whole already (MS-037).
    Duplicate,
    /// Answered; nothing is kept.
    Skipped,
}

/// A REPORT that is due to the originator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub to_path: String,
    pub message_id: Arc<str>,
    pub octets: u64,
    pub total: Option<u64>,
}

/// What the end of a chunk calls for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closing {
    /// Response to send now.
    pub answer: Option<u16>,
    /// Success REPORT to send behind it.
    pub report: Option<Owed>,
    /// The chunk is of a page that is whole: what is owed for it says that the page was taken.
    pub of_whole: bool,
}

impl Incoming {
    /// Nothing received yet.
    pub fn new(
        settings: Arc<Settings>,
        accept: AcceptTypes,
        rules: PageRules,
        spool: Arc<Spool>,
    ) -> Self {
        Self {
            settings,
            accept: Types::of(&accept.types),
            wrapped: accept.wrapped,
            rules,
            spool,
            state: State::Waiting,
            message: None,
            chunk: None,
            refused: Vec::new(),
            control: None,
            gap: None,
            reported: false,
            control_seen: 0,
            overlapped: 0,
        }
    }

    /// A SEND whose session and connection are right.
    pub fn head(&mut self, now: Instant, head: &Head, told: &mut Vec<OriginatorMedia>) -> Verdict {
        let at = head.range.map_or(0, |range| range.start.saturating_sub(1));
        let what = self.sort(now, head, told);
        self.chunk = Some(Chunk {
            what: what.unwrap_or(What::Skipped),
            at,
            success_report: head.success_report,
            failure_report: head.failure_report,
        });
        match what {
            Ok(_) => Verdict::Take,
            Err(code) => Verdict::Skip(code),
        }
    }

    /// Steps 7 to 12.
    fn sort(
        &mut self,
        now: Instant,
        head: &Head,
        told: &mut Vec<OriginatorMedia>,
    ) -> Result<What, u16> {
        let id = head.message_id.as_ref().ok_or(400_u16)?;
        let ours = self.message.as_ref().is_some_and(|m| m.id == *id);
        let incomplete = ours && self.state == State::Receiving;
        if !incomplete && !head.has_body {
            return Ok(What::Bodiless);
        }
        if let Err(code) = check_range(head, self.settings.max_message) {
            if code == 413 {
                self.refuse(id);
                if incomplete || self.state == State::Waiting {
                    self.lose(PageLoss::TooBig, told);
                }
            }
            return Err(code);
        }
        if self.refused.contains(id) {
            return Err(413);
        }
        match self.state {
            State::Whole(_) if ours => return Ok(What::Duplicate),
            State::Lost(PageLoss::Refused(code)) if ours => return Err(code),
            State::Lost(_) if ours => return Err(413),
            _ => {}
        }
        if self.control.as_ref() == Some(id) {
            return Ok(What::Control);
        }
        if incomplete {
            return self.next_chunk(now, head, told);
        }
        let Some(content_type) = &head.content_type else { return Ok(What::Untyped) };
        if is_control(content_type) {
            // MS-106: taken, not passed on, not the page.
            self.control = Some(Arc::clone(id));
            return Ok(What::Control);
        }
        let required = !self.rules.cpim_required || is_cpim(content_type);
        if !required || !self.accept.take(content_type) {
            if self.state == State::Waiting {
                self.lose(PageLoss::Refused(415), told);
            }
            return Err(415);
        }
        if self.state != State::Waiting {
            // MS-110: one page a session.
            return Err(403);
        }
        self.state = State::Receiving;
        self.message = Some(Box::new(Message {
            id: Arc::clone(id),
            content_type: Arc::clone(content_type),
            total: head.range.and_then(|range| range.total),
            since: now,
            success_report: head.success_report,
            failure_report: head.failure_report,
            from_path: path_text(&head.from_path),
            chunks: 0,
            octets: 0,
            judged: None,
            published: false,
            length: None,
        }));
        self.next_chunk(now, head, told)
    }

    /// MS-064, MS-115: one more chunk of the page.
    fn next_chunk(
        &mut self,
        now: Instant,
        head: &Head,
        told: &mut Vec<OriginatorMedia>,
    ) -> Result<What, u16> {
        self.gap = Some(now + self.settings.chunk_gap_timeout);
        let Some(message) = &mut self.message else { return Err(400) };
        message.success_report |= head.success_report;
        let before = message.chunks;
        message.chunks += 1;
        let tiny = before >= self.settings.min_chunk_after
            && message.octets < self.settings.min_chunk.saturating_mul(before);
        if before >= self.settings.max_chunks || tiny {
            let id = Arc::clone(&message.id);
            self.refuse(&id);
            self.lose(PageLoss::Refused(413), told);
            return Err(413);
        }
        Ok(What::Page)
    }

    /// Octets of the chunk's body; `plain` as in [`Spool::share`].
    ///
    /// # Errors
    /// [`Full`]: none were taken; ask again with the same octets when the spool has room, or call
    /// [`Incoming::no_room`].
    pub fn body(
        &mut self,
        now: Instant,
        octets: &Bytes,
        plain: bool,
        told: &mut Vec<OriginatorMedia>,
    ) -> Result<Verdict, Full> {
        let Some(chunk) = &mut self.chunk else { return Ok(Verdict::Take) };
        let at = chunk.at;
        let verdict = match chunk.what {
            What::Untyped => Err(400),
            What::Page if self.state != State::Receiving => Err(self.lost_code()),
            What::Page if at + octets.len() as u64 > self.settings.max_message => {
                // MS-062: the count decides, whatever was promised.
                if let Some(id) = self.message.as_ref().map(|m| Arc::clone(&m.id)) {
                    self.refuse(&id);
                }
                self.lose(PageLoss::TooBig, told);
                Err(413)
            }
            What::Page => {
                self.overlapped += self.spool.share(at, octets, plain)?;
                chunk.at += octets.len() as u64;
                self.gap = Some(now + self.settings.chunk_gap_timeout);
                if let Some(message) = &mut self.message {
                    message.octets += octets.len() as u64;
                }
                self.judge(false, told)
            }
            What::Bodiless | What::Control | What::Duplicate | What::Skipped => Ok(()),
        };
        Ok(match verdict {
            Ok(()) => Verdict::Take,
            Err(code) => self.skip(code),
        })
    }

    /// The spool had no room for too long (MS-092).
    pub fn no_room(&mut self, told: &mut Vec<OriginatorMedia>) -> Verdict {
        if let Some(id) = self.message.as_ref().map(|m| Arc::clone(&m.id)) {
            self.refuse(&id);
        }
        self.lose(PageLoss::Storage, told);
        self.skip(413)
    }

    fn skip(&mut self, code: u16) -> Verdict {
        if let Some(chunk) = &mut self.chunk {
            chunk.what = What::Skipped;
        }
        Verdict::Skip(code)
    }

    /// Step 13: looks at the first octets once they are all here.
    fn judge(&mut self, last: bool, told: &mut Vec<OriginatorMedia>) -> Result<(), u16> {
        let Some(message) = &self.message else { return Ok(()) };
        if message.judged.is_some() || (self.spool.stored() == 0 && !last) {
            return Ok(());
        }
        let mut inner = None;
        let mut judged = 0;
        if is_cpim(&message.content_type) {
            match self.spool.peek(cpim::parse) {
                Ok(None) if !last => return Ok(()),
                Ok(Some(head)) => {
                    let content_type = head.content_type.essence.as_str();
                    if is_control(content_type) {
                        self.not_the_page();
                        return Ok(());
                    }
                    if let Err(code) = self.check_cpim(&head, content_type) {
                        self.lose(PageLoss::Refused(code), told);
                        return Err(code);
                    }
                    inner = Some(Arc::from(content_type));
                    judged = head.content_at as u64;
                }
                Ok(None) | Err(_) if self.needs_cpim() => {
                    self.lose(PageLoss::Refused(400), told);
                    return Err(400);
                }
                // Where nothing in it matters to us the octets are only passed on.
                Ok(None) | Err(_) => {}
            }
        }
        let Some(message) = &mut self.message else { return Ok(()) };
        let (content_type, total) = (Arc::clone(&message.content_type), message.total);
        let about = About { content_type, inner, total, since: message.since };
        told.push(OriginatorMedia::Started {
            content_type: Arc::clone(&message.content_type),
            total: message.total,
        });
        message.judged = Some(about.clone());
        if !self.settings.store_and_forward {
            message.published = true;
            self.spool.publish(about, judged);
        }
        Ok(())
    }

    fn needs_cpim(&self) -> bool {
        let rules = &self.rules;
        rules.cpim_required || rules.from_ok.is_some() || rules.to_ok.is_some()
    }

    /// MS-094; IM-075 for the type inside.
    fn check_cpim(&self, head: &cpim::Head, inner: &str) -> Result<(), u16> {
        if self.needs_cpim() {
            let (Some(from), Some(to)) = (&head.from, head.to.first()) else { return Err(400) };
            if head.to.len() > 1 {
                return Err(403);
            }
            if self.rules.from_ok.as_ref().is_some_and(|ok| !ok(&from.uri)) {
                return Err(403);
            }
            if self.rules.to_ok.as_ref().is_some_and(|ok| !ok(&to.uri)) {
                return Err(404);
            }
        }
        let wrapped = &self.wrapped;
        if wrapped.is_empty() || accepts(wrapped, inner) || self.accept.take(inner) {
            Ok(())
        } else {
            Err(415)
        }
    }

    /// What looked like the page is control content in an envelope (MS-106).
    fn not_the_page(&mut self) {
        self.spool.clear();
        self.control = self.message.take().map(|message| message.id);
        self.state = State::Waiting;
        self.gap = None;
        if let Some(chunk) = &mut self.chunk {
            chunk.what = What::Control;
        }
    }

    /// The end-line of the chunk.
    pub fn end(&mut self, now: Instant, flag: Flag, told: &mut Vec<OriginatorMedia>) -> Closing {
        let Some(mut chunk) = self.chunk.take() else { return Closing::default() };
        let mut report = None;
        let mut answer = match chunk.what {
            What::Skipped => return Closing::default(),
            What::Page => self.end_page(now, flag, chunk.at, told).err().unwrap_or(200),
            What::Bodiless | What::Untyped | What::Control => 200,
            What::Duplicate => {
                if flag == Flag::Last && chunk.success_report {
                    report = self.owed();
                }
                200
            }
        };
        if chunk.what == What::Page && self.control.is_some() && self.message.is_none() {
            // It turned out to be control content with its last octet.
            chunk.what = What::Control;
            answer = 200;
        }
        if chunk.what == What::Control && flag != Flag::More {
            self.control = None;
            self.control_seen += 1;
        }
        if chunk.what == What::Page
            && matches!(self.state, State::Whole(_))
            && !self.reported
            && self.settings.sr_policy == SrPolicy::Switch
            && self.message.as_ref().is_some_and(|m| m.success_report)
        {
            // MS-073: one for everything.
            self.reported = true;
            report = self.owed();
        }
        let of_page = matches!(chunk.what, What::Page | What::Duplicate);
        let of_whole = of_page && matches!(self.state, State::Whole(_));
        let answer = may_answer(chunk.failure_report, answer).then_some(answer);
        Closing { answer, report, of_whole }
    }

    fn end_page(
        &mut self,
        now: Instant,
        flag: Flag,
        at: u64,
        told: &mut Vec<OriginatorMedia>,
    ) -> Result<(), u16> {
        if self.state != State::Receiving {
            return Err(self.lost_code());
        }
        self.gap = Some(now + self.settings.chunk_gap_timeout);
        let Some(message) = &mut self.message else { return Ok(()) };
        match flag {
            // MS-065.
            Flag::Abort => {
                self.lose(PageLoss::Sender, told);
                return Ok(());
            }
            Flag::More => {}
            // MS-061: a message ends once. Octets behind the first end were dropped already, those before a nearer one
            // would be.
            Flag::Last if message.length.is_some_and(|length| length != at) => {
                self.lose(PageLoss::Refused(400), told);
                return Err(400);
            }
            // MS-061: this is the length, whatever total was said before.
            Flag::Last => message.length = Some(at),
        }
        // Not before the end of a chunk: one that ends in `#`, or not at all, completes nothing.
        if let Some(length) = message.length
            && self.spool.finish(length).is_err()
        {
            self.lose(PageLoss::Refused(400), told);
            return Err(400);
        }
        let Some(size) = self.spool.whole() else { return Ok(()) };
        self.judge(true, told)?;
        let Some(message) = &mut self.message else { return Ok(()) };
        if let Some(about) = message.judged.clone().filter(|_| !message.published) {
            message.published = true;
            self.spool.publish(about, size);
        }
        self.state = State::Whole(size);
        self.gap = None;
        told.push(OriginatorMedia::Complete { size });
        Ok(())
    }

    fn refuse(&mut self, id: &Arc<str>) {
        if self.refused.len() < REFUSED && !self.refused.contains(id) {
            self.refused.push(Arc::clone(id));
        }
    }

    fn lost_code(&self) -> u16 {
        match self.state {
            State::Lost(PageLoss::Refused(code)) => code,
            _ => 413,
        }
    }

    /// The page will never be whole.
    pub fn lose(&mut self, loss: PageLoss, told: &mut Vec<OriginatorMedia>) {
        if matches!(self.state, State::Whole(_) | State::Lost(_)) {
            return;
        }
        self.state = State::Lost(loss);
        self.gap = None;
        self.spool.lose();
        told.push(OriginatorMedia::Aborted(loss));
    }

    /// The page is whole and cannot be kept: it was not taken.
    pub fn not_kept(&mut self) {
        if matches!(self.state, State::Whole(_)) {
            (self.state, self.reported) = (State::Lost(PageLoss::Storage), true);
        }
    }

    /// The page is whole or will never be.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Whole(_) | State::Lost(_))
    }

    /// The REPORT for `code` about the whole page, if there is one to send.
    ///
    /// MS-074, MS-089: nothing contradicts a success told before.
    pub fn report(&mut self, code: u16) -> Option<Owed> {
        let message = self.message.as_ref()?;
        let wanted = if code == 200 {
            message.success_report && matches!(self.state, State::Whole(_))
        } else {
            message.failure_report != FailureReport::No
        };
        if self.reported || !wanted {
            return None;
        }
        self.reported = true;
        self.owed()
    }

    fn owed(&self) -> Option<Owed> {
        let message = self.message.as_ref()?;
        let (octets, total) = match self.state {
            State::Whole(size) => (size, Some(size)),
            _ => (message.octets, message.total),
        };
        Some(Owed {
            to_path: message.from_path.clone(),
            message_id: Arc::clone(&message.id),
            octets,
            total,
        })
    }

    /// MS-064.
    pub fn next_wake(&self) -> Option<Instant> {
        self.gap
    }

    /// Looks at the gap timer.
    pub fn wake(&mut self, now: Instant, told: &mut Vec<OriginatorMedia>) {
        if self.gap.is_some_and(|gap| gap <= now) {
            self.lose(PageLoss::Gap, told);
        }
    }
}
