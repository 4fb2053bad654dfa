//! `check`: every effective setting and where it came from.

use std::process::ExitCode;

use super::serve::{Configuration, cores};
use crate::config::node::NodeSettings;
use crate::isc::rules::own::Own;

/// Options of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pagecast check --config /etc/pagecast/pagecast.toml")]
pub struct Arguments {
    #[command(flatten)]
    pub configuration: Configuration,
}

/// Prints one line per setting.
pub fn run(arguments: &Arguments) -> ExitCode {
    let loaded = match arguments.configuration.source().load() {
        Ok(loaded) => loaded,
        Err(wrong) => return super::wrong(wrong),
    };
    let lines = loaded.explain();
    if let Err(wrong) = Own::new(&NodeSettings::new(&loaded, cores()).isc) {
        return super::wrong(wrong);
    }
    print!("{lines}");
    ExitCode::SUCCESS
}
