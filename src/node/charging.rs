//! Charging records of one thread: the engine's events, with the names the core gave, to where records are kept.

use std::sync::Arc;

use super::watch::wall_clock;
use crate::charging::{Collector, Named, Names, Records};
use crate::engine::event::Event;
use crate::engine::ids::{LegId, PageId};
use crate::isc::Isc;

/// What makes records of events.
pub struct Charging {
    collector: Collector,
    records: Arc<Records>,
}

impl Charging {
    pub fn new(node: &Arc<str>, records: Arc<Records>) -> Self {
        Self { collector: Collector::new(Arc::clone(node)), records }
    }

    /// Takes an event in.
    pub fn event(&mut self, event: &Event, isc: &Isc) {
        let records = self.collector.event(wall_clock(), event, isc);
        self.records.keep(&records);
    }
}

impl Names for Isc {
    fn page(&self, page: PageId) -> Named {
        let charged = self.charged(page);
        Named {
            icid: charged.icid,
            icid_generated_at: charged.icid_generated_at,
            orig_ioi: charged.orig_ioi,
            term_ioi: charged.term_ioi,
            charging_functions: charged.functions,
        }
    }

    fn leg(&self, leg: LegId) -> Option<String> {
        self.charged_leg(leg)
    }
}
