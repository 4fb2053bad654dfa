//! The HSS: real octets over a pipe, in the hands of a scene.
//!
//! Start at [`Hss::knows`]. It answers the base protocol, pulls, subscriptions and nothing else, and tells of changes when
//! a scene says so. Knows nobody at first.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use pagecast::sh::codec::{Avp, Framer, Message};
use pagecast::sh::dictionary::{self as d, APPLICATION_SH, VENDOR_3GPP, command};
use pagecast::sh::link::{Later, Opened, Transport};
use pagecast::sh::settings::PeerAddress;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

const NAME: &str = "hss1.ims.test";
const REALM: &str = "ims.test";

/// A request as the HSS got it.
#[derive(Debug, Clone)]
pub struct Question {
    /// Since the scene began.
    pub at: Duration,
    pub command: u32,
    pub identity: String,
    pub references: Vec<u32>,
    pub slot: Option<String>,
    /// Seconds a subscription is asked for; 0: it is ended.
    pub lasts: Option<i64>,
    /// It names this HSS.
    pub named: bool,
}

/// A message of the base protocol as the HSS got it, or a connection that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Since the scene began.
    pub at: Duration,
    /// 0: the connection itself.
    pub command: u32,
    /// It announces Sh outside of Vendor-Specific-Application-Id, too.
    pub plain: bool,
}

pub struct Hss {
    inside: Mutex<Inside>,
    begin: Instant,
}

#[derive(Default)]
struct Inside {
    data: HashMap<(String, u32), String>,
    questions: Vec<Question>,
    base: Vec<Base>,
    away: bool,
    silent: bool,
    /// Says nothing at all, not even who it is.
    mute: bool,
    /// To the node, while it is connected.
    out: Option<mpsc::UnboundedSender<Bytes>>,
    /// Results of what was told.
    told: Vec<u32>,
    pushes: u32,
}

impl Hss {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inside: Mutex::default(), begin: Instant::now() })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("no panic")
    }

    /// Holds that for the user, as a part of the document.
    pub fn knows(&self, user: &str, reference: u32, part: &str) -> &Self {
        self.lock().data.insert((user.to_owned(), reference), part.to_owned());
        self
    }

    /// Both sets of names.
    pub fn names(&self, user: &str, names: &[&str]) -> &Self {
        let names: String =
            names.iter().map(|n| format!("<IMSPublicIdentity>{n}</IMSPublicIdentity>")).collect();
        let part = format!(
            "<Extension><ImplicitIdentities>{names}</ImplicitIdentities>\
             <AliasIdentities>{names}</AliasIdentities></Extension>"
        );
        self.knows(user, 10, &part)
    }

    /// How registered a user is.
    pub fn state(&self, user: &str, state: u32) -> &Self {
        self.knows(user, 11, &Self::state_part(state))
    }

    pub fn state_part(state: u32) -> String {
        format!("<Sh-IMS-Data><IMSUserState>{state}</IMSUserState></Sh-IMS-Data>")
    }

    /// Takes requests and answers none of them.
    pub fn falls_silent(&self, silent: bool) {
        self.lock().silent = silent;
    }

    /// Takes everything and says nothing at all.
    pub fn falls_mute(&self) {
        self.lock().mute = true;
    }

    /// What came of the base protocol since the last time.
    pub fn base(&self) -> Vec<Base> {
        std::mem::take(&mut self.lock().base)
    }

    fn notes(&self, command: u32, plain: bool) {
        let at = self.begin.elapsed();
        self.lock().base.push(Base { at, command, plain });
    }

    /// Breaks the connection and takes no other.
    pub fn goes(&self) {
        let mut inside = self.lock();
        (inside.away, inside.out) = (true, None);
    }

    pub fn comes_back(&self) {
        self.lock().away = false;
    }

    /// What was asked since the last time.
    pub fn questions(&self) -> Vec<Question> {
        std::mem::take(&mut self.lock().questions)
    }

    /// Tells of a change.
    pub fn tells(&self, user: &str, part: &str) {
        let mut inside = self.lock();
        inside.pushes += 1;
        let name = Avp::text(&d::PUBLIC_IDENTITY, user);
        let document = format!("<Sh-Data>{part}</Sh-Data>");
        let mut push = Message::request(
            command::PUSH,
            APPLICATION_SH,
            vec![
                Avp::text(&d::SESSION_ID, &format!("{NAME};1;{}", inside.pushes)),
                application(),
                Avp::u32(&d::AUTH_SESSION_STATE, 1),
                Avp::text(&d::ORIGIN_HOST, NAME),
                Avp::text(&d::ORIGIN_REALM, REALM),
                Avp::text(&d::DESTINATION_HOST, "as1.ims.test"),
                Avp::text(&d::DESTINATION_REALM, REALM),
                Avp::grouped(&d::USER_IDENTITY, [&name]),
                Avp::octets(&d::USER_DATA, document.into_bytes()),
            ],
        );
        (push.header.hop_by_hop, push.header.end_to_end) = (inside.pushes, inside.pushes);
        inside.out.as_ref().expect("connected").send(push.encode()).expect("connected");
    }

    /// Results of what was told since the last time.
    pub fn told(&self) -> Vec<u32> {
        std::mem::take(&mut self.lock().told)
    }

    /// What it says to one message; `None`: nothing.
    fn hears(&self, message: &Message) -> Option<Message> {
        if message.header.application == 0 {
            self.notes(message.header.code, message.find(&d::AUTH_APPLICATION_ID).is_some());
        }
        let mut inside = self.lock();
        if inside.mute {
            return None;
        }
        if !message.header.is_request() {
            inside.told.extend(message.outcome().ok().map(|outcome| outcome.code()));
            return None;
        }
        let origin = [Avp::text(&d::ORIGIN_HOST, NAME), Avp::text(&d::ORIGIN_REALM, REALM)];
        let mut avps = vec![Avp::u32(&d::RESULT_CODE, 2001)];
        avps.extend(origin.clone());
        match message.header.code {
            command::CAPABILITIES => {
                avps.extend([
                    Avp::address(&d::HOST_IP_ADDRESS, IpAddr::V4(Ipv4Addr::LOCALHOST)),
                    Avp::u32(&d::VENDOR_ID, VENDOR_3GPP),
                    Avp::text(&d::PRODUCT_NAME, "hss"),
                    Avp::u32(&d::SUPPORTED_VENDOR_ID, VENDOR_3GPP),
                    application(),
                ]);
                Some(message.answer(avps))
            }
            command::WATCHDOG | command::DISCONNECT => Some(message.answer(avps)),
            _ => {
                let question = self.question(message);
                inside.questions.push(question.clone());
                if inside.silent {
                    return None;
                }
                let mut avps: Vec<Avp> =
                    message.find(&d::SESSION_ID).cloned().into_iter().collect();
                avps.push(application());
                avps.push(Avp::u32(&d::AUTH_SESSION_STATE, 1));
                avps.extend(origin);
                avps.push(Avp::grouped(
                    &d::SUPPORTED_FEATURES,
                    &[
                        Avp::u32(&d::VENDOR_ID, VENDOR_3GPP),
                        Avp::u32(&d::FEATURE_LIST_ID, 1),
                        Avp::u32(&d::FEATURE_LIST, 1),
                    ],
                ));
                let user = &question.identity;
                if !inside.data.keys().any(|(known, _)| known == user) {
                    avps.push(Avp::grouped(
                        &d::EXPERIMENTAL_RESULT,
                        &[
                            Avp::u32(&d::VENDOR_ID, VENDOR_3GPP),
                            Avp::u32(&d::EXPERIMENTAL_RESULT_CODE, 5001),
                        ],
                    ));
                    return Some(message.answer(avps));
                }
                avps.push(Avp::u32(&d::RESULT_CODE, 2001));
                let parts: String = question
                    .references
                    .iter()
                    .filter_map(|reference| inside.data.get(&(user.clone(), *reference)))
                    .map(String::as_str)
                    .collect();
                if !parts.is_empty() {
                    let document = format!("<Sh-Data>{parts}</Sh-Data>");
                    avps.push(Avp::octets(&d::USER_DATA, document.into_bytes()));
                }
                avps.extend(message.find(&d::EXPIRY_TIME).cloned());
                Some(message.answer(avps))
            }
        }
    }

    fn question(&self, message: &Message) -> Question {
        let group = message.find(&d::USER_IDENTITY).and_then(|avp| avp.as_group().ok());
        let identity = group.as_deref().and_then(|group| group.first()?.as_text().ok());
        let numbers = |def| {
            let all = message.find_all(def).filter_map(|avp| avp.as_u32().ok());
            all.collect::<Vec<_>>()
        };
        let until = message.find(&d::EXPIRY_TIME).and_then(|avp| avp.as_time().ok());
        let ended = numbers(&d::SUBS_REQ_TYPE) == [1];
        let now = unix_seconds();
        Question {
            at: self.begin.elapsed(),
            command: message.header.code,
            identity: identity.expect("an identity").to_owned(),
            references: numbers(&d::DATA_REFERENCE),
            slot: message
                .find(&d::SERVICE_INDICATION)
                .map(|slot| String::from_utf8_lossy(&slot.data).into_owned()),
            lasts: if ended { Some(0) } else { until.map(|until| until - now) },
            named: message.find(&d::DESTINATION_HOST).is_some(),
        }
    }

    async fn serve(
        self: Arc<Self>,
        mut reader: ReadHalf<DuplexStream>,
        mut writer: WriteHalf<DuplexStream>,
        mut outward: mpsc::UnboundedReceiver<Bytes>,
    ) {
        let mut framer = Framer::new(1 << 20);
        let mut buffer = vec![0; 4096];
        loop {
            tokio::select! {
                // Without a sender the connection is broken.
                out = outward.recv() => match out {
                    Some(out) => writer.write_all(&out).await.expect("the node reads"),
                    None => return,
                },
                read = reader.read(&mut buffer) => {
                    let Ok(octets @ 1..) = read else { return };
                    framer.push(&buffer[..octets]);
                    while let Some(frame) = framer.next().expect("the node writes frames") {
                        let message = Message::decode(frame).expect("the node writes messages");
                        if let Some(answer) = self.hears(&message)
                            && writer.write_all(&answer.encode()).await.is_err()
                        {
                            return;
                        }
                    }
                }
            }
        }
    }
}

fn application() -> Avp {
    Avp::grouped(
        &d::VENDOR_SPECIFIC_APPLICATION_ID,
        &[Avp::u32(&d::VENDOR_ID, VENDOR_3GPP), Avp::u32(&d::AUTH_APPLICATION_ID, APPLICATION_SH)],
    )
}

/// Whoever the node connects to.
pub struct Line(pub Arc<Hss>);

impl Transport for Line {
    fn open(&self, _to: PeerAddress) -> Later<io::Result<Opened>> {
        let hss = Arc::clone(&self.0);
        Box::pin(async move {
            hss.notes(0, false);
            if hss.lock().away {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let (out, outward) = mpsc::unbounded_channel();
            hss.lock().out = Some(out);
            let (reader, writer) = tokio::io::split(theirs);
            tokio::spawn(hss.serve(reader, writer, outward));
            let (reader, writer) = tokio::io::split(ours);
            Ok(Opened {
                reader: Box::new(reader),
                writer: Box::new(writer),
                addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
                abort: None,
            })
        })
    }
}

/// The wall clock, by which subscriptions end.
#[expect(clippy::disallowed_methods, reason = "the node tells the HSS times of day")]
fn unix_seconds() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_secs()).expect("not for ever")
}
