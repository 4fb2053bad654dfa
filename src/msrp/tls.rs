//! MSRP over TLS: our certificates, what peers have to show, and the alert for those who show something else.
//!
//! Start at [`Tls`], which all connections of a node share. A session tells its peer the fingerprints of
//! [`Tls::announce`] and the peer finds one of them, also when the certificate changes meanwhile: the old one is shown as
//! long as somebody was told of it alone and has not come yet. What the peer shows is a [`Shown`], held against the
//! [`Proof`] its SDP asks for. Follows MS-112 (RFC 8122, RFC 4975 §14, RFC 6135 §4.3).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ConnectionTrafficSecrets, ContentType,
    DistinguishedName, Error, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
    SupportedCipherSuite,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector, server};

use crate::content::fingerprint::{Fingerprint, Hash, Proof};
use crate::handshake::{VERSIONS, checks_signatures, server_name};
use crate::pem::{self, BadFile};

/// Where certificates and keys stand, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// Our certificate with those between it and a root, and its key. Without them one is made at start.
    pub own: Option<(PathBuf, PathBuf)>,
    /// Who signs the certificates of peers that list no fingerprint; without it they are refused.
    pub ca: Option<PathBuf>,
}

/// Everything read out of [`Files`].
#[derive(Clone)]
pub struct Material {
    files: Files,
    own: Option<Arc<CertifiedKey>>,
    roots: Option<Arc<RootCertStore>>,
    print: [u8; 32],
}

impl fmt::Debug for Material {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("files", &self.files).finish_non_exhaustive()
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
        let mut print = Sha256::new();
        let own = match &files.own {
            None => None,
            Some((certificate, key)) => {
                let chain = pem::certificates("certificate", certificate)?;
                chain.iter().for_each(|one| print.update(one));
                let private = pem::private_key(key)?;
                let own = CertifiedKey::from_der(chain, private, &provider());
                Some(Arc::new(own.map_err(|error| match error {
                    Error::InconsistentKeys(_) => {
                        let of = certificate.display();
                        let what = format!("does not belong to the certificate in {of}");
                        BadFile::new("key", key, &what)
                    }
                    other => BadFile::new("key", key, &format!("cannot be used: {other}")),
                })?))
            }
        };
        let roots = match &files.ca {
            None => None,
            Some(ca) => Some(Arc::new(pem::roots("ca", ca, |one| print.update(one))?)),
        };
        Ok(Self { files: files.clone(), own, roots, print: print.finalize().into() })
    }

    /// What it was read from.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Peers may prove themselves by the name of their host.
    pub fn knows_names(&self) -> bool {
        self.roots.is_some()
    }

    /// The value of `a=fingerprint` for our certificate; `None` where it is made at start.
    pub fn fingerprint(&self) -> Option<String> {
        self.own.as_deref().and_then(fingerprint)
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn fingerprint(own: &CertifiedKey) -> Option<String> {
    own.cert.first().map(|own| Fingerprint::of(Hash::Sha256, own).to_string())
}

/// A certificate of ours, and who was told of it.
struct Generation {
    id: u64,
    own: Arc<CertifiedKey>,
    fingerprint: String,
    server: Arc<ServerConfig>,
    /// Held by sessions that were told of this one last and whose peer has not come yet.
    promised: Arc<()>,
}

impl Generation {
    fn new(id: u64, own: Arc<CertifiedKey>) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(VERSIONS)?
            .with_client_cert_verifier(Arc::new(Anybody(provider)))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own))));
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        // The alert of [`refuse`] is ours to write.
        server.enable_secret_extraction = true;
        let fingerprint = fingerprint(&own).ok_or(Error::NoCertificatesPresented)?;
        Ok(Self { id, own, fingerprint, server: Arc::new(server), promised: Arc::default() })
    }
}

/// Kept by a session until its peer has come: as long, a certificate it was told of is shown.
#[derive(Debug, Clone)]
pub struct Promise(#[expect(dead_code, reason = "only its being there counts")] Arc<()>);

/// What a session tells its peer of us.
#[derive(Debug, Clone)]
pub struct Announced {
    /// Values of `a=fingerprint`.
    pub fingerprints: Vec<String>,
    pub promise: Promise,
}

/// Certificates in force, the one that is shown first; more only while somebody waits for an older one.
struct InForce {
    own: VecDeque<Generation>,
    next: u64,
    material: Material,
}

/// Certificates a reload can leave waiting; beyond it the oldest goes, whoever waits.
const MOST_GENERATIONS: usize = 4;

impl InForce {
    fn add(&mut self, own: Arc<CertifiedKey>) -> Result<(), Error> {
        let generation = Generation::new(self.next, own)?;
        self.next += 1;
        self.own.push_back(generation);
        if self.own.len() > MOST_GENERATIONS {
            self.own.pop_front();
        }
        Ok(())
    }

    /// Lets go of certificates nobody waits for.
    fn settle(&mut self) {
        while self.own.len() > 1
            && self.own.front().is_some_and(|old| Arc::strong_count(&old.promised) == 1)
        {
            self.own.pop_front();
        }
    }

    fn shown(&mut self) -> &Generation {
        self.settle();
        self.own.front().expect("made with one, and the last one is never taken")
    }
}

/// TLS of the MSRP side; clones share it.
#[derive(Clone)]
pub struct Tls(Arc<Mutex<InForce>>);

impl Tls {
    /// With the certificate of `material`, else with one made for `host`.
    ///
    /// # Errors
    /// The certificate cannot be made or used.
    pub fn new(material: Material, host: &str) -> io::Result<Self> {
        let own = match &material.own {
            Some(own) => Arc::clone(own),
            None => self_signed(host)?,
        };
        let mut in_force = InForce { own: VecDeque::new(), next: 1, material };
        in_force.add(own).map_err(io::Error::other)?;
        Ok(Self(Arc::new(Mutex::new(in_force))))
    }

    /// Puts what was read anew in force. Connections stay; a certificate that was made at start stays as long as no file
    /// names another.
    pub fn replace(&self, material: &Material) {
        let mut in_force = self.lock();
        let old = in_force.material.own.as_ref().and_then(|own| own.cert.first());
        let new = material.own.as_ref().filter(|own| own.cert.first() != old);
        if let Some(own) = new
            && let Err(error) = in_force.add(Arc::clone(own))
        {
            tracing::error!(%error, "the new certificate for MSRP cannot be used; the old one stays");
        }
        in_force.material = material.clone();
    }

    fn lock(&self) -> MutexGuard<'_, InForce> {
        // Each change is one step, so a panic of another thread left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For SDP that leaves now.
    pub fn announce(&self) -> Announced {
        let mut in_force = self.lock();
        in_force.settle();
        let last = in_force.own.back().expect("made with one, and the last one is never taken");
        Announced {
            promise: Promise(Arc::clone(&last.promised)),
            fingerprints: in_force.own.iter().map(|own| own.fingerprint.clone()).collect(),
        }
    }

    /// For connections others open. Every certificate passes the handshake; it is held against a [`Proof`] as soon as
    /// there is one.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.lock().shown().server))
    }

    /// Which certificate is shown now: connections that show different ones are never shared.
    pub(super) fn generation(&self) -> u64 {
        self.lock().shown().id
    }

    /// Shakes hands as the client, with a peer that has to show `proof` and is at `host`.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        host: &str,
        proof: &Proof,
    ) -> io::Result<tokio_rustls::client::TlsStream<S>> {
        let (own, roots) = {
            let mut in_force = self.lock();
            (Arc::clone(&in_force.shown().own), in_force.material.roots.clone())
        };
        let provider = Arc::new(provider());
        let verifier = Provable { proof: proof.clone(), roots, provider: Arc::clone(&provider) };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)
            .map_err(io::Error::other)?
            // SDP says who the peer is, not a list of authorities alone.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        config.resumption = Resumption::disabled();
        let name = server_name(host).ok_or_else(|| io::Error::other("no name to verify"))?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Whether what a peer has shown is what its SDP asks for.
    pub(super) fn satisfied(&self, shown: &Shown, proof: &Proof) -> bool {
        let roots = match proof {
            Proof::Fingerprint(_) => None,
            Proof::Name(_) => self.lock().material.roots.clone(),
        };
        shown.satisfies(proof, roots)
    }
}

/// A certificate nobody signs; fingerprints need no more.
fn self_signed(host: &str) -> io::Result<Arc<CertifiedKey>> {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let own = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider());
    own.map(Arc::new).map_err(io::Error::other)
}

/// The certificates a client has shown, its own first. It has the key of that one.
#[derive(Debug)]
pub(super) struct Shown(Vec<CertificateDer<'static>>);

impl Shown {
    /// `None` if it has shown none.
    pub fn of(certificates: Option<&[CertificateDer<'static>]>) -> Option<Self> {
        certificates.filter(|all| !all.is_empty()).map(|all| Self(all.to_vec()))
    }

    fn satisfies(&self, proof: &Proof, roots: Option<Arc<RootCertStore>>) -> bool {
        let Some((own, between)) = self.0.split_first() else { return false };
        match proof {
            Proof::Fingerprint(listed) => listed.iter().any(|one| one.is_of(own)),
            Proof::Name(host) => {
                let Some(roots) = roots else { return false };
                let provider = Arc::new(provider());
                let chain = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let Some(name) = server_name(host) else { return false };
                let parsed = ParsedCertificate::try_from(own);
                chain.is_ok_and(|chain| {
                    chain.verify_client_cert(own, between, UnixTime::now()).is_ok()
                }) && parsed.is_ok_and(|own| verify_server_name(&own, &name).is_ok())
            }
        }
    }
}

/// Asks clients for a certificate and takes any whose key they have: which one it has to be is known with the session.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        // Who shows none is sent away by `refuse`, with the alert RFC 8122 §6.2 wants.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    checks_signatures!(0);
}

/// Takes the server the SDP speaks of. In fingerprint mode only the hash counts, not dates nor names.
#[derive(Debug)]
struct Provable {
    proof: Proof,
    roots: Option<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Provable {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Becomes the alert `bad_certificate`.
        const WRONG: Error = Error::InvalidCertificate(CertificateError::NotValidForName);
        match &self.proof {
            Proof::Fingerprint(listed) if listed.iter().any(|one| one.is_of(end_entity)) => {}
            Proof::Fingerprint(_) => return Err(WRONG),
            Proof::Name(host) => {
                let roots = self.roots.as_deref().ok_or(WRONG)?;
                let parsed = ParsedCertificate::try_from(end_entity)?;
                verify_server_cert_signed_by_trust_anchor(
                    &parsed,
                    roots,
                    intermediates,
                    now,
                    self.provider.signature_verification_algorithms.all,
                )?;
                verify_server_name(&parsed, &server_name(host).ok_or(WRONG)?)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    checks_signatures!(provider);
}

/// Ends a connection by the alert `bad_certificate` (42), best effort.
///
/// MS-112 (RFC 8122 §6.2): our TLS stack has no word for an alert after the handshake, so the record is made here, with
/// the keys and the number the connection stands at.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: server::TlsStream<S>) {
    if stream.flush().await.is_err() {
        return;
    }
    let (mut stream, connection) = stream.into_inner();
    let Some(alert) = alert(connection) else { return };
    if stream.write_all(&alert).await.is_ok() && stream.shutdown().await.is_ok() {
        // What is unread when a socket closes takes the alert along with it.
        let mut rest = (&mut stream).take(64 << 10);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
}

fn alert(connection: ServerConnection) -> Option<Vec<u8>> {
    const FATAL: u8 = 2;
    let suite = connection.negotiated_cipher_suite()?;
    let (number, secrets) = connection.dangerous_extract_secrets().ok()?.tx;
    let (key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
        _ => return None,
    };
    let mut writer = match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            let fixed = suite.aead_alg.key_block_shape().fixed_iv_len;
            let (fixed, explicit) = iv.as_ref().split_at_checked(fixed)?;
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
    };
    let message = OutboundPlainMessage {
        typ: ContentType::Alert,
        version: ProtocolVersion::TLSv1_2,
        payload: OutboundChunks::Single(&[FATAL, u8::from(AlertDescription::BadCertificate)]),
    };
    Some(writer.encrypt(message, number).ok()?.encode())
}

/// Why a handshake came to nothing, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It took too long.
    Slow,
    /// Not TLS, or none we speak.
    Protocol,
    /// The peer shows a certificate other than its SDP says, or none; or it says so of ours.
    Certificate,
    /// Too many in progress.
    Busy,
}

impl Failure {
    /// What an error of the TLS stack amounts to.
    pub fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            _ if error.kind() == io::ErrorKind::TimedOut => Self::Slow,
            Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => {
                Self::Certificate
            }
            Some(Error::AlertReceived(
                AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRequired
                | AlertDescription::UnknownCA
                | AlertDescription::UnsupportedCertificate,
            )) => Self::Certificate,
            _ => Self::Protocol,
        }
    }
}

#[cfg(test)]
mod tests;
