//! The engine: decides what a page does next, whatever happens to it.
//!
//! No socket, no clock, no task, no SIP header: input goes in, effects come out, time is an argument.
//! Start at [`Engine::handle`], then `page` (one page), `fanout` (its recipients), `leg` (one recipient), `report` (what
//! the originator is owed); `short` is a page that is one MESSAGE, `lanes` who has to wait for others with it. `timers`
//! and `limits` are plain data. The same inputs at the same times give the same effects: nothing here depends on the
//! order of a hash map.
//! Follows sections A, B, D and E of the OMA rules and sections 7 and 12 of the MSRP rules.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

pub mod effect;
pub mod event;
mod fanout;
pub mod ids;
pub mod input;
mod lanes;
mod leg;
mod limits;
mod page;
pub mod party;
pub mod policy;
#[cfg(test)]
mod random;
pub mod record;
mod report;
mod short;
#[cfg(test)]
mod short_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timers;
#[cfg(test)]
mod waiting;

pub use lanes::SharedLanes;
pub use limits::SharedUsers;

use effect::Effect;
use event::Event;
use ids::PageId;
use input::{Arrival, Input, Mode, Refusal};
use page::{Around, Happens, Page};
use party::Recipient;
use policy::Policy;
use record::Restored;
use short::Short;
use timers::Timers;

/// Seconds after which a sender may try again when it was sent away for reasons of ours.
const RETRY_AFTER: u32 = 10;

/// All pages of one thread.
///
/// Contract: one input, then all of its effects in order, then the next input. An effect that fails is an input of its
/// own (`Refused`, `Unreachable`, `Failed`, …), never a reason to leave the rest out. Call [`Engine::wake`] when
/// [`Engine::next_wake`] says so; being late is safe, being early does nothing. `now` never goes back.
///
/// What is promised in return, whatever comes in:
/// * every [`Effect::Invite`] is followed by exactly one [`Effect::ReleaseLeg`], and nothing for that leg after it but
///   another `Invite` for a recipient who can be reached again ([`Input::Reachable`]);
/// * every [`Effect::Deliver`] follows [`Effect::Accept`], and there is one at a time to each target of the node;
/// * every recipient has one final event, `Delivered`, `Failed` or `Expired`, or a last `Deferred`; an `Invited` after a
///   `Failed` or `Deferred` takes that back;
/// * what is acknowledged is kept first ([`Effect::Keep`]), where somebody is left to keep it for; then every leg of the
///   page that was open has one [`Effect::Settled`] or [`Effect::Defer`] before it is forgotten;
/// * every page that arrived has exactly one [`Effect::ReleaseOriginator`], and it and every page that was restored has
///   one final event (`PageEnded` if 200 was sent, else `PageRefused`) and one [`Effect::Forget`], which comes last,
///   with no timer left.
///
/// Inputs for pages and legs the engine does not know are passed over: they crossed the end of the page.
#[derive(Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    pages: BTreeMap<PageId, Page>,
    shorts: BTreeMap<PageId, Short>,
    timers: Timers,
    users: SharedUsers,
    lanes: SharedLanes,
    /// Recipients who were not reached, with the running pages that tried.
    offline: BTreeSet<(Arc<str>, PageId)>,
    draining: bool,
    /// What is accepted can be kept.
    keeps: bool,
}

impl Engine {
    /// An engine without pages, with users of its own.
    pub fn new(policy: Policy) -> Self {
        Self::sharing(policy, SharedUsers::default(), SharedLanes::default())
    }

    /// An engine without pages that shares with others the limits of users (IM-036) and the order of MESSAGEs (IM-079).
    pub fn sharing(policy: Policy, users: SharedUsers, lanes: SharedLanes) -> Self {
        Self {
            policy: Arc::new(policy),
            pages: BTreeMap::new(),
            shorts: BTreeMap::new(),
            timers: Timers::default(),
            users,
            lanes,
            offline: BTreeSet::new(),
            draining: false,
            keeps: true,
        }
    }

    /// Decides what follows from one input. Performs nothing; appends to `out`.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Arrived(arrival) => self.on_arrival(now, arrival, out),
            Input::Resolved { page, result } => {
                self.on_page(now, page, Happens::Resolved(result), out);
            }
            Input::Originator { page, event } => {
                self.on_page(now, page, Happens::Originator(event), out);
            }
            Input::Leg { leg, event } => {
                self.on_page(now, leg.page, Happens::Leg(leg.n, event), out);
            }
            Input::OriginatorMedia { page, event } => {
                self.on_page(now, page, Happens::OriginatorMedia(event), out);
            }
            Input::LegMedia { leg, event } => {
                self.on_page(now, leg.page, Happens::LegMedia(leg.n, event), out);
            }
            Input::End { page } => self.on_page(now, page, Happens::Ended, out),
            Input::Reachable { user } => self.on_reachable(now, &user, out),
            Input::Kept { page, kept } => self.on_page(now, page, Happens::Kept(kept), out),
            Input::Turn { leg } => self.on_page(now, leg.page, Happens::Turn(leg.n), out),
            Input::Restored(restored) => self.on_restored(now, *restored, out),
        }
    }

    /// A kept page goes on where it was left.
    fn on_restored(&mut self, now: Instant, restored: Restored, out: &mut Vec<Effect>) {
        let id = restored.record.arrival.page;
        let mut around = Around { now, timers: &mut self.timers, out };
        if restored.record.arrival.mode == Mode::Short {
            if let Some(page) = self.shorts.get_mut(&id) {
                page.serve(&restored.open, &self.lanes, &mut around);
            } else {
                let policy = self.policy.clone();
                let page = Short::restored(restored, policy, &self.lanes, &mut around);
                self.shorts.insert(id, page);
            }
            return self.look_after(id);
        }
        match self.pages.get_mut(&id) {
            Some(page) => page.serve(&restored.open, &mut around),
            None => {
                let page = Page::restored(restored, self.policy.clone(), &mut around);
                self.pages.insert(id, page);
            }
        }
        self.look_after(id);
    }

    /// A failure to find somebody counts until they can be found.
    fn on_reachable(&mut self, now: Instant, user: &Arc<str>, out: &mut Vec<Effect>) {
        let from = (Arc::clone(user), PageId::new(0, 0));
        let pages: Vec<PageId> = self
            .offline
            .range(from..)
            .take_while(|(key, _)| key == user)
            .map(|(_, page)| *page)
            .collect();
        for page in pages {
            self.on_page(now, page, Happens::Reachable(Arc::clone(user)), out);
        }
    }

    /// Decides what follows from the time alone.
    pub fn wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some((page, kind)) = self.timers.pop(now) {
            self.on_page(now, page, Happens::Due(kind), out);
        }
    }

    /// When to call [`Engine::wake`] at the latest; `None` when nothing is pending.
    pub fn next_wake(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether a new page would be taken on at all: the check to make before any other work.
    ///
    /// IM-036: 503 with Retry-After while draining or full; the one refusal meant to be bypassed.
    pub fn admits(&self) -> Result<(), Refusal> {
        self.admits_to(self.policy.max_pages)
    }

    /// Whether pages can be kept at present; new ones are sent away while they cannot.
    pub fn keeps_pages(&mut self, can: bool) {
        self.keeps = can;
    }

    /// Whether a page of this name is on its way.
    pub fn has(&self, page: PageId) -> bool {
        self.pages.contains_key(&page) || self.shorts.contains_key(&page)
    }

    /// There is no room for another page.
    pub fn is_full(&self) -> bool {
        self.pages() >= self.policy.max_pages
    }

    fn admits_to(&self, most: usize) -> Result<(), Refusal> {
        if !self.keeps {
            // Not 503, which would have the S-CSCF go round us with a page nobody keeps.
            return Err(short::store_is_down());
        }
        if !self.draining && self.pages() < most {
            return Ok(());
        }
        let text = if self.draining { "going down" } else { "too many pages" };
        let mut refusal = Refusal::new(503, "IM-036").warn(text);
        refusal.retry_after = Some(RETRY_AFTER);
        Err(refusal)
    }

    /// No new pages from now on; those on their way finish. [`Engine::is_idle`] tells when.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// No page is on its way.
    pub fn is_idle(&self) -> bool {
        self.pages() == 0
    }

    /// How many pages are on their way.
    pub fn pages(&self) -> usize {
        self.pages.len() + self.shorts.len()
    }

    /// How many MESSAGEs are on their way or wait for another to the same target; 0 when idle.
    pub fn lined(&self) -> usize {
        self.lanes.lock().len()
    }

    /// How many failures to reach somebody are remembered; 0 when idle.
    pub fn unreached(&self) -> usize {
        self.offline.len()
    }

    /// How many timers are set; 0 when idle.
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// New choices, for the pages that arrive from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = Arc::new(policy);
    }

    /// Drops a page as it is, without a word to anybody: the last resort of a caller that has seen a fault in it.
    /// Returns the final events it still owes to operators, and the turns it leaves to others.
    pub fn abandon(&mut self, id: PageId) -> Vec<Effect> {
        self.timers.clear(id);
        if let Some(mut page) = self.shorts.remove(&id) {
            self.users.lock().end(page.names());
            self.stop_looking(id, page.recipients());
            return page.abandoned(&self.lanes);
        }
        let Some(page) = self.pages.remove(&id) else { return Vec::new() };
        self.users.lock().end(page.names());
        self.stop_looking(id, page.recipients());
        page.abandoned().into_iter().map(Effect::Event).collect()
    }

    fn stop_looking(&mut self, id: PageId, recipients: &[Recipient]) {
        for recipient in recipients {
            self.offline.remove(&(Arc::clone(&recipient.party.key), id));
        }
    }

    /// The caller mints the ids; a second arrival under one that is alive is passed over.
    fn on_arrival(&mut self, now: Instant, arrival: Arrival, out: &mut Vec<Effect>) {
        let id = arrival.page;
        if self.has(id) {
            return;
        }
        out.push(Effect::Event(Event::PageArrived {
            page: id,
            mode: arrival.mode,
            originator: arrival.originator.clone(),
            dialled: arrival.dialled.clone(),
            size: arrival.size,
        }));
        // ISC-069: an eighth more is kept for what is urgent.
        let most = self.policy.max_pages;
        let most = if arrival.urgent { most + most.div_ceil(8) } else { most };
        if let Err(refusal) = self.admits_to(most).and_then(|()| self.count_in(now, &arrival)) {
            let short = arrival.mode == Mode::Short;
            let refusal = if short { refusal.for_message() } else { refusal };
            let (status, text) = (refusal.status, refusal.text());
            out.push(Effect::Refuse { page: id, refusal });
            out.push(Effect::Event(Event::PageRefused { page: id, status, text }));
            out.push(Effect::ReleaseOriginator { page: id });
            out.push(Effect::Forget { page: id });
            return;
        }
        let mut around = Around { now, timers: &mut self.timers, out };
        let policy = self.policy.clone();
        match arrival.mode {
            Mode::Large => {
                self.pages.insert(id, Page::accept(arrival, policy, &mut around));
            }
            Mode::Short => {
                self.shorts.insert(id, Short::accept(arrival, policy, &mut around));
            }
        }
    }

    /// IM-036: over a limit of the user's own, 486.
    fn count_in(&mut self, now: Instant, arrival: &Arrival) -> Result<(), Refusal> {
        self.users.lock().begin(now, &names(arrival), &self.policy).map_err(|over| {
            Refusal::new(486, "IM-036").warn("102 Too many participants").key(over.0)
        })
    }

    fn on_page(&mut self, now: Instant, id: PageId, what: Happens, out: &mut Vec<Effect>) {
        let mut around = Around { now, timers: &mut self.timers, out };
        if let Some(page) = self.pages.get_mut(&id) {
            page.handle(what, &mut around);
        } else if let Some(page) = self.shorts.get_mut(&id) {
            page.handle(what, &self.lanes, &mut around);
        }
        self.look_after(id);
    }

    /// After every move of a page: who it looks for, and whether it is over.
    fn look_after(&mut self, id: PageId) {
        if let Some(page) = self.shorts.get_mut(&id) {
            self.offline.extend(page.unreached().into_iter().map(|user| (user, id)));
            if page.is_over() {
                let page = self.shorts.remove(&id).expect("it was found above");
                self.users.lock().end(page.names());
                self.stop_looking(id, page.recipients());
            }
        }
        let Some(page) = self.pages.get_mut(&id) else { return };
        self.offline.extend(page.unreached().map(|user| (user, id)));
        if page.is_over() {
            let page = self.pages.remove(&id).expect("it was found above");
            self.users.lock().end(page.names());
            self.stop_looking(id, page.recipients());
        }
    }
}

/// The keys an originator's pages count under, each once.
fn names(arrival: &Arrival) -> Vec<Arc<str>> {
    let mut names = vec![Arc::clone(&arrival.originator.key)];
    for key in arrival.identities.iter().map(|party| &party.key).chain(&arrival.aliases) {
        if !names.contains(key) {
            names.push(Arc::clone(key));
        }
    }
    names
}
