//! Who gets a page, seen from the engine's side: lists and groups in, audiences and refusals out.
//!
//! The group vectors are rows of the truth table of the XDM rules (section 10.9); each row names its change to the document.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use pagecast::engine::input::Refusal;
use pagecast::engine::party::{Audience, Copy, Party, Recipient, Removal, Target};
use pagecast::sip::uri::Psi;
use pagecast::xdms::path::DocumentPath;
use pagecast::xdms::resolver::{Fetching, Source, Unavailable};
use pagecast::xdms::store::{Condition, Quotas, Store};
use pagecast::xdms::{AnonReject, Consent, Query, Resolver, Settings};

const ROOT: &str = "http://127.0.0.1:8080/xcap-root";
const TEAM: &str = "sip:team7@groups.ims.test";

fn settings() -> Settings {
    Settings {
        root: ROOT.into(),
        home_domains: vec!["ims.test".into()],
        factories: vec![Psi::parse("sip:pages@ims.test").expect("a URI")],
        group_domains: vec!["groups.ims.test".into()],
        ..Settings::default()
    }
}

fn party(uri: &str) -> Party {
    let key = settings().key_of(uri);
    Party { uri: uri.into(), key: key.into(), display: None }
}

fn entry(uri: &str, copy: Copy) -> Recipient {
    Recipient { party: party(uri), copy, anonymize: false, headers: Vec::new() }
}

/// A source that counts what it is asked and can be told to fail.
struct Counting {
    store: Arc<Store>,
    fetches: AtomicUsize,
    /// Paths that cannot be had; `*` is everything.
    down: Vec<String>,
}

impl Source for Counting {
    fn fetch<'a>(&'a self, path: &'a DocumentPath) -> Fetching<'a> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let text = path.to_string();
        if self.down.iter().any(|down| down == "*" || text.contains(down.as_str())) {
            return Box::pin(std::future::ready(Err(Unavailable("told to fail".into()))));
        }
        self.store.fetch(path)
    }
}

/// A store of its own for each test; the directory goes with it.
struct Place {
    directory: std::path::PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pagecast-{name}-{}-{n}", std::process::id());
        Self { directory: std::env::temp_dir().join(name) }
    }

    fn store(&self, documents: &[(&str, &str, &str)]) -> Arc<Store> {
        let store = Store::open(&self.directory, Quotas::default()).expect("a temporary directory");
        for (owner, name, text) in documents {
            let mut path = DocumentPath::group(owner, name);
            if *name == "index" {
                path.auid = "resource-lists".into();
            }
            store
                .put(&path, Bytes::copy_from_slice(text.as_bytes()), &Condition::default())
                .unwrap_or_else(|why| panic!("{name}: {why}"));
        }
        Arc::new(store)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn group_of(changes: &[(&str, &str)]) -> String {
    let mut text = include_str!("data/team7.xml").to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "the document has {from}");
        text = text.replace(from, to);
    }
    text
}

const LISTS: &str = include_str!("data/night-shift.xml");
const DAVE: &str = "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list name=\"own\">\
    <entry uri=\"sip:dave@ims.test\"/></list></resource-lists>";
const FRANK: &str = "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list name=\"pool\">\
    <entry uri=\"sip:gus@ims.test\"/></list></resource-lists>";
/// The pool points back to where it is named.
const FRANK_LOOP: &str = "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list name=\"pool\">\
    <entry uri=\"sip:gus@ims.test\"/><external anchor=\"http://127.0.0.1:8080/xcap-root/resource-lists/users/sip:alice@ims.test/index/~~/resource-lists/list%5b@name=%22night-shift%22%5d\"/>\
    </list></resource-lists>";

struct Bench {
    _place: Place,
    source: Arc<Counting>,
    settings: Settings,
}

impl Bench {
    fn new(name: &str, group: &str, frank: &str, settings: Settings) -> Self {
        let place = Place::new(name);
        let store = place.store(&[
            ("sip:alice@ims.test", "team7", group),
            ("sip:alice@ims.test", "index", LISTS),
            ("sip:dave@ims.test", "index", DAVE),
            ("sip:frank@ims.test", "index", frank),
        ]);
        let source = Counting { store, fetches: AtomicUsize::new(0), down: Vec::new() };
        Self { _place: place, source: Arc::new(source), settings }
    }

    fn down(mut self, what: &str) -> Self {
        let source = Arc::get_mut(&mut self.source).expect("nobody else has it yet");
        source.down.push(what.to_owned());
        self
    }

    async fn page(&self, who: &str, anonymous: bool) -> Result<Audience, Refusal> {
        ask(&self.settings, self.source.clone(), &[who], Target::Group(party(TEAM)), anonymous)
            .await
    }
}

async fn ask(
    settings: &Settings,
    source: Arc<dyn Source>,
    who: &[&str],
    target: Target,
    anonymous: bool,
) -> Result<Audience, Refusal> {
    let query = Query {
        target,
        identities: who.iter().map(|uri| party(uri)).collect(),
        names: Vec::new(),
        anonymous,
        now: tokio::time::Instant::now().into_std(),
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000),
    };
    Resolver::new(settings.clone(), source).resolve(query).await
}

fn uris(audience: &Audience) -> Vec<&str> {
    audience.recipients.iter().map(|r| &*r.party.uri).collect()
}

/// Status and Warning text.
fn said(result: Result<Audience, Refusal>) -> (u16, Option<String>) {
    match result {
        Ok(audience) => panic!("accepted: {:?}", uris(&audience)),
        Err(refusal) => {
            assert!(refusal.warning.as_ref().is_none_or(|(code, _)| *code == 399));
            (refusal.status, refusal.warning.map(|(_, text)| text))
        }
    }
}

fn refused(status: u16, text: &str) -> (u16, Option<String>) {
    (status, Some(text.to_owned()))
}

async fn page_list(settings: &Settings, entries: Vec<Recipient>) -> Result<Audience, Refusal> {
    let place = Place::new("list");
    let who = ["sip:alice@ims.test", "tel:+15550001"];
    ask(settings, place.store(&[]), &who, Target::List(entries), false).await
}

fn to(uris: &[&str]) -> Vec<Recipient> {
    uris.iter().map(|uri| entry(uri, Copy::To)).collect()
}

/// Proves IM-031, IM-035, UL-013.
#[tokio::test]
async fn a_list_with_nobody_left_is_refused() {
    let nobody: &[&[&str]] = &[
        &["sip:alice@ims.test"],
        &["tel:+1-555-0001", "sip:alice@IMS.test"],
        &["mailto:x@y", "im:bob@ims.test"],
        &["sip:team7@groups.ims.test"],
        &["sip:pages@ims.test"],
        &[],
    ];
    for list in nobody {
        let got = said(page_list(&settings(), to(list)).await);
        assert_eq!(got, refused(403, "No destinations"), "{list:?}");
    }
    let list = to(&["sip:alice@ims.test", "sip:bob@ims.test", "mailto:x"]);
    let audience = page_list(&settings(), list).await.expect("bob is left");
    assert_eq!(uris(&audience), ["sip:bob@ims.test"]);
    let why: BTreeMap<&str, Removal> =
        audience.removed.iter().map(|(party, why)| (&*party.uri, *why)).collect();
    assert_eq!(why["sip:alice@ims.test"], Removal::Originator);
    assert_eq!(why["mailto:x"], Removal::Unroutable);
    let history: Vec<&str> = audience.history.iter().map(|r| &*r.party.uri).collect();
    assert_eq!(history, ["sip:alice@ims.test", "sip:bob@ims.test", "mailto:x"]);
}

/// Proves IM-032, UL-020.
#[tokio::test]
async fn a_list_is_served_whole_or_not_at_all() {
    let many = |n: usize| -> Vec<Recipient> {
        (0..n).map(|n| entry(&format!("sip:u{n}@ims.test"), Copy::To)).collect()
    };
    let got = page_list(&settings(), many(50)).await.expect("50 are allowed");
    assert_eq!(got.recipients.len(), 50);
    assert_eq!(
        said(page_list(&settings(), many(51)).await),
        refused(486, "102 Too many participants")
    );
    let mut doubled = many(50);
    doubled.extend(many(50));
    assert!(
        page_list(&settings(), doubled).await.is_ok(),
        "the limit counts after duplicates are gone"
    );
}

/// Proves IM-003, UL-010.
#[tokio::test]
async fn a_list_names_its_distinct_uris_in_order() {
    let list = to(&["sip:bob@ims.test", "sip:carol@ims.test", "sip:bob@IMS.test"]);
    let audience = page_list(&settings(), list).await.expect("two are left");
    assert_eq!(uris(&audience), ["sip:bob@ims.test", "sip:carol@ims.test"]);
    assert_eq!(audience.removed.len(), 1);
    assert_eq!(audience.removed[0].1, Removal::Duplicate);
}

/// Proves UL-016.
#[tokio::test]
async fn a_group_in_a_list_is_a_failed_target() {
    let list = to(&["sip:bob@ims.test", TEAM]);
    let audience = page_list(&settings(), list).await.expect("bob is left");
    assert_eq!(uris(&audience), ["sip:bob@ims.test"]);
    assert_eq!(audience.removed[0].1, Removal::NestedGroup);
}

/// Proves UL-033.
#[tokio::test]
async fn a_list_cannot_be_used_as_a_weapon() {
    let literals: Vec<Recipient> =
        (1..=50).map(|n| entry(&format!("sip:a@192.0.2.{n}"), Copy::To)).collect();
    let got = said(page_list(&settings(), literals).await);
    assert_eq!(got, refused(403, "No destinations"), "50 address literals");

    let here = Settings { allow_loopback: true, ..settings() };
    let list = || to(&["sip:bob@127.0.0.1:6000", "sip:eve@192.0.2.1"]);
    let audience = page_list(&here, list()).await.expect("loopback passes");
    assert_eq!(uris(&audience), ["sip:bob@127.0.0.1:6000"]);
    assert_eq!(said(page_list(&settings(), list()).await), refused(403, "No destinations"));

    let foreign = |n: usize| -> Vec<Recipient> {
        (0..n).map(|n| entry(&format!("sip:a@h{n}.example"), Copy::To)).collect()
    };
    assert!(page_list(&settings(), foreign(20)).await.is_ok());
    assert_eq!(said(page_list(&settings(), foreign(21)).await).0, 403);

    let place = Place::new("budget");
    let small = Settings { budget_per_minute: 5, ..settings() };
    let resolver = Resolver::new(small, place.store(&[]));
    let start = tokio::time::Instant::now().into_std();
    let query = |who: &str, n: usize, now: Instant| Query {
        target: Target::List(
            (0..n).map(|n| entry(&format!("sip:u{n}@ims.test"), Copy::To)).collect(),
        ),
        identities: vec![party(who)],
        names: Vec::new(),
        anonymous: false,
        now,
        time: SystemTime::UNIX_EPOCH,
    };
    let alice = "sip:alice@ims.test";
    assert!(resolver.resolve(query(alice, 3, start)).await.is_ok());
    let later = start + Duration::from_secs(59);
    assert_eq!(said(resolver.resolve(query(alice, 3, later)).await).0, 486, "6 in a minute");
    assert!(resolver.resolve(query(alice, 2, later)).await.is_ok(), "5 are allowed");
    assert!(
        resolver.resolve(query("sip:bob@ims.test", 3, later)).await.is_ok(),
        "another one's budget"
    );
    let next = start + Duration::from_secs(60);
    assert!(resolver.resolve(query(alice, 5, next)).await.is_ok(), "the minute is over");
}

#[tokio::test]
async fn consent_and_barring_are_obeyed() {
    let strict = Settings { consent: Consent::Rfc5360, ..settings() };
    let refusal = page_list(&strict, to(&["sip:carol@ims.test"])).await.expect_err("no permission");
    assert_eq!(refusal.status, 470);
    assert_eq!(refusal.headers, [("Permission-Missing", "<sip:carol@ims.test>".to_owned())]);

    let place = Place::new("barred");
    let resolver = Resolver::new(settings(), place.store(&[]));
    resolver.set_barred(["sip:carol@IMS.test"]);
    let query = Query {
        target: Target::List(to(&["sip:carol@ims.test", "sip:bob@ims.test"])),
        identities: vec![party("sip:alice@ims.test")],
        names: Vec::new(),
        anonymous: true,
        now: tokio::time::Instant::now().into_std(),
        time: SystemTime::UNIX_EPOCH,
    };
    let audience =
        resolver.resolve(query).await.expect("bob is left, and a list may be paged anonymously");
    assert_eq!(uris(&audience), ["sip:bob@ims.test"]);
    assert_eq!(audience.removed[0].1, Removal::Barred);
}

/// Proves XD-022, XD-023, XD-026, XD-033, XD-034, XD-035, XD-036, IM-004, IM-022.
#[tokio::test]
async fn the_truth_table_of_the_rules_holds() {
    let everybody = |but: &str| -> Vec<String> {
        ["alice", "bob", "+491701112223", "carol", "dave", "erin", "gus"]
            .iter()
            .filter(|name| **name != but)
            .map(|name| match name.strip_prefix('+') {
                Some(_) => format!("tel:{name}"),
                None => format!("sip:{name}@ims.test"),
            })
            .collect()
    };
    let not_allowed = || Err(refused(403, "Function not allowed"));
    let many = "<cp:rule id=\"all\"><cp:conditions><cp:identity><cp:many domain=\"ims.test\"/></cp:identity>\
        </cp:conditions><cp:actions><allow-initiate-conference>true</allow-initiate-conference></cp:actions></cp:rule></cp:ruleset>";
    let but_mallory = many.replace(
        "\"/></cp:identity>",
        "\"><cp:except id=\"sip:mallory@ims.test\"/></cp:many></cp:identity>",
    );
    let named_false = "<cp:rule id=\"b\"><cp:conditions><cp:identity><cp:one id=\"sip:bob@ims.test\"/></cp:identity>\
        </cp:conditions><cp:actions><allow-initiate-conference>false</allow-initiate-conference></cp:actions></cp:rule></cp:ruleset>";
    let end = "</cp:ruleset>";
    let owner = "<allow-initiate-conference>true</allow-initiate-conference>\n          <allow-invite-users-dynamically>true";
    type Row<'a> =
        (u8, &'a str, bool, Vec<(&'a str, &'a str)>, Result<Vec<String>, (u16, Option<String>)>);
    let rows: Vec<Row<'_>> = vec![
        (1, "bob", false, vec![], Ok(everybody("bob"))),
        (2, "bob", true, vec![], Err(refused(403, "Anonymity not allowed"))),
        (3, "alice", true, vec![], Ok(everybody("alice"))),
        (4, "gus", false, vec![], Ok(everybody("gus"))),
        (5, "mallory", false, vec![], not_allowed()),
        (6, "bob", false, vec![(end, named_false)], Ok(everybody("bob"))),
        (
            7,
            "alice",
            false,
            vec![(owner, "<allow-invite-users-dynamically>true")],
            Ok(everybody("alice")),
        ),
        (8, "mallory", false, vec![(end, many)], Ok(everybody(""))),
        (9, "mallory", false, vec![(end, &but_mallory)], not_allowed()),
        (
            10,
            "bob",
            false,
            vec![("<is-list-member/>", "<is-list-member/><x:new xmlns:x=\"urn:x\"/>")],
            not_allowed(),
        ),
        (13, "bob", false, vec![("<invite-members>true", "<invite-members>false")], not_allowed()),
        (
            14,
            "bob",
            false,
            vec![("<max-participant-count>20", "<max-participant-count>3")],
            Err(refused(486, "102 Too many participants")),
        ),
    ];
    for (row, who, anonymous, changes, want) in rows {
        let bench = Bench::new(&format!("row{row}"), &group_of(&changes), FRANK, settings());
        let got = bench.page(&format!("sip:{who}@ims.test"), anonymous).await;
        match want {
            Ok(want) => {
                let audience = got.unwrap_or_else(|why| panic!("row {row}: {why:?}"));
                assert!(
                    bench.source.fetches.load(Ordering::Relaxed) > 0,
                    "row {row}: the XDMS was asked"
                );
                // The owner is a key participant and is invited first; the others in document order.
                assert_eq!(uris(&audience), want, "row {row}");
                assert!(audience.history.is_empty(), "row {row}");
            }
            Err(want) => assert_eq!(said(got), want, "row {row}"),
        }
    }
}

/// Proves XD-033, XD-036.
#[tokio::test]
async fn settings_change_what_the_table_says() {
    let ruleset = group_of(&[]);
    let (start, end) = (
        ruleset.find("<cp:ruleset>").expect("there"),
        ruleset.find("</list-service>").expect("there"),
    );
    let without = format!("{}{}", &ruleset[..start], &ruleset[end..]);
    let bench = Bench::new("row11", &without, FRANK, settings());
    assert_eq!(
        said(bench.page("sip:bob@ims.test", false).await),
        refused(403, "Function not allowed"),
        "row 11"
    );
    let members = Settings { absent_ruleset_members: true, ..settings() };
    let bench = Bench::new("row11m", &without, FRANK, members);
    assert!(bench.page("sip:bob@ims.test", false).await.is_ok(), "row 11, members");
    assert_eq!(said(bench.page("sip:mallory@ims.test", false).await).0, 403, "row 11, no member");

    let rfc = Settings { anon_reject: AnonReject::Rfc, ..settings() };
    let bench = Bench::new("row2", &group_of(&[]), FRANK, rfc);
    assert_eq!(said(bench.page("sip:bob@ims.test", true).await), (433, None), "row 2");

    let chat = Settings { pager_to_chat_group: true, ..settings() };
    let bench = Bench::new(
        "row13",
        &group_of(&[("<invite-members>true", "<invite-members>false")]),
        FRANK,
        chat,
    );
    assert!(bench.page("sip:bob@ims.test", false).await.is_ok(), "row 13, pager_to_chat_group");
}

/// Proves IM-033, XD-024.
#[tokio::test]
async fn what_cannot_be_had_is_480_and_what_is_not_there_404() {
    let later = |result: Result<Audience, Refusal>| {
        let refusal = result.expect_err("has to be refused");
        assert!(refusal.retry_after.is_some_and(|seconds| seconds > 0));
        assert_eq!(refusal.status, 480);
    };
    let down = Bench::new("down", &group_of(&[]), FRANK, settings()).down("*");
    later(down.page("sip:bob@ims.test", false).await);
    let part = Bench::new("part", &group_of(&[]), FRANK, settings()).down("resource-lists");
    later(part.page("sip:bob@ims.test", false).await);
    let looping = Bench::new("loop", &group_of(&[]), FRANK_LOOP, settings());
    later(looping.page("sip:bob@ims.test", false).await);
    let gone = Bench::new("gone", &group_of(&[("night-shift", "no-such-list")]), FRANK, settings());
    later(gone.page("sip:bob@ims.test", false).await);
    let elsewhere = group_of(&[(
        "http://127.0.0.1:8080/xcap-root/resource-lists",
        "http://169.254.169.254/resource-lists",
    )]);
    let elsewhere = Bench::new("ssrf", &elsewhere, FRANK, settings());
    later(elsewhere.page("sip:bob@ims.test", false).await);
    assert_eq!(
        elsewhere.source.fetches.load(Ordering::Relaxed),
        1,
        "only the group itself was asked for"
    );

    let partial = Settings { partial_lists: true, ..settings() };
    let some = Bench::new("partial", &group_of(&[]), FRANK, partial.clone()).down("resource-lists");
    let audience = some.page("sip:bob@ims.test", false).await.expect("row 12");
    assert_eq!(uris(&audience), ["sip:alice@ims.test", "tel:+491701112223"]);
    let round = Bench::new("partloop", &group_of(&[]), FRANK_LOOP, partial);
    let audience = round.page("sip:alice@ims.test", false).await.expect("the loop is cut");
    assert_eq!(
        uris(&audience),
        [
            "sip:bob@ims.test",
            "tel:+491701112223",
            "sip:carol@ims.test",
            "sip:dave@ims.test",
            "sip:erin@ims.test",
            "sip:gus@ims.test"
        ]
    );

    let bench = Bench::new("other", &group_of(&[]), FRANK, settings());
    let target = Target::Group(party("sip:nobody@groups.ims.test"));
    let got = ask(&settings(), bench.source.clone(), &["sip:bob@ims.test"], target, false).await;
    assert_eq!(said(got), (404, None));
}

/// Proves XD-026.
#[tokio::test]
async fn a_group_has_limits_and_no_group_for_a_member() {
    let members: String = (0..12).map(|n| format!("<entry uri=\"sip:m{n}@ims.test\"/>")).collect();
    let big = group_of(&[(
        "<entry uri=\"sip:bob@ims.test\"/>",
        &format!("<entry uri=\"sip:bob@ims.test\"/>{members}"),
    )]);
    let small = Settings { max_members: 17, ..settings() };
    let bench = Bench::new("members", &big, FRANK, small);
    assert_eq!(
        said(bench.page("sip:bob@ims.test", false).await),
        refused(486, "102 Too many participants")
    );
    let enough = Settings { max_members: 18, ..settings() };
    let bench = Bench::new("members2", &big, FRANK, enough);
    assert_eq!(bench.page("sip:bob@ims.test", false).await.map(|a| a.recipients.len()), Ok(18));

    let nested = group_of(&[(
        "<entry uri=\"sip:bob@ims.test\"/>",
        "<entry uri=\"sip:bob@ims.test\"/><entry uri=\"sip:team7@groups.ims.test\"/><entry uri=\"sip:other@groups.ims.test\"/><entry uri=\"mailto:x@y\"/>",
    )]);
    let bench = Bench::new("nested", &nested, FRANK, settings());
    let audience = bench.page("sip:bob@ims.test", false).await.expect("the others are left");
    assert_eq!(audience.recipients.len(), 6);
    let why: Vec<Removal> = audience.removed.iter().map(|(_, why)| *why).collect();
    for reason in [Removal::NestedGroup, Removal::Unroutable, Removal::Originator] {
        assert!(why.contains(&reason), "{reason:?}");
    }

    let alone = format!(
        "<group xmlns=\"urn:oma:xml:poc:list-service\" xmlns:cp=\"urn:ietf:params:xml:ns:common-policy\"><list-service uri=\"{TEAM}\">\
         <list><entry uri=\"sip:bob@ims.test\"/></list><invite-members>true</invite-members><cp:ruleset><cp:rule id=\"a\"><cp:actions>\
         <allow-initiate-conference>true</allow-initiate-conference></cp:actions></cp:rule></cp:ruleset></list-service></group>"
    );
    let bench = Bench::new("alone", &alone, FRANK, settings());
    assert_eq!(said(bench.page("sip:bob@ims.test", false).await), refused(403, "No destinations"));
}

/// Proves XD-037.
#[tokio::test]
async fn an_audience_is_frozen_when_it_is_made() {
    let bench = Bench::new("frozen", &group_of(&[]), FRANK, settings());
    let audience = bench.page("sip:bob@ims.test", false).await.expect("allowed");
    let before = uris(&audience).len();
    let path = DocumentPath::group("sip:alice@ims.test", "team7");
    let emptied = group_of(&[("<entry uri=\"tel:+491701112223\"/>", "")]);
    bench
        .source
        .store
        .put(&path, Bytes::from(emptied), &Condition::default())
        .expect("a valid document");
    assert_eq!(uris(&audience).len(), before);
    let next = bench.page("sip:bob@ims.test", false).await.expect("allowed");
    assert_eq!(uris(&next).len(), before - 1, "the next page sees the change");
}

/// Proves XD-003, XD-029.
#[tokio::test]
async fn of_several_groups_in_a_document_the_one_that_is_meant_counts() {
    let first = "<list-service uri=\"sip:first@groups.ims.test\"><list><entry uri=\"sip:zoe@ims.test\"/></list></list-service>";
    let two = group_of(&[(
        "<list-service uri=\"sip:team7",
        &format!("{first}<list-service uri=\"sip:team7"),
    )]);
    let bench = Bench::new("two", &two, FRANK, settings());
    let audience = bench.page("sip:bob@ims.test", false).await.expect("allowed");
    assert!(!uris(&audience).contains(&"sip:zoe@ims.test"));
    // One fetch for the group, one for each of its three references; nothing is guessed.
    assert_eq!(bench.source.fetches.load(Ordering::Relaxed), 4);
    let target = Target::Group(party("sip:first@groups.ims.test"));
    let got = ask(&settings(), bench.source.clone(), &["sip:bob@ims.test"], target, false).await;
    assert_eq!(said(got), refused(403, "Function not allowed"), "it has no rules of its own");
    let lying = Arc::new(Renamed(bench.source.store.clone()));
    let target = Target::Group(party("sip:third@groups.ims.test"));
    let got = ask(&settings(), lying, &["sip:bob@ims.test"], target, false).await;
    assert_eq!(said(got), (404, None), "a document that does not hold the group");
}

/// Gives one group's document for every group.
struct Renamed(Arc<Store>);

impl Source for Renamed {
    fn fetch<'a>(&'a self, _: &'a DocumentPath) -> Fetching<'a> {
        Box::pin(std::future::ready(Ok(self.0.get(&DocumentPath::by_group(TEAM)))))
    }
}

#[tokio::test]
async fn a_group_for_other_things_takes_no_page() {
    let supported = |inside: &str| {
        let added =
            format!("</cp:ruleset><oxe:supported-services>{inside}</oxe:supported-services>");
        group_of(&[("</cp:ruleset>", &added)])
    };
    let cases = [
        ("<oxe:service enabler=\"im\"/>", Ok(())),
        (
            "<oxe:service enabler=\"im\"><oxe:group-media><oxe:pager-mode-message/></oxe:group-media></oxe:service>",
            Ok(()),
        ),
        (
            "<oxe:service enabler=\"im\"><oxe:group-media><oxe:audio/></oxe:group-media></oxe:service>",
            Err(488),
        ),
        ("<oxe:service enabler=\"poc\"/>", Err(488)),
        ("", Err(488)),
    ];
    for (n, (inside, want)) in cases.into_iter().enumerate() {
        let only_im = Settings { im_enabler_ids: vec!["im".into()], ..settings() };
        let bench = Bench::new(&format!("service{n}"), &supported(inside), FRANK, only_im);
        let got = bench.page("sip:bob@ims.test", false).await;
        assert_eq!(got.map(|_| ()).map_err(|why| why.status), want, "{inside}");
    }
}
