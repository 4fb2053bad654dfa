//! Access rules of users: XML into plain values (OMA XDM, RFC 4745).
//!
//! Start at [`AccessRules::parse`]. A user says with them who may invite; `recipients` applies them. IM-090.

use roxmltree::{Document, Node};

use super::groups::{BOUNDS, Flaw, checked_within};
use super::ruleset::{self, COMMON, EXTENSIONS, OMA_COMMON, Permissions, Rule, is, trimmed};

/// Namespace of the same action in push-to-talk rules, which the common ones came from.
const POC_RULES: &str = "urn:oma:xml:poc:poc-rules";

/// What a user lets others do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessRules {
    /// In document order.
    pub rules: Vec<Rule<Invite>>,
    /// The first thing a server must not take from a user.
    pub flaw: Option<&'static str>,
    /// What was passed over, for the log.
    pub warnings: Vec<&'static str>,
}

/// What a user's rules say to an invitation, if they say anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Invite(pub Option<Answer>);

/// `allow-invite`, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// Not from them.
    Reject,
    /// The phone is to ask.
    Pass,
    /// Without being asked.
    Accept,
}

impl Permissions for Invite {
    /// XD-033: of ordered values the greatest.
    fn join_with(&mut self, other: Self) {
        self.0 = self.0.max(other.0);
    }

    fn meet_with(&mut self, other: Self) {
        self.0 = self.0.min(other.0);
    }
}

impl AccessRules {
    /// Reads a document.
    ///
    /// # Errors
    /// [`Flaw`] when nothing can be made of it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let text = checked_within(bytes, &BOUNDS)?;
        let document =
            Document::parse(text).map_err(|_| Flaw::NotWellFormed("not well-formed XML"))?;
        let root = document.root_element();
        if !is(root, COMMON, "ruleset") {
            return Err(Flaw::Schema("the root is no ruleset"));
        }
        let mut warnings = Vec::new();
        let rules = ruleset::read(root, |node, invite| action(node, invite, &mut warnings));
        Ok(Self { rules, flaw: warnings.first().copied(), warnings })
    }
}

/// One action of a rule; whether it is one we know.
fn action(node: Node<'_, '_>, invite: &mut Invite, warnings: &mut Vec<&'static str>) -> bool {
    let ours = [POC_RULES, OMA_COMMON, EXTENSIONS];
    if !ours.iter().any(|namespace| is(node, namespace, "allow-invite")) {
        return false;
    }
    invite.0 = match trimmed(node) {
        "accept" => Some(Answer::Accept),
        "pass" => Some(Answer::Pass),
        "reject" => Some(Answer::Reject),
        _ => {
            warnings.push("allow-invite is none of its values");
            return false;
        }
    };
    true
}

#[cfg(test)]
mod tests {
    use super::super::ruleset::{Condition, Who};
    use super::*;

    fn read(inside: &str) -> AccessRules {
        let text = format!(
            "<r:ruleset xmlns:r='{COMMON}' xmlns:o='{OMA_COMMON}' xmlns:x='{EXTENSIONS}' xmlns:p='{POC_RULES}'>\
             {inside}</r:ruleset>"
        );
        AccessRules::parse(text.as_bytes()).expect("access rules")
    }

    fn said(action: &str) -> (Invite, bool, bool) {
        let rules = read(&format!("<r:rule id='a'><r:actions>{action}</r:actions></r:rule>"));
        (rules.rules[0].grants, rules.rules[0].beyond_us, rules.flaw.is_some())
    }

    /// Proves IM-090, XD-030.
    #[test]
    fn an_invitation_is_accepted_passed_on_or_rejected() {
        let some = |answer| Invite(Some(answer));
        for (action, want) in [
            ("<o:allow-invite>accept</o:allow-invite>", (some(Answer::Accept), false, false)),
            ("<x:allow-invite> pass </x:allow-invite>", (some(Answer::Pass), false, false)),
            ("<p:allow-invite>reject</p:allow-invite>", (some(Answer::Reject), false, false)),
            ("<p:allow-invite>block</p:allow-invite>", (Invite(None), false, true)),
            (
                "<p:allow-invite must-understand='true'>block</p:allow-invite>",
                (Invite(None), true, true),
            ),
            ("<allow-invite xmlns='urn:other'>reject</allow-invite>", (Invite(None), false, false)),
            ("<x:new must-understand='1'/>", (Invite(None), true, false)),
            (
                "<x:allow-offline-storage>true</x:allow-offline-storage>",
                (Invite(None), false, false),
            ),
            ("", (Invite(None), false, false)),
        ] {
            assert_eq!(said(action), want, "{action}");
        }
    }

    /// Proves XD-033.
    #[test]
    fn the_greatest_answer_counts() {
        let order = [None, Some(Answer::Reject), Some(Answer::Pass), Some(Answer::Accept)];
        for (at, a) in order.into_iter().enumerate() {
            for b in order.into_iter().skip(at) {
                let (mut most, mut least) = (Invite(a), Invite(b));
                most.join_with(Invite(b));
                least.meet_with(Invite(a));
                assert_eq!((most, least), (Invite(b), Invite(a)));
            }
        }
    }

    #[test]
    fn conditions_are_those_of_groups() {
        let rules = read(
            "<r:rule id='blocked'><r:conditions><o:external-list><o:entry anc='http://h/l'/></o:external-list>\
             </r:conditions></r:rule><r:rule id='b'><r:conditions><r:identity><r:one id='sip:a@h'/></r:identity>\
             </r:conditions></r:rule>",
        );
        assert_eq!(rules.rules[0].conditions, [Condition::ExternalList(vec!["http://h/l".into()])]);
        let one = Condition::Identity(vec![Who::One("sip:a@h".into())]);
        assert_eq!(rules.rules[1].conditions, [one]);
        for bad in ["<ruleset/>", "<!DOCTYPE a><a/>", "<r", ""] {
            assert!(AccessRules::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
