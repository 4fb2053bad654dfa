//! SIP messages of the neighbours as text, and what a scene asks of the node's.

use bytes::Bytes;
use pagecast::sip::message::{Message, Name};

use crate::identity;

/// The way everything takes.
pub const RECORD_ROUTE: &str = "<sip:127.0.0.1:5060;transport=tcp;lr>";

/// An INVITE of Alice's, on its way to the node: to a list by default.
pub struct Invite {
    pub user: String,
    pub request_uri: String,
    list: Option<String>,
    pub supported: String,
    /// The MSRP path, where it is not the phone's own.
    pub path: Option<String>,
    lines: String,
    types: String,
    secure: bool,
    changes: Vec<(String, String)>,
}

pub fn invite() -> Invite {
    Invite {
        user: "alice".to_owned(),
        request_uri: "sip:pages@ims.test".to_owned(),
        list: None,
        supported: "timer".to_owned(),
        path: None,
        lines: String::new(),
        types: "a=accept-types:message/cpim text/plain\na=accept-wrapped-types:*\n".to_owned(),
        secure: false,
        changes: Vec::new(),
    }
}

impl Invite {
    /// To users of the home domain.
    pub fn to<const N: usize>(self, users: [&str; N]) -> Self {
        let uris = users.map(|user| format!("sip:{user}@ims.test"));
        self.listing(uris.iter().map(String::as_str))
    }

    pub fn listing<'a>(mut self, uris: impl IntoIterator<Item = &'a str>) -> Self {
        let entry = |uri: &str| format!("<entry uri=\"{uri}\" cp:copyControl=\"to\"/>\n");
        self.list = Some(uris.into_iter().map(entry).collect());
        self
    }

    pub fn group(mut self, group: &str) -> Self {
        self.request_uri = group.to_owned();
        self
    }

    /// Sent by somebody else than Alice.
    pub fn by(mut self, user: &str) -> Self {
        self.user = user.to_owned();
        self
    }

    /// The sender takes reliable provisional responses.
    pub fn reliable(mut self) -> Self {
        self.supported = "100rel, timer".to_owned();
        self
    }

    /// Reached by another MSRP path.
    pub fn path(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// One more header line.
    pub fn line(mut self, line: &str) -> Self {
        self.lines += line;
        self.lines += "\n";
        self
    }

    /// Over TLS.
    pub fn secure(mut self) -> Self {
        self.secure = true;
        self
    }

    /// Of its MSRP paths.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "msrps" } else { "msrp" }
    }

    /// Other content types than CPIM and plain text.
    pub fn types(mut self, types: &str, wrapped: &str) -> Self {
        self.types = format!("a=accept-types:{types}\na=accept-wrapped-types:{wrapped}\n");
        self
    }

    /// Something else in the place of what would stand there.
    pub fn instead(mut self, of: &str, text: &str) -> Self {
        self.changes.push((of.to_owned(), text.to_owned()));
        self
    }

    /// The offer.
    pub fn sdp(&self, path: &str) -> String {
        let (types, host) = (&self.types, host(path));
        let (protocol, print) = transport(path);
        format!(
            "v=0\no=- 1 1 IN IP4 192.0.2.55\ns=-\nc=IN IP4 {host}\nt=0 0\nm=message 9 {protocol} *\n\
             a=path:{path}\na=setup:active\n{print}{types}a=sendonly\n"
        )
    }

    /// The message, for a caller with these names.
    pub fn write(&self, call_id: &str, tag: &str, branch: &str, path: &str) -> String {
        let Self { user, request_uri, supported, lines, .. } = self;
        let sdp = self.sdp(path);
        let (require, kind, body) = match &self.list {
            None => ("", "application/sdp", sdp),
            Some(list) => (
                "Require: recipient-list-invite\n",
                "multipart/mixed;boundary=bnd1",
                format!(
                    "--bnd1\nContent-Type: application/sdp\n\n{sdp}\n--bnd1\n\
                     Content-Type: application/resource-lists+xml\nContent-Disposition: recipient-list\n\n\
                     <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                     <resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\" \
                     xmlns:cp=\"urn:ietf:params:xml:ns:copycontrol\"><list>\n{list}\
                     </list></resource-lists>\n--bnd1--\n"
                ),
            ),
        };
        let text = format!(
            "INVITE {request_uri} SIP/2.0\n\
             Via: SIP/2.0/TCP 127.0.0.1:5060;branch={branch}\n\
             Max-Forwards: 67\n\
             Route: <sip:127.0.0.1:5090;lr>, <sip:odi@127.0.0.1:5060;transport=tcp;lr;orig>\n\
             Record-Route: {RECORD_ROUTE}\n\
             P-Asserted-Identity: <sip:{user}@ims.test>\n\
             P-Served-User: <sip:{user}@ims.test>;sescase=orig;regstate=reg\n\
             P-Charging-Vector: icid-value=\"{call_id}\";orig-ioi=\"Type 3ims.test\"\n\
             From: <sip:{user}@ims.test>;tag={tag}\n\
             To: <{request_uri}>\n\
             Call-ID: {call_id}\n\
             CSeq: 1 INVITE\n\
             Contact: <sip:{user}@192.0.2.55:5060>;+g.oma.sip-im.large-message\n\
             Accept-Contact: *;+g.oma.sip-im.large-message\n\
             Supported: {supported}\n\
             Allow: INVITE, ACK, CANCEL, BYE, PRACK, UPDATE\n\
             {require}{lines}Content-Type: {kind}\n\n{body}"
        );
        self.changes.iter().fold(text, |text, (of, other)| {
            assert!(text.contains(of), "the INVITE has {of}");
            text.replace(of, other)
        })
    }
}

/// What a phone's answer says of its MSRP side.
pub fn answer_sdp(path: &str) -> String {
    let host = host(path);
    let (protocol, print) = transport(path);
    format!(
        "v=0\no=- 99 1 IN IP4 192.0.2.77\ns=-\nc=IN IP4 {host}\nt=0 0\nm=message 9 {protocol} *\n\
         a=path:{path}\na=setup:active\n{print}a=accept-types:message/cpim text/plain\n\
         a=accept-wrapped-types:*\na=recvonly\n"
    )
}

/// The protocol of a media line with that path, and its fingerprint line.
fn transport(path: &str) -> (&'static str, String) {
    match path.starts_with("msrps:") {
        true => ("TCP/TLS/MSRP", format!("a=fingerprint:{}\n", identity::phones().fingerprint())),
        false => ("TCP/MSRP", String::new()),
    }
}

/// The host of the first URI of a path: where connections go.
fn host(path: &str) -> &str {
    path.trim_start_matches("msrps://")
        .trim_start_matches("msrp://")
        .split(':')
        .next()
        .unwrap_or(path)
}

/// A message written with plain line ends, as octets; Content-Length is added.
pub fn bytes(text: &str) -> Bytes {
    let (head, body) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
    let (head, body) = (head.replace('\n', "\r\n"), body.replace('\n', "\r\n"));
    Bytes::from(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// A response to a request of the node.
pub fn response(request: &Message, status: u16, tag: &str, lines: &str, body: &str) -> String {
    let mut out = format!("SIP/2.0 {status} Text\n");
    for via in request.lines(Name::Via) {
        out += &format!("Via: {}\n", String::from_utf8_lossy(via));
    }
    let to = header(request, "To");
    out += &format!("From: {}\nTo: {to}", header(request, "From"));
    if !tag.is_empty() && !to.contains(";tag=") {
        out += &format!(";tag={tag}");
    }
    let call_id = header(request, "Call-ID");
    out += &format!("\nCall-ID: {call_id}\nCSeq: {}\n{lines}", header(request, "CSeq"));
    out + "\n" + body
}

/// The value of a header that stands there once.
pub fn header(message: &Message, name: &str) -> String {
    let all = headers(message, name);
    let [one] = &all[..] else { panic!("{name} stands there {} times", all.len()) };
    one.clone()
}

pub fn headers(message: &Message, name: &str) -> Vec<String> {
    let same = |key: &[u8]| key.eq_ignore_ascii_case(name.as_bytes());
    let value = |value: &[u8]| String::from_utf8_lossy(value).trim().to_owned();
    message.all_headers().filter(|(key, _)| same(key)).map(|(_, text)| value(text)).collect()
}

/// The URI inside `<` and `>`.
pub fn uri(value: &str) -> String {
    let inner = value.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or(value, |(uri, _)| uri).to_owned()
}

pub fn tag(value: &str) -> String {
    value.split(";tag=").nth(1).expect("a tag").split(';').next().unwrap_or_default().to_owned()
}

/// `a=NAME:` of a description, wherever in the body it stands.
pub fn attribute(message: &Message, name: &str) -> Option<String> {
    let body = String::from_utf8_lossy(message.body()).into_owned();
    let start = format!("a={name}:");
    body.lines().find_map(|line| line.strip_prefix(&start)).map(|value| value.trim().to_owned())
}

pub fn method(message: &Message) -> String {
    message.cseq().method.as_str().to_owned()
}

pub fn is_initial(message: &Message) -> bool {
    message.is_request() && method(message) == "INVITE" && message.to_tag().is_none()
}

pub fn to_user(message: &Message) -> String {
    let to = message.to().uri.to_owned();
    to.trim_start_matches("sip:").split('@').next().unwrap_or_default().to_owned()
}

pub fn start_line(message: &Message) -> String {
    let bytes = message.bytes();
    let end = bytes.iter().position(|octet| *octet == b'\r').unwrap_or(bytes.len());
    let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
    format!("{line} [{}]", header(message, "CSeq"))
}
