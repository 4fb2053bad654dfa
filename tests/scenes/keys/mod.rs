//! The walk: every key of the profile, under two values or more, told the same and seen to do something else each time.
//!
//! Start at [`Case`]. `im`, `isc`, `msrp`, `ul` and `xdm` hold the cases; [`every_key_has_a_case`] takes the list of keys from
//! the program, so that a key that is new and does nothing fails by its name. What counts is what neighbours see: a
//! header, a status, a moment, an SDP line, an MSRP frame. What `check` prints does not count.
//! Where a value refuses something, the log has to name the rule and the key.

mod deferred;
mod dia;
mod im;
mod isc;
mod msrp;
mod sh;
mod ul;
mod xdm;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use pagecast::config::Loaded;
use pagecast::config::layer::Origin;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::callee::Callee;
use crate::caller::Caller;
use crate::net::{Net, millis};
use crate::text::{self, Invite, headers, invite};

/// A scene, told to its end: what was seen.
type Telling = Pin<Box<dyn Future<Output = String>>>;

/// One key of the profile.
struct Case {
    key: &'static str,
    /// Other settings the scene needs, as for `--set`.
    with: &'static [&'static str],
    /// A value as TOML, and what is seen under it. No two are seen alike.
    values: &'static [(&'static str, &'static str)],
    tell: fn(Net) -> Telling,
}

/// Writes cases as `"key" (with "setting=…")? { "value" => "what is seen", … } scene;`.
macro_rules! cases {
    ($($key:literal $(with $($with:literal),+)? { $($value:literal => $seen:literal,)+ } $scene:ident;)+) => {
        pub(super) const CASES: &[$crate::keys::Case] = &[$(
            $crate::keys::Case {
                key: $key,
                with: &[$($($with),+)?],
                values: &[$(($value, $seen)),+],
                tell: |net| Box::pin($scene(net)),
            },
        )+];
    };
}
use cases;

/// What came of one telling.
struct Told {
    account: String,
    /// Rule and key of every refusal that was logged.
    refusals: Vec<(String, String)>,
}

impl Case {
    /// Tells the scene under a shipped profile, with the key at that value or as the profile has it.
    fn told(&self, profile: Option<&Path>, value: Option<&str>) -> Told {
        let key = self.key;
        let mut set: Vec<String> = self.with.iter().map(|with| (*with).to_owned()).collect();
        // Only a plain core is asked for it.
        set.push("core.outbound_proxy=sip:127.0.0.1:5060;transport=tcp".to_owned());
        set.extend(profile.map(|file| format!("profile={}", file.display())));
        set.extend(value.map(|value| format!("profile.{key}={value}")));
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let log = Log::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let seen = tracing_subscriber::registry().with(log.clone());
        let account = tracing::subscriber::with_default(seen, || {
            let scene = || runtime.block_on(async { (self.tell)(Net::with(&set).await).await });
            // A scene that goes nowhere is one account among others: the walk goes on and tells of all of them.
            catch_unwind(AssertUnwindSafe(scene)).unwrap_or_else(|_| "comes to nothing".to_owned())
        });
        let refusals = log.0.lock().expect("no panic").clone();
        Told { account, refusals }
    }
}

/// The refusals in the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(String, String)>>>);

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if line.message.contains("refused") {
            let rule = line.rule.unwrap_or_else(|| {
                // Where there is no request, the rule stands before the words.
                line.message.split_once(": ").map_or("", |(rule, _)| rule).to_owned()
            });
            self.0.lock().expect("no panic").push((rule, line.key));
        }
    }
}

#[derive(Default)]
struct Line {
    message: String,
    rule: Option<String>,
    key: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "rule" => self.rule = Some(value.to_owned()),
            "key" => value.clone_into(&mut self.key),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

fn all() -> impl Iterator<Item = &'static Case> {
    let cases = [im::CASES, isc::CASES, msrp::CASES, sh::CASES, dia::CASES, ul::CASES, xdm::CASES];
    cases.into_iter().flatten().chain(deferred::CASES)
}

fn ship(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ims-profiles").join(name)
}

fn loaded(profile: &Path) -> Loaded {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pagecast.toml");
    let set = [format!("profile={}", profile.display())];
    Loaded::load_with(Some(&file), &set, &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// The keys of the profile, as the program knows them.
fn keys() -> BTreeSet<String> {
    let settings = loaded(&ship("3gpp.toml")).settings;
    settings
        .iter()
        .filter_map(|setting| setting.key.strip_prefix("profile."))
        .map(str::to_owned)
        .collect()
}

/// Every value of every key, on the profile `3gpp`.
fn walk(cases: &[Case]) {
    let known = keys();
    let mut faults = Vec::new();
    for case in cases {
        let key = case.key;
        let mut accounts = BTreeSet::new();
        let (mut refused, mut named) = (false, false);
        for (value, seen) in case.values {
            let Told { account, refusals } = case.told(None, Some(value));
            if account != *seen {
                faults.push(format!("{key} = {value}: {account}, expected {seen}"));
            }
            if !accounts.insert(account.clone()) {
                faults.push(format!("{key} = {value}: seen like another value: {account}"));
            }
            for (rule, named) in &refusals {
                if !rule.contains('-') {
                    faults.push(format!("{key} = {value}: refused without a rule"));
                }
                if !(named.is_empty() || known.contains(named) || is_configuration(named)) {
                    faults
                        .push(format!("{key} = {value}: {rule} names {named:?}, which is no key"));
                }
            }
            if account.starts_with("refused") {
                refused = true;
                named |= refusals.iter().any(|(_, named)| named == key);
            }
        }
        if accounts.len() < 2 {
            faults.push(format!("{key}: one value alone shows nothing"));
        }
        if refused && !named {
            faults.push(format!("{key}: decides on a refusal, and the log does not name it"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn is_configuration(key: &str) -> bool {
    ["service.", "sip.", "core.", "auth."].iter().any(|section| key.starts_with(section))
}

#[test]
fn keys_of_im_change_what_neighbours_see() {
    walk(im::CASES);
}

#[test]
fn keys_of_isc_and_sip_change_what_neighbours_see() {
    walk(isc::CASES);
}

#[test]
fn keys_of_msrp_change_what_neighbours_see() {
    walk(msrp::CASES);
}

#[test]
fn keys_of_deferred_change_what_neighbours_see() {
    walk(deferred::CASES);
}

#[test]
fn keys_of_dia_change_what_neighbours_see() {
    walk(dia::CASES);
}

#[test]
fn keys_of_sh_change_what_neighbours_see() {
    walk(sh::CASES);
}

#[test]
fn keys_of_ul_and_xdm_change_what_neighbours_see() {
    walk(ul::CASES);
}

#[test]
fn keys_of_xdm_change_what_an_xdms_elsewhere_sees() {
    walk(xdm::CASES);
}

#[test]
fn every_key_has_a_case() {
    let known = keys();
    let mut told = BTreeSet::new();
    for case in all() {
        assert!(told.insert(case.key.to_owned()), "{} has two cases", case.key);
    }
    let untold: Vec<&String> = known.difference(&told).collect();
    assert!(untold.is_empty(), "keys nobody has seen doing anything: {untold:?}");
    let unknown: Vec<&String> = told.difference(&known).collect();
    assert!(unknown.is_empty(), "cases without a key: {unknown:?}");
}

/// Where a key has a fixed list of values, all of them are walked: the program says which there are.
#[test]
fn every_choice_of_every_key_is_walked() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pagecast.toml");
    let mut missing = Vec::new();
    for case in all() {
        let set = [format!("profile.{}='none of these'", case.key)];
        let wrong = Loaded::load_with(Some(&file), &set, &|_| None).err();
        let right = wrong.map_or_else(String::new, |wrong| wrong.right);
        let choices: Vec<&str> = match right.strip_prefix("write one of: ") {
            Some(choices) => choices.split(", ").collect(),
            None if right == "write true or false" => vec!["true", "false"],
            None => continue,
        };
        let bare = |value: &str| value.trim_matches(['"', '\'']).to_owned();
        let walked: Vec<String> = case.values.iter().map(|(value, _)| bare(value)).collect();
        let left = choices.into_iter().map(bare).filter(|choice| !walked.contains(choice));
        missing.extend(left.map(|choice| format!("{} = {choice}", case.key)));
    }
    // To neighbours the two cores differ by their profiles' other keys alone.
    assert_eq!(missing, ["core = 3gpp2"]);
}

/// Whatever a refusal names for the log is a key that can be set.
#[test]
fn refusals_name_keys_that_exist() {
    let known = keys();
    let own: BTreeSet<String> =
        loaded(&ship("3gpp.toml")).settings.into_iter().map(|setting| setting.key).collect();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let (mut named, mut strange) = (0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of ours") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).expect("readable");
                for part in text.split(".key(\"").skip(1) {
                    let key = part.split('"').next().unwrap_or_default();
                    named += 1;
                    if !known.contains(key) && !own.contains(key) {
                        strange.push(format!("{}: {key}", path.display()));
                    }
                }
            }
        }
    }
    assert!(named > 20 && strange.is_empty(), "{named} keys are named, not known: {strange:?}");
}

/// What a shipped profile says on top of the one it extends has its effect there, too.
#[test]
fn every_key_of_every_shipped_profile_does_something_there() {
    let folder = std::fs::read_dir(ship("")).expect("the folder is there");
    let mut files: Vec<PathBuf> = folder.map(|file| file.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    let mut faults = Vec::new();
    // 3gpp.toml names every key, and the other tests walk it.
    for file in files.iter().filter(|file| !file.ends_with("3gpp.toml")) {
        let settings = loaded(file).settings;
        let own = settings.iter().filter(|setting| match &setting.origin {
            Origin::File { path, .. } => path.file_name() == file.file_name(),
            _ => false,
        });
        let mut count = 0;
        for key in own.filter_map(|setting| setting.key.strip_prefix("profile.")) {
            let case = all().find(|case| case.key == key).expect("every key has a case");
            let values = case.values.iter().map(|(value, _)| Some(*value)).chain([None]);
            let accounts: BTreeSet<String> =
                values.map(|value| case.told(Some(file), value).account).collect();
            if accounts.len() < 2 {
                faults.push(format!("{}: {key} changes nothing: {accounts:?}", file.display()));
            }
            count += 1;
        }
        assert!(count > 0, "{} says nothing of its own", file.display());
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

// --- what scenes have in common ---

const TEAM: &str = "sip:team@groups.ims.test";

/// Whole milliseconds, seconds where they are whole.
fn time(since: Instant, at: Instant) -> String {
    let millis = (at - since).as_millis();
    if millis >= 1000 { format!("{}s", (millis + 500) / 1000) } else { format!("{millis}ms") }
}

/// The INVITE is refused, or these are invited.
async fn outcome(net: &Net, offer: Invite) -> String {
    let caller = net.scscf().sends(offer).await;
    net.after(millis(5)).await;
    let refusal = net.scscf().takes(&|message| {
        caller.is_mine(message) && message.status().is_some_and(|status| status >= 300)
    });
    if let Some(refusal) = refusal {
        let status = refusal.message.status().expect("a response");
        let warnings = headers(&refusal.message, "Warning");
        let text = warnings.first().and_then(|warning| warning.split('"').nth(1));
        return format!("refused {status} {}", text.unwrap_or_default()).trim_end().to_owned();
    }
    let mut invited = Vec::new();
    while let Some(heard) = net.scscf().takes(&text::is_initial) {
        invited.push(heard.message.uri().to_owned());
    }
    format!("invites {}", invited.join(" "))
}

/// One recipient is invited.
async fn leg(net: &Net, offer: Invite) -> (Caller, Callee) {
    let caller = net.scscf().sends(offer).await;
    let [callee] = net.scscf().gets_invites().await;
    (caller, callee)
}

/// The lines of that name in the only recipient's INVITE.
async fn on_leg(net: &Net, offer: Invite, name: &str) -> String {
    let (_, callee) = leg(net, offer).await;
    let values = headers(&callee.invite, name);
    if values.is_empty() { "none".to_owned() } else { values.join(", ") }
}

/// Alice and Bob, both connected.
async fn joined(net: &Net) -> (Caller, Callee) {
    let (mut alice, mut bob) = leg(net, invite().to(["bob"])).await;
    bob.answers().await;
    alice.is_answered().await;
    (alice, bob)
}
