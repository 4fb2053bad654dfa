//! The operator's choices the engine obeys. Defaults are those of the profile `3gpp`.

use std::time::Duration;

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
            max_pages: 10_000,
        }
    }
}
