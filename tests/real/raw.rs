//! A phone made by hand that dies at a given point, as no phone of the lab does.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use pagecast::lab::core::Core;
use pagecast::sip::message::{Limits, Message, Method, Name, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::support::{LIMIT, Server, until, user};

/// Where a recipient dies, after its 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dies {
    /// Its port is closed when the server connects.
    BeforeMsrp,
    /// It said it would connect, and does not.
    BeforeItConnects,
    /// The connection is reset after so many octets.
    After(usize),
    /// It has read `$` and resets the connection instead of answering.
    AfterTheLastOctet,
}

/// A recipient that dies.
pub struct Victim {
    /// Resolves when the server has said BYE.
    pub bye: JoinHandle<String>,
}

const TAG: &str = "victim";

impl Victim {
    pub async fn start(core: &Core, name: &str, dies: Dies) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let own = socket.local_addr().expect("bound");
        register(&socket, core.address(), name).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let mut msrp = listener.local_addr().expect("bound");
        let bye = tokio::spawn(async move {
            let mut listener = Some(listener);
            if dies == Dies::BeforeMsrp {
                listener = None;
            }
            loop {
                let (request, from) = receive(&socket).await;
                if request.method() == Some(Method::Bye) {
                    send(&socket, from, answer(&request, 200, None)).await;
                    return request.text(Name::Reason).unwrap_or_default().to_owned();
                }
                if request.method() != Some(Method::Invite) {
                    continue;
                }
                let setup = if dies == Dies::BeforeItConnects {
                    msrp.set_port(9);
                    "active"
                } else {
                    "passive"
                };
                let sdp = description(msrp, setup, "recvonly");
                send(&socket, from, answer(&request, 200, Some((&sdp, own, name_of(&request)))))
                    .await;
                if let (Dies::After(_) | Dies::AfterTheLastOctet, Some(listener)) =
                    (dies, listener.take())
                {
                    tokio::spawn(read_and_die(listener, dies));
                }
            }
        });
        Self { bye }
    }
}

async fn read_and_die(listener: TcpListener, dies: Dies) {
    let (mut stream, _) = listener.accept().await.expect("the server connects");
    let mut got = Vec::new();
    loop {
        let dead = match dies {
            Dies::After(octets) => got.len() >= octets,
            _ => got.ends_with(b"$\r\n"),
        };
        if dead {
            return reset(stream);
        }
        if stream.read_buf(&mut got).await.expect("it is there") == 0 {
            return;
        }
    }
}

/// Ends a connection by RST.
#[expect(deprecated, reason = "what blocks is the linger time, which is none")]
fn reset(stream: TcpStream) {
    stream.set_linger(Some(Duration::ZERO)).expect("a socket");
}

async fn register(socket: &UdpSocket, core: SocketAddr, name: &str) {
    let own = socket.local_addr().expect("bound");
    let aor = user(name);
    let text = format!(
        "REGISTER sip:ims.test SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKr{name};rport\r\nMax-Forwards: 70\r\n\
         From: <{aor}>;tag=r\r\nTo: <{aor}>\r\nCall-ID: r{name}@{own}\r\nCSeq: 1 REGISTER\r\nContact: <sip:{name}@{own}>\r\n\
         Expires: 3600\r\nContent-Length: 0\r\n\r\n"
    );
    send(socket, core, text.into()).await;
    let (message, _) = receive(socket).await;
    assert_eq!(message.status(), Some(200), "{message:?}");
}

async fn receive(socket: &UdpSocket) -> (Message, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (octets, from) =
        timeout(LIMIT, socket.recv_from(&mut buffer)).await.expect("in time").expect("read");
    buffer.truncate(octets);
    let message = Message::parse(Bytes::from(buffer), &Limits::default()).expect("a SIP message");
    (message, from)
}

async fn send(socket: &UdpSocket, to: SocketAddr, bytes: Bytes) {
    socket.send_to(&bytes, to).await.expect("sent");
}

fn name_of(request: &Message) -> String {
    request.to().uri.trim_start_matches("sip:").split('@').next().unwrap_or_default().to_owned()
}

fn answer(request: &Message, status: u16, session: Option<(&str, SocketAddr, String)>) -> Bytes {
    let mut out = Writer::response(request, status, "OK", Some(TAG));
    out.echo(request, Name::RecordRoute);
    match session {
        Some((sdp, own, name)) => {
            out.header("Contact", format!("<sip:{name}@{own}>"));
            out.finish(Some(("application/sdp", sdp.as_bytes())))
        }
        None => out.finish(None),
    }
}

fn description(msrp: SocketAddr, setup: &str, direction: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=message {} TCP/MSRP *\r\n\
         a=path:msrp://{msrp}/handmade;tcp\r\na=setup:{setup}\r\na=accept-types:message/cpim\r\n\
         a=accept-wrapped-types:*\r\na={direction}\r\n",
        msrp.port()
    )
}

/// How far an originator comes, after its ACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gets {
    /// It never connects.
    Nowhere,
    /// The connection is reset in the middle of the page.
    Halfway,
    /// All octets are out, the end line is not.
    ToTheLastOctet,
    /// The page is whole and acknowledged; then the connection is reset and nothing more is heard.
    ToTheEnd,
}

/// An originator that dies: pages `octets` to the recipients, and falls silent after `gets`. What the server's BYE says.
pub async fn page_and_die(
    core: &Core,
    server: &Server,
    to: &[&str],
    octets: usize,
    gets: Gets,
) -> JoinHandle<String> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let own = socket.local_addr().expect("bound");
    let name = format!("dies{:08x}", getrandom::u32().expect("random bytes"));
    register(&socket, core.address(), &name).await;
    let aor = user(&name);
    let entries: String = to
        .iter()
        .map(|name| format!("<entry uri=\"{}\" cp:copyControl=\"to\"/>", user(name)))
        .collect();
    let sdp = description("127.0.0.1:9".parse().expect("an address"), "active", "sendonly");
    let body = format!(
        "--b\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--b\r\nContent-Type: application/resource-lists+xml\r\n\
         Content-Disposition: recipient-list\r\n\r\n<?xml version=\"1.0\"?><resource-lists \
         xmlns=\"urn:ietf:params:xml:ns:resource-lists\" xmlns:cp=\"urn:ietf:params:xml:ns:copycontrol\"><list>{entries}\
         </list></resource-lists>\r\n--b--\r\n"
    );
    let head = |method: &str, uri: &str, route: &str, tag: &str| {
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{method}{name};rport\r\nMax-Forwards: 70\r\n\
             {route}From: <{aor}>;tag=a\r\nTo: <sip:pages@ims.test>{tag}\r\nCall-ID: p{name}@{own}\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:{name}@{own}>;+g.oma.sip-im.large-message\r\n"
        )
    };
    let route = format!("Route: <sip:{};lr>\r\n", core.address());
    let invite = format!(
        "{}Accept-Contact: *;+g.oma.sip-im.large-message\r\nP-Preferred-Identity: <{aor}>\r\nSupported: timer\r\n\
         Require: recipient-list-invite\r\nContent-Type: multipart/mixed;boundary=b\r\nContent-Length: {}\r\n\r\n{body}",
        head("INVITE", "sip:pages@ims.test", &route, ""),
        body.len()
    );
    send(&socket, core.address(), invite.into()).await;
    let answer = loop {
        let (message, _) = receive(&socket).await;
        match message.status() {
            Some(200) => break message,
            Some(100..200) => {}
            _ => panic!("{message:?}"),
        }
    };
    let target = answer.contact().expect("a Contact").uri.to_owned();
    let tag = String::from_utf8_lossy(answer.to_tag().expect("a To-tag")).into_owned();
    let routes: String = answer
        .values(Name::RecordRoute)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .map(|route| format!("Route: {}\r\n", String::from_utf8_lossy(route)))
        .collect();
    let ack = head("ACK", &target, &routes, &format!(";tag={tag}"));
    send(&socket, core.address(), format!("{ack}Content-Length: 0\r\n\r\n").into()).await;

    let described = String::from_utf8_lossy(answer.body()).into_owned();
    let path =
        described.lines().find_map(|line| line.strip_prefix("a=path:")).expect("a path").to_owned();
    if gets != Gets::Nowhere {
        let stream = send_page(&path, &aor, octets, gets).await;
        if gets != Gets::ToTheEnd {
            until("everybody is being sent to", async || {
                let pages = server.json("/api/pages?limit=1").await;
                let id = pages["pages"][0]["id"].as_str()?;
                let page = server.json(&format!("/api/pages/{id}")).await;
                let all = page["recipients"].as_array()?;
                all.iter().all(|recipient| recipient["state"] == "sending").then_some(())
            })
            .await;
        }
        reset(stream);
    }
    tokio::spawn(async move {
        loop {
            let (message, _) = receive(&socket).await;
            if message.method() == Some(Method::Bye) {
                // Dead: it answers nothing.
                return message.text(Name::Reason).unwrap_or_default().to_owned();
            }
        }
    })
}

async fn send_page(path: &str, from: &str, octets: usize, gets: Gets) -> TcpStream {
    let at =
        path.strip_prefix("msrp://").and_then(|rest| rest.split('/').next()).expect("an address");
    let mut stream = TcpStream::connect(at).await.expect("it listens");
    let mut content = format!(
        "From: <{from}>\r\nTo: <sip:pages@ims.test>\r\n\r\nContent-Type: text/plain\r\n\r\n"
    )
    .into_bytes();
    content.extend((0..octets).map(|at| b'a' + (at % 26) as u8));
    let head = format!(
        "MSRP t1a2b3 SEND\r\nTo-Path: {path}\r\nFrom-Path: msrp://127.0.0.1:9/handmade;tcp\r\nMessage-ID: page1\r\n\
         Byte-Range: 1-*/{}\r\nContent-Type: message/cpim\r\n\r\n",
        content.len()
    );
    let sent = if gets == Gets::Halfway { content.len() / 2 } else { content.len() };
    stream.write_all(head.as_bytes()).await.expect("written");
    stream.write_all(&content[..sent]).await.expect("written");
    if gets == Gets::ToTheEnd {
        stream.write_all(b"\r\n-------t1a2b3$\r\n").await.expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(b"t1a2b3$\r\n") {
            let read =
                timeout(LIMIT, stream.read_buf(&mut answer)).await.expect("in time").expect("read");
            assert!(read > 0, "closed before it answered");
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("MSRP t1a2b3 200"), "{answer}");
    }
    stream
}
