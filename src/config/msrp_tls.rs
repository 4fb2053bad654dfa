//! `[msrp.tls]`: where MSRP is taken over TLS, and what is shown there.

use std::net::SocketAddr;
use std::time::Duration;

use super::layer::{ConfigError, Reader};
use super::value::{FilePath, HostPort};
use super::{advertise, advertise_also};
use crate::content::fingerprint::Terms;
use crate::content::sdp::{Families, Tls};
use crate::msrp::tls::{Files, Material};

/// `[msrp.tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MsrpTls {
    /// Never empty.
    pub listen: Vec<SocketAddr>,
    /// Written into `a=path`. Port 0: the port that was taken when listening.
    pub advertise: HostPort,
    /// The same for peers whose addresses are of the other kind.
    pub advertise_also: Option<HostPort>,
    /// What the files hold.
    pub material: Material,
    /// Fingerprints by SHA-1 are taken where nothing stronger is listed.
    pub accept_sha1: bool,
    /// From the end of TCP's handshake to the end of TLS's.
    pub handshake_timeout: Duration,
    /// Handshakes of clients in progress.
    pub max_handshakes: u32,
}

impl MsrpTls {
    /// What peers may prove themselves with, and where we are for them.
    pub fn served(&self) -> Tls {
        let hosts = std::iter::once(&self.advertise).chain(&self.advertise_also);
        Tls {
            terms: Terms { names: self.material.knows_names(), sha1: self.accept_sha1 },
            families: Families::of(
                hosts.map(|at| at.host.trim_start_matches('[').trim_end_matches(']')),
            ),
        }
    }
}

/// Means nothing alone.
const OTHERS: [&str; 8] = [
    "msrp.tls.certificate",
    "msrp.tls.key",
    "msrp.tls.ca",
    "msrp.tls.advertise",
    "msrp.tls.advertise_also",
    "msrp.tls.accept_sha1",
    "msrp.tls.handshake_timeout",
    "msrp.tls.max_handshakes",
];

/// Certificates are read here, so that a mistake in them is found where their names stand.
pub fn read(r: &mut Reader) -> Result<Option<MsrpTls>, ConfigError> {
    let stray = OTHERS.into_iter().find(|key| r.is_set(key));
    let listen: Vec<SocketAddr> = r.take("msrp.tls.listen", Vec::new())?;
    let mut path = |key: &str| Ok(r.take_if_set::<FilePath>(key)?.map(|path| path.0));
    let (certificate, key) = (path("msrp.tls.certificate")?, path("msrp.tls.key")?);
    let ca = path("msrp.tls.ca")?;
    let accept_sha1 = r.take("msrp.tls.accept_sha1", false)?;
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(60));
    let usual = Duration::from_secs(5);
    let handshake_timeout = r.take_within("msrp.tls.handshake_timeout", usual, least, most)?;
    let max_handshakes = r.take_within("msrp.tls.max_handshakes", 256u32, 1, 1_000_000)?;
    let Some(first) = listen.first().copied() else {
        r.take_if_set::<HostPort>("msrp.tls.advertise")?;
        r.take_if_set::<HostPort>("msrp.tls.advertise_also")?;
        return match stray {
            None => Ok(None),
            Some(key) => Err(r.wrong(
                key,
                "means nothing where nobody listens",
                "set msrp.tls.listen = [\"ADDRESS:PORT\"] too",
            )),
        };
    };
    let own = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(r.wrong("msrp.tls.certificate", "has no key", "set msrp.tls.key too"));
        }
        (None, Some(_)) => {
            let right = "set msrp.tls.certificate too";
            return Err(r.wrong("msrp.tls.key", "has no certificate", right));
        }
    };
    let material = Material::load(&Files { own, ca }).map_err(|wrong| {
        r.wrong(&format!("msrp.tls.{}", wrong.key), wrong.what, "name a file in PEM")
    })?;
    let advertise = advertise(r, "msrp.tls", &listen, first)?;
    let advertise_also = advertise_also(r, "msrp.tls", &listen, &advertise)?;
    Ok(Some(MsrpTls {
        listen,
        advertise,
        advertise_also,
        material,
        accept_sha1,
        handshake_timeout,
        max_handshakes,
    }))
}
