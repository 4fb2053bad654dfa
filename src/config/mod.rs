//! This process: addresses, peers, paths. What operators choose about the service itself stands in `profile`.
//!
//! [`Loaded::load`] finds the file, lays `--set` over it, reads the profile it names and checks both; a mistake is one
//! [`ConfigError`], one line. [`Loaded::settings`] tells every effective value and where it came from. Durations are
//! `"500ms"`, `"30s"`, `"5m"`, `"72h"`; sizes integers or `"10MiB"`; `${NAME}` is an environment variable; paths are
//! relative to the file that names them. A key that this version would not obey is refused, never ignored.

mod about;
mod charging;
pub mod layer;
mod msrp_tls;
pub mod node;
mod reload;
pub mod sh;
mod store;
mod users;
pub mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use layer::{ConfigError, Environment, Setting};
use layer::{Layer, Reader};
pub use msrp_tls::MsrpTls;
pub use store::Store;
use value::{Door, FilePath, HostPort, Listen, Peers, Size, TrustedPeer, Value, choice};

use crate::content::sdp::Family;
use crate::flow::keep::Choice;
use crate::isc::rules::boundary::{is_at, is_place};
use crate::isc::settings::{Account as Login, OfferTls};
use crate::ops::log::{self, Format, Level};
use crate::profile::Profile;
use crate::sip::Protocol;
use crate::sip::transport::tls::{Files, Material};
use crate::sip::uri::{Psi, Uri};
use crate::xdms::ut::http::Account;
use crate::xdms::ut::link;
use crate::xdms::ut::url::Url;

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unique in a cluster.
    pub name: String,
    /// Everything that must survive a restart, and the spool.
    pub data_dir: PathBuf,
    /// Longest wait for running pages after SIGTERM.
    pub drain_timeout: Duration,
    /// OS threads; 0 means one per core.
    pub threads: u8,
    /// Pages on their way at once; beyond it is overload (IM-036).
    pub max_pages: u32,
    /// Identities whose registration is remembered at once; newcomers beyond it are not.
    pub max_registrations: u32,
    /// How far a thread may be behind before it sends new requests away.
    pub max_lag: Duration,
}

/// `[sip]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sip {
    /// Never empty; TLS only with `tls`.
    pub listen: Vec<Listen>,
    /// Our own URI, as the filter criteria name it.
    pub uri: String,
    /// Other names for us in Route and Request-URI.
    pub aliases: Vec<String>,
    /// ISC-001: whose requests are served.
    pub trusted_peers: Vec<IpNet>,
    /// ISC-001: the same by names in the certificates peers show.
    pub trusted_names: Vec<String>,
    /// Written into Via and Contact. Port 0: the port that was taken when listening.
    pub advertise: HostPort,
    /// It was set, and does not just repeat the first address.
    pub advertise_set: bool,
    /// `[sip.tls]`, read and checked.
    pub tls: Option<Material>,
    /// `sip.advertise` for TLS.
    pub tls_advertise: Option<HostPort>,
    /// Largest message, in octets.
    pub max_message: usize,
    /// TCP connections held at once.
    pub max_connections: u32,
}

/// `[core]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    /// Used where neither a registration nor a Route names one.
    pub scscf: String,
    /// Equal to `scscf` where not set.
    pub icscf: String,
    /// Profile `sipip`: where requests go; empty: by the Request-URI.
    pub outbound_proxy: String,
    /// ISC-073, ISC-074: neighbours outside the trust domain.
    pub untrusted_hops: Vec<String>,
}

/// `[service]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// PSIs that expand URI lists.
    pub factories: Vec<String>,
    /// Our own domains; those of the factories where not set.
    pub home_domains: Vec<String>,
    /// Every user part at one of these hosts is an IM Group Identity.
    pub group_domains: Vec<String>,
    /// Single group identities elsewhere.
    pub groups: Vec<String>,
    /// Who may use the service; empty: every asserted identity.
    pub subscribers: Vec<String>,
    pub barred: Vec<String>,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Credentials for it are ours; empty: none are.
    pub realm: String,
    /// What the file `auth.users` holds; read again at each reload.
    pub users: Arc<BTreeMap<String, Login>>,
    pub nonce_life: Duration,
    /// Wrong credentials of one source in a minute.
    pub max_failures: u32,
}

/// `[msrp]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msrp {
    pub listen: Vec<SocketAddr>,
    /// Written into `a=path`. Port 0: the port that was taken when listening.
    pub advertise: HostPort,
    /// The same for peers whose addresses are of the other kind.
    pub advertise_also: Option<HostPort>,
    /// `[msrp.tls]`; `None`: MSRP never goes over TLS.
    pub tls: Option<MsrpTls>,
    /// Octets of all pages, in memory and on disk (MS-092).
    pub spool_total: u64,
    /// Octets of all pages kept in memory.
    pub spool_memory: u64,
}

/// Where group documents are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdmsMode {
    Embedded,
    /// In an XDMS elsewhere, asked as over Ut.
    Ut,
}

choice!(XdmsMode { Embedded = "embedded", Ut = "ut" });

/// `[xdms]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xdms {
    pub mode: XdmsMode,
    /// The XCAP root. Port 0: the port that was taken when listening.
    pub root: String,
    /// `None` in mode `ut`.
    pub listen: Option<SocketAddr>,
    /// A tree that mirrors the XCAP tree below the root.
    pub documents: Option<PathBuf>,
    /// Who may assert identities.
    pub trusted_proxies: Vec<IpNet>,
    /// The XDMS on SIP, for notices of changes; empty: none.
    pub sip: String,
    /// Most subscriptions to documents that are served.
    pub max_subscriptions: u32,
    /// Most documents of one subscription.
    pub max_entries: u32,
    /// `[xdms.server_tls]`, read and checked.
    pub server_tls: Option<Material>,
    /// Who we are to an XDMS elsewhere.
    pub asserted_identity: Option<String>,
    /// Where an XDMS elsewhere is told so without certificates (XD-013).
    pub trusted_peers: Vec<IpNet>,
    /// Addresses that are not public, where hosts of `xdm.allowed_hosts` may be all the same (XD-024).
    pub private_targets: Vec<IpNet>,
    pub account: Option<Account>,
    /// `[xdms.tls]`, read and checked.
    pub tls: Option<link::Material>,
    /// Most documents kept of an XDMS elsewhere.
    pub cache_documents: u32,
    /// Most octets of them.
    pub cache_size: usize,
}

/// `[ops]`
#[derive(Clone, PartialEq, Eq)]
pub struct Ops {
    /// `None`: no operators' door.
    pub listen: Option<SocketAddr>,
    /// Asked for on `/api` and `/admin`.
    pub token: Option<String>,
    /// Most octets of call flows in memory.
    pub flow_memory: usize,
    pub flow_keep: Choice,
    /// Most octets of call flows on disk.
    pub flow_disk: u64,
    /// Most pages that are shown; the oldest that ended leave first.
    pub pages: u32,
    /// Most HTTP connections at once.
    pub max_connections: u32,
}

impl std::fmt::Debug for Ops {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ops")
            .field("listen", &self.listen)
            .field("token", &self.token.as_ref().map(|_| "(secret)"))
            .field("flow_memory", &self.flow_memory)
            .field("flow_keep", &self.flow_keep)
            .field("flow_disk", &self.flow_disk)
            .field("pages", &self.pages)
            .field("max_connections", &self.max_connections)
            .finish()
    }
}

choice!(Level { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" });
choice!(Format { Text = "text", Json = "json" });

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `None`: the built-in values, which are those of the profile `3gpp`.
    pub profile: Option<PathBuf>,
    pub node: Node,
    pub sip: Sip,
    pub core: Core,
    pub service: Service,
    pub auth: Auth,
    pub msrp: Msrp,
    pub xdms: Xdms,
    /// `None`: Sh is off.
    pub sh: Option<sh::Sh>,
    pub store: Store,
    pub store_bounds: crate::store::Bounds,
    pub ops: Ops,
    /// `[charging]`, where it is on.
    pub charging: Option<crate::charging::Settings>,
    pub log: log::Settings,
}

/// Configuration and profile as they are in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The file that was read; `None` for built-in defaults.
    pub file: Option<PathBuf>,
    pub config: Config,
    pub profile: Profile,
    /// Every effective setting; those of the profile begin with `profile.`.
    pub settings: Vec<Setting>,
}

/// Keys of the interface that belong to later versions.
const LATER: &[(&str, &str)] = &[];

/// Where configuration is read from, now and at each reload: the arguments `--config` and `--set`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    pub file: Option<PathBuf>,
    pub set: Vec<String>,
}

impl Source {
    /// The arguments as they were given.
    pub fn new(file: Option<PathBuf>, set: Vec<String>) -> Self {
        Self { file, set }
    }

    /// Reads everything again.
    ///
    /// # Errors
    /// As [`Loaded::load`].
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        Loaded::load(self.file.as_deref(), &self.set)
    }
}

impl Loaded {
    /// Loads what `--config` and `--set` ask for.
    ///
    /// # Errors
    /// The first mistake that was found, as one line.
    pub fn load(file: Option<&Path>, set: &[String]) -> Result<Self, ConfigError> {
        Self::load_with(file, set, &|name| std::env::var(name).ok())
    }

    /// [`Loaded::load`] with another environment.
    ///
    /// # Errors
    /// As [`Loaded::load`].
    pub fn load_with(
        file: Option<&Path>,
        set: &[String],
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        let file = file
            .map(Path::to_owned)
            .or_else(|| environment("PAGECAST_CONFIG").filter(|f| !f.is_empty()).map(PathBuf::from))
            .or_else(|| {
                ["./config/pagecast.toml", "/etc/pagecast/pagecast.toml"]
                    .into_iter()
                    .map(PathBuf::from)
                    .find(|path| path.exists())
            });
        let below = match &file {
            Some(path) => Layer::from_file(path, environment)?,
            None => Layer::default(),
        };
        let mut set = Layer::from_arguments(set, environment)?;
        let profile_set = set.split_off_section("profile");
        if let Some(stray) = below.items.keys().find(|key| key.starts_with("profile.")) {
            return Err(ConfigError::new(
                &below.items[stray].origin,
                stray.clone(),
                "profile keys do not stand in this file",
                "write them into the file that `profile` names, or use --set profile.KEY=VALUE",
            ));
        }
        let mut reader = Reader::new(below.under(set));
        let config = Config::read(&mut reader)?;
        if let Some(path) = config.profile.as_ref().filter(|path| !path.is_file()) {
            return Err(reader.wrong(
                "profile",
                format!("{} cannot be read", path.display()),
                "name a profile, like \"../ims-profiles/3gpp.toml\"",
            ));
        }
        let tls = config.msrp.tls.is_some();
        let mut settings = reader.finish(LATER)?;
        let local = config.msrp.listen.iter().all(|address| address.ip().is_loopback());
        let (profile, profile_settings) =
            Profile::load(config.profile.as_deref(), profile_set, local, environment)?;
        check_offered_tls(&profile, &profile_settings, tls)?;
        settings.extend(profile_settings.into_iter().map(|mut setting| {
            setting.key.insert_str(0, "profile.");
            setting
        }));
        Ok(Self { file, config, profile, settings })
    }

    /// What `check` prints: a line per setting with key, value and the file it came from; `in_words` says in one more
    /// clause what the key does.
    pub fn explain(&self, in_words: bool) -> String {
        let mut text = String::new();
        for setting in &self.settings {
            text.push_str(&setting.to_string());
            if let Some(about) = about::about(&setting.key).filter(|_| in_words) {
                text.push_str(&format!("  # {about}"));
            }
            text.push('\n');
        }
        text
    }
}

impl Config {
    fn read(r: &mut Reader) -> Result<Self, ConfigError> {
        let profile = r.take_if_set::<FilePath>("profile")?.map(|path| path.0);
        let node = read_node(r)?;
        let sip = read_sip(r)?;
        let core = read_core(r)?;
        check_secure_hops(r, &sip, &core)?;
        check_trusted_names(r, &sip, &core)?;
        let mut service = Service {
            home_domains: r.take("service.home_domains", Vec::new())?,
            factories: psis(r, "service.factories", &["sip:pages@ims.test"])?,
            group_domains: r.take("service.group_domains", vec!["groups.ims.test".to_owned()])?,
            groups: psis(r, "service.groups", &[])?,
            subscribers: uris(r, "service.subscribers", &[])?,
            barred: uris(r, "service.barred", &[])?,
        };
        for (key, domains) in [
            ("service.group_domains", &service.group_domains),
            ("service.home_domains", &service.home_domains),
        ] {
            if let Some(domain) = domains.iter().find(|domain| !is_host(domain)) {
                return Err(r.wrong(
                    key,
                    format!("{domain:?} is no host name"),
                    "write host names like \"groups.example.net\"",
                ));
            }
        }
        if service.home_domains.is_empty() {
            let hosts = service.factories.iter().filter_map(|uri| Uri::parse(uri).ok());
            for host in hosts.map(|uri| uri.host().to_ascii_lowercase()) {
                if !host.is_empty() && !service.home_domains.contains(&host) {
                    service.home_domains.push(host);
                }
            }
            r.amounts_to("service.home_domains", service.home_domains.show());
        }
        let auth = read_auth(r)?;
        let msrp = read_msrp(r)?;
        let xdms = read_xdms(r)?;
        let sh = sh::read(r)?;
        let charging = charging::read(r, &node.data_dir)?;
        let (store, store_bounds) = store::read(r)?;
        let ops = read_ops(r)?;
        let log = log::Settings {
            level: r.take("log.level", Level::Info)?,
            format: r.take("log.format", Format::Text)?,
        };
        Ok(Self {
            profile,
            node,
            sip,
            core,
            service,
            auth,
            msrp,
            xdms,
            sh,
            store,
            store_bounds,
            charging,
            ops,
            log,
        })
    }
}

fn read_node(r: &mut Reader) -> Result<Node, ConfigError> {
    let name = r.take("node.name", "as1".to_owned())?;
    if !is_host(&name) || name.len() > 63 {
        return Err(r.wrong(
            "node.name",
            format!("{name:?} is no name"),
            "write up to 63 letters, digits, '-', '_' and '.'",
        ));
    }
    Ok(Node {
        name,
        data_dir: r.take("node.data_dir", FilePath("var".into()))?.0,
        drain_timeout: r.take_within(
            "node.drain_timeout",
            Duration::from_secs(30),
            Duration::ZERO,
            Duration::from_secs(86_400),
        )?,
        threads: r.take_within("node.threads", 0u8, 0, 64)?,
        max_pages: r.take_within("node.max_pages", 10_000u32, 1, 10_000_000)?,
        max_registrations: r.take_within("node.max_registrations", 200_000u32, 1, 100_000_000)?,
        max_lag: r.take_within(
            "node.max_lag",
            Duration::from_millis(200),
            Duration::from_millis(1),
            Duration::from_secs(60),
        )?,
    })
}

fn read_sip(r: &mut Reader) -> Result<Sip, ConfigError> {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let listen: Vec<Listen> = r.take(
        "sip.listen",
        vec![
            Listen { protocol: Protocol::Udp, address: at(5090) },
            Listen { protocol: Protocol::Tcp, address: at(5090) },
        ],
    )?;
    let Some(first) = listen.first().map(|listen| listen.address) else {
        return Err(r.wrong("sip.listen", "is empty", "name at least one address"));
    };
    let uri = uri(r, "sip.uri", "sip:127.0.0.1:5090")?;
    let aliases: Vec<String> = r.take("sip.aliases", Vec::new())?;
    if let Some(alias) =
        aliases.iter().find(|alias| !is_sip_uri(alias) && !is_sip_uri(&format!("sip:{alias}")))
    {
        return Err(r.wrong(
            "sip.aliases",
            format!("{alias:?} names no host"),
            "write \"as.example.net\", \"host:port\" or a SIP URI",
        ));
    }
    let trusted: Vec<TrustedPeer> = r.take(
        "sip.trusted_peers",
        vec![TrustedPeer::Net(IpNet::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0).into(), 8))],
    )?;
    let (mut trusted_peers, mut trusted_names) = (Vec::new(), Vec::new());
    for peer in trusted {
        match peer {
            TrustedPeer::Net(net) => trusted_peers.push(net),
            TrustedPeer::Name(name) => trusted_names.push(name),
        }
    }
    let tls = read_sip_tls(r)?;
    let secure = listen.iter().find(|listen| listen.protocol == Protocol::Tls);
    if let (Some(secure), None) = (secure, &tls) {
        return Err(r.wrong(
            "sip.listen",
            format!("{} needs a certificate", secure.show()),
            "set sip.tls.certificate and sip.tls.key, or remove it",
        ));
    }
    let asked = tls.as_ref().is_some_and(|tls| tls.files().client_ca.is_some());
    if let (Some(name), false) = (trusted_names.first(), asked) {
        return Err(r.wrong(
            "sip.trusted_peers",
            format!("{name:?} is a name, and certificates of peers are not verified"),
            "set sip.tls.client_ca too, or write addresses like \"10.0.0.0/8\"",
        ));
    }
    let advertise_set = r.is_set("sip.advertise");
    let addresses: Vec<SocketAddr> = listen.iter().map(|listen| listen.address).collect();
    let advertise = advertise(r, "sip", &addresses, first)?;
    Ok(Sip {
        listen,
        uri,
        aliases,
        trusted_peers,
        trusted_names,
        advertise,
        advertise_set,
        tls,
        tls_advertise: r.take_if_set("sip.tls.advertise")?,
        max_message: r
            .take_within("sip.max_message", Size::kib(256), Size::kib(8), Size::mib(16))?
            .as_usize(),
        max_connections: r.take_within("sip.max_connections", 4096u32, 1, 1_000_000)?,
    })
}

/// Certificates are read here, so that a mistake in them is found where their names stand.
fn read_sip_tls(r: &mut Reader) -> Result<Option<Material>, ConfigError> {
    let mut path = |key: &str| Ok(r.take_if_set::<FilePath>(key)?.map(|path| path.0));
    let certificate = path("sip.tls.certificate")?;
    let key = path("sip.tls.key")?;
    let client_ca = path("sip.tls.client_ca")?;
    let ca = path("sip.tls.ca")?;
    let verify: Option<bool> = r.take_if_set("sip.tls.verify_client")?;
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => {
            return Err(r.wrong("sip.tls.certificate", "has no key", "set sip.tls.key too"));
        }
        (None, Some(_)) => {
            return Err(r.wrong(
                "sip.tls.key",
                "has no certificate",
                "set sip.tls.certificate too",
            ));
        }
        (None, None) => {
            let others = ["sip.tls.client_ca", "sip.tls.ca", "sip.tls.verify_client"];
            let set = [client_ca.is_some(), ca.is_some(), verify.is_some()];
            return match others.into_iter().zip(set).find(|(_, set)| *set) {
                None => Ok(None),
                Some((key, _)) => Err(r.wrong(
                    key,
                    "means nothing without a certificate of our own",
                    "set sip.tls.certificate and sip.tls.key too",
                )),
            };
        }
    };
    let verify_client = verify.unwrap_or(client_ca.is_some());
    if verify_client && client_ca.is_none() {
        return Err(r.wrong(
            "sip.tls.verify_client",
            "nobody is named who signs certificates of clients",
            "set sip.tls.client_ca too, or write false",
        ));
    }
    if verify.is_none() {
        r.amounts_to("sip.tls.verify_client", verify_client.show());
    }
    let ca = match ca {
        None => {
            if let Some(path) = &client_ca {
                r.amounts_to("sip.tls.ca", FilePath(path.clone()).show());
            }
            client_ca.clone()
        }
        set => set,
    };
    let inherited = !r.is_known("sip.tls.ca");
    let files = Files { certificate, key, client_ca, ca, verify_client };
    let material = Material::load(&files).map_err(|wrong| {
        let key = if wrong.key == "ca" && inherited { "client_ca" } else { wrong.key };
        r.wrong(&format!("sip.tls.{key}"), wrong.what, "name a file in PEM")
    })?;
    Ok(Some(material))
}

/// Recipients are offered TLS only where there is TLS (IM-078).
fn check_offered_tls(
    profile: &Profile,
    settings: &[Setting],
    tls: bool,
) -> Result<(), ConfigError> {
    match settings.iter().find(|setting| setting.key == "im.tls") {
        Some(setting) if !tls && profile.im.tls == OfferTls::Always => Err(ConfigError::new(
            &setting.origin,
            "profile.im.tls",
            "offers TLS to everybody, and MSRP is not taken over TLS",
            "set msrp.tls.listen too, or write \"as_originator\"",
        )),
        _ => Ok(()),
    }
}

/// A next hop that wants TLS wants us able to verify it.
fn check_secure_hops(r: &Reader, sip: &Sip, core: &Core) -> Result<(), ConfigError> {
    if sip.tls.as_ref().is_some_and(Material::can_connect) {
        return Ok(());
    }
    for (key, uri) in [
        ("core.scscf", &core.scscf),
        ("core.icscf", &core.icscf),
        ("core.outbound_proxy", &core.outbound_proxy),
    ] {
        let wants = Uri::parse(uri).is_ok_and(|uri| {
            let named = uri.param("transport");
            uri.scheme_str().eq_ignore_ascii_case("sips")
                || named.is_some_and(|named| named.eq_ignore_ascii_case("tls"))
        });
        if wants {
            return Err(r.wrong(
                key,
                format!("{uri:?} wants TLS, and nobody's certificate can be verified"),
                "set sip.tls.certificate, sip.tls.key and sip.tls.ca too",
            ));
        }
    }
    Ok(())
}

/// Who has shown a trusted name is believed, so that name cannot stand outside at the same time.
///
/// ISC-017, ISC-074.
fn check_trusted_names(r: &Reader, sip: &Sip, core: &Core) -> Result<(), ConfigError> {
    let host =
        |name: &str| Uri::parse(name).map_or_else(|_| name.to_owned(), |uri| uri.host().to_owned());
    match sip.trusted_names.iter().find(|name| is_at(&host(name), &core.untrusted_hops)) {
        None => Ok(()),
        Some(name) => Err(r.wrong(
            "core.untrusted_hops",
            format!("{name:?} of sip.trusted_peers is in it"),
            "name such a neighbour by its address in both",
        )),
    }
}

fn read_core(r: &mut Reader) -> Result<Core, ConfigError> {
    let scscf = uri(r, "core.scscf", "sip:127.0.0.1:5060")?;
    let icscf = match uri_or_none(r, "core.icscf")? {
        empty if empty.is_empty() => scscf.clone(),
        icscf => icscf,
    };
    let outbound_proxy = uri_or_none(r, "core.outbound_proxy")?;
    let untrusted_hops: Vec<String> = r.take("core.untrusted_hops", Vec::new())?;
    if let Some(hop) = untrusted_hops.iter().find(|hop| !is_place(hop)) {
        return Err(r.wrong(
            "core.untrusted_hops",
            format!("{hop:?} is neither address nor name"),
            "write \"192.0.2.0/24\", \"2001:db8::1\" or \"other.example\"",
        ));
    }
    Ok(Core { scscf, icscf, outbound_proxy, untrusted_hops })
}

fn read_auth(r: &mut Reader) -> Result<Auth, ConfigError> {
    let realm: String = r.take("auth.realm", String::new())?;
    if !realm.bytes().all(|byte| (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\\')) {
        return Err(r.wrong(
            "auth.realm",
            format!("{realm:?} is no realm"),
            "write visible ASCII characters without quotes, like \"ims.example.net\"",
        ));
    }
    let users = match r.take_if_set::<FilePath>("auth.users")? {
        Some(FilePath(path)) => users::read(&path).map_err(|wrong| {
            let right =
                "write [users.NAME] with sha256, md5 and identities, as in users.example.toml";
            r.wrong("auth.users", wrong, right)
        })?,
        None => BTreeMap::new(),
    };
    if !users.is_empty() && realm.is_empty() {
        return Err(r.wrong(
            "auth.users",
            "holds values made for a realm, and there is none",
            "set auth.realm to the realm they were made for",
        ));
    }
    let (least, most) = (Duration::from_secs(10), Duration::from_secs(86_400));
    Ok(Auth {
        realm,
        users: Arc::new(users),
        nonce_life: r.take_within("auth.nonce_life", Duration::from_secs(300), least, most)?,
        max_failures: r.take_within("auth.max_failures", 20u32, 1, 1_000_000)?,
    })
}

fn read_msrp(r: &mut Reader) -> Result<Msrp, ConfigError> {
    let listen: Vec<SocketAddr> =
        r.take("msrp.listen", vec![SocketAddr::from(([127, 0, 0, 1], 2855))])?;
    let Some(first) = listen.first().copied() else {
        return Err(r.wrong("msrp.listen", "is empty", "name at least one address"));
    };
    let advertise = advertise(r, "msrp", &listen, first)?;
    let advertise_also = advertise_also(r, "msrp", &listen, &advertise)?;
    Ok(Msrp {
        listen,
        advertise,
        advertise_also,
        tls: msrp_tls::read(r)?,
        spool_total: r
            .take_within("msrp.spool_total", Size::mib(4096), Size::mib(1), Size(1 << 50))?
            .0,
        spool_memory: r
            .take_within("msrp.spool_memory", Size::mib(256), Size::kib(64), Size(1 << 50))?
            .0,
    })
}

/// What peers with the other kind of address are told.
fn advertise_also(
    r: &mut Reader,
    section: &str,
    listen: &[SocketAddr],
    advertise: &HostPort,
) -> Result<Option<HostPort>, ConfigError> {
    let key = format!("{section}.advertise_also");
    let kind = |host: &str| Family::of(host.trim_start_matches('[').trim_end_matches(']'));
    let own = kind(&advertise.host);
    let set: Option<HostPort> = r.take_if_set(&key)?;
    if let Some(also) = &set
        && own.is_some()
        && kind(&also.host) == own
    {
        return Err(r.wrong(
            &key,
            format!("{also} is an address of the same kind as {section}.advertise"),
            "write an IPv6 address beside an IPv4 one, or the other way round",
        ));
    }
    // Where we listen at both kinds of addresses and tell one, the other is told, too.
    let other = listen.iter().find(|at| {
        !at.ip().is_unspecified()
            && own.is_some_and(|own| own != if at.is_ipv6() { Family::V6 } else { Family::V4 })
    });
    if let (None, Some(other)) = (&set, other) {
        r.amounts_to(&key, HostPort::of(*other).show());
    }
    Ok(set.or_else(|| other.copied().map(HostPort::of)))
}

/// What others are told for `listen`: as set, else the first address. Where that one takes a free port, the port told
/// is the one taken.
fn advertise(
    r: &mut Reader,
    section: &str,
    listen: &[SocketAddr],
    first: SocketAddr,
) -> Result<HostPort, ConfigError> {
    let key = format!("{section}.advertise");
    let set: Option<HostPort> = r.take_if_set(&key)?;
    let wildcard = listen.iter().find(|address| address.ip().is_unspecified());
    match (set, wildcard) {
        (None, Some(address)) => Err(r.wrong(
            &format!("{section}.listen"),
            format!("{address} is every address of this machine and tells nobody where we are"),
            format!("set {key} = \"host:port\" too"),
        )),
        (None, None) => {
            let told = HostPort::of(first);
            r.amounts_to(&key, told.show());
            Ok(told)
        }
        (Some(mut told), _) => {
            if first.port() == 0 {
                told.port = 0;
            }
            Ok(told)
        }
    }
}

fn read_xdms(r: &mut Reader) -> Result<Xdms, ConfigError> {
    let mode = r.take("xdms.mode", XdmsMode::Embedded)?;
    let elsewhere = mode == XdmsMode::Ut;
    let server_tls = read_server_tls(r, elsewhere)?;
    let scheme = if server_tls.is_some() { "https" } else { "http" };
    let root: String = r.take("xdms.root", format!("{scheme}://127.0.0.1:8080/xcap-root"))?;
    // Port 0 is one that is taken when listening.
    let at = if elsewhere { Url::parse(&root) } else { Url::parse(&root.replace(":0/", ":1/")) };
    let fits = |url: &Url| elsewhere || url.is_secure() == server_tls.is_some();
    let Some(at) = at.filter(|url| fits(url) && !root.contains(['?', '#'])) else {
        return Err(r.wrong(
            "xdms.root",
            format!("{root:?} is no XCAP root"),
            match elsewhere {
                true => "write \"https://host/path\" or \"http://host:port/path\"".to_owned(),
                false => format!("write \"{scheme}://host:port/path\""),
            },
        ));
    };
    let listen = r.take("xdms.listen", Door(Some(SocketAddr::from(([127, 0, 0, 1], 8080)))))?.0;
    let documents = r.take_if_set::<FilePath>("xdms.documents")?.map(|path| path.0);
    if elsewhere && documents.is_some() {
        return Err(r.wrong(
            "xdms.documents",
            "means nothing with an XDMS elsewhere",
            "remove it, or set xdms.mode = \"embedded\"",
        ));
    }
    if elsewhere {
        r.amounts_to("xdms.listen", Door(None).show());
    }
    let loopback = || Peers(IpNet::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0).into(), 8));
    let mut networks = |key: &str, default: Vec<Peers>| -> Result<Vec<IpNet>, ConfigError> {
        Ok(r.take(key, default)?.into_iter().map(|peers| peers.0).collect())
    };
    let trusted_proxies = networks("xdms.trusted_proxies", vec![loopback()])?;
    let trusted_peers = networks("xdms.trusted_peers", vec![loopback()])?;
    let private_targets = networks("xdms.private_targets", Vec::new())?;
    let asserted_identity: Option<String> = r.take_if_set("xdms.asserted_identity")?;
    if let Some(wrong) = asserted_identity.as_ref().filter(|uri| Uri::parse(uri).is_err()) {
        let wrong = format!("{wrong:?} is no SIP URI");
        return Err(r.wrong("xdms.asserted_identity", wrong, RIGHT_SIP_URI));
    }
    let tls = read_xdms_tls(r)?;
    if elsewhere && at.is_secure() && tls.is_none() {
        return Err(r.wrong(
            "xdms.root",
            format!("{root:?} wants TLS, and nobody's certificate can be verified"),
            "set xdms.tls.ca too",
        ));
    }
    Ok(Xdms {
        mode,
        root: root.trim_end_matches('/').to_owned(),
        listen: listen.filter(|_| !elsewhere),
        documents,
        trusted_proxies,
        asserted_identity,
        trusted_peers,
        private_targets,
        account: read_xdms_account(r)?,
        tls,
        server_tls,
        cache_documents: r.take_within("xdms.cache_documents", 10_000u32, 1, 10_000_000)?,
        sip: uri_or_none(r, "xdms.sip")?,
        max_subscriptions: r.take_within("xdms.max_subscriptions", 1000u32, 0, 100_000)?,
        max_entries: r.take_within("xdms.max_entries", 1000u32, 1, 10_000)?,
        cache_size: r
            .take_within("xdms.cache_size", Size::mib(64), Size::kib(64), Size::mib(65_536))?
            .as_usize(),
    })
}

/// As for [`read_sip_tls`]; clients of the XDMS show no certificate.
fn read_server_tls(r: &mut Reader, elsewhere: bool) -> Result<Option<Material>, ConfigError> {
    let mut path = |key: &str| Ok(r.take_if_set::<FilePath>(key)?.map(|path| path.0));
    let certificate = path("xdms.server_tls.certificate")?;
    let key = path("xdms.server_tls.key")?;
    let (certificate, key) = match (certificate, key) {
        (Some(_), _) if elsewhere => {
            return Err(r.wrong(
                "xdms.server_tls.certificate",
                "means nothing with an XDMS elsewhere",
                "remove it, or set xdms.mode = \"embedded\"",
            ));
        }
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Ok(None),
        (set, _) => {
            let (set, other) = match set {
                Some(_) => ("certificate", "key"),
                None => ("key", "certificate"),
            };
            let right = format!("set xdms.server_tls.{other} too");
            return Err(r.wrong(
                &format!("xdms.server_tls.{set}"),
                format!("has no {other}"),
                right,
            ));
        }
    };
    let files = Files { certificate, key, client_ca: None, ca: None, verify_client: false };
    let material = Material::load(&files).map_err(|wrong| {
        r.wrong(&format!("xdms.server_tls.{}", wrong.key), wrong.what, "name a file in PEM")
    })?;
    Ok(Some(material))
}

/// XD-015: what an XDMS elsewhere is answered when it asks for proof.
fn read_xdms_account(r: &mut Reader) -> Result<Option<Account>, ConfigError> {
    let user: Option<String> = r.take_if_set("xdms.user")?;
    let password = r.take_secret("xdms.password")?;
    let basic = r.take("xdms.allow_basic", false)?;
    let plain = |text: &str| !text.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'));
    match (user, password) {
        (None, None) => Ok(None),
        (Some(user), Some(password)) if !user.is_empty() && plain(&user) => {
            Ok(Some(Account { user, password, basic }))
        }
        (Some(_), Some(_)) => Err(r.wrong(
            "xdms.user",
            "is empty or holds quotes",
            "write the name the XDMS knows us by",
        )),
        (Some(_), None) => Err(r.wrong("xdms.user", "has no password", "set xdms.password too")),
        (None, Some(_)) => Err(r.wrong("xdms.password", "is nobody's", "set xdms.user too")),
    }
}

/// Certificates are read here, so that a mistake in them is found where their names stand.
fn read_xdms_tls(r: &mut Reader) -> Result<Option<link::Material>, ConfigError> {
    let mut path = |key: &str| Ok(r.take_if_set::<FilePath>(key)?.map(|path| path.0));
    let ca = path("xdms.tls.ca")?;
    let certificate = path("xdms.tls.certificate")?;
    let key = path("xdms.tls.key")?;
    let own = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(r.wrong("xdms.tls.certificate", "has no key", "set xdms.tls.key too"));
        }
        (None, Some(_)) => {
            let right = "set xdms.tls.certificate too";
            return Err(r.wrong("xdms.tls.key", "has no certificate", right));
        }
    };
    let Some(ca) = ca else {
        return match own {
            None => Ok(None),
            Some(_) => Err(r.wrong(
                "xdms.tls.certificate",
                "means nothing where no server's certificate can be verified",
                "set xdms.tls.ca too",
            )),
        };
    };
    let material = link::Material::load(&link::Files { ca, own }).map_err(|wrong| {
        r.wrong(&format!("xdms.tls.{}", wrong.key), wrong.what, "name a file in PEM")
    })?;
    Ok(Some(material))
}

fn read_ops(r: &mut Reader) -> Result<Ops, ConfigError> {
    let listen = r.take("ops.listen", Door(Some(SocketAddr::from(([127, 0, 0, 1], 9464)))))?.0;
    let token = r.take_secret("ops.token")?;
    if token
        .as_ref()
        .is_some_and(|token| token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err(r.wrong(
            "ops.token",
            "is empty or holds characters no HTTP header can carry",
            "write visible ASCII characters without spaces",
        ));
    }
    if token.is_none() && listen.is_some_and(|address| !address.ip().is_loopback()) {
        return Err(r.wrong(
            "ops.listen",
            "is reachable from other machines and nothing guards it",
            "set ops.token, or listen on 127.0.0.1",
        ));
    }
    let keep: String = r.take("ops.flow_keep", "failed".to_owned())?;
    let flow_keep = match keep.as_str() {
        "failed" => Choice::Failed,
        "all" => Choice::All,
        "none" => Choice::None,
        other => other
            .strip_prefix("1/")
            .and_then(|n| n.parse().ok())
            .filter(|n| *n > 0)
            .map(Choice::OneIn)
            .ok_or_else(|| {
                r.wrong(
                    "ops.flow_keep",
                    format!("{other:?} is none of the choices"),
                    "write \"failed\", \"all\", \"none\" or \"1/N\"",
                )
            })?,
    };
    Ok(Ops {
        listen,
        token,
        flow_memory: r
            .take_within("ops.flow_memory", Size::mib(64), Size(0), Size::mib(65_536))?
            .as_usize(),
        flow_keep,
        flow_disk: r.take("ops.flow_disk", Size::mib(256))?.0,
        pages: r.take_within("ops.pages", 10_000u32, 1, 1_000_000)?,
        max_connections: r.take_within("ops.max_connections", 256u32, 1, 65_536)?,
    })
}

const RIGHT_SIP_URI: &str = "write a URI like \"sip:name@host\" or \"sip:host:port\"";

fn uri(r: &mut Reader, key: &str, default: &str) -> Result<String, ConfigError> {
    let uri: String = r.take(key, default.to_owned())?;
    if is_sip_uri(&uri) {
        Ok(uri)
    } else {
        Err(r.wrong(key, format!("{uri:?} is no SIP URI"), RIGHT_SIP_URI))
    }
}

fn uri_or_none(r: &mut Reader, key: &str) -> Result<String, ConfigError> {
    let uri: String = r.take(key, String::new())?;
    if uri.is_empty() || is_sip_uri(&uri) {
        Ok(uri)
    } else {
        Err(r.wrong(key, format!("{uri:?} is no SIP URI"), RIGHT_SIP_URI))
    }
}

fn uris(r: &mut Reader, key: &str, default: &[&str]) -> Result<Vec<String>, ConfigError> {
    let uris: Vec<String> = r.take(key, default.iter().map(|uri| (*uri).to_owned()).collect())?;
    match uris.iter().find(|uri| Uri::parse(uri).is_err()) {
        None => Ok(uris),
        Some(uri) => Err(r.wrong(key, format!("{uri:?} is no SIP or tel URI"), RIGHT_SIP_URI)),
    }
}

/// ISC-056: identities of services, distinct or with a pattern between exclamation marks.
fn psis(r: &mut Reader, key: &str, default: &[&str]) -> Result<Vec<String>, ConfigError> {
    let uris = uris(r, key, default)?;
    match uris.iter().find_map(|uri| Some((uri, Psi::parse(uri).err()?))) {
        None => Ok(uris),
        Some((uri, error)) => {
            let right = "write a SIP URI, or \"sip:pages-!.*!@im.example.net\" for many";
            Err(r.wrong(key, format!("{uri:?}: {error}"), right))
        }
    }
}

fn is_sip_uri(uri: &str) -> bool {
    Uri::parse(uri).is_ok_and(|uri| uri.is_sip())
}

fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests;
