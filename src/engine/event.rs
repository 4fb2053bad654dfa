//! What operators see: one typed list from which logs, metrics, the API and tests are made. No message body, ever.

use std::sync::Arc;

use super::effect::Cause;
use super::ids::{LegId, PageId};
use super::input::Mode;
use super::party::{Party, Removal};

/// One thing that happened to a page, in the order it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    PageArrived {
        page: PageId,
        mode: Mode,
        originator: Party,
        dialled: Party,
        size: Option<u64>,
    },
    /// A kept page goes on: whoever waited is served, or a restart lies between.
    PageRestored {
        page: PageId,
        mode: Mode,
        originator: Party,
        dialled: Party,
        size: u64,
    },
    /// Refused before or after the recipients were known; final.
    PageRefused {
        page: PageId,
        status: u16,
        text: String,
    },
    RecipientRemoved {
        page: PageId,
        party: Party,
        why: Removal,
    },
    Invited {
        leg: LegId,
        party: Party,
    },
    Early {
        leg: LegId,
        ringing: bool,
        allow: Option<Vec<Arc<str>>>,
        contact: Option<Arc<str>>,
    },
    Joined {
        leg: LegId,
        allow: Option<Vec<Arc<str>>>,
        contact: Option<Arc<str>>,
    },
    /// 200 went to the originator.
    OriginatorAnswered {
        page: PageId,
    },
    PageStarted {
        page: PageId,
        content_type: Arc<str>,
        total: Option<u64>,
    },
    /// The whole page is here; `size` is the complete body.
    PageComplete {
        page: PageId,
        size: u64,
    },
    /// The page will never be whole.
    PageLost {
        page: PageId,
        cause: Cause,
    },
    Sending {
        leg: LegId,
    },
    /// Final for this recipient: every octet acknowledged.
    Delivered {
        leg: LegId,
        octets: u64,
    },
    /// Final for this recipient.
    Failed {
        leg: LegId,
        cause: Cause,
        octets: u64,
    },
    /// The recipient was not there; the page waits for them (IM-097). Not final.
    Deferred {
        leg: LegId,
        cause: Cause,
    },
    /// Final for this recipient: the page waited too long.
    Expired {
        leg: LegId,
        party: Party,
    },
    /// Final for the page: every recipient has its result or waits, and nothing is left open.
    PageEnded {
        page: PageId,
        delivered: u16,
        failed: u16,
        deferred: u16,
    },
}
