//! The messages the user agent writes itself, and the little it reads out of bodies.

use bytes::Bytes;

use crate::sip::Flow;
use crate::sip::dialog::session::Agreement;
use crate::sip::message::{Message, Method, Name, NameAddr, Writer, reason_phrase};

use super::types::{Invite, OutRequest, Reply};

/// What every one of our branches starts with; the thread's two digits and sixteen random ones follow.
const COOKIE: &str = "z9hG4bK";

/// The value of the Via header of a request of ours. The transport puts the right protocol in.
pub fn via(sent_by: &str, thread: u8, branch: u64) -> String {
    format!("SIP/2.0/UDP {sent_by};branch={COOKIE}{thread:02x}{branch:016x};rport")
}

/// Reads our own branch back: the random part, if the thread is ours.
pub fn own_branch(branch: &str, thread: u8) -> Option<u64> {
    let digits = branch.strip_prefix(COOKIE)?;
    let (owner, random) = digits.split_at_checked(2)?;
    if random.len() != 16 || u8::from_str_radix(owner, 16) != Ok(thread) {
        return None;
    }
    u64::from_str_radix(random, 16).ok()
}

/// Whether a branch is unique by RFC 3261 §8.1.1.7; others come from peers of RFC 2543.
pub fn is_unique(branch: &str) -> bool {
    branch.len() > COOKIE.len()
        && branch.get(..COOKIE.len()).is_some_and(|start| start.eq_ignore_ascii_case(COOKIE))
}

/// A tag or the middle of a Call-ID: the thread's two digits and 16 random ones.
pub fn token(thread: u8, random: u64) -> String {
    format!("{thread:02x}{random:016x}")
}

/// Where the protocol's three letters stand in a request of ours: the Via is its first line.
pub fn via_at(request: &[u8]) -> usize {
    let line = memchr::memchr(b'\n', request).map_or(0, |end| end + 1);
    line + "Via: SIP/2.0/".len()
}

/// The same request with another branch.
pub fn with_branch(request: &[u8], branch: u64) -> Bytes {
    let mut copy = request.to_vec();
    let mark = [b";branch=", COOKIE.as_bytes()].concat();
    if let Some(at) = memchr::memmem::find(&copy, &mark) {
        let digits = at + mark.len() + 2;
        if let Some(place) = copy.get_mut(digits..digits + 16) {
            place.copy_from_slice(format!("{branch:016x}").as_bytes());
        }
    }
    Bytes::from(copy)
}

/// The URI a request goes to first.
pub fn next_hop(chosen: &str, route: &[String], request_uri: &str) -> String {
    if !chosen.is_empty() {
        return chosen.to_owned();
    }
    let top = route.first().and_then(|route| NameAddr::parse(route.as_bytes()));
    top.map_or(request_uri, |route| route.uri).to_owned()
}

/// The start of an initial request.
struct Head<'a> {
    method: &'a Method,
    uri: &'a str,
    via: &'a str,
    route: &'a [String],
    max_forwards: u8,
    from: &'a [u8],
    to: &'a str,
    call_id: &'a str,
    cseq: u32,
}

fn head(head: &Head<'_>) -> Writer {
    let mut writer = Writer::request(head.method, head.uri);
    writer.header("Via", head.via);
    for route in head.route {
        writer.header("Route", route);
    }
    writer
        .header("Max-Forwards", head.max_forwards.to_string())
        .header("From", head.from)
        .header("To", head.to)
        .header("Call-ID", head.call_id)
        .header("CSeq", format!("{} {}", head.cseq, head.method.as_str()));
    writer
}

fn finish(writer: Writer, body: Option<&(String, Bytes)>) -> Bytes {
    writer.finish(body.map(|(kind, body)| (kind.as_str(), body.as_ref())))
}

/// An initial INVITE. `from` has its tag, `min_se` is what our own settings ask for.
pub fn invite(invite: &Invite, from: &[u8], cseq: u32, via: &str, min_se: u32) -> Bytes {
    let mut writer = head(&Head {
        method: &Method::Invite,
        uri: &invite.request_uri,
        via,
        route: &invite.route,
        max_forwards: invite.max_forwards,
        from,
        to: &invite.to,
        call_id: &invite.call_id,
        cseq,
    });
    writer.header("Contact", &invite.contact);
    if let Some(interval) = invite.session_expires {
        let refresher = invite
            .refresher
            .map_or(String::new(), |refresher| format!(";refresher={}", refresher.as_str()));
        writer
            .header("Session-Expires", format!("{interval}{refresher}"))
            .header("Min-SE", min_se.to_string());
    }
    writer.lines(&invite.headers);
    finish(writer, invite.body.as_ref())
}

/// A request outside of a dialog.
pub fn request(request: &OutRequest, call_id: &str, from: &[u8], via: &str) -> Bytes {
    let mut writer = head(&Head {
        method: &request.method,
        uri: &request.request_uri,
        via,
        route: &request.route,
        max_forwards: request.max_forwards,
        from,
        to: &request.to,
        call_id,
        cseq: request.cseq,
    });
    writer.lines(&request.headers);
    finish(writer, request.body.as_ref())
}

/// The values of a header in a request we wrote ourselves, as written.
fn own_lines<'a>(request: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    request
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
        .filter_map(move |line| line.strip_prefix(name.as_bytes())?.strip_prefix(b": "))
}

/// The CSeq of a request we wrote ourselves.
pub fn cseq(request: &[u8]) -> Option<(u32, &str)> {
    let value = std::str::from_utf8(own_lines(request, "CSeq").next()?).ok()?;
    let (number, method) = value.split_once(' ')?;
    Some((number.parse().ok()?, method))
}

/// A CANCEL, or the ACK of a final answer other than 2xx: the same next hop, Request-URI, Via and Route as the INVITE
/// (RFC 3261 §9.1, §17.1.1.3). `to` is the INVITE's own To for CANCEL and the response's for ACK.
fn companion(invite: &[u8], method: &Method, to: Option<&[u8]>) -> Writer {
    let uri = invite
        .split(|byte| *byte == b' ')
        .nth(1)
        .and_then(|uri| std::str::from_utf8(uri).ok())
        .unwrap_or("");
    let mut writer = Writer::request(method, uri);
    let own = |name: &'static str| own_lines(invite, name).next().unwrap_or(b"");
    writer.header("Via", own("Via"));
    for route in own_lines(invite, "Route") {
        writer.header("Route", route);
    }
    let cseq = own("CSeq").split(|byte| *byte == b' ').next().unwrap_or(b"");
    writer
        .header("Max-Forwards", "70")
        .header("From", own("From"))
        .header("To", to.unwrap_or_else(|| own("To")))
        .header("Call-ID", own("Call-ID"))
        .header("CSeq", [cseq, b" ", method.as_str().as_bytes()].concat());
    writer
}

/// The ACK the transaction sends for `response` to `invite`.
pub fn ack(invite: &[u8], response: &Message) -> Bytes {
    companion(invite, &Method::Ack, response.header(Name::To)).finish(None)
}

/// The CANCEL of `invite`.
pub fn cancel(invite: &[u8], reason: Option<&str>) -> Bytes {
    let mut writer = companion(invite, &Method::Cancel, None);
    if let Some(reason) = reason {
        writer.header("Reason", reason);
    }
    writer.finish(None)
}

/// The CANCEL of `invite` with further lines, each ended by CRLF.
pub fn cancel_with(invite: &[u8], lines: &[u8]) -> Bytes {
    let mut writer = companion(invite, &Method::Cancel, None);
    writer.lines(lines);
    writer.finish(None)
}

/// Starts a response with what all of ours have. No tag on a 100.
pub fn response(request: &Message, flow: &Flow, reply: &Reply, tag: &str, server: &str) -> Writer {
    let reason = reply.reason.as_deref().unwrap_or_else(|| reason_phrase(reply.status));
    let tag = (reply.status != 100).then_some(tag);
    let mut writer = Writer::response_from(request, flow, reply.status, reason, tag);
    writer.header("Server", server);
    writer
}

/// Ends a response with the reply's own lines and body.
pub fn finish_response(mut writer: Writer, reply: &Reply) -> Bytes {
    writer.lines(&reply.headers);
    finish(writer, reply.body.as_ref())
}

/// The lines by which a 2xx agrees to a session timer.
///
/// ISC-061 (RFC 4028 §9): `Require: timer` only where the peer has to refresh.
pub fn session_lines<'a>(
    value: &'a str,
    agreement: &Agreement,
) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let require = (!agreement.ours).then_some(("Require", &b"timer"[..]));
    std::iter::once(("Session-Expires", value.as_bytes())).chain(require)
}

/// What counts of a session description when asking whether a re-INVITE changes anything: everything but the `o=`
/// line, whose version some peers raise for a mere refresh. `None` if the body holds no description. A multipart is
/// looked through for the part that is one.
pub fn media(message: &Message) -> Option<Vec<u8>> {
    media_of(message.content_type()?, message.body())
}

/// As [`media`], of a body of ours or a peer's.
pub fn media_of(content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
    let kind = content_type.split(';').next().unwrap_or("").trim();
    let plain = kind.eq_ignore_ascii_case("application/sdp");
    if !plain && !kind.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/")) {
        return None;
    }
    let mut found = false;
    let mut media = Vec::new();
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        found = found || line.starts_with(b"v=");
        if !found || line.starts_with(b"o=") || line.is_empty() {
            continue;
        }
        if !plain && line.starts_with(b"--") {
            break;
        }
        media.extend_from_slice(line);
        media.push(b'\n');
    }
    found.then_some(media)
}

/// Whether a request carries a recipient list: by its option tag or as a body part (UL-005, IM-034).
pub fn has_list(message: &Message) -> bool {
    if message.has_token(Name::Require, LIST_TAG) {
        return true;
    }
    if message.header(Name::ContentDisposition).is_some_and(is_list_disposition) {
        return true;
    }
    let multipart = message.content_type().is_some_and(|kind| {
        kind.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"))
    });
    const NAME: &[u8] = b"content-disposition:";
    multipart
        && message.body().split(|byte| *byte == b'\n').any(|line| {
            line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
                && is_list_disposition(&line[NAME.len()..])
        })
}

/// The option tag of URI-list INVITEs (RFC 5366).
pub const LIST_TAG: &str = "recipient-list-invite";

fn is_list_disposition(value: &[u8]) -> bool {
    let kind = value.split(|byte| *byte == b';').next().unwrap_or(b"");
    kind.trim_ascii().eq_ignore_ascii_case(b"recipient-list")
}
