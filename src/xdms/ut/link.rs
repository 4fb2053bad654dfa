//! Connections to an XDMS: name, address, TLS, and which addresses are never connected to.
//!
//! Start at [`Connect`]; [`Network`] is the real one. XD-015, XD-024. Certificates are verified for the host of the URI as
//! web servers' are (RFC 9525), by the authorities in `xdms.tls.ca` and no others.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::url::Url;
use crate::pem::{self, BadFile};

/// What carries an exchange.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An open connection.
pub struct Link {
    pub stream: Box<dyn Stream>,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    /// Over TLS, and with a certificate of ours for a server that wants one.
    pub mutual: bool,
}

/// A connection, or why there is none.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Link>> + Send + 'a>>;

/// Opens connections.
pub trait Connect: Send + Sync {
    /// Connects to the host of a URI. `guarded`: a user named it, so that only public addresses will do.
    fn connect<'a>(&'a self, to: &'a Url, guarded: bool) -> Connecting<'a>;
}

/// `[xdms.tls]`: where certificates and keys stand, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Who signs the certificates of servers.
    pub ca: PathBuf,
    /// What we show, and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// What was read out of [`Files`]; clones follow a [`Material::replace`].
#[derive(Clone)]
pub struct Material(Arc<RwLock<InForce>>);

#[derive(Clone)]
struct InForce {
    files: Files,
    client: Arc<ClientConfig>,
}

impl std::fmt::Debug for Material {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("files", &self.now().files).finish_non_exhaustive()
    }
}

impl PartialEq for Material {
    fn eq(&self, other: &Self) -> bool {
        self.now().files == other.now().files
    }
}

impl Eq for Material {}

impl Material {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// The first file that is wrong, and how.
    pub fn load(files: &Files) -> Result<Self, BadFile> {
        let roots = pem::roots("ca", &files.ca, |_| {})?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| BadFile::new("ca", &files.ca, &error.to_string()))?
            .with_root_certificates(roots);
        let mut client = match &files.own {
            None => client.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = pem::certificates("certificate", certificate)?;
                let private = pem::private_key(key)?;
                client.with_client_auth_cert(chain, private).map_err(|error| match error {
                    rustls::Error::InconsistentKeys(_) => BadFile::new(
                        "key",
                        key,
                        &format!("does not belong to the certificate in {}", certificate.display()),
                    ),
                    other => BadFile::new(
                        "certificate",
                        certificate,
                        &format!("cannot be used: {other}"),
                    ),
                })?
            }
        };
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let read = InForce { files: files.clone(), client: Arc::new(client) };
        Ok(Self(Arc::new(RwLock::new(read))))
    }

    /// Puts in force what `fresh` holds: connections from now on follow it, those that are open stay.
    pub fn replace(&self, fresh: &Self) {
        let fresh = fresh.now();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    fn now(&self) -> InForce {
        // A change is one assignment, so a panic of another thread left nothing half done.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The real network.
#[derive(Debug, Clone, Default)]
pub struct Network {
    pub tls: Option<Material>,
    /// Addresses that are not public and may be connected to all the same.
    pub private_targets: Vec<IpNet>,
}

impl Connect for Network {
    fn connect<'a>(&'a self, to: &'a Url, guarded: bool) -> Connecting<'a> {
        Box::pin(async move {
            let addresses: Vec<SocketAddr> =
                lookup_host((to.host(), to.port())).await?.take(MOST_ADDRESSES).collect();
            let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
            for address in addresses {
                if guarded && !self.may_reach(address.ip()) {
                    last = io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        "its address is not public (xdms.private_targets)",
                    );
                    continue;
                }
                match self.open(to, address).await {
                    Ok(link) => return Ok(link),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }
}

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;

impl Network {
    /// XD-024: what a user names must not lead to what only we can reach.
    fn may_reach(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        is_public(ip) || self.private_targets.iter().any(|net| net.contains(&ip))
    }

    async fn open(&self, to: &Url, address: SocketAddr) -> io::Result<Link> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (local, remote) = (stream.local_addr().ok(), stream.peer_addr().ok());
        if !to.is_secure() {
            return Ok(Link { stream: Box::new(stream), local, remote, mutual: false });
        }
        let material = self.tls.as_ref().ok_or_else(|| {
            io::Error::other("nobody's certificate can be verified (xdms.tls.ca)")
        })?;
        let name = ServerName::try_from(to.host().to_owned())
            .map_err(|_| io::Error::other("its host is no name to verify"))?;
        let InForce { files, client } = material.now();
        let stream = TlsConnector::from(client).connect(name, stream).await?;
        let mutual = files.own.is_some();
        Ok(Link { stream: Box::new(stream), local, remote, mutual })
    }
}

/// Whether an address is one of the open Internet: by the registries of special-purpose addresses.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            // Embedded addresses of version 4: NAT64 and 6to4.
            let embedded = match ip.segments() {
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
                    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                    Some(Ipv4Addr::new(a, b, c, d))
                }
                _ => None,
            };
            // 2000::/3 is what is given out; documentation and the rest of it is not.
            first & 0xe000 == 0x2000
                && !(first == 0x2001 && ip.segments()[1] == 0xdb8)
                && embedded.is_none_or(is_public_v4)
                || embedded.is_some_and(|ip| first == 0x64 && is_public_v4(ip))
        }
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && b & 0xc0 == 64)
        || (a == 198 && b & 0xfe == 18)
        || (a == 192 && b == 0 && c == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves XD-024.
    #[test]
    fn only_public_addresses_are_reached() {
        let cases = [
            ("192.0.32.10", true),
            ("8.8.8.8", true),
            ("2606:2800::1", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("ff02::1", false),
            ("2001:db8::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::808:808", true),
            ("2002:7f00:1::1", false),
        ];
        let network = Network::default();
        for (ip, public) in cases {
            assert_eq!(network.may_reach(ip.parse().expect("an address")), public, "{ip}");
        }
        let network = Network {
            private_targets: vec!["10.0.0.0/8".parse().expect("a network")],
            ..Network::default()
        };
        assert!(network.may_reach("10.1.2.3".parse().expect("an address")));
        assert!(!network.may_reach("192.168.1.1".parse().expect("an address")));
    }
}
