//! Two user agents that call each other through a network that loses messages.

use super::*;

/// Deterministic noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

/// One end: the user agent, its calls and what it heard.
struct End {
    ua: Ua,
    calls: Vec<CallKey>,
    heard: Vec<String>,
    flow: Flow,
}

impl End {
    fn new(thread: u8, own: &str, peer: &str) -> Self {
        let mut noise = Noise(u64::from(thread) + 77);
        let settings = Settings { sent_by: own.into(), thread, ..Settings::default() };
        let flow = Flow {
            protocol: Protocol::Udp,
            local: own.parse().expect("an address"),
            peer: peer.parse().expect("an address"),
            connection: 0,
            vouched: false,
        };
        Self {
            ua: Ua::new(settings, move || noise.next()),
            calls: Vec::new(),
            heard: Vec::new(),
            flow,
        }
    }

    /// Reacts like an impatient person: rings, answers, ends. What leaves.
    fn turn(&mut self, now: Instant, noise: &mut Noise) -> Vec<Message> {
        let mut left = Vec::new();
        while let Some(output) = self.ua.poll() {
            let event = match output {
                Output::Send { bytes, .. } => {
                    left.push(parse(bytes));
                    continue;
                }
                Output::Event(event) => event,
            };
            self.heard.push(name(&event));
            match event {
                Event::Invited { call, .. } => {
                    self.calls.push(call);
                    if noise.percent(70) {
                        self.ua.progress(
                            now,
                            call,
                            Reply { reliable: noise.percent(50), ..our_answer(183) },
                        );
                    }
                    if noise.percent(80) {
                        self.ua.answer(now, call, our_answer(200));
                    } else {
                        self.ua.reject(now, call, Reply::new(486));
                    }
                }
                Event::Provisional { call, .. } if noise.percent(10) => {
                    self.ua.cancel(now, call, None)
                }
                Event::Answered { call, .. } | Event::AckMissing { call } => {
                    self.ua.bye(now, call, b"")
                }
                Event::Acked { call } if noise.percent(20) => self.ua.bye(now, call, b""),
                Event::Requested { request, .. } => self.ua.respond(now, request, Reply::new(200)),
                _ => {}
            }
        }
        left
    }
}

/// Whatever is lost, each call ends once, and nothing is left when all time has passed.
#[test]
fn no_loss_leaves_anything_behind() {
    let mut answered = 0;
    for seed in 1..=60_u64 {
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let loss = [0, 10, 30, 60][seed as usize % 4];
        let mut ends = [
            End::new(1, "192.0.2.1:5060", "192.0.2.2:5060"),
            End::new(2, "192.0.2.2:5060", "192.0.2.1:5060"),
        ];
        let mut now = epoch();
        for number in 0..3 {
            let call_id = format!("{seed}-{number}");
            let contact = "<sip:us@192.0.2.1>".to_owned();
            let call =
                ends[0].ua.invite(now, Invite { call_id, contact, route: vec![], ..our_invite() });
            ends[0].calls.push(call);
        }
        // (when it arrives, at which end)
        let mut wire: Vec<(Instant, usize, Message)> = Vec::new();
        loop {
            for (at, end) in ends.iter_mut().enumerate() {
                for message in end.turn(now, &mut noise) {
                    if !noise.percent(loss) {
                        let copies = if noise.percent(10) { 2 } else { 1 };
                        for _ in 0..copies {
                            wire.push((now + ms(5 + noise.next() % 300), 1 - at, message.clone()));
                        }
                    }
                }
            }
            let arrival = wire.iter().map(|(at, ..)| *at).min();
            let timer = ends.iter().filter_map(|end| end.ua.next_wake()).min();
            let Some(next) = arrival.into_iter().chain(timer).min() else { break };
            now = next.max(now);
            for end in &mut ends {
                end.ua.wake(now);
            }
            let mut due: Vec<_> = wire.extract_if(.., |(at, ..)| *at <= now).collect();
            due.sort_by_key(|(at, ..)| *at);
            for (_, at, message) in due {
                let flow = ends[at].flow;
                ends[at].ua.receive(now, message, flow);
            }
        }
        for (at, end) in ends.iter_mut().enumerate() {
            let ended =
                |what: &str| end.heard.iter().filter(|heard| heard.starts_with(what)).count();
            if at == 0 {
                assert_eq!(
                    ended("Answered") + ended("Rejected"),
                    3,
                    "seed {seed}: {:?}",
                    end.heard
                );
                answered += ended("Answered");
            }
            assert!(
                ended("Acked") + ended("AckMissing") <= end.calls.len(),
                "seed {seed}: {:?}",
                end.heard
            );
            for call in std::mem::take(&mut end.calls) {
                end.ua.close(call);
            }
            while end.ua.poll().is_some() {}
            let stats = end.ua.stats();
            let left = (
                stats.calls,
                stats.client_transactions,
                stats.server_transactions,
                stats.timers,
                end.ua.indexes(),
            );
            assert_eq!(left, (0, 0, 0, 0, 0), "seed {seed}: {:?}", end.heard);
        }
    }
    assert!(answered > 60, "the network lets something through: {answered}");
}
