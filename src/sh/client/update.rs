//! Changing a slot of the repository: read, change, write, and again where somebody else was faster.

use std::sync::Arc;
use std::time::Duration;

use super::cache::{Slot, Value};
use super::data::{Data, Key, Operation, Subject, next_sequence};
use super::exchange::{Exchange, Failed, PAUSE, What};
use super::{Client, State};
use crate::sh::overload::Class;
use crate::sh::userdata::{Presence, Repository, ShData};

/// SH-041: most rounds of reading and writing, and most waits for another writer.
const ROUNDS: u32 = 3;
/// Most writers that may wait for each other.
const MOST_WRITING: usize = 10_000;

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    /// Nobody knows whether it was, or no HSS can be reached.
    #[error("no HSS can be reached")]
    Unavailable,
    #[error("nobody knows the user")]
    UnknownUser,
    /// Others kept writing.
    #[error("others write the same data")]
    Contended,
    #[error("the HSS does not store as much")]
    TooMuch,
    /// The HSS does not let us, or calls the request wrong.
    #[error("the HSS refuses")]
    Refused,
}

impl From<Failed> for NotWritten {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Unavailable | Failed::Shed => Self::Unavailable,
            Failed::UnknownUser => Self::UnknownUser,
            Failed::OutOfSync | Failed::WriteLater => Self::Contended,
            Failed::TooMuch => Self::TooMuch,
            Failed::NotPermitted
            | Failed::OneByOne
            | Failed::NothingToSubscribe
            | Failed::Wrong => Self::Refused,
        }
    }
}

impl Client {
    /// Changes what a user's slot holds. `change` gets the XML inside `ServiceData` (`None`: there is no slot, or nothing in
    /// it) and says what is to be there: one element, or `None` for no slot at all. It is asked again where somebody else
    /// has written meanwhile.
    ///
    /// SH-040, SH-041, SH-042: one write for each slot at a time; at most three rounds; a lost answer is looked up.
    ///
    /// # Errors
    /// [`NotWritten`]; only with `Unavailable` it may have been written all the same.
    pub async fn update(
        self: &Arc<Self>,
        subject: &Subject,
        service_indication: &str,
        mut change: impl FnMut(Option<&str>) -> Option<String> + Send,
    ) -> Result<(), NotWritten> {
        let data = Data::Repository(service_indication.into());
        let lock = self.writer(subject, &data).ok_or(NotWritten::Unavailable)?;
        let _alone = lock.lock().await;
        let (mut rounds, mut waits) = (0, 0);
        let mut tried: Option<(u16, Option<String>)> = None;
        loop {
            let stored = match self.pull_now(subject, &data).await? {
                Some(Value::Repository(slot)) => Some(slot),
                _ => None,
            };
            if let Some((sequence, wanted)) = &tried
                && is_there(stored.as_ref(), *sequence, wanted.as_deref())
            {
                // SH-042, SH-028: the answer was lost, or a copy of the request came first.
                self.written(subject, &data, *sequence, wanted.as_deref());
                return Ok(());
            }
            if rounds == ROUNDS {
                return Err(NotWritten::Contended);
            }
            let current = stored.as_ref().and_then(|slot| slot.xml.as_deref());
            let wanted = change(current);
            if stored.is_none() && wanted.is_none() {
                return Ok(());
            }
            if stored.is_some() && wanted.is_some() && wanted.as_deref() == current {
                return Ok(());
            }
            let sequence = next_sequence(stored.as_ref().map(|slot| slot.sequence));
            rounds += 1;
            let written = loop {
                match self
                    .write(subject, &data, service_indication, sequence, wanted.as_deref())
                    .await
                {
                    // SH-041: another update of the same data is on its way.
                    Err(Failed::WriteLater) if waits < ROUNDS => {
                        waits += 1;
                        tokio::time::sleep(PAUSE).await;
                    }
                    done => break done,
                }
            };
            match written {
                Ok(()) => {
                    self.written(subject, &data, sequence, wanted.as_deref());
                    return Ok(());
                }
                Err(Failed::OutOfSync) => {
                    tried = Some((sequence, wanted));
                    tokio::time::sleep(random_pause()).await;
                }
                Err(Failed::Unavailable) => tried = Some((sequence, wanted)),
                Err(why) => return Err(why.into()),
            }
        }
    }

    async fn write(
        &self,
        subject: &Subject,
        data: &Data,
        service_indication: &str,
        sequence: u16,
        xml: Option<&str>,
    ) -> Result<(), Failed> {
        let now = self.now();
        if self.lock().is_suspended(Operation::Update, data, now) {
            return Err(Failed::NotPermitted);
        }
        let slot = Repository {
            service_indication: service_indication.to_owned(),
            sequence,
            data: xml.map_or(Presence::Absent, |xml| Presence::Present(xml.to_owned())),
        };
        let document = ShData { repository: vec![slot], ..ShData::default() }.write();
        let what = Exchange {
            operation: Operation::Update,
            subject,
            wildcard: None,
            data: std::slice::from_ref(data),
            what: What::Update(document),
            class: Class::Settings,
        };
        self.exchange(&what).await.map(|_| ())
    }

    /// SH-042: what we know now is what we wrote; SH-050: other names of the user are asked about again.
    fn written(&self, subject: &Subject, data: &Data, sequence: u16, xml: Option<&str>) {
        let now = self.now();
        let mut state = self.lock();
        let key = Self::key(&state, subject, data.clone());
        let value = xml.map(|xml| Value::Repository(Slot { sequence, xml: Some(xml.into()) }));
        state.overtake(&key);
        state.take(&key, value, now);
        state.expire_siblings(&key, now);
        drop(state);
        if xml.is_none() {
            // SH-044: the subscription ends with the data.
            self.ended(&key, "there is no such data any more");
        }
    }

    /// SH-041: who writes this slot waits here for the others of this server.
    fn writer(&self, subject: &Subject, data: &Data) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut state = self.lock();
        let key = Self::key(&state, subject, data.clone());
        if state.writing.len() >= MOST_WRITING && !state.writing.contains_key(&key) {
            // Whoever holds a lock has a second reference to it.
            state.writing.retain(|_, lock| Arc::strong_count(lock) > 1);
            if state.writing.len() >= MOST_WRITING {
                return None;
            }
        }
        Some(Arc::clone(state.writing.entry(key).or_default()))
    }
}

impl State {
    pub(super) fn expire_siblings(&mut self, key: &Key, now: std::time::Instant) {
        for sibling in self.cache.siblings(key) {
            self.cache.expire(&sibling, now);
        }
    }
}

/// Whether what is stored is what was to be written.
fn is_there(stored: Option<&Slot>, sequence: u16, wanted: Option<&str>) -> bool {
    match (stored, wanted) {
        (None, None) => true,
        (Some(slot), Some(wanted)) => {
            slot.sequence == sequence && slot.xml.as_deref().is_some_and(|xml| same(xml, wanted))
        }
        _ => false,
    }
}

/// Whether two elements are the same, however they are written.
fn same(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (roxmltree::Document::parse(a), roxmltree::Document::parse(b)) else {
        return false;
    };
    let steps = |document: &roxmltree::Document<'_>| -> Vec<String> {
        document
            .descendants()
            .filter_map(|node| {
                let depth = node.ancestors().count();
                if node.is_element() {
                    let mut attributes: Vec<_> = node
                        .attributes()
                        .map(|a| format!("{:?}{}={:?}", a.namespace(), a.name(), a.value()))
                        .collect();
                    attributes.sort_unstable();
                    Some(format!("{depth}{:?}{attributes:?}", node.tag_name()))
                } else {
                    let text = node.text().filter(|_| node.is_text())?.trim();
                    (!text.is_empty()).then(|| format!("{depth}{text}"))
                }
            })
            .collect()
    };
    steps(&a) == steps(&b)
}

/// SH-041: 50 to 500 ms, so that two writers do not meet again.
fn random_pause() -> Duration {
    let random = getrandom::u64().unwrap_or(0);
    Duration::from_millis(50 + random % 451)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_element_may_be_written_in_two_ways() {
        let a = "<a xmlns=\"u\" x='1' y='2'>\n <b>t</b></a>";
        assert!(same(a, "<p:a xmlns:p=\"u\" y=\"2\" x=\"1\"><p:b>t </p:b></p:a>"));
        for other in [
            "<a xmlns=\"u\" x='1' y='2'><b>s</b></a>",
            "<a x='1' y='2'><b>t</b></a>",
            "<a",
            "<a xmlns=\"u\" x='1' y='2'><b/>t</a>",
        ] {
            assert!(!same(a, other), "{other}");
        }
    }

    /// Proves SH-041.
    #[test]
    fn writers_wait_for_different_times() {
        for _ in 0..100 {
            assert!((50..=500).contains(&random_pause().as_millis()));
        }
    }
}
