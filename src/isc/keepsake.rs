//! What the SIP side of a kept page needs once the process that took the page is gone.
//!
//! [`Isc::keepsake`] writes it when the page is kept, [`Isc::take_back`] reads it before its legs are invited again: who
//! sent it, how it came, what the offers to recipients say. The first octet says what the rest is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Isc;
use super::inbound::{Facts, Origin};
use super::legs::Page;
use super::messages::Short;
use crate::content::message_body::Piece;
use crate::engine::ids::PageId;

/// A large page, in the first format there was.
const LARGE: u8 = 1;
/// A short page: four octets that say how long what is known of it is, that, and what it says.
const SHORT: u8 = 2;

/// The octets are no keepsake this version can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what was kept of the page cannot be read: {0}")]
pub struct BadKeepsake(pub String);

#[derive(Debug, Serialize, Deserialize)]
struct Known<O, F> {
    origin: O,
    facts: F,
    /// Of a short page: the fields of each part of what it says, and how many octets it has.
    #[serde(default)]
    parts: Vec<(Vec<(String, String)>, usize)>,
}

impl Isc {
    /// What has to be kept of a page; `None` for one that is not here.
    pub fn keepsake(&self, page: PageId) -> Option<Bytes> {
        let state = self.pages.get(&page)?;
        let payload = state.short.as_ref().map(|short| short.payload.as_slice());
        let parts = payload.unwrap_or_default().iter();
        let parts = parts.map(|piece| (piece.headers.clone(), piece.body.len())).collect();
        let known = Known { origin: &*state.origin, facts: &state.facts, parts };
        let head = serde_json::to_vec(&known)
            .inspect_err(|error| tracing::error!(%page, %error, "a page cannot be written down"))
            .ok()?;
        let mut out = Vec::with_capacity(head.len() + 5);
        match payload {
            None => {
                out.push(LARGE);
                out.extend(head);
            }
            Some(payload) => {
                out.push(SHORT);
                out.extend(u32::try_from(head.len()).ok()?.to_be_bytes());
                out.extend(head);
                payload.iter().for_each(|piece| out.extend_from_slice(&piece.body));
            }
        }
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
        let cut = || BadKeepsake("cut".into());
        let (head, mut rest) = match kind {
            LARGE => (rest, &[][..]),
            SHORT => {
                let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
                rest.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or_else(cut)?
            }
            other => return Err(BadKeepsake(format!("format {other}"))),
        };
        let read = serde_json::from_slice(head);
        let Known::<Box<Origin>, Facts> { origin, facts, parts } =
            read.map_err(|error| BadKeepsake(error.to_string()))?;
        let mut payload = Vec::with_capacity(parts.len());
        for (headers, octets) in parts {
            let (body, left) = rest.split_at_checked(octets).ok_or_else(cut)?;
            payload.push(Piece { headers, body: Bytes::copy_from_slice(body) });
            rest = left;
        }
        let short = Short { request: None, payload, copies: BTreeMap::new() };
        let since = now.checked_sub(age).unwrap_or(now);
        let known = Page {
            answered: true,
            short: Some(short).filter(|_| kind == SHORT),
            ..super::page(since, origin, facts)
        };
        self.pages.insert(page, known);
        Ok(())
    }
}
