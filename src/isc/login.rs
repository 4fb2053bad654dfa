//! Who nobody vouches for proves who it is: SIP Digest, for the core profile `sipip`.
//!
//! Start at [`login`]. Challenges are 401: this server is the end of the requests it asks credentials for, never a proxy
//! on their way (RFC 3261 §22.2; 407 of §22.3 is for those). What it passes on unserved comes from the core alone and is
//! not asked. ACK and CANCEL cannot be challenged (§22.1), requests inside a dialog belong to whoever opened it: neither
//! comes here. Follows RFC 3261 §22, RFC 7616, RFC 8760.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::inbound::Desk;
use super::rules::identity::{self, Identity};
use super::settings::{Account, Auth, Settings};
use crate::engine::input::Refusal;
use crate::sip::Flow;
use crate::sip::digest::server::{Guesser, Guesses, Nonces, Worth};
use crate::sip::digest::{Algorithm, Challenge, Credentials, Ha1};
use crate::sip::message::{Message, Method, Name};
use crate::sip::uri::Uri;

/// Nonces and guesses of the whole node. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    nonces: Nonces,
    guesses: Guesses,
}

impl Guard {
    /// With a random key.
    pub fn new(key: [u64; 4]) -> Self {
        let mut octets = [0; 32];
        for (eight, number) in octets.chunks_exact_mut(8).zip(key) {
            eight.copy_from_slice(&number.to_be_bytes());
        }
        let state = State { nonces: Nonces::new(octets), guesses: Guesses::default() };
        Self(Arc::new(Mutex::new(state)))
    }
}

/// Somebody who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The public identity the request is from, without its display name: nobody vouches for that.
    pub identity: Identity,
    /// The From hides it.
    pub hidden: bool,
}

/// Whether a request without an asserted identity may be asked for credentials.
///
/// IM-021, section L: in the profile `sipip`, where there are users. What the core asks without a user behind it, like
/// its heartbeat, needs none.
pub fn asks(settings: &Settings, message: &Message, admitted: bool) -> bool {
    if settings.profile.is_ims() || settings.auth.users.is_empty() {
        return false;
    }
    match message.method() {
        Some(Method::Invite) => true,
        Some(Method::Options | Method::Subscribe | Method::Message) => !admitted,
        _ => false,
    }
}

/// The user whose credentials a request carries.
///
/// # Errors
/// 401 with challenges, where there are no credentials, wrong ones or used ones; 403 for a From that is not the user's,
/// and for a source that guesses; 400 for credentials made for another Request-URI.
pub fn login(
    desk: &Desk<'_>,
    now: Instant,
    message: &Message,
    flow: &Flow,
) -> Result<Login, Refusal> {
    let (auth, realm) = (&desk.settings.auth, &desk.settings.realm);
    let mut state = desk.guard.0.lock().unwrap_or_else(PoisonError::into_inner);
    // Credentials for somebody else's realm are none for us (UL-029).
    let credentials = message
        .lines(Name::Authorization)
        .filter_map(Credentials::read)
        .find(|credentials| credentials.realm == *realm && !credentials.are_unproven());
    let Some(credentials) = credentials else {
        return Err(challenge(&mut state.nonces, now, auth, realm, false));
    };
    // All users come from the core's address: one who guesses must not shut out the others.
    let source = match desk.trust.admits(flow) {
        true => Guesser::behind(flow.peer.ip(), &credentials.user),
        false => Guesser::at(flow.peer.ip()),
    };
    if state.guesses.are_too_many(now, &source, auth.max_failures) {
        return Err(Refusal::new(403, "IM-021").key("auth.max_failures"));
    }
    let account = auth.users.get(&credentials.user);
    let method = message.method().unwrap_or(Method::Invite);
    if !proven(auth, account, &credentials, method.as_str()) {
        tracing::info!(peer = %flow.peer, user = ?credentials.user, "credentials are wrong");
        state.guesses.wrong(now, source);
        return Err(challenge(&mut state.nonces, now, auth, realm, false));
    }
    let (Some(account), Some(count)) = (account, credentials.count()) else {
        return Err(challenge(&mut state.nonces, now, auth, realm, false));
    };
    if !names(&credentials.uri, message.uri()) {
        // RFC 7616 §3.4.6: right, but for another request.
        return Err(Refusal::new(400, "IM-021").warn("Credentials for another Request-URI"));
    }
    let worth = state.nonces.redeem(now, realm, auth.nonce_life, &credentials.nonce, count);
    if worth == Worth::Stale {
        return Err(challenge(&mut state.nonces, now, auth, realm, true));
    }
    speaks_as(account, message.from().uri).ok_or_else(|| {
        tracing::info!(peer = %flow.peer, user = ?credentials.user, "From is not an identity of the user");
        Refusal::new(403, "IM-021").warn("From is not yours").key("auth.users")
    })
}

/// A 401 with a challenge for each algorithm, all with one nonce.
fn challenge(nonces: &mut Nonces, now: Instant, auth: &Auth, realm: &str, stale: bool) -> Refusal {
    let nonce = nonces.make(now, realm);
    let mut refusal = Refusal::new(401, "IM-021");
    for algorithm in auth.offered() {
        let challenge = Challenge {
            realm: realm.to_owned(),
            nonce: nonce.clone(),
            opaque: None,
            algorithm,
            qop: true,
            stale,
        };
        refusal.headers.push((Name::WwwAuthenticate.as_str(), challenge.write()));
    }
    refusal
}

/// Whether the response is right. A user nobody knows takes as long as a wrong password.
fn proven(auth: &Auth, account: Option<&Account>, credentials: &Credentials, method: &str) -> bool {
    let offered = credentials.algorithm.filter(|one| auth.offered().any(|other| other == *one));
    let Some(algorithm) = offered else { return false };
    let nobody = Ha1::of(Algorithm::Md5, "", "", b"");
    let known = account.and_then(|account| account.ha1.get(&algorithm));
    let right = credentials.answers(algorithm, known.unwrap_or(&nobody), method);
    right && known.is_some()
}

/// Whether the URI in the credentials is the request's.
fn names(uri: &str, request_uri: &str) -> bool {
    uri == request_uri
        || matches!((Uri::parse(uri), Uri::parse(request_uri)),
            (Ok(one), Ok(other)) if one.equals(&other))
}

/// The identity of the user a From stands for: one of the user's own, or for an anonymous From the usual one.
fn speaks_as(account: &Account, from: &str) -> Option<Login> {
    let hidden = identity::is_anonymous_from(from);
    let uri = if hidden {
        account.identities.first()
    } else {
        account.identities.iter().find(|own| names(own, from))
    }?;
    let identity = Identity { value: format!("<{uri}>"), uri: uri.clone(), display: None };
    Some(Login { identity, hidden })
}
