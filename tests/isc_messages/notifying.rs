//! The embedded XDMS as an event server: subscribers whose messages stand here, documents in a table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pagecast::content::xcap_diff::{self, Diff, Fate};
use pagecast::isc::settings::Settings;
use pagecast::isc::{DocumentState, Happening};

use crate::world::{Sent, World, header, headers, home, reply};

const SECOND: Duration = Duration::from_secs(1);
const TEAM7: &str = "org.openmobilealliance.groups/global/byGroupID/sip:team7@groups.ims.test";
const ALICE: &str = "resource-lists/users/sip:alice@ims.test/index";

fn serving() -> Settings {
    let mut settings = home();
    settings.documents.serve = "sip:xdms@home1.example".to_owned();
    settings.documents.root = "http://xcap.home1.example/services".to_owned();
    settings
}

/// A world and the documents in it.
struct Xdms {
    world: World,
    documents: BTreeMap<String, String>,
    /// What may not be read.
    closed: BTreeSet<String>,
}

impl Xdms {
    fn new(settings: Settings) -> Self {
        let documents = [(TEAM7, "\"g1\""), (ALICE, "\"a1\"")];
        let documents = documents.map(|(name, etag)| (name.to_owned(), etag.to_owned())).into();
        Self { world: World::new(settings), documents, closed: BTreeSet::new() }
    }

    /// Answers whoever asks for the state of documents.
    fn look(&mut self) {
        loop {
            let mut all = std::mem::take(&mut self.world.happened);
            let looks: Vec<_> =
                all.extract_if(.., |one| matches!(one, Happening::Look(_))).collect();
            self.world.happened = all;
            if looks.is_empty() {
                return;
            }
            for look in looks {
                let Happening::Look(look) = look else { continue };
                let state = |document: &Arc<str>| DocumentState {
                    name: Some(Arc::clone(document)),
                    etag: self
                        .documents
                        .get(&**document)
                        .filter(|_| !self.closed.contains(&**document))
                        .cloned(),
                };
                let states: Vec<_> = look.documents.iter().map(state).collect();
                self.world.isc.tell(self.world.now, &look, &states);
                self.world.drive();
            }
        }
    }

    fn receive(&mut self, text: &str) {
        self.world.receive(text);
        self.look();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.world.now + time;
        while let Some(at) = self.world.isc.next_wake().filter(|at| *at <= end) {
            self.world.pass(at - self.world.now);
            self.look();
        }
        self.world.pass(end - self.world.now);
    }

    /// A document is written, or removed.
    fn write(&mut self, document: &str, etag: Option<&str>) {
        match etag {
            Some(etag) => drop(self.documents.insert(document.to_owned(), format!("\"{etag}\""))),
            None => drop(self.documents.remove(document)),
        }
        self.world.isc.document_changed(self.world.now, Some(document));
        self.world.drive();
        self.look();
    }

    /// NOTIFYs sent so far, each once.
    fn notifies(&self) -> usize {
        let all = self.world.requests("NOTIFY");
        all.iter().map(|sent| headers(sent, "Via")).collect::<BTreeSet<_>>().len()
    }

    fn last(&self) -> &Sent {
        self.world.last_request("NOTIFY")
    }

    /// What the last NOTIFY tells, which the peer then takes.
    fn taken(&mut self) -> Vec<(String, Fate)> {
        let told = told(self.last());
        let answer = reply(self.last(), 200, "", "", "");
        self.receive(&answer);
        told
    }
}

fn told(notify: &Sent) -> Vec<(String, Fate)> {
    assert_eq!(header(notify, "Content-Type"), Some("application/xcap-diff+xml"));
    let Diff { root, changes, nodes } =
        xcap_diff::parse(notify.message.body()).expect("a body of ours");
    assert_eq!((root.as_str(), nodes.len()), ("http://xcap.home1.example/services", 0));
    changes.into_iter().map(|change| (change.document, change.fate)).collect()
}

fn exists(document: &str, etag: &str) -> (String, Fate) {
    (document.to_owned(), Fate::Exists { etag: etag.to_owned() })
}

fn changed(document: &str, previous: &str, etag: &str) -> (String, Fate) {
    let (previous, etag) = (previous.to_owned(), etag.to_owned());
    (document.to_owned(), Fate::Changed { previous, etag })
}

fn removed(document: &str, previous: &str) -> (String, Fate) {
    (document.to_owned(), Fate::Removed { previous: previous.to_owned() })
}

fn list(documents: &[&str]) -> String {
    let entries: String =
        documents.iter().map(|document| format!("<entry uri=\"{document}\"/>")).collect();
    format!(
        "<?xml version=\"1.0\"?>\n<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list>{entries}</list></resource-lists>"
    )
}

fn subscribe_with(call: u32, lines: &str, body: &str) -> String {
    format!(
        "SUBSCRIBE sip:xdms@home1.example SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40:5060;branch=z9hG4bK-s-{call}
Max-Forwards: 68
Record-Route: <sip:scscf1.home1.example;lr>
From: <sip:as2.home1.example>;tag=as2-{call}
To: <sip:xdms@home1.example>
Call-ID: watch-{call}@as2.home1.example
CSeq: 10 SUBSCRIBE
Contact: <sip:192.0.2.41:5060>
{lines}
{body}"
    )
}

const ASSERTED: &str = "P-Asserted-Identity: <sip:as2.home1.example>\n";
const LINES: &str = "P-Asserted-Identity: <sip:as2.home1.example>
P-Charging-Vector: icid-value=\"w-1\";orig-ioi=\"Type 3home1.example\"
Event: xcap-diff;diff-processing=aggregate
Accept: application/xcap-diff+xml
Expires: 3600
Content-Type: application/resource-lists+xml
";

fn subscribe(documents: &[&str]) -> String {
    subscribe_with(1, LINES, &list(documents))
}

/// In the dialog that has this To.
fn again_to(to: &str, cseq: u32, lines: &str, body: &str) -> String {
    format!(
        "SUBSCRIBE sip:im-as1.home1.example:5060 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40:5060;branch=z9hG4bK-a-{cseq}
Max-Forwards: 68
From: <sip:as2.home1.example>;tag=as2-1
To: {to}
Call-ID: watch-1@as2.home1.example
CSeq: {cseq} SUBSCRIBE
Contact: <sip:192.0.2.41:5060>
{lines}
{body}"
    )
}

/// Proves XD-043: the first NOTIFY lists what exists and may be read, with tags.
#[test]
fn the_first_notify_lists_what_is_there() {
    let mut xdms = Xdms::new(serving());
    let absent = "resource-lists/users/sip:nobody@ims.test/index";
    let secret = "resource-lists/users/sip:bob@ims.test/index";
    xdms.documents.insert(secret.to_owned(), "\"s1\"".to_owned());
    xdms.closed.insert(secret.to_owned());
    let root = format!("http://xcap.home1.example/services/{ALICE}");
    xdms.receive(&subscribe(&[
        TEAM7,
        absent,
        &root,
        secret,
        ALICE,
        "a//b",
        "",
        &format!("{ALICE}/~~/x"),
    ]));
    let accepted = xdms.world.answer();
    assert_eq!(accepted.message.status(), Some(200));
    assert_eq!(header(accepted, "Expires"), Some("3600"));
    assert_eq!(header(accepted, "Contact"), Some("<sip:im-as1.home1.example:5060>"));
    assert_eq!(header(accepted, "Record-Route"), Some("<sip:scscf1.home1.example;lr>"));
    assert!(header(accepted, "P-Charging-Vector").is_some_and(|text| text.contains("term-ioi")));
    assert_eq!(xdms.notifies(), 1);
    let notify = xdms.last();
    assert_eq!(notify.message.uri(), "sip:192.0.2.41:5060");
    let one = |name: &'static str| header(notify, name).unwrap_or_default();
    assert_eq!((one("Event"), one("Subscription-State")), ("xcap-diff", "active;expires=3600"));
    assert_eq!(one("P-Asserted-Identity"), "<sip:xdms@home1.example>");
    assert_eq!(one("Route"), "<sip:scscf1.home1.example;lr>");
    assert_eq!(one("P-Charging-Vector"), "icid-value=\"w-1\";orig-ioi=\"Type 3home1.example\"");
    assert!(!notify.text.contains("sip:bob@") && !notify.text.contains("sip:nobody@"));
    assert_eq!(xdms.taken(), [exists(TEAM7, "g1"), exists(ALICE, "a1")]);
    assert_eq!(xdms.world.isc.watchers(), 1);
    // None of them: an empty body that is one.
    let mut xdms = Xdms::new(serving());
    xdms.receive(&subscribe(&[absent]));
    assert_eq!(xdms.taken(), []);
}

/// Proves XD-043: ten quick changes are one NOTIFY in five seconds, and the last tag is right.
#[test]
fn quick_changes_are_told_in_one() {
    let mut xdms = Xdms::new(serving());
    xdms.receive(&subscribe(&[TEAM7, ALICE]));
    xdms.taken();
    xdms.pass(SECOND * 60);
    for n in 2..=11 {
        xdms.write(TEAM7, Some(&format!("g{n}")));
    }
    assert_eq!(xdms.notifies(), 2, "the first at once");
    assert_eq!(xdms.taken(), [changed(TEAM7, "g1", "g2")]);
    xdms.pass(SECOND * 5 - Duration::from_millis(1));
    assert_eq!(xdms.notifies(), 2);
    xdms.pass(Duration::from_millis(1));
    assert_eq!(xdms.notifies(), 3);
    assert_eq!(xdms.taken(), [changed(TEAM7, "g2", "g11")]);
    xdms.pass(SECOND * 60);
    assert_eq!(xdms.notifies(), 3);
    // Removed, created, and both before anybody is told.
    xdms.write(ALICE, None);
    assert_eq!(xdms.taken(), [removed(ALICE, "a1")]);
    xdms.write(ALICE, Some("a2"));
    xdms.write(TEAM7, Some("g12"));
    xdms.write(TEAM7, Some("g11"));
    xdms.pass(SECOND * 5);
    assert_eq!(xdms.taken(), [exists(ALICE, "a2")]);
    xdms.pass(SECOND * 5);
    xdms.write(ALICE, None);
    xdms.write(TEAM7, Some("g11"));
    xdms.write("resource-lists/global/other", Some("1"));
    assert_eq!(xdms.taken(), [removed(ALICE, "a2")]);
    let before = xdms.notifies();
    xdms.pass(SECOND * 60);
    assert_eq!(xdms.notifies(), before);
    // Who may not read it any more has it no more.
    xdms.closed.insert(TEAM7.to_owned());
    xdms.write(TEAM7, Some("g13"));
    assert_eq!(xdms.taken(), [removed(TEAM7, "g11")]);
    // Changes that were not heard one by one.
    xdms.closed.clear();
    xdms.world.isc.document_changed(xdms.world.now, None);
    xdms.pass(SECOND * 5);
    assert_eq!(xdms.taken(), [exists(TEAM7, "g13")]);
}

/// Proves XD-043: never a new NOTIFY before the answer to the last, and none after one that got no answer.
#[test]
fn the_answer_is_waited_for() {
    let mut xdms = Xdms::new(serving());
    xdms.receive(&subscribe(&[TEAM7]));
    xdms.write(TEAM7, Some("g2"));
    xdms.pass(SECOND * 20);
    assert_eq!(xdms.notifies(), 1);
    xdms.write(TEAM7, Some("g3"));
    assert_eq!(xdms.taken(), [exists(TEAM7, "g1")]);
    assert_eq!(xdms.notifies(), 2);
    // The 200 is withheld.
    xdms.pass(SECOND * 33);
    assert_eq!((xdms.notifies(), xdms.world.isc.watchers()), (2, 0));
    xdms.write(TEAM7, Some("g4"));
    xdms.pass(SECOND * 10);
    assert_eq!(xdms.notifies(), 2);
    assert_eq!(xdms.world.isc.ua().stats().watchers, 0);
    // Later, it says: what it refused is told again.
    let mut xdms = Xdms::new(serving());
    xdms.receive(&subscribe(&[TEAM7, ALICE]));
    xdms.taken();
    xdms.pass(SECOND * 10);
    xdms.write(TEAM7, Some("g2"));
    let busy = reply(xdms.last(), 500, "", "Retry-After: 8\n", "");
    xdms.receive(&busy);
    xdms.write(ALICE, None);
    xdms.pass(SECOND * 8);
    assert_eq!(xdms.taken(), [changed(TEAM7, "g1", "g2"), removed(ALICE, "a1")]);
    // 481: it knows of none.
    xdms.pass(SECOND * 10);
    xdms.write(TEAM7, Some("g3"));
    let none = reply(xdms.last(), 481, "", "", "");
    xdms.receive(&none);
    assert_eq!(xdms.world.isc.watchers(), 0);
}

/// Proves XD-043.
#[test]
fn a_subscription_is_refreshed_changed_and_ended() {
    let mut xdms = Xdms::new(serving());
    xdms.receive(&subscribe(&[TEAM7]));
    let accepted = xdms.world.sent.iter().find(|sent| sent.message.status() == Some(200));
    let to = header(accepted.expect("accepted"), "To").unwrap_or_default().to_owned();
    let again = |cseq, lines: &str, body: &str| again_to(&to, cseq, lines, body);
    xdms.taken();
    xdms.pass(SECOND);
    // Longer, without a list: the old one goes on, and everything is told.
    let short = format!("{ASSERTED}Event: xcap-diff\nExpires: 7200\n");
    xdms.receive(&again(11, &short, ""));
    assert_eq!(header(xdms.last(), "Subscription-State"), Some("active;expires=7200"));
    assert_eq!(xdms.taken(), [exists(TEAM7, "g1")]);
    // Another list.
    xdms.receive(&again(12, LINES, &list(&[ALICE])));
    assert_eq!(xdms.taken(), [exists(ALICE, "a1")]);
    let before = xdms.notifies();
    xdms.pass(SECOND * 10);
    xdms.write(TEAM7, Some("g2"));
    assert_eq!(xdms.notifies(), before, "it is not watched any more");
    // A list that cannot be, and somebody else: refused, and it goes on.
    xdms.receive(&again(13, LINES, "no list"));
    assert_eq!(xdms.world.answer().message.status(), Some(400));
    let other = LINES.replace("<sip:as2.home1.example>", "<sip:mallory@home1.example>");
    xdms.receive(&again(14, &other, &list(&[TEAM7])));
    assert_eq!(xdms.world.answer().message.status(), Some(403));
    xdms.receive(&again(15, &LINES.replace(ASSERTED, ""), &list(&[TEAM7])));
    assert_eq!(xdms.world.answer().message.status(), Some(403));
    xdms.receive(&again(16, &short.replace("7200", "9"), ""));
    assert_eq!(xdms.world.answer().message.status(), Some(423));
    assert_eq!(header(xdms.world.answer(), "Min-Expires"), Some("60"));
    xdms.write(ALICE, Some("a2"));
    assert_eq!(xdms.taken(), [changed(ALICE, "a1", "a2")]);
    // Over.
    xdms.receive(&again(17, &short.replace("7200", "0"), ""));
    assert_eq!(header(xdms.last(), "Subscription-State"), Some("terminated;reason=timeout"));
    xdms.taken();
    assert_eq!(xdms.world.isc.watchers(), 0);
    xdms.receive(&again(18, &short, ""));
    assert_eq!(xdms.world.answer().message.status(), Some(481));
    // Asked once.
    let mut xdms = Xdms::new(serving());
    xdms.receive(&subscribe_with(1, &LINES.replace("3600", "0"), &list(&[TEAM7])));
    assert_eq!(header(xdms.last(), "Subscription-State"), Some("terminated;reason=timeout"));
    assert_eq!(xdms.taken(), [exists(TEAM7, "g1")]);
    assert_eq!(xdms.world.isc.watchers(), 0);
    // Its time is over.
    let mut xdms = Xdms::new(serving());
    xdms.receive(&subscribe(&[TEAM7]));
    xdms.taken();
    xdms.pass(SECOND * 3600);
    assert_eq!(header(xdms.last(), "Subscription-State"), Some("terminated;reason=timeout"));
    assert!(xdms.last().message.body().is_empty(), "nothing is new");
    let over = reply(xdms.last(), 200, "", "", "");
    xdms.receive(&over);
    assert_eq!(xdms.world.isc.watchers(), 0);
    // The node stops.
    let mut xdms = Xdms::new(serving());
    xdms.receive(&subscribe(&[TEAM7]));
    xdms.taken();
    xdms.world.isc.end_watchers(xdms.world.now);
    xdms.world.drive();
    xdms.look();
    assert_eq!(header(xdms.last(), "Subscription-State"), Some("terminated;reason=deactivated"));
}

/// Proves XD-043, ISC-066.
#[test]
fn what_is_no_subscription_to_documents_is_refused() {
    let too_many: Vec<String> = (0..4).map(|n| format!("resource-lists/global/{n}")).collect();
    let too_many: Vec<&str> = too_many.iter().map(String::as_str).collect();
    let good = list(&[TEAM7]);
    let cases: Vec<(&str, String, String, u16, &str)> = vec![
        (
            "another event",
            LINES.replace("xcap-diff;", "presence;"),
            good.clone(),
            489,
            "Allow-Events: xcap-diff",
        ),
        (
            "no event",
            LINES.replace("Event: xcap-diff;diff-processing=aggregate\n", ""),
            good.clone(),
            489,
            "Allow-Events: xcap-diff",
        ),
        (
            "another body",
            LINES.replace("resource-lists+xml", "pidf+xml"),
            good.clone(),
            415,
            "Accept: application/resource-lists+xml",
        ),
        ("no body", LINES.to_owned(), String::new(), 400, "No list of documents"),
        ("no list", LINES.to_owned(), "<x/>".to_owned(), 400, "Warning"),
        ("a DTD", LINES.to_owned(), format!("<!DOCTYPE x>{good}"), 400, "Warning"),
        (
            "takes nothing we have",
            LINES.replace("application/xcap-diff+xml", "text/plain"),
            good.clone(),
            406,
            "Accept: application/xcap-diff+xml",
        ),
        (
            "required",
            format!("Require: eventlist\n{LINES}"),
            good.clone(),
            420,
            "Unsupported: eventlist",
        ),
        ("nobody", LINES.replace(ASSERTED, ""), good.clone(), 403, ""),
        ("too short", LINES.replace("3600", "59"), good.clone(), 423, "Min-Expires: 60"),
        ("too many documents", LINES.to_owned(), list(&too_many), 403, "Too many documents"),
    ];
    for (name, lines, body, status, says) in cases {
        let mut settings = serving();
        settings.documents.max_entries = 3;
        let mut xdms = Xdms::new(settings);
        xdms.receive(&subscribe_with(1, &lines, &body));
        let answer = xdms.world.answer();
        assert_eq!(answer.message.status(), Some(status), "{name}");
        assert!(answer.text.contains(says), "{name}: {}", answer.text);
        assert_eq!((xdms.notifies(), xdms.world.isc.watchers()), (0, 0), "{name}");
    }
    // Too many subscriptions: the core does not go on without us.
    let mut settings = serving();
    settings.documents.max_subscriptions = 1;
    let mut xdms = Xdms::new(settings);
    xdms.receive(&subscribe(&[TEAM7]));
    xdms.receive(&subscribe_with(2, LINES, &good));
    let answer = xdms.world.answer();
    assert_eq!((answer.message.status(), header(answer, "Retry-After")), (Some(480), Some("60")));
    assert!(answer.text.contains("Too many subscriptions"));
    // From outside, and to nobody.
    let mut xdms = Xdms::new(serving());
    xdms.world.receive_from("198.51.100.7:5060", &subscribe(&[TEAM7]));
    assert_eq!(xdms.world.answer().message.status(), Some(403));
    let mut xdms = Xdms::new(home());
    xdms.receive(&subscribe(&[TEAM7]));
    assert_eq!(xdms.world.answer().message.status(), Some(404));
    // No page, and no new one while stopping.
    let mut xdms = Xdms::new(serving());
    let invite = subscribe(&[TEAM7]).replace("SUBSCRIBE", "MESSAGE");
    xdms.receive(&invite);
    assert_eq!(xdms.world.answer().message.status(), Some(405));
    let mut xdms = Xdms::new(serving());
    xdms.world.isc.drain();
    xdms.receive(&subscribe(&[TEAM7]));
    assert_eq!(xdms.world.answer().message.status(), Some(503));
}

/// RFC 6665 §4.4.4: OPTIONS says what can be subscribed to.
#[test]
fn options_tells_the_event() {
    let mut xdms = Xdms::new(serving());
    let options = subscribe_with(1, ASSERTED, "").replace("SUBSCRIBE", "OPTIONS");
    xdms.receive(&options);
    let answer = xdms.world.answer();
    assert_eq!(answer.message.status(), Some(200));
    assert_eq!(header(answer, "Allow-Events"), Some("xcap-diff"));
    assert!(header(answer, "Allow").is_some_and(|allow| allow.ends_with(", SUBSCRIBE")));
}
