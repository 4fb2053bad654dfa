//! What operators see of a finished page, and what the door refuses.

use std::process::Command;

use pagecast::lab::phone::{Answer, Behaviour, Provisional};
use tokio::time::timeout;

use super::support::{LIMIT, Net, http, page, until};

/// Everything the door tells about one page fits together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_page_is_told_in_every_form() {
    let net = Net::new(&["ops.flow_keep=all", "profile.sip.t1=20ms"]).await;
    let bob = net
        .phone("bob", Behaviour { provisional: Provisional::Reliable, ..Behaviour::default() })
        .await;
    let busy = Behaviour { answer: Answer::Refuse { status: 486 }, ..Behaviour::default() };
    let _busy = net.phone("busy", busy).await;
    net.core.provision("sip:offline@ims.test");
    let request = page(&["bob", "busy", "offline"], 50_000);
    let outcome = net.alice.page(&request).await;
    assert!(outcome.succeeded(), "{outcome:?}");
    timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
    let server = &net.server;
    let one = server.newest().await;
    let id = one["id"].as_str().expect("an id").to_owned();

    let list = server.json("/api/pages").await;
    assert_eq!(list["next"], serde_json::Value::Null);
    let head = &list["pages"][0];
    assert_eq!(head["id"], id.as_str());
    for (key, value) in [
        ("originator", "sip:alice@ims.test"),
        ("target", "sip:pages@ims.test"),
        ("mode", "large"),
        ("state", "deferred"),
    ] {
        assert_eq!(head[key], value, "{head}");
        assert_eq!(one[key], value, "{one}");
    }
    assert_eq!(head["size"], outcome.octets, "the whole body with its envelope");
    let time = head["time"].as_str().expect("a time");
    assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
    let counts = &head["recipients"];
    let wanted = [
        ("total", 3),
        ("delivered", 1),
        ("failed", 1),
        ("pending", 0),
        ("deferred", 1),
        ("expired", 0),
    ];
    for (key, value) in wanted {
        assert_eq!(counts[key], value, "{counts}");
    }
    let all = one["recipients"].as_array().expect("recipients");
    for (user, state, code) in [
        ("bob", "delivered", None),
        ("busy", "failed", Some(486)),
        ("offline", "deferred", Some(480)),
    ] {
        let uri = format!("sip:{user}@ims.test");
        let found =
            all.iter().find(|r| r["uri"] == uri.as_str()).expect("every recipient is shown");
        assert_eq!(found["state"], state, "{found}");
        assert_eq!(found["cause"]["code"].as_u64(), code, "{found}");
        assert_eq!(found["attempts"], 1);
        assert!(found["started"].is_string() && found["ended"].is_string(), "{found}");
    }
    let bob = all.iter().find(|r| r["uri"] == "sip:bob@ims.test").expect("bob");
    assert_eq!(bob["bytes"], outcome.octets);
    assert!(bob["allow"].as_array().is_some_and(|allow| allow.contains(&"INVITE".into())), "{bob}");
    assert!(
        bob["contact"].as_str().is_some_and(|contact| contact.starts_with("sip:bob@")),
        "{bob}"
    );

    for (query, found) in [
        ("user=sip:bob@ims.test", 1),
        ("user=sip:alice@ims.test&state=deferred", 1),
        ("user=sip:nobody@ims.test", 0),
        ("state=running", 0),
        ("limit=1", 1),
    ] {
        let list = server.json(&format!("/api/pages?{query}")).await;
        assert_eq!(list["pages"].as_array().map(Vec::len), Some(found), "{query}: {list}");
    }
    let before = server.json(&format!("/api/pages?before={id}")).await;
    assert_eq!(before["pages"].as_array().map(Vec::len), Some(0));

    let flow = server.json(&format!("/api/pages/{id}/flow")).await;
    assert_eq!((&flow["page"], &flow["truncated"]), (&id.as_str().into(), &false.into()));
    let messages = flow["messages"].as_array().expect("messages");
    let lines: Vec<&str> = messages.iter().filter_map(|message| message["line"].as_str()).collect();
    for wanted in [
        "INVITE sip:pages@ims.test",
        "SIP/2.0 183",
        "PRACK",
        "SIP/2.0 486",
        "SIP/2.0 480",
        "SEND",
        "BYE",
    ] {
        assert!(lines.iter().any(|line| line.contains(wanted)), "no {wanted} in {lines:#?}");
    }
    for message in messages {
        assert!(
            ["SIP", "MSRP", "XCAP", "Sh", "STORE"]
                .contains(&message["proto"].as_str().unwrap_or_default())
        );
        for key in ["time", "from", "to", "local", "remote", "leg", "headers", "body"] {
            assert!(message.get(key).is_some(), "no {key} in {message}");
        }
    }
    let text = flow.to_string();
    assert!(!text.contains("abcdefghijklmnopqrstuvwxyz"), "content leaves by no door");

    let svg = server.get(&format!("/api/pages/{id}/flow.svg")).await;
    assert_eq!(svg.status, 200);
    assert!(svg.head.contains("image/svg+xml"), "{}", svg.head);
    let svg = String::from_utf8(svg.body).expect("text");
    assert!(svg.starts_with("<svg") || svg.starts_with("<?xml"), "{svg:.100}");
    roxmltree::Document::parse(&svg).expect("well-formed");

    let capture = server.get(&format!("/api/pages/{id}/flow.pcapng")).await;
    assert_eq!(capture.status, 200);
    assert_eq!(&capture.body[..4], [0x0a, 0x0d, 0x0d, 0x0a], "a section header block");
    let file = net.folder.join("page.pcapng");
    std::fs::write(&file, &capture.body).expect("written");
    match Command::new("tshark")
        .arg("-r")
        .arg(&file)
        .args([
            "-T",
            "fields",
            "-e",
            "_ws.malformed",
            "-e",
            "_ws.col.Protocol",
            "-e",
            "_ws.col.Info",
        ])
        .output()
    {
        Ok(told) => {
            let text = String::from_utf8_lossy(&told.stdout).into_owned();
            assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
            assert!(!text.to_ascii_lowercase().contains("malformed"), "{text}");
            assert!(text.contains("SIP") && text.contains("MSRP"), "{text}");
        }
        Err(error) => eprintln!("without tshark: {error}"),
    }
    net.server.idle().await;
    net.server.ends().await;
}

/// An operator ends a page that runs, bars its sender, and lets her in again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_ends_a_page_and_bars_its_sender() {
    let net = Net::new(&["profile.sip.t1=20ms"]).await;
    let silent = Behaviour {
        answer: Answer::Never,
        provisional: Provisional::Ringing,
        ..Behaviour::default()
    };
    let bob = net.phone("bob", silent).await;
    let meant = ["X-Pagecast: 1"];
    let ops = net.server.ops;
    let end = async {
        let id = until("the page runs", async || {
            let pages = net.server.json("/api/pages?state=inviting").await;
            pages["pages"][0]["id"].as_str().map(str::to_owned)
        })
        .await;
        let path = format!("/admin/pages/{id}/end");
        assert_eq!(http(ops, "POST", &path, &meant).await.status, 200);
        net.server.newest().await;
        assert_eq!(http(ops, "POST", &path, &meant).await.status, 409, "it is over");
    };
    let request = page(&["bob"], 100);
    let (outcome, ()) = tokio::join!(net.alice.page(&request), end);
    assert!(outcome.status.is_some_and(|status| status >= 400), "{outcome:?}");
    assert!(timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs").cancelled);

    for (method, status) in [("PUT", 403), ("DELETE", 200)] {
        bob.behave(Behaviour::default());
        let path = "/admin/barred/sip:alice@ims.test";
        assert_eq!(http(ops, method, path, &meant).await.status, 200);
        let outcome = net.alice.page(&page(&["bob"], 100)).await;
        assert_eq!(outcome.status, Some(status), "{method}: {outcome:?}");
    }
    net.server.idle().await;
    net.server.ends().await;
}

/// Unknown, not allowed, not meant; and draining from outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_refuses_and_drains() {
    let mut net = Net::new(&["ops.token=secret", "node.drain_timeout=20s"]).await;
    let ops = net.server.ops;
    let token = "Authorization: Bearer secret";
    let meant = "X-Pagecast: 1";
    let unknown = "/api/pages/00c5f0a17be3d942";
    let host = "Host: evil.example";
    let cases: [(&str, &str, &[&str], u16); 21] = [
        ("GET", "/live", &[], 200),
        ("GET", "/ready", &[], 200),
        ("GET", "/metrics", &[], 200),
        ("GET", "/", &[], 200),
        ("GET", "/nowhere", &[], 404),
        ("GET", "/api/status", &[], 401),
        ("GET", "/api/status", &["Authorization: Bearer wrong"], 401),
        ("GET", "/api/status", &[token], 200),
        ("GET", unknown, &[token], 404),
        ("GET", "/api/pages/00c5f0a17be3d942/flow", &[token], 404),
        ("GET", "/api/pages/00c5f0a17be3d942/flow.svg", &[token], 404),
        ("GET", "/api/pages/00c5f0a17be3d942/flow.pcapng", &[token], 404),
        ("GET", "/api/pages?limit=many", &[token], 400),
        ("POST", "/api/pages", &[token, meant], 405),
        ("GET", "/admin/drain", &[token], 405),
        ("POST", "/admin/drain", &[meant], 401),
        ("POST", "/admin/drain", &[token], 403),
        ("POST", "/admin/drain", &[token, meant, host], 403),
        ("POST", "/admin/pages/00c5f0a17be3d942/end", &[token, meant], 404),
        ("PUT", "/admin/barred/sip:eve@ims.test", &[token, meant], 200),
        ("DELETE", "/admin/barred/sip:eve@ims.test", &[token, meant], 200),
    ];
    for (method, path, headers, status) in cases {
        let answer = http(ops, method, path, headers).await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {}", answer.head);
    }
    let answer = http(ops, "POST", "/admin/drain", &[token, meant]).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let run = net.server.program.ended().await;
    assert_eq!(run.status, Some(0), "idle, so it ends at once: {run:?}");
}
