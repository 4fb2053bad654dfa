//! A phone sends a page: INVITE with a list or to a group, the page over MSRP, BYE.
//!
//! Start at [`page`]: one call from its INVITE to its end, told in its order.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::auth::{Field, Keyring};
use super::call::{ALLOW, CSeqOf, Dialog, FEATURE, PRODUCT, Repeat};
use super::media::{self, Held, Media, Outgoing, SentPage};
use super::phone::{GiveUp, PageOutcome, PageRequest, Reads, Recipients, WayOut, Who};
use super::registration::charging;
use super::tls::Identity;
use super::wire::{Arrived, Way, Wire};
use super::{Complaints, sdp, token};
use crate::content::multipart;
use crate::content::xml::escape;
use crate::content::{cpim, msrp_uri::MsrpUri};
use crate::sip::message::{Message, Method, Name, Writer};

/// Everything a call needs of its phone.
pub(super) struct Caller<'a> {
    pub(super) who: &'a Who,
    pub(super) wire: &'a Wire,
    pub(super) media: &'a Media,
    pub(super) complaints: &'a Complaints,
    pub(super) inbox: &'a mut mpsc::Receiver<Arrived>,
    pub(super) call_id: String,
}

/// The page as it goes out: the content in its envelope.
struct Page {
    body: Bytes,
    sdp: String,
}

/// Sends one page.
pub(super) async fn page(caller: Caller<'_>, request: &PageRequest) -> PageOutcome {
    let began = Instant::now();
    let held = caller.media.session(Reads::AtOnce, caller.media.identity().is_some());
    let page = envelope(&caller, request, held.session.uri());
    let local_tag = token(6);
    let way_out = caller.who.way_out().await;
    let mut call = Call {
        dialog: Dialog {
            wire: caller.wire.clone(),
            complaints: caller.complaints.clone(),
            call_id: caller.call_id.clone(),
            local: format!("{};tag={local_tag}", caller.who.name_addr()),
            local_tag,
            remote: format!("<{}>", request.request_uri()),
            remote_tag: None,
            target: request.request_uri().to_owned(),
            route: Vec::new(),
            contact: caller.who.contact.clone(),
            cseq: 1,
            last: None,
            core: caller.who.core,
            unproxied: caller.who.unproxied,
        },
        way_out,
        keyring: Keyring::new(caller.who.auth.clone()),
        credentials: None,
        invite_cseq: 1,
        branch: format!("z9hG4bK{}", token(8)),
        outcome: PageOutcome::default(),
        began,
        rseq: None,
        pracks: Vec::new(),
        ack: None,
        caller,
        sdp: page.sdp.clone(),
    };
    if let Some(answer) = call.invite(request, &page).await {
        call.transfer(request, &page, held, &answer).await;
    }
    call.outcome.took = began.elapsed();
    call.outcome
}

struct Call<'a> {
    caller: Caller<'a>,
    dialog: Dialog,
    way_out: WayOut,
    keyring: Keyring,
    /// Credentials of the INVITE, for its ACK too (RFC 3261 §22.1).
    credentials: Option<Field>,
    invite_cseq: u32,
    /// Branch of the INVITE, and so of its CANCEL and the ACK to a refusal.
    branch: String,
    outcome: PageOutcome,
    began: Instant,
    rseq: Option<u32>,
    /// PRACKs without an answer, by CSeq.
    pracks: Vec<(u32, Repeat)>,
    /// The ACK to the 2xx, for every repetition of it.
    ack: Option<Bytes>,
    sdp: String,
}

impl Call<'_> {
    /// INVITE to its final answer; once more with credentials where they are asked for. `Some` is a 2xx, acknowledged.
    async fn invite(&mut self, request: &PageRequest, page: &Page) -> Option<Message> {
        self.send_invite(request, page);
        let answer = self.final_answer(request).await?;
        if !matches!(answer.status(), Some(401 | 407)) {
            return Some(answer);
        }
        if let Err(why) = self.keyring.challenged(&answer) {
            self.outcome.problem = Some(why);
            return None;
        }
        self.credentials = self.keyring.field("INVITE", request.request_uri());
        self.dialog.cseq += 1;
        self.invite_cseq = self.dialog.cseq;
        self.branch = format!("z9hG4bK{}", token(8));
        self.outcome.status = None;
        self.send_invite(request, page);
        self.final_answer(request).await
    }

    fn send_invite(&mut self, request: &PageRequest, page: &Page) {
        let to = self.dialog.remote.clone();
        let mut out = self.begin(&Method::Invite, request.request_uri(), to.as_bytes());
        let who = self.caller.who;
        out.header("Contact", format!("<{}>;{FEATURE}", who.contact));
        if who.visited.is_some() {
            // As a P-CSCF does it (TS 24.229 5.2.6.3).
            out.header("P-Asserted-Identity", who.name_addr());
            out.header("P-Charging-Vector", charging(self.dialog.wire.address()));
        } else {
            out.header("P-Preferred-Identity", who.name_addr());
        }
        if let Some((name, value)) = &self.credentials {
            out.header(name, value);
        }
        out.header("Accept-Contact", format!("*;{FEATURE}"));
        out.header("User-Agent", PRODUCT).header("Supported", "100rel, timer");
        out.header("Session-Expires", "1800").header("Min-SE", "90");
        out.header("Allow", ALLOW).header("Accept", "application/sdp, message/sipfrag");
        if let Some(subject) = &request.subject {
            out.header("Subject", subject);
        }
        if let Some(privacy) = &request.privacy {
            out.header("Privacy", privacy);
        }
        let bytes = match &request.to {
            Recipients::List { entries, .. } => {
                out.header("Require", "recipient-list-invite");
                let sdp_head = [("Content-Type", "application/sdp")];
                let list_head = [
                    ("Content-Type", "application/resource-lists+xml"),
                    ("Content-Disposition", "recipient-list"),
                ];
                let list = resource_list(entries);
                let (kind, body) = multipart::write(&[
                    (&sdp_head, page.sdp.as_bytes()),
                    (&list_head, list.as_bytes()),
                ]);
                out.finish(Some((&kind, &body)))
            }
            Recipients::Group(_) | Recipients::User(_) => {
                out.finish(Some(("application/sdp", page.sdp.as_bytes())))
            }
        };
        let repeat = Repeat::start(&self.dialog.wire, Way::Udp(self.way_out.hop), bytes);
        self.pracks.push((self.invite_cseq, repeat));
    }

    /// The head of the INVITE, its CANCEL, or the ACK to its refusal.
    fn begin(&self, method: &Method, uri: &str, to: &[u8]) -> Writer {
        let dialog = &self.dialog;
        let mut out = Writer::request(method, uri);
        out.via(&dialog.wire.address().to_string(), &self.branch);
        out.header("Max-Forwards", "70");
        for route in &self.way_out.route {
            out.header("Route", route);
        }
        out.header("From", &dialog.local).header("To", to);
        out.header("Call-ID", &dialog.call_id);
        out.header("CSeq", format!("{} {}", self.invite_cseq, method.as_str()));
        out
    }

    /// Waits for the final answer to the INVITE; `Some` is a 2xx, acknowledged, or a challenge we may answer.
    async fn final_answer(&mut self, request: &PageRequest) -> Option<Message> {
        let mut cancel_at = match request.give_up {
            Some(GiveUp::Cancel { after }) => Some(self.began + after),
            _ => None,
        };
        let mut cancel = None;
        let until = self.began + request.patience;
        loop {
            let next = cancel_at.unwrap_or(until).min(until);
            let Ok(arrived) = timeout_at(next, self.caller.inbox.recv()).await else {
                if cancel_at.take().is_some() && Instant::now() < until {
                    let to = format!("<{}>", request.request_uri());
                    let bytes = self
                        .begin(&Method::Cancel, request.request_uri(), to.as_bytes())
                        .finish(None);
                    cancel =
                        Some(Repeat::start(&self.dialog.wire, Way::Udp(self.way_out.hop), bytes));
                    continue;
                }
                self.outcome.problem = Some("no final answer".to_owned());
                return None;
            };
            let arrived = arrived?;
            let Ok(message) = arrived.message else {
                continue;
            };
            if message.is_request() {
                self.on_request(&message, arrived.way).await;
                continue;
            }
            let status = message.status().unwrap_or(0);
            match CSeqOf::of(&message) {
                CSeqOf { method: Method::Cancel, .. } if status >= 200 => drop(cancel.take()),
                CSeqOf { method: Method::Prack, number } if status >= 200 => {
                    self.on_prack_answer(number, status);
                }
                // The answer to an INVITE without credentials, once more.
                CSeqOf { method: Method::Invite, number } if number != self.invite_cseq => {}
                CSeqOf { method: Method::Invite, .. } if status < 200 => {
                    self.on_provisional(&message, status).await;
                }
                CSeqOf { method: Method::Invite, .. } => {
                    return self.on_final(&message, status, request).await;
                }
                _ => {}
            }
        }
    }

    fn on_prack_answer(&mut self, number: u32, status: u16) {
        self.pracks.retain(|(cseq, _)| *cseq != number);
        self.dialog.complaints.check(status < 300, || format!("phone: {status} to our PRACK"));
    }

    async fn on_provisional(&mut self, message: &Message, status: u16) {
        self.pracks.retain(|(cseq, _)| *cseq != self.invite_cseq);
        if status == 100 {
            self.outcome.trying = true;
            return;
        }
        let complaints = self.dialog.complaints.clone();
        complaints.check(message.to_tag().is_some(), || format!("phone: no To-tag in {message:?}"));
        if !message.has_token(Name::Require, "100rel") {
            self.outcome.provisional.push((self.began.elapsed(), status));
            return;
        }
        let rseq = message.text(Name::RSeq).and_then(|rseq| rseq.trim().parse::<u32>().ok());
        let Some(rseq) = rseq else {
            return complaints.add(format!("phone: reliable {message:?} without RSeq"));
        };
        if self.rseq.is_some_and(|last| rseq <= last) {
            return; // repeated
        }
        complaints.check(self.rseq.is_none_or(|last| rseq == last + 1), || {
            format!("phone: RSeq {rseq} after {:?}", self.rseq)
        });
        self.rseq = Some(rseq);
        self.outcome.provisional.push((self.began.elapsed(), status));
        self.dialog.learn(message);
        if self.caller.who.no_prack {
            return;
        }
        let rack = format!("{rseq} {} INVITE", self.invite_cseq);
        let prack = self.dialog.request(&Method::Prack, &[("RAck", rack)]);
        let repeat = Repeat::start(&self.dialog.wire, self.dialog.next_hop().await, prack);
        self.pracks.push((self.dialog.cseq, repeat));
    }

    async fn on_final(
        &mut self,
        message: &Message,
        status: u16,
        request: &PageRequest,
    ) -> Option<Message> {
        self.pracks.retain(|(cseq, _)| *cseq != self.invite_cseq);
        self.outcome.status = Some(status);
        message.reason().clone_into(&mut self.outcome.reason);
        self.outcome.warning = message.text(Name::Warning).map(str::to_owned);
        self.outcome.retry_after = message.text(Name::RetryAfter).map(str::to_owned);
        self.outcome.answered = Some(self.began.elapsed());
        let complaints = self.dialog.complaints.clone();
        complaints.check(message.to_tag().is_some(), || format!("phone: no To-tag in {message:?}"));
        complaints.check(message.from_tag() == Some(self.dialog.local_tag.as_bytes()), || {
            format!("phone: our From-tag is not in {message:?}")
        });
        if status >= 300 {
            // The To of the answer, tag and all (RFC 3261 §17.1.1.3).
            let ack = self.begin(&Method::Ack, request.request_uri(), message.to().raw);
            self.dialog.wire.send(Way::Udp(self.way_out.hop), ack.finish(None)).await;
            let asked = matches!(status, 401 | 407) && self.credentials.is_none();
            return (asked && self.caller.who.auth.is_some()).then(|| message.clone());
        }
        self.dialog.learn(message);
        let credentials = self.credentials.clone();
        let ack = self.dialog.request_as(&Method::Ack, self.invite_cseq, credentials.as_slice());
        if self.caller.who.no_ack {
            return Some(message.clone());
        }
        self.dialog.wire.send(self.dialog.next_hop().await, ack.clone()).await;
        self.ack = Some(ack);
        Some(message.clone())
    }

    /// Connects as the answer says, sends the page, says goodbye.
    async fn transfer(
        &mut self,
        request: &PageRequest,
        page: &Page,
        mut held: Held,
        answer: &Message,
    ) {
        let session = match check_answer(answer) {
            Ok(session) => session,
            Err(what) => {
                self.dialog.complaints.add(format!("phone: the answer: {what}"));
                self.outcome.problem = Some(what);
                return self.hang_up().await;
            }
        };
        held.session.set_peer(&session.path, &session.fingerprints);
        let connection = match self.caller.media.connect(&held.session).await {
            Ok(connection) => connection,
            Err(error) => {
                self.outcome.problem = Some(format!("MSRP: {error}"));
                return self.hang_up().await;
            }
        };
        let (give_up_after, kill_after) = match request.give_up {
            Some(GiveUp::Abort { after_octets }) => (Some(after_octets), None),
            Some(GiveUp::Kill { after_octets }) => (None, Some(after_octets)),
            _ => (None, None),
        };
        let outgoing = Outgoing {
            content_type: "message/cpim",
            body: &page.body,
            chunk: request.chunk,
            success_report: request.success_report,
            give_up_after,
            kill_after,
            patience: request.patience,
        };
        let mut ended = false;
        let mut sent = SentPage::default();
        {
            let sending = media::send(&connection, &mut held, &outgoing, &mut sent);
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    () = &mut sending => break,
                    Some(arrived) = self.caller.inbox.recv() => {
                        if self.on_arrived(arrived).await {
                            ended = true;
                            break;
                        }
                    }
                }
            }
        }
        // MS-073: one REPORT for all of it.
        let octets = page.body.len() as u64;
        let covered = sent.report != Some(200) || sent.reported == octets;
        self.dialog
            .complaints
            .check(covered, || format!("phone: REPORTs over {} of {octets} octets", sent.reported));
        self.outcome.sent = sent.sent;
        self.outcome.acknowledged = sent.acknowledged;
        self.outcome.report = sent.report;
        self.outcome.refused = sent.refused;
        self.outcome.whole = sent.acknowledged == octets;
        self.outcome.octets = octets;
        self.outcome.transferred = Some(self.began.elapsed());
        if ended {
            return;
        }
        if kill_after.is_some() || self.outcome.refused.is_some() || request.waits_for_bye {
            self.wait_for_bye(request.patience).await;
        } else {
            self.hang_up().await;
        }
        drop(held);
    }

    async fn wait_for_bye(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        while let Ok(Some(arrived)) = timeout_at(until, self.caller.inbox.recv()).await {
            if self.on_arrived(arrived).await {
                return;
            }
        }
        self.hang_up().await;
    }

    /// BYE and its answer.
    async fn hang_up(&mut self) {
        let repeat = self.dialog.bye().await;
        let number = self.dialog.cseq;
        let farewell = self.caller.who.farewell;
        let answered = async {
            while let Some(arrived) = self.caller.inbox.recv().await {
                if let Ok(message) = &arrived.message
                    && !message.is_request()
                {
                    let cseq = CSeqOf::of(message);
                    if cseq.method == Method::Bye && cseq.number == number {
                        return message.status();
                    }
                }
                if self.on_arrived(arrived).await {
                    return Some(200); // both said BYE
                }
            }
            None
        };
        let status = timeout(farewell, answered).await.ok().flatten();
        drop(repeat);
        self.dialog
            .complaints
            .check(status == Some(200), || format!("phone: our BYE was answered {status:?}"));
    }

    /// What comes in a running call. True when it is over.
    async fn on_arrived(&mut self, arrived: Arrived) -> bool {
        let Ok(message) = arrived.message else {
            return false;
        };
        if message.is_request() {
            return self.on_request(&message, arrived.way).await;
        }
        let cseq = CSeqOf::of(&message);
        let status = message.status().unwrap_or(0);
        match cseq.method {
            // Every 2xx has its ACK, repeated ones too (RFC 3261 §13.2.2.4).
            Method::Invite if (200..300).contains(&status) => {
                if let Some(ack) = &self.ack {
                    self.dialog.wire.send(self.dialog.next_hop().await, ack.clone()).await;
                }
            }
            Method::Prack if status >= 200 => self.on_prack_answer(cseq.number, status),
            _ => {}
        }
        false
    }

    async fn on_request(&mut self, request: &Message, way: Way) -> bool {
        if !self.dialog.admits(request, way).await {
            return false;
        }
        match CSeqOf::of(request).method {
            Method::Bye => {
                self.outcome.bye = Some(self.began.elapsed());
                self.outcome.bye_reason = request.text(Name::Reason).map(str::to_owned);
                self.dialog.answer(request, way, 200, &[]).await;
                true
            }
            Method::Update | Method::Invite => {
                let sdp = self.sdp.clone();
                self.dialog.refresh(request, way, &sdp).await;
                false
            }
            Method::Ack => false,
            Method::Options => {
                self.dialog.answer(request, way, 200, &[("Allow", ALLOW.to_owned())]).await;
                false
            }
            _ => {
                self.dialog.answer(request, way, 405, &[("Allow", ALLOW.to_owned())]).await;
                false
            }
        }
    }
}

/// What an answer to our offer has to be (RFC 6135 §4.2, RFC 4975 §8).
fn check_answer(answer: &Message) -> Result<sdp::Session, String> {
    if answer.content_type().map(|kind| kind.trim()) != Some("application/sdp") {
        return Err(format!("Content-Type {:?}", answer.content_type()));
    }
    let session = sdp::read(answer.body())?;
    if session.port == 0 {
        return Err("port 0 in a 200".to_owned());
    }
    if !matches!(session.setup.as_deref(), Some("passive") | None) {
        return Err(format!("setup {:?} to our active", session.setup));
    }
    if session.direction != "recvonly" {
        return Err(format!("{} to our sendonly", session.direction));
    }
    let path = MsrpUri::parse_path(&session.path).map_err(|bad| bad.to_string())?;
    match path.first().and_then(MsrpUri::port) {
        Some(port) if port == session.port => Ok(session),
        _ => Err("the path's port is not that of the m line".to_owned()),
    }
}

/// The CPIM envelope, and the offer for it.
fn envelope(caller: &Caller, request: &PageRequest, uri: &str) -> Page {
    let who = caller.who;
    let to = format!("<{}>", request.request_uri());
    let from = who.name_addr();
    let now = date_time();
    let ns = "imdn <urn:ietf:params:imdn>".to_owned();
    let id = token(8);
    let headers =
        [("From", &from), ("To", &to), ("DateTime", &now), ("NS", &ns), ("imdn.Message-ID", &id)]
            .map(|(name, value)| (name, value.as_str()));
    let body = cpim::write(&headers, &request.content_type, &request.body);
    let name = match &request.file_name {
        Some(name) => format!("name:\"{}\" ", name.replace(['"', '\\', '\r', '\n'], "_")),
        None => String::new(),
    };
    let more = format!("a=file-selector:{name}type:message/cpim size:{}\r\n", body.len());
    let print = caller.media.identity().map(Identity::fingerprint);
    let sdp = sdp::write(&sdp::Own {
        address: caller.media.address(),
        path: uri,
        setup: "active",
        direction: "sendonly",
        accept_types: "message/cpim",
        accept_wrapped: &format!("{} message/imdn+xml", essence(&request.content_type)),
        fingerprint: print.as_deref(),
        more: &more,
    });
    Page { body, sdp }
}

fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or("").trim()
}

fn resource_list(entries: &[String]) -> String {
    let mut list = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n\
         <resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\" \
         xmlns:cp=\"urn:ietf:params:xml:ns:copycontrol\">\r\n<list>\r\n",
    );
    for uri in entries {
        list.push_str(&format!("<entry uri=\"{}\" cp:copyControl=\"to\"/>\r\n", escape(uri)));
    }
    list.push_str("</list>\r\n</resource-lists>\r\n");
    list
}

/// Now, as CPIM wants it (RFC 3862 §3.3).
fn date_time() -> String {
    use time::format_description::well_known::Rfc3339;
    let now = time::OffsetDateTime::now_utc();
    now.format(&Rfc3339).unwrap_or_else(|_| "1970-01-01T00:00:00Z".to_owned())
}
