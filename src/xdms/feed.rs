//! What changes in the store, for those who tell others.
//!
//! Start at [`Changes::next`], which [`super::store::Store::watch`] gives. A change is told once it is on the disk, in the
//! order of the commits, a view's change right behind that of its document (XD-045, XD-046). Who listens too slowly is
//! told so and looks at the documents anew; nobody is ever waited for.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::path::DocumentPath;

/// Changes kept for the slowest listener.
const KEPT: usize = 1024;

/// One document, or a view of one, is another one now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name; of a view by a group's identity the canonical one ([`DocumentPath::canonical`]).
    pub path: DocumentPath,
    /// The tag it had, with its quotes; `None`: it is new.
    pub before: Option<Arc<str>>,
    /// The tag it has; `None`: it is gone.
    pub after: Option<Arc<str>>,
}

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Change(Change),
    /// So many changes were forgotten before they were heard: whatever is watched may have changed.
    Missed(u64),
}

/// A listener's place in the feed.
#[derive(Debug)]
pub struct Changes(broadcast::Receiver<Change>);

impl Changes {
    /// The next one; `None` when the store is gone.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(change) => Some(Heard::Change(change)),
            Err(RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// The store's end.
#[derive(Debug)]
pub(super) struct Feed(broadcast::Sender<Change>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Feed {
    pub(super) fn watch(&self) -> Changes {
        Changes(self.0.subscribe())
    }

    /// Tells those who listen, if anybody does.
    pub(super) fn tell(&self, path: DocumentPath, before: Option<&str>, after: Option<&str>) {
        let change = Change { path, before: before.map(Arc::from), after: after.map(Arc::from) };
        // Nobody listening is no failure.
        let _ = self.0.send(change);
    }
}
