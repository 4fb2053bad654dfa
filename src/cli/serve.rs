//! `serve`: the server in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Source;
use crate::config::node::NodeSettings;
use crate::node::{Ended, Node};
use crate::ops::log;

/// Options of `serve`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pagecast serve --config /etc/pagecast/pagecast.toml --set log.level=debug"
)]
pub struct Arguments {
    #[command(flatten)]
    pub configuration: Configuration,
}

/// Where configuration comes from; for `serve` and `check`.
#[derive(Debug, clap::Args)]
pub struct Configuration {
    /// Configuration file [default: $PAGECAST_CONFIG, ./config/pagecast.toml, /etc/pagecast/pagecast.toml, built in]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one value over the file, as `section.key=VALUE` or `profile.KEY=VALUE`; VALUE is TOML or a string
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

impl Configuration {
    /// The same, to be read more than once.
    pub fn source(&self) -> Source {
        Source::new(self.config.clone(), self.set.clone())
    }
}

/// How many threads there are when the configuration leaves it open.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs the server until a signal ends it.
pub fn run(arguments: &Arguments) -> ExitCode {
    let source = arguments.configuration.source();
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(wrong) => return super::wrong(wrong),
    };
    let log = match log::init(loaded.config.log) {
        Ok(log) => log,
        Err(error) => return super::failed(error),
    };
    let runtime = match super::client_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return super::failed(format_args!("cannot start: {error}")),
    };
    runtime.block_on(async {
        let signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => return super::failed(format_args!("cannot listen for signals: {error}")),
        };
        let node =
            match Node::start(NodeSettings::new(&loaded, cores()), Some(source), Some(log)).await {
                Ok(node) => node,
                Err(error) => return super::failed(error),
            };
        count_panics(&node);
        println!("{}", node.ready_line());
        let ended = until_signalled(&node, signals).await;
        node.stop();
        match ended {
            Ended::Drained => ExitCode::SUCCESS,
            Ended::Interrupted => super::failed("stopped by a second signal"),
        }
    })
}

/// Counts what is always a bug of ours, besides telling it on stderr.
fn count_panics(node: &Node) {
    let metrics = Arc::clone(&node.control().watch().metrics);
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        told(panic);
    }));
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

async fn until_signalled(node: &Node, mut signals: Signals) -> Ended {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            () = node.control().drain_requested() => break,
            _ = signals.hangup.recv() => match node.control().reload_now() {
                Ok(()) => tracing::info!("configuration reloaded"),
                Err(error) => tracing::error!(error, "configuration not reloaded, the old one stays in force"),
            },
        }
    }
    tracing::info!("draining");
    tokio::select! {
        biased;
        () = node.drain() => Ended::Drained,
        _ = signals.terminate.recv() => Ended::Interrupted,
        _ = signals.interrupt.recv() => Ended::Interrupted,
    }
}
