//! The client against a scripted HSS, in virtual time.

mod asking;
mod following;
mod pushed;
mod writing;

use bytes::Bytes;

use super::*;
use crate::sh::codec::{Avp, Message};
use crate::sh::dictionary::{self as d, APPLICATION_SH, VENDOR_3GPP, command};
use crate::sh::routing::{Failure, Request, Why};

const UNIX: u64 = 1_772_615_700_000;

/// What the HSS does with one request: how long it takes, and what comes.
type Reply = (Duration, Result<Message, Failure>);
type Script = Box<dyn FnMut(&Asked) -> Reply + Send>;

/// A request as the HSS got it.
#[derive(Clone)]
struct Asked {
    message: Message,
    to: Option<String>,
}

impl Asked {
    fn code(&self) -> u32 {
        self.message.header.code
    }

    fn numbers(&self, def: &'static d::Def) -> Vec<u32> {
        self.message.find_all(def).map(|avp| avp.as_u32().expect("a number")).collect()
    }

    fn references(&self) -> Vec<u32> {
        self.numbers(&d::DATA_REFERENCE)
    }

    fn identity(&self) -> String {
        let group = self.message.find(&d::USER_IDENTITY).expect("it is there");
        let group = group.as_group().expect("a group");
        assert_eq!(group.len(), 1, "SH-039: exactly one identity");
        group[0].as_text().expect("text").to_owned()
    }

    fn document(&self) -> Option<String> {
        let data = self.message.find(&d::USER_DATA)?;
        Some(String::from_utf8(data.data.to_vec()).expect("UTF-8"))
    }

    fn features(&self) -> Option<bool> {
        self.message.find(&d::SUPPORTED_FEATURES).map(Avp::is_mandatory)
    }
}

struct Scripted {
    script: Mutex<Script>,
    asked: Mutex<Vec<(Duration, Asked)>>,
    begin: tokio::time::Instant,
}

impl Hss for Scripted {
    fn ask(&self, request: Request) -> Asking {
        let asked = Asked {
            message: Message::request(request.code, APPLICATION_SH, request.avps),
            to: request.destination_host,
        };
        let (after, reply) = self.script.lock().expect("no panic")(&asked);
        self.asked.lock().expect("no panic").push((self.begin.elapsed(), asked));
        Box::pin(async move {
            tokio::time::sleep(after).await;
            reply
        })
    }
}

#[derive(Clone)]
struct TestHouse {
    begin: tokio::time::Instant,
    kept: Arc<Mutex<HashMap<String, Kept>>>,
    answered: Arc<Mutex<Vec<(&'static str, &'static str)>>>,
}

impl House for TestHouse {
    fn moment(&self) -> Moment {
        let passed = u64::try_from(self.begin.elapsed().as_millis()).expect("a short test");
        Moment { now: tokio::time::Instant::now().into_std(), unix_ms: UNIX + passed }
    }

    fn keep(&self, key: String, kept: Option<Kept>) {
        let mut all = self.kept.lock().expect("no panic");
        match kept {
            Some(kept) => all.insert(key, kept),
            None => all.remove(&key),
        };
    }

    fn answered(&self, command: &'static str, result: &'static str) {
        self.answered.lock().expect("no panic").push((command, result));
    }
}

/// A client and its HSS.
struct World {
    client: Arc<Client>,
    hss: Arc<Scripted>,
    house: TestHouse,
}

fn settings() -> Settings {
    Settings {
        origin_host: "as1.ims.test".to_owned(),
        origin_realm: "ims.test".to_owned(),
        cache_ttl: secs(300),
        subscription_time: secs(86_400),
        max_subscriptions: 100,
        binding_ttl: secs(3600),
        service_indication: "oma-im-settings".into(),
    }
}

impl World {
    fn new(script: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        Self::with(settings(), script)
    }

    fn with(settings: Settings, script: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let begin = tokio::time::Instant::now();
        let hss = Arc::new(Scripted {
            script: Mutex::new(Box::new(script)),
            asked: Mutex::default(),
            begin,
        });
        let house = TestHouse { begin, kept: Arc::default(), answered: Arc::default() };
        let client = Client::new(settings, Arc::clone(&hss) as _, Box::new(house.clone()), 7);
        tokio::spawn(Arc::clone(&client).run());
        Self { client, hss, house }
    }

    fn says(&self, script: impl FnMut(&Asked) -> Reply + Send + 'static) {
        *self.hss.script.lock().expect("no panic") = Box::new(script);
    }

    /// Everything asked since the last time.
    fn asked(&self) -> Vec<Asked> {
        self.asked_at().into_iter().map(|(_, asked)| asked).collect()
    }

    /// The same, with the time since the beginning.
    fn asked_at(&self) -> Vec<(Duration, Asked)> {
        std::mem::take(&mut *self.hss.asked.lock().expect("no panic"))
    }

    /// Lets that much time pass.
    async fn later(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn user(name: &str) -> Subject {
    Subject::user(&format!("sip:{name}@ims.test")).expect("a URI")
}

fn answer(asked: &Asked, more: Vec<Avp>) -> Reply {
    let mut avps =
        vec![Avp::text(&d::ORIGIN_HOST, "hss1.ims.test"), Avp::text(&d::ORIGIN_REALM, "ims.test")];
    avps.extend(more);
    (millis(5), Ok(asked.message.answer(avps)))
}

fn base(asked: &Asked, code: u32) -> Reply {
    answer(asked, vec![Avp::u32(&d::RESULT_CODE, code)])
}

fn refusal(code: u32) -> Avp {
    Avp::grouped(
        &d::EXPERIMENTAL_RESULT,
        &[Avp::u32(&d::VENDOR_ID, VENDOR_3GPP), Avp::u32(&d::EXPERIMENTAL_RESULT_CODE, code)],
    )
}

fn refused(asked: &Asked, code: u32) -> Reply {
    answer(asked, vec![refusal(code)])
}

/// 2001 with a document, from an HSS that has Notif-Eff.
fn good(asked: &Asked, inside: &str, more: Vec<Avp>) -> Reply {
    let mut avps = vec![Avp::u32(&d::RESULT_CODE, 2001), exchange::features(1)];
    if !inside.is_empty() {
        let document = format!("<Sh-Data>{inside}</Sh-Data>");
        avps.push(Avp::octets(&d::USER_DATA, document.into_bytes()));
    }
    avps.extend(more);
    answer(asked, avps)
}

fn silent() -> Reply {
    (secs(8), Err(Failure::Unavailable(Why::TimedOut)))
}

fn down() -> Reply {
    (Duration::ZERO, Err(Failure::Unavailable(Why::NoPeer)))
}

fn state(number: u32) -> String {
    format!("<Sh-IMS-Data><IMSUserState>{number}</IMSUserState></Sh-IMS-Data>")
}

fn slot(sequence: u32, inside: &str) -> String {
    format!(
        "<RepositoryData><ServiceIndication>oma-im-settings</ServiceIndication>\
         <SequenceNumber>{sequence}</SequenceNumber>{inside}</RepositoryData>"
    )
}

fn settings_slot(sequence: u32, value: &str) -> String {
    slot(sequence, &format!("<ServiceData><s>{value}</s></ServiceData>"))
}
