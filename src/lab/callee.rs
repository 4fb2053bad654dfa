//! A phone is paged: it answers an INVITE as its behaviour says and takes the page.
//!
//! Start at [`answer`]: one call from its INVITE to its end.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::call::{ALLOW, CSeqOf, Dialog, FEATURE, PRODUCT, Repeat, TIMEOUT, record_route};
use super::media::{self, Connection, Got, Held, Media, Told};
use super::phone::{Answer, Behaviour, Ended, Provisional, Received, Setup, Who};
use super::tls::Identity;
use super::wire::{Arrived, Way, Wire};
use super::{Complaints, sdp, token};
use crate::content::msrp_uri::MsrpUri;
use crate::content::multipart;
use crate::sip::message::{Message, Method, Name, Writer, reason_phrase};

/// A recipient's call ends on its own after this long, whatever the peer does.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long an ACK may come behind the BYE that was sent after it.
const OVERTAKEN: Duration = Duration::from_secs(2);

/// Everything a call needs of its phone.
pub(super) struct Callee<'a> {
    pub(super) who: &'a Who,
    pub(super) behaviour: &'a Behaviour,
    pub(super) wire: &'a Wire,
    pub(super) media: &'a Media,
    pub(super) complaints: &'a Complaints,
    pub(super) inbox: &'a mut mpsc::Receiver<Arrived>,
}

/// What an INVITE offers, as far as it is in order.
struct Offer {
    session: sdp::Session,
    /// The list of the other recipients.
    history: Option<String>,
}

/// Answers one INVITE; what came of it.
pub(super) async fn answer(callee: Callee<'_>, invite: &Message, way: Way) -> Received {
    let began = Instant::now();
    let local_tag = token(6);
    let mut route = record_route(invite);
    callee.complaints.check(!route.is_empty() || callee.who.unproxied, || {
        format!("phone: {invite:?} without the core's Record-Route")
    });
    route.shrink_to_fit();
    let target = match invite.contact() {
        Some(contact) => contact.uri.to_owned(),
        None => {
            callee.complaints.add(format!("phone: no Contact in {invite:?}"));
            String::new()
        }
    };
    let dialog = Dialog {
        wire: callee.wire.clone(),
        complaints: callee.complaints.clone(),
        call_id: String::from_utf8_lossy(invite.call_id()).into_owned(),
        local: format!("{};tag={local_tag}", String::from_utf8_lossy(invite.to().raw)),
        local_tag,
        remote: String::from_utf8_lossy(invite.from().raw).into_owned(),
        remote_tag: invite.from_tag().map(<[u8]>::to_vec),
        target,
        route,
        contact: callee.who.contact.clone(),
        cseq: 0,
        last: None,
        core: callee.who.core,
        unproxied: callee.who.unproxied,
    };
    let mut received = Received::of(&callee.who.aor, invite);
    check_server(&callee, invite);
    let offer = match read_offer(invite) {
        Ok(offer) => Some(offer),
        Err(what) => {
            callee.complaints.add(format!("phone: the offer in {invite:?}: {what}"));
            None
        }
    };
    received.history = offer.as_ref().and_then(|offer| offer.history.clone());
    let secure = offer.as_ref().is_some_and(|offer| offer.session.secure);
    let held = callee.media.session(callee.behaviour.reads, secure);
    let mut call = Call {
        callee,
        dialog,
        invite: invite.clone(),
        way,
        held,
        began,
        received,
        connection: None,
        answered: None,
        sdp: String::new(),
    };
    call.run(offer).await;
    call.received.took = began.elapsed();
    call.received
}

struct Call<'a> {
    callee: Callee<'a>,
    dialog: Dialog,
    invite: Message,
    way: Way,
    held: Held,
    began: Instant,
    received: Received,
    connection: Option<Connection>,
    /// The 2xx, repeated until its ACK.
    answered: Option<Repeat>,
    sdp: String,
}

/// The call is over.
struct Over;

impl Call<'_> {
    async fn run(&mut self, offer: Option<Offer>) {
        self.send_response(100, &[], None).await;
        let speaks_tls = self.callee.media.identity().is_some();
        let Some(offer) = offer.filter(|offer| speaks_tls || !offer.session.secure) else {
            return self.refuse(488).await;
        };
        let behaviour = self.callee.behaviour.clone();
        if self.provisional(behaviour.provisional).await.is_err() {
            return;
        }
        if let Err(Over) = self.wait(behaviour.after).await {
            return;
        }
        match behaviour.answer {
            Answer::Refuse { status } => self.refuse(status).await,
            Answer::Never => {
                // Until somebody cancels.
                if self.wait(LONGEST).await.is_ok() {
                    self.received.ended = Ended::Silence;
                }
            }
            Answer::Unusable => {
                self.accept(&offer, true).await;
                self.serve().await;
            }
            Answer::Accept => {
                self.accept(&offer, false).await;
                self.serve().await;
            }
        }
    }

    /// A provisional response; a reliable one waits for its PRACK.
    async fn provisional(&mut self, which: Provisional) -> Result<(), Over> {
        let contact = self.contact();
        match which {
            Provisional::None => Ok(()),
            Provisional::Ringing => {
                self.send_response(180, &[("Contact", contact)], None).await;
                Ok(())
            }
            Provisional::Progress => {
                self.send_response(183, &[("Contact", contact)], None).await;
                Ok(())
            }
            Provisional::Reliable => {
                let rseq: u32 = 4711;
                let more = [
                    ("Contact", contact),
                    ("Require", "100rel".to_owned()),
                    ("RSeq", rseq.to_string()),
                    ("Allow", ALLOW.to_owned()),
                ];
                let bytes = self.response(183, &more, None);
                let repeat = Repeat::start(&self.dialog.wire, self.way, bytes);
                let outcome = self.prack(rseq).await;
                drop(repeat);
                outcome
            }
        }
    }

    async fn prack(&mut self, rseq: u32) -> Result<(), Over> {
        let until = Instant::now() + TIMEOUT;
        while let Ok(Some(arrived)) = timeout_at(until, self.callee.inbox.recv()).await {
            let Ok(message) = &arrived.message else {
                continue;
            };
            if message.is_request() && CSeqOf::of(message).method == Method::Prack {
                if !self.dialog.admits(message, arrived.way).await {
                    continue;
                }
                let invite = CSeqOf::of(&self.invite).number;
                let right = format!("{rseq} {invite} INVITE");
                let rack = message.text(Name::RAck).unwrap_or("").trim().to_owned();
                let fits = rack == right;
                self.dialog
                    .complaints
                    .check(fits, || format!("phone: RAck {rack} where {right} is right"));
                let status = if fits { 200 } else { 481 };
                self.dialog.answer(message, arrived.way, status, &[]).await;
                if fits {
                    return Ok(());
                }
                continue;
            }
            self.on_arrived(arrived).await?;
        }
        self.dialog.complaints.add("phone: no PRACK for a reliable 183");
        self.refuse(504).await;
        Err(Over)
    }

    /// Lets time pass before the final answer.
    async fn wait(&mut self, time: Duration) -> Result<(), Over> {
        let until = Instant::now() + time;
        while let Ok(Some(arrived)) = timeout_at(until, self.callee.inbox.recv()).await {
            self.on_arrived(arrived).await?;
        }
        Ok(())
    }

    async fn refuse(&mut self, status: u16) {
        let bytes = self.response(status, &[], None);
        let repeat = Repeat::start(&self.dialog.wire, self.way, bytes);
        self.received.ended = Ended::Refused(status);
        let until = Instant::now() + TIMEOUT;
        while let Ok(Some(arrived)) = timeout_at(until, self.callee.inbox.recv()).await {
            let Ok(message) = &arrived.message else {
                continue;
            };
            if CSeqOf::of(message).method == Method::Ack && message.is_request() {
                self.check_ack(message, true);
                drop(repeat);
                return;
            }
        }
        self.dialog.complaints.add(format!("phone: no ACK for our {status}"));
    }

    async fn accept(&mut self, offer: &Offer, unusable: bool) {
        let behaviour = self.callee.behaviour;
        let setup = match (behaviour.setup, offer.session.setup.as_deref()) {
            // Whoever is active already leaves us no choice (RFC 4145 §4.1).
            (_, Some("active")) => "passive",
            (Setup::Active, _) => "active",
            (Setup::Passive, _) => "passive",
        };
        self.held.session.set_peer(&offer.session.path, &offer.session.fingerprints);
        let more = behaviour.max_size.map(|size| format!("a=max-size:{size}\r\n"));
        let identity = self.callee.media.identity().filter(|_| offer.session.secure);
        let print = identity.map(Identity::fingerprint);
        let own = sdp::Own {
            address: self.callee.media.address(),
            path: self.held.session.uri(),
            setup,
            direction: "recvonly",
            accept_types: &behaviour.accept_types,
            accept_wrapped: &behaviour.accept_wrapped,
            fingerprint: print.as_deref(),
            more: more.as_deref().unwrap_or(""),
        };
        self.sdp = sdp::write(&own);
        if unusable {
            let at =
                format!("m=message {} ", if setup == "active" { 9 } else { own.address.port() });
            self.sdp = self.sdp.replace(&at, "m=message 0 ");
        }
        let mut headers = vec![
            ("Contact", self.contact()),
            ("Allow", ALLOW.to_owned()),
            ("Supported", "100rel, timer".to_owned()),
        ];
        if let Some(expires) = self.invite.text(Name::SessionExpires) {
            // RFC 4028 §9: the caller refreshes.
            let seconds = expires.split(';').next().unwrap_or(expires).trim();
            headers.push(("Session-Expires", format!("{seconds};refresher=uac")));
            headers.push(("Require", "timer".to_owned()));
        }
        let bytes = self.response(200, &headers, Some(&self.sdp));
        self.answered = Some(Repeat::start(&self.dialog.wire, self.way, bytes));
        self.received.answered = Some(self.began.elapsed());
        if setup == "active" && !unusable {
            match self.callee.media.connect(&self.held.session).await {
                Ok(connection) => {
                    media::bind(&connection, &self.held.session).await;
                    self.connection = Some(connection);
                }
                Err(error) => self.dialog.complaints.add(format!("phone: MSRP: {error}")),
            }
        }
    }

    /// The running call: SIP and MSRP as they come.
    async fn serve(&mut self) {
        let until = Instant::now() + LONGEST;
        let hang_up_after = self.callee.behaviour.hangs_up_after_page;
        loop {
            tokio::select! {
                arrived = self.callee.inbox.recv() => match arrived {
                    Some(arrived) => if self.on_arrived(arrived).await.is_err() {
                        break;
                    },
                    None => break,
                },
                Some(told) = self.held.told.recv() => {
                    let whole = matches!(told, Told::Message(_));
                    self.on_told(told);
                    if whole && hang_up_after {
                        return self.hang_up().await;
                    }
                }
                () = tokio::time::sleep_until(until) => break,
            }
        }
        // What was read before the BYE counts.
        while let Ok(told) = self.held.told.try_recv() {
            self.on_told(told);
        }
    }

    fn on_told(&mut self, told: Told) {
        match told {
            Told::Message(got) => self.received.take(got, self.began.elapsed()),
            Told::GivenUp { octets } => {
                self.received.aborted = true;
                self.received.octets = octets;
            }
            // What came so far, if nothing more can come.
            Told::Lost if !self.received.whole => self.received.octets = self.held.session.octets(),
            Told::Bound | Told::Lost | Told::Response { .. } | Told::Report { .. } => {}
        }
    }

    async fn on_arrived(&mut self, arrived: Arrived) -> Result<(), Over> {
        let (Ok(message), way) = (arrived.message, arrived.way) else {
            return Ok(());
        };
        if !message.is_request() {
            return Ok(());
        }
        match CSeqOf::of(&message).method {
            Method::Invite if message.to_tag().is_none() => Ok(()), // repeated: our answer repeats itself
            Method::Cancel => self.on_cancel(&message, way).await,
            Method::Ack => {
                if self.answered.take().is_some() {
                    self.check_ack(&message, false);
                }
                Ok(())
            }
            method => {
                if !self.dialog.admits(&message, way).await {
                    return Ok(());
                }
                match method {
                    Method::Bye => {
                        self.received.ended = Ended::Bye;
                        self.received.bye_reason = message.text(Name::Reason).map(str::to_owned);
                        self.dialog.answer(&message, way, 200, &[]).await;
                        self.overtaken_ack().await;
                        Err(Over)
                    }
                    Method::Update | Method::Invite => {
                        let sdp = self.sdp.clone();
                        self.dialog.refresh(&message, way, &sdp).await;
                        Ok(())
                    }
                    Method::Options => {
                        self.dialog
                            .answer(&message, way, 200, &[("Allow", ALLOW.to_owned())])
                            .await;
                        Ok(())
                    }
                    Method::Prack => {
                        self.dialog.complaints.add("phone: a PRACK for nothing");
                        self.dialog.answer(&message, way, 481, &[]).await;
                        Ok(())
                    }
                    _ => {
                        self.dialog
                            .answer(&message, way, 405, &[("Allow", ALLOW.to_owned())])
                            .await;
                        Ok(())
                    }
                }
            }
        }
    }

    /// Waits for an ACK the BYE has overtaken.
    ///
    /// Both are transactions of their own, and proxies with several processes or UDP between do not keep their order. One
    /// that never comes is the caller's mistake.
    async fn overtaken_ack(&mut self) {
        let until = Instant::now() + OVERTAKEN;
        while self.answered.is_some() {
            let Ok(Some(arrived)) = timeout_at(until, self.callee.inbox.recv()).await else {
                self.dialog.complaints.add("phone: BYE, and no ACK before or after it");
                return;
            };
            let Ok(message) = &arrived.message else {
                continue;
            };
            if !message.is_request() {
                continue;
            }
            match CSeqOf::of(message).method {
                Method::Ack => {
                    self.answered = None;
                    self.check_ack(message, false);
                }
                // A repeated BYE is answered again.
                Method::Bye => {
                    self.dialog.admits(message, arrived.way).await;
                }
                _ => {}
            }
        }
    }

    /// RFC 3261 §9: same Request-URI, branch, CSeq number and tags as the INVITE.
    async fn on_cancel(&mut self, cancel: &Message, way: Way) -> Result<(), Over> {
        let complaints = self.dialog.complaints.clone();
        let invite = &self.invite;
        complaints.check(cancel.uri() == invite.uri(), || {
            format!("phone: CANCEL for {} of an INVITE for {}", cancel.uri(), invite.uri())
        });
        complaints.check(cancel.via().branch == invite.via().branch, || {
            "phone: CANCEL with another branch than its INVITE".to_owned()
        });
        complaints.check(CSeqOf::of(cancel).number == CSeqOf::of(invite).number, || {
            "phone: CANCEL with another CSeq number than its INVITE".to_owned()
        });
        complaints
            .check(cancel.from_tag() == invite.from_tag() && cancel.to_tag().is_none(), || {
                "phone: CANCEL with other tags than its INVITE".to_owned()
            });
        let out = Writer::response(cancel, 200, "OK", Some(&self.dialog.local_tag)).finish(None);
        self.dialog.wire.send(way, out).await;
        if self.answered.is_some() || self.received.answered.is_some() {
            return Ok(());
        }
        self.received.cancelled = true;
        self.refuse(487).await;
        Err(Over)
    }

    /// The ACK to a refusal is part of the INVITE's transaction, that to a 2xx is not (RFC 3261 §17.1.1.3, §13.2.2.4).
    fn check_ack(&self, ack: &Message, refusal: bool) {
        let complaints = &self.dialog.complaints;
        let same = ack.via().branch == self.invite.via().branch;
        complaints.check(same == refusal, || {
            format!("phone: the branch of the ACK, refusal {refusal}, same {same}")
        });
        complaints.check(ack.to_tag() == Some(self.dialog.local_tag.as_bytes()), || {
            "phone: the ACK has another To-tag than our answer".to_owned()
        });
        complaints.check(CSeqOf::of(ack).number == CSeqOf::of(&self.invite).number, || {
            "phone: the ACK has another CSeq number than its INVITE".to_owned()
        });
    }

    async fn hang_up(&mut self) {
        let repeat = self.dialog.bye().await;
        self.received.ended = Ended::HungUp;
        let until = Instant::now() + self.callee.who.farewell;
        while let Ok(Some(arrived)) = timeout_at(until, self.callee.inbox.recv()).await {
            if let Ok(message) = &arrived.message
                && !message.is_request()
                && CSeqOf::of(message).method == Method::Bye
            {
                let status = message.status();
                self.dialog.complaints.check(status == Some(200), || {
                    format!("phone: our BYE was answered {status:?}")
                });
                drop(repeat);
                return;
            }
            if self.on_arrived(arrived).await.is_err() {
                return;
            }
        }
        self.dialog.complaints.add("phone: no answer to our BYE");
    }

    fn contact(&self) -> String {
        format!("<{}>;{FEATURE}", self.callee.who.contact)
    }

    fn response(&self, status: u16, more: &[(&str, String)], body: Option<&str>) -> Bytes {
        let tag = (status > 100).then_some(self.dialog.local_tag.as_str());
        let mut out = Writer::response(&self.invite, status, reason_phrase(status), tag);
        if (101..300).contains(&status) {
            out.echo(&self.invite, Name::RecordRoute);
        }
        for (name, value) in more {
            out.header(name, value);
        }
        out.header("Server", PRODUCT);
        out.finish(body.map(|body| ("application/sdp", body.as_bytes())))
    }

    async fn send_response(&self, status: u16, more: &[(&str, String)], body: Option<&str>) {
        let bytes = self.response(status, more, body);
        self.dialog.wire.send(self.way, bytes).await;
    }
}

/// What the server's INVITEs have and lack (IM-005, IM-045, UL-003, UL-021).
fn check_server(callee: &Callee, invite: &Message) {
    let agent = invite.text(Name::UserAgent).unwrap_or("");
    if !agent.starts_with("IM-serv/") {
        return;
    }
    let complain = |right: bool, what: &str| {
        callee.complaints.check(right, || format!("phone: {invite:?}: {what}"));
    };
    complain(invite.to_tag().is_none(), "a To-tag");
    complain(invite.from_tag().is_some(), "no From-tag");
    for tag in ["100rel", "timer"] {
        complain(invite.has_token(Name::Supported, tag), "Supported lacks 100rel or timer");
        complain(!invite.has_token(Name::Require, tag), "Require has 100rel or timer");
    }
    complain(!invite.has_token(Name::Require, "recipient-list-invite"), "a list tag in Require");
    for method in ["INVITE", "ACK", "CANCEL", "BYE", "PRACK"] {
        complain(invite.has_token(Name::Allow, method), "Allow lacks a method");
    }
    complain(
        invite.text(Name::AcceptContact).is_some_and(|value| value.contains(FEATURE)),
        "Accept-Contact lacks the feature tag",
    );
    if callee.who.visited.is_some() {
        return; // a P-CSCF gets what its phone does not
    }
    for inner in [Name::PServedUser, Name::PChargingVector] {
        complain(invite.header(inner).is_none(), "a header of the core's inside");
    }
}

/// The one description and the history list.
fn read_offer(invite: &Message) -> Result<Offer, String> {
    let kind = invite.content_type().ok_or("no body")?;
    let parts = multipart::flatten(kind, &invite.body_bytes()).map_err(|bad| bad.to_string())?;
    let mut session = None;
    let mut history = None;
    for part in &parts {
        let disposition = part.disposition.as_ref().map(|disposition| disposition.kind.as_str());
        match part.content_type.essence.as_str() {
            "application/sdp" if session.is_none() => session = Some(sdp::read(&part.body)?),
            "application/resource-lists+xml" if disposition == Some("recipient-list-history") => {
                history = Some(String::from_utf8_lossy(&part.body).into_owned());
            }
            other => return Err(format!("a part {other} ({disposition:?})")),
        }
    }
    let session = session.ok_or("no SDP")?;
    let path = MsrpUri::parse_path(&session.path).map_err(|bad| bad.to_string())?;
    let [uri] = &path[..] else {
        return Err("a path of several URIs".to_owned());
    };
    if session.direction != "sendonly" {
        return Err(format!("direction {}", session.direction));
    }
    match session.setup.as_deref() {
        Some("active") => {}
        Some("actpass") if uri.port() == Some(session.port) && session.port != 9 => {}
        other => return Err(format!("setup {other:?} with port {}", session.port)),
    }
    Ok(Offer { session, history })
}

impl Received {
    /// A whole page came.
    fn take(&mut self, got: Got, at: Duration) {
        self.whole = true;
        self.octets = got.body.len() as u64;
        self.chunks = got.chunks;
        self.content_type = got.content_type;
        self.body = got.body;
        self.received = Some(at);
        self.received_at = Some(Instant::now());
    }
}
