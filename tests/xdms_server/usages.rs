//! What each kind of document has to be, the views over all users, and what becomes of documents on a bad disk.

use super::*;

const BOB: &str = "sip:bob@ims.test";
const LISTS: &str = "urn:ietf:params:xml:ns:resource-lists";
const RLS: &str = "urn:ietf:params:xml:ns:rls-services";
const POLICY: &str = "urn:ietf:params:xml:ns:common-policy";
const SETTINGS: &str = "urn:oma:xml:im:service-settings";
const INDEX: &str = "/xcap-root/rls-services/global/index";
const SERVER: &str = "sip:pagecast@ims.test";

async fn bench() -> Bench {
    Bench::with(Quotas::default(), |s| s.writes_per_minute = 100_000).await
}

async fn put(bench: &Bench, who: &str, path: &str, kind: &str, body: &str) -> Got {
    let headers = [("X-3GPP-Asserted-Identity", who), ("Content-Type", kind)];
    bench.send("PUT", path, &headers, body.as_bytes()).await
}

fn services(inside: &str) -> String {
    format!("<rls-services xmlns=\"{RLS}\" xmlns:rl=\"{LISTS}\">{inside}</rls-services>")
}

/// Usages with a good document and one that breaks the schema.
///
/// Proves XD-001, XD-005, XD-006, XD-044.
#[tokio::test]
async fn every_usage_has_its_type_its_namespace_and_its_schema() {
    let bench = bench().await;
    let group = "<group xmlns=\"urn:oma:xml:poc:list-service\"><list-service uri=\"sip:g@groups.ims.test\"/></group>";
    let lists = format!("<resource-lists xmlns=\"{LISTS}\"><list name=\"a\"/></resource-lists>");
    let rls = services(
        "<service uri=\"sip:p@ims.test\"><list><rl:entry uri=\"sip:a@h\"/></list></service>",
    );
    let rules = format!("<ruleset xmlns=\"{POLICY}\"><rule id=\"a\"/></ruleset>");
    let settings =
        format!("<service-settings xmlns=\"{SETTINGS}\"><active>true</active></service-settings>");
    let cases: &[(&str, &str, &str, &str, &str)] = &[
        (
            "org.openmobilealliance.groups",
            "team",
            "application/vnd.oma.poc.groups+xml",
            group,
            "group/list-service",
        ),
        (
            "resource-lists",
            "index",
            "application/resource-lists+xml",
            &lists,
            "resource-lists/list",
        ),
        ("rls-services", "index", "application/rls-services+xml", &rls, "rls-services/service"),
        (
            "org.openmobilealliance.access-rules",
            "access-rules",
            "application/auth-policy+xml",
            &rules,
            "ruleset/rule",
        ),
        (
            "org.openmobilealliance.group-usage-list",
            "index",
            "application/vnd.oma.group-usage-list+xml",
            &lists,
            "resource-lists/list",
        ),
        (
            "org.openmobilealliance.im-service-settings",
            "im-service-settings",
            "application/vnd.oma.im.service-settings+xml",
            &settings,
            "service-settings/active",
        ),
    ];
    let caps = bench.get(ALICE, "/xcap-root/xcap-caps/global/index").await;
    for (auid, name, kind, text, selector) in cases {
        let path = format!("/xcap-root/{auid}/users/{ALICE}/{name}");
        for (other, status) in [("text/xml", 415), ("application/xml", 415), (*kind, 201)] {
            assert_eq!(
                put(&bench, ALICE, &path, other, text).await.status,
                status,
                "{auid} {other}"
            );
        }
        let read = bench.get(ALICE, &path).await;
        assert_eq!((read.body.as_str(), read.headers["content-type"].as_str()), (*text, *kind));
        let node = bench.get(ALICE, &format!("{path}/~~/{selector}")).await;
        assert_eq!(node.status, 200, "{auid}: unprefixed names are of the usage");
        assert_eq!(bench.get(BOB, &path).await.status, 403, "{auid}");
        assert_eq!(bench.get(SERVER, &path).await.status, 200, "{auid}");
        assert_eq!(put(&bench, BOB, &path, kind, text).await.status, 403, "{auid}");
        let wrong = put(&bench, ALICE, &path, kind, "<other xmlns=\"urn:x\"/>").await;
        assert_eq!(conflict(&wrong), "schema-validation-error", "{auid}");
        assert!(caps.body.contains(&format!("<auid>{auid}</auid>")), "{auid}");
        // Unprefixed in no namespace at all: another document.
        let bare = text.split_once(" xmlns=").expect("a namespace");
        let bare = format!("{}{}", bare.0, &bare.1[bare.1[1..].find('"').expect("its end") + 2..]);
        if !bare.contains("rl:") {
            assert_eq!(
                conflict(&put(&bench, ALICE, &path, kind, &bare).await),
                "schema-validation-error"
            );
        }
    }
    let directory = bench
        .get(
            ALICE,
            &format!(
                "/xcap-root/org.openmobilealliance.xcap-directory/users/{ALICE}/directory.xml"
            ),
        )
        .await;
    assert_eq!(directory.headers["content-type"], "application/vnd.oma.xcap-directory+xml");
    assert_eq!(directory.body.matches("<entry ").count(), cases.len(), "{}", directory.body);
    assert!(directory.headers.contains_key("etag"));
}

#[tokio::test]
async fn rules_and_settings_are_checked() {
    let bench = bench().await;
    let rules =
        |inside: &str| format!("<ruleset xmlns=\"{POLICY}\" xmlns:x=\"urn:x\">{inside}</ruleset>");
    let path = format!("/xcap-root/org.openmobilealliance.access-rules/users/{ALICE}/access-rules");
    for (inside, want) in [
        (
            "<rule id='a'><conditions><x:odd/><identity><one id='sip:b@h'><x:y/></one></identity></conditions></rule>",
            "",
        ),
        ("<rule/>", "schema-validation-error"),
        ("<rule id='a'><actions/><conditions/></rule>", "schema-validation-error"),
        (
            "<rule id='a'><conditions><identity><one/></identity></conditions></rule>",
            "schema-validation-error",
        ),
        ("<rule id='a'/><rule id='a'/>", "uniqueness-failure"),
    ] {
        let got = put(&bench, ALICE, &path, "application/auth-policy+xml", &rules(inside)).await;
        match want {
            "" => assert_eq!(got.status, 201, "{inside}"),
            want => assert_eq!(conflict(&got), want, "{inside}"),
        }
    }
    let path = format!(
        "/xcap-root/org.openmobilealliance.im-service-settings/users/{ALICE}/im-service-settings"
    );
    let kind = "application/vnd.oma.im.service-settings+xml";
    let text = format!(
        "<service-settings xmlns=\"{SETTINGS}\"><active>perhaps</active></service-settings>"
    );
    assert_eq!(conflict(&put(&bench, ALICE, &path, kind, &text).await), "schema-validation-error");
}

/// Proves XD-021.
#[tokio::test]
async fn lists_keep_their_order_and_their_keys_under_every_write() {
    let bench = bench().await;
    let path = format!("/xcap-root/resource-lists/users/{ALICE}/index");
    let text = format!(
        "<resource-lists xmlns=\"{LISTS}\"><list name=\"a\"><entry uri=\"sip:x@h\"/></list><list name=\"b\"/></resource-lists>"
    );
    assert_eq!(
        put(&bench, ALICE, &path, "application/resource-lists+xml", &text).await.status,
        201
    );
    let node = |selector: &str| {
        let selector = selector.replace('[', "%5B").replace(']', "%5D").replace('"', "%22");
        format!("{path}/~~/resource-lists/{selector}")
    };
    let element = "application/xcap-el+xml";
    for (at, body, want) in [
        ("list[3]", "<list name=\"a\"/>", "uniqueness-failure"),
        ("list[@name=\"a\"]/entry[2]", "<entry uri=\"sip:x@h\"/>", "uniqueness-failure"),
        ("list[@name=\"a\"]/entry[2]", "<entry/>", "schema-validation-error"),
        ("list[@name=\"a\"]/wrong", "<wrong/>", "schema-validation-error"),
        ("entry", "<entry uri=\"sip:x@h\"/>", "schema-validation-error"),
    ] {
        let got = put(&bench, ALICE, &node(at), element, body).await;
        assert_eq!(conflict(&got), want, "{at} {body}");
    }
    let taken = put(
        &bench,
        ALICE,
        &node("list[@name=\"a\"]/entry[2]"),
        element,
        "<entry uri=\"sip:x@h\"/>",
    )
    .await;
    assert!(taken.body.contains("field=\"entry/@uri\""), "{}", taken.body);
    let renamed = put(&bench, ALICE, &node("list[2]/@name"), "application/xcap-att+xml", "a").await;
    assert_eq!(conflict(&renamed), "uniqueness-failure");
    assert_eq!(bench.get(ALICE, &path).await.body, text);
    // The name comes first though the entry is there already.
    let name = put(
        &bench,
        ALICE,
        &node("list[@name=\"a\"]/display-name"),
        element,
        "<display-name>A</display-name>",
    )
    .await;
    assert_eq!(name.status, 201);
    assert!(
        bench
            .get(ALICE, &path)
            .await
            .body
            .contains("<list name=\"a\"><display-name>A</display-name><entry")
    );
}

/// Proves XD-018, XD-045, XD-046.
#[tokio::test]
async fn services_of_all_users_are_in_one_index() {
    let bench = bench().await;
    let kind = "application/rls-services+xml";
    let own = |who: &str| format!("/xcap-root/rls-services/users/{who}/index");
    let empty = bench.get(SERVER, INDEX).await;
    assert_eq!((empty.status, empty.headers["content-type"].as_str()), (200, kind));
    assert_eq!(bench.get(ALICE, INDEX).await.status, 403, "users have no business there");
    assert_eq!(put(&bench, ALICE, INDEX, kind, &services("")).await.status, 403);
    assert_eq!(put(&bench, OPERATOR, INDEX, kind, &services("")).await.status, 403);

    let a = services(
        "<service uri=\"sip:a@ims.test\"><list><rl:entry uri=\"sip:x@h\"/></list></service>",
    );
    let b = format!(
        "<r:rls-services xmlns:r=\"{RLS}\" xmlns:rl=\"urn:unused\"><r:service uri='sip:b@ims.test' xmlns:rl='{LISTS}'>\
         <r:list><rl:entry uri='sip:y@h'/></r:list></r:service><r:service uri=\"sip:c@ims.test\">\
         <r:resource-list>http://h/x</r:resource-list></r:service></r:rls-services>"
    );
    assert_eq!(put(&bench, ALICE, &own(ALICE), kind, &a).await.status, 201);
    assert_eq!(put(&bench, BOB, &own(BOB), kind, &b).await.status, 201);
    let index = bench.get(SERVER, INDEX).await;
    assert_ne!(index.headers["etag"], empty.headers["etag"]);
    let read = roxmltree::Document::parse(&index.body).expect("XML");
    let found: Vec<_> = read
        .root_element()
        .children()
        .filter(|n| n.has_tag_name((RLS, "service")))
        .map(|n| n.attribute("uri").expect("a uri"))
        .collect();
    assert_eq!(found, ["sip:a@ims.test", "sip:b@ims.test", "sip:c@ims.test"]);
    let entries = read.descendants().filter(|n| n.has_tag_name((LISTS, "entry"))).count();
    assert_eq!(entries, 2, "prefixes mean what they meant: {}", index.body);
    let one = format!("{INDEX}/~~/rls-services/service%5b@uri=%22sip:b@ims.test%22%5d/list");
    assert_eq!(bench.get(SERVER, &one).await.body, "<r:list><rl:entry uri='sip:y@h'/></r:list>");

    let taken = put(&bench, BOB, &own(BOB), kind, &a).await;
    assert_eq!(conflict(&taken), "uniqueness-failure");
    assert!(
        taken.body.contains("rls-services/service/@uri")
            && taken.body.contains("<alt-value>sip:a-2@ims.test<")
    );
    assert_eq!(
        put(&bench, ALICE, &own(ALICE), kind, &a).await.status,
        200,
        "its own is free for itself"
    );
    let node =
        format!("{}/~~/rls-services/service%5b1%5d%5b@uri=%22sip:b@ims.test%22%5d", own(BOB));
    let who = [("X-3GPP-Asserted-Identity", BOB)];
    assert_eq!(bench.send("DELETE", &node, &who, b"").await.status, 200);
    assert!(!bench.get(SERVER, INDEX).await.body.contains("sip:b@ims.test"), "at once");
    for who in [ALICE, BOB] {
        let headers = [("X-3GPP-Asserted-Identity", who)];
        assert_eq!(bench.send("DELETE", &own(who), &headers, b"").await.status, 200);
    }
    let last = bench.get(SERVER, INDEX).await;
    assert_eq!((last.body, &last.headers["etag"]), (empty.body, &empty.headers["etag"]));
}

/// Proves XD-046.
#[tokio::test]
async fn the_index_is_told_to_those_who_watch() {
    let store = Store::in_memory(Quotas::default());
    let mut changes = store.watch();
    let named = |path: &str| Resource::below_root(path).expect("a path").document;
    let (path, index) =
        (named(&format!("rls-services/users/{ALICE}/index")), named("rls-services/global/index"));
    let before = store.etag(&index).expect("always there");
    let text = services("<service uri=\"sip:a@ims.test\"><list/></service>");
    store.put(&path, Bytes::from(text), &Condition::default()).expect("taken");
    let after = store.etag(&index).expect("always there");
    let Some(Heard::Change(change)) = changes.next().await else { panic!("nothing") };
    assert_eq!(change.path, path);
    let Some(Heard::Change(change)) = changes.next().await else { panic!("nothing") };
    assert_eq!(
        (change.path, change.before.as_deref(), change.after.as_deref()),
        (index.clone(), Some(&*before), Some(&*after))
    );
    assert!(!store.may_read(ALICE, &index));
}

#[test]
fn what_cannot_be_read_is_reported_and_never_lost() {
    let place = Place::new();
    let path = DocumentPath::group(ALICE, "team");
    let file = place.0.join(path.to_string());
    std::fs::create_dir_all(file.parent().expect("a directory")).expect("made");
    std::fs::write(&file, "<group").expect("written");
    let store = Store::open(&place.0, Quotas::default()).expect("opened");
    assert_eq!(store.unreadable(), std::slice::from_ref(&path));
    assert_eq!(std::fs::read(&file).expect("there"), b"<group");
    let only_new = Condition { none_matches: Some(Tags::Any), ..Condition::default() };
    let put = |condition: &Condition| store.put(&path, Bytes::from(team()), condition);
    assert!(matches!(put(&only_new), Err(Refused::Precondition)), "there is something");
    assert!(put(&Condition::default()).expect("taken").created);
    assert!(store.unreadable().is_empty());
    let kept = file.with_file_name(".bad-team");
    assert_eq!(std::fs::read(kept).expect("set aside"), b"<group");
    drop(store);
    let again = Store::open(&place.0, Quotas::default()).expect("opened");
    assert_eq!(again.get(&path).expect("there").bytes, team());
    assert!(again.unreadable().is_empty());
}

/// What an older version took, and a stricter schema would not, is still served.
#[tokio::test]
async fn documents_of_yesterday_are_kept() {
    let place = Place::new();
    let path = DocumentPath::group(ALICE, "team");
    let text = team().replace("<invite-members>true", "<invite-members>yes");
    let file = place.0.join(path.to_string());
    std::fs::create_dir_all(file.parent().expect("a directory")).expect("made");
    std::fs::write(&file, &text).expect("written");
    let bench = Bench::at(place, Quotas::default(), |_| {}).await;
    assert_eq!(bench.get(ALICE, &view(TEAM)).await.body, text);
    assert_eq!(conflict(&bench.put(ALICE, &own("team"), &text).await), "schema-validation-error");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_no_end_of_reading() {
    let bench = bench().await;
    assert_eq!(bench.put(ALICE, &own("team"), &team()).await.status, 201);
    let users = bench.place.0.join("org.openmobilealliance.groups/users");
    // Nothing can be written below a file.
    std::fs::write(users.join(BOB), "").expect("written");
    let bobs = format!("{GROUPS}/users/{BOB}/crew");
    let crew = new_document("sip:crew@groups.ims.test", &[ALICE]);
    assert_eq!(bench.put(BOB, &bobs, &crew).await.status, 500);
    assert_eq!(bench.get(BOB, &bobs).await.status, 404, "nothing is half there");
    // Nor can the old document be replaced where its place is taken.
    let alices = users.join(ALICE);
    std::fs::create_dir(alices.join(".new-team")).expect("made");
    let changed = team().replace("sip:bob@ims.test", "sip:carol@ims.test");
    assert_eq!(bench.put(ALICE, &own("team"), &changed).await.status, 500);
    assert_eq!(bench.get(BOB, &view(TEAM)).await.body, team(), "reading goes on");
    std::fs::remove_dir(alices.join(".new-team")).expect("removed");
    assert_eq!(bench.put(ALICE, &own("team"), &changed).await.status, 200, "and so does writing");
}

/// Proves XD-048.
#[tokio::test]
async fn lists_have_quotas_by_node_too() {
    let quotas = Quotas { members: 3, ..Quotas::default() };
    let bench = Bench::with(quotas, |s| s.writes_per_minute = 5).await;
    let path = format!("/xcap-root/resource-lists/users/{ALICE}/index");
    let text = format!(
        "<resource-lists xmlns=\"{LISTS}\"><list name=\"a\"><entry uri=\"sip:1@h\"/><entry uri=\"sip:2@h\"/></list>\
         <list><entry uri=\"sip:3@h\"/></list></resource-lists>"
    );
    assert_eq!(
        put(&bench, ALICE, &path, "application/resource-lists+xml", &text).await.status,
        201
    );
    let node = |n: usize| format!("{path}/~~/resource-lists/list%5b1%5d/entry%5b{n}%5d");
    let element = "application/xcap-el+xml";
    let fourth = put(&bench, ALICE, &node(3), element, "<entry uri=\"sip:4@h\"/>").await;
    assert_eq!(conflict(&fourth), "constraint-failure");
    for (status, who) in
        [(200, ALICE), (200, "sip:alice@IMS.test"), (200, ALICE), (429, "SIP:alice@ims.test")]
    {
        let got = put(&bench, who, &node(2), element, "<entry uri=\"sip:5@h\"/>").await;
        assert_eq!(got.status, status, "nodes count as writes");
        assert_eq!(got.headers.contains_key("retry-after"), status == 429);
    }
}
