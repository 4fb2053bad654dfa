//! `demo`: the whole service on loopback. One user pages a picture to a group; the call flow and each member's result
//! are shown.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::serve::cores;
use crate::config::Loaded;
use crate::config::node::NodeSettings;
use crate::engine::ids::PageId;
use crate::lab::core::{Core, Settings as CoreSettings};
use crate::lab::phone::{
    Answer, Behaviour, PageRequest, Phone, Provisional, Reads, Received, Recipients, Settings,
    Setup,
};
use crate::lab::picture::{SMALLEST, png};
use crate::node::Node;
use crate::xdms::client::Client;
use crate::xdms::groups::new_document;

/// Options of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pagecast demo --members 8 --size 1048576 --stay")]
pub struct Arguments {
    /// Members of the group besides the sender
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=40))]
    pub members: u16,
    /// Octets of the picture
    #[arg(long, value_name = "BYTES", default_value_t = 204_800)]
    pub size: usize,
    /// Leave the server, its core and the console up
    #[arg(long)]
    pub stay: bool,
}

const GROUP: &str = "sip:friends@groups.ims.test";
const SENDER: &str = "sip:alice@ims.test";
const NAMES: [&str; 8] = ["bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan"];
/// Longest wait for everybody's result.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a member of the group is like, and so what has to become of its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Answers at once and connects itself.
    Quick,
    /// Announces its answer by a reliable 183 and waits to be connected.
    Careful,
    /// Reads slowly.
    Slow,
    /// Says 603.
    Refuses,
    /// Not registered.
    Offline,
}

impl Kind {
    fn of(n: u16) -> Self {
        match n {
            0 => Self::Quick,
            1 => Self::Offline,
            2 => Self::Refuses,
            3 => Self::Slow,
            4 => Self::Careful,
            n if n % 2 == 0 => Self::Careful,
            _ => Self::Quick,
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Quick => "answers at once",
            Self::Careful => "announces its answer (183, 100rel)",
            Self::Slow => "reads slowly",
            Self::Refuses => "refuses (603)",
            Self::Offline => "is offline",
        }
    }

    fn behaviour(self, size: usize) -> Behaviour {
        let behaviour = Behaviour::default();
        match self {
            Self::Quick | Self::Offline => Behaviour { setup: Setup::Active, ..behaviour },
            Self::Careful => Behaviour { provisional: Provisional::Reliable, ..behaviour },
            // Two seconds for the whole page.
            Self::Slow => Behaviour {
                provisional: Provisional::Ringing,
                after: Duration::from_millis(300),
                reads: Reads::Slowly { octets_per_second: (size as u64 / 2).max(1024) },
                ..behaviour
            },
            Self::Refuses => Behaviour { answer: Answer::Refuse { status: 603 }, ..behaviour },
        }
    }

    /// The state and cause the server has to show in the end.
    fn expected(self) -> (&'static str, Option<u16>) {
        match self {
            Self::Quick | Self::Careful | Self::Slow => ("delivered", None),
            Self::Refuses => ("failed", Some(603)),
            // Until its phone is switched on: see [`comes_back`].
            Self::Offline => ("delivered", None),
        }
    }
}

struct Member {
    aor: String,
    kind: Kind,
    phone: Option<Phone>,
}

fn members(count: u16) -> Vec<(String, Kind)> {
    (0..count)
        .map(|n| {
            let name = NAMES
                .get(usize::from(n))
                .map_or_else(|| format!("member{n}"), |name| (*name).to_owned());
            (format!("sip:{name}@ims.test"), Kind::of(n))
        })
        .collect()
}

/// Runs the demo.
pub fn run(arguments: &Arguments) -> ExitCode {
    super::client(async {
        let folder = Folder::new().map_err(|error| format!("no folder for the demo: {error}"))?;
        let started = Instant::now();
        let core = Core::start(CoreSettings::demo()).await.map_err(|error| error.to_string())?;
        let node = start_node(&core, folder.path()).await?;
        println!("{}", node.ready_line());
        let result = show(arguments, &core, &node, started).await;
        if arguments.stay && result.is_ok() {
            println!(
                "\nstaying until interrupted\n  core     {}\n  factory  sip:pages@ims.test\n  group    {GROUP}",
                core.uri()
            );
            if let Some(ops) = node.doors().ops {
                println!("  console  http://{ops}/");
            }
            println!(
                "  try      pagecast phone --core {} --as sip:you@ims.test --out inbox/you",
                core.uri()
            );
            super::interrupted().await;
        }
        node.stop();
        result
    })
}

/// The server on free ports of loopback.
async fn start_node(core: &Core, folder: &Path) -> Result<Node, String> {
    let set = |key: &str, value: &str| format!("{key}={value}");
    let loaded = Loaded::load_with(
        None,
        &[
            set("node.name", "demo"),
            set("node.data_dir", &folder.display().to_string()),
            set("sip.listen", "[\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]"),
            set("msrp.listen", "[\"127.0.0.1:0\"]"),
            set("xdms.listen", "127.0.0.1:0"),
            set("ops.listen", "127.0.0.1:0"),
            set("core.scscf", &core.uri()),
            // The demo ends with its last delivery instead of waiting for what may still come.
            set("profile.msrp.drain_after_end", "100ms"),
        ],
        &|_| None,
    )
    .map_err(|error| error.to_string())?;
    let node = Node::start(NodeSettings::new(&loaded, cores()), None, None)
        .await
        .map_err(|error| error.to_string())?;
    let sip = node.doors().sip.first().map(|(_, at)| format!("sip:{at}"));
    let sip = sip.ok_or("the server has no SIP door")?;
    core.serve(&sip).map_err(|error| error.to_string())?;
    Ok(node)
}

async fn show(
    arguments: &Arguments,
    core: &Core,
    node: &Node,
    started: Instant,
) -> Result<(), String> {
    let size = arguments.size.max(SMALLEST);
    let mut group = Vec::new();
    for (aor, kind) in members(arguments.members) {
        let phone = if kind == Kind::Offline {
            core.provision(&aor);
            None
        } else {
            let behaviour = kind.behaviour(size);
            let settings = Settings { behaviour, ..Settings::new(&core.uri(), &aor) };
            Some(Phone::start(settings).await.map_err(|error| format!("{aor}: {error}"))?)
        };
        println!("{aor:<24} {}", kind.told());
        group.push(Member { aor, kind, phone });
    }
    put_group(node, &group).await?;
    let alice = Phone::start(Settings::new(&core.uri(), SENDER))
        .await
        .map_err(|error| error.to_string())?;

    println!("\n{SENDER} pages a picture of {size} octets to {GROUP}");
    let picture: Bytes = png(size).into();
    let mut request =
        PageRequest::new(Recipients::Group(GROUP.to_owned()), "image/png", picture.clone());
    request.file_name = Some("picture.png".to_owned());
    let outcome = alice.page(&request).await;
    print!("{}", super::page::told(&outcome));
    if !outcome.succeeded() {
        return Err("the page was not taken".to_owned());
    }
    let mut copies = copies(&group).await;
    let page = ended(node).await?;
    for (member, copy) in group.iter_mut().zip(&mut copies) {
        if member.kind == Kind::Offline {
            *copy = comes_back(core, node, page, member).await?;
        }
    }

    println!("\ncall flow of page {page}\n");
    print!("{}", flow_of(node, page).await?);
    println!("\nresult of each member\n");
    let wrong = results(node, page, &group, &copies, &picture)?;
    let mut complaints = core.complaints();
    complaints.extend(alice.complaints());
    for phone in group.iter().filter_map(|member| member.phone.as_ref()) {
        complaints.extend(phone.complaints());
    }
    println!("\n{} members, {:.1?} in all", group.len(), started.elapsed());
    super::complain(&complaints)?;
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} results are not as expected")) }
}

/// Puts the group's document where an operator would.
async fn put_group(node: &Node, group: &[Member]) -> Result<(), String> {
    let mut uris = vec![SENDER];
    uris.extend(group.iter().map(|member| member.aor.as_str()));
    let root = node.control().xcap_root().to_owned();
    let client = Client::new(&root).map_err(|error| error.to_string())?;
    let document = new_document(GROUP, &uris);
    client.put(document.into(), Some(SENDER)).await.map_err(|error| error.to_string())?;
    println!("\ngroup {GROUP} stored in the embedded XDMS at {root}");
    Ok(())
}

/// What each phone that takes calls has got.
async fn copies(group: &[Member]) -> Vec<Option<Received>> {
    let mut copies = Vec::new();
    for member in group {
        let copy = match &member.phone {
            Some(phone) => timeout(PATIENCE, phone.received()).await.ok().flatten(),
            None => None,
        };
        copies.push(copy);
    }
    copies
}

/// A member who was offline is waited for; its phone is switched on, and gets what waited.
async fn comes_back(
    core: &Core,
    node: &Node,
    page: PageId,
    member: &mut Member,
) -> Result<Option<Received>, String> {
    let state = |page| {
        let shown = node.control().watch().board.page(page)?;
        let all = shown["recipients"].as_array()?.clone();
        let shown = all.into_iter().find(|shown| shown["uri"] == member.aor.as_str())?;
        Some(shown["state"].as_str()?.to_owned())
    };
    if state(page).as_deref() != Some("deferred") {
        return Err(format!("{} is not waited for", member.aor));
    }
    println!("\nthe page waits for {}, who switches the phone on", member.aor);
    let behaviour = member.kind.behaviour(0);
    let settings = Settings { behaviour, ..Settings::new(&core.uri(), &member.aor) };
    let phone = Phone::start(settings).await.map_err(|error| format!("{}: {error}", member.aor))?;
    let copy = timeout(PATIENCE, phone.received()).await.ok().flatten();
    let over = timeout(PATIENCE, async {
        while state(page).as_deref() != Some("delivered") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    // What did not happen in time shows in the results.
    let _ = over.await;
    member.phone = Some(phone);
    Ok(copy)
}

/// The one page of the demo, once it is over.
async fn ended(node: &Node) -> Result<PageId, String> {
    let mut ended = node.control().watch().ended.subscribe();
    let page = timeout(PATIENCE, ended.wait_for(Option::is_some)).await;
    let page = page.ok().and_then(Result::ok).and_then(|page| *page);
    page.ok_or_else(|| "the page did not come to its end".to_owned())
}

async fn flow_of(node: &Node, page: PageId) -> Result<String, String> {
    let ops = node.doors().ops.ok_or("the operators' door is closed")?;
    let flow = crate::ops::client::flow(&format!("http://{ops}"), page, None).await;
    flow.map_err(|error| error.to_string())
}

/// Prints a line for each member; tells how many are not as expected.
fn results(
    node: &Node,
    page: PageId,
    group: &[Member],
    copies: &[Option<Received>],
    picture: &Bytes,
) -> Result<usize, String> {
    let shown = node.control().watch().board.page(page).ok_or("the page is not shown")?;
    let mut wrong = 0;
    for (member, copy) in group.iter().zip(copies) {
        let of = |shown: &&serde_json::Value| shown["uri"] == member.aor.as_str();
        let shown = shown["recipients"].as_array().and_then(|all| all.iter().find(of));
        let state = shown.and_then(|shown| shown["state"].as_str()).unwrap_or("unknown");
        let code = shown.and_then(|shown| shown["cause"]["code"].as_u64());
        let same = copy
            .as_ref()
            .and_then(Received::content)
            .is_some_and(|(content_type, body)| content_type == "image/png" && body == *picture);
        let (expected_state, expected_code) = member.kind.expected();
        let right = state == expected_state
            && code == expected_code.map(u64::from)
            && same == (expected_state == "delivered");
        wrong += usize::from(!right);
        let cause = code.map_or_else(String::new, |code| format!(" {code}"));
        let got = match copy {
            Some(copy) if copy.whole => format!(
                "{} octets after {:.1?}, {}",
                copy.octets,
                copy.received.unwrap_or_default(),
                if same { "the same picture" } else { "NOT the same picture" }
            ),
            Some(_) | None => "nothing".to_owned(),
        };
        println!(
            "{} {:<24} {:<14} got {got}",
            if right { "ok  " } else { "BAD " },
            member.aor,
            format!("{state}{cause}")
        );
    }
    Ok(wrong)
}

/// A folder of our own that is removed when the demo ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let random = getrandom::u64().map_err(std::io::Error::other)?;
        let path = std::env::temp_dir().join(format!("pagecast-demo-{random:016x}"));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
