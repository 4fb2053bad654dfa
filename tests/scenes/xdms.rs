//! An XDMS elsewhere: it serves documents over HTTP, without a network, and tells of their changes over SIP.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use pagecast::content::xml::Bounds;
use pagecast::sip::message::Message;
use pagecast::xdms::ut::cache::{Limits, Times};
use pagecast::xdms::ut::http;
use pagecast::xdms::ut::link::{Connect, Connecting, Link};
use pagecast::xdms::ut::url::Url;
use pagecast::xdms::ut::{Remote, Settings};

use crate::net::{Heard, Net, SOON, Scscf, millis, seconds};
use crate::text::{self, header};

pub const ROOT: &str = "http://xcap.ims.test/services";
pub const SIP: &str = "sip:xdms@ims.test";
pub const TEAM: &str = "org.openmobilealliance.groups/global/byGroupID/sip:team@groups.ims.test";

/// A group of these members that its members may page.
pub fn team(members: &[&str]) -> String {
    let mut entries = String::new();
    for member in members {
        let _ = write!(entries, "<entry uri=\"sip:{member}@ims.test\"/>");
    }
    format!(
        "<group xmlns=\"urn:oma:xml:poc:list-service\" xmlns:cp=\"urn:ietf:params:xml:ns:common-policy\">\
         <list-service uri=\"sip:team@groups.ims.test\"><list>{entries}</list>\
         <invite-members>true</invite-members><cp:ruleset><cp:rule id=\"m\">\
         <cp:conditions><is-list-member/></cp:conditions><cp:actions>\
         <allow-initiate-conference>true</allow-initiate-conference></cp:actions></cp:rule></cp:ruleset>\
         </list-service></group>"
    )
}

/// The documents, and what was asked for.
#[derive(Default)]
pub struct Shop {
    state: Mutex<Stock>,
}

#[derive(Default)]
struct Stock {
    /// Tag and text, by path below the root.
    documents: BTreeMap<String, (String, String)>,
    /// Path and status of every GET that was answered.
    asked: Vec<(String, u16)>,
}

/// Connections to a [`Shop`].
struct Road(Arc<Shop>);

impl Connect for Road {
    fn connect<'a>(&'a self, _to: &'a Url, _guarded: bool) -> Connecting<'a> {
        let shop = Arc::clone(&self.0);
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let answer = shop.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            drop(tokio::spawn(async move {
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(theirs), service);
                // The node may close it whenever it wants.
                let _ = served.await;
            }));
            io::Result::Ok(Link {
                stream: Box::new(ours),
                local: None,
                remote: None,
                mutual: false,
            })
        })
    }
}

impl Shop {
    fn state(&self) -> MutexGuard<'_, Stock> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn holds(&self, path: &str, etag: &str, text: &str) {
        let document = (etag.to_owned(), text.to_owned());
        self.state().documents.insert(path.to_owned(), document);
    }

    pub fn drops(&self, path: &str) {
        self.state().documents.remove(path);
    }

    /// Statuses of the GETs since the last time.
    pub fn asked(&self) -> Vec<u16> {
        std::mem::take(&mut self.state().asked).into_iter().map(|(_, status)| status).collect()
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path().trim_start_matches("/services/").to_owned();
        let mut state = self.state();
        let given = request.headers().get("if-none-match").and_then(|tag| tag.to_str().ok());
        let answer = match state.documents.get(&path) {
            None => Response::builder().status(404).body(Full::default()),
            Some((etag, text)) => {
                let etag = format!("\"{etag}\"");
                let same = given == Some(etag.as_str());
                let builder = Response::builder().header("ETag", etag);
                if same {
                    builder.status(304).body(Full::default())
                } else {
                    builder
                        .header("Content-Type", "application/vnd.oma.poc.groups+xml")
                        .body(Full::new(Bytes::from(text.clone())))
                }
            }
        };
        let answer = answer.expect("a good response");
        state.asked.push((path, answer.status().as_u16()));
        answer
    }
}

/// The XDMS, with one subscriber: the node.
pub struct Xdms {
    pub shop: Arc<Shop>,
    pub core: Arc<Scscf>,
    cseq: u32,
    tag: String,
    /// The SUBSCRIBE that opened the dialog.
    opened: Option<Message>,
}

impl Xdms {
    /// A node that keeps its groups there.
    pub async fn with(members: &[&str]) -> (Net, Self) {
        let shop = Arc::new(Shop::default());
        shop.holds(TEAM, "g1", &team(members));
        let root = Url::parse(ROOT).expect("a root");
        let settings = Settings {
            http: http::Settings::new(root),
            times: Times {
                ttl: seconds(60),
                notified: seconds(3600),
                stale: seconds(300),
                rest: seconds(5),
            },
            limits: Limits { documents: 100, octets: 10 << 20 },
            bounds: Bounds {
                bytes: 1 << 20,
                depth: 32,
                elements: 20_000,
                attributes: 64,
                text: 65_536,
            },
            legacy_global: false,
        };
        let remote = Arc::new(Remote::new(settings, Arc::new(Road(Arc::clone(&shop)))));
        let net = Net::reading(&[], remote, |settings| {
            ROOT.clone_into(&mut settings.resolver.root);
            settings.isc.documents.serve.clear();
            SIP.clone_into(&mut settings.isc.documents.follow);
        })
        .await;
        let core = Arc::clone(net.scscf());
        (net, Self { shop, core, cseq: 0, tag: String::new(), opened: None })
    }

    /// The next SUBSCRIBE is due.
    pub async fn hears_subscribe(&mut self, within: Duration) -> Heard {
        let wanted =
            |message: &Message| message.is_request() && text::method(message) == "SUBSCRIBE";
        let heard = self.core.hears_of("SUBSCRIBE", within, wanted).await;
        if heard.message.to_tag().is_none() {
            self.cseq = 0;
            self.tag = format!("x{}", self.core.number());
            self.opened = Some(heard.message.clone());
        }
        heard
    }

    pub fn answers(&self, subscribe: &Message, status: u16, lines: &str) {
        self.core.delivers(&text::response(subscribe, status, &self.tag, lines, ""));
    }

    pub fn grants(&self, subscribe: &Message) {
        self.answers(
            subscribe,
            200,
            "Contact: <sip:127.0.0.1:5060;transport=tcp>\nExpires: 3600\n",
        );
    }

    /// Subscribed to within two seconds, granted, and told what is there.
    pub async fn is_subscribed(&mut self) {
        let heard = self.hears_subscribe(seconds(2)).await;
        self.grants(&heard.message);
        let etag = self.shop.state().documents.get(TEAM).map(|(etag, _)| etag.clone());
        let there = etag.map_or(String::new(), |etag| told(TEAM, "", &etag));
        self.notifies("active;expires=3600", &there).await;
    }

    /// NOTIFY with these changes, which is answered 200 at once.
    pub async fn notifies(&mut self, state: &str, changes: &str) {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<xcap-diff \
             xmlns=\"urn:ietf:params:xml:ns:xcap-diff\" xcap-root=\"{ROOT}/\">{changes}</xcap-diff>\n"
        );
        self.notifies_with(state, &body).await;
    }

    /// The same with any body.
    pub async fn notifies_with(&mut self, state: &str, body: &str) {
        self.cseq += 1;
        let opened = self.opened.as_ref().expect("a SUBSCRIBE was heard");
        let (cseq, tag, n) = (self.cseq, &self.tag, self.core.number());
        let contact = text::uri(&header(opened, "Contact"));
        let call_id = header(opened, "Call-ID");
        self.core.delivers(&format!(
            "NOTIFY {contact} SIP/2.0\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK-x{n}\n\
             Max-Forwards: 70\nFrom: {};tag={tag}\nTo: {}\nCall-ID: {call_id}\n\
             CSeq: {cseq} NOTIFY\nContact: <sip:127.0.0.1:5060;transport=tcp>\nEvent: xcap-diff\n\
             Subscription-State: {state}\nContent-Type: application/xcap-diff+xml\n\n{body}",
            header(opened, "To"),
            header(opened, "From"),
        ));
        let answer = |message: &Message| {
            message.status().is_some()
                && text::method(message) == "NOTIFY"
                && header(message, "Call-ID") == call_id
        };
        let heard = self.core.hears_of("answer to NOTIFY", SOON, answer).await;
        assert_eq!(heard.message.status(), Some(200));
        tokio::time::sleep(millis(1)).await;
    }
}

/// A `document` of a notice; empty tags are left out.
pub fn told(document: &str, previous: &str, etag: &str) -> String {
    let tag = |name: &str, tag: &str| match tag {
        "" => String::new(),
        tag => format!(" {name}=\"{tag}\""),
    };
    let (previous, etag) = (tag("previous-etag", previous), tag("new-etag", etag));
    format!("<document sel=\"{document}\"{previous}{etag}/>")
}
