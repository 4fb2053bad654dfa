//! What the rest of the server asks, in its own words.

use std::sync::Arc;

use super::cache::{Slot, Value};
use super::data::{Data, IdentitySet, Subject};
use super::pull::{Need, Use};
use super::{Client, Known};
use crate::sh::overload::Class;
use crate::sh::userdata::{Charging, UserState};

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    Data(T),
    /// There is none, or nobody here knows the user.
    Absent,
    /// Nobody could say (SH-051).
    Unavailable,
}

impl<T> Answer<T> {
    /// The data, if that is what came.
    pub fn data(self) -> Option<T> {
        match self {
            Self::Data(data) => Some(data),
            Self::Absent | Self::Unavailable => None,
        }
    }

    fn of(known: Known, take: impl FnOnce(Value) -> Option<T>) -> Self {
        match known {
            Known::Value(value) => take(value).map_or(Self::Absent, Self::Data),
            Known::Absent => Self::Absent,
            Known::Unavailable => Self::Unavailable,
        }
    }
}

/// What a permission is good for, as far as asking shows it (SH-054).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    pub reference: u32,
    pub name: &'static str,
    /// `data`, `absent` or `unavailable`.
    pub pull: &'static str,
}

impl Client {
    /// All names of a user: those registered together and those that share everything (10). `ownership`: to decide whose
    /// an identity is, for which nothing old will do.
    pub async fn names(self: &Arc<Self>, user: &Subject, ownership: bool) -> Answer<Vec<String>> {
        let data = [IdentitySet::Implicit, IdentitySet::Alias].map(Data::Identities);
        let usage = if ownership { Use::Ownership } else { Use::Ordinary };
        let known = self.known(user, &data, Need::Once, usage, Class::Page).await;
        let mut names: Vec<String> = Vec::new();
        let mut missing = false;
        for known in known {
            match known {
                Known::Value(Value::Identities(found)) => {
                    names.extend(
                        found
                            .iter()
                            .filter(|name| !names.contains(name))
                            .cloned()
                            .collect::<Vec<_>>(),
                    );
                }
                Known::Unavailable => missing = true,
                _ => {}
            }
        }
        match (names.is_empty(), missing) {
            (false, _) => Answer::Data(names),
            (true, true) => Answer::Unavailable,
            (true, false) => Answer::Absent,
        }
    }

    /// Whether a user is registered (11). `member`: of a group, and so asked about again.
    pub async fn state(self: &Arc<Self>, user: &Subject, member: bool) -> Answer<UserState> {
        let need = if member { Need::Lasting } else { Need::Once };
        let known = self.one(user, Data::UserState, need, Class::StateCheck).await;
        Answer::of(known, |value| match value {
            Value::UserState(state) => Some(state),
            _ => None,
        })
    }

    /// The S-CSCF that serves a user or service (12); absent: none does.
    pub async fn serving_cscf(self: &Arc<Self>, subject: &Subject) -> Answer<Arc<str>> {
        let known = self.one(subject, Data::ServingCscf, Need::Once, Class::Page).await;
        Answer::of(known, |value| match value {
            Value::ServingCscf(name) => name,
            _ => None,
        })
    }

    /// The service settings of a user, from the slot `sh.service_indication` (0).
    pub async fn service_settings(self: &Arc<Self>, user: &Subject) -> Answer<Slot> {
        let data = Data::Repository(Arc::clone(&self.settings.service_indication));
        let known = self.one(user, data, Need::Lasting, Class::Settings).await;
        Answer::of(known, |value| match value {
            Value::Repository(slot) => Some(slot),
            _ => None,
        })
    }

    /// Where to send charging data of a user or service (16).
    pub async fn charging(self: &Arc<Self>, subject: &Subject) -> Answer<Arc<Charging>> {
        let known = self.one(subject, Data::Charging, Need::Once, Class::Page).await;
        Answer::of(known, |value| match value {
            Value::Charging(charging) => Some(charging),
            _ => None,
        })
    }

    /// Whether a public service identity is in use (18).
    pub async fn psi_active(self: &Arc<Self>, service: &Subject) -> Answer<bool> {
        let known = self.one(service, Data::PsiActivation, Need::Once, Class::Page).await;
        Answer::of(known, |value| match value {
            Value::PsiActivation(active) => Some(active),
            _ => None,
        })
    }

    /// Asks everything once about a test identity: what the HSS does not permit is an alarm in the log, and all of it
    /// comes back.
    ///
    /// SH-054 (3GPP TS 29.328 §6.2).
    pub async fn probe(self: &Arc<Self>, user: &Subject) -> Vec<Probed> {
        let all = [
            Data::Repository(Arc::clone(&self.settings.service_indication)),
            Data::Identities(IdentitySet::Alias),
            Data::UserState,
            Data::ServingCscf,
            Data::Charging,
        ];
        let mut probed = Vec::with_capacity(all.len());
        for data in all {
            let (reference, name) = (data.reference(), data.name());
            let pull = match self.one(user, data, Need::Once, Class::Settings).await {
                Known::Value(_) => "data",
                Known::Absent => "absent",
                Known::Unavailable => "unavailable",
            };
            tracing::info!(
                reference,
                name,
                pull,
                rule = "SH-054",
                "what the HSS lets this server read"
            );
            probed.push(Probed { reference, name, pull });
        }
        probed
    }

    async fn one(
        self: &Arc<Self>,
        subject: &Subject,
        data: Data,
        need: Need,
        class: Class,
    ) -> Known {
        let known = self.known(subject, &[data], need, Use::Ordinary, class).await;
        known.into_iter().next().unwrap_or(Known::Unavailable)
    }
}
