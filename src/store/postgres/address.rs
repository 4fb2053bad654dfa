//! The URL of a database: `postgres://user:password@host1,host2/name?target_session_attrs=read-write`.
//!
//! Besides the client's own options it knows `sslrootcert` and the modes `verify-ca` and `verify-full`, which are one here:
//! whoever signs has to sign for the host, too. `require` without `sslrootcert` encrypts towards whoever answers.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::tls::Tls;
use crate::pem;

/// How long one host may take to answer, where the URL says nothing.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a host that went silent is believed in.
const SILENT: Duration = Duration::from_secs(10);

/// A URL that names no database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAddress(String);

/// Where the database is and how to get in. Never shows the password.
#[derive(Clone)]
pub struct Address {
    pub(super) config: Config,
    tls: Tls,
    unverified: bool,
    shown: String,
}

impl Address {
    /// Reads a URL; what it says of files is relative to `folder`.
    ///
    /// # Errors
    /// [`BadAddress`]; it does not repeat what stands in the URL.
    pub fn parse(url: &str, folder: &Path) -> Result<Self, BadAddress> {
        let bad = |what: &str| BadAddress(what.to_owned());
        let (base, options) = url.split_once('?').unwrap_or((url, ""));
        let mut kept = Vec::new();
        let (mut roots, mut mode) = (None, "prefer");
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslrootcert", path)) => {
                    let read = pem::roots("sslrootcert", &folder.join(path), |_| {});
                    roots = Some(read.map_err(|wrong| BadAddress(wrong.to_string()))?);
                }
                Some(("sslmode", asked)) => mode = asked,
                _ => kept.push(option),
            }
        }
        let ssl = match (mode, &roots) {
            ("disable", None) => SslMode::Disable,
            ("prefer", None) => SslMode::Prefer,
            ("require", None) | ("require" | "verify-ca" | "verify-full", Some(_)) => {
                SslMode::Require
            }
            ("verify-ca" | "verify-full", None) => {
                return Err(bad("its sslmode needs sslrootcert"));
            }
            ("disable" | "prefer", Some(_)) => {
                return Err(bad("its sslrootcert is of no use without sslmode=verify-full"));
            }
            _ => return Err(bad("its sslmode is none of disable, prefer, require, verify-full")),
        };
        let url =
            if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        // The client's error says which option is wrong, in quotes, and of passwords nothing.
        let mut config = Config::from_str(&url).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            BadAddress(format!("is no address of a database: {}", cause.unwrap_or_default()))
        })?;
        if config.get_hosts().is_empty() {
            return Err(bad("names no host"));
        }
        config.ssl_mode(ssl);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENT);
        }
        if config.get_application_name().is_none() {
            config.application_name("pagecast");
        }
        let unverified = ssl == SslMode::Require && roots.is_none();
        let tls = Tls::new(roots).map_err(|error| BadAddress(error.to_string()))?;
        let shown = show(&config, options);
        Ok(Self { config, tls, unverified, shown })
    }

    pub(super) fn connector(&self) -> Tls {
        self.tls.clone()
    }

    /// Whether anybody could answer in the database's place.
    pub(super) fn is_unverified(&self) -> bool {
        self.unverified
    }
}

/// The URL as operators may see it.
fn show(config: &Config, options: &str) -> String {
    let hosts = config.get_hosts();
    let ports = config.get_ports();
    let places: Vec<String> = hosts
        .iter()
        .enumerate()
        .map(|(n, host)| {
            let host = match host {
                Host::Tcp(name) => name.clone(),
                #[cfg(unix)]
                Host::Unix(path) => path.display().to_string(),
            };
            match ports.get(n).or(ports.first()) {
                Some(port) => format!("{host}:{port}"),
                None => host,
            }
        })
        .collect();
    let user = config.get_user().map_or_else(String::new, |user| {
        let password = if config.get_password().is_some() { ":(secret)" } else { "" };
        format!("{user}{password}@")
    });
    let name = config.get_dbname().unwrap_or_default();
    let safe = options
        .split('&')
        .filter(|option| !option.is_empty() && !option.to_ascii_lowercase().contains("pass"));
    let options = safe.collect::<Vec<_>>().join("&");
    let mark = if options.is_empty() { "" } else { "?" };
    format!("postgres://{user}{}/{name}{mark}{options}", places.join(","))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.shown)
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config && self.shown == other.shown
    }
}

impl Eq for Address {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, BadAddress> {
        Address::parse(url, Path::new("/nowhere"))
    }

    #[test]
    fn what_is_shown_has_no_password() {
        let cases = [
            ("postgres://me:sesame@db/p", "postgres://me:(secret)@db:5432/p"),
            ("postgres://me@db1:5433,db2/p", "postgres://me@db1:5433,db2:5432/p"),
            (
                "postgresql://db/p?user=me&password=sesame",
                "postgres://me:(secret)@db:5432/p?user=me",
            ),
            (
                "postgres://me:ses%61me@a,b/p?target_session_attrs=read-write",
                "postgres://me:(secret)@a:5432,b:5432/p?target_session_attrs=read-write",
            ),
        ];
        for (url, shown) in cases {
            let address = parse(url).expect(url);
            assert_eq!(address.to_string(), shown);
            let debug = format!("{address:?} {:?}", address.config);
            assert!(!debug.contains("sesame"), "{debug}");
        }
    }

    #[test]
    fn what_is_wrong_with_it_is_said_without_the_password() {
        let cases = [
            ("postgres://me:sesame@db/p?sslmode=verify-full", "needs sslrootcert"),
            ("postgres://me:sesame@db/p?sslmode=perhaps", "its sslmode is none of"),
            ("postgres://me:sesame@db/p?sslmode=require&sslrootcert=ca.pem", "/nowhere/ca.pem"),
            ("postgres://me:sesame@db/p?colour=blue", "colour"),
            ("postgres://me:sesame@db:port/p", "port"),
            ("postgres:///p?user=me&password=sesame", "names no host"),
        ];
        for (url, why) in cases {
            let error = parse(url).expect_err(url).to_string();
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}
