//! What the core calls a page and its legs in charging (ISC-025, ISC-027, ISC-031).

use super::rules::syntax::unquote;
use super::{Isc, outbound};
use crate::engine::ids::{LegId, PageId};

/// The charging names of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charged {
    /// `icid-value` of the originator's request.
    pub icid: Option<String>,
    pub icid_generated_at: Option<String>,
    /// The originator's network, as received.
    pub orig_ioi: Option<String>,
    /// Ours, as we answer.
    pub term_ioi: Option<String>,
    /// P-Charging-Function-Addresses: of the request, of the registration or of the HSS.
    pub functions: Option<String>,
}

impl Isc {
    /// Of a page that runs; empty for a core without charging.
    pub fn charged(&self, page: PageId) -> Charged {
        let Some(page) = self.pages.get(&page).filter(|_| self.house.is_ims()) else {
            return Charged::default();
        };
        let vector = page.facts.charging.as_ref();
        let of = |name: &str| {
            let raw = vector.and_then(|vector| vector.raw(name));
            raw.map(|raw| unquote(raw).into_owned())
        };
        Charged {
            icid: of("icid-value"),
            icid_generated_at: of("icid-generated-at"),
            orig_ioi: of("orig-ioi"),
            term_ioi: vector.map(|vector| self.house.ioi(Some(vector))),
            functions: page.origin.charging_functions.clone(),
        }
    }

    /// `icid-value` of a leg; `None` for a core without charging.
    pub fn charged_leg(&self, leg: LegId) -> Option<String> {
        let page = self.pages.get(&leg.page).filter(|_| self.house.is_ims())?;
        let copy = page.short.as_ref().and_then(|short| short.copies.get(&leg.n));
        let random = match copy {
            Some(copy) => copy.random,
            None => page.legs.get(&leg.n)?.random,
        };
        let kind = outbound::way(&self.house, &page.origin, page.answered).kind;
        Some(outbound::leg_icid(kind, page.facts.charging.as_ref(), leg, random))
    }
}
