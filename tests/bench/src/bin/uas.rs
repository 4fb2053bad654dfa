//! Answers every request with 200, statefully: one thread of pagecast's SIP stack and nothing above it.

use std::net::SocketAddr;
use std::time::Instant;

use clap::Parser;
use pagecast::sip::message::{Limits, Message};
use pagecast::sip::resolve::{Dns, Zone};
use pagecast::sip::transport::{Inbound, Settings, Transport};
use pagecast::sip::ua::{self, Event, Output, Reply, SendKey, Ua};

/// Messages taken before the timers are looked at again.
const BATCH: usize = 64;

#[derive(Parser)]
struct Arguments {
    /// UDP and TCP.
    #[arg(long, default_value = "127.0.0.1:5090")]
    listen: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings {
        udp: vec![arguments.listen],
        tcp: vec![arguments.listen],
        ..Settings::default()
    };
    let mut bound = Transport::<SendKey>::bind(&settings, 1, &Dns::Zone(Zone::default()))?;
    let bound = bound.remove(0);
    println!("ready {:?}", bound.addresses()?);
    let mut transport = bound.start()?;
    let settings = ua::Settings {
        sent_by: arguments.listen.to_string(),
        max_transactions: 8_000_000,
        ..ua::Settings::default()
    };
    let mut seed = getrandom::u64().map_err(std::io::Error::other)?;
    let mut ua = Ua::new(settings, move || {
        // splitmix64
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    });
    let limits = Limits::default();
    let alarm = tokio::time::sleep(std::time::Duration::ZERO);
    tokio::pin!(alarm);
    loop {
        let first = tokio::select! {
            biased;
            up = transport.recv() => Some(up),
            () = alarm.as_mut() => None,
        };
        let now = tokio::time::Instant::now().into_std();
        let mut taken = 0;
        let mut next = first;
        while let Some(up) = next {
            take(&mut ua, &mut transport, now, &limits, up);
            taken += 1;
            next = if taken < BATCH { transport.try_recv() } else { None };
        }
        if ua.next_wake().is_some_and(|at| at <= now) {
            ua.wake(now);
            perform(&mut ua, &mut transport, now);
        }
        // The alarm may ring too early, never too late; so it is only moved when it has to be.
        let due = ua.next_wake().unwrap_or(now + std::time::Duration::from_secs(3600));
        let set = alarm.deadline().into_std();
        if set <= now || due < set {
            alarm.as_mut().reset(due.into());
        }
    }
}

fn take(
    ua: &mut Ua,
    transport: &mut Transport<SendKey>,
    now: Instant,
    limits: &Limits,
    up: Inbound<SendKey>,
) {
    match up {
        Inbound::Message { bytes, flow } => match Message::parse(bytes, limits) {
            Ok(message) => ua.receive(now, message, flow),
            Err(malformed) => ua.malformed(now, malformed, flow),
        },
        Inbound::Malformed { malformed, flow } => ua.malformed(now, malformed, flow),
        Inbound::Outcome { key, sent: Ok(protocol) } => ua.sent(now, key, protocol),
        Inbound::Outcome { key, sent: Err(not) } => ua.send_failed(now, key, not.more),
    }
    perform(ua, transport, now);
}

fn perform(ua: &mut Ua, transport: &mut Transport<SendKey>, now: Instant) {
    while let Some(output) = ua.poll() {
        match output {
            Output::Send { key, to, bytes, via_at, .. } => {
                transport.send(key, &to, bytes, via_at);
            }
            Output::Event(Event::Requested { request, .. }) => {
                ua.respond(now, request, Reply::new(200))
            }
            Output::Event(_) => {}
        }
    }
}
