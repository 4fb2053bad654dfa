//! Who may do what with a group: the rules of a group document applied to one requester (RFC 4745, OMA XDM).
//!
//! Start at [`decide`]. Pure: lists that rules point to are fetched before (see `resolver`). XD-031 to XD-036.

use std::collections::{HashMap, HashSet};

use time::OffsetDateTime;

use super::ruleset::{Condition, Permissions, Rule, Who};
use crate::sip::uri::Uri;

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Requester<'a> {
    /// Asserted identities; any of them may match (XD-031).
    pub identities: &'a [Uri],
    /// The same as keys.
    pub keys: &'a [String],
    /// Asks to stay unknown.
    pub anonymous: bool,
    /// Wall clock.
    pub at: OffsetDateTime,
}

/// What the rules are applied in.
pub struct Surroundings<'a> {
    /// Keys of the group's flattened list.
    pub members: &'a HashSet<String>,
    /// Keys of the lists rules point to, by anchor; `None`: could not be fetched.
    pub external: &'a HashMap<String, Option<HashSet<String>>>,
    /// `xdm.oma_precedence` (XD-035).
    pub precedence: bool,
    /// The key of a URI; `None` for text that is no URI.
    pub key: &'a dyn Fn(&str) -> Option<String>,
}

/// Through what a rule matched; a lower one leaves the higher out (XD-035).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// By name, or as a member.
    Named,
    /// By a list elsewhere.
    External,
    /// As one of many.
    Many,
    /// As nobody else.
    Other,
}

impl Class {
    /// For the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::External => "external list",
            Self::Many => "many",
            Self::Other => "other identity",
        }
    }
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<G> {
    /// What the rules grant that surely match.
    pub grants: G,
    /// What is granted whatever the missing lists hold (XD-034).
    pub least: G,
    /// What may be granted, by what the missing lists hold.
    pub most: G,
    /// The class that decided, if a rule about identities matched.
    pub class: Option<Class>,
}

impl<G: PartialEq> Decision<G> {
    /// A list was missing, and with it another decision is possible (XD-034, XD-037).
    pub fn is_uncertain(&self) -> bool {
        self.least != self.most
    }
}

/// Combines all rules that match.
///
/// XD-033: permissions add up, nothing takes one away; no matching rule grants nothing.
pub fn decide<G: Permissions>(
    rules: &[Rule<G>],
    requester: &Requester<'_>,
    around: &Surroundings<'_>,
) -> Decision<G> {
    let view = View { rules, requester, around };
    let mut matching: Vec<(Option<Class>, G)> = Vec::new();
    let mut doubtful: Vec<(Class, G)> = Vec::new();
    for rule in rules {
        match view.rule(rule) {
            Outcome::Matches(class) => matching.push((class, rule.grants)),
            Outcome::Unknown(class) => doubtful.push((class, rule.grants)),
            Outcome::Fails => {}
        }
    }
    let class = matching.iter().filter_map(|(class, _)| *class).min();
    let joined = |take: &dyn Fn(Option<Class>) -> bool| {
        let mut grants = G::default();
        for (_, granted) in matching.iter().filter(|(of, _)| take(*of)) {
            grants.join_with(*granted);
        }
        grants
    };
    // XD-035: rules that name nobody take part in any case.
    let anyway = joined(&|of| of.is_none());
    let named = joined(&|of| of.is_some() && (of == class || !around.precedence));
    // What somebody may do who is named more closely than a missing list could name him, it cannot change.
    let closer = |of: Class| class.is_none_or(|class| of < class);
    let (mut least, mut most) = (named, named);
    for (of, granted) in doubtful {
        if !around.precedence || closer(of) || Some(of) == class {
            most.join_with(granted);
        }
        if around.precedence && closer(of) {
            least.meet_with(granted);
        }
    }
    let with = |mut grants: G| {
        grants.join_with(anyway);
        grants
    };
    Decision { grants: with(named), least: with(least), most: with(most), class }
}

enum Outcome {
    Matches(Option<Class>),
    Fails,
    /// Would match by this class if the missing lists were in favour.
    Unknown(Class),
}

/// A condition's answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes(Option<Class>),
    No,
    /// Nobody knows; what it would be if it held.
    Unknown(Class),
}

struct View<'a, G> {
    rules: &'a [Rule<G>],
    requester: &'a Requester<'a>,
    around: &'a Surroundings<'a>,
}

impl<G> View<'_, G> {
    /// XD-031: all conditions, or none at all.
    fn rule(&self, rule: &Rule<G>) -> Outcome {
        if rule.beyond_us {
            return Outcome::Fails;
        }
        let mut class: Option<Class> = None;
        let mut unknown: Option<Class> = None;
        for condition in &rule.conditions {
            match self.condition(condition) {
                Holds::Yes(through) => {
                    class = match (class, through) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        (a, b) => a.or(b),
                    };
                }
                Holds::No => return Outcome::Fails,
                Holds::Unknown(would_be) => unknown = Some(would_be),
            }
        }
        match unknown {
            Some(would_be) => Outcome::Unknown(class.map_or(would_be, |class| class.min(would_be))),
            None => Outcome::Matches(class),
        }
    }

    fn condition(&self, condition: &Condition) -> Holds {
        let plain = |holds: bool| if holds { Holds::Yes(None) } else { Holds::No };
        match condition {
            Condition::Identity(who) => {
                let through = who.iter().filter_map(|w| self.who(w)).min();
                through.map_or(Holds::No, |class| Holds::Yes(Some(class)))
            }
            Condition::ListMember => {
                if self.is_in(self.around.members) {
                    Holds::Yes(Some(Class::Named))
                } else {
                    Holds::No
                }
            }
            Condition::ExternalList(anchors) => self.external(anchors),
            Condition::OtherIdentity => self.other(),
            Condition::AnonymousRequest => plain(self.requester.anonymous),
            Condition::Validity(spans) => plain(
                spans
                    .iter()
                    .any(|(from, until)| *from <= self.requester.at && self.requester.at < *until),
            ),
            Condition::Unknown => Holds::No,
        }
    }

    fn is_in(&self, keys: &HashSet<String>) -> bool {
        self.requester.keys.iter().any(|key| keys.contains(key))
    }

    fn external(&self, anchors: &[String]) -> Holds {
        let lists = || anchors.iter().map(|anchor| self.around.external.get(anchor));
        if lists().any(|list| matches!(list, Some(Some(keys)) if self.is_in(keys))) {
            Holds::Yes(Some(Class::External))
        } else if lists().all(|list| matches!(list, Some(Some(_)))) {
            Holds::No
        } else {
            Holds::Unknown(Class::External)
        }
    }

    /// XD-034: no identity and no external list of any rule names the requester.
    fn other(&self) -> Holds {
        let mut unknown = false;
        for condition in self.rules.iter().flat_map(|rule| &rule.conditions) {
            if matches!(condition, Condition::Identity(_) | Condition::ExternalList(_)) {
                match self.condition(condition) {
                    Holds::Yes(_) => return Holds::No,
                    Holds::Unknown(_) => unknown = true,
                    Holds::No => {}
                }
            }
        }
        if unknown { Holds::Unknown(Class::Other) } else { Holds::Yes(Some(Class::Other)) }
    }

    /// XD-032.
    fn who(&self, who: &Who) -> Option<Class> {
        match who {
            Who::One(id) => self.has(id).then_some(Class::Named),
            Who::Many { domain, except_ids, except_domains } => {
                let from =
                    |domain: &str| self.requester.identities.iter().any(|i| is_from(i, domain));
                let inside = match domain {
                    Some(domain) => from(domain),
                    None => !self.requester.identities.is_empty(),
                };
                // One excepted identity is enough, whatever else is asserted.
                let excepted = except_ids.iter().any(|id| self.has(id))
                    || except_domains.iter().any(|domain| from(domain));
                (inside && !excepted).then_some(Class::Many)
            }
            Who::Unknown => None,
        }
    }

    fn has(&self, id: &str) -> bool {
        (self.around.key)(id).is_some_and(|key| self.requester.keys.contains(&key))
    }
}

/// XD-032 (RFC 4745 §7.1): host parts after percent-decoding and ToASCII; a tel URI has none.
fn is_from(identity: &Uri, domain: &str) -> bool {
    let ascii = |name: &str| {
        let plain = super::path::decode(name).unwrap_or_else(|_| name.to_owned());
        idna::domain_to_ascii(&plain).unwrap_or_else(|_| plain.to_ascii_lowercase())
    };
    identity.is_sip() && !domain.is_empty() && ascii(identity.host()) == ascii(domain)
}

#[cfg(test)]
mod tests {
    use super::super::groups::Grants;
    use super::*;
    use time::macros::datetime;

    fn key(uri: &str) -> Option<String> {
        Uri::parse(uri).ok().map(|uri| uri.canonical())
    }

    fn keys(uris: &[&str]) -> HashSet<String> {
        uris.iter().filter_map(|uri| key(uri)).collect()
    }

    fn rule(conditions: Vec<Condition>, initiate: bool) -> Rule {
        let grants = Grants { initiate, ..Grants::default() };
        Rule { conditions, grants, beyond_us: false }
    }

    fn one(id: &str) -> Condition {
        Condition::Identity(vec![Who::One(id.to_owned())])
    }

    fn many(domain: Option<&str>, ids: &[&str], domains: &[&str]) -> Condition {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Condition::Identity(vec![Who::Many {
            domain: domain.map(str::to_owned),
            except_ids: own(ids),
            except_domains: own(domains),
        }])
    }

    struct Case<'a> {
        who: &'a [&'a str],
        anonymous: bool,
        precedence: bool,
        external: HashMap<String, Option<HashSet<String>>>,
    }

    impl Case<'_> {
        fn decide(&self, rules: &[Rule]) -> Decision<Grants> {
            let identities: Vec<Uri> = self.who.iter().map(|w| Uri::parse(w).unwrap()).collect();
            let keys_of: Vec<String> = self.who.iter().filter_map(|w| key(w)).collect();
            let requester = Requester {
                identities: &identities,
                keys: &keys_of,
                anonymous: self.anonymous,
                at: datetime!(2030-06-01 12:00 UTC),
            };
            let members = keys(&["sip:bob@h.example", "tel:+15551"]);
            let around = Surroundings {
                members: &members,
                external: &self.external,
                precedence: self.precedence,
                key: &key,
            };
            decide(rules, &requester, &around)
        }
    }

    fn by<'a>(who: &'a [&'a str]) -> Case<'a> {
        Case { who, anonymous: false, precedence: true, external: HashMap::new() }
    }

    fn may(who: &[&str], conditions: Vec<Condition>) -> bool {
        by(who).decide(&[rule(conditions, true)]).grants.initiate
    }

    /// Proves XD-031, XD-032.
    #[test]
    fn conditions_hold_as_the_rules_say() {
        let bob: &[&str] = &["sip:bob@h.example"];
        let span = |from, until| Condition::Validity(vec![(from, until)]);
        let then = datetime!(2030-06-01 12:00 UTC);
        let before = datetime!(2030-01-01 00:00 UTC);
        let after = datetime!(2031-01-01 00:00 UTC);
        let cases: Vec<(&str, &[&str], Vec<Condition>, bool)> = vec![
            ("no conditions", &["sip:x@y"], vec![], true),
            ("all have to hold", bob, vec![one("sip:bob@h.example"), one("sip:eve@h")], false),
            ("unknown condition", bob, vec![one("sip:bob@h.example"), Condition::Unknown], false),
            ("one, by equality", bob, vec![one("sip:bob@H.EXAMPLE")], true),
            ("one, case of the user", bob, vec![one("sip:Bob@h.example")], false),
            ("second identity", &["sip:b@x", "tel:+1-555-1"], vec![one("tel:+15551")], true),
            (
                "or over the children",
                bob,
                vec![Condition::Identity(vec![Who::Unknown, Who::One("sip:bob@h.example".into())])],
                true,
            ),
            ("unknown child", bob, vec![Condition::Identity(vec![Who::Unknown])], false),
            ("many", bob, vec![many(None, &[], &[])], true),
            ("many, nobody asserted", &[], vec![many(None, &[], &[])], false),
            ("many of the domain", bob, vec![many(Some("H.example"), &[], &[])], true),
            ("many of another", bob, vec![many(Some("example"), &[], &[])], false),
            ("tel has no domain", &["tel:+15551"], vec![many(Some("h.example"), &[], &[])], false),
            ("except id", bob, vec![many(Some("h.example"), &["sip:bob@h.example"], &[])], false),
            (
                "except another id",
                bob,
                vec![many(Some("h.example"), &["sip:al@h.example"], &[])],
                true,
            ),
            ("except domain", bob, vec![many(None, &[], &["h.example"])], false),
            (
                "domain in unicode",
                &["sip:b@xn--bcher-kva.example"],
                vec![many(Some("b\u{fc}cher.example"), &[], &[])],
                true,
            ),
            ("inside the span", bob, vec![span(before, after)], true),
            ("from is inside", bob, vec![span(then, after)], true),
            ("until is outside", bob, vec![span(before, then)], false),
            ("list member", bob, vec![Condition::ListMember], true),
            ("member by number", &["tel:+1-555-1"], vec![Condition::ListMember], true),
            ("no member", &["sip:eve@h"], vec![Condition::ListMember], false),
            ("anonymous-request, not anonymous", bob, vec![Condition::AnonymousRequest], false),
        ];
        for (name, who, conditions, want) in cases {
            assert_eq!(may(who, conditions), want, "{name}");
        }
        let hidden = Case { anonymous: true, ..by(bob) };
        assert!(hidden.decide(&[rule(vec![Condition::AnonymousRequest], true)]).grants.initiate);
        let spoiled = Rule { beyond_us: true, ..rule(vec![], true) };
        assert!(!by(bob).decide(&[spoiled]).grants.initiate);
    }

    /// Proves XD-033.
    #[test]
    fn permissions_add_up_and_nothing_takes_one_away() {
        let bob = by(&["sip:bob@h.example"]);
        let named = |initiate| rule(vec![one("sip:bob@h.example")], initiate);
        assert!(bob.decide(&[named(true), named(false)]).grants.initiate);
        assert!(bob.decide(&[named(false), named(true)]).grants.initiate);
        assert_eq!(bob.decide(&[]).grants, Grants::default());
        assert_eq!(bob.decide(&[rule(vec![one("sip:eve@h")], true)]).grants, Grants::default());
        let anonymity = Grants { anonymity: true, ..Grants::default() };
        let other = Rule { conditions: vec![], grants: anonymity, beyond_us: false };
        let both = bob.decide(&[named(true), other]).grants;
        assert!(both.initiate && both.anonymity);
    }

    /// Name, rules, whether sending is granted with precedence and without, the class that decided.
    type Vector = (&'static str, Vec<Rule>, bool, bool, Option<Class>);

    /// Proves XD-034, XD-035.
    #[test]
    fn the_closest_class_decides() {
        let anchor = "http://h/list".to_owned();
        let external = || Condition::ExternalList(vec![anchor.clone()]);
        let list = |uris: &[&str]| HashMap::from([(anchor.clone(), Some(keys(uris)))]);
        let eve = ["sip:eve@h.example"];
        let cases: Vec<Vector> = vec![
            (
                "named beats many",
                vec![rule(vec![one(eve[0])], false), rule(vec![many(None, &[], &[])], true)],
                false,
                true,
                Some(Class::Named),
            ),
            (
                "a list beats many",
                vec![rule(vec![external()], false), rule(vec![many(None, &[], &[])], true)],
                false,
                true,
                Some(Class::External),
            ),
            (
                "many, where nothing closer matches",
                vec![rule(vec![one("sip:al@h")], false), rule(vec![many(None, &[], &[])], true)],
                true,
                true,
                Some(Class::Many),
            ),
            (
                "a rule that names nobody always takes part",
                vec![rule(vec![one(eve[0])], false), rule(vec![], true)],
                true,
                true,
                Some(Class::Named),
            ),
            (
                "other-identity is not for those in a list",
                vec![rule(vec![external()], false), rule(vec![Condition::OtherIdentity], true)],
                false,
                false,
                Some(Class::External),
            ),
            (
                "other-identity",
                vec![
                    rule(vec![one("sip:al@h")], false),
                    rule(vec![Condition::OtherIdentity], true),
                ],
                true,
                true,
                Some(Class::Other),
            ),
        ];
        for (name, rules, with, without, class) in cases {
            let case = Case { external: list(&eve), ..by(&eve) };
            let decision = case.decide(&rules);
            assert_eq!((decision.grants.initiate, decision.class), (with, class), "{name}");
            let plain = Case { precedence: false, external: list(&eve), ..by(&eve) };
            assert_eq!(plain.decide(&rules).grants.initiate, without, "{name}, union");
            assert!(!decision.is_uncertain(), "{name}");
        }
        let missing = || Case { external: HashMap::from([(anchor.clone(), None)]), ..by(&eve) };
        let only_list = [rule(vec![external()], true)];
        let decision = missing().decide(&only_list);
        assert!(
            !decision.grants.initiate && decision.is_uncertain(),
            "a missing list is no permission, and no refusal"
        );
        let with_many = [rule(vec![external()], false), rule(vec![many(None, &[], &[])], true)];
        assert!(
            missing().decide(&with_many).is_uncertain(),
            "the list might have decided otherwise"
        );
        let with_name = [rule(vec![external()], true), rule(vec![one(eve[0])], true)];
        assert!(!missing().decide(&with_name).is_uncertain(), "named in person");
        let with_other =
            [rule(vec![external()], false), rule(vec![Condition::OtherIdentity], true)];
        assert!(!missing().decide(&with_other).grants.initiate, "nobody knows who is other");
    }
}
