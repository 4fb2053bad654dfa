//! `load`: many phones.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::lab::load::{Latencies, Pace, Plan, Results, Usage, run as pages, usage, users};
use crate::lab::phone::{Behaviour, Recipients};

/// Options of `load`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pagecast load --core sip:127.0.0.1:5060 --from sip:load@ims.test --recipients 10 \\\n      --senders 100 --concurrency 4 --seconds 10 --size 204800 --pid $(pidof pagecast)"
)]
pub struct Arguments {
    /// The core, by IP address
    #[arg(long, value_name = "URI")]
    pub core: String,
    /// Who sends; with many senders a number is added to the name
    #[arg(long, value_name = "URI")]
    pub from: String,
    /// A group whose members have phones already
    #[arg(long, value_name = "URI", required_unless_present = "recipients")]
    pub group: Option<String>,
    /// Phones that are started and listed in each page; with --group, its members that are started here
    #[arg(long, value_name = "N")]
    pub recipients: Option<usize>,
    /// Pages a second
    #[arg(
        long,
        value_name = "R",
        required_unless_present = "concurrency",
        conflicts_with = "concurrency"
    )]
    pub rate: Option<f64>,
    /// Pages at a time
    #[arg(long, value_name = "C")]
    pub concurrency: Option<usize>,
    /// How long pages are begun
    #[arg(long, value_name = "S")]
    pub seconds: u64,
    /// Octets of each page, at least 16
    #[arg(long, value_name = "B")]
    pub size: usize,
    /// How many users send, in turn; a server limits what one user may send
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub senders: usize,
    /// The service that expands lists
    #[arg(long, value_name = "URI", default_value = "sip:pages@ims.test")]
    pub factory: String,
    /// The server, to tell what it uses of the machine
    #[arg(long, value_name = "P")]
    pub pid: Option<u32>,
    /// One JSON object instead of lines
    #[arg(long)]
    pub json: bool,
}

/// Sends pages as asked and prints what came of them.
pub fn run(arguments: &Arguments) -> ExitCode {
    super::client(async {
        let domain = arguments.from.rsplit('@').next().unwrap_or("ims.test");
        let recipients = arguments.recipients.map_or_else(Vec::new, |count| {
            (1..=count).map(|n| format!("sip:load-to-{n}@{domain}")).collect()
        });
        let to = match &arguments.group {
            Some(group) => Recipients::Group(group.clone()),
            None => {
                Recipients::List { factory: arguments.factory.clone(), entries: recipients.clone() }
            }
        };
        let pace = match (arguments.rate, arguments.concurrency) {
            (Some(rate), _) => Pace::Rate(rate),
            (None, Some(at_once)) => Pace::Concurrency(at_once),
            (None, None) => return Err("how fast: --rate or --concurrency".to_owned()),
        };
        let plan = Plan {
            core: arguments.core.clone(),
            originators: users(&arguments.from, arguments.senders),
            recipients,
            to,
            pace,
            time: Duration::from_secs(arguments.seconds),
            octets: arguments.size,
            behaviour: Behaviour::default(),
            patience: Duration::from_secs(60),
        };
        let look = |pid| usage(pid).map_err(|error| format!("process {pid}: {error}"));
        let before = arguments.pid.map(look).transpose()?;
        eprintln!("sending for {} s", arguments.seconds);
        let results = pages(&plan).await.map_err(|error| error.to_string())?;
        let after = arguments.pid.map(look).transpose()?;
        let used = before.zip(after);
        if arguments.json {
            println!("{}", as_json(&results, used));
        } else {
            print!("{}", as_text(&results, used));
        }
        super::complain(&results.complaints)?;
        if results.is_clean() { Ok(()) } else { Err("not every page arrived".to_owned()) }
    })
}

const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

fn as_text(results: &Results, used: Option<(Usage, Usage)>) -> String {
    let mut text = format!(
        "pages     begun {} accepted {} ({:.1}/s) in {:.1?}\ncopies    expected {} delivered {} damaged {}\n",
        results.begun,
        results.accepted,
        results.rate(),
        results.took,
        results.expected,
        results.delivered,
        results.damaged
    );
    let latencies = [
        ("answered", &results.answered),
        ("taken", &results.transferred),
        ("received", &results.received),
    ];
    for (name, latency) in latencies {
        text.push_str(&format!("{name:<9}"));
        for percent in PERCENTILES {
            if let Some(value) = latency.percentile(percent) {
                text.push_str(&format!(" p{percent} {value:.1?}"));
            }
        }
        text.push('\n');
    }
    for (error, count) in &results.errors {
        text.push_str(&format!("error     {count} x {error}\n"));
    }
    if let Some((before, after)) = used {
        let cpu = after.cpu.saturating_sub(before.cpu);
        let mib = |octets: u64| octets / (1 << 20);
        text.push_str(&format!(
            "server    cpu {cpu:.2?} resident {} MiB peak {} MiB\n",
            mib(after.resident),
            mib(after.peak)
        ));
    }
    text
}

fn as_json(results: &Results, used: Option<(Usage, Usage)>) -> serde_json::Value {
    let latency = |latency: &Latencies| {
        let of = |percent| latency.percentile(percent).map(|value| value.as_secs_f64());
        json!({"count": latency.count(), "p50": of(50.0), "p90": of(90.0), "p99": of(99.0), "max": latency.max().map(|max| max.as_secs_f64())})
    };
    json!({
        "begun": results.begun,
        "accepted": results.accepted,
        "rate": results.rate(),
        "seconds": results.took.as_secs_f64(),
        "expected": results.expected,
        "delivered": results.delivered,
        "damaged": results.damaged,
        "answered": latency(&results.answered),
        "taken": latency(&results.transferred),
        "received": latency(&results.received),
        "errors": results.errors,
        "server": used.map(|(before, after)| json!({
            "cpu_seconds": after.cpu.saturating_sub(before.cpu).as_secs_f64(),
            "resident": after.resident,
            "peak": after.peak,
        })),
    })
}
