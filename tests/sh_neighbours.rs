//! Our Diameter against an HSS and an agent that others wrote: run by `integration/sh/run`, which starts them.
//!
//! `SH_PEER` is where to connect, `SH_ME` who we are there, `SH_DOOR` the test door of the HSS.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use pagecast::sh::codec::{Avp, Message, Outcome};
use pagecast::sh::dictionary::{self as d, command};
use pagecast::sh::overload::Class;
use pagecast::sh::peer::sh_application;
use pagecast::sh::router::{Inbound, Router};
use pagecast::sh::routing::Request;
use pagecast::sh::settings::{PeerAddress, Settings};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
const ALICE: &str = "sip:alice@ims.test";
const SLOT: &str = "pagecast-test";

/// Keeps what the HSS tells.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Inbound for Told {
    fn notified(&self, request: &Message) -> Message {
        let data = request.find(&d::USER_DATA).expect("a PNR has data");
        let document = String::from_utf8(data.data.to_vec()).expect("XML in UTF-8");
        self.0.lock().expect("no panic").push(document);
        let mut avps: Vec<Avp> = request.find(&d::SESSION_ID).cloned().into_iter().collect();
        avps.extend([sh_application(), Avp::u32(&d::RESULT_CODE, 2001)]);
        avps.push(Avp::u32(&d::AUTH_SESSION_STATE, 1));
        avps.push(Avp::text(&d::ORIGIN_HOST, &variable("SH_ME")));
        avps.push(Avp::text(&d::ORIGIN_REALM, "ims.test"));
        avps.extend(request.find_all(&d::PROXY_INFO).cloned());
        request.answer(avps)
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by integration/sh/run"))
}

/// Connected and in service.
async fn up(inbound: Arc<Told>) -> Router {
    let peer = variable("SH_PEER");
    let (host, port) = peer.rsplit_once(':').expect("host:port");
    let settings = Settings {
        peers: vec![PeerAddress {
            identity: None,
            host: host.to_owned(),
            port: port.parse().expect("a port"),
        }],
        origin_host: variable("SH_ME"),
        origin_realm: "ims.test".into(),
        destination_realm: "ims.test".into(),
        ..Settings::default()
    };
    let now = UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let router = Router::start(settings, inbound, now).await.expect("nothing to bind");
    let reached = async {
        while router.status().first().is_none_or(|peer| peer.state != "up") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, reached).await.unwrap_or_else(|_| panic!("{:?}", router.status()));
    router
}

fn about(user: &str, avps: impl IntoIterator<Item = Avp>) -> Vec<Avp> {
    let name = Avp::text(&d::PUBLIC_IDENTITY, user);
    let mut all = vec![Avp::grouped(&d::USER_IDENTITY, [&name])];
    all.extend(avps);
    all
}

async fn ask(router: &Router, code: u32, avps: Vec<Avp>) -> Message {
    let request = Request {
        code,
        destination_host: None,
        destination_realm: None,
        identity: None,
        avps,
        class: Class::Page,
        priority: None,
    };
    router.request(request).await.expect("an answer")
}

fn data(message: &Message) -> String {
    let data = message.find(&d::USER_DATA).map(|avp| avp.data.to_vec()).unwrap_or_default();
    String::from_utf8(data).expect("XML in UTF-8")
}

fn refused(code: u32) -> Outcome {
    Outcome::Experimental { vendor: d::VENDOR_3GPP, code }
}

fn reference(n: u32) -> Avp {
    Avp::u32(&d::DATA_REFERENCE, n)
}

fn slot() -> Avp {
    Avp::octets(&d::SERVICE_INDICATION, SLOT)
}

async fn store(router: &Router, sequence: u32, content: &str) -> Outcome {
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Sh-Data><RepositoryData><ServiceIndication>{SLOT}\
         </ServiceIndication><SequenceNumber>{sequence}</SequenceNumber>{content}</RepositoryData></Sh-Data>"
    );
    let avps = about(ALICE, [reference(0), Avp::octets(&d::USER_DATA, document.into_bytes())]);
    ask(router, command::PROFILE_UPDATE, avps).await.outcome().expect("a result")
}

/// Pulls: a user who is known, one who is not, sets of identities.
#[tokio::test]
#[ignore = "needs the neighbours of integration/sh/run"]
async fn pulls_are_answered() {
    let router = up(Arc::default()).await;
    let answer = ask(&router, command::USER_DATA, about(ALICE, [reference(11)])).await;
    assert_eq!(answer.outcome(), Ok(Outcome::Base(2001)), "{answer:?}");
    assert_eq!(answer.unknown_mandatory(), None);
    assert!(data(&answer).contains("<IMSUserState>"), "{}", data(&answer));
    assert_eq!(
        answer.find(&d::ORIGIN_HOST).expect("who answers").as_text(),
        Ok("hss.ims.test"),
        "the HSS answers, whoever it came by"
    );
    let nobody = about("sip:nobody@ims.test", [reference(11)]);
    let answer = ask(&router, command::USER_DATA, nobody).await;
    assert_eq!(answer.outcome(), Ok(refused(5001)));
    let sets = [reference(10), Avp::u32(&d::IDENTITY_SET, 2), Avp::u32(&d::IDENTITY_SET, 3)];
    let answer = ask(&router, command::USER_DATA, about(ALICE, sets)).await;
    let document = data(&answer);
    for name in ["<ImplicitIdentities>", "<AliasIdentities>", "tel:+15550001"] {
        assert!(document.contains(name), "{document}");
    }
    router.shutdown().await;
}

/// DPR is answered, and the connection ends.
#[tokio::test]
#[ignore = "needs the neighbours of integration/sh/run"]
async fn a_parting_is_answered() {
    let router = up(Arc::default()).await;
    timeout(Duration::from_secs(4), router.shutdown()).await.expect("DPA came");
}

/// Creates, changes, is told of a change by another, and deletes.
#[tokio::test]
#[ignore = "needs the neighbours of integration/sh/run"]
async fn a_slot_lives_and_changes_are_told() {
    let told = Arc::new(Told::default());
    let router = up(Arc::clone(&told)).await;
    let until = UNIX_EPOCH.elapsed().expect("after 1970").as_secs() + 600;
    let until = i64::try_from(until).expect("not for ever");
    let subscribe = |type_| {
        let expiry = Avp::time(&d::EXPIRY_TIME, until);
        about(ALICE, [slot(), Avp::u32(&d::SUBS_REQ_TYPE, type_), reference(0), expiry])
    };
    let absent = ask(&router, command::SUBSCRIBE, subscribe(0)).await;
    assert_eq!(absent.outcome(), Ok(refused(5106)));

    assert_eq!(store(&router, 0, "<ServiceData><a/></ServiceData>").await, Outcome::Base(2001));
    assert_eq!(store(&router, 5, "<ServiceData><b/></ServiceData>").await, refused(5105));
    assert_eq!(store(&router, 1, "<ServiceData><b/></ServiceData>").await, Outcome::Base(2001));
    let answer = ask(&router, command::USER_DATA, about(ALICE, [slot(), reference(0)])).await;
    assert!(data(&answer).contains("<SequenceNumber>1</SequenceNumber>"), "{}", data(&answer));

    let answer = ask(&router, command::SUBSCRIBE, subscribe(0)).await;
    assert_eq!(answer.outcome(), Ok(Outcome::Base(2001)));
    assert_eq!(answer.find(&d::EXPIRY_TIME).expect("an end").as_time(), Ok(until));
    change_by_another();
    let heard = async {
        while told.0.lock().expect("no panic").is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, heard).await.expect("a PNR");
    let document = told.0.lock().expect("no panic")[0].clone();
    assert!(document.contains("<SequenceNumber>2</SequenceNumber>"), "{document}");

    let ended = ask(&router, command::SUBSCRIBE, subscribe(1)).await;
    assert_eq!(ended.outcome(), Ok(Outcome::Base(2001)));
    assert_eq!(store(&router, 3, "").await, Outcome::Base(2001));
    router.shutdown().await;
}

/// Another application server changes the slot: the test door of the HSS.
fn change_by_another() {
    let mut door = TcpStream::connect(variable("SH_DOOR")).expect("the door is open");
    let body = "<c/>";
    let line = format!("PUT /repository?public=sip%3Aalice%40ims.test&service={SLOT} HTTP/1.0");
    write!(door, "{line}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("it listens");
    let mut answer = String::new();
    door.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}
