//! `[sh]`: the HSSs and agents we ask, and who we are to them.

use std::net::{IpAddr, SocketAddr};

use super::layer::{ConfigError, Origin, Raw, Reader};
use super::value::{FilePath, Value};
use crate::profile::Profile;
use crate::sh::link::Tcp;
use crate::sh::settings::{PeerAddress, Settings, Timers, TlsFiles};

/// SH-003 (RFC 6733 §2.1).
const PORT: u16 = 3868;

/// The section as it is in force. Only where Sh is enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sh {
    /// In order of preference.
    pub peers: Vec<PeerAddress>,
    pub origin_host: String,
    pub origin_realm: String,
    pub destination_realm: String,
    pub destination_host: Option<String>,
    pub listen: Vec<SocketAddr>,
    pub redirect_hosts: Vec<String>,
    pub nodelay: bool,
    pub tls: Option<TlsFiles>,
    /// Asked about at start, to see what the HSS permits (SH-054).
    pub test_identity: Option<String>,
}

/// Host names in lower case, as they are compared (SH-002).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host(String);

impl Value for Host {
    fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if super::is_host(text) => Ok(Self(text.to_ascii_lowercase())),
            other => Err(format!("{} is no host name", other.describe())),
        }
    }

    fn right() -> String {
        "write a host name like \"as1.ims.example.net\"".into()
    }

    fn show(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// `[identity@]host[:port]`; a host name is the identity where none is written.
impl Value for PeerAddress {
    fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
        let wrong = || format!("{} is no peer", raw.describe());
        let Raw::Text(text) = raw else { return Err(wrong()) };
        let (identity, place) = match text.split_once('@') {
            Some((identity, place)) if super::is_host(identity) => (Some(identity), place),
            Some(_) => return Err(wrong()),
            None => (None, text.as_str()),
        };
        let bracketed = place.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (host, port) = match bracketed {
            Some((host, port)) if host.parse::<IpAddr>().is_ok() => (host, port.strip_prefix(':')),
            Some(_) => return Err(wrong()),
            None => match place.split_once(':') {
                Some((host, port)) if super::is_host(host) => (host, Some(port)),
                None if super::is_host(place) => (place, None),
                _ => return Err(wrong()),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
            None => PORT,
        };
        let named = Some(host).filter(|host| host.parse::<IpAddr>().is_err());
        let identity = identity.or(named).map(str::to_ascii_lowercase);
        Ok(Self { identity, host: host.to_ascii_lowercase(), port })
    }

    fn right() -> String {
        "write \"host:port\", or \"identity@address:port\" where the address does not tell who it is".into()
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

/// Reads the section. Sh that is off needs nothing; what is written is checked for its form all the same.
pub fn read(r: &mut Reader) -> Result<Option<Sh>, ConfigError> {
    let enabled = r.take("sh.enabled", false)?;
    if !enabled && !KEYS.iter().any(|key| r.is_set(key)) {
        return Ok(None);
    }
    let host = |r: &mut Reader, key: &str, default: &str| {
        Ok::<_, ConfigError>(r.take(key, Host(default.to_owned()))?.0)
    };
    let first = PeerAddress { identity: None, host: "127.0.0.20".into(), port: PORT };
    let peers: Vec<PeerAddress> = r.take("sh.peers", vec![first])?;
    let origin_host = host(r, "sh.origin_host", "as1.ims.test")?;
    let origin_realm = host(r, "sh.origin_realm", "ims.test")?;
    let destination_realm = host(r, "sh.destination_realm", &origin_realm)?;
    let destination_host = r.take_if_set::<Host>("sh.destination_host")?.map(|host| host.0);
    let listen: Vec<SocketAddr> = r.take("sh.listen", Vec::new())?;
    let redirect_hosts = r.take("sh.redirect_hosts", Vec::<Host>::new())?;
    let redirect_hosts = redirect_hosts.into_iter().map(|host| host.0).collect();
    let nodelay = r.take("sh.nodelay", false)?;
    let test_identity: Option<String> = r.take_if_set("sh.test_identity")?;
    let tls = read_tls(r)?;
    if peers.is_empty() && listen.is_empty() {
        return Err(r.wrong("sh.peers", "names nobody", "name a peer, or set sh.listen"));
    }
    if tls.as_ref().is_some_and(|tls| tls.own.is_none()) && !listen.is_empty() {
        return Err(r.wrong(
            "sh.listen",
            "needs a certificate",
            "set sh.tls.certificate and sh.tls.key, or remove it",
        ));
    }
    let sh = Sh {
        peers,
        origin_host,
        origin_realm,
        destination_realm,
        destination_host,
        listen,
        redirect_hosts,
        nodelay,
        tls,
        test_identity,
    };
    Ok(enabled.then_some(sh))
}

const KEYS: [&str; 13] = [
    "sh.peers",
    "sh.origin_host",
    "sh.origin_realm",
    "sh.destination_realm",
    "sh.destination_host",
    "sh.listen",
    "sh.redirect_hosts",
    "sh.nodelay",
    "sh.test_identity",
    "sh.tls.ca",
    "sh.tls.certificate",
    "sh.tls.key",
    "sh.tls",
];

fn read_tls(r: &mut Reader) -> Result<Option<TlsFiles>, ConfigError> {
    let mut path = |key: &str| Ok(r.take_if_set::<FilePath>(key)?.map(|path| path.0));
    let ca = path("sh.tls.ca")?;
    let certificate = path("sh.tls.certificate")?;
    let key = path("sh.tls.key")?;
    let own = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(r.wrong("sh.tls.certificate", "has no key", "set sh.tls.key too"));
        }
        (None, Some(_)) => {
            return Err(r.wrong("sh.tls.key", "has no certificate", "set sh.tls.certificate too"));
        }
    };
    let Some(ca) = ca else {
        return match own {
            None => Ok(None),
            Some(_) => Err(r.wrong(
                "sh.tls.certificate",
                "nobody is named who signs certificates of peers",
                "set sh.tls.ca too",
            )),
        };
    };
    let files = TlsFiles { ca, own };
    Tcp::new(Some(&files), false).map_err(|what| {
        let begins = |path: &std::path::Path| what.starts_with(&*path.to_string_lossy());
        let key = match &files.own {
            Some((certificate, _)) if begins(certificate) => "sh.tls.certificate",
            Some((_, key)) if begins(key) => "sh.tls.key",
            _ => "sh.tls.ca",
        };
        r.wrong(key, what.clone(), "name a file in PEM")
    })?;
    Ok(Some(files))
}

/// What the connections obey, out of configuration and profile.
pub fn settings(sh: &Sh, profile: &Profile) -> Settings {
    let dia = &profile.dia;
    let received = usize::try_from(dia.max_message.0).unwrap_or(usize::MAX);
    Settings {
        peers: sh.peers.clone(),
        listen: sh.listen.clone(),
        origin_host: sh.origin_host.clone(),
        origin_realm: sh.origin_realm.clone(),
        destination_realm: sh.destination_realm.clone(),
        destination_host: sh.destination_host.clone(),
        tls: sh.tls.clone(),
        timers: Timers {
            tc: dia.tc,
            twinit: dia.twinit,
            cea_timeout: dia.cea_timeout,
            request_timeout: dia.request_timeout,
        },
        max_message: received,
        max_sent: received / 4,
        also_plain_auth_app: dia.also_plain_auth_app,
        nodelay: sh.nodelay,
        max_inflight: dia.max_inflight as usize,
        redirect_hosts: sh.redirect_hosts.clone(),
    }
}
