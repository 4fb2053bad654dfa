//! `check`: every effective setting and where it came from, with `--explain` what it does; with `--probe`, whether the neighbours answer.

use std::process::ExitCode;

use super::probe::probe;
use super::serve::{Configuration, cores};
use crate::config::node::NodeSettings;
use crate::isc::rules::own::Own;

/// Options of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pagecast check --config /etc/pagecast/pagecast.toml --probe")]
pub struct Arguments {
    #[command(flatten)]
    pub configuration: Configuration,
    /// Say in one more clause what each key does
    #[arg(long)]
    pub explain: bool,
    /// Ask the neighbours too: OPTIONS to the S-CSCF, the groups of the XDMS, a write to the store; one line each
    #[arg(long)]
    pub probe: bool,
}

/// Prints one line per setting, and with `--probe` one per neighbour.
pub fn run(arguments: &Arguments) -> ExitCode {
    let loaded = match arguments.configuration.source().load() {
        Ok(loaded) => loaded,
        Err(wrong) => return super::wrong(wrong),
    };
    let lines = loaded.explain(arguments.explain);
    let settings = NodeSettings::new(&loaded, cores());
    if let Err(wrong) = Own::new(&settings.isc) {
        return super::wrong(wrong);
    }
    print!("{lines}");
    if let Some(material) = &loaded.config.sip.tls {
        let until = time::OffsetDateTime::from_unix_timestamp(material.until());
        let until =
            until.map_or_else(|_| "for ever".to_owned(), |at| format!("until {}", at.date()));
        println!("# sip.tls.certificate is for {}, {until}", material.names());
    }
    if let Some(tls) = &loaded.config.msrp.tls {
        match tls.material.fingerprint() {
            Some(print) => println!("# msrp.tls.certificate has the fingerprint {print}"),
            None => println!(
                "# msrp.tls.certificate is made at each start: good for fingerprints, and for nobody who goes by names"
            ),
        }
    }
    if arguments.probe {
        return super::client(async {
            let all = probe(&settings).await;
            if all { Ok(()) } else { Err("a neighbour did not answer".to_owned()) }
        });
    }
    ExitCode::SUCCESS
}
