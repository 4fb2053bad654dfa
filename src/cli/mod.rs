//! The commands, one file each. They parse nothing but their own arguments, print results to stdout and logs to
//! stderr, and end with 0 (done), 1 (failed) or 2 (wrong usage or configuration).

pub mod check;
pub mod core;
pub mod demo;
pub mod flow;
pub mod group;
pub mod load;
pub mod page;
pub mod phone;
pub mod probe;
pub mod serve;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::ops::log;

/// Wrong usage or wrong configuration.
pub const WRONG_CONFIGURATION: u8 = 2;
/// The command ran and failed.
pub const FAILED: u8 = 1;

/// What the program can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the server in the foreground until SIGTERM or SIGINT.
    Serve(serve::Arguments),
    /// Print every effective setting and where it came from; touches no network unless asked to probe.
    Check(check::Arguments),
    /// Run the whole service on loopback with built-in neighbours and page a picture to a group.
    Demo(demo::Arguments),
    /// Run the demo's small core alone, for trying things by hand.
    Core(core::Arguments),
    /// Send one page as one phone, and print what was answered and reported.
    Page(page::Arguments),
    /// Be one receiving phone: write every page that arrives to a directory.
    Phone(phone::Arguments),
    /// Be many phones: print rate, latency and errors.
    Load(load::Arguments),
    /// Handle group documents in the XDMS, over XCAP.
    Group(group::Arguments),
    /// Print the call flow of one page as a ladder.
    Flow(flow::Arguments),
}

/// Runs one command to its exit status.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Core(arguments) => core::run(&arguments),
        Command::Page(arguments) => page::run(&arguments),
        Command::Phone(arguments) => phone::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::Group(arguments) => group::run(&arguments),
        Command::Flow(arguments) => flow::run(&arguments),
    }
}

/// A runtime for the commands that are clients: one thread, everything enabled.
fn client_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Prints why a command failed and gives its exit status.
fn failed(why: impl std::fmt::Display) -> ExitCode {
    eprintln!("pagecast: {why}");
    ExitCode::from(FAILED)
}

/// Prints what is wrong with the usage or configuration and gives its exit status.
fn wrong(why: impl std::fmt::Display) -> ExitCode {
    eprintln!("pagecast: {why}");
    ExitCode::from(WRONG_CONFIGURATION)
}

/// Runs a command that is a client of something to its exit status. What it warns of goes to stderr.
fn client(command: impl Future<Output = Result<(), String>>) -> ExitCode {
    // Without a log the warnings are lost and nothing else.
    let _ = log::init(log::Settings { level: log::Level::Warn, format: log::Format::Text });
    let runtime = match client_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(format_args!("cannot start: {error}")),
    };
    match runtime.block_on(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(why),
    }
}

/// Resolves at SIGINT or SIGTERM, or at once where signals cannot be had.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}

/// Fails with what the neighbours found wrong with the server's messages.
fn complain(complaints: &[String]) -> Result<(), String> {
    for complaint in complaints {
        eprintln!("complaint: {complaint}");
    }
    match complaints.len() {
        0 => Ok(()),
        n => Err(format!("{n} complaints about the server's messages")),
    }
}
