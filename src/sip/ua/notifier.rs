//! Subscriptions of the peer: its SUBSCRIBEs, the NOTIFYs it is owed, and the end (RFC 6665, the notifier's side).
//!
//! Start at [`Ua::accept_watcher`]. The layer above decides who may watch what, and writes the body of a NOTIFY when
//! [`Event::NotifyDue`] asks for it; when that is, and when a subscription is over, is decided here. A NOTIFY is never
//! sent before the one before it is answered, and those about changes keep their pause. XD-043.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::table::Key;
use super::timers::Token;
use super::transactions::ClientUser;
use super::types::{Event, Reply, RequestKey};
use super::{Due, Ua};
use crate::sip::Flow;
use crate::sip::dialog::{Dialog, Order};
use crate::sip::message::{Message, Method, Name};

/// One subscription of the peer, from [`Ua::accept_watcher`] until [`Event::WatcherGone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatcherKey(Key);

/// How an event package wants its subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// As Event names it.
    pub name: &'static str,
    /// Seconds a subscription lasts where the peer says nothing.
    pub usual: u32,
    /// Shortest and longest time in seconds; 0 is always allowed and asks once.
    pub least: u32,
    pub most: u32,
    /// Least time between a NOTIFY and the next one about a change.
    pub pause: Duration,
}

/// Why a SUBSCRIBE makes no subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwatched {
    /// It has been answered: without a Contact, or for too short a time.
    Answered(u16),
    /// There are as many as may be. It is not answered.
    Full,
}

/// Where a subscription stands.
/// ```text
///          Expires 0, its time is over, end_watcher
/// Active ───────────────────────────────────────────► Ending(reason) ── the last NOTIFY left ──► Told ── answered ──► gone
///    └────── a NOTIFY was refused or not answered ────────┴──────────────────────────────────────────────────────────► gone
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    Ending(&'static str),
    Told,
}

/// What NOTIFY is owed, the most urgent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owed {
    Nothing,
    /// Something changed: after the pause.
    Change,
    /// A SUBSCRIBE was accepted: at once (RFC 6665 §4.2.1.2).
    Answer,
}

/// Where the NOTIFY of the moment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    Landed,
    /// The layer above was asked for its body.
    Asked,
    /// It has no answer yet.
    Sent,
}

#[derive(Debug)]
pub(super) struct Watcher {
    dialog: Dialog,
    /// Where SUBSCRIBEs find it.
    index: u128,
    package: Package,
    /// The Event header's value on every NOTIFY.
    event: String,
    contact: String,
    /// Further lines of every NOTIFY.
    headers: Bytes,
    state: State,
    owed: Owed,
    /// The next NOTIFY tells everything.
    whole: bool,
    /// The last NOTIFY was refused, so that what it told is not known.
    lost: bool,
    flight: Flight,
    /// When it runs out.
    until: Instant,
    end: Option<Token>,
    /// No NOTIFY about a change before.
    not_before: Instant,
    pause: Option<Token>,
}

/// What a timer of a watcher says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatcherTimer {
    End,
    Pause,
}

impl Package {
    /// The time a SUBSCRIBE is granted, in seconds.
    ///
    /// RFC 6665 §4.2.1.1: shorter than asked for, never longer; too short is refused with what would do.
    ///
    /// # Errors
    /// The answer: 423 or 400.
    pub fn duration(&self, subscribe: &Message) -> Result<u32, Box<Reply>> {
        let Some(text) = subscribe.text(Name::Expires) else { return Ok(self.usual) };
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            let reason = Some("Expires unreadable".to_owned());
            return Err(Box::new(Reply { reason, ..Reply::new(400) }));
        }
        // RFC 3261 §20.19: whatever is above stands for the largest.
        let asked = text.parse::<u32>().unwrap_or(u32::MAX);
        if asked > 0 && asked < self.least {
            let headers = Bytes::from(format!("Min-Expires: {}\r\n", self.least));
            return Err(Box::new(Reply { headers, ..Reply::new(423) }));
        }
        Ok(asked.min(self.most))
    }
}

/// The package of an Event value and its `id`.
fn event_of(value: &str) -> (&str, Option<&str>) {
    let mut parts = value.split(';').map(str::trim);
    let package = parts.next().unwrap_or_default();
    let id = parts.find_map(|part| {
        let (name, id) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("id").then(|| id.trim())
    });
    (package, id)
}

impl Ua {
    /// Accepts a SUBSCRIBE that [`Event::Requested`] handed up: 200, and [`Event::NotifyDue`] for the first NOTIFY.
    /// `contact` is the Contact header's value, `headers` further lines of every NOTIFY. With Expires 0 the first NOTIFY is
    /// the last.
    ///
    /// # Errors
    /// [`Unwatched`].
    pub fn accept_watcher(
        &mut self,
        now: Instant,
        request: RequestKey,
        package: Package,
        contact: &str,
        headers: Bytes,
    ) -> Result<WatcherKey, Unwatched> {
        self.latest = Some(now);
        let full = self.watchers.len() >= self.settings.max_calls;
        let server = self.server(request.0).filter(|server| server.is_open());
        let Some((message, tag)) =
            server.and_then(|server| Some((server.request.clone()?, server.tag.clone())))
        else {
            return Err(Unwatched::Answered(481));
        };
        let refused = |ua: &mut Self, reply: &Reply| {
            let status = reply.status;
            ua.reply(now, request.0, reply, &[]);
            Unwatched::Answered(status)
        };
        let seconds = match package.duration(&message) {
            Ok(seconds) => seconds,
            Err(reply) => return Err(refused(self, &reply)),
        };
        let Some(dialog) = Dialog::of_request(&message, &tag) else {
            let reason = Some("Contact missing or unreadable".to_owned());
            return Err(refused(self, &Reply { reason, ..Reply::new(400) }));
        };
        if full {
            return Err(Unwatched::Full);
        }
        let index = self.dialog_key(message.call_id(), tag.as_bytes());
        let id = message.text(Name::Event).and_then(|event| event_of(event).1);
        let watcher = Watcher {
            dialog,
            index,
            package,
            event: id.map_or(package.name.to_owned(), |id| format!("{};id={id}", package.name)),
            contact: contact.to_owned(),
            headers,
            state: State::Active,
            owed: Owed::Nothing,
            whole: true,
            lost: false,
            flight: Flight::Landed,
            until: now,
            end: None,
            not_before: now,
            pause: None,
        };
        let key = self.watchers.insert(Box::new(watcher));
        self.watched.insert(index, key);
        self.grant(now, request.0, key, seconds);
        Ok(WatcherKey(key))
    }

    /// Accepts a SUBSCRIBE that [`Event::Resubscribed`] handed up, or refuses it where its time is too short. A NOTIFY
    /// follows at once, and is the last one for Expires 0. Gives what was answered.
    pub fn renew_watcher(&mut self, now: Instant, watcher: WatcherKey, request: RequestKey) -> u16 {
        self.latest = Some(now);
        let asked = self.server(request.0).and_then(|server| server.request.clone());
        let package = self.watchers.get(watcher.0).map(|watcher| watcher.package);
        let (Some(asked), Some(package)) = (asked, package) else {
            self.reply(now, request.0, &Reply::new(481), &[]);
            return 481;
        };
        match package.duration(&asked) {
            Ok(seconds) => {
                self.grant(now, request.0, watcher.0, seconds);
                200
            }
            Err(reply) => {
                self.reply(now, request.0, &reply, &[]);
                reply.status
            }
        }
    }

    /// 200 with the time granted, then the NOTIFY it is owed.
    fn grant(&mut self, now: Instant, transaction: Key, key: Key, seconds: u32) {
        let Some(watcher) = self.watchers.get_mut(key) else { return };
        let contact = watcher.contact.clone();
        let old = watcher.end.take();
        watcher.until = now + Duration::from_secs(seconds.into());
        (watcher.owed, watcher.whole) = (Owed::Answer, true);
        if seconds == 0 {
            // RFC 6665 §4.4.3: what was asked for once is over.
            watcher.state = State::Ending("timeout");
        }
        let until = watcher.until;
        self.stop_timer(old);
        if seconds > 0 {
            let token = self.timers.start(until, Due::Watcher(key, WatcherTimer::End));
            if let Some(watcher) = self.watchers.get_mut(key) {
                watcher.end = Some(token);
            }
        }
        let headers = Bytes::from(format!("Expires: {seconds}\r\n"));
        let reply = Reply { headers, ..Reply::new(200) };
        self.reply(now, transaction, &reply, &[("Contact", contact.as_bytes())]);
        self.advance_watcher(now, key);
    }

    /// Something changed that this watcher may have to hear of: [`Event::NotifyDue`] comes when it is time.
    pub fn watcher_changed(&mut self, now: Instant, watcher: WatcherKey) {
        self.latest = Some(now);
        if let Some(state) = self.watchers.get_mut(watcher.0) {
            state.owed = state.owed.max(Owed::Change);
            self.advance_watcher(now, watcher.0);
        }
    }

    /// Ends a subscription with a last NOTIFY and this reason (RFC 6665 §4.1.3).
    pub fn end_watcher(&mut self, now: Instant, watcher: WatcherKey, reason: &'static str) {
        self.latest = Some(now);
        if let Some(state) =
            self.watchers.get_mut(watcher.0).filter(|state| state.state == State::Active)
        {
            state.state = State::Ending(reason);
            self.advance_watcher(now, watcher.0);
        }
    }

    /// The NOTIFY [`Event::NotifyDue`] asked for: content type and body, or `None` where there is nothing to tell. That
    /// sends none if it was only about a change, and one without a body otherwise.
    pub fn notify(&mut self, now: Instant, watcher: WatcherKey, body: Option<(&str, &[u8])>) {
        self.latest = Some(now);
        let (branch, via) = self.fresh_via();
        let key = watcher.0;
        let Some(state) = self.watchers.get_mut(key) else { return };
        if state.flight != Flight::Asked {
            return;
        }
        state.flight = Flight::Landed;
        if body.is_none() && state.owed < Owed::Answer && state.state == State::Active {
            self.advance_watcher(now, key);
            return;
        }
        let status = match state.state {
            State::Active => {
                let left = state.until.saturating_duration_since(now).as_millis().div_ceil(1000);
                format!("active;expires={left}")
            }
            State::Ending(reason) => {
                state.state = State::Told;
                format!("terminated;reason={reason}")
            }
            State::Told => return,
        };
        if state.owed == Owed::Answer {
            state.owed = Owed::Nothing;
        }
        (state.flight, state.whole) = (Flight::Sent, false);
        state.not_before = now + state.package.pause;
        let cseq = state.dialog.next_cseq();
        let mut writer = state.dialog.request(&Method::Notify, cseq, &via);
        writer
            .header("Contact", &state.contact)
            .header("Event", &state.event)
            .header("Subscription-State", status)
            .lines(&state.headers);
        let (bytes, next_hop) = (writer.finish(body), state.dialog.next_hop().to_owned());
        self.open_client(now, bytes, branch, next_hop, ClientUser::Notify(key), None);
    }

    /// The final answer to a NOTIFY; `message` is `None` where nobody answered.
    ///
    /// XD-043 (RFC 6665 §4.2.2): no answer or a refusal ends the subscription, without another word; one that says when
    /// to try again does not.
    pub(super) fn notify_response(
        &mut self,
        now: Instant,
        key: Key,
        status: u16,
        message: Option<&Message>,
    ) {
        let Some(state) = self.watchers.get_mut(key) else { return };
        state.flight = Flight::Landed;
        if let Some(message) = message.filter(|_| (200..300).contains(&status)) {
            state.dialog.refresh(message);
        } else {
            let later = message.and_then(|message| message.text(Name::RetryAfter));
            // RFC 3261 §20.33: a comment or parameters may follow.
            let digits = later.map(|text| {
                let text = text.trim();
                &text[..text.bytes().take_while(u8::is_ascii_digit).count()]
            });
            let wait = digits.and_then(|digits| digits.parse::<u32>().ok());
            match wait.filter(|_| status != 481 && state.state == State::Active) {
                Some(seconds) => {
                    state.owed = state.owed.max(Owed::Change);
                    state.lost = true;
                    let wait = Duration::from_secs(seconds.into()).max(state.package.pause);
                    state.not_before = now + wait;
                }
                None => state.state = State::Told,
            }
        }
        if state.state == State::Told {
            self.drop_watcher(key);
            self.event(Event::WatcherGone { watcher: WatcherKey(key), status });
        } else {
            self.advance_watcher(now, key);
        }
    }

    fn drop_watcher(&mut self, key: Key) {
        if let Some(state) = self.watchers.remove(key) {
            self.watched.remove(&state.index);
            self.stop_timer(state.end);
            self.stop_timer(state.pause);
        }
    }

    /// Asks for the next NOTIFY if it is owed and may leave.
    fn advance_watcher(&mut self, now: Instant, key: Key) {
        let Some(state) = self.watchers.get_mut(key) else { return };
        if state.flight != Flight::Landed {
            return;
        }
        let last = matches!(state.state, State::Ending(_));
        if !last && state.owed == Owed::Change && now < state.not_before {
            if state.pause.is_none() {
                let due = Due::Watcher(key, WatcherTimer::Pause);
                state.pause = Some(self.timers.start(state.not_before, due));
            }
            return;
        }
        if !last && state.owed == Owed::Nothing {
            return;
        }
        state.flight = Flight::Asked;
        if state.owed == Owed::Change {
            state.owed = Owed::Nothing;
        }
        let pause = state.pause.take();
        let (whole, lost) = (state.whole, std::mem::take(&mut state.lost));
        self.stop_timer(pause);
        self.event(Event::NotifyDue { watcher: WatcherKey(key), whole, lost });
    }

    pub(super) fn watcher_timer(&mut self, now: Instant, key: Key, timer: WatcherTimer) {
        let Some(state) = self.watchers.get_mut(key) else { return };
        match timer {
            WatcherTimer::Pause => state.pause = None,
            WatcherTimer::End => {
                state.end = None;
                if state.state == State::Active {
                    state.state = State::Ending("timeout");
                }
            }
        }
        self.advance_watcher(now, key);
    }

    /// A SUBSCRIBE in a dialog; `false` if it is of no subscription.
    pub(super) fn receive_resubscribe(
        &mut self,
        now: Instant,
        message: &Message,
        flow: Flow,
        server: u128,
    ) -> bool {
        let Some(tag) = message.to_tag() else { return false };
        let index = self.dialog_key(message.call_id(), tag);
        let Some(key) = self.watched.get(&index).copied() else { return false };
        let refusal = self.refusal_of_resubscribe(key, message);
        let watcher = WatcherKey(key);
        self.judged(now, (message, flow, server), refusal, |request| Event::Resubscribed {
            watcher,
            request,
            message: message.clone(),
            flow,
        });
        true
    }

    /// Why a SUBSCRIBE in a dialog is refused before it is looked at.
    fn refusal_of_resubscribe(&mut self, key: Key, message: &Message) -> Option<Reply> {
        if let Some(refusal) = self.refusal_of_any(message) {
            return Some(refusal);
        }
        let state = self.watchers.get_mut(key)?;
        let remote = message.from_tag().unwrap_or(b"");
        let event = message.text(Name::Event).map(event_of);
        let same = event.is_some_and(|(package, id)| {
            let own = event_of(&state.event);
            package.eq_ignore_ascii_case(own.0) && id == own.1
        });
        // RFC 6665 §4.2.1.3: what ended is no subscription any more.
        if state.dialog.remote_tag() != remote || state.state != State::Active || !same {
            return Some(Reply::new(481));
        }
        if state.dialog.receive_cseq(message.cseq().number) == Order::Old {
            return Some(Reply::new(500));
        }
        state.dialog.refresh(message);
        None
    }
}
