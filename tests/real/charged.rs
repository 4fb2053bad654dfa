//! Charging records of a real server: one line for each recipient, also when the process is killed.

use std::fs;

use pagecast::lab::core::{Core, Settings as CoreSettings};
use pagecast::lab::phone::{Answer, Behaviour};
use serde_json::Value;
use tokio::time::timeout;

use super::support::{Folder, LIMIT, Server, page, phone, until};

/// The records in files that end so.
fn records(folder: &Folder, end: &str) -> Vec<Value> {
    let Ok(files) = fs::read_dir(folder.join("var/charging")) else { return Vec::new() };
    let mut files: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
    files.sort();
    let files = files.iter().filter(|file| file.to_string_lossy().ends_with(end));
    files
        .flat_map(|file| {
            let text = fs::read_to_string(file).expect("a file");
            let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
            lines.collect::<Vec<Value>>()
        })
        .collect()
}

/// Proves ISC-025.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recipient_is_charged_once_and_a_kill_loses_none() {
    let folder = Folder::new();
    let core = Core::start(CoreSettings::demo()).await.expect("loopback");
    let on = ["charging.enabled=true", "profile.msrp.drain_after_end=100ms"];
    let mut server = Server::start(&folder, &core.uri(), &on).await;
    core.serve(&format!("sip:{}", server.udp)).expect("an address");
    let alice = phone(&core, "alice", Behaviour::default()).await;
    let bob = phone(&core, "bob", Behaviour::default()).await;
    let refuses = Behaviour { answer: Answer::Refuse { status: 486 }, ..Behaviour::default() };
    let _carol = phone(&core, "carol", refuses).await;
    let pages = async || {
        let outcome = alice.page(&page(&["bob", "carol"], 5000)).await;
        assert!(outcome.succeeded(), "{outcome:?}");
        timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
    };
    pages().await;
    let shown = server.newest().await;
    until("two records on disk", async || {
        let written = server.metric("pagecast_charging_records_total", "written").await;
        (written == 2).then_some(())
    })
    .await;
    assert_eq!(records(&folder, ".part").len(), 2);

    // Killed: what was written is whole, and in a closed file after the next start.
    server.program.signal("KILL");
    server.program.ended().await;
    let server = Server::start(&folder, &core.uri(), &on).await;
    core.serve(&format!("sip:{}", server.udp)).expect("an address");
    let closed = records(&folder, ".jsonl");
    assert_eq!(closed.len(), 2, "{closed:?}");
    for (record, (to, outcome, octets)) in closed
        .iter()
        .zip([("sip:bob@ims.test", "delivered", 5000), ("sip:carol@ims.test", "failed", 0)])
    {
        assert_eq!(record["page"], shown["id"]);
        assert_eq!((&record["to"], &record["outcome"]), (&to.into(), &outcome.into()), "{record}");
        assert_eq!(record["originator"], "sip:alice@ims.test");
        assert!(record["octets"].as_u64() >= Some(octets), "{record}");
        let own = record["leg_icid"].as_str().expect("an icid of its own");
        assert!(own.starts_with(shown["id"].as_str().expect("an id")), "{record}");
        assert!(record["icid"].as_str().is_some_and(|icid| icid != own), "{record}");
    }
    assert_eq!(closed[1]["cause"]["code"], 486);

    // Ended in order, the file is closed at once.
    pages().await;
    server.newest().await;
    server.ends().await;
    assert_eq!(records(&folder, ".jsonl").len(), 4);
    assert!(records(&folder, ".part").is_empty());
}
