//! `check --probe`: asks each neighbour one harmless question.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::config::node::NodeSettings;
use crate::config::{self, XdmsMode};
use crate::handshake::server_name;
use crate::sh;
use crate::sh::router::{Inbound, Router};
use crate::sip::Protocol;
use crate::sip::message::{Limits, Message, Method, Writer};
use crate::sip::resolve::Dns;
use crate::sip::transport::tls::Tls;
use crate::sip::uri::Uri;
use crate::store::Store;
use crate::xdms::client::Client;
use crate::xdms::server::OPERATOR;
use crate::xdms::ut::Remote;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether there is an answer.
const LOOK: Duration = Duration::from_millis(20);
/// A request over UDP is sent so often.
const TRIES: u32 = 3;

/// Prints a line for each neighbour; whether all of them answered.
pub async fn probe(settings: &NodeSettings) -> bool {
    let scscf = &settings.config.core.scscf;
    let peers = settings.sh.iter().flat_map(|sh| &sh.peers).map(ToString::to_string);
    let hss = match peers.collect::<Vec<_>>() {
        none if none.is_empty() => "-".to_owned(),
        some => some.join(","),
    };
    let folder = &settings.config.node.data_dir;
    let (place, stored) = match &settings.config.store {
        config::Store::Postgres(address) => (address.to_string(), Store::probe(address)),
        _ => (folder.display().to_string(), write(folder)),
    };
    let answers = [
        ("S-CSCF", scscf.as_str(), options(scscf, settings.transport.security.as_ref()).await),
        ("XDMS", settings.resolver.root.as_str(), xdms(settings).await),
        ("HSS", &*hss, exchange(settings.sh.clone()).await),
        ("store", &*place, stored),
    ];
    for (who, at, answer) in &answers {
        match answer {
            Ok(what) => println!("{who:<7} {at}  ok: {what}"),
            Err(why) => println!("{who:<7} {at}  FAILED: {why}"),
        }
    }
    answers.iter().all(|(_, _, answer)| answer.is_ok())
}

/// OPTIONS; any response shows that somebody speaks SIP there. The first place that RFC 3263 knows is asked.
async fn options(uri: &str, security: Option<&Tls>) -> Result<String, String> {
    let parsed = Uri::parse(uri).map_err(|error| error.to_string())?;
    let mut supported = vec![Protocol::Udp, Protocol::Tcp];
    supported.extend(security.map(|_| Protocol::Tls));
    let dns = Dns::system().map_err(|error| error.to_string())?;
    let mut first = || 0;
    let asked = dns.hops(&parsed, &supported, &mut first);
    let hops = timeout(PATIENCE, asked).await.map_err(|_| "name servers do not answer")?;
    let hops = hops.map_err(|error| error.to_string())?;
    let hop = hops.first().ok_or("its name has no address")?;
    let answer = match hop.protocol {
        Protocol::Udp => over_udp(uri, hop.address).await,
        Protocol::Tcp => over_stream(uri, hop.address, "TCP", |stream| async { Ok(stream) }).await,
        Protocol::Tls => {
            let connector = security.and_then(Tls::connector).ok_or("sip.tls.ca is not set")?;
            let name = server_name(parsed.host()).ok_or("its host is no name to verify")?;
            let wrap = |stream| async move { connector.connect(name, stream).await };
            over_stream(uri, hop.address, "TLS", wrap).await
        }
    }?;
    let message = Message::parse(answer, &Limits::default())
        .map_err(|malformed| format!("no SIP message: {}", malformed.what))?;
    let status = message.status().ok_or("a request instead of an answer")?;
    Ok(format!("OPTIONS answered {status} {}", message.reason()))
}

fn request(uri: &str, own: SocketAddr, protocol: &str) -> Result<Bytes, String> {
    let random = getrandom::u64().map_err(|error| error.to_string())?;
    let mut out = Writer::request(&Method::Options, uri);
    out.header("Via", format!("SIP/2.0/{protocol} {own};branch=z9hG4bK{random:016x};rport"));
    out.header("Max-Forwards", "70");
    out.header("From", format!("<sip:probe@{own}>;tag={random:x}"));
    out.header("To", format!("<{uri}>"));
    out.header("Call-ID", format!("probe-{random:016x}"));
    out.header("CSeq", "1 OPTIONS");
    Ok(out.finish(None))
}

async fn over_udp(uri: &str, to: SocketAddr) -> Result<Bytes, String> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.map_err(|error| error.to_string())?;
    socket.connect(to).await.map_err(|error| error.to_string())?;
    let own = socket.local_addr().map_err(|error| error.to_string())?;
    let request = request(uri, own, "UDP")?;
    let mut buffer = vec![0; 65_536];
    for _ in 0..TRIES {
        socket.send(&request).await.map_err(|error| error.to_string())?;
        if let Ok(received) = timeout(PATIENCE, socket.recv(&mut buffer)).await {
            let octets = received.map_err(|error| error.to_string())?;
            return Ok(Bytes::copy_from_slice(&buffer[..octets]));
        }
    }
    Err(format!("no answer to {TRIES} OPTIONS over UDP"))
}

/// `wrap` makes of the connection what the protocol wants.
async fn over_stream<S: AsyncRead + AsyncWrite + Unpin, W: Future<Output = io::Result<S>>>(
    uri: &str,
    to: SocketAddr,
    protocol: &str,
    wrap: impl FnOnce(TcpStream) -> W,
) -> Result<Bytes, String> {
    let exchange = async {
        let stream = TcpStream::connect(to).await?;
        let own = stream.local_addr()?;
        let mut stream = wrap(stream).await?;
        let request = request(uri, own, protocol).map_err(io::Error::other)?;
        stream.write_all(&request).await?;
        let mut buffer = Vec::new();
        // Its head is enough.
        while memchr::memmem::find(&buffer, b"\r\n\r\n").is_none() {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Bytes::from(buffer))
    };
    let answer = timeout(PATIENCE, exchange).await;
    let answer = answer.map_err(|_| format!("no answer over {protocol}"))?;
    answer.map_err(|error: io::Error| error.to_string())
}

/// XD-020: the usages of an XDMS elsewhere, as this server asks for them; of the embedded one its groups.
async fn xdms(settings: &NodeSettings) -> Result<String, String> {
    if settings.config.xdms.mode == XdmsMode::Embedded {
        return groups(&settings.resolver.root).await;
    }
    let network = Arc::new(settings.xdms_network.clone());
    let remote = Remote::new(settings.xdms_remote.clone(), network);
    let usages = remote.capabilities().await?;
    Ok(format!("xcap-caps names {} usages", usages.len()))
}

/// The list of groups, as the operator.
async fn groups(root: &str) -> Result<String, String> {
    let client = Client::new(root).map_err(|error| error.to_string())?;
    let listed = timeout(PATIENCE, client.list(OPERATOR)).await;
    let listed = listed.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    Ok(format!("{} groups", listed.len()))
}

/// A capabilities exchange with every peer; one that has Sh is enough.
async fn exchange(settings: Option<sh::settings::Settings>) -> Result<String, String> {
    let Some(mut settings) = settings else { return Ok("off (sh.enabled)".to_owned()) };
    // Whoever serves has that door.
    settings.listen.clear();
    let inbound = Arc::new(Nobody(settings.origin_host.clone(), settings.origin_realm.clone()));
    let started = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let router = Router::start(settings, inbound, started).await.map_err(|e| e.to_string())?;
    let answered = async {
        // Each of them is up or has failed; the first that is up ends the wait.
        loop {
            let peers = router.status();
            let up = peers.iter().any(|peer| peer.state == "up");
            if up || (!peers.is_empty() && peers.iter().all(|peer| peer.error.is_some())) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let in_time = timeout(PATIENCE, answered).await.is_ok();
    let peers = router.status();
    let told: Vec<String> = peers
        .iter()
        .map(|peer| match (&peer.name, &peer.error) {
            (Some(name), _) if peer.state == "up" => format!("CER answered by {name}"),
            (_, Some(error)) => format!("{}: {error}", peer.address),
            (_, None) => format!("{}: no answer to CER", peer.address),
        })
        .collect();
    let up = peers.iter().any(|peer| peer.state == "up");
    if in_time {
        router.shutdown().await;
    }
    if up { Ok(told.join("; ")) } else { Err(told.join("; ")) }
}

/// Hears nothing: the probe is gone before anybody has something to say.
struct Nobody(String, String);

impl Inbound for Nobody {
    fn notified(&self, request: &sh::codec::Message) -> sh::codec::Message {
        sh::client::not_yet(request, &self.0, &self.1)
    }
}

/// A file written, read back and removed.
fn write(folder: &Path) -> Result<String, String> {
    let path = folder.join(format!("probe-{}", std::process::id()));
    let done = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, b"probe"))
        .and_then(|()| std::fs::read(&path))
        .and_then(|_| std::fs::remove_file(&path));
    done.map(|()| "written and removed".to_owned()).map_err(|error| error.to_string())
}
