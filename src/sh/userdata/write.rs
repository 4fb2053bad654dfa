//! Writing Sh-Data exactly as the schema has it.

use super::{Charging, Identities, Presence, Repository, Set, ShData};
use crate::content::xml;

impl ShData {
    /// The document, on one line.
    ///
    /// SH-035 (3GPP TS 29.328 Annex C, D): no namespace, UTF-8, elements in the order of the schema. What is absent is
    /// not written; what is empty is an element without content. `ServiceData` is written as it is: one element.
    pub fn write(&self) -> String {
        let mut out = Xml("<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned());
        out.element("Sh-Data", |out| {
            let of = |sets: &'static [Set]| {
                sets.iter().flat_map(|set| self.identities.iter().filter(move |i| i.set == *set))
            };
            for block in of(&[Set::Unsaid]) {
                out.identities(block);
            }
            for slot in &self.repository {
                out.repository(slot);
            }
            self.write_ims(out);
            let (later, deleted) = (
                of(&[Set::Registered, Set::Implicit, Set::All, Set::Alias]).collect::<Vec<_>>(),
                of(&[Set::Deleted]).collect::<Vec<_>>(),
            );
            if later.is_empty() && deleted.is_empty() {
                return;
            }
            out.element("Extension", |out| {
                later.iter().for_each(|block| out.identities(block));
                if !deleted.is_empty() {
                    out.element("Extension", |out| {
                        deleted.iter().for_each(|block| out.identities(block));
                    });
                }
            });
        });
        out.0
    }

    fn write_ims(&self, out: &mut Xml) {
        let extended = self.psi_active.is_some() || !self.dsai.is_empty();
        let stated = self.scscf.is_stated()
            || self.filter_criteria.is_stated()
            || self.state.is_some()
            || self.charging.is_some();
        if !extended && !stated {
            return;
        }
        out.element("Sh-IMS-Data", |out| {
            match &self.scscf {
                Presence::Absent => {}
                Presence::Empty => out.text("SCSCFName", ""),
                Presence::Present(name) => out.text("SCSCFName", name),
            }
            // Their content is the HSS's; that there are none can be said.
            if self.filter_criteria == Presence::Empty {
                out.text("IFCs", "");
            }
            if let Some(state) = self.state {
                out.number("IMSUserState", state as usize);
            }
            if let Some(charging) = &self.charging {
                out.charging(charging);
            }
            if !extended {
                return;
            }
            out.element("Extension", |out| {
                if let Some(active) = self.psi_active {
                    out.number("PSIActivation", usize::from(active));
                }
                if self.dsai.is_empty() {
                    return;
                }
                out.element("Extension", |out| {
                    for (tag, active) in &self.dsai {
                        out.element("DSAI", |out| {
                            out.text("DSAI-Tag", tag);
                            // SH-037: reversed.
                            out.number("DSAI-Value", usize::from(!active));
                        });
                    }
                });
            });
        });
    }
}

struct Xml(String);

impl Xml {
    fn element(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<{name}>"));
        inside(self);
        self.0.push_str(&format!("</{name}>"));
    }

    fn text(&mut self, name: &str, text: &str) {
        self.element(name, |out| out.0.push_str(&xml::escape(text)));
    }

    fn number(&mut self, name: &str, number: usize) {
        self.element(name, |out| out.0.push_str(&number.to_string()));
    }

    fn optional(&mut self, name: &str, text: Option<&String>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn repository(&mut self, slot: &Repository) {
        self.element("RepositoryData", |out| {
            out.text("ServiceIndication", &slot.service_indication);
            out.number("SequenceNumber", usize::from(slot.sequence));
            match &slot.data {
                Presence::Absent => {}
                Presence::Empty => out.text("ServiceData", ""),
                Presence::Present(data) => out.element("ServiceData", |out| out.0.push_str(data)),
            }
        });
    }

    fn charging(&mut self, charging: &Charging) {
        self.element("ChargingInformation", |out| {
            out.optional("PrimaryEventChargingFunctionName", charging.primary_event.as_ref());
            out.optional("SecondaryEventChargingFunctionName", charging.secondary_event.as_ref());
            let primary = charging.primary_collection.as_ref();
            out.optional("PrimaryChargingCollectionFunctionName", primary);
            let secondary = charging.secondary_collection.as_ref();
            out.optional("SecondaryChargingCollectionFunctionName", secondary);
        });
    }

    fn identities(&mut self, block: &Identities) {
        let name = match block.set {
            Set::Unsaid => "PublicIdentifiers",
            Set::Registered => "RegisteredIdentites",
            Set::Implicit => "ImplicitIdentities",
            Set::All => "AllIdentities",
            Set::Alias => "AliasIdentities",
            Set::Deleted => "DeletedIdentities",
        };
        self.element(name, |out| {
            block.uris.iter().for_each(|uri| out.text("IMSPublicIdentity", uri));
            block.msisdns.iter().for_each(|number| out.text("MSISDN", number));
            let wildcard = block.wildcarded_impu.as_ref();
            if block.kind.is_none() && block.wildcarded_psi.is_none() && wildcard.is_none() {
                return;
            }
            out.element("Extension", |out| {
                if let Some(kind) = block.kind {
                    out.number("IdentityType", kind as usize);
                }
                out.optional("WildcardedPSI", block.wildcarded_psi.as_ref());
                if wildcard.is_some() {
                    out.element("Extension", |out| out.optional("WildcardedIMPU", wildcard));
                }
            });
        });
    }
}
