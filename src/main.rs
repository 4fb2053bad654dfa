//! Arguments in, one command run.

use std::process::ExitCode;

use clap::Parser;
use pagecast::cli::{Command, run};

/// IMS messaging application server: one page from one user to a list or a group.
#[derive(Debug, Parser)]
#[command(name = "pagecast", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    run(Arguments::parse().command)
}
