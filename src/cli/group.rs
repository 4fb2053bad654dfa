//! `group`: group documents in the XDMS, over XCAP.

use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;

use crate::config::node::NodeSettings;
use crate::config::{Source, XdmsMode};
use crate::sip::uri::Uri;
use crate::xdms::client::{Client, Failure};
use crate::xdms::groups::new_document;
use crate::xdms::server::OPERATOR;

/// Options of `group`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pagecast group new --uri sip:team@groups.ims.test --members sip:a@ims.test,sip:b@ims.test > team.xml\n  pagecast group put team.xml --as sip:a@ims.test\n  pagecast group list"
)]
pub struct Arguments {
    #[command(subcommand)]
    pub action: Action,
    /// XCAP root, http://HOST:PORT/PATH [default: xdms.root of the configuration]
    #[arg(long, value_name = "URL", global = true)]
    pub root: Option<String>,
    /// Configuration file that names the root [default: as for `serve`]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Print a document whose members may page the group
    New {
        /// The group's identity
        #[arg(long, value_name = "URI")]
        uri: String,
        /// Its members, separated by commas
        #[arg(long, value_name = "URI,URI", value_delimiter = ',', required = true)]
        members: Vec<String>,
    },
    /// Store a document; warns when nobody may send to the group
    Put {
        /// The document
        file: PathBuf,
        /// Whose tree it goes into [default: the operator's, or where the group is already]
        #[arg(long = "as", value_name = "OWNER")]
        owner: Option<String>,
    },
    /// Print the document of a group
    Get {
        /// The group's identity
        uri: String,
    },
    /// Print the identities of all groups
    List,
    /// Remove the document of a group
    Rm {
        /// The group's identity
        uri: String,
    },
}

/// Does it and gives the exit status.
pub fn run(arguments: &Arguments) -> ExitCode {
    if let Action::New { uri, members } = &arguments.action {
        return match document(uri, members) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(wrong) => super::wrong(wrong),
        };
    }
    let (client, identity) = match client(arguments) {
        Ok(client) => client,
        Err(wrong) => return super::wrong(wrong),
    };
    let runtime = match super::client_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return super::failed(format_args!("cannot start: {error}")),
    };
    match runtime.block_on(perform(&client, &identity, &arguments.action)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(why),
    }
}

/// Who is written to, and as whom: at a root named by hand as the operator; at the one of the configuration as it says.
fn client(arguments: &Arguments) -> Result<(Client, String), String> {
    let operator = |client: Client| (client, OPERATOR.to_owned());
    let by_hand = |root: &str| Client::new(root).map_err(|wrong| wrong.to_string());
    if let (Some(root), None) = (&arguments.root, &arguments.config) {
        return by_hand(root).map(operator);
    }
    let loaded = Source::new(arguments.config.clone(), Vec::new()).load();
    let settings = NodeSettings::new(&loaded.map_err(|wrong| wrong.to_string())?, 1);
    let xdms = &settings.config.xdms;
    let root = arguments.root.as_ref().map(|root| root.trim_end_matches('/'));
    if xdms.mode == XdmsMode::Ut && root.is_none_or(|root| root == xdms.root) {
        let http = settings.xdms_remote.http;
        let identity = http.identity.clone();
        return Ok((Client::with(http, settings.xdms_network), identity));
    }
    by_hand(root.unwrap_or(&xdms.root)).map(operator)
}

/// A document for the members, each of which is a URI or `user@host`.
fn document(uri: &str, members: &[String]) -> Result<String, String> {
    let uri = address(uri)?;
    let members = members.iter().map(|m| address(m)).collect::<Result<Vec<_>, _>>()?;
    let mut distinct: Vec<&str> = Vec::new();
    for member in &members {
        if !distinct.contains(&member.as_str()) {
            distinct.push(member);
        }
    }
    Ok(new_document(&uri, &distinct))
}

fn address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let full = if text.contains(':') { text.to_owned() } else { format!("sip:{text}") };
    match Uri::parse(&full) {
        Ok(uri) if uri.user().is_some() => Ok(full),
        _ => Err(format!("{text} is no address; write it like sip:user@example.org or tel:+15551")),
    }
}

async fn perform(client: &Client, identity: &str, action: &Action) -> Result<(), String> {
    let told = |why: Failure| why.to_string();
    match action {
        Action::New { uri, members } => print!("{}", document(uri, members)?),
        Action::Put { file, owner } => {
            let text =
                std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let owner = owner.as_deref().map(address).transpose()?;
            let put = client.put(Bytes::from(text), owner.as_deref()).await.map_err(told)?;
            let done = if put.created { "stored" } else { "replaced" };
            println!("{done} {} {}", put.uri, put.path);
            if let Some(warning) = put.warning {
                eprintln!("pagecast: warning: {}: {warning}", put.uri);
            }
        }
        Action::Get { uri } => {
            let text = client.get(&address(uri)?, identity).await.map_err(told)?;
            print!("{}", String::from_utf8_lossy(&text));
        }
        Action::List => {
            for one in client.list(identity).await.map_err(told)? {
                println!("{}", one.uri);
            }
        }
        Action::Rm { uri } => {
            let uri = address(uri)?;
            client.rm(&uri, identity).await.map_err(told)?;
            println!("removed {uri}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_document_takes_addresses_in_any_form() {
        let members =
            ["bob@ims.test".to_owned(), " sip:bob@ims.test".to_owned(), "tel:+1555".to_owned()];
        let text = document("team@groups.ims.test", &members).expect("three good addresses");
        assert!(text.contains("uri=\"sip:team@groups.ims.test\""));
        assert_eq!(text.matches("uri=\"sip:bob@ims.test\"").count(), 1);
        assert!(text.contains("uri=\"tel:+1555\""));
        for bad in ["", "sip:ims.test", "bob", "sip:b ob@h"] {
            assert!(document("sip:team@g", &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
