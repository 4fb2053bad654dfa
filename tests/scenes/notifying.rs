//! Groups of the XDMS in this node change: who watches them is told, and the next page knows at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pagecast::content::xcap_diff::{self, Fate};
use pagecast::sip::message::Message;
use pagecast::xdms::path::DocumentPath;
use pagecast::xdms::store::{Condition, Quotas, Store};

use crate::following::{finds_none, reaches};
use crate::net::{Heard, Net, SOON, Scscf, millis, seconds};
use crate::text::{self, header};
use crate::xdms::{SIP, TEAM, team};

/// A node that keeps the team itself, in Alice's tree.
async fn keeping(members: &[&str]) -> (Net, Arc<Store>) {
    let store = Arc::new(Store::in_memory(Quotas::default()));
    put(&store, members);
    let sip = format!("xdms.sip={SIP}");
    let net = Net::reading(&[&sip], Arc::clone(&store) as _, |_| {}).await;
    (net, store)
}

fn path() -> DocumentPath {
    DocumentPath::group("sip:alice@ims.test", "team")
}

/// The group as it is now; its tag without quotes.
fn put(store: &Store, members: &[&str]) -> String {
    let written = store.put(&path(), Bytes::from(team(members)), &Condition::default());
    written.expect("a good group").etag.trim_matches('"').to_owned()
}

/// Somebody who watches documents, through the core.
struct Watcher {
    core: Arc<Scscf>,
    user: &'static str,
    call_id: String,
    cseq: u32,
    to: String,
}

impl Watcher {
    async fn subscribes(net: &Net, user: &'static str, documents: &[&str], expires: u32) -> Self {
        let core = Arc::clone(net.scscf());
        let call_id = format!("watch-{}@as2", core.number());
        let mut watcher = Self { core, user, call_id, cseq: 0, to: format!("<{SIP}>") };
        let answer = watcher.asks(documents, expires).await;
        assert_eq!(answer.message.status(), Some(200), "{}", text::start_line(&answer.message));
        assert_eq!(header(&answer.message, "Expires"), expires.to_string());
        watcher.to = header(&answer.message, "To");
        watcher
    }

    async fn asks(&mut self, documents: &[&str], expires: u32) -> Heard {
        self.cseq += 1;
        let (cseq, user, call_id, to) = (self.cseq, self.user, &self.call_id, &self.to);
        let entries: String =
            documents.iter().map(|document| format!("<entry uri=\"{document}\"/>")).collect();
        self.core.delivers(&format!(
            "SUBSCRIBE {SIP} SIP/2.0\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK-{}\n\
             Max-Forwards: 68\nRecord-Route: {}\nFrom: <sip:{user}@ims.test>;tag=w\nTo: {to}\nCall-ID: {call_id}\n\
             CSeq: {cseq} SUBSCRIBE\nContact: <sip:{user}@192.0.2.66:5060>\n\
             P-Asserted-Identity: <sip:{user}@ims.test>\nEvent: xcap-diff;diff-processing=aggregate\n\
             Accept: application/xcap-diff+xml\nExpires: {expires}\n\
             Content-Type: application/resource-lists+xml\n\n\
             <resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list>{entries}</list></resource-lists>\n",
            self.core.number(),
            text::RECORD_ROUTE,
        ));
        let mine = |message: &Message| {
            message.status().is_some() && header(message, "Call-ID") == *call_id
        };
        self.core.hears_of("answer to SUBSCRIBE", SOON, mine).await
    }

    /// The next NOTIFY is due within that time; it is not answered yet.
    async fn hears(&self, within: Duration) -> Heard {
        let mine = |message: &Message| {
            message.is_request()
                && text::method(message) == "NOTIFY"
                && header(message, "Call-ID") == self.call_id
        };
        self.core.hears_of("NOTIFY", within, mine).await
    }

    fn takes(&self, notify: &Message) {
        self.core.delivers(&text::response(notify, 200, "", "", ""));
    }

    /// The next NOTIFY is due, and taken: what it says.
    async fn is_told(&self, within: Duration) -> Vec<(String, Fate)> {
        let heard = self.hears(within).await;
        self.takes(&heard.message);
        changes(&heard.message)
    }

    async fn leaves(&mut self) {
        self.asks(&[], 0).await;
        let heard = self.hears(seconds(6)).await;
        assert_eq!(header(&heard.message, "Subscription-State"), "terminated;reason=timeout");
        self.takes(&heard.message);
    }
}

fn changes(notify: &Message) -> Vec<(String, Fate)> {
    let diff = xcap_diff::parse(notify.body()).expect("a body of ours");
    assert_eq!(diff.root, "http://127.0.0.1:8080/xcap-root");
    diff.changes.into_iter().map(|change| (change.document, change.fate)).collect()
}

fn exists(document: &str, etag: &str) -> (String, Fate) {
    (document.to_owned(), Fate::Exists { etag: etag.to_owned() })
}

fn changed(document: &str, previous: &str, etag: &str) -> (String, Fate) {
    let (previous, etag) = (previous.to_owned(), etag.to_owned());
    (document.to_owned(), Fate::Changed { previous, etag })
}

/// A change in the XDMS of the same node is in force for the very next page.
///
/// Proves XD-046.
#[tokio::test(start_paused = true)]
async fn a_change_here_is_in_force_at_once() {
    let (net, store) = keeping(&["alice", "bob", "carol"]).await;
    reaches(&net, &["bob", "carol"]).await;
    put(&store, &["alice", "carol"]);
    reaches(&net, &["carol"]).await;
    put(&store, &["alice", "carol", "dan"]);
    reaches(&net, &["carol", "dan"]).await;
    store.delete(&path(), &Condition::default()).expect("it is there");
    finds_none(&net).await;
    net.ends().await;
}

/// Proves XD-043: ten quick writes give at most one NOTIFY in five seconds, and the last tag is right.
#[tokio::test(start_paused = true)]
async fn ten_quick_writes_are_two_notifies() {
    let (net, store) = keeping(&["alice", "bob"]).await;
    let first = store.etag(&path()).expect("it is there").trim_matches('"').to_owned();
    let mut bob = Watcher::subscribes(&net, "bob", &[TEAM], 3600).await;
    let heard = bob.hears(SOON).await;
    assert_eq!(changes(&heard.message), [exists(TEAM, &first)]);
    assert_eq!(header(&heard.message, "Subscription-State"), "active;expires=3600");
    bob.takes(&heard.message);
    net.after(seconds(60)).await.is_quiet();
    let mut tags = Vec::new();
    for n in 0..10 {
        let member = format!("user{n}");
        tags.push(put(&store, &["alice", "bob", &member]));
        net.after(millis(100)).await;
    }
    let one = bob.hears(SOON).await;
    assert_eq!(changes(&one.message), [changed(TEAM, &first, &tags[0])]);
    bob.takes(&one.message);
    net.after(seconds(3)).await.is_quiet();
    let two = bob.hears(seconds(3)).await;
    assert_eq!(two.at - one.at, seconds(5));
    assert_eq!(changes(&two.message), [changed(TEAM, &tags[0], &tags[9])]);
    bob.takes(&two.message);
    net.after(seconds(60)).await.is_quiet();
    bob.leaves().await;
    net.ends().await;
}

/// Proves XD-043, XD-018: what may not be read is left out, and what may no longer be read is gone.
#[tokio::test(start_paused = true)]
async fn only_what_may_be_read_is_told() {
    let own = "org.openmobilealliance.groups/users/sip:alice@ims.test/team";
    let absent = "resource-lists/users/sip:alice@ims.test/index";
    let (net, store) = keeping(&["alice", "bob"]).await;
    let first = store.etag(&path()).expect("it is there").trim_matches('"').to_owned();
    let mut alice = Watcher::subscribes(&net, "alice", &[TEAM, own, absent], 3600).await;
    assert_eq!(alice.is_told(SOON).await, [exists(TEAM, &first), exists(own, &first)]);
    let spelt = TEAM.replace("sip:team@groups", "SIP:team%40GROUPS");
    let mut bob = Watcher::subscribes(&net, "bob", &[&spelt, own], 3600).await;
    let spelt = "org.openmobilealliance.groups/global/byGroupID/SIP:team@GROUPS.ims.test";
    assert_eq!(bob.is_told(SOON).await, [exists(spelt, &first)], "in his own words");
    let mut mallory = Watcher::subscribes(&net, "mallory", &[TEAM, own], 3600).await;
    assert_eq!(mallory.is_told(SOON).await, []);
    net.after(seconds(10)).await;
    let second = put(&store, &["alice", "mallory"]);
    assert_eq!(
        alice.is_told(SOON).await,
        [changed(TEAM, &first, &second), changed(own, &first, &second)]
    );
    let removed = (spelt.to_owned(), Fate::Removed { previous: first.clone() });
    assert_eq!(bob.is_told(SOON).await, [removed]);
    // Mallory could not read it before, so that its name told nothing; now it does.
    assert_eq!(mallory.is_told(SOON).await, [exists(TEAM, &second)]);
    // Removed, and created again.
    net.after(seconds(10)).await;
    store.delete(&path(), &Condition::default()).expect("it is there");
    let gone = |document: &str| (document.to_owned(), Fate::Removed { previous: second.clone() });
    assert_eq!(alice.is_told(SOON).await, [gone(TEAM), gone(own)]);
    assert_eq!(mallory.is_told(SOON).await, [gone(TEAM)]);
    net.after(seconds(10)).await.is_quiet();
    let third = put(&store, &["alice", "bob"]);
    assert_eq!(alice.is_told(SOON).await, [exists(TEAM, &third), exists(own, &third)]);
    assert_eq!(bob.is_told(SOON).await, [exists(spelt, &third)]);
    net.after(seconds(10)).await.is_quiet();
    for watcher in [&mut alice, &mut bob, &mut mallory] {
        watcher.leaves().await;
    }
    net.ends().await;
}

/// Proves XD-043: a NOTIFY nobody takes is the last one.
#[tokio::test(start_paused = true)]
async fn who_withholds_the_200_is_forgotten() {
    let (net, store) = keeping(&["alice", "bob"]).await;
    let mut bob = Watcher::subscribes(&net, "bob", &[TEAM], 3600).await;
    let first = bob.hears(SOON).await;
    for n in 0..5 {
        let member = format!("user{n}");
        put(&store, &["alice", "bob", &member]);
        net.after(seconds(5)).await.is_quiet();
    }
    // Late, but in time: the last state, and nothing between.
    let last = store.etag(&path()).expect("it is there").trim_matches('"').to_owned();
    bob.takes(&first.message);
    let second = bob.hears(SOON).await;
    assert!(
        matches!(&changes(&second.message)[..], [(_, Fate::Changed { etag, .. })] if *etag == last)
    );
    // Never.
    net.after(seconds(33)).await.is_quiet();
    put(&store, &["alice", "bob"]);
    net.after(seconds(60)).await.is_quiet();
    let answer = bob.asks(&[TEAM], 3600).await;
    assert_eq!(answer.message.status(), Some(481));
    net.ends().await;
}

/// Asked once, and for a time that is over.
///
/// Proves XD-043.
#[tokio::test(start_paused = true)]
async fn a_subscription_ends_with_its_time() {
    let (net, _store) = keeping(&["alice", "bob"]).await;
    let once = Watcher::subscribes(&net, "bob", &[TEAM], 0).await;
    let heard = once.hears(SOON).await;
    assert_eq!(header(&heard.message, "Subscription-State"), "terminated;reason=timeout");
    assert_eq!(changes(&heard.message).len(), 1);
    once.takes(&heard.message);
    let short = Watcher::subscribes(&net, "bob", &[TEAM], 60).await;
    short.is_told(SOON).await;
    net.after(millis(59_500)).await.is_quiet();
    let heard = short.hears(seconds(1)).await;
    assert_eq!(header(&heard.message, "Subscription-State"), "terminated;reason=timeout");
    short.takes(&heard.message);
    net.ends().await;
}
