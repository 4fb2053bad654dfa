//! A phone's certificate, and TLS on its way to the node's MSRP side.

use std::sync::{Arc, OnceLock};

use pagecast::content::fingerprint::{Fingerprint, Hash};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio_rustls::TlsConnector;

pub struct Identity(Arc<CertifiedKey>);

/// What all phones show.
pub fn phones() -> &'static Identity {
    static PHONES: OnceLock<Identity> = OnceLock::new();
    PHONES.get_or_init(Identity::new)
}

/// What somebody else shows.
pub fn another() -> &'static Identity {
    static ANOTHER: OnceLock<Identity> = OnceLock::new();
    ANOTHER.get_or_init(Identity::new)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["ue.test".to_owned()]).expect("made");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let chain = vec![made.cert.der().clone()];
        let own = CertifiedKey::from_der(chain, key, &provider()).expect("they belong together");
        Self(Arc::new(own))
    }

    /// The value of `a=fingerprint`.
    pub fn fingerprint(&self) -> String {
        Fingerprint::of(Hash::Sha256, &self.0.cert[0]).to_string()
    }

    /// Goes over TLS on `stream`; what comes back is inside of it. The node has to show a certificate with the
    /// fingerprint `theirs`.
    pub fn inside(&self, stream: DuplexStream, theirs: String) -> DuplexStream {
        let (near, mut far) = duplex(16 * 1024);
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(theirs, provider())))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.0))));
        let name = ServerName::try_from("as1.ims.test").expect("a name");
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        drop(tokio::spawn(async move {
            let mut inside = connecting.await.expect("hands are shaken");
            // Either side may leave.
            let _ = copy_bidirectional(&mut far, &mut inside).await;
        }));
        near
    }
}

#[derive(Debug)]
struct Pinned(String, Arc<CryptoProvider>);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Fingerprint::of(Hash::Sha256, end_entity).to_string();
        assert_eq!(shown, self.0, "the node shows what its SDP says");
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.1.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.1.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}
