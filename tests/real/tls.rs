//! The server and its core over TLS, over IPv6, and what a reload does to certificates.

use std::path::{Path, PathBuf};

use pagecast::lab::core::{Core, Settings as CoreSettings};
use pagecast::lab::phone::Behaviour;
use pagecast::sip::transport::tls::{Files, Material, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tokio::time::timeout;

use super::support::{Folder, LIMIT, Server, http, page, phone, run, until};

/// Who signs everybody's certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Its own certificate goes to `ca.pem`.
    pub fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let issuer = issuer.expect("a certificate");
        std::fs::write(folder.join("ca.pem"), issuer.pem()).expect("a file");
        Self(issuer)
    }

    /// A certificate for a host, and for both addresses of this machine.
    pub fn issue(&self, folder: &Path, file: &str, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        let addresses =
            ["127.0.0.1", "::1"].map(|ip| SanType::IpAddress(ip.parse().expect("an IP")));
        params.subject_alt_names.extend(addresses);
        // Another name than the issuer's: else it looks signed by itself.
        params.distinguished_name.push(DnType::CommonName, host);
        let signed = params.signed_by(&key, &self.0).expect("a certificate");
        let at = |end: &str| folder.join(format!("{file}.{end}"));
        std::fs::write(at("pem"), signed.pem()).expect("a file");
        std::fs::write(at("key"), key.serialize_pem()).expect("a file");
        (at("pem"), at("key"))
    }
}

/// A core whose certificate is for `host`.
async fn core(folder: &Path, authority: &Authority, host: &str) -> Core {
    let (certificate, key) = authority.issue(folder, host, host);
    let ca = Some(folder.join("ca.pem"));
    let files = Files { certificate, key, client_ca: ca.clone(), ca, verify_client: true };
    let tls = Tls::new(Material::load(&files).expect("good files"), Vec::new());
    let any = "127.0.0.1:0".parse().expect("an address");
    Core::start(CoreSettings { tls: Some((any, tls)), ..CoreSettings::demo() })
        .await
        .expect("a core")
}

/// A server that is spoken to over TLS only, and trusts the name `scscf.ims.test` alone.
async fn server(folder: &Folder, core: &Core) -> (Server, String) {
    let uri = core.secure_uri().expect("TLS");
    let file = |name: &str| format!("{:?}", folder.join(name).display().to_string());
    let set = [
        "sip.listen=[\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\", \"tls:127.0.0.1:0\"]".to_owned(),
        "sip.trusted_peers=[\"scscf.ims.test\"]".to_owned(),
        "profile.msrp.drain_after_end=100ms".to_owned(),
        "profile.msrp.conn_linger=100ms".to_owned(),
        format!("sip.tls.certificate={}", file("as1.pem")),
        format!("sip.tls.key={}", file("as1.key")),
        format!("sip.tls.client_ca={}", file("ca.pem")),
    ];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let server = Server::start(folder, &uri, &set).await;
    let door = server.ready.split(['=', ',', ' ']).find_map(|door| door.strip_prefix("tls:"));
    let door = format!("sip:{};transport=tls", door.expect("a door for TLS"));
    core.serve(&door).expect("an address");
    (server, door)
}

/// A page goes in and out over TLS, from a peer that is trusted for its certificate alone.
///
/// Proves ISC-001, ISC-016.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_over_tls() {
    let folder = Folder::new();
    let authority = Authority::new(folder.path());
    authority.issue(folder.path(), "as1", "as1.ims.test");
    let good = core(folder.path(), &authority, "scscf.ims.test").await;
    let (server, door) = server(&folder, &good).await;
    let alice = phone(&good, "alice", Behaviour::default()).await;
    let bob = phone(&good, "bob", Behaviour::default()).await;
    let request = page(&["bob"], 20_000);
    let outcome = alice.page(&request).await;
    assert!(outcome.succeeded(), "{outcome:?}\n{}", server.program.err());
    let got = timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
    assert_eq!(got.content().expect("CPIM").1, request.body);

    // Every message between core and server went over TLS, or the core would complain; and what the server says of
    // itself leads back there.
    let shown = server.newest().await;
    let id = shown["id"].as_str().expect("an id");
    let flow = server.json(&format!("/api/pages/{id}/flow")).await;
    let address = door.trim_start_matches("sip:");
    let mut contacts = 0;
    for message in flow["messages"].as_array().expect("messages") {
        let headers = message["headers"].as_array().expect("headers");
        let contact = headers.iter().find(|header| header[0] == "Contact");
        if let Some(contact) = contact.and_then(|contact| contact[1].as_str())
            && contact.starts_with("<sip:lm-")
        {
            assert!(contact.contains(&format!("@{address}>")), "{contact}");
            contacts += 1;
        }
    }
    assert!(contacts >= 2, "one to each side: {flow:#}");
    assert!(good.complaints().is_empty(), "{:?}", good.complaints());

    // Another name, signed by the same authority: 403, and nobody is invited.
    let stranger = core(folder.path(), &authority, "other.ims.test").await;
    stranger.serve(&door).expect("an address");
    let mallory = phone(&stranger, "mallory", Behaviour::default()).await;
    let outcome = mallory.page(&page(&["bob"], 100)).await;
    assert_eq!(outcome.status, Some(403), "{outcome:?}");
    drop((alice, bob, mallory));
    server.ends().await;
}

/// SIGHUP and `/admin/reload`: certificates are taken all or nothing, and connections stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_reloaded_all_or_nothing() {
    let folder = Folder::new();
    let authority = Authority::new(folder.path());
    let (certificate, key) = authority.issue(folder.path(), "as1", "as1.ims.test");
    let core = core(folder.path(), &authority, "scscf.ims.test").await;
    let (server, _) = server(&folder, &core).await;
    let alice = phone(&core, "alice", Behaviour::default()).await;
    let bob = phone(&core, "bob", Behaviour::default()).await;
    let pages = async || {
        let outcome = alice.page(&page(&["bob"], 1000)).await;
        assert!(outcome.succeeded(), "{outcome:?}\n{}", server.program.err());
        timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
    };
    pages().await;
    let reload = async || http(server.ops, "POST", "/admin/reload", &["X-Pagecast: 1"]).await;

    // A key that does not fit: nothing changes, and one line says why.
    let good = std::fs::read(&key).expect("a file");
    std::fs::write(&key, KeyPair::generate().expect("a key").serialize_pem()).expect("a file");
    let refused = reload().await;
    let why = String::from_utf8_lossy(&refused.body).into_owned();
    assert_eq!(refused.status, 422, "{why}");
    assert!(why.contains("sip.tls.key") && why.contains("does not belong"), "{why}");
    server.program.signal("HUP");
    until("the log line", async || {
        server.program.err().contains("the old one stays in force").then_some(())
    })
    .await;
    pages().await;

    std::fs::write(&key, good).expect("a file");
    assert_eq!(reload().await.status, 200);
    pages().await;
    // Another certificate, another authority: whoever is connected stays, nobody new gets in.
    let other = Folder::new();
    let newer = Authority::new(other.path());
    newer.issue(folder.path(), "as1", "as1.ims.test");
    std::fs::copy(other.join("ca.pem"), folder.join("ca.pem")).expect("a file");
    assert_eq!(reload().await.status, 200);
    pages().await;
    assert!(certificate.exists());
    drop((alice, bob));
    server.ends().await;
}

/// `serve` and `check` refuse what cannot be used, `check` tells what can, and `--probe` asks over TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_certificates_are_wrong_configuration() {
    let folder = Folder::new();
    let authority = Authority::new(folder.path());
    authority.issue(folder.path(), "as1", "as1.ims.test");
    authority.issue(folder.path(), "other", "other.ims.test");
    let core = core(folder.path(), &authority, "scscf.ims.test").await;
    let configuration = |key: &str| {
        let text = format!(
            "[node]\ndata_dir = \"var\"\n[sip]\nlisten = [\"tls:127.0.0.1:0\"]\n[sip.tls]\ncertificate = \"as1.pem\"\n\
             key = {key:?}\nca = \"ca.pem\"\n[core]\nscscf = \"{}\"\n",
            core.secure_uri().expect("TLS")
        );
        std::fs::write(folder.join("pagecast.toml"), text).expect("a file");
    };
    for (key, what) in [("other.key", "does not belong"), ("gone.key", "cannot be read")] {
        configuration(key);
        for command in ["check", "serve"] {
            let ended = run(&folder, &[command, "--config", "pagecast.toml"]).await;
            assert_eq!(ended.status, Some(2), "{ended:?}");
            assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
            assert!(ended.err.contains("pagecast.toml:7: sip.tls.key: "), "{}", ended.err);
            assert!(ended.err.contains(what), "{}", ended.err);
        }
    }
    configuration("as1.key");
    let told = run(&folder, &["check", "--config", "pagecast.toml", "--probe"]).await;
    assert!(told.out.contains("# sip.tls.certificate is for as1.ims.test, "), "{}", told.out);
    let scscf = told.out.lines().find(|line| line.starts_with("S-CSCF"));
    assert!(scscf.is_some_and(|line| line.contains("ok: OPTIONS answered 200")), "{}", told.out);
}

/// Everything on IPv6, beside the doors of IPv4.
///
/// Proves ISC-016.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_to_a_core_on_ipv6() {
    let folder = Folder::new();
    let listen = "[::1]:0".parse().expect("an address");
    let core = Core::start(CoreSettings { listen, ..CoreSettings::demo() }).await.expect("a core");
    let set = [
        "sip.listen=[\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\", \"udp:[::1]:0\", \"tcp:[::1]:0\"]",
        "sip.trusted_peers=[\"::1\"]",
        "msrp.listen=[\"[::1]:0\"]",
        "profile.msrp.drain_after_end=100ms",
        "profile.msrp.conn_linger=100ms",
    ];
    let server = Server::start(&folder, &core.uri(), &set).await;
    let door = server.ready.split(['=', ',', ' ']).find_map(|door| door.strip_prefix("udp:[::1]"));
    core.serve(&format!("sip:[::1]{}", door.expect("a door"))).expect("an address");
    let alice = phone(&core, "alice", Behaviour::default()).await;
    let bob = phone(&core, "bob", Behaviour::default()).await;
    let request = page(&["bob"], 20_000);
    let outcome = alice.page(&request).await;
    assert!(outcome.succeeded(), "{outcome:?}\n{}", server.program.err());
    let got = timeout(LIMIT, bob.received()).await.expect("in time").expect("it runs");
    assert_eq!(got.content().expect("CPIM").1, request.body);
    assert!(core.complaints().is_empty(), "{:?}", core.complaints());
    drop((alice, bob));
    server.ends().await;
}
