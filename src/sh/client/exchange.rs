//! One request until its result is final.

use std::time::Duration;

use super::data::{Data, Operation, Subject};
use super::hss::{Binding, is_shed, is_silent};
use super::wildcard::Wildcard;
use super::{Client, SUSPENDED};
use crate::sh::codec::{Avp, Message, Outcome};
use crate::sh::dictionary::{self as d, VENDOR_3GPP, command};
use crate::sh::overload::Class;
use crate::sh::results::{Verdict, verdict};
use crate::sh::routing::Request;

/// SH-033: bits of feature list 1 this server implements: notifications and pulls of several data at once.
pub const NOTIF_EFF: u32 = 1;
const FEATURE_LIST: u32 = 1;
/// Section 10.1 of the rules: pause before a request is repeated.
pub const PAUSE: Duration = Duration::from_secs(1);
/// Each repetition has a reason that comes once; this only holds should two of them take turns.
const MOST_TRIES: usize = 6;

/// What is asked.
pub struct Exchange<'a> {
    pub operation: Operation,
    pub subject: &'a Subject,
    /// Known already, as for a subscription kept over a restart.
    pub wildcard: Option<&'a Wildcard>,
    pub data: &'a [Data],
    pub what: What,
    pub class: Class,
}

/// What the request has besides whose data and which.
pub enum What {
    Pull,
    /// The document.
    Update(String),
    /// Until when, in seconds since 1970.
    Subscribe(i64),
    Unsubscribe,
}

/// Why there is no data in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    Unavailable,
    /// Held back under overload; something more important may pass (SH-031).
    Shed,
    UnknownUser,
    /// This server may not.
    NotPermitted,
    /// Each of the data is to be asked for by itself.
    OneByOne,
    WriteLater,
    OutOfSync,
    TooMuch,
    NothingToSubscribe,
    /// Asked wrongly, or provisioned wrongly.
    Wrong,
}

impl Exchange<'_> {
    fn command(&self) -> u32 {
        match self.what {
            What::Pull => command::USER_DATA,
            What::Update(_) => command::PROFILE_UPDATE,
            What::Subscribe(_) | What::Unsubscribe => command::SUBSCRIBE,
        }
    }

    /// The AVPs of the command in the order of TS 29.329 §6.1, behind its head.
    ///
    /// SH-033: M is set where the request depends on the feature.
    fn avps(&self, announce: bool, wildcard: Option<&Wildcard>) -> Vec<Avp> {
        let several = self.data.len() > 1;
        let mut avps = Vec::with_capacity(8);
        if announce {
            let features = features(NOTIF_EFF);
            avps.push(if several { features.require() } else { features });
        }
        let name = Avp::text(&d::PUBLIC_IDENTITY, self.subject.identity.as_str());
        avps.push(Avp::grouped(&d::USER_IDENTITY, [&name]));
        avps.extend(wildcard.map(Wildcard::avp));
        let mut references: Vec<u32> = self.data.iter().map(Data::reference).collect();
        references.dedup();
        let references = references.into_iter().map(|n| Avp::u32(&d::DATA_REFERENCE, n));
        let slots = self.data.iter().filter_map(|data| match data {
            Data::Repository(slot) => {
                Some(Avp::octets(&d::SERVICE_INDICATION, slot.as_bytes().to_vec()))
            }
            _ => None,
        });
        let sets = self.data.iter().filter_map(|data| match data {
            Data::Identities(set) => Some(Avp::u32(&d::IDENTITY_SET, set.number())),
            _ => None,
        });
        match &self.what {
            What::Pull => avps.extend(slots.chain(references).chain(sets)),
            What::Update(document) => {
                avps.extend(references);
                avps.push(Avp::octets(&d::USER_DATA, document.clone().into_bytes()));
            }
            What::Subscribe(until) => {
                avps.extend(slots);
                avps.push(Avp::u32(&d::SEND_DATA_INDICATION, 1));
                avps.push(Avp::u32(&d::SUBS_REQ_TYPE, 0));
                avps.extend(references.chain(sets));
                avps.push(Avp::time(&d::EXPIRY_TIME, *until));
            }
            What::Unsubscribe => {
                avps.extend(slots);
                avps.push(Avp::u32(&d::SUBS_REQ_TYPE, 1));
                avps.extend(references.chain(sets));
            }
        }
        avps
    }
}

impl Client {
    /// Asks until the result is final.
    ///
    /// SH-026, SH-033, SH-034, SH-052, SH-055 and the table of section 10.1. Repeats a request at most once for each
    /// reason, always as a new one.
    pub(super) async fn exchange(&self, what: &Exchange<'_>) -> Result<Message, Failed> {
        let code = what.command();
        let name = command::name(code);
        let identity = &what.subject.identity;
        let mut to = self.binding(what);
        let mut announce = self.announces(to.as_ref());
        let several = what.data.len() > 1;
        if several && !announce {
            return Err(Failed::OneByOne);
        }
        let mut may_repeat = true;
        for _ in 0..MOST_TRIES {
            let known = self.lock().wildcards.get(identity).cloned();
            let wildcard = what.wildcard.or(known.as_ref());
            let request = Request {
                code,
                destination_host: to.as_ref().map(|to| to.host.clone()),
                destination_realm: to.as_ref().map(|to| to.realm.clone()),
                identity: Some(identity.as_str().to_owned()),
                avps: what.avps(announce, wildcard),
                class: what.class,
                priority: None,
            };
            let answer = match self.hss.ask(request).await {
                Ok(answer) => answer,
                Err(why) => {
                    self.house.answered(name, "unavailable");
                    if is_silent(&why) && to.take().is_some() {
                        self.unbind(what);
                        continue;
                    }
                    self.failed(name, &why.to_string());
                    return Err(if is_shed(&why) { Failed::Shed } else { Failed::Unavailable });
                }
            };
            let outcome = match self.outcome_of(&answer) {
                Ok(outcome) => outcome,
                Err(why) => {
                    self.house.answered(name, "refused");
                    self.failed(name, &why);
                    return Err(Failed::Unavailable);
                }
            };
            let verdict = verdict(outcome);
            self.house.answered(name, word(verdict));
            match verdict {
                Verdict::Success => {
                    self.learn(what, &answer);
                    return Ok(answer);
                }
                Verdict::UnknownUser | Verdict::Undelivered if to.take().is_some() => {
                    self.unbind(what);
                }
                Verdict::AskAgain if may_repeat => {
                    may_repeat = false;
                    tokio::time::sleep(PAUSE).await;
                }
                Verdict::WithoutFeatures if announce => {
                    self.refused_features(name, &answer);
                    announce = false;
                    if several {
                        return Err(Failed::OneByOne);
                    }
                }
                // Which one of them is at fault nobody says.
                Verdict::NotPermitted | Verdict::OurFault if several => {
                    return Err(Failed::OneByOne);
                }
                last => return Err(self.failure(what, outcome, last, &answer)),
            }
        }
        Err(Failed::Unavailable)
    }

    /// SH-052; SH-023: an answer with something mandatory we do not understand is none.
    fn outcome_of(&self, answer: &Message) -> Result<Outcome, String> {
        if let Some(fault) = answer.unknown_mandatory() {
            return Err(format!("an answer with {fault}"));
        }
        if answer.find(&d::RESULT_CODE).is_some() && answer.find(&d::EXPERIMENTAL_RESULT).is_some()
        {
            tracing::warn!(rule = "SH-052", "an answer with two results: that of Sh counts");
        }
        // None at all counts as 5005.
        Ok(answer.outcome().unwrap_or_else(|fault| Outcome::Base(fault.result_code())))
    }

    fn failure(
        &self,
        what: &Exchange<'_>,
        outcome: Outcome,
        verdict: Verdict,
        answer: &Message,
    ) -> Failed {
        let name = command::name(what.command());
        let data = what.data.first().map_or("nothing", Data::name);
        let failed_avp = answer.find(&d::FAILED_AVP).and_then(|avp| avp.as_group().ok());
        match verdict {
            Verdict::UnknownUser => return Failed::UnknownUser,
            Verdict::WriteLater => return Failed::WriteLater,
            Verdict::OutOfSync => return Failed::OutOfSync,
            Verdict::NothingToSubscribe => return Failed::NothingToSubscribe,
            Verdict::NotPermitted => {
                let until = self.now() + SUSPENDED;
                let mut state = self.lock();
                for data in what.data {
                    state.suspended.insert((what.operation, data.reference()), until);
                }
                drop(state);
                tracing::error!(%outcome, operation = ?what.operation, data, rule = "SH-054",
                    "the HSS does not permit this server what it needs; going on without for 15 minutes");
            }
            Verdict::TooMuch => {
                tracing::error!(%outcome, data, rule = "SH-041", "too much for the HSS to store");
            }
            Verdict::OurFault | Verdict::WithoutFeatures => {
                tracing::error!(%outcome, data, command = name, ?failed_avp,
                    "the HSS calls a request wrong: a mistake here, or in how it is provisioned");
            }
            Verdict::Success | Verdict::AskAgain | Verdict::Failed | Verdict::Undelivered => {
                tracing::warn!(%outcome, data, command = name, ?failed_avp, "the HSS refuses");
            }
        }
        self.failed(name, &format!("result {outcome} for {data}"));
        match verdict {
            Verdict::NotPermitted => Failed::NotPermitted,
            Verdict::TooMuch => Failed::TooMuch,
            Verdict::OurFault | Verdict::WithoutFeatures => Failed::Wrong,
            _ => Failed::Unavailable,
        }
    }

    /// What went wrong, for operators.
    fn failed(&self, command: &str, why: &str) {
        self.lock().last_error = Some(format!("{command}: {why}"));
    }

    /// SH-026: the HSS of the subject, as far as it is known.
    fn binding(&self, what: &Exchange<'_>) -> Option<Binding> {
        let now = self.now();
        let state = self.lock();
        let (binding, until) = state.bindings.get(&what.subject.identity)?;
        (*until > now).then(|| binding.clone())
    }

    fn unbind(&self, what: &Exchange<'_>) {
        self.lock().bindings.remove(&what.subject.identity);
    }

    /// Whether features are announced: to whoever has not said that it has none.
    fn announces(&self, to: Option<&Binding>) -> bool {
        let state = self.lock();
        let host = to.map(|binding| &binding.host).or(state.last_host.as_ref());
        host.and_then(|host| state.features.get(host)).is_none_or(|bits| bits & NOTIF_EFF != 0)
    }

    /// Takes from a good answer who gave it, what they can, and under which range they know the identity.
    fn learn(&self, what: &Exchange<'_>, answer: &Message) {
        let name = |def| answer.find(def).and_then(|avp| avp.as_identity().ok());
        let wildcard = Wildcard::of(answer);
        let until = self.now() + self.settings.binding_ttl;
        let identity = &what.subject.identity;
        let mut state = self.lock();
        if let (Some(host), Some(realm)) = (name(&d::ORIGIN_HOST), name(&d::ORIGIN_REALM)) {
            state.features.insert(host.clone(), features_of(answer));
            state.last_host = Some(host.clone());
            state.bindings.insert(identity.clone(), (Binding { host, realm }, until));
        }
        if let Some(wildcard) = wildcard {
            state.wildcards.insert(identity.clone(), wildcard);
        }
    }

    /// SH-034: an HSS does not have the feature, or does not even know that there are features.
    fn refused_features(&self, command: &str, answer: &Message) {
        let host = answer.find(&d::ORIGIN_HOST).and_then(|avp| avp.as_identity().ok());
        tracing::info!(command, host, rule = "SH-034", "the HSS is asked without features");
        let Some(host) = host else { return };
        let mut state = self.lock();
        // What it has in common with us is what it may say it has, but not what it has just refused.
        state.features.insert(host.clone(), features_of(answer) & !NOTIF_EFF);
        state.last_host = Some(host);
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Success => "ok",
        Verdict::UnknownUser => "unknown",
        Verdict::Undelivered | Verdict::AskAgain => "unavailable",
        _ => "refused",
    }
}

/// The Supported-Features AVP with bits of list 1.
pub fn features(bits: u32) -> Avp {
    Avp::grouped(
        &d::SUPPORTED_FEATURES,
        &[
            Avp::u32(&d::VENDOR_ID, VENDOR_3GPP),
            Avp::u32(&d::FEATURE_LIST_ID, FEATURE_LIST),
            Avp::u32(&d::FEATURE_LIST, bits),
        ],
    )
}

/// SH-033: what the sender can; no AVP says nothing at all.
pub fn features_of(message: &Message) -> u32 {
    let list = |avp: &Avp| {
        let members = avp.as_group().ok()?;
        let number = |def| members.iter().find(|member| member.is(def))?.as_u32().ok();
        let ours =
            number(&d::VENDOR_ID)? == VENDOR_3GPP && number(&d::FEATURE_LIST_ID)? == FEATURE_LIST;
        number(&d::FEATURE_LIST).filter(|_| ours)
    };
    message.find_all(&d::SUPPORTED_FEATURES).filter_map(list).fold(0, |all, bits| all | bits)
}
