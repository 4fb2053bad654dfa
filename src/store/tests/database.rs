//! The database's own, and the suite on it. One server is started for all of it, as a process of this test in a folder of
//! its own; or `PAGECAST_TEST_POSTGRES` names one by a URL without a database (`postgres://user@host`), whose user may make
//! some. Without either it is left out, unless `PAGECAST_NEED_POSTGRES` is 1.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::suite::SUITE;
use super::*;

/// A server of ours.
struct Server {
    folder: Folder,
    programs: PathBuf,
    /// Whose it is; it does not run as root.
    user: Option<(u32, u32)>,
    port: u16,
    child: Option<Child>,
}

/// Where Debian and others put the server's programs: the newest.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions.filter_map(|version| {
        let path = version.ok()?.path();
        let number: u32 = path.file_name()?.to_str()?.parse().ok()?;
        let bin = path.join("bin");
        (bin.join("initdb").exists() && bin.join("postgres").exists()).then_some((number, bin))
    });
    found.max().map(|(_, bin)| bin)
}

/// User and group of a name.
fn user(name: &str) -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2).map(str::parse);
    Some((ids.next()?.ok()?, ids.next()?.ok()?))
}

impl Server {
    fn new(programs: PathBuf) -> Self {
        let folder = Folder::new();
        let root = std::fs::read_to_string("/proc/self/status")
            .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")));
        let user = root
            .then(|| user("postgres").or_else(|| user("nobody")).expect("a user that is not root"));
        if let Some((user, group)) = user {
            chown(&folder.0, Some(user), Some(group)).expect("given");
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let mut server = Self { folder, programs, user, port, child: None };
        let data = server.folder.0.join("data");
        let made = server
            .program("initdb")
            .args(["-U", "pagecast", "-A", "trust", "-E", "UTF8", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .expect("run");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let names = vec!["127.0.0.1".to_owned()];
        let signed = rcgen::generate_simple_self_signed(names).expect("a certificate");
        for (name, text) in
            [("server.crt", signed.cert.pem()), ("server.key", signed.signing_key.serialize_pem())]
        {
            let path = data.join(name);
            std::fs::write(&path, text).expect("written");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, mode).expect("set");
            if let Some((user, group)) = server.user {
                chown(&path, Some(user), Some(group)).expect("given");
            }
        }
        std::fs::copy(data.join("server.crt"), server.folder.0.join("ca.pem")).expect("copied");
        server.start();
        server
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(&self.folder.0).env_clear().env("LC_ALL", "C").env("TZ", "UTC");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// Starts it and waits until it says that it is ready.
    fn start(&mut self) {
        let mut child = self
            .program("postgres")
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "ssl=on",
                "-c",
                "log_line_prefix=",
                "-p",
            ])
            .arg(self.port.to_string())
            .arg("-k")
            .arg(&self.folder.0)
            .arg("-D")
            .arg(self.folder.0.join("data"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let ready = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("ready to accept connections"));
        assert!(ready, "the server ended");
        // What it says later is read, so that it can go on.
        std::thread::spawn(move || lines.for_each(drop));
        self.child = Some(child);
    }

    /// Stops it at once, as a crash would.
    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let asked = Command::new("kill").arg("-QUIT").arg(child.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            // It may be gone.
            let _ = child.kill();
        }
        child.wait().expect("ended");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn parse(url: &str) -> Address {
    Address::parse(url, std::path::Path::new("/")).expect(url)
}

fn connect(address: &Address) -> Store {
    let (writer, mut reader, _) = postgres::open(address, 0).expect("a store");
    reader.recount = Duration::ZERO;
    Store::with(Box::new(writer), Box::new(reader), Bounds::default()).expect("threads")
}

/// Some SQL.
fn sql(address: &Address, sql: &str) {
    postgres::execute(address, sql).expect(sql);
}

#[test]
fn a_database_is_a_store() {
    let asked = std::env::var("PAGECAST_TEST_POSTGRES").ok();
    let mut server = match (&asked, programs()) {
        (Some(_), _) => None,
        (None, Some(programs)) => Some(Server::new(programs)),
        (None, None) => {
            let need = std::env::var("PAGECAST_NEED_POSTGRES").is_ok_and(|need| need == "1");
            assert!(!need, "no PostgreSQL in /usr/lib/postgresql (Debian package postgresql)");
            eprintln!("skipped: no PostgreSQL in /usr/lib/postgresql (Debian package postgresql)");
            return;
        }
    };
    let base = asked.unwrap_or_else(|| {
        let port = server.as_ref().map_or(0, |server| server.port);
        format!("postgres://pagecast@127.0.0.1:{port}")
    });
    let main = parse(&format!("{base}/postgres"));
    let fresh = |name: &str| {
        sql(&main, &format!("DROP DATABASE IF EXISTS pagecast_{name}"));
        sql(&main, &format!("CREATE DATABASE pagecast_{name}"));
        format!("{base}/pagecast_{name}")
    };
    for (n, (name, test)) in SUITE.iter().enumerate() {
        eprintln!("{name}");
        test(&connect(&parse(&fresh(&format!("suite{n}")))));
    }
    several_nodes_keep_one_quota(&parse(&fresh("quota")));
    a_lost_connection_is_made_again(&parse(&fresh("lost")), &main);
    registrations_are_loaded_and_newer_formats_refused(&parse(&fresh("format")));
    if let Some(server) = &mut server {
        certificates_are_checked_where_asked(server);
        the_server_may_go_away(server, &parse(&fresh("away")));
    }
}

/// Nodes that begin at once make the tables together, and what one counts the others do not overrun.
fn several_nodes_keep_one_quota(address: &Address) {
    let stores: Vec<Store> = std::thread::scope(|scope| {
        let begun: Vec<_> = (0..4).map(|_| scope.spawn(|| connect(address))).collect();
        begun.into_iter().map(|store| store.join().expect("a store")).collect()
    });
    let accept = |node: usize, n: usize| Batch {
        conditions: vec![Condition::Fewer(Table::Wait, "u/".into(), 10)],
        ..acceptance([keep(Table::Wait, &format!("u/{node}/{n}"), "")])
    };
    let told: Vec<_> = (0..20)
        .flat_map(|n| {
            stores.iter().enumerate().map(move |(node, store)| give(store, accept(node, n)))
        })
        .collect();
    let kept: Vec<_> = told.iter().map(heard).collect();
    // Who was in the way of others too often is told so.
    let yes = kept.iter().filter(|kept| **kept == Kept::Yes).count();
    assert!(yes <= 10 && yes > 0, "{kept:?}");
    assert_eq!(count(&stores[0], Table::Wait), yes as u64);
}

fn a_lost_connection_is_made_again(address: &Address, main: &Address) {
    let store = connect(address);
    assert_eq!(write(&store, batch([keep(Table::Page, "a", "1")])), Kept::Yes);
    assert!(get(&store, Table::Page, "a").is_some());
    sql(
        main,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'pagecast_lost'",
    );
    assert_eq!(write(&store, batch([keep(Table::Page, "b", "1")])), Kept::Yes);
    assert!(get(&store, Table::Page, "b").is_some());
}

fn registrations_are_loaded_and_newer_formats_refused(address: &Address) {
    let store = connect(address);
    let warning = store.health().warning.expect("a warning");
    assert!(warning.contains("no synchronous standby"), "{warning}");
    for (key, until) in [("a", 100), ("b", 200)] {
        let change =
            Change { table: Table::Reg, key: key.into(), row: Some(row(key, until, b"x")) };
        assert_eq!(write(&store, batch([change, keep(Table::Page, key, "")])), Kept::Yes);
    }
    drop(store);
    let (store, rows) = Store::connect(address, 100, Bounds::default()).expect("a store");
    assert_eq!(rows, [(Table::Reg, row("b", 200, b"x"))]);
    assert_eq!(count(&store, Table::Page), 2);
    sql(address, "UPDATE pagecast_meta SET value = 3 WHERE name = 'format'");
    let refused = Store::connect(address, 0, Bounds::default()).err().expect("refused");
    assert!(matches!(refused, OpenError::Newer { found: 3, known: 2 }), "{refused}");
}

fn certificates_are_checked_where_asked(server: &Server) {
    let (port, folder) = (server.port, server.folder.0.display());
    let probe = |host: &str, options: &str| {
        Store::probe(&parse(&format!("postgres://pagecast@{host}:{port}/postgres?{options}")))
    };
    let good = probe("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={folder}/ca.pem"));
    assert!(good.is_ok(), "{good:?}");
    assert!(probe("127.0.0.1", "sslmode=require").is_ok());
    let named = probe("localhost", &format!("sslmode=verify-full&sslrootcert={folder}/ca.pem"));
    let error = named.expect_err("the certificate is for another name");
    assert!(error.contains("certificate"), "{error}");
}

fn the_server_may_go_away(server: &mut Server, address: &Address) {
    let store = connect(address);
    assert_eq!(write(&store, acceptance([keep(Table::Page, "a", "1")])), Kept::Yes);
    server.stop();
    assert_eq!(write(&store, acceptance([keep(Table::Page, "b", "1")])), Kept::Down);
    assert_eq!(write(&store, batch([keep(Table::Run, "a", "1")])), Kept::Down);
    assert!(!store.health().up);
    assert_eq!(answer(|then| store.get(Table::Page, "a", then)), Err(Down));
    let (tell, told) = mpsc::channel();
    store.on_commit(move |_| {
        // The first one is enough.
        let _ = tell.send(());
    });
    server.start();
    heard(&told);
    while !store.health().up {
        std::thread::yield_now();
    }
    // The reader tries again a second after it failed.
    let mut found = answer(|then| store.get(Table::Run, "a", then));
    while found.is_err() {
        found = answer(|then| store.get(Table::Run, "a", then));
    }
    assert_eq!(found, Ok(Some(row("a", 100, b"1"))), "the outcome waited");
    assert!(get(&store, Table::Page, "a").is_some() && get(&store, Table::Page, "b").is_none());
}
