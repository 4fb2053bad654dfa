//! What the SIP side of a kept page needs once the process that took the page is gone.
//!
//! [`Isc::keepsake`] writes it when the page is kept, [`Isc::take_back`] reads it before its legs are invited again: who
//! sent it, how it came, what the offers to recipients say. The first octet says what the rest is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Isc;
use super::inbound::{Facts, Origin};
use super::legs::Page;
use crate::engine::ids::PageId;

/// A large page, in the first format there was.
const LARGE: u8 = 1;

/// The octets are no keepsake this version can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what was kept of the page cannot be read: {0}")]
pub struct BadKeepsake(pub String);

#[derive(Debug, Serialize, Deserialize)]
struct Large<O, F> {
    origin: O,
    facts: F,
}

impl Isc {
    /// What has to be kept of a page; `None` for one that is not here.
    pub fn keepsake(&self, page: PageId) -> Option<Bytes> {
        let state = self.pages.get(&page)?;
        let mut out = vec![LARGE];
        let large = Large { origin: &*state.origin, facts: &state.facts };
        serde_json::to_writer(&mut out, &large)
            .inspect_err(|error| tracing::error!(%page, %error, "a page cannot be written down"))
            .ok()?;
        Some(out.into())
    }

    /// Knows a page again that came `age` ago. Its originator's dialog is over.
    ///
    /// # Errors
    /// [`BadKeepsake`]; nothing has changed.
    pub fn take_back(
        &mut self,
        now: Instant,
        page: PageId,
        age: Duration,
        keepsake: &[u8],
    ) -> Result<(), BadKeepsake> {
        let (&kind, rest) = keepsake.split_first().ok_or_else(|| BadKeepsake("empty".into()))?;
        if kind != LARGE {
            return Err(BadKeepsake(format!("format {kind}")));
        }
        let read = serde_json::from_slice(rest);
        let Large::<Box<Origin>, Facts> { origin, facts } =
            read.map_err(|error| BadKeepsake(error.to_string()))?;
        let known = Page {
            call: None,
            origin,
            facts,
            since: now.checked_sub(age).unwrap_or(now),
            answered: true,
            block: None,
            version: 1,
            legs: std::collections::BTreeMap::new(),
        };
        self.pages.insert(page, known);
        Ok(())
    }
}
