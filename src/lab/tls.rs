//! A phone's TLS for MSRP: its certificate, and whether the server's is the one its SDP speaks of.
//!
//! Start at [`Identity`]; what it shows can be other than what it says, so that a server has somebody to send away. It
//! believes fingerprints by SHA-256 and nothing else (RFC 8122 §5).

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DistinguishedName, Error, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::content::fingerprint::{Fingerprint, Hash};
use crate::handshake::{VERSIONS, checks_signatures, server_name};

/// A phone's certificate.
#[derive(Clone)]
pub struct Identity {
    /// What its SDP says.
    own: Arc<CertifiedKey>,
    /// What it shows.
    shown: Option<Arc<CertifiedKey>>,
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Identity {
    /// A certificate nobody has signed, good until long after today.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self::made(|_| {})
    }

    /// One whose time is over.
    pub fn expired() -> Self {
        Self::made(|params| {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })
    }

    fn made(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let key = rcgen::KeyPair::generate().expect("the system has random bytes");
        let mut params = rcgen::CertificateParams::new(["phone.invalid".to_owned()])
            .expect("this is a host name");
        change(&mut params);
        let certificate = params.self_signed(&key).expect("the key is good for it");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let own = CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider());
        let own = Arc::new(own.expect("they belong together"));
        Self { shown: Some(Arc::clone(&own)), own }
    }

    /// Says what it says, and shows the certificate of another; none if there is none.
    #[must_use]
    pub fn showing(self, other: Option<&Self>) -> Self {
        Self { shown: other.map(|other| Arc::clone(&other.own)), ..self }
    }

    /// The value of `a=fingerprint`.
    pub(super) fn fingerprint(&self) -> String {
        print(&self.own.cert[0])
    }

    /// Shakes hands with a server that has to show one of `prints`.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
        prints: Vec<String>,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Listed(Some(prints), provider())));
        let config = match &self.shown {
            None => config.with_no_client_auth(),
            Some(shown) => config
                .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(shown)))),
        };
        let name = server_name(host).ok_or_else(|| io::Error::other("no name"))?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Shakes hands with a client; what it has to show is known with its first request.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(server::TlsStream<TcpStream>, String)> {
        let shown = self.shown.as_ref().unwrap_or(&self.own);
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(io::Error::other)?
            .with_client_cert_verifier(Arc::new(Listed(None, provider())))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(shown))));
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(print);
        let shown = shown.ok_or_else(|| io::Error::other("no certificate of the server"))?;
        Ok((stream, shown))
    }
}

fn print(certificate: &CertificateDer<'_>) -> String {
    Fingerprint::of(Hash::Sha256, certificate).to_string()
}

/// Takes certificates with one of these fingerprints; without a list, any.
#[derive(Debug)]
struct Listed(Option<Vec<String>>, Arc<CryptoProvider>);

impl Listed {
    fn judge(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let shown = print(certificate);
        let fits = |list: &Vec<String>| list.iter().any(|one| one.eq_ignore_ascii_case(&shown));
        if self.0.as_ref().is_none_or(fits) {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity).map(|()| ServerCertVerified::assertion())
    }

    checks_signatures!(1);
}

impl ClientCertVerifier for Listed {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity).map(|()| ClientCertVerified::assertion())
    }

    checks_signatures!(1);
}
