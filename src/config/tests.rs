//! What is right and what is wrong in a configuration, and how it is told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layer::Origin;
use super::value::Value;
use super::*;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pagecast-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("writable");
        std::fs::write(&path, text).expect("the temporary folder can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn nothing(_: &str) -> Option<String> {
    None
}

fn load(file: &Path, set: &[&str]) -> Result<Loaded, ConfigError> {
    let set: Vec<String> = set.iter().map(|argument| (*argument).to_owned()).collect();
    Loaded::load_with(Some(file), &set, &nothing)
}

/// The text of the file as the interface shows it, with every key that this version obeys.
const WHOLE: &str = r#"
[node]
name = "as7"
data_dir = "../var"
drain_timeout = "5m"
threads = 3
[sip]
listen = ["udp:0.0.0.0:5090", "tcp:[::1]:5091"]
uri = "sip:as.ims.test"
aliases = ["sip:as7.ims.test:5090"]
trusted_peers = ["10.0.0.0/8", "192.0.2.7"]
advertise = "as.ims.test:5090"
max_message = 65536
[core]
scscf = "sip:scscf.ims.test:6060"
icscf = "sip:icscf.ims.test"
[service]
factories = ["sip:pages@ims.test", "sip:more@ims.test"]
group_domains = ["groups.ims.test"]
groups = ["sip:crew@ims.test"]
subscribers = ["tel:+4912345"]
barred = ["sip:mallory@ims.test"]
[msrp]
listen = ["127.0.0.1:0"]
advertise = "media.ims.test:2855"
[xdms]
mode = "embedded"
root = "http://127.0.0.1:8081/xcap-root/"
listen = ""
documents = "xdms"
trusted_proxies = ["127.0.0.1"]
[sh]
enabled = false
peers = ["127.0.0.20:3868"]
origin_host = "as1.ims.test"
origin_realm = "ims.test"
destination_realm = "ims.test"
[store]
url = "memory:"
[ops]
listen = "0.0.0.0:9464"
token = "${OPS_TOKEN}"
flow_memory = "8MiB"
flow_keep = "1/20"
[log]
level = "debug"
format = "json"
"#;

#[test]
fn a_database_is_shown_without_its_password() {
    let folder = Folder::new("database");
    let text = "[store]\nurl = \"postgres://me:${WORD}@db1,db2/pages?target_session_attrs=read-write\"\n\
                max_waiting = 5\nmax_waiting_size = \"2MiB\"";
    let file = folder.write("pagecast.toml", text);
    let environment = |name: &str| (name == "WORD").then(|| "sesame".to_owned());
    let loaded = Loaded::load_with(Some(&file), &[], &environment).expect("all is right");
    let bounds = loaded.config.store_bounds;
    assert_eq!((bounds.batches, bounds.octets), (5, 2 << 20));
    let shown = "postgres://me:(secret)@db1:5432,db2:5432/pages?target_session_attrs=read-write";
    let explained = loaded.explain(false);
    assert!(explained.contains(&format!("store.url = \"{shown}\"")), "{explained}");
    assert!(!format!("{explained} {:?}", loaded.config).contains("sesame"));
}

#[test]
fn every_key_of_the_file_arrives() {
    let folder = Folder::new("whole");
    let file = folder.write("etc/pagecast.toml", WHOLE);
    let environment = |name: &str| (name == "OPS_TOKEN").then(|| "sesame".to_owned());
    let loaded = Loaded::load_with(Some(&file), &[], &environment).expect("all is right");
    let config = &loaded.config;
    assert_eq!(config.node.name, "as7");
    assert_eq!(config.node.data_dir, folder.0.join("var"), "relative to the file");
    assert_eq!(config.node.drain_timeout, Duration::from_secs(300));
    assert_eq!(config.node.threads, 3);
    assert_eq!(config.sip.listen.len(), 2);
    assert_eq!(config.sip.listen[1].protocol, Protocol::Tcp);
    assert_eq!(config.sip.advertise.to_string(), "as.ims.test:5090");
    assert_eq!(config.sip.max_message, 65536);
    assert_eq!(config.sip.trusted_peers[1].to_string(), "192.0.2.7/32");
    assert_eq!(config.core.icscf, "sip:icscf.ims.test");
    assert_eq!(config.service.factories.len(), 2);
    assert_eq!(config.service.subscribers, ["tel:+4912345"]);
    assert_eq!(config.msrp.advertise.port, 0, "a free port is told as the port that was taken");
    assert_eq!(config.xdms.root, "http://127.0.0.1:8081/xcap-root");
    assert_eq!(config.xdms.listen, None);
    assert_eq!(config.xdms.documents, Some(folder.0.join("etc/xdms")));
    assert_eq!(config.store, Store::Memory);
    assert_eq!(config.ops.token.as_deref(), Some("sesame"));
    assert_eq!(config.ops.flow_memory, 8 << 20);
    assert_eq!(config.ops.flow_keep, Choice::OneIn(20));
    assert_eq!(config.log, log::Settings { level: Level::Debug, format: Format::Json });
    let explained = loaded.explain(false);
    assert!(!explained.contains("sesame"), "secrets are not shown: {explained}");
    let token = explained.lines().find(|line| line.starts_with("ops.token = (secret)  # "));
    assert!(token.is_some_and(|line| line.ends_with(" with ${OPS_TOKEN}")), "{explained}");
    assert!(!format!("{config:?}").contains("sesame"));
}

#[test]
fn what_is_not_set_is_as_the_shipped_file_has_it() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pagecast.toml");
    let shipped =
        Loaded::load_with(Some(&shipped), &[], &nothing).expect("the shipped file is right");
    let folder = Folder::new("empty");
    let empty = load(&folder.write("pagecast.toml", ""), &[]).expect("nothing is right, too");
    let mut expected = shipped.config.clone();
    expected.profile = None;
    expected.node.data_dir = "var".into();
    assert_eq!(empty.config, expected);
    assert_eq!(empty.profile, shipped.profile, "built-in values are those of 3gpp.toml");
}

#[test]
fn a_mistake_is_one_line_with_file_line_key_and_what_would_be_right() {
    let cases: &[(&str, &[&str])] = &[
        ("[node]\nname = 7", &[":2: node.name: 7 is no text; write"]),
        ("\n\n[node]\nnmae = \"x\"", &[":4: node.nmae: no such key; did you mean node.name?"]),
        ("[nod]\nname = \"x\"", &[":2: nod.name: no such key; did you mean node.name?"]),
        ("[node]\nname = \"x\"\nname = \"y\"", &[":3: ", "duplicate"]),
        ("[node\n", &[":1: "]),
        (
            "[node]\ndrain_timeout = 30",
            &[":2: node.drain_timeout: 30 is no duration; write", "\"30s\""],
        ),
        (
            "[node]\ndrain_timeout = \"30 parsecs\"",
            &[":2: node.drain_timeout: \"30 parsecs\" is no duration"],
        ),
        ("[node]\nthreads = -1", &[":2: node.threads: -1 is out of bounds; write"]),
        ("[node]\nthreads = 65", &[":2: node.threads: 65 is out of bounds; write 0 to 64"]),
        (
            "[sip]\nmax_message = \"10 MB\"",
            &[":2: sip.max_message: \"10 MB\" is no size; write", "\"10MiB\""],
        ),
        ("[sip]\nlisten = []", &[":2: sip.listen: is empty"]),
        (
            "[sip]\nlisten = [\n\"udp:127.0.0.1:5090\",\n\"sctp:127.0.0.1:5090\"]",
            &[":2: sip.listen: \"sctp:127.0.0.1:5090\""],
        ),
        (
            "[sip]\nlisten = [\"tls:127.0.0.1:5061\"]",
            &[
                ":2: sip.listen: \"tls:127.0.0.1:5061\" needs a certificate; set sip.tls.certificate and",
            ],
        ),
        (
            "[sip]\nlisten = [\"udp:0.0.0.0:5090\"]",
            &[":2: sip.listen: 0.0.0.0:5090", "sip.advertise"],
        ),
        ("[sip]\nlisten = [\"udp:[::]:5090\"]", &[":2: sip.listen: [::]:5090", "sip.advertise"]),
        ("[msrp]\nlisten = [\"0.0.0.0:2855\"]", &[":2: msrp.listen: ", "msrp.advertise"]),
        (
            "[service]\nfactories = [\"sip:!(!@im.test\"]",
            &[":2: service.factories: \"sip:!(!@im.test\": no regular expression"],
        ),
        (
            "[core]\nuntrusted_hops = [\"10.0.0.0/8\", \"10.0.0\"]",
            &[":2: core.untrusted_hops: \"10.0.0\" is neither address nor name"],
        ),
        (
            "[msrp]\nadvertise = \"192.0.2.1:2855\"\nadvertise_also = \"192.0.2.2:2855\"",
            &[":3: msrp.advertise_also: 192.0.2.2:2855 is an address of the same kind"],
        ),
        (
            "[msrp]\nadvertise = \"nowhere\"",
            &[":2: msrp.advertise: \"nowhere\" is no host and port; write \"host:port\""],
        ),
        ("[sip]\nuri = \"127.0.0.1\"", &[":2: sip.uri: \"127.0.0.1\" is no SIP URI; write"]),
        (
            "[sip]\ntrusted_peers = [\"core.ims.test\"]",
            &[":2: sip.trusted_peers: \"core.ims.test\" is a name", "set sip.tls.client_ca too"],
        ),
        (
            "[sip]\ntrusted_peers = [\"10.0.0\"]",
            &[":2: sip.trusted_peers: \"10.0.0\" is neither a CIDR block nor a name; write"],
        ),
        (
            "[sip.tls]\ncertificate = \"a.pem\"",
            &[":2: sip.tls.certificate: has no key; set sip.tls.key too"],
        ),
        (
            "[sip.tls]\nkey = \"a.pem\"",
            &[":2: sip.tls.key: has no certificate; set sip.tls.certificate too"],
        ),
        (
            "[sip.tls]\ncertificate = \"/nowhere/a.pem\"\nkey = \"/nowhere/a.key\"",
            &[":2: sip.tls.certificate: /nowhere/a.pem cannot be read", "name a file in PEM"],
        ),
        (
            "[sip.tls]\nverify_client = true\ncertificate = \"a.pem\"\nkey = \"a.key\"",
            &[":2: sip.tls.verify_client: ", "set sip.tls.client_ca too, or write false"],
        ),
        (
            "[msrp.tls]\ncertificate = \"a.pem\"",
            &[":2: msrp.tls.certificate: means nothing where nobody listens", "msrp.tls.listen"],
        ),
        (
            "[msrp.tls]\nlisten = [\"127.0.0.1:2856\"]\ncertificate = \"a.pem\"",
            &[":3: msrp.tls.certificate: has no key; set msrp.tls.key too"],
        ),
        (
            "[msrp.tls]\nlisten = [\"127.0.0.1:2856\"]\nkey = \"a.key\"",
            &[":3: msrp.tls.key: has no certificate; set msrp.tls.certificate too"],
        ),
        (
            "[msrp.tls]\nlisten = [\"127.0.0.1:2856\"]\nca = \"/nowhere/ca.pem\"",
            &[":3: msrp.tls.ca: /nowhere/ca.pem cannot be read", "name a file in PEM"],
        ),
        (
            "[msrp.tls]\nlisten = [\"0.0.0.0:2856\"]",
            &[":2: msrp.tls.listen: 0.0.0.0:2856 is every address", "set msrp.tls.advertise"],
        ),
        (
            "[msrp.tls]\nlisten = [\"127.0.0.1:2856\"]\nhandshake_timeout = \"0s\"",
            &[":3: msrp.tls.handshake_timeout: "],
        ),
        ("[sip.tls]\nca = \"a.pem\"", &[":2: sip.tls.ca: ", "without a certificate of our own"]),
        (
            "[core]\nscscf = \"sips:scscf.ims.test\"",
            &[":2: core.scscf: \"sips:scscf.ims.test\" wants TLS", "sip.tls.ca"],
        ),
        (
            "[core]\noutbound_proxy = \"sip:p.ims.test;transport=TLS\"",
            &[":2: core.outbound_proxy: ", "wants TLS"],
        ),
        (
            "[xdms.server_tls]\ncertificate = \"a.pem\"",
            &[":2: xdms.server_tls.certificate: has no key; set xdms.server_tls.key too"],
        ),
        (
            "[xdms.server_tls]\nkey = \"a.pem\"",
            &[":2: xdms.server_tls.key: has no certificate; set xdms.server_tls.certificate too"],
        ),
        (
            "[xdms.server_tls]\ncertificate = \"/nowhere/a.pem\"\nkey = \"/nowhere/a.key\"",
            &[
                ":2: xdms.server_tls.certificate: /nowhere/a.pem cannot be read",
                "name a file in PEM",
            ],
        ),
        ("[auth]\nrealm = \"ims\\\"test\"", &[":2: auth.realm: ", "is no realm; write visible"]),
        (
            "[auth]\nrealm = \"ims.test\"\nusers = \"nowhere.toml\"",
            &[":3: auth.users: ", "nowhere.toml cannot be read", "; write [users.NAME]"],
        ),
        (
            "[core]\noutbound_proxy = \"nowhere\"",
            &[":2: core.outbound_proxy: \"nowhere\" is no SIP URI"],
        ),
        (
            "[xdms]\nmode = \"far\"",
            &[":2: xdms.mode: \"far\" is none of the choices; write one of: \"embedded\", \"ut\""],
        ),
        (
            "[xdms]\nmode = \"ut\"\nroot = \"https://x/r\"",
            &[":3: xdms.root: \"https://x/r\" wants TLS", "set xdms.tls.ca too"],
        ),
        (
            "[xdms]\nmode = \"ut\"\nroot = \"ftp://x/r\"",
            &[":3: xdms.root: \"ftp://x/r\" is no XCAP root; write \"https://"],
        ),
        (
            "[xdms]\nmode = \"ut\"\ndocuments = \"xdms\"",
            &[":3: xdms.documents: means nothing with an XDMS elsewhere"],
        ),
        ("[xdms]\nuser = \"as1\"", &[":2: xdms.user: has no password"]),
        ("[xdms]\npassword = \"sesame\"", &[":2: xdms.password: is nobody's"]),
        (
            "[xdms]\nasserted_identity = \"pagecast\"",
            &[":2: xdms.asserted_identity: \"pagecast\" is no SIP URI"],
        ),
        (
            "[xdms.tls]\nca = \"nowhere.pem\"",
            &[":2: xdms.tls.ca: ", "nowhere.pem cannot be read", "name a file in PEM"],
        ),
        (
            "[xdms.tls]\ncertificate = \"a.pem\"",
            &[":2: xdms.tls.certificate: has no key; set xdms.tls.key too"],
        ),
        (
            "[xdms]\nroot = \"https://x/\"",
            &[":2: xdms.root: \"https://x/\" is no XCAP root; write"],
        ),
        ("[sh]\npeers = [\"a b:1\"]", &[":2: sh.peers: \"a b:1\" is no peer; write", "host:port"]),
        ("[sh]\npeers = [\"x@\"]", &[":2: sh.peers: \"x@\" is no peer"]),
        ("[sh]\npeers = [\"h:0\"]", &[":2: sh.peers: \"h:0\" is no peer"]),
        ("[sh]\npeers = []", &[":2: sh.peers: names nobody; name a peer, or set sh.listen"]),
        ("[sh]\norigin_host = \"\"", &[":2: sh.origin_host: \"\" is no host name; write"]),
        (
            "[sh.tls]\ncertificate = \"a.pem\"",
            &[":2: sh.tls.certificate: has no key; set sh.tls.key too"],
        ),
        (
            "[sh.tls]\ncertificate = \"a.pem\"\nkey = \"a.key\"",
            &[":2: sh.tls.certificate: nobody is named", "set sh.tls.ca too"],
        ),
        (
            "[sh.tls]\nca = \"/nowhere/ca.pem\"",
            &[":2: sh.tls.ca: /nowhere/ca.pem", "name a file in PEM"],
        ),
        (
            "[store]\nurl = \"mysql://me:sesame@db/p\"",
            &[
                ":2: store.url: a store \"mysql\" is not supported by this version; write \"embedded:\"",
            ],
        ),
        (
            "[store]\nurl = \"postgres://me:sesame@db/p?sslmode=verify-full\"",
            &[":2: store.url: its sslmode needs sslrootcert; write \"embedded:\""],
        ),
        (
            "[store]\nmax_waiting = 0",
            &[":2: store.max_waiting: 0 is out of bounds; write 1 to 10000000"],
        ),
        ("[ops]\nlisten = \"0.0.0.0:9464\"", &[":2: ops.listen: ", "ops.token"]),
        ("[ops]\nlisten = \"192.0.2.1:9464\"", &[":2: ops.listen: ", "ops.token"]),
        (
            "[ops]\ntoken = \"${NOT_SET}\"",
            &[":2: ops.token: the environment variable \"NOT_SET\" is not set"],
        ),
        ("[ops]\nflow_keep = \"1/0\"", &[":2: ops.flow_keep: ", "\"1/N\""]),
        (
            "[log]\nlevel = \"loud\"",
            &[":2: log.level: \"loud\" is none of the choices; write one of: \"error\", \"warn\""],
        ),
        (
            "profile = \"missing.toml\"",
            &[":1: profile: ", "missing.toml cannot be read; name a profile"],
        ),
        (
            "[profile]\nim = { leg_timeout = \"1s\" }",
            &[":2: profile.im.leg_timeout: profile keys do not stand in this file"],
        ),
    ];
    let folder = Folder::new("wrong");
    for (text, expected) in cases {
        let file = folder.write("pagecast.toml", text);
        let error = load(&file, &[]).expect_err(text).to_string();
        assert_eq!(error.lines().count(), 1, "{text}: {error}");
        assert!(error.starts_with(&folder.0.display().to_string()), "{text}: {error}");
        for part in *expected {
            assert!(error.contains(part), "{text}: {error}, expected {part}");
        }
        assert!(!error.contains("sesame"), "{error}");
    }
}

#[test]
fn set_wins_over_the_file() {
    let folder = Folder::new("set");
    let file =
        folder.write("pagecast.toml", "[node]\nname = \"file\"\n[sip]\nmax_message = \"64KiB\"\n");
    let loaded = load(
        &file,
        &[
            "node.name=shell",
            "sip.listen=[\"udp:127.0.0.1:0\"]",
            "ops.listen=127.0.0.1:0",
            "node.drain_timeout=2s",
            "service.group_domains=['a.test', 'b.test']",
            "node.threads=2",
            "profile.im.leg_timeout=3s",
            "profile.im.large.isfocus=false",
            "profile.core=sipip",
        ],
    )
    .expect("all is right");
    assert_eq!(loaded.config.node.name, "shell");
    assert_eq!(loaded.config.node.threads, 2);
    assert_eq!(loaded.config.sip.listen.len(), 1);
    assert_eq!(loaded.config.sip.advertise.port, 0);
    assert_eq!(loaded.config.sip.max_message, 64 << 10);
    assert_eq!(loaded.config.ops.listen, Some(([127, 0, 0, 1], 0).into()));
    assert_eq!(loaded.config.service.group_domains, ["a.test", "b.test"]);
    assert_eq!(loaded.profile.im.leg_timeout, Duration::from_secs(3));
    assert!(!loaded.profile.im.large_isfocus);
    assert_eq!(loaded.profile.core, crate::isc::settings::CoreProfile::SipIp);
    let explained = loaded.explain(false);
    let line = |key: &str| {
        explained
            .lines()
            .find(|line| line.starts_with(&format!("{key} = ")))
            .unwrap_or_else(|| panic!("{key} is not explained"))
    };
    assert_eq!(line("node.name"), "node.name = \"shell\"  # --set");
    assert_eq!(
        line("sip.max_message"),
        format!("sip.max_message = \"64KiB\"  # {}:4", file.display())
    );
    assert_eq!(line("log.level"), "log.level = \"info\"  # built-in");
    assert_eq!(line("profile.im.leg_timeout"), "profile.im.leg_timeout = \"3s\"  # --set");

    let cases: &[(&str, &str)] = &[
        ("node.name", "--set: node.name: has no value; write --set section.key=VALUE"),
        ("node.nmae=x", "--set: node.nmae: no such key; did you mean node.name?"),
        ("node.threads=many", "--set: node.threads: \"many\" is no number; write"),
        ("profile.im.leg_timeout=soon", "--set: profile.im.leg_timeout: \"soon\" is no duration"),
        (
            "profile.im.leg_timout=1s",
            "--set: profile.im.leg_timout: no such key; did you mean profile.im.leg_timeout?",
        ),
        (
            "profile.pager.max_size=1300",
            "--set: profile.pager.max_size: is not supported by this version",
        ),
    ];
    for (argument, expected) in cases {
        let error = load(&file, &[argument]).expect_err(argument).to_string();
        assert!(error.starts_with(expected), "{argument}: {error}");
    }
}

/// What stands behind each value, in words: for every key, and for no key that does not exist.
#[test]
fn every_key_is_explained() {
    let folder = Folder::new("explained");
    let file = folder.write("pagecast.toml", "");
    let loaded = load(&file, &["ops.pages=7", "sh.enabled=true"]).expect("all is right");
    let told = |key: &str| {
        about::about(key).is_some_and(|about| {
            about.len() > 10 && about.ends_with('.') && !about.contains(['\n', '#'])
        })
    };
    let keys = loaded.settings.iter().map(|setting| setting.key.as_str());
    let untold: Vec<&str> = keys.filter(|key| !told(key)).collect();
    assert!(untold.is_empty(), "nothing is said in config/about.rs of {untold:?}");
    for (key, _) in about::ABOUT {
        assert!(loaded.settings.iter().any(|setting| setting.key == *key), "{key} is no key");
    }
    let (plain, explained) = (loaded.explain(false), loaded.explain(true));
    for (short, long) in plain.lines().zip(explained.lines()) {
        assert!(long.starts_with(&format!("{short}  # ")), "{short}: {long}");
        let mut parts = long.splitn(3, "  # ");
        assert!(parts.next().is_some_and(|setting| setting.contains(" = ")), "{long}");
    }
    let pages =
        "ops.pages = 7  # --set  # Pages that are shown; the oldest that ended leave first.";
    assert!(explained.lines().any(|line| line == pages), "{explained}");
}

#[test]
fn the_file_is_looked_for_in_its_order() {
    let folder = Folder::new("order");
    let named = folder.write("named.toml", "[node]\nname = \"named\"");
    let by_environment = folder.write("env.toml", "[node]\nname = \"by-environment\"");
    let environment =
        |name: &str| (name == "PAGECAST_CONFIG").then(|| by_environment.display().to_string());
    let loaded = Loaded::load_with(Some(&named), &[], &environment).expect("right");
    assert_eq!(loaded.config.node.name, "named");
    let loaded = Loaded::load_with(None, &[], &environment).expect("right");
    assert_eq!(loaded.config.node.name, "by-environment");
    let gone = |name: &str| (name == "PAGECAST_CONFIG").then(|| "/no/such/file".to_owned());
    let error = Loaded::load_with(None, &[], &gone).expect_err("a named file must be there");
    assert!(error.to_string().starts_with("/no/such/file: cannot be read"), "{error}");
}

#[test]
fn units_are_read_and_shown() {
    use super::layer::Raw;
    let text = |text: &str| Raw::Text(text.to_owned());
    let durations = [
        ("500ms", 500, "\"500ms\""),
        ("30s", 30_000, "\"30s\""),
        ("5m", 300_000, "\"5m\""),
        ("120s", 120_000, "\"120s\""),
        ("72h", 259_200_000, "\"3d\""),
        ("0s", 0, "\"0s\""),
    ];
    for (written, millis, shown) in durations {
        let duration = Duration::read(&text(written), &Origin::BuiltIn).expect(written);
        assert_eq!(duration, Duration::from_millis(millis), "{written}");
        assert_eq!(duration.show(), shown);
    }
    for wrong in ["", "s", "-1s", "1.5s", "10", "99999999999d", "1 year"] {
        assert!(Duration::read(&text(wrong), &Origin::BuiltIn).is_err(), "{wrong}");
    }
    let sizes = [
        (text("10MiB"), 10 << 20, "\"10MiB\""),
        (text("1GiB"), 1 << 30, "\"1GiB\""),
        (text("256KiB"), 256 << 10, "\"256KiB\""),
        (text("17B"), 17, "17"),
        (Raw::Integer(1300), 1300, "1300"),
        (Raw::Integer(0), 0, "0"),
    ];
    for (written, octets, shown) in sizes {
        let size = Size::read(&written, &Origin::BuiltIn).expect("a size");
        assert_eq!((size.0, size.show().as_str()), (octets, shown));
    }
    for wrong in
        [text("10MB"), text("MiB"), Raw::Integer(-1), text("99999999999GiB"), Raw::Switch(true)]
    {
        assert!(Size::read(&wrong, &Origin::BuiltIn).is_err(), "{wrong:?}");
    }
}

/// A folder with a certificate, its key and its own authority, gone with its owner.
struct Certificate(PathBuf);

impl Certificate {
    fn new() -> Self {
        let random = getrandom::u64().expect("random bytes");
        let folder = std::env::temp_dir().join(format!("pagecast-config-{random:016x}"));
        std::fs::create_dir(&folder).expect("a folder");
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(["as1.ims.test".to_owned()]).expect("a name");
        let signed = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.join("as1.pem"), signed.pem()).expect("a file");
        std::fs::write(folder.join("as1.key"), key.serialize_pem()).expect("a file");
        Self(folder)
    }

    /// The configuration `text` in that folder.
    fn load(&self, text: &str) -> Result<Loaded, String> {
        let file = self.0.join("pagecast.toml");
        std::fs::write(&file, text).expect("a file");
        Loaded::load_with(Some(&file), &[], &|_| None).map_err(|wrong| wrong.to_string())
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // What is left of a failed test is no second failure.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn certificates_are_read_with_the_file_that_names_them() {
    let folder = Certificate::new();
    let tls = "[sip.tls]\ncertificate = \"as1.pem\"\nkey = \"as1.key\"\n";
    let listen = "[sip]\nlisten = [\"udp:127.0.0.1:5090\", \"tls:[::1]:5091\"]\n";
    let shown = |loaded: &Loaded, key: &str| {
        let setting = loaded.settings.iter().find(|setting| setting.key == key);
        setting.expect("a setting").value.clone()
    };

    let loaded = folder.load(&format!("{listen}{tls}")).expect("all is right");
    let material = loaded.config.sip.tls.as_ref().expect("TLS");
    assert_eq!((material.names().as_str(), material.can_connect()), ("as1.ims.test", false));
    assert_eq!(shown(&loaded, "sip.tls.verify_client"), "false");
    assert_eq!(shown(&loaded, "sip.tls.ca"), "(unset)");

    let both = format!(
        "{listen}trusted_peers = [\"10.0.0.0/8\", \"scscf.ims.test\", \"sip:Ims.test\"]\n\
         [core]\nscscf = \"sips:scscf.ims.test\"\n{tls}client_ca = \"as1.pem\"\n"
    );
    let loaded = folder.load(&both).expect("all is right");
    assert!(loaded.config.sip.tls.as_ref().is_some_and(|tls| tls.can_connect()));
    assert_eq!(loaded.config.sip.trusted_names, ["scscf.ims.test", "sip:Ims.test"]);
    assert_eq!(shown(&loaded, "sip.tls.verify_client"), "true");
    assert!(shown(&loaded, "sip.tls.ca").ends_with("as1.pem\""));

    // Inside and outside at once: the certificate would win.
    for (hop, fails) in [("other.test", false), ("ims.test", true), ("SCSCF.ims.test.", true)] {
        let hops = format!("[core]\nuntrusted_hops = [\"{hop}\"]\n");
        let loaded = folder.load(&both.replace("[core]\n", &hops));
        let error = loaded.err().unwrap_or_default();
        let told =
            error.contains(":5: core.untrusted_hops: \"scscf.ims.test\" of sip.trusted_peers");
        assert_eq!(told, fails, "{hop}: {error}");
    }

    for (more, wrong) in [
        ("client_ca = \"as1.key\"\n", ":5: sip.tls.client_ca: "),
        ("ca = \"gone.pem\"\n", ":5: sip.tls.ca: "),
    ] {
        let error = folder.load(&format!("\n{tls}{more}")).expect_err("a wrong file");
        assert!(error.contains(wrong) && error.lines().count() == 1, "{error}");
    }
}

/// Proves SH-002, SH-003: names in lower case, ports where they are written and 3868 where not.
#[test]
fn sh_is_read_when_it_is_on() {
    let file = "[sh]\nenabled = true\npeers = [\"HSS1.ims.test\", \"hss2.ims.test@127.0.0.21:3870\", \
                \"[::1]:3869\"]\norigin_host = \"AS1.ims.test\"\nlisten = [\"127.0.0.1:0\"]\n";
    let folder = Folder::new("sh-on");
    let path = folder.write("pagecast.toml", file);
    let loaded = load(&path, &[]).expect("right");
    let sh = loaded.config.sh.clone().expect("on");
    let peers: Vec<_> = sh
        .peers
        .iter()
        .map(|peer| (peer.identity.as_deref(), peer.host.as_str(), peer.port))
        .collect();
    assert_eq!(
        peers,
        [
            (Some("hss1.ims.test"), "hss1.ims.test", 3868),
            (Some("hss2.ims.test"), "127.0.0.21", 3870),
            (None, "::1", 3869),
        ]
    );
    assert_eq!((sh.origin_host.as_str(), sh.origin_realm.as_str()), ("as1.ims.test", "ims.test"));
    assert_eq!(sh.destination_realm, "ims.test");
    let settings = sh::settings(&sh, &loaded.profile);
    assert_eq!((settings.max_message, settings.max_sent), (256 * 1024, 64 * 1024));
    assert_eq!(settings.max_inflight, 200);
    assert_eq!(settings.timers, crate::sh::settings::Timers::default());
}

/// What is asked of MSRP over TLS stands in `check`, and offering it to everybody wants it to be there.
#[test]
fn msrp_over_tls_is_as_it_is_set() {
    let shown = |loaded: &Loaded, key: &str| {
        let setting = loaded.settings.iter().find(|setting| setting.key == key);
        setting.expect("a setting").value.clone()
    };
    let load = |set: &[&str]| {
        let set: Vec<String> = set.iter().map(|one| (*one).to_owned()).collect();
        Loaded::load_with(None, &set, &|_| None)
    };
    let plain = load(&[]).expect("defaults");
    assert!(plain.config.msrp.tls.is_none());
    assert_eq!(shown(&plain, "msrp.tls.listen"), "[]");
    let loaded = load(&["msrp.tls.listen=['127.0.0.1:2856']", "profile.im.tls=always"]);
    let loaded = loaded.expect("good");
    let tls = loaded.config.msrp.tls.as_ref().expect("TLS");
    assert!(tls.material.fingerprint().is_none(), "made at start");
    assert!(!tls.served().terms.names && !tls.served().terms.sha1);
    assert_eq!(shown(&loaded, "msrp.tls.advertise"), "\"127.0.0.1:2856\"");
    assert_eq!(shown(&loaded, "msrp.tls.max_handshakes"), "256");
    let wrong = load(&["profile.im.tls=always"]).expect_err("no TLS").to_string();
    assert!(wrong.contains("profile.im.tls") && wrong.contains("msrp.tls.listen"), "{wrong}");
}
