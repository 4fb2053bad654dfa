//! Documents on disk: what the embedded XDMS keeps (below `data_dir/xdms`).
//!
//! Start at [`Store::open`], [`Store::get`], [`Store::put`], [`Store::change`]. Everything is in memory as well, so reading
//! never waits for the disk; a write is on the `disk` before it can be seen, and told to the `feed` behind it. What a
//! document has to be is in `usages`. Knows no HTTP: see `server`. XD-044 to XD-048.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use roxmltree::{Document as Xml, Node};
use sha2::{Digest as _, Sha256};

use super::disk::{self, Disk, Failed};
use super::edit::{self, Edit};
use super::feed::{Changes, Feed};
use super::groups::{BOUNDS, Flaw, Group, LIST_SERVICE, LISTS, ListService, Member};
use super::index::{self, Index, Services};
use super::path::{DocumentPath, GROUPS, Tree};
use super::selector::Selector;
use super::usages::{RLS, Usage};
use crate::content::xml::Bounds;
use crate::sip::uri::Uri;

/// The type of group documents.
pub const GROUP_TYPE: &str = "application/vnd.oma.poc.groups+xml";
/// The type of list documents.
pub const LIST_TYPE: &str = "application/resource-lists+xml";

/// Bounds of the store (XD-048).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Documents of one user.
    pub per_user: usize,
    /// Documents in all.
    pub documents: usize,
    /// Octets of all documents together.
    pub bytes: u64,
    /// Members of one group or one list document.
    pub members: usize,
    /// Of one document (XD-047).
    pub bounds: Bounds,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            per_user: 50,
            documents: 100_000,
            bytes: 512 * 1024 * 1024,
            members: 1000,
            bounds: BOUNDS,
        }
    }
}

/// One document as it is kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Document {
    /// Its name in its owner's tree.
    pub path: DocumentPath,
    /// Opaque, with its quotes (XD-008).
    pub etag: String,
    /// Media type.
    pub content_type: &'static str,
    /// As it was written.
    pub bytes: Bytes,
    /// What a group document says.
    pub group: Option<Arc<Group>>,
}

impl Document {
    fn services(&self) -> impl Iterator<Item = &ListService> {
        self.group.iter().flat_map(|group| &group.services)
    }

    /// XD-018: a group is shown to its owner, its members and the group itself.
    pub fn is_shown_to(&self, identity: &str) -> bool {
        let is = |user: &str| same_user(identity, user);
        let owns = matches!(&self.path.tree, Tree::User(owner) if is(owner));
        let member = |member: &Member| matches!(member, Member::Entry(uri) if is(uri));
        owns || self.services().any(|s| is(&s.uri) || s.list.iter().any(member))
    }
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// There was none before.
    pub created: bool,
    /// The tag before, for the audit log.
    pub before: Option<String>,
    /// The tag now.
    pub etag: String,
}

/// When a write may happen (XD-009).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// `If-Match`.
    pub matches: Option<Tags>,
    /// `If-None-Match`.
    pub none_matches: Option<Tags>,
}

/// The value of a conditional header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    /// `*`.
    Any,
    /// These, with their quotes.
    These(Vec<String>),
}

impl Tags {
    /// Reads a header value.
    pub fn parse(text: &str) -> Self {
        if text.trim() == "*" {
            return Self::Any;
        }
        Self::These(text.split(',').map(|tag| tag.trim().to_owned()).collect())
    }

    fn has(&self, current: Option<&str>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::These(tags), Some(current)) => tags.iter().any(|tag| tag == current),
        }
    }
}

impl Condition {
    /// Whether a request on a document with that tag may go on.
    pub fn holds(&self, current: Option<&str>) -> bool {
        self.matches.as_ref().is_none_or(|tags| tags.has(current))
            && !self.none_matches.as_ref().is_some_and(|tags| tags.has(current))
    }
}

/// Why a write is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// 404 on DELETE, or a usage that is not served.
    #[error("there is no such document")]
    NotFound,
    /// 412.
    #[error("the precondition does not hold")]
    Precondition,
    /// 409: the document itself.
    #[error("{0}")]
    Flaw(#[from] Flaw),
    /// 409 or 404: the node.
    #[error("{0}")]
    Node(edit::Refusal),
    /// 409 `no-parent`: no such place.
    #[error("there is no such directory")]
    NoParent,
    /// 409 `uniqueness-failure`: another document has the identity; these are free.
    #[error("the identity is in use")]
    Taken {
        /// What has to be unique.
        field: &'static str,
        free: Vec<String>,
    },
    /// The disk.
    #[error("the document cannot be stored")]
    Disk(#[from] io::Error),
}

impl From<Failed> for Refused {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Name => Flaw::Constraint("the name of the document is too long").into(),
            Failed::Disk(error) => Self::Disk(error),
        }
    }
}

impl From<edit::Refusal> for Refused {
    fn from(refusal: edit::Refusal) -> Self {
        match refusal {
            edit::Refusal::NotFound => Self::NotFound,
            edit::Refusal::Flaw(flaw) => Self::Flaw(flaw),
            other => Self::Node(other),
        }
    }
}

/// All documents of this node.
pub struct Store {
    /// Where documents are kept; without one they end with the process.
    disk: Option<Disk>,
    quotas: Quotas,
    /// One writer at a time, without keeping readers out while the disk works.
    writer: Mutex<()>,
    tables: RwLock<Tables>,
    feed: Feed,
}

#[derive(Default)]
struct Tables {
    documents: BTreeMap<DocumentPath, Arc<Document>>,
    /// Documents on the disk that cannot be read.
    unreadable: BTreeSet<DocumentPath>,
    /// How many documents each user has.
    owned: HashMap<String, usize>,
    /// Key of a group identity -> the document that has it.
    groups: HashMap<String, DocumentPath>,
    /// What documents of services say.
    index: Index,
    bytes: u64,
}

/// A document that has passed, and what of it goes into the tables.
struct Admitted {
    document: Document,
    services: Option<Services>,
}

impl Store {
    /// Opens the store in a directory and reads what is there. Leftovers of interrupted writes are removed; a document
    /// that cannot be read is left where it is, reported in the log and in [`Store::unreadable`], and set aside when
    /// somebody writes it anew.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(directory: impl Into<PathBuf>, quotas: Quotas) -> io::Result<Self> {
        let (disk, found) = Disk::open(directory.into())?;
        let mut tables = Tables::default();
        for (path, file) in found {
            let read = fs::read(&file).map_err(|error| error.to_string()).and_then(|bytes| {
                // What an earlier version took is kept, whatever the schema says today.
                read(&path, Bytes::from(bytes), &quotas.bounds).map_err(|why| why.to_string())
            });
            match read {
                Ok(admitted) => drop(tables.insert(admitted)),
                Err(why) => {
                    tracing::error!(file = %file.display(), why, "a stored document cannot be read");
                    tables.unreadable.insert(path);
                }
            }
        }
        let (writer, tables) = (Mutex::new(()), RwLock::new(tables));
        Ok(Self { disk: Some(disk), quotas, writer, tables, feed: Feed::default() })
    }

    /// A store that keeps nothing beyond the process.
    pub fn in_memory(quotas: Quotas) -> Self {
        let (writer, tables) = (Mutex::new(()), RwLock::new(Tables::default()));
        Self { disk: None, quotas, writer, tables, feed: Feed::default() }
    }

    /// Takes over documents of a tree that mirrors the XCAP tree, where there is none of that name yet. A group that
    /// stands under `global/byGroupID` goes into the tree of `owner`. Gives how many were taken, and for each file that
    /// was not, why.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub fn import(&self, from: &Path, owner: &str) -> io::Result<(usize, Vec<(PathBuf, String)>)> {
        let mut taken = 0;
        let mut refused = Vec::new();
        for (path, file) in disk::tree(from)? {
            let Some(path) = path else {
                refused.push((file, "no XCAP path".to_owned()));
                continue;
            };
            let path = match path.group_identity() {
                Some(uri) => DocumentPath::group(owner, &document_name(uri)),
                None => path,
            };
            if self.get(&path).is_some() {
                continue;
            }
            if self.is_unreadable(&path) {
                refused.push((file, "the stored one cannot be read".to_owned()));
                continue;
            }
            match self.put(&path, Bytes::from(fs::read(&file)?), &Condition::default()) {
                Ok(_) => taken += 1,
                Err(why) => refused.push((file, why.to_string())),
            }
        }
        Ok((taken, refused))
    }

    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The document of that name. `global/byGroupID` and `rls-services/global/index` are views of the owners' trees
    /// (XD-046).
    pub fn get(&self, path: &DocumentPath) -> Option<Arc<Document>> {
        let tables = self.tables();
        if let Some(uri) = path.group_identity() {
            return tables.documents.get(tables.groups.get(&group_key(uri)?)?).cloned();
        }
        if path.auid == RLS && *path == index::path() {
            return tables.index.document();
        }
        tables.documents.get(path).cloned()
    }

    /// Documents that are on the disk and cannot be read.
    pub fn unreadable(&self) -> Vec<DocumentPath> {
        self.tables().unreadable.iter().cloned().collect()
    }

    /// Whether the document is one of [`Store::unreadable`].
    pub fn is_unreadable(&self, path: &DocumentPath) -> bool {
        self.tables().unreadable.contains(path)
    }

    /// The tag of the document of that name, with its quotes.
    pub fn etag(&self, path: &DocumentPath) -> Option<String> {
        self.get(path).map(|document| document.etag.clone())
    }

    /// Every change that is committed from now on.
    pub fn watch(&self) -> Changes {
        self.feed.watch()
    }

    /// Whether a user may read the document, if there is one. XD-018: everybody's own tree is theirs; a group is shown to
    /// its owner, its members and the group itself; the index of services is the server's alone.
    pub fn may_read(&self, identity: &str, path: &DocumentPath) -> bool {
        match &path.tree {
            Tree::User(owner) => same_user(identity, owner),
            Tree::Global if path.group_identity().is_none() => false,
            Tree::Global => self.get(path).is_some_and(|document| document.is_shown_to(identity)),
        }
    }

    /// What a document has to keep within.
    pub fn bounds(&self) -> &Bounds {
        &self.quotas.bounds
    }

    /// All documents of one user, or of everybody.
    pub fn list(&self, owner: Option<&str>) -> Vec<Arc<Document>> {
        let of = |document: &&Arc<Document>| match (&document.path.tree, owner) {
            (Tree::User(xui), Some(owner)) => same_user(xui, owner),
            (Tree::Global, Some(_)) => false,
            (_, None) => true,
        };
        self.tables().documents.values().filter(of).cloned().collect()
    }

    /// Writes a document. XD-045: precondition, form, schema, quotas, uniqueness, then all at once.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    pub fn put(
        &self,
        path: &DocumentPath,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<Written, Refused> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current(path, condition)?;
        let usage = Usage::of(&path.auid).ok_or(Refused::NotFound)?;
        if !matches!(path.tree, Tree::User(_)) || path.name.len() != 1 {
            return Err(Refused::NoParent);
        }
        let created = before.is_none();
        self.commit(usage, path, bytes, before, created)
    }

    /// Changes one node of a document. XD-045: as [`Store::put`], with the whole document that comes of it.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then. [`Refused::NoParent`] where there is no such document to put into.
    pub fn change(
        &self,
        path: &DocumentPath,
        condition: &Condition,
        selector: &Selector,
        change: Edit<'_>,
    ) -> Result<Written, Refused> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current(path, condition)?;
        let usage = Usage::of(&path.auid).ok_or(Refused::NotFound)?;
        let Some(before) = before else {
            return Err(match change {
                Edit::Put(_) => Refused::NoParent,
                Edit::Delete => Refused::NotFound,
            });
        };
        let (text, _) = usage.read(&before.bytes, &self.quotas.bounds)?;
        let order =
            |parent: Node<'_, '_>, new: (Option<&str>, &str), there: (Option<&str>, &str)| {
                usage.comes_before(parent, new, there)
            };
        let edited = edit::apply(text, selector, change, &order, &self.quotas.bounds)?;
        let bytes = Bytes::from(edited.text);
        self.commit(usage, path, bytes, Some(before), edited.created)
    }

    /// The document as it is, if the condition holds for it.
    fn current(
        &self,
        path: &DocumentPath,
        condition: &Condition,
    ) -> Result<Option<Arc<Document>>, Refused> {
        let before = self.get(path);
        // What cannot be read is there, and has no tag anybody knows.
        let unread = self.is_unreadable(path).then_some("");
        let tag = before.as_ref().map(|d| d.etag.as_str()).or(unread);
        if condition.holds(tag) { Ok(before) } else { Err(Refused::Precondition) }
    }

    fn commit(
        &self,
        usage: &Usage,
        path: &DocumentPath,
        bytes: Bytes,
        before: Option<Arc<Document>>,
        created: bool,
    ) -> Result<Written, Refused> {
        let bounds = &self.quotas.bounds;
        let (_, tree) = usage.read(&bytes, bounds)?;
        usage.check(&tree)?;
        let admitted = read(path, bytes.clone(), bounds)?;
        if let Some(flaw) = admitted.document.group.as_ref().and_then(|g| g.flaw.clone()) {
            return Err(Refused::Flaw(flaw));
        }
        self.is_unique(&admitted)?;
        self.has_room(path, &tree, bytes.len(), before.as_deref())?;
        drop(tree);
        if let Some(disk) = &self.disk {
            if self.is_unreadable(path) {
                disk.set_aside(path)?;
            }
            disk.write(path, &bytes, before.as_ref().map(|d| &d.bytes[..]))?;
        }
        let written = Written {
            created,
            before: before.as_ref().map(|d| d.etag.clone()),
            etag: admitted.document.etag.clone(),
        };
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let index = tables.index.etag();
        let after = tables.insert(admitted);
        let indexed = tables.index.etag();
        drop(tables);
        self.tell(before.as_deref(), Some(&after), (index, indexed));
        Ok(written)
    }

    /// Quotas (XD-048).
    fn has_room(
        &self,
        path: &DocumentPath,
        tree: &Xml<'_>,
        octets: usize,
        before: Option<&Document>,
    ) -> Result<(), Flaw> {
        let tables = self.tables();
        if before.is_none() {
            if tables.documents.len() >= self.quotas.documents {
                return Err(Flaw::Constraint("the server has too many documents"));
            }
            if let Tree::User(owner) = &path.tree
                && tables.owned.get(owner).is_some_and(|many| *many >= self.quotas.per_user)
            {
                return Err(Flaw::Constraint("too many documents"));
            }
        }
        let freed = before.map_or(0, |d| d.bytes.len() as u64);
        if tables.bytes - freed + octets as u64 > self.quotas.bytes {
            return Err(Flaw::Constraint("the server is full"));
        }
        let member = |n: &Node<'_, '_>| {
            let ours = matches!(n.tag_name().namespace(), Some(LIST_SERVICE | LISTS));
            ours && matches!(n.tag_name().name(), "entry" | "entry-ref" | "external")
        };
        if tree.descendants().filter(Node::is_element).filter(member).count() > self.quotas.members
        {
            return Err(Flaw::Constraint("too many members"));
        }
        Ok(())
    }

    /// XD-045: group identities and services belong to one document of the whole server.
    fn is_unique(&self, admitted: &Admitted) -> Result<(), Refused> {
        let tables = self.tables();
        let own = &admitted.document.path;
        for service in admitted.document.services() {
            let key = group_key(&service.uri)
                .ok_or(Flaw::Schema("the uri of a list-service is no URI"))?;
            if tables.groups.get(&key).is_some_and(|holder| holder != own) {
                let free = free_identities(&service.uri, |key| tables.groups.contains_key(key));
                return Err(Refused::Taken { field: "group/list-service/@uri", free });
            }
        }
        let Some(services) = &admitted.services else { return Ok(()) };
        for uri in &services.uris {
            let key = group_key(uri).ok_or(Flaw::Schema("the uri of a service is no URI"))?;
            if tables.index.holder(&key).is_some_and(|holder| holder != own) {
                let free = free_identities(uri, |key| tables.index.holder(key).is_some());
                return Err(Refused::Taken { field: "rls-services/service/@uri", free });
            }
        }
        if !tables.index.has_room(own, services) {
            return Err(Flaw::Constraint("the server has too many services").into());
        }
        Ok(())
    }

    /// Removes a document; gives the tag it had.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::Precondition`], or the disk.
    pub fn delete(&self, path: &DocumentPath, condition: &Condition) -> Result<String, Refused> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let document = self.get(path).ok_or(Refused::NotFound)?;
        if !condition.holds(Some(&document.etag)) {
            return Err(Refused::Precondition);
        }
        if let Some(disk) = &self.disk {
            disk.remove(&document.path, &document.bytes)?;
        }
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let index = tables.index.etag();
        tables.remove(&document.path);
        let indexed = tables.index.etag();
        drop(tables);
        self.tell(Some(&document), None, (index, indexed));
        Ok(document.etag.clone())
    }

    /// Tells the feed of a document and of the views that show it. One writer at a time, so the order is that of commits.
    fn tell(
        &self,
        before: Option<&Document>,
        after: Option<&Document>,
        (index, indexed): (String, String),
    ) {
        let Some(document) = after.or(before) else { return };
        let tag = |document: Option<&Document>| document.map(|d| d.etag.clone());
        let (old, new) = (tag(before), tag(after));
        if old == new {
            return;
        }
        self.feed.tell(document.path.clone(), old.as_deref(), new.as_deref());
        let shown = |document: Option<&Document>| -> BTreeSet<DocumentPath> {
            let services = document.into_iter().flat_map(Document::services);
            services.map(|s| DocumentPath::by_group(&s.uri).canonical()).collect()
        };
        let (gone, there) = (shown(before), shown(after));
        for view in gone.union(&there) {
            let of = |shown: &BTreeSet<DocumentPath>, tag: &Option<String>| {
                shown.contains(view).then(|| tag.clone()).flatten()
            };
            let (old, new) = (of(&gone, &old), of(&there, &new));
            self.feed.tell(view.clone(), old.as_deref(), new.as_deref());
        }
        if index != indexed {
            self.feed.tell(index::path(), Some(&index), Some(&indexed));
        }
    }
}

impl Tables {
    fn insert(&mut self, admitted: Admitted) -> Arc<Document> {
        let Admitted { document, services } = admitted;
        self.remove(&document.path);
        self.unreadable.remove(&document.path);
        for key in document.services().filter_map(|service| group_key(&service.uri)) {
            let holder = self.groups.entry(key).or_insert_with(|| document.path.clone());
            if *holder != document.path {
                tracing::error!(path = %document.path, %holder, "two documents of one group");
            }
        }
        if let Some(services) = services {
            self.index.insert(&document.path, services);
        }
        if let Tree::User(owner) = &document.path.tree {
            *self.owned.entry(owner.clone()).or_default() += 1;
        }
        self.bytes += document.bytes.len() as u64;
        let document = Arc::new(document);
        self.documents.insert(document.path.clone(), Arc::clone(&document));
        document
    }

    fn remove(&mut self, path: &DocumentPath) {
        let Some(old) = self.documents.remove(path) else { return };
        self.bytes -= old.bytes.len() as u64;
        for key in old.services().filter_map(|service| group_key(&service.uri)) {
            if self.groups.get(&key) == Some(path) {
                self.groups.remove(&key);
            }
        }
        self.index.remove(path);
        if let Tree::User(owner) = &path.tree
            && let Some(many) = self.owned.get_mut(owner)
        {
            *many -= 1;
            if *many == 0 {
                self.owned.remove(owner);
            }
        }
    }
}

/// Equal group identities have equal keys.
pub fn group_key(uri: &str) -> Option<String> {
    Uri::parse(uri).ok().map(|uri| uri.canonical())
}

/// XD-002: XUIs are compared decoded, as URIs where they are such.
pub fn same_user(a: &str, b: &str) -> bool {
    a == b || matches!((group_key(a), group_key(b)), (Some(a), Some(b)) if a == b)
}

/// A name for the document of a group: the user part of its identity.
pub fn document_name(group: &str) -> String {
    let uri = Uri::parse(group).ok();
    let user = uri.as_ref().and_then(|uri| uri.user_decoded()).map(|user| user.into_owned());
    user.unwrap_or_else(|| group.to_owned())
}

/// XD-045: alternatives to an identity that is taken, at most two.
fn free_identities(uri: &str, taken: impl Fn(&str) -> bool) -> Vec<String> {
    let Some((user, host)) = uri.split_once('@') else { return Vec::new() };
    let free = |uri: &String| group_key(uri).is_some_and(|key| !taken(&key));
    (2..100).map(|n| format!("{user}-{n}@{host}")).filter(free).take(2).collect()
}

/// Bytes into a document, whatever the schema says; only what nobody could use is refused.
fn read(path: &DocumentPath, bytes: Bytes, bounds: &Bounds) -> Result<Admitted, Refused> {
    let usage = Usage::of(&path.auid).ok_or(Refused::NotFound)?;
    let (text, tree) = usage.read(&bytes, bounds)?;
    let group = match usage.auid {
        GROUPS => Some(Arc::new(Group::parse_within(&bytes, bounds)?)),
        _ => None,
    };
    let services = (usage.auid == RLS).then(|| Services::of(text, &tree));
    drop(tree);
    let digest = Sha256::digest(&bytes);
    let etag = digest[..12].iter().fold(String::from("\""), |tag, b| tag + &format!("{b:02x}"));
    let content_type = usage.content_type;
    let document = Document { path: path.clone(), etag: etag + "\"", content_type, bytes, group };
    Ok(Admitted { document, services })
}

/// The largest document where nobody says otherwise, in octets (XD-047).
pub const MAX_DOCUMENT: usize = BOUNDS.bytes;
