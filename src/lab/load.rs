//! Many pages through a core: at a rate or so many at a time, with latencies and what went wrong.
//!
//! Start at [`run`]. Every page carries a number, so that each recipient's copy is known again and checked octet by
//! octet. What the process that is tested uses of the machine is told by [`usage`].

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use super::locked;
use super::phone::{Behaviour, PageOutcome, PageRequest, Phone, Received, Recipients, Settings};

/// Pages under way at a time, whatever the rate: beyond it a page is not begun and counted as such.
const MOST_AT_ONCE: usize = 5000;
/// Octets in front of the content that number the page.
const NUMBER: usize = 16;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// SIP URI of the core.
    pub core: String,
    /// Who sends, in turn; a server limits what one user may send.
    pub originators: Vec<String>,
    /// The phones that take the pages, started here.
    pub recipients: Vec<String>,
    /// What the pages are sent to.
    pub to: Recipients,
    pub pace: Pace,
    /// Pages are begun for so long.
    pub time: Duration,
    /// Size of the content, at least 16.
    pub octets: usize,
    /// How the recipients take pages.
    pub behaviour: Behaviour,
    /// Longest wait for whatever is under way at the end.
    pub patience: Duration,
}

/// When the next page begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many a second.
    Rate(f64),
    /// As soon as one is over, so many at a time.
    Concurrency(usize),
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Results {
    /// Pages begun.
    pub begun: u64,
    /// Pages the server took whole.
    pub accepted: u64,
    /// Copies that should have arrived: accepted pages times recipients.
    pub expected: u64,
    /// Copies that arrived as they were sent.
    pub delivered: u64,
    /// Copies that arrived otherwise.
    pub damaged: u64,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
    /// From INVITE to its final answer.
    pub answered: Latencies,
    /// From INVITE until the server has the whole page and said so.
    pub transferred: Latencies,
    /// From INVITE until a recipient has the whole page.
    pub received: Latencies,
    /// From the first page to the last recipient.
    pub took: Duration,
    /// What phones found wrong.
    pub complaints: Vec<String>,
}

impl Results {
    /// Accepted pages a second.
    pub fn rate(&self) -> f64 {
        self.accepted as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// Everything arrived and nobody complained.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
            && self.damaged == 0
            && self.delivered == self.expected
            && self.complaints.is_empty()
    }
}

/// A set of durations.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    fn sort(&mut self) {
        self.0.sort_unstable();
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that `percent` of 100 do not exceed; `None` without any.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied()
    }

    /// The largest.
    pub fn max(&self) -> Option<Duration> {
        self.0.last().copied()
    }
}

/// `count` users made of one: `sip:load@d` gives `sip:load-1@d` and so on; one alone stays as it is.
pub fn users(of: &str, count: usize) -> Vec<String> {
    if count <= 1 {
        return vec![of.to_owned()];
    }
    let (name, domain) = of.split_once('@').unwrap_or((of, "ims.test"));
    (1..=count).map(|n| format!("{name}-{n}@{domain}")).collect()
}

/// Sends pages as planned and waits for them to arrive.
///
/// # Errors
/// When a phone cannot be started, or there is nobody to send.
pub async fn run(plan: &Plan) -> io::Result<Results> {
    let originators = phones(plan, &plan.originators, &Behaviour::default()).await?;
    if originators.is_empty() {
        return Err(io::Error::other("a load needs somebody who sends"));
    }
    let recipients = phones(plan, &plan.recipients, &plan.behaviour).await?;
    let tally = Arc::new(Tally::new(plan));
    let mut listening = JoinSet::new();
    for phone in &recipients {
        let (phone, tally) = (phone.clone(), tally.clone());
        listening.spawn(async move {
            while let Some(received) = phone.received().await {
                tally.on_received(&received);
            }
        });
    }

    let began = Instant::now();
    send_all(plan, &originators, &tally).await;
    let until = Instant::now() + plan.patience;
    while !tally.is_complete(recipients.len()) && Instant::now() < until {
        let arrival = tally.arrived.notified();
        if timeout_at(until, arrival).await.is_err() {
            break;
        }
    }
    listening.abort_all();

    let mut results = std::mem::take(&mut *locked(&tally.results));
    results.expected = results.accepted * recipients.len() as u64;
    let last = locked(&tally.last).unwrap_or(began);
    results.took = last.saturating_duration_since(began).max(Duration::from_millis(1));
    for latencies in [&mut results.answered, &mut results.transferred, &mut results.received] {
        latencies.sort();
    }
    for phone in originators.iter().chain(&recipients) {
        results.complaints.extend(phone.complaints());
    }
    Ok(results)
}

async fn phones(
    plan: &Plan,
    users: &[String],
    behaviour: &Behaviour,
) -> io::Result<Vec<Arc<Phone>>> {
    let mut phones = Vec::with_capacity(users.len());
    for user in users {
        let behaviour = behaviour.clone();
        let settings = Settings { behaviour, ..Settings::new(&plan.core, user) };
        phones.push(Arc::new(Phone::start(settings).await?));
    }
    Ok(phones)
}

async fn send_all(plan: &Plan, originators: &[Arc<Phone>], tally: &Arc<Tally>) {
    let until = Instant::now() + plan.time;
    let mut running = JoinSet::new();
    let mut turn = originators.iter().cycle();
    let mut begin = |running: &mut JoinSet<()>| {
        if running.len() >= MOST_AT_ONCE {
            return tally.error("not begun: too many under way");
        }
        if let Some(phone) = turn.next() {
            let (phone, tally) = (phone.clone(), tally.clone());
            let request = tally.next(plan);
            running.spawn(async move {
                let outcome = phone.page(&request).await;
                tally.on_outcome(&outcome);
            });
        }
    };
    match plan.pace {
        Pace::Rate(rate) => {
            let mut tick = interval(Duration::from_secs_f64(1.0 / rate.max(0.001)));
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            while Instant::now() < until {
                tokio::select! {
                    _ = tick.tick() => begin(&mut running),
                    () = sleep_until(until) => break,
                }
                while running.try_join_next().is_some() {}
            }
        }
        Pace::Concurrency(count) => {
            for _ in 0..count.max(1) {
                begin(&mut running);
            }
            while Instant::now() < until && running.join_next().await.is_some() {
                begin(&mut running);
            }
        }
    }
    let until = Instant::now() + plan.patience;
    while let Ok(Some(_)) = timeout_at(until, running.join_next()).await {}
}

/// The counts while it runs.
struct Tally {
    results: Mutex<Results>,
    /// When each page began, by its number.
    begun: Mutex<BTreeMap<u64, Instant>>,
    last: Mutex<Option<Instant>>,
    /// The content behind the number, the same in every page.
    rest: Bytes,
    arrived: tokio::sync::Notify,
}

impl Tally {
    fn new(plan: &Plan) -> Self {
        let rest = plan.octets.max(NUMBER) - NUMBER;
        Self {
            results: Mutex::default(),
            begun: Mutex::default(),
            last: Mutex::default(),
            rest: (0..rest).map(|at| b'a' + (at % 26) as u8).collect(),
            arrived: tokio::sync::Notify::new(),
        }
    }

    fn next(&self, plan: &Plan) -> PageRequest {
        let number = {
            let mut results = locked(&self.results);
            results.begun += 1;
            results.begun
        };
        locked(&self.begun).insert(number, Instant::now());
        let mut body = format!("{number:0width$x}", width = NUMBER).into_bytes();
        body.extend_from_slice(&self.rest);
        PageRequest {
            patience: plan.patience,
            ..PageRequest::new(plan.to.clone(), "text/plain", body)
        }
    }

    fn error(&self, what: &str) {
        *locked(&self.results).errors.entry(what.to_owned()).or_default() += 1;
    }

    fn on_outcome(&self, outcome: &PageOutcome) {
        let mut results = locked(&self.results);
        if let Some(answered) = outcome.answered {
            results.answered.add(answered);
        }
        if outcome.succeeded() {
            results.accepted += 1;
            if let Some(transferred) = outcome.transferred {
                results.transferred.add(transferred);
            }
        } else {
            let what = match (&outcome.problem, outcome.status, outcome.refused, outcome.report) {
                (Some(problem), ..) => problem.clone(),
                (None, Some(status @ 300..), ..) => format!("SIP {status}"),
                (None, _, Some(code), _) => format!("MSRP {code}"),
                (None, _, _, Some(code)) => format!("REPORT {code}"),
                (None, ..) => "the page was not acknowledged".to_owned(),
            };
            *results.errors.entry(what).or_default() += 1;
        }
        drop(results);
        self.moved();
    }

    fn on_received(&self, received: &Received) {
        let content = received.content().map(|(_, content)| content).unwrap_or_default();
        let number = content
            .get(..NUMBER)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let begun = number.and_then(|number| locked(&self.begun).get(&number).copied());
        let whole = received.whole && content.get(NUMBER..) == Some(&self.rest[..]);
        {
            let mut results = locked(&self.results);
            match (begun, received.received_at) {
                (Some(begun), Some(at)) if whole => {
                    results.delivered += 1;
                    results.received.add(at.saturating_duration_since(begun));
                    let mut last = locked(&self.last);
                    *last = (*last).max(Some(at));
                }
                _ => results.damaged += 1,
            }
        }
        self.moved();
    }

    fn moved(&self) {
        self.arrived.notify_one();
    }

    fn is_complete(&self, recipients: usize) -> bool {
        let results = locked(&self.results);
        results.delivered + results.damaged >= results.accepted * recipients as u64
    }
}

/// What a process uses of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// User and system time so far.
    pub cpu: Duration,
    /// Octets of memory in use now, and at most so far.
    pub resident: u64,
    pub peak: u64,
}

/// Reads what process `pid` uses, from `/proc`.
///
/// # Errors
/// When there is no such process, or no such file system.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let strange = || io::Error::other("/proc tells something else than expected");
    // The name in parentheses may hold anything; fields are counted behind it.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
        return Err(strange());
    };
    let kibibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Ok(Usage {
        // USER_HZ is 100 wherever Linux runs.
        cpu: Duration::from_millis((user + system) * 10),
        resident: kibibytes("VmRSS:").ok_or_else(strange)? * 1024,
        peak: kibibytes("VmHWM:").ok_or_else(strange)? * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::super::core::{self, Core};
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(50.0), None);
        (1..=100).rev().for_each(|ms| latencies.add(Duration::from_millis(ms)));
        latencies.sort();
        for (percent, ms) in [(0.0, 1), (50.0, 50), (99.0, 99), (99.5, 100), (100.0, 100)] {
            assert_eq!(latencies.percentile(percent), Some(Duration::from_millis(ms)), "{percent}");
        }
        assert_eq!((latencies.max(), latencies.count()), (Some(Duration::from_millis(100)), 100));
    }

    #[test]
    fn one_user_becomes_many() {
        assert_eq!(users("sip:load@ims.test", 1), ["sip:load@ims.test"]);
        assert_eq!(users("sip:load@ims.test", 2), ["sip:load-1@ims.test", "sip:load-2@ims.test"]);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage(std::process::id()).expect("Linux");
        assert!(usage.resident > 0 && usage.peak >= usage.resident);
    }

    #[tokio::test]
    async fn pages_between_phones_are_counted_and_checked() {
        let core = Core::start(core::Settings::demo()).await.expect("loopback");
        for (pace, least) in [(Pace::Concurrency(4), 4), (Pace::Rate(50.0), 5)] {
            let plan = Plan {
                core: core.uri(),
                originators: users("sip:load@ims.test", 2),
                recipients: vec!["sip:bob@ims.test".to_owned()],
                to: Recipients::User("sip:bob@ims.test".to_owned()),
                pace,
                time: Duration::from_millis(300),
                octets: 5000,
                behaviour: Behaviour::default(),
                patience: Duration::from_secs(10),
            };
            let results = run(&plan).await.expect("started");
            assert!(results.is_clean(), "{results:?}");
            assert!(results.accepted >= least && results.accepted == results.begun);
            assert_eq!(results.received.count() as u64, results.delivered);
            assert!(results.rate() > 1.0);
        }
        let nobody = Recipients::User("sip:nobody@ims.test".to_owned());
        let plan = Plan {
            core: core.uri(),
            originators: vec!["sip:load@ims.test".to_owned()],
            recipients: Vec::new(),
            to: nobody,
            pace: Pace::Rate(20.0),
            time: Duration::from_millis(100),
            octets: 0,
            behaviour: Behaviour::default(),
            patience: Duration::from_secs(10),
        };
        let results = run(&plan).await.expect("started");
        assert_eq!(results.accepted, 0);
        assert_eq!(results.errors.get("SIP 404"), Some(&results.begun));
    }
}
