//! The `message/cpim` head we write ourselves, for a recipient that takes nothing else (MS-098).

use std::time::{Duration, Instant};

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::content::cpim;

/// Whom bare content is from and to, for where it has to be wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// URI of the sender; an anonymous one under privacy.
    pub from: String,
    /// URI of the group or the recipient.
    pub to: String,
    /// One moment by both clocks; the second is the time since 1970 in UTC.
    pub clock: (Instant, Duration),
}

impl Envelope {
    /// What stands before content of that type that came at that moment.
    ///
    /// MS-098 (RFC 4975 §13, RFC 3862 §4).
    pub fn head(&self, since: Instant, content_type: &str) -> Bytes {
        let (now, time) = self.clock;
        let time = match since.checked_duration_since(now) {
            Some(later) => time.saturating_add(later),
            None => time.saturating_sub(now.duration_since(since)),
        };
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        // No clock is beyond the year 9999.
        let time =
            OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let time = time.format(&Rfc3339).unwrap_or_default();
        let (from, to) = (format!("<{}>", self.from), format!("<{}>", self.to));
        let headers = [("From", &*from), ("To", &*to), ("DateTime", &*time)];
        cpim::write(&headers, content_type, b"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves MS-098.
    #[test]
    fn the_head_says_who_to_whom_and_when() {
        let now = tokio::time::Instant::now().into_std();
        let second = Duration::from_secs(1);
        let envelope = Envelope {
            from: "sip:alice@ims.test".to_owned(),
            to: "sip:bob@ims.test".to_owned(),
            clock: (now, Duration::from_millis(1_772_615_727_500)),
        };
        for (since, time) in [
            (now, "2026-03-04T09:15:27Z"),
            (now + second, "2026-03-04T09:15:28Z"),
            (now - 28 * second, "2026-03-04T09:14:59Z"),
        ] {
            let head = envelope.head(since, "text/plain;charset=utf-8");
            let want = format!(
                "From: <sip:alice@ims.test>\r\nTo: <sip:bob@ims.test>\r\nDateTime: {time}\r\n\r\n\
                 Content-Type: text/plain;charset=utf-8\r\n\r\n"
            );
            assert_eq!(head, want);
        }
    }
}
