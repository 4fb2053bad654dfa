//! Ranges of identities the HSS knows as one.

use serde::{Deserialize, Serialize};

use crate::sh::codec::{Avp, Message};
use crate::sh::dictionary as d;
use crate::sh::identity::Identity;

/// The range an identity matched, as the HSS writes it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Wildcard {
    /// Of public service identities.
    Psi(String),
    /// Of public user identities.
    Impu(String),
}

/// SH-056.
impl std::fmt::Debug for Wildcard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wildcard(..)")
    }
}

impl Wildcard {
    /// The one a message names; never two at once (SH-055).
    pub fn of(message: &Message) -> Option<Self> {
        let text = |def| {
            let text = message.find(def)?.as_text().ok()?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        text(&d::WILDCARDED_PUBLIC_IDENTITY)
            .map(Self::Psi)
            .or_else(|| text(&d::WILDCARDED_IMPU).map(Self::Impu))
    }

    /// The AVP that names it.
    pub fn avp(&self) -> Avp {
        match self {
            Self::Psi(text) => Avp::text(&d::WILDCARDED_PUBLIC_IDENTITY, text),
            Self::Impu(text) => Avp::text(&d::WILDCARDED_IMPU, text),
        }
    }

    /// What everything known of the range is kept under.
    pub fn identity(&self) -> Identity {
        let (Self::Psi(text) | Self::Impu(text)) = self;
        Identity::wildcard(text)
    }
}
