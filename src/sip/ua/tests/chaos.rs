//! Messages and calls in no sensible order: nothing panics, nothing is kept for ever, limits hold.

use super::*;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }

    fn of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.roll(choices.len())]
    }
}

const METHODS: [&str; 12] = [
    "INVITE", "INVITE", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "INFO", "MESSAGE", "OPTIONS",
    "REGISTER", "NOTIFY",
];
const LINES: [&str; 15] = [
    "Contact: <sip:alice@192.0.2.9>",
    "Contact: *",
    "Supported: timer, 100rel",
    "Require: 100rel",
    "Require: recipient-list-invite",
    "Require: x",
    "RAck: 1 1 INVITE",
    "RSeq: 4711",
    "RSeq: 4294967295",
    "Session-Expires: 90;refresher=uac",
    "Session-Expires: 4294967295;refresher=uas",
    "Session-Expires: x",
    "Min-SE: 4294967295",
    "Record-Route: <sip:a.example;lr>, x <",
    "Allow: UPDATE",
];

fn ask(dice: &mut Dice, tags: &[String]) -> Message {
    let method = METHODS[dice.roll(METHODS.len())];
    let mut ask = Ask::new(method).cseq(dice.roll(5) as u32).branch(&dice.roll(9).to_string());
    ask.call_id = dice.of(&["a", "b", "lm-03aa@192.0.2.1"]).into();
    ask.from_tag = dice.of(&["alice", "t1", "t2"]).into();
    if dice.roll(3) > 0 && !tags.is_empty() {
        ask.to_tag = Some(tags[dice.roll(tags.len())].clone());
    }
    for _ in 0..dice.roll(4) {
        ask = ask.line(LINES[dice.roll(LINES.len())]);
    }
    if dice.roll(3) == 0 {
        ask.line(LINES[0]).sdp(dice.of(&[SDP, OUR_SDP, "", "v=0\r\n"])).write()
    } else {
        ask.write()
    }
}

/// One thing that happens.
fn happen(
    bench: &mut Bench,
    dice: &mut Dice,
    calls: &mut Vec<CallKey>,
    sent: &mut Vec<Sent>,
    open: &mut Vec<RequestKey>,
    heard: &mut std::collections::BTreeSet<String>,
) {
    let call = (!calls.is_empty()).then(|| calls[dice.roll(calls.len())]);
    let status =
        [100, 180, 183, 200, 200, 202, 404, 408, 422, 481, 487, 491, 500, 699][dice.roll(14)];
    let reply = Reply { reliable: dice.roll(2) == 0, ..our_answer(status) };
    match (dice.roll(16), call) {
        (0, _) => calls.push(bench.act(|ua, now| ua.invite(now, our_invite()))),
        (1, Some(call)) => {
            let status = if dice.roll(4) == 0 { status } else { 183 };
            bench.act(|ua, now| ua.progress(now, call, Reply { status, ..reply }));
        }
        (2, Some(call)) => {
            let status = if dice.roll(4) == 0 { status } else { 200 };
            bench.act(|ua, now| ua.answer(now, call, Reply { status, ..reply }));
        }
        (3, Some(call)) => bench.act(|ua, now| ua.reject(now, call, reply)),
        (4, Some(call)) => bench.act(|ua, now| ua.bye(now, call, b"X-Y: z\r\n")),
        (5, Some(call)) => bench.act(|ua, now| ua.cancel(now, call, None)),
        (6, Some(call)) => bench.act(|ua, now| ua.invite_again(now, call, our_invite())),
        (7, Some(call)) if dice.roll(3) == 0 => bench.act(|ua, _| ua.close(call)),
        (8, _) if !open.is_empty() => {
            let request = open.swap_remove(dice.roll(open.len()));
            bench.act(|ua, now| ua.respond(now, request, reply));
        }
        (9 | 10, _) if !sent.is_empty() => {
            let opens = |sent: &&Sent| {
                sent.message.status().is_some_and(|status| (101..300).contains(&status))
                    && sent.message.cseq().method == Method::Invite
            };
            let opened = sent.iter().rev().find(opens).filter(|_| dice.roll(2) == 0);
            let one = opened.unwrap_or(&sent[dice.roll(sent.len())]).clone();
            if !one.message.is_request() {
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8_lossy(bytes.unwrap_or(b"")).into_owned()
                };
                let method = *dice.of(&[&"ACK", &"ACK", &"PRACK", &"BYE", &"UPDATE"]);
                let number = one.message.cseq().number;
                let mut ask = Ask::inside(
                    method,
                    number + u32::from(method != "ACK") * (1 + dice.roll(9) as u32),
                    &one.message,
                );
                ask.call_id = text(Some(one.message.call_id()));
                ask.from_tag = text(one.message.from_tag());
                let rack = format!("RAck: {} {number} INVITE", one.one(Name::RSeq));
                let ask = ask.line(&rack);
                bench.gets(if dice.roll(2) == 0 { ask.sdp(OUR_SDP).write() } else { ask.write() });
            } else {
                let mut lines = String::new();
                for _ in 0..dice.roll(4) {
                    lines.push_str(LINES[dice.roll(LINES.len())]);
                    lines.push_str("\r\n");
                }
                let tag = dice.of(&["t1", "t2", "t3", ""]);
                bench.gets(answer(&one.message, status, tag, &lines, Some(SDP)));
            }
        }
        (11, _) if !sent.is_empty() => {
            let key = sent[dice.roll(sent.len())].key;
            let more = dice.roll(2) == 0;
            bench.act(|ua, now| ua.send_failed(now, key, more));
        }
        (12, _) if !sent.is_empty() => {
            let key = sent[dice.roll(sent.len())].key;
            bench.act(|ua, now| ua.sent(now, key, Protocol::Tcp));
        }
        (14, _) if dice.roll(4) == 0 => {
            let request = OutRequest {
                request_uri: "sip:x".into(),
                to: "<sip:x>".into(),
                from: "<sip:us>".into(),
                ..OutRequest::new(Method::Options)
            };
            bench.act(|ua, now| ua.request(now, request));
        }
        (13, _) => {
            let time = ms(dice.roll(4_000) as u64);
            bench.after(if dice.roll(4) == 0 { seconds(33) } else { time });
        }
        _ => {
            let ours = sent
                .iter()
                .flat_map(|sent| [sent.message.from_tag(), sent.message.to_tag()])
                .flatten();
            let ours: Vec<_> = ours.map(|tag| String::from_utf8_lossy(tag).into_owned()).collect();
            bench.protocol = if dice.roll(4) == 0 { Protocol::Tcp } else { Protocol::Udp };
            let message = ask(dice, &ours);
            bench.gets(message);
        }
    }
    for event in bench.events() {
        heard.extend(name(&event).split(' ').next().map(str::to_owned));
        match event {
            Event::Invited { call, .. } => calls.push(call),
            Event::Requested { request, .. }
            | Event::Offer { request, .. }
            | Event::InDialog { request, .. } => {
                open.push(request);
            }
            _ => {}
        }
    }
    sent.extend(bench.sends());
    let surplus = sent.len().saturating_sub(40);
    sent.drain(..surplus);
}

#[test]
fn nothing_breaks_it_and_nothing_stays() {
    let mut heard = std::collections::BTreeSet::new();
    for seed in 1..=80_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let settings = Settings {
            max_calls: if seed % 2 == 0 { 6 } else { 60 },
            max_transactions: if seed % 2 == 0 { 24 } else { 400 },
            max_forks: 2,
            thread: 3,
            ..Settings::default()
        };
        let mut bench = Bench::with(settings);
        let (mut calls, mut sent, mut open) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..300 {
            happen(&mut bench, &mut dice, &mut calls, &mut sent, &mut open, &mut heard);
        }
        for call in calls {
            bench.act(|ua, _| ua.close(call));
        }
        bench.after(seconds(300));
        bench.events();
        bench.sends();
        assert!(bench.is_empty(), "seed {seed}: {:?}", bench.ua.stats());
    }
    let heard: Vec<_> = heard.iter().map(String::as_str).collect();
    let all = "AckMissing Acked Answered Bye Cancelled InDialog Invited Offer PrackMissing Provisional Rejected \
        Requested Response SessionExpired Stray";
    assert_eq!(heard.join(" "), all, "chaos reaches everything");
}
