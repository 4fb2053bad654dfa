//! Charging records: what became of each page, one line of JSON for every recipient, for the operator's billing.
//!
//! Start at [`Collector`], which one thread's engine events go into and [`Record`]s come out of, and [`Records`], which
//! keeps them: one file at a time below `node.data_dir`, closed and renamed when it is large or old enough to be fetched.
//! Knows no SIP; what the core calls a page is told by [`Named`]. Carries identities, and never any content.

mod files;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::engine::effect::{Cause, CauseProtocol};
use crate::engine::event::Event;
use crate::engine::ids::{LegId, PageId};

pub use files::{Counts, Records, Settings};

/// Version of the lines: grows when a member changes its meaning, not when one is added.
pub const VERSION: u8 = 1;

/// How the core names a page (TS 24.229 5.7, RFC 7315 §5.6); whatever is not known is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Named {
    /// `icid-value` of the originator's request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icid_generated_at: Option<String>,
    /// Inter-operator identifiers: of the originator's network as received, and ours in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orig_ioi: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term_ioi: Option<String>,
    /// P-Charging-Function-Addresses as it counts for the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charging_functions: Option<String>,
}

/// What became of a page for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every octet was acknowledged.
    Delivered,
    Failed,
    /// The page waits for the recipient; another record tells how that ended.
    Deferred,
    /// The page waited too long.
    Expired,
    /// The page was refused: there is one record, without a recipient.
    Refused,
}

/// One line. Times are UTC with milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    pub version: u8,
    pub node: Arc<str>,
    pub page: PageId,
    /// Counted from 1 in the order of inviting; absent where the page was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<u16>,
    pub originator: Arc<str>,
    /// The service or group that was asked for.
    pub dialled: Arc<str>,
    /// Who the recipient is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Arc<str>>,
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Octets of the whole page; absent if it never was whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Octets this recipient has acknowledged.
    pub octets: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Arc<str>>,
    #[serde(serialize_with = "utc")]
    pub arrived: SystemTime,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "utc_if")]
    pub answered: Option<SystemTime>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "utc_if")]
    pub invited: Option<SystemTime>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "utc_if")]
    pub joined: Option<SystemTime>,
    /// When the outcome was known.
    #[serde(serialize_with = "utc")]
    pub ended: SystemTime,
    #[serde(flatten)]
    pub named: Named,
    /// `icid-value` of the recipient's leg (TS 24.229 5.7.3: it has one of its own).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leg_icid: Option<String>,
}

/// Where the names of the core come from.
pub trait Names {
    /// Of a page that runs.
    fn page(&self, page: PageId) -> Named;

    /// `icid-value` of a leg that was invited; `None` where its INVITE carries none.
    fn leg(&self, leg: LegId) -> Option<String>;
}

/// What the running pages of one thread have come to.
///
/// Holds one entry a page and recipient, as the engine does; nothing of a page stays behind its last event.
#[derive(Debug)]
pub struct Collector {
    node: Arc<str>,
    pages: BTreeMap<PageId, Page>,
}

#[derive(Debug)]
struct Page {
    originator: Arc<str>,
    dialled: Arc<str>,
    arrived: SystemTime,
    answered: Option<SystemTime>,
    content_type: Option<Arc<str>>,
    size: Option<u64>,
    legs: BTreeMap<u16, Leg>,
}

#[derive(Debug)]
struct Leg {
    to: Arc<str>,
    icid: Option<String>,
    invited: SystemTime,
    joined: Option<SystemTime>,
    end: Option<End>,
}

#[derive(Debug)]
struct End {
    at: SystemTime,
    outcome: Outcome,
    cause: Option<Cause>,
    octets: u64,
}

impl Collector {
    /// For the records of this node.
    pub fn new(node: Arc<str>) -> Self {
        Self { node, pages: BTreeMap::new() }
    }

    /// Takes an event in. Records come with the last event of a page, one a recipient in the order of inviting.
    pub fn event(&mut self, at: SystemTime, event: &Event, names: &impl Names) -> Vec<Record> {
        match event {
            Event::PageArrived { page, originator, dialled, .. }
            | Event::PageRestored { page, originator, dialled, .. } => {
                let size = match event {
                    Event::PageRestored { size, .. } => Some(*size),
                    _ => None,
                };
                let begun = Page {
                    originator: Arc::clone(&originator.uri),
                    dialled: Arc::clone(&dialled.uri),
                    arrived: at,
                    answered: None,
                    content_type: None,
                    size,
                    legs: BTreeMap::new(),
                };
                self.pages.insert(*page, begun);
            }
            Event::PageRefused { page, status, text } => {
                let Some(refused) = self.pages.remove(page) else { return Vec::new() };
                let cause = Some(Cause::new(CauseProtocol::Sip, *status, text.clone()));
                let end = End { at, outcome: Outcome::Refused, cause, octets: 0 };
                return vec![refused.record(&self.node, (*page, names.page(*page)), None, &end)];
            }
            Event::PageEnded { page, .. } => {
                let Some(mut ended) = self.pages.remove(page) else { return Vec::new() };
                let legs = std::mem::take(&mut ended.legs);
                let named = names.page(*page);
                let record = |(n, mut leg): (u16, Leg)| {
                    let end = leg.end.take()?;
                    Some(ended.record(&self.node, (*page, named.clone()), Some((n, &leg)), &end))
                };
                return legs.into_iter().filter_map(record).collect();
            }
            Event::OriginatorAnswered { page } => {
                self.change(*page, |page| page.answered = Some(at))
            }
            Event::PageStarted { page, content_type, .. } => {
                self.change(*page, |page| page.content_type = Some(Arc::clone(content_type)));
            }
            Event::PageComplete { page, size } => {
                self.change(*page, |page| page.size = Some(*size));
            }
            Event::Invited { leg, party } => self.change(leg.page, |page| {
                let (to, icid) = (Arc::clone(&party.uri), names.leg(*leg));
                // Invited once more: what was told of the first time is taken back.
                page.legs.insert(leg.n, Leg { to, icid, invited: at, joined: None, end: None });
            }),
            Event::Joined { leg, .. } => self.change_leg(*leg, |leg| leg.joined = Some(at)),
            Event::Delivered { leg, octets } => {
                self.ends(*leg, at, (Outcome::Delivered, None), *octets)
            }
            Event::Failed { leg, cause, octets } => {
                self.ends(*leg, at, (Outcome::Failed, Some(cause.clone())), *octets)
            }
            Event::Deferred { leg, cause } => {
                self.ends(*leg, at, (Outcome::Deferred, Some(cause.clone())), 0)
            }
            Event::Expired { leg, party } => self.change(leg.page, |page| {
                let end = Some(End { at, outcome: Outcome::Expired, cause: None, octets: 0 });
                let to = Arc::clone(&party.uri);
                page.legs.insert(leg.n, Leg { to, icid: None, invited: at, joined: None, end });
            }),
            Event::RecipientRemoved { .. }
            | Event::Early { .. }
            | Event::PageLost { .. }
            | Event::Sending { .. } => {}
        }
        Vec::new()
    }

    fn ends(
        &mut self,
        leg: LegId,
        at: SystemTime,
        (outcome, cause): (Outcome, Option<Cause>),
        octets: u64,
    ) {
        self.change_leg(leg, |leg| leg.end = Some(End { at, outcome, cause, octets }));
    }

    fn change(&mut self, page: PageId, by: impl FnOnce(&mut Page)) {
        if let Some(page) = self.pages.get_mut(&page) {
            by(page);
        }
    }

    fn change_leg(&mut self, leg: LegId, by: impl FnOnce(&mut Leg)) {
        self.change(leg.page, |page| {
            if let Some(leg) = page.legs.get_mut(&leg.n) {
                by(leg);
            }
        });
    }
}

impl Page {
    fn record(
        &self,
        node: &Arc<str>,
        (page, named): (PageId, Named),
        leg: Option<(u16, &Leg)>,
        end: &End,
    ) -> Record {
        let leg_of = leg.map(|(_, leg)| leg);
        Record {
            version: VERSION,
            node: Arc::clone(node),
            page,
            recipient: leg.map(|(n, _)| n),
            originator: Arc::clone(&self.originator),
            dialled: Arc::clone(&self.dialled),
            to: leg_of.map(|leg| Arc::clone(&leg.to)),
            outcome: end.outcome,
            cause: end.cause.clone(),
            size: self.size,
            octets: end.octets,
            content_type: self.content_type.clone(),
            arrived: self.arrived,
            answered: self.answered,
            invited: leg_of.map(|leg| leg.invited),
            joined: leg_of.and_then(|leg| leg.joined),
            ended: end.at,
            named,
            leg_icid: leg_of.and_then(|leg| leg.icid.clone()),
        }
    }
}

fn utc<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&crate::flow::rfc3339(*time))
}

fn utc_if<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => utc(time, to),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests;
