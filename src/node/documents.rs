//! Words about documents, carried between the SIP side and who keeps the documents.
//!
//! Start at [`Documents`]: it answers what a watcher may be told ([`Documents::look`]), gives what an XDMS elsewhere tells
//! to those who keep copies ([`Documents::take`]), and its tasks tell the threads what changed. No rule is here.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

use super::shard::ToShard;
use crate::content::xcap_diff::bare_tag;
use crate::isc::{DocumentState, Look, News};
use crate::xdms::feed::Heard;
use crate::xdms::path::{DocumentPath, Resource};
use crate::xdms::resolver::{Copies, Source};
use crate::xdms::store::same_user;

/// Whoever has documents.
#[derive(Clone)]
pub struct Documents {
    source: Arc<dyn Source>,
    /// Who may read everything (XD-018).
    own: Arc<[String]>,
}

impl Documents {
    pub fn new(source: Arc<dyn Source>, own: &[String]) -> Self {
        Self { source, own: own.into() }
    }

    /// How the documents stand for those who ask.
    pub fn look(&self, look: &Look) -> Vec<DocumentState> {
        let Some(store) = self.source.store() else { return Vec::new() };
        let own = look.who.iter().any(|who| self.own.iter().any(|own| same_user(own, who)));
        let state = |document: &Arc<str>| {
            let Some(path) = path_of(document) else { return DocumentState::default() };
            let path = path.canonical();
            let reads = own || look.who.iter().any(|who| store.may_read(who, &path));
            DocumentState {
                etag: store.etag(&path).filter(|_| reads),
                name: Some(path.to_string().into()),
            }
        };
        look.documents.iter().map(state).collect()
    }

    /// Gives on what an XDMS elsewhere told.
    pub fn take(&self, news: Vec<News>) {
        let Some(copies) = self.source.copies() else { return };
        for news in news {
            match news {
                News::Has { document, etag } => {
                    let Some(path) = path_of(&document) else { continue };
                    // As HTTP has it; a weak one is known only from the copy itself.
                    let known = copies.cached().into_iter().find(|(held, _)| *held == path);
                    let known = known.map(|(_, tag)| tag).filter(|tag| bare_tag(tag) == etag);
                    copies.invalidate(&path, &known.unwrap_or_else(|| format!("\"{etag}\"")));
                    copies.notified(&path, true);
                }
                News::Doubted(document) => {
                    if let Some(path) = path_of(&document) {
                        copies.invalidate(&path, NO_TAG);
                    }
                }
                News::Removed(document) => {
                    if let Some(path) = path_of(&document) {
                        copies.purge(&path);
                    }
                }
                News::Covered(documents) => notified(copies, &documents, true),
                News::Silent(documents) => notified(copies, &documents, false),
                News::Lost => {
                    for (path, _) in copies.cached() {
                        copies.invalidate(&path, NO_TAG);
                    }
                }
            }
        }
    }

    /// Starts what tells the threads: of changes in the store all of them, of other copies than before the first.
    pub fn tell(&self, all: &[UnboundedSender<ToShard>]) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if let Some(store) = self.source.store() {
            let (mut changes, all) = (store.watch(), all.to_vec());
            tasks.spawn(async move {
                while let Some(heard) = changes.next().await {
                    let changed = match heard {
                        Heard::Change(change) => {
                            Some(Arc::from(change.path.canonical().to_string()))
                        }
                        Heard::Missed(missed) => {
                            tracing::warn!(missed, "changes of documents came too fast");
                            None
                        }
                    };
                    for shard in &all {
                        // A thread that is gone tells nobody.
                        let _ = shard.send(ToShard::DocumentChanged(changed.clone()));
                    }
                }
            });
        }
        if let (Some(copies), Some(first)) = (self.source.copies(), all.first().cloned()) {
            let (mut changes, source) = (copies.changes(), Arc::clone(&self.source));
            changes.mark_changed();
            tasks.spawn(async move {
                // The sender lives as long as the source.
                while changes.changed().await.is_ok() {
                    changes.mark_unchanged();
                    let Some(copies) = source.copies() else { return };
                    let documents = copies.cached().into_iter().map(|(path, _)| path.to_string());
                    if first.send(ToShard::Follow(documents.collect())).is_err() {
                        return;
                    }
                }
            });
        }
        tasks
    }
}

fn notified(copies: &dyn Copies, documents: &[String], notified: bool) {
    for path in documents.iter().filter_map(|document| path_of(document)) {
        copies.notified(&path, notified);
    }
}

/// No document has this tag.
const NO_TAG: &str = "?";

fn path_of(document: &str) -> Option<DocumentPath> {
    let resource = Resource::below_root(document).ok()?;
    resource.selector.is_none().then_some(resource.document)
}
