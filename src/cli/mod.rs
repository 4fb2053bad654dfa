//! The commands, one file each. They parse nothing but their own arguments, print results to stdout and logs to
//! stderr, and end with 0 (done), 1 (failed) or 2 (wrong usage or configuration).

pub mod check;
pub mod serve;

use std::process::ExitCode;

/// Wrong usage or wrong configuration.
pub const WRONG_CONFIGURATION: u8 = 2;
/// The command ran and failed.
pub const FAILED: u8 = 1;

/// What the program can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the server in the foreground until SIGTERM or SIGINT.
    Serve(serve::Arguments),
    /// Print every effective setting and where it came from; touches no network.
    Check(check::Arguments),
}

/// Runs one command to its exit status.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
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
