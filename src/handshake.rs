//! What all who shake hands over TLS share: versions, names, and a bound on handshakes in progress.
//!
//! Start at [`Gate`]. Certificates and keys come out of files by [`crate::pem`]; who is believed is each one's own affair.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls_pki_types::ServerName;

/// TLS 1.2 is the least.
pub const VERSIONS: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

/// The name a connection is made to and verified for: the host of the URI that led there.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    let plain = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    ServerName::try_from(plain.to_owned()).ok()
}

/// What every verifier of certificates does alike: signatures of both versions are checked by the algorithms of its
/// `CryptoProvider`, which the named field holds. Written into an `impl` of a verifier.
macro_rules! checks_signatures {
    ($provider:tt) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &rustls_pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.$provider.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls_pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.$provider.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.$provider.signature_verification_algorithms.supported_schemes()
        }
    };
}
pub(crate) use checks_signatures;

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    by_peer: HashMap<IpAddr, usize, ahash::RandomState>,
}

/// How many handshakes may be in progress, in all and from one address. Clones share it.
#[derive(Debug, Clone)]
pub struct Gate {
    inside: Arc<Mutex<Inside>>,
    most: usize,
    most_per_peer: usize,
}

/// A place inside, given back when dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    peer: IpAddr,
}

impl Gate {
    /// Lets in `most`, and of these `most_per_peer` from one address.
    pub fn new(most: usize, most_per_peer: usize) -> Self {
        Self { inside: Arc::default(), most, most_per_peer }
    }

    /// A place, unless all are taken.
    pub fn enter(&self, peer: IpAddr) -> Option<Pass> {
        let mut inside = self.inside();
        let from_peer = inside.by_peer.get(&peer).copied().unwrap_or(0);
        if inside.all >= self.most || from_peer >= self.most_per_peer {
            return None;
        }
        inside.all += 1;
        inside.by_peer.insert(peer, from_peer + 1);
        Some(Pass { gate: self.clone(), peer })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Each change is one step, so a panic of another thread left nothing half done.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.gate.inside();
        inside.all -= 1;
        match inside.by_peer.get_mut(&self.peer) {
            Some(left) if *left > 1 => *left -= 1,
            _ => drop(inside.by_peer.remove(&self.peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let gate = Gate::new(3, 2);
        let first = gate.enter(one).expect("the first");
        let _second = gate.enter(one).expect("the second");
        assert!(gate.enter(one).is_none(), "two from one address");
        let third = gate.enter(other).expect("another address");
        assert!(gate.enter(other).is_none(), "three in all");
        drop(first);
        let _again = gate.enter(one).expect("a place is free again");
        drop(third);
        assert_eq!(gate.inside().by_peer.len(), 1);
    }
}
