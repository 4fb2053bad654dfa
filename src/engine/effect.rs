//! What the engine wants done. The node performs effects in order.

use std::sync::Arc;
use std::time::Instant;

use super::event::Event;
use super::ids::{LegId, PageId};
use super::input::Refusal;
use super::party::{Audience, Recipient, Target};
use super::record::Record;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Find out who is meant; comes back as `Input::Resolved`.
    Resolve { page: PageId, target: Target },
    /// Invite one recipient: reserve its MSRP session, send the INVITE.
    Invite { leg: LegId, recipient: Recipient, audience: Arc<Audience> },
    /// A provisional response above 100 to the originator (IM-020, IM-054).
    Progress { page: PageId, ringing: bool },
    /// 200 to the originator (IM-051).
    Answer { page: PageId, warnings: Vec<String> },
    /// Final non-2xx to the originator.
    Refuse { page: PageId, refusal: Refusal },
    /// CANCEL of one INVITE (IM-061).
    Cancel { leg: LegId, cause: Cause },
    /// The recipient's media may flow: connect or wait for the peer, then send from octet 1 (IM-017, IM-058).
    Join { leg: LegId },
    /// Stop sending to this recipient with `#` (MS-090).
    Abort { leg: LegId },
    /// BYE to a recipient.
    EndLeg { leg: LegId, cause: Option<Cause> },
    /// BYE to the originator.
    EndOriginator { page: PageId, cause: Option<Cause> },
    /// REPORT over the whole page to the originator (MS-089): a failure, or status 200 where `sr_policy` waits for the
    /// first delivery. At most one a page. The switch knows what the SEND asked for, and leaves out a REPORT nobody
    /// asked for or one that would contradict a success it has reported.
    Report { page: PageId, status: u16, text: &'static str },
    /// Have the page kept, with its body and the legs that are not done; comes back as `Input::Kept`. Nothing is
    /// acknowledged before.
    Keep { page: PageId, record: Box<Record>, open: Vec<u16>, until: Instant },
    /// The large page is safe, or cannot be kept: what the originator is owed for its last octets may leave.
    Confirm { page: PageId, kept: bool },
    /// 202 to the originator of a short page (UL-027).
    Accept { page: PageId, warnings: Vec<String> },
    /// Send a short page to one recipient.
    Deliver { leg: LegId, recipient: Recipient, audience: Arc<Audience> },
    /// It is this leg's turn to have its short page sent; its page may be another thread's. Comes back as `Input::Turn`
    /// there.
    Turn { leg: LegId },
    /// A leg of a kept page has its final result: it must not be served again.
    Settled { leg: LegId },
    /// A leg of a kept page waits until its recipient is back, at most until then (IM-097).
    Defer { leg: LegId, user: Arc<str>, until: Instant },
    /// The leg's MSRP session is over; its URI dies now (MS-005).
    ReleaseLeg { leg: LegId },
    /// The originator's MSRP session is over.
    ReleaseOriginator { page: PageId },
    /// Nothing is left of the page: drop the spool and every table entry.
    Forget { page: PageId },
    /// Something operators see.
    Event(Event),
}

impl Effect {
    /// The page it is about; events are about what came before them.
    pub fn page(&self) -> Option<PageId> {
        match self {
            Self::Resolve { page, .. }
            | Self::Progress { page, .. }
            | Self::Answer { page, .. }
            | Self::Refuse { page, .. }
            | Self::EndOriginator { page, .. }
            | Self::Report { page, .. }
            | Self::Keep { page, .. }
            | Self::Confirm { page, .. }
            | Self::Accept { page, .. }
            | Self::ReleaseOriginator { page }
            | Self::Forget { page } => Some(*page),
            Self::Invite { leg, .. }
            | Self::Cancel { leg, .. }
            | Self::Join { leg }
            | Self::Abort { leg }
            | Self::EndLeg { leg, .. }
            | Self::Deliver { leg, .. }
            | Self::Turn { leg }
            | Self::Settled { leg }
            | Self::Defer { leg, .. }
            | Self::ReleaseLeg { leg } => Some(leg.page),
            Self::Event(_) => None,
        }
    }
}

/// Why something ended, in the protocol's own terms. Goes into `Reason` headers, the API and events.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cause {
    pub protocol: CauseProtocol,
    /// SIP or MSRP status, or 0 where there is none.
    pub code: u16,
    pub text: String,
}

impl Cause {
    /// A cause in one line.
    pub fn new(protocol: CauseProtocol, code: u16, text: impl Into<String>) -> Self {
        Self { protocol, code, text: text.into() }
    }
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CauseProtocol {
    #[serde(rename = "SIP")]
    Sip,
    #[serde(rename = "MSRP")]
    Msrp,
    #[serde(rename = "policy")]
    Policy,
    #[serde(rename = "timer")]
    Timer,
    #[serde(rename = "store")]
    Store,
}
