//! Scenes nobody would tell: everybody does what a die says, for a while, and then nobody does anything any more.
//!
//! Whatever happens, each recipient gets a prefix of the page or all of it, `delivered` is said only of those who have
//! it all, the originator gets one final answer, and in the end the node holds nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use pagecast::msrp::codec::{Flag, Kind};
use pagecast::sip::message::Message;
use tokio::time::timeout;

use crate::callee::Callee;
use crate::caller::{Caller, Page, page};
use crate::net::{Net, millis, seconds};
use crate::text::{self, invite};

/// SplitMix64: another number every time, the same in every run of a seed.
struct Die(u64);

impl Die {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// True in so many of a hundred cases.
    fn says(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

/// A recipient and what became of its call.
struct Phone {
    callee: Callee,
    rseq: u32,
    finished: bool,
    got: Vec<u8>,
    whole: bool,
}

struct Chaos {
    net: Net,
    die: Die,
    alice: Caller,
    page: Page,
    /// Octets sent, and whether the end or the giving up was sent.
    sent: usize,
    ended: bool,
    finals: BTreeSet<u16>,
    cancelled: bool,
    phones: Vec<Phone>,
    /// How many of a hundred messages of the node get lost.
    loss: u64,
}

impl Chaos {
    async fn begin(seed: u64) -> Self {
        let mut die = Die(seed);
        let set: &[&str] = match die.roll(4) {
            0 => &["profile.im.originator_answer=immediate"],
            1 => &["profile.msrp.sr_policy=first_delivery", "profile.im.leg_timeout=20s"],
            2 => &["profile.msrp.page_deadline=40s"],
            _ => &[],
        };
        let net = Net::with(set).await;
        let mut loss = 0;
        if die.says(50) {
            net.scscf().speaks_udp();
            loss = die.roll(4) * 10;
        }
        let names = ["bob", "carol", "dan", "eve"];
        let uris: Vec<_> = names.iter().map(|name| format!("sip:{name}@ims.test")).collect();
        let many = 1 + die.roll(4) as usize;
        let mut offer = invite().listing(uris[..many].iter().map(String::as_str));
        if die.says(50) {
            offer = offer.reliable();
        }
        if die.says(30) {
            offer = offer.line("Session-Expires: 90;refresher=uac\nMin-SE: 90");
        }
        let page = page(&"what will become of it? ".repeat(1 + die.roll(4000) as usize));
        let alice = net.scscf().sends(offer).await;
        let (finals, phones) = (BTreeSet::new(), Vec::new());
        let (sent, ended, cancelled) = (0, false, false);
        Self { net, die, alice, page, sent, ended, finals, cancelled, phones, loss }
    }

    /// What the node has said since is heard, and mostly answered.
    fn listens(&mut self) {
        let core = Arc::clone(self.net.scscf());
        while let Some(message) = core.takes_any() {
            if self.die.says(self.loss) {
                continue;
            }
            if text::is_initial(&message) {
                self.is_invited(message);
            } else if self.alice.is_mine(&message) {
                self.alice_hears(&message);
            } else if message.is_request() {
                self.phone_hears(&message);
            }
        }
    }

    fn is_invited(&mut self, message: Message) {
        let call_id = text::header(&message, "Call-ID");
        let cseq = text::header(&message, "CSeq");
        let callee = Callee::new(Arc::clone(self.net.scscf()), message);
        match self.phones.iter_mut().find(|phone| phone.callee.call_id == call_id) {
            Some(phone) if text::header(&phone.callee.invite, "CSeq") == cseq => {}
            // IM-062: the same call once more.
            Some(phone) => (phone.callee, phone.finished) = (callee, false),
            None => {
                let (got, whole, finished) = (Vec::new(), false, false);
                self.phones.push(Phone { callee, rseq: 1, finished, got, whole });
            }
        }
    }

    fn alice_hears(&mut self, message: &Message) {
        let method = text::method(message);
        if message.is_request() {
            if self.die.says(80) {
                self.net.scscf().delivers(&text::response(message, 200, "", "", ""));
            }
            return;
        }
        let status = message.status().expect("a response");
        if method != "INVITE" || status == 100 {
            return;
        }
        self.alice.learns(message);
        if status < 200 {
            if let [rseq] = &text::headers(message, "RSeq")[..]
                && self.die.says(80)
            {
                self.alice.pracks(&format!("{rseq} 1 INVITE"));
            }
            return;
        }
        self.finals.insert(status);
        assert_eq!(self.finals.len(), 1, "one final answer: {:?}", self.finals);
        if self.die.says(90) {
            if status < 300 {
                self.alice.acks();
            } else {
                self.alice.acks_invite();
            }
        }
    }

    fn phone_hears(&mut self, message: &Message) {
        let call_id = text::header(message, "Call-ID");
        let die = &mut self.die;
        let Some(phone) = self.phones.iter_mut().find(|phone| phone.callee.call_id == call_id)
        else {
            // Its INVITE got lost.
            return;
        };
        match text::method(message).as_str() {
            "ACK" => {}
            "CANCEL" => {
                if die.says(80) {
                    phone.callee.replies(message, 200);
                }
                match die.roll(10) {
                    _ if phone.finished => {}
                    0 => phone.callee.accepts(),
                    1 => return,
                    _ => phone.callee.says(487, "", ""),
                }
                phone.finished = true;
            }
            _ if die.says(80) => phone.callee.replies(message, 200),
            _ => {}
        }
    }

    /// Alice does something.
    async fn alice_acts(&mut self) {
        match self.die.roll(20) {
            0 if !self.cancelled => {
                self.alice.cancels();
                self.cancelled = true;
            }
            1 => self.alice.says_bye(),
            2 => self.alice.loses_connection(),
            3 if self.finals.is_empty() => self.alice.sends_invite(),
            4 | 5 if !self.alice.has_line() => self.alice.connects(),
            6 if self.alice.has_line() => {
                self.alice.line().tries_to_send("Message-ID: bind\r\n", None, '$').await;
            }
            7..=14 if self.alice.has_line() && !self.ended => self.alice_sends().await,
            _ => {}
        }
        if self.alice.has_line() {
            while let Ok(heard) = timeout(millis(2), self.alice.line().hears()).await {
                if heard.is_none() {
                    self.alice.loses_connection();
                    break;
                }
            }
        }
    }

    async fn alice_sends(&mut self) {
        let left = self.page.octets.len() - self.sent;
        let now = if self.die.says(40) { left } else { self.die.roll(left as u64 + 1) as usize };
        let end = self.sent + now;
        let flag = match self.die.roll(20) {
            0 => '#',
            _ if end == self.page.octets.len() => '$',
            _ => '+',
        };
        let report = if self.die.says(50) { "Success-Report: yes\r\n" } else { "" };
        let lines = self.page.lines(self.sent + 1, report);
        let body = self.page.octets[self.sent..end].to_vec();
        if self.alice.line().tries_to_send(&lines, Some(&body), flag).await {
            self.sent = end;
            self.ended = flag != '+';
        } else {
            self.alice.loses_connection();
        }
    }

    /// One of the phones does something.
    async fn phone_acts(&mut self) {
        if self.phones.is_empty() {
            return;
        }
        let n = self.die.roll(self.phones.len() as u64) as usize;
        let Self { die, phones, page, .. } = self;
        let phone = &mut phones[n];
        match die.roll(24) {
            0 if !phone.finished => phone.callee.tries(),
            1 if !phone.finished => phone.callee.rings(),
            2 if !phone.finished => {
                phone.callee.progresses_reliably(phone.rseq);
                phone.rseq += 1;
            }
            3 if !phone.finished => {
                let codes = [302, 404, 415, 422, 480, 486, 503, 603];
                let code = codes[die.roll(codes.len() as u64) as usize];
                let lines = if code == 422 { "Min-SE: 3600\n" } else { "" };
                phone.callee.says(code, lines, "");
                phone.finished = true;
            }
            4 if !phone.finished => {
                phone.callee.says(200, "", "");
                phone.finished = true;
            }
            5..=12 if !phone.finished => {
                phone.callee.accepts();
                phone.finished = true;
                phone.callee.connects();
                phone.binds().await;
            }
            13 => phone.callee.says_bye(),
            14 => phone.callee.loses_connection(),
            15..=23 if phone.callee.has_line() => phone.reads(die, page).await,
            _ => {}
        }
    }

    /// Everything that was claimed is true.
    fn checks(&self) {
        for phone in &self.phones {
            assert!(
                self.page.octets.starts_with(&phone.got),
                "{} got another page",
                phone.callee.name
            );
        }
    }
}

impl Phone {
    async fn binds(&mut self) {
        if !self.callee.line().tries_to_send("Message-ID: bind\r\n", None, '$').await {
            self.callee.loses_connection();
        }
    }

    async fn reads(&mut self, die: &mut Die, page: &Page) {
        while let Ok(heard) = timeout(millis(2), self.callee.line().hears()).await {
            let Some(frame) = heard else { return self.callee.loses_connection() };
            if frame.head.kind != Kind::Send {
                continue;
            }
            if frame.head.has_body {
                let start = frame.head.range.expect("a range").start as usize - 1;
                assert_eq!(start, self.got.len(), "octets in order, once");
                self.got.extend_from_slice(&frame.body);
            }
            let code = match die.roll(60) {
                0 => 413,
                1 => 400,
                2 => return,
                _ => 200,
            };
            self.whole |= frame.flag == Flag::Last && code == 200;
            if self.whole {
                assert!(self.got == page.octets, "`$` means all of it");
            }
            if !self.callee.line().tries_to_respond(&frame.head, code).await {
                return self.callee.loses_connection();
            }
        }
    }
}

async fn plays(seed: u64) {
    let mut chaos = Chaos::begin(seed).await;
    for _ in 0..120 {
        chaos.listens();
        match chaos.die.roll(10) {
            0..=3 => chaos.alice_acts().await,
            4..=7 => chaos.phone_acts().await,
            _ => {
                let times = [1, 50, 300, 700, 1_500, 5_000, 20_000, 40_000];
                let time = times[chaos.die.roll(times.len() as u64) as usize];
                chaos.net.after(millis(time)).await;
            }
        }
        chaos.checks();
    }
    // Nobody says or hears anything any more: every timer of the node runs out.
    let Chaos { net, phones, finals, loss, .. } = chaos;
    net.after(seconds(2_000)).await;
    let results = net.results();
    for phone in &phones {
        let delivered = results.contains(&format!("{} delivered", phone.callee.name));
        assert!(!delivered || phone.whole, "seed {seed}: {} does not have it", phone.callee.name);
    }
    drop(phones);
    net.after(seconds(1)).await;
    let late = std::iter::from_fn(|| net.scscf().takes_any())
        .filter(|message| text::method(message) == "INVITE")
        .filter_map(|message| message.status().filter(|status| *status >= 200));
    let all: BTreeSet<u16> = late.chain(finals).collect();
    // A lost one is not said again once the originator has said BYE.
    assert!(all.len() == 1 || all.is_empty() && loss > 0, "seed {seed}: final answers {all:?}");
    net.ends_somehow().await;
}

/// Proves IM-019, IM-067.
#[test]
fn whatever_everybody_does_nothing_is_left_behind() {
    for seed in 0..60 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let scene = std::panic::AssertUnwindSafe(|| runtime.block_on(plays(seed)));
        if let Err(panic) = std::panic::catch_unwind(scene) {
            eprintln!("the seed was {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
