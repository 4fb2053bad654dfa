//! What operators choose about Sh's connections and routing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a peer is and who it must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// Its Origin-Host, in lower case. `None`: whoever answers there the first time.
    pub identity: Option<String>,
    /// A name or a literal address.
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(identity) = self.identity.as_ref().filter(|identity| **identity != self.host) {
            write!(f, "{identity}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Certificates, all PEM. TLS runs from the first octet (SH-003).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signs the peers' certificates.
    pub ca: PathBuf,
    /// Ours and its key, shown to peers that ask and on the listening side.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Timers and limits of the connections (`dia.*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// Tc: between attempts to connect, give or take a tenth.
    pub tc: Duration,
    /// Twinit of the watchdog, at least 6 s.
    pub twinit: Duration,
    /// How long a CEA, or the CER of a connection taken, is waited for.
    pub cea_timeout: Duration,
    /// How long an answer is waited for, per attempt.
    pub request_timeout: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            tc: Duration::from_secs(30),
            twinit: Duration::from_secs(30),
            cea_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(4),
        }
    }
}

/// Everything the connections to the HSS obey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// In order of preference.
    pub peers: Vec<PeerAddress>,
    /// Where peers may connect to us; usually nowhere.
    pub listen: Vec<SocketAddr>,
    /// Our identity, in lower case (SH-002).
    pub origin_host: String,
    pub origin_realm: String,
    /// The realm of a request that names none.
    pub destination_realm: String,
    /// The only HSS there is; `None` leaves the choice to the agents.
    pub destination_host: Option<String>,
    pub tls: Option<TlsFiles>,
    pub timers: Timers,
    /// Octets of the longest message taken.
    pub max_message: usize,
    /// Octets of the longest message sent.
    pub max_sent: usize,
    /// Also announce Sh outside of Vendor-Specific-Application-Id, for old agents.
    pub also_plain_auth_app: bool,
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// Open requests per peer; as many may wait for their turn.
    pub max_inflight: usize,
    /// Hosts outside of `peers` a redirect may lead to; they are connected to on demand.
    pub redirect_hosts: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            peers: Vec::new(),
            listen: Vec::new(),
            origin_host: String::new(),
            origin_realm: String::new(),
            destination_realm: String::new(),
            destination_host: None,
            tls: None,
            timers: Timers::default(),
            max_message: 256 * 1024,
            max_sent: 64 * 1024,
            also_plain_auth_app: false,
            nodelay: false,
            max_inflight: 200,
            redirect_hosts: Vec::new(),
        }
    }
}
