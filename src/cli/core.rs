//! `core`: the demo's small core alone.

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::lab::core::{Core, Settings};

/// Options of `core`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pagecast core --listen 127.0.0.1:5060 --as sip:127.0.0.1:5090")]
pub struct Arguments {
    /// Where it listens, UDP and TCP
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5060")]
    pub listen: SocketAddr,
    /// The server's SIP URI, as a filter criterion would name it
    #[arg(long = "as", value_name = "URI", default_value = "sip:127.0.0.1:5090")]
    pub server: String,
    /// A user that exists without being registered; may be repeated
    #[arg(long, value_name = "URI")]
    pub offline: Vec<String>,
}

/// Serves until a signal ends it.
pub fn run(arguments: &Arguments) -> ExitCode {
    super::client(async {
        let settings = Settings {
            listen: arguments.listen,
            server: Some(arguments.server.clone()),
            ..Settings::demo()
        };
        let core = Core::start(settings).await.map_err(|error| error.to_string())?;
        arguments.offline.iter().for_each(|user| core.provision(user));
        println!("core {} server {}", core.uri(), arguments.server);
        super::interrupted().await;
        let complaints = core.complaints();
        super::complain(&complaints)
    })
}
