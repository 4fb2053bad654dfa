//! Sh-Data: what the HSS tells and is told of a user, as values and as XML (3GPP TS 29.328 Annex C, D).
//!
//! Start at [`ShData`]; [`ShData::parse`] reads what others write, leniently, [`ShData::write`] writes exactly what the
//! schema allows. Only what this server asks for has a field; the rest is passed over. Absent is not empty: see
//! [`Presence`].

mod read;
mod write;

pub use read::BadData;

/// Deepest nesting that is read (SH-035).
pub const MAX_DEPTH: usize = 32;
/// Largest document that is read, in octets (SH-035).
pub const MAX_OCTETS: usize = 256 * 1024;

/// What a document says of one thing.
///
/// SH-038 (3GPP TS 29.328 §6.1.1.1): no element is no statement, or no data; an element without content says that there
/// is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Presence<T> {
    /// There is no element.
    #[default]
    Absent,
    /// There is one, with nothing in it.
    Empty,
    /// There is one with this in it.
    Present(T),
}

impl<T> Presence<T> {
    /// What is there.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent | Self::Empty => None,
        }
    }

    /// Whether the document says anything of it.
    pub fn is_stated(&self) -> bool {
        !matches!(self, Self::Absent)
    }
}

/// One document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShData {
    /// Identities, in blocks of one type and set each.
    pub identities: Vec<Identities>,
    /// Slots of the repository (Data-Reference 0).
    pub repository: Vec<Repository>,
    /// The S-CSCF that serves the user (12); empty: none.
    pub scscf: Presence<String>,
    /// How many initial filter criteria there are (13).
    pub filter_criteria: Presence<usize>,
    /// Whether the user is registered (11).
    pub state: Option<UserState>,
    /// Where to send charging data (16).
    pub charging: Option<Charging>,
    /// Whether a public service identity is in use (18).
    pub psi_active: Option<bool>,
    /// Switches of filter criteria (19): the tag, and whether it is active.
    pub dsai: Vec<(String, bool)>,
}

/// One slot of the repository.
#[derive(Clone, PartialEq, Eq)]
pub struct Repository {
    pub service_indication: String,
    pub sequence: u16,
    /// The XML inside `ServiceData`, as written; absent: there is no data, or it is to be deleted.
    pub data: Presence<String>,
}

/// SH-056: what users have stored is printed nowhere.
impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let data = match &self.data {
            Presence::Absent => "absent".to_owned(),
            Presence::Empty => "empty".to_owned(),
            Presence::Present(data) => format!("{} octets", data.len()),
        };
        write!(f, "Repository({:?}, {}, {data})", self.service_indication, self.sequence)
    }
}

/// Identities of one type that belong together.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Identities {
    pub set: Set,
    /// SIP and tel URIs, as written.
    pub uris: Vec<String>,
    /// Numbers, digits only.
    pub msisdns: Vec<String>,
    /// What all of them are; not said: public user identities.
    pub kind: Option<IdentityType>,
    pub wildcarded_psi: Option<String>,
    pub wildcarded_impu: Option<String>,
}

/// SH-056.
impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (uris, numbers) = (self.uris.len(), self.msisdns.len());
        write!(f, "Identities({:?}, {:?}, {uris} URIs, {numbers} numbers)", self.set, self.kind)
    }
}

/// Which identities a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Set {
    /// `PublicIdentifiers` below the root, as older servers answer whatever was asked.
    #[default]
    Unsaid,
    Registered,
    Implicit,
    All,
    Alias,
    /// They are no longer (SH-046).
    Deleted,
}

/// SH-037 (3GPP TS 29.328 Table D.1): how registered a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserState {
    NotRegistered,
    Registered,
    /// Not registered, but served.
    Unregistered,
    /// On the way from one to another.
    AuthenticationPending,
}

/// SH-037 (3GPP TS 29.328 Table D.1): what an identity stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityType {
    User,
    DistinctPsi,
    WildcardedPsi,
    WildcardedImpu,
}

/// Names of charging functions, `aaa://` URIs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Charging {
    pub primary_event: Option<String>,
    pub secondary_event: Option<String>,
    pub primary_collection: Option<String>,
    pub secondary_collection: Option<String>,
}

impl UserState {
    const ALL: [Self; 4] =
        [Self::NotRegistered, Self::Registered, Self::Unregistered, Self::AuthenticationPending];
}

impl IdentityType {
    const ALL: [Self; 4] =
        [Self::User, Self::DistinctPsi, Self::WildcardedPsi, Self::WildcardedImpu];
}

#[cfg(test)]
mod tests;
