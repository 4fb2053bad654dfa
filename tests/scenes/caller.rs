//! The originator: its INVITE, its session, its page.

use std::sync::Arc;
use std::time::Duration;

use pagecast::sip::message::Message;

use crate::identity;
use crate::line::Line;
use crate::net::{Heard, SOON, Scscf};
use crate::text::{self, Invite};

/// What is sent: a CPIM message, as a page to many has to be (MS-020).
pub struct Page {
    pub content_type: &'static str,
    pub octets: Vec<u8>,
}

/// A page of Alice's to what she dials with [`text::invite`].
pub fn page(content: &str) -> Page {
    page_to("sip:pages@ims.test", content)
}

pub fn page_to(dialled: &str, content: &str) -> Page {
    let octets = format!(
        "From: <sip:alice@ims.test>\r\nTo: <{dialled}>\r\n\r\nContent-Type: text/plain\r\n\r\n{content}"
    );
    Page { content_type: "message/cpim", octets: octets.into_bytes() }
}

impl Page {
    /// Header lines of a chunk that starts at `start`.
    pub fn lines(&self, start: usize, more: &str) -> String {
        let (total, kind) = (self.octets.len(), self.content_type);
        format!(
            "Message-ID: page1\r\nByte-Range: {start}-*/{total}\r\n{more}Content-Type: {kind}\r\n"
        )
    }
}

pub struct Caller {
    core: Arc<Scscf>,
    invite: Invite,
    pub call_id: String,
    tag: String,
    branch: String,
    me: String,
    cseq: u32,
    /// To as the node answered it.
    to: String,
    target: String,
    their_path: String,
    /// Their fingerprint, over TLS.
    theirs: Option<String>,
    last_branch: String,
    line: Option<Line>,
}

impl Caller {
    pub fn new(core: Arc<Scscf>, invite: Invite) -> Self {
        let n = core.number();
        let caller = Self {
            call_id: format!("call-{n}@ue.test"),
            tag: format!("a{n}"),
            branch: format!("z9hG4bK-a{n}"),
            me: invite
                .path
                .clone()
                .unwrap_or_else(|| format!("{}://192.0.2.55:7394/alice{n};tcp", invite.scheme())),
            cseq: 1,
            to: format!("<{}>", invite.request_uri),
            target: invite.request_uri.clone(),
            their_path: String::new(),
            theirs: None,
            last_branch: String::new(),
            line: None,
            core,
            invite,
        };
        caller.sends_invite();
        caller
    }

    /// Once more, octet by octet the same.
    pub fn sends_invite(&self) {
        let Self { invite, call_id, tag, branch, me, .. } = self;
        self.core.delivers(&invite.write(call_id, tag, branch, me));
    }

    pub fn is_mine(&self, message: &Message) -> bool {
        message.call_id() == self.call_id.as_bytes()
    }

    pub async fn hears_response(&self, method: &str, status: u16, within: Duration) -> Heard {
        let wanted = |message: &Message| {
            self.is_mine(message)
                && message.status() == Some(status)
                && text::method(message) == method
        };
        let what = format!("{status} to {method} for {}", self.call_id);
        self.core.hears_of(&what, within, wanted).await
    }

    /// A provisional response above 100 and not reliable, due at once.
    pub async fn gets_progress(&mut self, status: u16, within: Duration) -> Heard {
        let heard = self.hears_response("INVITE", status, within).await;
        self.learns(&heard.message);
        heard
    }

    /// A reliable provisional response, which is acknowledged.
    pub async fn gets_reliable(&mut self, status: u16, within: Duration) -> Heard {
        let heard = self.gets_progress(status, within).await;
        assert_eq!(text::header(&heard.message, "Require"), "100rel");
        let rseq = text::header(&heard.message, "RSeq");
        self.sends_prack(&rseq).await;
        heard
    }

    pub async fn sends_prack(&mut self, rseq: &str) {
        self.pracks(&format!("{rseq} 1 INVITE"));
        self.hears_response("PRACK", 200, SOON).await;
    }

    /// PRACK with that RAck, whatever comes back.
    pub fn pracks(&mut self, rack: &str) {
        self.cseq += 1;
        let (cseq, to) = (self.cseq, self.to.clone());
        self.request("PRACK", cseq, &self.target, &to, &format!("RAck: {rack}\n"));
    }

    /// The final answer to the INVITE is due: exactly this one. Provisional ones before it do not matter.
    pub async fn gets(&mut self, status: u16) -> Heard {
        self.gets_within(status, SOON).await
    }

    pub async fn gets_within(&mut self, status: u16, within: Duration) -> Heard {
        let is_final = |message: &Message| {
            self.is_mine(message)
                && text::method(message) == "INVITE"
                && message.status().is_some_and(|status| status >= 200)
        };
        let heard = self.core.hears_of(&format!("final {status}"), within, is_final).await;
        assert_eq!(heard.message.status(), Some(status), "{}", text::start_line(&heard.message));
        self.forgets_provisionals();
        self.learns(&heard.message);
        if status >= 300 {
            // The ACK belongs to the INVITE's transaction.
            let to = self.to.clone();
            self.hop_by_hop("ACK", &to);
        }
        heard
    }

    fn forgets_provisionals(&self) {
        let early = |message: &Message| {
            self.is_mine(message) && message.status().is_some_and(|status| status < 200)
        };
        while self.core.takes(&early).is_some() {}
    }

    /// No final answer has come so far.
    pub fn waits(&self) {
        self.forgets_provisionals();
        let left = self.core.left();
        assert!(
            !left.lines().any(|line| line.contains("INVITE]") && line.contains("SIP/2.0")),
            "{left}"
        );
    }

    pub fn learns(&mut self, message: &Message) {
        self.to = text::header(message, "To");
        if let [contact] = &text::headers(message, "Contact")[..] {
            self.target = text::uri(contact);
        }
        if let Some(path) = text::attribute(message, "path") {
            self.their_path = path;
            self.theirs = text::attribute(message, "fingerprint");
        }
    }

    pub fn acks(&self) {
        self.request("ACK", 1, &self.target, &self.to, "");
    }

    /// The ACK to a refusal of the INVITE.
    pub fn acks_invite(&self) {
        self.hop_by_hop("ACK", &self.to);
    }

    /// The ACK to the 2xx of the last request.
    pub fn acks_again(&self) {
        self.request("ACK", self.cseq, &self.target, &self.to, "");
    }

    /// The ACK to the refusal of the last request.
    pub fn acks_refusal(&self) {
        self.write("ACK", self.cseq, &self.target, &self.to, &self.last_branch, "");
    }

    /// What the INVITE offered.
    pub fn sdp(&self) -> String {
        self.invite.sdp(&self.me)
    }

    pub fn their_path(&self) -> String {
        self.their_path.clone()
    }

    /// 200, ACK, connection, binding: the page can be sent.
    pub async fn is_answered(&mut self) -> Heard {
        let heard = self.gets(200).await;
        self.acks();
        self.connects();
        self.line().binds().await;
        heard
    }

    pub fn connects(&mut self) {
        self.line = Some(match self.theirs.clone() {
            None => Line::connect(&self.core, &self.me, &self.their_path),
            Some(theirs) => {
                let (me, them) = (&self.me, &self.their_path);
                Line::secured(&self.core, me, them, identity::phones(), theirs)
            }
        });
    }

    pub fn line(&mut self) -> &mut Line {
        self.line.as_mut().expect("a connection")
    }

    pub fn has_line(&self) -> bool {
        self.line.is_some()
    }

    /// The connection is gone, with whatever was on it.
    pub fn loses_connection(&mut self) {
        self.line = None;
    }

    /// The whole page in one chunk, answered 200.
    pub async fn sends_page(&mut self, page: &Page) {
        self.line().sends(&page.lines(1, ""), Some(&page.octets), '$').await;
        assert_eq!(self.line().hears_answer().await, 200);
    }

    /// Octets `from..to` of the page, answered 200.
    pub async fn sends_part(&mut self, page: &Page, from: usize, to: usize, flag: char) {
        let lines = page.lines(from + 1, "");
        self.line().sends(&lines, Some(&page.octets[from..to]), flag).await;
        assert_eq!(self.line().hears_answer().await, 200);
    }

    pub async fn hangs_up(&mut self) {
        self.says_bye();
        self.hears_response("BYE", 200, SOON).await;
    }

    pub fn says_bye(&mut self) {
        self.cseq += 1;
        self.request("BYE", self.cseq, &self.target, &self.to, "");
    }

    /// Any other request inside the dialog.
    pub fn says(&mut self, method: &str, lines_and_body: &str) {
        self.cseq += 1;
        self.last_branch = format!("z9hG4bK-{}-{method}-{}", self.tag, self.core.number());
        let (cseq, branch) = (self.cseq, &self.last_branch);
        self.write(method, cseq, &self.target, &self.to, branch, lines_and_body);
    }

    pub fn cancels(&self) {
        self.hop_by_hop("CANCEL", &format!("<{}>", self.invite.request_uri));
    }

    /// The node says BYE, within this time; it is answered.
    pub async fn is_told_bye(&self, within: Duration) -> Heard {
        let heard = self.hears_bye(within).await;
        self.core.delivers(&text::response(&heard.message, 200, "", "", ""));
        heard
    }

    /// The node says BYE, and nobody answers.
    pub async fn hears_bye(&self, within: Duration) -> Heard {
        let wanted = |message: &Message| {
            self.is_mine(message) && message.is_request() && text::method(message) == "BYE"
        };
        self.core.hears_of("BYE to the originator", within, wanted).await
    }

    fn request(&self, method: &str, cseq: u32, uri: &str, to: &str, lines: &str) {
        let branch = format!("z9hG4bK-{}-{method}-{}", self.tag, self.core.number());
        self.write(method, cseq, uri, to, &branch, lines);
    }

    /// A request with the Via of the INVITE.
    fn hop_by_hop(&self, method: &str, to: &str) {
        self.write(method, 1, &self.invite.request_uri, to, &self.branch, "");
    }

    fn write(&self, method: &str, cseq: u32, uri: &str, to: &str, branch: &str, lines: &str) {
        let (user, tag, call_id) = (&self.invite.user, &self.tag, &self.call_id);
        self.core.delivers(&format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch={branch}\nMax-Forwards: 67\n\
             From: <sip:{user}@ims.test>;tag={tag}\nTo: {to}\nCall-ID: {call_id}\nCSeq: {cseq} {method}\n\
             Contact: <sip:{user}@192.0.2.55:5060>\n{lines}"
        ));
    }

    /// Nothing of this call is unheard.
    pub fn hears_no_more(&self) {
        let left = self.core.left();
        let mine = |message: &Message| self.is_mine(message);
        assert!(self.core.takes(&mine).is_none(), "{left}");
    }
}
