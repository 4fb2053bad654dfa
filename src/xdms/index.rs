//! The view `rls-services/global/index`: every service of every user in one document (RFC 4826 §4.4.8).
//!
//! Start at [`Index::insert`]. A write changes what its document has here and no more; the text of the view is made when
//! somebody asks for it (XD-046). Bounded by [`MOST`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use roxmltree::{Document as Xml, Node};
use sha2::{Digest as _, Sha256};

use super::path::{DocumentPath, Tree};
use super::selector::written_name;
use super::shape::RLS_SERVICES;
use super::store::{Document, group_key};
use super::usages::{RLS, Usage};
use crate::content::xml::{attribute, escape};

/// Most octets of all services together.
pub(super) const MOST: usize = 16 * 1024 * 1024;

/// What users' documents of services say.
#[derive(Default)]
pub(super) struct Index {
    of: BTreeMap<DocumentPath, Services>,
    holders: HashMap<String, DocumentPath>,
    octets: usize,
    /// The sum of the digests of what is in it: the tag, whatever came first.
    sum: u128,
    made: Mutex<Option<Arc<Document>>>,
}

/// The services of one document.
#[derive(Default)]
pub(super) struct Services {
    /// Identities as written.
    pub(super) uris: Vec<String>,
    /// The elements, fit to stand in another document.
    text: String,
}

impl Services {
    /// Those of a document that was checked.
    pub(super) fn of(text: &str, tree: &Xml<'_>) -> Self {
        let mut services = Self::default();
        let is = |n: &Node<'_, '_>| n.has_tag_name((RLS_SERVICES, "service"));
        for service in tree.root_element().children().filter(is) {
            services.uris.extend(attribute(service, None, "uri").map(str::to_owned));
            let element = &text[service.range()];
            let name = 1 + written_name(text, service).len();
            services.text.push_str(&element[..name]);
            // What it declares itself stays; what it inherited is said here.
            let own = attribute_names(element);
            for namespace in service.parent().iter().flat_map(Node::namespaces) {
                let name = match namespace.name() {
                    Some("xml") => continue,
                    Some(prefix) => format!("xmlns:{prefix}"),
                    None => "xmlns".to_owned(),
                };
                if !own.contains(&name.as_str()) {
                    let uri = escape(namespace.uri());
                    services.text.push_str(&format!(" {name}=\"{uri}\""));
                }
            }
            services.text.push_str(&element[name..]);
            services.text.push('\n');
        }
        services
    }

    fn digest(&self, path: &DocumentPath) -> u128 {
        let digest = Sha256::new().chain_update(path.to_string()).chain_update("\n");
        let digest = digest.chain_update(&self.text).finalize();
        let mut sixteen = [0; 16];
        sixteen.copy_from_slice(&digest[..16]);
        u128::from_be_bytes(sixteen)
    }
}

/// Names of the attributes in the start tag of an element, declarations included.
fn attribute_names(element: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = element;
    while let Some(open) = rest.find(['"', '\'', '>']) {
        let Some(quote) = rest[open..].chars().next().filter(|c| *c != '>') else { break };
        let name = rest[..open].trim_end().trim_end_matches('=').trim_end();
        names.push(name.rsplit(|c: char| c.is_ascii_whitespace()).next().unwrap_or(name));
        let Some((_, after)) = rest[open + 1..].split_once(quote) else { break };
        rest = after;
    }
    names
}

/// Its name.
pub(super) fn path() -> DocumentPath {
    DocumentPath { auid: RLS.to_owned(), tree: Tree::Global, name: vec!["index".to_owned()] }
}

impl Index {
    /// Who has the service with that key.
    pub(super) fn holder(&self, key: &str) -> Option<&DocumentPath> {
        self.holders.get(key)
    }

    /// Whether there is room for a document's services instead of those it has.
    pub(super) fn has_room(&self, path: &DocumentPath, new: &Services) -> bool {
        let old = self.of.get(path).map_or(0, |old| old.text.len());
        self.octets - old + new.text.len() <= MOST
    }

    pub(super) fn insert(&mut self, path: &DocumentPath, services: Services) {
        self.remove(path);
        self.octets += services.text.len();
        self.sum = self.sum.wrapping_add(services.digest(path));
        for key in services.uris.iter().filter_map(|uri| group_key(uri)) {
            self.holders.entry(key).or_insert_with(|| path.clone());
        }
        self.of.insert(path.clone(), services);
    }

    pub(super) fn remove(&mut self, path: &DocumentPath) {
        let Some(old) = self.of.remove(path) else { return };
        self.octets -= old.text.len();
        self.sum = self.sum.wrapping_sub(old.digest(path));
        for key in old.uris.iter().filter_map(|uri| group_key(uri)) {
            if self.holders.get(&key) == Some(path) {
                self.holders.remove(&key);
            }
        }
    }

    pub(super) fn etag(&self) -> String {
        format!("\"{:032x}\"", self.sum)
    }

    /// The view as it is now.
    pub(super) fn document(&self) -> Option<Arc<Document>> {
        let etag = self.etag();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref().filter(|made| made.etag == etag) {
            return Some(Arc::clone(made));
        }
        // The prefix is ours alone: services bring the default namespace they were written in.
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<rls:rls-services xmlns:rls=\"{RLS_SERVICES}\">\n"
        );
        self.of.values().for_each(|services| text.push_str(&services.text));
        text.push_str("</rls:rls-services>\n");
        let document = Arc::new(Document {
            path: path(),
            etag,
            content_type: Usage::of(RLS)?.content_type,
            bytes: Bytes::from(text),
            group: None,
        });
        *made = Some(Arc::clone(&document));
        Some(document)
    }
}
