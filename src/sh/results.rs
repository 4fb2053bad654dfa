//! What a result means for us: one table (3GPP TS 29.328 tables 6.1.x, TS 29.329 §6.2, RFC 6733 §7.1).
//!
//! Start at [`verdict`]. The same number means something else as Experimental-Result of 3GPP and as Result-Code; which of
//! the two counts is decided by [`Message::outcome`](super::codec::Message::outcome) (SH-052).

use super::codec::Outcome;
use super::dictionary::VENDOR_3GPP;

/// Experimental-Result-Code values of Sh.
pub mod experimental {
    pub const USER_DATA_NOT_AVAILABLE: u32 = 4100;
    pub const PRIOR_UPDATE_IN_PROGRESS: u32 = 4101;
    pub const USER_UNKNOWN: u32 = 5001;
    pub const IDENTITIES_DONT_MATCH: u32 = 5002;
    pub const TOO_MUCH_DATA: u32 = 5008;
    pub const FEATURE_UNSUPPORTED: u32 = 5011;
    pub const USER_DATA_NOT_RECOGNIZED: u32 = 5100;
    pub const OPERATION_NOT_ALLOWED: u32 = 5101;
    pub const USER_DATA_CANNOT_BE_READ: u32 = 5102;
    pub const USER_DATA_CANNOT_BE_MODIFIED: u32 = 5103;
    pub const USER_DATA_CANNOT_BE_NOTIFIED: u32 = 5104;
    pub const TRANSPARENT_DATA_OUT_OF_SYNC: u32 = 5105;
    pub const SUBS_DATA_ABSENT: u32 = 5106;
    pub const NO_SUBSCRIPTION_TO_DATA: u32 = 5107;
    pub const DSAI_NOT_AVAILABLE: u32 = 5108;
}

/// What follows from a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The data is in the answer; if not, there is none.
    Success,
    /// Ask once more after a second; then it is unavailable.
    AskAgain,
    /// Somebody else writes the same data: wait a second (SH-041).
    WriteLater,
    /// The HSS asked does not serve this identity: forget which one does and ask once without naming it; then nobody
    /// serves it here.
    UnknownUser,
    /// SH-034: the same again without the feature, once.
    WithoutFeatures,
    /// The slot has been written by somebody else meanwhile (SH-041).
    OutOfSync,
    /// The slot cannot hold it (SH-041).
    TooMuch,
    /// There is no slot to subscribe to (SH-043).
    NothingToSubscribe,
    /// The HSS does not let this server do that to that data: suspend it for a while.
    NotPermitted,
    /// What we asked, or how, is wrong, or provisioned wrongly: an alarm.
    OurFault,
    /// Failed, and would again.
    Failed,
    /// Nobody could serve the request for now; whoever routes it has tried the others.
    Undelivered,
}

/// The table of section 10.1.
///
/// SH-052 (TS 29.229 §6.2, RFC 6733 §7.1): the vendor of an Experimental-Result decides what its number means; numbers
/// nobody defined go by their thousands.
pub fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Experimental { vendor: VENDOR_3GPP, code } => of_sh(code),
        Outcome::Experimental { code, .. } => by_class(code),
        Outcome::Base(code) => of_base(code),
    }
}

fn of_sh(code: u32) -> Verdict {
    use experimental as e;
    match code {
        e::USER_DATA_NOT_AVAILABLE => Verdict::AskAgain,
        e::PRIOR_UPDATE_IN_PROGRESS => Verdict::WriteLater,
        e::USER_UNKNOWN => Verdict::UnknownUser,
        e::TOO_MUCH_DATA => Verdict::TooMuch,
        e::FEATURE_UNSUPPORTED => Verdict::WithoutFeatures,
        // 5002: no private identity is ever sent (SH-056), so there is none to leave out.
        e::IDENTITIES_DONT_MATCH
        | e::USER_DATA_NOT_RECOGNIZED
        | e::OPERATION_NOT_ALLOWED
        | e::DSAI_NOT_AVAILABLE => Verdict::OurFault,
        e::USER_DATA_CANNOT_BE_READ
        | e::USER_DATA_CANNOT_BE_MODIFIED
        | e::USER_DATA_CANNOT_BE_NOTIFIED => Verdict::NotPermitted,
        e::TRANSPARENT_DATA_OUT_OF_SYNC => Verdict::OutOfSync,
        e::SUBS_DATA_ABSENT => Verdict::NothingToSubscribe,
        _ => by_class(code),
    }
}

fn of_base(code: u32) -> Verdict {
    match code {
        2001 => Verdict::Success,
        // AVP errors: our mistake, or an HSS too old for what we announce.
        3007 | 5001 | 5004 | 5005 | 5009 | 5014 => Verdict::WithoutFeatures,
        5012 => Verdict::AskAgain,
        3002 | 3004 => Verdict::Undelivered,
        _ => by_class(code),
    }
}

fn by_class(code: u32) -> Verdict {
    match code / 1000 {
        2 => Verdict::Success,
        3 => Verdict::Undelivered,
        4 => Verdict::AskAgain,
        _ => Verdict::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sh::codec::{Avp, Message};
    use crate::sh::dictionary as d;

    fn sh(code: u32) -> Outcome {
        Outcome::Experimental { vendor: VENDOR_3GPP, code }
    }

    /// Proves SH-052.
    #[test]
    fn the_same_number_means_two_things() {
        let cases: &[(u32, Verdict, Verdict)] = &[
            (5001, Verdict::UnknownUser, Verdict::WithoutFeatures),
            (5002, Verdict::OurFault, Verdict::Failed),
            (5008, Verdict::TooMuch, Verdict::Failed),
            (5011, Verdict::WithoutFeatures, Verdict::Failed),
            (5012, Verdict::Failed, Verdict::AskAgain),
        ];
        for (code, experimental, base) in cases {
            assert_eq!(verdict(sh(*code)), *experimental, "ER {code}");
            assert_eq!(verdict(Outcome::Base(*code)), *base, "RC {code}");
        }
    }

    /// Proves SH-052.
    #[test]
    fn every_row_of_the_table() {
        let cases: &[(Outcome, Verdict)] = &[
            (Outcome::Base(2001), Verdict::Success),
            (sh(4100), Verdict::AskAgain),
            (sh(4101), Verdict::WriteLater),
            (sh(5100), Verdict::OurFault),
            (sh(5101), Verdict::OurFault),
            (sh(5102), Verdict::NotPermitted),
            (sh(5103), Verdict::NotPermitted),
            (sh(5104), Verdict::NotPermitted),
            (sh(5105), Verdict::OutOfSync),
            (sh(5106), Verdict::NothingToSubscribe),
            (sh(5107), Verdict::Failed),
            (sh(5108), Verdict::OurFault),
            (Outcome::Base(3002), Verdict::Undelivered),
            (Outcome::Base(3003), Verdict::Undelivered),
            (Outcome::Base(3004), Verdict::Undelivered),
            (Outcome::Base(3007), Verdict::WithoutFeatures),
            (Outcome::Base(5004), Verdict::WithoutFeatures),
            (Outcome::Base(5005), Verdict::WithoutFeatures),
            (Outcome::Base(5009), Verdict::WithoutFeatures),
            (Outcome::Base(5014), Verdict::WithoutFeatures),
            (Outcome::Base(4002), Verdict::AskAgain),
            (sh(4777), Verdict::AskAgain),
            (sh(5777), Verdict::Failed),
            (Outcome::Base(5777), Verdict::Failed),
            (Outcome::Base(7), Verdict::Failed),
        ];
        for (outcome, wanted) in cases {
            assert_eq!(verdict(*outcome), *wanted, "{outcome}");
        }
        // Another vendor's numbers go by their thousands.
        for (code, wanted) in
            [(2001, Verdict::Success), (4101, Verdict::AskAgain), (5001, Verdict::Failed)]
        {
            assert_eq!(verdict(Outcome::Experimental { vendor: 9, code }), wanted, "{code}");
        }
    }

    /// Proves SH-052.
    #[test]
    fn of_two_results_that_of_sh_counts_and_none_is_a_missing_one() {
        let experimental = Avp::grouped(
            &d::EXPERIMENTAL_RESULT,
            &[Avp::u32(&d::VENDOR_ID, VENDOR_3GPP), Avp::u32(&d::EXPERIMENTAL_RESULT_CODE, 5001)],
        );
        let base = Avp::u32(&d::RESULT_CODE, 2001);
        let answer = |avps| Message::request(d::command::USER_DATA, d::APPLICATION_SH, avps);
        assert_eq!(answer(vec![base, experimental]).outcome(), Ok(sh(5001)));
        let none = answer(Vec::new()).outcome().expect_err("there is none");
        assert_eq!(none.result_code(), 5005);
    }
}
