//! Overload: what HSSs report, and which requests are held back for it (RFC 7683).
//!
//! [`Overload::hear`] takes a report out of an answer, [`Overload::sheds`] decides on one request. Does no I/O.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::codec::{Avp, Fault, Message};
use super::dictionary::{self as d};
use super::peer::Dice;

/// Most reports kept; the one that ends first leaves.
const MOST: usize = 1024;
/// Validity of a report that names none or too long a one (RFC 7683 §7.7).
const VALIDITY: Duration = Duration::from_secs(30);
const LONGEST: u32 = 86_400;
/// Which requests there were of late: half of the memory is gone after that long.
const HALF_LIFE: f64 = 10.0;

/// What a request is for; under overload the first are held back first (SH-031).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Cached data is asked again.
    Refresh,
    Subscription,
    /// Is somebody registered, before an INVITE.
    StateCheck,
    /// Reads of service settings for an ordinary page.
    Settings,
    /// What a page cannot go on without.
    Page,
    /// Priority and emergency sessions.
    Priority,
}

const CLASSES: usize = 6;

/// OC-Supported-Features with the loss algorithm, for every request.
///
/// SH-031 (RFC 7683 §5.1.1).
pub fn supported() -> Avp {
    Avp::grouped(&d::OC_SUPPORTED_FEATURES, &[Avp::u64(&d::OC_FEATURE_VECTOR, 1)])
}

/// To whom a report applies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
    Host(String),
    Realm(String),
}

#[derive(Debug, Clone, Copy)]
struct Report {
    sequence: u64,
    percent: u32,
    until: Instant,
}

/// The reports in force, and what is being asked.
#[derive(Debug, Default)]
pub struct Overload {
    reports: HashMap<Scope, Report>,
    /// Requests by class, fading.
    asked: [f64; CLASSES],
    counted: Option<Instant>,
}

impl Overload {
    /// Takes the report of an answer, if it has one. A report that makes no sense is left aside.
    ///
    /// SH-031 (RFC 7683 §5.2, §7).
    pub fn hear(&mut self, now: Instant, answer: &Message) {
        for olr in answer.find_all(&d::OC_OLR) {
            // An answer does not become worse by what it says of load.
            let _ = self.take(now, answer, olr);
        }
    }

    fn take(&mut self, now: Instant, answer: &Message, olr: &Avp) -> Result<(), Fault> {
        let members = olr.as_group()?;
        let find = |def: &d::Def| members.iter().find(|member| member.is(def));
        let sequence = find(&d::OC_SEQUENCE_NUMBER)
            .ok_or_else(|| Fault::missing(&d::OC_SEQUENCE_NUMBER))?
            .as_u64()?;
        let kind =
            find(&d::OC_REPORT_TYPE).ok_or_else(|| Fault::missing(&d::OC_REPORT_TYPE))?.as_u32()?;
        let percent = find(&d::OC_REDUCTION_PERCENTAGE).map_or(Ok(0), Avp::as_u32)?;
        let validity = find(&d::OC_VALIDITY_DURATION).map(Avp::as_u32).transpose()?;
        let scope = match kind {
            0 => Scope::Host(answer.required(&d::ORIGIN_HOST)?.as_identity()?),
            1 => Scope::Realm(answer.required(&d::ORIGIN_REALM)?.as_identity()?),
            _ => return Ok(()),
        };
        if percent > 100 {
            return Ok(());
        }
        let known = self.reports.get(&scope).filter(|report| report.until > now);
        if known.is_some_and(|known| sequence <= known.sequence) {
            return Ok(());
        }
        let (percent, lasts) = match validity {
            // The end of the overload; remembered so that an older report is known as one.
            Some(0) => (0, VALIDITY),
            Some(seconds) if seconds <= LONGEST => (percent, Duration::from_secs(seconds.into())),
            _ => (percent, VALIDITY),
        };
        if self.reports.len() >= MOST && !self.reports.contains_key(&scope) {
            let first = self.reports.iter().min_by_key(|(_, report)| report.until);
            if let Some(first) = first.map(|(scope, _)| scope.clone()) {
                self.reports.remove(&first);
            }
        }
        self.reports.insert(scope, Report { sequence, percent, until: now + lasts });
        Ok(())
    }

    /// The share of requests to hold back, in percent. A report of the host counts for what goes to it by name, or
    /// straight to it as the `next` peer; one of the realm for what leaves the choice to others.
    fn percent(&self, now: Instant, host: Option<&str>, next: Option<&str>, realm: &str) -> u32 {
        let of = |scope: Scope| self.reports.get(&scope).filter(|report| report.until > now);
        let by_host = |host: &str| of(Scope::Host(host.to_owned()));
        let report = match host {
            Some(host) => by_host(host),
            None => of(Scope::Realm(realm.to_owned())).or_else(|| by_host(next?)),
        };
        report.map_or(0, |report| report.percent)
    }

    /// Whether this request is held back.
    ///
    /// SH-031 (RFC 7683 §5.2.2): the share asked for, out of the classes in their order.
    pub fn sheds(
        &mut self,
        now: Instant,
        class: Class,
        (host, next, realm): (Option<&str>, Option<&str>, &str),
        dice: &mut Dice,
    ) -> bool {
        if let Some(last) = self.counted.replace(now) {
            let fade = 0.5_f64.powf((now - last).as_secs_f64() / HALF_LIFE);
            self.asked.iter_mut().for_each(|count| *count *= fade);
        }
        let class = class as usize;
        self.asked[class] += 1.0;
        let percent = self.percent(now, host, next, realm);
        if percent == 0 {
            return false;
        }
        let all: f64 = self.asked.iter().sum();
        let before: f64 = self.asked[..class].iter().sum();
        let share = (all * f64::from(percent) / 100.0 - before) / self.asked[class];
        f64::from(dice.word()) / f64::from(u32::MAX) < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn report(sequence: u64, kind: u32, percent: Option<u32>, validity: Option<u32>) -> Message {
        let mut members =
            vec![Avp::u64(&d::OC_SEQUENCE_NUMBER, sequence), Avp::u32(&d::OC_REPORT_TYPE, kind)];
        members.extend(percent.map(|n| Avp::u32(&d::OC_REDUCTION_PERCENTAGE, n)));
        members.extend(validity.map(|n| Avp::u32(&d::OC_VALIDITY_DURATION, n)));
        Message::request(
            306,
            d::APPLICATION_SH,
            vec![
                Avp::text(&d::ORIGIN_HOST, "hss1.example"),
                Avp::text(&d::ORIGIN_REALM, "example"),
                Avp::grouped(&d::OC_OLR, &members),
            ],
        )
    }

    /// Proves SH-031: which reports count, for how long and for whom.
    #[test]
    fn reports_are_kept_as_rfc_7683_says() {
        let start = tokio::time::Instant::now().into_std();
        let host = |overload: &Overload, at: u32| {
            overload.percent(start + at * S, Some("hss1.example"), None, "example")
        };
        let realm = |overload: &Overload, at: u32| {
            overload.percent(start + at * S, None, Some("hss2.example"), "example")
        };
        let mut overload = Overload::default();
        overload.hear(start, &report(5, 0, Some(40), Some(10)));
        assert_eq!([host(&overload, 0), host(&overload, 9), host(&overload, 10)], [40, 40, 0]);
        assert_eq!(realm(&overload, 0), 0);
        let straight = overload.percent(start, None, Some("hss1.example"), "example");
        assert_eq!(straight, 40, "the next peer is the host itself");

        overload.hear(start, &report(5, 0, Some(90), Some(10)));
        overload.hear(start, &report(4, 0, Some(90), Some(10)));
        overload.hear(start, &report(9, 0, Some(101), Some(10)));
        assert_eq!(host(&overload, 0), 40, "old and senseless reports change nothing");
        overload.hear(start, &report(6, 0, Some(100), None));
        assert_eq!([host(&overload, 29), host(&overload, 30)], [100, 0], "30 s if it says nothing");
        overload.hear(start, &report(7, 0, Some(60), Some(86_401)));
        assert_eq!([host(&overload, 29), host(&overload, 30)], [60, 0]);
        overload.hear(start, &report(8, 0, Some(60), Some(0)));
        assert_eq!(host(&overload, 0), 0, "validity 0 ends it");
        overload.hear(start, &report(7, 0, Some(60), Some(10)));
        assert_eq!(host(&overload, 0), 0, "and a report from before does not bring it back");

        overload.hear(start, &report(1, 1, Some(70), Some(10)));
        assert_eq!(realm(&overload, 0), 70);
        assert_eq!(host(&overload, 0), 0);
        overload.hear(start, &report(9, 2, Some(70), Some(10)));
        assert_eq!(host(&overload, 0), 0, "a type of tomorrow");
    }

    /// Proves SH-031: the share, and who is held back before whom.
    #[test]
    fn the_least_important_are_held_back_first() {
        use Class::{Page, Priority, Refresh, Settings, StateCheck, Subscription};
        let all = [Refresh, Subscription, StateCheck, Settings, Page, Priority];
        let now = tokio::time::Instant::now().into_std();
        let held = |percent: u32| {
            let mut overload = Overload::default();
            let mut dice = Dice::new(3);
            overload.hear(now, &report(1, 0, Some(percent), Some(100)));
            let mut held = [0_u32; CLASSES];
            for n in 0..6000_usize {
                let class = all[n % CLASSES];
                if overload.sheds(now, class, (Some("hss1.example"), None, "example"), &mut dice) {
                    held[class as usize] += 1;
                }
            }
            held
        };
        assert_eq!(held(0), [0; CLASSES]);
        assert_eq!(held(100), [1000; CLASSES]);
        let half = held(50);
        assert!((2950..=3050).contains(&half.iter().sum::<u32>()), "{half:?}");
        assert!(half[..3].iter().all(|held| *held > 980), "{half:?}");
        assert!(half[4..].iter().all(|held| *held < 20), "{half:?}");
        let ten = held(10);
        assert!((500..=700).contains(&ten[0]) && ten[1..].iter().sum::<u32>() < 20, "{ten:?}");
    }

    /// Proves SH-031: one kind of request alone loses just the share.
    #[test]
    fn half_of_the_pulls_are_answered_here() {
        let now = tokio::time::Instant::now().into_std();
        let mut overload = Overload::default();
        let mut dice = Dice::new(11);
        overload.hear(now, &report(1, 1, Some(50), Some(100)));
        let held = (0..2000)
            .filter(|_| overload.sheds(now, Class::Page, (None, None, "example"), &mut dice))
            .count();
        assert!((900..=1100).contains(&held), "{held}");
    }
}
