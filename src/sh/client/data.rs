//! What can be asked about whom: data references, what they are asked with, and the keys of cache and subscriptions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::sh::identity::Identity;

/// Which identities of a user (Identity-Set).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IdentitySet {
    /// Those registered together.
    Implicit,
    /// Those that share everything.
    Alias,
}

impl IdentitySet {
    /// Its number in the Identity-Set AVP.
    pub fn number(self) -> u32 {
        match self {
            Self::Implicit => 2,
            Self::Alias => 3,
        }
    }
}

/// One piece of data, as 3GPP TS 29.328 table 7.6.1 has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Data {
    /// A slot of the repository, by its service indication.
    Repository(Arc<str>),
    Identities(IdentitySet),
    UserState,
    ServingCscf,
    Charging,
    PsiActivation,
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Pull,
    Update,
    Subscribe,
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    User,
    /// A public service identity.
    Service,
}

/// A user or a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    pub identity: Identity,
    pub kind: Kind,
}

impl Subject {
    /// A user, by SIP or tel URI; `None` for anything else.
    pub fn user(uri: &str) -> Option<Self> {
        Some(Self { identity: Identity::canonical(uri)?, kind: Kind::User })
    }

    /// A public service identity.
    pub fn service(uri: &str) -> Option<Self> {
        Some(Self { identity: Identity::canonical(uri)?, kind: Kind::Service })
    }
}

/// Name of one cached value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Canonical, or the wildcard it matched.
    pub identity: Identity,
    pub data: Data,
}

impl Data {
    /// The number in the Data-Reference AVP.
    pub fn reference(&self) -> u32 {
        match self {
            Self::Repository(_) => 0,
            Self::Identities(_) => 10,
            Self::UserState => 11,
            Self::ServingCscf => 12,
            Self::Charging => 16,
            Self::PsiActivation => 18,
        }
    }

    /// The name of the reference, for alarms and the list of permissions.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Repository(_) => "RepositoryData",
            Self::Identities(_) => "IMSPublicIdentity",
            Self::UserState => "IMSUserState",
            Self::ServingCscf => "S-CSCFName",
            Self::Charging => "ChargingInformation",
            Self::PsiActivation => "PSIActivation",
        }
    }

    /// Whether it exists for that kind of subject.
    ///
    /// SH-039 (3GPP TS 29.328 table 7.6.1): a reference the key does not allow makes a whole request fail.
    pub fn is_of(&self, kind: Kind) -> bool {
        match self {
            Self::UserState => kind == Kind::User,
            Self::PsiActivation => kind == Kind::Service,
            _ => true,
        }
    }

    /// Whether it is subscribed to where somebody needs it for longer (section 11 of the rules).
    pub fn is_subscribed(&self) -> bool {
        matches!(self, Self::Repository(_) | Self::Identities(_) | Self::UserState)
    }

    /// Whether it changes as users come and go.
    pub fn is_state(&self) -> bool {
        matches!(self, Self::UserState | Self::ServingCscf)
    }
}

impl Key {
    /// The same over a restart, for the store.
    pub fn text(&self) -> String {
        let detail = match &self.data {
            Data::Repository(slot) => slot.to_string(),
            Data::Identities(set) => set.number().to_string(),
            _ => String::new(),
        };
        format!("{} {} {detail}", self.identity.as_str(), self.data.reference())
    }
}

/// SH-040 (3GPP TS 29.328 §6.1.2.1): the number to write over what is stored; `None`: there is no slot yet.
pub fn next_sequence(stored: Option<u16>) -> u16 {
    match stored {
        None => 0,
        Some(u16::MAX) => 1,
        Some(stored) => stored + 1,
    }
}

/// SH-046: whether `new` was written after `known`; the numbers go round in 1..65535, and 0 is before all of them.
pub fn is_newer(new: u16, known: u16) -> bool {
    match (new, known) {
        (0, _) => false,
        (_, 0) => true,
        _ => {
            let ahead = (u32::from(new) + 65_535 - u32::from(known)) % 65_535;
            (1..=32_767).contains(&ahead)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves SH-040.
    #[test]
    fn after_the_last_number_comes_one() {
        for (stored, next) in
            [(None, 0), (Some(0), 1), (Some(17), 18), (Some(65_534), 65_535), (Some(65_535), 1)]
        {
            assert_eq!(next_sequence(stored), next);
            // What the HSS accepts.
            if let Some(stored) = stored {
                assert!(next != 0 && u32::from(next - 1) == u32::from(stored) % 65_535);
            }
        }
    }

    /// Proves SH-046.
    #[test]
    fn numbers_are_compared_in_a_circle() {
        for (new, known, newer) in [
            (18, 17, true),
            (17, 17, false),
            (16, 17, false),
            (1, 65_535, true),
            (65_535, 1, false),
            (1, 0, true),
            (0, 65_535, false),
            (32_768, 1, true),
            (32_769, 1, false),
        ] {
            assert_eq!(is_newer(new, known), newer, "{new} after {known}");
        }
    }

    /// Proves SH-039.
    #[test]
    fn some_data_only_users_have_and_some_only_services() {
        assert!(Data::UserState.is_of(Kind::User) && !Data::UserState.is_of(Kind::Service));
        assert!(Data::PsiActivation.is_of(Kind::Service) && !Data::PsiActivation.is_of(Kind::User));
        assert!(Data::ServingCscf.is_of(Kind::Service) && Data::ServingCscf.is_of(Kind::User));
    }
}
