//! Chosen flows on disk: one file a page, written behind by a thread of its own, the oldest files leaving first.
//!
//! Disk trouble never reaches a page: a flow that cannot be written is logged and dropped. Start at [`Keeper`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use super::{Crossing, Entry, Flow, Proto, Transport};

/// Which pages' flows go to disk when they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Refused pages and those somebody did not get.
    Failed,
    All,
    None,
    /// One page of so many.
    OneIn(u32),
}

/// Flows that wait to be written; more are dropped.
const WAITING: usize = 64;

/// Writes flows and reads them back.
#[derive(Debug)]
pub struct Keeper {
    folder: PathBuf,
    choice: Choice,
    queue: SyncSender<Flow>,
}

impl Keeper {
    /// Makes the folder and starts the writer. `bound` is in octets.
    ///
    /// # Errors
    /// The folder or the thread cannot be made.
    pub fn start(folder: &Path, choice: Choice, bound: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (queue, flows) = sync_channel(WAITING);
        let place = folder.to_owned();
        std::thread::Builder::new()
            .name("flow-keeper".into())
            .spawn(move || write_all(&place, bound, &flows))?;
        Ok(Self { folder: folder.to_owned(), choice, queue })
    }

    /// Whether the page is among those to keep.
    pub fn wants(&self, page: u64, failed: bool) -> bool {
        match self.choice {
            Choice::Failed => failed,
            Choice::All => true,
            Choice::None => false,
            // The lower bits of a page's number are random.
            Choice::OneIn(n) => page.is_multiple_of(u64::from(n.max(1))),
        }
    }

    /// Hands a flow to the writer; drops it if too many wait.
    pub fn keep(&self, flow: Flow) {
        match self.queue.try_send(flow) {
            Ok(()) => {}
            Err(TrySendError::Full(flow) | TrySendError::Disconnected(flow)) => {
                tracing::warn!(
                    page = format!("{:016x}", flow.page),
                    "the call flow is not kept on disk: too many are waiting"
                );
            }
        }
    }

    /// A flow from disk.
    pub fn read(&self, page: u64) -> Option<Flow> {
        let text = std::fs::read(path(&self.folder, page)).ok()?;
        let stored: Stored = serde_json::from_slice(&text).ok()?;
        Some(stored.into_flow(page))
    }
}

fn path(folder: &Path, page: u64) -> PathBuf {
    folder.join(format!("{page:016x}.json"))
}

/// The writer: ends when its [`Keeper`] is gone.
fn write_all(folder: &Path, bound: u64, flows: &Receiver<Flow>) {
    let mut files = survey(folder);
    let mut total: u64 = files.iter().map(|file| file.2).sum();
    while let Ok(flow) = flows.recv() {
        let target = path(folder, flow.page);
        let written = serde_json::to_vec(&Stored::from_flow(&flow))
            .map_err(std::io::Error::other)
            .and_then(|text| {
                std::fs::write(&target, &text)?;
                Ok(text.len() as u64)
            });
        match written {
            Ok(octets) => {
                total += octets;
                files.push((SystemTime::UNIX_EPOCH, target, octets));
            }
            Err(error) => tracing::warn!(
                page = format!("{:016x}", flow.page),
                %error,
                "the call flow cannot be kept on disk"
            ),
        }
        let mut leave = 0;
        while total > bound && leave < files.len() {
            total -= files[leave].2;
            if let Err(error) = std::fs::remove_file(&files[leave].1) {
                tracing::warn!(%error, "an old call flow cannot be removed");
            }
            leave += 1;
        }
        files.drain(..leave);
    }
}

/// Files that are there already, oldest first.
fn survey(folder: &Path) -> Vec<(SystemTime, PathBuf, u64)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let about = entry.metadata().ok()?;
            let ours = entry.path().extension().is_some_and(|ending| ending == "json");
            (about.is_file() && ours)
                .then(|| Some((about.modified().ok()?, entry.path(), about.len())))?
        })
        .collect();
    files.sort();
    files
}

/// The form on disk. Octets are characters U+0000 to U+00FF, so that text stays readable and nothing is lost.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    truncated: bool,
    entries: Vec<StoredEntry>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct StoredEntry {
    leg: Option<u16>,
    micros: u64,
    transport: Transport,
    sent: bool,
    from: Arc<str>,
    to: Arc<str>,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    proto: Proto,
    head: String,
    body_type: Option<Arc<str>>,
    octets: u64,
    body: String,
    flag: Option<u8>,
}

impl Stored {
    fn from_flow(flow: &Flow) -> Self {
        let entries = flow
            .entries
            .iter()
            .map(|entry| StoredEntry {
                leg: entry.crossing.leg,
                micros: entry
                    .crossing
                    .time
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX)),
                transport: entry.crossing.transport,
                sent: entry.crossing.sent,
                from: entry.crossing.from.clone(),
                to: entry.crossing.to.clone(),
                local: entry.crossing.local,
                remote: entry.crossing.remote,
                proto: entry.proto,
                head: entry.head.iter().map(|byte| char::from(*byte)).collect(),
                body_type: entry.body_type.clone(),
                octets: entry.octets,
                body: entry.body.iter().map(|byte| char::from(*byte)).collect(),
                flag: entry.flag,
            })
            .collect();
        Self { truncated: flow.truncated, entries }
    }

    fn into_flow(self, page: u64) -> Flow {
        let octets = |text: &str| -> bytes::Bytes {
            text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
        };
        let entries = self
            .entries
            .into_iter()
            .map(|stored| {
                Arc::new(Entry {
                    crossing: Crossing {
                        page,
                        leg: stored.leg,
                        time: SystemTime::UNIX_EPOCH
                            .checked_add(Duration::from_micros(stored.micros))
                            .unwrap_or(SystemTime::UNIX_EPOCH),
                        transport: stored.transport,
                        sent: stored.sent,
                        from: stored.from,
                        to: stored.to,
                        local: stored.local,
                        remote: stored.remote,
                    },
                    proto: stored.proto,
                    head: octets(&stored.head),
                    body_type: stored.body_type,
                    octets: stored.octets,
                    body: octets(&stored.body),
                    flag: stored.flag,
                })
            })
            .collect();
        Flow { page, truncated: self.truncated, entries }
    }
}
