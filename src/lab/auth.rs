//! How a phone proves who it is: SIP Digest with a password, or AKA with the secrets of a SIM.
//!
//! Start at [`Auth`], what the phone was given; [`Keyring`] answers challenges with it. For AKA it checks the network's
//! MAC and takes any sequence number: it keeps none, so it never asks for a new one.
//! Follows RFC 3261 §22, RFC 3310, and TS 24.229 5.1.1.2 for the first REGISTER.

use std::fmt;

use super::milenage::{self, Keys};
use super::token;
use crate::sip::digest::{self, Algorithm, Challenge, Client};
use crate::sip::message::{Message, Name};

/// A private identity and its secret. Never shows the secret.
#[derive(Clone)]
pub struct Auth {
    user: String,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    Password(String),
    Aka(Keys),
}

impl Auth {
    /// From `USER:PASS`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn password(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').ok_or("USER:PASS is wanted")?;
        Ok(Self { user: private(user)?, secret: Secret::Password(password.to_owned()) })
    }

    /// From `USER:K:OPC`, both keys in hexadecimal.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn aka(text: &str) -> Result<Self, String> {
        let mut parts = text.rsplitn(3, ':');
        let (opc, k, user) = (parts.next(), parts.next(), parts.next());
        let (Some(opc), Some(k), Some(user)) = (opc, k, user) else {
            return Err("USER:K:OPC is wanted".to_owned());
        };
        let keys = Keys::read(k, opc).ok_or("K and OPC are 32 hexadecimal digits each")?;
        Ok(Self { user: private(user)?, secret: Secret::Aka(keys) })
    }

    /// The private identity.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What makes responses to this challenge.
    fn answer(&self, challenge: Challenge) -> Result<Client, String> {
        match &self.secret {
            Secret::Password(_) if challenge.algorithm == Algorithm::AkaV1Md5 => {
                Err("the core asks for AKA, and there is only a password".to_owned())
            }
            Secret::Password(password) => {
                Ok(Client::new(&self.user, password.as_bytes(), challenge))
            }
            Secret::Aka(keys) if challenge.algorithm == Algorithm::AkaV1Md5 => {
                let res = milenage::answer(keys, &challenge.nonce).map_err(str::to_owned)?;
                Ok(Client::new(&self.user, &res, challenge))
            }
            Secret::Aka(_) => Err("the core asks for a password, and there is only AKA".to_owned()),
        }
    }
}

/// A name that needs no escapes between quotes.
fn private(user: &str) -> Result<String, String> {
    let plain = user.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    if user.is_empty() || !plain {
        return Err("a private identity has no spaces, quotes or backslashes".to_owned());
    }
    Ok(user.to_owned())
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A header field to send.
pub(super) type Field = (&'static str, String);

/// Answers challenges, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Keyring {
    auth: Option<Auth>,
    current: Option<(&'static str, Client)>,
}

impl Keyring {
    pub(super) fn new(auth: Option<Auth>) -> Self {
        Self { auth, current: None }
    }

    /// Takes the challenge of a 401 or 407. True if its nonce is new only because the last one was too old.
    ///
    /// # Errors
    /// Why it cannot be answered.
    pub(super) fn challenged(&mut self, response: &Message) -> Result<bool, String> {
        let auth = self.auth.as_ref().ok_or("the core asks for credentials, and there are none")?;
        let (name, own) = match response.status() {
            Some(407) => (Name::ProxyAuthenticate, Name::ProxyAuthorization),
            _ => (Name::WwwAuthenticate, Name::Authorization),
        };
        // RFC 8760 §2.4: the first one we can answer is the one the server likes best.
        let challenge = response.lines(name).find_map(Challenge::read);
        let challenge =
            challenge.ok_or("the core asks for credentials of a kind we cannot make")?;
        let stale = challenge.stale;
        self.current = Some((own.as_str(), auth.answer(challenge)?));
        Ok(stale)
    }

    /// Credentials for one more request, if there is a challenge to answer.
    pub(super) fn field(&mut self, method: &str, uri: &str) -> Option<Field> {
        let (name, client) = self.current.as_mut()?;
        Some((name, client.credentials(method, uri, &token(8))))
    }

    /// What a REGISTER carries: the answer to the last challenge, else who we are.
    pub(super) fn register_field(&mut self, realm: &str, uri: &str) -> Option<Field> {
        let user = self.auth.as_ref()?.user.clone();
        let known = self.field("REGISTER", uri);
        Some(
            known.unwrap_or_else(|| {
                (Name::Authorization.as_str(), digest::unproven(&user, realm, uri))
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_phone_is_given() {
        let password = Auth::password("alice@ims.test:pass:word").expect("a user and a password");
        assert_eq!(password.user(), "alice@ims.test");
        assert!(matches!(&password.secret, Secret::Password(word) if word == "pass:word"));
        assert!(!format!("{password:?}").contains("word"));
        let k = "0".repeat(32);
        let aka = Auth::aka(&format!("carol@ims.test:{k}:{k}")).expect("a user and two keys");
        assert_eq!(aka.user(), "carol@ims.test");
        for wrong in ["alice", ":p", "a b:p", "a\"b:p"] {
            assert!(Auth::password(wrong).is_err(), "{wrong}");
        }
        for wrong in ["carol:00:00", &format!("{k}:{k}"), &format!("carol:{k}:{}", "g".repeat(32))]
        {
            assert!(Auth::aka(wrong).is_err(), "{wrong}");
        }
    }
}
