//! Two servers: one keeps the groups and serves them over XCAP, the other finds them there.

use pagecast::lab::phone::{Behaviour, PageOutcome, PageRequest, Phone, Recipients};
use std::time::Duration;
use tokio::time::timeout;

use super::support::{Folder, LIMIT, Net, Server, run, until};

const GROUP: &str = "sip:team@groups.ims.test";

async fn page(alice: &Phone) -> PageOutcome {
    let to = Recipients::Group(GROUP.to_owned());
    let request = PageRequest {
        patience: Duration::from_secs(60),
        ..PageRequest::new(to, "text/plain", b"to the team".to_vec())
    };
    alice.page(&request).await
}

/// Puts a group of these members into the XDMS at `root`.
async fn put(folder: &Folder, root: &str, members: &str) {
    let new = ["group", "new", "--uri", GROUP, "--members", members];
    std::fs::write(folder.join("team.xml"), run(folder, &new).await.out).expect("written");
    let put = ["group", "put", "team.xml", "--as", "sip:alice@ims.test", "--root", root];
    let put = run(folder, &put).await;
    assert_eq!(put.status, Some(0), "{put:?}");
}

async fn got(phone: &Phone) {
    let got = timeout(LIMIT, phone.received()).await.expect("in time").expect("it runs");
    assert_eq!(got.content().expect("CPIM").1, &b"to the team"[..]);
}

/// A page to a group of an XDMS elsewhere arrives; so it does for a time while that XDMS is down, then it is refused; a
/// change is in force when what is cached has come of age.
///
/// Proves XD-007, XD-008, XD-038, XD-039, IM-033, IM-088.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_an_xdms_elsewhere() {
    let library = Folder::new();
    let mut xdms = Server::start(&library, "sip:127.0.0.1:9", &[]).await;
    let root = format!("http://{}/xcap-root", xdms.xcap);
    put(&library, &root, "sip:alice@ims.test,sip:bob@ims.test").await;
    let net = Net::new(&[
        "xdms.mode=ut",
        &format!("xdms.root={root}"),
        "profile.xdm.cache_ttl=1s",
        "profile.xdm.stale_if_error=4s",
        "ops.flow_keep=all",
    ])
    .await;
    assert!(net.server.ready.contains(" xcap=- "), "{}", net.server.ready);
    let (bob, carol) = (
        net.phone("bob", Behaviour::default()).await,
        net.phone("carol", Behaviour::default()).await,
    );

    let outcome = page(&net.alice).await;
    assert!(outcome.succeeded(), "{outcome:?}\n{}", net.server.program.err());
    got(&bob).await;
    // The exchange is in the page's flow, as it was, and counted.
    let id = net.server.newest().await["id"].as_str().expect("an id").to_owned();
    let flow = net.server.json(&format!("/api/pages/{id}/flow")).await;
    let xcap = |what: &str| {
        let messages = flow["messages"].as_array().expect("messages");
        messages.iter().any(|message| {
            message["proto"] == "XCAP"
                && message["line"].as_str().is_some_and(|l| l.starts_with(what))
        })
    };
    let get =
        format!("GET /xcap-root/org.openmobilealliance.groups/global/byGroupID/{GROUP} HTTP/1.1");
    assert!(xcap(&get) && xcap("HTTP/1.1 200"), "{flow:#}");
    assert!(net.server.metric("pagecast_xdms_requests_total", "result=\"ok\"").await >= 1);
    let shown = async || {
        let status = net.server.json("/api/status").await;
        let all = status["neighbours"].as_array().expect("neighbours").clone();
        all.into_iter().find(|one| one["name"] == "XDMS").expect("the XDMS")
    };
    let neighbour = shown().await;
    assert_eq!((&neighbour["state"], neighbour["address"].as_str()), (&"up".into(), Some(&*root)));

    // A change is in force once what is cached is of age.
    put(&library, &root, "sip:alice@ims.test,sip:carol@ims.test").await;
    let mut pages = 0;
    until("the change", async || {
        assert!(page(&net.alice).await.succeeded());
        pages += 1;
        let recipients = net.server.newest().await["recipients"].clone();
        (recipients[0]["uri"] == "sip:carol@ims.test").then_some(())
    })
    .await;
    got(&carol).await;
    for _ in 1..pages {
        got(&bob).await;
    }

    // The XDMS is gone: what is cached counts for a time, and then nobody knows.
    xdms.program.signal("KILL");
    xdms.program.ended().await;
    assert!(page(&net.alice).await.succeeded(), "{}", net.server.program.err());
    got(&carol).await;
    let refused = until("the end of the time for it", async || {
        let outcome = page(&net.alice).await;
        (!outcome.succeeded()).then_some(outcome)
    })
    .await;
    assert_eq!(refused.status, Some(480), "{refused:?}");
    assert!(refused.retry_after.is_some(), "{refused:?}");
    let neighbour = shown().await;
    assert_eq!(neighbour["state"], "down");
    assert!(neighbour["last_error"].as_str().is_some_and(|why| why.contains("cannot connect")));

    // It comes back, and everything is as before.
    let again = format!("xdms.listen={}", xdms.xcap);
    let back = Server::start(&library, "sip:127.0.0.1:9", &[&again]).await;
    until("a page that arrives", async || page(&net.alice).await.succeeded().then_some(())).await;

    drop((bob, carol));
    let Net { server, .. } = net;
    server.ends().await;
    back.ends().await;
}
