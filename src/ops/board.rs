//! The board: what `/api/pages` shows, built from the engine's events and nothing else.
//!
//! [`Board::on_event`] takes every event in order with the wall clock; it also counts what the events tell into
//! [`Metrics`], so that both agree. The number of pages is bounded: the oldest that ended leave first, and where none
//! has ended, the oldest. Never holds content. Start at [`Board::on_event`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::metrics::{self, CauseLabel, LegState, Metrics, Result as Outcome};
use crate::engine::effect::{Cause, CauseProtocol};
use crate::engine::event::Event;
use crate::engine::ids::{LegId, PageId};
use crate::engine::input::Mode;
use crate::engine::party::{Party, Removal};
use crate::flow::rfc3339;

/// Most pages one answer of `/api/pages` holds.
pub const MOST_PAGES: usize = 1000;

/// What `/api/pages` is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pub state: Option<PageState>,
    /// URI of the originator or a recipient.
    pub user: Option<String>,
    /// At most [`MOST_PAGES`].
    pub limit: usize,
    /// Only pages older than this one.
    pub before: Option<PageId>,
}

/// Where a page stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    Resolving,
    Inviting,
    Running,
    Deferred,
    Done,
    Refused,
}

impl PageState {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolving => "resolving",
            Self::Inviting => "inviting",
            Self::Running => "running",
            Self::Deferred => "deferred",
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }

    /// The state a word of the API means.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Resolving, Self::Inviting, Self::Running, Self::Deferred, Self::Done, Self::Refused]
            .into_iter()
            .find(|state| state.as_str() == word)
    }

    /// Nothing is done for it at present.
    fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Refused | Self::Deferred)
    }
}

/// Where a recipient stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Invited,
    Early,
    Joined,
    Sending,
    Delivered,
    Failed,
    Deferred,
    Expired,
    Removed,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::Early => "early",
            Self::Joined => "joined",
            Self::Sending => "sending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Deferred => "deferred",
            Self::Expired => "expired",
            Self::Removed => "removed",
        }
    }

    fn live(self) -> Option<LegState> {
        match self {
            Self::Invited => Some(LegState::Invited),
            Self::Early => Some(LegState::Early),
            Self::Joined => Some(LegState::Joined),
            Self::Sending => Some(LegState::Sending),
            Self::Delivered | Self::Failed | Self::Deferred | Self::Expired | Self::Removed => None,
        }
    }
}

#[derive(Debug)]
struct Recipient {
    party: Party,
    state: State,
    cause: Option<Cause>,
    attempts: u32,
    bytes: u64,
    started: SystemTime,
    ended: Option<SystemTime>,
    allow: Option<Vec<Arc<str>>>,
    contact: Option<Arc<str>>,
}

#[derive(Debug)]
struct Page {
    id: PageId,
    mode: Mode,
    time: SystemTime,
    originator: Party,
    target: Party,
    size: Option<u64>,
    state: PageState,
    /// By the leg's number; a leg that was never invited is not here.
    legs: BTreeMap<u16, Recipient>,
    removed: Vec<Recipient>,
    last_delivery: Option<SystemTime>,
}

/// All pages that are shown.
#[derive(Debug)]
pub struct Board {
    most: usize,
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By order of arrival.
    pages: BTreeMap<u64, Page>,
    numbers: HashMap<PageId, u64>,
    next: u64,
    /// Numbers of pages that are over, in the order of their end.
    over: std::collections::VecDeque<u64>,
}

impl Board {
    /// A board of at most `most` pages.
    pub fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self { most: most.max(1), metrics, inner: Mutex::default() }
    }

    /// Takes one event; they come in the order in which they happened to each page.
    pub fn on_event(&self, time: SystemTime, event: &Event) {
        let mut inner = self.lock();
        match event {
            Event::PageRestored { page, .. } if inner.goes_on(*page) => {}
            Event::PageArrived { mode, page, originator, dialled, .. }
            | Event::PageRestored { mode, page, originator, dialled, .. } => {
                let size = match event {
                    Event::PageArrived { size, .. } => *size,
                    Event::PageRestored { size, .. } => Some(*size),
                    _ => None,
                };
                inner.arrived(
                    self.most,
                    &self.metrics,
                    Page {
                        id: *page,
                        mode: *mode,
                        time,
                        originator: originator.clone(),
                        target: dialled.clone(),
                        size,
                        state: PageState::Resolving,
                        legs: BTreeMap::new(),
                        removed: Vec::new(),
                        last_delivery: None,
                    },
                );
            }
            Event::PageRefused { page, .. } => {
                let mode = inner.page(*page).map_or(Mode::Large, |page| page.mode);
                self.metrics.page(label(mode), Outcome::Refused);
                self.over(&mut inner, *page, PageState::Refused);
            }
            Event::RecipientRemoved { page, party, why } => {
                self.metrics.recipient(Outcome::Refused, CauseLabel::Policy);
                if let Some(page) = inner.page(*page) {
                    let text = removal_text(*why);
                    page.removed.push(Recipient {
                        cause: Some(Cause::new(CauseProtocol::Policy, 0, text)),
                        ended: Some(time),
                        ..Recipient::new(party, State::Removed, time)
                    });
                }
            }
            Event::Invited { leg, party } => {
                if let Some(page) = inner.page(leg.page) {
                    if page.state == PageState::Resolving {
                        page.state = PageState::Inviting;
                    }
                    let new = || Recipient::new(party, State::Invited, time);
                    let recipient = page.legs.entry(leg.n).or_insert_with(new);
                    recipient.attempts += 1;
                    if recipient.ended.take().is_some() {
                        // Once more: whatever was told before is taken back.
                        recipient.state = State::Invited;
                        recipient.started = time;
                        recipient.cause = None;
                    }
                    self.metrics.leg_moved(None, Some(LegState::Invited));
                }
            }
            Event::Early { leg, allow, contact, .. } => {
                self.move_leg(&mut inner, *leg, State::Early, |recipient| {
                    learn(recipient, allow, contact);
                });
            }
            Event::Joined { leg, allow, contact } => {
                self.move_leg(&mut inner, *leg, State::Joined, |recipient| {
                    learn(recipient, allow, contact);
                    let setup = time.duration_since(recipient.started).unwrap_or_default();
                    self.metrics.leg_setup_seconds(setup.as_secs_f64());
                });
            }
            Event::OriginatorAnswered { .. } => {}
            Event::PageStarted { page, total, .. } => {
                if let Some(page) = inner.page(*page) {
                    if !page.state.is_over() {
                        page.state = PageState::Running;
                    }
                    page.size = page.size.or(*total);
                }
            }
            Event::PageComplete { page, size } => {
                if let Some(page) = inner.page(*page) {
                    page.size = Some(*size);
                }
            }
            Event::PageLost { .. } => {}
            Event::Sending { leg } => {
                self.move_leg(&mut inner, *leg, State::Sending, |_| {});
            }
            Event::Delivered { leg, octets } => {
                self.metrics.recipient(Outcome::Delivered, CauseLabel::None);
                self.move_leg(&mut inner, *leg, State::Delivered, |recipient| {
                    recipient.bytes = *octets;
                    recipient.ended = Some(time);
                });
                if let Some(page) = inner.page(leg.page) {
                    page.last_delivery = Some(time);
                }
            }
            Event::Failed { leg, cause, octets } => {
                if inner.page(leg.page).is_none() {
                    self.metrics.recipient(Outcome::Failed, CauseLabel::of(cause));
                }
                self.move_leg(&mut inner, *leg, State::Failed, |recipient| {
                    recipient.bytes = *octets;
                    recipient.ended = Some(time);
                    recipient.cause = Some(cause.clone());
                });
            }
            Event::Deferred { leg, cause } => {
                if inner.page(leg.page).is_none() {
                    self.metrics.recipient(Outcome::Deferred, CauseLabel::of(cause));
                }
                self.move_leg(&mut inner, *leg, State::Deferred, |recipient| {
                    recipient.cause = Some(cause.clone());
                    recipient.ended = Some(time);
                });
            }
            Event::Expired { leg, party } => {
                self.metrics.recipient(Outcome::Expired, CauseLabel::Timer);
                if let Some(page) = inner.page(leg.page) {
                    let new = || Recipient::new(party, State::Expired, time);
                    page.legs.entry(leg.n).or_insert_with(new);
                }
                self.move_leg(&mut inner, *leg, State::Expired, |recipient| {
                    recipient.ended = Some(time);
                });
            }
            Event::PageEnded { page, delivered, failed, deferred } => {
                self.page_ended(&mut inner, *page, (*delivered, *failed, *deferred));
            }
        }
    }

    /// The answer to `GET /api/pages`.
    pub fn list(&self, query: &Query) -> Value {
        let inner = self.lock();
        let before = match query.before {
            None => u64::MAX,
            Some(page) => match inner.numbers.get(&page) {
                Some(number) => *number,
                // A page that has left was older than all that are left.
                None => 0,
            },
        };
        let limit = query.limit.clamp(1, MOST_PAGES);
        let mut found = inner
            .pages
            .range(..before)
            .rev()
            .map(|(_, page)| page)
            .filter(|page| query.state.is_none_or(|state| page.state == state))
            .filter(|page| query.user.as_ref().is_none_or(|user| page.is_of(user)));
        let pages: Vec<&Page> = found.by_ref().take(limit).collect();
        let next = found.next().and(pages.last()).map(|page| page.id.to_string());
        json!({"pages": pages.iter().map(|page| page.summary()).collect::<Vec<_>>(), "next": next})
    }

    /// The answer to `GET /api/pages/{id}`.
    pub fn page(&self, id: PageId) -> Option<Value> {
        let inner = self.lock();
        inner.pages.get(inner.numbers.get(&id)?).map(Page::detail)
    }

    /// The state of a page; `None` if it is not known here.
    pub fn state(&self, id: PageId) -> Option<PageState> {
        let inner = self.lock();
        Some(inner.pages.get(inner.numbers.get(&id)?)?.state)
    }

    /// Pages that are not over.
    pub fn running(&self) -> usize {
        let inner = self.lock();
        inner.pages.len() - inner.over.len()
    }

    fn page_ended(
        &self,
        inner: &mut Inner,
        id: PageId,
        (delivered, failed, deferred): (u16, u16, u16),
    ) {
        let outcome = match (delivered, failed, deferred) {
            (_, 0, 1..) => Outcome::Deferred,
            (1.., 0, 0) => Outcome::Delivered,
            _ => Outcome::Failed,
        };
        let mode = inner.page(id).map_or(Mode::Large, |page| page.mode);
        self.metrics.page(label(mode), outcome);
        let Some(page) = inner.page(id) else { return };
        if let Some(last) = page.last_delivery {
            let took = last.duration_since(page.time).unwrap_or_default();
            self.metrics.page_delivery_seconds(took.as_secs_f64());
        }
        let waits = page.count(State::Deferred) > 0;
        self.over(inner, id, if waits { PageState::Deferred } else { PageState::Done });
    }

    /// The page has its final event.
    fn over(&self, inner: &mut Inner, id: PageId, state: PageState) {
        let Some(page) = inner.page(id) else { return };
        // A leg without a final event would be counted as live for ever.
        for recipient in page.legs.values_mut() {
            if let Some(live) = recipient.state.live() {
                self.metrics.leg_moved(Some(live), None);
                recipient.state = State::Failed;
            }
        }
        if !page.state.is_over() {
            page.count_failures(&self.metrics);
        }
        inner.over(id, state);
    }

    fn move_leg(
        &self,
        inner: &mut Inner,
        leg: LegId,
        to: State,
        change: impl FnOnce(&mut Recipient),
    ) {
        let Some(recipient) = inner.page(leg.page).and_then(|page| page.legs.get_mut(&leg.n))
        else {
            return;
        };
        self.metrics.leg_moved(recipient.state.live(), to.live());
        recipient.state = to;
        change(recipient);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every event leaves the board whole, whatever the one before did.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn page(&mut self, id: PageId) -> Option<&mut Page> {
        self.pages.get_mut(self.numbers.get(&id)?)
    }

    fn arrived(&mut self, most: usize, metrics: &Metrics, page: Page) {
        let number = self.next + 1;
        self.next = number;
        self.numbers.insert(page.id, number);
        self.pages.insert(number, page);
        while self.pages.len() > most {
            let oldest = match self.over.pop_front() {
                Some(number) => Some(number),
                None => self.pages.keys().next().copied(),
            };
            let Some(gone) = oldest.and_then(|number| self.pages.remove(&number)) else { break };
            for recipient in gone.legs.values() {
                metrics.leg_moved(recipient.state.live(), None);
            }
            if !gone.state.is_over() {
                gone.count_failures(metrics);
            }
            self.numbers.remove(&gone.id);
        }
    }

    /// A page that is known goes on; whether it is.
    fn goes_on(&mut self, id: PageId) -> bool {
        let Some(number) = self.numbers.get(&id).copied() else { return false };
        let Some(page) = self.pages.get_mut(&number) else { return false };
        if page.state.is_over() {
            self.over.retain(|over| *over != number);
        }
        page.state = PageState::Inviting;
        true
    }

    fn over(&mut self, id: PageId, state: PageState) {
        let Some(number) = self.numbers.get(&id).copied() else { return };
        let Some(page) = self.pages.get_mut(&number) else { return };
        if !page.state.is_over() {
            self.over.push_back(number);
        }
        page.state = state;
    }
}

impl Page {
    /// Counts the failures: once, when nobody is invited again any more.
    fn count_failures(&self, metrics: &Metrics) {
        for recipient in self.legs.values() {
            let outcome = match recipient.state {
                State::Failed => Outcome::Failed,
                State::Deferred => Outcome::Deferred,
                _ => continue,
            };
            if let Some(cause) = &recipient.cause {
                metrics.recipient(outcome, CauseLabel::of(cause));
            }
        }
    }

    fn count(&self, wanted: State) -> usize {
        self.legs.values().filter(|leg| leg.state == wanted).count()
    }

    fn is_of(&self, user: &str) -> bool {
        let is = |party: &Party| {
            party.uri.eq_ignore_ascii_case(user) || party.key.eq_ignore_ascii_case(user)
        };
        is(&self.originator)
            || self.legs.values().chain(&self.removed).any(|recipient| is(&recipient.party))
    }

    fn head(&self) -> Value {
        json!({
            "id": self.id.to_string(),
            "time": rfc3339(self.time),
            "originator": self.originator.uri,
            "target": self.target.uri,
            "mode": self.mode,
            "size": self.size,
            "state": self.state.as_str(),
        })
    }

    fn summary(&self) -> Value {
        let (delivered, failed) = (self.count(State::Delivered), self.count(State::Failed));
        let (deferred, expired) = (self.count(State::Deferred), self.count(State::Expired));
        let mut page = self.head();
        page["recipients"] = json!({
            "total": self.legs.len(),
            "delivered": delivered,
            "failed": failed,
            "pending": self.legs.len() - delivered - failed - deferred - expired,
            "deferred": deferred,
            "expired": expired,
        });
        page
    }

    fn detail(&self) -> Value {
        let mut page = self.head();
        page["recipients"] =
            self.legs.values().chain(&self.removed).map(Recipient::to_json).collect();
        page
    }
}

/// How pages are counted.
fn label(mode: Mode) -> metrics::Mode {
    match mode {
        Mode::Large => metrics::Mode::Large,
        Mode::Short => metrics::Mode::Short,
    }
}

impl Recipient {
    fn new(party: &Party, state: State, started: SystemTime) -> Self {
        Self {
            party: party.clone(),
            state,
            cause: None,
            attempts: 0,
            bytes: 0,
            started,
            ended: None,
            allow: None,
            contact: None,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "uri": self.party.uri,
            "state": self.state.as_str(),
            "cause": self.cause,
            "attempts": self.attempts,
            "bytes": self.bytes,
            "started": rfc3339(self.started),
            "ended": self.ended.map(rfc3339),
            "allow": self.allow.as_deref().unwrap_or_default(),
            "contact": self.contact,
        })
    }
}

/// IM-013, IM-014: what a 1xx or 200 tells replaces what was told before; what it does not tell stays.
fn learn(recipient: &mut Recipient, allow: &Option<Vec<Arc<str>>>, contact: &Option<Arc<str>>) {
    if let Some(allow) = allow {
        recipient.allow = Some(allow.clone());
    }
    if let Some(contact) = contact {
        recipient.contact = Some(contact.clone());
    }
}

fn removal_text(why: Removal) -> &'static str {
    match why {
        Removal::Originator => "the originator",
        Removal::Duplicate => "named before",
        Removal::Barred => "not allowed by policy",
        Removal::Unroutable => "cannot be routed",
        Removal::Away => "not registered",
        Removal::NestedGroup => "a group inside a list",
        Removal::Refused => "not allowed as a target",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn party(uri: &str) -> Party {
        Party { uri: uri.into(), key: uri.to_ascii_lowercase().into(), display: None }
    }

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_790_000_000_000 + millis)
    }

    fn page(n: u64) -> PageId {
        PageId::new(1, n)
    }

    fn arrived(board: &Board, n: u64) {
        board.on_event(
            at(n * 1000),
            &Event::PageArrived {
                mode: Mode::Large,
                page: page(n),
                originator: party("sip:alice@ims.test"),
                dialled: party("sip:pages@ims.test"),
                size: None,
            },
        );
    }

    fn leg(n: u64, leg: u16) -> LegId {
        LegId { page: page(n), n: leg }
    }

    fn sip_cause(code: u16, text: &str) -> Cause {
        Cause { protocol: CauseProtocol::Sip, code, text: text.into() }
    }

    /// One page to bob (delivered), carol (486), dave (still being sent to) and mallory (barred).
    fn story(board: &Board, n: u64) {
        arrived(board, n);
        let t = |millis| at(n * 1000 + millis);
        board.on_event(
            t(1),
            &Event::RecipientRemoved {
                page: page(n),
                party: party("sip:mallory@ims.test"),
                why: Removal::Barred,
            },
        );
        for (number, who) in [(1, "bob"), (2, "carol"), (3, "dave")] {
            let party = party(&format!("sip:{who}@ims.test"));
            board.on_event(t(2), &Event::Invited { leg: leg(n, number), party });
        }
        board.on_event(
            t(3),
            &Event::Early {
                leg: leg(n, 1),
                ringing: false,
                allow: Some(vec!["INVITE".into()]),
                contact: Some("sip:bob@192.0.2.1".into()),
            },
        );
        board.on_event(
            t(12),
            &Event::Joined {
                leg: leg(n, 1),
                allow: Some(vec!["INVITE".into(), "BYE".into()]),
                contact: None,
            },
        );
        let joined = Event::Joined { leg: leg(n, 3), allow: None, contact: None };
        board.on_event(t(13), &joined);
        let cause = sip_cause(486, "Busy Here");
        board.on_event(t(14), &Event::Failed { leg: leg(n, 2), cause, octets: 0 });
        board.on_event(
            t(15),
            &Event::PageStarted { page: page(n), content_type: "message/cpim".into(), total: None },
        );
        board.on_event(t(16), &Event::PageComplete { page: page(n), size: 8192 });
        board.on_event(t(17), &Event::Sending { leg: leg(n, 1) });
        board.on_event(t(17), &Event::Sending { leg: leg(n, 3) });
        board.on_event(t(20), &Event::Delivered { leg: leg(n, 1), octets: 8192 });
    }

    #[test]
    fn the_list_has_the_shape_of_the_interface() {
        let board = Board::new(10, Arc::new(Metrics::new()));
        story(&board, 5);
        let list = board.list(&Query { limit: 50, ..Query::default() });
        assert_eq!(
            list,
            json!({
                "pages": [{
                    "id": page(5).to_string(),
                    "time": "2026-09-21T14:13:25.000Z",
                    "originator": "sip:alice@ims.test",
                    "target": "sip:pages@ims.test",
                    "mode": "large",
                    "size": 8192,
                    "state": "running",
                    "recipients": {
                        "total": 3, "delivered": 1, "failed": 1, "pending": 1, "deferred": 0, "expired": 0
                    },
                }],
                "next": null,
            })
        );
        let cause = sip_cause(408, "timeout");
        board.on_event(at(6000), &Event::Failed { leg: leg(5, 3), cause, octets: 17 });
        board.on_event(
            at(6001),
            &Event::PageEnded { page: page(5), delivered: 1, failed: 2, deferred: 0 },
        );
        assert_eq!(board.state(page(5)), Some(PageState::Done));
        assert_eq!(board.running(), 0);
    }

    #[test]
    fn a_page_tells_what_became_of_each_recipient() {
        let board = Board::new(10, Arc::new(Metrics::new()));
        story(&board, 5);
        let shown = board.page(page(5)).expect("it is there");
        assert_eq!(
            shown["recipients"],
            json!([
                {
                    "uri": "sip:bob@ims.test", "state": "delivered", "cause": null, "attempts": 1,
                    "bytes": 8192, "started": "2026-09-21T14:13:25.002Z",
                    "ended": "2026-09-21T14:13:25.020Z", "allow": ["INVITE", "BYE"],
                    "contact": "sip:bob@192.0.2.1",
                },
                {
                    "uri": "sip:carol@ims.test", "state": "failed",
                    "cause": {"protocol": "SIP", "code": 486, "text": "Busy Here"}, "attempts": 1,
                    "bytes": 0, "started": "2026-09-21T14:13:25.002Z",
                    "ended": "2026-09-21T14:13:25.014Z", "allow": [], "contact": null,
                },
                {
                    "uri": "sip:dave@ims.test", "state": "sending", "cause": null, "attempts": 1,
                    "bytes": 0, "started": "2026-09-21T14:13:25.002Z", "ended": null, "allow": [],
                    "contact": null,
                },
                {
                    "uri": "sip:mallory@ims.test", "state": "removed",
                    "cause": {"protocol": "policy", "code": 0, "text": "not allowed by policy"},
                    "attempts": 0, "bytes": 0, "started": "2026-09-21T14:13:25.001Z",
                    "ended": "2026-09-21T14:13:25.001Z", "allow": [], "contact": null,
                },
            ])
        );
        assert_eq!(shown["size"], 8192);
        assert_eq!(board.page(page(6)), None);
    }

    #[test]
    fn pages_are_listed_newest_first_and_leafed_through() {
        let board = Board::new(100, Arc::new(Metrics::new()));
        for n in 1..=5 {
            arrived(&board, n);
        }
        story(&board, 6);
        board.on_event(
            at(9000),
            &Event::PageRefused { page: page(2), status: 403, text: "No destinations".into() },
        );
        let ids = |query: &Query| -> (Vec<String>, Value) {
            let list = board.list(query);
            let pages = list["pages"].as_array().expect("a list");
            (
                pages.iter().map(|page| page["id"].as_str().expect("an id").into()).collect(),
                list["next"].clone(),
            )
        };
        let expect = |numbers: &[u64]| -> Vec<String> {
            numbers.iter().map(|n| page(*n).to_string()).collect()
        };
        let all = Query { limit: 50, ..Query::default() };
        assert_eq!(ids(&all), (expect(&[6, 5, 4, 3, 2, 1]), Value::Null));
        let first = Query { limit: 2, ..all.clone() };
        assert_eq!(ids(&first), (expect(&[6, 5]), json!(page(5).to_string())));
        let second = Query { before: Some(page(5)), ..first.clone() };
        assert_eq!(ids(&second), (expect(&[4, 3]), json!(page(3).to_string())));
        let last = Query { before: Some(page(3)), ..first.clone() };
        assert_eq!(ids(&last), (expect(&[2, 1]), Value::Null));
        let gone = Query { before: Some(page(77)), ..first };
        assert_eq!(ids(&gone), (vec![], Value::Null));
        let refused = Query { state: Some(PageState::Refused), ..all.clone() };
        assert_eq!(ids(&refused).0, expect(&[2]));
        let running = Query { state: PageState::from_word("running"), ..all.clone() };
        assert_eq!(ids(&running).0, expect(&[6]));
        for (user, pages) in [
            ("sip:carol@ims.test", &[6][..]),
            ("sip:mallory@ims.test", &[6]),
            ("sip:alice@IMS.test", &[6, 5, 4, 3, 2, 1]),
            ("sip:nobody@ims.test", &[]),
        ] {
            let query = Query { user: Some(user.into()), ..all.clone() };
            assert_eq!(ids(&query).0, expect(pages), "{user}");
        }
    }

    #[test]
    fn the_board_is_bounded_and_running_pages_stay_longest() {
        let metrics = Arc::new(Metrics::new());
        let board = Board::new(3, metrics.clone());
        story(&board, 1);
        for n in 2..=3 {
            arrived(&board, n);
        }
        board.on_event(
            at(1),
            &Event::PageRefused { page: page(2), status: 403, text: String::new() },
        );
        arrived(&board, 4);
        assert_eq!(board.state(page(2)), None, "the one that is over leaves");
        assert_eq!(board.state(page(1)), Some(PageState::Running));
        let live = "pagecast_legs{state=\"sending\"} 1\n";
        assert!(metrics.text().contains(live));
        arrived(&board, 5);
        assert_eq!(board.state(page(1)), None, "where none is over the oldest leaves");
        assert!(!metrics.text().contains(live), "what is forgotten is not counted as live");
        assert_eq!(
            board.list(&Query { limit: 50, ..Query::default() })["pages"].as_array().map(Vec::len),
            Some(3)
        );
        // Events about pages that left change nothing.
        board.on_event(at(2), &Event::Delivered { leg: leg(1, 3), octets: 1 });
        board.on_event(
            at(2),
            &Event::PageEnded { page: page(1), delivered: 1, failed: 0, deferred: 0 },
        );
    }

    /// Somebody who was not there and is invited again has one result: the last.
    #[test]
    fn a_failure_may_be_taken_back() {
        let metrics = Arc::new(Metrics::new());
        let board = Board::new(10, metrics.clone());
        story(&board, 1);
        let party = Party { uri: "sip:carol@ims.test".into(), key: "carol".into(), display: None };
        board.on_event(at(5000), &Event::Invited { leg: leg(1, 2), party });
        let shown = board.page(page(1)).expect("it is there");
        let carol = &shown["recipients"][1];
        assert_eq!((&carol["state"], &carol["attempts"]), (&json!("invited"), &json!(2)));
        assert_eq!((&carol["cause"], &carol["ended"]), (&Value::Null, &Value::Null));
        board.on_event(at(6000), &Event::Delivered { leg: leg(1, 2), octets: 8192 });
        board.on_event(
            at(9000),
            &Event::PageEnded { page: page(1), delivered: 2, failed: 0, deferred: 0 },
        );
        let text = metrics.text();
        assert!(text.contains("pagecast_recipients_total{result=\"delivered\",cause=\"\"} 2\n"));
        assert!(!text.contains("cause=\"486\""), "{text}");
    }

    #[test]
    fn the_metrics_tell_the_same() {
        let metrics = Arc::new(Metrics::new());
        let board = Board::new(10, metrics.clone());
        story(&board, 1);
        let has = |sample: &str| {
            let text = metrics.text();
            assert!(text.contains(&format!("{sample}\n")), "{sample}: {text}");
        };
        has("pagecast_legs{state=\"sending\"} 1");
        has("pagecast_legs{state=\"invited\"} 0");
        has("pagecast_recipients_total{result=\"delivered\",cause=\"\"} 1");
        has("pagecast_recipients_total{result=\"refused\",cause=\"policy\"} 1");
        has("pagecast_leg_setup_seconds_count 2");
        board.on_event(
            at(9000),
            &Event::PageEnded { page: page(1), delivered: 1, failed: 2, deferred: 0 },
        );
        has("pagecast_pages_total{mode=\"large\",result=\"failed\"} 1");
        has("pagecast_recipients_total{result=\"failed\",cause=\"486\"} 1");
        has("pagecast_page_delivery_seconds_count 1");
        has("pagecast_page_delivery_seconds_bucket{le=\"0.025\"} 1");
        has("pagecast_legs{state=\"sending\"} 0");
    }
}
