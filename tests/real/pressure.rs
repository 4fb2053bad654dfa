//! More than the server can do: an S-CSCF that waits two seconds for a sign of life, and then goes on without us, never
//! has to.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pagecast::sip::message::{Frame, Framer, Limits, Message, Method, Name};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::support::{Folder, LIMIT, Server};

/// How long an S-CSCF was seen to wait (ISC-066).
const PATIENCE: Duration = Duration::from_secs(2);

/// What came first above 100, after which time.
struct First {
    status: u16,
    after: Duration,
    retry_after: Option<u32>,
}

/// The S-CSCF's connection to the server.
struct Core {
    stream: TcpStream,
    own: String,
    framer: Framer,
    buffer: BytesMut,
    sent: HashMap<String, Instant>,
    first: HashMap<String, First>,
}

impl Core {
    /// Sends these calls at once and waits until each has its first answer.
    async fn calls(&mut self, names: impl Iterator<Item = usize>) {
        let (mut all, mut waited) = (String::new(), Vec::new());
        for n in names {
            all += &invite(n, &self.own);
            waited.push(format!("call-{n}@ue.test"));
        }
        let now = Instant::now();
        self.sent.extend(waited.iter().map(|call| (call.clone(), now)));
        let (mut read, mut write) = self.stream.split();
        let writing = async {
            write.write_all(all.as_bytes()).await.expect("the server reads");
            std::future::pending::<()>().await;
        };
        let reading = async {
            while waited.iter().any(|call| !self.first.contains_key(call)) {
                while let Some(frame) = self.framer.feed(&mut self.buffer).expect("SIP") {
                    if let Frame::Message(bytes) = frame {
                        note(&mut self.first, &self.sent, bytes);
                    }
                }
                if waited.iter().all(|call| self.first.contains_key(call)) {
                    return;
                }
                let octets = read.read_buf(&mut self.buffer).await.expect("readable");
                assert!(octets > 0, "the server has closed");
            }
        };
        let both = async {
            tokio::select! {
                () = writing => {}
                () = reading => {}
            }
        };
        timeout(LIMIT, both).await.expect("every call has an answer");
    }
}

fn note(first: &mut HashMap<String, First>, sent: &HashMap<String, Instant>, bytes: Bytes) {
    let message = Message::parse(bytes, &Limits::default()).expect("the server writes SIP");
    let Some(status) = message.status().filter(|status| *status > 100) else { return };
    if message.cseq().method != Method::Invite {
        return;
    }
    let call = String::from_utf8_lossy(message.call_id()).into_owned();
    let after = sent.get(&call).expect("a call of ours").elapsed();
    let retry_after = message.text(Name::RetryAfter).and_then(|text| text.trim().parse().ok());
    first.entry(call).or_insert(First { status, after, retry_after });
}

fn invite(n: usize, own: &str) -> String {
    let body = format!(
        "--b\nContent-Type: application/sdp\n\nv=0\no=a 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\n\
         m=message 9 TCP/MSRP *\na=path:msrp://127.0.0.1:7394/a{n};tcp\na=setup:active\n\
         a=accept-types:message/cpim text/plain\na=accept-wrapped-types:*\na=sendonly\n--b\n\
         Content-Type: application/resource-lists+xml\nContent-Disposition: recipient-list\n\n\
         <?xml version=\"1.0\"?><resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list>\
         <entry uri=\"sip:bob{n}@ims.test\"/></list></resource-lists>\n--b--\n"
    )
    .replace('\n', "\r\n");
    let head = format!(
        "INVITE sip:pages@ims.test SIP/2.0\nVia: SIP/2.0/TCP {own};branch=z9hG4bK-{n}\nMax-Forwards: 67\n\
         Route: <sip:127.0.0.1:5090;lr>, <sip:odi{n}@{own};transport=tcp;lr;orig>\n\
         P-Asserted-Identity: <sip:alice{n}@ims.test>\nFrom: <sip:alice{n}@ims.test>;tag=a{n}\n\
         To: <sip:pages@ims.test>\nCall-ID: call-{n}@ue.test\nCSeq: 1 INVITE\n\
         Contact: <sip:alice{n}@{own};transport=tcp>;+g.oma.sip-im.large-message\n\
         Accept-Contact: *;+g.oma.sip-im.large-message\nRequire: recipient-list-invite\nSupported: timer\n\
         Content-Type: multipart/mixed;boundary=b\nContent-Length: {}\n\n",
        body.len()
    );
    head.replace('\n', "\r\n") + &body
}

/// Proves ISC-066.
#[tokio::test(flavor = "multi_thread")]
async fn an_s_cscf_with_two_seconds_of_patience_never_bypasses_us() {
    let folder = Folder::new();
    // Whatever the server sends on its own accord goes here, and nobody answers.
    let inward = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let own = inward.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = inward.accept().await {
            tokio::spawn(async move {
                let mut octets = [0; 65536];
                while stream.read(&mut octets).await.is_ok_and(|octets| octets > 0) {}
            });
        }
    });
    let scscf = format!("sip:{own};transport=tcp");
    let server = Server::start(&folder, &scscf, &["node.threads=1", "node.max_lag=20ms"]).await;
    let mut core = Core {
        stream: TcpStream::connect(server.tcp).await.expect("a connection"),
        own,
        framer: Framer::new(&Limits::default()),
        buffer: BytesMut::new(),
        sent: HashMap::new(),
        first: HashMap::new(),
    };
    const BURST: usize = 1000;
    core.calls(0..BURST).await;
    let (mut taken, mut shed) = (0, 0);
    for (call, first) in &core.first {
        assert!(first.after < PATIENCE, "{call}: {} after {:?}", first.status, first.after);
        match (first.status, first.retry_after) {
            (180..=183, _) => taken += 1,
            (503, Some(1..=30)) => shed += 1,
            other => panic!("{call}: {other:?}"),
        }
    }
    assert_eq!(taken + shed, BURST);
    assert!(taken > 0 && shed > 0, "{taken} taken, {shed} sent away");
    // It is over as soon as the burst is.
    core.calls(BURST..=BURST).await;
    let last = &core.first[&format!("call-{BURST}@ue.test")];
    assert!((180..=183).contains(&last.status), "{}", last.status);
}
