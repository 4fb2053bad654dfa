//! Who takes part: plain values, compared by their `key` only.

use std::sync::Arc;

/// Somebody with an address. The engine never looks inside the URI.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Party {
    /// The URI as it stands in requests.
    pub uri: Arc<str>,
    /// Equal URIs have equal keys (UL-011).
    pub key: Arc<str>,
    /// Display name, if any.
    pub display: Option<Arc<str>>,
}

/// How a recipient stands in the originator's list (RFC 5364).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum Copy {
    Bcc,
    Cc,
    To,
}

/// One entry of the originator's list, or one member of a group.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Recipient {
    pub party: Party,
    pub copy: Copy,
    /// Other recipients must not learn of this one.
    pub anonymize: bool,
    /// Header fields the list asked for and policy allows (UL-015): name and value.
    pub headers: Vec<(String, String)>,
}

/// What a page is addressed to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Target {
    /// The distinct entries of the request's recipient list, in order, the originator included if listed.
    List(Vec<Recipient>),
    /// An IM Group Identity hosted here.
    Group(Party),
}

/// Who gets the page, frozen when it was accepted (MS-084, XD-037).
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Audience {
    /// Those to invite, in order.
    pub recipients: Vec<Recipient>,
    /// Those named and not invited, each with the reason (IM-035).
    pub removed: Vec<(Party, Removal)>,
    /// The entries the history list is built from (UL-021..UL-023); empty for groups.
    pub history: Vec<Recipient>,
    /// By key, recipients whose own documents decline: they are not invited, and fail like others who refuse.
    pub declined: Vec<(Arc<str>, Declined)>,
    /// What the originator is to be warned of with the answer, in words (XD-024).
    pub warnings: Vec<String>,
}

/// What a recipient's own documents say against a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Declined {
    /// Access rules reject the sender (IM-090).
    Rejected,
    /// The service is switched off (IM-091).
    Inactive,
}

impl Declined {
    /// SIP status.
    pub fn status(self) -> u16 {
        match self {
            Self::Rejected => 403,
            Self::Inactive => 480,
        }
    }

    /// The rule that decided, for the log.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Rejected => "IM-090",
            Self::Inactive => "IM-091",
        }
    }

    /// For operators; nobody else is told that it was a rule.
    pub fn text(self) -> &'static str {
        match self {
            Self::Rejected => "declined by the recipient's access rules",
            Self::Inactive => "the recipient has switched the service off",
        }
    }
}

/// Why somebody named in the list is not invited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Removal {
    /// The originator's own identity (UL-013).
    Originator,
    /// Named before (UL-010).
    Duplicate,
    /// Not allowed by policy (IM-035, UL-032).
    Barred,
    /// Scheme or form that cannot be routed (UL-014).
    Unroutable,
    /// A group inside a list or group (UL-016).
    NestedGroup,
    /// Not registered at the moment (`im.check_registration`).
    Away,
    /// Our own factory (UL-034) or an address literal (UL-033).
    Refused,
}
