use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::files::{Records, Settings};
use super::*;
use crate::engine::input::Mode;
use crate::engine::party::Party;

struct Core;

impl Names for Core {
    fn page(&self, _: PageId) -> Named {
        Named {
            icid: Some("pc1-42".to_owned()),
            orig_ioi: Some("Type 3home1.example".to_owned()),
            ..Named::default()
        }
    }

    fn leg(&self, leg: LegId) -> Option<String> {
        Some(format!("as1-{}", leg.n))
    }
}

fn party(uri: &str) -> Party {
    Party { uri: uri.into(), key: uri.into(), display: None }
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + millis)
}

fn page() -> PageId {
    PageId::new(0, 7)
}

fn leg(n: u16) -> LegId {
    LegId { page: page(), n }
}

fn arrived() -> Event {
    let (originator, dialled) = (party("sip:alice@h"), party("sip:team@g"));
    Event::PageArrived { page: page(), mode: Mode::Large, originator, dialled, size: None }
}

fn records(events: &[(u64, Event)]) -> Vec<serde_json::Value> {
    let mut collector = Collector::new("as1".into());
    let all = events.iter().flat_map(|(millis, event)| collector.event(at(*millis), event, &Core));
    let all = all.map(|record| serde_json::to_value(record).expect("JSON")).collect();
    assert!(collector.pages.is_empty(), "nothing stays behind");
    all
}

/// One record for each recipient, in the order of inviting, once the page is over.
///
/// Proves ISC-025.
#[test]
fn a_page_gives_a_record_for_each_recipient() {
    let invited = |n, uri: &str| Event::Invited { leg: leg(n), party: party(uri) };
    let busy = Cause::new(CauseProtocol::Sip, 486, "Busy Here");
    let content_type: Arc<str> = "text/plain".into();
    let records = records(&[
        (0, arrived()),
        (10, invited(2, "sip:carol@h")),
        (10, invited(1, "sip:bob@h")),
        (20, Event::Failed { leg: leg(2), cause: busy, octets: 0 }),
        (30, Event::Joined { leg: leg(1), allow: None, contact: None }),
        (31, Event::OriginatorAnswered { page: page() }),
        (40, Event::PageStarted { page: page(), content_type, total: Some(5) }),
        (41, Event::PageComplete { page: page(), size: 5 }),
        (50, Event::Delivered { leg: leg(1), octets: 5 }),
        (60, Event::PageEnded { page: page(), delivered: 1, failed: 1, deferred: 0 }),
    ]);
    let common = |n: u16, more: serde_json::Value| {
        let mut all = serde_json::json!({
            "version": 1, "node": "as1", "page": page().to_string(), "recipient": n,
            "originator": "sip:alice@h", "dialled": "sip:team@g", "size": 5,
            "content_type": "text/plain", "arrived": "2027-01-15T08:00:00.000Z",
            "answered": "2027-01-15T08:00:00.031Z", "invited": "2027-01-15T08:00:00.010Z",
            "icid": "pc1-42", "orig_ioi": "Type 3home1.example", "leg_icid": format!("as1-{n}"),
        });
        for (name, value) in more.as_object().expect("members") {
            all[name] = value.clone();
        }
        all
    };
    assert_eq!(
        records,
        [
            common(
                1,
                serde_json::json!({
                    "to": "sip:bob@h", "outcome": "delivered", "octets": 5,
                    "joined": "2027-01-15T08:00:00.030Z", "ended": "2027-01-15T08:00:00.050Z",
                })
            ),
            common(
                2,
                serde_json::json!({
                    "to": "sip:carol@h", "outcome": "failed", "octets": 0,
                    "cause": { "protocol": "SIP", "code": 486, "text": "Busy Here" },
                    "ended": "2027-01-15T08:00:00.020Z",
                })
            ),
        ]
    );
}

/// Who is reached at the second try has one record, of that try.
#[test]
fn what_is_taken_back_is_not_charged() {
    let invited = || Event::Invited { leg: leg(1), party: party("sip:bob@h") };
    let away = Cause::new(CauseProtocol::Sip, 480, "Temporarily Unavailable");
    let records = records(&[
        (0, arrived()),
        (10, invited()),
        (20, Event::Failed { leg: leg(1), cause: away, octets: 0 }),
        (90, invited()),
        (95, Event::Delivered { leg: leg(1), octets: 5 }),
        (99, Event::PageEnded { page: page(), delivered: 1, failed: 0, deferred: 0 }),
    ]);
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!(record["outcome"], "delivered");
    assert_eq!(record["invited"], "2027-01-15T08:00:00.090Z");
    assert!(record.get("cause").is_none(), "{record}");
}

#[test]
fn a_refused_page_has_one_record() {
    let refused = Event::PageRefused { page: page(), status: 403, text: "Forbidden".to_owned() };
    let records = records(&[(0, arrived()), (5, refused)]);
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!(record["outcome"], "refused");
    assert_eq!(record["cause"]["code"], 403);
    assert!(record.get("recipient").is_none() && record.get("to").is_none(), "{record}");
}

// --- files ---

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("pagecast-charging-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn settings(&self) -> Settings {
        Settings {
            folder: self.0.clone(),
            max_file: 1 << 20,
            max_age: Duration::from_secs(3600),
            disk: 1 << 30,
            max_waiting: 1000,
        }
    }

    /// Names that end so, sorted.
    fn names(&self, end: &str) -> Vec<PathBuf> {
        let all = fs::read_dir(&self.0).expect("a folder").map(|entry| entry.expect("one").path());
        let mut all: Vec<_> = all.filter(|path| path.to_string_lossy().ends_with(end)).collect();
        all.sort();
        all
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn some(count: u64) -> Vec<Record> {
    let mut collector = Collector::new("as1".into());
    let mut all = Vec::new();
    for n in 0..count {
        let refused = Event::PageRefused { page: page(), status: 403, text: format!("no {n}") };
        for event in [arrived(), refused] {
            all.extend(collector.event(at(n), &event, &Core));
        }
    }
    all
}

/// The texts of the causes in a file, every line of which is whole.
fn texts(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a file");
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    let line = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        record["cause"]["text"].as_str().expect("a text").to_owned()
    };
    text.lines().map(line).collect()
}

#[test]
fn what_was_kept_is_in_a_closed_file_after_the_end() {
    let folder = Folder::new("end");
    let records = Records::open(folder.settings()).expect("opened");
    records.keep(&some(3));
    records.close();
    assert_eq!(records.counts(), Counts { written: 3, ..Counts::default() });
    assert!(folder.names(".part").is_empty());
    let [file] = &folder.names(".jsonl")[..] else { panic!("one file") };
    assert_eq!(texts(file), ["no 0", "no 1", "no 2"]);
    // Without records there are no files.
    Records::open(folder.settings()).expect("opened again").close();
    assert_eq!(folder.names("").len(), 1);
}

#[test]
fn files_are_closed_when_they_are_large_and_the_oldest_leaves_when_there_is_no_room() {
    let folder = Folder::new("large");
    let line = serde_json::to_vec(&some(1)[0]).expect("JSON").len() as u64 + 1;
    let settings = Settings { max_file: line, disk: 2 * line + 10, ..folder.settings() };
    let records = Records::open(settings).expect("opened");
    for record in some(4) {
        let before = records.counts().written;
        records.keep(&[record]);
        while records.counts().written == before {
            std::thread::yield_now();
        }
    }
    records.close();
    assert_eq!(records.counts(), Counts { written: 4, lost: 0, removed_files: 2 });
    let left: Vec<_> = folder.names(".jsonl").iter().flat_map(|file| texts(file)).collect();
    assert_eq!(left, ["no 2", "no 3"]);
}

/// A line that was half written when the process died is cut off; those before it are kept.
#[test]
fn a_crash_leaves_whole_lines() {
    let folder = Folder::new("crash");
    fs::create_dir_all(&folder.0).expect("made");
    let mut torn = Vec::new();
    for record in some(400) {
        serde_json::to_writer(&mut torn, &record).expect("JSON");
        torn.push(b'\n');
    }
    for cut in [1, 5000, torn.len() - 3] {
        let path = folder.0.join("charging-20270115T080000000Z-1.jsonl.part");
        fs::write(&path, &torn[..torn.len() - cut]).expect("written");
        Records::open(folder.settings()).expect("opened").close();
        assert!(folder.names(".part").is_empty());
        let whole = torn[..torn.len() - cut].iter().filter(|byte| **byte == b'\n').count();
        let files = folder.names(".jsonl");
        assert_eq!(files.iter().map(|file| texts(file).len()).sum::<usize>(), whole, "{cut}");
        for file in files {
            fs::remove_file(file).expect("removed");
        }
    }
}

/// While the disk takes nothing, records wait; those beyond the bound are lost, and counted.
#[test]
fn records_wait_for_a_disk_that_fails() {
    let folder = Folder::new("full");
    let settings = Settings { max_waiting: 2, ..folder.settings() };
    let records = Records::open(settings).expect("opened");
    // There is no folder any more to make a file in.
    fs::remove_dir_all(&folder.0).expect("removed");
    for record in some(5) {
        records.keep(&[record]);
    }
    while records.counts().lost == 0 {
        records.keep(&some(1));
    }
    assert_eq!(records.counts().written, 0);
    fs::create_dir_all(&folder.0).expect("made again");
    records.close();
    let counts = records.counts();
    assert!(counts.written >= 2, "{counts:?}");
    let [file] = &folder.names(".jsonl")[..] else { panic!("one file") };
    assert_eq!(texts(file).len() as u64, counts.written);
}
