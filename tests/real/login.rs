//! A phone without a core pages through the server of a plain SIP network: SIP Digest from end to end.

use std::fs;

use pagecast::lab::phone::{Behaviour, Phone, Settings};
use pagecast::sip::digest::{Algorithm, Ha1};
use tokio::time::timeout;

use super::support::{Folder, LIMIT, Program, Server, until};

const REALM: &str = "ims.test";

/// A file of users in the words of the configuration.
fn users(folder: &Folder, passwords: &[(&str, &str)]) {
    let mut text = String::new();
    for (name, password) in passwords {
        // The secret stands in the file alone; what is compared is what a shell would make of it.
        let digits = |tool: &str| {
            let line = format!("printf '%s' '{name}:{REALM}:{password}' | {tool} | cut -d' ' -f1");
            let made = std::process::Command::new("sh").args(["-c", &line]).output();
            String::from_utf8(made.expect("a shell").stdout).expect("text").trim().to_owned()
        };
        let (sha256, md5) = (digits("sha256sum"), digits("md5sum"));
        assert_eq!(
            Ha1::read(Algorithm::Sha256, &sha256),
            Some(Ha1::of(Algorithm::Sha256, name, REALM, password.as_bytes()))
        );
        text += &format!(
            "[users.{name}]\nsha256 = \"{sha256}\"\nmd5 = \"{md5}\"\n\
             identities = [\"sip:{name}@ims.test\"]\n"
        );
    }
    fs::write(folder.join("users.toml"), text).expect("written");
}

/// A server that trusts nobody here, and knows `alice`.
async fn server(folder: &Folder, core: &str) -> Server {
    users(folder, &[("alice", "sesame")]);
    let profile = format!("{}/ims-profiles/{core}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = format!(
        "profile = \"{profile}\"\n[node]\ndata_dir = \"var\"\n\
         [sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\ntrusted_peers = [\"192.0.2.1\"]\n\
         [auth]\nrealm = \"{REALM}\"\nusers = \"users.toml\"\n\
         [msrp]\nlisten = [\"127.0.0.1:0\"]\n[xdms]\nlisten = \"127.0.0.1:0\"\n\
         [ops]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"trace\"\n"
    );
    fs::write(folder.join("as.toml"), text).expect("written");
    let arguments = [
        "serve",
        "--config",
        "as.toml",
        "--set",
        "profile.ul.require_tls=false",
        "--set",
        "profile.ul.allow_loopback_targets=true",
    ];
    Server::ready(Program::start(folder, &arguments)).await
}

/// Bob, who is found by his address.
async fn bob(server: &Server) -> Phone {
    let settings = Settings {
        unregistered: true,
        behaviour: Behaviour { hangs_up_after_page: true, ..Behaviour::default() },
        ..Settings::new(&format!("sip:{}", server.udp), "sip:bob@ims.test")
    };
    Phone::start(settings).await.expect("loopback")
}

/// `page` as somebody, to bob; its exit status and what it says.
async fn page(
    folder: &Folder,
    server: &Server,
    bob: &Phone,
    from: &str,
    auth: &[&str],
) -> (Option<i32>, String) {
    let core = format!("sip:{}", server.udp);
    let list = format!("sip:bob@{}", bob.address());
    let mut arguments = vec!["page", "--core", &core, "--from", from, "--list", &list];
    arguments.extend(["--text", "Lunch at 12?", "--unregistered"]);
    arguments.extend(auth);
    let run = super::support::run(folder, &arguments).await;
    (run.status, run.out + &run.err)
}

/// Proves IM-021.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_with_a_password_and_not_without() {
    let folder = Folder::new();
    let server = server(&folder, "sipip").await;
    let bob = bob(&server).await;
    let alice = "sip:alice@ims.test";
    for (from, auth, status) in [
        (alice, &[][..], "401"),
        (alice, &["--auth", "alice:open"][..], "401"),
        (alice, &["--auth", "eve:sesame"][..], "401"),
        ("sip:bob@ims.test", &["--auth", "alice:sesame"][..], "403"),
    ] {
        let (ended, said) = page(&folder, &server, &bob, from, auth).await;
        assert_eq!(ended, Some(1), "{from} {auth:?}: {said}");
        assert!(said.starts_with(status), "{from} {auth:?}: {said}");
    }
    let right = ["--auth", "alice:sesame"];
    let (ended, said) = page(&folder, &server, &bob, alice, &right).await;
    assert_eq!(ended, Some(0), "{said}");
    let got = timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
    assert_eq!(got.content().expect("CPIM").1, "Lunch at 12?");
    assert_eq!((got.from.as_str(), got.asserted), (alice, None));

    // Another password is in force as soon as the file is read again, by every thread.
    users(&folder, &[("alice", "changed")]);
    server.program.signal("HUP");
    until("the new password", async || {
        let changed = ["--auth", "alice:changed"];
        let (ended, _) = page(&folder, &server, &bob, alice, &changed).await;
        (ended == Some(0)).then_some(())
    })
    .await;
    let (ended, said) = page(&folder, &server, &bob, alice, &right).await;
    assert!(ended == Some(1) && said.starts_with("401"), "{said}");

    // Neither file nor log has told a secret.
    let log = server.program.err();
    let ha1 = fs::read_to_string(folder.join("users.toml")).expect("read");
    for line in ha1.lines().filter(|line| line.starts_with("sha256") || line.starts_with("md5")) {
        let digits = line.split('"').nth(1).expect("a value");
        assert!(!log.contains(digits), "a HA1 in the log");
    }
    for word in ["sesame", "changed", "response="] {
        assert!(!log.contains(word), "{word} in the log");
    }
    server.ends().await;
}

/// Proves IM-021, ISC-001.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ims_core_asks_no_stranger_for_a_password() {
    let folder = Folder::new();
    let server = server(&folder, "3gpp").await;
    let bob = bob(&server).await;
    let auth = ["--auth", "alice:sesame"];
    let (ended, said) = page(&folder, &server, &bob, "sip:alice@ims.test", &auth).await;
    assert!(ended == Some(1) && said.starts_with("403"), "{said}");
    server.ends().await;
}
