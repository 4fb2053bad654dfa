//! Application usages: which kinds of documents this server keeps, and what each of them has to be (RFC 4825 §5).
//!
//! Start at [`Usage::of`]. One line a usage: its id, media type, default document namespace, root and schema. `xcap-caps`
//! and the directory are made by the server itself (see `generated`) and are not in the table.

use roxmltree::{Document, Node};

use super::groups::{self, COMMON, Flaw, LIST_SERVICE, LISTS};
use super::path::{
    ACCESS_RULES, ACCESS_RULES_TYPE, GROUPS, RESOURCE_LISTS, SERVICE_SETTINGS,
    SERVICE_SETTINGS_TYPE,
};
use super::shape::{self, Kind, RLS_SERVICES};
use super::store::{GROUP_TYPE, LIST_TYPE};
use crate::content::service_settings::{self, ServiceSettings};
use crate::content::xml::Bounds;

/// Application usage of services for presence of lists.
pub const RLS: &str = "rls-services";
/// Application usage of the groups a user belongs to.
pub const GROUP_USAGE_LIST: &str = "org.openmobilealliance.group-usage-list";

/// One application usage.
pub struct Usage {
    /// Its id, the first segment of a path (XD-001).
    pub auid: &'static str,
    /// Media type of its documents (XD-006).
    pub content_type: &'static str,
    /// Of unprefixed names in selectors (XD-005), and of the root.
    pub namespace: &'static str,
    root: &'static str,
    kind: &'static Kind,
}

/// Every usage whose documents are kept here.
pub static USAGES: [Usage; 6] = [
    Usage {
        auid: GROUPS,
        content_type: GROUP_TYPE,
        namespace: LIST_SERVICE,
        root: "group",
        kind: &shape::GROUP,
    },
    Usage {
        auid: RESOURCE_LISTS,
        content_type: LIST_TYPE,
        namespace: LISTS,
        root: "resource-lists",
        kind: &shape::RESOURCE_LISTS,
    },
    Usage {
        auid: RLS,
        content_type: "application/rls-services+xml",
        namespace: RLS_SERVICES,
        root: "rls-services",
        kind: &shape::RLS,
    },
    Usage {
        auid: ACCESS_RULES,
        content_type: ACCESS_RULES_TYPE,
        namespace: COMMON,
        root: "ruleset",
        kind: &shape::RULESET,
    },
    Usage {
        auid: GROUP_USAGE_LIST,
        content_type: "application/vnd.oma.group-usage-list+xml",
        namespace: LISTS,
        root: "resource-lists",
        kind: &shape::RESOURCE_LISTS,
    },
    Usage {
        auid: SERVICE_SETTINGS,
        content_type: SERVICE_SETTINGS_TYPE,
        namespace: service_settings::NAMESPACE,
        root: "service-settings",
        kind: &shape::ANY,
    },
];

impl Usage {
    /// The usage with that id; case matters.
    pub fn of(auid: &str) -> Option<&'static Self> {
        USAGES.iter().find(|usage| usage.auid == auid)
    }

    /// Whether a document can be read as one of this usage at all: safe XML with the right root (XD-047). Gives its text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read<'a>(
        &self,
        bytes: &'a [u8],
        bounds: &Bounds,
    ) -> Result<(&'a str, Document<'a>), Flaw> {
        let text = groups::checked_within(bytes, bounds)?;
        let tree = Document::parse(text).map_err(|_| Flaw::NotWellFormed("not well-formed XML"))?;
        let root = tree.root_element().tag_name();
        if (root.namespace(), root.name()) != (Some(self.namespace), self.root) {
            return Err(Flaw::Schema("the root is none of this usage"));
        }
        Ok((text, tree))
    }

    /// Whether a document fits the schema of the usage (XD-045).
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self, tree: &Document<'_>) -> Result<(), Flaw> {
        shape::check(tree, (self.namespace, self.root), self.kind)?;
        if self.auid == SERVICE_SETTINGS {
            let settings = ServiceSettings::parse(tree.input_text().as_bytes())?;
            return settings.flaw.map_or(Ok(()), |what| Err(Flaw::Schema(what)));
        }
        Ok(())
    }

    /// Whether a new child belongs before one that is there, by the schema: see `edit`.
    pub fn comes_before(&self, parent: Node<'_, '_>, new: Name<'_>, there: Name<'_>) -> bool {
        shape::comes_before(self.kind, parent, new, there)
    }
}

type Name<'a> = (Option<&'a str>, &'a str);
