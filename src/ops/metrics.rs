//! Counters for monitoring: one typed handle for each family, every family there from the first scrape.
//!
//! No label ever holds a user or an id, and none an arbitrary text: methods and reasons that are not known count as
//! `other`. [`Metrics::text`] writes the Prometheus text form 0.0.4, [`Metrics::open_metrics`] OpenMetrics.
//! The process's own figures are read from `/proc` at each scrape.

use std::sync::atomic::AtomicU64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::engine::effect::{Cause, CauseProtocol};

/// Declares a label with a fixed list of values.
macro_rules! label {
    ($(#[$about:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($variant),+
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$variant => $word.encode(encoder)),+
                }
            }
        }
    };
}

label! {
    /// How a page was sent.
    Mode { Large = "large", Short = "short" }
}

label! {
    /// What became of a page or a recipient.
    Result { Delivered = "delivered", Failed = "failed", Deferred = "deferred", Expired = "expired", Refused = "refused" }
}

label! {
    /// Towards us or away from us.
    Direction { In = "in", Out = "out" }
}

label! {
    /// Where a live leg stands.
    LegState { Invited = "invited", Early = "early", Joined = "joined", Sending = "sending" }
}

/// A SIP status, or nothing in requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub Option<u16>);

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        match self.0 {
            Some(code) => u64::from(code).encode(encoder),
            None => "".encode(encoder),
        }
    }
}

/// Why a recipient ended as it did: a code of SIP or MSRP, or who decided without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CauseLabel {
    None,
    Code(u16),
    Timer,
    Store,
    Policy,
    /// The wire broke and no code was ever seen.
    Transport,
}

impl CauseLabel {
    /// The label of a cause.
    pub fn of(cause: &Cause) -> Self {
        match (cause.protocol, cause.code) {
            (CauseProtocol::Timer, _) => Self::Timer,
            (CauseProtocol::Store, _) => Self::Store,
            (CauseProtocol::Policy, _) => Self::Policy,
            (CauseProtocol::Sip | CauseProtocol::Msrp, code @ 100..=699) => Self::Code(code),
            (CauseProtocol::Sip | CauseProtocol::Msrp, _) => Self::Transport,
        }
    }
}

impl EncodeLabelValue for CauseLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        match self {
            Self::None => "".encode(encoder),
            Self::Code(code) => u64::from(*code).encode(encoder),
            Self::Timer => "timer".encode(encoder),
            Self::Store => "store".encode(encoder),
            Self::Policy => "policy".encode(encoder),
            Self::Transport => "transport".encode(encoder),
        }
    }
}

/// A word out of a list we know, so that no peer invents label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}

const METHODS: [&str; 14] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "REGISTER",
    "PRACK",
    "UPDATE",
    "INFO",
    "MESSAGE",
    "SUBSCRIBE",
    "NOTIFY",
    "REFER",
    "PUBLISH",
];

fn method(text: &str) -> Word {
    Word(METHODS.into_iter().find(|known| *known == text).unwrap_or("other"))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PageLabels {
    mode: Mode,
    result: Result,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RecipientLabels {
    result: Result,
    cause: CauseLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LegLabels {
    state: LegState,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: Direction,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SipLabels {
    direction: Direction,
    method: Word,
    code: Code,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShLabels {
    command: Word,
    result: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: Reason,
}

/// Why something was refused: the id of the rule that decided, or a word of ours. Rules are `&'static str` in code, so
/// their number is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Reason(&'static str);

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}

/// Why a TLS connection of MSRP did not come to be.
pub const HANDSHAKES_FAILED: [&str; 4] = ["slow", "protocol", "certificate", "busy"];

/// Upper bounds of the duration histograms, in seconds.
const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

/// Every family of the node. Cheap to share behind an `Arc`; all methods take `&self`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pages: Family<PageLabels, Counter>,
    recipients: Family<RecipientLabels, Counter>,
    page_delivery: Histogram,
    leg_setup: Histogram,
    legs: Family<LegLabels, Gauge>,
    msrp_bytes: Family<DirectionLabels, Counter>,
    /// Open MSRP connections.
    pub msrp_connections: Gauge,
    msrp_handshakes_failed: Family<ReasonLabels, Counter>,
    /// Octets of pages held, in memory and on disk.
    pub spool_bytes: Gauge,
    sip_messages: Family<SipLabels, Counter>,
    /// Live transactions.
    pub sip_transactions: Gauge,
    /// Requests and responses that were sent again.
    pub sip_retransmissions: Counter,
    /// Pages that wait for a recipient.
    pub deferred_messages: Gauge,
    store_commit: Histogram,
    /// Identities that are registered, as the core told us.
    pub registrations: Gauge,
    xdms_requests: Family<ResultLabels, Counter>,
    charging_records: Family<ResultLabels, Counter>,
    sh_requests: Family<ShLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    /// Always 0; each one is a bug of ours.
    pub panics: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All families, at zero.
    pub fn new() -> Self {
        let histogram = || Histogram::new(SECONDS);
        let mut metrics = Self {
            registry: Registry::default(),
            pages: Family::default(),
            recipients: Family::default(),
            page_delivery: histogram(),
            leg_setup: histogram(),
            legs: Family::default(),
            msrp_bytes: Family::default(),
            msrp_connections: Gauge::default(),
            msrp_handshakes_failed: Family::default(),
            spool_bytes: Gauge::default(),
            sip_messages: Family::default(),
            sip_transactions: Gauge::default(),
            sip_retransmissions: Counter::default(),
            deferred_messages: Gauge::default(),
            store_commit: histogram(),
            registrations: Gauge::default(),
            xdms_requests: Family::default(),
            charging_records: Family::default(),
            sh_requests: Family::default(),
            refused: Family::default(),
            panics: Counter::default(),
        };
        metrics.register();
        metrics.start_at_zero();
        metrics
    }

    /// A page has its result.
    pub fn page(&self, mode: Mode, result: Result) {
        self.pages.get_or_create(&PageLabels { mode, result }).inc();
    }

    /// A recipient has its result.
    pub fn recipient(&self, result: Result, cause: CauseLabel) {
        self.recipients.get_or_create(&RecipientLabels { result, cause }).inc();
    }

    /// From the arrival of a page to its last delivery.
    pub fn page_delivery_seconds(&self, seconds: f64) {
        self.page_delivery.observe(seconds);
    }

    /// From the INVITE to a recipient to its 200.
    pub fn leg_setup_seconds(&self, seconds: f64) {
        self.leg_setup.observe(seconds);
    }

    /// A leg left one state for another; `None` is where it was not or is no more.
    pub fn leg_moved(&self, from: Option<LegState>, to: Option<LegState>) {
        if let Some(state) = from {
            self.legs.get_or_create(&LegLabels { state }).dec();
        }
        if let Some(state) = to {
            self.legs.get_or_create(&LegLabels { state }).inc();
        }
    }

    /// Octets crossed an MSRP connection.
    pub fn msrp_bytes(&self, direction: Direction, octets: u64) {
        self.msrp_bytes.get_or_create(&DirectionLabels { direction }).inc_by(octets);
    }

    /// So many more TLS connections of MSRP did not come to be; `reason` is one of [`HANDSHAKES_FAILED`].
    pub fn msrp_handshakes_failed(&self, reason: &'static str, more: u64) {
        let labels = ReasonLabels { reason: Reason(reason) };
        self.msrp_handshakes_failed.get_or_create(&labels).inc_by(more);
    }

    /// A SIP message crossed the wire: a request, or the response with `code` to one.
    pub fn sip_message(&self, direction: Direction, request: &str, code: Option<u16>) {
        let labels = SipLabels { direction, method: method(request), code: Code(code) };
        self.sip_messages.get_or_create(&labels).inc();
    }

    /// A commit of the store took so long.
    pub fn store_commit_seconds(&self, seconds: f64) {
        self.store_commit.observe(seconds);
    }

    /// A question to the XDMS had this result: `ok`, `not_modified`, `not_found`, `denied` or `unavailable`.
    pub fn xdms_request(&self, result: &str) {
        let known = ["ok", "not_modified", "not_found", "denied", "unavailable"];
        let result = Word(known.into_iter().find(|known| *known == result).unwrap_or("other"));
        self.xdms_requests.get_or_create(&ResultLabels { result }).inc();
    }

    /// So many charging records more are `written` or `lost`.
    pub fn charging_records(&self, result: &'static str, more: u64) {
        self.charging_records.get_or_create(&ResultLabels { result: Word(result) }).inc_by(more);
    }

    /// A request to or from the HSS has its answer, or has none.
    pub fn sh_request(&self, command: &'static str, result: &'static str) {
        let labels = ShLabels { command: Word(command), result: Word(result) };
        self.sh_requests.get_or_create(&labels).inc();
    }

    /// Something was refused: the rule's id, or a word of ours.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason: Reason(reason) }).inc();
    }

    /// The Prometheus text form, version 0.0.4.
    pub fn text(&self) -> String {
        let open = self.open_metrics();
        let mut text = String::with_capacity(open.len());
        let mut counter = false;
        for line in open.lines() {
            if let Some(about) = line.strip_prefix("# ") {
                // In this form a counter is named with its `_total`, and there is neither UNIT nor EOF.
                let mut words = about.splitn(3, ' ');
                let (kind, name, rest) = (words.next(), words.next(), words.next());
                let (Some(kind @ ("HELP" | "TYPE")), Some(name), Some(rest)) = (kind, name, rest)
                else {
                    continue;
                };
                if kind == "HELP" {
                    counter = open.contains(&format!("# TYPE {name} counter\n"));
                }
                let end = if counter { "_total" } else { "" };
                text.push_str(&format!("# {kind} {name}{end} {rest}\n"));
            } else {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// The OpenMetrics form, 1.0.0.
    pub fn open_metrics(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("pagecast_pages", "Pages with a result", self.pages.clone());
        r.register("pagecast_recipients", "Recipients with a result", self.recipients.clone());
        r.register(
            "pagecast_page_delivery_seconds",
            "From the arrival of a page to its last delivery",
            self.page_delivery.clone(),
        );
        r.register(
            "pagecast_leg_setup_seconds",
            "From the INVITE to a recipient to its 200",
            self.leg_setup.clone(),
        );
        r.register("pagecast_legs", "Recipients being served", self.legs.clone());
        r.register("pagecast_msrp_bytes", "Octets on MSRP connections", self.msrp_bytes.clone());
        r.register(
            "pagecast_msrp_connections",
            "Open MSRP connections",
            self.msrp_connections.clone(),
        );
        r.register(
            "pagecast_msrp_handshakes_failed",
            "TLS connections of MSRP that did not come to be",
            self.msrp_handshakes_failed.clone(),
        );
        r.register("pagecast_spool_bytes", "Octets of pages held", self.spool_bytes.clone());
        r.register("pagecast_sip_messages", "SIP messages", self.sip_messages.clone());
        r.register(
            "pagecast_sip_transactions",
            "Live SIP transactions",
            self.sip_transactions.clone(),
        );
        r.register(
            "pagecast_sip_retransmissions",
            "SIP messages that were sent again",
            self.sip_retransmissions.clone(),
        );
        r.register(
            "pagecast_deferred_messages",
            "Pages that wait for a recipient",
            self.deferred_messages.clone(),
        );
        r.register(
            "pagecast_store_commit_seconds",
            "Commits of the store",
            self.store_commit.clone(),
        );
        r.register(
            "pagecast_registrations",
            "Identities that are registered",
            self.registrations.clone(),
        );
        r.register("pagecast_xdms_requests", "Questions to the XDMS", self.xdms_requests.clone());
        r.register("pagecast_charging_records", "Charging records", self.charging_records.clone());
        r.register("pagecast_sh_requests", "Questions to the HSS", self.sh_requests.clone());
        r.register("pagecast_refused", "Requests that were refused", self.refused.clone());
        r.register("pagecast_panics", "Panics; each one is a bug", self.panics.clone());
        r.register_collector(Box::new(Process));
    }

    /// Makes the label combinations that will come anyway, so that a rate can be computed from the first event on.
    fn start_at_zero(&self) {
        use self::Result::{Deferred, Delivered, Expired, Failed, Refused};
        for result in [Delivered, Failed, Deferred, Expired, Refused] {
            for mode in [Mode::Large, Mode::Short] {
                drop(self.pages.get_or_create(&PageLabels { mode, result }));
            }
        }
        drop(
            self.recipients
                .get_or_create(&RecipientLabels { result: Delivered, cause: CauseLabel::None }),
        );
        for state in [LegState::Invited, LegState::Early, LegState::Joined, LegState::Sending] {
            drop(self.legs.get_or_create(&LegLabels { state }));
        }
        for direction in [Direction::In, Direction::Out] {
            drop(self.msrp_bytes.get_or_create(&DirectionLabels { direction }));
            let method = Word("INVITE");
            drop(self.sip_messages.get_or_create(&SipLabels {
                direction,
                method,
                code: Code(None),
            }));
        }
        for result in ["ok", "not_modified", "not_found", "denied", "unavailable"] {
            drop(self.xdms_requests.get_or_create(&ResultLabels { result: Word(result) }));
        }
        drop(
            self.sh_requests.get_or_create(&ShLabels { command: Word("UDR"), result: Word("ok") }),
        );
        for result in ["written", "lost"] {
            self.charging_records(result, 0);
        }
        for reason in HANDSHAKES_FAILED {
            self.msrp_handshakes_failed(reason, 0);
        }
        for reason in ["overload", "drain"] {
            drop(self.refused.get_or_create(&ReasonLabels { reason: Reason(reason) }));
        }
    }
}

/// The process metrics by their usual names, read from `/proc` at each scrape.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let figures = ProcessFigures::read();
        let cpu = ConstCounter::new(figures.cpu_seconds);
        let name = "process_cpu_seconds";
        let metric = encoder.encode_descriptor(
            name,
            "CPU time, user and system",
            None,
            MetricType::Counter,
        )?;
        cpu.encode(metric)?;
        let gauges = [
            ("process_start_time_seconds", "Start since the epoch", figures.start_seconds),
            ("process_resident_memory_bytes", "Resident memory", figures.resident),
            ("process_virtual_memory_bytes", "Virtual memory", figures.virtual_memory),
            ("process_open_fds", "Open file descriptors", figures.open_fds),
            ("process_max_fds", "Most file descriptors", figures.max_fds),
            ("process_threads", "Threads", figures.threads),
        ];
        for (name, help, value) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct ProcessFigures {
    cpu_seconds: f64,
    start_seconds: f64,
    resident: f64,
    virtual_memory: f64,
    open_fds: f64,
    max_fds: f64,
    threads: f64,
}

/// Clock ticks a second in `/proc`, the same on every Linux architecture we run on.
const TICKS: f64 = 100.0;

impl ProcessFigures {
    /// Figures that cannot be read stay 0.
    fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut figures = Self::default();
        let stat = text("/proc/self/stat");
        // The name in brackets may hold anything; fields count from behind it, state being the first.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<f64> =
            after_name.split_ascii_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        let field = |n: usize| fields.get(n).copied().unwrap_or(0.0);
        figures.cpu_seconds = (field(11) + field(12)) / TICKS;
        figures.threads = field(17);
        figures.virtual_memory = field(20);
        let boot = number_after(&text("/proc/stat"), "btime ");
        figures.start_seconds = boot + field(19) / TICKS;
        figures.resident = number_after(&text("/proc/self/status"), "VmRSS:") * 1024.0;
        figures.max_fds = number_after(&text("/proc/self/limits"), "Max open files");
        figures.open_fds = std::fs::read_dir("/proc/self/fd")
            .map_or(0.0, |files| (files.count().saturating_sub(1)) as f64);
        figures
    }
}

fn number_after(text: &str, start: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(start))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0)
}

/// Counters are 64 bits wide wherever we run.
const _: fn() = || {
    let _: Option<Counter<u64, AtomicU64>> = None::<Counter>;
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Families, labels and kinds as the interface promises them.
    const FAMILIES: &[(&str, &str, &[&str])] = &[
        ("pagecast_pages_total", "counter", &["mode", "result"]),
        ("pagecast_recipients_total", "counter", &["result", "cause"]),
        ("pagecast_page_delivery_seconds", "histogram", &[]),
        ("pagecast_leg_setup_seconds", "histogram", &[]),
        ("pagecast_legs", "gauge", &["state"]),
        ("pagecast_msrp_bytes_total", "counter", &["direction"]),
        ("pagecast_msrp_connections", "gauge", &[]),
        ("pagecast_msrp_handshakes_failed_total", "counter", &["reason"]),
        ("pagecast_spool_bytes", "gauge", &[]),
        ("pagecast_sip_messages_total", "counter", &["direction", "method", "code"]),
        ("pagecast_sip_transactions", "gauge", &[]),
        ("pagecast_sip_retransmissions_total", "counter", &[]),
        ("pagecast_deferred_messages", "gauge", &[]),
        ("pagecast_store_commit_seconds", "histogram", &[]),
        ("pagecast_charging_records_total", "counter", &["result"]),
        ("pagecast_xdms_requests_total", "counter", &["result"]),
        ("pagecast_sh_requests_total", "counter", &["command", "result"]),
        ("pagecast_refused_total", "counter", &["reason"]),
        ("pagecast_panics_total", "counter", &[]),
        ("process_cpu_seconds_total", "counter", &[]),
        ("process_start_time_seconds", "gauge", &[]),
        ("process_resident_memory_bytes", "gauge", &[]),
        ("process_virtual_memory_bytes", "gauge", &[]),
        ("process_open_fds", "gauge", &[]),
        ("process_max_fds", "gauge", &[]),
    ];

    #[test]
    fn every_family_is_there_from_the_start() {
        let text = Metrics::new().text();
        for (family, kind, labels) in FAMILIES {
            assert!(text.contains(&format!("# TYPE {family} {kind}\n")), "{family}: {text}");
            assert!(text.contains(&format!("# HELP {family} ")), "{family}");
            let sample = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .find(|line| line.starts_with(family))
                .unwrap_or_else(|| panic!("{family} has no sample"));
            for label in *labels {
                assert!(sample.contains(&format!("{label}=\"")), "{family}: {sample}");
            }
        }
        assert!(text.contains("pagecast_panics_total 0\n"), "{text}");
    }

    /// Each line is a comment of the form 0.0.4 or a sample of the family that was named last.
    #[test]
    fn the_text_is_well_formed() {
        let metrics = Metrics::new();
        metrics.page(Mode::Large, Result::Delivered);
        metrics.recipient(Result::Failed, CauseLabel::Code(486));
        metrics.sip_message(Direction::In, "INVITE", None);
        metrics.sip_message(Direction::Out, "INVITE", Some(200));
        metrics.sip_message(Direction::In, "BREW\"}", None);
        metrics.leg_setup_seconds(0.02);
        metrics.refused("IM-024");
        let text = metrics.text();
        let mut family = String::new();
        let mut seen = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().expect("a name").to_owned();
                assert!(seen.insert(family.clone()), "{family} stands twice");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let mut words = kind.split(' ');
                assert_eq!(words.next(), Some(family.as_str()), "{line}");
                assert!(matches!(words.next(), Some("counter" | "gauge" | "histogram")), "{line}");
            } else {
                assert!(!line.starts_with('#') && !line.is_empty(), "{line}");
                assert!(line.starts_with(&family), "{line} is no sample of {family}");
                let value = line.rsplit(' ').next().expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        for sample in [
            "pagecast_pages_total{mode=\"large\",result=\"delivered\"} 1\n",
            "pagecast_recipients_total{result=\"failed\",cause=\"486\"} 1\n",
            "pagecast_sip_messages_total{direction=\"in\",method=\"INVITE\",code=\"\"} 1\n",
            "pagecast_sip_messages_total{direction=\"out\",method=\"INVITE\",code=\"200\"} 1\n",
            "pagecast_sip_messages_total{direction=\"in\",method=\"other\",code=\"\"} 1\n",
            "pagecast_leg_setup_seconds_bucket{le=\"0.025\"} 1\n",
            "pagecast_leg_setup_seconds_count 1\n",
            "pagecast_refused_total{reason=\"IM-024\"} 1\n",
        ] {
            assert!(text.contains(sample), "{sample} is missing in {text}");
        }
        let open = metrics.open_metrics();
        assert!(open.ends_with("# EOF\n"));
        assert!(open.contains("# TYPE pagecast_pages counter\n"));
    }

    #[test]
    fn the_process_is_measured() {
        let figures = ProcessFigures::read();
        assert!(figures.resident > 100_000.0, "{figures:?}");
        assert!(figures.virtual_memory >= figures.resident, "{figures:?}");
        assert!(figures.open_fds >= 1.0 && figures.open_fds <= figures.max_fds, "{figures:?}");
        assert!(figures.start_seconds > 1_600_000_000.0, "{figures:?}");
        assert!(figures.threads >= 1.0, "{figures:?}");
    }
}
