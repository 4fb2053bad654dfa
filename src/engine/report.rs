//! What the originator is owed on MSRP: at most one REPORT over the whole page.
//!
//! Chunk responses, and the success REPORT of `sr_policy = switch`, are the switch's own; this decides what depends on
//! the recipients. Follows MS-089 and IM-072.

use std::time::Instant;

use super::effect::{Cause, CauseProtocol, Effect};
use super::ids::PageId;
use super::policy::SrPolicy;

/// Whether the REPORT has gone, and when.
#[derive(Debug)]
pub(super) struct Owed {
    policy: SrPolicy,
    reported: Option<Instant>,
}

impl Owed {
    pub(super) fn new(policy: SrPolicy) -> Self {
        Self { policy, reported: None }
    }

    /// A recipient has the whole page.
    ///
    /// MS-089: with `first_delivery` this is what the success REPORT waits for.
    pub(super) fn on_delivery(&mut self, now: Instant, page: PageId, out: &mut Vec<Effect>) {
        if self.policy == SrPolicy::FirstDelivery && self.reported.is_none() {
            self.reported = Some(now);
            out.push(Effect::Report { page, status: 200, text: "OK" });
        }
    }

    /// No recipient at all could be served.
    ///
    /// MS-089: one failure REPORT; never one for a part of the recipients.
    pub(super) fn on_nobody_served<'a>(
        &mut self,
        now: Instant,
        page: PageId,
        causes: impl IntoIterator<Item = &'a Cause>,
        out: &mut Vec<Effect>,
    ) {
        if self.reported.is_none() {
            self.reported = Some(now);
            let (status, text) = failure_report(causes);
            out.push(Effect::Report { page, status, text });
        }
    }

    /// When the REPORT went.
    pub(super) fn reported(&self) -> Option<Instant> {
        self.reported
    }

    /// The originator is still to be told how its page fares.
    pub(super) fn is_undecided(&self) -> bool {
        self.policy == SrPolicy::FirstDelivery && self.reported.is_none()
    }
}

/// What all failures have in common, as an MSRP status: 408 where they differ.
///
/// MS-089: too big for all, a type refused by all, declined by all; else nobody could be reached.
fn failure_report<'a>(causes: impl IntoIterator<Item = &'a Cause>) -> (u16, &'static str) {
    let mut kinds = causes.into_iter().map(class);
    let first = kinds.next().unwrap_or(408);
    let common = if kinds.all(|kind| kind == first) { first } else { 408 };
    match common {
        413 => (413, "too big for every recipient"),
        415 => (415, "a type no recipient takes"),
        403 => (403, "declined by every recipient"),
        _ => (408, "no recipient could be reached"),
    }
}

/// One failure in the few words an MSRP REPORT has.
fn class(cause: &Cause) -> u16 {
    use CauseProtocol::{Msrp, Policy, Sip};
    match (cause.protocol, cause.code) {
        (Sip | Msrp, 413) => 413,
        (Msrp, 415) | (Sip, 415 | 488 | 606) => 415,
        (Sip, 404 | 408 | 410 | 430 | 480) | (Msrp, 408) => 408,
        (Sip, 400..=499 | 600..=699) | (Msrp, 403 | 404 | 428) | (Policy, _) => 403,
        _ => 408,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::start;

    /// Proves MS-089.
    #[test]
    fn a_failure_report_says_what_all_have_in_common() {
        use CauseProtocol::{Msrp, Sip, Timer};
        type Causes = [(CauseProtocol, u16)];
        let cases: &[(&Causes, u16, &str)] = &[
            (&[(Timer, 408)], 408, "timeout"),
            (&[(Sip, 480), (Msrp, 0), (Sip, 503)], 408, "nobody was reachable"),
            (&[(Msrp, 413), (Sip, 413)], 413, "too big for all"),
            (&[(Msrp, 415), (Sip, 488)], 415, "type refused by all"),
            (&[(Sip, 486), (Sip, 603), (Msrp, 403)], 403, "declined by all"),
            (&[(Msrp, 413), (Msrp, 415)], 408, "nothing in common"),
            (&[(Sip, 486), (Msrp, 413)], 408, "nothing in common"),
        ];
        for (causes, status, why) in cases {
            let causes: Vec<_> = causes.iter().map(|&(p, code)| Cause::new(p, code, "")).collect();
            assert_eq!(failure_report(&causes).0, *status, "{why}: {causes:?}");
        }
    }

    /// Proves IM-072, MS-089.
    #[test]
    fn there_is_one_report_a_page() {
        let page = PageId::new(0, 1);
        let cause = Cause::new(CauseProtocol::Sip, 486, "");
        for (policy, statuses) in
            [(SrPolicy::Switch, vec![403]), (SrPolicy::FirstDelivery, vec![200])]
        {
            let mut owed = Owed::new(policy);
            let mut out = Vec::new();
            assert_eq!(owed.is_undecided(), policy == SrPolicy::FirstDelivery);
            for _ in 0..2 {
                owed.on_delivery(start(), page, &mut out);
                owed.on_nobody_served(start(), page, [&cause], &mut out);
            }
            let got: Vec<_> = out
                .iter()
                .map(|effect| match effect {
                    Effect::Report { status, .. } => *status,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(got, statuses, "{policy:?}");
            assert!(!owed.is_undecided());
            assert_eq!(owed.reported(), Some(start()));
        }
    }
}
