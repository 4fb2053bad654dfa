//! A recipient: its invitation, its phone, its end of the line.

use std::sync::Arc;
use std::time::Duration;

use pagecast::sip::message::Message;

use crate::identity::{self, Identity};
use crate::line::{Line, Taken};
use crate::net::{Heard, SOON, Scscf};
use crate::text::{self, RECORD_ROUTE};

pub struct Callee {
    core: Arc<Scscf>,
    pub name: String,
    pub invite: Message,
    pub call_id: String,
    /// To-tag of this phone.
    pub tag: String,
    /// Where this phone wants to be reached.
    pub contact: String,
    me: String,
    line: Option<Line>,
    cseq: u32,
}

impl Callee {
    pub fn new(core: Arc<Scscf>, invite: Message) -> Self {
        let n = core.number();
        let name = text::to_user(&invite);
        let offered = text::attribute(&invite, "path");
        let secure = offered.is_some_and(|path| path.starts_with("msrps:"));
        let scheme = if secure { "msrps" } else { "msrp" };
        Self {
            call_id: text::header(&invite, "Call-ID"),
            tag: format!("{name}{n}"),
            contact: format!("sip:{name}@192.0.2.77:5060"),
            me: format!("{scheme}://192.0.2.77:2855/{name}{n};tcp"),
            line: None,
            cseq: 100,
            core,
            name,
            invite,
        }
    }

    /// A response to the INVITE.
    pub fn says(&self, status: u16, lines: &str, body: &str) {
        let common = if status > 100 && status < 300 {
            format!("Contact: <{}>\nRecord-Route: {RECORD_ROUTE}\n", self.contact)
        } else {
            String::new()
        };
        let tag = if status == 100 { "" } else { &self.tag };
        let all = format!("{common}{lines}");
        self.core.delivers(&text::response(&self.invite, status, tag, &all, body));
    }

    pub fn tries(&self) {
        self.says(100, "", "");
    }

    pub fn rings(&self) {
        self.says(180, "", "");
    }

    pub fn progresses(&self) {
        self.says(183, "", "");
    }

    /// 183 that wants a PRACK.
    pub fn progresses_reliably(&self, rseq: u32) {
        self.says(183, &format!("Require: 100rel\nRSeq: {rseq}\n"), "");
    }

    /// Another phone of the same user, reached by the same INVITE.
    pub fn another_phone(&self) -> Self {
        let mut other = Self::new(Arc::clone(&self.core), self.invite.clone());
        other.contact = other.contact.replace("192.0.2.77", "192.0.2.78");
        other
    }

    /// The INVITE comes once more in this call, with the next CSeq.
    pub async fn is_invited_again(&self) -> Self {
        let again = self.hears("INVITE", SOON).await;
        Self::new(Arc::clone(&self.core), again.message)
    }

    /// As [`Callee::is_invited_again`], if it has come.
    pub fn hears_again(&self) -> Option<Self> {
        let heard = self.core.takes(&|message: &Message| self.is_mine(message, "INVITE"))?;
        Some(Self::new(Arc::clone(&self.core), heard.message))
    }

    /// A request of this call, to this phone where it says to which.
    fn is_mine(&self, message: &Message, method: &str) -> bool {
        message.is_request()
            && message.call_id() == self.call_id.as_bytes()
            && text::method(message) == method
            && message.to_tag().is_none_or(|tag| tag == self.tag.as_bytes())
    }

    /// The node's next request in this call.
    pub async fn hears(&self, method: &str, within: Duration) -> Heard {
        let wanted = |message: &Message| self.is_mine(message, method);
        self.core.hears_of(&format!("{method} to {}", self.name), within, wanted).await
    }

    /// Whether the node has sent such a request by now.
    pub fn has_heard(&self, method: &str) -> bool {
        self.core.takes(&|message: &Message| self.is_mine(message, method)).is_some()
    }

    /// A PRACK is due; it is answered.
    pub async fn gets_prack(&self) -> Heard {
        let heard = self.hears("PRACK", SOON).await;
        self.replies(&heard.message, 200);
        heard
    }

    pub fn replies(&self, request: &Message, status: u16) {
        self.core.delivers(&text::response(request, status, &self.tag, "", ""));
    }

    /// The phone's own path.
    pub fn path(&self) -> &str {
        &self.me
    }

    /// Another path of its own, with relays before it.
    pub fn reached_by(&mut self, path: &str) {
        path.clone_into(&mut self.me);
    }

    pub fn replies_with(&self, request: &Message, status: u16, lines: &str, sdp: bool) {
        let contact = format!("Contact: <{}>\n", self.contact);
        let kind = if sdp { "Content-Type: application/sdp\n" } else { "" };
        let body = if sdp { self.sdp() } else { String::new() };
        let lines = format!("{contact}{lines}{kind}");
        self.core.delivers(&text::response(request, status, &self.tag, &lines, &body));
    }

    /// 200 with a usable answer.
    pub fn accepts(&self) {
        self.accepts_with(&text::answer_sdp(&self.me));
    }

    pub fn accepts_with(&self, sdp: &str) {
        self.says(200, "Allow: INVITE, ACK, BYE, CANCEL\nContent-Type: application/sdp\n", sdp);
    }

    pub fn sdp(&self) -> String {
        text::answer_sdp(&self.me)
    }

    /// 200, its ACK, the connection and the binding: what follows is the page.
    pub async fn answers(&mut self) {
        self.accepts();
        self.hears("ACK", SOON).await;
        self.binds().await;
    }

    pub async fn binds(&mut self) {
        self.connects();
        self.line().binds().await;
    }

    pub fn connects(&mut self) {
        self.line = Some(Line::connect_to(&self.core, &self.me, &self.invite));
    }

    pub fn line(&mut self) -> &mut Line {
        self.line.as_mut().expect("a connection")
    }

    pub fn has_line(&self) -> bool {
        self.line.is_some()
    }

    pub fn loses_connection(&mut self) {
        self.line = None;
    }

    /// A final refusal; its ACK is due.
    pub async fn refuses(&self, status: u16) {
        self.says(status, "", "");
        self.hears("ACK", SOON).await;
    }

    pub async fn got(&mut self) -> Taken {
        self.line().takes_page().await
    }

    /// The node says BYE within this time; it is answered.
    pub async fn is_told_bye(&self, within: Duration) -> Heard {
        let heard = self.hears("BYE", within).await;
        self.replies(&heard.message, 200);
        heard
    }

    /// CANCEL is due within this time; it is answered and the INVITE ends with 487.
    pub async fn is_cancelled(&self, within: Duration) -> Heard {
        let heard = self.hears("CANCEL", within).await;
        self.replies(&heard.message, 200);
        self.says(487, "", "");
        self.hears("ACK", SOON).await;
        heard
    }

    /// BYE of this phone, answered 200.
    pub async fn hangs_up(&mut self) {
        self.says_bye();
        self.hears_ok("BYE").await;
    }

    async fn hears_ok(&self, method: &str) -> Heard {
        let wanted = |message: &Message| {
            message.status() == Some(200)
                && message.call_id() == self.call_id.as_bytes()
                && text::method(message) == method
        };
        self.core.hears_of(&format!("200 to the recipient's {method}"), SOON, wanted).await
    }

    /// The phone is somewhere else now: another path by UPDATE, and another connection that is not bound yet. What is left
    /// of the old one comes back.
    pub async fn moves(&mut self) -> Line {
        self.me = self.me.replace(";tcp", "moved;tcp");
        let sdp = text::answer_sdp(&self.me);
        let contact = &self.contact;
        let more = format!("Contact: <{contact}>\nContent-Type: application/sdp\n\n{sdp}");
        self.asks("UPDATE", &more);
        let heard = self.hears_ok("UPDATE").await;
        let them = text::attribute(&heard.message, "path").expect("a path in the answer");
        let line = Line::connect(&self.core, &self.me, &them);
        self.line.replace(line).expect("a connection")
    }

    /// The phone shows another certificate from now on: by UPDATE, with the same path, and on another connection that is
    /// not bound yet. What is left of the old one comes back.
    pub async fn shows(&mut self, identity: &Identity) -> Line {
        let sdp = text::answer_sdp(&self.me)
            .replace(&identity::phones().fingerprint(), &identity.fingerprint());
        let contact = &self.contact;
        let more = format!("Contact: <{contact}>\nContent-Type: application/sdp\n\n{sdp}");
        self.asks("UPDATE", &more);
        let heard = self.hears_ok("UPDATE").await.message;
        let them = text::attribute(&heard, "path").expect("a path in the answer");
        let print = text::attribute(&heard, "fingerprint").expect("a fingerprint");
        let line = Line::secured(&self.core, &self.me, &them, identity, print);
        self.line.replace(line).expect("a connection")
    }

    pub fn says_bye(&mut self) {
        self.asks("BYE", "");
    }

    /// A request inside the dialog.
    fn asks(&mut self, method: &str, more: &str) {
        self.cseq += 1;
        let target = text::uri(&text::header(&self.invite, "Contact"));
        let (from, to) = (text::header(&self.invite, "To"), text::header(&self.invite, "From"));
        let (tag, call_id, cseq) = (&self.tag, &self.call_id, self.cseq);
        let branch = format!("z9hG4bK-{}", self.core.number());
        self.core.delivers(&format!(
            "{method} {target} SIP/2.0\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch={branch}\nMax-Forwards: 67\n\
             From: {from};tag={tag}\nTo: {to}\nCall-ID: {call_id}\nCSeq: {cseq} {method}\n{more}"
        ));
    }
}
