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
use pagecast::xdms::groups::Group;
use pagecast::xdms::path::DocumentPath;
use pagecast::xdms::resolver::{Fetching, Source, Unavailable};
use pagecast::xdms::store::{Condition, Document, GROUP_TYPE, Quotas, Store};
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
        let quotas = Quotas { members: 2000, ..Quotas::default() };
        let store = Store::open(&self.directory, quotas).expect("a temporary directory");
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

/// Who, anonymously or not, the changes of the document and of the settings, and what comes of it.
struct Row<'a> {
    number: &'a str,
    who: &'a str,
    anonymous: bool,
    changes: Vec<(&'a str, &'a str)>,
    settings: Settings,
    /// Documents that cannot be had.
    down: &'a str,
    want: Result<Vec<String>, (u16, Option<String>)>,
}

/// The fourteen rows of section 10.9, each with and without precedence: none of them tells the two apart.
///
/// Proves XD-022, XD-023, XD-024, XD-026, XD-031, XD-032, XD-033, XD-034, XD-035, XD-036, XD-037, IM-004, IM-022, IM-033, IM-089.
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
    let ruleset = group_of(&[]);
    let start = ruleset.find("<cp:ruleset>").expect("there");
    let stop = ruleset.find("</list-service>").expect("there");
    let rules = &ruleset[start..stop];
    let unknown = "<is-list-member/><x:new xmlns:x=\"urn:x\"/>";
    let chat = ("<invite-members>true", "<invite-members>false");
    let small = ("<max-participant-count>20", "<max-participant-count>3");
    let too_many = Err(refused(486, "102 Too many participants"));
    let hidden = |status, text: Option<&str>| Err((status, text.map(str::to_owned)));
    let rfc = Settings { anon_reject: AnonReject::Rfc, ..settings() };
    let members = Settings { absent_ruleset_members: true, ..settings() };
    let partial = Settings { partial_lists: true, ..settings() };
    let some = ["sip:alice@ims.test", "tel:+491701112223"].map(str::to_owned).to_vec();
    let row = |number, who, changes, want| Row {
        number,
        who,
        anonymous: false,
        changes,
        settings: settings(),
        down: "",
        want,
    };
    let rows = vec![
        row("1", "bob", vec![], Ok(everybody("bob"))),
        Row {
            anonymous: true,
            ..row("2", "bob", vec![], hidden(403, Some("Anonymity not allowed")))
        },
        Row { anonymous: true, settings: rfc, ..row("2, rfc", "bob", vec![], hidden(433, None)) },
        Row { anonymous: true, ..row("3", "alice", vec![], Ok(everybody("alice"))) },
        row("4", "gus", vec![], Ok(everybody("gus"))),
        row("5", "mallory", vec![], not_allowed()),
        row("6", "bob", vec![(end, named_false)], Ok(everybody("bob"))),
        row(
            "7",
            "alice",
            vec![(owner, "<allow-invite-users-dynamically>true")],
            Ok(everybody("alice")),
        ),
        row("8", "mallory", vec![(end, many)], Ok(everybody(""))),
        row("9", "mallory", vec![(end, &but_mallory)], not_allowed()),
        row("10", "bob", vec![("<is-list-member/>", unknown)], not_allowed()),
        row("11", "bob", vec![(rules, "")], not_allowed()),
        // Without rules there are no key participants, and the members come as they stand.
        Row {
            settings: members.clone(),
            ..row("11, members", "bob", vec![(rules, "")], Ok(everybody("bob")))
        },
        Row {
            settings: members,
            ..row("11, no member", "mallory", vec![(rules, "")], not_allowed())
        },
        Row { down: "resource-lists", ..row("12", "bob", vec![], hidden(480, None)) },
        Row {
            down: "resource-lists",
            settings: partial,
            ..row("12, partial", "bob", vec![], Ok(some))
        },
        row("13", "bob", vec![chat], not_allowed()),
        row("14", "bob", vec![small], too_many),
    ];
    for row in rows {
        for oma_precedence in [true, false] {
            let name = format!("row {}, precedence {oma_precedence}", row.number);
            let settings = Settings { oma_precedence, ..row.settings.clone() };
            let mut bench = Bench::new("row", &group_of(&row.changes), FRANK, settings);
            if !row.down.is_empty() {
                bench = bench.down(row.down);
            }
            let got = bench.page(&format!("sip:{}@ims.test", row.who), row.anonymous).await;
            match &row.want {
                Ok(want) => {
                    let audience = got.unwrap_or_else(|why| panic!("{name}: {why:?}"));
                    assert!(
                        bench.source.fetches.load(Ordering::Relaxed) > 0,
                        "{name}: the XDMS was asked"
                    );
                    // The owner is a key participant and is invited first; the others in document order.
                    assert_eq!(&uris(&audience), want, "{name}");
                    assert!(audience.history.is_empty(), "{name}");
                }
                Err(want) => {
                    let refusal = got.expect_err("refused");
                    assert_eq!(refusal.retry_after.is_some(), refusal.status == 480, "{name}");
                    assert_eq!(&said(Err(refusal)), want, "{name}");
                }
            }
        }
    }
}

/// Proves IM-033.
#[tokio::test]
async fn a_chat_group_takes_pages_where_the_operator_says_so() {
    let chat = Settings { pager_to_chat_group: true, ..settings() };
    let document = group_of(&[("<invite-members>true", "<invite-members>false")]);
    let bench = Bench::new("chat", &document, FRANK, chat);
    assert!(bench.page("sip:bob@ims.test", false).await.is_ok());
}

/// Section 10.9 has no row in which the classes disagree; these have.
///
/// Proves XD-034, XD-035, XD-037.
#[tokio::test]
async fn precedence_and_missing_lists_decide_between_rules() {
    let rules = std::cell::Cell::new(0);
    let grant = |conditions: &str, may: bool| {
        rules.set(rules.get() + 1);
        let id = rules.get();
        format!(
            "<cp:rule id=\"x{id}\"><cp:conditions>{conditions}</cp:conditions><cp:actions>\
             <allow-initiate-conference>{may}</allow-initiate-conference></cp:actions></cp:rule>"
        )
    };
    let one = |id: &str| format!("<cp:identity><cp:one id=\"{id}\"/></cp:identity>");
    let list = |owner: &str, name: &str| {
        format!(
            "<ocp:external-list><ocp:entry anc=\"{ROOT}/resource-lists/users/{owner}/index/~~/resource-lists/\
             list%5b@name=%22{name}%22%5d\"/></ocp:external-list>"
        )
    };
    let many = "<cp:identity><cp:many/></cp:identity>";
    let pool = list("sip:frank@ims.test", "pool");
    let gone = list("sip:frank@ims.test", "none");
    let gus = "sip:gus@ims.test";
    // Conditions with what they grant to Gus, who is in the pool; the answer with precedence and without.
    let later = 480;
    type Case<'a> = (Vec<(&'a str, bool)>, u16, u16);
    let cases: Vec<Case<'_>> = vec![
        (vec![(&pool, true), (many, false)], 200, 200),
        (vec![(&pool, false), (many, true)], 403, 200),
        (vec![(&gone, true)], later, later),
        (vec![(&gone, false)], 403, 403),
        // The missing list might be closer than the rule that grants; without precedence it can take nothing away.
        (vec![(&gone, false), (many, true)], later, 200),
        (vec![(&gone, true), (many, true)], 200, 200),
        (vec![(&gone, false), (&pool, true)], 200, 200),
        (vec![(&gone, true), (&pool, false)], later, later),
        (vec![(&gone, false), ("<ocp:other-identity/>", true)], later, later),
    ];
    let from = group_of(&[]);
    let (start, stop) = (
        from.find("<cp:ruleset>").expect("there") + "<cp:ruleset>".len(),
        from.find("</cp:ruleset>").expect("there"),
    );
    let named = one(gus);
    let with_name: Vec<Case<'_>> = vec![
        // Named in person: no list is closer.
        (vec![(&gone, false), (&named, true)], 200, 200),
        (vec![(&gone, true), (&named, false)], 403, later),
    ];
    for (rules, with, without) in cases.into_iter().chain(with_name) {
        let text: String = rules.iter().map(|(conditions, may)| grant(conditions, *may)).collect();
        let document = format!("{}{text}{}", &from[..start], &from[stop..]);
        for (oma_precedence, want) in [(true, with), (false, without)] {
            for partial_lists in [false, true] {
                let settings = Settings { oma_precedence, partial_lists, ..settings() };
                let bench = Bench::new("classes", &document, FRANK, settings);
                let got = bench.page(gus, false).await.map_or_else(|why| why.status, |_| 200);
                assert_eq!(got, want, "{rules:?}, precedence {oma_precedence}, {partial_lists}");
            }
        }
    }
}

/// Section 11, item 5.
///
/// Proves XD-022, XD-023, XD-024, XD-025, XD-026.
#[tokio::test]
async fn lists_that_are_wrong_or_too_large_make_the_group_unresolvable() {
    let anchor = |owner: &str, rest: &str| {
        format!("{ROOT}/resource-lists/users/sip:{owner}@ims.test/index/~~/resource-lists/{rest}")
    };
    let list = |name: &str| format!("list%5b@name=%22{name}%22%5d");
    let lists = |inside: &str| {
        format!(
            "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\">{inside}</resource-lists>"
        )
    };
    let external = |anchor: &str| format!("<external anchor=\"{anchor}\"/>");
    let chain = |n: usize| {
        let one = |at: usize| {
            let next = external(&anchor("frank", &list(&format!("l{}", at + 1))));
            let next = if at + 1 == n { String::new() } else { next };
            format!("<list name=\"l{at}\"><entry uri=\"sip:m{at}@ims.test\"/>{next}</list>")
        };
        lists(&(0..n).map(one).collect::<String>())
    };
    let wide = |n: usize| {
        let named =
            |at: usize| format!("<list name=\"w{at}\"><entry uri=\"sip:w{at}@ims.test\"/></list>");
        let all: String =
            (0..n).map(|at| external(&anchor("frank", &list(&format!("w{at}"))))).collect();
        lists(&format!("<list name=\"l0\">{all}</list>{}", (0..n).map(named).collect::<String>()))
    };
    let in_frank = |inside: &str| lists(&format!("<list name=\"l0\">{inside}</list>"));
    let first = external(&anchor("frank", &list("l0")));
    let to_alice = external(&anchor("alice", &list("back")));
    let entry_ref = |rest: &str| {
        format!(
            "<entry-ref ref=\"resource-lists/users/sip:frank@ims.test/index/~~/resource-lists/{rest}\"/>"
        )
    };
    let itself = external(&format!(
        "{ROOT}/org.openmobilealliance.groups/global/byGroupID/{TEAM}/~~/group/list-service/list"
    ));
    let thousand = |n: usize| {
        in_frank(&(0..n).map(|n| format!("<entry uri=\"sip:u{n}@ims.test\"/>")).collect::<String>())
    };
    let numbers = in_frank(
        "<entry uri=\"tel:+1-555-0001\"/><entry uri=\"sip:+15550001@ims.test;user=phone\"/><entry uri=\"sip:bob@ims.test\"/>",
    );
    // What is asked, the list of the group, Frank's lists, Alice's, and the status or how many are invited.
    type Case<'a> = (&'a str, String, String, String, Result<usize, u16>);
    let none = || lists("");
    let cases: Vec<Case<'_>> = vec![
        ("as it should be", first.clone(), chain(1), none(), Ok(1)),
        ("the group itself", itself, none(), none(), Err(480)),
        (
            "a list that names itself",
            first.clone(),
            in_frank(&external(&anchor("frank", &list("l0")))),
            none(),
            Err(480),
        ),
        (
            "A, B, A",
            first.clone(),
            in_frank(&to_alice),
            lists(&format!("<list name=\"back\">{first}</list>")),
            Err(480),
        ),
        ("19 more references", first.clone(), wide(19), none(), Ok(19)),
        ("20 more references", first.clone(), wide(20), none(), Err(480)),
        ("five deep", first.clone(), chain(5), none(), Ok(5)),
        ("six deep", first.clone(), chain(6), none(), Err(480)),
        (
            "another host",
            external(
                "http://192.0.2.1/xcap-root/resource-lists/users/a/index/~~/resource-lists/list",
            ),
            none(),
            none(),
            Err(480),
        ),
        ("no such document", external(&anchor("nobody", &list("l0"))), none(), none(), Err(480)),
        (
            "an anchor to an entry",
            external(&anchor("frank", &format!("{}/entry", list("l0")))),
            chain(1),
            none(),
            Err(480),
        ),
        (
            "an entry-ref to a list",
            first.clone(),
            in_frank(&entry_ref(&list("l1")))
                .replace("</resource-lists>", "<list name=\"l1\"/></resource-lists>"),
            none(),
            Err(480),
        ),
        ("1000 members", first.clone(), thousand(1000), none(), Ok(1000)),
        ("1001 members", first.clone(), thousand(1001), none(), Err(486)),
        ("one number in two forms", first.clone(), numbers, none(), Ok(1)),
        (
            "only the originator",
            first,
            in_frank("<entry uri=\"sip:bob@IMS.test\"/>"),
            none(),
            Err(403),
        ),
    ];
    for (what, members, frank, alice, want) in cases {
        let group = format!(
            "<group xmlns=\"urn:oma:xml:poc:list-service\" xmlns:cp=\"urn:ietf:params:xml:ns:common-policy\">\
             <list-service uri=\"{TEAM}\"><list>{members}</list><invite-members>true</invite-members>\
             <cp:ruleset><cp:rule id=\"a\"><cp:actions><allow-initiate-conference>true</allow-initiate-conference>\
             </cp:actions></cp:rule></cp:ruleset></list-service></group>"
        );
        let place = Place::new("item5");
        let store = place.store(&[
            ("sip:alice@ims.test", "team7", &group),
            ("sip:alice@ims.test", "index", &alice),
            ("sip:frank@ims.test", "index", &frank),
        ]);
        let target = Target::Group(party(TEAM));
        let got = ask(&settings(), store, &["sip:bob@ims.test"], target, false).await;
        if let Err(refusal) = &got {
            assert_eq!(refusal.retry_after.is_some(), refusal.status == 480, "{what}");
        }
        let got = got.map(|audience| audience.recipients.len()).map_err(|why| why.status);
        assert_eq!(got, want, "{what}");
    }
}

/// Gives one text as whatever group document is asked for; an XDMS elsewhere checks nothing.
struct Lenient(Arc<Document>);

impl Lenient {
    fn of(text: &str) -> Arc<Self> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let group = Group::parse(&bytes).expect("a group document");
        let (path, etag) = (DocumentPath::by_group(TEAM), "\"1\"".to_owned());
        let group = Some(Arc::new(group));
        Arc::new(Self(Arc::new(Document { path, etag, content_type: GROUP_TYPE, bytes, group })))
    }
}

impl Source for Lenient {
    fn fetch<'a>(&'a self, path: &'a DocumentPath) -> Fetching<'a> {
        let found = path.group_identity().map(|_| self.0.clone());
        Box::pin(std::future::ready(Ok(found)))
    }
}

/// Section 11, item 6.
///
/// Proves XD-019, XD-029, XD-030.
#[tokio::test]
async fn odd_groups_are_read_as_far_as_they_can_be() {
    const PLAIN: &str = "<group xmlns='urn:oma:xml:poc:list-service' xmlns:cp='urn:ietf:params:xml:ns:common-policy' \
        xmlns:oxe='urn:oma:xml:xdm:extensions'><list-service uri='sip:team7@groups.ims.test'>\
        <list><entry uri='sip:carol@ims.test'/></list><invite-members>true</invite-members>\
        <cp:ruleset><cp:rule id='a'><cp:conditions/><cp:actions>\
        <allow-initiate-conference>true</allow-initiate-conference></cp:actions></cp:rule></cp:ruleset>\
        </list-service></group>";
    const LIST: &str = "<list><entry uri='sip:carol@ims.test'/></list>";
    const INITIATE: &str = "<allow-initiate-conference>true</allow-initiate-conference>";
    let with = |more: &str| format!("{INITIATE}{more}");
    let scheduled = |inside: &str| {
        format!("</cp:ruleset><oxe:session-active-policy>{inside}</oxe:session-active-policy>")
    };
    let range = |from: &str, until: &str| {
        scheduled(&format!(
            "<oxe:schedule><oxe:time-range><oxe:start-time>{from}</oxe:start-time><oxe:end-time>{until}</oxe:end-time>\
             </oxe:time-range></oxe:schedule>"
        ))
    };
    let (past, now, future) =
        ("2030-03-17T17:46:39Z", "2030-03-17T17:46:40Z", "2030-03-17T17:46:41Z");
    let other = PLAIN
        .replace("xmlns=", "xmlns:q=")
        .replace("<cp:", "<w:")
        .replace("</cp:", "</w:")
        .replace("xmlns:cp", "xmlns:w");
    let other =
        ["group", "list-service", "list", "entry", "invite-members", "allow-initiate-conference"]
            .iter()
            .fold(other, |text, name| {
                let names = [
                    (format!("<{name} "), format!("<q:{name} ")),
                    (format!("<{name}>"), format!("<q:{name}>")),
                    (format!("</{name}>"), format!("</q:{name}>")),
                ];
                names.iter().fold(text, |text, (from, to)| text.replace(from, to))
            });
    let cases: Vec<(&str, String, Result<usize, u16>)> = vec![
        ("plain", PLAIN.to_owned(), Ok(1)),
        ("other prefixes", other, Ok(1)),
        (
            "two list-services",
            PLAIN.replace(
                "<list-service",
                "<list-service uri='sip:x@groups.ims.test'/><list-service",
            ),
            Ok(1),
        ),
        (
            "out of order",
            PLAIN.replace(LIST, "").replace("<cp:ruleset>", &format!("{LIST}<cp:ruleset>")),
            Ok(1),
        ),
        (
            "join-handling allow",
            PLAIN.replace(INITIATE, &with("<join-handling>allow</join-handling>")),
            Ok(1),
        ),
        ("TRUE is no boolean", PLAIN.replace(">true</allow-", ">TRUE</allow-"), Err(403)),
        ("white space", PLAIN.replace(">true</allow-", "> 1\n</allow-"), Ok(1)),
        ("TRUE for invite-members", PLAIN.replace(">true</invite", ">TRUE</invite"), Err(403)),
        ("no list", PLAIN.replace(LIST, ""), Err(403)),
        (
            "unknown action that must be understood",
            PLAIN.replace(INITIATE, &with("<x:new xmlns:x='urn:x' must-understand='true'/>")),
            Err(403),
        ),
        (
            "known action we do not do that must be understood",
            PLAIN.replace(
                INITIATE,
                &with("<oxe:allow-expelling oxe:must-understand='1'>true</oxe:allow-expelling>"),
            ),
            Err(403),
        ),
        ("unknown action", PLAIN.replace(INITIATE, &with("<x:new xmlns:x='urn:x'/>")), Ok(1)),
        (
            "a sphere",
            PLAIN.replace(
                "<cp:conditions/>",
                "<cp:conditions><cp:sphere value='work'/></cp:conditions>",
            ),
            Err(403),
        ),
        ("a schedule with now", PLAIN.replace("</cp:ruleset>", &range(now, future)), Ok(1)),
        ("a schedule that is over", PLAIN.replace("</cp:ruleset>", &range(past, now)), Err(480)),
        ("a schedule to come", PLAIN.replace("</cp:ruleset>", &range(future, future)), Err(480)),
        (
            "a schedule nobody can read",
            PLAIN.replace("</cp:ruleset>", &range("soon", "later")),
            Err(480),
        ),
        (
            "an empty schedule",
            PLAIN.replace("</cp:ruleset>", &scheduled("<oxe:schedule/>")),
            Err(480),
        ),
        (
            "what only sessions ask for",
            PLAIN.replace(
                "</cp:ruleset>",
                &scheduled("<oxe:min-participant-count>9</oxe:min-participant-count>"),
            ),
            Ok(1),
        ),
    ];
    for (what, text, want) in cases {
        let source = Lenient::of(&text);
        let target = Target::Group(party(TEAM));
        let got = ask(&settings(), source, &["sip:bob@ims.test"], target, false).await;
        let got = got.map(|audience| audience.recipients.len()).map_err(|why| why.status);
        assert_eq!(got, want, "{what}: {text}");
    }
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
    assert!(!audience.warnings.is_empty() && audience.warnings.len() <= 5, "{audience:?}");
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

/// Proves XD-029.
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
        (
            "<oxe:service enabler=\"im\"><oxe:all-media-except><oxe:audio/></oxe:all-media-except></oxe:service>",
            Ok(()),
        ),
        (
            "<oxe:service enabler=\"im\"><oxe:all-media-except><oxe:pager-mode-message/></oxe:all-media-except></oxe:service>",
            Err(488),
        ),
        (
            "<oxe:all-services-except><oxe:service enabler=\"poc\"/></oxe:all-services-except>",
            Ok(()),
        ),
        (
            "<oxe:all-services-except><oxe:service enabler=\"im\"/></oxe:all-services-except>",
            Err(488),
        ),
        (
            "<oxe:all-services-except><oxe:service enabler=\"im\"><oxe:group-media><oxe:audio/></oxe:group-media>\
             </oxe:service></oxe:all-services-except>",
            Ok(()),
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
