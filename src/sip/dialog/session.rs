//! The session timer, RFC 4028: who refreshes, how often, and when a session that nobody refreshes is over.

use std::time::Duration;

use crate::sip::message::{Message, Name, Params};

/// The least any session interval may be, seconds (RFC 4028 §4).
pub const FLOOR: u32 = 90;

/// Who sends the refreshes of a session (RFC 4028 §4), seen from the request that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refresher {
    /// The one who sent the request.
    #[default]
    Uac,
    /// The one who answered it.
    Uas,
}

impl Refresher {
    /// The value of the `refresher` parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uac => "uac",
            Self::Uas => "uas",
        }
    }
}

/// How session timers are agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTimer {
    /// The interval we put into answers to an INVITE that asked for none, and the most we accept; seconds. `None`:
    /// ask for none, accept what the peer asks.
    pub expires: Option<u32>,
    /// The least we accept, seconds. Values below 90 count as 90.
    pub min_se: u32,
    /// Who refreshes where a peer with timer support leaves the choice to us.
    pub refresher: Refresher,
}

impl Default for SessionTimer {
    fn default() -> Self {
        Self { expires: Some(1800), min_se: FLOOR, refresher: Refresher::Uac }
    }
}

impl SessionTimer {
    /// The least interval we accept.
    pub fn least(&self) -> u32 {
        self.min_se.max(FLOOR)
    }
}

/// A Session-Expires header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionExpires {
    pub interval: u32,
    pub refresher: Option<Refresher>,
}

/// A Session-Expires or Min-SE that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl SessionExpires {
    /// Reads the header; `None` if there is none.
    pub fn of(message: &Message) -> Result<Option<Self>, Unreadable> {
        let Some(value) = message.header(Name::SessionExpires) else {
            return Ok(None);
        };
        let (interval, params) = number_and_params(value)?;
        let mut refresher = None;
        for param in params {
            if param.is("refresher") {
                refresher = match param.plain() {
                    role if role.eq_ignore_ascii_case(b"uac") => Some(Refresher::Uac),
                    role if role.eq_ignore_ascii_case(b"uas") => Some(Refresher::Uas),
                    _ => return Err(Unreadable),
                };
            }
        }
        Ok(Some(Self { interval, refresher }))
    }
}

/// Reads Min-SE; `None` if there is none.
pub fn min_se(message: &Message) -> Result<Option<u32>, Unreadable> {
    match message.header(Name::MinSe) {
        None => Ok(None),
        Some(value) => number_and_params(value).map(|(number, _)| Some(number)),
    }
}

fn number_and_params(value: &[u8]) -> Result<(u32, Params<'_>), Unreadable> {
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    let digits = std::str::from_utf8(&value[..end]).map_err(|_| Unreadable)?.trim();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Unreadable);
    }
    let number = digits.parse().map_err(|_| Unreadable)?;
    Ok((number, Params::new(&value[end..])))
}

/// What both sides agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    pub interval: u32,
    /// As it stands in the answer, seen from the request.
    pub refresher: Refresher,
    /// Whether that is our side.
    pub ours: bool,
}

impl Agreement {
    /// The value of Session-Expires.
    pub fn value(&self) -> String {
        format!("{};refresher={}", self.interval, self.refresher.as_str())
    }

    /// When the refreshing side sends the next refresh: after half of the interval (RFC 4028 §7.2).
    pub fn refresh_after(&self) -> Duration {
        Duration::from_secs(u64::from(self.interval)) / 2
    }

    /// When a session without a refresh ends: a third of the interval before its end, at most 32 s (RFC 4028 §10).
    pub fn end_after(&self) -> Duration {
        let interval = Duration::from_secs(u64::from(self.interval));
        interval - (interval / 3).min(Duration::from_secs(32))
    }
}

/// Why a request's session timer cannot be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 400: a header cannot be read.
    Unreadable,
    /// 422 with this Min-SE.
    TooSmall(u32),
}

impl From<Unreadable> for Refusal {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

/// Decides the answer to a request that opens or refreshes a session.
///
/// ISC-061 (RFC 4028 §9, table 2):
/// ```text
/// peer has timer   refresher asked   refresher answered
/// no               any               uas
/// yes              none              as set
/// yes              uac / uas         as asked
/// ```
pub fn accept(request: &Message, settings: &SessionTimer) -> Result<Option<Agreement>, Refusal> {
    let supported =
        request.has_token(Name::Supported, "timer") || request.has_token(Name::Require, "timer");
    let asked = SessionExpires::of(request)?;
    let peer_least = min_se(request)?.unwrap_or(FLOOR).max(FLOOR);
    let interval = match (asked, settings.expires) {
        // Only a peer that knows the timer understands 422.
        (Some(asked), _) if asked.interval < settings.least() && supported => {
            return Err(Refusal::TooSmall(settings.least()));
        }
        // The answer may be less than what was asked, never more, and not below what the peer and we bear.
        (Some(asked), Some(most)) => {
            asked.interval.min(most.max(peer_least).max(settings.least())).max(FLOOR)
        }
        (Some(asked), None) => asked.interval.max(FLOOR),
        (None, Some(ours)) => ours.max(peer_least).max(settings.least()),
        (None, None) => return Ok(None),
    };
    let refresher = match (supported, asked.and_then(|asked| asked.refresher)) {
        (false, _) => Refresher::Uas,
        (true, None) => settings.refresher,
        (true, Some(asked)) => asked,
    };
    Ok(Some(Agreement { interval, refresher, ours: refresher == Refresher::Uas }))
}

/// Reads what a 2xx to our request agreed to (RFC 4028 §7.2). Without Session-Expires the session has no timer.
pub fn agreed(response: &Message) -> Result<Option<Agreement>, Unreadable> {
    Ok(SessionExpires::of(response)?.map(|answer| {
        let refresher = answer.refresher.unwrap_or_default();
        Agreement {
            // An interval below the floor would make us flood the peer with refreshes.
            interval: answer.interval.max(FLOOR),
            refresher,
            ours: refresher == Refresher::Uac,
        }
    }))
}
