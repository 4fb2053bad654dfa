//! Certificates and keys out of PEM files: a leaf for everybody who speaks TLS.
//!
//! Says which file is wrong and how, and never what stands in it.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct BadFile {
    /// What it was read for: the last part of the key that names it.
    pub key: &'static str,
    /// The file, and what is wrong with it.
    pub what: String,
}

impl BadFile {
    pub fn new(key: &'static str, path: &Path, what: &str) -> Self {
        Self { key, what: format!("{} {what}", path.display()) }
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, BadFile> {
    std::fs::read(path)
        .map_err(|error| BadFile::new(key, path, &format!("cannot be read: {error}")))
}

/// All certificates of a file, at least one.
///
/// # Errors
/// [`BadFile`].
pub fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let text = read(key, path)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(BadFile::new(key, path, "holds no certificate in PEM")),
        Err(error) => Err(BadFile::new(key, path, &format!("is no good PEM: {error}"))),
    }
}

/// The private key of a file.
///
/// # Errors
/// [`BadFile`].
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, BadFile> {
    // The error does not repeat what stands in the file.
    PrivateKeyDer::from_pem_slice(&read("key", path)?).map_err(|_| {
        BadFile::new("key", path, "holds no private key in PEM (PKCS #8, PKCS #1 or SEC 1)")
    })
}

/// The certificates of a file as those who may sign others; `seen` hears of each.
///
/// # Errors
/// [`BadFile`].
pub fn roots(
    key: &'static str,
    path: &Path,
    mut seen: impl FnMut(&CertificateDer<'static>),
) -> Result<RootCertStore, BadFile> {
    let mut store = RootCertStore::empty();
    for one in certificates(key, path)? {
        seen(&one);
        store.add(one).map_err(|error| {
            BadFile::new(key, path, &format!("holds a certificate that is no root: {error}"))
        })?;
    }
    Ok(store)
}
