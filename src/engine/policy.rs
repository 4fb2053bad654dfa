//! The operator's choices the engine obeys. Defaults are those of the profile `3gpp`.

use std::time::Duration;

use super::effect::{Cause, CauseProtocol};

/// When the originator hears 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OriginatorAnswer {
    /// With the first recipient that joined (OMA style).
    #[serde(rename = "first_200")]
    First200,
    /// As soon as the page is allowed (RFC 5366 style).
    Immediate,
}

/// How failures of recipients are told to the originator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailMap {
    /// Never 408 or 5xx because of a recipient (IM-057, ISC-066).
    Safe,
    /// The recipient's code as it is.
    Plain,
}

/// When the originator's success REPORT is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SrPolicy {
    /// When the switch has the whole page.
    Switch,
    /// When at least one recipient confirmed.
    FirstDelivery,
}

/// What becomes of a page nobody joined, though somebody may come back (IM-097).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenNoneJoined {
    /// The recipients' refusals decide (IM-057).
    Refuse,
    /// It is taken, and waits.
    Accept,
}

/// Why a recipient is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeferCause {
    /// The final answer to the request.
    Status(u16),
    /// No answer, or a session that stood still or broke.
    Timeout,
}

/// Which recipients are waited for, and how long.
///
/// IM-092, IM-097.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    /// `deferred.enabled`
    pub enabled: bool,
    /// `deferred.causes`
    pub causes: Vec<DeferCause>,
    /// `deferred.ttl`: from the acceptance on; the originator may want less.
    pub ttl: Duration,
    /// `deferred.max_per_user`: pages that wait for one user; whoever keeps them counts.
    pub max_per_user: u32,
    /// `deferred.when_none_joined`
    pub when_none_joined: WhenNoneJoined,
}

impl Deferral {
    /// Whether a recipient who failed with that cause may come back.
    pub fn takes(&self, cause: &Cause) -> bool {
        use CauseProtocol::{Msrp, Policy, Sip, Store, Timer};
        let wanted = match (cause.protocol, cause.code) {
            (Timer, _) | (Msrp, 0 | 408) => DeferCause::Timeout,
            (Sip, status) => DeferCause::Status(status),
            (Msrp | Policy | Store, _) => return false,
        };
        self.enabled && self.causes.contains(&wanted)
    }
}

impl Default for Deferral {
    fn default() -> Self {
        let statuses = [408, 430, 480, 503, 504].map(DeferCause::Status);
        Self {
            enabled: true,
            causes: statuses.into_iter().chain([DeferCause::Timeout]).collect(),
            ttl: Duration::from_secs(72 * 3600),
            max_per_user: 1000,
            when_none_joined: WhenNoneJoined::Refuse,
        }
    }
}

/// All keys the engine obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `im.originator_answer`
    pub originator_answer: OriginatorAnswer,
    /// `im.leg_timeout`: no final answer from a recipient (IM-061).
    pub leg_timeout: Duration,
    /// `im.fail_map`
    pub fail_map: FailMap,
    /// `msrp.page_deadline`: from the first octet to forced clean-up (MS-110).
    pub page_deadline: Duration,
    /// `msrp.drain_after_end`: between the last response and BYE (MS-108).
    pub drain_after_end: Duration,
    /// `msrp.tx_timeout`: longest wait for outstanding MSRP responses before BYE (IM-065).
    pub quiet_timeout: Duration,
    /// `im.originator_bye_timeout`: the originator's own BYE is awaited this long after the page is whole (IM-064).
    pub originator_bye_timeout: Duration,
    /// `im.progress_after`: first 183 at the latest (IM-020).
    pub progress_after: Duration,
    /// 183 repeated this often, reliable and unreliable (IM-020).
    pub progress_repeat: (Duration, Duration),
    /// `msrp.sr_policy`
    pub sr_policy: SrPolicy,
    /// `ul.send_rate`: new legs per second, 0 for all at once (UL-033).
    pub send_rate: u32,
    /// `ul.max_entries`: INVITEs of one page that may be unanswered at a time (UL-034); the rest waits its turn.
    pub max_entries: u16,
    /// `im.max_parallel_per_user`: pages of one originator that are not over (IM-036).
    pub max_parallel_per_user: u32,
    /// `im.max_rate_per_user`: pages one originator may start per second (IM-036).
    pub max_rate_per_user: u32,
    /// How often a short page is tried again at a recipient who is busy (UL-033); no profile changes it yet.
    pub short_retries: u32,
    /// How long after the first try; twice as long each time, and no less than the recipient says.
    pub short_retry_after: Duration,
    /// Who is waited for (IM-097).
    pub deferral: Deferral,
    /// Pages this engine holds at a time; beyond it is overload (IM-036).
    pub max_pages: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            originator_answer: OriginatorAnswer::First200,
            leg_timeout: Duration::from_secs(120),
            fail_map: FailMap::Safe,
            page_deadline: Duration::from_secs(600),
            drain_after_end: Duration::from_secs(5),
            quiet_timeout: Duration::from_secs(30),
            originator_bye_timeout: Duration::from_secs(30),
            progress_after: Duration::from_millis(500),
            progress_repeat: (Duration::from_secs(150), Duration::from_secs(60)),
            sr_policy: SrPolicy::Switch,
            send_rate: 0,
            max_entries: 50,
            max_parallel_per_user: 20,
            max_rate_per_user: 10,
            short_retries: 1,
            short_retry_after: Duration::from_secs(5),
            deferral: Deferral::default(),
            max_pages: 10_000,
        }
    }
}
