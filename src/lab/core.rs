//! A small S-CSCF: registers phones, sends their pages to the server and the server's requests to the phones.
//!
//! Start at [`Core::start`]. It keeps registrations and, for a while, how it forwarded each INVITE, so that a CANCEL or
//! an ACK that does not fit is seen. Everything else is stateless. It is strict: what a request of the server lacks is
//! a complaint, not only a refusal.
//! Follows RFC 3261 §16 and TS 24.229 §5.4.3 for one originating service. No authentication, no charging, no DNS.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::wire::{Arrived, LARGEST_DATAGRAM, Way, Wire};
use super::{Complaints, locked, token};
use crate::sip::message::{Message, Method, Name, NameAddr, Writer, reason_phrase};
use crate::sip::transport::tls::Tls;
use crate::sip::uri::Uri;

/// INVITEs remembered for their CANCEL and ACK.
const REMEMBERED: usize = 20_000;
/// Registrations held.
const MOST_REGISTRATIONS: usize = 100_000;
/// A request that large leaves by TCP, as it most likely came; room is left for what we add.
const LARGEST_FOR_UDP: usize = LARGEST_DATAGRAM - 4096;
/// Begins every To-tag of ours.
const OWN_TAG: &str = "core-";
/// Begins every branch of ours.
const OWN_BRANCH: &str = "z9hG4bKcore";

/// What a core is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// UDP and TCP; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Users live here: `sip:NAME@domain`.
    pub domain: String,
    /// The server's SIP URI, as a filter criterion would name it: its host is an IP address. May come later by
    /// [`Core::serve`].
    pub server: Option<String>,
    /// Request-URIs with one of these as host, or equal to one of these, go to the server.
    pub services: Vec<String>,
    /// TLS towards the server, at an address of its own. Its certificate names the address.
    pub tls: Option<(SocketAddr, Tls)>,
}

impl Settings {
    /// Loopback, a free port, `ims.test`, and the services of the configuration that ships.
    pub fn demo() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            domain: "ims.test".to_owned(),
            server: None,
            services: vec!["sip:pages@ims.test".to_owned(), "groups.ims.test".to_owned()],
            tls: None,
        }
    }
}

/// A running core; stops when dropped.
#[derive(Debug)]
pub struct Core {
    address: SocketAddr,
    secure: Option<SocketAddr>,
    shared: Arc<Mutex<Shared>>,
    complaints: Complaints,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    server: Option<Way>,
    server_uri: String,
    /// Address of record, canonical, to contact URI.
    registered: BTreeMap<String, String>,
    known: BTreeSet<String>,
}

impl Core {
    /// Binds and serves.
    ///
    /// # Errors
    /// When the address cannot be bound, or the server's URI holds no IP address.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let (wire, inbox) = Wire::open_secure(settings.listen, settings.tls).await?;
        let (address, secure) = (wire.address(), wire.secure_address());
        let shared = Arc::new(Mutex::new(Shared::default()));
        let complaints = Complaints::default();
        let proxy = Proxy {
            own: address.to_string(),
            own_secure: secure.map(|address| address.to_string()),
            secret: token(8),
            services: settings.services,
            domain: settings.domain,
            shared: shared.clone(),
            complaints: complaints.clone(),
            sent: Sent::default(),
            wire,
        };
        let task = tokio::spawn(proxy.run(inbox));
        let core = Self { address, secure, shared, complaints, task };
        if let Some(server) = &settings.server {
            core.serve(server)?;
        }
        Ok(core)
    }

    /// Sends pages to this server from now on.
    ///
    /// # Errors
    /// When the URI holds no IP address.
    pub fn serve(&self, server: &str) -> io::Result<()> {
        let uri = Uri::parse(server).map_err(io::Error::other)?;
        let mut shared = locked(&self.shared);
        shared.server =
            Some(way_to(&uri).ok_or_else(|| {
                io::Error::other("the server's URI needs an IP address as its host")
            })?);
        server.clone_into(&mut shared.server_uri);
        Ok(())
    }

    /// Where it listens, UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its SIP URI.
    pub fn uri(&self) -> String {
        format!("sip:{}", self.address)
    }

    /// Its SIP URI for TLS, where it listens for that.
    pub fn secure_uri(&self) -> Option<String> {
        self.secure.map(|address| format!("sip:{address};transport=tls"))
    }

    /// A user that exists without being registered is offline: 480. Anybody else is unknown: 404.
    pub fn provision(&self, user: &str) {
        locked(&self.shared).known.insert(key(user));
    }

    /// The users that are registered.
    pub fn registered(&self) -> Vec<String> {
        locked(&self.shared).registered.keys().cloned().collect()
    }

    /// What it found wrong.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.all()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How an INVITE went on.
#[derive(Debug, Clone)]
struct Forwarded {
    to: Way,
    uri: String,
    routes: Vec<String>,
    /// A 2xx came back, so its ACK is a request of its own.
    answered: bool,
}

/// The INVITEs of a while, by the branch and sent-by they came with.
#[derive(Debug, Default)]
struct Sent {
    by_branch: BTreeMap<String, Forwarded>,
    order: VecDeque<String>,
}

impl Sent {
    fn remember(&mut self, key: String, forwarded: Forwarded) {
        // A repeated INVITE is the same one.
        if let Entry::Vacant(free) = self.by_branch.entry(key.clone()) {
            free.insert(forwarded);
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_branch.remove(&oldest);
        }
    }
}

/// The proxy itself.
struct Proxy {
    wire: Wire,
    /// Host and port as we write them.
    own: String,
    /// The same for TLS.
    own_secure: Option<String>,
    secret: String,
    domain: String,
    services: Vec<String>,
    shared: Arc<Mutex<Shared>>,
    complaints: Complaints,
    sent: Sent,
}

/// What to do with a request.
enum Verdict {
    Forward(Onward),
    Answer(u16, Vec<(&'static str, String)>),
    Swallow,
}

/// A request on its next hop.
struct Onward {
    to: Way,
    uri: String,
    routes: Vec<String>,
    record_route: bool,
    add: Vec<(&'static str, String)>,
    /// Header fields that end here.
    drop: &'static [&'static str],
}

impl Proxy {
    async fn run(mut self, mut inbox: mpsc::Receiver<Arrived>) {
        while let Some(Arrived { message, way }) = inbox.recv().await {
            match message {
                Ok(message) if message.is_request() => self.on_request(&message, way).await,
                Ok(message) => self.on_response(&message).await,
                Err(malformed) => {
                    self.complaints.add(format!("core: {malformed} from {}", way.peer()));
                }
            }
        }
    }

    async fn on_request(&mut self, request: &Message, way: Way) {
        if way.is_tls() != request.via().transport.eq_ignore_ascii_case("TLS") {
            self.complain(request, "its Via names another protocol than it came by");
        }
        let top = routes(request).into_iter().next();
        let secure = top.and_then(|top| way_to(&top)).map(|way| way.peer().to_string());
        if secure.is_some() && secure == self.own_secure && !way.is_tls() {
            self.complain(request, "it should have come over TLS");
        }
        match self.judge(request) {
            Verdict::Forward(onward) => self.forward(request, way, onward).await,
            Verdict::Answer(status, headers) => {
                let tag = format!("{OWN_TAG}{}", token(4));
                let mut answer =
                    Writer::response(request, status, reason_phrase(status), Some(&tag));
                for (name, value) in headers {
                    answer.header(name, value);
                }
                self.wire.send(way, answer.finish(None)).await;
                if status == 200 && request.cseq().method == Method::Register {
                    self.tell_server(request).await;
                }
            }
            Verdict::Swallow => {}
        }
    }

    fn judge(&self, request: &Message) -> Verdict {
        let method = request.cseq().method;
        if method == Method::Ack
            && request.to_tag().is_some_and(|t| t.starts_with(OWN_TAG.as_bytes()))
        {
            return Verdict::Swallow; // the ACK to a refusal of ours
        }
        if request.text(Name::MaxForwards).is_none_or(|hops| hops.trim() == "0") {
            self.complain(request, "Max-Forwards is 0 or missing");
            return Verdict::Answer(483, Vec::new());
        }
        if method == Method::Register {
            return self.register(request);
        }
        let mut routes = routes(request);
        let ours = routes.first().filter(|route| self.is_own(route)).cloned();
        // Between TLS and UDP we stand there twice.
        while routes.first().is_some_and(|route| self.is_own(route)) {
            routes.remove(0);
        }
        if let Some(verdict) = self.same_transaction(request, &method) {
            return verdict;
        }
        if request.to_tag().is_some() {
            if ours.is_none() {
                self.complain(
                    request,
                    "in a dialog, and our Record-Route is not its topmost Route",
                );
            }
            return self.in_dialog(request, routes);
        }
        match ours {
            None if Uri::parse(request.uri())
                .is_ok_and(|uri| uri.user().is_none() && self.is_own(&uri)) =>
            {
                Verdict::Answer(200, vec![("Allow", "OPTIONS, REGISTER".to_owned())])
            }
            Some(route) if route.param("orig").is_some() => {
                self.asked_by_server(request, &route, routes)
            }
            Some(_) | None => self.asked_by_phone(request, routes),
        }
    }

    /// CANCEL, and the ACK to a refusal, go the way their INVITE went.
    fn same_transaction(&self, request: &Message, method: &Method) -> Option<Verdict> {
        let known = self.sent.by_branch.get(&branch_key(request)).cloned();
        match (method, known) {
            (Method::Ack, Some(known)) if known.answered => {
                self.complain(request, "the ACK to a 2xx has the branch of its INVITE");
                None
            }
            (Method::Cancel | Method::Ack, Some(Forwarded { to, uri, routes, .. })) => {
                let record_route = false;
                let onward =
                    Onward { to, uri, routes, record_route, add: Vec::new(), drop: TO_PHONE_DROP };
                Some(Verdict::Forward(onward))
            }
            (Method::Cancel, None) => {
                self.complain(request, "a CANCEL whose branch is that of no INVITE");
                Some(Verdict::Answer(481, Vec::new()))
            }
            _ => None,
        }
    }

    fn in_dialog(&self, request: &Message, routes: Vec<Uri>) -> Verdict {
        let uri = request.uri().to_owned();
        let next =
            routes.first().map_or_else(|| Uri::parse(&uri).ok(), |route| Some(route.clone()));
        match next.as_ref().and_then(way_to) {
            Some(to) => Verdict::Forward(Onward {
                to,
                uri,
                routes: texts(&routes),
                record_route: false,
                add: Vec::new(),
                drop: &[],
            }),
            None => {
                self.complain(request, "in a dialog, with a next hop that is no IP address");
                Verdict::Answer(404, Vec::new())
            }
        }
    }

    /// The server asks on a user's behalf (TS 24.229 §5.7.3, §5.4.3.2).
    fn asked_by_server(&self, request: &Message, route: &Uri, rest: Vec<Uri>) -> Verdict {
        if let Some(odi) = route.user()
            && !odi.starts_with("odi-")
        {
            self.complain(request, "a Route to us with a user part we never made");
        }
        for (name, why) in [
            (Name::PAssertedIdentity, "no P-Asserted-Identity"),
            (Name::PChargingVector, "no P-Charging-Vector"),
        ] {
            if request.header(name).is_none() {
                self.complain(request, why);
            }
        }
        if !rest.is_empty() {
            self.complain(request, "a Route behind ours that nobody asked for");
        }
        if self.is_service(request.uri()) {
            self.complain(request, "the server sends a request for itself through us");
            return Verdict::Answer(482, Vec::new());
        }
        self.towards_phone(request, rest)
    }

    fn towards_phone(&self, request: &Message, rest: Vec<Uri>) -> Verdict {
        let callee = key(request.uri());
        let (contact, known) = {
            let shared = locked(&self.shared);
            (shared.registered.get(&callee).cloned(), shared.known.contains(&callee))
        };
        let Some(contact) = contact else {
            return Verdict::Answer(if known { 480 } else { 404 }, Vec::new());
        };
        let Some(to) = Uri::parse(&contact).ok().as_ref().and_then(address_of) else {
            return Verdict::Answer(480, Vec::new());
        };
        Verdict::Forward(Onward {
            to: Way::Udp(to),
            uri: contact,
            routes: texts(&rest),
            record_route: true,
            add: vec![("P-Called-Party-ID", format!("<{}>", request.uri()))],
            drop: if is_private(request) { TO_PHONE_DROP_PRIVATE } else { TO_PHONE_DROP },
        })
    }

    /// A phone asks: the filter criterion of its user sends it to the server (TS 24.229 §5.4.3.2).
    fn asked_by_phone(&self, request: &Message, rest: Vec<Uri>) -> Verdict {
        let user = preferred_identity(request);
        let registered = locked(&self.shared).registered.contains_key(&key(&user));
        if !registered {
            return Verdict::Answer(403, vec![("Warning", self.warning("not registered"))]);
        }
        if !self.is_service(request.uri()) {
            return self.towards_phone(request, rest);
        }
        let (server, server_uri) = {
            let shared = locked(&self.shared);
            (shared.server, shared.server_uri.clone())
        };
        let Some(to) = server else {
            return Verdict::Answer(480, vec![("Warning", self.warning("no server"))]);
        };
        // The same for a repeated request: nothing is kept.
        let mark = self.fingerprint(request, "odi");
        let own = &self.own;
        let asserted = match request.from().display {
            Some(name) => format!("\"{}\" <{user}>", name.replace(['"', '\\'], "")),
            None => format!("<{user}>"),
        };
        let domain = &self.domain;
        let reached = match &self.own_secure {
            Some(secure) if to.is_tls() => format!("{secure};transport=tls"),
            _ => own.clone(),
        };
        Verdict::Forward(Onward {
            to,
            uri: request.uri().to_owned(),
            routes: vec![as_route(&server_uri), format!("<sip:odi-{mark}@{reached};lr;orig>")],
            record_route: true,
            add: vec![
                ("P-Asserted-Identity", asserted),
                ("P-Served-User", format!("<{user}>;sescase=orig;regstate=reg")),
                (
                    "P-Charging-Vector",
                    format!(
                        "icid-value=\"{mark}\";icid-generated-at={own};orig-ioi=\"Type 3{domain}\""
                    ),
                ),
            ],
            drop: &[
                "p-preferred-identity",
                "p-asserted-identity",
                "p-charging-vector",
                "p-served-user",
            ],
        })
    }

    fn register(&self, request: &Message) -> Verdict {
        let user = request.to().uri.to_owned();
        let contact = request.contact().map(|contact| contact.uri.to_owned());
        let expires = expires(request);
        let mut shared = locked(&self.shared);
        shared.known.insert(key(&user));
        match (contact, expires) {
            (Some(contact), 1..) if shared.registered.len() < MOST_REGISTRATIONS => {
                shared.registered.insert(key(&user), contact.clone());
                let own = &self.own;
                Verdict::Answer(
                    200,
                    vec![
                        ("Contact", format!("<{contact}>;expires={expires}")),
                        ("P-Associated-URI", format!("<{user}>")),
                        ("Service-Route", format!("<sip:{own};lr>")),
                    ],
                )
            }
            (Some(_), 1..) => Verdict::Answer(480, Vec::new()),
            _ => {
                shared.registered.remove(&key(&user));
                Verdict::Answer(200, Vec::new())
            }
        }
    }

    /// The server hears who has registered, or left (TS 24.229 §5.4.1.7).
    async fn tell_server(&self, register: &Message) {
        let (server, uri) = {
            let shared = locked(&self.shared);
            (shared.server, shared.server_uri.clone())
        };
        let Some(server) = server else { return };
        let own = &self.own;
        let token = if server.is_tls() { "TLS" } else { "UDP" };
        let sent_by = self.own_secure.as_ref().filter(|_| server.is_tls()).unwrap_or(own);
        let mut out = Writer::request(&Method::Register, &uri);
        let branch = format!("{OWN_BRANCH}{}", self.fingerprint(register, "third"));
        out.header("Via", format!("SIP/2.0/{token} {sent_by};branch={branch}"));
        out.header("Max-Forwards", "70");
        out.header(
            "From",
            format!("<sip:{own}>;tag={OWN_TAG}{}", self.fingerprint(register, "tag")),
        );
        out.header("To", format!("<{}>", register.to().uri));
        out.header("Call-ID", format!("{}@{own}", self.fingerprint(register, "call")));
        out.header("CSeq", "1 REGISTER");
        let transport = if server.is_tls() { ";transport=tls" } else { "" };
        out.header("Contact", format!("<sip:{sent_by}{transport}>"));
        out.header("Expires", expires(register).to_string());
        self.wire.send(server, out.finish(None)).await;
    }

    async fn forward(&mut self, request: &Message, way: Way, onward: Onward) {
        let method = request.cseq().method;
        if method == Method::Invite && request.to_tag().is_none() {
            let forwarded = Forwarded {
                to: onward.to,
                uri: onward.uri.clone(),
                routes: onward.routes.clone(),
                answered: false,
            };
            self.sent.remember(branch_key(request), forwarded);
        }
        let mut out = Writer::request(&method, &onward.uri);
        let (own, mark) = (&self.own, self.fingerprint(request, "via"));
        let token = match onward.to {
            Way::Tls { .. } => "TLS",
            _ if request.bytes().len() > LARGEST_FOR_UDP => "TCP",
            _ => "UDP",
        };
        let back = written(way);
        let secure = self.own_secure.as_ref().unwrap_or(own);
        let sent_by = if onward.to.is_tls() { secure } else { own };
        out.header(
            "Via",
            format!("SIP/2.0/{token} {sent_by};branch={OWN_BRANCH}{mark};back={back}"),
        );
        for (at, via) in request.values(Name::Via).enumerate() {
            out.header("Via", if at == 0 { with_source(via, way.peer()) } else { via.to_vec() });
        }
        if onward.record_route {
            // RFC 5658: where the protocol changes, each side has an entry of its own.
            let entry = |tls: bool| match tls {
                true => format!("<sip:{secure};transport=tls;lr>"),
                false => format!("<sip:{own};lr>"),
            };
            out.header("Record-Route", entry(onward.to.is_tls()));
            if onward.to.is_tls() != way.is_tls() {
                out.header("Record-Route", entry(way.is_tls()));
            }
        }
        for route in &onward.routes {
            out.header("Route", route);
        }
        let hops = request.text(Name::MaxForwards).and_then(|hops| hops.trim().parse::<u8>().ok());
        out.header("Max-Forwards", hops.unwrap_or(70).saturating_sub(1).to_string());
        for (name, value) in request.all_headers() {
            let name = String::from_utf8_lossy(name);
            let lower = name.to_ascii_lowercase();
            let replaced = ["via", "v", "route", "max-forwards"].contains(&lower.as_str());
            if !replaced && !onward.drop.contains(&lower.as_str()) {
                out.header(&name, value);
            }
        }
        for (name, value) in &onward.add {
            out.header(name, value);
        }
        let bytes = finish(out, request);
        if token == "TCP" {
            self.wire.send_by_tcp(onward.to.peer(), bytes).await;
        } else {
            self.wire.send(onward.to, bytes).await;
        }
    }

    async fn on_response(&mut self, response: &Message) {
        let mut vias = response.values(Name::Via);
        let top = vias.next().unwrap_or(b"");
        let top = String::from_utf8_lossy(top).into_owned();
        let ours = response.via().branch.is_some_and(|branch| branch.starts_with(OWN_BRANCH));
        let back =
            top.split(';').find_map(|param| param.trim().strip_prefix("back=")).and_then(read);
        if ours && response.cseq().method == Method::Register {
            if response.status() != Some(200) {
                self.complaints.add(format!("core: a registration is not taken: {response:?}"));
            }
            return;
        }
        let (true, Some(back)) = (ours, back) else {
            self.complaints
                .add(format!("core: a response whose topmost Via is not ours: {response:?}"));
            return;
        };
        let status = response.status().unwrap_or(0);
        if response.cseq().method == Method::Invite && (200..300).contains(&status) {
            if response.header(Name::RecordRoute).is_none() {
                self.complaints.add(format!("core: {response:?} lost the Record-Route"));
            }
            if let Some(under) = vias.next() {
                let known = self.sent.by_branch.get_mut(&via_key(under));
                known.into_iter().for_each(|invite| invite.answered = true);
            }
        }
        // Rebuilt line by line: the topmost Via goes, everything else stays as it is.
        let mut bytes = Vec::with_capacity(response.bytes().len());
        bytes.extend_from_slice(format!("SIP/2.0 {status} {}\r\n", response.reason()).as_bytes());
        let put = |bytes: &mut Vec<u8>, name: &[u8], value: &[u8]| {
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        };
        for via in response.values(Name::Via).skip(1) {
            put(&mut bytes, b"Via", via);
        }
        for (name, value) in response.all_headers() {
            let lower = name.to_ascii_lowercase();
            if lower != b"via" && lower != b"v" && lower != b"content-length" && lower != b"l" {
                put(&mut bytes, name, value);
            }
        }
        put(&mut bytes, b"Content-Length", response.body().len().to_string().as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(response.body());
        if self.wire.leads_back(back) {
            return self.wire.send(back, Bytes::from(bytes)).await;
        }
        // RFC 3261 §18.2.2: the connection is gone, so to where the Via says.
        let sent_by = response.values(Name::Via).nth(1).map(via_key).unwrap_or_default();
        match sent_by.split(' ').next().and_then(|host| host.parse().ok()) {
            Some(to) => self.wire.send_by_tcp(to, Bytes::from(bytes)).await,
            None => self.complaints.add(format!("core: no way back for {response:?}")),
        }
    }

    fn is_own(&self, route: &Uri) -> bool {
        let address = way_to(route).map(|way| way.peer().to_string());
        address.is_some_and(|address| {
            address == self.own || Some(&address) == self.own_secure.as_ref()
        })
    }

    fn is_service(&self, uri: &str) -> bool {
        let Ok(uri) = Uri::parse(uri) else {
            return false;
        };
        self.services.iter().any(|service| match Uri::parse(service) {
            Ok(service) if service.is_sip() => service.same_psi(&uri),
            _ => uri.host().eq_ignore_ascii_case(service),
        })
    }

    fn warning(&self, text: &str) -> String {
        format!("399 {} \"{text}\"", self.own)
    }

    /// The same digits for the same transaction, and nobody else can make them.
    fn fingerprint(&self, request: &Message, purpose: &str) -> String {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update(self.secret.as_bytes());
        hash.update(purpose.as_bytes());
        hash.update(request.call_id());
        hash.update(request.from_tag().unwrap_or(b""));
        if purpose == "via" {
            hash.update(branch_key(request).as_bytes());
        }
        hash.finalize().iter().take(12).map(|octet| format!("{octet:02x}")).collect()
    }

    fn complain(&self, request: &Message, what: &str) {
        self.complaints.add(format!("core: {what}: {request:?}"));
    }
}

/// What stays inside the core when a request goes to a phone.
const TO_PHONE_DROP: &[&str] =
    &["p-charging-vector", "p-charging-function-addresses", "p-served-user", "p-called-party-id"];
/// The same, and who it was (RFC 3325 §7).
const TO_PHONE_DROP_PRIVATE: &[&str] = &[
    "p-charging-vector",
    "p-charging-function-addresses",
    "p-served-user",
    "p-called-party-id",
    "p-asserted-identity",
];

fn is_private(request: &Message) -> bool {
    request
        .lines(Name::Privacy)
        .any(|line| line.split(|b| *b == b';').any(|value| value.trim_ascii() == b"id"))
}

fn routes(request: &Message) -> Vec<Uri> {
    request
        .values(Name::Route)
        .filter_map(NameAddr::parse)
        .filter_map(|route| Uri::parse(route.uri).ok())
        .collect()
}

fn texts(routes: &[Uri]) -> Vec<String> {
    routes.iter().map(|route| format!("<{}>", route.as_str())).collect()
}

fn as_route(uri: &str) -> String {
    if uri.contains(";lr") { format!("<{uri}>") } else { format!("<{uri};lr>") }
}

/// The user a phone says it is: P-Preferred-Identity, else From.
fn preferred_identity(request: &Message) -> String {
    let preferred = request.values(Name::PPreferredIdentity).next().and_then(NameAddr::parse);
    preferred.map_or(request.from().uri, |identity| identity.uri).to_owned()
}

/// Seconds: the Contact's own parameter, else the header, else an hour.
fn expires(request: &Message) -> u32 {
    let contact = request.contact();
    let of_contact = contact.as_ref().and_then(|contact| contact.param("expires"));
    of_contact
        .or(request.text(Name::Expires))
        .and_then(|seconds| seconds.trim().parse().ok())
        .unwrap_or(3600)
}

/// The key of a user: equal URIs have equal keys.
fn key(uri: &str) -> String {
    Uri::parse(uri).map_or_else(|_| uri.to_owned(), |uri| uri.canonical())
}

/// The address a URI names by itself.
fn address_of(uri: &Uri) -> Option<SocketAddr> {
    let host = uri.host().trim_start_matches('[').trim_end_matches(']');
    Some(SocketAddr::new(host.parse().ok()?, uri.port().unwrap_or(5060)))
}

/// The way to the address a URI names by itself.
fn way_to(uri: &Uri) -> Option<Way> {
    let named = uri.param("transport").is_some_and(|named| named.eq_ignore_ascii_case("tls"));
    if !named && !uri.scheme_str().eq_ignore_ascii_case("sips") {
        return address_of(uri).map(Way::Udp);
    }
    let mut peer = address_of(uri)?;
    if uri.port().is_none() {
        peer.set_port(5061);
    }
    Some(Way::Tls { connection: 0, peer })
}

/// An INVITE, its CANCEL and the ACK to its refusal have this in common.
fn branch_key(request: &Message) -> String {
    via_key(request.values(Name::Via).next().unwrap_or(b""))
}

fn via_key(via: &[u8]) -> String {
    let via = String::from_utf8_lossy(via);
    let mut params = via.split(';').map(str::trim);
    let sent_by = params.next().and_then(|head| head.split_whitespace().last()).unwrap_or("");
    let branch = params.find_map(|param| param.strip_prefix("branch=")).unwrap_or("");
    format!("{sent_by} {branch}")
}

/// A Via with where its request came from (RFC 3581 §4).
fn with_source(via: &[u8], peer: SocketAddr) -> Vec<u8> {
    let via = String::from_utf8_lossy(via);
    let kept: Vec<_> = via
        .split(';')
        .map(str::trim)
        .filter(|param| *param != "rport" && !param.starts_with("received="))
        .collect();
    format!("{};received={};rport={}", kept.join(";"), peer.ip(), peer.port()).into_bytes()
}

/// The way back, as it stands in our Via.
fn written(way: Way) -> String {
    let (kind, peer) = match way {
        Way::Udp(peer) => ("u".to_owned(), peer),
        Way::Tcp { connection, peer } => (format!("t{connection}"), peer),
        Way::Tls { connection, peer } => (format!("s{connection}"), peer),
    };
    // No colons: they end a host.
    format!("{kind}-{}-{}", peer.port(), peer.ip()).replace(':', "_")
}

fn read(back: &str) -> Option<Way> {
    let (kind, peer) = back.split_once('-')?;
    let (port, ip) = peer.split_once('-')?;
    let peer = SocketAddr::new(ip.replace('_', ":").parse().ok()?, port.parse().ok()?);
    let (kind, connection) = kind.split_at_checked(1)?;
    match kind {
        "u" => Some(Way::Udp(peer)),
        "t" => Some(Way::Tcp { connection: connection.parse().ok()?, peer }),
        "s" => Some(Way::Tls { connection: connection.parse().ok()?, peer }),
        _ => None,
    }
}

/// The body as it came.
fn finish(out: Writer, message: &Message) -> Bytes {
    out.finish(Some((message.content_type().unwrap_or(""), message.body())))
}
