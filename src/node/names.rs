//! Whether two hosts are one by their addresses, a bounded number of questions at a time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::content::media_address::Names;

/// Questions open at a time; who comes when there are more waits its part of [`PATIENCE`].
const MOST: usize = 32;
/// Addresses of one name that are looked at.
const ADDRESSES: usize = 16;
/// How long an answer may take: the originator waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the system's resolver.
#[derive(Debug, Clone)]
pub struct Lookup(Arc<Semaphore>);

impl Default for Lookup {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

impl Lookup {
    /// At least one address is that of both. A name without an answer is nobody's.
    ///
    /// MS-028 (RFC 6714 §4.4).
    pub async fn same(&self, names: &Names) -> bool {
        let both =
            async { tokio::join!(self.addresses(&names.media), self.addresses(&names.path)) };
        let Ok((media, path)) = tokio::time::timeout(PATIENCE, both).await else {
            tracing::info!(rule = "MS-028", "the addresses of an MSRP peer took too long");
            return false;
        };
        media.iter().any(|ip| path.contains(ip))
    }

    async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        if let Ok(ip) = host.parse() {
            return vec![ip];
        }
        let Ok(permit) = Arc::clone(&self.0).acquire_owned().await else { return Vec::new() };
        let host = host.to_owned();
        // The system's resolver cannot be stopped: the question counts as open until it is answered.
        let asked = tokio::spawn(async move {
            let _permit = permit;
            match tokio::net::lookup_host((host.as_str(), 0)).await {
                Ok(found) => found.map(|at| at.ip()).take(ADDRESSES).collect(),
                Err(_) => Vec::new(),
            }
        });
        asked.await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves MS-028.
    #[tokio::test]
    async fn two_hosts_are_one_if_they_share_an_address() {
        let lookup = Lookup::default();
        for (media, path, same) in [
            ("127.0.0.1", "localhost", true),
            ("localhost", "127.0.0.1", true),
            ("192.0.2.1", "localhost", false),
            ("localhost", "localhost", true),
            ("nobody.invalid", "nobody.invalid", false),
        ] {
            let names = Names { media: media.to_owned(), path: path.to_owned() };
            assert_eq!(lookup.same(&names).await, same, "{media} {path}");
        }
        assert_eq!(lookup.0.available_permits(), MOST);
    }
}
