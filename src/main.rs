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

/// Messages come and go by the thousand, each in many small pieces.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(Arguments::parse().command)
}
