//! Call flows: copies of what crossed a wire, by page, for people who want to see what happened.
//!
//! A leaf: adapters tell [`Flows`] what they sent and received, operators read it as JSON, as a [`ladder`] for the
//! terminal or a browser ([`svg`]), or as a capture ([`pcapng`]). Only heads are kept, and bodies that are signalling
//! (SDP, recipient lists, registration state); of every other body only its type and length. MSRP session-ids become
//! stable pseudonyms and credentials are left out before anything is stored ([`reduce`]). Memory is bounded: the oldest
//! page leaves first; one page may fill a quarter. [`keep`] writes chosen pages to disk when they end.
//! Never decides anything. Start at [`Flows`].

pub mod keep;
pub mod ladder;
pub mod pcapng;
pub mod reduce;
pub mod svg;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

/// Whose words were exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Proto {
    #[serde(rename = "SIP")]
    Sip,
    #[serde(rename = "MSRP")]
    Msrp,
    #[serde(rename = "XCAP")]
    Xcap,
    Sh,
    #[serde(rename = "STORE")]
    Store,
}

impl Proto {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sip => "SIP",
            Self::Msrp => "MSRP",
            Self::Xcap => "XCAP",
            Self::Sh => "Sh",
            Self::Store => "STORE",
        }
    }
}

/// What carried it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Transport {
    Udp,
    Tcp,
    /// Nothing that could stand in a capture: a call inside the process.
    Inside,
}

/// The outside of one message: whose page, when, between whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    /// The page's number (`PageId::as_u64`); its upper eight bits name the owner thread.
    pub page: u64,
    /// The recipient, from 1; `None` on the originator's side.
    pub leg: Option<u16>,
    pub time: SystemTime,
    pub transport: Transport,
    /// We sent it (else received).
    pub sent: bool,
    /// Names of the two ends as a person would call them: `as1`, `S-CSCF`, `sip:bob@ims.test`.
    pub from: Arc<str>,
    pub to: Arc<str>,
    /// Our address and the peer's.
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
}

/// One message as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub crossing: Crossing,
    pub proto: Proto,
    /// Start line and header fields up to the empty line, reduced; lines end in CRLF.
    pub head: Bytes,
    /// The body's media type; `None` without a body.
    pub body_type: Option<Arc<str>>,
    /// Octets of the body as it crossed.
    pub octets: u64,
    /// The reduced body: kept parts and `[N octets]` for the others. Empty without a body.
    pub body: Bytes,
    /// MSRP: the continuation flag (`$`, `+`, `#`) behind the transaction id in the end-line.
    pub flag: Option<u8>,
}

impl Entry {
    /// What this entry costs in memory, roughly and rather too much.
    fn weight(&self) -> usize {
        self.head.len() + self.body.len() + 320
    }

    /// The start line.
    pub fn line(&self) -> String {
        let end = memchr::memchr(b'\r', &self.head).unwrap_or(self.head.len());
        String::from_utf8_lossy(&self.head[..end]).into_owned()
    }

    /// Header fields in order, unfolded.
    pub fn headers(&self) -> Vec<(String, String)> {
        let text = String::from_utf8_lossy(&self.head);
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in text.split("\r\n").skip(1).filter(|line| !line.is_empty()) {
            if line.starts_with([' ', '\t'])
                && let Some((_, value)) = headers.last_mut()
            {
                value.push(' ');
                value.push_str(line.trim());
            } else {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
        headers
    }
}

/// One page's messages, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flow {
    pub page: u64,
    /// Some messages are not here: a bound was reached.
    pub truncated: bool,
    pub entries: Vec<Arc<Entry>>,
}

impl Flow {
    /// Where a request went is known only when something came back: messages without addresses get those of the next
    /// received message, or else of any other, with the same Call-ID.
    fn find_addresses(&mut self) {
        if self.entries.iter().all(|entry| entry.crossing.remote.is_some()) {
            return;
        }
        let mut known: HashMap<Vec<u8>, (SocketAddr, SocketAddr, Transport)> = HashMap::new();
        let mut learn_and_fill = |entry: &mut Arc<Entry>| {
            let Some(call_id) = reduce::value_of(&entry.head, &["call-id", "i"]) else { return };
            let crossing = &entry.crossing;
            if let (Some(local), Some(remote)) = (crossing.local, crossing.remote) {
                known.insert(call_id.to_vec(), (local, remote, crossing.transport));
            } else if let Some((local, remote, transport)) = known.get(call_id).copied() {
                let crossing = &mut Arc::make_mut(entry).crossing;
                crossing.local = Some(local);
                crossing.remote = Some(remote);
                crossing.transport = transport;
            }
        };
        self.entries.iter_mut().rev().for_each(&mut learn_and_fill);
        self.entries.iter_mut().for_each(&mut learn_and_fill);
    }

    /// The answer to `GET /api/pages/{id}/flow`.
    pub fn to_json(&self) -> serde_json::Value {
        let messages: Vec<serde_json::Value> = self
            .entries
            .iter()
            .map(|entry| {
                let crossing = &entry.crossing;
                let body = (entry.octets > 0)
                    .then(|| serde_json::json!({"type": entry.body_type, "octets": entry.octets}));
                serde_json::json!({
                    "time": rfc3339(crossing.time),
                    "proto": entry.proto.as_str(),
                    "from": crossing.from,
                    "to": crossing.to,
                    "local": crossing.local,
                    "remote": crossing.remote,
                    "leg": crossing.leg,
                    "line": entry.line(),
                    "headers": entry.headers(),
                    "body": body,
                })
            })
            .collect();
        serde_json::json!({
            "page": format!("{:016x}", self.page),
            "truncated": self.truncated,
            "messages": messages,
        })
    }
}

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(time: SystemTime) -> String {
    const FORM: &[time::format_description::FormatItem<'_>] = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    // Out of the range of years nothing can be said; such a clock is wrong anyway.
    time::OffsetDateTime::from(time).format(FORM).unwrap_or_default()
}

/// How much is kept, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `ops.flow_memory`: octets; 0 keeps nothing.
    pub memory: usize,
    /// Owner threads; each has its share of the memory.
    pub threads: usize,
    /// `ops.flow_keep`
    pub keep: keep::Choice,
    /// `ops.flow_disk`: octets on disk.
    pub disk: u64,
    /// Where kept flows go; `None`: nowhere.
    pub folder: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            threads: 1,
            keep: keep::Choice::Failed,
            disk: 256 << 20,
            folder: None,
        }
    }
}

/// Chunks of one leg and direction that are kept in full; of later ones only the last, aborts and refusals.
const CHUNKS: u32 = 32;
/// Pages whose eviction is remembered, so that what comes later is known to be incomplete.
const EVICTED: usize = 1024;

/// All call flows of a node. Shared by its threads; each page's thread has a lock of its own.
#[derive(Debug)]
pub struct Flows {
    rings: Box<[Mutex<Ring>]>,
    reducer: reduce::Reducer,
    keeper: Option<keep::Keeper>,
    off: bool,
}

#[derive(Debug, Default)]
struct Ring {
    bound: usize,
    weight: usize,
    pages: HashMap<u64, Page>,
    /// By first message.
    order: VecDeque<u64>,
    evicted: HashSet<u64>,
    evicted_order: VecDeque<u64>,
}

#[derive(Debug, Default)]
struct Page {
    weight: usize,
    truncated: bool,
    entries: Vec<Arc<Entry>>,
    chunks: HashMap<(Option<u16>, bool), u32>,
}

impl Flows {
    /// Flows with a fresh key for pseudonyms.
    ///
    /// # Errors
    /// No random octets, or the folder for kept flows cannot be made.
    pub fn new(settings: &Settings) -> std::io::Result<Self> {
        let mut key = [0u8; 32];
        getrandom::fill(&mut key).map_err(std::io::Error::other)?;
        let threads = settings.threads.clamp(1, 256);
        let keeper = match &settings.folder {
            Some(folder) if settings.keep != keep::Choice::None && settings.disk > 0 => {
                Some(keep::Keeper::start(folder, settings.keep, settings.disk)?)
            }
            _ => None,
        };
        let bound = settings.memory / threads;
        Ok(Self {
            rings: (0..threads).map(|_| Mutex::new(Ring { bound, ..Ring::default() })).collect(),
            reducer: reduce::Reducer::new(key),
            keeper,
            off: bound == 0,
        })
    }

    /// Copies a whole SIP message.
    pub fn record_sip(&self, crossing: Crossing, message: &[u8]) {
        if self.is_off() {
            return;
        }
        let (head, body) = reduce::split(message);
        let head = self.reducer.head(head);
        let body_type = reduce::content_type(&head);
        let kept = self.reducer.body(body_type.as_deref().unwrap_or_default(), body);
        self.record(Entry {
            crossing,
            proto: Proto::Sip,
            head,
            body_type: body_type.filter(|_| !body.is_empty()).map(Into::into),
            octets: body.len() as u64,
            body: kept,
            flag: None,
        });
    }

    /// Copies an MSRP request or response: `head` is the start line and header fields, `octets` the length of the body.
    pub fn record_msrp(&self, crossing: Crossing, head: &[u8], octets: u64, flag: Option<u8>) {
        if self.is_off() {
            return;
        }
        let line = &head[..memchr::memchr(b'\r', head).unwrap_or(head.len())];
        let answer = octets == 0 && memchr::memmem::find(line, b" 200").is_some();
        let ordinary = answer || flag == Some(b'+');
        if !self.ring(crossing.page).has_room_for_chunk(&crossing, ordinary) {
            return;
        }
        let head = self.reducer.head(head);
        let body_type = reduce::content_type(&head).filter(|_| octets > 0).map(Into::into);
        let body = if octets > 0 { reduce::stand_in(octets) } else { Bytes::new() };
        self.record(Entry { crossing, proto: Proto::Msrp, head, body_type, octets, body, flag });
    }

    /// Notes a step of another kind (XCAP, Sh, store) by one line and header fields, e.g. `GET /xcap-root/...`.
    pub fn record_note(&self, crossing: Crossing, proto: Proto, head: &str, octets: u64) {
        if self.is_off() {
            return;
        }
        let head = self.reducer.head(head.as_bytes());
        let body_type = reduce::content_type(&head).filter(|_| octets > 0).map(Into::into);
        let body = if octets > 0 { reduce::stand_in(octets) } else { Bytes::new() };
        self.record(Entry { crossing, proto, head, body_type, octets, body, flag: None });
    }

    /// Whether nothing is kept, so that callers can spare themselves the work.
    pub fn is_off(&self) -> bool {
        self.off
    }

    /// The messages of a page, from memory or disk.
    pub fn get(&self, page: u64) -> Option<Flow> {
        self.in_memory(page).or_else(|| self.keeper.as_ref()?.read(page))
    }

    fn in_memory(&self, page: u64) -> Option<Flow> {
        let ring = self.ring(page);
        let kept = ring.pages.get(&page)?;
        let mut flow = Flow { page, truncated: kept.truncated, entries: kept.entries.clone() };
        drop(ring);
        // Several threads write: what crossed first comes first.
        flow.entries.sort_by_key(|entry| entry.crossing.time);
        flow.find_addresses();
        Some(flow)
    }

    /// The page has its result: its flow goes to disk if it is among those to keep.
    pub fn ended(&self, page: u64, failed: bool) {
        if let Some(keeper) = &self.keeper
            && keeper.wants(page, failed)
            && let Some(flow) = self.in_memory(page)
        {
            keeper.keep(flow);
        }
    }

    /// Octets in memory, as they are counted against the bound.
    pub fn memory(&self) -> usize {
        (0..self.rings.len()).map(|index| self.ring((index as u64) << 56).weight).sum()
    }

    fn record(&self, entry: Entry) {
        self.ring(entry.crossing.page).push(entry);
    }

    fn ring(&self, page: u64) -> MutexGuard<'_, Ring> {
        let index = (page >> 56) as usize % self.rings.len();
        // A ring is consistent between any two statements that could panic.
        self.rings[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// A page of many chunks would push everything else out: of each leg and direction the first ones are kept, then
    /// only what ends or refuses something.
    fn has_room_for_chunk(&mut self, crossing: &Crossing, ordinary: bool) -> bool {
        let page = self.page(crossing.page);
        let count = page.chunks.entry((crossing.leg, crossing.sent)).or_default();
        *count = count.saturating_add(1);
        let room = *count <= CHUNKS || !ordinary;
        page.truncated |= !room;
        room
    }

    fn page(&mut self, id: u64) -> &mut Page {
        let (evicted, order) = (&self.evicted, &mut self.order);
        self.pages.entry(id).or_insert_with(|| {
            order.push_back(id);
            Page { truncated: evicted.contains(&id), ..Page::default() }
        })
    }

    fn push(&mut self, entry: Entry) {
        let id = entry.crossing.page;
        let weight = entry.weight();
        let most = self.bound / 4;
        let page = self.page(id);
        if page.weight + weight > most {
            page.truncated = true;
            return;
        }
        page.weight += weight;
        page.entries.push(Arc::new(entry));
        self.weight += weight;
        while self.weight > self.bound {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(page) = self.pages.remove(&oldest) {
                self.weight -= page.weight;
            }
            if self.evicted.insert(oldest) {
                self.evicted_order.push_back(oldest);
            }
            if self.evicted_order.len() > EVICTED
                && let Some(forgotten) = self.evicted_order.pop_front()
            {
                self.evicted.remove(&forgotten);
            }
        }
        // Pages that hold nothing (all too large) must not pile up either.
        while self.order.len() > self.bound / 320 + 1 {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(page) = self.pages.remove(&oldest) {
                self.weight -= page.weight;
            }
        }
    }
}

#[cfg(test)]
mod tests;
