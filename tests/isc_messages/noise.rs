//! Damaged messages: nothing a peer sends may panic, and what is refused says so once.

use bytes::Bytes;
use pagecast::engine::input::Input;
use pagecast::isc::Happening;
use pagecast::sip::message::{Limits, Message};
use pagecast::sip::{Flow, Protocol};

use crate::world::{ANSWER_SDP, INVITE, OWN_PATH, World, group_invite, home, reply};

/// Octets that mean something somewhere, and some that never do.
const ODD: &[u8] = b"\0\r\n \"<>;,:@%=\xff";

/// Small and the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound.max(1)
    }

    /// The text with a few octets changed, doubled, dropped, or a piece moved.
    fn damage(&mut self, text: &str) -> Vec<u8> {
        let mut bytes = text.replace('\n', "\r\n").into_bytes();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes[at] = ODD[self.below(ODD.len())],
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, bytes[at]),
                3 => bytes.truncate(at.max(40)),
                _ => {
                    let end = (at + self.below(60)).min(bytes.len());
                    let piece: Vec<u8> = bytes.drain(at..end).collect();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
            if bytes.is_empty() {
                bytes.push(b'x');
            }
        }
        bytes
    }
}

fn feed(world: &mut World, bytes: Vec<u8>) {
    let flow = Flow {
        protocol: Protocol::Udp,
        local: "192.0.2.10:5060".parse().expect("an address"),
        peer: "192.0.2.40:5060".parse().expect("an address"),
        connection: 0,
        vouched: false,
    };
    match Message::parse(Bytes::from(bytes), &Limits::default()) {
        Ok(message) => world.isc.receive(world.now, message, flow),
        Err(malformed) => world.isc.malformed(world.now, malformed, flow),
    }
    world.drive();
}

#[test]
fn damaged_invites_are_served_or_refused_and_nothing_else() {
    let mut dice = Dice(7);
    let group = group_invite();
    for round in 0..800 {
        let mut world = World::new(home());
        let bytes = dice.damage(if round % 3 == 0 { &group } else { INVITE });
        feed(&mut world, bytes.clone());
        let finals = world.statuses().into_iter().filter(|status| *status >= 200).count();
        let arrived = world.has_arrived();
        assert!(finals <= 1 && !(arrived && finals == 1), "{}", String::from_utf8_lossy(&bytes));
        if arrived {
            let count = world.audience().recipients.len().min(5);
            for n in 1..=count {
                world.invite(u16::try_from(n).expect("few"));
            }
            let page = world.arrival().page;
            world.isc.progress(world.now, page, OWN_PATH, false);
            world.isc.answer(world.now, page, OWN_PATH, &[]);
            world.drive();
            assert_eq!(world.requests("INVITE").len(), count);
        }
    }
}

#[test]
fn damaged_answers_are_told_or_dropped() {
    let mut dice = Dice(11);
    let lines = "Contact: <sip:pf-55@im-as2.home1.example>\nRequire: 100rel\nRSeq: 1\nAllow: INVITE\nContent-Type: application/sdp\n";
    for round in 0..600 {
        let mut world = World::new(home());
        world.receive(INVITE);
        world.invite(1);
        let status = [183, 200, 200, 415, 422, 420][round % 6];
        let text = reply(world.last_request("INVITE"), status, "t", lines, ANSWER_SDP);
        feed(&mut world, dice.damage(&text));
        let told = world.inputs();
        assert!(told.len() <= 1, "{told:?}");
        assert!(told.iter().all(|input| matches!(input, Input::Leg { .. })));
        // A damaged address may look like one behind a border.
        assert!(world.happened.iter().all(|happening| {
            use Happening::{Compare, Input, WithoutCema};
            matches!(happening, Input(_) | Compare(_) | WithoutCema(_))
        }));
    }
}
