//! Elements, attributes and namespaces: selectors, conflicts, tags.

use super::*;

const BOB: &str = "sip:bob@ims.test";
const ELEMENT: &str = "application/xcap-el+xml";
const ATTRIBUTE: &str = "application/xcap-att+xml";

/// The group of the rules' example 10.2, with things in it that nobody here knows.
const TEAM7: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- kept -->
<group xmlns="urn:oma:xml:poc:list-service"
       xmlns:rl="urn:ietf:params:xml:ns:resource-lists"
       xmlns:cp="urn:ietf:params:xml:ns:common-policy"
       xmlns:oxe="urn:oma:xml:xdm:extensions">
  <list-service uri="sip:team7@groups.ims.test">
    <display-name xml:lang="en">Team 7</display-name>
    <list>
      <entry uri="sip:alice@ims.test"><rl:display-name>Alice</rl:display-name></entry>
      <entry uri='sip:bob@ims.test'/>	<!-- Bob -->
      <entry uri="tel:+491701112223"/>
      <external anchor="https://xcap.ims.test/x/~~/resource-lists/list%5b@name=%22night%22%5d"/>
    </list>
    <invite-members>true</invite-members>
    <cp:ruleset>
      <cp:rule id="members">
        <cp:conditions><is-list-member/></cp:conditions>
        <cp:actions><allow-initiate-conference>true</allow-initiate-conference></cp:actions>
      </cp:rule>
    </cp:ruleset>
    <x:new xmlns:x="urn:x" x:a = "1"><![CDATA[ <&> ]]></x:new>
  </list-service>
</group>
<?kept too?>
"#;

async fn bench() -> Bench {
    let bench = Bench::with(Quotas::default(), |s| {
        s.writes_per_minute = 100_000;
        s.origin = "http://xcap.ims.test".to_owned();
    })
    .await;
    assert_eq!(bench.put(ALICE, &own("team7"), TEAM7).await.status, 201);
    bench
}

fn escaped(selector: &str) -> String {
    selector.replace('[', "%5b").replace(']', "%5D").replace('"', "%22").replace(' ', "%20")
}

fn node(selector: &str) -> String {
    own(&format!("team7/~~/{}", escaped(selector)))
}

/// A node of the list-service.
fn inner(selector: &str) -> String {
    node(&format!("group/list-service/{selector}"))
}

async fn put(bench: &Bench, path: &str, kind: &str, body: &str) -> Got {
    let headers = [("X-3GPP-Asserted-Identity", ALICE), ("Content-Type", kind)];
    bench.send("PUT", path, &headers, body.as_bytes()).await
}

async fn delete(bench: &Bench, path: &str) -> Got {
    bench.send("DELETE", path, &[("X-3GPP-Asserted-Identity", ALICE)], b"").await
}

async fn whole(bench: &Bench) -> String {
    bench.get(ALICE, &own("team7")).await.body
}

/// Proves XD-044.
#[tokio::test]
async fn every_status_has_its_cause() {
    let bench = bench().await;
    let who = ("X-3GPP-Asserted-Identity", ALICE);
    let element = ("Content-Type", ELEMENT);
    let document = ("Content-Type", GROUP_TYPE);
    let bad_match = ("If-Match", "\"none\"");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let unknown = "/xcap-root/unknown/users/sip:alice@ims.test/x";
    let (here, there) = (own("team7"), own("none"));
    let (list, lists) = (inner("list"), inner("list/entry"));
    let (named, nothing) = (inner("list/entry[9]"), inner("nothing"));
    let (prefixed, namespaces) = (inner("cp:ruleset"), inner("namespace::*"));
    let (odd, global) = (inner("list[last()]"), view("sip:team7@groups.ims.test"));
    let below = own("a/b");
    let caps = "/xcap-root/xcap-caps/global/index".to_owned();
    let cases: &[(&str, &str, Headers<'_>, &str, u16)] = &[
        ("GET", unknown, &[who], "", 404),
        ("PUT", unknown, &[who, document], TEAM7, 404),
        ("DELETE", unknown, &[who], "", 404),
        ("GET", "/xcap-root/Org.openmobilealliance.groups/users/a/b", &[who], "", 404),
        ("GET", &there, &[who], "", 404),
        ("DELETE", &there, &[who], "", 404),
        ("GET", &nothing, &[who], "", 404),
        ("DELETE", &nothing, &[who], "", 404),
        ("GET", &named, &[who], "", 404),
        ("GET", &lists, &[who], "", 404),
        ("DELETE", &lists, &[who], "", 404),
        ("GET", &odd, &[who], "", 404),
        ("PUT", &odd, &[who, element], "<list/>", 404),
        ("DELETE", &odd, &[who], "", 404),
        ("POST", &here, &[who], "", 405),
        ("POST", &list, &[who], "", 405),
        ("PATCH", &list, &[who], "", 405),
        ("PUT", &namespaces, &[who, element], "<x/>", 405),
        ("DELETE", &namespaces, &[who], "", 405),
        ("PUT", &here, &[who], TEAM7, 415),
        ("PUT", &here, &[who, element], TEAM7, 415),
        ("PUT", &list, &[who, document], "<list/>", 415),
        ("PUT", &inner("@uri"), &[who, element], "x", 415),
        ("GET", &prefixed, &[who], "", 400),
        ("PUT", &prefixed, &[who, element], "<cp:ruleset/>", 400),
        ("DELETE", &prefixed, &[who], "", 400),
        ("GET", &here, &[who, bad_match], "", 412),
        ("GET", &list, &[who, bad_match], "", 412),
        ("PUT", &here, &[who, document, bad_match], TEAM7, 412),
        ("PUT", &list, &[who, element, bad_match], "<list/>", 412),
        ("PUT", &list, &[who, element, ("If-None-Match", "*")], "<list/>", 412),
        ("PUT", &inner("@new"), &[who, ("If-None-Match", "*")], "x", 412),
        ("DELETE", &list, &[who, bad_match], "", 412),
        ("PUT", &below, &[who, document], TEAM7, 409),
        ("PUT", &global, &[who, document], TEAM7, 403),
        ("PUT", &caps, &[who, document], TEAM7, 403),
        ("DELETE", &caps, &[who], "", 403),
        ("GET", &caps, &[who], "", 200),
        ("GET", &format!("{caps}/~~/xcap-caps/auids"), &[who], "", 200),
        ("GET", &format!("{caps}/~~/xcap-caps/auids/auid"), &[who], "", 404),
        ("GET", &here, &[("X-3GPP-Asserted-Identity", BOB)], "", 403),
        ("PUT", &list, &[("X-3GPP-Asserted-Identity", BOB), element], "<list/>", 403),
        ("DELETE", &list, &[("X-3GPP-Asserted-Identity", BOB)], "", 403),
        // XD-045: the selector is looked at before anybody is asked for.
        ("GET", &prefixed, &[], "", 400),
        ("POST", &here, &[], "", 405),
        ("PUT", &list, &[element, bad_match], "<", 403),
        // Authorisation before the precondition, that before the body.
        ("PUT", &list, &[who, element, bad_match], "<", 412),
    ];
    for (method, path, headers, body, want) in cases {
        let got = bench.send(method, path, headers, body.as_bytes()).await;
        assert_eq!(got.status, *want, "{method} {path} {headers:?}");
    }
    for method in ["PUT", "DELETE"] {
        assert_eq!(bench.send(method, &namespaces, &[who], b"").await.headers["allow"], "GET");
    }
    assert_eq!(whole(&bench).await, TEAM7, "nothing has changed");
}

/// The children of `xcap-error`, each by what causes it.
///
/// Proves XD-011, XD-044, XD-045.
#[tokio::test]
async fn every_conflict_says_what_is_wrong() {
    let bench = bench().await;
    let other = TEAM7.replace("team7@", "other@");
    assert_eq!(bench.put(ALICE, &own("other"), &other).await.status, 201);
    let entry = |uri: &str| format!("<entry uri=\"{uri}\"/>");
    let latin = "<entry uri=\"sip:\u{e9}@h\"/>".chars().map(|c| c as u8).collect::<Vec<_>>();
    let b = |text: &str| text.as_bytes().to_vec();
    let cases: Vec<(&str, String, &str, Vec<u8>, &str)> = vec![
        ("PUT", own("team7"), GROUP_TYPE, b("<group"), "not-well-formed"),
        ("PUT", own("team7"), GROUP_TYPE, b("<!DOCTYPE group><group/>"), "not-well-formed"),
        ("PUT", own("team7"), GROUP_TYPE, latin.clone(), "not-utf-8"),
        ("PUT", own("team7"), GROUP_TYPE, b("<group/>"), "schema-validation-error"),
        ("PUT", inner("list/entry[5]"), ELEMENT, latin.clone(), "not-utf-8"),
        ("PUT", inner("@uri"), ATTRIBUTE, latin, "not-utf-8"),
        ("PUT", inner("list"), ELEMENT, b("<list>"), "not-xml-frag"),
        ("PUT", inner("list"), ELEMENT, b("<list/><list/>"), "not-xml-frag"),
        ("PUT", inner("list"), ELEMENT, b("text"), "not-xml-frag"),
        ("PUT", inner("list"), ELEMENT, b(""), "not-xml-frag"),
        ("PUT", inner("list"), ELEMENT, b("<zz:list/>"), "not-xml-frag"),
        ("PUT", inner("list"), ELEMENT, b("<!DOCTYPE list><list/>"), "not-xml-frag"),
        ("PUT", inner("@uri"), ATTRIBUTE, b("a<b"), "not-xml-att-value"),
        ("PUT", inner("@uri"), ATTRIBUTE, b("a&b"), "not-xml-att-value"),
        ("PUT", inner("list/list/entry"), ELEMENT, b("<entry/>"), "no-parent"),
        ("PUT", inner("none/@uri"), ATTRIBUTE, b("x"), "no-parent"),
        ("PUT", own("none/~~/group"), ELEMENT, b("<group/>"), "no-parent"),
        ("PUT", own("a/b"), GROUP_TYPE, b(&other), "no-parent"),
        ("PUT", inner("list/entry"), ELEMENT, b(&entry("sip:x@h")), "cannot-insert"),
        ("PUT", inner("list/entry[7]"), ELEMENT, b(&entry("sip:x@h")), "cannot-insert"),
        (
            "PUT",
            inner("list/entry[@uri=\"sip:y@h\"]"),
            ELEMENT,
            b(&entry("sip:x@h")),
            "cannot-insert",
        ),
        ("PUT", inner("list/external[2]"), ELEMENT, b(&entry("sip:x@h")), "cannot-insert"),
        (
            "PUT",
            node("group/list-service[@uri=\"sip:team7@groups.ims.test\"]/@uri"),
            ATTRIBUTE,
            b("sip:x@h"),
            "cannot-insert",
        ),
        ("DELETE", inner("list/entry[1]"), "", b(""), "cannot-delete"),
        ("DELETE", inner("*[2]"), "", b(""), "cannot-delete"),
        ("DELETE", node("group"), "", b(""), "schema-validation-error"),
        ("DELETE", node("group/list-service"), "", b(""), "schema-validation-error"),
        ("DELETE", inner("@uri"), "", b(""), "schema-validation-error"),
        ("DELETE", inner("list/entry[1]/@uri"), "", b(""), "schema-validation-error"),
        (
            "PUT",
            inner("invite-members"),
            ELEMENT,
            b("<invite-members>maybe</invite-members>"),
            "schema-validation-error",
        ),
        ("PUT", inner("list/new"), ELEMENT, b("<new/>"), "schema-validation-error"),
        ("PUT", inner("list/entry[4]"), ELEMENT, b(&entry(BOB)), "uniqueness-failure"),
        ("PUT", inner("list/entry[1]/@uri"), ATTRIBUTE, b(BOB), "uniqueness-failure"),
        ("PUT", inner("@uri"), ATTRIBUTE, b("sip:other@groups.ims.test"), "uniqueness-failure"),
        (
            "PUT",
            inner("display-name"),
            ELEMENT,
            b(&format!("<display-name>{}</display-name>", "<x/>".repeat(20_001))),
            "not-xml-frag",
        ),
        ("PUT", inner("@new"), ATTRIBUTE, b(&"x".repeat(64 * 1024 + 1)), "constraint-failure"),
    ];
    for (method, path, kind, body, want) in cases {
        let headers = [("X-3GPP-Asserted-Identity", ALICE), ("Content-Type", kind)];
        let got = bench.send(method, &path, &headers, &body).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(got.status, 409, "{method} {path} {shown}");
        assert_eq!(conflict(&got), want, "{method} {path} {shown}");
        assert_eq!(whole(&bench).await, TEAM7, "{method} {path} {shown}");
    }
    let taken = put(&bench, &inner("@uri"), ATTRIBUTE, "sip:other@groups.ims.test").await;
    assert!(taken.body.contains("field=\"group/list-service/@uri\""), "{}", taken.body);
    assert!(taken.body.contains("<alt-value>sip:other-2@groups.ims.test</alt-value>"));
    for (at, ancestor) in [
        ("group/none/list/entry", "group"),
        ("group/list-service/none/entry", "group/list-service"),
        (
            "group/list-service[@uri=\"sip:team7@groups.ims.test\"]/none/@x",
            "group/list-service%5B@uri=%22sip:team7@groups.ims.test%22%5D",
        ),
    ] {
        let kind = if at.contains("/@x") { ATTRIBUTE } else { ELEMENT };
        let got = put(&bench, &node(at), kind, "<entry/>".trim_matches('<')).await;
        let got =
            if kind == ELEMENT { put(&bench, &node(at), kind, "<entry/>").await } else { got };
        let want =
            format!("<ancestor>http://xcap.ims.test{}/~~/{ancestor}</ancestor>", own("team7"));
        assert!(got.body.contains(&want), "{at}: {}", got.body);
        // The ancestor named there is one.
        let path = want.split("ims.test/").nth(1).map(|_| node(ancestor)).expect("a path");
        assert_eq!(bench.get(ALICE, &path).await.status, 200, "{path}");
    }
}

/// Proves XD-004, XD-005, XD-046.
#[tokio::test]
async fn selectors_name_elements_attributes_and_namespaces() {
    let bench = bench().await;
    let bound = "?xmlns(p=urn:ietf:params:xml:ns:common-policy)xmlns(q=urn:x)xmlns(l=urn:oma:xml:poc:list-service)\
                 xmlns(rl=urn:ietf:params:xml:ns:resource-lists)";
    let bob = "<entry uri='sip:bob@ims.test'/>";
    let foreign = "<x:new xmlns:x=\"urn:x\" x:a = \"1\"><![CDATA[ <&> ]]></x:new>";
    let rule = "<cp:rule id=\"members\">";
    let cases: &[(&str, u16, &str)] = &[
        ("list/entry[2]", 200, bob),
        ("list/entry[@uri=\"sip:bob@ims.test\"]", 200, bob),
        ("list/entry[2][@uri=\"sip:bob@ims.test\"]", 200, bob),
        ("list/*[2]", 200, bob),
        ("list/*[@uri=\"sip:bob@ims.test\"]", 200, bob),
        ("list/*[2][@uri=\"sip:bob@ims.test\"]", 200, bob),
        ("*[2]/*[2]", 200, bob),
        ("l:list/l:entry[2]", 200, bob),
        ("list/entry[1][@uri=\"sip:bob@ims.test\"]", 404, ""),
        ("list/entry[0]", 404, ""),
        ("list/entry[99999999999999999999999]", 404, ""),
        ("list/*", 404, ""),
        ("ruleset", 404, ""),
        ("p:ruleset/p:rule", 200, rule),
        ("p:ruleset/p:rule[@id=\"members\"]", 200, rule),
        ("p:list", 404, ""),
        ("q:new", 200, foreign),
        ("q:new/@q:a", 200, "1"),
        ("q:new[@q:a=\"1\"]", 200, foreign),
        ("q:new/@a", 404, ""),
        ("list/entry[1]/rl:display-name", 200, "<rl:display-name>Alice</rl:display-name>"),
        ("display-name/@xml:lang", 200, "en"),
        (
            "display-name[@xml:lang=\"en\"]",
            200,
            "<display-name xml:lang=\"en\">Team 7</display-name>",
        ),
        (
            "list/external[@anchor=\"https://xcap.ims.test/x/~~/resource-lists/list%255b@name=%2522night%2522%255d\"]/@anchor",
            200,
            "https://xcap.ims.test/x/~~/resource-lists/list%5b@name=%22night%22%5d",
        ),
        ("@uri", 200, "sip:team7@groups.ims.test"),
    ];
    for (selector, status, text) in cases {
        let got = bench.get(ALICE, &(inner(selector) + bound)).await;
        assert_eq!(got.status, *status, "{selector}");
        if *status == 200 {
            assert!(got.body.starts_with(text), "{selector}: {}", got.body);
            let kind = if selector.contains("/@") || selector.starts_with('@') {
                ATTRIBUTE
            } else {
                ELEMENT
            };
            assert_eq!(got.headers["content-type"], kind, "{selector}");
        }
    }
    // The separator is the first of its kind, whatever its spelling.
    for tildes in ["~~", "%7E%7E", "%7e~", "~%7E"] {
        let path = own(&format!("team7/{tildes}/group/list-service/@uri"));
        assert_eq!(bench.get(ALICE, &path).await.body, "sip:team7@groups.ims.test", "{tildes}");
    }
    for unbound in ["p:ruleset", "list/z:entry", "@z:uri", "list/entry[@z:uri=\"a\"]", "none/z:x"] {
        assert_eq!(bench.get(ALICE, &inner(unbound)).await.status, 400, "{unbound}");
    }
    let namespaces = bench.get(ALICE, &(inner("q:new/namespace::*") + bound)).await;
    assert_eq!(
        (namespaces.status, namespaces.headers["content-type"].as_str()),
        (200, "application/xcap-ns+xml")
    );
    let read = roxmltree::Document::parse(&namespaces.body).expect("XML");
    let root = read.root_element();
    assert!(root.has_tag_name(("urn:x", "new")) && root.children().count() == 0);
    for (prefix, uri) in [
        (None, "urn:oma:xml:poc:list-service"),
        (Some("cp"), "urn:ietf:params:xml:ns:common-policy"),
        (Some("rl"), "urn:ietf:params:xml:ns:resource-lists"),
        (Some("oxe"), "urn:oma:xml:xdm:extensions"),
        (Some("x"), "urn:x"),
    ] {
        assert_eq!(root.lookup_namespace_uri(prefix), Some(uri));
    }
    // A document with prefixes for everything is found by names without any.
    let prefixed = "<g:group xmlns:g=\"urn:oma:xml:poc:list-service\"><g:list-service uri=\"sip:p@groups.ims.test\"/></g:group>";
    assert_eq!(bench.put(ALICE, &own("prefixed"), prefixed).await.status, 201);
    let found = bench.get(ALICE, &own("prefixed/~~/group/list-service")).await;
    assert_eq!(found.body, "<g:list-service uri=\"sip:p@groups.ims.test\"/>");
    let foreign = own("prefixed/~~/g:group");
    assert_eq!(
        bench.get(ALICE, &foreign).await.status,
        400,
        "the document's own prefix means nothing"
    );
}

/// The example 10.6 of the rules, and what is around it.
///
/// Proves XD-009, XD-010, XD-019, XD-045, XD-046.
#[tokio::test]
async fn a_member_is_put_and_removed_and_everything_else_stays() {
    let bench = bench().await;
    let tag = bench.get(ALICE, &own("team7")).await.headers["etag"].clone();
    let at = node(
        "group/list-service[@uri=\"sip:team7@groups.ims.test\"]/list/entry[@uri=\"sip:henry@ims.test\"]",
    );
    let entry = "<entry uri=\"sip:henry@ims.test\"/>";
    let send = |method: &'static str, condition: (&'static str, String), body: &'static str| {
        let (bench, at) = (&bench, &at);
        async move {
            let headers = [
                ("X-3GPP-Asserted-Identity", ALICE),
                ("Content-Type", ELEMENT),
                (condition.0, condition.1.as_str()),
            ];
            bench.send(method, at, &headers, body.as_bytes()).await
        }
    };
    let sent = "<entry uri=\"sip:henry@ims.test\"/>\r\n";
    let created = send("PUT", ("If-Match", tag.clone()), sent).await;
    assert_eq!((created.status, created.body.as_str()), (201, ""));
    let second = created.headers["etag"].clone();
    assert_ne!(second, tag);
    let want = TEAM7.replace(
        "<entry uri=\"tel:+491701112223\"/>",
        &format!("<entry uri=\"tel:+491701112223\"/>{entry}"),
    );
    assert_eq!(whole(&bench).await, want, "not an octet more");
    let read = bench.get(ALICE, &at).await;
    assert_eq!((read.body.as_str(), read.headers["etag"].as_str()), (entry, second.as_str()));
    let seen = bench.get(BOB, &view("sip:team7@groups.ims.test")).await;
    assert_eq!(
        (seen.body.as_str(), seen.headers["etag"].as_str()),
        (want.as_str(), second.as_str())
    );
    let other = bench.get(ALICE, &inner("display-name")).await;
    assert_eq!(other.headers["etag"], second, "one tag for the whole document");
    let unchanged = bench
        .send("GET", &at, &[("X-3GPP-Asserted-Identity", ALICE), ("If-None-Match", &second)], b"")
        .await;
    assert_eq!((unchanged.status, unchanged.body.as_str()), (304, ""));

    // Two writers with the same version: the second one has to read again.
    assert_eq!(send("PUT", ("If-Match", tag.clone()), sent).await.status, 412);
    assert_eq!(send("DELETE", ("If-Match", tag.clone()), "").await.status, 412);
    let longer = "<entry uri='sip:henry@ims.test'><rl:display-name>H</rl:display-name></entry>";
    let replaced = send("PUT", ("If-Match", second.clone()), longer).await;
    assert_eq!((replaced.status, replaced.body.as_str()), (200, ""));
    assert_eq!(whole(&bench).await, want.replace(entry, longer));
    assert_eq!(
        send("PUT", ("If-None-Match", "*".into()), sent).await.status,
        412,
        "never, on a node"
    );
    let third = replaced.headers["etag"].clone();
    let gone = send("DELETE", ("If-Match", third.clone()), "").await;
    assert_eq!((gone.status, gone.body.as_str()), (200, ""));
    assert_ne!(gone.headers["etag"], third);
    assert_eq!(whole(&bench).await, TEAM7, "white space and comments as they were");
    assert_eq!(gone.headers["etag"], bench.get(ALICE, &own("team7")).await.headers["etag"]);
    assert_eq!(send("DELETE", ("If-Match", "*".into()), "").await.status, 404);

    // A node that moves others up is named another way.
    assert_eq!(conflict(&delete(&bench, &inner("list/entry[2]")).await), "cannot-delete");
    assert_eq!(
        delete(&bench, &inner("list/entry[2][@uri=\"sip:bob@ims.test\"]")).await.status,
        200
    );
    assert_eq!(whole(&bench).await, TEAM7.replace("<entry uri='sip:bob@ims.test'/>", ""));
    assert_eq!(
        bench.get(BOB, &view("sip:team7@groups.ims.test")).await.status,
        403,
        "a member no more"
    );
}

/// Proves XD-010, XD-045.
#[tokio::test]
async fn new_elements_go_where_the_schema_wants_them() {
    let bench = bench().await;
    let bound = "?xmlns(o=urn:oma:xml:xdm:extensions)xmlns(p=urn:ietf:params:xml:ns:common-policy)";
    for gone in ["display-name", "list", "invite-members"] {
        assert_eq!(delete(&bench, &inner(gone)).await.status, 200, "{gone}");
    }
    for (at, body) in [
        ("max-participant-count", "<max-participant-count>20</max-participant-count>"),
        ("list", "<list/>"),
        ("display-name", "<display-name>T</display-name>"),
        ("invite-members", "<invite-members>1</invite-members>"),
        ("o:subject", "<oxe:subject>s</oxe:subject>"),
        ("list/entry[1]", "<entry uri=\"sip:b@h\"/>"),
        ("list/entry[1][@uri=\"sip:a@h\"]", "<entry uri=\"sip:a@h\"/>"),
        ("list/entry[3]", "<entry uri=\"sip:c@h\"/>"),
        ("p:ruleset/p:rule[1][@id=\"first\"]", "<cp:rule id=\"first\"/>"),
    ] {
        let got = put(&bench, &(inner(at) + bound), ELEMENT, body).await;
        assert_eq!(got.status, 201, "{at}: {}", got.body);
        assert_eq!(bench.get(ALICE, &(inner(at) + bound)).await.body, body, "GET(PUT(x)) = x");
    }
    let text = whole(&bench).await;
    let places: Vec<usize> = [
        "<display-name>",
        "<list>",
        "sip:a@h",
        "sip:b@h",
        "sip:c@h",
        "</list>",
        "<invite-members>",
        "<max-participant-count>",
        "<cp:ruleset>",
        "\"first\"",
        "\"members\"",
        "<x:new",
        "<oxe:subject>",
    ]
    .iter()
    .map(|piece| text.find(piece).expect(piece))
    .collect();
    assert!(places.is_sorted(), "{text}");
}

/// Proves XD-010.
#[tokio::test]
async fn attributes_are_written_and_their_values_come_back() {
    let bench = bench().await;
    let bound = "?xmlns(q=urn:x)xmlns(n=urn:new)";
    for (at, body, status) in [
        ("q:new/@q:a", "2", 200),
        ("q:new/@q:b", "it's", 201),
        ("q:new/@n:c", "a &amp; &#60; b", 201),
        ("q:new/@plain", "say \"x\"", 201),
        ("q:new/@plain", "", 200),
        ("display-name/@xml:lang", "de", 200),
        ("list/entry[3]/@uri", "tel:+15551", 200),
    ] {
        let path = inner(at) + bound;
        let got = put(&bench, &path, ATTRIBUTE, body).await;
        assert_eq!((got.status, got.body.as_str()), (status, ""), "{at}");
        let read = bench.get(ALICE, &path).await;
        assert_eq!(
            (read.body.as_str(), &read.headers["etag"]),
            (body, &got.headers["etag"]),
            "{at}"
        );
    }
    let path = inner("q:new/@plain") + bound;
    assert_eq!(delete(&bench, &path).await.status, 200);
    assert_eq!(bench.get(ALICE, &path).await.status, 404);
    let renamed = put(&bench, &inner("@uri"), ATTRIBUTE, "sip:crew@groups.ims.test").await;
    assert_eq!(renamed.status, 200);
    assert_eq!(bench.get(ALICE, &view("sip:team7@groups.ims.test")).await.status, 404);
    assert_eq!(bench.get(ALICE, &view("sip:crew@groups.ims.test")).await.status, 200, "at once");
}

/// Proves XD-047.
#[tokio::test]
async fn hostile_nodes_cost_nothing() {
    let bench = bench().await;
    let deep = "<x>".repeat(100_000);
    let balanced = format!("{}{}", "<x>".repeat(40), "</x>".repeat(40));
    let attributes: String = (0..100_000).map(|n| format!(" a{n}='1'")).collect();
    let spaces: String = (0..10_000).map(|n| format!(" xmlns:p{n}='urn:{n}'")).collect();
    let layers: String = (0..20)
        .map(|n| {
            format!("<x{}>", (0..50).map(|m| format!(" xmlns:p{n}-{m}='u'")).collect::<String>())
        })
        .collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("deep", deep.into_bytes()),
        ("deep and balanced", balanced.into_bytes()),
        ("attributes", format!("<x{attributes}/>").into_bytes()),
        ("declarations", format!("<x{spaces}/>").into_bytes()),
        ("declarations in layers", format!("{layers}{}", "</x>".repeat(20)).into_bytes()),
        ("elements", format!("<x>{}</x>", "<y/>".repeat(30_000)).into_bytes()),
        ("duplicate", b"<x a='1' a='2'/>".to_vec()),
        ("duplicate by namespace", b"<x xmlns:a='u' xmlns:b='u' a:c='1' b:c='2'/>".to_vec()),
        ("entity", b"<x>&lol;</x>".to_vec()),
        ("doctype", b"<!DOCTYPE x [<!ENTITY l SYSTEM 'file:///etc/passwd'>]><x>&l;</x>".to_vec()),
        ("instruction", b"<?xml-stylesheet href='http://192.0.2.1/'?><x/>".to_vec()),
        ("NUL", b"<x>\0</x>".to_vec()),
        ("control", b"<x>\x01</x>".to_vec()),
        ("UTF-16", [&[0xff_u8, 0xfe][..], &b"<\0x\0/\0>\0"[..]].concat()),
        ("UTF-16 without mark", b"<\0x\0/\0>\0".to_vec()),
        ("reserved prefix", b"<x xmlns:xml='urn:x'/>".to_vec()),
        ("way out", b"</list-service></group><group xmlns='urn:oma:xml:poc:list-service'><list-service uri='a'>".to_vec()),
        ("too much", vec![b' '; 1024 * 1024 + 1]),
    ];
    let headers = [("X-3GPP-Asserted-Identity", ALICE), ("Content-Type", ELEMENT)];
    for (name, body) in cases {
        let got = bench.send("PUT", &inner("x"), &headers, &body).await;
        let told = conflict(&got);
        let want = match name {
            "UTF-16" | "UTF-16 without mark" => "not-utf-8",
            "too much" => "constraint-failure",
            _ => "not-xml-frag",
        };
        assert_eq!(told, want, "{name}");
        assert!(!got.body.contains("root:"), "{name}");
        assert_eq!(whole(&bench).await, TEAM7, "{name}");
    }
    // Selectors, too: as long and as odd as a request line may be.
    for selector in [
        "a/".repeat(15_000) + "a",
        "group/list-service[@uri=\"".to_owned() + &"&amp;".repeat(2000) + "\"]",
        "*[".repeat(3000),
        "%5B".repeat(5000),
        "group/list-service/@".to_owned() + &"a".repeat(20_000),
    ] {
        let got = bench.get(ALICE, &node(&selector)).await;
        assert!(matches!(got.status, 404 | 414 | 431), "{}: {:.40}", got.status, selector);
    }
}

/// Many writers of one document, each of which wants its own member in.
///
/// Proves XD-009, XD-045.
#[tokio::test]
async fn no_update_is_lost_between_writers() {
    let bench = Arc::new(bench().await);
    let writers: Vec<_> = (0..16)
        .map(|n| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                let uri = format!("sip:w{n}@ims.test");
                let path = inner(&format!("list/entry[@uri=\"{uri}\"]"));
                for round in 0.. {
                    assert!(round < 200, "somebody always gets through");
                    let tag = bench.get(ALICE, &own("team7")).await.headers["etag"].clone();
                    let headers = [
                        ("X-3GPP-Asserted-Identity", ALICE),
                        ("Content-Type", ELEMENT),
                        ("If-Match", &tag),
                    ];
                    let body = format!("<entry uri=\"{uri}\"/>");
                    match bench.send("PUT", &path, &headers, body.as_bytes()).await.status {
                        201 => return,
                        status => assert_eq!(status, 412),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    let text = whole(&bench).await;
    for n in 0..16 {
        assert_eq!(text.matches(&format!("\"sip:w{n}@ims.test\"")).count(), 1);
    }
}
