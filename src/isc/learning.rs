//! What a page's requests need and neither its INVITE nor a registration told: whom somebody else may be asked about, and
//! what came of it.
//!
//! [`Isc::unknown`] says what is missing, [`Isc::learnt`] takes it. Never waits: without it everything goes as before.

use super::Isc;
use super::outbound;
use super::rules::charging;
use super::rules::route::{self, Kind};
use crate::engine::ids::PageId;
use crate::sip::uri::Uri;

/// Somebody legs leave on behalf of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behalf {
    pub uri: String,
    /// It is a public service identity.
    pub is_service: bool,
}

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unknown {
    /// Whose S-CSCF is not known (ISC-058).
    pub scscf_of: Option<Behalf>,
    /// Whose charging functions are not known (ISC-031).
    pub charging_of: Option<Behalf>,
}

/// What somebody knew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Learnt {
    pub scscf: Option<String>,
    /// Charging collection functions, the primary one first.
    pub collection: Vec<String>,
    /// Event charging functions, the primary one first.
    pub event: Vec<String>,
}

impl Isc {
    /// What the legs of a page could do with.
    pub fn unknown(&self, page: PageId) -> Unknown {
        let Some(state) = self.pages.get(&page) else { return Unknown::default() };
        if !self.house.settings.profile.is_ims() {
            return Unknown::default();
        }
        let origin = &state.origin;
        let of = |kind| match kind {
            Kind::Service => Behalf { uri: origin.dialled.uri.to_string(), is_service: true },
            Kind::User | Kind::Dialog | Kind::Plain => {
                Behalf { uri: origin.acting_for.clone(), is_service: false }
            }
        };
        let how = outbound::leaving(&self.house, origin, state.answered);
        let charging_of = origin.charging_functions.is_none().then(|| of(route::fanout(how).kind));
        Unknown { scscf_of: route::lacks_scscf(how).map(of), charging_of }
    }

    /// Takes what was found out, before the first leg is invited.
    ///
    /// ISC-031: what came over ISC counts where it did.
    pub fn learnt(&mut self, page: PageId, learnt: &Learnt) {
        let Some(state) = self.pages.get_mut(&page) else { return };
        let good = |uri: &&String| Uri::parse(uri).is_ok_and(|uri| uri.is_sip());
        state.origin.asked_scscf = learnt.scscf.as_ref().filter(good).cloned();
        if state.origin.charging_functions.is_none() {
            state.origin.charging_functions =
                charging::functions(&learnt.collection, &learnt.event);
        }
    }
}
