//! `phone`: one receiving phone.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::lab::Auth;
use crate::lab::phone::{Answer, Behaviour, Phone, Provisional, Received, Settings, Standing};
use crate::lab::tls::Identity;

/// Options of `phone`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pagecast phone --core sip:127.0.0.1:5060 --as sip:bob@ims.test --out inbox/bob"
)]
pub struct Arguments {
    #[command(flatten)]
    pub line: Line,
    /// Who the phone is
    #[arg(long = "as", value_name = "URI")]
    pub aor: String,
    /// Where pages are written, one file each
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// End after so many pages
    #[arg(long, value_name = "N")]
    pub pages: Option<u64>,
    /// Refuse every call with this status
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(300..700))]
    pub refuse: Option<u16>,
    /// Ring, and never answer
    #[arg(long, conflicts_with = "refuse")]
    pub ring: bool,
}

impl Arguments {
    fn behaviour(&self) -> Behaviour {
        let (provisional, answer) = match self.refuse {
            Some(status) => (Provisional::None, Answer::Refuse { status }),
            None if self.ring => (Provisional::Ringing, Answer::Never),
            None => (Provisional::None, Answer::Accept),
        };
        // The page is on disk as soon as it is whole, not when the server is done with the call.
        Behaviour { provisional, answer, hangs_up_after_page: true, ..Behaviour::default() }
    }
}

/// How a phone is connected to its core.
#[derive(Debug, clap::Args)]
pub struct Line {
    /// The core: the P-CSCF, the I-CSCF with --visited, or the demo's core
    #[arg(long, value_name = "URI")]
    pub core: String,
    /// SIP Digest: private identity and password
    #[arg(long, value_name = "USER:PASS", value_parser = Auth::password)]
    pub auth: Option<Auth>,
    /// AKAv1-MD5: private identity, K and OPc in hexadecimal
    #[arg(long, value_name = "USER:K:OPC", value_parser = Auth::aka, conflicts_with = "auth")]
    pub aka: Option<Auth>,
    /// Be the P-CSCF too, in this network: Path, P-Asserted-Identity, P-Charging-Vector
    #[arg(long, value_name = "NETWORK")]
    pub visited: Option<String>,
    /// Send no REGISTER: --core is a server that keeps no registrations, like pagecast itself
    #[arg(long, conflicts_with = "visited")]
    pub unregistered: bool,
    /// Where to take SIP and MSRP [default: the address towards the core, a free port]
    #[arg(long, value_name = "IP[:PORT]", value_parser = address)]
    pub bind: Option<SocketAddr>,
    /// MSRP over TLS: offer it, and take it where it is offered
    #[arg(long)]
    pub tls: bool,
    /// Seconds the registration is asked for
    #[arg(long, value_name = "N", default_value_t = 3600)]
    pub expires: u32,
}

impl Line {
    /// A phone's settings for this identity.
    pub(super) fn settings(&self, aor: &str) -> Settings {
        Settings {
            auth: self.auth.clone().or_else(|| self.aka.clone()),
            visited: self.visited.clone(),
            bind: self.bind,
            unregistered: self.unregistered,
            identity: self.tls.then(Identity::new),
            expires: self.expires,
            ..Settings::new(&self.core, aor)
        }
    }
}

/// An address with or without a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let ip = |_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    text.parse().or_else(ip).map_err(|_| "an IP address, with or without a port".to_owned())
}

/// Takes pages until a signal ends it.
pub fn run(arguments: &Arguments) -> ExitCode {
    super::client(async {
        std::fs::create_dir_all(&arguments.out)
            .map_err(|error| format!("{}: {error}", arguments.out.display()))?;
        let behaviour = arguments.behaviour();
        let settings = Settings { behaviour, ..arguments.line.settings(&arguments.aor) };
        let (aor, core) = (&arguments.aor, &arguments.line.core);
        let phone = Phone::start(settings).await.map_err(|error| format!("{core}: {error}"))?;
        println!("phone {aor} registered from {}", phone.address());
        let mut standing = phone.standing();
        let mut pages = 0;
        loop {
            let page = tokio::select! {
                page = phone.received() => page,
                Ok(()) = standing.changed() => {
                    match &*standing.borrow_and_update() {
                        Standing::Registered => {
                            println!("phone {aor} registered from {}", phone.address());
                        }
                        Standing::Lost(why) => println!("phone {aor} lost its registration: {why}"),
                    }
                    continue;
                }
                () = super::interrupted() => None,
            };
            let Some(page) = page else { break };
            pages += u64::from(page.whole);
            println!("{}", keep(&page, &arguments.out, pages)?);
            if arguments.pages.is_some_and(|most| pages >= most) {
                break;
            }
        }
        let complaints = phone.complaints();
        phone.stop().await.map_err(|error| format!("{core}: {error}"))?;
        super::complain(&complaints)
    })
}

/// Writes a whole page and says what came.
fn keep(page: &Received, folder: &Path, number: u64) -> Result<String, String> {
    if !page.whole {
        return Ok(format!(
            "call from={} octets={} ended={:?}{}",
            page.from,
            page.octets,
            page.ended,
            page.bye_reason.as_deref().map_or_else(String::new, |why| format!(" reason={why}"))
        ));
    }
    let (content_type, content) =
        page.content().unwrap_or_else(|| (page.content_type.clone(), page.body.clone()));
    let path = folder.join(format!("{number:04}.{}", extension(&content_type)));
    std::fs::write(&path, &content).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(format!(
        "page from={} type={content_type} octets={} sha256={} file={}",
        page.from,
        content.len(),
        crate::lab::phone::sha256(&content),
        path.display()
    ))
}

/// How files of a type end.
fn extension(content_type: &str) -> &'static str {
    match content_type {
        "text/plain" => "txt",
        "text/html" => "html",
        "image/png" => "png",
        "image/jpeg" => "jpg",
        _ => "bin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_end_as_people_expect() {
        let cases =
            [("image/png", "png"), ("text/plain", "txt"), ("application/octet-stream", "bin")];
        for (content_type, ending) in cases {
            assert_eq!(extension(content_type), ending);
        }
    }
}
