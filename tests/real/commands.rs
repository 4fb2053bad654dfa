//! The commands as a user meets them: exit status, what is on stdout and stderr, signals, restarts.

use std::time::Duration;

use pagecast::lab::core::{Core, Settings as CoreSettings};
use pagecast::lab::phone::{Answer, Behaviour, Reads};
use tokio::time::timeout;

use super::support::{
    Folder, LIMIT, Net, Program, Server, arguments, page, phone, run, until, user,
};

const COMMANDS: [&str; 9] =
    ["serve", "check", "demo", "core", "page", "phone", "load", "group", "flow"];

/// Every command explains itself with an example; wrong usage is 2 and says so on stderr alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_and_wrong_usage() {
    let folder = Folder::new();
    for command in COMMANDS {
        let help = run(&folder, &[command, "--help"]).await;
        assert_eq!(help.status, Some(0), "{command}");
        assert!(
            help.out.contains("Example") && help.out.contains(&format!("pagecast {command}")),
            "{}",
            help.out
        );
        let wrong = run(&folder, &[command, "--no-such-option"]).await;
        assert_eq!(wrong.status, Some(2), "{command}: {wrong:?}");
        assert!(wrong.out.is_empty() && wrong.err.contains("--no-such-option"), "{wrong:?}");
    }
    assert_eq!(run(&folder, &["--help"]).await.status, Some(0));
    let wrong: [&[&str]; 9] = [
        &[],
        &["nonsense"],
        &["page", "--core", "sip:127.0.0.1:1", "--from", "sip:a@b"],
        &[
            "page",
            "--core",
            "sip:127.0.0.1:1",
            "--from",
            "sip:a@b",
            "--list",
            "sip:c@d",
            "--group",
            "sip:g@d",
            "--text",
            "x",
        ],
        &["demo", "--members", "many"],
        &["flow"],
        &["flow", "not-an-id"],
        &["group", "new", "--uri", "nonsense", "--members", "sip:a@b"],
        &[
            "load",
            "--core",
            "sip:127.0.0.1:1",
            "--from",
            "sip:a@b",
            "--recipients",
            "1",
            "--seconds",
            "1",
            "--size",
            "16",
        ],
    ];
    for arguments in wrong {
        let ended = run(&folder, arguments).await;
        assert_eq!(ended.status, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.out.is_empty() && !ended.err.is_empty(), "{arguments:?}: {ended:?}");
    }
}

/// Wrong configuration: 2, and one line on stderr that names file, line and key, the same from `check` and `serve`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_configuration_is_one_line() {
    let folder = Folder::new();
    let file = folder.join("bad.toml");
    let file = file.to_str().expect("a path of ours");
    let rcs = concat!(env!("CARGO_MANIFEST_DIR"), "/ims-profiles/rcs-cpm.toml");
    for (name, text) in [
        ("circle.toml", "[im]\nleg_timeout = \"9s\"\n".to_owned()),
        ("typo.toml", format!("extends = \"{rcs}\"\n[im]\nicsy = \"x\"\n")),
        ("kind.toml", format!("extends = \"{rcs}\"\n[im]\nicsi = 7\n")),
        ("env.toml", "[ul]\nphone_context = \"${NO_SUCH_VARIABLE}\"\n".to_owned()),
    ] {
        let head = if name == "circle.toml" { "extends = \"circle.toml\"\n" } else { "" };
        std::fs::write(folder.join(name), format!("{head}{text}")).expect("written");
    }
    let cases: [(&str, &[&str], &[&str]); 17] = [
        ("profile = \"circle.toml\"\n", &[], &["circle.toml:1", "extends", "in a circle"]),
        ("profile = \"typo.toml\"\n", &[], &["typo.toml:3", "im.icsy", "did you mean im.icsi?"]),
        ("profile = \"kind.toml\"\n", &[], &["kind.toml:3", "im.icsi", "7 is no text"]),
        ("profile = \"env.toml\"\n", &[], &["env.toml:2", "ul.phone_context", "NO_SUCH_VARIABLE"]),
        ("", &["profile.extends=3gpp.toml"], &["--set: profile.extends"]),
        ("[node]\nnmae = \"x\"\n", &[], &["bad.toml:2", "node.nmae"]),
        ("[node\n", &[], &["bad.toml:1"]),
        ("[log]\nlevel = \"loud\"\n", &[], &["bad.toml:2", "log.level", "loud"]),
        ("[sip]\n\nlisten = [\"udp:nowhere\"]\n", &[], &["bad.toml:3", "sip.listen"]),
        ("[node]\ndrain_timeout = \"soon\"\n", &[], &["bad.toml:2", "node.drain_timeout"]),
        ("profile = \"missing.toml\"\n", &[], &["missing.toml"]),
        ("[ops]\nlisten = \"0.0.0.0:0\"\n", &[], &["ops.listen", "ops.token"]),
        ("[node]\nname = \"${NO_SUCH_VARIABLE}\"\n", &[], &["bad.toml:2", "NO_SUCH_VARIABLE"]),
        ("", &["node.threads=many"], &["node.threads"]),
        ("", &["profile.im.leg_timeout=never"], &["im.leg_timeout"]),
        ("", &["profile.no.such=1"], &["no.such"]),
        ("", &["nonsense"], &["nonsense"]),
    ];
    for (text, set, words) in cases {
        std::fs::write(file, text).expect("written");
        let mut said = Vec::new();
        for command in ["check", "serve"] {
            let mut arguments = vec![command, "--config", file];
            set.iter().for_each(|set| arguments.extend(["--set", set]));
            let ended = run(&folder, &arguments).await;
            assert_eq!(ended.status, Some(2), "{command} {text:?} {set:?}: {ended:?}");
            assert!(ended.out.is_empty(), "{command} {text:?}: {ended:?}");
            assert_eq!(ended.err.lines().count(), 1, "{command} {text:?}: {}", ended.err);
            for word in words {
                assert!(ended.err.contains(word), "{command} {text:?}: no {word} in {}", ended.err);
            }
            said.push(ended.err);
        }
        assert_eq!(said[0], said[1], "check and serve agree");
    }
    let missing = run(&folder, &["check", "--config", "no-such-file.toml"]).await;
    assert_eq!((missing.status, missing.err.lines().count()), (Some(2), 1), "{missing:?}");

    let good = run(&folder, &["check", "--set", "node.name=elsewhere"]).await;
    assert_eq!(good.status, Some(0), "{good:?}");
    let line = good.out.lines().find(|line| line.starts_with("node.name"));
    assert!(
        line.is_some_and(|line| line.contains("elsewhere") && line.contains("--set")),
        "{}",
        good.out
    );
    assert!(good.out.lines().any(
        |line| line.starts_with("profile.im.leg_timeout") || line.starts_with("im.leg_timeout")
    ));
}

/// The shipped files are good, from their own place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_files_are_good() {
    let folder = Folder::new();
    let root = env!("CARGO_MANIFEST_DIR");
    let shipped = format!("{root}/config/pagecast.toml");
    let ended = run(&folder, &["check", "--config", &shipped]).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    for profile in std::fs::read_dir(format!("{root}/ims-profiles")).expect("profiles") {
        let profile = profile.expect("readable").path();
        let set = format!("profile=\"{}\"", profile.display());
        let mut arguments = vec!["check", "--config", &shipped, "--set", &set];
        if profile.ends_with("sipip.toml") {
            arguments.extend(["--set", "core.outbound_proxy=sip:127.0.0.1:5060"]);
        }
        let ended = run(&folder, &arguments).await;
        assert_eq!(ended.status, Some(0), "{}: {ended:?}", profile.display());
    }
}

/// The line, closed doors, what cannot be bound, what cannot be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_or_not() {
    let folder = Folder::new();
    let core = "sip:127.0.0.1:9";
    let server = Server::start(&folder, core, &["node.name=as7", "node.threads=2"]).await;
    let Server { udp, tcp, msrp, xcap, ops, .. } = &server;
    assert_eq!(
        server.ready,
        format!("ready node=as7 sip=udp:{udp},tcp:{tcp} msrp={msrp} xcap={xcap} ops={ops}")
    );
    assert!([udp, tcp, msrp, xcap, ops].iter().all(|at| at.ip().is_loopback() && at.port() != 0));
    assert_eq!(server.get("/ready").await.status, 200);
    let status = server.json("/api/status").await;
    assert_eq!(status["node"], "as7");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(server.program.out().lines().count(), 1, "nothing but the line is on stdout");

    // Each door by itself is enough to fail, SIP with several threads, too.
    let other = Folder::new();
    let taken = [
        format!("sip.listen=[\"udp:{udp}\"]"),
        format!("sip.listen=[\"tcp:{tcp}\", \"udp:127.0.0.1:0\"]"),
        format!("msrp.listen=[\"{msrp}\"]"),
        format!("xdms.listen={xcap}"),
        format!("ops.listen={ops}"),
    ];
    for taken in &taken {
        for threads in ["node.threads=1", "node.threads=2"] {
            let mut all = vec!["serve".to_owned()];
            all.extend(arguments(&other, core, &[taken, threads]));
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let ended = run(&other, &all).await;
            assert_eq!(ended.status, Some(1), "{taken} {threads}: {ended:?}");
            assert!(
                ended.out.is_empty() && ended.err.contains("cannot listen"),
                "{taken}: {ended:?}"
            );
        }
    }
    // The one that runs has not noticed.
    assert_eq!(server.get("/ready").await.status, 200);
    server.ends().await;

    let mut closed = vec!["serve".to_owned()];
    closed.extend(arguments(&folder, core, &["ops.listen=\"\"", "xdms.listen=\"\""]));
    let closed: Vec<&str> = closed.iter().map(String::as_str).collect();
    let mut closed = Program::start(&folder, &closed);
    let line = closed.first_line().await;
    assert!(line.ends_with(" xcap=- ops=-"), "{line}");
    closed.signal("INT");
    assert_eq!(closed.ended().await.status, Some(0), "SIGINT is as SIGTERM");

    std::fs::write(folder.join("no-folder"), "a file").expect("written");
    let unusable = format!("node.data_dir=\"{}/var\"", folder.join("no-folder").display());
    let mut all = vec!["serve".to_owned()];
    all.extend(arguments(&folder, core, &[&unusable]));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let ended = run(&folder, &all).await;
    assert_eq!((ended.status, ended.out.as_str()), (Some(1), ""), "{ended:?}");
}

/// A folder belongs to one server; what was stored survives even SIGKILL, unless it was to be kept in memory only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_and_its_owner() {
    let folder = Folder::new();
    let core = "sip:127.0.0.1:9";
    let group = "sip:team@groups.ims.test";
    let new = ["group", "new", "--uri", group, "--members", "sip:alice@ims.test"];
    std::fs::write(folder.join("team.xml"), run(&folder, &new).await.out).expect("written");
    let put = async |server: &Server| {
        let root = format!("http://{}/xcap-root", server.xcap);
        let put = ["group", "put", "team.xml", "--as", "sip:alice@ims.test", "--root", &root];
        assert_eq!(run(&folder, &put).await.status, Some(0));
    };
    let there = async |server: &Server| {
        let root = format!("http://{}/xcap-root", server.xcap);
        run(&folder, &["group", "get", group, "--root", &root]).await.status == Some(0)
    };

    let forgetful = Server::start(&folder, core, &["store.url=memory:"]).await;
    assert_eq!(forgetful.json("/api/status").await["neighbours"][3]["address"], "memory:");
    put(&forgetful).await;
    assert!(there(&forgetful).await);
    forgetful.ends().await;

    let mut server = Server::start(&folder, core, &[]).await;
    assert!(!there(&server).await, "what was kept in memory is gone");
    put(&server).await;
    let mut all = vec!["serve".to_owned()];
    all.extend(arguments(&folder, core, &[]));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let second = run(&folder, &all).await;
    assert_eq!((second.status, second.out.as_str()), (Some(1), ""), "{second:?}");
    assert!(second.err.contains("node.data_dir"), "{second:?}");

    server.program.signal("KILL");
    assert_eq!(server.program.ended().await.status, None);
    let server = Server::start(&folder, core, &[]).await;
    assert!(there(&server).await);
    server.ends().await;
}

/// While a page runs: SIGTERM lets it finish, a second signal does not wait, and the limit ends the wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining() {
    for (limit, second, status) in [("60s", false, 0), ("60s", true, 1), ("500ms", false, 0)] {
        let net =
            Net::new(&[&format!("node.drain_timeout={limit}"), "profile.im.leg_timeout=50s"]).await;
        let waits = limit == "60s";
        let finishes = waits && !second;
        let bob = net
            .phone(
                "bob",
                Behaviour {
                    after: Duration::from_secs(1),
                    answer: if finishes { Answer::Accept } else { Answer::Never },
                    ..Behaviour::default()
                },
            )
            .await;
        let request = page(&["bob"], 1000);
        if finishes {
            let (outcome, ()) = tokio::join!(net.alice.page(&request), drain(&net, true, false));
            assert!(outcome.succeeded(), "{outcome:?}");
            assert!(timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs").whole);
        } else {
            tokio::select! {
                outcome = net.alice.page(&request) => panic!("{outcome:?}"),
                () = drain(&net, waits, second) => {}
            }
        }
        let Net { mut server, .. } = net;
        let ended = server.program.ended().await;
        assert_eq!(ended.status, Some(status), "{limit} {second}: {ended:?}");
    }
}

/// Once a page runs: SIGTERM, and if there is time a look at what the server says then.
async fn drain(net: &Net, look: bool, second: bool) {
    until("the page runs", async || {
        let pages = net.server.json("/api/pages?limit=1").await;
        (pages["pages"][0]["state"] == "inviting").then_some(())
    })
    .await;
    net.server.program.signal("TERM");
    if look {
        until("it drains", async || {
            let ready = net.server.get("/ready").await;
            let told = String::from_utf8_lossy(&ready.body).into_owned();
            (ready.status == 503 && told.contains("\"draining\"")).then_some(())
        })
        .await;
        let carol = net.phone("carol", Behaviour::default()).await;
        let outcome = carol.page(&page(&["bob"], 10)).await;
        assert_eq!(outcome.status, Some(503), "{outcome:?}");
        assert!(outcome.retry_after.is_some(), "{outcome:?}");
    }
    if second {
        net.server.program.signal("TERM");
    }
}

/// SIGHUP: all or nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloading() {
    let folder = Folder::new();
    let core = Core::start(CoreSettings::demo()).await.expect("loopback");
    let file = folder.join("pagecast.toml");
    std::fs::write(&file, "").expect("written");
    let mut all = vec!["serve".to_owned(), "--config".to_owned(), file.display().to_string()];
    all.extend(arguments(&folder, &core.uri(), &[]));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let server = Server::ready(Program::start(&folder, &all)).await;
    core.serve(&format!("sip:{}", server.udp)).expect("an address");
    let alice = phone(&core, "alice", Behaviour::default()).await;
    let bob = phone(&core, "bob", Behaviour::default()).await;
    let works = async || {
        let outcome = alice.page(&page(&["bob"], 100)).await;
        if outcome.succeeded() {
            timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
        }
        outcome.status
    };
    assert_eq!(works().await, Some(200));

    std::fs::write(&file, "[service]\nbarred = [\"sip:alice@ims.test\"]\n").expect("written");
    server.program.signal("HUP");
    until("alice is barred", async || (works().await == Some(403)).then_some(())).await;

    std::fs::write(&file, "[service]\nbarred = []\nbared = []\n").expect("written");
    server.program.signal("HUP");
    until("the mistake is told", async || {
        server.program.err().contains("service.bared").then_some(())
    })
    .await;
    assert_eq!(works().await, Some(403), "the old configuration stays in force");
    let headers = ["X-Pagecast: 1"];
    let answer = super::support::http(server.ops, "POST", "/admin/reload", &headers).await;
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.body).contains("service.bared"));

    std::fs::write(&file, "[service]\nbarred = []\n").expect("written");
    let answer = super::support::http(server.ops, "POST", "/admin/reload", &headers).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    until("alice is back", async || (works().await == Some(200)).then_some(())).await;

    // Rules about recipients are in force at once; what waits for the next start is named.
    let both = page(&["bob", "carol"], 100);
    assert_ne!(alice.page(&both).await.status, Some(486));
    timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
    let profile = folder.join("small.toml");
    std::fs::write(&profile, "core = \"3gpp\"\n[im]\nmax_recipients = 1\n").expect("written");
    let fresh = format!("profile = {profile:?}\n[msrp]\nspool_total = \"1GiB\"\n");
    std::fs::write(&file, fresh).expect("written");
    let answer = super::support::http(server.ops, "POST", "/admin/reload", &headers).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    until("one recipient is all", async || {
        let outcome = alice.page(&both).await;
        (outcome.status == Some(486)).then_some(())
    })
    .await;
    assert!(server.program.err().contains("keys=\"msrp.spool_total\""), "{}", server.program.err());
    server.ends().await;
}

/// Groups over XCAP, a restart, pages to a list of one and to a group, a receiving phone, a call flow: as README tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_by_hand() {
    let folder = Folder::new();
    let mut core =
        Program::start(&folder, &["core", "--listen", "127.0.0.1:0", "--as", "sip:127.0.0.1:9"]);
    assert!(core.first_line().await.starts_with("core sip:127.0.0.1:"));
    core.signal("TERM");
    assert_eq!(core.ended().await.status, Some(0));

    let core = Core::start(CoreSettings::demo()).await.expect("loopback");
    let core_uri = core.uri();
    let server = Server::start(&folder, &core_uri, &[]).await;
    let root = format!("http://{}/xcap-root", server.xcap);
    let group = user("team").replace("@ims", "@groups.ims");
    let command = async |words: &[&str]| run(&folder, words).await;

    // Groups.
    let new = command(&[
        "group",
        "new",
        "--uri",
        &group,
        "--members",
        "sip:alice@ims.test,sip:bob@ims.test",
    ])
    .await;
    assert_eq!((new.status, new.err.as_str()), (Some(0), ""), "{new:?}");
    std::fs::write(folder.join("team.xml"), &new.out).expect("written");
    let unknown = command(&["group", "get", &group, "--root", &root]).await;
    assert_eq!((unknown.status, unknown.out.as_str()), (Some(1), ""), "{unknown:?}");
    let unknown = command(&["group", "rm", &group, "--root", &root]).await;
    assert_eq!(unknown.status, Some(1), "{unknown:?}");
    let put =
        command(&["group", "put", "team.xml", "--as", "sip:alice@ims.test", "--root", &root]).await;
    assert_eq!((put.status, put.err.as_str()), (Some(0), ""), "{put:?}");
    let got = command(&["group", "get", &group, "--root", &root]).await;
    assert_eq!((got.status, got.out.as_str()), (Some(0), new.out.as_str()), "{got:?}");
    let mute = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<group xmlns=\"urn:oma:xml:poc:list-service\">\
         <list-service uri=\"sip:mute@groups.ims.test\"><list><entry uri=\"{}\"/></list></list-service></group>\n",
        user("bob")
    );
    std::fs::write(folder.join("mute.xml"), mute).expect("written");
    let put =
        command(&["group", "put", "mute.xml", "--as", "sip:alice@ims.test", "--root", &root]).await;
    assert_eq!(put.status, Some(0), "{put:?}");
    assert!(put.err.contains("warning") && put.err.lines().count() == 1, "{put:?}");
    let list = command(&["group", "list", "--root", &root]).await;
    assert_eq!(list.status, Some(0), "{list:?}");
    let mut listed: Vec<&str> = list.out.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["sip:mute@groups.ims.test", group.as_str()]);
    let removed = command(&["group", "rm", "sip:mute@groups.ims.test", "--root", &root]).await;
    assert_eq!(removed.status, Some(0), "{removed:?}");
    std::fs::write(folder.join("bad.xml"), "<group/>").expect("written");
    let bad =
        command(&["group", "put", "bad.xml", "--as", "sip:alice@ims.test", "--root", &root]).await;
    assert_eq!(bad.status, Some(1), "{bad:?}");

    // The same data after a restart.
    server.ends().await;
    let server = Server::start(&folder, &core_uri, &[]).await;
    let root = format!("http://{}/xcap-root", server.xcap);
    let list = command(&["group", "list", "--root", &root]).await;
    assert_eq!(list.out.lines().collect::<Vec<_>>(), [group.as_str()]);
    let got = command(&["group", "get", &group, "--root", &root]).await;
    assert_eq!(got.out, new.out, "octet by octet");

    // Pages.
    core.serve(&format!("sip:{}", server.udp)).expect("an address");
    let picture = pagecast::lab::picture::png(5000);
    std::fs::write(folder.join("picture.png"), &picture).expect("written");
    let phone = [
        "phone",
        "--core",
        &core_uri,
        "--as",
        "sip:bob@ims.test",
        "--out",
        "inbox/bob",
        "--pages",
        "2",
    ];
    let mut phone = Program::start(&folder, &phone);
    assert!(phone.first_line().await.starts_with("phone sip:bob@ims.test registered"));
    let from = ["page", "--core", &core_uri, "--from", "sip:alice@ims.test"];
    let to_one = [
        &from[..],
        &["--list", "sip:bob@ims.test", "--file", "picture.png", "--type", "image/png"],
    ]
    .concat();
    let sent = command(&to_one).await;
    assert_eq!(sent.status, Some(0), "a list of one: {sent:?}");
    assert!(sent.out.contains("200 OK") && sent.out.contains("reported 200"), "{sent:?}");
    let to_group = [&from[..], &["--group", &group, "--text", "Lunch at 12?"]].concat();
    let sent = command(&to_group).await;
    assert_eq!(sent.status, Some(0), "a group: {sent:?}");
    let received = phone.ended().await;
    assert_eq!(received.status, Some(0), "{received:?}");
    assert_eq!(std::fs::read(folder.join("inbox/bob/0001.png")).expect("the first page"), picture);
    assert_eq!(
        std::fs::read_to_string(folder.join("inbox/bob/0002.txt")).expect("the second"),
        "Lunch at 12?"
    );
    let nobody = [&from[..], &["--list", "sip:nobody@ims.test", "--text", "x"]].concat();
    let refused = command(&nobody).await;
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.out.contains("404"), "{refused:?}");
    let strange =
        [&from[..], &["--group", "sip:strangers@groups.ims.test", "--text", "x"]].concat();
    assert_eq!(command(&strange).await.status, Some(1), "an unknown group");

    // Call flows.
    let ops = format!("http://{}", server.ops);
    let pages = server.json("/api/pages").await;
    let id = pages["pages"][0]["id"].as_str().expect("an id");
    let flow = command(&["flow", id, "--ops", &ops]).await;
    assert_eq!(flow.status, Some(0), "{flow:?}");
    assert!(flow.out.contains("INVITE"), "{flow:?}");
    let unknown = command(&["flow", "00c5f0a17be3d942", "--ops", &ops]).await;
    assert_eq!((unknown.status, unknown.out.as_str()), (Some(1), ""), "{unknown:?}");
    assert_eq!(unknown.err.lines().count(), 1, "{unknown:?}");

    // Load.
    let pid = server.program.pid().to_string();
    let load = [
        "load",
        "--core",
        &core_uri,
        "--from",
        "sip:load@ims.test",
        "--recipients",
        "2",
        "--rate",
        "5",
        "--seconds",
        "1",
        "--size",
        "2000",
        "--pid",
        &pid,
        "--json",
    ];
    let load = command(&load).await;
    let told: serde_json::Value =
        serde_json::from_str(&load.out).expect("one JSON object on stdout");
    assert_eq!(load.status, Some(0), "{load:?}");
    assert!(told["accepted"].as_u64() > Some(0) && told["delivered"] == told["expected"], "{told}");
    assert!(told["server"]["resident"].as_u64() > Some(1 << 20), "{told}");
    let ended = server.program.err();
    assert!(!ended.contains("panicked"), "{ended}");
    server.ends().await;

    // Nobody there.
    let dead = command(&["flow", id, "--ops", &ops]).await;
    assert_eq!((dead.status, dead.err.lines().count()), (Some(1), 1), "{dead:?}");
    let dead = command(&["group", "list", "--root", &root]).await;
    assert_eq!((dead.status, dead.err.lines().count()), (Some(1), 1), "{dead:?}");
}

/// `page` succeeds only if success was reported: here the first delivery decides, and there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_nobody_got_is_no_success() {
    let set = ["profile.msrp.sr_policy=first_delivery", "profile.msrp.drain_after_end=100ms"];
    let folder = Folder::new();
    let core = Core::start(CoreSettings::demo()).await.expect("loopback");
    let server = Server::start(&folder, &core.uri(), &set).await;
    core.serve(&format!("sip:{}", server.udp)).expect("an address");
    let kills = Behaviour { reads: Reads::KillsAfter { octets: 1 }, ..Behaviour::default() };
    let _bob = phone(&core, "bob", kills).await;
    let words = [
        "page",
        "--core",
        &core.uri(),
        "--from",
        "sip:alice@ims.test",
        "--list",
        "sip:bob@ims.test",
        "--text",
        "hello",
    ];
    let ended = run(&folder, &words).await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    server.ends().await;
}

/// The whole service in one command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_succeeds() {
    let folder = Folder::new();
    let demo = run(&folder, &["demo", "--members", "3", "--size", "20480"]).await;
    assert_eq!(demo.status, Some(0), "{demo:?}");
    assert!(demo.out.contains("call flow of page") && demo.out.contains("INVITE"), "{}", demo.out);
    assert!(!demo.out.contains("BAD"), "{}", demo.out);
}

/// Neighbours that answer are told from those that do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probing() {
    let net = Net::new(&[]).await;
    let (xcap, core) = (net.server.xcap, net.core.uri());
    let nobody = std::net::UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
    let nobody = format!("sip:{}", nobody.local_addr().expect("bound"));
    for (scscf, status, told) in [(core, 0, "answered 200"), (nobody, 1, "FAILED")] {
        let folder = Folder::new();
        let root = format!("xdms.root=\"http://{xcap}/xcap-root\"");
        let mut all = arguments(&folder, &scscf, &[&root]);
        all.insert(0, "check".to_owned());
        all.push("--probe".to_owned());
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let probed = run(&folder, &all).await;
        assert_eq!(probed.status, Some(status), "{probed:?}");
        let line = |name: &str| probed.out.lines().find(|line| line.starts_with(name));
        assert!(line("S-CSCF").is_some_and(|line| line.contains(told)), "{probed:?}");
        assert!(line("XDMS").is_some_and(|line| line.contains("ok: 0 groups")), "{probed:?}");
        assert!(line("store ").is_some_and(|line| line.contains("ok")), "{probed:?}");
    }
    net.server.ends().await;
}
