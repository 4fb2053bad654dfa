//! `core`: the demo's small core alone.

use std::net::SocketAddr;
use std::process::ExitCode;

use std::path::PathBuf;

use crate::lab::core::{Core, Settings};
use crate::sip::transport::tls::{Files, Material, Tls};

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
    /// Where it listens for TLS; the server is then best named as sip:ADDR;transport=tls
    #[arg(long, value_name = "ADDR", requires_all = ["certificate", "key", "ca"])]
    pub tls: Option<SocketAddr>,
    /// Its certificate, which names that address, in PEM
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub certificate: Option<PathBuf>,
    /// The key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub key: Option<PathBuf>,
    /// Who signs the server's certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub ca: Option<PathBuf>,
    /// A user that exists without being registered; may be repeated
    #[arg(long, value_name = "URI")]
    pub offline: Vec<String>,
}

impl Arguments {
    /// Both sides show a certificate.
    fn security(&self) -> Result<Option<(SocketAddr, Tls)>, String> {
        let (Some(listen), Some(certificate), Some(key), Some(ca)) =
            (self.tls, &self.certificate, &self.key, &self.ca)
        else {
            return Ok(None);
        };
        let files = Files {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: Some(ca.clone()),
            ca: Some(ca.clone()),
            verify_client: true,
        };
        let material = Material::load(&files).map_err(|wrong| wrong.to_string())?;
        Ok(Some((listen, Tls::new(material, Vec::new()))))
    }
}

/// Serves until a signal ends it.
pub fn run(arguments: &Arguments) -> ExitCode {
    super::client(async {
        let settings = Settings {
            listen: arguments.listen,
            server: Some(arguments.server.clone()),
            tls: arguments.security()?,
            ..Settings::demo()
        };
        let core = Core::start(settings).await.map_err(|error| error.to_string())?;
        arguments.offline.iter().for_each(|user| core.provision(user));
        println!("core {} server {}", core.uri(), arguments.server);
        if let Some(uri) = core.secure_uri() {
            println!("tls {uri}");
        }
        super::interrupted().await;
        let complaints = core.complaints();
        super::complain(&complaints)
    })
}
