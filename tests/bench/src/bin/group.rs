//! How long a group of many members takes: the document parsed, the members found and the sender authorised, the document
//! looked up in the cache.
//!
//! Prints medians; exits 1 where parsing and authorising take 50 ms or more, or the lookup 1 ms or more.

use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use pagecast::engine::party::{Party, Target};
use pagecast::xdms::groups::{BOUNDS, Group, new_document};
use pagecast::xdms::path::DocumentPath;
use pagecast::xdms::resolver::Source;
use pagecast::xdms::ut::cache::{Limits, Times};
use pagecast::xdms::ut::link::Network;
use pagecast::xdms::ut::url::Url;
use pagecast::xdms::ut::{Remote, Settings, http};
use pagecast::xdms::{self, Query, Resolver};

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 10_000)]
    members: usize,
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

const GROUP: &str = "sip:all@groups.ims.test";

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let members: Vec<String> =
        (0..arguments.members).map(|n| format!("sip:member{n:05}@ims.test")).collect();
    let names: Vec<&str> = members.iter().map(String::as_str).collect();
    let document = new_document(GROUP, &names);
    let bounds = pagecast::content::xml::Bounds { bytes: 4 << 20, elements: 50_000, ..BOUNDS };
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("{} members, {} octets, {build} build", arguments.members, document.len());

    let parse = median(arguments.rounds, async || {
        let group = Group::parse_within(document.as_bytes(), &bounds).expect("a group");
        assert_eq!(group.services[0].list.len(), arguments.members);
    })
    .await;

    let root = format!("http://{}/r", serve(document));
    let settings = Settings {
        http: http::Settings {
            max_body: bounds.bytes,
            ..http::Settings::new(Url::parse(&root).expect("a root"))
        },
        times: Times {
            ttl: Duration::from_secs(3600),
            notified: Duration::from_secs(3600),
            stale: Duration::ZERO,
            rest: Duration::ZERO,
        },
        limits: Limits { documents: 100, octets: 64 << 20 },
        bounds,
        legacy_global: false,
    };
    let remote = Arc::new(Remote::new(settings, Arc::new(Network::default())));
    let rules = xdms::Settings {
        root,
        home_domains: vec!["ims.test".into()],
        group_domains: vec!["groups.ims.test".into()],
        max_members: arguments.members,
        budget_per_minute: usize::MAX / 2,
        ..xdms::Settings::default()
    };
    let source = Arc::clone(&remote) as Arc<dyn Source>;
    let path = DocumentPath::by_group(GROUP);
    remote.fetch(&path).await.expect("served").expect("a group");

    // A resolver that knows nothing yet finds the members out; the second question to it does not.
    let first = median(arguments.rounds, async || {
        let resolver = Resolver::new(rules.clone(), Arc::clone(&source));
        asked(&resolver, arguments.members).await;
    })
    .await;
    let resolver = Resolver::new(rules.clone(), Arc::clone(&source));
    asked(&resolver, arguments.members).await;
    let again = median(arguments.rounds, async || asked(&resolver, arguments.members).await).await;
    let lookup = median(arguments.rounds, async || {
        assert!(remote.fetch(&path).await.expect("cached").is_some());
    })
    .await;

    println!("parse                        {parse:>12.3?}");
    println!("find out and authorise       {first:>12.3?}");
    println!("  the same group once more   {again:>12.3?}");
    println!("cached lookup                {lookup:>12.3?}");
    let good = parse + first < Duration::from_millis(50) && lookup < Duration::from_millis(1);
    println!(
        "parse and authorise {:.3?} (below 50 ms), lookup {lookup:.3?} (below 1 ms): {}",
        parse + first,
        if good { "good" } else { "too slow" }
    );
    if good { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

async fn asked(resolver: &Resolver, members: usize) {
    let party = |uri: &str| Party { uri: uri.into(), key: uri.into(), display: None };
    let query = Query {
        target: Target::Group(party(GROUP)),
        identities: vec![party("sip:member00007@ims.test")],
        names: Vec::new(),
        anonymous: false,
        now: Instant::now(),
        time: SystemTime::now(),
    };
    let audience = resolver.resolve(query).await.expect("allowed");
    assert_eq!(audience.recipients.len(), members - 1);
}

async fn median<F: Future<Output = ()>>(rounds: usize, mut work: impl FnMut() -> F) -> Duration {
    let mut times = Vec::new();
    for _ in 0..rounds.max(1) {
        let began = Instant::now();
        work().await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// Gives the document to whoever asks, on a thread of its own.
fn serve(document: String) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let at = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).expect("a request");
            let head = format!(
                "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nConnection: close\r\nContent-Length: {}\r\n\
                 Content-Type: application/vnd.oma.poc.groups+xml\r\n\r\n",
                document.len()
            );
            stream.write_all(head.as_bytes()).expect("written");
            stream.write_all(document.as_bytes()).expect("written");
        }
    });
    at
}
