//! TLS for SIP: what we show, whom we believe, and which names a certificate holds.
//!
//! Start at [`Material::load`], which reads PEM files and makes both sides' rules of them, and [`Tls`], which holds the
//! ones in force and takes new ones while connections go on. A connection is opened or taken by `connection`; here is
//! only what decides. TLS 1.2 is the least; there is no resumption, so that every connection is verified anew.
//! Follows RFC 3261 §26.3, RFC 5922 (names) and RFC 5280. Revocation is not looked up.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::handshake::{VERSIONS, checks_signatures};
use crate::pem::{self, BadFile};
use crate::sip::uri::Uri;

/// Where certificates and keys stand, all in PEM, and what is asked of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Ours, then those between it and a root: shown by both sides of ours.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who signs the certificates of clients; without it clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Who signs the certificates of servers we connect to; without it nobody is connected to.
    pub ca: Option<PathBuf>,
    /// Clients without a certificate are turned away.
    pub verify_client: bool,
}

/// Everything read out of [`Files`], ready for handshakes.
#[derive(Clone)]
pub struct Material {
    files: Files,
    server: Arc<ServerConfig>,
    client: Option<Arc<ClientConfig>>,
    names: Names,
    until: i64,
    print: [u8; 32],
}

impl fmt::Debug for Material {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("files", &self.files)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Material {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files && self.print == other.print
    }
}

impl Eq for Material {}

impl Material {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// The first file that is wrong, and how.
    pub fn load(files: &Files) -> Result<Self, BadFile> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = pem::certificates("certificate", &files.certificate)?;
        let key = pem::private_key(&files.key)?;
        let own = X509Certificate::from_der(&chain[0])
            .map_err(|_| bad("certificate", &files.certificate, "holds no X.509 certificate"))?
            .1;
        let names = Names::of(&chain[0]).unwrap_or_default();
        let until = own.validity().not_after.timestamp();
        let mut print = Sha256::new();
        chain.iter().for_each(|one| print.update(one));

        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(VERSIONS)
            .map_err(|error| bad("certificate", &files.certificate, &error.to_string()))?;
        let server = match &files.client_ca {
            None => server.with_no_client_auth(),
            Some(path) => {
                let roots = pem::roots("client_ca", path, |one| print.update(one))?;
                let asked = WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(&provider),
                );
                let asked = if files.verify_client { asked } else { asked.allow_unauthenticated() };
                let verifier =
                    asked.build().map_err(|error| bad("client_ca", path, &error.to_string()))?;
                server.with_client_cert_verifier(verifier)
            }
        };
        let mut server = server
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| mismatch(files, &error))?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let client = match &files.ca {
            None => None,
            Some(path) => {
                let roots = pem::roots("ca", path, |one| print.update(one))?;
                let verifier = DomainVerifier { roots, provider: Arc::clone(&provider) };
                let mut client = ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(VERSIONS)
                    .map_err(|error| bad("certificate", &files.certificate, &error.to_string()))?
                    // The usual verifier knows web names; ours follows RFC 5922.
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| mismatch(files, &error))?;
                client.resumption = Resumption::disabled();
                Some(Arc::new(client))
            }
        };
        Ok(Self {
            files: files.clone(),
            server: Arc::new(server),
            client,
            names,
            until,
            print: print.finalize().into(),
        })
    }

    /// What it was read from.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Whether others can be connected to.
    pub fn can_connect(&self) -> bool {
        self.client.is_some()
    }

    /// The names our certificate holds, for people.
    pub fn names(&self) -> String {
        self.names.to_string()
    }

    /// When our certificate ends, in seconds since 1970.
    pub fn until(&self) -> i64 {
        self.until
    }
}

fn bad(key: &'static str, path: &Path, what: &str) -> BadFile {
    BadFile::new(key, path, what)
}

fn mismatch(files: &Files, error: &Error) -> BadFile {
    match error {
        Error::InconsistentKeys(_) => bad(
            "key",
            &files.key,
            &format!("does not belong to the certificate in {}", files.certificate.display()),
        ),
        other => bad("certificate", &files.certificate, &format!("cannot be used: {other}")),
    }
}

/// The SIP names in a certificate: those of its subjectAltName and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Hosts of SIP URIs without user part.
    domains: Vec<String>,
    /// SIP URIs with one.
    users: Vec<String>,
    hosts: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    /// Reads them; `None` if this is no certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let mut names = Self::default();
        let Some(all) = certificate.subject_alternative_name().ok()? else { return Some(names) };
        for name in &all.value.general_names {
            match name {
                GeneralName::URI(text) => {
                    let Ok(uri) = Uri::parse(text) else { continue };
                    if !uri.scheme_str().eq_ignore_ascii_case("sip") {
                        continue;
                    }
                    match uri.user() {
                        None => names.domains.push(folded(uri.host())),
                        Some(_) => names.users.push(folded(text)),
                    }
                }
                GeneralName::DNSName(host) => names.hosts.push(folded(host)),
                GeneralName::IPAddress(octets) => {
                    let address = match octets.len() {
                        4 => <[u8; 4]>::try_from(*octets).ok().map(IpAddr::from),
                        16 => <[u8; 16]>::try_from(*octets).ok().map(IpAddr::from),
                        _ => None,
                    };
                    names.addresses.extend(address);
                }
                _ => {}
            }
        }
        Some(names)
    }

    /// Whether this is a certificate of the SIP domain `host`: the host of a URI, a name or an address.
    ///
    /// RFC 5922 §7.1, §7.2: SIP URIs count first, DNS names only where there is none; whole names, no wildcards, and
    /// never the common name.
    pub fn are_of(&self, host: &str) -> bool {
        let host = folded(host);
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = plain.parse::<IpAddr>() {
            return self.addresses.contains(&address) || self.domains.contains(&host);
        }
        let named = if self.domains.is_empty() { &self.hosts } else { &self.domains };
        named.contains(&host)
    }

    /// Whether one of them is `name`, a host or a SIP URI, folded by [`Names::fold`].
    ///
    /// ISC-001: whatever its kind.
    pub fn hold(&self, name: &str) -> bool {
        let mut all = self.domains.iter().chain(&self.users).chain(&self.hosts);
        all.any(|one| one == name)
    }

    /// A trusted name as [`Names::hold`] wants it; `None` if it is neither a host nor a SIP URI.
    pub fn fold(name: &str) -> Option<String> {
        match Uri::parse(name) {
            Ok(uri) if uri.scheme_str().eq_ignore_ascii_case("sip") => match uri.user() {
                None => Some(folded(uri.host())),
                Some(_) => Some(folded(name)),
            },
            _ => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
                (!name.is_empty() && name.bytes().all(plain)).then(|| folded(name))
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.domains.is_empty() && self.users.is_empty() && self.hosts.is_empty()
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domains = self.domains.iter().map(|domain| format!("sip:{domain}"));
        let all = domains.chain(self.users.iter().cloned()).chain(self.hosts.iter().cloned());
        let all: Vec<_> = all.chain(self.addresses.iter().map(ToString::to_string)).collect();
        f.write_str(&all.join(", "))
    }
}

fn folded(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Verifies the certificate of a server we connect to: its chain, and its name after RFC 5922.
#[derive(Debug)]
struct DomainVerifier {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for DomainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        let names = Names::of(end_entity)
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if names.are_of(&server_name.to_str()) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }

    checks_signatures!(provider);
}

/// What is in force: shared by all threads of a node, and by whoever puts something new in force.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<InForce>>);

#[derive(Debug, Clone)]
struct InForce {
    material: Material,
    trusted: Arc<[String]>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}

impl Tls {
    /// `trusted` are the names, folded by [`Names::fold`], of peers whose certificate vouches for them.
    pub fn new(material: Material, trusted: Vec<String>) -> Self {
        Self(Arc::new(RwLock::new(InForce { material, trusted: trusted.into() })))
    }

    /// Puts in force what `fresh` holds: handshakes and requests from now on follow it, connections stay.
    pub fn replace(&self, fresh: &Self) {
        let fresh = fresh.now();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// No certificate vouches for anybody from now on; what is shown stays as it is.
    pub fn trust_nobody(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).trusted = Arc::default();
    }

    fn now(&self) -> InForce {
        // A change is one assignment, so a panic of another thread left nothing half done.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For connections others open.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.now().material.server)
    }

    /// For connections we open; `None` where nobody's certificate can be verified.
    pub fn connector(&self) -> Option<TlsConnector> {
        self.now().material.client.map(TlsConnector::from)
    }

    /// Whether a verified certificate with these names makes its holder a member of the trust domain.
    ///
    /// ISC-001.
    pub fn vouches(&self, names: &Names) -> bool {
        if names.is_empty() {
            return false;
        }
        let in_force = self.0.read().unwrap_or_else(PoisonError::into_inner);
        in_force.trusted.iter().any(|trusted| names.hold(trusted))
    }
}

/// The names in the first certificate a peer has shown.
pub fn names_shown(certificates: Option<&[CertificateDer<'_>]>) -> Names {
    certificates.and_then(<[_]>::first).and_then(Names::of).unwrap_or_default()
}
