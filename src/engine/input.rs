//! What happens to a page: everything the engine is told.

use std::sync::Arc;
use std::time::Duration;

use super::ids::{LegId, PageId};
use super::party::{Audience, Party, Target};
use super::record::Restored;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A request that passed every check on signalling arrived (section B of the OMA rules, steps 1 to 10).
    Arrived(Arrival),
    /// Who is meant and allowed is known, or the page is refused.
    Resolved { page: PageId, result: Result<Audience, Refusal> },
    /// The originator's session.
    Originator { page: PageId, event: OriginatorEvent },
    /// A recipient's session.
    Leg { leg: LegId, event: LegEvent },
    /// The originator's bytes.
    OriginatorMedia { page: PageId, event: OriginatorMedia },
    /// A recipient's bytes.
    LegMedia { leg: LegId, event: LegMedia },
    /// An operator ends the page.
    End { page: PageId },
    /// A user can be reached now: whoever of the running pages failed to find them invites them again, once
    /// for each time this is heard.
    Reachable { user: Arc<str> },
    /// The answer to `Effect::Keep`: the page is safe, or cannot be kept now.
    Kept { page: PageId, kept: bool },
    /// `Effect::Turn` for a leg that may be here.
    Turn { leg: LegId },
    /// A kept page goes on: after a restart, on another node, or because a recipient it waited for is back.
    Restored(Box<Restored>),
}

impl Input {
    /// The page it is about, if it is about one.
    pub fn page(&self) -> Option<PageId> {
        Some(match self {
            Self::Reachable { .. } => return None,
            Self::Arrived(arrival) => arrival.page,
            Self::Restored(restored) => restored.record.arrival.page,
            Self::Resolved { page, .. }
            | Self::Originator { page, .. }
            | Self::OriginatorMedia { page, .. }
            | Self::Kept { page, .. }
            | Self::End { page } => *page,
            Self::Leg { leg, .. } | Self::LegMedia { leg, .. } | Self::Turn { leg } => leg.page,
        })
    }
}

/// How a page comes, and goes to its recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// INVITE and MSRP.
    Large,
    /// One SIP MESSAGE.
    Short,
}

/// A page that wants to be sent.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Arrival {
    pub page: PageId,
    pub mode: Mode,
    pub originator: Party,
    /// All asserted identities of the originator, the first included.
    pub identities: Vec<Party>,
    pub target: Target,
    /// What was dialled: the factory or the group.
    pub dialled: Party,
    pub anonymous: bool,
    /// Complete size in octets where the offer told it (IM-030).
    pub size: Option<u64>,
    /// The originator can take reliable provisional responses: decides how often 183 is repeated (IM-020).
    pub reliable: bool,
    /// The core asks for precedence: taken although the node is full, as far as that goes (ISC-069).
    pub urgent: bool,
    /// Keys of all names the originator goes by, as far as they are known; limits count by each of them (IM-036).
    pub aliases: Vec<Arc<str>>,
    /// How long the originator wants the page to be tried, where it says so.
    pub lifetime: Option<Duration>,
}

/// What the originator's dialog did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginatorEvent {
    /// CANCEL before our final answer (IM-063). The INVITE has been answered 487.
    Cancelled,
    Acked,
    /// No ACK for our 200 (IM-066).
    AckMissing,
    /// No PRACK for a reliable 183 (IM-053). The INVITE has been answered 500.
    PrackMissing,
    Bye,
    /// The session timer ran out.
    Expired,
}

/// What a recipient's dialog did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegEvent {
    /// A provisional response above 100; `allow` and `contact` as far as it carried them (IM-013, IM-014).
    Early {
        ringing: bool,
        allow: Option<Vec<Arc<str>>>,
        contact: Option<Arc<str>>,
    },
    /// 2xx whose media answer the switch can use. It is acknowledged already.
    Accepted {
        allow: Option<Vec<Arc<str>>>,
        contact: Option<Arc<str>>,
    },
    /// 2xx whose media answer cannot be used: acknowledged, to be ended (IM-060).
    Unusable {
        text: String,
    },
    /// Final non-2xx.
    Refused {
        status: u16,
        text: String,
        /// When the recipient may be tried again, seconds.
        retry_after: Option<u32>,
    },
    /// No final answer by the transaction's own timer, or nothing could be sent.
    Unreachable {
        timeout: bool,
    },
    Bye,
    /// The session timer ran out.
    Expired,
}

/// What the originator's MSRP session did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginatorMedia {
    Bound,
    /// First octet with content: the audience is frozen (MS-084).
    Started {
        content_type: Arc<str>,
        total: Option<u64>,
    },
    /// The page is whole in the spool: `$` arrived and nothing is missing.
    Complete {
        size: u64,
    },
    /// Everything owed to the originator on MSRP so far (responses, REPORT) is written. May come again after a REPORT.
    Settled,
    /// The page will never be whole.
    Aborted(PageLoss),
}

/// Why the originator's bytes ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum PageLoss {
    /// The sender flagged `#` (MS-065).
    Sender,
    /// The connection broke (MS-036).
    Connection,
    /// No octet within the gap time (MS-064).
    Gap,
    /// Never bound to a connection (MS-035).
    Bind,
    /// Larger than allowed (IM-074).
    TooBig,
    /// A type we did not agree to, or content we refuse (IM-075, MS-094); the MSRP code we answered.
    Refused(u16),
    /// The spool cannot take it.
    Storage,
}

/// What a recipient's MSRP session did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegMedia {
    Bound,
    /// First octets of the page went out.
    Sending,
    /// So many octets are acknowledged; worth telling before `Failed`, so that operators see how far it came.
    Progress {
        octets: u64,
    },
    /// All octets are acknowledged (MS section 7.1).
    Delivered {
        octets: u64,
    },
    /// The switch has stopped sending; where a chunk was open it ended it with `#`.
    Failed {
        cause: MediaFailure,
    },
    /// Nothing is outstanding on this leg any more: `#` is written, responses are in (MS-108).
    Quiet,
}

/// Why a recipient cannot get the page over MSRP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaFailure {
    /// The peer's MSRP status, by response or REPORT.
    Status(u16),
    /// Connection refused or lost.
    Connection,
    /// Nobody bound the session in time (MS-035).
    Bind,
    /// No progress (MS-091).
    Stall,
    /// No response (MS-077).
    Timeout,
    /// Larger than the peer takes (MS-093).
    TooBig,
    /// A content type the peer does not take (MS-011).
    Type,
}

/// Why a page is not served, in the words of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// SIP status.
    pub status: u16,
    /// Text behind `Warning: 399 host`, or with its own code.
    pub warning: Option<(u16, String)>,
    /// Seconds for Retry-After.
    pub retry_after: Option<u32>,
    /// Further header fields, name and value, e.g. Unsupported or Accept.
    pub headers: Vec<(&'static str, String)>,
    /// The rule that decided, and the profile key that would change it, for the log.
    pub rule: &'static str,
    pub key: Option<&'static str>,
}

impl Refusal {
    /// A refusal with nothing but a status and the rule that asks for it.
    pub fn new(status: u16, rule: &'static str) -> Self {
        Self { status, warning: None, retry_after: None, headers: Vec::new(), rule, key: None }
    }

    /// Adds `Warning: 399 <host> "text"`.
    #[must_use]
    pub fn warn(mut self, text: impl Into<String>) -> Self {
        self.warning = Some((399, text.into()));
        self
    }

    /// The reason in words, for operators.
    pub fn text(&self) -> String {
        match &self.warning {
            Some((_, text)) => text.clone(),
            None => "no recipient took the page".to_owned(),
        }
    }

    /// The refusal as a MESSAGE gets it: 403 where an INVITE gets 486.
    ///
    /// UL-020, UL-036.
    #[must_use]
    pub fn for_message(mut self) -> Self {
        if self.status == 486 {
            self.status = 403;
        }
        self
    }

    /// Names the profile key that would change the outcome.
    #[must_use]
    pub fn key(mut self, key: &'static str) -> Self {
        self.key = Some(key);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_why_in_words() {
        let plain = Refusal::new(480, "IM-057");
        assert_eq!(plain.text(), "no recipient took the page");
        let warned = plain.warn("No destinations").key("im.fail_map");
        assert_eq!(warned.text(), "No destinations");
        assert_eq!(warned.warning, Some((399, "No destinations".to_owned())));
        assert_eq!((warned.rule, warned.key), ("IM-057", Some("im.fail_map")));
    }
}
