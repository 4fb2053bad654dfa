//! `page`: one page from one phone.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;

use super::phone::Line;
use crate::lab::phone::{GiveUp, PageOutcome, PageRequest, Phone, Recipients};

/// Options of `page`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pagecast page --core sip:127.0.0.1:5060 --from sip:alice@ims.test \\\n      --list sip:bob@ims.test,sip:carol@ims.test --text \"Lunch at 12?\""
)]
pub struct Arguments {
    #[command(flatten)]
    pub line: Line,
    /// Who sends
    #[arg(long, value_name = "URI")]
    pub from: String,
    #[command(flatten)]
    pub to: To,
    #[command(flatten)]
    pub content: Content,
    /// Media type of the file [default: application/octet-stream]
    #[arg(long = "type", value_name = "MIME", requires = "file")]
    pub content_type: Option<String>,
    /// The service that expands lists
    #[arg(long, value_name = "URI", default_value = "sip:pages@ims.test")]
    pub factory: String,
    /// Ask to stay unknown to the recipients
    #[arg(long)]
    pub anonymous: bool,
    /// Give up when nobody has answered after so long
    #[arg(long, value_name = "SECONDS")]
    pub cancel_after: Option<u64>,
}

/// Who gets it.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct To {
    /// Recipients, separated by commas
    #[arg(long, value_name = "URI,…", value_delimiter = ',')]
    pub list: Vec<String>,
    /// A group the server hosts
    #[arg(long, value_name = "URI")]
    pub group: Option<String>,
}

/// What is sent.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Content {
    #[arg(long, value_name = "T")]
    pub text: Option<String>,
    #[arg(long, value_name = "F")]
    pub file: Option<PathBuf>,
}

/// Sends the page and prints what came of it.
pub fn run(arguments: &Arguments) -> ExitCode {
    super::client(async {
        let (content_type, body, file_name) = content(arguments)?;
        let to = match &arguments.to.group {
            Some(group) => Recipients::Group(group.clone()),
            None => Recipients::List {
                factory: arguments.factory.clone(),
                entries: arguments.to.list.clone(),
            },
        };
        let core = &arguments.line.core;
        let phone = Phone::start(arguments.line.settings(&arguments.from))
            .await
            .map_err(|error| format!("{core}: {error}"))?;
        let mut request = PageRequest::new(to, &content_type, body);
        request.file_name = file_name;
        request.privacy = arguments.anonymous.then(|| "id".to_owned());
        request.give_up = arguments
            .cancel_after
            .map(|seconds| GiveUp::Cancel { after: Duration::from_secs(seconds) });
        let outcome = phone.page(&request).await;
        print!("{}", told(&outcome));
        let complaints = phone.complaints();
        phone.stop().await.map_err(|error| format!("{core}: {error}"))?;
        super::complain(&complaints)?;
        match (outcome.succeeded(), outcome.report) {
            (true, Some(200)) => Ok(()),
            (true, _) => Err("nothing was reported about the page".to_owned()),
            (false, _) => Err("the page was not taken".to_owned()),
        }
    })
}

fn content(arguments: &Arguments) -> Result<(String, Bytes, Option<String>), String> {
    match (&arguments.content.text, &arguments.content.file) {
        (Some(text), _) => {
            Ok(("text/plain;charset=UTF-8".to_owned(), Bytes::from(text.clone()), None))
        }
        (None, Some(path)) => {
            let body =
                std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let content_type = arguments.content_type.as_deref();
            let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
            Ok((content_type, body.into(), name))
        }
        (None, None) => Err("nothing to send: --text or --file".to_owned()),
    }
}

/// One line for each thing the server said.
pub(super) fn told(outcome: &PageOutcome) -> String {
    let mut text = String::new();
    let mut line = |what: String| {
        text.push_str(&what);
        text.push('\n');
    };
    for (after, status) in &outcome.provisional {
        line(format!("{status} after {after:.1?}"));
    }
    match (outcome.status, outcome.answered) {
        (Some(status), Some(after)) => {
            let warning =
                outcome.warning.as_deref().map_or_else(String::new, |w| format!(" ({w})"));
            line(format!("{status} {} after {after:.1?}{warning}", outcome.reason));
        }
        _ => line("no final answer".to_owned()),
    }
    if let Some(code) = outcome.refused {
        line(format!("MSRP {code}"));
    }
    if outcome.sent > 0 {
        let (acknowledged, octets) = (outcome.acknowledged, outcome.octets);
        line(format!("{acknowledged} of {octets} octets acknowledged"));
    }
    if let Some(report) = outcome.report {
        let after = outcome.transferred.unwrap_or(outcome.took);
        line(format!("reported {report} after {after:.1?}"));
    }
    if let Some(reason) = &outcome.bye_reason {
        line(format!("BYE: {reason}"));
    }
    if let Some(problem) = &outcome.problem {
        line(format!("problem: {problem}"));
    }
    text
}
