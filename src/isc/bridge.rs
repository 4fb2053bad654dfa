//! The routing B2BUA: a request for one user passes once, unexploded, as a new dialog derived from the one that came.
//!
//! Start at [`Bridges::on`]. On either side the transactions are ours, by [`crate::sip::ua::Through`]; of the dialogs only
//! what names them changes: Call-ID, the caller's tag, Contact, Route. The callee's tags, CSeq, RSeq, RAck, the session
//! timer and every body pass as they came, so that forks, PRACK, late offers and re-INVITEs stay between the two ends.
//! Everything else passes both ways, known or not, in its order.
//!
//! Never looks into a body, never answers for an end that can. Bounded by [`ua::Settings::max_calls`] and by a lifetime
//! without messages. Follows TS 24.229 5.7.5.1 and 5.7.5.3, ISC-053 and ISC-055.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::outbound::{self, House};
use super::rules::charging::ChargingVector;
use crate::sip::Flow;
use crate::sip::message::{Elements, Message, Method, Name, NameAddr, Writer};
use crate::sip::ua::{Failure, Reply, RequestKey, Through, Ua};

#[cfg(doc)]
use crate::sip::ua;

/// No answer to an INVITE for so long after the last provisional one is none (RFC 3261 §16.6 step 11, Timer C).
const SILENCE: Duration = Duration::from_secs(185);

/// How long a subscription without Expires, or what a REFER opened, lives without messages.
const SUBSCRIPTION: Duration = Duration::from_secs(3600);

/// All bridges of one thread.
#[derive(Debug, Default)]
pub struct Bridges {
    calls: HashMap<u64, Call>,
    /// Call-ID and the caller's tag.
    near: HashMap<(Bytes, Bytes), u64>,
    /// Our Call-ID and our tag.
    far: HashMap<(Bytes, Bytes), u64>,
    /// What waits for an answer, by our request.
    passing: HashMap<RequestKey, Passing>,
    /// Our request by the one that came, for CANCEL.
    asked: HashMap<RequestKey, RequestKey>,
    timers: BTreeMap<(Instant, u64), Due>,
    next: u64,
}

#[derive(Debug, Clone, Copy)]
enum Due {
    /// Nothing came for the call's lifetime.
    Idle(u64),
    /// An INVITE is not answered.
    Silent(RequestKey),
    /// An INVITE is not answered although it was cancelled.
    Cancelled(RequestKey),
}

type Timer = Option<(Instant, u64)>;

/// Two dialogs, or as many pairs as there are forks, under one INVITE, SUBSCRIBE or REFER.
#[derive(Debug)]
struct Call {
    method: Method,
    /// The Request-URI of the opening request: where a callee without Contact is to be found.
    asked: String,
    /// Our URI in both.
    contact: String,
    /// The caller: Call-ID, From as it came, To as it came, where its requests go.
    call_id: Bytes,
    from: Bytes,
    to: Bytes,
    tag: Bytes,
    target: String,
    routes: Vec<Bytes>,
    /// Ours, towards the callee.
    far_call_id: Bytes,
    far_from: Bytes,
    far_tag: Bytes,
    forks: Vec<Fork>,
    /// The opening request, until its final answer.
    opening: bool,
    /// The highest CSeq that went either way: what we send ourselves counts on.
    up: u32,
    down: u32,
    lifetime: Duration,
    idle: Timer,
    /// Lines of requests we send ourselves.
    own_lines: Bytes,
}

/// One dialog with a callee.
#[derive(Debug)]
struct Fork {
    tag: Bytes,
    target: String,
    routes: Vec<Bytes>,
    confirmed: bool,
}

/// One request on its way.
#[derive(Debug)]
struct Passing {
    call: Option<u64>,
    message: Message,
    flow: Flow,
    from: RequestKey,
    upwards: bool,
    /// The lines of a CANCEL that is wanted.
    cancel: Option<Bytes>,
    cancelled: bool,
    answered: bool,
    timer: Timer,
}

/// Whether a method opens a dialog.
fn opens(method: &Method) -> bool {
    matches!(method, Method::Invite | Method::Subscribe | Method::Refer)
}

/// Whether a method names a target for later requests.
fn retargets(method: &Method) -> bool {
    opens(method) || matches!(method, Method::Update | Method::Notify)
}

impl Bridges {
    /// How many calls there are.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Entries of all tables, for leak tests.
    pub fn held(&self) -> usize {
        self.calls.len()
            + self.near.len()
            + self.far.len()
            + self.passing.len()
            + self.asked.len()
            + self.timers.len()
    }

    /// When to call [`Bridges::wake`] at the latest.
    pub fn next_wake(&self) -> Option<Instant> {
        self.timers.keys().next().map(|(at, _)| *at)
    }

    /// Whether a request belongs into one of these dialogs.
    pub fn owns(&self, message: &Message) -> bool {
        !self.calls.is_empty() && self.find(message).is_some()
    }

    /// The call a request in a dialog belongs to, and whether the caller sent it.
    fn find(&self, message: &Message) -> Option<(u64, bool)> {
        let to = message.to_tag()?;
        let key =
            |tag: &[u8]| (Bytes::copy_from_slice(message.call_id()), Bytes::copy_from_slice(tag));
        let upwards = message.from_tag().and_then(|tag| self.near.get(&key(tag)));
        let downwards = || self.far.get(&key(to)).map(|call| (*call, false));
        upwards.map(|call| (*call, true)).or_else(downwards)
    }

    /// Something happened to what passes. `route` is what is left of the Route of an initial request.
    pub fn on(
        &mut self,
        now: Instant,
        ua: &mut Ua,
        house: &House,
        through: Through,
        route: impl FnOnce(&Message) -> Vec<String>,
    ) {
        match through {
            Through::Request { request, message, flow } => {
                let came = Came { request, message, flow };
                let passed = match (self.find(&came.message), came.message.to_tag().is_some()) {
                    (Some((call, upwards)), _) => self.inside(now, ua, call, upwards, &came),
                    (None, true) => Err(Refused(481)),
                    (None, false) => {
                        let route = route(&came.message);
                        self.open(now, ua, house, route, &came)
                    }
                };
                if let Err(Refused(status)) = passed {
                    tracing::info!(
                        rule = "ISC-053",
                        status,
                        uri = came.message.uri(),
                        "request not passed on"
                    );
                    let headers = if status == 503 { "Retry-After: 5\r\n" } else { "" };
                    let reply = Reply { headers: headers.into(), ..Reply::new(status) };
                    ua.respond(now, request, reply);
                }
            }
            Through::Ack { message } => self.acknowledge(now, ua, &message),
            Through::Cancel { request, message } => self.cancel(now, ua, request, &message),
            Through::Response { request, message } => self.response(now, ua, request, &message),
            Through::Failed { request, cause } => self.failed(now, ua, request, cause),
            Through::Over { request } => self.over(request),
        }
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Instant, ua: &mut Ua) {
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Due::Idle(call) => {
                    if let Some(state) = self.calls.get_mut(&call) {
                        state.idle = None;
                    }
                    tracing::info!(rule = "ISC-053", "a relayed call without messages is ended");
                    self.release(now, ua, call, 408, "Nothing heard for too long");
                }
                Due::Silent(request) => {
                    let lines = Bytes::from_static(b"Reason: SIP;cause=408;text=\"No answer\"\r\n");
                    self.wants_cancel(now, ua, request, lines);
                }
                Due::Cancelled(request) => {
                    // RFC 3261 §9.1: nobody answers any more.
                    if let Some(passing) = self.passing.get(&request) {
                        let call = passing.call;
                        ua.respond(now, passing.from, Reply::new(487));
                        if let Some(call) = call {
                            self.after(call, request, &Method::Invite, 487);
                        }
                    }
                    self.finished(request);
                    ua.abandon(request);
                }
            }
        }
    }

    /// Ends every call, with BYE to both ends.
    pub fn release_all(&mut self, now: Instant, ua: &mut Ua) {
        let mut calls: Vec<u64> = self.calls.keys().copied().collect();
        calls.sort_unstable();
        for call in calls {
            self.release(now, ua, call, 503, "Server is going down");
        }
    }

    // --- requests ---

    /// A request outside of dialogs.
    ///
    /// ISC-005, ISC-015, ISC-053: same Request-URI, From and To, same CSeq, the rest of the Route, one hop less.
    fn open(
        &mut self,
        now: Instant,
        ua: &mut Ua,
        house: &House,
        route: Vec<String>,
        came: &Came,
    ) -> Result<(), Refused> {
        let message = &came.message;
        let method = message.method().ok_or(Refused(400))?;
        let hops = hops(message)?;
        let dialog = opens(&method);
        if dialog && self.calls.len() >= ua.settings().max_calls {
            return Err(Refused(503));
        }
        let from = message.header(Name::From).unwrap_or_default();
        let far_call_id = ua.fresh_call_id();
        let far_tag = ua.fresh_tag();
        let far_from = with_tag(from, &far_tag);
        let id = self.next;
        let contact = format!("sip:lm-{far_tag}@{}", house.contact);
        if dialog && message.contact().is_none() {
            return Err(Refused(400));
        }
        let next_hop = route.first().and_then(|entry| NameAddr::parse(entry.as_bytes()));
        let next_hop = next_hop.map_or(message.uri(), |entry| entry.uri).to_owned();
        let sent = ua.pass(now, next_hop, |via| {
            let mut writer = Writer::request(&method, message.uri());
            writer.header("Via", via);
            for entry in &route {
                writer.header("Route", entry);
            }
            writer
                .header("Max-Forwards", hops.to_string())
                .header("From", &far_from)
                .header("To", message.header(Name::To).unwrap_or_default())
                .header("Call-ID", &far_call_id)
                .header("CSeq", cseq(message));
            copy(&mut writer, message, dialog.then_some(contact.as_str()));
            finish(writer, message)
        });
        let Some(sent) = sent else {
            return Err(Refused(503));
        };
        self.next += 1;
        if dialog {
            let near_tag = Bytes::copy_from_slice(message.from_tag().unwrap_or_default());
            let call_id = Bytes::copy_from_slice(message.call_id());
            let far = (Bytes::from(far_call_id), Bytes::from(far_tag));
            self.near.insert((call_id.clone(), near_tag.clone()), id);
            self.far.insert(far.clone(), id);
            let charging = message.text(Name::PChargingVector).and_then(ChargingVector::parse);
            let call = Call {
                asked: message.uri().to_owned(),
                contact,
                call_id,
                from: Bytes::copy_from_slice(from),
                to: Bytes::copy_from_slice(message.header(Name::To).unwrap_or_default()),
                tag: near_tag,
                target: message.contact().map_or(String::new(), |contact| contact.uri.to_owned()),
                routes: message.values(Name::RecordRoute).map(Bytes::copy_from_slice).collect(),
                far_call_id: far.0,
                far_from: Bytes::from(far_from),
                far_tag: far.1,
                forks: Vec::new(),
                opening: true,
                up: message.cseq().number,
                down: 0,
                lifetime: lifetime(house, message, &method),
                idle: None,
                own_lines: outbound::own_lines(house, charging.as_ref()),
                method,
            };
            self.calls.insert(id, call);
            self.touch(now, id);
        }
        self.passes(sent, came, dialog.then_some(id), true);
        Ok(())
    }

    /// A request in a dialog.
    fn inside(
        &mut self,
        now: Instant,
        ua: &mut Ua,
        id: u64,
        upwards: bool,
        came: &Came,
    ) -> Result<(), Refused> {
        let message = &came.message;
        let method = message.method().ok_or(Refused(400))?;
        let hops = hops(message)?;
        let call = self.calls.get_mut(&id).ok_or(Refused(481))?;
        let number = message.cseq().number;
        if upwards {
            let tag = message.to_tag().unwrap_or_default();
            if !call.forks.iter().any(|fork| fork.tag == tag) {
                return Err(Refused(481));
            }
            call.up = call.up.max(number);
            if let Some(contact) = message.contact().filter(|_| retargets(&method)) {
                contact.uri.clone_into(&mut call.target);
            }
        } else {
            call.learn(message, ua.settings().max_forks, &method)?;
            call.down = call.down.max(number);
        }
        let (next_hop, head) = call.head(message, upwards).ok_or(Refused(481))?;
        let sent = ua.pass(now, next_hop, |via| {
            let mut writer = head.write(&method, via);
            writer.header("Max-Forwards", hops.to_string()).header("CSeq", cseq(message));
            copy(&mut writer, message, Some(&call.contact));
            finish(writer, message)
        });
        let sent = sent.ok_or(Refused(503))?;
        if call.method != Method::Invite
            && let Some(expires) = expires(message)
        {
            call.lifetime = expires;
        }
        self.passes(sent, came, Some(id), upwards);
        self.touch(now, id);
        Ok(())
    }

    fn passes(&mut self, sent: RequestKey, came: &Came, call: Option<u64>, upwards: bool) {
        self.asked.insert(came.request, sent);
        self.passing.insert(
            sent,
            Passing {
                call,
                message: came.message.clone(),
                flow: came.flow,
                from: came.request,
                upwards,
                cancel: None,
                cancelled: false,
                answered: false,
                timer: None,
            },
        );
    }

    /// The ACK of a 2xx, with whatever it brings.
    fn acknowledge(&mut self, now: Instant, ua: &mut Ua, message: &Message) {
        let Some((id, upwards)) = self.find(message) else { return };
        let (Some(call), Ok(hops)) = (self.calls.get(&id), hops(message)) else { return };
        // The ACK of nobody's 2xx goes nowhere.
        let Some((next_hop, head)) = call.head(message, upwards) else { return };
        ua.pass_once(next_hop, |via| {
            let mut writer = head.write(&Method::Ack, via);
            writer.header("Max-Forwards", hops.to_string()).header("CSeq", cseq(message));
            copy(&mut writer, message, Some(&call.contact));
            finish(writer, message)
        });
        self.touch(now, id);
    }

    fn cancel(&mut self, now: Instant, ua: &mut Ua, request: RequestKey, message: &Message) {
        let Some(sent) = self.asked.get(&request).copied() else { return };
        let mut lines = Vec::new();
        for (name, value) in message.all_headers() {
            if !is_ours(name) && Name::known(name) != Some(Name::Contact) {
                lines.extend_from_slice(name);
                lines.extend_from_slice(b": ");
                lines.extend_from_slice(value);
                lines.extend_from_slice(b"\r\n");
            }
        }
        self.wants_cancel(now, ua, sent, lines.into());
    }

    fn wants_cancel(&mut self, now: Instant, ua: &mut Ua, sent: RequestKey, lines: Bytes) {
        let Some(passing) = self.passing.get_mut(&sent) else { return };
        if passing.cancel.is_none() && !passing.answered {
            passing.cancel = Some(lines);
            self.send_cancel(now, ua, sent);
        }
    }

    /// Sends the CANCEL that is wanted, as soon as it may go.
    fn send_cancel(&mut self, now: Instant, ua: &mut Ua, sent: RequestKey) {
        let Some(passing) = self.passing.get_mut(&sent) else { return };
        let Some(lines) = passing.cancel.as_ref().filter(|_| !passing.cancelled) else { return };
        if !ua.pass_cancel(now, sent, lines) {
            return;
        }
        passing.cancelled = true;
        let at = now + ua.settings().timers.give_up();
        self.set_timer(sent, at, Due::Cancelled(sent));
    }

    // --- responses ---

    /// ISC-053: mapped one to one, whatever it says.
    fn response(&mut self, now: Instant, ua: &mut Ua, sent: RequestKey, response: &Message) {
        let Some(passing) = self.passing.get_mut(&sent) else { return };
        let status = response.status().unwrap_or_default();
        let method = response.cseq().method;
        let (call, upwards, from) = (passing.call, passing.upwards, passing.from);
        let first = !std::mem::replace(&mut passing.answered, status >= 200);
        // After a 2xx only further 2xx can come; after any other final answer nothing.
        passing.answered |= !first;
        if status == 100 {
            if method == Method::Invite {
                self.await_answer(now, sent);
                self.send_cancel(now, ua, sent);
            }
            return;
        }
        let initial = passing.message.to_tag().is_none();
        let contact = match call.and_then(|call| self.calls.get_mut(&call)) {
            Some(state) => {
                if initial && upwards && opens(&method) && status < 300 {
                    state.heard(response, ua.settings().max_forks);
                }
                if retargets(&method) && (200..300).contains(&status) {
                    state.moves(response, upwards);
                }
                (status < 300).then(|| state.contact.clone())
            }
            None => None,
        };
        let bytes = back(passing, response, contact.as_deref());
        ua.pass_back(now, from, status, bytes);
        if let Some(call) = call {
            self.touch(now, call);
        }
        if status < 200 {
            if method == Method::Invite {
                self.await_answer(now, sent);
                self.send_cancel(now, ua, sent);
            }
            return;
        }
        self.stop_timer(sent);
        if !first {
            return;
        }
        if let Some(call) = call {
            self.after(call, sent, &method, status);
        }
        // A 2xx to an INVITE may come again, from any fork, as long as its transaction lives.
        if !(method == Method::Invite && status < 300) {
            self.finished(sent);
        }
    }

    /// What a final answer means for the call.
    fn after(&mut self, id: u64, sent: RequestKey, method: &Method, status: u16) {
        let Some(passing) = self.passing.get(&sent) else { return };
        let (initial, upwards) = (passing.message.to_tag().is_none(), passing.upwards);
        let Some(call) = self.calls.get_mut(&id) else { return };
        if initial {
            call.opening = false;
        }
        if *method == Method::Bye {
            let message = &passing.message;
            let tag = if upwards { message.to_tag() } else { message.from_tag() };
            call.forks.retain(|fork| Some(&*fork.tag) != tag);
        }
        let ended = *method == Method::Notify
            && passing.message.text(Name::SubscriptionState).is_some_and(|state| {
                state.trim().get(..10).is_some_and(|start| start.eq_ignore_ascii_case("terminated"))
            });
        let failed = initial && status >= 300;
        let unused = !call.opening && !call.forks.iter().any(|fork| fork.confirmed);
        if ended || failed || unused {
            self.remove(id);
        }
    }

    /// No answer will come.
    ///
    /// Deviation from ISC-066: 408 and 503 are what became of the request on its way, no refusal of ours; the S-CSCF may
    /// well go on without us. A request in a dialog that finds nobody ends the other side, too.
    fn failed(&mut self, now: Instant, ua: &mut Ua, sent: RequestKey, cause: Failure) {
        let Some(passing) = self.passing.get(&sent) else { return };
        let (call, from) = (passing.call, passing.from);
        let initial = passing.message.to_tag().is_none();
        let bye = passing.message.method() == Some(Method::Bye);
        let status = if cause == Failure::Timeout { 408 } else { 503 };
        tracing::info!(
            rule = "ISC-053",
            status,
            uri = passing.message.uri(),
            "no next hop answers"
        );
        // The asker's side of the dialog is over, whether the other end heard of it or not.
        ua.respond(now, from, Reply::new(if bye { 200 } else { status }));
        if let Some(call) = call {
            let method = passing.message.method().unwrap_or(Method::Bye);
            self.after(call, sent, &method, status);
            let confirmed = |call: &Call| call.forks.iter().any(|fork| fork.confirmed);
            if !initial && !bye && self.calls.get(&call).is_some_and(confirmed) {
                self.release(now, ua, call, status, "Other side not reachable");
            }
        }
        self.finished(sent);
    }

    /// Our transaction is gone.
    fn over(&mut self, sent: RequestKey) {
        self.finished(sent);
    }

    fn finished(&mut self, sent: RequestKey) {
        self.stop_timer(sent);
        if let Some(passing) = self.passing.remove(&sent) {
            self.asked.remove(&passing.from);
        }
    }

    // --- the end of calls ---

    /// Ends a call on both sides.
    ///
    /// ISC-055 (TS 24.229 5.7.5.3, RFC 3326): BYE with a Reason, each under its own next CSeq.
    fn release(&mut self, now: Instant, ua: &mut Ua, id: u64, cause: u16, text: &str) {
        let pending: Vec<RequestKey> = self
            .passing
            .iter()
            .filter(|(_, passing)| passing.call == Some(id) && !passing.answered)
            .map(|(sent, _)| *sent)
            .collect();
        let reason = format!("SIP;cause={cause};text=\"{text}\"");
        for sent in pending {
            let lines = Bytes::from(format!("Reason: {reason}\r\n"));
            if self.passing.get(&sent).is_some_and(|passing| passing.message.to_tag().is_none()) {
                self.wants_cancel(now, ua, sent, lines);
            }
        }
        let Some(mut call) = self.remove(id) else { return };
        if call.method != Method::Invite {
            return;
        }
        let forks = std::mem::take(&mut call.forks);
        for fork in forks.iter().filter(|fork| fork.confirmed) {
            for upwards in [true, false] {
                let (next_hop, head) = call.head_of(fork, upwards);
                let number = if upwards { &mut call.up } else { &mut call.down };
                *number += 1;
                let number = *number;
                // Without room for it the ends find out by themselves.
                let _ = ua.pass(now, next_hop, |via| {
                    let mut writer = head.write(&Method::Bye, via);
                    writer
                        .header("Max-Forwards", "70")
                        .header("CSeq", format!("{number} BYE"))
                        .header("Reason", &reason)
                        .lines(&call.own_lines);
                    writer.finish(None)
                });
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        // The caller may have opened another dialog under the same Call-ID and tag meanwhile.
        let near = (call.call_id.clone(), call.tag.clone());
        if self.near.get(&near) == Some(&id) {
            self.near.remove(&near);
        }
        self.far.remove(&(call.far_call_id.clone(), call.far_tag.clone()));
        if let Some(key) = call.idle {
            self.timers.remove(&key);
        }
        Some(call)
    }

    // --- timers ---

    fn start(&mut self, at: Instant, due: Due) -> (Instant, u64) {
        let key = (at, self.next);
        self.next += 1;
        self.timers.insert(key, due);
        key
    }

    /// The call's life begins anew.
    fn touch(&mut self, now: Instant, id: u64) {
        let Some(call) = self.calls.get(&id) else { return };
        let (at, old) = (now + call.lifetime, call.idle);
        if let Some(old) = old {
            self.timers.remove(&old);
        }
        let key = self.start(at, Due::Idle(id));
        if let Some(call) = self.calls.get_mut(&id) {
            call.idle = Some(key);
        }
    }

    fn await_answer(&mut self, now: Instant, sent: RequestKey) {
        if self.passing.get(&sent).is_some_and(|passing| !passing.cancelled) {
            self.set_timer(sent, now + SILENCE, Due::Silent(sent));
        }
    }

    fn set_timer(&mut self, sent: RequestKey, at: Instant, due: Due) {
        self.stop_timer(sent);
        let key = self.start(at, due);
        if let Some(passing) = self.passing.get_mut(&sent) {
            passing.timer = Some(key);
        }
    }

    fn stop_timer(&mut self, sent: RequestKey) {
        let timer = self.passing.get_mut(&sent).and_then(|passing| passing.timer.take());
        if let Some(key) = timer {
            self.timers.remove(&key);
        }
    }
}

/// The status of a request that cannot pass.
struct Refused(u16);

/// A request that came.
struct Came {
    request: RequestKey,
    message: Message,
    flow: Flow,
}

/// The lines that name a dialog.
struct Head {
    uri: String,
    routes: Vec<Bytes>,
    from: Bytes,
    to: Bytes,
    call_id: Bytes,
}

impl Head {
    fn write(&self, method: &Method, via: &str) -> Writer {
        let mut writer = Writer::request(method, &self.uri);
        writer.header("Via", via);
        for route in &self.routes {
            writer.header("Route", route);
        }
        writer.header("From", &self.from).header("To", &self.to).header("Call-ID", &self.call_id);
        writer
    }
}

impl Call {
    /// A response to the opening request: who speaks, and where he is to be found.
    fn heard(&mut self, response: &Message, most: usize) {
        let Some(tag) = response.to_tag() else { return };
        let confirmed = response.status().is_some_and(|status| status >= 200);
        let mut routes: Vec<Bytes> =
            response.values(Name::RecordRoute).map(Bytes::copy_from_slice).collect();
        routes.reverse();
        let at = self.forks.iter().position(|fork| fork.tag == tag);
        if at.is_none() && self.forks.len() >= most {
            return;
        }
        let at = at.unwrap_or_else(|| {
            self.forks.push(Fork {
                tag: Bytes::copy_from_slice(tag),
                target: self.asked.clone(),
                routes: Vec::new(),
                confirmed: false,
            });
            self.forks.len() - 1
        });
        let fork = &mut self.forks[at];
        fork.confirmed |= confirmed;
        if let Some(contact) = response.contact() {
            contact.uri.clone_into(&mut fork.target);
        }
        if !routes.is_empty() {
            fork.routes = routes;
        }
    }

    /// A request of a callee: who speaks. The first NOTIFY may be earlier than the answer (RFC 6665 §4.4.1).
    fn learn(&mut self, message: &Message, most: usize, method: &Method) -> Result<(), Refused> {
        let tag = message.from_tag().unwrap_or_default();
        if !self.forks.iter().any(|fork| fork.tag == tag) {
            if self.method == Method::Invite || self.forks.len() >= most {
                return Err(Refused(481));
            }
            self.forks.push(Fork {
                tag: Bytes::copy_from_slice(tag),
                target: self.asked.clone(),
                routes: message.values(Name::RecordRoute).map(Bytes::copy_from_slice).collect(),
                confirmed: true,
            });
        }
        if retargets(method) {
            self.moves(message, true);
        }
        Ok(())
    }

    /// A target refresh: from a callee, whose tag says which, or (`callee` false) from the caller.
    fn moves(&mut self, message: &Message, callee: bool) {
        let Some(contact) = message.contact() else { return };
        if !callee {
            contact.uri.clone_into(&mut self.target);
            return;
        }
        let tag = if message.is_request() { message.from_tag() } else { message.to_tag() };
        if let Some(fork) = self.forks.iter_mut().find(|fork| Some(&*fork.tag) == tag) {
            contact.uri.clone_into(&mut fork.target);
        }
    }

    /// Where a request in a dialog goes, and the lines that name the dialog there.
    fn head(&self, message: &Message, upwards: bool) -> Option<(String, Head)> {
        let tag = if upwards { message.to_tag() } else { message.from_tag() };
        let fork = self.forks.iter().find(|fork| Some(&*fork.tag) == tag)?;
        let (uri, routes) = if upwards {
            (fork.target.clone(), fork.routes.clone())
        } else {
            (self.target.clone(), self.routes.clone())
        };
        let (from, to, call_id) = if upwards {
            let to = Bytes::copy_from_slice(message.header(Name::To).unwrap_or_default());
            (self.far_from.clone(), to, self.far_call_id.clone())
        } else {
            let from = Bytes::copy_from_slice(message.header(Name::From).unwrap_or_default());
            (from, self.from.clone(), self.call_id.clone())
        };
        let head = Head { uri, routes, from, to, call_id };
        Some((head.next_hop(), head))
    }

    /// The same for a request of our own.
    fn head_of(&self, fork: &Fork, upwards: bool) -> (String, Head) {
        let callee = Bytes::from([&self.to[..], b";tag=", &fork.tag].concat());
        let head = if upwards {
            Head {
                uri: fork.target.clone(),
                routes: fork.routes.clone(),
                from: self.far_from.clone(),
                to: callee,
                call_id: self.far_call_id.clone(),
            }
        } else {
            Head {
                uri: self.target.clone(),
                routes: self.routes.clone(),
                from: callee,
                to: self.from.clone(),
                call_id: self.call_id.clone(),
            }
        };
        (head.next_hop(), head)
    }
}

impl Head {
    fn next_hop(&self) -> String {
        let top = self.routes.first().and_then(|route| NameAddr::parse(route));
        top.map_or(self.uri.as_str(), |route| route.uri).to_owned()
    }
}

/// ISC-015: one hop less; 483 where none is left.
fn hops(message: &Message) -> Result<u32, Refused> {
    let hops = message.text(Name::MaxForwards).map_or(Ok(70), |text| text.trim().parse::<u32>());
    match hops {
        Ok(0) => Err(Refused(483)),
        Ok(hops) => Ok(hops - 1),
        Err(_) => Err(Refused(400)),
    }
}

fn cseq(message: &Message) -> String {
    let cseq = message.cseq();
    format!("{} {}", cseq.number, cseq.method.as_str())
}

/// The lines we write ourselves; all others pass.
fn is_ours(name: &[u8]) -> bool {
    matches!(
        Name::known(name),
        Some(
            Name::Via
                | Name::Route
                | Name::RecordRoute
                | Name::From
                | Name::To
                | Name::CallId
                | Name::CSeq
                | Name::MaxForwards
                | Name::ContentLength
                | Name::ContentType
        )
    )
}

/// Every line that is not ours, in its order; with `contact` that URI stands in Contact, its parameters as they were.
fn copy(writer: &mut Writer, message: &Message, contact: Option<&str>) {
    for (name, value) in message.all_headers() {
        let Ok(text) = std::str::from_utf8(name) else { continue };
        match (Name::known(name), contact) {
            _ if is_ours(name) => {}
            (Some(Name::Contact), Some(contact)) => {
                let mut line = Vec::with_capacity(value.len() + contact.len());
                for element in Elements::new(value) {
                    if !line.is_empty() {
                        line.extend_from_slice(b", ");
                    }
                    line.extend_from_slice(&with_uri(element, contact));
                }
                writer.header(text, line);
            }
            _ => {
                writer.header(text, value);
            }
        }
    }
}

fn finish(writer: Writer, message: &Message) -> Bytes {
    let kind = message.content_type().unwrap_or("");
    writer.finish(Some((kind, message.body())))
}

/// The response to `passing` as its asker gets it.
fn back(passing: &Passing, response: &Message, contact: Option<&str>) -> Bytes {
    let asked = &passing.message;
    let status = response.status().unwrap_or_default();
    let tag = response.to_tag().and_then(|tag| std::str::from_utf8(tag).ok());
    let mut writer = Writer::response_from(asked, &passing.flow, status, response.reason(), tag);
    let opened = passing.call.is_some() && asked.to_tag().is_none() && status < 300;
    if opened {
        writer.echo(asked, Name::RecordRoute);
    }
    copy(&mut writer, response, contact);
    finish(writer, response)
}

/// An address with another tag, everything else as it is.
fn with_tag(value: &[u8], tag: &str) -> Vec<u8> {
    let Some(address) = NameAddr::parse(value) else {
        return [value, b";tag=", tag.as_bytes()].concat();
    };
    let params = address.params_raw();
    let mut out = address.raw[..address.raw.len() - params.len()].trim_ascii_end().to_vec();
    for param in address.params().filter(|param| !param.is("tag")) {
        out.push(b';');
        out.extend_from_slice(param.name);
        if let Some(value) = param.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out.extend_from_slice(b";tag=");
    out.extend_from_slice(tag.as_bytes());
    out
}

/// An address with another URI, its parameters as they are; `*` and what is no address stay.
fn with_uri(value: &[u8], uri: &str) -> Vec<u8> {
    match NameAddr::parse(value) {
        Some(address) => [b"<", uri.as_bytes(), b">", address.params_raw()].concat(),
        None => value.to_vec(),
    }
}

fn expires(message: &Message) -> Option<Duration> {
    let seconds: u64 = message.text(Name::Expires)?.trim().parse().ok()?;
    // Longer than any subscription is meant.
    Some(Duration::from_secs(seconds.min(7 * 86_400) + 64))
}

fn lifetime(house: &House, message: &Message, method: &Method) -> Duration {
    match method {
        Method::Invite => house.settings.isc.relay_lifetime,
        _ => expires(message).unwrap_or(SUBSCRIPTION),
    }
}
