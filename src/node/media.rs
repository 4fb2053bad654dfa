//! What signalling agreed on, in the words of the MSRP switch.

use std::sync::{Arc, OnceLock};

use crate::content::sdp;
use crate::engine::input::Arrival;
use crate::msrp::{AcceptTypes, Direction, PageRules, PeerMedia, Role, UriTest};
use crate::sip::uri::Uri;

/// The peer of a session.
pub fn peer(peer: &sdp::Peer) -> PeerMedia {
    PeerMedia {
        path: peer.path.clone(),
        role: match peer.role {
            sdp::Role::Active => Role::Active,
            sdp::Role::Passive => Role::Passive,
        },
        dial: peer.dial.clone(),
        proof: peer.proof.clone(),
        accept_types: peer.accept_types.clone(),
        accept_wrapped: peer.accept_wrapped.clone(),
        max_size: peer.max_size,
        direction: match peer.direction {
            sdp::Direction::SendRecv => Direction::SendRecv,
            sdp::Direction::SendOnly => Direction::SendOnly,
            sdp::Direction::RecvOnly => Direction::RecvOnly,
            sdp::Direction::Inactive => Direction::Inactive,
        },
    }
}

/// The types the answer named.
pub fn accept(accept: &sdp::AcceptTypes) -> AcceptTypes {
    AcceptTypes { types: accept.types.clone(), wrapped: accept.wrapped.clone() }
}

/// What the page's CPIM head has to say: who may stand in From, and that To is what was dialled.
///
/// MS-094, MS-099: with sender attribution the page is `message/cpim`; its From is an identity of the originator, or the
/// anonymous URI where anonymity was asked and allowed.
///
/// SH-051: `names` are what else the HSS says the originator is called, once it has.
pub fn rules(attributed: bool, arrival: &Arrival, names: &Arc<OnceLock<Vec<String>>>) -> PageRules {
    if !attributed {
        return PageRules::default();
    }
    let anonymous = arrival.anonymous;
    let from: Vec<Arc<str>> = arrival.identities.iter().map(|party| party.key.clone()).collect();
    let names = Arc::clone(names);
    let from_ok: UriTest = Arc::new(move |uri: &str| match Uri::parse(uri) {
        Ok(uri) if anonymous => uri.host().eq_ignore_ascii_case("anonymous.invalid"),
        Ok(uri) => {
            let key = uri.canonical();
            from.iter().any(|known| **known == *key)
                || names.get().is_some_and(|names| names.contains(&key))
        }
        Err(_) => false,
    });
    let to = arrival.dialled.key.clone();
    let to_ok: UriTest =
        Arc::new(move |uri: &str| Uri::parse(uri).is_ok_and(|uri| *uri.canonical() == *to));
    PageRules { cpim_required: true, from_ok: Some(from_ok), to_ok: Some(to_ok) }
}
