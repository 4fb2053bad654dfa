//! What the engine's tests share: a beginning of time, people, and effects written in one word.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::Engine;
use super::effect::{Cause, Effect};
use super::event::Event;
use super::ids::{LegId, PageId};
use super::input::{Arrival, Input, LegEvent, LegMedia, Mode, OriginatorEvent, OriginatorMedia};
use super::party::{Audience, Copy, Party, Recipient, Target};
use super::policy::Policy;

/// When tests begin. What the real clock says there changes nothing.
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made of nothing")]
pub(super) fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

pub(super) fn party(name: &str) -> Party {
    let uri: Arc<str> = format!("sip:{name}@ims.test").into();
    Party { key: uri.clone(), uri, display: None }
}

pub(super) fn recipient(name: &str) -> Recipient {
    Recipient { party: party(name), copy: Copy::To, anonymize: false, headers: Vec::new() }
}

pub(super) fn audience(names: &[&str]) -> Audience {
    Audience {
        recipients: names.iter().map(|name| recipient(name)).collect(),
        ..Audience::default()
    }
}

/// An effect as one word, with what tells it from others of its kind.
pub(super) fn brief(effect: &Effect) -> String {
    match effect {
        Effect::Resolve { .. } => "resolve".into(),
        Effect::Invite { leg, .. } => format!("invite {}", leg.n),
        Effect::Progress { ringing: false, .. } => "183".into(),
        Effect::Progress { ringing: true, .. } => "180".into(),
        Effect::Answer { .. } => "200".into(),
        Effect::Refuse { refusal, .. } => format!("refuse {}", refusal.status),
        Effect::Cancel { leg, .. } => format!("cancel {}", leg.n),
        Effect::Join { leg } => format!("join {}", leg.n),
        Effect::Abort { leg } => format!("abort {}", leg.n),
        Effect::EndLeg { leg, cause } => format!("bye {}{}", leg.n, reason(cause.as_ref())),
        Effect::EndOriginator { cause, .. } => format!("bye{}", reason(cause.as_ref())),
        Effect::Report { status, .. } => format!("report {status}"),
        Effect::Keep { .. } => "keep".into(),
        Effect::Confirm { .. } => "confirm".into(),
        Effect::Accept { .. } => "202".into(),
        Effect::Deliver { leg, .. } => format!("deliver {}", leg.n),
        Effect::Turn { leg } => format!("turn {}", leg.n),
        Effect::Settled { leg } => format!("settled {}", leg.n),
        Effect::Defer { leg, .. } => format!("defer {}", leg.n),
        Effect::ReleaseLeg { leg } => format!("release {}", leg.n),
        Effect::ReleaseOriginator { .. } => "release".into(),
        Effect::Forget { .. } => "forget".into(),
        Effect::Event(event) => brief_event(event),
    }
}

fn reason(cause: Option<&Cause>) -> String {
    cause.map(|cause| format!("({:?} {})", cause.protocol, cause.code)).unwrap_or_default()
}

fn brief_event(event: &Event) -> String {
    match event {
        Event::PageArrived { .. } => "*arrived".into(),
        Event::PageRefused { status, .. } => format!("*refused {status}"),
        Event::RecipientRemoved { why, .. } => format!("*removed {why:?}"),
        Event::Invited { leg, .. } => format!("*invited {}", leg.n),
        Event::Early { leg, .. } => format!("*early {}", leg.n),
        Event::Joined { leg, .. } => format!("*joined {}", leg.n),
        Event::OriginatorAnswered { .. } => "*answered".into(),
        Event::PageStarted { .. } => "*started".into(),
        Event::PageComplete { .. } => "*complete".into(),
        Event::PageLost { cause, .. } => format!("*lost {:?} {}", cause.protocol, cause.code),
        Event::Sending { leg } => format!("*sending {}", leg.n),
        Event::Delivered { leg, .. } => format!("*delivered {}", leg.n),
        Event::Failed { leg, cause, .. } => {
            format!("*failed {} {:?} {}", leg.n, cause.protocol, cause.code)
        }
        Event::PageEnded { delivered, failed, deferred: 0, .. } => {
            format!("*ended {delivered}+{failed}")
        }
        Event::PageEnded { delivered, failed, deferred, .. } => {
            format!("*ended {delivered}+{failed}+{deferred}")
        }
        Event::PageRestored { .. } => "*restored".into(),
        Event::Deferred { leg, cause } => {
            format!("*deferred {} {:?} {}", leg.n, cause.protocol, cause.code)
        }
        Event::Expired { leg, .. } => format!("*expired {}", leg.n),
    }
}

/// One engine with one page, and a clock of its own.
pub(super) struct Scene {
    pub(super) engine: Engine,
    pub(super) now: Instant,
    pub(super) page: PageId,
    /// Keeping pages goes without saying.
    keeps: bool,
}

impl Scene {
    /// Nobody is waited for, and every page is kept without a word.
    pub(super) fn new(mut policy: Policy) -> Self {
        policy.deferral.enabled = false;
        Self { keeps: true, ..Self::deferring(policy) }
    }

    /// Recipients are waited for, and keeping a page is told like everything else.
    pub(super) fn deferring(policy: Policy) -> Self {
        let engine = Engine::new(policy);
        Self { engine, now: start(), page: PageId::new(0, 1), keeps: false }
    }

    /// A page of alice's, resolved to `names`, on its way. The effects so far are left out.
    pub(super) fn inviting(policy: Policy, names: &[&str]) -> Self {
        let mut scene = Self::new(policy);
        scene.arrives();
        scene.resolves(names);
        scene
    }

    /// The same with everybody joined, the 200 acknowledged and the first octets here.
    pub(super) fn running(policy: Policy, names: &[&str]) -> Self {
        let mut scene = Self::inviting(policy, names);
        for n in 1..=u16::try_from(names.len()).expect("few names") {
            scene.accepts(n);
        }
        scene.originator(OriginatorEvent::Acked);
        scene.starts();
        scene
    }

    pub(super) fn arrival(&self, who: &str) -> Arrival {
        Arrival {
            page: self.page,
            mode: Mode::Large,
            originator: party(who),
            identities: vec![party(who)],
            target: Target::List(Vec::new()),
            dialled: party("pages"),
            anonymous: false,
            size: None,
            reliable: true,
            urgent: false,
            aliases: Vec::new(),
            lifetime: None,
        }
    }

    pub(super) fn does(&mut self, input: Input) -> String {
        let mut out = Vec::new();
        self.engine.handle(self.now, input, &mut out);
        self.told(out)
    }

    /// What is to be said of effects.
    pub(super) fn told(&mut self, mut out: Vec<Effect>) -> String {
        if self.keeps {
            if out.iter().any(|effect| matches!(effect, Effect::Keep { .. })) {
                let kept = Input::Kept { page: self.page, kept: true };
                self.engine.handle(self.now, kept, &mut out);
            }
            out.retain(|effect| {
                !matches!(
                    effect,
                    Effect::Keep { .. } | Effect::Confirm { .. } | Effect::Settled { .. }
                )
            });
        }
        words(&out)
    }

    pub(super) fn arrives(&mut self) -> String {
        let arrival = self.arrival("alice");
        self.does(Input::Arrived(arrival))
    }

    pub(super) fn resolves(&mut self, names: &[&str]) -> String {
        self.does(Input::Resolved { page: self.page, result: Ok(audience(names)) })
    }

    pub(super) fn originator(&mut self, event: OriginatorEvent) -> String {
        self.does(Input::Originator { page: self.page, event })
    }

    pub(super) fn bytes(&mut self, event: OriginatorMedia) -> String {
        self.does(Input::OriginatorMedia { page: self.page, event })
    }

    pub(super) fn leg(&mut self, n: u16, event: LegEvent) -> String {
        self.does(Input::Leg { leg: LegId { page: self.page, n }, event })
    }

    pub(super) fn media(&mut self, n: u16, event: LegMedia) -> String {
        self.does(Input::LegMedia { leg: LegId { page: self.page, n }, event })
    }

    pub(super) fn starts(&mut self) -> String {
        self.bytes(OriginatorMedia::Started { content_type: "text/plain".into(), total: None })
    }

    pub(super) fn completes(&mut self) -> String {
        self.bytes(OriginatorMedia::Complete { size: 100 })
    }

    pub(super) fn early(&mut self, n: u16, ringing: bool) -> String {
        self.leg(n, LegEvent::Early { ringing, allow: None, contact: None })
    }

    pub(super) fn accepts(&mut self, n: u16) -> String {
        self.leg(n, LegEvent::Accepted { allow: None, contact: None })
    }

    pub(super) fn refuses(&mut self, n: u16, status: u16) -> String {
        self.leg(n, LegEvent::Refused { status, text: String::new(), retry_after: None })
    }

    pub(super) fn delivers(&mut self, n: u16) -> String {
        self.media(n, LegMedia::Delivered { octets: 100 })
    }

    /// Lets `time` pass, waking the engine whenever it asked for it; each wake is a line with its time.
    pub(super) fn after(&mut self, time: Duration) -> String {
        let until = self.now + time;
        let mut lines = Vec::new();
        while let Some(at) = self.engine.next_wake().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            let mut out = Vec::new();
            self.engine.wake(self.now, &mut out);
            if !out.is_empty() {
                let ms = (self.now - start()).as_millis();
                let told = self.told(out);
                if !told.is_empty() {
                    lines.push(format!("{}.{:03}s {told}", ms / 1000, ms % 1000));
                }
            }
        }
        self.now = until;
        lines.join("\n")
    }
}

/// Effects in a line.
pub(super) fn words(effects: &[Effect]) -> String {
    let words: Vec<_> = effects.iter().map(brief).collect();
    words.join(", ")
}
