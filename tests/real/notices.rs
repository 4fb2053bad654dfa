//! Two processes: one keeps the groups, the other serves pages and is told over SIP when a group changes.

use std::time::Duration;

use pagecast::lab::core::{Core, Settings as CoreSettings};
use pagecast::lab::phone::{Behaviour, PageRequest, Phone, Recipients};
use tokio::time::timeout;

use super::support::{Folder, LIMIT, Server, phone, run, until, user};

const GROUP: &str = "sip:team@groups.ims.test";

/// The group has exactly these members from now on.
async fn put(folder: &Folder, root: &str, members: &[&str]) {
    let members = members.iter().map(|name| user(name)).collect::<Vec<_>>().join(",");
    let document = run(folder, &["group", "new", "--uri", GROUP, "--members", &members]).await;
    std::fs::write(folder.join("team.xml"), document.out).expect("written");
    let put = ["group", "put", "team.xml", "--as", "sip:alice@ims.test", "--root", root];
    let put = run(folder, &put).await;
    assert_eq!(put.status, Some(0), "{put:?}");
}

/// Alice pages the group; who was reached, in the order of the group.
async fn reached(server: &Server, alice: &Phone, phones: &[&Phone]) -> Vec<String> {
    let to = Recipients::Group(GROUP.to_owned());
    let request = PageRequest {
        patience: LIMIT,
        ..PageRequest::new(to, "text/plain", bytes::Bytes::from_static(b"where are you"))
    };
    let outcome = alice.page(&request).await;
    assert!(outcome.succeeded(), "{outcome:?}\n{}", server.program.err());
    for phone in phones {
        let got = timeout(LIMIT, phone.received()).await.expect("in time").expect("it runs");
        assert!(got.whole, "{got:?}");
    }
    let page = server.newest().await;
    let recipients = page["recipients"].as_array().expect("recipients").iter();
    let recipients = recipients.filter(|one| one["state"] != "removed");
    recipients.map(|one| one["uri"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A member who is removed gets no page a second later, although the group would be good for a minute.
///
/// Proves XD-041, XD-043.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_gets_no_page_a_second_later() {
    let (here, there) = (Folder::new(), Folder::new());
    let core = Core::start(CoreSettings::demo()).await.expect("loopback");
    let sip = "xdms.sip=sip:xdms@ims.test";
    let xdms = Server::start(&there, "sip:127.0.0.1:9", &[sip]).await;
    let root = format!("http://{}/xcap-root", xdms.xcap);
    put(&there, &root, &["alice", "bob", "carol"]).await;
    let server = Server::start(
        &here,
        &core.uri(),
        &[
            sip,
            "xdms.mode=ut",
            &format!("xdms.root={root}"),
            // The way to what is no user's: here that is the XDMS alone.
            &format!("core.icscf=\"sip:{};transport=tcp\"", xdms.tcp),
            "profile.msrp.drain_after_end=100ms",
        ],
    )
    .await;
    core.serve(&format!("sip:{}", server.udp)).expect("an address");
    let alice = phone(&core, "alice", Behaviour::default()).await;
    let bob = phone(&core, "bob", Behaviour::default()).await;
    let carol = phone(&core, "carol", Behaviour::default()).await;

    let both = [user("bob"), user("carol")];
    assert_eq!(reached(&server, &alice, &[&bob, &carol]).await, both);
    until("the subscription", async || {
        xdms.program.err().contains("documents are watched").then_some(())
    })
    .await;
    // The notice of a change right after another one waits five seconds; the change counts before.
    put(&there, &root, &["alice", "bob"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(reached(&server, &alice, &[&bob]).await, [user("bob")]);
    put(&there, &root, &["alice", "bob", "carol"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(reached(&server, &alice, &[&bob, &carol]).await, both);
    put(&there, &root, &["alice", "bob"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(reached(&server, &alice, &[&bob]).await, [user("bob")]);

    // Without the XDMS the page still goes to who was told of last.
    xdms.ends().await;
    assert_eq!(reached(&server, &alice, &[&bob]).await, [user("bob")]);
    server.idle().await;
    server.ends().await;
}
