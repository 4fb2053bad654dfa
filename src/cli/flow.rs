//! `flow`: the call flow of one page as a ladder.

use std::process::ExitCode;

use crate::engine::ids::PageId;
use crate::ops::client;

/// Options of `flow`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pagecast flow 00c5f0a17be3d942")]
pub struct Arguments {
    /// The page, as logs and the API name it
    #[arg(value_name = "PAGE-ID")]
    pub page: PageId,
    /// The server's `ops.listen`
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9464")]
    pub ops: String,
    /// The server's `ops.token`
    #[arg(long, value_name = "TOKEN", env = "PAGECAST_OPS_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Prints the ladder.
pub fn run(arguments: &Arguments) -> ExitCode {
    super::client(async {
        let ladder = client::flow(&arguments.ops, arguments.page, arguments.token.as_deref()).await;
        print!("{}", ladder.map_err(|error| error.to_string())?);
        Ok(())
    })
}
