//! Documents on disk: what the embedded XDMS keeps (below `data_dir/xdms`).
//!
//! Start at [`Store::open`], [`Store::get`], [`Store::put`]. Everything is in memory as well, so reading never waits for
//! the disk; a write is in the file system, synced and renamed into place, before it can be seen. Knows no HTTP and no
//! rights: see `server`. XD-044 to XD-048.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use roxmltree::{Document as Xml, Node};
use sha2::{Digest as _, Sha256};

use super::feed::{Changes, Feed};
use super::groups::{self, BOUNDS, Flaw, Group, ListService, Member};
use super::path::{self, DocumentPath, GROUPS, RESOURCE_LISTS, Tree};
use crate::content::xml::{Bounds, attribute};
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
    /// 409 `no-parent`: no such place.
    #[error("there is no such directory")]
    NoParent,
    /// 409 `uniqueness-failure`: the group identity belongs to another document; these are free.
    #[error("the group identity is in use")]
    Taken(Vec<String>),
    /// The disk.
    #[error("the document cannot be stored")]
    Disk(#[from] io::Error),
}

/// All documents of this node.
pub struct Store {
    /// Where documents are kept; without one they end with the process.
    directory: Option<PathBuf>,
    quotas: Quotas,
    /// One writer at a time, without keeping readers out while the disk works.
    writer: Mutex<()>,
    tables: RwLock<Tables>,
    feed: Feed,
}

#[derive(Default)]
struct Tables {
    documents: BTreeMap<DocumentPath, Arc<Document>>,
    /// Key of a group identity -> the document that has it.
    groups: HashMap<String, DocumentPath>,
    bytes: u64,
}

impl Store {
    /// Opens the store in a directory and reads what is there. Leftovers of interrupted writes are removed; a document
    /// that cannot be read is left alone and reported in the log.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(directory: impl Into<PathBuf>, quotas: Quotas) -> io::Result<Self> {
        let directory = directory.into();
        fs::create_dir_all(&directory)?;
        let mut tables = Tables::default();
        for (path, file) in tree(&directory)? {
            if file.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(".new-")) {
                fs::remove_file(&file)?;
                continue;
            }
            let Some(path) = path else {
                tracing::warn!(file = %file.display(), "not a document of the XDMS; left alone");
                continue;
            };
            match read(&path, Bytes::from(fs::read(&file)?), &quotas.bounds) {
                Ok(document) => drop(tables.insert(document)),
                Err(why) => {
                    tracing::error!(file = %file.display(), %why, "a stored document cannot be read");
                }
            }
        }
        Ok(Self {
            directory: Some(directory),
            quotas,
            writer: Mutex::new(()),
            tables: RwLock::new(tables),
            feed: Feed::default(),
        })
    }

    /// A store that keeps nothing beyond the process.
    pub fn in_memory(quotas: Quotas) -> Self {
        let (writer, tables) = (Mutex::new(()), RwLock::new(Tables::default()));
        Self { directory: None, quotas, writer, tables, feed: Feed::default() }
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
        for (path, file) in tree(from)? {
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

    /// The document of that name. `global/byGroupID` is a view of the owners' trees (XD-046).
    pub fn get(&self, path: &DocumentPath) -> Option<Arc<Document>> {
        let tables = self.tables();
        match path.group_identity() {
            Some(uri) => tables.documents.get(tables.groups.get(&group_key(uri)?)?).cloned(),
            None => tables.documents.get(path).cloned(),
        }
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
    /// its owner, its members and the group itself.
    pub fn may_read(&self, identity: &str, path: &DocumentPath) -> bool {
        match &path.tree {
            Tree::User(owner) => same_user(identity, owner),
            Tree::Global => self.get(path).is_some_and(|document| document.is_shown_to(identity)),
        }
    }

    /// The largest document that is taken, in octets.
    pub fn max_document(&self) -> usize {
        self.quotas.bounds.bytes
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

    /// Writes a document. XD-045: precondition, form, quotas, uniqueness, then all at once.
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
        let before = self.get(path);
        if !condition.holds(before.as_ref().map(|d| d.etag.as_str())) {
            return Err(Refused::Precondition);
        }
        if !matches!(path.tree, Tree::User(_)) || path.name.len() != 1 {
            return Err(Refused::NoParent);
        }
        let document = read(path, bytes, &self.quotas.bounds)?;
        if let Some(flaw) = document.group.as_ref().and_then(|g| g.flaw.clone()) {
            return Err(Refused::Flaw(flaw));
        }
        self.admit(&document, before.as_deref())?;
        if let Some(file) = self.file(path)? {
            write_in_place(&file, &document.bytes)?;
        }
        let written = Written {
            created: before.is_none(),
            before: before.as_ref().map(|d| d.etag.clone()),
            etag: document.etag.clone(),
        };
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let after = tables.insert(document);
        drop(tables);
        self.tell(before.as_deref(), Some(&after));
        Ok(written)
    }

    /// Quotas and the uniqueness of group identities (XD-045, XD-048).
    fn admit(&self, document: &Document, before: Option<&Document>) -> Result<(), Refused> {
        let tables = self.tables();
        if before.is_none() {
            if tables.documents.len() >= self.quotas.documents {
                return Err(Flaw::Constraint("the server has too many documents").into());
            }
            if let Tree::User(owner) = &document.path.tree {
                let own = |p: &&DocumentPath| matches!(&p.tree, Tree::User(xui) if xui == owner);
                if tables.documents.keys().filter(own).count() >= self.quotas.per_user {
                    return Err(Flaw::Constraint("too many documents").into());
                }
            }
        }
        let freed = before.map_or(0, |d| d.bytes.len() as u64);
        if tables.bytes - freed + document.bytes.len() as u64 > self.quotas.bytes {
            return Err(Flaw::Constraint("the server is full").into());
        }
        let Some(group) = &document.group else { return Ok(()) };
        for service in &group.services {
            let members = service.list.iter().filter(|m| matches!(m, Member::Entry(_))).count();
            if members > self.quotas.members {
                return Err(Flaw::Constraint("too many members").into());
            }
            let key = group_key(&service.uri)
                .ok_or(Flaw::Schema("the uri of a list-service is no URI"))?;
            if tables.groups.get(&key).is_some_and(|holder| *holder != document.path) {
                let free = free_identities(&service.uri, |uri| {
                    group_key(uri).is_some_and(|key| !tables.groups.contains_key(&key))
                });
                return Err(Refused::Taken(free));
            }
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
        if let Some(file) = self.file(&document.path)? {
            fs::remove_file(&file)?;
            sync_directory(&file)?;
        }
        self.tables.write().unwrap_or_else(PoisonError::into_inner).remove(&document.path);
        self.tell(Some(&document), None);
        Ok(document.etag.clone())
    }

    /// Tells the feed of a document and of the views that show it. One writer at a time, so the order is that of commits.
    fn tell(&self, before: Option<&Document>, after: Option<&Document>) {
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
    }

    fn file(&self, path: &DocumentPath) -> Result<Option<PathBuf>, Refused> {
        let Some(directory) = &self.directory else { return Ok(None) };
        let mut file = directory.join(file_name(&path.auid)?);
        match &path.tree {
            Tree::User(xui) => file.extend(["users".to_owned(), file_name(xui)?]),
            Tree::Global => file.push("global"),
        }
        for segment in &path.name {
            file.push(file_name(segment)?);
        }
        Ok(Some(file))
    }
}

impl Tables {
    fn insert(&mut self, document: Document) -> Arc<Document> {
        self.remove(&document.path);
        for service in document.group.iter().flat_map(|g| &g.services) {
            if let Some(key) = group_key(&service.uri) {
                self.groups.insert(key, document.path.clone());
            }
        }
        self.bytes += document.bytes.len() as u64;
        let document = Arc::new(document);
        self.documents.insert(document.path.clone(), Arc::clone(&document));
        document
    }

    fn remove(&mut self, path: &DocumentPath) {
        if let Some(old) = self.documents.remove(path) {
            self.bytes -= old.bytes.len() as u64;
            self.groups.retain(|_, holder| holder != path);
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

fn free_identities(uri: &str, free: impl Fn(&str) -> bool) -> Vec<String> {
    let Some((user, host)) = uri.split_once('@') else { return Vec::new() };
    (2..100).map(|n| format!("{user}-{n}@{host}")).filter(|uri| free(uri)).take(2).collect()
}

/// Bytes into a document; says what a usage asks of them.
fn read(path: &DocumentPath, bytes: Bytes, bounds: &Bounds) -> Result<Document, Refused> {
    let (content_type, group) = match path.auid.as_str() {
        GROUPS => (GROUP_TYPE, Some(Arc::new(Group::parse_within(&bytes, bounds)?))),
        RESOURCE_LISTS => {
            check_lists(&bytes, bounds)?;
            (LIST_TYPE, None)
        }
        _ => return Err(Refused::NotFound),
    };
    let digest = Sha256::digest(&bytes);
    let etag = digest[..12].iter().fold(String::from("\""), |tag, b| tag + &format!("{b:02x}"));
    Ok(Document { path: path.clone(), etag: etag + "\"", content_type, bytes, group })
}

/// XD-021: the shape of a lists document, and what has to be unique among siblings.
fn check_lists(bytes: &[u8], bounds: &Bounds) -> Result<(), Flaw> {
    const NS: &str = "urn:ietf:params:xml:ns:resource-lists";
    let text = groups::checked_within(bytes, bounds)?;
    let document = Xml::parse(text).map_err(|_| Flaw::NotWellFormed("not well-formed XML"))?;
    let root = document.root_element();
    if root.tag_name().namespace() != Some(NS) || root.tag_name().name() != "resource-lists" {
        return Err(Flaw::Schema("the root is no resource-lists"));
    }
    let mut open: Vec<Node<'_, '_>> = vec![root];
    while let Some(list) = open.pop() {
        let mut seen = std::collections::HashSet::new();
        for node in list.children().filter(Node::is_element) {
            if node.tag_name().namespace() != Some(NS) {
                continue;
            }
            let (name, field) = match node.tag_name().name() {
                "list" => {
                    open.push(node);
                    ("name", "list/@name")
                }
                "entry" => ("uri", "entry/@uri"),
                "entry-ref" => ("ref", "entry-ref/@ref"),
                "external" => ("anchor", "external/@anchor"),
                _ => continue,
            };
            match attribute(node, None, name) {
                Some(value) => {
                    if !seen.insert((field, value.to_owned())) {
                        return Err(Flaw::NotUnique(field));
                    }
                }
                None if name == "name" => {}
                None => return Err(Flaw::Schema("an entry without its address")),
            }
        }
    }
    Ok(())
}

/// A segment as a file name: no separator, no leading dot, no surprise.
fn file_name(segment: &str) -> Result<String, Refused> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.@+:=;,".contains(&b);
    let mut name = path::encode(segment, plain);
    if name.starts_with('.') {
        name.replace_range(..1, "%2E");
    }
    if name.len() > 240 {
        return Err(Flaw::Constraint("the name of the document is too long").into());
    }
    Ok(name)
}

/// All files of a tree with the names they stand for, in a steady order.
fn tree(directory: &Path) -> io::Result<Vec<(Option<DocumentPath>, PathBuf)>> {
    let mut found = Vec::new();
    let mut open: Vec<(String, PathBuf)> = vec![(String::new(), directory.to_owned())];
    while let Some((below, directory)) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = if below.is_empty() { name.into_owned() } else { format!("{below}/{name}") };
            if entry.file_type()?.is_dir() {
                open.push((path, entry.path()));
            } else {
                let resource = path::Resource::below_root(&path).ok();
                let document = resource.filter(|r| r.selector.is_none()).map(|r| r.document);
                found.push((document, entry.path()));
            }
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

/// Writes beside the file, syncs, renames: after a crash there is the old document or the new one, never half of one.
fn write_in_place(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = file.parent().ok_or_else(|| io::Error::other("a document has a directory"))?;
    fs::create_dir_all(directory)?;
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    // One writer at a time, so the name is free; at start leftovers are removed.
    let new = directory.join(format!(".new-{:.200}", name));
    let mut out = fs::File::create(&new)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&new, file)?;
    sync_directory(file)
}

fn sync_directory(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// The largest body the server reads (XD-048).
pub const MAX_DOCUMENT: usize = BOUNDS.bytes;
